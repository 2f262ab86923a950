//! A terminal has at most one controller, and the numbers of its leases only grow.

use std::collections::BTreeMap;

use collab_p2p::engine::ids::{MemberId, TerminalId};
use collab_p2p::engine::view::What;
use collab_p2p::sim::{Fact, NodeId, World};

use super::Check;
use crate::reference::Reference;

#[derive(Debug, Default)]
pub(crate) struct OneControllerAtATime {
    terminals: BTreeMap<TerminalId, Terminal>,
}

/// A terminal as its own host tells of it.
#[derive(Debug)]
struct Terminal {
    host: NodeId,
    /// The holder of each number.
    holders: BTreeMap<u64, MemberId>,
    living: Option<u64>,
}

impl Check for OneControllerAtATime {
    fn see(&mut self, world: &World, _: &Reference, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Handled { node, events, .. } => events
                .iter()
                .try_for_each(|event| self.event(world, *node, event)),
            Fact::Replied { .. }
            | Fact::Took { .. }
            | Fact::Published { .. }
            | Fact::Started { .. }
            | Fact::Crashed { .. }
            | Fact::Stopped { .. } => Ok(()),
        }
    }

    fn at_rest(&mut self, world: &mut World, _: &Reference) -> Result<(), String> {
        let nodes: Vec<NodeId> = world.nodes().collect();
        for node in nodes {
            let me = world.member(node);
            let Some(view) = world.view(node) else {
                continue;
            };
            for terminal in view.terminals.iter().filter(|terminal| terminal.open) {
                let Some(known) = self.terminals.get(&terminal.id) else {
                    continue;
                };
                let holder = known
                    .living
                    .and_then(|number| known.holders.get(&number))
                    .copied();
                if terminal.control.holder != holder || terminal.control.mine != (holder == me) {
                    return Err(format!(
                        "node {} shows {:?} (mine: {}) in control, at its host it is {holder:?}",
                        node.0, terminal.control.holder, terminal.control.mine
                    ));
                }
            }
        }
        Ok(())
    }
}

impl OneControllerAtATime {
    fn event(&mut self, world: &World, node: NodeId, event: &What) -> Result<(), String> {
        if let What::TerminalOpened { terminal, host, .. } = event
            && world.member(node) == Some(*host)
        {
            let fresh = Terminal {
                host: node,
                holders: BTreeMap::new(),
                living: None,
            };
            self.terminals.entry(*terminal).or_insert(fresh);
        }
        if let What::ControlGranted {
            terminal,
            participant,
            number,
            ..
        } = event
        {
            self.granted(node, *terminal, *participant, *number)?;
        }
        if let What::ControlReleased {
            terminal, number, ..
        }
        | What::ControlRevoked {
            terminal, number, ..
        }
        | What::ControlTaken {
            terminal, number, ..
        }
        | What::ControlExpired {
            terminal, number, ..
        } = event
            && let Some(known) = self
                .terminals
                .get_mut(terminal)
                .filter(|known| known.host == node)
        {
            if known.living != Some(*number) {
                return Err(format!(
                    "lease {number} ends while {:?} lives",
                    known.living
                ));
            }
            known.living = None;
        }
        Ok(())
    }

    fn granted(
        &mut self,
        node: NodeId,
        terminal: TerminalId,
        to: MemberId,
        number: u64,
    ) -> Result<(), String> {
        let Some(known) = self.terminals.get_mut(&terminal) else {
            return Ok(());
        };
        let holder = known.holders.get(&number).copied();
        if node != known.host {
            return match holder {
                Some(holder) if holder == to => Ok(()),
                Some(_) | None => Err(format!(
                    "node {} has lease {number}, not given to it",
                    node.0
                )),
            };
        }
        let prolonged = known.living == Some(number) && holder == Some(to);
        let newest = known
            .holders
            .last_key_value()
            .map_or(0, |(number, _)| *number);
        if !prolonged && (known.living.is_some() || number <= newest) {
            return Err(format!(
                "lease {number} is given to {} while {:?} lives, the newest being {newest}",
                to.short(),
                known.living
            ));
        }
        known.holders.insert(number, to);
        known.living = Some(number);
        Ok(())
    }
}
