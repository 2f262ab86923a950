//! A small world of keys around one session, and what must hold of its membership.

use proptest::prelude::*;

use super::*;
use crate::engine::capability::{Capabilities, Capability, Rank, Role};
use crate::engine::entropy::Entropy;
use crate::engine::epoch::{EpochSecret, Keyring};
use crate::engine::identity::{AgreementKey, InviteKey, MemberKey};
use crate::engine::limits::{PENDING_STATEMENTS_MAX, STATEMENT_BYTES_MAX};
use crate::engine::statement::{
    Asking, Draft, Frontier, Genesis, JoinRequest, PersonId, SignedStatement, SponsorQuota,
    Sponsors, Vouch, sign_sub_grant,
};

#[test]
fn a_new_session_has_an_owner_who_may_end_it_and_an_epoch() {
    let world = World::new();

    let owner = world.all.member(&world.owner.id()).unwrap();
    assert_eq!(owner.name, "olga");
    assert_eq!(
        owner.standing.as_ref().map(|standing| standing.role),
        Some(Role::Owner)
    );
    assert!(world.all.may(&world.owner.id(), &Action::EndSession));
    assert_eq!(world.all.members().count(), 1);
    assert_eq!(
        world.all.current_epoch().unwrap().epoch.id,
        world.secret.id()
    );
    assert!(world.all.standing(&world.root.id()).is_none());
}

#[test]
fn the_owner_finds_the_first_secret_wrapped_for_his_device() {
    let world = World::new();
    let mut keyring = Keyring::default();
    let session = world.all.session();

    keyring.open_wraps(
        &session,
        &world.owner.id(),
        &agreement(0),
        world.all.wraps(),
    );

    assert!(keyring.knows(&world.secret.id()));
}

#[test]
fn the_holder_of_a_ticket_becomes_a_member_and_reads() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));

    let admit = world.admit(0, 1, 1).unwrap();

    assert_eq!(world.all.verdict(&admit.hash()), Some(&Verdict::Effective));
    let member = world.all.member(&key(1).id()).unwrap();
    assert_eq!(
        (member.name.as_str(), member.admitted_by),
        ("guest 1", world.owner.id())
    );
    assert!(world.all.may(&key(1).id(), &Action::PostChat));
    assert!(!world.all.may(&key(1).id(), &Action::HostTerminal));
    let mut keyring = Keyring::default();
    let session = world.all.session();
    keyring.open_wraps(&session, &key(1).id(), &agreement(1), world.all.wraps());
    assert!(keyring.knows(&world.secret.id()));
    assert_eq!(
        world.all.uses(&world.grant_hash(1)),
        BTreeSet::from([key(1).id()])
    );
}

#[test]
fn a_viewer_admits_by_the_owners_ticket_while_the_owner_is_away() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();

    world.admit(1, 1, 2).unwrap();

    assert_eq!(
        world.all.member(&key(2).id()).unwrap().admitted_by,
        key(1).id()
    );
}

#[test]
fn a_viewer_cannot_admit_an_editor() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.grant(
        2,
        Grant {
            sponsors: Sponsors::Any,
            ..editor_grant(2)
        },
    );
    world.admit(0, 1, 1).unwrap();

    assert_eq!(world.admit(1, 2, 2), Err(Reason::NotASponsor));
    assert_eq!(
        world.force_admit(1, 2, 2),
        Verdict::Void(Reason::NotASponsor)
    );
    assert!(world.all.member(&key(2).id()).is_none());
}

#[test]
fn only_named_sponsors_admit_and_only_as_often_as_granted() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let quota = SponsorQuota {
        member: key(1).id(),
        uses: 1,
    };
    world.grant(
        2,
        Grant {
            sponsors: Sponsors::These(vec![quota]),
            ..viewer_grant(2)
        },
    );
    world.grant(
        3,
        Grant {
            sponsors: Sponsors::UpTo(Rank(2)),
            ..viewer_grant(3)
        },
    );

    assert_eq!(world.admit(0, 2, 5), Err(Reason::NotASponsor));
    assert!(world.admit(1, 2, 5).is_ok());
    assert_eq!(
        world.force_admit(1, 2, 6),
        Verdict::Void(Reason::NotASponsor)
    );
    assert_eq!(
        world.force_admit(1, 3, 6),
        Verdict::Void(Reason::NotASponsor)
    );
    assert!(world.admit(0, 3, 6).is_ok());
}

