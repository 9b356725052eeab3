//! `convelo-service`, the measured program, with a stand-in for the device of its enclave.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use convelo_attest::QuoteSource;
use convelo_simulator::Platform;

use crate::binary::measured;
use crate::process::Process;
use crate::world::{SERVICE_ENCLAVE, World};

/// The program, running as a process that finds Gramine's device at `/dev/attestation`.
pub struct Measured {
    /// Its process.
    pub process: Process,
    /// `127.0.0.1:port`.
    pub address: String,
}

/// A mount namespace of its own, in which a shell runs what follows.
const NAMESPACE: [&str; 5] = ["--user", "--map-root-user", "--mount", "sh", "-c"];

impl Measured {
    /// Whether this machine permits what [`Measured::start`] takes. If not, says so.
    #[expect(clippy::print_stderr, reason = "a test that is left out is to be seen")]
    pub fn is_permitted(world: &World) -> bool {
        let mut command = Command::new("unshare");
        command.args(NAMESPACE).arg("mount --bind \"$0\" /dev").arg(world.path(""));
        let permitted = command.output().is_ok_and(|output| output.status.success());
        if !permitted {
            eprintln!("not tested: this machine permits no 'unshare --user --mount'");
        }
        permitted
    }

    /// Starts it on a free port, with these arguments more. The device is in a mount namespace of its
    /// own, and quotes on the world's platform.
    ///
    /// # Panics
    /// If the machine does not permit it, see [`Measured::is_permitted`].
    pub fn start(world: &World, args: &str) -> Self {
        let device = world.path("dev").join("attestation");
        fs::create_dir_all(&device).expect("a directory");
        fs::write(device.join("attestation_type"), "dcap\n").expect("a file");
        let platform = Platform::open(&world.path("platform")).expect("the world's platform");
        simulate(&device, Arc::new(platform).program(SERVICE_ENCLAVE));
        let mut command = Command::new("unshare");
        command
            .args(NAMESPACE)
            .args(["mount --bind \"$0\" /dev && exec \"$@\""])
            .arg(world.path("dev"))
            .arg(measured())
            .arg("127.0.0.1:0")
            .args(args.split_whitespace())
            .current_dir(world.path(""));
        let process = Process::spawn("convelo-service", &mut command);
        process.wait_for("listening address=");
        let said = process.stderr();
        let (_, rest) = said.split_once("listening address=").expect("it listens");
        let address = rest.split_whitespace().next().expect("an address").to_owned();
        Self { process, address }
    }
}

/// Two pipes that behave like Gramine's files: report data goes in, then a quote comes out.
fn simulate(device: &Path, source: Arc<dyn QuoteSource>) {
    let [data, quote] = ["user_report_data", "quote"].map(|name| device.join(name));
    for pipe in [&data, &quote] {
        let made = Command::new("mkfifo").arg(pipe).status().expect("mkfifo runs");
        assert!(made.success(), "{}", pipe.display());
    }
    // The thread ends with the test.
    thread::spawn(move || {
        loop {
            let mut report_data = [0; 64];
            let asked = File::open(&data).and_then(|mut pipe| pipe.read_exact(&mut report_data));
            let Ok(()) = asked else { return };
            let made = source.quote(&report_data).expect("a simulated enclave quotes anything");
            let pipe = OpenOptions::new().write(true).open(&quote);
            let Ok(()) = pipe.and_then(|mut pipe| pipe.write_all(&made)) else { return };
        }
    });
}
