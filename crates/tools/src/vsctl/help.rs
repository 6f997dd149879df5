//! What `ovs-vsctl --help` says.

use crate::dbctl::{Tool, help};
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

/// The whole text.
pub fn help(program: &str, default_db: &str, idl: &Idl, tool: &Tool) -> String {
    let mut out = format!(
        "{program}: ovs-vswitchd management utility\nusage: {program} [OPTIONS] COMMAND [ARG...]\n\n"
    );
    out.push_str(COMMANDS);
    out.push_str(&help::database_commands(idl, tool));
    out.push_str(&OPTIONS.replace("@DEFAULT_DB@", default_db));
    out.push_str(&help::common(program, tool, 24, true));
    out
}

/// Whether each command is spoken of.
#[cfg(test)]
pub fn mentions<X>(command: &crate::dbctl::Command<X>) -> bool {
    help::mentions(COMMANDS, command.name)
}
