//! TLS with certificates that Debian's `ovs-pki` makes, between our programs and Debian's, in both directions.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use support::{Daemons, Dir, need, wait_for};

const NEEDED: &[(&str, &str)] = &[
    ("/usr/bin/ovs-pki", "openvswitch-common"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/ovs-vsctl", "openvswitch-common"),
    ("/usr/sbin/ovsdb-server", "openvswitch-common"),
];

/// Two authorities, a certificate of each: `sw` of the switches', `ctl` of the controllers'.
struct Pki(Dir);

impl Pki {
    fn new() -> Pki {
        let pki = Pki(Dir::new("pki"));
        pki.run(&["init"]);
        pki.run(&["-u", "req+sign", "sw", "switch"]);
        pki.run(&["-u", "req+sign", "ctl", "controller"]);
        pki
    }
    fn run(&self, args: &[&str]) {
        let dir = format!("--dir={}", self.0.file("pki"));
        let out = Command::new("/usr/bin/ovs-pki").arg(dir).args(args).current_dir(self.0.path()).output();
        let out = out.expect("ovs-pki");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    fn ca(&self, of: &str) -> String {
        self.0.file(&format!("pki/{of}ca/cacert.pem"))
    }
    /// Options that present `who` and trust `authority`.
    fn options(&self, who: &str, authority: &str) -> Vec<String> {
        let file = |kind: &str| self.0.file(&format!("{who}-{kind}.pem"));
        ["-p", &file("privkey"), "-c", &file("cert"), "-C", &self.ca(authority)].map(str::to_owned).into()
    }
}

/// A port that nobody uses at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A tool of Debian's, or ours.
fn tool(d: &Daemons, debian: bool, name: &str) -> Command {
    let mut command = if debian { Command::new(format!("/usr/bin/{name}")) } else { d.command(name) };
    d.environment(&mut command);
    command
}

fn vsctl(d: &Daemons, debian: bool, options: &[String], port: u16, words: &[&str]) -> Output {
    let mut command = tool(d, debian, "ovs-vsctl");
    command.args(options).args(["--timeout=5", "--no-wait"]).arg(format!("--db=ssl:127.0.0.1:{port}"));
    command.args(words).output().expect("ovs-vsctl")
}

#[test]
fn tools_of_both_kinds_reach_the_database() {
    if !need(NEEDED) {
        return;
    }
    let pki = Pki::new();
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let port = free_port();
    d.run(&format!(
        "ovs-vsctl --no-wait set-ssl {} {} {}",
        pki.0.file("sw-privkey.pem"),
        pki.0.file("sw-cert.pem"),
        pki.ca("controller")
    ));
    // A server of its own whose options name columns of the database, as packages start it.
    let column = |c: &str| format!("db:Open_vSwitch,SSL,{c}");
    let file = d.dir.file("second.db");
    d.run("ovsdb-tool create second.db");
    let second = d.dir.file("second.sock");
    d.run(&format!("ovsdb-server --detach --no-chdir --pidfile=second.pid --unixctl=second.ctl --log-file=second.log \
         --remote=pssl:{port}:127.0.0.1 --remote=punix:{second} --private-key={} --certificate={} --ca-cert={} \
         --peer-ca-cert={} {file}", column("private_key"), column("certificate"), column("ca_cert"), pki.ca("switch")));
    d.run(&format!(
        "ovs-vsctl --db=unix:{second} --no-wait init -- set-ssl {} {} {}",
        pki.0.file("sw-privkey.pem"),
        pki.0.file("sw-cert.pem"),
        pki.ca("controller")
    ));
    let good = pki.options("ctl", "switch");
    for debian in [true, false] {
        wait_for("the SSL row to take effect", 5, || {
            vsctl(&d, debian, &good, port, &["get-manager"]).status.success()
        });
        let name = if debian { "debian" } else { "ours" };
        let out =
            vsctl(&d, debian, &good, port, &["set", "Open_vSwitch", ".", &format!("external-ids:{name}=1")]);
        assert!(out.status.success(), "{}", text(&out));
        // We do not trust the server's authority.
        let out = vsctl(&d, debian, &pki.options("ctl", "controller"), port, &["show"]);
        assert!(text(&out).contains("database connection failed (Protocol error)"), "{}", text(&out));
        // The server does not trust ours.
        let out = vsctl(&d, debian, &pki.options("sw", "switch"), port, &["show"]);
        assert!(text(&out).contains("database connection failed"), "{}", text(&out));
        assert_eq!(out.status.code(), Some(1));
        // No key at all.
        let out = vsctl(&d, debian, &[], port, &["show"]);
        assert!(text(&out).contains("database connection failed (Protocol not available)"), "{}", text(&out));
        // The authority is learnt from the first connection, which then ends.
        let learnt = d.dir.file(&format!("learnt-{name}.pem"));
        let mut bootstrap = good.clone();
        bootstrap.splice(4.., [format!("--bootstrap-ca-cert={learnt}")]);
        let first = vsctl(&d, debian, &bootstrap, port, &["get-manager"]);
        assert!(!first.status.success() && Path::new(&learnt).exists(), "{}", text(&first));
        let again = vsctl(&d, debian, &bootstrap, port, &["get-manager"]);
        assert!(again.status.success(), "{}", text(&again));
        // Old and new protocol.
        for protocol in ["TLSv1.2", "TLSv1.3"] {
            let mut with = good.clone();
            with.push(format!("--ssl-protocols={protocol}"));
            // Debian's 3.1 does not know TLSv1.3 by name; it says so and goes on.
            let out = vsctl(&d, debian, &with, port, &["get-manager"]);
            assert!(out.status.success(), "{protocol}: {}", text(&out));
        }
    }
    assert_eq!(
        d.run(&format!("ovs-vsctl --db=unix:{second} get Open_vSwitch . external-ids")),
        "{debian=\"1\", ours=\"1\"}\n"
    );
    // Who speaks no TLS, or stops in the middle, is dropped and harms nobody.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"{\"id\":0,\"method\":\"echo\",\"params\":[]}").unwrap();
    let stalled = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = Vec::new();
    // An alert, or a reset because there was more to read.
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
    assert!(vsctl(&d, false, &good, port, &["get-manager"]).status.success());
    drop(stalled);
    d.run(&format!("ovs-appctl -t {} exit", d.dir.file("second.ctl")));
}

#[test]
fn our_tools_reach_the_original_database() {
    if !need(NEEDED) {
        return;
    }
    let pki = Pki::new();
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let port = free_port();
    d.run("ovsdb-tool create second.db");
    let mut server = Command::new("/usr/sbin/ovsdb-server");
    d.environment(&mut server);
    server.args([
        "--detach",
        "--no-chdir",
        "--pidfile=second.pid",
        "--unixctl=second.ctl",
        "--log-file=second.log",
    ]);
    server.args(pki.options("sw", "controller")).arg(format!("--remote=pssl:{port}:127.0.0.1"));
    let out = server.arg(d.dir.file("second.db")).current_dir(d.dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    let good = pki.options("ctl", "switch");
    let out = vsctl(&d, false, &good, port, &["init", "--", "add-br", "br1"]);
    assert!(out.status.success(), "{}", text(&out));
    let out = vsctl(&d, false, &good, port, &["list-br"]);
    assert_eq!(text(&out), "br1\n");
    let out =
        d.command("ovsdb-client").args(&good).args(["list-dbs", &format!("ssl:127.0.0.1:{port}")]).output();
    assert!(text(&out.unwrap()).starts_with("Open_vSwitch\n"));
    d.run(&format!("ovs-appctl -t {} exit", d.dir.file("second.ctl")));
}

#[test]
fn openflow_over_tls() {
    if !need(NEEDED) {
        return;
    }
    let pki = Pki::new();
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let (passive, active) = (free_port(), free_port());
    d.run("ovs-vsctl add-br br0 -- set bridge br0 datapath-type=dummy");
    d.run(&format!(
        "ovs-vsctl set-ssl {} {} {}",
        pki.0.file("sw-privkey.pem"),
        pki.0.file("sw-cert.pem"),
        pki.ca("controller")
    ));
    d.run(&format!("ovs-vsctl set-controller br0 pssl:{passive}:127.0.0.1 ssl:127.0.0.1:{active}"));
    for debian in [true, false] {
        let mut command = tool(&d, debian, "ovs-ofctl");
        command.args(pki.options("ctl", "switch")).args(["dump-desc", &format!("ssl:127.0.0.1:{passive}")]);
        let out = command.output().unwrap();
        assert!(text(&out).contains("OFPST_DESC reply"), "{}", text(&out));
    }
    // The switch connects to a controller: here OpenSSL's own server, which prints what it hears.
    let mut server = Command::new("/usr/bin/openssl");
    server.args([
        "s_server",
        "-quiet",
        "-accept",
        &format!("127.0.0.1:{active}"),
        "-Verify",
        "2",
        "-verify_return_error",
    ]);
    server.args(["-CAfile", &pki.ca("switch"), "-key", &pki.0.file("ctl-privkey.pem")]);
    server.args(["-cert", &pki.0.file("ctl-cert.pem")]);
    server
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    let mut server = server.spawn().unwrap();
    let mut hello = [0; 8];
    let heard = server.stdout.take().unwrap().read_exact(&mut hello);
    server.kill().unwrap();
    server.wait().unwrap();
    heard.unwrap();
    assert_eq!((hello[1], usize::from(hello[2])), (0, 0), "not a hello: {hello:?}");
}

/// A schema whose one table of data is under the control of roles.
const ROLES: &str = r#"{"name":"Roles","version":"1.0.0","tables":{
    "Remote":{"isRoot":true,"columns":{"target":{"type":"string"},"role":{"type":"string"},
        "inactivity_probe":{"type":{"key":"integer","min":0}}}},
    "RBAC_Role":{"isRoot":true,"columns":{"name":{"type":"string"},"permissions":{"type":{"key":"string",
        "value":{"type":"uuid","refTable":"RBAC_Permission"},"min":0,"max":"unlimited"}}}},
    "RBAC_Permission":{"isRoot":true,"columns":{"table":{"type":"string"},"insert_delete":{"type":"boolean"},
        "authorization":{"type":{"key":"string","min":0,"max":"unlimited"}},
        "update":{"type":{"key":"string","min":0,"max":"unlimited"}}}},
    "Colour":{"isRoot":true,"columns":{"owner":{"type":"string"},"name":{"type":"string"}}},
    "Top":{"isRoot":true,"columns":{"remotes":{"type":{"key":{"type":"uuid","refTable":"Remote"},
        "min":0,"max":"unlimited"}}}}}}"#;

#[test]
fn certificates_name_clients_change_and_stalled_handshakes_end() {
    if !need(NEEDED) {
        return;
    }
    let pki = Pki::new();
    pki.run(&["-u", "req+sign", "alice", "controller"]);
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let port = free_port();
    std::fs::write(d.dir.file("roles.ovsschema"), ROLES).unwrap();
    d.run("ovsdb-tool create roles.db roles.ovsschema");
    let own = |kind: &str| d.dir.file(&format!("own-{kind}.pem"));
    let install = |who: &str| {
        for kind in ["privkey", "cert"] {
            std::fs::copy(pki.0.file(&format!("{who}-{kind}.pem")), own(kind)).unwrap();
        }
    };
    install("sw");
    let file = d.dir.file("roles.db");
    let second = d.dir.file("second.sock");
    d.run(&format!(
        "ovsdb-server --detach --no-chdir --pidfile=second.pid --unixctl=second.ctl --log-file=second.log \
         --remote=punix:{second} --remote=db:Roles,Top,remotes -p {} -c {} -C {} {file}",
        own("privkey"),
        own("cert"),
        pki.ca("controller")
    ));
    let transact = |server: &str, options: &[String], operations: &str| {
        let mut command = d.command("ovsdb-client");
        d.environment(&mut command);
        command.args(options).args(["--timeout=5", "transact", server]);
        text(&command.arg(format!("[\"Roles\",{operations}]")).output().expect("ovsdb-client"))
    };
    let made = transact(
        &format!("unix:{second}"),
        &[],
        &format!(
            r#"{{"op":"insert","table":"RBAC_Permission","uuid-name":"p","row":{{"table":"Colour",
            "insert_delete":true,"authorization":"owner","update":"name"}}}},
            {{"op":"insert","table":"RBAC_Role","row":{{"name":"painter",
            "permissions":["map",[["Colour",["named-uuid","p"]]]]}}}},
            {{"op":"insert","table":"Remote","uuid-name":"r","row":{{"target":"pssl:{port}:127.0.0.1",
            "role":"painter","inactivity_probe":1000}}}},
            {{"op":"insert","table":"Top","row":{{"remotes":["named-uuid","r"]}}}},
            {{"op":"insert","table":"Colour","row":{{"owner":"alice","name":"red"}}}},
            {{"op":"insert","table":"Colour","row":{{"owner":"ctl","name":"blue"}}}}"#
        ),
    );
    assert!(!made.contains("error"), "{made}");
    let server = format!("ssl:127.0.0.1:{port}");
    let update = |owner: &str| {
        format!(
            r#"{{"op":"update","table":"Colour","where":[["owner","==","{owner}"]],"row":{{"name":"x"}}}}"#
        )
    };
    wait_for("the remote to listen", 5, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    // Stalls from here on; nobody waits for it.
    let mut stalled = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stalled.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let alice = pki.options("alice", "switch");
    assert_eq!(transact(&server, &alice, &update("alice")), "[{\"count\":1}]\n");
    let denied = transact(&server, &alice, &update("ctl"));
    assert!(denied.contains("RBAC rules for client \\\"alice\\\" role \\\"painter\\\" prohibit"), "{denied}");
    // Another certificate in the same files: the next connection sees it.
    install("ctl");
    let refused = transact(&server, &alice, &update("alice"));
    assert!(refused.contains("failed"), "{refused}");
    let trusting = pki.options("alice", "controller");
    assert_eq!(transact(&server, &trusting, &update("alice")), "[{\"count\":1}]\n");
    // The server gives the silent peer up: with its probes a second apart, soon.
    stalled.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    let mut rest = Vec::new();
    let ended = stalled.read_to_end(&mut rest);
    let timed_out = ended.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the stalled connection is still there");
    d.run(&format!("ovs-appctl -t {} exit", d.dir.file("second.ctl")));
}

