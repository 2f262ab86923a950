//! The first look at a change's bytes, before Automerge sees them. It walks the chunk's frame and the headers
//! of the run-length encoded columns, adds up what they would expand to, and expands nothing: its work and
//! memory are bounded by the length of the input. What passes cannot cost Automerge's decoder more than the
//! stated limits, nor make it panic on an index or a number.
//!
//! The format is Automerge's change chunk (<https://automerge.org/automerge-binary-format-spec/>): magic,
//! checksum, type, length; then dependencies, actor, seq, start operation, time, message, other actors,
//! column headers, columns.

use crate::engine::documents::gate::Refusal;
use crate::engine::limits::{
    CHANGE_ACTORS_MAX, CHANGE_BYTES_MAX, CHANGE_COUNTER_END, CHANGE_DEPENDENCIES_MAX,
    CHANGE_KEY_BYTES_MAX, CHANGE_OPERATIONS_MAX, CHANGE_PREDECESSORS_MAX,
};

/// The first four bytes of every chunk.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// The only chunk type taken: an uncompressed change.
const CHUNK_CHANGE: u8 = 1;
/// Bytes of an actor: ours are cut hashes, see [`super::schema::actor_of`].
pub(crate) const ACTOR_BYTES: usize = 16;
/// The highest number of an action that Automerge knows.
const ACTION_MAX: u64 = 7;

/// Column numbers: id · 16 + type, as the format has them.
mod column {
    pub(super) const OBJECT_ACTOR: u32 = 1;
    pub(super) const OBJECT_COUNTER: u32 = 2;
    pub(super) const KEY_ACTOR: u32 = 17;
    pub(super) const KEY_COUNTER: u32 = 19;
    pub(super) const KEY_STRING: u32 = 21;
    pub(super) const INSERT: u32 = 52;
    pub(super) const ACTION: u32 = 66;
    pub(super) const VALUE_META: u32 = 86;
    pub(super) const VALUE: u32 = 87;
    pub(super) const PRED_COUNT: u32 = 112;
    pub(super) const PRED_ACTOR: u32 = 113;
    pub(super) const PRED_COUNTER: u32 = 115;
}

/// What the first look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Operations that the change expands to.
    pub(crate) operations: u64,
    /// Numbers and strings that were read to know it.
    pub(crate) reads: usize,
}

/// Looks through a change without expanding it.
///
/// # Errors
/// The first bound or rule of the format that it breaks.
pub(crate) fn scan(bytes: &[u8]) -> Result<Scan, Refusal> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(Refusal::TooLong { bytes: bytes.len() });
    }
    let mut reader = Reader {
        rest: bytes,
        reads: 0,
    };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Refusal::NotAChange);
    }
    reader.take(4)?; // checksum: compared when the decoded change is encoded again
    let chunk = reader.byte()?;
    if chunk != CHUNK_CHANGE {
        return Err(Refusal::ChunkType(chunk));
    }
    let length = reader.unsigned()?;
    if length != reader.rest.len() as u64 {
        return Err(Refusal::Truncated);
    }
    let actors = frame(&mut reader)?;
    let columns = Columns::split(&mut reader)?;
    let operations = columns.check(actors, &mut reader.reads)?;
    Ok(Scan {
        operations,
        reads: reader.reads,
    })
}

/// Everything before the columns; yields the number of actors.
fn frame(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    let dependencies = reader.unsigned()?;
    if dependencies > CHANGE_DEPENDENCIES_MAX as u64 {
        return Err(Refusal::TooManyDependencies);
    }
    for _ in 0..dependencies {
        reader.take(32)?;
    }
    reader.actor()?;
    reader.unsigned()?; // seq
    let start = reader.unsigned()?;
    if start == 0 || start >= CHANGE_COUNTER_END {
        return Err(Refusal::Counter);
    }
    reader.signed()?; // time
    if reader.unsigned()? != 0 {
        return Err(Refusal::Message);
    }
    let others = reader.unsigned()?;
    if others >= CHANGE_ACTORS_MAX as u64 {
        return Err(Refusal::TooManyActors);
    }
    for _ in 0..others {
        reader.actor()?;
    }
    Ok(others + 1)
}

/// The columns of a change, still encoded.
#[derive(Default)]
struct Columns<'a> {
    object_actor: Option<&'a [u8]>,
    object_counter: Option<&'a [u8]>,
    key_actor: Option<&'a [u8]>,
    key_counter: Option<&'a [u8]>,
    key_string: Option<&'a [u8]>,
    insert: Option<&'a [u8]>,
    action: Option<&'a [u8]>,
    value_meta: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    pred_count: Option<&'a [u8]>,
    pred_actor: Option<&'a [u8]>,
    pred_counter: Option<&'a [u8]>,
}

