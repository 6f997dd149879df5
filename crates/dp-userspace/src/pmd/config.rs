//! What the `other_config` columns say to the user-space datapath, and the lines in the log that tell of changes.
//!
//! [`Settings`] is for the whole datapath (Open_vSwitch table), [`PortSettings`] for one port (Interface table). Reading is total: a value
//! that makes no sense stands for its default, but for a queue affinity, which refuses the port's settings.

use std::collections::BTreeMap;

use ib_base::vlog::module::DPIF_NETDEV;
use ib_base::{vlog_info, vlog_warn};

use super::sched::Assign;
use crate::emc;

/// Longest sleep that a thread may be told to make, microseconds.
const MAX_SLEEP_US: u64 = 10_000;

type Map = BTreeMap<String, String>;

/// Settings of a datapath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `pmd-cpu-mask`.
    pub cpu_mask: Option<String>,
    /// `pmd-rxq-assign`.
    pub assign: Assign,
    /// `pmd-rxq-isolate`.
    pub isolate: bool,
    /// `emc-insert-inv-prob`; 0: no cache.
    pub emc_insert_inv_prob: u32,
    /// `smc-enable`.
    pub smc: bool,
    /// `accelerate`, or `hw-offload`: hot flows are forwarded by the kernel.
    pub accelerate: bool,
    /// One of them asks for it by name.
    pub accelerate_told: bool,
    /// `pmd-perf-metrics`.
    pub perf_metrics: bool,
    /// `tx-flush-interval`, microseconds. Batches are flushed when the work at hand is done, which is sooner.
    pub tx_flush_us: u64,
    /// `pmd-sleep-max`: for all threads, and for those of some cores.
    pub sleep_us: u64,
    /// Those of cores that have their own.
    pub core_sleep_us: BTreeMap<u32, u64>,
    /// `pmd-auto-lb`.
    pub auto_lb: bool,
    /// `pmd-auto-lb-rebal-interval`, minutes.
    pub lb_interval_min: u64,
    /// `pmd-auto-lb-improvement-threshold`, percent.
    pub lb_improvement: u64,
    /// `pmd-auto-lb-load-threshold`, percent.
    pub lb_load: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            cpu_mask: None,
            assign: Assign::Cycles,
            isolate: true,
            emc_insert_inv_prob: emc::DEFAULT_INSERT_INV_PROB,
            smc: false,
            accelerate: true,
            accelerate_told: false,
            perf_metrics: false,
            tx_flush_us: 0,
            sleep_us: 0,
            core_sleep_us: BTreeMap::new(),
            auto_lb: false,
            lb_interval_min: 1,
            lb_improvement: 25,
            lb_load: 95,
        }
    }
}

fn flag(map: &Map, key: &str, default: bool) -> bool {
    match map.get(key) {
        Some(v) if default => v != "false",
        Some(v) => v == "true",
        None => default,
    }
}

fn number(map: &Map, key: &str, default: u64) -> u64 {
    map.get(key).and_then(|v| v.parse().ok()).unwrap_or(default)
}

