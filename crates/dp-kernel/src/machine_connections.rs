//! The machine's connection table as the kernel's datapath uses it: [`CtControl`] by ctnetlink, limits by the family `ovs_ct_limit`,
//! timeouts by cttimeout policies.
//!
//! The table is that of the network namespace, so a flush of everything is what it says. Timeouts of a zone are a policy for each
//! protocol ([`ctnetlink::TIMEOUT_PROTOCOLS`]), which `ct` actions name; a policy that flows still name can't be deleted, so
//! what is left is tried again at the next change. What fails is in the log, and the answer is that of an empty table.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use ib_base::vlog::module::DPIF_NETLINK;
use ib_base::vlog_warn_rl;
use ib_dpif::conntrack::{
    CtControl, CtEntry, CtExpectation, CtFilter, CtTimeouts, CtZoneLimit, FragList, FragStatus,
};
use ib_sys::netlink::{F_ACK, F_CREATE, F_DUMP, F_REPLACE, Message, NETFILTER, Request, Socket};
use parking_lot::Mutex;

use crate::ctnetlink::{self, HEADER, TIMEOUT_PROTOCOLS, TimeoutProtocol, header, kind};
use crate::message::{ZoneLimit, command, read_zone_limits, write_zone_limits};
use crate::provider::Link;
use crate::transport::Family;

/// A listing that changed while it was made is asked for anew so often.
const DUMPS: usize = 3;

/// See the module's description.
pub(crate) struct MachineConnections {
    link: Arc<Link>,
    policies: Mutex<Policies>,
}

/// Timeouts in force.
#[derive(Default)]
struct Policies {
    /// By number.
    by_number: BTreeMap<u32, CtTimeouts>,
    /// Which of them a zone has.
    zones: BTreeMap<u16, u32>,
    /// Names in the kernel that nobody of ours wants.
    unwanted: Vec<String>,
    /// Those that another switch left have been looked for.
    looked: bool,
}

fn complain(what: &str, e: &io::Error) {
    vlog_warn_rl!(DPIF_NETLINK, (60, 60), "{what}: {}", ib_base::errno::strerror(e));
}

fn ask(request: &mut Request, on: impl FnMut(&Message<'_>)) -> io::Result<()> {
    Socket::open(NETFILTER, 0)?.request(request, on)
}

/// All of a listing, each item read by `read`.
fn list<T>(kind: u16, read: impl Fn(&Message<'_>) -> Option<T>) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    for _ in 0..DUMPS {
        all.clear();
        let mut socket = Socket::open(NETFILTER, 0)?;
        socket.request(&mut Request::new(kind, F_DUMP, &header(0)), |m| all.extend(read(m)))?;
        if !socket.was_interrupted() {
            break;
        }
    }
    // A table in motion may never be told whole: what was told last has to do.
    Ok(all)
}

impl MachineConnections {
    pub(crate) fn new(link: &Arc<Link>) -> MachineConnections {
        MachineConnections { link: Arc::clone(link), policies: Mutex::default() }
    }

    fn limits_of(&self, zones: &[ZoneLimit]) -> Vec<ZoneLimit> {
        let answer = self.link.ask(Family::CtLimit, command::LIMIT_GET, 0, "conntrack limits", |w| {
            if !zones.is_empty() {
                write_zone_limits(w, zones);
            }
            Ok(())
        });
        let limits = answer.and_then(|a| read_zone_limits(&a).map_err(crate::provider::garbled));
        limits.unwrap_or_else(|e| {
            vlog_warn_rl!(DPIF_NETLINK, (60, 60), "{e}");
            Vec::new()
        })
    }

    fn change_limit(&self, command: u8, zone: Option<u16>, limit: u32) {
        let done = self.link.tell(Family::CtLimit, command, 0, "conntrack limits", |w| {
            write_zone_limits(w, &[ZoneLimit { zone, limit, count: 0 }]);
            Ok(())
        });
        if let Err(e) = done {
            vlog_warn_rl!(DPIF_NETLINK, (60, 60), "{e}");
        }
    }
}

impl Policies {
    /// The number of a policy with these timeouts; a new one is made in the kernel.
    fn number_of(&mut self, timeouts: CtTimeouts) -> u32 {
        if let Some((id, _)) = self.by_number.iter().find(|(_, t)| **t == timeouts) {
            return *id;
        }
        // 0 stands for the defaults.
        let id = (1..).find(|id| !self.by_number.contains_key(id)).unwrap_or(u32::MAX);
        self.by_number.insert(id, timeouts);
        for protocol in TIMEOUT_PROTOCOLS {
            let name = protocol.policy(id);
            self.unwanted.retain(|unwanted| *unwanted != name);
            let flags = F_CREATE | F_REPLACE | F_ACK;
            if let Err(e) = ask(&mut ctnetlink::timeout_new(flags, id, protocol, &timeouts), |_| {}) {
                complain(&format!("failed to add timeout policy {name}"), &e);
            }
        }
        id
    }

    /// Policies that a switch before us left; they are ours to change and to delete.
    fn look(&mut self) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        let names = list(kind::TIMEOUT_GET, |m| ctnetlink::timeout_name(m.attrs(HEADER)));
        let names = names.unwrap_or_default();
        self.unwanted.extend(names.into_iter().filter(|name| name.starts_with(ctnetlink::POLICY)));
    }

    /// Deletes what nobody wants; what flows still name is busy.
    fn clean(&mut self) {
        self.unwanted.retain(|name| match ask(&mut ctnetlink::timeout_delete(name), |_| {}) {
            Err(e) if e.raw_os_error() == Some(ib_sys::errno::EBUSY) => true,
            Err(e) if e.raw_os_error() == Some(ib_sys::errno::ENOENT) => false,
            Err(e) => {
                complain(&format!("failed to delete timeout policy {name}"), &e);
                false
            }
            Ok(()) => false,
        });
    }
}

