//! Commands: `ovs/route/*`, `tnl/*`. Each takes the world and its arguments, whose number was checked.

use std::net::{IpAddr, Ipv6Addr};

use ib_base::json::Json;

use crate::mapped;
use crate::neigh::MAX_AGING_S;
use crate::route::{
    MAX_USER_ROUTES, Prefix, Route, Rule, Shown, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, priority,
};
use crate::unmapped;
use crate::world::{World, egress_ports, set_egress_ports};

type Reply = Result<String, String>;
type JsonRun = fn(&World, &[&str]) -> Result<Json, String>;

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
    /// What it does.
    pub run: fn(&World, &[&str]) -> Reply,
    /// What it says to a client that asked for JSON; absent: its text.
    pub json: Option<JsonRun>,
}

macro_rules! commands {
    (@json) => { None };
    (@json $f:path) => { Some($f) };
    ($($name:literal $usage:literal $min:literal..$max:literal => $f:path $(, json $json:path)?;)*) => {
        /// All of them.
        pub static COMMANDS: &[Command] = &[$(Command {
            name: $name,
            usage: $usage,
            min: $min,
            max: $max,
            run: $f,
            json: commands!(@json $($json)?),
        }),*];
    };
}

commands! {
    "ovs/route/add" "ip/plen dev [gw] [pkt_mark=mark] [src=src_ip] [table=id]" 2..6 => route_add;
    "ovs/route/del" "ip/plen [pkt_mark=mark] [table=id]" 1..3 => route_del;
    "ovs/route/lookup" "ip_addr [pkt_mark=mark] [src=src_ip]" 1..3 => route_lookup;
    "ovs/route/rule/add" "[-6] [not] from=all|ip/plen [prio=num] table=local|main|default|id" 2..5 => rule_add;
    "ovs/route/rule/del" "[-6] [not] from=all|ip/plen [prio=num] table=local|main|default|id" 2..5 => rule_del;
    "ovs/route/rule/show" "[-6]" 0..1 => rule_show, json rule_show_json;
    "ovs/route/show" "[table=all|id]" 0..1 => route_show, json route_show_json;
    "tnl/arp/aging" "[SECS]" 0..1 => aging;
    "tnl/arp/flush" "" 0..0 => flush;
    "tnl/arp/set" "BRIDGE IP MAC" 3..3 => set;
    "tnl/arp/show" "" 0..0 => show;
    "tnl/egress_port_range" "min max" 0..2 => egress_port_range;
    "tnl/neigh/aging" "[SECS]" 0..1 => aging;
    "tnl/neigh/flush" "" 0..0 => flush;
    "tnl/neigh/set" "BRIDGE IP MAC" 3..3 => set;
    "tnl/neigh/show" "" 0..0 => show;
    "tnl/ports/show" "-v" 0..1 => ports_show;
}

