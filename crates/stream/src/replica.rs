//! A database replica and the session that keeps it up to date: what an agent or daemon owns.
//!
//! [`Replica`] ties an [`Idl`] to a [`Session`]: it connects and reconnects to one of several remotes in turn, leaves servers
//! that the replica does not want (a cluster's followers, for one that asks for the leader), and moves messages both
//! ways. The owner calls [`Replica::run`] when the session's key is ready or its deadline has passed, or lets
//! [`Replica::wait`] do both where a program has nothing else to wait for.

use std::io;

use ib_base::time::Instant;
use ib_ovsdb::idl::{Idl, Outcome, Txn, TxnStatus};

use crate::jsonrpc::Message;
use crate::reactor::{Handle, Key, Reactor};
use crate::session::Session;

/// A replica with its session. See the module's text.
pub struct Replica {
    /// The rows. Transactions committed on it leave with the next [`Replica::run`] or [`Replica::flush`].
    pub idl: Idl,
    session: Session,
    session_seqno: u32,
    n_remotes: u32,
    was_live: bool,
}

impl Replica {
    /// Connects `idl`, on which everything is registered, to one of `remotes` (`unix:`, `tcp:`, ...).
    pub fn open(idl: Idl, remotes: &[String], handle: &Handle) -> Replica {
        let session = Session::open(remotes, true, handle, handle.new_key());
        let n_remotes = u32::try_from(remotes.len()).unwrap_or(u32::MAX);
        Replica { idl, session_seqno: session.seqno(), session, n_remotes, was_live: false }
    }

    /// Takes in what has arrived and sends what waits. True if a connection was made or lost; whether rows changed
    /// is [`Idl::seqno`]'s to say.
    pub fn run(&mut self) -> bool {
        self.session.run();
        let renewed = self.session.seqno() != self.session_seqno;
        if renewed {
            self.session_seqno = self.session.seqno();
            self.idl.disconnected();
            if self.session.is_connected() {
                self.idl.connected();
            }
        }
        while let Some(message) = self.session.recv() {
            self.idl.receive(&message.to_json());
        }
        if self.idl.take_reconnect().is_some() {
            self.session.force_reconnect();
        }
        if self.idl.is_live() && !self.was_live {
            // When this server goes, each of the others is worth a try at once.
            self.session.reconnect_mut().set_backoff_free_tries(self.n_remotes);
        }
        self.was_live = self.idl.is_live();
        self.flush();
        renewed
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        for json in self.idl.take_messages() {
            if let Ok(message) = Message::from_json(json) {
                self.session.send(&message);
            }
        }
    }

    /// When [`Replica::run`] is due without an event.
    pub fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    /// Whether a ready key is the session's.
    pub fn owns(&self, key: Key) -> bool {
        self.session.owns(key)
    }

    /// The session below.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs until `done`, for programs that wait for nothing else. An error is the reactor's.
    pub fn wait(&mut self, reactor: &mut Reactor, mut done: impl FnMut(&mut Idl) -> bool) -> io::Result<()> {
        loop {
            self.run();
            if done(&mut self.idl) {
                return Ok(());
            }
            reactor.wait(self.deadline())?;
        }
    }

    /// Runs until something has changed in the replica since `seqno`; the new [`Idl::seqno`].
    pub fn wait_for_change(&mut self, reactor: &mut Reactor, seqno: u64) -> io::Result<u64> {
        self.wait(reactor, |idl| idl.is_live() && idl.seqno() != seqno)?;
        Ok(self.idl.seqno())
    }

    /// Commits what `build` makes of the replica and waits for the outcome; starts over with what has changed meanwhile as
    /// long as that is what the outcome asks for.
    pub fn transact(
        &mut self,
        reactor: &mut Reactor,
        mut build: impl FnMut(&Idl, &mut Txn),
    ) -> io::Result<Outcome> {
        loop {
            self.wait(reactor, |idl| idl.is_live() && (idl.lock().is_none() || idl.has_lock()))?;
            let mut txn = Txn::new();
            build(&self.idl, &mut txn);
            let seqno = self.idl.seqno();
            let id = self.idl.commit(txn);
            self.flush();
            self.wait(reactor, |idl| idl.status(id) != TxnStatus::Incomplete)?;
            match self.idl.take_outcome(id) {
                Some(outcome) if !matches!(outcome.status, TxnStatus::TryAgain | TxnStatus::NotLocked) => {
                    return Ok(outcome);
                }
                // What changed has come already, ahead of the answer, or comes with the next session.
                _ if self.idl.seqno() != seqno => {}
                _ => self.wait(reactor, |idl| idl.seqno() != seqno || !idl.is_live())?,
            }
        }
    }
}
