//! Who serves whom with a terminal's screen.
//!
//! A viewer opens a screen stream to the host or to another viewer and says which version it has; the server
//! sends differences whenever the stream takes one and there is something newer. Nothing is queued: what is
//! under way is bounded by acknowledgements, so a slow link gets larger and rarer differences. A node serves
//! [`SCREEN_CHILDREN_MAX`] children and refers further ones to them.
//!
//! This file knows versions and streams only; who calls it makes the frames.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::engine::bounded;
use crate::engine::event::StreamId;
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::limits::{
    ATTACH_RETRY, PICTURE_STALE, PRESENCE_ROUTE_MEMBERS_MAX, SCREEN_CHILDREN_MAX,
    SCREEN_UNACKED_BYTES_MAX, SCREEN_UNACKED_MAX,
};
use crate::engine::time::Mono;

/// A screen's version: its epoch and its number there. Ordered as they follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Grows with each resize or reset.
    pub epoch: u32,
    /// Grows with each change.
    pub number: u64,
}

/// Members between the host and a server, at most.
pub const PATH_MAX: usize = PRESENCE_ROUTE_MEMBERS_MAX;

/// From a viewer to the one that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToParent {
    /// The first message: what the viewer has and wants.
    Attach {
        /// The terminal.
        terminal: TerminalId,
        /// The version that the viewer has; without it, it gets the whole screen.
        have: Option<Version>,
        /// Whom it was referred to without getting anything newer.
        failed: Option<MemberId>,
    },
    /// A version was received and is right.
    Ack(Version),
}

/// From the server to a viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    /// The viewer is served, by way of these members, the host first.
    Serving {
        /// From the host to the server, both included; the host alone if it serves itself.
        #[serde(deserialize_with = "bounded::list::<_, _, { 2 * PATH_MAX }>")]
        path: Vec<MemberId>,
    },
    /// An encoded [`crate::engine::terminal::frame::ScreenUpdate`].
    Update(Vec<u8>),
    /// The server is full: one of these serves.
    Refer(#[serde(deserialize_with = "bounded::list::<_, _, SCREEN_CHILDREN_MAX>")] Vec<MemberId>),
    /// The server has no picture of that terminal.
    NotHere,
}

/// What a server should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Serve {
    /// Send the difference between `base` and the newest version.
    Difference {
        /// To which stream.
        stream: StreamId,
        /// What the child has; nothing: send the whole screen.
        base: Option<Version>,
    },
    /// Say that the child is served.
    Serving(StreamId),
    /// Send the child to others, then close its stream.
    Refer(StreamId, Vec<MemberId>),
}

/// The serving side for one terminal.
#[derive(Debug, Default)]
pub struct Server {
    children: BTreeMap<StreamId, Child>,
    complaints: BTreeMap<MemberId, BTreeSet<MemberId>>,
}

#[derive(Debug)]
struct Child {
    member: MemberId,
    has: Option<Version>,
    writable: bool,
    under_way: VecDeque<(Version, usize)>,
}

impl Server {
    /// A viewer asks to be served.
    pub fn attach(
        &mut self,
        stream: StreamId,
        member: MemberId,
        have: Option<Version>,
        failed: Option<MemberId>,
        out: &mut Vec<Serve>,
    ) {
        self.children.retain(|_, child| child.member != member);
        let is_child =
            |failed: &MemberId| self.children.values().any(|child| child.member == *failed);
        if let Some(failed) = failed.filter(is_child) {
            self.complaints.entry(failed).or_default().insert(member);
            self.make_room(out);
        }
        if self.children.len() >= SCREEN_CHILDREN_MAX {
            let others = self.children.values().map(|child| child.member).collect();
            out.push(Serve::Refer(stream, others));
            return;
        }
        let child = Child {
            member,
            has: have,
            writable: true,
            under_way: VecDeque::new(),
        };
        self.children.insert(stream, child);
        out.push(Serve::Serving(stream));
    }

