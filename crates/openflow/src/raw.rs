//! Message kinds: every layout that a message can have, declared once.
//!
//! A row has the kind's name as users see it, the versions that have it, its number, and the lengths that its body may
//! have. Framing, dispatch, length errors and the names in logs all come from these rows. Source: the OpenFlow
//! specifications, and Open vSwitch's vendor messages as observed.

use ib_base::vlog::module::OFP_MSGS;
use ib_base::vlog_warn_rl;

use crate::error::{NX, ONF, OfError};
use crate::message::{Header, Version};
use crate::wire::{Buf, Cursor};

/// How a kind is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A type of the specification.
    Type,
    /// A vendor's message.
    Vendor(u32),
    /// A statistics (multipart) request.
    Request,
    /// A statistics (multipart) reply.
    Reply,
    /// A vendor's statistics request.
    VendorRequest(u32),
    /// A vendor's statistics reply.
    VendorReply(u32),
}

/// One row.
#[derive(Debug)]
pub struct Kind {
    /// Which.
    pub raw: Raw,
    /// As in `OFPT_FLOW_MOD` or `OFPST_FLOW reply`.
    pub name: &'static str,
    /// Numbering.
    pub class: Class,
    /// First wire version.
    pub first: u8,
    /// Last wire version.
    pub last: u8,
    /// Number.
    pub number: u32,
    /// Least bytes of body.
    pub min: usize,
    /// Bodies are `min` and a multiple of this longer; 0: exactly `min`.
    pub step: usize,
}

macro_rules! kinds {
    ($($raw:ident $name:literal $class:ident $(($vendor:ident))? $first:literal..$last:literal $number:literal $min:literal $step:literal;)*) => {
        /// A layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // Named after the rows.
        pub enum Raw {
            $($raw),*
        }
        /// All rows.
        pub static KINDS: &[Kind] = &[$(Kind {
            raw: Raw::$raw,
            name: $name,
            class: Class::$class $(($vendor))?,
            first: $first,
            last: $last,
            number: $number,
            min: $min,
            step: $step,
        }),*];
    };
}

