//! Sharing a terminal and joining it by ticket: one process shares, others show the same screen, and all end with
//! the shared command.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Machine, SOON, Spawned, eventually, same_screen};

#[test]
fn share_into_a_pipe_prints_the_ticket_and_nothing_else() {
    let machine = Machine::new();
    let ada = machine.user("ada");

    let words = ["share", "--no-mdns", "--ticket-file", "ticket", "--", "cat"];
    let mut node = ada.spawns(&words);
    let ticket = node.line();
    let rest = node.gets(Signal::SIGTERM);

    assert!(ticket.starts_with("cp2p1"), "{ticket}");
    assert!(ticket.len() <= 700, "{} characters", ticket.len());
    assert!(
        ticket
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    );
    assert_eq!((rest.code, rest.out.as_str()), (143, ""), "{}", rest.err);
    let file = std::fs::read_to_string(ada.home().join("ticket")).unwrap();
    assert_eq!(file.trim_end(), ticket);
}

#[test]
fn a_guest_sees_the_screen_of_the_host() {
    let machine = Machine::new();
    let ada = machine.share(
        "ada",
        &["--title", "demo"],
        &["sh", "-c", "printf 'one\\ntwo'; cat"],
    );

    let bob = machine.join("bob", &ada.ticket());

    assert_eq!(bob.ready["role"], "viewer");
    assert_eq!(bob.ready["title"], "demo");
    assert_eq!(bob.ready["session"], ada.ready["session"]);
    assert_ne!(bob.ready["member"], ada.ready["member"]);
    bob.sees("one\ntwo");
    let screen = same_screen(&[&ada, &bob]);
    assert_eq!((&screen["cols"], &screen["rows"]), (&json!(80), &json!(24)));
    assert_eq!(screen["cursor"]["x"], 3);
    assert_eq!(screen["cursor"]["y"], 1);
}

#[test]
fn a_late_guest_sees_what_was_there_before() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo before; cat"]);
    ada.sees("before");
    let _bob = machine.join("bob", &ada.ticket());
    ada.does(&["type", "more\n"]);

    let cleo = machine.join("cleo", &ada.ticket());

    cleo.sees("before\nmore");
}

#[test]
fn colours_wide_characters_and_a_title_arrive_as_they_are() {
    let machine = Machine::new();
    let script =
        "printf '\\033]0;the title\\007\\033[1;38;2;1;2;3mA\\033[0m\\346\\227\\245b\\033[4 q'; cat";
    let ada = machine.share("ada", &[], &["sh", "-c", script]);

    let bob = machine.join("bob", &ada.ticket());

    bob.sees("A\u{65e5}b");
    let screen = same_screen(&[&ada, &bob]);
    assert_eq!(screen["title"], "the title");
    assert_eq!(screen["cursor"]["shape"], "underline");
    let row = screen["lines"][0].as_array().unwrap();
    assert_eq!(
        row[0],
        json!({"x": 0, "w": 1, "text": "A", "fg": "#010203", "attrs": ["bold"]})
    );
    assert_eq!(row[1], json!({"x": 1, "w": 2, "text": "\u{65e5}"}));
    assert_eq!(row[2], json!({"x": 3, "w": 1, "text": "b"}));
}

#[test]
fn the_exit_status_reaches_every_viewer_and_the_session_ends_for_all() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &["--return"], &["sh", "-c", "read line; exit 7"]);
    let mut bob = machine.join("bob", &ada.ticket());
    let mut cleo = machine.join("cleo", &ada.ticket());
    bob.finds("cleo", "here", SOON);

    ada.does(&["type", "go", "--enter"]);

    assert_eq!(ada.ends(), 7);
    for guest in [&mut bob, &mut cleo] {
        assert_eq!(guest.event("terminal.closed")["status"], 7);
        assert_eq!(guest.ends(), 0);
        assert!(guest.stderr().contains("status 7"), "{}", guest.stderr());
    }
}

#[test]
fn stop_ends_the_session_for_everybody_and_leave_only_for_oneself() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    let mut cleo = machine.join("cleo", &ada.ticket());

    bob.does(&["leave"]);

    assert_eq!(bob.ends(), 0);
    eventually("bob is no participant any more, or gone", SOON, || {
        let who = ada.who();
        let there = who
            .iter()
            .any(|(name, status)| name == "bob" && status != "gone");
        if there {
            Err(format!("{who:?}"))
        } else {
            Ok(())
        }
    });
    cleo.does(&["who"]);
    ada.does(&["stop"]);
    assert_eq!(ada.ends(), 0);
    assert_eq!(cleo.ends(), 0);
    let nothing = cleo
        .user
        .refused(&["resume", "--headless"], 3, "no-session");
    assert!(nothing.ends_with("it has ended"), "{nothing}");
}

