//! Sealing of stored records: the file system is not trusted to keep them secret, nor unchanged, nor in
//! their place. A sealed record is `version (1) ‖ nonce (24) ‖ XChaCha20-Poly1305 ciphertext and tag`, under
//! a key derived for its table, with `version ‖ store id ‖ table ‖ key` as associated data: a record that
//! was altered, moved to another place or brought from another store does not open.
//!
//! Random nonces of 192 bits never meet, also when an old copy of the store is restored.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::engine::entropy::Entropy;

use super::{Key, Table};

/// Version of the sealed form.
const VERSION: u8 = 1;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes that sealing adds to a record.
pub const SEAL_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;
const TAG_BYTES: usize = 16;

const KEY_FILE_MAGIC: [u8; 8] = *b"cp2pkey1";
/// Bytes of the key file: magic, store id, secret, check.
pub const KEY_FILE_BYTES: usize = 8 + 16 + 32 + 8;

/// The secret of one store and the id that tells it from others.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StoreKey {
    #[zeroize(skip)]
    id: [u8; 16],
    secret: [u8; 32],
}

/// Why the bytes of a key file are not a store key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("store.key is not a key file of this version, or it is damaged")]
pub struct KeyFileError;

impl StoreKey {
    /// Draws a new key.
    pub fn draw(entropy: &mut Entropy) -> Self {
        Self {
            id: entropy.bytes(),
            secret: entropy.bytes(),
        }
    }

    /// The bytes of the key file: `magic (8) ‖ id (16) ‖ secret (32) ‖ blake3 of these, cut to 8`. The check
    /// tells a damaged key file from damaged records.
    pub fn to_file(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES));
        bytes.extend_from_slice(&KEY_FILE_MAGIC);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.secret);
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// Reads what [`StoreKey::to_file`] wrote.
    ///
    /// # Errors
    /// If the length, the magic or the check differs.
    pub fn from_file(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let (content, check) = bytes.split_last_chunk::<8>().ok_or(KeyFileError)?;
        if check_of(content) != *check {
            return Err(KeyFileError);
        }
        let rest = content.strip_prefix(&KEY_FILE_MAGIC).ok_or(KeyFileError)?;
        let (id, secret) = rest.split_first_chunk::<16>().ok_or(KeyFileError)?;
        Ok(Self {
            id: *id,
            secret: secret.try_into().map_err(|_| KeyFileError)?,
        })
    }

    /// Seals `value` for its place. `nonce` must never have been used before.
    pub fn seal(&self, key: &Key, value: &[u8], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let aad = self.associated_data(key);
        let payload = Payload {
            msg: value,
            aad: &aad,
        };
        let sealed = self
            .cipher(key.table)
            .encrypt(&XNonce::from(nonce), payload);
        let mut record = Vec::with_capacity(SEAL_BYTES.saturating_add(value.len()));
        record.push(VERSION);
        record.extend_from_slice(&nonce);
        // Encryption fails only past 256 GiB; a record without ciphertext opens nowhere and is reported.
        record.extend_from_slice(&sealed.unwrap_or_default());
        record
    }

    /// Opens a record found at `key`; `None` if it is not exactly what was sealed for that place.
    pub fn open(&self, key: &Key, record: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = record.split_first()?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if *version != VERSION {
            return None;
        }
        let aad = self.associated_data(key);
        let payload = Payload {
            msg: ciphertext,
            aad: &aad,
        };
        self.cipher(key.table)
            .decrypt(&XNonce::from(*nonce), payload)
            .ok()
    }

    /// A short keyed hash of `text`, by which a folder can be found by a name that it does not show.
    pub fn mark(&self, text: &str) -> [u8; 16] {
        let key = blake3::derive_key("collab-p2p store v1 mark of a name", &self.secret);
        let hash = blake3::keyed_hash(&key, text.as_bytes());
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn cipher(&self, table: Table) -> XChaCha20Poly1305 {
        let mut material = Zeroizing::new([0; 33]);
        let (secret, number) = material.split_at_mut(32);
        secret.copy_from_slice(&self.secret);
        number.fill(table.number());
        let key = Zeroizing::new(blake3::derive_key("collab-p2p store v1 table", &*material));
        XChaCha20Poly1305::new((&*key).into())
    }

    fn associated_data(&self, key: &Key) -> Vec<u8> {
        let mut data = Vec::with_capacity(18_usize.saturating_add(key.key.len()));
        data.push(VERSION);
        data.extend_from_slice(&self.id);
        data.push(key.table.number());
        data.extend_from_slice(&key.key);
        data
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.id;
        write!(f, "StoreKey({a:02x}{b:02x}{c:02x}..)")
    }
}

fn check_of(content: &[u8]) -> [u8; 8] {
    blake3::hash(content)
        .as_bytes()
        .first_chunk()
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key_of(seed: u8) -> StoreKey {
        StoreKey::draw(&mut Entropy::new([seed; 32]))
    }

    fn place() -> Key {
        Key::new(Table::Log, *b"place")
    }

    #[test]
    fn a_record_opens_only_in_its_store_table_and_key() {
        let record = key_of(1).seal(&place(), b"value", [9; 24]);

        assert_eq!(
            key_of(1).open(&place(), &record).as_deref(),
            Some(&b"value"[..])
        );
        assert_eq!(key_of(2).open(&place(), &record), None);
        assert_eq!(
            key_of(1).open(&Key::new(Table::Log, *b"plac"), &record),
            None
        );
        assert_eq!(
            key_of(1).open(&Key::new(Table::Bodies, *b"place"), &record),
            None
        );
    }

    #[test]
    fn the_same_secret_under_another_store_id_opens_nothing() {
        let record = key_of(1).seal(&place(), b"value", [9; 24]);
        let mut cousin = key_of(1);
        cousin.id = [0; 16];

        assert_eq!(cousin.open(&place(), &record), None);
    }

    #[test]
    fn a_key_file_survives_the_round_trip_and_no_bit_flip() {
        let file = key_of(1).to_file();
        assert_eq!(file.len(), KEY_FILE_BYTES);
        let read = StoreKey::from_file(&file).unwrap();
        assert_eq!((read.id, read.secret), (key_of(1).id, key_of(1).secret));

        for bit in 0..file.len() * 8 {
            let mut hurt = file.to_vec();
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert!(StoreKey::from_file(&hurt).is_err(), "bit {bit}");
        }
        (0..file.len()).for_each(|cut| assert!(StoreKey::from_file(&file[..cut]).is_err()));
    }

    #[test]
    fn a_key_never_prints_its_secret() {
        let key = StoreKey {
            id: [1; 16],
            secret: [0xab; 32],
        };

        assert_eq!(format!("{key:?}"), "StoreKey(010101..)");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_what_is_changed_does_not(
            value in proptest::collection::vec(any::<u8>(), 0..300),
            nonce: [u8; 24],
            spot: proptest::sample::Index,
            flip in 1_u8..,
        ) {
            let record = key_of(3).seal(&place(), &value, nonce);
            prop_assert_eq!(record.len(), value.len() + SEAL_BYTES);
            prop_assert_eq!(key_of(3).open(&place(), &record), Some(value));

            let mut changed = record.clone();
            changed[spot.index(record.len())] ^= flip;
            prop_assert_eq!(key_of(3).open(&place(), &changed), None);
            prop_assert_eq!(key_of(3).open(&place(), &record[..spot.index(record.len())]), None);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert_eq!(key_of(4).open(&place(), &bytes), None);
            prop_assert!(StoreKey::from_file(&bytes).is_err());
        }
    }
}
