//! What the sum over an intersection costs, both parties in one process and nothing on a network:
//! CPU time of the process for both together, by step, and bytes. Run it with the profile `release`,
//! and RAYON_NUM_THREADS=1 for one core:
//! `cargo run --release -p convelo-mpc --example sum_cost [ITEMS [COLUMNS]]`.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use convelo_mpc::curve;
use convelo_mpc::ecdh_sum::{Compared, Counted, End, Party, Receiver, Sender, Session};
use convelo_mpc::vole::Hybrid;
use rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let items: usize = arguments.next().map_or(Ok(10_000), |items| items.parse())?;
    let columns: usize = arguments.next().map_or(Ok(1), |columns| columns.parse())?;
    println!("{items} items of each, {columns} columns, on {}", curve::unit());
    for hybrid in [Hybrid::No, Hybrid::Yes] {
        for _ in 0..3 {
            run(items, columns, hybrid)?;
        }
    }
    Ok(())
}

fn run(items: usize, columns: usize, hybrid: Hybrid) -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = UnwrapErr(getrandom::SysRng);
    let session = Session {
        sid: [7; 32],
        receiver_items: items,
        sender_items: items,
        columns,
        minimum: 1,
        learns: Party::Receiver,
        hybrid,
    };
    let values = Zeroizing::new(vec![3; items * columns]);
    let mut bytes = 0;
    let mut sent = |message: Vec<u8>| {
        bytes += message.len();
        message
    };
    let began = cpu_seconds();
    let mut r = Receiver::new(session, numbers(0, items), &mut rng)?;
    let mut s = Sender::new(session, numbers(items / 2, items), values, &mut rng)?;
    while let (Some(blinded), Some(points)) = (r.blinded(), s.points()) {
        s.blinded(&sent(blinded))?;
        r.points(&sent(points))?;
    }
    while let Some(tags) = s.tags() {
        r.tags(&sent(tags))?;
    }
    let Ok((compared, count)) = r.compare() else { return Err("unfinished".into()) };
    let found = cpu_seconds();
    let Ok((s, choice)) = s.choice(&mut rng) else { return Err("unfinished".into()) };
    let (Compared::Enough(r), Counted::Enough(s)) = (compared, s.count(&sent(count))?) else {
        return Err("half of the items are common".into());
    };
    let (mut r, answer) = r.choice(&sent(choice), &mut rng)?;
    let mut s = s.answer(&sent(answer))?;
    let prepared = cpu_seconds();
    while let Some(choices) = r.choices() {
        let values = s.choices(&sent(choices))?;
        r.values(&sent(values))?;
    }
    let (Ok(End::Waits(r)), Ok(End::Tells(_, total))) = (r.finish(), s.finish()) else {
        return Err("unfinished".into());
    };
    let learnt = r.total(&sent(total))?;
    let end = cpu_seconds();
    assert_eq!(learnt.sums, Some(vec![3 * learnt.count; columns]));
    assert_eq!(learnt.count, items as u64 - items as u64 / 2);
    println!(
        "  {hybrid:?} for ML-KEM: {:.3} s, of which the intersection {:.3}, base transfers {:.3}, \
         transfers {:.4}; {:.2} MB",
        end - began,
        found - began,
        prepared - found,
        end - prepared,
        f64::from(u32::try_from(bytes)?) / 1e6
    );
    Ok(())
}

/// Distinct numbers that are as good as random, from this one on.
fn numbers(first: usize, count: usize) -> Zeroizing<Vec<u128>> {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    Zeroizing::new(
        (first..first + count).map(|number| (number as u128).wrapping_mul(ODD)).collect(),
    )
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
    seconds
}
