//! Lists in what peers send: how many they may hold is checked while they are read. serde by itself prepares room for
//! as many elements as a list names, up to a mebibyte of them, however few bytes follow.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Reads a list of at most `MAX`; a longer one is refused by the number it names, before anything is kept. For
/// `#[serde(deserialize_with = "…")]`.
pub(in crate::engine) fn list<'de, D, T, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        if items.size_hint().is_some_and(|length| length > MAX) {
            return Err(A::Error::custom("a list is too long"));
        }
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() >= MAX {
                return Err(A::Error::custom("a list is too long"));
            }
            list.push(item);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::engine::bad_bytes::heap;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Hashes(#[serde(deserialize_with = "list::<_, _, 3>")] Vec<[u8; 32]>);

    #[test]
    fn a_list_of_as_many_as_allowed_is_read() {
        for length in 0..=3 {
            let hashes = Hashes(vec![[7; 32]; length]);
            let bytes = postcard::to_stdvec(&hashes).unwrap();

            assert_eq!(postcard::from_bytes::<Hashes>(&bytes), Ok(hashes));
        }
    }

    #[test]
    fn a_longer_one_is_refused_before_memory_is_taken_for_it() {
        let bytes = postcard::to_stdvec(&vec![[7_u8; 32]; 4]).unwrap();

        let (read, peak) = heap::peak(|| postcard::from_bytes::<Hashes>(&bytes));

        assert!(read.is_err());
        assert!(peak < 256, "no more than an error takes: {peak}");
    }
}
