//! What the engine costs: `engine_cost SETS KEYS` joins SETS sets of KEYS random pseudonyms, half
//! of which are common, and prints seconds of processor time, wall time and memory as JSON. Of two
//! sets also what [`leaky_join`] takes for the same, on one thread.

use std::time::Instant;
use std::{env, fs};

use convelo_psi::{PSEUDONYM_BYTES, ReceivedSet, SetReceiver, engine};
use serde_json::json;

const CHUNK: usize = 1 << 20;

fn main() {
    let mut arguments = env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let sets: u64 = arguments.next().expect("SETS");
    let keys: u64 = arguments.next().expect("KEYS");
    let mut received = Vec::new();
    let mut receive_cpu = 0.0;
    let leaky_cpu = (sets == 2).then(|| leaky_cpu(keys));
    let base = resident();
    for set in 0..sets {
        let wire = wire_form(set, keys);
        let before = cpu();
        let mut receiver = SetReceiver::new(keys);
        for chunk in wire.chunks(CHUNK) {
            receiver.push_chunk(chunk).expect("ascending");
        }
        received.push(receiver.finish().expect("complete"));
        receive_cpu += cpu() - before;
    }
    let received: Vec<ReceivedSet> = received;
    let held = resident() - base;
    fs::write("/proc/self/clear_refs", "5").expect("procfs: from here on the peak is the join's");
    let (before, wall) = (cpu(), Instant::now());
    let bitmaps = engine::intersect(received).expect("memory");
    let (join_cpu, join_wall) = (cpu() - before, wall.elapsed().as_secs_f64());
    assert!(bitmaps.iter().all(|bitmap| bitmap.count_ones() == keys / 2));
    let figures = json!({
        "sets": sets,
        "keys": keys,
        "receive_cpu_seconds": receive_cpu,
        "join_cpu_seconds": join_cpu,
        "join_wall_seconds": join_wall,
        "leaky_cpu_seconds": leaky_cpu,
        "held_bytes": held,
        "peak_bytes": status("VmHWM:") - base,
        "kept_bytes": resident() - base,
    });
    let mut out = std::io::stdout().lock();
    std::io::Write::write_all(&mut out, format!("{figures}\n").as_bytes()).expect("stdout");
}

/// A set in no order: the first half is common to all.
fn values(set: u64, keys: u64) -> Vec<u128> {
    let common = keys / 2;
    let own = |n: u64| if n < common { n } else { (set + 1) << 40 | n };
    (0..keys).map(own).map(|n| u128::from(mixed(n)) << 64 | u128::from(mixed(!n))).collect()
}

/// A set on the wire.
fn wire_form(set: u64, keys: u64) -> Vec<u8> {
    let mut values = values(set, keys);
    values.sort_unstable();
    let mut wire = Vec::with_capacity(values.len() * PSEUDONYM_BYTES);
    for value in values {
        wire.extend(value.to_be_bytes());
    }
    wire
}

/// Processor seconds of the leaky join of two such sets.
fn leaky_cpu(keys: u64) -> f64 {
    let (left, right) = (values(0, keys), values(1, keys));
    let before = cpu();
    let marks = leaky_join(&left, &right);
    let used = cpu() - before;
    for marks in marks {
        let marked: u64 = marks.iter().map(|word| u64::from(word.count_ones())).sum();
        assert_eq!(marked, keys / 2);
    }
    used
}

/// The join that nobody is hidden from: a radix hash join, whose accesses tell what matches. Both lists
/// are dealt out by their leading bits to partitions that fit a core's cache; in each partition one goes
/// into a table by linear probing and the other is looked up. One mark for each value, in the order of
/// the list, 64 to a word.
fn leaky_join(left: &[u128], right: &[u128]) -> [Vec<u64>; 2] {
    let bits = (left.len() / PARTITION).next_power_of_two().trailing_zeros();
    let (left_parts, right_parts) = (Dealt::of(left, bits), Dealt::of(right, bits));
    let mut marks = [left, right].map(|values| vec![0_u64; values.len().div_ceil(64)]);
    let mut table: Vec<usize> = Vec::new();
    for part in 0..1 << bits {
        let (build, probe) = (left_parts.range(part), right_parts.range(part));
        let slots = (2 * build.len()).next_power_of_two();
        table.clear();
        table.resize(slots, usize::MAX);
        let slot = |value: u128| usize::try_from(value & (slots as u128 - 1)).unwrap_or(0);
        for at in build {
            let mut place = slot(left_parts.values[at]);
            while table[place] != usize::MAX {
                place = (place + 1) & (slots - 1);
            }
            table[place] = at;
        }
        for at in probe {
            let value = right_parts.values[at];
            let mut place = slot(value);
            while table[place] != usize::MAX {
                if left_parts.values[table[place]] == value {
                    for (marks, rank) in marks
                        .iter_mut()
                        .zip([left_parts.ranks[table[place]], right_parts.ranks[at]])
                    {
                        marks[rank as usize / 64] |= 1 << (rank % 64);
                    }
                    break;
                }
                place = (place + 1) & (slots - 1);
            }
        }
    }
    marks
}

/// Values of a partition: with ranks and table half a megabyte.
const PARTITION: usize = 1 << 14;

/// A list dealt out to partitions by its values' leading bits.
struct Dealt {
    values: Vec<u128>,
    ranks: Vec<u32>,
    /// Where each partition begins, and where the last one ends.
    starts: Vec<usize>,
}

impl Dealt {
    fn of(list: &[u128], bits: u32) -> Self {
        let part = |value: u128| usize::try_from(value.unbounded_shr(128 - bits)).unwrap_or(0);
        let mut starts = vec![0; (1 << bits) + 1];
        for value in list {
            starts[part(*value) + 1] += 1;
        }
        for part in 1..starts.len() {
            starts[part] += starts[part - 1];
        }
        let (mut values, mut ranks) = (vec![0; list.len()], vec![0; list.len()]);
        let mut next = starts.clone();
        for (rank, value) in (0_u32..).zip(list) {
            let next = &mut next[part(*value)];
            (values[*next], ranks[*next]) = (*value, rank);
            *next += 1;
        }
        Self { values, ranks, starts }
    }

    fn range(&self, part: usize) -> std::ops::Range<usize> {
        self.starts[part]..self.starts[part + 1]
    }
}

/// splitmix64.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

/// Processor time of all threads so far, seconds.
fn cpu() -> f64 {
    let times = fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = times.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = [12, 13].iter().map(|at| fields[*at].parse::<f64>().unwrap_or(0.0)).sum();
    ticks / 100.0
}

fn resident() -> i64 {
    status("VmRSS:")
}

fn status(name: &str) -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line of status");
    let kilobytes: String = line.chars().filter(char::is_ascii_digit).collect();
    kilobytes.parse::<i64>().unwrap_or(0) * 1024
}
