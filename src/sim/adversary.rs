//! A peer's worst manners, each behind a switch. It sees every message of gossip and of the input lane, says
//! old ones again, and says altered ones in others' names. Honest engines must not care.

use super::agenda::Dice;
use crate::engine::control::{InputMessage, ToHost};

/// What it remembers of each kind.
const MEMORY: usize = 64;

/// Switches, in per cent of the messages that pass. On the input lane only `member` forges: what a holder says on
/// its own stream under its own lease is no forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adversary {
    /// Says an old message again.
    pub replay: u32,
    /// Says an altered message.
    pub forge: u32,
    /// Who forges keys: a member that never has control.
    pub member: Option<usize>,
}

/// What it has seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    gossip: Vec<Vec<u8>>,
    input: Vec<Vec<u8>>,
}

impl Memory {
    /// A gossip message passes. Returns what is said besides, in the name of its sender.
    pub(super) fn gossip(
        &mut self,
        manners: Adversary,
        data: &[u8],
        dice: &mut Dice,
    ) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        if dice.percent(manners.replay) {
            said.extend(pick(&self.gossip, dice));
        }
        if dice.percent(manners.forge) {
            said.push(altered(data, dice));
        }
        keep(&mut self.gossip, data, dice);
        said
    }

    /// A message of the input lane passes. Returns what is said besides, on the same stream.
    pub(super) fn input(
        &mut self,
        manners: Adversary,
        from: usize,
        data: &[u8],
        dice: &mut Dice,
    ) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        if dice.percent(manners.replay) {
            said.extend(pick(&self.input, dice));
        }
        if manners.member == Some(from) && dice.percent(manners.forge) {
            said.extend(pick(&self.input, dice).and_then(|old| renumbered(&old, dice)));
        }
        keep(&mut self.input, data, dice);
        said
    }
}

fn keep(memory: &mut Vec<Vec<u8>>, data: &[u8], dice: &mut Dice) {
    if memory.len() < MEMORY {
        memory.push(data.to_vec());
    } else if let Some(place) = memory.get_mut(dice.index(MEMORY)) {
        *place = data.to_vec();
    }
}

fn pick(memory: &[Vec<u8>], dice: &mut Dice) -> Option<Vec<u8>> {
    memory.get(dice.index(memory.len())).cloned()
}

/// The same with one bit changed.
fn altered(data: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut data = data.to_vec();
    let place = dice.index(data.len());
    let bit = dice.index(8);
    if let Some(byte) = data.get_mut(place) {
        *byte ^= 1 << bit;
    }
    data
}

/// Somebody's keys under another lease, attachment or position.
fn renumbered(data: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let mut message = InputMessage::decode(data).ok()?;
    if let ToHost::Input {
        number,
        attachment,
        seq,
        ..
    } = &mut message.body
    {
        *number = dice.between(number.saturating_sub(1), *number + 2);
        *attachment = dice.between(attachment.saturating_sub(2), *attachment + 3);
        *seq = dice.between(seq.saturating_sub(3), *seq + 3);
    }
    Some(message.encode())
}
