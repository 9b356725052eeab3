//! What we accept: measurements, statuses and advisories, each named explicitly.

mod dynamic_config;
mod file;
mod gramine_env;
mod rule;
mod sigstruct;

use std::fmt;

use convelo_untrusted::{Untrusted, shown};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::pem::{self, LineEnding};

use crate::evidence::CertificateRules;
use crate::limits::{DEFAULT_COLLATERAL_AGE_DAYS, MAXIMUM_POLICY_BYTES, SECONDS_PER_DAY};
use crate::measurements::Measurements;
use crate::refusal::{Matter, Refusal, Stage};
use crate::text::position;

use file::File;
use rule::{DomainRule, EnclaveRule, Mismatch, Svn};

/// Which platforms a policy without a list of them accepts.
pub(crate) fn any_platform(simulated: bool) -> &'static str {
    if simulated {
        "any platform of the simulated root (under Intel's root: any Intel platform)"
    } else {
        "any Intel platform"
    }
}

/// What is accepted as evidence. Anything the policy does not name is refused.
///
/// ```toml
/// version = 1
/// tcb_statuses = ["UpToDate"]            # default
/// advisories = []                        # default; accepted one by one, e.g. "INTEL-SA-00615"
/// maximum_collateral_age_days = 7        # default; 1 to 30
/// minimum_evaluation_number = 17         # optional: TCB info of an older evaluation is refused
/// root_crl_issued_since = "2026-02-26T13:04:00Z"   # optional: an older list of the root is refused
/// minimum_root_crl_number = 1            # optional, and the same for the lists' numbers; Intel
/// minimum_pck_crl_number = 1             # does not raise them: all of its lists have number 1
/// platforms = ["64 hex digits"]          # optional: SHA-256 of the accepted platforms' PPIDs
/// # insecure_simulated_root = """-----BEGIN CERTIFICATE-----…"""  # instead of Intel's root
/// allow_cached_keys = false              # default: Intel's registration keeps no root keys of it
/// allow_dynamic_platform = true          # default: processor packages may be added to it
/// allow_smt = true                       # default: two threads may share a core
/// grace_period_days = 0                  # default; up to 365: how long a platform may be out of date
/// longest_certificate_days = 10950       # on the psi.PSI wire alone; default: 25 hours
/// allow_legacy_evidence = false          # on the psi.PSI wire alone; default: no Gramine before 1.8
/// [[enclave]]                            # any one of these: an SGX enclave
/// name = "convelo-service 0.1.0"
/// mr_enclave = "64 hex digits"           # at least one of mr_enclave and mr_signer
/// mr_signer = "64 hex digits"
/// isv_prod_id = 0                        # a number or "any"
/// minimum_isv_svn = 0                    # or isv_svn = 3 for exactly that version
/// allowed_xfrm = "00000000000000e7"      # optional, as all below: no processor feature but these
/// allowed_misc_select = "00000000"
/// config_id = "128 hex digits"           # key separation and sharing (KSS)
/// minimum_config_svn = 0
/// isv_family_id = "32 hex digits"
/// isv_ext_prod_id = "32 hex digits"
/// [[trust_domain]]                       # or one of these: a TDX trust domain
/// name = "convelo-service 0.1.0"
/// mr_td = "96 hex digits"                # the firmware
/// rtmr0 = "96 hex digits"                # its configuration, which the host supplies; or "any"
/// rtmr1 = "96 hex digits"                # the kernel
/// rtmr2 = "96 hex digits"                # its command line and first file system
/// rtmr3 = "96 hex digits"                # optional, as all below: what is measured at run time
/// mr_config_id = "96 hex digits"
/// mr_owner = "96 hex digits"
/// mr_owner_config = "96 hex digits"
/// allowed_td_attributes = "0000000010000000"
/// allowed_xfam = "00000000000602e7"
/// ```
///
/// `isv_prod_id` and the security version are optional only next to an `mr_enclave`: a signer signs
/// many products. An accepted status or advisory is accepted for the platform as a whole. Within
/// the grace period, a platform that is out of date is accepted although its status is not named;
/// the period starts at the date of the best level that the platform reaches (Intel's `tcbDate`). A
/// platform with an advisory that the policy does not name is refused.
///
/// The last two are for clients of Intel's "PSI with SGX": everyone else's certificates live for a
/// day at most and carry DICE evidence, whatever a policy says. The quote and its binding to the
/// key are verified in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    anchor: Anchor,
    tcb_statuses: Vec<TcbStatus>,
    advisories: Vec<String>,
    maximum_collateral_age_days: u64,
    minimum_evaluation_number: Option<u32>,
    lists: ListRule,
    platforms: Vec<[u8; 32]>,
    grace_period_days: u64,
    platform: PlatformRule,
    enclaves: Vec<EnclaveRule>,
    trust_domains: Vec<DomainRule>,
    certificate_rules: CertificateRules,
    warnings: Vec<String>,
}

