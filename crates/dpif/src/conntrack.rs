//! Connections as the control plane sees them: what is dumped, what a flush names, and what can be set.
//!
//! A provider that tracks connections hands out its [`CtControl`]; `dpctl`, OpenFlow's flushes and the database's zones speak to it.
//! Values are in host order. Every method may be called from any thread, and none stops forwarding for longer than
//! one part of the table takes.

use std::fmt::Write;
use std::net::IpAddr;

use crate::ct_saved::CtSaved;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CtTuple {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IP protocol.
    pub proto: u8,
    /// Source port; of ICMP, the type.
    pub sport: u16,
    /// Destination port; of ICMP, the type of the answer.
    pub dport: u16,
    /// Id of ICMP.
    pub id: u16,
}

/// State of one end of a TCP connection, in the order of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[allow(missing_docs)] // RFC 9293's names.
pub enum TcpState {
    #[default]
    Closed,
    Listen,
    SynSent,
    SynRecv,
    Established,
    CloseWait,
    FinWait1,
    Closing,
    LastAck,
    FinWait2,
    TimeWait,
}

impl TcpState {
    /// All, in order.
    pub const ALL: [TcpState; 11] = [
        TcpState::Closed,
        TcpState::Listen,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::CloseWait,
        TcpState::FinWait1,
        TcpState::Closing,
        TcpState::LastAck,
        TcpState::FinWait2,
        TcpState::TimeWait,
    ];
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            TcpState::Closed => "CLOSED",
            TcpState::Listen => "LISTEN",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::FinWait1 => "FIN_WAIT_1",
            TcpState::Closing => "CLOSING",
            TcpState::LastAck => "LAST_ACK",
            TcpState::FinWait2 => "FIN_WAIT_2",
            TcpState::TimeWait => "TIME_WAIT",
        }
    }
}

/// What is known of both ends of a TCP connection: originator, then the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CtTcp {
    /// States.
    pub state: [TcpState; 2],
    /// Window scale, without flags.
    pub wscale: [u8; 2],
    /// Whether the end takes part in window scaling.
    pub scales: [bool; 2],
    /// Whether whether it does is unknown, for want of a SYN: then windows are taken generously.
    pub liberal: [bool; 2],
}

impl CtTcp {
    /// One state for both ends: the further one, in the terms of trackers that keep a single state.
    pub fn overall(&self) -> TcpState {
        match self.state[0].max(self.state[1]) {
            TcpState::FinWait2 => TcpState::TimeWait,
            TcpState::SynRecv => TcpState::Established,
            other => other,
        }
    }
}

/// A connection as dumped.
#[derive(Clone, Debug, PartialEq)]
pub struct CtEntry {
    /// Original direction.
    pub orig: CtTuple,
    /// Reply direction; differs from the reverse of `orig` under NAT.
    pub reply: CtTuple,
    /// Zone.
    pub zone: u16,
    /// Mark.
    pub mark: u32,
    /// Label.
    pub label: u128,
    /// Seconds left.
    pub timeout_s: u64,
    /// TCP.
    pub tcp: Option<CtTcp>,
    /// Application helper.
    pub helper: Option<&'static str>,
    /// Original direction of the connection that announced this one.
    pub parent: Option<CtTuple>,
    /// What the kernel alone says.
    pub kernel: Option<CtKernel>,
}

/// What the kernel says of a connection beside the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CtKernel {
    /// Its number.
    pub id: u32,
    /// `IPS_*` of linux/netfilter/nf_conntrack_common.h.
    pub status: u32,
    /// `IP_CT_TCP_FLAG_*` of originator and other.
    pub tcp_flags: [u8; 2],
}

/// By bit of [`CtKernel::status`].
const STATUS: [&str; 15] = [
    "EXPECTED",
    "SEEN_REPLY",
    "ASSURED",
    "CONFIRMED",
    "SRC_NAT",
    "DST_NAT",
    "SEQ_ADJUST",
    "SRC_NAT_DONE",
    "DST_NAT_DONE",
    "DYING",
    "FIXED_TIMEOUT",
    "TEMPLATE",
    "UNTRACKED",
    "HELPER",
    "OFFLOAD",
];

