//! The host's side of a terminal's lease: one at a time, numbered, timed by the host's monotonic clock.
//!
//! Everybody's keys go through here, the host's own too, because who types decides who has control: a key of
//! the person at the host ends another's lease and is written after what that lease got in. A holder whose
//! connection is gone keeps the lease for [`LEASE_ORPHAN_S`] seconds, enough for a change of address and too
//! short to be in anybody's way; the host's person never has to wait for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::input::{Authorized, InputReceiver, Origin, PtyQueue, Taken, Withdrawal};
use super::order::{Action, SignedOrder};
use super::{
    At, Denial, EndReason, FromHost, Lease, LeaseStatus, OrderOutcome, Place, Refusal, SignedLease,
    ToHost,
};
use crate::engine::ids::MemberId;
use crate::engine::limits::{
    CONTROL_PROMPT_S, CONTROL_PROMPTS_MAX, CONTROL_QUESTIONS_PER_MINUTE_MAX, LEASE_AUTO_PAUSE_MS,
    LEASE_AUTO_S, LEASE_DEFAULT_S, LEASE_ENDINGS_MAX, LEASE_ORPHAN_S, LEASE_S_MAX, LEASE_S_MIN,
    PERSON_INPUT_BYTES_MAX, PTY_ANSWER_BYTES_MAX,
};
use crate::engine::time::Mono;

/// How control of one terminal is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostSettings {
    /// Give a free lease to an editor on the first key (`--control auto`).
    pub auto: bool,
    /// The shell runs on a device of the session's owner, so holders of `control` are obeyed without asking.
    pub own: bool,
    /// Bugs planted to see the checkers find them.
    #[cfg(feature = "sim")]
    pub planted: PlantedBugs,
}

/// Rules that a simulated host breaks on purpose.
#[cfg(feature = "sim")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlantedBugs {
    /// Whoever sends keys is obeyed, whatever lease they name.
    pub ignore_lease_number: bool,
    /// Bytes that come twice are written twice.
    pub drop_dedup: bool,
    /// A new lease does not end the one before.
    pub two_controllers: bool,
}

/// A fact for the host of a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostInput {
    /// A member said something on a stream of its own.
    Message {
        /// Whose stream.
        from: MemberId,
        /// What.
        body: ToHost,
    },
    /// The last connection to a member is gone.
    Disconnected(MemberId),
    /// Somebody's rights may have changed.
    MembersChanged,
    /// From now on an editor's first key gets a free lease, or no longer does.
    Auto(bool),
    /// The emulator answers a query of the program.
    Answer(Vec<u8>),
    /// The PTY has taken this many bytes since it was opened.
    PtyWritten(u64),
    /// The adapter has thrown away what the PTY had not taken; it had taken this many bytes since it was opened.
    PtyWithdrawn(u64),
    /// The shell is gone.
    Closed,
    /// A deadline may be due.
    Tick,
}

/// What the person at the terminal's host does, with keys or verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    /// Types.
    Key {
        /// The number of a verb that waits until the bytes are taken.
        verb: Option<u64>,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Gives the lease, asked for or not.
    Grant {
        /// To whom.
        to: MemberId,
        /// For how long, in seconds; if not said, what was asked for or the default.
        duration_s: Option<u32>,
    },
    /// Says no to what somebody asked or ordered.
    Deny {
        /// Whom.
        who: MemberId,
    },
    /// Says yes to an order.
    Agree {
        /// Whose.
        who: MemberId,
        /// And to all later ones of that member for this terminal.
        always: bool,
    },
    /// Ends the living lease.
    Revoke,
    /// Takes control from everybody, whether somebody has it or not.
    Take,
    /// Ends the living lease and forbids others.
    Lock,
    /// Allows leases again.
    Unlock,
}

/// A consequence at the host.
#[derive(Debug, PartialEq, Eq)]
pub enum HostOutput {
    /// Tell a member: on its newest input stream, or on its control stream if it has none.
    Send {
        /// Whom.
        to: MemberId,
        /// What.
        body: FromHost,
    },
    /// Tell every connected member that control has changed.
    Announce(LeaseStatus),
    /// Give bytes to the PTY, in this order.
    WritePty(Authorized<Vec<u8>>),
    /// Throw away what the adapter has and the PTY has not taken, then report [`HostInput::PtyWithdrawn`].
    DropPtyQueue,
    /// Ask the host's person.
    Prompt(Prompt),
    /// A question needs no answer any more.
    PromptGone(Prompt),
    /// Something happened.
    Event(HostEvent),
}

/// A question for the host's person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Who asks.
    pub who: MemberId,
    /// What.
    pub asked: Asked,
}

impl Prompt {
    /// Whether a yes gives the lease to who asks, and not to somebody else.
    pub fn is_for_asker(&self) -> bool {
        match self.asked {
            Asked::Lease { .. } | Asked::Order(Action::Take { .. }) => true,
            Asked::Order(Action::Grant { to, .. }) => to == self.who,
            Asked::Order(Action::Revoke | Action::Lock | Action::Unlock) => false,
        }
    }
}

/// What somebody wants of the host's person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// The lease; [`Person::Grant`] or [`Person::Deny`] answers.
    Lease {
        /// For how long, in seconds, if said.
        duration_s: Option<u32>,
    },
    /// That an order be carried out; [`Person::Agree`] or [`Person::Deny`] answers.
    Order(Action),
}

