//! The datapath contract.
