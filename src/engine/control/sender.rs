//! A member's side of a terminal that runs elsewhere: asking for control, typing, giving orders.
//!
//! Nothing is typed before a grant has arrived, everything typed is kept until the host says that the PTY has
//! taken it, and when a lease ends each byte is accounted for: written, not written, or, if the host died
//! without a word, unknown. The sender attaches when it first has something to say, and anew after each cut.

use std::collections::VecDeque;
use std::time::Duration;

use super::order::{Action, Order, SignedOrder};
use super::{
    Account, At, Denial, EndReason, FromHost, Keys, LeaseStatus, OrderOutcome, Place, Refusal,
    Timer, ToHost,
};
use crate::engine::ids::MemberId;
use crate::engine::limits::{
    INPUT_BUFFER_BYTES_MAX, INPUT_FRAME_BYTES_MAX, INPUT_RETRY_MS, INPUT_RETRY_MS_MAX,
    INPUT_WINDOW_FRAMES_MAX, LEASE_ENDINGS_MAX,
};
use crate::engine::time::Mono;

/// A fact for a sender.
#[expect(
    clippy::large_enum_variant,
    reason = "an input lives for one call, and boxing would cost each message an allocation"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderInput {
    /// The terminal's host is connected: messages may be sent.
    Up,
    /// The connection or the input stream was cut. Followed by [`Self::Up`] once messages may be sent again.
    Down,
    /// The terminal is gone for good, with its host or without.
    Gone,
    /// The host said something.
    Message(FromHost),
    /// The person, or a verb, types.
    Type {
        /// The number of a verb that waits until the bytes are taken.
        verb: Option<u64>,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The person asks for control.
    Request {
        /// For how long, in seconds, if said.
        duration_s: Option<u32>,
    },
    /// The person takes the request back, or gives control back. What is typed and not yet taken is waited for
    /// first; a second release does not wait.
    Release,
    /// The person decides who has control.
    Order(Action),
    /// A deadline may be due.
    Tick,
}

/// A consequence at a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderOutput {
    /// Tell the terminal's host, on the input stream, which is opened if there is none.
    Send(ToHost),
    /// Something happened.
    Event(SenderEvent),
}

/// Something that the person or a verb here may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderEvent {
    /// Control of the terminal changed, for whomever.
    Changed,
    /// The request is before the host's person.
    Recorded,
    /// Control is ours.
    Granted {
        /// The lease's number.
        number: u64,
        /// How long it lasts from now.
        remaining: Duration,
    },
    /// The request is refused.
    Denied(Denial),
    /// Control was ours and is no longer.
    Ended {
        /// The lease's number.
        number: u64,
        /// Why.
        reason: EndReason,
        /// What became of all that was typed under it.
        account: Account,
    },
    /// Keys had no effect, from the first byte on.
    Refused(Refusal),
    /// What became of an order.
    Ordered(OrderOutcome),
    /// What became of the bytes of a verb.
    Typed {
        /// The verb's number.
        verb: u64,
        /// The result.
        result: TypeResult,
    },
}

/// What became of the bytes of a verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeResult {
    /// The PTY has taken all of them.
    Taken,
    /// None of them had any effect.
    Refused(Refusal),
    /// The lease ended before the last was taken.
    Cut {
        /// How many were.
        account: Account,
        /// Why it ended.
        reason: EndReason,
    },
}

/// A member's side of one terminal. See the module's text.
#[derive(Debug)]
pub struct InputSender {
    place: Place,
    me: MemberId,
    up: bool,
    link: Link,
    status: Option<LeaseStatus>,
    ended_upto: u64,
    held: Option<Held>,
    held_until: Mono,
    releasing: Option<Releasing>,
    unsettled: VecDeque<Held>,
    wish: Option<Wish>,
    requests: u64,
    keys: VecDeque<(Option<u64>, Vec<u8>)>,
    order: Option<Ordering>,
    retry: Option<(Mono, u64)>,
}

/// How the conversation with the host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Closed,
    Opening {
        nonce: u64,
    },
    Open {
        attachment: u64,
        challenge: [u8; 16],
    },
}

