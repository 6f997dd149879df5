//! The two programs: one decides, one obeys.
//!
//! The kernel shows a received packet to packet sockets first, among them the one by which user space receives. The *filter* on that socket
//! parses the packet, looks its key up, and if there is an entry counts the packet, keeps it from the socket, and leaves the verdict in a
//! slot of this processor. Right after the sockets, on the same processor, with nothing in between, the packet comes to
//! the *tcx* program of the device, which finds the verdict and carries it out. Without verdict the packet goes on as it always did. So
//! each packet is either user space's or ours: one lookup decides. The slot names the packet (device, length, hash) and is emptied by whoever
//! looks at it, so that a verdict that was not picked up is never another packet's.
//!
//! The filter takes a packet only if nobody else would have wanted it: the kernel's own stack throws away packets whose Ethernet
//! destination is another host's (`PACKET_OTHERHOST`). The others, broadcasts and what is sent to the port's device itself, are user space's and the stack's, as ever.
//!
//! What it parses is what `ib_flow::extract` would read in full: Ethernet, at most one 802.1Q tag (the kernel has taken it off), IPv4 without options or
//! IPv6 without extension headers, no fragment, TCP, UDP or ICMPv4, all lengths in order. Anything else is user space's.
//! Super-frames stay whole; a frame longer than its way out takes is user space's, which counts it as a drop.
//!
//! A filter is made for a set of fields and reads no other ones. Cost: two or three copies of header bytes, one lookup, two atomic
//! additions, some 100 ns with the redirection.

use crate::asm::{
    Alu, Asm, Cond, FP, Helper, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, Reg,
    Size::{B1, B2, B4, B8},
};
use crate::entry::{Fields, KEY_LEN, MAX_OUTPUTS, at, op, value_at};

/// Entries there may be; a power of two.
pub const ENTRIES: u32 = 1 << 14;
/// Length of an entry's counters: a cache line.
pub const COUNTER_LEN: usize = 64;
/// Places among an entry's counters, 64 bits each.
pub mod counter_at {
    #![allow(missing_docs, reason = "names of counters")]
    pub const PACKETS: usize = 0;
    pub const BYTES: usize = 8;
    pub const USED_NS: usize = 16;
    pub const TCP_FLAGS: usize = 24;
}

/// Length of a slot.
pub const SLOT_LEN: usize = 64;
/// Places in a slot; a copy of the entry's value follows what names the packet.
mod slot_at {
    pub const IFINDEX: i16 = 0;
    pub const LEN: i16 = 4;
    pub const HASH: i16 = 8;
    pub const VALID: i16 = 12;
    pub const VALUE: i16 = 16;
}

/// Descriptors of the maps that the programs share.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// Entries by key.
    pub entries: i32,
    /// Counters of all entries, as one value.
    pub counters: i32,
    /// Slots.
    pub slots: i32,
}

/// Fields of `struct __sk_buff`.
mod skb {
    pub const LEN: i16 = 0;
    pub const PKT_TYPE: i16 = 4;
    pub const VLAN_PRESENT: i16 = 20;
    pub const VLAN_TCI: i16 = 24;
    pub const VLAN_PROTO: i16 = 28;
    pub const IFINDEX: i16 = 40;
    pub const HASH: i16 = 68;
    pub const GSO_SIZE: i16 = 176;
}
const PACKET_OTHERHOST: i32 = 3;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

const ETH_LEN: i32 = 14;
const TCP: i32 = 6;
const UDP: i32 = 17;
const ICMP: i32 = 1;

// The frame.
const KEY: i16 = -(KEY_LEN as i16);
/// First bytes of the transport header: ports, and TCP's data offset and flags.
const L4: i16 = KEY - 16;
const TCP_FLAGS: i16 = L4 + 12;
/// Ethernet and IP headers, from a place where the IP header is aligned to 4.
const HEAD: i16 = L4 - 62;
const L3: i16 = HEAD + 14;
/// A zero, the key of one-entry maps.
const ZERO: i16 = L4 - 72;

const fn key(at: usize) -> i16 {
    KEY + at as i16
}
const fn value(at: usize) -> i16 {
    slot_at::VALUE + at as i16
}

