//! Follows output just far enough to know where a repetition is asked for and where a control string grows too
//! long: those two make work or take memory without bound in the parser, which says nothing of either.

use crate::engine::limits::{EMULATOR_STRETCH_BYTES_MAX, EMULATOR_STRING_BYTES_MAX};

/// What a stretch of output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything that prints no more characters than it has bytes.
    Plain,
    /// The last byte of a sequence that repeats the character before it (REP).
    Repetition,
    /// What a control string has too much.
    Surplus,
}

/// A stretch of output, of one kind, not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch<'a> {
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
}

const ESCAPE: u8 = 0x1b;
/// A character cut by the limit of a control string may end beyond it.
const CONTINUATION_BYTES_MAX: usize = 3;

/// Where in a sequence the output is. All states of the parser in which only an escape matters are `Ground`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sequences {
    #[default]
    Ground,
    /// After an escape.
    Escape,
    /// After an escape and something that makes the rest of no interest.
    Intermediate,
    /// In a control sequence.
    Control,
    /// In the only kind of control string that the parser keeps, after so many bytes.
    String(usize),
}

impl Sequences {
    /// Takes the first stretch of `output`: all of one kind, short enough to be taken at once. The parser loses
    /// what follows a character that came in two pieces if it then meets an invalid byte in the same piece, so
    /// bytes that may end a character stand alone.
    pub(super) fn next<'a>(&mut self, output: &'a [u8]) -> Stretch<'a> {
        if let (Self::Ground, [first @ 0x80..=0xbf, ..]) = (*self, output) {
            return Stretch {
                kind: Kind::Plain,
                bytes: std::slice::from_ref(first),
            };
        }
        let window = output.get(..EMULATOR_STRETCH_BYTES_MAX).unwrap_or(output);
        let (mut kind, mut len) = (Kind::Plain, 0);
        while let Some((byte, _)) = window.get(len..).and_then(<[u8]>::split_first) {
            let (its_kind, run) = match self {
                Self::Ground => (Kind::Plain, until_escape(window.get(len..))),
                Self::Escape | Self::Intermediate | Self::Control | Self::String(_) => {
                    (self.kind(*byte), 1)
                }
            };
            if len > 0 && (its_kind != kind || kind == Kind::Repetition) {
                break;
            }
            kind = its_kind;
            self.step(*byte);
            len += run;
        }
        let bytes = window.get(..len).unwrap_or(window);
        Stretch { kind, bytes }
    }

    fn kind(self, byte: u8) -> Kind {
        match self {
            Self::Control if byte == b'b' => Kind::Repetition,
            Self::String(len) if !ends_string(byte) && !fits(len, byte) => Kind::Surplus,
            Self::Ground | Self::Escape | Self::Intermediate | Self::Control | Self::String(_) => {
                Kind::Plain
            }
        }
    }

    /// Moves on as the parser does.
    fn step(&mut self, byte: u8) {
        *self = match (*self, byte) {
            (_, ESCAPE) => Self::Escape,
            (_, 0x18 | 0x1a) | (Self::Ground, _) | (Self::String(_), 0x07) => Self::Ground,
            (Self::Escape, b'[') => Self::Control,
            (Self::Escape, b']') => Self::String(0),
            (Self::Escape, b' '..=b'/') => Self::Intermediate,
            (Self::Escape | Self::Intermediate, b'0'..=b'~') | (Self::Control, b'@'..=b'~') => {
                Self::Ground
            }
            (Self::String(len), _) if fits(len, byte) => Self::String(len + 1),
            // Nothing fits any more, not even the rest of a character whose beginning did not.
            (Self::String(_), _) => Self::String(usize::MAX),
            (stays @ (Self::Escape | Self::Intermediate | Self::Control), _) => stays,
        };
    }
}

fn until_escape(output: Option<&[u8]>) -> usize {
    let output = output.unwrap_or_default();
    let plain = output.iter().position(|byte| *byte == ESCAPE);
    plain.unwrap_or(output.len()).max(1)
}

fn ends_string(byte: u8) -> bool {
    matches!(byte, 0x07 | 0x18 | 0x1a | ESCAPE)
}

fn fits(len: usize, byte: u8) -> bool {
    let continues = matches!(byte, 0x80..=0xbf);
    len < EMULATOR_STRING_BYTES_MAX
        || (continues && len < EMULATOR_STRING_BYTES_MAX + CONTINUATION_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(output: &[u8]) -> Vec<(Kind, Vec<u8>)> {
        let mut sequences = Sequences::default();
        let (mut rest, mut all) = (output, Vec::new());
        while !rest.is_empty() {
            let stretch = sequences.next(rest);
            rest = &rest[stretch.bytes.len()..];
            all.push((stretch.kind, stretch.bytes.to_vec()));
        }
        all
    }

    fn repetitions(output: &[u8]) -> usize {
        let all = stretches(output);
        all.iter()
            .filter(|(kind, _)| *kind == Kind::Repetition)
            .count()
    }

    #[test]
    fn the_end_of_a_repetition_stands_alone() {
        let cut = stretches(b"ab\x1b[1b\x1b[2bb");

        let plain = |bytes: &[u8]| (Kind::Plain, bytes.to_vec());
        let last = (Kind::Repetition, b"b".to_vec());
        assert_eq!(
            cut,
            [
                plain(b"ab\x1b[1"),
                last.clone(),
                plain(b"\x1b[2"),
                last,
                plain(b"b")
            ]
        );
    }

    #[test]
    fn controls_within_a_sequence_do_not_hide_a_repetition() {
        assert_eq!(repetitions(b"\x1b[65\n5\x7f\xc3b"), 1);
        assert_eq!(repetitions(b"\x1b\n[6b"), 1);
        assert_eq!(repetitions(b"\x1b]title\x1b[6b\x1bPq\x1b[6b"), 2);
        assert_eq!(repetitions(b"\x1b[6\x18b\x1b[6mb\x1b([b\x1b]b\x07b"), 0);
    }

    #[test]
    fn a_string_keeps_its_beginning_its_end_and_no_half_of_a_character() {
        let text = format!("x{}", "é".repeat(EMULATOR_STRING_BYTES_MAX));
        let whole = format!("\x1b]{text}\x07after");

        let kept: Vec<u8> = stretches(whole.as_bytes())
            .into_iter()
            .filter(|(kind, _)| *kind == Kind::Plain)
            .flat_map(|(_, bytes)| bytes)
            .collect();

        let kept = String::from_utf8(kept).unwrap();
        let fits = EMULATOR_STRING_BYTES_MAX / 2;
        assert_eq!(kept, format!("\x1b]x{}\x07after", "é".repeat(fits)));
    }

    #[test]
    fn bytes_that_continue_no_character_prolong_no_string() {
        let output = [b"\x1b]".to_vec(), vec![0x80; 100_000]].concat();

        let kept: usize = stretches(&output)
            .iter()
            .filter(|(kind, _)| *kind == Kind::Plain)
            .map(|(_, bytes)| bytes.len())
            .sum();

        assert_eq!(kept, 2 + EMULATOR_STRING_BYTES_MAX + CONTINUATION_BYTES_MAX);
    }

    #[test]
    fn every_stretch_is_short() {
        for output in [
            vec![b'x'; 100_000],
            b"\x1b[1;".repeat(25_000),
            b"\x1b]9".repeat(30_000),
        ] {
            let longest = stretches(&output)
                .iter()
                .map(|(_, bytes)| bytes.len())
                .max();
            assert!(longest <= Some(EMULATOR_STRETCH_BYTES_MAX), "{longest:?}");
        }
    }
}
