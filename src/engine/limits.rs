//! Every bound in one file, units last in the names; relations between them hold at compile time.

use std::time::Duration;

use crate::engine::timers::ms;

/// Version of the protocol between nodes.
pub const PROTOCOL_VERSION: u16 = 1;

// --- connections ---

/// Addresses of one peer that are dialled or kept.
pub const ADDRS_PER_PEER_MAX: usize = 8;
/// Members whose addresses go in one message.
pub const ADDRESSES_PER_MESSAGE: usize = 128;
/// Changes of one member's addresses that are taken, kept and passed on in a minute.
pub const ADDRESS_CHANGES_PER_MINUTE_MAX: usize = 30;
/// Dials a minute that follow a failure, all peers together.
pub const DIALS_PER_MINUTE_MAX: usize = 30;
/// Pause before the first redial; of a peer that was never met doubled with each failure.
pub const REDIAL_FIRST: Duration = ms(200);
/// Longest pause between dials of one peer.
pub const REDIAL_LONGEST: Duration = ms(30_000);
/// Who was here and is away is dialled after pauses of one part in so many of the time since: a holder of control whose
/// link is away for six seconds is back before its lease ends.
pub const REDIAL_SHARE: u32 = 4;
/// How long the peer with the greater key leaves dialling to the other.
pub const DIAL_COURTESY: Duration = ms(400);
/// An unproven connection lives so long.
pub const UNPROVEN: Duration = ms(5_000);
/// A newcomer waits for a person so long.
pub const APPROVAL: Duration = ms(120_000);
/// A member's connection without hello lives so long.
pub const HELLO: Duration = ms(1_500);
/// A second admission with a peer within this time is a failure: it should have said hello after the first.
pub const FINISHED_ONCE: Duration = ms(10_000);
/// Pause between heartbeats.
pub const HEARTBEAT: Duration = ms(1_000);
/// A peer silent for so long is dead.
pub const PEER_DEAD: Duration = ms(3_000);
/// So long a connection with an older start of a member stays beside a newer one, to be asked whether it lives.
pub const ANOTHER_LINGERS: Duration = ms(4_000);
/// So long a node waits for the word of another one with its key, if a member says that there is one.
pub const ANOTHER_WAIT: Duration = ms(1_500);
/// So long the word of another node with one's key counts.
pub const ANOTHER_LASTS: Duration = ms(12_000);
/// So long a member that said in vain that another node runs with one's key is not waited for again.
pub const ANOTHER_DOUBTED: Duration = ms(60_000);
/// So long after its first answer a challenge may be answered again; then a new connection draws another.
pub const CHALLENGE_LASTS: Duration = ms(60_000);
/// So long a member that says it has more of one's own log may take to give some of it.
pub const OWN_LOG_WAIT: Duration = ms(5_000);
/// Everybody is connected to everybody up to so many members.
pub const FULL_MESH_MEMBERS_MAX: usize = 12;
/// Neighbours kept in a larger session.
pub const NEIGHBOURS: usize = 10;
/// Peers whose addresses are kept while joining.
pub const CANDIDATES_MAX: usize = 64;

// --- catch-up ---

/// Shortest pause between two judgements of what gossip brings: what comes in between is judged together.
pub const JUDGE_INTERVAL: Duration = ms(16);

