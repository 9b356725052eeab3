//! Every size and span that a peer, file or device could inflate, in one place.

/// Longest certificate we parse, in bytes of DER. A certificate with both of Gramine's evidence
/// extensions has about 10 KiB.
pub const MAXIMUM_CERTIFICATE_BYTES: usize = 20 * 1024;

/// Longest quote we parse or read from a device, in bytes: Gramine's own maximum.
pub const MAXIMUM_QUOTE_BYTES: usize = 8192;

/// Longest CBOR claims map inside an evidence extension, in bytes.
pub const MAXIMUM_CLAIMS_BYTES: usize = 1024;

/// Longest collateral bundle, in bytes of JSON.
pub const MAXIMUM_COLLATERAL_BYTES: usize = 1024 * 1024;

/// Longest policy or `dynamic_config.json`, in bytes.
pub const MAXIMUM_POLICY_BYTES: usize = 64 * 1024;

/// Longest name of an enclave in a policy, in bytes.
pub const MAXIMUM_NAME_BYTES: usize = 64;

/// How long an RA-TLS certificate may be valid, in seconds.
pub const MAXIMUM_CERTIFICATE_LIFETIME_SECONDS: u64 = 24 * 60 * 60;

/// How far back issuers set `notBefore` so that a peer with a slow clock accepts the certificate,
/// in seconds. Granted on top of [`MAXIMUM_CERTIFICATE_LIFETIME_SECONDS`].
pub const CERTIFICATE_CLOCK_SLACK_SECONDS: u64 = 60 * 60;

/// The age at which collateral is refused unless a policy says otherwise, in days.
pub const DEFAULT_COLLATERAL_AGE_DAYS: u64 = 7;

/// The highest collateral age a policy may accept, in days: Intel's collateral expires after 30.
pub const LONGEST_COLLATERAL_AGE_DAYS: u64 = 30;

/// The longest grace period a policy may grant to a platform that is out of date, in days.
pub const LONGEST_GRACE_PERIOD_DAYS: u64 = 365;

/// The longest validity that a policy may accept in a certificate on the psi.PSI wire, in days: a
/// hundred years. Gramine's default is thirty.
pub const LONGEST_CERTIFICATE_DAYS: u64 = 36_525;

/// Seconds in a day.
pub(crate) const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Longest file of revocation lists that were seen, in bytes: each takes about 130.
pub const MAXIMUM_SEEN_BYTES: usize = 16 * 1024;

/// Most issuers of revocation lists that are remembered. Intel has three, and each simulated
/// platform two.
pub const MAXIMUM_SEEN_LISTS: usize = 64;
