//! `sgx_default_qcnl.conf`, where machines with Intel's quote provider say where to get collateral.
//!
//! Two syntaxes are in use: `NAME=value` lines with `#` comments, and JSON with `//` comments.

use std::fmt;

use convelo_untrusted::shown;
use serde_json::Value;

use crate::text::{json_message, position};

/// What precedes the version in the address of every route.
const ROUTE: &str = "/sgx/certification/";

/// Longest file we read, in bytes.
const MAXIMUM_BYTES: usize = 64 * 1024;

/// Most endpoints, retries and seconds of delay that a file may ask for.
const MOST_RETRIES: u64 = 100;
const LONGEST_DELAY_SECONDS: u64 = 600;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcnl {
    /// Where to get collateral: the base of version 4 of the interface, without a trailing slash.
    pub url: String,
    /// Whether the endpoint's TLS certificate is verified.
    pub use_secure_cert: bool,
    /// How often to retry a request.
    pub retry_times: u64,
    /// Seconds between two attempts.
    pub retry_delay: u64,
    /// What is odd or has no effect here, one line each, for people.
    pub warnings: Vec<String>,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QcnlError {
    /// 1-based line.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for QcnlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, message } = self;
        write!(f, "line {line}, column {column}: {message}")
    }
}

impl std::error::Error for QcnlError {}

