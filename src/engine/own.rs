//! This node's own key elsewhere: what others have of its log, and other nodes that run with it.
//!
//! A state folder may be an old copy, or be copied while its node runs. So with each hello a node compares what the
//! other side has of its own log and of its start's number with what it knows itself. What is further there is
//! asked for, and until it has come, or its bearer has had its time, nothing is given to anybody that nobody can
//! have yet; `replica::restored` then writes that again behind the true end.
//!
//! A member to whom two starts of one key are connected asks each of them on behalf of the other: it passes on the
//! challenges of their hellos and the signed answers. Who gets the word of another start over its own challenge
//! has met another live node with its key: it stops writing and says so, until no such word has come for a while.
//! Both stop, and either can go on as soon as the other has ended. A member's claim alone stops nobody longer than
//! [`ANOTHER_WAIT`] or [`OWN_LOG_WAIT`].

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::command::CommandError;
use crate::engine::context::Context;
use crate::engine::documents::Running;
use crate::engine::effect::NetEffect;
use crate::engine::error::Code;
use crate::engine::event::ConnId;
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::limits::{
    ANOTHER_DOUBTED, ANOTHER_LASTS, ANOTHER_WAIT, CHALLENGE_LASTS, OWN_LOG_WAIT,
};
use crate::engine::member::Member;
use crate::engine::message::{Hello, PeerMessage, Reached, SignedAlive, SignedInstance};
use crate::engine::persist::{Key, Table};
use crate::engine::replica::Taken;
use crate::engine::time::Mono;
use crate::engine::{Engine, Phase};

/// What is known of the own key elsewhere, and of other keys in two places.
#[derive(Debug)]
pub(in crate::engine) struct Own {
    /// This start's lot.
    run: u64,
    /// Members that have more of the own log, or another one, as they say.
    claims: BTreeMap<MemberId, Claim>,
    /// Members whose claims came to nothing.
    empty: BTreeSet<MemberId>,
    /// Whether own entries came from others since the log was last settled.
    adopted: u64,
    /// What was drawn for each connection.
    challenges: BTreeMap<ConnId, Challenge>,
    /// The start that said hello on each connection, and what it drew.
    met: BTreeMap<ConnId, (u64, [u8; 32])>,
    /// Members that say that somebody else is connected with the own key, and how long its word is waited for.
    asked: BTreeMap<MemberId, Mono>,
    /// Members who said so in vain, and until when they are not waited for again.
    doubted: BTreeMap<MemberId, Mono>,
    /// The highest number of the own starts that others know.
    highest: u64,
    /// When the word of another live node with the own key came last.
    another: Option<Mono>,
    /// Whether two histories were written under the own key.
    forked: bool,
    /// Members of whom the person was told that their histories part.
    parted: BTreeSet<MemberId>,
}

#[derive(Debug)]
struct Claim {
    /// What it has; of gossip, only that it is more.
    reached: Option<Reached>,
    until: Mono,
}

#[derive(Debug)]
struct Challenge {
    drawn: [u8; 32],
    /// When it was answered first.
    answered: Option<Mono>,
}

impl Own {
    /// Nothing is known.
    pub(in crate::engine) fn new(run: u64) -> Self {
        Self {
            run,
            claims: BTreeMap::new(),
            empty: BTreeSet::new(),
            adopted: 0,
            challenges: BTreeMap::new(),
            met: BTreeMap::new(),
            asked: BTreeMap::new(),
            doubted: BTreeMap::new(),
            highest: 0,
            another: None,
            forked: false,
            parted: BTreeSet::new(),
        }
    }

    /// This start's lot.
    pub(in crate::engine) fn run(&self) -> u64 {
        self.run
    }

    /// When somebody has had its time.
    pub(in crate::engine) fn deadline(&self) -> Option<Mono> {
        let claims = self.claims.values().map(|claim| claim.until);
        let another = self.another.map(|at| at + ANOTHER_LASTS);
        claims
            .chain(self.asked.values().copied())
            .chain(another)
            .min()
    }

    /// Whether the own log is given to nobody beyond what others may have.
    fn holds(&self) -> bool {
        let waits = !self.claims.is_empty() || !self.asked.is_empty();
        waits || self.another.is_some() || self.forked
    }

