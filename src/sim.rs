//! The simulated world: real engines under a virtual clock, on virtual links and disks, driven by one seed.
//!
//! [`World`] does what `node` does in the product, with the same contract (*handle → persist → perform*, see
//! [`crate::engine::Engine::handle`]) and with faults between any two steps:
//!
//! - Streams are reliable and ordered; loss shows as delay, and a connection may be cut at any message, taking
//!   what is under way with it. On request the input lane is worse than any transport: each message may be
//!   lost, doubled or overtaken.
//! - Gossip loses, doubles and reorders, and may fail one way for as long as a connection stands.
//! - A commit takes time. A crash takes what was not committed, and may come between a commit and its effects.
//! - Clocks differ; timers fire late; peers vanish with a word or without.
//! - An [`Adversary`] replays and forges what it has seen.
//!
//! Everything random comes from the seed, and everything that happens goes into a hash: equal seeds, equal
//! [`World::trace`].

mod adversary;
mod agenda;
mod disk;
mod network;
mod shell;
mod trace;
mod world;

pub use adversary::Adversary;
pub use network::Links;
pub use world::{Fact, NodeId, World, WorldConfig, Write};