/// After the last change of a burst, neighbours compare vectors.
pub const COMPARE_AFTER: Duration = ms(150);
/// An unanswered request for entries goes to somebody else.
pub const FETCH_TIMEOUT: Duration = ms(3_000);
/// Bytes of entries in one answer.
pub const FETCH_BYTES_MAX: usize = 128 * 1024;
/// Logs named in one request.
pub const FETCH_LOGS_MAX: usize = 64;
/// The same vector is not told to the same neighbour again within this time: less than the pause between
/// heartbeats, each of which may ask for it.
pub const VECTOR_AGAIN: Duration = ms(500);
/// Bytes of entries and bodies that one neighbour is given in a second for long.
pub const GIVEN_BYTES_PER_S: u64 = 16 * 1024 * 1024;
/// Bytes of entries and bodies that one neighbour is given at once.
pub const GIVEN_BURST_BYTES: u64 = 32 * 1024 * 1024;
/// An answer to a neighbour's request counts as so many bytes at least: looking costs too.
pub const GIVEN_ANSWER_BYTES_MIN: u64 = 16 * 1024;
/// Statements that end rights and are heard while nothing can be saved.
pub const HEARD_FROZEN_MAX: usize = 1_024;
/// What a full disk did not take is tried again after this time.
pub const STORE_RETRY: Duration = ms(1_000);
/// While the disk stays full the pause doubles up to this one, the longest time that a person who has made room waits.
pub const STORE_RETRY_MAX: Duration = ms(8_000);
/// Message on the control stream.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Entries that go out by gossip; larger ones are left to catch-up, which begins within [`COMPARE_AFTER`].
pub const GOSSIP_WHOLE_BYTES_MAX: usize = 32 * 1024;

/// Envelopes that one member may write in all.
pub const LOG_QUOTA_BYTES: u64 = 256 * 1024 * 1024;

// --- presence ---

/// Pause between own heartbeats.
pub const PRESENCE_HEARTBEAT: Duration = ms(3_000);
/// Heartbeats that a presence outlives.
pub const PRESENCE_HEARTBEATS_TO_LIVE: u32 = 3;
/// A member without a connection who is late by so much with its heartbeat is shown as gone.
pub const PRESENCE_LATE: Duration = ms(1_000);
/// Presences in one message to a neighbour.
pub const PRESENCES_PER_MESSAGE: usize = 8;
/// A neighbour that says which presences it has is told those that it lacks at most once in this time.
pub const PRESENCE_ANSWER_INTERVAL: Duration = ms(1_000);
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

// --- screens ---

/// Children that a node serves with one terminal's screen.
pub const SCREEN_CHILDREN_MAX: usize = 8;
/// Shortest pause between two frames.
pub const FRAME_INTERVAL: Duration = ms(8);
/// Pause between frames while a child is behind.
pub const FRAME_INTERVAL_BEHIND: Duration = ms(33);
/// A shell's bells are heard at most once in this time, however many it rings.
pub const BELL_INTERVAL: Duration = ms(1_000);
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
/// Messages in one answer to who lists them.
pub const LISTED_MESSAGES_MAX: usize = 200;
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
/// No encoded log entry is shorter: ids of session, author and predecessor, and a signature, take 160.
pub const ENTRY_BYTES_MIN: usize = 128;
/// The content of one presence message.
pub const PRESENCE_BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a presence message may claim to hold.
pub const PRESENCE_TTL_MS_MAX: u32 = 10 * 60 * 1_000;
/// Entries of one member that wait for earlier ones.
pub const LOG_POOL_ENTRIES_MAX: usize = 1_000;
/// The same in bytes.
pub const LOG_POOL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries of all members that wait for earlier ones.
pub const LOG_POOLS_BYTES_MAX: usize = 64 * 1024 * 1024;

// --- control: leases and keys ---

