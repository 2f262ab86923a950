//! The terminals that run on this machine: performs what the engine asks of them, and gathers what they say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::engine::effect::{PtyEffect, PtySpec};
use crate::engine::event::{ExitStatus, PtyEvent};
use crate::engine::ids::TerminalId;
use crate::node::gauges::NodeGauges;
use crate::pty::unix;

/// Children and their PTYs.
#[derive(Debug)]
pub(crate) struct Terminals {
    handles: BTreeMap<TerminalId, unix::PtyHandle>,
    events: BTreeMap<TerminalId, mpsc::Receiver<unix::PtyEvent>>,
    /// Facts that follow from an effect at once.
    facts: VecDeque<(TerminalId, PtyEvent)>,
    /// Output that the engine had no time for, ahead of what comes by the channels.
    returned: BTreeMap<TerminalId, Vec<u8>>,
    /// Whose end was told.
    ended: BTreeSet<TerminalId>,
    /// Whose event was last, so that one that never falls silent does not silence the others.
    last: Option<TerminalId>,
    gauges: Arc<NodeGauges>,
}

impl Terminals {
    /// None yet; how full their queues are is told to `gauges`.
    pub(crate) fn new(gauges: Arc<NodeGauges>) -> Self {
        Self {
            handles: BTreeMap::new(),
            events: BTreeMap::new(),
            facts: VecDeque::new(),
            returned: BTreeMap::new(),
            ended: BTreeSet::new(),
            last: None,
            gauges,
        }
    }

    /// Performs an effect.
    pub(crate) fn perform(&mut self, terminal: TerminalId, effect: PtyEffect) {
        let effect = match effect {
            PtyEffect::Spawn(spec) => return self.spawn(terminal, spec),
            PtyEffect::Return(output) => {
                self.returned.insert(terminal, output);
                return;
            }
            other @ (PtyEffect::Write(_)
            | PtyEffect::DropInput
            | PtyEffect::Resize { .. }
            | PtyEffect::Hangup) => other,
        };
        let Some(handle) = self.handles.get(&terminal) else {
            return;
        };
        let done = match effect {
            PtyEffect::Write(input) => {
                let gauge = &self.gauges.pty_input;
                handle
                    .write(&input.into_inner())
                    .map(|waiting| gauge.set(waiting))
                    .inspect_err(|_| gauge.drop_one())
            }
            PtyEffect::DropInput => {
                let taken = handle.discard().taken;
                self.facts.push_back((terminal, PtyEvent::Withdrawn(taken)));
                Ok(())
            }
            PtyEffect::Resize { cols, rows } => handle.resize(cols, rows),
            PtyEffect::Hangup => {
                handle.hangup();
                Ok(())
            }
            PtyEffect::Spawn(_) | PtyEffect::Return(_) => Ok(()),
        };
        if let Err(error) = done {
            // The lease's account tells the person what was not written; the end of the shell comes as an event.
            tracing::debug!(terminal = %terminal.short(), %error, "a terminal refused");
        }
    }

    fn spawn(&mut self, terminal: TerminalId, spec: PtySpec) {
        let spec = unix::PtySpec {
            argv: spec.argv.into_iter().map(Into::into).collect(),
            cwd: spec.cwd,
            env: spec
                .env
                .into_iter()
                .map(|(name, value)| (name.into(), Some(value.into())))
                .collect(),
            cols: spec.cols,
            rows: spec.rows,
        };
        match unix::Pty::spawn(spec) {
            Ok((handle, events)) => {
                self.handles.insert(terminal, handle);
                self.events.insert(terminal, events);
            }
            Err(error) => {
                self.facts
                    .push_back((terminal, PtyEvent::Failed(error.to_string())));
            }
        }
    }

