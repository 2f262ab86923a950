//! Finds a word in texts as they are shown: in any case, unless the word has a capital.

use std::ops::Range;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needle {
    characters: Vec<char>,
    any_case: bool,
}

impl Needle {
    /// None if there is nothing to look for.
    pub(super) fn new(word: &str) -> Option<Self> {
        let any_case = !word.chars().any(char::is_uppercase);
        let characters: Vec<char> = if any_case {
            word.chars().flat_map(char::to_lowercase).collect()
        } else {
            word.chars().collect()
        };
        (!characters.is_empty()).then_some(Self {
            characters,
            any_case,
        })
    }

    /// Whether it is in a text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        !self.places(text).is_empty()
    }

    /// Where it is in a text, in bytes; the places do not overlap and have no part of a character.
    pub(super) fn places(&self, text: &str) -> Vec<Range<usize>> {
        let hay = self.folded(text);
        let length = self.characters.len();
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut at = 0_usize;
        while let Some(window) = hay.get(at..at.saturating_add(length)) {
            let fits = window.iter().map(|(c, _)| c).eq(&self.characters);
            match (fits, window.first(), window.last()) {
                (true, Some((_, first)), Some((_, last))) => {
                    places.push(first.start..last.end);
                    at = at.saturating_add(length);
                }
                (true | false, _, _) => at = at.saturating_add(1),
            }
        }
        places
    }

    /// The characters that are compared, each with the place of the character that it stands for: a lower-case form
    /// may have more characters than the capital.
    fn folded(&self, text: &str) -> Vec<(char, Range<usize>)> {
        let mut folded = Vec::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            let place = at..at.saturating_add(c.len_utf8());
            if self.any_case {
                folded.extend(c.to_lowercase().map(|low| (low, place.clone())));
            } else {
                folded.push((c, place));
            }
        }
        folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(word: &str, text: &'a str) -> Vec<&'a str> {
        let needle = Needle::new(word).unwrap();
        let places = needle.places(text);
        assert_eq!(needle.is_in(text), !places.is_empty());
        places.into_iter().map(|place| &text[place]).collect()
    }

    #[test]
    fn a_word_without_capitals_is_found_in_any_case_and_one_with_them_as_written() {
        assert_eq!(found("err", "Err, ERROR and error"), ["Err", "ERR", "err"]);
        assert_eq!(found("Err", "Err, ERROR and error"), ["Err"]);
        assert_eq!(found("größe", "GRÖSSE Größe GRÖßE"), ["Größe", "GRÖßE"]);
        assert_eq!(found("字", "漢字漢字"), ["字", "字"]);
    }

    #[test]
    fn places_are_whole_characters_and_never_overlap() {
        assert_eq!(found("aa", "aaaaa"), ["aa", "aa"]);
        assert_eq!(found("i", "İx"), ["İ"]);
        assert_eq!(found("abc", "ab"), [""; 0]);
        assert_eq!(Needle::new(""), None);
    }
}
