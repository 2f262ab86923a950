//! What goes wrong is told by code, in words, with what to do next; nothing panics.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Machine, Node, Ran, User};

/// A ticket that is good, of a host that still runs.
fn with_a_ticket(test: impl Fn(&User, &str)) {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    test(&machine.user("guest"), &ada.ticket());
}

/// Joins, with and without `--json`, and is refused both times.
#[track_caller]
fn refused(guest: &User, ticket: &str, exit: i32, code: &str) {
    let words = ["join", "--headless", "--no-mdns", ticket];
    guest.refused(&words, exit, code);
    guest
        .run(&[&words[..], &["--json"]].concat())
        .is_json_refusal(exit, code);
    assert!(
        guest
            .files()
            .iter()
            .all(|file| !file.ends_with("store.redb")),
        "a store was left"
    );
}

#[test]
fn a_bad_ticket_is_told_by_what_is_wrong_with_it() {
    with_a_ticket(|guest, ticket| {
        refused(guest, "", 4, "ticket-empty");
        refused(guest, "  ", 4, "ticket-empty");
        refused(guest, "hello", 4, "ticket-foreign");
        refused(guest, "https://example.org/join", 4, "ticket-foreign");
        refused(guest, &ticket[..ticket.len() - 9], 4, "ticket-truncated");
        refused(guest, &ticket[..20], 4, "ticket-truncated");
        let middle = ticket.len() / 2;
        let other = if &ticket[middle..=middle] == "a" {
            "b"
        } else {
            "a"
        };
        let mistyped = format!("{}{other}{}", &ticket[..middle], &ticket[middle + 1..]);
        refused(guest, &mistyped, 4, "ticket-malformed");
        refused(
            guest,
            &format!("{ticket}{}", "a".repeat(9000)),
            4,
            "ticket-too-long",
        );
        refused(
            guest,
            &ticket.replacen("cp2p1", "cp2p2", 1),
            9,
            "version-mismatch",
        );
    });
}

#[test]
fn no_ticket_is_a_mistake_in_usage_and_a_bad_one_is_named_without_a_terminal_too() {
    let guest = Machine::new();
    let guest = guest.user("guest");

    guest.refused(&["join", "--headless"], 2, "ticket-missing");
    let empty = guest.run_with(&["join", "--headless", "-"], b"");
    empty.is_refusal(4, "ticket-empty");
    guest.refused(&["join", "abc"], 4, "ticket-foreign");
    let long = guest.run_with(&["join", "--headless", "-"], &[b'a'; 100_000]);
    assert_eq!(long.code, 4, "{}", long.err);
}

#[test]
fn an_expired_ticket_is_refused_by_the_joiner_and_by_the_host() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--expires", "1s"], &["cat"]);
    std::thread::sleep(Duration::from_millis(1_500));

    refused(&machine.user("guest"), &ada.ticket(), 4, "ticket-expired");
}

#[test]
fn a_host_that_is_away_is_told_within_the_time_given() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    ada.is_killed();
    let guest = machine.user("guest");
    let begun = Instant::now();

    let words = [
        "join",
        "--headless",
        "--no-mdns",
        "--timeout",
        "3s",
        &ada.ticket(),
    ];
    let why = guest.refused(&words, 5, "peer-unreachable");

    assert!(begun.elapsed() >= Duration::from_secs(3), "{why}");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?} {why}",
        begun.elapsed()
    );
    let ran = guest.run(&words);
    assert!(
        ran.err.contains("waiting: "),
        "after a second it says what it waits for: {}",
        ran.err
    );
    guest.refused(&["resume", "--headless"], 3, "no-session");
}

#[test]
fn without_a_terminal_the_full_screen_is_refused() {
    with_a_ticket(|guest, ticket| {
        guest.refused(&["join", "--no-mdns", ticket], 2, "no-terminal");
        guest
            .run(&["join", "--no-mdns", ticket, "--color", "never"])
            .is_refusal(2, "no-terminal");
        guest.refused(&["resume"], 2, "no-terminal");
    });
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let file = machine.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    // Not even root makes folders there.
    let kernels = "/proc/collab-p2p";

    for folder in [file.join("state").display().to_string(), kernels.to_owned()] {
        let words = ["--state-dir", &folder, "share", "--headless", "--", "cat"];
        let why = ada.refused(&words, 8, "state-unwritable");
        assert!(
            why.contains(folder.split("/state").next().unwrap()),
            "{why}"
        );
        let words = ["--state-dir", &folder, "share", "--json", "--", "cat"];
        ada.run(&words).is_json_refusal(8, "state-unwritable");
    }
}

