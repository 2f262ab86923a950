//! Nodes that stand still for a while, are killed and started again, or all come back at once: the others go on
//! meanwhile, and afterwards everything is as if nothing had been, a moment later.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use collab_p2p::engine::limits::{LEASE_ORPHAN_S, PEER_DEAD};

use crate::harness::wire::{How, Wire};
use crate::harness::{Machine, Node, SOON, User, eventually, same_screen};

/// Longer than it takes to be given up.
const STANDSTILL: Duration = Duration::from_secs(5);

/// The only address of a node that is to be reached by TCP alone.
const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// A terminal that shows and writes down each byte of its input.
fn tapped(machine: &Machine) -> (Node, PathBuf) {
    let tap = machine.path().join("tap");
    let script = format!(
        "stty raw -echo; printf 'ready '; exec tee {}",
        tap.display()
    );
    let ada = machine.share("ada", &[], &["sh", "-c", &script]);
    ada.sees("ready");
    (ada, tap)
}

#[track_caller]
fn got(tap: &PathBuf, bytes: &str) {
    eventually(&format!("the shell got {bytes:?}"), SOON, || {
        let got = String::from_utf8(std::fs::read(tap).unwrap_or_default()).unwrap();
        if got == bytes { Ok(()) } else { Err(got) }
    });
}

/// The highest number that a screen of `line NUMBER`s shows.
fn newest(user: &User) -> u64 {
    let screen = user.screen();
    let numbers = screen.lines().filter_map(|line| line.strip_prefix("line "));
    let numbers = numbers.filter_map(|number| number.trim().parse().ok());
    numbers.max().unwrap_or(0)
}

/// How many TCP connections stand at these ports.
fn standing(ports: &BTreeSet<u16>) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_one = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = words.get(1).and_then(|local| local.rsplit(':').next());
        let port = port.and_then(|port| u16::from_str_radix(port, 16).ok());
        words.get(3) == Some(&"01") && port.is_some_and(|port| ports.contains(&port))
    };
    table.lines().filter(is_one).count()
}

#[test]
fn a_stopped_viewer_harms_nobody_and_is_current_within_a_moment_of_going_on() {
    let machine = Machine::new();
    let flood = "printf ready; read go; i=0; while :; do i=$((i+1)); echo \"line $i\"; done";
    let ada = machine.share("ada", &[], &["sh", "-c", flood]);
    let (bob, cleo) = (
        machine.join("bob", &ada.ticket()),
        machine.join("cleo", &ada.ticket()),
    );
    ada.does(&["type", "go", "--enter"]);
    bob.sees("line ");

    bob.is_stopped();
    let stopped = Instant::now();
    let mut seen = newest(&cleo);
    while stopped.elapsed() < STANDSTILL {
        std::thread::sleep(Duration::from_millis(300));
        let now = newest(&cleo);
        assert!(
            now > seen,
            "the other viewer's screen stands still at {seen}"
        );
        seen = now;
    }
    cleo.says("is bob away?");
    ada.hears("is bob away?");
    ada.finds("bob", "gone", SOON);

    let current = newest(&ada);
    bob.goes_on();
    let begun = Instant::now();
    eventually("bob is current", SOON, || {
        let shown = newest(&bob);
        (shown >= current)
            .then_some(())
            .ok_or_else(|| format!("{shown} of {current}"))
    });
    println!("current {:?} after it went on", begun.elapsed());
    bob.hears("is bob away?");
}

#[test]
fn keys_that_a_stopped_host_did_not_take_come_once_when_it_goes_on() {
    let machine = Machine::new();
    let (ada, tap) = tapped(&machine);
    let (bob, cleo) = (
        machine.join("bob", &ada.ticket()),
        machine.join("cleo", &ada.ticket()),
    );
    bob.finds("cleo", "here", SOON);
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "before "]);

    ada.is_stopped();
    let typed = std::thread::scope(|scope| {
        let typing = scope.spawn(|| {
            bob.does(&["type", "held back ", "--timeout", "40s"]);
            Instant::now()
        });
        cleo.says("the host sleeps");
        bob.hears("the host sleeps");
        bob.finds("ada", "gone", SOON);
        std::thread::sleep(Duration::from_secs(2));
        ada.goes_on();
        let begun = Instant::now();
        typing.join().unwrap() - begun
    });

    println!("held back keys came {typed:?} after the host went on");
    bob.finds_control("bob has control");
    bob.does(&["type", "after"]);
    got(&tap, "before held back after");
    ada.hears("the host sleeps");
    same_screen(&[&ada, &bob, &cleo]);
}

#[test]
fn a_stopped_member_catches_up_in_a_moment() {
    let machine = Machine::new();
    let (ada, tap) = tapped(&machine);
    let (bob, cleo) = (
        machine.join("bob", &ada.ticket()),
        machine.join("cleo", &ada.ticket()),
    );
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");

    cleo.is_stopped();
    for number in 0..10 {
        bob.does(&["type", &format!("{number}")]);
        bob.says(&format!("word {number}"));
    }
    ada.hears("word 9");
    ada.finds("cleo", "gone", SOON);
    cleo.goes_on();
    let begun = Instant::now();
    cleo.hears("word 9");

    println!(
        "all words were there {:?} after it went on",
        begun.elapsed()
    );
    assert_eq!(cleo.chat(), ada.chat());
    got(&tap, "0123456789");
    same_screen(&[&ada, &bob, &cleo]);
}

