//! Each format with its examples, and how its mutations are mended.

use super::mutation::lengths;
use super::{Chance, Tally, Trial, as_it_is, heap, hex};
use crate::engine::admission::{AdmissionMessage, Batch, JoinMessage, RefusalCode, SponsorHint};
use crate::engine::capability::Kind;
use crate::engine::compression;
use crate::engine::control::tests::wire;
use crate::engine::control::{ControlMessage, InputMessage};
use crate::engine::entropy::Entropy;
use crate::engine::envelope::{
    EnvelopeBody, Place, PresenceHeader, PresenceMessage, PresencePlace, SealedEnvelope,
};
use crate::engine::epoch::EpochId;
use crate::engine::identity::{AgreementKey, Domain, InviteKey, MemberKey, Signature, hash};
use crate::engine::ids::{DocumentId, Hash, MemberId, SessionId, TerminalId};
use crate::engine::limits::{
    ADMISSION_MESSAGE_BYTES_MAX, BELL_INTERVAL, ENTRY_BYTES_MIN, FETCH_BYTES_MAX, FRAME_BYTES_MAX,
};
use crate::engine::log::Entry;
use crate::engine::message::{PeerMessage, pack, tests as messages, unpack};
use crate::engine::statement::{
    Grantee, Join, JoinRequest, SignedStatement, Statement, signed_place, tests as statements,
};
use crate::engine::terminal::cell::{Cell, Color, Glyph, Style};
use crate::engine::terminal::emulator::{RawRow, RawScreen};
use crate::engine::terminal::frame::{Frame, ScreenStamp, ScreenUpdate};
use crate::engine::terminal::painter::{Caps, ColorDepth, Painter, Viewport};
use crate::engine::terminal::redaction::{Redacted, Redactor};
use crate::engine::terminal::screen::tests::picture;
use crate::engine::terminal::screen::{Screen, ScreenHost};
use crate::engine::terminal::tree::{ToChild, ToParent, Version};
use crate::engine::terminals;
use crate::engine::ticket::{Ticket, tests as tickets};
use crate::engine::time::Mono;
use crate::engine::viewed::check;

const SESSION: SessionId = SessionId([5; 32]);
const CAPS: Caps = Caps {
    colors: ColorDepth::TrueColor,
    underlines: true,
};
const TERMINAL: TerminalId = TerminalId([6; 16]);

fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

