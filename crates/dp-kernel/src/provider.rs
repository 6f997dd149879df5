//! [`Dpif`] over messages: a datapath that is not in this process, be it openvswitch.ko or a process of our own.
//!
//! A method is one request and its answer. Upcalls arrive on sockets of their own, each with a thread ([`crate::upcalls`]) that asks
//! the handler, installs the flow of its verdict and sends the packet back with its actions: what a provider in this process does on the
//! thread that received the packet. The datapath and its flows outlive this object and this process.
//!
//! Times of use travel as the machine's monotonic milliseconds and become the clock's here.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ib_base::time::Clock;
use ib_base::vlog::module::{DPIF, DPIF_NETLINK};
use ib_dpif::conntrack::CtControl;
use ib_dpif::meter::{MeterConfig, MeterStats};
use ib_dpif::netlink::{CodecError, Writer};
use ib_dpif::text::{PortNames, format_actions, format_kernel_key, format_key};
use ib_dpif::{
    DpStats, Dpif, DpifClass, DpifError, Execute, FlowDel, FlowInfo, FlowOrigin, FlowPut, FlowStats,
    PortDevice, PortInfo, PortSpec, Ufid, UpcallHandler,
};
use ib_flow::{Flow, Mask, OdpPort, extract};
use ib_sys::netlink::{F_ACK, F_CREATE, F_ECHO, F_EXCL, F_REPLACE};
use parking_lot::Mutex;

use crate::connections::Connections;
use crate::control;
use crate::machine_connections::MachineConnections;
use crate::message::{
    Datapath, FlowAnswer, FlowRequest, Header, Meter, PacketDown, Vport, command, dp_features, omit,
    vport_type, write_meter,
};
use crate::transport::{Family, Transport, UpcallSocket};
use crate::tunnel_device;
use crate::upcalls::Upcalls;

/// One datapath behind a transport.
pub struct RemoteDpif {
    kind: &'static str,
    name: String,
    link: Arc<Link>,
    upcalls: Mutex<Attention>,
    connections: Box<dyn CtControl>,
    /// Keys of the kernel's flows without identifier that were listed, by that which was told in its place.
    nameless: Mutex<HashMap<Ufid, Arc<Flow>>>,
}

/// What becomes of upcalls.
#[derive(Default)]
enum Attention {
    /// Nobody asked for them.
    #[default]
    None,
    /// They wait for a handler.
    Kept(Vec<Box<dyn UpcallSocket>>),
    /// Threads take them to a handler. Dropped to end them.
    Threads(#[allow(dead_code)] Upcalls),
}

/// Processors that are told apart.
const MAX_PROCESSORS: usize = 8192;

/// What the provider and its upcall threads share.
pub(crate) struct Link {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    /// Interface index of the datapath: its name in messages.
    pub(crate) dp_ifindex: AtomicU32,
    /// It is not there any more.
    pub(crate) lost: AtomicBool,
    /// Goes into identifiers of flows.
    pub(crate) seed: u64,
    /// Sockets of upcalls; `userspace` actions name one.
    pub(crate) pids: Mutex<Vec<u32>>,
    /// The datapath chooses among them by processor, not by port.
    pub(crate) per_cpu: bool,
}

/// What goes with a packet that is sent back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// Only to find out whether the actions are taken.
    pub(crate) probe: bool,
    /// As it came with the upcall: fragments that leave are no larger.
    pub(crate) mru: Option<u16>,
    /// As it came with the upcall: what is chosen by hash is chosen alike.
    pub(crate) hash: Option<u64>,
}

/// What the other side's refusal means to a caller who wanted `what`.
fn refused(e: &io::Error, what: &str) -> DpifError {
    let text = format!("{what}: {}", ib_base::errno::strerror(e));
    match e.raw_os_error() {
        Some(2 | 19) => DpifError::NotFound(text),
        Some(17) => DpifError::Exists(text),
        Some(22) => DpifError::Invalid(text),
        Some(28) => DpifError::Full(text),
        Some(errno) => DpifError::Os(errno, text),
        None => DpifError::Os(5, text),
    }
}

pub(crate) fn garbled(e: CodecError) -> DpifError {
    DpifError::Os(71, e.to_string())
}

fn unsayable(e: CodecError) -> DpifError {
    match e {
        CodecError::Unsupported(what) => DpifError::Unsupported(what),
        e => DpifError::Invalid(e.to_string()),
    }
}

impl Link {
    /// A payload: header, then what `fill` appends.
    pub(crate) fn payload(
        &self,
        family: Family,
        command: u8,
        fill: impl FnOnce(&mut Writer) -> Result<(), CodecError>,
    ) -> Result<Vec<u8>, DpifError> {
        let mut w = Writer::new();
        fill(&mut w).map_err(unsayable)?;
        let attributes = w.finish().map_err(unsayable)?;
        let header = Header {
            command,
            version: family.version(),
            dp_ifindex: self.dp_ifindex.load(Ordering::Relaxed),
        };
        Ok([&header.to_bytes()[..], &attributes].concat())
    }

