//! A virtual machine in miniature: what would be behind the virtio device of a guest, in a thread that holds the TAP's
//! descriptor as QEMU does. It answers ARP, ICMP echo and UDP echo for one address; the rest it ignores.
//!
//! [`answer`] is the machine, bytes in, bytes out; [`Guest`] gives it the device. Frames carry virtio-net headers: what
//! comes in may have no transport checksum yet (the header says so, and here nobody needs it), what goes out has all.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use ib_base::time::Clock;
use ib_packet::csum;
use ib_stream::reactor::Reactor;
use ib_sys::tun::{Tap, VNET_HEADER_LEN};

use super::endpoint::ECHO_PORT;
use super::tenant::set_up;
use crate::daemon::stop::Stop;

const ETHERNET: usize = 14;
const ARP_LEN: usize = 28;
/// A super-frame and its Ethernet header.
const MAX_FRAME: usize = 65_536 + ETHERNET;

/// The guest and its device, which ends with it.
#[derive(Debug)]
pub struct Guest {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Makes the TAP `name` in this thread's network namespace, up, and a guest behind it.
    pub fn start(name: &str, ip: Ipv4Addr, mac: [u8; 6]) -> io::Result<Guest> {
        let tap = Tap::open(name)?;
        set_up(name)?;
        let stop = Arc::new(Stop::default());
        let theirs = Arc::clone(&stop);
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let made = Reactor::new(&Clock::new()).and_then(|reactor| {
                theirs.attach(reactor.handle());
                let key = reactor.handle().new_key();
                reactor.handle().register_fd(tap.as_raw_fd(), key)?;
                Ok(reactor)
            });
            match made {
                Ok(reactor) => {
                    drop(tell.send(Ok(())));
                    live(&tap, reactor, &theirs, ip, mac);
                }
                Err(e) => drop(tell.send(Err(e))),
            }
        })?;
        let guest = Guest { stop, thread: Some(thread) };
        told.recv().map_err(|_| io::Error::other("a thread has crashed"))??;
        Ok(guest)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            // A crash of the guest shows in the checks.
            let _ = thread.join();
        }
    }
}

fn live(tap: &Tap, mut reactor: Reactor, stop: &Stop, ip: Ipv4Addr, mac: [u8; 6]) {
    let mut frame = vec![0; MAX_FRAME];
    let no_offload = [0; VNET_HEADER_LEN];
    while !stop.is_requested() {
        // Edge-triggered: read until nothing is left.
        loop {
            let mut header = [0; VNET_HEADER_LEN];
            let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(&mut frame)];
            let n = match tap.read(parts) {
                Ok(n) => n.saturating_sub(VNET_HEADER_LEN),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if let Some(reply) = answer(&frame[..n], ip, mac) {
                // What the device does not take is lost, as on a wire.
                let _ = tap.write(&[IoSlice::new(&no_offload), IoSlice::new(&reply)]);
            }
        }
        if stop.is_requested() || reactor.wait(None).is_err() {
            return;
        }
    }
}

/// What the machine at `ip` and `mac` answers to a frame.
pub fn answer(frame: &[u8], ip: Ipv4Addr, mac: [u8; 6]) -> Option<Vec<u8>> {
    let to = frame.get(..6)?;
    if to != mac && to != [0xff; 6] {
        return None;
    }
    let payload = frame.get(ETHERNET..)?;
    let body = match frame.get(12..14)? {
        [0x08, 0x06] => arp(payload, ip, mac)?,
        [0x08, 0x00] => ipv4(payload, ip)?,
        _ => return None,
    };
    let mut reply = Vec::with_capacity(ETHERNET + body.len());
    reply.extend_from_slice(frame.get(6..12)?);
    reply.extend_from_slice(&mac);
    reply.extend_from_slice(frame.get(12..14)?);
    reply.extend_from_slice(&body);
    Some(reply)
}