/// By bit of [`CtKernel::tcp_flags`].
const TCP_FLAGS: [&str; 6] =
    ["WINDOW_SCALE", "SACK_PERM", "CLOSE_INIT", "BE_LIBERAL", "DATA_UNACKNOWLEDGED", "MAXACK_SET"];

/// Names of the bits that are set; what has no name is a number.
fn bits(value: u32, names: &[&str]) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    let named = names.iter().enumerate().filter(|(bit, _)| value >> bit & 1 != 0);
    let mut words: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    let rest = value & !((1 << names.len()) - 1);
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    words.join("|")
}

/// A connection that another announced and that has not begun, as dumped.
#[derive(Clone, Debug, PartialEq)]
pub struct CtExpectation {
    /// Its first packet; any source port will do, which is 0 here.
    pub orig: CtTuple,
    /// Zone.
    pub zone: u16,
    /// Mark that it will have.
    pub mark: u32,
    /// Label that it will have.
    pub label: u128,
    /// Original direction of the connection that announced it.
    pub parent: CtTuple,
}

/// Parts of a tuple that a flush names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CtTupleFilter {
    /// Source.
    pub src: Option<IpAddr>,
    /// Destination.
    pub dst: Option<IpAddr>,
    /// IP protocol.
    pub proto: Option<u8>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// ICMP id, type, code.
    pub icmp: (Option<u16>, Option<u8>, Option<u8>),
}

impl CtTupleFilter {
    /// This direction, and no other.
    pub fn of(t: &CtTuple) -> CtTupleFilter {
        let all = CtTupleFilter {
            src: Some(t.src),
            dst: Some(t.dst),
            proto: Some(t.proto),
            ..CtTupleFilter::default()
        };
        match t.proto {
            1 | 58 => CtTupleFilter { icmp: (Some(t.id), u8::try_from(t.sport).ok(), None), ..all },
            _ => CtTupleFilter { sport: Some(t.sport), dport: Some(t.dport), ..all },
        }
    }
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == CtTupleFilter::default()
    }
    /// Whether `t` has everything asked for.
    pub fn matches(&self, t: &CtTuple) -> bool {
        let is = |want: Option<u16>, have: u16| want.is_none_or(|w| w == have);
        let icmp = matches!(t.proto, 1 | 58);
        let l4 = if icmp {
            is(self.icmp.0, t.id)
                && is(self.icmp.1.map(u16::from), t.sport)
                && self.icmp.2.is_none_or(|c| c == 0)
        } else {
            is(self.sport, t.sport) && is(self.dport, t.dport)
        };
        self.src.is_none_or(|a| a == t.src)
            && self.dst.is_none_or(|a| a == t.dst)
            && self.proto.is_none_or(|p| p == t.proto)
            && l4
    }
}

/// Which connections to flush: those that agree with everything given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CtFilter {
    /// Zone.
    pub zone: Option<u16>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Label and mask.
    pub label: Option<(u128, u128)>,
    /// Original direction.
    pub orig: CtTupleFilter,
    /// Reply direction.
    pub reply: CtTupleFilter,
}

impl CtFilter {
    /// Whether `e` agrees.
    pub fn matches(&self, e: &CtEntry) -> bool {
        self.zone.is_none_or(|z| z == e.zone)
            && self.mark.is_none_or(|(v, m)| e.mark & m == v & m)
            && self.label.is_none_or(|(v, m)| e.label & m == v & m)
            && self.orig.matches(&e.orig)
            && self.reply.matches(&e.reply)
    }
}

/// A zone's limit and how many connections it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtZoneLimit {
    /// Zone.
    pub zone: u16,
    /// Most connections; 0: no limit.
    pub limit: u32,
    /// Connections counted against it.
    pub count: u32,
}

/// Counters of fragment reassembly of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)] // As the command prints them.
pub struct FragCounters {
    pub enabled: bool,
    pub min_size: u32,
    pub accepted: u64,
    pub completed: u64,
    pub expired: u64,
    pub too_small: u64,
    pub overlapped: u64,
    pub purged: u64,
}

