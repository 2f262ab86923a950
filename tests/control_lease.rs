//! Who may type: nobody but the terminal's host without a lease, one at a time with one, and the host's own key
//! above all.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use collab_p2p::engine::limits::PEER_DEAD;
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::harness::{Machine, Node, SOON, eventually};

/// A terminal that writes each byte of its input into a file: what the PTY was given, and nothing else.
struct Tapped {
    machine: Machine,
    ada: Node,
    tap: PathBuf,
}

impl Tapped {
    fn shared(flags: &[&str]) -> Self {
        let machine = Machine::new();
        let tap = machine.path().join("tap");
        let script = format!("stty raw -echo; printf ready; exec cat > {}", tap.display());
        let ada = machine.share("ada", flags, &["sh", "-c", &script]);
        ada.sees("ready");
        Self { machine, ada, tap }
    }

    fn joined_by(&self, name: &str) -> Node {
        let node = self.machine.join(name, &self.ada.ticket());
        node.sees("ready");
        node
    }

    fn bytes(&self) -> String {
        String::from_utf8(std::fs::read(&self.tap).unwrap_or_default()).unwrap()
    }

    /// The shell got exactly this.
    #[track_caller]
    fn got(&self, bytes: &str) {
        eventually(&format!("the shell got {bytes:?}"), SOON, || {
            let got = self.bytes();
            if got == bytes { Ok(()) } else { Err(got) }
        });
    }
}

#[test]
fn typing_without_a_lease_is_refused_and_changes_nothing() {
    let tapped = Tapped::shared(&[]);
    let bob = tapped.joined_by("bob");

    let why = bob.refused(&["type", "rm -rf /", "--enter"], 4, "lease-not-held");

    assert!(why.contains("control"), "{why}");
    // A later byte of the host proves that nothing came before it.
    tapped.ada.does(&["type", "x"]);
    tapped.got("x");
}

#[test]
fn the_host_types_without_a_lease() {
    let tapped = Tapped::shared(&[]);

    tapped.ada.does(&["type", "ls", "--enter"]);
    tapped.ada.does(&["type", "--key", "C-c,Up"]);

    tapped.got("ls\r\x03\x1b[A");
}

#[test]
fn control_is_asked_for_given_used_and_given_back() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));

    bob.does(&["control", "request"]);
    ada.finds_asking("bob");
    bob.refused(&["type", "too early"], 4, "lease-not-held");
    ada.does(&["control", "grant", "bob", "--for", "10m"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "first "]);
    bob.does(&["type", "second"]);
    bob.does(&["control", "release"]);

    ada.finds_control("nobody has control");
    bob.refused(&["type", "too late"], 4, "lease-not-held");
    tapped.got("first second");
    assert_eq!(ada.events("control.requested").len(), 1);
    assert_eq!(ada.events("control.granted").len(), 1);
    assert_eq!(ada.events("control.released").len(), 1);
}

#[test]
fn whoever_waits_for_the_decision_is_told_it() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));

    std::thread::scope(|scope| {
        let asking = scope.spawn(|| bob.run(&["control", "request", "--wait"]));
        ada.finds_asking("bob");
        ada.does(&["control", "grant", "bob"]);
        assert_eq!(asking.join().unwrap().code, 0);
    });
    bob.does(&["control", "release"]);
    ada.finds_control("nobody has control");

    std::thread::scope(|scope| {
        let asking = scope.spawn(|| bob.run(&["control", "request", "--wait"]));
        ada.finds_asking("bob");
        let (status, _) = ada.asks(
            "POST",
            "/api/v1/control/deny",
            &json!({"participant": "bob"}),
        );
        assert_eq!(status, 200);
        asking.join().unwrap().is_refusal(4, "denied");
    });
    bob.run(&["control", "request", "--wait", "--timeout", "1s"])
        .is_refusal(5, "timed-out");
}

