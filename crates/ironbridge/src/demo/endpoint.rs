//! What tenants say to each other: ping, UDP echo, bulk TCP. Each function blocks for a bounded time and runs in a thread
//! of its tenant's namespace; a signal that the process holds ends it early.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ib_packet::csum;
use ib_sys::{signal, socket};

use super::tenant::Tenant;

/// The port of UDP echo (RFC 862).
pub const ECHO_PORT: u16 = 7;
/// The port that takes bulk TCP in, as iperf's.
pub const BULK_PORT: u16 = 5001;

/// The longest that a server looks away from its stop flag.
const TICK: Duration = Duration::from_millis(50);
/// The longest that an established TCP connection may stand still.
const STALL: Duration = Duration::from_secs(3);
/// After so many losses in a row the rest is given up: nobody is there.
const HOPELESS: u32 = 3;
/// Bulk data is a row of blocks of this size that begin with their number.
const BLOCK: usize = 64 * 1024;

fn interrupted() -> io::Result<()> {
    match signal::held() {
        Some(_) => Err(io::ErrorKind::Interrupted.into()),
        None => Ok(()),
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Answers to a series of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replies {
    /// Requests.
    pub sent: u32,
    /// Round-trip times of those answered, in order.
    pub rtts: Vec<Duration>,
    /// Whether the first request was answered.
    pub first_answered: bool,
}

impl Replies {
    /// How many were answered.
    pub fn received(&self) -> usize {
        self.rtts.len()
    }

    /// Whether all were.
    pub fn complete(&self) -> bool {
        self.sent > 0 && u32::try_from(self.rtts.len()).is_ok_and(|n| n == self.sent)
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        let mut all = self.rtts.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }
}

/// An ICMP echo request.
fn echo_request(id: u16, seq: u16) -> [u8; 64] {
    let mut m = [0u8; 64];
    m[0] = 8;
    m[4..6].copy_from_slice(&id.to_be_bytes());
    m[6..8].copy_from_slice(&seq.to_be_bytes());
    for (i, b) in m[8..].iter_mut().enumerate() {
        *b = i as u8;
    }
    let sum = csum::checksum(&m);
    m[2..4].copy_from_slice(&sum.to_bytes());
    m
}

/// Whether a received IP packet is the answer.
fn is_answer(packet: &[u8], request: &[u8; 64]) -> bool {
    let Some(first) = packet.first() else { return false };
    let icmp = packet.get(usize::from(first & 0xf) * 4..).unwrap_or_default();
    icmp.first() == Some(&0) && icmp.get(4..64) == request.get(4..64)
}

/// Sends up to `count` pings, the next when the last was answered or `wait` has passed.
pub fn ping(to: Ipv4Addr, count: u16, wait: Duration) -> io::Result<Replies> {
    let socket = socket::icmp()?;
    let mut replies = Replies::default();
    let id = std::process::id() as u16;
    let mut buf = [0; 2048];
    let mut lost = 0;
    for seq in 1..=count {
        interrupted()?;
        if lost == HOPELESS {
            break;
        }
        lost += 1;
        let request = echo_request(id, seq);
        let start = Instant::now();
        replies.sent += 1;
        // Nobody having answered ARP is an answer missing, not an error.
        match socket.send_to(&request, SocketAddrV4::new(to, 0)) {
            Err(e) if e.kind() != io::ErrorKind::HostUnreachable => return Err(e),
            _ => {}
        }
        while let Some(left) = wait.checked_sub(start.elapsed()).filter(|d| !d.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buf) {
                Ok(n) if is_answer(&buf[..n], &request) => {
                    lost = 0;
                    replies.first_answered |= seq == 1;
                    replies.rtts.push(start.elapsed());
                    break;
                }
                Ok(_) => {}
                Err(e) if is_timeout(&e) => interrupted()?,
                Err(e) if e.kind() == io::ErrorKind::HostUnreachable => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(replies)
}

/// Sends up to `count` datagrams of `size` bytes to an echo server, one at a time; an answer must be equal.
pub fn udp_echo(to: Ipv4Addr, count: u16, size: usize, wait: Duration) -> io::Result<Replies> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, ECHO_PORT))?;
    let mut replies = Replies::default();
    let mut buf = vec![0; size + 1];
    let mut lost = 0;
    for n in 0..count {
        interrupted()?;
        if lost == HOPELESS {
            break;
        }
        lost += 1;
        let mut message = vec![n as u8; size];
        message[..2].copy_from_slice(&n.to_be_bytes());
        let start = Instant::now();
        replies.sent += 1;
        // A host that can't be reached answers a later call with an error; that is no answer.
        if socket.send(&message).is_err() {
            continue;
        }
        while let Some(left) = wait.checked_sub(start.elapsed()).filter(|d| !d.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buf) {
                Ok(len) if buf[..len] == message[..] => {
                    lost = 0;
                    replies.first_answered |= n == 0;
                    replies.rtts.push(start.elapsed());
                    break;
                }
                Ok(_) => {}
                Err(e) if is_timeout(&e) => interrupted()?,
                Err(_) => break,
            }
        }
    }
    Ok(replies)
}

