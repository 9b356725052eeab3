//! `convelo-service`: the program that is measured.
//!
//! Its arguments are fixed in the enclave's manifest: where to listen, how much memory and how many threads
//! it may have, where to answer whether it is ready, which file has the collateral for its own platform, and
//! whether providers of a simulated platform may come. It reads no other files but those of the attestation
//! device. The collateral is signed and dated, and for the parties: nothing in here depends on it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::{Gramine, QuoteSource, Tsm};

/// Where evidence comes from: Gramine's directory in an enclave, and Linux's in a TDX guest.
const GRAMINE: &str = "/dev/attestation";
const TSM: &str = "/sys/kernel/config/tsm/report";

fn main() -> ExitCode {
    convelo_service::program::run(std::env::args_os().skip(1), source)
}

/// The source of evidence where this program runs. A host gains nothing by hiding one device or
/// showing the other: each quotes what really runs, and the parties' policies name what that must
/// be.
fn source() -> Arc<dyn QuoteSource> {
    if Path::new(GRAMINE).exists() || !Path::new(TSM).exists() {
        Arc::new(Gramine::new(GRAMINE))
    } else {
        Arc::new(Tsm::new(TSM))
    }
}