/// A request under way.
#[derive(Debug)]
struct Wish {
    first_key: bool,
    duration_s: Option<u32>,
    request: Option<u64>,
    recorded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Releasing {
    OnceTaken,
    Now,
}

/// An order under way. It is signed anew, for the same lease number, when a cut makes its challenge void.
#[derive(Debug)]
struct Ordering {
    action: Action,
    number: Option<u64>,
    signed: Option<SignedOrder>,
    told: Option<OrderOutcome>,
}

/// A lease of ours with what was typed under it. Positions count from the first byte typed by this process.
#[derive(Debug)]
struct Held {
    number: u64,
    base: Option<u64>,
    bytes: VecDeque<u8>,
    taken: u64,
    accepted: u64,
    sent: u64,
    sent_max: u64,
    frames: VecDeque<u64>,
    verbs: VecDeque<Verb>,
}

#[derive(Debug)]
struct Verb {
    verb: u64,
    start: u64,
    end: u64,
}

type Out = Vec<SenderOutput>;

impl InputSender {
    /// A member that has not asked for anything.
    pub fn new(place: Place, me: MemberId) -> Self {
        Self {
            place,
            me,
            up: false,
            link: Link::Closed,
            status: None,
            ended_upto: 0,
            held: None,
            held_until: Mono(0),
            releasing: None,
            unsettled: VecDeque::new(),
            wish: None,
            requests: 0,
            keys: VecDeque::new(),
            order: None,
            retry: None,
        }
    }

    /// Takes in a fact; outputs are in the order to perform.
    pub fn handle(&mut self, input: SenderInput, at: &mut At<'_>, out: &mut Out) {
        match input {
            SenderInput::Up => self.up = true,
            SenderInput::Down => self.down(out),
            SenderInput::Gone => self.gone(out),
            SenderInput::Message(message) => self.message(message, at, out),
            SenderInput::Type { verb, bytes } => self.type_keys(verb, bytes, at, out),
            SenderInput::Request { duration_s } => self.request(duration_s, at, out),
            SenderInput::Release => self.release(out),
            SenderInput::Order(action) => self.order(action, out),
            SenderInput::Tick => self.tick(at, out),
        }
        self.proceed(at, out);
    }

    /// When [`SenderInput::Tick`] is due, and why.
    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        self.retry.map(|(due, _)| (due, Timer::Retry))
    }

    /// What is known of control of the terminal.
    pub fn status(&self) -> Option<&LeaseStatus> {
        self.status.as_ref()
    }

    /// The lease that is ours, as far as we know, and what is left of it.
    pub fn held(&self, now: Mono) -> Option<(u64, Duration)> {
        self.held
            .as_ref()
            .map(|held| (held.number, self.held_until.since(now)))
    }

    /// Bytes typed that the host has not confirmed.
    pub fn unconfirmed(&self) -> u64 {
        let bytes = self.held.as_ref().map_or(0, |held| held.bytes.len());
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Bytes kept here: typed under a lease and not confirmed, or waiting for one.
    pub fn buffered(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |held| held.bytes.len());
        let waiting: usize = self.keys.iter().map(|(_, bytes)| bytes.len()).sum();
        held.saturating_add(waiting)
    }

    /// Whether a request waits for the host's person.
    pub fn is_asking(&self) -> bool {
        self.wish.as_ref().is_some_and(|wish| !wish.first_key)
    }

    /// The terminal that this is about.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// The person's side.
impl InputSender {
    fn type_keys(&mut self, verb: Option<u64>, bytes: Vec<u8>, at: &At<'_>, out: &mut Out) {
        if let Some(held) = &mut self.held {
            let fits = held.bytes.len().saturating_add(bytes.len()) <= INPUT_BUFFER_BYTES_MAX;
            let alive = self.up || at.now < self.held_until;
            match (self.releasing, fits, alive) {
                (None, true, true) => held.append(verb, &bytes, out),
                (Some(_), _, _) => refuse(verb, &Refusal::NotHeld, out),
                (None, false, _) => refuse(verb, &Refusal::Full, out),
                (None, true, false) => refuse(verb, &Refusal::Unreachable, out),
            }
            return;
        }
        let waiting: usize = self.keys.iter().map(|(_, bytes)| bytes.len()).sum();
        if !self.up {
            refuse(verb, &Refusal::Unreachable, out);
        } else if waiting.saturating_add(bytes.len()) > INPUT_BUFFER_BYTES_MAX {
            refuse(verb, &Refusal::Full, out);
        } else {
            self.keys.push_back((verb, bytes));
            self.decide_keys(out);
        }
    }

