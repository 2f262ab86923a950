//! A shell reads what its controllers typed under their leases: in order, nothing twice, nothing late, and each
//! is told truly what became of it.
//!
//! Everybody types tokens: a capital letter for the node, five digits that count. So every byte on the tap names
//! who typed it, and a repetition, an overtaking or a stranger is seen in the bytes themselves.

use std::collections::{BTreeMap, BTreeSet};

use collab_p2p::engine::control::{Origin, Refusal};
use collab_p2p::engine::ids::{MemberId, TerminalId};
use collab_p2p::engine::view::What;
use collab_p2p::sim::{Fact, NodeId, World, Write};

use super::Check;
use crate::reference::{Reference, Typed};

/// Letter and digits.
const TOKEN: usize = 6;

/// What a node types as its token of this number.
pub(crate) fn token(node: NodeId, number: u32) -> Vec<u8> {
    let letter = char::from(b'A' + u8::try_from(node.0).unwrap_or(25));
    format!("{letter}{number:05}").into_bytes()
}

#[derive(Debug, Default)]
pub(crate) struct PtyBytesAreWhatLeasesAllowed {
    terminals: BTreeMap<TerminalId, Tap>,
    /// Tokens that stand whole on some tap.
    whole: BTreeSet<(NodeId, u32)>,
}

#[derive(Debug, Default)]
struct Tap {
    holders: BTreeMap<u64, MemberId>,
    living: Option<u64>,
    /// What stands on the tap of each origin, by lease number; 0 for the host's person.
    bytes: BTreeMap<u64, Vec<u8>>,
}

impl Check for PtyBytesAreWhatLeasesAllowed {
    fn see(&mut self, world: &World, _: &Reference, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Handled {
                node,
                events,
                writes,
            } => self.handled(world, *node, events, writes),
            Fact::Took {
                terminal, bytes, ..
            } => self.took(*terminal, bytes),
            Fact::Crashed { .. }
            | Fact::Replied { .. }
            | Fact::Published { .. }
            | Fact::Started { .. }
            | Fact::Stopped { .. } => Ok(()),
        }
    }

    fn at_rest(&mut self, _: &mut World, reference: &Reference) -> Result<(), String> {
        let taps: Vec<_> = self
            .terminals
            .values()
            .map(|tap| (tap.bytes.clone(), tap.holders.clone()))
            .collect();
        for (bytes, holders) in taps {
            let mut last = BTreeMap::new();
            for (number, bytes) in bytes {
                let node = match number {
                    0 => NodeId(0),
                    number => node_of(reference, holders.get(&number), number)?,
                };
                self.read(
                    reference,
                    node,
                    number,
                    &bytes,
                    last.entry((node, number > 0)).or_default(),
                )?;
            }
        }
        self.check_answers(reference)
    }
}

impl PtyBytesAreWhatLeasesAllowed {
    fn handled(
        &mut self,
        world: &World,
        node: NodeId,
        events: &[What],
        writes: &[Write],
    ) -> Result<(), String> {
        // What is written in the same breath in which a lease begins or ends may be under either.
        let mut allowed: BTreeSet<(TerminalId, u64)> = BTreeSet::new();
        let living = |tap: (&TerminalId, &Tap)| tap.1.living.map(|number| (*tap.0, number));
        allowed.extend(self.terminals.iter().filter_map(living));
        let hosts = |terminal: &TerminalId| {
            world
                .engine(node)
                .is_some_and(|engine| is_hosted(engine, terminal))
        };
        for event in events {
            if let What::ControlGranted {
                terminal,
                participant,
                number,
                ..
            } = event
                && hosts(terminal)
            {
                let tap = self.terminals.entry(*terminal).or_default();
                tap.holders.insert(*number, *participant);
                tap.living = Some(*number);
                allowed.insert((*terminal, *number));
            }
            if let What::ControlReleased { terminal, .. }
            | What::ControlRevoked { terminal, .. }
            | What::ControlTaken { terminal, .. }
            | What::ControlExpired { terminal, .. } = event
                && hosts(terminal)
            {
                self.terminals.entry(*terminal).or_default().living = None;
            }
        }
        for Write {
            terminal, origin, ..
        } in writes
        {
            if let Origin::Lease { number } = origin
                && !allowed.contains(&(*terminal, *number))
            {
                return Err(format!(
                    "keys of lease {number} are written, which does not live"
                ));
            }
        }
        Ok(())
    }

