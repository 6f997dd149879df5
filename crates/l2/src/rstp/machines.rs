//! The state machines of a port (802.1D-2004, 17.22 to 17.31), one function each: whether a transition was due, taken.
//!
//! Names of states, variables and conditions are the standard's. [`super::Rstp`] runs them until nothing is due any more;
//! a machine may wait for another's result, so the order does not matter but for how many turns it takes.

use super::bpdu::{Bpdu, Flags, Kind, Message};
use super::{InfoIs, Port, Role, Rstp};

/// Seconds in which a neighbour may show that it speaks the older protocol.
pub(super) const MIGRATE_TIME: u16 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Migration {
    CheckingRstp,
    SelectingStp,
    Sensing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    Disabled,
    Aged,
    Current,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Disable,
    Disabled,
    Root,
    Designated,
    Block,
    Alternate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    Inactive,
    Learning,
    Active,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    Superior,
    Repeated,
    Inferior,
    NotDesignated,
    Other,
}

impl Rstp {
    /// Runs every machine of a port but the transmitting one once. Returns whether anything happened.
    pub(super) fn step(&mut self, key: u16) -> bool {
        self.receive_machine(key)
            | self.migration_machine(key)
            | self.edge_machine(key)
            | self.information_machine(key)
            | self.role_machine(key)
            | self.state_machine(key)
            | self.topology_machine(key)
    }

    /// Port receive (17.23).
    fn receive_machine(&mut self, key: u16) -> bool {
        let port = self.port(key);
        if !port.enabled {
            let due = port.rcvd_bpdu || port.edge_delay_while != MIGRATE_TIME;
            if due {
                port.rcvd_bpdu = false;
                port.rcvd_rstp = false;
                port.rcvd_stp = false;
                port.rcvd_msg = false;
                port.edge_delay_while = MIGRATE_TIME;
            }
            return due;
        }
        if !port.rcvd_bpdu || port.rcvd_msg {
            return false;
        }
        match port.message {
            Some(Bpdu::Message(Message { kind: Kind::Rapid, .. })) => port.rcvd_rstp = true,
            _ => port.rcvd_stp = true,
        }
        port.oper_edge = false;
        port.rcvd_bpdu = false;
        port.rcvd_msg = true;
        port.edge_delay_while = MIGRATE_TIME;
        true
    }

    /// Port protocol migration (17.24).
    fn migration_machine(&mut self, key: u16) -> bool {
        let rapid = self.is_rapid();
        let p = self.port(key);
        let checking = |p: &mut Port| {
            p.mcheck = false;
            p.send_rstp = rapid;
            p.mdelay_while = MIGRATE_TIME;
            p.migration = Migration::CheckingRstp;
            true
        };
        let sensing = |p: &mut Port| {
            p.rcvd_rstp = false;
            p.rcvd_stp = false;
            p.migration = Migration::Sensing;
            true
        };
        match p.migration {
            Migration::CheckingRstp if p.mdelay_while != MIGRATE_TIME && !p.enabled => checking(p),
            Migration::CheckingRstp if p.mdelay_while == 0 => sensing(p),
            Migration::Sensing if !p.enabled || p.mcheck || (rapid && !p.send_rstp && p.rcvd_rstp) => {
                checking(p)
            }
            Migration::Sensing if p.send_rstp && p.rcvd_stp => {
                p.send_rstp = false;
                p.mdelay_while = MIGRATE_TIME;
                p.migration = Migration::SelectingStp;
                true
            }
            Migration::SelectingStp if p.mdelay_while == 0 || !p.enabled || p.mcheck => sensing(p),
            _ => false,
        }
    }

    /// Bridge detection (17.25).
    fn edge_machine(&mut self, key: u16) -> bool {
        let p = self.port(key);
        let admin = p.config.admin_edge;
        if p.is_edge && ((!p.enabled && !admin) || !p.oper_edge) {
            p.is_edge = false;
            p.oper_edge = false;
            return true;
        }
        let silent = p.edge_delay_while == 0 && p.config.auto_edge && p.send_rstp && p.proposing;
        if !p.is_edge && ((!p.enabled && admin) || silent) {
            p.is_edge = true;
            p.oper_edge = true;
            return true;
        }
        false
    }

