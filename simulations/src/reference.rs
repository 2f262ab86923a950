//! What should be so, in the plainest words: who said what, who typed what, and what they were told of it.

use std::collections::{BTreeMap, BTreeSet};

use collab_p2p::engine::command::{CommandError, Reply};
use collab_p2p::engine::control::Origin;
use collab_p2p::engine::event::RequestId;
use collab_p2p::engine::ids::{MemberId, TerminalId};
use collab_p2p::engine::view::What;
use collab_p2p::sim::{Fact, NodeId};

/// What people did and were told.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// Messages by their id, once the node has said that they are saved: by whom, and what.
    pub(crate) said: BTreeMap<String, (NodeId, String)>,
    /// Texts that only their author had when an old folder of its was put back: they may be gone.
    pub(crate) forgotten: BTreeSet<String>,
    /// The member that each node is now.
    pub(crate) members: BTreeMap<NodeId, MemberId>,
    /// How often each node has died.
    pub(crate) crashes: BTreeMap<NodeId, u32>,
    /// Tokens typed by each node, by their numbers, with the verb's answer if there was one.
    pub(crate) typed: BTreeMap<(NodeId, u32), Option<Typed>>,
    /// Leases given by hosts, by terminal and number.
    pub(crate) leases: BTreeSet<(TerminalId, u64)>,
    /// Bytes that shells took under leases.
    pub(crate) keys: usize,
    asked: BTreeMap<(NodeId, RequestId), Asked>,
}

/// How a verb that typed was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// All bytes are taken.
    Taken,
    /// It did not work, for this reason.
    Failed(CommandError),
}

#[derive(Debug)]
enum Asked {
    Say(String),
    Type(u32),
}

impl Reference {
    /// Somebody is about to be told whether this is said.
    pub(crate) fn says(&mut self, node: NodeId, request: RequestId, text: String) {
        self.asked.insert((node, request), Asked::Say(text));
    }

    /// A node comes back with an old folder: of its words only those that others heard must stay.
    pub(crate) fn forgets(&mut self, node: NodeId, heard: &BTreeSet<String>) {
        let own = self.said.values().filter(|(author, _)| *author == node);
        let lost = own.filter(|(_, text)| !heard.contains(text));
        self.forgotten.extend(lost.map(|(_, text)| text.clone()));
    }

    /// The number of the next token that a node types.
    pub(crate) fn next_token(&self, node: NodeId) -> u32 {
        let range = (node, 0)..=(node, u32::MAX);
        self.typed
            .range(range)
            .next_back()
            .map_or(0, |((_, number), _)| number + 1)
    }

    /// A node types a token, by key or by a verb whose answer is about the last token it was given.
    pub(crate) fn types(&mut self, node: NodeId, number: u32, verb: Option<RequestId>) {
        self.typed.insert((node, number), None);
        if let Some(request) = verb {
            self.asked.insert((node, request), Asked::Type(number));
        }
    }

    /// Takes note of what happened.
    pub(crate) fn see(&mut self, fact: &Fact) {
        match fact {
            Fact::Started { node, member } => {
                self.members.insert(*node, *member);
            }
            Fact::Crashed { node } => *self.crashes.entry(*node).or_default() += 1,
            Fact::Replied {
                node,
                request,
                result,
            } => self.told(*node, *request, result),
            Fact::Handled { events, .. } => events.iter().for_each(|event| self.event(event)),
            Fact::Took { bytes, .. } => {
                let leased = |(_, origin): &&(u8, Origin)| matches!(origin, Origin::Lease { .. });
                self.keys += bytes.iter().filter(leased).count();
            }
            Fact::Published { .. } | Fact::Stopped { .. } => {}
        }
    }

    fn event(&mut self, event: &What) {
        if let What::ControlGranted {
            terminal, number, ..
        } = event
        {
            self.leases.insert((*terminal, *number));
        }
    }

    fn told(&mut self, node: NodeId, request: RequestId, result: &Result<Reply, CommandError>) {
        match (self.asked.remove(&(node, request)), result) {
            (Some(Asked::Say(text)), Ok(Reply::Message { id })) => {
                self.said.insert(id.clone(), (node, text));
            }
            (Some(Asked::Type(number)), Ok(_)) => {
                self.typed.insert((node, number), Some(Typed::Taken));
            }
            (Some(Asked::Type(number)), Err(error)) => {
                self.typed
                    .insert((node, number), Some(Typed::Failed(error.clone())));
            }
            (Some(Asked::Say(_)) | None, _) => {}
        }
    }
}
