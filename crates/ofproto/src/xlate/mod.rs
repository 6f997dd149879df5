//! Translation.
use crate::rule::Rule;
use std::sync::Arc;
/// Where counters of a datapath flow go.
#[derive(Clone)]
pub enum CacheEntry {
    /// To a rule.
    Rule(Arc<Rule>),
}
