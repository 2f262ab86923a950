//! Cards over the screen: what asks the host's person for a decision, what a viewer waits for, how others join.
//!
//! A shell can draw a frame and any words in it. What it cannot do is write into the status row, which no cell of the
//! screen reaches: each card has a word there, first in the row, where nothing stands that others have chosen. A card
//! without that word is none of ours.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Widget};

use crate::engine::ids::MemberId;
use crate::engine::view::{Phase, Picture, TerminalView, View};
use crate::ui::layout::Size;
use crate::ui::prefix::Prefix;
use crate::ui::text;
use crate::ui::theme::Theme;
use crate::ui::words;

/// Columns of a card, frame included, where the window has them.
const CARD_COLS: u16 = 52;

/// Questions that a card shows; of more it tells the number.
const QUESTIONS_MAX: usize = 3;

/// A card, and its word in the status row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) drawn: Buffer,
    pub(super) word: Word,
}

/// What the status row says of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// So many questions wait for the person.
    Asks(usize),
    /// How others join is shown.
    Invites,
    /// There is no living picture, and the card says why.
    Tells,
}

impl Word {
    /// From long to short; never empty, so that no window is too narrow for it.
    pub(super) fn forms(self) -> [String; 2] {
        match self {
            Self::Asks(count) => [format!(" {count} to decide "), format!(" {count}? ")],
            Self::Invites => [" ticket shown ".to_owned(), " ticket ".to_owned()],
            Self::Tells => [" note shown ".to_owned(), " note ".to_owned()],
        }
    }
}

/// The questions that wait for this person, in words.
pub(super) fn questions(
    view: &View,
    terminal: Option<&TerminalView>,
    prefix: Prefix,
) -> Vec<String> {
    let requests = terminal
        .map(|terminal| terminal.control.requests.as_slice())
        .unwrap_or_default();
    let mut questions: Vec<String> = Vec::new();
    for (index, asks) in requests.iter().enumerate() {
        let name = participant_with_key(view, asks);
        let answer = if index == 0 {
            format!("{prefix} g gives it, {prefix} p then d refuses.")
        } else {
            format!("{prefix} p decides.")
        };
        questions.push(format!("{name} asks for control. {answer}"));
    }
    questions.extend(view.approvals.iter().map(|newcomer| {
        let name = text::name(&newcomer.name, 24);
        let key = newcomer.member.short();
        format!(
            "{name} (key {key}) wants to join as {}. {prefix} p, then a lets in, d refuses.",
            newcomer.role
        )
    }));
    questions
}

/// Names are chosen freely; who gets the keys is told by the key.
fn participant_with_key(view: &View, id: &MemberId) -> String {
    let name = view.participants.iter().find(|one| one.id == *id);
    let name = name.map_or_else(String::new, |one| text::name(&one.name, 24));
    format!("{name} (key {})", id.short())
        .trim_start()
        .to_owned()
}

/// The card of questions; none without any.
pub(super) fn draw_questions(
    questions: &[String],
    window: Size,
    cursor_row: u16,
    theme: Theme,
) -> Option<Card> {
    if questions.is_empty() {
        return None;
    }
    let mut lines: Vec<String> = Vec::new();
    let cols = usize::from(CARD_COLS.min(window.cols).saturating_sub(4));
    for question in questions.iter().take(QUESTIONS_MAX) {
        lines.extend(text::wrap(question, cols));
    }
    match questions.len().saturating_sub(QUESTIONS_MAX) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    let area = window.corner(CARD_COLS, height_of(&lines), cursor_row);
    let block = Block::bordered()
        .border_style(theme.asking_frame())
        .title(" collab-p2p asks ");
    Some(Card {
        drawn: card(block, &lines, area, 1),
        word: Word::Asks(questions.len()),
    })
}

