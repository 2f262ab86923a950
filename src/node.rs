//! Joins engine and adapters: one driver per membership, and the [`Handle`] that faces talk to.
//!
//! Faces send [`Command`]s and read [`View`]s; nothing else leads into the engine. [`start`] opens a session,
//! joins one by ticket, or resumes a membership from its folder.

pub mod folder;
pub mod handle;

pub use handle::{Handle, Screens};