#[test]
fn a_grant_that_widens_has_no_effect() {
    let mut world = World::new();
    world.grant(
        1,
        Grant {
            sponsors: Sponsors::Any,
            ask: false,
            ..editor_grant(1)
        },
    );
    world.admit(0, 1, 1).unwrap();
    let mut verdict = |grant| world.force(1, StatementBody::Grant(grant));

    let wide = Grant {
        capabilities: Capabilities::ALL,
        ..Grant::invitation(invite(9).id(), Role::Agent, Asking::Auto, None, None)
    };
    assert_eq!(verdict(wide), Verdict::Void(Reason::Widened));
    let more_than_it_says = Grant {
        capabilities: editor_grant(9).capabilities,
        ..viewer_grant(9)
    };
    assert_eq!(
        verdict(more_than_it_says),
        Verdict::Void(Reason::MoreThanRole)
    );
    assert_eq!(verdict(editor_grant(9)), Verdict::Void(Reason::Widened));
    let mislabelled = Grant {
        role: Role::Agent,
        ..viewer_grant(9)
    };
    assert_eq!(verdict(mislabelled), Verdict::Void(Reason::RankAboveRole));
    let deep = Grant {
        sub_depth: 5,
        ..viewer_grant(9)
    };
    assert_eq!(verdict(deep), Verdict::Void(Reason::Widened));
    assert_eq!(verdict(viewer_grant(9)), Verdict::Effective);
}

#[test]
fn who_lacks_invite_grants_nothing() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let low = Grant {
        rank: Rank(9),
        ..viewer_grant(9)
    };

    assert_eq!(
        world.force(1, StatementBody::Grant(low)),
        Verdict::Void(Reason::NotPermitted)
    );
    assert!(world.all.grant(&invite(9).id()).is_none());
}

#[test]
fn a_membership_that_ends_gives_no_longer_ones() {
    let mut world = World::new();
    let ends = Some(Wall(5_000));
    let editor = Grant {
        sponsors: Sponsors::Any,
        ask: false,
        ..editor_grant(1)
    };
    world.grant(
        1,
        Grant {
            membership_until: ends,
            ..editor
        },
    );
    world.admit(0, 1, 1).unwrap();
    let mut verdict = |grant| world.force(1, StatementBody::Grant(grant));

    assert_eq!(verdict(viewer_grant(8)), Verdict::Void(Reason::Widened));
    let within = Grant {
        membership_until: Some(Wall(4_999)),
        ..viewer_grant(8)
    };
    assert_eq!(verdict(within), Verdict::Effective);
}

#[test]
fn the_root_key_signs_grants_of_rank_one_only() {
    let mut world = World::new();
    let root = world.root.clone();
    let (start, heads) = (world.root_log, heads(&world.all));
    let mut say = |body| {
        let draft = Draft {
            session: world.all.session(),
            after: start,
            parents: heads.clone(),
            standing: None,
            ts: Wall(1),
            body,
        };
        world.insert_verdict(draft.sign(&root).unwrap())
    };

    let succession = Grant::preset(Grantee::Member(key(7).id()), Role::Owner);
    assert_eq!(
        say(StatementBody::Grant(viewer_grant(1))),
        Verdict::Void(Reason::NotForRoot)
    );
    assert_eq!(say(StatementBody::Leave), Verdict::Void(Reason::NotForRoot));
    assert_eq!(say(StatementBody::Grant(succession)), Verdict::Effective);
}

#[test]
fn joining_ends_with_the_grant_and_membership_does_not() {
    let mut world = World::new();
    world.grant(
        1,
        Grant {
            not_after: Some(Wall(10_000)),
            ..viewer_grant(1)
        },
    );

    world.at = Wall(10_000);
    world.admit(0, 1, 1).unwrap();
    world.at = Wall(10_001);
    assert_eq!(world.admit(0, 1, 2), Err(Reason::Expired));
    // Other replicas allow for clocks that differ, by two minutes.
    world.at = Wall(10_000 + 120_000);
    assert_eq!(world.force_admit(0, 1, 3), Verdict::Effective);
    world.at = Wall(10_000 + 120_001);
    assert_eq!(world.force_admit(0, 1, 4), Verdict::Void(Reason::Expired));

    assert!(world.all.standing(&key(1).id()).is_some());
}

#[test]
fn a_used_up_ticket_admits_nobody_else() {
    let mut world = World::new();
    world.grant(
        1,
        Grant {
            max_uses: Some(1),
            ..viewer_grant(1)
        },
    );
    world.admit(0, 1, 1).unwrap();

    assert_eq!(world.admit(0, 1, 2), Err(Reason::UsedUp));
    assert_eq!(world.force_admit(0, 1, 2), Verdict::Void(Reason::UsedUp));
    assert!(world.admit(0, 1, 1).is_ok());
}

#[test]
fn a_join_said_to_another_sponsor_or_session_admits_nobody() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let to_viewer = world.join(1, 1, 2);
    let mut elsewhere = world.request(0, 1, 2);
    elsewhere.session = SessionId([9; 32]);
    let elsewhere = Join::sign(elsewhere, &key(2), Some(&invite(1))).unwrap();
    let mut stolen = world.join(0, 1, 2);
    stolen.request.member = key(3).id();

    for join in [to_viewer, elsewhere, stolen] {
        let owner = world.owner.id();
        let asked = world
            .all
            .admissible(&owner, join.clone(), Vec::new(), world.at);
        assert_eq!(asked, Err(Reason::BadJoin));
        assert_eq!(world.force_join(0, 1, join), Verdict::Void(Reason::BadJoin));
    }
}

