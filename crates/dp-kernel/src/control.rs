//! What only a datapath of our own understands: settings, bonds, commands.
//!
//! Messages of [`Family::Control`]; their attributes are numbered by [`attr`], whatever the command.

use std::collections::BTreeMap;

use ib_dpif::netlink::attributes;
use ib_dpif::{DpifError, PortDevice};
use ib_flow::OdpPort;
use ib_sys::netlink::text;

use crate::message::put_map;
use crate::provider::Link;
use crate::transport::Family;
use crate::wire::Wire;

/// Commands.
#[allow(missing_docs)]
pub mod command {
    pub const SET_CONFIG: u8 = 1;
    pub const PORT_SET_CONFIG: u8 = 2;
    pub const BOND_SET: u8 = 3;
    pub const BOND_BYTES: u8 = 4;
    pub const BOND_DEL: u8 = 5;
    pub const APPCTL: u8 = 6;
    /// Makes the connection that it comes by a way for upcalls.
    pub const LISTEN: u8 = 7;
    /// A call of [`crate::connections`]; always a listing.
    pub const CONNTRACK: u8 = 8;
    /// Asks whether the place of the control plane is free or ours. Refused with `EBUSY`, as all else is then; `NUMBER` is the process
    /// that has it.
    pub const ATTACH: u8 = 9;
    /// What a port's device says of itself.
    pub const PORT_DEVICE: u8 = 10;
}

/// Attributes.
#[allow(missing_docs)]
pub mod attr {
    pub const NUMBER: u16 = 1;
    pub const MAP: u16 = 2;
    pub const DATA: u16 = 3;
    pub const TEXT: u16 = 4;
    pub const ERROR: u16 = 5;
}

pub(crate) fn set_config(link: &Link, config: &BTreeMap<String, String>) -> Result<(), DpifError> {
    link.tell(Family::Control, command::SET_CONFIG, 0, "settings", |w| {
        w.nest(attr::MAP, |w| put_map(w, config));
        Ok(())
    })
}

pub(crate) fn port_set_config(
    link: &Link,
    port: OdpPort,
    config: &BTreeMap<String, String>,
) -> Result<(), DpifError> {
    link.tell(Family::Control, command::PORT_SET_CONFIG, 0, "settings of a port", |w| {
        w.put_u32(attr::NUMBER, port.0);
        w.nest(attr::MAP, |w| put_map(w, config));
        Ok(())
    })
}

pub(crate) fn port_device(link: &Link, port: OdpPort) -> Option<PortDevice> {
    let answer = link.ask(Family::Control, command::PORT_DEVICE, 0, "device of a port", |w| {
        w.put_u32(attr::NUMBER, port.0);
        Ok(())
    });
    let answer = answer.ok()?;
    let data = attributes(&answer).flatten().find(|(kind, _)| *kind == attr::DATA);
    PortDevice::from_bytes(data?.1)
}

pub(crate) fn bond_set(link: &Link, id: u32, ports: &[OdpPort]) -> Result<(), DpifError> {
    let bytes: Vec<u8> = ports.iter().flat_map(|p| p.0.to_ne_bytes()).collect();
    link.tell(Family::Control, command::BOND_SET, 0, "bond", |w| {
        w.put_u32(attr::NUMBER, id);
        w.put(attr::DATA, &bytes);
        Ok(())
    })
}

pub(crate) fn bond_bytes(link: &Link, id: u32) -> Result<Vec<u64>, DpifError> {
    let answer = link.ask(Family::Control, command::BOND_BYTES, 0, "bond", |w| {
        w.put_u32(attr::NUMBER, id);
        Ok(())
    })?;
    let data = attributes(&answer).flatten().find(|(kind, _)| *kind == attr::DATA);
    let (words, _) = data.map_or(&[][..], |(_, data)| data).as_chunks::<8>();
    Ok(words.iter().map(|w| u64::from_ne_bytes(*w)).collect())
}

pub(crate) fn bond_del(link: &Link, id: u32) -> Result<(), DpifError> {
    link.tell(Family::Control, command::BOND_DEL, 0, "bond", |w| {
        w.put_u32(attr::NUMBER, id);
        Ok(())
    })
}

/// Runs a command there.
pub(crate) fn appctl(link: &Link, args: &[&str]) -> Result<String, String> {
    let answer = link.ask(Family::Control, command::APPCTL, 0, "command", |w| {
        args.iter().for_each(|arg| w.put_text(attr::TEXT, arg));
        Ok(())
    });
    let answer = answer.map_err(|e| e.to_string())?;
    let mut out = Ok(String::new());
    for (kind, data) in attributes(&answer).flatten() {
        match kind {
            attr::TEXT => out = Ok(text(data)),
            attr::ERROR => out = Err(text(data)),
            _ => {}
        }
    }
    out
}
