//! Upcalls.
use crate::backer::Backer;
use ib_dpif::{DpifError, Ufid, Upcall, UpcallHandler, UpcallVerdict};
use std::sync::{Arc, Weak};
/// Answers a datapath's upcalls.
pub struct Handler {
    backer: Weak<Backer>,
}
impl Handler {
    pub(crate) fn new(backer: &Arc<Backer>) -> Handler {
        Handler { backer: Arc::downgrade(backer) }
    }
}
impl UpcallHandler for Handler {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        let _ = self.backer.upgrade();
        UpcallVerdict { actions: Arc::new([]), install: None, ufid: upcall.ufid }
    }
    fn installed(&self, _ufid: Ufid, _result: Result<(), DpifError>) {}
}