    /// Sends a request that has no answer.
    pub(crate) fn tell(
        &self,
        family: Family,
        command: u8,
        flags: u16,
        what: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), CodecError>,
    ) -> Result<(), DpifError> {
        let payload = self.payload(family, command, fill)?;
        let answer = self.transport.request(family, flags | F_ACK, &payload);
        answer.map(|_| ()).map_err(|e| refused(&e, what))
    }

    /// Sends a request; the attributes of its answer.
    pub(crate) fn ask(
        &self,
        family: Family,
        command: u8,
        flags: u16,
        what: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), CodecError>,
    ) -> Result<Vec<u8>, DpifError> {
        let payload = self.payload(family, command, fill)?;
        let answer = self.transport.request(family, flags | F_ECHO, &payload);
        let answer = answer.map_err(|e| refused(&e, what))?.unwrap_or_default();
        let (_, attributes) = Header::split(&answer).map_err(garbled)?;
        Ok(attributes.to_vec())
    }

    /// Asks for a listing; `visit` gets the attributes of each part.
    pub(crate) fn list(
        &self,
        family: Family,
        what: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), CodecError>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), DpifError> {
        self.dump(family, command::GET, what, fill, visit)
    }

    /// As [`Self::list`], by any command.
    pub(crate) fn dump(
        &self,
        family: Family,
        command: u8,
        what: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), CodecError>,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), DpifError> {
        let payload = self.payload(family, command, fill)?;
        let result = self.transport.dump(family, &payload, &mut |part| {
            if let Ok((_, attributes)) = Header::split(part) {
                visit(attributes);
            }
        });
        result.map_err(|e| refused(&e, what))
    }

    /// The socket for `userspace` actions of a flow of this port.
    pub(crate) fn pid_for(&self, port: u32) -> Option<u32> {
        let pids = self.pids.lock();
        let n = u32::try_from(pids.len()).ok().filter(|n| *n > 0)?;
        pids.get((port % n) as usize).copied()
    }

    /// Sends a packet back with what to do with it.
    pub(crate) fn execute(
        &self,
        packet: &ib_packet::Packet,
        key: &Flow,
        actions: &[ib_dpif::Action],
        sent: &Sent,
    ) -> Result<(), DpifError> {
        let down = PacketDown {
            frame: packet.data(),
            key,
            actions: Some(actions),
            pid: self.pid_for(key.in_port),
            userdata: None,
            probe: sent.probe,
            mru: sent.mru,
            hash: sent.hash,
            exact: self.transport.is_own().then_some(&packet.offload),
        };
        self.tell(Family::Packet, command::EXECUTE, 0, "packet", |w| down.write(w))
    }

    pub(crate) fn flow_put(&self, put: &FlowPut<'_>, probe: bool) -> Result<(), DpifError> {
        // Ours keeps what wildcarded fields are when a flow is made, for people.
        let key = if self.transport.is_own() { put.key.clone() } else { masked(put.key, put.mask) };
        let request = FlowRequest {
            key: Some((&key, Some(put.mask))),
            ufid: put.ufid,
            actions: Some(&put.actions),
            pid: self.pid_for(put.key.in_port),
            clear: put.zero_stats,
            probe,
            exact: self.transport.is_own(),
            ..FlowRequest::default()
        };
        let (command, flags) = match (put.modify, put.create) {
            (false, _) => (command::NEW, F_CREATE | F_EXCL),
            (true, true) if self.transport.is_own() => (command::NEW, F_CREATE | F_REPLACE),
            // The kernel takes this flag for "exclusively", whatever comes with it.
            (true, true) => (command::NEW, 0),
            (true, false) => (command::SET, 0),
        };
        self.tell(Family::Flow, command, flags, "flow", |w| request.write(w))
    }

    fn set_cpu_pids(&self, pids: &[u32]) -> Result<(), DpifError> {
        let features =
            dp_features::UNALIGNED | dp_features::VPORT_PIDS | dp_features::DISPATCH_UPCALL_PER_CPU;
        // One for each processor, as far as that goes: there may be fewer threads.
        let per_cpu_pids = pids.iter().copied().cycle().take(possible_processors().max(pids.len())).collect();
        let request = Datapath { user_features: Some(features), per_cpu_pids, ..Datapath::default() };
        self.tell(Family::Datapath, command::SET, 0, "upcalls by processor", |w| {
            request.write(w);
            Ok(())
        })
    }

    fn set_upcall_pids(&self, port: u32, pids: &[u32]) -> Result<(), DpifError> {
        let request = Vport { port_no: Some(port), upcall_pids: pids.to_vec(), ..Vport::default() };
        self.tell(Family::Vport, command::SET, 0, "upcalls of a port", |w| {
            request.write(w);
            Ok(())
        })
    }
}

