//! Why a run ended without a result: the kind, the cause, and what would help.

use std::io;
use std::path::{Path, PathBuf};

use convelo_attest::{Matter, Refusal};
use convelo_channel::{DialError, IdentityError};
use convelo_psi::JobError;
use convelo_psi::agreement::AgreementError;
use convelo_untrusted::Untrusted;
use convelo_wire::{Failed, Reason};

use crate::attestation::Proved;
use crate::table::{Fault, TableError};

/// The kinds of failure; the command line has an exit code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The job file, the input or an option is wrong; nothing was sent.
    Usage,
    /// The job ended without a result: a party or the service failed, left or was late.
    Job,
    /// The service's evidence, or a party's, was refused.
    Attestation,
    /// The job's reveal policy, or its caps, do not allow this.
    RevealPolicy,
    /// The person or program running this party stopped the run.
    Stopped,
}

/// Who says what arrives on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// Whoever answers at the service's address: nobody has verified what runs there.
    Unverified,
    /// A service whose evidence was accepted.
    Verified,
}

/// Why a connection broke.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    /// In the words of this program or the operating system.
    Known(String),
    /// What the other end says.
    Said(Speaker, Untrusted),
    /// In the words of a library, which may repeat what the other end sent.
    Unknown(Untrusted),
}

/// What would help. The caller says it in its own words: as a flag, or a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Keys fit neither the memory that the run may use nor the temporary file: more memory, or
    /// another directory, as in [`Memory`](crate::Memory).
    MoreMemory,
    /// Another directory for temporary files, one with enough space.
    TemporaryDirectory,
    /// Other collateral for the service's platform.
    Collateral,
    /// Another file that remembers the newest revocation lists, or none there.
    SeenLists,
    /// The address of the service.
    Address,
    /// No address other than those of the job.
    NoAddress,
    /// A policy that says which evidence of the service to accept.
    Policy,
    /// A policy that says which evidence of the other providers to accept.
    ProviderPolicy,
    /// This party's consent to evidence of a simulated platform.
    Simulated,
    /// This party's consent to a service that nobody verifies.
    Unattested,
    /// The service's key, in the job.
    ServiceKey,
    /// A source of evidence about this party.
    QuoteSource,
    /// A place for the matched rows.
    Output,
    /// No place for rows: there are none.
    NoOutput,
    /// A column for each part of the job's key, in its order.
    KeyColumns,
    /// This party's consent to a table in which no row, or hardly any, has a key.
    AllowEmpty,
    /// The format of the table.
    Format,
    /// The delimiter of the table.
    Delimiter,
    /// The escape character of the table.
    Escape,
    /// Whether the first record of the table is a header.
    Header,
    /// Whether the first line of an id list is an id.
    HeaderLine,
    /// An address to listen on, or the address of another party: there is neither.
    Meet,
    /// Another address to listen on.
    Listen,
    /// Another address of another party.
    PeerAddress,
    /// No address of a service, policy or evidence: the job has no service.
    NoService,
    /// No address to listen on and none of another party: the job's parties meet at its service.
    NoMeeting,
}

