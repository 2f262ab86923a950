//! Both sides of an admission, joined by a list of messages instead of a stream.

use std::collections::VecDeque;

use proptest::prelude::*;

use crate::engine::capability::Role;
use crate::engine::entropy::Entropy;
use crate::engine::identity::{AgreementKey, InviteKey, MemberKey, derive_key};
use crate::engine::ids::SessionId;
use crate::engine::limits::ADMISSION_MESSAGE_BYTES_MAX;
use crate::engine::membership::{NewSession, Position, make_grant};
use crate::engine::statement::{Frontier, Genesis, Grant, Grantee, StatementBody, sign_sub_grant};
use crate::engine::time::Now;

use super::joiner::Joining;
use super::proof::{Dialler, Side, commitment};
use super::*;

const DISCOVERY: [u8; 32] = [42; 32];
const SEED: [u8; 32] = [77; 32];

#[test]
fn a_newcomer_with_a_ticket_becomes_a_member() {
    let mut host = owner();
    invite(&mut host, viewers());

    let run = admit(&mut host, joiner(10), 10);

    let joined = run.joined();
    assert_eq!(joined.membership.heads(), host.membership.heads());
    assert_eq!(joined.sponsor, host.id());
    let member = host.membership.member(&member(10).id()).unwrap();
    assert_eq!(
        (member.name.as_str(), member.admitted_by),
        ("guest 10", host.id())
    );
    assert_eq!(member.standing.unwrap().role, Role::Viewer);
    assert_eq!(run.listener_ends(), ["admit", "close"]);
    assert_eq!(run.dialler_ends(), ["joined", "close"]);
}

#[test]
fn a_newcomer_holds_the_secrets_of_the_epochs() {
    let mut host = owner();
    invite(&mut host, viewers());

    let joined = admit(&mut host, joiner(10), 10).joined();

    let epoch = host.membership.current_epoch().unwrap().epoch.id;
    assert_eq!(
        joined.keyring.presence_key(&epoch).unwrap(),
        host.keyring.presence_key(&epoch).unwrap()
    );
    assert_eq!(
        joined.keyring.epochs().count(),
        host.keyring.epochs().count()
    );
}

#[test]
fn the_admission_continues_the_sponsors_log() {
    let mut host = owner();
    invite(&mut host, viewers());
    let before = host.writer.frontier();

    let run = admit(&mut host, joiner(10), 10);

    let entry = run.admission();
    assert_eq!((entry.prev(), entry.seq()), (before.hash, before.seq + 1));
    assert_eq!(host.writer.frontier(), entry.frontier());
}

#[test]
fn any_member_may_sponsor_while_the_owner_is_away() {
    let mut host = owner();
    invite(&mut host, viewers());
    let joined = admit(&mut host, joiner(10), 10).joined();
    let mut guest = Node::of(10, joined);

    let second = admit(&mut guest, joiner(11), 11);

    assert_eq!(second.joined().sponsor, guest.id());
    let host_takes = host.membership.insert(second.statement());
    assert!(matches!(
        host_takes,
        crate::engine::membership::Inserted::New(_)
    ));
    assert!(host.membership.standing(&member(11).id()).is_some());
}

#[test]
fn a_sub_invitation_works_through_the_chain_in_its_ticket() {
    let mut host = owner();
    let wide = invite(
        &mut host,
        Grant {
            sub_depth: 1,
            ..grant(Role::Editor)
        },
    );
    let narrow = InviteKey::from_seed(&[78; 32]);
    let sub = Grant {
        to: Grantee::Invite(narrow.id()),
        ..grant(Role::Viewer)
    };
    let session = host.membership.session();
    let link = sign_sub_grant(&InviteKey::from_seed(&SEED), session, wide, Wall(1), sub).unwrap();
    let settings = JoinerSettings {
        invite: Some(narrow),
        chain: vec![link.bytes().to_vec()],
        ..settings(&host, 10)
    };

    let run = admit(&mut host, Make::With(Box::new(settings)), 10);

    let standing = run.joined().membership.standing(&member(10).id()).unwrap();
    assert_eq!(standing.role, Role::Viewer);
}

#[test]
fn whoever_lacks_the_ticket_gets_a_greeting_and_no_more() {
    let mut host = owner();
    invite(&mut host, viewers());
    let stranger = JoinerSettings {
        discovery_key: [1; 32],
        ..settings(&host, 10)
    };

    let run = admit(&mut host, Make::With(Box::new(stranger)), 10);

    let said: Vec<_> = run.from_listener.iter().map(|bytes| read(bytes)).collect();
    assert!(matches!(said[0], AdmissionMessage::Hello { .. }));
    assert_eq!(
        said[1..],
        [AdmissionMessage::Refused(RefusalCode::WrongSession)]
    );
    assert_eq!(run.refusal(), Refusal::WrongSession);
    assert_eq!(run.listener_ends(), ["refused", "close"]);
}

#[test]
fn a_listener_of_another_session_learns_nothing_that_names_ours() {
    let mut host = owner();
    invite(&mut host, viewers());
    host.discovery_key = [1; 32];

    let run = admit(&mut host, joiner(10), 10);

    assert_eq!(run.from_dialler.len(), 2);
    assert_eq!(run.from_dialler[1].len(), 1 + 32 + 32);
    let settings = settings(&host, 10);
    let secrets = [
        settings.session.0,
        DISCOVERY,
        settings.invite.unwrap().id().0,
    ];
    assert!(
        run.from_dialler
            .iter()
            .all(|bytes| secrets.iter().all(|s| !holds(bytes, s)))
    );
}

