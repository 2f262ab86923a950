//! Machines on bad days: no room to write, folders that go away, ports that are taken. Nothing that was saved is lost,
//! the person is told, and the terminal goes on.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use crate::harness::{Machine, Node, SOON, User, eventually};

fn texts(user: &User) -> Vec<String> {
    user.chat().into_iter().map(|(_, text)| text).collect()
}

/// Says long things until one is refused. Yields those that were confirmed, and the refusal.
#[track_caller]
fn says_until_refused(node: &Node) -> (Vec<String>, String) {
    let mut confirmed = Vec::new();
    for n in 0..400 {
        let text = format!("{n}{}", " long".repeat(2_400));
        let ran = node.run(&["chat", &text]);
        if ran.code == 0 {
            confirmed.push(text);
            continue;
        }
        assert_eq!(ran.code, 8, "{}", ran.err);
        assert_eq!(ran.out, "", "a refused message has no id");
        return (confirmed, ran.err);
    }
    panic!("no end of room");
}

/// Both type into the terminal at `ada`, and both see it.
#[track_caller]
fn the_terminal_goes_on(ada: &Node, bob: &Node, mark: &str) {
    ada.does(&["type", &format!("ada {mark}"), "--enter"]);
    bob.sees(&format!("ada {mark}"));
    ada.does(&["control", "grant", "bob"]);
    bob.does(&["type", &format!("bob {mark}"), "--enter"]);
    ada.sees(&format!("bob {mark}"));
    ada.does(&["control", "revoke"]);
}

fn unsaved(node: &Node) -> serde_json::Value {
    node.json(&["status"])["session"]["unsaved"]["code"].clone()
}

#[test]
fn without_room_chat_is_refused_the_terminal_goes_on_and_all_that_was_confirmed_is_there_later() {
    let machine = Machine::new();
    let limit = ["sh", "-c", "ulimit -f 3000 && exec \"$@\"", "sh"];
    let ada = machine.user("ada").started_by(&limit);
    let mut ada = ada.share(&[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    the_terminal_goes_on(&ada, &bob, "before");

    let (confirmed, why) = says_until_refused(&ada);

    assert!(why.starts_with("error[disk-full]: "), "{why}");
    assert!(why.contains("not saved"), "{why}");
    the_terminal_goes_on(&ada, &bob, "without room");
    assert_eq!(unsaved(&ada), "disk-full");
    let status = ada.does(&["status"]);
    assert!(
        status.contains("nothing is saved: the disk is full"),
        "{status}"
    );
    ada.refused(&["chat", "once more"], 8, "disk-full");
    ada.refused(&["invite", "create"], 8, "disk-full");
    // Who cannot save hands nothing on: what was not told by then waits until there is room.
    bob.is_killed();
    let bob = bob.user.clone().resume();
    bob.says("bob is back");
    bob.sees("without room");
    the_terminal_goes_on(&ada, &bob, "with who came back");

    ada.is_killed();
    let ada = ada.user.clone().started_by(&[]).resume();
    ada.hears("bob is back");
    let found = texts(&ada);
    let lost: Vec<&String> = confirmed
        .iter()
        .filter(|text| !found.contains(text))
        .collect();
    let front = |text: &String| text.chars().take(12).collect::<String>();
    let lost: Vec<String> = lost.into_iter().map(front).collect();
    assert!(lost.is_empty(), "of {} are lost: {lost:?}", confirmed.len());
    assert!(unsaved(&ada).is_null());
    ada.says("there is room");
    bob.hears("there is room");
    assert_eq!(texts(&bob), texts(&ada));
}

#[test]
fn a_membership_whose_ports_are_taken_moves_and_is_found_all_the_same() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    bob.finds("ada", "here", SOON);
    let ports = |node: &Node| -> Vec<u16> {
        let listen = node.json(&["status"])["network"]["listen"].clone();
        let v4 = |addr: &&serde_json::Value| addr.as_str().unwrap().starts_with("/ip4/");
        let port = |addr: &serde_json::Value| {
            let parts: Vec<String> = addr
                .as_str()
                .unwrap()
                .split('/')
                .map(str::to_owned)
                .collect();
            parts[4].parse().unwrap()
        };
        listen
            .as_array()
            .unwrap()
            .iter()
            .filter(v4)
            .map(port)
            .collect()
    };
    let before = ports(&ada);
    ada.is_killed();
    let mut squatters = Vec::new();
    for port in &before {
        let taken = (
            TcpListener::bind(("0.0.0.0", *port)),
            UdpSocket::bind(("0.0.0.0", *port)),
        );
        squatters.push(taken);
    }

    let ada = ada.user.clone().resume();

    ada.says("on other ports");
    bob.hears("on other ports");
    assert!(
        ports(&ada).iter().all(|port| !before.contains(port)),
        "{before:?}"
    );
    drop(squatters);
}

#[test]
fn nothing_is_called_saved_once_the_folder_is_gone() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    ada.says("saved");
    bob.hears("saved");

    std::fs::remove_dir_all(ada.user.state().join("collab-p2p/sessions")).unwrap();

    ada.refused(&["chat", "into the void"], 8, "store-failed");
    assert_eq!(unsaved(&ada), "store-failed");
    the_terminal_goes_on(&ada, &bob, "without a folder");
    bob.says("alone with it");
    assert_eq!(texts(&bob), ["saved", "alone with it"]);
}

#[test]
fn what_chat_confirms_while_a_node_is_killed_again_and_again_is_there() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let mut confirmed: Vec<String> = Vec::new();

    for round in 0..8_u64 {
        let user = ada.user.clone();
        let talk = std::thread::spawn(move || {
            let say = |n: u64| format!("round {round} word {n}");
            (0..)
                .map(say)
                .take_while(|text| user.run(&["chat", text]).code == 0)
                .collect::<Vec<String>>()
        });
        let first = format!("round {round} word 0");
        eventually("something is said", SOON, || {
            let said = texts(&ada);
            let found = said.contains(&first);
            if found {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        });
        std::thread::sleep(Duration::from_millis(13 * round));
        ada.is_killed();
        confirmed.extend(talk.join().unwrap());
        ada = ada.user.clone().resume();
        let found = texts(&ada);
        for text in &confirmed {
            assert!(found.contains(text), "{text} in {found:?}");
        }
    }

    assert!(confirmed.len() >= 8, "{confirmed:?}");
}