/// Bytes of keys in one frame.
pub const INPUT_FRAME_BYTES_MAX: usize = 4096;
/// Frames of keys that may be on their way without the PTY having taken them.
pub const INPUT_WINDOW_FRAMES_MAX: usize = 64;
/// Bytes that a host keeps of one holder before the PTY takes them: a full window.
pub const INPUT_WINDOW_BYTES_MAX: usize = INPUT_WINDOW_FRAMES_MAX * INPUT_FRAME_BYTES_MAX;
/// Bytes a second that a holder may have written for long.
pub const INPUT_RATE_BYTES_PER_S: u64 = 64 * 1024;
/// Bytes that a holder may have written at once.
pub const INPUT_BURST_BYTES: u64 = 256 * 1024;
/// Bytes typed here and not yet confirmed by the terminal's host.
pub const INPUT_BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes handed to the PTY adapter that the PTY has not taken.
pub const PTY_QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the host's own person that wait for the PTY.
pub const PERSON_INPUT_BYTES_MAX: usize = 256 * 1024;
/// The same with the last piece, which is handed over whole: no piece is longer than what a person may have waiting.
pub const PTY_GIVEN_BYTES_MAX: usize = PTY_QUEUE_BYTES_MAX + PERSON_INPUT_BYTES_MAX;
/// Bytes of answers to terminal queries that wait for the PTY.
pub const PTY_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// First wait before keys, requests and orders are sent again; it doubles each time.
pub const INPUT_RETRY_MS: u64 = 500;
/// Longest wait before they are sent again.
pub const INPUT_RETRY_MS_MAX: u64 = 4000;
/// Bytes of one message on the input lane, either way.
pub const INPUT_MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// A lease that names no duration.
pub const LEASE_DEFAULT_S: u32 = 1800;
/// A lease given on a first key (`--control auto`).
pub const LEASE_AUTO_S: u32 = 120;
/// The shortest lease.
pub const LEASE_S_MIN: u32 = 1;
/// The longest lease.
pub const LEASE_S_MAX: u32 = 24 * 3600;
/// How long a lease waits for a holder whose connection is gone.
pub const LEASE_ORPHAN_S: u64 = 10;
/// After the host's person took control, no first key gets a lease for this long.
pub const LEASE_AUTO_PAUSE_MS: u64 = 2000;
/// How long a request or an order waits for the host's person.
pub const CONTROL_PROMPT_S: u64 = 120;
/// Questions for control that one member may put to a host's person in a minute.
pub const CONTROL_QUESTIONS_PER_MINUTE_MAX: usize = 6;
/// Requests and orders that wait at once, each.
pub const CONTROL_PROMPTS_MAX: usize = 32;
/// Ended leases of a terminal whose account is remembered.
pub const LEASE_ENDINGS_MAX: usize = 64;

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

// --- screens: engine/terminal ---

/// Columns that a shared screen has at least.
pub const SCREEN_COLS_MIN: u16 = 10;
/// Columns that a shared screen has at most.
pub const SCREEN_COLS_MAX: u16 = 500;
/// Rows that a shared screen has at least.
pub const SCREEN_ROWS_MIN: u16 = 2;
/// Rows that a shared screen has at most.
pub const SCREEN_ROWS_MAX: u16 = 300;
/// Cells of the largest screen.
pub const SCREEN_CELLS_MAX: usize = SCREEN_COLS_MAX as usize * SCREEN_ROWS_MAX as usize;
/// A terminal's title as it is shown and sent.
pub const SCREEN_TITLE_BYTES_MAX: usize = 256;
/// One cell's characters: a base and its marks. Longer piles of marks are cut.
pub const CELL_CLUSTER_BYTES_MAX: usize = 32;
/// A frame before compression and after decompression. The largest screen, each cell a full cluster in a
/// style of its own, needs 7.8 MB.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Shorter frames are sent as they are: compressing them costs more than it saves.
pub const FRAME_COMPRESS_BYTES_MIN: usize = 256;
/// Rows of the shell's scrollback that the emulator keeps so that an enlarged window shows them again.
pub const EMULATOR_HISTORY_ROWS: usize = 200;
/// Output kept to rebuild an emulator that failed.
pub const EMULATOR_TAIL_BYTES_MAX: usize = 64 * 1024;
/// Answers to a program's queries that wait to be written; more are dropped.
pub const EMULATOR_REPLY_BYTES_MAX: usize = 16 * 1024;
/// A control string of the program (a title, say) as the emulator gets it; what follows up to its end is dropped.
pub const EMULATOR_STRING_BYTES_MAX: usize = 4 * 1024;
/// Titles that a program may put aside; the oldest goes first.
pub const EMULATOR_TITLES_MAX: usize = 16;
/// Marks that the emulator keeps of one cell: as none is shorter than two bytes, no more can be shown.
pub const EMULATOR_MARKS_MAX: usize = CELL_CLUSTER_BYTES_MAX / 2;
/// What the emulator does in one turn before it leaves the rest of the output for the next, about one for each
/// byte read and each cell touched. What is begun is finished: a turn may exceed it by some screens.
pub const EMULATOR_WORK_MAX: usize = 2 * 1024 * 1024;
/// Output that the emulator takes without looking at its work.
pub const EMULATOR_STRETCH_BYTES_MAX: usize = 128;
/// A synchronized update that its program leaves open holds the picture back for so long.
pub const EMULATOR_SYNC: Duration = ms(150);

