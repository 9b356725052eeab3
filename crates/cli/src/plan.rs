//! A job in words: who takes part, who learns what, and what could go wrong by chance.

use convelo_attest::Policy;
use convelo_party::Plan;
use convelo_psi::{Job, Mode, Parties, Service, Verify, What};

/// The plan, a line at a time.
pub(crate) fn lines(job: &Job, policy: Option<&Policy>, me: Option<&str>) -> Vec<String> {
    let mut lines = vec![format!("job {} (digest {})", job.name(), job.digest())];
    if policy.is_some_and(Policy::is_simulated) {
        lines.push(SIMULATED.to_owned());
    }
    let Mode::Attested(service) = job.mode();
    lines.push(match service.addresses.as_slice() {
        [] => "service: named at run time".to_owned(),
        [address] => format!("service: {address}"),
        several => format!(
            "{} services, each of which joins its shard of the sets: {}",
            several.len(),
            several.join(", ")
        ),
    });
    lines.push(format!("evidence: {}", evidence(service)));
    for line in policy.map(Policy::describe).unwrap_or_default() {
        lines.push(format!("  {line}"));
    }
    let key: Vec<String> = job
        .keys()
        .iter()
        .map(|part| {
            let steps: Vec<String> = part.normalise.iter().map(ToString::to_string).collect();
            let steps = if steps.is_empty() { "as is".to_owned() } else { steps.join(", ") };
            format!("{} ({steps})", part.name)
        })
        .collect();
    lines.push(format!("key: {}", key.join(" and ")));
    match job.parties() {
        Parties::Named(parties) => {
            for party in parties {
                let you = if me == Some(&party.name) { " (you)" } else { "" };
                lines.push(format!(
                    "party {}{you}: at most {} keys; learns {}",
                    party.name,
                    job.maximum_keys_of(&party.name),
                    learns(job, &party.name),
                ));
            }
        }
        Parties::Unpinned { count } => lines.push(format!(
            "{count} parties whose keys this job does not pin: only the attested service identifies \
             them; each at most {} keys; each learns {}",
            job.maximum_keys(),
            learns(job, ""),
        )),
    }
    lines.extend(minimum(job));
    let size = match job.pad_keys_to() {
        Some(step) => format!("the size of each set, padded to a multiple of {step},"),
        None => "the size of each set".to_owned(),
    };
    lines.push(format!(
        "the service learns: the names and key fingerprints of the parties, {size} and of what they \
         have in common; of the keys, only pseudonyms"
    ));
    lines.push("each party learns: which parties take part, and when each has uploaded".to_owned());
    lines.push(format!("deadline: {} s after the first party arrives", job.deadline_seconds()));
    lines.push(format!(
        "false matches: the probability of any is below 2^{:.0}",
        job.false_match_bound_log2().ceil()
    ));
    lines
}

/// The plan as a run shows it before sending anything: what the reveal policy says.
pub(crate) fn brief(plan: &Plan) -> Vec<String> {
    let (job, me) = (plan.job(), plan.name());
    let mut lines = vec![format!("job {}, digest {}", job.name(), job.digest())];
    if plan.policies().any(Policy::is_simulated) {
        lines.push(SIMULATED.to_owned());
    }
    let Mode::Attested(service) = job.mode();
    if matches!(service.verify, Verify::Provider { .. }) {
        lines.push(evidence(service).to_owned());
    }
    match job.parties() {
        Parties::Named(parties) => {
            for learning in [true, false] {
                let names: Vec<String> = parties
                    .iter()
                    .filter(|party| job.learns(&party.name) == learning)
                    .map(|party| {
                        let you = if party.name == me { " (you)" } else { "" };
                        format!("{}{you}", party.name)
                    })
                    .collect();
                let Some(first) = parties.iter().find(|party| job.learns(&party.name) == learning)
                else {
                    continue;
                };
                let verb = if names.len() == 1 { "learns" } else { "each learn" };
                lines.push(format!("{} {verb} {}", names.join(", "), learns(job, &first.name)));
            }
        }
        Parties::Unpinned { count } => lines.push(format!(
            "{count} parties, vouched for by the service alone, each learn {}",
            learns(job, me)
        )),
    }
    lines.extend(minimum(job));
    lines
}

/// What a party learns, in words.
pub(crate) fn learns(job: &Job, name: &str) -> &'static str {
    match job.reveal().what {
        _ if !job.learns(name) => "nothing",
        What::Intersection => "which of its own keys every party has, and hence how many",
        What::Count => "how many keys every party has",
    }
}

const SIMULATED: &str = "SIMULATED: this job accepts a simulated platform, which protects nothing";

fn minimum(job: &Job) -> Option<String> {
    (job.reveal().minimum > 0).then(|| {
        format!(
            "a result of fewer than {} keys is withheld from everybody; those who would learn it learn \
             that it is smaller, and no number",
            job.reveal().minimum
        )
    })
}

fn evidence(service: &Service) -> &'static str {
    match service.verify {
        Verify::TwoWay { .. } => {
            "the parties verify the service, and the service verifies the parties"
        }
        Verify::Service { .. } => "the parties verify the service before anything is sent",
        Verify::Provider { .. } => {
            "the service verifies the parties; NOBODY VERIFIES THE SERVICE, which is identified by \
             its pinned key only"
        }
    }
}
