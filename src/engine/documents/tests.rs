//! The documents through their public face: what honest members do always goes through and converges; what
//! hostile ones do (in [`hostile`]) never changes anything.

mod hostile;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::engine::command::{Active, Anchor, Ask, ControlMode, Pointer, Selection, Typing};
use crate::engine::event::Path;
use crate::engine::limits;
use crate::engine::view::Status;

const SESSION: SessionId = SessionId([7; 32]);

fn member(number: u8) -> MemberId {
    MemberId([number; 32])
}

/// A process of a member: a restart is another one.
fn writer(number: u8, start: u8) -> Writer {
    Writer {
        member: member(number),
        nonce: ActorNonce([start; 16]),
    }
}

fn terminal(number: u8) -> TerminalId {
    TerminalId([number; 16])
}

fn draft(text: &str) -> Draft {
    Draft {
        text: text.to_owned(),
        ..Draft::default()
    }
}

fn incoming(author: &Writer, position: u64, change: &LocalChange) -> Incoming {
    Incoming {
        author: author.member,
        position,
        nonce: change.nonce,
        change: change.change.clone(),
    }
}

fn title(title: &str) -> Vec<SessionFact> {
    vec![SessionFact::Title(title.to_owned())]
}

/// Delivers one change to documents that must accept it.
fn accept(documents: &mut Documents, author: &Writer, position: u64, change: &LocalChange) {
    let settled = documents.receive(&change.document, vec![incoming(author, position, change)]);
    let verdicts: Vec<_> = settled
        .unwrap()
        .into_iter()
        .map(|one| one.verdict)
        .collect();
    assert_eq!(verdicts, [Verdict::Accepted]);
}

fn verdicts(settled: Vec<Settled>) -> Vec<(u64, Verdict)> {
    settled
        .into_iter()
        .map(|one| (one.position, one.verdict))
        .collect()
}

#[test]
fn every_fact_of_the_session_reaches_another_replica() {
    let (host, mut here, mut there) = (
        writer(1, 1),
        Documents::new(SESSION),
        Documents::new(SESSION),
    );
    let facts = [
        SessionFact::Title("pair on the parser".to_owned()),
        SessionFact::Created(Wall(1000)),
        SessionFact::Public(true),
        SessionFact::Expires(Some(Wall(9000))),
        SessionFact::Setting(Setting::Ask(Ask::Always)),
        SessionFact::Setting(Setting::Control(ControlMode::Auto)),
        SessionFact::Setting(Setting::LateJoiner(LateJoiner::Lines(500))),
    ];

    let change = here
        .write_session(&host, Wall(2000), &facts)
        .unwrap()
        .unwrap();
    accept(&mut there, &host, 0, &change);

    let expected = SessionState {
        title: "pair on the parser".to_owned(),
        public: true,
        created: Some(Wall(1000)),
        updated: Some(Wall(2000)),
        expires: Some(Wall(9000)),
        ask: Ask::Always,
        control: ControlMode::Auto,
        late_joiner: LateJoiner::Lines(500),
    };
    assert_eq!(here.session(), &expected);
    assert_eq!(there.session(), &expected);
    assert_eq!(here.heads(), there.heads());
    assert_eq!(here.write_session(&host, Wall(3000), &facts), Ok(None));
    let never = here
        .write_session(&host, Wall(4000), &[SessionFact::Expires(None)])
        .unwrap()
        .unwrap();
    accept(&mut there, &host, 1, &never);
    assert_eq!(there.session().expires, None);
    assert_eq!(there.session().updated, Some(Wall(4000)));
}