/// How many processors there are, or may come to be: the kernel counts from 0 to one less.
fn possible_processors() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text.trim().rsplit(['-', ',']).next().and_then(|n| n.parse::<usize>().ok());
    last.map_or(1, |n| (n + 1).min(MAX_PROCESSORS))
}

/// `key` without what `mask` does not look at.
fn masked(key: &Flow, mask: &Mask) -> Flow {
    let mut out = key.clone();
    out.words_mut().iter_mut().zip(mask.0.words()).for_each(|(k, m)| *k &= m);
    out
}

/// The cache in front of the masks, as commands call it.
const MASKS_CACHE: &str = "masks-cache";

impl RemoteDpif {
    /// Opens sockets for upcalls, and tells the datapath of them.
    fn open_upcalls(&self) -> io::Result<Vec<Box<dyn UpcallSocket>>> {
        let sockets = Upcalls::open(&self.link)?;
        self.tell_pids(&sockets.iter().map(|s| s.pid()).collect::<Vec<_>>());
        Ok(sockets)
    }

    /// Tells the datapath where upcalls go.
    fn tell_pids(&self, pids: &[u32]) {
        *self.link.pids.lock() = pids.iter().copied().filter(|p| *p != 0).collect();
        if self.link.per_cpu
            && let Err(e) = self.link.set_cpu_pids(pids)
        {
            ib_base::vlog_err!(DPIF, "{}: upcalls: {e}", self.full_name());
        }
        for port in self.ports() {
            if let Err(e) = self.link.set_upcall_pids(port.number.0, pids) {
                ib_base::vlog_warn!(DPIF, "{}: {}: {e}", self.full_name(), port.name);
            }
        }
    }

    fn datapath(&self) -> Result<Datapath, DpifError> {
        let answer = self.link.ask(Family::Datapath, command::GET, 0, "datapath", |_| Ok(()))?;
        Datapath::read(&answer).map_err(garbled)
    }

    fn vport(&self, request: &Vport, command: u8, what: &str) -> Result<Vport, DpifError> {
        let answer = self.link.ask(Family::Vport, command, 0, what, |w| {
            request.write(w);
            Ok(())
        })?;
        Vport::read(&answer).map_err(garbled)
    }

    fn info(&self, answer: FlowAnswer) -> FlowInfo {
        let stats = self.stats_of(&answer);
        let (key, mask) = answer.key.unwrap_or_else(|| (Flow::zeroed(), None));
        let mask = mask.unwrap_or_else(|| {
            let mut all = Flow::zeroed();
            all.words_mut().fill(u64::MAX);
            Mask(all)
        });
        let origin = match (self.link.transport.is_own(), answer.ufid) {
            (true, _) => FlowOrigin::UserSpace,
            (false, Some(_)) => FlowOrigin::Kernel,
            (false, None) => FlowOrigin::KernelNameless,
        };
        let key = Arc::new(key);
        let ufid = answer.ufid.unwrap_or_else(|| self.name_flow(&key));
        FlowInfo {
            key,
            mask: Arc::new(mask),
            ufid,
            actions: answer.actions.unwrap_or_else(|| Arc::from([])),
            stats,
            offloaded: answer.offloaded,
            dp_layer: if answer.offloaded { "tcx" } else { "ovs" },
            origin,
            core: answer.core,
        }
    }

    /// An identifier for a flow of the kernel's that has none, by which it can be asked for from now on.
    fn name_flow(&self, key: &Flow) -> Ufid {
        let ufid = ib_dpif::ufid::ufid_of_key(key, self.link.seed);
        self.nameless.lock().entry(ufid).or_insert_with(|| Arc::new(key.clone()));
        ufid
    }

    fn stats_of(&self, answer: &FlowAnswer) -> FlowStats {
        let used_ms = match answer.used_ms {
            0 => 0,
            used => {
                let age = ib_sys::process::monotonic_ms().saturating_sub(used);
                self.link.clock.now().as_ms().saturating_sub(age).max(1)
            }
        };
        FlowStats {
            packets: answer.packets,
            bytes: answer.bytes,
            used_ms,
            tcp_flags: u16::from(answer.tcp_flags),
        }
    }

    /// Makes the device of a tunnel port, or finds it; whether it is new. `None`: this port has none, or the kernel can't make it.
    fn make_tunnel_device(&self, spec: &PortSpec, dst_port: Option<u16>) -> Option<bool> {
        if self.link.transport.is_own() || tunnel_device::kind_of(&spec.name) != Some(spec.kind.as_str()) {
            return None;
        }
        let extensions = spec.options.get("exts").map_or("", String::as_str);
        let extensions: Vec<&str> = extensions.split(',').collect();
        let made = tunnel_device::make(&spec.kind, &spec.name, dst_port.unwrap_or(0), &extensions);
        made.inspect_err(|e| {
            let why = ib_base::errno::strerror(e);
            ib_base::vlog_dbg!(DPIF_NETLINK, "{}: no device of its own: {why}", spec.name);
        })
        .ok()
    }

