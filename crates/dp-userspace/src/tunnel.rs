//! `tnl_push` and `tnl_pop` on one packet.
//!
//! No port of ours takes offloads for what is inside of a tunnel, so a super-frame is segmented here, in front of the outer
//! headers, and checksums are completed. Segments go one by one through what follows the push.
//!
//! What would be too long for every port behind the push is lost there. Who forbade to fragment it is told
//! ([`ib_tunnel::pmtu`]); the answer comes in by the tunnel.

use std::sync::atomic::{AtomicU32, Ordering};

use ib_base::time::machine_wall_ms;
use ib_base::vlog::module::NATIVE_TNL;
use ib_base::vlog_warn_rl;
use ib_dpif::Action;
use ib_flow::{Metadata, OdpPort};
use ib_packet::{Packet, gso};
use ib_tunnel::Kind;
use ib_tunnel::pmtu;
use ib_tunnel::pop::pop;
use ib_tunnel::push::{PerPacket, has_seq, has_timestamp, may_be_fragmented, push, wants_hash};

use crate::drop::DropReason;
use crate::exec::{Context, MAX_RECIRC};
use crate::headers::complete_csum;
use crate::ports::Port;
use crate::worker::Worker;

/// The headers that a push action names.
pub(crate) struct Push<'a> {
    /// The tunnel's port.
    pub tnl_port: OdpPort,
    /// `OVS_VPORT_TYPE_*`.
    pub tnl_type: u32,
    /// Prepared headers.
    pub header: &'a [u8],
}

impl Worker {
    /// Encapsulates `packet`, then does `rest` to each packet that comes of it.
    pub(crate) fn tunnel_push(
        &mut self,
        mut packet: Packet,
        md: &Metadata,
        action: &Push<'_>,
        rest: &[Action],
        cx: Context<'_>,
    ) {
        let Some(kind) = Kind::by_vport(action.tnl_type) else {
            return self.drop_packet(packet, DropReason::TunnelPush);
        };
        // Segments of one super-frame take one way: one hash for all.
        let hash = if wants_hash(action.header) {
            let key = self.key_of(&packet, md);
            let hash = ib_flow::hash::five_tuple(&key, 0);
            self.give_key(key);
            hash
        } else {
            0
        };
        let room = self.room_behind(rest).map(|room| room.saturating_sub(action.header.len()));
        if packet.offload.gso.is_some() {
            let mut segments = Vec::new();
            gso::segment(&packet, &mut segments);
            self.pool.give(packet);
            for segment in segments {
                if room.is_some_and(|room| self.refuse_too_big(&segment, room, kind, md, action, cx)) {
                    // The others are as long, or the tail, which comes again with them.
                    return self.drop_packet(segment, DropReason::TunnelTooBig);
                }
                self.push_one(segment, kind, hash, md, action, rest, cx);
            }
        } else {
            complete_csum(&mut packet);
            if room.is_some_and(|room| self.refuse_too_big(&packet, room, kind, md, action, cx)) {
                return self.drop_packet(packet, DropReason::TunnelTooBig);
            }
            self.push_one(packet, kind, hash, md, action, rest, cx);
        }
    }

    /// Longest outer frame that one of the ports that `rest` outputs to takes; `None` if that can't be told from here.
    fn room_behind(&mut self, rest: &[Action]) -> Option<usize> {
        let mut most = None;
        for action in rest {
            if let Action::Output(port) = action {
                most = most.max(Some(self.tx.room(*port, &self.shared)?));
            }
        }
        most
    }

    /// If `packet` is longer than `room`, and its sender is one to be told: tells it.
    fn refuse_too_big(
        &mut self,
        packet: &Packet,
        room: usize,
        kind: Kind,
        md: &Metadata,
        action: &Push<'_>,
        cx: Context<'_>,
    ) -> bool {
        if packet.len() <= room || cx.recirculated() >= MAX_RECIRC {
            return false;
        }
        let Some(answer) = pmtu::too_big(packet, room) else { return false };
        if !self.errors.take(self.now_ms) {
            // It sends again, and is told then.
            return true;
        }
        let Some(header) = pmtu::turned(action.header) else { return false };
        let mut answer = answer;
        let per = PerPacket { hash: 0, seq: 0, ip_id: 0, timestamp: 0 };
        if push(&mut answer, kind, &header, &per)
            && let Ok(tunnel) = pop(&mut answer, kind)
        {
            let md = Metadata {
                tunnel: Some(Box::new(tunnel)),
                in_port: action.tnl_port,
                skb_priority: md.skb_priority,
                ..Metadata::default()
            };
            self.lookup(answer, md, None, cx.again());
        }
        true
    }

    #[expect(clippy::too_many_arguments, reason = "the loop body of the function above")]
    fn push_one(
        &mut self,
        mut packet: Packet,
        kind: Kind,
        hash: u32,
        md: &Metadata,
        action: &Push<'_>,
        rest: &[Action],
        cx: Context<'_>,
    ) {
        if packet.offload.partial_csum.is_some() {
            complete_csum(&mut packet);
        }
        let (numbered, divisible) = (has_seq(action.header), may_be_fragmented(action.header));
        let port = (numbered || divisible).then(|| self.shared.ports.get(action.tnl_port)).flatten();
        let next = |on: bool, counter: fn(&Port) -> &AtomicU32| {
            port.as_ref().filter(|_| on).map_or(0, |p| counter(p).fetch_add(1, Ordering::Relaxed))
        };
        let seq = next(numbered, |p| &p.tunnel_seq);
        let ip_id = next(divisible, |p| &p.tunnel_ip_id) as u16;
        let timestamp = if has_timestamp(kind, action.header) {
            // Units of 100 microseconds.
            machine_wall_ms().wrapping_mul(10) as u32
        } else {
            0
        };
        let per = PerPacket { hash, seq, ip_id, timestamp };
        if !push(&mut packet, kind, action.header, &per) {
            return self.drop_packet(packet, DropReason::TunnelPush);
        }
        // What the tunnel carried stays behind: these are the outer packet's own metadata.
        let md = Metadata {
            in_port: md.in_port,
            skb_priority: md.skb_priority,
            pkt_mark: md.pkt_mark,
            ..Metadata::default()
        };
        self.run(packet, md, rest, cx.deeper());
    }

    /// Decapsulates `packet`, which is for tunnel port `port`, and looks up what was inside.
    pub(crate) fn tunnel_pop(&mut self, mut packet: Packet, md: &Metadata, port: OdpPort, cx: Context<'_>) {
        if cx.recirculated() >= MAX_RECIRC {
            return self.drop_packet(packet, DropReason::Recirc);
        }
        let kind = self.shared.ports.get(port).and_then(|p| Kind::by_name(&p.kind));
        let Some(kind) = kind else {
            return self.drop_packet(packet, DropReason::TunnelPop);
        };
        match pop(&mut packet, kind) {
            Ok(tunnel) => {
                let md = Metadata {
                    tunnel: Some(Box::new(tunnel)),
                    in_port: port,
                    skb_priority: md.skb_priority,
                    ..Metadata::default()
                };
                self.lookup(packet, md, None, cx.again());
            }
            Err(e) => {
                if let Some(text) = e.text() {
                    vlog_warn_rl!(NATIVE_TNL, (60, 5), "{text}");
                }
                self.drop_packet(packet, DropReason::TunnelPop);
            }
        }
    }
}
