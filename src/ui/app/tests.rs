//! The UI as people meet it: keys in, commands and rows of cells out.

use super::*;
use crate::engine::capability::Role;
use crate::engine::command::Pointer;
use crate::engine::ids::InviteId;
use crate::engine::limits::BELL_INTERVAL;
use crate::engine::time::Wall;
use crate::engine::view::{ConnectionView, InviteView, Notice, Phase, What};
use crate::ui::paint::Picture;
use crate::ui::sample::{self, NOW, TERMINAL};
use crate::ui::viewport::tests::{rows, screen};

mod prompts;

const WINDOW: Size = Size { cols: 80, rows: 25 };

/// A person before a window.
struct Person {
    app: App,
    view: View,
    screen: Screen,
    now: Now,
}

impl Person {
    fn viewer() -> Self {
        Self::with(
            sample::view(),
            UiOptions {
                colour: true,
                ..UiOptions::default()
            },
        )
    }

    fn host() -> Self {
        let options = UiOptions {
            host: Some(TERMINAL),
            share_block: Some(vec!["    collab-p2p join cp2p1abc".to_owned()]),
            colour: true,
            ..UiOptions::default()
        };
        Self::with(sample::host_view(), options)
    }

    fn with(view: View, options: UiOptions) -> Self {
        let mut app = App::new(options, WINDOW, &view);
        app.started(&view, NOW);
        let mut shown = vec![""; 24];
        shown[0] = "$ echo hello";
        Self {
            app,
            view,
            screen: screen(80, &shown, (2, 1)),
            now: NOW,
        }
    }

    fn types(&mut self, keys: &[u8]) -> Vec<Action> {
        self.app
            .typed(keys, &self.view, Some(&self.screen), self.now)
    }

    fn asks(&mut self, keys: &[u8]) -> Vec<Command> {
        commands(self.types(keys))
    }

    fn waits(&mut self, time: Duration) -> Vec<Command> {
        self.now.mono = self.now.mono + time;
        self.now.wall = self.now.wall + time;
        commands(self.app.due(&self.view, Some(&self.screen), self.now))
    }

    fn learns(&mut self, change: impl FnOnce(&mut View)) {
        change(&mut self.view);
        self.app.viewed(&self.view, self.now);
    }

    fn hears(&mut self, what: What) {
        let event = SessionEvent {
            time: self.now.wall,
            actor: None,
            what,
        };
        self.app.happened(&event, &self.view, self.now);
    }

    fn refused(&mut self, code: Code, why: &str) {
        let refusal = Err(CommandError::new(code, why));
        self.app
            .answered(Purpose::Keys, refusal, &self.view, self.now);
    }

    fn sees(&mut self) -> Picture {
        self.app.picture(&self.view, Some(&self.screen), self.now)
    }

    fn rings(&mut self) -> bool {
        self.sees();
        let screen = Some(&self.screen);
        self.app.rings(&self.view, screen, self.now)
    }

    fn rows(&mut self) -> Vec<String> {
        rows(&self.sees().canvas)
    }

    fn status(&mut self) -> String {
        self.rows().pop().unwrap()
    }

    fn text(&mut self) -> String {
        self.rows().join("\n")
    }
}

fn commands(actions: Vec<Action>) -> Vec<Command> {
    let asked = actions.into_iter().filter_map(|action| match action {
        Action::Ask(Command::SetPresence(_), _) | Action::Copy(_) | Action::End(_) => None,
        Action::Ask(command, _) => Some(command),
    });
    asked.collect()
}

fn input(bytes: &[u8]) -> Command {
    Command::Input {
        terminal: TERMINAL,
        bytes: bytes.to_vec(),
        source: InputSource::Key,
        timeout: None,
    }
}

fn control(command: ControlCommand) -> Command {
    Command::Control {
        terminal: TERMINAL,
        command,
    }
}

#[test]
fn a_bell_of_the_shell_rings_every_window_once_and_none_for_what_was_before() {
    for mut person in [Person::viewer(), Person::host()] {
        person.screen.bells = 41;
        assert!(!person.rings(), "rung before this window was there");

        person.screen.bells = 42;
        assert!(person.rings());
        assert!(!person.rings());
        person.types(b"\x1dc");
        person.waits(Duration::from_secs(10));
        assert!(!person.rings());
    }
}