    /// Port information (17.27).
    fn information_machine(&mut self, key: u16) -> bool {
        let p = self.port(key);
        if !p.enabled && p.info_is != InfoIs::Disabled {
            self.disable_info(key);
            return true;
        }
        match p.info {
            Info::Disabled if p.enabled => {
                p.info_is = InfoIs::Aged;
                p.reselect = true;
                p.selected = false;
                p.info = Info::Aged;
                true
            }
            Info::Disabled if p.rcvd_msg => {
                self.disable_info(key);
                true
            }
            Info::Aged | Info::Current if p.selected && p.updt_info => {
                p.proposing = false;
                p.proposed = false;
                p.agreed = p.agreed && p.better_or_same(InfoIs::Mine);
                p.synced = p.synced && p.agreed;
                p.priority = p.designated_priority;
                p.times = p.designated_times;
                p.updt_info = false;
                p.info_is = InfoIs::Mine;
                p.new_info = true;
                p.info = Info::Current;
                true
            }
            Info::Current if p.rcvd_msg && !p.updt_info => {
                self.use_message(key);
                true
            }
            Info::Current
                if p.info_is == InfoIs::Received && p.rcvd_info_while == 0 && !p.updt_info && !p.rcvd_msg =>
            {
                p.info_is = InfoIs::Aged;
                p.reselect = true;
                p.selected = false;
                p.info = Info::Aged;
                true
            }
            _ => false,
        }
    }

    pub(super) fn disable_info(&mut self, key: u16) {
        let p = self.port(key);
        p.rcvd_msg = false;
        p.proposing = false;
        p.proposed = false;
        p.agree = false;
        p.agreed = false;
        p.rcvd_info_while = 0;
        p.info_is = InfoIs::Disabled;
        p.reselect = true;
        p.selected = false;
        p.info = Info::Disabled;
    }

    /// RECEIVE and the states behind it.
    fn use_message(&mut self, key: u16) {
        let rapid = self.is_rapid();
        let p = self.port(key);
        p.rcvd_msg = false;
        let m = match p.message.take() {
            Some(Bpdu::Message(m)) => m,
            Some(Bpdu::Tcn) => {
                p.rcvd_tcn = true;
                return;
            }
            None => return,
        };
        let set_tc_flags = |p: &mut Port| {
            p.rcvd_tc |= m.flags.tc;
            p.rcvd_tc_ack |= m.flags.tc_ack;
        };
        let record_agreement = |p: &mut Port| {
            p.agreed = rapid && m.flags.agreement;
            if p.agreed {
                p.proposing = false;
            }
        };
        let record_proposal = |p: &mut Port| p.proposed |= m.role == Role::Designated && m.flags.proposal;
        match received_info(p, &m) {
            Received::Superior => {
                p.agreed = false;
                p.proposing = false;
                record_proposal(p);
                set_tc_flags(p);
                p.agree = p.agree && m.vector <= p.priority;
                record_agreement(p);
                p.synced = p.synced && p.agreed;
                p.priority = m.vector;
                p.times = m.times;
                p.times.hello = p.times.hello.max(1);
                p.update_rcvd_info_while();
                p.info_is = InfoIs::Received;
                p.reselect = true;
                p.selected = false;
            }
            Received::Repeated => {
                record_proposal(p);
                set_tc_flags(p);
                record_agreement(p);
                p.update_rcvd_info_while();
            }
            // recordDispute.
            Received::Inferior => {
                if m.kind == Kind::Rapid && m.flags.learning {
                    p.agreed = true;
                    p.proposing = false;
                }
            }
            Received::NotDesignated => {
                record_agreement(p);
                set_tc_flags(p);
            }
            Received::Other => {}
        }
    }

    /// Port role transitions (17.29).
    fn role_machine(&mut self, key: u16) -> bool {
        let rapid = self.is_rapid();
        let all_synced = self.all_synced();
        let re_rooted = self.ports.iter().all(|(k, p)| *k == key || p.rr_while == 0);
        let p = self.port(key);
        if !p.selected || p.updt_info {
            return false;
        }
        if p.role != p.selected_role {
            match p.selected_role {
                Role::Disabled => p.stop(Transition::Disable),
                Role::Alternate | Role::Backup => p.stop(Transition::Block),
                Role::Root => {
                    p.role = Role::Root;
                    p.rr_while = p.fwd_delay();
                    p.transition = Transition::Root;
                }
                Role::Designated => {
                    p.role = Role::Designated;
                    p.transition = Transition::Designated;
                }
            }
            return true;
        }
        match p.transition {
            Transition::Disable => {
                let due = !p.learning && !p.forwarding;
                if due {
                    p.rest(p.max_age(), Transition::Disabled);
                }
                due
            }
            Transition::Disabled => {
                let due = p.fd_while != p.max_age() || p.sync || p.re_root || !p.synced;
                if due {
                    p.rest(p.max_age(), Transition::Disabled);
                }
                due
            }
            Transition::Block => {
                let due = !p.learning && !p.forwarding;
                if due {
                    p.rest(p.forward_delay(), Transition::Alternate);
                }
                due
            }
            Transition::Alternate => self.alternate_role(key, all_synced),
            Transition::Root => self.root_role(key, rapid, all_synced, re_rooted),
            Transition::Designated => p.designated_role(),
        }
    }

