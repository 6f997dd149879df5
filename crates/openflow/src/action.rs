//! OpenFlow actions and instructions, independent of the protocol's version.
//!
//! [`Action`] has a variant for each action of ovs-actions(7). Instructions (OpenFlow 1.1+) are folded into the
//! same list, in the order in which they execute: `Meter`, the apply-actions, `ClearActions`, `WriteActions`,
//! `WriteMetadata`, `GotoTable`. So a flow's behaviour is one `Vec<Action>`, and an empty list drops.
//!
//! Where Open vSwitch remembers in which form an action arrived, because it prints or sends it back in that
//! form (`load` or `set_field`, `mod_vlan_vid` or `set_vlan_vid`), the variant has a field for it.

use ib_flow::{FieldId, OfPort, Subfield};
use ib_packet::{Be16, Be32, Be128, Mac};

/// How `strip_vlan` arrived and prints: lists that differ in it alone are equal.
#[derive(Clone, Copy, Debug)]
pub enum TagWord {
    /// OpenFlow 1.0 and texts: `strip_vlan`.
    Strip,
    /// OpenFlow 1.1+: `pop_vlan`.
    Pop,
}

impl PartialEq for TagWord {
    fn eq(&self, _: &TagWord) -> bool {
        true
    }
}
impl Eq for TagWord {}

