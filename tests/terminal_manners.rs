//! How the program behaves towards terminals: that of the person, which is as before after every way out, however odd
//! it is, and that of the shared shell, which finds what a shell finds after log-in. `docs/TERMINAL.md` says what is
//! promised and which test holds it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::harness::window::Window;
use crate::harness::{Machine, SOON, User, eventually, program};

const WINDOW: (u16, u16) = (80, 24);
/// A stopped node is taken for gone after a few seconds.
const GONE: Duration = Duration::from_secs(12);

/// A shell with job control in a window. It notes its terminal's settings before and after the program and while the
/// program is stopped; then it waits for Enter.
fn in_a_shell(user: &User, words: &str, size: (u16, u16)) -> Window {
    let script = format!(
        "set -m; stty -a > before; usual=$(stty -g); echo on the main screen; {} {words}; code=$?
         if [ $code -ge 145 ]; then
             stty -a > stopped; stty $usual; echo stopped here; read line; fg; code=$?
         fi
         stty -a > after; echo finished $code; read line; exit $code",
        program().display()
    );
    let window = Window::run(user, "/bin/sh", &["-c", &script], size);
    window.shows("the shell");
    assert!(window.state().0, "the alternate screen is used");
    window
}

/// Waits until the shell has its terminal again and finds it as before; the program's exit code.
#[track_caller]
fn has_its_window_back(user: &User, window: &mut Window) -> i32 {
    window.shows("finished");
    is_as_before(user, window, "after");
    window.types("\r");
    window.ends()
}

#[track_caller]
fn is_as_before(user: &User, window: &Window, now: &str) {
    window.shows("on the main screen");
    assert_eq!(window.leftovers(), Vec::<String>::new(), "{now}");
    let read = |name: &str| std::fs::read_to_string(user.home().join(name)).unwrap();
    assert_eq!(without_size(&read("before")), without_size(&read(now)));
}

/// What `stty -a` says of settings: the window's size is its own.
fn without_size(settings: &str) -> String {
    let all = settings.split_inclusive(';');
    all.filter(|one| !one.contains("rows") && !one.contains("columns"))
        .collect()
}

fn join_of(ticket: &str) -> String {
    format!("join --no-mdns --name bob {ticket}")
}

/// `T` while a process is stopped.
fn state_of(pid: nix::unistd::Pid) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(')').next().unwrap().trim_start().to_owned();
    after.chars().take(1).collect()
}

#[test]
fn every_signal_that_ends_a_viewer_gives_its_window_back() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.user("bob");

    for (signal, code) in [
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
    ] {
        let mut window = in_a_shell(&bob, &join_of(&ada.ticket()), WINDOW);
        kill(bob.pid(), signal).unwrap();
        assert_eq!(has_its_window_back(&bob, &mut window), code, "{signal}");
    }
}

#[test]
fn every_signal_that_ends_a_host_gives_its_window_back() {
    let machine = Machine::new();
    let share = "share --no-mdns -- sh -c 'echo the shell; cat'";

    for (signal, code) in [
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
        (Signal::SIGHUP, 129),
    ] {
        let ada = machine.user("ada");
        let mut window = in_a_shell(&ada, share, (100, 40));
        kill(ada.pid(), signal).unwrap();
        assert_eq!(has_its_window_back(&ada, &mut window), code, "{signal}");
    }
}

#[test]
fn a_program_without_a_window_ends_by_sigquit_as_by_other_signals() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let bob = machine.user("bob");
    let mut bob = bob.spawns(&["join", "--headless", "--no-mdns", &ada.ticket()]);
    assert!(!bob.line().is_empty());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(bob.child.id()).unwrap());

    kill(pid, Signal::SIGQUIT).unwrap();

    // By its own code, after it has told its peers, and not by the signal.
    assert_eq!(bob.child.wait().unwrap().code(), Some(131));
}

