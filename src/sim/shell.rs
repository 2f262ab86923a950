//! A shell behind a PTY with a tap: what it takes is written down, byte by byte, with its origin.

use std::collections::VecDeque;

use super::agenda::Dice;
use crate::engine::control::{Authorized, Origin};
use crate::pty::echo::Echo;

/// The most that a PTY takes at once.
const TAKEN_AT_ONCE_MAX: u64 = 4096;

/// A shell that runs.
#[derive(Debug)]
pub(super) struct Shell {
    echo: Echo,
    queue: VecDeque<(u8, Origin)>,
    total: u64,
}

/// What a shell took at once.
#[derive(Debug)]
pub(super) struct Bite {
    /// Bytes with their origins.
    pub(super) bytes: Vec<(u8, Origin)>,
    /// All that it has taken.
    pub(super) total: u64,
    /// What it printed.
    pub(super) output: Vec<u8>,
    /// Its status, if it has ended.
    pub(super) status: Option<i32>,
}

impl Shell {
    /// Starts a shell; returns what it prints first.
    pub(super) fn start() -> (Self, Vec<u8>) {
        let (echo, prompt) = Echo::start();
        (
            Self {
                echo,
                queue: VecDeque::new(),
                total: 0,
            },
            prompt,
        )
    }

    /// Queues input.
    pub(super) fn write(&mut self, input: Authorized<Vec<u8>>) {
        let origin = input.origin();
        self.queue
            .extend(input.into_inner().into_iter().map(|byte| (byte, origin)));
    }

    /// Throws away what was not taken. Returns how much was.
    pub(super) fn withdraw(&mut self) -> u64 {
        self.queue.clear();
        self.total
    }

    /// Whether input waits.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes some input.
    pub(super) fn take(&mut self, dice: &mut Dice) -> Bite {
        let count = usize::try_from(dice.between(1, TAKEN_AT_ONCE_MAX)).unwrap_or(1);
        let bytes: Vec<(u8, Origin)> = self.queue.drain(..count.min(self.queue.len())).collect();
        self.total += bytes.len() as u64;
        let plain: Vec<u8> = bytes.iter().map(|(byte, _)| *byte).collect();
        let output = self.echo.input(&plain);
        Bite {
            bytes,
            total: self.total,
            output,
            status: self.echo.status(),
        }
    }
}
