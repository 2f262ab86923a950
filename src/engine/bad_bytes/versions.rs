//! What a member gets from a program of another version: kept apart by a sentence, never by a fault.

use crate::engine::capability::Role;
use crate::engine::envelope::EnvelopeError;
use crate::engine::event::{ConnId, Event, GossipId, Lane, NetEvent, StreamId};
use crate::engine::identity::{Domain, MemberKey};
use crate::engine::limits::PROTOCOL_VERSION;
use crate::engine::log::{Entry, LogError};
use crate::engine::message::{PeerMessage, pack};
use crate::engine::stage::Stage;
use crate::engine::statement::StatementError;

const HERE: usize = 0;
const THERE: usize = 1;

/// A member, and the connection on which a voice speaks in its name.
struct Voice {
    stage: Stage,
    key: MemberKey,
    instance: u64,
    conn: ConnId,
    control: StreamId,
}

impl Voice {
    fn new() -> Self {
        let mut stage = Stage::with(&[Role::Editor]);
        let key = MemberKey::from_bytes(&stage.member(THERE).replica.key().to_bytes());
        stage.gag(THERE);
        stage.cut(HERE, THERE);
        let mut voice = Self {
            stage,
            key,
            instance: 1_000,
            conn: ConnId(0),
            control: StreamId(0),
        };
        voice.dials();
        voice
    }

    fn dials(&mut self) {
        self.instance += 1;
        self.conn = self.stage.connect(THERE, HERE, true);
        self.control = self.stage.open_on(HERE, self.conn, Lane::Control);
    }

    fn hello(&mut self, version: u16) -> PeerMessage {
        let session = self.stage.member(HERE).replica.session();
        super::hello(version, &self.key, &session, self.instance)
    }

    fn says(&mut self, bytes: Vec<u8>) {
        self.stage.say_on(HERE, self.control, bytes);
    }

    fn is_heard(&self) -> bool {
        self.stage.stands(self.conn)
    }

    fn notices(&mut self) -> Vec<String> {
        let view = self.stage.view(HERE);
        view.notices.into_iter().map(|notice| notice.text).collect()
    }

    /// An entry that the member wrote honestly.
    fn entry(&mut self) -> Vec<u8> {
        let replica = &self.stage.member(THERE).replica;
        let own = replica.logs().range(&replica.me(), 1, 1 << 20);
        own.last().unwrap().to_vec()
    }
}

#[test]
fn a_member_with_another_version_is_let_go_with_one_sentence_that_names_both() {
    let mut there = Voice::new();
    let hello = there.hello(7).encode();
    // A later hello may hold what this program cannot read.
    let longer = [hello.as_slice(), &[0xff; 40]].concat();

    for hello in [hello.clone(), longer, hello] {
        assert!(there.is_heard());
        there.says(hello);
        assert!(!there.is_heard());
        there.dials();
    }

    let told = there.notices();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "version 7",
        &format!("version {PROTOCOL_VERSION}"),
        "use the same version",
    ] {
        assert!(told[0].contains(part), "{told:?}");
    }
}

#[test]
fn after_the_update_the_member_is_welcome() {
    let mut there = Voice::new();
    let old = there.hello(7);
    there.says(old.encode());
    there.dials();

    let new = there.hello(PROTOCOL_VERSION);
    there.says(new.encode());
    there.says(PeerMessage::Pong { nonce: 1 }.encode());

    assert!(there.is_heard());
}

#[test]
fn a_message_of_a_kind_that_this_version_does_not_have_ends_the_connection_and_nothing_else() {
    let kinds = u8::try_from(super::formats::kinds_of_peer_messages()).unwrap();
    let mut there = Voice::new();

    for kind in [kinds, kinds + 1, 100, 0xff] {
        let hello = there.hello(PROTOCOL_VERSION);
        there.says(hello.encode());
        assert!(there.is_heard());
        there.says(vec![kind, 1, 2, 3]);
        assert!(!there.is_heard(), "kind {kind}");
        there.dials();
    }

    assert_eq!(there.notices(), [""; 0]);
}

#[test]
fn entries_of_another_version_are_named_as_such() {
    let mut there = Voice::new();
    let mut entry = there.entry();
    entry[1] = 2;

    let read = Entry::decode(&entry);

    let statement = LogError::Statement(StatementError::Version { got: 2 });
    let envelope = LogError::Envelope(EnvelopeError::Version(2));
    assert!(read == Err(statement) || read == Err(envelope), "{read:?}");
}

#[test]
fn an_entry_of_another_version_is_not_kept_and_costs_nobody_the_connection() {
    let mut there = Voice::new();
    let hello = there.hello(PROTOCOL_VERSION);
    there.says(hello.encode());
    let mut entry = there.entry();
    entry[1] = 2;
    let before = there.stage.member(HERE).replica.logs().len();

    let packed = pack(&[entry.clone()]);
    there.says(PeerMessage::Entries { packed, done: true }.encode());
    let gossip = NetEvent::Gossip {
        id: GossipId(1),
        from: there.key.id(),
        topic: there.stage.member(HERE).replica.log_topic(),
        data: entry,
    };
    there.stage.happen(HERE, Event::Net(gossip));

    assert!(there.is_heard());
    assert_eq!(there.stage.member(HERE).replica.logs().len(), before);
}

#[test]
fn a_hello_under_a_foreign_signature_is_not_believed() {
    let mut there = Voice::new();
    let PeerMessage::Hello(mut hello) = there.hello(PROTOCOL_VERSION) else {
        unreachable!("a hello was made");
    };
    hello.instance.signature = there.key.sign(Domain::Addresses, b"something else");

    there.says(PeerMessage::Hello(hello).encode());

    assert!(!there.is_heard());
}