fn ok() -> Reply {
    Ok("OK\n".to_owned())
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The table that `table=ID` names; `None` if the word is something else.
fn table_word(word: &str) -> Option<Result<u32, String>> {
    let id = word.strip_prefix("table=")?;
    Some(number(id).ok_or_else(|| "Invalid table format".to_owned()))
}

// Routes.

fn route_add(world: &World, args: &[&str]) -> Reply {
    let prefix = Prefix::parse(args[0]).ok_or("Invalid 'ip/plen' parameter")?;
    let (mut gateway, mut mark, mut src, mut table_id) = (None, 0, None, TABLE_MAIN);
    let v4 = is_v4(args[0]);
    let own_family = |text: &str| text.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == v4);
    for arg in &args[2..] {
        if let Some(m) = arg.strip_prefix("pkt_mark=").and_then(number) {
            mark = m;
        } else if let Some(ip) = arg.strip_prefix("src=").and_then(own_family) {
            src = Some(ip);
        } else if let Some(ip) = own_family(arg) {
            gateway = Some(ip);
        } else if let Some(id) = table_word(arg) {
            table_id = id?;
        } else {
            return Err("Invalid pkt_mark, IP gateway or src_ip".into());
        }
    }
    let gateway = gateway.map_or(Ipv6Addr::UNSPECIFIED, mapped);
    let dev = args[1];
    let failed = || "Error while inserting route.".to_owned();
    let src = match src {
        Some(ip) => {
            let own = world.addresses_of(dev).iter().any(|(a, _)| *a == ip);
            own.then(|| mapped(ip)).ok_or_else(failed)?
        }
        None => world.source_for(dev, prefix.addr, gateway).ok_or_else(failed)?,
    };
    let added = world.change_router(|r| {
        let room = r.n_user() < MAX_USER_ROUTES;
        if room {
            r.insert(Route {
                prefix,
                mark,
                dev: dev.to_owned(),
                gateway,
                src,
                local: false,
                user: true,
                table: table_id,
                priority: priority(prefix.len, true, false),
            });
        }
        room
    });
    if added { ok() } else { Err(failed()) }
}

/// Whether the text of a prefix is one of IPv4.
fn is_v4(text: &str) -> bool {
    !text.contains(':')
}

fn route_del(world: &World, args: &[&str]) -> Reply {
    let prefix = Prefix::parse(args[0]).ok_or("Invalid parameters")?;
    let (mut mark, mut table_id) = (0, TABLE_MAIN);
    for arg in &args[1..] {
        if let Some(m) = arg.strip_prefix("pkt_mark=").and_then(number) {
            mark = m;
        } else if let Some(id) = table_word(arg) {
            table_id = id?;
            if !world.with_router(|r| r.has_table(table_id)) {
                return Err(format!("Table {arg} not found"));
            }
        } else {
            return Err("Invalid pkt_mark or table".into());
        }
    }
    let found = world.change_router(|r| r.remove_user(prefix, mark, table_id));
    if found { ok() } else { Err("Not found".into()) }
}

fn route_lookup(world: &World, args: &[&str]) -> Reply {
    let v4 = is_v4(args[0]);
    let host = Prefix::parse(args[0]).filter(|p| p.len == 128);
    let dst = host.ok_or("Invalid 'ip/plen' parameter")?.addr;
    let (mut mark, mut src) = (0, None);
    for arg in &args[1..] {
        let own_family = |text: &str| text.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == v4);
        if let Some(m) = arg.strip_prefix("pkt_mark=").and_then(number) {
            mark = m;
        } else if let Some(ip) = arg.strip_prefix("src=").and_then(own_family) {
            src = Some(mapped(ip));
        } else {
            return Err("Invalid pkt_mark or src".into());
        }
    }
    let found = world.with_router(|r| r.lookup(mark, dst, src)).ok_or("Not found")?;
    let gateway = unmapped(found.gateway);
    Ok(format!("src {}\ngateway {gateway}\ndev {}\n", unmapped(found.src), found.dev))
}

/// Which tables `ovs/route/show` is asked for.
fn shown(world: &World, args: &[&str]) -> Result<Shown, String> {
    let Some(arg) = args.first() else { return Ok(Shown::Standard) };
    if *arg == "table=all" {
        return Ok(Shown::All);
    }
    match table_word(arg).ok_or("Invalid table format")?? {
        0 => Ok(Shown::Standard),
        id if world.with_router(|r| r.has_table(id)) => Ok(Shown::One(id)),
        _ => Err(format!("Table '{arg}' not found")),
    }
}

fn route_show(world: &World, args: &[&str]) -> Reply {
    let shown = shown(world, args)?;
    Ok(world.with_router(|r| r.show(shown)))
}

fn route_show_json(world: &World, args: &[&str]) -> Result<Json, String> {
    let shown = shown(world, args)?;
    Ok(world.with_router(|r| Json::array(r.shown(shown).map(route_json))))
}

