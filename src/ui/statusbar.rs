//! The one row at the bottom: what of ours stands over the screen, what one may do, what is shared, who is there,
//! how it is connected.
//!
//! It begins with words of its own, one for each card and for an open pane, and nothing that others have chosen (names,
//! titles, chat) ever stands before them: a shell cannot draw here, and no member can write here what passes for a
//! word of ours.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::engine::time::Now;
use crate::engine::view::{Picture, TerminalView, View};
use crate::ui::help::{Reader, bindings};
use crate::ui::prefix::Prefix;
use crate::ui::prompt::Word;
use crate::ui::text;
use crate::ui::theme::Theme;
use crate::ui::viewport::Crop;
use crate::ui::words::{self, Standing};

/// What the row tells of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) view: &'a View,
    pub(super) terminal: Option<&'a TerminalView>,
    /// Whether a part of the screen does not fit the window.
    pub(super) cropped: bool,
    /// Chat messages that came since the pane was last open.
    pub(super) unread: u64,
    /// The cards that stand over the screen.
    pub(super) cards: &'a [Word],
    /// Which pane is open, or what else the keys do.
    pub(super) over: Option<Over>,
    pub(super) prefix: Prefix,
    pub(super) now: Now,
    pub(super) theme: Theme,
}

/// What of ours, besides cards, the person has before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// A pane that has the keys.
    Keys(&'static str),
    /// A pane that stays open while the shell has the keys.
    Aside(&'static str),
    /// A part of the screen, chosen by keys, from this place on.
    Scrolled(Crop),
}

/// A part of the row, in forms from long to short; the last may be empty.
#[derive(Debug, Clone)]
pub(super) struct Part {
    forms: Vec<String>,
    style: Style,
    /// Parts with smaller numbers shrink first.
    keep: u8,
    /// Whether it belongs to the part before it, without a line between them.
    joined: bool,
}

impl Part {
    pub(super) fn new(keep: u8, style: Style, forms: impl IntoIterator<Item = String>) -> Self {
        Self {
            forms: forms.into_iter().collect(),
            style,
            keep,
            joined: false,
        }
    }

    /// Belongs to the part before it.
    pub(super) fn joined(mut self) -> Self {
        self.joined = true;
        self
    }

    fn text(&self) -> &str {
        self.forms.first().map_or("", String::as_str)
    }

    fn shrink(&mut self) {
        self.forms.remove(0);
    }
}

/// The usual row.
pub(super) fn parts(facts: Facts<'_>) -> Vec<Part> {
    let Facts {
        view,
        terminal,
        theme,
        prefix,
        ..
    } = facts;
    let plain = Style::new();
    let title = text::shown(terminal.map_or(view.session.title.as_str(), |one| one.title.as_str()));
    let (count, names) = words::who_is_here(view);
    let mut parts = leading(facts);
    parts.push(standing(facts));
    parts.push(Part::new(
        40,
        theme.strong(),
        [text::cut(&title, 28), text::cut(&title, 12), String::new()],
    ));
    if let Some(terminal) = terminal {
        parts.push(Part::new(50, plain, words::presenter(view, terminal)));
    }
    parts.push(Part::new(
        60,
        plain,
        [format!("{count} here"), String::new()],
    ));
    parts.push(
        Part::new(
            10,
            plain,
            [format!(": {}", text::cut(&names, 40)), String::new()],
        )
        .joined(),
    );
    parts.push(Part::new(88, plain, words::connection(view)));
    parts.push(Part::new(72, plain, words::waits_for(view)).joined());
    parts.push(Part::new(
        15,
        plain,
        [reached(facts).unwrap_or_default(), String::new()],
    ));
    parts.extend(marks(facts));
    parts.push(Part::new(
        30,
        theme.faint(),
        [
            format!("{prefix} ? help"),
            format!("{prefix} ?"),
            String::new(),
        ],
    ));
    parts
}

/// The row after the prefix: which keys mean something now.
pub(super) fn menu(facts: Facts<'_>, reader: Reader) -> Vec<Part> {
    let Facts { prefix, theme, .. } = facts;
    let mut parts = leading(facts);
    parts.push(Part::new(95, theme.typing(), [format!(" {prefix} ")]));
    let keys = (10..).zip(bindings(reader).into_iter().rev());
    let keys: Vec<_> = keys.collect();
    parts.extend(keys.into_iter().rev().map(|(place, (key, word, _))| {
        // Without room the words of the last keys go first, but for the one that leads on.
        let keep = match key {
            "y" => 5,
            "[" | "/" => 6,
            "?" => 90,
            _ => place,
        };
        let forms = [format!("  {key} {word}"), format!("  {key}")];
        Part::new(keep, Style::new(), forms).joined()
    }));
    parts
}

/// What the row begins with: the words of cards and panes.
fn leading(facts: Facts<'_>) -> Vec<Part> {
    let theme = facts.theme;
    let cards = facts.cards.iter();
    let mut parts: Vec<Part> = cards
        .map(|word| Part::new(98, theme.asking(), word.forms()))
        .collect();
    match facts.over {
        None => {}
        Some(Over::Keys(pane)) => {
            let forms = [format!(" keys go to {pane} "), format!(" {pane} ")];
            parts.push(Part::new(92, theme.pane(), forms));
        }
        Some(Over::Aside(pane)) => {
            let forms = [format!(" {pane} is open "), format!(" {pane} ")];
            parts.push(Part::new(20, theme.strong(), forms));
        }
        Some(Over::Scrolled(_)) => {
            let forms = [
                " scrolled: arrows move, q ends ".to_owned(),
                " scrolled ".to_owned(),
            ];
            parts.push(Part::new(92, theme.pane(), forms));
        }
    }
    parts
}

/// The row while something is to be said.
pub(super) fn said(facts: Facts<'_>, text: &str, alarm: bool) -> Vec<Part> {
    let style = if alarm {
        facts.theme.alarm()
    } else {
        facts.theme.strong()
    };
    let mut parts = leading(facts);
    parts.push(standing(facts));
    parts.push(Part::new(10, style, [format!(" {text} ")]));
    parts
}

/// What the person's keys do.
fn standing(facts: Facts<'_>) -> Part {
    let Facts {
        view,
        terminal,
        theme,
        now,
        ..
    } = facts;
    let Some(terminal) = terminal else {
        return Part::new(99, theme.reading(), [" no terminal ".to_owned()]);
    };
    let locked = if terminal.control.locked {
        ", others locked"
    } else {
        ""
    };
    let left = || {
        words::time_left(terminal, now)
            .map(|left| format!(", {left}"))
            .unwrap_or_default()
    };
    match Standing::of(terminal) {
        Standing::Host => Part::new(
            99,
            theme.typing(),
            [format!(" you type{locked} "), " you type ".to_owned()],
        ),
        Standing::HostWatches => {
            let holder = terminal.control.holder.unwrap_or(terminal.host);
            let name = words::name_of(view, &holder);
            Part::new(
                99,
                theme.asking(),
                [
                    format!(" guest {name} types{} ", left()),
                    format!(" guest {name} types "),
                    " a guest types ".to_owned(),
                ],
            )
        }
        Standing::Controls if terminal.control.unconfirmed > 0 && is_behind(view, terminal) => {
            let count = terminal.control.unconfirmed;
            Part::new(
                99,
                theme.alarm(),
                [
                    format!(" {count} bytes not confirmed "),
                    " keys not confirmed ".to_owned(),
                ],
            )
        }
        Standing::Controls => Part::new(
            99,
            theme.typing(),
            [format!(" you type{} ", left()), " you type ".to_owned()],
        ),
        Standing::Asked => Part::new(99, theme.asking(), [" asked for control ".to_owned()]),
        Standing::Locked => Part::new(99, theme.alarm(), [" read-only, locked ".to_owned()]),
        Standing::ReadOnly => Part::new(99, theme.reading(), [" read-only ".to_owned()]),
    }
}

/// Whether what the host shows does not come through just now.
fn is_behind(view: &View, terminal: &TerminalView) -> bool {
    terminal.picture == Picture::Stale || words::is_away(view, terminal)
}

/// How the terminal's host is reached; at the host itself nothing.
fn reached(facts: Facts<'_>) -> Option<String> {
    let terminal = facts.terminal.filter(|terminal| !terminal.mine)?;
    words::reached(words::participant(facts.view, &terminal.host)?)
}

/// What is only shown when it is so.
fn marks(facts: Facts<'_>) -> Vec<Part> {
    let Facts {
        view,
        terminal,
        theme,
        ..
    } = facts;
    let mut marks = Vec::new();
    if let Some(terminal) = terminal {
        let size = format!("part of {}x{}", terminal.cols, terminal.rows);
        if let Some(Over::Scrolled(Crop { x, y })) = facts.over {
            let (row, column) = (y.saturating_add(1), x.saturating_add(1));
            let place = format!("from row {row}, column {column}");
            let forms = [
                format!("{place} of {}x{}", terminal.cols, terminal.rows),
                place,
                format!("{row},{column}"),
            ];
            marks.push(Part::new(86, Style::new(), forms));
        } else if facts.cropped {
            marks.push(Part::new(
                70,
                Style::new(),
                [size, "part".to_owned(), String::new()],
            ));
        }
        match terminal.picture {
            Picture::None if words::is_away(view, terminal) => {
                let host = words::name_of(view, &terminal.host);
                let forms = [format!(" {host} is away "), " host is away ".to_owned()];
                marks.push(Part::new(85, theme.alarm(), forms));
            }
            Picture::None | Picture::Live | Picture::Stale if words::is_away(view, terminal) => {
                let host = words::name_of(view, &terminal.host);
                marks.push(Part::new(
                    85,
                    theme.alarm(),
                    [
                        format!(" {host} is away: old picture "),
                        " old picture ".to_owned(),
                    ],
                ));
            }
            Picture::Stale => {
                marks.push(Part::new(
                    85,
                    theme.alarm(),
                    [" picture is behind ".to_owned(), " behind ".to_owned()],
                ));
            }
            Picture::None | Picture::Live => {}
        }
    }
    if let Some(unsaved) = words::unsaved(facts.view) {
        marks.push(Part::new(98, facts.theme.alarm(), unsaved));
    }
    if facts.unread > 0 {
        let long = format!(" {} new in chat ", facts.unread);
        marks.push(Part::new(
            75,
            theme.asking(),
            [long, format!(" {} new ", facts.unread), String::new()],
        ));
    }
    marks
}

const BETWEEN: &str = " │ ";

/// Draws as much of the parts as fits.
pub(super) fn draw(mut parts: Vec<Part>, area: Rect, theme: Theme) -> Buffer {
    while row_width(&parts) > usize::from(area.width) {
        let shrinkable = parts.iter_mut().filter(|part| part.forms.len() > 1);
        let Some(next) = shrinkable.min_by_key(|part| part.keep) else {
            break;
        };
        next.shrink();
    }
    let mut drawn = Buffer::empty(area);
    drawn.set_style(area, theme.bar());
    line(&parts, theme).render(area, &mut drawn);
    drawn
}

fn line(parts: &[Part], theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for part in parts.iter().filter(|part| !part.text().is_empty()) {
        if !spans.is_empty() && !part.joined {
            spans.push(Span::styled(BETWEEN, theme.faint()));
        }
        spans.push(Span::styled(part.text().to_owned(), part.style));
    }
    Line::from(spans)
}

fn row_width(parts: &[Part]) -> usize {
    let shown = || parts.iter().filter(|part| !part.text().is_empty());
    let text: usize = shown().map(|part| text::width(part.text())).sum();
    let between = shown().skip(1).filter(|part| !part.joined).count();
    text.saturating_add(between.saturating_mul(text::width(BETWEEN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::CommandError;
    use crate::engine::error::Code;
    use crate::engine::view::ConnectionView;
    use crate::ui::sample;

    fn row(parts: &[Part], cols: u16) -> String {
        let drawn = draw(parts.to_vec(), Rect::new(0, 0, cols, 1), Theme::new(true));
        let text: String = drawn.content().iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    }

    #[test]
    fn that_nothing_is_saved_stands_there_as_long_as_it_is_so() {
        let mut view = sample::host_view();
        let shown = |view: &View, cols| {
            let facts = facts(view);
            row(&parts(facts), cols)
        };
        assert!(!shown(&view, 120).contains("saved"));

        view.unsaved = Some(CommandError::new(Code::DiskFull, "the disk is full"));
        assert!(shown(&view, 160).contains("disk full: nothing is saved"));
        assert!(shown(&view, 40).contains("disk full"));
        view.unsaved = Some(CommandError::new(Code::StoreFailed, "fsync failed"));

        let wide = shown(&view, 160);
        assert!(wide.contains("nothing is saved") && wide.contains("until restart"));
        assert!(shown(&view, 40).contains("not saved"));
    }

    fn part(keep: u8, forms: &[&str]) -> Part {
        Part::new(
            keep,
            Style::new(),
            forms.iter().map(|form| (*form).to_owned()),
        )
    }

    fn facts<'a>(view: &'a View) -> Facts<'a> {
        Facts {
            view,
            terminal: view.terminals.first(),
            cropped: false,
            unread: 0,
            cards: &[],
            over: None,
            prefix: Prefix::default(),
            now: sample::NOW,
            theme: Theme::new(true),
        }
    }

    #[test]
    fn a_viewer_reads_what_it_may_do_who_hosts_and_how_it_is_connected() {
        let view = sample::view();
        let parts = parts(facts(&view));

        assert_eq!(
            row(&parts, 120),
            " read-only  │ demo │ bob hosts │ 3 here: you, bob, eve │ live │ lan 2.3 ms │ Ctrl-] ? help"
        );
        assert_eq!(
            row(&parts, 80),
            " read-only  │ demo │ bob hosts │ 3 here │ live │ lan 2.3 ms │ Ctrl-] ? help"
        );
        assert_eq!(row(&parts, 40), " read-only  │ bob hosts │ 3 here │ live");
        assert_eq!(row(&parts, 28), " read-only  │ 3 here │ live");
    }

    #[test]
    fn the_host_reads_who_has_control_and_for_how_long() {
        let mut view = sample::host_view();
        view.terminals[0].control.holder = Some(sample::member(2));
        view.terminals[0].control.ends =
            Some(sample::NOW.wall + std::time::Duration::from_secs(900));

        let parts = parts(facts(&view));

        assert_eq!(
            row(&parts, 80),
            " guest bob types, 15 min left  │ demo │ you host │ 3 here │ live │ Ctrl-] ? help"
        );
        assert_eq!(
            row(&parts, 48),
            " guest bob types, 15 min left  │ 3 here │ live"
        );
    }

    #[test]
    fn troubles_outlive_everything_else_in_a_narrow_row() {
        let mut view = sample::view();
        view.terminals[0].picture = Picture::Stale;
        view.connection = ConnectionView::Offline {
            waiting: 2,
            waits_for: "looking for bob on this network".into(),
        };
        assert_eq!(
            row(&parts(facts(&view)), 80),
            " read-only  │ offline, 2 waiting: looking for bob on this… │  picture is behind"
        );

        let facts = Facts {
            cropped: true,
            unread: 3,
            cards: &[Word::Asks(1)],
            ..facts(&view)
        };

        assert_eq!(
            row(&parts(facts), 80),
            " 1 to decide  │  read-only  │ offline, 2 waiting │  picture is behind  │  3 new"
        );
        assert_eq!(
            row(&parts(facts), 50),
            " 1 to decide  │  read-only  │ offline │  behind"
        );
    }

    #[test]
    fn titles_and_names_of_others_never_carry_an_escape() {
        let mut view = sample::view();
        view.terminals[0].title = "\x1b]0;x\x07\u{9b}2J".into();
        view.participants[1].name = "\x1b[2J".into();

        let row = row(&parts(facts(&view)), 200);

        assert!(!row.chars().any(char::is_control), "{row:?}");
        assert!(row.contains("\\u{1b}[2J hosts"), "{row:?}");
    }

    #[test]
    fn after_the_prefix_the_row_names_the_keys() {
        let view = sample::view();
        let reader = Reader {
            hosts: false,
            owns: false,
        };
        let keys = menu(facts(&view), reader);
        assert_eq!(
            row(&keys, 100),
            " Ctrl-]   c chat  p people  r control  d detach  [ scroll  / search  x leave  y copy  ? help"
        );
        assert_eq!(
            row(&keys, 80),
            " Ctrl-]   c chat  p people  r control  d detach  [  / search  x leave  y  ? help"
        );
        assert_eq!(row(&keys, 40), " Ctrl-]   c  p  r  d  [  /  x  y  ? help");

        let asked = Facts {
            cards: &[Word::Asks(2)],
            ..facts(&view)
        };
        let keys = menu(asked, reader);
        assert!(row(&keys, 80).starts_with(" 2 to decide  │  Ctrl-] "));
    }

    #[test]
    fn the_row_begins_with_the_words_of_cards_and_panes_whatever_others_are_called() {
        let mut view = sample::host_view();
        view.terminals[0].title = " 1 to decide ".into();
        view.participants[1].name = " 1 to decide ".into();
        view.terminals[0].control.holder = Some(sample::member(2));

        let plain = row(&parts(facts(&view)), 120);
        assert!(plain.starts_with(" guest  1 to decide  types"), "{plain}");

        for (over, begins) in [
            (
                Over::Keys("chat"),
                " 2 to decide  │  keys go to chat  │  guest ",
            ),
            (
                Over::Aside("people"),
                " 2 to decide  │  people is open  │  guest ",
            ),
            (
                Over::Scrolled(Crop { x: 4, y: 10 }),
                " 2 to decide  │  scrolled: arrows move, q ends  │  guest ",
            ),
        ] {
            let facts = Facts {
                cards: &[Word::Asks(2)],
                over: Some(over),
                ..facts(&view)
            };
            for parts in [parts(facts), said(facts, "bob: 7 to decide", false)] {
                let row = row(&parts, 160);
                assert!(row.starts_with(begins), "{row}");
            }
        }
    }

    #[test]
    fn who_scrolls_reads_where_and_how_to_end_that() {
        let view = sample::view();
        let facts = Facts {
            cropped: true,
            over: Some(Over::Scrolled(Crop { x: 4, y: 10 })),
            ..facts(&view)
        };
        let wide = row(&parts(facts), 200);
        assert!(wide.contains("from row 11, column 5 of 80x24"), "{wide}");
        let narrow = row(&parts(facts), 60);
        assert_eq!(
            narrow,
            " scrolled: arrows move, q ends  │  read-only  │ live │ 11,5"
        );
    }

    #[test]
    fn what_is_said_stands_beside_what_one_may_do() {
        let view = sample::view();
        let said = said(facts(&view), "read-only: Ctrl-] r asks for control", true);
        assert_eq!(
            row(&said, 80),
            " read-only  │  read-only: Ctrl-] r asks for control"
        );
    }

    #[test]
    fn parts_shrink_in_the_order_of_their_weight() {
        let parts = [
            part(9, &[" you type "]),
            part(5, &["a long title", "a title", ""]),
            part(1, &["hint", ""]),
            part(7, &["live"]),
        ];

        assert_eq!(row(&parts, 80), " you type  │ a long title │ hint │ live");
        assert_eq!(row(&parts, 35), " you type  │ a long title │ live");
        assert_eq!(row(&parts, 30), " you type  │ a title │ live");
        assert_eq!(row(&parts, 20), " you type  │ live");
        assert_eq!(row(&parts, 5), " you");
    }

    #[test]
    fn joined_parts_stand_close() {
        let parts = [
            part(1, &["3 here", ""]),
            part(0, &[": a, b, c", ""]).joined(),
            part(2, &["x"]),
        ];
        assert_eq!(row(&parts, 80), "3 here: a, b, c │ x");
        assert_eq!(row(&parts, 12), "3 here │ x");
    }
}