    /// A member says that somebody else is connected with the own key: that word is waited for, unless its last
    /// claim was in vain. Saying it again prolongs nothing.
    fn wait_for_another(&mut self, peer: MemberId, now: Mono) {
        if !self.doubted.contains_key(&peer) {
            self.asked.entry(peer).or_insert(now + ANOTHER_WAIT);
        }
    }

    /// Nobody's word came in time.
    fn waited(&mut self, now: Mono) {
        self.doubted.retain(|_, until| *until > now);
        let late = self.asked.iter().filter(|(_, until)| **until <= now);
        let doubted = late.map(|(peer, _)| (*peer, now + ANOTHER_DOUBTED));
        self.doubted.extend(doubted);
        self.asked.retain(|_, until| *until > now);
    }

    /// Who has more of the own log has its time from now on.
    fn wait_on(&mut self, now: Mono) {
        for claim in self.claims.values_mut() {
            claim.until = now + OWN_LOG_WAIT;
        }
    }

    /// Why nothing may be written under this key now.
    pub(in crate::engine) fn silenced(&self) -> Option<CommandError> {
        if self.forked {
            let message = "two histories were written under this key, so it is finished";
            return Some(CommandError::new(Code::KeyForked, message));
        }
        let message = "another program runs with the same key, so this one writes nothing";
        let error = || CommandError::new(Code::SecondInstance, message);
        self.another.is_some().then(error)
    }
}

impl Member {
    /// Why nothing that lasts can be written now, if so.
    pub(in crate::engine) fn cannot_write(&self) -> Option<CommandError> {
        let frozen = self.replica.frozen().cloned();
        frozen.or_else(|| self.own.silenced())
    }

    /// Whether this node may sign an admission now.
    pub(in crate::engine) fn may_admit(&self) -> bool {
        self.replica.frozen().is_none() && !self.own.holds()
    }

    /// Draws the challenge for a connection.
    pub(in crate::engine) fn challenge(
        &mut self,
        conn: ConnId,
        context: &mut Context<'_>,
    ) -> [u8; 32] {
        let drawn = context.entropy.bytes();
        let answered = None;
        self.own
            .challenges
            .insert(conn, Challenge { drawn, answered });
        drawn
    }

    /// A connection is gone.
    pub(in crate::engine) fn forget_connection(&mut self, conn: ConnId) {
        self.own.challenges.remove(&conn);
        self.own.met.remove(&conn);
    }

    /// A membership is sent in an admission, which shows own statements to somebody. False if that may not be now:
    /// one of them may not be on disk, or its number may be another entry's elsewhere.
    pub(in crate::engine) fn shows_statements(&mut self, context: &mut Context<'_>) -> bool {
        let me = self.me();
        let statements = self.replica.membership().statements_of(&me);
        let last = statements.iter().map(|statement| statement.seq).max();
        let last = last.unwrap_or(0);
        if self.replica.frozen().is_some() || (self.own.holds() && last > self.replica.shown()) {
            return false;
        }
        self.replica.show(last, &mut context.out.persist);
        true
    }

    /// This start takes a higher number than others know.
    fn begin_again(&mut self, context: &mut Context<'_>) {
        self.instance = self.own.highest.saturating_add(1);
        let key = Key::new(Table::Meta, *b"instance");
        let number = self.instance.to_be_bytes().to_vec();
        context.out.persist.put(key, number);
        self.board.begin_again(self.instance);
    }

    /// Somebody's histories part: the person is told once of each.
    fn note_parted(&mut self, author: MemberId, context: &mut Context<'_>) {
        if author == self.me() {
            if !self.own.forked {
                self.own.forked = true;
                let text = "two histories were written under the key of this folder (an old or copied folder \
                            went on beside another): nothing more is written with it; join again with your \
                            ticket";
                self.notice(text.to_owned(), context);
            }
        } else if self.own.parted.insert(author) {
            let name = self.name(&author);
            let text = format!(
                "{name} has written two histories with one key: what came second is kept out; {name} has to \
                 join again"
            );
            self.notice(text, context);
        }
    }

