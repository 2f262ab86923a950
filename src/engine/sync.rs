//! What each peer has and lacks, and who is asked for what.
//!
//! Neighbours put a digest of their vector into each heartbeat. Where digests differ, vectors are exchanged;
//! who lacks something asks for it, one bounded batch after the other, and only one peer for each log. So
//! nothing depends on gossip, and there is never more under way to a peer than it has asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::engine::allowance::Allowances;
use crate::engine::epoch::EpochId;
use crate::engine::identity::hash;
use crate::engine::ids::{Hash, MemberId};
use crate::engine::limits::{
    COMPARE_AFTER, FETCH_BYTES_MAX, FETCH_LOGS_MAX, FETCH_TIMEOUT, VECTOR_AGAIN,
};
use crate::engine::message::{PeerMessage, Reached, pack};
use crate::engine::replica::Replica;
use crate::engine::time::Mono;

/// What is known of a neighbour.
#[derive(Debug, Default)]
struct Neighbour {
    /// How far it knows each log.
    vector: BTreeMap<MemberId, Reached>,
    /// The digest of the vector that it was sent last.
    told: Option<Hash>,
    /// When it asked by its heartbeat for a vector that it got.
    asked_at: Option<Mono>,
    /// Whether catch-up with it has completed since it was connected.
    synced: bool,
    /// Epochs that it was asked for.
    asked: BTreeSet<EpochId>,
    /// Logs of which it has another history, as it says: it was asked for the proof, once.
    disputed: BTreeSet<MemberId>,
    /// Logs of which its answer could not be used, and until when it is not asked for them again.
    stuck: BTreeMap<MemberId, Mono>,
}

/// A request for one log that is under way.
#[derive(Debug, Clone, Copy)]
struct Fetching {
    peer: MemberId,
    since: Mono,
    /// Where the log ended here when it was asked for.
    after: u64,
}

/// Catch-up with all neighbours.
#[derive(Debug, Default)]
pub struct Sync {
    neighbours: BTreeMap<MemberId, Neighbour>,
    /// Which neighbour is asked for which log, and since when.
    fetching: BTreeMap<MemberId, Fetching>,
    given: Allowances,
    compare: Option<Mono>,
    /// How far the own log was when nobody had seen more of it.
    seen: u64,
    off: bool,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub enum SyncOutput {
    /// Send to a neighbour.
    Send(MemberId, PeerMessage),
    /// Compare digests with every neighbour now.
    CompareAll,
    /// Catch-up with a neighbour has completed.
    Completed(MemberId),
}

impl Sync {
    /// Nothing known of anybody; the own log ends at `seq`.
    pub fn new(seq: u64) -> Self {
        Self {
            seen: seq,
            ..Self::default()
        }
    }

    /// Never compares nor asks: to see in a simulation what gossip does alone.
    pub fn switch_off(&mut self) {
        self.off = true;
    }

    /// A neighbour is connected.
    pub fn up(&mut self, peer: MemberId, replica: &Replica, out: &mut Vec<SyncOutput>) {
        self.neighbours.insert(peer, Neighbour::default());
        // What it was asked on a former connection will not be answered on this one.
        self.fetching.retain(|_, asked| asked.peer != peer);
        self.tell(peer, replica, out);
        self.ask_epochs(replica, out);
    }

    /// Whether any neighbour is connected.
    pub fn has_neighbours(&self) -> bool {
        !self.neighbours.is_empty()
    }

    /// Whether a neighbour has been asked for something and has not answered.
    pub fn is_asked(&self, peer: &MemberId) -> bool {
        self.fetching.values().any(|asked| asked.peer == *peer)
    }

    /// A neighbour is gone: others are asked for what it was asked for.
    pub fn down(
        &mut self,
        peer: &MemberId,
        now: Mono,
        replica: &Replica,
        out: &mut Vec<SyncOutput>,
    ) {
        self.neighbours.remove(peer);
        self.fetching.retain(|_, asked| asked.peer != *peer);
        self.fetch(now, replica, out);
    }

    /// The logs here have grown.
    pub fn changed(&mut self, now: Mono) {
        self.compare.get_or_insert(now + COMPARE_AFTER);
    }

