//! `tun_metadata*`: the binding of tunnel options to fields.
//!
//! A bridge binds up to 64 Geneve options (class, type, length) to `tun_metadata0..63`. The binding is a
//! [`TlvTable`]; each bound field has a fixed place in `Tunnel::opts` so that keys of one bridge can be
//! compared word by word. Keys name their table by a small id (`Tunnel::tlv_table`, kept in otherwise
//! unused bytes), and tables live in a registry; id 0 is "none". Tables never change once registered: a
//! new binding is a new table, so readers share an `Arc` and never wait for a writer for long.
//!
//! A match that was built without a bridge (by `ovs-ofctl`, from text) has no table; it allocates places
//! for the fields that it uses and remembers them in its own [`TunMd`].

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock};

use crate::fields::FieldValue;
use crate::key::{Flow, Mask, Match, TunFlags, Tunnel};

/// Bytes of option bodies that a key can hold.
pub const OPT_SPACE: usize = 256;
/// Fields.
pub const N_FIELDS: usize = 64;

/// One binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvBinding {
    /// Option class.
    pub class: u16,
    /// Option type.
    pub kind: u8,
    /// Bytes of body, a multiple of 4 from 4 to 124.
    pub len: u8,
    /// `tun_metadata` field number, below 64.
    pub index: u8,
}

/// An immutable set of bindings with their places.
#[derive(Debug, Default)]
pub struct TlvTable {
    id: u32,
    entries: Vec<(TlvBinding, usize)>,
    by_index: HashMap<u8, usize>,
    by_option: HashMap<(u16, u8), usize>,
}

/// Why bindings cannot be a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvError {
    /// A field number is 64 or more (`NXTTMFC_BAD_FIELD_IDX`).
    BadIndex,
    /// A length is 0, over 124 or not a multiple of 4 (`NXTTMFC_BAD_OPT_LEN`).
    BadLen,
    /// A field or an option is bound already (`NXTTMFC_ALREADY_MAPPED` or `NXTTMFC_DUP_ENTRY`).
    Duplicate,
    /// No space left (`NXTTMFC_TABLE_FULL`).
    Full,
}

/// The last id given out, and the registered tables.
type Registry = (u32, HashMap<u32, Arc<TlvTable>>);

static TABLES: LazyLock<RwLock<Registry>> = LazyLock::new(Default::default);

impl TlvTable {
    /// Registers a table of `bindings`. Places of bindings that are also in `base` stay the same, so that
    /// keys made under `base` remain comparable. Keep the handle; [`TlvTable::retire`] ends its life.
    pub fn new(base: Option<&TlvTable>, bindings: &[TlvBinding]) -> Result<Arc<TlvTable>, TlvError> {
        let mut used = [false; OPT_SPACE / 4];
        let mut t = TlvTable::default();
        let mut todo = Vec::new();
        for b in bindings {
            if usize::from(b.index) >= N_FIELDS {
                return Err(TlvError::BadIndex);
            }
            if b.len == 0 || b.len > 124 || b.len % 4 != 0 {
                return Err(TlvError::BadLen);
            }
            let kept = base.and_then(|base| base.entries.iter().find(|e| e.0 == *b));
            match kept {
                Some((_, at)) => t.place(*b, *at, &mut used)?,
                None => todo.push(*b),
            }
        }
        for b in todo {
            let words = usize::from(b.len) / 4;
            let at = (0..=used.len() - words).find(|i| used[*i..i + words].iter().all(|u| !u));
            t.place(b, at.ok_or(TlvError::Full)? * 4, &mut used)?;
        }
        let mut reg = TABLES.write().unwrap_or_else(|e| e.into_inner());
        reg.0 += 1;
        t.id = reg.0;
        let t = Arc::new(t);
        reg.1.insert(t.id, t.clone());
        Ok(t)
    }

