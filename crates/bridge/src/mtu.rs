//! MTUs of a bridge's own ports.
//!
//! Internal ports (the bridge's own among them) whose rows ask for no MTU follow the smallest MTU of all other ports: when that
//! changes they get it, and one that is larger, whoever made it so, is made smaller. Looked at whenever devices or rows have
//! changed; one look costs a lock a port.

use ib_base::vlog::module::NETDEV;
use ib_base::vlog_warn_rl;

use crate::reconfigure::{RunningBridge, RunningInterface};

/// The MTU where no port has another, bytes.
pub(crate) const DEFAULT: u32 = 1500;

fn follows(iface: &RunningInterface) -> bool {
    iface.desired.kind == "internal" && iface.desired.mtu_request.is_none()
}

/// `None`: it has none, such as a patch port.
fn mtu_of(iface: &RunningInterface) -> Option<u32> {
    iface.dev.mtu().ok().filter(|mtu| *mtu != 0)
}

/// Gives the ports that follow the MTU that they are to have.
pub(crate) fn settle(bridge: &mut RunningBridge) {
    let ifaces = || bridge.ports.values().flat_map(|p| p.interfaces.values());
    let smallest = ifaces().filter(|i| !follows(i)).filter_map(mtu_of).min().unwrap_or(DEFAULT);
    let is_news = smallest != bridge.smallest_mtu;
    for iface in ifaces().filter(|i| follows(i)) {
        if mtu_of(iface).is_some_and(|mtu| mtu > smallest || (is_news && mtu != smallest))
            && let Err(e) = iface.dev.set_mtu(smallest)
        {
            vlog_warn_rl!(NETDEV, (5, 20), "failed to set MTU for network device {}: {e}", iface.dev.name());
        }
    }
    bridge.smallest_mtu = smallest;
}