#[test]
fn a_listener_that_cannot_prove_the_session_sees_no_join() {
    let host = owner();
    let mut entropy = Entropy::new([3; 32]);
    let mut guest = Joiner::new(settings(&host, 10), host.id(), now(0), &mut entropy);
    let mut out = Vec::new();
    let hello = AdmissionMessage::Hello {
        version: ADMISSION_VERSION,
        token: [1; 32],
    };
    let answer = AdmissionMessage::Answer {
        mac: Hash([2; 32]),
        challenge: [3; 32],
    };

    guest.handle(AdmissionInput::Opened, now(0), &mut out);
    guest.handle(AdmissionInput::Received(hello.encode()), now(0), &mut out);
    out.clear();
    guest.handle(AdmissionInput::Received(answer.encode()), now(0), &mut out);

    assert_eq!(names(&out), ["refused", "close"]);
}

#[test]
fn nothing_but_a_greeting_is_answered_first() {
    let mut host = owner();
    let others = [
        AdmissionMessage::Proof {
            nonce: [0; 32],
            mac: Hash([0; 32]),
        },
        AdmissionMessage::Member { knows_you: true },
        AdmissionMessage::Done,
        AdmissionMessage::Waiting,
    ];

    for message in others {
        let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
        let out = host.feed(&mut sponsor, AdmissionInput::Received(message.encode()), 0);
        assert_eq!(names(&out), ["refused", "close"]);
    }
}

#[test]
fn peers_of_different_versions_tell_each_other_and_part() {
    let mut host = owner();
    let theirs = AdmissionMessage::Hello {
        version: 2,
        token: [0; 32],
    };
    let mismatch = Refusal::VersionMismatch { ours: 1, theirs: 2 };
    let later = [theirs.encode(), vec![9; 900]].concat();
    let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
    let mut entropy = Entropy::new([3; 32]);
    let mut guest = Joiner::new(settings(&host, 10), host.id(), now(0), &mut entropy);

    let answer = host.feed(&mut sponsor, AdmissionInput::Received(later.clone()), 0);
    let mut out = Vec::new();
    guest.handle(AdmissionInput::Received(later), now(0), &mut out);

    assert_eq!(names(&answer), ["send", "refused", "close"]);
    assert_eq!(refusal(&answer), mismatch);
    assert_eq!(refusal(&out), mismatch);
    assert_eq!(mismatch.code(), "version-mismatch");
}

#[test]
fn a_replayed_join_is_refused() {
    let mut host = owner();
    invite(&mut host, viewers());
    let (_, join) = signed_join(&mut host, 10);

    let (mut sponsor, _) = proven(&mut host, 10);
    let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);

    assert_eq!(refusal(&out).code(), "admission-refused");
    assert!(host.membership.member(&member(10).id()).is_none());
}

#[test]
fn an_altered_join_admits_nobody() {
    let mut host = owner();
    invite(&mut host, viewers());
    let length = signed_join(&mut host, 10).1.len();

    for place in 0..length {
        let (mut sponsor, mut join) = signed_join(&mut host, 10);
        join[place] ^= 1;
        let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
        assert!(names(&out).contains(&"refused"), "byte {place}");
        assert!(!names(&out).contains(&"admit"), "byte {place}");
    }
}

#[test]
fn a_join_for_another_session_is_refused() {
    let mut host = owner();
    invite(&mut host, viewers());
    let foreign = JoinerSettings {
        session: SessionId([5; 32]),
        ..settings(&host, 10)
    };

    let run = admit(&mut host, Make::With(Box::new(foreign)), 10);

    assert_eq!(run.refusal(), Refusal::WrongSession);
    assert_eq!(run.refusal().code(), "wrong-session");
}

#[test]
fn a_newcomer_does_not_believe_the_membership_of_another_session() {
    let (mut host, other) = (owner(), Node::owner(2));
    invite(&mut host, viewers());
    let mut guest = asked(&host);
    let all = other.membership.all();

    let batch = batches(all.iter().copied()).remove(0);
    let mut out = Vec::new();
    let welcome = AdmissionMessage::Welcome(batch);
    guest.handle(AdmissionInput::Received(welcome.encode()), now(0), &mut out);

    assert_eq!(refusal(&out), Refusal::WrongSession);
}

#[test]
fn a_welcome_that_leaves_the_newcomer_out_is_not_believed() {
    let mut host = owner();
    invite(&mut host, viewers());
    let mut guest = asked(&host);

    let batch = batches(host.membership.all()).remove(0);
    let mut out = Vec::new();
    let welcome = AdmissionMessage::Welcome(batch);
    guest.handle(AdmissionInput::Received(welcome.encode()), now(0), &mut out);

    assert!(matches!(refusal(&out), Refusal::Misbehaved(_)));
}

#[test]
fn a_stolen_join_serves_no_other_key() {
    let mut host = owner();
    invite(&mut host, viewers());
    let (mut thief_sees, challenge) = proven(&mut host, 11);
    let stolen = join_message(&host, 10, challenge);

    let out = host.feed(
        &mut thief_sees,
        AdmissionInput::Received(stolen.encode()),
        0,
    );

    assert_eq!(refusal(&out).code(), "admission-refused");
    assert!(!names(&out).contains(&"admit"));
}

#[test]
fn a_join_made_for_one_sponsor_serves_no_other() {
    let mut host = owner();
    invite(&mut host, viewers());
    let (mut sponsor, challenge) = proven(&mut host, 10);
    let mut settings = settings(&host, 10);
    settings.name = "for another".into();
    let elsewhere = Joiner::new(settings, member(9).id(), now(0), &mut Entropy::new([1; 32]));

    let join = elsewhere.join(challenge).unwrap();
    let out = host.feed(&mut sponsor, AdmissionInput::Received(join.encode()), 0);

    assert_eq!(refusal(&out).code(), "admission-refused");
}

