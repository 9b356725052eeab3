//! The program that is measured, but for its first lines, which say where evidence comes from.

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use convelo_attest::{QuoteError, QuoteSource};
use convelo_channel::{Identity, IdentityError, ListenerError};
use convelo_untrusted::{Terminal, shown};
use tokio::task::JoinHandle;

use crate::limits::{DEFAULT_ALL_MEMORY, DEFAULT_WORKERS, MAXIMUM_WORKERS, RECONNECT_WITHIN};
use crate::memory::Shares;
use crate::ready::ReadyPort;
use crate::threads::{self, TooFew};
use crate::{CollateralFile, CollateralSource, Config, Observer, Service, ServiceError};

const USAGE: &str = "\
usage: convelo-service ADDRESS:PORT [--memory SIZE] [--workers N] [--ready ADDRESS:PORT]
                       [--offer-collateral FILE] [--insecure-simulated]

ADDRESS:PORT               where parties connect; 0.0.0.0:7443 by convention
--memory SIZE              all memory that the program may take, in bytes or with K, M or G (powers of
                           1024), from 100M on with the default workers; default 1G
--workers N                threads for connections, and as many for joins; 1 to 64, default 4
--ready ADDRESS:PORT       answers GET /ready in plain HTTP: 200 if the service takes jobs, otherwise 503;
                           0.0.0.0:7480 by convention; not answered unless given
--offer-collateral FILE    the collateral of this platform, for parties that have none
--insecure-simulated       accepts providers on a simulated platform, whose evidence proves nothing
--help, --version          print this, or the version

The program reads no configuration and no environment. SIGTERM ends it: the parties are told, and it
exits with 0. It exits with 1 if it cannot start or fails, and with 2 if these arguments are wrong.";

/// Runs the program with these arguments, which do not include its name, on evidence from this source,
/// until it is told to stop.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    source: impl FnOnce() -> Arc<dyn QuoteSource>,
) -> ExitCode {
    let arguments = match Arguments::read(arguments) {
        Ok(Asked::Serve(arguments)) => arguments,
        Ok(Asked::Help) => return print(USAGE),
        Ok(Asked::Version) => {
            return print(concat!("convelo-service ", env!("CARGO_PKG_VERSION")));
        }
        Err(wrong) => {
            // Of one line: it has the caller's words in it.
            let wrong = cut(&shown(&wrong.to_string()));
            let _ =
                writeln!(Terminal::new(std::io::stderr()), "convelo-service: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    convelo_heap::one_arena();
    // In an enclave, the host sees no memory anyway, and Gramine may not know the call.
    let _ = convelo_heap::no_core_dumps();
    tracing_subscriber::fmt()
        .with_writer(|| Terminal::new(std::io::stderr()))
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    match start_and_serve(arguments, source()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the service ends");
            ExitCode::FAILURE
        }
    }
}

fn start_and_serve(arguments: Arguments, source: Arc<dyn QuoteSource>) -> Result<(), Failure> {
    let threads = threads::needed(arguments.workers);
    let shares = arguments.shares;
    tracing::info!("memory: {shares}");
    tracing::info!(
        "threads: {threads} (in an enclave, sgx.max_threads is at least {})",
        threads + threads::OF_GRAMINE
    );
    let runtime = threads::start(arguments.workers)?;
    let (heap, sets) = (usize::try_from(shares.heap()), usize::try_from(shares.sets()));
    let claimed = heap.ok().zip(sets.ok()).map(|(heap, sets)| convelo_heap::claim(heap, sets));
    if !matches!(claimed, Some(Ok(()))) {
        return Err(Failure::Memory { bytes: arguments.memory });
    }
    let ended = runtime.block_on(serve(arguments, source));
    // A device that hangs must not keep the program.
    runtime.shutdown_background();
    ended
}

async fn serve(arguments: Arguments, source: Arc<dyn QuoteSource>) -> Result<(), Failure> {
    let mut stop = Stop::new().map_err(Failure::Signals)?;
    let observer = Arc::new(OnceLock::new());
    let answering = match &arguments.ready {
        Some(address) => Some(answer(address, Arc::clone(&observer)).await?),
        None => None,
    };
    if arguments.insecure_simulated {
        tracing::warn!("SIMULATED: providers may come whose evidence proves nothing");
    }
    let offer = |path| Arc::new(CollateralFile::new(path)) as Arc<dyn CollateralSource>;
    let config = Config {
        listen: arguments.listen,
        identity: Identity::generate(),
        source,
        collateral: None,
        offer: arguments.offer.map(offer),
        provider_policy: None,
        admit: None,
        behind_balancer: false,
        insecure_simulated: arguments.insecure_simulated,
        memory: arguments.shares.sets(),
        limits: arguments.shares.limits(),
        reconnect_within: RECONNECT_WITHIN,
        insecure_ratls_only: false,
    };
    let service = tokio::select! {
        service = Service::bind(config) => service?,
        () = stop.requested() => {
            tracing::info!("stopped before it listened");
            return Ok(());
        }
    };
    let _ = observer.set(service.observer());
    tracing::info!(address = %service.address(), "listening");
    let ended = service.run(stop.requested()).await;
    if let Some(answering) = answering {
        answering.abort();
    }
    Ok(ended?)
}

/// Answers on the readiness port from now on.
async fn answer(
    address: &str,
    service: Arc<OnceLock<Observer>>,
) -> Result<JoinHandle<()>, Failure> {
    let failed = |source| Failure::Ready { address: address.to_owned(), source };
    let port = ReadyPort::bind(address).await.map_err(failed)?;
    tracing::info!(address = %port.address().map_err(failed)?, "readiness, in plain HTTP: GET /ready");
    Ok(tokio::spawn(port.run(service)))
}

/// Why the program ends with 1.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Threads(#[from] TooFew),
    #[error(
        "the system does not let the service have its {} of memory: give it more (in an enclave, a larger \
         sgx.enclave_size), or lower --memory",
        crate::memory::size(*bytes)
    )]
    Memory { bytes: u64 },
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    #[error("cannot listen on {address} for --ready: {source}")]
    Ready { address: String, source: std::io::Error },
    #[error("{source}{}", advice(source))]
    Service {
        #[from]
        source: ServiceError,
    },
}

