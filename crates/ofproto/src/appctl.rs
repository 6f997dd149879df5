//! Control commands about bridges: texts in, texts out.
//!
//! [`COMMANDS`] declares them; whoever owns the control socket registers them and calls [`run`]. An `Err` is
//! the text that the client prints before it fails.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ib_dpif::dpctl::format_flow;
use ib_dpif::text::PortNames;
use ib_flow::OfPort;
use ib_packet::Mac;

use crate::backer::Backer;
use crate::ofproto::{BundleId, Ofproto};
use crate::rule::Rule;
use crate::switch::{Bridge, Switch};

/// One command.
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// Arguments, as `list-commands` shows them.
    pub usage: &'static str,
    /// Fewest arguments.
    pub min: usize,
    /// Most arguments.
    pub max: usize,
    run: fn(&mut Switch, &[&str]) -> Result<String, String>,
}

const MANY: usize = usize::MAX;

macro_rules! commands {
    ($($name:literal $usage:literal $min:literal..$max:expr => $f:path;)*) => {
        /// All of them.
        pub static COMMANDS: &[Command] =
            &[$(Command { name: $name, usage: $usage, min: $min, max: $max, run: $f }),*];
    };
}

commands! {
    "autoattach/show-isid" "[bridge]" 0..1 => crate::monitor::auto_attach_isids;
    "autoattach/statistics" "[bridge]" 0..1 => crate::monitor::auto_attach_statistics;
    "autoattach/status" "[bridge]" 0..1 => crate::monitor::auto_attach_status;
    "bfd/set-forwarding" "[interface] normal|false|true" 1..2 => crate::monitor::bfd_force;
    "bfd/show" "[interface]" 0..1 => crate::monitor::bfd_show;
    "bond/disable-member" "port member" 2..2 => crate::bond::disable;
    "bond/disable-slave" "port member" 2..2 => crate::bond::disable;
    "bond/enable-member" "port member" 2..2 => crate::bond::enable;
    "bond/enable-slave" "port member" 2..2 => crate::bond::enable;
    "bond/hash" "mac [vlan] [basis]" 1..3 => crate::bond::hash;
    "bond/list" "" 0..0 => crate::bond::list;
    "bond/migrate" "port hash member" 3..3 => crate::bond::migrate;
    "bond/set-active-member" "port member" 2..2 => crate::bond::set_active;
    "bond/set-active-slave" "port member" 2..2 => crate::bond::set_active;
    "bond/show" "[port]" 0..1 => crate::bond::show;
    "bridge/dump-flows" "[--offload-stats] bridge" 1..2 => dump_openflow;
    "cfm/set-fault" "[interface] normal|false|true" 1..2 => crate::monitor::cfm_force;
    "cfm/show" "[interface]" 0..1 => crate::monitor::cfm_show;
    "dpif/dump-dps" "" 0..0 => dump_dps;
    "dpif/dump-flows" "[-m] [--names | --no-names] bridge" 1..MANY => dump_datapath;
    "dpif/set-dp-features" "[--force] bridge [feature [value]]" 1..4 => set_features;
    "dpif/show" "" 0..0 => show;
    "dpif/show-dp-features" "bridge" 1..1 => show_features;
    "fdb/add" "bridge port vlan mac" 4..4 => fdb_add;
    "fdb/del" "bridge vlan mac" 3..3 => fdb_del;
    "fdb/flush" "[bridge]" 0..1 => fdb_flush;
    "fdb/show" "bridge" 1..1 => fdb_show;
    "fdb/stats-clear" "[bridge]" 0..1 => fdb_stats_clear;
    "fdb/stats-show" "bridge" 1..1 => fdb_stats_show;
    "mdb/flush" "[bridge]" 0..1 => mdb_flush;
    "mdb/show" "bridge" 1..1 => mdb_show;
    "ofproto/detrace" "UFID [pmd=PMD-ID]" 1..2 => crate::detrace::detrace;
    "ofproto/list" "" 0..0 => list;
    "ofproto/list-tunnels" "" 0..0 => list_tunnels;
    "ofproto/trace" "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]" 1..MANY
        => crate::trace_cmd::trace;
    "ofproto/trace-packet-out"
        "[-consistent] {[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet] actions" 2..MANY
        => crate::trace_cmd::trace_packet_out;
    "port-state/announce" "bridge port..." 2..MANY => crate::transfer::announce;
    "port-state/end" "[--undo | --finished | --outcome] session" 1..2 => crate::transfer::end;
    "port-state/forget" "[--address=ADDRESS | --keep=COOKIE[/MASK] | --session=NAME]... bridge port..." 2..MANY
        => crate::transfer::forget;
    "port-state/heard" "bridge port..." 2..MANY => crate::transfer::heard;
    "port-state/restore" "[--check] [--replace] [--session=NAME] bridge state" 2..5 => crate::transfer::restore;
    "port-state/save" "[--zone=ZONE | --address=ADDRESS | --cookie=COOKIE[/MASK] | --only=connections | --session=NAME | --limit=N | --as=PORT=NAME]... bridge port..."
        2..MANY => crate::transfer::save;
    "revalidator/pause" "" 0..0 => pause;
    "revalidator/purge" "" 0..0 => purge;
    "revalidator/resume" "" 0..0 => resume;
    "revalidator/wait" "" 0..0 => wait;
    "lacp/show" "[port]" 0..1 => crate::lacp::show;
    "lacp/show-stats" "[port]" 0..1 => crate::lacp::show_stats;
    "rstp/show" "[bridge]" 0..1 => crate::rstp::show;
    "rstp/tcn" "[bridge]" 0..1 => crate::rstp::force_change;
    "stp/show" "[bridge]" 0..1 => crate::spanning_tree::show;
    "stp/tcn" "[bridge]" 0..1 => crate::spanning_tree::force_change;
    "upcall/disable-megaflows" "" 0..0 => disable_megaflows;
    "upcall/disable-ufid" "" 0..0 => disable_ufid;
    "upcall/enable-megaflows" "" 0..0 => enable_megaflows;
    "upcall/enable-ufid" "" 0..0 => enable_ufid;
    "upcall/set-flow-limit" "flow-limit-number" 1..1 => set_flow_limit;
    "upcall/show" "" 0..0 => upcall_show;
}