/// Something that people may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// Somebody asks for the lease (`control.requested`).
    Requested {
        /// Who.
        who: MemberId,
    },
    /// Somebody got the lease (`control.granted`).
    Granted {
        /// Who.
        to: MemberId,
        /// Who decided.
        by: MemberId,
        /// The lease's number.
        number: u64,
        /// For how long, in seconds.
        duration_s: u32,
    },
    /// A lease is over (`control.released`, `.expired`, `.revoked`, `.taken`, by its reason).
    Ended {
        /// Whose.
        holder: MemberId,
        /// The lease's number.
        number: u64,
        /// Why.
        reason: EndReason,
    },
    /// The account of an ended lease is closed.
    Settled {
        /// The lease's number.
        number: u64,
        /// Bytes that the PTY has taken.
        written: u64,
        /// Bytes that came in and were dropped.
        dropped: u64,
    },
    /// Leases are forbidden from now on.
    Locked {
        /// By whom.
        by: MemberId,
    },
    /// Leases are allowed again.
    Unlocked {
        /// By whom.
        by: MemberId,
    },
    /// The bytes of a verb of the host's person are taken, or never will be.
    Typed {
        /// The verb's number.
        verb: u64,
        /// Whether they are taken.
        taken: bool,
    },
}

/// Why a host wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The lease's time is over.
    LeaseEnds,
    /// The holder's connection has been gone for too long.
    HolderGone,
    /// A question has waited long enough.
    PromptEnds,
    /// The rate lets more keys go.
    InputDue,
    /// A sender repeats what is not confirmed.
    Retry,
}

/// Control of one terminal as its host sees it: plain data for faces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Who has the lease.
    pub holder: Option<MemberId>,
    /// The newest lease number.
    pub number: u64,
    /// What is left of the lease.
    pub remaining: Duration,
    /// Open questions, the oldest first.
    pub prompts: Vec<Prompt>,
    /// Who has forbidden leases.
    pub locked: Option<MemberId>,
    /// Whether an editor's first key gets a free lease.
    pub auto: bool,
}

/// The host's side of one terminal's lease. See the module's text.
#[derive(Debug)]
pub struct LeaseHost {
    place: Place,
    settings: HostSettings,
    number: u64,
    live: Option<Live>,
    endings: BTreeMap<u64, Ending>,
    lock: Option<Lock>,
    attachments: u64,
    attached: BTreeMap<MemberId, Attachment>,
    /// Questions put to the person so far.
    asked: u64,
    requests: BTreeMap<MemberId, Request>,
    /// When each member's requests came before the person in the last minute.
    questions: BTreeMap<MemberId, VecDeque<Mono>>,
    orders: BTreeMap<MemberId, PendingOrder>,
    agreed: BTreeSet<MemberId>,
    queue: PtyQueue,
    version: u64,
    paused_until: Mono,
    closed: bool,
}

/// The living lease.
#[derive(Debug)]
struct Live {
    signed: SignedLease,
    ends: Mono,
    gone_since: Option<Mono>,
    receiver: InputReceiver,
}

/// A lease that is over, until its account is forgotten.
#[derive(Debug)]
struct Ending {
    holder: MemberId,
    reason: EndReason,
    receiver: InputReceiver,
    settled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lock {
    by: MemberId,
    by_owner: bool,
}

/// A member's conversation with this terminal.
#[derive(Debug)]
struct Attachment {
    number: u64,
    nonce: u64,
    challenge: [u8; 16],
    request: u64,
    answer: Option<Answer>,
    order: Option<([u8; 16], OrderOutcome)>,
}

/// How the newest request of an attachment stands.
#[derive(Debug, Clone)]
enum Answer {
    Recorded,
    Granted { number: u64 },
    Denied(Denial),
}

#[derive(Debug)]
struct Request {
    /// Its place among all questions.
    turn: u64,
    since: Mono,
    duration_s: Option<u32>,
}

#[derive(Debug)]
struct PendingOrder {
    /// Its place among all questions.
    turn: u64,
    since: Mono,
    challenge: [u8; 16],
    number: u64,
    action: Action,
}

type Out = Vec<HostOutput>;

impl LeaseHost {
    /// A terminal that nobody but its host may type into.
    pub fn new(place: Place, settings: HostSettings) -> Self {
        Self {
            place,
            settings,
            number: 0,
            live: None,
            endings: BTreeMap::new(),
            lock: None,
            attachments: 0,
            attached: BTreeMap::new(),
            asked: 0,
            requests: BTreeMap::new(),
            questions: BTreeMap::new(),
            orders: BTreeMap::new(),
            agreed: BTreeSet::new(),
            queue: PtyQueue::default(),
            version: 0,
            paused_until: Mono(0),
            closed: false,
        }
    }

    /// Takes in a fact. What came in before must be handled before; outputs are in the order to perform.
    pub fn handle(&mut self, input: HostInput, at: &mut At<'_>, out: &mut Out) {
        self.expire(at, out);
        match input {
            HostInput::Message { from, body } => self.message(from, body, at, out),
            HostInput::Disconnected(who) => self.disconnected(who, at, out),
            HostInput::MembersChanged => self.members_changed(at, out),
            HostInput::Auto(auto) => self.set_auto(auto, at, out),
            HostInput::Answer(bytes) => self.answer(bytes),
            HostInput::PtyWritten(total) => {
                let taken = self.queue.advance(total);
                self.took(taken, at, out);
            }
            HostInput::PtyWithdrawn(total) => self.withdrawn(total, at, out),
            HostInput::Closed => self.close(at, out),
            HostInput::Tick => self.give_up_waiting(at, out),
        }
        self.flow(at, out);
    }

