//! From terms to a job: everything that the types leave open is checked here, once.

use std::sync::Arc;

use serde_json::Value;

use super::terms::{self, Parties, Terms, What};
use super::{
    Content, JOB_VERSION, Job, JobDigest, JobError, JobPolicy, Mode, Protocol, Service, Verify,
};
use crate::keys::{KeyPart, Recipe};
use crate::limits::{
    MAXIMUM_ADDRESS_BYTES, MAXIMUM_CANARIES, MAXIMUM_CAP_FACTOR, MAXIMUM_DEADLINE_SECONDS,
    MAXIMUM_DIRECT_PARTIES, MAXIMUM_IGNORED, MAXIMUM_IGNORED_BYTES, MAXIMUM_INTEGER,
    MAXIMUM_JOB_BYTES, MAXIMUM_KEY_PARTS, MAXIMUM_KEYS, MAXIMUM_NAME_BYTES, MAXIMUM_PARTIES,
    MAXIMUM_POLICY_DEPTH, MAXIMUM_SERVICES, MAXIMUM_STEPS, MINIMUM_CANARIES,
    MINIMUM_DEADLINE_SECONDS, MINIMUM_PARTIES,
};

impl TryFrom<Terms> for Job {
    type Error = JobError;

    /// For the first term that is not allowed: what was found and what to do.
    fn try_from(mut terms: Terms) -> Result<Self, JobError> {
        check_version(terms.version)?;
        check_name("name", &terms.name)?;
        check_range(
            "deadline",
            terms.deadline_seconds,
            MINIMUM_DEADLINE_SECONDS..=MAXIMUM_DEADLINE_SECONDS,
            "seconds",
        )?;
        check_range("maximum_keys", terms.maximum_keys, 1..=MAXIMUM_KEYS, "keys")?;
        if let Some(step) = terms.pad_keys_to {
            check_range("pad_keys_to", step, 1..=MAXIMUM_KEYS, "keys")?;
        }
        if let Some(canaries) = terms.canaries {
            check_range(
                "canaries",
                canaries,
                MINIMUM_CANARIES..=MAXIMUM_CANARIES,
                "of each pattern",
            )?;
        }
        check_keys(&terms.keys)?;
        check_recipe(terms.recipe.as_ref(), &terms.keys)?;
        check_parties(&terms.parties)?;
        check_reveal(&terms)?;
        let direct = match terms.mode {
            terms::Mode::Attested => None,
            terms::Mode::Vole => Some(Protocol::Vole),
            terms::Mode::Ecdh => Some(Protocol::Ecdh),
        };
        let of_service = match (direct, terms.service.take()) {
            (Some(protocol), service) => {
                check_direct(protocol, &terms, service.is_some())?;
                None
            }
            (None, service) => {
                let service = service.unwrap_or_default();
                check_addresses(&terms, &service)?;
                check_policy("service.policy", service.policy.as_ref())?;
                check_policy("provider.policy", terms.provider_policy.as_ref())?;
                terms.service = Some(service.clone());
                Some(service)
            }
        };
        check_addresses_of_parties(&terms)?;
        terms.normalise();
        let canonical = terms.canonical();
        let digest = JobDigest::of(&canonical);
        let named = matches!(terms.parties, Parties::Named(_));
        let mode = match (direct, of_service) {
            (Some(protocol), _) => Mode::Direct(protocol),
            (None, of_service) => {
                let of_service = of_service.unwrap_or_default();
                Mode::Attested(service(of_service, terms.provider_policy.as_ref(), named)?)
            }
        };
        if canonical.len() > MAXIMUM_JOB_BYTES {
            return Err(too_long(canonical.len()));
        }
        let content = Arc::new(Content {
            name: terms.name,
            mode,
            deadline_seconds: terms.deadline_seconds,
            maximum_keys: terms.maximum_keys,
            pad_keys_to: terms.pad_keys_to,
            canaries: terms.canaries.unwrap_or(0),
            keys: terms.keys,
            recipe: terms.recipe,
            reveal: terms.reveal,
            parties: terms.parties,
        });
        let job = Self { content, shard: terms.shard, canonical: canonical.into(), digest };
        check_caps(&job)?;
        Ok(job)
    }
}