#[test]
fn a_ticket_nobody_granted_is_unknown() {
    let world = World::new();
    let join = world.join(0, 5, 2);

    let asked = world
        .all
        .admissible(&world.owner.id(), join, Vec::new(), world.at);

    assert_eq!(asked, Err(Reason::UnknownGrant));
}

#[test]
fn a_ticket_for_one_person_admits_that_person_only() {
    let mut world = World::new();
    let person = PersonId(key(50).id());
    world.grant(
        1,
        Grant {
            audience: Some(person),
            ..viewer_grant(1)
        },
    );
    let session = world.all.session();
    let by = |person: Option<u8>, member: u8| {
        let mut request = world.request(0, 1, member);
        request.person = person.map(|n| Vouch::sign(&key(n), &session, &key(member).id()));
        Join::sign(request, &key(member), Some(&invite(1))).unwrap()
    };
    let (nobody, other, right) = (by(None, 1), by(Some(51), 1), by(Some(50), 1));
    let mut borrowed = by(Some(50), 1);
    borrowed.request.member = key(2).id();

    assert_eq!(
        world.force_join(0, 1, nobody),
        Verdict::Void(Reason::WrongAudience)
    );
    assert_eq!(
        world.force_join(0, 1, other),
        Verdict::Void(Reason::WrongAudience)
    );
    assert_eq!(
        world.force_join(0, 1, borrowed),
        Verdict::Void(Reason::BadJoin)
    );
    assert_eq!(world.force_join(0, 1, right), Verdict::Effective);
}

#[test]
fn a_repeated_invitation_takes_nothing_from_its_holders() {
    let mut world = World::new();
    world.grant(
        1,
        Grant {
            sponsors: Sponsors::Any,
            ask: false,
            ..editor_grant(1)
        },
    );
    world.admit(0, 1, 1).unwrap();
    let lower = viewer_grant(1);
    assert_eq!(
        world.force(1, StatementBody::Grant(lower)),
        Verdict::Effective
    );

    world.admit(0, 1, 2).unwrap();

    assert_eq!(world.all.standing(&key(2).id()).unwrap().role, Role::Editor);
}

#[test]
fn a_sub_invitation_works_within_what_its_ticket_gave() {
    let mut world = World::new();
    world.grant(
        1,
        Grant {
            sub_depth: 1,
            max_uses: Some(2),
            ..viewer_grant(1)
        },
    );
    let narrower = Grant {
        rank: Rank(5),
        max_uses: Some(1),
        ..viewer_grant(2)
    };
    let mut admit = |grant: Grant, member| {
        let proof = world.grant_hash(1);
        let link = sign_sub_grant(&invite(1), world.all.session(), proof, Wall(1), grant).unwrap();
        let join = world.join(0, 2, member);
        let chain = vec![link.bytes().to_vec()];
        let admission = world
            .all
            .admissible(&world.owner.id(), join, chain, world.at)?;
        world.admit_as(0, admission)
    };

    assert!(admit(narrower.clone(), 2).is_ok());
    assert_eq!(admit(narrower.clone(), 3).map(|_| ()), Err(Reason::UsedUp));
    let wide = Grant {
        capabilities: Capabilities::ALL,
        ..narrower.clone()
    };
    assert_eq!(admit(wide, 3).map(|_| ()), Err(Reason::BrokenChain));
    let deep = Grant {
        sub_depth: 1,
        ..narrower
    };
    assert_eq!(admit(deep, 3).map(|_| ()), Err(Reason::BrokenChain));
    assert_eq!(world.all.standing(&key(2).id()).unwrap().rank, Rank(5));
}

#[test]
fn a_sub_invitation_by_another_key_or_alone_is_refused() {
    let mut world = World::new();
    world.grant(
        1,
        Grant {
            sub_depth: 1,
            ..viewer_grant(1)
        },
    );
    let narrower = Grant {
        rank: Rank(5),
        ..viewer_grant(2)
    };
    let session = world.all.session();
    let proof = world.grant_hash(1);
    let stolen = sign_sub_grant(&invite(3), session, proof, Wall(1), narrower.clone()).unwrap();
    let alone = sign_sub_grant(&invite(1), session, proof, Wall(1), narrower).unwrap();
    let join = world.join(0, 2, 2);

    let chain = vec![stolen.bytes().to_vec()];
    let asked = world
        .all
        .admissible(&world.owner.id(), join, chain, world.at);
    assert_eq!(asked, Err(Reason::BrokenChain));
    assert_eq!(
        world.all.insert(alone),
        Inserted::Invalid(Reason::LooseGrant)
    );
}

#[test]
fn a_stranger_can_say_nothing() {
    let mut world = World::new();
    let before = world.all.len();
    let owners = world.all.standing(&world.owner.id()).unwrap().source;
    let session = world.all.session();
    for standing in [None, Some(owners), Some(Hash([9; 32]))] {
        let draft = Draft {
            session,
            after: Frontier::start(&session),
            parents: heads(&world.all),
            standing,
            ts: Wall(1),
            body: StatementBody::Leave,
        };
        let inserted = world.all.insert(draft.sign(&key(66)).unwrap());
        assert_eq!(inserted, Inserted::Invalid(Reason::NoStanding));
    }

    assert_eq!(world.all.len(), before);
}

