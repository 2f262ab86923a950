//! The pane of chat: the messages, the line that the person writes, the way back through what was said, and the
//! search in it.

use std::ops::Range;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

use crate::engine::command::{Command, Typing};
use crate::engine::ids::MemberId;
use crate::engine::limits::{CHAT_MENTIONS_MAX, CHAT_TEXT_BYTES_MAX};
use crate::engine::time::Now;
use crate::engine::view::{MessageView, View};
use crate::ui::edit::EditLine;
use crate::ui::find::Needle;
use crate::ui::history::History;
use crate::ui::keys::Key;
use crate::ui::text;
use crate::ui::theme::Theme;
use crate::ui::words;

/// Messages of one author within this time stand under one heading.
const TOGETHER: Duration = Duration::from_secs(120);

/// Rows that a page key scrolls.
const PAGE: usize = 10;

/// What is looked for is no longer than this.
const NEEDLE_BYTES_MAX: usize = 200;

/// The pane's own state. A line begun stays while the pane is closed.
#[derive(Debug)]
pub(super) struct Chat {
    line: EditLine,
    /// Rows that the newest message is scrolled below the pane.
    scrolled: usize,
    /// The newest message when the pane was drawn last: who reads back stays in place as others come.
    newest: Option<String>,
    /// The message that is to be brought in sight.
    bring: Option<String>,
    mode: Mode,
    history: History,
}

/// What the keys do.
#[derive(Debug)]
enum Mode {
    /// They write.
    Write,
    /// They move through what was said.
    Read,
    /// They look for something.
    Search(Search),
}

#[derive(Debug)]
struct Search {
    line: EditLine,
    /// The keys write what is looked for; else they go from hit to hit.
    writes: bool,
    /// The message that holds the hit.
    hit: Option<String>,
    /// Nothing was found yet, and older messages are on their way.
    goes_on: bool,
    /// The pane was opened for the search, and closes with it.
    alone: bool,
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
    pub(super) caret: Option<(u16, u16)>,
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            line: EditLine::new(CHAT_TEXT_BYTES_MAX),
            scrolled: 0,
            newest: None,
            bring: None,
            mode: Mode::Write,
            history: History::default(),
        }
    }
}

impl Chat {
    pub(super) fn key(&mut self, key: Key, view: &View) -> Said {
        match &self.mode {
            Mode::Write => self.key_that_writes(key, view),
            Mode::Read => self.key_that_reads(key),
            Mode::Search(search) if search.writes => self.key_that_looks(key, view),
            Mode::Search(_) => self.key_among_hits(key, view),
        }
    }