#[test]
fn a_bell_soon_after_another_wakes_the_window_when_its_time_has_come() {
    let mut anna = Person::viewer();
    anna.rings();
    anna.screen.bells = 1;
    assert!(anna.rings());
    let free = anna.now.mono + BELL_INTERVAL;

    anna.waits(Duration::from_millis(900));
    anna.screen.bells = 2;
    assert!(!anna.rings());
    assert_eq!(anna.app.deadline(&anna.view, anna.now), Some(free));
    anna.waits(Duration::from_millis(100));
    assert_eq!(anna.app.deadline(&anna.view, anna.now), None);
    assert!(anna.rings());
}

#[test]
fn a_terminal_that_comes_on_show_rings_nobody() {
    let mut anna = Person::viewer();
    anna.rings();
    anna.screen.bells = 5;

    anna.learns(|view| view.terminals[0].id = TerminalId([77; 16]));

    assert!(!anna.rings());
    anna.screen.bells = 6;
    assert!(anna.rings());
}

#[test]
fn keys_go_to_the_shell_exactly_and_only_the_prefix_does_not() {
    let mut host = Person::host();

    assert_eq!(
        host.asks(b"ls -l\r\x03\x1b[A\xff"),
        [input(b"ls -l\r\x03\x1b[A\xff")]
    );
    assert_eq!(
        host.asks(b"a\x1d\x1db"),
        [input(b"a"), input(b"\x1d"), input(b"b")]
    );
}

#[test]
fn the_screen_is_shown_row_by_row_above_the_status_row() {
    let mut viewer = Person::viewer();

    let picture = viewer.sees();

    let shown = rows(&picture.canvas);
    assert_eq!(shown[0], "$ echo hello");
    assert!(shown[1..24].iter().all(String::is_empty), "{shown:?}");
    assert_eq!(
        shown[24],
        " read-only  │ demo │ bob hosts │ 3 here │ live │ lan 2.3 ms │ Ctrl-] ? help"
    );
    assert_eq!(picture.caret.map(|caret| (caret.x, caret.y)), Some((2, 1)));
}

#[test]
fn control_goes_over_and_back_by_keys_alone() {
    let mut viewer = Person::viewer();
    let mut host = Person::host();

    assert_eq!(viewer.asks(b"\x1dr"), [control(ControlCommand::Request)]);
    viewer.learns(|view| view.terminals[0].control.requested = true);
    assert!(
        viewer.status().starts_with(" asked for control "),
        "{}",
        viewer.status()
    );

    host.learns(|view| view.terminals[0].control.requests = vec![sample::member(2)]);
    assert!(
        host.text()
            .contains("bob (key 0202020202) asks for control."),
        "{}",
        host.text()
    );
    let grant = ControlCommand::Grant {
        to: sample::member(2),
        duration: None,
    };
    host.waits(Duration::from_secs(1));
    assert_eq!(host.asks(b"\x1dg"), [control(grant)]);

    viewer.learns(|view| {
        view.terminals[0].control.requested = false;
        view.terminals[0].control.mine = true;
        view.terminals[0].control.holder = Some(sample::member(1));
        view.terminals[0].control.ends = Some(NOW.wall + Duration::from_secs(1_800));
    });
    assert!(
        viewer.status().starts_with(" you type, 30 min left "),
        "{}",
        viewer.status()
    );
    assert_eq!(viewer.asks(b"x"), [input(b"x")]);
    assert_eq!(host.asks(b"\x1dt"), [control(ControlCommand::Take)]);
    assert_eq!(viewer.asks(b"\x1dr"), [control(ControlCommand::Release)]);
}

#[test]
fn control_is_given_to_nobody_but_whom_the_card_has_named() {
    let mut host = Person::host();
    host.learns(|view| view.terminals[0].control.requests = vec![sample::member(2)]);
    assert!(
        host.text().contains("bob (key 0202020202) asks"),
        "{}",
        host.text()
    );

    assert_eq!(host.asks(b"\x1dg"), [], "bob's question was not read yet");
    host.waits(Duration::from_secs(1));

    host.learns(|view| {
        view.terminals[0].control.requests = vec![sample::member(3), sample::member(2)];
    });
    assert_eq!(
        host.asks(b"\x1dg"),
        [],
        "eve's question was not painted yet"
    );
    assert!(
        host.text().contains("eve (key 0303030303) asks"),
        "{}",
        host.text()
    );
    assert_eq!(host.asks(b"\x1dg"), [], "eve's question was not read yet");
    assert!(host.status().contains("read it again"), "{}", host.status());

    host.learns(|view| view.terminals[0].control.requests = Vec::new());
    host.sees();
    host.learns(|view| view.terminals[0].control.requests = vec![sample::member(3)]);
    host.sees();
    assert_eq!(
        host.asks(b"\x1dg"),
        [],
        "a gap between two questions changes nothing"
    );

    host.waits(Duration::from_secs(1));
    let grant = ControlCommand::Grant {
        to: sample::member(3),
        duration: None,
    };
    assert_eq!(host.asks(b"\x1dg"), [control(grant)]);
}

