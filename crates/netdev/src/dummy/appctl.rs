//! The `netdev-dummy/*` commands as functions, all but `receive`, which needs to know flows.
//!
//! Arguments are those behind the command's name, their number already checked. `Ok` is the reply, `Err` the
//! error's text.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::contract::Netdev;
use crate::registry::Registry;

type Reply = Result<String, String>;

fn dummy(registry: &Registry, name: &str) -> Result<Arc<dyn Netdev>, String> {
    let dev = registry.get(name).filter(|d| d.as_dummy().is_some());
    dev.ok_or_else(|| "Unknown Dummy Interface".to_owned())
}

/// `netdev-dummy/set-admin-state [NETDEV] up|down`
pub fn set_admin_state(registry: &Registry, args: &[&str]) -> Reply {
    let up = match args.last() {
        Some(s) if s.eq_ignore_ascii_case("up") => true,
        Some(s) if s.eq_ignore_ascii_case("down") => false,
        _ => return Err("Invalid Admin State".to_owned()),
    };
    let devices = match args {
        [name, _] => vec![dummy(registry, name)?],
        _ => registry.devices(),
    };
    devices.iter().filter_map(|d| d.as_dummy()).for_each(|d| d.set_admin_state(up));
    Ok("OK".to_owned())
}

/// `netdev-dummy/conn-state [NETDEV]`
pub fn conn_state(registry: &Registry, args: &[&str]) -> Reply {
    // Devices without a connection are left out of the whole list, and unknown by name.
    let state = |name: &str| {
        let dev = registry.get(name);
        dev.as_ref().and_then(|d| d.as_dummy()).map_or("unknown", |d| d.conn_state())
    };
    if let Some(name) = args.first() {
        return Ok(format!("{name}: {}\n", state(name)));
    }
    let known = |dev: &std::sync::Arc<dyn crate::Netdev>| {
        let state = dev.as_dummy()?.conn_state();
        (state != "unknown").then(|| format!("{}: {state}\n", dev.name()))
    };
    Ok(registry.devices().iter().filter_map(known).collect())
}

/// `netdev-dummy/ip4addr NETDEV IPADDR[/MASK]`
pub fn ip4addr(registry: &Registry, args: &[&str]) -> Reply {
    let [name, text] = args else { return Err("Unknown Dummy Interface".to_owned()) };
    let dev = dummy(registry, name)?;
    let invalid = || format!("{text}: invalid IP address");
    let (addr, mask) = text.split_once('/').map_or((*text, None), |(a, m)| (a, Some(m)));
    let addr: Ipv4Addr = addr.parse().map_err(|_| invalid())?;
    let prefix_len = match mask {
        None => 32,
        Some(m) => match m.parse::<Ipv4Addr>() {
            Ok(mask) => mask.to_bits().leading_ones(),
            Err(_) => {
                let bits: u32 = m.parse().map_err(|_| invalid())?;
                if bits > 32 {
                    return Err(format!("{text}: IPv4 network prefix bits not between 0 and 32, inclusive"));
                }
                bits
            }
        },
    };
    if let Some(d) = dev.as_dummy() {
        d.add_ip4(addr, u8::try_from(prefix_len).unwrap_or(32));
    }
    Ok("OK".to_owned())
}

