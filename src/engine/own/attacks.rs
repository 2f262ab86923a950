//! What members and strangers try with a node's own key and log, and with one whose disk takes nothing.

use std::time::Duration;

use super::tests::{GUEST, OWNER, WITNESS, say, seconds, texts};
use crate::engine::Phase;
use crate::engine::admission::{ADMISSION_VERSION, AdmissionMessage};
use crate::engine::capability::Role;
use crate::engine::command::{Ask, Command, CommandError};
use crate::engine::error::Code;
use crate::engine::event::{Event, Lane};
use crate::engine::limits::{GIVEN_ANSWER_BYTES_MIN, GIVEN_BURST_BYTES};
use crate::engine::message::{Hello, PeerMessage, SignedAlive};
use crate::engine::stage::Stage;

/// The disk of a node is full.
fn fill(stage: &mut Stage, node: usize) {
    let error = CommandError::new(Code::DiskFull, "no space left");
    stage.happen(node, Event::CommitFailed { error });
}

/// What one node said last as its hello to another.
fn hello(stage: &Stage, from: usize, to: usize) -> Hello {
    let said = stage.said(from, to).into_iter().rev();
    let mut hellos = said.filter_map(|message| {
        let PeerMessage::Hello(hello) = message else {
            return None;
        };
        Some(*hello)
    });
    hellos.next().unwrap()
}

#[test]
fn who_says_again_and_again_that_another_runs_holds_nothing_back_for_long() {
    let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
    let mut lie = hello(&stage, GUEST, OWNER);
    lie.another = true;
    let lie = PeerMessage::Hello(Box::new(lie));

    stage.say(GUEST, OWNER, &lie);
    assert!(stage.member(OWNER).replica.is_held());
    let mut held = 0;
    for n in 0..40 {
        stage.say(GUEST, OWNER, &lie);
        say(&mut stage, OWNER, &format!("{n}")).unwrap();
        seconds(&mut stage, 1);
        held += usize::from(stage.member(OWNER).replica.is_held());
    }

    assert!(held <= 2, "held back for {held} of 40 s");
    assert!(stage.member(OWNER).may_admit());
    assert_eq!(texts(&mut stage, WITNESS).len(), 40);
}

#[test]
fn who_reconnects_to_say_that_another_runs_holds_nothing_back_for_long() {
    let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
    let mut lie = hello(&stage, GUEST, OWNER);
    lie.another = true;
    let lie = PeerMessage::Hello(Box::new(lie));
    stage.cut(OWNER, GUEST);
    stage.leave_alone(GUEST);

    let mut held = 0;
    for n in 0..40 {
        let conn = stage.connect(GUEST, OWNER, true);
        let stream = stage.open_on(OWNER, conn, Lane::Control);
        stage.say_on(OWNER, stream, lie.encode());
        say(&mut stage, OWNER, &format!("{n}")).unwrap();
        seconds(&mut stage, 1);
        held += usize::from(stage.member(OWNER).replica.is_held());
        stage.hang_up(conn);
    }

    assert!(held <= 2, "held back for {held} of 40 s");
    assert_eq!(texts(&mut stage, WITNESS).len(), 40);
}

#[test]
fn the_word_of_another_node_that_has_ended_is_not_believed_for_ever() {
    let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
    let session = stage.member(OWNER).replica.session();
    let key = stage.member(OWNER).replica.key().clone();
    let drawn = hello(&stage, OWNER, GUEST).challenge;
    let word = SignedAlive::sign(&key, &session, 5, drawn);
    let word = PeerMessage::Alive(Box::new(word));

    stage.say(GUEST, OWNER, &word);
    assert_eq!(say(&mut stage, OWNER, "x"), Err(Code::SecondInstance));
    for _ in 0..120 {
        stage.say(GUEST, OWNER, &word);
        seconds(&mut stage, 1);
    }

    assert_eq!(say(&mut stage, OWNER, "on and on"), Ok(()));
    seconds(&mut stage, 1);
    assert_eq!(texts(&mut stage, WITNESS), ["on and on"]);
}

#[test]
fn what_made_way_outlives_a_full_disk() {
    let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
    stage.leave_alone(GUEST);
    let old = stage.folder(GUEST);
    say(&mut stage, OWNER, "theirs").unwrap();
    stage.let_meet(GUEST);
    seconds(&mut stage, 5);
    say(&mut stage, GUEST, "after the copy").unwrap();
    seconds(&mut stage, 2);
    stage.kill(GUEST);
    stage.leave_alone(GUEST);
    stage.resume(GUEST, old);
    say(&mut stage, GUEST, "alone").unwrap();

    // Somebody holds up what is to be written again, and meanwhile the disk fills.
    let (liar, later) = (stage.id(WITNESS), stage.now().mono);
    let asked = &mut stage.member(GUEST).own.asked;
    asked.insert(liar, later + Duration::from_secs(60));
    stage.let_meet(GUEST);
    seconds(&mut stage, 45);
    assert!(stage.member(GUEST).replica.has_unsaid());
    fill(&mut stage, GUEST);
    seconds(&mut stage, 30);
    stage.happen(GUEST, Event::CommittedAgain);
    seconds(&mut stage, 10);

    for node in [OWNER, GUEST, WITNESS] {
        let said = texts(&mut stage, node);
        let count = said.iter().filter(|text| *text == "alone").count();
        assert_eq!(count, 1, "node {node}: {said:?}");
    }
}