/// Where sizes are hidden, a party sends more pseudonyms than it has keys, and a dishonest one can
/// send keys in their place. A cap must still be about what it says.
fn check_caps(job: &Job) -> Result<(), JobError> {
    let check = |field: String, cap: u64| {
        let most = job.most_keys(cap);
        if most <= cap.saturating_mul(MAXIMUM_CAP_FACTOR) {
            return Ok(());
        }
        let what = match job.services() {
            1 => "what is sent is padded".to_owned(),
            services => format!("each of {services} shards is padded"),
        };
        let text = format!(
            "{field} is {cap}, but {what}, so a party can send {most} distinct keys, {}.{} times as \
             many, expected at most {MAXIMUM_CAP_FACTOR} times: raise {field}, or pad less or name \
             fewer services",
            most / cap,
            most % cap * 10 / cap
        );
        Err(JobError::new(field, text))
    };
    check("maximum_keys".to_owned(), job.maximum_keys())?;
    for (index, party) in job.parties().named().iter().enumerate() {
        if let Some(cap) = party.maximum_keys {
            check(format!("party[{index}].maximum_keys"), cap)?;
        }
    }
    Ok(())
}

/// Whether `name` can be the name of a job, a party or a key part.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAXIMUM_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

pub(super) fn check_version(found: u32) -> Result<(), JobError> {
    if found == JOB_VERSION { Ok(()) } else { Err(another_version(&found)) }
}

pub(super) fn another_version(found: &dyn std::fmt::Display) -> JobError {
    JobError::new(
        "version",
        format!(
            "version is {found}, expected {JOB_VERSION}: use the program that the job was written \
             for"
        ),
    )
}

pub(super) fn too_long(length: usize) -> JobError {
    JobError::new(
        "",
        format!(
            "the job has {length} bytes in its canonical form, expected at most \
             {MAXIMUM_JOB_BYTES}: shorten its policies"
        ),
    )
}

fn check_keys(keys: &[KeyPart]) -> Result<(), JobError> {
    if keys.is_empty() || keys.len() > MAXIMUM_KEY_PARTS {
        return Err(JobError::new(
            "key",
            format!(
                "the job has {} key parts, expected 1 to {MAXIMUM_KEY_PARTS}: write a [[key]] for \
                 each column that identifies a record",
                keys.len()
            ),
        ));
    }
    for (index, part) in keys.iter().enumerate() {
        let field = format!("key[{index}].name");
        check_name(&field, &part.name)?;
        if keys[..index].iter().any(|earlier| earlier.name == part.name) {
            return Err(JobError::new(
                field,
                format!("two key parts are called \"{}\": rename one", part.name),
            ));
        }
        if part.normalise.len() > MAXIMUM_STEPS {
            return Err(JobError::new(
                format!("key[{index}].normalise"),
                format!(
                    "key part \"{}\" has {} normalisation steps, expected at most \
                     {MAXIMUM_STEPS}: remove some",
                    part.name,
                    part.normalise.len()
                ),
            ));
        }
        check_ignored(index, part)?;
    }
    Ok(())
}

fn check_ignored(index: usize, part: &KeyPart) -> Result<(), JobError> {
    let field = format!("key[{index}].ignore");
    if part.ignore.len() > MAXIMUM_IGNORED {
        return Err(JobError::new(
            field,
            format!(
                "key part \"{}\" ignores {} values, expected at most {MAXIMUM_IGNORED}",
                part.name,
                part.ignore.len()
            ),
        ));
    }
    let fits = |value: &String| (1..=MAXIMUM_IGNORED_BYTES).contains(&value.len());
    match part.ignore.iter().position(|value| !fits(value)) {
        None => Ok(()),
        Some(number) => Err(JobError::new(
            format!("{field}[{number}]"),
            format!(
                "{field} has a value of {} bytes, expected 1 to {MAXIMUM_IGNORED_BYTES}: rows \
                 without a text are left out anyway",
                part.ignore[number].len()
            ),
        )),
    }
}

/// What a recipe of another version means is for the programs that apply it; this one applies
/// [`RECIPE_VERSION`](crate::RECIPE_VERSION), and its steps must be meaningful.
fn check_recipe(recipe: Option<&Recipe>, keys: &[KeyPart]) -> Result<(), JobError> {
    let Some(recipe) = recipe else {
        if keys.iter().any(|part| !part.ignore.is_empty()) {
            return Err(JobError::new("recipe", "a job of recipe 1 ignores no values"));
        }
        return Ok(());
    };
    let versions = [Some(&recipe.unicode), recipe.telephone.as_ref()];
    if recipe.version < 2 || !versions.into_iter().flatten().all(|version| is_name(version)) {
        return Err(JobError::new(
            "recipe",
            "recipe is none that a program writes: send what was derived from the job file",
        ));
    }
    for (part, key) in keys.iter().enumerate() {
        let codes = key.normalise.iter().map(|step| step.unassigned_country());
        if let Some((index, Some(code))) =
            codes.enumerate().find(|(_, unassigned)| unassigned.is_some())
        {
            return Err(JobError::new(
                format!("key[{part}].normalise[{index}]"),
                format!(
                    "no country has the calling code {code}: write that of the country in which \
                     numbers without one are dialled, as in \"phone:49\""
                ),
            ));
        }
    }
    Ok(())
}

