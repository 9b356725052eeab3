//! The tasks of this repository: `cargo xtask help`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to a terminal")]

mod runner;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
The tasks of this repository.

Usage: cargo xtask COMMAND

Commands:
  test [--quick]  Runs everything that must hold, one step after the other: the format, clippy
                  without warnings, the build, all tests (the layer test among them), the examples
                  in the documentation, the documentation without warnings. It stops at the first
                  step that fails and prints the command that reruns it.
                  Tests run under cargo-nextest where it is installed, else under cargo test.
      --quick     Leaves out the documentation.
  help            Prints this text.

Exit codes: 0 everything holds, 1 a step failed, 2 the command line is wrong.
Progress goes to stderr; the summary, \"N passed, N failed\", is the last line on stdout.
";

const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok(Task::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Task::Test { quick }) => test::run(quick),
        Err(problem) => {
            eprintln!("xtask: {problem}; cargo xtask help lists the commands");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Test { quick: bool },
}

fn parse(arguments: &[String]) -> Result<Task, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["help" | "--help" | "-h"] | ["test", "--help" | "-h"] => Ok(Task::Help),
        ["test"] => Ok(Task::Test { quick: false }),
        ["test", "--quick"] => Ok(Task::Test { quick: true }),
        [] => Err("no command was given".to_owned()),
        ["test", other, ..] => Err(format!("test does not know {other:?}")),
        ["help" | "--help" | "-h", other, ..] => Err(format!("help does not know {other:?}")),
        [other, ..] => Err(format!("there is no command {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands() {
        assert_eq!(parsed("help"), Ok(Task::Help));
        assert_eq!(parsed("test"), Ok(Task::Test { quick: false }));
        assert_eq!(parsed("test --quick"), Ok(Task::Test { quick: true }));
        for wrong in ["", "tset", "test quick", "test --quick --quick", "help me"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parsed("tset"), Err("there is no command \"tset\"".to_owned()));
    }
}