    fn took(&mut self, terminal: TerminalId, bytes: &[(u8, Origin)]) -> Result<(), String> {
        let tap = self.terminals.entry(terminal).or_default();
        for (byte, origin) in bytes {
            let number = match origin {
                Origin::Lease { number } if tap.living == Some(*number) => *number,
                Origin::Lease { number } => {
                    return Err(format!(
                        "the shell takes keys of lease {number}, which is over"
                    ));
                }
                Origin::Person { .. } => 0,
                Origin::Closing { .. } | Origin::Answer => continue,
            };
            tap.bytes.entry(number).or_default().push(*byte);
        }
        Ok(())
    }

    /// Reads the tokens of one lease, or of the host's person.
    fn read(
        &mut self,
        reference: &Reference,
        node: NodeId,
        lease: u64,
        bytes: &[u8],
        last: &mut Option<u32>,
    ) -> Result<(), String> {
        let mut cut = 0;
        let mut rest = bytes;
        while let Some((first, _)) = rest.split_first() {
            let length = 1 + rest
                .iter()
                .skip(1)
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let (piece, after) = rest.split_at(length);
            rest = after;
            let said = String::from_utf8_lossy(piece).into_owned();
            if *first != token(node, 0).first().copied().unwrap_or_default() || length > TOKEN {
                return Err(format!("lease {lease} of node {} wrote {said:?}", node.0));
            }
            if length < TOKEN {
                cut += 1;
                continue;
            }
            let number: u32 = said
                .get(1..)
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(u32::MAX);
            if !reference.typed.contains_key(&(node, number)) {
                return Err(format!("lease {lease} wrote {said:?}, which nobody typed"));
            }
            if last.is_some_and(|last| number <= last) || !self.whole.insert((node, number)) {
                return Err(format!(
                    "lease {lease} wrote {said:?} after {last:?}: twice, or late"
                ));
            }
            *last = Some(number);
        }
        // A token is cut only where a lease ends or its typist's process dies.
        let crashes = reference.crashes.get(&node).copied().unwrap_or_default();
        if cut > 1 + crashes {
            return Err(format!(
                "lease {lease} of node {} wrote {cut} torn tokens",
                node.0
            ));
        }
        Ok(())
    }

    fn check_answers(&self, reference: &Reference) -> Result<(), String> {
        let not_held = Refusal::NotHeld.to_string();
        for ((node, number), answer) in &reference.typed {
            let written = self.whole.contains(&(*node, *number));
            match answer {
                Some(Typed::Taken) if !written => {
                    return Err(format!(
                        "token {number} of node {} is said to be taken, and is not",
                        node.0
                    ));
                }
                Some(Typed::Failed(error)) if written && error.message == not_held => {
                    return Err(format!(
                        "token {number} of node {} was refused, and is written",
                        node.0
                    ));
                }
                Some(Typed::Taken | Typed::Failed(_)) | None => {}
            }
        }
        Ok(())
    }
}

fn is_hosted(engine: &collab_p2p::engine::Engine, terminal: &TerminalId) -> bool {
    let replica = engine.replica();
    let own = replica.and_then(|replica| replica.documents().member(&engine.me()));
    own.is_some_and(|state| state.terminals.contains_key(terminal))
}

fn node_of(
    reference: &Reference,
    holder: Option<&MemberId>,
    number: u64,
) -> Result<NodeId, String> {
    let holds = |(_, member): &(&NodeId, &MemberId)| Some(*member) == holder;
    let node = reference.members.iter().find(holds).map(|(node, _)| *node);
    node.ok_or_else(|| format!("keys of lease {number} are on the tap, which nobody was given"))
}
