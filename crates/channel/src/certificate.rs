//! The parts of a certificate that we read: X.509 versions 1 to 3 in DER. webpki has no parser for
//! version 1, and users of the replaced package hold such certificates. Paths are left to webpki.

use convelo_untrusted::{Untrusted, is_plain};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;
use webpki::EndEntityCert;
use x509_cert::der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::{self, Decode, Reader, SliceReader, Tag, TagNumber};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName, SubjectKeyIdentifier};
use x509_cert::name::Name;
use x509_cert::time::Validity;

/// The longest common name, in characters; the rest is cut.
const MAXIMUM_NAME_CHARACTERS: usize = 100;

/// One certificate, with nothing in it verified.
pub(crate) struct Certificate<'a> {
    /// 1, 2 or 3.
    pub(crate) version: u8,
    /// The issuer's name, DER.
    pub(crate) issuer: &'a [u8],
    /// The subject's name, DER.
    pub(crate) subject: &'a [u8],
    /// `SubjectPublicKeyInfo`, DER.
    pub(crate) spki: &'a [u8],
    /// First and last second of its validity, Unix.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    serial: &'a [u8],
    extensions: Vec<Extension>,
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> der::Result<Self> {
        let mut outer = SliceReader::new(bytes)?;
        let (signed, algorithm, signature) = outer.sequence(|reader| {
            let signed = reader.tlv_bytes()?;
            let algorithm = AnyRef::decode(reader)?;
            algorithm.header().tag().assert_eq(Tag::Sequence)?;
            let signature = BitStringRef::decode(reader)?;
            der::Result::Ok((signed, algorithm.value(), signature.raw_bytes()))
        })?;
        outer.finish()?;
        SliceReader::new(signed)?.sequence(|reader| {
            let version = match explicit::<u8>(reader, 0)? {
                None => 1,
                Some(number @ 0..=2) => number + 1,
                Some(_) => return Err(Tag::Integer.value_error().into()),
            };
            let serial = AnyRef::decode(reader)?;
            serial.header().tag().assert_eq(Tag::Integer)?;
            reader.tlv_bytes()?;
            let issuer = reader.tlv_bytes()?;
            let validity = Validity::<x509_cert::certificate::Rfc5280>::decode(reader)?;
            let subject = reader.tlv_bytes()?;
            let spki = reader.tlv_bytes()?;
            // Unique identifiers of version 2: nobody writes or reads them.
            for identifier in [1, 2] {
                if is_next(reader, identifier) {
                    reader.tlv_bytes()?;
                }
            }
            let extensions = explicit::<Vec<Extension>>(reader, 3)?.unwrap_or_default();
            Ok(Self {
                version,
                issuer,
                subject,
                spki,
                not_before: validity.not_before.to_unix_duration().as_secs(),
                not_after: validity.not_after.to_unix_duration().as_secs(),
                serial: serial.value(),
                extensions,
                signed,
                algorithm,
                signature,
            })
        })
    }

    /// SHA-256 of the key's `SubjectPublicKeyInfo`.
    pub(crate) fn key_id(&self) -> [u8; 32] {
        Sha256::digest(self.spki).into()
    }

    /// Whether the certificate names itself as its issuer.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether its key may sign other certificates.
    pub(crate) fn is_authority(&self) -> bool {
        let constraints = self.extension(BasicConstraints::OID);
        let usage = self.extension(KeyUsage::OID);
        constraints
            .is_some_and(|value| BasicConstraints::from_der(value).is_ok_and(|basic| basic.ca))
            && usage.is_none_or(|value| KeyUsage::from_der(value).is_ok_and(|u| u.key_cert_sign()))
    }

    /// The identifier repeated in the certificates that it signs.
    pub(crate) fn subject_key_identifier(&self) -> Option<&[u8]> {
        let value = self.extension(SubjectKeyIdentifier::OID)?;
        Some(<&OctetStringRef>::from_der(value).ok()?.as_bytes())
    }

    /// Whether the certificate, `der`, is for this host, a DNS name or an IP address.
    pub(crate) fn names_host(&self, der: &[u8], host: &str) -> bool {
        if self.extension(SubjectAltName::OID).is_none() {
            return common_name(self.subject).is_some_and(|name| name.eq_ignore_ascii_case(host));
        }
        let Ok(host) = ServerName::try_from(host) else { return false };
        EndEntityCert::try_from(&CertificateDer::from(der))
            .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&host).is_ok())
    }

    /// Whether the key `spki` signed this certificate.
    pub(crate) fn is_signed_by(&self, spki: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let spki = SubjectPublicKeyInfoDer::from(spki);
        let Ok(key) = webpki::RawPublicKeyEntity::try_from(&spki) else {
            return false;
        };
        algorithms
            .all
            .iter()
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.algorithm)
            .any(|algorithm| key.verify_signature(*algorithm, self.signed, self.signature).is_ok())
    }

    /// Key and names in one line, for people; never for a decision.
    pub(crate) fn describe(&self) -> String {
        format!(
            "the key {}, subject '{}', issuer '{}'",
            fingerprint(&self.key_id()),
            shown_name(self.subject),
            shown_name(self.issuer)
        )
    }

    /// The issuer's common name, or its whole name if it has none, without what is not plain.
    pub(crate) fn issuer_common_name(&self) -> String {
        common_name(self.issuer).map_or_else(|| shown_name(self.issuer), |common| plain(&common))
    }

    /// The serial number, decimal.
    pub(crate) fn decimal_serial(&self) -> String {
        decimal(self.serial)
    }

    fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        self.extensions
            .iter()
            .find(|extension| extension.extn_id == oid)
            .map(|extension| extension.extn_value.as_bytes())
    }
}

