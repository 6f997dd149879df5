//! Other people's database clients on our server: PyPI's `ovs` IDL through lost sessions and a restart, `ovsdbapp` on
//! OVN's northbound schema, Debian's `vtep-ctl` and `ovsdb-client`.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Dir, wait_for};

/// A database server of its own, ours or Debian's.
struct Server {
    dir: Dir,
    program: PathBuf,
}

impl Server {
    fn start(program: &Path, schema: &str) -> Server {
        let server = Server { dir: Dir::new("clients"), program: program.into() };
        server.run(&["ovsdb-tool", "create", "conf.db", schema]);
        server.run_server();
        server
    }

    fn ours(schema: &str) -> Server {
        Server::start(Path::new(env!("CARGO_BIN_EXE_ironbridge")), schema)
    }

    fn run_server(&self) {
        let remote = format!("--remote=punix:{}", self.dir.file("db.sock"));
        let control = format!("--unixctl={}", self.dir.file("db.ctl"));
        let args = ["--detach", "--no-chdir", "--pidfile", "-vconsole:off", &remote, &control, "conf.db"];
        let mut command = self.command(&self.program.display().to_string());
        if self.program.ends_with("ironbridge") {
            command.arg("ovsdb-server");
        }
        assert!(command.args(args).status().unwrap().success());
    }

    fn stop(&self) {
        let pid = std::fs::read_to_string(self.dir.file("ovsdb-server.pid")).unwrap_or_default();
        let _ = Command::new("kill").arg(pid.trim()).output();
        wait_for("the server to end", 10, || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(var, self.dir.path());
        }
        command.env("OVS_CTL_TIMEOUT", "20").current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs a program; its output, errors and exit code as one text.
    fn run(&self, args: &[&str]) -> String {
        let out = self.command(args[0]).args(&args[1..]).output().unwrap();
        let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&out.stderr));
        if !out.status.success() {
            text.push_str(&format!("exit {:?}\n", out.status.code()));
        }
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The Python of the environment that has the clients; else prints why the test is skipped.
fn python() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python-clients/bin/python");
    if !path.exists() {
        println!("skipped: needs target/python-clients (python3 -m venv; pip install ovs ovsdbapp)");
        return None;
    }
    Some(path.display().to_string())
}

fn have(path: &str, package: &str) -> bool {
    let there = Path::new(path).exists();
    if !there {
        println!("skipped: needs {path} (apt-get install {package})");
    }
    there
}

/// An IDL that notes how each monitor began: whether the server resumed, and with how many rows.
const PRELUDE: &str = r#"
import json, os, subprocess, sys, time, uuid
import ovs.db.idl, ovs.jsonrpc, ovs.poller
resumed = []
recv = ovs.jsonrpc.Session.recv
def noting(self):
    m = recv(self)
    if m and m.type == m.T_REPLY and isinstance(m.result, list) and len(m.result) == 3 and isinstance(m.result[0], bool):
        resumed.append((m.result[0], sum(len(t) for t in m.result[2].values())))
    return m
ovs.jsonrpc.Session.recv = noting
helper = ovs.db.idl.SchemaHelper(schema_json=json.loads(subprocess.check_output(["ovsdb-client", "get-schema", "unix:db.sock"])))
helper.register_all()
idl = ovs.db.idl.Idl("unix:" + os.getcwd() + "/db.sock", helper)
def until(done):
    end = time.time() + 15
    while not (idl.run(), done())[1]:
        assert time.time() < end, "timed out"
        p = ovs.poller.Poller(); idl.wait(p); p.timer_wait(100); p.block()
def vsctl(*args): subprocess.check_call(["/usr/bin/ovs-vsctl", "--no-wait", *args])
def rows(table): return list(idl.tables[table].rows.values())
def external(): return [b.external_ids.get("a") for b in rows("Bridge")]
until(idl.has_ever_connected)
"#;

