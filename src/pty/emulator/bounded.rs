//! The terminal between the parser and `alacritty_terminal`: what a sequence asks for is passed on, its work is
//! counted, and what would grow without bound is cut. A few bytes may ask for a whole screen to be written or moved,
//! so work is counted in cells touched, not in bytes; the feeder stops when a turn has done enough.

use std::fmt;

use alacritty_terminal::event::EventListener;
use alacritty_terminal::grid::Dimensions;
#[cfg(test)]
use alacritty_terminal::index::Line;
use alacritty_terminal::term::cell::Flags;
use alacritty_terminal::term::{Term, TermMode};
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, LineClearMode,
    Mode, NamedPrivateMode, PrivateMode, StandardCharset, TabulationClearMode,
};
use unicode_width::UnicodeWidthChar;

use super::picture::picture;
use crate::engine::limits::{EMULATOR_MARKS_MAX, EMULATOR_SYNC, EMULATOR_TITLES_MAX};
use crate::engine::terminal::emulator::RawScreen;
use crate::engine::time::Mono;

/// A terminal with bounds.
pub(super) struct Bounded<L> {
    term: Term<L>,
    now: Mono,
    /// Bytes read and cells touched in this turn, about.
    work: usize,
    /// Characters that may still be printed; more are a repetition beyond the screen.
    room: usize,
    title: Option<String>,
    titles: Vec<Option<String>>,
    /// The picture before an open synchronized update, and when that ends.
    held: Option<(Mono, RawScreen)>,
}

impl<L: EventListener> Bounded<L> {
    pub(super) fn new(term: Term<L>) -> Self {
        Self {
            term,
            now: Mono::default(),
            work: 0,
            room: usize::MAX,
            title: None,
            titles: Vec::new(),
            held: None,
        }
    }

    /// Begins a turn.
    pub(super) fn begin(&mut self, now: Mono) {
        self.now = now;
        self.work = 0;
    }

    /// The work of this turn so far.
    pub(super) fn work(&self) -> usize {
        self.work
    }

    pub(super) fn count(&mut self, work: usize) {
        self.work = self.work.saturating_add(work);
    }

    /// Feeds something that may print for ever: it prints no more characters than the screen has cells.
    pub(super) fn within_a_screen(&mut self, feed: impl FnOnce(&mut Self)) {
        self.room = self.screen_work();
        feed(self);
        self.room = usize::MAX;
    }

    /// Changes the size; a synchronized update ends with it.
    pub(super) fn resize(&mut self, size: impl Dimensions) {
        self.held = None;
        self.term.resize(size);
    }

    /// What is to be seen now.
    pub(super) fn screen(&self) -> RawScreen {
        match &self.held {
            Some((_, picture)) => picture.clone(),
            None => self.picture(),
        }
    }

    /// When an open synchronized update ends at the latest.
    pub(super) fn held_until(&self) -> Option<Mono> {
        self.held.as_ref().map(|(until, _)| *until)
    }

    /// Ends a synchronized update whose time is over.
    pub(super) fn tick(&mut self, now: Mono) {
        if self.held_until().is_some_and(|until| until <= now) {
            self.held = None;
        }
    }

    /// Bytes of titles, marks and links, those of rows above the screen included.
    #[cfg(test)]
    pub(super) fn bytes_kept(&self) -> usize {
        let titles = self.titles.iter().chain([&self.title]).flatten();
        let grid = self.term.grid();
        let lines = grid.topmost_line().0..=grid.bottommost_line().0;
        let cells = lines.flat_map(|line| &grid[Line(line)]);
        let in_cells = cells.map(|cell| {
            let link = cell.hyperlink().map_or(0, |link| link.uri().len());
            link + size_of_val(cell.zerowidth().unwrap_or_default())
        });
        titles.map(String::len).sum::<usize>() + in_cells.sum::<usize>()
    }

    fn picture(&self) -> RawScreen {
        picture(&self.term, self.title.as_deref().unwrap_or_default())
    }

    fn row_work(&self) -> usize {
        self.term.columns()
    }

    fn screen_work(&self) -> usize {
        self.term.columns() * self.term.screen_lines()
    }

    /// Rows change places, and one of them is wiped.
    fn scroll_work(&self) -> usize {
        self.term.columns() + self.term.screen_lines()
    }

    /// Rows change places, and so many of them are wiped.
    fn scrolls_work(&self, rows: usize) -> usize {
        let wiped = rows.min(self.term.screen_lines());
        self.term.columns() * wiped + self.term.screen_lines()
    }

    /// Both grids and all rows above are wiped.
    fn history_work(&self) -> usize {
        let rows = self.term.history_size() + 2 * self.term.screen_lines();
        self.term.columns() * rows
    }

    fn mode_work(&self, mode: PrivateMode) -> usize {
        match mode {
            PrivateMode::Named(
                NamedPrivateMode::SwapScreenAndSetRestoreCursor | NamedPrivateMode::ColumnMode,
            ) => self.screen_work(),
            PrivateMode::Named(_) | PrivateMode::Unknown(_) => 0,
        }
    }

    fn input_work(&self, c: char) -> usize {
        let cursor = &self.term.grid().cursor;
        let last = cursor.point.column.0 + 1 >= self.term.columns();
        let wraps = cursor.input_needs_wrap || (last && !c.is_ascii());
        let shifts = self.term.mode().contains(TermMode::INSERT);
        let wrap = if wraps { self.scroll_work() } else { 0 };
        let behind = self.term.columns().saturating_sub(cursor.point.column.0);
        let shift = if shifts { behind } else { 0 };
        1 + wrap + shift
    }

