//! Local sampling: collector sets whose samples go to a psample group of the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::switch::Bridge;

impl Bridge {
    /// Says which collector sets have local groups. False: the datapath knows no such groups.
    pub fn set_local_sample(&mut self, want: &BTreeMap<u32, u32>) -> bool {
        let is_able = self.backer.features().psample;
        let none = BTreeMap::new();
        let groups = if is_able { want } else { &none };
        if *self.local_groups != *groups {
            self.local_groups = Arc::new(groups.clone());
            self.touch();
        }
        is_able || want.is_empty()
    }
}
