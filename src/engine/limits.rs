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
