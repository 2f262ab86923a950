//! Puts the picture together: screen, pointers, cards, pane, status row, cursor.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use crate::engine::terminal::screen::{CursorShape, Modes, Screen};
use crate::engine::time::Now;
use crate::engine::view::{Status, TerminalView, View};
use crate::ui::app::{App, Pane};
use crate::ui::layout::Size;
use crate::ui::paint::{Canvas, Caret, Picture};
use crate::ui::prefix::Focus;
use crate::ui::prompt::{Card, Word};
use crate::ui::statusbar::{self, Facts, Over};
use crate::ui::theme::Theme;
use crate::ui::viewport::{self, NamedPointer};
use crate::ui::{prompt, text};

impl App {
    /// What the local terminal should show now.
    pub(super) fn picture(&mut self, view: &View, screen: Option<&Screen>, now: Now) -> Picture {
        let terminal = self.terminal(view);
        let mut canvas = Canvas::new(self.window);
        let mut caret = None;
        if let Some(screen) = screen {
            let room = self.room_beside_the_pane();
            self.crop = if self.panning {
                self.crop.within(screen, room)
            } else {
                self.crop.follow(screen, room)
            };
            viewport::draw(&mut canvas, screen, self.crop, self.theme);
            viewport::draw_pointers(
                &mut canvas,
                self.crop,
                &pointers(view, terminal),
                self.theme,
            );
            caret = viewport::caret(screen, self.crop, room);
        }
        let cursor_row = caret.map_or(0, |caret| caret.y);
        let questions = prompt::questions(view, terminal, self.prefix);
        self.offers(view, now);
        let mut covered = Vec::new();
        let cards = self.cards(view, screen, &questions, cursor_row);
        for card in &cards {
            covered.push(*card.drawn.area());
            canvas.overlay(&card.drawn);
        }
        if let Some((mut pane, written)) = self.draw_pane(view, now) {
            if self.aside() {
                put_aside(&mut pane, &self.way_back(), self.theme);
            }
            covered.push(*pane.area());
            canvas.overlay(&pane);
            if !self.aside() {
                caret = None;
                covered.clear();
                if let Some((x, y)) = written {
                    caret = Some(Caret {
                        x,
                        y,
                        shape: CursorShape::Bar,
                        blinking: false,
                    });
                }
            }
        }
        let words: Vec<Word> = cards.iter().map(|card| card.word).collect();
        canvas.overlay(&self.status_row(view, screen, &words, now));
        let hidden = |caret: &Caret| {
            covered
                .iter()
                .any(|area: &Rect| area.contains(Position::new(caret.x, caret.y)))
        };
        let modes = match (self.focus(), screen) {
            (Focus::Terminal, Some(screen)) => keyboard_modes(screen.modes),
            (Focus::Terminal, None) | (Focus::Pane, _) => Modes::default(),
        };
        Picture {
            canvas,
            caret: caret.filter(|caret| !hidden(caret)),
            modes,
        }
    }

    /// The part of the window in which the shared cursor stays in sight.
    pub(super) fn room_beside_the_pane(&self) -> Size {
        let pane = self.window.pane();
        match self.pane {
            None | Some(Pane::Help) => self.window,
            Some(Pane::Chat | Pane::People) if pane.x > 0 => Size {
                cols: pane.x,
                ..self.window
            },
            Some(Pane::Chat | Pane::People) => Size {
                rows: self.window.rows.saturating_sub(pane.height),
                ..self.window
            },
        }
    }

    fn cards(
        &self,
        view: &View,
        screen: Option<&Screen>,
        questions: &[String],
        cursor_row: u16,
    ) -> Vec<Card> {
        let terminal = self.terminal(view);
        let mut cards = Vec::new();
        // A question may not hide a part of the ticket, and is answered first.
        if self.block_shown && questions.is_empty() {
            let lines = &self.share_block;
            cards.push(prompt::draw_share_block(
                lines,
                self.window,
                cursor_row,
                self.prefix,
                self.theme,
            ));
        }
        let why = prompt::waiting(view, terminal, self.prefix, screen.is_some());
        if let Some(why) = why {
            cards.push(prompt::draw_waiting(&why, self.window, self.theme));
        }
        cards.extend(prompt::draw_questions(
            questions,
            self.window,
            cursor_row,
            self.theme,
        ));
        cards
    }