#[test]
fn a_pane_whose_keys_go_to_the_shell_says_so() {
    let mut host = Person::host();
    host.types(b"\x1dc");
    assert!(host.text().contains("Enter sends"), "{}", host.text());
    host.types(b"\t");
    assert!(
        host.text().contains("shell has the keys · Ctrl-] c back"),
        "{}",
        host.text()
    );
    assert!(!host.text().contains("Enter sends"), "{}", host.text());
    host.types(b"\x1dc");
    assert!(host.text().contains("Enter sends"), "{}", host.text());
}

#[test]
fn what_was_said_before_somebody_joined_is_no_news() {
    let mut view = sample::view();
    let member = view.phase.clone();
    view.phase = Phase::Joining {
        waits_for: String::new(),
    };
    view.connection = ConnectionView::CatchingUp { waiting: 2 };
    let mut viewer = Person::with(view, UiOptions::default());
    viewer.learns(|view| {
        view.phase = member;
        view.messages_total = 7;
    });
    assert!(
        !viewer.status().contains("new in chat"),
        "{}",
        viewer.status()
    );

    viewer.learns(|view| view.connection = ConnectionView::Live);
    viewer.waits(SETTLES_IN);
    viewer.learns(|view| view.messages_total = 8);
    assert!(viewer.status().contains("1 new"), "{}", viewer.status());
}

#[test]
fn a_newcomer_who_is_connected_before_the_chat_comes_is_told_of_no_old_message() {
    let mut view = sample::view();
    view.phase = Phase::Member { synced: false };
    view.connection = ConnectionView::Live;
    let mut viewer = Person::with(
        view,
        UiOptions {
            newcomer: true,
            ..UiOptions::default()
        },
    );
    viewer.learns(|view| view.messages_total = 7);
    viewer.hears(said_by(2));
    assert!(!viewer.status().contains("bob:"), "{}", viewer.status());
    viewer.learns(|view| view.phase = Phase::Member { synced: true });
    viewer.hears(said_by(2));
    assert!(!viewer.status().contains("bob:"), "{}", viewer.status());
    assert!(!viewer.status().contains("new"), "{}", viewer.status());

    viewer.waits(SETTLES_IN);
    viewer.learns(|view| view.messages_total = 8);
    viewer.hears(said_by(2));
    assert!(viewer.status().contains("bob: hi"), "{}", viewer.status());
}

#[test]
fn what_the_person_says_in_another_window_is_no_new_message() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| view.messages_total = 1);
    viewer.hears(said_by(1));
    assert!(!viewer.status().contains("new"), "{}", viewer.status());

    viewer.learns(|view| view.messages_total = 2);
    assert!(viewer.status().contains("1 new"), "{}", viewer.status());
}

fn said_by(number: u8) -> What {
    What::MessagePosted {
        message: sample::message(number, "bob", "hi"),
    }
}

#[test]
fn a_request_is_taken_back_by_the_key_that_made_it() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| view.terminals[0].control.requested = true);
    assert_eq!(viewer.asks(b"\x1dr"), [control(ControlCommand::Release)]);
}

#[test]
fn while_the_host_is_away_the_row_says_so_and_counts_the_keys_that_are_not_confirmed() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.terminals[0].control.mine = true;
        view.terminals[0].control.unconfirmed = 3;
    });
    assert!(
        viewer.status().starts_with(" you type "),
        "{}",
        viewer.status()
    );

    viewer.learns(|view| view.participants[1].status = crate::engine::view::Status::Gone);
    let status = viewer.status();
    assert!(status.starts_with(" 3 bytes not confirmed "), "{status}");
    assert!(status.contains("bob is away: old picture"), "{status}");
}

#[test]
fn a_host_who_is_connected_and_was_not_heard_yet_is_not_called_away() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.participants[1].status = crate::engine::view::Status::Gone;
        view.participants[1].last_active = None;
    });
    assert!(!viewer.status().contains("away"), "{}", viewer.status());

    viewer.learns(|view| view.participants[1].path = None);
    assert!(
        viewer.status().contains("bob is away"),
        "{}",
        viewer.status()
    );
}

