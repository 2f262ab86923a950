//! Secrets shared by the readers of a period: their commitment, their wrapping and the keys derived from them.
//!
//! An epoch is named by the commitment to its secret, so whoever unwraps one knows at once whether it is the
//! right one, and all readers provably hold the same. Each epoch also wraps the secret of the one before, so a
//! newcomer reads all history.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::engine::entropy::Entropy;
use crate::engine::identity::{AgreementKey, AgreementPublic, IdentityError, derive_key};
use crate::engine::ids::{DocumentId, Hash, MemberId, SessionId};

/// Why an epoch secret cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The recipient's key is unusable.
    #[error("cannot agree on a wrapping key: {0}")]
    Agreement(#[from] IdentityError),
    /// The wrap was made for another key, session, epoch or recipient, or it was changed.
    #[error("the wrap of {0:?} does not open")]
    NotOpened(EpochId),
    /// What came out is another secret than the epoch is committed to.
    #[error("the secret given for {0:?} does not match its commitment")]
    WrongSecret(EpochId),
    /// This node lacks the secret that is needed.
    #[error("the secret of {0:?} is not known here")]
    Unknown(EpochId),
}

/// An epoch: the commitment to its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochId(pub [u8; 32]);

impl EpochId {
    /// The first ten hexadecimal digits, for people and logs.
    pub fn short(&self) -> String {
        Hash(self.0).short()
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochId({})", self.short())
    }
}

/// The secret of an epoch. Leaves memory when dropped; printed as its commitment only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EpochSecret([u8; 32]);

impl EpochSecret {
    /// A new secret from fresh bytes.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self(entropy.bytes())
    }

    /// The secret with these bytes, from the store or from a member's stream.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the store and for a reader that lacks it.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    /// The epoch that this is the secret of.
    pub fn id(&self) -> EpochId {
        EpochId(derive_key("collab-p2p v1 epoch commit", &[&self.0]))
    }

    /// The key of one document in this epoch.
    pub fn document_key(&self, document: &DocumentId) -> Zeroizing<[u8; 32]> {
        self.derive("collab-p2p v1 epoch doc", &[&document.0])
    }

    /// The key of presence in this epoch.
    pub fn presence_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive("collab-p2p v1 epoch presence", &[])
    }

    /// Wraps the secret for one reader.
    pub fn wrap(
        &self,
        session: &SessionId,
        recipient: &MemberId,
        prekey: &AgreementPublic,
        entropy: &mut Entropy,
    ) -> Result<Wrap, EpochError> {
        let ephemeral = AgreementKey::generate(entropy);
        let shared = ephemeral.agree(prekey)?;
        let place = WrapPlace {
            session,
            epoch: self.id(),
            recipient,
        };
        let key = place.key(shared.as_bytes(), &ephemeral.public(), prekey);
        let sealed = Sealed::seal(&key, &self.0, place.epoch)?;
        Ok(Wrap {
            recipient: *recipient,
            ephemeral: ephemeral.public(),
            sealed,
        })
    }

    /// Wraps the secret of an earlier epoch under this one.
    pub fn wrap_previous(
        &self,
        session: &SessionId,
        previous: &Self,
    ) -> Result<PreviousWrap, EpochError> {
        let epoch = previous.id();
        let sealed = Sealed::seal(&self.previous_key(session, epoch), &previous.0, epoch)?;
        Ok(PreviousWrap { epoch, sealed })
    }

    /// Opens what [`Self::wrap_previous`] made.
    pub fn unwrap_previous(
        &self,
        session: &SessionId,
        wrap: &PreviousWrap,
    ) -> Result<Self, EpochError> {
        wrap.sealed
            .open(&self.previous_key(session, wrap.epoch), wrap.epoch)
    }

    fn previous_key(&self, session: &SessionId, previous: EpochId) -> Zeroizing<[u8; 32]> {
        self.derive("collab-p2p v1 epoch previous", &[&session.0, &previous.0])
    }

    fn derive(&self, context: &'static str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let parts: Vec<&[u8]> = std::iter::once(self.0.as_slice())
            .chain(parts.iter().copied())
            .collect();
        Zeroizing::new(derive_key(context, &parts))
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochSecret(of {})", self.id().short())
    }
}

/// A secret wrapped for one reader: 112 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrap {
    /// Who can open it.
    pub recipient: MemberId,
    /// The sender's key, made for this wrap alone.
    pub ephemeral: AgreementPublic,
    /// The secret under a key of this session, epoch and recipient.
    pub sealed: Sealed,
}

