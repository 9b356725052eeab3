//! `convelo join`: a job without a job file, with the knobs of Intel's "PSI with SGX".

use std::ffi::OsString;
use std::process::ExitCode;

use convelo_channel::Identity;
use convelo_party::Plan;
use convelo_party::table::{FileKind, Hints, Input, Output, Table};
use convelo_psi::{Job, Verify, terms};

use crate::args::{Join, LogArg, VerifyArg};
use crate::exit::Failure;
use crate::output::Narrator;
use crate::paths::Paths;
use crate::{files, log, output, platform, provider};

pub(crate) async fn join(mut args: Join) -> Result<ExitCode, Failure> {
    log::start(log::LevelFilter::WARN, LogArg::Text);
    let narrator = Narrator::new(args.voice, &args.name, true);
    if args.chief.is_some() {
        narrator.line("--chief has no effect: a job needs no chief");
    }
    args.output.take_if(|path| path.as_os_str() == "-");
    if args.voice.json && args.output.is_none() {
        let text = "the result and the summary would mix on stdout; add --output FILE";
        return Err(Failure::usage(text));
    }
    let paths = paths(&args);
    let job = job(&args)?;
    let root = args.insecure_simulated_root.as_deref();
    let verify = job.service().map(|service| &service.verify);
    let policy = match verify {
        Some(Verify::Provider { .. }) => None,
        _ => Some(files::policy(&args.policy, root)?),
    };
    for warning in policy.iter().flat_map(convelo_attest::Policy::warnings) {
        narrator.line(format_args!("{}: {warning}", args.policy.display()));
    }
    let identity = match &args.identity {
        Some(path) => files::read_identity(path)?,
        None => Identity::generate(),
    };
    let memory = convelo_party::Memory::from(args.memory);
    let keep = files::suffixed(args.output.as_deref().unwrap_or(&args.data), ".answer.json");
    let printed = args.output.is_none();
    let receipt = args.receipt.unwrap_or_else(|| files::suffixed(&args.data, ".receipt.json"));
    let plan = Plan::builder(job, args.name, identity)?
        .policies(policy)
        .provider_policies(files::provider_policy(&args.others, root)?)
        .collateral(files::collateral_if_any(args.trust.collateral.as_deref(), &args.policy)?)
        .offer_collateral(files::offered(&args.others)?)
        .seen_lists(files::seen_lists(args.trust.seen_lists, &args.policy))
        .address(args.service)
        .quote_source(platform::source(&args.platform, platform::PROVIDER)?)
        .insecure_simulated(args.consent.insecure_simulated || root.is_some())
        .insecure_unattested(args.consent.insecure_unattested)
        .insecure_ratls_only(args.trust.insecure_ratls_only)
        .memory(memory.clone())
        .output(args.output.map_or_else(output::rows, Output::File))
        .only_first(printed)
        .allow_no_rows(true)
        .receipt(receipt)
        .keep_answer(keep)
        .list_dropped(args.dropping.list_dropped)
        .allow_empty(args.dropping.allow_empty)
        .build()?;
    provider::check_paths(paths, &plan, args.resume.as_deref())?;
    files::check_new("--output", plan.output().and_then(Output::file), args.force)?;
    files::check_new("--list-dropped", plan.list_dropped(), args.force)?;
    let input = Input::open(&args.data, &memory.directory)?;
    let header = args.no_header.then_some(false);
    let hints = Hints { kind: Some(FileKind::Lines), header, ..Hints::default() };
    let table = Table::recognise(input, &hints, &[], &[])?;
    if let Some(kept) = args.resume {
        return provider::resume(plan, table, narrator, args.voice.json, &kept).await;
    }
    provider::run(plan, table, narrator, args.voice.json).await
}

/// What the run reads.
fn paths(args: &Join) -> Paths {
    let collateral = files::collateral_path(args.trust.collateral.as_deref(), &args.policy);
    let seen = files::seen_lists(args.trust.seen_lists.clone(), &args.policy);
    Paths::default()
        .reads("the data file", Some(&args.data))
        .reads("the policy", Some(&args.policy))
        .reads("the providers' policy", args.others.provider_policy.as_deref())
        .reads("the key", args.identity.as_deref())
        .reads("the simulated root", args.insecure_simulated_root.as_deref())
        .reads("the collateral", Some(&collateral))
        .reads("the offered collateral", args.others.offer_collateral.as_deref())
        .writes("the list of revocation lists (--seen-lists)", Some(&seen))
}

/// The job that all parties derive from the same flags.
fn job(args: &Join) -> Result<Job, Failure> {
    let verify = match args.verify {
        VerifyArg::TwoWay => terms::Verify::TwoWay,
        VerifyArg::Service => terms::Verify::Service,
        VerifyArg::Provider => terms::Verify::Provider,
    };
    let parties = usize::from(args.parties);
    let key = args.service_key.as_deref().map(str::parse).transpose().map_err(Failure::usage)?;
    let service = terms::Service { verify, key, ..terms::Service::default() };
    Job::unpinned(args.job.as_str(), parties, args.maximum_keys, args.deadline, service)
        .map_err(Failure::usage)
}

/// The replaced system writes its long flags with one dash (`-host`, `-client_num 2`,
/// `-is_chief=true`), and its C++ client some with none (`data_dir=data1.txt`); `join` and `serve`
/// accept them. Its Python clients are named after their scripts: `join data_provider1.py`.
pub(crate) fn long_flags(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const FLAGS: [&str; 7] =
        ["host", "config", "cfg", "is_chief", "data_dir", "client_num", "client_name"];
    let mut arguments: Vec<OsString> = arguments.collect();
    let command = arguments.get(1).and_then(|command| command.to_str()).unwrap_or_default();
    let (joins, understands) = (command == "join", matches!(command, "join" | "serve"));
    let mut script = None;
    for (place, argument) in arguments.iter_mut().enumerate().skip(2) {
        let Some(text) = argument.to_str() else { continue };
        let flag = text.strip_prefix('-').unwrap_or(text);
        let (name, value) =
            flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let dashed = flag.len() < text.len();
        // Elsewhere they are unknown flags, and not the -h that they begin with.
        if FLAGS.contains(&name) && (dashed || understands && value.is_some()) {
            *argument = format!("--{flag}").into();
        } else if joins && place == 2 && !dashed {
            script = name.strip_suffix(".py").map(|name| format!("--name={name}"));
        }
    }
    if let Some(name) = script {
        arguments[2] = name.into();
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let arguments = long_flags(line.split(' ').map(OsString::from));
        arguments.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn their_flags_are_understood_for_join_and_serve() {
        assert_eq!(
            translated("convelo join -host h:1 -client_num=2 -is_chief True -q --name a"),
            "convelo join --host h:1 --client_num=2 --is_chief True -q --name a"
        );
        assert_eq!(
            translated("convelo join data_dir=data1.txt -client_name=a host"),
            "convelo join --data_dir=data1.txt --client_name=a host"
        );
        assert_eq!(
            translated("convelo serve -host h:1 -config c"),
            "convelo serve --host h:1 --config c"
        );
        assert_eq!(
            translated("convelo join data_provider1.py -host h:1"),
            "convelo join --name=data_provider1 --host h:1"
        );
        assert_eq!(translated("convelo run -host h:1"), "convelo run --host h:1");
        assert_eq!(translated("convelo run job.toml host=1"), "convelo run job.toml host=1");
    }
}