/// What a person without a picture should know; none while there is one.
pub(super) fn waiting(
    view: &View,
    terminal: Option<&TerminalView>,
    prefix: Prefix,
    has_picture: bool,
) -> Option<String> {
    match &view.phase {
        Phase::Joining { waits_for } => {
            return Some(format!("Joining: {}", text::shown(waits_for)));
        }
        Phase::Closed => return Some("The session is closed.".to_owned()),
        Phase::Ended => return Some("This membership has ended.".to_owned()),
        Phase::Member { .. } => {}
    }
    let Some(terminal) = terminal else {
        return Some(format!(
            "Nobody shares a terminal just now. Wait, or press {prefix} d to come back later, {prefix} x to leave."
        ));
    };
    match (terminal.open, terminal.picture) {
        (false, _) => Some(format!(
            "{} {prefix} d detaches, {prefix} x leaves.",
            ended(terminal)
        )),
        (true, Picture::None | Picture::Live | Picture::Stale) if has_picture => None,
        (true, Picture::None | Picture::Live | Picture::Stale) => {
            let host = words::name_of(view, &terminal.host);
            if words::is_away(view, terminal) {
                return Some(format!(
                    "{host}, whose terminal this is, is away. It is shown when {host} is back; \
                     {prefix} c writes meanwhile, {prefix} d detaches, {prefix} x leaves."
                ));
            }
            Some(format!("Waiting for the picture of {host}'s terminal."))
        }
    }
}

fn ended(terminal: &TerminalView) -> String {
    match terminal.status {
        Some(status) => format!("This terminal has ended with status {}.", status.0),
        None => "This terminal has ended.".to_owned(),
    }
}

/// The card of what is waited for.
pub(super) fn draw_waiting(what: &str, window: Size, theme: Theme) -> Card {
    let cols = usize::from(CARD_COLS.min(window.cols).saturating_sub(4));
    let lines = text::wrap(what, cols);
    let area = window.middle(CARD_COLS, height_of(&lines));
    let block = Block::bordered()
        .border_style(theme.frame())
        .title(" collab-p2p ");
    Card {
        drawn: card(block, &lines, area, 1),
        word: Word::Tells,
    }
}

/// The card of the lines that tell how others join. They keep their first column: a long ticket goes on in the
/// rows below without anything before it.
pub(super) fn draw_share_block(
    lines: &[String],
    window: Size,
    cursor_row: u16,
    prefix: Prefix,
    theme: Theme,
) -> Card {
    let rows = folded(lines, usize::from(window.cols));
    let block = Block::new()
        .borders(ratatui::widgets::Borders::TOP | ratatui::widgets::Borders::BOTTOM)
        .border_style(theme.frame())
        .title(" collab-p2p: nobody has joined yet ")
        .title_bottom(format!(
            " {prefix} y copies the ticket · {prefix} ? puts this away "
        ));
    let area = window.across(height_of(&rows), cursor_row);
    Card {
        drawn: card(block, &rows, area, 0),
        word: Word::Invites,
    }
}

/// Lines on rows of so many columns: sentences broken at spaces, a command to join cut exactly. If it needs several
/// rows its ticket is in quotes: selected with the mouse it holds line ends, which a shell takes within quotes only,
/// and which a ticket may contain.
pub(super) fn folded(lines: &[String], cols: usize) -> Vec<String> {
    lines
        .iter()
        .flat_map(|line| {
            let line = text::shown(line);
            match line.split_once(" join ") {
                Some((command, ticket)) if is_ticket(ticket) && text::width(&line) > cols => {
                    cut(&format!("{command} join '{ticket}'"), cols)
                }
                Some(_) | None => text::wrap(&line, cols),
            }
        })
        .collect()
}

