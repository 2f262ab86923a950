//! Machines whose address changes in the middle of a word, and links on which packets vanish without a trace, one
//! way or both: it is noticed in seconds, mended by itself, and no key and no word is lost or doubled.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use collab_p2p::engine::limits::{PRESENCE_HEARTBEAT, PRESENCE_HEARTBEATS_TO_LIVE};

use crate::harness::{Node, eventually, same_screen};
use crate::network::Lan;

/// Generous: what is measured is printed.
const PATIENT: Duration = Duration::from_secs(25);

/// How long a presence holds by itself.
const TIME_TO_LIVE: Duration =
    Duration::from_secs(PRESENCE_HEARTBEAT.as_secs() * PRESENCE_HEARTBEATS_TO_LIVE as u64);

/// Ada at `a` and Bob at `b`, who has control of her terminal, which shows and writes down each byte of its input.
struct Two {
    ada: Node,
    bob: Node,
    tap: PathBuf,
    lan: Lan,
}

impl Two {
    fn on(lan: Lan, flags: &[&str]) -> Self {
        let tap = lan.ada.path().join("tap");
        let script = format!(
            "stty raw -echo; printf 'ready '; exec tee {}",
            tap.display()
        );
        let words = ["share", "--headless", "--json", "--name", "ada"];
        let ada = lan.ada.user("ada");
        let ada = ada.started_by(&["ip", "netns", "exec", &lan.space("a")]);
        let ada = ada.starts(&[&words[..], flags, &["--", "sh", "-c", &script]].concat());
        let words = ["join", "--headless", "--json", "--name", "bob"];
        let bob = lan.bob.user("bob");
        let bob = bob.started_by(&["ip", "netns", "exec", &lan.space("b")]);
        let bob = bob.starts(&[&words[..], flags, &[&ada.ticket()]].concat());
        bob.sees("ready");
        ada.does(&["control", "grant", "bob"]);
        bob.finds_control("bob has control");
        bob.does(&["type", "0 "]);
        Self { ada, bob, tap, lan }
    }

    /// A machine is no longer where it was.
    fn moves(&self, space: &str, from: &str, to: &str) {
        let there = self.lan.space(space);
        self.lan
            .ip(&format!("-n {there} addr del {from}/24 dev eth0"));
        self.lan
            .ip(&format!("-n {there} addr add {to}/24 dev eth0"));
    }

    /// Bob types, and both speak, while `deed` is done: how long it took until the first key and the last word
    /// that came after it had arrived.
    fn busy_while(&self, deed: impl FnOnce()) -> (Duration, Duration) {
        let (ada, bob) = (&self.ada, &self.bob);
        let begun = Instant::now();
        deed();
        let done = begun.elapsed();
        ada.says("ada goes on");
        bob.says("bob goes on");
        bob.does(&["type", "1 ", "--timeout", "40s"]);
        let typed = begun.elapsed() - done;
        bob.does(&["type", "2", "--timeout", "40s"]);
        self.agree(&["ada goes on", "bob goes on"]);
        (typed, begun.elapsed() - done)
    }

    /// The shell got each key once, both heard these words and no others, both see one screen.
    fn agree(&self, words: &[&str]) {
        let (ada, bob) = (&self.ada, &self.bob);
        eventually("both have heard all, once", PATIENT, || {
            let (a, b) = (ada.chat(), bob.chat());
            let mut said: Vec<&str> = a.iter().map(|(_, text)| text.as_str()).collect();
            said.sort_unstable();
            let fine = said == words && a == b;
            fine.then_some(()).ok_or_else(|| format!("{a:?} {b:?}"))
        });
        assert_eq!(std::fs::read_to_string(&self.tap).unwrap(), "0 1 2");
        same_screen(&[ada, bob]);
    }
}

#[test]
fn a_host_whose_address_changes_is_reached_again_by_itself() {
    let two = Two::on(Lan::new(), &["--no-mdns"]);

    let (typed, all) = two.busy_while(|| two.moves("a", "10.77.0.1", "10.77.0.11"));

    println!("the host moved: keys after {typed:?}, everything after {all:?}");
}

#[test]
fn a_guest_whose_address_changes_goes_on_by_itself() {
    let two = Two::on(Lan::new(), &["--no-mdns"]);

    let (typed, all) = two.busy_while(|| two.moves("b", "10.77.0.2", "10.77.0.12"));
    println!("the guest moved: keys after {typed:?}, everything after {all:?}");
}

#[test]
fn two_whose_addresses_change_at_once_find_each_other_by_multicast_dns() {
    let two = Two::on(Lan::new(), &[]);

    let (typed, all) = two.busy_while(|| {
        two.moves("a", "10.77.0.1", "10.77.0.11");
        two.moves("b", "10.77.0.2", "10.77.0.12");
    });

    println!("both moved: keys after {typed:?}, everything after {all:?}");
}

#[test]
fn a_link_on_which_packets_vanish_is_noticed_in_seconds_and_nothing_is_lost() {
    for dead in [&["a"][..], &["b"], &["a", "b"]] {
        let two = Two::on(Lan::new(), &["--no-mdns"]);
        let (ada, bob) = (&two.ada, &two.bob);
        let neighbour = |space: &str, words: &str| {
            let other = if space == "a" {
                "10.77.0.2"
            } else {
                "10.77.0.1"
            };
            let there = two.lan.space(space);
            two.lan
                .ip(&format!("-n {there} neigh {words} dev eth0").replace("IP", other));
        };

        // What one side sends goes to a machine that does not exist.
        let begun = Instant::now();
        for space in dead {
            neighbour(space, "replace IP lladdr 02:00:00:00:00:99 nud permanent");
        }
        let noticed = [(ada, "bob"), (bob, "ada")].map(|(who, other)| {
            who.finds(other, "gone", PATIENT);
            begun.elapsed()
        });
        ada.says("ada goes on");
        bob.says("bob goes on");
        let healed = std::thread::scope(|scope| {
            let typing = scope.spawn(|| {
                bob.does(&["type", "1 ", "--timeout", "40s"]);
                Instant::now()
            });
            for space in dead {
                neighbour(space, "del IP");
            }
            let healed = Instant::now();
            typing.join().unwrap() - healed
        });
        bob.does(&["type", "2", "--timeout", "40s"]);

        two.agree(&["ada goes on", "bob goes on"]);
        println!("packets of {dead:?} vanished: noticed after {noticed:?}, keys {healed:?} after");
        // Without a connection nobody waits for a whole time-to-live.
        assert!(
            noticed.iter().all(|after| *after < TIME_TO_LIVE),
            "{noticed:?}"
        );
    }
}
