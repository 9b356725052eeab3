//! What happens while a job runs, for whoever shows it to a person.

use std::time::Duration;

use convelo_attest::Verdict;
use convelo_wire::Waiting;

use crate::error::{Error, Kind};

/// One step of a run. Holds no record and no pseudonym.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The service is being dialled for the first time.
    Connecting {
        /// `host:port`.
        address: &'a str,
    },
    /// The service does not answer yet.
    ServiceAbsent {
        /// Why, from the operating system.
        why: String,
        /// When the next attempt comes.
        retry_in: Duration,
        /// How long attempts go on.
        give_up_in: Duration,
    },
    /// The connection to the service broke, and another shall go on.
    ConnectionLost {
        /// Why, in words.
        why: String,
        /// When the next attempt comes.
        retry_in: Duration,
        /// How long attempts go on.
        give_up_in: Duration,
    },
    /// There is another connection, and the job goes on.
    Reconnected,
    /// The service's evidence was verified.
    EvidenceVerified(&'a Verdict),
    /// The service proved a pinned key; what runs there is not known.
    KeyRecognised,
    /// Other parties are missing.
    Waiting(&'a Waiting),
    /// Every party has come.
    Assembled {
        /// Their names, this party's included.
        names: Vec<&'a str>,
        /// Whether the job file pins their keys; otherwise the service vouches for them.
        pinned: bool,
    },
    /// All parties hold the same job key.
    KeyAgreed,
    /// The table is read for the first time.
    Reading {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The table has been read.
    Read(Counts),
    /// The service knows the size of the set and waits for those of the others.
    Announced,
    /// The set is sent.
    Sending {
        /// Keys so far.
        done: u64,
        /// Keys in all.
        total: u64,
    },
    /// Whose sets are complete, and whose are missing.
    Uploads {
        /// Complete.
        complete: &'a [String],
        /// Missing.
        missing: &'a [String],
    },
    /// The service has all sets and joins them.
    JoinRunning,
    /// The result is there.
    Result,
    /// The table is read again and the matched rows are written.
    Writing {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// What the first pass over a table found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Rows, the header not among them.
    pub rows: u64,
    /// Rows whose key is blank; they take no part.
    pub blank: u64,
    /// Rows whose key cannot be normalised as the job asks; they take no part.
    pub invalid: u64,
    /// Rows whose key an earlier row has.
    pub duplicates: u64,
    /// Distinct keys.
    pub keys: u64,
}

impl Counts {
    /// A party may have no more keys than the job allows it.
    ///
    /// # Errors
    /// If there are more than `cap`.
    pub fn check_cap(self, cap: u64) -> Result<(), Error> {
        let Self { keys, .. } = self;
        if keys <= cap {
            return Ok(());
        }
        let text = format!(
            "the table has {keys} distinct keys and the job allows {cap}; nothing was sent"
        );
        Err(Error::new(Kind::RevealPolicy, text))
    }
}

/// Watches a run. Called from several threads.
pub trait Observer: Send + Sync {
    /// Takes note of a step; must not block for long.
    fn on(&self, event: Event<'_>);
}

/// Nobody watches.
impl Observer for () {
    fn on(&self, _: Event<'_>) {}
}