impl Wrap {
    /// Opens the wrap as its recipient; the result is checked against the epoch's commitment.
    pub fn open(
        &self,
        session: &SessionId,
        epoch: EpochId,
        key: &AgreementKey,
    ) -> Result<EpochSecret, EpochError> {
        let shared = key.agree(&self.ephemeral)?;
        let place = WrapPlace {
            session,
            epoch,
            recipient: &self.recipient,
        };
        self.sealed.open(
            &place.key(shared.as_bytes(), &self.ephemeral, &key.public()),
            epoch,
        )
    }
}

/// The secret of an earlier epoch, wrapped under a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousWrap {
    /// The earlier epoch.
    pub epoch: EpochId,
    /// Its secret.
    pub sealed: Sealed,
}

/// A wrap together with the epoch that it is of, for an admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochWrap {
    /// Whose secret.
    pub epoch: EpochId,
    /// The secret for one reader.
    pub wrap: Wrap,
}

/// 32 bytes under XChaCha20-Poly1305. The nonce is zero: each key seals once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    ciphertext: [u8; 32],
    tag: [u8; 16],
}

impl Sealed {
    fn seal(key: &[u8; 32], secret: &[u8; 32], epoch: EpochId) -> Result<Self, EpochError> {
        let payload = Payload {
            msg: secret,
            aad: &epoch.0,
        };
        let sealed = XChaCha20Poly1305::new(key.into())
            .encrypt(&XNonce::from([0; 24]), payload)
            .map_err(|_| EpochError::NotOpened(epoch))?;
        let mut result = Self {
            ciphertext: [0; 32],
            tag: [0; 16],
        };
        for (to, from) in result
            .ciphertext
            .iter_mut()
            .chain(&mut result.tag)
            .zip(sealed)
        {
            *to = from;
        }
        Ok(result)
    }

    fn open(&self, key: &[u8; 32], epoch: EpochId) -> Result<EpochSecret, EpochError> {
        let sealed = [self.ciphertext.as_slice(), self.tag.as_slice()].concat();
        let payload = Payload {
            msg: &sealed,
            aad: &epoch.0,
        };
        let opened = XChaCha20Poly1305::new(key.into())
            .decrypt(&XNonce::from([0; 24]), payload)
            .map(Zeroizing::new)
            .map_err(|_| EpochError::NotOpened(epoch))?;
        let bytes: [u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_| EpochError::NotOpened(epoch))?;
        let secret = EpochSecret(bytes);
        if secret.id() == epoch {
            Ok(secret)
        } else {
            Err(EpochError::WrongSecret(epoch))
        }
    }
}

/// What a wrap is bound to.
struct WrapPlace<'a> {
    session: &'a SessionId,
    epoch: EpochId,
    recipient: &'a MemberId,
}

impl WrapPlace<'_> {
    fn key(
        &self,
        shared: &[u8; 32],
        ephemeral: &AgreementPublic,
        prekey: &AgreementPublic,
    ) -> Zeroizing<[u8; 32]> {
        let parts: [&[u8]; 6] = [
            shared,
            &ephemeral.0,
            &prekey.0,
            &self.session.0,
            &self.epoch.0,
            &self.recipient.0,
        ];
        Zeroizing::new(derive_key("collab-p2p v1 epoch wrap", &parts))
    }
}

/// The epoch secrets that this node knows.
#[derive(Clone, Default)]
pub struct Keyring {
    secrets: BTreeMap<EpochId, EpochSecret>,
}

impl Keyring {
    /// Adds a secret; whether it is new. Its epoch is what it commits to, so a wrong secret harms nobody.
    pub fn insert(&mut self, secret: EpochSecret) -> bool {
        self.secrets.insert(secret.id(), secret).is_none()
    }

    /// The secret of one epoch.
    pub fn get(&self, epoch: &EpochId) -> Option<&EpochSecret> {
        self.secrets.get(epoch)
    }

    /// Whether the secret of this epoch is known.
    pub fn knows(&self, epoch: &EpochId) -> bool {
        self.secrets.contains_key(epoch)
    }

