//! The command line: words, bars and exit codes around `convelo_party`, `convelo_service` and
//! `convelo_operate`.

mod args;
mod clock;
mod commands;
mod contents;
mod evidence;
mod exit;
mod files;
mod job_file;
mod log;
mod notify;
mod output;
mod paths;
mod pcs;
mod plan;
mod platform;
mod provider;
mod releases;
mod stop;
mod tables;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tokio::runtime::Builder;

use args::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    let arguments = commands::join::long_flags(std::env::args_os());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(said) => {
            return output::clap(&said).map_or_else(|failure| failed(&failure), Into::into);
        }
    };
    if let Err(error) = convelo_heap::no_core_dumps() {
        output::say(format_args!("warning: core dumps could not be switched off: {error}"));
    }
    match run(cli.command).and_then(|code| output::check_written().map(|()| code)) {
        Ok(code) => code,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    output::error(failure);
    failure.code().into()
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => on_runtime(commands::demo::demo(args)),
        Command::Init(args) => commands::init::init(&args),
        Command::Keygen(args) => commands::keygen::keygen(&args),
        Command::Key(args) => commands::keygen::key(&args),
        Command::Check(args) => on_runtime(commands::check::check(args)),
        Command::Serve(args) => {
            convelo_heap::one_arena();
            on_runtime(commands::serve::serve(args))
        }
        Command::Run(args) => as_provider(commands::run::run(args)),
        Command::Join(args) => as_provider(commands::join::join(args)),
        Command::Attest(args) => on_runtime(commands::attest::attest(args)),
        Command::Policy(args) => commands::policy::policy(args),
        Command::Collateral(args) => on_runtime(commands::collateral::collateral(args)),
        Command::Receipt(args) => commands::receipt::receipt(&args),
        Command::Simulator(args) => on_runtime(commands::simulator::simulator(args)),
        Command::Completions { shell } => {
            output::completions(shell);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// How long a pass over a table has to end after it is told to: enough to remove what it has begun
/// to write.
const LAST_PASS: Duration = Duration::from_secs(2);

/// Runs a command that waits for the network.
fn on_runtime(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    on(&mut Builder::new_multi_thread(), command)
}

/// Runs a provider's part. It has few connections, so one thread for all of them costs less than
/// several that wake each other; passes over the table have threads of their own.
fn as_provider(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    convelo_heap::one_arena();
    on(&mut Builder::new_current_thread(), command)
}

fn on(
    runtime: &mut Builder,
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::job(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(LAST_PASS);
    result
}