// --- shells: pty ---

/// One piece of output as the engine gets it.
pub const PTY_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Pieces of output that wait for the engine before reading pauses.
pub const PTY_OUTPUT_EVENTS_MAX: usize = 8;
/// Input that waits for the shell to take it.
pub const PTY_INPUT_BYTES_MAX: usize = 1024 * 1024;
/// After the shell's end its last output is awaited this long.
pub const PTY_DRAIN_MS: u64 = 250;
/// From the hang-up to the kill of a shell that stays.
pub const PTY_HANGUP_GRACE_MS: u64 = 1_000;
/// Reads of what a shell left behind at its end.
pub const PTY_DRAIN_READS_MAX: usize = 64;

// --- node ---

/// Bytes that wait for the disk, with the messages that wait for them, before peers are no longer heard.
pub const COMMIT_PAUSE_BYTES: usize = 16 * 1024 * 1024;
/// The same with the largest outcome of one event: a whole membership, as statements and as logs.
pub const COMMIT_QUEUE_BYTES_MAX: usize = COMMIT_PAUSE_BYTES + 2 * ADMISSION_WELCOME_BYTES_MAX;

/// Turns that everything else may have while a terminal has something to say.
pub const TURNS_BEFORE_OUTPUT_MAX: u32 = 16;

// --- net ---

/// Largest message on a screen stream from who asks for the screen.
pub const SCREEN_ASK_BYTES_MAX: usize = 4 * 1024;
/// Largest message on a screen stream from who has the screen: the largest frame, its stamp and signature.
pub const SCREEN_MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + 1024;
/// Bytes that may wait to be written on an admission stream; a whole membership log fits.
pub const ADMISSION_QUEUE_BYTES_MAX: usize = ADMISSION_WELCOME_BYTES_MAX + 1024 * 1024;
/// Bytes that may wait to be written on a control stream.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that may wait to be written on an input stream: two full windows, as what is not answered is said again.
pub const INPUT_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that may wait to be written on a screen stream; its writer waits for room besides.
pub const SCREEN_QUEUE_BYTES_MAX: usize = SCREEN_MESSAGE_BYTES_MAX + 1024 * 1024;
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
/// The same with the message that passed it: a stream is read until it is over its bound.
pub const STREAM_HELD_BYTES_MAX: usize = STREAM_BACKLOG_BYTES_MAX + SCREEN_MESSAGE_BYTES_MAX;
/// Bytes that a peer who connected to us may say before its key is a member's: all that it may show.
pub const UNPROVEN_INBOUND_BYTES_MAX: usize = ADMISSION_SHOWN_BYTES_MAX + 1024 * 1024;
/// Bytes that a peer whom we dialled may say on a connection without a member's lanes: a whole welcome.
pub const UNPROVEN_OUTBOUND_BYTES_MAX: usize = ADMISSION_WELCOME_BYTES_MAX + 1024 * 1024;
/// Inbound connections of strangers at once.
pub const UNPROVEN_CONNECTIONS_MAX: usize = 32;
/// Inbound connections of one stranger at once.
pub const UNPROVEN_CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Inbound connections of strangers from one address; loopback is exempt.
pub const UNPROVEN_CONNECTIONS_PER_IP_MAX: usize = 16;
/// Inbound handshakes at once: whose they are shows only at their end.
pub const PENDING_CONNECTIONS_MAX: usize = 64;
/// Inbound handshakes from one address at once; loopback is exempt.
pub const PENDING_CONNECTIONS_PER_IP_MAX: usize = 16;
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections of one member at once.
pub const CONNECTIONS_PER_MEMBER_MAX: usize = 8;
/// Addresses of one dial.
pub const DIAL_ADDRESSES_MAX: usize = 8;
/// Requests that may wait for the network's task.
pub const NET_REQUESTS_MAX: usize = 1024;
/// Facts of the node itself (addresses, discoveries, failed dials) that may wait for the engine; from half of it on
/// discoveries are not repeated, and the rest comes at most once for each thing that the engine asked for.
pub const NET_FACTS_MAX: usize = 2 * 1024;
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

