//! UDP sockets to collectors.
//!
//! Sockets are connected, so that a collector that is not there shows as an error of the next send. Nothing waits: what can't be
//! sent at once is lost, and counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ib_base::errno::strerror_num;
use ib_base::vlog::module::{COLLECTORS, SOCKET_UTIL};
use ib_base::{vlog_err, vlog_warn_rl};
use ib_export::Collect;
use ib_export::target::{self, TargetError};

/// EAFNOSUPPORT: what a target that is no address comes to.
const EAFNOSUPPORT: i32 = 97;

/// The collectors of one exporter.
#[derive(Debug, Default)]
pub struct Collectors {
    targets: Vec<String>,
    sockets: Vec<UdpSocket>,
}

impl Collectors {
    /// Opens a socket to each target that is one.
    pub fn open(targets: &[String], default_port: u16) -> Collectors {
        let mut sockets = Vec::new();
        for target in targets {
            let opened = parse(target, default_port).map_or(Err(EAFNOSUPPORT), |to| {
                connect(to).map_err(|e| e.raw_os_error().unwrap_or(EAFNOSUPPORT))
            });
            match opened {
                Ok(socket) => sockets.push(socket),
                Err(errno) => {
                    let why = strerror_num(errno);
                    vlog_warn_rl!(
                        COLLECTORS,
                        (1, 5),
                        "couldn't open connection to collector {target} ({why})"
                    );
                }
            }
        }
        Collectors { targets: targets.to_vec(), sockets }
    }

    /// Whether these are the targets.
    pub fn are(&self, targets: &[String]) -> bool {
        self.targets == targets
    }

    /// Not one target could be used.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

impl Collect for Collectors {
    fn send(&mut self, datagram: &[u8]) -> (u64, u64) {
        let (mut sent, mut failed) = (0, 0);
        for socket in &self.sockets {
            match socket.send(datagram) {
                Ok(_) => sent += 1,
                Err(e) => {
                    failed += 1;
                    let name = |a: std::io::Result<SocketAddr>| a.map_or("?".to_owned(), |a| a.to_string());
                    vlog_warn_rl!(
                        COLLECTORS,
                        (1, 5),
                        "{}<->{}: sending to collector failed ({})",
                        name(socket.local_addr()),
                        name(socket.peer_addr()),
                        strerror_num(e.raw_os_error().unwrap_or(0))
                    );
                }
            }
        }
        (sent, failed)
    }
}

fn connect(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}

/// Reads a target, and logs what is wrong with it.
pub(super) fn parse(target: &str, default_port: u16) -> Option<SocketAddr> {
    let why = match target::parse(target, default_port) {
        Ok(address) => return Some(address),
        Err(TargetError::Address) => return None,
        Err(TargetError::NoPort) => "port must be specified".to_owned(),
        Err(TargetError::Port(text)) => format!("bad port number \"{text}\""),
    };
    vlog_err!(SOCKET_UTIL, "{target}: {why}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_there_receives() {
        let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = collector.local_addr().unwrap().to_string();
        let mut c = Collectors::open(&[target, "nonsense".into()], 0);
        assert!(!c.is_empty());
        assert_eq!(c.send(b"hello"), (1, 0));
        let mut buffer = [0; 16];
        assert_eq!(collector.recv(&mut buffer).unwrap(), 5);
    }
}