    /// Says in the log that a flow was refused. Flows that overlap are no news: upcalls race.
    fn report_put(&self, put: &FlowPut<'_>, e: &DpifError) {
        if self.link.transport.is_own() || matches!(e, DpifError::Exists(_)) {
            return;
        }
        let names = PortNames::none();
        let words: Vec<&str> = [(put.create, "[create]"), (put.modify, "[modify]")]
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, word)| *word)
            .collect();
        let words = if put.zero_stats { words.concat() + "[zero]" } else { words.concat() };
        let ufid = put.ufid.map(|ufid| format!("ufid:{ufid} ")).unwrap_or_default();
        ib_base::vlog_warn_rl!(
            DPIF,
            (9999, 5),
            "{}: failed to put{words} ({}) {ufid}{}, actions:{}",
            self.full_name(),
            ib_base::errno::strerror_num(e.errno()),
            format_kernel_key(put.key, Some(put.mask), &names, false),
            format_actions(&put.actions, &names)
        );
    }

    /// As [`Self::report_put`], of a flow that was only named.
    fn report_named(&self, what: &str, name: &FlowDel<'_>, more: &str, e: &DpifError) {
        if self.link.transport.is_own() {
            return;
        }
        let ufid = name.ufid.map(|ufid| format!("ufid:{ufid} ")).unwrap_or_default();
        let key =
            name.key.map_or("<empty>".to_owned(), |key| format_key(key, None, &PortNames::none(), false));
        let why = ib_base::errno::strerror_num(e.errno());
        ib_base::vlog_warn_rl!(
            DPIF,
            (9999, 5),
            "{}: failed to {what} ({why}) {ufid}{key}{more}",
            self.full_name()
        );
    }

    fn one_flow(&self, name: &FlowDel<'_>, command: u8) -> Result<FlowAnswer, DpifError> {
        let nameless = name.ufid.and_then(|ufid| {
            let mut all = self.nameless.lock();
            if command == command::DEL { all.remove(&ufid) } else { all.get(&ufid).cloned() }
        });
        let request = FlowRequest {
            key: nameless.as_deref().or(name.key).map(|key| (key, None)),
            ufid: name.ufid.filter(|_| nameless.is_none()),
            exact: self.link.transport.is_own(),
            ..FlowRequest::default()
        };
        let answer = self.link.ask(Family::Flow, command, 0, "flow", |w| request.write(w))?;
        FlowAnswer::read(&answer).map_err(garbled)
    }

    fn dump_flows(&self, omit: u32, visit: &mut dyn FnMut(FlowAnswer)) {
        let request = FlowRequest { omit, exact: self.link.transport.is_own(), ..FlowRequest::default() };
        // A flow that cannot be read is of a program that this one does not know; it is not ours to judge.
        let done = self.link.list(Family::Flow, "flows", |w| request.write(w), &mut |attributes| {
            if let Ok(answer) = FlowAnswer::read(attributes) {
                visit(answer);
            }
        });
        if let Err(e) = done {
            ib_base::vlog_warn_rl!(DPIF, (60, 60), "{}: {e}", self.full_name());
        }
    }

    fn meter(&self, id: u32, command: u8) -> Result<MeterStats, DpifError> {
        let answer = self.link.ask(Family::Meter, command, 0, "meter", |w| {
            w.put_u32(1, id);
            Ok(())
        })?;
        Meter::read(&answer).map(|m| m.stats).map_err(garbled)
    }

    /// Runs an `appctl` command that the other side has.
    ///
    /// Errors: its complaint.
    pub fn appctl(&self, args: &[&str]) -> Result<String, String> {
        control::appctl(&self.link, args)
    }
}