#[test]
fn the_python_idl_resumes_and_starts_over() {
    let Some(python) = python() else { return };
    if !have("/usr/bin/ovs-vsctl", "openvswitch-switch") {
        return;
    }
    let server = Server::ours("/usr/share/openvswitch/vswitch.ovsschema");
    server.run(&["/usr/bin/ovs-vsctl", "--no-wait", "init"]);
    let program = r#"
def reconnect(): subprocess.check_call(["ovs-appctl", "-t", os.getcwd() + "/db.ctl", "ovsdb-server/reconnect"])
vsctl("add-br", "br0"); until(lambda: len(rows("Bridge")) == 1)
reconnect()
vsctl("add-br", "br1"); until(lambda: len(rows("Bridge")) == 2)
idl.cond_change("Bridge", [["name", "==", "br1"]]); until(lambda: len(rows("Bridge")) == 1)
reconnect()
vsctl("set", "bridge", "br1", "external_ids:a=b"); until(lambda: external() == ["b"])
print(resumed)
idl.set_lock("L"); until(lambda: idl.has_lock)
bridge, = rows("Bridge"); root, = rows("Open_vSwitch")
txn = ovs.db.idl.Transaction(idl)
bridge.verify("external_ids"); bridge.setkey("external_ids", "x", "y"); bridge.delkey("external_ids", "a")
print(txn.commit_block())
txn = ovs.db.idl.Transaction(idl)
root.increment("next_cfg"); root.setkey("external_ids", "k", "v"); txn.add_comment("hello")
print(txn.commit_block(), txn.get_increment_new_value())
txn = ovs.db.idl.Transaction(idl)
chosen = uuid.uuid4()
new = txn.insert(idl.tables["Bridge"], chosen, True); new.name = "br2"; root.addvalue("bridges", new)
print(txn.commit_block(), txn.get_insert_uuid(chosen) == chosen)
"#;
    assert_eq!(
        server.run(&[&python, "-W", "ignore", "-c", &format!("{PRELUDE}{program}")]),
        // First everything; then what happened since, be it little.
        "[(False, 1), (True, 4), (True, 1)]\nsuccess\nsuccess 1\nsuccess True\n"
    );
    // Over a restart: the server's new life knows nothing of the old one's transactions and says so.
    let program = r#"
before = sorted(b.name for b in rows("Bridge"))
print("ready", flush=True); sys.stdin.readline()
vsctl("set", "bridge", "br1", "external_ids:a=c"); until(lambda: "c" in external())
print(resumed[0][0], resumed[-1][0], len(resumed), sorted(b.name for b in rows("Bridge")) == before)
"#;
    let child = server
        .command(&python)
        .args(["-W", "ignore", "-c", &format!("{PRELUDE}{program}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    server.stop();
    server.run_server();
    drop(child.stdin.take());
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "False False 2 True\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn ovsdbapp_drives_the_northbound_database() {
    let Some(python) = python() else { return };
    if !have("/usr/share/ovn/ovn-nb.ovsschema", "ovn-common") {
        return;
    }
    let server = Server::ours("/usr/share/ovn/ovn-nb.ovsschema");
    let program = r#"
import os
from ovsdbapp.backend.ovs_idl import connection
from ovsdbapp.schema.ovn_northbound import impl_idl
idl = connection.OvsdbIdl.from_server("unix:" + os.getcwd() + "/db.sock", "OVN_Northbound")
api = impl_idl.OvnNbApiIdlImpl(connection.Connection(idl, timeout=10))
with api.transaction(check_error=True) as txn:
    txn.add(api.ls_add("sw0", may_exist=True))
    for i in range(20):
        txn.add(api.lsp_add("sw0", "p%d" % i))
        txn.add(api.lsp_set_addresses("p%d" % i, ["00:00:00:00:00:%02x 10.0.0.%d" % (i, i + 1)]))
    txn.add(api.pg_add("group", []))
    txn.add(api.lr_add("r0"))
    txn.add(api.lrp_add("r0", "rp0", "00:00:00:01:00:01", ["10.0.0.254/24"]))
api.acl_add("sw0", "to-lport", 100, "ip4", "allow-related").execute(check_error=True)
api.db_set("Logical_Switch", "sw0", ("other_config", {"subnet": "10.0.0.0/24"})).execute(check_error=True)
api.lsp_del("p3").execute(check_error=True)
print(len(api.lsp_list("sw0").execute(check_error=True)), api.lsp_get_addresses("p4").execute(check_error=True))
print(len(api.acl_list("sw0").execute()), api.db_get("Logical_Switch", "sw0", "other_config").execute())
api.ls_del("sw0").execute(check_error=True)
print(api.db_find("Logical_Switch_Port", ("name", "=", "p5")).execute(), api.ls_del("sw0", if_exists=True).execute())
"#;
    assert_eq!(
        server.run(&[&python, "-W", "ignore", "-c", program]),
        "19 ['00:00:00:00:00:04 10.0.0.5']\n1 {'subnet': '10.0.0.0/24'}\n[] None\n"
    );
}

/// A session with `vtep-ctl`, with what it and `ovsdb-client` print; UUIDs masked.
fn vtep_session(server: &Server) -> String {
    let commands = "add-ps ps1;add-port ps1 p1;add-ls ls1;bind-ls ps1 p1 10 ls1;\
        add-ucast-local ls1 00:11:22:33:44:55 10.0.0.1;add-mcast-remote ls1 unknown-dst 10.0.0.2;\
        add-ucast-remote ls1 00:11:22:33:44:56 10.0.0.3;set-manager tcp:127.0.0.1:9;get-manager;show;\
        list-local-macs ls1;list-remote-macs ls1;list-bindings ps1 p1;del-ls ls1;clear-local-macs ls1;\
        clear-remote-macs ls1;unbind-ls ps1 p1 10;del-ls ls1;del-ps ps1;show;add-ps ps1;add-ps ps1";
    let mut text = String::new();
    for command in commands.split(';') {
        let mut args = vec!["/usr/bin/vtep-ctl", "--db=unix:db.sock", "-vconsole:off"];
        args.extend(command.split_whitespace());
        text.push_str(&format!("$ {command}\n{}", server.run(&args)));
    }
    for command in ["dump", "get-schema", "get-schema-cksum", "get-schema-version"] {
        let args = ["/usr/bin/ovsdb-client", command, "unix:db.sock", "hardware_vtep"];
        text.push_str(&format!("$ {command}\n{}", server.run(&args)));
    }
    mask_uuids(&text)
}

fn mask_uuids(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut masked = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if is_part(c) {
            word.push(c);
            continue;
        }
        let uuid = word.len() == 36 && word.matches('-').count() == 4;
        masked.push_str(if uuid { "UUID" } else { &word });
        word.clear();
        masked.push(c);
    }
    masked
}

#[test]
fn vtep_ctl_sees_no_difference() {
    let debians = "/usr/sbin/ovsdb-server";
    if !have("/usr/bin/vtep-ctl", "openvswitch-vtep") || !have(debians, "openvswitch-common") {
        return;
    }
    let schema = "/usr/share/openvswitch/vtep.ovsschema";
    let ours = vtep_session(&Server::ours(schema));
    assert!(ours.contains("Switch_Name") || ours.contains("ps1"), "{ours}");
    assert_eq!(ours, vtep_session(&Server::start(Path::new(debians), schema)));
}