kinds! {
    Hello "OFPT_HELLO" Type 1..255 0 0 1;
    Error "OFPT_ERROR" Type 1..6 1 4 1;
    EchoRequest "OFPT_ECHO_REQUEST" Type 1..6 2 0 1;
    EchoReply "OFPT_ECHO_REPLY" Type 1..6 3 0 1;
    FeaturesRequest "OFPT_FEATURES_REQUEST" Type 1..6 5 0 0;
    FeaturesReply10 "OFPT_FEATURES_REPLY" Type 1..1 6 24 48;
    FeaturesReply11 "OFPT_FEATURES_REPLY" Type 2..3 6 24 64;
    FeaturesReply13 "OFPT_FEATURES_REPLY" Type 4..6 6 24 0;
    GetConfigRequest "OFPT_GET_CONFIG_REQUEST" Type 1..6 7 0 0;
    GetConfigReply "OFPT_GET_CONFIG_REPLY" Type 1..6 8 4 0;
    SetConfig "OFPT_SET_CONFIG" Type 1..6 9 4 0;
    PacketIn10 "OFPT_PACKET_IN" Type 1..1 10 10 1;
    PacketIn11 "OFPT_PACKET_IN" Type 2..2 10 16 1;
    PacketIn12 "OFPT_PACKET_IN" Type 3..3 10 8 1;
    PacketIn13 "OFPT_PACKET_IN" Type 4..6 10 16 1;
    FlowRemoved10 "OFPT_FLOW_REMOVED" Type 1..1 11 80 0;
    FlowRemoved11 "OFPT_FLOW_REMOVED" Type 2..5 11 40 8;
    FlowRemoved15 "OFPT_FLOW_REMOVED" Type 6..6 11 16 8;
    PortStatus10 "OFPT_PORT_STATUS" Type 1..1 12 56 0;
    PortStatus11 "OFPT_PORT_STATUS" Type 2..4 12 72 0;
    PortStatus14 "OFPT_PORT_STATUS" Type 5..6 12 48 8;
    PacketOut10 "OFPT_PACKET_OUT" Type 1..1 13 8 1;
    PacketOut11 "OFPT_PACKET_OUT" Type 2..5 13 16 1;
    PacketOut15 "OFPT_PACKET_OUT" Type 6..6 13 8 1;
    FlowMod10 "OFPT_FLOW_MOD" Type 1..1 14 64 8;
    FlowMod11 "OFPT_FLOW_MOD" Type 2..6 14 40 8;
    PortMod10 "OFPT_PORT_MOD" Type 1..1 15 24 0;
    GroupMod11 "OFPT_GROUP_MOD" Type 2..5 15 8 8;
    GroupMod15 "OFPT_GROUP_MOD" Type 6..6 15 16 8;
    PortMod11 "OFPT_PORT_MOD" Type 2..4 16 32 0;
    PortMod14 "OFPT_PORT_MOD" Type 5..6 16 24 8;
    TableMod11 "OFPT_TABLE_MOD" Type 2..4 17 8 0;
    TableMod14 "OFPT_TABLE_MOD" Type 5..6 17 8 8;
    BarrierRequest10 "OFPT_BARRIER_REQUEST" Type 1..1 18 0 0;
    BarrierRequest11 "OFPT_BARRIER_REQUEST" Type 2..6 20 0 0;
    BarrierReply10 "OFPT_BARRIER_REPLY" Type 1..1 19 0 0;
    BarrierReply11 "OFPT_BARRIER_REPLY" Type 2..6 21 0 0;
    QueueGetConfigRequest10 "OFPT_QUEUE_GET_CONFIG_REQUEST" Type 1..1 20 4 0;
    QueueGetConfigRequest11 "OFPT_QUEUE_GET_CONFIG_REQUEST" Type 2..4 22 8 0;
    QueueGetConfigReply10 "OFPT_QUEUE_GET_CONFIG_REPLY" Type 1..1 21 8 8;
    QueueGetConfigReply11 "OFPT_QUEUE_GET_CONFIG_REPLY" Type 2..4 23 8 8;
    RoleRequest "OFPT_ROLE_REQUEST" Type 3..6 24 16 0;
    RoleReply "OFPT_ROLE_REPLY" Type 3..6 25 16 0;
    GetAsyncRequest "OFPT_GET_ASYNC_REQUEST" Type 4..6 26 0 0;
    GetAsyncReply13 "OFPT_GET_ASYNC_REPLY" Type 4..4 27 24 0;
    GetAsyncReply14 "OFPT_GET_ASYNC_REPLY" Type 5..6 27 0 8;
    SetAsync13 "OFPT_SET_ASYNC" Type 4..4 28 24 0;
    SetAsync14 "OFPT_SET_ASYNC" Type 5..6 28 0 8;
    MeterMod "OFPT_METER_MOD" Type 4..6 29 8 8;
    RoleStatus "OFPT_ROLE_STATUS" Type 5..6 30 16 8;
    TableStatus "OFPT_TABLE_STATUS" Type 5..6 31 8 8;
    RequestForward "OFPT_REQUESTFORWARD" Type 5..6 32 8 8;
    BundleControl14 "OFPT_BUNDLE_CONTROL" Type 5..6 33 8 8;
    BundleAdd14 "OFPT_BUNDLE_ADD_MESSAGE" Type 5..6 34 8 1;

    NxRoleRequest "NXT_ROLE_REQUEST" Vendor(NX) 1..6 10 4 0;
    NxRoleReply "NXT_ROLE_REPLY" Vendor(NX) 1..6 11 4 0;
    NxSetFlowFormat "NXT_SET_FLOW_FORMAT" Vendor(NX) 1..1 12 4 0;
    NxFlowMod "NXT_FLOW_MOD" Vendor(NX) 1..6 13 32 8;
    NxFlowRemoved "NXT_FLOW_REMOVED" Vendor(NX) 1..6 14 40 8;
    NxFlowModTableId "NXT_FLOW_MOD_TABLE_ID" Vendor(NX) 1..6 15 8 0;
    NxSetPacketInFormat "NXT_SET_PACKET_IN_FORMAT" Vendor(NX) 1..6 16 4 0;
    NxPacketIn "NXT_PACKET_IN" Vendor(NX) 1..6 17 24 1;
    NxFlowAge "NXT_FLOW_AGE" Vendor(NX) 1..6 18 0 0;
    NxSetAsync "NXT_SET_ASYNC_CONFIG" Vendor(NX) 1..6 19 24 0;
    NxSetControllerId "NXT_SET_CONTROLLER_ID" Vendor(NX) 1..6 20 8 0;
    NxFlowMonitorCancel "NXT_FLOW_MONITOR_CANCEL" Vendor(NX) 1..3 21 4 0;
    NxFlowMonitorPaused "NXT_FLOW_MONITOR_PAUSED" Vendor(NX) 1..3 22 0 0;
    NxFlowMonitorResumed "NXT_FLOW_MONITOR_RESUMED" Vendor(NX) 1..3 23 0 0;
    NxTlvTableMod "NXT_TLV_TABLE_MOD" Vendor(NX) 1..6 24 8 8;
    NxTlvTableRequest "NXT_TLV_TABLE_REQUEST" Vendor(NX) 1..6 25 0 0;
    NxTlvTableReply "NXT_TLV_TABLE_REPLY" Vendor(NX) 1..6 26 16 8;
    NxSetAsync2 "NXT_SET_ASYNC_CONFIG2" Vendor(NX) 1..4 27 0 8;
    NxResume "NXT_RESUME" Vendor(NX) 1..6 28 8 8;
    NxCtFlushZone "NXT_CT_FLUSH_ZONE" Vendor(NX) 1..6 29 8 0;
    NxPacketIn2 "NXT_PACKET_IN2" Vendor(NX) 1..6 30 0 8;
    NxGroupMod "NXT_GROUP_MOD" Vendor(NX) 1..1 31 16 8;
    NxCtFlush "NXT_CT_FLUSH" Vendor(NX) 1..6 32 8 8;
    OnfFlowMonitorCancel "ONFT_FLOW_MONITOR_CANCEL" Vendor(ONF) 4..4 1870 4 0;
    OnfFlowMonitorPaused "ONFT_FLOW_MONITOR_PAUSED" Vendor(ONF) 4..4 1871 0 0;
    OnfFlowMonitorResumed "ONFT_FLOW_MONITOR_RESUMED" Vendor(ONF) 4..4 1872 0 0;
    OnfRoleStatus "ONFT_ROLE_STATUS" Vendor(ONF) 4..4 1911 16 8;
    OnfRequestForward "ONFT_REQUESTFORWARD" Vendor(ONF) 4..4 2350 8 8;
    OnfBundleControl "ONFT_BUNDLE_CONTROL" Vendor(ONF) 4..4 2300 8 8;
    OnfBundleAdd "ONFT_BUNDLE_ADD_MESSAGE" Vendor(ONF) 4..4 2301 8 1;

    DescRequest "OFPST_DESC request" Request 1..6 0 0 0;
    DescReply "OFPST_DESC reply" Reply 1..6 0 1056 0;
    FlowRequest10 "OFPST_FLOW request" Request 1..1 1 44 0;
    FlowRequest11 "OFPST_FLOW request" Request 2..6 1 32 8;
    FlowReply "OFPST_FLOW reply" Reply 1..6 1 0 1;
    AggregateRequest10 "OFPST_AGGREGATE request" Request 1..1 2 44 0;
    AggregateRequest11 "OFPST_AGGREGATE request" Request 2..6 2 32 8;
    AggregateReply "OFPST_AGGREGATE reply" Reply 1..5 2 24 0;
    AggregateReply15 "OFPST_AGGREGATE reply" Reply 6..6 2 0 1;
    TableRequest "OFPST_TABLE request" Request 1..6 3 0 0;
    TableReply10 "OFPST_TABLE reply" Reply 1..1 3 0 64;
    TableReply11 "OFPST_TABLE reply" Reply 2..2 3 0 88;
    TableReply12 "OFPST_TABLE reply" Reply 3..3 3 0 128;
    TableReply13 "OFPST_TABLE reply" Reply 4..6 3 0 24;
    PortRequest10 "OFPST_PORT request" Request 1..1 4 8 0;
    PortRequest11 "OFPST_PORT request" Request 2..6 4 8 0;
    PortReply10 "OFPST_PORT reply" Reply 1..1 4 0 104;
    PortReply11 "OFPST_PORT reply" Reply 2..3 4 0 104;
    PortReply13 "OFPST_PORT reply" Reply 4..4 4 0 112;
    PortReply14 "OFPST_PORT reply" Reply 5..6 4 0 8;
    QueueRequest10 "OFPST_QUEUE request" Request 1..1 5 8 0;
    QueueRequest11 "OFPST_QUEUE request" Request 2..6 5 8 0;
    QueueReply10 "OFPST_QUEUE reply" Reply 1..1 5 0 32;
    QueueReply11 "OFPST_QUEUE reply" Reply 2..3 5 0 32;
    QueueReply13 "OFPST_QUEUE reply" Reply 4..4 5 0 40;
    QueueReply14 "OFPST_QUEUE reply" Reply 5..6 5 0 8;
    GroupRequest "OFPST_GROUP request" Request 2..6 6 8 0;
    GroupReply "OFPST_GROUP reply" Reply 2..6 6 0 8;
    GroupDescRequest "OFPST_GROUP_DESC request" Request 2..5 7 0 0;
    GroupDescRequest15 "OFPST_GROUP_DESC request" Request 6..6 7 8 0;
    GroupDescReply "OFPST_GROUP_DESC reply" Reply 2..6 7 0 8;
    GroupFeaturesRequest "OFPST_GROUP_FEATURES request" Request 3..6 8 0 0;
    GroupFeaturesReply "OFPST_GROUP_FEATURES reply" Reply 3..6 8 40 0;
    MeterRequest "OFPST_METER request" Request 4..6 9 8 0;
    MeterReply "OFPST_METER reply" Reply 4..6 9 0 8;
    MeterConfigRequest "OFPST_METER_CONFIG request" Request 4..6 10 8 0;
    MeterConfigReply "OFPST_METER_CONFIG reply" Reply 4..6 10 0 8;
    MeterFeaturesRequest "OFPST_METER_FEATURES request" Request 4..6 11 0 0;
    MeterFeaturesReply "OFPST_METER_FEATURES reply" Reply 4..6 11 16 0;
    TableFeaturesRequest "OFPST_TABLE_FEATURES request" Request 4..6 12 0 8;
    TableFeaturesReply "OFPST_TABLE_FEATURES reply" Reply 4..6 12 64 8;
    PortDescRequest "OFPST_PORT_DESC request" Request 1..5 13 0 0;
    PortDescRequest15 "OFPST_PORT_DESC request" Request 6..6 13 8 0;
    PortDescReply10 "OFPST_PORT_DESC reply" Reply 1..1 13 0 48;
    PortDescReply11 "OFPST_PORT_DESC reply" Reply 2..4 13 0 64;
    PortDescReply14 "OFPST_PORT_DESC reply" Reply 5..6 13 0 8;
    TableDescRequest "OFPST_TABLE_DESC request" Request 5..6 14 0 0;
    TableDescReply "OFPST_TABLE_DESC reply" Reply 5..6 14 8 8;
    QueueDescRequest "OFPST_QUEUE_DESC request" Request 5..6 15 8 0;
    QueueDescReply "OFPST_QUEUE_DESC reply" Reply 5..6 15 0 8;
    FlowMonitorRequest14 "OFPST_FLOW_MONITOR request" Request 5..6 16 0 8;
    FlowMonitorReply14 "OFPST_FLOW_MONITOR reply" Reply 5..6 16 0 8;

    NxFlowRequest "NXST_FLOW request" VendorRequest(NX) 1..1 0 8 8;
    NxFlowReply "NXST_FLOW reply" VendorReply(NX) 1..1 0 0 8;
    NxAggregateRequest "NXST_AGGREGATE request" VendorRequest(NX) 1..1 1 8 8;
    NxAggregateReply "NXST_AGGREGATE reply" VendorReply(NX) 1..1 1 24 0;
    NxFlowMonitorRequest "NXST_FLOW_MONITOR request" VendorRequest(NX) 1..3 2 0 8;
    NxFlowMonitorReply "NXST_FLOW_MONITOR reply" VendorReply(NX) 1..3 2 0 8;
    OnfFlowMonitorRequest "ONFST_FLOW_MONITOR request" VendorRequest(ONF) 4..4 1870 0 8;
    OnfFlowMonitorReply "ONFST_FLOW_MONITOR reply" VendorReply(ONF) 4..4 1870 0 8;
    NxIpfixBridgeRequest "NXST_IPFIX_BRIDGE request" VendorRequest(NX) 1..6 3 0 0;
    NxIpfixBridgeReply "NXST_IPFIX_BRIDGE reply" VendorReply(NX) 1..6 3 88 0;
    NxIpfixFlowRequest "NXST_IPFIX_FLOW request" VendorRequest(NX) 1..6 4 0 0;
    NxIpfixFlowReply "NXST_IPFIX_FLOW reply" VendorReply(NX) 1..6 4 0 88;
    NxGroupRequest "NXST_GROUP request" VendorRequest(NX) 1..1 7 8 0;
    NxGroupReply "NXST_GROUP reply" VendorReply(NX) 1..1 7 0 8;
    NxGroupDescRequest "NXST_GROUP_DESC request" VendorRequest(NX) 1..1 8 8 0;
    NxGroupDescReply "NXST_GROUP_DESC reply" VendorReply(NX) 1..1 8 0 8;
    NxGroupFeaturesRequest "NXST_GROUP_FEATURES request" VendorRequest(NX) 1..2 9 0 0;
    NxGroupFeaturesReply "NXST_GROUP_FEATURES reply" VendorReply(NX) 1..2 9 40 0;
}