    /// The child with most complaints from different members makes room for one who was served badly.
    fn make_room(&mut self, out: &mut Vec<Serve>) {
        if self.children.len() < SCREEN_CHILDREN_MAX {
            return;
        }
        let worst = self
            .children
            .iter()
            .filter(|(_, child)| self.complaints.contains_key(&child.member))
            .max_by_key(|(_, child)| self.complaints.get(&child.member).map_or(0, BTreeSet::len))
            .map(|(stream, _)| *stream);
        let Some(worst) = worst else { return };
        if let Some(child) = self.children.remove(&worst) {
            self.complaints.remove(&child.member);
        }
        let others = self.children.values().map(|child| child.member).collect();
        out.push(Serve::Refer(worst, others));
    }

    /// The stream takes more.
    pub fn ready(&mut self, stream: StreamId) {
        if let Some(child) = self.children.get_mut(&stream) {
            child.writable = true;
        }
    }

    /// The child has received a version.
    pub fn acknowledged(&mut self, stream: StreamId, version: Version) {
        if let Some(child) = self.children.get_mut(&stream) {
            while child
                .under_way
                .front()
                .is_some_and(|(sent, _)| *sent <= version)
            {
                child.under_way.pop_front();
            }
        }
    }

    /// The stream is gone.
    pub fn closed(&mut self, stream: StreamId) {
        if let Some(child) = self.children.remove(&stream) {
            self.complaints.remove(&child.member);
        }
    }

    /// Who can take something newer than it has, now that the newest version is `newest`.
    pub fn due(&self, newest: Version) -> Vec<Serve> {
        self.children
            .iter()
            .filter(|(_, child)| child.takes_more() && child.has != Some(newest))
            .map(|(stream, child)| Serve::Difference {
                stream: *stream,
                base: child.has,
            })
            .collect()
    }

    /// An update was given to the stream.
    pub fn sent(&mut self, stream: StreamId, version: Version, bytes: usize) {
        if let Some(child) = self.children.get_mut(&stream) {
            child.has = Some(version);
            child.writable = false;
            child.under_way.push_back((version, bytes));
        }
    }

    /// Whether some child is behind and cannot take more at the moment.
    pub fn is_behind(&self) -> bool {
        self.children.values().any(|child| !child.takes_more())
    }

    /// The members served.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        self.children.values().map(|child| child.member)
    }

    /// The streams served, to be closed when the terminal is gone.
    pub fn streams(&self) -> Vec<StreamId> {
        self.children.keys().copied().collect()
    }

    /// Updates under way to the child that has most of them.
    pub fn most_under_way(&self) -> usize {
        let under_way = self.children.values().map(|child| child.under_way.len());
        under_way.max().unwrap_or(0)
    }

    /// Whether this stream is a child's.
    pub fn serves(&self, stream: StreamId) -> bool {
        self.children.contains_key(&stream)
    }
}

impl Child {
    fn takes_more(&self) -> bool {
        let bytes: usize = self.under_way.iter().map(|(_, bytes)| bytes).sum();
        let room = self.under_way.len() < SCREEN_UNACKED_MAX
            && (self.under_way.is_empty() || bytes < SCREEN_UNACKED_BYTES_MAX);
        self.writable && room
    }
}

/// What a viewer should do.
#[derive(Debug, PartialEq, Eq)]
pub enum Attach {
    /// Open a screen stream to this member and ask.
    Ask {
        /// The one to serve.
        parent: MemberId,
        /// Whom it was referred to in vain.
        failed: Option<MemberId>,
        /// Whether to ask for the whole screen, whatever is here.
        whole: bool,
    },
    /// Leave the present parent's stream.
    Leave(StreamId),
}

/// The viewing side for one terminal.
#[derive(Debug)]
pub struct Viewer {
    me: MemberId,
    host: MemberId,
    parent: Option<Parent>,
    failed: Option<MemberId>,
    whole: bool,
    retry: Mono,
    /// Since when the host has something newer, as far as is known.
    behind: Option<Mono>,
    checked: Mono,
}

#[derive(Debug)]
struct Parent {
    member: MemberId,
    stream: Option<StreamId>,
    since: Mono,
    served: bool,
}

impl Viewer {
    /// Nobody serves yet.
    pub fn new(me: MemberId, host: MemberId) -> Self {
        Self {
            me,
            host,
            parent: None,
            failed: None,
            whole: false,
            retry: Mono(0),
            behind: None,
            checked: Mono(0),
        }
    }

