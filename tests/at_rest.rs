//! What the disk holds: no word of chat, no name, no title in clear, whatever way the processes ended.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Machine, Node, SOON};

const TITLE: &str = "zanzibarine-title";
const WORDS: [&str; 4] = ["quetzalcoatl-chat", TITLE, "adelgunde", "bartholomew"];

/// A session with names, a title, chat and a screen that are found nowhere else.
fn busy(machine: &Machine) -> [Node; 2] {
    let command = ["sh", "-c", "echo quetzalcoatl-chat on screen; cat"];
    let ada = machine.share("adelgunde", &["--title", TITLE], &command);
    let bob = machine.join("bartholomew", &ada.ticket());
    bob.says("quetzalcoatl-chat");
    ada.hears("quetzalcoatl-chat");
    bob.sees("quetzalcoatl-chat on screen");
    ada.finds("bartholomew", "here", SOON);
    [ada, bob]
}

/// Where one of the words stands in clear, as UTF-8 or UTF-16.
fn found(machine: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    for file in crate::harness::files_below(machine.path()) {
        let Ok(bytes) = std::fs::read(&file) else {
            continue;
        };
        for word in WORDS {
            let wide: Vec<u8> = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
            for form in [word.as_bytes(), &wide] {
                if bytes.windows(form.len()).any(|window| window == form) {
                    found.push(format!("{word} in {}", file.display()));
                }
            }
        }
    }
    found
}

#[test]
fn after_sigkill_the_folders_hold_no_word_name_or_title() {
    let machine = Machine::new();
    let mut nodes = busy(&machine);

    nodes.iter_mut().for_each(Node::is_killed);

    assert!(
        nodes[0]
            .user
            .files()
            .iter()
            .any(|file| file.ends_with("store.redb"))
    );
    assert_eq!(found(&machine), [""; 0]);
}

#[test]
fn after_an_orderly_end_neither() {
    let machine = Machine::new();
    let mut nodes = busy(&machine);

    for node in &mut nodes {
        assert_eq!(node.gets(nix::sys::signal::Signal::SIGTERM), 143);
    }

    assert_eq!(found(&machine), [""; 0]);
}

#[test]
fn folders_and_files_are_for_their_user_alone() {
    let machine = Machine::new();
    let [ada, _bob] = busy(&machine);

    let state = ada.state().join("collab-p2p");
    let open = |path: &std::path::Path| {
        std::fs::symlink_metadata(path)
            .unwrap()
            .permissions()
            .mode()
            & 0o077
    };

    assert_eq!(open(&state), 0, "{}", state.display());
    assert_eq!(open(&machine.path().join("run/collab-p2p")), 0);
    for file in ada.files() {
        assert_eq!(open(&file), 0, "{}", file.display());
        assert_eq!(open(file.parent().unwrap()), 0, "{}", file.display());
    }
    let socket = std::path::Path::new(ada.ready["socket"].as_str().unwrap());
    assert_eq!(open(socket), 0, "{}", socket.display());
}
