//! Proofs that many elements were multiplied by the same key (RFC 9497, section 2.2).
//!
//! A proof of equal discrete logarithms (Chaum and Pedersen, Crypto 1992), made non-interactive by
//! a hash, about one random combination of all elements; the combination's factors are hashed from
//! the elements, so that the server cannot choose elements that cancel.

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity, VartimeMultiscalarMul};
use rayon::prelude::*;
use subtle::ConstantTimeEq;

use super::hash::{Hashes, two_bytes};
use super::{Element, Error, PublicKey};

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 64;

/// A proof that elements were multiplied by the key of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    challenge: Scalar,
    response: Scalar,
}

impl Proof {
    /// Reads one.
    ///
    /// # Errors
    /// If it is not two scalars below the group's order.
    pub fn from_bytes(bytes: &[u8; PROOF_BYTES]) -> Result<Self, Error> {
        let scalar = |bytes: &[u8; 32]| Option::from(Scalar::from_canonical_bytes(*bytes));
        let [challenge, response] = bytes.as_chunks().0 else { unreachable!("two halves of 64") };
        match (scalar(challenge), scalar(response)) {
            (Some(challenge), Some(response)) => Ok(Self { challenge, response }),
            _ => Err(Error::ProofEncoding),
        }
    }

    /// The encoding of it.
    pub fn to_bytes(&self) -> [u8; PROOF_BYTES] {
        let mut bytes = [0; PROOF_BYTES];
        bytes[..32].copy_from_slice(self.challenge.as_bytes());
        bytes[32..].copy_from_slice(self.response.as_bytes());
        bytes
    }
}

/// What is proved: each evaluated element is a blinded one times the key of the public key.
pub(super) struct Statement<'a> {
    pub(super) hashes: &'a Hashes,
    pub(super) public: &'a PublicKey,
    pub(super) blinded: &'a [Element],
    pub(super) evaluated: &'a [Element],
}

impl Statement<'_> {
    /// Proves it with the key, the blinded elements and a secret nonce that is never used again.
    pub(super) fn prove(&self, key: &Scalar, blinded: &[RistrettoPoint], nonce: &Scalar) -> Proof {
        let combined = combine(&self.factors(), blinded);
        let challenge = self.challenge(&[
            combined,
            key * combined,
            RistrettoPoint::mul_base(nonce),
            nonce * combined,
        ]);
        Proof { challenge, response: nonce - challenge * key }
    }

    /// Verifies a proof, with the halves of the blinded elements and the evaluated ones.
    pub(super) fn verify(
        &self,
        halves: &[RistrettoPoint],
        evaluated: &[RistrettoPoint],
        Proof { challenge, response }: &Proof,
    ) -> Result<(), Error> {
        let factors = self.factors();
        let half = combine(&factors, halves);
        let blinded = half + half;
        let evaluated = combine(&factors, evaluated);
        let expected = self.challenge(&[
            blinded,
            evaluated,
            RistrettoPoint::vartime_double_scalar_mul_basepoint(
                challenge,
                &self.public.point(),
                response,
            ),
            RistrettoPoint::vartime_multiscalar_mul([response, challenge], [blinded, evaluated]),
        ]);
        if bool::from(expected.ct_eq(challenge)) { Ok(()) } else { Err(Error::Proof) }
    }

    /// The factors of the elements in the combination.
    fn factors(&self) -> Vec<Scalar> {
        let seed = self.hashes.seed(&self.public.0);
        let [seed_length, element_length] = [seed.len(), size_of::<Element>()].map(two_bytes);
        let pairs = self.blinded.par_iter().zip(self.evaluated);
        pairs
            .enumerate()
            .map(|(at, (blinded, evaluated))| {
                self.hashes.to_scalar(&[
                    &seed_length,
                    &seed,
                    &two_bytes(at),
                    &element_length,
                    blinded,
                    &element_length,
                    evaluated,
                    b"Composite",
                ])
            })
            .collect()
    }

    fn challenge(&self, points: &[RistrettoPoint; 4]) -> Scalar {
        let length = two_bytes(size_of::<Element>());
        let [first, second, third, fourth] =
            points.each_ref().map(|point| point.compress().to_bytes());
        self.hashes.to_scalar(&[
            &length,
            &self.public.0,
            &length,
            &first,
            &length,
            &second,
            &length,
            &third,
            &length,
            &fourth,
            b"Challenge",
        ])
    }
}

/// The sum of the points times their factors, all of which are public.
fn combine(factors: &[Scalar], points: &[RistrettoPoint]) -> RistrettoPoint {
    /// Points that a thread adds up.
    const PIECE: usize = 2048;
    let pieces = factors.par_chunks(PIECE).zip(points.par_chunks(PIECE));
    pieces
        .map(|(factors, points)| RistrettoPoint::vartime_multiscalar_mul(factors, points))
        .reduce(RistrettoPoint::identity, |a, b| a + b)
}
