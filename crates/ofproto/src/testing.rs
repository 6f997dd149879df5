//! What this crate's tests share: a datapath that only remembers, and a bridge in the tools' notation.

use std::collections::BTreeMap;
use std::sync::Arc;

use ib_base::time::Clock;
use ib_dpif::{
    Departed, DpStats, Dpif, DpifClass, DpifError, Execute, FlowDel, FlowInfo, FlowOrigin, FlowPut,
    FlowStats, LastStats, PortInfo, PortSpec, Ufid, UpcallHandler,
};
use ib_flow::text::parse_match;
use ib_flow::{OdpPort, OfPort};
use ib_openflow::action_parse::parse_instructions;
use ib_openflow::message::FlowMod;
use ib_openflow::names::NO_NAMES;
use parking_lot::Mutex;

use crate::config::{BundleConfig, FailMode, PortConfig};
use crate::flow_mod::Origin;
use crate::switch::Switch;

/// A datapath without packets.
#[derive(Default)]
pub struct FakeDpif {
    ports: Mutex<BTreeMap<u32, PortInfo>>,
    /// Flows by identifier.
    pub flows: Mutex<BTreeMap<Ufid, FlowInfo>>,
    /// Who answers upcalls.
    pub handler: Mutex<Option<Arc<dyn UpcallHandler>>>,
    /// Packets are under way whenever a flow goes.
    pub under_way: Mutex<Option<UnderWay>>,
}

/// What flows that went will have counted in the end; `None`: that is still open.
#[derive(Clone, Default)]
pub struct UnderWay(pub Arc<Mutex<Option<FlowStats>>>);

impl Departed for UnderWay {
    fn settled(&self) -> Option<FlowStats> {
        *self.0.lock()
    }
}

impl Dpif for FakeDpif {
    fn kind(&self) -> &str {
        "dummy"
    }
    fn name(&self) -> &str {
        "ovs-dummy"
    }
    fn version(&self) -> String {
        "<built-in>".into()
    }
    fn run(&self) -> bool {
        false
    }
    fn stats(&self) -> DpStats {
        DpStats { flows: self.flows.lock().len() as u64, ..DpStats::default() }
    }
    fn port_add(&self, spec: &PortSpec) -> Result<OdpPort, DpifError> {
        let mut ports = self.ports.lock();
        let digits: String = spec.name.chars().filter(char::is_ascii_digit).collect();
        let wanted = digits.parse().unwrap_or(0);
        let local = spec.name.starts_with("br");
        let number = if local { 100 + wanted } else { wanted };
        let info = PortInfo { number: OdpPort(number), name: spec.name.clone(), kind: spec.kind.clone() };
        ports.insert(number, info);
        Ok(OdpPort(number))
    }
    fn port_del(&self, port: OdpPort) -> Result<(), DpifError> {
        self.ports.lock().remove(&port.0);
        Ok(())
    }
    fn ports(&self) -> Vec<PortInfo> {
        self.ports.lock().values().cloned().collect()
    }
    fn port_by_name(&self, name: &str) -> Option<PortInfo> {
        self.ports.lock().values().find(|p| p.name == name).cloned()
    }
    fn flow_put(&self, put: &FlowPut<'_>) -> Result<(), DpifError> {
        let mut flows = self.flows.lock();
        let ufid = put.ufid.unwrap_or_default();
        let stats = flows.get(&ufid).map(|f| f.stats).unwrap_or_default();
        let info = FlowInfo {
            key: Arc::new(put.mask.apply(put.key)),
            mask: Arc::new(put.mask.clone()),
            ufid,
            actions: Arc::clone(&put.actions),
            stats,
            offloaded: false,
            dp_layer: "ovs",
            origin: FlowOrigin::default(),
            core: None,
        };
        flows.insert(ufid, info);
        Ok(())
    }
    fn flow_del(&self, del: &FlowDel<'_>) -> Result<FlowStats, DpifError> {
        let flow = self.flows.lock().remove(&del.ufid.unwrap_or_default());
        flow.map(|f| f.stats).ok_or_else(|| DpifError::NotFound("no such flow".into()))
    }
    fn flow_retire(&self, del: &FlowDel<'_>) -> Result<LastStats, DpifError> {
        let late = self.under_way.lock().clone();
        self.flow_del(del).map(|stats| (stats, late.map(|l| Box::new(l) as _)))
    }
    fn flow_get(&self, get: &FlowDel<'_>) -> Result<FlowInfo, DpifError> {
        let flow = self.flows.lock().get(&get.ufid.unwrap_or_default()).cloned();
        flow.ok_or_else(|| DpifError::NotFound("no such flow".into()))
    }
    fn flow_dump(&self, visit: &mut dyn FnMut(FlowInfo)) {
        let flows: Vec<FlowInfo> = self.flows.lock().values().cloned().collect();
        flows.into_iter().for_each(visit);
    }
    fn flow_flush(&self) {
        self.flows.lock().clear();
    }
    fn execute(&self, _: Execute<'_>) -> Result<(), DpifError> {
        Ok(())
    }
    fn set_upcall_handler(&self, handler: Option<Arc<dyn UpcallHandler>>) {
        *self.handler.lock() = handler;
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Opens one [`FakeDpif`].
#[derive(Default)]
pub struct FakeClass(pub Arc<FakeDpif>);

impl DpifClass for FakeClass {
    fn kind(&self) -> &'static str {
        "dummy"
    }
    fn enumerate(&self) -> Vec<String> {
        vec!["ovs-dummy".into()]
    }
    fn open(&self, _: &str, _: bool) -> Result<Arc<dyn Dpif>, DpifError> {
        Ok(Arc::clone(&self.0) as Arc<dyn Dpif>)
    }
    fn destroy(&self, _: &str) -> Result<(), DpifError> {
        Ok(())
    }
    fn port_open_kind(&self, kind: &str) -> String {
        kind.to_owned()
    }
}

/// A switch with bridges, to which flows and ports are added in the tools' notation.
pub struct Lab {
    /// The switch.
    pub switch: Switch,
    /// Its clock.
    pub clock: Clock,
    /// Its datapath.
    pub dpif: Arc<FakeDpif>,
}

impl Lab {
    /// No bridge.
    pub fn new() -> Lab {
        let clock = Clock::simulated();
        let dpif = Arc::new(FakeDpif::default());
        let class = FakeClass(Arc::clone(&dpif));
        let switch = Switch::new(&clock, vec![Arc::new(class)], "/nowhere");
        Lab { switch, clock, dpif }
    }

