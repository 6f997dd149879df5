//! Bundles and mirrors of a bridge as the main thread keeps them, and their translation-side form.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ib_flow::{Match, OfPort};
use ib_openflow::message::PortConfig as PortBits;

use crate::bond::BondSlot;
use crate::config::{BundleConfig, ConfigError, MirrorConfig, VlanMode};
use crate::lacp::SharedLacp;
use crate::ofproto::BundleId;
use crate::port::Port;
use crate::xcfg::{PortCounters, XBundle, XMirror, vlan_bits};

/// Bundles and mirrors of one bridge, by name.
#[derive(Default)]
pub(crate) struct Bundles {
    next_id: BundleId,
    pub bundles: BTreeMap<String, (BundleId, BundleConfig)>,
    pub mirrors: BTreeMap<String, (MirrorConfig, Arc<PortCounters>)>,
    /// Machines of the bundles that are bonds.
    pub bonds: BTreeMap<String, BondSlot>,
    pub(crate) bond_seq: u64,
    /// Machines of the bundles that speak LACP, with the order in which they came.
    pub lacps: BTreeMap<String, (u64, SharedLacp)>,
    pub(crate) lacp_seq: u64,
}

/// VLANs that a bundle carries tagged; `None`: all. One with a native VLAN always carries that, and never
/// VLAN 0: untagged packets are in the native one.
fn trunks(b: &BundleConfig) -> Option<Box<[u64; 64]>> {
    let native = match (b.vlan_mode, b.tag) {
        (VlanMode::NativeTagged | VlanMode::NativeUntagged, Some(v)) if v != 0 => Some(usize::from(v) & 4095),
        (VlanMode::Access, _) => return None,
        _ => None,
    };
    let mut bits = vlan_bits(&b.trunks);
    if let Some(v) = native {
        let bits = bits.get_or_insert_with(|| Box::new([u64::MAX; 64]));
        bits[v / 64] |= 1 << (v % 64);
        bits[0] &= !1;
    }
    bits
}

/// The match of a mirror's `filter` column; none if that is empty.
pub(crate) fn parse_filter(text: &str) -> Result<Option<Match>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    ib_flow::text::parse_match(text, None).map(|(m, _)| Some(m))
}

impl Bundles {
    /// Adds or changes one. Returns whether anything changed.
    pub fn set(&mut self, config: BundleConfig) -> Result<bool, ConfigError> {
        if config.ports.is_empty() {
            return Err(ConfigError::Invalid(format!("port {}: no interfaces", config.name)));
        }
        match self.bundles.get_mut(&config.name) {
            Some((_, old)) if *old == config => Ok(false),
            Some((_, old)) => {
                *old = config;
                Ok(true)
            }
            None => {
                self.next_id += 1;
                self.bundles.insert(config.name.clone(), (self.next_id, config));
                Ok(true)
            }
        }
    }

    /// Removes one, with its id.
    pub fn remove(&mut self, name: &str) -> Option<BundleId> {
        self.lacps.remove(name);
        self.bundles.remove(name).map(|(id, _)| id)
    }

    /// The bundle of a port.
    pub fn id_of_port(&self, port: OfPort) -> Option<BundleId> {
        self.bundles.values().find(|(_, b)| b.ports.contains(&port)).map(|(id, _)| *id)
    }

    /// The bundles of all ports that are in one.
    pub fn owners(&self) -> HashMap<OfPort, BundleId> {
        let mut owners = HashMap::with_capacity(self.bundles.len());
        for (id, bundle) in self.bundles.values() {
            for port in &bundle.ports {
                owners.entry(*port).or_insert(*id);
            }
        }
        owners
    }

    fn id(&self, name: &str) -> Option<BundleId> {
        self.bundles.get(name).map(|(id, _)| *id)
    }

    /// The translation-side form.
    pub fn publish(
        &self,
        ports: &BTreeMap<OfPort, Port>,
    ) -> (BTreeMap<BundleId, Arc<XBundle>>, Vec<Arc<XMirror>>) {
        // Wider mirrors come first in no order that matters; at most 32 fit a mask.
        let mirrors: Vec<&(MirrorConfig, Arc<PortCounters>)> = self.mirrors.values().take(32).collect();
        let outs: Vec<(Option<BundleId>, Option<u16>)> = mirrors
            .iter()
            .map(|(m, _)| (m.output_port.as_deref().and_then(|n| self.id(n)), m.output_vlan))
            .collect();
        let bits = |select: &dyn Fn(&MirrorConfig) -> bool| -> u32 {
            mirrors.iter().enumerate().filter(|(_, (m, _))| select(m)).map(|(i, _)| 1 << i).sum()
        };
        let bundles = self
            .bundles
            .values()
            .map(|(id, b)| {
                let mirror_out =
                    outs.iter().enumerate().filter(|(_, (o, _))| *o == Some(*id)).map(|(i, _)| 1 << i).sum();
                let floodable = b
                    .ports
                    .iter()
                    .filter_map(|p| ports.get(p))
                    .all(|p| p.config_bits & PortBits::NO_FLOOD == 0 && !p.is_legacy_l3());
                let bundle = XBundle {
                    id: *id,
                    name: b.name.clone(),
                    ports: b.ports.clone(),
                    vlan_mode: b.vlan_mode,
                    vlan: b.tag,
                    trunks: trunks(b),
                    cvlans: vlan_bits(&b.cvlans),
                    qinq_ethtype: b.qinq_ethtype,
                    priority_tags: b.priority_tags,
                    protected: b.protected,
                    floodable,
                    bond: self.bonds.get(&b.name).map(|slot| Arc::clone(&slot.bond)),
                    lacp: self.lacps.get(&b.name).map(|(_, lacp)| Arc::clone(lacp)),
                    src_mirrors: bits(&|m| m.select_all || m.select_src.contains(&b.name)),
                    dst_mirrors: bits(&|m| m.select_all || m.select_dst.contains(&b.name)),
                    mirror_out,
                };
                (*id, Arc::new(bundle))
            })
            .collect();
        let xmirrors = mirrors
            .iter()
            .zip(&outs)
            .map(|((m, counters), out)| {
                let dup_mirrors =
                    outs.iter().enumerate().filter(|(_, o)| *o == out).map(|(i, _)| 1u32 << i).sum();
                Arc::new(XMirror {
                    name: m.name.clone(),
                    vlans: vlan_bits(&m.select_vlans),
                    out: out.0,
                    out_vlan: out.1,
                    snaplen: m.snaplen,
                    dup_mirrors,
                    filter: parse_filter(&m.filter).unwrap_or_default().map(Box::new),
                    counters: Arc::clone(counters),
                })
            })
            .collect();
        (bundles, xmirrors)
    }
}
