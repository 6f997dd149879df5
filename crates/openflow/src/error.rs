//! OpenFlow errors: one name each, with the vendor, type and code by which each version reports it.
//!
//! The names are OpenFlow's (and Open vSwitch's, `NX*`). A version that lacks a code of its own reports Nicira's or the
//! nearest one. Source: the OpenFlow specifications' error enumerations and `ovs-ofctl print-error`.

use std::fmt;

use crate::message::Version;

const STD: u32 = 0;
/// Nicira's vendor id.
pub const NX: u32 = 0x2320;
/// ONF's experimenter id.
pub const ONF: u32 = 0x4f4e_4600;

macro_rules! errors {
    ($($name:ident = [$(($first:literal, $last:literal, $vendor:ident, $type:literal, $code:literal)),*];)*) => {
        /// What is wrong with a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs)] // OpenFlow's own names.
        #[repr(u16)]
        pub enum OfError {
            $($name),*
        }

        static ERRORS: &[(OfError, &str, &[(u8, u8, u32, u16, u16)])] = &[
            $((OfError::$name, stringify!($name), &[$(($first, $last, $vendor, $type, $code)),*])),*
        ];
    };
}

// Name = [(first wire version, last, vendor, type, code)].
errors! {
    OFPHFC_INCOMPATIBLE = [(1, 6, STD, 0, 0)];
    OFPHFC_EPERM = [(1, 6, STD, 0, 1)];
    OFPBRC_BAD_VERSION = [(1, 6, STD, 1, 0)];
    OFPBRC_BAD_TYPE = [(1, 6, STD, 1, 1)];
    OFPBRC_BAD_STAT = [(1, 6, STD, 1, 2)];
    OFPBRC_BAD_VENDOR = [(1, 6, STD, 1, 3)];
    OFPBRC_BAD_SUBTYPE = [(1, 6, STD, 1, 4)];
    OFPBRC_EPERM = [(1, 6, STD, 1, 5)];
    OFPBRC_BAD_LEN = [(1, 6, STD, 1, 6)];
    OFPBRC_BUFFER_EMPTY = [(1, 6, STD, 1, 7)];
    OFPBRC_BUFFER_UNKNOWN = [(1, 6, STD, 1, 8)];
    OFPBRC_BAD_TABLE_ID = [(1, 1, NX, 1, 512), (2, 6, STD, 1, 9)];
    OFPBRC_IS_SECONDARY = [(1, 2, STD, 1, 5), (3, 6, STD, 1, 10)];
    OFPBRC_BAD_PORT = [(1, 2, NX, 1, 514), (3, 6, STD, 1, 11)];
    OFPBRC_BAD_PACKET = [(3, 6, STD, 1, 12)];
    OFPBRC_MULTIPART_BUFFER_OVERFLOW = [(4, 6, STD, 1, 13)];
    OFPBRC_MULTIPART_REQUEST_TIMEOUT = [(4, 4, ONF, 2640, 0), (5, 6, STD, 1, 14)];
    OFPBRC_MULTIPART_REPLY_TIMEOUT = [(4, 4, ONF, 2641, 0), (5, 6, STD, 1, 15)];
    OFPBRC_MULTIPART_BAD_SCHED = [(6, 6, STD, 1, 16)];
    OFPBRC_PIPELINE_FIELDS_ONLY = [(6, 6, STD, 1, 17)];
    OFPBRC_UNKNOWN = [(6, 6, STD, 1, 18)];
    OFPBAC_BAD_TYPE = [(1, 6, STD, 2, 0)];
    OFPBAC_BAD_LEN = [(1, 6, STD, 2, 1)];
    OFPBAC_BAD_VENDOR = [(1, 6, STD, 2, 2)];
    OFPBAC_BAD_VENDOR_TYPE = [(1, 6, STD, 2, 3)];
    OFPBAC_BAD_OUT_PORT = [(1, 6, STD, 2, 4)];
    OFPBAC_BAD_ARGUMENT = [(1, 6, STD, 2, 5)];
    OFPBAC_EPERM = [(1, 6, STD, 2, 6)];
    OFPBAC_TOO_MANY = [(1, 6, STD, 2, 7)];
    OFPBAC_BAD_QUEUE = [(1, 6, STD, 2, 8)];
    OFPBAC_BAD_OUT_GROUP = [(1, 1, NX, 2, 9), (2, 6, STD, 2, 9)];
    OFPBAC_MATCH_INCONSISTENT = [(1, 1, NX, 1, 522), (2, 6, STD, 2, 10)];
    OFPBAC_UNSUPPORTED_ORDER = [(2, 6, STD, 2, 11)];
    OFPBAC_BAD_TAG = [(2, 6, STD, 2, 12)];
    OFPBAC_BAD_SET_TYPE = [(1, 2, NX, 1, 523), (3, 6, STD, 2, 13)];
    OFPBAC_BAD_SET_LEN = [(1, 2, NX, 1, 524), (3, 6, STD, 2, 14)];
    OFPBAC_BAD_SET_ARGUMENT = [(1, 2, NX, 1, 525), (3, 6, STD, 2, 15)];
    OFPBAC_BAD_SET_MASK = [(4, 5, ONF, 4250, 0), (6, 6, STD, 2, 16)];
    OFPBAC_BAD_METER = [(6, 6, STD, 2, 17)];
    OFPBIC_UNKNOWN_INST = [(2, 6, STD, 3, 0)];
    OFPBIC_UNSUP_INST = [(1, 1, NX, 2, 257), (2, 6, STD, 3, 1)];
    OFPBIC_BAD_TABLE_ID = [(2, 6, STD, 3, 2)];
    OFPBIC_UNSUP_METADATA = [(2, 6, STD, 3, 3)];
    OFPFMFC_BAD_EMERG_TIMEOUT = [(1, 1, STD, 3, 3)];
    OFPBIC_UNSUP_METADATA_MASK = [(2, 6, STD, 3, 4)];
    OFPBIC_BAD_EXPERIMENTER = [(2, 6, STD, 3, 5)];
    OFPFMFC_UNSUPPORTED = [(1, 1, STD, 3, 5)];
    OFPBIC_BAD_EXP_TYPE = [(2, 2, STD, 3, 5), (3, 6, STD, 3, 6)];
    OFPBIC_BAD_LEN = [(3, 6, STD, 3, 7)];
    OFPBIC_EPERM = [(3, 6, STD, 3, 8)];
    OFPBIC_DUP_INST = [(2, 2, NX, 3, 256), (3, 4, ONF, 2600, 0), (5, 6, STD, 3, 9)];
    OFPBMC_BAD_TYPE = [(2, 6, STD, 4, 0)];
    OFPBMC_BAD_LEN = [(2, 6, STD, 4, 1)];
    OFPBMC_BAD_TAG = [(2, 6, STD, 4, 2)];
    OFPBMC_BAD_DL_ADDR_MASK = [(2, 6, STD, 4, 3)];
    OFPBMC_BAD_NW_ADDR_MASK = [(2, 6, STD, 4, 4)];
    OFPBMC_BAD_WILDCARDS = [(1, 1, NX, 1, 262), (2, 6, STD, 4, 5)];
    OFPBMC_BAD_FIELD = [(1, 1, NX, 0, 263), (2, 6, STD, 4, 6)];
    OFPBMC_BAD_VALUE = [(1, 1, NX, 1, 258), (2, 6, STD, 4, 7)];
    OFPBMC_BAD_MASK = [(1, 2, NX, 1, 259), (3, 6, STD, 4, 8)];
    OFPBMC_BAD_PREREQ = [(1, 2, NX, 1, 260), (3, 6, STD, 4, 9)];
    OFPBMC_DUP_FIELD = [(1, 2, NX, 1, 261), (3, 6, STD, 4, 10)];
    OFPBMC_EPERM = [(3, 6, STD, 4, 11)];
    OFPFMFC_UNKNOWN = [(2, 6, STD, 5, 0)];
    OFPFMFC_TABLE_FULL = [(1, 1, STD, 3, 0), (2, 6, STD, 5, 1)];
    OFPFMFC_BAD_TABLE_ID = [(2, 6, STD, 5, 2)];
    OFPFMFC_OVERLAP = [(1, 1, STD, 3, 1), (2, 6, STD, 5, 3)];
    OFPFMFC_EPERM = [(1, 1, STD, 3, 2), (2, 6, STD, 5, 4)];
    OFPFMFC_BAD_TIMEOUT = [(2, 6, STD, 5, 5)];
    OFPFMFC_BAD_COMMAND = [(1, 1, STD, 3, 4), (2, 6, STD, 5, 6)];
    OFPFMFC_BAD_FLAGS = [(1, 1, NX, 3, 258), (2, 2, NX, 5, 258), (3, 6, STD, 5, 7)];
    OFPFMFC_CANT_SYNC = [(5, 6, STD, 5, 8)];
    OFPFMFC_BAD_PRIORITY = [(4, 4, ONF, 2360, 0), (5, 6, STD, 5, 9)];
    OFPFMFC_IS_SYNC = [(5, 6, STD, 5, 10)];
    OFPGMFC_GROUP_EXISTS = [(1, 1, NX, 6, 0), (2, 6, STD, 6, 0)];
    OFPGMFC_INVALID_GROUP = [(1, 1, NX, 6, 1), (2, 6, STD, 6, 1)];
    OFPGMFC_WEIGHT_UNSUPPORTED = [(1, 1, NX, 6, 2), (2, 6, STD, 6, 2)];
    OFPGMFC_OUT_OF_GROUPS = [(1, 1, NX, 6, 3), (2, 6, STD, 6, 3)];
    OFPGMFC_OUT_OF_BUCKETS = [(1, 1, NX, 6, 4), (2, 6, STD, 6, 4)];
    OFPGMFC_CHAINING_UNSUPPORTED = [(1, 1, NX, 6, 5), (2, 6, STD, 6, 5)];
    OFPGMFC_WATCH_UNSUPPORTED = [(1, 1, NX, 6, 6), (2, 6, STD, 6, 6)];
    OFPGMFC_LOOP = [(1, 1, NX, 6, 7), (2, 6, STD, 6, 7)];
    OFPGMFC_UNKNOWN_GROUP = [(1, 1, NX, 6, 8), (2, 6, STD, 6, 8)];
    OFPGMFC_CHAINED_GROUP = [(1, 1, NX, 6, 9), (3, 6, STD, 6, 9)];
    OFPGMFC_BAD_TYPE = [(1, 1, NX, 6, 10), (3, 6, STD, 6, 10)];
    OFPGMFC_BAD_COMMAND = [(1, 1, NX, 6, 11), (3, 6, STD, 6, 11)];
    OFPGMFC_BAD_BUCKET = [(1, 1, NX, 6, 12), (3, 6, STD, 6, 12)];
    OFPGMFC_BAD_WATCH = [(1, 1, NX, 6, 13), (3, 6, STD, 6, 13)];
    OFPGMFC_EPERM = [(1, 1, NX, 6, 14), (3, 6, STD, 6, 14)];
    OFPGMFC_UNKNOWN_BUCKET = [(1, 1, NX, 6, 15), (6, 6, STD, 6, 15)];
    OFPGMFC_BUCKET_EXISTS = [(1, 1, NX, 6, 16), (6, 6, STD, 6, 16)];
    OFPPMFC_BAD_PORT = [(1, 1, STD, 4, 0), (2, 6, STD, 7, 0)];
    OFPPMFC_BAD_HW_ADDR = [(1, 1, STD, 4, 1), (2, 6, STD, 7, 1)];
    OFPPMFC_BAD_CONFIG = [(2, 6, STD, 7, 2)];
    OFPPMFC_BAD_ADVERTISE = [(2, 6, STD, 7, 3)];
    OFPPMFC_EPERM = [(3, 6, STD, 7, 4)];
    OFPTMFC_BAD_TABLE = [(2, 6, STD, 8, 0)];
    OFPTMFC_BAD_CONFIG = [(2, 6, STD, 8, 1)];
    OFPTMFC_EPERM = [(3, 6, STD, 8, 2)];
    OFPQOFC_BAD_PORT = [(1, 1, STD, 5, 0), (2, 6, STD, 9, 0)];
    OFPQOFC_BAD_QUEUE = [(1, 1, STD, 5, 1), (2, 6, STD, 9, 1)];
    OFPQOFC_EPERM = [(1, 1, STD, 5, 2), (2, 6, STD, 9, 2)];
    OFPSCFC_BAD_FLAGS = [(2, 6, STD, 10, 0)];
    OFPSCFC_BAD_LEN = [(2, 6, STD, 10, 1)];
    OFPSCFC_EPERM = [(3, 6, STD, 10, 2)];
    OFPRRFC_STALE = [(3, 6, STD, 11, 0)];
    OFPRRFC_UNSUP = [(3, 6, STD, 11, 1)];
    OFPRRFC_BAD_ROLE = [(1, 2, NX, 1, 513), (3, 6, STD, 11, 2)];
    OFPRRFC_ID_UNSUP = [(6, 6, STD, 11, 3)];
    OFPRRFC_ID_IN_USE = [(6, 6, STD, 11, 4)];
    OFPMMFC_UNKNOWN = [(4, 6, STD, 12, 0)];
    OFPMMFC_METER_EXISTS = [(4, 6, STD, 12, 1)];
    OFPMMFC_INVALID_METER = [(4, 6, STD, 12, 2)];
    OFPMMFC_UNKNOWN_METER = [(4, 6, STD, 12, 3)];
    OFPMMFC_BAD_COMMAND = [(4, 6, STD, 12, 4)];
    OFPMMFC_BAD_FLAGS = [(4, 6, STD, 12, 5)];
    OFPMMFC_BAD_RATE = [(4, 6, STD, 12, 6)];
    OFPMMFC_BAD_BURST = [(4, 6, STD, 12, 7)];
    OFPMMFC_BAD_BAND = [(4, 6, STD, 12, 8)];
    OFPMMFC_BAD_BAND_VALUE = [(4, 6, STD, 12, 9)];
    OFPMMFC_OUT_OF_METERS = [(4, 6, STD, 12, 10)];
    OFPMMFC_OUT_OF_BANDS = [(4, 6, STD, 12, 11)];
    OFPTFFC_BAD_TABLE = [(4, 6, STD, 13, 0)];
    OFPTFFC_BAD_METADATA = [(4, 6, STD, 13, 1)];
    OFPTFFC_EPERM = [(4, 6, STD, 13, 5)];
    OFPTFFC_BAD_CAPA = [(6, 6, STD, 13, 6)];
    OFPTFFC_BAD_MAX_ENT = [(6, 6, STD, 13, 7)];
    OFPTFFC_BAD_FEATURES = [(6, 6, STD, 13, 8)];
    OFPTFFC_BAD_COMMAND = [(6, 6, STD, 13, 9)];
    OFPTFFC_TOO_MANY = [(6, 6, STD, 13, 10)];
    OFPBPC_BAD_TYPE = [(1, 2, NX, 13, 2), (3, 3, NX, 25, 0), (4, 4, STD, 13, 2), (5, 6, STD, 14, 0)];
    OFPBPC_BAD_LEN = [(1, 2, NX, 13, 3), (3, 3, NX, 26, 0), (4, 4, STD, 13, 3), (5, 6, STD, 14, 1)];
    OFPBPC_BAD_VALUE = [(1, 2, NX, 13, 4), (3, 3, NX, 27, 0), (4, 4, STD, 13, 4), (5, 6, STD, 14, 2)];
    OFPBPC_TOO_MANY = [(1, 2, NX, 14, 3), (3, 3, NX, 28, 0), (4, 4, ONF, 4443, 0), (5, 6, STD, 14, 3)];
    OFPBPC_DUP_TYPE = [(1, 2, NX, 14, 4), (3, 3, NX, 29, 0), (4, 4, ONF, 4444, 0), (5, 6, STD, 14, 4)];
    OFPBPC_BAD_EXPERIMENTER = [(1, 2, NX, 14, 5), (3, 3, NX, 30, 0), (4, 4, ONF, 4445, 0), (5, 6, STD, 14, 5)];
    OFPBPC_BAD_EXP_TYPE = [(1, 2, NX, 14, 6), (3, 3, NX, 31, 0), (4, 4, ONF, 4446, 0), (5, 6, STD, 14, 6)];
    OFPBPC_BAD_EXP_VALUE = [(1, 2, NX, 14, 7), (3, 3, NX, 32, 0), (4, 4, ONF, 4447, 0), (5, 6, STD, 14, 7)];
    OFPBPC_EPERM = [(1, 2, NX, 14, 8), (3, 3, NX, 33, 0), (4, 4, ONF, 4448, 0), (5, 6, STD, 14, 8)];
    OFPACFC_INVALID = [(4, 4, ONF, 2370, 0), (5, 6, STD, 15, 0)];
    OFPACFC_UNSUPPORTED = [(4, 4, ONF, 2371, 0), (5, 6, STD, 15, 1)];
    OFPACFC_EPERM = [(4, 4, ONF, 2372, 0), (5, 6, STD, 15, 2)];
    OFPMOFC_UNKNOWN = [(5, 6, STD, 16, 0)];
    OFPMOFC_MONITOR_EXISTS = [(1, 2, NX, 1, 517), (3, 4, NX, 6, 0), (5, 6, STD, 16, 1)];
    OFPMOFC_INVALID_MONITOR = [(5, 6, STD, 16, 2)];
    OFPMOFC_UNKNOWN_MONITOR = [(1, 2, NX, 1, 519), (3, 4, NX, 8, 0), (5, 6, STD, 16, 3)];
    OFPMOFC_BAD_COMMAND = [(5, 6, STD, 16, 4)];
    OFPMOFC_BAD_FLAGS = [(1, 2, NX, 1, 518), (3, 4, NX, 7, 0), (5, 6, STD, 16, 5)];
    OFPMOFC_BAD_TABLE_ID = [(5, 6, STD, 16, 6)];
    OFPMOFC_BAD_OUT = [(5, 6, STD, 16, 7)];
    OFPBFC_UNKNOWN = [(4, 4, ONF, 2300, 0), (5, 6, STD, 17, 0)];
    OFPBFC_EPERM = [(4, 4, ONF, 2301, 0), (5, 6, STD, 17, 1)];
    OFPBFC_BAD_ID = [(4, 4, ONF, 2302, 0), (5, 6, STD, 17, 2)];
    OFPBFC_BUNDLE_EXIST = [(4, 4, ONF, 2303, 0), (5, 6, STD, 17, 3)];
    OFPBFC_BUNDLE_CLOSED = [(4, 4, ONF, 2304, 0), (5, 6, STD, 17, 4)];
    OFPBFC_OUT_OF_BUNDLES = [(4, 4, ONF, 2305, 0), (5, 6, STD, 17, 5)];
    OFPBFC_BAD_TYPE = [(4, 4, ONF, 2306, 0), (5, 6, STD, 17, 6)];
    OFPBFC_BAD_FLAGS = [(4, 4, ONF, 2307, 0), (5, 6, STD, 17, 7)];
    OFPBFC_MSG_BAD_LEN = [(4, 4, ONF, 2308, 0), (5, 6, STD, 17, 8)];
    OFPBFC_MSG_BAD_XID = [(4, 4, ONF, 2309, 0), (5, 6, STD, 17, 9)];
    OFPBFC_MSG_UNSUP = [(4, 4, ONF, 2310, 0), (5, 6, STD, 17, 10)];
    OFPBFC_MSG_CONFLICT = [(4, 4, ONF, 2311, 0), (5, 6, STD, 17, 11)];
    OFPBFC_MSG_TOO_MANY = [(4, 4, ONF, 2312, 0), (5, 6, STD, 17, 12)];
    OFPBFC_MSG_FAILED = [(4, 4, ONF, 2313, 0), (5, 6, STD, 17, 13)];
    OFPBFC_TIMEOUT = [(4, 4, ONF, 2314, 0), (5, 6, STD, 17, 14)];
    OFPBFC_BUNDLE_IN_PROGRESS = [(4, 4, ONF, 2315, 0), (5, 6, STD, 17, 15)];
    OFPBFC_SCHED_NOT_SUPPORTED = [(6, 6, STD, 17, 16)];
    OFPBFC_SCHED_FUTURE = [(6, 6, STD, 17, 17)];
    OFPBFC_SCHED_PAST = [(6, 6, STD, 17, 18)];
    NXBRC_NXM_INVALID = [(1, 2, NX, 1, 256), (3, 6, NX, 2, 0)];
    NXBRC_NXM_BAD_TYPE = [(1, 2, NX, 1, 257), (3, 6, NX, 3, 0)];
    NXBRC_MUST_BE_ZERO = [(1, 2, NX, 1, 515), (3, 6, NX, 4, 0)];
    NXBRC_BAD_REASON = [(1, 2, NX, 1, 516), (3, 6, NX, 5, 0)];
    NXBRC_FM_BAD_EVENT = [(1, 2, NX, 1, 520), (3, 6, NX, 9, 0)];
    NXBRC_UNENCODABLE_ERROR = [(1, 2, NX, 1, 521), (3, 6, NX, 10, 0)];
    NXBAC_MUST_BE_ZERO = [(1, 2, NX, 2, 256), (3, 6, NX, 11, 0)];
    NXFMFC_HARDWARE = [(1, 2, NX, 5, 256), (3, 6, NX, 12, 0)];
    NXFMFC_BAD_TABLE_ID = [(1, 2, NX, 5, 257), (3, 6, NX, 13, 0)];
    NXBAC_BAD_CONJUNCTION = [(1, 2, NX, 2, 526), (3, 6, NX, 15, 0)];
    NXTTMFC_BAD_COMMAND = [(1, 2, NX, 1, 527), (3, 6, NX, 16, 0)];
    NXTTMFC_BAD_OPT_LEN = [(1, 2, NX, 1, 528), (3, 6, NX, 17, 0)];
    NXTTMFC_BAD_FIELD_IDX = [(1, 2, NX, 1, 529), (3, 6, NX, 18, 0)];
    NXTTMFC_TABLE_FULL = [(1, 2, NX, 1, 530), (3, 6, NX, 19, 0)];
    NXTTMFC_ALREADY_MAPPED = [(1, 2, NX, 1, 531), (3, 6, NX, 20, 0)];
    NXTTMFC_DUP_ENTRY = [(1, 2, NX, 1, 532), (3, 6, NX, 21, 0)];
    OFPBFC_BAD_VERSION = [(5, 6, NX, 22, 0)];
    NXQOFC_QUEUE_ERROR = [(5, 6, NX, 23, 0)];
    NXST_NOT_CONFIGURED = [(1, 2, NX, 1, 535), (3, 6, NX, 36, 0)];
    NXFMFC_INVALID_TLV_FIELD = [(1, 2, NX, 1, 536), (3, 6, NX, 37, 0)];
    NXTTMFC_INVALID_TLV_DEL = [(1, 2, NX, 1, 537), (3, 6, NX, 38, 0)];
    NXBAC_BAD_HEADER_TYPE = [(4, 6, NX, 39, 0)];
    NXBAC_UNKNOWN_ED_PROP = [(4, 6, NX, 40, 0)];
    NXBAC_BAD_ED_PROP = [(4, 6, NX, 41, 0)];
    NXBAC_CT_DATAPATH_SUPPORT = [(1, 2, NX, 1, 265), (3, 6, NX, 42, 0)];
    NXBMC_CT_DATAPATH_SUPPORT = [(1, 2, NX, 1, 264), (3, 6, NX, 43, 0)];
    NXTFFC_DUP_TABLE = [(4, 6, NX, 44, 0)];
    NXR_NOT_SUPPORTED = [(1, 2, NX, 1, 533), (3, 6, NX, 34, 0)];
    NXR_STALE = [(1, 2, NX, 1, 534), (3, 6, NX, 35, 0)];
}