    fn alternate_role(&mut self, key: u16, all_synced: bool) -> bool {
        let p = self.port(key);
        if p.proposed && !p.agree {
            p.proposed = false;
            self.for_all(|_, p| p.sync = true);
        } else if (all_synced && !p.agree) || (p.proposed && p.agree) {
            p.proposed = false;
            p.agree = true;
            p.new_info = true;
        } else if p.role == Role::Backup && p.rb_while != 2 * p.hello_time() {
            p.rb_while = 2 * p.hello_time();
        } else if p.fd_while != p.forward_delay() || p.sync || p.re_root || !p.synced {
            p.rest(p.forward_delay(), Transition::Alternate);
        } else {
            return false;
        }
        true
    }

    fn root_role(&mut self, key: u16, rapid: bool, all_synced: bool, re_rooted: bool) -> bool {
        let p = self.port(key);
        let quick = re_rooted && p.rb_while == 0 && rapid;
        if p.proposed && !p.agree {
            p.proposed = false;
            self.for_all(|_, p| p.sync = true);
        } else if (all_synced && !p.agree) || (p.proposed && p.agree) {
            p.proposed = false;
            p.sync = false;
            p.agree = true;
            p.new_info = true;
        } else if !p.forward && !p.re_root {
            self.for_all(|_, p| p.re_root = true);
        } else if p.re_root && p.forward {
            p.re_root = false;
        } else if (p.fd_while == 0 || quick) && !p.learn {
            p.fd_while = p.forward_delay();
            p.learn = true;
        } else if (p.fd_while == 0 || quick) && p.learn && !p.forward {
            p.fd_while = 0;
            p.forward = true;
        } else if p.rr_while != p.fwd_delay() {
            p.rr_while = p.fwd_delay();
        } else {
            return false;
        }
        true
    }

    /// Port state transitions (17.30).
    fn state_machine(&mut self, key: u16) -> bool {
        let p = self.port(key);
        let (learning, forwarding) = match (p.learning, p.forwarding) {
            (false, _) => (p.learn, false),
            (true, false) if !p.learn => (false, false),
            (true, false) => (true, p.forward),
            (true, true) if !p.forward => (false, false),
            (true, true) => (true, true),
        };
        if (learning, forwarding) == (p.learning, p.forwarding) {
            return false;
        }
        p.learning = learning;
        p.forwarding = forwarding;
        self.changed = true;
        true
    }

    /// Topology changes (17.31).
    fn topology_machine(&mut self, key: u16) -> bool {
        let p = self.port(key);
        let active = matches!(p.role, Role::Root | Role::Designated);
        match p.topology {
            Topology::Inactive => {
                if !p.learn || p.fdb_flush {
                    return false;
                }
                p.forget_changes();
                p.topology = Topology::Learning;
            }
            Topology::Learning => {
                if active && p.forward && !p.oper_edge {
                    self.new_tc_while(key);
                    self.propagate(key);
                    let p = self.port(key);
                    p.new_info = true;
                    p.topology = Topology::Active;
                } else if p.rcvd_tc || p.rcvd_tcn || p.rcvd_tc_ack || p.tc_prop {
                    p.forget_changes();
                } else if !active && !p.learn && !p.learning {
                    p.fdb_flush = true;
                    p.tc_while = 0;
                    p.tc_ack = false;
                    p.topology = Topology::Inactive;
                    self.flush_due = true;
                } else {
                    return false;
                }
            }
            Topology::Active => {
                if !active || p.oper_edge {
                    p.forget_changes();
                    p.topology = Topology::Learning;
                } else if p.rcvd_tcn || p.rcvd_tc {
                    let tcn = std::mem::take(&mut p.rcvd_tcn);
                    p.rcvd_tc = false;
                    p.tc_ack |= p.role == Role::Designated;
                    if tcn {
                        self.new_tc_while(key);
                    }
                    self.propagate(key);
                } else if p.tc_prop {
                    p.tc_prop = false;
                    p.fdb_flush = true;
                    self.new_tc_while(key);
                    self.flush_due = true;
                } else if p.rcvd_tc_ack {
                    p.tc_while = 0;
                    p.rcvd_tc_ack = false;
                } else {
                    return false;
                }
            }
        }
        true
    }

    /// newTcWhile (17.21.7).
    fn new_tc_while(&mut self, key: u16) {
        let old_protocol = self.config.max_age + self.config.forward_delay;
        let p = self.port(key);
        if p.tc_while == 0 {
            if p.send_rstp {
                p.tc_while = p.hello_time() + 1;
                p.new_info = true;
            } else {
                p.tc_while = old_protocol;
            }
        }
    }

    /// setTcPropTree (17.21.18).
    pub(super) fn propagate(&mut self, from: u16) {
        self.for_all(|key, p| p.tc_prop |= key != from);
    }

