//! Values of flags: durations, sizes, keys, colours; parsed once, with errors that name what would fit.

use std::time::Duration;

/// A duration as people write it: `90s`, `10m`, `24h`, `7d`.
///
/// # Errors
/// Anything else, zero included.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let fail = || format!("`{text}` is no duration like 90s, 10m, 24h or 7d");
    let split = text.len().checked_sub(1).ok_or_else(fail)?;
    let (number, unit) = text.split_at_checked(split).ok_or_else(fail)?;
    let number: u64 = number.parse().map_err(|_| fail())?;
    let seconds = match unit {
        "s" => number,
        "m" => number.checked_mul(60).ok_or_else(fail)?,
        "h" => number.checked_mul(3_600).ok_or_else(fail)?,
        "d" => number.checked_mul(86_400).ok_or_else(fail)?,
        _ => return Err(fail()),
    };
    if seconds == 0 || seconds > 10 * 365 * 86_400 {
        return Err(fail());
    }
    Ok(Duration::from_secs(seconds))
}

/// A duration as people read it, to the second: `45 s`, `9 min 58 s`, `2 h 5 min`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, seconds) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A duration as people read it in a table: `12 s`, `5 min`, `2 h`, `3 d`.
pub(crate) fn short(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A duration, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry(pub(crate) Option<Duration>);

/// `24h`, or `never`.
///
/// # Errors
/// Anything else.
pub(crate) fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    duration(text)
        .map(|duration| Expiry(Some(duration)))
        .map_err(|error| format!("{error}, or never"))
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) cols: u16,
    pub(crate) rows: u16,
}

/// `COLSxROWS`, from 10x2 to 500x300.
///
/// # Errors
/// Anything else.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    let fail = || format!("`{text}` is no size like 80x24, from 10x2 to 500x300");
    let (cols, rows) = text.split_once('x').ok_or_else(fail)?;
    let (cols, rows) = (
        cols.parse().map_err(|_| fail())?,
        rows.parse().map_err(|_| fail())?,
    );
    if !(10..=500).contains(&cols) || !(2..=300).contains(&rows) {
        return Err(fail());
    }
    Ok(Size { cols, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_with_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "s",
            "24",
            "-1s",
            "0s",
            "1w",
            "é",
            "99999999999999999999d",
            "1.5h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_are_read_in_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (45, "45 s"),
            (600, "10 min"),
            (598, "9 min 58 s"),
            (7_200, "2 h"),
            (7_501, "2 h 5 min"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn in_a_table_a_span_has_one_unit() {
        for (seconds, text) in [(0, "0 s"), (119, "1 min"), (7_501, "2 h"), (200_000, "2 d")] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sizes_stay_in_their_bounds() {
        assert_eq!(size("80x24"), Ok(Size { cols: 80, rows: 24 }));
        for wrong in ["", "80", "9x24", "80x1", "501x24", "80x301", "80x24x1", "x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
