//! `convelo-service`: the program that is measured.
//!
//! Its only arguments, fixed in the enclave's manifest, are where to listen and how many bytes of
//! fingerprints it may hold. It reads no other file than Gramine's attestation files.

use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::Gramine;
use convelo_channel::Identity;
use convelo_service::limits::DEFAULT_MEMORY;
use convelo_service::{Config, Service};

/// Where Gramine offers evidence.
const ATTESTATION: &str = "/dev/attestation";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
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
        tracing::error!("usage: convelo-service ADDRESS:PORT [BYTES-OF-FINGERPRINTS]");
        return ExitCode::from(2);
    };
    let config = Config {
        listen,
        identity: Identity::generate(),
        source: Arc::new(Gramine::new(ATTESTATION)),
        collateral: None,
        offer: None,
        provider_policy: None,
        memory,
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
