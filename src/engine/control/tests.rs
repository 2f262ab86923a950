//! Host and senders together, over links that lose, double and overtake, and a PTY that takes its time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::limits::{LEASE_AUTO_S, LEASE_DEFAULT_S};

const AUTO: HostSettings = settings(true, true);
const ASK: HostSettings = settings(false, true);
const GUESTS: HostSettings = settings(false, false);

const fn settings(auto: bool, own: bool) -> HostSettings {
    HostSettings {
        auto,
        own,
        #[cfg(feature = "sim")]
        planted: PlantedBugs {
            ignore_lease_number: false,
            drop_dedup: false,
            two_controllers: false,
        },
    }
}

/// Everybody watches; 1 and 2 edit; 2 decides who has control.
struct Roles {
    ids: Vec<MemberId>,
    gone: Vec<MemberId>,
}

impl Roles {
    fn at_least(&self, who: &MemberId, index: usize) -> bool {
        !self.gone.contains(who)
            && self
                .ids
                .iter()
                .position(|id| id == who)
                .is_some_and(|i| i >= index)
    }
}

impl Members for Roles {
    fn may_watch(&self, who: &MemberId) -> bool {
        self.at_least(who, 0)
    }
    fn may_edit(&self, who: &MemberId) -> bool {
        self.at_least(who, 1)
    }
    fn may_control(&self, who: &MemberId) -> bool {
        self.at_least(who, 2)
    }
    fn is_owner(&self, _: &MemberId) -> bool {
        false
    }
    fn is_connected(&self, who: &MemberId) -> bool {
        self.at_least(who, 0)
    }
}

#[derive(Debug, Clone)]
enum Delivery {
    ToHost { from: usize, bytes: Vec<u8> },
    FromHost { to: usize, bytes: Vec<u8> },
    Withdrawn(u64),
    PtyTakes,
    Written(u64),
}

/// What one process typed under one lease.
#[derive(Debug, Default)]
struct Typed {
    base: Option<u64>,
    bytes: Vec<u8>,
    account: Option<Account>,
}

struct Node {
    key: MemberKey,
    sender: InputSender,
    /// By lease number.
    typed: BTreeMap<u64, Typed>,
    /// Typed before it was known whether a lease lives.
    early: Vec<u8>,
    events: Vec<SenderEvent>,
}

struct World {
    now: Mono,
    dice: Entropy,
    entropy: Entropy,
    loss_percent: u32,
    pty_is_stuck: bool,
    place: Place,
    host_key: MemberKey,
    host: LeaseHost,
    host_events: Vec<HostEvent>,
    prompts: Vec<Prompt>,
    roles: Roles,
    nodes: Vec<Node>,
    queue: BTreeMap<(u64, u64), Delivery>,
    count: u64,
    adapter: VecDeque<(u8, Origin)>,
    tap: Vec<(u8, Origin)>,
    /// Of processes that were killed, with their lease's number.
    dead: Vec<(u64, Typed)>,
    /// Where the tap stood when the host's person took control, and the lease that ended.
    take_overs: Vec<u64>,
}

impl Node {
    fn note(&mut self, event: SenderEvent) {
        match &event {
            SenderEvent::Ended {
                number, account, ..
            } => {
                let typed = self.typed.entry(*number).or_default();
                assert_eq!(
                    typed.account.replace(*account),
                    None,
                    "an account is closed once"
                );
            }
            SenderEvent::Granted { number, .. } => {
                let early = std::mem::take(&mut self.early);
                self.typed.entry(*number).or_default().bytes.extend(early);
            }
            SenderEvent::Refused(_) => self.early.clear(),
            SenderEvent::Changed
            | SenderEvent::Recorded
            | SenderEvent::Denied(_)
            | SenderEvent::Ordered(_)
            | SenderEvent::Typed { .. } => {}
        }
        self.events.push(event);
    }
}

