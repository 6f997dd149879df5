//! What the switch says of settings that it takes: in its log, and in the database until they are taken back.

mod support;

use support::Daemons;

#[test]
fn settings_are_logged_in_the_originals_words() {
    let d = Daemons::start(&["--enable-dummy"]);
    d.run("ovs-vsctl add-br br0 -- set bridge br0 datapath_type=dummy");
    // Each line is said once.
    let mut told = 0;
    let mut expect = |command: &str, lines: &[&str]| {
        d.run(command);
        let log = d.log();
        let new = &log[told..];
        for line in lines {
            assert_eq!(new.matches(line).count(), 1, "{command}: {line}: {new}");
        }
        told = log.len();
    };
    expect(
        "ovs-vsctl set open . other_config:n-handler-threads=3 other_config:n-revalidator-threads=2",
        &["Setting n-handler-threads to 3, setting n-revalidator-threads to 2", "Starting 5 threads"],
    );
    expect(
        "ovs-appctl dpctl/ct-set-limits default=10 zone=1,limit=5",
        &["Created zone limit of 10 for zone -1", "Created zone limit of 5 for zone 1"],
    );
    expect("ovs-appctl dpctl/ct-set-limits zone=1,limit=6", &["Changed zone limit of 6 for zone 1"]);
    expect("ovs-appctl dpctl/ct-del-limits zone=1", &["Deleted zone limit for zone 1"]);
    expect("ovs-appctl dpctl/ct-del-limits zone=1", &["Attempted delete of non-existent zone limit: zone 1"]);
    expect(
        "ovs-vsctl set open . other_config:vhost-sock-dir=guests",
        &["User-provided vhost-sock-dir in use: guests", "guests' does not exist."],
    );
    let memory = d.run("ovs-appctl -t ovs-vswitchd memory/show");
    assert!(memory.contains("handlers:3") && memory.contains("revalidators:2"), "{memory}");
    assert_eq!(d.log().matches("vhost-sock-dir in use").count(), 1);

    // A vhost-user server port listens there.
    let dir = d.dir.path().join("guests");
    std::fs::create_dir(&dir).unwrap();
    d.run("ovs-vsctl add-br br1 -- set bridge br1 datapath_type=netdev");
    d.run("ovs-vsctl add-port br1 v0 -- set interface v0 type=dpdkvhostuser");
    assert!(dir.join("v0").exists());
}

#[test]
fn a_tree_that_is_switched_off_leaves_nothing_in_the_database() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    d.run("ovs-vsctl add-br br0 -- add-port br0 p1 -- set bridge br0 rstp_enable=true");
    d.run("ovs-vsctl --timeout=20 wait-until port p1 rstp_statistics:rstp_error_count=0");
    d.run("ovs-vsctl set bridge br0 rstp_enable=false");
    d.run("ovs-vsctl --timeout=20 wait-until port p1 rstp_statistics={} rstp_status={}");
}
