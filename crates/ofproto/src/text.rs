//! Texts of flows, rules and actions, as traces, logs and dumps show them.

use ib_classifier::AsClsRule;
use ib_flow::{Flow, Match, OfPort, PortMap};
use ib_openflow::action::Action;
use ib_openflow::action_format::actions_text;
use ib_openflow::names::Names;

use crate::ofproto::Ofproto;
use crate::rule::Rule;
use crate::xcfg::XBridge;

/// Names of a bridge's ports.
pub fn port_map(bridge: &XBridge) -> PortMap {
    let mut map = PortMap::default();
    for p in bridge.ports.values() {
        map.insert(p.ofport, &p.name);
    }
    map
}

/// A key.
pub fn flow(flow: &Flow, _bridge: &XBridge) -> String {
    ib_flow::text::flow_to_string(flow, None)
}

/// A match.
pub fn match_(m: &Match, ports: Option<&PortMap>) -> String {
    ib_flow::text::match_to_string(m, ports)
}

/// A rule's match.
pub fn rule_match(rule: &Rule, of: &Ofproto, ports: Option<&PortMap>) -> String {
    let mut m = rule.cls().match_();
    if m.mask.0.tunnel.opts_present != 0
        && let Some(table) = of.tlv()
    {
        m.flow.tunnel.set_tlv_table(table.id());
    }
    match_(&m, ports)
}

/// A port by reserved name or number.
pub fn port(port: OfPort, _bridge: &XBridge) -> String {
    let mut out = String::new();
    ib_flow::text::format_port(port, None, &mut out);
    out
}

/// An action list.
pub fn actions(list: &[Action], ports: Option<&PortMap>) -> String {
    actions_text(list, &Names { ports, tables: None })
}

/// A number as C's `%#x` prints it: zero has no prefix.
pub fn c_hex(v: u64) -> String {
    if v == 0 { "0".to_owned() } else { format!("{v:#x}") }
}
