//! QoS and policing as values: what a device may be asked for.
//!
//! The default bodies in [`crate::Netdev`] refuse all of it; providers that can shape override them.

use std::collections::BTreeMap;

use crate::contract::Netdev;
use crate::error::Result;

/// Key-value details, as in the `other_config` column of QoS and Queue rows.
pub type Details = BTreeMap<String, String>;

/// Limits on what a port may receive. Zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policing {
    /// `ingress_policing_rate`, kilobits a second.
    pub rate_kbps: u32,
    /// `ingress_policing_burst`, kilobits.
    pub burst_kb: u32,
    /// `ingress_policing_kpkts_rate`, thousand packets a second.
    pub rate_kpps: u32,
    /// `ingress_policing_kpkts_burst`, thousand packets.
    pub burst_kpkts: u32,
}

/// The setting of a port by which a datapath in another process learns its [`Policing`]: the four numbers in order.
pub const POLICING_KEY: &str = "ironbridge-policing";

impl Policing {
    /// From the value of [`POLICING_KEY`].
    pub fn parse(text: &str) -> Option<Policing> {
        let numbers: Vec<u32> = text.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [rate_kbps, burst_kb, rate_kpps, burst_kpkts] = numbers[..] else { return None };
        Some(Policing { rate_kbps, burst_kb, rate_kpps, burst_kpkts })
    }
}

/// What a port shall do with what it sends: a row of the QoS table with its queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shaping {
    /// `type`; empty: nothing.
    pub kind: String,
    /// `other_config`.
    pub details: Details,
    /// Queues by number.
    pub queues: BTreeMap<u32, Details>,
}

/// The setting of a port by which a datapath in another process learns the type of its [`Shaping`]. With a colon and a key
/// behind it: that detail.
pub const SHAPING_KEY: &str = "ironbridge-qos";
/// As [`SHAPING_KEY`], with a colon and a number behind it: there is this queue. With another colon and a key: that detail of it.
pub const QUEUE_KEY: &str = "ironbridge-queue";

impl Shaping {
    /// Adds what tells a datapath in another process of this to a port's settings.
    pub fn put(&self, settings: &mut Details) {
        settings.insert(SHAPING_KEY.to_owned(), self.kind.clone());
        let details = self.details.iter().map(|(k, v)| (format!("{SHAPING_KEY}:{k}"), v.clone()));
        settings.extend(details);
        for (id, details) in &self.queues {
            settings.insert(format!("{QUEUE_KEY}:{id}"), String::new());
            settings.extend(details.iter().map(|(k, v)| (format!("{QUEUE_KEY}:{id}:{k}"), v.clone())));
        }
    }

    /// From a port's settings; `None`: they do not say.
    pub fn parse(settings: &Details) -> Option<Shaping> {
        let mut shaping = Shaping { kind: settings.get(SHAPING_KEY)?.clone(), ..Shaping::default() };
        for (key, value) in settings {
            match key.split_once(':') {
                Some((SHAPING_KEY, detail)) => {
                    shaping.details.insert(detail.to_owned(), value.clone());
                }
                Some((QUEUE_KEY, rest)) => {
                    let (id, detail) = rest.split_once(':').map_or((rest, None), |(id, d)| (id, Some(d)));
                    let queue = shaping.queues.entry(id.parse().ok()?).or_default();
                    queue.extend(detail.map(|d| (d.to_owned(), value.clone())));
                }
                _ => {}
            }
        }
        Some(shaping)
    }

    /// Makes a device shape like this. What it refuses of single queues goes to `complain`: the rest works without.
    ///
    /// Errors: it does not shape at all.
    pub fn apply(&self, dev: &dyn Netdev, complain: &mut dyn FnMut(&str)) -> Result<()> {
        dev.set_qos(&self.kind, &self.details)?;
        if self.kind.is_empty() || dev.qos_capabilities(&self.kind).map_or(0, |c| c.n_queues) == 0 {
            return Ok(());
        }
        let now = dev.queues().unwrap_or_default();
        for id in now.keys().filter(|id| !self.queues.contains_key(id)) {
            if let Err(e) = dev.delete_queue(*id) {
                complain(&format!("deleting queue {id} failed ({e})"));
            }
        }
        for (id, details) in &self.queues {
            if let Err(e) = dev.set_queue(*id, details) {
                complain(&format!("setting queue {id} failed ({e})"));
            }
        }
        Ok(())
    }
}

/// What a QoS type offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Queues that it can have.
    pub n_queues: u32,
}

/// Counters of one queue. `None`: not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Bytes sent.
    pub tx_bytes: Option<u64>,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Packets dropped.
    pub tx_errors: Option<u64>,
    /// Age, milliseconds; `None` unknown.
    pub age_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(of: &[(&str, &str)]) -> Details {
        of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn shaping_survives_its_way_through_settings() {
        let queues = [(0, Details::new()), (5, details(&[("min-rate", "1"), ("a:b", "c")]))].into();
        let shaping = Shaping { kind: "linux-htb".into(), details: details(&[("max-rate", "9")]), queues };
        let mut settings = details(&[("pmd-rxq-affinity", "0:1"), (POLICING_KEY, "1 2 3 4")]);
        assert_eq!(Shaping::parse(&settings), None);
        shaping.put(&mut settings);
        assert_eq!(Shaping::parse(&settings), Some(shaping));
        settings.insert(format!("{QUEUE_KEY}:-1"), String::new());
        assert_eq!(Shaping::parse(&settings), None);
    }
}
