//! What a standalone bridge does when none of its controllers answers.
//!
//! After three probe intervals without a controller that has admitted the switch, a hidden flow above all
//! others switches packets as an ordinary switch would. While a controller is connected but has not said
//! anything that counts as admission, packets that nobody sent are offered to it every two seconds: one that is
//! willing to work will answer them.

use ib_base::rng::Rng;
use ib_base::time::Instant;
use ib_base::vlog::module::FAIL_OPEN;
use ib_base::{vlog_info, vlog_warn};
use ib_flow::{Match, OfPort};
use ib_openflow::action::Action;
use ib_openflow::message::{Message, PacketIn, PacketInReason};

use super::ConnMgr;
use super::backoff::{Backoff, probe_interval_ms};
use super::conn::Kind;
use crate::config::FailMode;
use crate::switch::Bridge;

/// Priority of the hidden flow.
const PRIORITY: i32 = 0xf0_f0f0;
/// Time between offered packets, ms.
const OFFER_MS: u64 = 2000;

/// State of failing open.
#[derive(Debug, Default)]
pub(crate) struct FailOpen {
    /// Seconds of failure that were last told to the log; none: not failing.
    failing_secs: Option<u64>,
    next_offer: Option<Instant>,
}

fn is_configured(mgr: &ConnMgr) -> bool {
    mgr.fail_mode == FailMode::Standalone && mgr.has_controllers()
}

fn backoffs(mgr: &ConnMgr) -> impl Iterator<Item = &Backoff> {
    mgr.controllers.values().filter(|c| c.is_primary).filter_map(|c| c.backoff.as_ref())
}

/// Seconds of failure that trigger it: every controller has a chance to be probed and to reconnect.
fn trigger_secs(mgr: &ConnMgr) -> u64 {
    let probes = mgr.controllers.values().filter(|c| c.is_primary);
    let longest = probes.map(|c| probe_interval_ms(c.config.probe_interval_ms)).max();
    // Without any probe: as with the default one.
    longest.filter(|ms| *ms != 0).unwrap_or(5000) / 1000 * 3
}

fn failure_secs(mgr: &ConnMgr, now: Instant) -> u64 {
    backoffs(mgr).map(|b| b.failure_secs(now)).min().unwrap_or(0)
}

pub(crate) fn deadline(mgr: &ConnMgr) -> Option<Instant> {
    if !is_configured(mgr) {
        return None;
    }
    if mgr.fail_open.failing_secs.is_some() {
        return mgr.fail_open.next_offer;
    }
    let at = backoffs(mgr).map(|b| b.failure_began()).collect::<Option<Vec<Instant>>>()?;
    at.into_iter().max().map(|t| t.plus_ms(trigger_secs(mgr) * 1000))
}

/// Configuration changed.
pub(crate) fn update(bridge: &mut Bridge, now: Instant) {
    if !is_configured(&bridge.connmgr) && bridge.connmgr.fail_open.failing_secs.take().is_some() {
        vlog_warn!(FAIL_OPEN, "No longer in fail-open mode");
        bridge.of.remove_hidden(&Match::catch_all(), PRIORITY, now);
    }
}

/// Tables were emptied.
pub(crate) fn flushed(bridge: &mut Bridge, now: Instant) {
    if bridge.connmgr.fail_open.failing_secs.is_some() && is_configured(&bridge.connmgr) {
        let normal = vec![Action::Output { port: OfPort::NORMAL, max_len: 0 }];
        bridge.of.add_hidden(&Match::catch_all(), PRIORITY, normal, now);
    }
}

pub(crate) fn run(bridge: &mut Bridge, now: Instant) {
    if !is_configured(&bridge.connmgr) {
        return;
    }
    let failing = failure_secs(&bridge.connmgr, now);
    let trigger = trigger_secs(&bridge.connmgr);
    match bridge.connmgr.fail_open.failing_secs {
        None if failing >= trigger => {
            vlog_warn!(
                FAIL_OPEN,
                "Could not connect to controller (or switch failed controller's post-connection admission \
                 control policy) for {failing} seconds, failing open"
            );
            bridge.connmgr.fail_open.failing_secs = Some(failing);
            bridge.connmgr.fail_open.next_offer = Some(now.plus_ms(OFFER_MS));
            // What controllers made goes; the flow of failing open and those of in-band control come back.
            super::flush_flows(bridge, now);
        }
        Some(_) if backoffs(&bridge.connmgr).any(Backoff::is_admitted) => {
            vlog_warn!(FAIL_OPEN, "No longer in fail-open mode");
            bridge.connmgr.fail_open.failing_secs = None;
            bridge.of.remove_hidden(&Match::catch_all(), PRIORITY, now);
        }
        Some(told) if failing > told + 60 => {
            vlog_info!(
                FAIL_OPEN,
                "Still in fail-open mode after {failing} seconds disconnected from controller"
            );
            bridge.connmgr.fail_open.failing_secs = Some(failing);
        }
        _ => {}
    }
    let f = &mut bridge.connmgr.fail_open;
    if f.failing_secs.is_some() && f.next_offer.is_none_or(|t| now >= t) {
        f.next_offer = Some(now.plus_ms(OFFER_MS));
        offer(&mut bridge.connmgr);
    }
}

/// Offers a packet that nobody sent.
fn offer(mgr: &mut ConnMgr) {
    let data = reverse_arp();
    let mut metadata = Match::catch_all();
    metadata.flow.in_port = OfPort::LOCAL.0.into();
    metadata.mask.0.in_port = u32::MAX;
    for c in mgr.conns.values_mut().filter(|c| c.kind == Kind::Primary && c.version().is_some()) {
        let pin = PacketIn {
            total_len: 42,
            data: data.clone(),
            reason: PacketInReason::NoMatch,
            table_id: 0xff,
            metadata: metadata.clone(),
            format: c.packet_in_format,
            ..PacketIn::default()
        };
        c.send(&Message::PacketIn(Box::new(pin)), 0);
    }
}

/// A RARP request of a random address of Nicira's.
fn reverse_arp() -> Vec<u8> {
    let r = Rng::from_os().next_u32().to_be_bytes();
    let mac = [0x00, 0x23, 0x20, r[0] | 0x80, r[1], r[2]];
    let mut p = vec![0xff; 6];
    p.extend(mac);
    p.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    p.extend(mac);
    p.extend([0; 4]);
    p.extend(mac);
    p.extend([0; 4]);
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_packets_are_whole_frames() {
        let p = reverse_arp();
        assert_eq!(p.len(), 42);
        assert_eq!(p[..9], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x23, 0x20]);
        assert_eq!(p[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!(p[6..12], p[22..28]);
    }
}
