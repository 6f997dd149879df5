//! The other side of [`crate::unix`]: serves any provider's datapaths to programs that connect.
//!
//! A connection has a thread, which reads a request, does it on the [`Dpif`], and answers; a request that makes no sense is
//! answered with an errno, one that is no message ends its connection, and so does a request of another process than the one that
//! has the place ([`crate::claim`]). A peer that does not read its answers holds up nobody but itself, and is left after
//! [`PATIENCE`]. Connections that listen get the upcalls of one datapath, shared
//! out by a hash of the flow: an upcall is sent without waiting, and one that finds the socket full is lost and counted. While nobody
//! listens to a datapath it has no handler: what misses is dropped, what has a flow goes on.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use ib_base::vlog::module::DPIF;
use ib_base::{vlog_err, vlog_info, vlog_warn};
use ib_dpif::meter::MeterConfig;
use ib_dpif::netlink::{CodecError, Writer, attributes};
use ib_dpif::{
    Dpif, DpifClass, DpifError, Execute, FlowDel, FlowInfo, FlowPut, FlowStats, PortInfo, PortSpec, Ufid,
    Upcall, UpcallHandler, UpcallKind, UpcallVerdict,
};
use ib_flow::{Flow, Mask, Metadata, OdpPort};
use ib_packet::Packet;
use ib_sys::netlink::{self, F_CREATE, F_DUMP, F_REPLACE, Request, text, u32_at};
use ib_sys::seqpacket::{Connection, Listener};
use parking_lot::RwLock;

use crate::claim::Place;
use crate::control::{self, attr};
use crate::message::{
    Datapath, FlowAnswer, FlowRequest, Header, Meter, PacketDown, PacketUp, Vport, command, omit, read_map,
    vport_type, write_meter,
};
use crate::transport::Family;
use crate::unix::{MAX_DATAGRAM, MSG_DONE, MSG_ERROR, PATIENCE, family_of, type_of};
use crate::wire::Wire;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// A listing's datagrams are about so long.
const PART: usize = 32 << 10;

/// Runs an `appctl` command of the serving program: words in, text or complaint out.
pub type Appctl = Arc<dyn Fn(&[String]) -> Result<String, String> + Send + Sync>;

/// Serves a class of datapaths.
pub struct Server {
    classes: Vec<Arc<dyn DpifClass>>,
    appctl: Appctl,
    datapaths: RwLock<BTreeMap<u32, Served>>,
    connections: AtomicUsize,
    place: Place,
}

#[derive(Clone)]
struct Served {
    class: Arc<dyn DpifClass>,
    name: String,
    dpif: Arc<dyn Dpif>,
    listeners: Arc<Listeners>,
}

/// The connections that get a datapath's upcalls.
#[derive(Default)]
struct Listeners {
    all: RwLock<Vec<Arc<Connection>>>,
    /// Upcalls that found no room.
    lost: AtomicU64,
}

impl UpcallHandler for Listeners {
    fn upcall(&self, upcall: &Upcall<'_>) -> UpcallVerdict {
        let (command, data) = match upcall.kind {
            UpcallKind::Miss => (command::MISS, None),
            UpcallKind::Action(data) => (command::ACTION, Some(data)),
        };
        let down = PacketDown {
            frame: upcall.packet.data(),
            key: upcall.key,
            actions: data.and_then(|d| d.actions.as_deref()),
            pid: None,
            userdata: data.map(|d| &*d.userdata),
            probe: false,
            mru: None,
            hash: None,
            exact: Some(&upcall.packet.offload),
        };
        let listeners = self.all.read();
        let n = listeners.len().max(1) as u128;
        let to = usize::try_from(upcall.ufid.0 % n).ok().and_then(|at| listeners.get(at));
        let mut w = Writer::new();
        let sent = down.write(&mut w).is_ok()
            && to.zip(w.finish().ok()).is_some_and(|(to, attributes)| {
                let header = Header { command, version: 1, dp_ifindex: 0 };
                let payload = [&header.to_bytes()[..], &attributes].concat();
                to.send(Request::new(type_of(Family::Packet), 0, &payload).seal(0), false).is_ok()
            });
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        UpcallVerdict { actions: Arc::from([]), install: None, ufid: upcall.ufid }
    }
    fn installed(&self, _ufid: Ufid, _result: Result<(), DpifError>) {}
}

