//! Shells and their terminals, on the host only: the [`unix`] pseudo-terminal, the [`emulator`] behind the
//! engine's trait, and [`echo`], a shell and an emulator in memory for simulated worlds and demonstrations.

pub mod echo;
#[cfg(feature = "pty")]
pub mod emulator;
#[cfg(test)]
#[cfg(feature = "pty")]
mod recordings;
#[cfg(feature = "pty")]
pub mod unix;
