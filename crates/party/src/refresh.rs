//! Keeps collateral fresh in a file: fetches at half its lifetime, and never replaces it by older
//! collateral.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};

use convelo_attest::{Collateral, CollateralError, MAXIMUM_COLLATERAL_BYTES, PlatformId, Policy};
use convelo_channel::os_rng;
use rand_core::Rng as _;

use crate::pcs::{PcsClient, PcsError};

/// The pause after a fetch that failed, or brought nothing newer; it doubles each time, up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Why a file of collateral was left unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// No service provided any.
    #[error(transparent)]
    Fetch(#[from] PcsError),
    /// What arrived does not verify, or is older than what the file holds.
    #[error("{error}; {path} is unchanged")]
    Refused {
        /// Why.
        error: CollateralError,
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Verifies a bundle under the policy's root at `now` (Unix seconds) and writes it to the file,
/// whole or not at all; a newer bundle about the same platform stays.
///
/// # Errors
/// [`RefreshError`].
pub fn store_collateral(
    bundle: &Collateral,
    path: &Path,
    policy: &Policy,
    now: u64,
) -> Result<(), RefreshError> {
    let refused = |error| RefreshError::Refused { error, path: path.to_owned() };
    bundle.verify(policy, now).map_err(refused)?;
    if let Some(held) = held(path)?
        && (held.tee(), held.fmspc()) == (bundle.tee(), bundle.fmspc())
    {
        bundle.may_replace(&held).map_err(refused)?;
    }
    write(path, bundle.to_json().as_bytes()).map_err(|source| file("write", path, source))
}

/// What the file holds; none if there is no file.
fn held(path: &Path) -> Result<Option<Collateral>, RefreshError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(file("read", path, source)),
    };
    let refused = |error| RefreshError::Refused { error, path: path.to_owned() };
    if length > MAXIMUM_COLLATERAL_BYTES as u64 {
        let found = usize::try_from(length).unwrap_or(usize::MAX);
        return Err(refused(CollateralError::Size { found }));
    }
    let text = fs::read_to_string(path).map_err(|source| file("read", path, source))?;
    Collateral::from_json(&text).map(Some).map_err(refused)
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn file(action: &'static str, path: &Path, source: io::Error) -> RefreshError {
    RefreshError::File { action, path: path.to_owned(), source }
}

/// A file that is kept fresh, and how.
pub struct Refresh {
    /// Where collateral is fetched from.
    pub client: PcsClient,
    /// The platform.
    pub platform: PlatformId,
    /// Its file, even if something else wrote it.
    pub path: PathBuf,
    /// The policy whose root verifies it, and which says how old it may become.
    pub policy: Policy,
}

/// The thread that keeps a file fresh. It ends when this is dropped, at the latest after a fetch in
/// progress.
pub struct Refreshing {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Refresh {
    /// Fetches once; blocks.
    ///
    /// # Errors
    /// [`RefreshError`]; the file is unchanged.
    pub fn once(&self) -> Result<(), RefreshError> {
        let bundle = self.client.fetch(&self.platform)?;
        store_collateral(&bundle, &self.path, &self.policy, unix_now())
    }

    /// Keeps the file fresh in a thread of its own: fetches once half the lifetime of what it holds
    /// is over (now, if it holds nothing), each time up to a tenth later, so that many services do
    /// not ask at the same moment. A failed fetch is logged; the file is kept and used until it
    /// expires.
    ///
    /// # Errors
    /// The operating system's, for the thread.
    pub fn in_background(self) -> io::Result<Refreshing> {
        let (stop, stopped) = sync_channel(0);
        let thread = thread::Builder::new()
            .name("collateral".to_owned())
            .spawn(move || self.keep(&stopped))?;
        Ok(Refreshing { stop: Some(stop), thread: Some(thread) })
    }

    fn keep(&self, stopped: &Receiver<()>) {
        let mut wait = self.due(unix_now());
        let mut pause = FIRST_PAUSE;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(jittered(wait)) {
            let file = self.path.display();
            let tried = self.once();
            wait = self.due(unix_now());
            match tried {
                Ok(()) if wait > Duration::ZERO => {
                    tracing::info!(%file, next_in = ?wait, "collateral is fresh");
                    pause = FIRST_PAUSE;
                    continue;
                }
                Ok(()) => tracing::info!(%file, "the collateral service has nothing newer yet"),
                Err(error) => {
                    tracing::warn!(%file, %error, left = self.left(), "collateral was not refreshed");
                }
            }
            wait = pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// How long until half the lifetime of what the file holds is over.
    fn due(&self, now: u64) -> Duration {
        let Ok(Some(held)) = held(&self.path) else { return Duration::ZERO };
        let half = held.issued() + (self.end(&held).saturating_sub(held.issued())) / 2;
        Duration::from_secs(half.saturating_sub(now))
    }

    /// When it expires or is too old for the policy.
    fn end(&self, held: &Collateral) -> u64 {
        held.expires().min(held.issued() + self.policy.maximum_collateral_age())
    }

    /// How long what the file holds remains usable, in words.
    fn left(&self) -> String {
        match held(&self.path) {
            Ok(Some(held)) => match self.end(&held).checked_sub(unix_now()) {
                Some(left) => {
                    format!("what the file holds is usable for another {} h", left / 3600)
                }
                None => "what the file holds is no longer usable".to_owned(),
            },
            _ => "the file holds nothing".to_owned(),
        }
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A fetch in progress may take a minute; the program does not wait for it.
        drop(self.thread.take());
    }
}

/// Up to a tenth longer.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 4];
    os_rng().fill_bytes(&mut random);
    wait + wait.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX) / 10.0)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