#[test]
fn nobody_admits_himself_without_a_grant_of_the_root_key() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    let grant = world.grant_hash(1);
    let to_key = Grant::preset(Grantee::Member(key(67).id()), Role::Viewer);
    let promised = world.say(0, StatementBody::Grant(to_key)).hash();

    let by_ticket = world.self_admission(66, grant, Grantee::Invite(invite(1).id()));
    let by_promise = world.self_admission(67, promised, Grantee::Member(key(67).id()));
    let by_anothers = {
        let owners = world.all.grants_to(&Grantee::Member(world.owner.id()))[0].hash;
        world.self_admission(66, owners, Grantee::Member(key(66).id()))
    };

    assert_eq!(
        world.all.insert(by_ticket),
        Inserted::Invalid(Reason::NotASponsor)
    );
    assert_eq!(
        world.all.insert(by_promise),
        Inserted::Invalid(Reason::NotASponsor)
    );
    assert_eq!(
        world.all.insert(by_anothers),
        Inserted::Invalid(Reason::BadJoin)
    );
}

#[test]
fn a_statement_of_another_session_is_refused() {
    let mut world = World::new();
    let other = World::with_seed(2);

    for statement in other.all.all() {
        let inserted = world.all.insert(statement.clone());
        assert_eq!(inserted, Inserted::Invalid(Reason::OtherSession));
    }
}

#[test]
fn what_a_member_was_in_the_past_stays_true_of_that_past() {
    let mut world = World::new();
    let before = heads(&world.all);
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let member = heads(&world.all);
    world.say(1, StatementBody::Leave);
    let after = heads(&world.all);

    let guest = key(1).id();
    assert!(world.all.standing_in_past(&guest, &before).is_none());
    assert!(world.all.standing_in_past(&guest, &member).is_some());
    assert!(world.all.standing_in_past(&guest, &after).is_none());
    assert!(world.all.may_in_past(&guest, &member, &Action::PostChat));
    assert!(!world.all.may_in_past(&guest, &after, &Action::PostChat));
    assert!(
        world
            .all
            .standing_in_past(&guest, &[Hash([9; 32])])
            .is_none()
    );
    assert_eq!(
        world.all.missing(&[member[0], Hash([9; 32])]),
        vec![Hash([9; 32])]
    );
}

#[test]
fn who_left_says_nothing_more_and_may_come_again() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let old = world.all.standing(&key(1).id()).unwrap().source;
    world.say(1, StatementBody::Leave);

    assert!(world.all.member(&key(1).id()).unwrap().left);
    assert_eq!(
        world.force_under(1, old, StatementBody::Leave),
        Verdict::Void(Reason::AuthorLeft)
    );
    world.admit(0, 1, 1).unwrap();

    let again = world.all.member(&key(1).id()).unwrap();
    assert!(!again.left && again.standing.is_some());
    assert_ne!(again.standing.unwrap().source, old);
}

#[test]
fn leaving_ends_an_admission_that_nobody_had_told_of() {
    let mut one = World::new();
    one.grant(1, viewer_grant(1));
    let mut other = one.clone();
    one.admit(0, 1, 1).unwrap();
    one.say(1, StatementBody::Leave);
    other.at = Wall(77);
    let concurrent = other.admit(0, 1, 1).unwrap();

    one.all.insert(concurrent);

    assert!(one.all.standing(&key(1).id()).is_none());
}

#[test]
fn the_newest_prekey_is_the_one_to_wrap_to() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    assert_eq!(
        world.all.member(&key(1).id()).unwrap().prekey,
        agreement(1).public()
    );

    world.say(
        1,
        StatementBody::Prekey {
            key: agreement(90).public(),
        },
    );
    world.say(
        1,
        StatementBody::Prekey {
            key: agreement(91).public(),
        },
    );

    assert_eq!(
        world.all.member(&key(1).id()).unwrap().prekey,
        agreement(91).public()
    );
}

