//! What the engine asks of a terminal emulator, so that the one in use can be replaced and a simulated world
//! can bring its own. An emulator never reads a clock: every call that may depend on time is told it.

use crate::engine::terminal::cell::Cell;
use crate::engine::terminal::screen::{Cursor, Modes};
use crate::engine::time::Mono;

/// A terminal emulator without a window: bytes of a program in, the state of the screen out.
pub trait Emulator: Send {
    /// Takes output of the program, in pieces of any size: how it is cut changes nothing. Returns how many bytes
    /// it took: some are long work, and one turn does not do more than so much. The rest is to be fed again before
    /// anything else. None at all is taken only in the few turns in which a failed emulator is rebuilt.
    fn feed(&mut self, bytes: &[u8], now: Mono) -> usize;

    /// Changes the size, clamped to the limits of a shared screen.
    fn resize(&mut self, cols: u16, rows: u16);

    /// The visible screen as it is. Its text is hostile and not yet cleaned.
    fn snapshot(&self) -> RawScreen;

    /// Answers to the program's queries since the last call. Only the host writes them, to the shell, once.
    fn take_replies(&mut self) -> Vec<u8>;

    /// Bells since the last call.
    fn take_bells(&mut self) -> u32;

    /// When [`Emulator::tick`] is due: the end of a synchronized update that its program left open.
    fn deadline(&self) -> Option<Mono>;

    /// Ends a synchronized update whose time is over.
    fn tick(&mut self, now: Mono);

    /// Whether the emulator failed and was rebuilt since the last call. The next snapshot has another
    /// [`RawScreen::generation`] then.
    fn panicked(&mut self) -> bool {
        false
    }
}

/// The visible screen of an emulator at one moment, before cleaning and redaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawScreen {
    /// Width of the screen in columns.
    pub cols: u16,
    /// From top to bottom.
    pub rows: Vec<RawRow>,
    /// Where the next character goes.
    pub cursor: Cursor,
    /// What the program asked of its terminal.
    pub modes: Modes,
    /// The window title that the program set, or nothing.
    pub title: String,
    /// Grows when the emulator starts anew: rows before and after are then unrelated.
    pub generation: u32,
}

/// One row of a [`RawScreen`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawRow {
    /// From the left; columns beyond the last cell are blank.
    pub cells: Vec<Cell>,
    /// Whether the text goes on in the row below because it reached the right edge.
    pub wrapped: bool,
}
