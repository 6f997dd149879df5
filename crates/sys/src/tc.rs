//! Queueing disciplines of the kernel over rtnetlink: as much as a switch needs to shape what its ports send.
//!
//! A discipline sits at a device's root under handle `1:`; its classes are `1:MINOR`. Rates are bytes a second. Times on
//! the wire are ticks of 64 ns.

use std::io;

use crate::netlink::{
    Attrs, F_ACK, F_CREATE, F_DUMP, F_EXCL, F_REPLACE, ROUTE, Request, Socket, u32_at, u64_at,
};

/// `TC_H_ROOT`
const ROOT: u32 = u32::MAX;
/// Handle of what we put at the root.
const HANDLE: u32 = 1 << 16;
/// Parent of all leaf classes.
pub const ROOT_CLASS: u16 = 0xfffe;
const TCMSG: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const STATS_BASIC: u16 = 1;
const STATS_QUEUE: u16 = 3;
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;
const LINKLAYER_ETHERNET: u8 = 1;

/// A priority by which a packet finds its class.
pub fn class_priority(minor: u16) -> u32 {
    HANDLE | u32::from(minor)
}

/// A class of `htb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HtbClass {
    /// Rate that it always has.
    pub min_rate: u64,
    /// Rate that it may borrow up to.
    pub max_rate: u64,
    /// Bytes that may go at once.
    pub burst: u32,
    /// Whose turn it is to borrow: low ones first.
    pub priority: u32,
}

/// What a class sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets dropped.
    pub drops: u64,
}

/// Disciplines without classes; zero leaves a setting to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Simple {
    /// `codel`: microseconds, packets, microseconds.
    Codel { target: u32, limit: u32, interval: u32 },
    /// `fq_codel`, likewise; number of flows, bytes a flow may send in its turn.
    FqCodel { target: u32, limit: u32, interval: u32, flows: u32, quantum: u32 },
    /// `sfq`: bytes a flow may send in its turn, seconds after which the hash changes.
    Sfq { quantum: u32, perturb: u32 },
    /// `netem`: microseconds, packets, share of packets lost in 2^32ths.
    Netem { latency: u32, jitter: u32, limit: u32, loss: u32 },
}

/// A socket for such requests.
#[derive(Debug)]
pub struct Tc(Socket);