#[test]
fn an_epoch_follows_the_greatest_it_knows_and_wraps_the_one_before() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let newer = EpochSecret::from_bytes([44; 32]);
    let next = |world: &World, secret: &EpochSecret| {
        world
            .all
            .next_epoch(secret, &world.keyring(), &mut Entropy::new([3; 32]))
            .unwrap()
    };
    let epoch = next(&world, &newer);

    assert_eq!(
        (epoch.number, epoch.wraps.len(), epoch.previous.len()),
        (2, 2, 1)
    );
    let by_viewer = world.force(1, StatementBody::Epoch(epoch.clone()));
    assert_eq!(by_viewer, Verdict::Void(Reason::NotPermitted));
    world.say(0, StatementBody::Epoch(epoch.clone()));
    assert_eq!(world.all.current_epoch().unwrap().epoch.id, newer.id());
    let repeated = world.force(
        0,
        StatementBody::Epoch(Epoch {
            number: 3,
            ..epoch.clone()
        }),
    );
    assert_eq!(repeated, Verdict::Void(Reason::EpochOutOfOrder));
    let fresh = next(&world, &EpochSecret::from_bytes([45; 32]));
    let skipping = world.force(0, StatementBody::Epoch(Epoch { number: 9, ..fresh }));
    assert_eq!(skipping, Verdict::Void(Reason::EpochOutOfOrder));

    let mut keyring = Keyring::default();
    keyring.insert(newer);
    keyring.open_previous(&world.all.session(), &world.all.previous_wraps());
    assert!(keyring.knows(&world.secret.id()));
    assert_eq!(world.all.leaf_epochs(), vec![epoch.id]);
}

#[test]
fn a_member_with_an_unusable_prekey_keeps_nobody_from_the_next_epoch() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    world.say(
        1,
        StatementBody::Prekey {
            key: AgreementPublic([0; 32]),
        },
    );

    let secret = EpochSecret::from_bytes([44; 32]);
    let epoch = world
        .all
        .next_epoch(&secret, &world.keyring(), &mut Entropy::new([3; 32]));

    let recipients: Vec<_> = epoch
        .unwrap()
        .wraps
        .iter()
        .map(|wrap| wrap.recipient)
        .collect();
    assert_eq!(recipients, vec![world.owner.id()]);
}

#[test]
fn the_owner_alone_ends_the_session() {
    let mut world = World::new();
    world.grant(
        1,
        Grant::preset(Grantee::Invite(invite(1).id()), Role::Admin),
    );
    world.admit(0, 1, 1).unwrap();
    let close = || StatementBody::Close {
        reason: "done".to_owned(),
    };

    assert_eq!(world.force(1, close()), Verdict::Void(Reason::NotPermitted));
    assert!(world.all.closed().is_none());
    world.say(0, close());

    let closed = world.all.closed().unwrap();
    assert_eq!((closed.by, closed.reason), (world.owner.id(), "done"));
}

#[test]
fn an_agent_stands_and_falls_with_its_principal() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.grant(
        2,
        Grant::preset(Grantee::Invite(invite(2).id()), Role::Agent),
    );
    world.admit(0, 1, 1).unwrap();
    world.admit_for(0, 2, 2, Some(key(1).id())).unwrap();

    let agent = world.all.standing(&key(2).id()).unwrap();
    assert_eq!(
        (agent.kind, agent.principal),
        (Kind::Agent, Some(key(1).id()))
    );
    let for_nobody = world.admit_for(0, 2, 3, Some(key(60).id()));
    assert_eq!(for_nobody, Err(Reason::NoPrincipal));
    let for_an_agent = world.admit_for(0, 2, 3, Some(key(2).id()));
    assert_eq!(for_an_agent, Err(Reason::NoPrincipal));
    let person_for_person = world.admit_for(0, 1, 4, Some(key(1).id()));
    assert_eq!(person_for_person, Err(Reason::WrongKind));

    world.say(1, StatementBody::Leave);
    assert!(world.all.standing(&key(2).id()).is_none());
    let verdict = world.force_under(2, agent.source, StatementBody::Leave);
    assert_eq!(verdict, Verdict::Void(Reason::PrincipalGone));
}

#[test]
fn later_kinds_are_kept_without_effect() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();
    let raise = StatementBody::Quota {
        member: key(1).id(),
        bytes: 1,
    };

    assert_eq!(world.force(0, raise), Verdict::Deferred);
    let change = crate::engine::statement::RoleChange {
        member: key(1).id(),
        rank: Rank(3),
        role: Role::Editor,
        capabilities: Role::Editor.capabilities(),
        scope: crate::engine::capability::Scope::default(),
        covers: None,
        revoke: None,
    };
    assert_eq!(
        world.force(0, StatementBody::Role(change)),
        Verdict::Deferred
    );
    assert_eq!(world.all.standing(&key(1).id()).unwrap().role, Role::Viewer);
}

#[test]
fn the_most_senior_standing_counts_and_any_standing_allows() {
    let mut world = World::new();
    world.grant(1, viewer_grant(1));
    let edits = Capabilities::of(&[Capability::Read, Capability::Edit]);
    let editor = Grant {
        sponsors: Sponsors::Any,
        ask: false,
        ..editor_grant(2)
    };
    world.grant(
        2,
        Grant {
            capabilities: edits,
            ..editor
        },
    );
    world.admit(0, 1, 1).unwrap();
    world.admit(0, 2, 1).unwrap();

    assert_eq!(world.all.standing(&key(1).id()).unwrap().role, Role::Editor);
    assert!(world.all.may(&key(1).id(), &Action::TakeFreeControl));
    assert!(world.all.may(&key(1).id(), &Action::PostChat));
}

