//! A provider's part in a job, shown from start to finish.

use std::process::ExitCode;
use std::sync::Arc;

use convelo_party::table::Table;
use convelo_party::{Observer, Plan, Summary};
use convelo_psi::Outcome;

use crate::exit::{Code, Failure};
use crate::output::{self, Narrator};
use crate::{plan, stop};

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

/// A withheld result is not a success for a party that was to learn it.
fn code(summary: &Summary) -> ExitCode {
    match summary.result {
        Outcome::Withheld => Code::RevealPolicy.into(),
        _ => ExitCode::SUCCESS,
    }
}
