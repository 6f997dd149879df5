//! A budget of masks: what bounds the cost of a lookup under a tuple-space explosion.
//!
//! Translation gives each megaflow the widest mask that it can. Packets crafted against a rule set with prefixes on several fields make it
//! give thousands of different ones, and each lookup that misses the caches visits them all. So a port of entry has a budget of masks.
//! While it lasts masks are as wide as they come. When it is spent, a flow for which there is no subtable is *narrowed*: installed
//! under a mask with more bits, which is always right, for a flow says the same about every packet that it matches, and about fewer of
//! them now. Chosen is the widest mask in use that covers the wanted one; if none does, the common refinement of all masks
//! in use: every byte of the key that any of them looks at, whole. Refinements of one kind of packets coincide, so that they add a
//! handful of masks. Were they more than that, flows would no longer be installed.
//!
//! Masks come back into the budget as their last flows go (idle flows do after ten seconds).
//!
//! Who pays is the attacker: his flows now match few packets, and are as many as his packets, which they were before. Cost of narrowing:
//! O(masks of the port), once a flow with a new mask.

use ib_flow::text::mask_for_packet;
use ib_flow::{Flow, Mask};

/// Masks that a port of entry may have before new ones are narrowed.
pub const MASKS_PER_PORT: usize = 128;
/// Masks at which flows with yet another one are refused.
pub const MASKS_PER_PORT_MAX: usize = 2 * MASKS_PER_PORT;

/// Whether `mask` has all the bits of a mask whose words other than zero, with their places, are `wanted`.
fn covers(wanted: &[(usize, u64)], mask: &Mask) -> bool {
    let words = mask.0.words();
    wanted.iter().all(|(at, w)| w & !words[*at] == 0)
}

fn bits(mask: &Mask) -> u32 {
    mask.0.words().iter().map(|w| w.count_ones()).sum()
}

/// For each byte that is not zero, all its bits.
fn whole_bytes(word: u64) -> u64 {
    u64::from_ne_bytes(word.to_ne_bytes().map(|b| if b == 0 { 0 } else { u8::MAX }))
}

