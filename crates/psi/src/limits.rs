//! Every size that someone else controls, with its limit. Checked before memory is spent.

/// Fewest parties of a job.
pub const MINIMUM_PARTIES: usize = 2;

/// Most parties of a job without a service; each has to reach, or be reached by, every other.
pub const MAXIMUM_DIRECT_PARTIES: usize = 16;

/// Most parties of a job.
pub const MAXIMUM_PARTIES: usize = 64;

/// Most services of a job.
pub const MAXIMUM_SERVICES: usize = 16;

/// Most parts of a key (columns that together identify a record).
pub const MAXIMUM_KEY_PARTS: usize = 16;

/// Most normalisation steps of one key part.
pub const MAXIMUM_STEPS: usize = 8;

/// Most values of one key part that mean "unknown".
pub const MAXIMUM_IGNORED: usize = 64;

/// Longest value that means "unknown", in bytes.
pub const MAXIMUM_IGNORED_BYTES: usize = 256;

/// Longest name of a job, a party or a key part, in bytes (they are ASCII).
pub const MAXIMUM_NAME_BYTES: usize = 64;

/// Longest service address, in bytes: a DNS name of 253, a colon and a port, with some slack.
pub const MAXIMUM_ADDRESS_BYTES: usize = 300;

/// Longest canonical form of a job, in bytes.
pub const MAXIMUM_JOB_BYTES: usize = 64 * 1024;

/// Longest job file, in bytes. More than the canonical form, for comments.
pub const MAXIMUM_JOB_FILE_BYTES: usize = 256 * 1024;

/// Deepest nesting of a policy inside a job.
pub const MAXIMUM_POLICY_DEPTH: usize = 16;

/// Shortest time from the first party's arrival to the result, in seconds.
pub const MINIMUM_DEADLINE_SECONDS: u64 = 1;

/// Longest time from the first party's arrival to the result, in seconds: seven days.
pub const MAXIMUM_DEADLINE_SECONDS: u64 = 7 * 24 * 3600;

/// The highest cap that a job may state on one party's number of distinct keys.
pub const MAXIMUM_KEYS: u64 = 1 << 32;

/// How many times as many keys as its cap a party may be able to send, because sizes are hidden:
/// with more, the cap would bound something else than it says.
pub const MAXIMUM_CAP_FACTOR: u64 = 2;

/// Fewest canaries of each pattern, if there are any: with these, a service that lies about half of
/// all keys is found with a probability of 1 - 2^-20.
pub const MINIMUM_CANARIES: u64 = 20;

/// Most canaries of each pattern.
pub const MAXIMUM_CANARIES: u64 = 1 << 16;

/// Integers in a job stay below 2^53, where RFC 8785 (IEEE 754 doubles) is exact.
pub const MAXIMUM_INTEGER: u64 = (1 << 53) - 1;

/// Longest encoded key, in bytes: 256 blocks of AES. A longer one is counted as invalid. The
/// false-match bound of a job depends on it.
pub const MAXIMUM_ENCODED_KEY_BYTES: usize = 4096;

/// Longest SubjectPublicKeyInfo of a party's identity key, in bytes. A P-256 key takes 91.
pub const MAXIMUM_SPKI_BYTES: usize = 256;

/// Longest signature, in bytes: ECDSA-P256 in DER.
pub const MAXIMUM_SIGNATURE_BYTES: usize = 72;

/// Length of one party's contribution to the job key, in bytes.
pub const SHARE_BYTES: usize = 32;

/// Length of a one-time key, in bytes: an X-Wing public key (ML-KEM-768, then X25519).
pub const ONE_TIME_KEY_BYTES: usize = 1184 + 32;

/// Length of what X-Wing encapsulates a key to, in bytes.
pub const ENCAPSULATED_KEY_BYTES: usize = 1088 + 32;

/// Length of a sealed share, in bytes: encapsulated key, share, authentication tag.
pub const SEALED_SHARE_BYTES: usize = ENCAPSULATED_KEY_BYTES + SHARE_BYTES + 16;