/// What to do where there is no device; its own words name only one of the two kinds.
fn advice(error: &ServiceError) -> &'static str {
    match error {
        ServiceError::Listener(ListenerError::Identity(IdentityError::Quote(
            QuoteError::Device { .. },
        ))) => {
            "; this program runs in an SGX enclave, under gramine-sgx, or in a TDX guest, whose system has \
             /sys/kernel/config/tsm/report; to try it elsewhere, take 'convelo serve --simulated'"
        }
        _ => "",
    }
}

struct Arguments {
    listen: String,
    memory: u64,
    shares: Shares,
    workers: usize,
    ready: Option<String>,
    offer: Option<PathBuf>,
    insecure_simulated: bool,
}

/// How many characters are said of what is wrong with the arguments.
const LONGEST_COMPLAINT: usize = 400;

/// The arguments that have a value.
const OF_A_VALUE: [&str; 4] = ["--memory", "--workers", "--ready", "--offer-collateral"];

enum Asked {
    Serve(Arguments),
    Help,
    Version,
}

/// What is wrong with the arguments.
#[derive(Debug, PartialEq, Eq)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Arguments {
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, Wrong> {
        let (mut memory, mut workers) = (DEFAULT_ALL_MEMORY, DEFAULT_WORKERS);
        let (mut listen, mut ready, mut offer) = (None, None, None);
        let mut insecure_simulated = false;
        let mut seen: Vec<String> = Vec::new();
        let text = |argument: OsString| {
            let not_text = |argument: OsString| {
                Wrong(format!("'{}' is not text (UTF-8)", argument.to_string_lossy()))
            };
            argument.into_string().map_err(not_text)
        };
        let arguments = arguments.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let mut arguments = arguments.into_iter().flat_map(|argument| {
            // `--memory=3G` is `--memory 3G`.
            match argument.split_once('=') {
                Some((flag, value)) if OF_A_VALUE.contains(&flag) => {
                    vec![flag.to_owned(), value.to_owned()]
                }
                _ => vec![argument],
            }
        });
        while let Some(argument) = arguments.next() {
            if seen.contains(&argument) {
                return Err(Wrong(format!("{argument} is given twice")));
            }
            let mut value = || {
                let missing = || Wrong(format!("{argument}: its value is missing"));
                arguments.next().filter(|value| !value.starts_with("--")).ok_or_else(missing)
            };
            match argument.as_str() {
                "--help" | "-h" => return Ok(Asked::Help),
                "--version" | "-V" => return Ok(Asked::Version),
                "--memory" => memory = size(&value()?)?,
                "--workers" => workers = count(&value()?)?,
                "--ready" => ready = Some(address("--ready", value()?)?),
                "--offer-collateral" => offer = Some(value()?.into()),
                "--insecure-simulated" => insecure_simulated = true,
                flag if flag.starts_with('-') => {
                    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
                    return Err(Wrong(match name {
                        "--insecure-simulated" | "--help" | "--version" => {
                            format!("{flag}: {name} has no value")
                        }
                        _ => format!("{name} is not an argument of this program"),
                    }));
                }
                more => match &listen {
                    None => listen = Some(address("ADDRESS:PORT", argument.clone())?),
                    Some(listen) => {
                        return Err(Wrong(format!(
                            "'{more}': there is one address only, {listen}; memory is given with --memory"
                        )));
                    }
                },
            }
            seen.push(argument);
        }
        let missing = || Wrong("ADDRESS:PORT is missing: where parties connect".to_owned());
        let listen = listen.ok_or_else(missing)?;
        if ready.as_ref() == Some(&listen) && !listen.ends_with(":0") {
            return Err(Wrong(format!("--ready: {listen} is where parties connect")));
        }
        let shares = Shares::of(memory, threads::needed(workers));
        let shares = shares.map_err(|too_little| Wrong(format!("--memory: {too_little}")))?;
        Ok(Asked::Serve(Self { listen, memory, shares, workers, ready, offer, insecure_simulated }))
    }
}

