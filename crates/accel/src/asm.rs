//! An assembler for BPF: one method an instruction, labels instead of offsets.
//!
//! Only what the programs here use. Jumps go forward. Encoding: include/uapi/linux/bpf.h, `struct bpf_insn`: opcode,
//! registers (destination in the low half), 16-bit offset, 32-bit immediate.

/// A register: R0 has results, R1–R5 arguments (lost in a call), R6–R9 stay, R10 is the frame.
pub type Reg = u8;
pub const R0: Reg = 0;
pub const R1: Reg = 1;
pub const R2: Reg = 2;
pub const R3: Reg = 3;
pub const R4: Reg = 4;
pub const R6: Reg = 6;
pub const R7: Reg = 7;
pub const R8: Reg = 8;
pub const R9: Reg = 9;
pub const FP: Reg = 10;

/// Width of an access to memory.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    B1 = 0x10,
    B2 = 0x08,
    B4 = 0x00,
    B8 = 0x18,
}

/// Arithmetic, 64 bits wide.
#[derive(Clone, Copy, Debug)]
pub enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Or = 0x40,
    And = 0x50,
    Shl = 0x60,
    Shr = 0x70,
    Mov = 0xb0,
}

/// Comparison of a jump, unsigned, 64 bits wide.
#[derive(Clone, Copy, Debug)]
pub enum Cond {
    Eq = 0x10,
    Gt = 0x20,
    Ne = 0x50,
    Lt = 0xa0,
    Le = 0xb0,
}

/// Functions of the kernel, by their number.
#[derive(Clone, Copy, Debug)]
pub enum Helper {
    MapLookup = 1,
    StoreBytes = 9,
    L3CsumReplace = 10,
    CloneRedirect = 13,
    VlanPush = 18,
    VlanPop = 19,
    Redirect = 23,
    LoadBytes = 26,
    KtimeGetCoarseNs = 160,
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program under construction.
#[derive(Default)]
pub struct Asm {
    code: Vec<u64>,
    labels: Vec<Option<usize>>,
    /// Instructions whose offset is a label's.
    jumps: Vec<(usize, Label)>,
}

impl Asm {
    fn emit(&mut self, op: u8, dst: Reg, src: Reg, off: i16, imm: i32) {
        let insn = u64::from(op)
            | u64::from(dst | src << 4) << 8
            | u64::from(off.cast_unsigned()) << 16
            | u64::from(imm.cast_unsigned()) << 32;
        self.code.push(insn);
    }

    /// A label to be placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }
    /// Places a label before the next instruction.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// `dst = dst op imm`.
    pub fn alu_imm(&mut self, op: Alu, dst: Reg, imm: i32) {
        self.emit(0x07 | op as u8, dst, 0, 0, imm);
    }
    /// `dst = dst op src`.
    pub fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        self.emit(0x0f | op as u8, dst, src, 0, 0);
    }
    /// `dst = imm`.
    pub fn mov_imm(&mut self, dst: Reg, imm: i32) {
        self.alu_imm(Alu::Mov, dst, imm);
    }
    /// `dst = src`.
    pub fn mov(&mut self, dst: Reg, src: Reg) {
        self.alu(Alu::Mov, dst, src);
    }
    /// `dst = frame + off`: the address of a variable.
    pub fn address(&mut self, dst: Reg, off: i16) {
        self.mov(dst, FP);
        self.alu_imm(Alu::Add, dst, i32::from(off));
    }
    /// Turns the low `bits` of network order to host order or back; clears what is above.
    pub fn swap(&mut self, dst: Reg, bits: i32) {
        self.emit(0xdc, dst, 0, 0, bits);
    }

    /// `dst = *(src + off)`, zero-extended.
    pub fn load(&mut self, size: Size, dst: Reg, src: Reg, off: i16) {
        self.emit(0x61 | size as u8, dst, src, off, 0);
    }
    /// `*(dst + off) = src`.
    pub fn store(&mut self, size: Size, dst: Reg, off: i16, src: Reg) {
        self.emit(0x63 | size as u8, dst, src, off, 0);
    }
    /// `*(dst + off) = imm`.
    pub fn store_imm(&mut self, size: Size, dst: Reg, off: i16, imm: i32) {
        self.emit(0x62 | size as u8, dst, 0, off, imm);
    }
    /// Moves `size` bytes from one place to another through `via`.
    pub fn copy(&mut self, size: Size, to: (Reg, i16), from: (Reg, i16), via: Reg) {
        self.load(size, via, from.0, from.1);
        self.store(size, to.0, to.1, via);
    }
    /// `*(u64 *)(dst + off) += src`, atomically.
    pub fn atomic_add(&mut self, dst: Reg, off: i16, src: Reg) {
        self.emit(0xdb, dst, src, off, 0x00);
    }
    /// `*(u64 *)(dst + off) |= src`, atomically.
    pub fn atomic_or(&mut self, dst: Reg, off: i16, src: Reg) {
        self.emit(0xdb, dst, src, off, 0x40);
    }

    /// `dst =` a map, as an argument of calls.
    pub fn map(&mut self, dst: Reg, fd: i32) {
        self.emit(0x18, dst, 1, 0, fd);
        self.code.push(0);
    }
    /// `dst =` address of the one value of an array map.
    pub fn map_value(&mut self, dst: Reg, fd: i32) {
        self.emit(0x18, dst, 2, 0, fd);
        self.code.push(0);
    }

    /// Jumps if `reg cond imm`.
    pub fn jump_imm(&mut self, cond: Cond, reg: Reg, imm: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(0x05 | cond as u8, reg, 0, 0, imm);
    }
    /// Jumps if `a cond b`.
    pub fn jump(&mut self, cond: Cond, a: Reg, b: Reg, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(0x0d | cond as u8, a, b, 0, 0);
    }
    /// Jumps if `reg & imm`.
    pub fn jump_bits(&mut self, reg: Reg, imm: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(0x45, reg, 0, 0, imm);
    }
    /// Jumps.
    pub fn go(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(0x05, 0, 0, 0, 0);
    }
    /// Calls; the result is in R0.
    pub fn call(&mut self, helper: Helper) {
        self.emit(0x85, 0, 0, 0, helper as i32);
    }
    /// Returns R0.
    pub fn exit(&mut self) {
        self.emit(0x95, 0, 0, 0, 0);
    }

    /// The instructions, jumps resolved.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, label) in std::mem::take(&mut self.jumps) {
            let target = self.labels[label.0].expect("each label is placed");
            let off = i16::try_from(target - at - 1).expect("programs are short and jumps go forward");
            self.code[at] |= u64::from(off.cast_unsigned()) << 16;
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_count_from_the_next_instruction() {
        let mut a = Asm::default();
        let end = a.label();
        a.mov_imm(R0, -1);
        a.jump_imm(Cond::Eq, R1, 5, end);
        a.mov(R0, R1);
        a.place(end);
        a.exit();
        assert_eq!(
            a.finish(),
            [0xffff_ffff_0000_00b7, 0x0000_0005_0001_0115, 0x0000_0000_0000_10bf, 0x0000_0000_0000_0095]
        );
    }
}
