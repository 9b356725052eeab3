//! The signed facts about a platform: TCB info, QE identity, revocation lists.

mod offered;
mod pcs;
mod seen;
mod signatures;

use std::fmt;

use convelo_untrusted::{Untrusted, shown};
use dcap_qvl::{QeIdentity, QuoteCollateralV3, TcbInfo};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlNumber;

use crate::date;
use crate::limits::MAXIMUM_COLLATERAL_BYTES;
use crate::quote::Tee;
use crate::text::json_message;

pub use pcs::{Answers, PckCa, PlatformId, root_crl_address};
pub use seen::{SeenLists, SeenListsError};

/// A collateral bundle, as Intel's provisioning service or a PCCS issued it.
///
/// Reading it parses the parts and their dates, nothing more: signatures are checked when it is
/// used, under the policy's root. The JSON form is that of `dcap-qvl`: PEM issuer chains, hex DER
/// revocation lists, `tcb_info` and `qe_identity` as the exact signed strings with hex raw r||s
/// signatures. Fields that other programs add are [ignored](Self::ignored_fields), also
/// `pck_certificate_chain`: evidence has its own chain, which nothing may replace.
#[derive(Clone)]
pub struct Collateral {
    bundle: QuoteCollateralV3,
    tcb_info: TcbInfo,
    pce_id: Vec<u8>,
    fmspc: Vec<u8>,
    tee: Tee,
    tcb_signer_serial: Vec<u8>,
    root_crl: RevocationList,
    pck_crl: RevocationList,
    parts: [Part; 4],
    digest: [u8; 32],
}

/// Why a bundle could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollateralError {
    /// The bundle is longer than any genuine one.
    #[error("the collateral has {found} bytes, expected at most {MAXIMUM_COLLATERAL_BYTES}")]
    Size {
        /// Its length in bytes.
        found: usize,
    },
    /// The bundle is not the JSON of a collateral bundle.
    #[error("collateral, line {line}, column {column}: {message}; export it again")]
    Json {
        /// 1-based line of the file.
        line: usize,
        /// 1-based column of the file.
        column: usize,
        /// What was wrong there.
        message: String,
    },
    /// A part of the bundle is malformed.
    #[error("the collateral's {part} cannot be used: {message}; export it again")]
    Part {
        /// Which part.
        part: &'static str,
        /// What was wrong with it.
        message: String,
    },
    /// A part of the bundle is signed under another root than the policy's.
    #[error(
        "the collateral's {part} cannot be used: its issuer chain ends in another root, expected the \
         policy's"
    )]
    OtherRoot {
        /// Which part.
        part: &'static str,
    },
    /// The bundle would replace a newer one.
    #[error(
        "the collateral's {part} ({found}) is older than the one we already have ({held}): an \
         older one may hide newer findings"
    )]
    Older {
        /// Which part.
        part: &'static str,
        /// When it was issued, or its number.
        found: String,
        /// When the one we hold was issued, or its number.
        held: String,
    },
}

/// One dated part of a bundle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) issued: u64,
    pub(crate) next_update: u64,
    /// The number of a revocation list. Intel does not raise it: all of its lists have number 1.
    pub(crate) number: Option<u64>,
    /// Whether the policy's maximum age applies. It does not apply to the root's revocation list,
    /// which Intel issues once a year.
    pub(crate) ages: bool,
}

/// What [`Collateral::to_json`] writes.
const FIELDS: [&str; 9] = [
    "pck_crl_issuer_chain",
    "root_ca_crl",
    "pck_crl",
    "tcb_info_issuer_chain",
    "tcb_info",
    "tcb_info_signature",
    "qe_identity_issuer_chain",
    "qe_identity",
    "qe_identity_signature",
];

const ROOT_LIST: &str = "root revocation list";
const PCK_LIST: &str = "PCK revocation list";

#[derive(Clone)]
struct RevocationList {
    issued: u64,
    next_update: u64,
    number: Option<u64>,
    serials: Vec<Vec<u8>>,
}