#[test]
fn verbs_without_a_node_say_so() {
    let machine = Machine::new();
    let ada = machine.user("ada");

    for verb in [
        &["who"][..],
        &["status"],
        &["screen"],
        &["chat"],
        &["chat", "hello"],
        &["type", "x"],
        &["control", "status"],
        &["invite", "list"],
        &["leave"],
        &["stop"],
        &["approve", "bob"],
    ] {
        ada.refused(verb, 3, "no-session");
    }
    assert_eq!(
        ada.json(&["list"])
            .to_string()
            .matches("session\":")
            .count(),
        0
    );
}

#[test]
fn which_of_several_sessions_is_asked() {
    let machine = Machine::new();
    let user = machine.user("ada");
    let first = user.share(&["--title", "first"], &["cat"]);
    let second = user.share(&["--title", "second"], &["cat"]);

    let why = user.refused(&["who"], 6, "which-session");

    assert!(why.contains("first") && why.contains("second"), "{why}");
    let title = |named: &str| user.json(&["-s", named, "status"])["session"]["title"].clone();
    assert_eq!(title("FIRST"), "first");
    assert_eq!(
        title(&second.ready["session"].as_str().unwrap()[..8]),
        "second"
    );
    user.refused(&["-s", "third", "who"], 3, "no-session");
    let mut command = user.command(&["status"]);
    command.env(
        "COLLAB_P2P_SESSION",
        first.ready["session"].as_str().unwrap(),
    );
    let ran = crate::harness::finish(command, b"");
    assert!(ran.out.contains("first"), "{}{}", ran.out, ran.err);
}

#[test]
fn somebody_or_something_unknown_is_not_found() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    ada.refused(&["control", "grant", "nobody"], 3, "no-participant");
    ada.refused(&["approve", "nobody"], 3, "no-approval");
    ada.refused(&["-t", "ffffff", "type", "x"], 3, "no-terminal-shared");
    ada.refused(&["invite", "show", "ffffff"], 3, "no-invite");
}

#[test]
fn two_of_the_same_name_are_told_apart_by_id() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let first = machine.join("bob", &ada.ticket());
    let _second = machine.join("bob", &ada.ticket());
    crate::harness::eventually("both are there", crate::harness::SOON, || {
        let who = ada.who();
        let both = who.iter().filter(|(name, _)| name == "bob").count() == 2;
        both.then_some(()).ok_or_else(|| format!("{who:?}"))
    });

    let why = ada.refused(&["control", "grant", "bob"], 6, "which-participant");

    assert!(why.contains(&first.member()), "{why}");
    ada.does(&["control", "grant", &first.member()[..8]]);
}

#[test]
fn mistakes_in_usage_end_with_2() {
    let machine = Machine::new();
    let ada = machine.user("ada");

    for words in [
        &["frobnicate"][..],
        &[],
        &["share", "--frobnicate"],
        &["share", "--size", "1x1"],
        &["share", "--expires", "soon"],
        &["share", "--ask", "--accept"],
        &["share", "--listen", "here"],
        &["share", "--name", "", "--headless", "--", "cat"],
        &["type"],
        &["control"],
        &["control", "grant"],
        &["join", "--timeout", "never", "x"],
    ] {
        ada.refused(words, 2, "usage");
        ada.run(&[&["--json"], words].concat())
            .is_json_refusal(2, "usage");
    }
}

#[test]
fn a_command_that_cannot_be_started_is_named() {
    let machine = Machine::new();
    let ada = machine.user("ada");

    let ran: Ran = ada.run(&["share", "--headless", "--no-mdns", "--", "no-such-program"]);

    ran.is_refusal(1, "command-failed");
    assert!(ran.err.contains("no-such-program"), "{}", ran.err);
}

#[test]
fn a_ticket_file_is_never_overwritten() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    std::fs::write(ada.home().join("t"), "mine").unwrap();

    let words = [
        "share",
        "--headless",
        "--no-mdns",
        "--ticket-file",
        "t",
        "--",
        "cat",
    ];
    ada.refused(&words, 1, "file-exists");

    assert_eq!(
        std::fs::read_to_string(ada.home().join("t")).unwrap(),
        "mine"
    );
}

#[test]
fn a_ticket_file_appears_with_the_ticket_in_it() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let words = ["share", "--headless", "--no-mdns", "--ticket-file", "t"];
    let mut sharing = ada.spawns(&[&words[..], &["--", "cat"]].concat());

    let path = ada.home().join("t");
    let begun = Instant::now();
    let first = loop {
        if let Ok(content) = std::fs::read_to_string(&path) {
            break content;
        }
        assert!(begun.elapsed() < crate::harness::SOON, "no ticket file");
        std::thread::sleep(Duration::from_millis(1));
    };

    assert_eq!(first.trim_end(), sharing.line());
    let left = std::fs::read_dir(ada.home()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    let temporary = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(".collab");
    assert!(!left.iter().any(temporary), "{left:?}");
    sharing.gets(Signal::SIGTERM);
}