/// What a bulk transfer came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bulk {
    /// Bytes that arrived, in order and unchanged as far as the blocks' numbers tell.
    pub bytes: u64,
    /// The time that it took.
    pub elapsed: Duration,
}

impl Bulk {
    /// Gigabits a second.
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64().max(1e-9) / 1e9
    }
}

/// Sends blocks to a bulk server for `time`; the server tells how much of it arrived rightly.
pub fn bulk(to: Ipv4Addr, time: Duration) -> io::Result<Bulk> {
    let address = SocketAddr::from((to, BULK_PORT));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_write_timeout(Some(STALL))?;
    stream.set_read_timeout(Some(STALL))?;
    let mut block = vec![0xa5; BLOCK];
    let start = Instant::now();
    let mut sent = 0u64;
    while start.elapsed() < time {
        interrupted()?;
        block[..8].copy_from_slice(&(sent / BLOCK as u64).to_be_bytes());
        stream.write_all(&block)?;
        sent += BLOCK as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    let bytes = u64::from_be_bytes(answer);
    if bytes != sent {
        return Err(io::Error::other(format!("{sent} bytes were sent, {bytes} arrived rightly")));
    }
    Ok(Bulk { bytes, elapsed: start.elapsed() })
}

/// Takes one bulk transfer in; answers with the number of bytes up to the first wrong block.
fn take_bulk(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(STALL))?;
    let mut block = vec![0; BLOCK];
    let (mut filled, mut total, mut right) = (0, 0u64, true);
    let mut last = Instant::now();
    loop {
        match stream.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => {
                last = Instant::now();
                filled += n;
                if filled == BLOCK {
                    right &= block[..8] == (total / BLOCK as u64).to_be_bytes() && block[BLOCK - 1] == 0xa5;
                    total += if right { BLOCK as u64 } else { 0 };
                    filled = 0;
                }
            }
            Err(e) if is_timeout(&e) && !stop.load(Ordering::Relaxed) && last.elapsed() < STALL => {}
            Err(e) => return Err(e),
        }
    }
    stream.write_all(&total.to_be_bytes())
}

fn serve_echo(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(TICK))?;
    let mut buf = vec![0; 65536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buf) {
            // An answer that can't be sent is one that the client will miss.
            Ok((n, from)) => drop(socket.send_to(&buf[..n], from)),
            Err(e) if is_timeout(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn serve_bulk(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // The client reports what went wrong.
            Ok((stream, _)) => drop(take_bulk(stream, stop)),
            Err(e) if is_timeout(&e) => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The servers of one tenant, which end with this guard.
#[derive(Debug)]
pub struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Servers {
    /// Starts UDP echo and bulk TCP servers; both are bound when it returns.
    pub fn start(tenant: &Tenant) -> io::Result<Servers> {
        let stop = Arc::new(AtomicBool::new(false));
        let ip = tenant.ip;
        let (udp, tcp) = tenant
            .within(move || Ok((UdpSocket::bind((ip, ECHO_PORT))?, TcpListener::bind((ip, BULK_PORT))?)))?;
        let mut servers = Servers { stop: Arc::clone(&stop), threads: Vec::new() };
        let theirs = Arc::clone(&stop);
        servers.threads.push(tenant.start(move || serve_echo(&udp, &theirs))?);
        servers.threads.push(tenant.start(move || serve_bulk(&tcp, &stop))?);
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Their clients have told what went wrong.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_messages() {
        let request = echo_request(0x1234, 7);
        assert_eq!((&request[..2], &request[4..8]), (&[8, 0][..], &[0x12, 0x34, 0, 7][..]));
        assert_eq!(csum::checksum(&request).to_bytes(), [0, 0], "the sum over all is right");
        let mut answer = vec![0x45; 20];
        answer.extend(request);
        assert!(!is_answer(&answer, &request), "that is a request");
        answer[20] = 0;
        assert!(is_answer(&answer, &request));
        assert!(!is_answer(&answer, &echo_request(0x1234, 8)));
        assert!(!is_answer(&answer[..19], &request) && !is_answer(&[], &request));
    }

    #[test]
    fn bulk_notices_what_is_wrong() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            take_bulk(listener.accept().unwrap().0, &AtomicBool::new(false)).unwrap();
        });
        let mut client = TcpStream::connect(address).unwrap();
        for n in [0u64, 1, 3] {
            let mut block = vec![0xa5; BLOCK];
            block[..8].copy_from_slice(&n.to_be_bytes());
            client.write_all(&block).unwrap();
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(u64::from_be_bytes(answer), 2 * BLOCK as u64);
        server.join().unwrap();
    }
}
