//! Hostile changes, built here: from honest ones that are taken apart, altered and put together again in
//! Automerge's own encoding, or byte by byte as chunks with a right checksum. Each is aimed at documents of
//! every kind. It must be refused, leave the document as it was, and the document must still save, load and
//! take the honest change.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{
    ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjType, ReadDoc, ScalarValue,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::engine::documents::schema::actor_of;

/// A document with some history, as another member's node has it, and the next change of its writer.
struct Target {
    documents: Documents,
    author: Writer,
    last: LocalChange,
    honest: LocalChange,
}

fn targets() -> Vec<Target> {
    vec![
        session_target(),
        chat_target(),
        member_target(),
        presence_target(),
    ]
}

fn target(author: Writer, changes: Vec<LocalChange>) -> Target {
    let mut documents = Documents::new(SESSION);
    let (honest, before) = changes.split_last().unwrap();
    for (position, change) in (0..).zip(before) {
        accept(&mut documents, &author, position, change);
    }
    let last = before.last().unwrap().clone();
    Target {
        documents,
        author,
        last,
        honest: honest.clone(),
    }
}

fn session_target() -> Target {
    let (host, mut here) = (writer(1, 1), Documents::new(SESSION));
    let facts = |facts: &[SessionFact]| facts.to_vec();
    let changes = [
        facts(&[
            SessionFact::Title("a".to_owned()),
            SessionFact::Created(Wall(1)),
        ]),
        facts(&[SessionFact::Setting(Setting::Ask(Ask::Never))]),
        facts(&[
            SessionFact::Title("b".to_owned()),
            SessionFact::Public(true),
        ]),
    ];
    let write =
        |facts: Vec<SessionFact>| here.write_session(&host, Wall(5), &facts).unwrap().unwrap();
    target(host, changes.into_iter().map(write).collect())
}

fn chat_target() -> Target {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let post = |text: &str| here.post(&ada, Wall(5), &draft(text)).unwrap().0;
    target(ada, ["one", "two", "three"].map(post).to_vec())
}

fn member_target() -> Target {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let changes = vec![
        here.write_profile(&ada, Wall(5), "ada", Kind::Human)
            .unwrap()
            .unwrap(),
        here.announce_terminal(&ada, Wall(5), terminal(1), "sh", (80, 24))
            .unwrap()
            .unwrap(),
        here.resize_terminal(&ada, Wall(5), terminal(1), (90, 30))
            .unwrap()
            .unwrap(),
    ];
    target(ada, changes)
}

fn presence_target() -> Target {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let at = |row| PresenceState {
        pointer: Some(Pointer {
            terminal: terminal(1),
            row,
            column: 1,
        }),
        ..PresenceState::online(Wall(5))
    };
    let changes = vec![
        here.begin_presence(&ada, Wall(5), (1, 1), &at(1)).unwrap(),
        here.update_presence(&ada, Wall(5), &at(2))
            .unwrap()
            .unwrap(),
        here.update_presence(&ada, Wall(5), &at(3))
            .unwrap()
            .unwrap(),
    ];
    target(ada, changes)
}

impl Target {
    fn name(&self) -> DocumentName {
        self.honest.document
    }

    fn document(&self) -> &Document {
        self.documents.document(&self.name()).unwrap()
    }

    fn kind(&self) -> DocumentKind {
        self.name().kind()
    }

    fn actor(&self) -> ActorId {
        actor_of(
            &self.author.member,
            self.document().id(),
            &self.author.nonce,
        )
    }

    fn expanded(&self) -> ExpandedChange {
        Change::from_bytes(self.honest.change.clone())
            .unwrap()
            .decode()
    }

    /// The honest change, altered, in Automerge's own encoding.
    fn altered(&self, alter: impl FnOnce(&mut ExpandedChange)) -> Vec<u8> {
        let mut expanded = self.expanded();
        alter(&mut expanded);
        Change::from(expanded).raw_bytes().to_vec()
    }

    /// The honest change, moved into an object that does not exist.
    fn poisoned(&self) -> Vec<u8> {
        let nothing = ObjectId::Id(OpId::new(2, &self.actor()));
        self.altered(|expanded| expanded.operations[0].obj = nothing)
    }

    /// Gives the change to the documents as the author's next.
    fn give(&mut self, change: Vec<u8>) -> Vec<Settled> {
        let Writer {
            member: author,
            nonce,
        } = self.author;
        let given = Incoming {
            author,
            position: 10,
            nonce,
            change,
        };
        self.documents.receive(&self.name(), vec![given]).unwrap()
    }

    /// Gives a hostile change and demands all that the file's description says; yields why it was refused.
    fn refuses(&mut self, change: Vec<u8>) -> Refusal {
        let (heads, saved) = (self.document().heads(), self.document().save());
        let settled = self.give(change);
        let [
            Settled {
                verdict: Verdict::Refused(refusal),
                ..
            },
        ] = &settled[..]
        else {
            panic!("{:?}: not refused: {settled:?}", self.kind());
        };
        assert_eq!(self.document().heads(), heads);
        assert_eq!(self.document().save(), saved);
        assert_eq!(self.documents.faults().count(), 0);
        refusal.clone()
    }

    /// The document goes on: it takes the honest change, and saves and loads.
    fn goes_on(mut self) {
        let settled = self.give(self.honest.change.clone());
        assert_eq!(verdicts(settled), [(10, Verdict::Accepted)]);
        loads(self.document());
    }

