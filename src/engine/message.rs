//! What travels on the control lane and on gossip, and its canonical encoding.
//!
//! Encoding: postcard; what decodes is encoded again and compared, so that each message has one form. Sizes
//! are checked before anything is allocated; batches are compressed and their unpacked size is bounded.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::address::Addr;
use crate::engine::bounded;
use crate::engine::compression;
use crate::engine::identity::{Domain, IdentityError, MemberKey, Signature, verify};
use crate::engine::ids::{Hash, MemberId, SessionId};
use crate::engine::limits::{
    ADDRS_PER_PEER_MAX, CONTROL_MESSAGE_BYTES_MAX, ENTRY_BYTES_MIN, FETCH_BYTES_MAX,
    FETCH_LOGS_MAX, MEMBERS_MAX, PROTOCOL_VERSION,
};

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Over the lane's limit; nothing was read.
    #[error("a message of {0} bytes, at most {CONTROL_MESSAGE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// Truncated, not in canonical form, or with a list longer than allowed.
    #[error("the bytes are truncated, not in canonical form, or hold a list that is too long")]
    Malformed,
    /// A list longer than allowed.
    #[error("the list {0} is longer than allowed")]
    TooMany(&'static str),
    /// A signature does not hold.
    #[error(transparent)]
    Signature(#[from] IdentityError),
}

/// How far a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reached {
    /// The newest entry's number; 0 if there is none.
    pub seq: u64,
    /// Its hash; all zero if there is none.
    pub hash: Hash,
}

/// A start of a member's node, under the member's signature, so that others may keep and repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedInstance {
    /// The member.
    pub member: MemberId,
    /// Grows with each start.
    pub number: u64,
    /// Drawn at each start: tells apart two that took the same number.
    pub run: u64,
    /// Over session, number and run.
    pub signature: Signature,
}

impl SignedInstance {
    /// Which of two of the same member is newer: the greater. Of two with the same number, drawn by lot.
    pub fn age(&self) -> (u64, u64) {
        (self.number, self.run)
    }
}

/// A member's node says over somebody's fresh challenge that it runs: to the other node that runs with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAlive {
    /// The member.
    pub member: MemberId,
    /// The start's lot, as in [`SignedInstance`].
    pub run: u64,
    /// What was drawn by the node that is to believe it.
    pub challenge: [u8; 32],
    /// Over session, run and challenge.
    pub signature: Signature,
}

impl SignedAlive {
    /// Signs the answer to a challenge.
    pub fn sign(key: &MemberKey, session: &SessionId, run: u64, challenge: [u8; 32]) -> Self {
        let signature = key.sign(Domain::Alive, &alive_bytes(session, run, &challenge));
        Self {
            member: key.id(),
            run,
            challenge,
            signature,
        }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// It is not the member's.
    pub fn check(&self, session: &SessionId) -> Result<(), MessageError> {
        let bytes = alive_bytes(session, self.run, &self.challenge);
        Ok(verify(
            &self.member,
            Domain::Alive,
            &bytes,
            &self.signature,
        )?)
    }
}

fn alive_bytes(session: &SessionId, run: u64, challenge: &[u8; 32]) -> Vec<u8> {
    encoded(&(session, run, challenge))
}

/// Where a member may be dialled, under its signature; the newest (instance, counter) counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAddresses {
    /// The member.
    pub member: MemberId,
    /// Of which start.
    pub instance: u64,
    /// Grows with each change in that start.
    pub counter: u64,
    /// At most eight.
    #[serde(deserialize_with = "bounded::list::<_, _, ADDRS_PER_PEER_MAX>")]
    pub addrs: Vec<Addr>,
    /// The machine's mark: the hash of the member's key under the secret of a user's run folder. Who has the
    /// same folder may dial the loopback addresses.
    pub mark: Hash,
    /// Over all of that and the session.
    pub signature: Signature,
}

impl SignedAddresses {
    /// Which of two of the same member is newer: the greater.
    pub fn age(&self) -> (u64, u64) {
        (self.instance, self.counter)
    }
}

/// The first message of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol's version.
    pub version: u16,
    /// The sender's start.
    pub instance: SignedInstance,
    /// The receiver's start that the sender heard of last.
    pub your_instance: Option<SignedInstance>,
    /// How far the sender knows the receiver's log.
    pub your_log: Reached,
    /// Where the sender may be dialled.
    pub addresses: SignedAddresses,
    /// Drawn by the sender for this connection.
    pub challenge: [u8; 32],
    /// Whether somebody else is connected to the sender with the receiver's key.
    pub another: bool,
}

