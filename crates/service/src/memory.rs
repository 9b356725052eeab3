//! One number for all memory that the measured program takes, and how it is shared.
//!
//! ```text
//! all = threads' stacks + PROGRAM + connections + jobs + sets
//! rest = all - threads' stacks - PROGRAM
//! connections = rest / 4     jobs = rest / 16 * 3     sets = what is left, more than half of the rest
//! ```
//!
//! The connections' part is divided by what a connection takes at worst, so it says how many there may be
//! of each kind; an eighth of the jobs' part says in the same way how many jobs may wait. What a running
//! job takes beside its sets is reserved when its last party comes, and its sets when they are announced.
//! Above some size, limits do not grow any longer, and the sets get what that leaves.

use std::fmt;

use convelo_channel::ListenerLimits;

use crate::limits::{
    FRAME_BYTES, MAXIMUM_RUNNING_JOBS, MAXIMUM_STREAMS, MAXIMUM_WAITING_JOBS, WINDOW_BYTES,
};

/// Stack of each thread that the program starts.
pub(crate) const STACK_BYTES: usize = 2 << 20;

/// What the program takes whatever it does: its tables of sources and verdicts, TLS configurations, the work
/// of the threads that attest, and what the allocator loses between its pieces.
pub(crate) const PROGRAM_BYTES: u64 = 24 << 20;

/// What a handshake takes at worst.
pub(crate) const HANDSHAKE_BYTES: u64 = 128 << 10;

/// What a connection without a seat takes at worst: all that it may send, the proof that it asked for
/// and does not read, and the state of TLS and HTTP/2.
pub(crate) const STRANGER_BYTES: u64 = 512 << 10;

/// What a connection with a seat takes at worst, besides uploads: the same, and what the job has to
/// say to it before it runs.
pub(crate) const SEATED_BYTES: u64 = 1 << 20;

/// What a job takes at worst while it waits, besides its connections: its text, as read by those who
/// need it.
pub(crate) const WAITING_JOB_BYTES: u64 = 256 << 10;

/// What a running job takes at worst, besides what follows from its parties: the chunks in its queue.
const RUNNING_JOB_BYTES: u64 = 2 << 20;

/// What an upload takes at worst, besides the window of its connection: a message that is being read,
/// and one that has been.
const UPLOAD_BYTES: u64 = 384 << 10;

/// What each party takes for each party of its job: what the one sent to the other, which is kept,
/// waits to be sent, and is being sent.
const PAIR_BYTES: u64 = 9 << 10;

/// Windows are never smaller: 256 KiB.
const LEAST_WINDOW: u32 = 256 << 10;

/// The program does not start with less memory for connections, jobs and sets.
const LEAST_REST: u64 = 32 << 20;

/// How many streams a connection may carry where they are counted.
const STREAMS: u32 = 1;

/// How much there may be of what takes memory besides sets.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Connections.
    pub connections: ListenerLimits,
    /// Jobs that wait for parties.
    pub waiting_jobs: usize,
    /// Jobs that run.
    pub running_jobs: usize,
    /// Bytes that all running jobs take beside their sets.
    pub beside_sets: u64,
    /// HTTP/2 flow control window of a stream and of a connection.
    pub window: u32,
    /// Streams that a connection may carry at once.
    pub streams: u32,
}

impl Default for Limits {
    /// Those of a service whose memory besides sets nobody has measured out.
    fn default() -> Self {
        Self {
            connections: ListenerLimits::default(),
            waiting_jobs: MAXIMUM_WAITING_JOBS,
            running_jobs: MAXIMUM_RUNNING_JOBS,
            beside_sets: u64::MAX,
            window: WINDOW_BYTES,
            streams: MAXIMUM_STREAMS,
        }
    }
}

impl Limits {
    /// Largest HTTP/2 frame accepted.
    pub(crate) fn frame(&self) -> u32 {
        self.window.min(FRAME_BYTES)
    }

    /// What each party of a running job with this many takes beside its set.
    pub(crate) fn beside_a_set(&self, parties: usize) -> u64 {
        let window = u64::from(self.window);
        window + window / 4 + UPLOAD_BYTES + parties as u64 * PAIR_BYTES
    }

    /// What a running job with this many parties takes beside their sets.
    pub(crate) fn beside_sets_of(&self, parties: usize) -> u64 {
        RUNNING_JOB_BYTES + parties as u64 * self.beside_a_set(parties)
    }

    /// What of it is nobody's in particular.
    pub(crate) fn beside_all_sets() -> u64 {
        RUNNING_JOB_BYTES
    }
}

/// How the memory of the measured program is shared.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    all: u64,
    threads: usize,
    connections: u64,
    jobs: u64,
    sets: u64,
    limits: Limits,
}

/// There is too little memory to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is too little: with {threads} threads, the service needs at least {}",
    size(*.least)
)]
pub struct TooLittle {
    threads: usize,
    least: u64,
}

