//! `alacritty_terminal` behind the engine's [`Emulator`], and the containment of its failures. A shell's output
//! is hostile input to a large parser: whatever it panics on costs a new, nearly empty screen, never the session.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alacritty_terminal::event::{Event, EventListener, WindowSize};
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::{Cell as GridCell, Flags};
use alacritty_terminal::term::{Config, Osc52, Term, TermMode};
use alacritty_terminal::vte::ansi::{
    self, Color as AnsiColor, NamedColor, Processor, Rgb, Timeout,
};

use crate::engine::limits::{
    CELL_CLUSTER_BYTES_MAX, EMULATOR_HISTORY_ROWS, EMULATOR_REPLY_BYTES_MAX,
    EMULATOR_STRING_BYTES_MAX, EMULATOR_TAIL_BYTES_MAX,
};
use crate::engine::terminal::cell::{Attrs, Cell, Color, Glyph, Style, Underline};
use crate::engine::terminal::emulator::{Emulator, RawRow, RawScreen};
use crate::engine::terminal::painter::palette_rgb;
use crate::engine::terminal::screen::{Cursor, CursorShape, Modes, clamp_size};
use crate::engine::time::Mono;

/// The emulator that hosts use: [`Alacritty`] with its failures contained.
pub fn contained(cols: u16, rows: u16) -> Contained<Alacritty> {
    Contained::new(cols, rows, |cols, rows| {
        Alacritty::new(cols, rows, EMULATOR_HISTORY_ROWS)
    })
}

