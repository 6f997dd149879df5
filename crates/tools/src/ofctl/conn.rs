//! A tool's connection to a switch: one thread, blocking, one request at a time.

use std::io::{self, Read, Write};
use std::path::Path;

use ib_base::errno::strerror;
use ib_base::time::Instant;
use ib_flow::fields::Protocols;
use ib_openflow::decode::{Decoded, decode};
use ib_openflow::encode::{EncodeOptions, encode_with};
use ib_openflow::flow_text::{protocols_of, protocols_text};
use ib_openflow::message::*;
use ib_openflow::print::{PrintOptions, message_text};
use ib_openflow::session::{Event, Session};
use ib_stream::blocking::Blocking;
use ib_sys::dirs;

use super::{Ctl, Fail, Result};

/// The port of `tcp:HOST`.
const OFP_PORT: u16 = 6653;

/// OpenFlow 1.0 without extensions: where every connection of that version begins.
const STD: Protocols = Protocols(1);

/// A connection that has agreed on a version.
pub struct Conn {
    stream: Blocking,
    session: Session,
    buf: Box<[u8]>,
    /// As `unix:/run/...`.
    pub name: String,
    /// The version.
    pub version: Version,
    /// How flows go, as one protocol.
    pub protocol: Protocols,
}

/// How much collects before it is sent.
const QUEUE_BYTES: usize = 32 * 1024;

/// How much is read in one go.
const READ_BYTES: usize = 64 * 1024;

/// Which socket of a bridge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Management.
    Mgmt,
    /// Copies of what controllers and switch say to each other.
    Snoop,
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

/// The full name of what the user calls `name`.
fn resolve(name: &str, target: Target) -> Result<String> {
    if name.contains(':') {
        return Ok(name.to_string());
    }
    let suffix = if target == Target::Snoop { "snoop" } else { "mgmt" };
    // `[TYPE@]BRIDGE` names the same socket.
    let bridge = name.rsplit_once('@').map_or(name, |(_, b)| b);
    let in_rundir = dirs::rundir().join(format!("{bridge}.{suffix}"));
    if is_socket(Path::new(name)) {
        return Ok(format!("unix:{name}"));
    }
    if is_socket(&in_rundir) {
        return Ok(format!("unix:{}", in_rundir.display()));
    }
    Err(Fail::Msg(format!("{name} is not a bridge or a socket")))
}

impl Ctl {
    /// Connects and negotiates.
    pub fn open(&mut self, name: &str) -> Result<Conn> {
        self.open_target(name, Target::Mgmt)
    }

    /// Connects to one of a bridge's sockets. A snooped connection takes any version.
    pub fn open_target(&mut self, name: &str, target: Target) -> Result<Conn> {
        let full = resolve(name, target)?;
        let unix = !name.contains(':');
        let stream = Blocking::connect(&full, OFP_PORT).map_err(|e| {
            let why = strerror(&e);
            Fail::Msg(match unix {
                true => format!("{name}: failed to connect to socket ({why})"),
                false => format!("connecting to {name} ({why})"),
            })
        })?;
        let mut session = Session::with_xid(&full, self.options.versions, self.xid);
        if target == Target::Snoop {
            session.listen_in();
        }
        let mut conn = Conn {
            stream,
            session,
            buf: vec![0; READ_BYTES].into(),
            name: full.clone(),
            version: Version::V10,
            protocol: STD,
        };
        self.xid = conn.session.peek_xid();
        let failed = |why: &str| match unix {
            true => Fail::Msg(format!("{name}: failed to connect to socket ({why})")),
            false => Fail::Msg(format!("connecting to {name} ({why})")),
        };
        loop {
            match conn.event() {
                Ok(Event::Negotiated(v)) => {
                    conn.version = v;
                    conn.protocol = if v == Version::V10 { STD } else { protocols_of(v) };
                    return Ok(conn);
                }
                Ok(Event::Failed { .. }) => {
                    let _ = conn.flush();
                    return Err(failed("Protocol error"));
                }
                Ok(Event::Message(_)) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(failed("End of file")),
                Err(e) => return Err(failed(&strerror(&e))),
            }
        }
    }

