//! Names of things: 32-byte hashes and keys, 16-byte drawn ids, and their text form (lower-case hex).

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is no id of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, got {got:?}")]
pub struct ParseIdError {
    /// Digits that the id has.
    pub expected: usize,
    /// The text, cut at 80 characters.
    pub got: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes of the id.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten hexadecimal digits, for people and logs.
            pub fn short(&self) -> String {
                self.to_string().chars().take(10).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError {
                        expected: $len * 2,
                        got: text.chars().take(80).collect(),
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// A blake3 hash, domain-separated by its use.
    Hash, 32
}
id! {
    /// A session: the hash of its genesis statement.
    SessionId, 32
}
id! {
    /// A member of a session: its ed25519 public key, which is also the node's libp2p identity.
    MemberId, 32
}
id! {
    /// A shared terminal: drawn anew for every shell.
    TerminalId, 16
}
id! {
    /// An invitation: the ed25519 public key derived from the ticket's seed.
    InviteId, 32
}
id! {
    /// A document of a session: the hash of its genesis fields.
    DocumentId, 32
}
id! {
    /// A chat message: the hash of its document and its place there.
    MessageId, 16
}
id! {
    /// A gossip topic: a keyed hash, so that outsiders learn nothing from it.
    TopicId, 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_and_binary_round_trips() {
        let id = TerminalId([7; 16]);

        assert_eq!(id.to_string().parse::<TerminalId>(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<TerminalId>(&json).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes.len(), 16);
        assert_eq!(postcard::from_bytes::<TerminalId>(&bytes).unwrap(), id);
    }

    #[test]
    fn a_text_of_another_length_is_no_id() {
        assert!("07".parse::<TerminalId>().is_err());
        assert!("zz".repeat(16).parse::<TerminalId>().is_err());
        assert!("é".repeat(16).parse::<TerminalId>().is_err());
    }
}
