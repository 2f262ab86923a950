//! A peer-to-peer collaboration engine without a central server.
//!
//! Everything under [`engine`] is pure; the adapters (`net`, `store`, `pty`) touch the world; `node` joins
//! them; the faces (`gateway`, `ui`, `cli`) only talk to `node`. Each adapter sits behind a cargo feature, so
//! the engine builds alone with `--no-default-features`. `docs/ARCHITECTURE.md` shows the house.

pub mod engine;

#[cfg(feature = "net")]
pub mod net;

pub mod store;

#[cfg(any(feature = "pty", feature = "sim"))]
pub mod pty;

#[cfg(feature = "node")]
pub mod node;

#[cfg(feature = "gateway")]
pub mod gateway;

#[cfg(feature = "ui")]
pub mod ui;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "sim")]
pub mod sim;
