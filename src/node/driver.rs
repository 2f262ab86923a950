//! The boring loop: takes facts from the adapters and wishes from the faces, gives them to the engine, commits
//! what it wants kept, performs what it asks. There is no decision here; one found here belongs in the engine.
//! The contract is [`crate::engine::Engine::handle`]'s: *handle → persist → perform*.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::engine::Engine;
use crate::engine::command::{CommandError, Reply};
use crate::engine::effect::{Effect, Outcome, StopReason};
use crate::engine::event::{Event, NetEvent, PtyEvent, RequestId};
use crate::engine::ids::TerminalId;
use crate::engine::limits::TURNS_BEFORE_OUTPUT_MAX;
use crate::net::{NetEvents, NetHandle};
use crate::node::clock::Clock;
use crate::node::committer::{Committed, Committer, OpenStore};
use crate::node::entropy;
use crate::node::handle::{Asked, HandleSource, NumberedEvent};
use crate::node::terminals::Terminals;

/// One membership's engine with its adapters.
pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) net: NetHandle,
    pub(crate) facts: NetEvents,
    /// Peers that were found by other means than the network's own.
    pub(crate) found: mpsc::Receiver<NetEvent>,
    pub(crate) terminals: Terminals,
    pub(crate) committer: Committer,
    pub(crate) source: HandleSource,
    asked: BTreeMap<RequestId, oneshot::Sender<Result<Reply, CommandError>>>,
    requests: u64,
    events: u64,
    stop: Option<StopReason>,
}

impl Driver {
    /// Puts the parts together.
    pub(crate) fn new(
        engine: Engine,
        clock: Clock,
        (net, facts): (NetHandle, NetEvents),
        found: mpsc::Receiver<NetEvent>,
        store: OpenStore,
        source: HandleSource,
    ) -> Self {
        Self {
            engine,
            clock,
            net,
            facts,
            found,
            terminals: Terminals::new(Arc::clone(&source.gauges)),
            committer: Committer::start(store, Arc::clone(&source.gauges)),
            source,
            asked: BTreeMap::new(),
            requests: 0,
            events: 0,
            stop: None,
        }
    }

    /// Runs until the engine stops.
    pub(crate) async fn run(mut self, first: Outcome) -> StopReason {
        self.perform_outcome(first);
        let mut turns = Turns::default();
        while self.stop.is_none() {
            let happening = self.next(&mut turns).await;
            let long = matches!(happening, Happening::Terminal(..));
            self.take(happening);
            // Nothing here need ever be waited for, so other tasks get their time between turns: after each that
            // may have been long, and else as often as channels demand it before they give anything more.
            if long {
                tokio::task::yield_now().await;
            } else {
                tokio::task::consume_budget().await;
            }
        }
        self.finish().await
    }