/// A mask for the flow of `key` in place of `wanted`: one of those in use, or their common refinement.
pub fn narrow<'a>(in_use: impl Iterator<Item = &'a Mask> + Clone, wanted: &Mask, key: &Flow) -> Mask {
    let words: Vec<(usize, u64)> =
        wanted.0.words().iter().copied().enumerate().filter(|(_, w)| *w != 0).collect();
    if let Some(found) = in_use.clone().filter(|m| covers(&words, m)).min_by_key(|m| bits(m)) {
        return found.clone();
    }
    let mut looked_at = *wanted.0.words();
    for mask in in_use {
        looked_at.iter_mut().zip(mask.0.words()).for_each(|(l, m)| *l |= m);
    }
    // A packet has no bits elsewhere.
    let exact = mask_for_packet(key);
    let mut out = wanted.clone();
    for ((o, l), e) in out.0.words_mut().iter_mut().zip(looked_at).zip(exact.0.words()) {
        *o |= whole_bytes(l) & e;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_base::rng::Rng;
    use ib_dpif::{Action, DpifError, FlowPut, Ufid};
    use ib_flow::OdpPort;
    use ib_packet::{Be16, Be32};
    use std::sync::Arc;

    use crate::table::{FlowTable, View};

    fn key(rng: &mut Rng) -> Flow {
        let mut f = Flow::zeroed();
        f.in_port = 1;
        f.dl_type = Be16::new(0x800);
        f.nw_proto = 17;
        f.nw_src = Be32::new(rng.next_u32());
        f.nw_dst = Be32::new(rng.next_u32() & 0xf);
        f.tp_src = Be16::new(rng.next_u32() as u16);
        f.tp_dst = Be16::new(rng.next_u32() as u16 & 0x7);
        f
    }

    fn prefix(bits: u32, width: u32) -> u32 {
        let all = u32::MAX >> (32 - width);
        all & !(all.checked_shr(bits).unwrap_or(0))
    }

    /// What a table of rules would say: allowed are one source prefix and one port range; the mask has the bits that told.
    fn verdict(key: &Flow) -> (u32, Mask) {
        let mut mask = Mask::default();
        mask.0.in_port = u32::MAX;
        mask.0.dl_type = Be16::MAX;
        let differ = |value: u32, rule: u32, width: u32| {
            let same = (value ^ rule) << (32 - width);
            (same.leading_zeros() + 1).min(width)
        };
        let (src, port) = (key.nw_src.get(), u32::from(key.tp_src.get()));
        let (a, b) = (differ(src, 0x0a0b_0c0d, 32), differ(port, 0x1234, 16));
        mask.0.nw_src = Be32::new(prefix(a, 32));
        mask.0.tp_src = Be16::new(prefix(b, 16) as u16);
        mask.0.nw_dst = Be32::new(key.nw_dst.get() & 1 | 0xffff_fff0);
        (a * 100 + b, mask)
    }

    /// Random packets through a table with a budget: every verdict found is that of translation, and masks stay few.
    #[test]
    fn narrowing_bounds_masks_and_changes_no_verdict() {
        for seed in 1..3 {
            let mut rng = Rng::new(seed);
            let (bounded, free) =
                (Arc::new(FlowTable::new(seed, 100_000)), Arc::new(FlowTable::new(seed, 100_000)));
            let mut view = View::new(&bounded);
            for n in 0..6_000 {
                let mut k = key(&mut rng);
                // Crafted: agrees with the rule in a random number of leading bits.
                let (s, p) = (rng.below(32) as u32, rng.below(16) as u32);
                k.nw_src =
                    Be32::new(0x0a0b_0c0d ^ (1 << (31 - s)) ^ (rng.next_u32() & ((1 << (31 - s)) - 1)));
                k.tp_src = Be16::new(0x1234 ^ (1 << (15 - p)));
                let (said, mask) = verdict(&k);
                if let Some(flow) = view.find(&k) {
                    assert_eq!(*flow.program().actions, [Action::Output(OdpPort(said))]);
                    continue;
                }
                let put = FlowPut {
                    modify: false,
                    create: true,
                    zero_stats: false,
                    key: &k,
                    mask: &mask,
                    ufid: Some(Ufid(n)),
                    actions: Arc::new([Action::Output(OdpPort(said))]),
                };
                let flow = bounded.install(&put).unwrap();
                assert!(flow.matches(k.words()), "the packet that made a flow is in it");
                // There it may have a wide flow already.
                assert!(matches!(free.put(&put), Ok(_) | Err(DpifError::Exists(_))));
            }
            assert!(free.n_masks() > 3 * MASKS_PER_PORT, "{} is no attack", free.n_masks());
            assert!(bounded.n_masks() <= MASKS_PER_PORT + 8, "{} masks", bounded.n_masks());
        }
    }

    #[test]
    fn the_widest_mask_that_covers_is_taken() {
        let mask = |src: u32, dst: u32| {
            let mut m = Mask::default();
            m.0.nw_src = Be32::new(src);
            m.0.nw_dst = Be32::new(dst);
            m
        };
        let key = Flow { dl_type: Be16::new(0x800), ..Flow::zeroed() };
        let used = [mask(0xffff_ffff, 0xffff_0000), mask(0xffff_0000, 0xffff_0000), mask(0xff00_0000, 0)];
        assert_eq!(narrow(used.iter(), &mask(0xfff0_0000, 0xff00_0000), &key), used[1]);
        let refined = narrow(used.iter(), &mask(0xff00_0000, 0xffff_ff00), &key);
        assert_eq!(refined, mask(0xffff_ffff, 0xffff_ff00), "whole bytes of what anyone looks at");
    }
}
