//! The receipt of a finished job: what was agreed, who took part, what was sent and learned, and
//! who is the witness.

mod parties;
mod verify;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use convelo_psi::{
    CanaryCounts, Job, JobDigest, KeyId, Outcome, Shard, SignedStatement, Statement,
};
use serde::{Deserialize, Serialize};

use crate::direct::testimony::{Announced, SignedTestimony, Testimony};
use crate::error::{Error, Kind};
use crate::event::Counts;
use crate::providers::VerifiedProvider;
use crate::shards;
use crate::summary::{Counted, Matched, Summary};

pub use verify::{Against, ReceiptError, Unsigned, Verification, VerifiedReceipt, verify_receipt};

/// Who signed for whom, in a job without a service.
pub(crate) struct Parties<'w> {
    /// What this party saw.
    pub(crate) own: &'w Testimony,
    /// The salt of its commitment.
    pub(crate) salt: [u8; 32],
    /// What the others signed.
    pub(crate) testimonies: &'w [SignedTestimony],
}

/// Who the service was.
pub(crate) struct Service {
    pub(crate) address: String,
    pub(crate) key: KeyId,
    pub(crate) certificate: Vec<u8>,
    pub(crate) collateral: Option<String>,
}

/// A receipt, as JSON. Holds no record and no pseudonym; it does hold what this party learned, in
/// numbers. With it anyone can verify the statement again, without help.
#[derive(Serialize, Deserialize)]
pub(crate) struct Receipt {
    form: String,
    simulated: bool,
    party: String,
    job_digest: JobDigest,
    job: serde_json::Value,
    #[serde(flatten)]
    witness: Witness,
    members: Vec<MemberEntry>,
    /// The other providers, whose evidence this party verified, by its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    providers: Option<Vec<VerifiedProvider>>,
    input: Counts,
    sent: Sent,
    result: Outcome<Matched, Counted>,
    result_sha256: Option<String>,
    /// The canaries that this party checked, by its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    canaries: Option<CanaryCounts>,
    times: Times,
}

/// Who is the witness to what a receipt says, and the proof.
#[derive(Serialize, Deserialize)]
#[serde(tag = "witness", rename_all = "kebab-case", deny_unknown_fields)]
enum Witness {
    /// The attested service, with its evidence and its signed statement.
    Service { service: ServiceEntry, statement: String, signature: String },
    /// The other parties, with what each signed about what it saw.
    Parties {
        protocol: String,
        sid: String,
        /// With it, this party can show somebody the set that it committed to; without it, the
        /// commitment says nothing about the set.
        salt: String,
        parties: Vec<PartyEntry>,
        testimonies: Vec<TestimonyEntry>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartyEntry {
    name: String,
    /// What it announced of its set, if it told this party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<Sent>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestimonyEntry {
    testimony: String,
    signature: String,
    public_key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    address: String,
    key: KeyId,
    verdict: Option<serde_json::Value>,
    certificate: String,
    /// The collateral used to verify the certificate's evidence, as its exact text.
    collateral: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    name: String,
    key: KeyId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    keys: u64,
    /// Over the set; without a service, under the salt.
    blake3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Times {
    started: u64,
    joined: u64,
    finished: u64,
}

/// The form of receipt that this version writes.
const FORM: &str = "convelo/receipt/v2";

/// The form before, which is still read: the statement in it does not cover the count.
const FORM_1: &str = "convelo/receipt/v1";

impl Receipt {
    pub(crate) fn new(
        job: &Job,
        summary: &Summary,
        statement: &Statement,
        signed: &SignedStatement,
        service: Service,
        (started, finished): (u64, u64),
    ) -> Self {
        Self {
            form: FORM.to_owned(),
            simulated: summary.simulated,
            party: summary.party.clone(),
            job_digest: summary.job_digest,
            job: serde_json::from_str(job.canonical()).expect("canonical JSON is JSON"),
            witness: Witness::Service {
                service: ServiceEntry {
                    address: service.address,
                    key: service.key,
                    verdict: summary.verdict.clone(),
                    certificate: hex::encode(service.certificate),
                    collateral: service.collateral,
                },
                statement: hex::encode(&signed.statement),
                signature: hex::encode(&signed.signature),
            },
            members: statement
                .members()
                .map(|(name, key)| MemberEntry { name: name.to_owned(), key })
                .collect(),
            providers: summary.providers.clone(),
            input: summary.input,
            sent: Sent { keys: statement.keys, blake3: hex::encode(statement.set_blake3) },
            result: summary.result,
            result_sha256: match statement.told.sha256() {
                Outcome::Intersection(digest) | Outcome::Count(digest) => Some(hex::encode(digest)),
                Outcome::Withheld | Outcome::Nothing => None,
            },
            canaries: summary.canaries,
            times: Times { started, joined: statement.finished_at, finished },
        }
    }

    /// The receipt of a job without a service.
    pub(crate) fn of_parties(
        job: &Job,
        summary: &Summary,
        parties: &Parties<'_>,
        (started, finished): (u64, u64),
    ) -> Self {
        let own = parties.own;
        let entry = |party: &Announced| PartyEntry {
            name: party.name.clone(),
            set: party.set.map(|set| Sent { keys: set.keys, blake3: hex::encode(set.commitment) }),
        };
        let signed = |signed: &SignedTestimony| TestimonyEntry {
            testimony: hex::encode(&signed.testimony),
            signature: hex::encode(&signed.signature),
            public_key: hex::encode(&signed.spki),
        };
        let sent = own.parties.iter().find(|party| party.name == summary.party);
        let sent = sent.and_then(|party| party.set);
        Self {
            form: FORM.to_owned(),
            simulated: false,
            party: summary.party.clone(),
            job_digest: summary.job_digest,
            job: serde_json::from_str(job.canonical()).expect("canonical JSON is JSON"),
            witness: Witness::Parties {
                protocol: own.protocol.as_str().to_owned(),
                sid: hex::encode(own.sid),
                salt: hex::encode(parties.salt),
                parties: own.parties.iter().map(entry).collect(),
                testimonies: parties.testimonies.iter().map(signed).collect(),
            },
            members: own
                .parties
                .iter()
                .map(|party| MemberEntry { name: party.name.clone(), key: party.key })
                .collect(),
            providers: None,
            input: summary.input,
            sent: Sent {
                keys: sent.map_or(0, |sent| sent.keys),
                blake3: sent.map(|sent| hex::encode(sent.commitment)).unwrap_or_default(),
            },
            result: summary.result,
            result_sha256: None,
            canaries: None,
            times: Times { started, joined: own.finished_at, finished },
        }
    }

    /// Writes the receipt, whole or not at all, to the first of `names` that is free: `path`, or one like
    /// it. Returns that name, without the number of the shard.
    pub(crate) fn write(
        &self,
        path: &Path,
        names: impl IntoIterator<Item = PathBuf>,
        shard: Option<Shard>,
    ) -> Result<PathBuf, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Job, format!("cannot write the receipt {}: {error}", path.display()))
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The library's error names its own file.
        let mut file =
            tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error.kind()))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .map_err(|error| failed(&error))?;
        shards::put(file, names, shard).map_err(|error| failed(&error))
    }
}