impl Identified<'_> {
    /// Whether it is a statistics reply.
    pub fn is_reply(&self) -> bool {
        matches!(self.kind.class, Class::Reply | Class::VendorReply(_))
    }
}

impl Raw {
    /// Its row.
    pub fn kind(self) -> &'static Kind {
        &KINDS[self as usize]
    }
}

/// Reads the common header; `None` if there are less than 8 bytes.
pub fn parse_header(bytes: &[u8]) -> Option<Header> {
    let h: [u8; 8] = bytes.first_chunk().copied()?;
    Some(Header {
        version: h[0],
        kind: h[1],
        length: u16::from_be_bytes([h[2], h[3]]),
        xid: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
    })
}

/// What [`identify`] finds: the kind, the body, and for statistics the flags.
#[derive(Clone, Copy, Debug)]
pub struct Identified<'a> {
    /// Row.
    pub kind: &'static Kind,
    /// Version.
    pub version: Version,
    /// What follows the headers.
    pub body: &'a [u8],
    /// Statistics flags; bit 0 of a reply: more follows.
    pub flags: u16,
}

/// Finds a whole message's kind and checks its length.
pub fn identify(bytes: &[u8]) -> Result<Identified<'_>, OfError> {
    let found = identify_kind(bytes)?;
    let (kind, len) = (found.kind, found.body.len());
    let fits = match kind.step {
        0 => len == kind.min,
        step => len >= kind.min && (len - kind.min).is_multiple_of(step),
    };
    if fits {
        return Ok(found);
    }
    let (head, total) = (bytes.len() - len, bytes.len());
    let min = head + kind.min;
    let need = match kind.step {
        0 => format!("expected length {min}"),
        1 => format!("expected length at least {min} bytes"),
        n => format!("must be exactly {min} bytes or longer by an integer multiple of {n} bytes"),
    };
    vlog_warn_rl!(OFP_MSGS, (1, 5), "received {} with incorrect length {total} ({need})", kind.name);
    Err(OfError::OFPBRC_BAD_LEN)
}