#[test]
fn joining_ends_when_the_ticket_expires_by_the_sponsors_clock() {
    let mut host = owner();
    let end = Wall(now(7_000).wall.0);
    invite(
        &mut host,
        Grant {
            not_after: Some(end),
            ..grant(Role::Viewer)
        },
    );

    let (late, in_time) = (
        admit_at(&mut host, 10, 7_001),
        admit_at(&mut host, 11, 7_000),
    );

    assert_eq!(late.refusal(), Refusal::TicketExpired);
    assert_eq!(late.refusal().code(), "ticket-expired");
    in_time.joined();
}

#[test]
fn a_ticket_admits_no_more_than_its_uses() {
    let mut host = owner();
    invite(
        &mut host,
        Grant {
            max_uses: Some(1),
            ..grant(Role::Viewer)
        },
    );
    admit(&mut host, joiner(10), 10).joined();

    let second = admit(&mut host, joiner(11), 11);

    assert_eq!(second.refusal(), Refusal::TicketUsedUp);
    assert_eq!(second.refusal().code(), "ticket-used-up");
}

#[test]
fn a_member_without_admit_names_those_who_have_it() {
    let mut host = owner();
    invite(&mut host, grant(Role::Agent));
    let joined = admit(&mut host, joiner(10), 10).joined();
    let mut agent = Node::of(10, joined);
    let hint = |member| SponsorHint {
        member,
        addresses: vec!["/ip4/10.0.0.1".into(); 20],
    };
    agent.hints = vec![hint(agent.id()), hint(host.id()), hint(member(99).id())];

    let run = admit(&mut agent, joiner(11), 11);

    let Refusal::NotSponsor { hints } = run.refusal() else {
        panic!("it sponsored")
    };
    assert_eq!(hints.len(), 1);
    assert_eq!((hints[0].member, hints[0].addresses.len()), (host.id(), 8));
}

#[test]
fn a_node_that_must_not_write_sponsors_nobody() {
    let mut host = owner();
    invite(&mut host, viewers());
    host.writes = false;

    let run = admit(&mut host, joiner(10), 10);

    assert!(matches!(run.refusal(), Refusal::NotSponsor { .. }));
}

#[test]
fn a_junior_may_not_sponsor_a_senior() {
    let mut host = owner();
    invite(&mut host, viewers());
    let mut guest = Node::of(10, admit(&mut host, joiner(10), 10).joined());
    let editors = InviteKey::from_seed(&[79; 32]);
    let grant = Grant {
        to: Grantee::Invite(editors.id()),
        ..grant(Role::Editor)
    };
    let statement = invite_statement(&mut host, grant);
    guest.membership.insert(statement);
    let settings = JoinerSettings {
        invite: Some(editors),
        ..settings(&guest, 11)
    };

    let run = admit(&mut guest, Make::With(Box::new(settings)), 11);

    assert!(matches!(run.refusal(), Refusal::NotSponsor { .. }));
}

#[test]
fn a_person_who_approves_lets_the_newcomer_in() {
    let mut host = owner();
    invite(&mut host, asking());

    let run = admit(&mut host, Make::Answered(10, true), 10);

    let question = run.question();
    assert_eq!(
        (question.member, question.name.as_str()),
        (member(10).id(), "guest 10")
    );
    assert_eq!(question.role, Role::Editor);
    assert_eq!(run.dialler_ends(), ["waits", "joined", "close"]);
    assert_eq!(run.listener_ends(), ["ask", "withdraw", "admit", "close"]);
    assert_eq!(run.joined().authentication, question.authentication);
}

#[test]
fn a_person_who_denies_keeps_the_newcomer_out() {
    let mut host = owner();
    invite(&mut host, asking());

    let run = admit(&mut host, Make::Answered(10, false), 10);

    assert_eq!(run.refusal().code(), "admission-refused");
    assert_eq!(run.listener_ends(), ["ask", "withdraw", "refused", "close"]);
    assert!(host.membership.member(&member(10).id()).is_none());
}

#[test]
fn a_question_lapses_after_two_minutes() {
    let mut host = owner();
    invite(&mut host, asking());
    let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
    pair.run();
    let (at, why) = pair.sponsor.deadline().unwrap();
    assert_eq!((at, why), (now(120_000).mono, AdmissionDeadline::Approval));

    pair.at = 119_999;
    pair.tick();
    assert!(pair.sponsor.is_asking());
    pair.at = 120_000;
    pair.tick();

    let run = pair.finish();
    assert_eq!(run.refusal(), Refusal::ApprovalTimeout);
    assert_eq!(run.refusal().code(), "approval-timeout");
    assert_eq!(run.listener_ends(), ["ask", "withdraw", "refused", "close"]);
    assert_eq!(host.limits.waiting().count(), 0);
}

#[test]
fn approval_does_not_outlive_the_ticket() {
    let mut host = owner();
    let end = Wall(now(60_000).wall.0);
    invite(
        &mut host,
        Grant {
            not_after: Some(end),
            ..asking()
        },
    );
    let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
    pair.run();

    pair.at = 60_001;
    pair.decide(true);

    assert_eq!(pair.finish().refusal(), Refusal::TicketExpired);
}

#[test]
fn a_newcomer_who_goes_while_waiting_is_asked_about_no_more() {
    let mut host = owner();
    invite(&mut host, asking());
    let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
    pair.run();

    pair.sponsor_takes(AdmissionInput::Closed);
    pair.decide(true);

    let run = pair.finish();
    assert_eq!(run.listener_ends(), ["ask", "withdraw", "refused", "close"]);
    assert_eq!(host.limits.waiting().count(), 0);
    assert!(host.membership.member(&member(10).id()).is_none());
}

