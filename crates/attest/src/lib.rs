//! Is that machine running our code?
//!
//! Evidence arrives as an RA-TLS certificate: a self-signed certificate whose key is bound, by the
//! report data of a quote, to the SGX enclave or TDX trust domain that made the key. This crate parses it
//! ([`Evidence`]), compares it with what we accept ([`Policy`]) under signed and dated collateral
//! ([`Collateral`]), and answers with a [`Verdict`] or a [`Refusal`]. Verification is a pure
//! function of (evidence, collateral, policy, now): no network, no clock, no environment.
//!
//! The signatures, revocation lists and TCB matching are checked by `dcap-qvl`; everything that it
//! leaves open (canonical form, certificate count, product attributes, collateral age, the PCE id,
//! measurements, key binding) is closed in [`verify()`].
//!
//! Evidence about a key becomes evidence about a connection, and about now, by a quote over a
//! [`Session`].
//!
//! The other half is where evidence comes from: a [`QuoteSource`] quotes 64 bytes of report data
//! inside an enclave ([`Gramine`]) or a trust domain ([`Tsm`]), and
//! [`extensions`] makes of it what a certificate carries.

mod attributes;
mod claims;
mod collateral;
mod date;
mod evidence;
mod inspect;
mod limits;
mod measurements;
mod policy;
mod qcnl;
mod quote;
mod refusal;
mod session;
mod source;
mod text;
mod verdict;
mod verify;

pub use collateral::{Answers, Collateral, CollateralError, PckCa, PlatformId, root_crl_address};
pub use evidence::{
    CertificateRules, Evidence, Extension, extension, extensions, report_data, spki_of,
};
pub use inspect::{Inspection, inspect};
pub use limits::*;
pub use measurements::{Measurements, SgxMeasurements, TdxMeasurements};
pub use policy::{Policy, PolicyError, TcbStatus, certificate_from_pem, certificate_to_pem};
pub use qcnl::{Qcnl, QcnlError, collateral_endpoint};
pub use quote::Tee;
pub use refusal::{Matter, Refusal, Stage};
pub use session::{EXPORTER_LABEL, Role, Session};
pub use source::{Gramine, QuoteError, QuoteSource, Tsm};
pub use verdict::{Check, Verdict};
pub use verify::{verify, verify_listing};
