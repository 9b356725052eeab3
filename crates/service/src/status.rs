//! What the operator's tools ask: is the service alive, does it take jobs, how many has it had.
//!
//! Plain HTTP, because load balancers and Prometheus bring no certificate, and only where an address is
//! given for it. Everything here can be seen by who watches the service's network: connections, when
//! jobs begin and end, whether a result was sent. No figure depends on what is in a set or a result.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use convelo_wire::proto::join_service_server::JoinServiceServer;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::limits::{JOB_SECONDS, STATUS_AT_ONCE, STATUS_TIMEOUT};
use crate::registry::Registry;
use crate::server::Join;

/// Counts of what has happened.
pub(crate) struct Figures {
    started: SystemTime,
    memory: u64,
    jobs_open: Gauge,
    jobs: Family<End, Counter>,
    job_seconds: Histogram,
    /// The same: what was put into a [`Histogram`] cannot be taken out again.
    took: Mutex<JobSeconds>,
    connections_open: Gauge,
    disconnected: Notify,
}

/// What a service has counted: the same as its status port shows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reading {
    /// When the service started.
    pub started: SystemTime,
    /// Bytes for the joins of all jobs together.
    pub memory: u64,
    /// Jobs that wait or run.
    pub jobs_open: i64,
    /// Jobs that ended with a result.
    pub results: u64,
    /// Jobs that ended without one.
    pub failures: u64,
    /// From a job's first party to its end.
    pub job_seconds: JobSeconds,
    /// Connections past their handshake.
    pub connections_open: i64,
}

/// How long jobs took.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct JobSeconds {
    /// How many took as long as each of [`JOB_SECONDS`], but longer than the one in front of it; the last is
    /// of those that took longer than all.
    pub counts: [u64; JOB_SECONDS.len() + 1],
    /// Seconds of all together.
    pub sum: f64,
}

/// Gives readings, also while the service runs.
#[derive(Clone)]
pub struct Readings(pub(crate) Arc<Figures>);

impl Readings {
    /// What is counted now.
    pub fn read(&self) -> Reading {
        let figures = &self.0;
        let ended = |end| figures.jobs.get_or_create(&End { end }).get();
        Reading {
            started: figures.started,
            memory: figures.memory,
            jobs_open: figures.jobs_open.get(),
            results: ended(RESULT),
            failures: ended(FAILURE),
            job_seconds: figures.took.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections_open: figures.connections_open.get(),
        }
    }
}

const RESULT: &str = "result";
const FAILURE: &str = "failure";

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    end: &'static str,
}

impl Figures {
    /// Of a service with so much memory.
    pub(crate) fn new(memory: u64) -> Arc<Self> {
        Arc::new(Self {
            started: SystemTime::now(),
            memory,
            jobs_open: Gauge::default(),
            jobs: Family::default(),
            job_seconds: Histogram::new(JOB_SECONDS),
            took: Mutex::default(),
            connections_open: Gauge::default(),
            disconnected: Notify::new(),
        })
    }

    pub(crate) fn job_opened(&self) {
        self.jobs_open.inc();
    }

    /// A job is over, after so long, with a result or without.
    pub(crate) fn job_over(&self, took: Duration, result: bool) {
        self.jobs_open.dec();
        let end = if result { RESULT } else { FAILURE };
        self.jobs.get_or_create(&End { end }).inc();
        let took = took.as_secs_f64();
        self.job_seconds.observe(took);
        let mut all = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = JOB_SECONDS.iter().take_while(|bound| took > **bound).count();
        all.counts[bucket] += 1;
        all.sum += took;
    }

    /// Counts a connection until what is returned is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.connections_open.inc();
        Connected(Arc::clone(self))
    }

    /// Ends when a connection has ended since the last call. For one that waits.
    pub(crate) async fn disconnected(&self) {
        self.disconnected.notified().await;
    }
}

/// A connection that is counted.
pub(crate) struct Connected(Arc<Figures>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections_open.dec();
        self.0.disconnected.notify_one();
    }
}

/// A port that answers.
pub(crate) struct StatusPort {
    listener: TcpListener,
    address: SocketAddr,
}

impl StatusPort {
    pub(crate) async fn bind(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped; the reporter says when the service does not serve any more.
    pub(crate) async fn serve(
        self,
        registry: Arc<Registry>,
        figures: Arc<Figures>,
        health: HealthReporter,
        health_service: Routes,
    ) -> Result<(), tonic::transport::Error> {
        health.set_serving::<JoinServiceServer<Join>>().await;
        let pages = Pages { registry, metrics: Arc::new(metrics(&figures)) };
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(exposition))
            .with_state(pages)
            .merge(health_service.into_axum_router())
            .fallback(|| async {
                (StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics\n")
            });
        tonic::transport::Server::builder()
            .accept_http1(true)
            .timeout(STATUS_TIMEOUT)
            .concurrency_limit_per_connection(STATUS_AT_ONCE)
            .add_routes(Routes::from(router))
            .serve_with_incoming(TcpListenerStream::new(self.listener))
            .await
    }
}

/// The gRPC health service, and the way to tell it what to say.
pub(crate) fn health() -> (HealthReporter, Routes) {
    let (reporter, service) = health_reporter();
    (reporter, Routes::new(service))
}

#[derive(Clone)]
struct Pages {
    registry: Arc<Registry>,
    metrics: Arc<prometheus_client::registry::Registry>,
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.registry.takes_jobs() {
        (StatusCode::OK, "takes jobs\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "takes no further jobs\n")
    }
}

async fn exposition(State(pages): State<Pages>) -> impl IntoResponse {
    let mut text = String::new();
    let status = match encode(&mut text, &pages.metrics) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (status, [(CONTENT_TYPE, kind)], text)
}

fn metrics(figures: &Figures) -> prometheus_client::registry::Registry {
    let mut metrics = prometheus_client::registry::Registry::with_prefix("convelo");
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    metrics.register("build", "The program", version);
    let started: Gauge<u64, AtomicU64> = Gauge::default();
    started.set(figures.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    metrics.register("start_time_seconds", "When the service started, Unix time", started);
    let configured: Gauge<u64, AtomicU64> = Gauge::default();
    configured.set(figures.memory);
    metrics.register("memory_bytes", "Memory for the joins of all jobs together", configured);
    metrics.register("jobs_open", "Jobs that wait or run", figures.jobs_open.clone());
    metrics.register("jobs", "Jobs that ended, by how", figures.jobs.clone());
    let help = "From a job's first party to its end";
    metrics.register("job_seconds", help, figures.job_seconds.clone());
    let connections = figures.connections_open.clone();
    metrics.register("connections_open", "Connections past their handshake", connections);
    metrics
}