#[test]
fn who_types_without_control_is_told_once_and_again_after_losing_it() {
    let mut viewer = Person::viewer();
    viewer.types(b"a");
    viewer.refused(Code::LeaseNotHeld, "typing needs control");
    assert_eq!(
        viewer.status(),
        " read-only  │  read-only: Ctrl-] r asks for control"
    );

    viewer.waits(Duration::from_secs(6));
    viewer.refused(Code::LeaseNotHeld, "typing needs control");
    assert!(
        !viewer.status().contains("asks for control"),
        "{}",
        viewer.status()
    );

    viewer.learns(|view| view.terminals[0].control.mine = true);
    viewer.learns(|view| view.terminals[0].control.mine = false);
    viewer.refused(Code::LeaseNotHeld, "typing needs control");
    assert!(
        viewer.status().contains("asks for control"),
        "{}",
        viewer.status()
    );
}

#[test]
fn a_prompt_never_takes_the_keys_from_the_shell() {
    let mut host = Person::host();
    host.learns(|view| {
        view.terminals[0].control.requests = vec![sample::member(2)];
        view.approvals = vec![sample::approval("mallory")];
    });

    assert!(host.text().contains("collab-p2p asks"), "{}", host.text());
    assert!(
        host.text().contains("mallory (key 0909090909)"),
        "{}",
        host.text()
    );
    assert_eq!(host.asks(b"g\ra"), [input(b"g\ra")]);
}

#[test]
fn a_newcomer_is_let_in_by_keys() {
    let mut host = Person::host();
    host.learns(|view| view.approvals = vec![sample::approval("mallory")]);

    let approve = Command::Approve {
        approval: "approval-mallory".into(),
    };
    assert_eq!(host.asks(b"\x1dpa"), [approve]);
    assert!(
        host.text().contains("collab-p2p: people"),
        "{}",
        host.text()
    );
    assert_eq!(host.asks(b"\x1dpls\r"), [input(b"ls\r")]);
}

#[test]
fn the_chat_is_written_and_sent_while_the_shell_rests() {
    let mut viewer = Person::viewer();

    let asked = viewer.asks(b"\x1dchi bob\r");

    let message = |text: &str| Command::PostMessage {
        text: text.into(),
        reply: None,
        mentions: Vec::new(),
        anchor: None,
    };
    assert_eq!(asked, [message("hi bob")]);
    viewer.learns(|view| view.messages = vec![sample::message(1, "anna", "hi bob")]);
    let caret = viewer.sees().caret.unwrap();
    assert!(viewer.text().contains("│ hi bob"), "{}", viewer.text());
    assert_eq!((caret.x, caret.y), (3, 22));
    assert!(
        viewer.status().starts_with(" keys go to chat "),
        "{}",
        viewer.status()
    );

    viewer.types(b"\x1b");
    viewer.waits(Duration::from_millis(30));
    assert!(
        !viewer.text().contains("collab-p2p: chat"),
        "{}",
        viewer.text()
    );
}

#[test]
fn a_message_that_could_not_be_saved_is_not_lost() {
    let mut viewer = Person::viewer();
    viewer.types(b"\x1dc");
    let error = CommandError::new(Code::DiskFull, "the disk is full");

    viewer.app.answered(
        Purpose::Message("precious".into()),
        Err(error),
        &viewer.view,
        viewer.now,
    );

    assert!(viewer.text().contains("> precious"), "{}", viewer.text());
    assert!(
        viewer.status().contains("the disk is full"),
        "{}",
        viewer.status()
    );
}

#[test]
fn messages_that_came_while_the_chat_was_closed_are_counted() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| view.messages_total = 2);
    assert!(viewer.status().contains("2 new"), "{}", viewer.status());
    viewer.types(b"\x1dc\x1dc");
    assert!(!viewer.status().contains("new"), "{}", viewer.status());
}

#[test]
fn writing_is_seen_by_others_until_it_stops() {
    let mut viewer = Person::viewer();
    let typing = |actions: Vec<Action>| -> Vec<Option<Typing>> {
        let updates = actions.into_iter().filter_map(|action| match action {
            Action::Ask(Command::SetPresence(update), _) => update.typing,
            Action::Ask(..) | Action::Copy(_) | Action::End(_) => None,
        });
        updates.collect()
    };

    assert_eq!(typing(viewer.types(b"\x1dcabc")), [Some(Typing::Chat)]);
    viewer.now.mono = viewer.now.mono + Duration::from_secs(4);
    let due = viewer.app.due(&viewer.view, None, viewer.now);
    assert_eq!(typing(due), [None]);
    assert_eq!(typing(viewer.types(b"d")), [Some(Typing::Chat)]);
    assert_eq!(typing(viewer.types(b"\r")), [None]);
}

