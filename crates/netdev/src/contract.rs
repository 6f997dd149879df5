//! The contract: what a device does for the bridge and for a datapath.
//!
//! Every method may be called from any thread; none blocks longer than one system call. Control
//! methods (all but `send`) may allocate and may ask the kernel; `send` and [`RxQueue::recv`] are the hot
//! path, called once a batch, and allocate nothing in steady state.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, RawFd};

use ib_packet::buffer::Pool;
use ib_packet::{Batch, Mac};

use crate::error::{Error, Result};
use crate::flags::Flags;
use crate::qos::{Capabilities, Details, Policing, QueueStats};
use crate::stats::NetdevStats;

/// Link state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carrier {
    /// Carrier is there.
    pub up: bool,
    /// How often it has changed (`link_resets` column).
    pub resets: u64,
}

/// What the link runs at, and could.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Current speed, megabits a second; 0 unknown.
    pub current_mbps: u32,
    /// Highest supported speed, megabits a second; 0 unknown.
    pub max_mbps: u32,
    /// `Some(true)` full duplex; `None` unknown.
    pub full_duplex: Option<bool>,
    /// OpenFlow 1.1 `OFPPF_*` bits: current.
    pub current: u32,
    /// Advertised.
    pub advertised: u32,
    /// Supported.
    pub supported: u32,
    /// Advertised by the link partner.
    pub peer: u32,
}

/// How packets may pass a device without its [`Netdev::send`] and [`RxQueue::recv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// Its interface.
    pub ifindex: i32,
    /// Longest frame that it sends in one piece, VLAN tag not counted, bytes.
    pub max_frame: u32,
}

/// Work that a device may do on packets that it sends, as the `status` column names it between `tx_` and `_offload`
/// (ovs-vswitchd.conf.db(5), Interface).
pub const TX_OFFLOADS: [&str; 10] = [
    "geneve_tso",
    "gre_tso",
    "ip_csum",
    "out_ip_csum",
    "out_udp_csum",
    "sctp_csum",
    "tcp_csum",
    "tcp_seg",
    "udp_csum",
    "vxlan_tso",
];

/// One network device, shared. Dropping the last reference closes it; a device that we created
/// (TAP, dummy) then ceases to exist.
pub trait Netdev: Send + Sync {
    /// Its name; the same for its whole life.
    fn name(&self) -> &str;

    /// The kind that it was opened under: `system`, `tap`, `internal`, `patch`, `dummy`, ...
    fn kind(&self) -> &str;

    /// Applies the `options` column, whole: an option that is absent goes back to its default.
    /// `Error::Config` carries the text for the row's `error` column; the old configuration then stays.
    fn set_config(&self, options: &BTreeMap<String, String>) -> Result<()>;

    /// The options in effect, as set.
    fn config(&self) -> BTreeMap<String, String>;

    /// Key-value pairs for the `status` column: `driver_name`, `driver_version`, `firmware_version`, ...
    fn status(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// What it does for us with packets that it sends: some of [`TX_OFFLOADS`].
    fn tx_offloads(&self) -> &'static [&'static str] {
        &[]
    }

    /// Ethernet address.
    fn mac(&self) -> Result<Mac>;
    /// Sets it. The change is in force on return.
    fn set_mac(&self, mac: Mac) -> Result<()>;

    /// Largest payload behind the Ethernet header (a VLAN tag is not counted), bytes.
    fn mtu(&self) -> Result<u32>;
    /// Sets it.
    fn set_mtu(&self, mtu: u32) -> Result<()>;

    /// Flags now in force.
    fn flags(&self) -> Result<Flags>;
    /// Turns flags `off`, then `on`; returns those in force before.
    fn update_flags(&self, off: Flags, on: Flags) -> Result<Flags>;

    /// Kernel interface index; `None` where there is no such thing. Positive.
    fn ifindex(&self) -> Option<i32>;

    /// Link state. Cheap: known from notifications.
    fn carrier(&self) -> Carrier;

    /// Speed and features.
    fn link_speed(&self) -> Result<Speed> {
        Err(Error::Unsupported)
    }

    /// IP addresses with prefix lengths.
    fn addresses(&self) -> Result<Vec<(IpAddr, u8)>> {
        Err(Error::Unsupported)
    }

    /// Makes this its IPv4 address, in place of those it has.
    fn set_address(&self, _address: Ipv4Addr, _prefix_len: u8) -> Result<()> {
        Err(Error::Unsupported)
    }
    /// Sends by this router what has no other way.
    fn add_router(&self, _router: Ipv4Addr) -> Result<()> {
        Err(Error::Unsupported)
    }

    /// Counters since the device was made.
    fn stats(&self) -> Result<NetdevStats>;

