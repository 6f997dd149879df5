//! Texts of system errors as C programs print them.
//!
//! Rust appends ` (os error N)` to a system error's text; users of Open vSwitch's tools know `strerror`'s words alone.

use std::io;

/// `strerror` of `error`: its text without Rust's suffix.
pub fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(n) => text.strip_suffix(&format!(" (os error {n})")).unwrap_or(&text).to_string(),
        None => text,
    }
}

/// `strerror` of an error number.
pub fn strerror_num(errno: i32) -> String {
    strerror(&io::Error::from_raw_os_error(errno))
}

/// How a connection's end is told: `End of file` for an orderly close, `strerror` for an error.
pub fn retval_to_string(error: Option<&io::Error>) -> String {
    match error {
        None => "End of file".to_string(),
        Some(e) if e.kind() == io::ErrorKind::UnexpectedEof => "End of file".to_string(),
        Some(e) => strerror(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(strerror_num(111), "Connection refused");
        assert_eq!(strerror(&io::Error::other("odd")), "odd");
        assert_eq!(retval_to_string(None), "End of file");
    }
}
