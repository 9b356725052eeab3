//! Everything that is printed: data on stdout, everything else on stderr.

use std::cmp::Ordering;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::CommandFactory as _;
use convelo_party::table::{Description, Output};
use convelo_party::{
    Commonest, Counted, Counts, Event, Matched, Observer, OtherTerms, PartShapes, Summary, Survey,
};
use convelo_psi::Outcome;
use convelo_untrusted::{Terminal, Untrusted};
use indicatif::{
    BinaryBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::args::{Cli, Voice};
use crate::exit::Failure;

/// Why data could not be written to stdout, if it could not.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Writes one line of data to stdout. A failure ends the program later, in [`check_written`].
pub(crate) fn data(line: impl Display) {
    keep(writeln!(Terminal::new(std::io::stdout().lock()), "{line}"));
}

/// Remembers why data could not be written. A closed stdout is not a failure: the reader has seen
/// enough.
fn keep(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Fails if any data could not be written to stdout.
pub(crate) fn check_written() -> Result<(), Failure> {
    keep(std::io::stdout().lock().flush());
    LOST.get().map_or(Ok(()), |error| Err(unwritten(error)))
}

fn unwritten(error: &std::io::Error) -> Failure {
    Failure::job(format!("cannot write to standard output: {error}"))
}

/// Prints what clap has to say: help or a version on stdout, an error on stderr.
pub(crate) fn clap(said: &clap::Error) -> Result<u8, Failure> {
    let printed = said.print();
    if !said.use_stderr() {
        keep(printed);
        check_written()?;
    }
    Ok(u8::try_from(said.exit_code()).unwrap_or(2))
}

/// Writes one line of JSON to stdout, immediately: a program may be waiting for it. In ASCII, which
/// changes nothing for a program and shows everything to a person.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let line = ascii(value).map_err(Failure::job)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| unwritten(&error))
}

/// A value as one line of JSON in ASCII.
pub(crate) fn ascii(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Ascii))?;
    String::from_utf8(line).map_err(serde::ser::Error::custom)
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
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "convelo", &mut script);
    keep(std::io::stdout().lock().write_all(&script));
}

/// Shows a run on stderr: a line for each step and, on a terminal, a bar for slow ones.
pub(crate) struct Narrator {
    voice: Voice,
    me: String,
    bars: bool,
    /// How many stages a run has.
    stages: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    bar: Option<(Stage, ProgressBar)>,
    absent: bool,
    lost: bool,
    /// For whom, and until when.
    waiting: Option<(String, Instant)>,
    /// Who came with which other job.
    other_terms: Vec<OtherTerms>,
    /// How many lines there were about the progress of others.
    progress: usize,
}

/// The most lines about the progress of others, which the service tells: 64 parties arrive and upload,
/// each line comes once, and a connection may break now and then.
const MAXIMUM_PROGRESS_LINES: usize = 256;

/// How often somebody who waits is reminded, where there is no countdown.
const REMINDER: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// For others, before the first numbered stage.
    Waiting,
    Reading,
    Sending,
    Joining,
    /// In a job without a service.
    Exchanging,
    Writing,
}

