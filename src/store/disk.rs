//! The store on disk: one redb file per member, `store.redb`, with its key in `store.key` beside it, both
//! 0600. Each file comes into being under a temporary name and is renamed when it is whole and synced, so a
//! crash at any moment leaves either none or a usable one.
//!
//! redb does not verify checksums when it reads, and the file may have been altered: every record is sealed
//! to its place, and no fault of the file is worse than an error. A commit that fails poisons the store,
//! because after a failed fsync nobody knows what the disk holds. Only where there was no room to write and no
//! fsync has failed it may be tried again: then the file says by itself what it holds, and is opened anew.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Bound;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{BackendError, Builder, Database, ReadableDatabase, ReadableTable, StorageBackend};

use crate::engine::entropy::Entropy;

use super::schema::{FORMAT, FORMAT_KEY, FORMAT_TABLE, definition};
use super::seal::{KEY_FILE_BYTES, StoreKey};
use super::{Batch, Durability, Key, Scan, Store, StoreError, Table};

/// Name of the database in its folder.
pub const STORE_FILE: &str = "store.redb";
/// Name of the key file in the same folder.
pub const KEY_FILE: &str = "store.key";

/// Page cache of an open store; redb's default is 1 GiB. A store is read once, at the start, and written from then on:
/// a larger cache would only keep what nobody reads.
const CACHE_BYTES: usize = 1 << 20;
/// A file up to this size has all its checksums verified on opening.
const CHECKED_BYTES_MAX: u64 = 32 << 20;

/// An open store file. One process at a time: the file is locked.
#[derive(Debug)]
pub struct Disk {
    /// None after a full disk, until it is opened again.
    database: Option<Opened>,
    source: Source,
    /// Which file it is.
    identity: (u64, u64),
    key: StoreKey,
    health: Health,
    poisoned: bool,
    /// Whether an eventual commit waits for an immediate one.
    unsecured: bool,
}

/// What the checks on opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All checksums hold.
    Sound,
    /// The file is too large to be checked on opening; records are still verified one by one.
    Unchecked,
    /// Some page is not what was written. Damaged records are reported by load and scan; others may be
    /// missing, and members have them.
    Suspect,
}

impl Disk {
    /// Opens the store in `folder`, which exists, and creates it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if it is open elsewhere, [`StoreError::Unwritable`] and
    /// [`StoreError::DiskFull`] as the system says, [`StoreError::Damaged`] if the file or its key cannot
    /// be used.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_through(folder, |file| {
            let backend = FileBackend::new(file).map_err(from_redb)?;
            Ok(Box::new(backend) as Box<dyn StorageBackend>)
        })
    }

    /// What the checks on opening found.
    pub fn health(&self) -> Health {
        self.health
    }

    fn open_through(
        folder: &Path,
        backend: impl Fn(File) -> Result<Box<dyn StorageBackend>, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let path = folder.join(STORE_FILE);
        let key = load_or_create_key(folder)?;
        if !path.exists() {
            create(folder, &key)?;
        }
        // Before the opening, which may repair: a repair after a crash can hide that a page is hurt.
        let health = check(&path)?;
        let source = Source {
            path,
            backend: Box::new(backend),
            unsynced: Arc::default(),
        };
        let database = source.open(&key)?;
        Ok(Self {
            database: Some(database),
            identity: identity(&source.path)?,
            source,
            key,
            health,
            poisoned: false,
            unsecured: false,
        })
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database
            .as_ref()
            .ok_or(StoreError::DiskFull)?
            .database()
    }

    /// Opens the file again after a full disk: what it holds is what its last sound commit left.
    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.database.is_none() {
            self.database = Some(self.source.open(&self.key)?);
            self.unsecured = false;
        }
        Ok(())
    }

    fn sealed(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.database()?.begin_read().map_err(from_redb)?;
        let table = transaction
            .open_table(definition(key.table))
            .map_err(from_redb)?;
        let record = table.get(key.key.as_slice()).map_err(from_redb)?;
        Ok(record.map(|guard| guard.value().to_vec()))
    }

    fn scan_table(&self, table: Table) -> Result<Scan, StoreError> {
        let transaction = self.database()?.begin_read().map_err(from_redb)?;
        let rows = transaction
            .open_table(definition(table))
            .map_err(from_redb)?;
        let mut scan = Scan::default();
        for row in rows.iter().map_err(from_redb)? {
            let (name, record) = row.map_err(from_redb)?;
            let key = Key::new(table, name.value());
            match self.key.open(&key, record.value()) {
                Some(value) => scan.records.push((key, value)),
                None => scan.damaged.push(key),
            }
        }
        Ok(scan)
    }

    fn write(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        // What is written to a file that nobody finds again is not saved.
        if identity(&self.source.path) != Ok(self.identity) {
            let gone = format!("{STORE_FILE} is gone, or another file is in its place");
            return Err(StoreError::Io(gone));
        }
        self.reopen()?;
        let precious = batch.is_precious();
        let mut entropy = draw_entropy()?;
        let mut transaction = self.database()?.begin_write().map_err(from_redb)?;
        transaction
            .set_durability(durability.into())
            .map_err(from_redb)?;
        transaction.set_two_phase_commit(precious);
        for (key, value) in batch.into_changes() {
            let mut table = transaction
                .open_table(definition(key.table))
                .map_err(from_redb)?;
            match value {
                Some(value) => {
                    let record = self.key.seal(&key, &value, entropy.bytes());
                    drop(
                        table
                            .insert(key.key.as_slice(), record.as_slice())
                            .map_err(from_redb)?,
                    );
                }
                None => drop(table.remove(key.key.as_slice()).map_err(from_redb)?),
            }
        }
        transaction.commit().map_err(from_redb)
    }

    /// Runs a change of the file. If it fails, the store is poisoned, unless it failed for want of room and the
    /// disk has obeyed every fsync: after a failed one the file that is read back may not be the one on disk.
    fn or_poison(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let result = contained(|| change(self));
        if result == Err(StoreError::DiskFull) && !self.source.unsynced.load(Ordering::SeqCst) {
            self.database = None;
        } else {
            self.poisoned = result.is_err();
        }
        result
    }
}

