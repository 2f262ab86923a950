//! Recorded terminals, played through a whole session: cut at every 7th byte, through the host's emulator, its
//! versions and frames, a viewer, a viewer that this one serves, and the painter. Wherever the output pauses, all
//! screens are the host's cell for cell, and so is what a terminal shows that was painted on.

#[path = "../../tests/harness/recording.rs"]
mod recording;

use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use recording::{Happened, Recording};

use crate::engine::capability::Role;
use crate::engine::command::Command;
use crate::engine::event::{Event, Lane, PtyEvent};
use crate::engine::ids::TerminalId;
use crate::engine::stage::Stage;
use crate::engine::terminal::cell::{Attrs, Cell, Color};
use crate::engine::terminal::emulator::Emulator;
use crate::engine::terminal::painter::{Caps, ColorDepth, Painter, Viewport, plain_lines};
use crate::engine::terminal::redaction::Redactor;
use crate::engine::terminal::screen::{Screen, ScreenHost};
use crate::engine::time::Mono;
use crate::pty::emulator::contained;

/// Who is on the stage: the host serves `NEAR` and `SLOW`, and `NEAR` serves `FAR`.
const HOST: usize = 0;
const NEAR: usize = 1;
const FAR: usize = 2;
const SLOW: usize = 3;

/// Output is cut after so many bytes.
const CUT: usize = 7;
/// Moments at which versions are made, at most, for one recording: each is a few milliseconds without optimization.
const MOMENTS: usize = 40;
/// Between two of them all screens are compared after so many.
const SETTLED_EVERY: usize = 8;
/// More than the time between two frames, and less than the patience for a synchronized update.
const MOMENT: Duration = Duration::from_millis(9);
/// More than that patience, and more than a viewer waits before it attaches again.
const PAUSE: Duration = Duration::from_millis(400);

/// Each recording is a test of its own.
macro_rules! recordings {
    ($($test:ident),+ $(,)?) => {
        const RECORDINGS: &[&str] = &[$(stringify!($test)),+];

        mod every_screen_is_the_hosts_cell_for_cell {
            $(#[test]
            fn $test() {
                super::play(stringify!($test));
            })+
        }
    };
}

recordings!(
    alternate_screen,
    apt_install,
    bash_colour_prompt,
    bash_line_editing,
    bash_long_command,
    binary_noise,
    cargo_build,
    cjk,
    clear_and_reset,
    colours,
    combining_marks,
    curl_progress,
    dash_session,
    dialog,
    dpkg_list,
    emoji,
    gcc_errors,
    git_add_patch,
    git_diff,
    git_log,
    htop,
    insert_delete,
    less_long_lines,
    less_paging,
    line_drawing,
    man,
    mc,
    mc_colours,
    nano,
    progress_carriage_return,
    progress_lines,
    progress_pip,
    python_repl,
    resize_less,
    resize_shell,
    resize_wide,
    scroll_regions,
    seq_large,
    synchronized_update,
    tabs,
    titles_links_bells,
    tmux_inside,
    top,
    vim_cjk,
    vim_insert,
    vim_resize,
    vim_scroll,
    vim_splits,
    watch,
    whiptail,
    wide_at_the_edge,
);

#[test]
fn each_recording_has_its_test() {
    let played: Vec<String> = RECORDINGS.iter().map(|name| file_of(name)).collect();

    assert_eq!(played, Recording::names());
}

#[test]
fn wherever_output_is_cut_the_screen_is_the_same() {
    for name in Recording::names() {
        let recording = Recording::read(&name);
        let whole = emulated(&recording, usize::MAX, usize::MAX);
        for phase in 1..=CUT {
            assert_eq!(
                emulated(&recording, phase, CUT),
                whole,
                "{name}, from byte {phase}"
            );
        }
    }
}

#[test]
fn an_update_left_open_freezes_no_viewer() {
    let mut session = Session::new((40, 6));

    session.print(b"before \x1b[?2026hleft open");
    session.moment();
    assert_eq!(session.screen(FAR).rows[0].line.text(), "before");
    session.stage.run(PAUSE);

    assert_eq!(session.screen(FAR).rows[0].line.text(), "before left open");
}