    /// Own terminals and the own name, as they are, where the own document says otherwise.
    fn say_what_is(&mut self, context: &mut Context<'_>) {
        let me = self.me();
        let state = self.replica.documents().member(&me).cloned();
        let state = state.unwrap_or_default();
        let hosted = &self.terminals.hosted;
        let runs = |id: &TerminalId| hosted.get(id).is_some_and(|hosted| hosted.open);
        let said = |id: &TerminalId| state.terminals.get(id);
        let over: Vec<TerminalId> = state
            .terminals
            .iter()
            .filter(|(id, terminal)| terminal.state == Running::Open && !runs(id))
            .map(|(id, _)| *id)
            .collect();
        let unsaid: Vec<(TerminalId, (u16, u16))> = hosted
            .iter()
            .filter(|(id, hosted)| hosted.open && said(id).is_none())
            .map(|(id, hosted)| (*id, hosted.size))
            .collect();
        let spec = self.replica.profile().terminal.clone();
        let title = spec.map_or_else(String::new, |spec| spec.title);
        let mut failed = state.name.is_none() && self.introduce_again(context).is_err();
        for id in over {
            let closed = self.announce(context, |documents, writer, now| {
                documents.close_terminal(writer, now, id, None)
            });
            failed |= closed.is_err();
        }
        for (id, size) in unsaid {
            let opened = self.announce(context, |documents, writer, now| {
                documents.announce_terminal(writer, now, id, &title, size)
            });
            failed |= opened.is_err();
        }
        if failed {
            tracing::warn!("what runs here could not be announced again");
        }
    }

    fn introduce_again(&mut self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let mut taken = Taken::default();
        self.introduce(&mut taken, context)?;
        self.absorb(taken, context);
        Ok(())
    }
}

impl Engine {
    /// Whether somebody else has said hello with this peer's key.
    pub(in crate::engine) fn knows_another(&self, conn: ConnId, peer: &MemberId) -> bool {
        let others = self.links.with(peer).into_iter();
        others
            .filter(|other| *other != conn)
            .any(|other| self.links.link(other).is_some_and(|link| link.greeted()))
    }

    /// A hello, whose signature is good: what it says of our own key, and whether its own is in two places.
    pub(in crate::engine) fn compare_own(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        hello: &Hello,
        context: &mut Context<'_>,
    ) {
        self.ask_both(conn, peer, hello, context);
        let known_already = self.links.with(&peer).len() > 1;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let another = hello.another && !known_already;
        if another {
            member.own.wait_for_another(peer, context.now.mono);
        }
        if let Some(ours) = &hello.your_instance {
            member.hear_own_start(ours, another, context);
        }
        self.own_log_at(conn, peer, hello.your_log, context);
        self.settle_own(context);
    }

    /// Where two starts of one key are connected, each is asked for its word to the other.
    fn ask_both(&mut self, conn: ConnId, peer: MemberId, hello: &Hello, context: &mut Context<'_>) {
        let all = self.links.with(&peer);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let (run, drawn) = (hello.instance.run, hello.challenge);
        let met = member.own.met.iter();
        let others: Vec<(ConnId, [u8; 32])> = met
            .filter(|(other, (theirs, _))| *theirs != run && **other != conn && all.contains(other))
            .map(|(other, (_, drawn))| (*other, *drawn))
            .collect();
        member.own.met.insert(conn, (run, drawn));
        for (other, theirs) in others {
            self.tell_on(other, &PeerMessage::Challenge(drawn), context);
            self.tell_on(conn, &PeerMessage::Challenge(theirs), context);
        }
    }

    /// A member asks for our word to somebody who is connected with our key.
    pub(in crate::engine) fn challenged(
        &mut self,
        (peer, conn): (MemberId, ConnId),
        drawn: [u8; 32],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        // An answer is signed, so it counts as what costs this node something.
        if !member.sync.may_be_given(peer, context.now.mono) {
            return;
        }
        member.sync.was_given(&peer, 0);
        let mut own = member.own.challenges.values();
        if own.any(|own| own.drawn == drawn) {
            return;
        }
        let session = member.replica.session();
        let word = SignedAlive::sign(member.replica.key(), &session, member.own.run, drawn);
        self.tell_on(conn, &PeerMessage::Alive(Box::new(word)), context);
    }

