//! What a provider brings to a job.

use std::path::PathBuf;
use std::sync::Arc;

use convelo_attest::QuoteSource;
use convelo_channel::{Expect, Identity};
use convelo_psi::Job;

use crate::spill::Memory;

/// Everything a provider brings to a job.
pub struct Run {
    /// The job, identical at every party.
    pub job: Job,
    /// The name under which the job lists this party.
    pub name: String,
    /// The party's key.
    pub identity: Identity,
    /// Where evidence about this party comes from, where the job asks for it.
    pub source: Option<Arc<dyn QuoteSource>>,
    /// `host:port` of each of the job's services, in their order.
    pub addresses: Vec<String>,
    /// What the service must prove.
    pub expect: Expect,
    /// Asks the service for no fresh attestation of the connection: plain RA-TLS, as services of
    /// other make speak it. The verdict then rests on a key that an enclave made at some time.
    pub insecure_ratls_only: bool,
    /// How much memory the run may take, and where it puts keys that do not fit.
    pub memory: Memory,
    /// Where matched rows go; nothing is written for the other kinds of result.
    pub output: Option<Destination>,
    /// Where the receipt goes.
    pub receipt: Option<PathBuf>,
}

/// Where matched rows go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A file; every matched row, duplicates too, in input order.
    File(PathBuf),
    /// Standard output.
    Stdout {
        /// Whether only the first of rows with the same key goes there.
        only_first: bool,
    },
}
