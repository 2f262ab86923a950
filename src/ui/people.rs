//! The pane of people: who waits to be let in, who is there, what they do, how they are reached.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

use crate::engine::capability::Role;
use crate::engine::command::{Active, Command, ControlCommand, Typing};
use crate::engine::ids::MemberId;
use crate::engine::time::Now;
use crate::engine::view::{ApprovalView, Kind, ParticipantView, TerminalView, View};
use crate::ui::keys::Key;
use crate::ui::text;
use crate::ui::theme::Theme;
use crate::ui::words;

/// The pane's own state.
#[derive(Debug, Default)]
pub(super) struct People {
    /// A person, not a place in the list: the list changes as others come, go and rename themselves, and nobody
    /// may come to stand where the person at the keys points.
    chosen: Option<Chosen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Newcomer(MemberId),
    Member(MemberId),
}

/// What a key in the pane leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Choice {
    /// Nothing more.
    Stay,
    /// The pane closes.
    Close,
    /// A command; the text says what it does.
    Command(Command, String),
    /// The key means nothing here; the text says why.
    Refused(String),
}

enum Entry<'a> {
    Newcomer(&'a ApprovalView),
    Member(&'a ParticipantView),
}

impl Entry<'_> {
    fn chosen(&self) -> Chosen {
        match self {
            Self::Newcomer(one) => Chosen::Newcomer(one.member),
            Self::Member(one) => Chosen::Member(one.id),
        }
    }
}

fn entries(view: &View) -> Vec<Entry<'_>> {
    let newcomers = view.approvals.iter().map(Entry::Newcomer);
    newcomers
        .chain(view.participants.iter().map(Entry::Member))
        .collect()
}

impl People {
    /// The pane as it opens: on whoever waits for an answer.
    pub(super) fn open(view: &View, terminal: Option<&TerminalView>) -> Self {
        let asks = |one: &ParticipantView| {
            terminal.is_some_and(|terminal| terminal.control.requests.contains(&one.id))
        };
        let entries = entries(view);
        let waits = entries.iter().find(|entry| match entry {
            Entry::Newcomer(_) => true,
            Entry::Member(one) => asks(one),
        });
        Self {
            chosen: waits.or_else(|| entries.first()).map(Entry::chosen),
        }
    }

