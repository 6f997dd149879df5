//! Values of connection tracking as bytes, for messages of [`crate::transport::Family::Control`].
//!
//! Numbers in host order, lists behind their length, options behind a byte. Both ends are of the same release, or the
//! reader finds bytes missing or left over and says so: never a panic, and no list longer than its bytes can hold.

use std::net::IpAddr;

use ib_dpif::PortDevice;
use ib_dpif::conntrack::{
    CtEntry, CtExpectation, CtFilter, CtKernel, CtTcp, CtTimeouts, CtTuple, CtTupleFilter, CtZoneLimit,
    FragCounters, FragList, FragStatus, TcpState,
};
use ib_dpif::dpctl::PortCounters;

/// A value with a form as bytes.
pub trait Wire: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it off the front; `None` if that is none.
    fn get(from: &mut &[u8]) -> Option<Self>;

    /// As bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
    /// From all of `bytes`.
    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let value = Self::get(&mut bytes)?;
        bytes.is_empty().then_some(value)
    }
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_ne_bytes());
            }
            fn get(from: &mut &[u8]) -> Option<$t> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$t>::from_ne_bytes(*bytes))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, u128);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn get(from: &mut &[u8]) -> Option<bool> {
        match u8::get(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for () {
    fn put(&self, _out: &mut Vec<u8>) {}
    fn get(_from: &mut &[u8]) -> Option<()> {
        Some(())
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(from: &mut &[u8]) -> Option<Option<T>> {
        Some(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn get(from: &mut &[u8]) -> Option<Vec<T>> {
        let n = u32::get(from)?;
        // No room is made beforehand: the length may lie.
        (0..n).map(|_| T::get(from)).collect()
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(from: &mut &[u8]) -> Option<String> {
        let len = usize::try_from(u32::get(from)?).ok()?;
        let (bytes, rest) = from.split_at_checked(len)?;
        *from = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.put(out));
    }
    fn get(from: &mut &[u8]) -> Option<[T; N]> {
        let items: Option<Vec<T>> = (0..N).map(|_| T::get(from)).collect();
        items?.try_into().ok()
    }
}

macro_rules! tuples {
    ($(($($t:ident $at:tt),*)),*) => {$(
        impl<$($t: Wire),*> Wire for ($($t,)*) {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$at.put(out);)*
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                Some(($($t::get(from)?,)*))
            }
        }
    )*};
}
tuples!((A 0, B 1), (A 0, B 1, C 2));

impl Wire for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(a) => (4u8, u32::from(*a)).put(out),
            IpAddr::V6(a) => (6u8, u128::from(*a)).put(out),
        }
    }
    fn get(from: &mut &[u8]) -> Option<IpAddr> {
        match u8::get(from)? {
            4 => Some(IpAddr::V4(u32::get(from)?.into())),
            6 => Some(IpAddr::V6(u128::get(from)?.into())),
            _ => None,
        }
    }
}

impl Wire for TcpState {
    fn put(&self, out: &mut Vec<u8>) {
        let at = TcpState::ALL.iter().position(|s| s == self).unwrap_or(0);
        u8::try_from(at).unwrap_or(0).put(out);
    }
    fn get(from: &mut &[u8]) -> Option<TcpState> {
        TcpState::ALL.get(usize::from(u8::get(from)?)).copied()
    }
}

/// Helpers have names that live as long as the program.
impl Wire for &'static str {
    fn put(&self, out: &mut Vec<u8>) {
        (*self).to_owned().put(out);
    }
    fn get(from: &mut &[u8]) -> Option<&'static str> {
        let name = String::get(from)?;
        ["ftp", "tftp"].into_iter().find(|known| *known == name)
    }
}

macro_rules! structs {
    ($($t:ident { $($field:ident),* $(,)? })*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(from: &mut &[u8]) -> Option<$t> {
                Some($t { $($field: Wire::get(from)?),* })
            }
        }
    )*};
}
structs! {
    CtTuple { src, dst, proto, sport, dport, id }
    CtTcp { state, wscale, scales, liberal }
    CtEntry { orig, reply, zone, mark, label, timeout_s, tcp, helper, parent, kernel }
    CtKernel { id, status, tcp_flags }
    CtExpectation { orig, zone, mark, label, parent }
    CtTupleFilter { src, dst, proto, sport, dport, icmp }
    CtFilter { zone, mark, label, orig, reply }
    CtZoneLimit { zone, limit, count }
    FragCounters { enabled, min_size, accepted, completed, expired, too_small, overlapped, purged }
    FragStatus { max, held, v4, v6 }
    FragList { src, dst, recirc_id, id, zone, proto, held, ends }
    PortDevice { counters, config }
    PortCounters {
        rx_packets, rx_errors, rx_dropped, rx_over_errors, rx_frame_errors, tx_packets, tx_errors, tx_dropped, tx_aborted_errors,
        tx_carrier_errors, collisions, rx_bytes, tx_bytes,
    }
    CtTimeouts {
        tcp_syn_sent, tcp_syn_recv, tcp_established, tcp_fin_wait, tcp_time_wait, tcp_close, tcp_close_wait, tcp_last_ack, tcp_syn_sent2,
        tcp_retransmit, tcp_unack, udp_first,
        udp_single, udp_multiple, icmp_first, icmp_reply,
    }
}

impl Wire for usize {
    fn put(&self, out: &mut Vec<u8>) {
        u64::try_from(*self).unwrap_or(u64::MAX).put(out);
    }
    fn get(from: &mut &[u8]) -> Option<usize> {
        usize::try_from(u64::get(from)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> CtEntry {
        let orig = CtTuple {
            src: "10.0.0.1".parse().unwrap(),
            dst: "2001:db8::1".parse().unwrap(),
            proto: 6,
            sport: 1,
            dport: 2,
            id: 3,
        };
        let tcp = CtTcp { state: [TcpState::TimeWait, TcpState::Closed], ..CtTcp::default() };
        CtEntry {
            orig,
            reply: orig,
            zone: 7,
            mark: 8,
            label: 9 << 100,
            timeout_s: 10,
            tcp: Some(tcp),
            helper: Some("tftp"),
            parent: None,
            kernel: None,
        }
    }

    #[test]
    fn entries_come_back() {
        let all = vec![entry(), CtEntry { tcp: None, helper: None, parent: Some(entry().orig), ..entry() }];
        assert_eq!(Vec::<CtEntry>::from_bytes(&all.to_bytes()), Some(all));
        let filter = CtFilter { mark: Some((1, 2)), ..CtFilter::default() };
        assert_eq!(CtFilter::from_bytes(&filter.to_bytes()), Some(filter));
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_none() {
        let bytes = entry().to_bytes();
        assert!((0..bytes.len()).all(|n| CtEntry::from_bytes(&bytes[..n]).is_none()));
        assert!(CtEntry::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
        assert!(Vec::<u64>::from_bytes(&u32::MAX.to_bytes()).is_none());
    }
}
