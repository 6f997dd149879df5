//! What a datapath can do, declared once: probing's log lines and `dpif/show-dp-features` come from here.

use std::fmt::Write;

use ib_base::vlog::module::OFPROTO_DPIF;
use ib_base::vlog_info;
use ib_dpif::text::{PortNames, parse_actions, parse_key};
use ib_dpif::{Action, Dpif, FlowPut};

/// Abilities of a datapath. [`Features::probe`] says what ours have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Names as in `dpif/show-dp-features`; see [`Features::show`].
pub struct Features {
    pub masked_set: bool,
    pub tnl_push_pop: bool,
    pub ufid: bool,
    pub trunc: bool,
    pub clone: bool,
    pub sample_nesting: u32,
    pub ct_eventmask: bool,
    pub ct_clear: bool,
    pub max_hash_alg: u32,
    pub check_pkt_len: bool,
    pub ct_timeout: bool,
    pub explicit_drop: bool,
    pub lb_output: bool,
    pub ct_zero_snat: bool,
    pub add_mpls: bool,
    pub psample: bool,
    pub max_vlan_headers: u32,
    pub max_mpls_depth: u32,
    pub recirc: bool,
    pub ct_state: bool,
    pub ct_zone: bool,
    pub ct_mark: bool,
    pub ct_label: bool,
    pub ct_state_nat: bool,
    pub ct_orig_tuple: bool,
    pub ct_orig_tuple6: bool,
    pub nd_ext: bool,
}

/// Whether a datapath takes a flow that no packet matches.
fn takes(dpif: &dyn Dpif, key: &str, actions: &str) -> bool {
    let names = PortNames::none();
    // No pass of a packet has this identifier.
    let text = format!("recirc_id(0xfffffff0),in_port(0),eth(),{key}");
    let parsed = parse_key(&text, &names).ok().zip(parse_actions(actions, &names).ok());
    // An explicit drop has no text of its own.
    let drop = (actions == "drop").then(|| vec![Action::Drop(0)]);
    let Some(((key, mut mask), actions)) = parsed else { return false };
    mask.0.recirc_id = u32::MAX;
    let put = FlowPut {
        modify: false,
        create: true,
        zero_stats: false,
        key: &key,
        mask: &mask,
        ufid: Some(ib_dpif::ufid::ufid_of(&key, &mask, 0)),
        actions: drop.unwrap_or(actions).into(),
    };
    dpif.takes(&put).unwrap_or(true)
}

