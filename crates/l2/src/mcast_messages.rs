//! IGMP and MLD messages, as a snooping switch reads them: which groups the sender joins and leaves.
//!
//! The input is the bytes of the message alone (behind the IP header and IPv6's extension headers); the caller has checked its
//! checksum. Anything that ends early ends the list of changes there. IPv4 groups appear as IPv4-mapped addresses.
//!
//! Cost: one pass over the records, nothing is kept.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::mcast_snooping::Protocol;

/// IGMP membership query (RFC 2236).
pub const IGMP_QUERY: u8 = 0x11;
/// IGMPv1 report (RFC 1112).
pub const IGMPV1_REPORT: u8 = 0x12;
/// IGMPv2 report (RFC 2236).
pub const IGMPV2_REPORT: u8 = 0x16;
/// IGMPv2 leave (RFC 2236).
pub const IGMPV2_LEAVE: u8 = 0x17;
/// IGMPv3 report (RFC 3376).
pub const IGMPV3_REPORT: u8 = 0x22;
/// MLD query (RFC 2710).
pub const MLD_QUERY: u8 = 130;
/// MLDv1 report (RFC 2710).
pub const MLDV1_REPORT: u8 = 131;
/// MLDv1 done (RFC 2710).
pub const MLDV1_DONE: u8 = 132;
/// MLDv2 report (RFC 3810).
pub const MLDV2_REPORT: u8 = 143;

/// What a host wants of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Packets of the group.
    Join(Ipv6Addr, Protocol),
    /// No more of them.
    Leave(Ipv6Addr),
}

/// Whether an IGMP type is a host's: reports of all versions, and leave.
pub fn is_igmp_membership(kind: u8) -> bool {
    matches!(kind, IGMPV1_REPORT | IGMPV2_REPORT | IGMPV2_LEAVE | IGMPV3_REPORT)
}

/// Whether an ICMPv6 type is a host's: reports, and done.
pub fn is_mld_membership(kind: u8) -> bool {
    matches!(kind, MLDV1_REPORT | MLDV1_DONE | MLDV2_REPORT)
}

/// An IPv4 group as the table keeps it.
pub fn group_of_v4(addr: u32) -> Ipv6Addr {
    Ipv4Addr::from(addr).to_ipv6_mapped()
}

/// The records of an IGMPv3 report (RFC 3376, 4.2).
pub fn igmpv3_records(message: &[u8]) -> Records<'_> {
    let count = message.get(6..8).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    Records { rest: message.get(8..).unwrap_or_default(), left: count, v6: false }
}

/// What an MLD message asks for; nothing for other types.
pub fn mld_changes(message: &[u8]) -> MldChanges<'_> {
    let group = || message.get(8..24).map(address);
    match message.first() {
        Some(&MLDV1_REPORT) => MldChanges::One(group().map(|g| Change::Join(g, Protocol::MldV1))),
        Some(&MLDV1_DONE) => MldChanges::One(group().map(Change::Leave)),
        Some(&MLDV2_REPORT) => {
            let count = message.get(6..8).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
            MldChanges::Many(Records { rest: message.get(8..).unwrap_or_default(), left: count, v6: true })
        }
        _ => MldChanges::One(None),
    }
}

/// See [`mld_changes`].
#[derive(Clone, Debug)]
pub enum MldChanges<'a> {
    /// Of version 1.
    One(Option<Change>),
    /// Of version 2.
    Many(Records<'a>),
}

impl Iterator for MldChanges<'_> {
    type Item = Change;
    fn next(&mut self) -> Option<Change> {
        match self {
            MldChanges::One(change) => change.take(),
            MldChanges::Many(records) => records.next(),
        }
    }
}

fn address(bytes: &[u8]) -> Ipv6Addr {
    match <[u8; 16]>::try_from(bytes) {
        Ok(b) => Ipv6Addr::from(b),
        Err(_) => Ipv6Addr::UNSPECIFIED,
    }
}

/// Group records; IGMPv3 and MLDv2 differ by the length of addresses.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: u16,
    v6: bool,
}

impl Iterator for Records<'_> {
    type Item = Change;
    fn next(&mut self) -> Option<Change> {
        let addr_len = if self.v6 { 16 } else { 4 };
        while self.left > 0 {
            self.left -= 1;
            let head = self.rest.get(..4 + addr_len)?;
            let sources = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let len = 4 + addr_len + sources * addr_len + usize::from(head[1]) * 4;
            let group = if self.v6 {
                address(&head[4..])
            } else {
                group_of_v4(u32::from_be_bytes([head[4], head[5], head[6], head[7]]))
            };
            let kind = head[0];
            self.rest = self.rest.get(len..)?;
            match kind {
                // "Include nobody" is how version 3 leaves.
                1 | 3 if sources == 0 => return Some(Change::Leave(group)),
                1..=6 => {
                    let protocol = if self.v6 { Protocol::MldV2 } else { Protocol::IgmpV3 };
                    return Some(Change::Join(group, protocol));
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Ipv6Addr {
        text.parse::<Ipv4Addr>().unwrap().to_ipv6_mapped()
    }

    #[test]
    fn records_of_version_3_join_and_leave() {
        let report = [
            0x22, 0, 0, 0, 0, 0, 0, 4, // four records
            4, 0, 0, 0, 239, 1, 1, 1, // exclude nobody
            3, 0, 0, 0, 239, 1, 1, 2, // include nobody
            9, 0, 0, 0, 239, 1, 1, 3, // unknown
            1, 1, 0, 1, 239, 1, 1, 4, 10, 0, 0, 1, 0xaa, 0xaa, 0xaa, 0xaa, // one source, auxiliary data
        ];
        let changes: Vec<Change> = igmpv3_records(&report).collect();
        let expect = [
            Change::Join(v4("239.1.1.1"), Protocol::IgmpV3),
            Change::Leave(v4("239.1.1.2")),
            Change::Join(v4("239.1.1.4"), Protocol::IgmpV3),
        ];
        assert_eq!(changes, expect);
        for n in 0..report.len() {
            assert!(igmpv3_records(&report[..n]).count() <= 3);
        }
        assert_eq!(igmpv3_records(&report[..report.len() - 1]).count(), 2);
    }

    #[test]
    fn mld_of_both_versions() {
        let mut done = vec![132, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x08];
        done.resize(24, 0);
        done[23] = 1;
        let group: Ipv6Addr = "ff08::1".parse().unwrap();
        assert_eq!(mld_changes(&done).collect::<Vec<_>>(), [Change::Leave(group)]);
        done[0] = 131;
        assert_eq!(mld_changes(&done).collect::<Vec<_>>(), [Change::Join(group, Protocol::MldV1)]);
        assert_eq!(mld_changes(&done[..23]).count(), 0);
        let mut report = vec![143, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0];
        report.extend(group.octets());
        assert_eq!(mld_changes(&report).collect::<Vec<_>>(), [Change::Join(group, Protocol::MldV2)]);
    }
}