/// Says what a message is that has no row, and the error for it.
fn unknown(class: Class, number: u32, header: &Header) -> OfError {
    let mut text = format!("version {}, type {}", header.version, header.kind);
    let (vendor, error) = match class {
        Class::Type => (None, OfError::OFPBRC_BAD_TYPE),
        Class::Request | Class::Reply => (None, OfError::OFPBRC_BAD_STAT),
        Class::Vendor(v) | Class::VendorRequest(v) | Class::VendorReply(v) => {
            if v != NX && v != ONF {
                // C's `%#x` writes zero without `0x`.
                let v = if v == 0 { "0".to_string() } else { format!("{v:#x}") };
                vlog_warn_rl!(OFP_MSGS, (1, 5), "OpenFlow message has unknown vendor {v}");
                return OfError::OFPBRC_BAD_VENDOR;
            }
            (Some(v), OfError::OFPBRC_BAD_SUBTYPE)
        }
    };
    match class {
        Class::Request | Class::Reply => text.push_str(&format!(", stat {number}")),
        Class::VendorRequest(_) | Class::VendorReply(_) => text.push_str(", stat 65535"),
        Class::Type | Class::Vendor(_) => {}
    }
    if let Some(v) = vendor {
        text.push_str(&format!(", vendor {v:#x}, subtype {number}"));
    }
    vlog_warn_rl!(OFP_MSGS, (1, 5), "unknown OpenFlow message ({text})");
    error
}

