//! `convelo attest`: inspects, verifies and makes evidence.

use std::process::ExitCode;

use convelo_attest::{Check, Evidence, Refusal, Verdict, inspect, verify_listing};
use convelo_channel::Identity;
use serde_json::json;

use crate::args::Attest;
use crate::clock::unix_now;
use crate::evidence::{self, Carrier};
use crate::exit::{Code, Failure};
use crate::{files, output, platform};

pub(crate) async fn attest(args: Attest) -> Result<ExitCode, Failure> {
    match args {
        Attest::Inspect { from, json } => looked_at(&from, json).await,
        Attest::Verify {
            from,
            policy,
            collateral,
            insecure_simulated_root,
            report_data,
            at,
            json,
        } => {
            let root = insecure_simulated_root.as_deref();
            let accepted = files::policy(&policy, root)?;
            let collateral = files::collateral(collateral.collateral.as_deref(), &policy)?;
            let report_data = report_data.as_deref().map(evidence::report_data).transpose()?;
            let carrier = evidence::read(&from).await?;
            let now = at.unwrap_or_else(unix_now);
            let (evidence, proves) = match (&carrier, &report_data) {
                (Carrier::Certificate(der), None) => {
                    let evidence = Evidence::from_certificate(der, now)
                        .and_then(|evidence| evidence.ok_or_else(Refusal::missing_evidence));
                    (evidence, "only the certificate: a run also attests its connection")
                }
                (Carrier::Quote(quote), Some(data)) => {
                    (Evidence::from_bare_quote(quote, data), "only the quote: it binds no key here")
                }
                (Carrier::Certificate(_), Some(_)) => {
                    return Err(Failure::usage(format!(
                        "{from} is a certificate, whose evidence is over its own key: leave out \
                         --report-data, which is for bare quotes"
                    )));
                }
                (Carrier::Quote(_), None) => {
                    return Err(Failure::usage(format!(
                        "{from} is a bare quote: say what it must be over with --report-data; \
                         'convelo attest inspect {from}' shows what it is over"
                    )));
                }
            };
            let mut checks = Vec::new();
            let outcome = evidence.and_then(|evidence| {
                verify_listing(&evidence, &collateral, &accepted, now, &mut checks)
            });
            report(&checks, outcome, proves, json)
        }
        Attest::Evidence { platform, output } => {
            let simulated = platform.simulated.as_deref();
            let source = platform::source(&platform, platform::SERVICE)?;
            let credential = Identity::generate().attested(&*source).map_err(Failure::usage)?;
            let pem = convelo_attest::certificate_to_pem(credential.certificate());
            match output {
                Some(path) => {
                    files::create(&path, pem.as_bytes(), 0o644)?;
                    output::say(format_args!(
                        "wrote {}, evidence of: {}",
                        path.display(),
                        source.describe()
                    ));
                }
                None => output::data(pem.trim_end()),
            }
            if simulated.is_some() {
                output::say("SIMULATED: this evidence protects nothing");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn looked_at(from: &str, json: bool) -> Result<ExitCode, Failure> {
    let (Carrier::Certificate(bytes) | Carrier::Quote(bytes)) = evidence::read(from).await?;
    let inspection = inspect(&bytes, unix_now())
        .map_err(|refusal| Failure::new(Code::Attestation, format!("{from}: {refusal}")))?;
    if json {
        output::json(&json!({ "verified": false, "inspection": inspection }))?;
    } else {
        output::data("NOT VERIFIED: this is what the evidence says about itself");
        for (name, value) in &inspection.fields {
            output::data(format_args!("{name}: {value}"));
        }
        for warning in &inspection.warnings {
            output::data(format_args!("warning: {warning}"));
        }
        output::data("to verify it: convelo attest verify --policy FILE --collateral FILE");
    }
    Ok(ExitCode::SUCCESS)
}

fn report(
    checks: &[Check],
    outcome: Result<Verdict, Refusal>,
    proves: &str,
    json: bool,
) -> Result<ExitCode, Failure> {
    if json {
        let (verdict, refusal) = match &outcome {
            Ok(verdict) => (Some(verdict.to_json()), None),
            Err(refusal) => (None, Some(refusal)),
        };
        output::json(&json!({
            "accepted": verdict.is_some(),
            "verdict": verdict,
            "refusal": refusal,
            "checks": checks,
        }))?;
    } else {
        for check in checks {
            output::data(format_args!(
                "ok       {}: expected {}, found {}",
                check.name, check.expected, check.found
            ));
        }
        match &outcome {
            Ok(verdict) => output::data(format_args!(
                "ACCEPTED {}; {proves}",
                verdict.summary().replace(", NOT FRESH", "")
            )),
            Err(refusal) => output::data(format_args!(
                "REFUSED  {}: expected {}, found {}\nnot reached: every check after this one",
                refusal.code, refusal.expected, refusal.found
            )),
        }
    }
    match outcome {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(refusal) => Err(Failure::new(Code::Attestation, refusal.to_string())),
    }
}
