//! Daemons end and begin: by signal, by command, by `kill -9`; a second one is refused; configuration comes back.

mod support;

use std::path::Path;

use support::{Daemons, Host, NET, need, unique};

#[test]
fn a_killed_switch_reaches_the_same_configuration_again() {
    if !need(NET) {
        return;
    }
    let d = Daemons::start(&[]);
    let br = unique("ibr");
    d.run(&format!("ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev"));
    let (a, b) = (Host::new("10.76.0.1/24"), Host::new("10.76.0.2/24"));
    for h in [&a, &b] {
        d.run(&format!("ovs-vsctl add-port {br} {}", h.port));
    }
    let before = d.run("ovs-vsctl show");
    assert!(a.pings("10.76.0.2"));
    for program in ["ovs-vswitchd", "ovsdb-server"] {
        d.kill(program, "-9");
        if program == "ovsdb-server" {
            d.start_database();
        } else {
            d.start_switch(&[]);
        }
        assert_eq!(d.run("ovs-vsctl show"), before);
        support::wait_for("traffic to flow again", 10, || a.pings("10.76.0.2"));
    }
    // The switch notices the database's return and goes on obeying it.
    d.run(&format!("ovs-vsctl del-port {}", b.port));
    assert!(!a.pings("10.76.0.2"));
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    for (program, extra) in [("ovs-vswitchd", "--enable-dummy=override"), ("ovsdb-server", "--no-dbs")] {
        let pid = d.pid(program);
        let out = d.try_run(&format!("{program} --detach --no-chdir --pidfile {extra}"));
        assert!(!out.status.success(), "{program} ran twice");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(stderr.contains("already running as pid"), "{stderr}");
        assert_eq!(d.pid(program), pid);
    }
    d.run("ovs-vsctl add-br br0 -- set bridge br0 datapath-type=dummy");
}

#[test]
fn exit_removes_pidfile_and_sockets() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let (switch, server) = (d.pid("ovs-vswitchd").unwrap(), d.pid("ovsdb-server").unwrap());
    d.run("ovs-appctl exit --cleanup");
    d.run("ovs-appctl -t ovsdb-server exit");
    for (program, pid) in [("ovs-vswitchd", switch), ("ovsdb-server", server)] {
        support::wait_for("the process to end", 5, || !Path::new(&format!("/proc/{pid}")).exists());
        for leftover in [format!("{program}.pid"), format!("{program}.{pid}.ctl")] {
            assert!(!d.dir.path().join(&leftover).exists(), "{leftover} is left behind");
        }
    }
    assert!(!d.dir.path().join("db.sock").exists());
}

#[test]
fn a_terminated_switch_leaves_a_clean_rundir() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let pid = d.pid("ovs-vswitchd").unwrap();
    d.kill("ovs-vswitchd", "-15");
    for leftover in ["ovs-vswitchd.pid".to_owned(), format!("ovs-vswitchd.{pid}.ctl")] {
        assert!(!d.dir.path().join(&leftover).exists(), "{leftover} is left behind");
    }
}

#[test]
fn dummies_take_the_place_of_system_devices_also_where_the_kernel_datapath_is_disabled() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    d.run("ovs-vsctl add-br br0 -- add-port br0 p1");
    assert_eq!(d.run("ovs-vsctl get Interface p1 ofport"), "1\n");
    assert_eq!(d.run("ovs-vsctl get Open_vSwitch . datapath_types"), "[dummy, netdev, system]\n");
}