#[test]
fn at_most_eight_wait_and_each_peer_once() {
    let mut host = owner();
    invite(&mut host, asking());
    let mut waiting = Vec::new();
    for peer in 10..18 {
        let (mut sponsor, join) = signed_join(&mut host, peer);
        let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
        assert!(names(&out).contains(&"ask"));
        waiting.push(sponsor);
    }

    for peer in [18, 10] {
        let (mut sponsor, join) = signed_join(&mut host, peer);
        let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
        assert_eq!(refusal(&out), Refusal::LimitExceeded);
    }

    host.feed(
        &mut waiting[0],
        AdmissionInput::Decided { approve: false },
        0,
    );
    let (mut sponsor, join) = signed_join(&mut host, 18);
    let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
    assert!(names(&out).contains(&"ask"));
}

#[test]
fn who_cannot_decide_does_not_sponsor_where_a_person_is_asked() {
    let mut host = owner();
    invite(
        &mut host,
        Grant {
            ask: true,
            ..grant(Role::Viewer)
        },
    );
    let mut guest = Node::of(10, admit(&mut host, Make::Answered(10, true), 10).joined());
    guest.hints = vec![SponsorHint {
        member: host.id(),
        addresses: Vec::new(),
    }];

    let run = admit(&mut guest, joiner(11), 11);

    let Refusal::NotSponsor { hints } = run.refusal() else {
        panic!("it sponsored")
    };
    assert_eq!(hints, guest.hints);
}

#[test]
fn one_ticket_admits_sixty_a_minute_save_on_this_machine() {
    let mut host = owner();
    invite(&mut host, viewers());
    for peer in 10..70 {
        admit(&mut host, joiner(peer), peer).joined();
    }

    let refused = admit(&mut host, joiner(70), 70);
    assert_eq!(refused.refusal(), Refusal::LimitExceeded);
    assert_eq!(refused.refusal().code(), "limit-exceeded");

    let mut near = Pair::new(&mut host, joiner(71), 71, 0);
    near.sponsor = Sponsor::new(near.node.id(), member(71).id(), true, now(0));
    near.run();
    near.finish().joined();
    admit_at(&mut host, 72, 60_000).joined();
}

#[test]
fn an_unproven_peer_is_closed_after_five_seconds() {
    let mut host = owner();
    let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
    assert_eq!(
        sponsor.deadline(),
        Some((now(5_000).mono, AdmissionDeadline::Unproven))
    );

    assert!(
        host.feed(&mut sponsor, AdmissionInput::Tick, 4_999)
            .is_empty()
    );
    let out = host.feed(&mut sponsor, AdmissionInput::Tick, 5_000);

    assert_eq!(names(&out), ["refused", "close"]);
    assert_eq!(sponsor.deadline(), None);
    let (mut proven, _) = proven(&mut host, 10);
    let out = host.feed(&mut proven, AdmissionInput::Tick, 5_000);
    assert_eq!(names(&out), ["refused", "close"]);
}

#[test]
fn a_newcomer_gives_up_on_a_silent_peer() {
    let host = owner();
    let mut entropy = Entropy::new([3; 32]);
    let mut guest = Joiner::new(settings(&host, 10), host.id(), now(0), &mut entropy);
    let mut out = Vec::new();

    guest.handle(AdmissionInput::Opened, now(0), &mut out);
    guest.handle(AdmissionInput::Tick, now(5_000), &mut out);

    assert_eq!(refusal(&out), Refusal::Silent);
    assert_eq!(refusal(&out).code(), "peer-unreachable");
}

#[test]
fn a_member_that_lost_the_welcome_is_welcomed_again_without_a_new_admission() {
    let mut host = owner();
    invite(
        &mut host,
        Grant {
            max_uses: Some(1),
            ..grant(Role::Viewer)
        },
    );
    admit(&mut host, joiner(10), 10);
    let before = host.writer.frontier();

    let again = admit(&mut host, joiner(10), 10);

    assert_eq!(again.joined().membership.heads(), host.membership.heads());
    assert_eq!(again.listener_ends(), ["close"]);
    assert_eq!(host.writer.frontier(), before);
}

#[test]
fn a_session_that_has_ended_admits_nobody() {
    let mut host = owner();
    invite(&mut host, viewers());
    let close = StatementBody::Close {
        reason: String::new(),
    };
    let (at, key) = (now(0).wall, member(1));
    let close = host
        .membership
        .make(&key, host.writer.frontier(), at, close)
        .unwrap();
    host.membership.insert(close);

    let run = admit(&mut host, joiner(10), 10);

    assert_eq!(run.refusal().code(), "admission-refused");
    assert_eq!(run.listener_ends(), ["refused", "close"]);
}

#[test]
fn a_large_membership_comes_in_batches() {
    let mut host = owner();
    invite(&mut host, viewers());
    for peer in 10..150 {
        let mut pair = Pair::new(&mut host, joiner(peer), peer, 0);
        pair.sponsor = Sponsor::new(pair.node.id(), member(peer).id(), true, now(0));
        pair.run();
    }

    let run = admit(&mut host, joiner(150), 150);

    let welcomes = run.from_listener.iter().filter(|bytes| {
        assert!(bytes.len() <= ADMISSION_MESSAGE_BYTES_MAX);
        matches!(read(bytes), AdmissionMessage::Welcome(_))
    });
    assert!(welcomes.count() > 1);
    assert_eq!(run.joined().membership.heads(), host.membership.heads());
}