/// An emulator whose panics are caught. After one it is made anew and fed what came shortly before, without
/// the piece that it failed on.
pub struct Contained<E> {
    make: fn(u16, u16) -> E,
    emulator: E,
    size: (u16, u16),
    tail: VecDeque<u8>,
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
        let tail = self.tail.make_contiguous();
        if run(&mut self.emulator, |emulator| emulator.feed(tail, now)).is_none() {
            self.tail.clear();
            self.emulator = (self.make)(cols, rows);
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
    fn feed(&mut self, bytes: &[u8], now: Mono) {
        let failures = self.generation;
        self.guard(now, |emulator| emulator.feed(bytes, now));
        if failures == self.generation {
            self.remember(bytes);
        }
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
        self.emulator.deadline()
    }

    fn tick(&mut self, now: Mono) {
        self.guard(now, |emulator| emulator.tick(now));
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

/// How much is fed at once, so that piles of marks are cut before they grow.
const SLICE_BYTES: usize = 64 * 1024;

/// `alacritty_terminal`, driven by the caller's clock.
pub struct Alacritty {
    term: Term<Listener>,
    parser: Processor<SyncTimer>,
    pending: Arc<Mutex<Pending>>,
    /// When the open synchronized update ends, and which start of one that is for.
    sync: Option<(u64, Mono)>,
    /// Bytes since one that ends control strings.
    unended: usize,
    /// Bytes since piles of marks were last cut.
    uncut: usize,
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
        Self {
            term: Term::new(config, &size, Listener(Arc::clone(&pending))),
            parser: Processor::new(),
            pending,
            sync: None,
            unended: 0,
            uncut: 0,
        }
    }

    fn with_pending<T>(&self, step: impl FnOnce(&mut Pending) -> T) -> T {
        step(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn advance(&mut self, bytes: &[u8], now: Mono) {
        self.parser.advance(&mut self.term, bytes);
        let timer = self.parser.sync_timeout();
        let known = self.sync.map(|(start, _)| start);
        self.sync = match timer.open {
            None => None,
            Some(_) if known == Some(timer.starts) => self.sync,
            Some(duration) => Some((timer.starts, now + duration)),
        };
        self.uncut += bytes.len();
        if self.uncut >= SLICE_BYTES {
            self.uncut = 0;
            self.cut_piles_of_marks();
        }
    }

    /// The parser keeps a control string (a title, say) until it ends, however long it grows. One that is too
    /// long is cancelled; the byte for that does nothing elsewhere, and after ASCII it splits no character.
    fn cancel_endless_string(&mut self, bytes: &[u8], now: Mono) {
        let ends = |byte: &u8| matches!(byte, 0x07 | 0x18 | 0x1a | 0x1b);
        match bytes.iter().rposition(ends) {
            Some(last) => self.unended = bytes.len() - last,
            None => self.unended += bytes.len(),
        }
        if self.unended > EMULATOR_STRING_BYTES_MAX && bytes.last().is_none_or(u8::is_ascii) {
            self.unended = 0;
            self.advance(b"\x18", now);
        }
    }

    /// Marks join the cell before them without limit; a screen shows few of them.
    fn cut_piles_of_marks(&mut self) {
        let grid = self.term.grid_mut();
        let (rows, cols) = (grid.screen_lines(), grid.columns());
        for line in (0_i32..).take(rows).map(Line) {
            for column in (0..cols).map(Column) {
                let cell = &mut grid[line][column];
                let pile = cell
                    .zerowidth()
                    .is_some_and(|marks| marks.len() > CELL_CLUSTER_BYTES_MAX);
                if pile {
                    cell.extra = None;
                }
            }
        }
    }
}

impl Emulator for Alacritty {
    fn feed(&mut self, bytes: &[u8], now: Mono) {
        self.tick(now);
        for slice in bytes.chunks(SLICE_BYTES) {
            self.advance(slice, now);
            self.cancel_endless_string(slice, now);
        }
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        let size = Size::clamped(cols, rows);
        self.with_pending(|pending| pending.size = size);
        self.term.resize(size);
    }

    fn snapshot(&self) -> RawScreen {
        let grid = self.term.grid();
        let row = |line| {
            let row = &grid[Line(line)];
            let cells: Vec<Cell> = row.into_iter().map(cell).collect();
            let wrapped = row
                .into_iter()
                .last()
                .is_some_and(|cell| cell.flags.contains(Flags::WRAPLINE));
            RawRow { cells, wrapped }
        };
        RawScreen {
            cols: u16::try_from(grid.columns()).unwrap_or(u16::MAX),
            rows: (0_i32..).take(grid.screen_lines()).map(row).collect(),
            cursor: self.cursor(),
            modes: modes(*self.term.mode()),
            title: self.with_pending(|pending| pending.title.clone()),
            generation: 0,
        }
    }

    fn take_replies(&mut self) -> Vec<u8> {
        self.with_pending(|pending| std::mem::take(&mut pending.replies))
    }

    fn take_bells(&mut self) -> u32 {
        self.with_pending(|pending| std::mem::take(&mut pending.bells))
    }

    fn deadline(&self) -> Option<Mono> {
        self.sync.map(|(_, deadline)| deadline)
    }

    fn tick(&mut self, now: Mono) {
        if self.sync.is_some_and(|(_, deadline)| deadline <= now) {
            self.sync = None;
            self.parser.stop_sync(&mut self.term);
        }
    }
}

impl Alacritty {
    fn cursor(&self) -> Cursor {
        let point = self.term.grid().cursor.point;
        let style = self.term.cursor_style();
        let (shape, drawn) = match style.shape {
            ansi::CursorShape::Block | ansi::CursorShape::HollowBlock => (CursorShape::Block, true),
            ansi::CursorShape::Underline => (CursorShape::Underline, true),
            ansi::CursorShape::Beam => (CursorShape::Bar, true),
            ansi::CursorShape::Hidden => (CursorShape::Block, false),
        };
        Cursor {
            x: u16::try_from(point.column.0).unwrap_or(u16::MAX),
            y: u16::try_from(point.line.0).unwrap_or(0),
            shape,
            blinking: style.blinking,
            visible: drawn && self.term.mode().contains(TermMode::SHOW_CURSOR),
        }
    }
}

impl fmt::Debug for Alacritty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cols, rows) = (self.term.columns(), self.term.screen_lines());
        write!(f, "Alacritty({cols}x{rows})")
    }
}

fn cell(cell: &GridCell) -> Cell {
    let style = style(cell);
    if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
        return Cell {
            glyph: Glyph::Spacer,
            style,
        };
    }
    let wide = cell.flags.contains(Flags::WIDE_CHAR);
    let marks = cell.zerowidth().unwrap_or_default();
    Cell::new(
        cell.c,
        marks.get(..CELL_CLUSTER_BYTES_MAX).unwrap_or(marks),
        wide,
        style,
    )
}

fn style(cell: &GridCell) -> Style {
    let flags = cell.flags;
    let attrs = [
        (Flags::BOLD, Attrs::BOLD),
        (Flags::DIM, Attrs::DIM),
        (Flags::ITALIC, Attrs::ITALIC),
        (Flags::INVERSE, Attrs::INVERSE),
        (Flags::HIDDEN, Attrs::HIDDEN),
        (Flags::STRIKEOUT, Attrs::STRIKE),
    ];
    let underlines = [
        (Flags::UNDERCURL, Underline::Curly),
        (Flags::DOUBLE_UNDERLINE, Underline::Double),
        (Flags::DOTTED_UNDERLINE, Underline::Dotted),
        (Flags::DASHED_UNDERLINE, Underline::Dashed),
        (Flags::UNDERLINE, Underline::Single),
    ];
    let set = |(flag, attr): (Flags, Attrs)| (attr, flags.contains(flag));
    let underline = underlines
        .into_iter()
        .find(|(flag, _)| flags.contains(*flag));
    Style {
        fg: color(cell.fg),
        bg: color(cell.bg),
        attrs: attrs
            .map(set)
            .into_iter()
            .fold(Attrs::default(), |all, (attr, on)| all.with(attr, on)),
        underline: underline.map_or(Underline::None, |(_, shape)| shape),
        underline_color: cell.underline_color().map_or(Color::Default, color),
    }
}

