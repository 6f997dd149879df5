//! The table of log modules.
//!
//! One row a module: the constant, the name that `vlog/list` shows, and in whose list it appears (`S` the switch,
//! `D` the database server, `B` both, `T` tools only). Every module can be set in every program; the letter only keeps
//! `vlog/list` to what the program has. Rows are sorted by name, because the lists are.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::{Destination, Level};

/// In whose `vlog/list` a module appears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// ovs-vswitchd.
    S,
    /// ovsdb-server.
    D,
    /// Both daemons.
    B,
    /// Tools.
    T,
}

/// A log module: a name with a level for each destination.
#[derive(Debug)]
pub struct Module {
    name: &'static str,
    listing: Listing,
    levels: [AtomicU8; 3],
    /// The most verbose of the levels in force, those of destinations that lead nowhere left out.
    effective: AtomicU8,
    honor_rate_limits: AtomicBool,
}

impl Module {
    const fn new(name: &'static str, listing: Listing) -> Module {
        Module {
            name,
            listing,
            // Console and syslog wish INFO, file too: the defaults before any option is read.
            levels: [
                AtomicU8::new(Level::Info as u8),
                AtomicU8::new(Level::Info as u8),
                AtomicU8::new(Level::Info as u8),
            ],
            effective: AtomicU8::new(Level::Info as u8),
            honor_rate_limits: AtomicBool::new(true),
        }
    }

    /// The name in `vlog/list`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// In whose list the module appears.
    pub fn listing(&self) -> Listing {
        self.listing
    }

    /// Whether a message of `level` would reach any destination. One relaxed load: call it before formatting.
    #[inline]
    pub fn enabled(&self, level: Level) -> bool {
        level as u8 <= self.effective.load(Ordering::Relaxed)
    }

    /// The level set for `destination`.
    pub fn level(&self, destination: Destination) -> Level {
        Level::from_u8(self.levels[destination as usize].load(Ordering::Relaxed))
    }

    pub(super) fn set_level(&self, destination: Destination, level: Level) {
        self.levels[destination as usize].store(level as u8, Ordering::Relaxed);
    }

    /// Recomputes what [`Module::enabled`] answers; `open` tells which destinations lead somewhere.
    pub(super) fn refresh(&self, open: [bool; 3]) {
        let most = (0..3)
            .filter(|i| open[*i])
            .map(|i| self.levels[i].load(Ordering::Relaxed))
            .max()
            .unwrap_or(Level::Off as u8);
        self.effective.store(most, Ordering::Relaxed);
    }

    /// Whether rate limits apply to this module.
    pub fn honors_rate_limits(&self) -> bool {
        self.honor_rate_limits.load(Ordering::Relaxed)
    }

    pub(super) fn set_honor_rate_limits(&self, honor: bool) {
        self.honor_rate_limits.store(honor, Ordering::Relaxed);
    }
}

/// The module called `name`, in any case.
pub fn by_name(name: &str) -> Option<&'static Module> {
    MODULES.iter().find(|m| m.name.eq_ignore_ascii_case(name)).copied()
}

macro_rules! modules {
    ($($id:ident $name:literal $listing:ident,)*) => {
        $(
            #[doc = concat!("Module `", $name, "`.")]
            pub static $id: Module = Module::new($name, Listing::$listing);
        )*
        /// All modules, by name.
        pub static MODULES: &[&Module] = &[$(&$id),*];
    };
}

