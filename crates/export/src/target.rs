//! Collectors' addresses as the database has them: `IP[:PORT]`, an IPv6 address in brackets.

use std::net::{IpAddr, SocketAddr};

/// Why a target can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// No IP address. Names are not looked up.
    Address,
    /// This is no port.
    Port(String),
    /// There is no port, and no default.
    NoPort,
}

/// Reads a target. Without a default (0) the port must be there.
pub fn parse(target: &str, default_port: u16) -> Result<SocketAddr, TargetError> {
    let (ip, port) = match target.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((ip, rest)) => (ip, rest.strip_prefix(':')),
        None => match target.split_once(':') {
            Some((ip, port)) => (ip, Some(port)),
            None => (target, None),
        },
    };
    let ip: IpAddr = ip.parse().map_err(|_| TargetError::Address)?;
    let port = match port {
        Some(text) => {
            let number = text.parse().ok().filter(|port| *port != 0);
            number.ok_or_else(|| TargetError::Port(text.to_owned()))?
        }
        None if default_port == 0 => return Err(TargetError::NoPort),
        None => default_port,
    };
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let text = |t: &str, port| parse(t, port).map(|a| a.to_string());
        assert_eq!(text("1.2.3.4:99", 6343).as_deref(), Ok("1.2.3.4:99"));
        assert_eq!(text("1.2.3.4", 6343).as_deref(), Ok("1.2.3.4:6343"));
        assert_eq!(text("[::1]:99", 0).as_deref(), Ok("[::1]:99"));
        assert_eq!(text("[::1]", 4739).as_deref(), Ok("[::1]:4739"));
        assert_eq!(parse("1.2.3.4", 0), Err(TargetError::NoPort));
        assert_eq!(parse("1.2.3.4:99999", 0), Err(TargetError::Port("99999".into())));
        assert_eq!(parse("1.2.3.4:0", 0), Err(TargetError::Port("0".into())));
        for bad in ["localhost:1", "[::1", "", ":", "[]:1"] {
            assert_eq!(parse(bad, 0), Err(TargetError::Address), "{bad}");
        }
    }
}
