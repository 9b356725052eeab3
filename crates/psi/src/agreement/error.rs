//! Why the parties have no job key.

use crate::job::KeyId;

/// Why the parties have no job key. Names the party in question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// The one-time key was signed for another job.
    #[error("the one-time key was made for another job: begin the agreement again")]
    JobChanged,
    /// The wrong number of members.
    #[error(
        "the service shows {found} parties, expected {expected}: it runs another job, or leaves a \
         party out"
    )]
    PartyCount {
        /// Members shown.
        found: usize,
        /// Parties of the job.
        expected: usize,
    },
    /// Someone whom the job does not know.
    #[error("'{name}' is not a party of this job: the service let a stranger in")]
    Stranger {
        /// The stranger's name.
        name: String,
    },
    /// A name that should appear once appears twice.
    #[error("'{name}' appears twice: the service mixed up two parties")]
    Twice {
        /// The name.
        name: String,
    },
    /// Two members show the same key.
    #[error("'{name}' shows the key of another party: the two are one, or it copied the key")]
    SharedKey {
        /// The second of the two.
        name: String,
    },
    /// A member shows another identity key than the one that the job pins for its name.
    #[error(
        "'{name}' shows the key {found}, expected {expected}, which the job pins: someone else uses \
         its name, or the job file has an old key"
    )]
    WrongKey {
        /// The party.
        name: String,
        /// The key shown.
        found: KeyId,
        /// The key in the job.
        expected: KeyId,
    },
    /// An identity key that is not a P-256 key in the usual form.
    #[error("'{name}' shows an identity key that is not an ECDSA P-256 key in DER: make a new one")]
    BadIdentityKey {
        /// The party.
        name: String,
    },
    /// A one-time key that is not signed by its party for this job.
    #[error(
        "the one-time key of '{name}' is not signed by its identity key for this job and name: it \
         was replaced on its way, or belongs to another job"
    )]
    Signature {
        /// The party.
        name: String,
    },
    /// A one-time key to which nothing can be sealed.
    #[error("the one-time key of '{name}' is not a usable X-Wing key: its program is broken")]
    BadOneTimeKey {
        /// The party.
        name: String,
    },
    /// Our own entry among the members is missing or not what we sent.
    #[error(
        "the service shows our own entry '{name}' with a different {what} from the one we sent"
    )]
    OwnEntry {
        /// Our name.
        name: String,
        /// What was changed.
        what: &'static str,
    },
    /// A share that is sealed to someone else.
    #[error(
        "we received a share of '{from}' for '{to}': the service delivered it to the wrong party"
    )]
    NotForUs {
        /// Whose share.
        from: String,
        /// Whom it is for.
        to: String,
    },
    /// A share did not arrive.
    #[error("the share of '{name}' is missing: the service did not deliver it")]
    MissingShare {
        /// Whose share.
        name: String,
    },
    /// A share that cannot be opened.
    #[error(
        "the share of '{name}' cannot be opened: it was altered on its way, belongs to another \
         run, or the service showed its sender different one-time keys from those it showed us"
    )]
    Unreadable {
        /// Whose share.
        name: String,
    },
    /// A confirmation did not arrive.
    #[error("the confirmation of '{name}' is missing: the service did not deliver it")]
    MissingConfirmation {
        /// Whose confirmation.
        name: String,
    },
    /// A confirmation that is not signed by its party for this run.
    #[error(
        "'{name}' did not sign this run with its identity key: its confirmation was altered on its \
         way, or the service plays its part with a one-time key of another run; nothing was sent"
    )]
    NotThisRun {
        /// The party.
        name: String,
    },
    /// A party derived a different key from ours.
    #[error(
        "'{name}' has a different job key from ours: the service or a party showed different \
         things to different parties; nothing was sent"
    )]
    Mismatch {
        /// The party.
        name: String,
    },
}
