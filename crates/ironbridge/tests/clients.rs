//! Programs of others around our switch: PyPI's `ovs` IDL and `ovsdbapp` on our database, an `os-ken` learning switch
//! as controller, Mininet building a topology.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::{Daemons, Host, NET, Running, need, unique};

/// The Python of the environment that has the clients; else prints why the test is skipped.
fn python() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python-clients/bin/python"));
    if path.exists() {
        return Some(path);
    }
    println!("skipped: needs target/python-clients (python3 -m venv; pip install ovs ovsdbapp os-ken)");
    None
}

/// Runs a Python program against the daemons; its standard output.
fn run_python(d: &Daemons, python: &PathBuf, program: &str) -> String {
    let mut command = Command::new(python);
    d.environment(&mut command);
    let out = command.args(["-c", program]).output().unwrap();
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

const DUMMY: &[&str] = &["--enable-dummy=override", "--disable-system", "--disable-system-route"];

#[test]
fn the_python_idl_reads_and_writes() {
    let Some(python) = python() else { return };
    let d = Daemons::start(DUMMY);
    d.run("ovs-vsctl add-br br0 -- set bridge br0 datapath-type=dummy");
    let program = r#"
import os, ovs.db.idl, ovs.poller
remote = "unix:" + os.environ["OVS_RUNDIR"] + "/db.sock"
import ovs.jsonrpc, ovs.stream, ovs.util, json
error, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(remote))
assert not error
rpc = ovs.jsonrpc.Connection(stream)
error, reply = rpc.transact_block(ovs.jsonrpc.Message.create_request("get_schema", ["Open_vSwitch"]))
assert not error and not reply.error
rpc.close()
helper = ovs.db.idl.SchemaHelper(schema_json=reply.result)
helper.register_all()
idl = ovs.db.idl.Idl(remote, helper)
while not idl.run():
    poller = ovs.poller.Poller(); idl.wait(poller); poller.block()
names = [b.name for b in idl.tables["Bridge"].rows.values()]
txn = ovs.db.idl.Transaction(idl)
bridge = next(iter(idl.tables["Bridge"].rows.values()))
bridge.setkey("external_ids", "from", "python")
status = txn.commit_block()
print(names, status)
"#;
    assert_eq!(run_python(&d, &python, program), "['br0'] success\n");
    assert_eq!(d.run("ovs-vsctl get bridge br0 external_ids:from"), "python\n");
}

#[test]
fn ovsdbapp_builds_bridges() {
    let Some(python) = python() else { return };
    let d = Daemons::start(DUMMY);
    let program = r#"
import os
from ovsdbapp.backend.ovs_idl import connection
from ovsdbapp.schema.open_vswitch import impl_idl
remote = "unix:" + os.environ["OVS_RUNDIR"] + "/db.sock"
idl = connection.OvsdbIdl.from_server(remote, "Open_vSwitch")
api = impl_idl.OvsdbIdl(connection.Connection(idl, timeout=10))
with api.transaction(check_error=True) as txn:
    txn.add(api.add_br("br-int", datapath_type="dummy"))
    txn.add(api.add_port("br-int", "tap1", may_exist=True))
    txn.add(api.db_set("Interface", "tap1", ("type", "dummy"), ("external_ids", {"iface-id": "x"})))
print(api.list_ports("br-int").execute(check_error=True), api.br_exists("br-int").execute(check_error=True))
api.del_port("tap1", "br-int").execute(check_error=True)
print(api.list_ports("br-int").execute(check_error=True))
"#;
    assert_eq!(run_python(&d, &python, program), "['tap1'] True\n[]\n");
}

#[test]
fn an_os_ken_learning_switch_controls_us() {
    let Some(python) = python() else { return };
    if !need(NET) {
        return;
    }
    let manager = python.with_file_name("osken-manager");
    if !manager.exists() {
        println!("skipped: needs osken-manager of os-ken");
        return;
    }
    let d = Daemons::start(&[]);
    let br = unique("ibr");
    let app = python.parent().unwrap().parent().unwrap().join("lib");
    let found = Command::new("find").arg(&app).args(["-name", "simple_switch_13.py"]).output().unwrap();
    let app = String::from_utf8_lossy(&found.stdout).lines().next().map(str::to_owned);
    let app = app.expect("os-ken brings its example application");
    let port = 20000 + std::process::id() % 20000;
    let mut command = Command::new(manager);
    let child = command
        .args(["--ofp-tcp-listen-port", &port.to_string(), "--ofp-listen-host", "127.0.0.1", &app])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _controller = Running(child);
    d.run(&format!(
        "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev fail_mode=secure protocols=OpenFlow13 \
         -- set-controller {br} tcp:127.0.0.1:{port}"
    ));
    support::wait_for("the controller", 20, || {
        d.run("ovs-vsctl --columns=is_connected --bare list controller").trim() == "true"
    });
    let (a, b) = (Host::new("10.77.0.1/24"), Host::new("10.77.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    support::wait_for("the controller's flows to carry pings", 20, || a.pings("10.77.0.2"));
    let flows = d.run(&format!("ovs-ofctl -O OpenFlow13 dump-flows {br}"));
    assert!(flows.contains("CONTROLLER:65535") && flows.contains("dl_dst="), "{flows}");
}

#[test]
fn mininet_builds_a_topology_on_us() {
    if !need(&[("/usr/bin/mn", "mininet"), ("/usr/sbin/ip", "iproute2")]) {
        return;
    }
    let d = Daemons::start(&[]);
    let mut command = Command::new("/usr/bin/mn");
    d.environment(&mut command);
    // Mininet calls the tools by name: ours first.
    let path = format!("{}:{}", d.dir.file("links"), std::env::var("PATH").unwrap_or_default());
    let out = command
        .env("PATH", path)
        .args([
            "--switch",
            "ovsbr,datapath=user",
            "--controller",
            "none",
            "--topo",
            "linear,2",
            "--test",
            "pingall",
        ])
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("0% dropped (2/2 received)"), "{text}");
}