// --- documents: changes ---
// Bounds of the gate's verdict, and [`CHANGE_BYTES_MAX`], are constants of the protocol version: all replicas
// judge alike.

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

/// Statuses of control kept of one connected peer for terminals that it has not announced yet.
pub const EARLY_STATUSES_MAX: usize = 4;
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

// --- relations ---

// Connections: who is waited for lives long enough, and nobody is given up before he could have answered.
const _: () = assert!(PEER_DEAD.as_millis() >= 3 * HEARTBEAT.as_millis());
const _: () = assert!(HELLO.as_millis() < UNPROVEN.as_millis());
const _: () = assert!(HELLO.as_millis() < PEER_DEAD.as_millis());
const _: () = assert!(DIAL_COURTESY.as_millis() < HELLO.as_millis());
const _: () = assert!(REDIAL_FIRST.as_millis() < REDIAL_LONGEST.as_millis());
const _: () = assert!(UNPROVEN.as_millis() == ADMISSION_UNPROVEN_MS_MAX as u128);
const _: () = assert!(APPROVAL.as_millis() == ADMISSION_APPROVAL_MS_MAX as u128);
const _: () = assert!(UNPROVEN.as_millis() < APPROVAL.as_millis());
const _: () = assert!(NEIGHBOURS >= 8 && NEIGHBOURS <= FULL_MESH_MEMBERS_MAX);
const _: () = assert!(ADDRS_PER_PEER_MAX <= DIAL_ADDRESSES_MAX);
const _: () = assert!(MDNS_ADDRESSES_PER_PEER_MAX <= DIAL_ADDRESSES_MAX);
const _: () = assert!(ADDRS_PER_PEER_MAX <= TICKET_ADDRESSES_MAX);
const _: () = assert!(UNPROVEN_CONNECTIONS_PER_PEER_MAX <= UNPROVEN_CONNECTIONS_PER_IP_MAX);
const _: () = assert!(UNPROVEN_CONNECTIONS_PER_IP_MAX < UNPROVEN_CONNECTIONS_MAX);
const _: () = assert!(UNPROVEN_CONNECTIONS_MAX <= PENDING_CONNECTIONS_MAX);
const _: () = assert!(PENDING_CONNECTIONS_MAX + UNPROVEN_CONNECTIONS_MAX < CONNECTIONS_MAX);
const _: () = assert!(CONNECTIONS_PER_MEMBER_MAX * FULL_MESH_MEMBERS_MAX < CONNECTIONS_MAX);
const _: () = assert!(APPROVALS_WAITING_MAX < UNPROVEN_CONNECTIONS_MAX);
// An address and a comma in base32, 8 characters for 5 bytes.
const _: () = assert!(TICKET_ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 1) * 8 / 5 < TICKET_BYTES_MAX);

