//! OpenFlow wire and text.