/// A feature by its two names, with access.
enum Value<'a> {
    Yes(&'a mut bool),
    Number(&'a mut u32),
}

impl Features {
    /// What a datapath does: ours in user space everything that it knows of, wherever it runs; the kernel's is tried.
    pub fn probe(dpif: &dyn Dpif) -> Features {
        let user_space = dpif.terminates_tunnels();
        let all = Features {
            masked_set: true,
            tnl_push_pop: user_space,
            ufid: true,
            trunc: true,
            clone: true,
            sample_nesting: 10,
            ct_eventmask: true,
            ct_clear: true,
            max_hash_alg: 1,
            check_pkt_len: true,
            ct_timeout: true,
            explicit_drop: user_space,
            lb_output: user_space,
            ct_zero_snat: true,
            add_mpls: true,
            psample: false,
            max_vlan_headers: if user_space { 1 } else { 2 },
            max_mpls_depth: 3,
            recirc: true,
            ct_state: true,
            ct_zone: true,
            ct_mark: true,
            ct_label: true,
            ct_state_nat: true,
            ct_orig_tuple: true,
            ct_orig_tuple6: true,
            nd_ext: user_space,
        };
        let does = |key: &str, actions: &str| takes(dpif, key, actions);
        const IP: &str = "eth_type(0x0800),ipv4(frag=no)";
        // What is refused as well as a flow that only sends is refused for another reason.
        if user_space || !does(IP, "1") {
            return all;
        }
        let vlans = [
            "eth_type(0x8100),vlan(vid=1,pcp=0),encap(eth_type(0x0800),ipv4(frag=no))",
            "eth_type(0x88a8),vlan(vid=1,pcp=0),encap(eth_type(0x8100),vlan(vid=2,pcp=0),\
             encap(eth_type(0x0800),ipv4(frag=no)))",
        ];
        let ct = |fields: &str| does(&format!("{fields},{IP}"), "1");
        Features {
            trunc: does(IP, "trunc(64),1"),
            clone: does(IP, "clone(1)"),
            ct_clear: does(IP, "ct_clear"),
            max_hash_alg: does(IP, "hash(sym_l4(0)),recirc(0x1)").into(),
            check_pkt_len: does(IP, "check_pkt_len(size=200,gt(1),le(2))"),
            ct_timeout: does(IP, "ct(commit,timeout=ovs_test_tp)"),
            explicit_drop: does(IP, "drop"),
            ct_zero_snat: does(IP, "ct(commit,nat(src=0.0.0.0))"),
            add_mpls: does(IP, "add_mpls(label=1,tc=0,ttl=64,bos=1,eth_type=0x8847)"),
            psample: does(IP, "psample(group=1)"),
            max_vlan_headers: vlans.iter().map(|key| u32::from(does(key, "1"))).sum(),
            ct_state: ct("ct_state(+trk)"),
            ct_zone: ct("ct_zone(1)"),
            ct_mark: ct("ct_mark(0x1)"),
            ct_label: ct("ct_label(0x1)"),
            ct_state_nat: ct("ct_state(+trk+snat)"),
            ..all
        }
    }

    fn table(&mut self) -> Vec<(&'static str, &'static str, Value<'_>)> {
        use Value::{Number, Yes};
        vec![
            ("Masked set action", "masked_set_action", Yes(&mut self.masked_set)),
            ("Tunnel push pop", "tnl_push_pop", Yes(&mut self.tnl_push_pop)),
            ("Ufid", "ufid", Yes(&mut self.ufid)),
            ("Truncate action", "trunc", Yes(&mut self.trunc)),
            ("Clone action", "clone", Yes(&mut self.clone)),
            ("Sample nesting", "sample_nesting", Number(&mut self.sample_nesting)),
            ("Conntrack eventmask", "ct_eventmask", Yes(&mut self.ct_eventmask)),
            ("Conntrack clear", "ct_clear", Yes(&mut self.ct_clear)),
            ("Max dp_hash algorithm", "max_hash_alg", Number(&mut self.max_hash_alg)),
            ("Check pkt length action", "check_pkt_len", Yes(&mut self.check_pkt_len)),
            ("Conntrack timeout policy", "ct_timeout", Yes(&mut self.ct_timeout)),
            ("Explicit Drop action", "explicit_drop_action", Yes(&mut self.explicit_drop)),
            ("Optimized Balance TCP mode", "lb_output_action", Yes(&mut self.lb_output)),
            ("Conntrack all-zero IP SNAT", "ct_zero_snat", Yes(&mut self.ct_zero_snat)),
            ("MPLS Label add", "add_mpls", Yes(&mut self.add_mpls)),
            ("Psample action", "psample", Yes(&mut self.psample)),
            ("Max VLAN headers", "max_vlan_headers", Number(&mut self.max_vlan_headers)),
            ("Max MPLS depth", "max_mpls_depth", Number(&mut self.max_mpls_depth)),
            ("Recirc", "recirc", Yes(&mut self.recirc)),
            ("CT state", "ct_state", Yes(&mut self.ct_state)),
            ("CT zone", "ct_zone", Yes(&mut self.ct_zone)),
            ("CT mark", "ct_mark", Yes(&mut self.ct_mark)),
            ("CT label", "ct_label", Yes(&mut self.ct_label)),
            ("CT state NAT", "ct_state_nat", Yes(&mut self.ct_state_nat)),
            ("CT orig tuple", "ct_orig_tuple", Yes(&mut self.ct_orig_tuple)),
            ("CT orig tuple for IPv6", "ct_orig_tuple6", Yes(&mut self.ct_orig_tuple6)),
            ("IPv6 ND Extension", "nd_ext", Yes(&mut self.nd_ext)),
        ]
    }

    /// `dpif/show-dp-features`.
    pub fn show(&self) -> String {
        let mut copy = self.clone();
        let mut out = String::new();
        for (title, _, value) in copy.table() {
            let _ = match value {
                Value::Yes(b) => writeln!(out, "{title}: {}", if *b { "Yes" } else { "No" }),
                Value::Number(n) => writeln!(out, "{title}: {n}"),
            };
        }
        out
    }

    /// `dpif/set-dp-features`: tells features by their short names, all or one, or changes one.
    pub fn set(
        &mut self,
        boot: &Features,
        name: Option<&str>,
        value: Option<&str>,
        force: bool,
    ) -> Result<String, String> {
        let mut boot = boot.clone();
        let show = |v: &Value<'_>| match v {
            Value::Yes(b) => b.to_string(),
            Value::Number(n) => n.to_string(),
        };
        let mut out = String::new();
        let mut known = false;
        for ((title, short, slot), (_, _, at_boot)) in self.table().into_iter().zip(boot.table()) {
            if name.is_some_and(|n| n != short) {
                continue;
            }
            known = true;
            match (slot, value) {
                (slot, None) => {
                    let (now, then) = (show(&slot), show(&at_boot));
                    let _ = writeln!(out, "{short} ({title}) : [run time]:{now}, [boot time]:{then}");
                }
                (Value::Yes(b), Some(v)) => {
                    *b = match v {
                        "true" | "1" | "yes" | "on" => true,
                        "false" | "0" | "no" | "off" => false,
                        _ => return Ok("Boolean value expected\n".to_owned()),
                    };
                }
                (Value::Number(n), Some(v)) => {
                    let Ok(v) = v.parse() else { return Ok("Integer number expected\n".to_owned()) };
                    if !force && matches!(at_boot, Value::Number(max) if v > *max) {
                        return Ok("Can not set value beyond the datapath capability\n".to_owned());
                    }
                    *n = v;
                }
            }
        }
        if known { Ok(out) } else { Ok("Unexpected support field".to_owned()) }
    }

    /// Says in the log what was found.
    pub fn log(&self, dp: &str) {
        let does = |yes: bool| if yes { "supports" } else { "does not support" };
        let say = |yes: bool, what: &str| vlog_info!(OFPROTO_DPIF, "{dp}: Datapath {} {what}", does(yes));
        say(self.recirc, "recirculation");
        vlog_info!(OFPROTO_DPIF, "{dp}: VLAN header stack length probed as {}", self.max_vlan_headers);
        vlog_info!(OFPROTO_DPIF, "{dp}: MPLS label stack length probed as {}", self.max_mpls_depth);
        say(self.trunc, "truncate action");
        say(self.ufid, "unique flow ids");
        say(self.clone, "clone action");
        vlog_info!(OFPROTO_DPIF, "{dp}: Max sample nesting level probed as {}", self.sample_nesting);
        say(self.ct_eventmask, "eventmask in conntrack action");
        say(self.ct_clear, "ct_clear action");
        vlog_info!(OFPROTO_DPIF, "{dp}: Max dp_hash algorithm probed to be {}", self.max_hash_alg);
        say(self.check_pkt_len, "check_pkt_len action");
        say(self.ct_timeout, "timeout policy in conntrack action");
        say(self.explicit_drop, "explicit drop action");
        say(self.ct_zero_snat, "ct_zero_snat");
        say(self.add_mpls, "add_mpls action");
        say(self.psample, "psample action");
        say(self.ct_state, "ct_state");
        say(self.ct_zone, "ct_zone");
        say(self.ct_mark, "ct_mark");
        say(self.ct_label, "ct_label");
        say(self.ct_state_nat, "ct_state_nat");
        say(self.ct_orig_tuple, "ct_orig_tuple");
        say(self.ct_orig_tuple6, "ct_orig_tuple6");
        say(self.nd_ext, "IPv6 ND Extensions");
    }
}
