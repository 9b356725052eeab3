//! A job: who, which key, who learns what. One file, identical at every party.
//!
//! [`Job::from_toml`] reads what a person wrote; [`Job::canonical`] is the one form that is
//! hashed, sent and compared: canonical JSON (RFC 8785). A job is identified by the SHA-256 of it.

mod compare;
mod file;
mod shard;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::keys::{KeyPart, Step};
use crate::limits::{
    MAXIMUM_ADDRESS_BYTES, MAXIMUM_DEADLINE_SECONDS, MAXIMUM_ENCODED_KEY_BYTES, MAXIMUM_INTEGER,
    MAXIMUM_JOB_BYTES, MAXIMUM_KEY_PARTS, MAXIMUM_KEYS, MAXIMUM_NAME_BYTES, MAXIMUM_PARTIES,
    MAXIMUM_POLICY_DEPTH, MAXIMUM_SERVICES, MAXIMUM_STEPS, MINIMUM_DEADLINE_SECONDS,
    MINIMUM_PARTIES,
};

pub use self::shard::Shard;

/// The version of the job's form that this crate reads and writes.
pub const JOB_VERSION: u32 = 1;

/// One intersection of the key sets of 2 to 64 parties.
///
/// The order of parties and of names in [`Reveal::to`] means nothing: two jobs that differ in it
/// alone have one canonical form and one digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// [`JOB_VERSION`].
    pub version: u32,
    /// What people call this job: 1 to 64 of `A-Za-z0-9._-`. The service sees it.
    pub name: String,
    /// How the intersection is computed.
    pub mode: Mode,
    /// Seconds from the first party's arrival to the result, 1 second to 7 days. In TOML
    /// `deadline = "30m"`, with s, m, h or d.
    pub deadline_seconds: u64,
    /// Cap on every party's number of distinct keys, 1 to 2^32, where the party has none of its
    /// own. A party that sends more is refused before the join, so a partner cannot guess with a
    /// dictionary. All parties and the service see it.
    pub maximum_keys: u64,
    /// Every party fills its set up with random pseudonyms to a multiple of this number, 1 to 2^32, so
    /// that service and network learn only that multiple of its size. Absent: sizes are not hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_keys_to: Option<u64>,
    /// The attested service that joins.
    pub service: Service,
    /// What the service accepts as evidence of the providers. Required, and only there, where
    /// parties are named and `service.verify` is "two-way" or "provider". In TOML
    /// `[provider.policy]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_policy: Option<Value>,
    /// The parts of a key, 1 to 16, in TOML `[[key]]`. Their order counts.
    pub keys: Vec<KeyPart>,
    /// Who learns what.
    pub reveal: Reveal,
    /// Who takes part, in TOML `[[party]]` or `unpinned_parties = 3`.
    pub parties: Parties,
    /// In what one of several services gets of the job: which shard it is. Absent in the job of the parties
    /// and never in TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

/// How an intersection is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By an attested service that sees pseudonyms only.
    Attested,
}

/// The attested service of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Where it listens, `host:port`. Absent: said at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where several services listen that each see a shard of the sets: 2, 4, 8 or 16, instead of
    /// `address`. Empty, or absent in TOML: there is one service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Whose evidence is verified. In TOML "service" if absent.
    pub verify: Verify,
    /// The service's key. Required where `verify` is "provider" and parties are named: the service
    /// is recognised by this key alone then. Elsewhere it is demanded beside the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// What the providers accept as the service's evidence: an object, read by the verifier.
    /// Required where parties are named and `verify` is not "provider"; refused where `verify` is
    /// "provider", because nothing would obey it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
}

/// Whose evidence is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// The service's and the providers'.
    TwoWay,
    /// The service's; providers show their pinned key.
    #[default]
    Service,
    /// The providers'; the service shows its pinned key.
    Provider,
}

