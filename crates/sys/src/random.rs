//! Random bytes from the kernel.

/// `N` random bytes. Only for `N` up to 256, which getrandom(2) gives whole.
pub fn bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= 256) };
    let mut out = [0u8; N];
    loop {
        // SAFETY: N writable bytes.
        let n = unsafe { libc::getrandom(out.as_mut_ptr().cast(), N, 0) };
        if n == N as isize {
            return out;
        }
    }
}