#[test]
fn a_share_that_is_killed_while_it_begins_leaves_no_empty_ticket_file() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let words = ["share", "--headless", "--no-mdns", "--ticket-file", "t"];
    let sharing = ada.spawns(&[&words[..], &["--", "cat"]].concat());

    // A folder in the state folder is made on the way from the check to the ticket.
    let sessions = ada.state().join("collab-p2p/sessions");
    crate::harness::eventually("the session is being made", crate::harness::SOON, || {
        let begun = sessions.exists();
        begun.then_some(()).ok_or_else(|| "not yet".to_owned())
    });
    sharing.gets(Signal::SIGKILL);

    let content = std::fs::read_to_string(ada.home().join("t"));
    assert!(
        content.is_err() || content.is_ok_and(|content| content.ends_with('\n')),
        "an empty file would be in the way of the next share"
    );
}

/// Waits until a newcomer waits for a decision here.
#[track_caller]
fn is_asked(node: &Node) {
    crate::harness::eventually("the host is asked", crate::harness::SOON, || {
        let (_, approvals) = node.asks("GET", "/api/v1/approvals", &serde_json::Value::Null);
        let asked = !crate::harness::items(&approvals).is_empty();
        asked.then_some(()).ok_or_else(|| approvals.to_string())
    });
}

#[test]
fn a_newcomer_whose_name_looks_like_a_key_is_let_in_by_its_own_key_only() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--ask"], &["cat"]);
    let mallory = machine.user("mallory");
    let words = ["join", "--headless", "--no-mdns", "--name", "a1b2c3d4e5"];
    let waiting = mallory.spawns(&[&words[..], &[&ada.ticket()]].concat());
    is_asked(&ada);

    for verb in ["approve", "deny"] {
        ada.refused(&[verb, "a1b2c3d4e5"], 3, "no-approval");
    }
    let path = "/api/v1/approvals/a1b2c3d4e5/approve";
    let (code, _) = ada.asks("POST", path, &serde_json::Value::Null);
    assert_eq!(code, 404);

    waiting.gets(Signal::SIGINT);
}

#[test]
fn a_port_in_use_is_told() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());

    let words = [
        "share",
        "--headless",
        "--no-mdns",
        "--listen",
        &addr,
        "--",
        "cat",
    ];
    ada.refused(&words, 1, "listen-failed");
}

/// Memberships in a user's folder, whatever their state.
fn memberships(user: &User) -> usize {
    crate::harness::items(&user.json(&["list"])).len()
}

#[test]
fn a_share_that_could_not_begin_leaves_no_session() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    std::fs::write(ada.home().join("t"), "mine").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let share = |flags: &[&str]| {
        let words = ["share", "--headless", "--no-mdns"];
        ada.run(&[&words[..], flags, &["--", "cat"]].concat())
    };

    share(&["--ticket-file", "t"]).is_refusal(1, "file-exists");
    share(&["--listen", &addr, "--ticket-file", "new"]).is_refusal(1, "listen-failed");

    assert_eq!(memberships(&ada), 0);
    assert!(!ada.home().join("new").exists());
}

#[test]
fn a_join_that_is_interrupted_while_it_waits_for_a_person_leaves_no_membership() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--ask"], &["cat"]);
    let guest = machine.user("guest");
    let words = ["join", "--headless", "--no-mdns", &ada.ticket()];
    let waiting = guest.spawns(&words);
    is_asked(&ada);

    let ran = waiting.gets(Signal::SIGINT);

    assert_eq!(ran.code, 130, "{}", ran.err);
    assert_eq!(memberships(&guest), 0);
    guest.refused(&["resume", "--headless"], 3, "no-session");
}

/// One user's nodes `bob` and `cleo` in ada's session `demo`.
fn two_of_one_folder(machine: &Machine) -> (Node, [Node; 2]) {
    let ada = machine.share("ada", &["--title", "demo"], &["cat"]);
    let user = machine.user("both");
    let both = ["bob", "cleo"].map(|name| {
        let words = ["join", "--headless", "--json", "--no-mdns", "--name", name];
        user.starts(&[&words[..], &[&ada.ticket()]].concat())
    });
    (ada, both)
}

#[test]
fn where_one_folder_runs_several_members_of_a_session_one_is_named_by_member() {
    let machine = Machine::new();
    let (_ada, both) = two_of_one_folder(&machine);

    for flags in [&[][..], &["-s", "demo"]] {
        let ran = both[0].run(&[flags, &["who"]].concat());
        let why = ran.is_refusal(6, "which-session");
        assert!(why.contains("as bob") && why.contains("as cleo"), "{why}");
        assert!(why.contains("members of one session"), "{why}");
        assert!(ran.err.contains("--member"), "{}", ran.err);
        assert!(!ran.err.contains("with -s"), "{}", ran.err);
    }
    let me = |member: &str| both[0].json(&["--member", member, "status"])["session"]["me"].clone();
    assert_eq!(me("bob")["id"], both[0].ready["member"]);
    assert_eq!(me(&both[1].member()[..10])["name"], "cleo");
}

