//! A shared terminal: from the bytes of a shell to a screen that anybody who holds it can serve and paint.
//!
//! ```text
//! bytes → Emulator → RawScreen → Redactor → Redacted<RawScreen> → ScreenHost → Redacted<Screen> → Frame
//!                                                                                    Frame → Redacted<Screen> → Painter
//! ```

pub mod cell;
pub mod emulator;
pub mod frame;
pub mod input;
pub mod painter;
pub mod redaction;
pub mod screen;
pub mod tree;