    /// Looks whether to attach, or to attach elsewhere. `newest` is what the host says it has, `have` what is
    /// here, `reachable` whether a member is connected.
    pub fn check(
        &mut self,
        now: Mono,
        have: Option<Version>,
        newest: Option<Version>,
        reachable: &dyn Fn(&MemberId) -> bool,
        out: &mut Vec<Attach>,
    ) {
        self.checked = now;
        let behind = have.is_none() || newest > have;
        self.behind = behind.then(|| self.behind.unwrap_or(now));
        if self.parent.is_some() {
            if self.patience().is_none_or(|until| until > now) {
                return;
            }
            self.fail(now, out);
        }
        if self.retry <= now && reachable(&self.host) {
            self.ask(self.host, now, out);
        }
    }

    /// The present parent does not serve: leave it, and say so to the host.
    fn fail(&mut self, now: Mono, out: &mut Vec<Attach>) {
        let Some(parent) = self.parent.take() else {
            return;
        };
        if parent.member != self.host {
            self.failed = Some(parent.member);
        }
        self.retry = now + ATTACH_RETRY;
        if let Some(stream) = parent.stream {
            out.push(Attach::Leave(stream));
        }
    }

    fn ask(&mut self, member: MemberId, now: Mono, out: &mut Vec<Attach>) {
        let failed = if member == self.host {
            self.failed.take()
        } else {
            None
        };
        let whole = std::mem::take(&mut self.whole);
        self.parent = Some(Parent {
            member,
            stream: None,
            since: now,
            served: false,
        });
        out.push(Attach::Ask {
            parent: member,
            failed,
            whole,
        });
    }

    /// The stream that was asked for has this number.
    pub fn asked(&mut self, stream: StreamId) {
        if let Some(parent) = &mut self.parent {
            parent.stream = Some(stream);
        }
    }

    /// The parent says how it gets the screen itself.
    pub fn serving(
        &mut self,
        stream: StreamId,
        path: &[MemberId],
        now: Mono,
        out: &mut Vec<Attach>,
    ) {
        if !self.is_parent(stream) {
            return;
        }
        let circle = path.contains(&self.me) || path.len() > PATH_MAX;
        if circle || path.first() != Some(&self.host) {
            self.fail(now, out);
        }
    }

    /// The parent is full and names others.
    pub fn referred(
        &mut self,
        stream: StreamId,
        others: &[MemberId],
        now: Mono,
        reachable: &dyn Fn(&MemberId) -> bool,
        out: &mut Vec<Attach>,
    ) {
        if !self.is_parent(stream) {
            return;
        }
        self.parent = None;
        out.push(Attach::Leave(stream));
        let others = others.iter().take(SCREEN_CHILDREN_MAX);
        let mut candidates: Vec<MemberId> = others
            .filter(|other| **other != self.me && **other != self.host && reachable(other))
            .filter(|other| self.failed.as_ref() != Some(other))
            .copied()
            .collect();
        // Different viewers begin at different candidates, so that one child does not get them all.
        candidates.sort_by_key(|other| distance(&self.me, other));
        match candidates.first() {
            Some(candidate) => self.ask(*candidate, now, out),
            None => self.retry = now + ATTACH_RETRY,
        }
    }

    /// An update was checked and taken.
    pub fn updated(&mut self, stream: StreamId, now: Mono) {
        if let Some(parent) = self
            .parent
            .as_mut()
            .filter(|parent| parent.stream == Some(stream))
        {
            parent.since = now;
            parent.served = true;
        }
    }

    /// An update was wrong: ask once for the whole screen, then another parent.
    pub fn mismatch(&mut self, stream: StreamId, now: Mono, out: &mut Vec<Attach>) {
        if self.is_parent(stream) {
            self.whole = true;
            self.fail(now, out);
        }
    }

    /// The stream is gone, or the parent has no picture.
    pub fn closed(&mut self, stream: StreamId, now: Mono, out: &mut Vec<Attach>) {
        if self.is_parent(stream) {
            self.fail(now, out);
        }
    }

    /// Whether this stream leads to the present parent.
    pub fn is_parent(&self, stream: StreamId) -> bool {
        self.parent
            .as_ref()
            .is_some_and(|parent| parent.stream == Some(stream))
    }

    /// Who serves at present.
    pub fn parent(&self) -> Option<MemberId> {
        self.parent.as_ref().map(|parent| parent.member)
    }

