//! The kit of the end-to-end tests: real processes of the `convelo` program with real sockets.
//!
//! [`World`] is a directory with a simulated platform; it contains [`Party`]s, [`Service`]s and the
//! job files of a [`JobBuilder`]. A [`Process`] is one run of the program, with its output captured
//! and a deadline on every wait. A [`RawParty`] does what the program itself never does: the same
//! connection and protocol, driven by hand. [`Measured`] is the measured program itself. A [`Flood`] is
//! what one stranger can do, a [`RawPeer`] a party of a job without a service, driven by hand, an [`Impostor`] is a service that says anything, and a [`Liar`] one that
//! makes up results. [`tables`] makes large tables, [`proxy`] connections
//! that break, and [`oracle`] computes by other means what the result must be.

mod binary;
mod client;
mod flood;
mod hosted;
mod impostor;
mod liar;
mod measured;
pub mod oracle;
pub mod peer;
mod process;
pub mod proxy;
pub mod tables;
mod world;

pub use binary::{convelo, measured};
pub use client::{RawConnection, RawParty, Received, reach_from, wait};
pub use flood::Flood;
pub use hosted::Hosted;
pub use impostor::{Answer, Answers, Guest, Impostor, prove};
pub use liar::{Liar, Marks, Sets};
pub use measured::{Device, Measured, Starting};
pub use peer::RawPeer;
pub use process::{Ended, PATIENCE, Process};
pub use world::{JobBuilder, Party, SERVICE_ENCLAVE, Service, World, free_port};
