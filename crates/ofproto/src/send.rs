//! Frames that a bridge sends for itself: BPDUs, LACP's PDUs, what tells neighbours that addresses have moved.

use ib_dpif::{Action as Odp, Execute};
use ib_flow::key::TunFlags;
use ib_flow::{Flow, Metadata, OfPort};
use ib_openflow::action::Action;
use ib_packet::Packet;

use crate::rule::PushStats;
use crate::switch::Bridge;
use crate::xlate::{self, Xin};

impl Bridge {
    /// Sends a frame by a port. One that can't be sent is lost, as on any link.
    pub(crate) fn send_frame(&self, port: OfPort, frame: &[u8]) {
        self.send_marked_frame(port, frame, false);
    }

    /// The same; in a tunnel that can say so the packet is about the tunnel (OAM).
    pub(crate) fn send_marked_frame(&self, port: OfPort, frame: &[u8], oam: bool) {
        let Some(p) = self.ports.get(&port) else { return };
        let packet = Packet::from_frame(frame);
        let actions = match p.odp {
            Some(odp) if p.tunnel.is_none() => vec![Odp::Output(odp)],
            _ => self.translated(port, &packet, oam),
        };
        let md = Metadata::default();
        let execute = Execute { packet, md: &md, actions: &actions, probe: false };
        let _ = self.backer.dpif.execute(execute);
    }

    /// Has a frame pass the tables as if it had come in by a port.
    pub(crate) fn receive_frame(&self, port: OfPort, frame: &[u8]) {
        let Some(odp) = self.ports.get(&port).and_then(|p| p.odp) else { return };
        let cfg = self.backer.xcfg.load();
        let Some(xbridge) = cfg.bridges.get(&self.of.id) else { return };
        let packet = Packet::from_frame(frame);
        let mut flow = Flow::zeroed();
        ib_flow::extract(&packet, &Metadata::default(), &mut flow);
        flow.in_port = port.0.into();
        flow.actset_output = OfPort::UNSET;
        let mut xin = Xin::new(xbridge, &flow);
        xin.packet = Some(&packet);
        xin.side_effects = true;
        let xout = xlate::translate(&self.backer, xin);
        let stats = PushStats {
            packets: 1,
            bytes: packet.len() as u64,
            used_ms: self.of.clock.now().as_ms(),
            tcp_flags: 0,
        };
        xlate::push(&xout.cache, &stats, false);
        let md = Metadata { in_port: odp, ..Metadata::default() };
        // One that can't be sent is lost, as on any link.
        let _ = self.backer.dpif.execute(Execute { packet, md: &md, actions: &xout.actions, probe: false });
    }

    /// What comes of a frame that leaves by a patch port, where often the bridge there takes it in, or by a tunnel.
    fn translated(&self, port: OfPort, packet: &Packet, oam: bool) -> Vec<Odp> {
        let cfg = self.backer.xcfg.load();
        let Some(xbridge) = cfg.bridges.get(&self.of.id) else { return Vec::new() };
        let mut flow = Flow::zeroed();
        ib_flow::extract(packet, &Metadata::default(), &mut flow);
        flow.in_port = OfPort::NONE.0.into();
        flow.actset_output = OfPort::UNSET;
        if oam {
            flow.tunnel.flags |= TunFlags::OAM;
        }
        let output = [Action::Output { port, max_len: 0 }];
        let mut xin = Xin::new(xbridge, &flow);
        xin.packet = Some(packet);
        xin.actions = Some(&output);
        xin.side_effects = true;
        let xout = xlate::translate(&self.backer, xin);
        let stats = PushStats {
            packets: 1,
            bytes: packet.len() as u64,
            used_ms: self.of.clock.now().as_ms(),
            tcp_flags: 0,
        };
        xlate::push(&xout.cache, &stats, false);
        xout.actions
    }
}