/// R9 = the slot of this processor; leaves for `fail` otherwise (it never does).
fn find_slot(a: &mut Asm, maps: Maps, fail: Label) {
    a.store_imm(B4, FP, ZERO, 0);
    a.map(R1, maps.slots);
    a.address(R2, ZERO);
    a.call(Helper::MapLookup);
    a.jump_imm(Cond::Eq, R0, 0, fail);
    a.mov(R9, R0);
}

/// Copies bytes of the packet to the frame, or leaves for `fail`.
fn load_bytes(a: &mut Asm, from: i32, to: i16, len: i32, fail: Label) {
    a.mov(R1, R6);
    a.mov_imm(R2, from);
    a.address(R3, to);
    a.mov_imm(R4, len);
    a.call(Helper::LoadBytes);
    a.jump_imm(Cond::Ne, R0, 0, fail);
}

fn copy(a: &mut Asm, fields: Fields, field: Fields, to: usize, from: i16, len: i16) {
    if !fields.has(field) {
        return;
    }
    let mut done = 0;
    while done < len {
        let (size, n) = match len - done {
            1 => (B1, 1),
            2 | 3 => (B2, 2),
            _ => (B4, 4),
        };
        // Addresses in headers are aligned to 2 at least; 4 bytes only where both sides are.
        let whole = (from + done) % n == 0 && (key(to) + done) % n == 0;
        let (size, n) = if whole { (size, n) } else { (B2, 2) };
        a.copy(size, (FP, key(to) + done), (FP, from + done), R1);
        done += n;
    }
}

/// `len` (of the IP packet) in R3 must be at least `least`, else `fail`.
fn at_least(a: &mut Asm, least: i32, fail: Label) {
    a.jump_imm(Cond::Lt, R3, least, fail);
}

/// The transport header at `at`, R8 the protocol, R7 bytes of transport header and payload.
fn transport(a: &mut Asm, fields: Fields, at: i32, icmp: bool, fail: Label, done: Label) {
    let (tcp, ports, other) = (a.label(), a.label(), a.label());
    a.jump_imm(Cond::Eq, R8, TCP, tcp);
    a.jump_imm(Cond::Ne, R8, UDP, other);
    a.jump_imm(Cond::Lt, R7, 8, fail);
    load_bytes(a, at, L4, 4, fail);
    a.go(ports);
    a.place(tcp);
    a.jump_imm(Cond::Lt, R7, 20, fail);
    load_bytes(a, at, L4, 14, fail);
    // Header length: within the packet, and long enough.
    a.load(B1, R1, FP, TCP_FLAGS);
    a.alu_imm(Alu::Shr, R1, 4);
    a.alu_imm(Alu::Shl, R1, 2);
    a.jump_imm(Cond::Lt, R1, 20, fail);
    a.jump(Cond::Gt, R1, R7, fail);
    a.place(ports);
    copy(a, fields, Fields::TP_SRC, at::TP_SRC, L4, 2);
    copy(a, fields, Fields::TP_DST, at::TP_DST, L4 + 2, 2);
    a.go(done);
    a.place(other);
    if !icmp {
        a.go(fail);
        return;
    }
    a.jump_imm(Cond::Ne, R8, ICMP, fail);
    a.jump_imm(Cond::Lt, R7, 8, fail);
    load_bytes(a, at, L4, 2, fail);
    // Type and code take the ports' places, as 16-bit numbers.
    let mut widen = |field, to: usize, from: i16| {
        if fields.has(field) {
            a.copy(B1, (FP, key(to) + 1), (FP, from), R1);
        }
    };
    widen(Fields::TP_SRC, at::TP_SRC, L4);
    widen(Fields::TP_DST, at::TP_DST, L4 + 1);
    a.go(done);
}

/// R7 = R7 (bytes from the IP header on) must have `R3` bytes and not more than 255 behind them.
fn fits(a: &mut Asm, fail: Label) {
    a.jump(Cond::Gt, R3, R7, fail);
    a.alu(Alu::Sub, R7, R3);
    a.jump_imm(Cond::Gt, R7, 255, fail);
}