#[test]
fn a_stopped_viewer_gives_its_window_back_and_takes_it_again() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.user("bob");
    let mut window = in_a_shell(&bob, &join_of(&ada.ticket()), WINDOW);
    window.shows("read-only");
    let pid = bob.pid();

    kill(pid, Signal::SIGTSTP).unwrap();

    window.shows("stopped here");
    is_as_before(&bob, &window, "stopped");
    assert_eq!(state_of(pid), "T");
    ada.finds("bob", "gone", GONE);
    ada.does(&["type", "--enter", "said meanwhile"]);
    window.becomes((100, 30));
    window.types("\r");

    window.shows("said meanwhile");
    window.shows("the shell");
    window.hides("stopped here");
    eventually("the status row is at the new end", SOON, || {
        let rows = window.rows();
        let at_end = rows[29].contains("read-only") && !rows[23].contains("read-only");
        at_end.then_some(()).ok_or_else(|| rows.join("\n"))
    });
    ada.finds("bob", "here", SOON);
    ada.does(&["type", "--enter", "said afterwards"]);
    window.shows("said afterwards");
    window.types("\x1dd");
    assert_eq!(has_its_window_back(&bob, &mut window), 0);
}

#[test]
fn a_viewer_that_nobody_asked_whether_it_would_stop_repaints_all_when_it_goes_on() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.user("bob");
    let mut window = in_a_shell(&bob, &join_of(&ada.ticket()), WINDOW);
    window.shows("read-only");

    kill(bob.pid(), Signal::SIGSTOP).unwrap();
    window.shows("stopped here");
    window.types("\r");

    window.hides("stopped here");
    window.shows("the shell");
    window.shows("read-only");
    window.types("\x1dd");
    assert_eq!(has_its_window_back(&bob, &mut window), 0);
}

#[test]
fn a_stopped_host_is_out_of_reach_and_back_when_it_goes_on() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let share = "share --no-mdns --ticket-file ticket -- sh -c 'echo the shell; cat'";
    let mut window = in_a_shell(&ada, share, WINDOW);
    let ticket = std::fs::read_to_string(ada.home().join("ticket")).unwrap();
    let bob = machine.user("bob");
    let guest = Window::open(&bob, &["join", "--no-mdns", ticket.trim()], WINDOW);
    guest.shows("read-only");
    guest.shows("the shell");

    kill(ada.pid(), Signal::SIGTSTP).unwrap();

    window.shows("stopped here");
    is_as_before(&ada, &window, "stopped");
    assert_eq!(state_of(ada.pid()), "T");
    guest.shows_within("offline", GONE);
    window.types("\r");
    window.shows("you type");
    guest.hides("offline");
    window.types("said afterwards\r");
    guest.shows("said afterwards");
    window.types("\x1dx");
    assert_eq!(has_its_window_back(&ada, &mut window), 0);
}

#[test]
fn a_viewer_whose_host_is_lost_keeps_its_picture_and_gives_its_window_back() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.user("bob");
    let mut window = in_a_shell(&bob, &join_of(&ada.ticket()), WINDOW);
    window.shows("read-only");

    ada.is_killed();

    window.shows_within("offline", GONE);
    window.shows("the shell");
    window.types("\x1dd");
    assert_eq!(has_its_window_back(&bob, &mut window), 0);
}

#[test]
fn a_join_that_finds_nobody_in_time_never_takes_the_window() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    let ticket = ada.ticket();
    ada.is_killed();
    let bob = machine.user("bob");

    let words = ["join", "--no-mdns", "--timeout", "2s", &ticket];
    let mut window = Window::open(&bob, &words, WINDOW);

    assert_eq!(window.ends(), 5);
    window.shows("error[peer-unreachable]");
    assert!(!window.written().contains("\x1b[?"), "{}", window.written());
}

