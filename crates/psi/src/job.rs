//! A job: who, which key, who learns what. One file, identical at every party.
//!
//! [`Job::from_toml`] reads what a person wrote; [`Job::canonical`] is the one form that is hashed,
//! sent and compared: canonical JSON (RFC 8785). Its SHA-256 identifies the job. [`Terms`] are the
//! same as plain data, unchecked; a [`Job`] is proof that its terms have been checked, and cannot
//! be changed.

mod bound;
mod compare;
mod digest;
mod error;
mod file;
mod key_id;
mod shard;
pub mod terms;
mod validation;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::keys::{KeyPart, Recipe, RecipeError, Step};
use crate::limits::MAXIMUM_JOB_BYTES;

pub use self::digest::{JobDigest, JobDigestError};
pub use self::error::{JobError, Position};
pub use self::key_id::{KeyId, KeyIdError};
pub use self::shard::Shard;
pub use self::terms::{Parties, Party, Reveal, Terms, What};
pub use self::validation::{is_address, is_name};

/// The version of the job's form that this crate reads and writes.
pub const JOB_VERSION: u32 = 1;

/// One intersection of the key sets of 2 to 64 parties, checked and in its normal form: parties are
/// sorted by name, and if parties are named, [`Reveal::to`] lists everybody that learns the result,
/// sorted. Two jobs are equal if and only if their digests are. Clones share their content.
#[derive(Clone)]
pub struct Job {
    content: Arc<Content>,
    shard: Option<Shard>,
    canonical: Arc<str>,
    digest: JobDigest,
}

/// What a job has in common with its shards.
struct Content {
    name: String,
    mode: Mode,
    deadline_seconds: u64,
    maximum_keys: u64,
    pad_keys_to: Option<u64>,
    canaries: u64,
    keys: Vec<KeyPart>,
    recipe: Option<Recipe>,
    reveal: Reveal,
    parties: Parties,
}

/// How an intersection is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// By an attested service that sees only pseudonyms.
    Attested(Service),
    /// By the parties alone, with a protocol between them.
    Direct(Protocol),
}

/// How parties intersect their sets without a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// VOLE-PSI: from vector oblivious linear evaluation.
    Vole,
    /// By elliptic curve Diffie-Hellman.
    Ecdh,
}

impl Protocol {
    /// The word for it in a job.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vole => "vole",
            Self::Ecdh => "ecdh",
        }
    }
}

/// The attested service of a job, or several of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where it listens, `host:port`. None: given at run time. 2, 4, 8 or 16: as many services,
    /// each of which sees one shard of the sets.
    pub addresses: Vec<String>,
    /// Its key. Present if `verify` is [`Verify::Provider`] and parties are named: then nothing
    /// else is known about the service. Otherwise it is demanded in addition to the evidence.
    pub key: Option<KeyId>,
    /// Whether TLS with it must use a key exchange that is hybrid: X25519MLKEM768.
    pub hybrid: bool,
    /// Whose evidence is verified, and by which policy.
    pub verify: Verify,
}

/// A policy in a job: an object that the verifier reads. It is kept as text, because its values take
/// a hundred times as much memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPolicy(Box<str>);

impl JobPolicy {
    /// The object, read anew each time.
    pub fn read(&self) -> Value {
        serde_json::from_str(&self.0).expect("it was written from an object")
    }
}

impl From<&Value> for JobPolicy {
    fn from(object: &Value) -> Self {
        Self(object.to_string().into())
    }
}

/// Whose evidence is verified. A policy is always present if parties are named; if they are not,
/// the verifier may get it from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// The service's; providers show their pinned key.
    Service {
        /// What the providers accept as the service's evidence.
        policy: Option<JobPolicy>,
    },
    /// The service's and the providers'.
    TwoWay {
        /// What the providers accept as the service's evidence.
        policy: Option<JobPolicy>,
        /// What the service and the other providers accept as a provider's evidence.
        provider_policy: Option<JobPolicy>,
    },
    /// The providers'; the service shows its pinned key.
    Provider {
        /// What the service and the other providers accept as a provider's evidence.
        provider_policy: Option<JobPolicy>,
    },
}

impl Service {
    /// What the providers accept as the service's evidence.
    pub fn policy(&self) -> Option<&JobPolicy> {
        match &self.verify {
            Verify::Service { policy } | Verify::TwoWay { policy, .. } => policy.as_ref(),
            Verify::Provider { .. } => None,
        }
    }

    /// Whether the providers prove their programs: to the service, and to each other.
    pub fn verifies_providers(&self) -> bool {
        !matches!(self.verify, Verify::Service { .. })
    }

