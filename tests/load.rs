//! Under load: every queue has a bound that holds and is shown, and one who does not read harms nobody.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::harness::{Machine, Node, SOON, eventually, items};

/// What a full window of the slowest link of these tests may take, on a busy machine.
const FLOODED: Duration = Duration::from_secs(60);
/// A host may grow by this much while a viewer stands still; a flood that is kept anywhere is many times more.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

struct Queue {
    name: String,
    peak: u64,
    limit: u64,
    dropped: u64,
}

fn queues(node: &Node) -> Vec<Queue> {
    let status = node.json(&["status"]);
    let number =
        |queue: &Value, key: &str| queue[key].as_u64().unwrap_or_else(|| panic!("{queue}"));
    let shown = items(&status["queues"]).iter().map(|queue| {
        let unit = queue["unit"].as_str().unwrap();
        assert!(["items", "bytes"].contains(&unit), "{queue}");
        assert!(number(queue, "now") <= number(queue, "peak"), "{queue}");
        Queue {
            name: queue["name"].as_str().unwrap().to_owned(),
            peak: number(queue, "peak"),
            limit: number(queue, "limit"),
            dropped: number(queue, "dropped"),
        }
    });
    shown.collect()
}

#[track_caller]
fn stays_within_every_bound(node: &Node) {
    for Queue {
        name, peak, limit, ..
    } in queues(node)
    {
        assert!(peak <= limit, "{}: {name}: {peak} of {limit}", node.name);
    }
}

#[track_caller]
fn queue(node: &Node, name: &str) -> Queue {
    let found = queues(node).into_iter().find(|queue| queue.name == name);
    found.unwrap_or_else(|| panic!("{name} is not shown"))
}

fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.unwrap().split_whitespace().nth(1);
    words.unwrap().parse().unwrap()
}

/// A shell that prints so many numbered lines for each line that it reads.
fn flooding(machine: &Machine, lines: u32) -> Node {
    let script = format!("while read word; do seq 1 {lines}; echo \"over $word\"; done");
    machine.share("ada", &[], &["sh", "-c", &script])
}

#[test]
fn every_queue_is_shown_with_its_limit_and_explained_in_the_guide() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/GUIDE.md"));
    let guide = guide.unwrap();
    let mut names = Vec::new();
    for queue in queues(&ada) {
        assert!(queue.limit > 0, "{}", queue.name);
        let row = format!("| `{}` |", queue.name);
        assert!(guide.contains(&row), "{} is not in the guide", queue.name);
        names.push(queue.name);
    }
    let all = [
        "commands",
        "events",
        "commits",
        "pty_output",
        "pty_input",
        "typed_unconfirmed",
        "lease_input",
        "person_input",
        "pty_given",
        "screen_unacked",
        "log_pools",
        "held_changes",
        "pending_statements",
        "approvals",
        "net_requests",
        "net_facts",
        "admission_out",
        "control_out",
        "input_out",
        "screen_out",
        "stream_backlog",
        "stream_backlog_bytes",
        "unseen_streams",
        "gossip_backlog",
        "gossip_unjudged",
        "gossip_unsent",
        "api_events_kept",
        "api_events",
    ];
    assert_eq!(names, all);
}

#[test]
fn a_viewer_that_stands_still_harms_nobody_and_is_current_when_it_goes_on() {
    let machine = Machine::new();
    let ada = flooding(&machine, 100_000);
    let ticket = ada.ticket();
    let (bob, cleo) = (machine.join("bob", &ticket), machine.join("cleo", &ticket));
    ada.does(&["type", "warm", "--enter"]);
    for viewer in [&bob, &cleo] {
        viewer.sees("over warm");
    }
    let before = resident_kib(&ada);

    kill(cleo.pid(), Signal::SIGSTOP).unwrap();
    for round in 0..4 {
        ada.does(&["type", &format!("round{round}"), "--enter"]);
        eventually("the other viewer sees the end", FLOODED, || {
            let screen = bob.screen();
            let seen = screen.contains(&format!("over round{round}"));
            seen.then_some(()).ok_or(screen)
        });
    }
    let grown = resident_kib(&ada).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "the host grew by {grown} KiB");
    stays_within_every_bound(&ada);
    stays_within_every_bound(&bob);
    assert!(queue(&ada, "pty_output").peak > 0, "the flood was seen");
    assert!(queue(&ada, "screen_unacked").peak > 0, "screens were sent");

    kill(cleo.pid(), Signal::SIGCONT).unwrap();
    cleo.sees("over round3");
    cleo.finds("ada", "here", SOON);
    stays_within_every_bound(&cleo);
}

#[test]
fn a_script_that_does_not_read_its_events_is_bounded_and_harms_nobody() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    let socket = ada.ready["socket"].as_str().unwrap();
    let mut deaf = UnixStream::connect(socket).unwrap();
    deaf.write_all(b"GET /api/v1/events?since=0 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let before = resident_kib(&ada);

    let text = "word ".repeat(200);
    for number in 0..400 {
        let body = serde_json::json!({"text": format!("{number} {text}")});
        assert_eq!(ada.asks("POST", "/api/v1/messages", &body).0, 201);
    }
    ada.says("the last");
    bob.hears("the last");

    stays_within_every_bound(&ada);
    stays_within_every_bound(&bob);
    let grown = resident_kib(&ada).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "the host grew by {grown} KiB");
    assert!(queue(&ada, "api_events").peak > 0, "events were told");
    assert!(queue(&ada, "commands").peak > 0, "commands were queued");
    assert_eq!(queue(&ada, "control_out").dropped, 0);
}
