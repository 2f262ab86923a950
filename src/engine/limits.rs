//! Every bound in one file, units in the names.

// --- documents: changes ---
// Bounds of the gate's verdict are constants of the protocol version: all replicas judge alike.

/// Bytes of one Automerge change.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// Operations of one change.
pub const CHANGE_OPERATIONS_MAX: u64 = 10_000;
/// Changes that one change names as its dependencies.
pub const CHANGE_DEPENDENCIES_MAX: usize = 64;
/// Actors that one change names, its own included.
pub const CHANGE_ACTORS_MAX: usize = 64;
/// Values that one operation replaces: no more than actors that may have written them.
pub const CHANGE_PREDECESSORS_MAX: u64 = 64;
/// One key of a map.
pub const CHANGE_KEY_BYTES_MAX: usize = 256;
/// Operations are numbered below this; Automerge counts in 32 bits and panics past them.
pub const CHANGE_COUNTER_END: u64 = 1 << 30;
/// Commit times lie below this many seconds since 1970.
pub const CHANGE_TIME_S_END: i64 = 1 << 40;
/// Moments in documents lie below this many milliseconds since 1970.
pub const DOCUMENT_MOMENT_MS_END: i64 = 1 << 53;
/// Heads that a change written here merges: a document with more is merged in several steps.
pub const DOCUMENT_MERGE_HEADS_MAX: usize = 32;

// --- documents: words ---

/// The title of a session or a terminal.
pub const DOCUMENT_TITLE_BYTES_MAX: usize = 256;
/// A member's name as it gives it.
pub const DOCUMENT_NAME_BYTES_MAX: usize = 256;
/// A path in the shared folder.
pub const DOCUMENT_PATH_BYTES_MAX: usize = 1024;
/// Columns of an announced terminal.
pub const DOCUMENT_TERMINAL_COLS_MAX: u64 = 500;
/// Rows of an announced terminal.
pub const DOCUMENT_TERMINAL_ROWS_MAX: u64 = 300;
/// Lines of scrollback that a late joiner may be promised.
pub const DOCUMENT_SCROLLBACK_LINES_MAX: u64 = 1_000_000;
/// Terminals in a member's document, the closed ones included.
pub const MEMBER_TERMINALS_MAX: usize = 64;
/// Closed terminals that a node keeps in its own document when it opens another.
pub const MEMBER_TERMINALS_CLOSED_KEPT: usize = 31;
/// Messages of one chat document; the next message begins the next document.
pub const CHAT_DOCUMENT_MESSAGES_MAX: usize = 4096;
/// The text of one message.
pub const CHAT_TEXT_BYTES_MAX: usize = 16 * 1024;
/// Members that one message names.
pub const CHAT_MENTIONS_MAX: usize = 32;
/// A stamp further ahead of the reader's clock is marked and moves no clock.
pub const CHAT_AHEAD_MS_MAX: u64 = 10 * 60 * 1000;
/// Changes of one generation of a presence document.
pub const PRESENCE_GENERATION_CHANGES_MAX: usize = 1000;
/// Keys of one presence document.
pub const PRESENCE_KEYS_MAX: usize = 256;
/// Members between a terminal's host and one who serves its screen on.
pub const PRESENCE_ROUTE_MEMBERS_MAX: usize = 8;

// --- documents: held back changes ---
// Local bounds: they may only delay, as what is let go is asked for again.

/// Changes of one author that wait for what they build on.
pub const HELD_AUTHOR_CHANGES_MAX: usize = 1000;
/// Their bytes.
pub const HELD_AUTHOR_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of all waiting changes.
pub const HELD_TOTAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Refused changes of a document whose hash is remembered, so that what builds on them is refused too.
pub const REFUSED_REMEMBERED_MAX: usize = 4096;