/// Runs a command by name. The number of arguments was checked.
pub fn run(switch: &mut Switch, name: &str, args: &[&str]) -> Result<String, String> {
    let command = COMMANDS
        .iter()
        .find(|c| c.name == name)
        .ok_or_else(|| format!("\"{name}\" is not a valid command"))?;
    switch.publish();
    (command.run)(switch, args)
}

fn bridge<'a>(switch: &'a Switch, name: &str) -> Result<&'a Bridge, String> {
    switch.bridge(name).ok_or_else(|| "no such bridge".to_owned())
}

fn list(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    Ok(switch.bridges.keys().map(|n| format!("{n}\n")).collect())
}

fn list_tunnels(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let ports = switch.bridges.values().flat_map(|b| b.ports().map(move |p| (b, p)));
    let mut lines: Vec<(&str, String)> = ports
        .filter_map(|(bridge, p)| {
            let odp = p.odp_in_use(&bridge.backer.tunnels.lock())?;
            let line = crate::tunnel::line(&p.config.name, p.tunnel.as_ref()?, odp);
            Some((p.config.name.as_str(), line))
        })
        .collect();
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

// Flow tables.

/// A rule as `bridge/dump-flows` prints it.
fn rule_line(of: &Ofproto, rule: &Rule, offload: bool, now: ib_base::time::Instant, out: &mut String) {
    let (packets, bytes) = rule.stats();
    if rule.table != 0 {
        let _ = write!(out, "table_id={}, ", rule.table);
    }
    let secs = now.since(rule.created).as_secs();
    let _ = write!(out, "duration={secs}s, n_packets={packets}, n_bytes={bytes}, ");
    if offload {
        out.push_str("n_offload_packets=0, n_offload_bytes=0, ");
    }
    if rule.priority() != 0x8000 {
        let _ = write!(out, "priority={}", rule.priority());
    }
    let m = crate::text::rule_match(rule, of, None);
    if rule.priority() != 0x8000 && !m.is_empty() {
        out.push(',');
    }
    out.push_str(&m);
    let _ = writeln!(out, ",actions={}", crate::text::actions(&rule.actions, None));
}

fn dump_openflow(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let name = args.iter().find(|a| **a != "--offload-stats").copied().unwrap_or_default();
    let offload = args.contains(&"--offload-stats");
    let of = Arc::clone(&bridge(switch, name).map_err(|_| "Unknown bridge".to_owned())?.of);
    let now = switch.clock.now();
    let version = of.current_version();
    let mut out = String::new();
    for table in &of.tables {
        for rule in table.cls.collect_loose(&ib_classifier::MiniMatch::catch_all(), version) {
            rule_line(&of, &rule, offload, now, &mut out);
        }
    }
    Ok(out)
}

// Datapaths.

/// Names of a datapath's ports.
pub(crate) fn port_names(backer: &Backer) -> PortNames {
    let mut names = PortNames::none();
    for p in backer.dpif.ports() {
        names.add(p.number, &p.name);
    }
    names
}

fn dump_dps(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    Ok(switch.bridges.iter().map(|(n, b)| format!("{}@{n}\n", b.backer.kind)).collect())
}

fn dump_datapath(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let (mut more, mut names) = (false, None);
    let (name, options) = args.split_last().ok_or("no such bridge")?;
    for option in options {
        match *option {
            "-m" => more = true,
            "--names" => names = Some(true),
            "--no-names" => names = Some(false),
            // Others mean nothing.
            _ => {}
        }
    }
    let b = bridge(switch, name)?;
    let map = if names.unwrap_or(more) { port_names(&b.backer) } else { PortNames::none() };
    let id = b.of.id;
    let cfg = b.backer.xcfg.load();
    let now_ms = switch.clock.now().as_ms();
    let mut out = String::new();
    b.backer.dpif.flow_dump(&mut |flow| {
        let of_this = cfg.by_odp.get(&flow.key.odp_in_port()).is_some_and(|(bridge, _)| *bridge == id);
        if !of_this {
            return;
        }
        let mut flow = flow;
        flow.dp_layer = "";
        if let (true, Some(ukey)) = (more, b.backer.ukeys.get(flow.ufid)) {
            // The key of the packet that made the flow, wildcarded bits included.
            flow.key = Arc::new(ukey.key.expand());
        }
        let mut line = format_flow(&flow, &map, more, now_ms);
        if more {
            // This dump separates the identifier by a blank and leaves the layer out.
            if line.starts_with("ufid:") {
                line = line.replacen(", ", " ", 1);
            }
            line = line.replacen(", dp:,", ",", 1);
        }
        let _ = writeln!(out, "{line}");
    });
    Ok(out)
}

fn show(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let mut out = String::new();
    for backer in switch.backers.values() {
        let stats = backer.dpif.stats();
        let _ = writeln!(out, "{}: hit:{} missed:{}", backer.dpif.full_name(), stats.hits, stats.misses);
        for (name, b) in &switch.bridges {
            if !Arc::ptr_eq(&b.backer, backer) {
                continue;
            }
            let _ = writeln!(out, "  {name}:");
            let mut ports: Vec<_> = b.ports().collect();
            ports.sort_by(|a, b| a.config.name.cmp(&b.config.name));
            for p in ports {
                let odp = p.odp.map_or("none".to_owned(), |o| o.to_string());
                let _ = write!(out, "    {} {}/{odp}: ({}", p.config.name, p.ofport.0, p.dpif_kind);
                let of_tunnel = p.tunnel.as_ref().map(|t| t.shown()).unwrap_or_default();
                let of_device = p.odp.map(|odp| b.backer.dpif.port_config(odp)).unwrap_or_default();
                let options =
                    p.config.options.iter().filter(|_| p.is_patch()).chain(&of_tunnel).chain(&of_device);
                let text: Vec<String> = options.map(|(k, v)| format!("{k}={v}")).collect();
                if !text.is_empty() {
                    let _ = write!(out, ": {}", text.join(", "));
                }
                out.push_str(")\n");
            }
        }
    }
    Ok(out)
}

fn show_features(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    Ok(bridge(switch, args[0])?.backer.features().show())
}

fn set_features(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let force = args.contains(&"--force");
    let args: Vec<&str> = args.iter().copied().filter(|a| *a != "--force").collect();
    let name = args.first().copied().unwrap_or_default();
    let backer = Arc::clone(&bridge(switch, name)?.backer);
    let mut features = (*backer.features()).clone();
    let text = features.set(&backer.boot_features, args.get(1).copied(), args.get(2).copied(), force)?;
    if features != *backer.features() {
        *backer.features.write() = Arc::new(features);
        for b in switch.bridges.values_mut().filter(|b| Arc::ptr_eq(&b.backer, &backer)) {
            b.mark_dirty();
        }
        switch.publish();
    }
    Ok(text)
}

// Learned addresses.

fn port_text(b: &Bridge, id: BundleId) -> String {
    let ports = b.bundles.bundles.values().find(|(i, _)| *i == id).map(|(_, c)| c.ports.as_slice());
    match ports.and_then(<[OfPort]>::first) {
        Some(&OfPort::LOCAL) => "LOCAL".to_owned(),
        Some(p) => p.0.to_string(),
        None => "?".to_owned(),
    }
}

fn fdb_show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let b = bridge(switch, args[0])?;
    let mut out = String::from(" port  VLAN  MAC                Age\n");
    for e in b.of.ml.read().entries(now) {
        let age = e.age.map_or("static".to_owned(), |a| format!("{a:3}"));
        let _ = writeln!(out, "{:>5}  {:4}  {}  {age}", port_text(b, e.port), e.vlan, e.mac);
    }
    Ok(out)
}

