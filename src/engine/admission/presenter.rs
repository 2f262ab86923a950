//! A member who dials one that it does not know, or that does not know it.

use std::fmt;

use crate::engine::entropy::Entropy;
use crate::engine::identity::Verified;
use crate::engine::ids::MemberId;
use crate::engine::limits::{ADMISSION_MESSAGE_BYTES_MAX, ADMISSION_SHOWN_BYTES_MAX};
use crate::engine::statement::Statement;
use crate::engine::time::{Mono, Now};

use super::proof::{Dialler, Transcript};
use super::{
    AdmissionDeadline, AdmissionInput, AdmissionMessage, AdmissionOutput, Received, Refusal,
    SessionContext, TRANSFER, UNPROVEN, is_member, recognise, refused_by, send, show,
};

/// A member whom the other side may not know, or who does not know the other side; it dials.
pub struct Presenter {
    dialler: Dialler,
    phase: Presenting,
    deadline: Option<(Mono, AdmissionDeadline)>,
}

enum Presenting {
    Greeting,
    Proving(Transcript),
    Asking,
    Shown,
    Watching(Received),
    Ended,
}

impl Presenter {
    /// Starts with a connection to `peer`. The first message goes out on [`AdmissionInput::Opened`].
    pub fn new(
        us: MemberId,
        peer: MemberId,
        discovery_key: [u8; 32],
        now: Now,
        entropy: &mut Entropy,
    ) -> Self {
        let dialler = Dialler::new(us, peer, discovery_key, entropy);
        let deadline = Some((now.mono + UNPROVEN, AdmissionDeadline::Unproven));
        Self {
            dialler,
            phase: Presenting::Greeting,
            deadline,
        }
    }

    /// The peer that is dialled.
    pub fn peer(&self) -> MemberId {
        self.dialler.peer
    }

    /// When to feed a tick at the latest, and why.
    pub fn deadline(&self) -> Option<(Mono, AdmissionDeadline)> {
        self.deadline
    }

    /// Takes one input.
    pub fn handle(
        &mut self,
        input: AdmissionInput,
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) {
        if matches!(self.phase, Presenting::Ended) {
            return;
        }
        let late = self.deadline.is_some_and(|(at, _)| now.mono >= at);
        let step = match input {
            AdmissionInput::Opened => {
                send(out, &self.dialler.hello());
                Ok(())
            }
            AdmissionInput::Received(bytes) => self.receive(&bytes, now, ctx, out),
            AdmissionInput::Tick if late => Err(Refusal::Silent),
            AdmissionInput::Tick | AdmissionInput::Decided { .. } => Ok(()),
            AdmissionInput::Closed => Err(Refusal::Silent),
        };
        if let Err(refusal) = step {
            self.end();
            out.extend(
                refusal
                    .to_message()
                    .map(|message| AdmissionOutput::Send(message.encode())),
            );
            out.push(AdmissionOutput::Refused(refusal));
            out.push(AdmissionOutput::Close);
        }
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.phase, Presenting::Ended) {
            Presenting::Greeting => {
                let (transcript, proof) = self.dialler.prove(bytes)?;
                send(out, &proof);
                self.phase = Presenting::Proving(transcript);
            }
            Presenting::Proving(transcript) => {
                self.dialler.check(&transcript, bytes)?;
                let knows_you = is_member(ctx.membership, &self.dialler.peer, now.wall);
                send(out, &AdmissionMessage::Member { knows_you });
                self.phase = Presenting::Asking;
                self.wait(now);
            }
            Presenting::Asking => self.asked(bytes, now, ctx, out)?,
            Presenting::Shown => {
                let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
                if message != AdmissionMessage::Done {
                    return Err(refused_by(message));
                }
                self.finish(Vec::new(), out);
            }
            Presenting::Watching(received) => self.watch(bytes, received, now, ctx, out)?,
            Presenting::Ended => {}
        }
        Ok(())
    }

    fn asked(
        &mut self,
        bytes: &[u8],
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
        let AdmissionMessage::Member {
            knows_you: knows_us,
        } = message
        else {
            return Err(refused_by(message));
        };
        if !knows_us {
            show(ctx.membership, &self.dialler.us, out);
        }
        self.phase = if is_member(ctx.membership, &self.dialler.peer, now.wall) {
            Presenting::Shown
        } else {
            Presenting::Watching(Received::new(ADMISSION_SHOWN_BYTES_MAX))
        };
        self.wait(now);
        Ok(())
    }

    fn watch(
        &mut self,
        bytes: &[u8],
        mut received: Received,
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
        let AdmissionMessage::Shown(batch) = message else {
            return Err(refused_by(message));
        };
        if !received.take(&batch)? {
            self.phase = Presenting::Watching(received);
            self.wait(now);
            return Ok(());
        }
        recognise(
            ctx.membership,
            &self.dialler.peer,
            &received.statements,
            now.wall,
        )?;
        send(out, &AdmissionMessage::Done);
        self.finish(received.statements, out);
        Ok(())
    }

    fn finish(&mut self, statements: Vec<Verified<Statement>>, out: &mut Vec<AdmissionOutput>) {
        out.push(AdmissionOutput::Recognised {
            member: self.dialler.peer,
            statements,
        });
        out.push(AdmissionOutput::Close);
        self.end();
    }

    fn wait(&mut self, now: Now) {
        self.deadline = Some((now.mono + TRANSFER, AdmissionDeadline::Transfer));
    }

    fn end(&mut self) {
        self.phase = Presenting::Ended;
        self.deadline = None;
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Presenting::Greeting => "greeting",
            Presenting::Proving(_) => "proving",
            Presenting::Asking => "asking",
            Presenting::Shown => "shown",
            Presenting::Watching(_) => "watching",
            Presenting::Ended => "ended",
        };
        write!(f, "Presenter(to {}, {phase})", self.dialler.peer.short())
    }
}