#[test]
fn a_query_is_answered_once_by_the_host_and_by_no_viewer() {
    let mut session = Session::new((40, 6));
    let before = session.stage.taken(HOST);

    session.print(b"\x1b[6n\x1b[c\x1b]11;?\x07\x1b[18t\x1b[?2026$p");
    session.moment();

    let mut emulator = contained(40, 6);
    feed(
        &mut emulator,
        b"\x1b[6n\x1b[c\x1b]11;?\x07\x1b[18t\x1b[?2026$p",
        Mono(1),
    );
    let answers = emulator.take_replies().len() as u64;
    assert!(answers > 0);
    assert_eq!(session.stage.taken(HOST) - before, answers);
    assert!(
        session
            .stage
            .lanes()
            .all(|lane| lane == Lane::Screen || lane == Lane::Control)
    );
    session.stage.run(PAUSE);
    assert_eq!(
        session.stage.taken(HOST) - before,
        answers,
        "and nothing later"
    );
}

#[test]
fn a_storm_of_sizes_leaves_every_viewer_with_the_hosts_screen() {
    let mut session = Session::new((40, 12));
    let text = "漢字とかな 👩\u{200d}👩\u{200d}👧 é e\u{301} x漢x".repeat(4);
    for (round, cols) in (0_u16..).zip([39, 11, 10, 1, 2, 27, 500, 13, 40, 3, 12, 41, 10, 80]) {
        session.print(format!("{text}\r\n\x1b[{};{}H漢", round + 1, cols).as_bytes());
        session.resize(cols, 300 / (round * 7 + 1));
    }
    session.settles();
}

fn file_of(test: &str) -> String {
    test.replace('_', "-")
}

/// Plays a recording through a session. Where its first cut is differs from recording to recording.
fn play(test: &str) {
    let name = file_of(test);
    let recording = Recording::read(&name);
    let phase = RECORDINGS.iter().position(|one| *one == test).unwrap() % CUT + 1;
    let mut session = Session::new(recording.size);
    let chunks = recording.output().len().div_ceil(CUT);
    let resizes = recording.sizes().len();
    let per_moment = chunks.div_ceil(MOMENTS.saturating_sub(resizes).max(10));

    let mut first = phase;
    for event in &recording.events {
        match event {
            Happened::Printed(bytes) => {
                let pieces = cut(bytes, first, CUT);
                first = CUT - (bytes.len() + CUT - first) % CUT;
                for moment in pieces.chunks(per_moment) {
                    moment.iter().for_each(|piece| session.print(piece));
                    session.moment();
                }
            }
            Happened::Resized(cols, rows) => session.resize(*cols, *rows),
        }
    }
    session.settles();

    let host = session.screen(HOST);
    let expected = emulated(&recording, usize::MAX, usize::MAX);
    assert_eq!(
        cells(&host),
        cells(&expected),
        "{name}: cut or not, the screen is one"
    );
    assert!(session.compared > 2, "{name}: something was compared");
}