#[test]
fn a_holder_who_stands_still_too_long_has_lost_control() {
    let machine = Machine::new();
    let (ada, tap) = tapped(&machine);
    let bob = machine.join("bob", &ada.ticket());
    ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "b"]);

    bob.is_stopped();
    ada.finds("bob", "gone", SOON);
    ada.finds_control("bob has control");
    let within = Duration::from_secs(LEASE_ORPHAN_S) + SOON;
    eventually("the lease ends", within, || {
        let status = ada.does(&["control", "status"]);
        let ended = status.starts_with("nobody has control");
        ended.then_some(()).ok_or(status)
    });
    bob.goes_on();

    bob.finds("ada", "here", SOON);
    bob.refused(&["type", "late"], 4, "lease-not-held");
    ada.does(&["type", "a"]);
    got(&tap, "ba");
}

#[test]
fn who_is_killed_and_comes_back_at_once_goes_on_in_a_moment() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());

    for round in 0..3 {
        bob.is_killed();
        let begun = Instant::now();
        bob = bob.user.clone().resume();
        bob.says(&format!("bob is back {round}"));
        ada.hears(&format!("bob is back {round}"));
        println!("the guest was back after {:?}", begun.elapsed());

        ada.is_killed();
        let begun = Instant::now();
        ada = ada.user.clone().resume();
        ada.says(&format!("ada is back {round}"));
        bob.hears(&format!("ada is back {round}"));
        println!("the host was back after {:?}", begun.elapsed());
    }

    assert_eq!(ada.chat().len(), 6);
    assert_eq!(ada.chat(), bob.chat());
    same_screen(&[&ada, &bob]);
}

#[test]
fn who_comes_back_while_its_old_connection_still_stands_is_believed_at_once() {
    let (here, there) = (Machine::new(), Machine::new());
    let ada = here.share("ada", &["--listen", LOOPBACK, "--no-addrs"], &["cat"]);
    let port = port_of(&ada);
    let wire = Wire::to(port, []);
    let addr = format!("/ip4/127.0.0.1/tcp/{}", wire.port());
    let user = there.user("bob").listens(LOOPBACK);
    let mut bob = user.join(&ada.ticket(), &["--addr", &addr]);
    ada.finds("bob", "here", SOON);

    // Nobody tells ada that bob's process ended: the wire keeps her side of the connection open.
    wire.cut(How::Silenced);
    let silent = Instant::now();
    bob.is_killed();
    let bob = bob.user.clone().moves_to(&here).resume();
    bob.says("back");
    ada.hears("back");
    ada.says("welcome");
    bob.hears("welcome");

    println!(
        "words went both ways {:?} after the silence began",
        silent.elapsed()
    );
    assert_eq!(
        ada.events("peer.disconnected").len(),
        0,
        "the new connection took over"
    );
    ada.finds("bob", "here", SOON);
    eventually("the stale connection is gone", PEER_DEAD + SOON, || {
        let count = standing(&[port, port_of(&bob)].into());
        (count == 1).then_some(()).ok_or_else(|| count.to_string())
    });
}

#[test]
fn members_who_all_come_back_at_once_end_with_one_connection_for_each_two() {
    let machine = Machine::new();
    let ada = machine.user("ada").listens(LOOPBACK).share(&[], &["cat"]);
    let ticket = ada.ticket();
    let join = |name: &str| machine.user(name).listens(LOOPBACK).join(&ticket, &[]);
    let (bob, cleo) = (join("bob"), join("cleo"));
    bob.finds("cleo", "here", SOON);
    let mut nodes = vec![ada, bob, cleo];

    for round in 0..2 {
        // From now on each knows where the others are.
        let users: Vec<User> = nodes
            .iter()
            .map(|node| {
                let addr = format!("/ip4/127.0.0.1/tcp/{}", port_of(node));
                node.user.clone().listens(&addr)
            })
            .collect();
        let ports: BTreeSet<u16> = nodes.iter().map(port_of).collect();
        nodes.iter_mut().for_each(Node::is_killed);
        nodes = std::thread::scope(|scope| {
            let starting = users.iter().map(|user| scope.spawn(|| user.resume()));
            let starting: Vec<_> = starting.collect();
            starting
                .into_iter()
                .map(|one| one.join().unwrap())
                .collect()
        });

        for node in &nodes {
            node.says(&format!("{} {round}", node.name));
        }
        for (hearer, speaker) in nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b))) {
            hearer.hears(&format!("{} {round}", speaker.name));
        }
        eventually("three pairs have one connection each", SOON, || {
            let count = standing(&ports);
            (count == 3).then_some(()).ok_or_else(|| count.to_string())
        });
    }
}

/// The TCP port at which a node listens.
fn port_of(node: &Node) -> u16 {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    let names = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let sockets: BTreeSet<String> = names.map(|name| name.display().to_string()).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listens = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let its = sockets.contains(&format!("socket:[{}]", words.get(9)?));
        let port = words.get(1)?.rsplit(':').next()?;
        (its && words.get(3) == Some(&"0A")).then(|| u16::from_str_radix(port, 16).unwrap())
    };
    table.lines().find_map(listens).unwrap()
}
