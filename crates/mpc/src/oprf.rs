//! Oblivious pseudorandom functions: RFC 9497, suite ristretto255-SHA512.
//!
//! A server has a key k. A client learns F_k(x) for its inputs x and nothing more about the key;
//! the server learns how many inputs there are and nothing about them. The modes OPRF and VOPRF of
//! the RFC are here. In the second the server proves that it used the key that belongs to its
//! public key, for all inputs of a batch together.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | blinded | client | r H(x), with a new r for each input | how many inputs there are |
//! | evaluated | server | k r H(x); in mode VOPRF a proof | F_k(x) = SHA-512(x, k H(x)) |
//!
//! These are the functions of the RFC on many inputs at once; [`crate::unbalanced`] makes a protocol
//! of them. What a client sends is uniformly random, so its inputs are hidden unconditionally. That
//! a client learns nothing of other inputs rests on the one-more gap Diffie-Hellman assumption in
//! the random oracle model (Jarecki, Kiayias and Krawczyk, Asiacrypt 2014), whatever the client
//! sends: an element that is no group element, or the identity, is refused. Without the proof a
//! server can use another key for each input; it then learns nothing more, but its answers mean
//! nothing. Nothing here withstands a quantum computer.
//!
//! # Computing
//!
//! Everything takes the same time whatever the key, the inputs and the blinds are, but for
//! composites of the proof, which are sums of public elements. Ristretto's encoding takes a square
//! root for each element, the encoding of doubles one inversion for many; so each product is computed with
//! half of its scalar, and doubled when it is encoded.

mod hash;
mod proof;

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use rand_core::CryptoRng;
use rayon::prelude::*;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use self::hash::Hashes;
use self::proof::Statement;
pub use self::proof::{PROOF_BYTES, Proof};

/// The encoding of a group element.
pub type Element = [u8; ELEMENT_BYTES];

/// Bytes of an encoded element.
pub const ELEMENT_BYTES: usize = 32;

/// What the function gives for an input.
pub type Output = [u8; 64];

/// The most bytes of an input: its length is hashed as two bytes.
pub const MAXIMUM_INPUT: usize = 0xffff;

/// The most elements of one proof: their numbers are hashed as two bytes.
pub const MAXIMUM_BATCH: usize = 1 << 16;

/// Elements that a thread computes at once.
const PIECE: usize = 256;

/// A mode of RFC 9497. The same key gives other outputs in another mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server is trusted to use one key.
    Oprf,
    /// The server proves which key it uses.
    Voprf,
}

/// Why a key, an input or a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes are not the encoding of a group element.
    #[error("element {at} is not the encoding of a group element")]
    Element {
        /// Which of the elements.
        at: usize,
    },
    /// An element is the identity, whose product is the same under every key.
    #[error("element {at} is the identity")]
    Identity {
        /// Which of the elements.
        at: usize,
    },
    /// An input is too long.
    #[error("input {at} has {length} bytes: there can be {MAXIMUM_INPUT}")]
    Input {
        /// Which of the inputs.
        at: usize,
        /// How many bytes it has.
        length: usize,
    },
    /// There are not as many inputs or elements as were blinded.
    #[error("{found} inputs or elements, expected {expected}")]
    Number {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A proof is of no elements, or of too many.
    #[error("a proof is of 1 to {MAXIMUM_BATCH} elements, not of {0}")]
    Batch(usize),
    /// There is no proof in mode VOPRF, or there is one in mode OPRF.
    #[error("there is a proof and should be none, or the other way round")]
    Mode,
    /// A proof is not two scalars below the group's order.
    #[error("the proof is not two scalars below the group's order")]
    ProofEncoding,
    /// A proof is wrong: some element was not multiplied by the key that was promised.
    #[error("the elements were not evaluated under the key of this public key")]
    Proof,
    /// A secret key is zero, or not below the group's order.
    #[error("a secret key is above zero and below the group's order")]
    Key,
}

