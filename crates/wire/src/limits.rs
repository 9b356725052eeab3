//! Every size that a peer controls, in one place.

pub use convelo_psi::limits::{
    MAXIMUM_JOB_BYTES, MAXIMUM_NAME_BYTES, MAXIMUM_PARTIES, MAXIMUM_SIGNATURE_BYTES,
    MAXIMUM_SPKI_BYTES, SEALED_SHARE_BYTES,
};

/// Bytes of pseudonyms or bitmap in one chunk: 8192 pseudonyms.
pub const MAXIMUM_CHUNK_BYTES: usize = 128 << 10;

/// Bytes of one encoded message of a party. The longest is a chunk.
pub const MAXIMUM_FROM_PARTY_BYTES: usize = MAXIMUM_CHUNK_BYTES + (32 << 10);

/// Bytes of one encoded message to a party. The longest shows the members of a job, with their
/// evidence.
pub const MAXIMUM_TO_PARTY_BYTES: usize =
    MAXIMUM_RELAYED_BYTES + MAXIMUM_PARTIES * (MAXIMUM_QUOTE_BYTES + (2 << 10));

/// Bytes of the name and version of a peer's program.
pub const MAXIMUM_SOFTWARE_BYTES: usize = 128;

/// Bytes of an explanation; its sender truncates a longer one.
pub const MAXIMUM_EXPLANATION_BYTES: usize = 2048;

/// Bytes of collateral that a service offers; genuine bundles have about 16 KiB.
pub const MAXIMUM_COLLATERAL_BYTES: usize = 256 << 10;

/// Bytes of collateral that a party offers; genuine bundles have up to 24 KiB.
pub const MAXIMUM_OFFERED_BYTES: usize = 64 << 10;

/// Bytes of a Hello's job and collateral together: less than both may have, so that a Hello and what
/// comes before it fit into what a connection without a seat may send.
pub const MAXIMUM_TERMS_BYTES: usize = 72 << 10;

/// Bytes of the collaterals of a job's parties, each counted once: 32 KiB for each of 64.
pub const MAXIMUM_RELAYED_BYTES: usize = 2 << 20;

/// Bytes of a quote: the most that Gramine's device produces.
pub const MAXIMUM_QUOTE_BYTES: usize = 8192;