    /// Keys without a lease: held where the host gives a free lease for them or nothing is known yet, else
    /// refused.
    fn decide_keys(&mut self, out: &mut Out) {
        if self.keys.is_empty() || self.held.is_some() {
            return;
        }
        let Some(status) = &self.status else { return };
        if self.wish.as_ref().is_some_and(|wish| wish.first_key) {
            return;
        }
        let over = status
            .lease
            .as_ref()
            .is_none_or(|signed| signed.lease.number <= self.ended_upto);
        if status.auto && over && status.locked.is_none() && self.wish.is_none() {
            self.wish = Some(Wish {
                first_key: true,
                duration_s: None,
                request: None,
                recorded: false,
            });
        } else {
            self.refuse_keys(&Refusal::NotHeld, out);
        }
    }

    fn refuse_keys(&mut self, reason: &Refusal, out: &mut Out) {
        for (verb, _) in self.keys.drain(..) {
            refuse(verb, reason, out);
        }
    }

    fn request(&mut self, duration_s: Option<u32>, at: &At<'_>, out: &mut Out) {
        if let Some(held) = &self.held {
            let remaining = self.held_until.since(at.now);
            out.push(event(SenderEvent::Granted {
                number: held.number,
                remaining,
            }));
        } else if self.wish.as_ref().is_none_or(|wish| wish.first_key) {
            self.wish = Some(Wish {
                first_key: false,
                duration_s,
                request: None,
                recorded: false,
            });
        }
    }

    fn release(&mut self, out: &mut Out) {
        if self.held.is_some() {
            let again = self.releasing.is_some();
            self.releasing = Some(if again {
                Releasing::Now
            } else {
                Releasing::OnceTaken
            });
        } else if let Some(wish) = self.wish.take() {
            self.withdraw(&wish, out);
            self.refuse_keys(&Refusal::NotHeld, out);
        }
    }

    fn withdraw(&self, wish: &Wish, out: &mut Out) {
        if let (Link::Open { attachment, .. }, Some(request)) = (self.link, wish.request) {
            out.push(SenderOutput::Send(ToHost::Withdraw {
                attachment,
                request,
            }));
        }
    }

    fn order(&mut self, action: Action, out: &mut Out) {
        let refusal = match (&self.order, self.up) {
            (_, false) => Refusal::Unreachable,
            (Some(_), true) => Refusal::Busy,
            (None, true) => {
                let number = self.status.as_ref().map(|status| status.number);
                self.order = Some(Ordering {
                    action,
                    number,
                    signed: None,
                    told: None,
                });
                return;
            }
        };
        out.push(event(SenderEvent::Ordered(OrderOutcome::Refused(refusal))));
    }
}

/// The host's side.
impl InputSender {
    fn message(&mut self, message: FromHost, at: &mut At<'_>, out: &mut Out) {
        match message {
            FromHost::Attached {
                nonce,
                attachment,
                challenge,
                next,
                taken,
                status,
            } => {
                if self.link == (Link::Opening { nonce }) {
                    self.link = Link::Open {
                        attachment,
                        challenge,
                    };
                    self.reset_retry();
                    let number = status.lease.as_ref().map(|signed| signed.lease.number);
                    self.adopt(status, at.now, out);
                    self.resume(number, next, taken, out);
                }
            }
            FromHost::Status(status) => self.adopt(status, at.now, out),
            FromHost::Recorded { request } => self.recorded(request, out),
            FromHost::Granted {
                request: _,
                next,
                status,
            } => {
                let number = status.lease.as_ref().map(|signed| signed.lease.number);
                self.adopt(status, at.now, out);
                self.found_base(number, next);
            }
            FromHost::Denied { request, reason } => self.denied(request, reason, out),
            FromHost::Ended {
                number,
                reason,
                written,
            } => self.ended(number, reason, written, out),
            FromHost::Ack {
                number,
                attachment,
                next,
                taken,
            } => {
                self.acknowledged(number, attachment, next, taken, out);
            }
            FromHost::Ordered {
                challenge,
                outcome,
                next,
            } => self.ordered(challenge, outcome, next, out),
            FromHost::Refused { reason } => self.refused(reason, out),
        }
    }

