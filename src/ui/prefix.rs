//! Sorts what the person types: bytes for the shell, keys for a pane, commands after the prefix, and pastes.
//!
//! Only the prefix is intercepted; pressed twice it is itself. Everything else goes to the shell byte by byte as
//! the local terminal sent it, at once: the only bytes held back, for a moment, are those that may begin the mark
//! of a paste.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::ui::keys::{Decoded, Key, decode, decode_last};

/// The key that announces a command of the program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix(u8);

impl Default for Prefix {
    /// `C-]`, the habit of telnet and virsh.
    fn default() -> Self {
        Self(0x1d)
    }
}

/// A text that is no usable prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not of the form `C-x`.
    #[error("a prefix is written like C-] or C-a, not {0:?}")]
    Form(String),
    /// A key that people and programs cannot do without.
    #[error("{0} cannot be the prefix: shells and programs need it")]
    Taken(String),
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let form = || PrefixError::Form(text.chars().take(20).collect());
        let letter = match text.as_bytes() {
            [b'C' | b'c' | b'^', b'-', letter] | [b'^', letter] => letter.to_ascii_uppercase(),
            _ => return Err(form()),
        };
        match letter {
            b'C' | b'D' | b'H' | b'I' | b'J' | b'M' | b'Q' | b'S' | b'Z' | b'[' => Err(
                PrefixError::Taken(format!("C-{}", char::from(letter).to_ascii_lowercase())),
            ),
            b'A'..=b'Z' | b'\\' | b']' | b'^' | b'_' => Ok(Self(letter & 0x1f)),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ctrl-{}", char::from(self.0 | 0x40).to_ascii_lowercase())
    }
}

/// Who gets what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    /// The shared shell.
    Terminal,
    /// The open pane.
    Pane,
}

/// A sorted piece of what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// For the shell, exactly these.
    Bytes(Vec<u8>),
    /// For the open pane.
    Key(Key),
    /// The key after the prefix.
    Command(Key),
    /// A whole paste without its marks, not yet cleaned.
    Paste(Vec<u8>),
    /// A paste beyond the bound, thrown away.
    PasteTooLarge,
}

/// A paste is collected whole before it goes anywhere; larger ones belong into a file.
pub(super) const PASTE_BYTES_MAX: usize = 128 * 1024;

const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// The sorter. Feed it with [`Intake::push`], then take pieces one by one, as each may move the focus.
#[derive(Debug)]
pub(super) struct Intake {
    prefix: u8,
    waiting: VecDeque<u8>,
    state: State,
    /// The shell got an escape as the last byte of a read: the rest of a paste's mark may follow.
    escaped: bool,
}

#[derive(Debug)]
enum State {
    Plain,
    Prefixed,
    Pasting { text: Vec<u8>, too_large: bool },
}

impl Intake {
    pub(super) fn new(prefix: Prefix) -> Self {
        Self {
            prefix: prefix.0,
            waiting: VecDeque::new(),
            state: State::Plain,
            escaped: false,
        }
    }

    /// Takes what the terminal sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// Whether the next key is a command.
    pub(super) fn prefixed(&self) -> bool {
        matches!(self.state, State::Prefixed)
    }

    /// Whether bytes are held back that a moment later should go on as they are.
    pub(super) fn holds(&self) -> bool {
        !self.waiting.is_empty() && !matches!(self.state, State::Pasting { .. })
    }

    /// The next piece, if there is a whole one.
    pub(super) fn next(&mut self, focus: Focus) -> Option<Typed> {
        self.take(focus, false)
    }

    /// The next piece when nothing more came for a moment: what is held back goes on as it is.
    pub(super) fn next_held(&mut self, focus: Focus) -> Option<Typed> {
        self.take(focus, true)
    }

    fn take(&mut self, focus: Focus, all: bool) -> Option<Typed> {
        while !self.waiting.is_empty() {
            match std::mem::replace(&mut self.state, State::Plain) {
                State::Pasting { text, too_large } => return self.take_paste(text, too_large),
                State::Prefixed => return self.take_command(focus, all),
                State::Plain => {}
            }
            let front = self.waiting.make_contiguous();
            let mark = if self.escaped {
                PASTE_BEGINS.get(1..)?
            } else {
                PASTE_BEGINS
            };
            self.escaped = false;
            if front.starts_with(mark) || front.starts_with(PASTE_BEGINS) {
                let length = if front.starts_with(mark) {
                    mark.len()
                } else {
                    PASTE_BEGINS.len()
                };
                self.waiting.drain(..length);
                self.state = State::Pasting {
                    text: Vec::new(),
                    too_large: false,
                };
            } else if front.first() == Some(&self.prefix) {
                self.waiting.pop_front();
                self.state = State::Prefixed;
            } else {
                return match focus {
                    Focus::Terminal => self.take_bytes(all),
                    Focus::Pane => self.take_key(all).map(Typed::Key),
                };
            }
        }
        None
    }

