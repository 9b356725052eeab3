//! Why a run ended without a result, as a kind for programs and words for people.

use convelo_attest::Refusal;
use convelo_channel::DialError;
use convelo_psi::JobError;
use convelo_psi::agreement::AgreementError;
use convelo_wire::{Failed, Reason};

use crate::table::TableError;

/// The kinds of failure; the command line has an exit code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The job file, the input or an option is not right; nothing was sent.
    Usage,
    /// The job did not come to a result: a party or the service failed, left or was late.
    Job,
    /// The service's evidence, or this party's, was refused.
    Attestation,
    /// The job's reveal policy, or its caps, do not allow this.
    RevealPolicy,
    /// This party's person or program stopped the run.
    Stopped,
}

/// A run that ended without a result.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    refusal: Option<Box<Refusal>>,
    reason: Option<Reason>,
    told: Reason,
    broken: Option<String>,
}

impl Error {
    /// A failure in words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let told = match kind {
            Kind::RevealPolicy => Reason::OverCap,
            _ => Reason::Stopped,
        };
        Self { kind, message: message.into(), refusal: None, reason: None, told, broken: None }
    }

    /// A connection that broke, for a cause in words; another may go on where it ended.
    pub(crate) fn connection_broke(cause: &str) -> Self {
        let message = format!(
            "the connection to the service broke ({cause}); it may have been stopped, or refused \
             this party's certificate; nothing of the job is kept, run it again"
        );
        Self { broken: Some(cause.to_owned()), ..Self::new(Kind::Job, message) }
    }

    /// A service that was refused by its answer to the first challenge.
    pub(crate) fn refused_on_challenge(refusal: Refusal) -> Self {
        let message = format!(
            "the service was refused and nothing was sent to it but a challenge with the job's \
             digest: {refusal}"
        );
        Self { refusal: Some(Box::new(refusal)), ..Self::new(Kind::Attestation, message) }
    }

    /// A service that was trusted before and was refused when it attested the connection again.
    pub(crate) fn refused_since(refusal: Refusal) -> Self {
        let message = format!(
            "the service was refused when it attested the connection again, and \
                               nothing more is sent to it: {refusal}"
        );
        Self { refusal: Some(Box::new(refusal)), ..Self::new(Kind::Attestation, message) }
    }

    /// The same at one of several services.
    pub(crate) fn at(self, address: &str) -> Self {
        Self { message: format!("service {address}: {}", self.message), ..self }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The refused check, when evidence was refused here.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_deref()
    }

    /// What the other parties are told about it, when it happened here.
    pub(crate) fn told(&self) -> Reason {
        self.told
    }

    /// The cause, when a connection broke.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// What the service said, when the failure came from there.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = format!("the service was refused and nothing was sent to it: {refusal}");
        Self { refusal: Some(Box::new(refusal)), ..Self::new(Kind::Attestation, message) }
    }
}

impl From<DialError> for Error {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(refusal) => refusal.into(),
            other => {
                let message = other.to_string();
                Self { broken: Some(message.clone()), ..Self::new(Kind::Job, message) }
            }
        }
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        Self::new(Kind::Usage, error.to_string())
    }
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        Self { told: Reason::Table, ..Self::new(Kind::Usage, error.to_string()) }
    }
}

impl From<AgreementError> for Error {
    fn from(error: AgreementError) -> Self {
        let message = format!("the parties could not agree on a job key: {error}");
        Self { told: Reason::KeyAgreement, ..Self::new(Kind::Job, message) }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let kind = match failed.reason {
            Reason::Attestation => Kind::Attestation,
            // `OverCap` is about another party: what this one has too much is noticed here, before
            // anything is sent.
            Reason::InvalidJob => Kind::Usage,
            _ => Kind::Job,
        };
        Self { reason: Some(failed.reason), ..Self::new(kind, failed.explanation) }
    }
}
