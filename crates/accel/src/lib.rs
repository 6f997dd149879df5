//! Accelerators: what forwards hot flows in the user-space datapath's place.
//!
//! An [`Accelerator`] is told of ports and then of flows: a packet's key, the mask of the datapath flow that it belongs to, and
//! that flow's actions. It takes those packets that are like that one in everything that the mask looks at, does the same
//! to them, and counts them; or it says why it can't ([`Reason`]). What it does not take goes to user space as ever, packet by packet.
//! Entries are a cache: who owns the flow removes its entries before the flow changes, and adds their counts to the flow's.
//!
//! [`Tcx`] is the accelerator inside the Linux kernel: no module, but BPF programs on the ports, made at run time. Essays in [`program`] (what the
//! programs do) and [`entry`] (what they match). A switch chip is another implementation:
//! [`model`] is one in memory for tests, `examples/provider.rs` the shortest one, and [`conformance`] what each must pass.
//!
//! Called with locks held by control code and, for new entries, by forwarding threads: calls take a system call or two, a new set of matched fields a
//! millisecond.

mod asm;
pub mod conformance;
pub mod entry;
pub mod model;
pub mod program;
mod tcx;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ib_dpif::Action;
use ib_flow::{Flow, Mask, OdpPort};

pub use tcx::Tcx;

/// Why a flow is not accelerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Too few packets so far; or none that came as the accelerator takes them.
    NotHot,
    /// It is not the first lookup of a packet.
    Recirculated,
    /// The port of entry is none that an accelerator can look into.
    InPort,
    /// It leaves by such a port.
    OutPort,
    /// Not a unicast packet.
    Multicast,
    /// Neither IPv4 nor IPv6, or not one tag at most, or a fragment.
    Ethertype,
    /// Neither TCP, UDP nor ICMPv4.
    Protocol,
    /// Matches on TCP flags.
    TcpFlags,
    /// Matches on something else that the accelerator does not know.
    Match,
    /// An action that it does not know.
    Action,
    /// Its outputs differ in what they send, or are too many.
    Outputs,
    /// There is no room.
    Full,
    /// The kernel refused.
    Refused,
    /// It has an entry for such packets.
    Present,
    /// The port of entry is being made ready.
    Preparing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotHot => "not hot",
            Reason::Recirculated => "recirculated packets",
            Reason::InPort => "port of entry",
            Reason::OutPort => "port of exit",
            Reason::Multicast => "multicast or broadcast",
            Reason::Ethertype => "Ethernet type, tags or fragments",
            Reason::Protocol => "IP protocol",
            Reason::TcpFlags => "match on TCP flags",
            Reason::Match => "match",
            Reason::Action => "action",
            Reason::Outputs => "outputs",
            Reason::Full => "table full",
            Reason::Refused => "refused by the kernel",
            Reason::Present => "present",
            Reason::Preparing => "port of entry being prepared",
        })
    }
}

/// A device as an accelerator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Index of its interface.
    pub ifindex: i32,
    /// Longest frame that it sends in one piece, VLAN tag not counted, bytes.
    pub max_frame: u32,
}

/// The sockets by which user space receives a port's packets.
pub trait Receivers: Send + Sync {
    /// Sets or removes the program that says which packets they get.
    fn set_filter(&self, program: Option<BorrowedFd<'_>>) -> std::io::Result<()>;
}

/// What an entry has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes, as user space counts them.
    pub bytes: u64,
    /// Monotonic nanoseconds of the last packet; 0 never. Coarse: some milliseconds.
    pub used_ns: u64,
    /// OR of all TCP flags.
    pub tcp_flags: u16,
}

/// An entry. Numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId(pub u32);

/// What has happened to an accelerator by itself. In each case packets come up to user space already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It does not have this entry any more, or could not write it after all. The owner removes it.
    Gone(EntryId),
    /// It has none of its entries any more, and may be offered flows anew. The owner removes all of them.
    Reset,
    /// It will not come back. The owner removes all entries and lets go of it.
    Lost,
}

/// See the module.
pub trait Accelerator: Send {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Makes a device known: packets may leave by it, and enter if its receivers are given. A known one is replaced; its entries should be gone.
    fn port_add(&mut self, port: OdpPort, device: Device, receivers: Option<Arc<dyn Receivers>>);

    /// Forgets a device. Entries that use it should be gone.
    fn port_del(&mut self, port: OdpPort);

    /// Whether it could do for packets like `key` what the flow with this mask does.
    fn check(&self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<(), Reason>;

    /// Takes over packets like `key`. The ports that the entry then depends on are those of `key` and `actions`. It may write the entry later;
    /// until then, and if that fails ([`Event::Gone`]), packets come up. Never waits for a chip: called by forwarding threads.
    fn put(&mut self, key: &Flow, mask: &Mask, actions: &[Action]) -> Result<EntryId, Reason>;

    /// Gives packets back to user space, and tells what the entry did. When it returns no packet takes the entry, whatever it takes: it waits for the
    /// chip, and resets one that does not obey ([`Event::Reset`]). It works for entries that [`Event`]s are about, too, with what they were
    /// last known to have counted; after it, no event speaks of the number.
    fn remove(&mut self, id: EntryId) -> Counters;

    /// What the entry has done so far.
    fn counters(&self, id: EntryId) -> Counters;

    /// The clock of [`Counters::used_ns`].
    fn now_ns(&self) -> u64;

    /// Entries that it has room for.
    fn capacity(&self) -> usize;

    /// What has happened since the last call. Asked whenever counters are.
    fn events(&mut self) -> Vec<Event> {
        Vec::new()
    }
}