/// The number that a word begins with, by the C library's rules: none is 0, a negative one wraps.
fn leading_number(word: &str) -> u32 {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let n = digits[..end].parse::<u32>().unwrap_or(0);
    if negative { n.wrapping_neg() } else { n }
}

fn fdb_add(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let b = bridge(switch, args[0])?;
    let bundle = b
        .port_by_name(args[1])
        .and_then(|p| b.bundles.id_of_port(p.ofport))
        .ok_or_else(|| "software error, odp port is present but no ofp port".to_owned())?;
    let vlan = leading_number(args[2]) as u16;
    let mac: Mac = args[3].parse().map_err(|_| "bad MAC address".to_owned())?;
    let now = switch.clock.now();
    let old = b.of.ml.read().entries(now).find(|e| e.vlan == vlan && e.mac == mac);
    let mut out = String::new();
    if let Some(old) = old.filter(|e| e.age.is_some() || e.port != bundle) {
        let kind = if old.age.is_none() { "static" } else { "dynamic" };
        let _ = writeln!(out, "Overriding already existing {kind} entry on {}", port_text(b, old.port));
    }
    if b.of.ml.write().add_static(mac, vlan, bundle) {
        b.of.changed.bump();
    }
    Ok(out)
}

fn fdb_del(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let b = bridge(switch, args[0])?;
    let vlan = leading_number(args[1]) as u16;
    let mac: Mac = args[2].parse().map_err(|_| "bad MAC address".to_owned())?;
    if !b.of.ml.write().remove_static(mac, vlan) {
        return Err("could not find static mac entry".into());
    }
    b.of.changed.bump();
    Ok(String::new())
}