    /// What the service and the other providers accept as a provider's evidence.
    pub fn provider_policy(&self) -> Option<&JobPolicy> {
        match &self.verify {
            Verify::TwoWay { provider_policy, .. } | Verify::Provider { provider_policy } => {
                provider_policy.as_ref()
            }
            Verify::Service { .. } => None,
        }
    }
}

impl Job {
    /// Reads a job file (TOML). Unknown keys are errors.
    ///
    /// # Errors
    /// With line and column, what was found and what to do.
    pub fn from_toml(text: &str) -> Result<Self, JobError> {
        file::parse(text)
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    /// If `bytes` are more than [`MAXIMUM_JOB_BYTES`], not a valid job, or not byte for byte its
    /// canonical form.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, JobError> {
        if bytes.len() > MAXIMUM_JOB_BYTES {
            return Err(validation::too_long(bytes.len()));
        }
        let terms: Terms = serde_json::from_slice(bytes).map_err(|error| {
            JobError::new("", format!("these bytes are not a job in canonical JSON: {error}"))
        })?;
        let job = Self::try_from(terms)?;
        if job.canonical().as_bytes() != bytes {
            return Err(JobError::new(
                "",
                "this job is not in its canonical form (RFC 8785, parties and names sorted): send \
                 the canonical form",
            ));
        }
        Ok(job)
    }

    /// The job as `convelo join` runs it, without a job file: identities are not pinned, the key is
    /// one part called "id", which is trimmed, and everybody learns the intersection.
    ///
    /// # Errors
    /// If an argument is outside its limits.
    pub fn unpinned(
        name: impl Into<String>,
        parties: usize,
        maximum_keys: u64,
        deadline_seconds: u64,
        service: terms::Service,
    ) -> Result<Self, JobError> {
        let keys = vec![KeyPart::new("id", vec![Step::Trim])];
        Self::try_from(Terms {
            version: JOB_VERSION,
            name: name.into(),
            mode: terms::Mode::Attested,
            deadline_seconds,
            maximum_keys,
            pad_keys_to: None,
            canaries: None,
            service: Some(service),
            provider_policy: None,
            recipe: Some(Recipe::of(&keys)),
            keys,
            reveal: Reveal { what: What::Intersection, to: Vec::new(), minimum: 0 },
            parties: Parties::Unpinned { count: parties },
            shard: None,
        })
    }

    /// The terms as plain data in their normal form: to show them, or to derive another job.
    #[expect(clippy::missing_panics_doc, reason = "it was written from terms")]
    pub fn terms(&self) -> Terms {
        serde_json::from_str(&self.canonical).expect("it was written from terms")
    }

    /// The canonical form: JSON of RFC 8785, parties sorted by name, every recipient listed.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// SHA-256 of the canonical form: the identity of the job.
    pub fn digest(&self) -> JobDigest {
        self.digest
    }

    /// What people call this job.
    pub fn name(&self) -> &str {
        &self.content.name
    }

    /// How the intersection is computed.
    pub fn mode(&self) -> &Mode {
        &self.content.mode
    }

    /// The attested service, unless the parties do without.
    pub fn service(&self) -> Option<&Service> {
        match self.mode() {
            Mode::Attested(service) => Some(service),
            Mode::Direct(_) => None,
        }
    }

    /// The protocol between the parties, if they do without a service.
    pub fn protocol(&self) -> Option<Protocol> {
        match self.mode() {
            Mode::Attested(_) => None,
            Mode::Direct(protocol) => Some(*protocol),
        }
    }

    /// In a mode without a service, the party that learns the result first: of those that learn it, the
    /// first by name.
    pub fn receiver(&self) -> Option<&Party> {
        self.protocol()?;
        self.parties().named().iter().find(|party| self.learns(&party.name))
    }

    /// Seconds from the first party's arrival to the result.
    pub fn deadline_seconds(&self) -> u64 {
        self.content.deadline_seconds
    }

    /// Cap on a party's number of distinct keys, for parties without a cap of their own.
    pub fn maximum_keys(&self) -> u64 {
        self.content.maximum_keys
    }

    /// The number to a multiple of which every set is padded.
    pub fn pad_keys_to(&self) -> Option<u64> {
        self.content.pad_keys_to
    }

    /// How many canaries there are of each pattern at each service; 0 if the job has none.
    pub fn canaries(&self) -> u64 {
        self.content.canaries
    }

    /// How many canaries a party sends to each service: those of every pattern that it is in.
    pub fn canaries_of_a_party(&self) -> u64 {
        let patterns = match self.parties().count() {
            2 => 2,
            parties => parties as u64 + 1,
        };
        self.canaries() * patterns
    }

