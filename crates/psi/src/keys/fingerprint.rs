//! AES-128-CMAC of an encoded key, RFC 4493.

use std::fmt;

use aes::Aes128Enc;
use aes::cipher::{
    Array, Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
    KeyInit, consts::U16,
};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a fingerprint on the wire, in bytes.
pub const FINGERPRINT_BYTES: usize = 16;

/// The keyed pseudonym of one record: the 16 bytes of its CMAC, read as a big-endian number, so
/// that numeric order is the order of the bytes on the wire.
///
/// Not shown by `Debug`: whoever holds the job key can test guesses against it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Reads the form on the wire.
    pub const fn from_be_bytes(bytes: [u8; FINGERPRINT_BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The form on the wire.
    pub const fn to_be_bytes(self) -> [u8; FINGERPRINT_BYTES] {
        self.0.to_be_bytes()
    }

    /// The number.
    pub const fn to_u128(self) -> u128 {
        self.0
    }
}

impl From<u128> for Fingerprint {
    fn from(value: u128) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

impl zeroize::DefaultIsZeroes for Fingerprint {}

/// Computes fingerprints under one key.
///
/// The CBC chaining of RFC 4493 section 2.4 stands here, over the `aes` crate's block function,
/// because this runs once per row: the key schedule and both subkeys are computed once and a row
/// needs neither `&mut self`, a buffer, nor the extra block that the `cmac` crate spends on its
/// subkeys in every finalisation. Tests compare it with that crate and with the RFC's vectors.
/// Wiped when dropped.
pub struct Fingerprinter {
    cipher: Aes128Enc,
    whole: [u8; 16],
    padded: [u8; 16],
}

impl Fingerprinter {
    /// Prepares the key schedule and the subkeys K1, K2 of RFC 4493 section 2.3.
    pub fn new(key: &[u8; 16]) -> Self {
        let cipher = Aes128Enc::new(key.into());
        let mut zero = Array::default();
        cipher.encrypt_block(&mut zero);
        let mut subkey = double(u128::from_be_bytes(zero.into()));
        zero.zeroize();
        let whole = subkey.to_be_bytes();
        subkey = double(subkey);
        let padded = subkey.to_be_bytes();
        subkey.zeroize();
        Self { cipher, whole, padded }
    }

    /// The fingerprint of an encoded key.
    #[inline]
    pub fn fingerprint(&self, encoded: &[u8]) -> Fingerprint {
        let (blocks, rest) = encoded.as_chunks::<16>();
        let (body, last) =
            if let (true, Some((last, body))) = (rest.is_empty(), blocks.split_last()) {
                (body, xor(*last, &self.whole))
            } else {
                let mut last = [0; 16];
                last[..rest.len()].copy_from_slice(rest);
                last[rest.len()] = 0x80;
                (blocks, xor(last, &self.padded))
            };
        let mut state = [0; 16];
        self.cipher.encrypt_with_backend(Chain { body, last, state: &mut state });
        Fingerprint::from_be_bytes(state)
    }
}

impl Drop for Fingerprinter {
    fn drop(&mut self) {
        self.whole.zeroize();
        self.padded.zeroize();
    }
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter(..)")
    }
}

/// CBC over `body` and `last` from a zero state, in one entry into the cipher's backend.
struct Chain<'a> {
    body: &'a [[u8; 16]],
    last: [u8; 16],
    state: &'a mut [u8; 16],
}

impl BlockSizeUser for Chain<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Chain<'_> {
    #[expect(clippy::inline_always, reason = "has to be compiled with the backend's instructions")]
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut state: Block<Self> = Array([0; 16]);
        for block in self.body.iter().chain(std::iter::once(&self.last)) {
            state = Array(xor(state.0, block));
            backend.encrypt_block((&mut state).into());
        }
        *self.state = state.0;
    }
}

/// Multiplication by x in GF(2^128) with the polynomial of RFC 4493 section 2.3, without a branch
/// on the key.
fn double(value: u128) -> u128 {
    (value << 1) ^ ((value >> 127) * 0x87)
}

#[inline]
fn xor(a: [u8; 16], b: &[u8; 16]) -> [u8; 16] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(*b)).to_ne_bytes()
}

/// The key schedule wipes itself only with the cipher's `zeroize` feature, which this demands.
const fn wipes_itself<T: ZeroizeOnDrop>() {}
const _: () = wipes_itself::<Aes128Enc>();

#[cfg(test)]
mod tests {
    use cmac::{Cmac, Mac};
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).expect("hex")
    }

    fn key(text: &str) -> [u8; 16] {
        bytes(text).try_into().expect("16 bytes")
    }

    /// RFC 4493 section 4, examples 1 to 4.
    #[test]
    fn rfc_4493_vectors() {
        let fingerprinter = Fingerprinter::new(&key("2b7e151628aed2a6abf7158809cf4f3c"));
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
            let fingerprint = fingerprinter.fingerprint(&message[..length]);
            assert_eq!(hex::encode(fingerprint.to_be_bytes()), mac, "length {length}");
        }
    }

    /// RFC 4493 section 4, subkey generation.
    #[test]
    fn rfc_4493_subkeys() {
        let fingerprinter = Fingerprinter::new(&key("2b7e151628aed2a6abf7158809cf4f3c"));
        assert_eq!(hex::encode(fingerprinter.whole), "fbeed618357133667c85e08f7236a8de");
        assert_eq!(hex::encode(fingerprinter.padded), "f7ddac306ae266ccf90bc11ee46d513b");
    }

    #[test]
    fn numeric_order_is_byte_order() {
        let low = Fingerprint::from_be_bytes([0; 16]);
        let high = Fingerprint::from_be_bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let between = Fingerprint::from_be_bytes([0xff; 16]);
        assert!(low < high && high < between);
        assert_eq!(high.to_u128(), 1 << 120);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Fingerprint::from(7)), "Fingerprint(..)");
        assert_eq!(format!("{:?}", Fingerprinter::new(&[7; 16])), "Fingerprinter(..)");
    }

    proptest! {
        #[test]
        fn equals_the_cmac_crate(
            key in any::<[u8; 16]>(),
            message in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut reference = Cmac::<aes::Aes128>::new(&key.into());
            reference.update(&message);
            prop_assert_eq!(
                Fingerprinter::new(&key).fingerprint(&message).to_be_bytes(),
                <[u8; 16]>::from(reference.finalize().into_bytes())
            );
        }
    }
}
