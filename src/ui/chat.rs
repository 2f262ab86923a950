//! The pane of chat: the newest messages and the line that the person writes.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

use crate::engine::command::Typing;
use crate::engine::ids::MemberId;
use crate::engine::limits::{CHAT_MENTIONS_MAX, CHAT_TEXT_BYTES_MAX};
use crate::engine::time::Now;
use crate::engine::view::{MessageView, View};
use crate::ui::edit::EditLine;
use crate::ui::keys::Key;
use crate::ui::text;
use crate::ui::theme::Theme;
use crate::ui::words;

/// Messages of one author within this time stand under one heading.
const TOGETHER: Duration = Duration::from_secs(120);

/// The pane's own state. It stays while the pane is closed, and so does a line begun.
#[derive(Debug)]
pub(super) struct Chat {
    line: EditLine,
    /// Rows that the newest message is scrolled below the pane.
    scrolled: usize,
}

/// What a key in the pane leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// Nothing more.
    Stay,
    /// The line changed: the person writes.
    Writes,
    /// The pane closes.
    Close,
    /// A message is to be sent.
    Message {
        text: String,
        mentions: Vec<MemberId>,
    },
}

/// The pane as drawn.
#[derive(Debug)]
pub(super) struct DrawnChat {
    pub(super) cells: Buffer,
    /// Where the person writes.
    pub(super) caret: (u16, u16),
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            line: EditLine::new(CHAT_TEXT_BYTES_MAX),
            scrolled: 0,
        }
    }
}

impl Chat {
    pub(super) fn key(&mut self, key: Key, view: &View) -> Said {
        match key {
            Key::Enter => self.send(view),
            Key::Escape => Said::Close,
            Key::Up => self.scroll(1, 0),
            Key::Down => self.scroll(0, 1),
            Key::PageUp => self.scroll(10, 0),
            Key::PageDown => self.scroll(0, 10),
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Tab
            | Key::BackTab
            | Key::Backspace
            | Key::Delete
            | Key::Left
            | Key::Right
            | Key::Home
            | Key::End
            | Key::Unknown => {
                if self.line.key(key) {
                    Said::Writes
                } else {
                    Said::Stay
                }
            }
        }
    }

    pub(super) fn paste(&mut self, bytes: &[u8]) {
        self.line.paste(bytes);
    }

    /// Puts a message back that could not be sent, unless another is begun.
    pub(super) fn restore(&mut self, text: &str) {
        if self.line.text().is_empty() {
            self.line.paste(text.as_bytes());
        }
    }

    fn scroll(&mut self, up: usize, down: usize) -> Said {
        self.scrolled = self.scrolled.saturating_add(up).saturating_sub(down);
        Said::Stay
    }

    fn send(&mut self, view: &View) -> Said {
        if self.line.text().trim().is_empty() {
            return Said::Stay;
        }
        self.scrolled = 0;
        let text = self.line.take();
        let mentions = mentions(&text, view);
        Said::Message { text, mentions }
    }

    pub(super) fn draw(&mut self, view: &View, now: Now, area: Rect, theme: Theme) -> DrawnChat {
        let block = Block::bordered()
            .border_style(theme.frame())
            .title(" collab-p2p: chat ")
            .title_bottom(writers(view).unwrap_or_else(|| " Enter sends · Esc closes ".to_owned()));
        let inner = block.inner(area);
        let mut cells = Buffer::empty(area);
        block.render(area, &mut cells);
        let room = usize::from(inner.height.saturating_sub(1));
        let rows = rows(view, now, inner.width, theme);
        self.scrolled = self.scrolled.min(rows.len().saturating_sub(room));
        let end = rows.len().saturating_sub(self.scrolled);
        let first = end.saturating_sub(room);
        for (y, row) in (inner.y..).zip(rows.get(first..end).unwrap_or_default()) {
            cells.set_line(inner.x, y, row, inner.width);
        }
        let y = inner.bottom().saturating_sub(1);
        let (written, column) = self.line.window(inner.width.saturating_sub(2));
        cells.set_stringn(
            inner.x,
            y,
            format!("> {written}"),
            usize::from(inner.width),
            theme.strong(),
        );
        DrawnChat {
            cells,
            caret: (inner.x.saturating_add(2).saturating_add(column), y),
        }
    }
}