    fn place(&mut self, b: TlvBinding, at: usize, used: &mut [bool]) -> Result<(), TlvError> {
        let n = self.entries.len();
        if self.by_index.insert(b.index, n).is_some() || self.by_option.insert((b.class, b.kind), n).is_some()
        {
            return Err(TlvError::Duplicate);
        }
        used[at / 4..(at + usize::from(b.len)) / 4].fill(true);
        self.entries.push((b, at));
        Ok(())
    }

    /// The id that keys carry.
    pub fn id(&self) -> u32 {
        self.id
    }
    /// The bindings.
    pub fn bindings(&self) -> impl Iterator<Item = &TlvBinding> {
        self.entries.iter().map(|e| &e.0)
    }
    /// The registered table of that id.
    pub fn by_id(id: u32) -> Option<Arc<TlvTable>> {
        if id == 0 {
            return None;
        }
        TABLES.read().unwrap_or_else(|e| e.into_inner()).1.get(&id).cloned()
    }
    /// Takes the table out of the registry. Keys that still name it lose their options.
    pub fn retire(&self) {
        TABLES.write().unwrap_or_else(|e| e.into_inner()).1.remove(&self.id);
    }
    /// Bytes bound to a field.
    pub fn len_of(&self, index: u8) -> Option<u32> {
        self.loc(index).map(|(_, len)| len as u32)
    }
    fn loc(&self, index: u8) -> Option<(usize, usize)> {
        let (b, at) = &self.entries[*self.by_index.get(&index)?];
        Some((*at, b.len.into()))
    }

    /// Turns raw options of `t` ([`TunFlags::UDPIF`]) into bound fields. Returns whether there was an
    /// option marked critical that is not bound: such a packet must be dropped.
    pub fn unpack(&self, t: &mut Tunnel) -> bool {
        let raw = t.opts;
        let raw_len = (t.opts_present as usize).min(OPT_SPACE);
        t.flags &= !TunFlags::UDPIF;
        t.opts = [0; OPT_SPACE];
        t.opts_present = 0;
        t.set_tlv_table(self.id);
        let mut critical = false;
        for (class, kind, body) in options(&raw[..raw_len]) {
            match self.by_option.get(&(class, kind)).map(|n| &self.entries[*n]) {
                Some((b, at)) if usize::from(b.len) == body.len() => {
                    t.opts[*at..at + body.len()].copy_from_slice(body);
                    t.opts_present |= 1 << b.index;
                }
                _ => critical |= kind & 0x80 != 0,
            }
        }
        critical
    }

    /// The raw options for the bound fields present in `t`, in order of their field numbers.
    pub fn pack(&self, t: &Tunnel, out: &mut Vec<u8>) {
        for i in 0..N_FIELDS as u8 {
            if t.opts_present >> i & 1 == 0 {
                continue;
            }
            let Some((b, at)) = self.by_index.get(&i).map(|n| &self.entries[*n]) else { continue };
            out.extend_from_slice(&b.class.to_be_bytes());
            out.extend_from_slice(&[b.kind, b.len / 4]);
            out.extend_from_slice(&t.opts[*at..at + usize::from(b.len)]);
        }
    }

    /// Masks for raw options: the bodies' masks from the bound fields of `mask`, for the options in `raw`
    /// in their order. Headers are exact.
    pub fn pack_mask(&self, raw: &[u8], mask: &Tunnel, out: &mut Vec<u8>) {
        for (class, kind, body) in options(raw) {
            out.extend_from_slice(&[0xff; 4]);
            let at = out.len();
            out.resize(at + body.len(), 0);
            if let Some((b, from)) = self.by_option.get(&(class, kind)).map(|n| &self.entries[*n])
                && usize::from(b.len) == body.len()
                && mask.opts_present >> b.index & 1 != 0
            {
                out[at..].copy_from_slice(&mask.opts[*from..from + body.len()]);
            }
        }
    }
}

/// Geneve options in `raw`: class, type, body. Stops at the first malformed one.
pub fn options(mut raw: &[u8]) -> impl Iterator<Item = (u16, u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = raw.split_first_chunk::<4>()?;
        let (body, tail) = rest.split_at_checked(usize::from(head[3] & 0x1f) * 4)?;
        raw = tail;
        Some((u16::from_be_bytes([head[0], head[1]]), head[2], body))
    })
}