impl World {
    fn new(seed: u64, loss_percent: u32, settings: HostSettings) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut entropy = Entropy::new(bytes);
        let host_key = MemberKey::generate(&mut entropy);
        let keys: Vec<_> = (0..3).map(|_| MemberKey::generate(&mut entropy)).collect();
        let place = Place {
            session: SessionId([1; 32]),
            terminal: TerminalId([2; 16]),
            host: host_key.id(),
        };
        let ids = keys.iter().map(MemberKey::id).collect();
        let node = |key: MemberKey| {
            let sender = InputSender::new(place, key.id());
            Node {
                sender,
                key,
                typed: BTreeMap::new(),
                early: Vec::new(),
                events: Vec::new(),
            }
        };
        let mut world = Self {
            now: Mono(0),
            dice: Entropy::new(entropy.bytes()),
            entropy,
            loss_percent,
            pty_is_stuck: false,
            place,
            host_key,
            host: LeaseHost::new(place, settings),
            host_events: Vec::new(),
            prompts: Vec::new(),
            roles: Roles {
                ids,
                gone: Vec::new(),
            },
            nodes: keys.into_iter().map(node).collect(),
            queue: BTreeMap::new(),
            count: 0,
            adapter: VecDeque::new(),
            tap: Vec::new(),
            dead: Vec::new(),
            take_overs: Vec::new(),
        };
        (0..3).for_each(|who| world.member(who, SenderInput::Up));
        world
    }

    fn id(&self, who: usize) -> MemberId {
        self.roles.ids[who]
    }

    fn schedule(&mut self, delay_micros: u64, delivery: Delivery) {
        self.count += 1;
        self.queue
            .insert((self.now.0 + delay_micros, self.count), delivery);
    }

    /// Puts a message on the link: lost, once or twice, each at its own time.
    fn transmit(&mut self, delivery: &Delivery) {
        let copies = if self.dice.below(100) < self.loss_percent {
            self.dice.below(2) * 2
        } else {
            1
        };
        for _ in 0..copies {
            let spread = if self.loss_percent == 0 { 1 } else { 40_000 };
            let delay = 1000 + u64::from(self.dice.below(spread));
            self.schedule(delay, delivery.clone());
        }
    }

    fn member(&mut self, who: usize, input: SenderInput) {
        let node = &mut self.nodes[who];
        let mut at = At {
            now: self.now,
            entropy: &mut self.entropy,
            key: &node.key,
            members: &self.roles,
        };
        let mut out = Vec::new();
        node.sender.handle(input, &mut at, &mut out);
        for output in out {
            match output {
                SenderOutput::Send(body) => {
                    if let ToHost::Input { number, seq, .. } = &body {
                        let typed = self.nodes[who].typed.entry(*number).or_default();
                        typed.base.get_or_insert(*seq);
                    }
                    let bytes = InputMessage {
                        terminal: self.place.terminal,
                        body,
                    }
                    .encode();
                    self.transmit(&Delivery::ToHost { from: who, bytes });
                }
                SenderOutput::Event(event) => self.nodes[who].note(event),
            }
        }
    }

    fn host<T>(
        &mut self,
        act: impl FnOnce(&mut LeaseHost, &mut At<'_>, &mut Vec<HostOutput>) -> T,
    ) -> T {
        let mut at = At {
            now: self.now,
            entropy: &mut self.entropy,
            key: &self.host_key,
            members: &self.roles,
        };
        let mut out = Vec::new();
        let result = act(&mut self.host, &mut at, &mut out);
        out.into_iter().for_each(|output| self.perform(output));
        result
    }

    fn perform(&mut self, output: HostOutput) {
        match output {
            HostOutput::Send { to, body } => self.send_from_host(to, body),
            HostOutput::Announce(status) => {
                for to in self.roles.ids.clone() {
                    self.send_from_host(to, FromHost::Status(status.clone()));
                }
            }
            HostOutput::WritePty(input) => {
                let origin = input.origin();
                self.adapter
                    .extend(input.into_inner().into_iter().map(|byte| (byte, origin)));
                self.schedule(50, Delivery::PtyTakes);
            }
            HostOutput::DropPtyQueue => {
                self.adapter.clear();
                self.schedule(20, Delivery::Withdrawn(self.tap.len() as u64));
            }
            HostOutput::Prompt(prompt) => self.prompts.push(prompt),
            HostOutput::PromptGone(prompt) => self.prompts.retain(|open| *open != prompt),
            HostOutput::Event(event) => self.host_events.push(event),
        }
    }

    fn send_from_host(&mut self, to: MemberId, body: FromHost) {
        let bytes = ControlMessage {
            terminal: self.place.terminal,
            body,
        }
        .encode();
        let to = self.roles.ids.iter().position(|id| *id == to).unwrap();
        self.transmit(&Delivery::FromHost { to, bytes });
    }

    fn person(&mut self, act: Person) -> Result<(), Refusal> {
        if matches!(act, Person::Key { .. } | Person::Take) && self.host.holder().is_some() {
            self.take_overs.push(self.host.status(self.now).number);
        }
        self.host(|host, at, out| host.person(act, at, out))
    }

    fn person_types(&mut self, text: &str) {
        self.person(Person::Key {
            verb: None,
            bytes: text.into(),
        })
        .unwrap();
    }

    /// Types, and notes under which lease.
    fn types(&mut self, who: usize, bytes: &[u8]) {
        let node = &mut self.nodes[who];
        let held = node.sender.held(self.now).map(|(number, _)| number);
        match held {
            Some(number) => node.typed.entry(number).or_default().bytes.extend(bytes),
            None => node.early.extend(bytes),
        }
        let before = node.events.len();
        self.member(
            who,
            SenderInput::Type {
                verb: None,
                bytes: bytes.to_vec(),
            },
        );
        let node = &mut self.nodes[who];
        let refused = node.events[before..]
            .iter()
            .any(|event| matches!(event, SenderEvent::Refused(_)));
        if let Some(typed) = held
            .filter(|_| refused)
            .and_then(|number| node.typed.get_mut(&number))
        {
            typed.bytes.truncate(typed.bytes.len() - bytes.len());
        }
    }

    /// The process dies and another begins with nothing remembered.
    fn restart(&mut self, who: usize) {
        let id = self.id(who);
        self.host(|host, at, out| host.handle(HostInput::Disconnected(id), at, out));
        let node = &mut self.nodes[who];
        node.sender = InputSender::new(self.place, node.key.id());
        self.dead.extend(std::mem::take(&mut node.typed));
        node.early.clear();
        self.member(who, SenderInput::Up);
        // The new process learns of its lease as every member learns of control: from the host, on connecting.
        let status = self.host.status(self.now);
        self.send_from_host(id, FromHost::Status(status));
    }

    fn cut(&mut self, who: usize) {
        self.member(who, SenderInput::Down);
        self.member(who, SenderInput::Up);
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::ToHost { from, bytes } => {
                let from = self.id(from);
                let body = InputMessage::decode(&bytes).unwrap().body;
                self.host(|host, at, out| host.handle(HostInput::Message { from, body }, at, out));
            }
            Delivery::FromHost { to, bytes } => {
                let body = ControlMessage::decode(&bytes).unwrap().body;
                self.member(to, SenderInput::Message(body));
            }
            Delivery::Written(total) => {
                self.host(|host, at, out| host.handle(HostInput::PtyWritten(total), at, out));
            }
            Delivery::Withdrawn(total) => {
                self.host(|host, at, out| host.handle(HostInput::PtyWithdrawn(total), at, out));
            }
            Delivery::PtyTakes if self.adapter.is_empty() || self.pty_is_stuck => {}
            Delivery::PtyTakes => {
                let count = 1 + self.dice.below(5000) as usize;
                let count = count.min(self.adapter.len());
                self.tap.extend(self.adapter.drain(..count));
                self.schedule(30, Delivery::Written(self.tap.len() as u64));
                self.schedule(100, Delivery::PtyTakes);
            }
        }
    }

    /// Lets time pass, with everything that happens in it.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next_message = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.iter().filter_map(|node| node.sender.deadline());
            let next_timer = timers.chain(self.host.deadline()).map(|(at, _)| at.0).min();
            let Some(next) = [next_message, next_timer].into_iter().flatten().min() else {
                break;
            };
            if next > until.0 {
                break;
            }
            self.now = self.now.max(Mono(next));
            if next_message == Some(next) {
                let (_, delivery) = self.queue.pop_first().unwrap();
                self.deliver(delivery);
            } else {
                self.tick();
            }
        }
        self.now = until;
    }

    fn tick(&mut self) {
        for who in 0..self.nodes.len() {
            if self.nodes[who]
                .sender
                .deadline()
                .is_some_and(|(due, _)| due <= self.now)
            {
                self.member(who, SenderInput::Tick);
            }
        }
        if self.host.deadline().is_some_and(|(due, _)| due <= self.now) {
            self.host(|host, at, out| host.handle(HostInput::Tick, at, out));
        }
    }

    fn second(&mut self) {
        self.run(Duration::from_secs(1));
    }

    fn taps(&self) -> String {
        self.tap.iter().map(|(byte, _)| char::from(*byte)).collect()
    }

    fn of_lease(&self, number: u64) -> Vec<u8> {
        let of_lease = |(_, origin): &&(u8, Origin)| *origin == Origin::Lease { number };
        self.tap
            .iter()
            .filter(of_lease)
            .map(|(byte, _)| *byte)
            .collect()
    }

    fn give_control(&mut self, who: usize) {
        self.member(who, SenderInput::Request { duration_s: None });
        self.second();
        self.person(Person::Grant {
            to: self.id(who),
            duration_s: None,
        })
        .unwrap();
        self.second();
        assert!(self.nodes[who].sender.held(self.now).is_some());
    }

    /// The naive model: what each process typed under a lease stands on the PTY from where it began, as a
    /// prefix, and the accounts say how long a prefix.
    fn check(&self) {
        let living = self.nodes.iter().flat_map(|node| &node.typed);
        let all: Vec<_> = self
            .dead
            .iter()
            .map(|(number, typed)| (number, typed))
            .chain(living)
            .collect();
        for (index, (number, typed)) in all.iter().enumerate() {
            let Some(base) = typed.base else { continue };
            let written = self.of_lease(**number);
            let successor = all[index + 1..]
                .iter()
                .find(|(n, t)| n == number && t.base.is_some());
            let end = successor
                .and_then(|(_, t)| t.base)
                .unwrap_or(written.len() as u64);
            let own =
                &written[(base as usize).min(written.len())..(end as usize).min(written.len())];
            assert!(
                typed.bytes.starts_with(own),
                "lease {number}: bytes are a prefix of what was typed"
            );
            if let Some(account) = typed.account {
                assert_eq!(
                    account.written,
                    own.len() as u64,
                    "lease {number}: the account is true"
                );
                assert_eq!(account.unknown, 0);
                let sum = account.written + account.not_written;
                assert_eq!(
                    sum,
                    typed.bytes.len() as u64,
                    "lease {number}: the account is whole"
                );
            }
        }
        let leases: Vec<u64> = self
            .tap
            .iter()
            .filter_map(|(_, origin)| match origin {
                Origin::Lease { number } => Some(*number),
                Origin::Person { .. } | Origin::Closing { .. } | Origin::Answer => None,
            })
            .collect();
        assert!(
            leases.is_sorted(),
            "an ended lease writes nothing after a later one has begun"
        );
        self.check_take_overs();
    }

    fn check_take_overs(&self) {
        for number in &self.take_overs {
            let after_person = self
                .tap
                .iter()
                .rposition(|(_, origin)| *origin == Origin::Lease { number: *number })
                .map_or(0, |last| last + 1);
            let events = &self.host_events;
            let ended = |event: &HostEvent| {
                matches!(event, HostEvent::Settled { number: n, written, .. }
                    if n == number && *written == self.of_lease(*number).len() as u64)
            };
            assert!(
                events.iter().any(ended),
                "lease {number}: nothing came after its account"
            );
            assert!(after_person <= self.tap.len());
        }
    }
}

