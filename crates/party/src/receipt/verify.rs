//! A receipt read again, by anybody, at any time, without the network.

use convelo_attest::{Check, Collateral, Evidence, Policy, Refusal, Verdict, verify_listing};
use convelo_psi::{Job, KeyId, Mode, What};
use convelo_wire::Statement;
use sha2::{Digest as _, Sha256};

use super::{FORM, Receipt, Signed};
use crate::limits::MAXIMUM_FILE_BYTES;
use crate::summary::Learned;

/// A receipt that holds.
pub struct VerifiedReceipt {
    /// Whose receipt it is.
    pub party: String,
    /// The job.
    pub job: Job,
    /// The parties of the job and their keys.
    pub members: Vec<(String, KeyId)>,
    /// What this party learned.
    pub result: Learned,
    /// When the service finished the join, in Unix seconds by its own clock, which its statement
    /// says and nothing else proves.
    pub joined_at: u64,
    /// What the evidence was found to be at that time; nothing where the job had the service known by
    /// a pinned key.
    pub verdict: Option<Verdict>,
    /// Every check that was made, in order.
    pub checks: Vec<Check>,
}

/// Why a receipt does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It cannot be read.
    #[error("this is no receipt of the form {FORM}: {0}")]
    Form(String),
    /// A part of it contradicts another.
    #[error("the receipt does not hold at {check}: found {found}; required {required}")]
    Contradiction {
        /// Which check.
        check: &'static str,
        /// What the receipt says.
        found: String,
        /// What it would have to say.
        required: String,
    },
    /// The service's evidence is refused under the job's policy, at the time of the join.
    #[error("the receipt's evidence: {0}")]
    Refused(#[from] Refusal),
}

/// Verifies a receipt: the job and its digest, the service's evidence under the job's policy and the
/// enclosed collateral at the time of the join, the statement's signature by the key of that
/// evidence, and that everything else in the receipt is what the statement says. A `policy` of the
/// reader's own must accept the evidence, too.
///
/// # Errors
/// [`ReceiptError`], by the first check that fails.
pub fn verify_receipt(
    text: &str,
    policy: Option<&Policy>,
) -> Result<VerifiedReceipt, ReceiptError> {
    if text.len() as u64 > MAXIMUM_FILE_BYTES {
        return Err(ReceiptError::Form(format!("it has {} bytes", text.len())));
    }
    let receipt: Receipt =
        serde_json::from_str(text).map_err(|error| ReceiptError::Form(error.to_string()))?;
    let mut reader = Reader { checks: Vec::new() };
    reader.equal("form", &receipt.form, FORM)?;
    let job = reader.job(&receipt)?;
    let certificate = bytes("certificate", &receipt.service.certificate)?;
    let spki = convelo_attest::spki_of(&certificate)?;
    let signed = Signed {
        statement: bytes("statement", &receipt.statement)?,
        signature: bytes("signature", &receipt.signature)?,
    };
    let statement = signed.verify(&spki).map_err(|error| ReceiptError::Contradiction {
        check: "signature",
        found: error.to_string(),
        required: "a statement signed by the key of the service's certificate".to_owned(),
    })?;
    let signer = KeyId::of_spki(&spki);
    reader.passed("signature", format!("by {signer}"), "the key of the service's certificate");
    reader.equal("service key", &receipt.service.key.to_string(), &signer.to_string())?;
    reader.statement(&receipt, &job, &statement)?;
    let verdict = reader.evidence(&receipt, &job, &certificate, &statement, policy)?;
    let simulated = verdict.as_ref().is_some_and(Verdict::simulated);
    reader.equal("simulated", &receipt.simulated.to_string(), &simulated.to_string())?;
    let members = statement
        .members
        .iter()
        .map(|member| (member.name.clone(), KeyId::of_spki(&member.spki)))
        .collect();
    Ok(VerifiedReceipt {
        party: receipt.party,
        job,
        members,
        result: receipt.result,
        joined_at: statement.finished_at,
        verdict,
        checks: reader.checks,
    })
}

struct Reader {
    checks: Vec<Check>,
}

impl Reader {
    fn passed(&mut self, name: &'static str, found: String, required: &str) {
        self.checks.push(Check { name, found, required: required.to_owned() });
    }

    fn equal(
        &mut self,
        check: &'static str,
        found: &str,
        required: &str,
    ) -> Result<(), ReceiptError> {
        if found != required {
            return Err(ReceiptError::Contradiction {
                check,
                found: found.to_owned(),
                required: required.to_owned(),
            });
        }
        if self.checks.last().is_none_or(|last| last.name != check) {
            self.passed(check, found.to_owned(), required);
        }
        Ok(())
    }

    fn job(&mut self, receipt: &Receipt) -> Result<Job, ReceiptError> {
        let canonical = serde_json_canonicalizer::to_vec(&receipt.job)
            .map_err(|error| ReceiptError::Form(format!("its job: {error}")))?;
        let job = Job::from_canonical(&canonical)
            .map_err(|error| ReceiptError::Form(format!("its job: {error}")))?;
        let digest = job.digest().to_string();
        self.equal("job digest", &receipt.job_digest.to_string(), &digest)?;
        Ok(job)
    }

