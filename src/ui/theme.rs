//! Colours and marks of everything around the shared screen. Colour is decoration: without it every mark is
//! still told by words, inversion or weight.

use ratatui::style::{Color, Modifier, Style};

use crate::engine::terminal::painter::{Caps, ColorDepth};

/// What a terminal with these variables can show. Old terminals take shapes and colours of underlines for other
/// things, so only those get them that show any colour.
pub fn caps(term: Option<&str>, colorterm: Option<&str>) -> Caps {
    let term = term.unwrap_or_default();
    let claims = |word: &str| colorterm == Some(word) || term.contains(word);
    let colors = if claims("truecolor") || claims("24bit") || term.ends_with("-direct") {
        ColorDepth::TrueColor
    } else if term.contains("256color") || colorterm.is_some_and(|value| !value.is_empty()) {
        ColorDepth::Palette256
    } else if term.starts_with("vt") || term.ends_with("-mono") {
        ColorDepth::Mono
    } else {
        ColorDepth::Ansi16
    };
    Caps {
        colors,
        underlines: colors == ColorDepth::TrueColor,
    }
}

/// Colours that are told apart on dark and on light ground, and from each other.
const MEMBERS: [u8; 12] = [39, 208, 41, 170, 178, 69, 203, 80, 107, 135, 172, 31];

/// The same for terminals with sixteen colours; without the greys, which are grounds there.
const MEMBERS_OF_16: [u8; 12] = [6, 3, 2, 5, 11, 12, 1, 14, 10, 13, 9, 4];

/// How much colour there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    None,
    Sixteen,
    All,
}

/// The looks of the frame around the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    colours: Colours,
}

impl Theme {
    /// For a terminal with so many colours, as far as they are wanted.
    pub(super) fn of(wanted: bool, depth: ColorDepth) -> Self {
        let colours = match depth {
            ColorDepth::Mono => Colours::None,
            ColorDepth::Ansi16 => Colours::Sixteen,
            ColorDepth::Palette256 | ColorDepth::TrueColor => Colours::All,
        };
        Self {
            colours: if wanted { colours } else { Colours::None },
        }
    }

    /// With all colours, or without.
    #[cfg(test)]
    pub(super) fn new(colour: bool) -> Self {
        Self::of(colour, ColorDepth::Palette256)
    }

    /// A colour of 256, its stand-in among 16, or nothing.
    fn fg(self, style: Style, all: u8, sixteen: u8) -> Style {
        match self.colours {
            Colours::None => style,
            Colours::Sixteen => style.fg(Color::Indexed(sixteen)),
            Colours::All => style.fg(Color::Indexed(all)),
        }
    }

    fn bg(self, style: Style, all: u8, sixteen: u8) -> Style {
        match self.colours {
            Colours::None => style,
            Colours::Sixteen => style.bg(Color::Indexed(sixteen)),
            Colours::All => style.bg(Color::Indexed(all)),
        }
    }

    /// A ground of its own, or the reverse of what stands around it.
    fn block(self, fg: (u8, u8), bg: (u8, u8)) -> Style {
        match self.colours {
            Colours::None => Style::new().add_modifier(Modifier::REVERSED),
            Colours::Sixteen | Colours::All => {
                self.bg(self.fg(Style::new(), fg.0, fg.1), bg.0, bg.1)
            }
        }
    }

    /// The status row.
    pub(super) fn bar(self) -> Style {
        self.block((252, 0), (236, 7))
    }

    /// What matters in the status row, told by its weight.
    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// One types oneself.
    pub(super) fn typing(self) -> Style {
        self.badge(28, 2)
    }

    /// One only reads.
    pub(super) fn reading(self) -> Style {
        self.badge(24, 4)
    }

    /// All input is locked, or something went wrong.
    pub(super) fn alarm(self) -> Style {
        self.badge(124, 1)
    }

    /// Something waits for the person. In a reversed row it is not reversed, and so seen without colour.
    pub(super) fn asking(self) -> Style {
        match self.colours {
            Colours::None => Style::new().remove_modifier(Modifier::REVERSED),
            Colours::Sixteen | Colours::All => self.block((16, 0), (214, 3)),
        }
        .add_modifier(Modifier::BOLD)
    }

    /// The keys go elsewhere than to the shell.
    pub(super) fn pane(self) -> Style {
        self.badge(54, 5)
    }

    fn badge(self, all: u8, sixteen: u8) -> Style {
        let ground = self.bg(Style::new(), all, sixteen);
        self.fg(ground, 231, 15).add_modifier(Modifier::BOLD)
    }

