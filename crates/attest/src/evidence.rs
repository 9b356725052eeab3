//! RA-TLS certificates: evidence in, evidence out (interoperable RA-TLS, DICE extension).

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

use crate::claims::{self, Malformed};
use crate::date;
use crate::limits::{
    CERTIFICATE_CLOCK_SLACK_SECONDS, MAXIMUM_CERTIFICATE_BYTES,
    MAXIMUM_CERTIFICATE_LIFETIME_SECONDS,
};
use crate::quote::{self, Quote, Tee};
use crate::refusal::{Matter, Refusal, Stage};
use crate::source::{QuoteError, QuoteSource};
use crate::verdict::Check;

/// The report data that binds a key: SHA-256 of its claims map, then 32 zero bytes.
///
/// `spki` is the DER of the SubjectPublicKeyInfo, not the bare point.
pub fn report_data(spki: &[u8]) -> [u8; 64] {
    over_claims(&claims::claims(spki))
}

/// A certificate extension: not critical, as Gramine marks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The arcs of its object identifier.
    pub oid: &'static [u64],
    /// The bytes inside the extension's OCTET STRING.
    pub value: Vec<u8>,
}

/// The DICE evidence extension for a certificate over this key. The quote must be over
/// [`report_data`] of the same key.
pub fn extension(quote: &[u8], spki: &[u8]) -> Extension {
    Extension { oid: &[2, 23, 133, 5, 4, 9], value: claims::evidence(quote, &claims::claims(spki)) }
}

/// All evidence for a certificate over this key, as Gramine writes it: the DICE extension and, if
/// the source is an SGX enclave, the legacy extension with a quote of its own, which is the only
/// one that Gramine before version 1.8 reads.
pub fn extensions(source: &dyn QuoteSource, spki: &[u8]) -> Result<Vec<Extension>, QuoteError> {
    let quote = source.quote(&report_data(spki))?;
    let legacy = match quote::tee(&quote) {
        Some(Tee::Sgx) => Some(source.quote(&legacy_report_data(spki))?),
        _ => None,
    };
    let legacy = legacy.map(|value| Extension { oid: &GRAMINE_LEGACY, value });
    Ok([extension(&quote, spki)].into_iter().chain(legacy).collect())
}

/// What we accept in a certificate that carries evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRules {
    /// The longest accepted span from `notBefore` to `notAfter`, in seconds. By default
    /// [`MAXIMUM_CERTIFICATE_LIFETIME_SECONDS`] and the clock slack; Gramine's own certificates
    /// live for thirty years.
    pub maximum_lifetime_seconds: u64,
    /// Whether evidence may be what Gramine wrote before version 1.8: its own extension alone, with
    /// a quote over the bare key, which may be an RSA key.
    pub allow_legacy_evidence: bool,
    /// Whether to skip claims other than `pubkey-hash` and `nonce` instead of refusing them.
    /// Skipped claims are shown to nobody.
    pub skip_foreign_claims: bool,
}

impl Default for CertificateRules {
    fn default() -> Self {
        Self {
            maximum_lifetime_seconds: MAXIMUM_CERTIFICATE_LIFETIME_SECONDS
                + CERTIFICATE_CLOCK_SLACK_SECONDS,
            allow_legacy_evidence: false,
            skip_foreign_claims: false,
        }
    }
}

/// A quote taken from a certificate whose key it binds.
///
/// The quote itself is not proven yet: only [`verify`](crate::verify()) can turn it into a verdict.
#[derive(Clone)]
pub struct Evidence {
    quote: Quote,
    /// Empty if the quote binds no key.
    spki: Vec<u8>,
    report_data: [u8; 64],
    not_before: u64,
    not_after: u64,
}

impl Evidence {
    /// Reads the evidence in a certificate under the [default rules](CertificateRules).
    ///
    /// Returns `None` for a certificate without an evidence extension, which is an ordinary
    /// identity certificate. The caller checks that the peer holds the key (TLS
    /// `CertificateVerify`) and sent only this one certificate.
    pub fn from_certificate(der: &[u8], now: u64) -> Result<Option<Self>, Refusal> {
        Self::from_certificate_with(der, now, &CertificateRules::default())
    }