/// A server's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(Element);

impl PublicKey {
    /// Reads one.
    ///
    /// # Errors
    /// If it is not the encoding of an element, or is the identity.
    pub fn from_bytes(bytes: &Element) -> Result<Self, Error> {
        decoded(0, bytes)?;
        Ok(Self(*bytes))
    }

    /// The encoding of it.
    pub fn to_bytes(&self) -> Element {
        self.0
    }

    fn point(&self) -> RistrettoPoint {
        CompressedRistretto(self.0).decompress().expect("it was decoded before")
    }
}

/// A server's secret key, and the public one that belongs to it.
#[derive(ZeroizeOnDrop)]
pub struct SecretKey {
    scalar: Scalar,
    half: Scalar,
    #[zeroize(skip)]
    public: PublicKey,
}

impl SecretKey {
    /// Draws a key (`GenerateKeyPair`).
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self::new(nonzero(rng))
    }

    /// Derives a key from a secret seed that is uniformly random, and from public `info`
    /// (`DeriveKeyPair`).
    ///
    /// # Errors
    /// If `info` is longer than [`MAXIMUM_INPUT`], and with a probability of 2^-252 for each of 256
    /// attempts.
    pub fn derive(mode: Mode, seed: &[u8; 32], info: &[u8]) -> Result<Self, Error> {
        let length = u16::try_from(info.len())
            .map_err(|_too_long| Error::Input { at: 0, length: info.len() })?;
        let hashes = Hashes::new(mode);
        let scalar = (0..=u8::MAX)
            .map(|counter| hashes.key(&[seed, &length.to_be_bytes(), info, &[counter]]))
            .find(|scalar| *scalar != Scalar::ZERO);
        scalar.map(Self::new).ok_or(Error::Key)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If it is zero, or not below the group's order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
        let scalar = Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes));
        match scalar {
            Some(scalar) if scalar != Scalar::ZERO => Ok(Self::new(scalar)),
            _ => Err(Error::Key),
        }
    }

    /// The scalar, lowest byte first, to be kept as secret as the key.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.scalar.to_bytes())
    }

    fn new(scalar: Scalar) -> Self {
        let public = PublicKey(RistrettoPoint::mul_base(&scalar).compress().to_bytes());
        Self { half: scalar.div_by_2(), scalar, public }
    }

    /// The public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The function's outputs for inputs that the server knows itself (`Evaluate`).
    ///
    /// # Errors
    /// If an input is too long, or is hashed to the identity, which nobody can bring about.
    pub fn evaluate<I: AsRef<[u8]> + Sync>(
        &self,
        mode: Mode,
        inputs: &[I],
    ) -> Result<Zeroizing<Vec<Output>>, Error> {
        let hashes = Hashes::new(mode);
        let pieces: Result<Vec<_>, Error> = inputs
            .par_chunks(PIECE)
            .enumerate()
            .map(|(piece, inputs)| {
                let points = hashed(&hashes, PIECE * piece, inputs)?;
                let halves = products(&points, |_| self.half);
                let elements = Zeroizing::new(doubled(&halves));
                let outputs = inputs.iter().zip(&*elements);
                Ok(outputs.map(|(input, element)| hash::output(input.as_ref(), element)).collect())
            })
            .collect();
        let pieces: Vec<Zeroizing<Vec<Output>>> = pieces?.into_iter().map(Zeroizing::new).collect();
        Ok(Zeroizing::new(pieces.iter().flat_map(|piece| piece.iter().copied()).collect()))
    }

    /// Multiplies blinded elements by the key, and proves it in mode VOPRF (`BlindEvaluate`).
    ///
    /// # Errors
    /// If an element is refused, or there are too many or none to be proved.
    pub fn blind_evaluate(
        &self,
        mode: Mode,
        blinded: &[Element],
        rng: &mut impl CryptoRng,
    ) -> Result<Evaluated, Error> {
        self.evaluate_with(mode, blinded, &Zeroizing::new(nonzero(rng)))
    }

    fn evaluate_with(
        &self,
        mode: Mode,
        blinded: &[Element],
        nonce: &Scalar,
    ) -> Result<Evaluated, Error> {
        if mode == Mode::Voprf {
            check_batch(blinded.len())?;
        }
        let points = decoded_each(blinded)?;
        let elements: Vec<Element> = points
            .par_chunks(PIECE)
            .flat_map_iter(|points| doubled(&products(points, |_| self.half)))
            .collect();
        let proof = (mode == Mode::Voprf).then(|| {
            let hashes = Hashes::new(mode);
            let public = &self.public;
            Statement { hashes: &hashes, public, blinded, evaluated: &elements }.prove(
                &self.scalar,
                &points,
                nonce,
            )
        });
        Ok(Evaluated { elements, proof })
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The products, in the order of the blinded elements.
    pub elements: Vec<Element>,
    /// The proof, in mode VOPRF.
    pub proof: Option<Proof>,
}