#[test]
fn a_viewer_detaches_and_leaves_by_keys_and_the_host_only_stops() {
    let mut viewer = Person::viewer();
    assert_eq!(viewer.types(b"\x1dd"), [Action::End(UiEnd::Detached)]);
    assert_eq!(viewer.asks(b"\x1dx"), [Command::Leave]);

    let mut host = Person::host();
    assert_eq!(host.types(b"\x1dd"), []);
    assert!(host.status().contains("no such key"), "{}", host.status());
    assert_eq!(host.asks(b"\x1dx"), [Command::StopSession]);
    assert!(
        host.status().contains("stopping the session"),
        "{}",
        host.status()
    );
}

#[test]
fn a_node_that_does_not_stop_holds_nobody() {
    let mut viewer = Person::viewer();
    viewer.types(b"\x1dx");
    viewer.now.mono = viewer.now.mono + LEAVE_WITHIN;
    let actions = viewer.app.due(&viewer.view, None, viewer.now);
    assert_eq!(actions, [Action::End(UiEnd::Left)]);
}

#[test]
fn the_ticket_is_shown_until_the_first_guest_and_then_in_the_help() {
    let mut host = Person::host();
    host.view.participants.truncate(1);
    let options = UiOptions {
        host: Some(TERMINAL),
        share_block: Some(vec!["    collab-p2p join cp2p1abc".to_owned()]),
        ..UiOptions::default()
    };
    let mut host = Person::with(host.view, options);
    assert!(
        host.text().contains("collab-p2p join cp2p1abc"),
        "{}",
        host.text()
    );
    assert_eq!(host.asks(b"ls"), [input(b"ls")]);

    let bob = sample::participant(2, "bob", Role::Viewer);
    host.learns(|view| view.participants.push(bob));
    assert!(!host.text().contains("cp2p1abc"), "{}", host.text());
    host.types(b"\x1d?");
    assert!(
        host.text().contains("collab-p2p join cp2p1abc"),
        "{}",
        host.text()
    );
}

#[test]
fn the_newest_usable_ticket_is_copied() {
    let mut host = Person::host();
    let invite = |number: u8, open, ticket: Option<&str>| InviteView {
        id: InviteId([number; 32]),
        role: Role::Viewer,
        expires: None,
        ask: crate::engine::command::Ask::Auto,
        used: 0,
        open,
        created: Wall(number.into()),
        ticket: ticket.map(str::to_owned),
    };
    assert_eq!(host.types(b"\x1dy"), []);
    assert!(host.status().contains("no ticket"), "{}", host.status());

    host.learns(|view| {
        view.invites = vec![
            invite(1, true, Some("cp2p1a")),
            invite(2, true, Some("cp2p1b")),
            invite(3, false, Some("cp2p1c")),
        ];
    });
    assert_eq!(host.types(b"\x1dy"), [Action::Copy("cp2p1b".into())]);
    assert!(
        host.status().contains("the viewer ticket"),
        "{}",
        host.status()
    );

    host.app.share_block = vec!["    collab-p2p join cp2p1a".to_owned()];
    assert_eq!(
        host.types(b"\x1dy"),
        [Action::Copy("cp2p1a".into())],
        "the one that the person sees"
    );
}

#[test]
fn locking_and_unlocking_is_one_key() {
    let mut host = Person::host();
    assert_eq!(host.asks(b"\x1dl"), [control(ControlCommand::Lock)]);
    host.learns(|view| view.terminals[0].control.locked = true);
    assert!(
        host.status().starts_with(" you type, others locked "),
        "{}",
        host.status()
    );
    assert_eq!(host.asks(b"\x1dl"), [control(ControlCommand::Unlock)]);
}

#[test]
fn giving_control_without_a_request_asks_to_whom() {
    let mut host = Person::host();
    assert_eq!(host.asks(b"\x1dg"), []);
    assert!(
        host.text().contains("collab-p2p: people"),
        "{}",
        host.text()
    );

    let grant = ControlCommand::Grant {
        to: sample::member(2),
        duration: None,
    };
    assert_eq!(host.asks(b"jg"), [control(grant)]);
}

#[test]
fn after_the_prefix_the_keys_are_named() {
    let mut host = Person::host();
    host.types(b"\x1d");
    assert_eq!(
        host.status(),
        " Ctrl-]   c chat  p people  g give  t take  l lock  [  /  x stop  y  ? help"
    );
    host.types(b"?");
    assert!(
        host.text().contains("stop the session for everybody"),
        "{}",
        host.text()
    );
}

