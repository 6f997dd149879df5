//! Matches as they travel: NXM and OXM (`nxm`, with its text form in `nxm_text`), and the fixed structures
//! of OpenFlow 1.0 and 1.1 (`of10`).

pub mod nxm;
pub mod nxm_text;
pub mod of10;

pub use nxm::{NxmError, decode, encode};