/// What a client keeps of the inputs that it has blinded.
pub struct Blinds {
    mode: Mode,
    /// The halves of the blinds.
    halves: Zeroizing<Vec<Scalar>>,
    elements: Vec<Element>,
    /// The halves of the elements, if a proof is to be verified.
    points: Vec<RistrettoPoint>,
}

/// Blinds inputs (`Blind`).
///
/// # Errors
/// If an input is too long, or is hashed to the identity, which nobody can bring about; in mode
/// VOPRF, if there are none or too many.
pub fn blind<I: AsRef<[u8]> + Sync>(
    mode: Mode,
    inputs: &[I],
    rng: &mut impl CryptoRng,
) -> Result<Blinds, Error> {
    let halves = std::iter::repeat_with(|| nonzero(rng)).take(inputs.len()).collect();
    Blinds::new(mode, inputs, Zeroizing::new(halves))
}

impl Blinds {
    fn new<I: AsRef<[u8]> + Sync>(
        mode: Mode,
        inputs: &[I],
        halves: Zeroizing<Vec<Scalar>>,
    ) -> Result<Self, Error> {
        if mode == Mode::Voprf {
            check_batch(inputs.len())?;
        }
        let hashes = Hashes::new(mode);
        let pieces: Result<Vec<_>, Error> = inputs
            .par_chunks(PIECE)
            .zip(halves.par_chunks(PIECE))
            .enumerate()
            .map(|(piece, (inputs, halves))| {
                let points = hashed(&hashes, PIECE * piece, inputs)?;
                let points = products(&points, |at| halves[at]).to_vec();
                Ok((doubled(&points), points))
            })
            .collect();
        let (mut elements, mut points) = (Vec::new(), Vec::new());
        for (of_piece, halves) in pieces? {
            elements.extend(of_piece);
            if mode == Mode::Voprf {
                points.extend(halves);
            }
        }
        Ok(Self { mode, halves, elements, points })
    }

