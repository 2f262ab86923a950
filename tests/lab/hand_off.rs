//! The hand-off of control by keys alone, every pane captured and read, and the way out of each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::{Machine, SOON, eventually};
use crate::need;
use crate::panes::{Pane, ticket_of};

const PANE: (u16, u16) = (100, 31);
/// A card is answered only once there was time to read it.
const READING: Duration = Duration::from_secs(1);

static LOOKS: AtomicU32 = AtomicU32::new(0);

struct Three {
    machine: Machine,
    host: Pane,
    bob: Pane,
    cleo: Pane,
}

/// A host and two viewers, who see its shell.
fn three() -> Three {
    need(&["tmux"]);
    let machine = Machine::new();
    let host = Pane::new(&machine, "ada", PANE);
    let bob = Pane::new(&machine, "bob", PANE);
    let cleo = Pane::new(&machine, "cleo", PANE);
    for pane in [&host, &bob, &cleo] {
        pane.runs("stty -a > before");
    }
    host.starts("share --no-mdns --title demo --ticket-file ticket -- sh");
    let ticket = ticket_of(&host);
    host.shows("you type");
    for guest in [&bob, &cleo] {
        guest.starts(&format!("join --no-mdns {ticket}"));
        guest.shows("read-only");
    }
    host.shows("3 here");
    Three {
        machine,
        host,
        bob,
        cleo,
    }
}

/// The pane is as it was before the program: modes of the terminal, cursor, main screen.
#[track_caller]
fn is_as_before(pane: &Pane, says: &str) {
    pane.shows(says);
    eventually("the main screen and the cursor are back", SOON, || {
        let state = pane.state();
        if state == (false, true) {
            Ok(())
        } else {
            Err(format!("{state:?} {:?}", pane.rows()))
        }
    });
    // A name that was not used before, and only once it is whole.
    let name = format!("after{}", LOOKS.fetch_add(1, Ordering::Relaxed));
    pane.runs(&format!("stty -a > part; mv part {name}"));
    let after = eventually("stty -a is written", SOON, || {
        std::fs::read_to_string(pane.user.home().join(&name)).map_err(|error| error.to_string())
    });
    let before = std::fs::read_to_string(pane.user.home().join("before")).unwrap();
    assert_eq!(before, after, "{}", pane.user.name);
}

#[test]
fn control_goes_over_and_back_by_keys_and_everybody_sees_it() {
    let Three {
        machine: _machine,
        host,
        bob,
        cleo,
    } = three();

    host.runs("echo from the host");
    for pane in [&host, &bob, &cleo] {
        pane.shows("from the host");
    }
    bob.types("x");
    bob.shows("read-only: Ctrl-] r asks for control");

    bob.commands("r");
    host.shows("bob (key ");
    bob.shows("asked for control");
    std::thread::sleep(READING);
    host.commands("g");
    bob.shows("you type");
    host.shows("bob types");
    cleo.shows("bob has control");
    bob.types("echo from bob\r");
    for pane in [&host, &bob, &cleo] {
        pane.shows("from bob");
    }

    cleo.commands("r");
    host.shows("cleo (key ");
    host.commands("t");
    bob.shows("read-only");
    host.shows("you type");
    bob.types("too late\r");
    bob.shows("read-only: Ctrl-] r asks for control");
    host.runs("echo from the host again");
    for pane in [&host, &bob, &cleo] {
        pane.shows("from the host again");
        assert!(!pane.rows().join("\n").contains("too late"));
    }

    host.commands("p");
    host.shows("people (3)");
    host.types("d");
    cleo.shows("the host refused control");
    host.presses(&["Escape"]);
    host.hides("people (3)");
}

#[test]
fn chat_people_and_help_are_a_key_away() {
    let Three {
        machine: _machine,
        host,
        bob,
        cleo,
    } = three();

    bob.commands("c");
    bob.shows("collab-p2p: chat");
    bob.types("is this thing on?\r");
    host.shows("is this thing on?");
    cleo.shows("is this thing on?");
    cleo.commands("c");
    cleo.types("it is\r");
    bob.shows("it is");
    bob.presses(&["Escape"]);
    bob.hides("collab-p2p: chat");

    cleo.presses(&["Escape"]);
    cleo.commands("p");
    for name in ["ada", "bob", "cleo"] {
        cleo.shows(name);
    }
    cleo.presses(&["Escape"]);
    bob.commands("?");
    bob.shows("ask for control; again");
    bob.presses(&["Escape"]);
    bob.hides("ask for control; again");
    host.commands("?");
    host.shows("stop the session for everybody");
    host.shows("collab-p2p join 'cp2p1");
    host.presses(&["Escape"]);
}