/// Who writes just now.
fn writers(view: &View) -> Option<String> {
    let writes = |id: &MemberId| words::name_of(view, id);
    let names: Vec<String> = view
        .participants
        .iter()
        .filter(|one| !one.me && one.typing == Some(Typing::Chat))
        .map(|one| writes(&one.id))
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!(" {one} writes… ")),
        [one, other] => Some(format!(" {one} and {other} write… ")),
        [one, others @ ..] => Some(format!(" {one} and {} others write… ", others.len())),
    }
}

fn rows(view: &View, now: Now, cols: u16, theme: Theme) -> Vec<Line<'static>> {
    if view.messages.is_empty() {
        return vec![Line::styled("Nothing said yet.", theme.faint())];
    }
    let mut rows = Vec::new();
    let mut before: Option<&MessageView> = None;
    for message in &view.messages {
        let together = before.is_some_and(|before| {
            before.from == message.from && message.time.since(before.time) < TOGETHER
        });
        if !together {
            rows.push(heading(view, message, now, theme));
        }
        push_message(&mut rows, view, message, cols, theme);
        before = Some(message);
    }
    rows
}

fn heading(view: &View, message: &MessageView, now: Now, theme: Theme) -> Line<'static> {
    let known = words::participant(view, &message.from);
    let name = match known {
        Some(one) => text::name(&one.name, 24),
        None => text::name(&message.name, 24),
    };
    let name = if name.trim().is_empty() {
        message.from.short()
    } else {
        name
    };
    let when = if message.from_the_future {
        "  its clock is ahead".to_owned()
    } else {
        match now.wall.since(message.time) {
            age if age < Duration::from_secs(60) => String::new(),
            age => format!("  {} ago", text::span(age)),
        }
    };
    let colour = known.map_or(0, |one| one.colour);
    Line::from(vec![
        Span::styled(name, theme.member(colour)),
        Span::styled(when, theme.faint()),
    ])
}

fn push_message(
    rows: &mut Vec<Line<'static>>,
    view: &View,
    message: &MessageView,
    cols: u16,
    theme: Theme,
) {
    let cols = usize::from(cols);
    if let Some(answered) = answered(view, message) {
        rows.push(Line::styled(
            text::cut(&format!(" ↪ {answered}"), cols),
            theme.faint(),
        ));
    }
    let names_me = message.mentions.contains(&view.me);
    let mark = if names_me { "»" } else { " " };
    for line in message.text.lines() {
        for row in text::wrap(&text::shown(line), cols.saturating_sub(1)) {
            let row = format!("{mark}{row}");
            rows.push(if names_me {
                Line::styled(row, theme.strong())
            } else {
                Line::raw(row)
            });
        }
    }
}

fn answered(view: &View, message: &MessageView) -> Option<String> {
    let id = message.reply.as_ref()?;
    let answered = view.messages.iter().find(|one| one.id == *id)?;
    Some(format!(
        "{}: {}",
        words::name_of(view, &answered.from),
        text::shown(&answered.text)
    ))
}