/// A presence that somebody else has published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedPresence {
    /// How long ago the sender of this message heard it, in milliseconds.
    pub age_ms: u32,
    /// The signed message as it was published.
    pub message: Vec<u8>,
}

/// A message on the control lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// First on each control stream.
    Hello(Box<Hello>),
    /// Heartbeat, with a digest of the sender's vector.
    Ping {
        /// Returned in the answer.
        nonce: u64,
        /// The hash of what [`PeerMessage::Vector`] would hold.
        vector: Hash,
    },
    /// Answer to a heartbeat.
    Pong {
        /// Of the heartbeat.
        nonce: u64,
    },
    /// How far the sender knows each log.
    Vector(
        #[serde(deserialize_with = "bounded::list::<_, _, { 2 * MEMBERS_MAX }>")]
        Vec<(MemberId, Reached)>,
    ),
    /// The sender asks for entries after these numbers.
    Want(#[serde(deserialize_with = "bounded::list::<_, _, FETCH_LOGS_MAX>")] Vec<(MemberId, u64)>),
    /// Entries that were asked for, compressed.
    Entries {
        /// [`pack`]ed entries, in order within each log.
        packed: Vec<u8>,
        /// Whether the sender has no more of what was asked.
        done: bool,
    },
    /// The sender lacks the bodies of these envelopes.
    WantBodies(#[serde(deserialize_with = "bounded::list::<_, _, FETCH_LOGS_MAX>")] Vec<Hash>),
    /// Bodies that were asked for, compressed: each the hash of the envelope and the body.
    Bodies(
        #[serde(deserialize_with = "bounded::list::<_, _, FETCH_LOGS_MAX>")] Vec<(Hash, Vec<u8>)>,
    ),
    /// The sender lacks the secrets of these epochs.
    WantEpochs(#[serde(deserialize_with = "bounded::list::<_, _, FETCH_LOGS_MAX>")] Vec<Hash>),
    /// Secrets that were asked for: the epoch and its secret, checked by the receiver against the commitment.
    Epochs(
        #[serde(deserialize_with = "bounded::list::<_, _, FETCH_LOGS_MAX>")] Vec<(Hash, [u8; 32])>,
    ),
    /// The newest presences that the sender knows: member, instance, generation.
    PresenceHave(
        #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")] Vec<(MemberId, u64, u64)>,
    ),
    /// Presences that the receiver seems to lack.
    Presences(
        #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")] Vec<PassedPresence>,
    ),
    /// Where members may be dialled.
    Addresses(
        #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")] Vec<SignedAddresses>,
    ),
    /// About control of a terminal that the sender hosts: an encoded
    /// [`crate::engine::control::ControlMessage`].
    Lease(Vec<u8>),
    /// The sender goes offline.
    Bye,
    /// Somebody else is connected to the sender with the receiver's key, and drew this.
    Challenge([u8; 32]),
    /// The answer to a challenge: to whoever passed it on, and by it to whoever drew it.
    Alive(Box<SignedAlive>),
}

impl SignedInstance {
    /// Signs a start.
    pub fn sign(key: &MemberKey, session: &SessionId, (number, run): (u64, u64)) -> Self {
        let signature = key.sign(Domain::Hello, &instance_bytes(session, (number, run)));
        Self {
            member: key.id(),
            number,
            run,
            signature,
        }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// It is not the member's.
    pub fn check(&self, session: &SessionId) -> Result<(), MessageError> {
        let bytes = instance_bytes(session, self.age());
        Ok(verify(
            &self.member,
            Domain::Hello,
            &bytes,
            &self.signature,
        )?)
    }
}

fn instance_bytes(session: &SessionId, at: (u64, u64)) -> Vec<u8> {
    encoded(&(session, at))
}

impl SignedAddresses {
    /// Signs addresses; more than eight are cut.
    pub fn sign(
        key: &MemberKey,
        session: &SessionId,
        (instance, counter): (u64, u64),
        mut addrs: Vec<Addr>,
        mark: Hash,
    ) -> Self {
        addrs.truncate(ADDRS_PER_PEER_MAX);
        let bytes = addresses_bytes(session, (instance, counter), &addrs, &mark);
        let signature = key.sign(Domain::Addresses, &bytes);
        Self {
            member: key.id(),
            instance,
            counter,
            addrs,
            mark,
            signature,
        }
    }

    /// Checks number and signature.
    ///
    /// # Errors
    /// More than eight addresses, or not the member's signature.
    pub fn check(&self, session: &SessionId) -> Result<(), MessageError> {
        if self.addrs.len() > ADDRS_PER_PEER_MAX {
            return Err(MessageError::TooMany("addresses"));
        }
        let at = (self.instance, self.counter);
        let bytes = addresses_bytes(session, at, &self.addrs, &self.mark);
        Ok(verify(
            &self.member,
            Domain::Addresses,
            &bytes,
            &self.signature,
        )?)
    }
}

fn addresses_bytes(session: &SessionId, at: (u64, u64), addrs: &[Addr], mark: &Hash) -> Vec<u8> {
    encoded(&(session, at, addrs, mark))
}

impl PeerMessage {
    /// The bytes for the lane.
    pub fn encode(&self) -> Vec<u8> {
        encoded(self)
    }

    /// Reads a message from a peer.
    ///
    /// # Errors
    /// Too long, truncated, not canonical, or with a list longer than allowed.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        decoded(bytes)
    }
}

impl PeerMessage {
    /// The version that a hello of another protocol version names: its encoding up to there never changes.
    pub fn other_version(bytes: &[u8]) -> Option<u16> {
        const HELLO: u8 = 0;
        let head = bytes.get(..bytes.len().min(8))?;
        match postcard::take_from_bytes::<(u8, u16)>(head) {
            Ok(((HELLO, version), _)) if version != PROTOCOL_VERSION => Some(version),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Packs entries into one compressed block: their number, then each with its length in front.
pub fn pack(entries: &[Vec<u8>]) -> Vec<u8> {
    compression::packed(&encoded(&entries)).unwrap_or_default()
}

/// Unpacks what [`pack`] made.
///
/// # Errors
/// Unpacked it is over the bound (twice [`FETCH_BYTES_MAX`]), it names more entries than its size can hold, or it
/// is no such block.
pub fn unpack(packed: &[u8]) -> Result<Vec<Vec<u8>>, MessageError> {
    let plain =
        compression::unpacked(packed, 2 * FETCH_BYTES_MAX).ok_or(MessageError::Malformed)?;
    // The number alone, so that memory is taken only for as many as there may be.
    let (count, _) =
        postcard::take_from_bytes::<u64>(&plain).map_err(|_| MessageError::Malformed)?;
    let most = plain.len() / ENTRY_BYTES_MIN;
    if !usize::try_from(count).is_ok_and(|count| count <= most) {
        return Err(MessageError::TooMany("entries"));
    }
    match postcard::take_from_bytes(&plain) {
        Ok((entries, [])) => Ok(entries),
        Ok(_) | Err(_) => Err(MessageError::Malformed),
    }
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

fn decoded<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > CONTROL_MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLarge(bytes.len()));
    }
    let value = postcard::from_bytes(bytes).map_err(|_| MessageError::Malformed)?;
    if encoded(&value) == bytes {
        Ok(value)
    } else {
        Err(MessageError::Malformed)
    }
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::bad_bytes::heap;
    use crate::engine::entropy::Entropy;

    const SESSION: SessionId = SessionId([3; 32]);

    #[test]
    fn every_message_survives_its_encoding() {
        for message in samples() {
            assert_eq!(
                PeerMessage::decode(&message.encode()).as_ref(),
                Ok(&message)
            );
        }
    }

    #[test]
    fn a_truncated_message_is_refused() {
        for message in samples() {
            let bytes = message.encode();
            for length in 0..bytes.len() {
                assert!(
                    PeerMessage::decode(&bytes[..length]).is_err(),
                    "{message:?} at {length}"
                );
            }
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_unread() {
        let bytes = vec![0; CONTROL_MESSAGE_BYTES_MAX + 1];

        assert_eq!(
            PeerMessage::decode(&bytes),
            Err(MessageError::TooLarge(bytes.len()))
        );
    }

    #[test]
    fn signed_parts_hold_for_their_session_and_content_only() {
        let key = MemberKey::generate(&mut Entropy::new([1; 32]));
        let instance = SignedInstance::sign(&key, &SESSION, (7, 70_000));
        let addrs = vec!["/ip4/10.0.0.1/tcp/4".parse().unwrap()];
        let addresses = SignedAddresses::sign(&key, &SESSION, (7, 1), addrs, Hash([1; 32]));

        assert_eq!(instance.check(&SESSION), Ok(()));
        assert_eq!(addresses.check(&SESSION), Ok(()));
        assert!(instance.check(&SessionId([4; 32])).is_err());
        let other = |number, run| SignedInstance {
            number,
            run,
            ..instance.clone()
        };
        assert!(other(8, instance.run).check(&SESSION).is_err());
        assert!(other(instance.number, 8).check(&SESSION).is_err());
        let alive = SignedAlive::sign(&key, &SESSION, 7, [1; 32]);
        let other = |run, challenge| SignedAlive {
            run,
            challenge,
            ..alive.clone()
        };
        assert_eq!(alive.check(&SESSION), Ok(()));
        assert!(alive.check(&SessionId([4; 32])).is_err());
        assert!(other(8, [1; 32]).check(&SESSION).is_err());
        assert!(other(7, [2; 32]).check(&SESSION).is_err());
        assert!(
            SignedAddresses {
                counter: 2,
                ..addresses.clone()
            }
            .check(&SESSION)
            .is_err()
        );
        assert!(
            SignedAddresses {
                mark: Hash([2; 32]),
                ..addresses
            }
            .check(&SESSION)
            .is_err()
        );
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 * FETCH_BYTES_MAX], 19).unwrap();

        assert!(bomb.len() < 10_000);
        assert_eq!(unpack(&bomb), Err(MessageError::Malformed));
    }

    #[test]
    fn packed_entries_come_back_in_order() {
        let entries = vec![vec![1; 300], vec![3; 128], vec![2; 200]];

        assert_eq!(unpack(&pack(&entries)), Ok(entries));
    }

    #[test]
    fn more_entries_than_the_bytes_can_hold_are_not_unpacked() {
        let empty = vec![Vec::new(); 200_000];
        let packed = pack(&empty);

        let (unpacked, peak) = heap::peak(|| unpack(&packed));

        assert_eq!(unpacked, Err(MessageError::TooMany("entries")));
        assert!(packed.len() < 1_000 && peak <= 200_010, "{peak}");
    }

    #[test]
    fn bytes_behind_the_last_entry_are_refused() {
        let longer = [encoded(&vec![vec![1_u8; 300]]), vec![0]].concat();

        assert_eq!(
            unpack(&compression::packed(&longer).unwrap()),
            Err(MessageError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = PeerMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }

        #[test]
        fn a_mutated_message_is_refused_or_another(index in 0usize..400, bit in 0u8..8, pick in 0usize..17) {
            let samples = samples();
            let message = &samples[pick % samples.len()];
            let mut bytes = message.encode();
            let index = index % bytes.len();
            bytes[index] ^= 1 << bit;
            if let Ok(other) = PeerMessage::decode(&bytes) {
                prop_assert_ne!(&other, message);
            }
        }
    }

    /// One of each kind.
    pub(in crate::engine) fn samples() -> Vec<PeerMessage> {
        let key = MemberKey::generate(&mut Entropy::new([1; 32]));
        let instance = SignedInstance::sign(&key, &SESSION, (7, 70_000));
        let addrs = vec!["/ip4/10.0.0.1/tcp/4".parse().unwrap()];
        let addresses = SignedAddresses::sign(&key, &SESSION, (7, 1), addrs, Hash([1; 32]));
        let reached = Reached {
            seq: 300,
            hash: Hash([9; 32]),
        };
        vec![
            PeerMessage::Hello(Box::new(Hello {
                version: 1,
                instance: instance.clone(),
                your_instance: Some(instance),
                your_log: reached,
                addresses: addresses.clone(),
                challenge: [4; 32],
                another: true,
            })),
            PeerMessage::Ping {
                nonce: 70_000,
                vector: Hash([2; 32]),
            },
            PeerMessage::Pong { nonce: 1 },
            PeerMessage::Vector(vec![(key.id(), reached)]),
            PeerMessage::Want(vec![(key.id(), 7)]),
            PeerMessage::Entries {
                packed: pack(&[vec![1, 2, 3]]),
                done: true,
            },
            PeerMessage::WantBodies(vec![Hash([5; 32])]),
            PeerMessage::Bodies(vec![(Hash([5; 32]), vec![1, 2])]),
            PeerMessage::WantEpochs(vec![Hash([6; 32])]),
            PeerMessage::Epochs(vec![(Hash([6; 32]), [7; 32])]),
            PeerMessage::PresenceHave(vec![(key.id(), 1, 2)]),
            PeerMessage::Presences(vec![PassedPresence {
                age_ms: 5,
                message: vec![1],
            }]),
            PeerMessage::Addresses(vec![addresses]),
            PeerMessage::Lease(vec![1, 2, 3]),
            PeerMessage::Bye,
            PeerMessage::Challenge([5; 32]),
            PeerMessage::Alive(Box::new(SignedAlive::sign(&key, &SESSION, 9, [6; 32]))),
        ]
    }
}