impl Qcnl {
    /// Reads either syntax.
    pub fn parse(text: &str) -> Result<Self, QcnlError> {
        if text.len() > MAXIMUM_BYTES {
            let message = format!("{} bytes, expected at most {MAXIMUM_BYTES}", text.len());
            return Err(QcnlError { line: 1, column: 1, message });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let without_comments = blanked(text);
        if without_comments.trim_start().starts_with('{') {
            json(&without_comments)
        } else {
            lines(text)
        }
    }
}

/// The base of the interface, below which the routes are: takes what people write, checks it and
/// completes it. The second part is a warning if it was rewritten.
pub fn collateral_endpoint(url: &str) -> Result<(String, Option<String>), String> {
    let url = url.trim().trim_end_matches('/');
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or_else(|| format!("'{url}' does not begin with https:// or http://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    let odd = |character: char| character.is_control() || character == ' ' || character == '@';
    if host.is_empty() || url.contains(odd) || url.contains(['?', '#']) {
        return Err(format!("'{url}' is not the address of a collateral service"));
    }
    match url.split_once(ROUTE) {
        Some((base, "v4")) => Ok((format!("{base}{ROUTE}v4"), None)),
        Some((base, "v3")) => {
            let warning =
                format!("version 3 of the interface has been retired: using {base}{ROUTE}v4");
            Ok((format!("{base}{ROUTE}v4"), Some(warning)))
        }
        Some((_, version)) => {
            Err(format!("unknown version '{version}' of the interface, expected v4"))
        }
        None if url.len() == url.len() - rest.len() + host.len() => {
            Ok((format!("{url}{ROUTE}v4"), None))
        }
        None => Err(format!("'{url}' has another path, expected {ROUTE}v4")),
    }
}

#[derive(Default)]
struct Settings {
    url: Option<String>,
    collateral_service: Option<String>,
    use_secure_cert: Option<bool>,
    retry_times: Option<u64>,
    retry_delay: Option<u64>,
    /// The names of settings that nobody knows.
    unknown: Vec<String>,
    warnings: Vec<String>,
}

impl Settings {
    /// Applies one setting, given its name in lower case.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number =
            |most: u64| {
                value.parse::<u64>().ok().filter(|number| *number <= most).ok_or_else(|| {
                    format!("{name} is '{value}', expected a number from 0 to {most}")
                })
            };
        match name {
            "pccs_url" => self.url = Some(value.to_owned()),
            "collateral_service" => self.collateral_service = Some(value.to_owned()),
            "use_secure_cert" => {
                self.use_secure_cert = Some(match value.to_ascii_lowercase().as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(format!("{name} is '{value}', expected true or false")),
                });
            }
            "retry_times" => self.retry_times = Some(number(MOST_RETRIES)?),
            "retry_delay" => self.retry_delay = Some(number(LONGEST_DELAY_SECONDS)?),
            "pccs_api_version" if ["3.0", "3.1", "4.0"].contains(&value) => {}
            "pccs_api_version" => return Err(format!("{name} is '{value}', expected 3.1 or 4.0")),
            "local_pck_url"
            | "pck_cache_expire_hours"
            | "verify_collateral_cache_expire_hours"
            | "local_cache_only"
            | "custom_request_options" => {
                self.warnings.push(format!("{name} has no effect here"));
            }
            other => {
                self.unknown.push(shown(other));
                self.warnings.push(format!("{} is unknown and has no effect", shown(other)));
            }
        }
        Ok(())
    }

    fn finished(mut self) -> Result<Qcnl, String> {
        let url = self.collateral_service.or(self.url).filter(|url| !url.is_empty()).ok_or_else(
            || match &*self.unknown {
                [] => "it names no pccs_url".to_owned(),
                unknown => format!("it names no pccs_url; unknown here: {}", unknown.join(", ")),
            },
        )?;
        let (url, rewritten) = collateral_endpoint(&url)?;
        self.warnings.extend(rewritten);
        let use_secure_cert = self.use_secure_cert.unwrap_or(true);
        if !use_secure_cert {
            self.warnings.push(
                "use_secure_cert is false: anyone in the middle can hold back newer collateral, \
                 but cannot forge any"
                    .to_owned(),
            );
        }
        Ok(Qcnl {
            url,
            use_secure_cert,
            retry_times: self.retry_times.unwrap_or(3),
            retry_delay: self.retry_delay.unwrap_or(1),
            warnings: self.warnings,
        })
    }
}

fn lines(text: &str) -> Result<Qcnl, QcnlError> {
    let mut settings = Settings::default();
    for (index, line) in text.lines().enumerate() {
        let wrong = |column: usize, message: String| QcnlError {
            line: index + 1,
            column: line.get(..column).map_or(1, |before| before.chars().count() + 1),
            message,
        };
        let code = line.split('#').next().unwrap_or_default();
        if code.trim().is_empty() {
            continue;
        }
        let Some((name, value)) = code.split_once('=') else {
            let at = code.len() - code.trim_start().len();
            return Err(wrong(at, format!("'{}' is not NAME=value", code.trim())));
        };
        let setting = name.trim().to_ascii_lowercase();
        let at = name.len() + 1;
        settings.set(&setting, value.trim()).map_err(|message| wrong(at, message))?;
    }
    settings.finished().map_err(|message| QcnlError { line: 1, column: 1, message })
}

fn json(text: &str) -> Result<Qcnl, QcnlError> {
    let wrong = |message| QcnlError { line: 1, column: 1, message };
    let value: Value = serde_json::from_str(text).map_err(|error| QcnlError {
        line: error.line().max(1),
        column: error.column().max(1),
        message: json_message(&error),
    })?;
    let fields = value.as_object().ok_or_else(|| wrong("expected an object".to_owned()))?;
    let mut settings = Settings::default();
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => String::new(),
        };
        settings.set(&name.to_ascii_lowercase(), &value).map_err(|message| {
            let at = text.find(&format!("\"{name}\"")).unwrap_or(0);
            let (line, column) = position(text, at);
            QcnlError { line, column, message }
        })?;
    }
    settings.finished().map_err(wrong)
}