#[test]
fn no_secret_is_in_any_message() {
    let mut host = owner();
    invite(&mut host, asking());

    let run = admit(&mut host, Make::Answered(10, true), 10);

    let epoch = host.membership.current_epoch().unwrap().epoch.id;
    let secrets = [
        SEED,
        derive_key("collab-p2p v1 invite-sign", &[&SEED]),
        DISCOVERY,
        member(10).to_bytes(),
        agreement(10).to_bytes(),
        host.writer.key().to_bytes(),
        *host.keyring.get(&epoch).unwrap().to_bytes(),
    ];
    for bytes in run.from_dialler.iter().chain(&run.from_listener) {
        assert!(secrets.iter().all(|secret| !holds(bytes, secret)));
    }
    run.joined();
}

#[test]
fn a_member_shows_one_who_does_not_know_it_that_it_is_one() {
    let (host, mut guest, other) = three();

    let run = meet(&mut guest, &mut Node::of(11, other), 0);

    assert_eq!(run.dialler_ends(), ["recognised", "close"]);
    assert_eq!(run.listener_ends(), ["recognised", "close"]);
    let AdmissionOutput::Recognised { member, statements } = &run.listener[0] else {
        panic!("nobody was recognised");
    };
    assert_eq!(*member, guest.id());
    let mut fresh = Membership::new((*host.membership.all()[0]).clone()).unwrap();
    for statement in statements {
        fresh.insert(statement.clone());
    }
    assert!(fresh.standing(&guest.id()).is_some());
}

#[test]
fn two_members_unknown_to_each_other_come_to_know_each_other() {
    let mut host = owner();
    invite(&mut host, viewers());
    let mut one = Node::of(10, admit(&mut host, joiner(10), 10).joined());
    let mut two = Node::of(12, admit(&mut one, joiner(12), 12).joined());
    let mut three = Node::of(11, admit(&mut host, joiner(11), 11).joined());

    let run = meet(&mut two, &mut three, 0);

    assert_eq!(run.dialler_ends(), ["recognised", "close"]);
    assert_eq!(run.listener_ends(), ["recognised", "close"]);
    for (node, other, outputs) in [
        (&mut two, member(11), &run.dialler),
        (&mut three, member(12), &run.listener),
    ] {
        let AdmissionOutput::Recognised { statements, .. } = &outputs[0] else {
            panic!("nobody was recognised");
        };
        for statement in statements {
            node.membership.insert(statement.clone());
        }
        assert!(node.membership.standing(&other.id()).is_some());
    }
}

#[test]
fn a_listener_unknown_to_the_dialler_shows_itself() {
    let (_, mut known, other) = three();
    let mut stale = Node::of(11, other);

    let run = meet(&mut stale, &mut known, 0);

    assert_eq!(run.dialler_ends(), ["recognised", "close"]);
    let AdmissionOutput::Recognised { member, .. } = &run.dialler[0] else {
        panic!("nobody was recognised");
    };
    assert_eq!(*member, known.id());
}

#[test]
fn whoever_is_no_member_cannot_pass_for_one() {
    let mut host = owner();
    invite(&mut host, viewers());
    let mut claimant = Node::of(10, admit(&mut host, joiner(10), 10).joined());
    claimant.writer = writer_of(99, &claimant.membership);

    let run = meet(&mut claimant, &mut host, 0);

    let refused = RefusalCode::NotAMember;
    assert_eq!(
        read(run.from_listener.last().unwrap()),
        AdmissionMessage::Refused(refused)
    );
    assert_eq!(run.dialler_ends(), ["refused", "close"]);
    assert_eq!(run.listener_ends(), ["refused", "close"]);
    assert!(host.membership.member(&member(99).id()).is_none());
}

#[test]
fn a_member_whose_time_is_over_is_not_recognised() {
    let mut host = owner();
    let until = Some(Wall(now(9_000).wall.0));
    invite(
        &mut host,
        Grant {
            membership_until: until,
            ..grant(Role::Viewer)
        },
    );
    let mut guest = Node::of(10, admit(&mut host, joiner(10), 10).joined());

    let late = meet(&mut guest, &mut host, 9_001);
    let in_time = meet(&mut guest, &mut host, 9_000);

    assert_eq!(late.listener_ends(), ["refused", "close"]);
    assert_eq!(in_time.listener_ends(), ["recognised", "close"]);
}

#[test]
fn authentication_differs_where_somebody_sits_between() {
    let transcript = Transcript {
        dialler: MemberId([1; 32]),
        listener: MemberId([2; 32]),
        dialler_nonce: [3; 32],
        listener_nonce: [4; 32],
    };
    let others = [
        Transcript {
            dialler: MemberId([9; 32]),
            ..transcript
        },
        Transcript {
            listener: MemberId([9; 32]),
            ..transcript
        },
        Transcript {
            dialler_nonce: [9; 32],
            ..transcript
        },
        Transcript {
            listener_nonce: [9; 32],
            ..transcript
        },
    ];

    for other in others {
        assert_ne!(other.authentication(), transcript.authentication());
        assert!(!other.proves(
            &DISCOVERY,
            Side::Dialler,
            &transcript.mac(&DISCOVERY, Side::Dialler)
        ));
    }
    let dialler = transcript.mac(&DISCOVERY, Side::Dialler);
    assert!(transcript.proves(&DISCOVERY, Side::Dialler, &dialler));
    assert!(!transcript.proves(&DISCOVERY, Side::Listener, &dialler));
}

