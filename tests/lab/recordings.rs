//! Recorded terminals beside tmux: a pane of the same size that is given the same bytes shows the same text.

use std::time::Duration;

use collab_p2p::engine::terminal::emulator::Emulator;
use collab_p2p::engine::terminal::painter::plain_lines;
use collab_p2p::engine::terminal::redaction::Redactor;
use collab_p2p::engine::terminal::screen::ScreenHost;
use collab_p2p::engine::time::Mono;
use collab_p2p::pty::emulator::contained;

use crate::harness::{Machine, SOON, eventually};
use crate::need;
use crate::panes::Pane;
use crate::recording::Recording;

/// Where the two differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "alternate-screen",
        "the host's emulator knows ?1049, not the older ?47 and ?1047",
    ),
    (
        "binary-noise",
        "tmux shows nothing for bytes that are no UTF-8, and is in other columns then",
    ),
    (
        "combining-marks",
        "marks of direction do not get past the host; tmux 3.3 moves joiners",
    ),
    (
        "dialog",
        "tmux captures line drawing as the letters that stand for it",
    ),
    (
        "emoji",
        "tmux 3.3 joins what the host has as one character after another",
    ),
    (
        "line-drawing",
        "tmux captures line drawing as the letters that stand for it",
    ),
    (
        "tabs",
        "tmux 3.3 does not know CHT, which steps some tabs onwards",
    ),
    (
        "wide-at-the-edge",
        "tmux 3.3 leaves halves of overwritten wide characters standing",
    ),
];

/// At least so many show the same.
const EQUAL_MIN: usize = 30;

#[test]
fn recorded_text_is_what_tmux_shows() {
    need(&["tmux", "cat", "sleep", "stty"]);
    let machine = Machine::new();
    let pane = Pane::new(&machine, "ada", (80, 24));
    let (mut equal, mut wrong) = (0, Vec::new());
    for name in Recording::names() {
        let recording = Recording::read(&name);
        if !recording.sizes().is_empty() {
            println!("{name}: each emulator has its own way of moving text to another size");
            continue;
        }
        let ours = ours(&recording);
        let theirs = theirs(&pane, &recording, &ours);
        let known = DIFFERENT.iter().find(|(known, _)| *known == name);
        match (ours == theirs, known) {
            (true, None) => equal += 1,
            (false, Some((_, reason))) => println!("{name}: {reason}"),
            (true, Some(_)) => println!("{name}: this tmux shows the same as the host"),
            (false, None) => wrong.push(format!("{name}:\n{}", beside(&ours, &theirs))),
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(equal >= EQUAL_MIN, "{equal} are equal");
}

/// What a host makes of a recording.
fn ours(recording: &Recording) -> Vec<String> {
    let mut emulator = contained(recording.size.0, recording.size.1);
    let output = recording.output();
    let mut rest = output.as_slice();
    while !rest.is_empty() {
        let taken = emulator.feed(rest, Mono(1));
        rest = &rest[taken..];
    }
    emulator.tick(Mono(1_000_000));
    let mut host = ScreenHost::new();
    host.advance(Redactor::none().redact(emulator.snapshot()));
    let lines = plain_lines(host.current().unwrap()).into_iter();
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// What a pane of tmux shows after the same bytes.
fn theirs(pane: &Pane, recording: &Recording, ours: &[String]) -> Vec<String> {
    let file = pane.user.home().join("bytes");
    std::fs::write(&file, recording.output()).unwrap();
    let (cols, rows) = recording.size;
    let [cols, rows] = [cols, rows].map(|side| side.to_string());
    let command = "stty raw -echo; cat bytes; exec sleep 600";
    pane.tmux(&[
        "new-session",
        "-d",
        "-s",
        "other",
        "-x",
        &cols,
        "-y",
        &rows,
        command,
    ]);
    eventually("all is printed", SOON, || {
        let runs = pane.tmux(&[
            "display-message",
            "-t",
            "other",
            "-p",
            "#{pane_current_command}",
        ]);
        (runs.trim() == "sleep").then_some(()).ok_or(runs)
    });
    // Printed is not yet shown: it is looked at until it is the same, or for a while.
    let mut shown = Vec::new();
    for _ in 0..20 {
        let text = pane.tmux(&["capture-pane", "-t", "other", "-p"]);
        shown = text
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        shown.resize(ours.len(), String::new());
        if shown == ours {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    pane.tmux(&["kill-session", "-t", "other"]);
    shown
}

/// The rows that differ.
fn beside(ours: &[String], theirs: &[String]) -> String {
    let rows = ours.iter().zip(theirs).enumerate();
    let rows = rows.filter(|(_, (ours, theirs))| ours != theirs);
    rows.map(|(row, (ours, theirs))| format!("  {row:2} ours {ours:?}\n     tmux {theirs:?}\n"))
        .collect()
}
