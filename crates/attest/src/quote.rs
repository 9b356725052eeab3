//! The one accepted form of a quote: SGX version 3 (Intel SGX ECDSA QuoteLibReference, appendix A),
//! TDX versions 4 and 5 (Intel TDX DCAP Quoting Library API, appendix A).
//!
//! ```text
//! SGX 3   header 48 | enclave report 384 | u32 length of the rest
//!           signature 64 | attestation key 64 | QE part
//! TDX 4   header 48 | TD report 584 | u32 length of the rest
//!           signature 64 | attestation key 64 | u16 6 | u32 length | QE part
//! TDX 5   as 4, with u16 type | u32 length before the TD report: 2 is 584 bytes, 3 is 648, 4 is 885
//! QE part QE report 384 | QE report signature 64
//!           u16 32 | authentication data 32 | u16 5 | u32 length | three PEM certificates | NUL
//! ```
//!
//! Integers are little-endian. Every byte string that parses here has exactly one reading: lengths
//! are exact, nothing follows, and the certificates equal their own re-encoding. `dcap-qvl` is more
//! liberal: two quotes that differ only in slack bytes are equally valid to it, which breaks caches
//! and audits that compare bytes. What a device returned, and only that, may have zeros after it,
//! which are dropped first.

pub(crate) mod sgx;
pub(crate) mod td;

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::pem::{self, LineEnding};

use crate::limits::MAXIMUM_QUOTE_BYTES;
use crate::measurements::Measurements;
use crate::refusal::{Matter, Refusal, Stage};

/// The technology that isolates a program from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tee {
    /// Intel SGX: an enclave, part of a process.
    Sgx,
    /// Intel TDX: a trust domain, a whole virtual machine.
    Tdx,
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sgx => "SGX",
            Self::Tdx => "TDX",
        })
    }
}

/// A quote in canonical form. Nothing in it is proven yet.
#[derive(Clone)]
pub(crate) struct Quote {
    bytes: Vec<u8>,
    version: u16,
    report: Box<Report>,
    chain: [Vec<u8>; 3],
}

/// What the hardware reports about the program that asked for the quote.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "beside a quote of thousands of bytes")]
pub(crate) enum Report {
    Sgx(sgx::Report),
    Tdx(td::Report),
}

