//! Control commands of the switch daemon that are no layer's own: devices, datapaths, ending. The others come from
//! the tables of their layers.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ib_dp_kernel::provider::RemoteDpif;
use ib_dpif::dpctl::{self, Context, Options, failing_field};
use ib_dpif::text::{PortNames, parse_key};
use ib_flow::{Flow, Mask, PortMap};
use ib_netdev::dummy::appctl;
use ib_netdev::{Flags, Netdev, Registry};
use ib_openflow::message::{PortStats, QueueStats, Rfc2819};
use ib_packet::{Mac, Packet};
use ib_stream::unixctl::{Call, Command, Format, MANY, Server, standard};

use super::{Exit, Vswitchd};

/// Registers every command. `dummies`: also those that only tests use.
/// `elsewhere`: user-space datapaths are in another process.
pub fn register(server: &mut Server<Vswitchd>, dummies: bool, elsewhere: bool) {
    server.register(&standard::commands());
    server.register(OWN);
    server.register(&datapath_commands());
    let of_datapaths = super::pmd_commands::commands();
    if elsewhere {
        server.register(&of_datapaths.iter().map(passed_on).collect::<Vec<_>>());
    } else {
        server.register(&of_datapaths);
    }
    server.register(&ofproto_commands());
    server.register(&tunnel_commands());
    if dummies {
        server.register(&standard::time_commands());
        server.register(DUMMY);
        server.register(super::pmd_commands::DUMMY);
    }
}

/// A command that the datapath's process runs.
fn passed_on(command: &Command<Vswitchd>) -> Command<Vswitchd> {
    let handler = |v: &mut Vswitchd, call: Call| {
        let all = v.layer.switch.datapaths();
        let there = all.iter().find_map(|dp| dp.as_any().downcast_ref::<RemoteDpif>());
        let words: Vec<&str> = std::iter::once(&call.command).chain(&call.args).map(String::as_str).collect();
        let result = there.map_or_else(|| Err("no datapath".to_owned()), |dp| dp.appctl(&words));
        call.answer_text(result);
    };
    Command { handler, ..*command }
}

const OWN: &[Command<Vswitchd>] = &[
    Command { name: "exit", usage: "[--cleanup]", min: 0, max: 1, handler: exit },
    Command { name: "qos/show", usage: "interface", min: 1, max: 1, handler: qos_show },
    Command { name: "qos/show-types", usage: "interface", min: 1, max: 1, handler: qos_types },
    Command { name: "bridge/reconnect", usage: "[bridge]", min: 0, max: 1, handler: reconnect },
];

const DUMMY: &[Command<Vswitchd>] = &[
    Command {
        name: "netdev-dummy/receive",
        usage: "name [--qid queue_id] packet|flow [--len packet_len]",
        min: 2,
        max: MANY,
        handler: |v, call| {
            let result = receive(v, &call.args);
            call.answer_text(result.map(|()| ""));
        },
    },
    device_command("netdev-dummy/set-admin-state", "[netdev] up|down", 1, 2, |v, call| {
        on_devices(v, call, appctl::set_admin_state);
    }),
    device_command("netdev-dummy/conn-state", "[netdev]", 0, 1, |v, call| {
        on_devices(v, call, appctl::conn_state)
    }),
    device_command("netdev-dummy/ip4addr", "[netdev] ipaddr/mask-prefix-len", 2, 2, |v, call| {
        on_devices(v, call, appctl::ip4addr);
    }),
    device_command("netdev-dummy/ip6addr", "[netdev] ip6addr", 2, 2, |v, call| {
        on_devices(v, call, appctl::ip6addr);
    }),
];

const fn device_command(
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
    handler: fn(&mut Vswitchd, Call),
) -> Command<Vswitchd> {
    Command { name, usage, min, max, handler }
}

/// Answers by a function of `netdev`.
fn on_devices(v: &Vswitchd, call: Call, f: fn(&Registry, &[&str]) -> Result<String, String>) {
    let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    let result = f(&v.registry, &args);
    call.answer_text(result);
}

fn exit(v: &mut Vswitchd, call: Call) {
    let cleanup = call.arg(0) == Some("--cleanup");
    let exit = v.exit.get_or_insert(Exit { cleanup: false, calls: Vec::new() });
    exit.cleanup |= cleanup;
    exit.calls.push(call);
}

