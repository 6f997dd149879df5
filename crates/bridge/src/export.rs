//! Flow export by the database: the NetFlow, sFlow, IPFIX and Flow_Sample_Collector_Set tables.
//!
//! Reading yields what a bridge's exporters are to be; rows without targets count for nothing. The two switches for where a bridge
//! samples for IPFIX read as Open vSwitch reads them: sampling is on unless the column says `true`, whatever its name suggests.

use std::collections::BTreeMap;

use ib_base::vlog_warn;
use ib_export::{ipfix, sflow};
use ib_ofproto::config::{IpfixBridgeConfig, IpfixConfig, IpfixExporterConfig, NetFlowConfig, SflowConfig};
use ib_ovsdb::Uuid;
use ib_ovsdb::idl::Idl;
use ib_ovsdb::idl::vswitch::{Bridge, FlowSampleCollectorSet, IPFIX};

use crate::log::BRIDGE;

/// Most ports that NetFlow can tell apart beside an engine id.
const MAX_MANGLED_PORTS: usize = 508;

/// What a bridge exports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExportDesired {
    /// `netflow`.
    pub netflow: Option<NetFlowConfig>,
    /// `sflow`.
    pub sflow: Option<SflowConfig>,
    /// `ipfix`, and the collector sets of the bridge.
    pub ipfix: IpfixConfig,
    /// Groups of local sampling by collector set.
    pub local: BTreeMap<u32, u32>,
}

fn number(value: Option<i64>, default: u32) -> u32 {
    value.map_or(default, |v| u32::try_from(v).unwrap_or(default))
}

/// Reads what a bridge's row has.
pub(crate) fn read_bridge(row: &Bridge<'_>) -> ExportDesired {
    let netflow = row.netflow().map(|n| NetFlowConfig {
        targets: n.targets().map(str::to_owned).collect(),
        engine_type: n.engine_type().and_then(|v| u8::try_from(v).ok()),
        engine_id: n.engine_id().and_then(|v| u8::try_from(v).ok()),
        active_timeout_s: n.active_timeout(),
        add_id_to_interface: n.add_id_to_interface(),
    });
    let sflow = row.sflow().map(|s| SflowConfig {
        targets: s.targets().map(str::to_owned).collect(),
        sampling: number(s.sampling(), sflow::DEFAULT_SAMPLING),
        polling_s: number(s.polling(), sflow::DEFAULT_POLLING_S),
        header: number(s.header(), sflow::DEFAULT_HEADER),
        agent: s.agent().filter(|a| !a.is_empty()).map(str::to_owned),
        control_ip: row.controller().find_map(|c| c.local_ip().map(str::to_owned)),
        sub_id: 0,
    });
    let bridge = row.ipfix().and_then(|i| {
        let exporter = read_exporter(&i)?;
        let other = i.other_config();
        Some(IpfixBridgeConfig {
            sampling: number(i.sampling(), ipfix::DEFAULT_SAMPLING),
            domain: number(i.obs_domain_id(), 0),
            point: number(i.obs_point_id(), 0),
            input: !other.get_bool("enable-input-sampling", false),
            output: !other.get_bool("enable-output-sampling", false),
            exporter,
        })
    });
    ExportDesired {
        netflow,
        sflow,
        ipfix: IpfixConfig { bridge, flows: BTreeMap::new() },
        local: BTreeMap::new(),
    }
}

/// `None`: it has no targets.
fn read_exporter(row: &IPFIX<'_>) -> Option<IpfixExporterConfig> {
    let targets: Vec<String> = row.targets().map(str::to_owned).collect();
    let other = row.other_config();
    let virtual_obs_id = other.get("virtual_obs_id").map(|id| {
        let end = id.floor_char_boundary(ipfix::MAX_VIRTUAL_OBS_ID);
        id[..end].to_owned()
    });
    let machine = ipfix::Config {
        cache_active_timeout_s: number(row.cache_active_timeout(), 0),
        cache_max_flows: number(row.cache_max_flows(), 0),
        template_interval_s: number(row.template_interval(), ipfix::DEFAULT_INTERVAL_S),
        stats_interval_s: number(row.stats_interval(), ipfix::DEFAULT_INTERVAL_S),
        tunnels: other.get_bool("enable-tunnel-sampling", true),
        virtual_obs_id,
    };
    (!targets.is_empty()).then_some(IpfixExporterConfig { targets, machine })
}

/// Reads collector sets into their bridges.
pub(crate) fn read_collector_sets<'a>(
    idl: &Idl,
    bridges: impl Iterator<Item = (Uuid, &'a mut ExportDesired)>,
) {
    let mut sflows = 0;
    for (uuid, export) in bridges {
        if let Some(sflow) = &mut export.sflow {
            sflow.sub_id = sflows;
            sflows += 1;
        }
        for set in FlowSampleCollectorSet::all(idl.view()) {
            let Ok(id) = u32::try_from(set.id()) else { continue };
            if set.bridge().is_none_or(|b| b.uuid() != uuid) {
                continue;
            }
            if let Some(exporter) = set.ipfix().as_ref().and_then(read_exporter) {
                export.ipfix.flows.insert(id, exporter);
            }
            if let Some(group) = set.local_group_id().and_then(|g| u32::try_from(g).ok()) {
                export.local.insert(id, group);
            }
        }
    }
}

/// Makes a bridge export what is wanted.
pub(crate) fn configure(bridge: &mut ib_ofproto::Bridge, old: &ExportDesired, want: &ExportDesired) {
    let name = bridge.of.name.clone();
    if let Some(netflow) = &want.netflow
        && old.netflow.as_ref() != Some(netflow)
        && netflow.add_id_to_interface
    {
        if netflow.engine_id.is_some_and(|id| id > 0x7f) {
            vlog_warn!(
                BRIDGE,
                "bridge {name}: NetFlow port mangling may conflict with another vswitch, choose an engine id less \
                 than 128"
            );
        }
        if bridge.ports().count() > MAX_MANGLED_PORTS {
            vlog_warn!(
                BRIDGE,
                "bridge {name}: NetFlow port mangling will conflict with another port when more than 508 ports are \
                 used"
            );
        }
    }
    bridge.set_netflow(want.netflow.as_ref());
    bridge.set_sflow(want.sflow.as_ref());
    bridge.set_ipfix(&want.ipfix);
    if !bridge.set_local_sample(&want.local) && old.local != want.local {
        vlog_warn!(
            BRIDGE,
            "bridge {name}: ignoring local sampling configuration: not supported by this datapath"
        );
    }
}
