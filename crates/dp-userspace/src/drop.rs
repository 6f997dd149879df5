//! Why a packet did not leave: one table of reasons, counted for the datapath and in `coverage/show`.
//!
//! Names are those of Open vSwitch's coverage counters where it has one.

use std::sync::atomic::{AtomicU64, Ordering};

use ib_base::coverage::{self, Counter};

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident => $counter:ident),* $(,)?) => {
        /// Why this datapath dropped a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[$doc])* $variant),* }

        impl DropReason {
            /// All of them.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];
            /// Counter name, as in `coverage/show`.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => stringify!($counter)),* }
            }
            /// Counter of the whole process.
            pub const fn counter(self) -> &'static Counter {
                match self { $(DropReason::$variant => &coverage::$counter),* }
            }
        }
    };
}

drops! {
    /// No flow, and nobody to ask.
    UpcallError => datapath_drop_upcall_error,
    /// A `userspace` action, and nobody to take the packet.
    UserspaceAction => datapath_drop_userspace_action_error,
    /// Encapsulation failed.
    TunnelPush => datapath_drop_tunnel_push_error,
    /// Too long for the tunnel's way; its sender was told.
    TunnelTooBig => datapath_drop_tunnel_too_big,
    /// Decapsulation failed.
    TunnelPop => datapath_drop_tunnel_pop_error,
    /// Recirculated too often.
    Recirc => datapath_drop_recirc_error,
    /// Action lists nested too deeply.
    Nesting => datapath_drop_nesting,
    /// Output to a port that is not there.
    InvalidPort => datapath_drop_invalid_port,
    /// Too short for an Ethernet header.
    RxInvalid => datapath_drop_rx_invalid_packet,
    /// A meter's band.
    Meter => datapath_drop_meter,
    /// A fragment waited for the rest of its datagram, and then for a packet to leave behind.
    Conntrack => datapath_drop_conntrack,
    /// NSH could not be taken off.
    NshDecap => datapath_drop_nsh_decap_error,
    /// Processing failed inside; the batch was given up.
    Internal => datapath_drop_internal_error,
    /// A flow without actions.
    NoActions => datapath_drop_no_actions,
    /// TTL ran out and nobody wants the packet.
    TtlExpired => datapath_drop_ttl_expired,
    /// Translation found nothing to do.
    Pipeline => drop_action_of_pipeline,
    /// Explicit: bridge not found.
    BridgeNotFound => drop_action_bridge_not_found,
    /// Explicit: recursion too deep.
    RecursionTooDeep => drop_action_recursion_too_deep,
    /// Explicit: too many resubmits.
    TooManyResubmit => drop_action_too_many_resubmit,
    /// Explicit: stack too deep.
    StackTooDeep => drop_action_stack_too_deep,
    /// Explicit: no recirculation context.
    NoRecirculationContext => drop_action_no_recirculation_context,
    /// Explicit: recirculation conflict.
    RecirculationConflict => drop_action_recirculation_conflict,
    /// Explicit: too many MPLS labels.
    TooManyMplsLabels => drop_action_too_many_mpls_labels,
    /// Explicit: invalid tunnel metadata.
    InvalidTunnelMetadata => drop_action_invalid_tunnel_metadata,
    /// Explicit: unsupported packet type.
    UnsupportedPacketType => drop_action_unsupported_packet_type,
    /// Explicit: congestion.
    Congestion => drop_action_congestion,
    /// Explicit: forwarding disabled.
    ForwardingDisabled => drop_action_forwarding_disabled,
}

impl DropReason {
    /// The reason of an explicit drop action's code (`XLATE_*`, from 0: fine, nothing to do).
    pub fn of_action(code: u32) -> DropReason {
        const CODES: [DropReason; 12] = [
            DropReason::Pipeline,
            DropReason::BridgeNotFound,
            DropReason::RecursionTooDeep,
            DropReason::TooManyResubmit,
            DropReason::StackTooDeep,
            DropReason::NoRecirculationContext,
            DropReason::RecirculationConflict,
            DropReason::TooManyMplsLabels,
            DropReason::InvalidTunnelMetadata,
            DropReason::UnsupportedPacketType,
            DropReason::Congestion,
            DropReason::ForwardingDisabled,
        ];
        usize::try_from(code).ok().and_then(|i| CODES.get(i)).copied().unwrap_or(DropReason::Pipeline)
    }
}

/// Counts of one datapath, one cell a reason. Any thread may count.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts `n` packets.
    #[inline]
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason as usize].fetch_add(n, Ordering::Relaxed);
        reason.counter().add(n);
    }
    /// Packets counted under `reason`.
    pub fn read(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
    /// All, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (r.name(), self.read(*r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_drop_action() {
        assert_eq!(DropReason::of_action(0).name(), "drop_action_of_pipeline");
        assert!(DropReason::ALL.iter().all(|r| r.name() == r.counter().name()));
        assert_eq!(DropReason::of_action(11).name(), "drop_action_forwarding_disabled");
        assert_eq!(DropReason::of_action(9999), DropReason::Pipeline);
    }
}