    /// Does what the host's person wants, or says why not.
    pub fn person(&mut self, act: Person, at: &mut At<'_>, out: &mut Out) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        self.expire(at, out);
        let host = self.place.host;
        let result = match act {
            Person::Key { verb, bytes } => self.key(verb, bytes, at, out),
            Person::Grant { to, duration_s } => self.grant_by_person(to, duration_s, at, out),
            Person::Deny { who } => self.deny(who, at, out),
            Person::Agree { who, always } => self.agree(who, always, at, out),
            Person::Revoke if self.live.is_none() => Err(Refusal::NoLease),
            Person::Revoke => {
                self.end(EndReason::Revoked { by: host }, at, out);
                Ok(())
            }
            Person::Take => {
                self.take_back(at, out);
                Ok(())
            }
            Person::Lock => {
                self.lock(host, at, out);
                Ok(())
            }
            Person::Unlock => self.unlock(host, at, out),
        };
        self.flow(at, out);
        result
    }

    /// When [`HostInput::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        let live = self.live.iter().flat_map(|live| {
            let gone = live
                .gone_since
                .map(|since| (since + ORPHAN, Timer::HolderGone));
            let due = live.receiver.due().map(|due| (due, Timer::InputDue));
            [Some((live.ends, Timer::LeaseEnds)), gone, due]
                .into_iter()
                .flatten()
        });
        let asked = self.requests.values().map(|request| request.since);
        let ordered = self.orders.values().map(|order| order.since);
        live.chain(
            asked
                .chain(ordered)
                .map(|since| (since + PATIENCE, Timer::PromptEnds)),
        )
        .min()
    }

    /// The picture for faces.
    pub fn view(&self, now: Mono) -> LeaseView {
        LeaseView {
            holder: self.holder(),
            number: self.number,
            remaining: self
                .live
                .as_ref()
                .map_or(Duration::ZERO, |live| live.ends.since(now)),
            prompts: self.prompts(),
            locked: self.lock.map(|lock| lock.by),
            auto: self.settings.auto,
        }
    }

    /// The state of control as members may see it.
    pub fn status(&self, now: Mono) -> LeaseStatus {
        let left = self
            .live
            .as_ref()
            .map_or(Duration::ZERO, |live| live.ends.since(now));
        LeaseStatus {
            version: self.version,
            number: self.number,
            lease: self.live.as_ref().map(|live| live.signed.clone()),
            remaining_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            locked: self.lock.map(|lock| lock.by),
            auto: self.settings.auto,
        }
    }

    /// Who has the lease.
    pub fn holder(&self) -> Option<MemberId> {
        self.live.as_ref().map(|live| live.signed.lease.holder)
    }

    /// Bytes of the living lease's holder that the PTY has not taken.
    pub fn lease_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.receiver.untaken())
    }

    /// Bytes of the host's own person that wait for the PTY's adapter.
    pub fn person_bytes(&self) -> usize {
        let of_person = |origin| matches!(origin, Origin::Person { .. });
        self.queue.waiting(of_person)
    }

    /// Bytes that the adapter has and the PTY has not taken.
    pub fn given_bytes(&self) -> usize {
        self.queue.given()
    }

    /// The terminal that this is about.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

const ORPHAN: Duration = Duration::from_secs(LEASE_ORPHAN_S);
const PATIENCE: Duration = Duration::from_secs(CONTROL_PROMPT_S);

/// What members say.
impl LeaseHost {
    fn message(&mut self, from: MemberId, body: ToHost, at: &mut At<'_>, out: &mut Out) {
        let refused = if self.closed {
            Some(Refusal::Closed)
        } else if !at.members.may_watch(&from) {
            Some(Refusal::NotPermitted)
        } else {
            None
        };
        if let Some(reason) = refused {
            out.push(send(from, FromHost::Refused { reason }));
            return;
        }
        match body {
            ToHost::Attach { nonce, unsettled } => self.attach(from, nonce, unsettled, at, out),
            ToHost::Request {
                attachment,
                request,
                first_key,
                duration_s,
            } => {
                if self.of_attachment(from, attachment, out) {
                    self.request(from, request, first_key, duration_s, at, out);
                }
            }
            ToHost::Withdraw {
                attachment,
                request,
            } => {
                let newest = |a: &Attachment| a.number == attachment && a.request == request;
                if self.attached.get(&from).is_some_and(newest) {
                    self.forget_request(from, out);
                }
            }
            ToHost::Release { number } => self.release(from, number, at, out),
            ToHost::Order(signed) => self.order(from, &signed, at, out),
            ToHost::Input {
                number,
                attachment,
                seq,
                bytes,
            } => {
                self.input(from, number, attachment, seq, bytes.as_bytes(), out);
            }
        }
    }

    fn attach(
        &mut self,
        from: MemberId,
        nonce: u64,
        unsettled: Option<u64>,
        at: &mut At<'_>,
        out: &mut Out,
    ) {
        if self
            .attached
            .get(&from)
            .is_none_or(|attachment| attachment.nonce != nonce)
        {
            self.attachments = self.attachments.saturating_add(1);
            let fresh = Attachment {
                number: self.attachments,
                nonce,
                challenge: at.entropy.bytes(),
                request: 0,
                answer: None,
                order: None,
            };
            self.attached.insert(from, fresh);
        }
        let status = self.status(at.now);
        let (mut next, mut taken) = (0, 0);
        if let Some(live) = self
            .live
            .as_mut()
            .filter(|live| live.signed.lease.holder == from)
        {
            live.gone_since = None;
            (next, taken) = (live.receiver.next(), live.receiver.taken());
        }
        if let Some(attachment) = self.attached.get(&from) {
            let (attachment, challenge) = (attachment.number, attachment.challenge);
            let body = FromHost::Attached {
                nonce,
                attachment,
                challenge,
                next,
                taken,
                status,
            };
            out.push(send(from, body));
        }
        if let Some(number) = unsettled {
            self.tell_ending(from, number, out);
        }
    }