fn qos_show(v: &mut Vswitchd, call: Call) {
    let name = call.args[0].clone();
    let Some(dev) = v.registry.get(&name) else { return call.err("no such interface") };
    let Some((kind, details)) = dev.qos().ok().filter(|(kind, _)| !kind.is_empty()) else {
        return call.ok(format!("QoS not configured on {name}\n"));
    };
    let mut out = format!("QoS: {name} {kind}\n");
    put_details(&mut out, "", &details);
    for (id, details) in dev.queues().unwrap_or_default() {
        out.push('\n');
        out.push_str(&if id == 0 { "Default:\n".to_owned() } else { format!("Queue {id}:\n") });
        put_details(&mut out, "  ", &details);
        let Ok(stats) = dev.queue_stats(id) else {
            out.push_str("  Error getting statistics\n");
            continue;
        };
        let counts =
            [("tx_packets", stats.tx_packets), ("tx_bytes", stats.tx_bytes), ("tx_errors", stats.tx_errors)];
        for (key, count) in counts {
            if let Some(count) = count {
                out.push_str(&format!("  {key}: {count}\n"));
            }
        }
    }
    call.ok(out);
}

/// Settings in the order in which the original's table of these keys happens to have them.
fn put_details(out: &mut String, indent: &str, details: &ib_netdev::qos::Details) {
    const ORDER: [&str; 4] = ["burst", "priority", "min-rate", "max-rate"];
    let known = ORDER.iter().filter_map(|k| details.get_key_value(*k));
    let others = details.iter().filter(|(k, _)| !ORDER.contains(&k.as_str()));
    for (key, value) in known.chain(others) {
        out.push_str(&format!("{indent}{key}: {value}\n"));
    }
}

/// Queues of a device with their counters, for OpenFlow. Dummy devices have one without counters.
pub fn port_queues(registry: &Registry, name: &str) -> Vec<QueueStats> {
    let Some(dev) = registry.get(name) else { return Vec::new() };
    if dev.as_dummy().is_some() {
        return vec![QueueStats {
            queue: 0,
            port: ib_flow::OfPort::NONE,
            tx_bytes: u64::MAX,
            tx_packets: u64::MAX,
            tx_errors: u64::MAX,
            duration_sec: u32::MAX,
            duration_nsec: u32::MAX,
        }];
    }
    let n = |v: Option<u64>| v.unwrap_or(u64::MAX);
    let queues = dev.queues().unwrap_or_default();
    queues
        .into_keys()
        .filter_map(|id| {
            let s = dev.queue_stats(id).ok()?;
            let age = s.age_ms.and_then(|ms| u64::try_from(ms).ok()).map(std::time::Duration::from_millis);
            Some(QueueStats {
                queue: id,
                port: ib_flow::OfPort::NONE,
                tx_bytes: n(s.tx_bytes),
                tx_packets: n(s.tx_packets),
                tx_errors: n(s.tx_errors),
                duration_sec: age.map_or(u32::MAX, |a| u32::try_from(a.as_secs()).unwrap_or(u32::MAX)),
                duration_nsec: age.map_or(u32::MAX, |a| a.subsec_nanos()),
            })
        })
        .collect()
}

fn qos_types(v: &mut Vswitchd, call: Call) {
    let name = call.args[0].clone();
    match v.registry.get(&name).map(|dev| dev.qos_types()) {
        None => call.err("no such interface"),
        Some(kinds) if kinds.is_empty() => {
            call.ok(format!("No QoS types supported for interface: {name}\n"));
        }
        Some(kinds) => call.ok(kinds.iter().map(|k| format!("QoS type: {k}\n")).collect::<String>()),
    }
}

fn reconnect(v: &mut Vswitchd, call: Call) {
    let names = match call.arg(0) {
        Some(name) => vec![name.to_owned()],
        None => v.layer.switch.bridge_names(),
    };
    for name in &names {
        match v.layer.switch.bridge_mut(name) {
            Some(bridge) => bridge.reconnect(),
            None => return call.err("Unknown bridge"),
        }
    }
    call.ok("");
}

// Dummy devices.

fn dummy(v: &Vswitchd, name: &str) -> Option<Arc<dyn Netdev>> {
    v.registry.get(name).filter(|dev| dev.as_dummy().is_some())
}

