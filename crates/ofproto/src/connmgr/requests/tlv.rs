//! NXT_TLV_TABLE_MOD and its request: Geneve options as `tun_metadata` fields.

use ib_classifier::MiniMatch;
use ib_flow::OfPort;
use ib_flow::tlv::{TlvBinding, TlvError, TlvTable};
use ib_openflow::error::OfError;
use ib_openflow::message::{Message, OFPG_ANY, OFPTT_ALL, TlvMap, TlvTableMod, TlvTableReply};

use super::Cx;
use super::stats::rule_match;
use crate::flow_mod::Criteria;

/// Bytes of option data that all bindings share.
const MAX_SPACE: u32 = 256;
/// Fields.
const MAX_FIELDS: u16 = 64;

pub(super) fn request(cx: &mut Cx<'_>) {
    let maps = match &cx.bridge.connmgr.tlv {
        Some(t) => t
            .bindings()
            .map(|b| TlvMap { class: b.class, kind: b.kind, len: b.len, index: b.index.into() })
            .collect(),
        None => Vec::new(),
    };
    cx.reply(&Message::TlvTableReply(TlvTableReply { max_space: MAX_SPACE, max_fields: MAX_FIELDS, maps }));
}

pub(super) fn modify(cx: &mut Cx<'_>, m: &TlvTableMod) -> Result<(), OfError> {
    let old = cx.bridge.connmgr.tlv.clone();
    if m.command != 0 && in_use(cx, m) {
        return Err(OfError::NXTTMFC_INVALID_TLV_DEL);
    }
    let mut bindings: Vec<TlvBinding> = old.iter().flat_map(|t| t.bindings().copied()).collect();
    match m.command {
        0 => {
            for map in &m.maps {
                let index = u8::try_from(map.index).map_err(|_| OfError::NXTTMFC_BAD_FIELD_IDX)?;
                let new = TlvBinding { class: map.class, kind: map.kind, len: map.len, index };
                // A binding under way was checked by the codec; one that exists already is not new.
                if bindings.iter().any(|b| b.index == index || (b.class, b.kind) == (map.class, map.kind)) {
                    return Err(OfError::NXTTMFC_ALREADY_MAPPED);
                }
                bindings.push(new);
            }
        }
        1 => bindings.retain(|b| !m.maps.iter().any(|map| (map.class, map.kind) == (b.class, b.kind))),
        _ => bindings.clear(),
    }
    let new = if bindings.is_empty() {
        None
    } else {
        Some(TlvTable::new(old.as_deref(), &bindings).map_err(|e| match e {
            TlvError::BadIndex => OfError::NXTTMFC_BAD_FIELD_IDX,
            TlvError::BadLen => OfError::NXTTMFC_BAD_OPT_LEN,
            TlvError::Duplicate => OfError::NXTTMFC_DUP_ENTRY,
            TlvError::Full => OfError::NXTTMFC_TABLE_FULL,
        })?)
    };
    cx.bridge.of.set_tlv(new.clone());
    cx.bridge.connmgr.tlv = new;
    if let Some(old) = old {
        old.retire();
    }
    Ok(())
}

/// Whether a flow matches on a binding that would go.
fn in_use(cx: &Cx<'_>, m: &TlvTableMod) -> bool {
    let Some(table) = &cx.bridge.connmgr.tlv else { return false };
    let gone =
        |b: &TlvBinding| m.command == 2 || m.maps.iter().any(|x| (x.class, x.kind) == (b.class, b.kind));
    let bits = table.bindings().filter(|b| gone(b)).fold(0u64, |bits, b| bits | 1 << b.index);
    let of = &cx.bridge.of;
    let all = Criteria {
        table: OFPTT_ALL,
        match_: &MiniMatch::catch_all(),
        strict: None,
        cookie: 0,
        cookie_mask: 0,
        out_port: OfPort::NONE,
        out_group: OFPG_ANY,
        hidden: true,
    };
    let rules = of.collect(&all, of.current_version()).unwrap_or_default();
    rules.iter().any(|r| rule_match(r, table.id()).mask.0.tunnel.opts_present & bits != 0)
}
