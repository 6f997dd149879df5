//! Names of fields, as `flow` declares them.

/// A field's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(pub u8);

/// Some bits of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subfield {
    /// Field.
    pub field: FieldId,
    /// Lowest bit.
    pub ofs: u16,
    /// Width.
    pub n_bits: u16,
}