    /// Whether Automerge alone would take harm: panic, fail, or save what does not load.
    fn would_harm(&self, change: &[u8]) -> bool {
        let mut copy = self.document().automerge().clone();
        let outcome = catch_unwind(AssertUnwindSafe(move || {
            let change = Change::from_bytes(change.to_vec())?;
            copy.apply_changes([change])?;
            Automerge::load(&copy.save())?;
            Ok::<_, Box<dyn std::error::Error>>(())
        }));
        !matches!(outcome, Ok(Ok(())))
    }
}

fn loads(document: &Document) {
    let loaded = Automerge::load(&document.save()).unwrap();
    let heads: Vec<_> = loaded.get_heads().iter().map(gate::hash_of).collect();
    assert_eq!(heads, document.heads());
}

/// Aims one alteration at every kind of document; it must be refused for one of these reasons.
fn all_refuse(
    alter: impl Fn(&Target, &mut ExpandedChange),
    expected: impl Fn(DocumentKind, &Refusal) -> bool,
) {
    for mut target in targets() {
        let change = target.altered(|expanded| alter(&target, expanded));
        let refusal = target.refuses(change);
        assert!(
            expected(target.kind(), &refusal),
            "{:?}: {refusal:?}",
            target.kind()
        );
        target.goes_on();
    }
}

fn put(object: ObjectId, key: &str, value: impl Into<ScalarValue>) -> Op {
    operation(
        object,
        Key::Map(key.into()),
        OpType::Put(value.into()),
        vec![],
    )
}

fn operation(obj: ObjectId, key: Key, action: OpType, pred: Vec<OpId>) -> Op {
    Op {
        action,
        obj,
        key,
        pred: pred.into(),
        insert: false,
    }
}

fn foreign() -> ActorId {
    ActorId::from([0xee; 16].as_slice())
}

/// The object that the document's honest changes fill.
fn container(target: &Target) -> ObjectId {
    match target.document().container() {
        automerge::ObjId::Root => ObjectId::Root,
        automerge::ObjId::Id(counter, actor, _) => ObjectId::Id(OpId::new(*counter, actor)),
    }
}

#[test]
fn an_insertion_after_an_element_that_does_not_exist_is_refused() {
    let mut chat = chat_target();
    let nowhere = OpId::new(4, &chat.actor());
    let change = chat.altered(|expanded| {
        expanded.operations[0].key = Key::Seq(ElementId::Id(nowhere));
    });

    assert!(chat.would_harm(&change));
    assert_eq!(chat.refuses(change), Refusal::Place);
    chat.goes_on();
    let elsewhere = |target: &Target, expanded: &mut ExpandedChange| {
        let element = ElementId::Id(OpId::new(1, &target.actor()));
        let key = Key::Seq(element);
        let mut insert = operation(container(target), key, OpType::Make(ObjType::Map), vec![]);
        insert.insert = true;
        expanded.operations.push(insert);
    };
    all_refuse(elsewhere, |_, refusal| {
        matches!(refusal, Refusal::Place | Refusal::Vocabulary)
    });
}

#[test]
fn an_operation_in_an_object_that_does_not_exist_is_refused() {
    for mut target in targets() {
        let change = target.poisoned();
        assert!(target.would_harm(&change), "{:?}", target.kind());
        assert_eq!(target.refuses(change), Refusal::NoSuchObject);
        target.goes_on();
    }
}

#[test]
fn an_actor_nobody_knows_is_refused_wherever_it_is_named() {
    let object = |_: &Target, expanded: &mut ExpandedChange| {
        expanded.operations[0].obj = ObjectId::Id(OpId::new(1, &foreign()));
    };
    all_refuse(object, |_, refusal| *refusal == Refusal::NoSuchObject);
    let pred = |_: &Target, expanded: &mut ExpandedChange| {
        expanded.operations[0].pred = vec![OpId::new(1, &foreign())].into();
    };
    all_refuse(pred, |_, refusal| *refusal == Refusal::Predecessors);
    for target in targets() {
        let change = target.altered(|expanded| object(&target, expanded));
        assert!(target.would_harm(&change), "{:?}", target.kind());
    }
}

#[test]
fn an_index_to_no_actor_is_refused_before_decoding() {
    for mut target in targets() {
        let mut chunk = Chunk::parse(&target.honest.change);
        // One operation more than there are: the column of object actors names actor 9 throughout.
        let operations = target.expanded().operations.len();
        let counter = vec![u8::try_from(operations).unwrap(), 1];
        chunk.set(1, vec![u8::try_from(operations).unwrap(), 9]);
        chunk.set(2, counter);
        assert_eq!(target.refuses(chunk.seal()), Refusal::ForeignActor);
        target.goes_on();
    }
}

#[test]
fn a_gap_in_an_actors_numbers_is_refused() {
    let gap = |_: &Target, expanded: &mut ExpandedChange| expanded.seq += 1;

    let target = chat_target();
    assert!(target.would_harm(&target.altered(|expanded| gap(&target, expanded))));
    all_refuse(gap, |_, refusal| {
        matches!(
            refusal,
            Refusal::Sequence {
                expected: 3,
                found: 4
            }
        )
    });
    let most = |_: &Target, expanded: &mut ExpandedChange| expanded.seq = u64::MAX;
    all_refuse(most, |_, refusal| {
        matches!(refusal, Refusal::Sequence { .. })
    });
    let none = |_: &Target, expanded: &mut ExpandedChange| expanded.seq = 0;
    all_refuse(none, |_, refusal| *refusal == Refusal::DuplicateSequence(0));
}