/// Finds the kind of a message of which the headers at least are there. Its length may be wrong.
pub fn identify_kind(bytes: &[u8]) -> Result<Identified<'_>, OfError> {
    let header = parse_header(bytes).ok_or(OfError::OFPBRC_BAD_LEN)?;
    let version = match Version::from_wire(header.version) {
        Some(v) => v,
        // A hello says "my best version" in its header; that may be one we do not know.
        None if header.kind == 0 && header.version > 6 => Version::V15,
        None => {
            unknown(Class::Type, header.kind.into(), &header);
            return Err(OfError::OFPBRC_BAD_TYPE);
        }
    };
    let v10 = version == Version::V10;
    let (stats_request, stats_reply) = if v10 { (16, 17) } else { (18, 19) };
    let mut c = Cursor::new(&bytes[8..], OfError::OFPBRC_BAD_LEN);
    let mut flags = 0;
    let (class, number) = if header.kind == 4 {
        (Class::Vendor(c.u32()?), c.u32()?)
    } else if header.kind == stats_request || header.kind == stats_reply {
        let reply = header.kind == stats_reply;
        let number = c.u16()?;
        flags = c.u16()?;
        if !v10 {
            c.skip(4)?;
        }
        if number == 0xffff {
            let vendor = c.u32()?;
            if !v10 && c.len() < 4 {
                return Err(OfError::OFPBRC_BAD_LEN);
            }
            let class = if reply { Class::VendorReply(vendor) } else { Class::VendorRequest(vendor) };
            if vendor != NX && vendor != ONF {
                return Err(unknown(class, 0, &header));
            }
            let number = c.u32()?;
            if v10 {
                c.skip(4)?;
            }
            (class, number)
        } else {
            (if reply { Class::Reply } else { Class::Request }, number.into())
        }
    } else {
        (Class::Type, header.kind.into())
    };
    let wire = version.to_wire();
    let same = |k: &&Kind| k.class == class && k.number == number && (k.first..=k.last).contains(&wire);
    let kind = KINDS.iter().find(same).ok_or_else(|| unknown(class, number, &header))?;
    let body = c.rest();
    Ok(Identified { kind, version, body, flags })
}

