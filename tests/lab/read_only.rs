//! A disk that takes nothing: a read-only mount, and somebody else's folder.

use crate::harness::Machine;
use crate::need;

#[test]
fn a_read_only_mount_is_told() {
    need(&["unshare", "mount"]);
    let machine = Machine::new();
    let disk = machine.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let disk = disk.display().to_string();
    let mount = "mount -t tmpfs -o ro none \"$0\" && exec \"$@\"";
    let ada = machine
        .user("ada")
        .started_by(&["unshare", "-m", "sh", "-c", mount, &disk]);

    let words = [
        "--state-dir",
        &disk,
        "share",
        "--headless",
        "--no-mdns",
        "--",
        "cat",
    ];
    let why = ada.refused(&words, 8, "state-unwritable");

    assert!(why.contains(&disk), "{why}");
}

#[test]
fn the_folder_of_somebody_else_is_refused() {
    need(&["setpriv"]);
    let machine = Machine::new();
    let mut ada = machine.share("ada", &[], &["cat"]);
    ada.is_killed();
    let state = ada.state().join("collab-p2p").display().to_string();
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let other = machine.user("other").started_by(&nobody);
    open_to_all(machine.path());
    open_to_all(other.home());

    for words in [
        &[
            "--state-dir",
            &state,
            "share",
            "--headless",
            "--no-mdns",
            "--",
            "cat",
        ][..],
        &["--state-dir", &state, "resume", "--headless"],
    ] {
        let ran = other.run(words);
        assert!(
            [3, 8].contains(&ran.code),
            "{words:?}: {} {}",
            ran.code,
            ran.err
        );
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
    }
}

fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
