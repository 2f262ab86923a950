//! Two machines on one network without a way out: joined by multicast DNS alone, by addresses alone, and what
//! somebody between them reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::harness::{Machine, Node, finish};
use crate::need;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Two computers, each a network namespace and a run folder, on one bridge; no default route.
pub(crate) struct Lan {
    name: String,
    pub(crate) ada: Machine,
    pub(crate) bob: Machine,
}

impl Lan {
    pub(crate) fn new() -> Self {
        need(&["ip"]);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("cp{}n{number}", std::process::id());
        let lan = Self {
            name,
            ada: Machine::new(),
            bob: Machine::new(),
        };
        for space in ["s", "a", "b"] {
            lan.ip(&format!("netns add {}", lan.space(space)));
        }
        let switch = lan.space("s");
        lan.ip(&format!("-n {switch} link add bridge type bridge"));
        lan.ip(&format!("-n {switch} link set bridge up"));
        for (space, address) in [("a", "10.77.0.1/24"), ("b", "10.77.0.2/24")] {
            let there = lan.space(space);
            lan.ip(&format!("-n {there} link set lo up"));
            lan.ip(&format!(
                "-n {there} link add eth0 type veth peer name port{space} netns {switch}"
            ));
            lan.ip(&format!(
                "-n {switch} link set port{space} master bridge up"
            ));
            lan.ip(&format!("-n {there} addr add {address} dev eth0"));
            lan.ip(&format!("-n {there} link set eth0 up"));
        }
        lan
    }

    /// The namespace of `a`, `b` or the switch between them, `s`.
    pub(crate) fn space(&self, which: &str) -> String {
        format!("{}{which}", self.name)
    }

    /// Runs `ip` with these words.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) {
        let mut command = std::process::Command::new("ip");
        command.args(words.split(' '));
        let ran = finish(command, b"");
        assert_eq!(ran.code, 0, "ip {words}: {}", ran.err);
    }

    fn share(&self, flags: &[&str]) -> Node {
        let before = ["ip", "netns", "exec", &self.space("a")];
        let ada = self.ada.user("ada").started_by(&before);
        let words = [
            "share",
            "--headless",
            "--json",
            "--name",
            "ada",
            "--title",
            "quagmire-title",
        ];
        let command = ["--", "sh", "-c", "echo quagmire-screen; cat"];
        ada.starts(&[&words[..], flags, &command].concat())
    }

    fn join(&self, ticket: &str, flags: &[&str]) -> (Node, Duration) {
        let before = ["ip", "netns", "exec", &self.space("b")];
        let bob = self.bob.user("bartholomew").started_by(&before);
        let words = [
            "join",
            "--headless",
            "--json",
            "--name",
            "bartholomew",
            "--timeout",
            "10s",
        ];
        let begun = Instant::now();
        let node = bob.starts(&[&words[..], flags, &[ticket]].concat());
        (node, begun.elapsed())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for space in ["a", "b", "s"] {
            let mut command = std::process::Command::new("ip");
            command.args(["netns", "del", &self.space(space)]);
            // Whatever is left goes with the machine that runs the tests.
            drop(command.output());
        }
    }
}

#[test]
fn multicast_dns_alone_leads_to_the_host() {
    let lan = Lan::new();
    let ada = lan.share(&["--no-addrs"]);
    let ticket = ada.ticket();
    let inspected = ada.asks(
        "POST",
        "/api/v1/tickets/inspect",
        &serde_json::json!({"ticket": ticket}),
    );
    assert_eq!(inspected.1["addresses"], serde_json::json!([]));

    let (bob, took) = lan.join(&ticket, &[]);

    bob.sees("quagmire-screen");
    println!("joined by multicast DNS alone in {} ms", took.as_millis());
}

#[test]
fn a_session_nearby_does_not_change_why_a_join_failed() {
    let lan = Lan::new();
    let mut gone = lan.share(&[]);
    gone.is_killed();
    let nearby = lan.share(&[]);
    let before = ["ip", "netns", "exec", &lan.space("b")];
    let bob = lan.bob.user("bartholomew").started_by(&before);

    let words = ["join", "--headless", "--timeout", "4s", &gone.ticket()];
    bob.refused(&words, 5, "peer-unreachable");

    let met = bob.spawns(&["join", "--headless", "--json", &nearby.ticket()]);
    nearby.finds("bartholomew", "here", Duration::from_secs(10));
    drop(met);
}

