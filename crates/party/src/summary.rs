//! The end of a run, in figures.

use std::path::PathBuf;

use convelo_psi::JobDigest;

use crate::event::Counts;

/// What a provider learned, and what became of its rows.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// The party's name.
    pub party: String,
    /// The job's name.
    pub job: String,
    /// The job's digest.
    pub job_digest: JobDigest,
    /// Whether the service's evidence is that of a simulated platform.
    pub simulated: bool,
    /// The verdict on the service; nothing where a pinned key stood in for it.
    pub verdict: Option<serde_json::Value>,
    /// What the table held.
    pub input: Counts,
    /// What the job revealed to this party.
    pub result: Learned,
    /// Where matched rows were written.
    pub output: Option<PathBuf>,
    /// Where receipts were written: one for each service of the job.
    pub receipts: Vec<PathBuf>,
}

/// What a party learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Learned {
    /// Which of its keys every party has.
    Intersection {
        /// How many keys those are.
        keys: u64,
        /// How many rows of the table have them.
        rows: u64,
    },
    /// How many keys every party has.
    Count {
        /// The number.
        keys: u64,
    },
    /// The result is smaller than the job's minimum and withheld from everybody.
    Withheld,
    /// The job gives this party no result.
    Nothing,
}
