//! AES-128-CMAC of an encoded key, RFC 4493.

use std::fmt;

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit, consts::U16};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::encoding::{EncodedKey, Form, ONLY_PART};
use crate::limits::MAXIMUM_ENCODED_KEY_BYTES;

/// Length of a pseudonym on the wire, in bytes.
pub const PSEUDONYM_BYTES: usize = 16;

/// The keyed pseudonym of one record: the 16 bytes of its CMAC, read as a big-endian number, so
/// that numeric order is the order of the bytes on the wire.
///
/// Not shown by `Debug`: anyone who holds the job key can test guesses against it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pseudonym(u128);

impl Pseudonym {
    /// Reads the wire form.
    pub const fn from_be_bytes(bytes: [u8; PSEUDONYM_BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The wire form.
    pub const fn to_be_bytes(self) -> [u8; PSEUDONYM_BYTES] {
        self.0.to_be_bytes()
    }

    /// The number.
    pub const fn to_u128(self) -> u128 {
        self.0
    }

    /// Which of `services` services it goes to; their number must be a power of two.
    #[expect(clippy::missing_panics_doc, reason = "the shifted number is less than `services`")]
    pub fn shard(self, services: usize) -> usize {
        let bits = services.trailing_zeros();
        let number = self.0.checked_shr(128 - bits).unwrap_or(0);
        usize::try_from(number).expect("less than the number of services")
    }
}

impl From<u128> for Pseudonym {
    fn from(value: u128) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonym(..)")
    }
}

impl zeroize::DefaultIsZeroes for Pseudonym {}

/// How many keys go through the cipher together. A single encryption waits for its own results ten
/// times, and in the meantime a processor can work on about this many.
const LANES: usize = 8;

/// Computes pseudonyms under one key.
///
/// The CBC chaining of RFC 4493 section 2.4 is written out here, over the `aes` crate's block
/// function, because this runs once per row: the key schedule and both subkeys are computed once,
/// and [`PseudonymQueue`] passes several keys through the cipher side by side, for which the `cmac`
/// crate has no interface. Tests compare it with that crate and with the RFC's vectors. Wiped when
/// dropped.
pub struct Pseudonymiser {
    cipher: Aes128Enc,
    whole: [u8; 16],
    padded: [u8; 16],
}

impl Pseudonymiser {
    /// Prepares the key schedule and the subkeys K1, K2 of RFC 4493 section 2.3.
    pub fn new(key: &[u8; 16]) -> Self {
        let cipher = Aes128Enc::new(key.into());
        let mut zero = Block::default();
        cipher.encrypt_block(&mut zero);
        let mut subkey = double(u128::from_be_bytes(zero.into()));
        zero.zeroize();
        let whole = subkey.to_be_bytes();
        subkey = double(subkey);
        let padded = subkey.to_be_bytes();
        subkey.zeroize();
        Self { cipher, whole, padded }
    }

    /// The pseudonym of an encoded key.
    pub fn pseudonym(&self, encoded: &[u8]) -> Pseudonym {
        let (body, last) = self.blocks(encoded);
        let mut state = Block::default();
        for block in body.iter().chain([&last]) {
            xor(&mut state.0, block);
            self.cipher.encrypt_block(&mut state);
        }
        Pseudonym::from_be_bytes(state.into())
    }

    /// A queue that makes the pseudonyms of many keys.
    pub fn queue(&self) -> PseudonymQueue<'_> {
        let blocks = Vec::with_capacity(MAXIMUM_ENCODED_KEY_BYTES.div_ceil(16) * LANES);
        PseudonymQueue { pseudonymiser: self, blocks, ends: Vec::with_capacity(LANES) }
    }

    /// All blocks but the last, and the last as it enters the cipher.
    #[inline]
    fn blocks<'k>(&self, encoded: &'k [u8]) -> (&'k [[u8; 16]], [u8; 16]) {
        let (blocks, rest) = encoded.as_chunks::<16>();
        if let (true, Some((last, body))) = (rest.is_empty(), blocks.split_last()) {
            let mut last = *last;
            xor(&mut last, &self.whole);
            return (body, last);
        }
        let mut last = padded(rest);
        xor(&mut last, &self.padded);
        (blocks, last)
    }
}

impl Drop for Pseudonymiser {
    fn drop(&mut self) {
        self.whole.zeroize();
        self.padded.zeroize();
    }
}

impl fmt::Debug for Pseudonymiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonymiser(..)")
    }
}

/// Keys that wait until there are enough to go through the cipher side by side. Wiped when dropped.
pub struct PseudonymQueue<'f> {
    pseudonymiser: &'f Pseudonymiser,
    /// The blocks of all waiting keys, one key after the other, padded.
    blocks: Vec<[u8; 16]>,
    /// Where the blocks of each key end.
    ends: Vec<usize>,
}

