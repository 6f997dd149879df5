//! What `ovs-vsctl --help` says.

use crate::dbctl::{RowName, Tool};
use ib_ovsdb::idl::Idl;

const COMMANDS: &str = "\
Open vSwitch commands:
  init                        initialize database, if not yet initialized
  show                        print overview of database contents
  emer-reset                  reset configuration to clean state

Bridge commands:
  add-br BRIDGE               create a new bridge named BRIDGE
  add-br BRIDGE PARENT VLAN   create new fake BRIDGE in PARENT on VLAN
  del-br BRIDGE               delete BRIDGE and all of its ports
  list-br                     print the names of all the bridges
  br-exists BRIDGE            exit 2 if BRIDGE does not exist
  br-to-vlan BRIDGE           print the VLAN which BRIDGE is on
  br-to-parent BRIDGE         print the parent of BRIDGE
  br-set-external-id BRIDGE KEY VALUE  set KEY on BRIDGE to VALUE
  br-set-external-id BRIDGE KEY  unset KEY on BRIDGE
  br-get-external-id BRIDGE KEY  print value of KEY on BRIDGE
  br-get-external-id BRIDGE  list key-value pairs on BRIDGE

Port commands (a bond is considered to be a single port):
  list-ports BRIDGE           print the names of all the ports on BRIDGE
  add-port BRIDGE PORT        add network device PORT to BRIDGE
  add-bond BRIDGE PORT IFACE...  add bonded port PORT in BRIDGE from IFACES
  add-bond-iface BOND IFACE   add IFACE to the existing port BOND
  del-bond-iface [BOND] IFACE  remove IFACE from its port (BOND)
  del-port [BRIDGE] PORT      delete PORT (which may be bonded) from BRIDGE
  port-to-br PORT             print name of bridge that contains PORT

Interface commands (a bond consists of multiple interfaces):
  list-ifaces BRIDGE          print the names of all interfaces on BRIDGE
  iface-to-br IFACE           print name of bridge that contains IFACE

Controller commands:
  get-controller BRIDGE      print the controllers for BRIDGE
  del-controller BRIDGE      delete the controllers for BRIDGE
  [--inactivity-probe=MSECS]
  set-controller BRIDGE TARGET...  set the controllers for BRIDGE
  get-fail-mode BRIDGE       print the fail-mode for BRIDGE
  del-fail-mode BRIDGE       delete the fail-mode for BRIDGE
  set-fail-mode BRIDGE MODE  set the fail-mode for BRIDGE to MODE

Manager commands:
  get-manager                print the managers
  del-manager                delete the managers
  [--inactivity-probe=MSECS]
  set-manager TARGET...      set the list of managers to TARGET...

SSL commands:
  get-ssl                     print the SSL configuration
  del-ssl                     delete the SSL configuration
  set-ssl PRIV-KEY CERT CA-CERT  set the SSL configuration

Auto Attach commands:
  add-aa-mapping BRIDGE I-SID VLAN   add Auto Attach mapping to BRIDGE
  del-aa-mapping BRIDGE I-SID VLAN   delete Auto Attach mapping VLAN from BRIDGE
  get-aa-mapping BRIDGE              get Auto Attach mappings from BRIDGE

Conntrack zone commands:
  add-zone-tp DATAPATH zone=ZONE POLICY=SECS...  set timeout policies of ZONE
  del-zone-tp DATAPATH zone=ZONE     delete the timeout policies of ZONE
  list-zone-tp DATAPATH              print the timeout policies of all zones
  set-zone-limit DATAPATH ZONE|default LIMIT  set conntrack limit of ZONE
  del-zone-limit DATAPATH ZONE|default  delete conntrack limit of ZONE
  list-zone-limits DATAPATH          print the conntrack limits

Datapath commands:
  list-dp-cap DATAPATH        print the capabilities of DATAPATH

Switch commands:
  emer-reset                  reset switch to known good state