/// The members that a text names as `@name`, in any case.
fn mentions(written: &str, view: &View) -> Vec<MemberId> {
    let written = written.to_lowercase();
    let named = |name: &str| {
        let name = name.trim().to_lowercase();
        !name.is_empty()
            && written.match_indices('@').any(|(at, sign)| {
                let after = written
                    .get(at.saturating_add(sign.len())..)
                    .unwrap_or_default();
                let rest = after.strip_prefix(&name);
                rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            })
    };
    let others = view
        .participants
        .iter()
        .filter(|one| !one.me && named(&one.name));
    others.map(|one| one.id).take(CHAT_MENTIONS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Wall;
    use crate::ui::sample;

    fn drawn(chat: &mut Chat, view: &View, cols: u16, height: u16) -> Vec<String> {
        let area = Rect::new(0, 0, cols, height);
        let drawn = chat.draw(view, sample::NOW, area, Theme::new(true)).cells;
        (0..height)
            .map(|y| {
                (0..cols)
                    .map(|x| drawn[(x, y)].symbol())
                    .collect::<String>()
            })
            .collect()
    }

    fn write(chat: &mut Chat, view: &View, text: &str) -> Said {
        for c in text.chars() {
            assert_eq!(chat.key(Key::Char(c), view), Said::Writes);
        }
        chat.key(Key::Enter, view)
    }

    #[test]
    fn messages_stand_under_their_authors() {
        let mut view = sample::view();
        view.messages = vec![
            sample::message(2, "bob", "look at the third line, please"),
            sample::message(2, "bob", "there"),
            sample::message(1, "anna", "aha"),
        ];
        view.messages[0].time = Wall(sample::NOW.wall.0 - 90_000);
        view.participants[2].typing = Some(Typing::Chat);

        assert_eq!(
            drawn(&mut Chat::default(), &view, 24, 9),
            [
                "┌ collab-p2p: chat ────┐",
                "│bob  1 min ago        │",
                "│ look at the third    │",
                "│ line, please         │",
                "│ there                │",
                "│anna                  │",
                "│ aha                  │",
                "│>                     │",
                "└ eve writes… ─────────┘",
            ]
        );
    }

    #[test]
    fn enter_sends_the_line_and_empties_it() {
        let view = sample::view();
        let mut chat = Chat::default();

        let said = write(&mut chat, &view, "hi @Bob, and @eveline");

        let Said::Message { text, mentions } = said else {
            panic!("{said:?}")
        };
        assert_eq!(text, "hi @Bob, and @eveline");
        assert_eq!(mentions, [sample::member(2)]);
        assert_eq!(chat.key(Key::Enter, &view), Said::Stay);
        chat.restore("hi");
        assert!(matches!(chat.key(Key::Enter, &view), Said::Message { .. }));
    }

    #[test]
    fn older_messages_are_scrolled_to_and_sending_returns() {
        let mut view = sample::view();
        view.messages = (0..30)
            .map(|n| sample::message(2, "bob", &format!("number {n}")))
            .collect();
        let mut chat = Chat::default();
        assert_eq!(
            drawn(&mut chat, &view, 24, 6)[3],
            "│ number 29            │"
        );

        chat.key(Key::PageUp, &view);
        assert_eq!(
            drawn(&mut chat, &view, 24, 6)[3],
            "│ number 19            │"
        );
        for _ in 0..9 {
            chat.key(Key::PageUp, &view);
        }
        assert_eq!(
            drawn(&mut chat, &view, 24, 6)[1],
            "│bob                   │"
        );

        write(&mut chat, &view, "x");
        assert_eq!(
            drawn(&mut chat, &view, 24, 6)[3],
            "│ number 29            │"
        );
    }

    #[test]
    fn a_message_that_names_me_is_marked() {
        let mut view = sample::view();
        view.messages = vec![sample::message(2, "bob", "you there?")];
        view.messages[0].mentions = vec![sample::member(1)];
        assert_eq!(
            drawn(&mut Chat::default(), &view, 24, 6)[2],
            "│»you there?           │"
        );
    }

    #[test]
    fn hostile_messages_are_shown_not_obeyed() {
        let mut view = sample::view();
        view.messages = vec![sample::message(
            8,
            "\x1b[2J",
            "a\x1b]52;c;eA==\x07b\n\u{9b}2J\rc",
        )];
        let shown = drawn(&mut Chat::default(), &view, 60, 8).concat();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.contains("a\\u{1b}]52;c;eA==\\u{7}b"), "{shown:?}");
    }

    #[test]
    fn a_pane_of_any_size_is_drawn() {
        let mut view = sample::view();
        view.messages = vec![sample::message(2, "bob", "漢字 and more")];
        for (cols, rows) in [(0, 0), (1, 1), (2, 2), (3, 3), (5, 4)] {
            drawn(&mut Chat::default(), &view, cols, rows);
        }
    }
}
