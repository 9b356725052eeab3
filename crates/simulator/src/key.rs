//! P-256 keys that sign certificates, revocation lists, and raw r||s as Intel's formats want them.

use p256::ecdsa::Signature;
use rcgen::{KeyPair, SigningKey};

use crate::platform::Error;

/// The X and Y coordinates of a key, 64 bytes.
pub(crate) fn coordinates(key: &KeyPair) -> &[u8] {
    &key.public_key_raw()[1..]
}

/// An ECDSA-SHA256 signature as r||s.
pub(crate) fn sign_raw(key: &KeyPair, message: &[u8]) -> Result<[u8; 64], Error> {
    let der = key.sign(message)?;
    let signature = Signature::from_der(&der).map_err(|_| Error::Signature)?;
    Ok(signature.to_bytes().into())
}
