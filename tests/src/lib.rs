//! The kit of the end-to-end tests: real processes of the `convelo` program with real sockets.
//!
//! [`World`] is a directory with a simulated platform; in it live [`Party`]s, [`Service`]s and the
//! job files of a [`JobBuilder`]. A [`Process`] is one run of the program, with its output captured
//! and a deadline on every wait. What the program itself never does is done by a [`RawParty`]: the
//! same connection and protocol, driven by hand. [`tables`] makes large tables,
//! [`proxy`] connections that break, [`oracle`] says by
//! other means what the result has to be.

mod binary;
mod client;
mod hosted;
pub mod oracle;
mod process;
pub mod proxy;
pub mod tables;
mod world;

pub use binary::convelo;
pub use client::{RawConnection, RawParty, Received};
pub use hosted::Hosted;
pub use process::{Ended, PATIENCE, Process};
pub use world::{JobBuilder, Party, SERVICE_ENCLAVE, Service, World, free_port};
