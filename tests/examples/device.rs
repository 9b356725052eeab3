//! Stands in for Gramine's device in a folder, for a container that finds it at `/dev/attestation`:
//! `device PLATFORM FOLDER`, until it is killed.
//!
//! The tests of containers run it: pipes go through the mount of a folder as files do.

use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use convelo_simulator::Platform;
use convelo_tests::SERVICE_ENCLAVE;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [platform, folder] = &arguments[..] else {
        return Err("usage: device PLATFORM FOLDER".into());
    };
    let enclave = Arc::new(Platform::open(platform)?).program(SERVICE_ENCLAVE);
    let [data, quote] = ["user_report_data", "quote"].map(|name| folder.join(name));
    for path in [&data, &quote] {
        pipe(path)?;
    }
    // Last: a program that finds it finds the others.
    fs::write(folder.join("attestation_type"), "dcap\n")?;
    loop {
        let mut report_data = [0; 64];
        File::open(&data)?.read_exact(&mut report_data)?;
        let made = enclave.quote(&report_data)?;
        OpenOptions::new().write(true).open(&quote)?.write_all(&made)?;
    }
}

/// Makes a pipe that the user of a container may use.
fn pipe(path: &Path) -> io::Result<()> {
    let made = Command::new("mkfifo").arg(path).status()?;
    if !made.success() {
        return Err(io::Error::other("mkfifo failed"));
    }
    fs::set_permissions(path, Permissions::from_mode(0o666))
}
