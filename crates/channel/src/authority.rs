//! Certificates for tests and small deployments: an authority, the certificates it issues, and
//! self-signed ones. All of them are X.509 version 3 over P-256, which both Python's `ssl` and
//! rustls read.

use std::fmt;
use std::time::Duration;

use rand_core::Rng as _;
use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::name::Name;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, shown_name};
use crate::identity::Identity;
use crate::limits::{
    CERTIFICATE_BACKDATE, LONGEST_COMMON_NAME, LONGEST_LIFE_DAYS, MAXIMUM_CERTIFICATE_FILE_BYTES,
    MAXIMUM_KEY_FILE_BYTES,
};

/// A certificate authority. Anyone who holds its key can impersonate every party that trusts it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A new key with its certificate.
pub struct Issued {
    /// The private key, PKCS #8 in PEM, for a file that only its owner may read.
    pub key_pem: Zeroizing<String>,
    /// The certificate in PEM.
    pub certificate_pem: String,
}

/// A certificate that cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A name that no certificate can carry.
    #[error(
        "a certificate cannot contain the name {name:?}; expected a common name of 1 to \
         {LONGEST_COMMON_NAME} characters without control characters, and DNS names or IP addresses"
    )]
    Name {
        /// The name given.
        name: String,
    },
    /// A lifetime of zero, or too long.
    #[error("a certificate for {days} days, expected 1 to {LONGEST_LIFE_DAYS}")]
    Days {
        /// The lifetime given.
        days: u32,
    },
    /// The files do not make an authority.
    #[error("this authority cannot issue certificates: {reason}")]
    NotAnAuthority {
        /// What was found and what was expected.
        reason: String,
    },
    /// Not a certificate.
    #[error("this is not an X.509 certificate in DER ({reason}); convert it with 'openssl x509'")]
    NotACertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Making(String),
}