    /// What goes to the server: uniformly random elements, in the order of the inputs.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The function's outputs for the inputs that were blinded (`Finalize`).
    ///
    /// # Errors
    /// If an element is refused, or, in mode VOPRF, the proof; or if these are not the inputs, as
    /// far as their number and lengths tell.
    pub fn finalize<I: AsRef<[u8]> + Sync>(
        &self,
        inputs: &[I],
        public: &PublicKey,
        evaluated: &Evaluated,
    ) -> Result<Zeroizing<Vec<Output>>, Error> {
        let expected = self.halves.len();
        for found in [inputs.len(), evaluated.elements.len()] {
            if found != expected {
                return Err(Error::Number { found, expected });
            }
        }
        check_lengths(0, inputs)?;
        let points = decoded_each(&evaluated.elements)?;
        match (self.mode, &evaluated.proof) {
            (Mode::Oprf, None) => {}
            (Mode::Voprf, Some(proof)) => {
                let (blinded, evaluated) = (&*self.elements, &*evaluated.elements);
                let hashes = Hashes::new(self.mode);
                Statement { hashes: &hashes, public, blinded, evaluated }.verify(
                    &self.points,
                    &points,
                    proof,
                )?;
            }
            _ => return Err(Error::Mode),
        }
        // Of four times the half: a blind, which is twice that, and half of the product again.
        let mut inverses: Zeroizing<Vec<Scalar>> = Zeroizing::new(
            self.halves.iter().map(|half| half + half).map(|blind| blind + blind).collect(),
        );
        if !inverses.is_empty() {
            let _product = Zeroizing::new(Scalar::invert_batch_alloc(&mut inverses));
        }
        let outputs = inputs
            .par_chunks(PIECE)
            .zip(points.par_chunks(PIECE))
            .zip(inverses.par_chunks(PIECE))
            .flat_map_iter(|((inputs, points), inverses)| {
                let elements = Zeroizing::new(doubled(&products(points, |at| inverses[at])));
                let outputs = inputs.iter().zip(&*elements);
                outputs
                    .map(|(input, element)| hash::output(input.as_ref(), element))
                    .collect::<Vec<_>>()
            })
            .collect();
        Ok(Zeroizing::new(outputs))
    }
}

/// A uniformly random scalar that is not zero.
fn nonzero(rng: &mut impl CryptoRng) -> Scalar {
    loop {
        let scalar = Scalar::random(rng);
        if scalar != Scalar::ZERO {
            return scalar;
        }
    }
}

fn check_batch(elements: usize) -> Result<(), Error> {
    if (1..=MAXIMUM_BATCH).contains(&elements) { Ok(()) } else { Err(Error::Batch(elements)) }
}

fn check_lengths<I: AsRef<[u8]>>(first: usize, inputs: &[I]) -> Result<(), Error> {
    for (at, input) in (first..).zip(inputs) {
        let length = input.as_ref().len();
        if length > MAXIMUM_INPUT {
            return Err(Error::Input { at, length });
        }
    }
    Ok(())
}

/// The group elements of inputs.
fn hashed<I: AsRef<[u8]>>(
    hashes: &Hashes,
    first: usize,
    inputs: &[I],
) -> Result<Zeroizing<Vec<RistrettoPoint>>, Error> {
    check_lengths(first, inputs)?;
    let points: Zeroizing<Vec<_>> =
        Zeroizing::new(inputs.iter().map(|input| hashes.to_group(input.as_ref())).collect());
    match points.iter().position(RistrettoPoint::is_identity) {
        Some(at) => Err(Error::Identity { at: first + at }),
        None => Ok(points),
    }
}

fn products(
    points: &[RistrettoPoint],
    scalar: impl Fn(usize) -> Scalar,
) -> Zeroizing<Vec<RistrettoPoint>> {
    let products = points.iter().enumerate().map(|(at, point)| scalar(at) * point);
    Zeroizing::new(products.collect())
}

/// The encodings of twice each element.
fn doubled(points: &[RistrettoPoint]) -> Vec<Element> {
    let encoded = RistrettoPoint::double_and_compress_batch(points);
    encoded.into_iter().map(|element| element.to_bytes()).collect()
}

/// The elements that are encoded, none of which may be the identity.
fn decoded_each(elements: &[Element]) -> Result<Vec<RistrettoPoint>, Error> {
    elements.par_iter().enumerate().map(|(at, element)| decoded(at, element)).collect()
}

fn decoded(at: usize, element: &Element) -> Result<RistrettoPoint, Error> {
    let point = CompressedRistretto(*element).decompress().ok_or(Error::Element { at })?;
    if point.is_identity() { Err(Error::Identity { at }) } else { Ok(point) }
}

#[cfg(test)]
mod tests;