    /// Counters beyond [`NetdevStats`], by name; our drop reasons are among them.
    fn custom_stats(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// For ports whose traffic the datapath never touches as packets of theirs (patch): count `packets`
    /// of `bytes` in total as received.
    fn inc_rx(&self, _packets: u64, _bytes: u64) {}
    /// As [`Self::inc_rx`], as sent.
    fn inc_tx(&self, _packets: u64, _bytes: u64) {}

    /// Changes whenever anything else that this trait reports (but counters) may have changed. Never 0.
    fn change_seq(&self) -> u64;

    /// Receive queues that [`Self::rx_queues`] would give now.
    fn n_rxq(&self) -> usize {
        1
    }

    /// Transmit queues that may be told apart.
    fn n_txq(&self) -> usize {
        1
    }

    /// True if a polling thread must own the queues (`dummy-pmd`, `replay`, `afxdp`); false: any thread that
    /// waits for their descriptors.
    fn is_pmd(&self) -> bool {
        false
    }

    /// Changes when the receive queues that were opened are not the ones that are wanted any more, for reasons beyond their
    /// number: whoever has them drops them and opens them anew.
    fn queues_seq(&self) -> u64 {
        0
    }

    /// NUMA node, for placing a polling thread.
    fn numa_id(&self) -> Option<u32> {
        None
    }

    /// Opens all receive queues. Packets that arrived before are not seen. Until the returned handles
    /// are dropped each packet goes to one of them; a second call makes a second set, and on kernel
    /// devices each set sees every packet, so a datapath asks once.
    /// Fails with [`Error::Unsupported`] where packets never arrive (patch).
    fn rx_queues(&self) -> Result<Vec<Box<dyn RxQueue>>>;

    /// Sends all of `batch`, in order, and leaves it empty; buffers go back to `pool`. `qid` below
    /// [`Self::n_txq`] names the queue (others wrap around); threads that use different queues do not contend.
    /// Never waits for room: what the device does not take is dropped and counted by reason.
    /// Super-frames go whole if [`Self::tx_can_gso`], else in segments made here.
    fn send(&self, qid: usize, batch: &mut Batch, pool: &mut Pool);

    /// Does `send` pass super-frames and partial checksums on whole?
    fn tx_can_gso(&self) -> bool {
        false
    }

    /// How the kernel may forward packets from and to the device past this contract; `None` if it must not, because something here would
    /// be missed. A change of it is a change of [`Self::change_seq`].
    fn bypass(&self) -> Option<Bypass> {
        None
    }
    /// Sets or removes the BPF program that decides which packets the receive queues that are open get.
    fn set_rx_filter(&self, _program: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Patch ports: the peer's name.
    fn patch_peer(&self) -> Option<String> {
        None
    }

    /// A tunnel's end: the datapath has one device for all of a protocol and port.
    fn is_tunnel(&self) -> bool {
        false
    }

    /// The dummy device behind this, for `netdev-dummy/*` commands.
    fn as_dummy(&self) -> Option<&crate::dummy::Dummy> {
        None
    }

    /// Sets the limits on reception.
    fn set_policing(&self, policing: &Policing) -> Result<()> {
        if *policing == Policing::default() { Ok(()) } else { Err(Error::Unsupported) }
    }
    /// QoS types on offer.
    fn qos_types(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// What a type offers.
    fn qos_capabilities(&self, _kind: &str) -> Result<Capabilities> {
        Err(Error::Unsupported)
    }
    /// The QoS in force: type (empty: none) and details.
    fn qos(&self) -> Result<(String, Details)> {
        Err(Error::Unsupported)
    }
    /// Replaces the QoS; an empty type removes it.
    fn set_qos(&self, _kind: &str, _details: &Details) -> Result<()> {
        Err(Error::Unsupported)
    }
    /// Details of one queue.
    fn queue(&self, _id: u32) -> Result<Details> {
        Err(Error::Unsupported)
    }
    /// Makes or changes one queue.
    fn set_queue(&self, _id: u32, _details: &Details) -> Result<()> {
        Err(Error::Unsupported)
    }
    /// Removes one queue.
    fn delete_queue(&self, _id: u32) -> Result<()> {
        Err(Error::Unsupported)
    }
    /// All queues.
    fn queues(&self) -> Result<BTreeMap<u32, Details>> {
        Err(Error::Unsupported)
    }
    /// Counters of one queue.
    fn queue_stats(&self, _id: u32) -> Result<QueueStats> {
        Err(Error::Unsupported)
    }
}

/// One receive queue, owned by the one thread that reads it.
pub trait RxQueue: Send {
    /// Which queue of its device.
    fn queue_id(&self) -> usize {
        0
    }

    /// Readable (level-triggered) while packets wait. The same for the life of the queue, whatever becomes
    /// of the device. `None`: must be polled.
    fn fd(&self) -> Option<RawFd>;

    /// Appends up to [`ib_packet::buffer::BATCH_MAX`] packets to `out` without waiting; returns how many. 0: none
    /// there now, or the device is down or gone (it may come back; keep the queue). `Err` is for what waiting cannot heal.
    fn recv(&mut self, pool: &mut Pool, out: &mut Batch) -> io::Result<usize>;

    /// Throws away what waits.
    fn drain(&mut self);
}