/// One action or instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `output:PORT`. `max_len` counts only for [`OfPort::CONTROLLER`].
    Output {
        /// Where to.
        port: OfPort,
        /// Bytes to send to a controller; 0xffff is everything.
        max_len: u16,
    },
    /// `output:FIELD[..]`: the port is in a field.
    OutputReg {
        /// Where the port's number is.
        src: Subfield,
        /// As in `Output`.
        max_len: u16,
    },
    /// `output(port=PORT,max_len=N)`: truncate the copy that leaves.
    OutputTrunc {
        /// Where to.
        port: OfPort,
        /// Bytes that stay.
        max_len: u32,
    },
    /// `controller(...)`.
    Controller(Controller),
    /// `enqueue:PORT:QUEUE`.
    Enqueue {
        /// Where to.
        port: OfPort,
        /// Queue of that port.
        queue: u32,
    },
    /// `bundle(...)` and `bundle_load(...)`.
    Bundle(Bundle),
    /// `group:ID`.
    Group(u32),
    /// `set_field:VALUE[/MASK]->FIELD` and `load:VALUE->FIELD[..]`.
    SetField(SetField),
    /// `move:SRC->DST`.
    RegMove {
        /// From.
        src: Subfield,
        /// To.
        dst: Subfield,
    },
    /// `push:FIELD[..]`.
    StackPush(Subfield),
    /// `pop:FIELD[..]`.
    StackPop(Subfield),
    /// `mod_vlan_vid:VID` (pushes a tag if there is none), or OpenFlow 1.1 `set_vlan_vid:VID`.
    SetVlanVid {
        /// 12 bits.
        vid: u16,
        /// OpenFlow 1.0 behaviour: add a tag to packets that have none.
        push_if_needed: bool,
    },
    /// `mod_vlan_pcp:PCP` or `set_vlan_pcp:PCP`; see [`Action::SetVlanVid`].
    SetVlanPcp {
        /// 3 bits.
        pcp: u8,
        /// OpenFlow 1.0 behaviour: add a tag to packets that have none.
        push_if_needed: bool,
    },
    /// `strip_vlan`, `pop_vlan`: no-op on packets without a tag.
    StripVlan(TagWord),
    /// `push_vlan:ETHERTYPE`.
    PushVlan(Be16),
    /// `mod_dl_src:MAC`.
    SetEthSrc(Mac),
    /// `mod_dl_dst:MAC`.
    SetEthDst(Mac),
    /// `mod_nw_src:IP`.
    SetIpv4Src(Be32),
    /// `mod_nw_dst:IP`.
    SetIpv4Dst(Be32),
    /// `mod_nw_tos:TOS`: the DSCP in the high 6 bits.
    SetIpDscp(u8),
    /// `mod_nw_ecn:ECN`.
    SetIpEcn(u8),
    /// `mod_nw_ttl:TTL`.
    SetIpTtl(u8),
    /// `mod_tp_src:PORT`. The flow's match tells the protocol.
    SetL4Src(u16),
    /// `mod_tp_dst:PORT`.
    SetL4Dst(u16),
    /// `dec_ttl` (no ids: the controllers of id 0) or `dec_ttl(ID,...)`: controllers with those ids get invalid TTLs.
    DecTtl(Vec<u16>),
    /// `set_mpls_label:LABEL`.
    SetMplsLabel(u32),
    /// `set_mpls_tc:TC`.
    SetMplsTc(u8),
    /// `set_mpls_ttl:TTL`.
    SetMplsTtl(u8),
    /// `dec_mpls_ttl`.
    DecMplsTtl,
    /// `dec_nsh_ttl`.
    DecNshTtl,
    /// `push_mpls:ETHERTYPE`.
    PushMpls(Be16),
    /// `pop_mpls:ETHERTYPE`.
    PopMpls(Be16),
    /// `delete_field:FIELD`.
    DeleteField(FieldId),
    /// `set_tunnel:ID` and `set_tunnel64:ID`.
    SetTunnel {
        /// The tunnel id.
        id: u64,
        /// Arrived in the 64-bit form (the 32-bit form carries ids that fit).
        wide: bool,
    },
    /// `set_queue:QUEUE`.
    SetQueue(u32),
    /// `pop_queue`.
    PopQueue,
    /// `fin_timeout(...)`.
    FinTimeout {
        /// Seconds idle after FIN or RST; 0: leave.
        idle: u16,
        /// Seconds in all after FIN or RST; 0: leave.
        hard: u16,
    },
    /// `resubmit(PORT,TABLE[,ct])`. `in_port` is [`OfPort::IN_PORT`] for the packet's own; `table` 255 for the current.
    Resubmit {
        /// Port of entry to look up with.
        in_port: OfPort,
        /// Table.
        table: u8,
        /// Look up with the connection's original tuple.
        with_ct_orig: bool,
        /// `resubmit:PORT`, the form without a table.
        simple: bool,
    },
    /// `learn(...)`.
    Learn(Box<Learn>),
    /// `conjunction(ID,K/N)`.
    Conjunction {
        /// Conjunction id.
        id: u32,
        /// This flow's dimension, from 0.
        clause: u8,
        /// Dimensions, 2 to 64.
        n_clauses: u8,
    },
    /// `multipath(...)`.
    Multipath(Multipath),
    /// `note:XX.XX...`; the length is padded to 6 mod 8 when on the wire.
    Note(Vec<u8>),
    /// `exit`.
    Exit,
    /// Internal to continuations: go back to a table's and cookie's context.
    UnrollXlate {
        /// Table for packet-ins; 255 if within no table.
        table: u8,
        /// Cookie for packet-ins.
        cookie: u64,
    },
    /// `sample(...)`.
    Sample(Sample),
    /// `clone(...)`.
    Clone(Vec<Action>),
    /// `ct(...)`.
    Ct(Box<Ct>),
    /// `ct_clear`.
    CtClear,
    /// `check_pkt_larger(LEN)->FIELD[BIT]`.
    CheckPktLarger {
        /// Bytes.
        len: u16,
        /// One bit.
        dst: Subfield,
    },
    /// `debug_recirc`.
    DebugRecirc,
    /// `debug_slow`.
    DebugSlow,
    /// `encap(...)`.
    Encap(Encap),
    /// `decap(...)`: packet type to become, `None` for what follows from the header.
    Decap(Option<Be32>),
    /// `meter:ID`.
    Meter(u32),
    /// `clear_actions`.
    ClearActions,
    /// `write_actions(...)`.
    WriteActions(Vec<Action>),
    /// `write_metadata:VALUE[/MASK]`.
    WriteMetadata {
        /// Value; zero outside of the mask.
        value: u64,
        /// Bits to change.
        mask: u64,
    },
    /// `goto_table:TABLE`.
    GotoTable(u8),
}

