//! The store is killed at every point at which it writes, and what is left is opened.
//!
//! A backend notes every write, change of length and fsync. A crash image is what a disk may hold at some point:
//! everything up to the last fsync, and of what came after it nothing, everything, or some sectors.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::*;

/// What a disk promises to write whole.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

/// A file that notes what is done to it.
#[derive(Debug)]
struct Recorder {
    file: InMemoryBackend,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl Recorder {
    fn note(&self, op: Op) {
        noted(&self.ops).push(op);
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(Op::Length(len));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Op::Write(offset, data.to_vec()));
        self.file.write(offset, data)
    }
}

fn noted(ops: &Mutex<Vec<Op>>) -> std::sync::MutexGuard<'_, Vec<Op>> {
    ops.lock().unwrap_or_else(PoisonError::into_inner)
}

type Records = BTreeMap<Key, Vec<u8>>;

/// What was done, and what there had to be to see after each commit.
struct History {
    folder: tempfile::TempDir,
    begun: Vec<u8>,
    ops: Vec<Op>,
    /// After each commit, the first being the empty store: number of operations when it began and when it had
    /// returned, the records, and whether it was immediate.
    commits: Vec<(usize, usize, Records, bool)>,
}

impl History {
    /// A store that is filled, changed and emptied again by batches of all kinds.
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        drop(Disk::open(folder.path()).unwrap());
        let begun = std::fs::read(folder.path().join(STORE_FILE)).unwrap();
        let (ops, image) = (Arc::default(), begun.clone());
        let theirs = Arc::clone(&ops);
        let open = Disk::open_through(folder.path(), move |_| {
            let file = in_memory(&image);
            let ops = Arc::clone(&theirs);
            Ok(Box::new(Recorder { file, ops }))
        });
        let mut store = open.unwrap();
        let mut records = Records::new();
        let opened = noted(&ops).len();
        let mut commits = vec![(0, opened, records.clone(), true)];
        for n in 0..16_u8 {
            let (batch, durability) = batch_of(n);
            for (key, value) in batch.clone().into_changes() {
                match value {
                    Some(value) => drop(records.insert(key, value)),
                    None => drop(records.remove(&key)),
                }
            }
            let before = noted(&ops).len();
            store.commit(batch, durability).unwrap();
            let immediate = durability == Durability::Immediate;
            let after = noted(&ops).len();
            commits.push((before, after, records.clone(), immediate));
        }
        store.compact().unwrap();
        let ops = noted(&ops).clone();
        Self {
            folder,
            begun,
            ops,
            commits,
        }
    }

    /// What the disk holds if the store dies after `point` operations and of those that no fsync has secured
    /// `kept` says which sectors were written.
    fn image(&self, point: usize, mut kept: impl FnMut() -> bool) -> Vec<u8> {
        let (done, _) = self.ops.split_at(point);
        let secured = done.iter().rposition(|op| matches!(op, Op::Sync));
        let mut image = self.begun.clone();
        for (at, op) in done.iter().enumerate() {
            let sure = secured.is_some_and(|sync| at < sync);
            match op {
                Op::Sync => {}
                Op::Length(length) => {
                    if sure || kept() {
                        image.resize(usize::try_from(*length).unwrap(), 0);
                    }
                }
                Op::Write(offset, data) => {
                    let mut offset = usize::try_from(*offset).unwrap();
                    for sector in data.chunks(SECTOR) {
                        let end = offset + sector.len();
                        if sure || kept() {
                            image.resize(image.len().max(end), 0);
                            image[offset..end].copy_from_slice(sector);
                        }
                        offset = end;
                    }
                }
            }
        }
        image
    }

    /// Opens an image; it must hold what one commit left, and none before the last that was acknowledged.
    fn check(&self, point: usize, image: &[u8], how: &str) {
        let secured =
            |(_, end, _, immediate): &(usize, usize, Records, bool)| *immediate && *end <= point;
        let first = self.commits.iter().rposition(secured).unwrap_or(0);
        let begun = |(start, ..): &(usize, usize, Records, bool)| *start < point;
        let last = self.commits.iter().rposition(begun).unwrap_or(0).max(first);
        let found = self.read(image).unwrap_or_else(|error| {
            panic!("killed after {point} operations, {how}: {error}");
        });
        let fits = self.commits[first..=last]
            .iter()
            .any(|(_, _, records, _)| *records == found);
        assert!(
            fits,
            "killed after {point} operations, {how}: {} records are none of commits {first} to {last}",
            found.len()
        );
    }

    fn read(&self, image: &[u8]) -> Result<Records, StoreError> {
        let image = image.to_vec();
        let key = read_key(self.folder.path())?;
        let source = Source {
            path: self.folder.path().join(STORE_FILE),
            backend: Box::new(move |_| Ok(Box::new(in_memory(&image)))),
            unsynced: Arc::default(),
        };
        let mut store = Disk {
            database: Some(source.open(&key)?),
            identity: identity(&source.path)?,
            source,
            key,
            health: Health::Unchecked,
            poisoned: false,
            unsecured: false,
        };
        let mut records = Records::new();
        for table in Table::ALL {
            let scan = store.scan(table)?;
            assert!(scan.damaged.is_empty(), "{:?}", scan.damaged);
            records.extend(scan.records);
        }
        records.retain(|key, _| *key != Key::new(Table::Meta, FORMAT_KEY));
        let (batch, _) = batch_of(0);
        store.commit(batch, Durability::Immediate)?;
        Ok(records)
    }
}