/// A format that is read as it stands.
fn plain<T>(
    name: &'static str,
    examples: &[Vec<u8>],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Tally {
    let same = |value: &T, bytes: &[u8]| encode(value) == bytes;
    Trial {
        name,
        examples,
        mend: &as_it_is,
        decode: &decode,
        same: &same,
        weight: &length,
    }
    .run()
}

/// The same with the mutation mended before it is read.
fn mended<T>(
    name: &'static str,
    examples: &[Vec<u8>],
    mend: impl Fn(&mut Chance, Vec<u8>) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Tally {
    let same = |value: &T, bytes: &[u8]| encode(value) == bytes;
    Trial {
        name,
        examples,
        mend: &mend,
        decode: &decode,
        same: &same,
        weight: &length,
    }
    .run()
}

/// No number that stands where a length may stand makes reading take more than the bytes that are there: twice what the
/// honest ones take, as a list of bytes grows by doubling until it misses its end.
fn no_length_takes_memory<T>(
    examples: &[Vec<u8>],
    mend: impl Fn(Vec<u8>) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Option<T>,
) {
    const ERROR_BYTES_MAX: usize = 1_024;
    for example in examples {
        let whole = mend(example.clone());
        let (read, honest) = heap::peak(|| decode(&whole));
        assert!(read.is_some());
        for bytes in lengths(example) {
            let bytes = mend(bytes);
            let (_, peak) = heap::peak(|| decode(&bytes));
            assert!(
                peak <= 2 * honest + ERROR_BYTES_MAX,
                "{peak} bytes, {honest} without: {}",
                hex(&bytes)
            );
        }
    }
}

fn unmended(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

#[test]
fn a_huge_length_in_a_ticket_takes_no_memory() {
    let mend = |payload: Vec<u8>| tickets::frame(&payload).into_bytes();
    no_length_takes_memory(&tickets::payloads(), mend, parsed);
}

#[test]
fn a_huge_length_in_a_statement_takes_no_memory() {
    no_length_takes_memory(&statements::samples().1, unmended, statement);
}

#[test]
fn a_huge_length_in_an_envelope_takes_no_memory() {
    no_length_takes_memory(&envelopes(), unmended, envelope);
}

#[test]
fn a_huge_length_in_a_presence_takes_no_memory() {
    no_length_takes_memory(&presences(), unmended, presence);
}

#[test]
fn a_huge_length_in_a_message_of_the_control_lane_takes_no_memory() {
    let examples: Vec<Vec<u8>> = messages::samples()
        .iter()
        .map(PeerMessage::encode)
        .collect();
    no_length_takes_memory(&examples, unmended, |bytes| PeerMessage::decode(bytes).ok());
}

#[test]
fn a_huge_length_in_packed_entries_takes_no_memory() {
    let entries: Vec<Vec<u8>> = (0..20).map(|one| vec![one; 300]).collect();
    let plain = compression::unpacked(&pack(&entries), FETCH_BYTES_MAX).unwrap();
    let mend = |plain: Vec<u8>| compression::packed(&plain).unwrap();
    no_length_takes_memory(&[plain], mend, |bytes| unpack(bytes).ok());
}

#[test]
fn a_huge_length_in_input_and_control_takes_no_memory() {
    let messages = wire::messages();
    let (inputs, controls) = messages.split_at(6);
    no_length_takes_memory(inputs, unmended, |bytes| InputMessage::decode(bytes).ok());
    no_length_takes_memory(controls, unmended, |bytes| {
        ControlMessage::decode(bytes).ok()
    });
}

#[test]
fn a_huge_length_in_a_frame_takes_no_memory() {
    let frames: Vec<Vec<u8>> = frames().iter().map(Frame::encode).collect();
    let plains: Vec<Vec<u8>> = frames.iter().map(|frame| plain_frame(frame)).collect();
    let mend = |plain: Vec<u8>| [&[0], plain.as_slice()].concat();
    no_length_takes_memory(&plains, mend, |bytes| Frame::decode(bytes).ok());
    no_length_takes_memory(&frames, unmended, |bytes| Frame::decode(bytes).ok());
}

#[test]
fn a_huge_length_in_a_message_of_the_screen_lane_takes_no_memory() {
    let (parents, children) = screen_messages();
    no_length_takes_memory(&parents, unmended, terminals::decode::<ToParent>);
    no_length_takes_memory(&children, unmended, terminals::decode::<ToChild>);
}

#[test]
fn a_huge_length_in_a_message_of_admission_takes_no_memory() {
    let examples: Vec<Vec<u8>> = admissions().iter().map(AdmissionMessage::encode).collect();
    no_length_takes_memory(&examples, unmended, admission);
}

fn key(number: u8) -> MemberKey {
    MemberKey::generate(&mut Entropy::new([number; 32]))
}

// --- tickets ---

#[test]
fn mutated_texts_of_tickets_are_refused_or_are_the_same_ticket() {
    let examples: Vec<Vec<u8>> = tickets::payloads()
        .iter()
        .map(|payload| tickets::frame(payload).into_bytes())
        .collect();
    let originals: Vec<Ticket> = examples.iter().filter_map(|text| parsed(text)).collect();

    let tally = Trial {
        name: "ticket",
        examples: &examples,
        mend: &as_it_is,
        decode: &parsed,
        // The text is forgiving about case, quotes and line ends, so what it says is compared.
        same: &|ticket, _| {
            originals.contains(ticket)
                && parsed(ticket.to_text().as_bytes()).as_ref() == Some(ticket)
        },
        weight: &length,
    }
    .run();

    assert!(tally.accepted < tally.tried / 4);
}

#[test]
fn mutated_contents_of_tickets_are_refused_or_say_the_same_text() {
    let tally = mended(
        "ticket's payload",
        &tickets::payloads(),
        |_, mut payload| {
            payload.truncate(4_000);
            tickets::frame(&payload).into_bytes()
        },
        parsed,
        |ticket| ticket.to_text().as_bytes().to_vec(),
    );

    assert!(tally.accepted > 100, "keys and addresses may say anything");
}

fn parsed(text: &[u8]) -> Option<Ticket> {
    Ticket::parse(&String::from_utf8_lossy(text)).ok()
}

// --- statements, envelopes, presence ---

#[test]
fn mutated_statements_are_refused() {
    let (_, examples) = statements::samples();

    plain("statement", &examples, statement, said_again);
}

#[test]
fn statements_mutated_before_they_are_signed_are_refused_or_say_the_same_bytes() {
    let (key, examples) = statements::samples();

    let tally = mended(
        "signed statement",
        &examples,
        resigned_statement(&key),
        statement,
        said_again,
    );

    assert!(
        tally.accepted > 100,
        "times, numbers and hashes may say anything"
    );
}

fn statement(bytes: &[u8]) -> Option<crate::engine::identity::Verified<Statement>> {
    SignedStatement::decode(bytes).ok()
}

fn said_again(statement: &crate::engine::identity::Verified<Statement>) -> Vec<u8> {
    let payload = postcard::to_stdvec(statement.value()).unwrap();
    [payload.as_slice(), &statement.signature().0].concat()
}

/// Signs whatever stands before the signature as a statement of this key.
pub(super) fn resigned_statement(key: &MemberKey) -> impl Fn(&mut Chance, Vec<u8>) -> Vec<u8> {
    |_, mut bytes| {
        bytes.truncate(bytes.len().saturating_sub(64));
        if let Some(author) = bytes.get_mut(33..65) {
            author.copy_from_slice(&key.id().0);
        }
        let session = bytes.get(1..33).and_then(|bytes| bytes.try_into().ok());
        let seq = bytes
            .get(65..)
            .and_then(|rest| postcard::take_from_bytes::<u64>(rest).ok());
        let name = hash("collab-p2p v1 statement", &[&bytes]);
        let session = SessionId(session.unwrap_or([0; 32]));
        let place = signed_place(&session, &key.id(), seq.map_or(0, |(seq, _)| seq), &name);
        bytes.extend_from_slice(&key.sign(Domain::Statement, &place).0);
        bytes
    }
}

fn envelopes() -> Vec<Vec<u8>> {
    let seal = |change: usize, heads: u8| {
        let place = Place {
            session: SESSION,
            seq: 7,
            prev: Hash([3; 32]),
            total: 90_000,
            heads: (0..heads).map(|head| Hash([head; 32])).collect(),
            document: DocumentId([4; 32]),
            kind: 2,
            epoch: EpochId([9; 32]),
        };
        let body = EnvelopeBody {
            actor: [1; 16],
            actor_nonce: [2; 16],
            change: vec![7; change],
        };
        SealedEnvelope::seal(&key(1), place, &[8; 32], &body, &mut Entropy::new([3; 32])).unwrap()
    };
    let [small, large] = [seal(100, 2), seal(3_000, 64)];
    vec![small.encode(), small.encode_head(), large.encode()]
}

#[test]
fn mutated_envelopes_are_refused() {
    let tally = plain("envelope", &envelopes(), envelope, SealedEnvelope::encode);

    assert!(tally.accepted > 0, "an envelope may come without its body");
}

#[test]
fn envelopes_mutated_before_they_are_signed_are_refused_or_say_the_same_bytes() {
    let tally = mended(
        "signed envelope",
        &envelopes(),
        resigned_envelope(&key(1)),
        envelope,
        SealedEnvelope::encode,
    );

    assert!(tally.accepted > 100);
}

#[test]
fn contents_of_envelopes_that_were_mutated_before_they_were_sealed_open_as_they_are() {
    let sealed: Vec<Vec<u8>> = envelopes().into_iter().take(1).collect();
    let open = |bytes: &[u8]| SealedEnvelope::decode(bytes).ok()?.open(&[8; 32]).ok();

    mended(
        "envelope's body",
        &sealed,
        |chance, bytes| {
            // The body alone: its header names length and hash again.
            let from = SealedEnvelope::decode(&envelopes()[1])
                .unwrap()
                .encode_head()
                .len();
            let header = SealedEnvelope::decode(&envelopes()[1])
                .unwrap()
                .header()
                .clone();
            let body = bytes.get(from..).unwrap_or_default().to_vec();
            let mut header = crate::engine::envelope::EnvelopeHeader {
                body_len: u32::try_from(body.len()).unwrap(),
                body_hash: hash("collab-p2p v1 envelope body", &[&body]),
                ..header
            };
            header.total = u64::MAX - chance.below(2) as u64;
            SealedEnvelope::forge(&key(1), header, Some(body)).encode()
        },
        |bytes| {
            drop(open(bytes));
            envelope(bytes)
        },
        SealedEnvelope::encode,
    );
}

fn envelope(bytes: &[u8]) -> Option<SealedEnvelope> {
    SealedEnvelope::decode(bytes).ok()
}

/// Signs the header as it stands, as far as one can be read; what follows the signature stays.
pub(super) fn resigned_envelope(key: &MemberKey) -> impl Fn(&mut Chance, Vec<u8>) -> Vec<u8> {
    use crate::engine::envelope::EnvelopeHeader;
    |_, mut bytes| {
        // Version and session stand before the author.
        if let Some(author) = bytes.get_mut(33..65) {
            author.copy_from_slice(&key.id().0);
        }
        let Ok((_, rest)) = postcard::take_from_bytes::<EnvelopeHeader>(&bytes) else {
            return bytes;
        };
        let head = bytes.len() - rest.len();
        let signature = key.sign(Domain::Envelope, &bytes[..head]);
        put(&mut bytes, head, &signature);
        bytes
    }
}

fn put(bytes: &mut [u8], at: usize, signature: &Signature) {
    if let Some(place) = bytes.get_mut(at..at + 64) {
        place.copy_from_slice(&signature.0);
    }
}

fn presences() -> Vec<Vec<u8>> {
    let seal = |plain: usize| {
        let place = PresencePlace {
            session: SESSION,
            epoch: EpochId([9; 32]),
            instance: 3,
            generation: 300,
            counter: 70_000,
            ttl_ms: 9_000,
        };
        let mut entropy = Entropy::new([3; 32]);
        PresenceMessage::seal(&key(1), place, &[8; 32], &vec![7; plain], &mut entropy).unwrap()
    };
    [0, 200, 3_000].map(|plain| seal(plain).encode()).into()
}

#[test]
fn mutated_presences_are_refused() {
    plain("presence", &presences(), presence, PresenceMessage::encode);
}

#[test]
fn presences_mutated_before_they_are_signed_are_refused_or_say_the_same_bytes() {
    let tally = mended(
        "signed presence",
        &presences(),
        resigned_presence(&key(1)),
        presence,
        PresenceMessage::encode,
    );

    assert!(tally.accepted > 1_000);
}

fn presence(bytes: &[u8]) -> Option<PresenceMessage> {
    let message = PresenceMessage::decode(bytes).ok()?;
    drop(message.open(&[8; 32]));
    Some(message)
}

/// Signs header and content as they stand, as far as a header can be read.
pub(super) fn resigned_presence(key: &MemberKey) -> impl Fn(&mut Chance, Vec<u8>) -> Vec<u8> {
    |_, mut bytes| {
        if let Some(author) = bytes.get_mut(33..65) {
            author.copy_from_slice(&key.id().0);
        }
        let Ok((_, rest)) = postcard::take_from_bytes::<PresenceHeader>(&bytes) else {
            return bytes;
        };
        let head = bytes.len() - rest.len();
        let body = rest.get(64..).unwrap_or_default();
        let signature = key.sign(Domain::Presence, &[&bytes[..head], body].concat());
        put(&mut bytes, head, &signature);
        bytes
    }
}

#[test]
fn mutated_log_entries_are_refused() {
    let statements = statements::samples().1;
    let mut examples: Vec<Vec<u8>> = statements
        .iter()
        .map(|bytes| [&[0], bytes.as_slice()].concat())
        .collect();
    examples.extend(
        envelopes()
            .iter()
            .map(|bytes| [&[1], bytes.as_slice()].concat()),
    );
    assert!(examples.iter().all(|bytes| bytes.len() >= ENTRY_BYTES_MIN));

    plain(
        "log entry",
        &examples,
        |bytes| Entry::decode(bytes).ok(),
        Entry::encode,
    );
}

// --- the control lane ---

#[test]
fn mutated_messages_of_the_control_lane_are_refused_or_say_the_same_bytes() {
    let examples: Vec<Vec<u8>> = messages::samples()
        .iter()
        .map(PeerMessage::encode)
        .collect();

    let tally = plain(
        "message of the control lane",
        &examples,
        |bytes| PeerMessage::decode(bytes).ok(),
        PeerMessage::encode,
    );

    assert!(tally.accepted > 100);
}

#[test]
fn mutated_batches_of_entries_are_refused_or_unpacked_within_their_bound() {
    let entries = |count: u8| (0..count).map(|one| vec![one; 300]).collect::<Vec<_>>();
    let examples: Vec<Vec<u8>> = [0, 1, 40, 200].map(|count| pack(&entries(count))).into();
    // Compression has no canonical form; what was unpacked is.
    let same = |entries: &Vec<Vec<u8>>, _: &[u8]| unpack(&pack(entries)).as_ref() == Ok(entries);
    let plain_too = |bytes: &[u8]| {
        bytes.len() + compression::plain_size(bytes, 2 * FETCH_BYTES_MAX).unwrap_or(0)
    };
    for (name, again) in [("packed entries", false), ("entries", true)] {
        let mend = |_: &mut Chance, bytes: Vec<u8>| {
            if again {
                compression::packed(&bytes).unwrap()
            } else {
                bytes
            }
        };
        let plains: Vec<Vec<u8>> = examples
            .iter()
            .map(|packed| compression::unpacked(packed, 2 * FETCH_BYTES_MAX).unwrap())
            .collect();
        Trial {
            name,
            examples: if again { &plains } else { &examples },
            mend: &mend,
            decode: &|bytes| unpack(bytes).ok(),
            same: &same,
            weight: &plain_too,
        }
        .run();
    }
}

// --- control of a terminal ---

#[test]
fn mutated_input_and_orders_are_refused_or_say_the_same_bytes() {
    let examples: Vec<Vec<u8>> = wire::messages().into_iter().take(6).collect();

    plain(
        "input",
        &examples,
        |bytes| InputMessage::decode(bytes).ok(),
        InputMessage::encode,
    );
}

#[test]
fn mutated_leases_and_refusals_are_refused_or_say_the_same_bytes() {
    let examples: Vec<Vec<u8>> = wire::messages().into_iter().skip(6).collect();

    plain(
        "lease",
        &examples,
        |bytes| ControlMessage::decode(bytes).ok(),
        ControlMessage::encode,
    );
}

// --- screens ---

/// Pictures with all that cells can hold: styles, wide and combined characters, repeats, wrapped rows.
fn raw_screens() -> Vec<RawScreen> {
    let style = |number: usize| Style {
        fg: Color::Palette(u8::try_from(number % 5).unwrap()),
        ..Style::default()
    };
    let cell = |(number, char)| {
        let mark: &[char] = if usize::is_multiple_of(number, 17) {
            &['\u{301}']
        } else {
            &[]
        };
        Cell::new(char, mark, false, style(number / 12))
    };
    let wide = |char| {
        let half = |glyph| Cell {
            glyph,
            style: style(2),
        };
        [half(Glyph::Wide(char)), half(Glyph::Spacer)]
    };
    let row = |number: usize| {
        let text = format!("{number} {}", "compiling ".repeat(3));
        let cells = text.chars().enumerate().map(cell);
        RawRow {
            cells: cells.chain("学习中文".chars().flat_map(wide)).collect(),
            wrapped: number.is_multiple_of(3),
        }
    };
    let large = |from: usize| RawScreen {
        cols: 60,
        rows: (from..from + 10).map(row).collect(),
        title: "make".to_owned(),
        ..RawScreen::default()
    };
    vec![
        picture(&["", "", ""]),
        picture(&["$ l", "", "=========="]),
        picture(&["$ ls", "file", "$"]),
        large(0),
        large(1),
        large(9),
    ]
}

fn screens() -> Vec<Redacted<Screen>> {
    let mut host = ScreenHost::new();
    let mut versions = Vec::new();
    for (raw, second) in raw_screens().into_iter().zip(0_u32..) {
        host.ring(Mono(0) + BELL_INTERVAL * second);
        host.advance(Redactor::none().redact(raw));
        versions.extend(host.current().cloned());
    }
    versions
}

fn frames() -> Vec<Frame> {
    let screens = screens();
    let whole = screens
        .iter()
        .filter_map(|screen| Frame::between(None, screen));
    let steps = screens
        .windows(2)
        .filter_map(|pair| Frame::step(&pair[0], &pair[1]));
    let since = screens
        .windows(3)
        .filter_map(|three| Frame::between(Some((three[0].epoch, three[0].version)), &three[2]));
    whole.chain(steps).chain(since).collect()
}

/// The plain bytes of an encoded frame.
fn plain_frame(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [0, plain @ ..] => plain.to_vec(),
        [_, _, _, _, _, body @ ..] => compression::unpacked(body, FRAME_BYTES_MAX).unwrap(),
        _ => panic!("no frame"),
    }
}

/// Cells are several times as large as what they are written as: each plain byte counts twice.
fn with_plain_size(bytes: &[u8]) -> usize {
    let body = bytes.get(5..).unwrap_or_default();
    2 * (bytes.len() + compression::plain_size(body, FRAME_BYTES_MAX).unwrap_or(0))
}

/// Applied to whatever may be held, digested and painted: that must hold for each frame that decodes.
fn applied(frame: &Frame, held: &[Option<Redacted<Screen>>]) {
    for held in held {
        let mut screen = held.clone();
        if frame.apply(&mut screen).is_err() {
            assert_eq!(&screen, held, "a frame that does not apply changes nothing");
            continue;
        }
        let screen = screen.unwrap();
        assert_eq!(screen.digest(), screen.digest());
        drop(Painter::new().paint(&screen, Viewport::new(40, 10), CAPS));
    }
}

#[test]
fn mutated_frames_are_refused_or_make_a_screen() {
    let examples: Vec<Vec<u8>> = frames().iter().map(Frame::encode).collect();
    let held: Vec<_> = [None]
        .into_iter()
        .chain(screens().into_iter().map(Some))
        .collect();
    // Compression has no canonical form; what it holds has.
    let same = |frame: &Frame, bytes: &[u8]| {
        applied(frame, &held);
        plain_frame(&frame.encode()) == plain_frame(bytes)
    };
    let plains: Vec<Vec<u8>> = examples.iter().map(|bytes| plain_frame(bytes)).collect();
    let squeezed = |chance: &mut Chance, plain: Vec<u8>| {
        if chance.below(2) == 0 {
            return [&[0], plain.as_slice()].concat();
        }
        let length = u32::try_from(plain.len()).unwrap().to_le_bytes();
        [
            &[1],
            length.as_slice(),
            &compression::packed(&plain).unwrap(),
        ]
        .concat()
    };
    let decode = |bytes: &[u8]| Frame::decode(bytes).ok();
    let mut trial = Trial {
        name: "frame",
        examples: &examples,
        mend: &as_it_is,
        decode: &decode,
        same: &same,
        weight: &with_plain_size,
    };
    trial.run();
    (trial.name, trial.examples, trial.mend) = ("frame's content", &plains, &squeezed);
    let tally = trial.run();

    assert!(tally.accepted > 100);
}

fn updates() -> Vec<Vec<u8>> {
    let host = key(1);
    let update = |screen: &Redacted<Screen>| {
        let stamp = ScreenStamp::of(SESSION, TERMINAL, Hash([9; 32]), screen);
        ScreenUpdate {
            stamp,
            signature: host.sign(Domain::Screen, &stamp.signing_bytes()).0,
            frame: Frame::between(None, screen).unwrap().encode(),
        }
        .encode()
    };
    screens().iter().map(update).collect()
}

#[test]
fn mutated_screen_updates_are_refused_or_say_the_same_bytes() {
    let examples: Vec<Vec<u8>> = updates().into_iter().take(4).collect();

    plain(
        "screen update",
        &examples,
        |bytes| ScreenUpdate::decode(bytes).ok(),
        ScreenUpdate::encode,
    );
}

#[test]
fn screen_updates_mutated_before_their_host_stamps_them_make_its_screen_or_none() {
    let (host, screens) = (key(1), screens());
    let examples: Vec<Vec<u8>> = updates().into_iter().take(4).collect();
    let held = screens.first().cloned();
    // The frame by itself, or the stamp by itself: broken together they are refused by the first.
    let stamped = |chance: &mut Chance, bytes: Vec<u8>| {
        if examples.contains(&bytes) {
            return bytes;
        }
        let Ok(mut update) = ScreenUpdate::decode(&bytes) else {
            return bytes;
        };
        let honest: &Vec<u8> = chance.pick(&examples);
        let honest = ScreenUpdate::decode(honest).unwrap();
        match chance.below(3) {
            0 => update.frame = honest.frame,
            1 => update.stamp = honest.stamp,
            _ => {}
        }
        update.signature = host.sign(Domain::Screen, &update.stamp.signing_bytes()).0;
        update.encode()
    };
    let place = (SESSION, TERMINAL, host.id());
    let decode = |bytes: &[u8]| {
        check(bytes, place, None)
            .or_else(|_| check(bytes, place, held.as_ref()))
            .ok()
    };

    let tally = Trial {
        name: "stamped screen update",
        examples: &examples,
        mend: &stamped,
        decode: &decode,
        same: &|(screen, update), bytes| screens.contains(screen) && update.encode() == bytes,
        weight: &|bytes| {
            2 * bytes.len()
                + ScreenUpdate::decode(bytes).map_or(0, |update| with_plain_size(&update.frame))
        },
    }
    .run();

    assert!(tally.accepted > 100);
}

/// Of each kind, towards the parent and towards the child.
fn screen_messages() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let version = Version {
        epoch: 1,
        number: 300,
    };
    let who = MemberId([4; 32]);
    let to_parent = [
        ToParent::Attach {
            terminal: TERMINAL,
            have: Some(version),
            failed: Some(who),
        },
        ToParent::Ack(version),
    ];
    let to_child = [
        ToChild::Serving { path: vec![who; 3] },
        ToChild::Update(updates()[3].clone()),
        ToChild::Refer(vec![who; 8]),
        ToChild::NotHere,
    ];
    let parents = to_parent.iter().map(terminals::encode).collect();
    let children = to_child.iter().map(terminals::encode).collect();
    (parents, children)
}

#[test]
fn mutated_messages_of_the_screen_lane_are_refused_or_say_the_same_bytes() {
    let (parents, children) = screen_messages();

    plain(
        "to the parent",
        &parents,
        terminals::decode::<ToParent>,
        terminals::encode,
    );
    plain(
        "to the child",
        &children,
        terminals::decode::<ToChild>,
        terminals::encode,
    );
}

// --- admission ---

fn admissions() -> Vec<AdmissionMessage> {
    let invite = InviteKey::from_seed(&[7; 32]);
    let request = JoinRequest {
        session: SESSION,
        by: Grantee::Invite(invite.id()),
        member: key(1).id(),
        prekey: AgreementKey::from_bytes(&[3; 32]).public(),
        name: "ana".to_owned(),
        kind: Kind::Human,
        person: None,
        sponsor: key(2).id(),
        challenge: [4; 32],
    };
    let batch = |last| Batch {
        statements: statements::samples().1,
        last,
    };
    vec![
        AdmissionMessage::Hello {
            version: 1,
            token: [1; 32],
        },
        AdmissionMessage::Proof {
            nonce: [1; 32],
            mac: Hash([2; 32]),
        },
        AdmissionMessage::Answer {
            mac: Hash([2; 32]),
            challenge: [3; 32],
        },
        AdmissionMessage::Join(Box::new(JoinMessage {
            join: Join::sign(request, &key(1), Some(&invite)).unwrap(),
            chain: vec![vec![5; 300]; 2],
        })),
        AdmissionMessage::Member { knows_you: true },
        AdmissionMessage::Waiting,
        AdmissionMessage::Welcome(batch(false)),
        AdmissionMessage::Shown(batch(true)),
        AdmissionMessage::NotSponsor {
            hints: vec![SponsorHint {
                member: key(2).id(),
                addresses: vec!["/ip4/10.0.0.1/tcp/4".to_owned()],
            }],
        },
        AdmissionMessage::Refused(RefusalCode::LimitExceeded),
        AdmissionMessage::Done,
    ]
}

#[test]
fn mutated_messages_of_admission_are_refused_or_say_the_same_bytes() {
    let examples: Vec<Vec<u8>> = admissions().iter().map(AdmissionMessage::encode).collect();

    plain(
        "message of admission",
        &examples,
        admission,
        AdmissionMessage::encode,
    );
}

fn admission(bytes: &[u8]) -> Option<AdmissionMessage> {
    AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX).ok()
}

/// How many kinds of messages the control lane has; the examples hold one of each.
pub(super) fn kinds_of_peer_messages() -> usize {
    let tags = messages::samples()
        .into_iter()
        .map(|message| message.encode()[0]);
    tags.collect::<std::collections::BTreeSet<u8>>().len()
}
