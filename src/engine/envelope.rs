//! Signed, encrypted document changes.
//!
//! An envelope is one link of its author's log: a clear header that anybody can check and chain, and a body
//! that only readers of its epoch can open. The header names the body's length and hash, so a node may hold,
//! chain and pass on a header whose body it lacks, and attach the body later.
//!
//! On the wire and on disk: `postcard(header) ‖ signature (64) ‖ body`, where an absent body is no bytes at
//! all. The signature covers the header; the body is `XChaCha20-Poly1305(actor (16) ‖ nonce (16) ‖ change)`
//! whose associated data is the header without the two fields that describe the body, so nothing is circular.
//!
//! Presence uses the same parts without a log.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};

use crate::engine::bounded;
use crate::engine::entropy::Entropy;
use crate::engine::epoch::EpochId;
use crate::engine::identity::{Domain, MemberKey, Signature, hash, verify};
use crate::engine::ids::{DocumentId, Hash, MemberId, SessionId};
use crate::engine::limits::{
    CHANGE_BYTES_MAX, ENVELOPE_BASE_BYTES, ENVELOPE_BODY_BYTES_MAX, ENVELOPE_HEADER_BYTES_MAX,
    MEMBERSHIP_HEADS_MAX, PRESENCE_BODY_BYTES_MAX, PRESENCE_TTL_MS_MAX,
};

/// The version of the envelope's format that this code writes and reads.
pub const ENVELOPE_VERSION: u8 = 1;

/// Bytes that authenticated encryption adds to a plaintext.
const TAG_BYTES: usize = 16;
/// Bytes of an XChaCha20 nonce.
const NONCE_BYTES: usize = 24;
/// Bytes of an ed25519 signature.
const SIGNATURE_BYTES: usize = 64;
/// Actor and nonce before the change.
const BODY_PREFIX_BYTES: usize = 32;

/// Why bytes are no envelope, or an envelope cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than the protocol allows; nothing of it was read.
    #[error("the {what} has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not the canonical encoding of anything, or with more membership heads than anybody may name.
    #[error("the bytes are truncated, not in canonical form, or hold a list that is too long")]
    Malformed,
    /// Written by a newer or older protocol.
    #[error("the envelope has version {0}, this program reads version {ENVELOPE_VERSION}")]
    Version(u8),
    /// More membership heads than allowed, none, or not in ascending order.
    #[error("the membership heads are not 1 to {MEMBERSHIP_HEADS_MAX} hashes in ascending order")]
    Heads,
    /// A number outside its range.
    #[error("the field {0} is outside its range")]
    Field(&'static str),
    /// The signature is not the member's.
    #[error("the signature does not verify")]
    Signature,
    /// The body's length or hash is not what the signed header names.
    #[error("the body is not the one that the signed header names")]
    BodyMismatch,
    /// Only the header is held here.
    #[error("the body is not here yet")]
    NoBody,
    /// The key does not open the body: another epoch's key, or a dishonest author.
    #[error("the body does not open under this epoch's key")]
    Undecryptable,
}

/// The clear, signed part of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeHeader {
    /// Format version, [`ENVELOPE_VERSION`].
    pub version: u8,
    /// The session it belongs to.
    pub session: SessionId,
    /// Its author, whose log it extends.
    pub member: MemberId,
    /// Its place in the author's log, from 1.
    pub seq: u64,
    /// The hash of the log's entry before it; of a first entry the session's id.
    pub prev: Hash,
    /// The heads of the membership that its author knew: 1 to 64, ascending.
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERSHIP_HEADS_MAX>")]
    pub heads: Vec<Hash>,
    /// The document that it changes.
    pub document: DocumentId,
    /// The kind of that document, as numbered by the document schema; unknown kinds still chain.
    pub kind: u8,
    /// The epoch whose readers can open the body.
    pub epoch: EpochId,
    /// The nonce of the body's encryption, drawn for this envelope alone.
    pub nonce: [u8; NONCE_BYTES],
    /// The running size in bytes of this log's envelopes, this one included; see [`Self::charge`].
    pub total: u64,
    /// The length in bytes of the encrypted body.
    pub body_len: u32,
    /// The domain-separated blake3 hash of the encrypted body.
    pub body_hash: Hash,
}

