//! Texts of values, matches and keys, as `ovs-ofctl` reads and prints them.
//!
//! `value` has the scalars, `matching` prints matches and keys, `parse` reads `key=value`, and
//! `normalize` drops what a match cannot mean.

pub mod matching;
pub mod normalize;
pub mod parse;
pub mod value;

pub use matching::{flow_to_string, format_flow, format_match, mask_for_packet, match_to_string};
pub use normalize::{normalize_match, normalized};
pub use parse::{
    parse_exact_flow, parse_exact_flow_with, parse_field, parse_match, parse_match_key,
    set_default_packet_type, split_items, usable_together,
};
pub use value::{
    CT_STATES, TCP_FLAGS, TUN_FLAGS, format_flags, format_flags_masked, format_flags_signed,
    format_ip_masked, format_ipv6_masked, format_mac_masked, format_port, format_value, hex, parse_flags,
    parse_ip_masked, parse_ipv6_masked, parse_mac_masked, parse_masked, parse_port, parse_value, put_ipv6,
    quote_name, scan_mac, unquote_name,
};