fn route_json(r: &Route) -> Json {
    let mut hop = vec![("dev", Json::from(r.dev.as_str()))];
    if !r.gateway.is_unspecified() {
        hop.push(("gateway", Json::from(unmapped(r.gateway).to_string())));
    }
    let mut row = vec![
        ("dst", Json::from(unmapped(r.prefix.addr).to_string())),
        ("local", Json::from(r.local)),
        ("nexthops", Json::array([Json::object(hop)])),
        ("prefix", Json::from(i64::from(r.prefix.own_len()))),
        ("prefsrc", Json::from(unmapped(r.src).to_string())),
        ("priority", Json::from(i64::from(r.priority))),
        ("table", Json::from(i64::from(r.table))),
        ("user", Json::from(r.user)),
    ];
    if r.mark != 0 {
        // In the order of the names, like the others.
        row.insert(2, ("mark", Json::from(i64::from(r.mark))));
    }
    Json::object(row)
}

// Rules.

/// A rule as its words say, in their order: `[-6] [not] from=all|PREFIX [prio=N] table=ID`. Priority 0: not said.
fn read_rule(args: &[&str]) -> Result<Rule, String> {
    let mut words = args.iter().copied().peekable();
    let v6 = words.next_if(|w| w.starts_with("-6")).is_some();
    let invert = words.next_if(|w| w.starts_with("not")).is_some();
    let mut rule = Rule { priority: 0, from: Prefix::ALL, invert, table: 0, user: true, v6 };
    let from = words.next().and_then(|w| w.strip_prefix("from=")).ok_or("Invalid 'from' parameter")?;
    if from != "all" {
        rule.from = Prefix::parse(from).ok_or("Invalid from=ip/plen")?;
        rule.v6 = !rule.from.is_v4();
    }
    let mut word = words.next().ok_or("Not enough arguments")?;
    if let Some(n) = word.strip_prefix("prio=").and_then(number) {
        rule.priority = n;
        word = words.next().ok_or("Not enough arguments")?;
    }
    rule.table = match word.strip_prefix("table=") {
        Some("local") => TABLE_LOCAL,
        Some("main") => TABLE_MAIN,
        Some("default") => TABLE_DEFAULT,
        id => id.and_then(number).ok_or("Invalid 'table' format")?,
    };
    Ok(rule)
}

fn rule_add(world: &World, args: &[&str]) -> Reply {
    let mut rule = read_rule(args)?;
    world.change_router(|r| {
        if rule.priority == 0 {
            rule.priority = r.free_priority();
        }
        r.insert_rule(rule);
        ok()
    })
}

fn rule_del(world: &World, args: &[&str]) -> Reply {
    let rule = read_rule(args)?;
    let found = world.change_router(|r| r.remove_user_rule(&rule));
    // The number and its text as scripts of the original know them.
    if found { ok() } else { Err("Failed to delete router rule: -2 (Unknown error -2)".into()) }
}

fn rule_show(world: &World, args: &[&str]) -> Reply {
    Ok(world.with_router(|r| r.show_rules(of_v6(args))))
}

/// Whether rules for IPv6 are asked for.
fn of_v6(args: &[&str]) -> bool {
    args.first().is_some_and(|w| w.starts_with("-6"))
}

fn rule_show_json(world: &World, args: &[&str]) -> Result<Json, String> {
    let v6 = of_v6(args);
    Ok(world.with_router(|r| Json::array(r.rules().iter().filter(|r| r.v6 == v6).map(rule_json))))
}

fn rule_json(r: &Rule) -> Json {
    let all = r.from.len == 0;
    let from = if all { "all".to_owned() } else { unmapped(r.from.addr).to_string() };
    Json::object([
        ("from", Json::from(from)),
        ("invert", Json::from(r.invert)),
        ("ipv4", Json::from(!r.v6)),
        ("lookup", Json::from(i64::from(r.table))),
        ("priority", Json::from(i64::from(r.priority))),
        ("src-prefix", Json::from(i64::from(r.from.own_len()))),
        ("user", Json::from(r.user)),
    ])
}