/// Why a policy could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// 1-based line of the file, where known.
    pub line: Option<usize>,
    /// 1-based column of the file, in characters, where known.
    pub column: Option<usize>,
    /// What was found, what was expected, and what to do.
    pub message: String,
}

/// A platform's TCB status, in Intel's words. `Revoked` is missing: it is never accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TcbStatus {
    /// Everything is current.
    UpToDate,
    /// The enclave's software must mitigate something itself.
    SWHardeningNeeded,
    /// Someone must judge the platform's configuration (BIOS, SMT).
    ConfigurationNeeded,
    /// Both of the above.
    ConfigurationAndSWHardeningNeeded,
    /// Firmware or microcode is missing.
    OutOfDate,
    /// Firmware or microcode is missing, and someone must judge the configuration.
    OutOfDateConfigurationNeeded,
    /// TDX 1.5: the domain was started under an outdated TDX module; the module is current now.
    TDRelaunchAdvised,
    /// As above, and someone must judge the configuration.
    TDRelaunchAdvisedConfigurationNeeded,
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
                message: shown(error.message()),
            }
        })?;
        file.try_into()
    }

    /// Reads a policy embedded in a job, in the form of [`to_json`](Self::to_json).
    pub fn from_json(value: &Value) -> Result<Self, PolicyError> {
        let file =
            File::deserialize(value).map_err(|error| PolicyError::unplaced(error.to_string()))?;
        file.try_into()
    }

    /// Reads the `dynamic_config.json` of the system that convelo replaces, strictly: where the
    /// original reader guesses, truncates or disables a check, this one refuses the file.
    ///
    /// The file says nothing about the platform, so the default statuses and collateral age apply.
    /// A caller that finds no file must treat that as an error too.
    pub fn from_dynamic_config(text: &str) -> Result<Self, PolicyError> {
        check_size(text)?;
        let (enclaves, warnings) = dynamic_config::read(text)?;
        Ok(Self { enclaves, warnings, ..Self::of_intels_root() })
    }

    /// Converts the `RA_TLS_*` settings of Gramine's own verifier, given as names and values. Other
    /// names are ignored; unknown `RA_TLS_*` names are errors.
    ///
    /// `any` for both measurement and signer, which Gramine only warns about, is an error: no
    /// policy accepts everybody.
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

    /// Accepts the enclave described by a SIGSTRUCT (the `.sig` file of a signed enclave): its
    /// measurement, signer and product, from its security version on.
    pub fn from_sigstruct(name: &str, bytes: &[u8]) -> Result<Self, PolicyError> {
        Self::of_enclave(&sigstruct::read(name, bytes).map_err(PolicyError::unplaced)?)
    }

    /// Accepts one enclave by its measurement and, if given, its signer.
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
            ..EnclaveRule::default()
        })
    }

    /// A policy of one enclave and defaults, through the same checks as a file.
    fn of_enclave(rule: &EnclaveRule) -> Result<Self, PolicyError> {
        Self::from_json(&json!({ "version": 1, "enclave": [rule.to_json()] }))
    }

    /// Accepts no enclave; its root is Intel's. Only for verifying collateral.
    pub fn of_intels_root() -> Self {
        Self {
            anchor: Anchor::Intel,
            tcb_statuses: default_statuses(),
            advisories: Vec::new(),
            maximum_collateral_age_days: DEFAULT_COLLATERAL_AGE_DAYS,
            minimum_evaluation_number: None,
            lists: ListRule::default(),
            platforms: Vec::new(),
            grace_period_days: 0,
            platform: PlatformRule::default(),
            enclaves: Vec::new(),
            trust_domains: Vec::new(),
            certificate_rules: CertificateRules::default(),
            warnings: Vec::new(),
        }
    }

    /// How certificates of clients of Intel's "PSI with SGX" are read.
    pub fn certificate_rules(&self) -> &CertificateRules {
        &self.certificate_rules
    }

    /// Accepts evidence of the simulated platform with this root (PEM) *instead of* Intel's. Such
    /// evidence protects nothing; everything shown afterwards says SIMULATED.
    pub fn with_insecure_simulated_root(mut self, pem: &str) -> Result<Self, PolicyError> {
        self.anchor = Anchor::simulated(pem).map_err(PolicyError::unplaced)?;
        Ok(self)
    }

    /// Turns every minimum security version into an exact one, which is how the replaced system
    /// compares it.
    #[must_use]
    pub fn with_exact_isv_svn(mut self) -> Self {
        for enclave in &mut self.enclaves {
            enclave.isv_svn = Svn::Exactly(enclave.isv_svn.number());
        }
        self
    }

    /// The policy as JSON: every field, including defaults.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "version": 1,
            "tcb_statuses": self.tcb_statuses,
            "advisories": self.advisories,
            "maximum_collateral_age_days": self.maximum_collateral_age_days,
        });
        if !self.enclaves.is_empty() {
            value["enclave"] = self.enclaves.iter().map(EnclaveRule::to_json).collect();
        }
        if !self.trust_domains.is_empty() {
            value["trust_domain"] = self.trust_domains.iter().map(DomainRule::to_json).collect();
        }
        if self.grace_period_days != 0 {
            value["grace_period_days"] = self.grace_period_days.into();
        }
        if let Some(number) = self.minimum_evaluation_number {
            value["minimum_evaluation_number"] = number.into();
        }
        for (name, lowest) in self.lists.stated() {
            value[name] = lowest;
        }
        if !self.platforms.is_empty() {
            let platforms: Vec<_> = self.platforms.iter().map(hex::encode).collect();
            value["platforms"] = platforms.into();
        }
        for (name, allowed) in self.platform.changed() {
            value[name] = allowed.into();
        }
        if let Some(days) = self.longest_certificate_days() {
            value["longest_certificate_days"] = days.into();
        }
        if self.certificate_rules.allow_legacy_evidence {
            value["allow_legacy_evidence"] = true.into();
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
            "# What is accepted as evidence. Anything not named here is refused.".to_owned(),
            "version = 1".to_owned(),
            String::new(),
            "# Statuses of the platform's firmware and microcode, in Intel's words.".to_owned(),
            format!("tcb_statuses = [{statuses}]"),
            "# Intel's advisories that may still apply to a platform, one by one.".to_owned(),
            format!("advisories = [{advisories}]"),
            "# How many days old signed facts about the platform may be; 1 to 30.".to_owned(),
            format!("maximum_collateral_age_days = {}", self.maximum_collateral_age_days),
        ];
        if self.grace_period_days != 0 {
            lines.push("# How many days a platform may be out of date after a finding.".to_owned());
            lines.push(format!("grace_period_days = {}", self.grace_period_days));
        }
        if let Some(number) = self.minimum_evaluation_number {
            lines.push("# TCB info from an older evaluation by Intel is refused.".to_owned());
            lines.push(format!("minimum_evaluation_number = {number}"));
        }
        for (name, lowest) in self.lists.stated() {
            lines.push("# An older revocation list is refused.".to_owned());
            lines.push(format!("{name} = {lowest}"));
        }
        if !self.platforms.is_empty() {
            let platforms: Vec<_> =
                self.platforms.iter().map(|id| format!("\"{}\"", hex::encode(id))).collect();
            lines.push("# Only these machines: SHA-256 of their PPIDs.".to_owned());
            lines.push(format!("platforms = [{}]", platforms.join(", ")));
        }
        for (name, allowed) in self.platform.changed() {
            lines.push(format!("{name} = {allowed}"));
        }
        if let Some(days) = self.longest_certificate_days() {
            lines.push("# How long certificates may be valid on the psi.PSI wire.".to_owned());
            lines.push(format!("longest_certificate_days = {days}"));
        }
        if self.certificate_rules.allow_legacy_evidence {
            lines.push("# Evidence of Gramine before 1.8, on the psi.PSI wire.".to_owned());
            lines.push("allow_legacy_evidence = true".to_owned());
        }
        if let Anchor::Simulated { der, .. } = &self.anchor {
            lines.push(String::new());
            lines.push(
                "# SIMULATED: a simulated platform instead of Intel's. It protects nothing."
                    .to_owned(),
            );
            lines.push(format!(
                "insecure_simulated_root = \"\"\"\n{}\"\"\"",
                certificate_to_pem(der)
            ));
        }
        lines.extend([String::new(), "# Any of these programs is accepted.".to_owned()]);
        for enclave in &self.enclaves {
            lines.extend(enclave.to_toml());
        }
        for domain in &self.trust_domains {
            lines.extend(domain.to_toml());
        }
        lines.join("\n") + "\n"
    }

    /// SHA-256 of the canonical form (RFC 8785) of [`to_json`](Self::to_json).
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(canonical(&self.to_json())).into()
    }

    fn longest_certificate_days(&self) -> Option<u64> {
        let seconds = self.certificate_rules.maximum_lifetime_seconds;
        let usual = CertificateRules::default().maximum_lifetime_seconds;
        (seconds != usual).then_some(seconds / SECONDS_PER_DAY)
    }

    /// Whether evidence from a simulated platform is accepted (and Intel's is not).
    pub fn is_simulated(&self) -> bool {
        matches!(self.anchor, Anchor::Simulated { .. })
    }

    /// What was odd about the file, although it was accepted, one line each, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the policy accepts, one line each, for people.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let digest = hex::encode(Sha256::digest(self.anchor.der()));
        if self.is_simulated() {
            lines
                .push("SIMULATED: accepts a simulated platform, which protects nothing".to_owned());
        }
        lines.push(match &self.anchor {
            Anchor::Intel => format!("root: {} (SHA-256 {digest})", self.anchor.name()),
            Anchor::Simulated { name, .. } => {
                format!("root: not Intel's; it calls itself '{name}' (SHA-256 {digest})")
            }
        });
        lines.extend(self.enclaves.iter().map(|enclave| format!("enclave: {enclave}")));
        lines.extend(self.trust_domains.iter().map(|domain| format!("trust domain: {domain}")));
        lines.push(format!("TCB status: {}", words(&self.tcb_statuses)));
        if self.grace_period_days != 0 {
            let days = self.grace_period_days;
            lines.push(format!("TCB status: out of date for at most {days} days"));
        }
        lines.push(match self.advisories.as_slice() {
            [] => "advisories: none accepted".to_owned(),
            some => format!("advisories: {}", some.join(", ")),
        });
        lines.push(format!("collateral: at most {} days old", self.maximum_collateral_age_days));
        if let Some(number) = self.minimum_evaluation_number {
            lines.push(format!("collateral: evaluation {number} or later"));
        }
        for (name, lowest) in self.lists.stated() {
            lines.push(format!("collateral: {name} = {lowest}"));
        }
        for (name, allowed) in self.platform.changed() {
            lines.push(format!("platforms: {name} = {allowed}"));
        }
        lines.push(format!("platforms: {}", self.platforms_in_words()));
        lines
    }

    /// Which platforms are accepted, in words.
    pub fn platforms_in_words(&self) -> String {
        match self.platforms.len() {
            0 => any_platform(self.is_simulated()).to_owned(),
            named => format!("only the {named} named"),
        }
    }

    /// Whether evidence of any platform under the root is accepted: also of one whose keys somebody has
    /// taken out of it, which no TCB status and no advisory shows.
    pub fn accepts_any_platform(&self) -> bool {
        self.platforms.is_empty()
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

    pub(crate) fn lists(&self) -> ListRule {
        self.lists
    }

    /// SHA-256 of the PPIDs of the accepted platforms; if empty, any platform.
    pub(crate) fn platforms(&self) -> &[[u8; 32]] {
        &self.platforms
    }

    /// How long a platform may be out of date, in seconds.
    pub(crate) fn grace_period(&self) -> u64 {
        self.grace_period_days * crate::date::DAY
    }

    pub(crate) fn platform(&self) -> PlatformRule {
        self.platform
    }

    /// How old collateral may be, in seconds.
    pub fn maximum_collateral_age(&self) -> u64 {
        self.maximum_collateral_age_days * crate::date::DAY
    }

    /// What the first entry that matches this program says, with its name; or the refusal by the
    /// closest entry.
    pub(crate) fn accepted(&self, found: &Measurements) -> Result<(&str, String), Refusal> {
        let mut closest: Option<Mismatch> = None;
        let mut entries = 0;
        let mut differs = |mismatch: Mismatch| {
            entries += 1;
            if closest.as_ref().is_none_or(|best| best.rank < mismatch.rank) {
                closest = Some(mismatch);
            }
        };
        match found {
            Measurements::Sgx(enclave) => {
                for rule in &self.enclaves {
                    match rule.compare(enclave) {
                        Ok(()) => return Ok((&rule.name, rule.to_string())),
                        Err(mismatch) => differs(mismatch),
                    }
                }
            }
            Measurements::Tdx(domain) => {
                for rule in &self.trust_domains {
                    match rule.compare(domain) {
                        Ok(()) => return Ok((&rule.name, rule.to_string())),
                        Err(mismatch) => differs(mismatch),
                    }
                }
            }
        }
        if self.enclaves.is_empty() && self.trust_domains.is_empty() {
            return Err(Refusal::new(Stage::Measurement, "no-enclave", Matter::Policy)
                .found("a policy that names no enclave")
                .expected("a policy that names what it accepts")
                .advice("name the enclave in the policy"));
        }
        let mismatch = closest.unwrap_or_else(|| Mismatch::of_kind(found));
        let others = match entries {
            0 | 1 => String::new(),
            some => format!(", or one of the {} other accepted entries", some - 1),
        };
        Err(Refusal::new(Stage::Measurement, mismatch.code, Matter::Policy)
            .found(mismatch.found)
            .expected(format!("{}{others}", mismatch.expected))
            .advice(
                "the peer runs code that we do not accept: compare its release with the policy, \
                 and change the policy only after you have reviewed that release",
            ))
    }
}