impl EnvelopeHeader {
    /// What this envelope adds to the running size of its log: its body and a fixed price for the header, so
    /// that the sum does not depend on how the sum itself is encoded.
    pub fn charge(&self) -> u64 {
        let heads = u64::try_from(self.heads.len())
            .unwrap_or(u64::MAX)
            .saturating_mul(32);
        ENVELOPE_BASE_BYTES
            .saturating_add(heads)
            .saturating_add(u64::from(self.body_len))
    }

    fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The associated data of the body: every field but the two that describe the body.
    fn associated_data(&self) -> Vec<u8> {
        encode(&(
            self.version,
            self.session,
            self.member,
            self.seq,
            self.prev,
            &self.heads,
            self.document,
            self.kind,
            self.epoch,
            self.nonce,
            self.total,
        ))
    }

    fn check(&self) -> Result<(), EnvelopeError> {
        if self.version != ENVELOPE_VERSION {
            return Err(EnvelopeError::Version(self.version));
        }
        if self.seq == 0 {
            return Err(EnvelopeError::Field("seq"));
        }
        check_heads(&self.heads)?;
        let body = usize::try_from(self.body_len).unwrap_or(usize::MAX);
        if body > ENVELOPE_BODY_BYTES_MAX {
            return Err(too_large("body", body, ENVELOPE_BODY_BYTES_MAX));
        }
        if body < BODY_PREFIX_BYTES + TAG_BYTES {
            return Err(EnvelopeError::Field("body_len"));
        }
        if self.total < self.charge() {
            return Err(EnvelopeError::Field("total"));
        }
        Ok(())
    }
}

/// What the body holds once opened.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvelopeBody {
    /// The Automerge actor that made the change.
    pub actor: [u8; 16],
    /// The nonce from which, with member and document, the actor is derived; the gate checks it.
    pub actor_nonce: [u8; 16],
    /// One Automerge change, not yet checked by anybody.
    pub change: Vec<u8>,
}

impl EnvelopeBody {
    /// `actor ‖ nonce ‖ change`.
    fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        if self.change.len() > CHANGE_BYTES_MAX {
            return Err(too_large("change", self.change.len(), CHANGE_BYTES_MAX));
        }
        let mut bytes = Vec::with_capacity(BODY_PREFIX_BYTES + self.change.len());
        bytes.extend_from_slice(&self.actor);
        bytes.extend_from_slice(&self.actor_nonce);
        bytes.extend_from_slice(&self.change);
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let (actor, rest) = bytes
            .split_first_chunk::<16>()
            .ok_or(EnvelopeError::Malformed)?;
        let (nonce, change) = rest
            .split_first_chunk::<16>()
            .ok_or(EnvelopeError::Malformed)?;
        if change.len() > CHANGE_BYTES_MAX {
            return Err(too_large("change", change.len(), CHANGE_BYTES_MAX));
        }
        Ok(Self {
            actor: *actor,
            actor_nonce: *nonce,
            change: change.to_vec(),
        })
    }
}

impl fmt::Debug for EnvelopeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeBody({} bytes)", self.change.len())
    }
}

/// Where in a log, and of what, an envelope is made.
#[derive(Debug, Clone)]
pub struct Place {
    /// The session.
    pub session: SessionId,
    /// The new entry's number in the author's log.
    pub seq: u64,
    /// The hash of the entry before it.
    pub prev: Hash,
    /// The running size of the log's envelopes before this one.
    pub total: u64,
    /// The membership heads that the author knows, in any order.
    pub heads: Vec<Hash>,
    /// The document that is changed.
    pub document: DocumentId,
    /// Its kind, as numbered by the document schema.
    pub kind: u8,
    /// The epoch that `key` belongs to.
    pub epoch: EpochId,
}

/// An envelope whose signature is good: made here, or decoded and checked. What it may do is another question.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedEnvelope {
    header: EnvelopeHeader,
    signature: Signature,
    hash: Hash,
    body: Option<Vec<u8>>,
}