fn is_ticket(text: &str) -> bool {
    text.starts_with("cp2p") && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// ASCII text on full rows.
fn cut(text: &str, cols: usize) -> Vec<String> {
    let rows = text.as_bytes().chunks(cols.max(2));
    rows.map(|row| String::from_utf8_lossy(row).into_owned())
        .collect()
}

fn height_of(lines: &[String]) -> u16 {
    u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_add(2)
}

fn card(block: Block<'_>, lines: &[String], area: Rect, indent: u16) -> Buffer {
    let inner = block.inner(area);
    let mut drawn = Buffer::empty(area);
    block.render(area, &mut drawn);
    let x = inner.x.saturating_add(indent.min(inner.width));
    for (y, line) in (inner.y..inner.bottom()).zip(lines) {
        drawn.set_line(
            x,
            y,
            &Line::raw(line.as_str()),
            inner.right().saturating_sub(x),
        );
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::ExitStatus;
    use crate::ui::sample;

    const WINDOW: Size = Size { cols: 80, rows: 25 };

    fn rows(card: &Card) -> Vec<String> {
        let drawn = &card.drawn;
        let area = *drawn.area();
        (area.top()..area.bottom())
            .map(|y| {
                let row: String = (area.left()..area.right())
                    .map(|x| drawn[(x, y)].symbol())
                    .collect();
                row.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_request_for_control_and_a_newcomer_are_asked_about_in_one_card() {
        let mut view = sample::host_view();
        view.terminals[0].control.requests = vec![sample::member(2)];
        view.approvals = vec![sample::approval("mallory\x1b[2J")];

        let questions = questions(&view, view.terminals.first(), Prefix::default());
        let drawn = draw_questions(&questions, WINDOW, 12, Theme::new(true)).unwrap();

        assert_eq!(
            rows(&drawn),
            [
                "┌ collab-p2p asks ─────────────────────────────────┐",
                "│ bob (key 0202020202) asks for control. Ctrl-] g  │",
                "│ gives it, Ctrl-] p then d refuses.               │",
                "│ mallory\\u{1b}[2J (key 0909090909) wants to join  │",
                "│ as editor. Ctrl-] p, then a lets in, d refuses.  │",
                "└──────────────────────────────────────────────────┘",
            ]
        );
        assert_eq!(drawn.drawn.area().right(), WINDOW.cols);
    }

    #[test]
    fn many_questions_are_counted() {
        let questions: Vec<String> = (0..5).map(|n| format!("question {n}")).collect();
        let drawn = draw_questions(&questions, WINDOW, 12, Theme::new(false)).unwrap();
        assert!(rows(&drawn).iter().any(|row| row.contains("and 2 more")));
        assert!(draw_questions(&[], WINDOW, 12, Theme::new(false)).is_none());
    }

    #[test]
    fn who_has_no_picture_learns_why_and_what_to_press() {
        let why = waiting;
        let waiting = |view: &View, terminal: Option<&TerminalView>| {
            why(view, terminal, Prefix::default(), false)
        };
        let mut view = sample::view();
        assert_eq!(
            why(&view, view.terminals.first(), Prefix::default(), true),
            None
        );
        let why = waiting(&view, view.terminals.first()).unwrap();
        assert_eq!(why, "Waiting for the picture of bob's terminal.");
        view.participants[1].status = crate::engine::view::Status::Gone;
        let why = waiting(&view, view.terminals.first()).unwrap();
        assert!(
            why.starts_with("bob, whose terminal this is, is away."),
            "{why}"
        );
        view.terminals[0].open = false;
        view.terminals[0].status = Some(ExitStatus(3));
        let why = waiting(&view, view.terminals.first()).unwrap();
        assert_eq!(
            why,
            "This terminal has ended with status 3. Ctrl-] d detaches, Ctrl-] x leaves."
        );
        assert_eq!(
            waiting(&view, None).unwrap(),
            "Nobody shares a terminal just now. Wait, or press Ctrl-] d to come back later, Ctrl-] x to leave."
        );
        view.phase = Phase::Joining {
            waits_for: "a member who lets us in".into(),
        };
        assert_eq!(
            waiting(&view, None).unwrap(),
            "Joining: a member who lets us in"
        );
    }

    #[test]
    fn the_ticket_is_whole_and_starts_at_the_first_column() {
        let block = [
            "Sharing \"demo\"".to_owned(),
            format!("    collab-p2p join cp2p1{}", "q".repeat(200)),
        ];

        let drawn = draw_share_block(&block, WINDOW, 2, Prefix::default(), Theme::new(true));

        let rows = rows(&drawn);
        assert_eq!(rows[1], "Sharing \"demo\"");
        assert_eq!(
            rows[2..rows.len() - 1].concat(),
            format!("    collab-p2p join 'cp2p1{}'", "q".repeat(200)),
            "selected over several rows, it is one word for a shell"
        );
        assert_eq!(
            folded(&["collab-p2p join cp2p1q".to_owned()], 80),
            ["collab-p2p join cp2p1q"]
        );
        assert!(drawn.drawn.area().y > 2);
    }
}
