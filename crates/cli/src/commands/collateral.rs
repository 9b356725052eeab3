//! `convelo collateral`: fetches, imports and shows the signed facts about a platform.

use std::path::Path;
use std::process::ExitCode;

use convelo_attest::{Collateral, CollateralError, PlatformId, Policy};
use convelo_party::{RefreshError, store_collateral};
use convelo_untrusted::Untrusted;
use serde_json::json;

use crate::args::{CollateralCommand, Into};
use crate::clock::{date, unix_now};
use crate::evidence::Carrier;
use crate::exit::{Code, Failure};
use crate::{evidence, files, output, pcs};

pub(crate) async fn collateral(args: CollateralCommand) -> Result<ExitCode, Failure> {
    match args {
        CollateralCommand::Show { file, json } => show(&file, json)?,
        CollateralCommand::Export { whose, from, into } => {
            let platform = platform(&evidence::read(&whose).await?)?;
            let client = pcs::client(&from)?;
            let fetched = tokio::task::spawn_blocking(move || client.fetch(&platform)).await;
            let fetched = fetched.map_err(Failure::job)?.map_err(Failure::job)?;
            take(&fetched, &into)?;
        }
        CollateralCommand::Import { file, into } => {
            let (bundle, ignored) = files::bundle(&file)?;
            take(&bundle, &into)?;
            for field in ignored {
                output::say(format_args!("left out: the field {field}, which nothing here reads"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The platform that the evidence names. None of it is verified: whatever the evidence says, the
/// collateral that arrives is signed and says which platform it is about.
fn platform(carrier: &Carrier) -> Result<PlatformId, Failure> {
    let platform = match carrier {
        Carrier::Certificate(der) => PlatformId::of_certificate(der),
        Carrier::Quote(quote) => PlatformId::of_quote(quote),
    };
    platform.map_err(|refusal| Failure::new(Code::Attestation, refusal.to_string()))
}

/// Verifies a bundle and stores it, whole or not at all.
fn take(bundle: &Collateral, into: &Into) -> Result<(), Failure> {
    let path = &into.output;
    files::check_file(path)?;
    let policy = match &into.policy {
        Some(policy) => files::policy(policy, None)?,
        None => Policy::of_intels_root(),
    };
    store_collateral(bundle, path, &policy, unix_now()).map_err(|error| match error {
        RefreshError::File { .. } => Failure::usage(error),
        RefreshError::Refused { error: CollateralError::OtherRoot { .. }, .. }
            if into.policy.is_none() =>
        {
            let text = format!(
                "{error}; if another root than Intel's is meant, as a simulated platform has, add \
                 --policy FILE, a policy that accepts it"
            );
            Failure::new(Code::Attestation, text)
        }
        _ => Failure::new(Code::Attestation, error.to_string()),
    })?;
    output::say(format_args!(
        "wrote {}: {} on FMSPC {}, in force until {}{}",
        path.display(),
        bundle.tee(),
        hex::encode(bundle.fmspc()),
        date(bundle.expires()),
        if policy.is_simulated() { "; SIMULATED" } else { "" }
    ));
    Ok(())
}

fn show(file: &Path, json: bool) -> Result<(), Failure> {
    let (bundle, ignored) = files::bundle(file)?;
    let now = unix_now();
    let left = i64::try_from(bundle.expires()).unwrap_or(i64::MAX)
        - i64::try_from(now).unwrap_or(i64::MAX);
    let digest = hex::encode(bundle.digest());
    if json {
        let parts: Vec<_> = bundle
            .dates()
            .map(|(name, issued, ends)| json!({"name": name, "issued": issued, "ends": ends}))
            .collect();
        return output::json(&json!({
            "verified": false,
            "tee": bundle.tee(),
            "fmspc": hex::encode(bundle.fmspc()),
            "evaluation_number": bundle.evaluation_number(),
            "parts": parts,
            "seconds_left": left,
            "sha256": digest,
            "ignored": ignored.iter().map(Untrusted::as_arrived).collect::<Vec<_>>(),
        }));
    }
    output::data("NOT VERIFIED: this is what the bundle says about itself");
    output::data(format_args!("technology: {}", bundle.tee()));
    output::data(format_args!("FMSPC: {}", hex::encode(bundle.fmspc())));
    output::data(format_args!("TCB evaluation: {}", bundle.evaluation_number()));
    for (name, issued, ends) in bundle.dates() {
        let over = if ends < now { " (EXPIRED)" } else { "" };
        output::data(format_args!("{name}: issued {}, expires {}{over}", date(issued), date(ends)));
    }
    let age = now.saturating_sub(bundle.issued()) / 86_400;
    output::data(format_args!(
        "age: {age} days; policies accept up to 7 unless they say otherwise"
    ));
    output::data(match left {
        0.. => format!("all of it is valid for another {} h", left / 3600),
        _ => format!("part of it expired {} h ago: fetch it again", -left / 3600),
    });
    output::data(format_args!("digest: sha256:{digest}"));
    for field in ignored {
        output::data(format_args!("ignored: the field {field}, which nothing here reads"));
    }
    Ok(())
}
