//! `convelo run`: a provider's part in a job.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::Policy;
use convelo_channel::Expect;
use convelo_party::table::{Column, Format, Input, STANDARD_INPUT, Table, TableOptions};
use convelo_party::{Destination, Learned, Summary};
use convelo_psi::{Job, Mode, Parties, Verify, What};

use crate::args::{FormatArg, Layout, Run};
use crate::exit::{Code, Failure};
use crate::output::Narrator;
use crate::{files, output, plan, stop};

pub(crate) async fn run(args: Run) -> Result<ExitCode, Failure> {
    output::start_logging(output::LevelFilter::WARN);
    let voice = args.voice;
    let plan = Plan::new(args)?;
    let narrator = Narrator::new(voice, &plan.run.name);
    let stop = stop::requested();
    for line in plan::brief(&plan.run.job, plan.policy.as_ref(), &plan.run.name) {
        narrator.line(line);
    }
    perform(plan.run, plan.table, narrator, voice.json, stop).await
}

/// Runs a provider's part and shows how it ends.
pub(crate) async fn perform(
    run: convelo_party::Run,
    table: Table,
    narrator: Narrator,
    json: bool,
    stop: impl Future<Output = ()>,
) -> Result<ExitCode, Failure> {
    let narrator = Arc::new(narrator);
    let observer = Arc::clone(&narrator) as Arc<dyn convelo_party::Observer>;
    let summary = convelo_party::run(run, table, observer, stop).await?;
    for line in output::conclusion(&summary) {
        narrator.line(line);
    }
    if json {
        output::json(&summary)?;
    }
    Ok(code(&summary))
}

/// A withheld result is no success for who was to learn it.
fn code(summary: &Summary) -> ExitCode {
    match summary.result {
        Learned::Withheld => Code::RevealPolicy.into(),
        _ => ExitCode::SUCCESS,
    }
}

/// What was meant by the arguments of `run`, validated before anything is contacted.
struct Plan {
    run: convelo_party::Run,
    table: Table,
    policy: Option<Policy>,
}

impl Plan {
    fn new(args: Run) -> Result<Self, Failure> {
        let job = files::job(&args.job)?;
        let identity = files::identity(args.identity.as_deref(), &args.job, &args.name)?;
        listed(&job, &args.name, &files::key_id(&identity), &args.job)?;
        let addresses = addresses(&job, args.service.as_deref())?;
        let policy = files::service_policy(&job, &args.job)?;
        let own = args.policy.as_deref().map(|path| files::policy(path, None)).transpose()?;
        let expect = expect(&job, policy.iter().chain(&own).cloned().collect(), || {
            files::collateral_or_offer(&args.trust, &args.job)
        })?;
        let Mode::Attested(service) = job.mode();
        let source = match service.verify {
            Verify::Service { .. } => None,
            Verify::TwoWay { .. } | Verify::Provider { .. } => {
                Some(files::source(&args.platform, files::PROVIDER_PROGRAM)?)
            }
        };
        let output = destination(&job, &args)?;
        let memory = convelo_party::Memory::from(args.memory);
        let (table_args, select) = (&args.table, columns(&args.select)?);
        let table = table(&table_args.input, &table_args.layout, select, &job, &memory)?;
        if let Some(Destination::File(output)) = &output {
            table.check_output(output)?;
        }
        let receipt = match (&args.receipt, &output) {
            (Some(path), _) => path.clone(),
            (None, Some(Destination::File(output))) => suffixed(output, ".receipt.json"),
            (None, _) => PathBuf::from(format!("{}.receipt.json", job.name())),
        };
        let run = convelo_party::Run {
            job,
            name: args.name,
            identity,
            source,
            addresses,
            expect,
            insecure_ratls_only: args.trust.insecure_ratls_only,
            memory,
            output,
            receipt: Some(receipt),
        };
        Ok(Self { run, table, policy })
    }
}

/// The party must be listed, with the key at hand.
pub(crate) fn listed(
    job: &Job,
    name: &str,
    key: &convelo_psi::KeyId,
    path: &Path,
) -> Result<(), Failure> {
    let Parties::Named(parties) = job.parties() else { return Ok(()) };
    let Some(party) = job.party(name) else {
        let names: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
        let names = names.join(", ");
        let path = path.display();
        return Err(Failure::usage(format!("{path} lists no party '{name}'; it lists {names}")));
    };
    if party.key == *key {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the key at hand is {key}, and {} pins {} for '{name}': use the key that belongs to the \
         job file, or have every party put this fingerprint there",
        path.display(),
        party.key
    )))
}

/// Where the job's services are reached.
pub(crate) fn addresses(job: &Job, flag: Option<&str>) -> Result<Vec<String>, Failure> {
    let Mode::Attested(service) = job.mode();
    match (flag, service.addresses.as_slice()) {
        (Some(_), [_, _, ..]) => {
            let text = "the job names its services, several of them; leave --service out";
            Err(Failure::usage(text))
        }
        (Some(address), _) => Ok(vec![address.to_owned()]),
        (None, []) => {
            let text = "the job names no address of the service; give it with --service HOST:PORT";
            Err(Failure::usage(text))
        }
        (None, named) => Ok(named.to_vec()),
    }
}