/// Places of `tun_metadata*` in a match that has no table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TunMd {
    locs: Vec<TunMdLoc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TunMdLoc {
    index: u8,
    at: u16,
    len: u16,
    masked: bool,
}

impl TunMd {
    fn loc(&self, index: u8) -> Option<(usize, usize)> {
        self.locs.iter().find(|l| l.index == index).map(|l| (l.at.into(), l.len.into()))
    }
    fn used(&self) -> usize {
        self.locs.iter().map(|l| usize::from(l.at + l.len)).max().unwrap_or(0)
    }
}

fn flow_loc(table: u32, index: u8) -> Option<(usize, usize)> {
    TlvTable::by_id(table)?.loc(index)
}

fn match_loc(m: &Match, index: u8) -> Option<(usize, usize)> {
    match m.flow.tunnel.tlv_table() {
        0 => m.tun_md.loc(index),
        id => flow_loc(id, index),
    }
}

pub(crate) fn get(flow: &Flow, index: u8, t: &Tunnel) -> FieldValue {
    match flow_loc(flow.tunnel.tlv_table(), index) {
        Some((at, len)) if t.opts_present >> index & 1 != 0 => FieldValue::from_bytes(&t.opts[at..at + len]),
        _ => FieldValue::ZERO,
    }
}

pub(crate) fn set_flow(flow: &mut Flow, index: u8, v: &FieldValue) {
    if let Some((at, len)) = flow_loc(flow.tunnel.tlv_table(), index) {
        flow.tunnel.opts[at..at + len].copy_from_slice(v.bytes(len as u32));
        flow.tunnel.opts_present |= 1 << index;
    }
}

pub(crate) fn unwildcard(mask: &mut Mask, index: u8, bits: &FieldValue) {
    if let Some((at, len)) = flow_loc(mask.0.tunnel.tlv_table(), index) {
        for (m, b) in mask.0.tunnel.opts[at..at + len].iter_mut().zip(bits.bytes(len as u32)) {
            *m |= b;
        }
    }
    mask.0.tunnel.opts_present |= 1 << index;
}

/// Length in bytes of a `tun_metadata` field in a match, 0 if it is not matched.
pub fn match_len(m: &Match, index: u8) -> u32 {
    match_loc(m, index).map_or(0, |(_, len)| len as u32)
}

pub(crate) fn get_match(m: &Match, index: u8) -> (FieldValue, FieldValue) {
    match match_loc(m, index) {
        Some((at, len)) if m.mask.0.tunnel.opts_present >> index & 1 != 0 => {
            let exact = m.tun_md.locs.iter().any(|l| l.index == index && !l.masked);
            let mask = if exact {
                FieldValue::ONES
            } else {
                FieldValue::from_bytes(&m.mask.0.tunnel.opts[at..at + len])
            };
            (FieldValue::from_bytes(&m.flow.tunnel.opts[at..at + len]), mask)
        }
        _ => (FieldValue::ZERO, FieldValue::ZERO),
    }
}

/// Matches on the option bound to `index`: `value` under `mask` (presence only if the mask is zero), or,
/// without value, on its absence.
pub fn set_match(
    m: &mut Match,
    index: u8,
    name: &str,
    value: Option<&FieldValue>,
    mask: &FieldValue,
) -> Result<(), String> {
    let table = m.flow.tunnel.tlv_table();
    let (at, len) = if table != 0 {
        flow_loc(table, index).ok_or_else(|| format!("{name} is not mapped to a tunnel option"))?
    } else {
        if m.mask.0.tunnel.opts_present >> index & 1 != 0 {
            return Err(format!("field {name} set multiple times"));
        }
        let masked = !mask.is_ones(124);
        let sized_by = if masked { *mask } else { value.copied().unwrap_or_default() };
        let len =
            if sized_by == FieldValue::ZERO { 0 } else { sized_by.significant_bytes().min(124) as usize };
        let at = m.tun_md.used();
        if at + len > OPT_SPACE {
            return Err(format!(
                "field {name} exceeds maximum size for tunnel metadata (used {at}, max {OPT_SPACE})"
            ));
        }
        m.tun_md.locs.push(TunMdLoc { index, at: at as u16, len: len as u16, masked });
        (at, len)
    };
    let (flow, wc) = (&mut m.flow.tunnel, &mut m.mask.0.tunnel);
    wc.opts_present |= 1 << index;
    flow.opts_present &= !(1 << index);
    flow.opts[at..at + len].fill(0);
    wc.opts[at..at + len].fill(0);
    if let Some(value) = value {
        flow.opts_present |= 1 << index;
        flow.opts[at..at + len].copy_from_slice(value.and(mask).bytes(len as u32));
        wc.opts[at..at + len].copy_from_slice(mask.bytes(len as u32));
    }
    Ok(())
}