/// Fragment reassembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FragStatus {
    /// Most fragments held.
    pub max: u32,
    /// Fragments held.
    pub held: u32,
    /// IPv4.
    pub v4: FragCounters,
    /// IPv6.
    pub v6: FragCounters,
}

/// Timeouts of a zone, seconds; `None` is the default. Names are those of the database's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct CtTimeouts {
    pub tcp_syn_sent: Option<u32>,
    pub tcp_syn_recv: Option<u32>,
    pub tcp_established: Option<u32>,
    pub tcp_fin_wait: Option<u32>,
    pub tcp_time_wait: Option<u32>,
    pub tcp_close: Option<u32>,
    pub tcp_close_wait: Option<u32>,
    pub tcp_last_ack: Option<u32>,
    pub tcp_syn_sent2: Option<u32>,
    pub tcp_retransmit: Option<u32>,
    pub tcp_unack: Option<u32>,
    pub udp_first: Option<u32>,
    pub udp_single: Option<u32>,
    pub udp_multiple: Option<u32>,
    pub icmp_first: Option<u32>,
    pub icmp_reply: Option<u32>,
}

/// Fragments of a datagram that is not complete yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragList {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Recirculation id of the packets.
    pub recirc_id: u32,
    /// Identification.
    pub id: u32,
    /// Zone.
    pub zone: u16,
    /// IP protocol.
    pub proto: u8,
    /// Fragments there are.
    pub held: usize,
    /// Whether the first one and the last one are among them.
    pub ends: (bool, bool),
}

impl std::fmt::Display for FragList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Of IPv6 the protocol is not said: it stands in the fragment header.
        let (dl_type, proto) = if self.src.is_ipv6() { (0x86dd, 0) } else { (0x800, self.proto) };
        let state = match self.ends {
            (true, true) => "first/last frag",
            (true, false) => "first frag",
            (false, true) => "last frag",
            (false, false) => "other frag",
        };
        let FragList { src, dst, recirc_id, id, zone, held, .. } = self;
        write!(f, "(src={src},dst={dst},recirc_id={recirc_id},ip_id={id},dl_type={dl_type:#x},zone={zone}")?;
        write!(f, ",nw_proto={proto},num_fragments={held},state={state})")
    }
}