fn tcmsg(ifindex: i32, handle: u32, parent: u32) -> [u8; TCMSG] {
    let mut m = [0; TCMSG];
    m[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    m[8..12].copy_from_slice(&handle.to_ne_bytes());
    m[12..16].copy_from_slice(&parent.to_ne_bytes());
    m
}

/// Ticks that `bytes` take at `rate` bytes a second.
fn ticks(bytes: u32, rate: u64) -> u32 {
    let ns = u64::from(bytes) * 1_000_000_000 / rate.max(1);
    u32::try_from(ns / 64).unwrap_or(u32::MAX)
}

/// `struct tc_ratespec`.
fn rate_spec(rate: u64) -> [u8; 12] {
    let mut spec = [0; 12];
    spec[1] = LINKLAYER_ETHERNET;
    spec[8..12].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    spec
}

impl Tc {
    /// Opens it in the calling thread's network namespace.
    pub fn open() -> io::Result<Tc> {
        Ok(Tc(Socket::open(ROUTE, 0)?))
    }

    fn change(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        f: impl FnOnce(&mut Request),
    ) -> io::Result<()> {
        let mut r = Request::new(kind, F_ACK | flags, fixed);
        f(&mut r);
        self.0.request(&mut r, |_| ())
    }

    /// Removes what is at a device's root; nothing there is no error.
    pub fn clear(&mut self, ifindex: i32) -> io::Result<()> {
        match self.change(libc::RTM_DELQDISC, 0, &tcmsg(ifindex, 0, ROOT), |_| ()) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            other => other,
        }
    }

    fn install(&mut self, ifindex: i32, kind: &str, options: impl FnOnce(&mut Request)) -> io::Result<()> {
        let flags = F_CREATE | F_EXCL;
        self.change(libc::RTM_NEWQDISC, flags, &tcmsg(ifindex, HANDLE, ROOT), |r| {
            r.attr_str(TCA_KIND, kind);
            options(r);
        })
    }

    /// Puts `htb` at a device's root. Unclassified packets go to class `default`.
    pub fn install_htb(&mut self, ifindex: i32, default: u16) -> io::Result<()> {
        self.install(ifindex, "htb", |r| {
            // struct tc_htb_glob { version, rate2quantum, defcls, debug, direct_pkts }.
            let glob: Vec<u8> =
                [3u32, 10, default.into(), 0, 0].iter().flat_map(|v| v.to_ne_bytes()).collect();
            r.nest(TCA_OPTIONS, |r| {
                r.attr(HTB_INIT, &glob);
            });
        })
    }

    /// Makes or changes class `1:minor` of `htb`.
    pub fn set_htb_class(&mut self, ifindex: i32, minor: u16, class: &HtbClass) -> io::Result<()> {
        let parent = if minor == ROOT_CLASS { ROOT } else { class_priority(ROOT_CLASS) };
        let flags = F_CREATE | F_REPLACE;
        self.change(libc::RTM_NEWTCLASS, flags, &tcmsg(ifindex, class_priority(minor), parent), |r| {
            r.attr_str(TCA_KIND, "htb");
            r.nest(TCA_OPTIONS, |r| {
                // struct tc_htb_opt { rate, ceil, buffer, cbuffer, quantum, level, prio }.
                let mut opt = Vec::with_capacity(44);
                opt.extend(rate_spec(class.min_rate));
                opt.extend(rate_spec(class.max_rate));
                let quantum = if minor == ROOT_CLASS { 0 } else { 1500u32 };
                let buffers = [ticks(class.burst, class.min_rate), ticks(class.burst, class.max_rate)];
                for v in [buffers[0], buffers[1], quantum, 0, class.priority] {
                    opt.extend(v.to_ne_bytes());
                }
                r.attr(HTB_PARMS, &opt);
                for (kind, rate) in [(HTB_RATE64, class.min_rate), (HTB_CEIL64, class.max_rate)] {
                    if rate > u32::MAX.into() {
                        r.attr(kind, &rate.to_ne_bytes());
                    }
                }
            });
        })
    }

    /// Puts `hfsc` at a device's root. Unclassified packets go to class `default`.
    pub fn install_hfsc(&mut self, ifindex: i32, default: u16) -> io::Result<()> {
        self.install(ifindex, "hfsc", |r| {
            r.attr(TCA_OPTIONS, &default.to_ne_bytes());
        })
    }

    /// Makes or changes class `1:minor` of `hfsc`.
    pub fn set_hfsc_class(
        &mut self,
        ifindex: i32,
        minor: u16,
        min_rate: u64,
        max_rate: u64,
    ) -> io::Result<()> {
        let parent = if minor == ROOT_CLASS { HANDLE } else { class_priority(ROOT_CLASS) };
        let flags = F_CREATE | F_REPLACE;
        // struct tc_service_curve { m1, d, m2 }.
        let curve = |rate: u64| {
            let rate = u32::try_from(rate).unwrap_or(u32::MAX);
            [rate, 0, rate].iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>()
        };
        self.change(libc::RTM_NEWTCLASS, flags, &tcmsg(ifindex, class_priority(minor), parent), |r| {
            r.attr_str(TCA_KIND, "hfsc");
            r.nest(TCA_OPTIONS, |r| {
                // Real time, fair share, upper limit.
                r.attr(1, &curve(min_rate)).attr(2, &curve(min_rate)).attr(3, &curve(max_rate));
            });
        })
    }

    /// Puts a discipline without classes at a device's root.
    pub fn install_simple(&mut self, ifindex: i32, simple: &Simple) -> io::Result<()> {
        let bytes = |words: &[u32]| words.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>();
        match *simple {
            Simple::Codel { target, limit, interval } => self.install(ifindex, "codel", |r| {
                r.nest(TCA_OPTIONS, |r| {
                    r.attr_u32(1, target).attr_u32(2, limit).attr_u32(3, interval);
                });
            }),
            Simple::FqCodel { target, limit, interval, flows, quantum } => {
                self.install(ifindex, "fq_codel", |r| {
                    r.nest(TCA_OPTIONS, |r| {
                        r.attr_u32(1, target).attr_u32(2, limit).attr_u32(3, interval);
                        r.attr_u32(5, flows).attr_u32(6, quantum);
                    });
                })
            }
            // struct tc_sfq_qopt { quantum, perturb_period, limit, divisor, flows }.
            Simple::Sfq { quantum, perturb } => self.install(ifindex, "sfq", |r| {
                r.attr(TCA_OPTIONS, &bytes(&[quantum, perturb, 0, 0, 0]));
            }),
            // struct tc_netem_qopt { latency, limit, loss, gap, duplicate, jitter }; times in ticks.
            Simple::Netem { latency, jitter, limit, loss } => self.install(ifindex, "netem", |r| {
                let in_ticks = |us: u32| u32::try_from(u64::from(us) * 1000 / 64).unwrap_or(u32::MAX);
                r.attr(TCA_OPTIONS, &bytes(&[in_ticks(latency), limit, loss, 0, 0, in_ticks(jitter)]));
            }),
        }
    }

    /// Removes a class.
    pub fn delete_class(&mut self, ifindex: i32, minor: u16) -> io::Result<()> {
        self.change(libc::RTM_DELTCLASS, 0, &tcmsg(ifindex, class_priority(minor), 0), |_| ())
    }

    /// What a class sent.
    pub fn class_stats(&mut self, ifindex: i32, minor: u16) -> io::Result<ClassStats> {
        let mut r = Request::new(libc::RTM_GETTCLASS, F_DUMP, &tcmsg(ifindex, 0, 0));
        let mut stats = ClassStats::default();
        self.0.request(&mut r, |m| {
            // Handle.
            if u32_at(m.payload, 8) != Some(class_priority(minor)) {
                return;
            }
            for (_, nested) in m.attrs(TCMSG).filter(|(kind, _)| *kind == TCA_STATS2) {
                for (kind, data) in Attrs(nested) {
                    if kind == STATS_BASIC {
                        stats.bytes = u64_at(data, 0).unwrap_or(0);
                        stats.packets = u32_at(data, 8).unwrap_or(0).into();
                    } else if kind == STATS_QUEUE {
                        stats.drops = u32_at(data, 8).unwrap_or(0).into();
                    }
                }
            }
        })?;
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_become_ticks() {
        assert_eq!(ticks(1564, 12_500), 1_955_000);
        assert_eq!(ticks(1564, 0), u32::MAX);
        assert_eq!(class_priority(2), 0x1_0002);
    }
}
