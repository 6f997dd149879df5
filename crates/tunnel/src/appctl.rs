//! Commands: `ovs/route/*`, `tnl/*`. Each takes the world and its arguments, whose number was checked.

use std::net::{IpAddr, Ipv6Addr};

use crate::mapped;
use crate::neigh::MAX_AGING_S;
use crate::route::{MAX_USER_ROUTES, Prefix, Route, Rule, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, priority};
use crate::unmapped;
use crate::world::{World, egress_ports, set_egress_ports};

type Reply = Result<String, String>;

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
}

macro_rules! commands {
    ($($name:literal $usage:literal $min:literal..$max:literal => $f:path;)*) => {
        /// All of them.
        pub static COMMANDS: &[Command] =
            &[$(Command { name: $name, usage: $usage, min: $min, max: $max, run: $f }),*];
    };
}

commands! {
    "ovs/route/add" "ip/plen dev [gw] [pkt_mark=mark] [src=src_ip] [table=id]" 2..6 => route_add;
    "ovs/route/del" "ip/plen [pkt_mark=mark] [table=id]" 1..3 => route_del;
    "ovs/route/lookup" "ip_addr [pkt_mark=mark] [src=src_ip]" 1..3 => route_lookup;
    "ovs/route/rule/add" "[-6] [not] from=all|ip/plen [prio=num] table=local|main|default|id" 2..5 => rule_add;
    "ovs/route/rule/del" "[-6] [not] from=all|ip/plen [prio=num] table=local|main|default|id" 2..5 => rule_del;
    "ovs/route/rule/show" "[-6]" 0..1 => rule_show;
    "ovs/route/show" "[table=all|id]" 0..1 => route_show;
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

fn table(text: &str) -> Option<u32> {
    match text {
        "local" => Some(TABLE_LOCAL),
        "main" => Some(TABLE_MAIN),
        "default" => Some(TABLE_DEFAULT),
        id => number(id).filter(|id| *id != 0),
    }
}

// Routes.

fn route_add(world: &World, args: &[&str]) -> Reply {
    let bad = || "Invalid pkt_mark, IP gateway, table or src_ip".to_owned();
    let prefix = Prefix::parse(args[0]).ok_or("Invalid 'ip/plen' parameter")?;
    let (mut gateway, mut mark, mut src, mut table_id) = (None, 0, None, TABLE_MAIN);
    for arg in &args[2..] {
        if let Some(m) = arg.strip_prefix("pkt_mark=") {
            mark = number(m).ok_or_else(bad)?;
        } else if let Some(s) = arg.strip_prefix("src=") {
            let ip: IpAddr = s.parse().map_err(|_| bad())?;
            src = Some(ip).filter(|ip| ip.is_ipv4() == prefix.is_v4());
            if src.is_none() {
                return Err(bad());
            }
        } else if let Some(t) = arg.strip_prefix("table=") {
            table_id = table(t).ok_or_else(bad)?;
        } else {
            let ip: IpAddr = arg.parse().map_err(|_| bad())?;
            if ip.is_ipv4() != is_v4(args[0]) || gateway.is_some() {
                return Err(bad());
            }
            gateway = Some(ip);
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
        if let Some(m) = arg.strip_prefix("pkt_mark=") {
            mark = number(m).ok_or("Invalid pkt_mark")?;
        } else if let Some(t) = arg.strip_prefix("table=") {
            table_id = table(t).ok_or("Invalid table")?;
        } else {
            return Err("Invalid pkt_mark or table".into());
        }
    }
    let found = world.change_router(|r| r.remove_user(prefix, mark, table_id));
    if found { ok() } else { Err("Not found".into()) }
}

fn route_lookup(world: &World, args: &[&str]) -> Reply {
    let dst: IpAddr = args[0].parse().map_err(|_| "Invalid parameters".to_owned())?;
    let (mut mark, mut src) = (0, None);
    for arg in &args[1..] {
        if let Some(s) = arg.strip_prefix("src=") {
            let ip: IpAddr = s.parse().map_err(|_| "Invalid src".to_owned())?;
            src = Some(mapped(ip));
        } else {
            let m = arg.strip_prefix("pkt_mark=").and_then(number);
            mark = m.ok_or("Invalid pkt_mark")?;
        }
    }
    let found = world.with_router(|r| r.lookup(mark, mapped(dst), src)).ok_or("Not found")?;
    let gateway = unmapped(found.gateway);
    Ok(format!("src {}\ngateway {gateway}\ndev {}\n", unmapped(found.src), found.dev))
}

fn route_show(world: &World, args: &[&str]) -> Reply {
    let which = match args.first().map(|a| a.strip_prefix("table=")) {
        None => Some(TABLE_MAIN),
        Some(Some("all")) => None,
        Some(text) => Some(text.and_then(table).ok_or("Invalid param, expected table=ID or table=all")?),
    };
    Ok(world.with_router(|r| r.show(which)))
}

// Rules.

/// A rule as its words say, and the priority if it is among them.
fn read_rule(args: &[&str]) -> Result<(Rule, Option<u32>), String> {
    let mut rule = Rule { priority: 0, from: Prefix::ALL, invert: false, table: 0, user: true, v6: false };
    let mut prio = None;
    let mut from = false;
    for arg in args {
        match *arg {
            "-6" => rule.v6 = true,
            "not" => rule.invert = true,
            "from=all" => from = true,
            _ => {
                let bad = || format!("Invalid parameter '{arg}'");
                if let Some(p) = arg.strip_prefix("from=") {
                    rule.from = Prefix::parse(p).ok_or_else(bad)?;
                    rule.v6 = !rule.from.is_v4();
                    from = true;
                } else if let Some(n) = arg.strip_prefix("prio=") {
                    prio = Some(number(n).ok_or_else(bad)?);
                } else if let Some(t) = arg.strip_prefix("table=") {
                    rule.table = table(t).ok_or_else(bad)?;
                } else {
                    return Err(bad());
                }
            }
        }
    }
    if !from || rule.table == 0 {
        return Err("Invalid parameters".into());
    }
    Ok((rule, prio))
}

fn rule_add(world: &World, args: &[&str]) -> Reply {
    let (mut rule, prio) = read_rule(args)?;
    world.change_router(|r| {
        rule.priority =
            prio.or_else(|| r.free_priority(rule.v6)).ok_or("Error while inserting rule.".to_owned())?;
        r.insert_rule(rule);
        ok()
    })
}

fn rule_del(world: &World, args: &[&str]) -> Reply {
    let (rule, prio) = read_rule(args)?;
    let found = world.change_router(|r| r.remove_user_rule(&rule, prio));
    if found { ok() } else { Err("Not found".into()) }
}

fn rule_show(world: &World, args: &[&str]) -> Reply {
    match args {
        [] => Ok(world.with_router(|r| r.show_rules(false))),
        ["-6"] => Ok(world.with_router(|r| r.show_rules(true))),
        _ => Err("Invalid parameters".into()),
    }
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
            ("ovs/route/lookup 1.1.4.7 pkt_mark=foo", Err("Invalid pkt_mark")),
            ("ovs/route/lookup foo", Err("Invalid parameters")),
            ("ovs/route/lookup 1.1.4.7", Err("Not found")),
            ("ovs/route/del 1.1.4.0/24", Err("Not found")),
            ("ovs/route/show", Ok("Route Table:\n")),
            ("tnl/ports/show -v", Ok("Listening ports:\n")),
            ("ovs/route/rule/add from=10.0.0.0/8 prio=7 table=10", Ok("OK\n")),
            ("ovs/route/rule/del from=10.0.0.0/8 table=11", Err("Not found")),
            ("ovs/route/rule/del from=10.0.0.0/8 table=10", Ok("OK\n")),
        ] {
            let got = run(&world, words);
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{words}");
        }
    }
}