#[test]
fn a_reference_outside_the_causal_past_is_refused_though_the_replica_has_it() {
    let mut target = session_target();
    let other = writer(2, 1);
    let mut elsewhere = Documents::new(SESSION);
    let change = elsewhere
        .write_session(&other, Wall(9), &title("concurrent"))
        .unwrap()
        .unwrap();
    accept(&mut target.documents, &other, 0, &change);
    let theirs = Change::from_bytes(change.change).unwrap();
    let op = OpId::new(theirs.start_op().get(), theirs.actor_id());

    let hostile = target.altered(|expanded| {
        let title = expanded
            .operations
            .iter_mut()
            .find(|op| op.key == Key::Map("title".into()));
        let title = title.unwrap();
        title.pred = title.pred.iter().cloned().chain([op]).collect();
    });

    assert_eq!(target.refuses(hostile), Refusal::Predecessors);
    target.goes_on();
}

#[test]
fn operation_numbers_must_follow_those_of_the_dependencies() {
    for start in [1, 2, 5, 1000, (1 << 30) - 2] {
        let low = move |_: &Target, expanded: &mut ExpandedChange| {
            expanded.start_op = NonZeroU64::new(start).unwrap();
        };
        all_refuse(low, |_, refusal| {
            matches!(refusal, Refusal::StartOperation { .. })
        });
    }
    for start in [1 << 30, u64::from(u32::MAX), u64::from(u32::MAX) + 1] {
        let high = move |_: &Target, expanded: &mut ExpandedChange| {
            expanded.start_op = NonZeroU64::new(start).unwrap();
        };
        all_refuse(high, |_, refusal| *refusal == Refusal::Counter);
    }
    let target = chat_target();
    let low = target.altered(|expanded| expanded.start_op = NonZeroU64::new(3).unwrap());
    assert!(target.would_harm(&low));
}

#[test]
fn a_replaced_value_that_does_not_exist_is_refused() {
    let nothing = |target: &Target, expanded: &mut ExpandedChange| {
        let last = expanded.operations.last_mut().unwrap();
        last.pred = vec![OpId::new(2, &target.actor())].into();
    };

    all_refuse(nothing, |_, refusal| *refusal == Refusal::Predecessors);
    let target = session_target();
    assert!(target.would_harm(&target.altered(|expanded| nothing(&target, expanded))));
}

#[test]
fn a_value_written_beside_the_standing_one_is_refused() {
    for mut target in [session_target(), member_target(), presence_target()] {
        let change = target.altered(|expanded| {
            for operation in &mut expanded.operations {
                operation.pred = vec![].into();
            }
        });
        assert_eq!(target.refuses(change), Refusal::Predecessors);
        target.goes_on();
    }
}

#[test]
fn a_map_key_inside_a_list_and_a_place_inside_a_map_are_refused() {
    let mut chat = chat_target();
    let list = container(&chat);
    let change = chat.altered(|expanded| expanded.operations = vec![put(list.clone(), "x", "y")]);
    assert!(chat.would_harm(&change));
    assert!(matches!(
        chat.refuses(change),
        Refusal::Place | Refusal::Vocabulary
    ));
    chat.goes_on();
    let place = |_: &Target, expanded: &mut ExpandedChange| {
        let last = expanded.operations.last_mut().unwrap();
        last.key = Key::Seq(ElementId::Head);
    };
    all_refuse(place, |_, refusal| *refusal == Refusal::Place);
}

#[test]
fn a_second_change_with_the_same_number_is_refused() {
    for mut target in targets() {
        let mut twin = Change::from_bytes(target.last.change.clone())
            .unwrap()
            .decode();
        twin.time += 1;
        let twin = Change::from(twin).raw_bytes().to_vec();
        assert!(target.would_harm(&twin));
        assert_eq!(target.refuses(twin), Refusal::DuplicateSequence(2));
        target.goes_on();
    }
}

#[test]
fn a_writer_cannot_hide_its_own_earlier_change_under_a_new_actor() {
    for mut target in targets() {
        let again = Writer {
            nonce: ActorNonce([9; 16]),
            ..target.author
        };
        let actor = actor_of(&again.member, target.document().id(), &again.nonce);
        let first = target.expanded().deps[0];
        let change = target.altered(|expanded| {
            let grandparent = target
                .document()
                .automerge()
                .get_change_by_hash(&first)
                .unwrap();
            expanded.deps = grandparent.deps().to_vec();
            expanded.actor_id = actor;
            expanded.seq = 1;
        });
        target.author = again;
        assert_eq!(target.refuses(change), Refusal::NotOnOwnChange);
    }
}

#[test]
fn a_run_of_a_hundred_million_operations_is_refused_without_being_expanded() {
    for run in [10_001_i64, 100_000_000, 1 << 62, i64::MAX] {
        for mut target in targets() {
            for column in Chunk::parse(&target.honest.change).columns() {
                let mut chunk = Chunk::parse(&target.honest.change);
                let mut data = Vec::new();
                signed(&mut data, run);
                data.push(1);
                chunk.set(column, data);
                let bytes = chunk.seal();

                let length = bytes.len();
                assert!(scan::scan(&bytes).is_err());
                assert!(length < 1000);
                let refusal = target.refuses(bytes);
                let expected = matches!(
                    refusal,
                    Refusal::TooManyOperations
                        | Refusal::Columns
                        | Refusal::Counter
                        | Refusal::Vocabulary
                        | Refusal::ForeignActor
                        | Refusal::Truncated
                        | Refusal::Number
                );
                assert!(expected, "column {column}: {refusal:?}");
            }
            target.goes_on();
        }
    }
}