/// `name [--qid N] packet|flow... [--len N]`: every packet is processed when the command answers.
fn receive(v: &mut Vswitchd, args: &[String]) -> Result<(), String> {
    let (name, rest) = args.split_first().ok_or("no such dummy netdev")?;
    let dev = dummy(v, name).ok_or("no such dummy netdev")?;
    let mut words = rest.iter().peekable();
    let mut qid = 0;
    if words.next_if(|w| *w == "--qid").is_some() {
        let parsed = words.next().and_then(|w| w.parse::<usize>().ok());
        qid = parsed.filter(|q| *q < dev.n_rxq()).ok_or("bad rx queue id.")?;
    }
    while let Some(word) = words.next() {
        let mut packet = match packet_from_hex(word) {
            Some(packet) => packet,
            None => {
                let (flow, _) = parse_key(word, &PortNames::none())
                    .map_err(|e| format!("syntax error at {}", failing_field(word, e.at)))?;
                if words.next_if(|w| *w == "--len").is_some() {
                    let len = words.next().ok_or("packet length is missing")?;
                    // A text that is no number counts as zero.
                    packet_of_length(&flow, len.parse().unwrap_or(0))?
                } else {
                    ib_flow::compose(&flow, ib_flow::Payload::default())
                }
            }
        };
        if packet.ethernet && packet.len() < 14 {
            return Err(format!("syntax error at {word}"));
        }
        packet.offload = ib_packet::Offload::default();
        if let Some(device) = dev.as_dummy() {
            device.inject(qid, packet);
        }
        v.layer.switch.run(v.clock.now());
    }
    Ok(())
}

/// Frames on a wire, without their checksum: the shortest, and the longest that IPv4 can fill.
const FRAME_LENGTHS: std::ops::RangeInclusive<usize> = 60..=14 + 65_535;

/// A packet of a flow, of `len` bytes in all. Headers take what they take: the rest is payload.
fn packet_of_length(flow: &Flow, len: usize) -> Result<Packet, String> {
    if len > *FRAME_LENGTHS.end() {
        return Err("too large packet len".into());
    }
    let packet = FRAME_LENGTHS.contains(&len).then(|| ib_flow::compose_to_length(flow, len)).flatten();
    packet.ok_or_else(|| "too small packet len".into())
}

/// A frame in hexadecimal; `None` if it is not one.
fn packet_from_hex(text: &str) -> Option<Packet> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if digits.len() < 28 || !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(|p| Some(nibble(p[0])? << 4 | nibble(p[1])?)).collect();
    Some(Packet::from_frame(&bytes?))
}

// Bridges.

fn ofproto_commands() -> Vec<Command<Vswitchd>> {
    let commands = ib_ofproto::appctl::COMMANDS.iter();
    commands
        .map(|c| Command {
            name: c.name,
            usage: c.usage,
            min: c.min,
            max: c.max,
            handler: |v: &mut Vswitchd, call: Call| {
                let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
                let result = ib_ofproto::appctl::run(&mut v.layer.switch, &call.command, &args);
                call.answer_text(result);
            },
        })
        .collect()
}

fn tunnel_commands() -> Vec<Command<Vswitchd>> {
    let commands = ib_tunnel::appctl::COMMANDS.iter();
    commands
        .map(|c| Command {
            name: c.name,
            usage: c.usage,
            min: c.min,
            max: c.max,
            handler: |v: &mut Vswitchd, call: Call| {
                let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
                let now = v.clock.now();
                v.layer.switch.run_world(now);
                let Some(c) = ib_tunnel::appctl::COMMANDS.iter().find(|c| c.name == call.command) else {
                    return call.err("unknown command");
                };
                let world = v.layer.switch.world();
                match c.json.filter(|_| call.format == Format::Json).map(|json| json(world, &args)) {
                    None => {
                        let result = (c.run)(world, &args);
                        call.answer_text(result);
                    }
                    Some(Ok(json)) => call.ok_json(json),
                    Some(Err(text)) => call.err(text),
                }
                v.layer.switch.run_world(now);
            },
        })
        .collect()
}

// Datapaths.

fn datapath_commands() -> Vec<Command<Vswitchd>> {
    let own = dpctl::COMMANDS.iter().map(|c| Command {
        // Once in the life of a daemon.
        name: Box::leak(format!("dpctl/{}", c.name).into_boxed_str()),
        usage: c.usage,
        min: c.min,
        max: c.max,
        handler: |v: &mut Vswitchd, call: Call| {
            let result = run_dpctl(v, &call.command, &call.args);
            call.answer_text(result);
        },
    });
    let list = Command { name: "dpctl/list-commands", usage: "", min: 0, max: 0, handler: list_dpctl };
    own.chain([list]).collect()
}