    /// Takes in what the host says of control, unless something newer is known.
    fn adopt(&mut self, status: LeaseStatus, now: Mono, out: &mut Out) {
        if self
            .status
            .as_ref()
            .is_some_and(|known| status.version < known.version)
        {
            return;
        }
        let changed = self
            .status
            .as_ref()
            .is_none_or(|known| known.version != status.version);
        let mine = status.lease.as_ref().filter(|signed| {
            signed.lease.holder == self.me
                && signed.lease.number > self.ended_upto
                && signed.is_of(&self.place)
        });
        let mine = mine.map(|signed| signed.lease.number);
        let remaining = Duration::from_millis(u64::from(status.remaining_ms));
        self.status = Some(status);
        if self
            .held
            .as_ref()
            .is_some_and(|held| mine != Some(held.number))
        {
            self.set_aside(out);
        }
        if let Some(number) = mine {
            self.held_until = now + remaining;
            if self.held.is_none() {
                self.begin(number, remaining, out);
            }
        }
        if changed {
            out.push(event(SenderEvent::Changed));
        }
        self.decide_keys(out);
    }

    fn begin(&mut self, number: u64, remaining: Duration, out: &mut Out) {
        self.wish = None;
        self.releasing = None;
        out.push(event(SenderEvent::Granted { number, remaining }));
        let mut held = Held::new(number);
        for (verb, bytes) in self.keys.drain(..) {
            held.append(verb, &bytes, out);
        }
        self.held = Some(held);
    }

    /// The lease is over; its account comes with the host's last word on it.
    fn set_aside(&mut self, out: &mut Out) {
        let Some(held) = self.held.take() else { return };
        self.ended_upto = self.ended_upto.max(held.number);
        self.releasing = None;
        self.unsettled.push_back(held);
        if self.unsettled.len() > LEASE_ENDINGS_MAX
            && let Some(oldest) = self.unsettled.pop_front()
        {
            oldest.close(EndReason::Forgotten, None, out);
        }
    }

    /// A new attachment begins where the host is: what came in is not sent again, all else is.
    fn resume(&mut self, number: Option<u64>, next: u64, taken: u64, out: &mut Out) {
        self.found_base(number, next);
        if let Some(held) = self
            .held
            .as_mut()
            .filter(|held| Some(held.number) == number)
        {
            held.advance(next, taken, out);
            held.go_back();
        }
    }

    /// In an attachment nobody but this process types, so what the host expects next is where it begins.
    fn found_base(&mut self, number: Option<u64>, next: u64) {
        let open = matches!(self.link, Link::Open { .. });
        if let Some(held) = self
            .held
            .as_mut()
            .filter(|held| open && Some(held.number) == number)
        {
            held.base.get_or_insert(next);
        }
    }

    fn recorded(&mut self, request: u64, out: &mut Out) {
        if let Some(wish) = self
            .wish
            .as_mut()
            .filter(|wish| wish.request == Some(request))
            && !std::mem::replace(&mut wish.recorded, true)
        {
            out.push(event(SenderEvent::Recorded));
        }
    }

    fn denied(&mut self, request: u64, reason: Denial, out: &mut Out) {
        if self
            .wish
            .as_ref()
            .is_some_and(|wish| wish.request == Some(request))
        {
            self.wish = None;
            self.refuse_keys(&Refusal::Denied(reason.clone()), out);
            out.push(event(SenderEvent::Denied(reason)));
        }
    }

    fn ended(&mut self, number: u64, reason: EndReason, written: Option<u64>, out: &mut Out) {
        if self.held.as_ref().is_some_and(|held| held.number == number) {
            self.set_aside(out);
        }
        if let Some(index) = self.unsettled.iter().position(|held| held.number == number)
            && let Some(held) = self.unsettled.remove(index)
        {
            self.reset_retry();
            held.close(reason, written, out);
        }
    }

    fn acknowledged(&mut self, number: u64, attachment: u64, next: u64, taken: u64, out: &mut Out) {
        let newest = matches!(self.link, Link::Open { attachment: ours, .. } if ours == attachment);
        if let Some(held) = self
            .held
            .as_mut()
            .filter(|held| newest && held.number == number)
            && held.advance(next, taken, out)
        {
            self.reset_retry();
        }
    }

