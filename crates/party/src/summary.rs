//! The end of a run, in figures.

use std::path::PathBuf;

use convelo_psi::{CanaryCounts, JobDigest, Outcome};

use crate::event::Counts;
use crate::providers::VerifiedProvider;
use crate::survey::Survey;

/// What a provider learned, and what happened to its rows.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// The party's name.
    pub party: String,
    /// The job's name.
    pub job: String,
    /// The job's digest.
    pub job_digest: JobDigest,
    /// The protocol between the parties, in a job without a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// Whether the service's evidence is from a simulated platform.
    pub simulated: bool,
    /// Whether every service of the job showed evidence that was accepted.
    pub attested: bool,
    /// Whether every one of them showed it afresh, on the connection itself.
    pub fresh: bool,
    /// The verdict on the service; none if a pinned key took its place.
    pub verdict: Option<serde_json::Value>,
    /// The other providers, whose evidence this party verified; none if the job does not ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<VerifiedProvider>>,
    /// What the table held.
    pub input: Counts,
    /// What else was found in the table.
    #[serde(rename = "table")]
    pub survey: Survey,
    /// What the job revealed to this party.
    pub result: Outcome<Matched, Counted>,
    /// The canaries that the services answered, all of them rightly; none if the job has none, or
    /// if this party got no intersection to check them in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<CanaryCounts>,
    /// Where matched rows were written.
    pub output: Option<PathBuf>,
    /// Where receipts were written: one for each service of the job.
    pub receipts: Vec<PathBuf>,
}

/// An intersection in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matched {
    /// How many of this party's keys every party has.
    pub keys: u64,
    /// How many rows of the table have them.
    pub rows: u64,
}

/// A count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// How many keys every party has.
    pub keys: u64,
}
