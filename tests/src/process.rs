//! One run of a program: output captured, every wait under a deadline.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that takes a moment on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// A process. It is killed when dropped.
pub struct Process {
    label: String,
    child: Child,
    started: Instant,
    stdout: Arc<Captured>,
    stderr: Arc<Captured>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    label: String,
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to standard output.
    pub stdout: String,
    /// All that it wrote to standard error.
    pub stderr: String,
    /// The highest memory use observed (VmHWM), in KiB; only from [`Process::wait_measured`].
    pub peak_kib: u64,
}

impl Process {
    /// Starts a process without standard input; `label` stands for it in failure messages.
    pub fn spawn(label: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = start(command).unwrap_or_else(|error| panic!("{label}: {error}"));
        let stdout = Captured::from(child.stdout.take().expect("a pipe"));
        let stderr = Captured::from(child.stderr.take().expect("a pipe"));
        Self { label: label.to_owned(), child, started: Instant::now(), stdout, stderr }
    }

    /// Waits until standard error holds `text`.
    ///
    /// # Panics
    /// If the process ends first, or after [`PATIENCE`].
    pub fn wait_for(&self, text: &str) -> &Self {
        self.wait_for_times(text, 1)
    }

    /// Waits until standard error holds `text` this many times.
    ///
    /// # Panics
    /// Like [`Process::wait_for`].
    pub fn wait_for_times(&self, text: &str, times: usize) -> &Self {
        let found = self.stderr.wait(PATIENCE, |written| written.matches(text).count() >= times);
        assert!(found, "{}: '{text}' did not come {times} times:\n{}", self.label, self.stderr());
        self
    }

    /// Waits for the first line of standard output.
    ///
    /// # Panics
    /// Like [`Process::wait_for`].
    pub fn first_line(&self) -> String {
        let found = self.stdout.wait(PATIENCE, |written| written.contains('\n'));
        assert!(found, "{}: no line came on stdout; stderr:\n{}", self.label, self.stderr());
        self.stdout.text().lines().next().unwrap_or_default().to_owned()
    }

    /// What standard error holds so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// After [`PATIENCE`]; the process is killed.
    pub fn wait(self) -> Ended {
        self.wait_within(PATIENCE)
    }

    /// Waits this long for the process to end.
    ///
    /// # Panics
    /// If it does not; it is killed.
    pub fn wait_within(mut self, patience: Duration) -> Ended {
        self.until_end(patience, |_| {})
    }

    /// Waits until the process ends, watching its memory meanwhile.
    ///
    /// # Panics
    /// Like [`Process::wait`].
    pub fn wait_measured(mut self) -> Ended {
        let mut peak = 0;
        let mut ended = self.until_end(PATIENCE, |process| {
            peak = process.memory_kib("VmHWM").unwrap_or(0).max(peak);
        });
        ended.peak_kib = peak;
        ended
    }

    /// Whether the process has not yet ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// SIGKILL: nothing of the program runs any longer.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("a child can be killed");
        self.until_end(PATIENCE, |_| {})
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: the process stops, its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Processor time so far, in clock ticks (of 10 ms, on every Linux).
    ///
    /// # Panics
    /// If the process is gone.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat");
        // The second field is the name in parentheses; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let mut fields = fields.split(' ').skip(11).map(|field| field.parse::<u64>().unwrap_or(0));
        fields.next().unwrap_or(0) + fields.next().unwrap_or(0)
    }

    /// A field of /proc/PID/status in KiB, such as VmHWM (peak so far) or VmRSS (now).
    pub fn memory_kib(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Shows `look` all memory that the process can write to, one mapping at a time.
    ///
    /// # Panics
    /// If the system does not let a process inspect its child.
    pub fn scan_memory(&self, mut look: impl FnMut(&[u8])) {
        let process = format!("/proc/{}", self.child.id());
        let maps = fs::read_to_string(format!("{process}/maps")).expect("maps");
        let memory = fs::File::open(format!("{process}/mem")).expect("a child's memory");
        for line in maps.lines() {
            let Some((range, rest)) = line.split_once(' ') else { continue };
            let Some((first, end)) = range.split_once('-') else { continue };
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            let (first, end) = (address(first), address(end));
            let mut bytes = vec![0; usize::try_from(end - first).expect("a size")];
            if rest.starts_with("rw") && memory.read_exact_at(&mut bytes, first).is_ok() {
                look(&bytes);
            }
        }
    }

    /// Number of sockets that are open.
    pub fn sockets(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        let links = files
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).map_or(0, Iterator::count)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("a child can be signalled");
    }

    fn until_end(&mut self, patience: Duration, mut meanwhile: impl FnMut(&Self)) -> Ended {
        let deadline = Instant::now() + patience;
        let status = loop {
            meanwhile(self);
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!(
                    "{} had not ended {:?} after it was waited for, {:?} after its start; \
                     stderr:\n{}\nstdout:\n{}",
                    self.label,
                    patience,
                    self.started.elapsed(),
                    self.stderr(),
                    self.stdout.text()
                );
            }
            thread::sleep(POLL);
        };
        self.stdout.until_closed(&self.label);
        self.stderr.until_closed(&self.label);
        Ended {
            label: self.label.clone(),
            code: status.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            peak_kib: 0,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} had said:\n{}", self.label, self.stderr());
        }
    }
}

impl Ended {
    /// Demands an exit code.
    ///
    /// # Panics
    /// If it is another, with everything that the process said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}: exit code; stderr:\n{}\nstdout:\n{}",
            self.label,
            self.stderr,
            self.stdout
        );
        self
    }

    /// Demands that standard error holds `text`.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "{} does not say '{text}':\n{}",
            self.label,
            self.stderr
        );
        self
    }

    /// Demands that neither output holds `text`.
    ///
    /// # Panics
    /// If one does.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        let silent = !self.stderr.contains(text) && !self.stdout.contains(text);
        assert!(silent, "{} says '{text}':\n{}\n{}", self.label, self.stderr, self.stdout);
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is anything else.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}:\n{}", self.label, self.stdout))
    }
}

/// A program that has only just been linked cannot be started for a moment.
fn start(command: &mut Command) -> std::io::Result<Child> {
    use std::io::ErrorKind::{ExecutableFileBusy, NotFound};
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match command.spawn() {
            Err(error)
                if matches!(error.kind(), ExecutableFileBusy | NotFound)
                    && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(100));
            }
            other => return other,
        }
    }
}

/// What has come through a pipe so far.
#[derive(Default)]
struct Captured {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
}

impl Captured {
    fn from(mut pipe: impl Read + Send + 'static) -> Arc<Self> {
        let captured = Arc::new(Self::default());
        let own = Arc::clone(&captured);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut state = own.lock();
                state.bytes.extend_from_slice(&buffer[..count]);
                state.closed = count == 0;
                own.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        captured
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Whether what came satisfies `enough` in time; false at once if no more can come.
    fn wait(&self, patience: Duration, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if enough(&String::from_utf8_lossy(&state.bytes)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return false;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn until_closed(&self, label: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut state = self.lock();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{label} has ended, but something else holds its output");
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}
