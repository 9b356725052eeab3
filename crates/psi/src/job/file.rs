//! Reads the job file, TOML that a person writes, into [`Terms`] and a [`Job`].
//!
//! ```toml
//! version = 1                     # of this form
//! name = "spring-campaign"        # what people call the job
//! mode = "attested"               # or "vole", "ecdh": the parties alone, without [service]
//! deadline = "30m"                # s, m, h, d; from the first party's arrival to the result
//! maximum_keys = 1000000          # cap on each party's distinct keys
//! # pad_keys_to = 100000          # sets are filled up to a multiple of this; absent: they are not
//! # unpinned_parties = 3          # instead of [[party]]: no identity is pinned
//!
//! [service]
//! address = "psi.example.org:7443"  # absent: said at run time
//! # addresses = ["a:7443", "b:7443"] # instead: services that each see a shard of the sets
//! verify = "service"              # whose evidence: "two-way" | "service" (default) | "provider"
//! # key = "sha256:..."            # required with verify = "provider"
//! [service.policy]                # required unless verify = "provider"
//! # [provider.policy]             # required with verify = "two-way" or "provider"
//!
//! [[key]]                         # one for each column of the key
//! name = "email"
//! normalise = ["email"]
//! # ignore = ["NULL", "N/A"]      # values that mean "unknown"; absent: none
//!
//! [reveal]
//! what = "intersection"           # or "count"
//! to = ["alice", "bob"]           # absent: everybody
//! minimum = 20                    # absent: 0
//!
//! [[party]]
//! name = "alice"
//! key = "sha256:..."
//! # maximum_keys = 5000           # instead of the job's
//! # address = "alice.example.org:7444"  # with mode = "vole" or "ecdh": where the others reach it
//! ```

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::terms::{KeyExchange, Mode, Parties, Party, Reveal, Service, Terms, Verify, What};
use super::{JOB_VERSION, Job, JobError, KeyId, Position, validation};
use crate::keys::{KeyPart, Recipe, Step};
use crate::limits::MAXIMUM_JOB_FILE_BYTES;

