//! A connection table in another process: [`CtControl`] as calls.
//!
//! A call is a message with the method's number and its arguments ([`crate::wire`]); its answer has the result. Listings come in
//! parts. A call that fails is reported in the log, and answered as an empty table would.

use std::sync::Arc;

use ib_base::json::Json;
use ib_base::vlog::module::DPIF;
use ib_base::vlog_warn_rl;
use ib_dpif::conntrack::{
    CtControl, CtEntry, CtExpectation, CtFilter, CtTimeouts, CtZoneLimit, FragList, FragStatus,
};
use ib_dpif::ct_saved::CtSaved;
use ib_dpif::netlink::attributes;

use crate::control::{attr, command};
use crate::provider::Link;
use crate::transport::Family;
use crate::wire::Wire;

/// Numbers of methods.
#[allow(missing_docs)]
pub mod method {
    pub const DUMP: u32 = 1;
    pub const EXPECTATIONS: u32 = 2;
    pub const FLUSH: u32 = 3;
    pub const SAVE: u32 = 4;
    pub const RESTORE: u32 = 5;
    pub const N_CONNS: u32 = 6;
    pub const MAX_CONNS: u32 = 7;
    pub const SET_MAX_CONNS: u32 = 8;
    pub const TCP_SEQ_CHK: u32 = 9;
    pub const SET_TCP_SEQ_CHK: u32 = 10;
    pub const DEFAULT_LIMIT: u32 = 11;
    pub const SET_DEFAULT_LIMIT: u32 = 12;
    pub const LIMITS: u32 = 13;
    pub const LIMIT: u32 = 14;
    pub const SET_LIMIT: u32 = 15;
    pub const SET_TIMEOUTS: u32 = 16;
    pub const TIMEOUT_POLICY: u32 = 17;
    pub const SWEEP_INTERVAL: u32 = 18;
    pub const SET_SWEEP_INTERVAL: u32 = 19;
    pub const FRAG_STATUS: u32 = 20;
    pub const FRAG_LISTS: u32 = 21;
    pub const SET_FRAG_ENABLED: u32 = 22;
    pub const SET_FRAG_MIN: u32 = 23;
    pub const SET_FRAG_MAX: u32 = 24;
}

/// Items of a listing in one part.
const BATCH: usize = 256;

/// The client's side.
pub(crate) struct Connections(Arc<Link>);

impl Connections {
    pub(crate) fn new(link: &Arc<Link>) -> Connections {
        Connections(Arc::clone(link))
    }

    /// Calls `method`; each part of the answer, read.
    fn parts<T: Wire>(&self, method: u32, args: &impl Wire) -> Vec<T> {
        let mut parts = Vec::new();
        let called = self.0.dump(
            Family::Control,
            command::CONNTRACK,
            "connections",
            |w| {
                w.put_u32(attr::NUMBER, method);
                w.put(attr::DATA, &args.to_bytes());
                Ok(())
            },
            &mut |answer| {
                let data = attributes(answer).flatten().find(|(kind, _)| *kind == attr::DATA);
                parts.extend(data.and_then(|(_, data)| T::from_bytes(data)));
            },
        );
        if let Err(e) = called {
            vlog_warn_rl!(DPIF, (60, 60), "connection tracking: {e}");
        }
        parts
    }
    fn call<T: Wire>(&self, method: u32, args: &impl Wire) -> Option<T> {
        self.parts(method, args).pop()
    }
    fn get<T: Wire + Default>(&self, method: u32) -> T {
        self.call(method, &()).unwrap_or_default()
    }
    fn set(&self, method: u32, args: &impl Wire) {
        self.parts::<()>(method, args);
    }
    fn list<T: Wire>(&self, method: u32, args: &impl Wire) -> Vec<T> {
        self.parts::<Vec<T>>(method, args).into_iter().flatten().collect()
    }
}

