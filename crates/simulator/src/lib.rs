//! A simulated platform with SGX and TDX.
//!
//! It issues evidence in the genuine format, with a public-key infrastructure like Intel's, under a
//! root of its own: root CA, PCK platform CA, PCK certificate, TCB signer, revocation lists, TCB
//! info, QE identity, quotes. Verification runs the same code as for genuine evidence. Only the
//! root differs, and a policy accepts it only if it names that root as `insecure_simulated_root`.
//!
//! **It protects nothing.** There is no enclave: anyone who can read the platform's directory can
//! quote anything. Release binaries of the service must not contain this crate.

mod certificate;
mod collateral;
mod der;
mod domain;
mod enclave;
mod key;
mod pccs;
mod platform;

pub use certificate::{CertificateKnobs, attested_certificate, certificate};
pub use collateral::CollateralKnobs;
pub use domain::{SimulatedDomain, TdQuoteForm, TrustDomain, domain_policy_toml};
pub use enclave::{Enclave, SimulatedEnclave, policy_toml};
pub use pccs::{Pccs, PccsKnobs};
pub use platform::{Error, Platform, PlatformKnobs};