/// How old a revocation list may be, apart from its own dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListRule {
    pub(crate) minimum_root_number: Option<u64>,
    pub(crate) minimum_pck_number: Option<u64>,
    /// Unix seconds.
    pub(crate) root_issued_since: Option<u64>,
}

impl ListRule {
    /// What is stated, as it stands in a policy.
    fn stated(self) -> impl Iterator<Item = (&'static str, Value)> {
        let since = self.root_issued_since.map(|since| crate::date::show(since).into());
        [
            ("minimum_root_crl_number", self.minimum_root_number.map(Value::from)),
            ("minimum_pck_crl_number", self.minimum_pck_number.map(Value::from)),
            ("root_crl_issued_since", since),
        ]
        .into_iter()
        .filter_map(|(name, stated)| Some((name, stated?)))
    }
}

impl PolicyError {
    /// The message may repeat what the policy says: its author may be somebody else.
    pub(crate) fn unplaced(message: impl AsRef<str>) -> Self {
        Self { line: None, column: None, message: shown(message.as_ref()) }
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
    /// The status, spelled as Intel does.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SWHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSWHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::TDRelaunchAdvised => "TDRelaunchAdvised",
            Self::TDRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }

    /// The status that `dcap-qvl` found, if a policy can accept it.
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
            Dcap::TDRelaunchAdvised => Some(Self::TDRelaunchAdvised),
            Dcap::TDRelaunchAdvisedConfigurationNeeded => {
                Some(Self::TDRelaunchAdvisedConfigurationNeeded)
            }
            Dcap::Revoked => None,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which properties of a platform are accepted, as stated in its PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlatformRule {
    /// Intel's registration service keeps its root keys, too.
    pub(crate) allow_cached_keys: bool,
    /// It allows processor packages to be added.
    pub(crate) allow_dynamic_platform: bool,
    /// Two threads share a core.
    pub(crate) allow_smt: bool,
}

impl Default for PlatformRule {
    /// Most servers have SMT and are dynamic platforms.
    fn default() -> Self {
        Self { allow_cached_keys: false, allow_dynamic_platform: true, allow_smt: true }
    }
}

impl PlatformRule {
    /// Those that differ from the default, with their names.
    fn changed(self) -> impl Iterator<Item = (&'static str, bool)> {
        let default = Self::default();
        [
            ("allow_cached_keys", self.allow_cached_keys, default.allow_cached_keys),
            ("allow_dynamic_platform", self.allow_dynamic_platform, default.allow_dynamic_platform),
            ("allow_smt", self.allow_smt, default.allow_smt),
        ]
        .into_iter()
        .filter(|(_, value, default)| value != default)
        .map(|(name, value, _)| (name, value))
    }
}

/// The root that evidence must chain to.
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
        let name = format!("{:#}", subject(&certificate));
        Ok(Self::Simulated { der, name })
    }
}

