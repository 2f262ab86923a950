//! Keys of members: signing, agreement, and the domain separation of everything signed or derived.
//!
//! A member is one ed25519 key in one session; the same key is its node's libp2p identity. What it signs begins
//! with the length and the text of a domain, so that no signature made for one purpose passes for another, nor
//! for one of libp2p's own (their texts begin otherwise). Readers of a session agree on secrets by x25519.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::engine::entropy::Entropy;
use crate::engine::ids::{Hash, InviteId, MemberId};

/// Why a signature is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The 32 bytes are no point of the curve.
    #[error("{0:?} is no ed25519 public key")]
    NoKey(MemberId),
    /// The signature was made by another key, for another purpose or over other bytes.
    #[error("the {domain:?} signature is not by {signer:?} over these bytes")]
    BadSignature {
        /// The key it was checked against.
        signer: MemberId,
        /// The purpose it was checked for.
        domain: Domain,
    },
    /// The x25519 key is one of the few that make every shared secret the same.
    #[error("the agreement key is of small order")]
    WeakAgreementKey,
}

/// What a signature is for. Each has a text of its own that is signed in front of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// A membership statement, by its author.
    Statement,
    /// The header of a document change.
    Envelope,
    /// A Join, by the key of the member that joins.
    Join,
    /// The same Join, by the key of the invitation.
    JoinInvite,
    /// A person's key vouching for a member's key.
    Person,
    /// A presence update.
    Presence,
    /// The digest of a screen's version.
    Screen,
    /// A control lease, by the terminal's host.
    Lease,
    /// An order about control to a terminal's host.
    Order,
    /// A hello with instance number and challenge.
    Hello,
    /// A member's own addresses.
    Addresses,
    /// Keystrokes under a lease.
    Input,
    /// What both sides say while one is being admitted.
    Admission,
    /// That a node runs, over another's challenge.
    Alive,
}

impl Domain {
    /// Every domain, for tests that compare them.
    pub const ALL: [Self; 14] = [
        Self::Statement,
        Self::Envelope,
        Self::Join,
        Self::JoinInvite,
        Self::Person,
        Self::Presence,
        Self::Screen,
        Self::Lease,
        Self::Order,
        Self::Hello,
        Self::Addresses,
        Self::Input,
        Self::Admission,
        Self::Alive,
    ];

    /// The text signed in front of the payload. Part of the wire format.
    pub fn text(self) -> &'static str {
        match self {
            Self::Statement => "collab-p2p v1 sign statement",
            Self::Envelope => "collab-p2p v1 sign envelope",
            Self::Join => "collab-p2p v1 sign join",
            Self::JoinInvite => "collab-p2p v1 sign join by invite",
            Self::Person => "collab-p2p v1 sign person",
            Self::Presence => "collab-p2p v1 sign presence",
            Self::Screen => "collab-p2p v1 sign screen",
            Self::Lease => "collab-p2p v1 sign lease",
            Self::Order => "collab-p2p v1 sign order",
            Self::Hello => "collab-p2p v1 sign hello",
            Self::Addresses => "collab-p2p v1 sign addresses",
            Self::Input => "collab-p2p v1 sign input",
            Self::Admission => "collab-p2p v1 sign admission",
            Self::Alive => "collab-p2p v1 sign alive",
        }
    }

    /// The bytes that are signed: one byte of length, the domain's text, the payload.
    fn message(self, payload: &[u8]) -> Vec<u8> {
        let text = self.text().as_bytes();
        let mut message = Vec::with_capacity(1 + text.len() + payload.len());
        message.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        message.extend_from_slice(text);
        message.extend_from_slice(payload);
        message
    }
}

/// An ed25519 signature: 64 bytes on the wire, no length in front.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(")?;
        self.0
            .iter()
            .take(5)
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        let (left, right) = self.0.split_at(32);
        r.copy_from_slice(left);
        s.copy_from_slice(right);
        (r, s).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (r, s) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        let (left, right) = bytes.split_at_mut(32);
        left.copy_from_slice(&r);
        right.copy_from_slice(&s);
        Ok(Self(bytes))
    }
}

/// The secret key of a member, or of a session's root. Leaves memory when dropped.
#[derive(Clone)]
pub struct MemberKey(SigningKey);

