//! The full-screen face in a real window: what a person sees and presses, and that the window is as before
//! afterwards, whatever ended the program.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::window::Window;
use crate::harness::{Machine, SOON, User, eventually};

const WINDOW: (u16, u16) = (80, 24);
/// A card is answered only once there was time to read it.
const READING: Duration = Duration::from_secs(1);
/// As tall as the window and its status row together show a shared screen of 80x24.
const TALLER: (u16, u16) = (80, 25);

/// A host in a window, its ticket, and the user.
fn hosted(machine: &Machine, flags: &[&str], command: &[&str]) -> (User, Window, String) {
    let ada = machine.user("ada");
    let words = [
        "share",
        "--no-mdns",
        "--ticket-file",
        "ticket",
        "--name",
        "ada",
    ];
    let words = [&words[..], flags, &["--"], command].concat();
    let window = Window::open(&ada, &words, WINDOW);
    let file = ada.home().join("ticket");
    let ticket = eventually("the ticket is there", SOON, || {
        let ticket = std::fs::read_to_string(&file).unwrap_or_default();
        let whole = ticket.ends_with('\n');
        whole
            .then(|| ticket.trim_end().to_owned())
            .ok_or_else(|| window.rows().join("\n"))
    });
    (ada, window, ticket)
}

fn viewer(machine: &Machine, name: &str, ticket: &str, size: (u16, u16)) -> (User, Window) {
    let user = machine.user(name);
    let words = ["join", "--no-mdns", "--name", name, ticket];
    let window = Window::open(&user, &words, size);
    (user, window)
}

#[test]
fn a_host_sees_how_others_join_then_the_shell_and_a_status_row() {
    let machine = Machine::new();
    let (_ada, window, ticket) = hosted(
        &machine,
        &["--title", "demo"],
        &["sh", "-c", "echo the shell; cat"],
    );

    window.shows("the shell");
    window.shows("you type");
    let block = format!("collab-p2p join {ticket}");
    assert!(window.written().contains(&block), "{}", window.written());
    let (_bob, guest) = viewer(&machine, "bob", &ticket, WINDOW);
    guest.shows("the shell");
    guest.shows("read-only");
    window.shows("2 here");
    window.hides("nobody has joined yet");
}

#[test]
fn a_taller_viewer_shows_the_shared_screen_row_by_row() {
    let machine = Machine::new();
    let script =
        "printf 'top\\n\\033[31mred\\033[0m \\346\\227\\245\\346\\234\\254\\n'; seq 1 30; cat";
    let ada = machine.share("ada", &[], &["sh", "-c", script]);
    ada.sees("30");

    let (_bob, window) = viewer(&machine, "bob", &ada.ticket(), TALLER);

    eventually("the window shows what `screen` says", SOON, || {
        let rows = window.rows();
        let shown = rows[..24].join("\n");
        let screen = ada.screen();
        if shown.trim_end() == screen.trim_end() {
            Ok(())
        } else {
            Err(format!("{shown}\n---\n{screen}"))
        }
    });
    assert!(window.rows()[24].contains("read-only"));
}

#[test]
fn a_smaller_viewer_sees_the_part_around_the_cursor_and_is_told() {
    let machine = Machine::new();
    let ada = machine.share(
        "ada",
        &["--size", "100x40"],
        &["sh", "-c", "seq 1 39; printf here; cat"],
    );
    ada.sees("here");

    let (_bob, window) = viewer(&machine, "bob", &ada.ticket(), (40, 10));

    window.shows("here");
    assert!(
        !window.rows().iter().any(|row| row == "1"),
        "{:?}",
        window.rows()
    );
    window.becomes((100, 41));
    window.shows("\n1\n2\n3\n".trim_start());
}

#[test]
fn keys_of_a_viewer_without_control_reach_nobody_and_it_is_told_once() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let (_bob, window) = viewer(&machine, "bob", &ada.ticket(), WINDOW);
    window.shows("read-only");

    window.types("intruder\r");

    window.shows("read-only: Ctrl-] r asks for control");
    ada.does(&["type", "host\n"]);
    window.shows("host");
    assert!(!ada.screen().contains("intruder"));
}

#[test]
fn control_changes_hands_by_keys_alone() {
    let machine = Machine::new();
    let (ada, host, ticket) = hosted(&machine, &[], &["cat"]);
    let (_bob, guest) = viewer(&machine, "bob", &ticket, WINDOW);
    guest.shows("read-only");

    guest.types("\x1dr");
    host.shows(") asks for control. Ctrl-] g");
    guest.shows("asked for control");
    std::thread::sleep(READING);
    host.types("\x1dg");
    guest.shows("you type");
    host.shows("bob types");
    guest.types("typed by bob\r");
    host.shows("typed by bob");
    host.types("\x1dt");
    guest.shows("read-only");
    host.shows("you type");

    guest.types("too late\r");
    host.types("typed by ada\r");
    guest.shows("typed by ada");
    assert!(!ada.screen().contains("too late"), "{}", ada.screen());
}