    fn ordered(
        &mut self,
        answered: [u8; 16],
        outcome: OrderOutcome,
        next: [u8; 16],
        out: &mut Out,
    ) {
        let Some(order) = &mut self.order else { return };
        if order
            .signed
            .as_ref()
            .is_none_or(|signed| signed.order.challenge != answered)
        {
            return;
        }
        if let Link::Open { challenge, .. } = &mut self.link {
            *challenge = next;
        }
        if order.told.as_ref() != Some(&outcome) {
            order.told = Some(outcome.clone());
            out.push(event(SenderEvent::Ordered(outcome.clone())));
        }
        if outcome != OrderOutcome::Waiting {
            self.order = None;
            self.reset_retry();
        }
    }

    /// A refusal may be late; what it says of the conversation is settled by attaching anew.
    fn refused(&mut self, reason: Refusal, out: &mut Out) {
        match reason {
            Refusal::Detached | Refusal::NotHeld => {
                if matches!(self.link, Link::Open { .. }) {
                    self.unlink();
                }
            }
            Refusal::Closed | Refusal::NotPermitted => {
                self.wish = None;
                self.refuse_keys(&reason, out);
                if self.order.take().is_some() {
                    let outcome = OrderOutcome::Refused(reason.clone());
                    out.push(event(SenderEvent::Ordered(outcome)));
                }
                out.push(event(SenderEvent::Refused(reason)));
            }
            Refusal::Stale { .. }
            | Refusal::Invalid
            | Refusal::NoLease
            | Refusal::Unfit { .. }
            | Refusal::Locked { .. }
            | Refusal::Disagreed
            | Refusal::Busy
            | Refusal::Unreachable
            | Refusal::Full
            | Refusal::Denied(_) => out.push(event(SenderEvent::Refused(reason))),
        }
    }

    /// A request and an order outlive a cut; keys that wait for a lease do not, lest they come as a surprise.
    fn down(&mut self, out: &mut Out) {
        self.up = false;
        self.unlink();
        self.wish.take_if(|wish| wish.first_key);
        self.refuse_keys(&Refusal::Unreachable, out);
    }

    fn unlink(&mut self) {
        self.link = Link::Closed;
        self.retry = None;
        if let Some(wish) = &mut self.wish {
            wish.request = None;
        }
        if let Some(order) = &mut self.order {
            order.signed = None;
        }
    }

    fn gone(&mut self, out: &mut Out) {
        self.down(out);
        self.set_aside(out);
        for held in self.unsettled.drain(..) {
            held.close(EndReason::Closed, None, out);
        }
        if self.wish.take().is_some() {
            out.push(event(SenderEvent::Denied(Denial::Closed)));
        }
        self.refuse_keys(&Refusal::Closed, out);
        if self.order.take().is_some() {
            out.push(event(SenderEvent::Ordered(OrderOutcome::Refused(
                Refusal::Closed,
            ))));
        }
        self.status = None;
    }
}

/// What goes out.
impl InputSender {
    /// Says what there is to say, as far as the link allows.
    fn proceed(&mut self, at: &mut At<'_>, out: &mut Out) {
        if !self.wants_to_speak() || !self.up {
            self.retry = self.retry.filter(|_| self.up && self.wants_to_speak());
            return;
        }
        match self.link {
            Link::Closed => self.attach(at, out),
            Link::Opening { .. } => {}
            Link::Open {
                attachment,
                challenge,
            } => {
                self.send_request(attachment, out);
                self.send_order(challenge, at, out);
                if let Some(held) = &mut self.held {
                    held.pump(attachment, out);
                }
                self.send_release(out);
            }
        }
        if self.retry.is_none() {
            self.retry = Some((
                at.now + Duration::from_millis(INPUT_RETRY_MS),
                INPUT_RETRY_MS,
            ));
        }
    }

    /// Whether something is unsaid or unanswered.
    fn wants_to_speak(&self) -> bool {
        let typing = |held: &Held| {
            !held.bytes.is_empty() || held.base.is_none() || !matches!(self.link, Link::Open { .. })
        };
        self.held.as_ref().is_some_and(typing)
            || self.releasing.is_some()
            || !self.unsettled.is_empty()
            || self.wish.is_some()
            || self.order.is_some()
            || !self.keys.is_empty()
            || matches!(self.link, Link::Opening { .. })
    }

    fn attach(&mut self, at: &mut At<'_>, out: &mut Out) {
        let nonce = u64::from_le_bytes(at.entropy.bytes());
        self.link = Link::Opening { nonce };
        self.requests = 0;
        self.send_attach(nonce, out);
    }

