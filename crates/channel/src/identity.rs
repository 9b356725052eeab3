//! Who we are: a P-256 key, and the certificate made from it for a connection.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use convelo_attest::{Extension, QuoteError, QuoteSource};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_cert::der::pem::{LineEnding, decode_vec, encode_string};
use zeroize::Zeroizing;

use crate::credential::Credential;
use crate::limits::{
    CERTIFICATE_BACKDATE, CERTIFICATE_LIFETIME, CERTIFICATE_RENEWAL_TIMEOUT, MAXIMUM_KEY_FILE_BYTES,
};
use crate::provider::provider;

/// What PEM calls a PKCS #8 key without a password (RFC 7468 section 10).
const PEM_LABEL: &str = "PRIVATE KEY";

/// A long-lived P-256 key. Others pin the SHA-256 of its `SubjectPublicKeyInfo`.
#[derive(Clone)]
pub struct Identity {
    key: EcdsaKeyPair,
    spki: Vec<u8>,
}

/// An identity that could not be read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is not a private key in the expected form.
    #[error("this is not a P-256 private key in PKCS #8 PEM form ('-----BEGIN PRIVATE KEY-----')")]
    NotAKey,
    /// There was no quote for the certificate.
    #[error("no evidence could be made for the certificate: {0}")]
    Quote(#[from] QuoteError),
    /// There is no quote for the certificate yet.
    #[error(
        "the attestation device has not answered for {} seconds, and is waited for",
        CERTIFICATE_RENEWAL_TIMEOUT.as_secs()
    )]
    Late,
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Certificate(String),
}

impl Identity {
    /// Makes a fresh key from the operating system's randomness.
    pub fn generate() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        Self::from_key(key.expect("there is memory and randomness for a key"))
    }

    /// Reads a key in PKCS #8 PEM form.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        if pem.len() > MAXIMUM_KEY_FILE_BYTES {
            return Err(IdentityError::NotAKey);
        }
        let (label, der) = decode_vec(pem.as_bytes()).map_err(|_| IdentityError::NotAKey)?;
        let der = Zeroizing::new(der);
        if label != PEM_LABEL {
            return Err(IdentityError::NotAKey);
        }
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der);
        key.map(Self::from_key).map_err(|_| IdentityError::NotAKey)
    }

    /// The private key in PKCS #8 PEM form, for a file that only its owner may read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let pem = encode_string(PEM_LABEL, LineEnding::LF, self.pkcs8().as_ref());
        Zeroizing::new(pem.expect("a key is short"))
    }

    /// `SubjectPublicKeyInfo` of the public key, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key itself, for the protocols that sign with an identity.
    pub fn signing_key(&self) -> &EcdsaKeyPair {
        &self.key
    }

    /// ECDSA P-256 SHA-256 signature in DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(&SystemRandom::new(), message).expect("a key pair signs");
        signature.as_ref().to_vec()
    }

    /// A certificate without evidence: the peer either knows this key or does not.
    pub fn plain(&self) -> Result<Credential, IdentityError> {
        self.credential(&[])
    }

    /// A certificate that carries evidence: quotes from `source` over this key (RA-TLS).
    pub fn attested(&self, source: &dyn QuoteSource) -> Result<Credential, IdentityError> {
        self.credential(&convelo_attest::extensions(source, &self.spki)?)
    }

    fn from_key(key: EcdsaKeyPair) -> Self {
        let spki: PublicKeyX509Der<'_> =
            key.public_key().as_der().expect("a P-256 key has a SubjectPublicKeyInfo");
        let spki = spki.as_ref().to_vec();
        Self { key, spki }
    }

    /// Wiped on drop, like the library's other documents of this kind.
    fn pkcs8(&self) -> impl AsRef<[u8]> {
        self.key.to_pkcs8v1().expect("a P-256 key has a PKCS #8 form")
    }

    fn credential(&self, evidence: &[Extension]) -> Result<Credential, IdentityError> {
        let failed = |error: &dyn std::fmt::Display| IdentityError::Certificate(error.to_string());
        let pkcs8 = self.pkcs8();
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_ref());
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CERTIFICATE_BACKDATE;
        params.not_after = params.not_before + CERTIFICATE_LIFETIME;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "convelo");
        params.is_ca = IsCa::ExplicitNoCa;
        params.custom_extensions = evidence
            .iter()
            .map(|part| CustomExtension::from_oid_content(part.oid, part.value.clone()))
            .collect();
        let certificate = params.self_signed(self).map_err(|error| failed(&error))?;
        let key = provider()
            .key_provider
            .load_private_key(der.clone_key().into())
            .map_err(|error| failed(&error))?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
        Ok(Credential::new(certified, self.spki.as_slice().into()))
    }
}

impl rcgen::PublicKeyData for Identity {
    fn der_bytes(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Identity {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.sign(message))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}
