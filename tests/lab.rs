//! What needs root, tmux and network namespaces: two machines on one network, people in panes of tmux, a disk that
//! takes nothing. `cargo test --features lab --test lab`; a missing tool fails by its name.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap or index in a helper is a failed test"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "these tests watch real processes by the real clock, each from a thread"
)]

mod harness;

#[path = "lab/bad_links.rs"]
mod bad_links;
#[path = "lab/full_disk.rs"]
mod full_disk;
#[path = "lab/hand_off.rs"]
mod hand_off;
#[path = "lab/network.rs"]
mod network;
#[path = "lab/panes.rs"]
mod panes;
#[path = "lab/programs.rs"]
mod programs;
#[path = "lab/read_only.rs"]
mod read_only;
#[path = "harness/recording.rs"]
mod recording;
#[path = "lab/recordings.rs"]
mod recordings;

/// Fails by name where a tool is missing.
#[track_caller]
fn need(tools: &[&str]) {
    let path = std::env::var("PATH").unwrap();
    for tool in tools {
        let found = path
            .split(':')
            .any(|folder| std::path::Path::new(folder).join(tool).exists());
        assert!(found, "this test needs the program {tool}");
    }
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
}
