//! Frames that a bridge sends for itself: BPDUs, LACP's PDUs, what tells neighbours that addresses have moved.

use ib_dpif::{Action as Odp, Execute};
use ib_flow::{Flow, Metadata, OfPort};
use ib_openflow::action::Action;
use ib_packet::Packet;

use crate::switch::Bridge;
use crate::xlate::{self, Xin};

impl Bridge {
    /// Sends a frame by a port. One that can't be sent is lost, as on any link.
    pub(crate) fn send_frame(&self, port: OfPort, frame: &[u8]) {
        let Some(p) = self.ports.get(&port) else { return };
        let packet = Packet::from_frame(frame);
        let actions = match p.odp {
            Some(odp) => vec![Odp::Output(odp)],
            None => self.through_patch(port, &packet),
        };
        let md = Metadata::default();
        let execute = Execute { packet, md: &md, actions: &actions, probe: false };
        let _ = self.backer.dpif.execute(execute);
    }

    /// What comes of a frame that leaves by a patch port: often the bridge there takes it in.
    fn through_patch(&self, port: OfPort, packet: &Packet) -> Vec<Odp> {
        let cfg = self.backer.xcfg.load();
        let Some(xbridge) = cfg.bridges.get(&self.of.id) else { return Vec::new() };
        let mut flow = Flow::zeroed();
        ib_flow::extract(packet, &Metadata::default(), &mut flow);
        flow.in_port = OfPort::NONE.0.into();
        flow.actset_output = OfPort::UNSET;
        let output = [Action::Output { port, max_len: 0 }];
        let mut xin = Xin::new(xbridge, &flow);
        xin.packet = Some(packet);
        xin.actions = Some(&output);
        xin.side_effects = true;
        xlate::translate(&self.backer, xin).actions
    }
}