    /// A neighbour's heartbeat carries the digest of its vector. One that beats without end is not told the same
    /// vector each time.
    pub fn digest(
        &mut self,
        peer: MemberId,
        theirs: &Hash,
        now: Mono,
        replica: &Replica,
        out: &mut Vec<SyncOutput>,
    ) {
        let vector = replica.vector();
        let ours = digest(&vector);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        if ours == *theirs {
            neighbour.vector = vector.into_iter().collect();
            return self.complete(peer, replica, out);
        }
        let lately = neighbour.asked_at.is_some_and(|at| at + VECTOR_AGAIN > now);
        if lately && neighbour.told == Some(ours) {
            return;
        }
        neighbour.asked_at = Some(now);
        self.tell(peer, replica, out);
    }

    /// A neighbour says how far it knows each log.
    pub fn vector(
        &mut self,
        peer: MemberId,
        theirs: Vec<(MemberId, Reached)>,
        now: Mono,
        replica: &Replica,
        out: &mut Vec<SyncOutput>,
    ) {
        let ours = replica.vector();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        neighbour.vector = theirs.into_iter().collect();
        let lacks = missing(&ours, &neighbour.vector) > 0;
        let told = neighbour.told == Some(digest(&ours));
        if lacks && !told {
            self.tell(peer, replica, out);
        }
        self.dispute(peer, replica, out);
        self.fetch(now, replica, out);
        self.complete(peer, replica, out);
    }

    /// Where a neighbour names another entry than the one that is here, its author wrote two histories, or the
    /// neighbour lies: it is asked for that entry, which proves the one or the other.
    fn dispute(&mut self, peer: MemberId, replica: &Replica, out: &mut Vec<SyncOutput>) {
        let me = replica.me();
        let Some(neighbour) = self.neighbours.get_mut(&peer).filter(|_| !self.off) else {
            return;
        };
        let differs = |(author, reached): &(&MemberId, &Reached)| {
            let ours = replica.logs().hash_at(author, reached.seq);
            **author != me && ours.is_some_and(|ours| ours != reached.hash)
        };
        let new = neighbour.vector.iter().filter(differs);
        let new: Vec<(MemberId, u64)> = new
            .filter(|(author, _)| !neighbour.disputed.contains(author))
            .map(|(author, reached)| (*author, reached.seq.saturating_sub(1)))
            .take(FETCH_LOGS_MAX)
            .collect();
        if !new.is_empty() {
            neighbour
                .disputed
                .extend(new.iter().map(|(author, _)| *author));
            out.push(SyncOutput::Send(peer, PeerMessage::Want(new)));
        }
    }

    /// Whether a neighbour's request is answered now, or asked too soon after too many others.
    pub fn may_be_given(&mut self, peer: MemberId, now: Mono) -> bool {
        let may = self.given.may_have(peer, now);
        if !may {
            tracing::debug!(peer = %peer.short(), "a peer asks for more than it is given");
        }
        may
    }

    /// A neighbour was given so many bytes.
    pub fn was_given(&mut self, peer: &MemberId, bytes: usize) {
        self.given.spend(peer, bytes);
    }

    /// A neighbour asks for entries: the answer, if it has not asked for too much lately.
    pub fn want(
        &mut self,
        peer: MemberId,
        wanted: &[(MemberId, u64)],
        now: Mono,
        replica: &Replica,
    ) -> Option<PeerMessage> {
        if !self.may_be_given(peer, now) {
            return None;
        }
        let (packed, done) = gathered(wanted, replica);
        self.was_given(&peer, packed.len());
        Some(PeerMessage::Entries { packed, done })
    }

