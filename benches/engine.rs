//! What the steps of the engine cost: signing, sealing, the gate, frames, painting. Each is timed alone, in one thread,
//! over sizes as they occur: a typed character, a scrolled window, the largest screen, a chat message of 100 bytes.
//!
//! `cargo bench --bench engine --no-default-features --features sim [-- --quick]`
//!
//! The last column compares with one check of a signature in the same run, so that runs on different machines, or on
//! a busy one, can be set side by side.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement that prints, and whose failure is worth a panic"
)]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use collab_p2p::engine::documents::{
    ActorNonce, Documents, Draft, Incoming, LocalChange, Verdict, Writer,
};
use collab_p2p::engine::entropy::Entropy;
use collab_p2p::engine::envelope::{
    EnvelopeBody, Place, PresenceMessage, PresencePlace, SealedEnvelope,
};
use collab_p2p::engine::epoch::EpochId;
use collab_p2p::engine::identity::{Domain, MemberKey, verify};
use collab_p2p::engine::ids::{Hash, SessionId, TerminalId};
use collab_p2p::engine::message::{pack, unpack};
use collab_p2p::engine::terminal::cell::{Cell, Color, Style};
use collab_p2p::engine::terminal::emulator::{RawRow, RawScreen};
use collab_p2p::engine::terminal::frame::{Frame, ScreenStamp};
use collab_p2p::engine::terminal::painter::{Caps, ColorDepth, Painter, Viewport};
use collab_p2p::engine::terminal::redaction::{Redacted, Redactor};
use collab_p2p::engine::terminal::screen::{Screen, ScreenHost};
use collab_p2p::engine::time::Wall;

const SESSION: SessionId = SessionId([1; 32]);
const KEY: [u8; 32] = [2; 32];
const BEGUN: Wall = Wall(1_800_000_000_000);
const CAPS: Caps = Caps {
    colors: ColorDepth::TrueColor,
    underlines: true,
};

fn main() {
    let quick = std::env::args().any(|word| word == "--quick");
    let mut table = Table {
        round: Duration::from_millis(if quick { 5 } else { 60 }),
        rows: Vec::new(),
    };
    signatures(&mut table);
    envelopes(&mut table);
    documents(&mut table, if quick { 60 } else { 400 });
    screens(&mut table);
    table.print();
}

/// Steps and what each takes, in nanoseconds.
struct Table {
    round: Duration,
    rows: Vec<(&'static str, &'static str, f64)>,
}

impl Table {
    /// Times a step again and again: the median of nine rounds.
    fn time<T>(&mut self, step: &'static str, size: &'static str, mut work: impl FnMut() -> T) {
        let mut count = 1_u32;
        while timed(count, &mut work) < self.round && count < 1 << 24 {
            count *= 2;
        }
        let mut rounds = [(); 9].map(|()| timed(count, &mut work));
        rounds.sort();
        let nanoseconds = rounds[4].as_secs_f64() * 1e9 / f64::from(count);
        self.rows.push((step, size, nanoseconds));
    }

    fn print(&self) {
        let is_reference = |row: &&(&str, &str, f64)| row.0 == "verify";
        let reference = self.rows.iter().find(is_reference).unwrap().2;
        println!(
            "{:<16} {:<34} {:>12} {:>10}",
            "step", "of", "ns", "/ verify"
        );
        for (step, size, nanoseconds) in &self.rows {
            let ratio = nanoseconds / reference;
            println!("{step:<16} {size:<34} {nanoseconds:>12.0} {ratio:>10.3}");
        }
    }
}

fn timed<T>(count: u32, work: &mut impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    for _ in 0..count {
        black_box(work());
    }
    begun.elapsed()
}

fn member() -> MemberKey {
    MemberKey::generate(&mut Entropy::new([4; 32]))
}

fn signatures(table: &mut Table) {
    let key = member();
    let bytes = [7; 200];
    let signature = key.sign(Domain::Screen, &bytes);

    table.time("verify", "200 bytes", || {
        verify(&key.id(), Domain::Screen, &bytes, &signature)
    });
    table.time("sign", "200 bytes", || key.sign(Domain::Screen, &bytes));
}

fn envelopes(table: &mut Table) {
    let key = member();
    let body = EnvelopeBody {
        actor: [1; 16],
        actor_nonce: [2; 16],
        change: vec![7; 300],
    };
    let seal = |seed: u8| {
        let place = Place {
            session: SESSION,
            seq: 7,
            prev: Hash([3; 32]),
            total: 90_000,
            heads: vec![Hash([1; 32]), Hash([2; 32])],
            document: collab_p2p::engine::ids::DocumentId([4; 32]),
            kind: 1,
            epoch: EpochId([9; 32]),
        };
        SealedEnvelope::seal(&key, place, &KEY, &body, &mut Entropy::new([seed; 32])).unwrap()
    };
    let sealed = seal(1);
    let bytes = sealed.encode();
    let entries: Vec<Vec<u8>> = (0..100).map(|seed| seal(seed).encode()).collect();
    let packed = pack(&entries);

    table.time("seal", "a change of 300 bytes", || seal(1));
    table.time("receive", "the same: form and signature", || {
        SealedEnvelope::decode(&bytes)
    });
    table.time("open", "the same: decryption", || sealed.open(&KEY));
    table.time("pack", "100 entries", || pack(&entries));
    table.time("unpack", "100 entries", || unpack(&packed));

    let place = PresencePlace {
        session: SESSION,
        epoch: EpochId([9; 32]),
        instance: 1,
        generation: 2,
        counter: 3,
        ttl_ms: 9_000,
    };
    let presence =
        || PresenceMessage::seal(&key, place, &KEY, &[7; 400], &mut Entropy::new([1; 32]));
    let said = presence().unwrap().encode();
    table.time("seal", "a presence of 400 bytes", presence);
    table.time("receive", "the same: form and signature", || {
        PresenceMessage::decode(&said)
    });
}