#[test]
fn a_paste_is_framed_as_the_program_asked_and_cannot_end_its_frame() {
    let mut host = Person::host();
    host.screen.modes = Modes::BRACKETED_PASTE;
    let asked = host.asks(b"\x1b[200~two\nlines\x1b[20\x1b[201~");
    assert_eq!(
        asked,
        [input("\x1b[200~two\nlines\u{fffd}[20\x1b[201~".as_bytes())]
    );

    host.screen.modes = Modes::default();
    assert_eq!(
        host.asks(b"\x1b[200~two\nlines\x1b[201~"),
        [input(b"two\rlines")]
    );
}

#[test]
fn an_introducer_of_one_byte_is_replaced_in_a_paste_in_both_its_forms() {
    let mut host = Person::host();
    for modes in [Modes::BRACKETED_PASTE, Modes::default()] {
        host.screen.modes = modes;

        let asked = host.asks(b"\x1b[200~a\x9b201~b\xc2\x9b201~c\x1b[201~");

        let text = "a\u{fffd}201~b\u{fffd}201~c";
        let framed = format!("\x1b[200~{text}\x1b[201~");
        let wanted = if modes == Modes::default() {
            text
        } else {
            &framed
        };
        assert_eq!(asked, [input(wanted.as_bytes())]);
    }
}

#[test]
fn the_shell_gets_the_settled_size_of_the_window_once() {
    let mut host = Person::host();
    host.app.resized(Size { cols: 90, rows: 30 }, host.now);
    host.app.resized(
        Size {
            cols: 100,
            rows: 40,
        },
        host.now,
    );
    let resize = Command::ResizeTerminal {
        terminal: TERMINAL,
        cols: 100,
        rows: 39,
    };
    assert_eq!(host.waits(Duration::from_millis(60)), [resize]);
    assert_eq!(host.waits(Duration::from_millis(60)), []);

    let mut viewer = Person::viewer();
    viewer.app.resized(
        Size {
            cols: 100,
            rows: 40,
        },
        viewer.now,
    );
    assert_eq!(viewer.waits(Duration::from_millis(60)), []);
}

#[test]
fn a_smaller_window_says_that_it_shows_a_part() {
    let mut viewer = Person::viewer();
    viewer.app.resized(Size { cols: 60, rows: 20 }, viewer.now);
    assert!(viewer.status().contains("part"), "{}", viewer.status());
    viewer.app.resized(
        Size {
            cols: 100,
            rows: 40,
        },
        viewer.now,
    );
    assert!(!viewer.status().contains("part"), "{}", viewer.status());
}

#[test]
fn who_scrolls_moves_the_window_over_the_screen_until_that_is_ended() {
    let mut viewer = Person::viewer();
    viewer.app.resized(Size { cols: 60, rows: 11 }, viewer.now);
    viewer.screen.cursor.y = 23;
    viewer.sees();
    assert_eq!(viewer.app.crop, Crop { x: 0, y: 14 });

    assert_eq!(viewer.asks(b"\x1d["), []);
    assert!(
        viewer
            .status()
            .starts_with(" scrolled: arrows move, q ends "),
        "{}",
        viewer.status()
    );
    let places = [
        (&b"k"[..], (0, 13)),
        (b"\x1b[A", (0, 12)),
        (b"\x1b[5~", (0, 3)),
        (b"l", (4, 3)),
        (b"\x1b[Chj", (4, 4)),
        (b"\x1b[H", (0, 0)),
        (b"\x1b[F", (20, 14)),
        (b"\x1b[6~jl", (20, 14)),
    ];
    for (keys, (x, y)) in places {
        assert_eq!(viewer.asks(keys), [], "no key reaches the shell");
        viewer.sees();
        assert_eq!(viewer.app.crop, Crop { x, y }, "{keys:?}");
    }
    viewer.asks(b"\x1b[H");
    assert_eq!(viewer.rows()[0], "$ echo hello");

    viewer.asks(b"z");
    assert!(viewer.status().contains("q ends"), "{}", viewer.status());
    viewer.asks(b"q");
    viewer.sees();
    assert_eq!(
        viewer.app.crop,
        Crop { x: 0, y: 14 },
        "the cursor is followed again"
    );
    assert_eq!(viewer.asks(b"q"), [input(b"q")]);
}

