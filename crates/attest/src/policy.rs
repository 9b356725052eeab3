//! What we accept: named measurements, statuses and advisories, one by one.

mod dynamic_config;
mod file;
mod gramine_env;
mod sigstruct;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::pem::{self, LineEnding};

use crate::limits::{DEFAULT_COLLATERAL_AGE_DAYS, MAXIMUM_POLICY_BYTES};
use crate::quote::Quote;
use crate::refusal::{Matter, Refusal, Stage};
use crate::text::position;

use file::File;

/// What is accepted as evidence. Nothing is accepted that is not named.
///
/// ```toml
/// version = 1
/// tcb_statuses = ["UpToDate"]            # default
/// advisories = []                        # default; accepted one by one, e.g. "INTEL-SA-00615"
/// maximum_collateral_age_days = 7        # default; 1 to 30
/// minimum_evaluation_number = 17         # optional: TCB info of an older evaluation is refused
/// platforms = ["64 hex digits"]          # optional: SHA-256 of the accepted platforms' PPIDs
/// # insecure_simulated_root = """-----BEGIN CERTIFICATE-----…"""  # instead of Intel's root
/// [[enclave]]                            # any one of these
/// name = "convelo-service 0.1.0"
/// mr_enclave = "64 hex digits"           # at least one of mr_enclave and mr_signer
/// mr_signer = "64 hex digits"
/// isv_prod_id = 0                        # a number or "any"
/// minimum_isv_svn = 0                    # or isv_svn = 3 for exactly that version
/// ```
///
/// `isv_prod_id` and the security version may be left out beside an `mr_enclave` only: a signer
/// signs many products. An accepted status or advisory is accepted for the platform as a whole.
/// A platform with a named advisory missing, or with keys cached by Intel's registration service,
/// is refused; SMT and multi-package platforms are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    anchor: Anchor,
    tcb_statuses: Vec<TcbStatus>,
    advisories: Vec<String>,
    maximum_collateral_age_days: u64,
    minimum_evaluation_number: Option<u32>,
    platforms: Vec<[u8; 32]>,
    enclaves: Vec<EnclaveRule>,
    warnings: Vec<String>,
}

/// Why a policy was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// 1-based line of the file, where known.
    pub line: Option<usize>,
    /// 1-based column of the file, in characters, where known.
    pub column: Option<usize>,
    /// What was found, what was expected, what to do.
    pub message: String,
}

/// A platform's TCB status, in Intel's words. `Revoked` is not among them: it is never accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TcbStatus {
    /// Everything is current.
    UpToDate,
    /// The enclave's software must mitigate something itself.
    SWHardeningNeeded,
    /// The platform's configuration (BIOS, SMT) must be judged.
    ConfigurationNeeded,
    /// Both of the former.
    ConfigurationAndSWHardeningNeeded,
    /// Firmware or microcode is missing.
    OutOfDate,
    /// Firmware or microcode is missing, and the configuration must be judged.
    OutOfDateConfigurationNeeded,
}

