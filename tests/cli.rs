//! The command line itself: help names what there is and no more, settings come from where they should, and
//! scripts get what they can rely on.

use nix::sys::signal::Signal;

use crate::harness::window::Window;
use crate::harness::{Machine, Spawned, finish};

/// The commands that exist; INTERFACES names more, which are not due yet.
const COMMANDS: [&str; 18] = [
    "share",
    "join",
    "resume",
    "leave",
    "stop",
    "status",
    "list",
    "who",
    "screen",
    "type",
    "chat",
    "control",
    "approve",
    "deny",
    "invite",
    "config",
    "completions",
    "man",
];

#[test]
fn help_lists_what_exists_and_nothing_else() {
    let machine = Machine::new();
    let user = machine.user("ada");

    let help = user.does(&["--help"]);

    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, COMMANDS, "{help}");
    for command in COMMANDS {
        let help = user.does(&[command, "--help"]);
        assert!(help.contains("Usage: collab-p2p"), "{command}: {help}");
    }
}

#[test]
fn flags_that_are_not_due_yet_do_not_exist() {
    let machine = Machine::new();
    let user = machine.user("ada");
    let share = user.does(&["share", "--help"]);
    let join = user.does(&["join", "--help"]);

    for flag in [
        "--password",
        "--record",
        "--relay",
        "--web",
        "--qr",
        "--redact",
        "--uses",
    ] {
        assert!(!share.contains(flag), "share {flag}");
        assert!(!join.contains(flag), "join {flag}");
    }
    for flag in [
        "--title",
        "--name",
        "--role",
        "--ask",
        "--accept",
        "--control",
        "--expires",
        "--no-mdns",
        "--no-addrs",
        "--lan-only",
        "--listen",
        "--size",
        "--headless",
        "--ticket-file",
        "--copy",
        "--return",
        "--nested",
    ] {
        assert!(share.contains(flag), "share {flag}");
    }
    for flag in ["--name", "--headless", "--timeout", "--no-mdns", "--addr"] {
        assert!(join.contains(flag), "join {flag}");
    }
    assert!(join.contains("Other users"), "{join}");
}

