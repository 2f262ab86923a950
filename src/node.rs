//! Joins engine and adapters: one driver per membership, and the [`Handle`] that faces talk to.
//!
//! Faces send [`Command`](crate::engine::command::Command)s and read [`View`](crate::engine::view::View)s;
//! nothing else leads into the engine. [`start`] opens a session, joins one by ticket, or resumes a membership
//! from its folder.

pub mod clock;
pub mod folder;
pub mod handle;
pub mod start;

mod committer;
mod driver;
mod entropy;
mod gauges;
mod terminals;

pub use handle::{Handle, Screens};
pub use start::{JoinWith, Running, Settings, ShareWith, join, resume, share};
