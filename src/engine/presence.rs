//! Who is there and what they do: own heartbeats, and when others' words run out.
//!
//! Every message begins a new generation whose one change holds the whole state, so a lost message costs at
//! most the time to the next one. The content is an Automerge document that passes the gate; this file knows
//! when to speak, whom to believe for how long, and what to pass on to neighbours who missed it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::command::PresenceUpdate;
use crate::engine::documents::{
    ActorNonce, DocumentName, Incoming, PresenceState, ScreenMark, Verdict,
};
use crate::engine::entropy::Entropy;
use crate::engine::envelope::{PresenceMessage, PresencePlace};
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::limits::{
    AWAY_AFTER, IDLE_AFTER, PRESENCE_HEARTBEAT, PRESENCE_HEARTBEATS_TO_LIVE, PRESENCE_INTERVAL,
    PRESENCE_LATE, PRESENCE_MEMBERS_FULL_PACE,
};
use crate::engine::message::PassedPresence;
use crate::engine::replica::Replica;
use crate::engine::time::{Mono, Now, Wall};
use crate::engine::view::Status;

/// The presences of a session as this node knows them.
#[derive(Debug)]
pub struct Board {
    mine: PresenceState,
    attached: bool,
    acted: Mono,
    instance: u64,
    generation: u64,
    spoken: Option<Mono>,
    changed: bool,
    heard: BTreeMap<MemberId, Heard>,
}

/// The newest message of a member.
#[derive(Debug)]
struct Heard {
    order: (u64, u64),
    at: Mono,
    ttl: Duration,
    message: Vec<u8>,
}

impl Board {
    /// Nobody heard of yet; this node's own state says that somebody is there.
    pub fn new(instance: u64, now: Now) -> Self {
        Self {
            mine: PresenceState::online(now.wall),
            attached: true,
            acted: now.mono,
            instance,
            generation: 0,
            spoken: None,
            changed: true,
            heard: BTreeMap::new(),
        }
    }

    /// This node's start has a higher number from now on.
    pub fn begin_again(&mut self, instance: u64) {
        self.instance = instance;
        self.changed = true;
    }

    /// This node's own state.
    pub fn mine(&self) -> &PresenceState {
        &self.mine
    }

    /// The state to be changed; it is spoken of at the next opportunity.
    pub fn change(&mut self, change: impl FnOnce(&mut PresenceState)) {
        let before = self.mine.clone();
        change(&mut self.mine);
        self.changed |= before != self.mine;
    }

    /// The next opportunity to speak is taken even if nothing changed: somebody new listens.
    pub fn say_again(&mut self) {
        self.changed = true;
    }

    /// The newest versions of the screens that run here; they travel with the next message, and are no reason
    /// for one.
    pub fn note_screens(&mut self, screens: BTreeMap<TerminalId, ScreenMark>) {
        self.mine.screens = screens;
    }

    /// The person did something.
    pub fn acted(&mut self, now: Now) {
        self.acted = now.mono;
        let last = self.mine.last_active;
        // The stamp alone is not worth a message more often than every few seconds.
        // A stamp of the future is one of a clock that was set back since.
        if now.wall.since(last) >= PRESENCE_HEARTBEAT || now.wall < last {
            self.mine.last_active = now.wall;
        }
        self.refresh(now);
    }

    /// A face says what its person does.
    pub fn update(&mut self, update: PresenceUpdate, now: Now) {
        if let Some(attached) = update.attached {
            self.attached = attached;
        } else {
            self.acted(now);
        }
        self.change(|mine| {
            if let Some(pointer) = update.pointer {
                mine.pointer = pointer;
            }
            if let Some(selection) = update.selection {
                mine.selection = selection;
            }
            if let Some(active) = update.active {
                mine.active = active;
            }
            if let Some(typing) = update.typing {
                mine.typing = typing;
            }
        });
        self.refresh(now);
    }

    /// Works out the status from what the person did last.
    fn refresh(&mut self, now: Now) {
        let idle = now.mono.since(self.acted);
        let status = if !self.attached || idle >= AWAY_AFTER {
            Status::Away
        } else if idle >= IDLE_AFTER {
            Status::Idle
        } else {
            Status::Online
        };
        self.change(|mine| mine.status = status);
    }

    /// When to speak next.
    pub fn deadline(&self, members: usize) -> Mono {
        let Some(spoken) = self.spoken else {
            return Mono(0);
        };
        let heartbeat = spoken + heartbeat(members);
        if self.changed {
            (spoken + PRESENCE_INTERVAL).min(heartbeat)
        } else {
            heartbeat
        }
    }