/// The bridges that an optional argument names: one, or all.
fn chosen<'a>(switch: &'a Switch, args: &[&str]) -> Result<Vec<&'a Bridge>, String> {
    match args.first() {
        Some(name) => Ok(vec![bridge(switch, name)?]),
        None => Ok(switch.bridges.values().collect()),
    }
}

fn fdb_flush(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    for b in chosen(switch, args)? {
        if b.of.ml.write().flush() {
            b.of.changed.bump();
        }
    }
    Ok("table successfully flushed\n".into())
}

fn fdb_stats_clear(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    for b in chosen(switch, args)? {
        b.of.ml.write().clear_stats();
    }
    Ok("statistics successfully cleared\n".into())
}

fn fdb_stats_show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let b = bridge(switch, args[0])?;
    let ml = b.of.ml.read();
    let s = ml.stats();
    Ok(format!(
        "Statistics for bridge \"{}\":\n\
         \x20 Current/maximum MAC entries in the table: {}/{}\n\
         \x20 Current static MAC entries in the table : {}\n\
         \x20 Total number of learned MAC entries     : {}\n\
         \x20 Total number of expired MAC entries     : {}\n\
         \x20 Total number of evicted MAC entries     : {}\n\
         \x20 Total number of port moved MAC entries  : {}\n",
        b.of.name,
        ml.len(),
        ml.max_entries(),
        ml.n_static(),
        s.learned,
        s.expired,
        s.evicted,
        s.moved
    ))
}

