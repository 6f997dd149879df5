//! The allocator's unused memory.

/// Gives unused memory of the heap back to the system, where the C library knows how. Takes time in proportion to the heap, and
/// while it looks at one of its parts, threads that allocate from that part wait.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
