//! Everything that is printed: data on stdout, everything else on stderr.

use std::cmp::Ordering;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::CommandFactory as _;
use convelo_party::table::Output;
use convelo_party::{Counted, Counts, Event, Matched, Observer, Summary};
use convelo_psi::Outcome;
use convelo_untrusted::Terminal;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::ser::Formatter;
use tracing_subscriber::Layer as _;
pub(crate) use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Cli, Voice};
use crate::exit::Failure;

/// Writes one line of data to stdout. A closed stdout is not a failure: the reader has seen enough.
pub(crate) fn data(line: impl Display) {
    let _ = writeln!(Terminal::new(std::io::stdout().lock()), "{line}");
}

/// Writes one line of JSON to stdout, immediately: a program may be waiting for it. In ASCII, which
/// changes nothing for a program and shows everything to a person.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Ascii);
    value.serialize(&mut serializer).map_err(Failure::job)?;
    let line = String::from_utf8(line).map_err(Failure::job)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::job(format!("cannot write to standard output: {error}")))
}

/// JSON whose strings are ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if matches!(character, ' '..='~') {
                writer.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// Standard output as the place for rows. It is locked only for each write, so others can print in between.
pub(crate) fn rows() -> Output<'static> {
    Output::Writer(Box::new(std::io::stdout()))
}

/// Writes one line for people to stderr. A closed stderr is not a failure.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(Terminal::new(std::io::stderr().lock()), "{line}");
}

/// Writes why the program failed.
pub(crate) fn error(failure: &Failure) {
    say(format_args!("error: {failure}"));
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "convelo", &mut std::io::stdout());
}

/// Logs to stderr; `CONVELO_LOG` sets the level, as in `CONVELO_LOG=debug`.
pub(crate) fn start_logging(default: LevelFilter) {
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
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Shows a run on stderr: a line for each step and, on a terminal, a bar for slow ones.
pub(crate) struct Narrator {
    voice: Voice,
    me: String,
    bars: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<(Stage, ProgressBar)>,
    absent: bool,
    lost: bool,
    waiting: Vec<String>,
    /// How many lines there were about the progress of others.
    progress: usize,
}

/// The most lines about the progress of others, which the service tells: 64 parties arrive and upload,
/// each line comes once, and a connection may break now and then.
const MAXIMUM_PROGRESS_LINES: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    Sending,
    Joining,
    Writing,
}

impl Narrator {
    pub(crate) fn new(voice: Voice, me: &str) -> Self {
        let bars = !voice.quiet && std::io::stderr().is_terminal();
        Self { voice, me: me.to_owned(), bars, state: Mutex::default() }
    }

    /// Prints one line, unless everything is to be quiet; above the bar, if there is one.
    pub(crate) fn line(&self, line: impl Display) {
        if !self.voice.quiet {
            self.notice(line);
        }
    }

    /// Prints one line in any case.
    pub(crate) fn notice(&self, line: impl Display) {
        match &self.state().bar {
            Some((_, bar)) => bar.suspend(|| say(&line)),
            None => say(line),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, stage: Stage, done: u64, total: u64) {
        if !self.bars {
            return;
        }
        let mut state = self.state();
        if state.bar.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, old)) = state.bar.take() {
                old.finish_and_clear();
            }
            let target = ProgressDrawTarget::stderr_with_hz(5);
            let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style(stage));
            if stage == Stage::Joining {
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            state.bar = Some((stage, bar));
        }
        if let Some((_, bar)) = &state.bar {
            bar.set_position(done);
        }
    }

    fn clear_bar(&self) {
        if let Some((_, bar)) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn absent(&self, why: &str, give_up_in: Duration) {
        if std::mem::replace(&mut self.state().absent, true) {
            return;
        }
        self.line(format_args!(
            "the service does not answer yet ({why}); still trying for {}",
            duration(give_up_in)
        ));
    }

    fn lost(&self, why: &str, give_up_in: Duration) {
        if std::mem::replace(&mut self.state().lost, true) {
            return;
        }
        self.line(format_args!(
            "the connection to the service broke ({why}); trying to reconnect for up to {}",
            duration(give_up_in)
        ));
    }

    fn waiting(&self, waiting: &convelo_party::Waiting) {
        let whom = if waiting.missing.is_empty() {
            let others = waiting.missing_count;
            format!("{others} more {}", if others == 1 { "party" } else { "parties" })
        } else {
            waiting.missing.join(", ")
        };
        {
            let mut state = self.state();
            if state.waiting == [whom.clone()] {
                return;
            }
            state.waiting = vec![whom.clone()];
        }
        let left = duration(Duration::from_secs(waiting.seconds_left));
        self.others(format_args!("waiting for {whom}; {left} left"));
    }

    /// Prints a line about the progress of others, of which there are only so many.
    fn others(&self, line: impl Display) {
        let lines = {
            let mut state = self.state();
            state.progress = state.progress.saturating_add(1);
            state.progress
        };
        match lines.cmp(&MAXIMUM_PROGRESS_LINES) {
            Ordering::Less => self.line(line),
            Ordering::Equal => {
                self.line("the service tells more about the others than is shown here");
            }
            Ordering::Greater => {}
        }
    }

    fn read(&self, counts: Counts) {
        self.clear_bar();
        self.line(read(counts));
    }
}

