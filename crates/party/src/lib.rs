//! The data provider: its table, its part in a job, its receipt.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::path::{Path, PathBuf};
//! use std::sync::Arc;
//!
//! use convelo_channel::Identity;
//! use convelo_party::table::{Format, Input, Output, Table, TableOptions};
//! use convelo_party::{Plan, run};
//! use convelo_psi::Job;
//!
//! let job = Job::from_toml(&std::fs::read_to_string("job.toml")?)?;
//! let identity = Identity::from_pem(&std::fs::read_to_string("alice.key")?)?;
//! let plan = Plan::builder(job, "alice", identity)?
//!     .output(Output::File("matched.csv".into()))
//!     .receipt(PathBuf::from("matched.csv.receipt.json"))
//!     .build()?;
//! let options = TableOptions {
//!     format: Format::csv(b',', true),
//!     key: vec!["email".parse()?],
//!     select: Vec::new(),
//! };
//! let input = Input::open(Path::new("customers.csv"), &std::env::temp_dir())?;
//! let table = Table::open(input, &options)?;
//! let summary = run(plan, table, Arc::new(()), std::future::pending()).await?;
//! # let _ = summary;
//! # Ok(())
//! # }
//! ```
//!
//! The [`Plan`] contains what the job says about its service and its parties, whether the caller
//! mentions it or not; what the builder accepts can only add to it. A table may also be a stream of
//! Arrow batches ([`Input::batches`](table::Input::batches)), and rows may go to a writer, or as
//! batches to a receiver ([`Output`](table::Output)); `examples/matching.rs` shows both, in a whole
//! job in one process.
//!
//! [`run`] takes a provider from its table to its matched rows. The record's walk: `table` reads
//! the key columns, `convelo_psi` normalises and pseudonyms them under the job key that the
//! parties agreed on, and `services` has the sorted set intersected. For that, `shards` distributes
//! the set, and a `part` and its `session` carry it to each service, which `attestation` has
//! verified on each `connection`, and bring back the bitmap. `providers` verifies the other parties'
//! programs, where the job asks for that. Then `table` writes the matched rows
//! and `receipt` the receipt.

mod attestation;
mod connection;
pub mod direct;
mod dropped;
mod engine;
mod error;
mod estimate;
mod event;
mod first_pass;
mod kept;
mod key_hash;
pub mod limits;
mod part;
mod pcs;
mod pieces;
mod plan;
mod progress;
mod providers;
mod receipt;
mod refresh;
mod run;
mod second_pass;
mod seen;
mod services;
mod session;
mod shards;
mod spill;
mod summary;
mod survey;
pub mod table;

pub use convelo_keys::UNKNOWN_VALUES;
pub use convelo_wire::{OtherTerms, Waiting};
pub use error::{Error, Hint, Kind};
pub use estimate::{Estimate, estimate};
pub use event::{Counts, Event, Observer};
pub use first_pass::count_keys;
pub use kept::resume;
pub use pcs::{INTEL_PCS, PcsClient, PcsError, web_tls};
pub use plan::{Consent, Plan, PlanBuilder, policy_of, provider_policy_of};
pub use providers::VerifiedProvider;
pub use receipt::{Against, ReceiptError, Unsigned, Verification, VerifiedReceipt, verify_receipt};
pub use refresh::{Refresh, RefreshError, Refreshing, store_collateral};
pub use run::run;
pub use services::verify_services;
pub use spill::Memory;
pub use summary::{Counted, Matched, Summary};
pub use survey::{Commonest, DroppedRows, PartShapes, Survey};