/// So many messages of 100 bytes by one author.
fn said(count: u64) -> Vec<LocalChange> {
    let writer = Writer {
        member: member().id(),
        nonce: ActorNonce([5; 16]),
    };
    let draft = Draft {
        text: "what was said. ".repeat(7)[..100].to_owned(),
        ..Draft::default()
    };
    let mut documents = Documents::new(SESSION);
    (0..count)
        .map(|number| {
            documents
                .post(&writer, Wall(BEGUN.0 + number), &draft)
                .unwrap()
                .0
        })
        .collect()
}

fn incoming((position, change): (usize, &LocalChange)) -> Incoming {
    Incoming {
        author: member().id(),
        position: position as u64,
        nonce: change.nonce,
        change: change.change.clone(),
    }
}

/// The gate alone, then gate and Automerge together, for changes one by one and in batches of ten.
fn documents(table: &mut Table, count: u64) {
    let changes = said(count);
    let given: Vec<Incoming> = changes.iter().enumerate().map(incoming).collect();
    let name = changes[0].document;
    let (last, before) = given.split_last().unwrap();
    let mut documents = Documents::new(SESSION);
    documents.receive(&name, before.to_vec()).unwrap();
    let document = documents.document(&name).unwrap();
    assert!(document.passes_gate(last));

    table.time("gate", "a chat message of 100 bytes", || {
        document.passes_gate(last)
    });
    for (step, size, batch) in [
        ("gate and apply", "chat messages one by one", 1),
        ("gate and apply", "each of a batch of 10", 10),
        ("gate and apply", "each of a batch of 100", 100),
    ] {
        let rounds = [(); 3].map(|()| {
            let mut documents = Documents::new(SESSION);
            let begun = Instant::now();
            for batch in given.chunks(batch) {
                let settled = documents.receive(&name, batch.to_vec()).unwrap();
                assert!(settled.iter().all(|one| one.verdict == Verdict::Accepted));
            }
            begun.elapsed()
        });
        let best = rounds.iter().min().unwrap();
        table
            .rows
            .push((step, size, best.as_secs_f64() * 1e9 / given.len() as f64));
    }
}

/// A window full of coloured text whose first line is this.
fn raw(cols: u16, rows: u16, from: usize, typed: &str) -> RawScreen {
    let style = |number: usize| Style {
        fg: Color::Palette(u8::try_from(number % 8).unwrap()),
        ..Style::default()
    };
    let line = |number: usize| {
        let text = format!("{number:06} the quick brown fox jumps over the lazy dog; ").repeat(12);
        let cell = |(at, char)| Cell::new(char, &[], false, style(number + at / 20));
        text.chars()
            .take(cols.into())
            .enumerate()
            .map(cell)
            .collect()
    };
    let mut screen = RawScreen {
        cols,
        rows: (from..from + usize::from(rows))
            .map(|number| RawRow {
                cells: line(number),
                wrapped: false,
            })
            .collect(),
        ..RawScreen::default()
    };
    let prompt = typed
        .chars()
        .map(|char| Cell::new(char, &[], false, Style::default()));
    screen.rows.last_mut().unwrap().cells = prompt.collect();
    screen
}

/// Two versions of a screen, the second after what happened.
fn versions(before: &RawScreen, after: &RawScreen) -> [Redacted<Screen>; 2] {
    let mut host = ScreenHost::new();
    [before, after].map(|raw| {
        host.advance(Redactor::none().redact(raw.clone()));
        host.current().unwrap().clone()
    })
}

fn screens(table: &mut Table) {
    let typed = [raw(80, 24, 0, "$ l"), raw(80, 24, 0, "$ ls")];
    let scrolled = [raw(120, 40, 0, "$"), raw(120, 40, 39, "$")];
    let large = [raw(500, 300, 0, "$"), raw(500, 300, 299, "$ ")];
    changed(table, "80x24, one character", &typed, false);
    changed(table, "120x40, all scrolled away", &scrolled, false);
    changed(table, "500x300, a whole screen", &large, true);
}

fn changed(table: &mut Table, size: &'static str, raw: &[RawScreen; 2], whole: bool) {
    let [before, after] = &versions(&raw[0], &raw[1]);
    let make = || {
        if whole {
            Frame::between(None, after)
        } else {
            Frame::step(before, after)
        }
        .unwrap()
    };
    let frame = make();
    let bytes = frame.encode();
    let held = (!whole).then(|| before.clone());
    let stamp = ScreenStamp::of(SESSION, TerminalId([6; 16]), Hash([9; 32]), after);
    let viewport = Viewport::new(after.cols, after.height());

    let mut host = ScreenHost::new();
    let mut turn = 0;
    table.time("identify rows", size, || {
        turn += 1;
        host.advance(Redactor::none().redact(raw[turn % 2].clone()))
    });
    table.time("diff", size, make);
    table.time("encode", size, || frame.encode());
    table.time("decode", size, || Frame::decode(&bytes));
    table.time("apply", size, || {
        let mut screen = held.clone();
        frame.apply(&mut screen).unwrap();
        screen
    });
    table.time("digest", size, || after.digest());
    table.time("is_of", size, || stamp.is_of(after));
    let mut painter = Painter::new();
    let mut turn = 0;
    table.time("paint", size, || {
        turn += 1;
        if whole {
            painter.forget();
        }
        painter.paint(if turn % 2 == 0 { before } else { after }, viewport, CAPS)
    });
}
