//! The client library against servers: ours, Debian's, and a cluster of Debian's of which one member leads.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ib_base::time::Clock;
use ib_ovsdb::idl::vswitch::{Bridge, BridgeEdit, OpenVSwitch, OpenVSwitchEdit};
use ib_ovsdb::idl::{ChangeKind, Clause, Condition, Idl, TxnStatus};
use ib_ovsdb::{Datum, Schema, Uuid, schemas};
use ib_stream::reactor::Reactor;
use ib_stream::replica::Replica;
use support::{Dir, wait_for};

const DEBIANS: &str = "/usr/sbin/ovsdb-server";

fn have_debians() -> bool {
    let there = Path::new(DEBIANS).exists();
    if !there {
        println!("skipped: needs {DEBIANS} (apt-get install openvswitch-common)");
    }
    there
}

/// A server of a database file, which it makes unless it is there.
struct Server<'d> {
    dir: &'d Dir,
    name: String,
}

impl<'d> Server<'d> {
    fn start(dir: &'d Dir, name: &str, ours: bool) -> Server<'d> {
        let server = Server { dir, name: name.into() };
        let file = server.file("db");
        if !Path::new(&file).exists() {
            let schema = "/usr/share/openvswitch/vswitch.ovsschema";
            server.run("/usr/bin/ovsdb-tool", &["create", &file, schema]);
        }
        let control = format!("--unixctl={}", server.file("ctl"));
        let pidfile = format!("--pidfile={}", server.file("pid"));
        let remote = format!("--remote=p{}", server.remote());
        let args = ["--detach", "--no-chdir", "-vconsole:off", &control, &pidfile, &remote, &file];
        if ours {
            server.run(env!("CARGO_BIN_EXE_ironbridge"), &[&["ovsdb-server"], &args[..]].concat());
        } else {
            server.run(DEBIANS, &args);
        }
        server
    }

    fn file(&self, suffix: &str) -> String {
        self.dir.file(&format!("{}.{suffix}", self.name))
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.file("sock"))
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        for var in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(var, self.dir.path());
        }
        let out = command.args(args).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }

    fn appctl(&self, args: &[&str]) -> String {
        self.run("/usr/bin/ovs-appctl", &[&["-t", &self.file("ctl")], args].concat())
    }

    fn stop(&self) {
        let pid = std::fs::read_to_string(self.file("pid")).unwrap_or_default();
        let pid = pid.trim();
        if pid.is_empty() {
            return;
        }
        let _ = Command::new("kill").arg(pid).output();
        wait_for("a server to end", 10, || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
        let _ = std::fs::remove_file(self.file("pid"));
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A replica of bridges, and its loop.
struct Client {
    replica: Replica,
    reactor: Reactor,
}

impl Client {
    fn new(remotes: &[String], prepare: impl FnOnce(&mut Idl)) -> Client {
        let reactor = Reactor::new(&Clock::new()).unwrap();
        let mut idl = Idl::new(&Schema::parse(schemas::VSWITCH).unwrap());
        for (table, column) in [
            ("Open_vSwitch", "bridges"),
            ("Open_vSwitch", "next_cfg"),
            ("Bridge", "name"),
            ("Bridge", "external_ids"),
            ("Bridge", "flood_vlans"),
        ] {
            idl.register_column(table, column);
        }
        idl.track_changes();
        prepare(&mut idl);
        let replica = Replica::open(idl, remotes, reactor.handle());
        Client { replica, reactor }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Idl) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            self.replica.run();
            if done(&mut self.replica.idl) {
                return;
            }
            assert!(Instant::now() < end, "timed out waiting for {what}");
            let soon = self.reactor.handle().now().plus_ms(100);
            self.reactor.wait(self.replica.deadline().map_or(Some(soon), |d| Some(d.min(soon)))).unwrap();
        }
    }

    fn transact(&mut self, build: impl FnMut(&Idl, &mut ib_ovsdb::idl::Txn)) -> ib_ovsdb::idl::Outcome {
        self.replica.transact(&mut self.reactor, build).unwrap()
    }

    fn add_bridge(&mut self, name: &str) {
        let outcome = self.transact(|idl, txn| {
            let mut edit = BridgeEdit::insert(txn, idl);
            edit.set_name(name);
            let bridge = edit.uuid();
            match OpenVSwitch::first(idl.view()) {
                Some(top) => OpenVSwitchEdit::of(txn, idl, top.uuid()).add_refs("bridges", [bridge]),
                None => OpenVSwitchEdit::insert(txn, idl).add_refs("bridges", [bridge]),
            }
        });
        assert_eq!(outcome.status, TxnStatus::Success);
        self.until("the bridge", |idl| Bridge::all(idl.view()).any(|b| b.name() == name));
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            Bridge::all(self.replica.idl.view()).map(|b| b.name().to_owned()).collect();
        names.sort();
        names
    }
}