impl Store for Disk {
    fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(record) = contained(|| self.sealed(key))? else {
            return Ok(None);
        };
        let value = self.key.open(key, &record);
        value
            .map(Some)
            .ok_or_else(|| StoreError::Corrupt { key: key.clone() })
    }

    fn scan(&self, table: Table) -> Result<Scan, StoreError> {
        contained(|| self.scan_table(table))
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let waits = self.unsecured && durability == Durability::Immediate;
        if batch.is_empty() && !waits && !self.poisoned {
            return Ok(());
        }
        self.or_poison(|store| store.write(batch, durability))?;
        self.unsecured = durability == Durability::Eventual;
        Ok(())
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.or_poison(|store| {
            store.reopen()?;
            let opened = store.database.as_mut().ok_or(StoreError::DiskFull)?;
            let database = opened.0.as_mut().ok_or(StoreError::Poisoned)?;
            database.compact().map(drop).map_err(from_redb)
        })
    }
}

/// Makes what redb reads and writes through, from an open file.
type MakeBackend = Box<dyn Fn(File) -> Result<Box<dyn StorageBackend>, StoreError> + Send>;

/// An open database. Closing one whose structure is damaged may panic, which then ends there.
#[derive(Debug)]
struct Opened(Option<Database>);

impl Opened {
    fn database(&self) -> Result<&Database, StoreError> {
        self.0.as_ref().ok_or(StoreError::Poisoned)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let database = self.0.take();
        let closed = contained(|| {
            drop(database);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "the store was not closed in order");
        }
    }
}

/// Where the database is opened, and opened again.
struct Source {
    path: PathBuf,
    backend: MakeBackend,
    /// Whether an fsync has failed since the store was opened for the first time.
    unsynced: Arc<AtomicBool>,
}

impl Source {
    fn open(&self, key: &StoreKey) -> Result<Opened, StoreError> {
        let file = writable(&self.path).map_err(|error| from_io(&error))?;
        if file.metadata().map_err(|error| from_io(&error))?.len() == 0 {
            return Err(StoreError::Damaged(format!("{STORE_FILE} is empty")));
        }
        let watched = Watched {
            backend: (self.backend)(file)?,
            unsynced: Arc::clone(&self.unsynced),
        };
        let database = contained(|| builder().create_with_backend(watched).map_err(from_redb))?;
        let opened = Opened(Some(database));
        check_format(opened.database()?, key)?;
        Ok(opened)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.path.display())
    }
}