    /// Where the chosen one stands now; none who has gone is chosen.
    fn place(&self, entries: &[Entry<'_>]) -> Option<usize> {
        let chosen = self.chosen?;
        entries.iter().position(|entry| entry.chosen() == chosen)
    }

    pub(super) fn key(&mut self, key: Key, view: &View, terminal: Option<&TerminalView>) -> Choice {
        let entries = entries(view);
        let last = entries.len().saturating_sub(1);
        let place = self.place(&entries);
        let mut choose = |place: usize| self.chosen = entries.get(place).map(Entry::chosen);
        match key {
            Key::Up | Key::Char('k') => choose(place.map_or(last, |at| at.saturating_sub(1))),
            Key::Down | Key::Char('j') => {
                choose(place.map_or(0, |at| at.saturating_add(1).min(last)));
            }
            Key::Home => choose(0),
            Key::End => choose(last),
            Key::Escape | Key::Char('q') => return Choice::Close,
            Key::Char(letter @ ('a' | 'd' | 'g')) => {
                let entry = place.and_then(|at| entries.get(at));
                return match entry {
                    Some(entry) => decide(letter, entry, view, terminal),
                    None => {
                        Choice::Refused("choose somebody first, with the arrow keys".to_owned())
                    }
                };
            }
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Enter
            | Key::Tab
            | Key::BackTab
            | Key::Backspace
            | Key::Delete
            | Key::Left
            | Key::Right
            | Key::PageUp
            | Key::PageDown
            | Key::Unknown => {}
        }
        Choice::Stay
    }

    pub(super) fn draw(
        &self,
        view: &View,
        terminal: Option<&TerminalView>,
        now: Now,
        area: Rect,
        theme: Theme,
    ) -> Buffer {
        let block = Block::bordered()
            .border_style(theme.frame())
            .title(format!(
                " collab-p2p: people ({}) ",
                view.participants.len()
            ))
            .title_bottom(hints(view, terminal));
        let inner = block.inner(area);
        let mut drawn = Buffer::empty(area);
        block.render(area, &mut drawn);
        let entries = entries(view);
        let visible = usize::from(inner.height / ENTRY_ROWS).max(1);
        let chosen = self.place(&entries);
        let first = chosen.map_or(0, |at| at.saturating_add(1).saturating_sub(visible));
        let mut y = inner.y;
        for (index, entry) in entries.iter().enumerate().skip(first).take(visible) {
            for line in lines(entry, view, terminal, now, theme) {
                if y < inner.bottom() {
                    drawn.set_line(inner.x, y, &line, inner.width);
                    y = y.saturating_add(1);
                }
            }
            if Some(index) == chosen {
                let top = y.saturating_sub(ENTRY_ROWS);
                drawn.set_style(
                    Rect {
                        y: top,
                        height: 1,
                        ..inner
                    },
                    theme.chosen(),
                );
            }
        }
        drawn
    }
}

const ENTRY_ROWS: u16 = 2;

fn hints(view: &View, terminal: Option<&TerminalView>) -> &'static str {
    if view.approvals.len() > 1 {
        " ↑ ↓ · a lets in · d refuses · Esc closes "
    } else if !view.approvals.is_empty() {
        " a lets in · d refuses · Esc closes "
    } else if terminal.is_some_and(|terminal| terminal.mine) {
        " g gives control · d refuses · Esc closes "
    } else {
        " Esc closes "
    }
}

fn decide(letter: char, entry: &Entry<'_>, view: &View, terminal: Option<&TerminalView>) -> Choice {
    match (letter, entry) {
        ('a', Entry::Newcomer(newcomer)) => {
            let command = Command::Approve {
                approval: newcomer.id.clone(),
            };
            Choice::Command(
                command,
                format!("let {} in", text::name(&newcomer.name, 30)),
            )
        }
        ('d', Entry::Newcomer(newcomer)) => {
            let command = Command::Deny {
                approval: newcomer.id.clone(),
            };
            Choice::Command(
                command,
                format!("refused {}", text::name(&newcomer.name, 30)),
            )
        }
        ('d', Entry::Member(one)) => {
            let asks = |terminal: &&TerminalView| terminal.control.requests.contains(&one.id);
            let Some(terminal) = terminal.filter(asks) else {
                let name = words::name_of(view, &one.id);
                return Choice::Refused(format!("{name} asks for nothing"));
            };
            let command = Command::Control {
                terminal: terminal.id,
                command: ControlCommand::Deny { to: one.id },
            };
            Choice::Command(
                command,
                format!("refused {}", words::name_of(view, &one.id)),
            )
        }
        ('g', Entry::Member(one)) => match terminal {
            Some(terminal) if terminal.host != one.id => give_control(view, terminal, one),
            Some(_) => Choice::Refused("the terminal's host needs no control".to_owned()),
            None => Choice::Refused("there is no terminal to control".to_owned()),
        },
        (_, Entry::Member(one)) => {
            let name = words::name_of(view, &one.id);
            Choice::Refused(format!("{name} is in already"))
        }
        (_, Entry::Newcomer(newcomer)) => {
            let name = text::name(&newcomer.name, 24);
            Choice::Refused(format!("{name} is not in yet: a lets in"))
        }
    }
}

fn give_control(view: &View, terminal: &TerminalView, to: &ParticipantView) -> Choice {
    let grant = ControlCommand::Grant {
        to: to.id,
        duration: None,
    };
    let command = Command::Control {
        terminal: terminal.id,
        command: grant,
    };
    Choice::Command(
        command,
        format!("{} has control", words::name_of(view, &to.id)),
    )
}

