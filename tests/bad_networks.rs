//! Connections that break at any byte, in good order, by a reset or without a word: what was typed reaches the
//! shell once and in order, what was said reaches everybody once, and all see one screen.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use collab_p2p::engine::limits::PEER_DEAD;

use crate::harness::wire::{Cut, How, Way, Wire};
use crate::harness::{Machine, Node, SOON, User, eventually, same_screen};

/// The only address of these nodes: on their own machine, by TCP, which a wire forwards.
const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// Long enough for many connections to break, one after the other.
const PATIENT: Duration = Duration::from_secs(60);

/// A terminal that shows and writes down each byte of its input, reached from other machines by wires alone.
struct Far {
    ada: Node,
    tap: PathBuf,
    _machine: Machine,
}

/// Somebody on another machine, at the end of a wire.
struct Guest {
    node: Node,
    wire: Wire,
    _machine: Machine,
}

impl std::ops::Deref for Guest {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Far {
    fn shared() -> Self {
        let machine = Machine::new();
        let tap = machine.path().join("tap");
        let script = format!(
            "stty raw -echo; printf 'ready '; exec tee {}",
            tap.display()
        );
        let flags = ["--listen", LOOPBACK, "--no-addrs"];
        let ada = machine.share("ada", &flags, &["sh", "-c", &script]);
        ada.sees("ready");
        Self {
            ada,
            tap,
            _machine: machine,
        }
    }

