//! The service's figures for an OpenTelemetry collector: OTLP 1 metrics over HTTP, with JSON bodies
//! (opentelemetry.io/docs/specs/otlp). These are the same few figures as at `/metrics` and need no
//! second set of instruments. They are pushed, for services that nobody can reach to ask.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_service::limits::JOB_SECONDS;
use convelo_service::{Figures, Observer};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::limits::{COLLECTOR_TIMEOUT, SHORTEST_PUSH};

/// The counts do not restart while the service runs.
const CUMULATIVE: u8 = 2;

/// Where to push the figures, and how often.
pub struct Collector {
    address: String,
    agent: Agent,
    every: Duration,
}

/// An address that is not a collector's.
#[derive(Debug, thiserror::Error)]
#[error(
    "the collector's address is '{found}', expected http://HOST:PORT or https://…; a collector usually listens on \
     port 4318"
)]
pub struct CollectorError {
    found: String,
}

impl Collector {
    /// `address` is the collector's, without the path; `tls` is used if it is reached by https.
    ///
    /// # Errors
    /// If it is not such an address.
    pub fn new(address: &str, tls: TlsConfig, every: Duration) -> Result<Self, CollectorError> {
        if !(address.starts_with("http://") || address.starts_with("https://")) {
            return Err(CollectorError { found: address.to_owned() });
        }
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(COLLECTOR_TIMEOUT))
            .max_redirects(0)
            .user_agent(concat!("convelo/", env!("CARGO_PKG_VERSION")))
            .build();
        let address = format!("{}/v1/metrics", address.trim_end_matches('/'));
        Ok(Self { address, agent: Agent::new_with_config(agent), every: every.max(SHORTEST_PUSH) })
    }

    /// Pushes the figures again and again; the log says when the collector starts and stops
    /// accepting them.
    pub(crate) async fn keep_telling(self: Arc<Self>, observer: Observer, instance: String) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (collector, mut well) = (&self.address, true);
        loop {
            ticks.tick().await;
            let told = self.tell(&observer, &instance).await;
            match &told {
                Err(why) if well => {
                    tracing::warn!(%collector, %why, "the collector does not accept the figures; still trying");
                }
                Ok(()) if !well => {
                    tracing::info!(%collector, "the collector accepts the figures again");
                }
                _ => {}
            }
            well = told.is_ok();
        }
    }

    /// Pushes the figures once.
    pub(crate) async fn tell(
        self: &Arc<Self>,
        observer: &Observer,
        instance: &str,
    ) -> Result<(), String> {
        let body = metrics(&observer.figures(), instance, SystemTime::now());
        let this = Arc::clone(self);
        let sent = tokio::task::spawn_blocking(move || {
            let request = this.agent.post(&this.address).content_type("application/json");
            request.send(body.to_string()).map(drop).map_err(|error| error.to_string())
        });
        sent.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// An `ExportMetricsServiceRequest` in OTLP's JSON: 64-bit numbers are strings, enumerations numbers.
fn metrics(figures: &Figures, instance: &str, now: SystemTime) -> Value {
    let nanoseconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_string()
    };
    let (started, now) = (nanoseconds(figures.started), nanoseconds(now));
    let gauge = |name: &str, unit: &str, description: &str, value: String| {
        let points = json!([{ "timeUnixNano": now, "asInt": value }]);
        json!({ "name": name, "unit": unit, "description": description, "gauge": { "dataPoints": points } })
    };
    let ended = |end: &str, count: u64| {
        json!({
            "attributes": [attribute("end", end)],
            "startTimeUnixNano": started,
            "timeUnixNano": now,
            "asInt": count.to_string(),
        })
    };
    let (counts, sum) = (figures.job_seconds.counts, figures.job_seconds.sum);
    let durations = json!({
        "startTimeUnixNano": started,
        "timeUnixNano": now,
        "count": counts.iter().sum::<u64>().to_string(),
        "sum": sum,
        "bucketCounts": counts.map(|count| count.to_string()),
        "explicitBounds": JOB_SECONDS,
    });
    let metrics = json!([
        gauge("convelo.memory", "By", "Memory for the joins of all jobs together", figures.memory.to_string()),
        gauge("convelo.jobs.open", "{job}", "Jobs that wait or run", figures.jobs_open.to_string()),
        gauge(
            "convelo.connections.open",
            "{connection}",
            "Connections past their handshake",
            figures.connections_open.to_string(),
        ),
        {
            "name": "convelo.jobs",
            "unit": "{job}",
            "description": "Jobs that ended, by how",
            "sum": {
                "aggregationTemporality": CUMULATIVE,
                "isMonotonic": true,
                "dataPoints": [ended("result", figures.results), ended("failure", figures.failures)],
            },
        },
        {
            "name": "convelo.job.duration",
            "unit": "s",
            "description": "From a job's first party to its end",
            "histogram": { "aggregationTemporality": CUMULATIVE, "dataPoints": [durations] },
        },
    ]);
    let version = env!("CARGO_PKG_VERSION");
    let resource = json!([
        attribute("service.name", "convelo"),
        attribute("service.version", version),
        attribute("service.instance.id", instance),
    ]);
    json!({
        "resourceMetrics": [{
            "resource": { "attributes": resource },
            "scopeMetrics": [{ "scope": { "name": "convelo", "version": version }, "metrics": metrics }],
        }],
    })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}