#[test]
fn a_dialler_cannot_change_its_nonce_after_it_saw_the_listeners() {
    let mut host = owner();
    let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
    let hello = AdmissionMessage::Hello {
        version: ADMISSION_VERSION,
        token: commitment(&[1; 32]),
    };
    let out = host.feed(&mut sponsor, AdmissionInput::Received(hello.encode()), 0);
    let AdmissionMessage::Hello { token, .. } = read(&sent(&out)[0]) else {
        panic!("no greeting");
    };
    let transcript = Transcript {
        dialler: member(10).id(),
        listener: host.id(),
        dialler_nonce: [2; 32],
        listener_nonce: token,
    };

    let mac = transcript.mac(&DISCOVERY, Side::Dialler);
    let proof = AdmissionMessage::Proof {
        nonce: [2; 32],
        mac,
    };
    let out = host.feed(&mut sponsor, AdmissionInput::Received(proof.encode()), 0);

    assert_eq!(refusal(&out), Refusal::WrongSession);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_message_never_panics_and_never_admits_another(
        step in 0_usize..9,
        place: prop::sample::Index,
        damage in 1_u8..,
        cut: bool,
    ) {
        let mut host = owner();
        invite(&mut host, viewers());
        let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
        pair.damage = Some((step, Box::new(move |bytes: &mut Vec<u8>| {
            let at = place.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= damage }
        })));

        pair.run();
        let run = pair.finish();

        prop_assert!(run.listener_ends().len() <= 3);
        for member in host.membership.members() {
            prop_assert!([host.id(), self::member(10).id()].contains(&member.id));
        }
    }

    #[test]
    fn any_bytes_in_any_phase_are_taken_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        tag in 0_u8..12,
    ) {
        let mut host = owner();
        invite(&mut host, viewers());
        let bytes = [vec![tag], bytes].concat();
        let input = || AdmissionInput::Received(bytes.clone());
        let (mut proven, _) = proven(&mut host, 10);
        let mut fresh = Sponsor::new(host.id(), member(10).id(), false, now(0));
        let mut guest = asked(&host);

        prop_assert!(!names(&host.feed(&mut proven, input(), 0)).contains(&"admit"));
        prop_assert!(!names(&host.feed(&mut fresh, input(), 0)).contains(&"admit"));
        let mut out = Vec::new();
        guest.handle(input(), now(0), &mut out);
        prop_assert!(!names(&out).contains(&"joined"));
    }
}

/// A member's node, as far as admission needs one.
struct Node {
    membership: Membership,
    keyring: Keyring,
    writer: LogWriter,
    limits: SponsorLimits,
    hints: Vec<SponsorHint>,
    discovery_key: [u8; 32],
    writes: bool,
    entropy: Entropy,
}

impl Node {
    fn owner(seed: u8) -> Self {
        let (root, owner) = (member(200 + seed), member(seed));
        let new = NewSession {
            root: &root,
            owner: &owner,
            prekey: agreement(seed).public(),
            name: "owner".into(),
            discovery_key: &DISCOVERY,
            at: now(0).wall,
        };
        let created = Genesis::create(&new, &mut Entropy::new([seed; 32])).unwrap();
        let session = created.membership.session();
        let mut keyring = Keyring::default();
        keyring.insert(created.secret.clone());
        let writer = LogWriter::new(owner, session, created.owner_log, 0);
        Self::new(created.membership, keyring, writer)
    }

    fn of(seed: u8, joined: Joined) -> Self {
        let writer = writer_of(seed, &joined.membership);
        Self::new(joined.membership, joined.keyring, writer)
    }

    fn new(membership: Membership, keyring: Keyring, writer: LogWriter) -> Self {
        Self {
            membership,
            keyring,
            writer,
            limits: SponsorLimits::default(),
            hints: Vec::new(),
            discovery_key: DISCOVERY,
            writes: true,
            entropy: Entropy::new([99; 32]),
        }
    }

    fn id(&self) -> MemberId {
        self.writer.member()
    }

    fn ctx(&mut self) -> (SessionContext<'_>, &mut Entropy) {
        let ctx = SessionContext {
            membership: &self.membership,
            discovery_key: &self.discovery_key,
            keyring: &self.keyring,
            writer: self.writes.then_some(&mut self.writer),
            limits: &mut self.limits,
            hints: &self.hints,
        };
        (ctx, &mut self.entropy)
    }

    /// Feeds a sponsor of this node and does what it wants done to the membership.
    fn feed(
        &mut self,
        sponsor: &mut Sponsor,
        input: AdmissionInput,
        at: u64,
    ) -> Vec<AdmissionOutput> {
        let mut out = Vec::new();
        let (mut ctx, entropy) = self.ctx();
        sponsor.handle(input, now(at), entropy, &mut ctx, &mut out);
        for output in &out {
            if let AdmissionOutput::Admit(Entry::Statement(statement)) = output {
                self.membership.insert((**statement).clone());
            }
        }
        out
    }
}

/// How a newcomer is made.
enum Make {
    Plain(u8),
    Answered(u8, bool),
    With(Box<JoinerSettings>),
}

type Damage = (usize, Box<dyn Fn(&mut Vec<u8>)>);

/// A newcomer and a sponsor whose messages reach each other.
struct Pair<'a> {
    node: &'a mut Node,
    joiner: Joiner,
    sponsor: Sponsor,
    answer: Option<bool>,
    at: u64,
    damage: Option<Damage>,
    run: Run,
}

/// What two machines said and did.
#[derive(Default)]
struct Run {
    from_dialler: Vec<Vec<u8>>,
    from_listener: Vec<Vec<u8>>,
    dialler: Vec<AdmissionOutput>,
    listener: Vec<AdmissionOutput>,
}

impl<'a> Pair<'a> {
    fn new(node: &'a mut Node, make: Make, seed: u8, at: u64) -> Self {
        let (settings, answer) = match make {
            Make::Plain(seed) => (settings(node, seed), None),
            Make::Answered(seed, answer) => (settings(node, seed), Some(answer)),
            Make::With(settings) => (*settings, None),
        };
        let mut entropy = Entropy::new([seed; 32]);
        Self {
            joiner: Joiner::new(settings, node.id(), now(at), &mut entropy),
            sponsor: Sponsor::new(node.id(), member(seed).id(), false, now(at)),
            node,
            answer,
            at,
            damage: None,
            run: Run::default(),
        }
    }