    /// Whether the sender speaks in its newest attachment; it is told if not.
    fn of_attachment(&self, from: MemberId, attachment: u64, out: &mut Out) -> bool {
        let newest = self
            .attached
            .get(&from)
            .is_some_and(|newest| newest.number == attachment);
        if !newest {
            out.push(send(
                from,
                FromHost::Refused {
                    reason: Refusal::Detached,
                },
            ));
        }
        newest
    }

    fn request(
        &mut self,
        from: MemberId,
        request: u64,
        first_key: bool,
        duration_s: Option<u32>,
        at: &mut At<'_>,
        out: &mut Out,
    ) {
        let Some(attachment) = self.attached.get_mut(&from) else {
            return;
        };
        if request < attachment.request {
            return;
        }
        if request == attachment.request {
            self.repeat_answer(from, at.now, out);
            return;
        }
        attachment.request = request;
        match self.judge_request(from, first_key, at) {
            Judgement::Grant => {
                self.grant(
                    from,
                    at_most(duration_s, LEASE_AUTO_S),
                    self.place.host,
                    at,
                    out,
                );
            }
            Judgement::Holds => {
                self.set_answer(
                    from,
                    Answer::Granted {
                        number: self.number,
                    },
                );
                self.repeat_answer(from, at.now, out);
            }
            Judgement::Deny(reason) => {
                self.set_answer(from, Answer::Denied(reason));
                self.repeat_answer(from, at.now, out);
            }
            Judgement::Ask if self.requests.contains_key(&from) => {
                // The person is asked already: asking again changes neither the question nor its end.
                self.set_answer(from, Answer::Recorded);
                self.repeat_answer(from, at.now, out);
            }
            Judgement::Ask if !self.may_question(from, at.now) => {
                self.set_answer(from, Answer::Denied(Denial::Busy));
                self.repeat_answer(from, at.now, out);
            }
            Judgement::Ask => {
                self.asked += 1;
                self.requests.insert(
                    from,
                    Request {
                        turn: self.asked,
                        since: at.now,
                        duration_s,
                    },
                );
                self.set_answer(from, Answer::Recorded);
                self.repeat_answer(from, at.now, out);
                out.push(HostOutput::Event(HostEvent::Requested { who: from }));
                let asked = Asked::Lease { duration_s };
                out.push(HostOutput::Prompt(Prompt { who: from, asked }));
            }
        }
    }

    fn judge_request(&self, from: MemberId, first_key: bool, at: &At<'_>) -> Judgement {
        if self.holder() == Some(from) {
            return Judgement::Holds;
        }
        if let Some(lock) = self.lock {
            return Judgement::Deny(Denial::Locked { by: lock.by });
        }
        let may_have_free = self.settings.auto && at.members.may_edit(&from);
        let paused = at.now < self.paused_until;
        match self.holder() {
            None if may_have_free && !paused => Judgement::Grant,
            None if first_key && may_have_free => Judgement::Deny(Denial::Paused),
            Some(by) if first_key => Judgement::Deny(Denial::Held { by }),
            None if first_key && self.settings.auto => Judgement::Deny(Denial::NotPermitted),
            None if first_key => Judgement::Deny(Denial::AskFirst),
            None | Some(_) if self.is_full_of_requests(&from) => Judgement::Deny(Denial::Busy),
            None | Some(_) => Judgement::Ask,
        }
    }

    /// Counts a question to the person, unless this member has put enough of them in the last minute: who takes
    /// each back and asks anew would otherwise have the person look up without end.
    fn may_question(&mut self, from: MemberId, now: Mono) -> bool {
        self.questions.retain(|_, asked| {
            asked.retain(|at| *at + Duration::from_secs(60) > now);
            !asked.is_empty()
        });
        let asked = self.questions.entry(from).or_default();
        let may = asked.len() < CONTROL_QUESTIONS_PER_MINUTE_MAX;
        if may {
            asked.push_back(now);
        }
        may
    }

    fn is_full_of_requests(&self, from: &MemberId) -> bool {
        self.requests.len() >= CONTROL_PROMPTS_MAX && !self.requests.contains_key(from)
    }

    fn set_answer(&mut self, to: MemberId, answer: Answer) {
        if let Some(attachment) = self.attached.get_mut(&to) {
            attachment.answer = Some(answer);
        }
    }

    /// Tells how the newest request stands.
    fn repeat_answer(&mut self, to: MemberId, now: Mono, out: &mut Out) {
        let Some(attachment) = self.attached.get(&to) else {
            return;
        };
        let request = attachment.request;
        match attachment.answer.clone() {
            Some(Answer::Recorded) => out.push(send(to, FromHost::Recorded { request })),
            Some(Answer::Denied(reason)) => {
                out.push(send(to, FromHost::Denied { request, reason }));
            }
            Some(Answer::Granted { number }) if self.is_held(to, number) => {
                let (next, status) = (self.next(), self.status(now));
                out.push(send(
                    to,
                    FromHost::Granted {
                        request: Some(request),
                        next,
                        status,
                    },
                ));
            }
            Some(Answer::Granted { number }) => self.tell_ending(to, number, out),
            None => {}
        }
    }

