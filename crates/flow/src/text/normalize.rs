//! Dropping from a match what cannot mean anything.
//!
//! OpenFlow 1.0 ignores fields whose prerequisites are not matched; Open vSwitch drops them from any match,
//! in whatever form it came, and says so in its log.

use ib_base::vlog::module::OFP_MATCH;
use ib_base::vlog_info_rl;
use ib_packet::{Be16, Be32, Be128, Mac};

use super::matching::match_to_string;
use crate::extract::proto;
use crate::key::Match;

/// The match without meaningless fields, or `None` if it has none.
pub fn normalized(m: &Match) -> Option<Match> {
    let ethernet = m.flow.packet_type.is_zero();
    let dl_type = crate::fields::effective_dl_type(&m.flow);
    let nw_proto = m.flow.nw_proto;
    use proto::*;
    let (v4, v6) = (dl_type == ETH_IP, dl_type == ETH_IPV6);
    let arp = matches!(dl_type, ETH_ARP | ETH_RARP);
    let mpls = matches!(dl_type, ETH_MPLS | ETH_MPLS_MCAST);
    let icmp = v4 && nw_proto == IP_ICMP || v6 && nw_proto == IP_ICMPV6;
    let tp = icmp || (v4 || v6) && matches!(nw_proto, IP_TCP | IP_UDP | IP_SCTP);
    let nd = |ty: u8| v6 && nw_proto == IP_ICMPV6 && m.flow.tp_src.get() == u16::from(ty);
    let (solicit, advert) = (nd(ND_SOLICIT), nd(ND_ADVERT));

    let mut out = m.clone();
    let w = &mut out.mask.0;
    if !(v4 || arp) {
        (w.nw_src, w.nw_dst) = (Be32::ZERO, Be32::ZERO);
    }
    if !tp {
        (w.tp_src, w.tp_dst) = (Be16::ZERO, Be16::ZERO);
    }
    if !(v4 || v6 || arp) {
        w.nw_proto = 0;
    }
    if !(v4 || v6) {
        (w.nw_tos, w.nw_ttl) = (0, 0);
    }
    if !(arp || solicit) {
        w.arp_sha = Mac::ZERO;
    }
    if !(arp || advert) {
        w.arp_tha = Mac::ZERO;
    }
    if !v6 {
        (w.ipv6_src, w.ipv6_dst, w.ipv6_label) = (Be128::ZERO, Be128::ZERO, Be32::ZERO);
    }
    if !(solicit || advert) {
        w.nd_target = Be128::ZERO;
    }
    if !mpls {
        w.mpls_lse = Default::default();
    }
    if !ethernet {
        (w.dl_src, w.dl_dst) = (Mac::ZERO, Mac::ZERO);
    }
    if out.mask == m.mask {
        return None;
    }
    out.normalize();
    Some(out)
}

/// Normalizes a match; changes are logged (module `ofp_match`) if `log`.
pub fn normalize_match(m: &mut Match, log: bool) {
    let Some(out) = normalized(m) else { return };
    if log {
        let (pre, post) = (match_to_string(m, None), match_to_string(&out, None));
        static LIMIT: ib_base::vlog::RateLimit = ib_base::vlog::RateLimit::new(5, 60);
        vlog_info_rl!(OFP_MATCH, LIMIT, "normalization changed ofp_match, details:");
        ib_base::vlog_info!(OFP_MATCH, " pre: {pre}");
        ib_base::vlog_info!(OFP_MATCH, "post: {post}");
    }
    *m = out;
}
