//! The mutual proof that both sides know the session, and what it leaves both with.

use zeroize::Zeroizing;

use crate::engine::entropy::Entropy;
use crate::engine::identity::{derive_key, hash, keyed_hash};
use crate::engine::ids::{Hash, MemberId};
use crate::engine::limits::ADMISSION_GREETING_BYTES_MAX;

use super::{ADMISSION_VERSION, AdmissionMessage, Refusal, refused_by};

/// What holds for the whole exchange: both ends and both nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transcript {
    /// Who opened the stream.
    pub dialler: MemberId,
    /// Who answered.
    pub listener: MemberId,
    /// The dialler's nonce.
    pub dialler_nonce: [u8; 32],
    /// The listener's nonce.
    pub listener_nonce: [u8; 32],
}

impl Transcript {
    /// Eight bytes that are the same on both ends if nobody sits between them, for people to compare in words
    /// or digits.
    pub fn authentication(&self) -> [u8; 8] {
        let whole = hash("collab-p2p v1 admission authentication", &self.parts());
        whole.0.first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn mac(&self, discovery_key: &[u8; 32], side: Side) -> Hash {
        let key = Zeroizing::new(derive_key("collab-p2p v1 admission mac", &[discovery_key]));
        let version = ADMISSION_VERSION.to_le_bytes();
        let front = [side.role(), version.as_slice()].into_iter();
        keyed_hash(&key, &front.chain(self.parts()).collect::<Vec<_>>())
    }

    /// Compares in constant time.
    pub(super) fn proves(&self, discovery_key: &[u8; 32], side: Side, mac: &Hash) -> bool {
        blake3::Hash::from(self.mac(discovery_key, side).0) == blake3::Hash::from(mac.0)
    }

    fn parts(&self) -> [&[u8]; 4] {
        [
            &self.dialler.0,
            &self.listener.0,
            &self.dialler_nonce,
            &self.listener_nonce,
        ]
    }
}

/// Which end makes a MAC.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Dialler,
    Listener,
}

impl Side {
    fn role(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"dialler",
            Self::Listener => b"listener",
        }
    }
}

pub(super) fn commitment(nonce: &[u8; 32]) -> [u8; 32] {
    hash("collab-p2p v1 admission commit", &[nonce]).0
}

/// The dialler's half of the mutual proof.
pub(super) struct Dialler {
    pub(super) us: MemberId,
    pub(super) peer: MemberId,
    discovery_key: Zeroizing<[u8; 32]>,
    nonce: [u8; 32],
}

impl Dialler {
    pub(super) fn new(
        us: MemberId,
        peer: MemberId,
        discovery_key: [u8; 32],
        entropy: &mut Entropy,
    ) -> Self {
        let discovery_key = Zeroizing::new(discovery_key);
        Self {
            us,
            peer,
            discovery_key,
            nonce: entropy.bytes(),
        }
    }

    pub(super) fn hello(&self) -> AdmissionMessage {
        AdmissionMessage::Hello {
            version: ADMISSION_VERSION,
            token: commitment(&self.nonce),
        }
    }

    /// Reads the listener's Hello; opens the commitment.
    pub(super) fn prove(&self, bytes: &[u8]) -> Result<(Transcript, AdmissionMessage), Refusal> {
        let transcript = Transcript {
            dialler: self.us,
            listener: self.peer,
            dialler_nonce: self.nonce,
            listener_nonce: AdmissionMessage::decode_hello(bytes)?,
        };
        let mac = transcript.mac(&self.discovery_key, Side::Dialler);
        Ok((
            transcript,
            AdmissionMessage::Proof {
                nonce: self.nonce,
                mac,
            },
        ))
    }

    /// Reads the listener's Answer; the challenge in it.
    pub(super) fn check(&self, transcript: &Transcript, bytes: &[u8]) -> Result<[u8; 32], Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_GREETING_BYTES_MAX)?;
        let AdmissionMessage::Answer { mac, challenge } = message else {
            return Err(refused_by(message));
        };
        if !transcript.proves(&self.discovery_key, Side::Listener, &mac) {
            return Err(Refusal::WrongSession);
        }
        Ok(challenge)
    }
}
