//! In-band control's part in translation: the bridge's own address may come by DHCP through the bridge.
//!
//! Whatever controllers made of a reply of a DHCP server, the local port gets it too. Which packets these are
//! depends on fields that nothing else may have looked at, so they enter the mask.

use ib_dpif::action::Action as Odp;
use ib_flow::OfPort;

use super::Ctx;
use super::trace::Kind;

const ETHERTYPE_IPV4: u16 = 0x0800;
const IPPROTO_UDP: u8 = 17;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

impl Ctx<'_> {
    /// Sends a DHCP reply to the local port as well.
    pub(super) fn dhcp_to_local(&mut self) {
        if self.freezing || !self.bridge.has_in_band || !self.is_dhcp_reply() {
            return;
        }
        let local = self.bridge.ports.get(&OfPort::LOCAL).and_then(|p| p.odp);
        if local.is_none_or(|odp| self.out.iter().any(|a| matches!(a, Odp::Output(p) if *p == odp))) {
            return;
        }
        self.report(Kind::Detail, || "outputting DHCP packet to local port for in-band control".to_owned());
        self.output(OfPort::LOCAL, false, false);
    }

    fn is_dhcp_reply(&mut self) -> bool {
        let (flow, mask) = (&self.flow, &mut self.wc.0);
        if flow.dl_type.get() != ETHERTYPE_IPV4 {
            return false;
        }
        mask.nw_proto = u8::MAX;
        if flow.nw_proto != IPPROTO_UDP {
            return false;
        }
        mask.tp_src = u16::MAX.into();
        if flow.tp_src.get() != SERVER_PORT {
            return false;
        }
        mask.tp_dst = u16::MAX.into();
        flow.tp_dst.get() == CLIENT_PORT
    }
}