    /// A neighbour's answer has been taken in: ask it for the rest.
    pub fn answered(
        &mut self,
        peer: MemberId,
        now: Mono,
        replica: &Replica,
        out: &mut Vec<SyncOutput>,
    ) {
        let (asked, others): (BTreeMap<_, _>, BTreeMap<_, _>) = mem::take(&mut self.fetching)
            .into_iter()
            .partition(|(_, asked)| asked.peer == peer);
        self.fetching = others;
        // An answer that took no log further (its author wrote two histories, say) is not asked for again at
        // once: two nodes would chase each other.
        let grown = |(author, asked): (&MemberId, &Fetching)| {
            replica.logs().frontier(author).seq > asked.after
        };
        if !asked.iter().any(grown)
            && let Some(neighbour) = self.neighbours.get_mut(&peer)
        {
            let until = now + FETCH_TIMEOUT;
            let stuck = asked.into_keys().map(|author| (author, until));
            neighbour.stuck.extend(stuck);
        }
        self.fetch(now, replica, out);
        self.complete(peer, replica, out);
        self.ask_epochs(replica, out);
    }

    /// An entry came whose predecessors are missing: the neighbour it came from has them.
    pub fn gap(
        &mut self,
        peer: MemberId,
        author: MemberId,
        now: Mono,
        replica: &Replica,
        out: &mut Vec<SyncOutput>,
    ) {
        if self.off || self.fetching.contains_key(&author) || !replica.may_keep(&author) {
            return;
        }
        if self.neighbours.contains_key(&peer) {
            let after = replica.logs().frontier(&author).seq;
            let since = now;
            self.fetching
                .insert(author, Fetching { peer, since, after });
            let after = replica.logs().frontier(&author).seq;
            out.push(SyncOutput::Send(
                peer,
                PeerMessage::Want(vec![(author, after)]),
            ));
        }
    }

    /// Asks every neighbour for the secrets of epochs that are missing here, each once.
    pub fn ask_epochs(&mut self, replica: &Replica, out: &mut Vec<SyncOutput>) {
        let missing = replica.missing_epochs();
        if missing.is_empty() || self.off {
            return;
        }
        for (peer, neighbour) in &mut self.neighbours {
            let wanted: Vec<EpochId> = missing
                .difference(&neighbour.asked)
                .take(FETCH_LOGS_MAX)
                .copied()
                .collect();
            if wanted.is_empty() {
                continue;
            }
            neighbour.asked.extend(&wanted);
            let wanted = wanted.into_iter().map(|id| Hash(id.0)).collect();
            out.push(SyncOutput::Send(*peer, PeerMessage::WantEpochs(wanted)));
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Mono, replica: &Replica, out: &mut Vec<SyncOutput>) {
        if self.compare.is_some_and(|at| at <= now) {
            self.compare = None;
            if !self.off {
                out.push(SyncOutput::CompareAll);
            }
        }
        let before = self.fetching.len();
        let late: Vec<MemberId> = self
            .fetching
            .values()
            .filter(|asked| asked.since + FETCH_TIMEOUT <= now)
            .map(|asked| asked.peer)
            .collect();
        self.fetching
            .retain(|_, asked| asked.since + FETCH_TIMEOUT > now);
        if self.fetching.len() < before {
            // Who did not answer is asked last from now on: what it has is forgotten until it says so again.
            for peer in late {
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.vector.clear();
                    neighbour.told = None;
                }
            }
            self.fetch(now, replica, out);
        }
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Mono> {
        let fetch = self
            .fetching
            .values()
            .map(|asked| asked.since + FETCH_TIMEOUT)
            .min();
        self.compare.into_iter().chain(fetch).min()
    }

    /// Entries here that a neighbour lacks, as far as known, and entries that it has and are missing here.
    pub fn difference(&self, peer: &MemberId, replica: &Replica) -> (u64, u64) {
        let Some(neighbour) = self.neighbours.get(peer) else {
            return (0, 0);
        };
        let ours = replica.vector();
        let theirs: Vec<(MemberId, Reached)> = neighbour
            .vector
            .iter()
            .map(|(member, reached)| (*member, *reached))
            .collect();
        let known = ours.iter().copied().collect();
        (missing(&ours, &neighbour.vector), missing(&theirs, &known))
    }

    /// Entries that neighbours have and are missing here.
    pub fn waiting(&self, replica: &Replica) -> u64 {
        let known: BTreeMap<MemberId, Reached> = replica.vector().into_iter().collect();
        let mut best: BTreeMap<MemberId, Reached> = BTreeMap::new();
        for neighbour in self.neighbours.values() {
            for (member, reached) in &neighbour.vector {
                let entry = best.entry(*member).or_insert(*reached);
                *entry = (*entry).max(*reached);
            }
        }
        let best: Vec<(MemberId, Reached)> = best.into_iter().collect();
        missing(&best, &known)
    }

    /// Own entries that nobody else is known to have.
    pub fn unseen(&self, replica: &Replica) -> u64 {
        let me = replica.me();
        let reached = self
            .neighbours
            .values()
            .filter_map(|neighbour| neighbour.vector.get(&me));
        let seen = reached
            .map(|reached| reached.seq)
            .max()
            .unwrap_or(0)
            .max(self.seen);
        replica.frontier().seq.saturating_sub(seen)
    }

    /// Whether catch-up with some neighbour has completed.
    pub fn is_synced(&self) -> bool {
        self.neighbours.values().any(|neighbour| neighbour.synced)
    }

    fn tell(&mut self, peer: MemberId, replica: &Replica, out: &mut Vec<SyncOutput>) {
        if self.off {
            return;
        }
        let vector = replica.vector();
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.told = Some(digest(&vector));
            out.push(SyncOutput::Send(peer, PeerMessage::Vector(vector)));
        }
    }

