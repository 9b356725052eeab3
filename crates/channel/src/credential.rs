//! What we present in a handshake.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest as _, Sha256};

use crate::certificate::{Certificate, fingerprint, shown_name};
use crate::limits::{
    MAXIMUM_CERTIFICATE_FILE_BYTES, MAXIMUM_CHAIN_CERTIFICATES, MAXIMUM_KEY_FILE_BYTES,
};
use crate::provider::peer_provider;

/// A key and its certificate, ready for handshakes, with any intermediate certificates up to an
/// authority.
#[derive(Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    spki: Arc<[u8]>,
}

/// Key or certificate files that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The file is too large to be what it should be.
    #[error("{what} has {bytes} bytes, expected at most {most}; is this the right file?")]
    TooLarge {
        /// Which file.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The most bytes we read.
        most: usize,
    },
    /// The file contains no certificate.
    #[error(
        "{what} contains no certificate, expected PEM ('-----BEGIN CERTIFICATE-----'): convert \
         other forms with 'openssl x509 -inform DER -in FILE'"
    )]
    NoCertificate {
        /// Which file.
        what: &'static str,
    },
    /// A certificate that cannot be read.
    #[error("certificate {number} of {what} cannot be read: {reason}; export it again")]
    Certificate {
        /// Which file.
        what: &'static str,
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// More certificates than peers accept.
    #[error(
        "{count} certificates to present, expected at most {MAXIMUM_CHAIN_CERTIFICATES}: the file \
         must contain our own certificate and the intermediate ones up to the authority, not \
         every authority there is"
    )]
    ChainTooLong {
        /// How many.
        count: usize,
    },
    /// No usable private key.
    #[error(
        "no usable private key: {reason}; expected one in PEM without a passphrase \
         (RSA of 2048 bits or more, ECDSA P-256 or P-384, Ed25519): 'openssl pkey -in FILE'"
    )]
    Key {
        /// What arrived.
        reason: String,
    },
    /// The key and the certificate belong to different owners.
    #[error(
        "the private key does not match the first certificate: the key is {key}, but the \
         certificate '{subject}' has {certificate}; give the files of one party, with its own \
         certificate first"
    )]
    Mismatch {
        /// Fingerprint of the private key's public half.
        key: String,
        /// The certificate's subject.
        subject: String,
        /// Fingerprint of the certificate's key.
        certificate: String,
    },
    /// An authority's certificate of X.509 version 1 or 2.
    #[error(
        "the authority '{subject}' (certificate {number} of the file) is an X.509 certificate of \
         version {version}, expected version 3 that says CA:TRUE. Make it again with its own key; \
         what it signed stays valid: printf 'basicConstraints=critical,CA:TRUE\\nkeyUsage=critical,\
         keyCertSign,cRLSign\\n' > ca.ext && openssl x509 -in ca.crt -signkey ca.key -days 3650 \
         -extfile ca.ext -out ca-v3.crt"
    )]
    AuthorityVersion {
        /// The authority's name.
        subject: String,
        /// Its place in the file, from 1.
        number: usize,
        /// What arrived.
        version: u8,
    },
}

impl Credential {
    /// Reads a key (PKCS #8, SEC 1 or PKCS #1), and a certificate followed by any intermediate
    /// ones, in PEM. Skips everything else in the files.
    pub fn from_pem(key_pem: &[u8], chain_pem: &[u8]) -> Result<Self, CredentialError> {
        let what = "our certificate file";
        let chain = certificates(chain_pem, what)?;
        if chain.len() > MAXIMUM_CHAIN_CERTIFICATES {
            return Err(CredentialError::ChainTooLong { count: chain.len() });
        }
        let unusable = |reason: String| CredentialError::Key { reason };
        check_size(key_pem, "our key file", MAXIMUM_KEY_FILE_BYTES)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| {
            let encrypted = key_pem.windows(9).any(|window| window == b"ENCRYPTED");
            unusable(
                if encrypted { "it is encrypted" } else { "the file contains none" }.to_owned(),
            )
        })?;
        let key = peer_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| unusable(error.to_string()))?;
        let own = parse(&chain[0], what, 1)?;
        if let Some(public) = key.public_key().filter(|public| public.as_ref() != own.spki) {
            return Err(CredentialError::Mismatch {
                key: fingerprint(&Sha256::digest(public.as_ref()).into()),
                subject: shown_name(own.subject),
                certificate: fingerprint(&own.key_id()),
            });
        }
        let spki = own.spki.into();
        Ok(Self::new(CertifiedKey::new(chain, key), spki))
    }

    /// From a key and its certificate.
    pub(crate) fn new(certified: CertifiedKey, spki: Arc<[u8]>) -> Self {
        Self { certified: Arc::new(certified), spki }
    }

    /// Our certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certified.cert[0]
    }

    /// SHA-256 of our key's `SubjectPublicKeyInfo`: what others pin.
    pub fn key_id(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }

    /// `SubjectPublicKeyInfo` of our key, DER.
    pub(crate) fn spki(&self) -> &Arc<[u8]> {
        &self.spki
    }

    /// In the form that rustls takes.
    pub(crate) fn presented(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, ..)", fingerprint(&self.key_id()))
    }
}

/// The certificates in a PEM file, at least one.
pub(crate) fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    check_size(pem, what, MAXIMUM_CERTIFICATE_FILE_BYTES)?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|error| CredentialError::Certificate {
            what,
            number: found.len() + 1,
            reason: error.to_string(),
        })?);
    }
    if found.is_empty() {
        return Err(CredentialError::NoCertificate { what });
    }
    Ok(found)
}

pub(crate) fn parse<'a>(
    der: &'a CertificateDer<'_>,
    what: &'static str,
    number: usize,
) -> Result<Certificate<'a>, CredentialError> {
    Certificate::parse(der).map_err(|error| CredentialError::Certificate {
        what,
        number,
        reason: error.to_string(),
    })
}

fn check_size(bytes: &[u8], what: &'static str, most: usize) -> Result<(), CredentialError> {
    if bytes.len() > most {
        return Err(CredentialError::TooLarge { what, bytes: bytes.len(), most });
    }
    Ok(())
}
