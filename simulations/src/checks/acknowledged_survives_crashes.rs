//! What a node said is saved is there at its next start, and in the end everywhere.

use collab_p2p::engine::ids::MemberId;
use collab_p2p::sim::{Fact, NodeId, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct AcknowledgedSurvivesCrashes;

impl Check for AcknowledgedSurvivesCrashes {
    fn see(&mut self, world: &World, reference: &Reference, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Started { node, member } => {
                let own = |author: NodeId| author == *node;
                let same = reference.members.get(node) == Some(member);
                if same {
                    has_all(world, *node, reference, own)
                } else {
                    Ok(())
                }
            }
            Fact::Handled { .. }
            | Fact::Replied { .. }
            | Fact::Took { .. }
            | Fact::Published { .. }
            | Fact::Crashed { .. }
            | Fact::Stopped { .. } => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &mut World, reference: &Reference) -> Result<(), String> {
        world
            .nodes()
            .try_for_each(|node| has_all(world, node, reference, |_| true))
    }
}

fn has_all(
    world: &World,
    node: NodeId,
    reference: &Reference,
    of: impl Fn(NodeId) -> bool,
) -> Result<(), String> {
    let Some(replica) = world.engine(node).and_then(|engine| engine.replica()) else {
        return Ok(());
    };
    let here: std::collections::BTreeMap<String, (MemberId, &str)> = replica
        .documents()
        .timeline()
        .iter()
        .map(|message| {
            (
                message.id.to_string(),
                (message.author, message.text.as_str()),
            )
        })
        .collect();
    for (id, (author, text)) in reference.said.iter().filter(|(_, (author, _))| of(*author)) {
        match here.get(id) {
            Some((_, said)) if said == text => {}
            Some((_, said)) => {
                return Err(format!(
                    "node {} has {said:?} for {text:?} of node {}",
                    node.0, author.0
                ));
            }
            None => {
                return Err(format!(
                    "node {} lacks {text:?} of node {}, which was saved",
                    node.0, author.0
                ));
            }
        }
    }
    Ok(())
}
