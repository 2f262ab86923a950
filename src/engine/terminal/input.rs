//! What goes to the shell: named keys and pasted text as the bytes that the screen's modes ask for, and the
//! bytes that close what a controller left open when its lease ended.

use crate::engine::terminal::screen::Modes;

/// A key with the modifiers held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The key itself.
    pub code: KeyCode,
    /// Control.
    pub ctrl: bool,
    /// Alt, Meta or Option.
    pub alt: bool,
    /// Shift, where the character does not already say so.
    pub shift: bool,
}

/// A key of the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCode {
    /// A character as typed.
    Char(char),
    /// Return.
    Enter,
    /// Tab; with shift back-tab.
    Tab,
    /// Backspace.
    Backspace,
    /// Escape.
    Escape,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow right.
    Right,
    /// Arrow left.
    Left,
    /// Start of line.
    Home,
    /// End of line.
    End,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Insert.
    Insert,
    /// Delete forward.
    Delete,
    /// F1 to F12.
    Function(u8),
}

/// A name that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no key is called {0:?}; names are like a, C-c, M-x, S-Tab, Enter, Up, PageDown, F5, joined by commas"
)]
pub struct UnknownKey(pub String);

impl Key {
    /// A key without modifiers.
    pub const fn plain(code: KeyCode) -> Self {
        Self {
            code,
            ctrl: false,
            alt: false,
            shift: false,
        }
    }

    /// Reads a name: a character or the name of a key after any of `C-`, `M-` (or `A-`) and `S-`.
    ///
    /// # Errors
    /// [`UnknownKey`].
    pub fn parse(name: &str) -> Result<Self, UnknownKey> {
        let mut key = Self::plain(KeyCode::Escape);
        let mut rest = name;
        while rest.chars().count() > 2 {
            let (held, after) = match rest.split_at_checked(2) {
                Some(("C-" | "c-" | "^-", after)) => (&mut key.ctrl, after),
                Some(("M-" | "m-" | "A-" | "a-", after)) => (&mut key.alt, after),
                Some(("S-" | "s-", after)) => (&mut key.shift, after),
                Some(_) | None => break,
            };
            *held = true;
            rest = after;
        }
        key.code = parse_code(rest).ok_or_else(|| UnknownKey(name.chars().take(40).collect()))?;
        Ok(key)
    }

    /// The bytes that a terminal in these modes sends for the key, as xterm does.
    pub fn encode(self, modes: Modes) -> Vec<u8> {
        match self.code {
            KeyCode::Char(char) => self.character(char),
            KeyCode::Enter if modes.contains(Modes::NEWLINE) => self.with_alt(b"\r\n"),
            KeyCode::Enter => self.with_alt(b"\r"),
            KeyCode::Tab if self.shift => self.with_alt(b"\x1b[Z"),
            KeyCode::Tab => self.with_alt(b"\t"),
            KeyCode::Backspace if self.ctrl => self.with_alt(b"\x08"),
            KeyCode::Backspace => self.with_alt(b"\x7f"),
            KeyCode::Escape => self.with_alt(b"\x1b"),
            KeyCode::Up => self.cursor_key('A', modes),
            KeyCode::Down => self.cursor_key('B', modes),
            KeyCode::Right => self.cursor_key('C', modes),
            KeyCode::Left => self.cursor_key('D', modes),
            KeyCode::Home => self.cursor_key('H', modes),
            KeyCode::End => self.cursor_key('F', modes),
            KeyCode::Insert => self.numbered(2),
            KeyCode::Delete => self.numbered(3),
            KeyCode::PageUp => self.numbered(5),
            KeyCode::PageDown => self.numbered(6),
            KeyCode::Function(number) => self.function(number),
        }
    }

