//! The one accepted form of an SGX quote, version 3 (Intel SGX ECDSA QuoteLibReference, appendix A).
//!
//! ```text
//! header 48 | report 384 | u32 length of the rest
//!   signature 64 | attestation key 64 | QE report 384 | QE report signature 64
//!   u16 32 | authentication data 32 | u16 5 | u32 length | three PEM certificates | NUL
//! ```
//!
//! Integers are little-endian. Each byte string that parses here has exactly one reading: lengths
//! are exact, nothing follows, and the certificates equal their own re-encoding. `dcap-qvl` is more
//! liberal; two quotes that differ in slack bytes alone would be equally valid to it, which breaks
//! caches and audits that compare bytes.

use std::ops::Range;

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::pem::{self, LineEnding};

use crate::limits::MAXIMUM_QUOTE_BYTES;
use crate::refusal::{Matter, Refusal, Stage};

/// Where the report data of an SGX v3 quote lies.
pub(crate) const REPORT_DATA: Range<usize> = 368..432;

/// ATTRIBUTES.FLAGS of an SGX enclave (Intel SDM volume 3D, 38.7.1).
pub(crate) mod flags {
    pub(crate) const INIT: u64 = 0x01;
    pub(crate) const DEBUG: u64 = 0x02;
    pub(crate) const MODE64: u64 = 0x04;
    pub(crate) const PROVISION_KEY: u64 = 0x10;
    pub(crate) const EINITTOKEN_KEY: u64 = 0x20;
}

/// A quote in canonical form. Nothing in it is proven yet.
#[derive(Clone)]
pub(crate) struct Quote {
    bytes: Vec<u8>,
    chain: [Vec<u8>; 3],
}

impl Quote {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAXIMUM_QUOTE_BYTES {
            return Err(Refusal::new(Stage::Quote, "quote-size", Matter::Peer)
                .found(format!("a quote of {} bytes", bytes.len()))
                .required(format!("at most {MAXIMUM_QUOTE_BYTES} bytes"))
                .advice("this is no quote of a genuine platform: check who answers"));
        }
        kind(bytes)?;
        let rest =
            bytes.get(AUTH..).ok_or_else(|| form("a quote that ends before its signature"))?;
        let declared = usize::try_from(u32_at(bytes, AUTH_LENGTH)).unwrap_or(usize::MAX);
        if rest.len() != declared {
            return Err(form(format!(
                "{} bytes of signature data where the quote declares {declared}",
                rest.len()
            )));
        }
        let pem = certification_data(rest)?;
        let chain = certificates(pem)?;
        Ok(Self { bytes: bytes.to_vec(), chain })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The certificates that the quote carries, DER: PCK leaf, its CA, root.
    pub(crate) fn chain(&self) -> &[Vec<u8>; 3] {
        &self.chain
    }

    pub(crate) fn flags(&self) -> u64 {
        u64::from_le_bytes(self.array(ATTRIBUTES))
    }

    pub(crate) fn mr_enclave(&self) -> [u8; 32] {
        self.array(MR_ENCLAVE)
    }

    pub(crate) fn mr_signer(&self) -> [u8; 32] {
        self.array(MR_SIGNER)
    }

    pub(crate) fn isv_prod_id(&self) -> u16 {
        u16::from_le_bytes(self.array(ISV_PROD_ID))
    }

    pub(crate) fn isv_svn(&self) -> u16 {
        u16::from_le_bytes(self.array(ISV_SVN))
    }

    pub(crate) fn report_data(&self) -> [u8; 64] {
        self.array(REPORT_DATA.start)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("parse saw a whole header and report")
    }
}

const HEADER: usize = 48;
const ATTRIBUTES: usize = HEADER + 48;
const MR_ENCLAVE: usize = HEADER + 64;
const MR_SIGNER: usize = HEADER + 128;
const ISV_PROD_ID: usize = HEADER + 256;
const ISV_SVN: usize = HEADER + 258;
const AUTH_LENGTH: usize = HEADER + 384;
const AUTH: usize = AUTH_LENGTH + 4;
const QE_AUTH_LENGTH: usize = 64 + 64 + 384 + 64;
const QE_AUTH_BYTES: u16 = 32;
const CERTIFICATION: usize = QE_AUTH_LENGTH + 2 + QE_AUTH_BYTES as usize;
const PEM: usize = CERTIFICATION + 2 + 4;
const PCK_CERTIFICATE_CHAIN: u16 = 5;
const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
const INTEL_QE: [u8; 16] = [
    0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07,
];
const END: &str = "-----END CERTIFICATE-----\n";

/// Refuses every kind of quote but SGX v3, signed with P-256 by Intel's quoting enclave.
fn kind(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.len() < HEADER {
        return Err(form(format!("{} bytes", bytes.len())));
    }
    let (version, key, tee) = (u16_at(bytes, 0), u16_at(bytes, 2), u32_at(bytes, 4));
    if (version, tee) != (3, TEE_SGX) {
        let tee = match tee {
            TEE_SGX => "an SGX".to_owned(),
            TEE_TDX => "a TDX".to_owned(),
            other => format!("a TEE {other:#x}"),
        };
        return Err(Refusal::new(Stage::Quote, "quote-type", Matter::Peer)
            .found(format!("{tee} quote of version {version}"))
            .required("an SGX quote of version 3")
            .advice("this version verifies SGX v3 only; TDX and others are not supported yet"));
    }
    if key != ECDSA_P256 {
        return Err(form(format!("attestation key type {key} instead of 2 (ECDSA P-256)")));
    }
    if bytes[12..28] != INTEL_QE {
        return Err(form("a quoting enclave of a vendor that is not Intel"));
    }
    Ok(())
}

/// The PEM chain inside the signature data, all lengths exact.
fn certification_data(auth: &[u8]) -> Result<&[u8], Refusal> {
    let pem = auth.get(PEM..).ok_or_else(|| form("signature data that ends too early"))?;
    let qe_auth = u16_at(auth, QE_AUTH_LENGTH);
    if qe_auth != QE_AUTH_BYTES {
        return Err(form(format!("{qe_auth} bytes of QE authentication data instead of 32")));
    }
    let kind = u16_at(auth, CERTIFICATION);
    if kind != PCK_CERTIFICATE_CHAIN {
        return Err(Refusal::new(Stage::Quote, "certification-type", Matter::Platform)
            .found(format!("certification data of type {kind}"))
            .required("type 5 (the PCK certificate chain is inside the quote)")
            .advice(
                "register the peer's platform with a PCCS so that its quotes carry the chain",
            ));
    }
    let declared = usize::try_from(u32_at(auth, CERTIFICATION + 2)).unwrap_or(usize::MAX);
    if pem.len() != declared {
        return Err(form(format!(
            "{} bytes of certificates where the quote declares {declared}",
            pem.len()
        )));
    }
    Ok(pem)
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

fn form(found: impl Into<String>) -> Refusal {
    Refusal::new(Stage::Quote, "quote-form", Matter::Peer)
        .found(found)
        .required("one canonical SGX v3 quote with three certificates and nothing after it")
        .advice("the quote was damaged or altered on its way: fetch it again, check who answers")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