    /// Reads the evidence in a certificate under other rules.
    ///
    /// Checks, in this order: sizes, before anything is parsed; X.509 v3 in DER; a P-256 or P-384
    /// key; at most one DICE extension, in deterministic CBOR; validity at `now` (Unix seconds) and
    /// lifetime; the quote's canonical form; report data = SHA-256(claims) and 32 zero bytes; and
    /// claims that name this certificate's key. A certificate with nothing but a legacy evidence
    /// extension is refused with an error that says so, unless the rules allow it; its quote must
    /// then be over the certificate's key. A legacy extension may accompany the DICE one, as Gramine
    /// writes it; it must then hold a quote of the same enclave over the same key.
    pub fn from_certificate_with(
        der: &[u8],
        now: u64,
        rules: &CertificateRules,
    ) -> Result<Option<Self>, Refusal> {
        let certificate = parse(der)?;
        let Some(value) = evidence_extension(&certificate)? else {
            return Self::from_legacy(&certificate, now, rules);
        };
        let spki = spki(&certificate)?;
        let (not_before, not_after) = validity(&certificate, now, rules)?;
        let (quote, claims) = claims::split(value).map_err(malformed)?;
        let bound = claims::bind(claims, &spki, rules.skip_foreign_claims).map_err(malformed)?;
        if !bound {
            return Err(binding("a claim that does not name the certificate's key"));
        }
        let evidence = Self {
            quote: Quote::parse(quote)?,
            spki,
            report_data: over_claims(claims),
            not_before,
            not_after,
        };
        evidence.check_binding()?;
        if let Some(legacy) = legacy_extension(&certificate)? {
            evidence.agrees_with(&Quote::parse(legacy)?)?;
        }
        Ok(Some(evidence))
    }

    /// Reads a certificate without a DICE extension.
    fn from_legacy(
        certificate: &Certificate,
        now: u64,
        rules: &CertificateRules,
    ) -> Result<Option<Self>, Refusal> {
        if !rules.allow_legacy_evidence {
            return refuse_legacy(certificate).map(|()| None);
        }
        let Some(quote) = legacy_extension(certificate)? else {
            return refuse_legacy(certificate).map(|()| None);
        };
        let spki = match rsa_spki(certificate) {
            Some(rsa) => rsa,
            None => spki(certificate)?,
        };
        let (not_before, not_after) = validity(certificate, now, rules)?;
        let report_data = legacy_report_data(&spki);
        let quote = Quote::parse(quote)?;
        let evidence = Self { quote, spki, report_data, not_before, not_after };
        evidence.check_binding()?;
        Ok(Some(evidence))
    }

    /// Checks that the quote in a legacy evidence extension, over the bare key, agrees with this
    /// one.
    fn agrees_with(&self, legacy: &Quote) -> Result<(), Refusal> {
        let bound = legacy_report_data(&self.spki);
        let same_enclave = legacy.measurements() == self.quote.measurements();
        if same_enclave && bool::from(legacy.report_data().ct_eq(&bound)) {
            return Ok(());
        }
        Err(certificate("evidence-disagrees", Matter::Peer)
            .found(if same_enclave {
                "legacy evidence over a different key from the DICE evidence"
            } else {
                "legacy evidence of a different enclave from the DICE evidence"
            })
            .expected("two quotes of one enclave over the certificate's key")
            .advice("the certificate was assembled by hand: refuse this peer"))
    }

    /// Reads a quote that we requested on a connection whose peer holds the key `spki` (DER).
    ///
    /// The verifier computes `report_data` itself, from everything the quote must be bound to,
    /// including the key. No certificate limits the lifetime of such evidence.
    pub fn from_quote(quote: &[u8], report_data: &[u8; 64], spki: &[u8]) -> Result<Self, Refusal> {
        let evidence = Self {
            quote: Quote::parse(quote)?,
            spki: spki.to_vec(),
            report_data: *report_data,
            not_before: 0,
            not_after: u64::MAX,
        };
        evidence.check_binding()?;
        Ok(evidence)
    }

