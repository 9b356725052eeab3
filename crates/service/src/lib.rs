//! The attested join as a service: jobs of two to sixty-four parties over mutual RA-TLS and gRPC.
//!
//! `server` starts and stops it, `grpc` carries connections, `stream` handles one party's stream,
//! `attester` proves what this service is and judges what parties prove, `registry` finds the job
//! of a stream and runs a task for each job, `job` is that task's state machine, `budget` the
//! memory that all jobs share, `collateral` a file that others renew, `figures` what the service
//! counts about itself. `program` is all of the program `convelo-service` but its first lines: it runs
//! inside the enclave and is measured; its only inputs are its fixed arguments, what parties send, and the
//! collateral that it offers. `memory` shares out what it may take, `threads` starts all its threads, and
//! `ready` answers whether it takes jobs.
//!
//! A program that runs a service may look at it ([`Observer`]) and serve other wires from the same
//! memory ([`Shared`]); the measured program does neither.

mod attester;
mod budget;
mod collateral;
mod device;
mod figures;
mod grpc;
mod job;
pub mod limits;
mod memory;
#[cfg(feature = "oblivious")]
#[doc(hidden)]
pub mod oblivious;
mod policies;
pub mod program;
mod ready;
mod registry;
mod server;
mod shared;
mod stream;
mod threads;

pub use budget::{Budget, Reservation};
pub use collateral::{CollateralFile, CollateralSource};
pub use figures::{Figures, JobSeconds};
pub use memory::{Limits, Shares, TooLittle};
pub use server::{Config, Observer, Service, ServiceError};
pub use shared::{AdmitList, Shared};
