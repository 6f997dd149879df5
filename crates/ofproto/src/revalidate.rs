//! Revalidation.
use crate::backer::Backer;
use ib_base::time::Instant;
/// State.
#[derive(Default)]
pub struct RevalidatorState {
    next: Option<Instant>,
}
impl Backer {
    /// Runs a round if it is due.
    pub fn revalidate_if_due(&self, _now: Instant) -> bool {
        false
    }
    /// When.
    pub fn revalidate_deadline(&self) -> Option<Instant> {
        self.reval.lock().next
    }
}
