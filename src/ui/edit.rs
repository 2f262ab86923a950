//! A line that a person edits: the chat line.

use unicode_width::UnicodeWidthChar;

use crate::ui::keys::Key;
use crate::ui::text;

/// A line and where its cursor is.
#[derive(Debug, Default)]
pub(super) struct EditLine {
    text: String,
    /// In bytes, always between two characters.
    cursor: usize,
    /// How many bytes the line may have.
    bytes_max: usize,
}

impl EditLine {
    /// An empty line for at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            text: String::new(),
            cursor: 0,
            bytes_max,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Empties the line and hands over what it held.
    pub(super) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Whether the key meant something here.
    pub(super) fn key(&mut self, key: Key) -> bool {
        match key {
            Key::Char(c) => self.insert(c),
            Key::Backspace | Key::Ctrl('h') => self.cut(self.before(), self.cursor),
            Key::Delete | Key::Ctrl('d') => self.cut(self.cursor, self.after()),
            Key::Left | Key::Ctrl('b') => self.cursor = self.before(),
            Key::Right | Key::Ctrl('f') => self.cursor = self.after(),
            Key::Home | Key::Ctrl('a') => self.cursor = 0,
            Key::End | Key::Ctrl('e') => self.cursor = self.text.len(),
            Key::Ctrl('u') => self.cut(0, self.cursor),
            Key::Ctrl('k') => self.cut(self.cursor, self.text.len()),
            Key::Ctrl('w') => self.cut(self.word_before(), self.cursor),
            Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Enter
            | Key::Tab
            | Key::BackTab
            | Key::Escape
            | Key::Up
            | Key::Down
            | Key::PageUp
            | Key::PageDown
            | Key::Unknown => return false,
        }
        true
    }

    /// A pasted text becomes one line: line breaks and other controls become spaces.
    pub(super) fn paste(&mut self, bytes: &[u8]) {
        let pasted = String::from_utf8_lossy(bytes);
        for c in pasted.trim_end_matches(['\r', '\n']).chars() {
            self.insert(if c.is_control() { ' ' } else { c });
        }
    }

    /// The part of the line around the cursor that fits, as it is shown, and the column of the cursor in it.
    pub(super) fn window(&self, cols: u16) -> (String, u16) {
        let (left, right) = self
            .text
            .split_at_checked(self.cursor)
            .unwrap_or((&self.text, ""));
        let (left, right) = (text::shown(left), text::shown(right));
        let room = usize::from(cols.saturating_sub(1));
        let kept = text::tail(&left, room);
        let column = text::width(kept);
        let line = format!(
            "{kept}{}",
            text::head(&right, usize::from(cols).saturating_sub(column))
        );
        (line, u16::try_from(column).unwrap_or(u16::MAX))
    }

    fn insert(&mut self, c: char) {
        if self.text.len().saturating_add(c.len_utf8()) <= self.bytes_max {
            self.text.insert(self.cursor, c);
            self.cursor = self.cursor.saturating_add(c.len_utf8());
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    /// Before the character left of the cursor, with its marks.
    fn before(&self) -> usize {
        let left = self.text.get(..self.cursor).unwrap_or_default();
        let mut characters = left.char_indices().rev();
        characters
            .find(|(_, c)| !is_mark(*c))
            .map_or(0, |(at, _)| at)
    }

    /// After the character right of the cursor, with its marks.
    fn after(&self) -> usize {
        let right = self.text.get(self.cursor..).unwrap_or_default();
        let mut characters = right.char_indices().skip(1);
        let length = characters
            .find(|(_, c)| !is_mark(*c))
            .map_or(right.len(), |(at, _)| at);
        self.cursor.saturating_add(length)
    }

    fn word_before(&self) -> usize {
        let left = self.text.get(..self.cursor).unwrap_or_default().trim_end();
        let mut characters = left.char_indices().rev();
        let space = characters.find(|(_, c)| c.is_whitespace());
        space.map_or(0, |(at, c)| at.saturating_add(c.len_utf8()))
    }
}

/// Whether a character only changes the one before it.
fn is_mark(c: char) -> bool {
    c.width() == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> EditLine {
        let mut line = EditLine::new(100);
        for c in text.chars() {
            assert!(line.key(Key::Char(c)));
        }
        line
    }

    #[test]
    fn keys_change_the_line_around_the_cursor() {
        let mut line = typed("helo wörld");

        for _ in 0..7 {
            line.key(Key::Left);
        }
        line.key(Key::Char('l'));
        line.key(Key::End);
        line.key(Key::Backspace);
        line.key(Key::Home);
        line.key(Key::Delete);

        assert_eq!(line.text(), "ello wörl");
        assert_eq!(line.window(80), ("ello wörl".into(), 0));
    }

    #[test]
    fn whole_stretches_go_at_once() {
        let mut line = typed("one two  ");
        line.key(Key::Ctrl('w'));
        assert_eq!(line.text(), "one ");
        line.key(Key::Left);
        line.key(Key::Ctrl('k'));
        assert_eq!(line.text(), "one");
        line.key(Key::Ctrl('u'));
        assert_eq!(line.text(), "");
    }

    #[test]
    fn a_character_goes_with_its_marks() {
        let mut line = typed("ae\u{301}");
        line.key(Key::Backspace);
        assert_eq!(line.text(), "a");
    }

    #[test]
    fn a_paste_is_one_line_without_controls() {
        let mut line = EditLine::new(100);

        line.paste(b"two\r\nlines\x1b[31m\r\n");

        assert_eq!(line.text(), "two  lines [31m");
    }

    #[test]
    fn the_line_ends_at_its_bound() {
        let mut line = EditLine::new(4);
        line.paste("ééé".as_bytes());
        assert_eq!(line.text(), "éé");
    }

    #[test]
    fn a_long_line_shows_the_part_around_its_cursor() {
        let mut line = typed("0123456789");
        assert_eq!(line.window(6), ("56789".into(), 5));
        line.key(Key::Home);
        assert_eq!(line.window(6), ("012345".into(), 0));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let line = typed("漢字");
        assert_eq!(line.window(10), ("漢字".into(), 4));
        assert_eq!(line.window(4), ("字".into(), 2));
    }
}