#[test]
fn resume_goes_on_with_the_member_that_is_named() {
    let machine = Machine::new();
    let (_ada, [mut bob, mut cleo]) = two_of_one_folder(&machine);
    let user = bob.user.clone();
    assert_eq!(bob.gets(Signal::SIGTERM), 143);
    assert_eq!(cleo.gets(Signal::SIGTERM), 143);

    let ran = user.run(&["resume", "demo", "--headless"]);
    let why = ran.is_refusal(6, "which-session");
    assert!(why.contains("bob") && why.contains("cleo"), "{why}");
    assert!(ran.err.contains("help: name one with --member"), "{why}");
    user.refused(
        &["resume", "--headless", "--member", "eve"],
        3,
        "no-session",
    );
    let words = ["resume", "--headless", "--json", "--no-mdns", "--member"];
    let resumed = user.starts(&[&words[..], &["bob"]].concat());

    assert_eq!(resumed.ready["member"], bob.ready["member"]);
    let again = [&words[..], &["bob"]].concat();
    user.run(&again).is_json_refusal(8, "state-locked");
}

#[test]
fn a_verb_on_a_stopped_membership_names_resume() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &["--title", "demo"], &["cat"]);
    assert_eq!(ada.gets(Signal::SIGTERM), 143);

    for words in [&["who"][..], &["-s", "demo", "who"]] {
        let ran = ada.run(words);
        ran.is_refusal(3, "no-session");
        let id = &ada.ready["session"].as_str().unwrap()[..10];
        let resume = format!("{id} (demo) is stopped here: `collab-p2p resume {id}`");
        assert!(ran.err.contains(&resume), "{}", ran.err);
    }
    let other = ada.run(&["-s", "other", "who"]);
    other.is_refusal(3, "no-session");
    assert!(
        other.err.contains("no such session runs here"),
        "{}",
        other.err
    );
    assert!(!other.err.contains("resume"), "{}", other.err);
}

#[test]
fn what_was_probably_meant_is_named() {
    let machine = Machine::new();
    let ada = machine.user("ada");

    for (words, hint) in [
        (&["jion", "x"][..], "did you mean `join`?"),
        (&["sahre"], "did you mean `share`?"),
        (&["lst"], "did you mean `list`?"),
        (&["share", "--titel", "x"], "did you mean `--title`?"),
        (&["share", "--control", "aut"], "did you mean `auto`?"),
        (
            &["share", "--headless", "true"],
            "`collab-p2p share -- true`",
        ),
        (&["share", "ls", "-l"], "`collab-p2p share -- CMD`"),
        (&["chat", "hi", "there"], "in quotes"),
    ] {
        let ran = ada.run(words);
        ran.is_refusal(2, "usage");
        assert!(ran.err.contains(hint), "{words:?}: {}", ran.err);
    }
}

#[test]
fn without_a_command_the_commands_are_listed() {
    let machine = Machine::new();

    let ada = machine.user("ada");
    let mut elsewhere = ada.command::<&str>(&[]);
    elsewhere.env("COLLAB_P2P_STATE_DIR", ada.home().join("elsewhere"));

    let bare = [ada.run::<&str>(&[]), crate::harness::finish(elsewhere, b"")];
    let control = ada.run(&["control"]);

    for (ran, commands) in bare
        .iter()
        .map(|ran| (ran, ["share", "join"]))
        .chain([(&control, ["request", "grant"])])
    {
        assert_eq!(ran.is_refusal(2, "usage"), "no command was given");
        for line in ["Usage: collab-p2p", "Commands:"] {
            assert!(ran.err.contains(line), "{}", ran.err);
        }
        for command in commands {
            assert!(ran.err.contains(&format!("\n  {command} ")), "{}", ran.err);
        }
        assert!(!ran.err.contains("--state-dir"), "{}", ran.err);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn refusals_say_what_is_so() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());

    let why = ada.refused(&["approve", "ben"], 3, "no-approval");
    assert_eq!(why, "nobody called `ben` waits");
    let why = bob.refused(&["invite", "create"], 4, "not-permitted");
    assert_eq!(why, "a viewer cannot make tickets");
    let why = ada.refused(&["control", "grant", "ben"], 3, "no-participant");
    assert_eq!(why, "nobody here is called `ben`");
    let why = ada.refused(&["screen", "ffffff"], 3, "no-terminal-shared");
    assert!(why.contains("ffffff"), "{why}");
}