/// Why a request is refused: an errno.
struct Refusal(i32);

impl From<DpifError> for Refusal {
    fn from(e: DpifError) -> Refusal {
        Refusal(e.errno())
    }
}

impl From<CodecError> for Refusal {
    fn from(_: CodecError) -> Refusal {
        Refusal(22)
    }
}

type Answered = Result<(), Refusal>;

const NO_SUCH_DATAPATH: Refusal = Refusal(19);
const INVALID: Refusal = Refusal(22);
const UNSUPPORTED: Refusal = Refusal(95);
const BUSY: Refusal = Refusal(16);

/// Parts of an answer on their way.
struct Answer<'a> {
    connection: &'a Connection,
    header: Header,
    kind: u16,
    seq: u32,
    buf: Vec<u8>,
    failed: Option<io::Error>,
}

impl Answer<'_> {
    /// Appends a part whose attributes `fill` appends.
    fn part(&mut self, fill: impl FnOnce(&mut Writer) -> Result<(), CodecError>) -> Answered {
        let mut w = Writer::new();
        fill(&mut w)?;
        let payload = [&self.header.to_bytes()[..], &w.finish()?].concat();
        let mut message = Request::new(self.kind, 0, &payload);
        self.buf.extend_from_slice(message.seal(self.seq));
        if self.buf.len() >= PART {
            self.flush();
        }
        Ok(())
    }
    fn flush(&mut self) {
        if self.failed.is_none() && !self.buf.is_empty() {
            self.failed = self.connection.send(&self.buf, true).err();
        }
        self.buf.clear();
    }
    /// Ends the answer.
    fn end(mut self, kind: u16, errno: i32) -> io::Result<()> {
        let mut message = Request::new(kind, 0, &(-errno).to_ne_bytes());
        self.buf.extend_from_slice(message.seal(self.seq));
        self.flush();
        self.failed.map_or(Ok(()), Err)
    }
}

impl Server {
    /// A server of datapaths of these classes, none so far.
    pub fn new(classes: Vec<Arc<dyn DpifClass>>, appctl: Appctl) -> Arc<Server> {
        let (datapaths, connections) = (RwLock::default(), AtomicUsize::new(0));
        Arc::new(Server { classes, appctl, datapaths, connections, place: Place::default() })
    }

    /// The datapaths that were made.
    pub fn datapaths(&self) -> Vec<Arc<dyn Dpif>> {
        self.datapaths.read().values().map(|d| Arc::clone(&d.dpif)).collect()
    }

    /// Listens at `path` from now on, on a thread of its own, until the process ends.
    pub fn listen(self: &Arc<Server>, path: &Path) -> io::Result<()> {
        let listener = Listener::bind(path)?;
        let server = Arc::clone(self);
        let accept = move || {
            loop {
                match listener.accept() {
                    Ok(connection) => server.take(connection),
                    Err(e) => {
                        vlog_err!(DPIF, "accept: {}", ib_base::errno::strerror(&e));
                        std::thread::sleep(std::time::Duration::from_secs(1));
                    }
                }
            }
        };
        std::thread::Builder::new().name("accept".into()).spawn(accept).map(|_| ())
    }