    /// When the status changes by itself, or somebody's words run out.
    pub fn next_end(&self, now: Mono) -> Option<Mono> {
        let own = [self.acted + IDLE_AFTER, self.acted + AWAY_AFTER];
        let others = self.heard.values().map(|heard| heard.at + heard.ttl);
        own.into_iter().chain(others).filter(|at| *at > now).min()
    }

    /// The next message, if it is time and the session's secret is known. With `goodbye` it says that this
    /// member goes, whatever the time.
    pub fn speak(
        &mut self,
        replica: &mut Replica,
        now: Now,
        goodbye: bool,
        entropy: &mut Entropy,
    ) -> Option<Vec<u8>> {
        self.refresh(now);
        let members = replica.membership().readers().len();
        if !goodbye && self.deadline(members) > now.mono {
            return None;
        }
        if goodbye {
            self.mine.status = Status::Gone;
        }
        let epoch = replica.epoch_to_write()?;
        let key = replica.keyring().presence_key(&epoch).ok()?;
        self.generation += 1;
        let order = (self.instance, self.generation);
        let (documents, writer) = replica.presence_writer();
        let change = documents
            .begin_presence(&writer, now.wall, order, &self.mine)
            .ok()?;
        let mut plain = change.nonce.0.to_vec();
        plain.extend_from_slice(&change.change);
        let place = PresencePlace {
            session: replica.session(),
            epoch,
            instance: self.instance,
            generation: self.generation,
            counter: 0,
            ttl_ms: if goodbye { 0 } else { time_to_live_ms(members) },
        };
        let message = PresenceMessage::seal(replica.key(), place, &key, &plain, entropy).ok()?;
        self.spoken = Some(now.mono);
        self.changed = false;
        Some(message.encode())
    }

    /// A message of somebody else, heard `age` ago by whoever passed it on. Tells whose it is if it is news.
    ///
    /// # Errors
    /// It is not signed by a member, or not a presence that the gate takes.
    pub fn hear(
        &mut self,
        bytes: &[u8],
        age: Duration,
        replica: &mut Replica,
        now: Mono,
    ) -> Result<Option<MemberId>, String> {
        let message = PresenceMessage::decode(bytes).map_err(|error| error.to_string())?;
        let header = message.header();
        let (member, order) = (header.member, (header.instance, header.generation));
        if header.session != replica.session() || member == replica.me() {
            return Ok(None);
        }
        if self
            .heard
            .get(&member)
            .is_some_and(|heard| heard.order >= order)
        {
            return Ok(None);
        }
        if replica.standing(&member).is_none() {
            return Err(format!("{} is no member", member.short()));
        }
        let Ok(key) = replica.keyring().presence_key(&header.epoch) else {
            return Ok(None);
        };
        let plain = message.open(&key).map_err(|error| error.to_string())?;
        let (nonce, change) = plain
            .split_first_chunk::<16>()
            .ok_or("the content is too short")?;
        let name = DocumentName::Presence {
            owner: member,
            instance: order.0,
            generation: order.1,
        };
        let incoming = Incoming {
            author: member,
            position: header.counter,
            nonce: ActorNonce(*nonce),
            change: change.to_vec(),
        };
        let (documents, _) = replica.presence_writer();
        let settled = documents
            .receive(&name, vec![incoming])
            .map_err(|fault| fault.to_string())?;
        if !settled
            .iter()
            .any(|settled| settled.verdict == Verdict::Accepted)
        {
            return Err("the gate refuses the presence".to_owned());
        }
        let ttl = Duration::from_millis(u64::from(header.ttl_ms));
        let heard = Heard {
            order,
            at: now - age,
            ttl,
            message: bytes.to_vec(),
        };
        self.heard.insert(member, heard);
        Ok(Some(member))
    }

    /// Somebody is no member any more: what was heard of it is over.
    pub fn forget(&mut self, member: &MemberId) {
        self.heard.remove(member);
    }

    /// The connection to a member is gone: its next heartbeat, which comes by way of others, is not waited for
    /// longer than it takes.
    pub fn doubt(&mut self, member: &MemberId, members: usize) {
        if let Some(heard) = self.heard.get_mut(member) {
            heard.ttl = heard.ttl.min(heartbeat(members) + PRESENCE_LATE);
        }
    }