impl Dpif for RemoteDpif {
    fn kind(&self) -> &str {
        self.kind
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn version(&self) -> String {
        if self.link.transport.is_own() {
            return "<built-in>".to_owned();
        }
        std::fs::read_to_string("/sys/module/openvswitch/version")
            .map_or_else(|_| "<unknown>".to_owned(), |text| text.trim().to_owned())
    }
    fn run(&self) -> bool {
        false
    }

    fn stats(&self) -> DpStats {
        let mut stats = self.datapath().ok().and_then(|dp| dp.stats).unwrap_or_default();
        // Kernels without a cache in front of the masks say so by zeroes.
        stats.cache_hits = stats.cache_hits.filter(|hits| *hits > 0 || self.link.transport.is_own());
        stats
    }
    fn caches(&self) -> Vec<(&'static str, u32)> {
        let size = self.datapath().ok().and_then(|dp| dp.masks_cache_size);
        size.map(|size| (MASKS_CACHE, size)).into_iter().collect()
    }
    fn cache_set_size(&self, name: &str, size: u32) -> Result<(), DpifError> {
        if name != MASKS_CACHE {
            return Err(DpifError::Unsupported("caches"));
        }
        // What is not said of features is taken for none.
        let user_features = self.datapath()?.user_features;
        // The kernel takes powers of two, and 0.
        let size = if size == 0 { 0 } else { size.checked_next_power_of_two().unwrap_or(size) };
        let request = Datapath { masks_cache_size: Some(size), user_features, ..Datapath::default() };
        self.link.tell(Family::Datapath, command::SET, 0, "masks cache", |w| {
            request.write(w);
            Ok(())
        })
    }

    fn port_add(&self, spec: &PortSpec) -> Result<OdpPort, DpifError> {
        if !self.link.transport.is_own() {
            may_be_port(spec)?;
        }
        let (kind, dst_port) = vport_of(&spec.kind, &spec.name);
        let mut request = Vport {
            port_no: spec.number.map(|n| n.0),
            kind: Some(kind),
            dst_port,
            name: Some(spec.name.clone()),
            upcall_pids: self.link.pids.lock().clone(),
            ..Vport::default()
        };
        if request.upcall_pids.is_empty() {
            request.upcall_pids.push(0);
        }
        if self.link.transport.is_own() {
            request.kind_name = Some(spec.kind.clone());
            request.options = spec.options.clone();
        }
        // A tunnel is a device like others where the kernel can make one.
        let made = self.make_tunnel_device(spec, dst_port);
        if made.is_some() {
            (request.kind, request.dst_port) = (Some(vport_type::NETDEV), None);
        }
        let taken = |e: &DpifError| e.errno() == 16 && spec.number.is_some();
        let added = match self.vport(&request, command::NEW, &spec.name) {
            Err(e) if taken(&e) => {
                request.port_no = None;
                self.vport(&request, command::NEW, &spec.name)
            }
            // What is missing is a device.
            Err(DpifError::NotFound(text)) if self.link.transport.is_own() => Err(DpifError::Os(19, text)),
            other => other,
        };
        if let (Err(_), Some(true)) = (&added, made) {
            remove_device(&spec.name);
        }
        let number = added?.port_no.ok_or(CodecError::Malformed("port number")).map_err(garbled)?;
        Ok(OdpPort(number))
    }
    fn port_del(&self, port: OdpPort) -> Result<(), DpifError> {
        let request = Vport { port_no: Some(port.0), ..Vport::default() };
        let found =
            if self.link.transport.is_own() { None } else { self.vport(&request, command::GET, "port").ok() };
        self.link.tell(Family::Vport, command::DEL, 0, "port", |w| {
            request.write(w);
            Ok(())
        })?;
        // The device of a tunnel goes with it; vports of a tunnel's type have taken theirs with them.
        let device = found.filter(|p| p.kind == Some(vport_type::NETDEV)).and_then(|p| p.name);
        if let Some(name) = device.filter(|name| tunnel_device::kind_of(name).is_some()) {
            remove_device(&name);
        }
        Ok(())
    }
    fn ports(&self) -> Vec<PortInfo> {
        let mut ports = Vec::new();
        let listed = self.link.list(Family::Vport, "ports", |_| Ok(()), &mut |attributes| {
            let port = Vport::read(attributes).ok();
            ports.extend(port.and_then(port_info));
        });
        if let Err(e) = listed {
            ib_base::vlog_warn_rl!(DPIF, (60, 60), "{}: {e}", self.full_name());
        }
        ports.sort_by_key(|p| p.number);
        ports
    }
    fn port_by_name(&self, name: &str) -> Option<PortInfo> {
        let request = Vport { name: Some(name.to_owned()), ..Vport::default() };
        self.vport(&request, command::GET, name).ok().and_then(port_info)
    }
    fn port_config(&self, port: OdpPort) -> BTreeMap<String, String> {
        let request = Vport { port_no: Some(port.0), ..Vport::default() };
        let found = self.vport(&request, command::GET, "port");
        if self.link.transport.is_own() {
            return found.map(|p| p.options).unwrap_or_default();
        }
        // A tunnel's device takes packets of any type; the settings are those of the tunnels that share it.
        let is_tunnel =
            found.is_ok_and(|p| port_info(p).is_some_and(|info| tunnel_device::is_kind(&info.kind)));
        let packet_type = is_tunnel.then(|| ("packet_type".to_owned(), "ptap".to_owned()));
        packet_type.into_iter().collect()
    }

    fn port_device(&self, port: OdpPort) -> Option<PortDevice> {
        if self.link.transport.is_own() { control::port_device(&self.link, port) } else { None }
    }

    fn flow_put(&self, put: &FlowPut<'_>) -> Result<(), DpifError> {
        let done = self.link.flow_put(put, false);
        if let Err(e) = &done {
            self.report_put(put, e);
        }
        done
    }
    fn flow_del(&self, del: &FlowDel<'_>) -> Result<FlowStats, DpifError> {
        let gone = self.one_flow(del, command::DEL).map(|a| self.stats_of(&a));
        gone.inspect_err(|e| self.report_named("flow_del", del, "", e))
    }
    fn flow_get(&self, get: &FlowDel<'_>) -> Result<FlowInfo, DpifError> {
        let flow = self.one_flow(get, command::GET).map(|a| self.info(a));
        flow.inspect_err(|e| {
            self.report_named("flow_get", get, ", packets:0, bytes:0, used:never", e);
        })
    }
    fn flow_dump(&self, visit: &mut dyn FnMut(FlowInfo)) {
        self.dump_flows(0, &mut |answer| visit(self.info(answer)));
    }
    fn flow_stats(&self, visit: &mut dyn FnMut(Ufid, FlowStats)) {
        self.dump_flows(omit::KEY | omit::MASK | omit::ACTIONS, &mut |answer| {
            // What has no identifier comes with its key.
            let computed = || answer.key.as_ref().map(|(key, _)| self.name_flow(key));
            if let Some(ufid) = answer.ufid.or_else(computed) {
                visit(ufid, self.stats_of(&answer));
            }
        });
    }
    fn flow_flush(&self) {
        self.nameless.lock().clear();
        let flushed = self.link.tell(Family::Flow, command::DEL, 0, "flows", |_| Ok(()));
        if let Err(e) = flushed {
            ib_base::vlog_warn_rl!(DPIF, (60, 60), "{}: {e}", self.full_name());
        }
    }

    fn meter_set(&self, id: u32, config: &MeterConfig) -> Result<(), DpifError> {
        self.link.tell(Family::Meter, command::METER_SET, 0, "meter", |w| {
            write_meter(w, id, config, None);
            Ok(())
        })
    }
    fn meter_stats(&self, id: u32) -> Result<MeterStats, DpifError> {
        self.meter(id, command::METER_GET)
    }
    fn meter_del(&self, id: u32) -> Result<MeterStats, DpifError> {
        self.meter(id, command::METER_DEL)
    }

    fn has_bonds(&self) -> bool {
        self.link.transport.is_own()
    }
    fn bond_set(&self, id: u32, ports: &[OdpPort]) -> Result<(), DpifError> {
        control::bond_set(&self.link, id, ports)
    }
    fn bond_bytes(&self, id: u32) -> Result<Vec<u64>, DpifError> {
        control::bond_bytes(&self.link, id)
    }
    fn bond_del(&self, id: u32) -> Result<(), DpifError> {
        control::bond_del(&self.link, id)
    }

    fn set_config(&self, other_config: &BTreeMap<String, String>) {
        if self.link.transport.is_own()
            && let Err(e) = control::set_config(&self.link, other_config)
        {
            ib_base::vlog_warn_rl!(DPIF, (60, 60), "{}: {e}", self.full_name());
        }
    }
    fn port_set_config(&self, port: OdpPort, config: &BTreeMap<String, String>) -> Result<(), DpifError> {
        if self.link.transport.is_own() { control::port_set_config(&self.link, port, config) } else { Ok(()) }
    }
    fn makes_devices(&self) -> bool {
        true
    }
    fn terminates_tunnels(&self) -> bool {
        self.link.transport.is_own()
    }

    fn takes(&self, flow: &FlowPut<'_>) -> Option<bool> {
        if self.link.transport.is_own() {
            return None;
        }
        let taken = match self.link.flow_put(flow, true) {
            Err(DpifError::Exists(_)) => return Some(true),
            taken => taken.is_ok(),
        };
        if taken && let Err(e) = self.one_flow(&FlowDel { ufid: flow.ufid, key: None }, command::DEL) {
            ib_base::vlog_warn!(DPIF, "{}: a probe stays: {e}", self.full_name());
        }
        Some(taken)
    }

    fn execute(&self, execute: Execute<'_>) -> Result<(), DpifError> {
        let mut key = Flow::zeroed();
        extract(&execute.packet, execute.md, &mut key);
        self.link.execute(
            &execute.packet,
            &key,
            execute.actions,
            &Sent { probe: execute.probe, ..Sent::default() },
        )
    }

    fn set_upcall_handler(&self, handler: Option<Arc<dyn UpcallHandler>>) {
        let mut upcalls = self.upcalls.lock();
        let Some(handler) = handler else {
            let was_open = !matches!(std::mem::take(&mut *upcalls), Attention::None);
            if was_open {
                self.tell_pids(&[0]);
            }
            return;
        };
        // The old threads end first: no upcall is asked of two handlers.
        let started = match std::mem::take(&mut *upcalls) {
            Attention::Kept(sockets) => Ok(sockets),
            Attention::None | Attention::Threads(_) => self.open_upcalls(),
        };
        match started.and_then(|sockets| Upcalls::start(&self.link, sockets, &handler)) {
            Ok(threads) => *upcalls = Attention::Threads(threads),
            Err(e) => {
                ib_base::vlog_err!(DPIF, "{}: upcalls: {e}", self.full_name());
                self.link.lost.store(true, Ordering::Relaxed);
                self.tell_pids(&[0]);
            }
        }
    }
    fn keep_upcalls(&self) {
        let mut upcalls = self.upcalls.lock();
        *upcalls = Attention::None;
        match self.open_upcalls() {
            Ok(sockets) => *upcalls = Attention::Kept(sockets),
            Err(e) => {
                ib_base::vlog_err!(DPIF, "{}: upcalls: {e}", self.full_name());
                self.link.lost.store(true, Ordering::Relaxed);
            }
        }
    }
    fn is_lost(&self) -> bool {
        // The kernel's does not die.
        self.link.transport.is_own() && self.link.lost.load(Ordering::Relaxed)
    }
    fn attach_again(&self) -> bool {
        // Who has no socket any more is on its own: threads that are left end.
        *self.upcalls.lock() = Attention::None;
        let ask = |command| request_datapath(&self.link, self.kind, command, &self.name, None);
        let found = match ask(command::GET) {
            Err(DpifError::NotFound(_) | DpifError::Os(19, _)) => ask(command::NEW),
            found => found,
        };
        let Ok(id) = found else { return false };
        self.link.dp_ifindex.store(id, Ordering::Relaxed);
        self.link.lost.store(false, Ordering::Relaxed);
        true
    }

    fn conntrack(&self) -> Option<&dyn CtControl> {
        Some(&*self.connections)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn remove_device(name: &str) {
    if let Err(e) = tunnel_device::remove(name) {
        let why = ib_base::errno::strerror(&e);
        ib_base::vlog_warn!(DPIF_NETLINK, "failed to delete device {name}: {why}");
    }
}

/// Whether the kernel can make such a port: of a device that there is, or one of its own.
fn may_be_port(spec: &PortSpec) -> Result<(), DpifError> {
    let name = &spec.name;
    match spec.kind.as_str() {
        "internal" => Ok(()),
        kind if tunnel_device::is_kind(kind) => Ok(()),
        // Of the rest all that counts is that there is a device.
        "system" | "tap" if std::path::Path::new("/sys/class/net").join(name).exists() => Ok(()),
        "system" | "tap" => Err(DpifError::Os(ib_sys::errno::ENODEV, format!("{name}: No such device"))),
        kind => {
            let text = format!("could not create netdev {name} of unknown type {kind}");
            ib_base::vlog_warn!(ib_base::vlog::module::NETDEV, "{text}");
            Err(DpifError::Os(ib_sys::errno::EAFNOSUPPORT, text))
        }
    }
}

/// The kernel's type of a port, and of a tunnel the UDP port, which its device's name ends in.
fn vport_of(kind: &str, name: &str) -> (u32, Option<u16>) {
    let port = name.rsplit('_').next().and_then(|digits| digits.parse().ok());
    match kind {
        "internal" => (vport_type::INTERNAL, None),
        "gre" => (vport_type::GRE, None),
        "vxlan" => (vport_type::VXLAN, port),
        "geneve" => (vport_type::GENEVE, port),
        _ => (vport_type::NETDEV, None),
    }
}

fn port_info(port: Vport) -> Option<PortInfo> {
    let kind = port.kind_name.unwrap_or_else(|| {
        match port.kind {
            Some(vport_type::INTERNAL) => "internal",
            Some(vport_type::GRE) => "gre",
            Some(vport_type::VXLAN) => "vxlan",
            Some(vport_type::GENEVE) => "geneve",
            _ => tunnel_device::kind_of(port.name.as_deref().unwrap_or_default()).unwrap_or("system"),
        }
        .to_owned()
    });
    Some(PortInfo { number: OdpPort(port.port_no?), name: port.name?, kind })
}

/// Asks for a datapath by its name; its number.
fn request_datapath(
    link: &Link,
    kind: &str,
    command: u8,
    name: &str,
    features: Option<u32>,
) -> Result<u32, DpifError> {
    let request = Datapath {
        name: Some(name.to_owned()),
        kind: link.transport.is_own().then(|| kind.to_owned()),
        upcall_pid: (command == command::NEW).then_some(0),
        user_features: features,
        ..Datapath::default()
    };
    let payload = link.payload(Family::Datapath, command, |w| {
        request.write(w);
        Ok(())
    })?;
    let answer = link.transport.request(Family::Datapath, F_ECHO, &payload);
    let answer = answer.map_err(|e| refused(&e, name))?.unwrap_or_default();
    Header::split(&answer).map(|(header, _)| header.dp_ifindex).map_err(garbled)
}

/// The datapaths of one kind behind a transport.
pub struct RemoteClass {
    kind: &'static str,
    transport: Arc<dyn Transport>,
    clock: Clock,
    open: Mutex<BTreeMap<String, Arc<RemoteDpif>>>,
}

impl RemoteClass {
    /// A class of this kind.
    pub fn new(kind: &'static str, transport: Arc<dyn Transport>, clock: &Clock) -> RemoteClass {
        RemoteClass { kind, transport, clock: clock.clone(), open: Mutex::default() }
    }

    /// What carries its messages.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn link(&self, dp_ifindex: u32) -> Link {
        Link {
            transport: Arc::clone(&self.transport),
            clock: self.clock.clone(),
            dp_ifindex: dp_ifindex.into(),
            lost: AtomicBool::new(false),
            seed: u64::from_ne_bytes(ib_sys::random::bytes()),
            pids: Mutex::default(),
            per_cpu: false,
        }
    }

    fn request(&self, command: u8, name: &str, features: Option<u32>) -> Result<u32, DpifError> {
        request_datapath(&self.link(0), self.kind, command, name, features)
    }

    /// As [`Self::request`], with upcalls by processor if the kernel can; tools of Open vSwitch turn that on when they open a
    /// datapath, so it must be so.
    fn request_features(&self, command: u8, name: &str) -> Result<(u32, bool), DpifError> {
        let base = dp_features::UNALIGNED | dp_features::VPORT_PIDS;
        if self.transport.is_own() {
            return self.request(command, name, Some(base)).map(|id| (id, false));
        }
        let found = match self.request(command, name, Some(base | dp_features::DISPATCH_UPCALL_PER_CPU)) {
            Ok(id) => (id, true),
            Err(DpifError::Invalid(_) | DpifError::Os(95, _)) => {
                (self.request(command, name, Some(base))?, false)
            }
            Err(e) => return Err(e),
        };
        let mode = if found.1 { "per-cpu" } else { "per-vport" };
        ib_base::vlog_info!(DPIF_NETLINK, "Datapath dispatch mode: {mode}");
        Ok(found)
    }
}

impl DpifClass for RemoteClass {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn enumerate(&self) -> Vec<String> {
        self.try_enumerate().unwrap_or_default()
    }
    fn try_enumerate(&self) -> Result<Vec<String>, DpifError> {
        let mut names = Vec::new();
        self.link(0).list(Family::Datapath, "datapaths", |_| Ok(()), &mut |attributes| {
            let dp = Datapath::read(attributes).ok();
            let ours = dp.filter(|dp| dp.kind.as_ref().is_none_or(|kind| kind == self.kind));
            names.extend(ours.and_then(|dp| dp.name));
        })?;
        names.sort();
        Ok(names)
    }
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dpif>, DpifError> {
        let mut open = self.open.lock();
        if let Some(dp) = open.get(name) {
            return Ok(Arc::clone(dp) as Arc<dyn Dpif>);
        }
        let (dp_ifindex, per_cpu) = match self.request(command::GET, name, None) {
            Err(DpifError::NotFound(_)) if create => self.request_features(command::NEW, name)?,
            Err(DpifError::NotFound(text)) => return Err(DpifError::Os(19, text)),
            Err(e) => return Err(e),
            Ok(_) if create => self.request_features(command::SET, name)?,
            Ok(id) => (id, false),
        };
        let link = Arc::new(Link { per_cpu, ..self.link(dp_ifindex) });
        let dp = Arc::new(RemoteDpif {
            kind: self.kind,
            name: name.to_owned(),
            connections: if self.transport.is_own() {
                Box::new(Connections::new(&link))
            } else {
                Box::new(MachineConnections::new(&link))
            },
            link,
            upcalls: Mutex::default(),
            nameless: Mutex::default(),
        });
        open.insert(name.to_owned(), Arc::clone(&dp));
        Ok(dp)
    }
    fn destroy(&self, name: &str) -> Result<(), DpifError> {
        self.open.lock().remove(name);
        self.request(command::DEL, name, None).map(|_| ())
    }
    fn shares_names(&self) -> bool {
        self.transport.is_own()
    }
    fn port_open_kind(&self, interface_type: &str) -> String {
        match interface_type {
            "" => "system",
            // As the user-space datapath calls them wherever it runs.
            "internal" if self.transport.is_own() => "tap",
            other => other,
        }
        .to_owned()
    }
}