/// The pieces of output: the first of so many bytes, the others of `every`.
fn cut(bytes: &[u8], first: usize, every: usize) -> Vec<&[u8]> {
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    let pieces = std::iter::once(head).chain(rest.chunks(every));
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// What an emulator alone makes of a recording at its end.
fn emulated(recording: &Recording, first: usize, every: usize) -> Screen {
    let mut emulator = contained(recording.size.0, recording.size.1);
    let mut now = Mono(1);
    for event in &recording.events {
        match event {
            Happened::Printed(bytes) => {
                for piece in cut(bytes, first, every) {
                    feed(&mut emulator, piece, now);
                }
            }
            Happened::Resized(cols, rows) => emulator.resize(*cols, *rows),
        }
    }
    now.0 += 1_000_000;
    emulator.tick(now);
    assert!(!emulator.panicked(), "the emulator failed");
    canonical(&emulator)
}

fn feed(emulator: &mut impl Emulator, mut bytes: &[u8], now: Mono) {
    while !bytes.is_empty() {
        let taken = emulator.feed(bytes, now);
        bytes = &bytes[taken..];
    }
}

fn canonical(emulator: &impl Emulator) -> Screen {
    let mut host = ScreenHost::new();
    host.advance(Redactor::none().redact(emulator.snapshot()));
    host.current().unwrap().clone().into_inner()
}

/// Every cell of a screen, those right of what was printed too.
fn cells(screen: &Screen) -> Vec<Vec<Cell>> {
    let columns = 0..usize::from(screen.cols);
    let row = |line: &crate::engine::terminal::cell::Line| -> Vec<Cell> {
        columns
            .clone()
            .map(|column| line.cell(column).clone())
            .collect()
    };
    screen.rows.iter().map(|each| row(&each.line)).collect()
}

/// A host and its viewers, and the terminals of two of these.
struct Session {
    stage: Stage,
    terminal: TerminalId,
    far: Window,
    slow: Window,
    moments: usize,
    compared: usize,
}

impl Session {
    fn new((cols, rows): (u16, u16)) -> Self {
        let emulators =
            Arc::new(|cols, rows| -> Box<dyn Emulator> { Box::new(contained(cols, rows)) });
        let mut stage = Stage::with_emulators(&[Role::Viewer; 3], emulators);
        let terminal = stage.open_terminal_of(HOST, (cols, rows));
        stage.run(PAUSE);
        stage.refer(FAR, terminal, NEAR);
        stage.run(PAUSE);
        assert_eq!(stage.parent(FAR, terminal), Some(stage.id(NEAR)));
        let mut session = Self {
            stage,
            terminal,
            far: Window::default(),
            slow: Window::default(),
            moments: 0,
            compared: 0,
        };
        // What the stage's own shell has printed goes away.
        session.print(b"\x1bc");
        session.stage.stall(HOST, SLOW);
        session.moment();
        session
    }

    fn print(&mut self, bytes: &[u8]) {
        let event = PtyEvent::Output(bytes.to_vec());
        let terminal = self.terminal;
        self.stage.happen(HOST, Event::Pty { terminal, event });
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        let terminal = self.terminal;
        let resize = Command::ResizeTerminal {
            terminal,
            cols,
            rows,
        };
        self.stage.command(HOST, resize).unwrap();
        self.moment();
    }

    fn screen(&mut self, node: usize) -> Screen {
        let screen = self.stage.screen(node, self.terminal);
        screen.expect("everybody has a picture").into_inner()
    }

    /// Time passes, and everybody has what there is, but for the slow viewer, which has it later.
    fn moment(&mut self) {
        self.stage.forget_sent();
        self.stage.run(MOMENT);
        self.moments += 1;
        let far = self.screen(FAR);
        assert_eq!(far, self.screen(HOST), "two hops away");
        self.far.show(&far);
        if self.moments.is_multiple_of(SETTLED_EVERY) {
            self.catch_up();
        }
    }

    /// The slow viewer gets what it missed.
    fn catch_up(&mut self) {
        for _ in 0..3 {
            self.stage.release(HOST, SLOW, true);
        }
        let [host, near, far, slow] = [HOST, NEAR, FAR, SLOW].map(|node| self.screen(node));
        for (who, viewer) in [("near", &near), ("far", &far), ("slow", &slow)] {
            assert_eq!(viewer, &host, "{who}");
            assert_eq!(viewer.digest(), host.digest(), "{who}");
        }
        self.slow.show(&slow);
        self.slow.equals(&slow);
        self.far.equals(&far);
        self.compared += 1;
    }

    /// The end: an open update shows, and everybody has all.
    fn settles(&mut self) {
        self.stage.run(PAUSE);
        self.moment();
        self.catch_up();
        let near = self.stage.id(NEAR);
        assert_eq!(
            self.stage.parent(FAR, self.terminal),
            Some(near),
            "by two hops to the end"
        );
        assert!(
            self.far.paints > self.slow.paints,
            "the slow viewer skipped versions"
        );
    }
}

/// All that a terminal can show.
const CAPS: Caps = Caps {
    colors: ColorDepth::TrueColor,
    underlines: true,
};

/// A viewer's own terminal, as two emulators of different origin show it.
#[derive(Default)]
struct Window {
    painter: Painter,
    size: (u16, u16),
    same: Option<Box<dyn Emulator>>,
    other: Option<vt100::Parser>,
    paints: usize,
}

impl Window {
    fn show(&mut self, screen: &Screen) {
        let (cols, rows) = (screen.cols, screen.height());
        if self.size != (cols, rows) {
            // A window of another size is blank: how terminals reflow is their own.
            self.size = (cols, rows);
            self.painter.forget();
            self.same = Some(Box::new(contained(cols, rows)));
            let [rows, cols] = [rows, cols].map(|side| NonZeroU16::new(side).unwrap());
            self.other = Some(vt100::Parser::new(rows, cols, 0));
        }
        let bytes = self.painter.paint(screen, Viewport::new(cols, rows), CAPS);
        let same = self.same.as_mut().unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let taken = same.feed(rest, Mono(1));
            rest = &rest[taken..];
        }
        assert_eq!(same.take_replies(), b"", "what is painted asks nothing");
        let other = self.other.as_mut().unwrap();
        let bytes = for_witness(std::str::from_utf8(&bytes).unwrap());
        catch_unwind(AssertUnwindSafe(|| other.process(bytes.as_bytes())))
            .expect("the witness takes what is painted");
        self.paints += 1;
    }

    /// What is painted is the screen: each cell with its style, and the cursor.
    #[track_caller]
    fn equals(&self, screen: &Screen) {
        let mut host = ScreenHost::new();
        let snapshot = self.same.as_ref().unwrap().snapshot();
        host.advance(Redactor::none().redact(snapshot));
        let painted = host.current().unwrap().clone().into_inner();
        for (row, (painted, own)) in cells(&painted)
            .iter()
            .zip(&painted_cells(screen))
            .enumerate()
        {
            assert_eq!(painted, own, "painted row {row}");
        }
        let own = screen.cursor;
        assert_eq!((painted.cursor.x, painted.cursor.y), (own.x, own.y));
        assert_eq!(painted.cursor.visible, own.visible);
        assert_eq!(
            (painted.cursor.shape, painted.cursor.blinking),
            (own.shape, own.blinking)
        );

        self.witnessed(screen);
    }

    /// The other emulator shows the same text in the same columns, and the same colours.
    #[track_caller]
    fn witnessed(&self, screen: &Screen) {
        let other = self.other.as_ref().unwrap().screen();
        for (y, own) in (0..).zip(painted_cells(screen)) {
            for (x, own) in (0..).zip(own) {
                let mut text = String::new();
                own.push_text(&mut text);
                if own.is_spacer() {
                    continue;
                }
                let shown = other.cell(y, x).unwrap();
                let contents = if shown.has_contents() {
                    shown.contents()
                } else {
                    " "
                };
                let place = format!(
                    "row {y}, column {x} of {:?}",
                    plain_lines(screen)[usize::from(y)]
                );
                assert_eq!(contents, for_witness(&text), "{place}");
                let style = own.style;
                assert_eq!(shown.bgcolor(), color(style.bg), "{place}");
                if text != " " {
                    assert_eq!(shown.fgcolor(), color(style.fg), "{place}");
                    assert_eq!(shown.bold(), style.attrs.contains(Attrs::BOLD), "{place}");
                    assert_eq!(
                        shown.inverse(),
                        style.attrs.contains(Attrs::INVERSE),
                        "{place}"
                    );
                }
            }
        }
        let own = screen.cursor;
        assert_eq!(other.cursor_position(), (own.y, own.x));
        assert_eq!(other.hide_cursor(), !own.visible);
    }
}

/// Text as the witness takes it: it prints no replacement character, so it gets another.
fn for_witness(text: &str) -> String {
    text.replace('\u{fffd}', "□")
}

/// Every cell of a screen as it is painted.
fn painted_cells(screen: &Screen) -> Vec<Vec<Cell>> {
    let rows = cells(screen).into_iter();
    rows.map(|row| row.iter().map(as_painted).collect())
        .collect()
}

/// A cell as it is painted: without the selector of emoji form if it has one column.
fn as_painted(cell: &Cell) -> Cell {
    let mut text = String::new();
    cell.push_text(&mut text);
    let mut chars = text.chars().filter(|mark| *mark != '\u{fe0f}');
    match (chars.next(), text.contains('\u{fe0f}') && !cell.is_wide()) {
        (Some(base), true) => Cell::new(base, &chars.collect::<Vec<_>>(), false, cell.style),
        (Some(_) | None, _) => cell.clone(),
    }
}

fn color(color: Color) -> vt100::Color {
    match color {
        Color::Default => vt100::Color::Default,
        Color::Palette(index) => vt100::Color::Idx(index),
        Color::Rgb(red, green, blue) => vt100::Color::Rgb(red, green, blue),
    }
}
