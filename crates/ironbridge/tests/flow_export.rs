//! Flow export as collectors see it: a packet on a dummy port, datagrams of NetFlow, sFlow and IPFIX on a socket.

mod support;

use std::net::UdpSocket;
use std::time::Duration;

use support::Daemons;

/// A collector, and its target in the database's notation.
fn collector() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let target = format!("targets=\"{}\"", socket.local_addr().unwrap());
    (socket, target)
}

fn next(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2000];
    let n = socket.recv(&mut buffer).expect("a datagram");
    buffer[..n].to_vec()
}

#[test]
fn a_packet_reaches_all_collectors() {
    let d = Daemons::start(&["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
    let ((sflow, to_sflow), (ipfix, to_ipfix), (netflow, to_netflow)) =
        (collector(), collector(), collector());
    d.run("ovs-appctl time/stop");
    d.run(
        "ovs-vsctl add-br br0 -- set Bridge br0 fail-mode=secure -- add-port br0 p1 -- add-port br0 p2 \
         -- set Interface p1 ofport_request=1 options:ifindex=1001 -- set Interface p2 ofport_request=2 options:ifindex=1002",
    );
    d.run("ovs-ofctl add-flow br0 in_port=1,actions=2");
    d.run(&format!(
        "ovs-vsctl -- --id=@s create sFlow {to_sflow} sampling=1 polling=0 agent=127.0.0.1 \
         -- --id=@i create IPFIX {to_ipfix} sampling=1 obs_domain_id=7 \
         -- --id=@n create NetFlow {to_netflow} -- set Bridge br0 sflow=@s ipfix=@i netflow=@n"
    ));
    let packet = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),\
                  ipv4(src=192.168.0.1,dst=192.168.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)";
    d.run(&format!("ovs-appctl netdev-dummy/receive p1 {packet}"));
    let flows = d.run("ovs-appctl dpctl/dump-flows");
    assert!(
        flows.contains(
            "actions:userspace(pid=0,sFlow(vid=0,pcp=0,output=1002),actions),\
             userspace(pid=0,ipfix(output_port=4294967295)),userspace(pid=0,ipfix(output_port=2)),2"
        ),
        "{flows}"
    );

    // Templates, the exporter's own, then the packet as it comes in and as it leaves.
    for _ in 0..20 {
        next(&ipfix);
    }
    for template in [284u16, 285] {
        let record = next(&ipfix);
        assert_eq!(record[12..18], [&7u32.to_be_bytes()[..], &template.to_be_bytes()].concat());
    }
    let stats = d.run("ovs-ofctl dump-ipfix-bridge br0");
    assert!(stats.contains("flows=2, current flows=0, sampled pkts=2, ipv4 ok=2"), "{stats}");

    d.run("ovs-appctl time/warp 1000");
    let sample = next(&sflow);
    assert_eq!(sample[52..64], [0, 0, 0, 0, 0, 0, 3, 233, 0, 0, 3, 234]);

    d.run("ovs-appctl revalidator/purge");
    d.run("ovs-appctl time/warp 1000");
    let record = next(&netflow);
    assert_eq!(record[..4], [0, 5, 0, 1]);
    assert_eq!(record[24..32], [192, 168, 0, 1, 192, 168, 0, 2]);

    d.run("ovs-vsctl clear Bridge br0 ipfix sflow netflow");
    let gone = d.try_run("ovs-ofctl dump-ipfix-bridge br0");
    assert!(String::from_utf8_lossy(&gone.stdout).contains("NXST_NOT_CONFIGURED"), "{gone:?}");
}