#[test]
fn addresses_alone_lead_to_the_host() {
    let lan = Lan::new();
    let ada = lan.share(&["--no-mdns"]);

    let (bob, took) = lan.join(&ada.ticket(), &["--no-mdns"]);

    bob.sees("quagmire-screen");
    println!("joined by addresses alone in {} ms", took.as_millis());
    let who = bob.json(&["who"]);
    let ada = crate::harness::items(&who)
        .iter()
        .find(|one| one["name"] == "ada")
        .unwrap();
    assert_eq!(ada["path"], "lan", "{ada}");
}

#[test]
fn who_reads_the_wire_finds_no_word_name_or_title() {
    let lan = Lan::new();
    let wire = Wire::tapped(&lan.space("a"));
    let ada = lan.share(&[]);
    let (bob, _) = lan.join(&ada.ticket(), &[]);
    bob.says("quagmire-chat");
    ada.hears("quagmire-chat");
    ada.does(&["control", "grant", "bartholomew"]);
    bob.finds_control("bartholomew has control");
    bob.does(&["type", "quagmire-keys\n"]);
    bob.sees("quagmire-keys");
    drop(bob);
    drop(ada);

    let heard = wire.heard();

    assert!(
        heard.len() > 10_000,
        "only {} bytes were heard",
        heard.len()
    );
    for word in ["quagmire", "bartholomew"] {
        let found = heard
            .windows(word.len())
            .any(|window| window == word.as_bytes());
        assert!(!found, "{word} was on the wire");
    }
}

#[test]
fn a_cable_that_was_out_for_a_while_hurts_nobody() {
    let lan = Lan::new();
    let ada = lan.share(&[]);
    let (bob, _) = lan.join(&ada.ticket(), &[]);
    ada.finds("bartholomew", "here", Duration::from_secs(10));

    lan.ip(&format!("-n {} link set porta down", lan.space("s")));
    ada.finds("bartholomew", "gone", Duration::from_secs(15));
    bob.says("said while the cable was out");
    ada.says("so was this");
    lan.ip(&format!("-n {} link set porta up", lan.space("s")));

    crate::harness::eventually("both have heard", Duration::from_secs(30), || {
        let (a, b) = (ada.chat(), bob.chat());
        if a.len() == 2 && a == b {
            Ok(())
        } else {
            Err(format!("{a:?} {b:?}"))
        }
    });
}

/// Everything that passes an interface, as bytes.
struct Wire {
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    fn tapped(space: &str) -> Self {
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let (into, space) = (Arc::clone(&heard), PathBuf::from("/run/netns").join(space));
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // A namespace belongs to a thread.
            let space = File::open(space).unwrap();
            setns(space.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            let all = SockProtocol::EthAll;
            let tap = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), all).unwrap();
            ready.send(()).unwrap();
            let mut tap = File::from(tap);
            let mut packet = vec![0; 70_000];
            while let Ok(count) = tap.read(&mut packet) {
                into.lock().unwrap().extend_from_slice(&packet[..count]);
            }
        });
        is_ready.recv().unwrap();
        Self { heard }
    }

    fn heard(&self) -> Vec<u8> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

#[test]
fn the_tap_hears_what_is_said_in_clear() {
    let lan = Lan::new();
    let wire = Wire::tapped(&lan.space("a"));

    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", &lan.space("b"), "sh", "-c"]);
    command.arg("exec 3>/dev/udp/10.77.0.1/9; echo canary-in-clear >&3");
    let ran = finish(command, b"");
    let bash = if ran.code == 0 { ran } else { in_bash(&lan) };
    assert_eq!(bash.code, 0, "{}", bash.err);

    crate::harness::eventually("the canary is heard", Duration::from_secs(5), || {
        let heard = wire.heard.lock().unwrap();
        let words: BTreeSet<bool> = heard
            .windows(15)
            .map(|window| window == b"canary-in-clear")
            .collect();
        words
            .contains(&true)
            .then_some(())
            .ok_or_else(|| format!("{} bytes", heard.len()))
    });
}

fn in_bash(lan: &Lan) -> crate::harness::Ran {
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", &lan.space("b"), "bash", "-c"]);
    command.arg("exec 3>/dev/udp/10.77.0.1/9; echo canary-in-clear >&3");
    finish(command, b"")
}