    fn key_that_writes(&mut self, key: Key, view: &View) -> Said {
        match key {
            Key::Enter => return self.send(view),
            Key::Escape => return Said::Close,
            Key::Up => self.scroll(1, 0),
            Key::Down => self.scroll(0, 1),
            Key::PageUp => self.scroll(PAGE, 0),
            Key::PageDown => self.scroll(0, PAGE),
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
                    return Said::Writes;
                }
            }
        }
        Said::Stay
    }

    fn key_that_reads(&mut self, key: Key) -> Said {
        match key {
            Key::Enter | Key::Escape | Key::Char('q') => {
                self.mode = Mode::Write;
                self.scrolled = 0;
            }
            Key::Up | Key::Char('k') => self.scroll(1, 0),
            Key::Down | Key::Char('j') => self.scroll(0, 1),
            Key::PageUp => self.scroll(PAGE, 0),
            Key::PageDown => self.scroll(0, PAGE),
            // The pane is drawn as far back as there is something.
            Key::Home => self.scrolled = usize::MAX,
            Key::End => self.scrolled = 0,
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Tab
            | Key::BackTab
            | Key::Backspace
            | Key::Delete
            | Key::Left
            | Key::Right
            | Key::Unknown => {}
        }
        Said::Stay
    }

    fn key_that_looks(&mut self, key: Key, view: &View) -> Said {
        let Mode::Search(search) = &mut self.mode else {
            return Said::Stay;
        };
        match key {
            Key::Escape => return self.end_search(),
            Key::Enter => search.writes = false,
            Key::Up => self.go(Direction::Older, view),
            Key::Down => self.go(Direction::Newer, view),
            Key::PageUp => self.scroll(PAGE, 0),
            Key::PageDown => self.scroll(0, PAGE),
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
                if search.line.key(key) {
                    self.look(view);
                }
            }
        }
        Said::Stay
    }

    fn key_among_hits(&mut self, key: Key, view: &View) -> Said {
        match key {
            Key::Escape | Key::Char('q') => return self.end_search(),
            Key::Up | Key::Char('n') => self.go(Direction::Older, view),
            Key::Down | Key::Char('N') => self.go(Direction::Newer, view),
            Key::PageUp => self.scroll(PAGE, 0),
            Key::PageDown => self.scroll(0, PAGE),
            Key::Enter | Key::Char('/') => {
                if let Mode::Search(search) = &mut self.mode {
                    search.writes = true;
                }
            }
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
            | Key::Unknown => {}
        }
        Said::Stay
    }

    pub(super) fn paste(&mut self, bytes: &[u8], view: &View) {
        match &mut self.mode {
            Mode::Write => self.line.paste(bytes),
            Mode::Read => {}
            Mode::Search(search) => {
                search.line.paste(bytes);
                self.look(view);
            }
        }
    }

    /// Puts a message back that could not be sent, unless another is begun.
    pub(super) fn restore(&mut self, text: &str) {
        if self.line.text().is_empty() {
            self.line.paste(text.as_bytes());
        }
    }

    /// The keys move through what was said.
    pub(super) fn read(&mut self) {
        self.mode = Mode::Read;
    }

    /// The keys look for something; `alone` if the pane is open for that only.
    pub(super) fn search(&mut self, alone: bool) {
        match &mut self.mode {
            Mode::Search(search) => search.writes = true,
            Mode::Write | Mode::Read => {
                self.mode = Mode::Search(Search {
                    line: EditLine::new(NEEDLE_BYTES_MAX),
                    writes: true,
                    hit: None,
                    goes_on: false,
                    alone,
                });
            }
        }
    }

    /// The pane is closed: it opens with the newest message, and older ones are not kept.
    pub(super) fn rest(&mut self) {
        self.mode = Mode::Write;
        self.scrolled = 0;
        self.bring = None;
        self.history.forget();
    }

    pub(super) fn follow(&mut self, view: &View) {
        self.history.follow(view);
    }

    /// Whether older messages are to be asked for now.
    pub(super) fn is_wanting(&self) -> bool {
        self.history.is_wanting()
    }

    /// The request for older messages, if they are needed.
    pub(super) fn ask(&mut self, view: &View) -> Option<Command> {
        self.history.ask(view)
    }

    /// Older messages have come, or will not come.
    pub(super) fn older(&mut self, page: Option<Vec<MessageView>>, view: &View) {
        match page {
            Some(page) => self.history.take(page),
            None => self.history.fail(),
        }
        if let Mode::Search(search) = &mut self.mode
            && std::mem::take(&mut search.goes_on)
        {
            self.go(Direction::Older, view);
        }
    }

    fn scroll(&mut self, up: usize, down: usize) {
        self.scrolled = self.scrolled.saturating_add(up).saturating_sub(down);
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
}

/// Where the next hit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Older,
    Newer,
}

impl Chat {
    /// The search ends where it led to; a pane that was opened for it closes.
    fn end_search(&mut self) -> Said {
        let alone = matches!(&self.mode, Mode::Search(search) if search.alone);
        self.mode = Mode::Write;
        self.bring = None;
        if alone { Said::Close } else { Said::Stay }
    }

    /// What is looked for has changed: the hit stays if it still is one, else the next older one is taken, else the
    /// newest of all.
    fn look(&mut self, view: &View) {
        let (hits, at) = self.hits(view);
        let kept = match at {
            Some(at) => hits.iter().rfind(|hit| **hit <= at).or_else(|| hits.last()),
            None => hits.last(),
        };
        let kept = kept.copied();
        self.stand_at(kept, view);
    }

    /// Goes to the next hit; beyond the known messages older ones are asked for.
    fn go(&mut self, direction: Direction, view: &View) {
        let (hits, at) = self.hits(view);
        let next = match (direction, at) {
            (Direction::Older, Some(at)) => hits.iter().rfind(|hit| **hit < at),
            (Direction::Newer, Some(at)) => hits.iter().find(|hit| **hit > at),
            (Direction::Older, None) => hits.last(),
            (Direction::Newer, None) => hits.first(),
        };
        let next = next.copied();
        if next.is_some() || direction == Direction::Older {
            self.stand_at(next, view);
        }
    }

    /// Makes a message the hit; with none, older messages may have one, and the hit that stands remains.
    fn stand_at(&mut self, place: Option<usize>, view: &View) {
        let id = place.and_then(|at| self.history.messages(view).get(at));
        let id = id.map(|message| message.id.clone());
        let Mode::Search(search) = &mut self.mode else {
            return;
        };
        if id.is_some() {
            search.hit.clone_from(&id);
            search.goes_on = false;
            self.bring = id;
        } else if Needle::new(search.line.text()).is_some() {
            self.history.want(view);
            search.goes_on = self.history.is_asking();
        } else {
            search.hit = None;
        }
    }

