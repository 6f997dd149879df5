//! The order in which Open vSwitch's programs come by an object's members.
//!
//! They keep them in a hash table, and where several members are wrong they name the first in the table's order. Programs compare such
//! texts, so we name the same one. Names hash by MurmurHash3 (32 bits, seed 0); chains have their latest member in front; the table
//! grows when there are more than two members a chain. Asked for where something is wrong only: it costs a table.

use super::{Json, Object};
use std::sync::Arc;

fn hash(name: &str) -> u32 {
    let mut hash = 0_u32;
    for word in name.as_bytes().chunks(4) {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        let word = u32::from_le_bytes(bytes);
        hash ^= word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    // Beyond four gigabytes the lower bits do.
    hash ^= (name.len() & 0xffff_ffff) as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// Chains of places; the last of each is its front.
fn place(chains: &mut [Vec<(u32, usize)>], entry: (u32, usize)) {
    let chain = entry.0 as usize & (chains.len() - 1);
    chains[chain].push(entry);
}

/// The places of `names`, put into the table one by one, in the table's order.
pub fn table_order<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
    let mut chains = vec![Vec::new()];
    for (i, name) in names.into_iter().enumerate() {
        place(&mut chains, (hash(name), i));
        let n = i + 1;
        if n / 2 >= chains.len() {
            let wanted = (n / 2 + 1).next_power_of_two().max(4);
            let mut grown = vec![Vec::new(); wanted];
            for entry in chains.iter().flat_map(|chain| chain.iter().rev()) {
                place(&mut grown, *entry);
            }
            chains = grown;
        }
    }
    chains.iter().flat_map(|chain| chain.iter().rev()).map(|&(_, i)| i).collect()
}

impl Object {
    /// The members in the order of Open vSwitch's hash table.
    pub fn in_table_order(&self) -> Vec<(&Arc<str>, &Json)> {
        let order = table_order(self.keys().map(|name| &**name));
        order.into_iter().map(|i| (&self.members[i].0, &self.members[i].1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_several_is_the_original_s() {
        // What Open vSwitch 3.1 named first of those that are there too many.
        for (text, expected, first) in [
            (r#"{"op":0,"table":0,"where":0,"until":0,"columns":0,"rows":0}"#, "op table where", "rows"),
            (r#"{"op":0,"table":0,"where":0}"#, "op", "where"),
            (r#"{"op":0,"table":0,"where":0,"row":0}"#, "op", "where"),
            (r#"{"op":0,"table":0,"row":0,"uuid":0}"#, "op", "uuid"),
        ] {
            let Json::Object(object) = Json::parse(text).unwrap() else { panic!("{text}") };
            let order = object.in_table_order();
            assert_eq!(order.len(), object.len());
            let named = order.iter().find(|(name, _)| expected.split(' ').all(|e| e != &***name)).unwrap();
            assert_eq!(&**named.0, first, "{text}: {order:?}");
        }
    }
}