fn lines(
    entry: &Entry<'_>,
    view: &View,
    terminal: Option<&TerminalView>,
    now: Now,
    theme: Theme,
) -> [Line<'static>; ENTRY_ROWS as usize] {
    match entry {
        Entry::Newcomer(newcomer) => {
            let name = text::name(&newcomer.name, 24);
            let left = text::span(newcomer.ends.since(now.wall));
            let details = format!(
                "   key {} · would be {} · {left} left",
                newcomer.member.short(),
                newcomer.role
            );
            [
                Line::from(vec![
                    Span::styled(format!(" ? {name}"), theme.asking_frame()),
                    Span::raw("  waits to be let in"),
                ]),
                Line::styled(details, theme.faint()),
            ]
        }
        Entry::Member(one) => {
            let name = words::name_of(view, &one.id);
            let own = if one.me { " (you)" } else { "" };
            [
                Line::from(vec![
                    Span::styled(format!(" ● {name}"), theme.member(one.colour)),
                    Span::raw(format!("{own}  {}", doing(one, terminal, now))),
                ]),
                Line::styled(format!("   {}", details(one, now)), theme.faint()),
            ]
        }
    }
}

/// What a member does here, most important first.
fn doing(one: &ParticipantView, terminal: Option<&TerminalView>, now: Now) -> String {
    let mut words = Vec::new();
    if let Some(terminal) = terminal {
        if terminal.control.holder == Some(one.id) {
            let left = words::time_left(terminal, now).map(|left| format!(" ({left})"));
            words.push(format!("has control{}", left.unwrap_or_default()));
        }
        if terminal.control.requests.contains(&one.id) {
            words.push("asks for control".to_owned());
        }
        if terminal.host == one.id {
            words.push("hosts".to_owned());
        }
    }
    match one.typing {
        Some(Typing::Chat) => words.push("writes".to_owned()),
        Some(Typing::Terminal(_)) => words.push("types".to_owned()),
        None => {}
    }
    words.join(", ")
}