    /// How the keys come back to a pane that is put aside.
    fn way_back(&self) -> String {
        let key = match self.pane {
            Some(Pane::Chat) => "c",
            Some(Pane::People) => "p",
            Some(Pane::Help) | None => "?",
        };
        format!(" shell has the keys · {} {key} back ", self.prefix)
    }

    /// The open pane and, in the chat, where the person writes.
    fn draw_pane(&mut self, view: &View, now: Now) -> Option<(Buffer, Option<(u16, u16)>)> {
        let (window, theme) = (self.window, self.theme);
        match self.pane? {
            Pane::Chat => {
                let drawn = self.chat.draw(view, now, window.pane(), theme);
                Some((drawn.cells, drawn.caret))
            }
            Pane::People => {
                let terminal = self.terminal(view);
                Some((
                    self.people.draw(view, terminal, now, window.pane(), theme),
                    None,
                ))
            }
            Pane::Help => {
                let reader = self.reader(view);
                let block = &self.share_block;
                Some((
                    self.help
                        .draw(view, reader, block, self.prefix, window, theme),
                    None,
                ))
            }
        }
    }

    fn status_row(&self, view: &View, screen: Option<&Screen>, cards: &[Word], now: Now) -> Buffer {
        let facts = Facts {
            view,
            terminal: self.terminal(view),
            cropped: screen.is_some_and(|screen| viewport::is_cropped(screen, self.window)),
            unread: self.unread(view),
            cards,
            over: self.over(),
            prefix: self.prefix,
            now,
            theme: self.theme,
        };
        let parts = match self.toast() {
            _ if self.prefixed() => statusbar::menu(facts, self.reader(view)),
            Some(toast) => statusbar::said(facts, &toast.text, toast.alarm),
            None => statusbar::parts(facts),
        };
        statusbar::draw(parts, self.window.status(), self.theme)
    }
}

impl App {
    /// What of ours, besides cards, the person has before them.
    fn over(&self) -> Option<Over> {
        if self.panning {
            return Some(Over::Scrolled(self.crop));
        }
        let pane = match self.pane? {
            Pane::Chat => "chat",
            Pane::People => "people",
            Pane::Help => "help",
        };
        Some(match self.focus() {
            Focus::Pane => Over::Keys(pane),
            Focus::Terminal => Over::Aside(pane),
        })
    }
}

/// Marks a pane whose keys go to the shell: its frame is faint, and the lower edge says how to come back.
fn put_aside(pane: &mut Buffer, way_back: &str, theme: Theme) {
    let area = *pane.area();
    let (last_row, last_column) = (
        area.bottom().saturating_sub(1),
        area.right().saturating_sub(1),
    );
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            let edge = y == area.top() || y == last_row || x == area.left() || x == last_column;
            if let Some(cell) = pane.cell_mut((x, y)).filter(|_| edge) {
                cell.set_style(theme.faint());
            }
        }
    }
    let inner = usize::from(area.width.saturating_sub(2));
    let footer = text::cut(way_back, inner);
    let footer = format!(
        "{footer}{}",
        "─".repeat(inner.saturating_sub(text::width(&footer)))
    );
    pane.set_stringn(
        area.x.saturating_add(1),
        last_row,
        footer,
        inner,
        theme.faint(),
    );
}

/// The modes that change what the local terminal sends for a key.
fn keyboard_modes(modes: Modes) -> Modes {
    Modes::default()
        .with(Modes::APP_CURSOR, modes.contains(Modes::APP_CURSOR))
        .with(Modes::APP_KEYPAD, modes.contains(Modes::APP_KEYPAD))
}

/// The pointers of others on this terminal.
fn pointers(view: &View, terminal: Option<&TerminalView>) -> Vec<NamedPointer> {
    let Some(terminal) = terminal else {
        return Vec::new();
    };
    let there = view
        .participants
        .iter()
        .filter(|one| !one.me && one.status != Status::Gone);
    there
        .filter_map(|one| {
            let pointer = one
                .pointer
                .filter(|pointer| pointer.terminal == terminal.id)?;
            Some(NamedPointer {
                name: text::name(&one.name, 16),
                colour: one.colour,
                row: pointer.row,
                column: pointer.column,
            })
        })
        .collect()
}
