//! Two real virtual machines on vhost-user ports of the bridge, one of each kind, and a network namespace: their packets pass
//! through shared memory, the switch is restarted under them, and one of them dies.

mod support;

use support::guest::{Guest, PROGRAMS, initrd, kernel, tcp_works};
use support::{Daemons, Dir, Host, need, unique, wait_for};

#[test]
fn guests_talk_through_shared_memory_and_survive_the_switch() {
    if !need(PROGRAMS) {
        return;
    }
    let Some((kernel, modules)) = kernel() else {
        println!("skipped: needs a cloud kernel (apt-get install linux-image-cloud-amd64)");
        return;
    };
    let dir = Dir::new("vhost");
    let image = initrd(dir.path(), &modules);
    let d = Daemons::start(&[]);
    let br = unique("ibr");
    let socket = dir.file("client.sock");
    let host = Host::new("10.82.0.9/24");
    d.run(&format!(
        "ovs-vsctl add-br {br} -- set bridge {br} datapath_type=netdev -- add-port {br} {}",
        host.port
    ));
    d.run(&format!(
        "ovs-vsctl add-port {br} vhost-a -- set interface vhost-a type=dpdkvhostuserclient \
         options:vhost-server-path={socket} -- add-port {br} vhost-b -- set interface vhost-b type=dpdkvhostuser"
    ));
    let status = |port: &str, key: &str| {
        d.run(&format!("ovs-vsctl get interface {port} status:{key}")).trim().trim_matches('"').to_owned()
    };
    assert_eq!(status("vhost-a", "status"), "disconnected");
    let server = d.dir.file("vhost-b");
    let boot = |mac: &str, chardev: &str| {
        let chardev = format!("socket,id=c0,path={chardev}");
        let backend = [
            "-object",
            "memory-backend-memfd,id=m0,size=128M,share=on",
            "-numa",
            "node,memdev=m0",
            "-chardev",
            &chardev,
            "-netdev",
            "vhost-user,id=n0,chardev=c0",
        ];
        Guest::boot_with(&kernel, &image, mac, &backend)
    };
    let mut a = boot("52:54:00:00:00:0a", &format!("{socket},server=on"));
    let mut b = boot("52:54:00:00:00:0b", &format!("{server},reconnect=1"));
    a.ready();
    b.ready();
    assert!(a.run("ip addr add 10.82.0.1/24 dev eth0").1);
    assert!(b.run("ip addr add 10.82.0.2/24 dev eth0").1);
    assert!(a.pings("10.82.0.9"), "guest to namespace");
    assert!(host.pings("10.82.0.2"), "namespace to guest");
    assert!(a.pings("10.82.0.2"), "guest to guest");
    tcp_works(&mut a, &mut b, "10.82.0.2");
    wait_for("the status", 10, || status("vhost-a", "status") == "connected");
    assert_eq!(status("vhost-a", "mode"), "client");
    assert_eq!(status("vhost-b", "mode"), "server");
    assert_eq!(status("vhost-a", "num_of_vrings"), "2");

    // The switch comes back: the client port connects again, QEMU to the server port, and packets go on.
    d.kill("ovs-vswitchd", "-9");
    d.start_switch(&[]);
    wait_for("traffic after a restart", 20, || host.pings("10.82.0.1") && host.pings("10.82.0.2"));

    // A guest dies.
    drop(a);
    wait_for("the end of a guest", 20, || status("vhost-a", "status") == "disconnected");
    assert!(host.pings("10.82.0.2"), "the other one goes on");
}