/// A certificate's subject: what it calls itself.
pub(crate) fn subject(certificate: &Certificate) -> Untrusted {
    Untrusted::new(certificate.tbs_certificate().subject().to_string())
}

/// Exactly two hex digits per byte, not all zero.
pub(crate) fn measurement<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let value = digits("measurement", text)?;
    if value == [0; N] {
        return Err("a measurement of zeros: fill in the enclave's own".to_owned());
    }
    Ok(value)
}

/// Exactly two hex digits per byte.
pub(crate) fn digits<const N: usize>(what: &str, text: &str) -> Result<[u8; N], String> {
    let expected = 2 * N;
    if text.starts_with("0x") || text.starts_with("0X") {
        return Err(format!("a {what} with a 0x prefix: write only the {expected} hex digits"));
    }
    if text.len() != expected {
        return Err(format!(
            "a {what} of {} characters, expected {expected} hex digits",
            text.len()
        ));
    }
    let mut value = [0; N];
    hex::decode_to_slice(text, &mut value)
        .map_err(|error| format!("a {what} that is not hex: {error}"))?;
    Ok(value)
}

/// Intel SGX Root CA, as Intel publishes it
/// (`Intel_SGX_Provisioning_Certification_RootCA.cer`).
pub(crate) const INTEL_SGX_ROOT_CA: &[u8] = include_bytes!("intel_sgx_root_ca.der");

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

/// The single certificate (DER) in a PEM text.
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
            "{} bytes, expected at most {MAXIMUM_POLICY_BYTES}",
            text.len()
        )));
    }
    Ok(())
}
