//! The methods of [`crate::Netdev`] that devices of the kernel have in common, each written once.

/// Writes those that are named: what the `link` field knows, and for `set_config`/`config` an `options` field that nothing but
/// the switch reads. What a device answers otherwise, it says itself.
macro_rules! of_the_link {
    (@name) => {
        fn name(&self) -> &str {
            &self.link.name
        }
    };
    (@config) => {
        fn config(&self) -> std::collections::BTreeMap<String, String> {
            std::collections::BTreeMap::new()
        }
    };
    (@set_config) => {
        fn set_config(&self, options: &std::collections::BTreeMap<String, String>) -> $crate::error::Result<()> {
            self.options.lock().clone_from(options);
        Ok(())
        }
    };
    (@status) => {
        fn status(&self) -> std::collections::BTreeMap<String, String> {
            self.link.status()
        }
    };
    (@tx_offloads) => {
        fn tx_offloads(&self) -> &'static [&'static str] {
            $crate::linux::vnet::TX_OFFLOADS
        }
    };
    (@mac) => {
        fn mac(&self) -> $crate::error::Result<ib_packet::Mac> {
            self.link.mac()
        }
    };
    (@set_mac) => {
        fn set_mac(&self, mac: ib_packet::Mac) -> $crate::error::Result<()> {
            self.link.set_mac(mac)
        }
    };
    (@mtu) => {
        fn mtu(&self) -> $crate::error::Result<u32> {
            self.link.mtu()
        }
    };
    (@set_mtu) => {
        fn set_mtu(&self, mtu: u32) -> $crate::error::Result<()> {
            self.link.set_mtu(mtu)
        }
    };
    (@flags) => {
        fn flags(&self) -> $crate::error::Result<$crate::flags::Flags> {
            self.link.flags()
        }
    };
    (@update_flags) => {
        fn update_flags(
        &self,
        off: $crate::flags::Flags,
        on: $crate::flags::Flags,
    ) -> $crate::error::Result<$crate::flags::Flags> {
            self.link.update_flags(off, on)
        }
    };
    (@ifindex) => {
        fn ifindex(&self) -> Option<i32> {
            self.link.ifindex()
        }
    };
    (@carrier) => {
        fn carrier(&self) -> $crate::contract::Carrier {
            self.link.carrier()
        }
    };
    (@link_speed) => {
        fn link_speed(&self) -> $crate::error::Result<$crate::contract::Speed> {
            self.link.link_speed()
        }
    };
    (@addresses) => {
        fn addresses(&self) -> $crate::error::Result<Vec<(std::net::IpAddr, u8)>> {
            self.link.addresses()
        }
    };
    (@set_address) => {
        fn set_address(&self, address: std::net::Ipv4Addr, prefix_len: u8) -> $crate::error::Result<()> {
            self.link.set_address(address, prefix_len)
        }
    };
    (@add_router) => {
        fn add_router(&self, router: std::net::Ipv4Addr) -> $crate::error::Result<()> {
            self.link.add_router(router)
        }
    };
    (@change_seq) => {
        fn change_seq(&self) -> u64 {
            self.link.seq.read()
        }
    };
    ($($method:ident)*) => { $($crate::linux::link::of_the_link!(@$method);)* };
}
pub(crate) use of_the_link;
