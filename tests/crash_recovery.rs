//! Anyone may crash and come back: what was said is kept, missed things are caught up, and the session goes on
//! without its owner. All on one machine without multicast DNS: one run folder, a state folder each.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::harness::{Machine, Node, SOON, User, code, eventually};

fn texts(user: &User) -> Vec<String> {
    user.chat().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_killed_guest_resumes_with_all_it_had_said_and_missed() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the screen; cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    for n in 0..20 {
        bob.says(&format!("bob {n}"));
    }
    ada.hears("bob 19");

    bob.is_killed();
    ada.says("while bob is away");
    let bob = bob.user.clone().resume();

    assert_eq!(bob.ready["role"], "viewer");
    bob.hears("while bob is away");
    let mut expected: Vec<String> = (0..20).map(|n| format!("bob {n}")).collect();
    expected.push("while bob is away".to_owned());
    assert_eq!(texts(&bob), expected);
    ada.finds("bob", "here", SOON);
    bob.says("back");
    ada.hears("back");
    bob.sees("the screen");
}

#[test]
fn what_chat_confirmed_survives_a_kill_right_after() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);

    for round in 0..3 {
        ada.says(&format!("round {round}"));
        ada.is_killed();
        ada = ada.user.clone().resume();
    }

    assert_eq!(texts(&ada), ["round 0", "round 1", "round 2"]);
}

#[test]
fn without_its_owner_the_session_goes_on_and_admits() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["sh", "-c", "echo ada\\'s shell; cat"]);
    let ticket = ada.ticket();
    let bob = machine.join("bob", &ticket);
    let cleo = machine.join("cleo", &ticket);
    ada.says("hello from ada");
    bob.hears("hello from ada");
    cleo.hears("hello from ada");

    ada.is_killed();
    bob.finds("ada", "gone", Duration::from_secs(10));
    bob.says("is ada away?");
    cleo.hears("is ada away?");
    cleo.says("yes");
    bob.hears("yes");
    let dora = machine.join("dora", &ticket);
    dora.hears("hello from ada");
    dora.hears("yes");
    dora.says("dora is here");
    bob.hears("dora is here");
    cleo.hears("dora is here");
    let ada = ada.user.clone().resume();

    let all = ["hello from ada", "is ada away?", "yes", "dora is here"];
    for member in [&ada, &bob, &cleo, &dora] {
        member.hears("dora is here");
        assert_eq!(texts(member), all, "{}", member.name);
    }
    // The owner's resume reopens its terminal with the same command.
    for member in [&ada, &bob, &cleo, &dora] {
        member.sees("ada's shell");
    }
    ada.finds("dora", "here", SOON);
    ada.says("ada is back");
    dora.hears("ada is back");
}

#[test]
fn two_who_were_alone_with_their_words_agree_afterwards() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    ada.finds("bob", "here", SOON);
    assert_eq!(bob.gets(Signal::SIGTERM), 143);
    ada.says("ada alone");
    ada.is_killed();

    let bob = bob.user.clone().resume();
    assert_eq!(bob.ready["synced"], false);
    bob.says("bob alone");
    let ada = ada.user.clone().resume();

    ada.hears("bob alone");
    bob.hears("ada alone");
    eventually("both have one order", SOON, || {
        let (a, b) = (texts(&ada), texts(&bob));
        if a == b {
            Ok(())
        } else {
            Err(format!("{a:?} {b:?}"))
        }
    });
}

#[test]
fn an_old_ticket_works_after_the_owner_came_back() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let ticket = ada.ticket();
    ada.is_killed();
    let ada = ada.user.clone().resume();

    let bob = machine.join("bob", &ticket);

    bob.says("hello");
    ada.hears("hello");
}

#[test]
fn a_signal_between_admission_and_ready_takes_the_newcomer_offline() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    for name in ["bob", "cleo", "dora"] {
        let words = ["join", "--headless", "--no-mdns", "--name", name];
        let ticket = ada.ticket();
        let words: Vec<&str> = words.into_iter().chain([ticket.as_str()]).collect();
        let mut joining = machine.user(name).spawns(&words);
        eventually("the newcomer is let in", SOON, || {
            let who = ada.who();
            let here = who.iter().any(|(known, _)| known == name);
            here.then_some(()).ok_or_else(|| format!("{who:?}"))
        });

        // Whoever syncs waits for a host that stands still.
        ada.is_stopped();
        joining.is_sent(Signal::SIGTERM);

        let status = eventually("the newcomer ends", SOON, || {
            let ended = joining.child.try_wait().unwrap();
            ended.ok_or_else(|| "it goes on".to_owned())
        });
        assert_eq!(code(status), 143);
        ada.goes_on();
    }
}

#[test]
fn resume_means_the_most_recent_membership_and_says_when_there_is_none() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    ada.refused(&["resume", "--headless"], 3, "no-session");
    let mut first = ada.share(&["--title", "first"], &["cat"]);
    assert_eq!(first.gets(Signal::SIGINT), 130);
    let mut second = ada.share(&["--title", "second"], &["cat"]);
    assert_eq!(second.gets(Signal::SIGTERM), 143);

    let running = ada.resume();
    let title = |node: &Node| node.json(&["status"])["session"]["title"].clone();
    assert_eq!(title(&running), "second");
    ada.refused(&["resume", "--headless", "second"], 8, "state-locked");
    drop(running);

    let words = ["resume", "first", "--headless", "--json"];
    let line = ada.spawns(&words).line();
    assert!(
        line.contains(first.ready["session"].as_str().unwrap()),
        "{line}"
    );
}

#[test]
fn leftovers_of_a_dead_process_hinder_nobody() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    ada.is_killed();
    let left = std::path::PathBuf::from(ada.ready["socket"].as_str().unwrap());
    assert!(left.exists());

    ada.user.refused(&["who"], 3, "no-session");
    let again = ada.user.clone().resume();

    assert_eq!(again.ready["socket"], ada.ready["socket"]);
    again.does(&["who"]);
}

#[test]
fn a_verb_on_a_stopped_process_says_so_and_no_other_session_answers_in_its_place() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--title", "quiet"], &["cat"]);
    let pid = ada.pid();
    kill(pid, Signal::SIGSTOP).unwrap();

    let error = ada.user.refused(&["chat", "hello"], 5, "peer-unreachable");
    assert!(error.contains(&format!("process {pid}")), "{error}");
    let other = ada.user.share(&["--title", "loud"], &["cat"]);
    other
        .user
        .refused(&["chat", "hello"], 5, "peer-unreachable");
    other.does(&[
        "-s",
        other.ready["session"].as_str().unwrap(),
        "chat",
        "hello",
    ]);
    kill(pid, Signal::SIGCONT).unwrap();

    other.user.refused(&["chat", "hello"], 6, "which-session");
    ada.does(&["-s", "quiet", "chat", "hello"]);
}