#[test]
fn a_refused_request_is_told_and_a_locked_terminal_is_shown() {
    let machine = Machine::new();
    let (_ada, host, ticket) = hosted(&machine, &[], &["cat"]);
    let (_bob, guest) = viewer(&machine, "bob", &ticket, WINDOW);
    guest.shows("read-only");

    guest.types("\x1dr");
    host.shows("bob (key ");
    host.types("\x1dp");
    host.shows("people (2)");
    host.types("d");
    guest.shows("the host refused control");
    host.types("\x1b");
    host.hides("people (2)");
    host.types("\x1dl");
    guest.shows("locked");
    host.types("\x1dl");
    guest.hides("locked");
}

#[test]
fn chat_people_and_help_open_close_and_work() {
    let machine = Machine::new();
    let (_ada, host, ticket) = hosted(&machine, &[], &["cat"]);
    let (bob, guest) = viewer(&machine, "bob", &ticket, (100, 30));
    guest.shows("read-only");

    guest.types("\x1dc");
    guest.shows("chat");
    guest.types("hello from the pane\r");
    host.shows("hello from the pane");
    bob.hears("hello from the pane");
    guest.types("\x1b");
    guest.types("\x1dp");
    guest.shows("people (2)");
    guest.shows("ada");
    guest.types("\x1b");
    guest.hides("people (2)");
    guest.types("\x1d?");
    guest.shows("detach: end this program, stay a member");
    guest.types("\x1b");
    guest.hides("detach: end this program");
    host.types("\x1d?");
    host.shows("stop the session for everybody");
}

#[test]
fn an_approval_is_given_by_keys() {
    let machine = Machine::new();
    let (_ada, host, ticket) = hosted(
        &machine,
        &["--role", "editor"],
        &["sh", "-c", "echo the shell; cat"],
    );
    let (_bob, guest) = viewer(&machine, "bob", &ticket, WINDOW);

    host.shows("wants to join as editor");
    host.types("\x1dp");
    host.types("a");

    guest.shows("the shell");
}

/// What `stty -a` says, the cursor, and the screen before and after: all as the shell prints it.
fn restored_after(
    user: &User,
    words: &str,
    (cols, rows): (u16, u16),
    end: impl FnOnce(&Window),
) -> i32 {
    let program = crate::harness::program();
    let script = format!(
        "stty -a > before; echo on the main screen; {} {words}; code=$?; stty -a > after; echo finished $code; read line; exit $code",
        program.display()
    );
    let mut window = Window::run(user, "/bin/sh", &["-c", &script], (cols, rows));
    window.shows_within("the shell", SOON);
    assert!(window.state().0, "the alternate screen is used");

    end(&window);

    window.shows("finished");
    window.shows("on the main screen");
    assert_eq!(
        window.state(),
        (false, false),
        "alternate screen, hidden cursor"
    );
    let read = |name: &str| std::fs::read_to_string(user.home().join(name)).unwrap();
    assert_eq!(read("before"), read("after"));
    window.types("\r");
    window.ends()
}

#[test]
fn the_viewers_window_is_as_before_after_each_way_out() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let join = format!("join --no-mdns --name bob {}", ada.ticket());
    let bob = machine.user("bob");

    let after = |end: &dyn Fn(&Window)| restored_after(&bob, &join, WINDOW, end);

    assert_eq!(after(&|window: &Window| window.types("\x1dd")), 0);
    // The membership was kept: joining resumes it.
    assert_eq!(
        after(&|_: &Window| signal_the_programs_of(&bob, Signal::SIGTERM)),
        143
    );
    assert_eq!(
        after(&|_: &Window| signal_the_programs_of(&bob, Signal::SIGHUP)),
        129
    );
    assert_eq!(after(&|window: &Window| window.types("\x1dx")), 0);
}

#[test]
fn the_viewers_window_is_as_before_when_the_command_ends() {
    let machine = Machine::new();
    let mut ada = machine.share(
        "ada",
        &[],
        &["sh", "-c", "echo the shell; read line; exit 3"],
    );
    let join = format!("join --no-mdns --name bob {}", ada.ticket());
    let bob = machine.user("bob");

    let code = restored_after(&bob, &join, WINDOW, |_| {
        ada.does(&["type", "x", "--enter"]);
    });

    assert_eq!(code, 0);
    assert_eq!(ada.ends(), 0);
}