impl Narrator {
    /// For a run of this party, which `writes` rows or does not.
    pub(crate) fn new(voice: Voice, me: &str, writes: bool) -> Self {
        let bars = !voice.quiet && std::io::stderr().is_terminal();
        let stages = if writes { 4 } else { 3 };
        Self { voice, me: me.to_owned(), bars, stages, state: Arc::default() }
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
            let bar = ProgressBar::with_draw_target(Some(total), target)
                .with_style(style(stage, self.stages));
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

    fn peer_absent(&self, name: &str, address: &str, why: &str) {
        if std::mem::replace(&mut self.state().absent, true) {
            return;
        }
        self.line(format_args!(
            "{name} does not answer at {address} yet ({why}); still trying until the job's deadline"
        ));
    }

    fn peer_lost(&self, name: &str, why: &str, give_up_in: Duration) {
        if std::mem::replace(&mut self.state().lost, true) {
            return;
        }
        self.line(format_args!(
            "the connection to {name} broke ({why}); waiting for another for up to {}",
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
        self.other_terms(&waiting.other_terms);
        let whom = if waiting.missing.is_empty() {
            let others = waiting.missing_count;
            format!("{others} more {}", if others == 1 { "party" } else { "parties" })
        } else {
            waiting.missing.join(", ")
        };
        let left = Duration::from_secs(waiting.seconds_left);
        let until = Instant::now() + left;
        let same = |known: &(String, Instant)| known.0 == whom;
        if self.state().waiting.replace((whom.clone(), until)).as_ref().is_some_and(same) {
            return;
        }
        self.clear_bar();
        self.others(format_args!("waiting for {whom}; {} left", duration(left)));
        if self.bars {
            self.count_down(&whom, until);
        } else if !self.voice.quiet {
            self.remind(whom, until);
        }
    }

    /// Says who came with another job, once for each that it was.
    fn other_terms(&self, brought: &[OtherTerms]) {
        let known = std::mem::replace(&mut self.state().other_terms, brought.to_vec());
        for new in brought.iter().filter(|new| !known.contains(new)) {
            self.others(format_args!(
                "{} came with another job file, or other flags (digest {}), and was refused: all \
                 parties need the same ones; compare digests",
                new.party, new.job
            ));
        }
    }

    /// Shows on the terminal how long it still waits.
    fn count_down(&self, whom: &str, until: Instant) {
        let left = move |_: &ProgressState, into: &mut dyn std::fmt::Write| {
            let _ = into.write_str(&duration(until.saturating_duration_since(Instant::now())));
        };
        let style = ProgressStyle::with_template("{spinner} {left} left, for {wide_msg}");
        let style =
            style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("left", left);
        let target = ProgressDrawTarget::stderr_with_hz(1);
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        bar.set_message(convelo_untrusted::shown(whom));
        bar.enable_steady_tick(Duration::from_secs(1));
        self.state().bar = Some((Stage::Waiting, bar));
    }

    /// Says now and then how long it still waits.
    fn remind(&self, whom: String, until: Instant) {
        let state = Arc::downgrade(&self.state);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(REMINDER);
                let Some(state) = state.upgrade() else { return };
                let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.waiting.as_ref().is_none_or(|(now, _)| *now != whom) {
                    return;
                }
                let left = until.saturating_duration_since(Instant::now());
                say(format_args!("still waiting for {whom}; {} left", duration(left)));
            }
        });
    }

