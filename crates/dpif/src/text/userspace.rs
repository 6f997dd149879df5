//! The cookie that vswitchd puts into a `userspace` action's userdata, so that the upcall tells what to
//! do. Its bytes come back unchanged from any datapath; the layout is ours alone.

use std::fmt::Write;
use std::sync::Arc;

use super::{Res, Scan, hex};

/// Reasons for handling packets in user space, by bit, with the names that flow dumps print.
pub const SLOW_PATH_REASONS: &[(u32, &str)] = &[
    (1 << 0, "cfm"),
    (1 << 1, "bfd"),
    (1 << 2, "lacp"),
    (1 << 3, "stp"),
    (1 << 4, "lldp"),
    (1 << 5, "action"),
    (1 << 6, "match"),
];

/// What a `userspace` action is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCookie {
    /// Translate again, by hand: [`SLOW_PATH_REASONS`] bits.
    SlowPath(u32),
    /// Send to controllers.
    Controller {
        /// OpenFlow packet-in reason.
        reason: u8,
        /// Frozen only to be resumed, not sent.
        dont_send: bool,
        /// Pause: the packet-in carries a continuation.
        continuation: bool,
        /// Frozen state.
        recirc_id: u32,
        /// Cookie of the rule.
        rule_cookie: u64,
        /// Controllers with this id.
        controller_id: u16,
        /// Bytes to send.
        max_len: u16,
    },
    /// sFlow sample.
    SFlow {
        /// VLAN TCI of the packet, host order.
        vlan_tci: u16,
        /// sFlow output encoding.
        output: u32,
    },
    /// IPFIX per-flow sample.
    FlowSample {
        /// Sampling probability.
        probability: u16,
        /// Collector set.
        collector_set_id: u32,
        /// Observation domain.
        obs_domain_id: u32,
        /// Observation point.
        obs_point_id: u32,
        /// Output port.
        output_port: u32,
        /// 0 none, 1 ingress, 2 egress.
        direction: u8,
    },
    /// IPFIX per-bridge sample.
    Ipfix {
        /// Output port.
        output_port: u32,
    },
}

impl UserCookie {
    /// As userdata bytes.
    pub fn to_bytes(&self) -> Arc<[u8]> {
        let mut b = Vec::with_capacity(32);
        match self {
            UserCookie::SlowPath(bits) => {
                b.push(1);
                b.extend(bits.to_be_bytes());
            }
            UserCookie::Controller {
                reason,
                dont_send,
                continuation,
                recirc_id,
                rule_cookie,
                controller_id,
                max_len,
            } => {
                b.extend([2, *reason, u8::from(*dont_send) | u8::from(*continuation) << 1]);
                b.extend(recirc_id.to_be_bytes());
                b.extend(rule_cookie.to_be_bytes());
                b.extend(controller_id.to_be_bytes());
                b.extend(max_len.to_be_bytes());
            }
            UserCookie::SFlow { vlan_tci, output } => {
                b.push(3);
                b.extend(vlan_tci.to_be_bytes());
                b.extend(output.to_be_bytes());
            }
            UserCookie::FlowSample {
                probability,
                collector_set_id,
                obs_domain_id,
                obs_point_id,
                output_port,
                direction,
            } => {
                b.push(4);
                b.extend(probability.to_be_bytes());
                b.extend(collector_set_id.to_be_bytes());
                b.extend(obs_domain_id.to_be_bytes());
                b.extend(obs_point_id.to_be_bytes());
                b.extend(output_port.to_be_bytes());
                b.push(*direction);
            }
            UserCookie::Ipfix { output_port } => {
                b.push(5);
                b.extend(output_port.to_be_bytes());
            }
        }
        b.into()
    }

    /// From userdata bytes; `None` if they are not such a cookie.
    pub fn from_bytes(bytes: &[u8]) -> Option<UserCookie> {
        let (kind, mut rest) = bytes.split_first()?;
        macro_rules! take {
            ($t:ty) => {{
                let (head, tail) = rest.split_first_chunk::<{ size_of::<$t>() }>()?;
                rest = tail;
                <$t>::from_be_bytes(*head)
            }};
        }
        let cookie = match kind {
            1 => UserCookie::SlowPath(take!(u32)),
            2 => {
                let reason = take!(u8);
                let flags = take!(u8);
                UserCookie::Controller {
                    reason,
                    dont_send: flags & 1 != 0,
                    continuation: flags & 2 != 0,
                    recirc_id: take!(u32),
                    rule_cookie: take!(u64),
                    controller_id: take!(u16),
                    max_len: take!(u16),
                }
            }
            3 => UserCookie::SFlow { vlan_tci: take!(u16), output: take!(u32) },
            4 => UserCookie::FlowSample {
                probability: take!(u16),
                collector_set_id: take!(u32),
                obs_domain_id: take!(u32),
                obs_point_id: take!(u32),
                output_port: take!(u32),
                direction: take!(u8),
            },
            5 => UserCookie::Ipfix { output_port: take!(u32) },
            _ => return None,
        };
        rest.is_empty().then_some(cookie)
    }

