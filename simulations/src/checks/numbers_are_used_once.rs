//! No member ever gives one number of its log to two entries.

use std::collections::BTreeMap;

use collab_p2p::engine::ids::{Hash, MemberId};
use collab_p2p::engine::log::Entry;
use collab_p2p::sim::{Fact, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct NumbersAreUsedOnce {
    known: BTreeMap<(MemberId, u64), Hash>,
}

impl Check for NumbersAreUsedOnce {
    fn see(&mut self, _: &World, _: &Reference, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Published { data, .. } => match Entry::decode(data) {
                Ok(entry) => self.note(entry.member(), entry.seq(), entry.hash()),
                // Presence is published, too.
                Err(_) => Ok(()),
            },
            Fact::Handled { .. }
            | Fact::Replied { .. }
            | Fact::Took { .. }
            | Fact::Started { .. }
            | Fact::Crashed { .. }
            | Fact::Stopped { .. } => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &mut World, _: &Reference) -> Result<(), String> {
        for node in world.nodes() {
            let Some(replica) = world.engine(node).and_then(|engine| engine.replica()) else {
                continue;
            };
            for (member, reached) in replica.vector() {
                for seq in 1..=reached.seq {
                    if let Some(hash) = replica.logs().hash_at(&member, seq) {
                        self.note(member, seq, hash)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl NumbersAreUsedOnce {
    fn note(&mut self, member: MemberId, seq: u64, hash: Hash) -> Result<(), String> {
        let known = *self.known.entry((member, seq)).or_insert(hash);
        if known == hash {
            return Ok(());
        }
        Err(format!(
            "entry {seq} of {} is {} and {}",
            member.short(),
            known.short(),
            hash.short()
        ))
    }
}
