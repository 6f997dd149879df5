//! What every provider must do, as a suite that takes a device and complains.

use crate::contract::Netdev;
use crate::flags::Flags;

/// Checks what holds for any device that can be configured: MAC, MTU, flags round trips, sequence numbers.
/// Panics with the broken clause. Leaves the device up.
pub fn configuration(dev: &dyn Netdev) {
    let name = dev.name();
    assert!(!name.is_empty() && !dev.kind().is_empty(), "a device has a name and a kind");
    assert_ne!(dev.change_seq(), 0, "{name}: change_seq is never 0");

    let mac = ib_packet::Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
    let before = dev.change_seq();
    dev.set_mac(mac).unwrap_or_else(|e| panic!("{name}: set_mac: {e}"));
    assert_eq!(dev.mac(), Ok(mac), "{name}: the MAC is in force on return");
    assert_ne!(dev.change_seq(), before, "{name}: a new MAC is a change");

    dev.set_mtu(1400).unwrap_or_else(|e| panic!("{name}: set_mtu: {e}"));
    assert_eq!(dev.mtu(), Ok(1400), "{name}: the MTU is in force on return");
    dev.set_mtu(1500).unwrap_or_else(|e| panic!("{name}: set_mtu: {e}"));

    let up = Flags::UP;
    dev.update_flags(Flags::NONE, up).unwrap_or_else(|e| panic!("{name}: up: {e}"));
    assert!(dev.flags().is_ok_and(|f| f.contains(up)), "{name}: up is seen");
    let old = dev.update_flags(up, Flags::NONE);
    assert!(old.is_ok_and(|f| f.contains(up)), "{name}: update_flags tells what was");
    assert!(dev.flags().is_ok_and(|f| !f.contains(up)), "{name}: down is seen");
    assert!(!dev.carrier().up, "{name}: no carrier while down");
    dev.update_flags(Flags::NONE, up).unwrap_or_else(|e| panic!("{name}: up: {e}"));
    dev.stats().unwrap_or_else(|e| panic!("{name}: stats: {e}"));
}