    /// All known epochs, in the order of their ids.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochId> {
        self.secrets.keys()
    }

    /// The key of a document in one epoch.
    pub fn document_key(
        &self,
        epoch: &EpochId,
        document: &DocumentId,
    ) -> Result<Zeroizing<[u8; 32]>, EpochError> {
        let secret = self.get(epoch).ok_or(EpochError::Unknown(*epoch))?;
        Ok(secret.document_key(document))
    }

    /// The key of presence in one epoch.
    pub fn presence_key(&self, epoch: &EpochId) -> Result<Zeroizing<[u8; 32]>, EpochError> {
        self.get(epoch)
            .map(EpochSecret::presence_key)
            .ok_or(EpochError::Unknown(*epoch))
    }

    /// Opens wraps made for `me` whose epoch is still unknown; the epochs learned.
    pub fn open_wraps<'a>(
        &mut self,
        session: &SessionId,
        me: &MemberId,
        key: &AgreementKey,
        wraps: impl IntoIterator<Item = (EpochId, &'a Wrap)>,
    ) -> Vec<EpochId> {
        let mine = wraps.into_iter().filter(|(_, wrap)| wrap.recipient == *me);
        let mut learned = Vec::new();
        for (epoch, wrap) in mine {
            if self.knows(&epoch) {
                continue;
            }
            if let Ok(secret) = wrap.open(session, epoch, key) {
                self.insert(secret);
                learned.push(epoch);
            }
        }
        learned
    }

    /// Opens the earlier secrets that known epochs wrap, as far back as it goes; the epochs learned. `previous`
    /// lists each epoch with what it wraps, newest first for the least work.
    pub fn open_previous(
        &mut self,
        session: &SessionId,
        previous: &[(EpochId, &[PreviousWrap])],
    ) -> Vec<EpochId> {
        let mut learned = Vec::new();
        loop {
            let before = learned.len();
            for (epoch, wraps) in previous {
                let Some(secret) = self.get(epoch).cloned() else {
                    continue;
                };
                for wrap in *wraps {
                    if self.knows(&wrap.epoch) {
                        continue;
                    }
                    if let Ok(earlier) = secret.unwrap_previous(session, wrap) {
                        self.insert(earlier);
                        learned.push(wrap.epoch);
                    }
                }
            }
            if learned.len() == before {
                return learned;
            }
        }
    }

    /// All secrets one after another, 32 bytes each, for the store.
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.secrets.values().flat_map(|secret| secret.0).collect())
    }

    /// Reads what [`Self::export`] wrote; a part of a secret at the end is no secret and is left out.
    pub fn import(bytes: &[u8]) -> Self {
        let mut keyring = Self::default();
        for secret in bytes.as_chunks::<32>().0 {
            keyring.insert(EpochSecret(*secret));
        }
        keyring
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.secrets.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 32]);
    const ANA: MemberId = MemberId([2; 32]);

    #[test]
    fn a_wrap_opens_for_its_recipient_in_its_session_and_epoch_only() {
        let mut entropy = Entropy::new([1; 32]);
        let key = AgreementKey::generate(&mut entropy);
        let secret = EpochSecret::generate(&mut entropy);
        let wrap = secret
            .wrap(&SESSION, &ANA, &key.public(), &mut entropy)
            .unwrap();
        let opens =
            |wrap: &Wrap, session, epoch, key| wrap.open(session, epoch, key).map(|s| s.id());

        assert_eq!(opens(&wrap, &SESSION, secret.id(), &key), Ok(secret.id()));
        let other_epoch = EpochSecret::generate(&mut entropy).id();
        let other_key = AgreementKey::generate(&mut entropy);
        let other_member = Wrap {
            recipient: MemberId([3; 32]),
            ..wrap.clone()
        };
        assert!(opens(&wrap, &SessionId([9; 32]), secret.id(), &key).is_err());
        assert!(opens(&wrap, &SESSION, other_epoch, &key).is_err());
        assert!(opens(&wrap, &SESSION, secret.id(), &other_key).is_err());
        assert!(opens(&other_member, &SESSION, secret.id(), &key).is_err());
    }

    #[test]
    fn a_wrap_survives_the_wire_and_no_turned_bit() {
        let mut entropy = Entropy::new([2; 32]);
        let key = AgreementKey::generate(&mut entropy);
        let secret = EpochSecret::generate(&mut entropy);
        let wrap = secret
            .wrap(&SESSION, &ANA, &key.public(), &mut entropy)
            .unwrap();
        let bytes = postcard::to_stdvec(&wrap).unwrap();

        assert_eq!(bytes.len(), 112);
        assert_eq!(postcard::from_bytes::<Wrap>(&bytes).unwrap(), wrap);
        for bit in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            let turned: Wrap = postcard::from_bytes(&turned).unwrap();
            assert!(
                turned.open(&SESSION, secret.id(), &key).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_secret_that_does_not_match_its_commitment_is_refused() {
        let (honest, other) = (
            EpochSecret::from_bytes([4; 32]),
            EpochSecret::from_bytes([5; 32]),
        );
        let newer = EpochSecret::from_bytes([6; 32]);
        let key = newer.previous_key(&SESSION, honest.id());
        let sealed = Sealed::seal(&key, &other.0, honest.id()).unwrap();

        let opened = newer.unwrap_previous(
            &SESSION,
            &PreviousWrap {
                epoch: honest.id(),
                sealed,
            },
        );

        assert_eq!(opened.unwrap_err(), EpochError::WrongSecret(honest.id()));
    }

    #[test]
    fn nothing_is_wrapped_to_a_weak_key() {
        let mut entropy = Entropy::new([3; 32]);
        let secret = EpochSecret::generate(&mut entropy);

        assert!(
            secret
                .wrap(&SESSION, &ANA, &AgreementPublic([0; 32]), &mut entropy)
                .is_err()
        );
    }

    #[test]
    fn whoever_has_the_newest_secret_reads_all_earlier_epochs() {
        let mut entropy = Entropy::new([4; 32]);
        let secrets: Vec<_> = (0..5)
            .map(|_| EpochSecret::generate(&mut entropy))
            .collect();
        let wraps: Vec<_> = secrets
            .windows(2)
            .map(|pair| {
                (
                    pair[1].id(),
                    vec![pair[1].wrap_previous(&SESSION, &pair[0]).unwrap()],
                )
            })
            .collect();
        let chain: Vec<_> = wraps
            .iter()
            .map(|(id, wraps)| (*id, wraps.as_slice()))
            .collect();
        let mut keyring = Keyring::default();
        keyring.insert(secrets[3].clone());

        let learned = keyring.open_previous(&SESSION, &chain);

        assert_eq!(learned.len(), 3);
        assert!(
            secrets[..4]
                .iter()
                .all(|secret| keyring.knows(&secret.id()))
        );
        assert!(!keyring.knows(&secrets[4].id()));
        assert!(
            Keyring::default()
                .open_previous(&SESSION, &chain)
                .is_empty()
        );
    }

    #[test]
    fn a_keyring_learns_from_the_wraps_made_for_its_member() {
        let mut entropy = Entropy::new([5; 32]);
        let key = AgreementKey::generate(&mut entropy);
        let (mine, others) = (
            EpochSecret::generate(&mut entropy),
            EpochSecret::generate(&mut entropy),
        );
        let for_me = mine
            .wrap(&SESSION, &ANA, &key.public(), &mut entropy)
            .unwrap();
        let for_ben = others
            .wrap(&SESSION, &MemberId([7; 32]), &key.public(), &mut entropy)
            .unwrap();
        let wraps = [(mine.id(), &for_me), (others.id(), &for_ben)];
        let mut keyring = Keyring::default();

        assert_eq!(
            keyring.open_wraps(&SESSION, &ANA, &key, wraps),
            vec![mine.id()]
        );
        assert!(keyring.open_wraps(&SESSION, &ANA, &key, wraps).is_empty());
        assert!(keyring.presence_key(&others.id()).is_err());
    }

    #[test]
    fn a_keyring_survives_the_store() {
        let mut keyring = Keyring::default();
        keyring.insert(EpochSecret::from_bytes([8; 32]));
        keyring.insert(EpochSecret::from_bytes([9; 32]));

        let exported = keyring.export();
        let imported = Keyring::import(&exported);

        assert!(imported.epochs().eq(keyring.epochs()));
        assert_eq!(Keyring::import(&exported[..63]).epochs().count(), 1);
    }

    #[test]
    fn keys_differ_by_document_epoch_and_purpose() {
        let (one, two) = (
            EpochSecret::from_bytes([1; 32]),
            EpochSecret::from_bytes([2; 32]),
        );
        let (a, b) = (DocumentId([1; 32]), DocumentId([2; 32]));

        assert_ne!(one.document_key(&a), one.document_key(&b));
        assert_ne!(one.document_key(&a), two.document_key(&a));
        assert_ne!(one.presence_key(), two.presence_key());
        assert_ne!(*one.presence_key(), one.id().0);
        assert!(!format!("{one:?}").contains("0101"));
    }
}