#[test]
fn a_members_terminals_are_announced_resized_retitled_and_closed() {
    let (host, mut here, mut there) = (
        writer(1, 1),
        Documents::new(SESSION),
        Documents::new(SESSION),
    );

    let changes = [
        here.write_profile(&host, Wall(1), "ada", Kind::Agent),
        here.announce_terminal(&host, Wall(2), terminal(1), "bash", (80, 24)),
        here.announce_terminal(&host, Wall(3), terminal(2), "", (100, 30)),
        here.resize_terminal(&host, Wall(4), terminal(1), (120, 24)),
        here.retitle_terminal(&host, Wall(5), terminal(1), "vim"),
        here.close_terminal(&host, Wall(6), terminal(1), Some(ExitStatus(130))),
        here.close_terminal(&host, Wall(7), terminal(2), None),
    ];
    for (position, change) in (0..).zip(changes) {
        accept(&mut there, &host, position, &change.unwrap().unwrap());
    }

    let state = there.member(&member(1)).unwrap();
    assert_eq!(
        (state.name.as_deref(), state.kind),
        (Some("ada"), Some(Kind::Agent))
    );
    let expected = TerminalState {
        title: "vim".to_owned(),
        cols: 120,
        rows: 24,
        state: Running::Closed {
            status: Some(ExitStatus(130)),
            at: Wall(6),
        },
        opened: Wall(2),
    };
    assert_eq!(state.terminals.get(&terminal(1)), Some(&expected));
    let closed = Running::Closed {
        status: None,
        at: Wall(7),
    };
    assert_eq!(state.terminals[&terminal(2)].state, closed);
    assert_eq!(here.member(&member(1)), there.member(&member(1)));
    assert_eq!(
        here.close_terminal(&host, Wall(8), terminal(1), None),
        Ok(None)
    );
    let unknown = here.resize_terminal(&host, Wall(8), terminal(9), (80, 24));
    assert_eq!(unknown, Err(WriteError::NoSuchTerminal(terminal(9))));
}

#[test]
fn a_host_of_many_shells_keeps_its_open_ones_and_the_newest_closed_ones_listed() {
    let (host, mut here, mut there) = (
        writer(1, 1),
        Documents::new(SESSION),
        Documents::new(SESSION),
    );
    let mut position = 0;
    let mut deliver = |there: &mut Documents, change: Result<Option<LocalChange>, WriteError>| {
        accept(there, &host, position, &change.unwrap().unwrap());
        position += 1;
    };

    deliver(
        &mut there,
        here.announce_terminal(&host, Wall(1), terminal(0), "first", (80, 24)),
    );
    for number in 1..=100 {
        let at = Wall(u64::from(number));
        deliver(
            &mut there,
            here.announce_terminal(&host, at, terminal(number), "x", (80, 24)),
        );
        deliver(
            &mut there,
            here.close_terminal(&host, at, terminal(number), None),
        );
    }

    let listed: Vec<_> = there
        .member(&member(1))
        .unwrap()
        .terminals
        .keys()
        .copied()
        .collect();
    assert_eq!(listed.len(), 33);
    assert_eq!(listed[0], terminal(0));
    assert_eq!(listed.last(), Some(&terminal(100)));
}

#[test]
fn a_message_carries_mentions_reply_and_anchor() {
    let (ada, bob) = (writer(1, 1), writer(2, 1));
    let (mut here, mut there) = (Documents::new(SESSION), Documents::new(SESSION));
    let (first, question) = here.post(&ada, Wall(1000), &draft("why red?")).unwrap();
    accept(&mut there, &ada, 0, &first);

    let answer = Draft {
        text: "look at line 3 👀".to_owned(),
        mentions: vec![member(1), member(3)],
        reply: Some(question.id),
        anchor: Some(Anchor::File {
            path: "src/lib.rs".to_owned(),
            line: 3,
        }),
    };
    let (change, _) = there.post(&bob, Wall(1000), &answer).unwrap();
    accept(&mut here, &bob, 0, &change);
    let row = Anchor::Terminal {
        terminal: terminal(1),
        row: 23,
    };
    let pointing = Draft {
        anchor: Some(row.clone()),
        ..draft("here")
    };
    let (change, _) = there.post(&bob, Wall(1001), &pointing).unwrap();
    accept(&mut here, &bob, 1, &change);

    let shown = here.timeline().newest(10);
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[1].text, "look at line 3 👀");
    assert_eq!(shown[1].mentions, [member(1), member(3)]);
    assert_eq!(shown[1].reply, Some(shown[0].id));
    assert_eq!(shown[1].anchor, answer.anchor);
    assert_eq!((shown[2].anchor.as_ref(), shown[2].seq), (Some(&row), 1));
    assert_eq!(here.timeline(), there.timeline());
    assert_eq!(here.timeline().get(&question.id).unwrap().text, "why red?");
}