/// A provider's connection table.
pub trait CtControl: Send + Sync {
    /// All connections (of a zone), oldest first.
    fn dump(&self, zone: Option<u16>) -> Vec<CtEntry>;
    /// Connections (of a zone) that are announced and have not begun.
    fn expectations(&self, zone: Option<u16>) -> Vec<CtExpectation>;
    /// Removes those that agree; how many.
    fn flush(&self, filter: &CtFilter) -> usize;
    /// Those that are `wanted`, oldest first, with all that they need to go on in another table.
    fn save(&self, _wanted: &dyn Fn(&CtEntry) -> bool) -> Vec<CtSaved> {
        Vec::new()
    }
    /// Takes a connection over from another table; it replaces what has its original direction. The error says why not.
    fn restore(&self, _conn: &CtSaved) -> Result<(), String> {
        Err("this datapath cannot take connections over".into())
    }
    /// Removes the connection with this original direction; whether it was there.
    fn remove(&self, zone: u16, orig: &CtTuple) -> bool {
        self.flush(&CtFilter { zone: Some(zone), orig: CtTupleFilter::of(orig), ..CtFilter::default() }) != 0
    }
    /// Whether what follows but for limits and timeouts is the datapath's to tell and to set. The kernel's table is the machine's:
    /// then these methods say and do nothing.
    fn has_settings(&self) -> bool {
        true
    }
    /// Connections there are.
    fn n_conns(&self) -> u32;
    /// Most connections.
    fn max_conns(&self) -> u32;
    /// Sets [`Self::max_conns`].
    fn set_max_conns(&self, max: u32);
    /// Whether TCP sequence numbers are checked.
    fn tcp_seq_chk(&self) -> bool;
    /// Sets [`Self::tcp_seq_chk`].
    fn set_tcp_seq_chk(&self, on: bool);
    /// Limit of zones without their own; 0: none.
    fn default_limit(&self) -> u32;
    /// Sets [`Self::default_limit`].
    fn set_default_limit(&self, limit: u32);
    /// Zones with a limit of their own, by number.
    fn limits(&self) -> Vec<CtZoneLimit>;
    /// A zone's limit in force.
    fn limit(&self, zone: u16) -> CtZoneLimit;
    /// Gives a zone a limit; `None` takes it away.
    fn set_limit(&self, zone: u16, limit: Option<u32>);
    /// Timeouts of connections that a zone gets from now on; `None`: the defaults. Equal ones are one policy.
    fn set_timeouts(&self, zone: u16, timeouts: Option<CtTimeouts>);
    /// The policy of a zone: what `timeout=` of a `ct` action names.
    fn timeout_policy(&self, zone: u16) -> Option<u32>;
    /// Whether a policy has a name for each protocol, as [`Self::timeout_name`] says.
    fn timeouts_by_protocol(&self) -> bool {
        false
    }
    /// What a `ct` action calls a policy, for packets of this protocol; `None`: it says nothing of such packets.
    fn timeout_name(&self, policy: u32, _v6: bool, _proto: u8) -> Option<String> {
        Some(policy.to_string())
    }
    /// Longest time between looks at what has expired, ms.
    fn sweep_interval_ms(&self) -> u32;
    /// Sets [`Self::sweep_interval_ms`].
    fn set_sweep_interval_ms(&self, ms: u32);
    /// Fragment reassembly.
    fn frag_status(&self) -> FragStatus;
    /// Datagrams that wait for more fragments, oldest first.
    fn frag_lists(&self) -> Vec<FragList>;
    /// Turns reassembly of IPv4 or IPv6 on or off.
    fn set_frag_enabled(&self, v6: bool, on: bool);
    /// Smallest fragment, but for the last; false if it is too small to be allowed.
    fn set_frag_min(&self, v6: bool, bytes: u32) -> bool;
    /// Most fragments held; false if that is too many.
    fn set_frag_max(&self, max: u32) -> bool;
}

/// How much [`format_entry`] says.
#[derive(Clone, Copy, Debug, Default)]
pub struct CtDetail {
    /// `-m`.
    pub more: bool,
    /// `-s`.
    pub times: bool,
}

/// Name of a protocol, a number if it has none.
pub fn proto_name(proto: u8) -> String {
    match proto {
        1 => "icmp".into(),
        2 => "igmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        33 => "dccp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        136 => "udplite".into(),
        n => n.to_string(),
    }
}

fn format_tuple(out: &mut String, t: &CtTuple) {
    let _ = write!(out, "src={},dst={}", t.src, t.dst);
    let _ = if matches!(t.proto, 1 | 58) {
        write!(out, ",id={},type={},code=0", t.id, t.sport)
    } else {
        write!(out, ",sport={},dport={}", t.sport, t.dport)
    };
}

/// A connection the way that `dpctl/dump-conntrack` prints it.
pub fn format_entry(e: &CtEntry, detail: CtDetail) -> String {
    let mut out = proto_name(e.orig.proto);
    out.push_str(",orig=(");
    format_tuple(&mut out, &e.orig);
    out.push_str("),reply=(");
    format_tuple(&mut out, &e.reply);
    out.push(')');
    if detail.more {
        let _ = write!(out, ",id={}", e.kernel.map_or(0, |k| k.id));
    }
    if e.zone != 0 {
        let _ = write!(out, ",zone={}", e.zone);
    }
    if detail.more {
        let _ = write!(out, ",status={}", bits(e.kernel.map_or(0, |k| k.status), &STATUS));
    }
    if detail.times {
        let _ = write!(out, ",timeout={}", e.timeout_s);
    }
    if e.mark != 0 {
        let _ = write!(out, ",mark={}", e.mark);
    }
    if e.label != 0 {
        let _ = write!(out, ",labels={:#x}", e.label);
    }
    if let Some(t) = &e.tcp {
        format_tcp(&mut out, t, e.kernel.map(|k| k.tcp_flags), detail.more);
    }
    if let Some(helper) = e.helper {
        let _ = write!(out, ",helper={helper}");
    }
    if let Some(parent) = e.parent.as_ref().filter(|_| detail.more) {
        out.push_str(",parent=(");
        format_tuple(&mut out, parent);
        out.push(')');
    }
    out
}

