//! A disk that is full for a while: a small one of its own for one person's state.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::window::Window;
use crate::harness::{Machine, SOON, eventually};
use crate::need;

/// A file system of a few megabytes, mounted as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=6m,mode=700", "none"])
            .arg(path);
        assert!(mount.status().unwrap().success());
        Self(path.to_owned())
    }

    fn rest(&self) -> PathBuf {
        self.0.join("rest")
    }

    fn fill(&self) {
        let mut rest = std::fs::File::create(self.rest()).unwrap();
        while rest.write_all(&[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.rest()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A node may be at work there still; the mount goes with the last who uses it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_is_told_and_once_there_is_room_all_goes_on_without_a_restart() {
    need(&["mount", "umount"]);
    let machine = Machine::new();
    let user = machine.user("ada");
    let disk = SmallDisk::at(&user.state());
    let ada = user.share(&[], &["cat"]);
    let bob = machine.join("bob", &ada.ticket());
    ada.says("there is room");
    bob.hears("there is room");

    disk.fill();
    let mut refusal = None;
    for n in 0..200 {
        let ran = ada.run(&["chat", &format!("{n} {}", "long ".repeat(2_400))]);
        if ran.code != 0 {
            refusal = Some((n, ran));
            break;
        }
    }
    let (refused, ran) = refusal.unwrap();

    assert_eq!(ran.code, 8, "{}", ran.err);
    assert!(ran.err.starts_with("error[disk-full]"), "{}", ran.err);
    let unsaved = || ada.json(&["status"])["session"]["unsaved"]["code"].clone();
    assert_eq!(unsaved(), "disk-full");
    bob.says("said meanwhile");
    ada.does(&["type", "the shell goes on", "--enter"]);
    bob.sees("the shell goes on");
    ada.does(&["control", "grant", "bob"]);
    bob.does(&["type", "and so does control", "--enter"]);
    ada.sees("and so does control");

    disk.free();
    eventually("it is saved again", SOON, || {
        let unsaved = unsaved();
        if unsaved.is_null() {
            Ok(())
        } else {
            Err(unsaved.to_string())
        }
    });

    ada.says("there is room again");
    bob.hears("there is room again");
    ada.hears("said meanwhile");
    let same = |user: &crate::harness::User| {
        let chat = user.chat();
        let begins = |n: usize| {
            let mark = format!("{n} long");
            chat.iter()
                .filter(|(_, text)| text.starts_with(&mark))
                .count()
        };
        (chat.len(), (0..=refused).map(begins).collect::<Vec<_>>())
    };
    let (count, each) = same(&ada);
    assert!(each.iter().all(|count| *count == 1), "{each:?}");
    eventually("bob has the same", SOON, || {
        let theirs = same(&bob);
        if theirs == (count, each.clone()) {
            Ok(())
        } else {
            Err(format!("{theirs:?}"))
        }
    });
}

#[test]
fn the_full_screen_says_as_long_as_the_disk_is_full() {
    need(&["mount", "umount"]);
    let machine = Machine::new();
    let user = machine.user("ada");
    let disk = SmallDisk::at(&user.state());
    let window = Window::open(&user, &["share", "--no-mdns", "--", "cat"], (120, 24));
    window.shows("you type");

    disk.fill();
    for n in 0..200 {
        if user
            .run(&["chat", &format!("{n} {}", "long ".repeat(2_400))])
            .code
            != 0
        {
            break;
        }
    }

    window.shows("disk full");
    window.types("the shell goes on\r");
    window.shows("the shell goes on");
    disk.free();
    window.shows_within("everything is saved again", SOON);
    window.hides("disk full");
}
