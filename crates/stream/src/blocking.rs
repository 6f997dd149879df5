//! Streams for tools, which have one peer and nothing else to do: connect, read and write, and block.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::stream::{split_host_port, unix_path, unsupported};

/// A connected stream that blocks.
#[derive(Debug)]
pub enum Blocking {
    /// `tcp:`
    Tcp(TcpStream),
    /// `unix:`
    Unix(UnixStream),
}

impl Blocking {
    /// Connects to `name`: `tcp:HOST[:PORT]` with a default port, or `unix:FILE`.
    pub fn connect(name: &str, default_port: u16) -> io::Result<Blocking> {
        let (scheme, target) = name.split_once(':').ok_or_else(|| unsupported(name))?;
        match scheme {
            "unix" => {
                let (path, dir) = ib_sys::socket::short_unix_path(&unix_path(target))?;
                let stream = UnixStream::connect(path)?;
                drop(dir);
                Ok(Blocking::Unix(stream))
            }
            "tcp" => {
                let bad = || io::Error::from_raw_os_error(97);
                let (host, port) = split_host_port(target).ok_or_else(bad)?;
                let port = match port {
                    Some(port) => port.parse().map_err(|_| bad())?,
                    None => default_port,
                };
                let addrs: Vec<SocketAddr> = match host.parse::<IpAddr>() {
                    Ok(ip) => vec![SocketAddr::new(ip, port)],
                    Err(_) => (host, port).to_socket_addrs()?.collect(),
                };
                let stream = TcpStream::connect(addrs.as_slice())?;
                // Requests are small and their answers awaited.
                stream.set_nodelay(true)?;
                Ok(Blocking::Tcp(stream))
            }
            _ => Err(unsupported(name)),
        }
    }

    /// Reads block no longer than this; `None` is for ever. A read that has waited in vain is `WouldBlock`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Blocking::Tcp(s) => s.set_read_timeout(timeout),
            Blocking::Unix(s) => s.set_read_timeout(timeout),
        }
    }

    /// A second handle of the same stream, to read with while another thread writes.
    pub fn try_clone(&self) -> io::Result<Blocking> {
        Ok(match self {
            Blocking::Tcp(s) => Blocking::Tcp(s.try_clone()?),
            Blocking::Unix(s) => Blocking::Unix(s.try_clone()?),
        })
    }
}

impl Read for Blocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Blocking::Tcp(s) => s.read(buf),
            Blocking::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Blocking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Blocking::Tcp(s) => s.write(buf),
            Blocking::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talks_and_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = Blocking::connect("tcp:localhost", port).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        server.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hello");
        assert_eq!(Blocking::connect("tcp:[::1", 1).unwrap_err().raw_os_error(), Some(97));
        assert_eq!(Blocking::connect("x", 1).unwrap_err().raw_os_error(), Some(97));
    }
}