#[test]
fn a_statement_waits_for_its_parents_and_comes_with_them() {
    let world = World::busy();
    let all: Vec<_> = world.all.all().into_iter().cloned().collect();
    let mut late = Membership::new(all[0].clone()).unwrap();
    let last = all.last().unwrap();

    let waiting = late.insert(last.clone());
    assert_eq!(
        waiting,
        Inserted::Pending {
            missing: last.parents.clone()
        }
    );
    assert_eq!(late.insert(last.clone()), Inserted::Duplicate);
    assert_eq!(late.wanted(), last.parents);
    assert!(late.get(&last.hash()).is_none());

    let mut kept = Vec::new();
    for statement in &all[1..all.len() - 1] {
        let Inserted::New(hashes) = late.insert(statement.clone()) else {
            panic!("not kept")
        };
        kept.extend(hashes);
    }
    assert_eq!(kept.last(), Some(&last.hash()));
    assert_eq!((late.pending(), late.wanted().len()), (0, 0));
    assert_eq!(answers(&late), answers(&world.all));
}

#[test]
fn the_pool_of_waiting_statements_is_bounded() {
    let mut world = World::new();
    let session = world.all.session();
    for number in 0..u64::try_from(PENDING_STATEMENTS_MAX).unwrap() + 50 {
        let draft = Draft {
            session,
            after: Frontier {
                seq: number + 1,
                hash: Hash([1; 32]),
            },
            parents: vec![Hash([2; 32])],
            standing: None,
            ts: Wall(number),
            body: StatementBody::Leave,
        };
        world.all.insert(draft.sign(&key(66)).unwrap());
    }

    assert_eq!(world.all.pending(), PENDING_STATEMENTS_MAX);
    assert_eq!(world.all.wanted(), vec![Hash([2; 32])]);
}

#[test]
fn whoever_has_some_heads_is_told_the_rest_in_causal_order() {
    let mut world = World::new();
    let early = heads(&world.all);
    world.grant(1, viewer_grant(1));
    world.admit(0, 1, 1).unwrap();

    let rest = world.all.beyond(&early);

    assert_eq!(rest.len(), 2);
    assert!(matches!(rest[0].body, StatementBody::Grant(_)));
    assert!(world.all.beyond(&heads(&world.all)).is_empty());
    assert_eq!(world.all.beyond(&[Hash([9; 32])]).len(), world.all.len());
}

