//! Verifies a receipt again: anyone can, at any time, without the network.

use convelo_attest::{Check, Collateral, Evidence, Policy, Refusal, Verdict, verify_listing};
use convelo_psi::reveal::{self, Told};
use convelo_psi::statement::Seen;
use convelo_psi::{CanaryCounts, Job, KeyId, Outcome, OutcomeKind, SignedStatement, Statement};
use convelo_untrusted::shown;

use super::{FORM, FORM_1, Receipt, ServiceEntry, Witness, parties};
use crate::event::Counts;
use crate::limits::MAXIMUM_FILE_BYTES;
use crate::plan::policy_of;
use crate::providers::VerifiedProvider;
use crate::summary::{Counted, Matched};

/// What a reader holds a receipt against. Without any of it, a receipt is judged by the job and the
/// policy that it contains, and whoever wrote it chose those.
#[derive(Clone, Copy, Default)]
pub struct Against<'a> {
    /// The job that the receipt must be about, or a shard of it.
    pub job: Option<&'a Job>,
    /// What must accept the evidence, in addition to the job's own policy.
    pub policy: Option<&'a Policy>,
}

/// A receipt that is valid.
pub struct VerifiedReceipt {
    /// Whose receipt it is.
    pub party: String,
    /// The job.
    pub job: Job,
    /// The parties of the job and their keys.
    pub members: Vec<(String, KeyId)>,
    /// What kind of result this party was told.
    pub result: OutcomeKind,
    /// How many keys all parties have, as far as the service, or the other parties, signed it. None if the party was not
    /// told, or learned it by counting the bits of an intersection whose statement, of version 1,
    /// has no count.
    pub count: Option<u64>,
    /// When the service finished the join, in Unix seconds by its own clock: its statement says so,
    /// and nothing else proves it. Without a service, when the first of the other parties finished, by
    /// its clock.
    pub joined_at: u64,
    /// What the evidence was found to be at that time; none if the job identified the service by a
    /// pinned key, or has no service.
    pub verdict: Option<Verdict>,
    /// Every check that was made, in order.
    pub checks: Vec<Check>,
    /// What this party alone says.
    pub unsigned: Unsigned,
}

/// What is in a receipt and signed by nobody: the party can write whatever it likes there.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Unsigned {
    /// Where the party says that it reached the service, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The other providers whose evidence it says that it verified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<VerifiedProvider>,
    /// What its table held.
    pub input: Counts,
    /// How many of its keys every party has, if the service did not sign that.
    pub keys: Option<u64>,
    /// How many of its rows have them.
    pub rows: Option<u64>,
    /// The canaries that the services answered rightly, over all services of the job.
    pub canaries: Option<CanaryCounts>,
    /// What it noted about its own verification of the service, if there was any.
    pub verification: Option<Verification>,
    /// When the run began, in Unix seconds by the party's clock.
    pub started: u64,
    /// When it ended.
    pub finished: u64,
}

/// What a party noted about its verification of the service, which a reader cannot check.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verification {
    /// Whether the service made a quote for this very connection.
    pub fresh: Option<bool>,
    /// When it verified, by its own clock.
    pub verified_at: Option<String>,
    /// Until when that was good.
    pub expires: Option<String>,
}

