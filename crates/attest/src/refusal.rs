//! Why evidence was refused: which check failed, what it found, what it expected, and what to do.

use std::fmt;

use convelo_untrusted::shown;
use serde::Serialize;

/// The stage of verification that refused the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// The certificate that carries the evidence.
    Certificate,
    /// The binding of the certificate's key to the quote.
    KeyBinding,
    /// The quote's form and the root its certificates chain to.
    Quote,
    /// The enclave's attributes: debug, provisioning, initialisation.
    Attributes,
    /// What the enclave is: measurement, signer, product, security version.
    Measurement,
    /// The signed facts about the platform: form, window, age, fit.
    Collateral,
    /// The chain of signatures from the root to the enclave's report.
    Signature,
    /// The platform's TCB status and its advisories.
    TcbStatus,
    /// The fresh quote that ties the enclave to the connection.
    Session,
}

impl Stage {
    /// The stage in plain words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Certificate => "the certificate",
            Self::KeyBinding => "the key binding",
            Self::Quote => "the quote",
            Self::Attributes => "the enclave's attributes",
            Self::Measurement => "the measurement",
            Self::Collateral => "the collateral",
            Self::Signature => "the signatures",
            Self::TcbStatus => "the platform's TCB status",
            Self::Session => "the fresh attestation of the connection",
        }
    }
}

/// Who can do something about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Matter {
    /// The peer's software: its certificate, its enclave's build and signature.
    Peer,
    /// The peer's platform: firmware, microcode, BIOS settings, revoked keys.
    Platform,
    /// Our policy: what we said we accept.
    Policy,
    /// The collateral we hold about the peer's platform.
    Collateral,
    /// A clock, ours or the peer's.
    Clock,
}

impl Matter {
    /// The same in plain words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Peer => "the peer's software",
            Self::Platform => "the peer's platform",
            Self::Policy => "our policy",
            Self::Collateral => "the collateral",
            Self::Clock => "a clock",
        }
    }
}

/// Evidence that was refused, and why.
///
/// `found` and `expected` hold only public facts (measurements, dates, status names); nothing
/// secret reaches this crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Where verification stopped.
    pub stage: Stage,
    /// A stable name for the check, for programs and searches: `debug-enclave`, `measurement`, …
    pub code: &'static str,
    /// What the evidence or the collateral said.
    pub found: String,
    /// What would have been accepted.
    pub expected: String,
    /// Who can change it.
    pub matter: Matter,
    /// What to do about it.
    pub advice: String,
}

impl Refusal {
    /// The peer's certificate carries no evidence, but the policy asks for it:
    /// [`Evidence::from_certificate`](crate::Evidence::from_certificate) returned `None`.
    pub fn missing_evidence() -> Self {
        Self::new(Stage::Certificate, "no-evidence", Matter::Peer)
            .found("a certificate without an evidence extension")
            .expected("one DICE evidence extension (OID 2.23.133.5.4.9)")
            .advice("run the peer inside an enclave, or check the address")
    }

    /// The peer was asked for a fresh quote on this connection and sent none.
    pub fn missing_fresh_evidence() -> Self {
        Self::new(Stage::Session, "no-fresh-evidence", Matter::Peer)
            .found("no fresh quote")
            .expected("a quote over this connection's nonces, keys and job")
            .advice("run the peer inside an enclave, with this version of the program")
    }

    /// A party showed no quote over its one-time key, in a job whose parties prove their programs.
    pub fn missing_key_evidence() -> Self {
        Self::new(Stage::KeyBinding, "no-key-evidence", Matter::Peer)
            .found("no quote over its one-time key")
            .expected("a quote over the one-time key, by the program that made it")
            .advice(
                "run the peer inside an enclave, with this version of the program; the service must \
                 pass its quote on",
            )
    }

    /// There is no collateral to verify the peer's evidence with.
    pub fn no_collateral(found: impl Into<String>) -> Self {
        Self::new(Stage::Collateral, "no-collateral", Matter::Collateral)
            .found(found)
            .expected("collateral for the peer's platform")
            .advice("give collateral for its platform, or have its operator offer it")
    }

    /// The refusal for whoever it is about, in the second person.
    pub fn to_its_subject(&self) -> String {
        let concerns = match self.matter {
            Matter::Peer => "your software",
            Matter::Platform => "your platform",
            Matter::Policy => "the policy of whoever refuses",
            matter => matter.words(),
        };
        // Advice is for the verifier; what it says about the peer is what the peer can do.
        let advice = self.advice.replace("the peer's", "your").replace("the peer", "your program");
        format!(
            "{}; concerns {concerns}: {}",
            self.difference(),
            advice.replace("refuse this peer", "it stays refused")
        )
    }

    fn difference(&self) -> String {
        let Self { stage, code, expected, found, .. } = self;
        format!(
            "attestation refused at {} [{code}]: expected {expected}, found {found}",
            stage.words()
        )
    }

    /// Starts a refusal; the builder methods fill in the rest.
    pub fn new(stage: Stage, code: &'static str, matter: Matter) -> Self {
        Self {
            stage,
            code,
            found: String::new(),
            expected: String::new(),
            matter,
            advice: String::new(),
        }
    }

    /// Says what was found, which may repeat what the peer says.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>) -> Self {
        self.found = shown(&found.into());
        self
    }

    /// Says what would have been accepted.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; concerns {}: {}", self.difference(), self.matter.words(), self.advice)
    }
}

impl std::error::Error for Refusal {}