/// A backend that remembers whether an fsync has failed.
#[derive(Debug)]
struct Watched {
    backend: Box<dyn StorageBackend>,
    unsynced: Arc<AtomicBool>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = self.backend.sync_data();
        if result.is_err() {
            self.unsynced.store(true, Ordering::SeqCst);
        }
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }
}

impl From<Durability> for redb::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Immediate => Self::Immediate,
            Durability::Eventual => Self::None,
        }
    }
}

/// The key in `folder`, drawn and written first if there is neither a key nor a store.
///
/// # Errors
/// [`StoreError::Damaged`] if the key file is not sound, or missing beside a store.
pub(crate) fn load_or_create_key(folder: &Path) -> Result<StoreKey, StoreError> {
    match read_key(folder) {
        Err(StoreError::Damaged(_)) if is_fresh(folder) => {
            let key = StoreKey::draw(&mut draw_entropy()?);
            let written = write_atomically(&folder.join(KEY_FILE), &key.to_file());
            written.map(|()| key).map_err(|error| from_io(&error))
        }
        other => other,
    }
}

/// The key in `folder`.
///
/// # Errors
/// [`StoreError::Damaged`] if it is missing or not sound.
pub(crate) fn read_key(folder: &Path) -> Result<StoreKey, StoreError> {
    let bytes = match read_capped(&folder.join(KEY_FILE), KEY_FILE_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StoreError::Damaged(format!("{KEY_FILE} is missing")));
        }
        read => zeroize::Zeroizing::new(read.map_err(|error| from_io(&error))?),
    };
    StoreKey::from_file(&bytes).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// Writes a 0600 file so that a crash leaves the old content or the new, never a mixture.
///
/// # Errors
/// Those of the file system; the temporary file `<name>.tmp` may then remain.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    let mut file = private().create(true).truncate(true).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Reads a file of at most `max` bytes; a longer one is refused before it is in memory.
///
/// # Errors
/// Those of the file system, or [`ErrorKind::InvalidData`] if it is longer.
pub(crate) fn read_capped(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    if content.len() > max {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the file is longer than it may be",
        ));
    }
    Ok(content)
}

/// 32 bytes of the operating system, to be stretched.
///
/// # Errors
/// If the operating system has none to give.
#[expect(
    clippy::disallowed_methods,
    reason = "nonces of records never leave this adapter"
)]
pub(crate) fn draw_entropy() -> Result<Entropy, StoreError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StoreError::Io(error.to_string()))?;
    Ok(Entropy::new(seed))
}

/// What an error of the file system means for a store.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "foreign kinds, told apart only where we act on them"
)]
pub(crate) fn from_io(error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Unwritable(error.to_string())
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StoreError::DiskFull
        }
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => StoreError::Damaged(error.to_string()),
        _ => StoreError::Io(error.to_string()),
    }
}

/// A folder with neither key nor store: one was never made here, or a crash came before both were.
fn is_fresh(folder: &Path) -> bool {
    !folder.join(KEY_FILE).exists() && !folder.join(STORE_FILE).exists()
}

/// Makes the file under a temporary name, with its tables and format, and renames it.
fn create(folder: &Path, key: &StoreKey) -> Result<(), StoreError> {
    let path = folder.join(STORE_FILE);
    let temporary = with_suffix(&path, ".tmp");
    let made = private().create(true).truncate(true).open(&temporary);
    let file = made.map_err(|error| from_io(&error))?;
    let handle = file.try_clone().map_err(|error| from_io(&error))?;
    let database = builder().create_file(file).map_err(from_redb)?;
    fill(&database, key)?;
    drop(database);
    handle.sync_all().map_err(|error| from_io(&error))?;
    std::fs::rename(&temporary, &path).map_err(|error| from_io(&error))?;
    sync_parent(&path).map_err(|error| from_io(&error))
}

fn fill(database: &Database, key: &StoreKey) -> Result<(), StoreError> {
    let nonce = draw_entropy()?.bytes();
    let transaction = database.begin_write().map_err(from_redb)?;
    for table in Table::ALL {
        drop(
            transaction
                .open_table(definition(table))
                .map_err(from_redb)?,
        );
    }
    let format = key.seal(&Key::new(Table::Meta, FORMAT_KEY), &FORMAT, nonce);
    let mut table = transaction.open_table(FORMAT_TABLE).map_err(from_redb)?;
    drop(
        table
            .insert(FORMAT_KEY.as_slice(), format.as_slice())
            .map_err(from_redb)?,
    );
    drop(table);
    transaction.commit().map_err(from_redb)
}