#[test]
fn scrolling_ends_by_escape_by_return_and_by_any_other_command() {
    for keys in [&b"\x1b"[..], b"\r", b"\x1dc\x1dc"] {
        let mut viewer = Person::viewer();
        viewer.app.resized(Size { cols: 60, rows: 11 }, viewer.now);
        viewer.types(b"\x1d[");
        assert!(viewer.app.panning);
        viewer.types(keys);
        viewer.waits(Duration::from_millis(30));
        assert!(!viewer.app.panning, "{keys:?}");
        assert_eq!(viewer.asks(b"x"), [input(b"x")]);
    }
}

#[test]
fn a_screen_that_fits_is_not_scrolled_and_keys_go_on_to_the_shell() {
    let mut viewer = Person::viewer();
    viewer.types(b"\x1d[");
    assert!(viewer.status().contains("in sight"), "{}", viewer.status());
    assert_eq!(viewer.asks(b"k"), [input(b"k")]);
}

#[test]
fn a_paste_while_the_window_is_scrolled_goes_nowhere_and_says_so() {
    let mut viewer = Person::viewer();
    viewer.app.resized(Size { cols: 60, rows: 11 }, viewer.now);
    assert_eq!(viewer.asks(b"\x1d[\x1b[200~rm -r\x1b[201~"), []);
    assert!(
        viewer.status().contains("nothing was pasted"),
        "{}",
        viewer.status()
    );
}

#[test]
fn the_open_chat_is_scrolled_by_the_same_key() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        let said = |n| sample::message(2, "bob", &format!("number {n}."));
        view.messages = (0..40).map(said).collect();
        view.messages_total = 40;
    });
    viewer.types(b"\x1dc\x1d[");
    viewer.sees();
    viewer.types(b"\x1b[H");
    assert!(viewer.text().contains(" number 0."), "{}", viewer.text());
    viewer.types(b"j");
    assert!(!viewer.text().contains("│bob"), "{}", viewer.text());
    viewer.types(b"qhello\r");
    assert!(viewer.text().contains(" number 39."), "{}", viewer.text());
}

#[test]
fn a_search_opens_the_chat_fetches_what_is_older_and_closes_again() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.messages = vec![sample::message(2, "bob", "the newest")];
        view.messages_total = 3;
    });

    assert_eq!(viewer.asks(b"\x1d/needle"), []);
    assert!(
        viewer.text().contains("looking further back"),
        "{}",
        viewer.text()
    );
    let asked = viewer.app.due(&viewer.view, None, viewer.now);
    let wanted = crate::engine::command::MessagesWanted {
        since: None,
        before: Some("2-the newest".into()),
        most: crate::engine::limits::LISTED_MESSAGES_MAX,
    };
    assert_eq!(
        asked,
        [Action::Ask(Command::Messages(wanted), Purpose::Older)]
    );
    let page = vec![
        sample::message(3, "eve", "a NEEDLE"),
        sample::message(3, "eve", "hay"),
    ];
    viewer.app.answered(
        Purpose::Older,
        Ok(Reply::Messages(page)),
        &viewer.view,
        viewer.now,
    );
    assert!(viewer.text().contains("a NEEDLE"), "{}", viewer.text());
    assert!(viewer.text().contains("1 of 1 "), "{}", viewer.text());
    assert_eq!(
        viewer.app.deadline(&viewer.view, viewer.now),
        Some(viewer.now.mono + Duration::from_secs(20))
    );

    viewer.types(b"\x1b");
    viewer.waits(Duration::from_millis(30));
    assert!(
        !viewer.text().contains("collab-p2p: search"),
        "{}",
        viewer.text()
    );
    assert_eq!(viewer.asks(b"x"), [input(b"x")]);
}

#[test]
fn a_search_in_the_open_chat_leads_back_to_the_line_that_was_begun() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| view.messages = vec![sample::message(2, "bob", "hay")]);
    viewer.types(b"\x1dcdraft\x1d/hay\x1b");
    viewer.waits(Duration::from_millis(30));
    assert!(viewer.text().contains("> draft"), "{}", viewer.text());
}

#[test]
fn a_search_that_cannot_look_further_back_says_why_and_ends() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.messages = vec![sample::message(2, "bob", "the newest")];
        view.messages_total = 3;
    });
    viewer.types(b"\x1d/needle");
    viewer.app.due(&viewer.view, None, viewer.now);
    let error = CommandError::new(Code::StoreCorrupt, "the store is broken");
    viewer
        .app
        .answered(Purpose::Older, Err(error), &viewer.view, viewer.now);
    assert!(viewer.text().contains("nothing found"), "{}", viewer.text());
    assert!(
        viewer.status().contains("the store is broken"),
        "{}",
        viewer.status()
    );
}

