//! What an operator opens next to the measured service: the status port, figures pushed to an
//! OpenTelemetry collector, the wire of Intel's "PSI with SGX", and collateral files that others
//! keep fresh.
//!
//! `convelo-service`, the program that is measured, contains none of this. Here a [`Service`] is
//! observed through its [`Observer`](convelo_service::Observer), and other clients are served from
//! its [`Shared`](convelo_service::Shared) memory.

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

/// What to open next to a service.
#[derive(Default)]
pub struct Extras {
    /// Health checks and figures over plain HTTP.
    pub status: Option<StatusPort>,
    /// Clients of Intel's "PSI with SGX".
    pub psi: Option<PsiPort>,
    /// Where to push the figures.
    pub collector: Option<Collector>,
}

/// Runs a service with these extras until `stop` ends and all clients have been told. If an extra
/// fails, the log says so, and the service goes on.
///
/// # Errors
/// If the service itself fails as a whole.
pub async fn run(
    service: Service,
    extras: Extras,
    stop: impl Future<Output = ()>,
) -> Result<(), ServiceError> {
    let Extras { status, psi, collector } = extras;
    // Dropped when the service is told to stop, or has failed.
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
                tracing::error!(%error, "the status port no longer answers");
            }
        })
    });
    let psi = psi.map(|port| {
        let serving = port.run(stopped());
        tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "psi.PSI is no longer served");
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
        tracing::warn!(%why, "the collector did not accept the last figures");
    }
    ended
}
