//! NetFlow: flows are told apart by translation, counted where their packets are, and end with the datapath's flow.

use ib_base::time::Instant;
use ib_base::vlog::module::NETFLOW;
use ib_base::vlog_dbg;
use ib_export::netflow::{Config, DEFAULT_ACTIVE_TIMEOUT_S, Key, NetFlow, Packets};

use super::Export;
use super::collectors::Collectors;
use crate::config::NetFlowConfig;
use crate::ofproto::Ofproto;
use crate::rule::PushStats;
use crate::switch::Bridge;

impl Export {
    /// Forgets a flow: its datapath flow is gone, or is another from now on.
    fn forget_flow(&self, key: &Key, now_ms: u64, wall_ms: u64) {
        if let Some((netflow, _)) = self.netflow.lock().as_mut() {
            netflow.forget(key, now_ms, wall_ms);
        }
    }
}

impl Ofproto {
    /// Counts packets of a flow that leaves by `output`.
    pub(crate) fn netflow_update(&self, key: &Key, output: u16, stats: &PushStats) {
        if stats.packets == 0 {
            return;
        }
        if let Some((netflow, _)) = self.export.netflow.lock().as_mut() {
            let packets = Packets {
                packets: stats.packets,
                bytes: stats.bytes,
                used_ms: stats.used_ms,
                tcp_flags: stats.tcp_flags,
            };
            netflow.update(key, output, &packets, self.clock.now().as_ms(), self.clock.wall_ms());
        }
    }

    /// A flow has ended.
    pub(crate) fn netflow_forget(&self, key: &Key) {
        self.export.forget_flow(key, self.clock.now().as_ms(), self.clock.wall_ms());
    }
}

impl Bridge {
    /// Turns NetFlow on, with these settings, or off.
    pub fn set_netflow(&mut self, want: Option<&NetFlowConfig>) {
        let now_ms = self.of.clock.now().as_ms();
        let mut running = self.of.export.netflow.lock();
        let Some(want) = want else {
            if running.take().is_some() {
                drop(running);
                self.touch();
            }
            return;
        };
        // A datapath's engine is made from its name.
        let hash = ib_flow::hash::bytes(self.backer.dpif.name().as_bytes(), 0);
        let config = Config {
            engine_type: want.engine_type.unwrap_or((hash >> 8) as u8),
            engine_id: want.engine_id.unwrap_or(hash as u8),
            active_timeout_ms: match want.active_timeout_s {
                0 => DEFAULT_ACTIVE_TIMEOUT_S as u64 * 1000,
                s => u64::try_from(s).unwrap_or(0).saturating_mul(1000),
            },
            add_id_to_interface: want.add_id_to_interface,
        };
        match running.as_mut() {
            Some((netflow, collectors)) => {
                netflow.configure(config, now_ms);
                if !collectors.are(&want.targets) {
                    *collectors = Collectors::open(&want.targets, 0);
                }
            }
            None => {
                vlog_dbg!(NETFLOW, "{}: engine {}:{}", self.of.name, config.engine_type, config.engine_id);
                let collectors = Collectors::open(&want.targets, 0);
                *running = Some((NetFlow::new(config, now_ms), collectors));
                drop(running);
                self.touch();
            }
        }
    }

    pub(super) fn run_netflow(&mut self, now: Instant) {
        let mut running = self.of.export.netflow.lock();
        let Some((netflow, collectors)) = running.as_mut() else { return };
        netflow.flush(collectors);
        netflow.run(now.as_ms(), self.of.clock.wall_ms());
    }
}