impl Shares {
    /// Shares out this many bytes in a program with this many threads, the first of which has a stack from
    /// the system.
    ///
    /// # Errors
    /// If that is too little.
    pub fn of(all: u64, threads: usize) -> Result<Self, TooLittle> {
        let taken = stacks(threads) + PROGRAM_BYTES;
        let least = (taken + LEAST_REST).next_multiple_of(1 << 20);
        if all < least {
            return Err(TooLittle { threads, least });
        }
        let rest = all - taken;
        let window = u32::try_from(1u64 << (all >> 10).ilog2()).unwrap_or(u32::MAX);
        let window = window.clamp(LEAST_WINDOW, WINDOW_BYTES);

        // As many handshakes as strangers, and twice as many seats.
        let of_each = HANDSHAKE_BYTES + STRANGER_BYTES + 2 * SEATED_BYTES;
        let most = ListenerLimits::default();
        let count = count(rest / 4 / of_each, most.strangers);
        let connections = ListenerLimits { handshakes: count, strangers: count, seated: 2 * count };

        let mut limits = Limits {
            connections,
            waiting_jobs: self::count(rest / 16 * 3 / 8 / WAITING_JOB_BYTES, MAXIMUM_WAITING_JOBS),
            window,
            streams: STREAMS,
            ..Limits::default()
        };
        let waiting = limits.waiting_jobs as u64 * WAITING_JOB_BYTES;
        let smallest = limits.beside_sets_of(2);
        let most = MAXIMUM_RUNNING_JOBS as u64 * smallest;
        limits.beside_sets = (rest / 16 * 3 - waiting).min(most);
        limits.running_jobs = self::count(limits.beside_sets / smallest, MAXIMUM_RUNNING_JOBS);
        let (connections, jobs) = (count as u64 * of_each, waiting + limits.beside_sets);
        Ok(Self { all, threads, connections, jobs, sets: rest - connections - jobs, limits })
    }

    /// What connections and jobs may be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Bytes for the sets of all jobs.
    pub fn sets(&self) -> u64 {
        self.sets
    }

    /// Bytes that come from the allocator; those of sets and stacks do not.
    pub fn heap(&self) -> u64 {
        PROGRAM_BYTES + self.connections + self.jobs
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenerLimits { handshakes, strangers, seated } = self.limits.connections;
        let Limits { waiting_jobs, running_jobs, .. } = self.limits;
        write!(
            f,
            "{} in all; {} for stacks; {} for the program; {} for connections: {handshakes} in their \
             handshake, {strangers} without a seat, {seated} with one; {} for jobs: {waiting_jobs} that \
             wait, {running_jobs} of two parties that run; {} for sets",
            size(self.all),
            size(stacks(self.threads)),
            size(PROGRAM_BYTES),
            size(self.connections),
            size(self.jobs),
            size(self.sets),
        )
    }
}

/// All threads but the first.
fn stacks(threads: usize) -> u64 {
    (threads.saturating_sub(1) * STACK_BYTES) as u64
}

fn count(fits: u64, most: usize) -> usize {
    usize::try_from(fits).unwrap_or(usize::MAX).clamp(1, most)
}

/// In MiB, rounded down.
pub(crate) fn size(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use convelo_psi::limits::MAXIMUM_PARTIES;

    use super::*;

    const THREADS: usize = 23;

    #[test]
    fn all_shares_together_are_all() {
        for shift in 27..45 {
            let all = (1 << shift) + 12345;
            let shares = Shares::of(all, THREADS).expect("enough");
            assert_eq!(stacks(THREADS) + shares.heap() + shares.sets(), all);
            let rest = all - stacks(THREADS) - PROGRAM_BYTES;
            assert!(shares.sets() * 16 >= rest * 9, "{shares}");
        }
    }

    #[test]
    fn more_memory_never_means_less_of_anything() {
        let mut before = Shares::of(120 << 20, THREADS).expect("enough");
        for mebibytes in (121..5000).chain((5000..100_000).step_by(997)) {
            let now = Shares::of(mebibytes << 20, THREADS).expect("enough");
            let (Limits { connections: was, .. }, Limits { connections: is, .. }) =
                (before.limits, now.limits);
            assert!(is.handshakes >= was.handshakes && is.seated >= was.seated);
            assert!(is.strangers >= was.strangers);
            assert!(now.limits.waiting_jobs >= before.limits.waiting_jobs);
            // Another job that waits, or another connection of each kind, takes more than what there is more
            // of.
            let beside_sets = now.limits.beside_sets + WAITING_JOB_BYTES;
            assert!(beside_sets >= before.limits.beside_sets, "{before}\n{now}");
            assert!(now.sets + (4 << 20) >= before.sets, "{before}\n{now}");
            before = now;
        }
    }

    #[test]
    fn much_memory_has_the_limits_of_any_service() {
        let (much, any) =
            (Shares::of(64 << 30, THREADS).expect("enough").limits, Limits::default());
        assert_eq!(format!("{:?}", much.connections), format!("{:?}", any.connections));
        assert_eq!((much.waiting_jobs, much.running_jobs), (any.waiting_jobs, any.running_jobs));
        assert_eq!(much.window, any.window);
    }

    #[test]
    fn the_most_parties_fit_into_the_default() {
        let shares = Shares::of(crate::limits::DEFAULT_ALL_MEMORY, THREADS).expect("enough");
        let needed = shares.limits.beside_sets_of(MAXIMUM_PARTIES);
        assert!(needed <= shares.limits.beside_sets, "{needed} of {shares}");
    }

    #[test]
    fn too_little() {
        for all in [0, 1, 64 << 20] {
            let error = Shares::of(all, THREADS).unwrap_err();
            assert_eq!(error.least, 100 << 20);
            assert!(error.to_string().ends_with("at least 100 MiB"), "{error}");
        }
        assert!(Shares::of(100 << 20, THREADS).is_ok());
    }
}