/// Appends a kind's headers; the length is for [`finish`].
pub fn begin(b: &mut Buf, raw: Raw, version: Version, xid: u32) {
    let kind = raw.kind();
    let v10 = version == Version::V10;
    let stats =
        matches!(kind.class, Class::Request | Class::Reply | Class::VendorRequest(_) | Class::VendorReply(_));
    let reply = matches!(kind.class, Class::Reply | Class::VendorReply(_));
    b.u8(version.to_wire());
    b.u8(match kind.class {
        Class::Type => kind.number as u8,
        Class::Vendor(_) => 4,
        _ => (if v10 { 16 } else { 18 }) + u8::from(reply),
    });
    b.u16(0);
    b.u32(xid);
    match kind.class {
        Class::Type => {}
        Class::Vendor(vendor) => {
            b.u32(vendor);
            b.u32(kind.number);
        }
        Class::Request | Class::Reply => {
            b.u16(kind.number as u16);
            b.u16(0);
        }
        Class::VendorRequest(_) | Class::VendorReply(_) => {
            b.u16(0xffff);
            b.u16(0);
        }
    }
    if stats && !v10 {
        b.u32(0);
    }
    if let Class::VendorRequest(vendor) | Class::VendorReply(vendor) = kind.class {
        b.u32(vendor);
        b.u32(kind.number);
        if v10 {
            b.u32(0);
        }
    }
}

