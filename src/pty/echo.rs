//! A shell and an emulator in memory, without processes, clocks or tasks: [`Echo`] shows what it is given and
//! gives it back, [`Glass`] shows it as a glass teletype would. Together they are a terminal for simulated
//! worlds and demonstrations.

use crate::engine::terminal::cell::{Cell, Style};
use crate::engine::terminal::emulator::{Emulator, RawRow, RawScreen};
use crate::engine::terminal::screen::{Cursor, Modes, clamp_size};
use crate::engine::time::Mono;

const PROMPT: &[u8] = b"$ ";
/// A longer line is cut, as a canonical terminal does.
const LINE_BYTES_MAX: usize = 4096;

/// A shell that repeats each line. `exit N` and, on an empty line, Ctrl-D end it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Echo {
    line: Vec<u8>,
    taken: u64,
    status: Option<i32>,
}

impl Echo {
    /// Starts it: the shell and its first output.
    pub fn start() -> (Self, Vec<u8>) {
        (Self::default(), PROMPT.to_vec())
    }

    /// Takes input and returns what is printed. After the end it takes nothing.
    pub fn input(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        for byte in bytes {
            if self.status.is_some() {
                break;
            }
            self.taken = self.taken.saturating_add(1);
            self.key(*byte, &mut output);
        }
        output
    }

    /// Bytes of input taken since the start.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The exit status, once it has ended.
    pub fn status(&self) -> Option<i32> {
        self.status
    }

    fn key(&mut self, byte: u8, output: &mut Vec<u8>) {
        match byte {
            b'\r' | b'\n' => {
                output.extend_from_slice(b"\r\n");
                self.enter(output);
            }
            0x03 => {
                self.line.clear();
                output.extend_from_slice(b"^C\r\n");
                output.extend_from_slice(PROMPT);
            }
            0x04 if self.line.is_empty() => self.status = Some(0),
            0x08 | 0x7f => {
                if self.erase() {
                    output.extend_from_slice(b"\x08 \x08");
                }
            }
            0..=0x1f => output.extend_from_slice(&[b'^', byte | 0x40]),
            byte if self.line.len() < LINE_BYTES_MAX => {
                self.line.push(byte);
                output.push(byte);
            }
            _ => output.push(0x07),
        }
    }

    /// Takes the last character off the line, all its bytes.
    fn erase(&mut self) -> bool {
        while let Some(byte) = self.line.pop() {
            if !matches!(byte, 0x80..=0xbf) {
                return true;
            }
        }
        false
    }

    fn enter(&mut self, output: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some("exit"), status) => {
                self.status = Some(status.and_then(|status| status.parse().ok()).unwrap_or(0));
                return;
            }
            (Some(_), _) => {
                output.extend_from_slice(&line);
                output.extend_from_slice(b"\r\n");
            }
            (None, _) => {}
        }
        output.extend_from_slice(PROMPT);
    }
}

/// A terminal that knows text, line ends, backspace, tab and bell. Escape sequences show nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glass {
    cols: usize,
    rows: Vec<RawRow>,
    x: usize,
    y: usize,
    bells: u32,
    partial: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    Sequence,
}

impl Glass {
    /// A blank screen, its size clamped to the limits of a shared screen.
    pub fn new(cols: u16, rows: u16) -> Self {
        let (cols, rows) = clamp_size(cols, rows);
        Self {
            cols: cols.into(),
            rows: vec![RawRow::default(); rows.into()],
            x: 0,
            y: 0,
            bells: 0,
            partial: Vec::new(),
            escape: Escape::None,
        }
    }

    fn byte(&mut self, byte: u8) {
        match (self.escape, byte) {
            (_, 0x1b) => self.escape = Escape::Begun,
            (Escape::Begun, b'[') => self.escape = Escape::Sequence,
            (Escape::Begun, _) | (Escape::Sequence, 0x40..=0x7e) => self.escape = Escape::None,
            (Escape::Sequence, _) => {}
            (Escape::None, b'\r') => self.x = 0,
            (Escape::None, b'\n') => self.line_feed(),
            (Escape::None, 0x08) => self.x = self.x.saturating_sub(1),
            (Escape::None, b'\t') => self.x = (self.x / 8 * 8 + 8).min(self.cols - 1),
            (Escape::None, 0x07) => self.bells = self.bells.saturating_add(1),
            (Escape::None, 0..=0x1f | 0x7f) => {}
            (Escape::None, byte) => self.text(byte),
        }
    }