impl SealedEnvelope {
    /// Encrypts `body` under the document's key and signs the result.
    ///
    /// # Errors
    /// The change is over 64 KiB, or the heads are none or more than 64.
    pub fn seal(
        signer: &MemberKey,
        place: Place,
        key: &[u8; 32],
        body: &EnvelopeBody,
        entropy: &mut Entropy,
    ) -> Result<Self, EnvelopeError> {
        let plain = body.encode()?;
        let mut header = header_at(signer.id(), place, plain.len(), entropy.bytes());
        check_heads(&header.heads)?;
        let body = encrypt(key, &header.nonce, &header.associated_data(), &plain)?;
        header.body_hash = body_hash(&body);
        let bytes = header.encode();
        let signature = signer.sign(Domain::Envelope, &bytes);
        Ok(Self {
            hash: header_hash(&bytes),
            header,
            signature,
            body: Some(body),
        })
    }

    /// Reads an envelope from a peer and checks size, form and signature.
    ///
    /// # Errors
    /// The bytes are too long, not canonical, of another version, or not signed by the member they name.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope = Self::parse(bytes)?;
        envelope.verify()?;
        Ok(envelope)
    }

    /// Reads an envelope that this node checked before it stored it. Only for records whose own authentication
    /// has just been verified: the signature, most of the price of [`Self::decode`], is not looked at again.
    ///
    /// # Errors
    /// The bytes are too long, not canonical, or of another version.
    pub fn decode_stored(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Self::parse(bytes)
    }

    /// Signs `header` as it stands; for tests of what a dishonest author can do.
    #[cfg(any(test, feature = "sim"))]
    pub fn forge(signer: &MemberKey, header: EnvelopeHeader, body: Option<Vec<u8>>) -> Self {
        let bytes = header.encode();
        let signature = signer.sign(Domain::Envelope, &bytes);
        Self {
            hash: header_hash(&bytes),
            header,
            signature,
            body,
        }
    }

    /// The bytes for wire and disk, with the body if it is here.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_head();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// The bytes for wire and disk, without the body.
    pub fn encode_head(&self) -> Vec<u8> {
        let mut bytes = self.header.encode();
        bytes.extend_from_slice(&self.signature.0);
        bytes
    }

    /// The signed header.
    pub fn header(&self) -> &EnvelopeHeader {
        &self.header
    }

    /// The envelope's name: the hash of its header, whoever signed it how often.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The signature over the header.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The encrypted body, if it is here.
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// The same envelope without its body.
    #[must_use]
    pub fn without_body(&self) -> Self {
        Self {
            header: self.header.clone(),
            signature: self.signature,
            hash: self.hash,
            body: None,
        }
    }

    /// Adds the encrypted body that the header names; a body that is here already stays.
    ///
    /// # Errors
    /// Length or hash differ from the header's.
    pub fn attach_body(&mut self, body: Vec<u8>) -> Result<(), EnvelopeError> {
        check_body(&self.header, &body)?;
        self.body = Some(body);
        Ok(())
    }

    /// Decrypts the body.
    ///
    /// # Errors
    /// The body is not here, does not open under `key`, or is not what a body holds.
    pub fn open(&self, key: &[u8; 32]) -> Result<EnvelopeBody, EnvelopeError> {
        let body = self.body.as_deref().ok_or(EnvelopeError::NoBody)?;
        let plain = decrypt(
            key,
            &self.header.nonce,
            &self.header.associated_data(),
            body,
        )?;
        EnvelopeBody::decode(&plain)
    }

    fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let max = ENVELOPE_HEADER_BYTES_MAX + SIGNATURE_BYTES + ENVELOPE_BODY_BYTES_MAX;
        if bytes.len() > max {
            return Err(too_large("envelope", bytes.len(), max));
        }
        match bytes.first() {
            None => return Err(EnvelopeError::Malformed),
            Some(&version) if version != ENVELOPE_VERSION => {
                return Err(EnvelopeError::Version(version));
            }
            Some(_) => {}
        }
        let (header, head, rest) = split_header::<EnvelopeHeader>(bytes)?;
        header.check()?;
        let (signature, body) = rest
            .split_first_chunk::<SIGNATURE_BYTES>()
            .ok_or(EnvelopeError::Malformed)?;
        let body = (!body.is_empty()).then(|| body.to_vec());
        if let Some(body) = &body {
            check_body(&header, body)?;
        }
        Ok(Self {
            hash: header_hash(head),
            header,
            signature: Signature(*signature),
            body,
        })
    }

    fn verify(&self) -> Result<(), EnvelopeError> {
        verify(
            &self.header.member,
            Domain::Envelope,
            &self.header.encode(),
            &self.signature,
        )
        .map_err(|_| EnvelopeError::Signature)
    }
}

