//! The port contract and its Linux and dummy providers.