#[test]
fn a_full_house_fits_into_one_statement() {
    let heads: Vec<Hash> = (0..64).map(|n| Hash([n; 32])).collect();
    let keep: Vec<Hash> = (0..1_024_u32)
        .map(|n| {
            Hash(
                [[0; 28].as_slice(), &n.to_be_bytes()]
                    .concat()
                    .try_into()
                    .unwrap(),
            )
        })
        .collect();
    let kick = crate::engine::statement::Revoke {
        members: vec![],
        grants: vec![crate::engine::statement::GrantEnd {
            grant: Hash([1; 32]),
            keep,
        }],
        reason: "é".repeat(256),
        epoch: None,
    };
    let session = SessionId([1; 32]);
    let draft = Draft {
        session,
        after: Frontier::start(&session),
        parents: heads,
        standing: Some(Hash([1; 32])),
        ts: Wall(1),
        body: StatementBody::Revoke(kick),
    };

    let made = draft.sign(&key(1)).unwrap();

    let room_for_an_epoch = 64 * 112 + 8 * 80 + 200;
    assert!(made.bytes().len() + room_for_an_epoch <= STATEMENT_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_order_of_arrival_gives_the_same_answers(
        order in Just(World::busy().statements()).prop_shuffle(),
        doubled in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let world = World::busy();
        let mut shuffled = Membership::new(world.genesis.clone()).unwrap();
        for statement in &order {
            shuffled.insert(statement.clone());
        }
        for again in doubled {
            shuffled.insert(again.get(&order).clone());
        }

        prop_assert_eq!(shuffled.pending(), world.all.pending());
        prop_assert_eq!(answers(&shuffled), answers(&world.all));
    }
}

/// Everything that a membership answers, to be compared.
fn answers(membership: &Membership) -> String {
    let members: Vec<Member> = membership.members().collect();
    let epochs: Vec<_> = membership
        .epochs()
        .iter()
        .map(|fact| fact.epoch.id)
        .collect();
    let current = membership.current_epoch().map(|fact| fact.epoch.id);
    let all: Vec<_> = membership
        .all()
        .iter()
        .map(|one| (one.hash(), membership.verdict(&one.hash())))
        .collect();
    let in_the_past: Vec<_> = membership
        .all()
        .iter()
        .flat_map(|one| {
            members
                .iter()
                .map(|member| membership.standing_in_past(&member.id, &[one.hash()]))
                .collect::<Vec<_>>()
        })
        .collect();
    let grants: Vec<_> = membership
        .grants()
        .map(|fact| (fact.hash, membership.uses(&fact.hash)))
        .collect();
    format!(
        "{members:?} {epochs:?} {current:?} {all:?} {in_the_past:?} {grants:?} {:?} {:?} {:?}",
        membership.heads(),
        membership.closed(),
        membership.leaf_epochs(),
    )
}

#[derive(Clone)]
struct World {
    genesis: Verified<Statement>,
    root: MemberKey,
    root_log: Frontier,
    owner: MemberKey,
    secret: EpochSecret,
    all: Membership,
    logs: BTreeMap<MemberId, Frontier>,
    at: Wall,
    /// Statements that are offered but not kept.
    refused: Vec<Verified<Statement>>,
}

/// Member 0 is the owner; members and invitations above are made from their number.
impl World {
    fn new() -> Self {
        Self::with_seed(1)
    }

    fn with_seed(seed: u8) -> Self {
        let (root, owner) = (key(200), key(0));
        let new = NewSession {
            root: &root,
            owner: &owner,
            prekey: agreement(0).public(),
            name: "olga".to_owned(),
            discovery_key: &[8; 32],
            at: Wall(1_000),
        };
        let created = Genesis::create(&new, &mut Entropy::new([seed; 32])).unwrap();
        Self {
            genesis: created.statements[0].clone(),
            root_log: created.root_log,
            secret: created.secret,
            logs: BTreeMap::from([(owner.id(), created.owner_log)]),
            all: created.membership,
            at: Wall(2_000),
            refused: Vec::new(),
            root,
            owner,
        }
    }

    /// Joins through several sponsors, leaves, comings back, concurrent branches, void and foreign statements.
    fn busy() -> Self {
        let mut world = Self::new();
        world.grant(1, viewer_grant(1));
        world.grant(
            2,
            Grant {
                sponsors: Sponsors::Any,
                ask: false,
                ..editor_grant(2)
            },
        );
        world.admit(0, 1, 1).unwrap();
        world.admit(0, 2, 2).unwrap();
        let mut branch = world.clone();

        world.admit(1, 1, 3).unwrap();
        world.say(3, StatementBody::Leave);
        world.force(1, StatementBody::Grant(viewer_grant(8)));
        let secret = EpochSecret::from_bytes([44; 32]);
        let epoch = world
            .all
            .next_epoch(&secret, &world.keyring(), &mut Entropy::new([3; 32]));
        world.say(0, StatementBody::Epoch(epoch.unwrap()));

        branch.at = Wall(3_000);
        branch.admit(2, 1, 3).unwrap();
        branch.say(2, StatementBody::Grant(viewer_grant(7)));
        branch.say(
            1,
            StatementBody::Prekey {
                key: agreement(90).public(),
            },
        );
        for statement in branch.all.all() {
            world.all.insert(statement.clone());
        }
        let grant = world.grant_hash(1);
        let stranger = world.self_admission(66, grant, Grantee::Invite(invite(1).id()));
        world.all.insert(stranger.clone());
        world.refused.push(stranger);
        world.say(2, StatementBody::Leave);
        world
    }

    fn statements(&self) -> Vec<Verified<Statement>> {
        self.all
            .all()
            .into_iter()
            .chain(&self.refused)
            .cloned()
            .collect()
    }

    fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.insert(self.secret.clone());
        keyring
    }

    fn position(&self, author: u8) -> Position {
        let start = Frontier::start(&self.all.session());
        let after = self.logs.get(&key(author).id()).copied().unwrap_or(start);
        Position { after, at: self.at }
    }

    fn keep(&mut self, statement: Verified<Statement>) -> Verified<Statement> {
        self.logs.insert(statement.member, statement.frontier());
        let read = SignedStatement::decode(statement.bytes()).unwrap();
        assert_eq!(self.all.insert(read), Inserted::New(vec![statement.hash()]));
        statement
    }

    /// Says what has effect.
    fn say(&mut self, author: u8, body: StatementBody) -> Verified<Statement> {
        let Position { after, at } = self.position(author);
        let statement = self.all.make(&key(author), after, at, body).unwrap();
        self.keep(statement)
    }

    /// Says something whatever others will make of it.
    fn force(&mut self, author: u8, body: StatementBody) -> Verdict {
        let standing = self.all.standing(&key(author).id()).unwrap().source;
        self.force_under(author, standing, body)
    }

    fn force_under(&mut self, author: u8, standing: Hash, body: StatementBody) -> Verdict {
        let Position { after, at } = self.position(author);
        let draft = Draft {
            session: self.all.session(),
            after,
            parents: heads(&self.all),
            standing: Some(standing),
            ts: at,
            body,
        };
        let statement = self.keep(draft.sign(&key(author)).unwrap());
        self.all.verdict(&statement.hash()).unwrap().clone()
    }

    fn insert_verdict(&mut self, statement: Verified<Statement>) -> Verdict {
        let hash = statement.hash();
        self.all.insert(statement);
        self.all.verdict(&hash).unwrap().clone()
    }

    fn grant(&mut self, number: u8, grant: Grant) {
        assert_eq!(grant.to, Grantee::Invite(invite(number).id()));
        let statement = make_grant(&self.all, &self.owner, self.position(0), grant).unwrap();
        self.keep(statement);
    }

    fn grant_hash(&self, number: u8) -> Hash {
        self.all.grant(&invite(number).id()).unwrap().hash
    }

    fn request(&self, sponsor: u8, by: u8, member: u8) -> JoinRequest {
        JoinRequest {
            session: self.all.session(),
            by: Grantee::Invite(invite(by).id()),
            member: key(member).id(),
            prekey: agreement(member).public(),
            name: format!("guest {member}"),
            kind: Kind::Human,
            person: None,
            sponsor: key(sponsor).id(),
            challenge: [member; 32],
        }
    }

    fn join(&self, sponsor: u8, by: u8, member: u8) -> Join {
        Join::sign(
            self.request(sponsor, by, member),
            &key(member),
            Some(&invite(by)),
        )
        .unwrap()
    }

    /// Admits as an honest sponsor does.
    fn admit(&mut self, sponsor: u8, by: u8, member: u8) -> Result<Verified<Statement>, Reason> {
        self.admit_for(sponsor, by, member, None)
    }

    fn admit_for(
        &mut self,
        sponsor: u8,
        by: u8,
        member: u8,
        principal: Option<MemberId>,
    ) -> Result<Verified<Statement>, Reason> {
        let join = self.join(sponsor, by, member);
        let admission = self
            .all
            .admissible(&key(sponsor).id(), join, Vec::new(), self.at)?;
        self.admit_made(sponsor, admission, principal)
    }

    fn admit_as(
        &mut self,
        sponsor: u8,
        admission: Admission,
    ) -> Result<Verified<Statement>, Reason> {
        self.admit_made(sponsor, admission, None)
    }

    fn admit_made(
        &mut self,
        sponsor: u8,
        mut admission: Admission,
        principal: Option<MemberId>,
    ) -> Result<Verified<Statement>, Reason> {
        if principal.is_some() && admission.gives.role == Role::Agent {
            admission.join.request.kind = Kind::Agent;
            let request = admission.join.request.clone();
            let member = (0..=255)
                .map(key)
                .find(|key| key.id() == request.member)
                .unwrap();
            let by = (0..=255)
                .map(invite)
                .find(|key| Grantee::Invite(key.id()) == request.by);
            admission.join = Join::sign(request, &member, by.as_ref()).unwrap();
        }
        let (keyring, position) = (self.keyring(), self.position(sponsor));
        let mut entropy = Entropy::new([position.after.seq as u8; 32]);
        let made = make_admit(
            &self.all,
            &key(sponsor),
            position,
            admission,
            principal,
            &keyring,
            &mut entropy,
        );
        match made {
            Ok(statement) => Ok(self.keep(statement)),
            Err(MembershipError::Void(reason)) => Err(reason),
            Err(error) => panic!("{error}"),
        }
    }

    /// Admits as a sponsor does who asks nobody.
    fn force_admit(&mut self, sponsor: u8, by: u8, member: u8) -> Verdict {
        let join = self.join(sponsor, by, member);
        self.force_join(sponsor, by, join)
    }

    fn force_join(&mut self, sponsor: u8, by: u8, join: Join) -> Verdict {
        let admit = Admit {
            grant: self.grant_hash(by),
            chain: Vec::new(),
            kind: join.request.kind,
            join,
            at: self.at,
            wraps: Vec::new(),
            principal: None,
        };
        self.force(sponsor, StatementBody::Admit(Box::new(admit)))
    }

    fn self_admission(&self, who: u8, grant: Hash, by: Grantee) -> Verified<Statement> {
        let session = self.all.session();
        let mut request = self.request(who, 1, who);
        request.by = by;
        let invited = matches!(by, Grantee::Invite(_)).then(|| invite(1));
        let admit = Admit {
            grant,
            chain: Vec::new(),
            join: Join::sign(request, &key(who), invited.as_ref()).unwrap(),
            at: self.at,
            wraps: Vec::new(),
            principal: None,
            kind: Kind::Human,
        };
        let draft = Draft {
            session,
            after: Frontier::start(&session),
            parents: heads(&self.all),
            standing: None,
            ts: self.at,
            body: StatementBody::Admit(Box::new(admit)),
        };
        draft.sign(&key(who)).unwrap()
    }
}

fn key(number: u8) -> MemberKey {
    MemberKey::from_bytes(&[number; 32])
}

fn agreement(number: u8) -> AgreementKey {
    AgreementKey::from_bytes(&[number; 32])
}

fn invite(number: u8) -> InviteKey {
    InviteKey::from_seed(&[number; 32])
}

fn viewer_grant(number: u8) -> Grant {
    Grant::invitation(invite(number).id(), Role::Viewer, Asking::Auto, None, None)
}

fn editor_grant(number: u8) -> Grant {
    Grant::invitation(invite(number).id(), Role::Editor, Asking::Auto, None, None)
}

fn heads(membership: &Membership) -> Vec<Hash> {
    membership.heads().iter().copied().collect()
}