fn in_memory(image: &[u8]) -> InMemoryBackend {
    let file = InMemoryBackend::new();
    file.set_len(image.len() as u64).unwrap();
    file.write(0, image).unwrap();
    file
}

/// Batches of logs, and of what is worth a second fsync; small, large and deleting; some may be lost.
fn batch_of(n: u8) -> (Batch, Durability) {
    let mut batch = Batch::new();
    let table = if n.is_multiple_of(3) {
        Table::Membership
    } else {
        Table::Log
    };
    let size = if n % 7 == 5 { 150_000 } else { 300 };
    batch.put(Key::new(table, [n]), vec![n; size]);
    batch.put(Key::new(Table::Log, *b"again"), vec![n; 50]);
    if n % 5 == 4 {
        batch.delete(Key::new(Table::Log, [n - 2]));
        batch.delete(Key::new(Table::Membership, [n - 1]));
    }
    let durability = if n % 6 == 4 {
        Durability::Eventual
    } else {
        Durability::Immediate
    };
    (batch, durability)
}

#[test]
fn killed_at_any_write_the_store_opens_with_all_it_acknowledged_and_nothing_half() {
    let history = History::make();
    assert!(history.ops.len() > 100, "{}", history.ops.len());
    let mut dice = Entropy::new([7; 32]);

    for point in 0..=history.ops.len() {
        if point.is_multiple_of(2) {
            history.check(point, &history.image(point, || true), "all of it kept");
        }
        // What no fsync has secured is most just before the next one.
        if matches!(history.ops.get(point), None | Some(Op::Sync)) {
            history.check(point, &history.image(point, || false), "none of it kept");
            for _ in 0..2 {
                let image = history.image(point, || dice.below(2) == 0);
                history.check(point, &image, "some sectors kept");
            }
        }
    }
}

#[test]
fn killed_at_any_step_of_its_creation_a_folder_opens() {
    let whole = tempfile::tempdir().unwrap();
    drop(Disk::open(whole.path()).unwrap());
    let read = |name| std::fs::read(whole.path().join(name)).unwrap();
    let (key, store) = (read(KEY_FILE), read(STORE_FILE));
    let (key_tmp, store_tmp) = (format!("{KEY_FILE}.tmp"), format!("{STORE_FILE}.tmp"));
    let mut steps: Vec<Vec<(&str, &[u8])>> = vec![vec![]];
    for part in [0, 1, key.len() / 2, key.len()] {
        steps.push(vec![(&key_tmp, &key[..part])]);
    }
    for part in [0, 1, 4096, store.len() / 2, store.len()] {
        steps.push(vec![(KEY_FILE, &key), (&store_tmp, &store[..part])]);
    }
    steps.push(vec![(KEY_FILE, &key), (STORE_FILE, &store)]);

    for step in steps {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in &step {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let mut opened = Disk::open(folder.path()).unwrap();
        let (batch, _) = batch_of(0);
        opened.commit(batch, Durability::Immediate).unwrap();
        drop(opened);
        let names: Vec<&str> = step.iter().map(|(name, _)| *name).collect();
        let again = Disk::open(folder.path()).unwrap();
        assert_eq!(
            again.scan(Table::Membership).unwrap().records.len(),
            1,
            "{names:?}"
        );
    }
}