    fn character(self, char: char) -> Vec<u8> {
        let control = self.ctrl.then(|| control_byte(char)).flatten();
        match control {
            Some(byte) => self.with_alt(&[byte]),
            None => self.with_alt(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    fn with_alt(self, bytes: &[u8]) -> Vec<u8> {
        if self.alt {
            [b"\x1b", bytes].concat()
        } else {
            bytes.to_vec()
        }
    }

    /// The parameter by which xterm names the modifiers: one more than their bits.
    fn modifier(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl)
    }

    fn cursor_key(self, last: char, modes: Modes) -> Vec<u8> {
        match self.modifier() {
            1 if modes.contains(Modes::APP_CURSOR) => format!("\x1bO{last}"),
            1 => format!("\x1b[{last}"),
            modifier => format!("\x1b[1;{modifier}{last}"),
        }
        .into_bytes()
    }

    fn numbered(self, number: u8) -> Vec<u8> {
        match self.modifier() {
            1 => format!("\x1b[{number}~"),
            modifier => format!("\x1b[{number};{modifier}~"),
        }
        .into_bytes()
    }

    fn function(self, number: u8) -> Vec<u8> {
        let ss3 = |last| match self.modifier() {
            1 => format!("\x1bO{last}").into_bytes(),
            modifier => format!("\x1b[1;{modifier}{last}").into_bytes(),
        };
        match number {
            1 => ss3('P'),
            2 => ss3('Q'),
            3 => ss3('R'),
            4 => ss3('S'),
            5 => self.numbered(15),
            number @ 6..=10 => self.numbered(number + 11),
            number => self.numbered(number.saturating_add(12)),
        }
    }
}

/// The bytes of keys named with commas between them, like `C-c,Up`.
///
/// # Errors
/// The first [`UnknownKey`].
pub fn encode_keys(names: &str, modes: Modes) -> Result<Vec<u8>, UnknownKey> {
    let keys: Result<Vec<_>, _> = names
        .split(',')
        .map(|name| Key::parse(name.trim()).map(|key| key.encode(modes)))
        .collect();
    keys.map(|keys| keys.concat())
}

fn parse_code(name: &str) -> Option<KeyCode> {
    let mut chars = name.chars();
    if let (Some(char), None) = (chars.next(), chars.next()) {
        return (!char.is_control()).then_some(KeyCode::Char(char));
    }
    let code = match name.to_ascii_lowercase().as_str() {
        "space" => KeyCode::Char(' '),
        "comma" => KeyCode::Char(','),
        "enter" | "return" | "cr" => KeyCode::Enter,
        "tab" => KeyCode::Tab,
        "backspace" | "bspace" | "bs" => KeyCode::Backspace,
        "escape" | "esc" => KeyCode::Escape,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "right" => KeyCode::Right,
        "left" => KeyCode::Left,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "pageup" | "pgup" | "ppage" => KeyCode::PageUp,
        "pagedown" | "pgdn" | "pgdown" | "npage" => KeyCode::PageDown,
        "insert" | "ins" | "ic" => KeyCode::Insert,
        "delete" | "del" | "dc" => KeyCode::Delete,
        function => return parse_function(function),
    };
    Some(code)
}

fn parse_function(name: &str) -> Option<KeyCode> {
    let number = name.strip_prefix('f')?.parse().ok()?;
    (1..=12)
        .contains(&number)
        .then_some(KeyCode::Function(number))
}

/// The control character that a key makes with Control held, as terminals have had it since ASCII.
fn control_byte(char: char) -> Option<u8> {
    let byte = u8::try_from(char.to_ascii_uppercase()).ok()?;
    match byte {
        b'@'..=b'_' => Some(byte & 0x1f),
        b' ' | b'2' => Some(0),
        b'3'..=b'7' => Some(byte - b'3' + 0x1b),
        b'/' => Some(0x1f),
        b'?' | b'8' => Some(0x7f),
        _ => None,
    }
}

const PASTE_START: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// Pasted text as the program wants it. Control characters other than line ends and tabs are replaced one for
/// one, so that no text can end its own frame; leaving them out would let split markers grow together.
pub fn encode_paste(text: &str, modes: Modes) -> Vec<u8> {
    let clean: String = text.chars().map(pasted).collect();
    if modes.contains(Modes::BRACKETED_PASTE) {
        [PASTE_START, clean.as_bytes(), PASTE_END].concat()
    } else {
        clean.replace("\r\n", "\r").replace('\n', "\r").into_bytes()
    }
}

fn pasted(char: char) -> char {
    match char {
        '\n' | '\r' | '\t' => char,
        char if char.is_control() => char::REPLACEMENT_CHARACTER,
        char => char,
    }
}

/// Follows the bytes that were written to a shell, to close what is open when their author's lease ends: an
/// escape sequence cut in the middle, or a bracketed paste without its end. Otherwise the next key would be
/// swallowed by it. An escape byte alone is the Escape key and is complete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputCloser {
    state: State,
    pasting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    /// After `ESC [`, with the parameters so far (cut beyond what matters).
    Csi(Vec<u8>),
    /// After `ESC O`.
    Ss3,
    /// Coordinates of an old mouse report still to come.
    Mouse(u8),
    /// After `ESC ]` or `ESC P`, before its first byte: may yet be Alt with that key.
    StringStart,
    /// Within a control string, until BEL or ST.
    String,
    /// An escape within a control string.
    StringEscape,
}

const PARAMETERS_KEPT_MAX: usize = 16;

impl InputCloser {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that the shell has got.
    pub fn observe(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = self.next(*byte);
        }
    }