impl Policy {
    /// Reads a policy file. Unknown fields are errors.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        check_size(text)?;
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map(|span| position(text, span.start));
            PolicyError {
                line: at.map(|at| at.0),
                column: at.map(|at| at.1),
                message: error.message().to_owned(),
            }
        })?;
        Ok(file.into())
    }

    /// Reads a policy that stands inside a job, in the form of [`to_json`](Self::to_json).
    pub fn from_json(value: &Value) -> Result<Self, PolicyError> {
        let file =
            File::deserialize(value).map_err(|error| PolicyError::unplaced(error.to_string()))?;
        Ok(file.into())
    }

    /// Reads the `dynamic_config.json` of the replaced system, strictly: where its own reader
    /// guesses, truncates or disables a check, this one refuses the file.
    ///
    /// The file says nothing about the platform, so the default statuses and collateral age apply.
    /// A caller that finds no file must treat that as an error, too.
    pub fn from_dynamic_config(text: &str) -> Result<Self, PolicyError> {
        check_size(text)?;
        let (enclaves, warnings) = dynamic_config::read(text)?;
        Ok(Self { enclaves, warnings, ..Self::of_intels_root() })
    }

    /// Converts the `RA_TLS_*` settings of Gramine's own verifier, given as names and values. Names
    /// that do not begin so are passed over, unknown ones that do are errors.
    ///
    /// `any` for measurement and signer at once, about which Gramine only warns, is an error: there
    /// is no policy that accepts everybody.
    pub fn from_gramine_env<'a>(
        name: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, PolicyError> {
        let found = gramine_env::read(name, settings).map_err(PolicyError::unplaced)?;
        let mut policy = Self::of_enclave(&found.rule)?;
        policy.tcb_statuses.extend(found.statuses);
        policy.tcb_statuses.sort_unstable();
        policy.tcb_statuses.dedup();
        policy.warnings = found.warnings;
        Ok(policy)
    }

    /// Accepts the enclave that a SIGSTRUCT (the `.sig` file of a signed enclave) is about: its
    /// measurement, signer and product, from its security version on.
    pub fn from_sigstruct(name: &str, bytes: &[u8]) -> Result<Self, PolicyError> {
        Self::of_enclave(&sigstruct::read(name, bytes).map_err(PolicyError::unplaced)?)
    }

    /// Accepts one enclave by its measurement and, where given, its signer.
    pub fn from_measurement(
        name: &str,
        mr_enclave: &str,
        mr_signer: Option<&str>,
        isv_prod_id: Option<u16>,
        minimum_isv_svn: u16,
    ) -> Result<Self, PolicyError> {
        Self::of_enclave(&EnclaveRule {
            name: name.to_owned(),
            mr_enclave: Some(measurement(mr_enclave).map_err(PolicyError::unplaced)?),
            mr_signer: mr_signer.map(measurement).transpose().map_err(PolicyError::unplaced)?,
            isv_prod_id,
            isv_svn: Svn::AtLeast(minimum_isv_svn),
        })
    }

    /// A policy of one enclave and of defaults, through the same checks as a file.
    fn of_enclave(rule: &EnclaveRule) -> Result<Self, PolicyError> {
        Self::from_json(&json!({ "version": 1, "enclave": [rule.to_json()] }))
    }

    /// Accepts no enclave; its root is Intel's. For verifying collateral alone.
    pub fn of_intels_root() -> Self {
        Self {
            anchor: Anchor::Intel,
            tcb_statuses: default_statuses(),
            advisories: Vec::new(),
            maximum_collateral_age_days: DEFAULT_COLLATERAL_AGE_DAYS,
            minimum_evaluation_number: None,
            platforms: Vec::new(),
            enclaves: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Accepts evidence of the simulated platform with this root (PEM) *instead of* Intel's. Such
    /// evidence protects nothing; everything shown afterwards says SIMULATED.
    pub fn with_insecure_simulated_root(mut self, pem: &str) -> Result<Self, PolicyError> {
        self.anchor = Anchor::simulated(pem).map_err(PolicyError::unplaced)?;
        Ok(self)
    }

    /// Turns every minimum security version into an exact one, as the replaced system compares it.
    #[must_use]
    pub fn with_exact_isv_svn(mut self) -> Self {
        for enclave in &mut self.enclaves {
            enclave.isv_svn = Svn::Exactly(enclave.isv_svn.number());
        }
        self
    }

    /// The policy as JSON: every field, also those that were left to their default.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "version": 1,
            "tcb_statuses": self.tcb_statuses,
            "advisories": self.advisories,
            "maximum_collateral_age_days": self.maximum_collateral_age_days,
            "enclave": self.enclaves.iter().map(EnclaveRule::to_json).collect::<Vec<_>>(),
        });
        if let Some(number) = self.minimum_evaluation_number {
            value["minimum_evaluation_number"] = number.into();
        }
        if !self.platforms.is_empty() {
            let platforms: Vec<_> = self.platforms.iter().map(hex::encode).collect();
            value["platforms"] = platforms.into();
        }
        if let Anchor::Simulated { der, .. } = &self.anchor {
            value["insecure_simulated_root"] = certificate_to_pem(der).into();
        }
        value
    }

    /// The policy as a file, with a comment for each field.
    pub fn to_toml(&self) -> String {
        let quoted = |items: Vec<&str>| {
            items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
        };
        let statuses = quoted(self.tcb_statuses.iter().map(|status| status.as_str()).collect());
        let advisories = quoted(self.advisories.iter().map(String::as_str).collect());
        let mut lines = vec![
            "# What is accepted as evidence. Nothing is accepted that is not named.".to_owned(),
            "version = 1".to_owned(),
            String::new(),
            "# Statuses of the platform's firmware and microcode, in Intel's words.".to_owned(),
            format!("tcb_statuses = [{statuses}]"),
            "# Intel's advisories that a platform may still be open to, one by one.".to_owned(),
            format!("advisories = [{advisories}]"),
            "# Signed facts about the platform may be this old; 1 to 30.".to_owned(),
            format!("maximum_collateral_age_days = {}", self.maximum_collateral_age_days),
        ];
        if let Some(number) = self.minimum_evaluation_number {
            lines.push("# TCB info of an older evaluation by Intel is refused.".to_owned());
            lines.push(format!("minimum_evaluation_number = {number}"));
        }
        if !self.platforms.is_empty() {
            let platforms: Vec<_> =
                self.platforms.iter().map(|id| format!("\"{}\"", hex::encode(id))).collect();
            lines.push("# Only these machines: SHA-256 of their PPIDs.".to_owned());
            lines.push(format!("platforms = [{}]", platforms.join(", ")));
        }
        if let Anchor::Simulated { der, .. } = &self.anchor {
            lines.push(String::new());
            lines.push(
                "# SIMULATED: a simulated platform instead of Intel's; it protects nothing."
                    .to_owned(),
            );
            lines.push(format!(
                "insecure_simulated_root = \"\"\"\n{}\"\"\"",
                certificate_to_pem(der)
            ));
        }
        lines.extend([String::new(), "# Any one of these enclaves is accepted.".to_owned()]);
        for enclave in &self.enclaves {
            lines.extend(enclave.to_toml());
        }
        lines.join("\n") + "\n"
    }

    /// SHA-256 of the canonical form (RFC 8785) of [`to_json`](Self::to_json).
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(canonical(&self.to_json())).into()
    }

    /// Whether evidence of a simulated platform is accepted (and Intel's is not).
    pub fn is_simulated(&self) -> bool {
        matches!(self.anchor, Anchor::Simulated { .. })
    }

    /// What was odd about the file although it was accepted, one line each, for a person.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the policy accepts, one line each, for a person.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let digest = hex::encode(Sha256::digest(self.anchor.der()));
        if self.is_simulated() {
            lines
                .push("SIMULATED: accepts a simulated platform, which protects nothing".to_owned());
        }
        lines.push(format!("root: {} (SHA-256 {digest})", self.anchor.name()));
        lines.extend(self.enclaves.iter().map(|enclave| format!("enclave: {enclave}")));
        lines.push(format!("TCB status: {}", words(&self.tcb_statuses)));
        lines.push(match self.advisories.as_slice() {
            [] => "advisories: none is accepted".to_owned(),
            some => format!("advisories: {}", some.join(", ")),
        });
        lines.push(format!("collateral: at most {} days old", self.maximum_collateral_age_days));
        if let Some(number) = self.minimum_evaluation_number {
            lines.push(format!("collateral: of evaluation {number} or a later one"));
        }
        if !self.platforms.is_empty() {
            lines.push(format!("platforms: these {} alone", self.platforms.len()));
        }
        lines
    }

    pub(crate) fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    pub(crate) fn tcb_statuses(&self) -> &[TcbStatus] {
        &self.tcb_statuses
    }

    pub(crate) fn advisories(&self) -> &[String] {
        &self.advisories
    }

    pub(crate) fn minimum_evaluation_number(&self) -> Option<u32> {
        self.minimum_evaluation_number
    }

    /// SHA-256 of the PPIDs of the accepted platforms; any where it is empty.
    pub(crate) fn platforms(&self) -> &[[u8; 32]] {
        &self.platforms
    }

    pub(crate) fn maximum_collateral_age(&self) -> u64 {
        self.maximum_collateral_age_days * crate::date::DAY
    }

    /// The first entry that this enclave satisfies, or the refusal by the entry it came closest to.
    pub(crate) fn accepted(&self, quote: &Quote) -> Result<&EnclaveRule, Refusal> {
        let mut closest: Option<Mismatch> = None;
        for rule in &self.enclaves {
            match rule.compare(quote) {
                Ok(()) => return Ok(rule),
                Err(mismatch) => {
                    if closest.as_ref().is_none_or(|best| best.rank < mismatch.rank) {
                        closest = Some(mismatch);
                    }
                }
            }
        }
        let Some(mismatch) = closest else {
            return Err(Refusal::new(Stage::Measurement, "no-enclave", Matter::Policy)
                .found("a policy that names no enclave")
                .required("one that names what is accepted")
                .advice("name the enclave in the policy"));
        };
        let others = match self.enclaves.len() - 1 {
            0 => String::new(),
            others => format!(", or one of the {others} other accepted enclaves"),
        };
        Err(Refusal::new(Stage::Measurement, mismatch.code, Matter::Policy)
            .found(mismatch.found)
            .required(format!("{}{others}", mismatch.required))
            .advice(
                "the peer runs other code than we accept: compare its release with the policy, \
                 and change the policy only after reviewing that release",
            ))
    }
}