/// All that the library does, on one server.
fn exercise(server: &Server<'_>) {
    let mut a = Client::new(&[server.remote()], |idl| idl.set_lock(Some("agent")));
    let mut b = Client::new(&[server.remote()], |idl| idl.follow_server());
    a.add_bridge("br0");
    a.add_bridge("br1");
    b.until("two bridges", |idl| idl.len("Bridge") == 2);

    // Both change one map at the same time: each pair is a mutation of its own.
    let set = |key: &'static str| {
        move |idl: &Idl, txn: &mut ib_ovsdb::idl::Txn| {
            let br0 = Bridge::all(idl.view()).find(|b| b.name() == "br0").unwrap();
            BridgeEdit::of(txn, idl, br0.uuid()).set_key("external_ids", key, "1");
        }
    };
    assert_eq!(a.transact(set("a")).status, TxnStatus::Success);
    assert_eq!(b.transact(set("b")).status, TxnStatus::Success);
    let ids = |idl: &Idl| {
        let br0 = Bridge::all(idl.view()).find(|b| b.name() == "br0");
        br0.map_or(0, |b| b.external_ids().iter().count())
    };
    a.until("both pairs", |idl| ids(idl) == 2);
    assert_eq!(a.transact(set("a")).status, TxnStatus::Unchanged);

    // A dry run checks and changes nothing; a UUID may be chosen; a counter comes back counted.
    let dry = a.transact(|idl, txn| {
        set("dry")(idl, txn);
        txn.set_dry_run();
    });
    assert_eq!((dry.status, ids(&a.replica.idl)), (TxnStatus::Unchanged, 2));
    let chosen = Uuid::random();
    let outcome = a.transact(|idl, txn| {
        txn.insert_persistent(idl, "Bridge", chosen);
        BridgeEdit::of(txn, idl, chosen).set_name("br2").set_flood_vlans([7]);
        let top = OpenVSwitch::first(idl.view()).unwrap();
        let mut top = OpenVSwitchEdit::of(txn, idl, top.uuid());
        top.add_refs("bridges", [chosen]);
        top.increment("next_cfg");
        txn.comment("chosen");
    });
    assert_eq!((outcome.status, outcome.incremented), (TxnStatus::Success, Some(1)));
    a.until("the chosen row", |idl| Bridge::get(idl.view(), chosen).is_some());

    // What was read has changed underneath: the attempt fails, the next is on what is there now.
    b.until("the third bridge", |idl| idl.len("Bridge") == 3);
    assert_eq!(a.transact(set("late")).status, TxnStatus::Success);
    let mut attempts = 0;
    let outcome = b.transact(|idl, txn| {
        attempts += 1;
        let br0 = Bridge::all(idl.view()).find(|b| b.name() == "br0").unwrap();
        let mut edit = BridgeEdit::of(txn, idl, br0.uuid());
        edit.verify("external_ids");
        edit.set_flood_vlans([i64::try_from(br0.external_ids().iter().count()).unwrap()]);
    });
    assert_eq!(outcome.status, TxnStatus::Success);
    b.until("the count", |idl| {
        let br0 = Bridge::all(idl.view()).find(|b| b.name() == "br0").unwrap();
        br0.flood_vlans().eq([3])
    });
    assert!((1..=2).contains(&attempts), "{attempts}");

    // A lock that another holds.
    let mut c = Client::new(&[server.remote()], |idl| idl.set_lock(Some("agent")));
    c.until("the lock to be contended", |idl| idl.is_lock_contended());
    let id = c.replica.idl.commit(ib_ovsdb::idl::Txn::new());
    assert_eq!(c.replica.idl.take_outcome(id).unwrap().status, TxnStatus::NotLocked);
    a.replica.idl.set_lock(None);
    a.replica.flush();
    c.until("the lock", |idl| idl.has_lock());

    // Parts of a table, changed while they are watched.
    b.replica.idl.take_changes();
    let named = |name: &str| Condition::Any(vec![Clause::equals("name", Datum::scalar(name))]);
    b.replica.idl.set_condition("Bridge", named("br1"));
    b.until("the condition", |idl| idl.conditions_settled());
    assert_eq!(b.names(), ["br1"]);
    let gone = b.replica.idl.take_changes();
    assert!(gone.len() == 2 && gone.iter().all(|c| c.kind == ChangeKind::Deleted));
    b.replica.idl.set_condition("Bridge", named("br2"));
    b.until("the condition", |idl| idl.conditions_settled());
    assert_eq!(b.names(), ["br2"]);

    // A conversion underneath: the session, its rows and its lock stay.
    let schema = std::fs::read_to_string("/usr/share/openvswitch/vswitch.ovsschema").unwrap();
    let (before, after) = schema.split_once("\"version\": \"").unwrap();
    let changed = format!("{before}\"version\": \"99.{after}").replacen("99.8.", "99.", 1);
    std::fs::write(server.file("schema"), changed).unwrap();
    server.run("/usr/bin/ovsdb-client", &["convert", &server.remote(), &server.file("schema")]);
    b.replica.idl.set_condition("Bridge", Condition::All);
    b.add_bridge("br3");
    b.replica.idl.set_condition("Bridge", named("br2"));
    b.until("the condition", |idl| idl.conditions_settled());
    assert_eq!(b.names(), ["br2"]);

    // A lost session: rows stay, and what happened meanwhile comes.
    let changes_before = b.replica.idl.seqno();
    server.appctl(&["ovsdb-server/reconnect"]);
    b.until("the new session", |idl| idl.is_live() && idl.seqno() > changes_before);
    assert_eq!(b.names(), ["br2"]);
    b.replica.idl.take_changes();
    server.stop();
    b.until("the end of the session", |idl| !idl.is_live());
    assert_eq!(b.names(), ["br2"]);
}

