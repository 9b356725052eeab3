//! Runs a command, shows all it says as it says it, and counts the tests that it reports.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// How long output may still come when the command itself has ended.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a command to its end. Its output goes where it would go without us, line by line.
pub(crate) fn run_and_show(command: &mut Command) -> io::Result<(ExitStatus, Tally)> {
    if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let not_started = |error| io::Error::other(format!("it cannot be started: {error}"));
    let mut child = started.map_err(not_started)?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let (sender, tallies) = sync_channel(2);
    let of_errors = sender.clone();
    let output = pipes.0.map(|pipe| thread::spawn(move || sender.send(show(pipe, io::stdout()))));
    let errors =
        pipes.1.map(|pipe| thread::spawn(move || of_errors.send(show(pipe, io::stderr()))));
    let status = child.wait()?;
    let mut tally = Tally::default();
    for _reader in [output, errors].iter().flatten() {
        let shown = tallies.recv_timeout(LAST_OUTPUT_TIMEOUT);
        let left = "the step has ended, but a process that it left behind holds its output";
        tally.add(shown.map_err(|_| io::Error::other(left))??);
    }
    Ok((status, tally))
}

fn show(pipe: impl Read, mut terminal: impl Write) -> io::Result<Tally> {
    let mut reader = BufReader::new(pipe);
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        terminal.write_all(&line)?;
        terminal.flush()?;
        if let Some(counted) = summary(&plain(&String::from_utf8_lossy(&line))) {
            tally.add(counted);
        }
        line.clear();
    }
    Ok(tally)
}

/// What a line of cargo-nextest, cargo test or pytest counts, if it is a summary.
fn summary(line: &str) -> Option<Tally> {
    let line = line.trim();
    let counts = if line.starts_with("Summary [") {
        line.split_once(" run: ")?.1
    } else if line.starts_with("==") && line.ends_with("==") {
        line.trim_matches('=').rsplit_once(" in ")?.0
    } else {
        line.strip_prefix("test result: ")?.split_once(". ")?.1
    };
    let mut tally = Tally::default();
    for count in without_parentheses(counts).split([',', ';']) {
        let Some((number, what)) = count.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what.trim() {
            "passed" => tally.passed += number,
            "error" | "errors" => tally.failed += number,
            "xfailed" => {}
            what if what.contains("failed") || what.contains("timed out") => tally.failed += number,
            _ => {}
        }
    }
    Some(tally)
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    let outside = |c: &char| match c {
        '(' => {
            depth += 1;
            false
        }
        ')' => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    };
    text.chars().filter(outside).collect()
}

/// The line without the terminal's colours.
fn plain(line: &str) -> String {
    let mut pieces = line.split('\u{1b}');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(piece.split_once('m').map_or("", |(_, after)| after));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners() {
        for (line, passed, failed) in [
            ("     Summary [   0.5s] 41 tests run: 41 passed, 0 skipped", 41, 0),
            ("Summary [ 1.0s] 5 tests run: 2 passed (1 slow, 1 leaky), 2 failed, 1 skipped", 2, 2),
            (
                "Summary [ 9.0s] 3/5 tests run: 1 passed, 1 timed out, 1 exec failed, 0 skipped",
                1,
                2,
            ),
            ("Summary [ 0.1s] 1 test run: 1 passed, 0 skipped", 1, 0),
            (
                "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; \
                 finished in 0.45s",
                7,
                0,
            ),
            ("test result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured", 3, 4),
            ("============ 12 passed, 2 skipped, 1 warning in 3.21s ============", 12, 0),
            ("=== 1 failed, 7 passed, 1 xfailed, 2 errors in 75.10s (0:01:15) ===", 7, 3),
            ("==== no tests ran in 0.01s ====", 0, 0),
        ] {
            assert_eq!(summary(line), Some(Tally { passed, failed }), "{line}");
        }
        for line in [
            "",
            "running 3 tests",
            "test a::b ... ok",
            "12 passed, 3 failed",
            "===== short test summary info =====",
            "===== test session starts =====",
        ] {
            assert_eq!(summary(line), None, "{line}");
        }
    }

    #[test]
    fn colours_do_not_hide_a_summary() {
        let line = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.5s] \u{1b}[1m2\u{1b}[0m tests run: \
                    \u{1b}[1m2\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m skipped";
        assert_eq!(summary(&plain(line)), Some(Tally { passed: 2, failed: 0 }));
    }

    #[test]
    fn all_output_is_shown_and_all_summaries_are_added() {
        let said = b"Compiling\ntest result: ok. 2 passed; 0 failed\r\n\xff\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored\nno line end";
        let mut shown = Vec::new();
        assert_eq!(show(&said[..], &mut shown).unwrap().to_string(), "3 passed, 1 failed");
        assert_eq!(shown, said);
    }
}
