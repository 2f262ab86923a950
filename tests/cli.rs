//! The command line itself: help names what there is and no more, settings come from where they should, and
//! scripts get what they can rely on.

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
    assert!(why.contains("share.role"), "{why}");
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
