//! What can go wrong with a device, by culprit.
//!
//! The operating system's error number is kept, because callers print Open vSwitch's texts around it:
//! `could not open network device p1 (No such device)`. `Display` gives the part in brackets.

use std::fmt;
use std::io;

/// `Result` of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Failure of an operation on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Configuration: an option does not make sense. The text is for the row's `error` column.
    Config(String),
    /// Configuration: no provider has this kind.
    UnknownKind(String),
    /// Configuration: the name is open under another kind.
    KindConflict {
        /// The device's name.
        name: String,
        /// The kind it is open under.
        open_as: String,
        /// The kind that was asked for.
        asked: String,
    },
    /// The device cannot do that.
    Unsupported,
    /// The kernel refused, with its error number.
    Os(i32),
}

impl Error {
    /// The closest error number.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Config(_) => ib_sys::errno::EINVAL,
            Error::UnknownKind(_) => ib_sys::errno::EAFNOSUPPORT,
            Error::KindConflict { .. } => ib_sys::errno::EEXIST,
            Error::Unsupported => ib_sys::errno::EOPNOTSUPP,
            Error::Os(e) => *e,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) => f.write_str(text),
            other => f.write_str(&ib_sys::errno::strerror(other.errno())),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Error {
        Error::Os(e.raw_os_error().unwrap_or(ib_sys::errno::EIO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_one_that_goes_into_brackets() {
        assert_eq!(Error::Os(19).to_string(), "No such device");
        assert_eq!(Error::Unsupported.to_string(), "Operation not supported");
        assert_eq!(Error::UnknownKind("foo".into()).to_string(), "Address family not supported by protocol");
        assert_eq!(Error::Config("p1: bad".into()).to_string(), "p1: bad");
    }
}