#[test]
fn who_asks_and_is_granted_types() {
    let mut world = World::new(1, 0, ASK);

    world.give_control(0);
    world.types(0, b"ls\r");
    world.second();

    assert_eq!(world.taps(), "ls\r");
    assert!(world.nodes[0].events.contains(&SenderEvent::Recorded));
    assert!(
        world
            .host_events
            .contains(&HostEvent::Requested { who: world.id(0) })
    );
    assert_eq!(world.prompts, []);
    world.check();
}

#[test]
fn typing_without_the_lease_is_refused_and_changes_nothing() {
    let mut world = World::new(2, 0, ASK);

    world.types(0, b"rm -rf /\r");
    world.member(
        0,
        SenderInput::Type {
            verb: Some(9),
            bytes: b"x".to_vec(),
        },
    );
    world.second();

    assert_eq!(world.taps(), "");
    let events = &world.nodes[0].events;
    assert!(events.contains(&SenderEvent::Refused(Refusal::NotHeld)));
    let result = TypeResult::Refused(Refusal::NotHeld);
    assert!(events.contains(&SenderEvent::Typed { verb: 9, result }));
}

#[test]
fn a_frame_forged_without_the_lease_is_refused_visibly() {
    let mut world = World::new(3, 0, ASK);
    world.give_control(0);
    let bytes = Keys::new(b"evil".to_vec()).unwrap();
    let forged = ToHost::Input {
        number: 1,
        attachment: 1,
        seq: 0,
        bytes,
    };

    let (from, bytes) = (
        1,
        InputMessage {
            terminal: world.place.terminal,
            body: forged,
        }
        .encode(),
    );
    world.deliver(Delivery::ToHost { from, bytes });
    world.second();

    assert_eq!(world.taps(), "");
}

