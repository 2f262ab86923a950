//! Words on cells: inert, measured in columns, cut and wrapped.

use std::ops::Range;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::engine::documents::text::inert;

/// Other people's words as they may be shown, on one line.
pub(super) fn shown(text: &str) -> String {
    inert(text)
}

/// A name as it may be shown, never longer than so many columns.
pub(super) fn name(text: &str, cols: usize) -> String {
    cut(&inert(text), cols)
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The front of a text that fits.
pub(super) fn head(text: &str, cols: usize) -> &str {
    let mut used = 0_usize;
    for (at, c) in text.char_indices() {
        used = used.saturating_add(columns(c));
        if used > cols {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// The end of a text that fits.
pub(super) fn tail(text: &str, cols: usize) -> &str {
    let mut used = 0_usize;
    for (at, c) in text.char_indices().rev() {
        used = used.saturating_add(columns(c));
        if used > cols {
            return text
                .get(at.saturating_add(c.len_utf8())..)
                .unwrap_or_default();
        }
    }
    text
}

/// A text that fits, with `…` where it was cut.
pub(super) fn cut(text: &str, cols: usize) -> String {
    if head(text, cols).len() == text.len() {
        text.to_owned()
    } else {
        let mut kept = head(text, cols.saturating_sub(1)).to_owned();
        if cols > 0 {
            kept.push('…');
        }
        kept
    }
}

/// A text on rows of so many columns, broken at spaces where there are any.
pub(super) fn wrap(text: &str, cols: usize) -> Vec<String> {
    wrapped(text, cols)
        .into_iter()
        .map(|row| text.get(row).unwrap_or_default().to_owned())
        .collect()
}

/// Which bytes of a text stand on which row of so many columns; the space at which it is broken on none.
pub(super) fn wrapped(text: &str, cols: usize) -> Vec<Range<usize>> {
    let cols = cols.max(2);
    let mut rows = Vec::new();
    let mut from = 0_usize;
    loop {
        let rest = text.get(from..).unwrap_or_default();
        let fits = head(rest, cols);
        if fits.len() == rest.len() {
            rows.push(from..text.len());
            return rows;
        }
        let next_is_space = rest
            .get(fits.len()..)
            .is_some_and(|after| after.starts_with(' '));
        let end = if next_is_space {
            fits.len()
        } else {
            fits.rfind(' ').unwrap_or(fits.len())
        };
        let end = if end == 0 { fits.len() } else { end };
        // A character that is wider than a row stands on one of its own.
        let one = || rest.chars().next().map_or(rest.len(), char::len_utf8);
        let end = if end == 0 { one() } else { end };
        let row = from..from.saturating_add(end);
        let space = text
            .get(row.end..)
            .is_some_and(|after| after.starts_with(' '));
        from = row.end.saturating_add(usize::from(space));
        rows.push(row);
    }
}

/// A stretch of time for people, in one or two letters' worth: `12 s`, `5 min`, `2 h`, `3 d`.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A round trip for people.
pub(super) fn round_trip(rtt: Duration) -> String {
    match rtt.as_micros() {
        0..1_000 => "<1 ms".to_owned(),
        1_000..10_000 => format!("{:.1} ms", rtt.as_secs_f64() * 1e3),
        _ => format!("{} ms", rtt.as_millis()),
    }
}

/// Columns of one character, rather too many than too few: the emoji style widens what precedes it.
fn columns(c: char) -> usize {
    if c == '\u{fe0f}' {
        1
    } else {
        c.width().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_columns_and_never_inside_a_wide_character() {
        assert_eq!(cut("grüße", 5), "grüße");
        assert_eq!(cut("grüße", 4), "grü…");
        assert_eq!(cut("漢字", 3), "漢…");
        assert_eq!(cut("漢字", 2), "…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(tail("a漢字", 3), "字");
    }

    #[test]
    fn rows_break_at_spaces_and_inside_words_that_are_too_long() {
        assert_eq!(wrap("a quick brown fox", 7), ["a quick", "brown", "fox"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("漢字漢字", 5), ["漢字", "漢字"]);
        assert_eq!(wrap("  abc", 3), [" ", "abc"]);
        let text = "a quick  brown 漢字 fox";
        let rows = wrapped(text, 6);
        assert!(rows.windows(2).all(|two| two[0].end <= two[1].start));
        assert_eq!(rows.last().map(|row| row.end), Some(text.len()));
    }

    #[test]
    fn times_are_said_shortly() {
        assert_eq!(span(Duration::from_secs(59)), "59 s");
        assert_eq!(span(Duration::from_secs(150)), "2 min");
        assert_eq!(span(Duration::from_secs(7_300)), "2 h");
        assert_eq!(span(Duration::from_secs(200_000)), "2 d");
        assert_eq!(round_trip(Duration::from_micros(300)), "<1 ms");
        assert_eq!(round_trip(Duration::from_micros(2_340)), "2.3 ms");
        assert_eq!(round_trip(Duration::from_millis(42)), "42 ms");
    }
}
