//! The schemas that the project brings, as installers write them and as daemons fall back to.

/// `Open_vSwitch`: the configuration of a switch (ovs-vswitchd.conf.db(5)).
pub const VSWITCH: &str = include_str!("../schema/vswitch.ovsschema");
/// `hardware_vtep`: the interface to VTEP gateways (vtep(5)).
pub const VTEP: &str = include_str!("../schema/vtep.ovsschema");
/// `Local_Config`: the remotes and the like of a database server (ovsdb.local-config(5)).
pub const LOCAL_CONFIG: &str = include_str!("../schema/local-config.ovsschema");

/// The text of the schema whose file is called `file_name`.
pub fn by_file_name(file_name: &str) -> Option<&'static str> {
    Some(match file_name {
        "vswitch.ovsschema" => VSWITCH,
        "vtep.ovsschema" => VTEP,
        "local-config.ovsschema" => LOCAL_CONFIG,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    #[test]
    fn all_are_valid_and_complete() {
        let vswitch = Schema::parse(VSWITCH).unwrap();
        assert_eq!((&*vswitch.name, &*vswitch.version), ("Open_vSwitch", "8.8.0"));
        let interface = vswitch.table("Interface").unwrap();
        assert_eq!(interface.indexes.len(), 1);
        assert!(!interface.is_root);
        assert!(vswitch.table("Open_vSwitch").unwrap().is_root);
        assert_eq!(&*Schema::parse(VTEP).unwrap().name, "hardware_vtep");
        assert_eq!(&*Schema::parse(LOCAL_CONFIG).unwrap().name, "Local_Config");
        assert_eq!(by_file_name("vswitch.ovsschema"), Some(VSWITCH));
    }
}
