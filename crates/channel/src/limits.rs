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
