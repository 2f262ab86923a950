//! Real programs on a shared screen: an editor, a monitor, a listing with wide names, a resize, a flood. After
//! quiet everybody's picture is the host's, and a viewer's pane shows it row by row.

use std::time::Duration;

use crate::harness::{Machine, eventually, same_screen};
use crate::need;
use crate::panes::{Pane, ticket_of};

/// The host's pane; its shell has one row less, and so a viewer of this size shows all of it.
const PANE: (u16, u16) = (100, 31);
const SMALL: (u16, u16) = (60, 16);

struct Shared {
    host: Pane,
    viewer: Pane,
    small: Pane,
    /// Goes last, with the folders of all.
    _machine: Machine,
}

impl Shared {
    fn begin() -> Self {
        need(&["tmux"]);
        let machine = Machine::new();
        let host = Pane::new(&machine, "ada", PANE);
        host.starts("share --no-mdns --ticket-file ticket -- sh");
        let ticket = ticket_of(&host);
        host.shows("you type");
        let [viewer, small] = [("bob", PANE), ("cleo", SMALL)].map(|(name, size)| {
            let pane = Pane::new(&machine, name, size);
            pane.starts(&format!("join --no-mdns {ticket}"));
            pane.shows("read-only");
            pane
        });
        host.shows("3 here");
        Self {
            _machine: machine,
            host,
            viewer,
            small,
        }
    }

    /// Waits until the shared screen has this size for the viewer.
    #[track_caller]
    fn becomes(&self, (cols, rows): (u16, u16)) {
        let what = format!("the shared screen is {cols}x{rows}");
        eventually(&what, Duration::from_secs(10), || {
            let screen = self.viewer.user.json(&["screen"]);
            let fits = screen["cols"] == cols && screen["rows"] == rows;
            let is = || format!("{}x{}", screen["cols"], screen["rows"]);
            fits.then_some(()).ok_or_else(is)
        });
    }

    /// After quiet all pictures are the same, and the larger viewer's pane shows it.
    #[track_caller]
    fn agree(&self) {
        same_screen(&[&self.host.user, &self.viewer.user, &self.small.user]);
        self.viewer.equals_its_screen();
    }
}

#[test]
fn an_editor_is_seen_as_it_is_used() {
    need(&["vim"]);
    let shared = Shared::begin();
    let Shared { host, viewer, .. } = &shared;
    let text: String = (0..200)
        .map(|n| format!("line {n} of a file that is longer than a screen\n"))
        .collect();
    std::fs::write(host.user.home().join("text"), text).unwrap();

    host.runs("vim -u NONE -N text");
    viewer.shows("line 0 of a file");
    shared.agree();
    host.types("40Gonew words\x1b");
    viewer.shows("new words");
    shared.agree();
    for _ in 0..5 {
        host.presses(&["C-d"]);
    }
    host.types(":set number hlsearch\r/file\r");
    shared.agree();
    host.types(":vsplit\r\x17l:e other\riother side \u{65e5}\u{672c}\x1b");
    viewer.shows("other side");
    shared.agree();
    host.types(":qa!\r");
    viewer.hides("other side");
    host.runs("echo back in the shell");

    viewer.shows("back in the shell");
    shared.agree();
}

#[test]
fn a_monitor_that_never_rests_is_seen() {
    need(&["htop"]);
    let shared = Shared::begin();
    let Shared {
        host,
        viewer,
        small,
        ..
    } = &shared;

    host.runs("htop -d 20");
    viewer.shows("Load average");
    same_screen(&[&host.user, &viewer.user, &small.user]);
    viewer.equals_its_screen();
    host.types("q");
    host.hides("Load average");
    host.runs("echo done");

    viewer.shows("done");
    shared.agree();
}

#[test]
fn a_listing_with_wide_names_and_colours_stands_in_its_columns() {
    let shared = Shared::begin();
    let Shared { host, viewer, .. } = &shared;
    let folder = host.user.home().join("names");
    std::fs::create_dir(&folder).unwrap();
    for name in [
        "\u{65e5}\u{672c}\u{8a9e}.txt",
        "\u{d55c}\u{ad6d}.md",
        "\u{1f363}.png",
        "\u{1f600}\u{1f680}",
        "na\u{ef}ve",
        "plain",
        "e\u{301}clair",
    ] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    std::os::unix::fs::symlink("plain", folder.join("link")).unwrap();

    host.runs("clear; cd names; ls --color=always; ls -l --color=always; cd ..");
    viewer.shows("\u{65e5}\u{672c}\u{8a9e}.txt");
    host.runs("printf 'end\\n'");
    viewer.shows("end");

    shared.agree();
    let screen = viewer.user.json(&["screen"]).to_string();
    assert!(screen.contains("\"fg\""), "colours are there: {screen}");
}

#[test]
fn a_resize_of_the_host_reaches_everybody() {
    let shared = Shared::begin();
    let Shared {
        host,
        viewer,
        small,
        ..
    } = &shared;
    host.runs("seq 1 50");
    viewer.shows("50");

    host.becomes((80, 25));
    shared.becomes((80, 24));
    host.runs("stty size");
    viewer.shows("24 80");
    shared.agree();
    host.becomes((120, 40));
    shared.becomes((120, 39));
    host.runs("stty size");
    viewer.shows("39 120");
    same_screen(&[&host.user, &viewer.user, &small.user]);
    viewer.becomes((120, 40));
    viewer.equals_its_screen();
}

#[test]
fn a_flood_ends_in_the_same_picture() {
    let shared = Shared::begin();
    let Shared {
        host,
        viewer,
        small,
        ..
    } = &shared;

    host.runs("seq 1 2000000; echo over");

    viewer.shows_within("2000000\nover", Duration::from_secs(120));
    small.shows("over");
    shared.agree();
}
