//! A state folder that was copied: the copy put back after more was said, or running beside the original.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Machine, Node, User, eventually};

/// How long it may take until one of two has gone on by itself.
const GOES_ON: Duration = Duration::from_secs(60);

fn texts(user: &User) -> Vec<String> {
    user.chat().into_iter().map(|(_, text)| text).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn put_back(user: &User, copied: &Path) {
    std::fs::remove_dir_all(user.state()).unwrap();
    copy(copied, &user.state());
}

/// Everybody has the same messages in the same order, each of these texts once.
fn all_agree(nodes: &[&Node], expected: &[&str]) {
    eventually("all have each message once", GOES_ON, || {
        let all: Vec<Vec<String>> = nodes.iter().map(|node| texts(node)).collect();
        let once = |text: &&str| all[0].iter().filter(|said| said == text).count() == 1;
        let good = all.iter().all(|said| *said == all[0])
            && all[0].len() == expected.len()
            && expected.iter().all(once);
        good.then_some(()).ok_or_else(|| format!("{all:?}"))
    });
}

fn notices(user: &User) -> String {
    user.json(&["status"])["session"]["notices"].to_string()
}

#[test]
fn an_old_folder_that_is_put_back_loses_no_message_and_doubles_none() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    let cleo = machine.join("cleo", &ada.ticket());
    bob.says("before the copy");
    cleo.hears("before the copy");
    assert_eq!(bob.gets(Signal::SIGTERM), 143);
    let copied = machine.path().join("copy");
    copy(&bob.user.state(), &copied);
    let mut bob = bob.user.clone().resume();
    bob.says("after the copy");
    bob.says("and more");
    ada.hears("and more");
    cleo.hears("and more");
    bob.is_killed();
    ada.says("while bob is away");

    put_back(&bob.user, &copied);
    let bob = bob.user.clone().resume();
    bob.says("with the old folder");

    cleo.says("to bob");
    let expected = [
        "before the copy",
        "after the copy",
        "and more",
        "while bob is away",
        "with the old folder",
        "to bob",
    ];
    all_agree(&[&ada, &bob, &cleo], &expected);
    assert!(!notices(&ada).contains("two histories"));
}

#[test]
fn a_hosts_old_folder_is_put_back_and_its_terminal_is_seen_again() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["sh", "-c", "echo ada\\'s shell; cat"]);
    let bob = machine.join("bob", &ada.ticket());
    ada.says("before the copy");
    bob.hears("before the copy");
    assert_eq!(ada.gets(Signal::SIGTERM), 143);
    let copied = machine.path().join("copy");
    copy(&ada.user.state(), &copied);
    let mut ada = ada.user.clone().resume();
    ada.says("after the copy");
    bob.hears("after the copy");
    ada.is_killed();

    put_back(&ada.user, &copied);
    let ada = ada.user.clone().resume();
    ada.says("with the old folder");

    let expected = ["before the copy", "after the copy", "with the old folder"];
    all_agree(&[&ada, &bob], &expected);
    bob.sees("ada's shell");
}

#[test]
fn a_folder_that_runs_twice_writes_nothing_until_one_of_the_two_has_ended() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    bob.says("before the copy");
    ada.hears("before the copy");
    assert_eq!(bob.gets(Signal::SIGTERM), 143);
    let twin = machine.beside("bob");
    copy(&bob.user.state(), &twin.state());
    let mut bob = bob.user.clone().resume();

    let twin = twin.resume();

    for one in [&bob, &twin] {
        eventually("it stops writing", GOES_ON, || {
            let ran = one.run(&["chat", "x"]);
            let refused = ran.err.contains("error[second-instance]") && ran.code == 8;
            refused.then_some(()).ok_or_else(|| format!("{ran:?}"))
        });
        assert!(notices(one).contains("another program"));
    }
    bob.is_killed();
    eventually("the other goes on", GOES_ON, || {
        let ran = twin.run(&["chat", "alone again"]);
        (ran.code == 0)
            .then_some(())
            .ok_or_else(|| format!("{ran:?}"))
    });
    ada.hears("alone again");
    ada.says("to the twin");
    twin.hears("to the twin");
    // Whatever each of them said before it knew is there once.
    let said = texts(&ada);
    for text in &said {
        let same = said.iter().filter(|other| *other == text).count();
        assert!(same == 1 || text == "x", "{said:?}");
    }
    eventually("both agree", GOES_ON, || {
        let (a, b) = (texts(&ada), texts(&twin));
        (a == b).then_some(()).ok_or_else(|| format!("{a:?} {b:?}"))
    });
    assert!(!notices(&ada).contains("two histories"));
}