impl<'a> Columns<'a> {
    /// Reads the column headers and cuts the rest accordingly; nothing may be left over.
    fn split(reader: &mut Reader<'a>) -> Result<Self, Refusal> {
        let count = reader.unsigned()?;
        let mut headers = Vec::new();
        let mut last = None;
        for _ in 0..count {
            let id = u32::try_from(reader.unsigned()?).map_err(|_| Refusal::Columns)?;
            let length = usize::try_from(reader.unsigned()?).map_err(|_| Refusal::Columns)?;
            // Strictly rising numbers of twelve known columns: at most twelve headers are ever read.
            if last.is_some_and(|last| id <= last) {
                return Err(Refusal::Columns);
            }
            if Self::default().place(id).is_none() {
                return Err(Refusal::UnknownColumn(id));
            }
            last = Some(id);
            headers.push((id, length));
        }
        let mut columns = Self::default();
        for (id, length) in headers {
            let data = reader.take(length)?;
            if let Some(place) = columns.place(id) {
                *place = Some(data);
            }
        }
        if reader.rest.is_empty() {
            Ok(columns)
        } else {
            Err(Refusal::Trailing)
        }
    }

    /// Where the column of this number goes; `None` for marks, compressed and unknown columns.
    fn place(&mut self, id: u32) -> Option<&mut Option<&'a [u8]>> {
        Some(match id {
            column::OBJECT_ACTOR => &mut self.object_actor,
            column::OBJECT_COUNTER => &mut self.object_counter,
            column::KEY_ACTOR => &mut self.key_actor,
            column::KEY_COUNTER => &mut self.key_counter,
            column::KEY_STRING => &mut self.key_string,
            column::INSERT => &mut self.insert,
            column::ACTION => &mut self.action,
            column::VALUE_META => &mut self.value_meta,
            column::VALUE => &mut self.value,
            column::PRED_COUNT => &mut self.pred_count,
            column::PRED_ACTOR => &mut self.pred_actor,
            column::PRED_COUNTER => &mut self.pred_counter,
            _ => return None,
        })
    }

    /// Adds up the runs of every column; all must stand for the same number of operations.
    fn check(&self, actors: u64, reads: &mut usize) -> Result<u64, Refusal> {
        let action = self.action.ok_or(Refusal::NoOperations)?;
        let operations = plain(
            action,
            CHANGE_OPERATIONS_MAX,
            reads,
            Nulls::No,
            |action, _| {
                if action > ACTION_MAX {
                    Err(Refusal::Vocabulary)
                } else {
                    Ok(())
                }
            },
        )?;
        if operations == 0 {
            return Err(Refusal::NoOperations);
        }
        let agreed = |found: Option<u64>| match found {
            Some(found) if found != operations => Err(Refusal::Columns),
            Some(_) | None => Ok(()),
        };
        let below_actors = |actor: u64, _: u64| {
            if actor < actors {
                Ok(())
            } else {
                Err(Refusal::ForeignActor)
            }
        };
        let is_counter = |counter: u64, _: u64| {
            if counter < CHANGE_COUNTER_END {
                Ok(())
            } else {
                Err(Refusal::Counter)
            }
        };
        let limit = operations;
        agreed(optional(self.object_actor, |c| {
            plain(c, limit, reads, Nulls::Yes, below_actors)
        })?)?;
        agreed(optional(self.object_counter, |c| {
            plain(c, limit, reads, Nulls::Yes, is_counter)
        })?)?;
        agreed(optional(self.key_actor, |c| {
            plain(c, limit, reads, Nulls::Yes, below_actors)
        })?)?;
        agreed(optional(self.key_counter, |c| {
            deltas(c, limit, reads, Nulls::Yes)
        })?)?;
        agreed(optional(self.key_string, |c| strings(c, limit, reads))?)?;
        agreed(optional(self.insert, |c| booleans(c, limit, reads))?)?;
        self.check_values(operations, reads)?;
        self.check_predecessors(operations, actors, reads)?;
        Ok(operations)
    }

    /// Lengths in the value headers add up to the bytes that are there.
    fn check_values(&self, operations: u64, reads: &mut usize) -> Result<(), Refusal> {
        let meta = self.value_meta.ok_or(Refusal::Columns)?;
        let mut bytes = 0_u64;
        let count = plain(meta, operations, reads, Nulls::No, |meta, run| {
            let added = (meta >> 4).checked_mul(run).ok_or(Refusal::Columns)?;
            bytes = bytes.checked_add(added).ok_or(Refusal::Columns)?;
            Ok(())
        })?;
        let present = self.value.map_or(0, <[u8]>::len) as u64;
        if count == operations && bytes == present {
            Ok(())
        } else {
            Err(Refusal::Columns)
        }
    }

    /// Group sizes add up to the predecessors that are there.
    fn check_predecessors(
        &self,
        operations: u64,
        actors: u64,
        reads: &mut usize,
    ) -> Result<(), Refusal> {
        let sizes = self.pred_count.ok_or(Refusal::Columns)?;
        let mut sum = 0_u64;
        let count = plain(sizes, operations, reads, Nulls::No, |size, run| {
            if size > CHANGE_PREDECESSORS_MAX {
                return Err(Refusal::TooManyOperations);
            }
            sum += size * run; // at most 64 · 10,000
            Ok(())
        })?;
        if sum > CHANGE_OPERATIONS_MAX {
            return Err(Refusal::TooManyOperations);
        }
        let below_actors = |actor: u64, _: u64| {
            if actor < actors {
                Ok(())
            } else {
                Err(Refusal::ForeignActor)
            }
        };
        let named = optional(self.pred_actor, |c| {
            plain(c, sum, reads, Nulls::No, below_actors)
        })?;
        let counted = optional(self.pred_counter, |c| deltas(c, sum, reads, Nulls::No))?;
        let agree = count == operations && named.unwrap_or(0) == sum && counted.unwrap_or(0) == sum;
        if agree { Ok(()) } else { Err(Refusal::Columns) }
    }
}