#[test]
fn with_auto_an_editors_first_key_waits_for_its_grant_and_is_written() {
    let mut world = World::new(4, 0, AUTO);

    world.member(
        1,
        SenderInput::Type {
            verb: Some(1),
            bytes: b"a".to_vec(),
        },
    );
    world.member(
        1,
        SenderInput::Type {
            verb: Some(2),
            bytes: b"b".to_vec(),
        },
    );
    world.second();

    assert_eq!(world.taps(), "ab");
    assert_eq!(world.host.holder(), Some(world.id(1)));
    let taken = SenderEvent::Typed {
        verb: 2,
        result: TypeResult::Taken,
    };
    assert!(world.nodes[1].events.contains(&taken));
}

#[test]
fn with_auto_a_viewers_key_is_refused() {
    let mut world = World::new(5, 0, AUTO);

    world.types(0, b"a");
    world.second();

    assert_eq!(world.taps(), "");
    let reason = Refusal::Denied(Denial::NotPermitted);
    assert!(
        world.nodes[0]
            .events
            .contains(&SenderEvent::Refused(reason))
    );
}

#[test]
fn the_way_control_is_given_may_change_while_the_terminal_runs() {
    let mut world = World::new(35, 0, ASK);
    world.host(|host, at, out| host.handle(HostInput::Auto(true), at, out));
    world.second();
    world.types(1, b"now");
    world.second();
    assert_eq!(world.taps(), "now");
    world.person(Person::Take).unwrap();

    world.host(|host, at, out| host.handle(HostInput::Auto(false), at, out));
    world.run(Duration::from_secs(3));
    world.types(1, b"no longer");
    world.second();

    assert_eq!(world.taps(), "now");
}

#[test]
fn a_key_of_the_hosts_person_takes_control_and_is_then_applied() {
    let mut world = World::new(6, 0, ASK);
    world.give_control(0);
    world.pty_is_stuck = true;
    world.types(0, b"guest\x1b[");
    world.run(Duration::from_millis(10));

    world.person_types("H");
    world.pty_is_stuck = false;
    world.second();
    world.types(0, b"late");
    world.second();

    assert_eq!(world.taps(), "H", "what the PTY had not taken is withdrawn");
    let by = world.place.host;
    let account = Account {
        written: 0,
        not_written: 7,
        unknown: 0,
    };
    let ended = SenderEvent::Ended {
        number: 1,
        reason: EndReason::Taken { by },
        account,
    };
    assert!(world.nodes[0].events.contains(&ended));
    assert!(
        world.nodes[0]
            .events
            .contains(&SenderEvent::Refused(Refusal::NotHeld))
    );
    world.check();
}

#[test]
fn what_a_cut_leaves_open_is_closed_before_the_next_key() {
    let mut world = World::new(7, 0, ASK);
    world.give_control(0);
    world.types(0, b"\x1b[200~pasted");
    world.second();

    world.person_types("H");
    world.second();

    assert_eq!(world.taps(), "\x1b[200~pasted\x1b[201~H");
}

#[test]
fn a_lease_ends_by_its_time_and_not_before() {
    let mut world = World::new(8, 0, ASK);
    let to = world.id(0);
    world
        .person(Person::Grant {
            to,
            duration_s: Some(5),
        })
        .unwrap();

    world.run(Duration::from_millis(4999));
    assert_eq!(world.host.holder(), Some(to));
    world.second();

    assert_eq!(world.host.holder(), None);
    let expired = |event: &SenderEvent| {
        matches!(
            event,
            SenderEvent::Ended {
                reason: EndReason::Expired,
                ..
            }
        )
    };
    assert!(world.nodes[0].events.iter().any(expired));
}

#[test]
fn keys_that_come_after_the_leases_time_are_refused_even_before_the_timer_fires() {
    let mut world = World::new(9, 0, ASK);
    let to = world.id(0);
    world
        .person(Person::Grant {
            to,
            duration_s: Some(1),
        })
        .unwrap();
    world.run(Duration::from_millis(500));
    world.types(0, b"x");

    let (_, delivery) = world.queue.pop_first().unwrap();
    world.now = Mono(1_000_000);
    world.deliver(delivery);
    world.second();

    assert_eq!(world.taps(), "");
    world.check();
}

#[test]
fn a_release_waits_until_what_was_typed_is_taken() {
    let mut world = World::new(10, 0, ASK);
    world.give_control(0);

    world.types(0, b"exit\r");
    world.member(0, SenderInput::Release);
    world.second();

    assert_eq!(world.taps(), "exit\r");
    assert_eq!(world.host.holder(), None);
    let account = Account {
        written: 5,
        not_written: 0,
        unknown: 0,
    };
    let ended = SenderEvent::Ended {
        number: 1,
        reason: EndReason::Released,
        account,
    };
    assert!(world.nodes[0].events.contains(&ended));
}

#[test]
fn questions_stand_in_the_order_in_which_they_came() {
    for first in 0..3 {
        let mut world = World::new(10, 0, ASK);
        let order = [first, (first + 1) % 3, (first + 2) % 3];
        for who in order {
            world.member(who, SenderInput::Request { duration_s: None });
            world.second();
        }
        let asked = world.host.view(world.now).prompts;
        let asked: Vec<_> = asked.iter().map(|prompt| prompt.who).collect();
        assert_eq!(asked, order.map(|who| world.id(who)));
    }
}

#[test]
fn who_asks_gets_no_longer_lease_than_is_usual_unless_the_person_says_so() {
    let day = Some(24 * 3600);
    let mut world = World::new(10, 0, AUTO);
    world.member(1, SenderInput::Request { duration_s: day });
    world.second();
    let left = world.nodes[1].sender.held(world.now).unwrap().1;
    assert!(left <= Duration::from_secs(LEASE_AUTO_S.into()), "{left:?}");

    for (said, most) in [(None, LEASE_DEFAULT_S), (Some(7200), 7200)] {
        let mut world = World::new(10, 0, ASK);
        world.member(0, SenderInput::Request { duration_s: day });
        world.second();
        let to = world.id(0);
        world
            .person(Person::Grant {
                to,
                duration_s: said,
            })
            .unwrap();
        world.second();
        let left = world.nodes[0].sender.held(world.now).unwrap().1;
        let most = Duration::from_secs(most.into());
        assert!(
            left <= most && left + Duration::from_secs(5) > most,
            "{left:?}"
        );
    }
}

