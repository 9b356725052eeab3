//! A provider's part in a job, shown from start to finish.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use convelo_party::table::{Output, Table};
use convelo_party::{Observer, Plan, Summary};
use convelo_psi::Outcome;
use indicatif::HumanBytes;
use serde_json::json;

use crate::exit::{Code, Failure};
use crate::output::{self, Narrator};
use crate::paths::Paths;
use crate::{plan, stop};

/// Checks the files of a run: those that it reads, and all that the plan writes.
pub(crate) fn check_paths(
    mut paths: Paths,
    plan: &Plan,
    resumed: Option<&Path>,
) -> Result<(), Failure> {
    let output = plan.output().and_then(Output::file);
    paths = paths.reads("the kept answer", resumed).writes("the output (--output)", output);
    if resumed.is_none() {
        for receipt in plan.receipts() {
            paths = paths.writes("the receipt (--receipt)", Some(&receipt));
        }
        paths = paths.writes("the list of dropped rows (--list-dropped)", plan.list_dropped());
    }
    paths.check()
}

/// Runs the part and shows how it starts and ends.
pub(crate) async fn run(
    plan: Plan,
    table: Table,
    narrator: Narrator,
    json: bool,
) -> Result<ExitCode, Failure> {
    let stop = stop::requested();
    let policies = plan.policies().chain(plan.provider_policies());
    let notices = plan::notices(plan.job(), policies, plan.insecure_ratls_only());
    for notice in &notices {
        narrator.notice(notice);
    }
    for line in plan::brief(&plan) {
        narrator.line(line);
    }
    if let Some(free) = plan.output().and_then(|output| table.scarce_room(output)) {
        narrator.line(format_args!(
            "only {} are free where the rows go, and the table has {}: if most of it matches, it does \
             not fit, and the answer is kept for --resume",
            HumanBytes(free),
            HumanBytes(table.size_bytes())
        ));
    }
    let narrator = Arc::new(narrator);
    let observer = Arc::clone(&narrator) as Arc<dyn Observer>;
    let summary = convelo_party::run(plan, table, observer, stop).await?;
    for line in output::conclusion(&summary) {
        narrator.line(line);
    }
    if json {
        let mut summary = serde_json::to_value(&summary).map_err(Failure::job)?;
        summary["notices"] = notices.into();
        output::json(&summary)?;
    }
    Ok(code(&summary))
}

/// Writes the rows of an answer that an earlier run has kept.
pub(crate) async fn resume(
    plan: Plan,
    table: Table,
    narrator: Narrator,
    json: bool,
    kept: &Path,
) -> Result<ExitCode, Failure> {
    let narrator = Arc::new(narrator);
    let observer = Arc::clone(&narrator) as Arc<dyn Observer>;
    let output = plan.output().and_then(|output| output.file().map(Path::to_owned));
    let at = kept.to_owned();
    let writing =
        tokio::task::spawn_blocking(move || convelo_party::resume(plan, table, &at, &observer));
    let rows = tokio::select! {
        written = writing => written.map_err(Failure::job)??,
        () = stop::requested() => {
            let text = "stopped on request; the kept answer is unchanged";
            return Err(Failure::new(Code::Stopped, text));
        }
    };
    let place = output.as_deref().map(|file| format!(" to {}", file.display()));
    narrator.line(format_args!("wrote {rows} rows{}", place.unwrap_or_default()));
    // Which rows matched is as confidential as the rows.
    if let Err(error) = std::fs::remove_file(kept) {
        narrator.notice(format_args!("{} could not be removed: {error}", kept.display()));
    }
    if json {
        output::json(&json!({ "rows": rows, "output": output }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A withheld result is not a success for a party that was to learn it.
fn code(summary: &Summary) -> ExitCode {
    match summary.result {
        Outcome::Withheld => Code::RevealPolicy.into(),
        _ => ExitCode::SUCCESS,
    }
}
