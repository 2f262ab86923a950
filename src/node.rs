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

/// From now on a message with this text makes the driver panic, to see in the lab that it is told and survived.
#[cfg(feature = "lab")]
pub fn panic_on(text: Option<String>) {
    if let Some(text) = text {
        // Whoever came first has said it.
        drop(driver::PANIC_ON.set(text));
    }
}
