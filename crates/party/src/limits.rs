//! Every limit of this crate, by name.

use std::time::Duration;

/// Bytes in one MiB.
pub(crate) const MEBIBYTE: u64 = 1024 * 1024;

/// The longest record of a table, in bytes of the file. One that is longer usually is a quote that
/// is never closed.
pub const MAXIMUM_RECORD_BYTES: u64 = 16 * MEBIBYTE;

/// The most columns of a table.
pub const MAXIMUM_COLUMNS: usize = 65_536;

/// The buffer through which a table is read or written, in bytes.
pub(crate) const TABLE_BUFFER_BYTES: usize = 256 * 1024;

/// What is read at a time to find the first record of a table, in bytes.
pub(crate) const FIRST_RECORD_BYTES: usize = 8 * 1024;

/// The pieces in which what comes but once is kept between the two passes, in bytes.
pub(crate) const KEPT_SEGMENT_BYTES: usize = 1 << 20;

/// Where records with quotes begin, so many bytes are read as such before it is looked whether lines
/// without quotes follow.
pub(crate) const RECORDS_IN_A_ROW_BYTES: u64 = 16 * 1024;

/// A table of so many bytes in its file is read by one thread.
pub(crate) const SMALL_TABLE_BYTES: u64 = 4 * MEBIBYTE;

/// The most rows of a table: their numbers are kept in 32 bits.
pub const MAXIMUM_ROWS: u64 = u32::MAX as u64;

/// Blocks of rows that wait for a thread, in front of those that make pseudonyms and behind them.
pub(crate) const BLOCKS_IN_FLIGHT: usize = 4;

/// The most threads that make pseudonyms; more would wait for the one that reads.
pub(crate) const MAXIMUM_PSEUDONYMING_THREADS: usize = 8;

/// What a run takes for its pseudonyms when nobody says how much memory it may take: 48 million
/// rows.
pub const DEFAULT_MEMORY: u64 = 1024 * MEBIBYTE;

/// What a run is taken to need for everything but pseudonyms.
pub(crate) const OTHER_MEMORY: u64 = 48 * MEBIBYTE;

/// Rows of a Parquet file that are looked at together, and of a batch that are kept or given together.
pub(crate) const BATCH_ROWS: usize = 8192;

/// Rows of a group of a Parquet file that is written; a group is in memory until it is complete.
pub(crate) const PARQUET_GROUP_ROWS: usize = 1 << 17;

/// How much of a CSV file is looked at to guess its delimiter, in bytes.
pub(crate) const DELIMITER_SAMPLE_BYTES: u64 = 64 * 1024;

/// The most columns that an error lists.
pub(crate) const MAXIMUM_COLUMNS_SHOWN: usize = 40;

/// The longest name of a column in an error, in characters.
pub(crate) const MAXIMUM_NAME_SHOWN: usize = 40;

/// Chunks that wait to be sent; with the flow control window this bounds what an upload holds.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 2;

/// The first pause between two attempts to reach the service; it doubles up to [`LONGEST_RETRY`].
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(250);

/// See [`FIRST_RETRY`].
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How long a party whose connection broke tries to go on with another. The service gives it up earlier,
/// and can say so.
pub(crate) const RECONNECT_FOR: Duration = Duration::from_mins(2);

/// How often a broken handshake is tried again.
pub(crate) const HANDSHAKE_RETRIES: u32 = 5;

/// How often a connection that breaks before it is attested is tried again. Few times: a service that
/// refuses this party's certificate looks the same.
pub(crate) const ATTEST_RETRIES: u32 = 2;

/// How long a party that gives up waits until the service has heard why.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a party that is to stop waits for the row that it is writing.
pub(crate) const LAST_ROW_TIMEOUT: Duration = Duration::from_secs(2);

/// The service enforces the job's deadline; a party gives up by itself so much later.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_secs(30);

/// The service must answer a challenge within this time; it may have others to answer first.
pub(crate) const ATTEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The service is asked to attest a connection again after this time, half of what it grants.
pub(crate) const ATTEST_AGAIN: Duration = Duration::from_mins(30);

/// A challenge that finds the queue full is tried again after this time.
pub(crate) const ATTEST_RETRY: Duration = Duration::from_secs(1);

/// A silent service is asked for a sign of life this often.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The service is given up when no sign of life comes within this time.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/2 flow control window of a stream and of a connection.
pub(crate) const WINDOW_BYTES: u32 = 2 << 20;

/// The largest policy, collateral, key or job file.
pub const MAXIMUM_FILE_BYTES: u64 = 4 * MEBIBYTE;
