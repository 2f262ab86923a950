//! Every bound in one file, units last in the names; relations between them hold at compile time.

use std::time::Duration;

use crate::engine::timers::ms;

/// Version of the protocol between nodes.
pub const PROTOCOL_VERSION: u16 = 1;

// --- connections ---

/// Addresses of one peer that are dialled or kept.
pub const ADDRS_PER_PEER_MAX: usize = 8;
/// Dials a minute, all peers together.
pub const DIALS_PER_MINUTE_MAX: usize = 30;
/// Pause before the first redial; doubled with each failure.
pub const REDIAL_FIRST: Duration = ms(200);
/// Longest pause between dials of one peer.
pub const REDIAL_LONGEST: Duration = ms(30_000);
/// How long the peer with the greater key leaves dialling to the other.
pub const DIAL_COURTESY: Duration = ms(400);
/// An unproven connection lives so long.
pub const UNPROVEN: Duration = ms(5_000);
/// A newcomer waits for a person so long.
pub const APPROVAL: Duration = ms(120_000);
/// A member's connection without hello lives so long.
pub const HELLO: Duration = ms(1_500);
/// Pause between heartbeats.
pub const HEARTBEAT: Duration = ms(1_000);
/// A peer silent for so long is dead.
pub const PEER_DEAD: Duration = ms(3_000);
/// Everybody is connected to everybody up to so many members.
pub const FULL_MESH_MEMBERS_MAX: usize = 12;
/// Neighbours kept in a larger session.
pub const NEIGHBOURS: usize = 10;
/// Peers whose addresses are kept while joining.
pub const CANDIDATES_MAX: usize = 64;

// --- catch-up ---

/// After the last change of a burst, neighbours compare vectors.
pub const COMPARE_AFTER: Duration = ms(150);
/// An unanswered request for entries goes to somebody else.
pub const FETCH_TIMEOUT: Duration = ms(3_000);
/// Bytes of entries in one answer.
pub const FETCH_BYTES_MAX: usize = 128 * 1024;
/// Logs named in one request.
pub const FETCH_LOGS_MAX: usize = 64;
/// Message on the control stream.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Entries that go out whole by gossip; of larger ones only the header does.
pub const GOSSIP_WHOLE_BYTES_MAX: usize = 32 * 1024;

// --- presence ---

/// Pause between own heartbeats.
pub const PRESENCE_HEARTBEAT: Duration = ms(3_000);
/// Heartbeats that a presence outlives.
pub const PRESENCE_HEARTBEATS_TO_LIVE: u32 = 3;
/// Shortest pause between two presence messages.
pub const PRESENCE_INTERVAL: Duration = ms(100);
/// Members up to which heartbeats keep their pace.
pub const PRESENCE_MEMBERS_FULL_PACE: usize = 64;
/// Nothing done for so long: idle.
pub const IDLE_AFTER: Duration = ms(120_000);
/// Nothing done for so long: away.
pub const AWAY_AFTER: Duration = ms(600_000);

// --- members ---

/// Members of a session.
pub const MEMBERS_MAX: usize = 1_024;
/// Newcomers that wait for a person at one node.
pub const WAITING_MAX: usize = 8;

// --- screens ---

/// Children that a node serves with one terminal's screen.
pub const SCREEN_CHILDREN_MAX: usize = 8;
/// Shortest pause between two frames.
pub const FRAME_INTERVAL: Duration = ms(8);
/// Pause between frames while a child is behind.
pub const FRAME_INTERVAL_BEHIND: Duration = ms(33);
/// Updates under way to a child.
pub const SCREEN_UNACKED_MAX: usize = 8;
/// Bytes of updates under way to a child, beside the first.
pub const SCREEN_UNACKED_BYTES_MAX: usize = 32 * 1024;
/// A picture older than the host's newest by so much is stale, and a silent parent is left.
pub const PICTURE_STALE: Duration = ms(2_000);
/// Pause before attaching again.
pub const ATTACH_RETRY: Duration = ms(250);

// --- views ---

