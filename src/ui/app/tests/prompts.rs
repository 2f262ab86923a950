//! What is ours cannot be forged by what others draw, write or are called; and colour is never all that tells it.

use super::*;

/// Draws a card of ours, as a hostile program would, over a whole screen.
fn forged(cols: u16, rows: u16) -> Screen {
    let mut shown = vec!["█".repeat(usize::from(cols)); usize::from(rows)];
    let lines = [
        "┌ collab-p2p asks ─────────────────────────────────┐",
        "│ bob (key 0202020202) asks for control. Ctrl-] g  │",
        "└──────────────────────────────────────────────────┘",
        " 1 to decide  │  you type  │ demo │ you host │ live │ Ctrl-] ? help",
    ];
    for (row, line) in shown.iter_mut().rev().zip(lines.iter().rev()) {
        *row = line.chars().take(usize::from(cols)).collect();
    }
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    screen(
        cols,
        &shown,
        (cols.saturating_sub(1), rows.saturating_sub(1)),
    )
}

/// What a local terminal shows after the bytes of a picture.
fn painted(picture: Picture) -> Vec<String> {
    let Size { cols, rows } = picture.canvas.size();
    let side = |length| std::num::NonZero::new(length).unwrap();
    let mut terminal = vt100::Parser::new(side(rows), side(cols), 0);
    let caps = UiOptions::default().caps;
    terminal.process(&crate::ui::paint::Brush::new(caps).paint(picture));
    terminal.screen().rows(0, cols).collect()
}

#[test]
fn no_cell_of_the_shared_screen_reaches_the_status_row() {
    for (cols, rows) in [(80, 24), (120, 40), (40, 6), (10, 2), (500, 300)] {
        for window in [
            (80, 25),
            (80, 24),
            (40, 8),
            (120, 41),
            (200, 60),
            (3, 2),
            (1, 1),
        ] {
            for mut person in [Person::host(), Person::viewer()] {
                let window = Size {
                    cols: window.0,
                    rows: window.1,
                };
                person.app.resized(window, person.now);
                let blank = vec![""; usize::from(rows)];
                person.screen = screen(cols, &blank, (0, 0));
                let honest = painted(person.sees());
                person.screen = forged(cols, rows);
                let hostile = painted(person.sees());
                assert_eq!(hostile.last(), honest.last(), "{cols}x{rows} in {window:?}");
                person.types(b"\x1d[\x1b[F");
                let status = painted(person.sees()).pop().unwrap();
                assert!(
                    !status.contains('█') && !status.contains("to decide"),
                    "{status}"
                );
            }
        }
    }
}

#[test]
fn every_card_comes_with_its_word_in_the_status_row_and_a_forged_one_does_not() {
    type Change = fn(&mut View);
    let asks: Change = |view| view.terminals[0].control.requests = vec![sample::member(2)];
    let approval: Change = |view| view.approvals = vec![sample::approval("mallory")];
    let nobody: Change = |view| view.terminals.clear();
    let nothing: Change = |_| {};
    let changes: [(Change, &str); 4] = [
        (asks, " 1 to decide "),
        (approval, " 1 to decide "),
        (nobody, " note shown "),
        (nothing, " you type "),
    ];
    for (change, word) in changes {
        // Whatever else the row says: the usual, something that was said, the keys.
        for keys in [&b""[..], b"\x1dz", b"\x1d"] {
            let mut host = Person::host();
            host.screen = forged(80, 24);
            host.learns(change);
            host.types(keys);
            let status = host.status();
            let usual = word == " you type ";
            assert!(
                status.starts_with(word) || (usual && status.starts_with(" Ctrl-] ")),
                "{status}"
            );
        }
    }

    let mut alone = Person::host();
    alone.app.block_shown = true;
    assert!(
        alone.status().starts_with(" ticket shown "),
        "{}",
        alone.status()
    );
    assert!(alone.text().contains("cp2p1abc"), "{}", alone.text());
    asks(&mut alone.view);
    assert!(
        alone.status().starts_with(" 1 to decide "),
        "{}",
        alone.status()
    );
    assert!(!alone.text().contains("cp2p1abc"), "{}", alone.text());
}

#[test]
fn names_titles_and_chat_never_stand_where_the_words_of_cards_stand() {
    let mut host = Person::host();
    host.learns(|view| {
        view.participants[1].name = " 1 to decide ".into();
        view.terminals[0].title = " 1 to decide ".into();
        view.terminals[0].control.holder = Some(sample::member(2));
        view.notices = vec![Notice {
            number: 1,
            time: NOW.wall,
            text: " 1 to decide ".into(),
        }];
    });
    assert!(host.status().starts_with(" guest "), "{}", host.status());
    host.waits(Duration::from_secs(6));
    assert!(host.status().starts_with(" guest "), "{}", host.status());
}

#[test]
fn without_colour_the_panes_and_cards_have_none_and_the_shared_screen_keeps_its_own() {
    use crate::engine::terminal::cell::{Attrs, Cell, Color, Line, Style};
    let red = Style {
        fg: Color::Palette(1),
        bg: Color::Rgb(1, 2, 3),
        attrs: Attrs::default(),
        ..Style::default()
    };
    for keys in [&b""[..], b"\x1dc", b"\x1dp", b"\x1d?", b"\x1d/x", b"\x1d"] {
        let options = UiOptions {
            host: Some(TERMINAL),
            colour: false,
            ..UiOptions::default()
        };
        let mut host = Person::with(sample::host_view(), options);
        let line = Line::cleaned(vec![Cell::new('r', &[], false, red)], false, 80);
        host.screen.rows[0].line = std::sync::Arc::new(line);
        host.learns(|view| {
            view.terminals[0].control.requests = vec![sample::member(2)];
            view.participants[2].pointer = Some(Pointer {
                terminal: TERMINAL,
                row: 2,
                column: 4,
            });
            view.messages = vec![sample::message(2, "bob", "x")];
        });
        host.types(keys);
        let canvas = host.sees().canvas;
        assert_eq!(canvas.cell(0, 0).style, red);
        let coloured = (0..25)
            .flat_map(|y| (0..80).map(move |x| (x, y)))
            .filter(|place| *place != (0, 0))
            .map(|(x, y)| canvas.cell(x, y).style)
            .find(|style| (style.fg, style.bg) != (Color::Default, Color::Default));
        assert_eq!(coloured, None);
    }
}
