//! The pane of help: the keys, what they do here, and how others join.

use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

use crate::engine::view::View;
use crate::ui::keys::Key;
use crate::ui::layout::Size;
use crate::ui::prefix::Prefix;
use crate::ui::prompt::folded;
use crate::ui::text;
use crate::ui::theme::Theme;

/// The pane's own state.
#[derive(Debug, Default)]
pub(super) struct Help {
    scrolled: u16,
}

/// Who reads the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    /// The terminal runs here.
    pub(super) hosts: bool,
    /// This node holds the session's root.
    pub(super) owns: bool,
}

/// A key after the prefix: the key, in a word, in a sentence.
pub(super) type Binding = (&'static str, &'static str, &'static str);

/// The keys that mean something to this reader, in the order of the help.
pub(super) fn bindings(reader: Reader) -> Vec<Binding> {
    let leave = if reader.owns {
        ("x", "stop", "stop the session for everybody, at once")
    } else {
        ("x", "leave", "leave: your membership ends, at once")
    };
    let people = if reader.hosts || reader.owns {
        "people: who is here; let newcomers in, give control"
    } else {
        "people: who is here"
    };
    let mut bindings = vec![("c", "chat", "chat"), ("p", "people", people)];
    if reader.hosts {
        bindings.extend([
            ("g", "give", "give control to who asked first"),
            (
                "t",
                "take",
                "take control back from whoever has it, at once",
            ),
            ("l", "lock", "lock all input of others; again: unlock"),
        ]);
    } else {
        bindings.extend([
            (
                "r",
                "control",
                "ask for control; again: take that, or control, back",
            ),
            ("d", "detach", "detach: end this program, stay a member"),
        ]);
    }
    bindings.extend([
        (
            "[",
            "scroll",
            "scroll: what does not fit the window, or the open chat",
        ),
        ("/", "search", "search the chat"),
        leave,
        ("y", "copy", "copy a ticket to the clipboard"),
        ("?", "help", "this help"),
    ]);
    bindings
}

impl Help {
    /// Whether the pane stays open.
    pub(super) fn key(&mut self, key: Key) -> bool {
        match key {
            Key::Up | Key::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            Key::Down | Key::Char('j') => self.scrolled = self.scrolled.saturating_add(1),
            Key::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            Key::PageDown => self.scrolled = self.scrolled.saturating_add(10),
            Key::Home => self.scrolled = 0,
            Key::Escape | Key::Enter | Key::Char('q') => return false,
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Tab
            | Key::BackTab
            | Key::Backspace
            | Key::Delete
            | Key::Left
            | Key::Right
            | Key::End
            | Key::Unknown => {}
        }
        true
    }

    pub(super) fn draw(
        &mut self,
        view: &View,
        reader: Reader,
        share_block: &[String],
        prefix: Prefix,
        window: Size,
        theme: Theme,
    ) -> Buffer {
        let cols = 66.min(window.cols);
        let block = Block::bordered()
            .border_style(theme.frame())
            .title(" collab-p2p: help ")
            .title_bottom(" ↑ ↓ scroll · Esc closes ");
        let lines = lines(
            view,
            reader,
            share_block,
            prefix,
            cols.saturating_sub(4),
            theme,
        );
        let height = u16::try_from(lines.len())
            .unwrap_or(u16::MAX)
            .saturating_add(2);
        let area = window.middle(cols, height);
        let inner = block.inner(area);
        let mut drawn = Buffer::empty(area);
        block.render(area, &mut drawn);
        self.scrolled = self
            .scrolled
            .min(height.saturating_sub(2).saturating_sub(inner.height));
        let visible = lines.iter().skip(usize::from(self.scrolled));
        let x = inner.x.saturating_add(1.min(inner.width));
        for (y, line) in (inner.y..inner.bottom()).zip(visible) {
            drawn.set_line(x, y, line, inner.right().saturating_sub(x));
        }
        drawn
    }
}

/// Columns before the sentence of a key.
const KEY_COLS: usize = 5;

fn lines(
    view: &View,
    reader: Reader,
    share_block: &[String],
    prefix: Prefix,
    cols: u16,
    theme: Theme,
) -> Vec<Line<'static>> {
    let mut lines = vec![
        Line::raw(format!("First {prefix}, then one of these keys:")),
        Line::default(),
    ];
    for (key, _, sentence) in bindings(reader) {
        let room = usize::from(cols).saturating_sub(KEY_COLS);
        for (number, row) in text::wrap(sentence, room).into_iter().enumerate() {
            let key = if number == 0 { key } else { " " };
            lines.push(Line::from(vec![
                Span::styled(format!("  {key}  "), theme.strong()),
                Span::raw(row),
            ]));
        }
    }
    lines.push(Line::from(vec![
        Span::styled(format!("  {prefix}  "), theme.strong()),
        Span::raw("the key itself, for the shell"),
    ]));
    lines.push(Line::default());
    let mut notes = vec!["A shell can draw anything but the last row, which names what is ours."];
    if reader.hosts {
        notes.push("A key that you type takes control back from a guest.");
    }
    if view.session.unredacted {
        notes.push("Nothing is masked: guests see what the screen shows.");
    }
    for note in notes {
        let rows = text::wrap(note, usize::from(cols));
        lines.extend(rows.into_iter().map(Line::raw));
    }
    if !share_block.is_empty() {
        lines.push(Line::default());
        lines.extend(
            folded(share_block, usize::from(cols))
                .into_iter()
                .map(Line::raw),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::sample;

    fn rows(help: &mut Help, view: &View, reader: Reader, window: Size) -> Vec<String> {
        let block = ["collab-p2p join cp2p1abc".to_owned()];
        let drawn = help.draw(
            view,
            reader,
            &block,
            Prefix::default(),
            window,
            Theme::new(true),
        );
        let area = *drawn.area();
        (area.top()..area.bottom())
            .map(|y| {
                (area.left()..area.right())
                    .map(|x| drawn[(x, y)].symbol())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_viewer_reads_how_to_ask_detach_and_leave() {
        let reader = Reader {
            hosts: false,
            owns: false,
        };

        let text = rows(
            &mut Help::default(),
            &sample::view(),
            reader,
            Size { cols: 80, rows: 30 },
        )
        .join("\n");

        assert!(
            text.contains("First Ctrl-], then one of these keys:"),
            "{text}"
        );
        assert!(
            text.contains("  r  ask for control; again: take that, or control, back"),
            "{text}"
        );
        assert!(
            text.contains("  d  detach: end this program, stay a member"),
            "{text}"
        );
        assert!(
            text.contains("  x  leave: your membership ends, at once"),
            "{text}"
        );
        assert!(!text.contains("take control back from whoever"), "{text}");
    }

    #[test]
    fn the_host_reads_that_x_stops_the_session_and_finds_no_detach() {
        let reader = Reader {
            hosts: true,
            owns: true,
        };

        let text = rows(
            &mut Help::default(),
            &sample::host_view(),
            reader,
            Size { cols: 80, rows: 30 },
        )
        .join("\n");

        assert!(
            text.contains("  x  stop the session for everybody, at once"),
            "{text}"
        );
        assert!(text.contains("  t  take control back"), "{text}");
        assert!(text.contains("collab-p2p join cp2p1abc"), "{text}");
        assert!(!text.contains("detach"), "{text}");
    }

    #[test]
    fn a_narrow_window_wraps_every_sentence_and_cuts_none() {
        let reader = Reader {
            hosts: false,
            owns: false,
        };
        let window = Size { cols: 40, rows: 60 };
        let shown = rows(&mut Help::default(), &sample::view(), reader, window);
        let words = |text: &str| -> Vec<String> {
            let words = text.split_whitespace().map(|word| word.trim_matches('│'));
            let words = words.filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        let shown = words(&shown.join(" "));
        for (_, _, sentence) in bindings(reader) {
            let sentence = words(sentence);
            let found = shown
                .windows(sentence.len())
                .any(|window| window == sentence);
            assert!(found, "{sentence:?} in {shown:?}");
        }
    }

    #[test]
    fn a_small_window_scrolls_to_the_end_and_no_further() {
        let reader = Reader {
            hosts: true,
            owns: true,
        };
        let window = Size { cols: 40, rows: 8 };
        let mut help = Help::default();
        for _ in 0..100 {
            assert!(help.key(Key::Down));
        }

        let shown = rows(&mut help, &sample::host_view(), reader, window);

        assert!(shown[shown.len() - 2].contains("cp2p1abc"), "{shown:?}");
        assert!(!help.key(Key::Escape));
    }
}
