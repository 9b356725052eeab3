//! The log, on stderr: lines for people, or a JSON object a line for programs.

use std::fmt;
use std::time::SystemTime;

use convelo_untrusted::Terminal;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer as _;
pub(crate) use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogArg;
use crate::output::{ascii, say};

/// Logs to stderr from here on; `CONVELO_LOG` sets the level, as in `CONVELO_LOG=debug`.
pub(crate) fn start(default: LevelFilter, form: LogArg) {
    let fallback = Targets::new().with_default(default);
    let filter = match std::env::var("CONVELO_LOG").as_deref().map(str::parse) {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(error)) => {
            say(format_args!("CONVELO_LOG is invalid ({error}); logging at {default}"));
            fallback
        }
        Err(_) => fallback,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Terminal::new(std::io::stderr()))
        .with_ansi(false)
        .with_target(false);
    let lines = match form {
        LogArg::Text => lines.boxed(),
        LogArg::Json => lines.event_format(Objects).boxed(),
    };
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Says what is no event, in the form of the log.
pub(crate) fn info(form: LogArg, line: impl fmt::Display) {
    tell(form, "info", line);
}

/// The same for what takes protection away: no level silences it.
pub(crate) fn warn(form: LogArg, line: impl fmt::Display) {
    tell(form, "warn", line);
}

fn tell(form: LogArg, level: &str, line: impl fmt::Display) {
    match form {
        LogArg::Text => say(line),
        LogArg::Json => {
            let mut object = Object::new(level);
            object.set("message", line.to_string());
            say(object.line().unwrap_or_default());
        }
    }
}

/// One object a line: `time`, `level`, `message`, and the fields of the event.
struct Objects;

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Object::new(&event.metadata().level().as_str().to_ascii_lowercase());
        event.record(&mut object);
        writeln!(writer, "{}", object.line().ok_or(fmt::Error)?)
    }
}

struct Object(Map<String, Value>);

impl Object {
    fn new(level: &str) -> Self {
        let mut object = Self(Map::new());
        let now = OffsetDateTime::from(SystemTime::now()).format(&Rfc3339);
        object.set("time", now.unwrap_or_default());
        object.set("level", level);
        object
    }

    fn line(&self) -> Option<String> {
        ascii(&self.0).ok()
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Object {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}"));
    }
}