#[test]
fn the_scan_of_any_change_reads_no_more_values_than_it_has_bytes() {
    for target in targets() {
        let bytes = &target.honest.change;
        let seen = scan::scan(bytes).unwrap();
        assert!(seen.reads <= bytes.len());
        assert_eq!(seen.operations, target.expanded().operations.len() as u64);
    }
    // Ten thousand equal operations, the most there may be, are known from a few numbers.
    let mut expanded = session_target().expanded();
    let operation = expanded.operations[0].clone();
    expanded.operations = vec![operation.clone(); 10_000];
    let large = Change::from(expanded.clone()).raw_bytes().to_vec();
    let counted = scan::scan(&large).map(|seen| seen.operations);
    assert!(
        counted.is_ok_and(|operations| operations == 10_000)
            || large.len() > limits::CHANGE_BYTES_MAX
    );
    expanded.operations = vec![operation; 10_001];
    for operation in &mut expanded.operations {
        operation.action = OpType::Put(ScalarValue::Null);
    }
    let too_large = Change::from(expanded).raw_bytes().to_vec();
    assert!(too_large.len() < limits::CHANGE_BYTES_MAX);
    assert_eq!(scan::scan(&too_large), Err(Refusal::TooManyOperations));
}

#[test]
fn compressed_changes_documents_and_bundles_are_refused_by_their_type() {
    for mut target in targets() {
        let chunk = Chunk::parse(&target.honest.change);
        // A stored block of zeros: deflate without compression, which Automerge would inflate.
        let mut zeros = vec![1, 0xff, 0x7f, 0x00, 0x80];
        zeros.extend([0; 0x7fff]);
        let compressed = [chunk_of(2, &zeros), chunk_of(2, &chunk.body())];
        for bytes in compressed {
            assert_eq!(target.refuses(bytes), Refusal::ChunkType(2));
        }
        assert_eq!(
            target.refuses(chunk_of(0, &chunk.body())),
            Refusal::ChunkType(0)
        );
        assert_eq!(
            target.refuses(chunk_of(3, &chunk.body())),
            Refusal::ChunkType(3)
        );
        let whole = target.document().save();
        assert_eq!(target.refuses(whole), Refusal::ChunkType(0));
        target.goes_on();
    }
}

#[test]
fn another_encoding_of_the_same_change_is_refused() {
    for mut target in targets() {
        let honest = target.honest.change.clone();
        // The run of actions split in two.
        let mut chunk = Chunk::parse(&honest);
        let operations = target.expanded().operations.len();
        let action = chunk.get(66);
        if operations > 1 && action.len() == 2 {
            let rest = u8::try_from(operations - 1).unwrap();
            chunk.set(66, vec![1, action[1], rest, action[1]]);
            let split = chunk.seal();
            assert!(scan::scan(&split).is_ok());
            assert_eq!(target.refuses(split), Refusal::NotCanonical);
        }
        // A wrong checksum.
        let mut wrong = honest.clone();
        wrong[4] ^= 1;
        assert_eq!(target.refuses(wrong), Refusal::NotCanonical);
        // Bytes after the columns, which Automerge keeps; an author footer is such.
        let mut trailing = Chunk::parse(&honest).body();
        trailing.extend([1, 2, 7, 7]);
        assert_eq!(target.refuses(chunk_of(1, &trailing)), Refusal::Trailing);
        // Bytes after the chunk.
        let mut after = honest.clone();
        after.push(0);
        assert_eq!(target.refuses(after), Refusal::Truncated);
        // Two changes in one.
        let twice = [honest.clone(), honest.clone()].concat();
        assert_eq!(target.refuses(twice), Refusal::Truncated);
        // A length in more bytes than it needs.
        let body = Chunk::parse(&honest).body();
        let padded = chunk_with_length(1, &body, |out, length| {
            unsigned(out, length | 1 << 21);
            let last = out.len() - 1;
            out[last] = 0;
        });
        assert_eq!(target.refuses(padded), Refusal::Number);
        target.goes_on();
    }
}

#[test]
fn commit_messages_and_times_out_of_range_are_refused() {
    let message = |_: &Target, expanded: &mut ExpandedChange| {
        expanded.message = Some("\u{1b}[2J".to_owned());
    };
    all_refuse(message, |_, refusal| *refusal == Refusal::Message);
    for time in [-1, i64::MIN, i64::MAX, 1 << 40] {
        let late = move |_: &Target, expanded: &mut ExpandedChange| expanded.time = time;
        all_refuse(late, |_, refusal| *refusal == Refusal::Time);
    }
}

#[test]
fn dependencies_are_a_small_set_of_changes() {
    let none = |_: &Target, expanded: &mut ExpandedChange| expanded.deps.clear();
    all_refuse(none, |_, refusal| *refusal == Refusal::Dependencies);
    let twice =
        |_: &Target, expanded: &mut ExpandedChange| expanded.deps.extend(expanded.deps.clone());
    all_refuse(twice, |_, refusal| *refusal == Refusal::Dependencies);
    let many = |_: &Target, expanded: &mut ExpandedChange| {
        expanded.deps = (0..65).map(|number| ChangeHash([number; 32])).collect();
    };
    all_refuse(many, |_, refusal| *refusal == Refusal::TooManyDependencies);
}