    /// The bytes that close what is open; none in the usual case. They count as observed.
    pub fn close(&mut self) -> Vec<u8> {
        let bytes = if self.pasting {
            PASTE_END.to_vec()
        } else {
            self.closing()
        };
        *self = Self::default();
        bytes
    }

    fn closing(&self) -> Vec<u8> {
        match &self.state {
            State::Ground | State::Escape | State::StringStart => Vec::new(),
            // A further parameter keeps an unfinished start of a paste from becoming one.
            State::Csi(parameters) if parameters == b"200" => b";0~".to_vec(),
            State::Csi(_) | State::Ss3 => b"~".to_vec(),
            // A released button in the first column.
            State::Mouse(missing) => {
                let report = b"#!!";
                let known = report.len().saturating_sub(usize::from(*missing));
                report.get(known..).unwrap_or_default().to_vec()
            }
            State::String => b"\x1b\\".to_vec(),
            State::StringEscape => b"\\".to_vec(),
        }
    }

    fn next(&mut self, byte: u8) -> State {
        match (std::mem::take(&mut self.state), byte) {
            (State::String, 0x1b) => State::StringEscape,
            (State::StringEscape, b'\\') => State::Ground,
            (State::Csi(_), b'M') if self.pasting => State::Ground,
            (State::Csi(parameters), b'M') if parameters.is_empty() => State::Mouse(3),
            (State::Mouse(1), _) => State::Ground,
            (State::Mouse(missing), _) => State::Mouse(missing.saturating_sub(1)),
            (_, 0x1b) => State::Escape,
            (State::Ground, _) => State::Ground,
            (State::Escape | State::StringEscape, byte) => self.after_escape(byte),
            (State::Csi(parameters), byte) => self.in_csi(parameters, byte),
            (State::Ss3, _) => State::Ground,
            (State::StringStart, b'0'..=b'9' | b'>' | b'!') => State::String,
            (State::StringStart, _) => State::Ground,
            (State::String, 0x07 | 0x18 | 0x1a | b'\r') => State::Ground,
            (State::String, _) => State::String,
        }
    }

    fn after_escape(&self, byte: u8) -> State {
        match byte {
            b'[' => State::Csi(Vec::new()),
            b'O' if !self.pasting => State::Ss3,
            b']' | b'P' if !self.pasting => State::StringStart,
            _ => State::Ground,
        }
    }

    fn in_csi(&mut self, mut parameters: Vec<u8>, byte: u8) -> State {
        match byte {
            0x20..=0x3f => {
                if parameters.len() < PARAMETERS_KEPT_MAX {
                    parameters.push(byte);
                }
                State::Csi(parameters)
            }
            b'~' => {
                match parameters.as_slice() {
                    b"200" => self.pasting = true,
                    b"201" => self.pasting = false,
                    _ => {}
                }
                State::Ground
            }
            _ => State::Ground,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(names: &str) -> Vec<u8> {
        encode_keys(names, Modes::default()).unwrap()
    }

    #[test]
    fn named_keys_make_the_bytes_of_xterm() {
        assert_eq!(keys("C-c,Up"), b"\x03\x1b[A");
        assert_eq!(keys("a,Space,Comma,é"), "a ,é".as_bytes());
        assert_eq!(keys("Enter,Tab,S-Tab,BSpace,Esc"), b"\r\t\x1b[Z\x7f\x1b");
        assert_eq!(
            keys("M-x,C-M-c,C-Space,C-[,C-_,C-?"),
            b"\x1bx\x1b\x03\0\x1b\x1f\x7f"
        );
        assert_eq!(
            keys("C-Up,S-Right,Home,PageDown,C-Delete"),
            b"\x1b[1;5A\x1b[1;2C\x1b[H\x1b[6~\x1b[3;5~"
        );
        assert_eq!(
            keys("F1,F4,F5,F6,F10,F11,F12"),
            b"\x1bOP\x1bOS\x1b[15~\x1b[17~\x1b[21~\x1b[23~\x1b[24~"
        );
        assert_eq!(keys("-,C--"), b"--");
    }

    #[test]
    fn modes_of_the_program_change_arrows_and_enter() {
        assert_eq!(
            encode_keys("Up,C-Up", Modes::APP_CURSOR).unwrap(),
            b"\x1bOA\x1b[1;5A"
        );
        assert_eq!(encode_keys("Enter", Modes::NEWLINE).unwrap(), b"\r\n");
    }

    #[test]
    fn a_name_that_is_no_key_is_refused_by_name() {
        assert_eq!(Key::parse("Foo"), Err(UnknownKey("Foo".into())));
        assert!(encode_keys("a,,b", Modes::default()).is_err());
        assert!(Key::parse("F13").is_err());
        assert!(Key::parse("\x1b").is_err());
    }

    #[test]
    fn pasted_text_cannot_end_its_own_frame() {
        let hostile = "a\x1b[201~rm\n\u{9b}201~\x1b\x1b[201~[201~\tb";

        let bytes = encode_paste(hostile, Modes::BRACKETED_PASTE);

        let text = std::str::from_utf8(&bytes).unwrap();
        let inner = text
            .strip_prefix("\x1b[200~")
            .unwrap()
            .strip_suffix("\x1b[201~")
            .unwrap();
        assert!(
            inner
                .chars()
                .all(|char| !char.is_control() || "\n\t".contains(char))
        );
        assert_eq!(inner.chars().count(), hostile.chars().count());
    }

    proptest! {
        #[test]
        fn no_text_ends_the_frame_of_its_paste(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just("\x1b".to_owned()),
                    Just("\u{9b}".to_owned()),
                    Just("[201~".to_owned()),
                    Just("\x1b[201~".to_owned()),
                    any::<String>(),
                ],
                0..12,
            ),
        ) {
            let text = pieces.concat();
            let bytes = encode_paste(&text, Modes::BRACKETED_PASTE);

            let inner = bytes.strip_prefix(PASTE_START).and_then(|rest| rest.strip_suffix(PASTE_END));
            let inner = std::str::from_utf8(inner.unwrap()).unwrap();
            prop_assert_eq!(inner.chars().count(), text.chars().count());
            prop_assert!(inner.chars().all(|char| !char.is_control() || "\r\n\t".contains(char)));
        }
    }

