//! Once faults are over, all members have the same logs, the same documents and the same picture.

use collab_p2p::sim::{NodeId, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct DocumentsConverge;

impl Check for DocumentsConverge {
    fn at_rest(&mut self, world: &mut World, _: &Reference) -> Result<(), String> {
        let nodes: Vec<NodeId> = world.nodes().collect();
        let mut known: Vec<(NodeId, Vec<String>)> = Vec::new();
        for node in nodes {
            let has = holdings(world, node)?;
            if let Some((other, theirs)) = known.first()
                && let Some((here, there)) = has.iter().zip(theirs).find(|(a, b)| a != b)
            {
                return Err(format!(
                    "node {} has {there}\n  and node {} {here}",
                    other.0, node.0
                ));
            }
            known.push((node, has));
        }
        Ok(())
    }
}

/// What a node has, in comparable words.
fn holdings(world: &mut World, node: NodeId) -> Result<Vec<String>, String> {
    let missing = || format!("node {} is no member", node.0);
    let view = world.view(node).ok_or_else(missing)?;
    let participants: Vec<_> = view
        .participants
        .iter()
        .map(|one| (one.id, one.name.clone(), one.role))
        .collect();
    let messages: Vec<_> = view
        .messages
        .iter()
        .map(|one| (&one.id, one.from, &one.text))
        .collect();
    let shown = format!("{:?} {participants:?} {messages:?}", view.session.title);
    let replica = world
        .engine(node)
        .and_then(|engine| engine.replica())
        .ok_or_else(missing)?;
    let logs: Vec<String> = replica
        .vector()
        .into_iter()
        .map(|(member, end)| format!("{}:{}:{}", member.short(), end.seq, end.hash.short()))
        .collect();
    let logs = format!("logs {}", logs.join(" "));
    let documents = format!("documents {:?}", replica.documents().heads());
    if let Some(fault) = replica.documents().faults().next() {
        return Err(format!("node {}: {fault}", node.0));
    }
    Ok(vec![logs, documents, shown])
}