    /// Asks for what is missing: each log from one neighbour that has more of it.
    fn fetch(&mut self, now: Mono, replica: &Replica, out: &mut Vec<SyncOutput>) {
        if self.off {
            return;
        }
        let busy: BTreeSet<MemberId> = self.fetching.values().map(|asked| asked.peer).collect();
        let me = replica.me();
        for (peer, neighbour) in &mut self.neighbours {
            if busy.contains(peer) {
                continue;
            }
            neighbour.stuck.retain(|_, until| *until > now);
            let lacking = |author: &MemberId, reached: &Reached| {
                let ours = replica.logs().frontier(author).seq;
                // What others have of the own log is asked for where it is compared.
                (reached.seq > ours
                    && *author != me
                    && replica.may_keep(author)
                    && !neighbour.stuck.contains_key(author)
                    && !self.fetching.contains_key(author))
                .then_some((*author, ours))
            };
            let wanted: Vec<(MemberId, u64)> = neighbour
                .vector
                .iter()
                .filter_map(|(author, reached)| lacking(author, reached))
                .take(FETCH_LOGS_MAX)
                .collect();
            if wanted.is_empty() {
                continue;
            }
            let fetching = |(author, after): &(MemberId, u64)| {
                let (peer, since, after) = (*peer, now, *after);
                (*author, Fetching { peer, since, after })
            };
            self.fetching.extend(wanted.iter().map(fetching));
            out.push(SyncOutput::Send(*peer, PeerMessage::Want(wanted)));
        }
    }

    /// Notes how far a neighbour is, and whether nothing that it has is missing here.
    fn complete(&mut self, peer: MemberId, replica: &Replica, out: &mut Vec<SyncOutput>) {
        let me = replica.me();
        let known: BTreeMap<MemberId, Reached> = replica.vector().into_iter().collect();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            return;
        };
        if let Some(reached) = neighbour.vector.get(&me) {
            self.seen = self.seen.max(reached.seq);
        }
        let theirs: Vec<(MemberId, Reached)> = neighbour
            .vector
            .iter()
            .map(|(member, reached)| (*member, *reached))
            .collect();
        if !neighbour.synced && !theirs.is_empty() && missing(&theirs, &known) == 0 {
            neighbour.synced = true;
            out.push(SyncOutput::Completed(peer));
        }
    }
}

/// The entries that follow what is known of these logs, as far as one answer holds them, packed; and whether that
/// is all.
fn gathered(wanted: &[(MemberId, u64)], replica: &Replica) -> (Vec<u8>, bool) {
    let mut entries = Vec::new();
    let mut room = FETCH_BYTES_MAX;
    let mut done = true;
    for (member, after) in wanted {
        if room == 0 {
            done = false;
            break;
        }
        let offered = replica.offered(member).seq;
        let mut range = replica.logs().range(member, after.saturating_add(1), room);
        let left = usize::try_from(offered.saturating_sub(*after)).unwrap_or(usize::MAX);
        range.truncate(left);
        let end = after.saturating_add(u64::try_from(range.len()).unwrap_or(u64::MAX));
        done &= end >= offered;
        for entry in range {
            room = room.saturating_sub(entry.len());
            entries.push(entry.to_vec());
        }
    }
    (pack(&entries), done)
}