    fn take(self: &Arc<Server>, connection: Connection) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            vlog_warn!(DPIF, "more than {MAX_CONNECTIONS} connections: one is refused");
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let server = Arc::clone(self);
        let serve = move || {
            // Who connects and says nothing is not kept.
            let _ = connection.set_send_timeout(PATIENCE);
            let _ = connection.set_receive_timeout(Some(PATIENCE));
            server.serve(&Arc::new(connection));
            server.connections.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(e) = std::thread::Builder::new().name("client".into()).spawn(serve) {
            vlog_err!(DPIF, "thread for a connection: {}", ib_base::errno::strerror(&e));
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn serve(&self, connection: &Arc<Connection>) {
        let Ok(peer) = connection.peer() else { return };
        if ![0, ib_sys::process::uid()].contains(&peer.uid) {
            vlog_warn!(DPIF, "connection of user {} refused", peer.uid);
            return;
        }
        let (mut buf, mut listens_to, mut held) = (Vec::new(), None, None);
        while let Ok(true) = connection.recv(&mut buf, MAX_DATAGRAM, true) {
            let Some(message) = netlink::messages(&buf).next() else { break };
            let Some(family) = family_of(message.kind) else { break };
            let Ok((header, rest)) = Header::split(message.payload) else { break };
            let dump = message.flags & F_DUMP == F_DUMP;
            let mut answer = Answer {
                connection,
                header,
                kind: message.kind,
                seq: message.seq,
                buf: Vec::new(),
                failed: None,
            };
            if held.is_none() {
                match self.place.take(peer.pid) {
                    Ok(place) => held = Some(place),
                    Err(holder) => {
                        vlog_warn!(
                            DPIF,
                            "process {} refused: process {holder} is the control plane",
                            peer.pid
                        );
                        // A peer that is not there any more need not be told.
                        let _ = answer.part(|w| {
                            w.put_u32(attr::NUMBER, holder.cast_unsigned());
                            Ok(())
                        });
                        let _ = answer.end(MSG_ERROR, BUSY.0);
                        break;
                    }
                }
                let _ = connection.set_receive_timeout(None);
            }
            let control = (family == Family::Control).then_some(header.command);
            let done = if control == Some(control::command::ATTACH) {
                Ok(())
            } else if control == Some(control::command::LISTEN) {
                self.add_listener(header.dp_ifindex, connection).map(|to| listens_to = Some(to))
            } else if dump {
                self.dump(family, header, rest, &mut answer)
            } else {
                self.act(family, header, message.flags, rest, &mut answer)
            };
            let ended = match done {
                Ok(()) => answer.end(if dump { MSG_DONE } else { MSG_ERROR }, 0),
                Err(Refusal(errno)) => answer.end(MSG_ERROR, errno),
            };
            if ended.is_err() {
                break;
            }
        }
        if let Some(served) = listens_to.as_ref().and_then(Weak::upgrade) {
            self.remove_listener(&served, connection);
        }
    }

    fn served(&self, header: Header) -> Result<Served, Refusal> {
        self.datapaths.read().get(&header.dp_ifindex).cloned().ok_or(NO_SUCH_DATAPATH)
    }

    fn add_listener(
        &self,
        dp_ifindex: u32,
        connection: &Arc<Connection>,
    ) -> Result<Weak<Listeners>, Refusal> {
        let header = Header { command: 0, version: 1, dp_ifindex };
        let served = self.served(header)?;
        let first = {
            let mut all = served.listeners.all.write();
            all.push(Arc::clone(connection));
            all.len() == 1
        };
        if first {
            vlog_info!(DPIF, "{}: a control plane is there", served.name);
            served.dpif.set_upcall_handler(Some(Arc::clone(&served.listeners) as Arc<dyn UpcallHandler>));
        }
        Ok(Arc::downgrade(&served.listeners))
    }

    fn remove_listener(&self, listeners: &Arc<Listeners>, connection: &Arc<Connection>) {
        let mut all = listeners.all.write();
        all.retain(|c| !Arc::ptr_eq(c, connection));
        if !all.is_empty() {
            return;
        }
        drop(all);
        let datapaths = self.datapaths.read();
        if let Some(served) = datapaths.values().find(|d| Arc::ptr_eq(&d.listeners, listeners)) {
            vlog_info!(DPIF, "{}: the control plane is gone; what has a flow goes on", served.name);
            served.dpif.set_upcall_handler(None);
        }
    }

    fn act(
        &self,
        family: Family,
        header: Header,
        flags: u16,
        attributes: &[u8],
        answer: &mut Answer<'_>,
    ) -> Answered {
        if family == Family::Datapath {
            return self.datapath(header, attributes, answer);
        }
        let served = self.served(header)?;
        let dpif = &*served.dpif;
        match family {
            Family::Vport => vport(dpif, header.command, attributes, answer),
            Family::Flow => flow(dpif, header.command, flags, attributes, answer),
            Family::Packet => packet(dpif, header.command, attributes),
            Family::Meter => meter(dpif, header.command, attributes, answer),
            Family::Control => self.control(dpif, header.command, attributes, answer),
            Family::CtLimit | Family::Datapath => Err(UNSUPPORTED),
        }
    }

    fn datapath(&self, header: Header, attributes: &[u8], answer: &mut Answer<'_>) -> Answered {
        let request = Datapath::read(attributes)?;
        let by_name = |name: &str| {
            let all = self.datapaths.read();
            let of_kind = |d: &Served| request.kind.as_ref().is_none_or(|kind| d.class.kind() == kind);
            all.iter().find(|(_, d)| d.name == name && of_kind(d)).map(|(id, d)| (*id, d.clone()))
        };
        let found = match &request.name {
            Some(name) => by_name(name),
            None => self.datapaths.read().get(&header.dp_ifindex).cloned().map(|d| (header.dp_ifindex, d)),
        };
        let (id, served) = match (header.command, found) {
            (command::NEW, Some(_)) => return Err(Refusal(17)),
            (command::NEW, None) => self.create(request.kind.as_deref(), &request.name.ok_or(INVALID)?)?,
            (_, None) => return Err(NO_SUCH_DATAPATH),
            (command::DEL, Some((id, served))) => {
                self.datapaths.write().remove(&id);
                served.class.destroy(&served.name)?;
                (id, served)
            }
            (command::GET | command::SET, Some(found)) => found,
            _ => return Err(UNSUPPORTED),
        };
        answer.header.dp_ifindex = id;
        tell_datapath(&served, answer)
    }

    fn create(&self, kind: Option<&str>, name: &str) -> Result<(u32, Served), Refusal> {
        let mut all = self.datapaths.write();
        let class =
            self.classes.iter().find(|c| kind.is_none_or(|kind| c.kind() == kind)).ok_or(Refusal(97))?;
        let dpif = class.open(name, true)?;
        let id = all.last_key_value().map_or(0, |(id, _)| *id) + 1;
        let (class, name) = (Arc::clone(class), name.to_owned());
        let served = Served { class, name, dpif, listeners: Arc::default() };
        all.insert(id, served.clone());
        Ok((id, served))
    }

    fn dump(&self, family: Family, header: Header, attributes: &[u8], answer: &mut Answer<'_>) -> Answered {
        if family == Family::Datapath {
            let all = self.datapaths.read().clone();
            for (id, served) in &all {
                answer.header.dp_ifindex = *id;
                tell_datapath(served, answer)?;
            }
            return Ok(());
        }
        let served = self.served(header)?;
        match family {
            Family::Vport => {
                served.dpif.ports().iter().try_for_each(|port| tell_port(&*served.dpif, port, answer))
            }
            Family::Flow => {
                let omitted = FlowAnswer::read(attributes)?.omit;
                if omitted & (omit::KEY | omit::MASK | omit::ACTIONS) != 0 {
                    served.dpif.flow_stats(&mut |ufid, stats| {
                        let flow = FlowRequest {
                            ufid: Some(ufid),
                            stats: Some(to_monotonic(&stats)),
                            ..FlowRequest::default()
                        };
                        // What has no form is not told.
                        let _ = answer.part(|w| flow.write(w));
                    });
                } else {
                    served.dpif.flow_dump(&mut |flow| {
                        let _ = tell_flow(&flow, answer);
                    });
                }
                Ok(())
            }
            Family::Control if header.command == control::command::CONNTRACK => {
                connections(&*served.dpif, attributes, answer)
            }
            _ => Err(UNSUPPORTED),
        }
    }

    fn control(&self, dpif: &dyn Dpif, command: u8, bytes: &[u8], answer: &mut Answer<'_>) -> Answered {
        let (mut number, mut map, mut data, mut words) = (None, BTreeMap::new(), &[][..], Vec::new());
        for attribute in attributes(bytes) {
            match attribute? {
                (attr::NUMBER, data) => number = u32_at(data, 0),
                (attr::MAP, data) => map = read_map(data)?,
                (attr::DATA, bytes) => data = bytes,
                (attr::TEXT, data) => words.push(text(data)),
                _ => {}
            }
        }
        let number = number.ok_or(INVALID);
        match command {
            control::command::SET_CONFIG => dpif.set_config(&map),
            control::command::PORT_SET_CONFIG => dpif.port_set_config(OdpPort(number?), &map)?,
            control::command::PORT_DEVICE => {
                let device = dpif.port_device(OdpPort(number?)).ok_or(Refusal(19))?;
                answer.part(|w| {
                    w.put(attr::DATA, &device.to_bytes());
                    Ok(())
                })?;
            }
            control::command::BOND_SET => {
                let ports = data.as_chunks().0.iter().map(|p| OdpPort(u32::from_ne_bytes(*p)));
                dpif.bond_set(number?, &ports.collect::<Vec<_>>())?;
            }
            control::command::BOND_BYTES => {
                let bytes = dpif.bond_bytes(number?)?;
                let bytes: Vec<u8> = bytes.iter().flat_map(|n| n.to_ne_bytes()).collect();
                answer.part(|w| {
                    w.put(attr::DATA, &bytes);
                    Ok(())
                })?;
            }
            control::command::BOND_DEL => dpif.bond_del(number?)?,
            control::command::APPCTL => {
                let (kind, text) = match (self.appctl)(&words) {
                    Ok(text) => (attr::TEXT, text),
                    Err(text) => (attr::ERROR, text),
                };
                answer.part(|w| {
                    w.put_text(kind, &text);
                    Ok(())
                })?;
            }
            _ => return Err(UNSUPPORTED),
        }
        Ok(())
    }
}

fn connections(dpif: &dyn Dpif, bytes: &[u8], answer: &mut Answer<'_>) -> Answered {
    let (mut method, mut args) = (None, &[][..]);
    for attribute in attributes(bytes) {
        match attribute? {
            (attr::NUMBER, data) => method = u32_at(data, 0),
            (attr::DATA, data) => args = data,
            _ => {}
        }
    }
    let table = dpif.conntrack().ok_or(UNSUPPORTED)?;
    let mut told = Ok(());
    crate::connections::answer(table, method.ok_or(INVALID)?, args, &mut |data| {
        let part = answer.part(|w| {
            w.put(attr::DATA, data);
            Ok(())
        });
        if part.is_err() {
            told = part;
        }
    })
    .ok_or(INVALID)?;
    told
}

fn tell_datapath(served: &Served, answer: &mut Answer<'_>) -> Answered {
    let mut stats = served.dpif.stats();
    // For the datapath a packet that was handed on is no loss.
    let lost = served.listeners.lost.load(Ordering::Relaxed);
    (stats.misses, stats.lost) = (stats.misses.saturating_sub(lost), stats.lost + lost);
    let (name, stats) = (Some(served.name.clone()), Some(stats));
    let kind = Some(served.class.kind().to_owned());
    let datapath = Datapath { name, stats, kind, ..Datapath::default() };
    answer.part(|w| {
        datapath.write(w);
        Ok(())
    })
}

fn tell_port(dpif: &dyn Dpif, port: &PortInfo, answer: &mut Answer<'_>) -> Answered {
    let internal = matches!(port.kind.as_str(), "internal" | "tap");
    let vport = Vport {
        port_no: Some(port.number.0),
        kind: Some(if internal { vport_type::INTERNAL } else { vport_type::NETDEV }),
        name: Some(port.name.clone()),
        kind_name: Some(port.kind.clone()),
        options: dpif.port_config(port.number),
        ..Vport::default()
    };
    answer.part(|w| {
        vport.write(w);
        Ok(())
    })
}

/// Times of use travel as the machine's monotonic time: what a clock of this process says is of no use to others.
fn to_monotonic(stats: &FlowStats) -> FlowStats {
    let used_ms = match stats.used_ms {
        0 => 0,
        used => {
            let age = ib_base::time::Clock::new().now().as_ms().saturating_sub(used);
            ib_sys::process::monotonic_ms().saturating_sub(age).max(1)
        }
    };
    FlowStats { used_ms, ..*stats }
}

fn tell_flow(flow: &FlowInfo, answer: &mut Answer<'_>) -> Answered {
    let told = FlowRequest {
        key: Some((&flow.key, Some(&flow.mask))),
        ufid: Some(flow.ufid),
        actions: Some(&flow.actions),
        exact: true,
        stats: Some(to_monotonic(&flow.stats)),
        offloaded: flow.offloaded,
        core: flow.core,
        ..FlowRequest::default()
    };
    answer.part(|w| told.write(w))
}

fn vport(dpif: &dyn Dpif, command: u8, attributes: &[u8], answer: &mut Answer<'_>) -> Answered {
    let request = Vport::read(attributes)?;
    if command == command::NEW {
        let spec = PortSpec {
            name: request.name.ok_or(INVALID)?,
            kind: request.kind_name.unwrap_or_else(|| "system".to_owned()),
            number: request.port_no.map(OdpPort),
            options: request.options,
        };
        let number = dpif.port_add(&spec)?;
        return tell_port(dpif, &PortInfo { number, name: spec.name, kind: spec.kind }, answer);
    }
    let port = match (&request.name, request.port_no) {
        (Some(name), _) => dpif.port_by_name(name),
        (None, Some(number)) => dpif.ports().into_iter().find(|p| p.number.0 == number),
        (None, None) => return Err(INVALID),
    };
    let port = port.ok_or(Refusal(19))?;
    match command {
        command::DEL => dpif.port_del(port.number)?,
        command::GET | command::SET => {}
        _ => return Err(UNSUPPORTED),
    }
    tell_port(dpif, &port, answer)
}

fn flow(dpif: &dyn Dpif, command: u8, flags: u16, attributes: &[u8], answer: &mut Answer<'_>) -> Answered {
    let request = FlowAnswer::read(attributes)?;
    let key = request.key.as_ref().map(|(key, _)| key);
    match command {
        command::NEW | command::SET => {
            let (key, mask) = request.key.as_ref().ok_or(INVALID)?;
            let all;
            let mask = match mask {
                Some(mask) => mask,
                None => {
                    let mut bits = Flow::zeroed();
                    bits.words_mut().fill(u64::MAX);
                    all = Mask(bits);
                    &all
                }
            };
            dpif.flow_put(&FlowPut {
                modify: command == command::SET || flags & F_REPLACE != 0,
                create: command == command::NEW && flags & F_CREATE != 0,
                zero_stats: request.clear,
                key,
                mask,
                ufid: request.ufid,
                actions: request.actions.clone().unwrap_or_else(|| Arc::from([])),
            })?;
        }
        command::DEL if key.is_none() && request.ufid.is_none() => dpif.flow_flush(),
        command::DEL => {
            let stats = dpif.flow_del(&FlowDel { ufid: request.ufid, key })?;
            let told = FlowRequest {
                ufid: request.ufid,
                stats: Some(to_monotonic(&stats)),
                ..FlowRequest::default()
            };
            answer.part(|w| told.write(w))?;
        }
        command::GET => {
            let flow = dpif.flow_get(&FlowDel { ufid: request.ufid, key })?;
            tell_flow(&flow, answer)?;
        }
        _ => return Err(UNSUPPORTED),
    }
    Ok(())
}

fn packet(dpif: &dyn Dpif, command: u8, attributes: &[u8]) -> Answered {
    if command != command::EXECUTE {
        return Err(UNSUPPORTED);
    }
    let up = PacketUp::read(attributes)?;
    let mut packet = Packet::from_frame(up.frame);
    packet.offload = up.offload;
    packet.ethernet = up.key.packet_type.is_zero();
    packet.l3_type = up.key.dl_type;
    let actions = up.actions.clone().unwrap_or_else(|| Arc::from([]));
    dpif.execute(Execute { packet, md: &Metadata::of(&up.key), actions: &actions, probe: up.probe })?;
    Ok(())
}

fn meter(dpif: &dyn Dpif, command: u8, attributes: &[u8], answer: &mut Answer<'_>) -> Answered {
    let meter = Meter::read(attributes)?;
    let id = meter.id.ok_or(INVALID)?;
    let config = MeterConfig { pktps: meter.pktps, bands: meter.bands };
    let stats = match command {
        command::METER_SET => return Ok(dpif.meter_set(id, &config)?),
        command::METER_GET => dpif.meter_stats(id)?,
        command::METER_DEL => dpif.meter_del(id)?,
        _ => return Err(UNSUPPORTED),
    };
    // Counters of bands need bands to stand in.
    let band = ib_dpif::meter::MeterBand { rate: 1, burst: 1 };
    let config = MeterConfig { bands: vec![band; stats.bands.len()], ..config };
    answer.part(|w| {
        write_meter(w, id, &config, Some(&stats));
        Ok(())
    })
}
