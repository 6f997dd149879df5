//! How full a file system is.

use std::ffi::CString;
use std::io;

/// Sizes of a file system, KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What it holds when full.
    pub total_kib: u64,
    /// What is taken, that of the superuser's reserve too.
    pub used_kib: u64,
}

/// Asks how full the file system is that `path` lies on (`statvfs`(3)). May wait for a slow disk.
pub fn usage(path: &str) -> io::Result<Usage> {
    let path = CString::new(path)?;
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in NUL and `found` is a writable structure of the right type; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Widths differ among platforms.
    #[allow(clippy::useless_conversion)]
    let [size, blocks, free]: [u64; 3] = [found.f_frsize.into(), found.f_blocks.into(), found.f_bfree.into()];
    let kib = |blocks: u64| blocks.saturating_mul(size) / 1024;
    Ok(Usage { total_kib: kib(blocks), used_kib: kib(blocks.saturating_sub(free)) })
}

#[cfg(test)]
mod tests {
    use super::usage;

    #[test]
    fn the_root_has_a_size_and_a_missing_path_none() {
        let root = usage("/").expect("every system has one");
        assert!(root.total_kib > 0 && root.used_kib <= root.total_kib, "{root:?}");
        assert!(usage("/no/such/path").is_err());
        assert!(usage("nul\0inside").is_err());
    }
}
