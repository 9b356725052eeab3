//! 128 random oblivious transfers from public keys.
//!
//! The chooser has a bit c for each transfer and gets the key k_c; the other party, here the
//! answerer, gets k_0 and k_1. Every key is hashed from the secrets of two schemes, so that both
//! must be broken to learn the key that was not chosen. The choices are hidden by ristretto255
//! unconditionally (the difference of a public element and a uniform one is as uniform) and by
//! ML-KEM under MLWE: with ML-KEM they rest on MLWE alone, without it on no assumption.
//!
//! Both schemes are the one of Bellare and Micali (Crypto 1989) with a random oracle H for the
//! element whose key nobody knows; "endemic" OT (Masny and Rindal, CCS 2019, eprint 2019/706)
//! builds from the same parts. The chooser makes a key pair with public key t_c and sends t_0; both
//! take t_1 = H(sid, number) - t_0. So t_(1-c) = H(sid, number) - t_c.
//!
//! - *ristretto255*: t is a group element, H hashes to the group (RFC 9496, section 4.3.4). The
//!   answerer sends one element B = b G, and the secrets are b t_0 and b t_1. Who knew the secret
//!   for both could compute b H(sid, number): the computational Diffie-Hellman problem for a
//!   random element.
//! - *ML-KEM-768* (FIPS 203): t is the encoded vector of an encapsulation key, 768 coefficients
//!   modulo 3329, and H samples uniform ones by rejection. The answerer encapsulates to t_0 and to
//!   t_1, with the seed rho of the chooser's key for both. The chooser's key is made by the
//!   ordinary key generation, so it decapsulates under t_c as always. Under MLWE t_c is like
//!   a uniform vector, so t_0 tells nothing about c, and t_(1-c) is uniform in the random oracle
//!   model: MLWE again says that what is encapsulated to a uniform vector is hidden even from the
//!   chooser, which would need a short secret for a vector that it does not control.
//!
//! Both parties are assumed to follow the protocol. A chooser that does not can choose t_c after
//! H, but for one transfer still knows no secret for both; an answerer that does not can make
//! a key wrong (selective failure), which nothing here notices.

#![expect(clippy::cast_possible_truncation, reason = "numbers below 128; bytes of words")]

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use ml_kem::kem::{Decapsulate, Encapsulate, Kem, KeyExport};
use ml_kem::{DecapsulationKey768, EncapsulationKey768, MlKem768};
use rand_core::CryptoRng;
use subtle::{Choice, ConditionallySelectable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Error;

/// Transfers.
pub(super) const COUNT: usize = 128;

const POINT_LEN: usize = 32;
const VECTOR_LEN: usize = 1152;
const KEY_LEN: usize = VECTOR_LEN + 32;
const CIPHERTEXT_LEN: usize = 1088;
const PRIME: u16 = 3329;

/// Whether ML-KEM-768 protects the transfers besides ristretto255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hybrid {
    /// Both.
    Yes,
    /// Ristretto255 alone: nothing withstands a quantum computer then.
    No,
}

impl Hybrid {
    /// Bytes of the chooser's message.
    pub(super) fn choice_len(self) -> usize {
        COUNT * if self == Self::Yes { POINT_LEN + KEY_LEN } else { POINT_LEN }
    }

    /// Bytes of the answer.
    pub(super) fn answer_len(self) -> usize {
        POINT_LEN + if self == Self::Yes { COUNT * 2 * CIPHERTEXT_LEN } else { 0 }
    }
}

/// The chooser between its two messages.
#[derive(ZeroizeOnDrop)]
pub(super) struct Chooser {
    choices: u128,
    scalars: Vec<Scalar>,
    #[zeroize(skip)]
    keys: Vec<DecapsulationKey768>,
    sid: [u8; 32],
}

impl Chooser {
    /// Chooses by the bits of `choices`, appends the message to `message`.
    pub(super) fn new(
        sid: &[u8; 32],
        choices: u128,
        hybrid: Hybrid,
        message: &mut Vec<u8>,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let start = message.len();
        let scalars: Vec<_> = (0..COUNT).map(|_| Scalar::random(rng)).collect();
        for (number, scalar) in scalars.iter().enumerate() {
            let own = RistrettoPoint::mul_base(scalar);
            let other = point(sid, number) - own;
            let first = RistrettoPoint::conditional_select(&own, &other, choice(choices, number));
            message.extend(first.compress().to_bytes());
        }
        let mut keys = Vec::new();
        for number in (0..COUNT).filter(|_| hybrid == Hybrid::Yes) {
            let (key, public) = MlKem768::generate_keypair_from_rng(rng);
            let mut encoded: [u8; KEY_LEN] = public.to_bytes().into();
            let other = difference(sid, number, &encoded);
            for (byte, other) in encoded.iter_mut().zip(other) {
                byte.conditional_assign(&other, choice(choices, number));
            }
            message.extend(encoded);
            keys.push(key);
        }
        let sid = transcript(sid, &message[start..]);
        Self { choices, scalars, keys, sid }
    }

    /// The keys, from an answer of [`Hybrid::answer_len`] bytes.
    pub(super) fn finish(self, answer: &[u8]) -> Result<Zeroizing<Vec<u128>>, Error> {
        let (base, ciphertexts) = answer.split_at(POINT_LEN);
        let base = decompress(base).ok_or(Error::Point { number: COUNT })?;
        let sid = transcript(&self.sid, &base.compress().to_bytes());
        let pairs = ciphertexts.as_chunks::<CIPHERTEXT_LEN>().0.as_chunks::<2>().0;
        let keys = self.scalars.iter().enumerate().map(|(number, scalar)| {
            let chosen = choice(self.choices, number);
            let shared = Zeroizing::new((scalar * base).compress().to_bytes());
            let lattice = self.keys.get(number).map(|key| {
                let [mut ciphertext, other] = pairs[number];
                for (byte, other) in ciphertext.iter_mut().zip(other) {
                    byte.conditional_assign(&other, chosen);
                }
                Zeroizing::new(<[u8; 32]>::from(key.decapsulate(&ciphertext.into())))
            });
            derive(&sid, number, chosen.unwrap_u8(), &shared, lattice.as_deref())
        });
        Ok(Zeroizing::new(keys.collect()))
    }
}

