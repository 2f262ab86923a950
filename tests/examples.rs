//! The examples do what they say.

use std::process::Command;

use crate::harness::{Machine, finish, program};

#[test]
fn two_engines_agree_without_any_io() {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "run",
        "--quiet",
        "--no-default-features",
        "--features",
        "sim",
        "--example",
        "two_engines",
    ]);

    let ran = finish_slowly(command);

    assert!(ran.contains("bob sees the same chat"), "{ran}");
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

/// The example may have to be built first.
fn finish_slowly(mut command: Command) -> String {
    let ran = command.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{told}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