    fn send_attach(&self, nonce: u64, out: &mut Out) {
        let unsettled = self
            .unsettled
            .front()
            .or(self.held.as_ref())
            .map(|held| held.number);
        out.push(SenderOutput::Send(ToHost::Attach { nonce, unsettled }));
    }

    fn send_request(&mut self, attachment: u64, out: &mut Out) {
        if let Some(wish) = self.wish.as_mut().filter(|wish| wish.request.is_none()) {
            self.requests = self.requests.saturating_add(1);
            wish.request = Some(self.requests);
            out.extend(wish.message(attachment));
        }
    }

    fn send_order(&mut self, challenge: [u8; 16], at: &At<'_>, out: &mut Out) {
        let known = self.status.as_ref().map(|status| status.number);
        let Some(order) = self.order.as_mut().filter(|order| order.signed.is_none()) else {
            return;
        };
        let Some(number) = order.number.or(known) else {
            return;
        };
        order.number = Some(number);
        let text = Order {
            session: self.place.session,
            terminal: self.place.terminal,
            challenge,
            number,
            action: order.action,
        };
        let signed = text.sign(at.key);
        order.signed = Some(signed.clone());
        out.push(SenderOutput::Send(ToHost::Order(signed)));
    }

    fn send_release(&mut self, out: &mut Out) {
        let Some(held) = &self.held else { return };
        let due = match self.releasing {
            Some(Releasing::OnceTaken) => held.bytes.is_empty(),
            Some(Releasing::Now) => true,
            None => false,
        };
        if due {
            out.push(SenderOutput::Send(ToHost::Release {
                number: held.number,
            }));
            self.set_aside(out);
        }
    }

    fn tick(&mut self, at: &At<'_>, out: &mut Out) {
        let Some((due, wait)) = self.retry.filter(|(due, _)| at.now >= *due && self.up) else {
            return;
        };
        let wait = wait.saturating_mul(2).min(INPUT_RETRY_MS_MAX);
        self.retry = Some((due.max(at.now) + Duration::from_millis(wait), wait));
        match self.link {
            Link::Closed => {}
            Link::Opening { nonce } => self.send_attach(nonce, out),
            Link::Open { attachment, .. } => self.repeat(attachment, out),
        }
    }

    /// Says again what has not been answered. A former lease's account is asked for by releasing it again.
    fn repeat(&mut self, attachment: u64, out: &mut Out) {
        out.extend(self.wish.as_ref().and_then(|wish| wish.message(attachment)));
        if let Some(signed) = self.order.as_ref().and_then(|order| order.signed.clone()) {
            out.push(SenderOutput::Send(ToHost::Order(signed)));
        }
        if let Some(held) = self.held.as_mut().filter(|held| !held.bytes.is_empty()) {
            held.repeat(attachment, out);
        }
        for held in &self.unsettled {
            out.push(SenderOutput::Send(ToHost::Release {
                number: held.number,
            }));
        }
    }

    /// Something went well: the next wait is a short one again.
    fn reset_retry(&mut self) {
        self.retry = None;
    }
}

impl Wish {
    fn message(&self, attachment: u64) -> Option<SenderOutput> {
        let (first_key, duration_s) = (self.first_key, self.duration_s);
        let request = self.request?;
        Some(SenderOutput::Send(ToHost::Request {
            attachment,
            request,
            first_key,
            duration_s,
        }))
    }
}

impl Held {
    fn new(number: u64) -> Self {
        Self {
            number,
            base: None,
            bytes: VecDeque::new(),
            taken: 0,
            accepted: 0,
            sent: 0,
            sent_max: 0,
            frames: VecDeque::new(),
            verbs: VecDeque::new(),
        }
    }

    /// One past the last byte typed.
    fn end(&self) -> u64 {
        self.taken.saturating_add(self.bytes.len() as u64)
    }

    fn append(&mut self, verb: Option<u64>, bytes: &[u8], out: &mut Out) {
        let start = self.end();
        self.bytes.extend(bytes);
        match verb {
            Some(verb) if bytes.is_empty() => out.push(typed(verb, TypeResult::Taken)),
            Some(verb) => self.verbs.push_back(Verb {
                verb,
                start,
                end: self.end(),
            }),
            None => {}
        }
    }

