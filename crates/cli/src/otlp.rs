//! The service's figures for an OpenTelemetry collector: OTLP 1 metrics over HTTP, with JSON bodies
//! (opentelemetry.io/docs/specs/otlp). The same few figures as at `/metrics`, which need no second set of
//! instruments; the collector is told them, for services that nobody can reach to ask.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_service::limits::JOB_SECONDS;
use convelo_service::{Reading, Readings, Service, ServiceError};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use ureq::Agent;

use crate::exit::Failure;

/// A collector that does not answer within this time is not waited for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Figures are told no more often.
const SHORTEST: Duration = Duration::from_secs(1);

/// The counts do not begin anew while the service runs.
const CUMULATIVE: u8 = 2;

/// Where figures go, and how often.
pub(crate) struct Collector {
    address: String,
    agent: Agent,
    every: Duration,
}

impl Collector {
    /// `address` is the collector's, without the path.
    ///
    /// # Errors
    /// If it is not one.
    pub(crate) fn new(address: &str, every: Duration) -> Result<Self, Failure> {
        if !(address.starts_with("http://") || address.starts_with("https://")) {
            return Err(Failure::usage(format!(
                "--otlp is '{address}', required is http://HOST:PORT or https://…; a collector usually listens on \
                 port 4318"
            )));
        }
        let agent = Agent::config_builder()
            .tls_config(convelo_party::web_tls(false))
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .user_agent(concat!("convelo/", env!("CARGO_PKG_VERSION")))
            .build();
        let address = format!("{}/v1/metrics", address.trim_end_matches('/'));
        Ok(Self { address, agent: Agent::new_with_config(agent), every: every.max(SHORTEST) })
    }

    async fn tell(self: &Arc<Self>, readings: &Readings, instance: &str) -> Result<(), String> {
        let (this, body) =
            (Arc::clone(self), metrics(&readings.read(), instance, SystemTime::now()));
        let sent = tokio::task::spawn_blocking(move || {
            let request = this.agent.post(&this.address).content_type("application/json");
            request.send(body.to_string()).map(drop).map_err(|error| error.to_string())
        });
        sent.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Tells the figures again and again; the log has when the collector begins and ceases to take them.
    async fn keep_telling(self: Arc<Self>, readings: Readings, instance: String) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (collector, mut well) = (&self.address, true);
        loop {
            ticks.tick().await;
            let told = self.tell(&readings, &instance).await;
            match &told {
                Err(why) if well => {
                    tracing::warn!(%collector, %why, "the figures are not taken; trying on");
                }
                Ok(()) if !well => tracing::info!(%collector, "takes the figures again"),
                _ => {}
            }
            well = told.is_ok();
        }
    }
}

/// Runs the service, and tells the collector its figures meanwhile and once more when it has ended. A collector
/// that does not take them harms nobody.
pub(crate) async fn run(
    service: Service,
    stop: impl Future<Output = ()>,
    collector: Option<Collector>,
) -> Result<(), ServiceError> {
    let Some(collector) = collector.map(Arc::new) else { return service.run(stop).await };
    let (readings, instance) = (service.readings(), service.address().to_string());
    let telling = Arc::clone(&collector).keep_telling(readings.clone(), instance.clone());
    let telling = tokio::spawn(telling);
    let ended = service.run(stop).await;
    telling.abort();
    if let Err(why) = collector.tell(&readings, &instance).await {
        tracing::warn!(%why, "the last figures are not taken");
    }
    ended
}

/// An `ExportMetricsServiceRequest` in OTLP's JSON: 64-bit numbers are strings, enumerations numbers.
fn metrics(reading: &Reading, instance: &str, now: SystemTime) -> Value {
    let nanoseconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_string()
    };
    let (started, now) = (nanoseconds(reading.started), nanoseconds(now));
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
    let (counts, sum) = (reading.job_seconds.counts, reading.job_seconds.sum);
    let durations = json!({
        "startTimeUnixNano": started,
        "timeUnixNano": now,
        "count": counts.iter().sum::<u64>().to_string(),
        "sum": sum,
        "bucketCounts": counts.map(|count| count.to_string()),
        "explicitBounds": JOB_SECONDS,
    });
    let metrics = json!([
        gauge("convelo.memory", "By", "Memory for the joins of all jobs together", reading.memory.to_string()),
        gauge("convelo.jobs.open", "{job}", "Jobs that wait or run", reading.jobs_open.to_string()),
        gauge(
            "convelo.connections.open",
            "{connection}",
            "Connections past their handshake",
            reading.connections_open.to_string(),
        ),
        {
            "name": "convelo.jobs",
            "unit": "{job}",
            "description": "Jobs that ended, by how",
            "sum": {
                "aggregationTemporality": CUMULATIVE,
                "isMonotonic": true,
                "dataPoints": [ended("result", reading.results), ended("failure", reading.failures)],
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