#[test]
fn only_the_owner_stops_the_session() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());

    bob.refused(&["stop"], 4, "not-permitted");

    bob.does(&["who"]);
    ada.does(&["who"]);
}

#[test]
fn a_ticket_is_read_from_stdin_from_the_environment_and_from_a_pasted_line() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let ticket = ada.ticket();
    let words = ["join", "--headless", "--json", "--no-mdns"];
    let (line, link) = (format!("{ticket}\n"), format!("  'collab-p2p:{ticket}' "));

    for (given, environment, stdin) in [
        (&["-"][..], None, line.as_str()),
        (&[], Some(&ticket), ""),
        (&["collab-p2p", "join", &ticket], None, ""),
        (&[&link], None, ""),
    ] {
        let guest = machine.user("guest");
        let mut command = guest.command(&words);
        command.args(given);
        environment.map(|ticket| command.env("COLLAB_P2P_TICKET", ticket));
        let mut node = Spawned::of(command);
        let mut input = node.child.stdin.take().unwrap();
        input.write_all(stdin.as_bytes()).unwrap();
        drop(input);
        let first = node.line();
        assert!(first.contains(r#""event":"ready""#), "{first}");
    }
}

#[test]
fn a_second_join_of_the_same_user_is_a_member_of_its_own() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let second = ada.user.join(&ada.ticket(), &[]);

    assert_ne!(second.ready["member"], ada.ready["member"]);
    // Without --member the host is meant, with it the other.
    let me =
        |flags: &[&str]| ada.json(&[flags, &["status"]].concat())["session"]["me"]["id"].clone();
    assert_eq!(me(&[]), ada.ready["member"]);
    assert_eq!(me(&["--member", &second.member()]), second.ready["member"]);
}

#[test]
fn joining_again_resumes_the_membership_that_is_here() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    let member = bob.member();
    assert_eq!(bob.gets(Signal::SIGTERM), 143);

    let again = bob.user.join(&ada.ticket(), &[]);

    assert_eq!(again.member(), member);
    ada.finds("bob", "here", SOON);
    assert_eq!(
        ada.who().iter().filter(|(name, _)| name == "bob").count(),
        1
    );
}

#[test]
fn an_editor_by_ask_waits_for_approval_and_denial_is_told() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--role", "editor"], &["cat"]);
    let ticket = ada.ticket();
    let guests = ["bob", "cleo"].map(|name| {
        let user = machine.user(name);
        let words = [
            "join",
            "--headless",
            "--json",
            "--no-mdns",
            "--name",
            name,
            &ticket,
        ];
        let child = user.spawns(&words);
        (user, child)
    });
    eventually("both wait", SOON, || {
        let status = ada.does(&["status"]);
        let both = status.matches("wants in as editor").count() == 2;
        both.then_some(()).ok_or(status)
    });
    let status = ada.does(&["status"]);
    let bob = status
        .lines()
        .find(|line| line.contains("bob wants in"))
        .unwrap();
    let (_, offered) = bob.split_once("`collab-p2p approve ").unwrap();
    let (key, _) = offered.split_once('`').unwrap();
    assert!(
        key.len() == 10 && key.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "a command to paste holds nothing that a newcomer chose: {status}"
    );

    ada.does(&["approve", key]);
    ada.does(&["deny", "cleo"]);

    let [(bob, _first), (_, mut second)] = guests;
    ada.finds("bob", "here", SOON);
    eventually("bob is an editor", SOON, || {
        let ran = bob.run(&["status", "--json"]);
        ran.out
            .contains(r#""role":"editor""#)
            .then_some(())
            .ok_or(ran.out + &ran.err)
    });
    let refused = second.rest();
    assert_eq!(refused.code, 4, "{}", refused.err);
    let told = refused.err;
    let codes = [r#""code":"admission-refused""#, r#""code":"denied""#];
    assert!(codes.iter().any(|code| told.contains(code)), "{told}");
}

#[test]
fn the_size_is_what_the_host_says() {
    let machine = Machine::new();
    let ada = machine.share(
        "ada",
        &["--size", "100x30"],
        &["sh", "-c", "stty size; cat"],
    );

    let bob = machine.join("bob", &ada.ticket());

    bob.sees("30 100");
    let screen = bob.json(&["screen"]);
    assert_eq!(
        (&screen["cols"], &screen["rows"]),
        (&json!(100), &json!(30))
    );
}

#[test]
fn a_shared_shell_knows_that_it_is_shared_and_does_not_share_again() {
    let machine = Machine::new();
    let script = "echo T=$TERM C=$COLORTERM M=$TMUX S=$COLLAB_P2P; cat";
    let ada = machine.share("ada", &[], &["sh", "-c", script]);

    ada.sees("T=xterm-256color C=truecolor M= S=1");

    let mut command = ada.command(&["share", "--", "cat"]);
    command.env("COLLAB_P2P", "1");
    crate::harness::finish(command, b"").is_refusal(2, "nested");
}

#[test]
fn a_flood_ends_in_the_same_screen_for_all() {
    let machine = Machine::new();
    let ada = machine.share(
        "ada",
        &[],
        &["sh", "-c", "read go; seq 1 200000; echo done; cat"],
    );
    let bob = machine.join("bob", &ada.ticket());
    let cleo = machine.join("cleo", &ada.ticket());

    ada.does(&["type", "go", "--enter"]);

    eventually("the flood is over", Duration::from_secs(60), || {
        let screen = bob.screen();
        screen.contains("200000\ndone").then_some(()).ok_or(screen)
    });
    same_screen(&[&ada, &bob, &cleo]);
}

#[test]
fn invitations_are_made_listed_and_shown() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let made = ada.json(&[
        "invite",
        "create",
        "--role",
        "editor",
        "--accept",
        "--expires",
        "10m",
    ]);
    let ticket = made["ticket"].as_str().unwrap();

    assert_eq!(made["join_command"], format!("collab-p2p join {ticket}"));
    assert_eq!(made["role"], "editor");
    assert_eq!(ada.does(&["invite", "show"]).trim_end(), ticket);
    let list = ada.does(&["invite", "list"]);
    assert!(list.contains("editor") && list.contains("viewer"), "{list}");
    assert!(!list.contains("cp2p1"), "{list}");
    let bob = machine.join("bob", ticket);
    assert_eq!(bob.ready["role"], "editor");
}