    /// The next thing a terminal says, in turn; never returns while there is none. Dropping the future loses
    /// nothing.
    pub(crate) async fn next(&mut self) -> (TerminalId, PtyEvent) {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(TerminalId, PtyEvent)> {
        if let Some(fact) = self.facts.pop_front() {
            return Poll::Ready(fact);
        }
        let last = self.last;
        let is_later = |terminal: &TerminalId| last.is_none_or(|last| *terminal > last);
        let (later, earlier): (Vec<_>, Vec<_>) = self
            .events
            .iter_mut()
            .partition(|(terminal, _)| is_later(terminal));
        for (terminal, events) in later.into_iter().chain(earlier) {
            let event = match self.returned.remove(terminal) {
                Some(output) => Poll::Ready(Some(PtyEvent::Output(output))),
                None => {
                    self.gauges.pty_output.set(events.len());
                    events.poll_recv(context).map(|event| event.map(said))
                }
            };
            match event {
                Poll::Ready(Some(event)) => {
                    if let (PtyEvent::Written(_), Some(handle)) =
                        (&event, self.handles.get(terminal))
                    {
                        self.gauges.pty_input.set(handle.waiting());
                    }
                    self.last = Some(*terminal);
                    if matches!(event, PtyEvent::Exited(_)) {
                        self.ended.insert(*terminal);
                    }
                    return Poll::Ready((*terminal, event));
                }
                // A shell that is cut off with the program has not ended the session for others.
                Poll::Ready(None)
                    if self
                        .handles
                        .get(terminal)
                        .is_some_and(unix::PtyHandle::has_failed)
                        && self.ended.insert(*terminal) =>
                {
                    tracing::error!(terminal = %terminal.short(), "a terminal fell silent without an end");
                    return Poll::Ready((*terminal, PtyEvent::Exited(ExitStatus(1))));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Ends every child: SIGHUP, grace, SIGKILL.
    pub(crate) async fn hang_up(&mut self) {
        for handle in self.handles.values() {
            handle.hangup();
        }
        for (terminal, mut events) in std::mem::take(&mut self.events) {
            while let Some(event) = events.recv().await {
                if let unix::PtyEvent::Exited { .. } = event {
                    break;
                }
            }
            self.handles.remove(&terminal);
        }
    }
}

fn said(event: unix::PtyEvent) -> PtyEvent {
    match event {
        unix::PtyEvent::Output(bytes) => PtyEvent::Output(bytes),
        unix::PtyEvent::Written(total) => PtyEvent::Written(total),
        unix::PtyEvent::Exited { status } => PtyEvent::Exited(ExitStatus(status)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spawned(script: &str) -> PtyEffect {
        PtyEffect::Spawn(PtySpec {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: None,
            env: Vec::new(),
            cols: 80,
            rows: 24,
        })
    }

    fn printed(event: PtyEvent) -> String {
        let PtyEvent::Output(bytes) = event else {
            panic!("{event:?}");
        };
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn what_was_returned_comes_before_what_follows() {
        let (mut terminals, terminal) = (Terminals::new(Arc::default()), TerminalId([1; 16]));
        terminals.perform(terminal, spawned("printf first; read -r x; printf second"));

        let (_, event) = terminals.next().await;
        assert_eq!(printed(event), "first");
        terminals.perform(terminal, PtyEffect::Return(b"rst".to_vec()));
        let handle = &terminals.handles[&terminal];
        handle.write(b"\n").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;

        let (_, event) = terminals.next().await;
        assert_eq!(printed(event), "rst");
        terminals.hang_up().await;
    }

    /// A terminal whose tasks ended with the runtime that ran them.
    fn cut_off(terminal: TerminalId) -> Terminals {
        let mut terminals = Terminals::new(Arc::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { terminals.perform(terminal, spawned("exec sleep 30")) });
        drop(runtime);
        terminals
    }

    async fn said_soon(terminals: &mut Terminals) -> Option<(TerminalId, PtyEvent)> {
        let said = tokio::time::timeout(Duration::from_millis(200), terminals.next()).await;
        said.ok()
    }

    #[test]
    fn a_shell_that_is_cut_off_with_the_program_has_not_ended_for_anybody_else() {
        let mut terminals = cut_off(TerminalId([1; 16]));
        let runtime = tokio::runtime::Runtime::new().unwrap();

        let said = runtime.block_on(said_soon(&mut terminals));

        assert!(said.is_none(), "{said:?}");
    }

    #[test]
    fn a_terminal_whose_tasks_have_failed_has_ended_once() {
        let terminal = TerminalId([1; 16]);
        let mut terminals = cut_off(terminal);
        terminals.handles[&terminal].fail();
        let runtime = tokio::runtime::Runtime::new().unwrap();

        let (told, more) = runtime.block_on(async {
            let told = said_soon(&mut terminals).await;
            (told, said_soon(&mut terminals).await)
        });

        let (whose, event) = told.unwrap();
        assert_eq!(whose, terminal);
        assert!(
            matches!(event, PtyEvent::Exited(ExitStatus(1))),
            "{event:?}"
        );
        assert!(more.is_none(), "{more:?}");
    }

    #[tokio::test]
    async fn a_terminal_that_never_falls_silent_silences_no_other() {
        let ids = [1, 2].map(|id| TerminalId([id; 16]));
        for (loud, soft) in [(ids[0], ids[1]), (ids[1], ids[0])] {
            let mut terminals = Terminals::new(Arc::default());
            terminals.perform(loud, spawned("cat"));
            terminals.perform(soft, spawned("printf hello; cat"));

            let heard = async {
                loop {
                    terminals.perform(loud, PtyEffect::Return(b"more".to_vec()));
                    let (terminal, event) = terminals.next().await;
                    if terminal == soft {
                        break event;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let heard = tokio::time::timeout(Duration::from_secs(10), heard).await;

            assert_eq!(printed(heard.unwrap()), "hello");
            terminals.hang_up().await;
        }
    }
}