impl Settings {
    /// From the `other_config` column of the Open_vSwitch table. Warns about what contradicts itself.
    pub fn read(map: &Map) -> Settings {
        let default = Settings::default();
        let assign = match map.get("pmd-rxq-assign").map_or("cycles", String::as_str) {
            "roundrobin" => Assign::RoundRobin,
            "cycles" => Assign::Cycles,
            "group" => Assign::Group,
            _ => {
                vlog_warn!(
                    DPIF_NETDEV,
                    "Unsupported rx queue to PMD assignment mode in pmd-rxq-assign. Defaulting to 'cycles'."
                );
                Assign::Cycles
            }
        };
        let mut isolate = flag(map, "pmd-rxq-isolate", true);
        if !isolate && assign != Assign::Group {
            vlog_warn!(DPIF_NETDEV, "pmd-rxq-isolate can only be set false when using pmd-rxq-assign=group");
            isolate = true;
        }
        let accelerate = flag(map, "accelerate", flag(map, "hw-offload", default.accelerate));
        let named = ["accelerate", "hw-offload"].iter().any(|key| flag(map, key, false));
        let within =
            |key, max, default| Some(number(map, key, default)).filter(|n| *n <= max).unwrap_or(default);
        let inv_prob = u64::from(default.emc_insert_inv_prob);
        let (sleep_us, core_sleep_us) = read_sleeps(
            map.get("pmd-sleep-max").or_else(|| map.get("pmd-maxsleep")).map_or("", String::as_str),
        );
        Settings {
            cpu_mask: map.get("pmd-cpu-mask").cloned(),
            assign,
            isolate,
            emc_insert_inv_prob: u32::try_from(number(map, "emc-insert-inv-prob", inv_prob))
                .unwrap_or(default.emc_insert_inv_prob),
            smc: flag(map, "smc-enable", false),
            accelerate,
            accelerate_told: accelerate && named,
            perf_metrics: flag(map, "pmd-perf-metrics", false),
            tx_flush_us: within("tx-flush-interval", 1_000_000, 0),
            sleep_us,
            core_sleep_us,
            auto_lb: flag(map, "pmd-auto-lb", false),
            lb_interval_min: match number(map, "pmd-auto-lb-rebal-interval", 1) {
                n @ 1..=20_000 => n,
                _ => 1,
            },
            lb_improvement: within("pmd-auto-lb-improvement-threshold", 100, default.lb_improvement),
            lb_load: within("pmd-auto-lb-load-threshold", 100, default.lb_load),
        }
    }

    /// Longest sleep of the thread on `core`.
    pub fn sleep_of(&self, core: u32) -> u64 {
        self.core_sleep_us.get(&core).copied().unwrap_or(self.sleep_us)
    }

    /// Says in the log what is new. `old`: what was in force; `None` at the beginning. Sleeps of threads are the caller's to tell.
    pub fn log_changes(&self, old: Option<&Settings>) {
        let default = Settings::default();
        let first = old.is_none();
        let old = old.unwrap_or(&default);
        if self.tx_flush_us != old.tx_flush_us {
            vlog_info!(DPIF_NETDEV, "Flushing interval for tx queues set to {} us", self.tx_flush_us);
        }
        if self.emc_insert_inv_prob != old.emc_insert_inv_prob {
            match self.emc_insert_inv_prob {
                0 => vlog_info!(DPIF_NETDEV, "EMC insertion probability changed to zero"),
                n => vlog_info!(
                    DPIF_NETDEV,
                    "EMC insertion probability changed to 1/{n} (~{:.2}%)",
                    100.0 / f64::from(n)
                ),
            }
        }
        let word = |on| if on { "enabled" } else { "disabled" };
        if self.perf_metrics != old.perf_metrics {
            vlog_info!(DPIF_NETDEV, "PMD performance metrics collection {}", word(self.perf_metrics));
        }
        if self.smc != old.smc {
            vlog_info!(DPIF_NETDEV, "SMC cache is {}", word(self.smc));
        }
        if self.assign != old.assign {
            vlog_info!(DPIF_NETDEV, "Rxq to PMD assignment mode changed to: '{}'.", self.assign.name());
        }
        if first || self.isolate != old.isolate {
            let how = if self.isolate { "isolates" } else { "does not isolate" };
            vlog_info!(DPIF_NETDEV, "pmd-rxq-affinity {how} PMD core");
        }
        self.log_balancing(old, first);
    }

    fn log_balancing(&self, old: &Settings, first: bool) {
        let mut news = first || self.auto_lb != old.auto_lb;
        if first || self.lb_interval_min != old.lb_interval_min {
            news |= self.auto_lb;
            vlog_info!(DPIF_NETDEV, "PMD auto load balance interval set to {} mins", self.lb_interval_min);
        }
        if first || self.lb_improvement != old.lb_improvement {
            news |= self.auto_lb;
            let percent = self.lb_improvement;
            vlog_info!(DPIF_NETDEV, "PMD auto load balance improvement threshold set to {percent}%");
        }
        if first || self.lb_load != old.lb_load {
            news |= self.auto_lb;
            vlog_info!(DPIF_NETDEV, "PMD auto load balance load threshold set to {}%", self.lb_load);
        }
        if news && self.auto_lb {
            vlog_info!(
                DPIF_NETDEV,
                "PMD auto load balance is enabled, interval {} mins, pmd load threshold {}%, improvement threshold {}%.",
                self.lb_interval_min,
                self.lb_load,
                self.lb_improvement
            );
        } else if news {
            vlog_info!(DPIF_NETDEV, "PMD auto load balance is disabled.");
        }
    }
}