    /// Everything that the receipt says in words is what the service signed.
    fn statement(
        &mut self,
        receipt: &Receipt,
        job: &Job,
        statement: &Statement,
    ) -> Result<(), ReceiptError> {
        self.equal("statement's job", &statement.job.to_string(), &job.digest().to_string())?;
        self.equal("party", &receipt.party, &statement.party)?;
        if let Some(party) = job.party(&receipt.party) {
            let (found, required) = (statement.party_key.to_string(), party.key.to_string());
            self.equal("party's key", &found, &required)?;
        }
        let told: Vec<_> = receipt
            .members
            .iter()
            .map(|member| format!("{} {}", member.name, member.key))
            .collect();
        let signed: Vec<_> = statement
            .members
            .iter()
            .map(|member| format!("{} {}", member.name, KeyId::of_spki(&member.spki)))
            .collect();
        self.equal("members", &told.join(", "), &signed.join(", "))?;
        self.equal("keys sent", &receipt.sent.keys.to_string(), &statement.keys.to_string())?;
        self.equal("set sent", &receipt.sent.blake3, &hex::encode(statement.set_blake3))?;
        let time = statement.finished_at.to_string();
        self.equal("time of the join", &receipt.times.joined.to_string(), &time)?;
        let kind = match receipt.result {
            Learned::Intersection { .. } => "intersection",
            Learned::Count { .. } => "count",
            Learned::Withheld => "withheld",
            Learned::Nothing => "nothing",
        };
        self.equal("kind of result", kind, statement.kind.as_str())?;
        let entitled = match receipt.result {
            Learned::Nothing => !job.learns(&receipt.party),
            Learned::Intersection { .. } => {
                job.learns(&receipt.party) && job.reveal().what == What::Intersection
            }
            Learned::Count { .. } => job.learns(&receipt.party) && job.reveal().what == What::Count,
            Learned::Withheld => job.learns(&receipt.party) && job.reveal().minimum > 0,
        };
        self.equal(
            "reveal policy",
            if entitled { "as the job says" } else { kind },
            "as the job says",
        )?;
        let digest = statement.result_sha256.map(hex::encode).unwrap_or_default();
        self.equal("result", receipt.result_sha256.as_deref().unwrap_or_default(), &digest)?;
        if let Learned::Count { keys } = receipt.result {
            let told = hex::encode(Sha256::digest(keys.to_be_bytes()));
            self.equal("count", &told, &digest)?;
        }
        Ok(())
    }

    /// The evidence of the certificate, under the job's policy, at the time of the join.
    fn evidence(
        &mut self,
        receipt: &Receipt,
        job: &Job,
        certificate: &[u8],
        statement: &Statement,
        own: Option<&Policy>,
    ) -> Result<Option<Verdict>, ReceiptError> {
        let Mode::Attested(service) = job.mode();
        let Some(policy) = service.policy() else {
            let pinned = service.key.map_or_else(|| "none".to_owned(), |key| key.to_string());
            self.equal("pinned key, NOT ATTESTED", &receipt.service.key.to_string(), &pinned)?;
            return Ok(None);
        };
        let policy = Policy::from_json(policy)
            .map_err(|error| ReceiptError::Form(format!("its job's policy: {error}")))?;
        let Some(collateral) = &receipt.service.collateral else {
            return Err(ReceiptError::Form("it encloses no collateral".to_owned()));
        };
        let collateral = Collateral::from_json(collateral)
            .map_err(|error| ReceiptError::Form(error.to_string()))?;
        let then = statement.finished_at;
        let evidence =
            Evidence::from_certificate(certificate, then)?.ok_or_else(Refusal::missing_evidence)?;
        let verdict = verify_listing(&evidence, &collateral, &policy, then, &mut self.checks)?;
        let (noted, found) = (receipt.service.verdict.as_ref(), verdict.to_json());
        let measured = verdict.measurements().fields();
        for name in NOTED.into_iter().chain(measured.iter().map(|(name, _)| *name)) {
            let noted = noted.and_then(|noted| noted.get(name)).map(ToString::to_string);
            self.equal("noted verdict", &noted.unwrap_or_default(), &found[name].to_string())?;
        }
        if let Some(own) = own {
            verify_listing(&evidence, &collateral, own, then, &mut Vec::new())?;
            self.passed("the reader's policy", "accepts the evidence".to_owned(), "to accept it");
        }
        if let Some(key) = service.key {
            self.equal("pinned key", &receipt.service.key.to_string(), &key.to_string())?;
        }
        Ok(Some(verdict))
    }
}

/// What the party noted of its verdict and is found again, beside the measurements: everything but
/// times.
const NOTED: [&str; 7] = [
    "simulated",
    "tee",
    "enclave",
    "tcb_status",
    "advisories",
    "collateral_sha256",
    "policy_sha256",
];

fn bytes(what: &'static str, text: &str) -> Result<Vec<u8>, ReceiptError> {
    hex::decode(text).map_err(|error| ReceiptError::Form(format!("its {what}: {error}")))
}