    /// Position that the living lease expects next.
    fn next(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.receiver.next())
    }

    fn is_held(&self, by: MemberId, number: u64) -> bool {
        self.live.is_some() && self.number == number && self.holder() == Some(by)
    }

    fn release(&mut self, from: MemberId, number: u64, at: &mut At<'_>, out: &mut Out) {
        if self.is_held(from, number) {
            self.end(EndReason::Released, at, out);
        } else {
            self.tell_ending(from, number, out);
        }
    }

    /// Tells a former holder how its lease ended, once that is known.
    fn tell_ending(&self, to: MemberId, number: u64, out: &mut Out) {
        if self.is_held(to, number) {
            return;
        }
        let ended = match self
            .endings
            .get(&number)
            .filter(|ending| ending.holder == to)
        {
            Some(ending) if !ending.settled => return,
            Some(ending) => (ending.reason.clone(), Some(ending.receiver.taken())),
            None => (EndReason::Forgotten, None),
        };
        let (reason, written) = ended;
        out.push(send(
            to,
            FromHost::Ended {
                number,
                reason,
                written,
            },
        ));
    }

    fn input(
        &mut self,
        from: MemberId,
        number: u64,
        attachment: u64,
        seq: u64,
        bytes: &[u8],
        out: &mut Out,
    ) {
        #[cfg(feature = "sim")]
        if self.settings.planted.ignore_lease_number && !self.is_held(from, number) {
            self.queue.push(Origin::Lease { number }, bytes.to_vec());
            return;
        }
        if !self.is_held(from, number) {
            match self
                .endings
                .get(&number)
                .filter(|ending| ending.holder == from)
            {
                Some(_) => self.tell_ending(from, number, out),
                None => out.push(send(
                    from,
                    FromHost::Refused {
                        reason: Refusal::NotHeld,
                    },
                )),
            }
            return;
        }
        if !self.of_attachment(from, attachment, out) {
            return;
        }
        let Some(live) = self.live.as_mut() else {
            return;
        };
        let before = live.receiver.next();
        live.receiver.frame(seq, bytes);
        #[cfg(feature = "sim")]
        if self.settings.planted.drop_dedup && seq < before {
            live.receiver.frame_without_dedup(bytes);
        }
        if live.receiver.next() == before {
            self.acknowledge(out);
        }
    }

    fn acknowledge(&self, out: &mut Out) {
        let Some(live) = &self.live else { return };
        let holder = live.signed.lease.holder;
        let Some(attachment) = self.attached.get(&holder) else {
            return;
        };
        let body = FromHost::Ack {
            number: self.number,
            attachment: attachment.number,
            next: live.receiver.next(),
            taken: live.receiver.taken(),
        };
        out.push(send(holder, body));
    }

    fn disconnected(&mut self, who: MemberId, at: &mut At<'_>, out: &mut Out) {
        self.attached.remove(&who);
        self.forget_request(who, out);
        self.forget_order(who, out);
        if let Some(live) = self
            .live
            .as_mut()
            .filter(|live| live.signed.lease.holder == who)
        {
            live.gone_since.get_or_insert(at.now);
        }
    }

    fn members_changed(&mut self, at: &mut At<'_>, out: &mut Out) {
        if self
            .holder()
            .is_some_and(|holder| !at.members.may_watch(&holder))
        {
            self.end(EndReason::Removed, at, out);
        }
        let members = at.members;
        self.attached.retain(|who, _| members.may_watch(who));
        let asking: Vec<_> = self
            .requests
            .keys()
            .filter(|who| !members.may_watch(who))
            .copied()
            .collect();
        asking
            .into_iter()
            .for_each(|who| self.forget_request(who, out));
        let ordering: Vec<_> = self
            .orders
            .keys()
            .filter(|who| !members.may_control(who))
            .copied()
            .collect();
        ordering
            .into_iter()
            .for_each(|who| self.forget_order(who, out));
        self.agreed.retain(|who| members.may_control(who));
    }
}

/// What a request leads to.
enum Judgement {
    Grant,
    Holds,
    Deny(Denial),
    Ask,
}

/// Orders.
impl LeaseHost {
    fn order(&mut self, from: MemberId, signed: &SignedOrder, at: &mut At<'_>, out: &mut Out) {
        let Some(attachment) = self.attached.get_mut(&from) else {
            out.push(send(
                from,
                FromHost::Refused {
                    reason: Refusal::Detached,
                },
            ));
            return;
        };
        let challenge = signed.order.challenge;
        if let Some((_, outcome)) = attachment
            .order
            .clone()
            .filter(|(known, _)| *known == challenge)
        {
            let next = attachment.challenge;
            out.push(send(
                from,
                FromHost::Ordered {
                    challenge,
                    outcome,
                    next,
                },
            ));
            return;
        }
        if challenge != attachment.challenge || !signed.is_of(&from, &self.place) {
            let (outcome, next) = (
                OrderOutcome::Refused(Refusal::Invalid),
                attachment.challenge,
            );
            out.push(send(
                from,
                FromHost::Ordered {
                    challenge,
                    outcome,
                    next,
                },
            ));
            return;
        }
        attachment.challenge = at.entropy.bytes();
        let outcome = self.judge_order(from, signed, at, out);
        self.answer_order(from, challenge, outcome, out);
    }

    fn answer_order(
        &mut self,
        to: MemberId,
        challenge: [u8; 16],
        outcome: OrderOutcome,
        out: &mut Out,
    ) {
        if let Some(attachment) = self.attached.get_mut(&to) {
            attachment.order = Some((challenge, outcome.clone()));
            out.push(send(
                to,
                FromHost::Ordered {
                    challenge,
                    outcome,
                    next: attachment.challenge,
                },
            ));
        }
    }

    fn judge_order(
        &mut self,
        from: MemberId,
        signed: &SignedOrder,
        at: &mut At<'_>,
        out: &mut Out,
    ) -> OrderOutcome {
        let order = &signed.order;
        if !at.members.may_control(&from) {
            return OrderOutcome::Refused(Refusal::NotPermitted);
        }
        if order.number != self.number {
            return OrderOutcome::Refused(Refusal::Stale {
                number: self.number,
            });
        }
        let gives = matches!(order.action, Action::Grant { .. } | Action::Take { .. });
        if !gives || self.settings.own || self.agreed.contains(&from) {
            return outcome(self.carry_out(from, order.action, at, out));
        }
        if let Err(reason) = self.may_be_given(&from, order.action, at) {
            return OrderOutcome::Refused(reason);
        }
        if self.orders.len() >= CONTROL_PROMPTS_MAX && !self.orders.contains_key(&from) {
            return OrderOutcome::Refused(Refusal::Busy);
        }
        self.forget_order(from, out);
        let (number, challenge, action) = (order.number, order.challenge, order.action);
        self.asked += 1;
        self.orders.insert(
            from,
            PendingOrder {
                turn: self.asked,
                since: at.now,
                challenge,
                number,
                action,
            },
        );
        out.push(HostOutput::Prompt(Prompt {
            who: from,
            asked: Asked::Order(action),
        }));
        OrderOutcome::Waiting
    }

