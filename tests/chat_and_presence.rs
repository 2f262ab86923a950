//! Chat and presence, both ways and through members: what is said reaches everybody once, in one order, and is
//! shown as inert text.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Machine, SOON, eventually, items};

#[test]
fn what_is_said_reaches_everybody_in_one_order() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    let cleo = machine.join("cleo", &ada.ticket());

    ada.says("one");
    bob.hears("one");
    bob.says("two");
    cleo.hears("two");
    cleo.says("three");

    for member in [&ada, &bob, &cleo] {
        member.hears("two");
        member.hears("three");
        let said = [("ada", "one"), ("bob", "two"), ("cleo", "three")];
        let said = said.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(member.chat(), said);
    }
}

#[test]
fn chat_since_lists_all_of_a_long_talk_and_without_it_the_newest() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    for number in 0..207 {
        let said = json!({"text": format!("number {number}")});
        assert_eq!(ada.asks("POST", "/api/v1/messages", &said).0, 201);
    }

    let all = ada.does(&["chat", "--since", "1h"]);
    assert_eq!(all.lines().count(), 207);
    assert!(all.lines().next().unwrap().ends_with(" ada: number 0"));
    let newest = ada.does(&["chat"]);
    assert_eq!(newest.lines().count(), 200);
    assert!(newest.lines().next().unwrap().ends_with(" ada: number 7"));
}

#[test]
fn a_message_is_saved_with_nobody_connected() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    ada.says("alone");
    let bob = machine.join("bob", &ada.ticket());

    bob.hears("alone");
}

#[test]
fn chat_is_read_from_stdin_only_for_a_dash() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let said = ada.run_with(&["chat", "-"], b"from a pipe\n");
    let listed = ada.run_with(&["chat"], b"not this");

    assert_eq!(said.code, 0, "{}", said.err);
    assert!(listed.out.contains("ada: from a pipe"), "{}", listed.out);
    assert!(!listed.out.contains("not this"), "{}", listed.out);
}

#[test]
fn following_prints_messages_as_they_come() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    ada.says("before");
    bob.hears("before");

    let words = ["chat", "--follow", "--json"];
    let mut following = bob.spawns(&words);
    let first: Value = serde_json::from_str(&following.line()).unwrap();
    ada.says("while bob follows");
    let second: Value = serde_json::from_str(&following.line()).unwrap();
    drop(following);

    assert_eq!(first["text"], "before");
    assert_eq!(second["text"], "while bob follows");
    assert_eq!(second["from"], ada.ready["member"]);
}

#[test]
fn words_that_would_steer_a_terminal_are_shown_not_obeyed() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--title", "t\u{202e}x"], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    let hostile = "\u{1b}[2J\u{1b}]0;gotcha\u{7}\u{202e}";

    bob.says(hostile);
    ada.hears(hostile);

    for args in [&["chat"][..], &["status"], &["who"], &["list"]] {
        let out = ada.does(args);
        let live = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!out.contains(live), "{args:?}: {out:?}");
    }
}

#[test]
fn a_message_answers_names_and_points() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    ada.finds("bob", "here", SOON);
    bob.sees("");
    let terminal = items(&ada.asks("GET", "/api/v1/terminals", &Value::Null).1)[0]["id"].clone();
    let (status, first) = ada.asks("POST", "/api/v1/messages", &json!({"text": "look"}));
    assert_eq!(status, 201);

    let anchor = json!({"terminal": {"terminal": terminal, "row": 3}});
    let body = json!({"text": "here", "reply": first["id"], "mentions": ["bob"], "anchor": anchor});
    let (status, answer) = ada.asks("POST", "/api/v1/messages", &body);

    assert_eq!(status, 201, "{answer}");
    bob.hears("here");
    let messages = bob.json(&["chat"]);
    let heard = items(&messages).last().unwrap();
    assert_eq!(heard["reply"], first["id"]);
    assert_eq!(heard["mentions"], json!([bob.ready["member"]]));
    assert_eq!(heard["anchor"], anchor);
}

#[test]
fn everybody_finds_everybody_there_with_role_and_path() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    let cleo = machine.join("cleo", &ada.ticket());

    for member in [&ada, &bob, &cleo] {
        for name in ["ada", "bob", "cleo"] {
            eventually(&format!("{} finds {name}", member.name), SOON, || {
                let who = member.who();
                let there = who
                    .iter()
                    .any(|(one, status)| one == name && status != "gone");
                there.then_some(()).ok_or_else(|| format!("{who:?}"))
            });
        }
    }
    eventually("guests are connected to each other", SOON, || {
        let who = cleo.json(&["who"]);
        let bob = items(&who)
            .iter()
            .find(|one| one["name"] == "bob")
            .unwrap()
            .clone();
        (bob["path"] == "direct")
            .then_some(())
            .ok_or_else(|| bob.to_string())
    });
    let who = ada.json(&["who"]);
    let role =
        |name: &str| items(&who).iter().find(|one| one["name"] == name).unwrap()["role"].clone();
    assert_eq!(
        (role("ada"), role("bob")),
        (json!("owner"), json!("viewer"))
    );
    drop(bob);
}

#[test]
fn pointers_and_typing_are_seen_by_others() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    let terminal = items(&ada.asks("GET", "/api/v1/terminals", &Value::Null).1)[0]["id"].clone();

    let cursor = json!({"terminal": terminal, "row": 3, "column": 5});
    let body = json!({"cursor": cursor, "typing": "chat", "attached": true});
    let (status, answer) = bob.asks("PUT", "/api/v1/presence", &body);

    assert_eq!(status, 200, "{answer}");
    eventually("ada sees bob's pointer", SOON, || {
        let who = ada.json(&["who"]);
        let bob = items(&who)
            .iter()
            .find(|one| one["name"] == "bob")
            .unwrap()
            .clone();
        let seen = bob["cursor"] == cursor && bob["typing"] == "chat";
        seen.then_some(()).ok_or_else(|| bob.to_string())
    });
}

#[test]
fn who_goes_offline_is_gone_at_once_and_who_is_killed_within_ten_seconds() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    let mut cleo = machine.join("cleo", &ada.ticket());
    for name in ["bob", "cleo"] {
        eventually("both are there", SOON, || {
            let who = ada.who();
            let there = who.iter().any(|(one, is)| one == name && is != "gone");
            there.then_some(()).ok_or_else(|| format!("{who:?}"))
        });
    }

    assert_eq!(bob.gets(Signal::SIGTERM), 143);
    ada.finds("bob", "gone", Duration::from_secs(3));
    cleo.is_killed();

    ada.finds("cleo", "gone", Duration::from_secs(10));
}

#[test]
fn limits_are_told_in_words() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let long = "x".repeat(64 * 1024);
    let ran = ada.run_with(&["chat", "-"], long.as_bytes());

    ran.is_refusal(4, "limit-exceeded");
    assert_eq!(ada.chat(), []);
}