    /// The places of the messages that hold what is looked for, and of the one that the person is at.
    fn hits(&self, view: &View) -> (Vec<usize>, Option<usize>) {
        let Mode::Search(search) = &self.mode else {
            return (Vec::new(), None);
        };
        let messages = self.history.messages(view);
        let at = |id: &String| messages.iter().position(|one| one.id == *id);
        let at = search.hit.as_ref().and_then(at);
        let Some(needle) = Needle::new(search.line.text()) else {
            return (Vec::new(), at);
        };
        let holds = |one: &MessageView| shown_lines(one).any(|line| needle.is_in(&line));
        let hits = (0..).zip(messages).filter(|(_, one)| holds(one));
        (hits.map(|(place, _)| place).collect(), at)
    }

    fn needle(&self) -> Option<Needle> {
        match &self.mode {
            Mode::Search(search) => Needle::new(search.line.text()),
            Mode::Write | Mode::Read => None,
        }
    }

    fn hit(&self) -> Option<&String> {
        match &self.mode {
            Mode::Search(search) => search.hit.as_ref(),
            Mode::Write | Mode::Read => None,
        }
    }
}

impl Chat {
    pub(super) fn draw(&mut self, view: &View, now: Now, area: Rect, theme: Theme) -> DrawnChat {
        let title = match self.mode {
            Mode::Write | Mode::Read => " collab-p2p: chat ",
            Mode::Search(_) => " collab-p2p: search in the chat ",
        };
        let block = Block::bordered().border_style(theme.frame()).title(title);
        let inner = block.inner(area);
        let room = usize::from(inner.height.saturating_sub(1));
        let rows = self.rows(view, now, inner.width, room, theme);
        let block = block.title_bottom(self.footer(view, area.width));
        let mut cells = Buffer::empty(area);
        block.render(area, &mut cells);
        for (y, row) in (inner.y..).zip(&rows) {
            cells.set_line(inner.x, y, row, inner.width);
        }
        let y = inner.bottom().saturating_sub(1);
        let (sign, line, style, writes) = match &self.mode {
            Mode::Write => ("> ", &self.line, theme.strong(), true),
            Mode::Read => ("> ", &self.line, theme.faint(), false),
            Mode::Search(search) => ("/ ", &search.line, theme.strong(), search.writes),
        };
        let (written, column) = line.window(inner.width.saturating_sub(2));
        let written = format!("{sign}{written}");
        cells.set_stringn(inner.x, y, written, usize::from(inner.width), style);
        DrawnChat {
            cells,
            caret: writes.then_some((inner.x.saturating_add(2).saturating_add(column), y)),
        }
    }

    /// The rows that are in sight. They are made from the newest message back, as far as is needed.
    fn rows(
        &mut self,
        view: &View,
        now: Now,
        cols: u16,
        room: usize,
        theme: Theme,
    ) -> Vec<Line<'static>> {
        let look = Look {
            view,
            now,
            cols,
            theme,
            needle: self.needle(),
            hit: self.hit().cloned(),
        };
        let messages = self.history.messages(view);
        let newest = messages.last().map(|last| last.id.clone());
        let mut groups: Vec<Vec<Line<'static>>> = Vec::new();
        let mut total = 0_usize;
        let mut follows = self.scrolled == 0 || self.newest.is_none();
        for (index, message) in messages.iter().enumerate().rev() {
            if !follows && self.newest.as_ref() == Some(&message.id) {
                follows = true;
                self.scrolled = self.scrolled.saturating_add(total);
            }
            let before = index.checked_sub(1).and_then(|at| messages.get(at));
            let group = look.message(before, message);
            if self.bring.as_ref() == Some(&message.id) {
                self.bring = None;
                self.scrolled = total.saturating_sub(room.saturating_sub(group.len()) / 2);
            }
            total = total.saturating_add(group.len());
            groups.push(group);
            if follows && self.bring.is_none() && total >= self.scrolled.saturating_add(room) {
                break;
            }
        }
        if self.scrolled > 0 && self.scrolled.saturating_add(room) >= total {
            self.scrolled = total.saturating_sub(room);
            self.history.want(view);
        }
        (self.bring, self.newest) = (None, newest);
        let rows: Vec<Line<'static>> = groups.into_iter().rev().flatten().collect();
        if rows.is_empty() {
            return vec![Line::styled("Nothing said yet.", theme.faint())];
        }
        let end = rows.len().saturating_sub(self.scrolled);
        let first = end.saturating_sub(room);
        rows.get(first..end).unwrap_or_default().to_vec()
    }

    /// What the lower edge says: who writes, what the keys do, what was found.
    fn footer(&self, view: &View, cols: u16) -> String {
        let (long, short) = match &self.mode {
            Mode::Write if self.scrolled > 0 => {
                let rows = self.scrolled;
                (
                    format!(" {rows} rows further down · PgDn · Enter sends · Esc closes "),
                    format!(" ↓ {rows} rows "),
                )
            }
            Mode::Write => match writers(view) {
                Some(writers) => (writers.clone(), writers),
                None => (
                    " Enter sends · Esc closes ".to_owned(),
                    " Enter sends ".to_owned(),
                ),
            },
            Mode::Read => (
                " ↑ ↓ PgUp PgDn Home End scroll · q writes again ".to_owned(),
                " ↑ ↓ scroll · q ends ".to_owned(),
            ),
            Mode::Search(search) => {
                let found = self.found(search, view);
                let keys = if search.writes {
                    "↑ ↓"
                } else {
                    "n N ↑ ↓"
                };
                (
                    format!(" {found} · {keys} next · Esc closes "),
                    format!(" {found} "),
                )
            }
        };
        if text::width(&long).saturating_add(2) <= usize::from(cols) {
            long
        } else {
            short
        }
    }

    fn found(&self, search: &Search, view: &View) -> String {
        if search.line.text().is_empty() {
            return "type what to find".to_owned();
        }
        if search.goes_on {
            return "looking further back…".to_owned();
        }
        let (hits, at) = self.hits(view);
        let more = if self.history.has_more(view) { "+" } else { "" };
        // Counted from the newest, where the search begins.
        let number = at.and_then(|at| hits.iter().rev().position(|hit| *hit == at));
        match (hits.len(), number) {
            (0, _) => "nothing found".to_owned(),
            (count, Some(number)) => format!("{} of {count}{more}", number.saturating_add(1)),
            (count, None) => format!("{count}{more} found"),
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

/// The lines of a message as they are shown.
fn shown_lines(message: &MessageView) -> impl Iterator<Item = String> + '_ {
    message.text.lines().map(text::shown)
}

/// How messages become rows.
#[derive(Debug)]
struct Look<'a> {
    view: &'a View,
    now: Now,
    cols: u16,
    theme: Theme,
    needle: Option<Needle>,
    hit: Option<String>,
}

