//! The terminals that run on this machine: performs what the engine asks of them, and gathers what they say.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::mpsc;

use crate::engine::effect::PtyEffect;
use crate::engine::event::PtyEvent;
use crate::engine::ids::TerminalId;
use crate::pty::unix::{Pty, PtyHandle};

/// Children and their PTYs.
#[derive(Debug, Default)]
pub(crate) struct Terminals {
    handles: BTreeMap<TerminalId, PtyHandle>,
    events: BTreeMap<TerminalId, mpsc::Receiver<PtyEvent>>,
    failed: Vec<(TerminalId, String)>,
}

impl Terminals {
    /// Performs an effect.
    pub(crate) fn perform(&mut self, terminal: TerminalId, effect: PtyEffect) {
        if let PtyEffect::Spawn(spec) = effect {
            match Pty::spawn(spec) {
                Ok((handle, events)) => {
                    self.handles.insert(terminal, handle);
                    self.events.insert(terminal, events);
                }
                Err(error) => self.failed.push((terminal, error.to_string())),
            }
            return;
        }
        let Some(handle) = self.handles.get_mut(&terminal) else { return };
        match effect {
            PtyEffect::Write(input) => handle.write(input.into_inner()),
            PtyEffect::DropInput => handle.drop_input(),
            PtyEffect::Resize { cols, rows } => handle.resize(cols, rows),
            PtyEffect::Hangup => handle.hangup(),
            PtyEffect::Spawn(_) => {}
        }
    }

    /// The next thing a terminal says; never returns while there is none.
    pub(crate) async fn next(&mut self) -> (TerminalId, PtyEvent) {
        if let Some((terminal, reason)) = self.failed.pop() {
            return (terminal, PtyEvent::Failed(reason));
        }
        poll_fn(|context| {
            for (terminal, events) in &mut self.events {
                if let Poll::Ready(Some(event)) = events.poll_recv(context) {
                    return Poll::Ready((*terminal, event));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Ends every child: SIGHUP, grace, SIGKILL.
    pub(crate) async fn hang_up(&mut self) {
        for handle in self.handles.values_mut() {
            handle.hangup();
        }
        for handle in std::mem::take(&mut self.handles).into_values() {
            handle.ended().await;
        }
    }
}
