//! Fields and actions of tables as the bitmaps of OpenFlow 1.0 to 1.2.

use ib_flow::FieldId;
use ib_flow::fields::FIELDS;

use crate::message::TableFeatures;

/// OpenFlow 1.0's wildcard bits, and the fields that they stand for. Addresses take 6 bits each.
const OF10: &[(u32, FieldId)] = &[
    (1 << 0, FieldId::InPort),
    (1 << 2, FieldId::EthSrc),
    (1 << 3, FieldId::EthDst),
    (1 << 4, FieldId::EthType),
    (1 << 1, FieldId::VlanVid),
    (1 << 20, FieldId::VlanPcp),
    (0x3f << 8, FieldId::IpSrc),
    (0x3f << 14, FieldId::IpDst),
    (1 << 5, FieldId::IpProto),
    (1 << 21, FieldId::IpTos),
    (1 << 6, FieldId::TcpSrc),
    (1 << 7, FieldId::TcpDst),
];

/// OpenFlow 1.1's `OFPFMF_*` bits.
const OF11: &[(u32, FieldId)] = &[
    (1 << 0, FieldId::InPort),
    (1 << 1, FieldId::VlanVid),
    (1 << 2, FieldId::VlanPcp),
    (1 << 3, FieldId::EthType),
    (1 << 4, FieldId::IpTos),
    (1 << 5, FieldId::IpProto),
    (1 << 6, FieldId::TcpSrc),
    (1 << 7, FieldId::TcpDst),
    (1 << 8, FieldId::MplsLabel),
    (1 << 9, FieldId::MplsTc),
    (1 << 11, FieldId::EthSrc),
    (1 << 12, FieldId::EthDst),
    (1 << 13, FieldId::IpSrc),
    (1 << 14, FieldId::IpDst),
    (1 << 15, FieldId::Metadata),
];

/// Fields from the wildcards that a table of OpenFlow 1.0 supports.
pub(crate) fn from_wildcards10(wildcards: u32, f: &mut TableFeatures) {
    f.match_fields = OF10.iter().filter(|(bit, _)| wildcards & bit != 0).map(|(_, id)| *id).collect();
    f.wildcard_fields = f.match_fields.clone();
    f.mask_fields = Vec::new();
}

/// The wildcards of OpenFlow 1.0.
pub(crate) fn to_wildcards10(f: &TableFeatures) -> u32 {
    OF10.iter().filter(|(_, id)| f.wildcard_fields.contains(id)).fold(0, |w, (bit, _)| w | bit)
}

/// Fields from OpenFlow 1.1's two bitmaps.
pub(crate) fn from_fields11(wild: u32, all: u32, f: &mut TableFeatures) {
    let list = |w: u32| OF11.iter().filter(|(bit, _)| w & bit != 0).map(|(_, id)| *id).collect::<Vec<_>>();
    f.match_fields = list(all);
    f.wildcard_fields = list(wild);
}

/// OpenFlow 1.1's bitmaps: wildcards, matches.
pub(crate) fn to_fields11(f: &TableFeatures) -> (u32, u32) {
    let bits = |l: &[FieldId]| OF11.iter().filter(|(_, id)| l.contains(id)).fold(0, |w, (bit, _)| w | bit);
    (bits(&f.wildcard_fields), bits(&f.match_fields))
}

/// The OXM basic class number of a field in OpenFlow 1.2, if it has one.
/// What is sent has the fields of OpenFlow 1.3 to 1.5 too, as Open vSwitch sends them; received, they are unknown.
fn oxm_number(f: FieldId, sent: bool) -> Option<u8> {
    // Numbers that later versions gave to fields with other codes do not count.
    let code = f.codes.iter().find(|c| c.class == 0x8000)?;
    (code.since <= 3 || sent && f.codes.len() == 1).then_some(code.number)
}

/// Fields from a bitmap by OXM number.
pub(crate) fn fields_from12(bits: u64) -> Vec<FieldId> {
    FIELDS
        .iter()
        .map(|f| f.id)
        .filter(|f| oxm_number(*f, false).is_some_and(|n| n < 64 && bits >> n & 1 != 0))
        .collect()
}

/// A bitmap by OXM number.
pub(crate) fn fields_to12(list: &[FieldId]) -> u64 {
    list.iter().filter_map(|f| oxm_number(*f, true)).filter(|n| *n < 64).fold(0, |b, n| b | 1 << n)
}

/// Actions from OpenFlow 1.1's numbers. Those that 1.2 dropped for set_field stay at their numbers.
pub(crate) fn actions_from11(bits: u32) -> u64 {
    bits.into()
}

/// Actions to OpenFlow 1.1's numbers.
pub(crate) fn actions_to11(bits: u64) -> u32 {
    (bits & 0x1ff_ffff) as u32
}

/// Actions from OpenFlow 1.2+'s numbers.
pub(crate) fn actions_from13(bits: u32) -> u64 {
    bits.into()
}

/// Actions to OpenFlow 1.2+'s numbers.
pub(crate) fn actions_to13(bits: u64) -> u32 {
    bits as u32
}