#[test]
fn the_verb_that_refuses_newcomers_refuses_whoever_asks_for_control_too() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.refused(&["deny", "bob"], 3, "no-approval");

    std::thread::scope(|scope| {
        let asking = scope.spawn(|| bob.run(&["control", "request", "--wait"]));
        ada.finds_asking("bob");
        let status = ada.does(&["control", "status"]);
        let key = &bob.member()[..10];
        assert!(
            status.contains(&format!("`deny {key}` refuses")),
            "{status}"
        );
        ada.refused(&["approve", "bob"], 3, "no-approval");
        ada.does(&["deny", key]);
        asking.join().unwrap().is_refusal(4, "denied");
    });
    assert!(!ada.does(&["control", "status"]).contains("asks"));
}

#[test]
fn revoke_and_take_end_the_lease_at_once() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));

    for ending in ["revoke", "take"] {
        ada.does(&["control", "grant", "bob"]);
        bob.finds_control("bob has control");
        bob.does(&["type", "b"]);
        ada.does(&["control", ending]);
        bob.refused(&["type", "x"], 4, "lease-not-held");
    }

    ada.does(&["type", "a"]);
    tapped.got("bba");
}

#[test]
fn a_key_of_the_host_takes_control_back() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "b"]);

    ada.does(&["type", "a"]);

    bob.refused(&["type", "x"], 4, "lease-not-held");
    assert_eq!(
        ada.event("control.taken")["participant"],
        bob.ready["member"]
    );
    tapped.got("ba");
}

#[test]
fn locked_nobody_gets_control_until_unlocked() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");

    ada.does(&["control", "lock"]);

    bob.refused(&["type", "x"], 4, "lease-not-held");
    bob.finds_control("nobody has control; input is locked");
    let ran = ada.run(&["control", "grant", "bob"]);
    assert_ne!(ran.code, 0, "{}", ran.err);
    ada.does(&["control", "unlock"]);
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "b"]);
    tapped.got("b");
}

#[test]
fn whatever_the_shell_prints_the_host_ends_control_at_once() {
    // A few bytes ask for thousands of characters: without bounds one piece of output is seconds of work.
    let flood = r#"printf ready; read -r go; exec yes "$(printf 'x\033[65535b\033[65535b')""#;
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", flood]);
    ada.sees("ready");
    let bob = machine.join("bob", &ada.ticket());
    bob.sees("ready");
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "go", "--enter"]);
    ada.sees("xxxxxxxx");
    // Pieces grow to their full size while the first are worked on.
    std::thread::sleep(Duration::from_secs(2));

    for verb in ["take", "lock", "unlock", "lock"] {
        let asked = Instant::now();
        let (status, _) = ada.asks("POST", &format!("/api/v1/control/{verb}"), &json!({}));
        assert_eq!(status, 200);
        assert!(asked.elapsed() < PEER_DEAD, "{verb}: {:?}", asked.elapsed());
    }

    bob.finds_control("nobody has control; input is locked");
}

#[test]
fn a_lease_ends_when_its_time_is_over() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));

    ada.does(&["control", "grant", "bob", "--for", "2s"]);

    bob.finds_control("bob has control");
    ada.event("control.expired");
    bob.refused(&["type", "x"], 4, "lease-not-held");
    ada.does(&["type", "a"]);
    tapped.got("a");
}

#[test]
fn a_viewer_gives_control_to_nobody() {
    let tapped = Tapped::shared(&[]);
    let (bob, cleo) = (tapped.joined_by("bob"), tapped.joined_by("cleo"));
    bob.finds("cleo", "here", SOON);

    for verb in [
        &["control", "grant", "cleo"][..],
        &["control", "take"],
        &["control", "lock"],
    ] {
        let ran = bob.run(verb);
        assert_eq!(ran.code, 4, "{verb:?}: {}{}", ran.out, ran.err);
    }

    cleo.refused(&["type", "x"], 4, "lease-not-held");
}

