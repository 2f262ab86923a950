//! Every bound in one file, units in the names.

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
/// Output without an end of a control string after which an open one is cancelled.
pub const EMULATOR_STRING_BYTES_MAX: usize = 256 * 1024;

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