    fn port(&self) -> u16 {
        let listen = self.ada.ready["listen"][0].as_str().unwrap();
        listen.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// Somebody joins over a wire with these cuts.
    fn joined_by(&self, name: &str, cuts: impl IntoIterator<Item = Cut>) -> Guest {
        let machine = Machine::new();
        let wire = Wire::to(self.port(), cuts);
        let addr = format!("/ip4/127.0.0.1/tcp/{}", wire.port());
        let user = machine.user(name).listens(LOOPBACK);
        let node = user.join(&self.ada.ticket(), &["--addr", &addr]);
        Guest {
            node,
            wire,
            _machine: machine,
        }
    }

    /// The shell got exactly this.
    #[track_caller]
    fn got(&self, bytes: &str) {
        eventually("the shell got what was typed", PATIENT, || {
            let got = String::from_utf8(std::fs::read(&self.tap).unwrap_or_default()).unwrap();
            if got == bytes { Ok(()) } else { Err(got) }
        });
    }
}

/// Numbers that look random and are the same each time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    /// Cuts after at least `from` and less than `to` bytes, of each kind and direction.
    fn cuts(&mut self, count: usize, (from, to): (usize, usize), hows: &[How]) -> Vec<Cut> {
        let ways = [Way::There, Way::Back];
        let cut = |n: usize| Cut {
            after: from + self.below(to - from),
            way: ways[n % 2],
            how: hows[(n / 2) % hows.len()],
        };
        (0..count).map(cut).collect()
    }
}

/// Everybody has heard exactly these texts, and in one order.
#[track_caller]
fn all_heard(users: &[&User], mut texts: Vec<String>) {
    texts.sort();
    eventually("everybody has heard everything once", PATIENT, || {
        let all: Vec<Vec<(String, String)>> = users.iter().map(|user| user.chat()).collect();
        let mut heard: Vec<String> = all[0].iter().map(|(_, text)| text.clone()).collect();
        heard.sort();
        if heard == texts && all.windows(2).all(|pair| pair[0] == pair[1]) {
            Ok(())
        } else {
            Err(format!("{all:#?}"))
        }
    });
}

#[test]
fn a_wire_lets_exactly_so_many_bytes_pass() {
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for how in [How::Finished, How::Reset, How::Silenced] {
        for way in [Way::There, Way::Back] {
            let after = 5_000;
            let wire = Wire::to(
                target.local_addr().unwrap().port(),
                [Cut { after, way, how }],
            );
            let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, wire.port())).unwrap();
            let (mut far, _) = target.accept().unwrap();
            let (from, to) = match way {
                Way::There => (&mut near, &mut far),
                Way::Back => (&mut far, &mut near),
            };
            to.set_read_timeout(Some(SOON)).unwrap();

            from.write_all(&[7; 8_000]).unwrap();
            let mut heard = vec![0; after];
            let came = to.read_exact(&mut heard);
            if how == How::Silenced {
                let moment = Duration::from_millis(200);
                to.set_read_timeout(Some(moment)).unwrap();
            }
            let ended = to.read_to_end(&mut heard);

            // A reset may overtake what was not read yet.
            assert!(
                came.is_ok() || how == How::Reset,
                "{how:?} {way:?}: {came:?}"
            );
            assert_eq!(heard.len(), after, "{how:?} {way:?}");
            if came.is_ok() {
                assert_eq!(ended.is_ok(), how == How::Finished, "{how:?}: {ended:?}");
            }
            eventually("the cut is counted", SOON, || match wire.cuts_made() {
                1 => Ok(()),
                count => Err(count.to_string()),
            });
            let mut again = TcpStream::connect((Ipv4Addr::LOCALHOST, wire.port())).unwrap();
            let (mut other, _) = target.accept().unwrap();
            again.write_all(b"x").unwrap();
            other.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn who_is_cut_off_in_handshake_and_admission_gets_in_all_the_same() {
    let far = Far::shared();
    let told = [How::Finished, How::Reset];
    // Noise is done after some hundred bytes, an admission after some thousand.
    let parts = [(1, 300), (200, 700), (500, 1_500), (1_000, 3_000)];

    let guests: Vec<Guest> = std::thread::scope(|scope| {
        let joining = parts.into_iter().enumerate().map(|(number, part)| {
            let far = &far;
            let cuts = Seeded(number as u64).cuts(4, part, &told);
            scope.spawn(move || far.joined_by(&format!("guest{number}"), cuts))
        });
        let joining: Vec<_> = joining.collect();
        joining.into_iter().map(|one| one.join().unwrap()).collect()
    });

    for guest in &guests {
        guest.sees("ready");
        guest.says(&format!("{} is here", guest.name));
        assert!(guest.wire.cuts_made() >= 3, "{}", guest.wire.cuts_made());
    }
    let texts = guests.iter().map(|guest| format!("{} is here", guest.name));
    let mut users: Vec<&User> = guests.iter().map(|guest| &guest.node.user).collect();
    users.push(&far.ada);
    all_heard(&users, texts.collect());
    assert_eq!(far.ada.who().len(), 5, "nobody is a member twice");
}

#[test]
fn keys_words_and_pictures_survive_connections_cut_at_any_byte() {
    let mut far = Far::shared();
    let mut random = Seeded(40);
    let told = [How::Finished, How::Reset];
    let (mut bob, mut cleo) = (far.joined_by("bob", []), far.joined_by("cleo", []));
    far.ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    // Short ones fall into handshake and catch-up, long ones into keys, words and pictures.
    let parts = [(200, 1_500), (1_500, 9_000), (9_000, 30_000)];
    for (guest, rounds) in [(&bob, 4), (&cleo, 2)] {
        for _ in 0..rounds {
            let cuts = parts.map(|part| random.cuts(2, part, &told)[random.below(2)]);
            cuts.into_iter().for_each(|cut| guest.wire.will_cut(cut));
        }
        guest.wire.cut(How::Reset);
    }

    let typed: String = (0..4_000).map(|number| format!("{number} ")).collect();
    let pieces: Vec<&str> = typed.split_inclusive("99 ").collect();
    std::thread::scope(|scope| {
        for user in [&far.ada, &bob.node, &cleo.node] {
            scope.spawn(move || {
                for number in 0..12 {
                    user.says(&format!("{} {number}", user.name));
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
        }
        for piece in &pieces {
            let ran = bob.run_with(&["type", "-", "--timeout", "50s"], piece.as_bytes());
            assert_eq!(ran.code, 0, "{}", ran.err);
        }
    });

    far.got(&typed);
    let texts = ["ada", "bob", "cleo"].map(|name| (0..12).map(move |n| format!("{name} {n}")));
    all_heard(
        &[&far.ada, &bob.node, &cleo.node],
        texts.into_iter().flatten().collect(),
    );
    same_screen(&[&far.ada, &bob.node, &cleo.node]);
    for node in [&mut far.ada, &mut bob.node, &mut cleo.node] {
        assert!(node.lives(), "{}", node.name);
    }
    println!(
        "cuts: bob {}, cleo {}",
        bob.wire.cuts_made(),
        cleo.wire.cuts_made()
    );
    assert!(bob.wire.cuts_made() >= 6, "{}", bob.wire.cuts_made());
}

#[test]
fn who_comes_late_catches_up_over_connections_that_break_again_and_again() {
    let far = Far::shared();
    let bob = far.joined_by("bob", []);
    let texts: Vec<String> = (0..60)
        .map(|n| format!("{n} {}", "long ".repeat(150)))
        .collect();
    bob.wire.cut(How::Silenced);
    std::thread::scope(|scope| {
        scope.spawn(|| texts[..30].iter().for_each(|text| far.ada.says(text)));
        texts[30..].iter().for_each(|text| bob.says(text));
    });

    let cuts = Seeded(9).cuts(5, (2_000, 20_000), &[How::Finished, How::Reset]);
    let cleo = far.joined_by("cleo", cuts);

    all_heard(&[&far.ada, &bob, &cleo], texts);
}

#[test]
fn a_connection_that_falls_silent_is_left_and_nothing_is_lost() {
    let far = Far::shared();
    let bob = far.joined_by("bob", []);
    far.ada.does(&["control", "grant", "bob"]);
    bob.finds_control("bob has control");
    bob.does(&["type", "before "]);

    bob.wire.cut(How::Silenced);
    let begun = Instant::now();
    bob.says("said into the silence");
    far.ada.says("so was this");
    bob.does(&["type", "into the silence ", "--timeout", "30s"]);
    let typed = begun.elapsed();
    bob.does(&["type", "after"]);

    far.got("before into the silence after");
    let texts = ["said into the silence", "so was this"];
    all_heard(&[&far.ada, &bob], texts.map(str::to_owned).into());
    same_screen(&[&far.ada, &bob]);
    println!("keys typed into a silent connection arrived after {typed:?}");
    assert!(typed < PEER_DEAD + SOON, "{typed:?}");
}
