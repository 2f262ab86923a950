//! What peers send compressed, made plain without taking more memory than it may need.
//!
//! zstd names the plain size in front of what it writes in one go, as [`packed`] does. [`unpacked`] believes that
//! number only as far as the limit and the length of the compressed bytes allow, before any memory is taken.

use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

/// Fast, and good enough for screens and entries.
const LEVEL: i32 = 1;
/// Plain bytes of one block of zstd, at most (RFC 8878, section 3.1.1.2.3).
const BLOCK_BYTES_MAX: usize = 128 * 1024;
/// Bytes of the shortest block that holds so many: three of header and the one that is repeated.
const BLOCK_BYTES_MIN: usize = 4;

/// Compresses in one frame that names its plain size. Nothing if zstd cannot.
pub(in crate::engine) fn packed(plain: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::compress(plain, LEVEL).ok()
}

/// The plain size that compressed bytes name, if they may hold so much and it is not over `most`.
pub(in crate::engine) fn plain_size(packed: &[u8], most: usize) -> Option<usize> {
    let named = get_frame_content_size(packed).ok().flatten()?;
    let named = usize::try_from(named).ok()?;
    let blocks = packed.len().div_euclid(BLOCK_BYTES_MIN).saturating_add(1);
    (named <= most && named <= blocks.saturating_mul(BLOCK_BYTES_MAX)).then_some(named)
}

/// Undoes [`packed`]. Nothing if the bytes do not hold exactly the size that they name, or that is over `most`.
pub(in crate::engine) fn unpacked(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let size = plain_size(packed, most)?;
    let mut plain = Vec::with_capacity(size);
    let mut zstd = Decompressor::new().ok()?;
    let length = zstd.decompress_to_buffer(packed, &mut plain).ok()?;
    (length == size).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bad_bytes::heap;

    const MOST: usize = 8 * 1024 * 1024;

    /// A frame's head that names a plain size in eight bytes, and `rest` after it.
    fn naming(size: u64, rest: &[u8]) -> Vec<u8> {
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
        [&head, size.to_le_bytes().as_slice(), rest].concat()
    }

    #[test]
    fn what_was_packed_comes_back() {
        for plain in [Vec::new(), vec![1], vec![7; 1_000], vec![0; MOST]] {
            assert_eq!(unpacked(&packed(&plain).unwrap(), MOST), Some(plain));
        }
    }

    #[test]
    fn a_size_that_so_few_bytes_cannot_hold_takes_no_memory() {
        for size in [MOST as u64, u64::from(u32::MAX), u64::MAX] {
            let bytes = naming(size, &[0; 16]);

            let (plain, peak) = heap::peak(|| unpacked(&bytes, MOST));

            assert_eq!(plain, None);
            assert_eq!(peak, 0, "{size}");
        }
    }

    #[test]
    fn a_size_over_the_limit_takes_no_memory_though_the_bytes_hold_it() {
        let bomb = packed(&vec![0; MOST + 1]).unwrap();

        let (plain, peak) = heap::peak(|| unpacked(&bomb, MOST));

        assert_eq!((plain, peak), (None, 0));
    }

    #[test]
    fn more_or_less_than_was_named_is_refused() {
        let twice = [packed(b"one").unwrap(), packed(b"two").unwrap()].concat();
        let mut less = packed(&[7; 1_000]).unwrap();
        // The size stands in two bytes behind the magic number and the descriptor, less 256.
        less[5..7].copy_from_slice(&(999_u16 - 256).to_le_bytes());

        assert_eq!(plain_size(&less, MOST), Some(999));
        assert_eq!(unpacked(&less, MOST), None);
        assert_eq!(unpacked(&twice, MOST), None);
    }
}
