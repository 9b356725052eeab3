//! Timeouts and limits of the service, in one place.

use std::time::Duration;

/// Each message of a stream's opening, up to its Hello, must arrive within this time.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The first quote, over the service's certificate, must be made within this time. What makes quotes may
/// have to be started for it.
pub const FIRST_QUOTE_TIMEOUT: Duration = Duration::from_mins(1);

/// A quote must be made, or a received one verified, within this time; waiting for a turn may take
/// as long again.
pub const ATTEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a device is asked again that has failed.
pub const DEVICE_RETRY: Duration = Duration::from_secs(15);

/// How many quotes are made at once; a Gramine device makes them one by one anyway.
pub const QUOTES_AT_ONCE: usize = 4;

/// How many quotes from parties are verified at once. One core stays free for the jobs.
pub const VERIFICATIONS_AT_ONCE: usize = 1;

/// How many joins run at once. They share all workers, so more at once would not be done any sooner.
pub const JOINS_AT_ONCE: usize = 2;

/// How many certificates are renewed at once: there is one.
pub const RENEWALS_AT_ONCE: usize = 1;

/// How often memory is given back at once.
pub const RECLAIMS_AT_ONCE: usize = 1;

/// How long all threads of the measured program may take to start.
pub const THREADS_TIMEOUT: Duration = Duration::from_secs(5);

/// Worker threads of the measured program, unless configured otherwise: for connections, and as many for
/// joins.
pub const DEFAULT_WORKERS: usize = 4;

/// The most of them.
pub const MAXIMUM_WORKERS: usize = 64;

/// A stream whose last attestation is older than this ends.
pub const SESSION_CAP: Duration = Duration::from_hours(1);

/// A party may challenge the service again after this time.
pub const CHALLENGE_INTERVAL: Duration = Duration::from_mins(5);

/// How many of these turns those from one address may take or wait for at once; the others of them
/// wait outside the queue.
pub const TURNS_EACH: usize = 2;

/// How many jobs may run at once. A job runs once all its parties have come.
pub const MAXIMUM_RUNNING_JOBS: usize = 1024;

/// How many jobs may wait for parties at once; if there are more, the oldest end.
pub const MAXIMUM_WAITING_JOBS: usize = 512;

/// How many jobs of either kind may have been opened from one address, or by one key, unless the
/// operator has admitted the key.
pub const MAXIMUM_JOBS_EACH: usize = 256;

/// How many lists and tables a job may have. One of 64 parties with long lists has fewer than 200.
pub const MAXIMUM_JOB_LISTS: usize = 256;

/// How many values they may hold, names counted. A value takes some hundred bytes in all, whatever it is.
pub const MAXIMUM_JOB_VALUES: usize = 4096;

/// How long a job waits for its parties if it was opened by a key that the operator has not
/// admitted; never longer than the job's deadline.
pub const WAITING_TIMEOUT: Duration = Duration::from_hours(1);

/// How often those who wait are told that somebody came with other terms for their job.
pub const MAXIMUM_NOTICES: u32 = 64;

/// A party must begin to upload its set within this time after the memory for it was reserved.
pub const UPLOAD_GRACE: Duration = Duration::from_mins(1);

/// How many bytes of its set a party must have uploaded, on average, for every second after
/// [`UPLOAD_GRACE`].
pub const UPLOAD_BYTES_PER_SECOND: u64 = 16 << 10;

/// How often that is checked.
pub const UPLOAD_CHECK: Duration = Duration::from_secs(10);

/// How many streams a connection may carry at once.
pub const MAXIMUM_STREAMS: u32 = 4;

/// All memory of the measured program, unless configured otherwise: 1 GiB.
pub const DEFAULT_ALL_MEMORY: u64 = 1 << 30;

/// Those from one address, or with one key, may hold at most this part of the memory, unless the
/// operator has admitted the key: a half.
pub const MEMORY_SHARE: u64 = 2;

/// How many events of a job may wait to be handled. A chunk is one event, so this bounds what a job
/// holds besides its sets; a party that sends faster waits.
pub const EVENT_QUEUE: usize = 8;

/// How many messages may wait to be sent to one party whose job waits for others. There is little to
/// say to it, so a party that leaves that many unread is gone.
pub const WAITING_QUEUE: usize = 32;

/// How many messages may wait to be sent to one party. A party that does not read is dropped when
/// they are used up; a job needs about three for each of its parties.
pub const OUTGOING_QUEUE: usize = 512;

/// HTTP/2 flow control window of a stream and of a connection.
pub const WINDOW_BYTES: u32 = 2 << 20;

/// Largest HTTP/2 frame accepted.
pub const FRAME_BYTES: u32 = 1 << 20;

/// How often a silent connection is asked for a sign of life. It is given up when none comes within
/// [`KEEPALIVE_TIMEOUT`], so that the others learn that a host is gone.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection accepts no new streams after this time and ends with its last one, so that a
/// connection without streams does not keep its seat forever.
pub const CONNECTION_AGE: Duration = Duration::from_mins(5);

/// How long a party whose connection broke in a running job may take to come back, unless
/// configured otherwise; after that, the job ends for everyone.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(30);

/// The buckets for the durations of jobs: coarse, because the host sees more than this anyway.
pub const JOB_SECONDS: [f64; 5] = [1.0, 10.0, 60.0, 600.0, 3600.0];

/// How long after a connection ends its memory goes back to the system, together with that of
/// others that ended in the meantime.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(1);

/// How many connections the readiness port has at once, and how many of them one source. The oldest go
/// first.
pub const READY_CONNECTIONS: usize = 16;

/// See [`READY_CONNECTIONS`].
pub const READY_CONNECTIONS_EACH: usize = 8;

/// The longest request that it reads.
pub const MAXIMUM_READY_REQUEST_BYTES: usize = 1 << 10;

/// How long it takes for a request and its answer.
pub const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// After a stop signal, the parties are told and the program ends within this time.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
