//! The hash over everything that happens, and on request its text.

use crate::engine::effect::{Effect, NetEffect, Outcome};
use crate::engine::event::{Event, NetEvent, PtyEvent};

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hasher: blake3::Hasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Nothing yet; keeps lines for people if wanted.
    pub(super) fn new(lines: bool) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            lines: lines.then(Vec::new),
        }
    }

    /// The lines since the last call.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A number that two runs have in common iff the same has happened in both.
    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Notes an event before a node handles it.
    pub(super) fn event(&mut self, at: u64, node: usize, event: &Event) {
        let mut text = format!("{at} {node} < ");
        let bytes = describe(event, &mut text);
        self.note(text, bytes);
    }

    /// Notes what came of it.
    pub(super) fn outcome(&mut self, node: usize, outcome: &Outcome) {
        for effect in outcome.live.iter().chain(&outcome.effects) {
            let mut text = format!("  {node} > ");
            let bytes = describe_effect(effect, &mut text);
            self.note(text, bytes);
        }
        for (key, value) in outcome.persist.puts() {
            self.note(format!("  {node} = {key}"), value);
        }
    }

    /// Notes a deed of the world.
    pub(super) fn deed(&mut self, at: u64, text: &str) {
        self.note(format!("{at} * {text}"), &[]);
    }

    fn note(&mut self, mut text: String, bytes: &[u8]) {
        self.hasher.update(text.as_bytes());
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        if let Some(lines) = &mut self.lines {
            if !bytes.is_empty() {
                let digest = blake3::hash(bytes).to_hex();
                let short = digest.get(..8).unwrap_or_default();
                text.push_str(&format!(" [{} bytes {short}]", bytes.len()));
            }
            lines.push(text);
        }
    }
}

fn describe<'a>(event: &'a Event, text: &mut String) -> &'a [u8] {
    let (said, bytes): (String, &[u8]) = match event {
        Event::Net(NetEvent::StreamReceived { stream, message }) => {
            (format!("received on {}", stream.0), message)
        }
        Event::Net(NetEvent::Gossip {
            id,
            from,
            topic,
            data,
        }) => (
            format!("gossip {} from {} on {}", id.0, from.short(), topic.short()),
            data,
        ),
        Event::Pty {
            terminal,
            event: PtyEvent::Output(bytes),
        } => (format!("output of {}", terminal.short()), bytes),
        Event::Tick
        | Event::Command { .. }
        | Event::Net(_)
        | Event::Pty { .. }
        | Event::CommitFailed { .. }
        | Event::CommittedAgain => (format!("{event:?}"), &[]),
    };
    text.push_str(&said);
    bytes
}

fn describe_effect<'a>(effect: &'a Effect, text: &mut String) -> &'a [u8] {
    let (said, bytes): (String, &[u8]) = match effect {
        Effect::Net(NetEffect::Send { stream, message }) => {
            (format!("send on {}", stream.0), message)
        }
        Effect::Net(NetEffect::Publish { topic, data }) => {
            (format!("publish on {}", topic.short()), data)
        }
        Effect::Net(_)
        | Effect::Pty { .. }
        | Effect::Reply { .. }
        | Effect::Emit(_)
        | Effect::Stop(_) => (format!("{effect:?}"), &[]),
    };
    text.push_str(&said);
    bytes
}