    /// Everything before the next prefix or paste. A part of a paste's mark at the end stays, but never a lone
    /// escape: the key Escape must not wait.
    fn take_bytes(&mut self, all: bool) -> Option<Typed> {
        let front = self.waiting.make_contiguous();
        let mut end = front.len();
        for (at, byte) in front.iter().enumerate() {
            let rest = front.get(at..).unwrap_or_default();
            let cut = rest.len() > 1 && PASTE_BEGINS.starts_with(rest);
            if *byte == self.prefix || rest.starts_with(PASTE_BEGINS) || (cut && !all) {
                end = at;
                break;
            }
        }
        let bytes: Vec<u8> = self.waiting.drain(..end).collect();
        self.escaped = self.waiting.is_empty() && bytes.last() == PASTE_BEGINS.first();
        (!bytes.is_empty()).then_some(Typed::Bytes(bytes))
    }

    fn take_key(&mut self, all: bool) -> Option<Key> {
        let front = self.waiting.make_contiguous();
        // The prefix is never part of another key: what stands before it is whole.
        let ends = front.iter().skip(1).position(|byte| *byte == self.prefix);
        let (front, all) = match ends.and_then(|end| front.get(..end.saturating_add(1))) {
            Some(whole) => (whole, true),
            None => (&*front, all),
        };
        let (key, length) = match decode(front) {
            Decoded::Key(key, length) => (key, length),
            Decoded::Incomplete if all => decode_last(front)?,
            Decoded::Incomplete => return None,
        };
        self.waiting.drain(..length.min(self.waiting.len()));
        Some(key)
    }

    fn take_command(&mut self, focus: Focus, all: bool) -> Option<Typed> {
        if self.waiting.front() == Some(&self.prefix) {
            self.waiting.pop_front();
            return match focus {
                Focus::Terminal => Some(Typed::Bytes(vec![self.prefix])),
                Focus::Pane => self.take(focus, all),
            };
        }
        let key = self.take_key(all);
        if key.is_none() {
            self.state = State::Prefixed;
        }
        key.map(Typed::Command)
    }