    fn carry_out(
        &mut self,
        by: MemberId,
        action: Action,
        at: &mut At<'_>,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        match action {
            Action::Grant { .. } | Action::Take { .. } => {
                let (to, duration_s) = self.may_be_given(&by, action, at)?;
                self.grant(to, duration_s.unwrap_or(LEASE_DEFAULT_S), by, at, out);
            }
            Action::Revoke if self.live.is_none() => return Err(Refusal::NoLease),
            Action::Revoke => self.end(EndReason::Revoked { by }, at, out),
            Action::Lock => self.lock(by, at, out),
            Action::Unlock => return self.unlock(by, at, out),
        }
        Ok(())
    }

    /// Who would get the lease by `action` of `by`, and whether that is possible now.
    fn may_be_given(
        &self,
        by: &MemberId,
        action: Action,
        at: &At<'_>,
    ) -> Result<(MemberId, Option<u32>), Refusal> {
        let (to, duration_s) = match action {
            Action::Grant { to, duration_s } => (to, duration_s),
            Action::Take { duration_s } => (*by, duration_s),
            Action::Revoke | Action::Lock | Action::Unlock => return Err(Refusal::Invalid),
        };
        if let Some(lock) = self.lock {
            return Err(Refusal::Locked { by: lock.by });
        }
        self.check_fit(to, at)?;
        Ok((to, duration_s))
    }

    fn check_fit(&self, to: MemberId, at: &At<'_>) -> Result<(), Refusal> {
        let fit =
            to != self.place.host && at.members.may_watch(&to) && at.members.is_connected(&to);
        if fit {
            Ok(())
        } else {
            Err(Refusal::Unfit { who: to })
        }
    }

    fn agree(
        &mut self,
        who: MemberId,
        always: bool,
        at: &mut At<'_>,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let order = self.orders.remove(&who).ok_or(Refusal::Unfit { who })?;
        let asked = Asked::Order(order.action);
        out.push(HostOutput::PromptGone(Prompt { who, asked }));
        if always {
            self.agreed.insert(who);
        }
        let result = if order.number == self.number {
            self.carry_out(who, order.action, at, out)
        } else {
            Err(Refusal::Stale {
                number: self.number,
            })
        };
        self.answer_order(who, order.challenge, outcome(result.clone()), out);
        result
    }

    fn deny(&mut self, who: MemberId, at: &At<'_>, out: &mut Out) -> Result<(), Refusal> {
        let order = self.orders.get(&who).map(|order| order.challenge);
        if order.is_none() && !self.requests.contains_key(&who) {
            return Err(Refusal::Unfit { who });
        }
        if let Some(challenge) = order {
            self.forget_order(who, out);
            self.answer_order(
                who,
                challenge,
                OrderOutcome::Refused(Refusal::Disagreed),
                out,
            );
        }
        self.deny_request(who, Denial::Person, at.now, out);
        Ok(())
    }

    fn deny_request(&mut self, who: MemberId, reason: Denial, now: Mono, out: &mut Out) {
        if self.requests.contains_key(&who) {
            self.forget_request(who, out);
            self.set_answer(who, Answer::Denied(reason));
            self.repeat_answer(who, now, out);
        }
    }

    fn forget_request(&mut self, who: MemberId, out: &mut Out) {
        if let Some(request) = self.requests.remove(&who) {
            let asked = Asked::Lease {
                duration_s: request.duration_s,
            };
            out.push(HostOutput::PromptGone(Prompt { who, asked }));
        }
    }

    fn forget_order(&mut self, who: MemberId, out: &mut Out) {
        if let Some(order) = self.orders.remove(&who) {
            out.push(HostOutput::PromptGone(Prompt {
                who,
                asked: Asked::Order(order.action),
            }));
        }
    }

    fn prompts(&self) -> Vec<Prompt> {
        let asked = self.requests.iter().map(|(who, request)| {
            let duration_s = request.duration_s;
            (request.turn, *who, Asked::Lease { duration_s })
        });
        let ordered = self
            .orders
            .iter()
            .map(|(who, order)| (order.turn, *who, Asked::Order(order.action)));
        let mut all: Vec<_> = asked.chain(ordered).collect();
        all.sort_by_key(|(turn, ..)| *turn);
        all.into_iter()
            .map(|(_, who, asked)| Prompt { who, asked })
            .collect()
    }
}

/// What somebody asks for, within what is given when the person who decides says nothing of the time.
fn at_most(asked: Option<u32>, usual: u32) -> u32 {
    asked.map_or(usual, |asked| asked.min(usual))
}

fn outcome(result: Result<(), Refusal>) -> OrderOutcome {
    result.map_or_else(OrderOutcome::Refused, |()| OrderOutcome::Done)
}