/// Writes the length of the message that begins at `start`.
pub fn finish(b: &mut Buf, start: usize) {
    b.patch_len(start + 2, start);
}

/// What is at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not all of a message yet.
    NeedMore,
    /// A whole message of so many bytes.
    Message(usize),
    /// No message: its header says that it is shorter than a header.
    Bad,
}

/// Looks for a whole message at the front of a stream.
pub fn next_message(bytes: &[u8]) -> Frame {
    match parse_header(bytes) {
        None => Frame::NeedMore,
        Some(h) if h.length < 8 => Frame::Bad,
        Some(h) if bytes.len() < h.length.into() => Frame::NeedMore,
        Some(h) => Frame::Message(h.length.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing() {
        assert_eq!(next_message(&[1, 0, 0]), Frame::NeedMore);
        assert_eq!(next_message(&[1, 0, 0, 7, 0, 0, 0, 1]), Frame::Bad);
        assert_eq!(next_message(&[1, 0, 0, 8, 0, 0, 0, 1, 9]), Frame::Message(8));
        assert_eq!(next_message(&[1, 0, 0, 9, 0, 0, 0, 1]), Frame::NeedMore);
    }

    #[test]
    fn kinds_and_their_errors() {
        let err = |b: &[u8]| identify(b).err();
        assert_eq!(identify(&[1, 5, 0, 8, 0, 0, 0, 1]).unwrap().kind.name, "OFPT_FEATURES_REQUEST");
        assert_eq!(err(&[1, 5, 0, 9, 0, 0, 0, 1, 0]), Some(OfError::OFPBRC_BAD_LEN));
        assert_eq!(err(&[9, 5, 0, 8, 0, 0, 0, 1]), Some(OfError::OFPBRC_BAD_TYPE));
        assert_eq!(err(&[1, 99, 0, 8, 0, 0, 0, 1]), Some(OfError::OFPBRC_BAD_TYPE));
        assert_eq!(err(&[4, 18, 0, 16, 0, 0, 0, 1, 0, 77, 0, 0, 0, 0, 0, 0]), Some(OfError::OFPBRC_BAD_STAT));
        assert_eq!(err(&[4, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]), Some(OfError::OFPBRC_BAD_VENDOR));
        assert_eq!(
            err(&[4, 4, 0, 16, 0, 0, 0, 1, 0, 0, 0x23, 0x20, 0, 0, 0, 99]),
            Some(OfError::OFPBRC_BAD_SUBTYPE)
        );
    }

    #[test]
    fn rows_are_in_the_order_of_their_enum() {
        assert!(KINDS.iter().enumerate().all(|(i, k)| k.raw as usize == i));
    }
}