    /// Port transmit (17.26).
    pub(super) fn transmit_machine(&mut self, key: u16) -> bool {
        let hold = self.config.transmit_hold_count;
        let p = self.port(key);
        if !p.enabled {
            let due = !p.transmit_init;
            p.transmit_init = true;
            p.new_info = true;
            p.tx_count = 0;
            p.hello_when = p.hello_time();
            return due;
        }
        p.transmit_init = false;
        if !p.selected || p.updt_info {
            return false;
        }
        if p.hello_when == 0 {
            p.new_info |= p.role == Role::Designated || (p.role == Role::Root && p.tc_while != 0);
            p.hello_when = p.hello_time();
            return true;
        }
        if !p.new_info || p.tx_count >= hold {
            return false;
        }
        let mut flags = Flags { tc: p.tc_while != 0, ..Flags::default() };
        let kind = match p.role {
            _ if p.send_rstp => {
                flags.proposal = p.proposing;
                flags.learning = p.learning;
                flags.forwarding = p.forwarding;
                flags.agreement = p.agree;
                Some(Kind::Rapid)
            }
            Role::Designated => {
                flags.tc_ack = p.tc_ack;
                Some(Kind::Config)
            }
            Role::Root => None,
            _ => return false,
        };
        let bpdu = kind.map_or(Bpdu::Tcn, |kind| {
            p.tc_ack = false;
            let (vector, times) = (p.designated_priority, p.designated_times);
            Bpdu::Message(Message { kind, flags, role: p.role, vector, times })
        });
        p.new_info = false;
        p.tx_count += 1;
        p.hello_when = p.hello_time();
        self.frames.push((key, super::bpdu::emit(&bpdu)));
        true
    }
}

impl Port {
    fn stop(&mut self, next: Transition) {
        self.role = self.selected_role;
        self.learn = false;
        self.forward = false;
        self.transition = next;
    }

    /// What ports that do not forward come to rest in.
    fn rest(&mut self, fd_while: u16, state: Transition) {
        self.fd_while = fd_while;
        self.synced = true;
        self.rr_while = 0;
        self.sync = false;
        self.re_root = false;
        self.transition = state;
    }

    fn designated_role(&mut self) -> bool {
        let may_go = (self.fd_while == 0 || self.agreed || self.oper_edge)
            && (self.rr_while == 0 || !self.re_root)
            && !self.sync;
        let must_stop = (self.sync && !self.synced) || (self.re_root && self.rr_while != 0) || self.disputed;
        if !self.forward && !self.agreed && !self.proposing && !self.oper_edge {
            self.proposing = true;
            self.edge_delay_while = MIGRATE_TIME;
            self.new_info = true;
        } else if (!self.learning && !self.forwarding && !self.synced)
            || ((self.agreed || self.oper_edge) && !self.synced)
            || (self.sync && self.synced)
        {
            self.rr_while = 0;
            self.synced = true;
            self.sync = false;
        } else if self.rr_while == 0 && self.re_root {
            self.re_root = false;
        } else if must_stop && !self.oper_edge && (self.learn || self.forward) {
            self.learn = false;
            self.forward = false;
            self.disputed = false;
            self.fd_while = self.forward_delay();
        } else if may_go && !self.learn {
            self.learn = true;
            self.fd_while = self.forward_delay();
        } else if may_go && !self.forward {
            self.forward = true;
            self.fd_while = 0;
            self.agreed = self.send_rstp;
        } else {
            return false;
        }
        true
    }

    fn forget_changes(&mut self) {
        self.rcvd_tc = false;
        self.rcvd_tcn = false;
        self.rcvd_tc_ack = false;
        self.tc_prop = false;
    }

    /// updtRcvdInfoWhile (17.21.23).
    fn update_rcvd_info_while(&mut self) {
        let t = &self.times;
        self.rcvd_info_while =
            if t.message_age.saturating_add(1) <= t.max_age { t.hello.saturating_mul(3) } else { 0 };
    }

    /// betterorsameInfo (17.21.1).
    fn better_or_same(&self, info: InfoIs) -> bool {
        self.info_is == info && self.designated_priority <= self.priority
    }
}

/// rcvInfo (17.21.8).
fn received_info(p: &Port, m: &Message) -> Received {
    match m.role {
        Role::Designated => {
            let address = |id: u64| id & 0xffff_ffff_ffff;
            let same_source = address(m.vector.bridge) == address(p.priority.bridge)
                && m.vector.port & 0xfff == p.priority.port & 0xfff;
            if m.vector == p.priority && m.times == p.times && p.info_is == InfoIs::Received {
                Received::Repeated
            } else if m.vector < p.priority || same_source || (m.vector == p.priority && m.times != p.times) {
                Received::Superior
            } else {
                Received::Inferior
            }
        }
        Role::Root | Role::Alternate | Role::Backup if m.vector >= p.priority => Received::NotDesignated,
        _ => Received::Other,
    }
}