impl MemberKey {
    /// A new key from fresh bytes.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self::from_secret(entropy.bytes())
    }

    /// The key with this 32-byte secret.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The secret, for the store and for libp2p. The caller wipes what it copies.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half, which names the member.
    pub fn id(&self) -> MemberId {
        MemberId(self.0.verifying_key().to_bytes())
    }

    /// Signs `payload` for one purpose.
    pub fn sign(&self, domain: Domain, payload: &[u8]) -> Signature {
        Signature(self.0.sign(&domain.message(payload)).to_bytes())
    }

    fn from_secret(mut secret: [u8; 32]) -> Self {
        let key = Self::from_bytes(&secret);
        secret.zeroize();
        key
    }
}

impl fmt::Debug for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberKey({})", self.id().short())
    }
}

/// The secret key of an invitation, derived from the seed in its ticket. Whoever holds the ticket holds it; it
/// never crosses the wire.
#[derive(Clone)]
pub struct InviteKey(MemberKey);

impl InviteKey {
    /// The key of the ticket with this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(MemberKey::from_secret(derive_key(
            "collab-p2p v1 invite-sign",
            &[seed],
        )))
    }

    /// The public half, which the grant names.
    pub fn id(&self) -> InviteId {
        InviteId(self.0.id().0)
    }

    /// Signs `payload` for one purpose.
    pub fn sign(&self, domain: Domain, payload: &[u8]) -> Signature {
        self.0.sign(domain, payload)
    }

    /// The same key as the author of sub-grants.
    pub fn as_author(&self) -> &MemberKey {
        &self.0
    }
}

impl fmt::Debug for InviteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteKey({})", self.id().short())
    }
}

/// Checks that `signer` signed `payload` for this purpose; small-order keys and malleable forms are refused.
pub fn verify(
    signer: &MemberId,
    domain: Domain,
    payload: &[u8],
    signature: &Signature,
) -> Result<(), IdentityError> {
    let key = VerifyingKey::from_bytes(&signer.0).map_err(|_| IdentityError::NoKey(*signer))?;
    key.verify_strict(
        &domain.message(payload),
        &ed25519_dalek::Signature::from_bytes(&signature.0),
    )
    .map_err(|_| IdentityError::BadSignature {
        signer: *signer,
        domain,
    })
}

/// [`verify`] for the key of an invitation.
pub fn verify_invite(
    signer: &InviteId,
    domain: Domain,
    payload: &[u8],
    signature: &Signature,
) -> Result<(), IdentityError> {
    verify(&MemberId(signer.0), domain, payload, signature)
}

/// The secret x25519 key of a member, to which epoch secrets are wrapped.
#[derive(Clone)]
pub struct AgreementKey(x25519_dalek::StaticSecret);

impl AgreementKey {
    /// A new key from fresh bytes.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self(x25519_dalek::StaticSecret::from(entropy.bytes::<32>()))
    }

    /// The key with this 32-byte secret.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(*secret))
    }

    /// The secret, for the store. The caller wipes what it copies.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> AgreementPublic {
        AgreementPublic(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// The secret shared with the holder of `other`; a key of small order is refused.
    pub fn agree(&self, other: &AgreementPublic) -> Result<SharedSecret, IdentityError> {
        let shared = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(other.0));
        if !shared.was_contributory() {
            return Err(IdentityError::WeakAgreementKey);
        }
        Ok(SharedSecret(shared.to_bytes()))
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreementKey(for {:?})", self.public())
    }
}

/// A public x25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AgreementPublic(pub [u8; 32]);

impl fmt::Debug for AgreementPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreementPublic({})", Hash(self.0).short())
    }
}

/// What two x25519 keys have in common: material for [`derive_key`], never a key itself.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// The raw bytes, to derive from.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// A key for one purpose. `context` is a constant text that begins with `collab-p2p v1` and is used nowhere
/// else; the parts enter with their lengths, so that no two lists of parts give the same key by accident.
pub fn derive_key(context: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    absorb(&mut hasher, parts);
    *hasher.finalize().as_bytes()
}

/// A hash for one purpose, by the rules of [`derive_key`].
pub fn hash(context: &'static str, parts: &[&[u8]]) -> Hash {
    Hash(derive_key(context, parts))
}

/// A hash that only holders of `key` can compute, for names that outsiders may see.
pub fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    absorb(&mut hasher, parts);
    Hash(*hasher.finalize().as_bytes())
}

fn absorb(hasher: &mut blake3::Hasher, parts: &[&[u8]]) {
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
}

/// A value whose signature has been checked, with its hash and its original bytes. Functions that act on what
/// peers said take it instead of the bare value, so that a forgotten check does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    hash: Hash,
    bytes: Arc<[u8]>,
}