    fn run(&mut self) {
        self.joiner_takes(AdmissionInput::Opened);
    }

    fn tick(&mut self) {
        self.sponsor_takes(AdmissionInput::Tick);
    }

    fn decide(&mut self, approve: bool) {
        self.sponsor_takes(AdmissionInput::Decided { approve });
    }

    fn joiner_takes(&mut self, input: AdmissionInput) {
        let mut out = Vec::new();
        self.joiner.handle(input, now(self.at), &mut out);
        for output in out {
            if let AdmissionOutput::Send(bytes) = output {
                let bytes = self.harm(bytes);
                self.run.from_dialler.push(bytes.clone());
                self.sponsor_takes(AdmissionInput::Received(bytes));
            } else {
                self.run.dialler.push(output);
            }
        }
    }

    fn sponsor_takes(&mut self, input: AdmissionInput) {
        for output in self.node.feed(&mut self.sponsor, input, self.at) {
            if let AdmissionOutput::Send(bytes) = output {
                let bytes = self.harm(bytes);
                self.run.from_listener.push(bytes.clone());
                self.joiner_takes(AdmissionInput::Received(bytes));
                continue;
            }
            let asks = matches!(output, AdmissionOutput::AskPerson(_));
            self.run.listener.push(output);
            if let Some(approve) = self.answer.filter(|_| asks) {
                self.decide(approve);
            }
        }
    }

    fn harm(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let sent = self.run.from_dialler.len() + self.run.from_listener.len();
        if let Some((step, damage)) = &self.damage
            && *step == sent
        {
            damage(&mut bytes);
        }
        bytes
    }

    fn finish(self) -> Run {
        self.run
    }
}

impl Run {
    fn joined(&self) -> Joined {
        let joined = self.dialler.iter().find_map(|output| {
            let AdmissionOutput::Joined(joined) = output else {
                return None;
            };
            Some((**joined).clone())
        });
        joined.expect("the newcomer did not join")
    }

    fn refusal(&self) -> Refusal {
        refusal(&self.dialler)
    }

    fn admission(&self) -> &Entry {
        let admission = self.listener.iter().find_map(|output| {
            let AdmissionOutput::Admit(entry) = output else {
                return None;
            };
            Some(entry)
        });
        admission.expect("nobody was admitted")
    }

    fn statement(&self) -> Verified<Statement> {
        let Entry::Statement(statement) = self.admission() else {
            panic!("no statement")
        };
        (**statement).clone()
    }

    fn question(&self) -> Question {
        let question = self.listener.iter().find_map(|output| {
            let AdmissionOutput::AskPerson(question) = output else {
                return None;
            };
            Some((**question).clone())
        });
        question.expect("nobody was asked")
    }

    fn dialler_ends(&self) -> Vec<&'static str> {
        names(&self.dialler)
    }

    fn listener_ends(&self) -> Vec<&'static str> {
        names(&self.listener)
    }
}

fn owner() -> Node {
    Node::owner(1)
}

fn grant(role: Role) -> Grant {
    Grant::preset(Grantee::Invite(InviteKey::from_seed(&SEED).id()), role)
}

fn viewers() -> Grant {
    grant(Role::Viewer)
}

fn asking() -> Grant {
    Grant {
        ask: true,
        ..grant(Role::Editor)
    }
}

fn invite(node: &mut Node, grant: Grant) -> Hash {
    invite_statement(node, grant).hash()
}

fn invite_statement(node: &mut Node, grant: Grant) -> Verified<Statement> {
    let position = Position {
        after: node.writer.frontier(),
        at: now(0).wall,
    };
    let statement = make_grant(&node.membership, node.writer.key(), position, grant).unwrap();
    node.writer.push(statement.clone()).unwrap();
    node.membership.insert(statement.clone());
    statement
}

fn joiner(seed: u8) -> Make {
    Make::Plain(seed)
}

fn settings(node: &Node, seed: u8) -> JoinerSettings {
    JoinerSettings {
        session: node.membership.session(),
        discovery_key: DISCOVERY,
        invite: Some(InviteKey::from_seed(&SEED)),
        chain: Vec::new(),
        member: member(seed),
        agreement: agreement(seed),
        name: format!("guest {seed}"),
        kind: Kind::Human,
        person: None,
    }
}

fn admit(node: &mut Node, make: Make, seed: u8) -> Run {
    let mut pair = Pair::new(node, make, seed, 0);
    pair.run();
    pair.finish()
}

fn admit_at(node: &mut Node, seed: u8, at: u64) -> Run {
    let mut pair = Pair::new(node, joiner(seed), seed, at);
    pair.run();
    pair.finish()
}

fn member(seed: u8) -> MemberKey {
    MemberKey::from_bytes(&[seed; 32])
}

fn agreement(seed: u8) -> AgreementKey {
    AgreementKey::from_bytes(&[seed ^ 0x80; 32])
}

fn writer_of(seed: u8, membership: &Membership) -> LogWriter {
    let session = membership.session();
    LogWriter::new(member(seed), session, Frontier::start(&session), 0)
}

fn now(milliseconds: u64) -> Now {
    Now {
        mono: Mono(1_000_000 + milliseconds * 1_000),
        wall: Wall(1_700_000_000_000 + milliseconds),
    }
}