    /// The word of a node that runs: for us, if it answers our challenge, or to be passed on.
    pub(in crate::engine) fn heard_alive(
        &mut self,
        peer: MemberId,
        word: SignedAlive,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let session = member.replica.session();
        if word.member == member.me() {
            let mut asked = member.own.challenges.iter_mut();
            let asked = asked.find(|(_, asked)| asked.drawn == word.challenge);
            if let Some((conn, asked)) = asked
                && word.run != member.own.run
                && word.check(&session).is_ok()
            {
                let first = *asked.answered.get_or_insert(context.now.mono);
                if context.now.mono < first + CHALLENGE_LASTS {
                    self.met_another(context);
                } else {
                    // It may be an old word said again: a new connection asks anew.
                    context.net(NetEffect::Close { conn: *conn });
                }
            }
            return;
        }
        if word.member != peer {
            return;
        }
        let met = member.own.met.iter();
        let to = met.filter(|(_, (run, drawn))| *drawn == word.challenge && *run != word.run);
        let to: Vec<ConnId> = to.map(|(conn, _)| *conn).collect();
        let message = PeerMessage::Alive(Box::new(word));
        for conn in to {
            if self.links.link(conn).is_some_and(|link| link.peer == peer) {
                self.tell_on(conn, &message, context);
            }
        }
    }

    /// Another live node runs with our key.
    fn met_another(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let first = member.own.another.replace(context.now.mono).is_none();
        member.own.asked.clear();
        if first {
            let text = "another program runs with the key of this one (a copied state folder?): nothing is \
                        written here until one of the two has ended; the terminal goes on";
            member.notice(text.to_owned(), context);
        }
        self.settle_own(context);
    }

    /// What somebody has of our log.
    pub(in crate::engine) fn own_log_at(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        reached: Reached,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        let replica = &mut member.replica;
        let agrees = replica.logs().hash_at(&me, reached.seq) == Some(reached.hash);
        if reached.seq == 0 || agrees {
            // A claim that stands is over when it is met or has had its time, whatever else its bearer says.
            replica.show(reached.seq, &mut context.out.persist);
            return;
        }
        let shown = replica.shown();
        let after = shown.min(reached.seq.saturating_sub(1));
        if member.own.empty.contains(&peer) || member.own.claims.contains_key(&peer) {
            return;
        }
        let claim = Claim {
            reached: Some(reached),
            until: context.now.mono + OWN_LOG_WAIT,
        };
        member.own.claims.insert(peer, claim);
        let want = PeerMessage::Want(vec![(me, after)]);
        self.tell_on(conn, &want, context);
    }

    /// An own entry came whose predecessors are missing here: who sent it has them.
    pub(in crate::engine) fn own_gap(&mut self, peer: MemberId, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if member.own.claims.contains_key(&peer) {
            return;
        }
        let claim = Claim {
            reached: None,
            until: context.now.mono + OWN_LOG_WAIT,
        };
        member.own.claims.insert(peer, claim);
        let want = PeerMessage::Want(vec![(member.me(), member.replica.shown())]);
        self.tell(peer, &want, context);
        self.settle_own(context);
    }

    /// Entries have been taken from a peer, own ones perhaps: `before` was known to others until then.
    pub(in crate::engine) fn own_entries_came(
        &mut self,
        peer: MemberId,
        before: u64,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        let shown = member.replica.shown();
        let grown = shown.saturating_sub(before);
        member.own.adopted = member.own.adopted.saturating_add(grown);
        if grown > 0 {
            member.own.empty.remove(&peer);
        }
        let Some(claim) = member.own.claims.get_mut(&peer) else {
            return;
        };
        let logs = member.replica.logs();
        let complete = claim
            .reached
            .is_some_and(|reached| logs.hash_at(&me, reached.seq) == Some(reached.hash));
        if complete || (claim.reached.is_none() && grown == 0) {
            member.own.claims.remove(&peer);
        } else if grown > 0 {
            claim.until = context.now.mono + OWN_LOG_WAIT;
            let want = PeerMessage::Want(vec![(me, shown)]);
            self.tell(peer, &want, context);
        }
        self.settle_own(context);
    }

    /// What comes can be kept again: those who have more of the own log are asked for it anew.
    pub(in crate::engine) fn own_log_again(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        member.own.wait_on(context.now.mono);
        let (me, shown) = (member.me(), member.replica.shown());
        let claims = member.own.claims.iter();
        let wanted: Vec<(MemberId, u64)> = claims
            .map(|(peer, claim)| {
                let reached = claim.reached.map_or(u64::MAX, |reached| reached.seq);
                (*peer, shown.min(reached.saturating_sub(1)))
            })
            .collect();
        for (peer, after) in wanted {
            self.tell(peer, &PeerMessage::Want(vec![(me, after)]), context);
        }
        self.settle_own(context);
    }