    /// When to check again, if nothing else happens. While the parent serves all there is, and while the host is
    /// out of reach, there is nothing to wait for.
    pub fn deadline(&self) -> Option<Mono> {
        let due = match self.parent {
            Some(_) => self.patience(),
            None => Some(self.retry),
        };
        due.filter(|due| *due > self.checked)
    }

    /// Until when the parent may be silent.
    fn patience(&self) -> Option<Mono> {
        let parent = self.parent.as_ref()?;
        let since = match self.behind {
            _ if !parent.served => Some(parent.since),
            behind => behind.map(|behind| behind.max(parent.since)),
        };
        since.map(|since| since + PICTURE_STALE)
    }
}

fn distance(a: &MemberId, b: &MemberId) -> [u8; 32] {
    let mut distance = [0; 32];
    for ((slot, a), b) in distance.iter_mut().zip(a.0).zip(b.0) {
        *slot = a ^ b;
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: MemberId = MemberId([1; 32]);
    const ME: MemberId = MemberId([2; 32]);

    #[test]
    fn the_ninth_viewer_is_referred_to_the_eight() {
        let mut server = Server::default();
        let mut out = Vec::new();
        for number in 0..8 {
            server.attach(StreamId(number), member(number), None, None, &mut out);
        }
        out.clear();

        server.attach(StreamId(9), member(9), None, None, &mut out);

        let children = (0..8).map(member).collect();
        assert_eq!(out, [Serve::Refer(StreamId(9), children)]);
    }

    #[test]
    fn a_viewer_whom_a_referral_failed_is_served_instead_of_the_child_that_failed() {
        let mut server = Server::default();
        let mut out = Vec::new();
        for number in 0..8 {
            server.attach(StreamId(number), member(number), None, None, &mut out);
        }
        out.clear();

        server.attach(StreamId(9), member(9), None, Some(member(3)), &mut out);

        assert!(matches!(&out[0], Serve::Refer(StreamId(3), others) if others.len() == 7));
        assert_eq!(out[1], Serve::Serving(StreamId(9)));
    }

    #[test]
    fn a_complaint_about_who_is_no_child_moves_nobody_and_is_not_kept() {
        let mut server = Server::default();
        let mut out = Vec::new();
        for number in 0..8 {
            server.attach(StreamId(number), member(number), None, None, &mut out);
        }
        out.clear();

        for stranger in 20..120 {
            let failed = Some(member(stranger));
            server.attach(StreamId(9), member(9), None, failed, &mut out);
        }

        let children: Vec<MemberId> = (0..8).map(member).collect();
        let referred = |serve: &Serve| *serve == Serve::Refer(StreamId(9), children.clone());
        assert!(out.len() == 100 && out.iter().all(referred), "{out:?}");
        assert!(server.complaints.is_empty());
    }

    #[test]
    fn of_all_children_only_the_one_complained_about_is_moved() {
        for bad in 0..8 {
            let mut server = Server::default();
            let mut out = Vec::new();
            for number in 0..8 {
                server.attach(StreamId(number), member(number), None, None, &mut out);
            }

            server.attach(StreamId(9), member(9), None, Some(member(bad)), &mut out);

            let stay: Vec<u64> = (0..8).filter(|number| *number != bad).chain([9]).collect();
            let stay: Vec<StreamId> = stay.into_iter().map(StreamId).collect();
            assert_eq!(server.streams(), stay);
        }
    }

    #[test]
    fn a_complaint_is_over_when_its_child_is_gone() {
        for moved in [true, false] {
            let mut server = Server::default();
            let mut out = Vec::new();
            for number in 0..8 {
                server.attach(StreamId(number), member(number), None, None, &mut out);
            }
            if moved {
                // Child 3 is moved at the word of 9; a place becomes free, and it comes back.
                server.attach(StreamId(9), member(9), None, Some(member(3)), &mut out);
                server.closed(StreamId(0));
            } else {
                // There is room, so the complaint moves nobody; child 3 goes by itself, and comes back.
                server.closed(StreamId(0));
                server.attach(StreamId(9), member(9), None, Some(member(3)), &mut out);
                server.closed(StreamId(3));
            }
            server.attach(StreamId(30), member(3), None, None, &mut out);
            assert_eq!(server.streams().len(), 8);

            server.attach(StreamId(40), member(40), None, Some(member(5)), &mut out);

            assert!(
                server.serves(StreamId(30)),
                "what was said of it before is over"
            );
            assert!(!server.serves(StreamId(5)));
        }
    }

    #[test]
    fn nothing_is_sent_to_a_child_whose_link_is_full() {
        let mut server = Server::default();
        let mut out = Vec::new();
        server.attach(StreamId(0), ME, None, None, &mut out);
        let newest = |number| Version { epoch: 0, number };

        for number in 1..=20 {
            for serve in server.due(newest(number)) {
                let Serve::Difference { stream, .. } = serve else {
                    panic!("{serve:?}")
                };
                server.sent(stream, newest(number), 10);
                server.ready(stream);
            }
        }

        assert!(server.is_behind());
        server.acknowledged(StreamId(0), newest(1));
        let base = Some(newest(SCREEN_UNACKED_MAX as u64));
        assert_eq!(
            server.due(newest(21)),
            [Serve::Difference {
                stream: StreamId(0),
                base
            }]
        );
    }

    #[test]
    fn a_silent_parent_is_left_only_when_the_host_has_something_newer() {
        let mut viewer = Viewer::new(ME, HOST);
        let mut out = Vec::new();
        let have = Some(Version {
            epoch: 0,
            number: 5,
        });
        viewer.check(Mono(0), None, None, &|_| true, &mut out);
        viewer.asked(StreamId(2));
        viewer.updated(StreamId(2), Mono(10));
        out.clear();

        viewer.check(Mono(5_000_000), have, have, &|_| true, &mut out);
        assert_eq!(viewer.deadline(), None, "an idle terminal wakes nobody");
        let newer = Some(Version {
            epoch: 1,
            number: 0,
        });
        viewer.check(Mono(6_000_000), have, newer, &|_| true, &mut out);
        assert_eq!(out, [], "what is newer may be on its way");
        let due = Mono(6_000_000) + PICTURE_STALE;
        assert_eq!(viewer.deadline(), Some(due));
        viewer.check(due, have, newer, &|_| true, &mut out);

        assert_eq!(out, [Attach::Leave(StreamId(2))]);
        out.clear();
        viewer.check(due + ATTACH_RETRY, have, newer, &|_| true, &mut out);
        assert_eq!(
            out,
            [Attach::Ask {
                parent: HOST,
                failed: None,
                whole: false
            }]
        );
    }

    #[test]
    fn while_the_host_is_out_of_reach_there_is_nothing_to_wait_for() {
        let mut viewer = Viewer::new(ME, HOST);
        let mut out = Vec::new();

        viewer.check(Mono(5), None, None, &|_| false, &mut out);

        assert_eq!((viewer.deadline(), out), (None, vec![]));
    }

    #[test]
    fn a_failed_referral_is_told_to_the_host() {
        let mut viewer = Viewer::new(ME, HOST);
        let mut out = Vec::new();
        viewer.check(Mono(0), None, None, &|_| true, &mut out);
        viewer.asked(StreamId(2));
        viewer.referred(StreamId(2), &[member(7)], Mono(0), &|_| true, &mut out);
        viewer.asked(StreamId(4));
        out.clear();

        viewer.closed(StreamId(4), Mono(1), &mut out);
        viewer.check(Mono(1) + ATTACH_RETRY, None, None, &|_| true, &mut out);

        let ask = Attach::Ask {
            parent: HOST,
            failed: Some(member(7)),
            whole: false,
        };
        assert_eq!(out, [Attach::Leave(StreamId(4)), ask]);
    }

    #[test]
    fn nobody_attaches_below_itself() {
        let mut viewer = Viewer::new(ME, HOST);
        let mut out = Vec::new();
        viewer.check(Mono(0), None, None, &|_| true, &mut out);
        viewer.asked(StreamId(2));
        viewer.referred(StreamId(2), &[member(7)], Mono(0), &|_| true, &mut out);
        viewer.asked(StreamId(4));
        out.clear();

        viewer.serving(StreamId(4), &[HOST, ME, member(7)], Mono(0), &mut out);

        assert_eq!(out, [Attach::Leave(StreamId(4))]);
    }

    fn member(number: u64) -> MemberId {
        let mut id = [0; 32];
        id[0] = 100 + number as u8;
        MemberId(id)
    }
}