// Neighbours.

fn aging(world: &World, args: &[&str]) -> Reply {
    let Some(text) = args.first() else {
        return Ok(world.with_neighbours(|n, _| format!("{}\n", n.aging_s())));
    };
    let secs = number(text).filter(|s| (1..=MAX_AGING_S).contains(s)).ok_or("bad aging value")?;
    world.with_neighbours(|n, now| n.set_aging_s(secs, now));
    ok()
}

fn flush(world: &World, _: &[&str]) -> Reply {
    world.with_neighbours(|n, _| n.flush());
    ok()
}

fn set(world: &World, args: &[&str]) -> Reply {
    let ip: IpAddr = args[1].parse().map_err(|_| "bad IP address".to_owned())?;
    let mac = args[2].parse().map_err(|_| "bad MAC address".to_owned())?;
    world.with_neighbours(|n, now| n.set(args[0], mapped(ip), mac, now));
    ok()
}

fn show(world: &World, _: &[&str]) -> Reply {
    Ok(world.with_neighbours(|n, now| n.show(now)))
}

// Ports.

fn egress_port_range(_: &World, args: &[&str]) -> Reply {
    let [min, max] = args else {
        let (min, max) = egress_ports();
        return Ok(format!("Tunnel UDP source port range: {min}-{max}\n"));
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0);
    let Some(min) = port(min) else { return Ok("Invalid min.\n".into()) };
    let Some(max) = port(max) else { return Ok("Invalid max.\n".into()) };
    set_egress_ports(min.min(max), min.max(max));
    ok()
}