impl fmt::Debug for SealedEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = if self.body.is_some() { "" } else { ", no body" };
        let EnvelopeHeader { member, seq, .. } = &self.header;
        write!(
            f,
            "SealedEnvelope({} #{seq} {}{body})",
            member.short(),
            self.hash.short()
        )
    }
}

/// The clear, signed part of a presence message. Instance, generation and counter only grow, in this order of
/// weight, so that a receiver needs no more than the newest of each member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceHeader {
    /// Format version, [`ENVELOPE_VERSION`].
    pub version: u8,
    /// The session it belongs to.
    pub session: SessionId,
    /// Whose presence it is.
    pub member: MemberId,
    /// The epoch whose readers can open it.
    pub epoch: EpochId,
    /// The number of this start of the member's node.
    pub instance: u64,
    /// The number of the heartbeat that began this generation.
    pub generation: u64,
    /// The number of the message within its generation.
    pub counter: u64,
    /// Milliseconds for which the message holds, from its receipt; 0 says goodbye.
    pub ttl_ms: u32,
    /// The nonce of the encryption, drawn for this message alone.
    pub nonce: [u8; NONCE_BYTES],
}

impl PresenceHeader {
    /// What orders the messages of one member: a later one replaces an earlier one.
    pub fn order(&self) -> (u64, u64, u64) {
        (self.instance, self.generation, self.counter)
    }

    fn check(&self) -> Result<(), EnvelopeError> {
        if self.version != ENVELOPE_VERSION {
            return Err(EnvelopeError::Version(self.version));
        }
        if self.ttl_ms > PRESENCE_TTL_MS_MAX {
            return Err(EnvelopeError::Field("ttl_ms"));
        }
        Ok(())
    }
}

/// What a presence message is about, apart from its content.
#[derive(Debug, Clone, Copy)]
pub struct PresencePlace {
    /// The session.
    pub session: SessionId,
    /// The epoch that the key belongs to.
    pub epoch: EpochId,
    /// The number of this start of the node.
    pub instance: u64,
    /// The number of the heartbeat.
    pub generation: u64,
    /// The number of the message within its generation.
    pub counter: u64,
    /// Milliseconds for which the message holds; 0 says goodbye.
    pub ttl_ms: u32,
}

/// A signed, encrypted presence message: `postcard(header) ‖ signature ‖ ciphertext`, the signature over
/// header and ciphertext. It is in no log and never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct PresenceMessage {
    header: PresenceHeader,
    signature: Signature,
    body: Vec<u8>,
}

impl PresenceMessage {
    /// Encrypts `plain` under the epoch's presence key and signs the result.
    ///
    /// # Errors
    /// `plain` is over 16 KiB or the time-to-live over its maximum.
    pub fn seal(
        signer: &MemberKey,
        place: PresencePlace,
        key: &[u8; 32],
        plain: &[u8],
        entropy: &mut Entropy,
    ) -> Result<Self, EnvelopeError> {
        if plain.len() > PRESENCE_BODY_BYTES_MAX {
            return Err(too_large("presence", plain.len(), PRESENCE_BODY_BYTES_MAX));
        }
        let header = presence_header(signer.id(), place, entropy.bytes());
        header.check()?;
        let mut bytes = encode(&header);
        let body = encrypt(key, &header.nonce, &bytes, plain)?;
        bytes.extend_from_slice(&body);
        let signature = signer.sign(Domain::Presence, &bytes);
        Ok(Self {
            header,
            signature,
            body,
        })
    }