    /// Authors whose histories part.
    pub(in crate::engine) fn parted(
        &mut self,
        authors: &BTreeSet<MemberId>,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        for author in authors {
            member.note_parted(*author, context);
        }
        if authors.contains(&self.me) {
            self.settle_own(context);
        }
    }

    /// Somebody has had its time.
    pub(in crate::engine) fn own_due(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let frozen = member.replica.frozen().is_some();
        let own = &mut member.own;
        if frozen {
            // Nobody can give anything meanwhile.
            own.wait_on(now);
        }
        let late = own.claims.iter().filter(|(_, claim)| claim.until <= now);
        let idle: Vec<MemberId> = late
            .filter(|(_, claim)| claim.reached.is_some())
            .map(|(peer, _)| *peer)
            .collect();
        own.empty.extend(idle);
        own.claims.retain(|_, claim| claim.until > now);
        own.waited(now);
        let over = own.another.take_if(|at| *at + ANOTHER_LASTS <= now);
        if over.is_some() {
            let text = "the other program with the key of this one has ended: writing goes on here";
            member.notice(text.to_owned(), context);
        }
        self.settle_own(context);
    }

    /// Holds the own log back, or lets it go: with what had to make way, and what runs here.
    pub(in crate::engine) fn settle_own(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let held = member.own.holds() || member.replica.frozen().is_some();
        if held || (!member.replica.is_held() && !member.replica.has_unsaid()) {
            member.replica.hold(held);
            return;
        }
        member.replica.hold(false);
        let higher = member.own.highest >= member.instance;
        if higher {
            member.begin_again(context);
        }
        member.write_again(context);
        if higher {
            self.listening(context);
        }
    }
}

impl Member {
    /// A start of ours that others know, under our own signature. While another one may be alive, its number is
    /// only kept in mind: two live ones would outbid each other.
    fn hear_own_start(&mut self, ours: &SignedInstance, another: bool, context: &mut Context<'_>) {
        let session = self.replica.session();
        let newer = ours.number >= self.instance && ours.run != self.own.run;
        if ours.member != self.me() || !newer || ours.check(&session).is_err() {
            return;
        }
        self.own.highest = self.own.highest.max(ours.number);
        if !another && self.own.another.is_none() && self.own.asked.is_empty() {
            self.begin_again(context);
        }
    }

    /// The own log is up to date: what made way is written again behind it, and others hear of it.
    fn write_again(&mut self, context: &mut Context<'_>) {
        let mut taken = Taken::default();
        let adopted = std::mem::take(&mut self.own.adopted);
        let again = self.replica.has_unsaid();
        if again {
            let batch = &mut context.out.persist;
            let now = context.now.wall;
            let said = self
                .replica
                .say_again(now, context.entropy, (&mut taken, batch));
            tracing::info!(?said, "what made way is written again");
            if said.lost > 0 {
                let text = format!(
                    "{} of what was written here could not be written again",
                    said.lost
                );
                self.notice(text, context);
            }
        }
        taken.fresh = self.replica.unshown();
        taken.changed = true;
        self.absorb(taken, context);
        if again || adopted > 0 {
            self.say_what_is(context);
            let text = "this folder was older than what others have of it: it is up to date again";
            self.notice(text.to_owned(), context);
        }
    }
}