impl CtControl for MachineConnections {
    fn dump(&self, zone: Option<u16>) -> Vec<CtEntry> {
        let all = list(kind::CT_GET, |m| {
            ctnetlink::entry(m.attrs(HEADER)).filter(|e| zone.is_none_or(|zone| zone == e.zone))
        });
        all.unwrap_or_else(|e| {
            complain("dumping connections", &e);
            Vec::new()
        })
    }
    fn expectations(&self, _zone: Option<u16>) -> Vec<CtExpectation> {
        Vec::new()
    }
    fn flush(&self, filter: &CtFilter) -> usize {
        if *filter == CtFilter::default() {
            let n = self.dump(None).len();
            if let Err(e) = ask(&mut Request::new(kind::CT_DELETE, F_ACK, &header(0)), |_| {}) {
                complain("flushing connections", &e);
            }
            return n;
        }
        let wanted = self.dump(filter.zone).into_iter().filter(|e| filter.matches(e));
        let deleted = wanted.filter(|e| match ask(&mut ctnetlink::delete(e), |_| {}) {
            Ok(()) => true,
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(ib_sys::errno::ENOENT) => true,
            Err(error) => {
                complain("deleting a connection", &error);
                false
            }
        });
        deleted.count()
    }
    fn has_settings(&self) -> bool {
        false
    }
    fn n_conns(&self) -> u32 {
        0
    }
    fn max_conns(&self) -> u32 {
        0
    }
    fn set_max_conns(&self, _max: u32) {}
    fn tcp_seq_chk(&self) -> bool {
        false
    }
    fn set_tcp_seq_chk(&self, _on: bool) {}
    fn default_limit(&self) -> u32 {
        self.limits_of(&[]).into_iter().find(|l| l.zone.is_none()).map_or(0, |l| l.limit)
    }
    fn set_default_limit(&self, limit: u32) {
        self.change_limit(command::LIMIT_SET, None, limit);
    }
    fn limits(&self) -> Vec<CtZoneLimit> {
        let own = self.limits_of(&[]).into_iter();
        let own = own.filter_map(|l| Some(CtZoneLimit { zone: l.zone?, limit: l.limit, count: l.count }));
        let mut own: Vec<CtZoneLimit> = own.collect();
        own.sort_by_key(|l| l.zone);
        own
    }
    fn limit(&self, zone: u16) -> CtZoneLimit {
        let asked = [ZoneLimit { zone: Some(zone), limit: 0, count: 0 }];
        let answer = self.limits_of(&asked).into_iter().find(|l| l.zone == Some(zone));
        answer.map_or(CtZoneLimit { zone, limit: 0, count: 0 }, |l| CtZoneLimit {
            zone,
            limit: l.limit,
            count: l.count,
        })
    }
    fn set_limit(&self, zone: u16, limit: Option<u32>) {
        match limit {
            Some(limit) => self.change_limit(command::LIMIT_SET, Some(zone), limit),
            None => self.change_limit(command::LIMIT_DEL, Some(zone), 0),
        }
    }
    fn set_timeouts(&self, zone: u16, timeouts: Option<CtTimeouts>) {
        let mut policies = self.policies.lock();
        policies.look();
        let before = match timeouts {
            Some(timeouts) => {
                let id = policies.number_of(timeouts);
                policies.zones.insert(zone, id).filter(|before| *before != id)
            }
            None => policies.zones.remove(&zone),
        };
        if let Some(before) = before
            && !policies.zones.values().any(|id| *id == before)
        {
            policies.by_number.remove(&before);
            policies.unwanted.extend(TIMEOUT_PROTOCOLS.map(|p| p.policy(before)));
        }
        policies.clean();
    }
    fn timeout_policy(&self, zone: u16) -> Option<u32> {
        self.policies.lock().zones.get(&zone).copied()
    }
    fn timeouts_by_protocol(&self) -> bool {
        true
    }
    fn timeout_name(&self, policy: u32, v6: bool, proto: u8) -> Option<String> {
        TimeoutProtocol::of(v6, proto).map(|p| p.policy(policy))
    }
    fn sweep_interval_ms(&self) -> u32 {
        0
    }
    fn set_sweep_interval_ms(&self, _ms: u32) {}
    fn frag_status(&self) -> FragStatus {
        FragStatus::default()
    }
    fn frag_lists(&self) -> Vec<FragList> {
        Vec::new()
    }
    fn set_frag_enabled(&self, _v6: bool, _on: bool) {}
    fn set_frag_min(&self, _v6: bool, _bytes: u32) -> bool {
        false
    }
    fn set_frag_max(&self, _max: u32) -> bool {
        false
    }
}
