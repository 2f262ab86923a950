//! The examples do what they say.

use std::process::Command;

use crate::harness::{Machine, Spawned, finish, program};

/// An example that cargo built with these tests, or builds now.
fn example(name: &str, args: &[&str]) -> Command {
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_collab-p2p"))
        .with_file_name("examples")
        .join(name);
    let mut command = if built.exists() {
        Command::new(built)
    } else {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "run",
            "--quiet",
            "--features",
            "sim",
            "--example",
            name,
            "--",
        ]);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    };
    command.args(args);
    command
}

#[test]
fn two_engines_agree_without_any_io() {
    let ran = example("two_engines", &[]).output().unwrap();

    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{out}{err}");
    for said in ["bob sees the same chat", "lease-not-held", "typed by bob"] {
        assert!(out.contains(said), "{said}: {out}");
    }
}

#[test]
fn an_embedded_node_shares_and_ends_with_its_shell() {
    let machine = Machine::new();
    let bob = machine.user("bob");
    let mut command = example(
        "embed_node",
        &["sh", "-c", "echo embedded; read line; exit 4"],
    );
    command.env("TMPDIR", machine.path());
    let mut embedded = Spawned::of(command);
    let ticket = embedded.line();

    let guest = bob.join(&ticket, &[]);
    guest.sees("embedded");
    guest.hears("welcome, bob");
    drop(guest);

    let ended = embedded.gets(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(ended.code, 143, "{}", ended.err);
}

#[test]
fn the_demo_shows_chat_and_control_over_and_back() {
    let machine = Machine::new();
    let mut command = Command::new("bash");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo.sh"))
        .env("COLLAB_P2P", program())
        .env("TMPDIR", machine.path());

    let ran = finish(command, b"");

    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for said in [
        "hello from bob",
        "typed by bob",
        "exit 4",
        "the same screen",
    ] {
        assert!(ran.out.contains(said), "{said}: {}", ran.out);
    }
}