fn check_parties(parties: &Parties) -> Result<(), JobError> {
    let count = parties.count();
    if !(MINIMUM_PARTIES..=MAXIMUM_PARTIES).contains(&count) {
        let (field, advice) = match parties {
            Parties::Named(_) => ("party", "write a [[party]] for each"),
            Parties::Unpinned { .. } => ("unpinned_parties", "correct the number"),
        };
        return Err(JobError::new(
            field,
            format!(
                "the job has {count} parties, expected {MINIMUM_PARTIES} to {MAXIMUM_PARTIES}: \
                 {advice}"
            ),
        ));
    }
    let parties = parties.named();
    for (index, party) in parties.iter().enumerate() {
        let field = |field: &str| format!("party[{index}].{field}");
        check_name(&field("name"), &party.name)?;
        for earlier in &parties[..index] {
            if earlier.name == party.name {
                return Err(JobError::new(
                    field("name"),
                    format!("two parties are called \"{}\": rename one", party.name),
                ));
            }
            if earlier.key == party.key {
                return Err(JobError::new(
                    field("key"),
                    format!(
                        "\"{}\" and \"{}\" have the same key: every party makes its own",
                        earlier.name, party.name
                    ),
                ));
            }
        }
        if let Some(cap) = party.maximum_keys {
            check_range(&field("maximum_keys"), cap, 1..=MAXIMUM_KEYS, "keys")?;
        }
    }
    Ok(())
}

fn check_reveal(terms: &Terms) -> Result<(), JobError> {
    let (reveal, parties) = (&terms.reveal, &terms.parties);
    if matches!(parties, Parties::Unpinned { .. }) && !reveal.to.is_empty() {
        return Err(JobError::new(
            "reveal.to",
            "reveal.to names parties of a job whose parties are not pinned: remove it, or name \
             the parties in [[party]]",
        ));
    }
    if terms.canaries.is_some() && reveal.what == What::Count {
        let text = "canaries are found in an intersection, and reveal.what = \"count\" does not show \
                    which keys were counted: remove them, or reveal the intersection";
        return Err(JobError::new("canaries", text));
    }
    for (index, name) in reveal.to.iter().enumerate() {
        let field = format!("reveal.to[{index}]");
        if !parties.named().iter().any(|party| party.name == *name) {
            let text = format!(
                "reveal.to names \"{name}\", expected the name of a [[party]]: correct or remove it"
            );
            return Err(JobError::new(field, text));
        }
        if reveal.to[..index].contains(name) {
            let text = format!("reveal.to names \"{name}\" twice: remove one");
            return Err(JobError::new(field, text));
        }
    }
    let caps = parties.named().iter().map(|party| party.maximum_keys.unwrap_or(terms.maximum_keys));
    let smallest = caps.min().unwrap_or(terms.maximum_keys);
    if reveal.minimum > smallest {
        return Err(JobError::new(
            "reveal.minimum",
            format!(
                "reveal.minimum is {}, expected at most {smallest}, the smallest cap on a party's \
                 keys: every result would be withheld; lower the minimum or raise the cap",
                reveal.minimum
            ),
        ));
    }
    Ok(())
}