    /// Reads a quote that somebody has and knows the report data of, such as a quote of another
    /// system. It binds no key here: [`spki`](Self::spki) is empty, in the verdict too, and so it is
    /// no peer's.
    ///
    /// Zeros after the quote, with which a device fills up its buffer, are dropped.
    pub fn from_bare_quote(quote: &[u8], report_data: &[u8; 64]) -> Result<Self, Refusal> {
        Self::from_quote(quote::without_padding(quote), report_data, &[])
    }

    /// The SubjectPublicKeyInfo of the peer's key, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The quote as it arrived.
    pub fn quote(&self) -> &[u8] {
        self.quote.bytes()
    }

    /// When the certificate expires, in Unix seconds; `u64::MAX` without a certificate.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    pub(crate) fn parsed(&self) -> &Quote {
        &self.quote
    }

    /// Checks that the quote's report data is what it must be: over the key, or what the holder of
    /// a bare quote says. Returns the check.
    pub(crate) fn check_binding(&self) -> Result<Check, Refusal> {
        let bound = bool::from(self.quote.report_data().ct_eq(&self.report_data));
        let check = |name, found: String, expected: String| Check { name, found, expected };
        if self.spki.is_empty() {
            let [found, expected] = [self.quote.report_data(), &self.report_data].map(hex::encode);
            return if bound {
                Ok(check("report data", found, expected))
            } else {
                Err(Refusal::new(Stage::KeyBinding, "report-data", Matter::Peer)
                    .found(format!("a quote over {found}"))
                    .expected(format!("one over the report data {expected}"))
                    .advice(
                        "the quote was made for something else: ask whoever made it what it is \
                         over",
                    ))
            };
        }
        if !bound {
            return Err(binding("a quote whose report data does not match this key"));
        }
        let (found, expected) = ("the certificate's key", "the key in the quote's report data");
        Ok(check("key binding", found.to_owned(), expected.to_owned()))
    }

    /// Whether the certificate is valid at `now`.
    pub(crate) fn check_validity(&self, now: u64) -> Result<(), Refusal> {
        window(self.not_before, self.not_after, now)
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("quote_bytes", &self.quote.bytes().len())
            .field("measurement", &hex::encode(self.quote.measurements().measurement()))
            .field("key", &hex::encode(Sha256::digest(&self.spki)))
            .finish_non_exhaustive()
    }
}

/// The SubjectPublicKeyInfo (DER) of a certificate, under the same limits and for the same kinds of
/// keys as evidence: what a pinned identity is compared with. Checks nothing else in the
/// certificate.
pub fn spki_of(certificate_der: &[u8]) -> Result<Vec<u8>, Refusal> {
    spki(&parse(certificate_der)?)
}

/// The quote in a certificate, whatever else is wrong with either: of which platform it says it is.
pub(crate) fn quote_in(certificate_der: &[u8]) -> Result<Option<Quote>, Refusal> {
    let certificate = parse(certificate_der)?;
    let quote = match evidence_extension(&certificate)? {
        Some(value) => Some(claims::split(value).map_err(malformed)?.0),
        None => legacy_extension(&certificate)?,
    };
    quote.map(Quote::parse).transpose()
}

const DICE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.9");
const LEGACY: [(ObjectIdentifier, &str); 3] = [
    (ObjectIdentifier::new_unwrap("0.6.9.42.840.113741.1337.6"), "Gramine before version 1.8"),
    (ObjectIdentifier::new_unwrap("1.2.840.113741.1337.6"), "Gramine's documentation"),
    (ObjectIdentifier::new_unwrap("1.2.840.113741.1"), "CCZoo's own generator"),
];
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
    ObjectIdentifier::new_unwrap("1.3.132.0.34"),
];

