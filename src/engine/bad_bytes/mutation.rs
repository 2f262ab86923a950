//! What may become of bytes on their way: the changes that break decoders, drawn from a seed.

/// Numbers from a seed (xorshift64*), the same in every run.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x3fff,
    0x4000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Bytes that a mutation adds at most.
const ADDED_MAX: usize = 4 * 1024;

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() >> 16).unwrap() % bound.max(1)
    }

    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.draw() >> 56).unwrap()
    }

    /// Where a piece of a text of this length begins and ends.
    fn piece(&mut self, length: usize) -> (usize, usize) {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        (one.min(other), one.max(other))
    }
}

/// The bytes after one to three changes; `other` is what pieces are borrowed from.
pub(super) fn mutated(chance: &mut Chance, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(3) {
        change(chance, &mut bytes, other);
    }
    bytes
}

fn change(chance: &mut Chance, bytes: &mut Vec<u8>, other: &[u8]) {
    let length = bytes.len();
    let at = chance.below(length);
    let (from, to) = chance.piece(length);
    match chance.below(14) {
        0 => set(bytes, at, |byte| byte ^ (1 << chance.below(8))),
        1 => {
            let value = *chance.pick(&[0, 1, 0x7f, 0x80, 0xff]);
            set(bytes, at, |_| value);
        }
        2 => {
            let value = chance.byte();
            set(bytes, at, |_| value);
        }
        3 => {
            let number = varint(*chance.pick(&EDGES));
            bytes.splice(at..(at + 1).min(length), number);
        }
        4 => {
            let long = overlong(chance);
            bytes.splice(at..(at + 1).min(length), long);
        }
        5 => edge(chance, bytes, at),
        6 => bytes.truncate(at),
        7 => {
            let count = chance.below(64);
            bytes.extend((0..count).map(|_| chance.byte()));
        }
        8 => {
            let piece = bytes[from..to].to_vec();
            let room = ADDED_MAX / piece.len().max(1);
            let times = 1 + chance.below(room.min(200));
            bytes.splice(to..to, piece.repeat(times));
        }
        9 => drop(bytes.drain(from..to)),
        10 => {
            let middle = from + chance.below(to - from + 1);
            bytes[from..to].rotate_left(middle - from);
        }
        11 => {
            let (begin, end) = chance.piece(other.len());
            bytes.splice(from..to, other[begin..end].iter().copied());
        }
        12 => {
            // Tags of enums stand in front, and in front of what follows fixed fields.
            let tag = u8::try_from(chance.below(40)).unwrap();
            let place = *chance.pick(&[0, 0, 16, 32, at]);
            set(bytes, place, |_| tag);
        }
        _ => bytes[from..to].fill(*chance.pick(&[0, 1, 0x80, 0xff])),
    }
}

fn set(bytes: &mut [u8], at: usize, to: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte);
    }
}

/// A number at an edge over two, four or eight bytes, in either order.
fn edge(chance: &mut Chance, bytes: &mut [u8], at: usize) {
    let number = *chance.pick(&EDGES);
    let width = *chance.pick(&[2, 4, 8]);
    let mut number = number.to_le_bytes()[..width].to_vec();
    if chance.below(2) == 0 {
        number.reverse();
    }
    if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(&number);
    }
}

/// A number in seven bits for each byte, as postcard writes lengths.
pub(super) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A small number in more bytes than it needs, or one of more bits than there are.
fn overlong(chance: &mut Chance) -> Vec<u8> {
    let length = 1 + chance.below(11);
    let mut bytes = vec![*chance.pick(&[0x80, 0xff]); length];
    bytes.push(*chance.pick(&[0, 1, 0x7f]));
    bytes
}

/// Every beginning of the bytes; of long ones so many that are spread over them.
pub(super) fn cuts(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    places(bytes).map(|end| bytes[..end].to_vec())
}

/// Each byte replaced by numbers that are huge as a length; of long ones so many that are spread over them.
pub(super) fn lengths(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    const HUGE: [u64; 3] = [0xf_ffff, 0xffff_ffff, u64::MAX];
    places(bytes).flat_map(move |at| {
        HUGE.map(|huge| [&bytes[..at], &varint(huge), &bytes[at + 1..]].concat())
    })
}

fn places(bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (0..bytes.len()).step_by(bytes.len() / 300 + 1)
}
