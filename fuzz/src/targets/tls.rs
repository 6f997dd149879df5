//! TLS: what a stranger sends to a listener, and what becomes of two honest ends when somebody sits on the wire.
//!
//! Keys and random numbers are new in each run, so that an input disturbs the same places of other bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::OnceLock;

use ib_base::vlog;
use ib_stream::tls::{Session, Settings, check, configure};

use crate::choices::Choices;

/// What `openssl s_client` says first, over TLS 1.3 and 1.2; an alert; OpenFlow, and HTTP, to the wrong port.
pub const HELLO_SEEDS: &[&[u8]] = &[
    include_bytes!("../../tls/hello-1.3"),
    include_bytes!("../../tls/hello-1.2"),
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x04\x00\x00\x08\x00\x00\x00\x01",
    b"GET / HTTP/1.0\r\n\r\n",
];

/// Bytes as [`disturbed`] reads them: nothing happens to the wire, then something does at each stage.
pub const DISTURBED_SEEDS: &[&[u8]] = &[
    &[3; 24],
    &[0, 3, 1, 3, 0, 3, 1, 4, 0, 7, 0x20, 3, 3, 3, 3, 3],
    &[0, 3, 1, 3, 0, 3, 1, 3, 0, 3, 1, 3, 0, 3, 1, 4, 1, 0, 0xff, 3, 3],
    &[0, 5, 0, 9, 1, 6, 2, 1, 0, 7, 0, 3],
];

/// The most that waits on the wire in one direction.
const WIRE: usize = 1 << 16;

/// Both ends have the same certificate, and trust who signed it.
fn ready() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        vlog::set("ANY:ANY:off").expect("a level");
        let file = |name: &str| format!("{}/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        configure(Settings {
            private_key: file("key.pem"),
            certificate: file("cert.pem"),
            ca_cert: file("ca.pem"),
            ..Settings::default()
        });
        check().expect("our own certificate");
    });
}

/// One end of the wire.
struct Socket<'a> {
    coming: &'a mut VecDeque<u8>,
    going: &'a mut VecDeque<u8>,
}

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.coming.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.coming.read(buf) }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = WIRE.saturating_sub(self.going.len()).min(buf.len());
        if room == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { self.going.write(&buf[..room]) }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a stranger sends, in pieces. Nobody comes in who has not shown a certificate.
pub fn hello(input: &[u8]) {
    ready();
    let mut session = Session::server().expect("a session");
    let (mut coming, mut going) = (VecDeque::new(), VecDeque::new());
    for piece in input.chunks(97) {
        coming.extend(piece);
        match session.handshake(&mut Socket { coming: &mut coming, going: &mut going }) {
            Ok(()) => panic!("a stranger came in"),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert!(coming.len() < WIRE && going.len() <= WIRE);
    session.close(&mut going);
}

/// One end: its session while that lives, what it has sent and what it has been told.
struct End {
    session: Option<Session>,
    open: bool,
    sent: Vec<u8>,
    told: Vec<u8>,
}

impl End {
    fn new(session: io::Result<Session>) -> End {
        End { session: Some(session.expect("a session")), open: false, sent: Vec::new(), told: Vec::new() }
    }

    /// Shakes hands, then listens, then speaks.
    fn step(&mut self, socket: &mut Socket<'_>, words: &[u8]) {
        let Some(session) = &mut self.session else { return };
        let mut done = Ok(());
        if !self.open {
            done = session.handshake(socket);
            self.open = done.is_ok();
        }
        if self.open {
            let mut buf = [0; 256];
            while done.is_ok() {
                match session.recv(socket, &mut buf) {
                    Ok(0) => done = Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => self.told.extend(&buf[..n]),
                    Err(e) => done = Err(e),
                }
            }
            if let Ok((n, _)) = session.send(socket, words) {
                self.sent.extend(&words[..n]);
            }
        }
        if done.is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock) {
            self.session = None;
        }
    }
}

/// Does something to the bytes that are under way.
fn disturb(wire: &mut VecDeque<u8>, choices: &mut Choices<'_>) {
    let what = choices.below(8);
    if what == 3 || wire.is_empty() {
        return;
    }
    let at = usize::from(choices.u16()) % wire.len();
    match what {
        0 | 1 => wire[at] ^= choices.byte(),
        2 => wire.truncate(at),
        4 => drop(wire.remove(at)),
        5 => {
            let again: Vec<u8> = wire.iter().skip(at).take(64).copied().collect();
            wire.extend(again);
        }
        6 => wire.insert(at, choices.byte()),
        _ => wire.clear(),
    }
}

/// Two ends and somebody between them: what an end is told is what the other has sent, as far as it goes, whatever is done to the wire.
pub fn disturbed(input: &[u8]) {
    ready();
    let mut ends = [End::new(Session::client("fuzz")), End::new(Session::server())];
    let mut wires = [VecDeque::new(), VecDeque::new()];
    let mut choices = Choices::new(input);
    for step in 0..64 {
        let who = step % 2;
        let [first, second] = &mut wires;
        let (coming, going) = if who == 0 { (second, first) } else { (first, second) };
        ends[who].step(&mut Socket { coming, going }, &[step as u8; 40]);
        disturb(going, &mut choices);
        if !choices.more() && (step > 24 || ends.iter().all(|e| e.session.is_none())) {
            break;
        }
    }
    let [client, server] = &ends;
    assert!(server.sent.starts_with(&client.told) && client.sent.starts_with(&server.told));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undisturbed_conversation_takes_place() {
        ready();
        let (mut client, mut server) = (End::new(Session::client("fuzz")), End::new(Session::server()));
        let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
        for _ in 0..8 {
            client.step(&mut Socket { coming: &mut back, going: &mut there }, b"request ");
            server.step(&mut Socket { coming: &mut there, going: &mut back }, b"reply ");
        }
        assert!(server.told.starts_with(b"request request ") && client.told.starts_with(b"reply reply "));
    }
}
