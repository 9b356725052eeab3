//! `convelo run`: a provider's part in a job.

use std::path::PathBuf;
use std::process::ExitCode;

use convelo_party::Plan;
use convelo_party::table::{Output, Table};

use crate::args::{LogArg, Run};
use crate::exit::Failure;
use crate::output::Narrator;
use crate::paths::Paths;
use crate::{files, log, output, plan, platform, provider, tables};

pub(crate) async fn run(args: Run) -> Result<ExitCode, Failure> {
    log::start(log::LevelFilter::WARN, LogArg::Text);
    let voice = args.voice;
    let resume = args.resume.clone();
    let (plan, table) = meant(args)?;
    let narrator = Narrator::new(voice, plan.name(), plan.output().is_some());
    if let Some(kept) = resume {
        return provider::resume(plan, table, narrator, voice.json, &kept).await;
    }
    provider::run(plan, table, narrator, voice.json).await
}

/// What the arguments mean, before anything is contacted.
fn meant(args: Run) -> Result<(Plan, Table), Failure> {
    let paths = paths(&args);
    let output = args.output.map(|path| match path.to_str() {
        Some("-") => output::rows(),
        _ => Output::File(path),
    });
    if args.voice.json && matches!(output, Some(Output::Writer(_))) {
        let text = "rows and the --json summary cannot both go to standard output; give a file with --output";
        return Err(Failure::usage(text));
    }
    let job = files::job(&args.job)?;
    plan::check_name(&job, &args.name)?;
    let identity = files::identity(args.identity.as_deref(), &args.job, &args.name)?;
    let own = args.policy.as_deref().map(|path| files::policy(path, None)).transpose()?;
    let receipt = match (args.receipt, &output) {
        (Some(path), _) => path,
        (None, Some(Output::File(output))) => files::suffixed(output, ".receipt.json"),
        (None, _) => PathBuf::from(format!("{}.receipt.json", job.name())),
    };
    let keep = match &output {
        Some(Output::File(output)) => files::suffixed(output, ".answer.json"),
        _ => PathBuf::from(format!("{}.answer.json", job.name())),
    };
    let memory = convelo_party::Memory::from(args.memory);
    let plan = Plan::builder(job, args.name, identity)?
        .policies(own)
        .provider_policies(files::provider_policy(&args.others, None)?)
        .collateral(files::collateral_if_any(args.trust.collateral.as_deref(), &args.job)?)
        .offer_collateral(files::offered(&args.others)?)
        .seen_lists(files::seen_lists(args.trust.seen_lists, &args.job))
        .address(args.service)
        .listen(args.meeting.listen)
        .peers(files::peers(&args.meeting.peers)?)
        .quote_source(platform::source(&args.platform, platform::PROVIDER)?)
        .insecure_simulated(args.consent.insecure_simulated)
        .insecure_unattested(args.consent.insecure_unattested)
        .insecure_ratls_only(args.trust.insecure_ratls_only)
        .memory(memory.clone())
        .output(output)
        .receipt(receipt)
        .keep_answer(keep)
        .list_dropped(args.dropping.list_dropped)
        .allow_empty(args.dropping.allow_empty)
        .build()?;
    provider::check_paths(paths, &plan, args.resume.as_deref())?;
    files::check_new("--output", plan.output().and_then(Output::file), args.force)?;
    files::check_new("--list-dropped", plan.list_dropped(), args.force)?;
    if plan.output().is_none() && !args.select.is_empty() {
        return Err(Failure::usage(format!(
            "the job gives this party {}, so no columns are written; leave out --select",
            plan::learns(plan.job(), plan.name())
        )));
    }
    let table = tables::open(&args.table.input, &args.table.layout, &args.select, &memory)?;
    plan.check(&table)?;
    Ok((plan, table))
}

/// What the run reads.
fn paths(args: &Run) -> Paths {
    let key = files::identity_path(args.identity.as_deref(), &args.job, &args.name);
    let collateral = files::collateral_path(args.trust.collateral.as_deref(), &args.job);
    let seen = files::seen_lists(args.trust.seen_lists.clone(), &args.job);
    Paths::default()
        .reads("the job file", Some(&args.job))
        .reads("the key", Some(&key))
        .reads("the input", Some(&args.table.input))
        .reads("the policy", args.policy.as_deref())
        .reads("the providers' policy", args.others.provider_policy.as_deref())
        .reads("the collateral", Some(&collateral))
        .reads("the offered collateral", args.others.offer_collateral.as_deref())
        .writes("the list of revocation lists (--seen-lists)", Some(&seen))
}
