//! Every bound in one file, units in the names.

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
/// Members that a session has room for, hence entries of every list over members in a statement.
pub const MEMBERS_MAX: usize = 1_024;
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

// --- admission ---

/// The first two messages of each side of an admission.
pub const ADMISSION_GREETING_BYTES_MAX: usize = 128;
/// Statements in one message of an admission, in bytes; at least one.
pub const ADMISSION_BATCH_BYTES: usize = 64 * 1024;
/// One message of an admission: a batch, its lengths, and the longest statement.
pub const ADMISSION_MESSAGE_BYTES_MAX: usize = 80 * 1024;
/// All that a peer may show to prove that it is a member.
pub const ADMISSION_SHOWN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The whole membership as a newcomer takes it from its sponsor.
pub const ADMISSION_WELCOME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Peers that wait for a person's decision at one node.
pub const APPROVALS_WAITING_MAX: usize = 8;
/// Peers that one node admits by one ticket in a minute, those on its own machine aside.
pub const ADMITS_PER_MINUTE_MAX: usize = 60;
/// Members that a refusal names as possible sponsors.
pub const SPONSOR_HINTS_MAX: usize = 8;
/// Addresses of each of them.
pub const SPONSOR_HINT_ADDRESSES_MAX: usize = 8;
/// How long a peer may take to prove the session and say what it wants.
pub const ADMISSION_UNPROVEN_MS_MAX: u64 = 5_000;
/// How long a person may take to decide about a newcomer.
pub const ADMISSION_APPROVAL_MS_MAX: u64 = 120_000;
/// How long the next message of a transfer may take.
pub const ADMISSION_TRANSFER_MS_MAX: u64 = 15_000;
/// How long a peer may take to show all that makes it a member.
pub const ADMISSION_SHOWING_MS_MAX: u64 = 60_000;
/// How long a peer may take to receive all that was sent to it.
pub const ADMISSION_PARTING_MS_MAX: u64 = 60_000;