#[test]
fn chat_goes_on_in_a_next_document_when_one_is_full() {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let total = limits::CHAT_DOCUMENT_MESSAGES_MAX + 2;
    let posted: Vec<LocalChange> = (0..total)
        .map(|number| {
            here.post(&ada, Wall(number as u64), &draft(&format!("m{number}")))
                .unwrap()
                .0
        })
        .collect();
    let index = |change: &LocalChange| change.document;
    assert_eq!(
        index(&posted[4095]),
        DocumentName::Chat {
            owner: member(1),
            index: 0
        }
    );
    assert_eq!(
        index(&posted[4096]),
        DocumentName::Chat {
            owner: member(1),
            index: 1
        }
    );

    // The second document arrives first and waits for the first to be full.
    let mut there = Documents::new(SESSION);
    let deliver = |there: &mut Documents, range: std::ops::Range<usize>| {
        let batch = range
            .clone()
            .map(|at| incoming(&ada, at as u64, &posted[at]))
            .collect();
        verdicts(there.receive(&posted[range.start].document, batch).unwrap())
    };
    let early = deliver(&mut there, 4096..total);
    assert!(
        early
            .iter()
            .all(|(_, verdict)| *verdict == Verdict::Held { missing: vec![] })
    );
    assert_eq!(there.timeline().len(), 0);
    let rest = deliver(&mut there, 0..4096);

    assert_eq!(
        rest.iter()
            .filter(|(_, verdict)| *verdict == Verdict::Accepted)
            .count(),
        total
    );
    assert_eq!(there.timeline(), here.timeline());
    let seqs: Vec<u64> = there.timeline().iter().map(|message| message.seq).collect();
    assert_eq!(seqs, (0..total as u64).collect::<Vec<_>>());
}

#[test]
fn a_stamp_follows_what_was_read_but_not_one_far_ahead() {
    let (ada, bob, eve) = (writer(1, 1), writer(2, 1), writer(3, 1));
    let mut here = Documents::new(SESSION);
    let mut others = Documents::new(SESSION);
    let now = Wall(1_000_000);
    let ahead = Wall(now.0 + 5 * 60_000);
    let (of_bob, _) = others
        .post(&bob, ahead, &draft("my clock is 5 minutes fast"))
        .unwrap();
    accept(&mut here, &bob, 0, &of_bob);
    let far = Wall(now.0 + 11 * 60_000);
    let (of_eve, from_eve) = others
        .post(&eve, far, &draft("mine is 11 minutes fast"))
        .unwrap();
    accept(&mut here, &eve, 0, &of_eve);

    let (_, mine) = here.post(&ada, now, &draft("reply")).unwrap();

    assert_eq!(
        mine.stamp,
        Stamp {
            wall: ahead,
            tick: 1
        }
    );
    assert!(from_eve.stamp.is_ahead(now) && !mine.stamp.is_ahead(now));
    let order: Vec<_> = here
        .timeline()
        .iter()
        .map(|message| message.author)
        .collect();
    assert_eq!(order, [member(2), member(1), member(3)]);
    assert_eq!(
        Stamp::after(
            Stamp {
                wall: now,
                tick: u32::MAX
            },
            now
        )
        .wall,
        Wall(now.0 + 1)
    );
}

