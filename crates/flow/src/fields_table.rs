//! The field table: every field that a rule can match or an action can set, declared once.
//!
//! One row a field, in the order of ids: id, name and alias, width on the wire in bytes, meaningful bits,
//! whether it can be matched bitwise, text form, prerequisite, whether actions may write it, what
//! OpenFlow 1.0 and 1.1 matches can express, where in the [`Flow`] it lives, and its NXM/OXM code points
//! with the first OpenFlow version (wire number: 1 is 1.0, 6 is 1.5) that prefers each. Source: ovs-fields(7).
//!
//! Everything else about a field (parsing, printing, wire form, prerequisites) is in [`crate::fields`]
//! and derives from these rows.

use std::mem::offset_of;

use crate::fields::{
    Code, Field, Format, Maskable, OfSupport, Place, Prereq, code_eric, code_nx, code_nx_et, code_nx_nsh,
    code_nxm_of, code_onf, code_oxm, code_pkt_reg,
};
use crate::key::{Flow, Vlan};

macro_rules! place {
    (be($($f:ident).+, $len:literal)) => {
        Place::Be { at: offset_of!(Flow, $($f).+), len: $len, mask: u128::MAX >> (128 - 8 * $len), shift: 0 }
    };
    (be($($f:ident).+, $len:literal, $mask:literal, $shift:literal)) => {
        Place::Be { at: offset_of!(Flow, $($f).+), len: $len, mask: $mask, shift: $shift }
    };
    (be($f:ident, $len:literal, $mask:literal, $shift:literal, $sub:ident)) => {
        Place::Be { at: offset_of!(Flow, $f) + offset_of!(Vlan, $sub), len: $len, mask: $mask, shift: $shift }
    };
    (host($($f:ident).+, $len:literal)) => {
        Place::Host { at: offset_of!(Flow, $($f).+), len: $len, mask: u128::MAX >> (128 - 8 * $len), shift: 0 }
    };
    (host($($f:ident).+, $len:literal, $mask:literal, $shift:literal)) => {
        Place::Host { at: offset_of!(Flow, $($f).+), len: $len, mask: $mask, shift: $shift }
    };
    (ctx($i:literal)) => {
        Place::Be { at: offset_of!(Flow, nsh.context) + 4 * $i, len: 4, mask: 0xffff_ffff, shift: 0 }
    };
    (regs($first:literal, $n:literal)) => {
        Place::Regs { first: $first, count: $n }
    };
    (tun_md($i:literal)) => {
        Place::TunMetadata($i)
    };
}

macro_rules! writable {
    (Rw) => {
        true
    };
    (Ro) => {
        false
    };
}

macro_rules! codes {
    ($bytes:literal; $($class:ident($number:literal, $since:literal, $name:literal)),*) => {
        &[$(codes!(@one $class, $number, $since, $name, $bytes)),*]
    };
    (@one nx, $n:literal, $v:literal, $s:literal, $b:literal) => { code_nx($n, $v, concat!("NXM_NX_", $s), $b) };
    (@one nxm_of, $n:literal, $v:literal, $s:literal, $b:literal) => {
        code_nxm_of($n, $v, concat!("NXM_OF_", $s), $b)
    };
    (@one oxm, $n:literal, $v:literal, $s:literal, $b:literal) => { code_oxm($n, $v, concat!("OXM_OF_", $s), $b) };
    (@one pkt_reg, $n:literal, $v:literal, $s:literal, $b:literal) => {
        code_pkt_reg($n, $v, concat!("OXM_OF_PKT_", $s), $b)
    };
    (@one nx_et, $n:literal, $v:literal, $s:literal, $b:literal) => {
        code_nx_et($n, $v, concat!("NXOXM_ET_", $s), $b)
    };
    (@one nx_nsh, $n:literal, $v:literal, $s:literal, $b:literal) => {
        code_nx_nsh($n, $v, concat!("NXOXM_NSH_", $s), $b)
    };
    (@one onf, $n:literal, $v:literal, $s:literal, $b:literal) => {
        code_onf($n, $v, concat!("ONFOXM_ET_", $s), $b)
    };
    (@one eric, $n:literal, $v:literal, $s:literal, $b:literal) => {
        code_eric($n, $v, concat!("ERICOXM_OF_", $s), $b)
    };
}

macro_rules! alias {
    () => {
        None
    };
    ($a:literal) => {
        Some($a)
    };
}

macro_rules! table {
    ($($id:ident = $name:literal [$($alias:literal)?], $n_bytes:literal bytes, $n_bits:literal bits,
       $mask:ident, $format:ident, $prereq:ident, $rw:ident, $of10:ident, $of11:ident,
       $place:ident($($arg:tt)*), [$($codes:tt)*];)*) => {
        /// A field's id; the order is that of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // The names are the documentation; see ovs-fields(7).
        pub enum FieldId {
            $($id),*
        }

        /// All fields, indexed by [`FieldId`].
        pub static FIELDS: &[Field] = &[$(Field {
            id: FieldId::$id,
            name: $name,
            alias: alias!($($alias)?),
            n_bytes: $n_bytes,
            n_bits: $n_bits,
            maskable: Maskable::$mask,
            format: Format::$format,
            prereq: Prereq::$prereq,
            writable: writable!($rw),
            of10: OfSupport::$of10,
            of11: OfSupport::$of11,
            codes: codes!($n_bytes; $($codes)*) as &[Code],
            place: place!($place($($arg)*)),
        }),*];
    };
}

