//! What the operator's tools ask: is the service alive, does it accept jobs, how many has it had.
//!
//! Plain HTTP, because load balancers and Prometheus bring no certificate, and only if an address
//! is given for it. It tells what is in [`Figures`]: nothing that depends on a set or a result.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use convelo_channel::{Holder, Lost, Slot, SlotLimits, Slots};
use convelo_service::limits::JOB_SECONDS;
use convelo_service::{Figures, Observer};
use convelo_wire::proto::join_service_server::SERVICE_NAME;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Connected;
use tonic::transport::{Error, Server};
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

use crate::limits::{STATUS_AT_ONCE, STATUS_CONNECTIONS, STATUS_CONNECTIONS_EACH, STATUS_TIMEOUT};

/// A port that answers.
pub struct StatusPort {
    listener: TcpListener,
    address: SocketAddr,
}

impl StatusPort {
    /// Listens on `address:port`; port 0 picks one.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address the port listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped; once `stop` has ended, it says that the service no longer
    /// serves.
    pub(crate) async fn run(
        self,
        observer: Observer,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (reporter, health) = health_reporter();
        reporter.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(observer)
            .route_service("/grpc.health.v1.Health/{call}", health)
            .fallback(|| async {
                (StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics\n")
            });
        let slots = Slots::new(SlotLimits {
            open: STATUS_CONNECTIONS,
            open_each: STATUS_CONNECTIONS_EACH,
            kept: 0,
            kept_each: 0,
        });
        let connections = TcpListenerStream::new(self.listener).map(move |accepted| {
            let tcp = accepted?;
            let (slot, lost) = slots.take([Holder::source(tcp.peer_addr()?.ip())]);
            io::Result::Ok(Connection { tcp, lost, _slot: slot })
        });
        let serving = Server::builder()
            .accept_http1(true)
            .timeout(STATUS_TIMEOUT)
            .concurrency_limit_per_connection(STATUS_AT_ONCE)
            .serve_with_incoming(router, connections);
        let stopping = async {
            stop.await;
            reporter.set_service_status(SERVICE_NAME, ServingStatus::NotServing).await;
        };
        tokio::join!(serving, stopping).0
    }
}

/// A connection that ends when others need its place: nobody must fill the port, and with it the
/// service's table of open files.
struct Connection {
    tcp: TcpStream,
    lost: Lost,
    _slot: Slot,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if Pin::new(&mut self.lost).poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

async fn ready(State(observer): State<Observer>) -> (StatusCode, &'static str) {
    if observer.takes_jobs() {
        (StatusCode::OK, "takes jobs\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "takes no further jobs\n")
    }
}

async fn metrics(State(observer): State<Observer>) -> impl axum::response::IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], exposition(&observer.figures()))
}

/// The figures as OpenMetrics 1.0 text.
fn exposition(figures: &Figures) -> String {
    let Figures { memory, jobs_open, results, failures, connections_open, .. } = figures;
    let (counts, sum) = (&figures.job_seconds.counts, figures.job_seconds.sum);
    let version = env!("CARGO_PKG_VERSION");
    let started = figures.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut buckets = String::new();
    let mut jobs = 0;
    let bounds = JOB_SECONDS.map(|bound| format!("{bound:?}")).into_iter();
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
        jobs += count;
        let _ = writeln!(buckets, "convelo_job_seconds_bucket{{le=\"{bound}\"}} {jobs}");
    }
    format!(
        "\
# HELP convelo_build The program.
# TYPE convelo_build info
convelo_build_info{{version=\"{version}\"}} 1
# HELP convelo_start_time_seconds When the service started, Unix time.
# TYPE convelo_start_time_seconds gauge
convelo_start_time_seconds {started}
# HELP convelo_memory_bytes Memory for the joins of all jobs together.
# TYPE convelo_memory_bytes gauge
convelo_memory_bytes {memory}
# HELP convelo_jobs_open Jobs that wait or run.
# TYPE convelo_jobs_open gauge
convelo_jobs_open {jobs_open}
# HELP convelo_jobs Jobs that ended, by how.
# TYPE convelo_jobs counter
convelo_jobs_total{{end=\"result\"}} {results}
convelo_jobs_total{{end=\"failure\"}} {failures}
# HELP convelo_job_seconds From a job's first party to its end.
# TYPE convelo_job_seconds histogram
convelo_job_seconds_sum {sum:?}
convelo_job_seconds_count {jobs}
{buckets}\
# HELP convelo_connections_open Connections past their handshake.
# TYPE convelo_connections_open gauge
convelo_connections_open {connections_open}
# EOF
"
    )
}
