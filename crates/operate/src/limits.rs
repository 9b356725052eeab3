//! Timeouts and limits of the operator's extras, in one place.

use std::time::Duration;

/// The status port answers within this time.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// How many requests a connection to the status port may have open at once.
pub const STATUS_AT_ONCE: usize = 4;

/// How long to wait for a collector to answer.
pub const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest interval between pushes to a collector.
pub const SHORTEST_PUSH: Duration = Duration::from_secs(1);

/// How many clients of the psi.PSI wire may wait at once for others, or for their job's turn.
pub const MAXIMUM_PSI_WAITING: usize = 256;

/// The longest message that those clients can receive.
pub const MAXIMUM_PSI_RESULT_BYTES: usize = 4 << 20;

/// How much memory a message of ids takes while it is read, as a multiple of its length: the bytes,
/// a string for each id, the strings without blank ones, and their pseudonyms.
pub const PSI_READING_FACTOR: u64 = 6;