/// What a job without a service cannot have: what only a service does, and what the protocol between
/// the parties cannot keep.
fn check_direct(protocol: Protocol, terms: &Terms, service: bool) -> Result<(), JobError> {
    let mode = protocol.as_str();
    let refuse = |field: &str, text: String| Err(JobError::new(field, text));
    if service {
        let text = format!(
            "[service] is given, but with mode = \"{mode}\" there is none: remove it, or write \
             mode = \"attested\""
        );
        return refuse("service", text);
    }
    if terms.provider_policy.is_some() {
        let text = format!(
            "[provider.policy] is given, but with mode = \"{mode}\" nobody shows evidence: remove it"
        );
        return refuse("provider.policy", text);
    }
    if terms.canaries.is_some() {
        let text = format!(
            "canaries find out whether a service lies, and with mode = \"{mode}\" there is none: remove \
             them"
        );
        return refuse("canaries", text);
    }
    if terms.shard.is_some() {
        return refuse("shard", format!("mode = \"{mode}\" has no shards"));
    }
    let Parties::Named(parties) = &terms.parties else {
        let text = format!(
            "with mode = \"{mode}\" parties recognise each other by their keys alone: write a [[party]] with \
             its key for each"
        );
        return refuse("unpinned_parties", text);
    };
    let (most, instead) = match protocol {
        Protocol::Vole => (MAXIMUM_DIRECT_PARTIES, "\"attested\""),
        Protocol::Ecdh => (2, "\"vole\" or \"attested\""),
    };
    if parties.len() > most {
        let text = format!(
            "the job has {} parties, and mode = \"{mode}\" is for {most} at most: name fewer, or write \
             mode = {instead}",
            parties.len()
        );
        return refuse("party", text);
    }
    if terms.reveal.what == What::Count && protocol == Protocol::Vole {
        let text = "with mode = \"vole\" the party that counts sees which keys it counts: write mode = \
                    \"ecdh\" to reveal a count alone";
        return refuse("reveal.what", text.to_owned());
    }
    if terms.reveal.minimum > 0 {
        let text = format!(
            "reveal.minimum is {}, but with mode = \"{mode}\" nobody stands between a party and a small \
             result, which it would see before it could be withheld: remove it, or write mode = \
             \"attested\"",
            terms.reveal.minimum
        );
        return refuse("reveal.minimum", text);
    }
    Ok(())
}

/// Parties are reached by others only where there is no service.
fn check_addresses_of_parties(terms: &Terms) -> Result<(), JobError> {
    let parties = terms.parties.named();
    for (index, party) in parties.iter().enumerate() {
        let field = format!("party[{index}].address");
        let Some(address) = &party.address else { continue };
        if terms.mode == terms::Mode::Attested {
            let text = format!(
                "{field} is given, but with mode = \"attested\" parties reach the service, not each other: \
                 remove it"
            );
            return Err(JobError::new(field, text));
        }
        check_address(&field, address)?;
        if parties[..index].iter().any(|earlier| earlier.address.as_ref() == Some(address)) {
            let text = format!("{field} is that of another party, too: every party has its own");
            return Err(JobError::new(field, text));
        }
    }
    Ok(())
}

/// Where the services listen, and what a job with several of them cannot have.
fn check_addresses(terms: &Terms, service: &terms::Service) -> Result<(), JobError> {
    let reveal = &terms.reveal;
    if let Some(address) = &service.address {
        check_address("service.address", address)?;
    }
    let (addresses, count) = (&service.addresses, service.addresses.len());
    if terms.shard.is_some_and(|shard| shard.number >= count) {
        let text = format!("the job has no service for this shard, expected one of {count}");
        return Err(JobError::new("shard", text));
    }
    if addresses.is_empty() {
        return Ok(());
    }
    if !(count.is_power_of_two() && (2..=MAXIMUM_SERVICES).contains(&count)) {
        let text = format!(
            "service.addresses has {count} services, expected 2, 4, 8 or {MAXIMUM_SERVICES}"
        );
        return Err(JobError::new("service.addresses", text));
    }
    for (index, address) in addresses.iter().enumerate() {
        let field = format!("service.addresses[{index}]");
        check_address(&field, address)?;
        if addresses[..index].contains(address) {
            let text = format!("{field} is listed twice: every shard needs a service of its own");
            return Err(JobError::new(field, text));
        }
    }
    let conflict = |field: &str, text: &str| {
        Err(JobError::new(field, format!("{text}: remove it, or name one service")))
    };
    if service.address.is_some() {
        return conflict("service.address", "service.address is given next to service.addresses");
    }
    if service.key.is_some() || service.verify == terms::Verify::Provider {
        let text = "service.key names one service, and service.addresses has several";
        return conflict("service.key", text);
    }
    if reveal.what == What::Count {
        let text = "reveal.what = \"count\" would reveal a number for each shard, not just one";
        return conflict("reveal.what", text);
    }
    if reveal.minimum > 0 {
        let text = "reveal.minimum is about all keys, and every service sees only its own shard";
        return conflict("reveal.minimum", text);
    }
    Ok(())
}

