//! Feature bits: of virtio and its network device (virtio 1.2, 5.1.3 and 6), and of the vhost-user protocol.

/// The device computes partial checksums.
pub const NET_F_CSUM: u64 = 1 << 0;
/// The driver takes packets with partial checksums.
pub const NET_F_GUEST_CSUM: u64 = 1 << 1;
/// The device tells its MTU.
pub const NET_F_MTU: u64 = 1 << 3;
/// The driver takes TCP super-frames over IPv4.
pub const NET_F_GUEST_TSO4: u64 = 1 << 7;
/// The driver takes TCP super-frames over IPv6.
pub const NET_F_GUEST_TSO6: u64 = 1 << 8;
/// The driver takes TCP super-frames with congestion notification.
pub const NET_F_GUEST_ECN: u64 = 1 << 9;
/// The device takes TCP super-frames over IPv4.
pub const NET_F_HOST_TSO4: u64 = 1 << 11;
/// The device takes TCP super-frames over IPv6.
pub const NET_F_HOST_TSO6: u64 = 1 << 12;
/// The device takes TCP super-frames with congestion notification.
pub const NET_F_HOST_ECN: u64 = 1 << 13;
/// A packet to the driver may fill several buffers.
pub const NET_F_MRG_RXBUF: u64 = 1 << 15;
/// There is a control queue; the front-end serves it.
pub const NET_F_CTRL_VQ: u64 = 1 << 17;
/// Reception modes by the control queue; the front-end heeds them.
pub const NET_F_CTRL_RX: u64 = 1 << 18;
/// The driver announces itself after a migration.
pub const NET_F_GUEST_ANNOUNCE: u64 = 1 << 21;
/// Several pairs of queues.
pub const NET_F_MQ: u64 = 1 << 22;
/// The driver takes UDP super-frames over IPv4.
pub const NET_F_GUEST_USO4: u64 = 1 << 54;
/// The driver takes UDP super-frames over IPv6.
pub const NET_F_GUEST_USO6: u64 = 1 << 55;
/// The device takes UDP super-frames.
pub const NET_F_HOST_USO: u64 = 1 << 56;

/// The back-end marks memory that it writes in the dirty log.
pub const F_LOG_ALL: u64 = 1 << 26;
/// The driver is told of the last buffer even if it asked not to be.
pub const F_NOTIFY_ON_EMPTY: u64 = 1 << 24;
/// Headers may lie anywhere in a chain (legacy devices).
pub const F_ANY_LAYOUT: u64 = 1 << 27;
/// Tables of descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Notification by index.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// vhost-user: there are protocol features, and rings begin disabled.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// Not a legacy device.
pub const F_VERSION_1: u64 = 1 << 32;

/// What we offer.
pub const OFFERED: u64 = NET_F_CSUM
    | NET_F_GUEST_CSUM
    | NET_F_MTU
    | NET_F_GUEST_TSO4
    | NET_F_GUEST_TSO6
    | NET_F_GUEST_ECN
    | NET_F_HOST_TSO4
    | NET_F_HOST_TSO6
    | NET_F_HOST_ECN
    | NET_F_MRG_RXBUF
    | NET_F_CTRL_VQ
    | NET_F_CTRL_RX
    | NET_F_GUEST_ANNOUNCE
    | NET_F_MQ
    | NET_F_GUEST_USO4
    | NET_F_GUEST_USO6
    | NET_F_HOST_USO
    | F_LOG_ALL
    | F_NOTIFY_ON_EMPTY
    | F_ANY_LAYOUT
    | F_INDIRECT_DESC
    | F_EVENT_IDX
    | F_PROTOCOL_FEATURES
    | F_VERSION_1;

/// Several queues (`GET_QUEUE_NUM`, `SET_VRING_ENABLE`).
pub const PROTOCOL_MQ: u64 = 1 << 0;
/// The dirty log comes as a descriptor.
pub const PROTOCOL_LOG_SHMFD: u64 = 1 << 1;
/// `SEND_RARP`.
pub const PROTOCOL_RARP: u64 = 1 << 2;
/// Any request may ask for an answer.
pub const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
/// `NET_SET_MTU`.
pub const PROTOCOL_NET_MTU: u64 = 1 << 4;
/// Buffers under way are recorded in shared memory.
pub const PROTOCOL_INFLIGHT_SHMFD: u64 = 1 << 12;
/// `RESET_DEVICE`.
pub const PROTOCOL_RESET_DEVICE: u64 = 1 << 13;
/// Memory regions come and go one by one.
pub const PROTOCOL_CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
/// `SET_STATUS`, `GET_STATUS`.
pub const PROTOCOL_STATUS: u64 = 1 << 16;

/// What we offer.
pub const PROTOCOL_OFFERED: u64 = PROTOCOL_MQ
    | PROTOCOL_LOG_SHMFD
    | PROTOCOL_RARP
    | PROTOCOL_REPLY_ACK
    | PROTOCOL_NET_MTU
    | PROTOCOL_INFLIGHT_SHMFD
    | PROTOCOL_RESET_DEVICE
    | PROTOCOL_CONFIGURE_MEM_SLOTS
    | PROTOCOL_STATUS;
