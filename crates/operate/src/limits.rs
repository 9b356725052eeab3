//! Timeouts and limits of the operator's extras, in one place.

use std::time::Duration;

/// The status port answers within this time.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// How many requests a connection to the status port may have open at once.
pub const STATUS_AT_ONCE: usize = 4;

/// How many connections the status port keeps open at once; the oldest go.
pub const STATUS_CONNECTIONS: usize = 64;

/// How many of them may come from one source.
pub const STATUS_CONNECTIONS_EACH: usize = 32;

/// How long to wait for a collector to answer.
pub const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest interval between pushes to a collector.
pub const SHORTEST_PUSH: Duration = Duration::from_secs(1);

/// How many clients of the psi.PSI wire may wait at once for others, or for their job's turn.
pub const MAXIMUM_PSI_WAITING: usize = 256;

/// How many of them may come from one address: as many as a job can have.
pub const MAXIMUM_PSI_WAITING_EACH: usize = 64;

/// All clients of a job must begin to upload within this time of its start: there is one job at a time,
/// and whoever has a key may begin one. The genuine client uploads at once.
pub const PSI_FIRST_UPLOAD: Duration = Duration::from_mins(2);

/// How much longer than a job may last a client waits for its result.
pub const PSI_RESULT_GRACE: Duration = Duration::from_secs(10);

/// The longest message that those clients can receive, unless somebody has raised their limit.
pub const DEFAULT_PSI_RESULT_BYTES: u64 = 4 << 20;

/// A message of those clients must begin to arrive within this time.
pub const PSI_UPLOAD_GRACE: Duration = Duration::from_mins(1);

/// How many bytes of a message must have arrived, on average, for every second after
/// [`PSI_UPLOAD_GRACE`]: the memory for reading it is reserved.
pub const PSI_BYTES_PER_SECOND: u64 = 16 << 10;

/// How often that is checked.
pub const PSI_UPLOAD_CHECK: Duration = Duration::from_secs(10);

/// How often the list of admitted keys is looked at.
pub const ADMIT_CHECK: Duration = Duration::from_secs(1);

/// The largest list of admitted keys, in bytes.
pub const MAXIMUM_ADMIT_BYTES: u64 = 4 << 20;

/// How much memory a message of ids takes while it is read, as a multiple of its length: the bytes,
/// a string for each id, the strings without blank ones, and their pseudonyms.
pub const PSI_READING_FACTOR: u64 = 6;