/// `netdev-dummy/ip6addr NETDEV IPV6ADDR[/PREFIX]`
pub fn ip6addr(registry: &Registry, args: &[&str]) -> Reply {
    let [name, text] = args else { return Err("Unknown Dummy Interface".to_owned()) };
    let dev = dummy(registry, name)?;
    let invalid = || format!("{text}: invalid IPv6 address");
    let (addr, mask) = text.split_once('/').map_or((*text, None), |(a, m)| (a, Some(m)));
    let addr: Ipv6Addr = addr.parse().map_err(|_| invalid())?;
    let prefix_len = match mask {
        None => 128,
        Some(m) => match m.parse::<u32>() {
            Ok(bits) if bits <= 128 => bits,
            Ok(_) => {
                return Err(format!("{text}: IPv6 network prefix bits not between 0 and 128, inclusive"));
            }
            Err(_) => {
                let mask: Ipv6Addr = m.parse().map_err(|_| invalid())?;
                let bits = mask.to_bits();
                if bits.leading_ones() + bits.trailing_zeros() < 128 {
                    return Err(format!("{text}: IPv6 CIDR network required"));
                }
                bits.leading_ones()
            }
        },
    };
    if let Some(d) = dev.as_dummy() {
        d.add_ip6(addr, u8::try_from(prefix_len).unwrap_or(128));
    }
    Ok("OK".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::DummyLevel;

    #[test]
    fn texts_are_those_of_the_original() {
        let registry = Registry::new().unwrap();
        registry.enable_dummy(DummyLevel::Override);
        let p1 = registry.open("p1", "dummy").unwrap();
        let p2 = registry.open("p2", "system").unwrap();
        let _patch = registry.open("pp", "patch").unwrap();
        type Command = fn(&Registry, &[&str]) -> Reply;
        let table: [(Command, &[&str], Result<&str, &str>); 21] = [
            (set_admin_state, &["p1", "UP"], Ok("OK")),
            (set_admin_state, &["p9", "foo"], Err("Invalid Admin State")),
            (set_admin_state, &["p9", "up"], Err("Unknown Dummy Interface")),
            (set_admin_state, &["pp", "up"], Err("Unknown Dummy Interface")),
            (conn_state, &[], Ok("")),
            (conn_state, &["p9"], Ok("p9: unknown\n")),
            (conn_state, &["p1"], Ok("p1: unknown\n")),
            (ip4addr, &["p9", "foo"], Err("Unknown Dummy Interface")),
            (ip4addr, &["p1", "1.2.3.4/24"], Ok("OK")),
            (ip4addr, &["p1", "1.2.3.5"], Ok("OK")),
            (ip4addr, &["p1", "1.2.3.6/255.255.0.0"], Ok("OK")),
            (ip4addr, &["p1", "1.2.3"], Err("1.2.3: invalid IP address")),
            (ip4addr, &["p1", "1.2.3.4/24x"], Err("1.2.3.4/24x: invalid IP address")),
            (
                ip4addr,
                &["p1", "1.2.3.4/33"],
                Err("1.2.3.4/33: IPv4 network prefix bits not between 0 and 32, inclusive"),
            ),
            (ip6addr, &["p1", "fc00::1/64"], Ok("OK")),
            (ip6addr, &["p1", "fc00::2"], Ok("OK")),
            (ip6addr, &["p1", "fc00::3/ffff::"], Ok("OK")),
            (ip6addr, &["p1", "fc00::1x"], Err("fc00::1x: invalid IPv6 address")),
            (ip6addr, &["p1", "fc00::1/"], Err("fc00::1/: invalid IPv6 address")),
            (ip6addr, &["p1", "fc00::2/ffff::ff"], Err("fc00::2/ffff::ff: IPv6 CIDR network required")),
            (
                ip6addr,
                &["p1", "fc00::1/129"],
                Err("fc00::1/129: IPv6 network prefix bits not between 0 and 128, inclusive"),
            ),
        ];
        for (command, args, expect) in table {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(command(&registry, args), expect, "{args:?}");
        }
        let prefixes: Vec<u8> = p1.addresses().unwrap().iter().map(|(_, len)| *len).collect();
        assert_eq!(prefixes, [24, 32, 16, 64, 128, 16]);
        assert_eq!(set_admin_state(&registry, &["p2", "down"]), Ok("OK".to_owned()));
        assert!(p1.carrier().up && !p2.carrier().up);
        assert_eq!(set_admin_state(&registry, &["up"]), Ok("OK".to_owned()));
        assert!(p2.carrier().up);
    }
}