#[test]
fn an_old_folder_whose_disk_is_full_when_it_meets_others_does_not_fork_later() {
    for frozen in [1, 20] {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        seconds(&mut stage, 1);
        let old = stage.folder(GUEST);
        say(&mut stage, GUEST, "after the copy").unwrap();
        seconds(&mut stage, 2);
        stage.kill(GUEST);
        stage.leave_alone(GUEST);
        stage.resume(GUEST, old);
        say(&mut stage, GUEST, "alone").unwrap();
        fill(&mut stage, GUEST);
        stage.let_meet(GUEST);
        seconds(&mut stage, 40 + frozen);

        stage.happen(GUEST, Event::CommittedAgain);
        seconds(&mut stage, 10);
        say(&mut stage, GUEST, "and now").unwrap();
        seconds(&mut stage, 5);

        for node in [OWNER, GUEST, WITNESS] {
            let mut said = texts(&mut stage, node);
            said.sort();
            assert_eq!(said, ["after the copy", "alone", "and now"], "node {node}");
            assert!(!stage.member(node).own.forked);
        }
    }
}

#[test]
fn who_is_challenged_again_and_again_signs_a_bounded_number_of_answers() {
    let mut stage = Stage::with(&[Role::Editor]);
    stage.gag(GUEST);
    stage.sent.clear();
    for n in 0..4_000_u32 {
        let mut drawn = [7; 32];
        drawn[..4].copy_from_slice(&n.to_be_bytes());
        stage.say(GUEST, OWNER, &PeerMessage::Challenge(drawn));
    }
    let answer = |message: &PeerMessage| matches!(message, PeerMessage::Alive(_));
    let answers = stage.said(OWNER, GUEST);
    let most = usize::try_from(GIVEN_BURST_BYTES / GIVEN_ANSWER_BYTES_MIN).unwrap();
    assert_eq!(answers.iter().filter(|one| answer(one)).count(), most);
}

#[test]
fn a_strangers_greeting_does_not_make_own_statements_known() {
    let mut stage = Stage::with(&[Role::Viewer]);
    stage.cut(OWNER, GUEST);
    stage.leave_alone(GUEST);
    let invite = Command::CreateInvite {
        role: Role::Viewer,
        expires_in: None,
        ask: Ask::Never,
        addresses: true,
    };
    stage.command(OWNER, invite).unwrap();
    let shown = stage.member(OWNER).replica.shown();
    assert!(shown < stage.member(OWNER).replica.frontier().seq);

    let conn = stage.connect(GUEST, OWNER, false);
    let stream = stage.open_on(OWNER, conn, Lane::Admission);
    let greeting = AdmissionMessage::Hello {
        version: ADMISSION_VERSION,
        token: [7; 32],
    };
    stage.say_on(OWNER, stream, greeting.encode());

    assert!(stage.member(OWNER).doors.contains_key(&stream));
    assert_eq!(stage.member(OWNER).replica.shown(), shown);
}

#[test]
fn who_cannot_save_shows_its_membership_to_nobody_new() {
    let mut stage = Stage::with(&[Role::Viewer]);
    fill(&mut stage, OWNER);
    let shows = stage.act(OWNER, |engine, context| {
        let member = engine.member_mut().unwrap();
        member.shows_statements(context)
    });
    assert!(!shows);
}

#[test]
fn a_node_whose_disk_is_full_hears_who_goes_and_that_the_session_ends_and_nothing_else() {
    let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
    stage.open_terminal(GUEST);
    seconds(&mut stage, 2);
    let gone = stage.id(WITNESS);
    fill(&mut stage, GUEST);
    let frozen = stage.member(GUEST).replica.vector();

    say(&mut stage, OWNER, "meanwhile").unwrap();
    stage.command(WITNESS, Command::Leave).unwrap();
    seconds(&mut stage, 5);
    assert!(!stage.member(GUEST).members.contains(&gone));
    assert!(texts(&mut stage, GUEST).is_empty());
    assert_eq!(stage.member(GUEST).replica.vector(), frozen);

    stage.happen(GUEST, Event::CommittedAgain);
    seconds(&mut stage, 5);
    assert_eq!(texts(&mut stage, GUEST), ["meanwhile"]);
    let vectors = [OWNER, GUEST].map(|node| stage.member(node).replica.vector());
    assert_eq!(vectors[0], vectors[1]);
    let folder = stage.folder(GUEST);
    stage.kill(GUEST);
    stage.resume(GUEST, folder);
    assert!(!stage.member(GUEST).members.contains(&gone));

    seconds(&mut stage, 5);
    fill(&mut stage, GUEST);
    stage.command(OWNER, Command::StopSession).unwrap();
    seconds(&mut stage, 10);
    assert!(matches!(stage.engine(GUEST).phase, Phase::Over));
}