    /// Whether a member is there, and what it does.
    pub fn of<'a>(
        &self,
        member: &MemberId,
        replica: &'a Replica,
        now: Mono,
    ) -> (Status, Option<&'a PresenceState>) {
        let Some(heard) = self.heard.get(member) else {
            return (Status::Gone, None);
        };
        let state = replica.documents().presence(member);
        if heard.at + heard.ttl <= now {
            return (Status::Gone, state);
        }
        (state.map_or(Status::Online, |state| state.status), state)
    }

    /// What is known here, for neighbours to compare: member, instance, generation.
    pub fn known(&self, me: MemberId) -> Vec<(MemberId, u64, u64)> {
        let own = (self.generation > 0).then_some((me, self.instance, self.generation));
        let others = self
            .heard
            .iter()
            .map(|(member, heard)| (*member, heard.order.0, heard.order.1));
        own.into_iter().chain(others).collect()
    }

    /// What a neighbour that knows only `theirs` lacks, with its age; what has run out is not passed on.
    pub fn lacking(&self, theirs: &[(MemberId, u64, u64)], now: Mono) -> Vec<PassedPresence> {
        let theirs: BTreeMap<MemberId, (u64, u64)> = theirs
            .iter()
            .map(|(member, instance, generation)| (*member, (*instance, *generation)))
            .collect();
        self.heard
            .iter()
            .filter(|(member, heard)| {
                heard.at + heard.ttl > now
                    && theirs.get(member).is_none_or(|known| *known < heard.order)
            })
            .map(|(_, heard)| PassedPresence {
                age_ms: u32::try_from(now.since(heard.at).as_millis()).unwrap_or(u32::MAX),
                message: heard.message.clone(),
            })
            .collect()
    }

    /// Takes a message as heard, whatever it is; for tests of what is passed on.
    #[cfg(test)]
    pub(in crate::engine) fn remember(&mut self, member: MemberId, message: Vec<u8>, now: Mono) {
        let heard = Heard {
            order: (1, 1),
            at: now,
            ttl: PRESENCE_HEARTBEAT,
            message,
        };
        self.heard.insert(member, heard);
    }

    /// When a member last did something, as it says.
    pub fn last_active(state: Option<&PresenceState>) -> Option<Wall> {
        state.map(|state| state.last_active)
    }
}

/// The pause between heartbeats: longer in proportion above 64 members.
fn heartbeat(members: usize) -> Duration {
    let factor = members.div_ceil(PRESENCE_MEMBERS_FULL_PACE).max(1);
    PRESENCE_HEARTBEAT.saturating_mul(u32::try_from(factor).unwrap_or(u32::MAX))
}

fn time_to_live_ms(members: usize) -> u32 {
    let ttl = heartbeat(members).saturating_mul(PRESENCE_HEARTBEATS_TO_LIVE);
    u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::command::Command;
    use crate::engine::limits::{HEARTBEAT, PEER_DEAD};
    use crate::engine::message::PeerMessage;
    use crate::engine::stage::Stage;

    const HERE: usize = 0;
    const STAYS: usize = 1;
    const LEAVES: usize = 2;

    fn known(stage: &mut Stage) -> BTreeSet<MemberId> {
        let me = stage.id(HERE);
        let known = stage.member(HERE).board.known(me).into_iter();
        known.map(|(member, ..)| member).collect()
    }

    #[test]
    fn a_member_whose_connection_went_dead_is_shown_gone_with_its_next_heartbeat() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let other = stage.id(STAYS);
        let shown = |stage: &mut Stage| {
            let now = stage.now().mono;
            let member = stage.member(HERE);
            member.board.of(&other, &member.replica, now).0
        };

        stage.gag(STAYS);
        stage.run(PEER_DEAD - HEARTBEAT);
        assert_eq!(shown(&mut stage), Status::Online);
        stage.run(HEARTBEAT + PRESENCE_HEARTBEAT + PRESENCE_LATE - PEER_DEAD);

        assert_eq!(shown(&mut stage), Status::Gone);
    }

    #[test]
    fn what_was_heard_of_a_former_member_is_forgotten_and_never_heard_again() {
        let mut stage = Stage::with(&[Role::Viewer, Role::Viewer]);
        let all = (0..3).map(|node| stage.id(node)).collect();
        assert_eq!(known(&mut stage), all);
        let now = stage.now().mono;
        let heard = stage.member(HERE).board.lacking(&[], now);
        let gone = stage.id(LEAVES);

        stage.command(LEAVES, Command::Leave).unwrap();
        stage.run(Duration::from_secs(2));
        let rest = [HERE, STAYS].map(|node| stage.id(node)).into();
        assert_eq!(known(&mut stage), rest);
        assert!(!stage.member(HERE).shown.contains_key(&gone));
        stage.say(STAYS, HERE, &PeerMessage::Presences(heard));

        assert_eq!(known(&mut stage), rest);
        assert!(!stage.member(HERE).shown.contains_key(&gone));
    }
}