/// The format record proves the key as well: a foreign key or a foreign file stops here.
fn check_format(database: &Database, key: &StoreKey) -> Result<(), StoreError> {
    let format = contained(|| {
        let transaction = database.begin_read().map_err(from_redb)?;
        let table = transaction.open_table(FORMAT_TABLE).map_err(from_redb)?;
        let record = table.get(FORMAT_KEY.as_slice()).map_err(from_redb)?;
        Ok(record.and_then(|guard| key.open(&Key::new(Table::Meta, FORMAT_KEY), guard.value())))
    })?;
    match format {
        Some(format) if format == FORMAT => Ok(()),
        Some(_) => Err(StoreError::Damaged(
            "it was written by another version".to_owned(),
        )),
        None => Err(StoreError::Damaged(format!(
            "{KEY_FILE} does not open {STORE_FILE}"
        ))),
    }
}

/// Verifies all checksums on a copy in memory, because a failed check makes redb refuse the file itself.
fn check(path: &Path) -> Result<Health, StoreError> {
    let size = path.metadata().map_err(|error| from_io(&error))?.len();
    if size > CHECKED_BYTES_MAX {
        return Ok(Health::Unchecked);
    }
    let content = std::fs::read(path).map_err(|error| from_io(&error))?;
    let copy = InMemoryBackend::new();
    let filled = copy.set_len(size).and_then(|()| copy.write(0, &content));
    filled.map_err(|error| from_io(&error))?;
    let sound = contained(|| {
        let mut database = builder().create_with_backend(copy).map_err(from_redb)?;
        database.check_integrity().map_err(from_redb)
    });
    Ok(if sound == Ok(true) {
        Health::Sound
    } else {
        Health::Suspect
    })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Runs `work` on the file; a panic over its content is damage, never the end of the process.
fn contained<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Damaged(
            "its structure makes no sense".to_owned(),
        ))
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "foreign errors, told apart only where we act on them"
)]
fn from_redb(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => from_io(&error),
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked,
        redb::Error::PreviousIo | redb::Error::LockPoisoned(_) => StoreError::Poisoned,
        other => StoreError::Damaged(other.to_string()),
    }
}