#[test]
fn on_our_server() {
    if !have_debians() {
        return;
    }
    let dir = Dir::new("idl");
    let server = Server::start(&dir, "ours", true);
    exercise(&server);
    // After a restart rows are compared with the snapshot: what did not change is no change.
    let server = Server::start(&dir, "ours", true);
    let mut a = Client::new(&[server.remote()], |_| {});
    a.until("the rows", |idl| idl.len("Bridge") == 4);
    a.replica.idl.take_changes();
    server.stop();
    let _server = Server::start(&dir, "ours", true);
    a.until("the new session", |idl| !idl.is_live());
    a.until("the new session", |idl| idl.is_live());
    assert!(a.replica.idl.take_changes().is_empty());
}

#[test]
fn on_debians_server() {
    if !have_debians() {
        return;
    }
    let dir = Dir::new("idl");
    exercise(&Server::start(&dir, "debians", false));
}

#[test]
fn on_a_cluster_the_leader_serves() {
    if !have_debians() {
        return;
    }
    let dir = Dir::new("idl");
    let address = |n: usize| format!("unix:{}", dir.file(&format!("raft{n}.sock")));
    let tool = |args: &[&str]| {
        assert!(Command::new("/usr/bin/ovsdb-tool").args(args).status().unwrap().success(), "{args:?}");
    };
    let file = |n: usize| dir.file(&format!("s{n}.db"));
    tool(&["create-cluster", &file(1), "/usr/share/openvswitch/vswitch.ovsschema", &address(1)]);
    let mut servers = vec![Server::start(&dir, "s1", false)];
    for n in 2..=3 {
        tool(&["join-cluster", &file(n), "Open_vSwitch", &address(n), &address(1)]);
        servers.push(Server::start(&dir, &format!("s{n}"), false));
        let status = || servers[n - 1].appctl(&["cluster/status", "Open_vSwitch"]);
        wait_for("a member to join", 20, || status().contains("Status: cluster member"));
    }
    let remotes: Vec<String> = [2, 1, 0].iter().map(|&i: &usize| servers[i].remote()).collect();
    let mut client = Client::new(&remotes, |idl| idl.set_leader_only(true));
    client.until("the leader", |idl| idl.is_live());
    let leader = |servers: &[Server<'_>]| {
        let leads = |s: &Server<'_>| s.appctl(&["cluster/status", "Open_vSwitch"]).contains("Role: leader");
        servers.iter().position(leads)
    };
    let first = leader(&servers).expect("a leader");
    assert_eq!(client.replica.session().name(), servers[first].remote());
    client.add_bridge("br0");
    client.replica.idl.take_changes();

    // The leader goes: another is found, and what was known is not news.
    drop(servers.remove(first));
    client.until("the session to end", |idl| !idl.is_live());
    client.until("the next leader", |idl| idl.is_live());
    let next = leader(&servers).expect("a leader");
    assert_eq!(client.replica.session().name(), servers[next].remote());
    assert!(client.replica.idl.take_changes().is_empty());
    client.add_bridge("br1");
    assert_eq!(client.names(), ["br0", "br1"]);
}
