//! Counters of a device.
//!
//! One table declares each counter with the name that it has in the `statistics` column; a counter
//! that a provider has not got is `None` and does not appear.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that `dpctl/show` and OpenFlow tell in detail, and the `statistics` column does not.
const NOT_IN_COLUMN: [&str; 7] = [
    "rx_length_errors",
    "rx_fifo_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
];

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// A device's counters since it was made; `None` where the device has no such counter.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct NetdevStats { $($(#[$doc])* pub $field: Option<u64>),* }

        impl NetdevStats {
            /// What belongs into the `statistics` column: names as there with their values, declaration order.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
                let all = [$((stringify!($field), self.$field)),*];
                all.into_iter().filter(|(name, _)| !NOT_IN_COLUMN.contains(name))
            }
        }
    };
}

stats! {
    /// Packets received.
    rx_packets,
    /// Packets sent.
    tx_packets,
    /// Bytes received.
    rx_bytes,
    /// Bytes sent.
    tx_bytes,
    /// Packets dropped for want of buffers.
    rx_dropped,
    /// Packets that could not be sent.
    tx_dropped,
    /// Bad packets received.
    rx_errors,
    /// Errors on sending.
    tx_errors,
    /// Multicast packets received (`multicast` of the kernel).
    rx_multicast_packets,
    /// Collisions.
    collisions,
    /// Received with a wrong length.
    rx_length_errors,
    /// Receiver ring overflow.
    rx_over_err,
    /// Received with a wrong checksum.
    rx_crc_err,
    /// Received misaligned.
    rx_frame_err,
    /// Receiver FIFO overrun.
    rx_fifo_errors,
    /// Missed by the receiver.
    rx_missed_errors,
    /// Aborted transmissions.
    tx_aborted_errors,
    /// Carrier errors.
    tx_carrier_errors,
    /// Transmitter FIFO errors.
    tx_fifo_errors,
    /// Heartbeat errors.
    tx_heartbeat_errors,
    /// Window errors.
    tx_window_errors,
    /// Length histogram, received.
    rx_1_to_64_packets,
    /// Length histogram, received.
    rx_65_to_127_packets,
    /// Length histogram, received.
    rx_128_to_255_packets,
    /// Length histogram, received.
    rx_256_to_511_packets,
    /// Length histogram, received.
    rx_512_to_1023_packets,
    /// Length histogram, received.
    rx_1024_to_1522_packets,
    /// Length histogram, received.
    rx_1523_to_max_packets,
    /// Length histogram, sent.
    tx_1_to_64_packets,
    /// Length histogram, sent.
    tx_65_to_127_packets,
    /// Length histogram, sent.
    tx_128_to_255_packets,
    /// Length histogram, sent.
    tx_256_to_511_packets,
    /// Length histogram, sent.
    tx_512_to_1023_packets,
    /// Length histogram, sent.
    tx_1024_to_1522_packets,
    /// Length histogram, sent.
    tx_1523_to_max_packets,
    /// Multicast packets sent.
    tx_multicast_packets,
    /// Broadcast packets received.
    rx_broadcast_packets,
    /// Broadcast packets sent.
    tx_broadcast_packets,
    /// Received shorter than a frame may be.
    rx_undersized_errors,
    /// Received longer than a frame may be.
    rx_oversize_errors,
    /// Fragments received.
    rx_fragmented_errors,
    /// Jabber received.
    rx_jabber_errors,
    /// Packets that went up to the slow path (known by the datapath).
    upcall_packets,
    /// Packets that failed to (known by the datapath).
    upcall_errors,
}

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident => $name:literal),* $(,)?) => {
        /// Why a device did not send or deliver a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[$doc])* $variant),* }

        impl DropReason {
            /// All of them.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];
            /// Counter name, as in a device's custom statistics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),* }
            }
        }
    };
}

drops! {
    /// The device is down or gone.
    TxDown => "tx_drop_down",
    /// The kernel's queue was full.
    TxQueueFull => "tx_drop_queue_full",
    /// Longer than the MTU and not a super-frame.
    TxTooBig => "tx_drop_too_big",
    /// A super-frame that could not be segmented: its headers do not parse.
    TxGso => "tx_drop_gso",
    /// An L3 packet for an Ethernet port.
    TxNoEthernet => "tx_drop_no_ethernet",
    /// A packet other than IP for an L3 port.
    TxNotIp => "tx_drop_not_ip",
    /// Any other refusal of the kernel.
    TxError => "tx_drop_error",
    /// Received longer than our largest buffer.
    RxTooBig => "rx_drop_too_big",
    /// Received with an offload header that makes no sense.
    RxBadOffload => "rx_drop_bad_offload",
    /// The device's receive queue here was full.
    RxQueueFull => "rx_drop_queue_full",
    /// Received beyond the limits of `ingress_policing_*`.
    RxPoliced => "rx_drop_policed",
}

/// Drop counters of one device, one cell a reason. Any thread may count.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts `n` packets.
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason as usize].fetch_add(n, Ordering::Relaxed);
    }
    /// Packets counted under `reason`.
    pub fn read(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
    /// Sum over the reasons to which `keep` says yes.
    pub fn sum(&self, keep: impl Fn(DropReason) -> bool) -> u64 {
        DropReason::ALL.iter().filter(|r| keep(**r)).map(|r| self.read(*r)).sum()
    }
    /// Reasons that happened, by name.
    pub fn nonzero(&self) -> Vec<(String, u64)> {
        let read = DropReason::ALL.iter().map(|r| (r.name().to_owned(), self.read(*r)));
        read.filter(|(_, n)| *n != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_carry_the_column_names() {
        let s = NetdevStats { rx_packets: Some(3), rx_fifo_errors: Some(0), ..NetdevStats::default() };
        let known: Vec<_> = s.entries().filter(|(_, v)| v.is_some()).collect();
        assert_eq!(known, [("rx_packets", Some(3))]);
    }

    #[test]
    fn only_drops_that_happened_are_listed() {
        let d = DropCounters::default();
        d.add(DropReason::TxQueueFull, 2);
        assert_eq!(d.nonzero(), [("tx_drop_queue_full".to_owned(), 2)]);
        assert_eq!(d.sum(|_| true), 2);
    }
}