impl OfError {
    /// `OFPBRC_BAD_LEN`.
    pub fn name(self) -> &'static str {
        ERRORS[self as usize].1
    }
    /// From `OFPBRC_BAD_LEN`, in either case.
    pub fn from_name(name: &str) -> Option<OfError> {
        ERRORS.iter().find(|(_, n, _)| n.eq_ignore_ascii_case(name)).map(|(e, _, _)| *e)
    }
    /// Vendor (0: none), type and code by which `version` reports it; `None` if that version cannot.
    pub fn code(self, version: Version) -> Option<(u32, u16, u16)> {
        let v = version.to_wire();
        ERRORS[self as usize].2.iter().find(|r| (r.0..=r.1).contains(&v)).map(|r| (r.2, r.3, r.4))
    }
    /// The error that `version` reports so.
    pub fn from_code(version: Version, vendor: u32, kind: u16, code: u16) -> Option<OfError> {
        let v = version.to_wire();
        let hit =
            |r: &(u8, u8, u32, u16, u16)| (r.0..=r.1).contains(&v) && (r.2, r.3, r.4) == (vendor, kind, code);
        // Where several share a code, the first is the one that later versions keep it for.
        ERRORS.iter().find(|e| e.2.iter().any(hit)).map(|e| e.0)
    }
}

impl fmt::Display for OfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for OfError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_version() {
        let e = OfError::OFPBRC_BAD_TABLE_ID;
        assert_eq!(e.code(Version::V10), Some((NX, 1, 512)));
        assert_eq!(e.code(Version::V13), Some((0, 1, 9)));
        assert_eq!(OfError::from_code(Version::V13, 0, 1, 9), Some(e));
        assert_eq!(OfError::from_name("ofpbrc_bad_table_id"), Some(e));
        assert_eq!(OfError::from_code(Version::V10, 0, 1, 5), Some(OfError::OFPBRC_EPERM));
    }
}
