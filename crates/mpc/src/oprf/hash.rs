//! The hashes of RFC 9497's suite ristretto255-SHA512 (section 4.1).

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::{Element, Mode, Output};

/// The hashes of a mode, each with its own domain.
pub(super) struct Hashes {
    /// Has read the padding of one block.
    start: Sha512,
    group: Vec<u8>,
    scalar: Vec<u8>,
    key: Vec<u8>,
    /// The domain of the seeds of composites.
    seed: Vec<u8>,
}

impl Hashes {
    pub(super) fn new(mode: Mode) -> Self {
        let mode: u8 = match mode {
            Mode::Oprf => 0,
            Mode::Voprf => 1,
        };
        let domain =
            |of: &str| [of.as_bytes(), b"OPRFV1-", &[mode], b"-ristretto255-SHA512"].concat();
        let suffix = |of: &str| {
            let mut domain = domain(of);
            domain.push(u8::try_from(domain.len()).expect("some forty bytes"));
            domain
        };
        Self {
            start: Sha512::new().chain_update([0; 128]),
            group: suffix("HashToGroup-"),
            scalar: suffix("HashToScalar-"),
            key: suffix("DeriveKeyPair"),
            seed: domain("Seed-"),
        }
    }

    /// `HashToGroup`.
    pub(super) fn to_group(&self, input: &[u8]) -> RistrettoPoint {
        RistrettoPoint::from_uniform_bytes(&self.expand(&[input], &self.group))
    }

    /// `HashToScalar` of the parts, one after the other.
    pub(super) fn to_scalar(&self, parts: &[&[u8]]) -> Scalar {
        Scalar::from_bytes_mod_order_wide(&self.expand(parts, &self.scalar))
    }

    /// `HashToScalar` in the domain of derived keys.
    pub(super) fn key(&self, parts: &[&[u8]]) -> Scalar {
        Scalar::from_bytes_mod_order_wide(&self.expand(parts, &self.key))
    }

    /// The seed of composites, for elements that were evaluated under the key of this public key.
    pub(super) fn seed(&self, public: &Element) -> Output {
        let [public_length, domain_length] = [public.len(), self.seed.len()].map(two_bytes);
        Sha512::new()
            .chain_update(public_length)
            .chain_update(public)
            .chain_update(domain_length)
            .chain_update(&self.seed)
            .finalize()
            .into()
    }

    /// `expand_message_xmd` of RFC 9380 (section 5.3.1) with SHA-512, of 64 bytes: one block.
    fn expand(&self, parts: &[&[u8]], suffix: &[u8]) -> Zeroizing<[u8; 64]> {
        let mut start = self.start.clone();
        for part in parts {
            start.update(part);
        }
        let start = start.chain_update([0, 64, 0]).chain_update(suffix).finalize();
        let block = Sha512::new().chain_update(start).chain_update([1]).chain_update(suffix);
        Zeroizing::new(block.finalize().into())
    }
}

/// The function's output for an input, from the element under the key.
pub(super) fn output(input: &[u8], element: &Element) -> Output {
    Sha512::new()
        .chain_update(two_bytes(input.len()))
        .chain_update(input)
        .chain_update(two_bytes(element.len()))
        .chain_update(element)
        .chain_update(b"Finalize")
        .finalize()
        .into()
}

/// A length as the RFC hashes it.
pub(super) fn two_bytes(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("lengths were checked").to_be_bytes()
}