#[test]
fn presence_is_replaced_by_each_generation_and_updated_within_one() {
    let (ada, mut here, mut there) = (
        writer(1, 1),
        Documents::new(SESSION),
        Documents::new(SESSION),
    );
    let state = PresenceState {
        status: Status::Idle,
        pointer: Some(Pointer {
            terminal: terminal(1),
            row: 3,
            column: 70,
        }),
        selection: Some(Selection {
            terminal: terminal(1),
            from: (0, 1),
            to: (2, 3),
        }),
        active: Some(Active::File("src/main.rs".to_owned())),
        typing: Some(Typing::Chat),
        path: Some(Path::Relayed),
        screens: BTreeMap::from([(
            terminal(1),
            ScreenMark {
                epoch: 2,
                version: u64::MAX,
            },
        )]),
        routes: BTreeMap::from([(terminal(2), vec![member(4), member(5)])]),
        ..PresenceState::online(Wall(5))
    };
    let first = here.begin_presence(&ada, Wall(5), (1, 1), &state).unwrap();
    accept(&mut there, &ada, 1, &first);
    assert_eq!(there.presence(&member(1)), Some(&state));

    let moved = PresenceState {
        status: Status::Online,
        selection: None,
        active: Some(Active::Terminal(terminal(1))),
        typing: Some(Typing::Terminal(terminal(1))),
        routes: BTreeMap::new(),
        ..state.clone()
    };
    let update = here
        .update_presence(&ada, Wall(6), &moved)
        .unwrap()
        .unwrap();
    assert_eq!(here.update_presence(&ada, Wall(6), &moved), Ok(None));
    accept(&mut there, &ada, 2, &update);
    assert_eq!(there.presence(&member(1)), Some(&moved));

    let next = here
        .begin_presence(&ada, Wall(7), (1, 2), &PresenceState::online(Wall(7)))
        .unwrap();
    accept(&mut there, &ada, 3, &next);
    assert_eq!(
        there.presence(&member(1)),
        Some(&PresenceState::online(Wall(7)))
    );
    assert_eq!(there.presence_generation(&member(1)), Some((1, 2)));
    let old = there
        .receive(&first.document, vec![incoming(&ada, 1, &first)])
        .unwrap();
    assert_eq!(verdicts(old), [(1, Verdict::Stale)]);
    there.forget_presence(&member(1));
    assert_eq!(there.presence(&member(1)), None);
}

#[test]
fn a_lost_presence_update_costs_at_most_one_generation() {
    let (ada, mut here, mut there) = (
        writer(1, 1),
        Documents::new(SESSION),
        Documents::new(SESSION),
    );
    let at = |row| PresenceState {
        pointer: Some(Pointer {
            terminal: terminal(1),
            row,
            column: 0,
        }),
        ..PresenceState::online(Wall(1))
    };
    let mut said = vec![here.begin_presence(&ada, Wall(1), (1, 1), &at(0)).unwrap()];
    said.extend((1..=4).map(|row| {
        here.update_presence(&ada, Wall(1), &at(row))
            .unwrap()
            .unwrap()
    }));
    let row = |there: &Documents| there.presence(&member(1)).unwrap().pointer.unwrap().row;

    accept(&mut there, &ada, 0, &said[0]);
    for lost_one in [3, 2] {
        let held = there.receive(
            &said[0].document,
            vec![incoming(&ada, lost_one as u64, &said[lost_one])],
        );
        assert!(matches!(
            held.unwrap()[..],
            [Settled {
                verdict: Verdict::Held { .. },
                ..
            }]
        ));
    }
    assert_eq!(row(&there), 0);
    let late = there
        .receive(&said[0].document, vec![incoming(&ada, 1, &said[1])])
        .unwrap();
    assert_eq!(late.len(), 3);
    assert_eq!(row(&there), 3);

    // Of the next generation an update comes first: it waits, and the state heard so far stays.
    let next = here.begin_presence(&ada, Wall(2), (1, 2), &at(9)).unwrap();
    let update = here
        .update_presence(&ada, Wall(2), &at(10))
        .unwrap()
        .unwrap();
    there
        .receive(&next.document, vec![incoming(&ada, 6, &update)])
        .unwrap();
    assert_eq!(row(&there), 3);
    there
        .receive(&next.document, vec![incoming(&ada, 5, &next)])
        .unwrap();
    assert_eq!(row(&there), 10);
}

#[test]
fn a_change_waits_for_what_it_builds_on_and_then_goes_in_by_itself() {
    let (host, other) = (writer(1, 1), writer(2, 1));
    let (mut here, mut there, mut late) = (
        Documents::new(SESSION),
        Documents::new(SESSION),
        Documents::new(SESSION),
    );
    let first = here
        .write_session(&host, Wall(1), &title("one"))
        .unwrap()
        .unwrap();
    accept(&mut there, &host, 0, &first);
    let second = there
        .write_session(&other, Wall(2), &title("two"))
        .unwrap()
        .unwrap();
    let third = there
        .write_session(&other, Wall(3), &title("three"))
        .unwrap()
        .unwrap();

    let batch = vec![incoming(&other, 1, &third), incoming(&other, 0, &second)];
    let held = verdicts(late.receive(&DocumentName::Session, batch).unwrap());
    let waiting = |missing| Verdict::Held { missing };
    assert_eq!(held, [(0, waiting(vec![first.hash])), (1, waiting(vec![]))]);
    let rest = late
        .receive(&DocumentName::Session, vec![incoming(&host, 0, &first)])
        .unwrap();

    assert_eq!(rest.len(), 3);
    assert!(rest.iter().all(|one| one.verdict == Verdict::Accepted));
    assert_eq!(late.session().title, "three");
    assert_eq!(late.heads(), there.heads());
    let again = late
        .receive(&DocumentName::Session, vec![incoming(&other, 1, &third)])
        .unwrap();
    assert_eq!(verdicts(again), [(1, Verdict::Known)]);
}

