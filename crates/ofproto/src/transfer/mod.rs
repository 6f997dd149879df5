//! The forwarding state of ports, on its way to another switch.
//!
//! `port-state/save` gathers what concerns some ports of a bridge: OpenFlow flows with their counters and ages, the
//! groups and meters that those use, learned addresses, multicast memberships, and connections. `port-state/restore` puts it
//! into a bridge of the same or another switch; `port-state/announce` tells the network, `port-state/forget` cleans up behind. The form is a JSON object (docs/port-state.md); `ironbridge port` adds the configuration
//! to it and makes it a file.
//!
//! Ports go by name, so that numbers may differ. A state is read whole and checked before anything changes; what then fails
//! nevertheless takes back what was done before it.
//!
//! Cost: saving looks at all flows of the bridge and all connections; restoring is proportional to what comes.

mod moved;
mod restore;
mod save;
mod session;

pub(crate) use moved::{announce, forget, heard};
pub(crate) use restore::restore;
pub(crate) use save::save;
pub(crate) use session::{Sessions, end};

use ib_classifier::AsClsRule;
use ib_flow::{Match, OfPort, PortMap};
use ib_openflow::action::Action;

use crate::rule::Rule;
use crate::switch::Bridge;

/// Version of the JSON form.
const VERSION: i64 = 1;

/// Names of a bridge's ports, both ways, as `rename` gives them.
fn port_map<'a>(bridge: &'a Bridge, rename: impl Fn(&'a str) -> &'a str) -> PortMap {
    let mut map = PortMap::default();
    for p in bridge.ports() {
        map.insert(p.ofport, rename(&p.config.name));
    }
    map
}

/// Whether a match is about packets that come in by one of `ports`.
fn enters_by(m: &Match, ports: &[OfPort]) -> bool {
    m.mask.0.in_port == u32::MAX && ports.iter().any(|p| u32::from(p.0) == m.flow.in_port)
}

/// Calls `visit` with each action, those inside of others included.
fn each_action(actions: &[Action], visit: &mut impl FnMut(&Action)) {
    for a in actions {
        visit(a);
        match a {
            Action::WriteActions(inner) | Action::Clone(inner) => each_action(inner, visit),
            Action::Ct(ct) => each_action(&ct.actions, visit),
            _ => {}
        }
    }
}

/// A rule's match, its tunnel options named by the bridge's table.
fn match_of(bridge: &Bridge, rule: &Rule) -> Match {
    let mut m = rule.cls().match_();
    if m.mask.0.tunnel.opts_present != 0
        && let Some(table) = bridge.of.tlv()
    {
        m.flow.tunnel.set_tlv_table(table.id());
    }
    m
}

#[cfg(test)]
mod tests;