/// A run that ended without a result.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    cause: Box<Cause>,
    hint: Option<Hint>,
    /// The address, if there are several services.
    service: Option<String>,
    /// Where the answer is kept whose rows could not be written.
    kept: Option<PathBuf>,
    /// The receipts, if the job is done and only this party lacks something.
    done: Option<Vec<PathBuf>>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("{0}")]
    Words(String),
    /// The connection is gone; another may continue where the last one ended.
    #[error(transparent)]
    Dial(DialError),
    /// A connection broke, with the cause in words; another may continue where it ended.
    #[error(
        "the connection to the service broke ({0}); it may have been stopped, or refused this \
         party's certificate; nothing of the job is kept, run it again"
    )]
    Broken(Why),
    #[error("the service was refused and nothing was sent to it: {0}")]
    Refused(#[source] Refusal),
    #[error(
        "the service was refused and nothing was sent to it but a challenge with the job's \
         digest: {0}"
    )]
    RefusedOnChallenge(#[source] Refusal),
    /// It had been trusted before.
    #[error(
        "the service was refused when it attested the connection again, and nothing more is \
         sent to it: {0}"
    )]
    RefusedSince(#[source] Refusal),
    /// Another provider's evidence, as the service passed it on.
    #[error(
        "the evidence of '{name}', another provider, was refused here; nothing was sealed to it, and \
         the others are told: {refusal}"
    )]
    ProviderRefused {
        name: String,
        #[source]
        refusal: Refusal,
    },
    /// The service ended the job, with its explanation.
    #[error("{speaker} says {said}")]
    Failed { reason: Reason, speaker: Speaker, said: Untrusted },
    #[error(transparent)]
    Job(JobError),
    #[error(transparent)]
    Table(TableError),
    #[error("the parties could not agree on a job key: {0}")]
    Agreement(#[source] AgreementError),
    /// Another party of a job without a service sent what it may not send.
    #[error("'{name}' did not follow the protocol, and nothing it sent is used: {why}")]
    PartyRefused { name: String, why: String },
    /// Keys that do not fit in memory cannot be stored elsewhere.
    #[error(transparent)]
    Spill(io::Error),
}

