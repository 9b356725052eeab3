//! Where this program's own evidence comes from, and the simulated platform that can stand in.

use std::path::Path;
use std::sync::Arc;

use convelo_attest::{Gramine, QuoteSource, Tee, Tsm};
use convelo_simulator::Platform as Simulated;

use crate::args::Platform;
use crate::clock::unix_now;
use crate::exit::Failure;
use crate::files;

/// The name that the simulated platform's stand-in for the measured service has.
pub(crate) const SERVICE: &str = "convelo-service";

/// The name that the simulated platform's stand-in for a provider's program has.
pub(crate) const PROVIDER: &str = "convelo-provider";

/// The file by which a directory has a platform.
const PLATFORM_FILE: &str = "platform.json";

/// Where this program's evidence comes from; `name` is its name on a simulated platform.
pub(crate) fn source(from: &Platform, name: &str) -> Result<Arc<dyn QuoteSource>, Failure> {
    match (&from.simulated, &from.tdx) {
        (Some(dir), _) => {
            let platform = Simulated::open(dir).map_err(Failure::usage)?;
            Ok(Arc::new(platform).program(name))
        }
        (None, Some(reports)) => Ok(Arc::new(Tsm::new(reports))),
        (None, None) => Ok(Arc::new(Gramine::new(&from.attestation))),
    }
}

/// Whether evidence can be made here: a platform was named, or this is an enclave.
pub(crate) fn is_here(from: &Platform) -> bool {
    from.simulated.is_some() || from.tdx.is_some() || from.attestation.exists()
}

/// Makes a simulated platform, with the policies that accept the stand-ins for our two programs.
pub(crate) fn simulate(dir: &Path, tee: Tee) -> Result<Simulated, Failure> {
    if dir.join(PLATFORM_FILE).exists() {
        let dir = dir.display();
        return Err(Failure::usage(format!(
            "there already is a platform in {dir}, and nothing was changed; 'convelo simulator collateral \
             {dir}' renews its collateral; for another platform, name another directory"
        )));
    }
    let platform = Simulated::create(dir, unix_now(), tee).map_err(Failure::usage)?;
    for (file, program) in [("policy.toml", SERVICE), ("provider-policy.toml", PROVIDER)] {
        files::create(&dir.join(file), platform.program_policy(program).as_bytes(), 0o644)?;
    }
    Ok(platform)
}
