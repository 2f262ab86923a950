//! The pane of chat as people meet it: written, read back, searched.

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

/// A chat of so many messages, all in the view.
fn long(count: usize) -> View {
    let mut view = sample::view();
    let said = |n| sample::message(2, "bob", &format!("number {n}."));
    view.messages = (0..count).map(said).collect();
    view.messages_total = u64::try_from(count).unwrap();
    view
}

fn looks(chat: &mut Chat, view: &View, word: &str) {
    chat.search(false);
    for c in word.chars() {
        assert_eq!(chat.key(Key::Char(c), view), Said::Stay);
    }
}

fn texts(chat: &mut Chat, view: &View) -> String {
    drawn(chat, view, 60, 8).join("\n")
}

#[test]
fn a_search_begins_at_the_newest_find_and_goes_to_older_and_newer_ones() {
    let view = long(30);
    let mut chat = Chat::default();
    looks(&mut chat, &view, "number 1");
    let found = texts(&mut chat, &view);
    assert!(found.contains(" number 19."), "{found}");
    assert!(
        found.contains(" 1 of 11 · ↑ ↓ next · Esc closes "),
        "{found}"
    );
    assert!(found.contains("│/ number 1 "), "{found}");

    chat.key(Key::Up, &view);
    assert!(texts(&mut chat, &view).contains("2 of 11"));
    chat.key(Key::Down, &view);
    chat.key(Key::Down, &view);
    assert!(
        texts(&mut chat, &view).contains("1 of 11"),
        "there is no newer one"
    );
    chat.key(Key::Enter, &view);
    for _ in 0..20 {
        chat.key(Key::Char('n'), &view);
    }
    let oldest = texts(&mut chat, &view);
    assert!(
        oldest.contains("11 of 11") && oldest.contains(" number 1."),
        "{oldest}"
    );
    chat.key(Key::Char('N'), &view);
    assert!(texts(&mut chat, &view).contains("10 of 11"));

    chat.key(Key::Char('/'), &view);
    chat.key(Key::Char('2'), &view);
    let narrowed = texts(&mut chat, &view);
    assert!(
        narrowed.contains("1 of 1 ") && narrowed.contains("number 12."),
        "{narrowed}"
    );
    assert_eq!(chat.key(Key::Escape, &view), Said::Stay);
    assert!(texts(&mut chat, &view).contains("rows further down"));
}

#[test]
fn finds_are_marked_over_the_end_of_a_row_and_the_chosen_one_differs() {
    let mut view = sample::view();
    view.messages = vec![
        sample::message(2, "bob", "a Needle"),
        sample::message(3, "eve", "aaaa aaaa needleneedle"),
    ];
    let mut chat = Chat::default();
    looks(&mut chat, &view, "needle");
    let theme = Theme::new(true);
    let area = Rect::new(0, 0, 12, 10);
    let cells = chat.draw(&view, sample::NOW, area, theme).cells;
    let styled = |style: Style| -> String {
        let looks = |cell: &&ratatui::buffer::Cell| {
            cell.bg == style.bg.unwrap_or_default() && cell.modifier == style.add_modifier
        };
        cells
            .content()
            .iter()
            .filter(looks)
            .map(|cell| cell.symbol())
            .collect()
    };
    assert_eq!(styled(theme.found()), "needleneedle", "in two rows");
    assert_eq!(styled(theme.chosen()), "Needle");
}

#[test]
fn nothing_found_is_said_and_nothing_typed_finds_nothing() {
    let view = long(3);
    let mut chat = Chat::default();
    looks(&mut chat, &view, "");
    assert!(texts(&mut chat, &view).contains("type what to find"));
    looks(&mut chat, &view, "absent");
    assert!(texts(&mut chat, &view).contains("nothing found"));
    assert!(!chat.is_wanting());
}

#[test]
fn a_search_looks_in_older_messages_page_by_page() {
    let mut view = long(30);
    view.messages.drain(..20);
    let mut chat = Chat::default();
    looks(&mut chat, &view, "number 3.");
    assert!(texts(&mut chat, &view).contains("looking further back"));

    assert!(chat.ask(&view).is_some());
    chat.older(Some(long(30).messages[10..20].to_vec()), &view);
    assert!(chat.is_wanting(), "it was not in that page");
    assert!(chat.ask(&view).is_some());
    chat.older(Some(long(30).messages[..10].to_vec()), &view);

    let found = texts(&mut chat, &view);
    assert!(
        found.contains(" number 3.") && found.contains("1 of 1 "),
        "{found}"
    );
    chat.key(Key::Up, &view);
    assert!(!chat.is_wanting(), "all is known");
    chat.rest();
    assert!(texts(&mut chat, &view).contains(" number 29."));
}

#[test]
fn who_scrolls_to_the_oldest_known_message_gets_older_ones() {
    let mut view = long(30);
    view.messages.drain(..20);
    let mut chat = Chat::default();
    chat.read();
    chat.key(Key::Home, &view);
    assert!(texts(&mut chat, &view).contains(" number 20."));
    assert!(chat.ask(&view).is_some());
    chat.older(Some(long(30).messages[..20].to_vec()), &view);
    assert!(
        texts(&mut chat, &view).contains(" number 20."),
        "nothing jumps"
    );
    chat.key(Key::PageUp, &view);
    assert!(texts(&mut chat, &view).contains(" number 12."));
    assert!(texts(&mut chat, &view).contains("q writes again"));
}

#[test]
fn who_reads_back_stays_in_place_as_messages_come() {
    let mut view = long(30);
    let mut chat = Chat::default();
    texts(&mut chat, &view);
    chat.key(Key::PageUp, &view);
    let before = texts(&mut chat, &view);
    view.messages.push(sample::message(2, "bob", "one more"));
    view.messages.push(sample::message(3, "eve", "and another"));
    view.messages_total = 32;
    chat.follow(&view);

    let after = texts(&mut chat, &view);

    let rows = |text: &str| text.lines().take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&after), rows(&before));
    assert!(after.contains("13 rows further down"), "{after}");
}