/// The digest of a vector, as heartbeats carry it.
pub fn digest(vector: &[(MemberId, Reached)]) -> Hash {
    let bytes = postcard::to_stdvec(vector).unwrap_or_default();
    hash("collab-p2p v1 vector digest", &[&bytes])
}

/// How many entries `there` lacks of what `here` has.
fn missing(here: &[(MemberId, Reached)], there: &BTreeMap<MemberId, Reached>) -> u64 {
    let lacks = |(member, reached): &(MemberId, Reached)| {
        let seq = there.get(member).map_or(0, |reached| reached.seq);
        reached.seq.saturating_sub(seq)
    };
    here.iter().map(lacks).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::documents::DocumentName;
    use crate::engine::log::LogWriter;
    use crate::engine::replica::Taken;
    use crate::engine::stage::Stage;
    use crate::engine::statement::{Frontier, StatementBody};

    const HERE: usize = 0;
    const LIAR: usize = 1;
    const AUTHOR: usize = 2;

    /// What the liar says that it has: all that is here, and very much of the author's log.
    fn boast(stage: &mut Stage) -> PeerMessage {
        boast_of(stage, AUTHOR)
    }

    fn boast_of(stage: &mut Stage, author: usize) -> PeerMessage {
        let author = stage.id(author);
        let mut vector = stage.member(HERE).replica.vector();
        for (member, reached) in &mut vector {
            if *member == author {
                let (seq, hash) = (1_000_000, Hash([7; 32]));
                *reached = Reached { seq, hash };
            }
        }
        PeerMessage::Vector(vector)
    }

    /// How often the author's log was asked for.
    fn wants(stage: &mut Stage, of: usize) -> usize {
        let author = stage.id(AUTHOR);
        let wants = |message: &PeerMessage| matches!(message, PeerMessage::Want(list) if list.iter().any(|(log, _)| *log == author));
        let said = stage.said(HERE, of);
        said.iter().filter(|message| wants(message)).count()
    }

    #[test]
    fn who_boasts_of_entries_that_it_does_not_have_is_asked_once_in_a_while() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);
        stage.sent.clear();

        // The liar's engine answers each request, with nothing.
        for _ in 0..100 {
            let boast = boast(&mut stage);
            stage.say(LIAR, HERE, &boast);
        }
        assert_eq!(wants(&mut stage, LIAR), 1);
        stage.run(FETCH_TIMEOUT);
        let boast = boast(&mut stage);
        stage.say(LIAR, HERE, &boast);

        assert_eq!(wants(&mut stage, LIAR), 2);
    }

    #[test]
    fn answers_that_take_no_log_further_are_followed_by_no_further_question() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);
        stage.run(Duration::from_secs(1));
        stage.gag(LIAR);
        // Another history of the author's log: signed well, and of no use beside the one that is here.
        let key = stage.member(AUTHOR).replica.key().clone();
        let session = stage.member(HERE).replica.session();
        let mut writer = LogWriter::new(key, session, Frontier::start(&session), 0);
        let parents = vec![Hash(session.0)];
        let leave = StatementBody::Leave;
        let other = writer.append_statement(leave, parents, None, crate::engine::time::Wall(1));
        let useless = [other.unwrap().encode(), b"no entry".to_vec()];
        let answer = PeerMessage::Entries {
            packed: pack(&useless),
            done: false,
        };
        stage.sent.clear();

        let boast = boast(&mut stage);
        stage.say(LIAR, HERE, &boast);
        for _ in 0..100 {
            stage.say(LIAR, HERE, &answer);
        }

        assert_eq!(wants(&mut stage, LIAR), 1);
    }

    #[test]
    fn a_log_is_asked_for_at_one_neighbour_at_a_time_and_at_another_if_that_one_is_silent() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);
        stage.gag(LIAR);
        stage.gag(AUTHOR);
        stage.sent.clear();

        for _ in 0..100 {
            let boast = boast(&mut stage);
            stage.say(LIAR, HERE, &boast);
            stage.say(AUTHOR, HERE, &boast);
        }
        assert_eq!((wants(&mut stage, LIAR), wants(&mut stage, AUTHOR)), (1, 0));
        stage.run(FETCH_TIMEOUT / 2);
        // Both are alive.
        for peer in [LIAR, AUTHOR] {
            stage.say(peer, HERE, &PeerMessage::Pong { nonce: 0 });
        }
        stage.run(FETCH_TIMEOUT / 2);

        assert_eq!((wants(&mut stage, LIAR), wants(&mut stage, AUTHOR)), (1, 1));
    }

    #[test]
    fn a_neighbour_that_has_not_answered_is_asked_nothing_more() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);
        stage.gag(LIAR);
        stage.sent.clear();

        for of in [AUTHOR, LIAR, HERE].repeat(30) {
            let boast = boast_of(&mut stage, of);
            stage.say(LIAR, HERE, &boast);
        }

        let asked = |message: &&PeerMessage| matches!(message, PeerMessage::Want(_));
        assert_eq!(stage.said(HERE, LIAR).iter().filter(asked).count(), 1);
    }

    #[test]
    fn a_liar_does_not_keep_others_from_giving_what_they_have() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);
        let boast = boast(&mut stage);
        stage.say(LIAR, HERE, &boast);
        let author = stage.id(AUTHOR);
        let before = stage.member(HERE).replica.logs().frontier(&author).seq;
        // Written without gossip: only the author's vector tells of it.
        stage.act(AUTHOR, |engine, context| {
            let replica = &mut engine.member_mut().unwrap().replica;
            let name = DocumentName::Member { owner: author };
            let batch = &mut context.out.persist;
            let now = context.now.wall;
            let taken = (&mut Taken::default(), batch);
            let written = replica.write(name, context.entropy, taken, |documents, writer| {
                let id = crate::engine::ids::TerminalId([1; 16]);
                let change = documents.announce_terminal(writer, now, id, "shell", (40, 6));
                change.map(|change| (change, ()))
            });
            written.unwrap();
        });

        let vector = PeerMessage::Vector(stage.member(AUTHOR).replica.vector());
        stage.say(AUTHOR, HERE, &vector);

        let after = stage.member(HERE).replica.logs().frontier(&author).seq;
        assert_eq!(after, before + 1);
    }

    #[test]
    fn logs_of_strangers_are_never_asked_for() {
        let mut stage = Stage::with(&[Role::Editor]);
        let strangers = (0..=255).map(|number| {
            let (seq, hash) = (9, Hash([number; 32]));
            (MemberId([number; 32]), Reached { seq, hash })
        });
        stage.sent.clear();

        stage.say(LIAR, HERE, &PeerMessage::Vector(strangers.collect()));

        let asked = |message: &PeerMessage| matches!(message, PeerMessage::Want(_));
        assert!(!stage.said(HERE, LIAR).iter().any(asked));
    }

    #[test]
    fn a_neighbour_that_beats_without_end_is_told_our_vector_at_its_pace() {
        let mut stage = Stage::with(&[Role::Editor]);
        stage.gag(LIAR);
        let vectors = |stage: &Stage| {
            let said = stage.said(HERE, LIAR);
            let vector = |message: &&PeerMessage| matches!(message, PeerMessage::Vector(_));
            said.iter().filter(vector).count()
        };
        let beat = |stage: &mut Stage| {
            let (nonce, vector) = (7, Hash([7; 32]));
            stage.say(LIAR, HERE, &PeerMessage::Ping { nonce, vector });
        };
        stage.run(Duration::from_secs(1));
        stage.sent.clear();

        (0..100).for_each(|_| beat(&mut stage));
        assert_eq!(vectors(&stage), 1);
        stage.run(VECTOR_AGAIN);
        beat(&mut stage);
        assert_eq!(vectors(&stage), 2, "an honest heartbeat is always answered");
        stage.open_terminal(HERE);
        beat(&mut stage);

        assert_eq!(vectors(&stage), 3, "what is new is told at once");
    }
}
