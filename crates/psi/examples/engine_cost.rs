//! What the engine costs: `engine_cost SETS KEYS` joins SETS sets of KEYS random fingerprints, half
//! of which are common, and prints seconds of processor time, wall time and memory as JSON.

use std::time::Instant;
use std::{env, fs};

use convelo_psi::{FINGERPRINT_BYTES, ReceivedSet, SetReceiver, engine};
use serde_json::json;

const CHUNK: usize = 1 << 20;

fn main() {
    let mut arguments = env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let sets: u64 = arguments.next().expect("SETS");
    let keys: u64 = arguments.next().expect("KEYS");
    let mut received = Vec::new();
    let mut receive_cpu = 0.0;
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
    let bitmaps = engine::intersect(received);
    let (join_cpu, join_wall) = (cpu() - before, wall.elapsed().as_secs_f64());
    assert!(bitmaps.iter().all(|bitmap| bitmap.count_ones() == keys / 2));
    let figures = json!({
        "sets": sets,
        "keys": keys,
        "receive_cpu_seconds": receive_cpu,
        "join_cpu_seconds": join_cpu,
        "join_wall_seconds": join_wall,
        "held_bytes": held,
        "peak_bytes": status("VmHWM:") - base,
        "kept_bytes": resident() - base,
    });
    let mut out = std::io::stdout().lock();
    std::io::Write::write_all(&mut out, format!("{figures}\n").as_bytes()).expect("stdout");
}

/// A set on the wire: the first half is common to all, in random order of numbers.
fn wire_form(set: u64, keys: u64) -> Vec<u8> {
    let common = keys / 2;
    let own = |n: u64| if n < common { n } else { (set + 1) << 40 | n };
    let mut values: Vec<u128> =
        (0..keys).map(own).map(|n| u128::from(mixed(n)) << 64 | u128::from(mixed(!n))).collect();
    values.sort_unstable();
    let mut wire = Vec::with_capacity(values.len() * FINGERPRINT_BYTES);
    for value in values {
        wire.extend(value.to_be_bytes());
    }
    wire
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
