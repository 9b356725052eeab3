//! `convelo-service`: the program that is measured.
//!
//! Its arguments are fixed in the enclave's manifest: where to listen, how many bytes of pseudonyms it
//! may hold, which file has the collateral for its own platform, and whether providers of a simulated
//! platform may come. It reads no other files but those of the attestation device. The collateral is
//! signed and dated, and for the parties: nothing in here depends on it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::{Gramine, QuoteSource, Tsm};
use convelo_channel::Identity;
use convelo_service::limits::{DEFAULT_MEMORY, RECONNECT_WITHIN};
use convelo_service::{CollateralFile, CollateralSource, Config, Service};
use convelo_untrusted::Terminal;

/// Where evidence comes from: Gramine's directory in an enclave, and Linux's in a TDX guest.
const GRAMINE: &str = "/dev/attestation";
const TSM: &str = "/sys/kernel/config/tsm/report";

fn main() -> ExitCode {
    convelo_heap::one_arena();
    // In an enclave, the host sees no memory anyway, and Gramine may not know the call.
    let _ = convelo_heap::no_core_dumps();
    serve()
}

#[tokio::main]
async fn serve() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(|| Terminal::new(std::io::stderr()))
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    let Some(arguments) = Arguments::read(std::env::args().skip(1)) else {
        tracing::error!(
            "usage: convelo-service ADDRESS:PORT [BYTES-OF-PSEUDONYMS] [--offer-collateral FILE] \
             [--insecure-simulated]"
        );
        return ExitCode::from(2);
    };
    if arguments.insecure_simulated {
        tracing::warn!("SIMULATED: providers may come whose evidence proves nothing");
    }
    let offer = |path| Arc::new(CollateralFile::new(path)) as Arc<dyn CollateralSource>;
    let config = Config {
        listen: arguments.listen,
        identity: Identity::generate(),
        source: source(),
        collateral: None,
        offer: arguments.offer.map(offer),
        provider_policy: None,
        admit: None,
        behind_balancer: false,
        insecure_simulated: arguments.insecure_simulated,
        memory: arguments.memory,
        reconnect_within: RECONNECT_WITHIN,
        insecure_ratls_only: false,
    };
    let served = match Service::bind(config).await {
        Ok(service) => {
            tracing::info!(address = %service.address(), "listening");
            service.run(stop()).await
        }
        Err(error) => Err(error),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the service ends");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    listen: String,
    memory: u64,
    offer: Option<PathBuf>,
    insecure_simulated: bool,
}

impl Arguments {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut read = Self {
            listen: arguments.next().filter(|listen| !listen.starts_with('-'))?,
            memory: DEFAULT_MEMORY,
            offer: None,
            insecure_simulated: false,
        };
        let mut first = true;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--offer-collateral" => read.offer = Some(arguments.next()?.into()),
                "--insecure-simulated" => read.insecure_simulated = true,
                bytes if first => read.memory = bytes.parse().ok()?,
                _ => return None,
            }
            first = false;
        }
        Some(read)
    }
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

/// Ends on SIGTERM or SIGINT.
async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
