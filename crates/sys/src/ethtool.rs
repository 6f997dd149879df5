//! What a driver says about itself: name, speed, duplex (SIOCETHTOOL).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::eventfd::check;

const ETHTOOL_GSET: u32 = 1;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`, the parts that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverInfo {
    /// Driver.
    pub driver: String,
    /// Its version.
    pub version: String,
    /// Firmware.
    pub firmware: String,
}

/// `struct ethtool_cmd`, the parts that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// `SUPPORTED_*` bits.
    pub supported: u32,
    /// `ADVERTISED_*` bits.
    pub advertising: u32,
    /// `ADVERTISED_*` bits of the partner.
    pub partner: u32,
    /// Megabits a second; `None` unknown.
    pub speed_mbps: Option<u32>,
    /// `Some(true)` full; `None` unknown.
    pub full_duplex: Option<bool>,
    /// Port type: 0 twisted pair, 3 fibre.
    pub port: u8,
    /// Autonegotiation is on.
    pub autoneg: bool,
}

fn ethtool(name: &str, data: &mut [u8]) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= req.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in req.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    req.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    // SAFETY: no pointers; the descriptor that returns is ours alone.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: fd was just opened and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: req lives through the call; each caller passes a buffer of the command's full structure.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL, &mut req) })?;
    Ok(())
}

fn string(b: &[u8]) -> String {
    CStr::from_bytes_until_nul(b).map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Driver of the device `name`.
pub fn driver_info(name: &str) -> io::Result<DriverInfo> {
    // cmd, driver[32], version[32], fw_version[32], bus_info[32], erom_version[32], reserved2[12], 5 counts.
    let mut b = [0u8; 4 + 5 * 32 + 12 + 5 * 4];
    b[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    ethtool(name, &mut b)?;
    Ok(DriverInfo { driver: string(&b[4..36]), version: string(&b[36..68]), firmware: string(&b[68..100]) })
}

/// Speed and modes of the device `name`.
pub fn link_settings(name: &str) -> io::Result<LinkSettings> {
    // cmd, supported, advertising, speed, duplex, port, phy_address, transceiver, autoneg, mdio_support,
    // maxtxpkt, maxrxpkt, speed_hi, eth_tp_mdix, eth_tp_mdix_ctrl, lp_advertising, reserved[2].
    let mut b = [0u8; 44];
    b[..4].copy_from_slice(&ETHTOOL_GSET.to_ne_bytes());
    ethtool(name, &mut b)?;
    let u16_at = |at: usize| u32::from(u16::from_ne_bytes([b[at], b[at + 1]]));
    let u32_at = |at: usize| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let speed = u16_at(28) << 16 | u16_at(12);
    Ok(LinkSettings {
        supported: u32_at(4),
        advertising: u32_at(8),
        partner: u32_at(32),
        speed_mbps: (speed != u32::MAX && speed != 0xffff && speed != 0).then_some(speed),
        full_duplex: match b[14] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        port: b[15],
        autoneg: b[18] != 0,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_device_that_is_not_there_says_so() {
        let e = super::driver_info("no-such-dev0").unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENODEV));
        let e = super::driver_info("a-name-that-is-far-too-long").unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENODEV));
    }
}