/// Whether a column may leave values out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    Yes,
    No,
}

fn optional(
    column: Option<&[u8]>,
    count: impl FnOnce(&[u8]) -> Result<u64, Refusal>,
) -> Result<Option<u64>, Refusal> {
    column.map(count).transpose()
}

/// A run-length encoded column of unsigned numbers; `visit` sees each distinct run once.
fn plain(
    column: &[u8],
    limit: u64,
    reads: &mut usize,
    nulls: Nulls,
    visit: impl FnMut(u64, u64) -> Result<(), Refusal>,
) -> Result<u64, Refusal> {
    runs(column, limit, reads, nulls, Reader::unsigned, visit)
}

/// A column of differences; the running sum must stay a valid operation number.
fn deltas(column: &[u8], limit: u64, reads: &mut usize, nulls: Nulls) -> Result<u64, Refusal> {
    let mut sum = 0_i128;
    runs(column, limit, reads, nulls, Reader::signed, |delta, run| {
        // Within a run the sum moves one way, so its ends bound it.
        let first = sum + i128::from(delta);
        sum += i128::from(delta) * i128::from(run);
        let valid = 0..i128::from(CHANGE_COUNTER_END);
        if valid.contains(&first) && valid.contains(&sum) {
            Ok(())
        } else {
            Err(Refusal::Counter)
        }
    })
}

/// A column of strings.
fn strings(column: &[u8], limit: u64, reads: &mut usize) -> Result<u64, Refusal> {
    let read = |reader: &mut Reader<'_>| {
        let length = reader.unsigned()?;
        if length > CHANGE_KEY_BYTES_MAX as u64 {
            return Err(Refusal::LongKey);
        }
        reader
            .take(usize::try_from(length).map_err(|_| Refusal::LongKey)?)
            .map(|_| ())
    };
    runs(column, limit, reads, Nulls::Yes, read, |(), _| Ok(()))
}

/// A column of alternating counts, false first; only the first count may be zero.
fn booleans(column: &[u8], limit: u64, reads: &mut usize) -> Result<u64, Refusal> {
    let mut reader = Reader {
        rest: column,
        reads: 0,
    };
    let mut total = 0_u64;
    while !reader.rest.is_empty() {
        let first = reader.reads == 0;
        let run = reader.unsigned()?;
        if run == 0 && !first {
            return Err(Refusal::Columns);
        }
        total = within(total, run, limit)?;
    }
    *reads += reader.reads;
    Ok(total)
}

/// Walks a run-length encoded column: a positive count repeats the one value that follows, a negative count
/// announces that many values, a zero announces that many missing ones. Yields how many values it stands for.
fn runs<'a, T>(
    column: &'a [u8],
    limit: u64,
    reads: &mut usize,
    nulls: Nulls,
    read: impl Fn(&mut Reader<'a>) -> Result<T, Refusal>,
    mut visit: impl FnMut(T, u64) -> Result<(), Refusal>,
) -> Result<u64, Refusal> {
    let mut reader = Reader {
        rest: column,
        reads: 0,
    };
    let mut total = 0_u64;
    while !reader.rest.is_empty() {
        let count = reader.signed()?;
        match count {
            1.. => {
                total = within(total, count.unsigned_abs(), limit)?;
                visit(read(&mut reader)?, count.unsigned_abs())?;
            }
            0 => {
                let missing = reader.unsigned()?;
                total = within(total, missing, limit)?;
                if nulls == Nulls::No || missing == 0 {
                    return Err(Refusal::Columns);
                }
            }
            ..0 => {
                total = within(total, count.unsigned_abs(), limit)?;
                for _ in 0..count.unsigned_abs() {
                    visit(read(&mut reader)?, 1)?;
                }
            }
        }
    }
    *reads += reader.reads;
    Ok(total)
}

