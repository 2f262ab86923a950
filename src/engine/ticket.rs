//! The invitation as text: `cp2p1` and lower-case base32 of payload and checksum.
//!
//! A ticket is a secret: whoever holds it can join. It is never sent over the wire, and printing one by `Debug`
//! shows its session only; [`Ticket::to_text`] is the one way to the text.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::engine::identity::InviteKey;
use crate::engine::ids::{MemberId, SessionId};
use crate::engine::time::Wall;
