//! Why a stream ends without a result.

use crate::limits::MAXIMUM_EXPLANATION_BYTES;
use crate::proto;

/// The kinds of failure that are sent. Programs see each as a separate case, and logs its name; the
/// words for people are in [`Failed::explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The person or program running a party stopped it.
    Stopped,
    /// A party could not read its table.
    Table,
    /// A party's set is larger than the job's cap.
    OverCap,
    /// A party refused the others' keys, shares or confirmations.
    KeyAgreement,
    /// The connection of a party broke.
    ConnectionLost,
    /// The job's deadline passed.
    Deadline,
    /// The party is not on the job's roster.
    Stranger,
    /// Another key holds this name in the job.
    NameTaken,
    /// The job with this name is open with other terms.
    OtherTerms,
    /// All seats are taken, or the party already takes part in the running job.
    JobRunning,
    /// A newer connection of the same party took over.
    Replaced,
    /// A message was malformed or out of turn.
    Protocol,
    /// The service has no room for the job.
    NoRoom,
    /// The service is shutting down.
    Shutdown,
    /// A party's evidence was refused under the job's policy.
    Attestation,
    /// The job itself is not valid.
    InvalidJob,
    /// The stream has no fresh attestation.
    NotAttested,
    /// The party speaks another version of the key agreement.
    Version,
    /// The service failed, or a newer peer sent a reason that this version does not know.
    Internal,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Table => "table",
            Self::OverCap => "over-cap",
            Self::KeyAgreement => "key-agreement",
            Self::ConnectionLost => "connection-lost",
            Self::Deadline => "deadline",
            Self::Stranger => "stranger",
            Self::NameTaken => "name-taken",
            Self::OtherTerms => "other-terms",
            Self::JobRunning => "job-running",
            Self::Replaced => "replaced",
            Self::Protocol => "protocol",
            Self::NoRoom => "no-room",
            Self::Shutdown => "shutdown",
            Self::Attestation => "attestation",
            Self::InvalidJob => "invalid-job",
            Self::NotAttested => "not-attested",
            Self::Version => "version",
            Self::Internal => "internal",
        })
    }
}

/// A stream's end without a result, as told to a party.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{explanation}")]
pub struct Failed {
    /// The kind.
    pub reason: Reason,
    /// The party on whose side the cause lies, if it is a party.
    pub party: Option<String>,
    /// A sentence for a person.
    pub explanation: String,
}

impl Failed {
    /// A failure caused by no party, or by the service.
    pub fn new(reason: Reason, explanation: impl Into<String>) -> Self {
        Self { reason, party: None, explanation: explanation.into() }
    }

    /// A failure caused on a party's side.
    pub fn of_party(reason: Reason, party: &str, explanation: impl Into<String>) -> Self {
        Self { reason, party: Some(party.to_owned()), explanation: explanation.into() }
    }
}

impl From<proto::Reason> for Reason {
    fn from(reason: proto::Reason) -> Self {
        match reason {
            proto::Reason::Stopped => Self::Stopped,
            proto::Reason::Table => Self::Table,
            proto::Reason::OverCap => Self::OverCap,
            proto::Reason::KeyAgreement => Self::KeyAgreement,
            proto::Reason::ConnectionLost => Self::ConnectionLost,
            proto::Reason::Deadline => Self::Deadline,
            proto::Reason::Stranger => Self::Stranger,
            proto::Reason::NameTaken => Self::NameTaken,
            proto::Reason::OtherTerms => Self::OtherTerms,
            proto::Reason::JobRunning => Self::JobRunning,
            proto::Reason::Replaced => Self::Replaced,
            proto::Reason::Protocol => Self::Protocol,
            proto::Reason::NoRoom => Self::NoRoom,
            proto::Reason::Shutdown => Self::Shutdown,
            proto::Reason::Attestation => Self::Attestation,
            proto::Reason::InvalidJob => Self::InvalidJob,
            proto::Reason::NotAttested => Self::NotAttested,
            proto::Reason::Version => Self::Version,
            proto::Reason::Unspecified | proto::Reason::Internal => Self::Internal,
        }
    }
}

impl From<Reason> for proto::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Stopped => Self::Stopped,
            Reason::Table => Self::Table,
            Reason::OverCap => Self::OverCap,
            Reason::KeyAgreement => Self::KeyAgreement,
            Reason::ConnectionLost => Self::ConnectionLost,
            Reason::Deadline => Self::Deadline,
            Reason::Stranger => Self::Stranger,
            Reason::NameTaken => Self::NameTaken,
            Reason::OtherTerms => Self::OtherTerms,
            Reason::JobRunning => Self::JobRunning,
            Reason::Replaced => Self::Replaced,
            Reason::Protocol => Self::Protocol,
            Reason::NoRoom => Self::NoRoom,
            Reason::Shutdown => Self::Shutdown,
            Reason::Attestation => Self::Attestation,
            Reason::InvalidJob => Self::InvalidJob,
            Reason::NotAttested => Self::NotAttested,
            Reason::Version => Self::Version,
            Reason::Internal => Self::Internal,
        }
    }
}

impl From<Failed> for proto::Failed {
    fn from(failed: Failed) -> Self {
        let mut explanation = failed.explanation;
        if explanation.len() > MAXIMUM_EXPLANATION_BYTES {
            let end = explanation.floor_char_boundary(MAXIMUM_EXPLANATION_BYTES);
            explanation.truncate(end);
        }
        Self {
            reason: proto::Reason::from(failed.reason).into(),
            party: failed.party.unwrap_or_default(),
            explanation,
        }
    }
}
