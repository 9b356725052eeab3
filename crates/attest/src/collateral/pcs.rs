//! Collateral as answered by Intel's provisioning service (PCS) and its caches (PCCS), version 4.

use dcap_qvl::{QuoteCollateralV3, intel};
use serde::Deserialize;
use serde_json::value::RawValue;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};

use super::{Collateral, CollateralError, part};
use crate::evidence;
use crate::quote::{self, Quote, Tee};
use crate::refusal::{Matter, Refusal, Stage};

/// Which certification authority issued a platform's PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PckCa {
    /// For single-package platforms.
    Processor,
    /// For multi-package platforms.
    Platform,
}

impl PckCa {
    fn of(certificate: &Certificate) -> Self {
        let name = certificate.tbs_certificate().subject().to_string();
        if name.contains("Processor CA") { Self::Processor } else { Self::Platform }
    }

    /// Its name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Platform => "platform",
        }
    }
}

/// What identifies the collateral to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformId {
    /// The technology of the quote.
    pub tee: Tee,
    /// Family, model, stepping, platform: 6 bytes.
    pub fmspc: Vec<u8>,
    /// Who issued the PCK certificate.
    pub ca: PckCa,
}

impl PlatformId {
    /// Of the platform that a certificate's evidence names, in whatever form it is, for whichever key
    /// and of whatever age: collateral is signed, and says itself which platform it is about.
    pub fn of_certificate(der: &[u8]) -> Result<Self, Refusal> {
        Self::of_chain(&evidence::quote_in(der)?.ok_or_else(Refusal::missing_evidence)?)
    }

    /// Of the platform that a bare quote names, no matter what it is over.
    pub fn of_quote(quote: &[u8]) -> Result<Self, Refusal> {
        Self::of_chain(&Quote::parse(quote::without_padding(quote))?)
    }

    /// Of the platform that a bundle is about, to fetch a newer one.
    pub fn of_collateral(collateral: &Collateral) -> Result<Self, CollateralError> {
        const NAME: &str = "PCK revocation list issuer chain";
        let chain = collateral.bundle().pck_crl_issuer_chain.as_bytes();
        let chain =
            Certificate::load_pem_chain(chain).map_err(|error| part(NAME, error.to_string()))?;
        let ca = chain.first().ok_or_else(|| part(NAME, "it is empty"))?;
        let (tee, fmspc) = (collateral.tee(), collateral.fmspc().to_vec());
        Ok(Self { tee, fmspc, ca: PckCa::of(ca) })
    }

    fn of_chain(quote: &Quote) -> Result<Self, Refusal> {
        let [leaf, ca, _] = quote.chain();
        let unreadable = |error: String| {
            Refusal::new(Stage::Quote, "pck-extension", Matter::Platform)
                .found(format!("a PCK certificate that cannot be read: {error}"))
                .expected("a PCK certificate with FMSPC, issued by a PCK CA")
                .advice("register the peer's platform again")
        };
        let pck =
            intel::parse_pck_extension(leaf).map_err(|error| unreadable(error.to_string()))?;
        let ca = Certificate::from_der(ca).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self { tee: quote.tee(), fmspc: pck.fmspc.to_vec(), ca: PckCa::of(&ca) })
    }
}

/// The answers that make up one bundle; chains are PEM, decoded from their headers.
pub struct Answers {
    /// Body of `tcb`; for TDX, of the route below `tdx`.
    pub tcb_info: String,
    /// `TCB-Info-Issuer-Chain`.
    pub tcb_info_issuer_chain: String,
    /// Body of `qe/identity`; for TDX, of the route below `tdx`.
    pub qe_identity: String,
    /// `SGX-Enclave-Identity-Issuer-Chain`.
    pub qe_identity_issuer_chain: String,
    /// Body of `pckcrl`: DER, or DER in hexadecimal digits.
    pub pck_crl: Vec<u8>,
    /// `SGX-PCK-CRL-Issuer-Chain`.
    pub pck_crl_issuer_chain: String,
    /// Body of `rootcacrl`, or of the root's distribution point, in the same form as `pck_crl`.
    pub root_ca_crl: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed<'a> {
    #[serde(borrow, alias = "enclaveIdentity")]
    tcb_info: &'a RawValue,
    signature: String,
}

impl Collateral {
    /// Assembles answers into a bundle. The signed parts stay exactly the texts that were signed.
    pub fn from_answers(answers: &Answers) -> Result<Self, CollateralError> {
        let signed = |name: &'static str, body: &str| {
            let signed: Signed<'_> =
                serde_json::from_str(body).map_err(|error| part(name, error.to_string()))?;
            let signature = hex::decode(&signed.signature)
                .map_err(|_| part(name, "a signature that is not hex"))?;
            Ok::<_, CollateralError>((signed.tcb_info.get().to_owned(), signature))
        };
        let (tcb_info, tcb_info_signature) = signed("TCB info", &answers.tcb_info)?;
        let (qe_identity, qe_identity_signature) = signed("QE identity", &answers.qe_identity)?;
        Self::new(QuoteCollateralV3 {
            pck_crl_issuer_chain: answers.pck_crl_issuer_chain.clone(),
            root_ca_crl: list("root revocation list", &answers.root_ca_crl)?,
            pck_crl: list("PCK revocation list", &answers.pck_crl)?,
            tcb_info_issuer_chain: answers.tcb_info_issuer_chain.clone(),
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain: answers.qe_identity_issuer_chain.clone(),
            qe_identity,
            qe_identity_signature,
            pck_certificate_chain: None,
        })
    }
}

/// Caches answer in hexadecimal digits, Intel's own service in DER.
fn list(name: &'static str, bytes: &[u8]) -> Result<Vec<u8>, CollateralError> {
    const SEQUENCE: u8 = 0x30;
    let text = bytes.trim_ascii();
    if bytes.first() == Some(&SEQUENCE) && !text.iter().all(u8::is_ascii_hexdigit) {
        return Ok(bytes.to_vec());
    }
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    let text = text.strip_suffix(b"\"").unwrap_or(text);
    hex::decode(text).map_err(|_| part(name, "neither DER nor hexadecimal digits"))
}

/// Where, according to the root at the end of a chain (PEM), its revocation list is.
pub fn root_crl_address(chain: &str) -> Option<String> {
    let chain = Certificate::load_pem_chain(chain.as_bytes()).ok()?;
    let root = chain.last()?.tbs_certificate();
    let (_, points) = root.get_extension::<CrlDistributionPoints>().ok()??;
    points.0.iter().find_map(|point| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => names.iter().find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(address) => Some(address.to_string()),
            _ => None,
        }),
        _ => None,
    })
}