/// An expected connection the way that `dpctl/dump-conntrack-exp` prints it.
pub fn format_expectation(e: &CtExpectation) -> String {
    let mut out = proto_name(e.orig.proto);
    out.push_str(",orig=(");
    format_tuple(&mut out, &e.orig);
    out.push(')');
    if e.zone != 0 {
        let _ = write!(out, ",zone={}", e.zone);
    }
    if e.mark != 0 {
        let _ = write!(out, ",mark={}", e.mark);
    }
    if e.label != 0 {
        let _ = write!(out, ",labels={:#x}", e.label);
    }
    out.push_str(",parent=(");
    format_tuple(&mut out, &e.parent);
    out.push(')');
    out
}

fn format_tcp(out: &mut String, t: &CtTcp, kernel_flags: Option<[u8; 2]>, more: bool) {
    if !more {
        let _ = write!(out, ",protoinfo=(state={})", t.overall().name());
        return;
    }
    let _ = write!(out, ",protoinfo=(state_orig={},state_reply={}", t.state[0].name(), t.state[1].name());
    if t.wscale != [0, 0] {
        let _ = write!(out, ",wscale_orig={},wscale_reply={}", t.wscale[0], t.wscale[1]);
    }
    let own = |end: usize| u8::from(t.scales[end]) | u8::from(t.liberal[end]) << 3;
    let flags = |end: usize| bits(kernel_flags.map_or(own(end), |flags| flags[end]).into(), &TCP_FLAGS);
    let _ = write!(out, ",flags_orig={},flags_reply={})", flags(0), flags(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> CtEntry {
        let t = |s: [u8; 4], d: [u8; 4], sport, dport| CtTuple {
            src: s.into(),
            dst: d.into(),
            proto: 17,
            sport,
            dport,
            id: 0,
        };
        CtEntry {
            orig: t([10, 1, 1, 1], [10, 1, 1, 2], 1, 2),
            reply: t([10, 1, 1, 2], [10, 1, 1, 1], 2, 1),
            zone: 5,
            mark: 7,
            label: 0xabc,
            timeout_s: 60,
            tcp: None,
            helper: None,
            parent: None,
            kernel: None,
        }
    }

    #[test]
    fn texts() {
        let head = "udp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=1,dport=2),\
                    reply=(src=10.1.1.2,dst=10.1.1.1,sport=2,dport=1)";
        let plain = format_entry(&udp(), CtDetail::default());
        assert_eq!(plain, format!("{head},zone=5,mark=7,labels=0xabc"));
        let more = format_entry(&udp(), CtDetail { more: true, times: false });
        assert_eq!(more, format!("{head},id=0,zone=5,status=0,mark=7,labels=0xabc"));
        let kernel = Some(CtKernel { id: 9, status: 0x8e, tcp_flags: [0; 2] });
        let of_kernel = format_entry(&CtEntry { kernel, ..udp() }, CtDetail { more: true, times: false });
        assert_eq!(
            of_kernel,
            format!(
                "{head},id=9,zone=5,status=SEEN_REPLY|ASSURED|CONFIRMED|SRC_NAT_DONE,mark=7,labels=0xabc"
            )
        );
        let times = format_entry(&udp(), CtDetail { more: false, times: true });
        assert_eq!(times, format!("{head},zone=5,timeout=60,mark=7,labels=0xabc"));
    }

    #[test]
    fn filters_agree_in_everything_given() {
        let mut f = CtFilter { zone: Some(5), mark: Some((3, 3)), ..CtFilter::default() };
        f.orig.dport = Some(2);
        assert!(f.matches(&udp()));
        f.reply.dport = Some(2);
        assert!(!f.matches(&udp()));
        assert!(!CtFilter { mark: Some((8, 8)), ..CtFilter::default() }.matches(&udp()));
    }
}
