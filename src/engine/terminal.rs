//! Hosting and viewing a terminal: the state of the screen, not its bytes.

pub mod emulator;
pub mod frame;
pub mod painter;
pub mod redaction;
pub mod screen;
pub mod tree;