table! {
    // Metadata.
    DpHash = "dp_hash" [], 4 bytes, 32 bits, Bitwise, Hex, None, Ro, No, No, host(dp_hash, 4), [nx(35, 1, "DP_HASH"), nx_et(0, 6, "DP_HASH")];
    RecircId = "recirc_id" [], 4 bytes, 32 bits, Exact, Decimal, None, Ro, No, No, host(recirc_id, 4), [nx(36, 1, "RECIRC_ID")];
    PacketType = "packet_type" [], 4 bytes, 32 bits, Exact, PacketType, None, Ro, No, No, be(packet_type, 4), [oxm(44, 6, "PACKET_TYPE")];
    ConjId = "conj_id" [], 4 bytes, 32 bits, Exact, Decimal, None, Ro, No, No, host(conj_id, 4), [nx(37, 1, "CONJ_ID")];
    // Tunnel.
    TunId = "tun_id" ["tunnel_id"], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, be(tunnel.tun_id, 8), [nx(16, 1, "TUN_ID"), oxm(38, 4, "TUNNEL_ID")];
    TunSrc = "tun_src" [], 4 bytes, 32 bits, Bitwise, Ipv4, None, Rw, No, No, be(tunnel.ip_src, 4), [nx(31, 1, "TUN_IPV4_SRC")];
    TunDst = "tun_dst" [], 4 bytes, 32 bits, Bitwise, Ipv4, None, Rw, No, No, be(tunnel.ip_dst, 4), [nx(32, 1, "TUN_IPV4_DST")];
    TunIpv6Src = "tun_ipv6_src" [], 16 bytes, 128 bits, Bitwise, Ipv6, None, Rw, No, No, be(tunnel.ipv6_src, 16), [nx(109, 1, "TUN_IPV6_SRC")];
    TunIpv6Dst = "tun_ipv6_dst" [], 16 bytes, 128 bits, Bitwise, Ipv6, None, Rw, No, No, be(tunnel.ipv6_dst, 16), [nx(110, 1, "TUN_IPV6_DST")];
    TunFlags = "tun_flags" [], 2 bytes, 1 bits, Bitwise, TnlFlags, None, Rw, No, No, host(tunnel.flags, 2, 0x0001, 0), [nx(104, 1, "TUN_FLAGS")];
    TunTtl = "tun_ttl" [], 1 bytes, 8 bits, Exact, Decimal, None, Rw, No, No, host(tunnel.ip_ttl, 1), [];
    TunTos = "tun_tos" [], 1 bytes, 8 bits, Exact, Decimal, None, Rw, No, No, host(tunnel.ip_tos, 1), [];
    TunGbpId = "tun_gbp_id" [], 2 bytes, 16 bits, Bitwise, Decimal, None, Rw, No, No, be(tunnel.gbp_id, 2), [nx(38, 1, "TUN_GBP_ID")];
    TunGbpFlags = "tun_gbp_flags" [], 1 bytes, 8 bits, Bitwise, Hex, None, Rw, No, No, host(tunnel.gbp_flags, 1), [nx(39, 1, "TUN_GBP_FLAGS")];
    TunErspanIdx = "tun_erspan_idx" [], 4 bytes, 20 bits, Bitwise, Hex, None, Rw, No, No, host(tunnel.erspan_idx, 4, 0xfffff, 0), [nx_et(11, 1, "ERSPAN_IDX")];
    TunErspanVer = "tun_erspan_ver" [], 1 bytes, 4 bits, Bitwise, Decimal, None, Rw, No, No, host(tunnel.erspan_ver, 1, 0xf, 0), [nx_et(12, 1, "ERSPAN_VER")];
    TunErspanDir = "tun_erspan_dir" [], 1 bytes, 1 bits, Bitwise, Decimal, None, Rw, No, No, host(tunnel.erspan_dir, 1, 0x1, 0), [nx_et(13, 1, "ERSPAN_DIR")];
    TunErspanHwid = "tun_erspan_hwid" [], 1 bytes, 6 bits, Bitwise, Hex, None, Rw, No, No, host(tunnel.erspan_hwid, 1, 0x3f, 0), [nx_et(14, 1, "ERSPAN_HWID")];
    TunGtpuFlags = "tun_gtpu_flags" [], 1 bytes, 8 bits, Bitwise, Hex, None, Ro, No, No, host(tunnel.gtpu_flags, 1), [nx_et(15, 1, "GTPU_FLAGS")];
    TunGtpuMsgtype = "tun_gtpu_msgtype" [], 1 bytes, 8 bits, Bitwise, Decimal, None, Ro, No, No, host(tunnel.gtpu_msgtype, 1), [nx_et(16, 1, "GTPU_MSGTYPE")];
    TunMetadata0 = "tun_metadata0" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(0), [nx(40, 1, "TUN_METADATA0")];
    TunMetadata1 = "tun_metadata1" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(1), [nx(41, 1, "TUN_METADATA1")];
    TunMetadata2 = "tun_metadata2" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(2), [nx(42, 1, "TUN_METADATA2")];
    TunMetadata3 = "tun_metadata3" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(3), [nx(43, 1, "TUN_METADATA3")];
    TunMetadata4 = "tun_metadata4" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(4), [nx(44, 1, "TUN_METADATA4")];
    TunMetadata5 = "tun_metadata5" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(5), [nx(45, 1, "TUN_METADATA5")];
    TunMetadata6 = "tun_metadata6" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(6), [nx(46, 1, "TUN_METADATA6")];
    TunMetadata7 = "tun_metadata7" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(7), [nx(47, 1, "TUN_METADATA7")];
    TunMetadata8 = "tun_metadata8" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(8), [nx(48, 1, "TUN_METADATA8")];
    TunMetadata9 = "tun_metadata9" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(9), [nx(49, 1, "TUN_METADATA9")];
    TunMetadata10 = "tun_metadata10" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(10), [nx(50, 1, "TUN_METADATA10")];
    TunMetadata11 = "tun_metadata11" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(11), [nx(51, 1, "TUN_METADATA11")];
    TunMetadata12 = "tun_metadata12" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(12), [nx(52, 1, "TUN_METADATA12")];
    TunMetadata13 = "tun_metadata13" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(13), [nx(53, 1, "TUN_METADATA13")];
    TunMetadata14 = "tun_metadata14" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(14), [nx(54, 1, "TUN_METADATA14")];
    TunMetadata15 = "tun_metadata15" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(15), [nx(55, 1, "TUN_METADATA15")];
    TunMetadata16 = "tun_metadata16" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(16), [nx(56, 1, "TUN_METADATA16")];
    TunMetadata17 = "tun_metadata17" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(17), [nx(57, 1, "TUN_METADATA17")];
    TunMetadata18 = "tun_metadata18" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(18), [nx(58, 1, "TUN_METADATA18")];
    TunMetadata19 = "tun_metadata19" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(19), [nx(59, 1, "TUN_METADATA19")];
    TunMetadata20 = "tun_metadata20" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(20), [nx(60, 1, "TUN_METADATA20")];
    TunMetadata21 = "tun_metadata21" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(21), [nx(61, 1, "TUN_METADATA21")];
    TunMetadata22 = "tun_metadata22" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(22), [nx(62, 1, "TUN_METADATA22")];
    TunMetadata23 = "tun_metadata23" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(23), [nx(63, 1, "TUN_METADATA23")];
    TunMetadata24 = "tun_metadata24" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(24), [nx(64, 1, "TUN_METADATA24")];
    TunMetadata25 = "tun_metadata25" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(25), [nx(65, 1, "TUN_METADATA25")];
    TunMetadata26 = "tun_metadata26" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(26), [nx(66, 1, "TUN_METADATA26")];
    TunMetadata27 = "tun_metadata27" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(27), [nx(67, 1, "TUN_METADATA27")];
    TunMetadata28 = "tun_metadata28" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(28), [nx(68, 1, "TUN_METADATA28")];
    TunMetadata29 = "tun_metadata29" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(29), [nx(69, 1, "TUN_METADATA29")];
    TunMetadata30 = "tun_metadata30" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(30), [nx(70, 1, "TUN_METADATA30")];
    TunMetadata31 = "tun_metadata31" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(31), [nx(71, 1, "TUN_METADATA31")];
    TunMetadata32 = "tun_metadata32" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(32), [nx(72, 1, "TUN_METADATA32")];
    TunMetadata33 = "tun_metadata33" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(33), [nx(73, 1, "TUN_METADATA33")];
    TunMetadata34 = "tun_metadata34" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(34), [nx(74, 1, "TUN_METADATA34")];
    TunMetadata35 = "tun_metadata35" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(35), [nx(75, 1, "TUN_METADATA35")];
    TunMetadata36 = "tun_metadata36" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(36), [nx(76, 1, "TUN_METADATA36")];
    TunMetadata37 = "tun_metadata37" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(37), [nx(77, 1, "TUN_METADATA37")];
    TunMetadata38 = "tun_metadata38" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(38), [nx(78, 1, "TUN_METADATA38")];
    TunMetadata39 = "tun_metadata39" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(39), [nx(79, 1, "TUN_METADATA39")];
    TunMetadata40 = "tun_metadata40" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(40), [nx(80, 1, "TUN_METADATA40")];
    TunMetadata41 = "tun_metadata41" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(41), [nx(81, 1, "TUN_METADATA41")];
    TunMetadata42 = "tun_metadata42" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(42), [nx(82, 1, "TUN_METADATA42")];
    TunMetadata43 = "tun_metadata43" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(43), [nx(83, 1, "TUN_METADATA43")];
    TunMetadata44 = "tun_metadata44" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(44), [nx(84, 1, "TUN_METADATA44")];
    TunMetadata45 = "tun_metadata45" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(45), [nx(85, 1, "TUN_METADATA45")];
    TunMetadata46 = "tun_metadata46" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(46), [nx(86, 1, "TUN_METADATA46")];
    TunMetadata47 = "tun_metadata47" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(47), [nx(87, 1, "TUN_METADATA47")];
    TunMetadata48 = "tun_metadata48" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(48), [nx(88, 1, "TUN_METADATA48")];
    TunMetadata49 = "tun_metadata49" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(49), [nx(89, 1, "TUN_METADATA49")];
    TunMetadata50 = "tun_metadata50" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(50), [nx(90, 1, "TUN_METADATA50")];
    TunMetadata51 = "tun_metadata51" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(51), [nx(91, 1, "TUN_METADATA51")];
    TunMetadata52 = "tun_metadata52" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(52), [nx(92, 1, "TUN_METADATA52")];
    TunMetadata53 = "tun_metadata53" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(53), [nx(93, 1, "TUN_METADATA53")];
    TunMetadata54 = "tun_metadata54" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(54), [nx(94, 1, "TUN_METADATA54")];
    TunMetadata55 = "tun_metadata55" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(55), [nx(95, 1, "TUN_METADATA55")];
    TunMetadata56 = "tun_metadata56" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(56), [nx(96, 1, "TUN_METADATA56")];
    TunMetadata57 = "tun_metadata57" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(57), [nx(97, 1, "TUN_METADATA57")];
    TunMetadata58 = "tun_metadata58" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(58), [nx(98, 1, "TUN_METADATA58")];
    TunMetadata59 = "tun_metadata59" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(59), [nx(99, 1, "TUN_METADATA59")];
    TunMetadata60 = "tun_metadata60" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(60), [nx(100, 1, "TUN_METADATA60")];
    TunMetadata61 = "tun_metadata61" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(61), [nx(101, 1, "TUN_METADATA61")];
    TunMetadata62 = "tun_metadata62" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(62), [nx(102, 1, "TUN_METADATA62")];
    TunMetadata63 = "tun_metadata63" [], 124 bytes, 992 bits, Bitwise, Hex, None, Rw, No, No, tun_md(63), [nx(103, 1, "TUN_METADATA63")];
    // OpenFlow metadata and ports.
    Metadata = "metadata" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, Bitwise, be(metadata, 8), [oxm(2, 3, "METADATA")];
    InPort = "in_port" [], 2 bytes, 16 bits, Exact, OfPort, None, Rw, Exact, Exact, host(in_port, 4), [nxm_of(0, 1, "IN_PORT")];
    InPortOxm = "in_port_oxm" [], 4 bytes, 32 bits, Exact, OfPort11, None, Rw, No, Exact, host(in_port, 4), [oxm(0, 3, "IN_PORT")];
    ActsetOutput = "actset_output" [], 4 bytes, 32 bits, Exact, OfPort11, None, Ro, No, No, host(actset_output, 2), [onf(43, 4, "ACTSET_OUTPUT"), oxm(43, 6, "ACTSET_OUTPUT")];
    SkbPriority = "skb_priority" [], 4 bytes, 32 bits, Exact, Hex, None, Ro, No, No, host(skb_priority, 4), [];
    PktMark = "pkt_mark" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, host(pkt_mark, 4), [nx(33, 1, "PKT_MARK")];
    // Connection tracking.
    CtState = "ct_state" [], 4 bytes, 32 bits, Bitwise, CtState, None, Ro, No, No, host(ct_state, 1), [nx(105, 1, "CT_STATE")];
    CtZone = "ct_zone" [], 2 bytes, 16 bits, Exact, Hex, None, Ro, No, No, host(ct_zone, 2), [nx(106, 1, "CT_ZONE")];
    CtMark = "ct_mark" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, host(ct_mark, 4), [nx(107, 1, "CT_MARK")];
    CtLabel = "ct_label" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, be(ct_label, 16), [nx(108, 1, "CT_LABEL")];
    CtNwProto = "ct_nw_proto" [], 1 bytes, 8 bits, Exact, Decimal, CtValid, Ro, No, No, host(ct_nw_proto, 1), [nx(119, 1, "CT_NW_PROTO")];
    CtNwSrc = "ct_nw_src" [], 4 bytes, 32 bits, Bitwise, Ipv4, CtValid, Ro, No, No, be(ct_nw_src, 4), [nx(120, 1, "CT_NW_SRC")];
    CtNwDst = "ct_nw_dst" [], 4 bytes, 32 bits, Bitwise, Ipv4, CtValid, Ro, No, No, be(ct_nw_dst, 4), [nx(121, 1, "CT_NW_DST")];
    CtIpv6Src = "ct_ipv6_src" [], 16 bytes, 128 bits, Bitwise, Ipv6, CtValid, Ro, No, No, be(ct_ipv6_src, 16), [nx(122, 1, "CT_IPV6_SRC")];
    CtIpv6Dst = "ct_ipv6_dst" [], 16 bytes, 128 bits, Bitwise, Ipv6, CtValid, Ro, No, No, be(ct_ipv6_dst, 16), [nx(123, 1, "CT_IPV6_DST")];
    CtTpSrc = "ct_tp_src" [], 2 bytes, 16 bits, Bitwise, Decimal, CtValid, Ro, No, No, be(ct_tp_src, 2), [nx(124, 1, "CT_TP_SRC")];
    CtTpDst = "ct_tp_dst" [], 2 bytes, 16 bits, Bitwise, Decimal, CtValid, Ro, No, No, be(ct_tp_dst, 2), [nx(125, 1, "CT_TP_DST")];
    // Registers. 16 to 31 arrived with level 3.7; class 0x0001 is full, so they live with the experimenter.
    Reg0 = "reg0" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(0, 1), [nx(0, 1, "REG0")];
    Reg1 = "reg1" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(1, 1), [nx(1, 1, "REG1")];
    Reg2 = "reg2" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(2, 1), [nx(2, 1, "REG2")];
    Reg3 = "reg3" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(3, 1), [nx(3, 1, "REG3")];
    Reg4 = "reg4" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(4, 1), [nx(4, 1, "REG4")];
    Reg5 = "reg5" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(5, 1), [nx(5, 1, "REG5")];
    Reg6 = "reg6" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(6, 1), [nx(6, 1, "REG6")];
    Reg7 = "reg7" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(7, 1), [nx(7, 1, "REG7")];
    Reg8 = "reg8" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(8, 1), [nx(8, 1, "REG8")];
    Reg9 = "reg9" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(9, 1), [nx(9, 1, "REG9")];
    Reg10 = "reg10" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(10, 1), [nx(10, 1, "REG10")];
    Reg11 = "reg11" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(11, 1), [nx(11, 1, "REG11")];
    Reg12 = "reg12" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(12, 1), [nx(12, 1, "REG12")];
    Reg13 = "reg13" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(13, 1), [nx(13, 1, "REG13")];
    Reg14 = "reg14" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(14, 1), [nx(14, 1, "REG14")];
    Reg15 = "reg15" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(15, 1), [nx(15, 1, "REG15")];
    Reg16 = "reg16" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(16, 1), [nx_et(17, 1, "REG16")];
    Reg17 = "reg17" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(17, 1), [nx_et(18, 1, "REG17")];
    Reg18 = "reg18" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(18, 1), [nx_et(19, 1, "REG18")];
    Reg19 = "reg19" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(19, 1), [nx_et(20, 1, "REG19")];
    Reg20 = "reg20" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(20, 1), [nx_et(21, 1, "REG20")];
    Reg21 = "reg21" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(21, 1), [nx_et(22, 1, "REG21")];
    Reg22 = "reg22" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(22, 1), [nx_et(23, 1, "REG22")];
    Reg23 = "reg23" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(23, 1), [nx_et(24, 1, "REG23")];
    Reg24 = "reg24" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(24, 1), [nx_et(25, 1, "REG24")];
    Reg25 = "reg25" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(25, 1), [nx_et(26, 1, "REG25")];
    Reg26 = "reg26" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(26, 1), [nx_et(27, 1, "REG26")];
    Reg27 = "reg27" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(27, 1), [nx_et(28, 1, "REG27")];
    Reg28 = "reg28" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(28, 1), [nx_et(29, 1, "REG28")];
    Reg29 = "reg29" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(29, 1), [nx_et(30, 1, "REG29")];
    Reg30 = "reg30" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(30, 1), [nx_et(31, 1, "REG30")];
    Reg31 = "reg31" [], 4 bytes, 32 bits, Bitwise, Hex, None, Rw, No, No, regs(31, 1), [nx_et(32, 1, "REG31")];
    Xreg0 = "xreg0" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(0, 2), [pkt_reg(0, 4, "REG0")];
    Xreg1 = "xreg1" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(2, 2), [pkt_reg(1, 4, "REG1")];
    Xreg2 = "xreg2" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(4, 2), [pkt_reg(2, 4, "REG2")];
    Xreg3 = "xreg3" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(6, 2), [pkt_reg(3, 4, "REG3")];
    Xreg4 = "xreg4" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(8, 2), [pkt_reg(4, 4, "REG4")];
    Xreg5 = "xreg5" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(10, 2), [pkt_reg(5, 4, "REG5")];
    Xreg6 = "xreg6" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(12, 2), [pkt_reg(6, 4, "REG6")];
    Xreg7 = "xreg7" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(14, 2), [pkt_reg(7, 4, "REG7")];
    Xreg8 = "xreg8" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(16, 2), [pkt_reg(8, 4, "REG8")];
    Xreg9 = "xreg9" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(18, 2), [pkt_reg(9, 4, "REG9")];
    Xreg10 = "xreg10" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(20, 2), [pkt_reg(10, 4, "REG10")];
    Xreg11 = "xreg11" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(22, 2), [pkt_reg(11, 4, "REG11")];
    Xreg12 = "xreg12" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(24, 2), [pkt_reg(12, 4, "REG12")];
    Xreg13 = "xreg13" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(26, 2), [pkt_reg(13, 4, "REG13")];
    Xreg14 = "xreg14" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(28, 2), [pkt_reg(14, 4, "REG14")];
    Xreg15 = "xreg15" [], 8 bytes, 64 bits, Bitwise, Hex, None, Rw, No, No, regs(30, 2), [pkt_reg(15, 4, "REG15")];
    Xxreg0 = "xxreg0" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(0, 4), [nx(111, 1, "XXREG0")];
    Xxreg1 = "xxreg1" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(4, 4), [nx(112, 1, "XXREG1")];
    Xxreg2 = "xxreg2" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(8, 4), [nx(113, 1, "XXREG2")];
    Xxreg3 = "xxreg3" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(12, 4), [nx(114, 1, "XXREG3")];
    Xxreg4 = "xxreg4" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(16, 4), [nx(115, 1, "XXREG4")];
    Xxreg5 = "xxreg5" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(20, 4), [nx(116, 1, "XXREG5")];
    Xxreg6 = "xxreg6" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(24, 4), [nx(117, 1, "XXREG6")];
    Xxreg7 = "xxreg7" [], 16 bytes, 128 bits, Bitwise, Hex, None, Rw, No, No, regs(28, 4), [nx(118, 1, "XXREG7")];
    // Ethernet and VLAN.
    EthSrc = "eth_src" ["dl_src"], 6 bytes, 48 bits, Bitwise, Ethernet, Ethernet, Rw, Exact, Bitwise, be(dl_src, 6), [nxm_of(2, 1, "ETH_SRC"), oxm(4, 3, "ETH_SRC")];
    EthDst = "eth_dst" ["dl_dst"], 6 bytes, 48 bits, Bitwise, Ethernet, Ethernet, Rw, Exact, Bitwise, be(dl_dst, 6), [nxm_of(1, 1, "ETH_DST"), oxm(3, 3, "ETH_DST")];
    EthType = "eth_type" ["dl_type"], 2 bytes, 16 bits, Exact, Hex, Ethernet, Ro, Exact, Exact, be(dl_type, 2), [nxm_of(3, 1, "ETH_TYPE"), oxm(5, 3, "ETH_TYPE")];
    VlanTci = "vlan_tci" [], 2 bytes, 16 bits, Bitwise, Hex, Ethernet, Rw, Exact, Exact, be(vlans, 2, 0xffff, 0, tci), [nxm_of(4, 1, "VLAN_TCI")];
    DlVlan = "dl_vlan" [], 2 bytes, 12 bits, Exact, Decimal, Ethernet, Rw, Exact, Exact, be(vlans, 2, 0x0fff, 0, tci), [];
    VlanVid = "vlan_vid" [], 2 bytes, 12 bits, Bitwise, Decimal, Ethernet, Rw, Exact, Exact, be(vlans, 2, 0x1fff, 0, tci), [oxm(6, 3, "VLAN_VID")];
    DlVlanPcp = "dl_vlan_pcp" [], 1 bytes, 3 bits, Exact, Decimal, Ethernet, Rw, Exact, Exact, be(vlans, 2, 0xe000, 13, tci), [];
    VlanPcp = "vlan_pcp" [], 1 bytes, 3 bits, Exact, Decimal, VlanVid, Rw, Exact, Exact, be(vlans, 2, 0xe000, 13, tci), [oxm(7, 3, "VLAN_PCP")];
    // MPLS.
    MplsLabel = "mpls_label" [], 4 bytes, 20 bits, Exact, Decimal, Mpls, Rw, No, Exact, be(mpls_lse, 4, 0xffff_f000, 12), [oxm(34, 3, "MPLS_LABEL")];
    MplsTc = "mpls_tc" [], 1 bytes, 3 bits, Exact, Decimal, Mpls, Rw, No, Exact, be(mpls_lse, 4, 0x0000_0e00, 9), [oxm(35, 3, "MPLS_TC")];
    MplsBos = "mpls_bos" [], 1 bytes, 1 bits, Exact, Decimal, Mpls, Ro, No, No, be(mpls_lse, 4, 0x0000_0100, 8), [oxm(36, 4, "MPLS_BOS")];
    MplsTtl = "mpls_ttl" [], 1 bytes, 8 bits, Exact, Decimal, Mpls, Rw, No, No, be(mpls_lse, 4, 0x0000_00ff, 0), [nx(30, 1, "MPLS_TTL")];
    // IP.
    IpSrc = "ip_src" ["nw_src"], 4 bytes, 32 bits, Bitwise, Ipv4, Ipv4, Rw, Cidr, Bitwise, be(nw_src, 4), [nxm_of(7, 1, "IP_SRC"), oxm(11, 3, "IPV4_SRC")];
    IpDst = "ip_dst" ["nw_dst"], 4 bytes, 32 bits, Bitwise, Ipv4, Ipv4, Rw, Cidr, Bitwise, be(nw_dst, 4), [nxm_of(8, 1, "IP_DST"), oxm(12, 3, "IPV4_DST")];
    Ipv6Src = "ipv6_src" [], 16 bytes, 128 bits, Bitwise, Ipv6, Ipv6, Rw, No, No, be(ipv6_src, 16), [nx(19, 1, "IPV6_SRC"), oxm(26, 3, "IPV6_SRC")];
    Ipv6Dst = "ipv6_dst" [], 16 bytes, 128 bits, Bitwise, Ipv6, Ipv6, Rw, No, No, be(ipv6_dst, 16), [nx(20, 1, "IPV6_DST"), oxm(27, 3, "IPV6_DST")];
    Ipv6Label = "ipv6_label" [], 4 bytes, 20 bits, Bitwise, Hex, Ipv6, Rw, No, No, be(ipv6_label, 4, 0xfffff, 0), [nx(27, 1, "IPV6_LABEL"), oxm(28, 3, "IPV6_FLABEL")];
    IpProto = "nw_proto" ["ip_proto"], 1 bytes, 8 bits, Exact, Decimal, IpAny, Ro, Exact, Exact, host(nw_proto, 1), [nxm_of(6, 1, "IP_PROTO"), oxm(10, 3, "IP_PROTO")];
    IpTos = "nw_tos" [], 1 bytes, 8 bits, Exact, Decimal, IpAny, Rw, Exact, Exact, host(nw_tos, 1, 0xfc, 0), [nxm_of(5, 1, "IP_TOS")];
    IpDscp = "ip_dscp" [], 1 bytes, 6 bits, Exact, Decimal, IpAny, Rw, Exact, Exact, host(nw_tos, 1, 0xfc, 2), [oxm(8, 3, "IP_DSCP")];
    IpEcn = "nw_ecn" ["ip_ecn"], 1 bytes, 2 bits, Exact, Decimal, IpAny, Rw, No, Exact, host(nw_tos, 1, 0x03, 0), [nx(28, 1, "IP_ECN"), oxm(9, 3, "IP_ECN")];
    IpTtl = "nw_ttl" [], 1 bytes, 8 bits, Exact, Decimal, IpAny, Rw, No, No, host(nw_ttl, 1), [nx(29, 1, "IP_TTL")];
    IpFrag = "ip_frag" ["nw_frag"], 1 bytes, 2 bits, Bitwise, Frag, IpAny, Ro, No, No, host(nw_frag, 1, 0x03, 0), [nx(26, 1, "IP_FRAG")];
    // ARP.
    ArpOp = "arp_op" [], 2 bytes, 16 bits, Exact, Decimal, Arp, Rw, Exact, Exact, host(nw_proto, 1), [nxm_of(15, 1, "ARP_OP"), oxm(21, 3, "ARP_OP")];
    ArpSpa = "arp_spa" [], 4 bytes, 32 bits, Bitwise, Ipv4, Arp, Rw, Cidr, Bitwise, be(nw_src, 4), [nxm_of(16, 1, "ARP_SPA"), oxm(22, 3, "ARP_SPA")];
    ArpTpa = "arp_tpa" [], 4 bytes, 32 bits, Bitwise, Ipv4, Arp, Rw, Cidr, Bitwise, be(nw_dst, 4), [nxm_of(17, 1, "ARP_TPA"), oxm(23, 3, "ARP_TPA")];
    ArpSha = "arp_sha" [], 6 bytes, 48 bits, Bitwise, Ethernet, Arp, Rw, No, No, be(arp_sha, 6), [nx(17, 1, "ARP_SHA"), oxm(24, 3, "ARP_SHA")];
    ArpTha = "arp_tha" [], 6 bytes, 48 bits, Bitwise, Ethernet, Arp, Rw, No, No, be(arp_tha, 6), [nx(18, 1, "ARP_THA"), oxm(25, 3, "ARP_THA")];
    // Transport.
    TcpSrc = "tcp_src" ["tp_src"], 2 bytes, 16 bits, Bitwise, Decimal, Tcp, Rw, Exact, Exact, be(tp_src, 2), [nxm_of(9, 1, "TCP_SRC"), oxm(13, 3, "TCP_SRC")];
    TcpDst = "tcp_dst" ["tp_dst"], 2 bytes, 16 bits, Bitwise, Decimal, Tcp, Rw, Exact, Exact, be(tp_dst, 2), [nxm_of(10, 1, "TCP_DST"), oxm(14, 3, "TCP_DST")];
    TcpFlags = "tcp_flags" [], 2 bytes, 12 bits, Bitwise, TcpFlags, Tcp, Ro, No, No, be(tcp_flags, 2, 0x0fff, 0), [nx(34, 1, "TCP_FLAGS"), onf(42, 4, "TCP_FLAGS"), oxm(42, 6, "TCP_FLAGS")];
    UdpSrc = "udp_src" [], 2 bytes, 16 bits, Bitwise, Decimal, Udp, Rw, Exact, Exact, be(tp_src, 2), [nxm_of(11, 1, "UDP_SRC"), oxm(15, 3, "UDP_SRC")];
    UdpDst = "udp_dst" [], 2 bytes, 16 bits, Bitwise, Decimal, Udp, Rw, Exact, Exact, be(tp_dst, 2), [nxm_of(12, 1, "UDP_DST"), oxm(16, 3, "UDP_DST")];
    SctpSrc = "sctp_src" [], 2 bytes, 16 bits, Bitwise, Decimal, Sctp, Rw, No, Exact, be(tp_src, 2), [oxm(17, 3, "SCTP_SRC")];
    SctpDst = "sctp_dst" [], 2 bytes, 16 bits, Bitwise, Decimal, Sctp, Rw, No, Exact, be(tp_dst, 2), [oxm(18, 3, "SCTP_DST")];
    Icmpv4Type = "icmp_type" [], 1 bytes, 8 bits, Exact, Decimal, Icmpv4, Rw, Exact, Exact, be(tp_src, 2), [nxm_of(13, 1, "ICMP_TYPE"), oxm(19, 3, "ICMPV4_TYPE")];
    Icmpv4Code = "icmp_code" [], 1 bytes, 8 bits, Exact, Decimal, Icmpv4, Rw, Exact, Exact, be(tp_dst, 2), [nxm_of(14, 1, "ICMP_CODE"), oxm(20, 3, "ICMPV4_CODE")];
    Icmpv6Type = "icmpv6_type" [], 1 bytes, 8 bits, Exact, Decimal, Icmpv6, Rw, No, No, be(tp_src, 2), [nx(21, 1, "ICMPV6_TYPE"), oxm(29, 3, "ICMPV6_TYPE")];
    Icmpv6Code = "icmpv6_code" [], 1 bytes, 8 bits, Exact, Decimal, Icmpv6, Rw, No, No, be(tp_dst, 2), [nx(22, 1, "ICMPV6_CODE"), oxm(30, 3, "ICMPV6_CODE")];
    NdTarget = "nd_target" [], 16 bytes, 128 bits, Bitwise, Ipv6, Nd, Rw, No, No, be(nd_target, 16), [nx(23, 1, "ND_TARGET"), oxm(31, 3, "IPV6_ND_TARGET")];
    NdSll = "nd_sll" [], 6 bytes, 48 bits, Bitwise, Ethernet, NdSolicit, Rw, No, No, be(arp_sha, 6), [nx(24, 1, "ND_SLL"), oxm(32, 3, "IPV6_ND_SLL")];
    NdTll = "nd_tll" [], 6 bytes, 48 bits, Bitwise, Ethernet, NdAdvert, Rw, No, No, be(arp_tha, 6), [nx(25, 1, "ND_TLL"), oxm(33, 3, "IPV6_ND_TLL")];
    NdReserved = "nd_reserved" [], 4 bytes, 32 bits, Exact, Decimal, Nd, Rw, No, No, be(igmp_group_ip4, 4), [eric(1, 1, "ICMPV6_ND_RESERVED")];
    NdOptionsType = "nd_options_type" [], 1 bytes, 8 bits, Exact, Decimal, Nd, Rw, No, No, be(tcp_flags, 2), [eric(2, 1, "ICMPV6_ND_OPTIONS_TYPE")];
    // Network service header.
    NshFlags = "nsh_flags" [], 1 bytes, 8 bits, Bitwise, Decimal, Nsh, Rw, No, No, host(nsh.flags, 1), [nx_nsh(1, 1, "FLAGS")];
    NshTtl = "nsh_ttl" [], 1 bytes, 8 bits, Exact, Decimal, Nsh, Rw, No, No, host(nsh.ttl, 1), [nx_nsh(10, 1, "TTL")];
    NshMdtype = "nsh_mdtype" [], 1 bytes, 8 bits, Exact, Decimal, Nsh, Ro, No, No, host(nsh.mdtype, 1), [nx_nsh(2, 1, "MDTYPE")];
    NshNp = "nsh_np" [], 1 bytes, 8 bits, Exact, Decimal, Nsh, Ro, No, No, host(nsh.np, 1), [nx_nsh(3, 1, "NP")];
    NshSpi = "nsh_spi" ["nsp"], 4 bytes, 24 bits, Exact, Hex, Nsh, Rw, No, No, be(nsh.path_hdr, 4, 0xffff_ff00, 8), [nx_nsh(4, 1, "SPI")];
    NshSi = "nsh_si" ["nsi"], 1 bytes, 8 bits, Exact, Decimal, Nsh, Rw, No, No, be(nsh.path_hdr, 4, 0x0000_00ff, 0), [nx_nsh(5, 1, "SI")];
    NshC1 = "nsh_c1" ["nshc1"], 4 bytes, 32 bits, Bitwise, Hex, Nsh, Rw, No, No, ctx(0), [nx_nsh(6, 1, "C1")];
    NshC2 = "nsh_c2" ["nshc2"], 4 bytes, 32 bits, Bitwise, Hex, Nsh, Rw, No, No, ctx(1), [nx_nsh(7, 1, "C2")];
    NshC3 = "nsh_c3" ["nshc3"], 4 bytes, 32 bits, Bitwise, Hex, Nsh, Rw, No, No, ctx(2), [nx_nsh(8, 1, "C3")];
    NshC4 = "nsh_c4" ["nshc4"], 4 bytes, 32 bits, Bitwise, Hex, Nsh, Rw, No, No, ctx(3), [nx_nsh(9, 1, "C4")];
}