#[test]
fn the_hosts_window_is_as_before_after_each_way_out() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let share = "share --no-mdns -- sh -c 'echo the shell; read line; exit 5'";

    let after = |words: &str, end: &dyn Fn(&Window)| restored_after(&ada, words, (100, 40), end);

    assert_eq!(after(share, &|window: &Window| window.types("x\r")), 0);
    let with_status = share.replacen("share", "share --return", 1);
    assert_eq!(
        after(&with_status, &|window: &Window| window.types("x\r")),
        5
    );
    assert_eq!(
        after(share, &|_: &Window| signal_the_programs_of(
            &ada,
            Signal::SIGTERM
        )),
        143
    );
    assert_eq!(after(share, &|window: &Window| window.types("\x1dx")), 0);
}

/// Signals the only node of this user.
fn signal_the_programs_of(user: &User, signal: Signal) {
    nix::sys::signal::kill(user.pid(), signal).unwrap();
}

#[test]
fn a_host_whose_node_is_out_of_reach_is_shown_as_such() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let (_bob, window) = viewer(&machine, "bob", &ada.ticket(), WINDOW);
    window.shows("the shell");

    ada.is_killed();

    window.shows_within("offline", Duration::from_secs(10));
}

#[test]
fn a_command_that_ends_at_once_gives_a_host_in_a_window_its_status() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    for (script, status) in [("true", 0), ("exit 5", 5), ("kill -9 $$", 137)] {
        let words = ["share", "--no-mdns", "--return", "--", "sh", "-c", script];
        let mut window = Window::open(&ada, &words, WINDOW);
        assert_eq!(window.ends(), status, "{}", window.written());
    }
}

#[test]
fn a_terminal_that_shows_no_full_screen_is_refused_before_anything_is_shared() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let program = crate::harness::program();
    let words = [
        "TERM=dumb",
        program.to_str().unwrap(),
        "share",
        "--no-mdns",
        "--ticket-file",
        "ticket",
        "--",
        "cat",
    ];

    let mut window = Window::run(&ada, "env", &words, WINDOW);

    assert_eq!(window.ends(), 2);
    window.shows("error[no-terminal]");
    assert!(!window.written().contains("cp2p1"), "{}", window.written());
    assert!(!ada.home().join("ticket").exists());
    assert_eq!(crate::harness::items(&ada.json(&["list"])).len(), 0);
}

/// What a viewer's window gets with the red word of a host on it, run by a line of the shell.
fn colours_of(set: &str, flag: &str) -> String {
    let machine = Machine::new();
    let script = "printf '\\033[38;2;200;10;10mreddish\\033[0m\\n'; cat";
    let ada = machine.share("ada", &[], &["sh", "-c", script]);
    ada.sees("reddish");
    let bob = machine.user("bob");
    let program = crate::harness::program();
    let line = format!("exec env {set} \"$0\" {flag} join --no-mdns \"$1\"");
    let words = ["-c", &line, program.to_str().unwrap(), &ada.ticket()];
    let window = Window::run(&bob, "sh", &words, TALLER);
    window.shows("reddish");
    window.shows("read-only");
    window.written()
}

#[test]
fn no_color_takes_the_colours_of_the_frame_and_color_never_those_of_the_screen_too() {
    // The host's red: as it is, the nearest of 256, the nearest of 16.
    let full = colours_of("COLORTERM=truecolor", "");
    assert!(full.contains("38;2;200;10;10"), "{full}");
    assert!(full.contains("48;5;"), "the frame has colours: {full}");
    let palette = colours_of("TERM=screen-256color", "");
    assert!(
        palette.contains("38;5;") && !palette.contains("38;2;"),
        "{palette}"
    );
    let few = colours_of("TERM=screen", "");
    assert!(!few.contains("38;5;") && !few.contains("48;5;"), "{few}");
    assert!(
        few.contains("\x1b[31m") || few.contains(";31m") || few.contains("91m"),
        "{few}"
    );

    for quiet in ["NO_COLOR=1", "CLICOLOR=0"] {
        let plain = colours_of(&format!("COLORTERM=truecolor {quiet}"), "");
        assert!(plain.contains("38;2;200;10;10"), "{plain}");
        assert!(
            !plain.contains("48;5;") && !plain.contains("38;5;"),
            "{plain}"
        );
    }
    let never = colours_of("COLORTERM=truecolor", "--color never");
    assert!(!never.contains("38;") && !never.contains("48;"), "{never}");
}