    /// Adds a bridge with its local port and ports `p1`, `p2`... of these numbers.
    pub fn bridge(mut self, name: &str, ports: &[u16]) -> Lab {
        self.switch.bridge_add(name, "dummy").unwrap();
        self.switch.bridge_mut(name).unwrap().set_fail_mode(FailMode::Secure);
        self.port(name, PortConfig { name: name.into(), kind: "internal".into(), ..PortConfig::default() });
        for n in ports {
            self.port(
                name,
                PortConfig {
                    name: format!("p{n}"),
                    kind: "dummy".into(),
                    ofport_request: Some(OfPort(*n)),
                    ..PortConfig::default()
                },
            );
        }
        self
    }

    /// Adds a port with a bundle of its own.
    pub fn port(&mut self, bridge: &str, config: PortConfig) -> OfPort {
        let b = self.switch.bridge_mut(bridge).unwrap();
        let name = config.name.clone();
        let port = b.port_add(config).unwrap();
        b.bundle_set(BundleConfig { name, ports: vec![port], ..BundleConfig::default() }).unwrap();
        self.switch.publish();
        port
    }

    /// Joins two bridges by patch ports.
    pub fn patch(mut self, a: (&str, &str, u16), b: (&str, &str, u16)) -> Lab {
        for (x, y) in [(a, b), (b, a)] {
            self.port(
                x.0,
                PortConfig {
                    name: x.1.into(),
                    kind: "patch".into(),
                    ofport_request: Some(OfPort(x.2)),
                    options: BTreeMap::from([("peer".to_owned(), y.1.to_owned())]),
                    ..PortConfig::default()
                },
            );
        }
        self
    }

    /// Adds flows, one a line.
    pub fn flows(self, bridge: &str, text: &str) -> Lab {
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let fm = parse_flow(line);
            let now = self.clock.now();
            self.switch
                .bridge(bridge)
                .unwrap()
                .of
                .flow_mod(crate::flow_mod::rule_mod(fm), Origin::default(), now)
                .unwrap();
        }
        self
    }

    /// A control command's answer.
    pub fn appctl(&mut self, command: &str, args: &[&str]) -> String {
        crate::appctl::run(&mut self.switch, command, args).unwrap_or_else(|e| e)
    }

    /// Megaflow and actions of a trace.
    pub fn trace_tail(&mut self, args: &[&str]) -> String {
        let text = self.appctl("ofproto/trace", args);
        let keep = |l: &&str| l.starts_with("Megaflow") || l.starts_with("Datapath");
        text.lines().filter(keep).collect::<Vec<_>>().join("\n")
    }
}

/// A flow in ovs-ofctl's notation, as far as tests need it.
pub fn parse_flow(line: &str) -> FlowMod {
    let mut fm = FlowMod { table_id: 0, ..FlowMod::default() };
    let (matches, actions) = line.split_once("actions=").unwrap_or((line, "drop"));
    fm.actions = parse_instructions(actions.trim(), NO_NAMES).expect(line).0;
    let mut rest = Vec::new();
    for item in matches.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        match item.split_once('=') {
            Some(("table", v)) => fm.table_id = v.parse().expect(line),
            Some(("priority", v)) => fm.priority = v.parse().expect(line),
            Some(("idle_timeout", v)) => fm.idle_timeout = v.parse().expect(line),
            Some(("hard_timeout", v)) => fm.hard_timeout = v.parse().expect(line),
            Some(("cookie", v)) => {
                fm.new_cookie = u64::from_str_radix(v.trim_start_matches("0x"), 16).expect(line);
            }
            _ => rest.push(item),
        }
    }
    fm.match_ = parse_match(&rest.join(","), None).expect(line).0;
    fm
}