#[test]
fn what_finds_no_room_is_let_go_and_wanted_again_once_the_document_has_grown() {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let said: Vec<LocalChange> = (0..1200)
        .map(|at| here.post(&ada, Wall(at), &draft("x")).unwrap().0)
        .collect();
    let name = said[0].document;
    let given = |range: std::ops::Range<usize>| -> Vec<Incoming> {
        range
            .map(|at| incoming(&ada, at as u64, &said[at]))
            .collect()
    };
    let mut there = Documents::new(SESSION);

    let held = there.receive(&name, given(1..1200)).unwrap();
    let let_go = held
        .iter()
        .filter(|one| one.verdict == Verdict::LetGo)
        .count();
    assert_eq!(let_go, 1199 - limits::HELD_AUTHOR_CHANGES_MAX);
    assert_eq!(there.wanted(), BTreeSet::new());
    there.receive(&name, given(0..1)).unwrap();

    assert_eq!(there.timeline().len(), 1001);
    assert_eq!(there.wanted(), BTreeSet::from([(name, member(1))]));
    there.receive(&name, given(0..1200)).unwrap();
    assert_eq!(there.timeline(), here.timeline());
    assert_eq!(there.wanted(), BTreeSet::new());
}

#[test]
fn a_rebuilt_document_holds_the_accepted_changes_and_no_others() {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    let said: Vec<LocalChange> = ["one", "two", "three"]
        .iter()
        .map(|text| here.post(&ada, Wall(1), &draft(text)).unwrap().0)
        .collect();
    let name = said[0].document;
    let kept = said[..2]
        .iter()
        .zip(0..)
        .map(|(change, at)| incoming(&ada, at, change))
        .collect();

    let settled = here.rebuild(&name, kept).unwrap();

    assert_eq!(settled.len(), 2);
    let shown: Vec<_> = here
        .timeline()
        .iter()
        .map(|message| message.text.as_str())
        .collect();
    assert_eq!(shown, ["one", "two"]);
    assert_eq!(here.document(&name).unwrap().heads(), [said[1].hash]);
    let (_, fourth) = here.post(&writer(1, 2), Wall(2), &draft("four")).unwrap();
    assert_eq!(fourth.seq, 2);
}

#[test]
fn a_member_that_restarts_goes_on_under_a_new_actor() {
    let (before, after) = (writer(1, 1), writer(1, 2));
    let (mut here, mut there) = (Documents::new(SESSION), Documents::new(SESSION));
    let (first, _) = here.post(&before, Wall(1), &draft("one")).unwrap();
    let mut restarted = Documents::new(SESSION);
    accept(&mut restarted, &before, 0, &first);

    let (second, _) = restarted.post(&after, Wall(2), &draft("two")).unwrap();
    accept(&mut there, &before, 0, &first);
    accept(&mut there, &after, 1, &second);

    assert_eq!(there.timeline().len(), 2);
}