    /// Gathers the bytes of one character; what is no UTF-8 shows as a replacement character.
    fn text(&mut self, byte: u8) {
        self.partial.push(byte);
        let partial = std::mem::take(&mut self.partial);
        match std::str::from_utf8(&partial) {
            Ok(text) => text.chars().for_each(|char| self.put(char)),
            Err(error) if error.error_len().is_none() => self.partial = partial,
            Err(_) => self.put(char::REPLACEMENT_CHARACTER),
        }
    }

    fn put(&mut self, char: char) {
        if self.x >= self.cols {
            if let Some(row) = self.rows.get_mut(self.y) {
                row.wrapped = true;
            }
            self.x = 0;
            self.line_feed();
        }
        let x = self.x;
        if let Some(row) = self.rows.get_mut(self.y) {
            if row.cells.len() <= x {
                row.cells.resize(x + 1, Cell::BLANK);
            }
            let cell = Cell::new(char, &[], false, Style::default());
            row.cells
                .get_mut(x)
                .into_iter()
                .for_each(|place| *place = cell.clone());
        }
        self.x += 1;
    }

    fn line_feed(&mut self) {
        if self.y + 1 < self.rows.len() {
            self.y += 1;
        } else {
            self.rows.rotate_left(1);
            self.rows
                .last_mut()
                .into_iter()
                .for_each(|row| *row = RawRow::default());
        }
    }
}

impl Emulator for Glass {
    fn feed(&mut self, bytes: &[u8], _: Mono) -> usize {
        bytes.iter().for_each(|byte| self.byte(*byte));
        bytes.len()
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = clamp_size(cols, rows);
        self.cols = cols.into();
        let surplus = (self.y + 1).saturating_sub(rows.into());
        self.rows.drain(..surplus);
        self.rows.resize(rows.into(), RawRow::default());
        self.rows
            .iter_mut()
            .for_each(|row| row.cells.truncate(self.cols));
        (self.x, self.y) = (self.x.min(self.cols), self.y - surplus);
    }

    fn snapshot(&self) -> RawScreen {
        let place = |place: usize| u16::try_from(place).unwrap_or(u16::MAX);
        RawScreen {
            cols: place(self.cols),
            rows: self.rows.clone(),
            cursor: Cursor {
                x: place(self.x),
                y: place(self.y),
                visible: true,
                ..Cursor::default()
            },
            modes: Modes::default(),
            title: String::new(),
            generation: 0,
        }
    }

    fn take_replies(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn take_bells(&mut self) -> u32 {
        std::mem::take(&mut self.bells)
    }

    fn deadline(&self) -> Option<Mono> {
        None
    }

    fn tick(&mut self, _: Mono) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::terminal::painter::plain_lines;
    use crate::engine::terminal::redaction::Redactor;
    use crate::engine::terminal::screen::ScreenHost;

    fn lines(glass: &Glass) -> Vec<String> {
        let mut host = ScreenHost::new();
        host.advance(Redactor::none().redact(glass.snapshot()));
        plain_lines(host.current().unwrap())
    }

    #[test]
    fn what_is_typed_is_echoed_and_given_back() {
        let (mut shell, first) = Echo::start();
        let mut glass = Glass::new(20, 4);
        glass.feed(&first, Mono(0));

        glass.feed(&shell.input("hé\x7fhix\x7f\r".as_bytes()), Mono(0));

        assert_eq!(lines(&glass), ["$ hhi", "hhi", "$", ""]);
        assert_eq!((shell.taken(), shell.status()), (9, None));
    }

    #[test]
    fn it_ends_by_command_or_end_of_input_and_then_takes_nothing() {
        let (mut shell, _) = Echo::start();
        shell.input(b"exit 3\rmore");
        assert_eq!((shell.status(), shell.taken()), (Some(3), 7));
        assert_eq!(shell.input(b"x"), b"");

        let (mut shell, _) = Echo::start();
        assert_eq!(shell.input(b"a\x03\x04"), b"a^C\r\n$ ");
        assert_eq!(shell.status(), Some(0));
    }

    #[test]
    fn the_glass_wraps_scrolls_and_ignores_sequences() {
        let mut glass = Glass::new(10, 3);

        glass.feed(
            "1\r\n2\r\n\x1b[31m0123456789漢\x1b[0m\x07".as_bytes(),
            Mono(0),
        );

        assert_eq!(lines(&glass), ["2", "0123456789", "漢"]);
        assert!(glass.snapshot().rows[1].wrapped);
        assert_eq!((glass.take_bells(), glass.take_bells()), (1, 0));
        glass.resize(10, 2);
        assert_eq!(lines(&glass), ["0123456789", "漢"]);
    }
}