impl Error {
    /// A failure in words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::of(kind, Cause::Words(message.into()))
    }

    fn of(kind: Kind, cause: Cause) -> Self {
        Self { kind, cause: Box::new(cause), hint: None, service: None, kept: None, done: None }
    }

    /// A broken connection; another may continue where it ended.
    pub(crate) fn connection_broke(why: Why) -> Self {
        Self::of(Kind::Job, Cause::Broken(why))
    }

    /// The service ended the job.
    pub(crate) fn failed(failed: Failed, speaker: Speaker) -> Self {
        let Failed { reason, explanation, .. } = failed;
        let kind = match reason {
            Reason::Attestation => Kind::Attestation,
            // `OverCap` is about another party: too many keys of this one are noticed here, before
            // anything is sent.
            Reason::InvalidJob => Kind::Usage,
            _ => Kind::Job,
        };
        Self::of(kind, Cause::Failed { reason, speaker, said: Untrusted::new(explanation) })
    }

    /// The answer to the first challenge was refused.
    pub(crate) fn refused_on_challenge(refusal: Refusal) -> Self {
        Self::refused(refusal, Cause::RefusedOnChallenge)
    }

    /// The service was trusted before; its answer to a later challenge was refused.
    pub(crate) fn refused_since(refusal: Refusal) -> Self {
        Self::refused(refusal, Cause::RefusedSince)
    }

    /// This party refused the evidence of another provider.
    pub(crate) fn provider_refused(name: &str, refusal: Refusal) -> Self {
        Self::of(Kind::Attestation, Cause::ProviderRefused { name: name.to_owned(), refusal })
    }

    /// Another party sent what it may not send.
    pub(crate) fn party_refused(name: &str, why: &str) -> Self {
        let (name, why) = (name.to_owned(), why.to_owned());
        Self::of(Kind::Job, Cause::PartyRefused { name, why })
    }

    fn refused(refusal: Refusal, cause: impl FnOnce(Refusal) -> Cause) -> Self {
        let hint = (refusal.matter == Matter::Collateral).then_some(Hint::Collateral);
        Self { hint, ..Self::of(Kind::Attestation, cause(refusal)) }
    }

    /// Keys that do not fit in memory could not be written to a temporary file, or read back from
    /// it.
    pub(crate) fn spill(error: io::Error) -> Self {
        Self::of(Kind::Usage, Cause::Spill(error)).with_hint(Hint::MoreMemory)
    }

    /// The same error, with what would help.
    #[must_use]
    pub fn with_hint(self, hint: Hint) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// The same error, after the answer had arrived: nothing that this party typed is to blame.
    pub(crate) fn since_answered(self) -> Self {
        let kind = if self.kind == Kind::Usage { Kind::Job } else { self.kind };
        Self { kind, ..self }
    }

    /// The same error, with where the answer is kept.
    pub(crate) fn with_kept_answer(self, kept: Option<PathBuf>) -> Self {
        Self { kept, ..self }
    }

    /// Where the answer is kept whose rows could not be written: [`resume`](crate::resume) writes them.
    pub fn kept_answer(&self) -> Option<&Path> {
        self.kept.as_deref()
    }

    /// The same error, after the job was done and these receipts were written.
    pub(crate) fn after_receipts(self, receipts: &[PathBuf]) -> Self {
        Self { done: Some(receipts.to_owned()), ..self }
    }

    /// The receipts of a job that is done, for everybody else too, although its rows were not written
    /// here.
    pub fn receipts_of_done_job(&self) -> Option<&[PathBuf]> {
        self.done.as_deref()
    }

    /// Whether nothing but the output or a request to stop is to blame, so that a kept answer helps.
    pub(crate) fn is_of_output(&self) -> bool {
        let stopped = self.kind == Kind::Stopped;
        stopped
            || matches!(self.cause(), Cause::Table(error) if matches!(error.fault(), Fault::Write(_)))
    }

    /// The same error, at one of several services.
    pub(crate) fn at(self, address: &str) -> Self {
        Self { service: Some(address.to_owned()), ..self }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What would help, if the caller can do something.
    pub fn hint(&self) -> Option<Hint> {
        self.hint
    }

    pub(crate) fn cause(&self) -> &Cause {
        &self.cause
    }

    /// The check that failed, if evidence was refused here.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.cause() {
            Cause::Refused(refusal)
            | Cause::RefusedOnChallenge(refusal)
            | Cause::RefusedSince(refusal)
            | Cause::ProviderRefused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// The service's reason, if the failure came from there.
    pub fn reason(&self) -> Option<Reason> {
        match self.cause() {
            Cause::Failed { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// What the other parties are told, if it happened here.
    pub(crate) fn told(&self) -> Reason {
        match self.cause() {
            Cause::Table(_) => Reason::Table,
            Cause::Agreement(_) => Reason::KeyAgreement,
            Cause::ProviderRefused { .. } => Reason::Attestation,
            Cause::PartyRefused { .. } => Reason::Protocol,
            _ if self.kind == Kind::RevealPolicy => Reason::OverCap,
            _ => Reason::Stopped,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = &self.service {
            write!(f, "service {address}: ")?;
        }
        self.cause.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal, Cause::Refused)
    }
}

impl From<DialError> for Error {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(refusal) => refusal.into(),
            other => Self::of(Kind::Job, Cause::Dial(other)),
        }
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        Self::new(Kind::Usage, error.to_string())
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        Self::of(Kind::Usage, Cause::Job(error))
    }
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        let hint = match error.fault() {
            Fault::Keep(_) => Some(Hint::TemporaryDirectory),
            Fault::UnknownFormat => Some(Hint::Format),
            Fault::Delimiters { .. } => Some(Hint::Delimiter),
            Fault::TextAfterQuote => Some(Hint::Escape),
            Fault::HeaderIsRecord { .. } | Fault::HeaderUnknown => Some(Hint::Header),
            Fault::LineIsHeader => Some(Hint::HeaderLine),
            _ => None,
        };
        Self { hint, ..Self::of(Kind::Usage, Cause::Table(error)) }
    }
}

impl From<AgreementError> for Error {
    fn from(error: AgreementError) -> Self {
        Self::of(Kind::Job, Cause::Agreement(error))
    }
}

/// A thread of this program failed.
impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        let text = format!("a pass over the table failed in the program itself: {error}");
        Self::new(Kind::Job, text)
    }
}

impl Speaker {
    /// Who speaks on a connection whose service proved this.
    pub(crate) fn of(proved: &Proved) -> Self {
        match proved {
            Proved::Key => Self::Unverified,
            Proved::Fresh(_) | Proved::Certificate(..) => Self::Verified,
        }
    }
}

impl std::fmt::Display for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unverified => "an unverified service",
            Self::Verified => "the service",
        })
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(words) => f.write_str(words),
            Self::Said(speaker, said) => write!(f, "{speaker} says {said}"),
            Self::Unknown(words) => write!(f, "{words}"),
        }
    }
}