/// The service with the policies that verify its evidence, and the providers': each policy is
/// present exactly where it is applied.
fn service(
    service: terms::Service,
    provider_policy: Option<&Value>,
    named: bool,
) -> Result<Service, JobError> {
    let refuse = |field: &str, text: &str| Err(JobError::new(field, text));
    let no_policy = named && service.policy.is_none();
    let no_provider_policy = named && provider_policy.is_none();
    let no_key = named && service.key.is_none();
    let key = service.key;
    let policy = service.policy.as_ref().map(JobPolicy::from);
    let provider_policy = provider_policy.map(JobPolicy::from);
    let verify = match service.verify {
        terms::Verify::Service if provider_policy.is_some() => {
            return refuse(
                "provider.policy",
                "provider.policy is given, but verify = \"service\" never looks at the providers' \
                 evidence: remove the policy, or write verify = \"two-way\" under [service]",
            );
        }
        terms::Verify::Provider if policy.is_some() => {
            return refuse(
                "service.policy",
                "service.policy is given, but verify = \"provider\" never looks at the service's \
                 evidence: remove the policy, or write verify = \"two-way\"",
            );
        }
        terms::Verify::Service | terms::Verify::TwoWay if no_policy => {
            return refuse(
                "service",
                "the job has no [service.policy]: write what the providers accept as the \
                 service's evidence",
            );
        }
        terms::Verify::TwoWay | terms::Verify::Provider if no_provider_policy => {
            return refuse(
                "provider",
                "the job has no [provider.policy]: write what the service accepts as the \
                 providers' evidence, or verify = \"service\" under [service]",
            );
        }
        terms::Verify::Provider if no_key => {
            return refuse(
                "service",
                "the job has no service.key: with verify = \"provider\" the service is recognised \
                 by its key alone; add key = \"sha256:...\" under [service]",
            );
        }
        terms::Verify::Service => Verify::Service { policy },
        terms::Verify::TwoWay => Verify::TwoWay { policy, provider_policy },
        terms::Verify::Provider => Verify::Provider { provider_policy },
    };
    let addresses = service.address.map_or(service.addresses, |address| vec![address]);
    let hybrid = service.key_exchange == Some(terms::KeyExchange::X25519MlKem768);
    Ok(Service { addresses, key, hybrid, verify })
}

fn check_name(field: &str, name: &str) -> Result<(), JobError> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAXIMUM_NAME_BYTES).collect();
    Err(JobError::new(
        field,
        format!(
            "{field} is \"{}\", expected 1 to {MAXIMUM_NAME_BYTES} letters, digits, dots, \
             underscores and hyphens (A-Z a-z 0-9 . _ -)",
            shown.escape_debug()
        ),
    ))
}

fn check_range(
    field: &str,
    found: u64,
    expected: std::ops::RangeInclusive<u64>,
    unit: &str,
) -> Result<(), JobError> {
    if expected.contains(&found) {
        return Ok(());
    }
    Err(JobError::new(
        field,
        format!(
            "{field} is {found} {unit}, expected {} to {} {unit}",
            expected.start(),
            expected.end()
        ),
    ))
}

fn check_address(field: &str, address: &str) -> Result<(), JobError> {
    if is_address(address) {
        return Ok(());
    }
    Err(JobError::new(
        field,
        format!(
            "{field} is \"{}\", expected host:port as in \"psi.example.org:7443\"",
            address.escape_debug()
        ),
    ))
}

/// Whether `address` can be the address of a service: a host's name or IP address, a colon and a port.
pub fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let allowed = |byte: u8| match byte {
        b':' | b'%' => bracketed.is_some(),
        byte => byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'),
    };
    let name = bracketed.unwrap_or(host);
    address.len() <= MAXIMUM_ADDRESS_BYTES
        && !name.is_empty()
        && name.bytes().all(allowed)
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn check_policy(field: &str, policy: Option<&Value>) -> Result<(), JobError> {
    match policy {
        None => Ok(()),
        Some(policy @ Value::Object(_)) => check_policy_value(field, policy, 0),
        Some(_) => Err(JobError::new(field, format!("{field} is not a table: write [{field}]"))),
    }
}

/// RFC 8785 writes numbers as IEEE 754 doubles: anything that is not an exact integer there is
/// refused.
fn check_policy_value(field: &str, value: &Value, depth: usize) -> Result<(), JobError> {
    if depth > MAXIMUM_POLICY_DEPTH {
        return Err(JobError::new(
            field,
            format!(
                "{field} is nested more than {MAXIMUM_POLICY_DEPTH} levels deep: flatten the policy"
            ),
        ));
    }
    match value {
        Value::Number(number) => {
            let magnitude = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            if magnitude.is_some_and(|magnitude| magnitude <= MAXIMUM_INTEGER) {
                return Ok(());
            }
            Err(JobError::new(
                field,
                format!(
                    "{field} is {number}, expected a whole number below 2^53: write it as text"
                ),
            ))
        }
        Value::Array(values) => values.iter().enumerate().try_for_each(|(index, value)| {
            check_policy_value(&format!("{field}[{index}]"), value, depth + 1)
        }),
        Value::Object(values) => values.iter().try_for_each(|(name, value)| {
            check_policy_value(&format!("{field}.{name}"), value, depth + 1)
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
