//! `alacritty_terminal` behind the engine's [`Emulator`], and the containment of its failures. A shell's output
//! is hostile input to a large parser: whatever it panics on costs a new, nearly empty screen, never the session.

mod bounded;
mod picture;
mod sequences;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alacritty_terminal::event::{Event, EventListener, WindowSize};
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::term::{Config, Osc52, Term};
use alacritty_terminal::vte::ansi::{NamedColor, Processor, Rgb, Timeout};

use crate::engine::limits::{
    EMULATOR_HISTORY_ROWS, EMULATOR_REPLY_BYTES_MAX, EMULATOR_TAIL_BYTES_MAX, EMULATOR_WORK_MAX,
};
use crate::engine::terminal::emulator::{Emulator, RawRow, RawScreen};
use crate::engine::terminal::painter::palette_rgb;
use crate::engine::terminal::screen::clamp_size;
use crate::engine::time::Mono;
use bounded::Bounded;
use sequences::{Kind, Sequences};

/// The emulator that hosts use: [`Alacritty`] with its failures contained.
pub fn contained(cols: u16, rows: u16) -> Contained<Alacritty> {
    Contained::new(cols, rows, |cols, rows| {
        Alacritty::new(cols, rows, EMULATOR_HISTORY_ROWS)
    })
}

/// An emulator whose panics are caught. After one it is made anew and fed what came shortly before, without
/// the piece that it failed on: as much in one turn as any turn may take, the rest in the turns that follow.
pub struct Contained<E> {
    make: fn(u16, u16) -> E,
    emulator: E,
    size: (u16, u16),
    tail: VecDeque<u8>,
    /// What of the tail a rebuilt emulator has not seen yet.
    behind: Vec<u8>,
    generation: u32,
    panicked: bool,
}

impl<E: Emulator> Contained<E> {
    /// Contains the emulator that `make` makes of columns and rows.
    pub fn new(cols: u16, rows: u16, make: fn(u16, u16) -> E) -> Self {
        let size = clamp_size(cols, rows);
        let emulator = make(size.0, size.1);
        Self {
            make,
            emulator,
            size,
            tail: VecDeque::new(),
            behind: Vec::new(),
            generation: 0,
            panicked: false,
        }
    }

    /// Runs a step of the emulator; on a panic the emulator is rebuilt.
    fn guard(&mut self, now: Mono, step: impl FnOnce(&mut E)) {
        if run(&mut self.emulator, step).is_none() {
            self.panicked = true;
            self.generation = self.generation.wrapping_add(1);
            self.rebuild(now);
        }
    }

    fn rebuild(&mut self, now: Mono) {
        let (cols, rows) = self.size;
        self.emulator = (self.make)(cols, rows);
        self.behind = self.tail.iter().copied().collect();
        self.replay(now);
    }

    /// Feeds a rebuilt emulator what one turn may take of what it has not seen yet: whoever fed what fails must not
    /// win time by it.
    fn replay(&mut self, now: Mono) {
        let behind = std::mem::take(&mut self.behind);
        match run(&mut self.emulator, |emulator| emulator.feed(&behind, now)) {
            Some(taken) => self.behind = behind.get(taken..).unwrap_or_default().to_vec(),
            None => {
                self.tail.clear();
                self.emulator = (self.make)(self.size.0, self.size.1);
            }
        }
        // What was asked before the failure was answered then.
        self.emulator.take_replies();
        self.emulator.take_bells();
    }

    fn remember(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(EMULATOR_TAIL_BYTES_MAX);
        let surplus = (self.tail.len() + kept).saturating_sub(EMULATOR_TAIL_BYTES_MAX);
        self.tail.drain(..surplus);
        self.tail.extend(bytes.iter().skip(bytes.len() - kept));
    }
}

/// The emulator's state is not looked at again after a panic but replaced, so it need not be unwind-safe.
fn run<E, T>(emulator: &mut E, step: impl FnOnce(&mut E) -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| step(emulator))).ok()
}

impl<E: Emulator> Emulator for Contained<E> {
    fn feed(&mut self, bytes: &[u8], now: Mono) -> usize {
        if !self.behind.is_empty() {
            self.replay(now);
            return 0;
        }
        let failures = self.generation;
        let mut taken = bytes.len();
        self.guard(now, |emulator| taken = emulator.feed(bytes, now));
        if failures == self.generation {
            self.remember(bytes.get(..taken).unwrap_or(bytes));
        }
        taken
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = clamp_size(cols, rows);
        self.size = (cols, rows);
        // The clock is not known here; a synchronized update that the tail leaves open ends with the next tick.
        self.guard(Mono::default(), |emulator| emulator.resize(cols, rows));
    }