    /// The frame of a pane.
    pub(super) fn frame(self) -> Style {
        self.fg(Style::new(), 39, 6)
    }

    /// The frame of what asks for a decision.
    pub(super) fn asking_frame(self) -> Style {
        self.fg(Style::new(), 214, 3).add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    pub(super) fn faint(self) -> Style {
        match self.colours {
            Colours::None => Style::new().add_modifier(Modifier::DIM),
            Colours::Sixteen | Colours::All => self.fg(Style::new(), 244, 8),
        }
    }

    /// The chosen line of a list, and what was found.
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The one that was found among several: marked without colour, too.
    pub(super) fn found(self) -> Style {
        let marked = Modifier::BOLD | Modifier::UNDERLINED;
        self.block((16, 0), (214, 3)).add_modifier(marked)
    }

    /// The ground beside a screen that is smaller than the window.
    pub(super) fn beyond(self) -> Style {
        match self.colours {
            Colours::All => Style::new().bg(Color::Indexed(234)),
            Colours::None | Colours::Sixteen => Style::new(),
        }
    }

    /// A member's name.
    pub(super) fn member(self, colour: u8) -> Style {
        let (all, sixteen) = member_colour(colour);
        self.fg(Style::new(), all, sixteen)
            .add_modifier(Modifier::BOLD)
    }

    /// A member's pointer and its label.
    pub(super) fn pointer(self, colour: u8) -> Style {
        let (all, sixteen) = member_colour(colour);
        self.block((16, 0), (all, sixteen))
    }
}

/// The colour of a member, of 256 and of 16.
fn member_colour(number: u8) -> (u8, u8) {
    let index = usize::from(number) % MEMBERS.len();
    let of = |colours: &[u8; 12]| colours.get(index).copied().unwrap_or(6);
    (of(&MEMBERS), of(&MEMBERS_OF_16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_what_the_terminal_promises() {
        let colors = |term, colorterm| caps(term, colorterm).colors;
        assert_eq!(
            colors(Some("xterm-256color"), Some("truecolor")),
            ColorDepth::TrueColor
        );
        assert_eq!(colors(Some("xterm-direct"), None), ColorDepth::TrueColor);
        assert_eq!(colors(Some("tmux-256color"), None), ColorDepth::Palette256);
        assert_eq!(colors(Some("linux"), None), ColorDepth::Ansi16);
        assert_eq!(colors(Some("vt220"), None), ColorDepth::Mono);
        assert_eq!(colors(None, None), ColorDepth::Ansi16);
    }

    fn styles(theme: Theme) -> Vec<Style> {
        vec![
            theme.bar(),
            theme.typing(),
            theme.reading(),
            theme.alarm(),
            theme.pane(),
            theme.asking(),
            theme.frame(),
            theme.asking_frame(),
            theme.faint(),
            theme.chosen(),
            theme.found(),
            theme.beyond(),
            theme.member(3),
            theme.pointer(3),
        ]
    }

    #[test]
    fn without_colour_no_style_names_one() {
        for theme in [
            Theme::new(false),
            Theme::of(true, ColorDepth::Mono),
            Theme::of(false, ColorDepth::TrueColor),
        ] {
            for style in styles(theme) {
                assert_eq!((style.fg, style.bg), (None, None));
            }
        }
    }

    #[test]
    fn sixteen_colours_are_chosen_and_not_approximated() {
        for style in styles(Theme::of(true, ColorDepth::Ansi16)) {
            for colour in [style.fg, style.bg].into_iter().flatten() {
                assert!(matches!(colour, Color::Indexed(0..=15)), "{colour:?}");
            }
            assert!(style.fg.is_none() || style.fg != style.bg, "{style:?}");
        }
    }

    #[test]
    fn what_asks_stands_out_of_the_row_at_any_depth() {
        for depth in [
            ColorDepth::Mono,
            ColorDepth::Ansi16,
            ColorDepth::Palette256,
            ColorDepth::TrueColor,
        ] {
            let theme = Theme::of(true, depth);
            let row = theme.bar();
            for badge in [theme.typing(), theme.reading(), Style::new()] {
                assert_ne!(row.patch(theme.asking()), row.patch(badge), "{depth:?}");
            }
        }
    }

    #[test]
    fn neighbouring_numbers_have_different_colours() {
        for depth in [ColorDepth::Ansi16, ColorDepth::Palette256] {
            let theme = Theme::of(true, depth);
            for number in 0..=u8::MAX - 1 {
                assert_ne!(theme.member(number), theme.member(number + 1));
            }
        }
    }
}
