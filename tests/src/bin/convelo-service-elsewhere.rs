//! The measured program with its attestation device elsewhere: `convelo-service-elsewhere DIRECTORY
//! ARGUMENTS...` is `convelo-service ARGUMENTS...` whose device is the directory. For tests on machines, or
//! as users, that cannot have a directory of their own at `/dev/attestation`.

use std::process::ExitCode;
use std::sync::Arc;

use convelo_attest::Gramine;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let device = arguments.next().expect("a directory");
    convelo_service::program::run(arguments, || Arc::new(Gramine::new(device)))
}