/// Why a receipt is not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It cannot be read.
    #[error("this is no receipt of the form {FORM} or {FORM_1}: {0}")]
    Form(String),
    /// A part of it contradicts another, or what the reader holds it against.
    #[error("the receipt does not hold at {check}: found {found}, expected {expected}")]
    Contradiction {
        /// Which check.
        check: &'static str,
        /// What the receipt says.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The service's evidence is refused at the time of the join.
    #[error("the receipt's evidence: {0}")]
    Refused(#[from] Refusal),
}

/// Verifies a receipt: the job and its digest, the service's evidence under the job's policy and the
/// enclosed collateral at the time of the join, the statement's signature by the key of that
/// evidence, and that everything else in the receipt is what the statement says, apart from
/// [`Unsigned`]. Of a job without a service: every other party's signature, by the key that the job pins,
/// over what the receipt says of the run. What the reader holds `against` it must agree, too.
///
/// # Errors
/// [`ReceiptError`], by the first check that fails.
pub fn verify_receipt(text: &str, against: Against<'_>) -> Result<VerifiedReceipt, ReceiptError> {
    if text.len() as u64 > MAXIMUM_FILE_BYTES {
        return Err(ReceiptError::Form(format!("it has {} bytes", text.len())));
    }
    let receipt = read(text).map_err(|error| form(&error))?;
    let mut reader = Reader { checks: Vec::new() };
    let first = receipt.form == FORM_1;
    reader.equal("form", &receipt.form, if first { FORM_1 } else { FORM })?;
    let job = reader.job(&receipt, against.job)?;
    let (service, statement, signature) = match &receipt.witness {
        Witness::Service { service, statement, signature } => (service, statement, signature),
        Witness::Parties { protocol, sid, parties, testimonies, .. } => {
            if against.policy.is_some() {
                let text = "it is of a job without a service, so there is no evidence to hold a policy against";
                return Err(ReceiptError::Form(text.to_owned()));
            }
            let said = parties::Said { protocol, sid, parties, testimonies };
            return parties::verify(reader, &receipt, job, &said);
        }
    };
    if job.service().is_none() {
        return Err(ReceiptError::Contradiction {
            check: "witness",
            found: "a service".to_owned(),
            expected: "the other parties, because the job has no service".to_owned(),
        });
    }
    let certificate = bytes("certificate", &service.certificate)?;
    let spki = convelo_attest::spki_of(&certificate)?;
    let signed = SignedStatement {
        statement: bytes("statement", statement)?,
        signature: bytes("signature", signature)?,
    };
    let statement = signed.verify(&spki).map_err(|error| ReceiptError::Contradiction {
        check: "signature",
        found: error.to_string(),
        expected: "a statement signed by the key of the service's certificate".to_owned(),
    })?;
    if statement.signs_count() == first {
        return Err(ReceiptError::Form("its statement is of another version".to_owned()));
    }
    let signer = KeyId::of_spki(&spki);
    reader.passed("signature", format!("by {signer}"), "the key of the service's certificate");
    reader.equal("service key", &service.key.to_string(), &signer.to_string())?;
    reader.statement(&receipt, &job, &statement)?;
    let verdict =
        reader.evidence(service, &job, &certificate, statement.finished_at, against.policy)?;
    let simulated = verdict.as_ref().is_some_and(Verdict::simulated);
    reader.equal("simulated", &receipt.simulated.to_string(), &simulated.to_string())?;
    let members = statement.members().map(|(name, key)| (name.to_owned(), key)).collect();
    let (keys, rows) = match receipt.result {
        Outcome::Intersection(Matched { keys, rows }) => (Some(keys), Some(rows)),
        Outcome::Count(Counted { keys }) => (Some(keys), None),
        Outcome::Withheld | Outcome::Nothing => (None, None),
    };
    // A count is what its digest is of.
    let signs = statement.signs_count() || statement.told.kind == OutcomeKind::COUNT;
    Ok(VerifiedReceipt {
        party: receipt.party,
        job,
        members,
        result: statement.told.kind,
        count: keys.filter(|_| signs),
        joined_at: statement.finished_at,
        verdict,
        checks: reader.checks,
        unsigned: Unsigned {
            address: Some(service.address.clone()),
            providers: receipt.providers.unwrap_or_default(),
            input: receipt.input,
            keys: keys.filter(|_| !signs),
            rows,
            canaries: receipt.canaries,
            verification: service.verdict.as_ref().map(verification),
            started: receipt.times.started,
            finished: receipt.times.finished,
        },
    })
}

pub(super) struct Reader {
    pub(super) checks: Vec<Check>,
}

impl Reader {
    pub(super) fn passed(&mut self, name: &'static str, found: String, expected: &str) {
        self.checks.push(Check { name, found, expected: expected.to_owned() });
    }

    pub(super) fn equal(
        &mut self,
        check: &'static str,
        found: &str,
        expected: &str,
    ) -> Result<(), ReceiptError> {
        if found != expected {
            let (found, expected) = (shown(found), shown(expected));
            return Err(ReceiptError::Contradiction { check, found, expected });
        }
        if self.checks.last().is_none_or(|last| last.name != check) {
            self.passed(check, shown(found), &shown(expected));
        }
        Ok(())
    }

    fn job(&mut self, receipt: &Receipt, of_reader: Option<&Job>) -> Result<Job, ReceiptError> {
        let canonical = serde_json_canonicalizer::to_vec(&receipt.job)
            .map_err(|error| ReceiptError::Form(format!("its job: {error}")))?;
        let job = Job::from_canonical(&canonical)
            .map_err(|error| ReceiptError::Form(format!("its job: {error}")))?;
        let digest = job.digest().to_string();
        self.equal("job digest", &receipt.job_digest.to_string(), &digest)?;
        if let Some(of_reader) = of_reader {
            if !of_reader.shards().contains(&job) {
                return Err(ReceiptError::Contradiction {
                    check: "the reader's job",
                    found: format!("{digest} ({})", job.differences(of_reader).join("; ")),
                    expected: of_reader.digest().to_string(),
                });
            }
            self.passed("the reader's job", digest, "the job, or a shard of it");
        }
        Ok(job)
    }

    /// Checks that everything the receipt says in words is what the service signed.
    fn statement(
        &mut self,
        receipt: &Receipt,
        job: &Job,
        statement: &Statement,
    ) -> Result<(), ReceiptError> {
        let told = matches!(receipt.result, Outcome::Intersection(_) | Outcome::Count(_));
        let digest = match (told, &receipt.result_sha256) {
            (true, Some(text)) => digest("result", text)?,
            (false, None) => [0; 32],
            (true, None) => return Err(ReceiptError::Form("its result has no digest".to_owned())),
            (false, Some(_)) => {
                return Err(ReceiptError::Form(
                    "it has no result, but the digest of one".to_owned(),
                ));
            }
        };
        let count = match receipt.result {
            Outcome::Intersection(Matched { keys, .. }) | Outcome::Count(Counted { keys }) => keys,
            Outcome::Withheld | Outcome::Nothing => 0,
        };
        let seen = Seen {
            job: job.digest(),
            party: &receipt.party,
            members: receipt.members.iter().map(|entry| (&*entry.name, entry.key)).collect(),
            keys: receipt.sent.keys,
            set_blake3: self::digest("set", &receipt.sent.blake3)?,
            told: Told { kind: receipt.result.kind(), count, sha256: digest },
            transcript: None,
        };
        for comparison in statement.compare(&seen) {
            self.equal(comparison.what, &comparison.expected, &comparison.found)?;
        }
        for party in job.parties().named() {
            let key = seen.members.iter().find(|(name, _)| *name == party.name);
            let key = key.map_or_else(|| "none".to_owned(), |(_, key)| key.to_string());
            self.equal("pinned keys of the parties", &key, &party.key.to_string())?;
        }
        let time = statement.finished_at.to_string();
        self.equal("time of the join", &receipt.times.joined.to_string(), &time)?;
        let allowed = reveal::allows(
            job,
            &receipt.party,
            receipt.result.map(|matched| matched.keys, |counted| counted.keys),
        );
        let kind = receipt.result.as_str();
        let terms = "as the job says";
        self.equal("reveal policy", if allowed { terms } else { kind }, terms)?;
        if let Outcome::Count(Counted { keys }) = receipt.result {
            let told = hex::encode(reveal::sha256_of_count(keys));
            self.equal("count", &told, &hex::encode(digest))?;
        }
        Ok(())
    }

    /// Verifies the certificate's evidence under the job's policy and the reader's, at the time of
    /// the join. Where neither has a policy, the service is known by its key alone.
    fn evidence(
        &mut self,
        noted: &ServiceEntry,
        job: &Job,
        certificate: &[u8],
        then: u64,
        of_reader: Option<&Policy>,
    ) -> Result<Option<Verdict>, ReceiptError> {
        let pinned = job.service().and_then(|service| service.key);
        let of_job = policy_of(job).map_err(|error| ReceiptError::Form(error.to_string()))?;
        let Some(policy) = of_job.as_ref().or(of_reader) else {
            let pinned = pinned.map_or_else(|| "none".to_owned(), |key| key.to_string());
            self.equal("pinned key, NOT ATTESTED", &noted.key.to_string(), &pinned)?;
            return Ok(None);
        };
        let Some(collateral) = &noted.collateral else {
            return Err(ReceiptError::Form(
                "it encloses no collateral, so no policy can be applied to the service's evidence"
                    .to_owned(),
            ));
        };
        let collateral = Collateral::from_json(collateral)
            .map_err(|error| ReceiptError::Form(error.to_string()))?;
        let evidence =
            Evidence::from_certificate(certificate, then)?.ok_or_else(Refusal::missing_evidence)?;
        let verdict = verify_listing(&evidence, &collateral, policy, then, &mut self.checks)?;
        let found = verdict.to_json();
        let measured = verdict.measurements().fields();
        let said = noted.verdict.as_ref().and_then(serde_json::Value::as_object);
        let text = |value: Option<&serde_json::Value>| value.map(ToString::to_string);
        for name in NOTED.into_iter().chain(measured.iter().map(|(name, _)| *name)) {
            let said = text(said.and_then(|said| said.get(name))).unwrap_or_default();
            self.equal("noted verdict", &said, &found[name].to_string())?;
        }
        for (name, said) in said.into_iter().flatten() {
            if !OWN_WORD.contains(&name.as_str()) {
                let expected =
                    text(found.get(name)).unwrap_or_else(|| format!("no field {name:?}"));
                self.equal("noted verdict", &said.to_string(), &expected)?;
            }
        }
        if let Some(policy) = of_reader {
            verify_listing(&evidence, &collateral, policy, then, &mut Vec::new())?;
            self.passed("the reader's policy", "accepts the evidence".to_owned(), "to accept it");
        }
        if let Some(key) = pinned {
            self.equal("pinned key", &noted.key.to_string(), &key.to_string())?;
        }
        Ok(Some(verdict))
    }
}

/// What the party noted about its verification that a reader cannot compute again.
const OWN_WORD: [&str; 4] = ["fresh", "verified_at", "expires", "checks"];

fn verification(noted: &serde_json::Value) -> Verification {
    let text = |name: &str| noted.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    Verification {
        fresh: noted.get("fresh").and_then(serde_json::Value::as_bool),
        verified_at: text("verified_at"),
        expires: text("expires"),
    }
}

/// What every receipt notes about its verdict, in addition to the measurements. A reader computes this and
/// all other notes again, except for [`OWN_WORD`], and compares.
const NOTED: [&str; 7] = [
    "simulated",
    "tee",
    "enclave",
    "tcb_status",
    "advisories",
    "collateral_sha256",
    "policy_sha256",
];

pub(super) fn bytes(what: &'static str, text: &str) -> Result<Vec<u8>, ReceiptError> {
    hex::decode(text).map_err(|error| ReceiptError::Form(format!("its {what}: {error}")))
}

pub(super) fn digest(what: &'static str, text: &str) -> Result<[u8; 32], ReceiptError> {
    let bytes = bytes(what, text)?;
    let length = bytes.len();
    let digest = bytes.try_into();
    digest.map_err(|_| ReceiptError::Form(format!("the digest of its {what} has {length} bytes")))
}

/// The message may repeat what the receipt says.
fn form(error: &dyn std::fmt::Display) -> ReceiptError {
    ReceiptError::Form(shown(&error.to_string()))
}

/// Reads a receipt that repeats nothing and contains nothing that receipts do not have.
fn read(text: &str) -> serde_json::Result<Receipt> {
    let named = serde_json::from_str::<serde_json::Value>(text)?.get("witness").is_some();
    if named {
        return serde_json::from_str(text);
    }
    // The first receipts do not name their witness; it is the service.
    serde_json::from_str(&text.replacen('{', "{\"witness\": \"service\",", 1))
}
