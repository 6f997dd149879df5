//! Texts of single values.

use crate::fields::FieldValue;

/// A number in hexadecimal with `0x`, without leading zeros; `0` for zero.
pub fn hex(v: &FieldValue) -> String {
    let digits: String = v.bytes(v.significant_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        d => format!("0x{d}"),
    }
}