fn list_dpctl(_: &mut Vswitchd, call: Call) {
    let mut text = String::from("The available commands are:\n");
    for c in dpctl::COMMANDS {
        if c.name == "parse-actions" {
            // Behind those come the ones that need no datapath.
            text.push_str(&format!("  dpctl/{:<23} \n", "list-commands"));
        }
        text.push_str(&format!("  dpctl/{:<23} {}\n", c.name, c.usage));
    }
    call.ok(text);
}

fn run_dpctl(v: &mut Vswitchd, name: &str, args: &[String]) -> Result<String, String> {
    let name = name.strip_prefix("dpctl/").unwrap_or(name);
    let Some(command) = dpctl::COMMANDS.iter().find(|c| c.name == name) else {
        return Err(format!("\"{name}\" is not a valid command"));
    };
    let registry = Arc::clone(&v.registry);
    let said = RefCell::new(String::new());
    let context = Context {
        datapaths: &v.datapaths,
        now_ms: v.clock.now().as_ms(),
        port_stats: &|name| registry.get(name).map(|dev| ib_dp_userspace::ports::counters(&*dev)),
        port_config: &|name| registry.get(name).map(|dev| dev.config()).unwrap_or_default(),
        filter: &matches_filter,
        read_file: &|path| std::fs::read_to_string(path).map_err(|e| ib_base::errno::strerror(&e)),
        program: "ovs-vswitchd",
        said: &said,
    };
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = dpctl::run(&context, command, Options::default(), &words);
    let said = said.into_inner();
    // Each line of an error is the program's.
    let marked = |line: &str| {
        if line.starts_with("Perhaps") || line.starts_with("Unrecognized option") {
            format!("{line}\n")
        } else {
            format!("ovs-vswitchd: {line}\n")
        }
    };
    match result {
        Ok(text) => Ok(said + &text),
        Err(text) => Err(said + &text.lines().map(marked).collect::<String>()),
    }
}

fn matches_filter(text: &str, ports: &PortMap, key: &Flow, mask: &Mask) -> Result<bool, String> {
    // A filter is one key: no masks, nothing twice.
    ib_flow::text::parse_exact_flow(text, Some(ports))?;
    let (wanted, _) = ib_flow::text::parse_match(text, Some(ports))?;
    // The megaflow's own wildcards decide: a bit that it does not look at fits any filter.
    let mut common = mask.clone();
    for (word, filter) in common.0.words_mut().iter_mut().zip(wanted.mask.0.words()) {
        *word &= filter;
    }
    Ok(common.equal(key, &wanted.flow))
}

/// The address of the next hop on the way to a controller, for in-band control of the bridge whose own device is
/// `device`: by the kernel's routes and its neighbours of that route.
pub fn next_hop(registry: &Registry, device: &str, ip: Ipv4Addr) -> Result<Option<Mac>, String> {
    if registry.get(device).is_none_or(|dev| dev.as_dummy().is_some()) {
        return Err("Operation not supported".into());
    }
    let read = |path| std::fs::read_to_string(path).map_err(|e| ib_base::errno::strerror(&e));
    let routes = read("/proc/net/route")?;
    let (via, by) = kernel_route(&routes, ip).ok_or("No such device or address")?;
    let via = if via.is_unspecified() { ip } else { via };
    Ok(kernel_neighbour(&read("/proc/net/arp")?, via, by))
}

/// The gateway and device for an address in a text of `/proc/net/route`, whose numbers are hexadecimal in the machine's
/// order. The first that fits counts, as the kernel sorts by prefix length.
fn kernel_route(routes: &str, ip: Ipv4Addr) -> Option<(Ipv4Addr, &str)> {
    const RTF_UP: u32 = 1;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let wanted = u32::from_ne_bytes(ip.octets());
    routes.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[device, dest, gateway, flags, _, _, _, mask, ..] = words.as_slice() else { return None };
        let fits = number(flags)? & RTF_UP != 0 && (number(dest)? ^ wanted) & number(mask)? == 0;
        fits.then_some((Ipv4Addr::from(number(gateway)?.to_ne_bytes()), device))
    })
}