#[test]
fn a_request_may_be_denied_withdrawn_or_left_unanswered() {
    let mut world = World::new(11, 0, ASK);
    for who in 0..3 {
        world.member(
            who,
            SenderInput::Request {
                duration_s: Some(60),
            },
        );
    }
    world.second();
    assert_eq!(world.prompts.len(), 3);

    world.person(Person::Deny { who: world.id(0) }).unwrap();
    world.member(1, SenderInput::Release);
    world.run(Duration::from_secs(121));

    assert_eq!(world.prompts, []);
    assert!(
        world.nodes[0]
            .events
            .contains(&SenderEvent::Denied(Denial::Person))
    );
    assert!(
        world.nodes[2]
            .events
            .contains(&SenderEvent::Denied(Denial::Unanswered))
    );
    assert_eq!(world.host.holder(), None);
}

#[test]
fn a_holder_that_restarted_goes_on_where_it_was() {
    let mut world = World::new(12, 0, ASK);
    world.give_control(0);
    world.types(0, b"abc");
    world.second();

    world.restart(0);
    world.second();
    world.types(0, b"def");
    world.second();

    assert_eq!(world.taps(), "abcdef");
    world.check();
}

#[test]
fn what_a_dead_process_had_on_its_way_is_void_once_its_successor_has_attached() {
    let mut world = World::new(13, 0, ASK);
    world.give_control(0);
    world.types(0, b"ghost");
    let ghosts: Vec<_> = std::mem::take(&mut world.queue).into_values().collect();

    world.restart(0);
    world.second();
    for ghost in ghosts {
        world.deliver(ghost);
    }
    world.types(0, b"new");
    world.second();

    assert_eq!(world.taps(), "new");
}

#[test]
fn a_holder_whose_connection_stays_away_loses_the_lease_after_ten_seconds() {
    let mut world = World::new(14, 0, ASK);
    world.give_control(0);
    let id = world.id(0);

    world.member(0, SenderInput::Down);
    world.host(|host, at, out| host.handle(HostInput::Disconnected(id), at, out));
    world.run(Duration::from_secs(9));
    assert_eq!(world.host.holder(), Some(id));
    world.run(Duration::from_secs(2));

    assert_eq!(world.host.holder(), None);
}

#[test]
fn what_is_typed_during_a_cut_is_written_once_after_it() {
    let mut world = World::new(15, 0, ASK);
    world.give_control(0);
    world.types(0, b"one ");
    world.member(0, SenderInput::Down);
    world.types(0, b"two ");

    world.second();
    world.member(0, SenderInput::Up);
    world.types(0, b"three");
    world.second();

    assert_eq!(world.taps(), "one two three");
    world.check();
}

#[test]
fn who_loses_the_host_is_told_which_keys_nobody_knows_of() {
    let mut world = World::new(16, 0, ASK);
    world.give_control(0);
    world.types(0, b"known ");
    world.second();
    world.types(0, b"sent ");
    world.member(0, SenderInput::Down);
    world.types(0, b"kept");

    world.member(0, SenderInput::Gone);

    let account = Account {
        written: 6,
        not_written: 4,
        unknown: 5,
    };
    let ended = SenderEvent::Ended {
        number: 1,
        reason: EndReason::Closed,
        account,
    };
    assert!(world.nodes[0].events.contains(&ended));
}

#[test]
fn a_paste_larger_than_the_window_arrives_whole_and_at_the_hosts_rate() {
    let mut world = World::new(17, 0, ASK);
    world.give_control(0);
    let paste: Vec<u8> = (0..600_000_u32)
        .map(|n| b'a' + u8::try_from(n % 23).unwrap())
        .collect();

    world.types(0, &paste);
    world.second();
    assert!(world.tap.len() < 400_000, "the rate holds it back");
    world.run(Duration::from_secs(10));

    assert_eq!(world.of_lease(1), paste);
}

#[test]
fn orders_of_who_may_decide_are_obeyed_on_the_owners_terminal() {
    let mut world = World::new(18, 0, ASK);
    let to = world.id(0);

    world.member(
        2,
        SenderInput::Order(Action::Grant {
            to,
            duration_s: None,
        }),
    );
    world.second();
    assert_eq!(world.host.holder(), Some(to));
    world.member(
        2,
        SenderInput::Order(Action::Take {
            duration_s: Some(60),
        }),
    );
    world.second();
    assert_eq!(world.host.holder(), Some(world.id(2)));
    world.member(2, SenderInput::Order(Action::Lock));
    world.second();

    assert_eq!(world.host.holder(), None);
    assert_eq!(
        world.person(Person::Grant {
            to,
            duration_s: None
        }),
        { Err(Refusal::Locked { by: world.id(2) }) }
    );
    assert_eq!(
        world.nodes[2].events.last(),
        Some(&SenderEvent::Ordered(OrderOutcome::Done))
    );
}

#[test]
fn an_order_of_who_may_not_decide_has_no_effect() {
    let mut world = World::new(19, 0, ASK);

    world.member(1, SenderInput::Order(Action::Take { duration_s: None }));
    world.second();

    assert_eq!(world.host.holder(), None);
    let refused = OrderOutcome::Refused(Refusal::NotPermitted);
    assert!(
        world.nodes[1]
            .events
            .contains(&SenderEvent::Ordered(refused))
    );
}