impl<T> Verified<T> {
    /// To be called right after [`verify`] succeeded over what `bytes` says, or on what one has just signed.
    pub(in crate::engine) fn vouch(value: T, hash: Hash, bytes: Vec<u8>) -> Self {
        Self {
            value,
            hash,
            bytes: bytes.into(),
        }
    }

    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The hash by which others name it.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The signed bytes as they came, to store and to forward.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_signer_domain_and_bytes_only() {
        let mut entropy = Entropy::new([1; 32]);
        let (ana, ben) = (
            MemberKey::generate(&mut entropy),
            MemberKey::generate(&mut entropy),
        );

        let signature = ana.sign(Domain::Lease, b"for ten minutes");

        assert_eq!(
            verify(&ana.id(), Domain::Lease, b"for ten minutes", &signature),
            Ok(())
        );
        assert!(verify(&ben.id(), Domain::Lease, b"for ten minutes", &signature).is_err());
        assert!(verify(&ana.id(), Domain::Lease, b"for ten hours", &signature).is_err());
        for domain in Domain::ALL
            .into_iter()
            .filter(|domain| *domain != Domain::Lease)
        {
            assert!(verify(&ana.id(), domain, b"for ten minutes", &signature).is_err());
        }
    }

    #[test]
    fn no_two_domains_share_a_text_or_begin_one_another() {
        let messages: Vec<_> = Domain::ALL
            .iter()
            .map(|domain| domain.message(b""))
            .collect();

        for (i, one) in messages.iter().enumerate() {
            for (k, other) in messages.iter().enumerate() {
                assert!(i == k || !one.starts_with(other));
            }
        }
    }

    #[test]
    fn a_signature_with_any_bit_turned_is_refused() {
        let key = MemberKey::from_bytes(&[3; 32]);
        let signature = key.sign(Domain::Hello, b"hello");

        for bit in 0..512 {
            let mut turned = signature;
            turned.0[bit / 8] ^= 1 << (bit % 8);
            assert!(
                verify(&key.id(), Domain::Hello, b"hello", &turned).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_key_of_small_order_can_sign_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;

        let verdict = verify(
            &MemberId(identity),
            Domain::Hello,
            b"any",
            &Signature(forged),
        );

        assert!(verdict.is_err());
    }

    #[test]
    fn keys_survive_export_and_print_no_secret() {
        let key = MemberKey::generate(&mut Entropy::new([5; 32]));
        let agreement = AgreementKey::generate(&mut Entropy::new([6; 32]));
        let hex: String = key
            .to_bytes()
            .iter()
            .take(5)
            .map(|byte| format!("{byte:02x}"))
            .collect();

        assert_eq!(MemberKey::from_bytes(&key.to_bytes()).id(), key.id());
        assert_eq!(
            AgreementKey::from_bytes(&agreement.to_bytes()).public(),
            agreement.public()
        );
        assert!(!format!("{key:?}").contains(&hex));
    }

    #[test]
    fn two_keys_agree_on_one_secret_and_refuse_a_weak_one() {
        let mut entropy = Entropy::new([7; 32]);
        let (ana, ben) = (
            AgreementKey::generate(&mut entropy),
            AgreementKey::generate(&mut entropy),
        );

        let one = ana.agree(&ben.public()).unwrap();
        let other = ben.agree(&ana.public()).unwrap();

        assert_eq!(one.as_bytes(), other.as_bytes());
        assert!(ana.agree(&AgreementPublic([0; 32])).is_err());
    }

    #[test]
    fn parts_cannot_be_shifted_into_one_another() {
        let context = "collab-p2p v1 test";

        assert_ne!(
            derive_key(context, &[b"ab", b"c"]),
            derive_key(context, &[b"a", b"bc"])
        );
        assert_ne!(
            derive_key(context, &[b"abc"]),
            derive_key(context, &[b"abc", b""])
        );
        assert_ne!(keyed_hash(&[1; 32], &[b"a"]), keyed_hash(&[2; 32], &[b"a"]));
    }

    #[test]
    fn a_signature_is_64_bytes_on_the_wire() {
        let signature = MemberKey::from_bytes(&[9; 32]).sign(Domain::Input, b"x");

        let bytes = postcard::to_stdvec(&signature).unwrap();

        assert_eq!(bytes, signature.0);
        assert_eq!(
            postcard::from_bytes::<Signature>(&bytes).unwrap(),
            signature
        );
    }
}