    /// Reads a message from a peer and checks size, form and signature.
    ///
    /// # Errors
    /// The bytes are too long, not canonical, of another version, or not signed by the member they name.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let max = ENVELOPE_HEADER_BYTES_MAX + SIGNATURE_BYTES + PRESENCE_BODY_BYTES_MAX + TAG_BYTES;
        if bytes.len() > max {
            return Err(too_large("presence", bytes.len(), max));
        }
        let (header, head, rest) = split_header::<PresenceHeader>(bytes)?;
        header.check()?;
        let (signature, body) = rest
            .split_first_chunk::<SIGNATURE_BYTES>()
            .ok_or(EnvelopeError::Malformed)?;
        let message = Self {
            header,
            signature: Signature(*signature),
            body: body.to_vec(),
        };
        let signed = [head, body].concat();
        verify(
            &message.header.member,
            Domain::Presence,
            &signed,
            &message.signature,
        )
        .map_err(|_| EnvelopeError::Signature)?;
        Ok(message)
    }

    /// The bytes for the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = encode(&self.header);
        bytes.extend_from_slice(&self.signature.0);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The signed header.
    pub fn header(&self) -> &PresenceHeader {
        &self.header
    }

    /// Decrypts the content.
    ///
    /// # Errors
    /// The key is not that of the message's epoch, or the author was dishonest.
    pub fn open(&self, key: &[u8; 32]) -> Result<Vec<u8>, EnvelopeError> {
        decrypt(key, &self.header.nonce, &encode(&self.header), &self.body)
    }
}

impl fmt::Debug for PresenceMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instance, generation, counter) = self.header.order();
        let who = self.header.member.short();
        write!(
            f,
            "PresenceMessage({who} {instance}.{generation}.{counter})"
        )
    }
}

/// The header of a body of `plain` bytes; its hash is filled in when the body exists.
fn header_at(
    member: MemberId,
    place: Place,
    plain: usize,
    nonce: [u8; NONCE_BYTES],
) -> EnvelopeHeader {
    let mut heads = place.heads;
    heads.sort_unstable();
    heads.dedup();
    let mut header = EnvelopeHeader {
        version: ENVELOPE_VERSION,
        session: place.session,
        member,
        seq: place.seq,
        prev: place.prev,
        heads,
        document: place.document,
        kind: place.kind,
        epoch: place.epoch,
        nonce,
        total: place.total,
        body_len: u32::try_from(plain.saturating_add(TAG_BYTES)).unwrap_or(u32::MAX),
        body_hash: Hash([0; 32]),
    };
    header.total = header.total.saturating_add(header.charge());
    header
}

fn presence_header(
    member: MemberId,
    place: PresencePlace,
    nonce: [u8; NONCE_BYTES],
) -> PresenceHeader {
    PresenceHeader {
        version: ENVELOPE_VERSION,
        session: place.session,
        member,
        epoch: place.epoch,
        instance: place.instance,
        generation: place.generation,
        counter: place.counter,
        ttl_ms: place.ttl_ms,
        nonce,
    }
}

fn check_heads(heads: &[Hash]) -> Result<(), EnvelopeError> {
    let ascending = heads.iter().zip(heads.iter().skip(1)).all(|(a, b)| a < b);
    if heads.is_empty() || heads.len() > MEMBERSHIP_HEADS_MAX || !ascending {
        return Err(EnvelopeError::Heads);
    }
    Ok(())
}

fn check_body(header: &EnvelopeHeader, body: &[u8]) -> Result<(), EnvelopeError> {
    let length = u32::try_from(body.len()).is_ok_and(|length| length == header.body_len);
    if !length || body_hash(body) != header.body_hash {
        return Err(EnvelopeError::BodyMismatch);
    }
    Ok(())
}

fn body_hash(body: &[u8]) -> Hash {
    hash("collab-p2p v1 envelope body", &[body])
}

fn header_hash(header: &[u8]) -> Hash {
    hash("collab-p2p v1 envelope", &[header])
}

