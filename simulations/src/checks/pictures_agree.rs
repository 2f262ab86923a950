//! Once faults are over, every viewer has the host's picture.

use std::collections::BTreeMap;

use collab_p2p::engine::ids::TerminalId;
use collab_p2p::sim::{NodeId, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct PicturesAgree;

impl Check for PicturesAgree {
    fn at_rest(&mut self, world: &mut World, _: &Reference) -> Result<(), String> {
        let nodes: Vec<NodeId> = world.nodes().collect();
        let mut hosts: BTreeMap<TerminalId, String> = BTreeMap::new();
        for node in &nodes {
            let own = terminals(world, *node, true)?;
            hosts.extend(own);
        }
        for node in nodes {
            let seen = terminals(world, node, false)?;
            for (terminal, picture) in &hosts {
                if seen.get(terminal).is_some_and(|seen| seen == picture) {
                    continue;
                }
                let short = terminal.short();
                let own = world.member(node);
                let shown = seen.get(terminal);
                if world.view(node).is_some_and(|view| {
                    view.terminals
                        .iter()
                        .any(|one| one.id == *terminal && Some(one.host) == own)
                }) {
                    continue;
                }
                return Err(format!(
                    "node {} sees {shown:?} of terminal {short}, its host {picture:?}",
                    node.0
                ));
            }
        }
        Ok(())
    }
}

/// The pictures of the open terminals that run at a node, or elsewhere.
fn terminals(
    world: &mut World,
    node: NodeId,
    mine: bool,
) -> Result<BTreeMap<TerminalId, String>, String> {
    let view = world
        .view(node)
        .ok_or_else(|| format!("node {} is no member", node.0))?;
    let wanted: Vec<TerminalId> = view
        .terminals
        .iter()
        .filter(|terminal| terminal.open && terminal.mine == mine)
        .map(|terminal| terminal.id)
        .collect();
    let screens = world.screens(node);
    let picture = |id: TerminalId| Some((id, format!("{:?}", screens.get(&id)?.as_ref())));
    Ok(wanted.into_iter().filter_map(picture).collect())
}