#[test]
fn our_pki_serves_both() {
    if !need(NEEDED) {
        return;
    }
    let dir = Dir::new("own-pki");
    let ovs_pki = dir.file("ovs-pki");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ironbridge"), &ovs_pki).unwrap();
    let run = |exe: &str, words: &str| {
        let mut command = Command::new(exe);
        command.current_dir(dir.path()).env("OVS_LOGDIR", dir.path()).arg("--dir=pki");
        let out = command.args(words.split(' ')).output().expect("ovs-pki");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).replace(exe, "ovs-pki"),
            String::from_utf8_lossy(&out.stderr).replace(exe, "ovs-pki"),
        )
    };
    let debian = "/usr/bin/ovs-pki";
    let said = run(&ovs_pki, "init");
    assert_eq!(said, (Some(0), String::new(), "Creating controllerca...\nCreating switchca...\n".into()));
    // Ours goes on with what the original does, and the other way round.
    assert_eq!(run(&ovs_pki, "-u req a").0, Some(0));
    assert_eq!(run(debian, "-b sign a").0, Some(0));
    assert_eq!(run(debian, "-B 1024 req b").0, Some(0));
    assert_eq!(run(&ovs_pki, "-b sign b controller").0, Some(0));
    assert_eq!(run(&ovs_pki, "-u req+sign c").0, Some(0));
    assert_eq!(run(&ovs_pki, "req s").0, Some(0));
    assert_eq!(run(&ovs_pki, "self-sign s").0, Some(0));
    for words in [
        "verify a",
        "verify b controller",
        "verify c",
        "verify a controller",
        "verify nosuch",
        "fingerprint a-cert.pem",
        "fingerprint b-req.pem",
        "fingerprint nosuch",
        "sign a",
        "req a",
        "init",
        "self-sign s",
        "self-sign z",
    ] {
        assert_eq!(run(&ovs_pki, words), run(debian, words), "{words}");
    }
    let mode = |file: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(dir.file(file)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("a-privkey.pem"), mode("pki/switchca/private")), (0o600, 0o700));
}