#[cfg(test)]
mod attacks;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::command::{Ask, Command, CommandError, Reply, SessionPatch};
    use crate::engine::event::Event;
    use crate::engine::identity::MemberKey;
    use crate::engine::ids::Hash;
    use crate::engine::stage::Stage;

    pub(super) const OWNER: usize = 0;
    pub(super) const GUEST: usize = 1;
    pub(super) const WITNESS: usize = 2;

    /// Somebody says something; what it is refused with, if it is.
    pub(super) fn say(stage: &mut Stage, node: usize, text: &str) -> Result<(), Code> {
        let post = Command::PostMessage {
            text: text.to_owned(),
            reply: None,
            mentions: Vec::new(),
            anchor: None,
        };
        match stage.command(node, post) {
            Ok(Reply::Message { .. }) => Ok(()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code),
        }
    }

    pub(super) fn texts(stage: &mut Stage, node: usize) -> Vec<String> {
        let messages = stage.view(node).messages.into_iter();
        messages.map(|message| message.text).collect()
    }

    fn told(stage: &mut Stage, node: usize, part: &str) -> bool {
        let notices = stage.view(node).notices;
        notices.iter().any(|notice| notice.text.contains(part))
    }

    /// All nodes hold the same logs, and nobody has met a fork.
    fn agree(stage: &mut Stage, nodes: &[usize]) {
        let vector = stage.member(nodes[0]).replica.vector();
        for node in nodes {
            assert_eq!(stage.member(*node).replica.vector(), vector, "node {node}");
            assert!(stage.member(*node).own.parted.is_empty(), "node {node}");
            assert!(!stage.member(*node).own.forked, "node {node}");
        }
    }

    pub(super) fn seconds(stage: &mut Stage, seconds: u64) {
        stage.run(Duration::from_secs(seconds));
    }

    /// A guest's folder of before its last words is put back; the guest was killed.
    fn put_back(stage: &mut Stage) {
        say(stage, GUEST, "before the copy").unwrap();
        seconds(stage, 2);
        let old = stage.folder(GUEST);
        for n in 0..5 {
            say(stage, GUEST, &format!("after the copy {n}")).unwrap();
        }
        seconds(stage, 2);
        stage.kill(GUEST);
        stage.resume(GUEST, old);
    }

    #[test]
    fn an_old_folder_that_was_put_back_learns_what_it_had_said() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        put_back(&mut stage);
        seconds(&mut stage, 10);

        say(&mut stage, GUEST, "and now").unwrap();
        seconds(&mut stage, 2);

        let expected = texts(&mut stage, OWNER);
        assert_eq!(expected.len(), 7);
        for node in [GUEST, WITNESS] {
            assert_eq!(texts(&mut stage, node), expected);
        }
        assert!(told(&mut stage, GUEST, "older than"));
        agree(&mut stage, &[OWNER, GUEST, WITNESS]);
    }

    #[test]
    fn what_an_old_folder_wrote_before_it_met_anybody_is_written_again_behind_its_true_end() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        stage.leave_alone(GUEST);
        put_back(&mut stage);
        for n in 0..3 {
            say(&mut stage, GUEST, &format!("alone {n}")).unwrap();
        }
        assert_eq!(texts(&mut stage, GUEST).len(), 4);
        // Another start changes nothing: the folder says what was shown to nobody.
        let folder = stage.folder(GUEST);
        stage.kill(GUEST);
        stage.resume(GUEST, folder);
        let alone = stage.member(GUEST).replica.frontier().seq;
        stage.let_meet(GUEST);
        seconds(&mut stage, 40);

        let expected = texts(&mut stage, OWNER);
        for n in 0..3 {
            let text = format!("alone {n}");
            assert_eq!(
                expected.iter().filter(|said| **said == text).count(),
                1,
                "{expected:?}"
            );
        }
        assert_eq!(expected.len(), 9);
        for node in [GUEST, WITNESS] {
            assert_eq!(texts(&mut stage, node), expected);
        }
        assert!(stage.member(GUEST).replica.frontier().seq > alone);
        agree(&mut stage, &[OWNER, GUEST, WITNESS]);
        // What is on its disk is the same.
        let folder = stage.folder(GUEST);
        stage.kill(GUEST);
        stage.resume(GUEST, folder);
        assert_eq!(texts(&mut stage, GUEST), expected);
        seconds(&mut stage, 10);
        agree(&mut stage, &[OWNER, GUEST, WITNESS]);
    }

    #[test]
    fn an_owners_old_folder_keeps_its_title_ticket_and_terminal_of_before_it_met_anybody() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        stage.open_terminal(OWNER);
        seconds(&mut stage, 2);
        let old = stage.folder(OWNER);
        stage.kill(OWNER);
        let newer = stage.folder(OWNER);
        stage.resume(OWNER, newer);
        say(&mut stage, OWNER, "after the copy").unwrap();
        seconds(&mut stage, 5);
        stage.kill(OWNER);

        stage.resume(OWNER, old);
        let title = Some("a new title".to_owned());
        let patch = SessionPatch {
            title,
            ..SessionPatch::default()
        };
        stage.command(OWNER, Command::PatchSession(patch)).unwrap();
        let invite = Command::CreateInvite {
            role: Role::Viewer,
            expires_in: None,
            ask: Ask::Never,
            addresses: true,
        };
        stage.command(OWNER, invite).unwrap();
        seconds(&mut stage, 10);

        for node in [OWNER, GUEST, WITNESS] {
            let view = stage.view(node);
            assert_eq!(view.session.title, "a new title", "node {node}");
            let open = view.terminals.iter().filter(|terminal| terminal.open);
            assert_eq!(open.count(), 1, "node {node}");
            assert_eq!(texts(&mut stage, node), ["after the copy"]);
        }
        agree(&mut stage, &[OWNER, GUEST, WITNESS]);
        let newcomer = stage.join_by_newest();
        seconds(&mut stage, 5);
        agree(&mut stage, &[OWNER, GUEST, WITNESS, newcomer]);
    }

    #[test]
    fn an_old_folder_takes_a_higher_number_and_is_present_at_once() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        let old = stage.folder(GUEST);
        for _ in 0..3 {
            let folder = stage.folder(GUEST);
            stage.kill(GUEST);
            stage.resume(GUEST, folder);
            seconds(&mut stage, 5);
        }
        let before = stage.member(GUEST).instance;
        stage.kill(GUEST);
        stage.resume(GUEST, old);
        seconds(&mut stage, 5);

        assert!(stage.member(GUEST).instance > before);
        let guest = stage.id(GUEST);
        let seen = stage.view(OWNER).participants.into_iter();
        let seen = seen.filter(|one| one.id == guest).map(|one| one.status);
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [crate::engine::view::Status::Online]
        );
    }

    #[test]
    fn who_lies_about_a_nodes_own_log_silences_it_for_seconds_and_once() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        let me = stage.id(OWNER);
        let reached = |n: u64| Reached {
            seq: 1_000_000 + n,
            hash: Hash([7; 32]),
        };
        let honest = stage.member(OWNER).replica.vector();
        for n in 0..20 {
            for lie in [vec![(me, reached(n))], honest.clone()] {
                stage.say(GUEST, OWNER, &PeerMessage::Vector(lie));
            }
        }
        assert!(stage.member(OWNER).replica.is_held());
        say(&mut stage, OWNER, "through it all").unwrap();
        stage.run(OWN_LOG_WAIT + Duration::from_secs(1));

        assert_eq!(texts(&mut stage, WITNESS), ["through it all"]);
        for n in 20..40 {
            stage.say(GUEST, OWNER, &PeerMessage::Vector(vec![(me, reached(n))]));
            assert!(!stage.member(OWNER).replica.is_held());
        }
        assert!(stage.member(OWNER).replica.frontier().seq < 1_000);
        agree(&mut stage, &[OWNER, GUEST, WITNESS]);
    }

    #[test]
    fn what_was_held_back_and_then_not_saved_is_told_only_once_it_is_saved() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        let me = stage.id(OWNER);
        let reached = Reached {
            seq: 1_000_000,
            hash: Hash([7; 32]),
        };
        stage.say(GUEST, OWNER, &PeerMessage::Vector(vec![(me, reached)]));
        assert!(stage.member(OWNER).replica.is_held());

        say(&mut stage, OWNER, "not saved yet").unwrap();
        let error = CommandError::new(Code::DiskFull, "the disk is full");
        stage.happen(OWNER, Event::CommitFailed { error });
        stage.run(OWN_LOG_WAIT + Duration::from_secs(10));
        assert_eq!(texts(&mut stage, WITNESS), [""; 0]);
        stage.happen(OWNER, Event::CommittedAgain);
        seconds(&mut stage, 5);

        assert_eq!(texts(&mut stage, WITNESS), ["not saved yet"]);
        agree(&mut stage, &[OWNER, GUEST, WITNESS]);
    }

    #[test]
    fn who_makes_up_another_node_with_ones_key_stops_nobody() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        let session = stage.member(OWNER).replica.session();
        let drawn: Vec<[u8; 32]> = stage
            .member(OWNER)
            .own
            .challenges
            .values()
            .map(|challenge| challenge.drawn)
            .collect();
        let (me, forger) = (stage.id(OWNER), MemberKey::from_bytes(&[9; 32]));
        let key = stage.member(OWNER).replica.key().clone();
        let run = stage.member(OWNER).own.run;
        for challenge in drawn {
            // Another's signature in its name, and its own word given back to it.
            let mut forged = SignedAlive::sign(&forger, &session, 5, challenge);
            forged.member = me;
            let own = SignedAlive::sign(&key, &session, run, challenge);
            for word in [forged, own] {
                stage.say(GUEST, OWNER, &PeerMessage::Alive(Box::new(word)));
            }
            // It never answers a challenge of its own.
            stage.sent.clear();
            stage.say(GUEST, OWNER, &PeerMessage::Challenge(challenge));
            let alive = |message: &PeerMessage| matches!(message, PeerMessage::Alive(_));
            assert!(!stage.said(OWNER, GUEST).iter().any(alive));
        }
        // A word of its key over something that it did not draw, as of another time.
        let stale = SignedAlive::sign(&key, &session, 5, [3; 32]);
        stage.say(GUEST, OWNER, &PeerMessage::Alive(Box::new(stale)));

        assert_eq!(say(&mut stage, OWNER, "on and on"), Ok(()));
        seconds(&mut stage, 1);
        assert_eq!(texts(&mut stage, WITNESS), ["on and on"]);
    }

    #[test]
    fn a_folder_that_runs_twice_stops_both_says_so_and_lets_either_go_on_alone() {
        for survivor in [0, 1] {
            let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
            say(&mut stage, GUEST, "before the copy").unwrap();
            seconds(&mut stage, 1);
            let copy = stage.folder(GUEST);
            stage.leave_alone(WITNESS + 1);
            let second = stage.resume_beside(copy);
            say(&mut stage, second, "of the second").unwrap();
            stage.let_meet(second);
            seconds(&mut stage, 40);
            let both = [GUEST, second];
            for node in both {
                assert!(told(&mut stage, node, "another program"), "node {node}");
                assert_eq!(say(&mut stage, node, "x"), Err(Code::SecondInstance));
            }
            seconds(&mut stage, 60);
            for node in both {
                assert_eq!(say(&mut stage, node, "x"), Err(Code::SecondInstance));
                assert!(
                    stage.member(node).instance < 5,
                    "they do not outbid each other"
                );
            }
            let (goes, stays) = (both[1 - survivor], both[survivor]);

            stage.kill(goes);
            seconds(&mut stage, 30);

            assert_eq!(say(&mut stage, stays, "alone again"), Ok(()));
            seconds(&mut stage, 5);
            let expected = texts(&mut stage, OWNER);
            assert!(expected.contains(&"alone again".to_owned()), "{expected:?}");
            assert_eq!(
                expected.contains(&"of the second".to_owned()),
                stays == second
            );
            agree(&mut stage, &[OWNER, WITNESS, stays]);
        }
    }

    #[test]
    fn a_fork_that_could_not_be_prevented_is_told_to_its_person_and_to_everybody() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        seconds(&mut stage, 1);
        let old = stage.folder(GUEST);
        stage.cut(GUEST, WITNESS);
        stage.kill(WITNESS);
        say(&mut stage, GUEST, "to the owner").unwrap();
        seconds(&mut stage, 1);
        stage.kill(OWNER);
        stage.kill(GUEST);

        // The old folder meets only who knows no more than it does.
        stage.resume(GUEST, old);
        let folder = stage.folder(WITNESS);
        stage.resume(WITNESS, folder);
        seconds(&mut stage, 5);
        say(&mut stage, GUEST, "to the witness").unwrap();
        seconds(&mut stage, 5);
        assert_eq!(texts(&mut stage, WITNESS), ["to the witness"]);
        let folder = stage.folder(OWNER);
        stage.resume(OWNER, folder);
        seconds(&mut stage, 10);

        assert_eq!(say(&mut stage, GUEST, "x"), Err(Code::KeyForked));
        assert!(told(&mut stage, GUEST, "two histories"));
        assert!(told(&mut stage, OWNER, "two histories"));
        assert_eq!(texts(&mut stage, OWNER), ["to the owner"]);
    }
}
