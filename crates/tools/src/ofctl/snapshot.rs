//! What a bridge forwards by, read over OpenFlow from any switch, and given to any.
//!
//! For programs of this crate that take a switch's place. Everything is read whole into values before anything is done with it; a
//! reply that cannot be read is an error, never a shorter list.
//!
//! What OpenFlow does not tell is not here: when a flow was modified (but in Nicira's form of OpenFlow 1.0), when a group was, hidden flows.

use std::ffi::OsString;

use ib_base::json::Json;
use ib_flow::PortMap;
use ib_flow::fields::Protocols;
use ib_openflow::flow_text::format_flow_stats;
use ib_openflow::group_text::{group_line, meter_line};
use ib_openflow::message::*;
use ib_openflow::names::Names;

use super::conn::must_decode;
use super::flows::{fetch_flows, send_bundle};
use super::show::send_all;
use super::{Ctl, Fail, parse};
use crate::io::Io;

const ALL_VERSIONS: &str = "OpenFlow10,OpenFlow11,OpenFlow12,OpenFlow13,OpenFlow14,OpenFlow15";

/// All that one bridge forwards by.
pub struct Pipeline {
    /// Tunnel options.
    pub tlvs: Vec<TlvMap>,
    /// Meters.
    pub meters: Vec<MeterConfig>,
    /// Groups.
    pub groups: Vec<GroupDesc>,
    /// What meters have counted, as far as the switch says so.
    pub meter_stats: Vec<MeterStats>,
    /// What groups have.
    pub group_stats: Vec<GroupStats>,
    /// Flows with their counters.
    pub flows: Vec<FlowStats>,
    /// Ports: number and name.
    pub ports: Vec<(u16, String)>,
    /// The version that they were read with.
    pub version: Version,
}

fn text(f: Fail) -> String {
    match f {
        Fail::Msg(s) | Fail::Text(s) => s.trim_end().to_owned(),
        Fail::Code(code) => format!("exit status {code}"),
    }
}

fn ctl() -> Result<Ctl, String> {
    let args: Vec<OsString> = ["ovs-ofctl", "-O", ALL_VERSIONS].map(OsString::from).to_vec();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { stdin: &mut std::io::empty(), stdout: &mut out, stderr: &mut err };
    parse(&args, "ovs-ofctl", &mut io).map(|(ctl, _)| ctl).map_err(text)
}

/// Reads a bridge.
pub fn take(bridge: &str) -> Result<Pipeline, String> {
    read(&mut ctl()?, bridge).map_err(|e| format!("{bridge}: {}", text(e)))
}

fn read(ctl: &mut Ctl, bridge: &str) -> super::Result<Pipeline> {
    let ports = ctl.fetch_ports(bridge)?.into_iter().map(|p| (p.port_no.0, p.name)).collect();
    let mut conn = ctl.open(bridge)?;
    ctl.set_dump_protocol(&mut conn, Protocols::ANY)?;
    let version = conn.version;
    let mut found = Pipeline {
        tlvs: Vec::new(),
        meters: Vec::new(),
        groups: Vec::new(),
        meter_stats: Vec::new(),
        group_stats: Vec::new(),
        flows: Vec::new(),
        ports,
        version,
    };
    let reply = ctl.transact(&mut conn, &Message::TlvTableRequest)?;
    if let Message::TlvTableReply(table) = must_decode(&reply)?.message {
        found.tlvs = table.maps;
    }
    let multipart = |r| Message::MultipartRequest(r);
    if version >= Version::V13 {
        // A datapath without meters says so.
        let meters = ctl.collect(&mut conn, &multipart(MultipartRequest::MeterConfig(OFPM_ALL)));
        for body in meters.unwrap_or_default() {
            if let MultipartBody::MeterConfig(list) = body {
                found.meters.extend(list);
            }
        }
        let stats = ctl.collect(&mut conn, &multipart(MultipartRequest::Meter(OFPM_ALL)));
        for body in stats.unwrap_or_default() {
            if let MultipartBody::Meter(list) = body {
                found.meter_stats.extend(list);
            }
        }
    }
    for body in ctl.collect(&mut conn, &multipart(MultipartRequest::GroupDesc(OFPG_ALL)))? {
        if let MultipartBody::GroupDesc(list) = body {
            found.groups.extend(list);
        }
    }
    if !found.groups.is_empty() {
        for body in ctl.collect(&mut conn, &multipart(MultipartRequest::Group(OFPG_ALL)))? {
            if let MultipartBody::Group(list) = body {
                found.group_stats.extend(list);
            }
        }
    }
    found.flows = fetch_flows(ctl, &mut conn, FlowStatsRequest::default())?;
    Ok(found)
}

