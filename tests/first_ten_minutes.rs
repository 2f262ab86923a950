//! The page for newcomers is true: every command on it exists and takes these words, and the walk that it describes
//! goes as it says.

use std::path::Path;
use std::time::Duration;

use crate::harness::window::Window;
use crate::harness::{Machine, SOON, eventually};

/// A card is answered only once there was time to read it.
const READING: Duration = Duration::from_secs(1);

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FIRST_TEN_MINUTES.md");
    std::fs::read_to_string(path).unwrap()
}

/// The lines of the fenced blocks of a kind.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut within = false;
    for line in page.lines() {
        if line.starts_with("```") {
            within = line == format!("```{kind}");
        } else if within {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// The words of a command line, as far as the page quotes: single quotes only, and a comment at the end.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let part = part.split('#').next().unwrap();
        words.extend(part.split_whitespace().map(str::to_owned));
        if part.len() < line.split('\'').nth(index).unwrap().len() {
            break;
        }
    }
    words
}

#[test]
fn every_command_of_the_first_ten_minutes_exists_and_takes_its_words() {
    let machine = Machine::new();
    let user = machine.user("ana");
    let page = page();
    let commands: Vec<Vec<String>> = blocks(&page, "sh")
        .iter()
        .filter_map(|line| line.strip_prefix("collab-p2p "))
        .map(words)
        .collect();
    assert!(commands.len() > 10, "{commands:?}");

    for command in &commands {
        // At the end of a line help is printed only if all that stands before it is understood.
        let mut parsed = command.clone();
        parsed.push("--help".to_owned());
        user.does(&parsed);
        if matches!(command[0].as_str(), "share" | "join" | "resume") {
            continue;
        }
        // Nothing runs here: a command that is understood says so, one that is not ends with 2.
        let ran = user.run(command);
        assert_ne!(ran.code, 2, "{command:?}: {}", ran.err);
    }
}

#[test]
fn the_keys_of_the_first_ten_minutes_are_those_of_the_help() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let guest = machine.user("bob");
    let ticket = ada.ticket();
    let window = Window::open(&guest, &["join", "--no-mdns", &ticket], (80, 40));
    window.shows("read-only");
    window.types("\x1d?");
    window.shows("collab-p2p: help");
    let help = window.rows().join("\n");

    let page = page();
    let keys: Vec<char> = page
        .split("`Ctrl-] ")
        .skip(1)
        .filter_map(|after| after.chars().next())
        .collect();

    assert!(keys.len() > 5, "{keys:?}");
    for key in keys {
        // Those of a host are not in a guest's help.
        let host = "gtl".contains(key);
        assert!(
            host || help.contains(&format!("  {key}  ")),
            "{key}: {help}"
        );
    }
}

#[test]
fn the_walk_of_the_first_ten_minutes_goes_as_described() {
    let machine = Machine::new();
    let (ana, ben) = (machine.user("ana"), machine.user("ben"));
    let host = Window::open(
        &ana,
        &[
            "share",
            "--no-mdns",
            "--title",
            "demo",
            "--ticket-file",
            "ticket",
            "--",
            "sh",
        ],
        (80, 24),
    );
    host.shows("nobody has joined yet");
    host.shows("ticket shown");
    let file = ana.home().join("ticket");
    let ticket = eventually("the ticket is there", SOON, || {
        let ticket = std::fs::read_to_string(&file).unwrap_or_default();
        let whole = ticket.ends_with('\n');
        whole
            .then(|| ticket.trim_end().to_owned())
            .ok_or_else(|| host.rows().join("\n"))
    });

    let mut guest = Window::open(&ben, &["join", "--no-mdns", &ticket], (80, 24));
    guest.shows("read-only");
    host.shows("2 here");

    guest.types("\x1dchello\r");
    guest.shows(" hello");
    host.shows("ben: hello");
    guest.types("\x1dc");

    guest.types("\x1dr");
    host.shows("1 to decide");
    std::thread::sleep(READING);
    host.types("\x1dg");
    guest.shows("you type");
    guest.types("echo typed by ben\r");
    host.shows("guest ben types");
    guest.types("\x1dr");
    guest.shows("read-only");
    assert!(ana.does(&["who"]).contains("ben"));
    let control = ana.does(&["control", "status"]);
    assert!(control.contains("nobody has control"), "{control}");

    guest.types("\x1dd");
    assert_eq!(guest.ends(), 0);
    assert!(ben.does(&["list"]).contains("stopped"));
    let away = ben.spawns(&["resume", "--headless", "--json", "--no-mdns"]);
    eventually("ben is back", SOON, || {
        let ran = ben.run(&["chat", "written later"]);
        (ran.code == 0).then_some(()).ok_or(ran.err)
    });
    eventually("ana reads it", SOON, || {
        let said = ana.does(&["chat"]);
        said.contains("written later").then_some(()).ok_or(said)
    });
    ana.does(&["stop"]);
    let ended = eventually("all is over", SOON, || {
        let list = ben.does(&["list"]);
        list.contains("ended").then_some(list.clone()).ok_or(list)
    });
    assert!(ended.contains("demo"), "{ended}");
    drop(away);
}
