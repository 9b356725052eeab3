//! What an operator opens next to the measured service: the status port, figures pushed to an
//! OpenTelemetry collector, the wire of Intel's "PSI with SGX", and a list of admitted keys.
//!
//! `convelo-service`, the program that is measured, contains none of this. Here a [`Service`] is
//! observed through its [`Observer`], and other clients are served from
//! its [`Shared`](convelo_service::Shared) memory.

mod admit;
pub mod limits;
mod otlp;
mod psi_wire;
mod status;

use std::pin::Pin;
use std::sync::Arc;

use convelo_service::{Observer, Service, ServiceError};
use tokio::sync::watch;

pub use admit::{AdmitError, AdmitFile};
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
    /// The list of admitted keys that the service was given, to keep current.
    pub admit: Option<Arc<AdmitFile>>,
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
    let (observer, instance) = (service.observer(), service.address().to_string());
    beside(observer, instance, extras, stop, |stop| service.run(stop)).await
}

/// Runs the port for clients of Intel's "PSI with SGX" without a service of our own, with these
/// extras, until `stop` ends and all clients have been told.
///
/// # Errors
/// If the port fails as a whole.
pub async fn run_psi(
    port: PsiPort,
    extras: Extras,
    stop: impl Future<Output = ()>,
) -> Result<(), PsiError> {
    let (observer, instance) = (port.observer(), port.address().to_string());
    beside(observer, instance, extras, stop, |stop| async { Ok(port.run(stop).await?) }).await
}

/// Ends when everything is to stop.
type Stop<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

async fn beside<'a, Main: Future<Output = Result<(), Error>>, Error>(
    observer: Observer,
    instance: String,
    extras: Extras,
    stop: impl Future<Output = ()> + 'a,
    main: impl FnOnce(Stop<'a>) -> Main,
) -> Result<(), Error> {
    let Extras { status, psi, collector, admit } = extras;
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
    let admitting = admit.map(|list| tokio::spawn(list.keep_current()));
    let collector = collector.map(Arc::new);
    let pushing = collector.as_ref().map(|collector| {
        let pushing = Arc::clone(collector).keep_telling(observer.clone(), instance.clone());
        tokio::spawn(pushing)
    });
    let ended = main(Box::pin(stop)).await;
    if let Some(psi) = psi {
        let _ = psi.await;
    }
    pushing.into_iter().chain(status).chain(admitting).for_each(|task| task.abort());
    if let Some(collector) = collector
        && let Err(why) = collector.tell(&observer, &instance).await
    {
        tracing::warn!(%why, "the collector did not accept the last figures");
    }
    ended
}