impl CtControl for Connections {
    fn dump(&self, zone: Option<u16>) -> Vec<CtEntry> {
        self.list(method::DUMP, &zone)
    }
    fn expectations(&self, zone: Option<u16>) -> Vec<CtExpectation> {
        self.list(method::EXPECTATIONS, &zone)
    }
    fn flush(&self, filter: &CtFilter) -> usize {
        self.call(method::FLUSH, filter).unwrap_or_default()
    }
    fn save(&self, wanted: &dyn Fn(&CtEntry) -> bool) -> Vec<CtSaved> {
        let all: Vec<String> = self.list(method::SAVE, &());
        let all = all.iter().filter_map(|text| CtSaved::from_json(&Json::parse(text).ok()?).ok());
        all.filter(|saved| wanted(&entry_of(saved))).collect()
    }
    fn restore(&self, conn: &CtSaved) -> Result<(), String> {
        let refused: Option<Option<String>> = self.call(method::RESTORE, &conn.to_json().to_string());
        refused.unwrap_or_else(|| Some("the datapath does not answer".to_owned())).map_or(Ok(()), Err)
    }
    fn n_conns(&self) -> u32 {
        self.get(method::N_CONNS)
    }
    fn max_conns(&self) -> u32 {
        self.get(method::MAX_CONNS)
    }
    fn set_max_conns(&self, max: u32) {
        self.set(method::SET_MAX_CONNS, &max);
    }
    fn tcp_seq_chk(&self) -> bool {
        self.get(method::TCP_SEQ_CHK)
    }
    fn set_tcp_seq_chk(&self, on: bool) {
        self.set(method::SET_TCP_SEQ_CHK, &on);
    }
    fn default_limit(&self) -> u32 {
        self.get(method::DEFAULT_LIMIT)
    }
    fn set_default_limit(&self, limit: u32) {
        self.set(method::SET_DEFAULT_LIMIT, &limit);
    }
    fn limits(&self) -> Vec<CtZoneLimit> {
        self.list(method::LIMITS, &())
    }
    fn limit(&self, zone: u16) -> CtZoneLimit {
        self.call(method::LIMIT, &zone).unwrap_or(CtZoneLimit { zone, limit: 0, count: 0 })
    }
    fn set_limit(&self, zone: u16, limit: Option<u32>) {
        self.set(method::SET_LIMIT, &(zone, limit));
    }
    fn set_timeouts(&self, zone: u16, timeouts: Option<CtTimeouts>) {
        self.set(method::SET_TIMEOUTS, &(zone, timeouts));
    }
    fn timeout_policy(&self, zone: u16) -> Option<u32> {
        self.call(method::TIMEOUT_POLICY, &zone).flatten()
    }
    fn sweep_interval_ms(&self) -> u32 {
        self.get(method::SWEEP_INTERVAL)
    }
    fn set_sweep_interval_ms(&self, ms: u32) {
        self.set(method::SET_SWEEP_INTERVAL, &ms);
    }
    fn frag_status(&self) -> FragStatus {
        self.get(method::FRAG_STATUS)
    }
    fn frag_lists(&self) -> Vec<FragList> {
        self.list(method::FRAG_LISTS, &())
    }
    fn set_frag_enabled(&self, v6: bool, on: bool) {
        self.set(method::SET_FRAG_ENABLED, &(v6, on));
    }
    fn set_frag_min(&self, v6: bool, bytes: u32) -> bool {
        self.call(method::SET_FRAG_MIN, &(v6, bytes)).unwrap_or_default()
    }
    fn set_frag_max(&self, max: u32) -> bool {
        self.call(method::SET_FRAG_MAX, &max).unwrap_or_default()
    }
}

/// What a saved connection looks like in a listing, as far as it says.
fn entry_of(saved: &CtSaved) -> CtEntry {
    CtEntry {
        orig: saved.orig,
        reply: saved.reply,
        zone: saved.zone,
        mark: saved.mark,
        label: saved.label,
        timeout_s: saved.left_ms / 1000,
        tcp: None,
        helper: None,
        parent: saved.parent,
        kernel: None,
    }
}

/// The server's side: does a call on `table` and hands each part of its answer to `part`. `None`: no such method, or arguments
/// that are not its own.
pub(crate) fn answer(
    table: &dyn CtControl,
    method: u32,
    args: &[u8],
    part: &mut dyn FnMut(&[u8]),
) -> Option<()> {
    fn args_of<T: Wire>(args: &[u8]) -> Option<T> {
        T::from_bytes(args)
    }
    fn tell(part: &mut dyn FnMut(&[u8]), value: &impl Wire) {
        part(&value.to_bytes());
    }
    fn list<T: Wire + Clone>(part: &mut dyn FnMut(&[u8]), all: &[T]) {
        all.chunks(BATCH).for_each(|some| tell(part, &some.to_vec()));
    }
    match method {
        method::DUMP => list(part, &table.dump(args_of(args)?)),
        method::EXPECTATIONS => list(part, &table.expectations(args_of(args)?)),
        method::FLUSH => tell(part, &table.flush(&args_of(args)?)),
        method::SAVE => {
            let saved = table.save(&|_| true);
            for some in saved.chunks(BATCH / 16) {
                let texts: Vec<String> = some.iter().map(|s| s.to_json().to_string()).collect();
                tell(part, &texts);
            }
        }
        method::RESTORE => {
            let saved = Json::parse(&args_of::<String>(args)?).ok();
            let saved = saved.and_then(|json| CtSaved::from_json(&json).ok())?;
            tell(part, &table.restore(&saved).err());
        }
        method::N_CONNS => tell(part, &table.n_conns()),
        method::MAX_CONNS => tell(part, &table.max_conns()),
        method::SET_MAX_CONNS => table.set_max_conns(args_of(args)?),
        method::TCP_SEQ_CHK => tell(part, &table.tcp_seq_chk()),
        method::SET_TCP_SEQ_CHK => table.set_tcp_seq_chk(args_of(args)?),
        method::DEFAULT_LIMIT => tell(part, &table.default_limit()),
        method::SET_DEFAULT_LIMIT => table.set_default_limit(args_of(args)?),
        method::LIMITS => list(part, &table.limits()),
        method::LIMIT => tell(part, &table.limit(args_of(args)?)),
        method::SET_LIMIT => {
            let (zone, limit) = args_of(args)?;
            table.set_limit(zone, limit);
        }
        method::SET_TIMEOUTS => {
            let (zone, timeouts) = args_of(args)?;
            table.set_timeouts(zone, timeouts);
        }
        method::TIMEOUT_POLICY => tell(part, &table.timeout_policy(args_of(args)?)),
        method::SWEEP_INTERVAL => tell(part, &table.sweep_interval_ms()),
        method::SET_SWEEP_INTERVAL => table.set_sweep_interval_ms(args_of(args)?),
        method::FRAG_STATUS => tell(part, &table.frag_status()),
        method::FRAG_LISTS => list(part, &table.frag_lists()),
        method::SET_FRAG_ENABLED => {
            let (v6, on) = args_of(args)?;
            table.set_frag_enabled(v6, on);
        }
        method::SET_FRAG_MIN => {
            let (v6, bytes) = args_of(args)?;
            tell(part, &table.set_frag_min(v6, bytes));
        }
        method::SET_FRAG_MAX => tell(part, &table.set_frag_max(args_of(args)?)),
        _ => return None,
    }
    Some(())
}