impl Look<'_> {
    /// The rows of a message, with a heading unless it stands with the one before it.
    fn message(&self, before: Option<&MessageView>, message: &MessageView) -> Vec<Line<'static>> {
        let mut rows = Vec::new();
        let together = before.is_some_and(|before| {
            before.from == message.from && message.time.since(before.time) < TOGETHER
        });
        if !together {
            rows.push(self.heading(message));
        }
        let cols = usize::from(self.cols);
        if let Some(answered) = answered(self.view, message) {
            let answered = text::cut(&format!(" ↪ {answered}"), cols);
            rows.push(Line::styled(answered, self.theme.faint()));
        }
        let names_me = message.mentions.contains(&self.view.me);
        for line in shown_lines(message) {
            let places = self.needle.as_ref().map(|needle| needle.places(&line));
            let places = places.unwrap_or_default();
            for row in text::wrapped(&line, cols.saturating_sub(1)) {
                let style = self.found_style(message);
                let mut spans = vec![Span::raw(if names_me { "»" } else { " " })];
                spans.extend(marked(&line, row, &places, style));
                let row = Line::from(spans);
                rows.push(if names_me {
                    row.style(self.theme.strong())
                } else {
                    row
                });
            }
        }
        rows
    }

    fn found_style(&self, message: &MessageView) -> Style {
        if self.hit.as_ref() == Some(&message.id) {
            self.theme.found()
        } else {
            self.theme.chosen()
        }
    }

    fn heading(&self, message: &MessageView) -> Line<'static> {
        let known = words::participant(self.view, &message.from);
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
            match self.now.wall.since(message.time) {
                age if age < Duration::from_secs(60) => String::new(),
                age => format!("  {} ago", text::span(age)),
            }
        };
        let colour = known.map_or(0, |one| one.colour);
        Line::from(vec![
            Span::styled(name, self.theme.member(colour)),
            Span::styled(when, self.theme.faint()),
        ])
    }
}

/// A row of a line, with what was found in it marked; a find may go on in the next row.
fn marked(
    line: &str,
    row: Range<usize>,
    places: &[Range<usize>],
    style: Style,
) -> Vec<Span<'static>> {
    let piece = |range: Range<usize>| line.get(range).unwrap_or_default().to_owned();
    let mut spans = Vec::new();
    let mut at = row.start;
    for place in places {
        let (from, to) = (place.start.max(at), place.end.min(row.end));
        if from < to {
            spans.push(Span::raw(piece(at..from)));
            spans.push(Span::styled(piece(from..to), style));
            at = to;
        }
    }
    spans.push(Span::raw(piece(at..row.end)));
    spans
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
mod tests;