/// How a field-setting action arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SetFieldForm {
    /// `set_field`.
    #[default]
    SetField,
    /// `load` (NXAST_REG_LOAD).
    RegLoad,
    /// NXAST_REG_LOAD2; text is `set_field`.
    RegLoad2,
}

/// Sets bits of a field to a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetField {
    /// Field.
    pub field: FieldId,
    /// Value in network order, as many bytes as the field has (variable-length fields: as given). Zero outside of `mask`.
    pub value: Box<[u8]>,
    /// Which bits; as long as `value`.
    pub mask: Box<[u8]>,
    /// How it arrived.
    pub form: SetFieldForm,
}

/// Send to controllers; see ovs-actions(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Bytes to send; 0xffff is everything.
    pub max_len: u16,
    /// `OFPR_*`; see [`crate::message::PacketInReason`].
    pub reason: u8,
    /// Which controllers.
    pub id: u16,
    /// Opaque, for the controller.
    pub userdata: Vec<u8>,
    /// Stop here and let the controller resume.
    pub pause: bool,
    /// Meter id instead of the controller's one.
    pub meter: Option<u32>,
    /// Came as (and is sent as) NXAST_CONTROLLER2.
    pub v2: bool,
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            max_len: u16::MAX,
            reason: 1,
            id: 0,
            userdata: Vec::new(),
            pause: false,
            meter: None,
            v2: false,
        }
    }
}

/// Hash input of `bundle` and `multipath`.
pub use ib_flow::HashFields;

/// Which member of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleAlg {
    /// The first that is up.
    ActiveBackup,
    /// Highest random weight.
    Hrw,
}

/// `bundle` or, with `dst`, `bundle_load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Hash input.
    pub fields: HashFields,
    /// Hash seed.
    pub basis: u16,
    /// Choice.
    pub alg: BundleAlg,
    /// Candidates.
    pub members: Vec<OfPort>,
    /// Where to put the port's number; else output to it.
    pub dst: Option<Subfield>,
}

/// Which link of a multipath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultipathAlg {
    /// `hash % n`.
    ModuloN,
    /// `hash / (2^16 / n)`.
    HashThreshold,
    /// Highest random weight.
    Hrw,
    /// Iterated hash.
    IterHash,
}

/// `multipath(...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipath {
    /// Hash input.
    pub fields: HashFields,
    /// Hash seed.
    pub basis: u16,
    /// Choice.
    pub alg: MultipathAlg,
    /// Links less one.
    pub max_link: u16,
    /// Parameter of `IterHash`.
    pub arg: u32,
    /// Where the link's number goes.
    pub dst: Subfield,
}

/// Bits of [`Learn::flags`].
pub struct LearnFlags;
impl LearnFlags {
    /// OFPFF_SEND_FLOW_REM on learned flows.
    pub const SEND_FLOW_REM: u16 = 1 << 0;
    /// Delete learned flows with this flow.
    pub const DELETE_LEARNED: u16 = 1 << 1;
    /// Report the limit's outcome in `result_dst`.
    pub const WRITE_RESULT: u16 = 1 << 2;
}

/// `learn(...)`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Learn {
    /// Seconds.
    pub idle_timeout: u16,
    /// Seconds.
    pub hard_timeout: u16,
    /// As [`Action::FinTimeout`] of the learned flow.
    pub fin_idle_timeout: u16,
    /// As [`Action::FinTimeout`] of the learned flow.
    pub fin_hard_timeout: u16,
    /// Priority of the learned flow.
    pub priority: u16,
    /// Cookie of the learned flow.
    pub cookie: u64,
    /// [`LearnFlags`].
    pub flags: u16,
    /// Table of the learned flow.
    pub table: u8,
    /// Most flows that this table may hold by this action; 0 is no limit.
    pub limit: u32,
    /// One bit that tells whether a flow could be learned.
    pub result_dst: Option<Subfield>,
    /// What to match and do.
    pub specs: Vec<LearnSpec>,
}

/// Source of a learned value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LearnSrc {
    /// From the packet.
    Field(Subfield),
    /// Constant: right-aligned, network order, `ceil(n_bits / 8)` bytes.
    Immediate(Box<[u8]>),
}