#[test]
fn what_is_taken_back_is_taken_back_in_order() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.user("bob");
    let mut window = in_a_shell(&bob, &join_of(&ada.ticket()), WINDOW);
    window.types("\x1dd");
    assert_eq!(has_its_window_back(&bob, &mut window), 0);

    let written = window.written();
    let left = written.rfind("\x1b[?1049l").unwrap();
    for earlier in [
        "\x1b[?2026l",
        "\x1b[?1l",
        "\x1b>",
        "\x1b[?2004l",
        "\x1b[?7h",
        "\x1b[0 q",
        "\x1b[?25h",
        "\x1b[0m",
    ] {
        let last = written.rfind(earlier);
        assert!(last.is_some_and(|at| at < left), "{earlier:?}");
    }
    let again = written[left..].contains("\x1b[?1049h") || written[left..].contains("\x1b[?25l");
    assert!(!again, "nothing is set after the alternate screen is left");
    assert_eq!(written.matches("\x1b[?1049l").count(), 1);
}

#[test]
fn windows_of_every_size_are_borne_from_start_to_end() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let words = ["share", "--no-mdns", "--ticket-file", "ticket", "--"];
    let words = [&words[..], &["sh", "-c", "echo the shell; cat"]].concat();
    let host = Window::open(&ada, &words, (1, 1));
    let ticket = eventually("the ticket is there", SOON, || {
        std::fs::read_to_string(ada.home().join("ticket")).map_err(|error| error.to_string())
    });
    ada.sees("the shell");
    let bob = machine.user("bob");
    let guest = Window::open(&bob, &["join", "--no-mdns", ticket.trim()], (0, 0));
    bob.sees("the shell");

    for (size, shell) in [
        ((2, 2), (10, 2)),
        ((500, 300), (500, 299)),
        ((10, 3), (10, 2)),
        ((80, 24), (80, 23)),
        ((0, 0), (80, 23)),
        ((1, 1), (10, 2)),
        ((u16::MAX, u16::MAX), (500, 300)),
        ((80, 24), (80, 23)),
    ] {
        host.becomes(size);
        guest.becomes(size);
        eventually(&format!("{size:?} gives the shell {shell:?}"), SOON, || {
            let screen = bob.json(&["screen"]);
            let is = (screen["cols"].as_u64(), screen["rows"].as_u64());
            let fits = is == (Some(shell.0), Some(shell.1));
            fits.then_some(()).ok_or_else(|| format!("{is:?}"))
        });
    }

    host.types("still here\r");
    host.shows("still here");
    guest.shows("still here");
    guest.shows("read-only");
    host.shows("you type");
}

/// Joins with a changed environment, and looks whether the picture is there.
fn joins_with(changes: &[&str]) {
    let machine = Machine::new();
    let script = "printf 'the shell \\346\\227\\245\\346\\234\\254\\n'; cat";
    let ada = machine.share("ada", &[], &["sh", "-c", script]);
    let bob = machine.user("bob");
    let (program, ticket) = (program().display().to_string(), ada.ticket());
    let words = [changes, &[&program, "join", "--no-mdns", &ticket]].concat();

    let mut window = Window::run(&bob, "env", &words, WINDOW);

    window.shows("the shell \u{65e5}\u{672c}");
    window.shows("read-only");
    window.types("\x1dd");
    assert_eq!(window.ends(), 0);
    assert_eq!(window.leftovers(), Vec::<String>::new());
}

#[test]
fn a_terminal_without_a_name_gets_the_plainest_colours() {
    joins_with(&["-u", "TERM", "-u", "COLORTERM"]);
}

#[test]
fn a_locale_without_unicode_hinders_nobody() {
    joins_with(&["LC_ALL=C", "LANG=C"]);
}

