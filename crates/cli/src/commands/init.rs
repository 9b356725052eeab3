//! `convelo init`: a commented job file to start from.

use std::process::ExitCode;

use convelo_attest::Policy;
use convelo_psi::{Job, KeyId, is_address};

use crate::args::Init;
use crate::exit::Failure;
use crate::job_file::{Engine, REPLACE};
use crate::{files, job_file, output};

pub(crate) fn init(args: &Init) -> Result<ExitCode, Failure> {
    let parties: Vec<(String, String)> =
        args.parties.iter().map(|party| split(party)).collect::<Result<_, _>>()?;
    check(args, &parties)?;
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
    let service = args.service.as_deref().unwrap_or(SERVICE);
    let engine = match args.mode.protocol() {
        Some(protocol) => Engine::Parties(protocol),
        None => Engine::Service { address: service, policy: policy.as_deref() },
    };
    let text = job_file::write(&args.name, engine, &parties);
    files::create(&args.file, text.as_bytes(), 0o644)?;
    let next = match (text.contains(REPLACE), Job::from_toml(&text)) {
        (true, _) => "fill in the parts marked REPLACE".to_owned(),
        (false, Ok(_)) => "it is complete".to_owned(),
        (false, Err(_)) if parties.len() == 1 => "add the other parties".to_owned(),
        (false, Err(error)) => format!("not yet a job ({error})"),
    };
    output::say(format_args!(
        "wrote {path}: {next}; give the same file to every party, and review it with \
         'convelo check {path}'",
        path = args.file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The address of the service that stands in a job file unless another is given.
const SERVICE: &str = "psi.example.org:7443";

/// Refuses what no job accepts.
fn check(args: &Init, parties: &[(String, String)]) -> Result<(), Failure> {
    files::check_name("--name", &args.name)?;
    if args.mode.protocol().is_some() && (args.service.is_some() || args.policy.is_some()) {
        let text = "--service and --policy are about a service, and in this mode there is none: leave them out";
        return Err(Failure::usage(text));
    }
    if let Some(service) = args.service.as_deref().filter(|service| !is_address(service)) {
        let text = format!("--service is '{service}', expected HOST:PORT, as in {SERVICE}");
        return Err(Failure::usage(text));
    }
    for (index, (name, key)) in parties.iter().enumerate() {
        files::check_name("the name of a --party", name)?;
        if let Some((other, _)) =
            parties[..index].iter().find(|(other, of)| other == name || of == key)
        {
            let what = if other == name { "twice" } else { "with the key of another party" };
            let text =
                format!("--party {name} is given {what}; each has a name and a key of its own");
            return Err(Failure::usage(text));
        }
    }
    Ok(())
}

fn split(party: &str) -> Result<(String, String), Failure> {
    let (name, key) = party.split_once('=').ok_or_else(|| {
        Failure::usage(format!("--party takes NAME=sha256:…, but '{party}' has no '='"))
    })?;
    let key: KeyId = key.parse().map_err(Failure::usage)?;
    Ok((name.to_owned(), key.to_string()))
}