#[test]
fn a_document_of_a_hundred_concurrent_writers_can_still_be_written() {
    let writers: Vec<Writer> = (1..=100).map(|number| writer(number, 1)).collect();
    let mut here = Documents::new(SESSION);
    for writer in &writers {
        let mut alone = Documents::new(SESSION);
        let text = format!("title of {}", writer.member.short());
        let change = alone
            .write_session(writer, Wall(1), &title(&text))
            .unwrap()
            .unwrap();
        accept(&mut here, writer, 0, &change);
    }
    let heads = |documents: &Documents| documents.heads()[&DocumentName::Session].len();
    assert_eq!(heads(&here), 100);
    let mut there = Documents::new(SESSION);
    let everything = |documents: &mut Documents, change: &LocalChange, position| {
        accept(documents, &writers[6], position, change);
    };

    for position in 1..=5 {
        let public = [SessionFact::Public(position % 2 == 1)];
        let change = here
            .write_session(&writers[6], Wall(2), &public)
            .unwrap()
            .unwrap();
        assert_eq!(change.document, DocumentName::Session);
        if position == 1 {
            for writer in &writers {
                let mut alone = Documents::new(SESSION);
                let text = format!("title of {}", writer.member.short());
                let same = alone
                    .write_session(writer, Wall(1), &title(&text))
                    .unwrap()
                    .unwrap();
                accept(&mut there, writer, 0, &same);
            }
        }
        everything(&mut there, &change, position);
    }

    assert_eq!(heads(&here), 1);
    assert_eq!(here.session(), there.session());
    let last = here
        .write_session(&writers[70], Wall(3), &title("settled"))
        .unwrap()
        .unwrap();
    accept(&mut there, &writers[70], 1, &last);
    assert_eq!(there.session().title, "settled");
}

#[test]
fn what_the_gate_would_refuse_is_not_written_and_changes_nothing() {
    let (ada, mut here) = (writer(1, 1), Documents::new(SESSION));
    here.write_session(&ada, Wall(1), &title("good")).unwrap();
    let heads = here.heads();

    let long = "x".repeat(limits::DOCUMENT_TITLE_BYTES_MAX + 1);
    let refused = here.write_session(&ada, Wall(2), &title(&long));
    assert_eq!(
        refused,
        Err(WriteError::Refused(Refusal::Value("title".to_owned())))
    );
    let empty = here.post(&ada, Wall(2), &draft("")).map(|_| ());
    assert_eq!(
        empty,
        Err(WriteError::Refused(Refusal::Value("text".to_owned())))
    );
    let wide = here.announce_terminal(&ada, Wall(2), terminal(1), "x", (501, 24));
    assert_eq!(
        wide,
        Err(WriteError::Refused(Refusal::Value("cols".to_owned())))
    );

    assert_eq!(here.heads(), heads);
    assert_eq!(
        (here.session().title.as_str(), here.timeline().len()),
        ("good", 0)
    );
    here.post(&ada, Wall(2), &draft("fine")).unwrap();
}

/// Something that one of the members does.
#[derive(Debug, Clone)]
enum Act {
    Title(u8),
    Public(bool),
    LateJoiner(u32),
    Post(u8),
    Announce(u8),
    Resize(u8, u16),
    Close(u8),
    Restart,
    /// Takes up to so many changes of a member's log from another member.
    Fetch {
        from: usize,
        of: usize,
        count: usize,
    },
}

fn acts(members: usize) -> impl Strategy<Value = Vec<(usize, Act)>> {
    let fetch = (0..members, 0..members, 1..8_usize).prop_map(|(from, of, count)| Act::Fetch {
        from,
        of,
        count,
    });
    let act = prop_oneof![
        3 => (0..4_u8).prop_map(Act::Title),
        2 => any::<bool>().prop_map(Act::Public),
        1 => (0..3_u32).prop_map(Act::LateJoiner),
        3 => any::<u8>().prop_map(Act::Post),
        1 => (0..4_u8).prop_map(Act::Announce),
        1 => (0..4_u8, 1..500_u16).prop_map(|(id, cols)| Act::Resize(id, cols)),
        1 => (0..4_u8).prop_map(Act::Close),
        1 => Just(Act::Restart),
        8 => fetch,
    ];
    proptest::collection::vec((0..members, act), 1..80)
}

/// A member with its documents and what it has of everybody's log.
struct Replica {
    writer: Writer,
    documents: Documents,
    logs: Vec<Vec<LocalChange>>,
}

impl Replica {
    fn new(number: usize, members: usize) -> Self {
        let writer = writer(u8::try_from(number).unwrap() + 1, 1);
        Self {
            writer,
            documents: Documents::new(SESSION),
            logs: vec![Vec::new(); members],
        }
    }