#[test]
fn too_many_actors_bytes_and_long_keys_are_refused() {
    let actors = |_: &Target, expanded: &mut ExpandedChange| {
        let last = expanded.operations.last_mut().unwrap();
        last.pred = (0..65)
            .map(|number| OpId::new(1, &ActorId::from([number; 16].as_slice())))
            .collect();
    };
    all_refuse(actors, |_, refusal| *refusal == Refusal::TooManyActors);
    let bytes = |_: &Target, expanded: &mut ExpandedChange| {
        expanded
            .operations
            .push(put(ObjectId::Root, "title", "x".repeat(70_000).as_str()));
    };
    all_refuse(bytes, |_, refusal| {
        matches!(refusal, Refusal::TooLong { .. })
    });
    let key = |_: &Target, expanded: &mut ExpandedChange| {
        expanded
            .operations
            .push(put(ObjectId::Root, &"x".repeat(300), true));
    };
    all_refuse(key, |_, refusal| *refusal == Refusal::LongKey);
}

#[test]
fn what_waits_for_a_change_that_was_refused_is_refused_with_it() {
    for mut target in targets() {
        let refused = target.poisoned();
        let hash = Change::from_bytes(refused.clone()).unwrap().hash();
        let child = target.altered(|expanded| expanded.deps = vec![hash]);
        let waiting = target.give(child);
        let missing = vec![gate::hash_of(&hash)];
        assert_eq!(verdicts(waiting), [(10, Verdict::Held { missing })]);

        let Writer {
            member: author,
            nonce,
        } = target.author;
        let given = Incoming {
            author,
            position: 9,
            nonce,
            change: refused,
        };
        let settled = verdicts(
            target
                .documents
                .receive(&target.name(), vec![given])
                .unwrap(),
        );

        let expected = [
            (9, Verdict::Refused(Refusal::NoSuchObject)),
            (10, Verdict::Refused(Refusal::RefusedAncestor)),
        ];
        assert_eq!(settled, expected);
        target.goes_on();
    }
}

#[test]
fn nobody_writes_the_chat_the_profile_or_the_presence_of_another() {
    for mut target in [chat_target(), member_target(), presence_target()] {
        let owner = target.author;
        // With the owner's own bytes, and with bytes made for the intruder's actor.
        target.author = writer(2, 1);
        let stolen = target.honest.change.clone();
        assert_eq!(target.refuses(stolen), Refusal::NotTheWriter);
        let actor = target.actor();
        let forged = target.altered(|expanded| {
            expanded.actor_id = actor;
            expanded.seq = 1;
        });
        assert_eq!(target.refuses(forged.clone()), Refusal::NotTheWriter);
        // The owner is made to sign under an actor that is not its own.
        target.author = owner;
        assert_eq!(target.refuses(forged), Refusal::ForeignActor);
        target.goes_on();
    }
}

#[test]
fn a_change_under_the_actor_of_another_member_document_or_process_is_refused() {
    for mut target in targets() {
        let (member, nonce) = (target.author.member, target.author.nonce);
        let id = *target.document().id();
        let elsewhere = DocumentName::Member {
            owner: super::member(77),
        }
        .id(&SESSION);
        let genesis = target.document().automerge().get_changes(&[])[0]
            .actor_id()
            .clone();
        let actors = [
            actor_of(&super::member(2), &id, &nonce),
            actor_of(&member, &elsewhere, &nonce),
            actor_of(&member, &id, &ActorNonce([200; 16])),
            genesis,
        ];
        for actor in actors {
            let change = target.altered(|expanded| expanded.actor_id = actor);
            assert_eq!(target.refuses(change), Refusal::ForeignActor);
        }
        target.goes_on();
    }
}

#[test]
fn nothing_that_was_said_can_be_deleted_or_altered() {
    let message = |target: &Target| {
        let last = Change::from_bytes(target.last.change.clone()).unwrap();
        OpId::new(last.start_op().get(), last.actor_id())
    };
    let text = |target: &Target| {
        let id = message(target);
        OpId::new(id.counter() + 3, id.actor())
    };
    let in_list = |target: &Target, action, pred| {
        let element = Key::Seq(ElementId::Id(message(target)));
        operation(container(target), element, action, pred)
    };
    let in_message = |target: &Target, action, pred| {
        operation(
            ObjectId::Id(message(target)),
            Key::Map("text".into()),
            action,
            pred,
        )
    };
    let acts: [&dyn Fn(&Target) -> Op; 5] = [
        &|target| in_list(target, OpType::Delete, vec![message(target)]),
        &|target| in_list(target, OpType::Make(ObjType::Map), vec![message(target)]),
        &|target| in_list(target, OpType::Put("x".into()), vec![message(target)]),
        &|target| in_message(target, OpType::Put("never said".into()), vec![text(target)]),
        &|target| in_message(target, OpType::Delete, vec![text(target)]),
    ];
    for act in acts {
        let mut alone = chat_target();
        let change = alone.altered(|expanded| expanded.operations = vec![act(&chat_target())]);
        alone.refuses(change);
        // Beside an honest message as well.
        let change = alone.altered(|expanded| expanded.operations.push(act(&chat_target())));
        alone.refuses(change);
        let said: Vec<_> = alone
            .document()
            .messages()
            .iter()
            .map(|one| one.text.clone())
            .collect();
        assert_eq!(said, ["one", "two"]);
        alone.goes_on();
    }
}