/// `sha256:` and 64 hex digits.
pub(crate) fn fingerprint(key_id: &[u8; 32]) -> String {
    format!("sha256:{}", hex::encode(key_id))
}

/// The common name in a name (DER).
fn common_name(name: &[u8]) -> Option<String> {
    let name = Name::from_der(name).ok()?;
    let common = name.common_name().ok()??;
    Some(common.value().into_owned())
}

/// A name that its owner chose, for a message that puts it between single quotation marks.
pub(crate) fn shown_name(name: &[u8]) -> String {
    Name::from_der(name).map_or_else(
        |_| "a name that cannot be read".to_owned(),
        |name| format!("{:#}", Untrusted::new(name.to_string())),
    )
}

/// A point in time, for people.
pub(crate) fn shown_time(unix: u64) -> String {
    i64::try_from(unix)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| {
            time.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC"))
                .ok()
        })
        .unwrap_or_else(|| format!("{unix} seconds after 1970"))
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| is_plain(*c)).take(MAXIMUM_NAME_CHARACTERS).collect()
}

fn is_next<'a>(reader: &impl Reader<'a>, number: u32) -> bool {
    Tag::peek(reader).is_ok_and(|tag| {
        matches!(tag, Tag::ContextSpecific { number: found, .. } if found == TagNumber(number))
    })
}

fn explicit<'a, T>(reader: &mut impl Reader<'a>, number: u32) -> der::Result<Option<T>>
where
    T: Decode<'a, Error = der::Error>,
{
    if !is_next(reader, number) {
        return Ok(None);
    }
    T::from_der(AnyRef::decode(reader)?.value()).map(Some)
}

/// A two's complement number of any length, big-endian, as decimal digits.
fn decimal(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (value, overflow);
        }
    }
    // Least significant digit first.
    let mut digits = vec![0_u8];
    for byte in magnitude {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            let value = u32::from(*digit) * 256 + carry;
            *digit = u8::try_from(value % 10).expect("a digit");
            carry = value / 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).expect("a digit"));
            carry /= 10;
        }
    }
    let sign = if negative { "-" } else { "" };
    sign.chars().chain(digits.iter().rev().map(|digit| char::from(b'0' + digit))).collect()
}

#[cfg(test)]
mod tests {
    use super::{decimal, plain};

    #[test]
    fn serials_of_any_length_and_sign() {
        assert_eq!(decimal(&[]), "0");
        assert_eq!(decimal(&[0]), "0");
        assert_eq!(decimal(&[0, 0x80]), "128");
        assert_eq!(decimal(&[0x80]), "-128");
        assert_eq!(decimal(&[0xff]), "-1");
        assert_eq!(decimal(&[1, 0]), "256");
        let all = [&[0][..], &[0xff; 20]].concat();
        assert_eq!(decimal(&all), "1461501637330902918203684832716283019655932542975");
    }

    #[test]
    fn common_names_are_bounded_and_in_one_line() {
        assert_eq!(plain("a\nb\u{1b}[31m\u{202e}"), "ab[31m");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), 100);
    }
}
