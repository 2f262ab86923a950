//! Changes that wait for what they build on. Automerge has a queue of its own, without bounds and saved with
//! the document; nothing unjudged gets into it. This one is bounded per author and in all; what finds no room
//! is let go and asked for again, so it delays but never decides.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;

use crate::engine::documents::document::{Settled, Verdict};
use crate::engine::documents::gate::hash_of;
use crate::engine::documents::schema::{ActorNonce, DocumentName};
use crate::engine::ids::MemberId;
use crate::engine::limits::{HELD_AUTHOR_BYTES_MAX, HELD_AUTHOR_CHANGES_MAX, HELD_TOTAL_BYTES_MAX};

/// An author's waiting changes of one document, by their place in its log.
pub(crate) type Queue = BTreeMap<u64, Held>;

/// All waiting changes of one document.
pub(crate) type Queues = BTreeMap<MemberId, Queue>;

/// A waiting change.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) nonce: ActorNonce,
    pub(crate) change: Vec<u8>,
    /// What it builds on and is not here; empty while it has not been judged.
    pub(crate) missing: Vec<ChangeHash>,
    /// Whether its giver knows that it waits.
    reported: bool,
}

impl Held {
    /// A change that has not been judged.
    pub(crate) fn new(nonce: ActorNonce, change: Vec<u8>) -> Self {
        Self {
            nonce,
            change,
            missing: Vec::new(),
            reported: false,
        }
    }

    /// Tells, once, of each change that it waits.
    pub(crate) fn report(queues: &mut Queues) -> Vec<Settled> {
        let mut waiting = Vec::new();
        for (author, queue) in queues {
            for (position, held) in queue.iter_mut().filter(|(_, held)| !held.reported) {
                held.reported = true;
                let missing = held.missing.iter().map(hash_of).collect();
                let (author, position, verdict) = (*author, *position, Verdict::Held { missing });
                waiting.push(Settled {
                    author,
                    position,
                    change: None,
                    verdict,
                });
            }
        }
        waiting
    }

    /// What it costs to keep: its bytes and an allowance for the rest.
    fn cost(&self) -> usize {
        self.change.len() + 128 + self.missing.len() * 32
    }
}

/// All waiting changes, and who takes how much room.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    queues: BTreeMap<DocumentName, Queues>,
    usage: BTreeMap<MemberId, Usage>,
    bytes: usize,
    /// Whose changes to which document were let go.
    starved: BTreeSet<(DocumentName, MemberId)>,
    /// Those of them whose document has grown since.
    wanted: BTreeSet<(DocumentName, MemberId)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    changes: usize,
    bytes: usize,
}

impl Pool {
    /// Takes a document's waiting changes out.
    pub(crate) fn take(&mut self, name: &DocumentName) -> Queues {
        let queues = self.queues.remove(name).unwrap_or_default();
        for (author, queue) in &queues {
            for held in queue.values() {
                self.release(*author, held.cost());
            }
        }
        queues
    }

    /// Puts a document's waiting changes back as far as there is room; tells of those let go. Of an author the
    /// earlier ones are kept, as the later ones wait for them.
    pub(crate) fn put_back(&mut self, name: DocumentName, queues: Queues) -> Vec<Settled> {
        let mut let_go = Vec::new();
        let mut kept = Queues::new();
        for (author, queue) in queues {
            let mut room = true;
            for (position, held) in queue {
                room = room && self.reserve(author, held.cost());
                if room {
                    kept.entry(author).or_default().insert(position, held);
                } else {
                    let verdict = Verdict::LetGo;
                    let_go.push(Settled {
                        author,
                        position,
                        change: None,
                        verdict,
                    });
                }
            }
            if !room {
                self.starved.insert((name, author));
            }
        }
        if !kept.is_empty() {
            self.queues.insert(name, kept);
        }
        let_go
    }

    /// Bytes of all waiting changes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether changes of this document wait.
    pub(crate) fn has(&self, name: &DocumentName) -> bool {
        self.queues.contains_key(name)
    }

    /// Forgets what waits for documents of this range.
    pub(crate) fn forget(&mut self, range: std::ops::Range<DocumentName>) {
        let names: Vec<DocumentName> = self.queues.range(range).map(|(name, _)| *name).collect();
        for name in names {
            drop(self.take(&name));
            self.starved.retain(|(starved, _)| *starved != name);
            self.wanted.retain(|(wanted, _)| *wanted != name);
        }
    }

    /// The document has grown: what was let go of it may no longer have to wait.
    pub(crate) fn grown(&mut self, name: &DocumentName) {
        let grown: Vec<_> = self
            .starved
            .iter()
            .filter(|(starved, _)| starved == name)
            .copied()
            .collect();
        for starved in grown {
            self.starved.remove(&starved);
            self.wanted.insert(starved);
        }
    }

    /// Whose changes to which document should be given again; told once.
    pub(crate) fn wanted(&mut self) -> BTreeSet<(DocumentName, MemberId)> {
        std::mem::take(&mut self.wanted)
    }

    fn reserve(&mut self, author: MemberId, cost: usize) -> bool {
        let usage = self.usage.get(&author).copied().unwrap_or_default();
        let changes = usage.changes + 1;
        let bytes = usage.bytes + cost;
        let fits = changes <= HELD_AUTHOR_CHANGES_MAX
            && bytes <= HELD_AUTHOR_BYTES_MAX
            && self.bytes + cost <= HELD_TOTAL_BYTES_MAX;
        if fits {
            self.usage.insert(author, Usage { changes, bytes });
            self.bytes += cost;
        }
        fits
    }

    fn release(&mut self, author: MemberId, cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost);
        if let Some(usage) = self.usage.get_mut(&author) {
            usage.changes = usage.changes.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(cost);
            if usage.changes == 0 {
                self.usage.remove(&author);
            }
        }
    }
}
