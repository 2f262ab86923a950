//! The Automerge documents of a session.

pub mod chat;
pub mod gate;
pub mod member;
pub mod presence;
pub mod schema;
pub mod session;
