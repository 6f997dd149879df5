//! Packet buffers, header views, checksums.