/// What a pass over a table found, in words.
pub(crate) fn read(counts: Counts) -> String {
    let mut parts = vec![format!("{} distinct keys", HumanCount(counts.keys))];
    for (count, what) in [
        (counts.duplicates, "rows with a key seen before"),
        (counts.blank, "rows without a key, dropped"),
        (counts.invalid, "rows whose key cannot be normalised, dropped"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", HumanCount(count)));
        }
    }
    format!("read {} rows: {}", HumanCount(counts.rows), parts.join("; "))
}

impl Observer for Narrator {
    fn on(&self, event: Event<'_>) {
        match event {
            Event::Connecting { address } => self.line(format_args!("connecting to {address}")),
            Event::ServiceAbsent { why, give_up_in, .. } => self.absent(&why, give_up_in),
            Event::ConnectionLost { why, give_up_in, .. } => self.lost(&why, give_up_in),
            Event::Reconnected => {
                self.state().lost = false;
                self.line("reconnected; the job continues where it was");
            }
            Event::EvidenceVerified(verdict) => {
                self.line(format_args!("evidence verified: {verdict}"));
            }
            Event::KeyRecognised => self
                .line("the service has the pinned key; NOT ATTESTED: nobody knows what runs there"),
            Event::Waiting(waiting) => self.waiting(waiting),
            Event::Assembled { names, pinned } => {
                let vouched = if pinned {
                    ""
                } else {
                    "; no keys are pinned: only the service identifies them"
                };
                self.line(format_args!(
                    "all {} parties are here: {}{vouched}",
                    names.len(),
                    names.join(", ")
                ));
            }
            Event::ProviderVerified { name, verdict } => {
                self.line(format_args!("evidence of {name} verified: {}", verdict.brief()));
            }
            Event::KeyAgreed => {
                self.line("the parties have agreed on a job key, which the service does not know");
            }
            Event::Reading { done, total } => self.progress(Stage::Reading, done, total),
            Event::Read(counts) => self.read(counts),
            Event::Announced => self.line("waiting until all parties have read their tables"),
            Event::Sending { done, total } => {
                self.progress(Stage::Sending, done, total);
                if done == total {
                    self.clear_bar();
                    self.line(format_args!("sent {} pseudonyms", HumanCount(total)));
                }
            }
            Event::Uploads { complete, missing }
                if !missing.is_empty() && complete.contains(&self.me) =>
            {
                self.others(format_args!("waiting for the set of {}", missing.join(", ")));
            }
            Event::JoinRunning => {
                self.others("the service has all sets and is joining them");
                self.progress(Stage::Joining, 0, 0);
            }
            Event::Result => self.clear_bar(),
            Event::Writing { done, total } => {
                self.progress(Stage::Writing, done, total);
                if done == total {
                    self.clear_bar();
                }
            }
            _ => {}
        }
    }
}

/// The end of a run, in lines.
pub(crate) fn conclusion(summary: &Summary) -> Vec<String> {
    let mut lines = vec![match summary.result {
        Outcome::Intersection(Matched { keys, .. }) => format!(
            "result: {} of your {} keys are in every table",
            HumanCount(keys),
            HumanCount(summary.input.keys)
        ),
        Outcome::Count(Counted { keys }) => {
            format!("result: {} keys are in every table", HumanCount(keys))
        }
        Outcome::Withheld => "result withheld: it is smaller than the job's minimum, and the job \
                              tells nobody more than that"
            .to_owned(),
        Outcome::Nothing => "done: the job gives this party no result".to_owned(),
    }];
    if let (Outcome::Intersection(matched), Some(output)) = (summary.result, &summary.output) {
        lines.push(format!("wrote {} rows to {}", HumanCount(matched.rows), output.display()));
    }
    if let Some(providers) = &summary.providers {
        let names: Vec<_> = providers.iter().map(|other| other.name.as_str()).collect();
        lines.push(format!("this party verified the evidence of {}", names.join(", ")));
    }
    if let Some(canaries) = summary.canaries {
        let asked = canaries.in_all + canaries.not_in_all;
        lines.push(format!("the service answered rightly about {} canaries", HumanCount(asked)));
    }
    for receipt in &summary.receipts {
        lines.push(format!("receipt: {}", receipt.display()));
    }
    lines
}

fn style(stage: Stage) -> ProgressStyle {
    let template = match stage {
        Stage::Reading => {
            "reading {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        }
        Stage::Sending => "sending {wide_bar} {human_pos}/{human_len} keys {per_sec} {eta}",
        Stage::Joining => "joining {spinner} {elapsed}",
        Stage::Writing => {
            "writing {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        }
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds / 3600),
    }
}