// Lanes: a message passes its lane, and what must be able to wait there fits.
const _: () = assert!(ADMISSION_GREETING_BYTES_MAX <= ADMISSION_MESSAGE_BYTES_MAX);
const _: () = assert!(ADMISSION_BATCH_BYTES < ADMISSION_MESSAGE_BYTES_MAX);
const _: () = assert!(STATEMENT_BYTES_MAX < ADMISSION_MESSAGE_BYTES_MAX);
const _: () = assert!(ADMISSION_SHOWN_BYTES_MAX < ADMISSION_WELCOME_BYTES_MAX);
const _: () = assert!(ADMISSION_SHOWN_BYTES_MAX < UNPROVEN_INBOUND_BYTES_MAX);
const _: () = assert!(ADMISSION_WELCOME_BYTES_MAX < UNPROVEN_OUTBOUND_BYTES_MAX);
const _: () = assert!(ADMISSION_WELCOME_BYTES_MAX < ADMISSION_QUEUE_BYTES_MAX);
const _: () = assert!(4 * CONTROL_MESSAGE_BYTES_MAX <= CONTROL_QUEUE_BYTES_MAX);
const _: () = assert!(CONTROL_MESSAGE_BYTES_MAX <= STREAM_BACKLOG_BYTES_MAX);
const _: () = assert!(INPUT_FRAME_BYTES_MAX < INPUT_MESSAGE_BYTES_MAX);
const _: () =
    assert!(2 * INPUT_WINDOW_FRAMES_MAX * INPUT_MESSAGE_BYTES_MAX <= INPUT_QUEUE_BYTES_MAX);
const _: () = assert!(SCREEN_ASK_BYTES_MAX < SCREEN_MESSAGE_BYTES_MAX);
const _: () = assert!(SCREEN_MESSAGE_BYTES_MAX + SCREEN_UNACKED_BYTES_MAX < SCREEN_QUEUE_BYTES_MAX);
const _: () = assert!(INBOUND_ADMISSION_STREAMS_MAX <= INBOUND_STREAMS_PER_LANE_MAX);

// Strangers, those who let in and those who are asked to, leave room for every neighbour.
const _: () = assert!(
    UNPROVEN_CONNECTIONS_MAX + CANDIDATES_MAX + FULL_MESH_MEMBERS_MAX * CONNECTIONS_PER_MEMBER_MAX
        <= CONNECTIONS_MAX
);
const _: () = assert!(PENDING_CONNECTIONS_PER_IP_MAX < PENDING_CONNECTIONS_MAX);

