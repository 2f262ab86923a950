//! What a cut leaves open. When a lease ends in the middle of an escape sequence or a bracketed paste, the next
//! key would be read as its continuation; [`InputTail`] follows the bytes that the PTY has taken and names those
//! that close them.
//!
//! A control or function key is cancelled (CAN, ECMA-48 §8.2.1 and every VT since the VT100); a control string is
//! terminated (ST); a mouse report of the oldest kind, which has no terminator, is filled up as a release in the
//! corner; a paste gets its end mark. A lone ESC is a key of its own and is left: whoever reads it waits for no
//! more than its own time-out.

const CAN: u8 = 0x18;
const ESC: u8 = 0x1b;
const PASTE_END: &[u8] = b"\x1b[201~";
/// The three bytes that follow `ESC [ M`: button released, column 1, row 1.
const MOUSE_RELEASE: &[u8] = b"#!!";

/// Where a stream of keys stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InputTail {
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Between keys.
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// In a control sequence, with its only parameter so far if that is a plain number.
    Control { parameter: Option<u16>, empty: bool },
    /// After `ESC O`: one byte follows.
    Function,
    /// In an old mouse report: this many bytes have come.
    Mouse { seen: usize },
    /// In a control string.
    Text,
    /// In a control string, after ESC.
    TextEscape,
    /// In a paste, of whose end mark this many bytes have come.
    Paste { matched: usize },
}

impl InputTail {
    /// Follows bytes that were taken.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = self.state.after(byte);
        }
    }

    /// What closes that which is open; nothing between keys.
    pub(super) fn closing(&self) -> Vec<u8> {
        let from = |whole: &[u8], seen: usize| whole.get(seen..).unwrap_or_default().to_vec();
        match self.state {
            State::Ground | State::Escape => Vec::new(),
            State::Control { .. } | State::Function => vec![CAN],
            State::Mouse { seen } => from(MOUSE_RELEASE, seen),
            State::Text => vec![ESC, b'\\'],
            State::TextEscape => vec![b'\\'],
            State::Paste { matched } => from(PASTE_END, matched),
        }
    }
}

impl State {
    fn after(self, byte: u8) -> Self {
        match self {
            Self::Ground => Self::fresh(byte),
            Self::Escape => Self::after_escape(byte),
            Self::Control { parameter, empty } => Self::in_control(parameter, empty, byte),
            Self::Function => Self::Ground,
            Self::Mouse { seen } if seen.saturating_add(1) < MOUSE_RELEASE.len() => Self::Mouse {
                seen: seen.saturating_add(1),
            },
            Self::Mouse { .. } => Self::Ground,
            Self::Text => match byte {
                ESC => Self::TextEscape,
                CAN | 0x07 => Self::Ground,
                _ => Self::Text,
            },
            Self::TextEscape if byte == b'\\' => Self::Ground,
            Self::TextEscape => Self::after_escape(byte),
            Self::Paste { matched } => Self::in_paste(matched, byte),
        }
    }

    fn fresh(byte: u8) -> Self {
        if byte == ESC {
            Self::Escape
        } else {
            Self::Ground
        }
    }

    fn after_escape(byte: u8) -> Self {
        match byte {
            b'[' => Self::Control {
                parameter: Some(0),
                empty: true,
            },
            b'O' => Self::Function,
            b']' | b'P' | b'X' | b'^' | b'_' => Self::Text,
            other => Self::fresh(other),
        }
    }

    fn in_control(parameter: Option<u16>, empty: bool, byte: u8) -> Self {
        match byte {
            b'0'..=b'9' => {
                let digit = u16::from(byte - b'0');
                let grown = parameter.and_then(|n| n.checked_mul(10)?.checked_add(digit));
                Self::Control {
                    parameter: grown,
                    empty: false,
                }
            }
            0x20..=0x3f => Self::Control {
                parameter: None,
                empty: false,
            },
            b'~' if parameter == Some(200) => Self::Paste { matched: 0 },
            b'M' if empty => Self::Mouse { seen: 0 },
            other => Self::fresh(other),
        }
    }

    fn in_paste(matched: usize, byte: u8) -> Self {
        let matched = match PASTE_END.get(matched) {
            Some(&wanted) if wanted == byte => matched.saturating_add(1),
            Some(_) | None => usize::from(byte == ESC),
        };
        if matched == PASTE_END.len() {
            Self::Ground
        } else {
            Self::Paste { matched }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn closing(bytes: &[u8]) -> Vec<u8> {
        let mut tail = InputTail::default();
        tail.feed(bytes);
        tail.closing()
    }

    #[test]
    fn whole_keys_leave_nothing_open() {
        for keys in [
            "ls -l\r",
            "é",
            "\x1b",
            "\x1b[A",
            "\x1bOP",
            "\x1b[1;5C",
            "\x1b[M !!",
            "\x1b]0;t\x07",
        ] {
            assert_eq!(closing(keys.as_bytes()), b"", "{keys:?}");
        }
    }

    #[test]
    fn a_cut_key_is_cancelled() {
        for keys in ["\x1b[", "\x1b[1;5", "\x1bO", "\x1b[<0;1"] {
            assert_eq!(closing(keys.as_bytes()), [CAN], "{keys:?}");
        }
    }

    #[test]
    fn a_cut_paste_gets_the_rest_of_its_end_mark() {
        assert_eq!(closing(b"\x1b[200~rm -rf"), PASTE_END);
        assert_eq!(closing(b"\x1b[200~rm\x1b[20"), b"1~");
        assert_eq!(closing(b"\x1b[200~rm\x1b[201~"), b"");
    }

    #[test]
    fn a_cut_string_or_mouse_report_is_finished() {
        assert_eq!(closing(b"\x1b]52;c;"), b"\x1b\\");
        assert_eq!(closing(b"\x1bPq\x1b"), b"\\");
        assert_eq!(closing(b"\x1b[M "), b"!!");
    }

    proptest! {
        #[test]
        fn after_the_closing_bytes_nothing_is_open(keys in proptest::collection::vec(
            prop_oneof![Just(ESC), Just(b'['), Just(b'M'), Just(b'2'), Just(b'0'), Just(b'~'), any::<u8>()], 0..40)) {
            let mut tail = InputTail::default();
            tail.feed(&keys);
            let closing = tail.closing();
            tail.feed(&closing);
            prop_assert_eq!(tail.closing(), b"");
        }
    }
}
