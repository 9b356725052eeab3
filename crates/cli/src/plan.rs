//! A job in words: who takes part, who learns what, and what could go wrong by chance.

use convelo_attest::Policy;
use convelo_party::Plan;
use convelo_psi::{Job, Parties, Protocol, Service, Verify, What};
use indicatif::{HumanBytes, HumanCount};

use crate::exit::Failure;

/// What takes protection away from a party in this job: nothing silences these lines.
pub(crate) fn notices<'a>(
    job: &Job,
    policies: impl IntoIterator<Item = &'a Policy>,
    insecure_ratls_only: bool,
) -> Vec<&'static str> {
    let unattested =
        job.service().is_some_and(|service| matches!(service.verify, Verify::Provider { .. }));
    let simulated = policies.into_iter().any(Policy::is_simulated);
    [(simulated, SIMULATED), (unattested, NOT_ATTESTED), (insecure_ratls_only, NOT_FRESH)]
        .into_iter()
        .filter_map(|(holds, notice)| holds.then_some(notice))
        .collect()
}

/// The job must list the party.
pub(crate) fn check_name(job: &Job, name: &str) -> Result<(), Failure> {
    let Parties::Named(parties) = job.parties() else { return Ok(()) };
    if job.party(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
    Err(Failure::usage(format!("the job has no party '{name}'; it lists {}", names.join(", "))))
}

/// The plan, a line at a time; the policies are for the service and for the providers.
pub(crate) fn lines(job: &Job, policies: [Option<&Policy>; 2], me: Option<&str>) -> Vec<String> {
    let mut lines = vec![format!("job {} (digest {})", job.name(), job.digest())];
    lines
        .extend(notices(job, policies.into_iter().flatten(), false).into_iter().map(str::to_owned));
    match (job.service(), job.protocol()) {
        (Some(service), _) => lines.extend(of_service(service)),
        (None, protocol) => {
            let parties = job.parties().count();
            lines.extend(protocol.into_iter().flat_map(|it| of_protocol(it, parties)));
        }
    }
    for (policy, whose) in policies.into_iter().zip(["service", "parties"]) {
        let Some(policy) = policy else { continue };
        lines.push(format!("what is accepted as evidence of the {whose}:"));
        lines.extend(policy.describe().into_iter().map(|line| format!("  {line}")));
    }
    let key: Vec<String> = job
        .keys()
        .iter()
        .map(|part| {
            let steps: Vec<String> = part.normalise.iter().map(ToString::to_string).collect();
            let steps = if steps.is_empty() { "as is".to_owned() } else { steps.join(", ") };
            let ignored = match part.ignore.len() {
                0 => String::new(),
                1 => "; 1 value counts as blank".to_owned(),
                count => format!("; {count} values count as blank"),
            };
            format!("{} ({steps}{ignored})", part.name)
        })
        .collect();
    lines.push(format!("key: {}", key.join(" and ")));
    if key.len() > 1 {
        lines.push(
            "a row matches only if all parts of its key agree; one blank part drops it".to_owned(),
        );
    }
    lines.extend(job.recipe().map(|recipe| format!("keys are normalised by {recipe}")));
    match job.parties() {
        Parties::Named(parties) => {
            for party in parties {
                let you = if me == Some(&party.name) { " (you)" } else { "" };
                let address = party.address.as_ref();
                let address = address.map(|at| format!(", reached at {at}")).unwrap_or_default();
                lines.push(format!(
                    "party {}{you}{address}: at most {}; learns {}",
                    party.name,
                    cap(job, &party.name),
                    learns(job, &party.name),
                ));
            }
        }
        Parties::Unpinned { count } => lines.push(format!(
            "{count} parties whose keys this job does not pin: only the attested service identifies \
             them; each at most {}; each learns {}",
            cap(job, ""),
            learns(job, ""),
        )),
    }
    lines.extend(minimum(job));
    if let Some(part) = job.lie_found_from() {
        lines.push(format!(
            "canaries: {} of each pattern; each party sends {} of them{}; a service that leaves out {:.3} % \
             of the matches or more, or makes up as many of the keys that one party lacks, is found with \
             a probability of 1 - 2^-20, unless it colludes with a party",
            job.canaries(),
            job.canaries_of_a_party(),
            if job.services() > 1 { " to each service" } else { "" },
            part * 100.0
        ));
    }
    let size = match job.pad_keys_to() {
        Some(step) => format!("the size of each set, padded to a multiple of {step},"),
        None => "the size of each set".to_owned(),
    };
    match job.receiver() {
        None => {
            lines.push(format!(
                "the service learns: the names and key fingerprints of the parties, {size} and of what they \
                 have in common; of the keys, only pseudonyms"
            ));
            lines.push(
                "each party learns: which parties take part, and when each has uploaded".to_owned(),
            );
            lines.push(format!(
                "deadline: {} after the first party arrives",
                time(job.deadline_seconds())
            ));
        }
        Some(receiver) => {
            lines.extend(without_service(job, &receiver.name, &size));
        }
    }
    lines.push(format!(
        "false matches: the probability of any is below 2^{:.0}",
        job.false_match_bound_log2().ceil()
    ));
    lines
}

fn of_service(service: &Service) -> Vec<String> {
    let mut lines = vec![match service.addresses.as_slice() {
        [] => "service: named at run time".to_owned(),
        [address] => format!("service: {address}"),
        several => format!(
            "{} services, each of which joins its shard of the sets: {}",
            several.len(),
            several.join(", ")
        ),
    }];
    if service.hybrid {
        lines.push("TLS with it: X25519MLKEM768 and no other key exchange".to_owned());
    }
    lines.push(format!("evidence: {}", evidence(service)));
    lines
}

fn of_protocol(protocol: Protocol, parties: usize) -> [String; 3] {
    let (name, rests_on, later) = match protocol {
        Protocol::Vole => (
            match parties {
                2 => "VOLE-PSI (Raghuraman and Rindal, 2022)",
                _ => "VOLE and zero-sharing (Kolesnikov and others, 2017)",
            },
            "learning parity with noise, and in its base transfers on ristretto255 and ML-KEM-768 together",
            "post-quantum, as far as is known: nothing in it rests on the elliptic curve alone",
        ),
        Protocol::Ecdh => (
            "elliptic curve Diffie-Hellman on Curve25519, items hashed as in RFC 9380",
            "decisional Diffie-Hellman on that curve",
            "NOT post-quantum: inside TLS, which is; but a partner who keeps what it received can test \
             guesses of keys once discrete logarithms on the curve can be computed",
        ),
    };
    [
        format!("no service: the parties compute among themselves, by {name}"),
        format!(
            "secure against parties that keep to the protocol (semi-honest), if these hold: {rests_on}; \
             not audited"
        ),
        later.to_owned(),
    ]
}

/// What parties learn in a job without a service besides its result, and in which order.
fn without_service(job: &Job, receiver: &str, size: &str) -> Vec<String> {
    let others = job.parties().named().iter().filter(|party| party.name != receiver);
    let second: Vec<_> =
        others.filter(|party| job.learns(&party.name)).map(|party| party.name.as_str()).collect();
    let mut lines = Vec::new();
    if job.parties().count() == 2 {
        lines.push(format!("each party learns: {size} and when each is there"));
    } else {
        lines.push(format!(
            "{receiver} leads: it learns {size} each other party learns the size of its set; all learn when \
             each is there"
        ));
        lines.push(format!(
            "{receiver} together with some others can learn what it has in common with all of the rest, as if \
             those others had everything"
        ));
    }
    if !second.is_empty() {
        lines.push(format!(
            "{receiver} learns the result first and tells {}; nothing but its honesty makes it tell the truth",
            second.join(", ")
        ));
    }
    lines.push(format!("deadline: {} after a party has started", time(job.deadline_seconds())));
    let estimate = convelo_party::estimate(job, ESTIMATED_KEYS);
    lines.extend(estimate.map(|estimate| {
        format!(
            "cost, estimated for {} keys of each: at most {} s of this processor at a party, {} to send in \
             all, {} of memory",
            HumanCount(ESTIMATED_KEYS),
            estimate.cpu.as_secs_f64().ceil(),
            HumanBytes(estimate.bytes),
            HumanBytes(estimate.memory)
        )
    }));
    lines
}

/// For how many keys of each party a cost is estimated.
const ESTIMATED_KEYS: u64 = 1_000_000;

/// The plan as a run shows it before sending anything: what the reveal policy says.
pub(crate) fn brief(plan: &Plan) -> Vec<String> {
    let (job, me) = (plan.job(), plan.name());
    let mut lines = vec![format!("job {}, digest {}", job.name(), job.digest())];
    if let Some(protocol) = job.protocol() {
        let [line, ..] = of_protocol(protocol, job.parties().count());
        lines.push(line);
    }
    let of_any = plan.policies().filter(|policy| policy.accepts_any_platform()).count();
    if of_any > 0 && of_any == plan.policies().count() {
        let policy = plan.policies().next();
        lines.extend(
            policy.map(|policy| format!("the service may run on {}", policy.platforms_in_words())),
        );
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

/// A time as a job file writes it.
fn time(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    match units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit)) {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// What a party learns, in words.
pub(crate) fn learns(job: &Job, name: &str) -> &'static str {
    match job.reveal().what {
        _ if !job.learns(name) => "nothing",
        What::Intersection => "which of its own keys every party has, and hence how many",
        What::Count => "how many keys every party has",
    }
}

/// How many keys a party may send, and how many it can.
fn cap(job: &Job, name: &str) -> String {
    let (cap, most) = (job.maximum_keys_of(name), job.most_keys_of(name));
    if most == cap {
        return format!("{cap} keys");
    }
    let tenths = most.saturating_mul(10).div_ceil(cap);
    format!(
        "{cap} keys (a dishonest party can send {most}, {}.{} times as many, in place of what hides \
         sizes)",
        tenths / 10,
        tenths % 10
    )
}

const SIMULATED: &str = "SIMULATED: this job accepts a simulated platform, which protects nothing";

const NOT_ATTESTED: &str = "NOT ATTESTED: nobody verifies the service, which is identified by its pinned \
                            key only";

const NOT_FRESH: &str = "NOT FRESH: the service need not attest the connection; whoever has a key that an \
                         enclave once made passes";

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
            "the parties verify the service and each other; the service verifies the parties, too"
        }
        Verify::Service { .. } => "the parties verify the service before anything is sent",
        Verify::Provider { .. } => {
            "the parties verify each other, and the service verifies the parties; NOBODY VERIFIES THE \
             SERVICE, which is identified by its pinned key only"
        }
    }
}
