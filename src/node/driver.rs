//! The boring loop: takes facts from the adapters and wishes from the faces, gives them to the engine, commits
//! what it wants kept, performs what it asks. There is no decision here; one found here belongs in the engine.
//! The contract is [`crate::engine::Engine::handle`]'s: *handle → persist → perform*.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::engine::Engine;
use crate::engine::command::{CommandError, Reply};
use crate::engine::effect::{Effect, Outcome, StopReason};
use crate::engine::event::{Event, NetEvent, RequestId};
use crate::net::{NetEvents, NetHandle};
use crate::node::clock::Clock;
use crate::node::committer::{Committer, OpenStore};
use crate::node::entropy;
use crate::node::handle::{Asked, HandleSource, NumberedEvent};
use crate::node::terminals::Terminals;
use crate::store::StoreError;

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
            terminals: Terminals::default(),
            committer: Committer::start(store),
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
        while self.stop.is_none() {
            let deadline = self.engine.deadline().map(|at| self.clock.instant(at));
            tokio::select! {
                fact = self.facts.recv() => match fact {
                    Some(fact) => self.handle(Event::Net(fact)),
                    None => self.stop = Some(StopReason::NetworkFailed),
                },
                Some(found) = self.found.recv() => self.handle(Event::Net(found)),
                (terminal, event) = self.terminals.next() => {
                    self.handle(Event::Pty { terminal, event });
                }
                asked = self.source.asked.recv() => match asked {
                    Some(asked) => self.ask(asked),
                    None => self.stop = Some(StopReason::Offline),
                },
                committed = self.committer.finished() => self.committed(committed),
                () = sleep_until(deadline) => self.handle(Event::Tick),
            }
        }
        self.finish().await
    }

    fn ask(&mut self, asked: Asked) {
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

    fn committed(&mut self, result: Result<Vec<Effect>, (StoreError, Vec<Effect>)>) {
        match result {
            Ok(effects) => self.perform(effects),
            Err((error, answers)) => {
                tracing::warn!(%error, "a commit failed; nothing of it is sent");
                self.perform(answers);
                self.handle(Event::CommitFailed {
                    reason: error.to_string(),
                });
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
    }

    /// Lets the disk and the peers have what is under way, then ends the terminals.
    async fn finish(mut self) -> StopReason {
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

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
