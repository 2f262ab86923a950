//! Every bound in one file, units in the names.

// --- net ---

/// Largest message on an admission stream.
pub const ADMISSION_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Largest message on a control stream.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Largest message on an input stream.
pub const INPUT_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Largest message on a screen stream.
pub const SCREEN_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that may wait to be written on an admission stream; a whole membership log fits.
pub const ADMISSION_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that may wait to be written on a control stream.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that may wait to be written on an input stream.
pub const INPUT_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Bytes that may wait to be written on a screen stream; its writer waits for room besides.
pub const SCREEN_QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Streams that a peer may have open on one connection, per lane.
pub const INBOUND_STREAMS_PER_LANE_MAX: usize = 16;
/// Admission streams that a peer may have open on one connection.
pub const INBOUND_ADMISSION_STREAMS_MAX: usize = 2;
/// Streams that a peer may have opened on one connection and the engine has not yet heard of.
pub const UNSEEN_STREAMS_MAX: usize = 64;
/// Messages of one stream that may wait for the engine; past it the stream is not read.
pub const STREAM_BACKLOG_MESSAGES_MAX: usize = 32;
/// Bytes of one stream that may wait for the engine before it is no longer read.
pub const STREAM_BACKLOG_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a peer who connected to us may say before its key is a member's.
pub const UNPROVEN_INBOUND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that a peer whom we dialled may say on a connection without a member's lanes.
pub const UNPROVEN_OUTBOUND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Inbound connections of strangers at once.
pub const UNPROVEN_CONNECTIONS_MAX: usize = 32;
/// Inbound connections of one stranger at once.
pub const UNPROVEN_CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Inbound connections of strangers from one address, handshakes included; loopback is exempt.
pub const UNPROVEN_CONNECTIONS_PER_IP_MAX: usize = 16;
/// Inbound handshakes at once.
pub const PENDING_CONNECTIONS_MAX: usize = 64;
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections of one member at once.
pub const CONNECTIONS_PER_MEMBER_MAX: usize = 8;
/// Addresses of one dial.
pub const DIAL_ADDRESSES_MAX: usize = 8;
/// Requests that may wait for the network's task.
pub const NET_REQUESTS_MAX: usize = 1024;
/// Largest gossip message.
pub const GOSSIP_MESSAGE_BYTES_MAX: usize = 60 * 1024;
/// Gossip messages accepted into the caches in a second, from all neighbours together.
pub const GOSSIP_MESSAGES_PER_SECOND_MAX: usize = 4_000;
/// Bytes of gossip accepted into the caches in a second, from all neighbours together.
pub const GOSSIP_BYTES_PER_SECOND_MAX: usize = 32 * 1024 * 1024;
/// Gossip packets that one connection may carry in a second before it is closed.
pub const GOSSIP_PACKETS_PER_SECOND_MAX: u32 = 2_000;
/// Gossip messages that may wait for the engine.
pub const GOSSIP_BACKLOG_MAX: usize = 512;
/// Gossip messages that may wait for a verdict.
pub const GOSSIP_UNJUDGED_MAX: usize = 1024;
/// Own gossip messages that wait for a neighbour.
pub const GOSSIP_UNSENT_MAX: usize = 64;
/// Seconds that an own gossip message waits for a neighbour.
pub const GOSSIP_UNSENT_SECONDS_MAX: u32 = 5;
/// Topics that a neighbour may take part in.
pub const GOSSIP_TOPICS_PER_PEER_MAX: usize = 64;
/// Peers that multicast DNS is remembered for.
pub const MDNS_PEERS_MAX: usize = 256;
/// Addresses that multicast DNS is remembered for, per peer.
pub const MDNS_ADDRESSES_PER_PEER_MAX: usize = 8;