/// Both keys of each transfer.
pub(super) type Pairs = Zeroizing<Vec<[u128; 2]>>;

/// Answers a chooser's message of [`Hybrid::choice_len`] bytes; appends the answer to `answer`.
pub(super) fn answer(
    sid: &[u8; 32],
    hybrid: Hybrid,
    message: &[u8],
    answer: &mut Vec<u8>,
    rng: &mut impl CryptoRng,
) -> Result<Pairs, Error> {
    let secret = Zeroizing::new(Scalar::random(rng));
    let base = RistrettoPoint::mul_base(&secret).compress().to_bytes();
    answer.extend(base);
    let session = transcript(&transcript(sid, message), &base);
    let (points, keys) = message.split_at(COUNT * POINT_LEN);
    let keys = keys.as_chunks::<KEY_LEN>().0;
    let mut pairs = Zeroizing::new(Vec::with_capacity(COUNT));
    for (number, first) in points.as_chunks::<POINT_LEN>().0.iter().enumerate() {
        let first = decompress(first).ok_or(Error::Point { number })?;
        let second = point(sid, number) - first;
        let shared = [first, second].map(|element| (*secret * element).compress().to_bytes());
        let shared = Zeroizing::new(shared);
        let mut lattice = [None, None];
        if hybrid == Hybrid::Yes {
            let first = keys[number];
            let mut second = first;
            second[..VECTOR_LEN].copy_from_slice(&difference(sid, number, &first));
            for (lattice, key) in lattice.iter_mut().zip([first, second]) {
                let key = EncapsulationKey768::new(&key.into())
                    .map_err(|_invalid| Error::Key { number })?;
                let (ciphertext, shared) = key.encapsulate_with_rng(rng);
                answer.extend(ciphertext);
                *lattice = Some(Zeroizing::new(<[u8; 32]>::from(shared)));
            }
        }
        pairs.push([0, 1].map(|side| {
            derive(
                &session,
                number,
                side,
                &shared[usize::from(side)],
                lattice[usize::from(side)].as_deref(),
            )
        }));
    }
    Ok(pairs)
}

fn choice(choices: u128, number: usize) -> Choice {
    Choice::from((choices >> number & 1) as u8)
}

/// A group element that is not the identity, which nobody draws and of which all multiples are known.
fn decompress(bytes: &[u8]) -> Option<RistrettoPoint> {
    let element = CompressedRistretto::from_slice(bytes).ok()?.decompress()?;
    (!element.is_identity()).then_some(element)
}

/// A hash of what both parties have seen.
fn transcript(sid: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("convelo vole base transfers transcript");
    *hasher.update(sid).update(bytes).finalize().as_bytes()
}

fn derive(
    sid: &[u8; 32],
    number: usize,
    side: u8,
    shared: &[u8; 32],
    lattice: Option<&[u8; 32]>,
) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("convelo vole base transfers key");
    hasher.update(sid).update(&[number as u8, side]).update(shared);
    hasher.update(lattice.map_or(&[], |shared| shared));
    let hash = hasher.finalize();
    hasher.zeroize();
    u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("16 bytes"))
}

/// The group element that the two of a transfer add up to.
fn point(sid: &[u8; 32], number: usize) -> RistrettoPoint {
    let mut hasher = blake3::Hasher::new_derive_key("convelo vole base transfers ristretto255");
    hasher.update(sid).update(&[number as u8]);
    let mut uniform = [0; 64];
    hasher.finalize_xof().fill(&mut uniform);
    RistrettoPoint::from_uniform_bytes(&uniform)
}

/// The vector that, with the one of an encapsulation key, adds up to the transfer's. It is a vector
/// modulo 3329 whatever the key is.
fn difference(sid: &[u8; 32], number: usize, key: &[u8; KEY_LEN]) -> [u8; VECTOR_LEN] {
    let (vector, rho) = key.split_at(VECTOR_LEN);
    let mut hasher = blake3::Hasher::new_derive_key("convelo vole base transfers ML-KEM-768");
    let mut stream = hasher.update(sid).update(&[number as u8]).update(rho).finalize_xof();
    let mut buffer = [0; 192];
    let mut at = buffer.len();
    let mut uniform = || loop {
        if at == buffer.len() {
            stream.fill(&mut buffer);
            at = 0;
        }
        let word = u16::from_le_bytes([buffer[at], buffer[at + 1]]) & 0xfff;
        at += 2;
        if word < PRIME {
            return word;
        }
    };
    let mut out = [0; VECTOR_LEN];
    for (packed, out) in vector.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<3>().0) {
        let [a, b, c] = packed.map(u16::from);
        let [low, high] = [a | (b & 15) << 8, b >> 4 | c << 4].map(|coefficient| {
            // Without a branch: the chooser's own vector tells its choice. One at or above the
            // prime is refused when the key is read.
            let difference = uniform() + PRIME - coefficient.min(PRIME);
            difference - PRIME * u16::from(difference >= PRIME)
        });
        *out = [low as u8, (low >> 8 | high << 4) as u8, (high >> 4) as u8];
    }
    out
}

#[cfg(test)]
mod tests;
