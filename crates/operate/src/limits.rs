//! Timeouts and limits of what is opened beside the service, in one place.

use std::time::Duration;

/// An answer of the status port takes no longer than this.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests that one connection to the status port may have open at once.
pub const STATUS_AT_ONCE: usize = 4;

/// A collector that does not answer within this time is not waited for.
pub const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(5);

/// A collector is told the figures no more often.
pub const SHORTEST_PUSH: Duration = Duration::from_secs(1);

/// Clients of the psi.PSI wire that wait at once until others come, or their job has its turn.
pub const MAXIMUM_PSI_WAITING: usize = 256;

/// The longest message that their clients receive.
pub const MAXIMUM_PSI_RESULT_BYTES: usize = 4 << 20;

/// What a message of ids takes while it is read, in multiples of its length: the bytes, a text for each of
/// its ids, the texts without what was blank, and their pseudonyms.
pub const PSI_READING_FACTOR: u64 = 6;