/// The constant in Gramine's sources, with its tag and length read as arcs of the identifier.
const GRAMINE_LEGACY: [u64; 8] = [0, 6, 9, 42, 840, 113_741, 1337, 6];

/// The report data of legacy evidence: SHA-256 of the key, then 32 zero bytes.
fn legacy_report_data(spki: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(spki));
    data
}

fn over_claims(claims: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&Sha256::digest(claims));
    data
}

fn parse(der: &[u8]) -> Result<Certificate, Refusal> {
    if der.len() > MAXIMUM_CERTIFICATE_BYTES {
        return Err(certificate("certificate-size", Matter::Peer)
            .found(format!("{} bytes", der.len()))
            .expected(format!("at most {MAXIMUM_CERTIFICATE_BYTES} bytes"))
            .advice("no attested certificate is that long: check who is answering"));
    }
    let malformed = |found: String| {
        certificate("certificate-form", Matter::Peer)
            .found(found)
            .expected("one X.509 version 3 certificate in DER")
            .advice(
                "peers that write version 1 certificates (CCZoo's generator) cannot be accepted",
            )
    };
    let parsed = Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
    if parsed.tbs_certificate().version() != Version::V3 {
        return Err(malformed("an X.509 certificate of an older version".to_owned()));
    }
    Ok(parsed)
}

fn evidence_extension(certificate_: &Certificate) -> Result<Option<&[u8]>, Refusal> {
    let extensions = certificate_.tbs_certificate().extensions().map_or(&[][..], Vec::as_slice);
    let mut dice = extensions.iter().filter(|extension| extension.extn_id == DICE);
    if let Some(first) = dice.next() {
        let more = dice.count();
        if more > 0 {
            return Err(certificate("evidence-extensions", Matter::Peer)
                .found(format!("{} evidence extensions", more + 1))
                .expected("one")
                .advice("the certificate was assembled by hand: refuse this peer"));
        }
        return Ok(Some(first.extn_value.as_bytes()));
    }
    Ok(None)
}

/// Refuses a certificate that has legacy evidence alone.
fn refuse_legacy(certificate_: &Certificate) -> Result<(), Refusal> {
    let extensions = certificate_.tbs_certificate().extensions().map_or(&[][..], Vec::as_slice);
    for (oid, writer) in LEGACY {
        if extensions.iter().any(|extension| extension.extn_id == oid) {
            return Err(certificate("legacy-evidence", Matter::Peer)
                .found(format!("a legacy evidence extension {oid} ({writer})"))
                .expected("a DICE evidence extension 2.23.133.5.4.9")
                .advice("upgrade the peer to Gramine 1.8 or later, which writes both"));
        }
    }
    Ok(())
}

/// The SubjectPublicKeyInfo (DER) of an RSA key.
fn rsa_spki(certificate_: &Certificate) -> Option<Vec<u8>> {
    let info = certificate_.tbs_certificate().subject_public_key_info();
    if info.algorithm.oid == RSA { info.to_der().ok() } else { None }
}

/// Gramine's legacy evidence; a certificate has at most one such extension.
fn legacy_extension(certificate_: &Certificate) -> Result<Option<&[u8]>, Refusal> {
    let extensions = certificate_.tbs_certificate().extensions().map_or(&[][..], Vec::as_slice);
    let gramine = [LEGACY[0].0, LEGACY[1].0];
    let mut legacy = extensions.iter().filter(|extension| gramine.contains(&extension.extn_id));
    let first = legacy.next();
    match legacy.count() {
        0 => Ok(first.map(|extension| extension.extn_value.as_bytes())),
        more => Err(certificate("evidence-extensions", Matter::Peer)
            .found(format!("{} legacy evidence extensions", more + 1))
            .expected("one")
            .advice("the certificate was assembled by hand: refuse this peer")),
    }
}