// Entries: what may be written can be sent, asked for and kept waiting.
const _: () = assert!(CHANGE_BYTES_MAX < ENVELOPE_BODY_BYTES_MAX);
const _: () = assert!(STATEMENT_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX < FETCH_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(GIVEN_BYTES_PER_S <= GIVEN_BURST_BYTES);
const _: () = assert!((FETCH_BYTES_MAX + ENTRY_BYTES_MAX) as u64 <= GIVEN_BYTES_PER_S);
const _: () = assert!(ENTRY_BYTES_MAX <= LOG_POOL_BYTES_MAX);
const _: () = assert!(LOG_POOL_BYTES_MAX <= LOG_POOLS_BYTES_MAX);
const _: () = assert!(STATEMENT_BYTES_MAX <= PENDING_STATEMENTS_BYTES_MAX);
const _: () = assert!(HELD_AUTHOR_BYTES_MAX <= HELD_TOTAL_BYTES_MAX);
const _: () = assert!(CHANGE_BYTES_MAX <= HELD_AUTHOR_BYTES_MAX);
const _: () = assert!(GOSSIP_WHOLE_BYTES_MAX < GOSSIP_MESSAGE_BYTES_MAX);
const _: () =
    assert!(PRESENCE_BODY_BYTES_MAX + ENVELOPE_HEADER_BYTES_MAX < GOSSIP_MESSAGE_BYTES_MAX);
const _: () = assert!(GOSSIP_BACKLOG_MAX <= GOSSIP_UNJUDGED_MAX);
const _: () = assert!(GOSSIP_PACKETS_PER_SECOND_MAX as usize <= GOSSIP_MESSAGES_PER_SECOND_MAX);
const _: () = assert!(JUDGE_INTERVAL.as_millis() < COMPARE_AFTER.as_millis());
const _: () = assert!(COMPARE_AFTER.as_millis() < FETCH_TIMEOUT.as_millis());
const _: () = assert!(VECTOR_AGAIN.as_millis() < HEARTBEAT.as_millis());
const _: () = assert!(CHAT_TEXT_BYTES_MAX < CHANGE_BYTES_MAX);
const _: () = assert!(CHANGE_DEPENDENCIES_MAX >= DOCUMENT_MERGE_HEADS_MAX);

// Presence: it outlives lost heartbeats, and a crash shows within ten seconds.
const _: () = assert!(ANOTHER_WAIT.as_millis() < ANOTHER_LINGERS.as_millis());
const _: () = assert!(ANOTHER_LASTS.as_millis() > 2 * ANOTHER_LINGERS.as_millis());
const _: () = assert!(OWN_LOG_WAIT.as_millis() > FETCH_TIMEOUT.as_millis());
const _: () = assert!(
    PRESENCES_PER_MESSAGE * (PRESENCE_BODY_BYTES_MAX + ENVELOPE_HEADER_BYTES_MAX + 128)
        < CONTROL_MESSAGE_BYTES_MAX
);
const _: () = assert!(PRESENCE_ANSWER_INTERVAL.as_millis() < PRESENCE_HEARTBEAT.as_millis());
const _: () = assert!(PRESENCE_INTERVAL.as_millis() < PRESENCE_HEARTBEAT.as_millis());
const _: () = assert!(
    PRESENCE_HEARTBEAT.as_millis() * PRESENCE_HEARTBEATS_TO_LIVE as u128 <= 10_000
        && PRESENCE_HEARTBEATS_TO_LIVE >= 3
);
const _: () = assert!(IDLE_AFTER.as_millis() < AWAY_AFTER.as_millis());

// Keys: what is let in at one place is let in at the next.
const _: () = assert!(PERSON_INPUT_BYTES_MAX > PTY_QUEUE_BYTES_MAX);
const _: () = assert!(PTY_GIVEN_BYTES_MAX <= PTY_INPUT_BYTES_MAX);
const _: () = assert!(INPUT_WINDOW_BYTES_MAX <= INPUT_BUFFER_BYTES_MAX);
const _: () = assert!(INPUT_BURST_BYTES >= INPUT_RATE_BYTES_PER_S);
const _: () = assert!(EMULATOR_REPLY_BYTES_MAX <= PTY_ANSWER_BYTES_MAX);
const _: () = assert!(LEASE_S_MIN < LEASE_AUTO_S && LEASE_AUTO_S < LEASE_DEFAULT_S);
const _: () = assert!(LEASE_DEFAULT_S < LEASE_S_MAX);
const _: () = assert!(INPUT_RETRY_MS < INPUT_RETRY_MS_MAX);
// A connection that is cut is noticed and made anew before its lease is given up.
const _: () = assert!(PEER_DEAD.as_millis() < LEASE_ORPHAN_S as u128 * 1_000);

// Screens: the largest one, each cell a full cluster in a style of its own, fits a frame.
const _: () = assert!(SCREEN_CELLS_MAX * (CELL_CLUSTER_BYTES_MAX + 20) <= FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < SCREEN_MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_INTERVAL.as_millis() < FRAME_INTERVAL_BEHIND.as_millis());
const _: () = assert!(FRAME_INTERVAL_BEHIND.as_millis() < EMULATOR_SYNC.as_millis());
// Bells never set the pace of pictures.
const _: () = assert!(FRAME_INTERVAL_BEHIND.as_millis() < BELL_INTERVAL.as_millis());
const _: () = assert!(EMULATOR_SYNC.as_millis() < PICTURE_STALE.as_millis());
const _: () = assert!(ATTACH_RETRY.as_millis() < PICTURE_STALE.as_millis());
const _: () = assert!(SCREEN_COLS_MAX as u64 == DOCUMENT_TERMINAL_COLS_MAX);
const _: () = assert!(SCREEN_ROWS_MAX as u64 == DOCUMENT_TERMINAL_ROWS_MAX);
const _: () = assert!(MEMBER_TERMINALS_CLOSED_KEPT < MEMBER_TERMINALS_MAX);
// Eight children each, eight members on the way: everybody a session may have is reached.
const _: () = assert!(SCREEN_CHILDREN_MAX.pow(4) > MEMBERS_MAX && PRESENCE_ROUTE_MEMBERS_MAX >= 4);
