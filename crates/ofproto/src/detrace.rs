//! `ofproto/detrace`: the OpenFlow rules and groups that made a datapath flow.
//!
//! The ukey of a flow keeps what its translation touched, in order, for the sake of counters; that is the answer. A
//! flow that was taken over from an earlier run has nothing recorded until it was translated again. Cost: that
//! of one flow.

use std::fmt::Write;
use std::sync::Arc;

use ib_classifier::AsClsRule;
use ib_dpif::Ufid;
use ib_openflow::group_text::put_bucket;
use ib_openflow::message::Version;
use ib_openflow::names::NO_NAMES;

use crate::switch::Switch;
use crate::xlate::CacheEntry;

/// `ofproto/detrace UFID [pmd=PMD-ID]`
pub(crate) fn detrace(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let ufid = args.first().and_then(|text| parse_ufid(text)).ok_or("failed to parse ufid")?;
    if let Some(pmd) = args.get(1) {
        // Flows are the same on every thread.
        let id = pmd.strip_prefix("pmd=").and_then(|n| n.parse::<u32>().ok());
        id.ok_or("Invalid pmd argument format. Expecting 'pmd=PMD-ID'")?;
    }
    let mut out = String::new();
    for backer in switch.backers.values() {
        let Some(ukey) = backer.ukeys.get(ufid) else { continue };
        let cache = Arc::clone(&ukey.state.lock().cache);
        for entry in cache.iter() {
            describe(entry, &mut out);
        }
    }
    Ok(out)
}

/// A line for what packets are counted in that controllers made.
fn describe(entry: &CacheEntry, out: &mut String) {
    match entry {
        CacheEntry::Rule(rule) => {
            let _ = write!(out, "cookie={:#x}, table={} ", rule.cookie, rule.table);
            let before = out.len();
            if rule.priority() != 0x8000 {
                let _ = write!(out, "priority={}", rule.priority());
            }
            let m = crate::text::match_(&rule.cls().match_(), None);
            for text in [m.as_str(), "actions="] {
                if !text.is_empty() {
                    out.push_str(if out.len() > before { "," } else { "" });
                    out.push_str(text);
                }
            }
            out.push_str(&crate::text::actions(&rule.actions, None));
            out.push('\n');
        }
        CacheEntry::Group(group, chosen) => {
            for (bucket, _) in chosen.iter().filter_map(|i| group.buckets.get(*i)) {
                let _ = write!(out, "group_id={},", group.id);
                put_bucket(out, group.kind, bucket, Version::V15, &NO_NAMES);
                out.push('\n');
            }
        }
        _ => {}
    }
}

/// `ufid:` and 32 digits, grouped or not.
fn parse_ufid(text: &str) -> Option<Ufid> {
    let digits: String = text.strip_prefix("ufid:")?.chars().filter(|c| *c != '-').collect();
    let whole = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(&digits, 16).ok().filter(|_| whole).map(Ufid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_32_digits() {
        let text = "ufid:7460db8f-0000-0000-0000-000000000001";
        assert_eq!(parse_ufid(text), Some(Ufid(0x7460_db8f_0000_0000_0000_0000_0000_0001)));
        assert_eq!(parse_ufid("7460db8f-0000-0000-0000-000000000001"), None);
        assert_eq!(parse_ufid("ufid:7460db8f"), None);
    }
}