/// Who learns what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reveal {
    /// What those in `to` learn.
    pub what: What,
    /// Names of the parties that learn it. Empty, or absent in TOML: everybody. The canonical form
    /// lists every name.
    pub to: Vec<String>,
    /// A result of fewer keys than this is withheld from everybody in `to`; they learn that it was
    /// withheld and so that it is smaller, but no number. 0, or absent in TOML: never.
    pub minimum: u64,
}

/// What a result reveals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Which of one's own keys all other parties have too, and so how many.
    Intersection,
    /// How many keys all parties have.
    Count,
}

/// Who takes part in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Parties {
    /// Parties known by name and key.
    Named(Vec<Party>),
    /// So many parties, no identity pinned: who they are is vouched for by the attested service
    /// alone.
    Open {
        /// Number of parties, 2 to 64.
        count: usize,
    },
}

/// An organisation taking part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// 1 to 64 of `A-Za-z0-9._-`, unique in the job.
    pub name: String,
    /// Its identity key.
    pub key: KeyId,
    /// Cap on this party's number of distinct keys, instead of the job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_keys: Option<u64>,
}

/// The identity of a key: SHA-256 of its SubjectPublicKeyInfo in DER. As text `sha256:` and 64
/// lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

/// A text is not the identity of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no key: required is sha256: and 64 lower-case hexadecimal digits")]
pub struct KeyIdError(String);

impl KeyId {
    /// The identity of the key with this SubjectPublicKeyInfo in DER.
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        text.strip_prefix("sha256:")
            .and_then(lower_hex)
            .map(Self)
            .ok_or_else(|| KeyIdError(text.to_owned()))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of a job's canonical form. As text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobDigest(pub [u8; 32]);

/// A text is not a job digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no job digest: required are 64 lower-case hexadecimal digits")]
pub struct JobDigestError(String);

impl JobDigest {
    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for JobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for JobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobDigest {
    type Err = JobDigestError;

    fn from_str(text: &str) -> Result<Self, JobDigestError> {
        lower_hex(text).map(Self).ok_or_else(|| JobDigestError(text.to_owned()))
    }
}

impl Serialize for JobDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why something is not a job. Says where, what was found and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", position.map(|at| format!("line {}, column {}: ", at.line, at.column))
    .unwrap_or_default())]
pub struct JobError {
    field: String,
    message: String,
    position: Option<Position>,
}

/// A place in a text; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl JobError {
    /// The error without its position, for a caller that prints `file:line:column:` itself.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where in the job file it is, as far as known.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), position: None }
    }
}

impl Job {
    /// Reads a job file (TOML) and validates it. Unknown keys are errors.
    ///
    /// # Errors
    /// With line and column, what was found and what to do.
    pub fn from_toml(text: &str) -> Result<Self, JobError> {
        file::parse(text)
    }

