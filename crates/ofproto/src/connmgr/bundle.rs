//! OpenFlow bundles: changes that a controller collects and commits at once.
//!
//! Messages are decoded and checked when they are added; commit applies flow_mods and group_mods in one
//! transaction, then does packet-outs and port_mods, which cannot be undone and come after all that can fail
//! was done. An error names the message that failed and leaves everything as it was.

use ib_base::time::Instant;
use ib_openflow::decode::decode_with;
use ib_openflow::encode::encode_error;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    BundleAdd, BundleControl, BundleControlKind, FlowModCommand, GroupMod, Message, NO_BUFFER, PacketOut,
    PortMod, Version,
};

use super::conn::Conn;
use super::requests::{Cx, check_flow_mod, names_buffer, packet_out, port_mod};
use crate::flow_mod::{RuleMod, rule_mod};

/// Bundles that a connection may have open.
const MAX_BUNDLES: usize = 1024;
/// Bytes that the bundles of a connection may hold.
const MAX_BYTES: usize = 256 << 20;

/// What a bundle can hold.
enum Step {
    /// Taken out when it is applied.
    Flow(FlowModCommand, Option<RuleMod>),
    Group(Box<GroupMod>),
    Port(Box<PortMod>),
    PacketOut(Box<PacketOut>),
}

/// A bundle that was opened.
pub(crate) struct OpenBundle {
    flags: u16,
    closed: bool,
    used: Instant,
    /// The message that opened it, which a timeout quotes.
    opening: Vec<u8>,
    /// Each with the bytes of the message that added it, which an error quotes.
    steps: Vec<(Step, Vec<u8>)>,
    bytes: usize,
}

impl OpenBundle {
    fn new(flags: u16, opening: &[u8], now: Instant) -> OpenBundle {
        let opening = opening.to_vec();
        OpenBundle { flags, closed: false, used: now, opening, steps: Vec::new(), bytes: 0 }
    }
    pub fn deadline(&self, idle_ms: u64) -> Instant {
        self.used.plus_ms(idle_ms)
    }
}

/// Discards bundles that were forgotten.
pub(super) fn expire(conn: &mut Conn, idle_ms: u64, now: Instant) {
    if conn.bundles.values().all(|b| now < b.deadline(idle_ms)) {
        return;
    }
    let gone: Vec<u32> =
        conn.bundles.iter().filter(|(_, b)| now >= b.deadline(idle_ms)).map(|(id, _)| *id).collect();
    for id in gone {
        let Some(bundle) = conn.bundles.remove(&id) else { continue };
        let version = conn.version().unwrap_or(Version::V10);
        conn.send_bytes(encode_error(OfError::OFPBFC_TIMEOUT, version, &bundle.opening));
    }
}

pub(super) fn control(cx: &mut Cx<'_>, b: &BundleControl) -> Result<(), OfError> {
    use BundleControlKind as K;
    let reply = match b.kind {
        K::OpenRequest => {
            open(cx, b)?;
            K::OpenReply
        }
        K::CloseRequest => {
            if cx.conn.bundles.get(&b.bundle_id).is_some_and(|b| b.closed) {
                cx.conn.bundles.remove(&b.bundle_id);
                return Err(OfError::OFPBFC_BUNDLE_CLOSED);
            }
            let bundle = find(cx.conn, b)?;
            bundle.closed = true;
            bundle.used = cx.now;
            K::CloseReply
        }
        K::CommitRequest => {
            find(cx.conn, b)?;
            commit(cx, b.bundle_id)?;
            K::CommitReply
        }
        K::DiscardRequest => {
            cx.conn.bundles.remove(&b.bundle_id).ok_or(OfError::OFPBFC_BAD_ID)?;
            K::DiscardReply
        }
        K::OpenReply | K::CloseReply | K::CommitReply | K::DiscardReply | K::Unknown => {
            return Err(OfError::OFPBFC_BAD_TYPE);
        }
    };
    cx.reply(&Message::BundleControl(BundleControl { kind: reply, flags: 0, bundle_id: b.bundle_id }));
    Ok(())
}

fn open(cx: &mut Cx<'_>, b: &BundleControl) -> Result<(), OfError> {
    let (conn, id) = (&mut *cx.conn, b.bundle_id);
    if conn.bundles.remove(&id).is_some() {
        return Err(OfError::OFPBFC_BAD_ID);
    }
    if conn.bundles.len() >= MAX_BUNDLES {
        return Err(OfError::OFPBFC_OUT_OF_BUNDLES);
    }
    conn.bundles.insert(id, OpenBundle::new(b.flags, cx.bytes, cx.now));
    Ok(())
}

