//! Timeouts and limits of connections, in one place.

use std::time::Duration;

/// A TCP connection must be established within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A TLS handshake, including evidence, must end within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// A stranger's first flight, the whole ClientHello, must arrive within this time, and so must what
/// a balancer says before it.
pub const FIRST_FLIGHT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many handshakes a listener runs at once, unless it has other limits; half of them may come from
/// one source.
pub const MAXIMUM_HANDSHAKES: usize = 512;

/// How many connections without a seat a listener keeps open at once, unless it has other limits; half
/// of them may belong to one source or one key.
pub const MAXIMUM_STRANGERS: usize = 512;

/// How many connections with a seat a listener keeps open at once, unless it has other limits; half of
/// them may belong to one source or one key, unless the operator has admitted the key.
pub const MAXIMUM_SEATED: usize = 1024;

/// A connection that has had no seat for this long, or up to twice as long, ends.
pub const SEAT_TIMEOUT: Duration = Duration::from_mins(1);

/// How many bytes a connection may send besides uploads that are expected: HTTP/2's preface, the
/// answer to a challenge and the longest Hello, with room to spare.
pub const MAXIMUM_UNEXPECTED_BYTES: u64 = 96 << 10;

/// How many more a connection with a seat may send each second, up to as many again: signs of life,
/// key agreement, fresh attestation.
pub const UNEXPECTED_BYTES_PER_SECOND: u64 = 1 << 10;

/// How many bytes may come around an upload besides what carries it.
pub const ROOM_AROUND_AN_UPLOAD: u64 = 64 << 10;

/// The longest PROXY protocol header, including what it may say besides addresses.
pub const MAXIMUM_PROXY_HEADER_BYTES: usize = 1 << 10;

/// How many lines about strangers may be logged at once, with one more in each [`LOG_LINE_PAUSE`];
/// the next line says how many were left out.
pub const LOG_LINES_AT_ONCE: u32 = 50;

/// See [`LOG_LINES_AT_ONCE`].
pub const LOG_LINE_PAUSE: Duration = Duration::from_millis(500);

/// How many invalid certificates one source may show at once, with [`FAILURES_PER_SECOND`] more
/// each second; beyond that, its connections are closed before their handshake.
pub const FAILURES_AT_ONCE: u32 = 100;

/// See [`FAILURES_AT_ONCE`].
pub const FAILURES_PER_SECOND: u32 = 10;

/// How many handshakes one source may begin at once, with [`HANDSHAKES_PER_SECOND`] more each
/// second; beyond that, they wait for their turn.
pub const HANDSHAKES_AT_ONCE: u32 = 256;

/// See [`HANDSHAKES_AT_ONCE`].
pub const HANDSHAKES_PER_SECOND: u32 = 100;

/// No handshake waits longer for its turn.
pub const LONGEST_TURN: Duration = Duration::from_secs(2);

/// How many sources we remember this of.
pub const MAXIMUM_COUNTED_SOURCES: usize = 4096;

/// How long our certificates are valid. A peer's clock may be slow by [`CERTIFICATE_BACKDATE`].
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(24);

/// How far in the past the validity of our certificates begins; part of their lifetime.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_hours(1);

/// An attested certificate is renewed after this time.
pub const CERTIFICATE_RENEWAL: Duration = Duration::from_hours(12);

/// If there is no quote for a new certificate after this time, it is said.
pub const CERTIFICATE_RENEWAL_TIMEOUT: Duration = Duration::from_mins(1);

/// How long to wait after a failed renewal before trying again.
pub const CERTIFICATE_RENEWAL_RETRY: Duration = Duration::from_mins(1);

/// How long the listener pauses after an error from `accept` (such as running out of file
/// descriptors).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest key file, in bytes.
pub const MAXIMUM_KEY_FILE_BYTES: usize = 16 << 10;

/// Largest file of certificates, in bytes: our own chain, or the authorities we trust.
pub const MAXIMUM_CERTIFICATE_FILE_BYTES: usize = 1 << 20;

/// How many certificates a peer may present at once, including its own.
pub const MAXIMUM_CHAIN_CERTIFICATES: usize = 8;

/// How long a refused connection stays open so that the peer can read why. If it were closed at
/// once, the peer's remaining data would reset the connection and destroy the alert.
pub const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// How many bytes from a refused peer are read and dropped in the meantime.
pub const MAXIMUM_REFUSAL_LINGER_BYTES: usize = 64 << 10;

/// Longest common name in the certificates made here, in characters (X.520).
pub const LONGEST_COMMON_NAME: usize = 64;

/// Longest validity of the certificates made here, in days: a hundred years.
pub const LONGEST_LIFE_DAYS: u32 = 36_525;

/// How long a verdict on a certificate may be reused, unless it expires earlier.
pub const CACHED_VERDICT_SECONDS: u64 = 600;

/// How many verdicts are kept at once.
pub const MAXIMUM_CACHED_VERDICTS: usize = 1024;

/// How many bytes may be sent to a service before it has answered its first challenge: HTTP/2's
/// preface, the call, and the challenge.
pub const MAXIMUM_BYTES_BEFORE_TRUST: usize = 4 << 10;