impl Authority {
    /// Makes an authority with this name, valid for this many days.
    pub fn generate(common_name: &str, days: u32) -> Result<Self, AuthorityError> {
        let params = authority(common_name, days)?;
        let key = KeyPair::generate().map_err(making)?;
        let certificate_pem = params.self_signed(&key).map_err(making)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    /// Loads an existing authority: its key (RSA, ECDSA or Ed25519, without a passphrase) and its
    /// certificate, both in PEM.
    pub fn from_pem(key_pem: &str, certificate_pem: &str) -> Result<Self, AuthorityError> {
        let no = |reason: &str| AuthorityError::NotAnAuthority { reason: reason.to_owned() };
        if key_pem.len() > MAXIMUM_KEY_FILE_BYTES
            || certificate_pem.len() > MAXIMUM_CERTIFICATE_FILE_BYTES
        {
            return Err(no("the files are too long, expected one key and one certificate"));
        }
        let key = KeyPair::from_pem(key_pem)
            .map_err(|_| no("the key file holds no private key in PEM without a passphrase"))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| no("the certificate file holds no certificate in PEM"))?;
        let certificate = Certificate::parse(&der)
            .map_err(|error| no(&format!("its certificate cannot be read ({error})")))?;
        if certificate.version != 3 || !certificate.is_authority() {
            return Err(no(&format!(
                "the certificate of '{}' has version {} and does not say CA:TRUE, expected \
                 version 3 with basicConstraints CA:TRUE",
                shown_name(certificate.subject),
                certificate.version
            )));
        }
        if rcgen::PublicKeyData::subject_public_key_info(&key) != certificate.spki {
            return Err(no("the key does not match the certificate"));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = repeated(certificate.subject)
            .ok_or_else(|| no("its name has parts that cannot be copied exactly"))?;
        if let Some(identifier) = certificate.subject_key_identifier() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.to_vec());
        }
        let authority =
            Self { issuer: Issuer::new(params, key), certificate_pem: certificate_pem.to_owned() };
        // Verifiers compare names byte for byte.
        let probe = authority.sign(&named("probe")?, &KeyPair::generate().map_err(making)?)?;
        let issued = Certificate::parse(probe.der())
            .map_err(|error| AuthorityError::Making(error.to_string()))?;
        if issued.issuer != certificate.subject {
            return Err(no("its name has parts that cannot be copied exactly"));
        }
        Ok(authority)
    }

    /// The authority's private key, PKCS #8 in PEM.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The authority's certificate in PEM: what the parties trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a key and a certificate to a party, for both sides of TLS. `names` are DNS names and
    /// IP addresses; our peers do not compare them, but other software may.
    pub fn issue(
        &self,
        common_name: &str,
        names: &[&str],
        days: u32,
    ) -> Result<Issued, AuthorityError> {
        let mut params = party(common_name, names, days)?;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(making)?;
        let certificate_pem = self.sign(&params, &key)?.pem();
        Ok(Issued { key_pem: Zeroizing::new(key.serialize_pem()), certificate_pem })
    }

    /// Makes an intermediate authority.
    pub fn intermediate(&self, common_name: &str, days: u32) -> Result<Self, AuthorityError> {
        let mut params = authority(common_name, days)?;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(making)?;
        let certificate_pem = self.sign(&params, &key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<rcgen::Certificate, AuthorityError> {
        params.signed_by(key, &self.issuer).map_err(making)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(..)")
    }
}

/// A certificate (PEM) that an identity signs itself, for peers that pin its key.
pub fn self_signed(
    identity: &Identity,
    common_name: &str,
    days: u32,
) -> Result<String, AuthorityError> {
    let key = KeyPair::from_pem(&identity.to_pem()).map_err(making)?;
    let mut params = party(common_name, &[], days)?;
    params.is_ca = IsCa::ExplicitNoCa;
    Ok(params.self_signed(&key).map_err(making)?.pem())
}

/// The issuer's common name and the decimal serial number of a certificate (DER). Joined by a
/// colon, they are what the replaced package calls a party's identity. Two authorities with the
/// same name can give two parties the same identity, so it is only for display.
pub fn certificate_identity(der: &[u8]) -> Result<(String, String), AuthorityError> {
    let certificate = Certificate::parse(der)
        .map_err(|error| AuthorityError::NotACertificate { reason: error.to_string() })?;
    Ok((certificate.issuer_common_name(), certificate.decimal_serial()))
}

/// SHA-256 of the `SubjectPublicKeyInfo` of a certificate (DER): what peers pin.
pub fn certificate_key(der: &[u8]) -> Result<[u8; 32], AuthorityError> {
    let certificate = Certificate::parse(der)
        .map_err(|error| AuthorityError::NotACertificate { reason: error.to_string() })?;
    Ok(certificate.key_id())
}

fn authority(common_name: &str, days: u32) -> Result<CertificateParams, AuthorityError> {
    let mut params = life(named(common_name)?, days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn party(
    common_name: &str,
    names: &[&str],
    days: u32,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = life(named(common_name)?, days)?;
    for name in names {
        let refused = |_| AuthorityError::Name { name: (*name).to_owned() };
        if name.is_empty() {
            return Err(AuthorityError::Name { name: String::new() });
        }
        let one = CertificateParams::new(vec![(*name).to_owned()]).map_err(refused)?;
        params.subject_alt_names.extend(one.subject_alt_names);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn named(common_name: &str) -> Result<CertificateParams, AuthorityError> {
    let characters = common_name.chars().count();
    if !(1..=LONGEST_COMMON_NAME).contains(&characters) || common_name.contains(char::is_control) {
        let name = common_name.chars().take(LONGEST_COMMON_NAME).collect();
        return Err(AuthorityError::Name { name });
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial());
    Ok(params)
}

fn life(mut params: CertificateParams, days: u32) -> Result<CertificateParams, AuthorityError> {
    if !(1..=LONGEST_LIFE_DAYS).contains(&days) {
        return Err(AuthorityError::Days { days });
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CERTIFICATE_BACKDATE;
    params.not_after = now + Duration::from_hours(24) * days;
    Ok(params)
}

/// 126 random bits, positive and of full length.
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    crate::os_rng().fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A name (DER) in a form that rcgen can write again, with the same string types.
fn repeated(name: &[u8]) -> Option<DistinguishedName> {
    let mut repeated = DistinguishedName::new();
    for part in Name::from_der(name).ok()?.iter() {
        let arcs: Vec<u64> = part.oid.arcs().map(u64::from).collect();
        let bytes = part.value.value();
        let text = || std::str::from_utf8(bytes).ok();
        let value = match part.value.tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            Tag::PrintableString => {
                DnValue::PrintableString(PrintableString::try_from(text()?).ok()?)
            }
            Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text()?).ok()?),
            Tag::TeletexString => DnValue::TeletexString(TeletexString::try_from(text()?).ok()?),
            Tag::BmpString => DnValue::BmpString(BmpString::from_utf16be(bytes.to_vec()).ok()?),
            _ => return None,
        };
        repeated.push(DnType::from_oid(&arcs), value);
    }
    Some(repeated)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn making(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Making(error.to_string())
}