    /// A new transaction id.
    pub fn next_xid(&mut self) -> u32 {
        let xid = self.xid;
        self.xid = self.xid.wrapping_add(1);
        xid
    }

    fn encode(&mut self, conn: &Conn, m: &Message) -> (u32, Vec<u8>) {
        let xid = self.next_xid();
        (xid, conn.encode(m, xid))
    }

    /// Sends a message.
    pub fn send(&mut self, conn: &mut Conn, m: &Message) -> Result<u32> {
        let (xid, bytes) = self.encode(conn, m);
        conn.send_bytes(&bytes)?;
        Ok(xid)
    }

    /// Sends a request and returns the reply to it, whatever it is.
    pub fn transact(&mut self, conn: &mut Conn, m: &Message) -> Result<Vec<u8>> {
        let xid = self.send(conn, m)?;
        conn.reply_to(xid)
    }

    /// Sends an encoded request that has no reply unless it fails, and returns that.
    pub fn transact_noreply_bytes(&mut self, conn: &mut Conn, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let xid = xid_of(bytes);
        let (barrier, barrier_bytes) = self.encode(conn, &Message::BarrierRequest);
        // Together, for each wakes the switch.
        conn.session.send_bytes(bytes);
        conn.send_bytes(&barrier_bytes)?;
        let mut error = None;
        loop {
            let m = conn.recv()?;
            let got = xid_of(&m);
            if got == barrier {
                return Ok(error);
            }
            if got == xid && error.is_none() {
                error = Some(m);
            }
        }
    }

    /// Sends a request that has no reply unless it fails, and returns that.
    pub fn transact_noreply(&mut self, conn: &mut Conn, m: &Message) -> Result<Option<Vec<u8>>> {
        let (_, bytes) = self.encode(conn, m);
        self.transact_noreply_bytes(conn, &bytes)
    }

    /// Sends requests one after the other; the first that fails ends the program with its error.
    pub fn transact_all(&mut self, conn: &mut Conn, messages: &[Vec<u8>]) -> Result<()> {
        for m in messages {
            if let Some(reply) = self.transact_noreply_bytes(conn, m)? {
                let options = PrintOptions { verbosity: self.options.verbosity + 2, ..Default::default() };
                return Err(Fail::Text(message_text(&reply, &options)));
            }
        }
        Ok(())
    }

    /// Changes the flow format to `want`, if the switch goes along.
    pub fn try_set_protocol(&mut self, conn: &mut Conn, want: Protocols) -> Result<bool> {
        let is10 = |p: Protocols| p.0 & 0x0f != 0;
        if conn.protocol == want {
            return Ok(true);
        }
        if !is10(want) || !is10(conn.protocol) {
            return Ok(false);
        }
        let nxm = |p: Protocols| p.0 & 0x0c != 0;
        let tid = |p: Protocols| p.0 & 0x0a != 0;
        if nxm(conn.protocol) != nxm(want) {
            let f = if nxm(want) { FlowFormat::Nxm } else { FlowFormat::OpenFlow10 };
            if self.transact_noreply(conn, &Message::SetFlowFormat(f))?.is_some() {
                return Ok(false);
            }
            conn.protocol = match (nxm(want), tid(conn.protocol)) {
                (false, false) => Protocols(1),
                (false, true) => Protocols(2),
                (true, false) => Protocols(4),
                (true, true) => Protocols(8),
            };
        }
        if tid(conn.protocol) != tid(want) {
            if self.transact_noreply(conn, &Message::FlowModTableId(tid(want)))?.is_some() {
                return Ok(false);
            }
            conn.protocol = want;
        }
        Ok(true)
    }

    /// The text for protocols that are usable but not allowed.
    fn not_allowed(&self, usable: Protocols) -> Fail {
        Fail::Msg(format!(
            "none of the usable flow formats ({}) is among the allowed flow formats ({})",
            protocols_text(usable),
            protocols_text(self.options.protocols)
        ))
    }

