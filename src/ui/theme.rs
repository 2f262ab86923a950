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

/// The looks of the frame around the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    colour: bool,
}

impl Theme {
    /// With colour, or without.
    pub(super) fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn coloured(self, with: Style, without: Style) -> Style {
        if self.colour { with } else { without }
    }

    /// The status row.
    pub(super) fn bar(self) -> Style {
        let ground = Style::new().fg(Color::Indexed(252)).bg(Color::Indexed(236));
        self.coloured(ground, Style::new().add_modifier(Modifier::REVERSED))
    }

    /// What matters in the status row, told by its weight.
    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// One types oneself.
    pub(super) fn typing(self) -> Style {
        self.badge(Color::Indexed(28))
    }

    /// One only reads.
    pub(super) fn reading(self) -> Style {
        self.badge(Color::Indexed(24))
    }

    /// All input is locked, or something went wrong.
    pub(super) fn alarm(self) -> Style {
        self.badge(Color::Indexed(124))
    }

    /// Something waits for the person.
    pub(super) fn asking(self) -> Style {
        let with = Style::new().fg(Color::Indexed(16)).bg(Color::Indexed(214));
        let without = Style::new().add_modifier(Modifier::REVERSED);
        self.coloured(with, without).add_modifier(Modifier::BOLD)
    }

    fn badge(self, ground: Color) -> Style {
        let with = Style::new().fg(Color::Indexed(231)).bg(ground);
        self.coloured(with, Style::new())
            .add_modifier(Modifier::BOLD)
    }

    /// The frame of a pane, and of one that asks.
    pub(super) fn frame(self) -> Style {
        self.coloured(Style::new().fg(Color::Indexed(39)), Style::new())
    }

    /// The frame of what asks for a decision.
    pub(super) fn asking_frame(self) -> Style {
        let with = Style::new().fg(Color::Indexed(214));
        self.coloured(with, Style::new())
            .add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    pub(super) fn faint(self) -> Style {
        self.coloured(
            Style::new().fg(Color::Indexed(244)),
            Style::new().add_modifier(Modifier::DIM),
        )
    }

    /// The chosen line of a list.
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The ground beside a screen that is smaller than the window.
    pub(super) fn beyond(self) -> Style {
        self.coloured(Style::new().bg(Color::Indexed(234)), Style::new())
    }

    /// A member's name.
    pub(super) fn member(self, colour: u8) -> Style {
        let with = Style::new().fg(member_colour(colour));
        self.coloured(with, Style::new())
            .add_modifier(Modifier::BOLD)
    }

    /// A member's pointer and its label.
    pub(super) fn pointer(self, colour: u8) -> Style {
        let with = Style::new()
            .fg(Color::Indexed(16))
            .bg(member_colour(colour));
        self.coloured(with, Style::new().add_modifier(Modifier::REVERSED))
    }
}

fn member_colour(number: u8) -> Color {
    let index = usize::from(number) % MEMBERS.len();
    Color::Indexed(MEMBERS.get(index).copied().unwrap_or(39))
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

    #[test]
    fn without_colour_no_style_names_one() {
        let theme = Theme::new(false);
        for style in [
            theme.bar(),
            theme.typing(),
            theme.reading(),
            theme.alarm(),
            theme.asking(),
            theme.frame(),
            theme.asking_frame(),
            theme.faint(),
            theme.chosen(),
            theme.beyond(),
            theme.member(3),
            theme.pointer(3),
        ] {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }

    #[test]
    fn neighbouring_numbers_have_different_colours() {
        let theme = Theme::new(true);
        for number in 0..=u8::MAX - 1 {
            assert_ne!(theme.member(number), theme.member(number + 1));
        }
    }
}