#[test]
fn a_dumb_terminal_is_refused_the_full_screen_and_has_the_verbs() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.user("bob");
    let (program, ticket) = (program().display().to_string(), ada.ticket());

    let words = ["TERM=dumb", &program, "join", "--no-mdns", &ticket];
    let mut window = Window::run(&bob, "env", &words, WINDOW);
    assert_eq!(window.ends(), 2);
    window.shows("error[no-terminal]");
    assert_eq!(window.leftovers(), Vec::<String>::new());

    let bob = bob.started_by(&["env", "TERM=dumb"]);
    let bob = bob.join(&ticket, &[]);
    bob.sees("the shell");
    assert!(!bob.screen().contains('\x1b'));
}

#[test]
fn a_session_is_not_watched_full_screen_inside_its_own_shell() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["sh"]);
    let other = machine.share("eve", &[], &["sh", "-c", "echo the other shell; cat"]);
    let program = program().display().to_string();
    let join = |ticket: &str| format!("{program} join --no-mdns {ticket}; echo code $?");

    ada.does(&["type", "--enter", &join(&ada.ticket())]);
    ada.sees("error[nested]");
    ada.sees("code 2");
    // Without a picture there is none of itself.
    let headless = format!("{program} join --headless --no-mdns {} &", ada.ticket());
    ada.does(&["type", "--enter", &headless]);
    eventually("the second one is in", SOON, || {
        let who = ada.who();
        let both = who.len() == 2;
        both.then_some(()).ok_or_else(|| format!("{who:?}"))
    });
    ada.does(&["type", "--enter", "kill $!; wait; echo gone $((40 + 2))"]);
    ada.sees("gone 42");
    // Another session is no mirror.
    let bob = machine.join("bob", &ada.ticket());
    ada.does(&["type", "--enter", &join(&other.ticket())]);
    bob.sees("the other shell");
    let session = ada.ready["session"].as_str().unwrap();
    ada.does(&["-s", session, "type", "\u{1d}d"]);
    bob.sees("code 0");
}

/// Somebody whose programs are started by a shell that first does something.
fn started_after(machine: &Machine, first: &str) -> User {
    let script = format!("{first}; exec \"$@\"");
    let before = ["sh", "-c", &script, "sh"];
    machine.user("ada").started_by(&before)
}

/// Signals 32 and 33, which no program sees or sets.
const OF_THE_C_LIBRARY: u64 = 0b11 << 31;

#[test]
fn a_shared_shell_finds_signals_and_files_as_after_log_in() {
    let machine = Machine::new();
    let ada = started_after(
        &machine,
        "trap '' HUP INT QUIT PIPE TSTP; exec 7</dev/zero 8<>/dev/full",
    );
    let look = "cat /proc/self/status > status; grep -E '^Sig(Blk|Ign|Cgt)' status; \
                ls -l /proc/self/fd; echo seen; cat";

    let ada = ada.share(&["--size", "100x40"], &["sh", "-c", look]);

    ada.sees("seen");
    let screen = ada.screen();
    for signals in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = screen.lines().find(|line| line.starts_with(signals));
        let set = line.and_then(|line| line.split_whitespace().last());
        let set = set.and_then(|set| u64::from_str_radix(set, 16).ok());
        assert_eq!(set.map(|set| set & !OF_THE_C_LIBRARY), Some(0), "{screen}");
    }
    let files: Vec<&str> = screen
        .lines()
        .filter(|line| line.contains(" -> "))
        .collect();
    let others = |line: &&&str| !line.contains("/dev/pts/") && !line.contains("/proc/");
    assert_eq!(files.iter().filter(others).count(), 0, "{screen}");
    // `ls` itself has the folder open.
    assert_eq!(files.len(), 4, "{screen}");
}

#[test]
fn who_shares_with_hangups_ignored_outlives_its_window() {
    let machine = Machine::new();
    let ada = started_after(&machine, "trap '' HUP");
    let mut ada = ada.share(&[], &["sh", "-c", "echo the shell; cat"]);
    let bob = machine.join("bob", &ada.ticket());

    kill(ada.pid(), Signal::SIGHUP).unwrap();
    ada.does(&["type", "--enter", "still here"]);

    bob.sees("still here");
    assert_eq!(ada.gets(Signal::SIGTERM), 143);
}

