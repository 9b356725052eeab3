//! The unambiguous encoding of a key: what is pseudonymised.

use zeroize::Zeroize;

use super::RECIPE_VERSION;
use crate::limits::MAXIMUM_ENCODED_KEY_BYTES;

/// The encoding of a key: the recipe's version, the number of parts, and for each part its length in
/// bytes and the bytes of its UTF-8 form; numbers are 32-bit big-endian. No encoded key is a prefix of
/// another, and two keys have the same encoding only if all their parts are equal.
///
/// There is no `Debug`: it is a record's key.
#[derive(Clone, Copy)]
pub struct EncodedKey<'k>(Form<'k>);

#[derive(Clone, Copy)]
pub(super) enum Form<'k> {
    Bytes(&'k [u8]),
    /// The only part of a key, at most [`LONGEST_ONLY_PART`] bytes. Its pseudonym is made without
    /// putting the encoding together first: a processor waits for what it has just written in pieces.
    OnlyPart(&'k str),
}

/// How long the only part of a key can be, in bytes.
const LONGEST_ONLY_PART: usize = MAXIMUM_ENCODED_KEY_BYTES - BEGINNING - 4;

impl<'k> EncodedKey<'k> {
    /// The encoding of a key that has this part alone; `None` if it is longer than
    /// [`MAXIMUM_ENCODED_KEY_BYTES`].
    #[inline]
    pub fn of_only_part(part: &'k str) -> Option<Self> {
        (part.len() <= LONGEST_ONLY_PART).then_some(Self(Form::OnlyPart(part)))
    }

    #[inline]
    pub(super) fn form(self) -> Form<'k> {
        self.0
    }

    /// Appends its bytes.
    #[inline]
    pub fn append_to(self, bytes: &mut Vec<u8>) {
        match self.0 {
            Form::Bytes(encoded) => bytes.extend_from_slice(encoded),
            Form::OnlyPart(part) => {
                bytes.extend_from_slice(&ONLY_PART.to_be_bytes());
                append(bytes, part);
            }
        }
    }

    /// Its bytes.
    pub fn to_vec(self) -> Vec<u8> {
        match self.0 {
            Form::Bytes(bytes) => bytes.to_vec(),
            Form::OnlyPart(part) => encode_parts(&[part]),
        }
    }
}

impl<'k> From<&'k [u8]> for EncodedKey<'k> {
    #[inline]
    fn from(bytes: &'k [u8]) -> Self {
        Self(Form::Bytes(bytes))
    }
}

impl PartialEq for EncodedKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl Eq for EncodedKey<'_> {}

/// What every encoding of one part begins with, before its length.
pub(super) const ONLY_PART: u64 = (RECIPE_VERSION as u64) << 32 | 1;

/// Encodes one key at a time, part by part, in memory that is used again and wiped in the end.
pub struct KeyEncoder {
    bytes: Vec<u8>,
}

/// Bytes before the first part.
const BEGINNING: usize = 8;

impl KeyEncoder {
    /// Keys of so many parts.
    pub fn new(parts: usize) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&RECIPE_VERSION.to_be_bytes());
        bytes.extend_from_slice(&length(parts));
        Self { bytes }
    }

    /// Begins the next key.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.truncate(BEGINNING);
    }

    /// Appends a part and returns its bytes, which may be changed in place; `None` if the key would
    /// then be longer than [`MAXIMUM_ENCODED_KEY_BYTES`].
    #[inline]
    pub fn push(&mut self, part: &str) -> Option<&mut [u8]> {
        if self.bytes.len() + 4 + part.len() > MAXIMUM_ENCODED_KEY_BYTES {
            return None;
        }
        append(&mut self.bytes, part);
        let begin = self.bytes.len() - part.len();
        Some(&mut self.bytes[begin..])
    }

    /// The key, once all parts are there.
    #[inline]
    pub fn key(&self) -> EncodedKey<'_> {
        (&*self.bytes).into()
    }
}

impl Drop for KeyEncoder {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// The encoding of parts that are already normalised, however long.
pub fn encode_parts(parts: &[&str]) -> Vec<u8> {
    let mut encoded = Vec::new();
    encoded.extend_from_slice(&RECIPE_VERSION.to_be_bytes());
    encoded.extend_from_slice(&length(parts.len()));
    for part in parts {
        append(&mut encoded, part);
    }
    encoded
}

fn append(encoded: &mut Vec<u8>, part: &str) {
    encoded.extend_from_slice(&length(part.len()));
    encoded.extend_from_slice(part.as_bytes());
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("parts and fields are below 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::Pseudonymiser;

    /// A promise to every other build and implementation.
    #[test]
    fn encoding_vector() {
        let key = encode_parts(&["ada@example.org", "+4930123456"]);
        assert_eq!(
            hex::encode(&key),
            "00000002000000020000000f616461406578616d706c652e6f72670000000b2b3439333031323334\
             3536"
        );
        let pseudonym = Pseudonymiser::new(b"convelo test key").pseudonym(&key);
        assert_eq!(hex::encode(pseudonym.to_be_bytes()), "a986cc87326c7bbf9b9d037d202f76ca");
    }

    #[test]
    fn a_key_of_the_longest_length_is_encoded_and_no_longer_one() {
        let mut encoder = KeyEncoder::new(1);
        let longest = "x".repeat(MAXIMUM_ENCODED_KEY_BYTES - 12);
        let too_long = format!("{longest}x");
        assert!(encoder.push(&longest).is_some());
        assert_eq!(encoder.key().to_vec().len(), MAXIMUM_ENCODED_KEY_BYTES);
        assert!(EncodedKey::of_only_part(&longest) == Some(encoder.key()));
        encoder.clear();
        assert!(encoder.push(&too_long).is_none());
        assert!(EncodedKey::of_only_part(&too_long).is_none());
    }

    proptest! {
        #[test]
        fn encoding_is_injective_and_prefix_free(
            a in proptest::collection::vec("[ab]{0,3}", 1..4),
            b in proptest::collection::vec("[ab]{0,3}", 1..4),
        ) {
            let texts = |parts: &[String]| {
                encode_parts(&parts.iter().map(String::as_str).collect::<Vec<_>>())
            };
            prop_assert_eq!(a == b, texts(&a) == texts(&b));
            prop_assert_eq!(a == b, texts(&a).starts_with(&texts(&b)));
        }

        #[test]
        fn part_by_part_or_at_once(parts in proptest::collection::vec(any::<String>(), 1..4)) {
            let mut encoder = KeyEncoder::new(parts.len());
            for round in 0..2 {
                encoder.clear();
                for part in &parts {
                    let pushed = encoder.push(part).expect("short");
                    prop_assert_eq!(&*pushed, part.as_bytes(), "{}", round);
                }
            }
            let parts: Vec<_> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(encoder.key().to_vec(), encode_parts(&parts));
        }
    }
}
