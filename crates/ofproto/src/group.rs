//! Groups: lists of buckets, of which a packet takes all, one, or the first that is live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ib_base::time::Instant;
use ib_flow::OfPort;
use ib_openflow::error::OfError;
use ib_openflow::message::{
    BUCKET_ALL, BUCKET_FIRST, BUCKET_LAST, Bucket, GroupMod, GroupModCommand, GroupProps, GroupType,
    OFPG_ALL, OFPG_ANY, OFPG_MAX,
};

use crate::flow_mod::Txn;
use crate::ofproto::Ofproto;
use crate::rule::PushStats;

/// Counters of a bucket or group.
#[derive(Debug, Default)]
pub struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Adds.
    pub fn credit(&self, s: &PushStats) {
        self.packets.fetch_add(s.packets, Ordering::Relaxed);
        self.bytes.fetch_add(s.bytes, Ordering::Relaxed);
    }
    /// Packets and bytes.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// One group. Immutable but for its counters: a modification makes a new one.
#[derive(Debug)]
pub struct Group {
    /// Number.
    pub id: u32,
    /// Type.
    pub kind: GroupType,
    /// Buckets, each with its counters.
    pub buckets: Vec<(Bucket, Counts)>,
    /// Selection.
    pub props: GroupProps,
    /// When it was added.
    pub created: Instant,
    /// When it was last changed.
    pub modified: Instant,
    /// Counters of the whole.
    pub counts: Counts,
}

/// Most groups of each type.
pub const MAX_GROUPS: u32 = OFPG_MAX;

impl Ofproto {
    /// A group by number.
    pub fn group(&self, id: u32) -> Option<Arc<Group>> {
        self.groups.read().get(&id).cloned()
    }

    /// Applies a group_mod.
    pub fn group_mod(&self, gm: &GroupMod, now: Instant) -> Result<(), OfError> {
        let mut txn = self.begin(now);
        self.group_mod_in(gm, &mut txn, now)?;
        txn.commit();
        Ok(())
    }

    /// Applies a group_mod as part of a change; flows that go with deleted groups go when that is committed.
    /// Groups themselves change at once: who gives the change up puts the old ones back.
    pub fn group_mod_in(&self, gm: &GroupMod, txn: &mut Txn<'_>, now: Instant) -> Result<(), OfError> {
        let exists = self.groups.read().contains_key(&gm.group_id);
        let watches = |b: &Bucket| b.watch_port != OfPort::NONE || b.watch_group != OFPG_ANY;
        let puts = !matches!(
            gm.command,
            GroupModCommand::Delete | GroupModCommand::InsertBucket | GroupModCommand::RemoveBucket
        );
        if puts && matches!(gm.kind, GroupType::All | GroupType::Indirect) && gm.buckets.iter().any(watches) {
            return Err(OfError::OFPGMFC_WATCH_UNSUPPORTED);
        }
        match gm.command {
            GroupModCommand::Add if exists => Err(OfError::OFPGMFC_GROUP_EXISTS),
            GroupModCommand::Modify if !exists => Err(OfError::OFPGMFC_UNKNOWN_GROUP),
            GroupModCommand::Add | GroupModCommand::Modify | GroupModCommand::AddOrMod => {
                self.put_group(gm, gm.buckets.clone(), now)
            }
            GroupModCommand::Delete => {
                self.delete_groups(gm.group_id, txn);
                Ok(())
            }
            GroupModCommand::InsertBucket | GroupModCommand::RemoveBucket => {
                let old = self.group(gm.group_id).ok_or(OfError::OFPGMFC_UNKNOWN_GROUP)?;
                let buckets: Vec<Bucket> = old.buckets.iter().map(|b| b.0.clone()).collect();
                let buckets = edit_buckets(gm, buckets)?;
                let whole = GroupMod { kind: old.kind, props: old.props.clone(), ..gm.clone() };
                self.put_group(&whole, buckets, now)
            }
        }
    }