impl PolicyError {
    pub(crate) fn unplaced(message: impl Into<String>) -> Self {
        Self { line: None, column: None, message: message.into() }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "policy, line {line}, column {column}: ")?;
        } else {
            f.write_str("policy: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for PolicyError {}

impl TcbStatus {
    /// The status in Intel's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SWHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSWHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
        }
    }

    /// The status that `dcap-qvl` found, if it is one that a policy can accept for SGX.
    pub(crate) fn from_dcap(status: dcap_qvl::TcbStatus) -> Option<Self> {
        use dcap_qvl::TcbStatus as Dcap;
        match status {
            Dcap::UpToDate => Some(Self::UpToDate),
            Dcap::SWHardeningNeeded => Some(Self::SWHardeningNeeded),
            Dcap::ConfigurationNeeded => Some(Self::ConfigurationNeeded),
            Dcap::ConfigurationAndSWHardeningNeeded => {
                Some(Self::ConfigurationAndSWHardeningNeeded)
            }
            Dcap::OutOfDate => Some(Self::OutOfDate),
            Dcap::OutOfDateConfigurationNeeded => Some(Self::OutOfDateConfigurationNeeded),
            Dcap::Revoked
            | Dcap::TDRelaunchAdvised
            | Dcap::TDRelaunchAdvisedConfigurationNeeded => None,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The root that evidence must end in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// Intel SGX Root CA.
    Intel,
    /// A simulated platform's root.
    Simulated { der: Vec<u8>, name: String },
}

impl Anchor {
    pub(crate) fn der(&self) -> &[u8] {
        match self {
            Self::Intel => INTEL_SGX_ROOT_CA,
            Self::Simulated { der, .. } => der,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Intel => "Intel SGX Root CA",
            Self::Simulated { name, .. } => name,
        }
    }

    fn simulated(text: &str) -> Result<Self, String> {
        let (label, der) = pem::decode_vec(text.trim().as_bytes())
            .map_err(|_| "insecure_simulated_root is not one certificate in PEM".to_owned())?;
        if label != "CERTIFICATE" {
            return Err(format!("insecure_simulated_root is a PEM '{label}', not a CERTIFICATE"));
        }
        if der == INTEL_SGX_ROOT_CA {
            return Err("insecure_simulated_root is Intel's own root: leave it out".to_owned());
        }
        let certificate = Certificate::from_der(&der)
            .map_err(|error| format!("insecure_simulated_root is not a certificate: {error}"))?;
        let name = subject(&certificate);
        Ok(Self::Simulated { der, name })
    }
}

/// A certificate's subject for messages: printable, and not longer than a line.
pub(crate) fn subject(certificate: &Certificate) -> String {
    let name = certificate.tbs_certificate().subject().to_string();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// One accepted enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnclaveRule {
    pub(crate) name: String,
    pub(crate) mr_enclave: Option<[u8; 32]>,
    pub(crate) mr_signer: Option<[u8; 32]>,
    pub(crate) isv_prod_id: Option<u16>,
    pub(crate) isv_svn: Svn,
}

/// Which security versions of an enclave are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Svn {
    AtLeast(u16),
    Exactly(u16),
}

struct Mismatch {
    rank: u8,
    code: &'static str,
    found: String,
    required: String,
}

impl EnclaveRule {
    fn compare(&self, quote: &Quote) -> Result<(), Mismatch> {
        let name = &self.name;
        let differs = |rank, code, field: &str, found: String, required: String| Mismatch {
            rank,
            code,
            found: format!("{field} {found}"),
            required: format!("{required} ({name})"),
        };
        if let Some(required) = self.mr_enclave.filter(|required| *required != quote.mr_enclave()) {
            let found = hex::encode(quote.mr_enclave());
            return Err(differs(0, "measurement", "mr_enclave", found, hex::encode(required)));
        }
        if let Some(required) = self.mr_signer.filter(|required| *required != quote.mr_signer()) {
            let found = hex::encode(quote.mr_signer());
            return Err(differs(1, "signer", "mr_signer", found, hex::encode(required)));
        }
        if let Some(required) = self.isv_prod_id.filter(|required| *required != quote.isv_prod_id())
        {
            let found = quote.isv_prod_id().to_string();
            return Err(differs(2, "product", "isv_prod_id", found, required.to_string()));
        }
        if !self.isv_svn.accepts(quote.isv_svn()) {
            let found = quote.isv_svn().to_string();
            return Err(differs(3, "isv-svn", "isv_svn", found, self.isv_svn.to_string()));
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let mut value = json!({ "name": self.name });
        if let Some(mr_enclave) = self.mr_enclave {
            value["mr_enclave"] = hex::encode(mr_enclave).into();
        }
        if let Some(mr_signer) = self.mr_signer {
            value["mr_signer"] = hex::encode(mr_signer).into();
        }
        value["isv_prod_id"] = self.isv_prod_id.map_or_else(|| ANY.into(), Value::from);
        match self.isv_svn {
            Svn::AtLeast(number) => value["minimum_isv_svn"] = number.into(),
            Svn::Exactly(number) => value["isv_svn"] = number.into(),
        }
        value
    }
}

impl EnclaveRule {
    fn to_toml(&self) -> Vec<String> {
        let measured = |name, value: Option<[u8; 32]>| {
            value.map(|value| format!("{name} = \"{}\"", hex::encode(value)))
        };
        let product = match self.isv_prod_id {
            Some(number) => format!("isv_prod_id = {number}"),
            None => format!("isv_prod_id = \"{ANY}\""),
        };
        let version = match self.isv_svn {
            Svn::AtLeast(number) => format!("minimum_isv_svn = {number}"),
            Svn::Exactly(number) => format!("isv_svn = {number}"),
        };
        ["[[enclave]]".to_owned(), format!("name = {}", toml::Value::String(self.name.clone()))]
            .into_iter()
            .chain(measured("mr_enclave", self.mr_enclave))
            .chain(measured("mr_signer", self.mr_signer))
            .chain([product, version])
            .collect()
    }
}

impl fmt::Display for EnclaveRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(mr_enclave) = self.mr_enclave {
            write!(f, ", mr_enclave {}", hex::encode(mr_enclave))?;
        }
        if let Some(mr_signer) = self.mr_signer {
            write!(f, ", mr_signer {}", hex::encode(mr_signer))?;
        }
        match self.isv_prod_id {
            Some(number) => write!(f, ", product {number}")?,
            None => f.write_str(", any product")?,
        }
        write!(f, ", security version {}", self.isv_svn)
    }
}

