//! Exit codes, and the one place that maps failures to them.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use convelo_attest::Refusal;
use convelo_party::table::TableError;
use convelo_party::{Error, Hint, Kind};

/// Why the program failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The job produced no result here: a party or the service failed, left or was late, or what was
    /// found out cannot be written.
    Job = 1,
    /// A flag, a file or the input is wrong; nothing was sent.
    Usage = 2,
    /// Evidence was refused, the service's or a party's.
    Attestation = 3,
    /// The job's reveal policy or a cap forbids it, or withholds the result.
    RevealPolicy = 4,
    /// Stopped by SIGINT or SIGTERM.
    Stopped = 130,
}

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done; an empty intersection is an ordinary result
  1    no result here: a party or the service failed, left or was late; or the result, or what a
       command prints, could not be written, and it says whether the job is done
  2    a flag, a file or the input is wrong
  3    evidence was refused, the service's or a party's
  4    the job's reveal policy or a cap forbids it, or withholds the result
  130  stopped by SIGINT or SIGTERM; it says whether the other parties were told, or the job is done";

/// A failure in words, and the program's exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message.to_string())
    }

    pub(crate) fn job(message: impl fmt::Display) -> Self {
        Self::new(Code::Job, message.to_string())
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            Kind::Usage => Code::Usage,
            Kind::Attestation => Code::Attestation,
            Kind::RevealPolicy => Code::RevealPolicy,
            Kind::Stopped => Code::Stopped,
            _ => Code::Job,
        };
        let text =
            error.refusal().map_or_else(|| error.to_string(), |refusal| lines(&error, refusal));
        let text = match error.hint() {
            Some(hint) if error.refusal().is_some() => format!("{text}, or {}", advice(hint)),
            Some(hint) => format!("{text}; {}", advice(hint)),
            None => text,
        };
        let text = match error.receipts_of_done_job() {
            Some(receipts) => format!("{text}; {}", done(receipts)),
            None => text,
        };
        let text = match error.kept_answer() {
            Some(kept) => format!(
                "{text}; the answer is kept in {kept}: run the same command with --resume {kept} to write \
                 the rows, which contacts nobody",
                kept = kept.display()
            ),
            None if error.receipts_of_done_job().is_some() => {
                format!("{text}; for the rows, all parties have to run the job again")
            }
            None => text,
        };
        Self::new(code, text)
    }
}

/// What became of a job whose rows could not be written here.
fn done(receipts: &[PathBuf]) -> String {
    let receipts: Vec<_> = receipts.iter().map(|path| path.display().to_string()).collect();
    let receipts = match receipts.as_slice() {
        [] => "no receipt was written".to_owned(),
        [one] => format!("the receipt is {one}"),
        several => format!("the receipts are {}", several.join(", ")),
    };
    format!("the job is done: the other parties have their results, and {receipts}")
}

/// A refusal of evidence, with each thing that it says on a line of its own.
fn lines(error: &Error, refusal: &Refusal) -> String {
    let whole = error.to_string();
    let before = whole.split(&refusal.to_string()).next().unwrap_or_default();
    format!(
        "{before}attestation refused at {} [{}]\n  found: {}\n  expected: {}\n  concerns: {}\n  to do: {}",
        refusal.stage.words(),
        refusal.code,
        refusal.found,
        refusal.expected,
        refusal.matter.words(),
        refusal.advice
    )
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Error::from(error).into()
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A hint, phrased for the command line.
fn advice(hint: Hint) -> &'static str {
    match hint {
        Hint::MoreMemory => {
            "name a directory with enough space with --temporary, or raise --memory"
        }
        Hint::TemporaryDirectory => "name a directory with enough space with --temporary",
        Hint::Collateral => {
            "fetch it with 'convelo collateral export', and pass it with --collateral FILE"
        }
        Hint::SeenLists => {
            "restore the file, or name another one with --seen-lists FILE: this party then forgets \
             which revocation lists it has seen"
        }
        Hint::Address => "give it with --service HOST:PORT",
        Hint::NoAddress => "leave out --service",
        Hint::Policy => "give one with --policy FILE, or put it in the job",
        Hint::ProviderPolicy => "give one with --provider-policy FILE, or put it in the job",
        Hint::Simulated => "for a test, accept it with --insecure-simulated",
        Hint::Unattested => "accept it with --insecure-unattested",
        Hint::ServiceKey => "'convelo serve --identity FILE' shows the key of a service",
        Hint::QuoteSource => "run in an enclave or a trust domain",
        Hint::Output => "say where they go with --output FILE",
        Hint::NoOutput => "leave out --output",
        Hint::AllowEmpty => "if that is right, go on with --allow-empty",
        Hint::Format => "with --format csv, --format lines or --format parquet",
        Hint::Delimiter => "with --delimiter ',' or another character",
        Hint::Escape => "if a backslash protects them, add --escape '\\'",
        Hint::Header => "with --header, or --no-header if it is data",
        Hint::HeaderLine => {
            "with --no-header if it is an id; if it is a name, remove the line, or use 'convelo run' with \
             --format csv and --key COLUMN"
        }
        Hint::Meet => {
            "listen with --listen HOST:PORT, or say where the other party listens with --peer NAME=HOST:PORT; \
             one of the two must listen"
        }
        Hint::Listen => "give an address of this machine with --listen HOST:PORT",
        Hint::PeerAddress => "correct it with --peer NAME=HOST:PORT, or in the job",
        Hint::NoService => "leave out --service and --policy",
        Hint::NoMeeting => "leave out --listen and --peer",
        Hint::KeyColumns => "name the column of each part with --key COLUMN, in the job's order",
    }
}