impl Collateral {
    /// Reads a bundle from its JSON text.
    pub fn from_json(text: &str) -> Result<Self, CollateralError> {
        if text.len() > MAXIMUM_COLLATERAL_BYTES {
            return Err(CollateralError::Size { found: text.len() });
        }
        let bundle = serde_json::from_str(text).map_err(|error| CollateralError::Json {
            line: error.line(),
            column: error.column(),
            message: json_message(&error),
        })?;
        Self::new(bundle)
    }

    /// Reads a bundle from its parts.
    pub fn new(mut bundle: QuoteCollateralV3) -> Result<Self, CollateralError> {
        // The verifying library would take it in place of the quote's own.
        bundle.pck_certificate_chain = None;
        let tcb_info: TcbInfo = json("TCB info", &bundle.tcb_info)?;
        let qe_identity: QeIdentity = json("QE identity", &bundle.qe_identity)?;
        let tee = match (tcb_info.id.as_str(), qe_identity.id.as_str()) {
            ("SGX", "QE") => Tee::Sgx,
            ("TDX", "TD_QE") => Tee::Tdx,
            (tcb, qe) => {
                let (qe, tcb) = (Untrusted::new(qe), Untrusted::new(tcb));
                let message = format!("a QE identity {qe} beside a TCB info {tcb}");
                return Err(part("QE identity", message));
            }
        };
        // TCB info levels are sorted before one is chosen; here the first match is taken.
        if !qe_identity.tcb_levels.is_sorted_by(|a, b| a.tcb.isvsvn > b.tcb.isvsvn) {
            return Err(part("QE identity", "its levels are not in descending order"));
        }
        let root_crl = RevocationList::parse(ROOT_LIST, &bundle.root_ca_crl)?;
        let pck_crl = RevocationList::parse(PCK_LIST, &bundle.pck_crl)?;
        let parts = [
            Part {
                name: "TCB info",
                issued: day("TCB info", &tcb_info.issue_date)?,
                next_update: day("TCB info", &tcb_info.next_update)?,
                number: None,
                ages: true,
            },
            Part {
                name: "QE identity",
                issued: day("QE identity", &qe_identity.issue_date)?,
                next_update: day("QE identity", &qe_identity.next_update)?,
                number: None,
                ages: true,
            },
            pck_crl.part(PCK_LIST, true),
            root_crl.part(ROOT_LIST, false),
        ];
        Ok(Self {
            pce_id: bytes("TCB info", &tcb_info.pce_id)?,
            fmspc: bytes("TCB info", &tcb_info.fmspc)?,
            tee,
            tcb_signer_serial: signer_serial(&bundle.tcb_info_issuer_chain)?,
            digest: Sha256::digest(encode(&bundle)).into(),
            bundle,
            tcb_info,
            root_crl,
            pck_crl,
            parts,
        })
    }

    /// The fields of a bundle's JSON text that nothing here reads: those that other programs add.
    pub fn ignored_fields(text: &str) -> Vec<Untrusted> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).unwrap_or_default();
        let others = fields.into_iter().map(|(name, _)| name);
        let others = others.filter(|name| !FIELDS.contains(&name.as_str()));
        others.map(Untrusted::new).collect()
    }

    /// The JSON text that [`from_json`](Self::from_json) reads.
    pub fn to_json(&self) -> String {
        encode(&self.bundle)
    }

    /// SHA-256 of [`to_json`](Self::to_json), for receipts.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The family-model-stepping-platform (FMSPC) that the bundle is about.
    pub fn fmspc(&self) -> &[u8] {
        &self.fmspc
    }

    /// The technology that the bundle is about: a platform with both has one bundle for each.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// The oldest issue date among the parts that age, in Unix seconds.
    pub fn issued(&self) -> u64 {
        self.parts.iter().filter(|part| part.ages).map(|part| part.issued).min().unwrap_or(0)
    }

    /// The earliest expiry date among the parts, in Unix seconds.
    pub fn expires(&self) -> u64 {
        self.parts.iter().map(|part| part.next_update).min().unwrap_or(0)
    }

    pub(crate) fn bundle(&self) -> &QuoteCollateralV3 {
        &self.bundle
    }

    pub(crate) fn tcb_info(&self) -> &TcbInfo {
        &self.tcb_info
    }

    pub(crate) fn pce_id(&self) -> &[u8] {
        &self.pce_id
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The root's revocation list.
    pub(crate) fn root_list(&self) -> Part {
        self.root_crl.part(ROOT_LIST, false)
    }

    /// The revocation list of the authority that issues PCK certificates.
    pub(crate) fn pck_list(&self) -> Part {
        self.pck_crl.part(PCK_LIST, true)
    }

    /// Whether the PCK revocation list names this serial number.
    pub(crate) fn revokes_pck(&self, serial: &[u8]) -> bool {
        self.pck_crl.names(serial)
    }

    /// Whether the root's revocation list names this serial number.
    pub(crate) fn revokes_ca(&self, serial: &[u8]) -> bool {
        self.root_crl.names(serial)
    }

    /// Whether the root's revocation list names the signer of the TCB info.
    pub(crate) fn revokes_tcb_signer(&self) -> bool {
        self.root_crl.names(&self.tcb_signer_serial)
    }
}