    fn snapshot(&self) -> RawScreen {
        let screen =
            catch_unwind(AssertUnwindSafe(|| self.emulator.snapshot())).unwrap_or_else(|_| {
                let (cols, rows) = self.size;
                RawScreen {
                    cols,
                    rows: vec![RawRow::default(); rows.into()],
                    ..RawScreen::default()
                }
            });
        RawScreen {
            generation: screen.generation.wrapping_add(self.generation),
            ..screen
        }
    }

    fn take_replies(&mut self) -> Vec<u8> {
        self.emulator.take_replies()
    }

    fn take_bells(&mut self) -> u32 {
        self.emulator.take_bells()
    }

    fn deadline(&self) -> Option<Mono> {
        if self.behind.is_empty() {
            self.emulator.deadline()
        } else {
            Some(Mono::default())
        }
    }

    fn tick(&mut self, now: Mono) {
        if self.behind.is_empty() {
            self.guard(now, |emulator| emulator.tick(now));
        } else {
            self.replay(now);
        }
    }

    fn panicked(&mut self) -> bool {
        std::mem::take(&mut self.panicked)
    }
}

impl<E> fmt::Debug for Contained<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contained")
            .field("size", &self.size)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// `alacritty_terminal`, driven by the caller's clock, and bounded in work and memory whatever it is fed.
pub struct Alacritty {
    term: Bounded<Listener>,
    parser: Processor<NoTimer>,
    sequences: Sequences,
    pending: Arc<Mutex<Pending>>,
}

impl Alacritty {
    /// A blank screen with up to `history` rows above it that come back when it grows.
    pub fn new(cols: u16, rows: u16, history: usize) -> Self {
        let size = Size::clamped(cols, rows);
        let pending = Arc::new(Mutex::new(Pending {
            size,
            ..Pending::default()
        }));
        let config = Config {
            scrolling_history: history,
            osc52: Osc52::Disabled,
            ..Config::default()
        };
        let listener = Listener(Arc::clone(&pending));
        Self {
            term: Bounded::new(Term::new(config, &size, listener)),
            parser: Processor::new(),
            sequences: Sequences::default(),
            pending,
        }
    }

    fn with_pending<T>(&self, step: impl FnOnce(&mut Pending) -> T) -> T {
        step(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Emulator for Alacritty {
    fn feed(&mut self, bytes: &[u8], now: Mono) -> usize {
        self.tick(now);
        self.term.begin(now);
        let mut rest = bytes;
        while !rest.is_empty() && self.term.work() < EMULATOR_WORK_MAX {
            let stretch = self.sequences.next(rest);
            match stretch.kind {
                Kind::Plain => self.parser.advance(&mut self.term, stretch.bytes),
                Kind::Repetition => {
                    let (term, last) = (&mut self.term, stretch.bytes);
                    term.within_a_screen(|term| self.parser.advance(term, last));
                }
                Kind::Surplus => {}
            }
            self.term.count(stretch.bytes.len());
            rest = rest.get(stretch.bytes.len()..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        let size = Size::clamped(cols, rows);
        self.with_pending(|pending| pending.size = size);
        self.term.resize(size);
    }

    fn snapshot(&self) -> RawScreen {
        self.term.screen()
    }

    fn take_replies(&mut self) -> Vec<u8> {
        self.with_pending(|pending| std::mem::take(&mut pending.replies))
    }

    fn take_bells(&mut self) -> u32 {
        self.with_pending(|pending| std::mem::take(&mut pending.bells))
    }

    fn deadline(&self) -> Option<Mono> {
        self.term.held_until()
    }

    fn tick(&mut self, now: Mono) {
        self.term.tick(now);
    }
}

impl fmt::Debug for Alacritty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alacritty({:?})", self.term)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    cols: u16,
    rows: u16,
}

impl Size {
    fn clamped(cols: u16, rows: u16) -> Self {
        let (cols, rows) = clamp_size(cols, rows);
        Self { cols, rows }
    }
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.rows.into()
    }

    fn screen_lines(&self) -> usize {
        self.rows.into()
    }

    fn columns(&self) -> usize {
        self.cols.into()
    }
}

/// What the emulator says between two calls.
#[derive(Debug, Default)]
struct Pending {
    replies: Vec<u8>,
    bells: u32,
    size: Size,
}

impl Pending {
    fn reply(&mut self, text: &str) {
        if self.replies.len() + text.len() <= EMULATOR_REPLY_BYTES_MAX {
            self.replies.extend_from_slice(text.as_bytes());
        }
    }
}

/// Cell size in pixels that programs are told; no viewer's real one is known.
const CELL_PIXELS: (u16, u16) = (8, 16);

struct Listener(Arc<Mutex<Pending>>);

impl EventListener for Listener {
    fn send_event(&self, event: Event) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Bell => pending.bells = pending.bells.saturating_add(1),
            Event::PtyWrite(text) => pending.reply(&text),
            Event::ColorRequest(index, format) => pending.reply(&format(told_color(index))),
            Event::TextAreaSizeRequest(format) => {
                let Size { cols, rows } = pending.size;
                let (cell_width, cell_height) = CELL_PIXELS;
                let size = WindowSize {
                    num_lines: rows,
                    num_cols: cols,
                    cell_width,
                    cell_height,
                };
                pending.reply(&format(size));
            }
            Event::Title(_)
            | Event::ResetTitle
            | Event::ClipboardStore(..)
            | Event::ClipboardLoad(..)
            | Event::MouseCursorDirty
            | Event::CursorBlinkingChange
            | Event::Wakeup
            | Event::Exit
            | Event::ChildExit(_) => {}
        }
    }
}

/// The colours that programs are told: light on dark, since viewers differ.
fn told_color(index: usize) -> Rgb {
    let (r, g, b) = match u8::try_from(index) {
        Ok(index) => palette_rgb(index),
        Err(_) if index == NamedColor::Background as usize => (0, 0, 0),
        Err(_) => palette_rgb(7),
    };
    Rgb { r, g, b }
}

/// The parser's way of holding a synchronized update back is to collect its bytes and to go through all of them
/// at once, however long that takes. With a timer that never runs it does not: [`Bounded`] holds the picture back.
#[derive(Debug, Default)]
struct NoTimer;

impl Timeout for NoTimer {
    fn set_timeout(&mut self, _: Duration) {}

