//! What happens while a job runs, for a program that shows it to a person.

use std::time::Duration;

use convelo_attest::Verdict;
use convelo_wire::Waiting;

use crate::error::{Error, Kind};
use crate::survey::Survey;

/// One step of a run. Holds no record and no pseudonym.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The service is being dialled for the first time.
    Connecting {
        /// `host:port`.
        address: &'a str,
    },
    /// The service is not answering yet.
    ServiceAbsent {
        /// Why, from the operating system.
        why: String,
        /// The pause before the next attempt.
        retry_in: Duration,
        /// How long attempts will continue.
        give_up_in: Duration,
    },
    /// The connection to the service broke; this party will try to open another.
    ConnectionLost {
        /// Why, in words.
        why: String,
        /// The pause before the next attempt.
        retry_in: Duration,
        /// How long attempts will continue.
        give_up_in: Duration,
    },
    /// There is a new connection, and the job continues.
    Reconnected,
    /// The service's evidence was verified.
    EvidenceVerified(&'a Verdict),
    /// The service proved that it has a pinned key; nobody knows what runs there.
    KeyRecognised,
    /// Other parties are missing.
    Waiting(&'a Waiting),
    /// Every party has arrived.
    Assembled {
        /// Their names, including this party's.
        names: Vec<&'a str>,
        /// Whether the job file pins their keys; otherwise the service vouches for them.
        pinned: bool,
    },
    /// The evidence of another provider was verified, by this party.
    ProviderVerified {
        /// Its name.
        name: &'a str,
        /// What was found.
        verdict: &'a Verdict,
    },
    /// Without a service: other parties can connect here.
    Listening {
        /// `host:port`, as the operating system says it.
        address: &'a str,
    },
    /// Without a service: another party does not answer yet.
    PeerAbsent {
        /// Its name.
        name: &'a str,
        /// Where it was dialled.
        address: &'a str,
        /// Why, in words.
        why: String,
        /// The pause before the next attempt.
        retry_in: Duration,
    },
    /// Without a service: there is a connection to another party, which proved the key that the job pins.
    PeerMet {
        /// Its name.
        name: &'a str,
    },
    /// Without a service: the connection to another party broke.
    PeerLost {
        /// Its name.
        name: &'a str,
        /// Why, in words.
        why: String,
        /// How long another one is waited for.
        give_up_in: Duration,
    },
    /// Without a service: the parties know the sizes of their sets.
    SizesKnown {
        /// How many keys this party sends, padding included.
        own: u64,
        /// The others by name, with as much about them.
        others: Vec<(&'a str, u64)>,
    },
    /// Without a service: the protocol between the parties runs.
    Exchanging {
        /// Steps so far.
        done: u64,
        /// Steps in total.
        total: u64,
    },
    /// All parties hold the same job key.
    KeyAgreed,
    /// The table is being read for the first time.
    Reading {
        /// Bytes so far.
        done: u64,
        /// Bytes in total.
        total: u64,
    },
    /// The table has been read.
    Read {
        /// What it holds.
        counts: Counts,
        /// What else was found in it.
        survey: &'a Survey,
    },
    /// The service knows the size of the set and is waiting to hear those of the others.
    Announced,
    /// The set is being sent.
    Sending {
        /// Keys so far.
        done: u64,
        /// Keys in total.
        total: u64,
    },
    /// Which parties' sets are complete, and which are missing.
    Uploads {
        /// Complete.
        complete: &'a [String],
        /// Missing.
        missing: &'a [String],
    },
    /// The service has all sets and is joining them.
    JoinRunning,
    /// The result has arrived.
    Result,
    /// The table is being read again, and the matched rows are being written.
    Writing {
        /// Bytes so far.
        done: u64,
        /// Bytes in total.
        total: u64,
    },
}

/// What the first pass over a table found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Rows, not counting the header.
    pub rows: u64,
    /// Rows whose key is blank; they are left out.
    pub blank: u64,
    /// Rows whose key cannot be normalised as the job asks; they are left out.
    pub invalid: u64,
    /// Rows whose key an earlier row already has.
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
    /// Notes a step; must not block for long.
    fn on(&self, event: Event<'_>);
}

/// Ignores everything.
impl Observer for () {
    fn on(&self, _: Event<'_>) {}
}