#[test]
fn elsewhere_a_take_waits_for_the_hosts_person_and_a_lock_does_not() {
    let mut world = World::new(20, 0, GUESTS);
    world.member(2, SenderInput::Order(Action::Take { duration_s: None }));
    world.second();
    assert_eq!(world.host.holder(), None);
    assert_eq!(world.prompts.len(), 1);

    world
        .person(Person::Agree {
            who: world.id(2),
            always: true,
        })
        .unwrap();
    world.second();
    assert_eq!(world.host.holder(), Some(world.id(2)));
    world.member(2, SenderInput::Order(Action::Revoke));
    world.second();
    world.member(2, SenderInput::Order(Action::Take { duration_s: None }));
    world.second();
    assert_eq!(
        world.host.holder(),
        Some(world.id(2)),
        "it was agreed to for later, too"
    );
    world.member(2, SenderInput::Order(Action::Lock));
    world.second();

    assert_eq!(world.host.holder(), None);
}

#[test]
fn an_order_made_for_an_older_lease_is_refused_visibly() {
    let mut world = World::new(21, 0, GUESTS);
    world.member(2, SenderInput::Order(Action::Take { duration_s: None }));
    world.second();
    world
        .person(Person::Grant {
            to: world.id(0),
            duration_s: None,
        })
        .unwrap();

    let result = world.person(Person::Agree {
        who: world.id(2),
        always: false,
    });
    world.second();

    assert_eq!(result, Err(Refusal::Stale { number: 1 }));
    assert_eq!(world.host.holder(), Some(world.id(0)));
    let stale = OrderOutcome::Refused(Refusal::Stale { number: 1 });
    assert!(world.nodes[2].events.contains(&SenderEvent::Ordered(stale)));
}

#[test]
fn an_order_works_once_and_for_its_signer_and_terminal_only() {
    let mut world = World::new(22, 0, ASK);
    world.member(2, SenderInput::Order(Action::Lock));
    world.run(Duration::from_micros(1500));
    let mut attached = None;
    while let Some((_, delivery)) = world.queue.pop_first() {
        world.now = Mono(world.now.0 + 1000);
        if let Delivery::ToHost { bytes, .. } = &delivery {
            attached = Some(bytes.clone());
        }
        world.deliver(delivery);
    }
    let replayed = attached.unwrap();
    assert!(matches!(
        InputMessage::decode(&replayed).unwrap().body,
        ToHost::Order(_)
    ));
    world.person(Person::Unlock).unwrap();

    world.deliver(Delivery::ToHost {
        from: 2,
        bytes: replayed.clone(),
    });
    world.member(1, SenderInput::Request { duration_s: None });
    world.second();
    world.deliver(Delivery::ToHost {
        from: 1,
        bytes: replayed,
    });
    world.second();

    assert_eq!(world.host.status(world.now).locked, None);
}

#[test]
fn a_removed_holder_types_no_more() {
    let mut world = World::new(23, 0, ASK);
    world.give_control(0);

    world.roles.gone.push(world.id(0));
    world.host(|host, at, out| host.handle(HostInput::MembersChanged, at, out));
    world.types(0, b"x");
    world.second();

    assert_eq!(world.taps(), "");
    assert_eq!(world.host.holder(), None);
}

#[test]
fn a_prolonged_lease_keeps_its_number_and_its_bytes() {
    let mut world = World::new(24, 0, ASK);
    world.give_control(0);
    world.types(0, b"ab");

    world
        .person(Person::Grant {
            to: world.id(0),
            duration_s: Some(3600),
        })
        .unwrap();
    world.types(0, b"cd");
    world.second();

    assert_eq!(world.taps(), "abcd");
    assert_eq!(world.host.status(world.now).number, 1);
    assert!(world.host.view(world.now).remaining > Duration::from_secs(3590));
}

#[test]
fn the_end_of_the_shell_closes_every_account() {
    let mut world = World::new(25, 0, ASK);
    world.give_control(0);
    world.pty_is_stuck = true;
    world.types(0, b"abc");
    world.run(Duration::from_millis(5));

    world.host(|host, at, out| host.handle(HostInput::Closed, at, out));
    world.second();

    let account = Account {
        written: 0,
        not_written: 3,
        unknown: 0,
    };
    let ended = SenderEvent::Ended {
        number: 1,
        reason: EndReason::Closed,
        account,
    };
    assert!(world.nodes[0].events.contains(&ended));
    assert_eq!(world.person(Person::Take), Err(Refusal::Closed));
}

