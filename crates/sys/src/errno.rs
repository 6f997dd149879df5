//! Error numbers and their texts, as the C library has them.

pub use libc::{
    EACCES, EAFNOSUPPORT, EAGAIN, EBADFD, EBUSY, EEXIST, EINTR, EINVAL, EIO, EMSGSIZE, ENETDOWN, ENOBUFS,
    ENODEV, ENOENT, ENOMEM, ENXIO, EOPNOTSUPP, EPERM,
};

/// `strerror(errno)`, e.g. `No such device`.
pub fn strerror(errno: i32) -> String {
    let mut buf = [0u8; 128];
    // SAFETY: the XSI strerror_r writes at most buf.len() bytes with a terminator into buf.
    let rc = unsafe { libc::strerror_r(errno, buf.as_mut_ptr().cast(), buf.len()) };
    let len = buf.iter().position(|b| *b == 0).unwrap_or(0);
    if rc != 0 || len == 0 {
        return format!("Unknown error {errno}");
    }
    String::from_utf8_lossy(&buf[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_those_of_the_c_library() {
        assert_eq!(super::strerror(super::ENODEV), "No such device");
        assert_eq!(super::strerror(99_999), "Unknown error 99999");
    }
}