#[test]
fn a_shared_shell_knows_no_ticket_no_password_and_no_other_terminal() {
    let machine = Machine::new();
    let ada = machine.user("ada").started_by(&[
        "env",
        "COLLAB_P2P_TICKET=canary1",
        "COLLAB_P2P_PASSWORD=canary2",
        "TMUX=canary3",
        "STY=canary4",
        "TERM=dumb",
        "COLUMNS=7",
        "MINE=kept",
    ]);
    let look = "env | grep -E 'canary|^TERM=|^COLORTERM=|^COLUMNS=|^MINE=|^COLLAB_P2P' | sort; echo seen; cat";

    let ada = ada.share(&["--size", "100x24"], &["sh", "-c", look]);

    ada.sees("seen");
    let session = ada.ready["session"].as_str().unwrap().to_owned();
    let marked = format!("COLLAB_P2P_SESSION={session}");
    let screen = ada.screen();
    let all: Vec<&str> = screen.lines().take_while(|line| *line != "seen").collect();
    let mut wanted = [
        "COLLAB_P2P=1",
        &marked,
        "COLORTERM=truecolor",
        "MINE=kept",
        "TERM=xterm-256color",
    ];
    wanted.sort_unstable();
    let mut all = all;
    all.sort_unstable();
    assert_eq!(all, wanted);
}

#[test]
fn the_last_byte_of_a_command_is_seen_before_its_end() {
    let machine = Machine::new();
    for round in 0..5 {
        let script = format!("read go; seq 1 20000; printf 'the last {round}'; exit 9");
        let mut ada = machine.share("ada", &["--return"], &["sh", "-c", &script]);
        let bob = machine.join("bob", &ada.ticket());
        ada.does(&["type", "--enter", "go"]);

        let closed = bob.event("terminal.closed");
        assert_eq!(closed["status"], 9, "{closed}");
        let screens = bob.events("session.updated");
        assert_eq!(ada.ends(), 9, "{screens:?}");
    }
}

/// How often a window was rung.
fn bells(window: &Window) -> usize {
    window.written().matches('\x07').count()
}

#[test]
fn a_flood_of_bells_rings_everybody_who_is_there_and_at_most_once_a_second() {
    let machine = Machine::new();
    let ada = machine.user("ada");
    let words = ["share", "--no-mdns", "--ticket-file", "ticket", "--"];
    let script = "printf 'the shell\\n'; read go; n=0; \
                  while [ $n -lt 25 ]; do n=$((n+1)); printf '\\a\\a\\a\\a\\a\\a'; sleep 0.1; done; \
                  echo rung; read go; echo no more; cat";
    let words = [&words[..], &["sh", "-c", script]].concat();
    let host = Window::open(&ada, &words, WINDOW);
    host.shows("the shell");
    let ticket = std::fs::read_to_string(ada.home().join("ticket")).unwrap();
    let joins = |name| {
        let user = machine.user(name);
        Window::open(&user, &["join", "--no-mdns", ticket.trim()], WINDOW)
    };
    let guest = joins("bob");
    guest.shows("the shell");
    assert_eq!((bells(&host), bells(&guest)), (0, 0));

    let begun = Instant::now();
    host.types("\r");
    for window in [&host, &guest] {
        window.shows("rung");
        let heard = eventually("the window rings", SOON, || match bells(window) {
            0 => Err(window.rows().join("\n")),
            heard => Ok(heard),
        });
        let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
        assert!(heard <= seconds + 1, "{heard} bells in {seconds} s");
    }

    let late = joins("eve");
    late.shows("rung");
    host.types("\r");
    late.shows("no more");
    assert_eq!(bells(&late), 0, "who comes later hears nothing of the past");
}
