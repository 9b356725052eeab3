//! The data provider: its table, its part in a job, its receipt.
//!
//! [`run`] takes a provider from its table to its matched rows. The record's walk: `table` reads
//! the key columns, `convelo_psi` normalises and fingerprints them under the job key that the
//! parties agreed on, `services` has the sorted set intersected: `shards` deals it out, a `part` and its `session`
//! carry it to each service, which `attestation` has verified on each `connection`, and the bitmap back; `table`
//! writes the matched rows and `receipt` the receipt.

mod attestation;
mod connection;
mod error;
mod event;
mod first_pass;
pub mod limits;
mod part;
mod pcs;
mod pieces;
mod plan;
mod progress;
mod receipt;
mod refresh;
mod run;
mod services;
mod session;
mod shards;
mod spill;
mod summary;
pub mod table;

pub use convelo_wire::Waiting;
pub use error::{Error, Hint, Kind};
pub use event::{Counts, Event, Observer};
pub use first_pass::count_keys;
pub use pcs::{INTEL_PCS, PcsClient, PcsError, web_tls};
pub use plan::{Destination, Run};
pub use receipt::{ReceiptError, VerifiedReceipt, verify_receipt};
pub use refresh::{Refresh, RefreshError, Refreshing, store_collateral};
pub use run::run;
pub use spill::Memory;
pub use summary::{Learned, Summary};