#[derive(Debug, Clone)]
enum Step {
    Type(usize, Vec<u8>),
    Request(usize),
    Grant(usize),
    Release(usize),
    Order(usize, bool),
    PersonTypes(Vec<u8>),
    Revoke,
    Restart(usize),
    Cut(usize),
    PtyStuck(bool),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..40);
    let who = || 0..3_usize;
    prop_oneof![
        8 => (who(), bytes()).prop_map(|(who, bytes)| Step::Type(who, bytes)),
        1 => (who(), proptest::collection::vec(any::<u8>(), 9000..30000))
            .prop_map(|(who, bytes)| Step::Type(who, bytes)),
        3 => who().prop_map(Step::Request),
        3 => who().prop_map(Step::Grant),
        1 => who().prop_map(Step::Release),
        1 => (who(), any::<bool>()).prop_map(|(who, take)| Step::Order(who, take)),
        1 => bytes().prop_map(Step::PersonTypes),
        1 => Just(Step::Revoke),
        1 => who().prop_map(Step::Restart),
        1 => who().prop_map(Step::Cut),
        1 => any::<bool>().prop_map(Step::PtyStuck),
        8 => (1..400_u32).prop_map(Step::Wait),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Type(who, bytes) => world.types(who, &bytes),
        Step::Request(who) => world.member(
            who,
            SenderInput::Request {
                duration_s: Some(30),
            },
        ),
        Step::Grant(who) => {
            let to = world.id(who);
            world
                .person(Person::Grant {
                    to,
                    duration_s: Some(4),
                })
                .unwrap();
        }
        Step::Release(who) => world.member(who, SenderInput::Release),
        Step::Order(who, take) => {
            let action = if take {
                Action::Take { duration_s: None }
            } else {
                Action::Revoke
            };
            world.member(who, SenderInput::Order(action));
        }
        Step::PersonTypes(bytes) => world.person(Person::Key { verb: None, bytes }).unwrap(),
        Step::Revoke => drop(world.person(Person::Revoke)),
        Step::Restart(who) => world.restart(who),
        Step::Cut(who) => world.cut(who),
        Step::PtyStuck(stuck) => {
            world.pty_is_stuck = stuck;
            world.schedule(0, Delivery::PtyTakes);
        }
        Step::Wait(millis) => world.run(Duration::from_millis(millis.into())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_pty_gets_what_the_leases_allowed_in_order_and_none_twice(
        seed in any::<u64>(),
        loss in 0..40_u32,
        own in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(seed, loss, settings(false, own));

        for step in steps {
            take(&mut world, step);
        }
        world.loss_percent = 0;
        world.pty_is_stuck = false;
        world.schedule(0, Delivery::PtyTakes);
        world.run(Duration::from_secs(3));
        // Once faults stop, a live lease's bytes all arrive and every ended lease's account is closed.
        world.run(Duration::from_secs(60));

        world.check();
        for node in &world.nodes {
            for (number, typed) in node.typed.iter().filter(|(_, typed)| !typed.bytes.is_empty()) {
                let live = node.sender.held(world.now).is_some_and(|(held, _)| held == *number);
                prop_assert!(live || typed.account.is_some(), "lease {} has no account", number);
            }
        }
        prop_assert!(world.adapter.is_empty());
    }
}

fn said_to_host() -> impl Strategy<Value = ToHost> {
    let small = || 0..4_u64;
    let keys =
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(|bytes| Keys::new(bytes).unwrap());
    prop_oneof![
        (small(), proptest::option::of(small()))
            .prop_map(|(nonce, unsettled)| ToHost::Attach { nonce, unsettled }),
        (small(), small(), any::<bool>()).prop_map(|(attachment, request, first_key)| {
            ToHost::Request {
                attachment,
                request,
                first_key,
                duration_s: None,
            }
        }),
        (small(), small()).prop_map(|(attachment, request)| ToHost::Withdraw {
            attachment,
            request
        }),
        small().prop_map(|number| ToHost::Release { number }),
        (small(), small(), small(), keys).prop_map(|(number, attachment, seq, bytes)| {
            ToHost::Input {
                number,
                attachment,
                seq,
                bytes,
            }
        }),
    ]
}

fn said_by_host(me: MemberId) -> impl Strategy<Value = FromHost> {
    let small = || 0..8_u64;
    let status = move |version, number| LeaseStatus {
        version,
        number,
        lease: None,
        remaining_ms: 1,
        locked: Some(me).filter(|_| version % 2 == 0),
        auto: version % 3 == 0,
    };
    prop_oneof![
        (small(), small())
            .prop_map(move |(version, number)| FromHost::Status(status(version, number))),
        (small(), small(), small(), small()).prop_map(|(number, attachment, next, taken)| {
            FromHost::Ack {
                number,
                attachment,
                next,
                taken,
            }
        }),
        (small(), proptest::option::of(small())).prop_map(|(number, written)| FromHost::Ended {
            number,
            reason: EndReason::Expired,
            written,
        }),
        small().prop_map(|request| FromHost::Denied {
            request,
            reason: Denial::Person
        }),
        small().prop_map(|request| FromHost::Recorded { request }),
        Just(FromHost::Refused {
            reason: Refusal::Detached
        }),
        Just(FromHost::Refused {
            reason: Refusal::NotPermitted
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_others_say_only_the_holder_writes(
        said in proptest::collection::vec(said_to_host(), 0..40),
        decides in any::<bool>(),
    ) {
        let mut world = World::new(31, 0, ASK);
        world.give_control(0);
        let from = world.id(if decides { 2 } else { 1 });

        world.types(0, b"mine");
        for body in said {
            world.host(|host, at, out| host.handle(HostInput::Message { from, body }, at, out));
        }
        world.second();

        prop_assert_eq!(world.taps(), "mine");
        prop_assert_eq!(world.host.holder(), Some(world.id(0)));
    }

    #[test]
    fn whatever_a_host_says_each_byte_is_accounted_for_once(
        said in proptest::collection::vec(said_by_host(MemberId([9; 32])), 0..40),
    ) {
        let mut world = World::new(32, 0, ASK);
        world.give_control(0);
        world.types(0, b"three words typed");

        for message in said {
            world.member(0, SenderInput::Message(message));
        }
        world.member(0, SenderInput::Gone);

        let account = world.nodes[0].typed[&1].account.unwrap();
        prop_assert_eq!(account.written + account.not_written + account.unknown, 17);
    }
}

#[cfg(feature = "sim")]
#[test]
fn the_planted_bugs_do_what_their_names_say() {
    let mut twice = ASK;
    twice.planted.drop_dedup = true;
    let mut world = World::new(33, 0, twice);
    world.give_control(0);
    let attachment = 1;
    let bytes = Keys::new(b"a".to_vec()).unwrap();
    let body = ToHost::Input {
        number: 1,
        attachment,
        seq: 0,
        bytes: bytes.clone(),
    };
    for _ in 0..2 {
        let from = world.id(0);
        let body = body.clone();
        world.host(|host, at, out| host.handle(HostInput::Message { from, body }, at, out));
    }
    world.second();
    assert_eq!(world.taps(), "aa");

    let mut anybody = ASK;
    anybody.planted.ignore_lease_number = true;
    let mut world = World::new(34, 0, anybody);
    let (from, body) = (
        world.id(1),
        ToHost::Input {
            number: 1,
            attachment,
            seq: 0,
            bytes,
        },
    );
    world.host(|host, at, out| host.handle(HostInput::Message { from, body }, at, out));
    world.second();
    assert_eq!(world.taps(), "a");
}

pub(in crate::engine) mod wire {
    use super::*;

    /// One of each kind: six towards the host, then those from it.
    pub(in crate::engine) fn messages() -> Vec<Vec<u8>> {
        let key = MemberKey::generate(&mut Entropy::new([3; 32]));
        let terminal = TerminalId([4; 16]);
        let session = SessionId([5; 32]);
        let inputs = to_host(&key, session, terminal);
        let inputs = inputs.map(|body| InputMessage { terminal, body }.encode());
        let controls = from_host(&key, session, terminal);
        let controls = controls.map(|body| ControlMessage { terminal, body }.encode());
        inputs.into_iter().chain(controls).collect()
    }

    fn to_host(key: &MemberKey, session: SessionId, terminal: TerminalId) -> [ToHost; 6] {
        let action = Action::Grant {
            to: key.id(),
            duration_s: Some(60),
        };
        let order = Order {
            session,
            terminal,
            challenge: [6; 16],
            number: 7,
            action,
        };
        let keys = Keys::new(b"ls\r".to_vec()).unwrap();
        [
            ToHost::Attach {
                nonce: 300,
                unsettled: Some(2),
            },
            ToHost::Request {
                attachment: 1,
                request: 2,
                first_key: true,
                duration_s: None,
            },
            ToHost::Withdraw {
                attachment: 1,
                request: 2,
            },
            ToHost::Release { number: 7 },
            ToHost::Order(order.sign(key)),
            ToHost::Input {
                number: 7,
                attachment: 1,
                seq: 1000,
                bytes: keys,
            },
        ]
    }

    fn from_host(key: &MemberKey, session: SessionId, terminal: TerminalId) -> [FromHost; 9] {
        let lease = Lease {
            session,
            terminal,
            holder: key.id(),
            number: 7,
            duration_s: 600,
        };
        let status = LeaseStatus {
            version: 9,
            number: 7,
            lease: Some(lease.sign(key)),
            remaining_ms: 300_000,
            locked: Some(key.id()),
            auto: true,
        };
        let challenge = [8; 16];
        [
            FromHost::Attached {
                nonce: 300,
                attachment: 1,
                challenge,
                next: 3,
                taken: 2,
                status: status.clone(),
            },
            FromHost::Status(status.clone()),
            FromHost::Recorded { request: 2 },
            FromHost::Granted {
                request: Some(2),
                next: 0,
                status,
            },
            FromHost::Denied {
                request: 2,
                reason: Denial::Held { by: key.id() },
            },
            FromHost::Ended {
                number: 7,
                reason: EndReason::Expired,
                written: Some(500),
            },
            FromHost::Ack {
                number: 7,
                attachment: 1,
                next: 1003,
                taken: 1001,
            },
            FromHost::Ordered {
                challenge,
                outcome: OrderOutcome::Refused(Refusal::Stale { number: 7 }),
                next: challenge,
            },
            FromHost::Refused {
                reason: Refusal::Denied(Denial::Paused),
            },
        ]
    }

    #[test]
    fn every_message_survives_its_round_trip() {
        for (index, bytes) in messages().into_iter().enumerate() {
            let again = if index < 6 {
                InputMessage::decode(&bytes).unwrap().encode()
            } else {
                ControlMessage::decode(&bytes).unwrap().encode()
            };
            assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_truncated_or_prolonged_message_is_none() {
        for (index, bytes) in messages().into_iter().enumerate() {
            let is_message = |bytes: &[u8]| match index {
                0..6 => InputMessage::decode(bytes).is_ok(),
                _ => ControlMessage::decode(bytes).is_ok(),
            };
            assert!(
                (0..bytes.len()).all(|end| !is_message(&bytes[..end])),
                "message {index}"
            );
            assert!(
                !is_message(&[bytes.as_slice(), &[0]].concat()),
                "message {index}"
            );
        }
    }

    #[test]
    fn a_frame_of_more_than_four_kibibytes_is_none() {
        assert_eq!(Keys::new(vec![0; INPUT_FRAME_BYTES_MAX + 1]), None);
        let body = ToHost::Input {
            number: 1,
            attachment: 1,
            seq: 0,
            bytes: Keys(vec![0; INPUT_FRAME_BYTES_MAX + 1]),
        };
        let bytes = InputMessage {
            terminal: TerminalId([0; 16]),
            body,
        }
        .encode();
        assert!(matches!(
            InputMessage::decode(&bytes),
            Err(WireError::Malformed(_))
        ));
        assert_eq!(
            InputMessage::decode(&[0; 9000]),
            Err(WireError::TooLong(9000))
        );
    }

    #[test]
    fn a_lease_is_only_of_its_own_host_session_and_terminal() {
        let mut entropy = Entropy::new([3; 32]);
        let (host, other) = (
            MemberKey::generate(&mut entropy),
            MemberKey::generate(&mut entropy),
        );
        let place = Place {
            session: SessionId([1; 32]),
            terminal: TerminalId([2; 16]),
            host: host.id(),
        };
        let (session, terminal, holder) = (place.session, place.terminal, other.id());
        let lease = Lease {
            session,
            terminal,
            holder,
            number: 1,
            duration_s: 60,
        };

        assert!(lease.clone().sign(&host).is_of(&place));
        assert!(!lease.clone().sign(&other).is_of(&place));
        assert!(!lease.clone().sign(&host).is_of(&Place {
            terminal: TerminalId([3; 16]),
            ..place
        }));
        assert!(!lease.clone().sign(&host).is_of(&Place {
            session: SessionId([3; 32]),
            ..place
        }));
        let mut forged = lease.sign(&host);
        forged.lease.duration_s = 61;
        assert!(!forged.is_of(&place));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_their_own_encoding_or_not_at_all(
            index in 0..15_usize,
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = messages().swap_remove(index);
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(message) = InputMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes.clone());
            }
            if let Ok(message) = ControlMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