/// Takes all flows, groups and meters from a bridge.
pub fn clear(bridge: &str) -> Result<(), String> {
    let mut ctl = ctl()?;
    let mut clear = || {
        let mut conn = ctl.open(bridge)?;
        if conn.version == Version::V10 {
            ctl.set_dump_protocol(&mut conn, Protocols::ANY)?;
        }
        let delete = FlowMod { command: FlowModCommand::Delete, table_id: 0xff, ..FlowMod::default() };
        send_all(&mut ctl, &mut conn, &Message::FlowMod(Box::new(delete)))?;
        if conn.version >= Version::V11 {
            let group = GroupMod {
                command: GroupModCommand::Delete,
                kind: GroupType::All,
                group_id: OFPG_ALL,
                command_bucket_id: BUCKET_ALL,
                buckets: Vec::new(),
                props: GroupProps::default(),
            };
            send_all(&mut ctl, &mut conn, &Message::GroupMod(group))?;
        }
        Ok(())
    };
    clear().map_err(|e| format!("{bridge}: {}", text(e)))
}

impl Pipeline {
    fn names(&self) -> PortMap {
        let mut map = PortMap::default();
        for (number, name) in &self.ports {
            map.insert(ib_flow::OfPort(*number), name);
        }
        map
    }

    /// `meters`, `groups`, their counters and `flows` as `port-state/restore` takes them (docs/port-state.md).
    pub fn state(&self) -> [(&'static str, Json); 5] {
        let map = self.names();
        let names = Names { ports: Some(&map), tables: None };
        let meters = self.meters.iter().map(|m| Json::from(meter_line(m)));
        let groups = self
            .groups
            .iter()
            .map(|g| Json::from(group_line(g.group_id, g.kind, &g.buckets, &g.props, &names)));
        [
            ("meters", Json::array(meters)),
            ("groups", Json::array(groups)),
            ("meter_stats", Json::array(self.meter_stats.iter().map(meter_past))),
            ("group_stats", Json::array(self.group_stats.iter().map(group_past))),
            ("flows", Json::array(self.flows.iter().map(|f| flow(f, &names)))),
        ]
    }

    /// Gives a bridge without flows and groups all of this, over OpenFlow: counters and ages begin anew.
    pub fn put(&self, bridge: &str) -> Result<(), String> {
        let mut ctl = ctl()?;
        self.put_tlvs(bridge)?;
        self.write(&mut ctl, bridge).map_err(|e| format!("{bridge}: {}", text(e)))
    }

    /// Gives a bridge the tunnel options that it lacks.
    pub fn put_tlvs(&self, bridge: &str) -> Result<(), String> {
        let there = take(bridge)?.tlvs;
        let maps: Vec<TlvMap> = self.tlvs.iter().filter(|m| !there.contains(m)).cloned().collect();
        if maps.is_empty() {
            return Ok(());
        }
        let mut ctl = ctl()?;
        let put = || {
            let mut conn = ctl.open(bridge)?;
            ctl.set_dump_protocol(&mut conn, Protocols::ANY)?;
            send_all(&mut ctl, &mut conn, &Message::TlvTableMod(TlvTableMod { command: 0, maps }))
        };
        put().map_err(|e| format!("{bridge}: tunnel options: {}", text(e)))
    }

    fn write(&self, ctl: &mut Ctl, bridge: &str) -> super::Result<()> {
        let mut conn = ctl.open(bridge)?;
        for meter in &self.meters {
            send_all(ctl, &mut conn, &Message::MeterMod(MeterMod { command: 0, meter: meter.clone() }))?;
        }
        let groups = self.groups.iter().map(|g| {
            Message::GroupMod(GroupMod {
                command: GroupModCommand::Add,
                kind: g.kind,
                group_id: g.group_id,
                command_bucket_id: BUCKET_ALL,
                buckets: g.buckets.clone(),
                props: g.props.clone(),
            })
        });
        let flows = self.flows.iter().map(|f| {
            Message::FlowMod(Box::new(FlowMod {
                match_: f.match_.clone(),
                priority: f.priority,
                table_id: f.table_id,
                command: FlowModCommand::Add,
                new_cookie: f.cookie,
                idle_timeout: f.idle_timeout,
                hard_timeout: f.hard_timeout,
                importance: f.importance,
                flags: f.flags,
                actions: f.actions.clone(),
                ..FlowMod::default()
            }))
        });
        let messages: Vec<Message> = groups.chain(flows).collect();
        if conn.version >= Version::V14 {
            drop(conn);
            return send_bundle(ctl, bridge, messages.into_iter(), Protocols::ANY);
        }
        if conn.version == Version::V10 {
            // NXM, with tables.
            ctl.try_set_protocol(&mut conn, Protocols(8))?;
        }
        messages.iter().try_for_each(|m| send_all(ctl, &mut conn, m))
    }
}

/// A counter; all ones: unknown.
fn count(n: u64) -> Json {
    Json::from(if n == u64::MAX { 0 } else { i64::try_from(n).unwrap_or(i64::MAX) })
}

fn pair((packets, bytes): (u64, u64)) -> Json {
    Json::array([count(packets), count(bytes)])
}

/// An age in milliseconds; all ones: unknown.
fn age_ms(sec: u32, nsec: u32) -> u64 {
    if sec == u32::MAX { 0 } else { u64::from(sec) * 1000 + u64::from(nsec) / 1_000_000 }
}

fn meter_past(m: &MeterStats) -> Json {
    let bands = m.bands.iter().map(|b| (b.packets, b.bytes));
    let counts = std::iter::once((m.packet_in_count, m.byte_in_count)).chain(bands);
    Json::object([
        ("meter", Json::from(m.meter_id)),
        ("age_ms", count(age_ms(m.duration_sec, m.duration_nsec))),
        ("counts", Json::array(counts.map(pair))),
    ])
}

fn group_past(g: &GroupStats) -> Json {
    let counts = std::iter::once((g.packet_count, g.byte_count)).chain(g.buckets.iter().copied());
    let age = age_ms(g.duration_sec, g.duration_nsec);
    Json::object([
        ("group", Json::from(g.group_id)),
        ("age_ms", count(age)),
        ("modified_ms", count(age)),
        ("counts", Json::array(counts.map(pair))),
    ])
}

fn flow(f: &FlowStats, names: &Names<'_>) -> Json {
    let mut line = String::new();
    format_flow_stats(&mut line, f, false, Version::V15, names);
    let age_ms = age_ms(f.duration_sec, f.duration_nsec);
    let ms = |age: Option<u16>, unknown: u64| {
        let known = age.map(|s| (u64::from(s) * 1000).min(age_ms));
        count(known.unwrap_or(unknown))
    };
    Json::object([
        ("flow", Json::from(line)),
        ("packets", count(f.packet_count)),
        ("bytes", count(f.byte_count)),
        ("age_ms", count(age_ms)),
        ("modified_ms", ms(f.hard_age, age_ms)),
        ("idle_ms", ms(f.idle_age, 0)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_keep_what_is_known_of_them() {
        let (f, _) = ib_openflow::flow_text::parse_flow_mod(
            "table=2,cookie=0x7,priority=5,idle_timeout=60,importance=3,send_flow_rem,ip,in_port=1,actions=output:2",
            ib_openflow::flow_text::Purpose::Mod(FlowModCommand::Add),
            Names { ports: None, tables: None },
        )
        .unwrap();
        let stats = FlowStats {
            match_: f.match_,
            cookie: f.new_cookie,
            table_id: f.table_id,
            priority: f.priority,
            idle_timeout: f.idle_timeout,
            importance: f.importance,
            flags: f.flags,
            duration_sec: 9,
            duration_nsec: 500_000_000,
            idle_age: Some(4),
            packet_count: 3,
            byte_count: u64::MAX,
            actions: f.actions,
            ..FlowStats::default()
        };
        let ports = vec![(1, "vm 1".to_owned()), (2, "up".to_owned())];
        let p = Pipeline {
            tlvs: Vec::new(),
            meters: Vec::new(),
            groups: Vec::new(),
            meter_stats: vec![MeterStats {
                meter_id: 3,
                packet_in_count: 9,
                byte_in_count: u64::MAX,
                duration_sec: 4,
                bands: vec![MeterBandStats { packets: 2, bytes: 80 }],
                ..MeterStats::default()
            }],
            group_stats: vec![GroupStats {
                group_id: 5,
                packet_count: 7,
                byte_count: 70,
                duration_sec: u32::MAX,
                buckets: vec![(1, 10), (6, 60)],
                ..GroupStats::default()
            }],
            flows: vec![stats],
            ports,
            version: Version::V15,
        };
        let [_, _, (_, meters), (_, groups), (name, flows)] = p.state();
        let text = |json: &Json| json.to_text(ib_base::json::Style::SORTED);
        assert_eq!(text(&meters), r#"[{"age_ms":4000,"counts":[[9,0],[2,80]],"meter":3}]"#);
        let expect = r#"[{"age_ms":0,"counts":[[7,70],[1,10],[6,60]],"group":5,"modified_ms":0}]"#;
        assert_eq!(text(&groups), expect);
        let expect = r#"[{"age_ms":9500,"bytes":0,"flow":"cookie=0x7, table=2, idle_timeout=60, send_flow_rem importance=3, priority=5,ip,in_port=\"vm 1\" actions=output:up","idle_ms":4000,"modified_ms":9500,"packets":3}]"#;
        assert_eq!((name, flows.to_text(ib_base::json::Style::SORTED).as_str()), ("flows", expect));
    }
}
