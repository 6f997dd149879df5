//! The datapath contract.
//!
//! A datapath forwards packets by flows that others install, and reports what it has no flow for. This
//! crate defines what both sides say to each other, and imports neither: keys ([`ib_flow::Flow`] with a
//! datapath port in `in_port`), actions ([`Action`]), upcalls ([`Upcall`]) and the provider trait
//! ([`Dpif`]). Keys and actions have three forms: these values, the netlink attributes of
//! linux/openvswitch.h (`netlink`), and the text of ovs-dpctl(8) (`text`).

pub mod action;
pub mod conformance;
pub mod conntrack;
pub mod ct_saved;
pub mod datapaths;
pub mod dpctl;
pub mod meter;
pub mod netlink;
pub mod provider;
pub mod text;
pub mod ufid;

pub use action::{Action, CtAction, HashAlg, NatAction, NatRange, SetField, UserspaceAction};
pub use datapaths::Datapaths;
pub use provider::{
    Departed, DpStats, Dpif, DpifClass, DpifError, Execute, FlowDel, FlowInfo, FlowOrigin, FlowPut,
    FlowStats, Install, LastStats, PortDevice, PortInfo, PortSpec, Ufid, Upcall, UpcallHandler, UpcallKind,
    UpcallVerdict, UserspaceData,
};