impl PseudonymQueue<'_> {
    /// Takes an encoded key. Its pseudonym is appended now or later, in the order of the keys.
    #[inline]
    pub fn push(&mut self, key: EncodedKey<'_>, pseudonyms: &mut Vec<Pseudonym>) {
        let rest = match key.form() {
            Form::Bytes(bytes) => Some(bytes),
            Form::OnlyPart(part) => self.begin_only_part(part.as_bytes()),
        };
        if let Some(rest) = rest {
            let (body, last) = self.pseudonymiser.blocks(rest);
            self.blocks.extend_from_slice(body);
            self.blocks.push(last);
        }
        self.ends.push(self.blocks.len());
        if self.ends.len() == LANES {
            self.finish(pseudonyms);
        }
    }

    /// Appends the first block of the encoding of one part; returns what goes into the others, if
    /// there are any.
    #[inline]
    fn begin_only_part<'k>(&mut self, part: &'k [u8]) -> Option<&'k [u8]> {
        let begin = u128::from(ONLY_PART) << 64 | (part.len() as u128) << 32;
        let (mut block, rest) = match part.split_first_chunk() {
            Some((first, rest)) => {
                ((begin | u128::from(u32::from_be_bytes(*first))).to_be_bytes(), rest)
            }
            None => ((begin | u128::from_be_bytes(padded(part)) >> 96).to_be_bytes(), &[][..]),
        };
        if rest.is_empty() {
            let whole = part.len() == 4;
            xor(
                &mut block,
                if whole { &self.pseudonymiser.whole } else { &self.pseudonymiser.padded },
            );
        }
        self.blocks.push(block);
        (!rest.is_empty()).then_some(rest)
    }

    /// Appends the pseudonyms of all waiting keys.
    pub fn finish(&mut self, pseudonyms: &mut Vec<Pseudonym>) {
        let waiting = self.ends.len();
        let each = self.ends.first().copied().unwrap_or(0);
        if self.ends.iter().zip(1..).all(|(end, key)| *end == key * each) {
            self.finish_of_length(waiting, each, pseudonyms);
        } else {
            self.finish_of_any_length(waiting, pseudonyms);
        }
        self.blocks.clear();
        self.ends.clear();
    }

    /// All `waiting` keys have `each` blocks.
    fn finish_of_length(&self, waiting: usize, each: usize, pseudonyms: &mut Vec<Pseudonym>) {
        let mut states = [Block::default(); LANES];
        let states = &mut states[..waiting];
        for step in 0..each {
            for (state, blocks) in states.iter_mut().zip(self.blocks.chunks_exact(each)) {
                xor(&mut state.0, &blocks[step]);
            }
            self.pseudonymiser.cipher.encrypt_blocks(states);
        }
        pseudonyms.extend(states.iter().map(|state| Pseudonym::from_be_bytes((*state).into())));
    }

    fn finish_of_any_length(&self, waiting: usize, pseudonyms: &mut Vec<Pseudonym>) {
        let (mut states, mut done) = ([Block::default(); LANES], [Pseudonym::default(); LANES]);
        let states = &mut states[..waiting];
        let mut begin = 0;
        let keys: Keys<'_> = std::array::from_fn(|lane| {
            let end = self.ends.get(lane).copied().unwrap_or(begin);
            let blocks = &self.blocks[begin..end];
            begin = end;
            blocks
        });
        let most = keys.iter().map(|blocks| blocks.len()).max().unwrap_or(0);
        for step in 0..most {
            for (state, blocks) in states.iter_mut().zip(keys) {
                if let Some(block) = blocks.get(step) {
                    xor(&mut state.0, block);
                }
            }
            self.pseudonymiser.cipher.encrypt_blocks(states);
            for ((state, blocks), done) in states.iter().zip(keys).zip(&mut done) {
                if step + 1 == blocks.len() {
                    *done = Pseudonym::from_be_bytes((*state).into());
                }
            }
        }
        pseudonyms.extend_from_slice(&done[..waiting]);
    }
}

type Block = Array<u8, U16>;
type Keys<'b> = [&'b [[u8; 16]]; LANES];

impl Drop for PseudonymQueue<'_> {
    fn drop(&mut self) {
        self.blocks.zeroize();
    }
}

impl fmt::Debug for PseudonymQueue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymQueue(..)")
    }
}

/// Multiplication by x in GF(2^128) with the polynomial of RFC 4493 section 2.3, without a branch
/// on the key.
fn double(value: u128) -> u128 {
    (value << 1) ^ ((value >> 127) * 0x87)
}

/// Fewer than 16 bytes, a one bit, and zeros, as RFC 4493 section 2.4 pads the last block.
///
/// They are assembled from words: a processor that reads a block whose bytes it has just written
/// one by one waits until all of them are written, for as long as the rest of a row takes.
#[inline]
fn padded(rest: &[u8]) -> [u8; 16] {
    let word = |bytes: &[u8]| match (bytes.first_chunk(), bytes.first_chunk()) {
        (Some(bytes), _) => u128::from(u64::from_be_bytes(*bytes)) << 64,
        (_, Some(bytes)) => u128::from(u32::from_be_bytes(*bytes)) << 96,
        _ => 0,
    };
    let bits = 8 * rest.len();
    // Words from both ends overlap in equal bits.
    let text = match rest.len() {
        8.. => word(rest) | word(&rest[rest.len() - 8..]) >> (bits - 64),
        4.. => word(rest) | word(&rest[rest.len() - 4..]) >> (bits - 32),
        _ => rest.iter().rev().fold(0, |text, byte| text >> 8 | u128::from(*byte) << 120),
    };
    (text | (1 << 127) >> bits).to_be_bytes()
}