#[test]
fn a_message_is_one_whole_message_at_the_end() {
    let mut chat = chat_target();
    let two = chat.altered(|expanded| {
        let insert = expanded.operations[0].clone();
        expanded.operations.push(insert);
    });
    assert_eq!(chat.refuses(two), Refusal::Vocabulary);
    let headless = chat.altered(|expanded| expanded.operations[0].key = Key::Seq(ElementId::Head));
    assert_eq!(chat.refuses(headless), Refusal::Place);
    for (missing, at) in [("at", 1), ("tick", 2), ("text", 3)] {
        let change = chat.altered(|expanded| drop(expanded.operations.remove(at)));
        assert_eq!(chat.refuses(change), Refusal::Incomplete(missing));
    }
    let made = chat.expanded().operations[1].obj.clone();
    let add = |chat: &Target, key: &str, value: ScalarValue| {
        chat.altered(|expanded| expanded.operations.push(put(made.clone(), key, value)))
    };
    let unknown = add(&chat, "html", "<b>".into());
    assert_eq!(chat.refuses(unknown), Refusal::Vocabulary);
    let twice = add(&chat, "text", "again".into());
    assert_eq!(chat.refuses(twice), Refusal::RepeatedKey);
    let crowd = add(&chat, "mentions", ScalarValue::Bytes(vec![1; 33 * 32]));
    assert_eq!(chat.refuses(crowd), Refusal::Value("mentions".to_owned()));
    let long = chat.altered(|expanded| {
        expanded.operations[3].action = OpType::Put("x".repeat(16 * 1024 + 1).as_str().into());
    });
    assert_eq!(chat.refuses(long), Refusal::Value("text".to_owned()));
    chat.goes_on();
}

#[test]
fn each_kind_of_document_knows_only_its_own_words() {
    let actions = [
        OpType::Make(ObjType::Text),
        OpType::Make(ObjType::List),
        OpType::Make(ObjType::Map),
        OpType::Make(ObjType::Table),
        OpType::Increment(1),
        OpType::Put(ScalarValue::counter(1)),
        OpType::Put(ScalarValue::F64(f64::NAN)),
        OpType::Put(ScalarValue::Unknown {
            type_code: 12,
            bytes: vec![1; 8],
        }),
        OpType::Put(ScalarValue::Bytes(vec![0; 17])),
    ];
    for action in &actions {
        for key in [
            "title",
            "text",
            "status",
            "name",
            "document",
            "settings",
            "__proto__",
            "",
        ] {
            let act = |target: &Target, expanded: &mut ExpandedChange| {
                let object = container(target);
                let object = if target.kind() == DocumentKind::Chat {
                    ObjectId::Root
                } else {
                    object
                };
                expanded.operations = vec![operation(
                    object,
                    Key::Map(key.into()),
                    action.clone(),
                    vec![],
                )];
            };
            all_refuse(act, |_, refusal| {
                matches!(
                    refusal,
                    Refusal::Vocabulary | Refusal::Value(_) | Refusal::Predecessors
                )
            });
        }
    }
}

#[test]
fn a_terminal_is_announced_whole_and_a_removed_one_is_gone() {
    let mut member = member_target();
    let announced = Change::from_bytes(member.last.change.clone())
        .unwrap()
        .decode();
    let next = member.expanded().start_op.get();
    let announce = |member: &Target, key: &str, left_out: usize| {
        member.altered(|expanded| {
            expanded.operations = announced.operations.clone();
            expanded.operations[0].key = Key::Map(key.into());
            let made = ObjectId::Id(OpId::new(next, &expanded.actor_id));
            for operation in expanded.operations.iter_mut().skip(1) {
                operation.obj = made.clone();
            }
            expanded
                .operations
                .truncate(expanded.operations.len() - left_out);
        })
    };
    let second = terminal(2).to_string();
    let part = announce(&member, &second, 1);
    assert_eq!(member.refuses(part), Refusal::Incomplete("opened"));
    let again = announce(&member, &terminal(1).to_string(), 0);
    assert_eq!(member.refuses(again), Refusal::Predecessors);
    let unnamed = announce(&member, "../../etc/passwd", 0);
    assert_eq!(member.refuses(unnamed), Refusal::Vocabulary);
    let list = container(&member);
    let made = OpId::new(announced.start_op.get(), &member.actor());
    let removed = member.altered(|expanded| {
        let key = Key::Map(terminal(1).to_string().as_str().into());
        let removal = operation(list, key, OpType::Delete, vec![made.clone()]);
        expanded.operations.insert(0, removal);
    });
    assert_eq!(member.refuses(removed), Refusal::NoSuchObject);
    member.goes_on();
}

#[test]
fn a_presence_generation_is_bounded_and_begins_with_the_whole_state() {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let first = here
        .begin_presence(&ada, Wall(1), (1, 1), &PresenceState::online(Wall(1)))
        .unwrap();
    let mut expanded = Change::from_bytes(first.change.clone()).unwrap().decode();
    expanded.operations.remove(0);
    let change = Change::from(expanded).raw_bytes().to_vec();
    let given = Incoming {
        author: ada.member,
        position: 0,
        nonce: ada.nonce,
        change,
    };
    let mut there = Documents::new(SESSION);
    let refused = verdicts(there.receive(&first.document, vec![given]).unwrap());
    assert!(matches!(
        refused[..],
        [(0, Verdict::Refused(Refusal::Incomplete(_)))]
    ));
    assert_eq!(there.presence(&ada.member), None);

    let at = |time| PresenceState::online(Wall(time));
    for time in 2..=limits::PRESENCE_GENERATION_CHANGES_MAX as u64 {
        here.update_presence(&ada, Wall(time), &at(time))
            .unwrap()
            .unwrap();
    }
    let full = here.update_presence(&ada, Wall(5000), &at(5000));
    assert_eq!(full, Err(WriteError::Refused(Refusal::Full)));
    here.begin_presence(&ada, Wall(5000), (1, 2), &at(5000))
        .unwrap();
    let screens = (0..200)
        .map(|number| (terminal(number), ScreenMark::default()))
        .collect();
    let many = PresenceState {
        screens,
        ..at(5001)
    };
    let crowded = here.update_presence(&ada, Wall(5001), &many);
    assert_eq!(crowded, Err(WriteError::Refused(Refusal::Full)));
}

