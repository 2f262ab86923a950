//! Whatever is read from outside, ten thousand times broken: by chance, and where decoders go wrong (lengths, tags,
//! ends, pieces of other messages). What is broken is refused without a panic and without taking more memory than a
//! small multiple of its own length; what is accepted all the same says the same bytes again.
//!
//! Signed formats are broken twice: as they stand, where the signature refuses them, and before their author signs
//! them, where only the decoder and the checks behind the signature are left. The same messages then go to whole
//! engines in a connected member's name (`live`).

pub(in crate::engine) mod heap;

mod formats;
mod live;
mod mutation;
mod versions;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mutation::{Chance, cuts, lengths, mutated};

use crate::engine::identity::MemberKey;
use crate::engine::ids::{Hash, SessionId};
use crate::engine::message::{Hello, PeerMessage, Reached, SignedAddresses, SignedInstance};

/// Mutations by chance of each format.
const MUTATIONS: usize = 10_000;
/// Memory that reading may take for each byte read: lists of larger records, and the copy that proves canonical form.
const BYTES_PER_BYTE: usize = 16;
/// Memory that reading may take besides: errors, and the first elements of lists.
const BYTES_BESIDES: usize = 8 * 1024;

/// How one format is tried.
struct Trial<'a, T> {
    name: &'static str,
    /// Valid ones of every kind.
    examples: &'a [Vec<u8>],
    /// Makes mutated bytes pass the first check again: signs them, compresses them, sums them up.
    mend: &'a dyn Fn(&mut Chance, Vec<u8>) -> Vec<u8>,
    decode: &'a dyn Fn(&[u8]) -> Option<T>,
    /// Whether what was decoded says these bytes again.
    same: &'a dyn Fn(&T, &[u8]) -> bool,
    /// The bytes that count for the bound on memory: those read, and those they are compressed from.
    weight: &'a dyn Fn(&[u8]) -> usize,
}

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    tried: usize,
    accepted: usize,
    peak: usize,
}

impl<T> Trial<'_, T> {
    /// Every cut and every huge length of each example, then mutations by chance.
    fn run(&self) -> Tally {
        let mut chance = Chance::new(self.name.len() as u64);
        let mut tally = Tally::default();
        for example in self.examples {
            let whole = (self.mend)(&mut chance, example.clone());
            assert!(
                (self.decode)(&whole).is_some(),
                "an example of {} is none",
                self.name
            );
            for bytes in cuts(&whole).chain(lengths(&whole)) {
                self.try_one(&bytes, &mut tally);
            }
        }
        for _ in 0..MUTATIONS {
            let (example, other) = (chance.pick(self.examples), chance.pick(self.examples));
            let broken = mutated(&mut chance, example, other);
            let bytes = (self.mend)(&mut chance, broken);
            self.try_one(&bytes, &mut tally);
        }
        println!("{}: {tally:?}", self.name);
        tally
    }

    fn try_one(&self, bytes: &[u8], tally: &mut Tally) {
        let read = || heap::peak(|| (self.decode)(bytes));
        let Ok((decoded, peak)) = catch_unwind(AssertUnwindSafe(read)) else {
            panic!("{} panics at {}", self.name, hex(bytes));
        };
        let most = BYTES_PER_BYTE * (self.weight)(bytes) + BYTES_BESIDES;
        assert!(
            peak <= most,
            "{} takes {peak} bytes for {} at {}",
            self.name,
            bytes.len(),
            hex(bytes)
        );
        tally.tried += 1;
        tally.peak = tally.peak.max(peak);
        if let Some(decoded) = decoded {
            tally.accepted += 1;
            assert!(
                (self.same)(&decoded, bytes),
                "{} accepts another form: {}",
                self.name,
                hex(bytes)
            );
        }
    }
}

/// What a voice says first: a start of a member's program, of whatever version.
fn hello(version: u16, key: &MemberKey, session: &SessionId, instance: u64) -> PeerMessage {
    let at = (instance, 1);
    PeerMessage::Hello(Box::new(Hello {
        version,
        instance: SignedInstance::sign(key, session, at),
        your_instance: None,
        your_log: Reached {
            seq: 0,
            hash: Hash(session.0),
        },
        addresses: SignedAddresses::sign(key, session, at, Vec::new(), Hash([0; 32])),
        challenge: [3; 32],
        another: false,
    }))
}

fn as_it_is(_: &mut Chance, bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&bytes[..bytes.len().min(2_000)])
}
