//! `convelo policy`: what is accepted as evidence, checked and converted.

use std::path::Path;
use std::process::ExitCode;

use convelo_attest::{Policy, PolicyError};
use convelo_untrusted::{Untrusted, shown};
use serde_json::json;

use crate::args::{PolicyCommand, PolicyOutput};
use crate::exit::Failure;
use crate::releases::{self, Log, Note};
use crate::{files, output};

pub(crate) fn policy(args: PolicyCommand) -> Result<ExitCode, Failure> {
    match args {
        PolicyCommand::Check { file, json } => return check(&file, json),
        PolicyCommand::FromDynamicConfig { file, output } => {
            let text = files::text(&file, "dynamic_config.json")?;
            write(Policy::from_dynamic_config(&text), &file.display().to_string(), &output)
        }
        PolicyCommand::FromRaTlsEnv { file, name, output } => {
            let (settings, from) = settings(file.as_deref())?;
            let pairs = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            write(Policy::from_gramine_env(&name.name, pairs), &from, &output)
        }
        PolicyCommand::FromSigstruct { file, name, output } => {
            let bytes = files::bytes(&file, "the SIGSTRUCT")?;
            write(Policy::from_sigstruct(&name.name, &bytes), &file.display().to_string(), &output)
        }
        PolicyCommand::FromRelease { release, file, insecure_withdrawn, output } => {
            from_release(&release, file.as_deref(), insecure_withdrawn, &output)
        }
        PolicyCommand::FromMeasurement {
            mr_enclave,
            mr_signer,
            isv_prod_id,
            minimum_isv_svn,
            name,
            output,
        } => {
            let policy = Policy::from_measurement(
                &name.name,
                &mr_enclave,
                mr_signer.as_deref(),
                isv_prod_id,
                minimum_isv_svn,
            );
            write(policy, "the flags", &output)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let policy = files::policy(file, None)?;
    if json {
        output::json(&json!({
            "policy": policy.to_json(),
            "policy_sha256": hex::encode(policy.digest()),
            "simulated": policy.is_simulated(),
            "accepts": policy.describe(),
            "warnings": policy.warnings(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in policy.describe() {
        output::data(line);
    }
    output::data(format_args!("digest: sha256:{}", hex::encode(policy.digest())));
    warn(&policy);
    Ok(ExitCode::SUCCESS)
}

/// The policy for a release, unless it was withdrawn. What is known about it is said in any case.
fn from_release(
    version: &str,
    file: Option<&Path>,
    insecure_withdrawn: bool,
    to: &PolicyOutput,
) -> Result<(), Failure> {
    let (text, name) = match file {
        Some(path) => (files::text(path, "the log of releases")?, path.display().to_string()),
        None => (releases::OWN.to_owned(), "the log that this program was built with".to_owned()),
    };
    let log =
        Log::parse(&text).map_err(|error| Failure::usage(format!("{name}: {}", shown(&error))))?;
    // As a tag has it.
    let version = version.strip_prefix('v').unwrap_or(version);
    let Some(policy) = log.policy(version) else {
        let known = log.versions().join(", ");
        let known = match (known.as_str(), file) {
            ("", _) => "there is none in it yet".to_owned(),
            _ => format!("it has {known}"),
        };
        let version = Untrusted::new(version);
        return Err(Failure::usage(format!(
            "{name} names no release {version}: {known}. Give a newer one with --file, or repeat the build \
             (docs/reproduce.md) and use 'convelo policy from-measurement'"
        )));
    };
    for note in log.notes(version) {
        output::say(shown(&note.words()));
    }
    if log.notes(version).any(Note::withdraws) && !insecure_withdrawn {
        return Err(Failure::usage(format!(
            "{version} was withdrawn: take another release, or accept it all the same with --insecure-withdrawn"
        )));
    }
    write(Policy::from_json(&policy), &name, to)
}

/// The `RA_TLS_*` settings, and where they came from.
fn settings(file: Option<&Path>) -> Result<(Vec<(String, String)>, String), Failure> {
    let Some(file) = file else {
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        return Ok((settings.collect(), "the environment".to_owned()));
    };
    let text = files::text(file, "the settings")?;
    let mut settings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            let text = format!(
                "the settings {}, line {}: expected NAME=VALUE",
                file.display(),
                number + 1
            );
            return Err(Failure::usage(text));
        };
        let value = value.trim().trim_matches(['"', '\'']);
        settings.push((name.trim().to_owned(), value.to_owned()));
    }
    Ok((settings, file.display().to_string()))
}

fn write(
    policy: Result<Policy, PolicyError>,
    from: &str,
    to: &PolicyOutput,
) -> Result<(), Failure> {
    let policy = policy.map_err(|error| Failure::usage(format!("{from}: {error}")))?;
    warn(&policy);
    let text = policy.to_toml();
    match &to.output {
        Some(path) => {
            files::create(path, text.as_bytes(), 0o644)?;
            output::say(format_args!(
                "wrote {}; review it with 'convelo policy check'",
                path.display()
            ));
        }
        None => output::data(text.trim_end()),
    }
    Ok(())
}

fn warn(policy: &Policy) {
    for warning in policy.warnings() {
        output::say(format_args!("warning: {warning}"));
    }
}