    /// The smallest part of the matches, or of the keys of one pattern, about which a service that
    /// lies is found with a probability of 1 - 2^-20 or more; none without canaries.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn lie_found_from(&self) -> Option<f64> {
        (self.canaries() > 0).then(|| 1.0 - (-20.0 / self.canaries() as f64).exp2())
    }

    /// The parts of a key.
    pub fn keys(&self) -> &[KeyPart] {
        &self.content.keys
    }

    /// By which recipe the keys are normalised; `None` is recipe 1, of earlier programs.
    pub fn recipe(&self) -> Option<&Recipe> {
        self.content.recipe.as_ref()
    }

    /// Whether this program normalises keys as the job demands. A job file always fits the program
    /// that reads it; a job that travelled may be of another program.
    ///
    /// # Errors
    /// If the job is of another recipe: what the two are.
    pub fn check_recipe(&self) -> Result<(), RecipeError> {
        Recipe::check(self.content.recipe.as_ref(), self.keys())
    }

    /// Who learns what.
    pub fn reveal(&self) -> &Reveal {
        &self.content.reveal
    }

    /// Who takes part.
    pub fn parties(&self) -> &Parties {
        &self.content.parties
    }

    /// If this is what one of several services gets: which shard of the job it is.
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// The party with this name, if parties are named.
    pub fn party(&self, name: &str) -> Option<&Party> {
        self.parties().named().iter().find(|party| party.name == name)
    }

    /// The party with this identity key, if parties are named.
    pub fn party_of_key(&self, key: &KeyId) -> Option<&Party> {
        self.parties().named().iter().find(|party| party.key == *key)
    }

    /// Cap on the number of distinct keys of the party `name`: its own or else the job's.
    pub fn maximum_keys_of(&self, name: &str) -> u64 {
        self.party(name).and_then(|party| party.maximum_keys).unwrap_or(self.maximum_keys())
    }

    /// How many parts the job's sets are joined in: one for each service, and one without a service.
    pub fn services(&self) -> usize {
        self.service().map_or(1, |service| service.addresses.len().max(1))
    }

    /// What each service gets of the job: the job itself if there is one service, otherwise one job
    /// for each shard, with its own digest and everything else shared.
    pub fn shards(&self) -> Vec<Self> {
        match self.services() {
            1 => vec![self.clone()],
            services => (0..services).map(|number| self.with_shard(Shard { number })).collect(),
        }
    }

    /// The most distinct keys that the party `name` can send to all services together. An honest
    /// party keeps to its cap; this is more where the rest of what is sent only hides a size.
    pub fn most_keys_of(&self, name: &str) -> u64 {
        self.most_keys(self.maximum_keys_of(name))
    }

    /// The most distinct keys that a party with this cap can send to all services together.
    fn most_keys(&self, cap: u64) -> u64 {
        self.sent(cap).saturating_mul(self.services() as u64)
    }

    /// The number of pseudonyms that a party with `keys` keys sends to each service.
    pub fn sent(&self, keys: u64) -> u64 {
        let canaries = self.canaries_of_a_party();
        match self.services() {
            1 => self.padded(keys) + canaries,
            // A shard's bitmap ends at a whole byte.
            services => shard::size(self.padded(keys), services) + canaries.next_multiple_of(8),
        }
    }

    /// Whether a single service may be sent so many pseudonyms: padded as the job demands, and the
    /// canaries.
    pub fn is_sent(&self, pseudonyms: u64) -> bool {
        let keys = pseudonyms.checked_sub(self.canaries_of_a_party());
        keys.is_some_and(|keys| self.padded(keys) == keys)
    }

    /// A number of keys, padded as the job demands, before the keys are spread over services.
    pub fn padded(&self, keys: u64) -> u64 {
        self.pad_keys_to().map_or(keys, |step| keys.max(1).div_ceil(step).saturating_mul(step))
    }

    /// Whether the party `name` learns the result.
    pub fn learns(&self, name: &str) -> bool {
        let to = &self.reveal().to;
        to.is_empty() || to.iter().any(|to| to == name)
    }

    /// What differs between this job and another, one line per field, such as "reveal.minimum: 10
    /// here, 20 there". Empty if and only if the digests are equal. Policies are not printed.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        compare::differences(&self.terms(), &other.terms())
    }

    fn with_shard(&self, shard: Shard) -> Self {
        let canonical = Terms { shard: Some(shard), ..self.terms() }.canonical();
        let digest = JobDigest::of(&canonical);
        let content = Arc::clone(&self.content);
        Self { content, shard: Some(shard), canonical: canonical.into(), digest }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({})", self.canonical)
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Job {}

#[cfg(test)]
pub(crate) mod tests;