/// Messages in a view.
pub const VIEW_MESSAGES_MAX: usize = 200;
/// Notices in a view.
pub const VIEW_NOTICES_MAX: usize = 16;

// --- keys, tickets, statements, membership ---

/// Characters of a ticket's text, white space and command line around it included.
pub const TICKET_BYTES_MAX: usize = 8 * 1024;
/// Addresses that a ticket carries.
pub const TICKET_ADDRESSES_MAX: usize = 16;
/// One address as text.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// A signed statement: a kick that keeps 1,024 members and wraps a new epoch fits.
pub const STATEMENT_BYTES_MAX: usize = 64 * 1024;
/// Membership heads that one statement or envelope names.
pub const MEMBERSHIP_HEADS_MAX: usize = 64;
/// Grants between the one in the log and the one that a ticket's seed belongs to.
pub const GRANT_CHAIN_MAX: usize = 4;
/// One signed grant inside a ticket or an admission.
pub const GRANT_BYTES_MAX: usize = 4 * 1024;
/// Sponsors that a grant names one by one.
pub const GRANT_SPONSORS_MAX: usize = 64;
/// A member's name.
pub const NAME_CHARS_MAX: usize = 64;
/// The words that go with a removal or with the end of a session.
pub const REASON_CHARS_MAX: usize = 256;
/// Wraps in one statement; above so many readers an epoch travels by its commitment alone.
pub const EPOCH_WRAPS_MAX: usize = 64;
/// Earlier epochs whose secret one epoch wraps: more than one only after a partition.
pub const EPOCH_PREVIOUS_MAX: usize = 8;
/// Path patterns of one scope.
pub const SCOPE_PATTERNS_MAX: usize = 32;
/// One path pattern.
pub const SCOPE_PATTERN_BYTES_MAX: usize = 256;
/// One envelope header inside a Fork.
pub const FORK_ENTRY_BYTES_MAX: usize = 8 * 1024;
/// Heads that one Seal names.
pub const SEAL_HEADS_MAX: usize = 64;
/// How much later than a grant's expiry an admission may say it took place, for clocks that differ.
pub const ADMIT_LATE_MS_MAX: u64 = 120_000;
/// Statements that wait for others they name.
pub const PENDING_STATEMENTS_MAX: usize = 1_024;
/// The same in bytes.
pub const PENDING_STATEMENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

// --- envelopes, logs, gossip ---

/// One Automerge change inside an envelope.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// The encrypted body of an envelope: actor, nonce, change, tag.
pub const ENVELOPE_BODY_BYTES_MAX: usize = CHANGE_BYTES_MAX + 32 + 16;
/// The header of an envelope with as many membership heads as it may name.
pub const ENVELOPE_HEADER_BYTES_MAX: usize = 256 + 32 * MEMBERSHIP_HEADS_MAX;
/// What each envelope adds to its log's running size beside its body and 32 bytes for each membership head.
pub const ENVELOPE_BASE_BYTES: u64 = 320;
/// One encoded log entry: the longest envelope or statement, and its kind.
pub const ENTRY_BYTES_MAX: usize = ENVELOPE_HEADER_BYTES_MAX + 64 + ENVELOPE_BODY_BYTES_MAX + 1;
/// The content of one presence message.
pub const PRESENCE_BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a presence message may claim to hold.
pub const PRESENCE_TTL_MS_MAX: u32 = 10 * 60 * 1_000;
/// One gossip message before it is sealed.
pub const GOSSIP_BYTES_MAX: usize = 128 * 1024;
/// Entries of one member that wait for earlier ones.
pub const LOG_POOL_ENTRIES_MAX: usize = 1_000;
/// The same in bytes.
pub const LOG_POOL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries of all members that wait for earlier ones.
pub const LOG_POOLS_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(PEER_DEAD.as_millis() >= 3 * HEARTBEAT.as_millis());
const _: () = assert!(FETCH_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(HELLO.as_millis() < UNPROVEN.as_millis());
const _: () = assert!(NEIGHBOURS <= FULL_MESH_MEMBERS_MAX);
