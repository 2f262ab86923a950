//! Keys out of the bytes of a terminal, for the panes only: what goes to a shell is never decoded.

/// A key, as far as a pane can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A printable character.
    Char(char),
    /// A letter or sign with Ctrl, in lower case.
    Ctrl(char),
    /// A character after Escape.
    Alt(char),
    Enter,
    Tab,
    BackTab,
    Escape,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    /// A key that no pane knows, taken whole.
    Unknown,
}

/// What the front of some bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A key of so many bytes.
    Key(Key, usize),
    /// The beginning of a key.
    Incomplete,
}

/// Longer control sequences are taken piece by piece, as keys that nobody knows.
const SEQUENCE_BYTES_MAX: usize = 64;

const ESCAPE: u8 = 0x1b;

/// The key at the front of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    match bytes {
        [] => Decoded::Incomplete,
        [ESCAPE, rest @ ..] => decode_escape(rest),
        [b'\r' | b'\n', ..] => Decoded::Key(Key::Enter, 1),
        [b'\t', ..] => Decoded::Key(Key::Tab, 1),
        [0x7f | 0x08, ..] => Decoded::Key(Key::Backspace, 1),
        [control @ 0..0x20, ..] => Decoded::Key(Key::Ctrl(with_ctrl(*control)), 1),
        _ => decode_char(bytes),
    }
}

/// The key at the front of `bytes` when no more bytes come: a lone escape is the key Escape.
pub(super) fn decode_last(bytes: &[u8]) -> Option<(Key, usize)> {
    match decode(bytes) {
        Decoded::Key(key, len) => Some((key, len)),
        Decoded::Incomplete => match bytes {
            [] => None,
            [ESCAPE] => Some((Key::Escape, 1)),
            [ESCAPE, b'['] => Some((Key::Alt('['), 2)),
            _ => Some((Key::Unknown, bytes.len())),
        },
    }
}

fn with_ctrl(control: u8) -> char {
    char::from(control | 0x40).to_ascii_lowercase()
}

fn decode_escape(rest: &[u8]) -> Decoded {
    match rest {
        [] => Decoded::Incomplete,
        [ESCAPE, ..] => Decoded::Key(Key::Escape, 1),
        [b'[', rest @ ..] => decode_csi(rest),
        [b'O'] => Decoded::Incomplete,
        [b'O', last, ..] => Decoded::Key(named(*last), 3),
        _ => match decode_char(rest) {
            Decoded::Key(Key::Char(c), len) => Decoded::Key(Key::Alt(c), len.saturating_add(1)),
            Decoded::Key(_, len) => Decoded::Key(Key::Unknown, len.saturating_add(1)),
            Decoded::Incomplete => Decoded::Incomplete,
        },
    }
}

/// `ESC [`, parameters, intermediates, one final byte (ECMA-48 §5.4).
fn decode_csi(rest: &[u8]) -> Decoded {
    let Some(end) = rest.iter().position(|byte| !matches!(byte, 0x20..0x40)) else {
        let whole = rest.len().saturating_add(2);
        return if whole < SEQUENCE_BYTES_MAX {
            Decoded::Incomplete
        } else {
            Decoded::Key(Key::Unknown, whole)
        };
    };
    let (parameters, last) = rest.split_at(end);
    let key = match last.first() {
        Some(b'~') => numbered(parameters),
        Some(last @ 0x40..0x7f) => named(*last),
        // Not a final byte: the sequence was cut, and this byte begins something else.
        _ => return Decoded::Key(Key::Unknown, end.saturating_add(2)),
    };
    Decoded::Key(key, end.saturating_add(3))
}

fn named(last: u8) -> Key {
    match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'F' => Key::End,
        b'H' => Key::Home,
        b'M' => Key::Enter,
        b'Z' => Key::BackTab,
        _ => Key::Unknown,
    }
}

fn numbered(parameters: &[u8]) -> Key {
    match parameters.split(|byte| *byte == b';').next() {
        Some(b"1" | b"7") => Key::Home,
        Some(b"3") => Key::Delete,
        Some(b"4" | b"8") => Key::End,
        Some(b"5") => Key::PageUp,
        Some(b"6") => Key::PageDown,
        _ => Key::Unknown,
    }
}

fn decode_char(bytes: &[u8]) -> Decoded {
    let length = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    let Some(front) = bytes.get(..length) else {
        let well_formed = bytes.iter().skip(1).all(|byte| matches!(byte, 0x80..0xc0));
        return if well_formed {
            Decoded::Incomplete
        } else {
            Decoded::Key(Key::Unknown, 1)
        };
    };
    match std::str::from_utf8(front)
        .ok()
        .and_then(|text| text.chars().next())
    {
        Some(c) if !c.is_control() => Decoded::Key(Key::Char(c), length),
        Some(_) => Decoded::Key(Key::Unknown, length),
        None => Decoded::Key(Key::Unknown, 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(mut bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        while let Some((key, len)) = decode_last(bytes) {
            keys.push(key);
            bytes = &bytes[len..];
        }
        keys
    }

    #[test]
    fn letters_of_every_length_are_characters() {
        assert_eq!(
            all("aé漢😀".as_bytes()),
            [
                Key::Char('a'),
                Key::Char('é'),
                Key::Char('漢'),
                Key::Char('😀')
            ]
        );
    }

    #[test]
    fn arrows_are_known_in_both_cursor_modes_and_with_modifiers() {
        assert_eq!(
            all(b"\x1b[A\x1bOB\x1b[1;5C\x1b[D"),
            [Key::Up, Key::Down, Key::Right, Key::Left]
        );
        assert_eq!(
            all(b"\x1b[5~\x1b[6;2~\x1b[3~"),
            [Key::PageUp, Key::PageDown, Key::Delete]
        );
    }

    #[test]
    fn a_lone_escape_is_a_key_only_when_nothing_follows() {
        assert_eq!(decode(b"\x1b"), Decoded::Incomplete);
        assert_eq!(decode_last(b"\x1b"), Some((Key::Escape, 1)));
        assert_eq!(decode(b"\x1b[1;"), Decoded::Incomplete);
        assert_eq!(all(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
    }

    #[test]
    fn control_characters_of_both_kinds_are_never_text() {
        assert_eq!(
            all(b"\x15\x1d\r\x7f"),
            [Key::Ctrl('u'), Key::Ctrl(']'), Key::Enter, Key::Backspace]
        );
        assert_eq!(all("\u{9b}".as_bytes()), [Key::Unknown]);
        assert_eq!(all(b"\xff\x80"), [Key::Unknown, Key::Unknown]);
    }

    #[test]
    fn a_cut_character_waits_and_a_broken_one_does_not() {
        assert_eq!(decode(&[0xe6, 0xbc]), Decoded::Incomplete);
        assert_eq!(decode(&[0xe6, b'a']), Decoded::Key(Key::Unknown, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_whole_and_never_twice(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Some((_, len)) = decode_last(rest) {
                prop_assert!(len > 0 && len <= rest.len());
                rest = &rest[len..];
            }
            prop_assert!(rest.is_empty());
        }
    }
}
