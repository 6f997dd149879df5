//! Priority tuple-space search.
