//! Who may speak to a datapath process: one control plane at a time.
//!
//! A process that has a connection on which it has said something holds the place, with as many connections as it likes; others are
//! told who it is. The place is free when its last connection is gone, however it went: nothing is to be cleaned up after a `kill -9`.

use parking_lot::Mutex;

/// The place.
#[derive(Default)]
pub(crate) struct Place(Mutex<Holder>);

#[derive(Default)]
struct Holder {
    /// The process, while `connections` is not 0.
    pid: i32,
    connections: usize,
}

/// A connection of the process that holds the place.
pub(crate) struct Held<'a>(&'a Place);

impl Place {
    /// Takes the place for one more connection of the process `pid`. The error is the process that has it.
    pub fn take(&self, pid: i32) -> Result<Held<'_>, i32> {
        let mut holder = self.0.lock();
        if holder.connections > 0 && holder.pid != pid {
            return Err(holder.pid);
        }
        (holder.pid, holder.connections) = (pid, holder.connections + 1);
        Ok(Held(self))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.lock().connections -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_free_when_the_last_connection_is_gone() {
        let place = Place::default();
        let (first, second) = (place.take(7).ok(), place.take(7).ok());
        assert_eq!(place.take(8).err(), Some(7));
        drop(first);
        assert_eq!(place.take(8).err(), Some(7));
        drop(second);
        let other = place.take(8).ok();
        assert!(other.is_some());
        assert_eq!(place.take(7).err(), Some(8));
    }
}
