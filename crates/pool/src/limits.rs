//! Timeouts and limits, in one place.

use std::time::Duration;

/// Bytes of a request or response head.
pub const MAXIMUM_HEAD_BYTES: usize = 16 << 10;

/// Header lines in a head.
pub const MAXIMUM_HEADERS: usize = 64;

/// Bytes of a body on the compatible wires: the most msgpack can express in one piece, and its
/// envelope.
pub const MAXIMUM_COMPATIBLE_BYTES: u64 = (1 << 32) + 4096;

/// Bytes that a peer may have parked here, unless configured otherwise, and the limit of a single
/// message that has no limit of its own. A larger one is accepted if nothing else is parked.
pub const MAILBOX_BYTES: u64 = 256 << 20;

/// A parked message counts for at least this many bytes, so that empty messages are limited too.
pub const MINIMUM_CHARGE: u64 = 1 << 10;

/// A request waits this long for room in the mailbox before it is answered with 503.
pub const ROOM_WAIT: Duration = Duration::from_secs(30);

/// Pieces of a body of at least this size get their own memory.
pub const OWN_BUFFER_BYTES: usize = 64 << 10;

/// Buffers of at least this size ask for huge pages, which halves the cost of receiving them.
pub const HUGE_PAGE_BYTES: usize = 4 << 20;

/// Requests smaller than this are sent together in one write.
pub const COALESCE_BYTES: usize = 64 << 10;

/// Bodies of at least this size travel on their own connection and can be resumed.
pub const BULK_BYTES: u64 = 1 << 20;

/// Connections to one peer that carry bulk.
pub const BULK_CONNECTIONS: usize = 4;

/// Connections to one peer on a compatible wire; each carries one request at a time.
pub const COMPATIBLE_CONNECTIONS: usize = 16;

/// Requests waiting for their answer on one connection of the second wire.
pub const PIPELINE: usize = 256;

/// Bytes of an answer's body: it is meant for people.
pub const MAXIMUM_ANSWER: u64 = 64 << 10;

/// A lane other than the primary one ends after this long without work.
pub const EXTRA_IDLE: Duration = Duration::from_secs(5);

/// A connection must be established, including TLS, within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing moves for this long while a request or answer is due counts as
/// broken.
pub const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// An inbound connection that is idle for this long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// The head of a known peer's request must be complete this soon after its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Until its sender is known, a connection has this long in all for its handshake and its heads.
pub const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections open at once from one peer. Our own pools open at most 17, the replaced package
/// 100.
pub const PEER_CONNECTIONS: usize = 256;

/// Connections open at once whose sender is not known yet, from all hosts where no peer is.
pub const MAXIMUM_STRANGERS: usize = 256;

/// The same from one host: more than the replaced package's 100, which may all arrive at once.
pub const STRANGERS_PER_HOST: usize = 128;

/// Lines that the log gets about strangers at once, and about those that claim to be one peer.
pub const REPORTS_AT_ONCE: u32 = 10;

/// After that, one more in this time; it says how many were left out.
pub const REPORT_PAUSE: Duration = Duration::from_secs(10);

/// How long to keep looking for a sender that is not in the table: both sides may still be
/// starting.
pub const STRANGER_GRACE: Duration = Duration::from_secs(1);

/// The first pause before another attempt to reach a peer; it doubles, with jitter.
pub const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest pause between two attempts.
pub const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// How often the log mentions that a peer cannot be reached.
pub const ABSENCE_LOG: Duration = Duration::from_secs(30);

/// How long the arrived part of a broken bulk message is kept for its continuation.
pub const PARTIAL_KEPT: Duration = Duration::from_mins(2);

/// On a wire without numbers, how long a repetition is expected.
pub const REPETITION: Duration = Duration::from_secs(15);

/// How many messages on such a wire are remembered for that, per peer.
pub const REMEMBERED: usize = 128;

/// How many broken bulk messages are kept at once, per peer.
pub const MAXIMUM_PARTIALS: usize = 8;

/// If a message arrives twice at once, the second waits this long for the first to give way.
pub const SUPERSEDE_WAIT: Duration = Duration::from_secs(10);

/// Sequence numbers that may be settled out of order; a sender has fewer than this on their way.
pub const SEQUENCE_WINDOW: usize = 1 << 16;

/// Messages that may be queued for one peer.
pub const MAXIMUM_QUEUED: usize = SEQUENCE_WINDOW / 2;

/// While a receive waits for a peer that was seen before and has no connection here, how often to
/// ask whether it is still there.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// After this many unanswered probes the peer is lost.
pub const PROBES_UNTIL_LOST: u32 = 3;

/// Bytes of a text message id.
pub const MAXIMUM_ID_BYTES: usize = 1 << 10;

/// Buffers of one message on the second wire.
pub const MAXIMUM_BUFFERS: usize = 1 << 16;

/// On the second wire, bytes from this size on travel separately from the value; smaller ones are
/// part of it.
pub const OUT_OF_BAND_BYTES: usize = 4 << 10;

/// Nesting of lists, maps and typed values in a document that is looked through without recursion.
/// The 4.x line of the replaced package reads 497 lists.
pub const MAXIMUM_DEPTH: usize = 497;

/// Nesting of lists, maps and typed values when they are written, and when they are read into the
/// caller's type: everybody writes this much, and serde takes stack for each level. A peer must not
/// be able to use up the 2 MiB of a thread.
pub const MAXIMUM_VALUE_DEPTH: usize = 254;

/// Dimensions of an array, as many as numpy allows.
pub const MAXIMUM_DIMENSIONS: usize = 64;

/// Rows without elements that an array may expand to when lists are requested: they cost memory
/// that no byte on the wire has paid for.
pub const MAXIMUM_EMPTY_ROWS: usize = 1 << 16;

/// How long peers have to hear that we are leaving.
pub const GOODBYE: Duration = Duration::from_millis(500);

/// A peer's host is looked up at most this often.
pub const LOOKUP_PAUSE: Duration = Duration::from_secs(5);

/// How long the end of a node waits for its port to become free again.
pub const PORT_WAIT: Duration = Duration::from_secs(1);

/// How often that is checked from outside a runtime.
pub const PORT_PAUSE: Duration = Duration::from_millis(1);