fn ipv4(a: &mut Asm, fields: Fields, fail: Label, done: Label) {
    a.load(B1, R1, FP, L3);
    a.jump_imm(Cond::Ne, R1, 0x45, fail);
    // More fragments, or an offset.
    a.load(B2, R1, FP, L3 + 6);
    a.swap(R1, 16);
    a.alu_imm(Alu::And, R1, 0x3fff);
    a.jump_imm(Cond::Ne, R1, 0, fail);
    a.load(B2, R3, FP, L3 + 2);
    a.swap(R3, 16);
    at_least(a, 28, fail);
    fits(a, fail);
    a.mov(R7, R3);
    a.alu_imm(Alu::Sub, R7, 20);
    a.load(B1, R8, FP, L3 + 9);
    copy(a, fields, Fields::NW_PROTO, at::NW_PROTO, L3 + 9, 1);
    copy(a, fields, Fields::NW_TOS, at::NW_TOS, L3 + 1, 1);
    copy(a, fields, Fields::NW_TTL, at::NW_TTL, L3 + 8, 1);
    copy(a, fields, Fields::NW_SRC, at::NW_SRC, L3 + 12, 4);
    copy(a, fields, Fields::NW_DST, at::NW_DST, L3 + 16, 4);
    transport(a, fields, ETH_LEN + 20, true, fail, done);
}

fn ipv6(a: &mut Asm, fields: Fields, fail: Label, done: Label) {
    load_bytes(a, ETH_LEN + 20, L3 + 20, 20, fail);
    a.load(B4, R2, FP, L3);
    a.swap(R2, 32);
    a.mov(R1, R2);
    a.alu_imm(Alu::Shr, R1, 28);
    a.jump_imm(Cond::Ne, R1, 6, fail);
    if fields.has(Fields::NW_TOS) {
        a.mov(R1, R2);
        a.alu_imm(Alu::Shr, R1, 20);
        a.store(B1, FP, key(at::NW_TOS), R1);
    }
    if fields.has(Fields::IPV6_LABEL) {
        a.alu_imm(Alu::And, R2, 0xf_ffff);
        a.swap(R2, 32);
        a.store(B4, FP, key(at::IPV6_LABEL), R2);
    }
    a.load(B2, R3, FP, L3 + 4);
    a.swap(R3, 16);
    a.alu_imm(Alu::Add, R3, 40);
    at_least(a, 48, fail);
    fits(a, fail);
    a.mov(R7, R3);
    a.alu_imm(Alu::Sub, R7, 40);
    a.load(B1, R8, FP, L3 + 6);
    copy(a, fields, Fields::NW_PROTO, at::NW_PROTO, L3 + 6, 1);
    copy(a, fields, Fields::NW_TTL, at::NW_TTL, L3 + 7, 1);
    copy(a, fields, Fields::NW_SRC, at::NW_SRC, L3 + 8, 16);
    copy(a, fields, Fields::NW_DST, at::NW_DST, L3 + 24, 16);
    transport(a, fields, ETH_LEN + 40, false, fail, done);
}

/// The tag that the kernel has taken off, if any.
fn vlan(a: &mut Asm, fields: Fields, fail: Label) {
    let untagged = a.label();
    a.load(B4, R1, R6, skb::VLAN_PRESENT);
    a.jump_imm(Cond::Eq, R1, 0, untagged);
    a.load(B4, R1, R6, skb::VLAN_PROTO);
    a.swap(R1, 16);
    a.jump_imm(Cond::Ne, R1, 0x8100, fail);
    if fields.has(Fields::VLAN) {
        a.load(B4, R1, R6, skb::VLAN_TCI);
        a.alu_imm(Alu::Or, R1, i32::from(ib_flow::Vlan::CFI));
        a.store(B2, FP, key(at::VLAN_TCI), R1);
    }
    a.place(untagged);
}

/// Counts the packet under the entry whose value is in R7; frame length in R8. Clobbers R0 to R5.
fn count(a: &mut Asm, maps: Maps) {
    a.load(B4, R2, R7, value_at::COUNTER as i16);
    // For the verifier: it is below that anyway.
    a.alu_imm(Alu::And, R2, ENTRIES as i32 - 1);
    a.alu_imm(Alu::Shl, R2, COUNTER_LEN.trailing_zeros() as i32);
    a.map_value(R1, maps.counters);
    a.alu(Alu::Add, R1, R2);
    a.mov_imm(R2, 1);
    a.atomic_add(R1, counter_at::PACKETS as i16, R2);
    a.atomic_add(R1, counter_at::BYTES as i16, R8);
    let same = a.label();
    a.load(B2, R2, FP, TCP_FLAGS);
    a.swap(R2, 16);
    a.alu_imm(Alu::And, R2, 0xfff);
    a.load(B8, R3, R1, counter_at::TCP_FLAGS as i16);
    a.mov(R4, R3);
    a.alu(Alu::Or, R4, R2);
    a.jump(Cond::Eq, R3, R4, same);
    a.atomic_or(R1, counter_at::TCP_FLAGS as i16, R2);
    a.place(same);
    a.mov(R8, R1);
    a.call(Helper::KtimeGetCoarseNs);
    let known: Label = a.label();
    a.load(B8, R1, R8, counter_at::USED_NS as i16);
    a.jump(Cond::Eq, R1, R0, known);
    a.store(B8, R8, counter_at::USED_NS as i16, R0);
    a.place(known);
}

