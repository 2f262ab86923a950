//! What was saved and reached anybody is at everybody in the end, once, whatever old folders were put back; and no
//! honest key has two histories.

use std::collections::BTreeMap;

use collab_p2p::sim::{Fact, NodeId, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct ReceivedSurvivesOldFolders;

impl Check for ReceivedSurvivesOldFolders {
    fn see(&mut self, _: &World, _: &Reference, _: &Fact) -> Result<(), String> {
        Ok(())
    }

    fn at_rest(&mut self, world: &mut World, reference: &Reference) -> Result<(), String> {
        let nodes: Vec<NodeId> = world.nodes().collect();
        for node in nodes {
            has_each_once(world, node, reference)?;
            let view = world.view(node);
            let forked = view.and_then(|view| {
                let mut notices = view.notices.iter();
                notices.find(|notice| notice.text.contains("two histories"))
            });
            if let Some(forked) = forked {
                return Err(format!("node {} was told: {}", node.0, forked.text));
            }
        }
        Ok(())
    }
}

fn has_each_once(world: &World, node: NodeId, reference: &Reference) -> Result<(), String> {
    let Some(replica) = world.engine(node).and_then(|engine| engine.replica()) else {
        return Ok(());
    };
    let mut here: BTreeMap<&str, usize> = BTreeMap::new();
    for message in replica.documents().timeline().iter() {
        *here.entry(message.text.as_str()).or_default() += 1;
    }
    for (author, text) in reference.said.values() {
        let count = here.get(text.as_str()).copied().unwrap_or(0);
        let may_be_gone = reference.forgotten.contains(text);
        if count > 1 || (count == 0 && !may_be_gone) {
            return Err(format!(
                "node {} has {text:?} of node {}, which was saved, {count} times",
                node.0, author.0
            ));
        }
    }
    Ok(())
}
