//! Timeouts and limits of the service, in one place.

use std::time::Duration;

/// Each message of a stream's opening, up to its Hello, must come within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A quote must be made, and one that came be verified, within this time; waiting for a turn may
/// take as long again.
pub const ATTEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Quotes that are made at once; a Gramine device makes them one by one anyway.
pub const QUOTES_AT_ONCE: usize = 4;

/// Quotes of parties that are verified at once. One core stays for the jobs.
pub const VERIFICATIONS_AT_ONCE: usize = 1;

/// A stream whose last attestation is older than this ends.
pub const SESSION_CAP: Duration = Duration::from_hours(1);

/// A party may challenge the service again after this time.
pub const CHALLENGE_INTERVAL: Duration = Duration::from_mins(5);

/// Jobs that are open at once.
pub const MAXIMUM_JOBS: usize = 1024;

/// Streams that one connection may carry at once.
pub const MAXIMUM_STREAMS: u32 = 4;

/// Bytes of pseudonyms that all jobs together may hold, unless configured otherwise: 4 GiB.
pub const DEFAULT_MEMORY: u64 = 4 << 30;

/// Events of a job that wait to be handled. A chunk is one event, so this bounds what a job holds
/// beside its sets; a party that sends faster waits.
pub const EVENT_QUEUE: usize = 8;

/// Messages that wait to be sent to one party. A party that does not read is dropped when they
/// are used up; a job needs about three for each of its parties.
pub const OUTGOING_QUEUE: usize = 512;

/// HTTP/2 flow control window of a stream and of a connection.
pub const WINDOW_BYTES: u32 = 2 << 20;

/// Largest HTTP/2 frame that is accepted.
pub const FRAME_BYTES: u32 = 1 << 20;

/// A silent connection is asked for a sign of life this often, and given up when none comes
/// within [`KEEPALIVE_TIMEOUT`]: so the others learn that a host is gone.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no new streams after this time and ends with the last that it has: so one that
/// carries none does not keep its seat for ever.
pub const CONNECTION_AGE: Duration = Duration::from_mins(5);

/// A party whose connection broke in a running job may come back for so long, unless configured
/// otherwise; then the job ends for all.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(30);

/// The buckets of the times of jobs: coarse, for the host sees more than this anyway.
pub const JOB_SECONDS: [f64; 5] = [1.0, 10.0, 60.0, 600.0, 3600.0];

/// So long after a connection ended its memory goes back to the system, with that of others that end
/// meanwhile.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(1);

/// After a stop signal the parties are told, and the program ends within this time.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