Database commands:
  list TBL [REC]              list RECord (or all records) in TBL
  find TBL CONDITION...       list records satisfying CONDITION in TBL
  get TBL REC COL[:KEY]       print values of COLumns in RECord in TBL
  set TBL REC COL[:KEY]=VALUE set COLumn values in RECord in TBL
  add TBL REC COL [KEY=]VALUE add (KEY=)VALUE to COLumn in RECord in TBL
  remove TBL REC COL [KEY=]VALUE  remove (KEY=)VALUE from COLumn
  clear TBL REC COL           clear values from COLumn in RECord in TBL
  create TBL COL[:KEY]=VALUE  create and initialize new record
  destroy TBL REC             delete RECord from TBL
  wait-until TBL REC [COL[:KEY]=VALUE]  wait until condition is true
Potentially unsafe database commands require --force option.
Database commands may reference a row in each table in the following ways:
";

const OPTIONS: &str = "
Options:
  --db=DATABASE               connect to DATABASE
                              (default: @DEFAULT_DB@)
  --no-wait                   do not wait for ovs-vswitchd to reconfigure
  --retry                     keep trying to connect to server forever
  -t, --timeout=SECS          wait at most SECS seconds for ovs-vswitchd
  --dry-run                   do not commit changes to database
  --oneline                   print exactly one line of output per command
";

const CONNECTIONS: &str = "
Active database connection methods:
  tcp:HOST:PORT           PORT at remote HOST
  ssl:HOST:PORT           SSL PORT at remote HOST
  unix:FILE               Unix domain socket named FILE
Passive database connection methods:
  ptcp:PORT[:IP]          listen to TCP PORT on IP
  pssl:PORT[:IP]          listen for SSL on PORT on IP
  punix:FILE              listen on Unix domain socket FILE
PKI configuration (required to use SSL):
  -p, --private-key=FILE  file with private key
  -c, --certificate=FILE  file with certificate for private key
  -C, --ca-cert=FILE      file with peer CA certificate
  --bootstrap-ca-cert=FILE  file with peer CA certificate to read or create
SSL/TLS options:
  --ssl-protocols=PROTOS    range of SSL/TLS protocols to enable
  --ssl-ciphers=CIPHERS     list of SSL/TLS ciphers to enable
                            with TLSv1.2
  --ssl-ciphersuites=SUITES list of SSL/TLS ciphersuites to
                            enable with TLSv1.3 and later
  --ssl-server-name=NAME    server name for TLS Server Name
                            Indication (SNI)
";

const OTHERS: &str = "
Other options:
  -h, --help                  display this help message
  -V, --version               display version information
";

/// The connection part of the help of all database tools.
pub fn connections() -> &'static str {
    CONNECTIONS
}

/// The whole text.
pub fn help(program: &str, default_db: &str, idl: &Idl, tool: &Tool) -> String {
    let mut out = format!(
        "{program}: ovs-vswitchd management utility\nusage: {program} [OPTIONS] COMMAND [ARG...]\n\n"
    );
    out.push_str(COMMANDS);
    for table in idl.table_names() {
        out.push_str(&format!("  {table}:\n    by UUID\n"));
        for name in tool.names.iter().filter(|n| n.table == &**table) {
            out.push_str(&format!("    {}\n", describe(name)));
        }
    }
    out.push_str(&OPTIONS.replace("@DEFAULT_DB@", default_db));
    out.push_str(crate::table::HELP);
    out.push_str(&ib_sys::daemon::vlog_usage(program));
    out.push_str("  --no-syslog             equivalent to --verbose=vsctl:syslog:warn\n");
    out.push_str(CONNECTIONS);
    out.push_str(OTHERS);
    out
}

fn describe(name: &RowName) -> String {
    match (name.name_column, name.ref_column) {
        (None, _) => "as \".\"".to_string(),
        (Some(column), None) => format!("by \"{column}\""),
        (Some(column), Some(reference)) => {
            format!("via \"{reference}\" of {} with matching \"{column}\"", name.via_table)
        }
    }
}

/// Whether each command is spoken of.
#[cfg(test)]
pub fn mentions<X>(command: &crate::dbctl::Command<X>) -> bool {
    COMMANDS.lines().any(|line| line.split_whitespace().any(|word| word == command.name))
}
