//! Is that machine running our code?
//!
//! Evidence arrives as an RA-TLS certificate: a self-signed certificate whose key is bound, by the
//! report data of a quote, to the SGX enclave or TDX trust domain that made the key. This crate
//! parses it ([`Evidence`]), compares it with what we accept ([`Policy`]) under signed and dated
//! collateral ([`Collateral`]), and answers with a [`Verdict`] or a [`Refusal`]. Verification is a
//! pure function of (evidence, collateral, policy, now): no network, no clock, no environment.
//!
//! Here a simulated platform plays the machine. A genuine one differs in three places: its
//! certificate arrives in a TLS handshake, its collateral comes from Intel, and the policy names
//! no `insecure_simulated_root`.
//!
//! ```
//! # use std::sync::Arc;
//! # use convelo_simulator::{CollateralKnobs, Enclave, Platform, attested_certificate, policy_toml};
//! # use rcgen::KeyPair;
//! use convelo_attest::{Collateral, Evidence, Policy, verify};
//!
//! # let now = 1_795_219_200;
//! # let platform = Arc::new(Platform::new(now)?);
//! # let program = Enclave::named("convelo-service");
//! # let enclave = platform.enclave(program.clone());
//! # let certificate = attested_certificate(&enclave, &KeyPair::generate()?, now)?;
//! # let collateral_json = platform.collateral(&CollateralKnobs::default()).to_json();
//! # let policy_toml = policy_toml(&platform, &[("convelo-service 0.1.0", &program)]);
//! // What we have: the peer's certificate (DER), collateral and policy as text, and the time.
//! let evidence = Evidence::from_certificate(&certificate, now)?.expect("it carries evidence");
//! let collateral = Collateral::from_json(&collateral_json)?;
//! let policy = Policy::from_toml(&policy_toml)?;
//!
//! let verdict = verify(&evidence, &collateral, &policy, now)?;
//! println!("{verdict}"); // convelo-service 0.1.0 (mr_enclave ...) on a SIMULATED platform, ...
//! assert!(verdict.simulated() && !verdict.fresh());
//!
//! // A policy that names another program refuses it, and says what it found and expected.
//! let other = policy_toml.replace(&hex::encode(program.mr_enclave), &"ab".repeat(32));
//! let refusal = verify(&evidence, &collateral, &Policy::from_toml(&other)?, now).unwrap_err();
//! assert_eq!(refusal.code, "measurement");
//! assert!(refusal.found.contains(&hex::encode(program.mr_enclave)));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! `dcap-qvl` checks the signatures, revocation lists and TCB matching. [`verify()`] closes
//! everything that it leaves open: canonical form, certificate count, product attributes,
//! collateral age, the PCE id, measurements and key binding.
//!
//! A quote over a [`Session`] turns evidence about a key into evidence about a connection, and
//! about now; one over a [`OneTimeKey`] says which program made the key, to everybody who is shown
//! it.
//!
//! The other half is where evidence comes from: a [`QuoteSource`] quotes 64 bytes of report data
//! inside an enclave ([`Gramine`]) or a trust domain ([`Tsm`]), and [`extensions`] turns the quote
//! into certificate extensions.

mod attributes;
mod claims;
mod collateral;
mod date;
mod evidence;
mod inspect;
mod limits;
mod measurements;
mod one_time_key;
mod policy;
mod qcnl;
mod quote;
mod refusal;
mod session;
mod source;
mod text;
mod verdict;
mod verify;

pub use collateral::{
    Answers, Collateral, CollateralError, PckCa, PlatformId, SeenLists, SeenListsError,
    root_crl_address,
};
pub use evidence::{
    CertificateRules, Evidence, Extension, extension, extensions, report_data, spki_of,
};
pub use inspect::{Inspection, inspect};
pub use limits::*;
pub use measurements::{Measurements, SgxMeasurements, TdxMeasurements};
pub use one_time_key::OneTimeKey;
pub use policy::{Policy, PolicyError, TcbStatus, certificate_from_pem, certificate_to_pem};
pub use qcnl::{Qcnl, QcnlError, collateral_endpoint};
pub use quote::Tee;
pub use refusal::{Matter, Refusal, Stage};
pub use session::{EXPORTER_LABEL, Role, Session};
pub use source::{Gramine, QuoteError, QuoteSource, Tsm};
pub use verdict::{Check, Verdict};
pub use verify::{verify, verify_listing};