/// The filter for these fields. Returns 0 for packets that the accelerator takes, all ones for others.
pub fn filter(fields: Fields, maps: Maps) -> Vec<u64> {
    let mut a = Asm::default();
    let (pass, found, v6, fits_out) = (a.label(), a.label(), a.label(), a.label());
    a.mov(R6, R1);
    find_slot(&mut a, maps, pass);
    a.store_imm(B4, R9, slot_at::VALID, 0);
    a.load(B4, R1, R6, skb::PKT_TYPE);
    a.jump_imm(Cond::Ne, R1, PACKET_OTHERHOST, pass);
    // Bytes from the IP header on; what is shorter fails below.
    a.load(B4, R7, R6, skb::LEN);
    a.jump_imm(Cond::Lt, R7, ETH_LEN + 28, pass);
    a.alu_imm(Alu::Sub, R7, ETH_LEN);
    for at in (KEY..0).step_by(8).chain([L4, L4 + 8]) {
        a.store_imm(B8, FP, at, 0);
    }
    a.copy(B4, (FP, key(at::IFINDEX)), (R6, skb::IFINDEX), R1);
    vlan(&mut a, fields, pass);
    load_bytes(&mut a, 0, HEAD, ETH_LEN + 20, pass);
    copy(&mut a, fields, Fields::DL_DST, at::DL_DST, HEAD, 6);
    copy(&mut a, fields, Fields::DL_SRC, at::DL_SRC, HEAD + 6, 6);
    a.copy(B2, (FP, key(at::DL_TYPE)), (FP, HEAD + 12), R1);
    a.swap(R1, 16);
    a.jump_imm(Cond::Eq, R1, 0x86dd, v6);
    a.jump_imm(Cond::Ne, R1, 0x0800, pass);
    ipv4(&mut a, fields, pass, found);
    a.place(v6);
    ipv6(&mut a, fields, pass, found);

    a.place(found);
    a.map(R1, maps.entries);
    a.address(R2, KEY);
    a.call(Helper::MapLookup);
    a.jump_imm(Cond::Eq, R0, 0, pass);
    a.mov(R7, R0);
    a.load(B4, R8, R6, skb::LEN);
    a.load(B4, R1, R7, value_at::MAX_FRAME as i16);
    a.jump(Cond::Le, R8, R1, fits_out);
    a.load(B4, R1, R6, skb::GSO_SIZE);
    a.jump_imm(Cond::Eq, R1, 0, pass);
    a.place(fits_out);
    a.store(B4, R9, slot_at::LEN, R8);
    // User space counts the tag, too.
    let untagged = a.label();
    a.load(B4, R1, R6, skb::VLAN_PRESENT);
    a.jump_imm(Cond::Eq, R1, 0, untagged);
    a.alu_imm(Alu::Add, R8, 4);
    a.place(untagged);
    a.copy(B4, (R9, slot_at::IFINDEX), (R6, skb::IFINDEX), R1);
    a.copy(B4, (R9, slot_at::HASH), (R6, skb::HASH), R1);
    for at in (0..48).step_by(8) {
        a.copy(B8, (R9, slot_at::VALUE + at), (R7, at), R1);
    }
    a.store_imm(B4, R9, slot_at::VALID, 1);
    count(&mut a, maps);
    a.mov_imm(R0, 0);
    a.exit();
    a.place(pass);
    a.mov_imm(R0, -1);
    a.exit();
    a.finish()
}

/// Calls with the packet, then two immediates, then nothing else; leaves for `fail` if it fails.
fn change(a: &mut Asm, helper: Helper, arguments: impl FnOnce(&mut Asm), fail: Label) {
    a.mov(R1, R6);
    arguments(a);
    a.call(helper);
    a.jump_imm(Cond::Ne, R0, 0, fail);
}

