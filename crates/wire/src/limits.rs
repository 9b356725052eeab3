//! Every size that a peer controls, in one place.

pub use convelo_psi::limits::{
    MAXIMUM_JOB_BYTES, MAXIMUM_NAME_BYTES, MAXIMUM_PARTIES, MAXIMUM_SIGNATURE_BYTES,
    MAXIMUM_SPKI_BYTES, SEALED_SHARE_BYTES,
};

/// Bytes of pseudonyms or bitmap in one chunk: 8192 pseudonyms.
pub const MAXIMUM_CHUNK_BYTES: usize = 128 << 10;

/// Bytes of one encoded message. The longest is a proof with collateral.
pub const MAXIMUM_MESSAGE_BYTES: usize = MAXIMUM_COLLATERAL_BYTES + (64 << 10);

/// Bytes of the name and version of a peer's program.
pub const MAXIMUM_SOFTWARE_BYTES: usize = 128;

/// Bytes of an explanation; its sender truncates a longer one.
pub const MAXIMUM_EXPLANATION_BYTES: usize = 2048;

/// Bytes of collateral that a service offers; genuine bundles have about 16 KiB.
pub const MAXIMUM_COLLATERAL_BYTES: usize = 256 << 10;

/// Bytes of a quote: the most that Gramine's device produces.
pub const MAXIMUM_QUOTE_BYTES: usize = 8192;