    fn clear_timeout(&mut self) {}

    fn pending_timeout(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::limits::{
        EMULATOR_MARKS_MAX, EMULATOR_STRETCH_BYTES_MAX, EMULATOR_STRING_BYTES_MAX, EMULATOR_SYNC,
        EMULATOR_TITLES_MAX,
    };
    use crate::engine::terminal::cell::{Attrs, Cell, Color, Style, Underline};
    use crate::engine::terminal::painter::plain_lines;
    use crate::engine::terminal::redaction::Redactor;
    use crate::engine::terminal::screen::{CursorShape, Screen, ScreenHost};

    const START: Mono = Mono(1_000_000);

    fn fed(bytes: &[u8]) -> Contained<Alacritty> {
        let mut emulator = contained(20, 5);
        feed_all(&mut emulator, bytes);
        emulator
    }

    fn screen(emulator: &impl Emulator) -> Screen {
        let mut host = ScreenHost::new();
        host.advance(Redactor::none().redact(emulator.snapshot()));
        host.current().unwrap().clone().into_inner()
    }

    fn lines(emulator: &impl Emulator) -> Vec<String> {
        plain_lines(&screen(emulator))
    }

    #[test]
    fn output_becomes_cells_with_styles_widths_and_wraps() {
        let emulator =
            fed("\x1b[1;38;2;1;2;3mred\x1b[0m\x1b[4:3m~\x1b[0m漢\te\u{301}\r\n".as_bytes());
        let screen = screen(&emulator);
        let line = &screen.rows[0].line;

        assert_eq!(line.text(), "red~漢  e\u{301}");
        assert_eq!(line.cell(0).style.fg, Color::Rgb(1, 2, 3));
        assert!(line.cell(0).style.attrs.contains(Attrs::BOLD));
        assert_eq!(line.cell(3).style.underline, Underline::Curly);
        assert!(line.cell(4).is_wide() && line.cell(5).is_spacer());
        assert_eq!((screen.cursor.x, screen.cursor.y), (0, 1));
        let long = fed(&[b'x'; 25]);
        assert!(self::screen(&long).rows[0].line.wrapped());
        assert!(!self::screen(&long).rows[1].line.wrapped());
    }

    #[test]
    fn modes_title_cursor_and_bells_are_reported() {
        let mut emulator =
            fed(b"\x1b[?1049h\x1b[?2004h\x1b[?1h\x1b[5 q\x1b[?25l\x1b]2;my title\x07\x07\x07");
        let screen = screen(&emulator);

        let modes: Vec<_> = screen.modes.names().collect();
        assert_eq!(
            modes,
            [
                "alt-screen",
                "bracketed-paste",
                "app-cursor",
                "alternate-scroll"
            ]
        );
        assert_eq!(screen.title, "my title");
        assert_eq!(
            (screen.cursor.shape, screen.cursor.blinking),
            (CursorShape::Bar, true)
        );
        assert!(!screen.cursor.visible);
        assert_eq!((emulator.take_bells(), emulator.take_bells()), (2, 0));
    }

    #[test]
    fn queries_are_answered_once_with_fixed_values() {
        let mut emulator = fed(b"ab\x1b[6n\x1b[c\x1b]11;?\x07\x1b[18t\x1b[14t");

        let replies = String::from_utf8(emulator.take_replies()).unwrap();

        assert_eq!(
            replies,
            "\x1b[1;3R\x1b[?6c\x1b]11;rgb:0000/0000/0000\x07\x1b[8;5;20t\x1b[4;80;160t"
        );
        assert_eq!(emulator.take_replies(), b"");
    }

    #[test]
    fn answers_do_not_pile_up_when_nobody_takes_them() {
        let mut emulator = fed(&b"\x1b[6n".repeat(100_000));

        assert!(emulator.take_replies().len() <= EMULATOR_REPLY_BYTES_MAX);
    }

    #[test]
    fn the_clipboard_stays_out_of_reach() {
        let mut emulator = fed(b"\x1b]52;c;aGVsbG8=\x07\x1b]52;c;?\x07");

        assert_eq!(emulator.take_replies(), b"");
    }

    #[test]
    fn a_synchronized_update_shows_at_its_end_or_when_its_time_is_over() {
        let mut emulator = fed(b"a\x1b[?2026hb");
        assert_eq!(lines(&emulator)[0], "a");
        let deadline = emulator.deadline().unwrap();
        assert_eq!(deadline, START + Duration::from_millis(150));

        emulator.feed(b"c", START + Duration::from_millis(100));
        assert_eq!(
            emulator.deadline(),
            Some(deadline),
            "output does not postpone it"
        );
        emulator.tick(START + Duration::from_millis(149));
        assert_eq!(lines(&emulator)[0], "a");
        emulator.tick(deadline);
        assert_eq!(lines(&emulator)[0], "abc");
        assert_eq!(emulator.deadline(), None);

        emulator.feed(b"\x1b[?2026hd\x1b[?2026l", deadline);
        assert_eq!(
            (lines(&emulator)[0].as_str(), emulator.deadline()),
            ("abcd", None)
        );
    }

    #[test]
    fn sizes_are_clamped_and_rows_come_back_when_the_screen_grows() {
        let mut emulator = fed(b"1\r\n2\r\n3\r\n4\r\n5");
        emulator.resize(20, 3);
        assert_eq!(lines(&emulator), ["3", "4", "5"]);
        emulator.resize(20, 5);
        assert_eq!(lines(&emulator), ["1", "2", "3", "4", "5"]);

        emulator.resize(1, 0);
        assert_eq!(
            (emulator.snapshot().cols, emulator.snapshot().rows.len()),
            (10, 2)
        );
        emulator.resize(u16::MAX, u16::MAX);
        assert_eq!(
            (emulator.snapshot().cols, emulator.snapshot().rows.len()),
            (500, 300)
        );
    }

    /// Feeds all of it, in as many turns as it takes; returns their number.
    fn feed_all(emulator: &mut impl Emulator, mut bytes: &[u8]) -> usize {
        let mut turns = 0;
        while !bytes.is_empty() {
            let taken = emulator.feed(bytes, START);
            assert!(taken > 0, "a turn takes something");
            bytes = &bytes[taken..];
            turns += 1;
        }
        turns
    }

    /// What a few bytes may ask for: each is repeated until it fills a piece of output.
    const LONG_WORK: [&[u8]; 17] = [
        b"x\x1b[65535b",
        b"\x1b[4hx\r\x1b[65535b",
        "\u{301}\x1b[65535b".as_bytes(),
        "漢\x1b[65535b".as_bytes(),
        b"\x1b#8",
        b"\x1bc",
        b"\x1b#8\x1bc",
        b"\x1b[2J",
        b"x\x1b[3J\x1b[999H\n",
        b"\x1b[?1049h\x1b[?1049l",
        b"\x1b[?3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3;3h",
        b"\x1b[3g\x1b[999C\x1b[65535Z",
        b"\x1b[H\x1bM",
        b"\x1b[2;999r\x1b[999H\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
        b"\x1b[41m\x1b[H\x1b[999M\x1b[42m\x1b[999M",
        b"\x1b[?2026h\x1b[?2026l",
        b"\x1b[?2026h\x1b#8\x1b#8\x1b#8\x1b#8\x1b#8\x1b#8\x1b#8\x1b#8\x1b#8\x1b#8",
    ];

    #[test]
    fn whatever_is_printed_a_turn_does_not_do_more_than_so_much() {
        for (cols, rows) in [(80, 24), (500, 300)] {
            // What is begun when the turn is over: resets, of two bytes, touch both grids and the rows above; or
            // one repetition, in insert mode, moves what is behind it once for each character.
            let reset = usize::from(cols) * (usize::from(rows) * 2 + EMULATOR_HISTORY_ROWS);
            let repeated = usize::from(u16::MAX).min(usize::from(cols) * usize::from(rows));
            let inserted = repeated * usize::from(cols) * 2;
            let begun = (EMULATOR_STRETCH_BYTES_MAX / 2 * reset).max(inserted);
            let most = EMULATOR_WORK_MAX + begun;
            for unit in LONG_WORK {
                let piece = unit.repeat(64 * 1024 / unit.len());
                let mut emulator = Alacritty::new(cols, rows, EMULATOR_HISTORY_ROWS);
                let taken = emulator.feed(&piece, START);

                let name = unit.escape_ascii();
                assert!(
                    emulator.term.work() <= most,
                    "{name}: {}",
                    emulator.term.work()
                );
                assert!(taken < piece.len() || cols == 80, "{name}: all in one turn");
            }
        }
    }

    #[test]
    fn plain_output_is_taken_in_one_turn() {
        let mut emulator = contained(80, 24);
        let lines: String = (100_000..108_000)
            .map(|line| format!("{line}\r\n"))
            .collect();

        assert_eq!(feed_all(&mut emulator, lines.as_bytes()), 1);
    }

    #[test]
    fn a_repetition_ends_with_the_screen() {
        for (output, end) in [("x\x1b[65535b", (1, 4)), ("x\x1b[7b\x1b[2b", (10, 0))] {
            let emulator = fed(output.as_bytes());

            let cursor = screen(&emulator).cursor;
            assert_eq!((cursor.x, cursor.y), end, "{output:?}");
        }
    }

    #[test]
    fn tabs_to_the_left_end_at_the_margin() {
        let steps = |output: &[u8]| {
            let mut emulator = Alacritty::new(500, 2, 0);
            feed_all(&mut emulator, output);
            let cursor = emulator.snapshot().cursor;
            (cursor.x, emulator.term.work() < 10_000)
        };

        assert_eq!(steps(b"\x1b[999C\x1b[2Z"), (488, true));
        assert_eq!(steps(b"\x1b[20C\x1b[65535Z"), (0, true));
        assert_eq!(steps(b"\x1b[3g\x1b[999C\x1b[65535Z"), (499, true));
    }

    #[test]
    fn a_long_synchronized_update_is_taken_turn_by_turn() {
        let mut emulator = contained(500, 300);
        let update = [&b"\x1b[?2026h"[..], &b"\x1b#8".repeat(20_000)].concat();

        assert!(emulator.feed(&update, START) < update.len());
        assert_eq!(emulator.deadline(), Some(START + EMULATOR_SYNC));
    }

    #[test]
    fn an_update_cannot_be_prolonged_by_beginning_it_again() {
        let mut emulator = fed(b"a\x1b[?2026hb");
        let later = START + Duration::from_millis(100);
        emulator.feed(b"\x1b[?2026hc", later);
        assert_eq!(emulator.deadline(), Some(START + EMULATOR_SYNC));

        emulator.feed(b"\x1b[?2026l\x1b[?2026hd", later);
        assert_eq!(lines(&emulator)[0], "abc");
        assert_eq!(emulator.deadline(), Some(later + EMULATOR_SYNC));
        emulator.resize(20, 4);
        assert_eq!(
            lines(&emulator),
            ["abcd", "", "", ""],
            "a new size shows all"
        );
    }

    #[test]
    fn a_rebuilt_emulator_does_the_work_of_one_turn() {
        let mut emulator = contained(80, 24);
        let tail = b"\x1b#8".repeat(20_000);
        emulator.tail.extend(&tail);

        emulator.rebuild(START);

        assert!(emulator.emulator.term.work() < 2 * EMULATOR_WORK_MAX);
    }

    #[test]
    fn a_rebuilt_screen_becomes_that_of_a_fresh_replay_in_several_turns() {
        let tail = [
            &b"\x1b#8".repeat(20_000)[..],
            b"\x1b[2J\x1b[3;3Hnewest\x1b[6n\x07",
        ]
        .concat();
        let mut emulator = contained(80, 24);
        emulator.tail.extend(&tail);
        emulator.rebuild(START);
        assert_ne!(
            lines(&emulator)[2],
            "  newest",
            "one turn is too short for it"
        );

        assert_eq!(
            emulator.feed(b"later", START),
            0,
            "what is older comes first"
        );
        let mut turns = 0;
        while emulator.deadline().is_some() {
            emulator.tick(START);
            turns += 1;
        }
        feed_all(&mut emulator, b"later");

        let mut fresh = contained(80, 24);
        feed_all(&mut fresh, &tail);
        feed_all(&mut fresh, b"later");
        assert_eq!(emulator.snapshot(), fresh.snapshot());
        assert_eq!(lines(&emulator)[2], "  newestlater");
        assert!(turns > 1);
        assert_eq!(
            (emulator.take_replies(), emulator.take_bells()),
            (vec![], 0),
            "answered before"
        );
    }

    #[test]
    fn sizes_down_to_one_column_leave_wide_characters_whole_and_memory_small() {
        let mut emulator = contained(20, 5);
        let text = "漢字👩\u{200d}👩e\u{301}x漢".repeat(50);
        for round in 0_u16..60 {
            feed_all(&mut emulator, text.as_bytes());
            emulator.resize([1, 2, 0, 11, 10, 3, 20][usize::from(round % 7)], round % 5);

            let screen = screen(&emulator);
            assert!((10..=20).contains(&screen.cols));
            for row in &screen.rows {
                let cells = row.line.cells();
                for (column, cell) in cells.iter().enumerate() {
                    assert_eq!(
                        cell.is_wide(),
                        cells.get(column + 1).is_some_and(Cell::is_spacer)
                    );
                }
            }
        }
        assert!(!emulator.panicked());
        assert!(emulator.emulator.term.bytes_kept() < 64 * 1024);
    }

    #[test]
    fn titles_put_aside_take_little_memory_and_come_back() {
        let mut emulator =
            fed(b"\x1b]2;first\x07\x1b[22;0t\x1b]2;second\x07\x1b[22t\x1b]2;third\x07");
        let title = |emulator: &Contained<Alacritty>| emulator.snapshot().title;
        assert_eq!(title(&emulator), "third");
        feed_all(&mut emulator, b"\x1b[23t");
        assert_eq!(title(&emulator), "second");
        feed_all(&mut emulator, b"\x1b[23;0t\x1b[23t");
        assert_eq!(title(&emulator), "first");

        let long = format!("\x1b]2;{}\x07", "x".repeat(200_000));
        feed_all(&mut emulator, long.as_bytes());
        feed_all(&mut emulator, &b"\x1b[22t".repeat(4096));

        let kept = emulator.emulator.term.bytes_kept();
        let most = (EMULATOR_TITLES_MAX + 1) * EMULATOR_STRING_BYTES_MAX;
        assert!(kept <= most, "{kept}");
        feed_all(&mut emulator, b"\x1b[23t");
        assert_eq!(
            title(&emulator).len(),
            EMULATOR_STRING_BYTES_MAX - "2;".len()
        );
    }

    #[test]
    fn links_take_no_memory_in_cells() {
        let mut emulator = contained(20, 5);
        for line in 0..100 {
            let link = format!(
                "\x1b]8;;http://{line}.{}\x07here\x1b]8;;\x07\r\n",
                "x".repeat(1000)
            );
            feed_all(&mut emulator, link.as_bytes());
        }

        assert_eq!(lines(&emulator)[0], "here");
        assert_eq!(emulator.emulator.term.bytes_kept(), 0);
    }

    #[test]
    fn piles_of_marks_take_no_memory() {
        let mut emulator = contained(20, 5);
        let marks = "\u{301}".repeat(100_000);
        feed_all(&mut emulator, format!("e{marks}").as_bytes());
        feed_all(&mut emulator, format!("漢{marks}").as_bytes());
        feed_all(
            &mut emulator,
            "\r\n\u{301}\x1b[65535b\r\n".repeat(100).as_bytes(),
        );
        feed_all(
            &mut emulator,
            format!("\x1b[20G_{marks}\r\nn\u{303}").as_bytes(),
        );

        let kept = emulator.emulator.term.bytes_kept();
        let most = 104 * EMULATOR_MARKS_MAX * size_of::<char>();
        assert!(kept <= most, "{kept}");
        assert_eq!(lines(&emulator).last().unwrap(), "n\u{303}");
    }

    #[test]
    fn an_endless_string_keeps_its_beginning_only() {
        let mut emulator = fed(b"\x1b]2;");
        for _ in 0..40 {
            feed_all(&mut emulator, &[b'x'; 16 * 1024]);
        }
        feed_all(&mut emulator, b"\x07back");

        let title = emulator.snapshot().title;
        assert_eq!(title.len(), EMULATOR_STRING_BYTES_MAX - "2;".len());
        assert_eq!(lines(&emulator)[0], "back");
    }

    #[test]
    fn a_character_in_two_pieces_swallows_nothing() {
        let output = "漢ގx".as_bytes();
        for cut in 0..output.len() {
            let mut emulator = fed(&output[..cut]);
            feed_all(&mut emulator, &output[cut..]);
            feed_all(&mut emulator, b"\xff.");
            let mut at_once = fed(&output[..cut]);
            feed_all(&mut at_once, &[&output[cut..], b"\xff."].concat());

            assert_eq!(lines(&emulator)[0], "漢ގx\u{fffd}.", "{cut}");
            assert_eq!(lines(&at_once)[0], "漢ގx\u{fffd}.", "{cut}");
        }
    }

    /// What the same output makes of `alacritty_terminal` as it is, and what that answers.
    fn without_bounds(output: &[u8]) -> (RawScreen, Vec<u8>) {
        let config = Config {
            scrolling_history: EMULATOR_HISTORY_ROWS,
            osc52: Osc52::Disabled,
            ..Config::default()
        };
        let size = Size::clamped(20, 5);
        let pending = Arc::new(Mutex::new(Pending {
            size,
            ..Pending::default()
        }));
        let mut term = Term::new(config, &size, Listener(Arc::clone(&pending)));
        Processor::<NoTimer>::new().advance(&mut term, output);
        let replies = pending.lock().unwrap().replies.clone();
        (picture::picture(&term, ""), replies)
    }

    fn with_bounds(output: &[u8]) -> (RawScreen, Vec<u8>) {
        let mut emulator = fed(output);
        let replies = emulator.take_replies();
        let screen = RawScreen {
            title: String::new(),
            ..emulator.snapshot()
        };
        (screen, replies)
    }

    #[test]
    fn each_sequence_does_what_it_does_without_bounds() {
        let filled = "abc\tdefghijklmnopqrstuvw漢字\r\n\x1b[31mred\x1b[m\r\n\r\nlast line\x1b[2;7H";
        let mut sequences: Vec<String> = (b'@'..=b'~')
            .flat_map(|last| {
                let last = char::from(last);
                [
                    "", "2", "3", "2;4", "?1", "?6", "?7", "?25", "?1049", "4", "20", "?3", ">1",
                ]
                .map(|arguments| format!("\x1b[{arguments}{last}"))
            })
            .collect();
        sequences.extend((b'0'..=b'~').map(|last| format!("\x1b{}", char::from(last))));
        sequences.extend(
            [
                "\t", "\x08", "\r", "\n", "\x0b", "\x07", "\x0e", "\x0f", "\x1a",
            ]
            .map(String::from),
        );
        // What shows only together.
        sequences.extend(
            [
                "\x1b[4hi\x1b[4l",
                "\x1b=\x1b>",
                "\x1b7\x1b[H\x1b[7m\x1b8",
                "\x1b[3g\x1b[5G\x1bH\r",
                "\x1b[?6$p\x1b[4$p\x1b]4;1;?\x07",
            ]
            .map(String::from),
        );
        sequences.extend(
            [
                "\x1b#8",
                "\x1b(0qqq",
                "\x1b)0\x0eqqq",
                "\x1b[5 q",
                "\x1b]50;CursorShape=1\x07",
            ]
            .map(String::from),
        );
        sequences.extend(
            [
                "\x1b]0;title\x07",
                "\x1b]2;title\x1b\\",
                "\x1bPq#0\x1b\\",
                "\x1b_apc\x1b\\",
            ]
            .map(String::from),
        );

        for sequence in sequences {
            let output = format!(
                "{filled}{sequence}\tx{sequence}yz\r\n{sequence}e\u{301}\x1b[5b\n漢\t\x1b[Z{sequence}"
            );
            assert_eq!(
                with_bounds(output.as_bytes()),
                without_bounds(output.as_bytes()),
                "{sequence:?}"
            );
        }
    }

    /// Shows bytes, and panics on `!`, or on its size when that is 13 columns.
    struct Fragile(Vec<u8>, u16);

    impl Emulator for Fragile {
        fn feed(&mut self, bytes: &[u8], _: Mono) -> usize {
            bytes.iter().for_each(|byte| assert_ne!(*byte, b'!'));
            self.0.extend_from_slice(bytes);
            bytes.len()
        }

        fn resize(&mut self, cols: u16, _: u16) {
            assert_ne!(cols, 13);
            self.1 = cols;
        }

        fn snapshot(&self) -> RawScreen {
            let cell = |byte: &u8| Cell::new(char::from(*byte), &[], false, Style::default());
            let row = RawRow {
                cells: self.0.iter().map(cell).collect(),
                wrapped: false,
            };
            RawScreen {
                cols: self.1,
                rows: vec![row, RawRow::default()],
                ..RawScreen::default()
            }
        }

        fn take_replies(&mut self) -> Vec<u8> {
            vec![]
        }

        fn take_bells(&mut self) -> u32 {
            0
        }

        fn deadline(&self) -> Option<Mono> {
            None
        }

        fn tick(&mut self, _: Mono) {}
    }

    #[test]
    fn a_panic_costs_the_failing_piece_and_a_new_generation() {
        let mut emulator = Contained::new(20, 2, |cols, _| Fragile(vec![], cols));
        emulator.feed(b"before ", START);
        assert!(!emulator.panicked());

        emulator.feed(b"bad!", START);
        emulator.feed(b"after", START);

        assert_eq!(lines(&emulator)[0], "before after");
        assert_eq!(emulator.snapshot().generation, 1);
        assert!(emulator.panicked());
        assert!(!emulator.panicked(), "reported once");
    }

    #[test]
    fn a_panic_while_resizing_is_contained_too() {
        let mut emulator = Contained::new(20, 2, |cols, _| Fragile(vec![], cols));
        emulator.feed(b"text", START);

        emulator.resize(13, 2);

        assert_eq!(
            (lines(&emulator)[0].as_str(), emulator.snapshot().cols),
            ("text", 13)
        );
        assert!(emulator.panicked());
    }

    #[test]
    fn the_tail_for_rebuilding_is_bounded() {
        let mut emulator = Contained::new(20, 2, |cols, _| Fragile(vec![], cols));
        for size in [10, EMULATOR_TAIL_BYTES_MAX * 2, 100] {
            emulator.feed(&vec![b'x'; size], START);
        }
        emulator.feed(b"yz", START);

        assert_eq!(emulator.tail.len(), EMULATOR_TAIL_BYTES_MAX);
        assert!(emulator.tail.iter().rev().take(2).eq(b"zy"));
    }

    fn any_output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(
                &[
                    "漢",
                    "e\u{301}",
                    "👩\u{200d}👩",
                    "\u{9b}",
                    "\t",
                    "\r\n",
                    "\x1b7",
                    "\x1b8",
                    "\x1bM",
                    "\x1b[?2026h",
                    "\x1b[?2026l",
                    "\x1b]2;title\x07",
                    "\x1b[65535b"
                ][..]
            )
            .prop_map(|text| text.as_bytes().to_vec()),
            "[a-z]{1,30}".prop_map(String::into_bytes),
            ("[0-9;?]{0,8}", "[@A-Za-z]")
                .prop_map(|(numbers, last)| format!("\x1b[{numbers}{last}").into_bytes()),
            prop::collection::vec(any::<u8>(), 0..12),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_printed_becomes_a_canonical_screen(
            output in any_output(), sizes in prop::collection::vec((0_u16..40, 0_u16..12), 0..3))
        {
            let mut emulator = contained(20, 5);
            for (cols, rows) in sizes {
                feed_all(&mut emulator, &output);
                emulator.resize(cols, rows);
            }
            feed_all(&mut emulator, &output);

            let screen = screen(&emulator);
            for row in &screen.rows {
                let line = &row.line;
                let cells = line.cells().to_vec();
                prop_assert!(crate::engine::terminal::cell::Line::checked(cells, line.wrapped(), screen.cols).is_ok());
            }
            prop_assert!(screen.cursor.x < screen.cols && screen.cursor.y < screen.height());
        }

        #[test]
        fn how_output_is_cut_changes_nothing(output in any_output(), cut in any::<prop::sample::Index>()) {
            let (left, right) = output.split_at(cut.index(output.len() + 1));
            let mut in_two = fed(left);
            feed_all(&mut in_two, right);

            prop_assert_eq!(in_two.snapshot(), fed(&output).snapshot());
        }
    }
}