    /// Appends the text form, e.g. `,slow_path(cfm)`.
    pub(crate) fn format(&self, out: &mut String) {
        match self {
            UserCookie::SlowPath(bits) => {
                let names: Vec<&str> =
                    SLOW_PATH_REASONS.iter().filter(|(b, _)| bits & b != 0).map(|(_, n)| *n).collect();
                let text = if names.is_empty() { "0".into() } else { names.join("|") };
                let _ = write!(out, ",slow_path({text})");
            }
            UserCookie::Controller {
                reason,
                dont_send,
                continuation,
                recirc_id,
                rule_cookie,
                controller_id,
                max_len,
            } => {
                let _ = write!(
                    out,
                    ",controller(reason={reason},dont_send={},continuation={},recirc_id={recirc_id},rule_cookie={},controller_id={controller_id},max_len={max_len})",
                    u8::from(*dont_send),
                    u8::from(*continuation),
                    hex(u128::from(*rule_cookie)),
                );
            }
            UserCookie::SFlow { vlan_tci, output } => {
                let _ =
                    write!(out, ",sFlow(vid={},pcp={},output={output})", vlan_tci & 0xfff, vlan_tci >> 13);
            }
            UserCookie::FlowSample {
                probability,
                collector_set_id,
                obs_domain_id,
                obs_point_id,
                output_port,
                direction,
            } => {
                let _ = write!(
                    out,
                    ",flow_sample(probability={probability},collector_set_id={collector_set_id},obs_domain_id={obs_domain_id},obs_point_id={obs_point_id},output_port={output_port}{})",
                    match direction {
                        1 => ",ingress",
                        2 => ",egress",
                        _ => "",
                    }
                );
            }
            UserCookie::Ipfix { output_port } => {
                let _ = write!(out, ",ipfix(output_port={output_port})");
            }
        }
    }

    /// Parses the text form if one starts here.
    pub(crate) fn parse(s: &mut Scan<'_>) -> Res<Option<UserCookie>> {
        if s.eat("slow_path(") {
            let inner = s.balanced()?;
            let mut bits = 0;
            for name in inner.split('|').filter(|n| !n.is_empty() && *n != "0") {
                match SLOW_PATH_REASONS.iter().find(|(_, n)| *n == name) {
                    Some((bit, _)) => bits |= bit,
                    None => return s.err(format!("unknown slow path reason '{name}'")),
                }
            }
            return Ok(Some(UserCookie::SlowPath(bits)));
        }
        if s.eat("controller(") {
            s.expect("reason=")?;
            let reason = s.u8()?;
            s.expect(",dont_send=")?;
            let dont_send = s.u8()? != 0;
            s.expect(",continuation=")?;
            let continuation = s.u8()? != 0;
            s.expect(",recirc_id=")?;
            let recirc_id = s.u32()?;
            s.expect(",rule_cookie=")?;
            let rule_cookie = s.u64()?;
            s.expect(",controller_id=")?;
            let controller_id = s.u16()?;
            s.expect(",max_len=")?;
            let max_len = s.u16()?;
            s.expect(")")?;
            return Ok(Some(UserCookie::Controller {
                reason,
                dont_send,
                continuation,
                recirc_id,
                rule_cookie,
                controller_id,
                max_len,
            }));
        }
        if s.eat("sFlow(vid=") {
            let vid = s.u16()?;
            s.expect(",pcp=")?;
            let pcp = s.u16()?;
            s.expect(",output=")?;
            let output = s.u32()?;
            s.expect(")")?;
            let tci = if vid != 0 || pcp != 0 { (vid & 0xfff) | (pcp & 7) << 13 | 0x1000 } else { 0 };
            return Ok(Some(UserCookie::SFlow { vlan_tci: tci, output }));
        }
        if s.eat("flow_sample(probability=") {
            let probability = s.u16()?;
            s.expect(",collector_set_id=")?;
            let collector_set_id = s.u32()?;
            s.expect(",obs_domain_id=")?;
            let obs_domain_id = s.u32()?;
            s.expect(",obs_point_id=")?;
            let obs_point_id = s.u32()?;
            s.expect(",output_port=")?;
            let output_port = s.u32()?;
            let direction = if s.eat(",ingress") {
                1
            } else if s.eat(",egress") {
                2
            } else {
                0
            };
            s.expect(")")?;
            return Ok(Some(UserCookie::FlowSample {
                probability,
                collector_set_id,
                obs_domain_id,
                obs_point_id,
                output_port,
                direction,
            }));
        }
        if s.eat("ipfix(output_port=") {
            let output_port = s.u32()?;
            s.expect(")")?;
            return Ok(Some(UserCookie::Ipfix { output_port }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_survive_bytes_and_cut_bytes_are_refused() {
        let cookie = UserCookie::Controller {
            reason: 1,
            dont_send: false,
            continuation: true,
            recirc_id: 1234,
            rule_cookie: 5,
            controller_id: 3,
            max_len: 65535,
        };
        let bytes = cookie.to_bytes();
        assert_eq!(UserCookie::from_bytes(&bytes), Some(cookie));
        for n in 0..bytes.len() {
            assert_eq!(UserCookie::from_bytes(&bytes[..n]), None);
        }
    }
}