    /// Sends what fits the window.
    fn pump(&mut self, attachment: u64, out: &mut Out) {
        while self.base.is_some()
            && self.sent < self.end()
            && self.frames.len() < INPUT_WINDOW_FRAMES_MAX
        {
            out.extend(self.frame(attachment));
            self.sent_max = self.sent_max.max(self.sent);
            self.frames.push_back(self.sent);
        }
    }

    /// The next frame; without bytes when all is sent.
    fn frame(&mut self, attachment: u64) -> Option<SenderOutput> {
        let seq = self.base?.saturating_add(self.sent);
        let skip = usize::try_from(self.sent.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = self
            .bytes
            .iter()
            .skip(skip)
            .take(INPUT_FRAME_BYTES_MAX)
            .copied()
            .collect();
        self.sent = self.sent.saturating_add(bytes.len() as u64);
        let (number, bytes) = (self.number, Keys::new(bytes)?);
        Some(SenderOutput::Send(ToHost::Input {
            number,
            attachment,
            seq,
            bytes,
        }))
    }

    /// Begins again at the first byte that the host has not accepted.
    fn go_back(&mut self) {
        self.sent = self.accepted;
        self.frames.retain(|end| *end <= self.accepted);
    }

    fn repeat(&mut self, attachment: u64, out: &mut Out) {
        self.go_back();
        if self.sent < self.end() && self.frames.len() < INPUT_WINDOW_FRAMES_MAX {
            self.pump(attachment, out);
        } else if self.base.is_some() {
            out.extend(self.frame(attachment));
        }
    }

    /// The host has accepted up to `next` and the PTY has taken `taken`; what cannot be is cut to what can.
    /// Says whether that is news.
    fn advance(&mut self, next: u64, taken: u64, out: &mut Out) -> bool {
        let Some(base) = self.base else { return false };
        let accepted = next
            .saturating_sub(base)
            .clamp(self.accepted, self.sent_max);
        let taken = taken
            .saturating_sub(base)
            .clamp(self.taken, accepted.max(self.taken));
        let news = accepted > self.accepted || taken > self.taken;
        self.accepted = accepted;
        self.sent = self.sent.max(accepted);
        let count = usize::try_from(taken.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        self.bytes.drain(..count.min(self.bytes.len()));
        self.taken = taken;
        self.frames.retain(|end| *end > taken);
        while self.verbs.front().is_some_and(|verb| verb.end <= taken) {
            out.extend(
                self.verbs
                    .pop_front()
                    .map(|verb| typed(verb.verb, TypeResult::Taken)),
            );
        }
        news
    }

    /// Closes the account: the PTY has taken `written` bytes of the lease, or nobody knows how many.
    fn close(mut self, reason: EndReason, written: Option<u64>, out: &mut Out) {
        let known = written.map(|written| {
            let own = self.base.map_or(0, |base| written.saturating_sub(base));
            own.clamp(self.taken, self.sent_max.max(self.taken))
        });
        if let (Some(known), Some(base)) = (known, self.base) {
            let absolute = base.saturating_add(known);
            self.advance(absolute, absolute, out);
        }
        let verbs = std::mem::take(&mut self.verbs);
        for Verb { verb, start, end } in verbs {
            let (account, reason) = (self.account(start, end, known), reason.clone());
            out.push(typed(verb, TypeResult::Cut { account, reason }));
        }
        let account = self.account(0, self.end(), known);
        out.push(event(SenderEvent::Ended {
            number: self.number,
            reason,
            account,
        }));
    }

    /// What became of the bytes from `start` to `end`, if the PTY took those before `known`.
    fn account(&self, start: u64, end: u64, known: Option<u64>) -> Account {
        let upto = |limit: u64| limit.clamp(start, end) - start;
        let written = upto(known.unwrap_or(self.taken));
        let sent = upto(known.unwrap_or(self.sent_max));
        Account {
            written,
            unknown: sent - written,
            not_written: (end - start) - sent,
        }
    }
}

fn refuse(verb: Option<u64>, reason: &Refusal, out: &mut Out) {
    out.push(match verb {
        Some(verb) => typed(verb, TypeResult::Refused(reason.clone())),
        None => event(SenderEvent::Refused(reason.clone())),
    });
}

fn typed(verb: u64, result: TypeResult) -> SenderOutput {
    event(SenderEvent::Typed { verb, result })
}

fn event(event: SenderEvent) -> SenderOutput {
    SenderOutput::Event(event)
}