/// What the service must prove, as the job has it.
pub(crate) fn expect(
    job: &Job,
    policies: Vec<Policy>,
    collateral: impl FnOnce() -> Result<Option<convelo_attest::Collateral>, Failure>,
) -> Result<Expect, Failure> {
    let Mode::Attested(service) = job.mode();
    let key = service.key.map(|key| key.0);
    if matches!(service.verify, Verify::Provider { .. }) {
        return key.map(Expect::Key).ok_or_else(|| {
            Failure::usage(
                "where only providers are verified, the service must be known by its key; \
                 'convelo serve --identity FILE' shows it",
            )
        });
    }
    if policies.is_empty() {
        return Err(Failure::usage(
            "there is no policy that says which evidence of the service is accepted; \
             give one with --policy FILE, or have it in the job",
        ));
    }
    let policies = policies.into_iter().map(Arc::new).collect();
    Ok(match collateral()? {
        Some(collateral) => Expect::Evidence { policies, collateral: Arc::new(collateral), key },
        None => Expect::EvidenceWithOffer { policies, key },
    })
}

/// Opens the table that the flags describe, with the key columns of the job.
pub(crate) fn table(
    path: &Path,
    layout: &Layout,
    select: Vec<Column>,
    job: &Job,
    memory: &convelo_party::Memory,
) -> Result<Table, Failure> {
    if path == Path::new(STANDARD_INPUT) && std::io::stdin().is_terminal() {
        output::say("reading the table from standard input, to its end (Ctrl-D)");
    }
    let input = Input::open(path, &memory.directory)?;
    let delimiter = layout.delimiter.as_deref().map(delimiter).transpose()?;
    let header = !layout.no_header;
    let format = match layout.format {
        Some(FormatArg::Lines) => Format::Lines,
        Some(FormatArg::Parquet) => Format::Parquet,
        Some(FormatArg::Csv) => match delimiter {
            Some(delimiter) => Format::Csv { delimiter, header },
            None => Format::guess_csv(&input, header)?,
        },
        None => Format::guess(&input, delimiter, header)?,
    };
    let key = columns(&layout.key)?;
    let parts: Vec<&str> = job.keys().iter().map(|part| part.name.as_str()).collect();
    let found = if format == Format::Lines { 1 } else { key.len() };
    if found != parts.len() {
        let text = match format {
            Format::Lines => format!(
                "the job's key has {} parts ({}) and a file of one id a line has one column",
                parts.len(),
                parts.join(", ")
            ),
            Format::Csv { .. } | Format::Parquet => format!(
                "the job's key has {} {} ({}); say which column holds each with --key COLUMN, in \
                 this order; {} given",
                parts.len(),
                if parts.len() == 1 { "part" } else { "parts" },
                parts.join(", "),
                match key.len() {
                    0 => "none was".to_owned(),
                    1 => "one was".to_owned(),
                    n => format!("{n} were"),
                },
            ),
        };
        return Err(Failure::usage(text));
    }
    if format == Format::Lines && !key.is_empty() {
        let text = "a file of one id a line has no columns to choose with --key";
        return Err(Failure::usage(text));
    }
    Ok(Table::open(input, &TableOptions { format, key, select })?)
}

fn columns(named: &[String]) -> Result<Vec<Column>, Failure> {
    named.iter().map(|column| column.parse().map_err(Failure::usage)).collect()
}

fn delimiter(text: &str) -> Result<u8, Failure> {
    match text.as_bytes() {
        [one] => Ok(*one),
        _ if matches!(text, "tab" | "\\t") => Ok(b'\t'),
        _ => Err(Failure::usage(format!(
            "--delimiter takes one ASCII character or \"tab\"; {} bytes were given",
            text.len()
        ))),
    }
}

/// Where rows go, where the job gives this party rows to write.
fn destination(job: &Job, args: &Run) -> Result<Option<Destination>, Failure> {
    let rows = job.learns(&args.name) && job.reveal().what == What::Intersection;
    match (&args.output, rows) {
        (Some(path), true) if path == Path::new("-") => {
            if args.voice.json {
                let text = "rows and the summary of --json cannot both go to standard output; give \
                            a file with --output";
                return Err(Failure::usage(text));
            }
            Ok(Some(Destination::Stdout { only_first: false }))
        }
        (Some(path), true) => Ok(Some(Destination::File(path.clone()))),
        (None, true) => Err(Failure::usage(
            "the job gives this party the intersection; say where the matched rows go with \
             --output FILE",
        )),
        (None, false) if !args.select.is_empty() => Err(Failure::usage(format!(
            "the job gives this party {}, so no columns are written; leave --select out",
            plan::learns(job, &args.name)
        ))),
        (None, false) => Ok(None),
        (Some(path), false) => Err(Failure::usage(format!(
            "the job gives this party {}, so nothing would be written to {}; leave --output out",
            plan::learns(job, &args.name),
            path.display()
        ))),
    }
}

/// A path with something after its name.
pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
