//! `convelo receipt`: verifies the record of a finished job.

use std::process::ExitCode;

use convelo_attest::Verdict;
use convelo_party::{ReceiptError, VerifiedReceipt, verify_receipt};
use convelo_psi::Outcome;
use serde_json::json;

use crate::args::Receipt;
use crate::exit::{Code, Failure};
use crate::{files, output};

pub(crate) fn receipt(args: &Receipt) -> Result<ExitCode, Failure> {
    let Receipt::Verify { file, policy, json } = args;
    let text = files::text(file, "the receipt")?;
    let policy = policy.as_deref().map(|path| files::policy(path, None)).transpose()?;
    let verified = verify_receipt(&text, policy.as_ref()).map_err(|error| {
        let code = match error {
            ReceiptError::Form(_) => Code::Usage,
            _ => Code::Attestation,
        };
        Failure::new(code, format!("{}: {error}", file.display()))
    })?;
    let simulated = verified.verdict.as_ref().is_some_and(Verdict::simulated);
    if *json {
        output::json(&json!({
            "party": verified.party,
            "job": verified.job.name(),
            "job_digest": verified.job.digest(),
            "members": verified.members.iter().map(|(name, key)| json!({"name": name, "key": key}))
                .collect::<Vec<_>>(),
            "result": verified.result,
            "joined_at": verified.joined_at,
            "simulated": simulated,
            "verdict": verified.verdict.as_ref().map(Verdict::to_json),
            "checks": verified.checks,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for check in &verified.checks {
        output::data(format_args!("ok  {}: {}", check.name, check.found));
    }
    for line in summary(&verified) {
        output::data(line);
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(verified: &VerifiedReceipt) -> Vec<String> {
    let learned = match verified.result {
        Outcome::Intersection(_) => "which of its own keys every party has".to_owned(),
        Outcome::Count(counted) => {
            format!("that every party has {} keys in common", counted.keys)
        }
        Outcome::Withheld => "that the result was too small to reveal".to_owned(),
        Outcome::Nothing => "nothing".to_owned(),
    };
    let members: Vec<_> = verified.members.iter().map(|(name, _)| name.as_str()).collect();
    let enclave = match &verified.verdict {
        Some(verdict) => verdict.summary().replace(", NOT FRESH", ""),
        None => "NOT ATTESTED: identified only by its pinned key".to_owned(),
    };
    let mut lines = vec![
        format!("the receipt holds: {} learned {learned}", verified.party),
        format!(
            "job {} of {}, digest {}",
            verified.job.name(),
            members.join(", "),
            verified.job.digest()
        ),
        format!("service: {enclave}"),
        "signed by nobody but this party: what its table held, and how many of its rows matched"
            .to_owned(),
    ];
    if verified.verdict.as_ref().is_some_and(Verdict::simulated) {
        lines.push("SIMULATED: nothing here was protected by hardware".to_owned());
    }
    lines
}