#[test]
fn each_way_out_leaves_the_pane_as_it_was() {
    let Three {
        machine,
        host,
        bob,
        cleo,
    } = three();

    bob.commands("d");
    is_as_before(&bob, "resume");
    panics_once_resumed(&bob, "read-only");
    bob.starts("resume --no-mdns");
    bob.shows("read-only");
    bob.commands("x");
    is_as_before(&bob, "you have left");

    let pids = std::process::Command::new("sh")
        .args(["-c", "cat \"$0\"/run/collab-p2p/nodes/*.json"])
        .arg(machine.path())
        .output()
        .unwrap();
    let records = String::from_utf8(pids.stdout).unwrap();
    assert_eq!(records.matches("\"pid\"").count(), 2, "{records}");
    let cleos = pid_in(&machine, &cleo);
    nix::sys::signal::kill(cleos, nix::sys::signal::Signal::SIGTERM).unwrap();
    is_as_before(&cleo, "$");
    cleo.starts("resume --no-mdns");
    cleo.shows("read-only");
    cleo.shows("2 here");

    host.runs("exit 3");
    is_as_before(&host, "the session has ended");
    cleo.shows_within("status 3", Duration::from_secs(10));
    is_as_before(&cleo, "$");
}

#[test]
fn a_host_that_ends_by_its_key_or_a_signal_leaves_its_pane_as_it_was() {
    let Three {
        machine,
        host,
        bob,
        cleo,
    } = three();

    nix::sys::signal::kill(pid_in(&machine, &host), nix::sys::signal::Signal::SIGTERM).unwrap();
    is_as_before(&host, "$");
    bob.shows_within("This terminal has ended", Duration::from_secs(10));
    panics_once_resumed(&host, "you type");
    host.starts("resume --no-mdns");
    host.shows("you type");
    bob.runs("");
    bob.shows_within("live", Duration::from_secs(20));
    host.commands("x");
    is_as_before(&host, "$");
    is_as_before(&bob, "$");
    is_as_before(&cleo, "$");
}

#[test]
fn a_node_that_fails_leaves_the_pane_as_it_was_and_says_so() {
    need(&["tmux"]);
    let machine = Machine::new();
    let host = Pane::new(&machine, "ada", PANE);
    host.runs("stty -a > before; clear; export COLLAB_P2P_LAB_PANIC='fail now'");
    host.starts("share --no-mdns -- sh");
    host.shows("you type");

    // Who asked for it gets no answer any more.
    assert_eq!(host.user.run(&["chat", "fail now"]).code, 1);

    is_as_before(&host, "this node has failed by a fault of the program");
}

/// Resumes and brings the full screen to a panic, which must put the pane back.
fn panics_once_resumed(pane: &Pane, shown: &str) {
    pane.runs("clear; export COLLAB_P2P_LAB_PANIC='#'");
    pane.starts("resume --no-mdns");
    pane.shows(shown);
    pane.types("#");
    is_as_before(pane, "the lab has asked for this");
    pane.runs("unset COLLAB_P2P_LAB_PANIC");
}

/// The process of a person's node.
fn pid_in(machine: &Machine, pane: &Pane) -> nix::unistd::Pid {
    let state = pane.user.state().join("collab-p2p").display().to_string();
    eventually("the node is registered", SOON, || {
        let records = crate::harness::files_below(&machine.path().join("run/collab-p2p/nodes"));
        let texts = records
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok());
        let records =
            texts.filter_map(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let mut mine = records.filter(|record| record["state"] == state);
        let pid = mine.find_map(|record| record["pid"].as_i64());
        pid.map(|pid| nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()))
            .ok_or_else(|| "no record".to_owned())
    })
}
