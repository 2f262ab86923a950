//! Orders of members who may decide who has control of a terminal that runs elsewhere.
//!
//! An order is signed by its author, comes on the author's own stream, answers a challenge that the terminal's
//! host made for this attachment and uses once, and names the lease number it was made for. So it cannot be
//! repeated, carried over to another terminal, or hit a lease that its author has not seen.

use serde::{Deserialize, Serialize};

use super::{Place, encode};
use crate::engine::identity::{self, MemberKey, Signature};
use crate::engine::ids::{MemberId, SessionId, TerminalId};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Give the lease to somebody, whoever has it now.
    Grant {
        /// To whom.
        to: MemberId,
        /// For how long, in seconds; the host's default if not said.
        duration_s: Option<u32>,
    },
    /// Take the lease oneself.
    Take {
        /// For how long, in seconds; the host's default if not said.
        duration_s: Option<u32>,
    },
    /// End the living lease.
    Revoke,
    /// End the living lease and forbid others.
    Lock,
    /// Allow leases again.
    Unlock,
}

/// An order for one terminal at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The session.
    pub session: SessionId,
    /// The terminal.
    pub terminal: TerminalId,
    /// The challenge it answers.
    pub challenge: [u8; 16],
    /// The newest lease number its author knew.
    pub number: u64,
    /// What is to be done.
    pub action: Action,
}

/// An order under its author's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrder {
    /// The order.
    pub order: Order,
    /// The author's signature over [`Order::signing_bytes`].
    pub signature: Signature,
}

impl Order {
    /// What the author signs: the canonical encoding, under the order's domain.
    pub fn signing_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Signs as its author.
    pub fn sign(self, key: &MemberKey) -> SignedOrder {
        let signature = key.sign(identity::Domain::Order, &self.signing_bytes());
        SignedOrder {
            order: self,
            signature,
        }
    }
}

impl SignedOrder {
    /// Whether `author` made it for this place.
    pub(super) fn is_of(&self, author: &MemberId, place: &Place) -> bool {
        self.order.session == place.session
            && self.order.terminal == place.terminal
            && identity::verify(
                author,
                identity::Domain::Order,
                &self.order.signing_bytes(),
                &self.signature,
            )
            .is_ok()
    }
}