// Multicast groups.

fn mdb_show(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    let b = bridge(switch, args[0])?;
    let table = b.of.mcast.read();
    let table = table.as_ref().ok_or_else(|| "multicast snooping is disabled".to_owned())?;
    let mut out = String::from(" port  VLAN  protocol  GROUP                Age\n");
    for (vlan, group, member, age) in table.entries(now) {
        let group = group.to_ipv4_mapped().map_or_else(|| group.to_string(), |v4| v4.to_string());
        let (port, protocol) = (port_text(b, member.port), member.protocol.name());
        let _ = writeln!(out, "{port:>5}  {vlan:4}  {protocol:<8}  {group}         {age:3}");
    }
    for router in table.routers() {
        let (port, age) = (port_text(b, router.port), table.router_age(router, now));
        let _ = writeln!(out, "{port:>5}  {:4}  querier             {age:3}", router.vlan);
    }
    Ok(out)
}

fn mdb_flush(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    for b in chosen(switch, args)? {
        let mut table = b.of.mcast.write();
        match table.as_mut() {
            Some(table) => {
                if table.flush() {
                    b.of.changed.bump();
                }
            }
            None if args.is_empty() => {}
            None => return Err("multicast snooping is disabled".into()),
        }
    }
    Ok("table successfully flushed\n".into())
}

// Upcalls and revalidation.

fn wait(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    for backer in switch.backers.values() {
        backer.revalidate(now);
    }
    for b in switch.bridges.values() {
        b.of.expire(now);
    }
    Ok(String::new())
}

fn set_paused(switch: &Switch, paused: bool) -> Result<String, String> {
    for backer in switch.backers.values() {
        backer.paused.store(paused, Ordering::Relaxed);
    }
    Ok(String::new())
}

fn pause(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    set_paused(switch, true)
}

fn resume(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    set_paused(switch, false)
}

fn purge(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    let now = switch.clock.now();
    for backer in switch.backers.values() {
        backer.purge(now);
    }
    Ok(String::new())
}

fn upcall_show(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    Ok(switch.backers.values().map(|b| b.show_upcall()).collect())
}

fn set_megaflows(switch: &Switch, on: bool) {
    for b in switch.backers.values() {
        b.megaflows.store(on, Ordering::Relaxed);
        b.purge(switch.clock.now());
        b.changed.bump();
    }
}

fn disable_megaflows(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    set_megaflows(switch, false);
    Ok("megaflows disabled\n".into())
}

fn enable_megaflows(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    set_megaflows(switch, true);
    Ok("megaflows enabled\n".into())
}

fn set_ufid(switch: &Switch, on: bool) {
    for b in switch.backers.values() {
        b.use_ufid.store(on, Ordering::Relaxed);
    }
}

fn disable_ufid(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    set_ufid(switch, false);
    Ok("Datapath dumping tersely using UFID disabled\n".into())
}

fn enable_ufid(switch: &mut Switch, _: &[&str]) -> Result<String, String> {
    set_ufid(switch, true);
    Ok("Datapath dumping tersely using UFID enabled for supported datapaths\n".into())
}

fn set_flow_limit(switch: &mut Switch, args: &[&str]) -> Result<String, String> {
    let limit = leading_number(args[0]);
    for b in switch.backers.values() {
        b.flow_limit.store(limit, Ordering::Relaxed);
    }
    Ok(format!("set flow_limit to {limit}\n"))
}
