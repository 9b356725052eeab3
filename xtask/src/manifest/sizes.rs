//! How large an enclave is for the memory and the workers that the measured program gets: the one
//! formula, which the lint, `build.sh` and the docs share.

use std::fmt;

/// All threads of the measured program with `workers` workers, as it prints them.
const fn program_threads(workers: u32) -> u32 {
    MAIN_THREADS + workers + workers + BLOCKING_THREADS
}

const MAIN_THREADS: u32 = 1;

/// Four quotes and one verification, in two queues each; two joins, one renewal of the certificate and one task
/// that gives memory back.
const BLOCKING_THREADS: u32 = 2 * (4 + 1) + 2 + 1 + 1;

/// What Gramine takes for itself: two threads always, and one while a pipe is made.
const GRAMINE_THREADS: u32 = 3;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The image of the program, Gramine, and what both of them need beside the program's memory.
const OVERHEAD: u64 = 96 * MIB;

/// What five slots for threads take in the enclave, used or not: 0.4 MiB each.
const FIVE_SLOTS: u64 = 2 * MIB;

/// More than any enclave of today; keeps the formula from overflowing.
const MAXIMUM_MEMORY: u64 = 512 * GIB;

const MAXIMUM_WORKERS: u32 = 64;

/// The program does not start with less: stacks of all threads but its first, 24 MiB for itself and 32 MiB for
/// connections, jobs and sets.
const fn least(workers: u32) -> u64 {
    (program_threads(workers) as u64 - 1) * 2 * MIB + 24 * MIB + 32 * MIB
}

/// Memory and workers as the measured program's arguments say them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// As it is written: `3G` and `3072M` are different arguments, and so different measurements.
    memory: String,
    bytes: u64,
    workers: u32,
}

impl Sizes {
    /// Reads both arguments.
    pub(crate) fn new(memory: &str, workers: &str) -> Result<Self, String> {
        let bytes = bytes(memory)?;
        let digits = workers.bytes().all(|byte| byte.is_ascii_digit()) && !workers.starts_with('0');
        let number = workers.parse().ok().filter(|number| digits && *number <= MAXIMUM_WORKERS);
        let workers = number.ok_or_else(|| {
            format!("workers are a number from 1 to {MAXIMUM_WORKERS}, not {workers:?}")
        })?;
        if bytes < least(workers) {
            return Err(format!(
                "memory {memory} is too little: the program does not start with less than {} if it has \
                 {workers} workers",
                written(least(workers))
            ));
        }
        Ok(Self { memory: memory.to_owned(), bytes, workers })
    }

    /// The memory, as it is written.
    pub(crate) fn memory(&self) -> &str {
        &self.memory
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> u32 {
        self.workers
    }

    /// `sgx.max_threads`.
    pub(crate) fn threads(&self) -> u32 {
        program_threads(self.workers) + GRAMINE_THREADS
    }

    /// How many bytes must fit into the enclave.
    pub(crate) fn needed(&self) -> u64 {
        self.bytes + OVERHEAD + (u64::from(self.threads()) * FIVE_SLOTS).div_ceil(5)
    }

    /// `sgx.enclave_size`: the hardware takes powers of two only.
    pub(crate) fn enclave(&self) -> String {
        written(self.needed().next_power_of_two())
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory: {}", self.memory)?;
        writeln!(f, "workers: {}", self.workers)?;
        writeln!(f, "max_threads: {}", self.threads())?;
        write!(f, "enclave: {}", self.enclave())
    }
}

/// Reads bytes, or a number with K, M or G.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], KIB),
        Some(b'M' | b'm') => (&text[..text.len() - 1], MIB),
        Some(b'G' | b'g') => (&text[..text.len() - 1], GIB),
        _ => (text, 1),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let number = digits.parse::<u64>().ok().filter(|_| plain);
    let number = number.and_then(|number| number.checked_mul(unit));
    number.filter(|&number| number <= MAXIMUM_MEMORY).ok_or_else(|| {
        format!(
            "a size is a number of bytes above 0, or one with K, M or G, up to {}, not {text:?}",
            written(MAXIMUM_MEMORY)
        )
    })
}

/// A number of bytes with the largest unit that divides it.
fn written(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(GIB) => format!("{}G", bytes / GIB),
        _ if bytes.is_multiple_of(MIB) => format!("{}M", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{}K", bytes / KIB),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enclave_holds_memory_gramine_and_a_slot_for_each_thread() {
        for (memory, workers, threads, enclave) in [
            ("1G", "4", 26, "2G"),
            ("3G", "4", 26, "4G"),
            ("3072M", "4", 26, "4G"),
            ("4G", "4", 26, "8G"),
            ("900M", "1", 20, "1G"),
            // 920 + 96 + 20 x 0.4 is exactly 1024; a byte more is too much.
            ("920M", "1", 20, "1G"),
            ("964689921", "1", 20, "2G"),
            ("12G", "64", 146, "16G"),
        ] {
            let sizes = Sizes::new(memory, workers).unwrap();
            assert_eq!((sizes.threads(), sizes.enclave().as_str()), (threads, enclave), "{memory}");
        }
    }

    #[test]
    fn what_is_no_size() {
        for wrong in
            ["", "0", "0G", "G", "1T", "1t", "+1", "1.5G", "-1", " 1G", "01G", "513G", "1GB"]
        {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes("512G"), Ok(512 << 30));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("3g"), Ok(3 << 30));
        for wrong in ["", "0", "65", "four", "+4", "04", "4 "] {
            assert!(Sizes::new("1G", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_written_with_the_largest_unit() {
        for (bytes, text) in [(4 << 30, "4G"), (1536 << 20, "1536M"), (12 << 10, "12K"), (7, "7")] {
            assert_eq!(written(bytes), text);
        }
    }
}