#[test]
fn with_control_auto_an_editors_first_key_gets_the_free_lease() {
    let tapped = Tapped::shared(&["--role", "editor", "--accept", "--control", "auto"]);
    let (bob, cleo) = (tapped.joined_by("bob"), tapped.joined_by("cleo"));

    bob.does(&["type", "b"]);
    bob.finds_control("bob has control");
    let ran = cleo.run(&["type", "c", "--timeout", "2s"]);

    assert_ne!(ran.code, 0, "{}", ran.err);
    tapped.got("b");
    bob.does(&["control", "release"]);
    cleo.finds_control("nobody has control");
    cleo.does(&["type", "c"]);
    tapped.got("bc");
}

#[test]
fn with_control_auto_a_viewer_still_gets_nothing_by_typing() {
    let tapped = Tapped::shared(&["--control", "auto"]);
    let bob = tapped.joined_by("bob");

    let ran = bob.run(&["type", "x", "--timeout", "3s"]);

    assert_eq!(ran.code, 4, "{}", ran.err);
    tapped.ada.does(&["type", "a"]);
    tapped.got("a");
}

#[test]
fn a_lease_dies_with_its_holders_departure() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");

    bob.does(&["leave"]);

    ada.finds_control("nobody has control");
}

#[test]
fn a_whole_megabyte_is_typed_in_order_and_once() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    let text: String = (0..60_000).map(|n| format!("{n} ")).collect();

    let ran = bob.run_with(
        &["type", "-", "--timeout", "60s", "--json"],
        text.as_bytes(),
    );

    assert_eq!(ran.code, 0, "{}", ran.err);
    let answer: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["bytes"], text.len());
    tapped.got(&text);
}

#[test]
fn who_has_control_is_told_with_the_time_that_is_left() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));

    let granted = ada.run(&["control", "grant", "bob", "--for", "10m"]);

    assert!(
        granted
            .err
            .starts_with("bob has control, for another 9 min ")
            || granted
                .err
                .starts_with("bob has control, for another 10 min"),
        "{}",
        granted.err
    );
    bob.finds_control("bob has control");
    let status = ada.does(&["control", "status"]);
    assert!(status.contains("for another 9 min "), "{status}");
}

#[test]
fn giving_back_or_asking_for_control_says_what_is_so() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    let says = |words: &[&str]| {
        let ran = bob.run(words);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.err
    };

    assert!(says(&["control", "release"]).contains("you do not have control"));
    assert!(says(&["control", "request"]).contains("the host is asked"));
    ada.finds_asking("bob");
    assert!(says(&["control", "release"]).contains("withdrawn"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    assert!(says(&["control", "request"]).contains("you have control already"));
    assert!(says(&["control", "request", "--wait"]).contains("you have control already"));
    assert_eq!(says(&["control", "release"]), "control is given back\n");
}

#[test]
fn a_lock_is_told_by_name_and_with_how_it_ends() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    ada.does(&["control", "lock"]);
    bob.finds_control("nobody has control; input is locked");

    let host = ada.run(&["control", "grant", "bob"]);
    let guest = bob.run(&["control", "request"]);

    assert_eq!(
        host.is_refusal(4, "lease-not-held"),
        "input is locked by you"
    );
    let by = format!("input is locked by ada (key {})", &ada.member()[..10]);
    assert_eq!(guest.is_refusal(4, "lease-not-held"), by);
    for ran in [host, guest] {
        assert!(ran.err.contains("control unlock"), "{}", ran.err);
    }
}

#[test]
fn keys_that_were_not_confirmed_in_time_are_said_to_be_perhaps_written() {
    let tapped = Tapped::shared(&[]);
    let (ada, bob) = (&tapped.ada, tapped.joined_by("bob"));
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "--enter"]);

    kill(ada.pid(), Signal::SIGSTOP).unwrap();
    let ran = bob.run(&["type", "x", "--timeout", "1s"]);
    kill(ada.pid(), Signal::SIGCONT).unwrap();

    ran.is_refusal(5, "timed-out");
    assert!(ran.err.contains("may have been written"), "{}", ran.err);
}
