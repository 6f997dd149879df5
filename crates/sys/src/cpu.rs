//! Which processors a thread may run on.

use std::io;

use crate::eventfd::check;

/// Has the calling thread run on this processor only. Fails if there is none of that number for us.
pub fn pin_thread(core: u32) -> io::Result<()> {
    let core = usize::try_from(core).ok().filter(|c| *c < libc::CPU_SETSIZE as usize);
    let core = core.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: all-zero bytes are an empty cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET writes within the set for numbers below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set lives through the call and its size is given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_processor_that_is_not_there_is_refused() {
        std::thread::spawn(|| {
            assert!(super::pin_thread(u32::MAX).is_err());
            assert!(super::pin_thread(1023).is_err());
        })
        .join()
        .unwrap();
    }
}