fn details(one: &ParticipantView, now: Now) -> String {
    let kind = match one.kind {
        Kind::Agent if one.role != Role::Agent => ", a program",
        Kind::Agent | Kind::Human => "",
    };
    let mut details = vec![format!("{}{kind}", one.role), words::status(one, now)];
    details.extend(words::reached(one));
    if let Some(Active::File(path)) = &one.active {
        details.push(format!("in {}", text::shown(path)));
    }
    details.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::Status;
    use crate::ui::sample;

    fn rows(drawn: &Buffer) -> Vec<String> {
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

    fn drawn(people: &People, view: &View, height: u16) -> Vec<String> {
        let terminal = view.terminals.first();
        let area = Rect::new(0, 0, 44, height);
        rows(&people.draw(view, terminal, sample::NOW, area, Theme::new(true)))
    }

    #[test]
    fn the_pane_says_who_is_there_and_what_they_do() {
        let mut view = sample::host_view();
        view.terminals[0].control.requests = vec![sample::member(2)];
        view.participants[2].status = Status::Idle;
        view.participants[2].typing = Some(Typing::Chat);

        assert_eq!(
            drawn(&People::default(), &view, 8),
            [
                "┌ collab-p2p: people (3) ──────────────────┐",
                "│ ● anna (you)  hosts                      │",
                "│   owner · online                         │",
                "│ ● bob  asks for control                  │",
                "│   viewer · online · lan 2.3 ms           │",
                "│ ● eve  writes                            │",
                "│   viewer · idle 0 s · lan 2.3 ms         │",
                "└ g gives control · d refuses · Esc closes ┘",
            ]
        );
    }

    #[test]
    fn who_is_a_program_or_looks_at_a_file_is_said_so() {
        let mut view = sample::view();
        view.participants[1].kind = Kind::Agent;
        view.participants[1].active = Some(Active::File("a\x1b.rs".into()));
        view.participants[1].path = None;
        let shown = drawn(&People::default(), &view, 8).concat();
        assert!(
            shown.contains("owner, a program · online · in a\\u{1b}."),
            "{shown}"
        );
    }

    #[test]
    fn newcomers_stand_first_and_are_let_in_or_refused() {
        let mut view = sample::host_view();
        view.approvals = vec![sample::approval("mallory\x1b[2J\u{202e}")];
        let mut people = People::open(&view, view.terminals.first());

        let shown = drawn(&people, &view, 6);
        assert_eq!(shown[1], "│ ? mallory\\u{1b}[2J\\u{202e}  waits to be l│");

        let choice = people.key(Key::Char('a'), &view, None);
        let Choice::Command(Command::Approve { approval }, _) = choice else {
            panic!("{choice:?}")
        };
        assert_eq!(approval, view.approvals[0].id);
        let choice = people.key(Key::Char('d'), &view, None);
        assert!(matches!(choice, Choice::Command(Command::Deny { .. }, _)));
    }

    #[test]
    fn control_is_given_to_the_chosen_one_and_a_request_refused() {
        let mut view = sample::host_view();
        view.terminals[0].control.requests = vec![sample::member(3)];
        let terminal = view.terminals.first();
        let mut people = People::open(&view, terminal);

        let Choice::Command(Command::Control { command, .. }, _) =
            people.key(Key::Char('d'), &view, terminal)
        else {
            panic!("a command")
        };
        assert_eq!(
            command,
            ControlCommand::Deny {
                to: sample::member(3)
            }
        );

        people.key(Key::Up, &view, terminal);
        let Choice::Command(Command::Control { command, .. }, _) =
            people.key(Key::Char('g'), &view, terminal)
        else {
            panic!("a command")
        };
        assert_eq!(
            command,
            ControlCommand::Grant {
                to: sample::member(2),
                duration: None
            }
        );
        assert_eq!(
            people.key(Key::Char('d'), &view, terminal),
            Choice::Refused("bob asks for nothing".to_owned())
        );
    }

    #[test]
    fn nobody_comes_to_stand_where_the_chosen_one_stood() {
        let mut view = sample::host_view();
        view.approvals = vec![sample::approval("alice")];
        let mut people = People::open(&view, None);

        let mut eve = sample::approval("eve");
        eve.member = sample::member(1);
        "of eve".clone_into(&mut eve.id);
        view.approvals.insert(0, eve);
        let Choice::Command(Command::Approve { approval }, _) =
            people.key(Key::Char('a'), &view, None)
        else {
            panic!("a command")
        };
        assert_eq!(approval, view.approvals[1].id);

        view.approvals.remove(1);
        for letter in ['a', 'd', 'g'] {
            let terminal = view.terminals.first();
            let choice = people.key(Key::Char(letter), &view, terminal);
            assert!(matches!(choice, Choice::Refused(_)), "{letter}");
        }
        people.key(Key::Down, &view, None);
        let choice = people.key(Key::Char('a'), &view, None);
        assert!(
            matches!(choice, Choice::Command(Command::Approve { approval }, _) if approval == "of eve")
        );
    }

    #[test]
    fn the_chosen_one_stays_in_sight() {
        let mut view = sample::host_view();
        for number in 4..40 {
            view.participants.push(sample::participant(
                number,
                &format!("p{number}"),
                Role::Viewer,
            ));
        }
        let mut people = People::open(&view, None);
        for _ in 0..30 {
            people.key(Key::Down, &view, None);
        }

        let shown = drawn(&people, &view, 8);

        assert!(shown.iter().any(|row| row.contains("● p31")), "{shown:?}");
        assert_eq!(people.key(Key::Escape, &view, None), Choice::Close);
    }

    #[test]
    fn names_of_others_never_carry_an_escape() {
        let mut view = sample::view();
        view.participants[1].name = "\x1b]0;pwned\x07\u{9b}31m".into();
        let shown = drawn(&People::default(), &view, 12).concat();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}