#[test]
fn a_hostile_change_in_a_batch_takes_no_honest_one_with_it() {
    for mut target in targets() {
        let hostile = target.poisoned();
        let Writer {
            member: author,
            nonce,
        } = target.author;
        let batch = [hostile, target.honest.change.clone()]
            .into_iter()
            .zip(20..);
        let batch = batch.map(|(change, position)| Incoming {
            author,
            position,
            nonce,
            change,
        });

        let settled = target
            .documents
            .receive(&target.name(), batch.collect())
            .unwrap();

        let expected = [
            (20, Verdict::Refused(Refusal::NoSuchObject)),
            (21, Verdict::Accepted),
        ];
        assert_eq!(verdicts(settled), expected);
        loads(target.document());
    }
}

#[test]
fn a_failure_of_automerge_freezes_the_document_in_its_last_good_state_and_is_no_verdict() {
    for target in targets() {
        let poison = target.poisoned();
        let poison = Change::from_bytes(poison).unwrap();
        let (heads, saved) = (target.document().heads(), target.document().save());
        let mut documents = target.documents;
        let name = target.honest.document;
        let mut document = documents.remove(&name).unwrap();

        let fault = document.fail_with(poison);

        assert_eq!(document.fault(), Some(&fault));
        assert_eq!((document.heads(), document.save()), (heads, saved));
        loads(&document);
        let refused = document.write(&target.author, Wall(9), |_| Ok(()));
        assert_eq!(refused, Err(WriteError::Frozen(fault.clone())));
        if name.stored() {
            documents.stored.insert(name, document);
        } else {
            documents.presence.insert(target.author.member, document);
        }
        let given = vec![incoming(&target.author, 30, &target.honest)];
        assert_eq!(documents.receive(&name, given), Err(fault));
        assert_eq!(documents.faults().count(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_mutation_or_truncation_panics_or_spoils_a_document(
        which in 0..4_usize,
        cut in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..6),
        sealed in any::<bool>(),
    ) {
        let mut target = targets().swap_remove(which);
        let mut bytes = target.honest.change.clone();
        if edits.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        let whole = Chunk::parse(&target.honest.change).body();
        let mut body = if sealed { whole } else { bytes };
        for (at, value, how) in edits {
            let at = at.index(body.len());
            match how {
                0 => body[at] = value,
                1 => body.insert(at, value),
                _ => drop(body.remove(at)),
            }
        }
        let bytes = if sealed { chunk_of(1, &body) } else { body };

        let settled = target.give(bytes);

        prop_assert!(settled.len() <= 1);
        prop_assert_eq!(target.documents.faults().count(), 0);
        loads(target.document());
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(scan::scan(&bytes).is_err());
        prop_assert!(scan::scan(&chunk_of(1, &bytes)).is_err());
    }
}

/// How an entry of a log is falsified.
#[derive(Debug, Clone, Copy)]
enum Falsity {
    /// Another change with the same number comes before the honest one.
    TwinBefore,
    /// Another change with the same number comes after the honest one.
    TwinAfter,
    /// An object that does not exist.
    Poison,
    /// A later number.
    Gap,
    /// An operation number that does not follow.
    Start,
    /// No dependencies but the first change.
    Forgetful,
    /// Not even a chunk.
    Garbage,
}

fn falsify(honest: &LocalChange, falsity: Falsity) -> Vec<LocalChange> {
    let mut expanded = Change::from_bytes(honest.change.clone()).unwrap().decode();
    match falsity {
        Falsity::TwinBefore | Falsity::TwinAfter => expanded.time += 1,
        Falsity::Poison => {
            expanded.operations[0].obj = ObjectId::Id(OpId::new(1, &expanded.actor_id));
        }
        Falsity::Gap => expanded.seq += 1,
        Falsity::Start => expanded.start_op = expanded.start_op.saturating_add(1),
        Falsity::Forgetful => {
            let blank = Document::new(SESSION, honest.document).unwrap();
            expanded.deps = blank
                .heads()
                .iter()
                .map(|hash| ChangeHash(hash.0))
                .collect();
        }
        Falsity::Garbage => {}
    }
    let mut change = Change::from(expanded).raw_bytes().to_vec();
    if let Falsity::Garbage = falsity {
        change.truncate(20);
    }
    let false_one = LocalChange {
        change,
        ..honest.clone()
    };
    match falsity {
        Falsity::TwinBefore => vec![false_one, honest.clone()],
        Falsity::TwinAfter => vec![honest.clone(), false_one],
        Falsity::Poison | Falsity::Gap | Falsity::Start | Falsity::Forgetful | Falsity::Garbage => {
            vec![false_one]
        }
    }
}

/// Delivers all logs, the authors' next entries in this order, then the rest.
fn deliver(
    logs: &[Vec<LocalChange>],
    order: &[usize],
) -> (Documents, BTreeMap<(usize, u64), Verdict>) {
    let mut documents = Documents::new(SESSION);
    let mut verdicts = BTreeMap::new();
    let mut next = vec![0; logs.len()];
    let rest = (0..logs.len()).flat_map(|of| std::iter::repeat_n(of, logs[of].len()));
    for of in order.iter().copied().chain(rest) {
        let Some(change) = logs[of].get(next[of]) else {
            continue;
        };
        let author = writer(u8::try_from(of).unwrap() + 1, 0);
        let given = vec![incoming(&author, next[of] as u64, change)];
        next[of] += 1;
        for settled in documents.receive(&change.document, given).unwrap() {
            let of = usize::from(settled.author.0[0]) - 1;
            // What a waiting change lacks depends on when it is asked; that it waits does not.
            let waits = matches!(settled.verdict, Verdict::Held { .. });
            let verdict = if waits {
                Verdict::Held { missing: vec![] }
            } else {
                settled.verdict
            };
            verdicts.insert((of, settled.position), verdict);
        }
    }
    (documents, verdicts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_order_of_arrival_all_replicas_reach_the_same_verdicts(
        acts in acts(3),
        false_ones in proptest::collection::vec(
            (0..3_usize, any::<prop::sample::Index>(), prop::sample::select(vec![
                Falsity::TwinBefore, Falsity::TwinAfter, Falsity::Poison, Falsity::Gap,
                Falsity::Start, Falsity::Forgetful, Falsity::Garbage,
            ])),
            1..6,
        ),
        one in proptest::collection::vec(0..3_usize, 0..200),
        other in proptest::collection::vec(0..3_usize, 0..200),
    ) {
        let replicas = run(3, &acts);
        let mut logs: Vec<_> = (0..3).map(|me| replicas[me].logs[me].clone()).collect();
        for (of, at, falsity) in false_ones {
            if !logs[of].is_empty() {
                let at = at.index(logs[of].len());
                if Change::from_bytes(logs[of][at].change.clone()).is_ok() {
                    let replaced = falsify(&logs[of][at], falsity);
                    logs[of].splice(at..=at, replaced);
                }
            }
        }

        let (first, first_verdicts) = deliver(&logs, &one);
        let (second, second_verdicts) = deliver(&logs, &other);

        prop_assert_eq!(first_verdicts, second_verdicts);
        prop_assert_eq!(first.heads(), second.heads());
        prop_assert_eq!(first.session(), second.session());
        prop_assert_eq!(first.timeline(), second.timeline());
        for name in first.heads().keys() {
            loads(first.document(name).unwrap());
        }
    }
}

/// A change chunk, taken apart into what stands before the columns and the columns themselves.
struct Chunk {
    before: Vec<u8>,
    columns: BTreeMap<u32, Vec<u8>>,
}

impl Chunk {
    fn parse(bytes: &[u8]) -> Self {
        let mut rest = &bytes[9..];
        let _ = take_unsigned(&mut rest);
        let body = rest;
        let dependencies = take_unsigned(&mut rest);
        rest = &rest[32 * usize::try_from(dependencies).unwrap()..];
        take_prefixed(&mut rest);
        take_unsigned(&mut rest);
        take_unsigned(&mut rest);
        while rest[0] & 0x80 != 0 {
            rest = &rest[1..];
        }
        rest = &rest[1..];
        take_prefixed(&mut rest);
        for _ in 0..take_unsigned(&mut rest) {
            take_prefixed(&mut rest);
        }
        let before = body[..body.len() - rest.len()].to_vec();
        let headers: Vec<_> = (0..take_unsigned(&mut rest))
            .map(|_| (take_unsigned(&mut rest), take_unsigned(&mut rest)))
            .collect();
        let mut columns = BTreeMap::new();
        for (id, length) in headers {
            let (data, others) = rest.split_at(usize::try_from(length).unwrap());
            columns.insert(u32::try_from(id).unwrap(), data.to_vec());
            rest = others;
        }
        assert!(rest.is_empty());
        Self { before, columns }
    }

    fn columns(&self) -> Vec<u32> {
        self.columns.keys().copied().collect()
    }

    fn get(&self, column: u32) -> Vec<u8> {
        self.columns[&column].clone()
    }

    fn set(&mut self, column: u32, data: Vec<u8>) {
        self.columns.insert(column, data);
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.before.clone();
        unsigned(&mut body, self.columns.len() as u64);
        for (id, data) in &self.columns {
            unsigned(&mut body, u64::from(*id));
            unsigned(&mut body, data.len() as u64);
        }
        body.extend(self.columns.values().flatten());
        body
    }

    fn seal(&self) -> Vec<u8> {
        chunk_of(1, &self.body())
    }
}

fn chunk_of(kind: u8, body: &[u8]) -> Vec<u8> {
    chunk_with_length(kind, body, unsigned)
}

/// A chunk with the checksum that Automerge wants: the first bytes of the SHA-256 of all that follows it.
fn chunk_with_length(kind: u8, body: &[u8], length: impl Fn(&mut Vec<u8>, u64)) -> Vec<u8> {
    let mut summed = vec![kind];
    length(&mut summed, body.len() as u64);
    summed.extend(body);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend(&Sha256::digest(&summed)[..4]);
    chunk.extend(summed);
    chunk
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        let done = (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0);
        out.push(if done { byte } else { byte | 0x80 });
        if done {
            return;
        }
    }
}

fn take_unsigned(rest: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn take_prefixed(rest: &mut &[u8]) {
    let length = usize::try_from(take_unsigned(rest)).unwrap();
    *rest = &rest[length..];
}