modules! {
    BACKTRACE "backtrace" B,
    BFD "bfd" S,
    BOND "bond" S,
    BRIDGE "bridge" S,
    BUNDLE "bundle" B,
    BUNDLES "bundles" S,
    CFM "cfm" S,
    COLLECTORS "collectors" S,
    COMMAND_LINE "command_line" B,
    CONNMGR "connmgr" S,
    CONNTRACK "conntrack" B,
    CONNTRACK_TP "conntrack_tp" B,
    CONTROLLER "controller" T,
    COOPERATIVE_MULTITASKING "cooperative_multitasking" B,
    COVERAGE "coverage" B,
    CT_DPIF "ct_dpif" B,
    DAEMON "daemon" S,
    DAEMON_UNIX "daemon_unix" B,
    DB_CTL_BASE "db_ctl_base" T,
    DNS_RESOLVE "dns_resolve" B,
    DPCTL "dpctl" S,
    DPDK "dpdk" B,
    DPIF "dpif" B,
    DPIF_LOOKUP_AUTOVALIDATOR "dpif_lookup_autovalidator" B,
    DPIF_LOOKUP_GENERIC "dpif_lookup_generic" B,
    DPIF_MFEX_EXTRACT_STUDY "dpif_mfex_extract_study" B,
    DPIF_NETDEV "dpif_netdev" B,
    DPIF_NETDEV_EXTRACT "dpif_netdev_extract" B,
    DPIF_NETDEV_IMPL "dpif_netdev_impl" B,
    DPIF_NETDEV_LOOKUP "dpif_netdev_lookup" B,
    DPIF_NETLINK "dpif_netlink" B,
    DPIF_NETLINK_RTNL "dpif_netlink_rtnl" B,
    DPIF_OFFLOAD "dpif_offload" B,
    DPIF_OFFLOAD_DUMMY "dpif_offload_dummy" B,
    DPIF_OFFLOAD_TC "dpif_offload_tc" B,
    ENTROPY "entropy" B,
    FAIL_OPEN "fail_open" S,
    FATAL_SIGNAL "fatal_signal" B,
    FLOW "flow" B,
    HMAP "hmap" B,
    IN_BAND "in_band" S,
    IPF "ipf" B,
    IPFIX "ipfix" S,
    JSONRPC "jsonrpc" B,
    LACP "lacp" S,
    LLDP "lldp" S,
    LLDPD "lldpd" S,
    LLDPD_STRUCTS "lldpd_structs" S,
    LOCKFILE "lockfile" B,
    MAC_LEARNING "mac_learning" S,
    MCAST_SNOOPING "mcast_snooping" S,
    MEMORY "memory" B,
    META_FLOW "meta_flow" B,
    NATIVE_TNL "native_tnl" B,
    NETDEV "netdev" B,
    NETDEV_AFXDP "netdev_afxdp" B,
    NETDEV_DUMMY "netdev_dummy" S,
    NETDEV_LINUX "netdev_linux" B,
    NETDEV_OFFLOAD "netdev_offload" B,
    NETDEV_OFFLOAD_TC "netdev_offload_tc" B,
    NETDEV_VPORT "netdev_vport" B,
    NETFLOW "netflow" S,
    NETLINK "netlink" B,
    NETLINK_CONNTRACK "netlink_conntrack" B,
    NETLINK_NOTIFIER "netlink_notifier" B,
    NETLINK_SOCKET "netlink_socket" B,
    NX_MATCH "nx_match" B,
    ODP_EXECUTE "odp_execute" B,
    ODP_EXECUTE_IMPL "odp_execute_impl" B,
    ODP_UTIL "odp_util" B,
    OFCTL "ofctl" T,
    OFP_ACTIONS "ofp_actions" B,
    OFP_BUNDLE "ofp_bundle" B,
    OFP_CONNECTION "ofp_connection" B,
    OFP_ERRORS "ofp_errors" B,
    OFP_FLOW "ofp_flow" B,
    OFP_GROUP "ofp_group" B,
    OFP_MATCH "ofp_match" B,
    OFP_METER "ofp_meter" B,
    OFP_MONITOR "ofp_monitor" B,
    OFP_MSGS "ofp_msgs" B,
    OFP_PACKET "ofp_packet" B,
    OFP_PORT "ofp_port" B,
    OFP_PROTOCOL "ofp_protocol" B,
    OFP_QUEUE "ofp_queue" B,
    OFP_TABLE "ofp_table" B,
    OFP_UTIL "ofp_util" B,
    OFPROTO "ofproto" S,
    OFPROTO_DPIF "ofproto_dpif" S,
    OFPROTO_DPIF_MIRROR "ofproto_dpif_mirror" S,
    OFPROTO_DPIF_MONITOR "ofproto_dpif_monitor" S,
    OFPROTO_DPIF_RID "ofproto_dpif_rid" S,
    OFPROTO_DPIF_UPCALL "ofproto_dpif_upcall" S,
    OFPROTO_DPIF_XLATE "ofproto_dpif_xlate" S,
    OFPROTO_XLATE_CACHE "ofproto_xlate_cache" S,
    OVS_LLDP "ovs_lldp" S,
    OVS_NUMA "ovs_numa" B,
    OVS_RCU "ovs_rcu" B,
    OVS_REPLAY "ovs_replay" B,
    OVS_ROUTER "ovs_router" B,
    OVS_THREAD "ovs_thread" B,
    OVSDB "ovsdb" D,
    OVSDB_CLIENT "ovsdb_client" T,
    OVSDB_CS "ovsdb_cs" B,
    OVSDB_ERROR "ovsdb_error" B,
    OVSDB_FILE "ovsdb_file" D,
    OVSDB_IDL "ovsdb_idl" B,
    OVSDB_JSONRPC_SERVER "ovsdb_jsonrpc_server" D,
    OVSDB_LOG "ovsdb_log" D,
    OVSDB_MONITOR "ovsdb_monitor" D,
    OVSDB_RBAC "ovsdb_rbac" D,
    OVSDB_SERVER "ovsdb_server" D,
    OVSDB_TOOL "ovsdb_tool" T,
    OVSDB_UTIL "ovsdb_util" D,
    OX_STAT "ox_stat" B,
    PCAP "pcap" S,
    PMD_PERF "pmd_perf" B,
    POLL_LOOP "poll_loop" B,
    PROCESS "process" B,
    RAFT "raft" D,
    RAFT_RPC "raft_rpc" D,
    RCONN "rconn" S,
    RECONNECT "reconnect" B,
    RELAY "relay" D,
    REPLICATION "replication" D,
    ROUTE_TABLE "route_table" B,
    RSTP "rstp" S,
    RSTP_SM "rstp_sm" S,
    SFLOW "sflow" S,
    SHA1 "sha1" B,
    SIGNALS "signals" B,
    SOCKET_UTIL "socket_util" B,
    SOCKET_UTIL_UNIX "socket_util_unix" B,
    STORAGE "storage" D,
    STP "stp" S,
    STREAM "stream" B,
    STREAM_FD "stream_fd" B,
    STREAM_REPLAY "stream_replay" B,
    STREAM_SSL "stream_ssl" B,
    STREAM_TCP "stream_tcp" B,
    STREAM_UNIX "stream_unix" B,
    SVEC "svec" B,
    SYSTEM_STATS "system_stats" S,
    TC "tc" B,
    TIMEVAL "timeval" B,
    TRANSACTION "transaction" D,
    TRANSACTION_FORWARD "transaction_forward" D,
    TRIGGER "trigger" D,
    TUNNEL "tunnel" S,
    UNIXCTL "unixctl" B,
    USERSPACE_TSO "userspace_tso" B,
    UTIL "util" B,
    UUID "uuid" B,
    VCONN "vconn" S,
    VCONN_STREAM "vconn_stream" S,
    VLOG "vlog" B,
    VSCTL "vsctl" T,
    VSWITCHD "vswitchd" S,
    VTEP_CTL "vtep_ctl" T,
}
