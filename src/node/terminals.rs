//! The terminals that run on this machine: performs what the engine asks of them, and gathers what they say.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::mpsc;

use crate::engine::effect::{PtyEffect, PtySpec};
use crate::engine::event::{ExitStatus, PtyEvent};
use crate::engine::ids::TerminalId;
use crate::pty::unix;

/// Children and their PTYs.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    handles: BTreeMap<TerminalId, unix::PtyHandle>,
    events: BTreeMap<TerminalId, mpsc::Receiver<unix::PtyEvent>>,
    /// Facts that follow from an effect at once.
    facts: VecDeque<(TerminalId, PtyEvent)>,
}

impl Terminals {
    /// Performs an effect.
    pub(crate) fn perform(&mut self, terminal: TerminalId, effect: PtyEffect) {
        if let PtyEffect::Spawn(spec) = effect {
            return self.spawn(terminal, spec);
        }
        let Some(handle) = self.handles.get(&terminal) else {
            return;
        };
        let done = match effect {
            PtyEffect::Write(input) => handle.write(&input.into_inner()),
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
            PtyEffect::Spawn(_) => Ok(()),
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

    /// The next thing a terminal says; never returns while there is none.
    pub(crate) async fn next(&mut self) -> (TerminalId, PtyEvent) {
        if let Some(fact) = self.facts.pop_front() {
            return fact;
        }
        let (terminal, event) = poll_fn(|context| {
            for (terminal, events) in &mut self.events {
                if let Poll::Ready(Some(event)) = events.poll_recv(context) {
                    return Poll::Ready((*terminal, event));
                }
            }
            Poll::Pending
        })
        .await;
        (terminal, said(event))
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