    #[test]
    fn unframed_pasted_lines_end_as_enter_does() {
        assert_eq!(
            encode_paste("a\r\nb\nc\x1b", Modes::default()),
            "a\rb\rc\u{fffd}".as_bytes()
        );
    }

    fn closing(written: &[u8]) -> Vec<u8> {
        let mut closer = InputCloser::new();
        closer.observe(written);
        closer.close()
    }

    #[test]
    fn whole_keys_need_no_closing() {
        for written in [
            &b"ls -l\r"[..],
            b"\x1b[A",
            b"\x1bOA",
            b"\x1b",
            b"\x1bx",
            b"\x1b[1;5A",
            b"\x1b[M #!",
            b"\x1b]11;rgb:00/00/00\x1b\\",
            b"\x1b]11;x\x07",
            b"\x1bP1$r0m\x1b\\",
            b"\x1b]",
            b"\x1bPq",
            b"\x1b[200~text\x1b[201~",
            "\u{e9}漢".as_bytes(),
        ] {
            assert_eq!(closing(written), b"", "{written:?}");
        }
    }

    #[test]
    fn what_is_open_is_closed() {
        assert_eq!(closing(b"a\x1b["), b"~");
        assert_eq!(closing(b"\x1b[1;"), b"~");
        assert_eq!(closing(b"\x1b[200"), b";0~");
        assert_eq!(closing(b"\x1bO"), b"~");
        assert_eq!(closing(b"\x1b[M"), b"#!!");
        assert_eq!(closing(b"\x1b[M a"), b"!");
        assert_eq!(closing(b"\x1b]52"), b"\x1b\\");
        assert_eq!(closing(b"\x1bP1q\x1b"), b"\\");
        assert_eq!(closing(b"\x1b[200~half"), b"\x1b[201~");
        assert_eq!(closing(b"\x1b[200~half\x1b[20"), b"\x1b[201~");
        assert_eq!(closing(b"\x1b[200~a\x1b[201~b\x1b[200~c"), b"\x1b[201~");
    }

    proptest! {
        #[test]
        fn after_closing_nothing_is_open(written in prop::collection::vec(
            prop::sample::select(&b"\x1b[]OPM;0122~~a\\\x07\r"[..]), 0..40))
        {
            let mut closer = InputCloser::new();
            closer.observe(&written);
            let bytes = closer.clone().close();

            closer.observe(&bytes);

            prop_assert_eq!(closer.close(), b"");
        }

        #[test]
        fn how_the_input_is_cut_changes_nothing(
            written in prop::collection::vec(any::<u8>(), 0..60), cut in 0_usize..60)
        {
            let (left, right) = written.split_at(cut.min(written.len()));
            let mut closer = InputCloser::new();
            closer.observe(left);
            closer.observe(right);

            prop_assert_eq!(closer.close(), closing(&written));
        }
    }
}