#[test]
fn a_command_that_ends_at_once_gives_share_its_status() {
    let machine = Machine::new();
    let ada = machine.user("ada");

    for (command, status) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 5"], 5),
        (&["sh", "-c", "kill -9 $$"], 137),
    ] {
        for form in [&[][..], &["--json"]] {
            let words = ["share", "--headless", "--no-mdns", "--return"];
            let ran = ada.run(&[&words[..], form, &["--"], command].concat());
            assert_eq!(ran.code, status, "{command:?}: {}", ran.err);
            assert!(ran.out.contains("cp2p1"), "{command:?}: {}", ran.out);
        }
    }

    let list = ada.json(&["list"]);
    let sessions = crate::harness::items(&list);
    assert_eq!(sessions.len(), 8, "{list}");
    let ended = |session: &serde_json::Value| session["ended"] == true;
    assert!(sessions.iter().all(ended), "{list}");
}

#[test]
fn an_owner_who_leaves_others_is_told_of_stop() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    ada.finds("bob", "here", SOON);

    let left = ada.run(&["leave"]);

    assert_eq!((left.code, ada.ends()), (0, 0), "{}", left.err);
    assert!(left.err.contains("`stop`"), "{}", left.err);
    let last = bob.run(&["leave"]);
    assert_eq!(last.err, "left the session\n");
}

#[test]
fn a_host_that_nobody_has_joined_is_told_so() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let status = ada.does(&["status"]);

    assert!(
        status.contains("network   nobody has joined yet\n"),
        "{status}"
    );
    let _bob = machine.join("bob", &ada.ticket());
    eventually("bob is seen", SOON, || {
        let status = ada.does(&["status"]);
        (!status.contains("nobody")).then_some(()).ok_or(status)
    });
}

#[test]
fn a_ticket_that_has_ended_is_listed_as_expired() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--expires", "1s"], &["cat"]);

    std::thread::sleep(Duration::from_millis(1_500));

    let list = ada.does(&["invite", "list"]);
    assert!(list.contains("expired") && !list.contains("open"), "{list}");
    assert_eq!(ada.json(&["invite", "list"])["items"][0]["open"], false);
}

#[test]
fn the_events_of_a_node_begin_without_a_gap_and_name_their_session_to_the_end() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    bob.says("hello");
    ada.hears("hello");
    bob.event("message.posted");

    ada.does(&["stop"]);
    assert_eq!((ada.ends(), bob.ends()), (0, 0));

    for node in [&ada, &bob] {
        assert_eq!(node.events("stream.lagged"), [json!(null); 0]);
        let closed = node.events("session.closed");
        assert_eq!(closed.len(), 1, "{closed:?}");
        assert_eq!(closed[0]["session"], ada.ready["session"]);
    }
}