fn within(total: u64, run: u64, limit: u64) -> Result<u64, Refusal> {
    total
        .checked_add(run)
        .filter(|total| *total <= limit)
        .ok_or(Refusal::TooManyOperations)
}

/// Takes values off the front of a slice.
struct Reader<'a> {
    rest: &'a [u8],
    reads: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Refusal::Truncated)?;
        self.rest = rest;
        self.reads += 1;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        let (byte, rest) = self.rest.split_first().ok_or(Refusal::Truncated)?;
        self.rest = rest;
        self.reads += 1;
        Ok(*byte)
    }

    fn actor(&mut self) -> Result<(), Refusal> {
        if self.unsigned()? != ACTOR_BYTES as u64 {
            return Err(Refusal::ForeignActor);
        }
        self.take(ACTOR_BYTES).map(|_| ())
    }

    /// An unsigned LEB128 number in its shortest form, at most 64 bits.
    fn unsigned(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Refusal::Number);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(Refusal::Number)
                } else {
                    Ok(value)
                };
            }
        }
        Err(Refusal::Number)
    }

    /// A signed LEB128 number in its shortest form, at most 64 bits.
    fn signed(&mut self) -> Result<i64, Refusal> {
        let mut value = 0_i64;
        let mut before = 0_u8;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(Refusal::Number);
            }
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let repeats_sign =
                    (byte == 0 && before & 0x40 == 0) || (byte == 0x7f && before & 0x40 != 0);
                if shift > 0 && repeats_sign {
                    return Err(Refusal::Number);
                }
                let negative = byte & 0x40 != 0;
                return Ok(if negative && shift < 57 {
                    value | (-1 << (shift + 7))
                } else {
                    value
                });
            }
            before = byte;
        }
        Err(Refusal::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(bytes: &[u8]) -> Result<i64, Refusal> {
        Reader {
            rest: bytes,
            reads: 0,
        }
        .signed()
    }

    fn unsigned(bytes: &[u8]) -> Result<u64, Refusal> {
        Reader {
            rest: bytes,
            reads: 0,
        }
        .unsigned()
    }

    #[test]
    fn numbers_are_read_only_in_their_shortest_form() {
        assert_eq!(unsigned(&[0]), Ok(0));
        assert_eq!(unsigned(&[0xe5, 0x8e, 0x26]), Ok(624_485));
        assert_eq!(
            unsigned(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Ok(u64::MAX)
        );
        assert_eq!(unsigned(&[0x80, 0]), Err(Refusal::Number));
        assert_eq!(unsigned(&[0xff; 11]), Err(Refusal::Number));
        assert_eq!(unsigned(&[0xff]), Err(Refusal::Truncated));
        assert_eq!(signed(&[0x7f]), Ok(-1));
        assert_eq!(signed(&[0x40]), Ok(-64));
        assert_eq!(signed(&[0xc0, 0xbb, 0x78]), Ok(-123_456));
        assert_eq!(
            signed(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]),
            Ok(i64::MIN)
        );
        assert_eq!(signed(&[0xff, 0x7f]), Err(Refusal::Number));
        assert_eq!(signed(&[0x80, 0]), Err(Refusal::Number));
    }

    #[test]
    fn a_long_run_is_counted_without_being_walked() {
        let mut reads = 0;
        let run = [0x80, 0xc2, 0xd7, 0x2f, 5]; // 10⁸ times 5

        let total = plain(&run, u64::MAX, &mut reads, Nulls::No, |_, _| Ok(()));

        assert_eq!((total, reads), (Ok(100_000_000), 5));
        let over = plain(&run, 10_000, &mut reads, Nulls::No, |_, _| Ok(()));
        assert_eq!(over, Err(Refusal::TooManyOperations));
    }

    #[test]
    fn a_literal_run_longer_than_the_limit_is_refused_before_it_is_read() {
        let mut column = vec![0x80, 0x80, 0x7c]; // −65,536 values follow
        column.extend([0; 65_536]);
        let mut reads = 0;

        let refused = plain(&column, 10_000, &mut reads, Nulls::No, |_, _| {
            Err(Refusal::Trailing)
        });

        assert_eq!(refused, Err(Refusal::TooManyOperations));
    }

    #[test]
    fn a_sum_of_differences_may_not_leave_the_range_of_operation_numbers() {
        let mut reads = 0;

        assert_eq!(deltas(&[2, 3], 10, &mut reads, Nulls::No), Ok(2));
        assert_eq!(
            deltas(&[2, 0x7f], 10, &mut reads, Nulls::No),
            Err(Refusal::Counter)
        );
        let huge = [2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(
            deltas(&huge, 10, &mut reads, Nulls::No),
            Err(Refusal::Counter)
        );
    }
}
