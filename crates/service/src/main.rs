//! `convelo-service`: the program that is measured.
//!
//! Its only arguments, fixed in the enclave's manifest, are where to listen and how many bytes of
//! pseudonyms it may hold. It reads no files but those of the attestation device.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::{Gramine, QuoteSource, Tsm};
use convelo_channel::Identity;
use convelo_service::limits::{DEFAULT_MEMORY, RECONNECT_WITHIN};
use convelo_service::{Config, Service};
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
    let mut arguments = std::env::args().skip(1);
    let (listen, memory) = match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(listen), None, None) => (listen, Some(DEFAULT_MEMORY)),
        (Some(listen), Some(bytes), None) => (listen, bytes.parse().ok()),
        _ => (String::new(), None),
    };
    let Some(memory) = memory else {
        tracing::error!("usage: convelo-service ADDRESS:PORT [BYTES-OF-PSEUDONYMS]");
        return ExitCode::from(2);
    };
    let config = Config {
        listen,
        identity: Identity::generate(),
        source: source(),
        collateral: None,
        offer: None,
        provider_policy: None,
        admit: None,
        behind_balancer: false,
        insecure_simulated: false,
        memory,
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