    fn act(&mut self, me: usize, act: &Act, now: Wall) {
        let (writer, documents) = (self.writer, &mut self.documents);
        let written = match act {
            Act::Title(number) => documents
                .write_session(&writer, now, &title(&format!("title {number}")))
                .unwrap(),
            Act::Public(public) => documents
                .write_session(&writer, now, &[SessionFact::Public(*public)])
                .unwrap(),
            Act::LateJoiner(lines) => {
                let lines = Setting::LateJoiner(LateJoiner::Lines(*lines));
                documents
                    .write_session(&writer, now, &[SessionFact::Setting(lines)])
                    .unwrap()
            }
            Act::Post(number) => Some(
                documents
                    .post(&writer, now, &draft(&format!("say {number}")))
                    .unwrap()
                    .0,
            ),
            Act::Announce(id) => {
                let known = documents.member(&writer.member);
                if known.is_some_and(|state| state.terminals.contains_key(&terminal(*id))) {
                    return;
                }
                documents
                    .announce_terminal(&writer, now, terminal(*id), "sh", (80, 24))
                    .unwrap()
            }
            Act::Resize(id, cols) => documents
                .resize_terminal(&writer, now, terminal(*id), (*cols, 24))
                .ok()
                .flatten(),
            Act::Close(id) => documents
                .close_terminal(&writer, now, terminal(*id), None)
                .ok()
                .flatten(),
            Act::Restart => {
                self.restart(now);
                None
            }
            Act::Fetch { .. } => None,
        };
        self.logs[me].extend(written);
    }

    /// A new process: a new actor, and all documents read again from the logs, one author after the other.
    fn restart(&mut self, now: Wall) {
        self.writer.nonce = ActorNonce(u128::from(now.0).to_le_bytes());
        let before = std::mem::replace(&mut self.documents, Documents::new(SESSION));
        let logs = std::mem::take(&mut self.logs);
        self.logs = vec![Vec::new(); logs.len()];
        for (of, log) in logs.iter().enumerate() {
            self.take(of, log);
        }
        assert_eq!(self.documents.heads(), before.heads());
        assert_eq!(self.documents.session(), before.session());
        assert_eq!(self.documents.timeline(), before.timeline());
    }

    /// Takes further changes of a member's log. None may be refused, let go or known already.
    fn take(&mut self, of: usize, changes: &[LocalChange]) {
        let author = writer(u8::try_from(of).unwrap() + 1, 0);
        for change in changes {
            let position = self.logs[of].len() as u64;
            let given = vec![incoming(&author, position, change)];
            for settled in self.documents.receive(&change.document, given).unwrap() {
                let fine = matches!(settled.verdict, Verdict::Accepted | Verdict::Held { .. });
                assert!(fine, "an honest change was not taken: {settled:?}");
            }
            self.logs[of].push(change.clone());
        }
    }
}

fn run(members: usize, acts: &[(usize, Act)]) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = (0..members).map(|me| Replica::new(me, members)).collect();
    for (time, (me, act)) in acts.iter().enumerate() {
        let now = Wall(1000 + 37 * time as u64);
        if let Act::Fetch { from, of, count } = act {
            let have = replicas[*me].logs[*of].len();
            let theirs = replicas[*from].logs[*of].iter().skip(have).take(*count);
            let changes: Vec<LocalChange> = theirs.cloned().collect();
            replicas[*me].take(*of, &changes);
        } else {
            replicas[*me].act(*me, act, now);
        }
    }
    for me in 0..members {
        for of in 0..members {
            let have = replicas[me].logs[of].len();
            let rest: Vec<LocalChange> = replicas[of].logs[of][have..].to_vec();
            replicas[me].take(of, &rest);
        }
    }
    replicas
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn honest_changes_are_never_refused_and_replicas_converge(acts in acts(4)) {
        let replicas = run(4, &acts);

        let first = &replicas[0].documents;
        for replica in &replicas[1..] {
            let other = &replica.documents;
            prop_assert_eq!(first.heads(), other.heads());
            prop_assert_eq!(first.session(), other.session());
            prop_assert_eq!(first.timeline(), other.timeline());
            prop_assert!(first.members().eq(other.members()));
        }
        for name in first.heads().keys() {
            let saved = first.document(name).unwrap().save();
            let loaded = automerge::Automerge::load(&saved).unwrap();
            let heads: Vec<_> = loaded.get_heads().iter().map(gate::hash_of).collect();
            prop_assert_eq!(heads, first.document(name).unwrap().heads());
        }
    }
}