fn ports_show(world: &World, args: &[&str]) -> Reply {
    Ok(world.show_ports(args.first() == Some(&"-v")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ib_base::time::Clock;

    fn run(world: &World, words: &str) -> Reply {
        let (name, args) = words.split_once(' ').unwrap_or((words, ""));
        let args: Vec<&str> = args.split_whitespace().collect();
        let command = COMMANDS.iter().find(|c| c.name == name).unwrap();
        assert!(args.len() >= command.min && args.len() <= command.max, "{words}");
        (command.run)(world, &args)
    }

    #[test]
    fn texts_are_those_of_the_original() {
        let world = World::new(&Clock::new());
        for (words, expect) in [
            ("tnl/neigh/aging", Ok("900\n")),
            ("tnl/neigh/aging 0", Err("bad aging value")),
            ("tnl/neigh/aging 4000", Err("bad aging value")),
            ("tnl/neigh/aging 60", Ok("OK\n")),
            ("tnl/neigh/set br0 foo f8:bc:12:44:34:b6", Err("bad IP address")),
            ("tnl/neigh/set br0 1.1.1.1 foo", Err("bad MAC address")),
            ("tnl/neigh/set br0 1.1.1.1 f8:bc:12:44:34:b6", Ok("OK\n")),
            ("tnl/egress_port_range 0 0", Ok("Invalid min.\n")),
            ("ovs/route/add 1.1.2.92/24 br9", Err("Error while inserting route.")),
            ("ovs/route/add foo br0", Err("Invalid 'ip/plen' parameter")),
            ("ovs/route/add 1.1.2.0/24 br9 fe80::1", Err("Invalid pkt_mark, IP gateway or src_ip")),
            ("ovs/route/add 1.1.2.0/24 br9 table=x", Err("Invalid table format")),
            ("ovs/route/lookup 1.1.4.7 pkt_mark=foo", Err("Invalid pkt_mark or src")),
            ("ovs/route/lookup foo", Err("Invalid 'ip/plen' parameter")),
            ("ovs/route/lookup 1.1.4.0/24", Err("Invalid 'ip/plen' parameter")),
            ("ovs/route/lookup 1.1.4.7", Err("Not found")),
            ("ovs/route/del 1.1.4.0/24", Err("Not found")),
            ("ovs/route/del 1.1.4.0/24 table=7", Err("Table table=7 not found")),
            ("ovs/route/del 1.1.4.0/24 table=main", Err("Invalid table format")),
            ("ovs/route/del 1.1.4.0/24 foo", Err("Invalid pkt_mark or table")),
            ("ovs/route/show", Ok("Route Table:\n")),
            ("ovs/route/show table=254", Ok("Route Table:\n")),
            ("ovs/route/show table=all", Ok("")),
            ("ovs/route/show table=7", Err("Table 'table=7' not found")),
            ("ovs/route/show foo", Err("Invalid table format")),
            ("tnl/ports/show -v", Ok("Listening ports:\n")),
            ("ovs/route/rule/add from=10.0.0.0/8 prio=7 table=10", Ok("OK\n")),
            (
                "ovs/route/rule/del from=10.0.0.0/8 table=11",
                Err("Failed to delete router rule: -2 (Unknown error -2)"),
            ),
            ("ovs/route/rule/del from=10.0.0.0/8 table=10", Ok("OK\n")),
            ("ovs/route/rule/add from=10.0.0.0/8 prio=7", Err("Not enough arguments")),
            ("ovs/route/rule/add from=foo table=10", Err("Invalid from=ip/plen")),
            ("ovs/route/rule/add prio=7 table=10", Err("Invalid 'from' parameter")),
            ("ovs/route/rule/add from=all table=foo", Err("Invalid 'table' format")),
        ] {
            let got = run(&world, words);
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{words}");
        }
    }

    fn json(world: &World, words: &str) -> String {
        let (name, args) = words.split_once(' ').unwrap_or((words, ""));
        let args: Vec<&str> = args.split_whitespace().collect();
        let command = COMMANDS.iter().find(|c| c.name == name).unwrap();
        command.json.unwrap()(world, &args).unwrap().to_string()
    }

    #[test]
    fn rules_and_routes_have_json() {
        let world = World::new(&Clock::new());
        run(&world, "ovs/route/rule/add not from=10.0.0.0/8 table=10").unwrap();
        run(&world, "ovs/route/rule/add from=10.1.1.1 prio=7 table=main").unwrap();
        let text = run(&world, "ovs/route/rule/show").unwrap();
        assert!(text.contains("User: 7: from 10.1.1.1 lookup main\n"), "{text}");
        assert!(text.contains("User: 32765: not from 10.0.0.0/8  lookup 10\n"), "{text}");
        assert_eq!(
            json(&world, "ovs/route/rule/show -6"),
            concat!(
                r#"[{"from":"all","invert":false,"ipv4":false,"lookup":255,"priority":0,"src-prefix":0,"user":false},"#,
                r#"{"from":"all","invert":false,"ipv4":false,"lookup":254,"priority":32766,"src-prefix":0,"user":false}]"#
            )
        );
        world.change_router(|r| {
            r.insert(Route {
                prefix: Prefix::parse("10.2.0.0/16").unwrap(),
                mark: 5,
                dev: "br0".to_owned(),
                gateway: mapped("1.1.1.1".parse().unwrap()),
                src: mapped("1.1.1.2".parse().unwrap()),
                local: false,
                user: true,
                table: 7,
                priority: 144,
            });
        });
        assert_eq!(json(&world, "ovs/route/show"), "[]");
        assert_eq!(
            json(&world, "ovs/route/show table=7"),
            concat!(
                r#"[{"dst":"10.2.0.0","local":false,"mark":5,"nexthops":[{"dev":"br0","gateway":"1.1.1.1"}],"#,
                r#""prefix":16,"prefsrc":"1.1.1.2","priority":144,"table":7,"user":true}]"#
            )
        );
    }
}
