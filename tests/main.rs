//! What the program does, seen from outside: real processes, real terminals, real sockets on loopback. One binary,
//! one file per behaviour; `harness` speaks of people and their machines.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap or index in a helper is a failed test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "these tests watch real processes by the real clock, each from a thread"
)]

mod access;
mod at_rest;
mod bad_bytes;
mod bad_machines;
mod bad_networks;
mod chat_and_presence;
mod cli;
mod control_lease;
mod crash_recovery;
mod errors;
mod examples;
mod first_ten_minutes;
mod full_screen;
mod harness;
mod load;
mod old_folders;
mod share_and_join;
mod stopped_and_restarted;
mod terminal_manners;
mod tidy;
