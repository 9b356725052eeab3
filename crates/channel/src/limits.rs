//! Timeouts and limits of connections, in one place.

use std::time::Duration;

/// A TCP connection must stand within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A TLS handshake, evidence included, must end within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Handshakes that a listener carries at once; further connections wait in the accept queue.
pub const MAXIMUM_HANDSHAKES: usize = 64;

/// Connections that a listener keeps open at once.
pub const MAXIMUM_CONNECTIONS: usize = 1024;

/// So many handshakes of one source may fail at once, and so many more a second; beyond that its
/// connections are closed before their handshake.
pub const FAILURES_AT_ONCE: u32 = 100;

/// See [`FAILURES_AT_ONCE`].
pub const FAILURES_PER_SECOND: u32 = 10;

/// Sources whose failures are remembered.
pub const MAXIMUM_FAILING_SOURCES: usize = 4096;

/// How long a certificate of ours is valid. The clock of a peer may be behind by
/// [`CERTIFICATE_BACKDATE`].
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(24);

/// How far before now the validity of a certificate of ours begins; part of its lifetime.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_hours(1);

/// An attested certificate is made anew after this time.
pub const CERTIFICATE_RENEWAL: Duration = Duration::from_hours(12);

/// After a failed renewal the next attempt waits this long.
pub const CERTIFICATE_RENEWAL_RETRY: Duration = Duration::from_mins(1);

/// After an error of `accept` (no more file descriptors, say) the listener pauses this long.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a key file.
pub const MAXIMUM_KEY_FILE_BYTES: usize = 16 << 10;

/// Bytes of a file with certificates: our own chain, or the authorities that we trust.
pub const MAXIMUM_CERTIFICATE_FILE_BYTES: usize = 1 << 20;

/// Certificates that a peer may present at once, its own included.
pub const MAXIMUM_CHAIN_CERTIFICATES: usize = 8;

/// How long a refused connection stays open for the peer to read why: closed at once, what the
/// peer still sends would reset the connection and destroy the alert.
pub const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// Bytes of a refused peer that are read and dropped meanwhile.
pub const MAXIMUM_REFUSAL_LINGER_BYTES: usize = 64 << 10;

/// Characters of a common name in certificates made here (X.520).
pub const LONGEST_COMMON_NAME: usize = 64;

/// Days that a certificate made here may live: a hundred years.
pub const LONGEST_LIFE_DAYS: u32 = 36_525;

/// How long a verdict on a certificate may be used again, unless it ends before.
pub const CACHED_VERDICT_SECONDS: u64 = 600;

/// Verdicts that are kept at once.
pub const MAXIMUM_CACHED_VERDICTS: usize = 1024;

/// Bytes that may be sent to a service before it has answered its first challenge: HTTP/2's opening,
/// the call, and the challenge.
pub const MAXIMUM_BYTES_BEFORE_TRUST: usize = 4 << 10;