#[test]
fn the_version_is_the_packages() {
    let machine = Machine::new();

    let version = machine.user("ada").does(&["--version"]);

    assert_eq!(
        version.trim_end(),
        format!("collab-p2p {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn settings_are_listed_with_their_origin_and_mistakes_are_named() {
    let machine = Machine::new();
    let user = machine.user("ada");
    let path = user.home().join("config/collab-p2p/config.toml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(
        user.does(&["config", "path"]).trim_end(),
        path.display().to_string()
    );

    std::fs::write(
        &path,
        "[share]\nrole = \"editor\"\n[network]\nmdsn = false\n",
    )
    .unwrap();
    let listed = user.does(&["config", "list", "--origin"]);
    let line = |key: &str| listed.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("share.role").contains("editor"), "{listed}");
    assert_ne!(
        line("share.role").split('#').nth(1),
        line("share.ask").split('#').nth(1)
    );
    let checked = user.run(&["config", "check"]);
    assert!(
        checked.err.contains("network.mdns") || checked.out.contains("network.mdns"),
        "{checked:?}"
    );

    std::fs::write(&path, "[share]\nrole = \"king\"\n").unwrap();
    let why = user.refused(&["config", "check"], 8, "config-broken");
    assert!(why.contains("line 2: share.role"), "{why}");
    user.refused(&["share", "--headless", "--", "cat"], 8, "config-broken");
    std::fs::write(&path, "[share\n").unwrap();
    user.refused(&["list"], 8, "config-broken");
    let elsewhere = user.home().join("none.toml").display().to_string();
    user.refused(&["--config", &elsewhere, "list"], 8, "config-broken");
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let machine = Machine::new();
    let user = machine.user("from-user");
    let path = user.home().join("config/collab-p2p/config.toml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "[identity]\nname = \"from-file\"\n").unwrap();
    let shared = |env: Option<&str>, flag: Option<&str>| {
        let mut words = vec!["share", "--headless", "--json", "--no-mdns"];
        words.extend(flag.map(|flag| ["--name", flag]).into_iter().flatten());
        words.extend(["--", "cat"]);
        let mut command = user.command(&words);
        env.map(|name| command.env("COLLAB_P2P_NAME", name));
        let mut node = Spawned::of(command);
        assert!(node.line().contains("ready"));
        user.who()[0].0.clone()
    };

    assert_eq!(shared(None, None), "from-file");
    assert_eq!(shared(Some("from-env"), None), "from-env");
    assert_eq!(shared(Some("from-env"), Some("from-flag")), "from-flag");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let machine = Machine::new();
    let user = machine.user("ada");

    for shell in ["bash", "zsh", "fish"] {
        let script = user.does(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    user.does(&["man", "pages"]);

    assert!(user.home().join("pages/collab-p2p.1").exists());
    for command in COMMANDS {
        let page = user.home().join(format!("pages/collab-p2p-{command}.1"));
        assert!(page.exists(), "{}", page.display());
    }
}

#[test]
fn a_state_dir_plays_another_person_on_the_same_machine() {
    let machine = Machine::new();
    let user = machine.user("ada");
    let here = user.share(&["--title", "here"], &["cat"]);

    user.refused(&["--state-dir", "elsewhere", "who"], 3, "no-session");

    let mut command = user.command(&["status"]);
    command.env("COLLAB_P2P_STATE_DIR", user.home().join("elsewhere"));
    finish(command, b"").is_refusal(3, "no-session");
    assert!(here.does(&["status"]).contains("here"));
}

#[test]
fn a_very_long_state_folder_still_gets_a_socket() {
    let machine = Machine::new();
    let user = machine.user("ada");
    let long = user.home().join("d".repeat(120)).display().to_string();
    let words = [
        "--state-dir",
        &long,
        "share",
        "--headless",
        "--json",
        "--no-mdns",
        "--",
        "cat",
    ];

    let mut node = user.spawns(&words);
    let ready: serde_json::Value = serde_json::from_str(&node.line()).unwrap();
    let socket = ready["socket"].as_str().unwrap();
    user.does(&["--state-dir", &long, "who"]);
    drop(node);

    assert!(socket.len() <= 100, "{socket}");
    assert!(std::path::Path::new(socket).exists());
    std::fs::remove_file(socket).unwrap();
}

#[test]
fn json_is_one_value_a_line_and_screen_text_is_trimmed() {
    let machine = Machine::new();
    let ada = machine.share(
        "ada",
        &["--size", "20x4"],
        &[
            "sh",
            "-c",
            "printf 'a  b   \\n\\nlong-long-long-long-long'; cat",
        ],
    );
    ada.sees("a  b");

    for verb in ["status", "who", "list", "chat", "screen"] {
        let out = ada.does(&[verb, "--json"]);
        assert_eq!(out.lines().count(), 1, "{verb}: {out}");
        let _value: serde_json::Value = serde_json::from_str(&out).unwrap();
    }
    assert_eq!(ada.screen(), "a  b\n\nlong-long-long-long-\nlong\n");
    let ansi = ada.does(&["screen", "--ansi"]);
    assert!(ansi.contains("a  b"), "{ansi}");
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    assert!(!ada.does(&["who"]).contains('\x1b'));
    assert!(ada.does(&["who", "--color", "always"]).contains('\x1b'));
    assert!(!ada.does(&["who", "--color", "never"]).contains('\x1b'));
}

#[test]
fn the_api_describes_itself_and_answers_in_the_promised_shapes() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--title", "demo"], &["cat"]);
    let nothing = serde_json::Value::Null;

    let (status, openapi) = ada.asks("GET", "/openapi.json", &nothing);
    assert_eq!(status, 200);
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/health",
        "/api/v1/session",
        "/api/v1/sessions",
        "/api/v1/participants",
        "/api/v1/invites",
        "/api/v1/approvals",
        "/api/v1/messages",
        "/api/v1/presence",
        "/api/v1/control",
        "/api/v1/terminals",
        "/api/v1/peers",
        "/api/v1/network",
        "/api/v1/queues",
    ] {
        assert_eq!(ada.asks("GET", path, &nothing).0, 200, "{path}");
        assert!(
            openapi["paths"][path].is_object(),
            "{path} is not described"
        );
    }
    let (status, problem) = ada.asks("GET", "/api/v1/participants/nobody", &nothing);
    assert_eq!(
        (status, &problem["code"]),
        (404, &serde_json::json!("no-participant"))
    );
    assert_eq!(ada.asks("GET", "/api/v1/nothing", &nothing).0, 404);
    assert_eq!(ada.asks("DELETE", "/api/v1/messages", &nothing).0, 405);
}

#[test]
fn stopped_and_ended_sessions_are_listed_by_title_name_role_and_member() {
    let machine = Machine::new();
    let mut ada = machine.share("ada", &["--title", "first"], &["cat"]);
    let mut bob = machine.join("bob", &ada.ticket());
    let editor = ada.does(&["invite", "create", "--role", "editor", "--accept"]);
    let mut cleo = bob.user.starts(&[
        "join",
        "--headless",
        "--json",
        "--no-mdns",
        "--name",
        "cleo",
        editor.trim(),
    ]);
    cleo.does(&["--member", "cleo", "leave"]);
    assert_eq!(cleo.ends(), 0);
    for node in [&mut bob, &mut ada] {
        assert_eq!(node.gets(Signal::SIGTERM), 143);
    }

    let list = bob.json(&["list"]);
    let [stopped, ended] = crate::harness::items(&list) else {
        panic!("{list}")
    };
    let told = |one: &serde_json::Value| {
        ["title", "name", "role", "member"].map(|key| one[key].as_str().unwrap().to_owned())
    };
    assert!(list["items"].is_array(), "as the API says it: {list}");
    assert_eq!(told(stopped), ["first", "bob", "viewer", &bob.member()]);
    assert_eq!(told(ended), ["first", "cleo", "editor", &cleo.member()]);
    assert_eq!(
        (&stopped["ended"], &ended["ended"]),
        (&false.into(), &true.into())
    );
    let text = bob.does(&["list"]);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0][..6],
        ["SESSION", "TITLE", "MEMBER", "NAME", "ROLE", "STATE"]
    );
    let member = &bob.member()[..10];
    assert_eq!(rows[1][1..6], ["first", member, "bob", "viewer", "stopped"]);
    assert_eq!(rows[2][5], "ended");
}

