//! What the database tools' `--help` texts share.

use super::{RowName, Tool};
use ib_ovsdb::idl::Idl;

const DATABASE: &str = "\
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

const CONNECTIONS: &str = "
Active database connection methods:
  tcp:HOST:PORT           PORT at remote HOST
  ssl:HOST:PORT           SSL/TLS PORT at remote HOST
  unix:FILE               Unix domain socket named FILE
Passive database connection methods:
  ptcp:PORT[:IP]          listen to TCP PORT on IP
  pssl:PORT[:IP]          listen for SSL/TLS on PORT on IP
  punix:FILE              listen on Unix domain socket FILE
PKI configuration (required to use SSL/TLS):
  -p, --private-key=FILE  file with private key
  -c, --certificate=FILE  file with certificate for private key
  -C, --ca-cert=FILE      file with peer CA certificate
{bootstrap}SSL/TLS options:
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

/// The connection part of the help of all database tools; some can take a CA certificate from the first peer.
pub fn connections(bootstrap: bool) -> String {
    let option = "  --bootstrap-ca-cert=FILE  file with peer CA certificate to read or create\n";
    CONNECTIONS.replace("{bootstrap}", if bootstrap { option } else { "" })
}

/// The generic commands, and how they may name rows.
pub fn database_commands(idl: &Idl, tool: &Tool) -> String {
    let mut out = DATABASE.to_string();
    for table in idl.table_names() {
        out.push_str(&format!("  {table}:\n    by UUID\n"));
        for name in tool.names.iter().filter(|n| n.table == &**table) {
            out.push_str(&format!("    {}\n", describe(name)));
        }
    }
    out
}

/// What follows the tool's own options. `width` is where the explanation of `--no-syslog` begins.
pub fn common(program: &str, tool: &Tool, width: usize, bootstrap: bool) -> String {
    let mut out = crate::table::HELP.to_string();
    out.push_str(&ib_sys::daemon::vlog_usage(program));
    out.push_str(&format!(
        "  {:width$}equivalent to --verbose={}:syslog:warn\n",
        "--no-syslog",
        tool.module.name()
    ));
    out.push_str(&connections(bootstrap));
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

/// Whether a text of help, or the generic commands, speak of a command.
#[cfg(test)]
pub fn mentions(text: &str, command: &str) -> bool {
    text.lines().chain(DATABASE.lines()).any(|line| line.split_whitespace().any(|word| word == command))
}