/// How leases begin and end.
impl LeaseHost {
    fn grant_by_person(
        &mut self,
        to: MemberId,
        duration_s: Option<u32>,
        at: &mut At<'_>,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        if let Some(lock) = self.lock {
            return Err(Refusal::Locked { by: lock.by });
        }
        self.check_fit(to, at)?;
        let asked = self
            .requests
            .get(&to)
            .and_then(|request| request.duration_s);
        let duration_s = duration_s.unwrap_or_else(|| at_most(asked, LEASE_DEFAULT_S));
        self.grant(to, duration_s, self.place.host, at, out);
        Ok(())
    }

    /// Gives the lease to `to`: a new one, or, to whom has it, the same for longer.
    fn grant(
        &mut self,
        to: MemberId,
        duration_s: u32,
        by: MemberId,
        at: &mut At<'_>,
        out: &mut Out,
    ) {
        let duration_s = duration_s.clamp(LEASE_S_MIN, LEASE_S_MAX);
        let ends = at.now + Duration::from_secs(u64::from(duration_s));
        self.forget_request(to, out);
        #[cfg(feature = "sim")]
        if self.settings.planted.two_controllers {
            self.live = None;
        }
        let prolonged = self.live.take_if(|live| live.signed.lease.holder == to);
        if prolonged.is_none() {
            let given = if by == to {
                EndReason::Taken { by }
            } else {
                EndReason::Given { to }
            };
            self.end(given, at, out);
            self.number = self.number.saturating_add(1);
        }
        self.version = self.version.saturating_add(1);
        let lease = Lease {
            session: self.place.session,
            terminal: self.place.terminal,
            holder: to,
            number: self.number,
            duration_s,
        };
        let (gone_since, receiver) = prolonged.map_or_else(
            || (None, InputReceiver::new(at.now)),
            |live| (live.gone_since, live.receiver),
        );
        self.live = Some(Live {
            signed: lease.sign(at.key),
            ends,
            gone_since,
            receiver,
        });
        let number = self.number;
        out.push(HostOutput::Event(HostEvent::Granted {
            to,
            by,
            number,
            duration_s,
        }));
        self.tell_grant(to, at.now, out);
        out.push(HostOutput::Announce(self.status(at.now)));
    }

    fn tell_grant(&mut self, to: MemberId, now: Mono, out: &mut Out) {
        let number = self.number;
        let request = self.attached.get_mut(&to).and_then(|attachment| {
            let asked = attachment.answer.is_none() && attachment.request > 0;
            let asked = asked
                || matches!(
                    attachment.answer,
                    Some(Answer::Recorded | Answer::Denied(_))
                );
            attachment.answer = Some(Answer::Granted { number });
            asked.then_some(attachment.request)
        });
        let (next, status) = (self.next(), self.status(now));
        out.push(send(
            to,
            FromHost::Granted {
                request,
                next,
                status,
            },
        ));
    }

    /// Ends the living lease, if there is one: from here on none of its bytes is given to the PTY, and what the
    /// adapter has of it is withdrawn.
    fn end(&mut self, reason: EndReason, at: &At<'_>, out: &mut Out) {
        let Some(live) = self.live.take() else { return };
        let (holder, number) = (live.signed.lease.holder, self.number);
        self.version = self.version.saturating_add(1);
        let ended = HostEvent::Ended {
            holder,
            number,
            reason: reason.clone(),
        };
        let ending = Ending {
            holder,
            reason,
            receiver: live.receiver,
            settled: false,
        };
        self.endings.insert(number, ending);
        if self.endings.len() > LEASE_ENDINGS_MAX {
            self.endings.pop_first();
        }
        out.push(HostOutput::Event(ended));
        match self.queue.end_lease(number) {
            Withdrawal::Needless => self.settle(number, out),
            Withdrawal::Needed => out.push(HostOutput::DropPtyQueue),
            Withdrawal::UnderWay => {}
        }
        out.push(HostOutput::Announce(self.status(at.now)));
    }

    /// Closes the account of an ended lease: what the PTY has of it is final.
    fn settle(&mut self, number: u64, out: &mut Out) {
        let Some(ending) = self.endings.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut ending.settled, true) {
            return;
        }
        let written = ending.receiver.taken();
        let dropped = ending.receiver.next().saturating_sub(written);
        let (holder, closing) = (ending.holder, ending.receiver.closing());
        if !self.closed {
            self.queue.push_front(Origin::Closing { number }, closing);
        }
        out.push(HostOutput::Event(HostEvent::Settled {
            number,
            written,
            dropped,
        }));
        self.tell_ending(holder, number, out);
    }

    fn set_auto(&mut self, auto: bool, at: &At<'_>, out: &mut Out) {
        if std::mem::replace(&mut self.settings.auto, auto) != auto {
            self.version = self.version.saturating_add(1);
            out.push(HostOutput::Announce(self.status(at.now)));
        }
    }

    fn take_back(&mut self, at: &At<'_>, out: &mut Out) {
        if self.live.is_some() {
            self.paused_until = at.now + Duration::from_millis(LEASE_AUTO_PAUSE_MS);
        }
        self.end(
            EndReason::Taken {
                by: self.place.host,
            },
            at,
            out,
        );
    }

    fn lock(&mut self, by: MemberId, at: &At<'_>, out: &mut Out) {
        self.end(EndReason::Locked { by }, at, out);
        if self.lock.is_none_or(|lock| !lock.by_owner) {
            let by_owner = at.members.is_owner(&by);
            self.lock = Some(Lock { by, by_owner });
        }
        let asking: Vec<_> = self.requests.keys().copied().collect();
        for who in asking {
            self.deny_request(who, Denial::Locked { by }, at.now, out);
        }
        self.version = self.version.saturating_add(1);
        out.push(HostOutput::Event(HostEvent::Locked { by }));
        out.push(HostOutput::Announce(self.status(at.now)));
    }

    /// A lock of the owner's is undone by the owner; one of the host's person, on a terminal that is not the
    /// owner's, by nobody else; any other by whoever may decide.
    fn unlock(&mut self, by: MemberId, at: &At<'_>, out: &mut Out) -> Result<(), Refusal> {
        let Some(lock) = self.lock else { return Ok(()) };
        let owners = lock.by_owner && !at.members.is_owner(&by);
        let persons = lock.by == self.place.host && !self.settings.own && by != self.place.host;
        if owners || persons {
            return Err(Refusal::Locked { by: lock.by });
        }
        self.lock = None;
        self.version = self.version.saturating_add(1);
        out.push(HostOutput::Event(HostEvent::Unlocked { by }));
        out.push(HostOutput::Announce(self.status(at.now)));
        Ok(())
    }
}