/// Device and number of the file at `path`.
fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let found = path.metadata().map_err(|error| from_io(&error))?;
    Ok((found.dev(), found.ino()))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn writable(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod crashes;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use tempfile::TempDir;

    use super::*;
    use crate::store::tests::{Bench, keeps_its_promises};

    const NO_FAULT: u8 = 0;
    const SYNC_FAILS: u8 = 1;
    const NO_SPACE: u8 = 2;
    const SYNC_FINDS_NO_SPACE: u8 = 3;
    const READ_FAILS: u8 = 4;

    /// A file whose disk fails on order.
    #[derive(Debug)]
    struct Faulty {
        file: FileBackend,
        fault: Arc<AtomicU8>,
    }

    impl Faulty {
        fn meets(&self, fault: u8, error: ErrorKind) -> io::Result<()> {
            if self.fault.load(Ordering::SeqCst) == fault {
                Err(error.into())
            } else {
                Ok(())
            }
        }
    }

    impl StorageBackend for Faulty {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.meets(READ_FAILS, ErrorKind::Other)?;
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.meets(NO_SPACE, ErrorKind::StorageFull)?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.meets(SYNC_FAILS, ErrorKind::Other)?;
            self.meets(SYNC_FINDS_NO_SPACE, ErrorKind::StorageFull)?;
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.meets(NO_SPACE, ErrorKind::StorageFull)?;
            self.file.write(offset, data)
        }

        fn close(&self) -> io::Result<()> {
            self.file.close()
        }

        fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
            self.file.try_lock_range(start, end)
        }

        fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
            self.file.unlock_range(start, end)
        }
    }

    struct OnDisk {
        folder: TempDir,
        fault: Arc<AtomicU8>,
        store: Option<Disk>,
    }

    impl OnDisk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut bench = Self {
                folder,
                fault: Arc::default(),
                store: None,
            };
            bench.open();
            bench
        }

        fn open(&mut self) {
            self.fault = Arc::new(AtomicU8::new(NO_FAULT));
            let fault = Arc::clone(&self.fault);
            let store = Disk::open_through(self.folder.path(), move |file| {
                let faulty = Faulty {
                    file: FileBackend::new(file).map_err(from_redb)?,
                    fault: Arc::clone(&fault),
                };
                Ok(Box::new(faulty))
            });
            self.store = Some(store.unwrap());
        }

        fn disk(&mut self) -> &mut Disk {
            self.store.as_mut().unwrap()
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join(STORE_FILE)
        }
    }

    impl Bench for OnDisk {
        fn store(&mut self) -> &mut dyn Store {
            self.disk()
        }

        fn crash(&mut self) {
            let image = tempfile::tempdir().unwrap();
            for name in [STORE_FILE, KEY_FILE] {
                std::fs::copy(self.folder.path().join(name), image.path().join(name)).unwrap();
            }
            self.store = None;
            self.folder = image;
            self.open();
        }

        fn flip_a_bit(&mut self, key: &Key) {
            let record = self.disk().sealed(key).unwrap().unwrap();
            self.store = None;
            let mut image = std::fs::read(self.path()).unwrap();
            let found: Vec<usize> = (0..image.len() - record.len())
                .filter(|start| image[*start..].starts_with(&record))
                .collect();
            assert!(!found.is_empty());
            found
                .iter()
                .for_each(|start| image[start + record.len() / 2] ^= 0x10);
            std::fs::write(self.path(), image).unwrap();
            self.open();
            assert_eq!(self.disk().health(), Health::Suspect);
        }

        fn misdirect(&mut self, from: &Key, to: &Key) {
            let disk = self.disk();
            let record = disk.sealed(from).unwrap().unwrap();
            let transaction = disk.database().unwrap().begin_write().unwrap();
            let mut table = transaction.open_table(definition(to.table)).unwrap();
            table.insert(to.key.as_slice(), record.as_slice()).unwrap();
            drop(table);
            transaction.commit().unwrap();
        }

        fn fail_next_commit(&mut self) {
            self.fault.store(SYNC_FAILS, Ordering::SeqCst);
        }

        fn fill_disk(&mut self) {
            self.fault.store(NO_SPACE, Ordering::SeqCst);
        }

        fn free_disk(&mut self) {
            self.fault.store(NO_FAULT, Ordering::SeqCst);
        }
    }

    fn batch_of(key: &[u8], value: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(Key::new(Table::Log, key), value.to_vec());
        batch
    }

    #[test]
    fn the_store_on_disk_keeps_the_promises_of_a_store() {
        keeps_its_promises(OnDisk::new);
    }

    #[test]
    fn an_fsync_that_found_no_room_poisons_the_store() {
        let mut bench = OnDisk::new();
        bench.fault.store(SYNC_FINDS_NO_SPACE, Ordering::SeqCst);

        let commit = |bench: &mut OnDisk| {
            bench
                .disk()
                .commit(batch_of(b"a", b"1"), Durability::Immediate)
        };
        assert_eq!(commit(&mut bench), Err(StoreError::DiskFull));
        bench.free_disk();

        assert_eq!(commit(&mut bench), Err(StoreError::Poisoned));
        bench.crash();
        assert_eq!(commit(&mut bench), Ok(()));
    }

    #[test]
    fn a_page_that_cannot_be_read_is_an_error_and_the_next_start_reads_it() {
        let mut bench = OnDisk::new();
        let place = Key::new(Table::Log, *b"a");
        let saved = bench
            .disk()
            .commit(batch_of(b"a", b"1"), Durability::Immediate);
        saved.unwrap();
        bench.crash();
        bench.fault.store(READ_FAILS, Ordering::SeqCst);

        let read = bench.disk().load(&place);
        let written = bench
            .disk()
            .commit(batch_of(b"b", b"2"), Durability::Immediate);

        assert!(matches!(read, Err(StoreError::Io(_))), "{read:?}");
        assert!(written.is_err());
        bench.crash();
        assert_eq!(bench.disk().load(&place), Ok(Some(b"1".to_vec())));
    }

    #[test]
    fn a_file_that_was_removed_or_replaced_takes_nothing_more() {
        for replace in [false, true] {
            let mut bench = OnDisk::new();
            let path = bench.path();
            let copy = path.with_extension("copy");
            std::fs::copy(&path, &copy).unwrap();
            std::fs::remove_file(&path).unwrap();
            if replace {
                std::fs::rename(&copy, &path).unwrap();
            }

            let refused = bench
                .disk()
                .commit(batch_of(b"a", b"1"), Durability::Immediate);

            assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_second_opening_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().unwrap();
        let first = Disk::open(folder.path()).unwrap();

        assert_eq!(Disk::open(folder.path()).unwrap_err(), StoreError::Locked);
        drop(first);
        assert_eq!(Disk::open(folder.path()).unwrap().health(), Health::Sound);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_unwritable() {
        // Not even root may make files here.
        let error = Disk::open(Path::new("/sys/kernel")).unwrap_err();

        assert!(matches!(error, StoreError::Unwritable(_)), "{error:?}");
        assert_eq!(error.code(), "state-unwritable");
        let read_only = io::Error::from(ErrorKind::ReadOnlyFilesystem);
        assert!(matches!(from_io(&read_only), StoreError::Unwritable(_)));
    }

    #[test]
    fn nothing_written_is_readable_in_the_files_and_both_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut store = Disk::open(folder.path()).unwrap();
        store
            .commit(batch_of(b"a", b"canary-canary"), Durability::Immediate)
            .unwrap();
        drop(store);

        for name in [STORE_FILE, KEY_FILE] {
            let path = folder.path().join(name);
            let content = std::fs::read(&path).unwrap();
            assert!(
                !content.windows(6).any(|window| window == b"canary"),
                "{name}"
            );
            assert_eq!(
                path.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{name}"
            );
        }
    }

    #[test]
    fn a_crash_while_creating_leaves_a_folder_that_opens() {
        let folder = tempfile::tempdir().unwrap();
        drop(load_or_create_key(folder.path()).unwrap());
        std::fs::write(folder.path().join("store.redb.tmp"), b"half a database").unwrap();

        let mut store = Disk::open(folder.path()).unwrap();

        store
            .commit(batch_of(b"a", b"1"), Durability::Immediate)
            .unwrap();
    }

    #[test]
    fn a_lost_or_foreign_key_is_damage_and_makes_no_new_store() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(Disk::open(ours.path()).unwrap());
        drop(Disk::open(theirs.path()).unwrap());
        let size = ours.path().join(STORE_FILE).metadata().unwrap().len();

        std::fs::copy(theirs.path().join(KEY_FILE), ours.path().join(KEY_FILE)).unwrap();
        assert!(matches!(
            Disk::open(ours.path()),
            Err(StoreError::Damaged(_))
        ));
        std::fs::remove_file(ours.path().join(KEY_FILE)).unwrap();
        assert!(matches!(
            Disk::open(ours.path()),
            Err(StoreError::Damaged(_))
        ));

        assert_eq!(ours.path().join(STORE_FILE).metadata().unwrap().len(), size);
        assert!(!ours.path().join(KEY_FILE).exists());
    }

    #[test]
    fn no_single_hurt_byte_of_the_file_gives_a_wrong_value_or_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Disk::open(folder.path()).unwrap();
        for n in 0_u8..40 {
            store
                .commit(batch_of(&[n], &[n; 100]), Durability::Immediate)
                .unwrap();
        }
        drop(store);
        let sound = std::fs::read(folder.path().join(STORE_FILE)).unwrap();
        let used: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
        let mut entropy = Entropy::new([1; 32]);

        for _ in 0..60 {
            let mut hurt = sound.clone();
            let spot = entropy.below(u32::try_from(used.len()).unwrap()) as usize;
            hurt[used[spot]] ^= 1 << entropy.below(8);
            std::fs::write(folder.path().join(STORE_FILE), hurt).unwrap();
            let Ok(store) = Disk::open(folder.path()) else {
                continue;
            };
            let Ok(scan) = store.scan(Table::Log) else {
                continue;
            };
            for (key, value) in &scan.records {
                assert_eq!(*value, vec![key.key[0]; 100]);
            }
            assert!(scan.records.len() == 40 || store.health() == Health::Suspect);
        }
    }
}