    /// Reads the canonical form and validates the job.
    ///
    /// # Errors
    /// If `bytes` are more than [`MAXIMUM_JOB_BYTES`], not a valid job, or not byte for byte its
    /// canonical form.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, JobError> {
        if bytes.len() > MAXIMUM_JOB_BYTES {
            return Err(too_long(bytes.len()));
        }
        let job: Self = serde_json::from_slice(bytes).map_err(|error| {
            JobError::new("", format!("these bytes are not a job in canonical JSON: {error}"))
        })?;
        job.validate()?;
        if job.canonical().as_bytes() != bytes {
            return Err(JobError::new(
                "",
                "this job is not in its canonical form (RFC 8785, parties and names sorted): send \
                 the canonical form",
            ));
        }
        Ok(job)
    }

    /// The job as `convelo join` runs it, without a job file: identities are not pinned, the key
    /// is one part called "id" that is trimmed, everybody learns the intersection. Not yet
    /// validated.
    pub fn open(
        name: impl Into<String>,
        parties: usize,
        maximum_keys: u64,
        deadline_seconds: u64,
        verify: Verify,
    ) -> Self {
        Self {
            version: JOB_VERSION,
            name: name.into(),
            mode: Mode::Attested,
            deadline_seconds,
            maximum_keys,
            pad_keys_to: None,
            service: Service { verify, ..Service::default() },
            provider_policy: None,
            keys: vec![KeyPart { name: "id".to_owned(), normalise: vec![Step::Trim] }],
            reveal: Reveal { what: What::Intersection, to: Vec::new(), minimum: 0 },
            parties: Parties::Open { count: parties },
            shard: None,
        }
    }

    /// The canonical form: JSON of RFC 8785, parties sorted by name, every recipient listed.
    #[expect(clippy::missing_panics_doc, reason = "a job has string keys and finite numbers")]
    pub fn canonical(&self) -> String {
        let mut job = self.clone();
        if let Parties::Named(parties) = &mut job.parties {
            parties.sort_by(|a, b| a.name.cmp(&b.name));
            if job.reveal.to.is_empty() {
                job.reveal.to = parties.iter().map(|party| party.name.clone()).collect();
            }
        }
        job.reveal.to.sort();
        serde_json_canonicalizer::to_string(&job).expect("a job has string keys and finite numbers")
    }

    /// SHA-256 of the canonical form: the identity of the job.
    pub fn digest(&self) -> JobDigest {
        JobDigest(Sha256::digest(self.canonical()).into())
    }

    /// Checks everything that the types leave open.
    ///
    /// # Errors
    /// The first violation, with what was found and what to do.
    pub fn validate(&self) -> Result<(), JobError> {
        if self.version != JOB_VERSION {
            return Err(JobError::new(
                "version",
                format!(
                    "version is {}, this program reads version {JOB_VERSION}: use the program \
                     that the job was written for",
                    self.version
                ),
            ));
        }
        check_name("name", &self.name)?;
        check_range(
            "deadline",
            self.deadline_seconds,
            MINIMUM_DEADLINE_SECONDS..=MAXIMUM_DEADLINE_SECONDS,
            "seconds",
        )?;
        check_range("maximum_keys", self.maximum_keys, 1..=MAXIMUM_KEYS, "keys")?;
        if let Some(step) = self.pad_keys_to {
            check_range("pad_keys_to", step, 1..=MAXIMUM_KEYS, "keys")?;
        }
        self.validate_keys()?;
        self.validate_parties()?;
        self.validate_reveal()?;
        self.validate_service()?;
        let length = self.canonical().len();
        if length > MAXIMUM_JOB_BYTES { Err(too_long(length)) } else { Ok(()) }
    }

    /// Number of parties.
    pub fn party_count(&self) -> usize {
        match &self.parties {
            Parties::Named(parties) => parties.len(),
            Parties::Open { count } => *count,
        }
    }

    /// The party of this name, where parties are named.
    pub fn party(&self, name: &str) -> Option<&Party> {
        self.named_parties().iter().find(|party| party.name == name)
    }

    /// The party with this identity key, where parties are named.
    pub fn party_of_key(&self, key: &KeyId) -> Option<&Party> {
        self.named_parties().iter().find(|party| party.key == *key)
    }

    /// Cap on the number of distinct keys of the party `name`: its own or else the job's.
    pub fn maximum_keys_of(&self, name: &str) -> u64 {
        self.party(name).and_then(|party| party.maximum_keys).unwrap_or(self.maximum_keys)
    }

    /// How many services join its sets.
    pub fn services(&self) -> usize {
        self.service.addresses.len().max(1)
    }

    /// What each service gets of the job: the job itself where there is one, else one job for each shard,
    /// with a digest of its own.
    pub fn shards(&self) -> Vec<Self> {
        match self.services() {
            1 => vec![self.clone()],
            services => {
                let shard = |number| Self { shard: Some(Shard { number }), ..self.clone() };
                (0..services).map(shard).collect()
            }
        }
    }

    /// The number of pseudonyms that a party with so many keys sends to each service.
    pub fn sent(&self, keys: u64) -> u64 {
        match self.services() {
            1 => self.padded(keys),
            services => shard::size(self.padded(keys), services),
        }
    }

    /// So many keys, filled up as the job has it, before they are spread over services.
    pub fn padded(&self, keys: u64) -> u64 {
        self.pad_keys_to.map_or(keys, |step| keys.max(1).div_ceil(step).saturating_mul(step))
    }

    /// Whether the party `name` learns the result.
    pub fn learns(&self, name: &str) -> bool {
        self.reveal.to.is_empty() || self.reveal.to.iter().any(|to| to == name)
    }

    /// What differs between this job and another one, a line per field, as in "reveal.minimum: 10
    /// here, 20 there". Empty if and only if the digests are equal. Policies are not printed.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        compare::differences(self, other)
    }

    /// Base-2 logarithm of an upper bound on the probability that a run of this job in which every
    /// party sends as many keys as it may finds any false match: two different keys with one
    /// fingerprint.
    ///
    /// With q keys in all and m the blocks of the longest encoded key
    /// ([`MAXIMUM_ENCODED_KEY_BYTES`] / 16) it is the sum of two terms. For a random function into
    /// 128 bits the birthday bound: q (q - 1) / 2 pairs, each equal with probability 2^-128. For
    /// AES-CMAC in place of the random function (5 m^2 + 1) q^2 / 2^128, the advantage of a
    /// distinguisher with q queries of at most m blocks (Iwata and Kurosawa, "OMAC: One-Key CBC
    /// MAC", FSE 2003, theorem 5.1), by which any event can become more likely; AES itself is taken
    /// for a random permutation. The keys of a table are chosen without knowing the job key, as
    /// both terms require. The second term is pessimistic: it allows keys of 4 KiB.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a bound of a few dozen bits, rounding is 2^-52"
    )]
    pub fn false_match_bound_log2(&self) -> f64 {
        let keys = match &self.parties {
            Parties::Named(parties) => {
                let most = |party: &Party| self.sent(self.maximum_keys_of(&party.name)) as f64;
                parties.iter().map(most).sum()
            }
            Parties::Open { count } => *count as f64 * self.sent(self.maximum_keys) as f64,
        };
        let keys = keys * self.services() as f64;
        let blocks = (MAXIMUM_ENCODED_KEY_BYTES / 16) as f64;
        let birthday = keys * (keys - 1.0) / 2.0;
        let distinguisher = (5.0 * blocks * blocks + 1.0) * keys * keys;
        (birthday + distinguisher).log2() - 128.0
    }

    fn named_parties(&self) -> &[Party] {
        match &self.parties {
            Parties::Named(parties) => parties,
            Parties::Open { .. } => &[],
        }
    }

    fn validate_keys(&self) -> Result<(), JobError> {
        if self.keys.is_empty() || self.keys.len() > MAXIMUM_KEY_PARTS {
            return Err(JobError::new(
                "key",
                format!(
                    "the job has {} key parts, required are 1 to {MAXIMUM_KEY_PARTS}: write a \
                     [[key]] for each column that identifies a record",
                    self.keys.len()
                ),
            ));
        }
        for (index, part) in self.keys.iter().enumerate() {
            let field = format!("key[{index}].name");
            check_name(&field, &part.name)?;
            if self.keys[..index].iter().any(|earlier| earlier.name == part.name) {
                return Err(JobError::new(
                    field,
                    format!("two key parts are called \"{}\": rename one", part.name),
                ));
            }
            if part.normalise.len() > MAXIMUM_STEPS {
                return Err(JobError::new(
                    format!("key[{index}].normalise"),
                    format!(
                        "key part \"{}\" has {} normalisation steps, at most {MAXIMUM_STEPS} are \
                         possible: remove some",
                        part.name,
                        part.normalise.len()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn validate_parties(&self) -> Result<(), JobError> {
        let count = self.party_count();
        if !(MINIMUM_PARTIES..=MAXIMUM_PARTIES).contains(&count) {
            let (field, advice) = match self.parties {
                Parties::Named(_) => ("party", "write a [[party]] for each"),
                Parties::Open { .. } => ("unpinned_parties", "correct the number"),
            };
            return Err(JobError::new(
                field,
                format!(
                    "the job has {count} parties, required are {MINIMUM_PARTIES} to \
                     {MAXIMUM_PARTIES}: {advice}"
                ),
            ));
        }
        let parties = self.named_parties();
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
                            "\"{}\" and \"{}\" have one key: every party makes its own",
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

    fn validate_reveal(&self) -> Result<(), JobError> {
        let to = &self.reveal.to;
        if matches!(self.parties, Parties::Open { .. }) && !to.is_empty() {
            return Err(JobError::new(
                "reveal.to",
                "reveal.to names parties of a job whose parties are not pinned: remove it, or name \
                 the parties in [[party]]",
            ));
        }
        for (index, name) in to.iter().enumerate() {
            let field = format!("reveal.to[{index}]");
            if self.party(name).is_none() {
                let message = format!(
                    "reveal.to names \"{name}\", no party is called so: write \
                                       the name of a [[party]]"
                );
                return Err(JobError::new(field, message));
            }
            if to[..index].contains(name) {
                let message = format!("reveal.to names \"{name}\" twice: remove one");
                return Err(JobError::new(field, message));
            }
        }
        let smallest = self
            .named_parties()
            .iter()
            .map(|party| self.maximum_keys_of(&party.name))
            .min()
            .unwrap_or(self.maximum_keys);
        if self.reveal.minimum > smallest {
            return Err(JobError::new(
                "reveal.minimum",
                format!(
                    "reveal.minimum is {}, the smallest cap on a party's keys is {smallest}: every \
                     result would be withheld; lower the minimum or raise the cap",
                    self.reveal.minimum
                ),
            ));
        }
        Ok(())
    }

    fn validate_shards(&self) -> Result<(), JobError> {
        let service = &self.service;
        let (addresses, count) = (&service.addresses, service.addresses.len());
        if self.shard.is_some_and(|shard| shard.number >= count) {
            return Err(JobError::new("shard", "the shard is of no service of the job"));
        }
        if addresses.is_empty() {
            return Ok(());
        }
        if !(count.is_power_of_two() && (2..=MAXIMUM_SERVICES).contains(&count)) {
            let text = format!(
                "service.addresses has {count} services, required are 2, 4, 8 or {MAXIMUM_SERVICES}"
            );
            return Err(JobError::new("service.addresses", text));
        }
        for (index, address) in addresses.iter().enumerate() {
            let field = format!("service.addresses[{index}]");
            if !is_address(address) {
                let text = format!(
                    "{field} is \"{}\", required is host:port as in \"psi.example.org:7443\"",
                    address.escape_debug()
                );
                return Err(JobError::new(field, text));
            }
            if addresses[..index].contains(address) {
                let text =
                    format!("{field} is there twice: every shard needs a service of its own");
                return Err(JobError::new(field, text));
            }
        }
        let conflict = |field: &str, text: &str| {
            Err(JobError::new(field, format!("{text}: remove it, or name one service")))
        };
        if service.address.is_some() {
            return conflict("service.address", "service.address stands beside service.addresses");
        }
        if service.key.is_some() || service.verify == Verify::Provider {
            let text = "service.key names one service, and service.addresses has several";
            return conflict("service.key", text);
        }
        if self.reveal.what == What::Count {
            let text = "reveal.what = \"count\" would tell a number for each shard, which is more";
            return conflict("reveal.what", text);
        }
        if self.reveal.minimum > 0 {
            let text = "reveal.minimum is about all keys, and every service sees its shard alone";
            return conflict("reveal.minimum", text);
        }
        Ok(())
    }

    fn validate_service(&self) -> Result<(), JobError> {
        let service = &self.service;
        if let Some(address) = &service.address
            && !is_address(address)
        {
            return Err(JobError::new(
                "service.address",
                format!(
                    "service.address is \"{}\", required is host:port as in \
                     \"psi.example.org:7443\"",
                    address.escape_debug()
                ),
            ));
        }
        self.validate_shards()?;
        check_policy("service.policy", service.policy.as_ref())?;
        check_policy("provider.policy", self.provider_policy.as_ref())?;
        let named = matches!(self.parties, Parties::Named(_));
        let of_service = service.verify != Verify::Provider;
        let of_providers = service.verify != Verify::Service;
        if !of_service && service.policy.is_some() {
            return Err(JobError::new(
                "service.policy",
                "service.policy is given, but verify = \"provider\" never looks at the service's \
                 evidence: remove the policy, or write verify = \"two-way\"",
            ));
        }
        if !of_providers && self.provider_policy.is_some() {
            return Err(JobError::new(
                "provider.policy",
                "provider.policy is given, but verify = \"service\" never looks at the providers' \
                 evidence: remove the policy, or write verify = \"two-way\" under [service]",
            ));
        }
        if named && of_service && service.policy.is_none() {
            return Err(JobError::new(
                "service",
                "the job has no [service.policy]: write what the providers accept as the service's \
                 evidence",
            ));
        }
        if named && of_providers && self.provider_policy.is_none() {
            return Err(JobError::new(
                "provider",
                "the job has no [provider.policy]: write what the service accepts as the \
                 providers' evidence, or verify = \"service\" under [service]",
            ));
        }
        if named && !of_service && service.key.is_none() {
            return Err(JobError::new(
                "service",
                "the job has no service.key: with verify = \"provider\" the service is recognised \
                 by its key alone; add key = \"sha256:...\" under [service]",
            ));
        }
        Ok(())
    }
}

fn too_long(length: usize) -> JobError {
    JobError::new(
        "",
        format!(
            "the job has {length} bytes in its canonical form, at most {MAXIMUM_JOB_BYTES} are \
             possible: shorten its policies"
        ),
    )
}

/// Whether `name` can be the name of a job, a party or a key part.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAXIMUM_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

fn check_name(field: &str, name: &str) -> Result<(), JobError> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAXIMUM_NAME_BYTES).collect();
    Err(JobError::new(
        field,
        format!(
            "{field} is \"{}\", required are 1 to {MAXIMUM_NAME_BYTES} letters, digits, dots, \
             underscores and hyphens (A-Z a-z 0-9 . _ -)",
            shown.escape_debug()
        ),
    ))
}

fn check_range(
    field: &str,
    found: u64,
    required: std::ops::RangeInclusive<u64>,
    unit: &str,
) -> Result<(), JobError> {
    if required.contains(&found) {
        return Ok(());
    }
    Err(JobError::new(
        field,
        format!(
            "{field} is {found} {unit}, required are {} to {} {unit}",
            required.start(),
            required.end()
        ),
    ))
}

fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    address.len() <= MAXIMUM_ADDRESS_BYTES
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_graphic())
        && (bracketed || !host.contains(':'))
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn check_policy(field: &str, policy: Option<&Value>) -> Result<(), JobError> {
    match policy {
        None => Ok(()),
        Some(policy @ Value::Object(_)) => check_policy_value(field, policy, 0),
        Some(_) => Err(JobError::new(field, format!("{field} must be a table: write [{field}]"))),
    }
}

/// RFC 8785 writes numbers as IEEE 754 doubles: what is no exact integer there is refused.
fn check_policy_value(field: &str, value: &Value, depth: usize) -> Result<(), JobError> {
    if depth > MAXIMUM_POLICY_DEPTH {
        return Err(JobError::new(
            field,
            format!("{field} is nested more than {MAXIMUM_POLICY_DEPTH} deep: flatten the policy"),
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
                format!("{field} is {number}: write a whole number below 2^53, or a text"),
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

fn lower_hex(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