fn spki(certificate_: &Certificate) -> Result<Vec<u8>, Refusal> {
    let info = certificate_.tbs_certificate().subject_public_key_info();
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    if info.algorithm.oid != EC_PUBLIC_KEY || !curve.is_some_and(|curve| CURVES.contains(&curve)) {
        return Err(certificate("key-type", Matter::Peer)
            .found(format!("a key of algorithm {}", info.algorithm.oid))
            .expected("an ECDSA key on P-256 or P-384")
            .advice("peers on Gramine 1.3 and older use RSA: upgrade them"));
    }
    info.to_der().map_err(|error| {
        certificate("certificate-form", Matter::Peer)
            .found(error.to_string())
            .expected("a public key that can be encoded")
            .advice("check who is answering")
    })
}

fn validity(
    certificate_: &Certificate,
    now: u64,
    rules: &CertificateRules,
) -> Result<(u64, u64), Refusal> {
    let validity = certificate_.tbs_certificate().validity();
    let not_before = validity.not_before.to_unix_duration().as_secs();
    let not_after = validity.not_after.to_unix_duration().as_secs();
    window(not_before, not_after, now)?;
    let lifetime = not_after - not_before;
    if lifetime > rules.maximum_lifetime_seconds {
        return Err(certificate("certificate-lifetime", Matter::Peer)
            .found(format!("a certificate valid for {}", date::span(lifetime)))
            .expected(format!("at most {}", date::span(rules.maximum_lifetime_seconds)))
            .advice("a stolen key stays dangerous that long: have the peer issue shorter ones"));
    }
    Ok((not_before, not_after))
}

fn window(not_before: u64, not_after: u64, now: u64) -> Result<(), Refusal> {
    if now < not_before {
        return Err(certificate("certificate-not-yet-valid", Matter::Clock)
            .found(format!("a certificate not valid before {}", date::show(not_before)))
            .expected(format!("one valid now, at {}", date::show(now)))
            .advice(format!(
                "compare the clocks: it is early by {}",
                date::span(not_before - now)
            )));
    }
    if now > not_after {
        return Err(certificate("certificate-expired", Matter::Clock)
            .found(format!("a certificate that expired at {}", date::show(not_after)))
            .expected(format!("one valid now, at {}", date::show(now)))
            .advice(format!(
                "it expired {} ago: restart the peer, or compare the clocks",
                date::span(now - not_after)
            )));
    }
    Ok(())
}

fn malformed(what: Malformed) -> Refusal {
    match what {
        Malformed::Form(found) => certificate("evidence-form", Matter::Peer)
            .found(found)
            .expected("tag 60000 [quote, claims] in deterministic CBOR")
            .advice("the peer uses another format: upgrade it or refuse it"),
        Malformed::QuoteSize(bytes) => Refusal::new(Stage::Quote, "quote-size", Matter::Peer)
            .found(format!("a quote of {bytes} bytes"))
            .expected(format!("at most {} bytes", crate::limits::MAXIMUM_QUOTE_BYTES))
            .advice("no genuine platform makes such a quote: check who is answering"),
        Malformed::UnknownClaim(name) => certificate("unknown-claim", Matter::Peer)
            .found(format!("a claim named '{name:#}'"))
            .expected("only pubkey-hash and, optionally, nonce")
            .advice(
                "the claim would be bound but not understood: refuse the peer, or skip foreign claims",
            ),
        Malformed::NoPubkeyHash => Refusal::new(Stage::KeyBinding, "no-pubkey-hash", Matter::Peer)
            .found("claims without a pubkey-hash")
            .expected("a pubkey-hash of the certificate's key")
            .advice("the quote is bound to no key, so anybody could show it: refuse this peer"),
    }
}

fn binding(found: &str) -> Refusal {
    Refusal::new(Stage::KeyBinding, "key-binding", Matter::Peer)
        .found(found)
        .expected("a quote whose report data binds the peer's key (RA-TLS: SHA-256 of its claims)")
        .advice("the evidence belongs to another key and may be stolen: refuse this peer")
}

fn certificate(code: &'static str, matter: Matter) -> Refusal {
    Refusal::new(Stage::Certificate, code, matter)
}
