//! Every bound in one file, units in the names.

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
/// Bytes of answers to terminal queries that wait for the PTY.
pub const PTY_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// First wait before keys, requests and orders are sent again; it doubles each time.
pub const INPUT_RETRY_MS: u64 = 500;
/// Longest wait before they are sent again.
pub const INPUT_RETRY_MS_MAX: u64 = 4000;
/// Bytes of one message about control, either way.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// A lease that names no duration.
pub const LEASE_DEFAULT_S: u32 = 600;
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
/// Requests and orders that wait at once, each.
pub const CONTROL_PROMPTS_MAX: usize = 32;
/// Ended leases of a terminal whose account is remembered.
pub const LEASE_ENDINGS_MAX: usize = 64;