fn too_large(what: &'static str, bytes: usize, max: usize) -> EnvelopeError {
    EnvelopeError::TooLarge { what, bytes, max }
}

/// The canonical encoding. Writing plain data into a vector cannot fail.
fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Reads a header from the front of `bytes`; also gives its bytes and what follows. The bytes must be exactly
/// what encoding the header yields.
fn split_header<'a, T>(bytes: &'a [u8]) -> Result<(T, &'a [u8], &'a [u8]), EnvelopeError>
where
    T: Serialize + Deserialize<'a>,
{
    let (header, rest) =
        postcard::take_from_bytes::<T>(bytes).map_err(|_| EnvelopeError::Malformed)?;
    let head = bytes
        .get(..bytes.len().saturating_sub(rest.len()))
        .ok_or(EnvelopeError::Malformed)?;
    if encode(&header) != head {
        return Err(EnvelopeError::Malformed);
    }
    Ok((header, head, rest))
}

fn encrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    msg: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg, aad })
        .map_err(|_| EnvelopeError::Undecryptable)
}

fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    msg: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg, aad })
        .map_err(|_| EnvelopeError::Undecryptable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn an_envelope_survives_the_wire_and_opens_under_its_key() {
        let envelope = sealed(b"a change");

        let bytes = envelope.encode();
        let read = SealedEnvelope::decode(&bytes).unwrap();

        assert_eq!(read, envelope);
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.open(&KEY).unwrap(), body(b"a change"));
        assert_eq!(SealedEnvelope::decode_stored(&bytes).unwrap(), envelope);
    }

    #[test]
    fn a_header_is_checked_without_its_body_and_takes_it_later() {
        let envelope = sealed(b"a change");
        let mut head = SealedEnvelope::decode(&envelope.encode_head()).unwrap();

        assert_eq!(head.hash(), envelope.hash());
        assert_eq!(head, envelope.without_body());
        assert_eq!(head.open(&KEY), Err(EnvelopeError::NoBody));
        assert_eq!(
            head.attach_body(vec![0; 72]),
            Err(EnvelopeError::BodyMismatch)
        );
        assert_eq!(
            head.attach_body(Vec::new()),
            Err(EnvelopeError::BodyMismatch)
        );

        head.attach_body(envelope.body().unwrap().to_vec()).unwrap();

        assert_eq!(head, envelope);
    }

    #[test]
    fn another_body_under_the_same_header_is_refused() {
        let mut bytes = sealed(b"a change").encode();
        *bytes.last_mut().unwrap() ^= 1;

        assert_eq!(
            SealedEnvelope::decode(&bytes),
            Err(EnvelopeError::BodyMismatch)
        );
    }

    #[test]
    fn another_epochs_key_opens_nothing() {
        assert_eq!(
            sealed(b"a change").open(&[8; 32]),
            Err(EnvelopeError::Undecryptable)
        );
    }

    #[test]
    fn a_body_moved_to_another_place_does_not_open() {
        let envelope = sealed(b"a change");
        let moves: [fn(&mut EnvelopeHeader); 9] = [
            |header| header.session.0[0] ^= 1,
            |header| header.seq += 1,
            |header| header.prev.0[0] ^= 1,
            |header| header.heads[0].0[31] ^= 1,
            |header| header.document.0[0] ^= 1,
            |header| header.kind += 1,
            |header| header.epoch.0[0] ^= 1,
            |header| header.nonce[0] ^= 1,
            |header| header.total += 1,
        ];

        for change in moves {
            let mut header = envelope.header().clone();
            change(&mut header);
            let moved =
                SealedEnvelope::forge(&signer(), header, envelope.body().map(<[u8]>::to_vec));
            let read = SealedEnvelope::decode(&moved.encode()).unwrap();
            assert_eq!(read.open(&KEY), Err(EnvelopeError::Undecryptable));
        }
    }

    #[test]
    fn nobody_signs_for_another_member() {
        let header = sealed(b"a change").header().clone();
        let forged = SealedEnvelope::forge(&MemberKey::from_bytes(&[2; 32]), header, None);

        assert_eq!(
            SealedEnvelope::decode(&forged.encode()),
            Err(EnvelopeError::Signature)
        );
    }

    #[test]
    fn a_header_outside_its_bounds_is_refused_however_well_it_is_signed() {
        let twisted = |twist: fn(&mut EnvelopeHeader)| {
            let mut header = sealed(b"a change").header().clone();
            twist(&mut header);
            SealedEnvelope::decode(&SealedEnvelope::forge(&signer(), header, None).encode())
        };

        assert_eq!(
            twisted(|header| header.version = 2),
            Err(EnvelopeError::Version(2))
        );
        assert_eq!(
            twisted(|header| header.seq = 0),
            Err(EnvelopeError::Field("seq"))
        );
        assert_eq!(
            twisted(|header| header.total = 9),
            Err(EnvelopeError::Field("total"))
        );
        assert_eq!(
            twisted(|header| header.body_len = 47),
            Err(EnvelopeError::Field("body_len"))
        );
        assert!(matches!(
            twisted(|header| header.body_len = u32::MAX),
            Err(EnvelopeError::TooLarge { .. })
        ));
        assert_eq!(
            twisted(|header| header.heads.clear()),
            Err(EnvelopeError::Heads)
        );
        assert_eq!(
            twisted(|header| header.heads.reverse()),
            Err(EnvelopeError::Heads)
        );
        assert_eq!(
            twisted(|header| header.heads = vec![Hash([1; 32]); 2]),
            Err(EnvelopeError::Heads)
        );
        assert_eq!(
            twisted(|header| {
                header.heads = (0..=64).map(|byte| Hash([byte; 32])).collect();
                header.total += 64 * 32;
            }),
            Err(EnvelopeError::Malformed)
        );
    }

    #[test]
    fn another_encoding_of_the_same_header_is_refused() {
        let bytes = sealed(b"a change").encode();
        let seq = 1 + 32 + 32;
        assert_eq!(bytes[seq], 5);
        let mut longer = bytes.clone();
        longer.splice(seq..=seq, [0x85, 0x00]);

        assert_eq!(
            SealedEnvelope::decode(&longer),
            Err(EnvelopeError::Malformed)
        );
    }

    #[test]
    fn the_longest_change_fits_and_one_byte_more_does_not() {
        let place = |heads| Place { heads, ..place() };
        let heads: Vec<_> = (0..64).map(|byte| Hash([byte; 32])).collect();
        let longest = seal(place(heads.clone()), &vec![1; CHANGE_BYTES_MAX]).unwrap();

        assert_eq!(SealedEnvelope::decode(&longest.encode()).unwrap(), longest);
        assert!(seal(place(heads), &vec![1; CHANGE_BYTES_MAX + 1]).is_err());
        assert_eq!(seal(place(Vec::new()), b""), Err(EnvelopeError::Heads));
        let too_long = vec![ENVELOPE_VERSION; 100_000];
        assert!(matches!(
            SealedEnvelope::decode(&too_long),
            Err(EnvelopeError::TooLarge { .. })
        ));
    }

    #[test]
    fn the_running_size_grows_by_body_and_header() {
        let envelope = sealed(b"a change");

        let body = u64::try_from(envelope.body().unwrap().len()).unwrap();

        assert_eq!(
            envelope.header().total,
            1_000 + ENVELOPE_BASE_BYTES + 2 * 32 + body
        );
    }

    #[test]
    fn presence_survives_the_wire_and_opens_for_readers_only() {
        let message = presence(b"typing");

        let read = PresenceMessage::decode(&message.encode()).unwrap();

        assert_eq!(read, message);
        assert_eq!(read.open(&KEY).unwrap(), b"typing");
        assert_eq!(read.open(&[8; 32]), Err(EnvelopeError::Undecryptable));
        assert_eq!(read.header().order(), (3, 4, 5));
    }

    #[test]
    fn presence_with_any_bit_turned_is_refused() {
        let bytes = presence(b"typing").encode();

        for bit in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert!(PresenceMessage::decode(&turned).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn presence_over_its_bounds_is_refused() {
        let mut entropy = Entropy::new([4; 32]);
        let long = vec![0; PRESENCE_BODY_BYTES_MAX + 1];
        let endless = PresencePlace {
            ttl_ms: PRESENCE_TTL_MS_MAX + 1,
            ..presence_place()
        };

        assert!(
            PresenceMessage::seal(&signer(), presence_place(), &KEY, &long, &mut entropy).is_err()
        );
        assert_eq!(
            PresenceMessage::seal(&signer(), endless, &KEY, b"", &mut entropy),
            Err(EnvelopeError::Field("ttl_ms"))
        );
    }

    #[test]
    fn two_sealings_of_the_same_text_share_no_nonce() {
        let mut entropy = Entropy::new([9; 32]);
        let one = SealedEnvelope::seal(&signer(), place(), &KEY, &body(b"x"), &mut entropy);
        let other = SealedEnvelope::seal(&signer(), place(), &KEY, &body(b"x"), &mut entropy);

        assert_ne!(one.unwrap().header().nonce, other.unwrap().header().nonce);
    }

    proptest! {
        #[test]
        fn every_change_comes_back_as_it_was(
            change in prop::collection::vec(any::<u8>(), 0..2_000),
            seq in 1_u64..,
            total in 0_u64..u64::MAX / 2,
            kind: u8,
        ) {
            let place = Place { seq, total, kind, ..place() };

            let bytes = seal(place, &change).unwrap().encode();

            let read = SealedEnvelope::decode(&bytes).unwrap();
            prop_assert_eq!(read.open(&KEY).unwrap().change, change);
            prop_assert_eq!(read.encode(), bytes);
        }

        #[test]
        fn a_truncated_envelope_is_at_most_its_own_header(cut in 0_usize..1_000) {
            let envelope = sealed(b"a change");
            let bytes = envelope.encode();
            let cut = cut % bytes.len();

            match SealedEnvelope::decode(&bytes[..cut]) {
                Ok(read) => prop_assert_eq!(read, envelope.without_body()),
                Err(_) => prop_assert_ne!(cut, envelope.encode_head().len()),
            }
        }

        #[test]
        fn an_envelope_with_any_bit_turned_is_refused(bit in 0_usize..100_000) {
            let mut bytes = sealed(b"a change").encode();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);

            prop_assert!(SealedEnvelope::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            drop(SealedEnvelope::decode(&[&[1], bytes.as_slice()].concat()));
            drop(PresenceMessage::decode(&[&[1], bytes.as_slice()].concat()));
        }
    }

    fn signer() -> MemberKey {
        MemberKey::from_bytes(&[1; 32])
    }

    fn place() -> Place {
        Place {
            session: SessionId([3; 32]),
            seq: 5,
            prev: Hash([4; 32]),
            total: 1_000,
            heads: vec![Hash([6; 32]), Hash([5; 32])],
            document: DocumentId([9; 32]),
            kind: 2,
            epoch: EpochId([10; 32]),
        }
    }

    fn body(change: &[u8]) -> EnvelopeBody {
        EnvelopeBody {
            actor: [11; 16],
            actor_nonce: [12; 16],
            change: change.to_vec(),
        }
    }

    fn seal(place: Place, change: &[u8]) -> Result<SealedEnvelope, EnvelopeError> {
        SealedEnvelope::seal(
            &signer(),
            place,
            &KEY,
            &body(change),
            &mut Entropy::new([13; 32]),
        )
    }

    fn sealed(change: &[u8]) -> SealedEnvelope {
        seal(place(), change).unwrap()
    }

    fn presence_place() -> PresencePlace {
        PresencePlace {
            session: SessionId([3; 32]),
            epoch: EpochId([10; 32]),
            instance: 3,
            generation: 4,
            counter: 5,
            ttl_ms: 9_000,
        }
    }

    fn presence(plain: &[u8]) -> PresenceMessage {
        let mut entropy = Entropy::new([14; 32]);
        PresenceMessage::seal(&signer(), presence_place(), &KEY, plain, &mut entropy).unwrap()
    }
}