pub(super) fn parse(text: &str) -> Result<Job, JobError> {
    if text.len() > MAXIMUM_JOB_FILE_BYTES {
        return Err(JobError::new(
            "",
            format!(
                "the job file has {} bytes, expected at most {MAXIMUM_JOB_FILE_BYTES}",
                text.len()
            ),
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut places = Places::default();
    read(text, &mut places).and_then(Job::try_from).map_err(|mut error| {
        let span = error.position.is_none().then(|| places.find(&error.field)).flatten();
        error.position = error.position.or(span.map(|span| position(text, span.start)));
        error
    })
}

#[derive(Deserialize)]
struct VersionOnly {
    version: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "read by VersionOnly; stands here so that it is a known key")]
    version: toml::Value,
    name: Option<Spanned<String>>,
    mode: Option<Spanned<Mode>>,
    deadline: Option<Spanned<String>>,
    maximum_keys: Option<Spanned<u64>>,
    pad_keys_to: Option<Spanned<u64>>,
    canaries: Option<Spanned<u64>>,
    service: Option<Spanned<ServiceTable>>,
    provider: Option<Spanned<ProviderTable>>,
    #[serde(default)]
    key: Vec<Spanned<KeyTable>>,
    reveal: Option<Spanned<RevealTable>>,
    #[serde(default)]
    party: Vec<Spanned<PartyTable>>,
    unpinned_parties: Option<Spanned<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceTable {
    address: Option<Spanned<String>>,
    addresses: Option<Spanned<Vec<Spanned<String>>>>,
    verify: Option<Verify>,
    key: Option<Spanned<String>>,
    key_exchange: Option<KeyExchange>,
    policy: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderTable {
    policy: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    name: Option<Spanned<String>>,
    normalise: Option<Spanned<Vec<Spanned<String>>>>,
    ignore: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevealTable {
    what: Option<Spanned<What>>,
    to: Option<Spanned<Vec<Spanned<String>>>>,
    minimum: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartyTable {
    name: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    maximum_keys: Option<Spanned<u64>>,
    address: Option<Spanned<String>>,
}

/// The position of each field, for errors that are found later.
#[derive(Default)]
struct Places(Vec<(String, Range<usize>)>);

impl Places {
    fn note<T>(&mut self, field: impl Into<String>, value: Spanned<T>) -> T {
        self.0.push((field.into(), value.span()));
        value.into_inner()
    }

    fn optional<T>(&mut self, field: impl Into<String>, value: Option<Spanned<T>>) -> Option<T> {
        value.map(|value| self.note(field, value))
    }

    /// Takes a field that must be there; `line` is what a person may write.
    fn required<T>(
        &mut self,
        field: impl Into<String>,
        value: Option<Spanned<T>>,
        line: &str,
    ) -> Result<T, JobError> {
        let field = field.into();
        match value {
            Some(value) => Ok(self.note(field, value)),
            None => Err(JobError::new(&*field, format!("{field} is missing: add {line}"))),
        }
    }

    /// The position of `field`, or else of the innermost table or list around it.
    fn find(&self, field: &str) -> Option<Range<usize>> {
        let around = |outer: &str| {
            field.strip_prefix(outer).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
            })
        };
        let candidates = self.0.iter().filter(|(name, _)| around(name));
        candidates.max_by_key(|(name, _)| name.len()).map(|(_, span)| span.clone())
    }
}

fn read(text: &str, places: &mut Places) -> Result<Terms, JobError> {
    let version = read_version(text, places)?;
    let file: File = toml::from_str(text).map_err(|error| toml_error(text, &error))?;

    let deadline = places.required("deadline", file.deadline, "deadline = \"30m\"")?;
    let name = places.required("name", file.name, "name = \"spring-campaign\"")?;
    let mode = places.required(
        "mode",
        file.mode,
        "mode = \"attested\", or \"vole\" or \"ecdh\" without a service",
    )?;
    let keys = file.key.into_iter().enumerate();
    let keys: Vec<KeyPart> =
        keys.map(|(index, part)| read_key(index, part, places)).collect::<Result<_, _>>()?;
    Ok(Terms {
        version,
        name,
        mode,
        deadline_seconds: seconds(&deadline)?,
        maximum_keys: places.required(
            "maximum_keys",
            file.maximum_keys,
            "maximum_keys = 1000000 (the most distinct keys a party may send)",
        )?,
        pad_keys_to: places.optional("pad_keys_to", file.pad_keys_to),
        canaries: places.optional("canaries", file.canaries),
        service: read_service(mode, file.service, places)?,
        provider_policy: match places.optional("provider", file.provider) {
            Some(provider) => read_policy("provider.policy", provider.policy, places)?,
            None => None,
        },
        recipe: Some(Recipe::of(&keys)),
        keys,
        reveal: read_reveal(file.reveal, places)?,
        parties: read_parties(file.party, file.unpinned_parties, places)?,
        shard: None,
    })
}

/// The version comes first: a job of another version has other keys, and its reader should be told
/// that rather than which keys are unknown.
fn read_version(text: &str, places: &mut Places) -> Result<u32, JobError> {
    let VersionOnly { version } = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
    let line = format!("version = {JOB_VERSION}");
    let version = places.required("version", version, &line)?;
    if version.as_integer() == Some(i64::from(JOB_VERSION)) {
        return Ok(JOB_VERSION);
    }
    Err(validation::another_version(&version))
}

fn read_service(
    mode: Mode,
    table: Option<Spanned<ServiceTable>>,
    places: &mut Places,
) -> Result<Option<Service>, JobError> {
    let Some(table) = places.optional("service", table) else {
        return Ok((mode == Mode::Attested).then(Service::default));
    };
    let key = match places.optional("service.key", table.key) {
        Some(key) => Some(read_key_id("service.key", &key)?),
        None => None,
    };
    let addresses = places.optional("service.addresses", table.addresses).unwrap_or_default();
    let addresses = addresses.into_iter().enumerate();
    let addresses = addresses
        .map(|(index, address)| places.note(format!("service.addresses[{index}]"), address))
        .collect();
    Ok(Some(Service {
        addresses,
        address: places.optional("service.address", table.address),
        verify: table.verify.unwrap_or_default(),
        key,
        key_exchange: table.key_exchange,
        policy: read_policy("service.policy", table.policy, places)?,
    }))
}

fn read_policy(
    field: &str,
    policy: Option<Spanned<toml::Value>>,
    places: &mut Places,
) -> Result<Option<Value>, JobError> {
    places.optional(field, policy).map(|policy| json(field, policy)).transpose()
}

fn read_key(
    index: usize,
    part: Spanned<KeyTable>,
    places: &mut Places,
) -> Result<KeyPart, JobError> {
    let table = format!("key[{index}]");
    let field = format!("{table}.normalise");
    let part = places.note(table.as_str(), part);
    let name = places.required(format!("{table}.name"), part.name, "name = \"email\"")?;
    let steps = places.required(
        field.as_str(),
        part.normalise,
        "normalise = [\"trim\"], or normalise = [] to compare the text as it stands",
    )?;
    let normalise = steps.into_iter().enumerate().map(|(index, step)| {
        let field = format!("{field}[{index}]");
        let step = places.note(field.as_str(), step);
        step.parse::<Step>().map_err(|error| JobError::new(field, error.to_string()))
    });
    let normalise = normalise.collect::<Result<_, _>>()?;
    let ignore = places.optional(format!("{table}.ignore"), part.ignore).unwrap_or_default();
    let ignore = ignore.into_iter().enumerate();
    let ignore = ignore
        .map(|(index, value)| places.note(format!("{table}.ignore[{index}]"), value))
        .collect();
    Ok(KeyPart { name, normalise, ignore })
}

fn read_reveal(
    table: Option<Spanned<RevealTable>>,
    places: &mut Places,
) -> Result<Reveal, JobError> {
    const LINE: &str = "what = \"intersection\" or what = \"count\" under [reveal]";
    let Some(table) = places.optional("reveal", table) else {
        return Err(JobError::new("reveal", format!("reveal is missing: add {LINE}")));
    };
    let what = places.required("reveal.what", table.what, LINE)?;
    let to = places.optional("reveal.to", table.to);
    if to.as_ref().is_some_and(Vec::is_empty) {
        return Err(JobError::new(
            "reveal.to",
            "reveal.to is empty: name who learns the result, or remove the line and everybody does",
        ));
    }
    let to = to.unwrap_or_default().into_iter().enumerate();
    let to = to.map(|(index, name)| places.note(format!("reveal.to[{index}]"), name)).collect();
    let minimum = places.optional("reveal.minimum", table.minimum).unwrap_or(0);
    Ok(Reveal { what, to, minimum })
}

fn read_parties(
    parties: Vec<Spanned<PartyTable>>,
    unpinned: Option<Spanned<usize>>,
    places: &mut Places,
) -> Result<Parties, JobError> {
    if let Some(count) = places.optional("unpinned_parties", unpinned) {
        if parties.is_empty() {
            return Ok(Parties::Unpinned { count });
        }
        return Err(JobError::new(
            "unpinned_parties",
            "the job has [[party]] and unpinned_parties: remove unpinned_parties",
        ));
    }
    let parties = parties.into_iter().enumerate().map(|(index, party)| {
        let table = format!("party[{index}]");
        let field = format!("{table}.key");
        let party = places.note(table.as_str(), party);
        let name = places.required(format!("{table}.name"), party.name, "name = \"alice\"")?;
        let key = places.required(field.as_str(), party.key, "key = \"sha256:...\"")?;
        let maximum_keys = places.optional(format!("{table}.maximum_keys"), party.maximum_keys);
        let address = places.optional(format!("{table}.address"), party.address);
        Ok(Party { name, key: read_key_id(&field, &key)?, maximum_keys, address })
    });
    parties.collect::<Result<_, _>>().map(Parties::Named)
}

fn read_key_id(field: &str, text: &str) -> Result<KeyId, JobError> {
    text.parse().map_err(|error| JobError::new(field, format!("{field}: {error}")))
}

/// A duration of one whole number and one unit, in seconds.
fn seconds(text: &str) -> Result<u64, JobError> {
    let unit = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(24 * 3600),
        _ => None,
    };
    let parsed = text.char_indices().next_back().and_then(|(at, last)| {
        let number = &text[..at];
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| digits)?;
        number.checked_mul(unit(last)?)
    });
    parsed.ok_or_else(|| {
        JobError::new(
            "deadline",
            format!(
                "deadline is \"{}\", expected a whole number and s, m, h or d, as in \"30m\"",
                text.escape_debug()
            ),
        )
    })
}

/// A policy as JSON. Dates and fractions have no place in one, and no exact canonical form.
fn json(field: &str, value: toml::Value) -> Result<Value, JobError> {
    match value {
        toml::Value::String(text) => Ok(Value::String(text)),
        toml::Value::Integer(number) => Ok(Value::from(number)),
        toml::Value::Boolean(value) => Ok(Value::Bool(value)),
        toml::Value::Array(values) => {
            let values = values.into_iter().enumerate();
            values.map(|(index, value)| json(&format!("{field}[{index}]"), value)).collect()
        }
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(name, value)| {
                let value = json(&format!("{field}.{name}"), value)?;
                Ok((name, value))
            });
            entries.collect::<Result<serde_json::Map<_, _>, _>>().map(Value::Object)
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => Err(JobError::new(
            field,
            format!(
                "{field} is a fraction or a date, expected a whole number below 2^53: write it as text"
            ),
        )),
    }
}

fn toml_error(text: &str, error: &toml::de::Error) -> JobError {
    let message = error.message().trim_end();
    let mut converted = JobError::new("", format!("{message}: correct the job file here"));
    converted.position = error.span().map(|span| position(text, span.start));
    converted
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.char_indices().take_while(|(at, _)| *at < offset);
    before.fold(Position { line: 1, column: 1 }, |Position { line, column }, (_, c)| match c {
        '\n' => Position { line: line + 1, column: 1 },
        _ => Position { line, column: column + 1 },
    })
}
