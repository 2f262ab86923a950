//! What the parts of the engine share while they handle one event: the moment, fresh entropy, the outcome.

use crate::engine::command::{CommandError, Reply};
use crate::engine::effect::{Effect, NetEffect, Outcome, PtyEffect};
use crate::engine::entropy::Entropy;
use crate::engine::event::{Lane, RequestId, StreamId};
use crate::engine::ids::TerminalId;
use crate::engine::replica::News;
use crate::engine::time::Now;
use crate::engine::view::{Actor, SessionEvent, What};

/// One event being handled.
pub(in crate::engine) struct Context<'a> {
    pub(in crate::engine) now: Now,
    pub(in crate::engine) entropy: &'a mut Entropy,
    pub(in crate::engine) out: Outcome,
    pub(in crate::engine) changed: bool,
    /// News from the replica that the engine has not looked at yet.
    pub(in crate::engine) news: Vec<News>,
}

impl<'a> Context<'a> {
    pub(in crate::engine) fn new(now: Now, entropy: &'a mut Entropy) -> Self {
        Self {
            now,
            entropy,
            out: Outcome::default(),
            changed: false,
            news: Vec::new(),
        }
    }

    /// A request to the network that waits for the disk.
    pub(in crate::engine) fn net(&mut self, effect: NetEffect) {
        self.out.effects.push(Effect::Net(effect));
    }

    /// A request to the network that waits for nothing.
    pub(in crate::engine) fn live(&mut self, effect: NetEffect) {
        self.out.live.push(Effect::Net(effect));
    }

    /// A request about a stream of this lane: screens and input wait for nothing.
    pub(in crate::engine) fn on_lane(&mut self, lane: Lane, effect: NetEffect) {
        match lane {
            Lane::Admission | Lane::Control => self.net(effect),
            Lane::Input | Lane::Screen => self.live(effect),
        }
    }

    /// A message on the control or admission lane.
    pub(in crate::engine) fn send(&mut self, stream: StreamId, message: Vec<u8>) {
        self.net(NetEffect::Send { stream, message });
    }

    /// A message on the input or screen lane.
    pub(in crate::engine) fn send_live(&mut self, stream: StreamId, message: Vec<u8>) {
        self.live(NetEffect::Send { stream, message });
    }

    /// A request to a local terminal.
    pub(in crate::engine) fn pty(&mut self, terminal: TerminalId, effect: PtyEffect) {
        self.out.live.push(Effect::Pty { terminal, effect });
    }

    /// The answer to a command, given once what it promises is on disk.
    pub(in crate::engine) fn reply(
        &mut self,
        request: RequestId,
        result: Result<Reply, CommandError>,
    ) {
        self.out.effects.push(Effect::Reply { request, result });
    }

    /// Tells faces that something happened.
    pub(in crate::engine) fn emit(&mut self, actor: Option<Actor>, what: What) {
        let event = SessionEvent {
            time: self.now.wall,
            actor,
            what,
        };
        self.out.effects.push(Effect::Emit(event));
        self.changed = true;
    }
}
