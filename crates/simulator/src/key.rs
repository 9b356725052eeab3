//! P-256 keys that sign certificates, revocation lists, and raw r||s as Intel's formats want them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::KeyPair;

use crate::platform::Error;

/// The X and Y coordinates of a key, 64 bytes.
pub(crate) fn coordinates(key: &KeyPair) -> &[u8] {
    &key.public_key_raw()[1..]
}

/// An ECDSA-SHA256 signature as r||s.
pub(crate) fn sign_raw(key: &KeyPair, message: &[u8]) -> Result<[u8; 64], Error> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der())
        .map_err(|_| Error::Signature)?;
    let signature = key.sign(&SystemRandom::new(), message).map_err(|_| Error::Signature)?;
    signature.as_ref().try_into().map_err(|_| Error::Signature)
}
