//! The syslog destination: `/dev/log`, a UNIX or UDP socket, or nothing.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use super::pattern::{Pattern, Record};

/// RFC 5424, as `--syslog-target` sends.
const TARGET_PATTERN: &str = "<%B>1 %D{%Y-%m-%dT%H:%M:%S.###Z} %E %A %P %c - \u{feff}%m";

enum Method {
    Null,
    /// The system's log daemon, the way the C library talks to it.
    Libc(UnixDatagram),
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

pub(super) struct Syslog {
    method: Method,
    target: Option<(UdpSocket, Pattern)>,
}

fn unix(path: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(path).ok()?;
    Some(socket)
}

fn udp(target: &str) -> std::io::Result<UdpSocket> {
    use std::net::ToSocketAddrs;
    let target = if target.contains(':') { target.to_string() } else { format!("{target}:514") };
    let to = target.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Syslog {
    pub(super) fn from_env() -> Syslog {
        let mut syslog = Syslog { method: Method::Null, target: None };
        if !syslog.set_method(std::env::var("OVS_SYSLOG_METHOD").as_deref().unwrap_or("libc")) {
            syslog.set_method("libc");
        }
        syslog
    }

    /// False if there is no such method.
    pub(super) fn set_method(&mut self, method: &str) -> bool {
        let libc = || unix("/dev/log").map_or(Method::Null, Method::Libc);
        self.method = match method.split_once(':') {
            None if method == "null" => Method::Null,
            Some(("unix", path)) => unix(path).map_or(Method::Null, Method::Unix),
            Some(("udp", to)) => udp(to).map_or(Method::Null, Method::Udp),
            None if method == "libc" => libc(),
            _ => return false,
        };
        true
    }

    /// False if the target cannot be reached in any way.
    pub(super) fn set_target(&mut self, target: &str) -> bool {
        let socket = udp(target).ok();
        let known = socket.is_some();
        self.target = socket.map(|socket| (socket, Pattern::new(TARGET_PATTERN)));
        known
    }

    pub(super) fn is_open(&self) -> bool {
        self.target.is_some() || !matches!(self.method, Method::Null)
    }

    pub(super) fn wants_prefix(&self) -> bool {
        matches!(self.method, Method::Unix(_) | Method::Udp(_))
    }

    /// Sends `text`, a datagram a line. What cannot be sent is lost: the log never blocks the switch.
    pub(super) fn send(&self, prefix: &str, text: &str, record: &Record<'_>) {
        for line in text.lines() {
            let _ = match &self.method {
                Method::Null => Ok(0),
                Method::Libc(socket) => {
                    let mut head = String::new();
                    Pattern::new("<%B>%d{%h %e %T} %A: ").format(record, &mut head);
                    socket.send(format!("{head}{line}").as_bytes())
                }
                Method::Unix(socket) => socket.send(format!("{prefix} {line}").as_bytes()),
                Method::Udp(socket) => socket.send(format!("{prefix} {line}").as_bytes()),
            };
        }
        if let Some((socket, pattern)) = &self.target {
            let mut line = String::new();
            pattern.format(record, &mut line);
            let _ = socket.send(line.as_bytes());
        }
    }
}