pub(crate) fn set_wild(m: &mut Match, index: u8) {
    if let Some((at, len)) = match_loc(m, index) {
        m.flow.tunnel.opts[at..at + len].fill(0);
        m.mask.0.tunnel.opts[at..at + len].fill(0);
    }
    m.flow.tunnel.opts_present &= !(1 << index);
    m.mask.0.tunnel.opts_present &= !(1 << index);
    m.tun_md.locs.retain(|l| l.index != index);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::FieldId;

    const BIND: TlvBinding = TlvBinding { class: 0xffff, kind: 0x80, len: 4, index: 3 };

    #[test]
    fn raw_options_become_fields_and_back() {
        let table = TlvTable::new(None, &[BIND]).unwrap();
        let raw = [0xff, 0xff, 0x80, 1, 0, 0, 4, 0xd2, 0, 1, 2, 0];
        let mut flow = Flow::zeroed();
        flow.tunnel.flags = TunFlags::UDPIF;
        flow.tunnel.opts[..12].copy_from_slice(&raw);
        flow.tunnel.opts_present = 12;
        assert!(!table.unpack(&mut flow.tunnel));
        assert_eq!(FieldId::TunMetadata3.get(&flow).to_u64(), 1234);
        let mut out = Vec::new();
        table.pack(&flow.tunnel, &mut out);
        assert_eq!(out, raw[..8]);
        FieldId::TunMetadata3.set_flow(&mut flow, &5u64.into());
        assert_eq!(FieldId::TunMetadata3.get(&flow).to_u64(), 5);
        table.retire();
        assert_eq!(FieldId::TunMetadata3.get(&flow).to_u64(), 0);
    }

    #[test]
    fn bad_bindings() {
        let bad = |b: &[TlvBinding]| TlvTable::new(None, b).err();
        assert_eq!(bad(&[TlvBinding { index: 64, ..BIND }]), Some(TlvError::BadIndex));
        assert_eq!(bad(&[TlvBinding { len: 5, ..BIND }]), Some(TlvError::BadLen));
        assert_eq!(bad(&[BIND, TlvBinding { index: 4, ..BIND }]), Some(TlvError::Duplicate));
        let big = |i: u8| TlvBinding { class: 1, kind: i, len: 124, index: i };
        assert_eq!(bad(&[big(1), big(2), big(3)]), Some(TlvError::Full));
    }

    #[test]
    fn a_match_without_table_finds_its_own_places() {
        let mut m = Match::catch_all();
        FieldId::TunMetadata0.set(&0x1234u64.into(), &mut m).unwrap();
        FieldId::TunMetadata9.set_masked(&5u64.into(), &7u64.into(), &mut m).unwrap();
        assert_eq!(FieldId::TunMetadata0.get_match(&m).0.to_u64(), 0x1234);
        assert_eq!(FieldId::TunMetadata9.get_match(&m).1.to_u64(), 7);
        assert_eq!(match_len(&m, 0), 2);
        assert!(FieldId::TunMetadata0.set(&1u64.into(), &mut m).is_err());
        FieldId::TunMetadata0.set_wild(&mut m);
        FieldId::TunMetadata9.set_wild(&mut m);
        assert_eq!(m, Match::catch_all());
    }
}
