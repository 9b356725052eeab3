//! `convelo check`: the plan of a job, and whether this side is ready for it.

use std::process::ExitCode;

use convelo_channel::{Identity, dial};
use convelo_party::Error;
use convelo_psi::{Mode, Verify};
use serde_json::json;

use crate::args::Check;
use crate::commands::run::{addresses, expect, listed, table};
use crate::exit::{Code, Failure};
use crate::{files, output, plan};

pub(crate) async fn check(args: Check) -> Result<ExitCode, Failure> {
    output::start_logging(output::LevelFilter::WARN);
    let job = files::job(&args.job)?;
    let Mode::Attested(service) = job.mode();
    let policy = files::service_policy(&job, &args.job)?;
    let lines = plan::lines(&job, policy.as_ref(), args.name.as_deref());
    let mut report = json!({ "job": job.terms(), "job_digest": job.digest(), "plan": lines });
    let tell = |line: String| {
        if !args.json {
            output::data(line);
        }
    };
    for line in lines {
        tell(line);
    }
    if let Some(name) = &args.name {
        let identity = files::identity(args.identity.as_deref(), &args.job, name)?;
        listed(&job, name, &files::key_id(&identity), &args.job)?;
        tell(format!("your key: it is the one that the job pins for {name}"));
    }
    if let Some(input) = &args.table.input {
        let memory = args.memory.into();
        let table = table(input, &args.table.layout, Vec::new(), &job, &memory)?;
        let counts = convelo_party::count_keys(&table, &job, &memory)?;
        tell(format!("your table: {}", output::read(counts)));
        report["input"] = json!(counts);
        let cap = args.name.as_deref().map_or(job.maximum_keys(), |name| job.maximum_keys_of(name));
        if counts.keys > cap {
            let text = format!(
                "the table has {} distinct keys and the job allows {cap}; nothing was sent",
                counts.keys
            );
            return Err(Failure::new(Code::RevealPolicy, text));
        }
    }
    if args.contact {
        let expect = expect(&job, policy.into_iter().collect(), || {
            files::collateral(args.trust.collateral.as_deref(), &args.job).map(Some)
        })?;
        let credential = Identity::generate().plain().map_err(Failure::job)?;
        for address in addresses(&job, None)? {
            let expect = expect.clone();
            let stream = dial(&address, &credential, expect).await.map_err(Error::from)?;
            match stream.verdict() {
                Some(verdict) => {
                    tell(format!("the service at {address}: evidence verified: {verdict}"));
                    report["verdict"] = verdict.to_json();
                }
                None => tell(format!("the service at {address} has the pinned key; NOT ATTESTED")),
            }
        }
    } else if !matches!(service.verify, Verify::Provider { .. }) {
        tell("nobody was contacted; --contact verifies the service's evidence".to_owned());
    }
    if args.json {
        output::json(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}