    /// Connects for flow_mods that only `usable` protocols can carry.
    pub fn open_for_flow_mod(&mut self, name: &str, usable: Protocols) -> Result<Conn> {
        let allowed = usable.and(self.options.protocols);
        if allowed == Protocols::NONE {
            return Err(self.not_allowed(usable));
        }
        let mut conn = self.open(name)?;
        if conn.protocol.and(allowed) != Protocols::NONE {
            return Ok(conn);
        }
        for bit in 0..9 {
            let p = Protocols(1 << bit);
            if p != conn.protocol
                && p.and(allowed) != Protocols::NONE
                && self.try_set_protocol(&mut conn, p)?
            {
                return Ok(conn);
            }
        }
        Err(Fail::Msg(format!(
            "switch does not support any of the usable flow formats ({})",
            protocols_text(usable)
        )))
    }

    /// Picks the protocol to ask for flows with.
    pub fn set_dump_protocol(&mut self, conn: &mut Conn, usable: Protocols) -> Result<()> {
        let allowed = usable.and(self.options.protocols);
        // Newest first; of OpenFlow 1.0's, NXM first.
        for bits in [0x100, 0x80, 0x40, 0x20, 0x10, 0x04, 0x01] {
            let p = Protocols(bits);
            if p.and(allowed) != Protocols::NONE && self.try_set_protocol(conn, p)? {
                return Ok(());
            }
        }
        if allowed == Protocols::NONE {
            return Err(self.not_allowed(usable));
        }
        Err(Fail::Msg(format!(
            "switch does not support any of the usable flow formats ({})",
            protocols_text(usable)
        )))
    }
}

/// A message's transaction id.
pub fn xid_of(bytes: &[u8]) -> u32 {
    ib_openflow::raw::parse_header(bytes).map_or(0, |h| h.xid)
}

impl Conn {
    /// Encodes as this connection's protocol says.
    pub fn encode(&self, m: &Message, xid: u32) -> Vec<u8> {
        let p = self.protocol.0;
        let options = EncodeOptions { nxm: p & 0x0c != 0, table_id: p & 0x0a != 0 };
        encode_with(m, self.version, xid, options)
    }

    fn flush(&mut self) -> io::Result<()> {
        let out = self.session.output();
        let sent = self.stream.write_all(out);
        out.clear();
        sent
    }

    /// Waits for the next event.
    fn event(&mut self) -> io::Result<Event> {
        loop {
            self.flush()?;
            if let Some(e) = self.session.event() {
                return Ok(e);
            }
            match self.stream.read(&mut self.buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.session.input(&self.buf[..n], Instant::ZERO),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn talking(&self, why: &str) -> Fail {
        Fail::Msg(format!("talking to {} ({why})", self.name))
    }

    /// Sends bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.session.send_bytes(bytes);
        self.flush().map_err(|e| self.talking(&strerror(&e)))
    }

    /// Sends bytes with others that follow: at the latest with the next [`Self::send_bytes`].
    pub fn queue_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.session.send_bytes(bytes);
        if self.session.output().len() < QUEUE_BYTES {
            return Ok(());
        }
        self.flush().map_err(|e| self.talking(&strerror(&e)))
    }

    /// Receives a message.
    pub fn recv(&mut self) -> Result<Vec<u8>> {
        match self.event() {
            Ok(Event::Message(m)) => Ok(m),
            Ok(Event::Negotiated(_)) => self.recv(),
            Ok(Event::Failed { .. }) => Err(self.talking("Protocol error")),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.talking("End of file")),
            Err(e) => Err(self.talking(&strerror(&e))),
        }
    }

    /// Receives the reply to a transaction, passing over others.
    pub fn reply_to(&mut self, xid: u32) -> Result<Vec<u8>> {
        loop {
            let m = self.recv()?;
            if xid_of(&m) == xid {
                return Ok(m);
            }
        }
    }

    /// A second handle of the stream, and what was received but not yet taken.
    pub fn split(mut self) -> io::Result<(Blocking, Blocking, Vec<Vec<u8>>)> {
        let mut pending = Vec::new();
        while let Some(e) = self.session.event() {
            if let Event::Message(m) = e {
                pending.push(m);
            }
        }
        Ok((self.stream.try_clone()?, self.stream, pending))
    }
}

/// Decodes what a switch sent, or says that it is garbage.
pub fn must_decode(bytes: &[u8]) -> Result<Decoded> {
    decode(bytes).map_err(|e| Fail::Msg(format!("received bad message ({e})")))
}