impl Svn {
    fn accepts(self, found: u16) -> bool {
        match self {
            Self::AtLeast(number) => found >= number,
            Self::Exactly(number) => found == number,
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::AtLeast(number) | Self::Exactly(number) => number,
        }
    }
}

impl fmt::Display for Svn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(number) => write!(f, "at least {number}"),
            Self::Exactly(number) => write!(f, "exactly {number}"),
        }
    }
}

/// Exactly 64 hex digits, not all zero.
pub(crate) fn measurement(text: &str) -> Result<[u8; 32], String> {
    if text.starts_with("0x") || text.starts_with("0X") {
        return Err("a measurement with a 0x prefix: write the 64 hex digits alone".to_owned());
    }
    if text.len() != 64 {
        return Err(format!("a measurement of {} characters, expected 64 hex digits", text.len()));
    }
    let mut value = [0; 32];
    hex::decode_to_slice(text, &mut value)
        .map_err(|error| format!("a measurement that is not hex: {error}"))?;
    if value == [0; 32] {
        return Err("a measurement of zeros: fill in the enclave's own".to_owned());
    }
    Ok(value)
}

/// Intel SGX Root CA, as Intel publishes it
/// (`Intel_SGX_Provisioning_Certification_RootCA.cer`).
pub(crate) const INTEL_SGX_ROOT_CA: &[u8] = include_bytes!("intel_sgx_root_ca.der");
const ANY: &str = "any";

fn default_statuses() -> Vec<TcbStatus> {
    vec![TcbStatus::UpToDate]
}

fn words(statuses: &[TcbStatus]) -> String {
    statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ")
}

/// A certificate (DER) in PEM.
pub fn certificate_to_pem(der: &[u8]) -> String {
    pem::encode_string("CERTIFICATE", LineEnding::LF, der)
        .expect("a certificate within a policy's size has a PEM form")
}

/// The one certificate (DER) in a text of PEM.
pub fn certificate_from_pem(text: &str) -> Option<Vec<u8>> {
    let (label, der) = pem::decode_vec(text.trim().as_bytes()).ok()?;
    (label == "CERTIFICATE").then_some(der)
}

fn canonical(value: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value)
        .expect("a policy has string keys and small integers only")
}

fn check_size(text: &str) -> Result<(), PolicyError> {
    if text.len() > MAXIMUM_POLICY_BYTES {
        return Err(PolicyError::unplaced(format!(
            "{} bytes, at most {MAXIMUM_POLICY_BYTES} are read",
            text.len()
        )));
    }
    Ok(())
}