    /// Whether a mark that is printed now joins a pile that is high enough.
    fn pile_is_full(&self) -> bool {
        let grid = self.term.grid();
        let cursor = &grid.cursor;
        let row = &grid[cursor.point.line];
        let mut column = cursor.point.column;
        if !cursor.input_needs_wrap {
            column.0 = column.0.saturating_sub(1);
        }
        if row[column].flags.contains(Flags::WIDE_CHAR_SPACER) {
            column.0 = column.0.saturating_sub(1);
        }
        let marks = row[column].zerowidth().unwrap_or_default();
        marks.len() >= EMULATOR_MARKS_MAX
    }
}

/// To make a cell of a picture takes as long as to touch so many.
const PICTURE_WORK: usize = 8;

impl<L> fmt::Debug for Bounded<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cols, rows) = (self.term.columns(), self.term.screen_lines());
        write!(f, "{cols}x{rows}")
    }
}

/// Passes calls on after counting their work: none beyond their bytes, or what a method of [`Bounded`] tells.
macro_rules! passed_on {
    ($($name:ident($($arg:ident: $kind:ty),*) $(=> $work:ident($($by:ident),*))?;)*) => {
        $(
            fn $name(&mut self, $($arg: $kind),*) {
                $(self.count(self.$work($($by),*));)?
                self.term.$name($($arg),*);
            }
        )*
    };
}

/// Not passed on, so without effect: clipboards, hyperlinks, keyboard modes and colours of the palette, none of
/// which is offered, and what `alacritty_terminal` does not know.
impl<L: EventListener> Handler for Bounded<L> {
    fn input(&mut self, c: char) {
        let Some(room) = self.room.checked_sub(1) else {
            // The parser goes on to ask, which takes its time too.
            return self.count(1);
        };
        self.room = room;
        self.count(self.input_work(c));
        if !c.is_ascii() && c.width() == Some(0) && self.pile_is_full() {
            return;
        }
        self.term.input(c);
    }

    /// One by one: without a tab stop to the left `alacritty_terminal` searches the row anew for each.
    fn move_backward_tabs(&mut self, count: u16) {
        for _ in 0..count {
            let before = self.term.grid().cursor.point.column;
            self.count(self.row_work());
            self.term.move_backward_tabs(1);
            if self.term.grid().cursor.point.column == before {
                return;
            }
        }
    }

    fn set_title(&mut self, title: Option<String>) {
        self.title = title;
    }

    fn push_title(&mut self) {
        if self.titles.len() >= EMULATOR_TITLES_MAX {
            self.titles.remove(0);
        }
        self.titles.push(self.title.clone());
    }

    fn pop_title(&mut self) {
        if let Some(title) = self.titles.pop() {
            self.title = title;
        }
    }

    fn reset_state(&mut self) {
        self.count(self.history_work());
        self.titles.clear();
        self.term.reset_state();
    }

    /// Cells do not show where they lead, and would keep it.
    fn set_hyperlink(&mut self, _: Option<Hyperlink>) {}

    fn set_private_mode(&mut self, mode: PrivateMode) {
        self.count(self.mode_work(mode));
        if mode == NamedPrivateMode::SyncUpdate.into() && self.held.is_none() {
            self.count(PICTURE_WORK * self.screen_work());
            self.held = Some((self.now + EMULATOR_SYNC, self.picture()));
        }
        self.term.set_private_mode(mode);
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        self.count(self.mode_work(mode));
        if mode == NamedPrivateMode::SyncUpdate.into() {
            self.held = None;
        }
        self.term.unset_private_mode(mode);
    }

    fn clear_screen(&mut self, mode: ClearMode) {
        self.count(match mode {
            ClearMode::Below | ClearMode::Above => self.screen_work(),
            // It is searched for its last line before it is moved up.
            ClearMode::All => 2 * self.screen_work(),
            ClearMode::Saved => self.history_work(),
        });
        self.term.clear_screen(mode);
    }

    passed_on! {
        set_cursor_style(style: Option<CursorStyle>);
        set_cursor_shape(shape: CursorShape);
        goto(line: i32, col: usize);
        goto_line(line: i32);
        goto_col(col: usize);
        insert_blank(count: usize) => row_work();
        move_up(rows: usize);
        move_down(rows: usize);
        identify_terminal(intermediate: Option<char>);
        device_status(which: usize);
        move_forward(cols: usize);
        move_backward(cols: usize);
        move_down_and_cr(rows: usize);
        move_up_and_cr(rows: usize);
        put_tab(count: u16) => row_work();
        backspace();
        carriage_return();
        linefeed() => scroll_work();
        bell();
        set_horizontal_tabstop();
        scroll_up(rows: usize) => scrolls_work(rows);
        scroll_down(rows: usize) => scrolls_work(rows);
        insert_blank_lines(rows: usize) => scrolls_work(rows);
        delete_lines(rows: usize) => scrolls_work(rows);
        erase_chars(count: usize) => row_work();
        delete_chars(count: usize) => row_work();
        move_forward_tabs(count: u16) => row_work();
        save_cursor_position();
        restore_cursor_position();
        clear_line(mode: LineClearMode) => row_work();
        clear_tabs(mode: TabulationClearMode) => row_work();
        reverse_index() => scroll_work();
        terminal_attribute(attr: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        report_mode(mode: Mode);
        report_private_mode(mode: PrivateMode);
        set_scrolling_region(top: usize, bottom: Option<usize>);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        set_active_charset(index: CharsetIndex);
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        dynamic_color_sequence(prefix: String, index: usize, terminator: &str);
        decaln() => screen_work();
        text_area_size_pixels();
        text_area_size_chars();
    }
}