/// Destination of a learned value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LearnDst {
    /// The learned flow matches it.
    Match(Subfield),
    /// The learned flow loads it.
    Load(Subfield),
    /// The learned flow outputs to it.
    Output,
}

/// One piece of a learned flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnSpec {
    /// Width of both sides.
    pub n_bits: u16,
    /// From.
    pub src: LearnSrc,
    /// To.
    pub dst: LearnDst,
}

/// A number that is constant or in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Constant.
    Imm(u32),
    /// In a field.
    Field(Subfield),
}

impl Default for Source {
    fn default() -> Self {
        Source::Imm(0)
    }
}

/// Which side `sample` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SampleDirection {
    /// By the sampling port.
    #[default]
    Default,
    /// Ingress.
    Ingress,
    /// Egress.
    Egress,
}

/// `sample(...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Of 65535 packets, how many; not 0.
    pub probability: u16,
    /// Collector set.
    pub collector_set_id: u32,
    /// Observation domain.
    pub obs_domain_id: Source,
    /// Observation point.
    pub obs_point_id: Source,
    /// Port sampled, or [`OfPort::NONE`].
    pub sampling_port: OfPort,
    /// Direction.
    pub direction: SampleDirection,
}

/// Bits of [`Ct::flags`].
pub struct CtFlags;
impl CtFlags {
    /// Commit the connection.
    pub const COMMIT: u16 = 1 << 0;
    /// Replace one of the other direction.
    pub const FORCE: u16 = 1 << 1;
}

/// [`Ct::recirc_table`]: no recirculation.
pub const CT_RECIRC_NONE: u8 = 0xff;

/// `ct(...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ct {
    /// [`CtFlags`].
    pub flags: u16,
    /// Zone: 16 bits.
    pub zone: Source,
    /// Table to continue in, or [`CT_RECIRC_NONE`].
    pub recirc_table: u8,
    /// Port number that selects a helper: 21 FTP, 69 TFTP, else 0.
    pub alg: u16,
    /// Address translation.
    pub nat: Option<Nat>,
    /// `exec(...)`: `SetField` or `RegMove` to ct_mark and ct_label.
    pub actions: Vec<Action>,
}

impl Default for Ct {
    fn default() -> Self {
        Ct {
            flags: 0,
            zone: Source::Imm(0),
            recirc_table: CT_RECIRC_NONE,
            alg: 0,
            nat: None,
            actions: Vec::new(),
        }
    }
}

/// Bits of [`Nat::flags`].
pub struct NatFlags;
impl NatFlags {
    /// Translate the source.
    pub const SRC: u16 = 1 << 0;
    /// Translate the destination.
    pub const DST: u16 = 1 << 1;
    /// Keep the choice over reboots.
    pub const PERSISTENT: u16 = 1 << 2;
    /// Hash for the port.
    pub const PROTO_HASH: u16 = 1 << 3;
    /// Random port.
    pub const PROTO_RANDOM: u16 = 1 << 4;
}

/// Address range of a [`Nat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NatRange {
    /// No address given.
    #[default]
    None,
    /// IPv4, both ends; equal ends (or `max` zero on the wire) for one address.
    V4(Be32, Be32),
    /// IPv6, both ends.
    V6(Be128, Be128),
}

/// `nat(...)` within `ct`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Nat {
    /// [`NatFlags`]. Neither `SRC` nor `DST`: translate as the connection says.
    pub flags: u16,
    /// Addresses. A single address has a `max` of zero.
    pub range: NatRange,
    /// Ports `min` to `max`; `min` zero: none, `max` zero: the single `min`.
    pub ports: (u16, u16),
}

/// A property of `encap(nsh(...))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncapProp {
    /// `md_type`.
    NshMdType(u8),
    /// `tlv(class,type,value)`.
    NshTlv {
        /// Class.
        class: u16,
        /// Type.
        kind: u8,
        /// Data.
        data: Vec<u8>,
    },
}

/// `encap(...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encap {
    /// Packet type: namespace << 16 | type.
    pub packet_type: Be32,
    /// Header size hint of the wire form; zero is usual.
    pub hdr_size: u16,
    /// Properties.
    pub props: Vec<EncapProp>,
}