/// The way to the PTY.
impl LeaseHost {
    fn key(
        &mut self,
        verb: Option<u64>,
        bytes: Vec<u8>,
        at: &At<'_>,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        if self.person_bytes().saturating_add(bytes.len()) > PERSON_INPUT_BYTES_MAX {
            return Err(Refusal::Full);
        }
        match verb {
            Some(verb) if bytes.is_empty() => {
                out.push(HostOutput::Event(HostEvent::Typed { verb, taken: true }));
            }
            None if bytes.is_empty() => {}
            Some(_) | None => {
                self.take_back(at, out);
                self.queue.push(Origin::Person { verb }, bytes);
            }
        }
        Ok(())
    }

    /// A program that asks faster than it reads gets no more answers.
    fn answer(&mut self, bytes: Vec<u8>) {
        let waiting = self.queue.waiting(|origin| origin == Origin::Answer);
        if !self.closed && waiting.saturating_add(bytes.len()) <= PTY_ANSWER_BYTES_MAX {
            self.queue.push(Origin::Answer, bytes);
        }
    }

    /// Gives the adapter what it may have now.
    fn flow(&mut self, at: &At<'_>, out: &mut Out) {
        let number = self.number;
        if let Some(live) = &mut self.live {
            let bytes = live.receiver.release(at.now, self.queue.room());
            self.queue.push(Origin::Lease { number }, bytes);
        }
        out.extend(self.queue.give().into_iter().map(HostOutput::WritePty));
    }

    fn took(&mut self, taken: Vec<Taken>, at: &At<'_>, out: &mut Out) {
        let mut of_live = false;
        for Taken {
            origin,
            bytes,
            whole,
        } in taken
        {
            match origin {
                Origin::Lease { number } => of_live |= self.took_of_lease(number, &bytes),
                Origin::Person { verb: Some(verb) } if whole => {
                    out.push(HostOutput::Event(HostEvent::Typed { verb, taken: true }));
                }
                Origin::Person { .. } | Origin::Closing { .. } | Origin::Answer => {}
            }
        }
        if of_live {
            self.flow(at, out);
            self.acknowledge(out);
        }
    }

    fn took_of_lease(&mut self, number: u64, bytes: &[u8]) -> bool {
        match (&mut self.live, self.endings.get_mut(&number)) {
            (Some(live), _) if number == self.number => {
                live.receiver.took(bytes);
                true
            }
            (_, Some(ending)) => {
                ending.receiver.took(bytes);
                false
            }
            (Some(_) | None, None) => false,
        }
    }

    fn withdrawn(&mut self, total: u64, at: &At<'_>, out: &mut Out) {
        let taken = self.queue.withdrawn(total);
        self.took(taken, at, out);
        self.settle_all(out);
    }

    fn settle_all(&mut self, out: &mut Out) {
        let open: Vec<_> = self
            .endings
            .iter()
            .filter(|(_, ending)| !ending.settled)
            .map(|(number, _)| *number)
            .collect();
        open.into_iter().for_each(|number| self.settle(number, out));
    }

    fn close(&mut self, at: &mut At<'_>, out: &mut Out) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let asking: Vec<_> = self.requests.keys().copied().collect();
        for who in asking {
            self.deny_request(who, Denial::Closed, at.now, out);
        }
        let ordering: Vec<_> = self
            .orders
            .iter()
            .map(|(who, order)| (*who, order.challenge))
            .collect();
        for (who, challenge) in ordering {
            self.forget_order(who, out);
            self.answer_order(who, challenge, OrderOutcome::Refused(Refusal::Closed), out);
        }
        for piece in self.queue.close() {
            if let Origin::Person { verb: Some(verb) } = piece.origin {
                out.push(HostOutput::Event(HostEvent::Typed { verb, taken: false }));
            }
        }
        self.end(EndReason::Closed, at, out);
        self.settle_all(out);
    }

    /// Comes before anything else, so that a late timer never lets a dead lease write.
    fn expire(&mut self, at: &At<'_>, out: &mut Out) {
        let Some(live) = &self.live else { return };
        let gone = live
            .gone_since
            .is_some_and(|since| at.now >= since + ORPHAN);
        if at.now >= live.ends {
            self.end(EndReason::Expired, at, out);
        } else if gone {
            self.end(EndReason::Gone, at, out);
        }
    }

    fn give_up_waiting(&mut self, at: &At<'_>, out: &mut Out) {
        let late = |since: Mono| at.now >= since + PATIENCE;
        let asked: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, r)| late(r.since))
            .map(|(who, _)| *who)
            .collect();
        for who in asked {
            self.deny_request(who, Denial::Unanswered, at.now, out);
        }
        let ordered: Vec<_> = self
            .orders
            .iter()
            .filter(|(_, o)| late(o.since))
            .map(|(w, o)| (*w, o.challenge))
            .collect();
        for (who, challenge) in ordered {
            self.forget_order(who, out);
            self.answer_order(
                who,
                challenge,
                OrderOutcome::Refused(Refusal::Disagreed),
                out,
            );
        }
    }
}

fn send(to: MemberId, body: FromHost) -> HostOutput {
    HostOutput::Send { to, body }
}
