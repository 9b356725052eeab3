//! Timeouts and limits, in one place.

use std::time::Duration;

/// Bytes of a request's or response's head.
pub const MAXIMUM_HEAD_BYTES: usize = 16 << 10;

/// Header lines of a head.
pub const MAXIMUM_HEADERS: usize = 64;

/// Bytes of a message on the second wire, unless configured otherwise.
pub const MAXIMUM_MESSAGE_BYTES: u64 = 64 << 30;

/// Bytes of a body on the compatible wires: what msgpack can say in one piece, and its envelope.
pub const MAXIMUM_COMPATIBLE_BYTES: u64 = (1 << 32) + 4096;

/// Bytes that a peer may have parked here, unless configured otherwise. A single larger message is
/// taken when nothing else is parked.
pub const MAILBOX_BYTES: u64 = 256 << 20;

/// A parked message counts at least this many bytes, so that empty messages are limited too.
pub const MINIMUM_CHARGE: u64 = 1 << 10;

/// A request waits this long for room in the mailbox before it is answered 503.
pub const ROOM_WAIT: Duration = Duration::from_secs(30);

/// Pieces of a body from this size on are read into memory of their own.
pub const OWN_BUFFER_BYTES: usize = 64 << 10;

/// Buffers from this size on ask for huge pages, which halves the cost of receiving them.
pub const HUGE_PAGE_BYTES: usize = 4 << 20;

/// Requests smaller than this leave together in one write.
pub const COALESCE_BYTES: usize = 64 << 10;

/// Bodies from this size on travel on a connection of their own and can be resumed.
pub const BULK_BYTES: u64 = 1 << 20;

/// Connections to one peer that carry bulk.
pub const BULK_CONNECTIONS: usize = 4;

/// Connections to one peer on a compatible wire; each carries one request at a time.
pub const COMPATIBLE_CONNECTIONS: usize = 16;

/// Requests that wait for their answer on one connection of the second wire.
pub const PIPELINE: usize = 256;

/// Bytes of an answer's body: it is for people.
pub const MAXIMUM_ANSWER: u64 = 64 << 10;

/// A lane that is not the primary one ends after this long without work.
pub const EXTRA_IDLE: Duration = Duration::from_secs(5);

/// A connection must stand, TLS included, within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing moves for this long while a request or an answer is due is broken.
pub const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// An inbound connection that is idle for this long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// The head of a request must be whole within this time of its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections that are open at once, of all peers.
pub const MAXIMUM_CONNECTIONS: usize = 1024;

/// Connections whose sender is not known yet, open at once.
pub const MAXIMUM_STRANGERS: usize = 128;

/// A sender that is not in the table is looked for once more for this long: both sides may still be
/// starting.
pub const STRANGER_GRACE: Duration = Duration::from_secs(1);

/// The first pause before another attempt to reach a peer; it doubles, with jitter.
pub const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest pause between two attempts.
pub const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// How often a peer that cannot be reached is mentioned in the log.
pub const ABSENCE_LOG: Duration = Duration::from_secs(30);

/// What has arrived of a broken bulk message is kept this long for its continuation.
pub const PARTIAL_KEPT: Duration = Duration::from_mins(2);

/// On a wire without numbers a repetition is expected within this time.
pub const REPETITION: Duration = Duration::from_secs(15);

/// Messages of such a wire that are remembered for it, of one peer.
pub const REMEMBERED: usize = 128;

/// Broken bulk messages of one peer that are kept at once.
pub const MAXIMUM_PARTIALS: usize = 8;

/// A message that is on its way twice: the second waits this long for the first to give way.
pub const SUPERSEDE_WAIT: Duration = Duration::from_secs(10);

/// Sequence numbers that may be settled out of order; a sender has fewer on their way at once.
pub const SEQUENCE_WINDOW: usize = 1 << 16;

/// Messages to one peer that may wait for being sent.
pub const MAXIMUM_QUEUED: usize = SEQUENCE_WINDOW / 2;

/// While a receive waits, a peer that was seen before and has no connection here is asked this often
/// whether it is still there.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// After this many probes without an answer the peer is lost.
pub const PROBES_UNTIL_LOST: u32 = 3;

/// Bytes of a message id that is a text.
pub const MAXIMUM_ID_BYTES: usize = 1 << 10;

/// Buffers of one message on the second wire.
pub const MAXIMUM_BUFFERS: usize = 1 << 16;

/// Bytes that travel beside the value on the second wire, from this many on; below they stand in it.
pub const OUT_OF_BAND_BYTES: usize = 4 << 10;

/// Lists, maps and typed values within one another. The 4.x line of the replaced package reads 497
/// lists and writes 254.
pub const MAXIMUM_DEPTH: usize = 497;

/// Dimensions of an array, as many as numpy knows.
pub const MAXIMUM_DIMENSIONS: usize = 64;

/// Rows without elements that an array is written out as where a list is asked for: they cost
/// memory that no byte on the wire has paid for.
pub const MAXIMUM_EMPTY_ROWS: usize = 1 << 16;

/// Lists, maps and typed values within one another that are written: everybody can read them.
pub const MAXIMUM_WRITTEN_DEPTH: usize = 254;

/// How long peers are given to hear that we leave.
pub const GOODBYE: Duration = Duration::from_millis(500);

/// A peer's host is not looked up more often than this.
pub const LOOKUP_PAUSE: Duration = Duration::from_secs(5);

/// How long the end of a node waits for its port to be free again.
pub const PORT_WAIT: Duration = Duration::from_secs(1);

/// How often that is looked at from outside of a runtime.
pub const PORT_PAUSE: Duration = Duration::from_millis(1);