fn color(color: AnsiColor) -> Color {
    match color {
        AnsiColor::Indexed(index) => Color::Palette(index),
        AnsiColor::Spec(Rgb { r, g, b }) => Color::Rgb(r, g, b),
        AnsiColor::Named(name) => named_color(name),
    }
}

fn named_color(name: NamedColor) -> Color {
    let dim = NamedColor::DimBlack as usize..=NamedColor::DimWhite as usize;
    match name as usize {
        index @ 0..=15 => Color::Palette(u8::try_from(index).unwrap_or_default()),
        index if dim.contains(&index) => {
            Color::Palette(u8::try_from(index - dim.start()).unwrap_or_default())
        }
        _ => Color::Default,
    }
}

fn modes(mode: TermMode) -> Modes {
    [
        (TermMode::ALT_SCREEN, Modes::ALT_SCREEN),
        (TermMode::BRACKETED_PASTE, Modes::BRACKETED_PASTE),
        (TermMode::APP_CURSOR, Modes::APP_CURSOR),
        (TermMode::APP_KEYPAD, Modes::APP_KEYPAD),
        (TermMode::MOUSE_REPORT_CLICK, Modes::MOUSE_CLICK),
        (TermMode::MOUSE_DRAG, Modes::MOUSE_DRAG),
        (TermMode::MOUSE_MOTION, Modes::MOUSE_MOTION),
        (TermMode::SGR_MOUSE, Modes::MOUSE_SGR),
        (TermMode::UTF8_MOUSE, Modes::MOUSE_UTF8),
        (TermMode::FOCUS_IN_OUT, Modes::FOCUS),
        (TermMode::ALTERNATE_SCROLL, Modes::ALTERNATE_SCROLL),
        (TermMode::LINE_FEED_NEW_LINE, Modes::NEWLINE),
    ]
    .into_iter()
    .fold(Modes::default(), |all, (theirs, ours)| {
        all.with(ours, mode.contains(theirs))
    })
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
    title: String,
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
            Event::Title(title) => pending.title = title,
            Event::ResetTitle => pending.title.clear(),
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
            Event::ClipboardStore(..)
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

/// The parser's timer of synchronized updates. It cannot know the time; whoever feeds it does.
#[derive(Debug, Default)]
struct SyncTimer {
    open: Option<Duration>,
    starts: u64,
}

impl Timeout for SyncTimer {
    fn set_timeout(&mut self, duration: Duration) {
        self.open = Some(duration);
        self.starts = self.starts.wrapping_add(1);
    }

    fn clear_timeout(&mut self) {
        self.open = None;
    }

    fn pending_timeout(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::terminal::painter::plain_lines;
    use crate::engine::terminal::redaction::Redactor;
    use crate::engine::terminal::screen::{Screen, ScreenHost};

    const START: Mono = Mono(1_000_000);

    fn fed(bytes: &[u8]) -> Contained<Alacritty> {
        let mut emulator = contained(20, 5);
        emulator.feed(bytes, START);
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

    #[test]
    fn piles_of_marks_and_endless_strings_take_no_memory() {
        let mut emulator = contained(20, 5);
        let marks = "\u{301}".repeat(100_000);
        emulator.feed(b"e", START);
        for _ in 0..10 {
            emulator.feed(marks.as_bytes(), START);
        }
        let cell = &emulator.emulator.term.grid()[Line(0)][Column(0)];
        let marks = cell.zerowidth().map_or(0, <[char]>::len);
        assert!(marks <= 2 * SLICE_BYTES, "{marks}");

        emulator.feed(b"\x1b]2;", START);
        for _ in 0..40 {
            emulator.feed(&[b'x'; 16 * 1024], START);
        }
        emulator.feed(b"\r\nback", START);
        assert!(
            lines(&emulator).contains(&"back".to_owned()),
            "the string was cancelled"
        );
    }

    /// Shows bytes, and panics on `!`, or on its size when that is 13 columns.
    struct Fragile(Vec<u8>, u16);

    impl Emulator for Fragile {
        fn feed(&mut self, bytes: &[u8], _: Mono) {
            bytes.iter().for_each(|byte| assert_ne!(*byte, b'!'));
            self.0.extend_from_slice(bytes);
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
                    "\x1bM"
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
                emulator.feed(&output, START);
                emulator.resize(cols, rows);
            }
            emulator.feed(&output, START);

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
            in_two.feed(right, START);

            prop_assert_eq!(in_two.snapshot(), fed(&output).snapshot());
        }
    }
}