/// `pmd-sleep-max`: a default and `core:microseconds` pairs, in any order, separated by commas.
fn read_sleeps(text: &str) -> (u64, BTreeMap<u32, u64>) {
    let (mut default, mut cores) = (0, BTreeMap::new());
    for word in text.split([',', ' ']).filter(|w| !w.is_empty()) {
        match word.split_once(':') {
            None => default = word.parse().unwrap_or(default).min(MAX_SLEEP_US),
            Some((core, us)) => {
                if let (Ok(core), Ok(us)) = (core.parse(), us.parse::<u64>()) {
                    cores.insert(core, us.min(MAX_SLEEP_US));
                }
            }
        }
    }
    (default, cores)
}

/// Settings of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSettings {
    /// `emc-enable`.
    pub emc: bool,
    /// `tx-steering=hash`: the queue to send on follows the packet, not the thread.
    pub hash_steering: bool,
    /// `pmd-rxq-affinity`: core by queue.
    pub affinity: BTreeMap<usize, u32>,
}

impl Default for PortSettings {
    fn default() -> PortSettings {
        PortSettings { emc: true, hash_steering: false, affinity: BTreeMap::new() }
    }
}

impl PortSettings {
    /// From the `other_config` column of the Interface table; `None` if the affinity cannot be read.
    pub fn read(map: &Map) -> Option<PortSettings> {
        Some(PortSettings {
            emc: flag(map, "emc-enable", true),
            hash_steering: map.get("tx-steering").is_some_and(|v| v == "hash"),
            affinity: read_affinity(map.get("pmd-rxq-affinity").map_or("", String::as_str))?,
        })
    }

    /// Says in the log what is new about port `name`.
    pub fn log_changes(&self, old: &PortSettings, name: &str, pmd: bool) {
        if self.emc != old.emc {
            let word = if self.emc { "enabled" } else { "disabled" };
            vlog_info!(DPIF_NETDEV, "{name}: EMC has been {word}.");
        }
        if pmd && self.hash_steering != old.hash_steering {
            let word = if self.hash_steering { "hash" } else { "thread" };
            vlog_info!(DPIF_NETDEV, "{name}: Tx packet steering mode has been set to '{word}'.");
        }
    }
}

/// `queue:core` pairs.
fn read_affinity(text: &str) -> Option<BTreeMap<usize, u32>> {
    text.split(',')
        .filter(|w| !w.is_empty())
        .map(|w| w.split_once(':').and_then(|(q, c)| Some((q.trim().parse().ok()?, c.trim().parse().ok()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn sense_is_taken_and_nonsense_is_default() {
        let s = Settings::read(&map(&[
            ("pmd-rxq-assign", "group"),
            ("pmd-rxq-isolate", "false"),
            ("pmd-auto-lb-load-threshold", "700"),
            ("pmd-auto-lb-rebal-interval", "0"),
            ("emc-insert-inv-prob", "x"),
            ("pmd-sleep-max", "50,8:0,9:20000,x:1"),
        ]));
        assert_eq!((s.assign, s.isolate, s.lb_load, s.lb_interval_min), (Assign::Group, false, 95, 1));
        assert_eq!(
            (s.emc_insert_inv_prob, s.sleep_of(1), s.sleep_of(8), s.sleep_of(9)),
            (100, 50, 0, 10_000)
        );
        let s = Settings::read(&map(&[("pmd-rxq-assign", "foo"), ("pmd-rxq-isolate", "false")]));
        assert_eq!(s, Settings::default());
    }

    #[test]
    fn an_affinity_is_taken_whole_or_not_at_all() {
        let read = |text| PortSettings::read(&map(&[("pmd-rxq-affinity", text)])).map(|p| p.affinity);
        assert_eq!(read("0:1,3:2"), Some(BTreeMap::from([(0, 1), (3, 2)])));
        assert_eq!(read(""), Some(BTreeMap::new()));
        assert_eq!(read("0:9,3:x"), None);
        assert_eq!(read("4"), None);
    }
}