    fn put_group(&self, gm: &GroupMod, buckets: Vec<Bucket>, now: Instant) -> Result<(), OfError> {
        if gm.group_id > OFPG_MAX {
            return Err(OfError::OFPGMFC_INVALID_GROUP);
        }
        let mut groups = self.groups.write();
        let old = groups.get(&gm.group_id).cloned();
        let buckets = buckets
            .into_iter()
            .map(|b| {
                let counts = Counts::default();
                let same = old.iter().flat_map(|o| &o.buckets).find(|(o, _)| *o == b);
                if let Some((_, c)) = same {
                    let (packets, bytes) = c.get();
                    counts.credit(&PushStats { packets, bytes, ..PushStats::default() });
                }
                (b, counts)
            })
            .collect();
        let counts = Counts::default();
        if let Some(o) = &old {
            let (packets, bytes) = o.counts.get();
            counts.credit(&PushStats { packets, bytes, ..PushStats::default() });
        }
        let group = Group {
            id: gm.group_id,
            kind: gm.kind,
            buckets,
            props: gm.props.clone(),
            created: old.map_or(now, |o| o.created),
            modified: now,
            counts,
        };
        groups.insert(gm.group_id, Arc::new(group));
        drop(groups);
        self.changed.bump();
        Ok(())
    }

    /// Gives a new group the ages and counters that it had in another switch: of the whole, then of each bucket.
    pub(crate) fn restore_group(&self, id: u32, created: Instant, modified: Instant, stats: &[(u64, u64)]) {
        let mut groups = self.groups.write();
        let Some(old) = groups.get(&id) else { return };
        let counts = |n: usize| {
            let counts = Counts::default();
            let (packets, bytes) = stats.get(n).copied().unwrap_or_default();
            counts.credit(&PushStats { packets, bytes, ..PushStats::default() });
            counts
        };
        let buckets = old.buckets.iter().enumerate().map(|(n, (b, _))| (b.clone(), counts(n + 1))).collect();
        let group = Group {
            id,
            kind: old.kind,
            buckets,
            props: old.props.clone(),
            created,
            modified,
            counts: counts(0),
        };
        groups.insert(id, Arc::new(group));
    }

    /// Deletes a group, or all; flows that use them go as well.
    fn delete_groups(&self, id: u32, txn: &mut Txn<'_>) {
        let gone: Vec<u32> = match id {
            OFPG_ALL => self.groups.read().keys().copied().collect(),
            id => self.groups.read().contains_key(&id).then_some(id).into_iter().collect(),
        };
        if gone.is_empty() {
            return;
        }
        let all = crate::flow_mod::Criteria {
            table: 0xff,
            match_: &ib_classifier::MiniMatch::catch_all(),
            strict: None,
            cookie: 0,
            cookie_mask: 0,
            out_port: ib_flow::OfPort::NONE,
            out_group: OFPG_ANY,
            hidden: true,
        };
        for rule in self.collect(&all, txn.version()).unwrap_or_default() {
            if gone.iter().any(|g| rule.uses_group(*g)) {
                txn.remove(rule, ib_openflow::message::FlowRemovedReason::GroupDelete);
            }
        }
        let mut groups = self.groups.write();
        for g in gone {
            groups.remove(&g);
        }
        drop(groups);
        self.changed.bump();
    }
}

fn edit_buckets(gm: &GroupMod, mut buckets: Vec<Bucket>) -> Result<Vec<Bucket>, OfError> {
    if gm.command == GroupModCommand::RemoveBucket {
        match gm.command_bucket_id {
            BUCKET_ALL => buckets.clear(),
            BUCKET_FIRST => {
                buckets.drain(..buckets.len().min(1));
            }
            BUCKET_LAST => {
                buckets.pop();
            }
            id => {
                let at = buckets.iter().position(|b| b.bucket_id == id);
                buckets.remove(at.ok_or(OfError::OFPGMFC_UNKNOWN_BUCKET)?);
            }
        }
        return Ok(buckets);
    }
    if gm.buckets.iter().any(|b| buckets.iter().any(|o| o.bucket_id == b.bucket_id)) {
        return Err(OfError::OFPGMFC_BUCKET_EXISTS);
    }
    let at = match gm.command_bucket_id {
        BUCKET_FIRST => 0,
        BUCKET_LAST => buckets.len(),
        id => 1 + buckets.iter().position(|b| b.bucket_id == id).ok_or(OfError::OFPGMFC_UNKNOWN_BUCKET)?,
    };
    buckets.splice(at..at, gm.buckets.iter().cloned());
    Ok(buckets)
}
