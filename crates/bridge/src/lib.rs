//! Database rows to switch state and back.
