//! What a node holds of another's log, that other has written.

use collab_p2p::sim::World;

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct NobodySpeaksForAnother;

impl Check for NobodySpeaksForAnother {
    fn at_rest(&mut self, world: &mut World, reference: &Reference) -> Result<(), String> {
        for (author, member) in &reference.members {
            let Some(own) = world.engine(*author).and_then(|engine| engine.replica()) else {
                continue;
            };
            for node in world.nodes() {
                let replica = world.engine(node).and_then(|engine| engine.replica());
                let Some(replica) = replica else { continue };
                for seq in 1..=replica.logs().frontier(member).seq {
                    let (here, there) = (
                        replica.logs().hash_at(member, seq),
                        own.logs().hash_at(member, seq),
                    );
                    if here.is_some() && here != there {
                        return Err(format!(
                            "node {} holds an entry {seq} that node {} has not written",
                            node.0, author.0
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