/// The bundle that a request names; one with other flags is an error, and the end of the bundle.
fn find<'a>(conn: &'a mut Conn, b: &BundleControl) -> Result<&'a mut OpenBundle, OfError> {
    match conn.bundles.get(&b.bundle_id) {
        None => return Err(OfError::OFPBFC_BAD_ID),
        Some(open) if open.flags != b.flags => {
            conn.bundles.remove(&b.bundle_id);
            return Err(OfError::OFPBFC_BAD_FLAGS);
        }
        Some(_) => {}
    }
    conn.bundles.get_mut(&b.bundle_id).ok_or(OfError::OFPBFC_BAD_ID)
}

pub(super) fn add(cx: &mut Cx<'_>, add: BundleAdd) -> Result<(), OfError> {
    let tlv = cx.bridge.connmgr.tlv_id();
    let step = match decode_with(&add.raw, tlv)?.message {
        Message::FlowMod(mut fm) => {
            check_flow_mod(cx.conn, cx.bridge.connmgr.tlv.as_deref(), &mut fm)?;
            if names_buffer(&fm) {
                return Err(OfError::OFPBRC_BUFFER_UNKNOWN);
            }
            Step::Flow(fm.command, Some(rule_mod(*fm)))
        }
        Message::GroupMod(gm) => Step::Group(Box::new(gm)),
        Message::PortMod(pm) => Step::Port(Box::new(pm)),
        Message::PacketOut(po) => {
            if po.buffer_id != NO_BUFFER {
                return Err(OfError::OFPBRC_BUFFER_UNKNOWN);
            }
            Step::PacketOut(po)
        }
        _ => return Err(OfError::OFPBFC_MSG_UNSUP),
    };
    let held: usize = cx.conn.bundles.values().map(|b| b.bytes).sum();
    // Adding to a bundle that was not opened opens it.
    let (now, outer) = (cx.now, cx.bytes);
    let bundle =
        cx.conn.bundles.entry(add.bundle_id).or_insert_with(|| OpenBundle::new(add.flags, outer, now));
    if bundle.closed {
        cx.conn.bundles.remove(&add.bundle_id);
        return Err(OfError::OFPBFC_BUNDLE_CLOSED);
    }
    if bundle.flags != add.flags {
        cx.conn.bundles.remove(&add.bundle_id);
        return Err(OfError::OFPBFC_BAD_FLAGS);
    }
    if held + outer.len() > MAX_BYTES {
        cx.conn.bundles.remove(&add.bundle_id);
        return Err(OfError::OFPBFC_MSG_TOO_MANY);
    }
    bundle.used = now;
    bundle.bytes += outer.len();
    bundle.steps.push((step, outer.to_vec()));
    Ok(())
}

fn commit(cx: &mut Cx<'_>, id: u32) -> Result<(), OfError> {
    let Some(mut bundle) = cx.conn.bundles.remove(&id) else { return Err(OfError::OFPBFC_BAD_ID) };
    let of = std::sync::Arc::clone(&cx.bridge.of);
    // Ports must be there before anything is changed.
    for (step, raw) in &bundle.steps {
        if let Step::Port(pm) = step {
            let port = cx.bridge.ports.get(&pm.port_no);
            let error = match port {
                None => Some(OfError::OFPPMFC_BAD_PORT),
                Some(p) if p.config.netdev.mac != pm.hw_addr => Some(OfError::OFPPMFC_BAD_HW_ADDR),
                Some(_) => None,
            };
            if let Some(e) = error {
                return fail(cx, e, raw);
            }
        }
    }
    let groups_before = of.groups.read().clone();
    let mut txn = of.begin(cx.now);
    let mut failed = None;
    for (step, raw) in &mut bundle.steps {
        let result = match step {
            Step::Flow(_, change) => match change.take() {
                Some(change) => txn.flow_mod(change, cx.origin()),
                None => Ok(()),
            },
            Step::Group(gm) => of.group_mod_in(gm, &mut txn, cx.now),
            Step::Port(_) | Step::PacketOut(_) => Ok(()),
        };
        if let Err(e) = result {
            failed = Some((e, raw));
            break;
        }
    }
    if let Some((error, raw)) = failed {
        drop(txn);
        *of.groups.write() = groups_before;
        of.changed.bump();
        return fail(cx, error, raw);
    }
    txn.commit();
    for (step, raw) in &bundle.steps {
        let result = match step {
            Step::Flow(command, _) => {
                cx.conn.count_flow_mod(*command, cx.now);
                Ok(())
            }
            Step::Port(pm) => port_mod(cx, pm),
            Step::PacketOut(po) => packet_out(cx.bridge, po, cx.now),
            Step::Group(_) => Ok(()),
        };
        if let Err(e) = result {
            return fail(cx, e, raw);
        }
    }
    Ok(())
}

/// Reports the message that failed; the commit request fails as a whole after it.
fn fail(cx: &mut Cx<'_>, error: OfError, raw: &[u8]) -> Result<(), OfError> {
    let version = cx.version();
    cx.conn.send_bytes(encode_error(error, version, raw));
    Err(OfError::OFPBFC_MSG_FAILED)
}