#[inline]
fn xor(into: &mut [u8; 16], block: &[u8; 16]) {
    *into = (u128::from_ne_bytes(*into) ^ u128::from_ne_bytes(*block)).to_ne_bytes();
}

/// The key schedule wipes itself only with the cipher's `zeroize` feature; this demands it.
const fn wipes_itself<T: ZeroizeOnDrop>() {}
const _: () = wipes_itself::<Aes128Enc>();

#[cfg(test)]
mod tests {
    use cmac::{Cmac, Mac};
    use proptest::prelude::*;

    use super::*;
    use crate::keys::encode_parts;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).expect("hex")
    }

    fn key(text: &str) -> [u8; 16] {
        bytes(text).try_into().expect("16 bytes")
    }

    /// RFC 4493 section 4, examples 1 to 4.
    #[test]
    fn rfc_4493_vectors() {
        let pseudonymiser = Pseudonymiser::new(&key("2b7e151628aed2a6abf7158809cf4f3c"));
        let message = bytes(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        );
        for (length, mac) in [
            (0, "bb1d6929e95937287fa37d129b756746"),
            (16, "070a16b46b4d4144f79bdd9dd04a287c"),
            (40, "dfa66747de9ae63030ca32611497c827"),
            (64, "51f0bebf7e3b9d92fc49741779363cfe"),
        ] {
            let pseudonym = pseudonymiser.pseudonym(&message[..length]);
            assert_eq!(hex::encode(pseudonym.to_be_bytes()), mac, "length {length}");
        }
    }

    /// RFC 4493 section 4, subkey generation.
    #[test]
    fn rfc_4493_subkeys() {
        let pseudonymiser = Pseudonymiser::new(&key("2b7e151628aed2a6abf7158809cf4f3c"));
        assert_eq!(hex::encode(pseudonymiser.whole), "fbeed618357133667c85e08f7236a8de");
        assert_eq!(hex::encode(pseudonymiser.padded), "f7ddac306ae266ccf90bc11ee46d513b");
    }

    #[test]
    fn every_length_is_padded() {
        let bytes: Vec<u8> = (0xf1..=0xff).collect();
        for length in 0..16 {
            let mut expected = [0; 16];
            expected[..length].copy_from_slice(&bytes[..length]);
            expected[length] = 0x80;
            assert_eq!(padded(&bytes[..length]), expected, "length {length}");
        }
    }

    #[test]
    fn numeric_order_is_byte_order() {
        let low = Pseudonym::from_be_bytes([0; 16]);
        let high = Pseudonym::from_be_bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let between = Pseudonym::from_be_bytes([0xff; 16]);
        assert!(low < high && high < between);
        assert_eq!(high.to_u128(), 1 << 120);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Pseudonym::from(7)), "Pseudonym(..)");
        let pseudonymiser = Pseudonymiser::new(&[7; 16]);
        assert_eq!(format!("{pseudonymiser:?}"), "Pseudonymiser(..)");
        assert_eq!(format!("{:?}", pseudonymiser.queue()), "PseudonymQueue(..)");
    }

    proptest! {
        #[test]
        fn equals_the_cmac_crate(
            key in any::<[u8; 16]>(),
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..100), 0..30),
        ) {
            let expected: Vec<[u8; 16]> = messages.iter().map(|message| {
                let mut reference = Cmac::<aes::Aes128>::new(&key.into());
                reference.update(message);
                reference.finalize().into_bytes().into()
            }).collect();
            let pseudonymiser = Pseudonymiser::new(&key);
            let alone = messages.iter().map(|message| pseudonymiser.pseudonym(message));
            prop_assert!(alone.map(Pseudonym::to_be_bytes).eq(expected.iter().copied()));

            let (mut queue, mut together) = (pseudonymiser.queue(), Vec::new());
            for message in &messages {
                queue.push((&**message).into(), &mut together);
            }
            queue.finish(&mut together);
            prop_assert!(together.into_iter().map(Pseudonym::to_be_bytes).eq(expected));
        }

        #[test]
        fn only_parts_have_the_pseudonyms_of_their_encodings(
            key in any::<[u8; 16]>(),
            parts in proptest::collection::vec("[a-zé]{0,40}", 0..30),
        ) {
            let pseudonymiser = Pseudonymiser::new(&key);
            let (mut queue, mut made) = (pseudonymiser.queue(), Vec::new());
            for part in &parts {
                queue.push(EncodedKey::of_only_part(part).expect("short"), &mut made);
            }
            queue.finish(&mut made);
            let encoded = parts.iter().map(|part| encode_parts(&[part]));
            prop_assert!(made.into_iter().eq(encoded.map(|key| pseudonymiser.pseudonym(&key))));
        }
    }
}