impl Quote {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAXIMUM_QUOTE_BYTES {
            return Err(Refusal::new(Stage::Quote, "quote-size", Matter::Peer)
                .found(format!("a quote of {} bytes", bytes.len()))
                .expected(format!("at most {MAXIMUM_QUOTE_BYTES} bytes"))
                .advice("no genuine platform makes such a quote: check who is answering"));
        }
        let frame = Frame::of(bytes)?;
        let short = || form("a quote that ends before its signature");
        let body = bytes.get(frame.report.clone()).ok_or_else(short)?;
        let rest = bytes.get(frame.report.end..).ok_or_else(short)?;
        let rest = exactly("signature data", rest)?;
        let qe = match frame.tee {
            Tee::Sgx => rest.get(SIGNATURE..).ok_or_else(short)?,
            Tee::Tdx => enclosed(rest.get(SIGNATURE..).ok_or_else(short)?)?,
        };
        Ok(Self {
            bytes: bytes.to_vec(),
            version: frame.version,
            report: Box::new(match frame.tee {
                Tee::Sgx => Report::Sgx(sgx::Report::of(body)),
                Tee::Tdx => Report::Tdx(td::Report::of(body)),
            }),
            chain: certificates(certification_data(qe)?)?,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn version(&self) -> u16 {
        self.version
    }

    pub(crate) fn tee(&self) -> Tee {
        match *self.report {
            Report::Sgx(_) => Tee::Sgx,
            Report::Tdx(_) => Tee::Tdx,
        }
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// The certificates inside the quote, DER: PCK leaf, its CA, root.
    pub(crate) fn chain(&self) -> &[Vec<u8>; 3] {
        &self.chain
    }

    /// What program the report is about.
    pub(crate) fn measurements(&self) -> Measurements {
        match &*self.report {
            Report::Sgx(report) => Measurements::Sgx(report.enclave.clone()),
            Report::Tdx(report) => Measurements::Tdx(report.domain.clone()),
        }
    }

    pub(crate) fn report_data(&self) -> &[u8; 64] {
        match &*self.report {
            Report::Sgx(report) => &report.report_data,
            Report::Tdx(report) => &report.report_data,
        }
    }
}

/// The technology of a quote, if its kind is known.
pub(crate) fn tee(quote: &[u8]) -> Option<Tee> {
    Frame::of(quote).ok().map(|frame| frame.tee)
}

/// The report data of what a device returned, if that is a quote of a known kind.
pub(crate) fn report_data(quote: &[u8]) -> Option<&[u8]> {
    let frame = Frame::of(quote).ok()?;
    let report = quote.get(frame.report)?;
    let at = match frame.tee {
        Tee::Sgx => sgx::REPORT_DATA,
        Tee::Tdx => td::REPORT_DATA,
    };
    report.get(at..at + 64)
}

/// A quote without the zeros with which a device, or its driver, fills up its buffer. Anything else
/// after the quote stays, and is refused when it is parsed.
pub(crate) fn without_padding(quote: &[u8]) -> &[u8] {
    match declared_length(quote).and_then(|length| quote.split_at_checked(length)) {
        Some((quote, rest)) if rest.iter().all(|byte| *byte == 0) => quote,
        _ => quote,
    }
}

/// How long a quote claims to be.
fn declared_length(quote: &[u8]) -> Option<usize> {
    let end = Frame::of(quote).ok()?.report.end;
    let length = u32::from_le_bytes(quote.get(end..end + 4)?.try_into().ok()?);
    (end + 4).checked_add(usize::try_from(length).ok()?)
}

/// Version, kind, and where the report is.
struct Frame {
    version: u16,
    tee: Tee,
    report: Range<usize>,
}

const HEADER: usize = 48;
const SIGNATURE: usize = 64 + 64;
const TD_BODY_HEADER: usize = 6;
const QE_AUTH_LENGTH: usize = 384 + 64;
const QE_AUTH_BYTES: u16 = 32;
const CERTIFICATION: usize = QE_AUTH_LENGTH + 2 + QE_AUTH_BYTES as usize;
const PCK_CERTIFICATE_CHAIN: u16 = 5;
const QE_REPORT: u16 = 6;
const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
const INTEL_QE: [u8; 16] = [
    0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07,
];
const END: &str = "-----END CERTIFICATE-----\n";

impl Frame {
    /// Refuses every kind of quote except those above, signed with P-256 by Intel's quoting
    /// enclaves.
    fn of(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() < HEADER {
            return Err(form(format!("{} bytes", bytes.len())));
        }
        let (version, key, tee) = (u16_at(bytes, 0), u16_at(bytes, 2), u32_at(bytes, 4));
        let (tee, report) = match (version, tee) {
            (3, TEE_SGX) => (Tee::Sgx, HEADER..HEADER + sgx::BYTES),
            (4, TEE_TDX) => (Tee::Tdx, HEADER..HEADER + td::BYTES_1_0),
            (5, TEE_TDX) => {
                let body = bytes.get(HEADER..HEADER + TD_BODY_HEADER);
                let body = body.ok_or_else(|| form("a quote that ends before its report"))?;
                let (kind, declared) = (u16_at(body, 0), u32_at(body, 2));
                let length = td::length(kind)
                    .filter(|length| u32::try_from(*length) == Ok(declared))
                    .ok_or_else(|| form(format!("a body of type {kind} and {declared} bytes")))?;
                let start = HEADER + TD_BODY_HEADER;
                (Tee::Tdx, start..start + length)
            }
            (_, other) => {
                let tee = match other {
                    TEE_SGX => "an SGX".to_owned(),
                    TEE_TDX => "a TDX".to_owned(),
                    other => format!("a TEE {other:#x}"),
                };
                return Err(Refusal::new(Stage::Quote, "quote-type", Matter::Peer)
                    .found(format!("{tee} quote of version {version}"))
                    .expected("an SGX quote of version 3, or a TDX quote of version 4 or 5")
                    .advice("this version verifies no other kinds"));
            }
        };
        if key != ECDSA_P256 {
            return Err(form(format!("attestation key type {key} instead of 2 (ECDSA P-256)")));
        }
        if bytes[12..28] != INTEL_QE {
            return Err(form("a quoting enclave from a vendor other than Intel"));
        }
        Ok(Self { version, tee, report })
    }
}

/// What follows a four-byte length, which must match exactly.
fn exactly<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
    let (length, rest) =
        bytes.split_at_checked(4).ok_or_else(|| form(format!("{name} without its length")))?;
    let declared = usize::try_from(u32_at(length, 0)).unwrap_or(usize::MAX);
    if rest.len() != declared {
        return Err(form(format!(
            "{} bytes of {name} where the quote declares {declared}",
            rest.len()
        )));
    }
    Ok(rest)
}

/// The quoting enclave's part of the certification data of a TDX quote.
fn enclosed(data: &[u8]) -> Result<&[u8], Refusal> {
    let (kind, rest) =
        data.split_at_checked(2).ok_or_else(|| form("signature data that ends too early"))?;
    let kind = u16_at(kind, 0);
    if kind != QE_REPORT {
        return Err(certification_type(kind, "type 6 (the QE report is inside the quote)"));
    }
    exactly("certification data", rest)
}

/// The PEM chain inside the quoting enclave's part, with all lengths exact.
fn certification_data(qe: &[u8]) -> Result<&[u8], Refusal> {
    let short = || form("signature data that ends too early");
    let rest = qe.get(CERTIFICATION + 2..).ok_or_else(short)?;
    let qe_auth = u16_at(qe, QE_AUTH_LENGTH);
    if qe_auth != QE_AUTH_BYTES {
        return Err(form(format!("{qe_auth} bytes of QE authentication data instead of 32")));
    }
    let kind = u16_at(qe, CERTIFICATION);
    if kind != PCK_CERTIFICATE_CHAIN {
        return Err(certification_type(
            kind,
            "type 5 (the PCK certificate chain is inside the quote)",
        ));
    }
    exactly("certificates", rest)
}

/// Decodes exactly three certificates in the one canonical PEM form, and a NUL.
fn certificates(pem: &[u8]) -> Result<[Vec<u8>; 3], Refusal> {
    let text = pem
        .strip_suffix(&[0])
        .and_then(|text| std::str::from_utf8(text).ok())
        .ok_or_else(|| form("a certificate chain that is not text with one NUL after it"))?;
    let ders: Vec<Vec<u8>> =
        text.split_inclusive(END).map(certificate).collect::<Result<_, _>>()?;
    let count = ders.len();
    ders.try_into().map_err(|_| form(format!("{count} certificates instead of 3")))
}

fn certificate(part: &str) -> Result<Vec<u8>, Refusal> {
    let malformed = || form("a certificate that is not canonical PEM and DER");
    let (label, der) = pem::decode_vec(part.as_bytes()).map_err(|_| malformed())?;
    let again = pem::encode_string("CERTIFICATE", LineEnding::LF, &der).map_err(|_| malformed())?;
    if label != "CERTIFICATE" || again != part || Certificate::from_der(&der).is_err() {
        return Err(malformed());
    }
    Ok(der)
}

fn certification_type(found: u16, expected: &str) -> Refusal {
    Refusal::new(Stage::Quote, "certification-type", Matter::Platform)
        .found(format!("certification data of type {found}"))
        .expected(expected)
        .advice("register the peer's platform with a PCCS so that its quotes carry the chain")
}

fn form(found: impl Into<String>) -> Refusal {
    Refusal::new(Stage::Quote, "quote-form", Matter::Peer)
        .found(found)
        .expected(
            "one canonical quote (SGX v3, TDX v4 or v5) with three certificates and nothing after \
             it",
        )
        .advice(
            "the quote was damaged or altered in transit: fetch it again, check who is answering",
        )
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The `N` bytes at `at` of a report, whose length was checked.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a report has its whole length")
}
