//! What an intersection of two sets costs, both parties in one process and nothing on a network: CPU
//! time of the process for both together, bytes, and the peak of memory. Run it with the profile
//! `release`, and RAYON_NUM_THREADS=1 for one core:
//! `cargo run --release -p convelo-mpc --example psi_cost [LOG2]`.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use convelo_mpc::vole::Hybrid;
use convelo_mpc::{curve, ecdh, vole_psi};
use rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let log: u32 = std::env::args().nth(1).map_or(Ok(20), |log| log.parse())?;
    for _ in 0..3 {
        cost("vole", log, vole)?;
    }
    println!("  on {}", curve::unit());
    // An item takes the same time, whatever their number.
    cost("ecdh", log.min(17), ecdh)
}

/// How many items are common, and how many bytes were sent.
type Run = fn(usize) -> Result<(u64, usize), Box<dyn std::error::Error>>;

fn cost(name: &str, log: u32, run: Run) -> Result<(), Box<dyn std::error::Error>> {
    let items = 1 << log;
    let began = cpu_seconds();
    let (common, bytes) = run(items)?;
    let taken = cpu_seconds() - began;
    assert_eq!(common, items as u64 / 2, "half of the items are common");
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (each, mebibytes) = (taken * 1e9 / items as f64, peak_memory() as f64 / 1024.0);
    println!(
        "{name} 2^{log}: {taken:.2} s, {each:.0} ns an item, {:.2} MB, {mebibytes:.0} MiB",
        f64::from(u32::try_from(bytes)?) / 1e6
    );
    Ok(())
}

fn ecdh(items: usize) -> Result<(u64, usize), Box<dyn std::error::Error>> {
    let mut rng = UnwrapErr(getrandom::SysRng);
    let session = ecdh::Session {
        sid: [7; 32],
        receiver_items: items,
        sender_items: items,
        learn: ecdh::Learn::Intersection,
        both_learn: false,
    };
    let mut bytes = 0;
    let mut sent = |message: Vec<u8>| {
        bytes += message.len();
        message
    };
    let mut r = ecdh::Receiver::new(session, numbers(0, items), &mut rng)?;
    let mut s = ecdh::Sender::new(session, numbers(items / 2, items), &mut rng)?;
    while let (Some(blinded), Some(points)) = (r.blinded(), s.points()) {
        s.blinded(&sent(blinded))?;
        r.points(&sent(points))?;
        while let Some(tags) = s.tags() {
            r.tags(&sent(tags))?;
        }
    }
    match r.finish() {
        Ok((ecdh::Learnt::Intersection(marks), None)) => Ok((marks.count_ones(), bytes)),
        _ => Err("unfinished".into()),
    }
}

/// Distinct numbers that are as good as random, from this one on.
fn numbers(first: usize, count: usize) -> Zeroizing<Vec<u128>> {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    Zeroizing::new(
        (first..first + count).map(|number| (number as u128).wrapping_mul(ODD)).collect(),
    )
}

fn vole(items: usize) -> Result<(u64, usize), Box<dyn std::error::Error>> {
    let mut rng = UnwrapErr(getrandom::SysRng);
    let session = vole_psi::Session {
        sid: [7; 32],
        receiver_items: items,
        sender_items: items,
        hybrid: Hybrid::Yes,
        both_learn: true,
    };
    let mut bytes = 0;
    let mut sent = |message: Vec<u8>| {
        bytes += message.len();
        message
    };
    let began = cpu_seconds();
    let r = vole_psi::ReceiverStart::new(session, numbers(0, items))?;
    let (s, choice) = vole_psi::SenderStart::new(session, numbers(items / 2, items), &mut rng)?;
    let (mut r, answer) = r.choice(&sent(choice), &mut rng)?;
    let encoded = cpu_seconds();
    let mut s = s.answer(&sent(answer))?;
    let (mut trees, mut masked) = (0.0, 0.0);
    loop {
        let at = cpu_seconds();
        let Some(message) = s.trees(&mut rng) else { break };
        let between = cpu_seconds();
        let message = r.trees(&sent(message))?;
        trees += between - at;
        masked += cpu_seconds() - between;
        s.masked(&sent(message))?;
    }
    let unmasked = cpu_seconds();
    let (Ok(mut r), Ok(mut s)) = (r.masked(), s.unmasked()) else {
        return Err("unfinished".into());
    };
    while let Some(tags) = s.tags() {
        r.tags(&sent(tags))?;
    }
    let s = s.sent().ok_or("both learn")?;
    let Ok((marks, Some(told))) = r.finish() else { return Err("unfinished".into()) };
    let learned = s.matches(&sent(told))?;
    let end = cpu_seconds();
    println!(
        "  setup and encoding {:.3}, the sender's codes {trees:.3}, the receiver's codes, masks and tags {masked:.3}, \
         the sender's tags {:.3}, comparison {:.3}",
        encoded - began,
        unmasked - encoded - trees - masked,
        end - unmasked
    );
    assert_eq!(learned.count_ones(), marks.count_ones());
    Ok((marks.count_ones(), bytes))
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
    seconds
}

/// In KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
