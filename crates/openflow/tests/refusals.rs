//! Messages that a switch refuses, and by which error: where several things are wrong, which one is named.
//!
//! Each expectation was observed on Open vSwitch.

use ib_openflow::decode::decode;
use ib_openflow::error::OfError;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// A flow_mod of a version with a match's OXM entries and one action.
fn flow_mod(version: u8, oxm: &str, action: &str) -> Vec<u8> {
    let (oxm, action) = (bytes(oxm), bytes(action));
    let padded = |n: usize| n.next_multiple_of(8);
    let (oxm_len, action_len) = (padded(4 + oxm.len()), padded(action.len()));
    let mut m = bytes("00 0e 0000 00000007 0000000000000000 0000000000000000 00 00 0000 0000 0001");
    m.extend(bytes("ffffffff ffffffff ffffffff 0000 0000 0001"));
    m.extend(((4 + oxm.len()) as u16).to_be_bytes());
    m.extend(&oxm);
    m.resize(48 + oxm_len, 0);
    m.extend(bytes("0004"));
    m.extend(((8 + action_len) as u16).to_be_bytes());
    m.extend([0; 4]);
    m.extend(&action);
    m.resize(48 + oxm_len + 8 + action_len, 0);
    m[0] = version;
    let len = (m.len() as u16).to_be_bytes();
    m[2..4].copy_from_slice(&len);
    m
}

fn error_of(message: &[u8]) -> &'static str {
    decode(message).map_or_else(OfError::name, |_| "none")
}

#[test]
fn a_header_with_another_length_names_no_field() {
    let of_match = |oxm| error_of(&flow_mod(4, oxm, "0000 0010 00000001 ffff 000000000000"));
    assert_eq!(of_match("80000a02 0800"), "none");
    assert_eq!(of_match("80000a03 080000"), "OFPBMC_BAD_FIELD");
    assert_eq!(of_match("80000b02 4142"), "OFPBMC_BAD_WILDCARDS");
    assert_eq!(of_match("80000b02 0000"), "OFPBMC_BAD_FIELD");
}

#[test]
fn actions_name_what_is_wrong_with_a_field() {
    let cases = [
        // set_field: of a wrong length, masked, a VLAN that is not there, the port of entry.
        (4, "0019 0010 80000703 000000", "OFPBAC_BAD_SET_LEN"),
        (4, "0019 0010 80000600 00000000", "OFPBAC_BAD_SET_TYPE"),
        (4, "0019 0018 8000070c 000000000001 ffffffffffff", "OFPBAC_BAD_SET_MASK"),
        (6, "0019 0018 8000070c 000000000001 ffffffffffff", "none"),
        (4, "0019 0010 80000c02 0005", "OFPBAC_BAD_SET_ARGUMENT"),
        (4, "0019 0010 80000004 00000001", "OFPBAC_BAD_SET_ARGUMENT"),
        // move, load and the zone of ct.
        (4, "ffff 0018 00002320 0006 0008 0000 0000 80000a04 00010204", "OFPBMC_BAD_FIELD"),
        (4, "ffff 0018 00002320 0006 0008 0000 0000 00010308 00010204", "OFPBMC_BAD_MASK"),
        (4, "ffff 0018 00002320 0007 0007 80000a04 0000000000000000", "OFPBAC_BAD_SET_TYPE"),
        (4, "ffff 0018 00002320 0007 0007 00010308 0000000000000000", "none"),
        (4, "ffff 0018 00002320 0023 0000 ff000000 000f ff 000000 0000", "OFPBAC_BAD_SET_TYPE"),
        // OpenFlow 1.5 has its own ways to copy and set.
        (6, "ffff 0018 00002320 0007 0007 00010204 0000000000000000", "OFPBAC_BAD_VENDOR_TYPE"),
    ];
    for (version, action, expect) in cases {
        assert_eq!(error_of(&flow_mod(version, "", action)), expect, "version {version}: {action}");
    }
}

#[test]
fn the_first_fault_is_the_one_named() {
    let cases = [
        // flow_mod: no such table before no such command.
        (
            "030e0040 00000007 00000000000000000000000000000000 ff13000000008000 ffffffffffffffffffffffff 00000000
             0001000f80000a020800800014010600",
            "OFPFMFC_BAD_TABLE_ID",
        ),
        // Inner message of another version, and cut short.
        ("05220020 00000007 0000200000000000 00000000000000000000000000000000", "OFPBFC_BAD_VERSION"),
        // group_mod: bucket to start from before buckets, and these before the command.
        (
            "060f0030 00000007 0043000000000002 00180000fffffffe
             001800100000000700000010000000030000000000000000",
            "OFPGMFC_BAD_BUCKET",
        ),
        ("060f0018 00000007 0005000000000004 02010000fffffffd", "OFPBRC_BAD_LEN"),
        ("040f0018 00000007 0000040000000000 0000000000000000", "OFPGMFC_BAD_BUCKET"),
        // A weight in a group that does not select.
        (
            "050f0030 00000007 0000000000000005 00200001ffffffffffffffff00000000
             00000010000000010000000000000000",
            "OFPGMFC_INVALID_GROUP",
        ),
        // meter_mod: bands before the meter's number.
        ("041d0020 00000007 0000000000000000 00000000000000000000000000000000", "OFPBRC_BAD_LEN"),
        // A monitor that asks for nothing.
        (
            "05120038 00000007 0010000000000000 0000000000000000 0000000000000000
             0000000000000000 0000000000000000 0000000000000000",
            "OFPMOFC_BAD_FLAGS",
        ),
        // A stranger's statistics.
        ("01100010 00000007 ffff000000000000", "OFPBRC_BAD_VENDOR"),
    ];
    for (hex, expect) in cases {
        assert_eq!(error_of(&bytes(hex)), expect, "{hex}");
    }
}

#[test]
fn texts_of_groups_are_complained_about_in_the_same_order() {
    use ib_openflow::group_text::parse_group_mod;
    use ib_openflow::message::GroupModCommand as C;
    use ib_openflow::names::NO_NAMES;

    let error = |command, text: &str| {
        parse_group_mod(text, Some(command), NO_NAMES).map_or_else(|e| e, |_| "none".to_string())
    };
    assert_eq!(error(C::Delete, "group_id=1,type=all,bucket=1"), "bucket is not needed");
    assert_eq!(error(C::Delete, "group_id=1,type=all"), "type is not needed");
    assert_eq!(error(C::Delete, "group_id=1,command_bucket_id=last"), "command bucket id is not needed");
    assert_eq!(error(C::Delete, ""), "none");
    assert_eq!(error(C::RemoveBucket, "group_id=1"), "none");
    assert_eq!(error(C::InsertBucket, "group_id=1"), "must specify a command bucket id");
    assert_eq!(
        error(C::InsertBucket, "group_id=1,command_bucket_id=all"),
        "command_bucket_id=all is not permitted"
    );
}
