//! The attested join as a service: jobs of two to sixty-four parties over mutual RA-TLS and gRPC.
//!
//! `server` speaks gRPC, `stream` carries one party's stream, `attester` proves what this service is
//! and judges what parties prove with the `collateral` of the day, `registry` finds the job of a stream and runs a task for each job, `job`
//! is that task's state machine, `budget` the memory that all jobs share, `status` what operators' tools may
//! ask. `psi_wire` serves the clients of Intel's "PSI with SGX", if asked for. The program
//! `convelo-service` is what runs inside the enclave and is measured; it has no other inputs than
//! its fixed arguments and what parties send.

mod attester;
mod budget;
mod collateral;
mod job;
pub mod limits;
mod psi_wire;
mod registry;
mod server;
mod status;
mod stream;

pub use collateral::CollateralFile;
pub use psi_wire::{PsiTls, PsiWire};
pub use server::{Config, Service, ServiceError};
pub use status::{JobSeconds, Reading, Readings};