/// A sponsor to whom this peer has proven the session, and its challenge.
fn proven(host: &mut Node, seed: u8) -> (Sponsor, [u8; 32]) {
    let mut entropy = Entropy::new([seed; 32]);
    let dialler = Dialler::new(member(seed).id(), host.id(), DISCOVERY, &mut entropy);
    let mut sponsor = Sponsor::new(host.id(), member(seed).id(), false, now(0));
    let hello = AdmissionInput::Received(dialler.hello().encode());
    let hello = sent(&host.feed(&mut sponsor, hello, 0)).remove(0);
    let (transcript, proof) = dialler.prove(&hello).unwrap();
    let answer = AdmissionInput::Received(proof.encode());
    let answer = sent(&host.feed(&mut sponsor, answer, 0)).remove(0);
    (sponsor, dialler.check(&transcript, &answer).unwrap())
}

fn join_message(host: &Node, seed: u8, challenge: [u8; 32]) -> AdmissionMessage {
    let mut entropy = Entropy::new([seed; 32]);
    let joiner = Joiner::new(settings(host, seed), host.id(), now(0), &mut entropy);
    joiner.join(challenge).unwrap()
}

/// A sponsor that waits for a Join, and the Join it would believe.
fn signed_join(host: &mut Node, seed: u8) -> (Sponsor, Vec<u8>) {
    let (sponsor, challenge) = proven(host, seed);
    (sponsor, join_message(host, seed, challenge).encode())
}

/// A newcomer that has sent its Join.
fn asked(host: &Node) -> Joiner {
    let mut entropy = Entropy::new([10; 32]);
    let mut guest = Joiner::new(settings(host, 10), host.id(), now(0), &mut entropy);
    let mut out = Vec::new();
    let hello = AdmissionMessage::Hello {
        version: ADMISSION_VERSION,
        token: [5; 32],
    };
    guest.handle(AdmissionInput::Received(hello.encode()), now(0), &mut out);
    let AdmissionMessage::Proof { nonce, .. } = read(&sent(&out)[0]) else {
        panic!("no proof");
    };
    let transcript = Transcript {
        dialler: member(10).id(),
        listener: host.id(),
        dialler_nonce: nonce,
        listener_nonce: [5; 32],
    };
    let mac = transcript.mac(&DISCOVERY, Side::Listener);
    let answer = AdmissionMessage::Answer {
        mac,
        challenge: [6; 32],
    };
    guest.handle(AdmissionInput::Received(answer.encode()), now(0), &mut out);
    assert!(matches!(guest.phase, Joining::Asked { .. }));
    guest
}

/// An owner, a guest (10) who knows all, and what another (11) knew when it joined before that guest.
fn three() -> (Node, Node, Joined) {
    let mut host = owner();
    invite(&mut host, viewers());
    let other = admit(&mut host, joiner(11), 11).joined();
    let guest = admit(&mut host, joiner(10), 10).joined();
    (host, Node::of(10, guest), other)
}

/// One member dials another.
fn meet(from: &mut Node, to: &mut Node, at: u64) -> Run {
    let (us, peer) = (from.id(), to.id());
    let mut presenter = Presenter::new(us, peer, DISCOVERY, now(at), &mut Entropy::new([8; 32]));
    let mut sponsor = Sponsor::new(peer, us, false, now(at));
    let mut run = Run::default();
    let mut to_presenter = VecDeque::from([AdmissionInput::Opened]);
    let mut to_sponsor = VecDeque::new();
    while !to_presenter.is_empty() || !to_sponsor.is_empty() {
        if let Some(input) = to_presenter.pop_front() {
            let mut out = Vec::new();
            presenter.handle(input, now(at), &from.ctx().0, &mut out);
            deliver(
                out,
                &mut to_sponsor,
                &mut run.from_dialler,
                &mut run.dialler,
            );
        }
        if let Some(input) = to_sponsor.pop_front() {
            let out = to.feed(&mut sponsor, input, at);
            deliver(
                out,
                &mut to_presenter,
                &mut run.from_listener,
                &mut run.listener,
            );
        }
    }
    run
}

fn deliver(
    out: Vec<AdmissionOutput>,
    to: &mut VecDeque<AdmissionInput>,
    wire: &mut Vec<Vec<u8>>,
    kept: &mut Vec<AdmissionOutput>,
) {
    for output in out {
        if let AdmissionOutput::Send(bytes) = output {
            wire.push(bytes.clone());
            to.push_back(AdmissionInput::Received(bytes));
            continue;
        }
        if matches!(output, AdmissionOutput::Close) {
            to.push_back(AdmissionInput::Closed);
        }
        kept.push(output);
    }
}

fn names(out: &[AdmissionOutput]) -> Vec<&'static str> {
    out.iter()
        .map(|output| match output {
            AdmissionOutput::Send(_) => "send",
            AdmissionOutput::AskPerson(_) => "ask",
            AdmissionOutput::Withdraw(_) => "withdraw",
            AdmissionOutput::Admit(_) => "admit",
            AdmissionOutput::Recognised { .. } => "recognised",
            AdmissionOutput::Waits => "waits",
            AdmissionOutput::Joined(_) => "joined",
            AdmissionOutput::Refused(_) => "refused",
            AdmissionOutput::Close => "close",
        })
        .collect()
}

fn refusal(out: &[AdmissionOutput]) -> Refusal {
    let refusal = out.iter().find_map(|output| {
        let AdmissionOutput::Refused(refusal) = output else {
            return None;
        };
        Some(refusal.clone())
    });
    refusal.expect("nothing was refused")
}

fn sent(out: &[AdmissionOutput]) -> Vec<Vec<u8>> {
    let sent = out.iter().filter_map(|output| {
        let AdmissionOutput::Send(bytes) = output else {
            return None;
        };
        Some(bytes.clone())
    });
    sent.collect()
}

fn read(bytes: &[u8]) -> AdmissionMessage {
    AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX).unwrap()
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}
