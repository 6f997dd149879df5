//! Flow key, mask, match and the field table.
