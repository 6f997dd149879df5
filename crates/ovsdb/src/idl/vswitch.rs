//! The tables of Open_vSwitch 8.8.0 as types. Made by `cargo xtask idl`; do not edit.

crate::typed_tables! {
    /// A row of the `AutoAttach` table.
    AutoAttach AutoAttachEdit "AutoAttach" {
        mappings: datum "mappings" set_mappings;
        system_description: str "system_description" set_system_description;
        system_name: str "system_name" set_system_name;
    }

    /// A row of the `Bridge` table.
    Bridge BridgeEdit "Bridge" {
        auto_attach: opt(AutoAttach) "auto_attach" set_auto_attach;
        controller: refs(Controller) "controller" set_controller;
        datapath_id: opt_str "datapath_id" set_datapath_id;
        datapath_type: str "datapath_type" set_datapath_type;
        datapath_version: str "datapath_version" set_datapath_version;
        external_ids: smap "external_ids" set_external_ids;
        fail_mode: opt_str "fail_mode" set_fail_mode;
        flood_vlans: ints "flood_vlans" set_flood_vlans;
        flow_tables: int_refs(FlowTable) "flow_tables" set_flow_tables;
        ipfix: opt(IPFIX) "ipfix" set_ipfix;
        mcast_snooping_enable: bool "mcast_snooping_enable" set_mcast_snooping_enable;
        mirrors: refs(Mirror) "mirrors" set_mirrors;
        name: str "name" set_name;
        netflow: opt(NetFlow) "netflow" set_netflow;
        other_config: smap "other_config" set_other_config;
        ports: refs(Port) "ports" set_ports;
        protocols: strs "protocols" set_protocols;
        rstp_enable: bool "rstp_enable" set_rstp_enable;
        rstp_status: smap "rstp_status" set_rstp_status;
        sflow: opt(SFlow) "sflow" set_sflow;
        status: smap "status" set_status;
        stp_enable: bool "stp_enable" set_stp_enable;
    }

    /// A row of the `CT_Timeout_Policy` table.
    CTTimeoutPolicy CTTimeoutPolicyEdit "CT_Timeout_Policy" {
        external_ids: smap "external_ids" set_external_ids;
        timeouts: datum "timeouts" set_timeouts;
    }

    /// A row of the `CT_Zone` table.
    CTZone CTZoneEdit "CT_Zone" {
        external_ids: smap "external_ids" set_external_ids;
        limit: opt_int "limit" set_limit;
        timeout_policy: opt(CTTimeoutPolicy) "timeout_policy" set_timeout_policy;
    }

    /// A row of the `Controller` table.
    Controller ControllerEdit "Controller" {
        connection_mode: opt_str "connection_mode" set_connection_mode;
        controller_burst_limit: opt_int "controller_burst_limit" set_controller_burst_limit;
        controller_queue_size: opt_int "controller_queue_size" set_controller_queue_size;
        controller_rate_limit: opt_int "controller_rate_limit" set_controller_rate_limit;
        enable_async_messages: opt_bool "enable_async_messages" set_enable_async_messages;
        external_ids: smap "external_ids" set_external_ids;
        inactivity_probe: opt_int "inactivity_probe" set_inactivity_probe;
        is_connected: bool "is_connected" set_is_connected;
        local_gateway: opt_str "local_gateway" set_local_gateway;
        local_ip: opt_str "local_ip" set_local_ip;
        local_netmask: opt_str "local_netmask" set_local_netmask;
        max_backoff: opt_int "max_backoff" set_max_backoff;
        other_config: smap "other_config" set_other_config;
        role: opt_str "role" set_role;
        status: smap "status" set_status;
        target: str "target" set_target;
        type_: opt_str "type" set_type;
    }

    /// A row of the `Datapath` table.
    Datapath DatapathEdit "Datapath" {
        capabilities: smap "capabilities" set_capabilities;
        ct_zone_default_limit: opt_int "ct_zone_default_limit" set_ct_zone_default_limit;
        ct_zones: int_refs(CTZone) "ct_zones" set_ct_zones;
        datapath_version: str "datapath_version" set_datapath_version;
        external_ids: smap "external_ids" set_external_ids;
    }

    /// A row of the `Flow_Sample_Collector_Set` table.
    FlowSampleCollectorSet FlowSampleCollectorSetEdit "Flow_Sample_Collector_Set" {
        bridge: one(Bridge) "bridge" set_bridge;
        external_ids: smap "external_ids" set_external_ids;
        id: int "id" set_id;
        ipfix: opt(IPFIX) "ipfix" set_ipfix;
        local_group_id: opt_int "local_group_id" set_local_group_id;
    }

    /// A row of the `Flow_Table` table.
    FlowTable FlowTableEdit "Flow_Table" {
        external_ids: smap "external_ids" set_external_ids;
        flow_limit: opt_int "flow_limit" set_flow_limit;
        groups: strs "groups" set_groups;
        name: opt_str "name" set_name;
        overflow_policy: opt_str "overflow_policy" set_overflow_policy;
        prefixes: strs "prefixes" set_prefixes;
    }

    /// A row of the `IPFIX` table.
    IPFIX IPFIXEdit "IPFIX" {
        cache_active_timeout: opt_int "cache_active_timeout" set_cache_active_timeout;
        cache_max_flows: opt_int "cache_max_flows" set_cache_max_flows;
        external_ids: smap "external_ids" set_external_ids;
        obs_domain_id: opt_int "obs_domain_id" set_obs_domain_id;
        obs_point_id: opt_int "obs_point_id" set_obs_point_id;
        other_config: smap "other_config" set_other_config;
        sampling: opt_int "sampling" set_sampling;
        stats_interval: opt_int "stats_interval" set_stats_interval;
        targets: strs "targets" set_targets;
        template_interval: opt_int "template_interval" set_template_interval;
    }

    /// A row of the `Interface` table.
    Interface InterfaceEdit "Interface" {
        admin_state: opt_str "admin_state" set_admin_state;
        bfd: smap "bfd" set_bfd;
        bfd_status: smap "bfd_status" set_bfd_status;
        cfm_fault: opt_bool "cfm_fault" set_cfm_fault;
        cfm_fault_status: strs "cfm_fault_status" set_cfm_fault_status;
        cfm_flap_count: opt_int "cfm_flap_count" set_cfm_flap_count;
        cfm_health: opt_int "cfm_health" set_cfm_health;
        cfm_mpid: opt_int "cfm_mpid" set_cfm_mpid;
        cfm_remote_mpids: ints "cfm_remote_mpids" set_cfm_remote_mpids;
        cfm_remote_opstate: opt_str "cfm_remote_opstate" set_cfm_remote_opstate;
        duplex: opt_str "duplex" set_duplex;
        error: opt_str "error" set_error;
        external_ids: smap "external_ids" set_external_ids;
        ifindex: opt_int "ifindex" set_ifindex;
        ingress_policing_burst: int "ingress_policing_burst" set_ingress_policing_burst;
        ingress_policing_kpkts_burst: int "ingress_policing_kpkts_burst" set_ingress_policing_kpkts_burst;
        ingress_policing_kpkts_rate: int "ingress_policing_kpkts_rate" set_ingress_policing_kpkts_rate;
        ingress_policing_rate: int "ingress_policing_rate" set_ingress_policing_rate;
        lacp_current: opt_bool "lacp_current" set_lacp_current;
        link_resets: opt_int "link_resets" set_link_resets;
        link_speed: opt_int "link_speed" set_link_speed;
        link_state: opt_str "link_state" set_link_state;
        lldp: smap "lldp" set_lldp;
        mac: opt_str "mac" set_mac;
        mac_in_use: opt_str "mac_in_use" set_mac_in_use;
        mtu: opt_int "mtu" set_mtu;
        mtu_request: opt_int "mtu_request" set_mtu_request;
        name: str "name" set_name;
        ofport: opt_int "ofport" set_ofport;
        ofport_request: opt_int "ofport_request" set_ofport_request;
        options: smap "options" set_options;
        other_config: smap "other_config" set_other_config;
        statistics: datum "statistics" set_statistics;
        status: smap "status" set_status;
        type_: str "type" set_type;
    }

    /// A row of the `Manager` table.
    Manager ManagerEdit "Manager" {
        connection_mode: opt_str "connection_mode" set_connection_mode;
        external_ids: smap "external_ids" set_external_ids;
        inactivity_probe: opt_int "inactivity_probe" set_inactivity_probe;
        is_connected: bool "is_connected" set_is_connected;
        max_backoff: opt_int "max_backoff" set_max_backoff;
        other_config: smap "other_config" set_other_config;
        status: smap "status" set_status;
        target: str "target" set_target;
    }

    /// A row of the `Mirror` table.
    Mirror MirrorEdit "Mirror" {
        external_ids: smap "external_ids" set_external_ids;
        filter: opt_str "filter" set_filter;
        name: str "name" set_name;
        output_port: opt(Port) "output_port" set_output_port;
        output_vlan: opt_int "output_vlan" set_output_vlan;
        select_all: bool "select_all" set_select_all;
        select_dst_port: refs(Port) "select_dst_port" set_select_dst_port;
        select_src_port: refs(Port) "select_src_port" set_select_src_port;
        select_vlan: ints "select_vlan" set_select_vlan;
        snaplen: opt_int "snaplen" set_snaplen;
        statistics: datum "statistics" set_statistics;
    }

    /// A row of the `NetFlow` table.
    NetFlow NetFlowEdit "NetFlow" {
        active_timeout: int "active_timeout" set_active_timeout;
        add_id_to_interface: bool "add_id_to_interface" set_add_id_to_interface;
        engine_id: opt_int "engine_id" set_engine_id;
        engine_type: opt_int "engine_type" set_engine_type;
        external_ids: smap "external_ids" set_external_ids;
        targets: strs "targets" set_targets;
    }

    /// A row of the `Open_vSwitch` table.
    OpenVSwitch OpenVSwitchEdit "Open_vSwitch" {
        bridges: refs(Bridge) "bridges" set_bridges;
        cur_cfg: int "cur_cfg" set_cur_cfg;
        datapath_types: strs "datapath_types" set_datapath_types;
        datapaths: datum "datapaths" set_datapaths;
        db_version: opt_str "db_version" set_db_version;
        dpdk_initialized: bool "dpdk_initialized" set_dpdk_initialized;
        dpdk_version: opt_str "dpdk_version" set_dpdk_version;
        external_ids: smap "external_ids" set_external_ids;
        iface_types: strs "iface_types" set_iface_types;
        manager_options: refs(Manager) "manager_options" set_manager_options;
        next_cfg: int "next_cfg" set_next_cfg;
        other_config: smap "other_config" set_other_config;
        ovs_version: opt_str "ovs_version" set_ovs_version;
        ssl: opt(SSL) "ssl" set_ssl;
        statistics: smap "statistics" set_statistics;
        system_type: opt_str "system_type" set_system_type;
        system_version: opt_str "system_version" set_system_version;
    }

    /// A row of the `Port` table.
    Port PortEdit "Port" {
        bond_active_slave: opt_str "bond_active_slave" set_bond_active_slave;
        bond_downdelay: int "bond_downdelay" set_bond_downdelay;
        bond_fake_iface: bool "bond_fake_iface" set_bond_fake_iface;
        bond_mode: opt_str "bond_mode" set_bond_mode;
        bond_updelay: int "bond_updelay" set_bond_updelay;
        cvlans: ints "cvlans" set_cvlans;
        external_ids: smap "external_ids" set_external_ids;
        fake_bridge: bool "fake_bridge" set_fake_bridge;
        interfaces: refs(Interface) "interfaces" set_interfaces;
        lacp: opt_str "lacp" set_lacp;
        mac: opt_str "mac" set_mac;
        name: str "name" set_name;
        other_config: smap "other_config" set_other_config;
        protected: bool "protected" set_protected;
        qos: opt(QoS) "qos" set_qos;
        rstp_statistics: datum "rstp_statistics" set_rstp_statistics;
        rstp_status: smap "rstp_status" set_rstp_status;
        statistics: datum "statistics" set_statistics;
        status: smap "status" set_status;
        tag: opt_int "tag" set_tag;
        trunks: ints "trunks" set_trunks;
        vlan_mode: opt_str "vlan_mode" set_vlan_mode;
    }

    /// A row of the `QoS` table.
    QoS QoSEdit "QoS" {
        external_ids: smap "external_ids" set_external_ids;
        other_config: smap "other_config" set_other_config;
        queues: int_refs(Queue) "queues" set_queues;
        type_: str "type" set_type;
    }

    /// A row of the `Queue` table.
    Queue QueueEdit "Queue" {
        dscp: opt_int "dscp" set_dscp;
        external_ids: smap "external_ids" set_external_ids;
        other_config: smap "other_config" set_other_config;
    }

    /// A row of the `SSL` table.
    SSL SSLEdit "SSL" {
        bootstrap_ca_cert: bool "bootstrap_ca_cert" set_bootstrap_ca_cert;
        ca_cert: str "ca_cert" set_ca_cert;
        certificate: str "certificate" set_certificate;
        external_ids: smap "external_ids" set_external_ids;
        private_key: str "private_key" set_private_key;
    }

    /// A row of the `sFlow` table.
    SFlow SFlowEdit "sFlow" {
        agent: opt_str "agent" set_agent;
        external_ids: smap "external_ids" set_external_ids;
        header: opt_int "header" set_header;
        polling: opt_int "polling" set_polling;
        sampling: opt_int "sampling" set_sampling;
        targets: strs "targets" set_targets;
    }
}
