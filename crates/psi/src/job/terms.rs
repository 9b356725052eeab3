//! What a job says, as plain data: as much as its JSON says, with nothing checked yet.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KeyId, Shard};
use crate::keys::{KeyPart, Recipe};

/// The terms of one intersection of the key sets of 2 to 64 parties. Once checked, they become a
/// [`Job`](super::Job).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// [`JOB_VERSION`](super::JOB_VERSION).
    pub version: u32,
    /// What people call this job: 1 to 64 of `A-Za-z0-9._-`. The service sees it.
    pub name: String,
    /// How the intersection is computed.
    pub mode: Mode,
    /// Seconds from the first party's arrival to the result, 1 second to 7 days. In TOML,
    /// `deadline = "30m"`, with s, m, h or d.
    pub deadline_seconds: u64,
    /// Cap on the number of distinct keys, 1 to 2^32, of every party that has no cap of its own. A
    /// party that sends more is refused before the join, so a partner cannot try out a dictionary.
    /// All parties and the service see it.
    pub maximum_keys: u64,
    /// Every party pads its set with random pseudonyms to a multiple of this number, 1 to 2^32, so
    /// that the service and the network learn only that multiple. Absent: sizes are not hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_keys_to: Option<u64>,
    /// How many canaries there are of each pattern, 20 to 65,536: keys of no record that all parties
    /// agree on, by which each finds out whether the service joins what it is sent. Absent: none. All
    /// parties and the service see the number. Needs `reveal.what = "intersection"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canaries: Option<u64>,
    /// The attested service that joins. Present in the mode "attested" and in no other; in TOML, that
    /// mode has one even if `[service]` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// What the service accepts as evidence of the providers. Required if parties are named and
    /// `service.verify` is "two-way" or "provider", and refused otherwise. In TOML,
    /// `[provider.policy]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_policy: Option<Value>,
    /// The parts of a key, 1 to 16, in TOML `[[key]]`. Their order counts.
    pub keys: Vec<KeyPart>,
    /// By which recipe the keys are normalised. Never in TOML: it is that of the program that reads
    /// the file. Absent: recipe 1, in jobs of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// Who learns what.
    pub reveal: Reveal,
    /// Who takes part, in TOML `[[party]]` or `unpinned_parties = 3`. Their order means nothing.
    pub parties: Parties,
    /// Which shard this is, in what one of several services gets of the job. Absent in the parties'
    /// own job, and never in TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

/// How an intersection is computed, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By an attested service that sees only pseudonyms.
    Attested,
    /// By the parties alone, from vector oblivious linear evaluation.
    Vole,
    /// By the parties alone, by elliptic curve Diffie-Hellman.
    Ecdh,
}

/// What a job says about its attested service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Where it listens, `host:port`. Absent: given at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where several services listen, each of which sees a shard of the sets: 2, 4, 8 or 16,
    /// instead of `address`. Empty, or absent in TOML: there is one service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Whose evidence is verified. In TOML, "service" if absent.
    pub verify: Verify,
    /// The service's key. Required if `verify` is "provider" and parties are named: then the
    /// service is recognised by this key alone. Otherwise it is demanded in addition to the
    /// evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// The key exchange that TLS between the parties and the service must use. Absent: what both
    /// sides have, X25519MLKEM768 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_exchange: Option<KeyExchange>,
    /// What the providers accept as the service's evidence: an object, read by the verifier.
    /// Required if parties are named and `verify` is not "provider"; refused if `verify` is
    /// "provider", because nothing would apply it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
}

/// A key exchange of TLS, by its registered name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyExchange {
    /// X25519 and ML-KEM-768: what is recorded stays secret from a later quantum computer.
    #[serde(rename = "X25519MLKEM768")]
    X25519MlKem768,
}

/// Whose evidence is verified, in a word.
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
    /// Names of the parties that learn it, in any order. Empty, or absent in TOML: everybody.
    pub to: Vec<String>,
    /// A result of fewer keys than this is withheld from everybody in `to`; they learn that it was
    /// withheld, and so that it is smaller, but no number. 0, or absent in TOML: never.
    pub minimum: u64,
}

/// What a result reveals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Which of one's own keys all other parties have too, and therefore how many.
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
    /// A number of parties whose keys are not pinned: only the attested service identifies them.
    #[serde(rename = "open")]
    Unpinned {
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
    /// Where the other parties reach it, `host:port`, in a mode without a service. Absent: given at
    /// run time, or this party only dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Parties {
    /// The parties known by name; none if no identity is pinned.
    pub fn named(&self) -> &[Party] {
        match self {
            Self::Named(parties) => parties,
            Self::Unpinned { .. } => &[],
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Named(parties) => parties.len(),
            Self::Unpinned { count } => *count,
        }
    }
}

impl Terms {
    /// Spells out defaults, and sorts what has no order of its own.
    pub(super) fn normalise(&mut self) {
        if let Parties::Named(parties) = &mut self.parties {
            parties.sort_by(|a, b| a.name.cmp(&b.name));
            if self.reveal.to.is_empty() {
                self.reveal.to = parties.iter().map(|party| party.name.clone()).collect();
            }
        }
        self.reveal.to.sort();
        for part in &mut self.keys {
            part.ignore.sort();
            part.ignore.dedup();
        }
    }

    /// JSON of RFC 8785; for normal terms, the canonical form of the job.
    pub(super) fn canonical(&self) -> String {
        serde_json_canonicalizer::to_string(self)
            .expect("terms have string keys and finite numbers")
    }
}