#[test]
fn nothing_wakes_an_idle_window() {
    let mut viewer = Person::viewer();
    assert_eq!(viewer.app.deadline(&viewer.view, viewer.now), None);

    viewer.types(b"\x1dq");
    assert!(viewer.app.deadline(&viewer.view, viewer.now).is_some());
    viewer.waits(Duration::from_secs(6));
    assert_eq!(viewer.app.deadline(&viewer.view, viewer.now), None);
}

#[test]
fn others_point_at_the_screen_by_name() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.participants[2].pointer = Some(Pointer {
            terminal: TERMINAL,
            row: 2,
            column: 4,
        });
    });
    assert_eq!(viewer.rows()[2], "    ▸ eve");
}

#[test]
fn troubles_and_notices_are_said() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.connection = ConnectionView::Offline {
            waiting: 2,
            waits_for: "looking for bob".into(),
        };
    });
    assert!(
        viewer.status().contains("offline, 2 waiting"),
        "{}",
        viewer.status()
    );

    viewer.learns(|view| {
        view.notices = vec![Notice {
            number: 1,
            time: NOW.wall,
            text: "nothing is saved\x1b[2J".into(),
        }];
    });
    assert!(
        viewer.status().contains("nothing is saved\\u{1b}[2J"),
        "{}",
        viewer.status()
    );
}

#[test]
fn events_are_said_while_they_are_new() {
    let mut viewer = Person::viewer();
    let joined = What::ParticipantJoined {
        participant: sample::member(4),
        name: "carl".into(),
        role: Role::Viewer,
    };
    let event = SessionEvent {
        time: NOW.wall,
        actor: None,
        what: joined,
    };

    viewer.app.happened(&event, &viewer.view, viewer.now);
    assert!(
        viewer.status().contains("carl joined as viewer"),
        "{}",
        viewer.status()
    );
    viewer.waits(Duration::from_secs(6));
    assert!(!viewer.status().contains("carl"), "{}", viewer.status());
}

#[test]
fn a_pane_can_stay_open_beside_the_shell() {
    let mut host = Person::host();
    assert_eq!(host.asks(b"\x1dc\tls\r"), [input(b"ls\r")]);
    assert!(host.text().contains("collab-p2p: chat"), "{}", host.text());
    host.types(b"\x1dchello");
    assert!(host.text().contains("> hello"), "{}", host.text());
}

#[test]
fn the_cursor_stays_in_sight_above_a_pane() {
    let mut viewer = Person::viewer();
    viewer.screen.cursor.y = 23;
    viewer.types(b"\x1dc\t");

    let caret = viewer.sees().caret.unwrap();

    assert_eq!(caret.y, 11);
}

#[test]
fn arrow_keys_follow_the_program_only_while_they_go_to_it() {
    let mut viewer = Person::viewer();
    viewer.screen.modes = Modes::APP_CURSOR.with(Modes::MOUSE_CLICK, true);
    assert_eq!(viewer.sees().modes, Modes::APP_CURSOR);
    viewer.types(b"\x1dc");
    assert_eq!(viewer.sees().modes, Modes::default());
}

#[test]
fn windows_of_any_size_are_painted() {
    for (cols, rows) in [
        (0, 0),
        (1, 1),
        (3, 2),
        (10, 2),
        (40, 8),
        (90, 5),
        (300, 100),
    ] {
        for keys in [&b""[..], b"\x1dc", b"\x1dp", b"\x1d?", b"\x1d"] {
            let mut host = Person::host();
            host.learns(|view| {
                view.terminals[0].control.requests = vec![sample::member(2)];
                view.messages = vec![sample::message(2, "bob", "漢字 and a longer text")];
            });
            host.app.block_shown = true;
            host.app.resized(Size { cols, rows }, host.now);
            host.types(keys);
            assert_eq!(host.sees().canvas.size(), Size { cols, rows });
        }
    }
}

#[test]
fn a_terminal_that_has_ended_says_so_over_its_last_picture() {
    let mut viewer = Person::viewer();
    viewer.learns(|view| {
        view.terminals[0].open = false;
        view.terminals[0].status = Some(crate::engine::event::ExitStatus(0));
    });
    assert!(
        viewer.text().contains("ended with status 0"),
        "{}",
        viewer.text()
    );
    assert_eq!(viewer.asks(b"x"), []);
    assert!(
        viewer.status().contains("no terminal to type into"),
        "{}",
        viewer.status()
    );
}
