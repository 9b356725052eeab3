//! `convelo receipt`: verifies the record of a finished job.

use std::process::ExitCode;

use convelo_attest::Verdict;
use convelo_party::{
    Against, ReceiptError, Unsigned, Verification, VerifiedReceipt, verify_receipt,
};
use convelo_psi::OutcomeKind;
use serde_json::json;

use crate::args::Receipt;
use crate::clock::date;
use crate::exit::{Code, Failure};
use crate::{files, output, plan};

pub(crate) fn receipt(args: &Receipt) -> Result<ExitCode, Failure> {
    let Receipt::Verify { file, job, policy, json } = args;
    let text = files::text(file, "the receipt")?;
    let job = job.as_deref().map(files::job).transpose()?;
    let policy = policy.as_deref().map(|path| files::policy(path, None)).transpose()?;
    let against = Against { job: job.as_ref(), policy: policy.as_ref() };
    let verified = verify_receipt(&text, against).map_err(|error| {
        let code = match error {
            ReceiptError::Form(_) => Code::Usage,
            _ => Code::Attestation,
        };
        Failure::new(code, format!("{}: {error}", file.display()))
    })?;
    let simulated = verified.verdict.as_ref().is_some_and(Verdict::simulated);
    let learned = learned_by_others(&verified);
    if *json {
        let mut verdict = verified.verdict.as_ref().map(Verdict::to_json);
        if let Some(verdict) = verdict.as_mut().and_then(serde_json::Value::as_object_mut) {
            // They are among the checks of the receipt, and nobody asks a receipt for a fresh quote.
            verdict.remove("checks");
            verdict.remove("fresh");
        }
        output::json(&json!({
            "ok": true,
            "party": verified.party,
            "job": verified.job.name(),
            "job_digest": verified.job.digest(),
            "members": verified.members.iter().map(|(name, key)| json!({"name": name, "key": key}))
                .collect::<Vec<_>>(),
            "result": {
                "kind": verified.result.outcome((), ()).as_str(),
                "keys": verified.count,
            },
            "joined_at": verified.joined_at,
            "protocol": verified.job.protocol().map(convelo_psi::Protocol::as_str),
            "simulated": simulated,
            "verdict": verdict,
            "learned": verified.members.iter()
                .map(|(name, _)| (name.clone(), json!(plan::learns(&verified.job, name))))
                .collect::<serde_json::Map<_, _>>(),
            "held_against": {"job": job.is_some(), "policy": policy.is_some()},
            "unsigned": verified.unsigned,
            "checks": verified.checks,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for check in &verified.checks {
        let found = match check.found.parse() {
            Ok(seconds) if check.name == "time of the join" => date(seconds),
            _ => check.found.clone(),
        };
        output::data(format_args!("ok  {}: {found}", check.name));
    }
    for line in summary(&verified, against).into_iter().chain(learned) {
        output::data(line);
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(verified: &VerifiedReceipt, against: Against<'_>) -> Vec<String> {
    let learned = match (verified.result, verified.count) {
        (OutcomeKind::INTERSECTION, Some(keys)) => {
            format!("which of its own keys every party has: {keys}")
        }
        (OutcomeKind::INTERSECTION, None) => "which of its own keys every party has".to_owned(),
        (OutcomeKind::COUNT, keys) => {
            format!("that every party has {} keys in common", keys.unwrap_or_default())
        }
        (OutcomeKind::WITHHELD, _) => "that the result was too small to reveal".to_owned(),
        _ => "nothing".to_owned(),
    };
    let members: Vec<_> = verified.members.iter().map(|(name, _)| name.as_str()).collect();
    let mut lines = vec![
        format!("the receipt holds: {} learned {learned}", verified.party),
        format!(
            "job {} of {}, digest {}",
            verified.job.name(),
            members.join(", "),
            verified.job.digest()
        ),
    ];
    lines.extend(witnesses(verified));
    lines.extend([judged_by(against).to_owned(), unsigned(&verified.unsigned)]);
    let fresh = verified.unsigned.verification.as_ref().map(|noted| noted.fresh);
    if fresh.is_some_and(|fresh| fresh != Some(true)) {
        lines.push(
            "NOT FRESH: by its own word, the party did not have the service prove itself on the connection; \
             whoever has the key of its certificate could have been the service"
                .to_owned(),
        );
    }
    if verified.verdict.as_ref().is_some_and(Verdict::simulated) {
        lines.push("SIMULATED: nothing here was protected by hardware".to_owned());
    }
    lines
}

/// Who vouches for what the receipt says.
fn witnesses(verified: &VerifiedReceipt) -> Vec<String> {
    if let Some(protocol) = verified.job.protocol() {
        return vec![format!(
            "no service: the other parties signed what they saw of the run by {}; a party's word for what it \
             put into it is its own",
            protocol.as_str()
        )];
    }
    let enclave = match &verified.verdict {
        Some(verdict) => verdict.brief(),
        None => "NOT ATTESTED: identified only by its pinned key".to_owned(),
    };
    let platforms = verified.verdict.as_ref().map_or("any machine", Verdict::platforms_in_words);
    vec![format!("service: {enclave}"), format!("platforms accepted: {platforms}")]
}

/// What the job gave the other parties, as far as it was not withheld.
fn learned_by_others(verified: &VerifiedReceipt) -> Vec<String> {
    let others = verified.members.iter().filter(|(name, _)| *name != verified.party);
    let withheld = verified.result == OutcomeKind::WITHHELD;
    others
        .map(|(name, _)| match plan::learns(&verified.job, name) {
            "nothing" => format!("{name} learned nothing"),
            _ if withheld => format!("{name} learned that the result was too small to reveal"),
            learned => format!("{name} learned {learned}"),
        })
        .collect()
}

/// What the receipt was held against.
fn judged_by(against: Against<'_>) -> &'static str {
    match (against.job, against.policy) {
        (None, None) => {
            "judged by the job and policy that it contains, which whoever wrote it chose: --job FILE or \
             --policy FILE holds it against yours"
        }
        (Some(_), None) => "held against your job and the policy in it",
        (None, Some(_)) => "held against your policy; the job is the one that it contains",
        (Some(_), Some(_)) => "held against your job and your policy",
    }
}

/// What the party could have written as it liked.
fn unsigned(unsigned: &Unsigned) -> String {
    let Unsigned {
        address,
        providers,
        input,
        keys,
        rows,
        canaries,
        verification,
        started,
        finished,
    } = unsigned;
    let mut says = vec![format!(
        "its table had {} rows and {} keys ({} blank, {} invalid, {} duplicates)",
        input.rows, input.keys, input.blank, input.invalid, input.duplicates
    )];
    says.extend(keys.map(|keys| format!("{keys} keys matched")));
    says.extend(rows.map(|rows| format!("{rows} rows matched")));
    says.extend(canaries.map(|canaries| {
        format!("all {} canaries were answered rightly", canaries.in_all + canaries.not_in_all)
    }));
    if !providers.is_empty() {
        let names: Vec<_> = providers.iter().map(|other| format!("{:?}", other.name)).collect();
        says.push(format!("it verified the evidence of {}", names.join(", ")));
    }
    if let Some(Verification { fresh, verified_at: Some(at), expires: Some(until) }) = verification
    {
        let fresh = match fresh {
            Some(true) => "with a fresh quote",
            _ => "NOT FRESH: without a quote for its connection",
        };
        says.push(format!("it verified the service at {at:?}, good until {until:?}, {fresh}"));
    }
    says.extend(address.iter().map(|address| format!("the service was at {address:?}")));
    says.push(format!("the run took from {} to {}", date(*started), date(*finished)));
    format!("UNSIGNED, this party's word alone: {}", says.join("; "))
}
