//! `convelo init`: a commented job file to start from.

use std::process::ExitCode;

use convelo_attest::Policy;
use convelo_psi::{Job, KeyId};

use crate::args::Init;
use crate::exit::Failure;
use crate::{files, job_file, output};

pub(crate) fn init(args: &Init) -> Result<ExitCode, Failure> {
    let parties: Vec<(String, String)> =
        args.parties.iter().map(|party| split(party)).collect::<Result<_, _>>()?;
    let policy = match &args.policy {
        Some(path) => {
            let text = files::text(path, "the policy")?;
            Policy::from_toml(&text).map_err(|error| {
                Failure::usage(format!("the policy {}: {error}", path.display()))
            })?;
            Some(text)
        }
        None => None,
    };
    let text = job_file::write(&args.name, &args.service, policy.as_deref(), &parties);
    files::create(&args.file, text.as_bytes(), 0o644)?;
    let complete = policy.is_some() && parties.len() >= 2;
    let next = if complete && Job::from_toml(&text).is_ok() {
        "it is complete"
    } else {
        "fill in the parts marked REPLACE"
    };
    output::say(format_args!(
        "wrote {path}: {next}; give the same file to every party, and review it with \
         'convelo check {path}'",
        path = args.file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn split(party: &str) -> Result<(String, String), Failure> {
    let (name, key) = party.split_once('=').ok_or_else(|| {
        Failure::usage(format!("--party takes NAME=sha256:…, but '{party}' has no '='"))
    })?;
    let key: KeyId = key.parse().map_err(Failure::usage)?;
    Ok((name.to_owned(), key.to_string()))
}
