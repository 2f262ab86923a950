//! Other people's words as inert text: what would steer a terminal, turn the reading direction or hide is
//! written out as an escape. Documents hold the raw words; a face calls this before it shows them.

/// `text` with control, bidirectional, zero-width and other invisible characters written out, on one line.
///
/// A face that shows several lines splits them first.
pub fn inert(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_unseen(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters that show nothing themselves, or change how their neighbours are shown.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{00ad}'                                      // soft hyphen
        | '\u{034f}'                                    // combining grapheme joiner
        | '\u{061c}'                                    // Arabic letter mark
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers
        | '\u{17b4}' | '\u{17b5}'                       // Khmer inherent vowels
        | '\u{180b}'..='\u{180f}'                       // Mongolian selectors and separator
        | '\u{200b}'..='\u{200f}'                       // zero-width characters, direction marks
        | '\u{2028}'..='\u{202e}'                       // line separators, embeddings, overrides
        | '\u{2060}'..='\u{206f}'                       // joiners, invisible operators, isolates
        | '\u{2800}'                                    // blank Braille pattern
        | '\u{fe00}'..='\u{fe0e}'                       // variation selectors, but for the emoji style
        | '\u{feff}'                                    // byte order mark
        | '\u{fff0}'..='\u{fffb}'                       // interlinear annotation
        | '\u{1bca0}'..='\u{1bca3}'                     // shorthand format controls
        | '\u{1d173}'..='\u{1d17a}'                     // musical format controls
        | '\u{e0000}'..='\u{e0fff}'                     // tags, further variation selectors
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_overrides_and_zero_width_characters_are_shown_not_obeyed() {
        assert_eq!(inert("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(inert("\u{202e}exe.txt"), "\\u{202e}exe.txt");
        assert_eq!(inert("pay\u{200b}pal"), "pay\\u{200b}pal");
        assert_eq!(inert("one\ntwo\r\t"), "one\\ntwo\\r\\t");
        assert_eq!(inert("\u{9b}31m\u{2066}"), "\\u{9b}31m\\u{2066}");
    }

    #[test]
    fn ordinary_text_of_any_script_stays_as_it_is() {
        for text in [
            "grüße",
            "日本語のテキスト",
            "שלום",
            "مرحبا",
            "👍🏽 ❤\u{fe0f}",
            "a \\ b",
        ] {
            assert_eq!(inert(text), text);
        }
    }

    proptest! {
        #[test]
        fn inert_text_holds_no_live_character_and_is_its_own_inert_form(text in "\\PC*|(?s).*") {
            let shown = inert(&text);

            prop_assert!(!shown.chars().any(|c| c.is_control() || is_unseen(c)));
            prop_assert_eq!(inert(&shown), shown);
        }
    }
}
