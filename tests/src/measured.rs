//! `convelo-service`, the measured program, with a stand-in for the device of its enclave.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use convelo_attest::QuoteSource;
use convelo_simulator::Platform;
use tempfile::TempDir;

use crate::binary::{elsewhere, measured};
use crate::process::Process;
use crate::world::{SERVICE_ENCLAVE, World};

/// The program, running as a process that listens.
pub struct Measured {
    /// Its process.
    pub process: Process,
    /// `127.0.0.1:port`.
    pub address: String,
    _device: TempDir,
}

/// The program as it is to be started.
#[must_use]
pub struct Starting<'w> {
    world: &'w World,
    arguments: String,
    device: Device,
    limits: Vec<String>,
    user: Option<u32>,
}

/// What the attestation device of the enclave does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// It quotes what it is asked to.
    Right,
    /// It does so once, and then its quote never comes.
    HangsAfter(usize),
    /// After so many quotes, one is not a quote.
    FailsOnce(usize),
    /// Its quote is over something else.
    Another,
    /// Its quote is larger than any.
    Oversized,
    /// It says that the enclave has no attestation.
    OfTypeNone,
}

/// A mount namespace of its own, in which a shell runs what follows.
const NAMESPACE: [&str; 5] = ["--user", "--map-root-user", "--mount", "sh", "-c"];

impl Measured {
    /// Starts it on a free port with a right device, with these arguments more.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn start(world: &World, arguments: &str) -> Self {
        Self::starting(world, arguments).listen()
    }

    /// The program with these arguments beside its address.
    pub fn starting<'w>(world: &'w World, arguments: &str) -> Starting<'w> {
        let (arguments, limits) = (arguments.to_owned(), Vec::new());
        Starting { world, arguments, device: Device::Right, limits, user: None }
    }

    /// The address that a line of its log ends with.
    ///
    /// # Panics
    /// If the line does not come.
    pub fn said(process: &Process, line: &str) -> String {
        let line = format!("{line} address=");
        process.wait_for(&line);
        let said = process.stderr();
        let (_, rest) = said.split_once(&line).expect("it has come");
        rest.split_whitespace().next().expect("an address").to_owned()
    }
}

impl Starting<'_> {
    /// With another device.
    pub fn device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Under a limit of `prlimit`, such as `--as=1000000`.
    pub fn limited(mut self, limit: String) -> Self {
        self.limits.push(limit);
        self
    }

    /// As this user, whom nobody else is.
    pub fn as_user(self, user: u32) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// If it does not.
    pub fn listen(self) -> Measured {
        let (process, device) = self.spawn();
        let address = Measured::said(&process, "listening");
        Measured { process, address, _device: device }
    }

    /// Starts it. What is returned beside it is its device.
    ///
    /// The program itself runs in a mount namespace in which the device is at `/dev/attestation`. Where
    /// that is not permitted, and for another user, it is all of the program but its first lines.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn spawn(self) -> (Process, TempDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let device = directory.path().join("attestation");
        fs::create_dir(&device).expect("a directory");
        self.device.run(&device, self.world);
        let (mut command, program) = if self.user.is_none() && is_permitted() {
            let mut command = Command::new("unshare");
            command.args(NAMESPACE).arg("mount --bind \"$0\" /dev && exec \"$@\"");
            command.arg(directory.path());
            (command, vec![measured().into_os_string()])
        } else {
            let command = Command::new("env");
            (command, vec![elsewhere().into_os_string(), device.into_os_string()])
        };
        if let Some(user) = self.user {
            fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("a mode");
            command.uid(user).gid(user);
        }
        if !self.limits.is_empty() {
            command.arg("prlimit").args(&self.limits);
        }
        command.args(program).arg("127.0.0.1:0").args(self.arguments.split_whitespace());
        command.current_dir(self.world.path(""));
        if self.user.is_some() {
            command.current_dir("/");
        }
        (Process::spawn("convelo-service", &mut command), directory)
    }
}

/// Whether this machine permits a mount namespace. If not, says so.
#[expect(clippy::print_stderr, reason = "that the program itself is not tested is to be seen")]
fn is_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(NAMESPACE).arg("mount --bind /tmp /dev");
        let permitted = command.output().is_ok_and(|output| output.status.success());
        if !permitted {
            eprintln!(
                "NOT TESTED: the first lines of convelo-service; this machine permits no \
                 'unshare --user --mount', so its device is elsewhere"
            );
        }
        permitted
    })
}

impl Device {
    /// Files that behave like Gramine's: report data goes in, then a quote comes out.
    fn run(self, device: &Path, world: &World) {
        let kind = if self == Self::OfTypeNone { "none" } else { "dcap" };
        fs::write(device.join("attestation_type"), kind).expect("a file");
        let platform = Platform::open(&world.path("platform")).expect("the world's platform");
        let source = Arc::new(platform).program(SERVICE_ENCLAVE);
        let [data, quote] = ["user_report_data", "quote"].map(|name| device.join(name));
        for pipe in [&data, &quote] {
            let made = Command::new("mkfifo").args(["-m", "666"]).arg(pipe).status();
            assert!(made.expect("mkfifo runs").success(), "{}", pipe.display());
        }
        // The thread ends with the test.
        thread::spawn(move || {
            for number in 0.. {
                let mut report_data = [0; 64];
                let asked =
                    File::open(&data).and_then(|mut file| file.read_exact(&mut report_data));
                let Ok(()) = asked else { return };
                let made = self.quote(number, &*source, &report_data);
                let pipe = OpenOptions::new().write(true).open(&quote);
                let Ok(mut pipe) = pipe else { return };
                match made {
                    // The reader may have enough before the end.
                    Some(made) => drop(pipe.write_all(&made)),
                    None => loop {
                        thread::sleep(Duration::from_secs(60));
                    },
                }
            }
        });
    }

    /// A quote; none if the device hangs.
    fn quote(self, number: usize, source: &dyn QuoteSource, asked: &[u8; 64]) -> Option<Vec<u8>> {
        let quote = |data| source.quote(data).expect("a simulated enclave quotes anything");
        match self {
            Self::HangsAfter(quotes) if number >= quotes => None,
            Self::FailsOnce(quotes) if number == quotes => Some(vec![7; 1 << 16]),
            Self::Another => Some(quote(&[7; 64])),
            Self::Oversized => Some([quote(asked), vec![7; 1 << 16]].concat()),
            _ => Some(quote(asked)),
        }
    }
}