/// A neighbour's address in a text of `/proc/net/arp`; none if the kernel is still asking.
fn kernel_neighbour(neighbours: &str, ip: Ipv4Addr, device: &str) -> Option<Mac> {
    let ip = ip.to_string();
    neighbours.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[addr, _, flags, mac, _, dev] = words.as_slice() else { return None };
        let known = addr == ip && dev == device && flags != "0x0";
        mac.parse().ok().filter(|mac: &Mac| known && !mac.is_zero())
    })
}

/// Counters of a device for OpenFlow.
pub fn port_stats(registry: &Registry, name: &str) -> Option<PortStats> {
    let dev = registry.get(name)?;
    let s = dev.stats().ok()?;
    let n = |v: Option<u64>| v.unwrap_or(u64::MAX);
    Some(PortStats {
        rx_packets: n(s.rx_packets),
        tx_packets: n(s.tx_packets),
        rx_bytes: n(s.rx_bytes),
        tx_bytes: n(s.tx_bytes),
        rx_dropped: n(s.rx_dropped),
        tx_dropped: n(s.tx_dropped),
        rx_errors: n(s.rx_errors),
        tx_errors: n(s.tx_errors),
        rx_frame_err: n(s.rx_frame_err),
        rx_over_err: n(s.rx_over_err),
        rx_crc_err: n(s.rx_crc_err),
        collisions: n(s.collisions),
        rfc2819: Some(Rfc2819 {
            rx_1_to_64: n(s.rx_1_to_64_packets),
            rx_65_to_127: n(s.rx_65_to_127_packets),
            rx_128_to_255: n(s.rx_128_to_255_packets),
            rx_256_to_511: n(s.rx_256_to_511_packets),
            rx_512_to_1023: n(s.rx_512_to_1023_packets),
            rx_1024_to_1522: n(s.rx_1024_to_1522_packets),
            rx_1523_to_max: n(s.rx_1523_to_max_packets),
            tx_1_to_64: n(s.tx_1_to_64_packets),
            tx_65_to_127: n(s.tx_65_to_127_packets),
            tx_128_to_255: n(s.tx_128_to_255_packets),
            tx_256_to_511: n(s.tx_256_to_511_packets),
            tx_512_to_1023: n(s.tx_512_to_1023_packets),
            tx_1024_to_1522: n(s.tx_1024_to_1522_packets),
            tx_1523_to_max: n(s.tx_1523_to_max_packets),
            tx_multicast: n(s.tx_multicast_packets),
            rx_broadcast: n(s.rx_broadcast_packets),
            tx_broadcast: n(s.tx_broadcast_packets),
            rx_undersized: n(s.rx_undersized_errors),
            rx_oversize: n(s.rx_oversize_errors),
            rx_fragmented: n(s.rx_fragmented_errors),
            rx_jabber: n(s.rx_jabber_errors),
        }),
        custom: dev.custom_stats(),
        ..PortStats::default()
    })
}

/// Turns a device up or down, as a controller asks.
pub fn set_admin(registry: &Registry, name: &str, up: bool) {
    let Some(dev) = registry.get(name) else { return };
    let (off, on) = if up { (Flags::NONE, Flags::UP) } else { (Flags::UP, Flags::NONE) };
    if let Err(e) = dev.update_flags(off, on) {
        ib_base::vlog_warn_rl!(
            ib_base::vlog::module::OFPROTO,
            (1, 5),
            "{name}: cannot be turned {}: {e}",
            if up { "up" } else { "down" }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_come_from_the_kernels_texts() {
        const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            br0\t0000050A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        const NEIGHBOURS: &str = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.5.0.9         0x1         0x2         02:00:00:00:00:99     *        br0\n\
            10.5.0.8         0x1         0x0         00:00:00:00:00:00     *        br0\n";
        let ip = |s: &str| s.parse::<Ipv4Addr>().unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(kernel_route(ROUTES, ip("10.5.0.9")), Some((ip("0.0.0.0"), "br0")));
            assert_eq!(kernel_route(ROUTES, ip("172.16.0.1")), Some((ip("10.0.0.1"), "eth0")));
        }
        assert_eq!(kernel_route("no route\n", ip("10.5.0.9")), None);
        assert_eq!(kernel_neighbour(NEIGHBOURS, ip("10.5.0.9"), "br0"), "02:00:00:00:00:99".parse().ok());
        assert_eq!(kernel_neighbour(NEIGHBOURS, ip("10.5.0.8"), "br0"), None);
        assert_eq!(kernel_neighbour(NEIGHBOURS, ip("10.5.0.9"), "eth0"), None);
    }
}
