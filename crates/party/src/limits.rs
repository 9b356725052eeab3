//! Every limit of this crate, by name.

use std::time::Duration;

/// Bytes in one MiB.
pub(crate) const MEBIBYTE: u64 = 1024 * 1024;

/// The longest record of a table, in bytes of the file. A longer one is usually a quote that is
/// never closed.
pub const MAXIMUM_RECORD_BYTES: u64 = 16 * MEBIBYTE;

/// The most columns of a table.
pub const MAXIMUM_COLUMNS: usize = 65_536;

/// The buffer for reading or writing a table, in bytes.
pub(crate) const TABLE_BUFFER_BYTES: usize = 256 * 1024;

/// How much is read at a time to find the first record of a table, in bytes.
pub(crate) const FIRST_RECORD_BYTES: usize = 8 * 1024;

/// The size of the pieces in which a single-pass input is kept between the two passes, in bytes.
pub(crate) const KEPT_SEGMENT_BYTES: usize = 1 << 20;

/// Once records with quotes begin, this many bytes are read as such before the reader checks
/// whether lines without quotes follow.
pub(crate) const RECORDS_IN_A_ROW_BYTES: u64 = 16 * 1024;

/// A table whose file has at most this many bytes is read by one thread.
pub(crate) const SMALL_TABLE_BYTES: u64 = 4 * MEBIBYTE;

/// The most rows of a table: row numbers are stored in 32 bits.
pub const MAXIMUM_ROWS: u64 = u32::MAX as u64;

/// Blocks of rows that may wait on either side of the threads that make pseudonyms.
pub(crate) const BLOCKS_IN_FLIGHT: usize = 4;

/// The most threads that make pseudonyms; more would only wait for the one that reads.
pub(crate) const MAXIMUM_PSEUDONYMING_THREADS: usize = 8;

/// The memory for pseudonyms in a run that has no memory limit set: enough for 48 million rows.
pub const DEFAULT_MEMORY: u64 = 1024 * MEBIBYTE;

/// How much memory a run is assumed to need for everything but pseudonyms.
pub(crate) const OTHER_MEMORY: u64 = 48 * MEBIBYTE;

/// Rows of a Parquet file that are processed at a time, and rows per batch that is kept or given out.
pub(crate) const BATCH_ROWS: usize = 8192;

/// Rows in each group of a Parquet file that is written; a group stays in memory until it is
/// complete.
pub(crate) const PARQUET_GROUP_ROWS: usize = 1 << 17;

/// How much of a text is examined to find its delimiter, and whether it has a header, in bytes.
pub(crate) const SAMPLE_BYTES: u64 = 256 * 1024;

/// How many of its records are examined to find whether it has a header.
pub(crate) const SAMPLE_RECORDS: usize = 1000;

/// How much of the end of a text is examined for what is no row, in bytes. A reader asks for more at a
/// time.
pub(crate) const ENDING_BYTES: usize = 2048;

/// All rows up to this number are looked at for the shapes of their keys.
pub(crate) const SHAPED_ROWS: u64 = 1 << 13;

/// How many keys are sampled to find the commonest one.
pub(crate) const SAMPLED_KEYS: usize = 1 << 16;

/// How many rows without a key are named as examples, for each reason.
pub(crate) const MAXIMUM_EXAMPLES: usize = 3;

/// The most files of a table in a directory.
pub const MAXIMUM_PARTS: usize = 100_000;

/// The most columns that an error lists.
pub(crate) const MAXIMUM_COLUMNS_SHOWN: usize = 40;

/// The longest column name in an error, in characters.
pub(crate) const MAXIMUM_NAME_SHOWN: usize = 40;

/// Chunks that wait to be sent; together with the flow control window, this limits what an upload
/// holds.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 2;

/// The first pause between two attempts to reach the service; it doubles up to [`LONGEST_RETRY`].
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(250);

/// See [`FIRST_RETRY`].
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How many messages may arrive on a connection that accepts no more, for a party that is about to
/// send: the parties, their shares and confirmations, and that there is room. They stay in memory
/// until they are due, up to 2.7 MiB each; progress is not kept.
pub(crate) const MESSAGES_AHEAD: usize = 4;

/// How long a party whose connection broke tries to continue on another one. The service gives the
/// party up earlier, and can tell it so.
pub(crate) const RECONNECT_FOR: Duration = Duration::from_mins(2);

/// How long a name that does not resolve is looked up again: a misspelt one stays one.
pub(crate) const NAME_PATIENCE: Duration = Duration::from_secs(2);

/// How often a failed handshake is retried.
pub(crate) const HANDSHAKE_RETRIES: u32 = 5;

/// How often a connection that breaks before it is attested is retried. Only a few times: a service
/// that refuses this party's certificate looks the same.
pub(crate) const ATTEST_RETRIES: u32 = 2;

/// How long a party that gives up waits until the service has received its reason.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a party that must stop waits for the row that it is writing.
pub(crate) const LAST_ROW_TIMEOUT: Duration = Duration::from_secs(2);

/// The service enforces the job's deadline; a party gives up on its own this much later.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_secs(30);

/// The service must answer a challenge within this time; it may have others to answer first.
pub(crate) const ATTEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The service is asked to attest a connection again after this time, half of what it allows.
pub(crate) const ATTEST_AGAIN: Duration = Duration::from_mins(30);

/// A challenge that finds the queue full is retried after this time.
pub(crate) const ATTEST_RETRY: Duration = Duration::from_secs(1);

/// How often a silent service is asked for a sign of life.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The service is given up if there is no sign of life within this time.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/2 flow control window of a stream and of a connection.
pub(crate) const WINDOW_BYTES: u32 = 2 << 20;

/// The largest kept answer: a digit for four rows.
pub(crate) const MAXIMUM_KEPT_BYTES: u64 = MAXIMUM_ROWS / 4 + MEBIBYTE;

/// An output whose directory has less room than this, and than the table has bytes, is refused before
/// anybody is contacted.
pub(crate) const LEAST_ROOM_BYTES: u64 = MEBIBYTE;

/// The largest policy, collateral, key or job file.
pub const MAXIMUM_FILE_BYTES: u64 = 4 * MEBIBYTE;

/// The longest message between two parties without a service: a part of a masked table (8 MiB) and
/// what stands before it.
pub const MAXIMUM_MESSAGE_BYTES: usize = 9 << 20;

/// How many bytes of messages a party may send before the other has taken them; a single message may
/// be longer.
pub(crate) const MESSAGES_WINDOW_BYTES: u32 = 4 << 20;

/// With how many members at once the leader of several parties computes.
pub(crate) const MEMBERS_AT_ONCE: usize = 2;

/// How many messages that have arrived may wait to be taken: as many small ones as fill the window.
pub(crate) const MESSAGES_WAITING: usize = (MESSAGES_WINDOW_BYTES >> 10) as usize + 1;

/// The handshake and the first frames of a connection between parties must be over after this time.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection between parties on which nothing arrives for this long counts as broken.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a party says that it is still there.
pub(crate) const ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a party that is done waits for the others to take its last message.
pub(crate) const LAST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that wait until it is known whether they are of a party of the job.
pub(crate) const GREETINGS_AT_ONCE: usize = 16;