/// A number of bytes, which may end in K, M or G.
fn size(text: &str) -> Result<u64, Wrong> {
    let shift = match text.as_bytes().last() {
        Some(b'K' | b'k') => 10,
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    let bytes = number(digits).and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Wrong(format!("--memory: '{text}' is not a number of bytes such as 512M or 4G"))
    })
}

fn count(text: &str) -> Result<usize, Wrong> {
    let workers = number(text).and_then(|number| usize::try_from(number).ok());
    workers.filter(|workers| (1..=MAXIMUM_WORKERS).contains(workers)).ok_or_else(|| {
        Wrong(format!("--workers: '{text}' is not a number from 1 to {MAXIMUM_WORKERS}"))
    })
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An address that needs no names to be looked up: inside an enclave, the host would answer.
fn address(what: &str, text: String) -> Result<String, Wrong> {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Ok(text);
    }
    Err(Wrong(format!(
        "{what}: '{text}' is not an address and a port such as 0.0.0.0:7443 or [::]:7443"
    )))
}

/// The beginning of a text that is too long to be read.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_COMPLAINT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Returns when one has come.
    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<Arguments, String> {
        let arguments = arguments.split_whitespace().map(OsString::from);
        match Arguments::read(arguments) {
            Ok(Asked::Serve(arguments)) => Ok(arguments),
            Ok(_) => Err("not to serve".to_owned()),
            Err(Wrong(wrong)) => Err(wrong),
        }
    }

    #[test]
    fn defaults() {
        let arguments = read("0.0.0.0:7443").expect("enough");
        assert_eq!((arguments.memory, arguments.workers), (1 << 30, 4));
        assert!(arguments.ready.is_none() && arguments.offer.is_none());
        assert!(!arguments.insecure_simulated);
        for (said, default) in [("default 1G", "1G"), ("default 4", "4")] {
            assert!(USAGE.contains(said), "{default}");
        }
    }

    #[test]
    fn all_of_them_in_any_order() {
        let arguments = read(
            "--insecure-simulated --workers=64 --ready [::]:7480 --memory=3G [::1]:7443 \
             --offer-collateral a/b",
        );
        let arguments = arguments.expect("all are known");
        assert_eq!((arguments.memory, arguments.workers), (3 << 30, 64));
        assert_eq!(arguments.listen, "[::1]:7443");
        assert_eq!(arguments.ready.as_deref(), Some("[::]:7480"));
        assert_eq!(arguments.offer, Some(PathBuf::from("a/b")));
        assert!(arguments.insecure_simulated);
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1", 1), ("7k", 7 << 10), ("512M", 512 << 20), ("4G", 4 << 30), ("4g", 4 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "0", "0G", "G", "-1", "+1", "1.5G", "4GiB", "4 G", "99999999999999999999", "é"]
        {
            let Wrong(wrong) = size(text).unwrap_err();
            assert!(wrong.contains(&format!("'{text}' is not a number of bytes")), "{wrong}");
        }
        assert!(size(&format!("{}G", u64::MAX >> 29)).is_err());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (arguments, said) in [
            ("", "ADDRESS:PORT is missing"),
            ("--memory 1G", "ADDRESS:PORT is missing"),
            ("7443", "ADDRESS:PORT: '7443' is not an address and a port"),
            ("localhost:7443", "ADDRESS:PORT: 'localhost:7443' is not an address"),
            ("0.0.0.0:7443 1000000", "'1000000': there is one address only, 0.0.0.0:7443"),
            ("0.0.0.0:7443 --memory", "--memory: its value is missing"),
            ("0.0.0.0:7443 --memory 0", "--memory: '0' is not a number of bytes"),
            (
                "0.0.0.0:7443 --offer-collateral --workers 4",
                "--offer-collateral: its value is missing",
            ),
            ("0.0.0.0:7443 --memory=", "--memory: '' is not a number of bytes"),
            ("0.0.0.0:7443 --simulated=yes", "--simulated is not an argument"),
            ("0.0.0.0:7443 --workers 0", "--workers: '0' is not a number from 1 to 64"),
            ("0.0.0.0:7443 --workers 65", "--workers: '65' is not"),
            ("0.0.0.0:7443 --workers four", "--workers: 'four' is not"),
            ("0.0.0.0:7443 --ready 7480", "--ready: '7480' is not an address"),
            ("0.0.0.0:7443 --memory 1G --memory 2G", "--memory is given twice"),
            ("0.0.0.0:7443 --collateral file", "--collateral is not an argument"),
            (
                "--insecure-simulated=0.0.0.0:1",
                "--insecure-simulated=0.0.0.0:1: --insecure-simulated has",
            ),
            ("0.0.0.0:7443 --version=1", "--version=1: --version has no value"),
            ("0.0.0.0:7443 --ready 0.0.0.0:7443", "--ready: 0.0.0.0:7443 is where parties connect"),
            ("0.0.0.0:7443 --memory 99M", "--memory: it is too little"),
            ("0.0.0.0:7443 --memory 100M --workers 8", "--memory: it is too little"),
        ] {
            let Err(wrong) = read(arguments) else { panic!("{arguments}") };
            assert!(wrong.starts_with(said), "{arguments}: {wrong}");
        }
    }

    #[test]
    fn questions_come_first() {
        let asked = |arguments: &str| {
            Arguments::read(arguments.split_whitespace().map(OsString::from))
                .map_err(|Wrong(wrong)| wrong)
        };
        assert!(matches!(asked("--help"), Ok(Asked::Help)));
        assert!(matches!(asked("0.0.0.0:7443 --version"), Ok(Asked::Version)));
        for flag in
            ["--memory", "--workers", "--ready", "--offer-collateral", "--insecure-simulated"]
        {
            assert!(USAGE.contains(&format!("\n{flag} ")), "{flag}");
        }
    }
}