    fn take_paste(&mut self, mut text: Vec<u8>, mut too_large: bool) -> Option<Typed> {
        let front = self.waiting.make_contiguous();
        let ends = front
            .windows(PASTE_ENDS.len())
            .position(|window| window == PASTE_ENDS);
        // Without the end of the paste, the last bytes stay: they may begin its mark.
        let sure = front
            .len()
            .saturating_sub(PASTE_ENDS.len().saturating_sub(1));
        let length = ends.unwrap_or(sure);
        text.extend(self.waiting.drain(..length));
        if text.len() > PASTE_BYTES_MAX {
            text.clear();
            too_large = true;
        }
        if ends.is_none() {
            self.state = State::Pasting { text, too_large };
            return None;
        }
        self.waiting.drain(..PASTE_ENDS.len());
        Some(if too_large {
            Typed::PasteTooLarge
        } else {
            Typed::Paste(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(pieces: &[&[u8]], focus: Focus) -> Vec<Typed> {
        let mut intake = Intake::new(Prefix::default());
        let mut typed = Vec::new();
        for piece in pieces {
            intake.push(piece);
            while let Some(one) = intake.next(focus) {
                typed.push(one);
            }
        }
        while let Some(one) = intake.next_held(focus) {
            typed.push(one);
        }
        typed
    }

    fn bytes(text: &[u8]) -> Typed {
        Typed::Bytes(text.to_vec())
    }

    #[test]
    fn everything_but_the_prefix_reaches_the_shell_as_it_was_typed() {
        let typed = b"ls\r\x1b[A\x03\xff\x1bOP\x1b[<0;1;1M";

        assert_eq!(sorted(&[typed], Focus::Terminal), [bytes(typed)]);
    }

    #[test]
    fn a_key_after_the_prefix_is_a_command_and_the_prefix_twice_is_itself() {
        assert_eq!(
            sorted(&[b"a\x1dcb"], Focus::Terminal),
            [bytes(b"a"), Typed::Command(Key::Char('c')), bytes(b"b")]
        );
        assert_eq!(
            sorted(&[b"\x1d", b"\x1d"], Focus::Terminal),
            [bytes(b"\x1d")]
        );
        assert_eq!(
            sorted(&[b"\x1d\x1b[", b"Ax"], Focus::Terminal),
            [Typed::Command(Key::Up), bytes(b"x")]
        );
    }

    #[test]
    fn the_key_escape_never_waits_on_its_way_to_the_shell() {
        let mut intake = Intake::new(Prefix::default());

        intake.push(b"\x1b");

        assert_eq!(intake.next(Focus::Terminal), Some(bytes(b"\x1b")));
        assert!(!intake.holds());
    }

    #[test]
    fn a_paste_is_one_piece_however_it_is_cut() {
        let whole = b"x\x1b[200~two\rlines \x1dd\x1b[201~y";
        for cut in 1..whole.len() {
            let typed = sorted(&[&whole[..cut], &whole[cut..]], Focus::Terminal);

            let pasted = typed.iter().find(|one| matches!(one, Typed::Paste(_)));
            assert_eq!(
                pasted,
                Some(&Typed::Paste(b"two\rlines \x1dd".to_vec())),
                "cut at {cut}"
            );
            assert!(
                !typed.iter().any(|one| matches!(one, Typed::Command(_))),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_only_looked_like_a_paste_goes_on_unchanged() {
        let mut intake = Intake::new(Prefix::default());
        intake.push(b"a\x1b[20");
        assert_eq!(intake.next(Focus::Terminal), Some(bytes(b"a")));
        assert_eq!(intake.next(Focus::Terminal), None);
        assert!(intake.holds());

        assert_eq!(intake.next_held(Focus::Terminal), Some(bytes(b"\x1b[20")));
    }

    #[test]
    fn a_paste_beyond_the_bound_is_thrown_away_and_said_to_be() {
        let mut text = PASTE_BEGINS.to_vec();
        text.resize(PASTE_BYTES_MAX + 100, b'x');
        text.extend_from_slice(PASTE_ENDS);
        text.push(b'a');

        assert_eq!(
            sorted(&[&text], Focus::Terminal),
            [Typed::PasteTooLarge, bytes(b"a")]
        );
    }

    #[test]
    fn a_pane_gets_keys_and_commands_still_work() {
        assert_eq!(
            sorted(&[b"h\xc3", b"\xa9\x1b", b"[D\x1dt\x1b"], Focus::Pane),
            [
                Typed::Key(Key::Char('h')),
                Typed::Key(Key::Char('é')),
                Typed::Key(Key::Left),
                Typed::Command(Key::Char('t')),
                Typed::Key(Key::Escape)
            ]
        );
    }

    #[test]
    fn an_escape_right_before_the_prefix_is_a_key_of_its_own() {
        assert_eq!(
            sorted(&[b"\x1b\x1dp"], Focus::Pane),
            [Typed::Key(Key::Escape), Typed::Command(Key::Char('p'))]
        );
    }

    #[test]
    fn a_prefix_is_one_control_key_that_nobody_else_needs() {
        assert_eq!("C-]".parse(), Ok(Prefix::default()));
        assert_eq!("c-a".parse::<Prefix>().unwrap().to_string(), "Ctrl-a");
        assert_eq!(Prefix::default().to_string(), "Ctrl-]");
        assert!(matches!(
            "C-c".parse::<Prefix>(),
            Err(PrefixError::Taken(_))
        ));
        assert!(matches!(
            "C-[".parse::<Prefix>(),
            Err(PrefixError::Taken(_))
        ));
        assert!(matches!("F1".parse::<Prefix>(), Err(PrefixError::Form(_))));
    }

    proptest! {
        #[test]
        fn without_prefix_and_paste_the_shell_gets_every_byte_once(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..10)
        ) {
            let pieces: Vec<Vec<u8>> = pieces
                .into_iter()
                .map(|piece| piece.into_iter().filter(|byte| *byte != 0x1d && *byte != b'~').collect())
                .collect();
            let views: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();

            let mut got = Vec::new();
            for typed in sorted(&views, Focus::Terminal) {
                let Typed::Bytes(bytes) = typed else { panic!("{typed:?}") };
                got.extend(bytes);
            }

            prop_assert_eq!(got, pieces.concat());
        }
    }
}