    /// Waits for what is next: a terminal waits for everything else, but not for ever.
    async fn next(&mut self, turns: &mut Turns) -> Happening {
        let deadline = self.engine.deadline().map(|at| self.clock.instant(at));
        let Self {
            facts,
            found,
            terminals,
            committer,
            source,
            ..
        } = self;
        // Who makes more to be saved than the disk takes is not heard until it has caught up.
        let behind = committer.is_behind();
        let other = async {
            tokio::select! {
                fact = facts.recv(), if !behind => Happening::Fact(fact),
                Some(found) = found.recv() => Happening::Fact(Some(found)),
                asked = source.asked.recv() => Happening::Asked(asked),
                committed = committer.finished() => Happening::Committed(committed),
                () = sleep_until(deadline) => Happening::Due,
            }
        };
        let terminal = async {
            let (terminal, event) = terminals.next().await;
            Happening::Terminal(terminal, event)
        };
        turns.next(other, terminal).await
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Fact(Some(fact)) => self.handle(Event::Net(fact)),
            Happening::Fact(None) => self.stop = Some(StopReason::NetworkFailed),
            Happening::Asked(Some(asked)) => self.ask(asked),
            Happening::Asked(None) => self.stop = Some(StopReason::Offline),
            Happening::Committed(committed) => self.committed(committed),
            Happening::Due => self.handle(Event::Tick),
            Happening::Terminal(terminal, event) => self.handle(Event::Pty { terminal, event }),
        }
    }

    fn ask(&mut self, asked: Asked) {
        self.source.gauges.commands.set(self.source.asked.len());
        #[cfg(feature = "lab")]
        panic_if_asked(&asked.command);
        self.requests += 1;
        let request = RequestId(self.requests);
        self.asked.insert(request, asked.answer);
        self.handle(Event::Command {
            request,
            command: asked.command,
        });
    }

    fn handle(&mut self, event: Event) {
        let Ok(mut entropy) = entropy::fresh() else {
            self.stop = Some(StopReason::NetworkFailed);
            return;
        };
        let outcome = self.engine.handle(event, self.clock.now(), &mut entropy);
        self.perform_outcome(outcome);
    }

    fn perform_outcome(&mut self, outcome: Outcome) {
        let effects = self.committer.accept(outcome);
        self.perform(effects);
        if let Some(view) = self.engine.view_if_changed(self.clock.now()) {
            self.source.view.send_replace(Arc::new(view));
        }
        if let Some(screens) = self.engine.screens_if_changed() {
            self.source.screens.send_replace(screens);
        }
    }

    fn committed(&mut self, committed: Committed) {
        match committed {
            Committed::Saved(effects) => self.perform(effects),
            Committed::Unsaved(error, effects) => {
                tracing::warn!(%error, "a commit failed; nobody is told what it held");
                self.perform(effects);
                self.handle(Event::CommitFailed { error });
            }
            Committed::StillUnsaved => {}
            Committed::SavedAgain(effects) => {
                tracing::info!("what could not be saved is saved now");
                self.perform(effects);
                self.handle(Event::CommittedAgain);
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Net(effect) => self.net.perform(effect),
                Effect::Pty { terminal, effect } => self.terminals.perform(terminal, effect),
                Effect::Reply { request, result } => {
                    if let Some(answer) = self.asked.remove(&request) {
                        // Whoever asked may have gone; the deed stands.
                        drop(answer.send(result));
                    }
                }
                Effect::Emit(event) => self.emit(event),
                Effect::Stop(reason) => self.stop = Some(reason),
            }
        }
    }

    fn emit(&mut self, event: crate::engine::view::SessionEvent) {
        let seq = if event.what.ephemeral() {
            0
        } else {
            self.events += 1;
            self.events
        };
        // No reader is no error.
        drop(self.source.events.send(NumberedEvent { seq, event }));
        self.source.gauges.events.set(self.source.events.len());
    }

    /// Lets the disk and the peers have what is under way, then ends the terminals.
    async fn finish(mut self) -> StopReason {
        self.committer.hurry();
        while self.committer.is_busy() {
            let committed = self.committer.finished().await;
            self.committed(committed);
        }
        self.terminals.hang_up().await;
        self.net.shutdown().await;
        let reason = self.stop.unwrap_or(StopReason::Offline);
        self.source.stopped.send_replace(Some(reason.clone()));
        reason
    }
}

/// A message with this text makes the driver panic, to see in the lab what becomes of the person's terminal.
#[cfg(feature = "lab")]
pub(crate) static PANIC_ON: std::sync::OnceLock<String> = std::sync::OnceLock::new();

#[cfg(feature = "lab")]
#[expect(clippy::panic, reason = "the lab looks at what a panic leaves behind")]
fn panic_if_asked(command: &crate::engine::command::Command) {
    if let crate::engine::command::Command::PostMessage { text, .. } = command
        && PANIC_ON.get() == Some(text)
    {
        panic!("the lab has asked the node for this");
    }
}

/// What a turn is about.
enum Happening {
    Fact(Option<NetEvent>),
    Asked(Option<Asked>),
    Committed(Committed),
    Due,
    Terminal(TerminalId, PtyEvent),
}

/// Who is next. A shell that never falls silent must not keep a command or the network waiting, and peers that
/// never fall silent must not keep the shell's output waiting.
#[derive(Debug, Default)]
struct Turns {
    /// Turns of others since the last of a terminal.
    others: u32,
}

impl Turns {
    /// Of two things that are ready the `other`, unless it was that for many turns.
    async fn next<T>(
        &mut self,
        other: impl Future<Output = T>,
        terminal: impl Future<Output = T>,
    ) -> T {
        let terminals_first = self.others >= TURNS_BEFORE_OUTPUT_MAX;
        let other = async { (other.await, self.others.saturating_add(1)) };
        let terminal = async { (terminal.await, 0) };
        let (happening, others) = if terminals_first {
            tokio::select! { biased; next = terminal => next, next = other => next }
        } else {
            tokio::select! { biased; next = other => next, next = terminal => next }
        };
        self.others = others;
        happening
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn endless_output_makes_nobody_else_wait() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            assert_eq!(turns.next(pending(), ready("output")).await, "output");
        }

        assert_eq!(
            turns.next(ready("command"), ready("output")).await,
            "command"
        );
        assert_eq!(turns.next(ready("fact"), ready("output")).await, "fact");
    }

    #[tokio::test]
    async fn a_flood_of_facts_does_not_silence_a_terminal() {
        let mut turns = Turns::default();
        let mut order = Vec::new();
        for _ in 0..1000 {
            order.push(turns.next(ready(false), ready(true)).await);
        }

        let longest = order.split(|output| *output).map(<[bool]>::len).max();
        assert_eq!(longest, Some(TURNS_BEFORE_OUTPUT_MAX as usize));
    }
}
