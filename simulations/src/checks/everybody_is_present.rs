//! Once faults are over, everybody sees everybody.

use collab_p2p::engine::view::Status;
use collab_p2p::sim::{NodeId, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct EverybodyIsPresent;

impl Check for EverybodyIsPresent {
    fn at_rest(&mut self, world: &mut World, reference: &Reference) -> Result<(), String> {
        let nodes: Vec<NodeId> = world.nodes().collect();
        for node in nodes {
            let view = world
                .view(node)
                .ok_or_else(|| format!("node {} is no member", node.0))?;
            for (other, member) in &reference.members {
                let seen = view.participants.iter().find(|one| one.id == *member);
                let status = seen.map(|one| one.status);
                if status.is_none_or(|status| status == Status::Gone) {
                    return Err(format!(
                        "node {} sees node {} as {status:?}",
                        node.0, other.0
                    ));
                }
            }
        }
        Ok(())
    }
}
