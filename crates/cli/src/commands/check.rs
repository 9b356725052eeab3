//! `convelo check`: the plan of a job, and whether this side is ready for it.

use std::path::Path;
use std::process::ExitCode;

use convelo_party::{Counts, Plan, Survey, policy_of, provider_policy_of, verify_services};
use convelo_psi::{Job, Verify};
use serde_json::json;

use crate::args::{Check, LogArg};
use crate::exit::Failure;
use crate::paths::Paths;
use crate::{files, log, output, plan, tables};

pub(crate) async fn check(args: Check) -> Result<ExitCode, Failure> {
    log::start(log::LevelFilter::WARN, LogArg::Text);
    check_flags(&args)?;
    check_paths(&args)?;
    let job = files::job(&args.job)?;
    if job.service().is_none() && (args.contact || args.service.is_some()) {
        let text = "the job has no service, so there is nobody to contact; leave out --contact and --service";
        return Err(Failure::usage(text));
    }
    let (policy, providers) = (policy_of(&job)?, provider_policy_of(&job)?);
    let policies = [policy.as_ref(), providers.as_ref()];
    // What this side lacks comes first: nobody wants to read a plan before an error.
    if let Some(name) = &args.name {
        plan::check_name(&job, name)?;
        let identity = files::identity(args.identity.as_deref(), &args.job, name)?;
        Plan::builder(job.clone(), name, identity)?;
    }
    let read = args.table.input.as_deref().map(|input| read(&args, &job, input)).transpose()?;
    let lines = plan::lines(&job, policies, args.name.as_deref());
    let notices = plan::notices(&job, policies.into_iter().flatten(), false);
    for notice in &notices {
        output::say(notice);
    }
    let mut report = json!({
        "job": job.terms(),
        "job_digest": job.digest(),
        "plan": lines,
        "notices": notices,
    });
    let tell = |line: String| {
        if !args.json {
            output::data(line);
        }
    };
    for line in lines {
        tell(line);
    }
    if let Some(name) = &args.name {
        tell(format!("your key: the one that the job pins for {name}"));
    }
    if let Some((counts, survey)) = read {
        for line in output::survey(counts, &survey) {
            tell(format!("your table: {line}"));
        }
        report["input"] = json!(counts);
        report["table"] = json!(survey);
    }
    if args.contact {
        let collateral = files::collateral_if_any(args.trust.collateral.as_deref(), &args.job)?;
        let seen = files::seen_lists(args.trust.seen_lists, &args.job);
        let (address, consent) = (args.service.clone(), args.consent.into());
        let verified = verify_services(&job, address, collateral, Some(seen), consent);
        for (address, verdict) in verified.await? {
            match verdict {
                Some(verdict) => {
                    // Every contact would end with a warning that concerns only runs.
                    let verdict_in_words = verdict.to_string().replace(", NOT FRESH", "");
                    tell(format!(
                        "the service at {address}: evidence verified: {verdict_in_words}; a contact ends \
                         here, and a run goes on to have the connection attested afresh"
                    ));
                    report["verdict"] = verdict.to_json();
                }
                None => tell(format!("the service at {address} has the pinned key; NOT ATTESTED")),
            }
        }
    } else if job.service().is_some_and(|it| !matches!(it.verify, Verify::Provider { .. })) {
        tell("nobody was contacted; --contact verifies the service's evidence".to_owned());
    }
    if args.json {
        output::json(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a table, nothing can be said of how it is read.
fn check_flags(args: &Check) -> Result<(), Failure> {
    let (layout, dropping) = (&args.table.layout, &args.dropping);
    let given = [
        ("--key", !layout.key.is_empty()),
        ("--format", layout.format.is_some()),
        ("--delimiter", layout.delimiter.is_some()),
        ("--escape", layout.escape.is_some()),
        ("--header", layout.header),
        ("--no-header", layout.no_header),
        ("--list-dropped", dropping.list_dropped.is_some()),
        ("--allow-empty", dropping.allow_empty),
    ];
    match given.into_iter().find(|(_, given)| *given && args.table.input.is_none()) {
        None => Ok(()),
        Some((flag, _)) => {
            let text = format!("{flag} is about a table, and none is given; add --input FILE");
            Err(Failure::usage(text))
        }
    }
}

/// Nothing that is written may replace what is read.
fn check_paths(args: &Check) -> Result<(), Failure> {
    let list = args.dropping.list_dropped.as_deref();
    let key = args
        .name
        .as_deref()
        .map(|name| files::identity_path(args.identity.as_deref(), &args.job, name));
    let collateral = files::collateral_path(args.trust.collateral.as_deref(), &args.job);
    let seen = files::seen_lists(args.trust.seen_lists.clone(), &args.job);
    Paths::default()
        .reads("the job file", Some(&args.job))
        .reads("the key", key.as_deref())
        .reads("the input", args.table.input.as_deref())
        .reads("the collateral", Some(&collateral))
        .writes("the list of revocation lists (--seen-lists)", Some(&seen))
        .writes("the list of dropped rows (--list-dropped)", list)
        .check()?;
    files::check_new("--list-dropped", list, args.force)
}

/// Reads the table as a run would.
fn read(args: &Check, job: &Job, input: &Path) -> Result<(Counts, Survey), Failure> {
    let memory = args.memory.clone().into();
    let table = tables::open(input, &args.table.layout, &[], &memory)?;
    let list = args.dropping.list_dropped.as_deref();
    let (counts, survey) = convelo_party::count_keys(&table, job, &memory, list)?;
    survey.check_keys(counts, args.dropping.allow_empty)?;
    let cap = args.name.as_deref().map_or(job.maximum_keys(), |name| job.maximum_keys_of(name));
    counts.check_cap(cap)?;
    Ok((counts, survey))
}