impl fmt::Debug for Collateral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collateral")
            .field("fmspc", &hex::encode(&self.fmspc))
            .field("issued", &date::show(self.issued()))
            .field("expires", &date::show(self.expires()))
            .finish_non_exhaustive()
    }
}

impl RevocationList {
    fn parse(name: &'static str, der: &[u8]) -> Result<Self, CollateralError> {
        let list = CertificateList::<Rfc5280>::from_der(der)
            .map_err(|error| part(name, error.to_string()))?
            .tbs_cert_list;
        let next_update = list.next_update.ok_or_else(|| part(name, "it has no next update"))?;
        let number = list.crl_extensions.iter().flatten();
        let mut number = number.filter(|extension| extension.extn_id == CrlNumber::OID);
        let number = number.next().map(|extension| number_of(name, extension)).transpose()?;
        Ok(Self {
            issued: list.this_update.to_unix_duration().as_secs(),
            next_update: next_update.to_unix_duration().as_secs(),
            number,
            serials: list
                .revoked_certificates
                .unwrap_or_default()
                .iter()
                .map(|revoked| revoked.serial_number.as_bytes().to_vec())
                .collect(),
        })
    }

    fn part(&self, name: &'static str, ages: bool) -> Part {
        let Self { issued, next_update, number, .. } = *self;
        Part { name, issued, next_update, number, ages }
    }

    fn names(&self, serial: &[u8]) -> bool {
        self.serials.iter().any(|revoked| revoked == serial)
    }
}

fn number_of(name: &'static str, extension: &Extension) -> Result<u64, CollateralError> {
    let number = CrlNumber::from_der(extension.extn_value.as_bytes())
        .map_err(|error| part(name, format!("its number: {error}")))?;
    let bytes = number.0.as_bytes();
    let fits = bytes.len() <= size_of::<u64>();
    fits.then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        .ok_or_else(|| part(name, "a number of 2^64 or more"))
}

fn encode(bundle: &QuoteCollateralV3) -> String {
    serde_json::to_string(bundle).expect("strings and bytes are always JSON")
}

fn json<T: serde::de::DeserializeOwned>(
    name: &'static str,
    text: &str,
) -> Result<T, CollateralError> {
    serde_json::from_str(text).map_err(|error| part(name, json_message(&error)))
}

fn day(name: &'static str, text: &str) -> Result<u64, CollateralError> {
    date::parse(text).ok_or_else(|| part(name, "a date that is not YYYY-MM-DDThh:mm:ssZ"))
}

fn bytes(name: &'static str, text: &str) -> Result<Vec<u8>, CollateralError> {
    hex::decode(text).map_err(|_| part(name, "an identifier that is not hex"))
}

fn signer_serial(chain: &str) -> Result<Vec<u8>, CollateralError> {
    const NAME: &str = "TCB info issuer chain";
    let chain = Certificate::load_pem_chain(chain.as_bytes())
        .map_err(|error| part(NAME, error.to_string()))?;
    let signer = chain.first().ok_or_else(|| part(NAME, "it is empty"))?;
    Ok(signer.tbs_certificate().serial_number().as_bytes().to_vec())
}

fn part(part: &'static str, message: impl AsRef<str>) -> CollateralError {
    CollateralError::Part { part, message: shown(message.as_ref()) }
}
