//! The session as a pure state machine.

pub mod admission;
pub mod capability;
pub mod command;
pub mod connections;
pub mod control;
pub mod documents;
pub mod effect;
pub mod entropy;
pub mod envelope;
pub mod epoch;
pub mod error;
pub mod event;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod log;
pub mod membership;
pub mod message;
pub mod persist;
pub mod statement;
pub mod sync;
pub mod terminal;
pub mod ticket;
pub mod time;
pub mod timers;
pub mod view;
