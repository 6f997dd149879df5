//! The value of any field: one number type wide enough for all of them.
//!
//! Plain data of 128 bytes, copied freely by control code; per-packet code uses the key's own members.

/// Widest field in bytes, rounded up to the width of [`FieldValue`].
pub const VALUE_BYTES: usize = 128;

/// A field's value: a 1024-bit number in network order, right-aligned.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldValue(pub [u8; VALUE_BYTES]);

impl FieldValue {
    /// All bits zero.
    pub const ZERO: FieldValue = FieldValue([0; VALUE_BYTES]);
    /// All bits one.
    pub const ONES: FieldValue = FieldValue([0xff; VALUE_BYTES]);

    /// From a number of up to 128 bits.
    pub fn from_u128(v: u128) -> FieldValue {
        let mut out = FieldValue::ZERO;
        out.0[VALUE_BYTES - 16..].copy_from_slice(&v.to_be_bytes());
        out
    }
    /// From bytes in network order; only the last 128 are used.
    pub fn from_bytes(bytes: &[u8]) -> FieldValue {
        let mut out = FieldValue::ZERO;
        let n = bytes.len().min(VALUE_BYTES);
        out.0[VALUE_BYTES - n..].copy_from_slice(&bytes[bytes.len() - n..]);
        out
    }
    /// Low `n_bits` bits set.
    pub fn low_ones(n_bits: u32) -> FieldValue {
        let mut out = FieldValue::ZERO;
        out.set_bits(0, n_bits, &FieldValue::ONES);
        out
    }
    /// The last `n` bytes: the value as a field of that width travels.
    #[inline]
    pub fn bytes(&self, n: u32) -> &[u8] {
        &self.0[VALUE_BYTES.saturating_sub(n as usize)..]
    }
    /// The last `n` bytes, mutable.
    #[inline]
    pub fn bytes_mut(&mut self, n: u32) -> &mut [u8] {
        &mut self.0[VALUE_BYTES.saturating_sub(n as usize)..]
    }
    /// Low 128 bits.
    pub fn to_u128(&self) -> u128 {
        let mut b = [0; 16];
        b.copy_from_slice(&self.0[VALUE_BYTES - 16..]);
        u128::from_be_bytes(b)
    }
    /// Low 64 bits.
    pub fn to_u64(&self) -> u64 {
        self.to_u128() as u64
    }
    /// Whether the low `n` bytes are all zero.
    pub fn is_zero(&self, n: u32) -> bool {
        self.bytes(n).iter().all(|b| *b == 0)
    }
    /// Whether the low `n` bytes are all ones.
    pub fn is_ones(&self, n: u32) -> bool {
        self.bytes(n).iter().all(|b| *b == 0xff)
    }
    /// One bit, counted from the least significant.
    #[inline]
    pub fn bit(&self, i: u32) -> bool {
        let i = i as usize;
        i < VALUE_BYTES * 8 && self.0[VALUE_BYTES - 1 - i / 8] >> (i % 8) & 1 != 0
    }
    /// Sets one bit, counted from the least significant.
    #[inline]
    pub fn set_bit(&mut self, i: u32, on: bool) {
        let i = i as usize;
        if i < VALUE_BYTES * 8 {
            let byte = &mut self.0[VALUE_BYTES - 1 - i / 8];
            *byte = *byte & !(1 << (i % 8)) | u8::from(on) << (i % 8);
        }
    }
    /// Bits `ofs..ofs + n` as a number of their own.
    pub fn bits(&self, ofs: u32, n: u32) -> FieldValue {
        let mut out = FieldValue::ZERO;
        copy_bits(&mut out, 0, self, ofs, n);
        out
    }
    /// Stores the low `n` bits of `v` at `ofs`; other bits stay.
    pub fn set_bits(&mut self, ofs: u32, n: u32, v: &FieldValue) {
        copy_bits(self, ofs, v, 0, n);
    }
    /// Bitwise and.
    pub fn and(&self, o: &FieldValue) -> FieldValue {
        let mut out = *self;
        out.0.iter_mut().zip(&o.0).for_each(|(a, b)| *a &= b);
        out
    }
    /// Bitwise or.
    pub fn or(&self, o: &FieldValue) -> FieldValue {
        let mut out = *self;
        out.0.iter_mut().zip(&o.0).for_each(|(a, b)| *a |= b);
        out
    }
    /// Bitwise complement.
    #[allow(clippy::should_implement_trait)] // `!value` on a reference would read worse.
    pub fn not(&self) -> FieldValue {
        let mut out = *self;
        out.0.iter_mut().for_each(|a| *a = !*a);
        out
    }
    /// Number of bytes from the first non-zero one to the end, at least 1.
    pub fn significant_bytes(&self) -> u32 {
        let zeros = self.0.iter().take_while(|b| **b == 0).count();
        (VALUE_BYTES - zeros).max(1) as u32
    }
}

fn copy_bits(dst: &mut FieldValue, dofs: u32, src: &FieldValue, sofs: u32, n: u32) {
    if dofs.is_multiple_of(8) && sofs.is_multiple_of(8) && n.is_multiple_of(8) {
        let (d, s, n) = ((dofs / 8) as usize, (sofs / 8) as usize, (n / 8) as usize);
        if d + n <= VALUE_BYTES && s + n <= VALUE_BYTES {
            let from = &src.0[VALUE_BYTES - s - n..VALUE_BYTES - s];
            dst.0[VALUE_BYTES - d - n..VALUE_BYTES - d].copy_from_slice(from);
            return;
        }
    }
    for i in 0..n {
        dst.set_bit(dofs + i, src.bit(sofs + i));
    }
}

impl Default for FieldValue {
    fn default() -> FieldValue {
        FieldValue::ZERO
    }
}

impl std::fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::text::hex(self))
    }
}

impl From<u64> for FieldValue {
    fn from(v: u64) -> FieldValue {
        FieldValue::from_u128(v.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_ranges_of_values() {
        let mut v = FieldValue::ZERO;
        v.set_bits(4, 8, &0xabu64.into());
        assert_eq!(v.to_u64(), 0xab0);
        assert_eq!(v.bits(4, 4).to_u64(), 0xb);
        assert_eq!(FieldValue::low_ones(12).to_u64(), 0xfff);
    }
}