/// The text with every `//` comment outside strings blanked out, so that positions stay the same.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if quoted {
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character == '"' {
            quoted = true;
        } else if character == '/' && characters.peek() == Some(&'/') {
            out.push(' ');
            while let Some(comment) = characters.next_if(|next| *next != '\n') {
                out.push(if comment == '\r' { '\r' } else { ' ' });
            }
            continue;
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://pccs.example.org:8081/sgx/certification/v4";

    #[test]
    fn both_syntaxes() {
        let old = "# PCCS\nPCCS_URL = https://pccs.example.org:8081/sgx/certification/v4/\n\
                   USE_SECURE_CERT=TRUE\nRETRY_TIMES=6 # often\nRETRY_DELAY=10\n";
        let new = "{\n // where\n \"pccs_url\": \"https://pccs.example.org:8081/sgx/certification/v4/\", \
                   // a URL has // in it\n \"use_secure_cert\": true, \"retry_times\": 6,\n \
                   \"retry_delay\": 10 }";
        let read = Qcnl::parse(old).unwrap();
        assert_eq!(read, Qcnl::parse(new).unwrap());
        let Qcnl { url, retry_times, retry_delay, use_secure_cert, warnings } = read;
        assert_eq!((url.as_str(), retry_times, retry_delay, use_secure_cert), (URL, 6, 10, true));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_is_warned_about() {
        let text = "PCCS_URL=https://pccs.example.org:8081/sgx/certification/v3/\n\
                    USE_SECURE_CERT=FALSE\nLOCAL_CACHE_ONLY=true\nTYPO=1\n";
        let read = Qcnl::parse(text).unwrap();
        assert_eq!(read.url, URL);
        assert!(!read.use_secure_cert);
        let all = read.warnings.join("\n");
        for word in ["version 3", "use_secure_cert is false", "local_cache_only", "typo"] {
            assert!(all.contains(word), "{word}: {all}");
        }
    }

    #[test]
    fn a_setting_that_nobody_knows_is_named() {
        for (text, name) in [
            ("PCSC_URL=https://x\n", "pcsc_url"),
            ("export PCCS_URL=https://x\n", "export pccs_url"),
            ("{\"pccs-url\": \"https://x\"}", "pccs-url"),
        ] {
            let message = Qcnl::parse(text).unwrap_err().message;
            assert!(message.ends_with(&format!("unknown here: {name}")), "{message}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_setting() {
        for text in [
            "PCCS_URL=https://pccs.example.org:8081",
            "{\"pccs_url\": \"https://pccs.example.org:8081\"}",
        ] {
            assert_eq!(Qcnl::parse(&format!("\u{feff}{text}")).unwrap().url, URL);
        }
    }

    #[test]
    fn errors_say_where() {
        let at = |text: &str| {
            let error = Qcnl::parse(text).unwrap_err();
            (error.line, error.column, error.message)
        };
        // Intel's parser says 0xe019 to this.
        let (line, _, message) = at("{\n  \"pccs_url\": \"https://x\"\n  \"retry_times\": 6\n}");
        assert_eq!(line, 3, "{message}");
        assert_eq!(at("PCCS_URL=https://x\nUSE_SECURE_CERT=maybe\n").0, 2);
        assert_eq!(
            at("PCCS_URL=https://x\n  nonsense\n"),
            (2, 3, "'nonsense' is not NAME=value".to_owned())
        );
        let (line, column, _) = at("{\"pccs_url\": \"https://x\",\n \"retry_times\": \"many\"}");
        assert_eq!((line, column), (2, 2));
        assert!(at("").2.contains("pccs_url"));
        assert!(at("{}").2.contains("pccs_url"));
        assert!(at("[]").2.contains("NAME=value"));
        assert!(at(&"#".repeat(MAXIMUM_BYTES + 1)).2.contains("bytes"));
    }

    #[test]
    fn endpoints() {
        let base = |url: &str| collateral_endpoint(url).map(|(base, _)| base);
        assert_eq!(base("https://pccs.example.org:8081").as_deref(), Ok(URL));
        assert_eq!(base("https://pccs.example.org:8081/sgx/certification/v4/").as_deref(), Ok(URL));
        for bad in [
            "pccs.example.org",
            "ftp://x",
            "https://",
            "https://x/other",
            "https://x/sgx/certification/v5",
            "https://user@x/sgx/certification/v4",
            "https://x/sgx/certification/v4?a=b",
            "https://x /",
        ] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