#[test]
fn watching_redraws_a_window_and_appends_to_a_pipe_with_the_time() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    // A reader that goes away ends it.
    let script = "\"$0\" who --watch | head -6";
    let mut piped = std::process::Command::new("sh");
    piped
        .args(["-c", script])
        .arg(crate::harness::program())
        .env_clear()
        .envs(ada.env());
    let piped = finish(piped, b"");
    let lines: Vec<&str> = piped.out.lines().collect();
    assert_eq!(lines.len(), 6, "{piped:?}");
    let window = Window::open(&ada, &["who", "--watch"], (80, 24));

    for at in [0, 3] {
        assert!(lines[at].starts_with("-- 20"), "{lines:?}");
        assert!(lines[at + 1].starts_with("ID"), "{lines:?}");
        assert!(lines[at + 2].contains("ada"), "{lines:?}");
    }
    window.shows("ada (me)");
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let heads = window
        .rows()
        .iter()
        .filter(|row| row.starts_with("ID"))
        .count();
    assert_eq!(heads, 1, "{:?}", window.rows());
}

#[test]
fn a_person_at_a_terminal_reads_what_a_new_ticket_gives() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    let mut window = Window::open(&ada, &["invite", "create", "--role", "editor"], (400, 24));

    assert_eq!(window.ends(), 0);
    window.shows("joins as editor, until 20");
    window.shows("collab-p2p join cp2p1");
    let piped = ada.run(&["invite", "create"]);
    assert!(piped.out.starts_with("cp2p1"), "{}", piped.out);
    assert_eq!((piped.out.lines().count(), piped.err.as_str()), (1, ""));
}