/// RFC 826: a request for our address.
fn arp(request: &[u8], ip: Ipv4Addr, mac: [u8; 6]) -> Option<Vec<u8>> {
    let request = request.get(..ARP_LEN)?;
    if request[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || request[24..28] != ip.octets() {
        return None;
    }
    let mut reply = vec![0, 1, 8, 0, 6, 4, 0, 2];
    reply.extend_from_slice(&mac);
    reply.extend_from_slice(&ip.octets());
    reply.extend_from_slice(&request[8..18]);
    Some(reply)
}

fn ipv4(packet: &[u8], ip: Ipv4Addr) -> Option<Vec<u8>> {
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let packet = packet.get(..total)?;
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
    let whole = packet.first()? >> 4 == 4 && header_len >= 20 && fragment == 0;
    if !whole || packet.get(16..20)? != ip.octets() || header_len > total {
        return None;
    }
    let mut reply = packet.to_vec();
    // Changing places leaves the checksum of the header as it is; the new time to live does not.
    reply[12..16].copy_from_slice(&packet[16..20]);
    reply[16..20].copy_from_slice(&packet[12..16]);
    reply[8] = 64;
    reply[10..12].fill(0);
    let sum = csum::checksum(&reply[..header_len]);
    reply[10..12].copy_from_slice(&sum.to_bytes());
    let (header, body) = reply.split_at_mut(header_len);
    match header[9] {
        1 => icmp(body)?,
        17 => udp(header, body)?,
        _ => return None,
    }
    Some(reply)
}

fn icmp(message: &mut [u8]) -> Option<()> {
    if message.len() < 8 || message[..2] != [8, 0] {
        return None;
    }
    message[0] = 0;
    message[2..4].fill(0);
    let sum = csum::checksum(message);
    message[2..4].copy_from_slice(&sum.to_bytes());
    Some(())
}

fn udp(header: &[u8], datagram: &mut [u8]) -> Option<()> {
    if datagram.len() < 8 || datagram[2..4] != ECHO_PORT.to_be_bytes() {
        return None;
    }
    let len = u16::try_from(datagram.len()).ok()?;
    let (source, echo) = datagram.split_at_mut(2);
    source.swap_with_slice(&mut echo[..2]);
    datagram[4..6].copy_from_slice(&len.to_be_bytes());
    datagram[6..8].fill(0);
    let address = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).map(Ipv4Addr::from).ok();
    let pseudo = csum::pseudo_v4(address(12)?.into(), address(16)?.into(), 17, len);
    let sum = pseudo.bytes(datagram).checksum_udp();
    datagram[6..8].copy_from_slice(&sum.to_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    fn check(frame: &str, expect: &str) {
        let expect = Some(hex(expect)).filter(|e| !e.is_empty());
        assert_eq!(answer(&hex(frame), IP, MAC), expect, "{frame}");
    }

    #[test]
    fn arp_is_answered_for_its_address_alone() {
        check(
            "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000003",
            "020000000001 020000000003 0806 0001 0800 06 04 0002 020000000003 0a000003 020000000001 0a000001",
        );
        check(
            "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000004",
            "",
        );
    }

    #[test]
    fn icmp_and_udp_come_back() {
        check(
            "020000000003 020000000001 0800 45000020 00004000 400126da 0a000001 0a000003 0800 f3fa 0001 0002 01020300",
            "020000000001 020000000003 0800 45000020 00004000 400126da 0a000003 0a000001 0000 fbfa 0001 0002 01020300",
        );
        // Without a checksum, as an offloading sender leaves it; the answer has one.
        check(
            "020000000003 020000000001 0800 4500001e 00004000 401126cc 0a000001 0a000003 1000 0007 000a 0000 4142",
            "020000000001 020000000003 0800 4500001e 00004000 401126cc 0a000003 0a000001 0007 1000 000a 9a8d 4142",
        );
    }

    #[test]
    fn pieces_of_frames_are_ignored() {
        let whole = hex(
            "020000000003 020000000001 0800 45000020 00004000 400126da 0a000001 0a000003 0800 f3fa 0001 0002 01020300",
        );
        for len in 0..whole.len() {
            assert_eq!(answer(&whole[..len], IP, MAC), None, "{len}");
        }
        for at in 0..whole.len() {
            for value in [0, 0xff] {
                let mut other = whole.clone();
                other[at] = value;
                answer(&other, IP, MAC);
            }
        }
    }
}
