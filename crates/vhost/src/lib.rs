//! vhost-user: what a virtual machine monitor (the front-end) tells a switch (the back-end) about a guest's network card,
//! and the rings in the guest's memory that packets then take.
//!
//! ```text
//!   front-end ──messages, descriptors──► wire::Assembler ──► session::Session ──replies──► front-end
//!                                                                  │ makes, stops, moves
//!   guest ◄──────────── descriptors, bytes ───────────► ring::Ring ┘ ◄── forwarding threads
//! ```
//!
//! Nothing here has a socket, a clock or a thread: messages with their descriptors come in, replies and events go
//! out. Rings are the one thing that is shared: a [`session::Slot`] is locked by the forwarding thread for a batch, and by
//! whoever feeds the session when a message changes it, so a memory table is exchanged between two batches.
//!
//! Everything that a guest or a front-end writes is copied once and then checked; see [`ring`]. A front-end that
//! breaks the protocol loses its connection, a guest that breaks a ring loses the ring until its driver sets it up anew.

pub mod features;
pub mod inflight;
pub mod memory;
pub mod ring;
pub mod session;
pub mod wire;

pub use memory::GuestMemory;
pub use ring::{Ring, RingFault};
pub use session::{Event, Fault, Session};
