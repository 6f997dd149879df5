//! What the tests use on a machine besides Rust, and the line that installs it. Nothing is installed
//! here: tests that lack something skip and say why.

use std::path::Path;

/// Program to look for, Debian package, what it is for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("/usr/sbin/ovs-vswitchd", "openvswitch-switch", "comparison with Open vSwitch"),
    ("/usr/bin/ovsdb-tool", "openvswitch-common", "comparison with Open vSwitch"),
    ("/usr/bin/vtep-ctl", "openvswitch-vtep", "comparison with Open vSwitch"),
    ("/usr/bin/ovn-northd", "ovn-central", "OVN on our database"),
    ("/usr/bin/ovn-nbctl", "ovn-common", "OVN on our database"),
    ("/usr/sbin/ip", "iproute2", "network namespaces"),
    ("/usr/bin/ping", "iputils-ping", "traffic"),
    ("/usr/bin/iperf3", "iperf3", "traffic"),
    ("/usr/sbin/ethtool", "ethtool", "device settings"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86", "virtual machines"),
    ("/usr/bin/busybox", "busybox-static", "virtual machines"),
    ("/usr/bin/openssl", "openssl", "TLS"),
    ("/usr/bin/valgrind", "valgrind", "instruction counts"),
    ("/usr/bin/mn", "mininet", "Mininet"),
];

/// Prints what is missing, if anything, with its install line.
pub fn report() {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(path, ..)| !Path::new(path).exists()).collect();
    for (path, _, purpose) in &missing {
        eprintln!("xtask: {path} is missing: tests of {purpose} will be skipped");
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    if !Path::new("target/python-clients/bin/python").exists() {
        eprintln!("xtask: Python clients are missing: their tests will be skipped; to have them:");
        eprintln!("  python3 -m venv target/python-clients");
        eprintln!("  target/python-clients/bin/pip install ovs ovsdbapp os-ken");
    }
    packages.dedup();
    if !packages.is_empty() {
        eprintln!("xtask: to have them: apt-get install --no-install-recommends {}", packages.join(" "));
    }
}
