//! What an operator opens beside the measured service: the status port, the figures pushed to an
//! OpenTelemetry collector, the wire of Intel's "PSI with SGX", files of collateral that others keep fresh.
//!
//! `convelo-service`, the program that is measured, has none of it: it is not in its tree. Here a
//! [`Service`] is looked at through its [`Observer`](convelo_service::Observer), and other clients are served
//! from its [`Shared`](convelo_service::Shared) memory.

mod collateral;
pub mod limits;
mod otlp;
mod psi_wire;
mod status;

use std::sync::Arc;

use convelo_service::{Service, ServiceError};
use tokio::sync::watch;

pub use collateral::CollateralFile;
pub use otlp::{Collector, CollectorError};
pub use psi_wire::{PsiError, PsiPort, PsiTls, PsiWire};
pub use status::StatusPort;

/// The wire of Intel's "PSI with SGX": the generated messages, client and server. The tests generate them anew and
/// compare.
#[expect(clippy::pedantic, reason = "generated code")]
pub mod proto {
    include!("generated/psi.rs");
}

/// What is opened beside a service.
#[derive(Default)]
pub struct Extras {
    /// Health checks and figures over plain HTTP.
    pub status: Option<StatusPort>,
    /// Clients of Intel's "PSI with SGX".
    pub psi: Option<PsiPort>,
    /// Who is told the figures.
    pub collector: Option<Collector>,
}

/// Runs a service with what is opened beside it, until `stop` ends and all clients have been told. Extras
/// that fail are named in the log, and the service goes on.
///
/// # Errors
/// When the service itself fails as a whole.
pub async fn run(
    service: Service,
    extras: Extras,
    stop: impl Future<Output = ()>,
) -> Result<(), ServiceError> {
    let Extras { status, psi, collector } = extras;
    // Dropped when the service is to stop, or has failed.
    let (running, stopping) = watch::channel(());
    let stop = async move {
        stop.await;
        drop(running);
    };
    let stopped = || {
        let mut stopping = stopping.clone();
        async move {
            let _ = stopping.changed().await;
        }
    };
    let (observer, instance) = (service.observer(), service.address().to_string());
    let status = status.map(|port| {
        let serving = port.run(observer.clone(), stopped());
        tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the status port answers no more");
            }
        })
    });
    let psi = psi.map(|port| {
        let serving = port.run(stopped());
        tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "psi.PSI is served no more");
            }
        })
    });
    let collector = collector.map(Arc::new);
    let pushing = collector.as_ref().map(|collector| {
        let pushing = Arc::clone(collector).keep_telling(observer.clone(), instance.clone());
        tokio::spawn(pushing)
    });
    let ended = service.run(stop).await;
    if let Some(psi) = psi {
        let _ = psi.await;
    }
    pushing.into_iter().chain(status).for_each(|task| task.abort());
    if let Some(collector) = collector
        && let Err(why) = collector.tell(&observer, &instance).await
    {
        tracing::warn!(%why, "the last figures are not taken");
    }
    ended
}
