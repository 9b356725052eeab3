//! What an intersection of three and of five sets costs beside one of two, all parties in one process
//! and nothing on a network: CPU time of all together, bytes, and the peak of memory. Run it with the
//! profile `release`, and RAYON_NUM_THREADS=1 for one core:
//! `cargo run --release -p convelo-mpc --example multi_cost [LOG2]`.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use convelo_mpc::vole::Hybrid;
use convelo_mpc::vole_multi::{Exchange, Leader, Link, MemberStart, Session};
use convelo_mpc::vole_psi;
use rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let log: u32 = std::env::args().nth(1).map_or(Ok(18), |log| log.parse())?;
    let items = 1 << log;
    for _ in 0..3 {
        let two = cost("vole_psi", 2, items, |_| two(items))?;
        for parties in [2, 3, 5] {
            let several = cost("vole_multi", parties, items, |parties| several(parties, items))?;
            println!("  {:.2} times the CPU of two parties, an item and party", several / two);
        }
    }
    Ok(())
}

/// Prints what a run costs, and returns the CPU time of an item and party.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cost(
    name: &str,
    parties: usize,
    items: usize,
    run: impl Fn(usize) -> Result<(u64, usize)>,
) -> Result<f64> {
    let began = cpu_seconds();
    let (common, bytes) = run(parties)?;
    let taken = cpu_seconds() - began;
    assert_eq!(common, items as u64 / 2, "half of the items are common");
    let each = taken / (items * parties) as f64;
    println!(
        "{name}, {parties} parties: {taken:.2} s, {:.0} ns an item and party, {:.2} MB, {:.1} bytes an item and \
         party but one, {:.0} MiB",
        each * 1e9,
        bytes as f64 / 1e6,
        bytes as f64 / (items * (parties - 1)) as f64,
        peak_memory() as f64 / 1024.0,
    );
    Ok(each)
}

/// Distinct numbers that are as good as random: half are common to all parties.
fn numbers(party: usize, count: usize) -> Zeroizing<Vec<u128>> {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let own = (party + 1) * count..(party + 1) * count + count / 2;
    let numbers = (0..count / 2).chain(own);
    Zeroizing::new(numbers.map(|number| (number as u128 + 1).wrapping_mul(ODD)).collect())
}

/// How many items are common, and how many bytes were sent. All parties learn the result.
fn several(parties: usize, items: usize) -> Result<(u64, usize)> {
    let mut rng = UnwrapErr(getrandom::SysRng);
    let members = parties - 1;
    let session = Session { sid: [7; 32], members, leader_items: items, hybrid: Hybrid::Yes };
    let link = |member| Link { session, member, items, told: true };
    let mut bytes = 0;
    let mut sent = |message: Vec<u8>| {
        bytes += message.len();
        message
    };
    let exchanges = (0..members).map(|member| Exchange::new(link(member), &mut rng));
    let mut exchanges: Vec<_> = exchanges.collect::<std::result::Result<_, _>>()?;
    for from in 0..members {
        for to in (0..members).filter(|to| *to != from) {
            let key = exchanges[from].key(to)?;
            exchanges[to].read(from, &sent(key))?;
        }
    }
    let mut leader = Leader::new(session, numbers(0, items), &mut rng)?;
    let mut waits = Vec::new();
    for (member, exchange) in exchanges.into_iter().enumerate() {
        let keys = exchange.finish().map_err(|_| "unfinished")?;
        let (m, choice) = MemberStart::new(keys, numbers(member + 1, items), &mut rng)?;
        let (mut l, answer) = leader.link(link(member))?.choice(&sent(choice), &mut rng)?;
        let mut m = m.answer(&sent(answer))?;
        while let Some(trees) = m.trees(&mut rng) {
            let masked = l.trees(&sent(trees))?;
            m.masked(&sent(masked))?;
        }
        let mut l = l.masked().map_err(|_| "unfinished")?;
        let mut m = m.unmasked(&mut rng).map_err(|_| "unfinished")?;
        while let Some(shares) = m.shares()? {
            l.shares(&sent(shares))?;
        }
        leader.add(l.finish().map_err(|_| "unfinished")?)?;
        waits.push(m.sent().map_err(|_| "unfinished")?.ok_or("it is told")?);
    }
    let found = leader.finish().map_err(|_| "unfinished")?;
    for (member, m) in waits.into_iter().enumerate() {
        let mut telling = found.tell(member).ok_or("it is told")?;
        let mut m = m.found(&sent(telling.message().ok_or("a number")?))?;
        while let Some(tags) = telling.message() {
            m.tags(&sent(tags))?;
        }
        let marks = m.finish().map_err(|_| "unfinished")?;
        assert_eq!(marks.count_ones(), found.marks().count_ones());
    }
    Ok((found.marks().count_ones(), bytes))
}

fn two(items: usize) -> Result<(u64, usize)> {
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
    let r = vole_psi::ReceiverStart::new(session, numbers(0, items))?;
    let (s, choice) = vole_psi::SenderStart::new(session, numbers(1, items), &mut rng)?;
    let (mut r, answer) = r.choice(&sent(choice), &mut rng)?;
    let mut s = s.answer(&sent(answer))?;
    while let Some(trees) = s.trees(&mut rng) {
        let masked = r.trees(&sent(trees))?;
        s.masked(&sent(masked))?;
    }
    let mut r = r.masked().map_err(|_| "unfinished")?;
    let mut s = s.unmasked().map_err(|_| "unfinished")?;
    while let Some(tags) = s.tags() {
        r.tags(&sent(tags))?;
    }
    let s = s.sent().ok_or("both learn")?;
    let (marks, told) = r.finish().map_err(|_| "unfinished")?;
    let learned = s.matches(&sent(told.ok_or("both learn")?))?;
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
