//! `convelo simulator`: a platform for tests without SGX.

use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::Tee;
use convelo_simulator::{CollateralKnobs, Pccs, PccsKnobs, Platform};

use crate::args::Simulator;
use crate::clock::unix_now;
use crate::exit::Failure;
use crate::{output, platform, stop};

pub(crate) async fn simulator(args: Simulator) -> Result<ExitCode, Failure> {
    match args {
        Simulator::New { dir, tdx } => {
            platform::simulate(&dir, if tdx { Tee::Tdx } else { Tee::Sgx })?;
            output::say(format_args!(
                "SIMULATED platform in {}: policy.toml accepts its service, and collateral.json is \
                 for verifying it; give both to the providers, and platform.json to nobody",
                dir.display()
            ));
        }
        Simulator::Pccs { dir, listen } => {
            let platform = Arc::new(Platform::open(&dir).map_err(Failure::usage)?);
            let fresh = CollateralKnobs { now: Some(unix_now()), ..CollateralKnobs::default() };
            let knobs = PccsKnobs { collateral: fresh, ..PccsKnobs::default() };
            let pccs = Pccs::start(&listen, platform, knobs)
                .map_err(|error| Failure::usage(format!("cannot listen on {listen}: {error}")))?;
            output::say(format_args!("SIMULATED collateral service at {}", pccs.url()));
            stop::requested().await;
        }
        Simulator::Collateral { dir } => {
            let platform = Platform::open(&dir).map_err(Failure::usage)?;
            let knobs = CollateralKnobs {
                now: Some(unix_now()),
                tee: platform.tee(),
                ..CollateralKnobs::default()
            };
            let path = dir.join("collateral.json");
            std::fs::write(&path, platform.collateral(&knobs).to_json()).map_err(|error| {
                Failure::usage(format!("cannot write {}: {error}", path.display()))
            })?;
            output::say(format_args!("wrote {}, valid for seven days", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