/// If R7 (operations) has `bit`, does `body`.
fn when(a: &mut Asm, bit: i32, body: impl FnOnce(&mut Asm)) {
    let (yes, no) = (a.label(), a.label());
    a.jump_bits(R7, bit, yes);
    a.go(no);
    a.place(yes);
    body(a);
    a.place(no);
}

fn store_byte(a: &mut Asm, at: i32, from: (Reg, i16), fail: Label) {
    change(
        a,
        Helper::StoreBytes,
        |a| {
            a.mov_imm(R2, at);
            a.mov(R3, from.0);
            a.alu_imm(Alu::Add, R3, i32::from(from.1));
            a.mov_imm(R4, 1);
            a.mov_imm(5, 0);
        },
        fail,
    );
}

/// The program of a device: carries out the verdict that the filter left, if there is one.
pub fn tcx(maps: Maps) -> Vec<u64> {
    let mut a = Asm::default();
    let (next, drop, plain) = (a.label(), a.label(), a.label());
    a.mov(R6, R1);
    find_slot(&mut a, maps, next);
    a.load(B4, R1, R9, slot_at::VALID);
    a.jump_imm(Cond::Eq, R1, 0, next);
    a.store_imm(B4, R9, slot_at::VALID, 0);
    for (at, field) in
        [(slot_at::IFINDEX, skb::IFINDEX), (slot_at::LEN, skb::LEN), (slot_at::HASH, skb::HASH)]
    {
        a.load(B4, R1, R9, at);
        a.load(B4, R2, R6, field);
        a.jump(Cond::Ne, R1, R2, next);
    }
    a.load(B4, R7, R9, value(value_at::OPS));
    a.jump_imm(Cond::Eq, R7, 0, plain);
    a.jump_bits(R7, op::DROP, drop);
    when(&mut a, op::SET_TTL4, |a| {
        // TTL and protocol are a word of the checksum; only the TTL differs.
        let word = |a: &mut Asm, to: Reg, at: usize| a.load(B1, to, R9, value(at));
        change(
            a,
            Helper::L3CsumReplace,
            |a| {
                a.mov_imm(R2, ETH_LEN + 10);
                word(a, R3, value_at::TTL);
                word(a, R4, value_at::TTL + 1);
                a.mov_imm(5, 2);
            },
            drop,
        );
        store_byte(a, ETH_LEN + 8, (R9, value(value_at::TTL + 1)), drop);
    });
    when(&mut a, op::SET_TTL6, |a| store_byte(a, ETH_LEN + 7, (R9, value(value_at::TTL + 1)), drop));
    when(&mut a, op::SET_ETH, |a| {
        change(
            a,
            Helper::StoreBytes,
            |a| {
                a.mov_imm(R2, 0);
                a.mov(R3, R9);
                a.alu_imm(Alu::Add, R3, i32::from(value(value_at::ETH)));
                a.mov_imm(R4, 12);
                a.mov_imm(5, 0);
            },
            drop,
        );
    });
    when(&mut a, op::POP_VLAN, |a| change(a, Helper::VlanPop, |_| {}, drop));
    when(&mut a, op::PUSH_VLAN, |a| {
        change(
            a,
            Helper::VlanPush,
            |a| {
                a.load(B2, R2, R9, value(value_at::VLAN));
                a.load(B2, R3, R9, value(value_at::VLAN + 2));
            },
            drop,
        );
    });
    when(&mut a, op::COPIES, |a| {
        for i in (1..MAX_OUTPUTS).rev() {
            let none = a.label();
            a.load(B4, R2, R9, value(value_at::OUTPUTS + 4 * i));
            a.jump_imm(Cond::Eq, R2, 0, none);
            a.mov(R1, R6);
            a.mov_imm(R3, 0);
            // A copy that cannot leave is lost; the others go on.
            a.call(Helper::CloneRedirect);
            a.place(none);
        }
    });
    a.place(plain);
    a.load(B4, R1, R9, value(value_at::OUTPUTS));
    a.mov_imm(R2, 0);
    a.call(Helper::Redirect);
    a.exit();
    a.place(drop);
    a.mov_imm(R0, TCX_DROP);
    a.exit();
    a.place(next);
    a.mov_imm(R0, TCX_NEXT);
    a.exit();
    a.finish()
}