    fn waited(&self) {
        self.state().waiting = None;
        self.clear_bar();
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

    fn read(&self, counts: Counts, found: &Survey) {
        self.clear_bar();
        for line in survey(counts, found) {
            self.line(line);
        }
    }
}

/// What a pass over a table found, in lines that hold no value of it.
pub(crate) fn survey(counts: Counts, survey: &Survey) -> Vec<String> {
    let mut lines = vec![taken_for(&survey.taken_for), read(counts)];
    lines.extend(survey.dropped.iter().map(|rows| format!("dropped: {}", rows.in_words())));
    if let Some(Commonest { rows, of, all, .. }) = survey.commonest {
        let share = if all {
            format!("{} of {} rows", HumanCount(rows), HumanCount(of))
        } else {
            format!("about {} of all rows", percent(rows, of))
        };
        lines.push(format!(
            "one key stands in {share}; is it a placeholder? With ignore=[\"…\"] in the job, it is a blank"
        ));
    }
    let notes = &survey.notes;
    let ending = &notes.ending;
    for (count, what) in [
        (survey.repeated_headers, "the header again, or what a program writes with a header"),
        (ending.footers, "what a program says of its rows, at the end"),
        (ending.blank_lines, "a line of white space at the end"),
        (u64::from(ending.control_z), "Ctrl-Z at the end"),
        (notes.marks, "a byte order mark or Ctrl-Z at the start of a line, where files meet"),
    ] {
        if count > 0 {
            lines.push(format!("left out, {}: {what}", times(count)));
        }
    }
    if notes.spanning_fields > 0 {
        lines.push(format!(
            "with line ends, {}; the longest has {} lines, from line {}: if that is unexpected, look for \
             a quote that is not closed",
            counted(notes.spanning_fields, "field"),
            notes.longest_field_lines,
            notes.longest_field_at
        ));
    }
    lines.extend(survey.shapes.iter().filter(|part| part.shapes.values > 0).map(shapes));
    for PartShapes { part, shapes, .. } in &survey.shapes {
        if shapes.guarded > 0 {
            lines.push(format!(
                "{} of {part} {} with = or an apostrophe, as spreadsheets guard texts: without a step that \
                 trims, such a key matches nothing that is not guarded in the same way",
                counted(shapes.guarded, "key"),
                if shapes.guarded == 1 { "begins" } else { "begin" }
            ));
        }
        if shapes.rounded > 0 {
            lines.push(format!(
                "{} of {part} {} that a spreadsheet rounded (1.2E+15), and match others that were: export \
                 the column as text",
                counted(shapes.rounded, "key"),
                if shapes.rounded == 1 { "looks like a number" } else { "look like numbers" }
            ));
        }
    }
    lines
}

/// What a table was taken for.
fn taken_for(table: &Description) -> String {
    let mut words = vec![table.format.to_owned()];
    if let Some(delimiter) = table.delimiter {
        let delimiter = if delimiter == '\t' { "tab".to_owned() } else { delimiter.to_string() };
        let header = if table.header { "a header" } else { "no header" };
        words.push(format!("delimiter {delimiter}, {header}"));
    }
    words.push(counted(table.columns as u64, "column"));
    match (&table.first_column, &table.last_column) {
        (Some(first), Some(last)) if table.columns > 1 => {
            words.push(format!("{} to {}", Untrusted::new(first), Untrusted::new(last)));
        }
        (Some(only), _) => words.push(Untrusted::new(only).to_string()),
        _ => {}
    }
    format!("taken for {}", words.join(", "))
}

/// How the values of a key part look.
fn shapes(part: &PartShapes) -> String {
    let PartShapes { part, shapes, .. } = part;
    let values = shapes.values;
    let mut words = Vec::new();
    for (count, what) in [
        (shapes.digits, "only digits"),
        (shapes.zero_first, "begin with 0"),
        (shapes.plus_first, "begin with +"),
        (shapes.letters, "have letters"),
        (shapes.capitals, "have capitals"),
        (shapes.at_signs, "have an @"),
        (shapes.spaced, "have white space at an end"),
        (shapes.not_ascii, "have characters beyond ASCII"),
    ] {
        if count > 0 {
            words.push(format!("{} {what}", percent(count, values)));
        }
    }
    let length = match (shapes.shortest, shapes.longest) {
        (shortest, longest) if shortest == longest => format!("{shortest}"),
        (shortest, longest) => format!("{shortest} to {longest}"),
    };
    words.push(format!("{length} character{}", if shapes.longest == 1 { "" } else { "s" }));
    format!("the looks of {part}, of {}: {}", counted(values, "value"), words.join(", "))
}

/// A share in whole percent, never 0 or 100 unless it is.
fn percent(part: u64, of: u64) -> String {
    let hundredths = u128::from(part) * 100 / u128::from(of.max(1));
    match hundredths {
        0 if part > 0 => "below 1 %".to_owned(),
        99 if part < of => "above 99 %".to_owned(),
        hundredths => format!("{hundredths} %"),
    }
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", HumanCount(count))
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", HumanCount(count)) }
}

/// What a pass over a table found, in words.
fn read(counts: Counts) -> String {
    let mut parts = vec![counted(counts.keys, "distinct key")];
    for (count, what) in [
        (counts.duplicates, "with a key seen before"),
        (counts.blank, "without a key, dropped"),
        (counts.invalid, "whose key cannot be normalised, dropped"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", counted(count, "row")));
        }
    }
    format!("read {}: {}", counted(counts.rows, "row"), parts.join("; "))
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
                self.waited();
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
            Event::Read { counts, survey } => self.read(counts, survey),
            Event::Announced => self.line("waiting until all parties have read their tables"),
            Event::Sending { done, total } => {
                self.progress(Stage::Sending, done, total);
                if done == total {
                    self.clear_bar();
                    self.line(format_args!("sent {}", counted(total, "pseudonym")));
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
            Event::Listening { address } => {
                self.line(format_args!("listening for the other party on {address}"));
            }
            Event::PeerAbsent { name, address, why, .. } => self.peer_absent(name, address, &why),
            Event::PeerMet { name } => {
                let mut state = self.state();
                let again = std::mem::replace(&mut state.lost, false);
                state.absent = false;
                drop(state);
                if again {
                    self.line("reconnected; the job continues where it was");
                } else {
                    self.line(format_args!(
                        "connected with {name}, which proved the key that the job pins"
                    ));
                }
            }
            Event::PeerLost { name, why, give_up_in } => self.peer_lost(name, &why, give_up_in),
            Event::SizesKnown { own, others } => {
                let others: Vec<_> = others
                    .iter()
                    .map(|(name, keys)| format!("{} at {name}", counted(*keys, "key")))
                    .collect();
                self.line(format_args!(
                    "computing with {} here and {}",
                    counted(own, "key"),
                    others.join(", ")
                ));
            }
            Event::Exchanging { done, total } => self.progress(Stage::Exchanging, done, total),
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
            "result: {} of your {} in every table",
            HumanCount(keys),
            counted(summary.input.keys, "key") + if keys == 1 { " is" } else { " are" }
        ),
        Outcome::Count(Counted { keys }) => {
            let are = if keys == 1 { "is" } else { "are" };
            format!("result: {} {are} in every table", counted(keys, "key"))
        }
        Outcome::Withheld => "result withheld: it is smaller than the job's minimum, and the job \
                              tells nobody more than that"
            .to_owned(),
        Outcome::Nothing => "done: the job gives this party no result".to_owned(),
    }];
    if let (Outcome::Intersection(matched), Some(output)) = (summary.result, &summary.output) {
        lines.push(format!("wrote {} to {}", counted(matched.rows, "row"), output.display()));
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

/// A line that fits on 40 columns. `{wide_bar}` takes what is left.
fn style(stage: Stage, stages: usize) -> ProgressStyle {
    let (number, template) = match stage {
        Stage::Waiting => (0, "waiting {spinner}"),
        Stage::Reading => (1, "reading {percent} %{bytes_rate} {wide_bar} {eta}"),
        Stage::Sending => (2, "sending {percent} %{keys_rate} {wide_bar} {eta}"),
        Stage::Joining => (3, "joining {spinner} {elapsed}"),
        Stage::Exchanging => (3, "computing {percent} % {wide_bar} {eta}"),
        Stage::Writing => (4, "writing {percent} %{bytes_rate} {wide_bar} {eta}"),
    };
    let keys = |state: &ProgressState, into: &mut dyn std::fmt::Write| {
        if let Some(rate) = rate(state.pos(), state.elapsed()) {
            let _ = write!(into, " {}/s", HumanCount(rate));
        }
    };
    let bytes = |state: &ProgressState, into: &mut dyn std::fmt::Write| {
        if let Some(rate) = rate(state.pos(), state.elapsed()) {
            let _ = write!(into, " {}/s", BinaryBytes(rate));
        }
    };
    ProgressStyle::with_template(&format!("{number}/{stages} {template}"))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("keys_rate", keys)
        .with_key("bytes_rate", bytes)
}

/// How much is done in a second, on the average of a stage; nothing in its first second.
fn rate(done: u64, elapsed: Duration) -> Option<u64> {
    let rate = u128::from(done) * 1000 / elapsed.as_millis().max(1);
    (elapsed >= Duration::from_secs(1)).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
}

fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_done_in_the_time_of_the_stage() {
        assert_eq!(rate(1 << 40, Duration::from_millis(3)), None);
        assert_eq!(rate(0, Duration::ZERO), None);
        assert_eq!(rate(3000, Duration::from_millis(1500)), Some(2000));
        assert_eq!(rate(u64::MAX, Duration::from_secs(1)), Some(u64::MAX));
    }
}
