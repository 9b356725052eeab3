//! What the oblivious pseudorandom function and unbalanced sets cost: CPU time of the process by
//! step, both parties in one process and nothing on a network. Run it with the profile `release`,
//! and RAYON_NUM_THREADS=1 for one core:
//! `cargo run --release -p convelo-mpc --example oprf_cost [SERVER_ITEMS [CLIENT_ITEMS]]`.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use convelo_mpc::oprf::{Mode, SecretKey};
use convelo_mpc::unbalanced::{Client, HEADER_BYTES, Header, Preparation, Reader, Server, Session};
use rand_core::UnwrapErr;
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let server: usize = arguments.next().map_or(Ok(1 << 17), |items| items.parse())?;
    let client: usize = arguments.next().map_or(Ok(1 << 14), |items| items.parse())?;
    for mode in [Mode::Oprf, Mode::Voprf] {
        println!("{mode:?}, {server} items prepared, {client} asked");
        run(mode, server, client)?;
    }
    Ok(())
}

fn run(mode: Mode, prepared: usize, asked: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = UnwrapErr(getrandom::SysRng);
    let key = SecretKey::random(&mut rng);
    let began = cpu_seconds();
    let mut preparation = Preparation::new(&key, mode, prepared, 1 << 28)?;
    preparation.add(&numbers(0, prepared))?;
    let set = preparation.finish()?;
    step("prepare", began, prepared);

    let began = cpu_seconds();
    let bytes: Vec<u8> = set.pieces().flatten().collect();
    let (header, tags) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("a short header")?;
    let mut reader = Reader::new(Header::from_bytes(header, prepared)?);
    reader.read(tags)?;
    let set = reader.finish()?;
    step("write and read", began, prepared);

    let session = Session { sid: [7; 32], set: *set.header(), asked };
    let mut client = Client::new(session, numbers(prepared.saturating_sub(asked / 2), asked))?;
    let mut server = Server::new(session, &key)?;
    let (mut blind, mut evaluate, mut finalize, mut sent) = (0.0, 0.0, 0.0, 0);
    loop {
        let began = cpu_seconds();
        let Some(question) = client.ask(&mut rng) else { break };
        let blinded = cpu_seconds();
        let answer = server.answer(&question, &mut rng)?;
        let evaluated = cpu_seconds();
        client.answer(&answer)?;
        blind += blinded - began;
        evaluate += evaluated - blinded;
        finalize += cpu_seconds() - evaluated;
        sent += question.len() + answer.len();
    }
    for (name, seconds) in [("blind", blind), ("evaluate", evaluate), ("finalize", finalize)] {
        step(name, cpu_seconds() - seconds, asked);
    }
    let began = cpu_seconds();
    let Ok(answered) = client.answered() else { return Err("unfinished".into()) };
    let marks = answered.compare(&set)?;
    step("compare", began, asked);
    println!("  {} found, set of {} bytes, {sent} bytes sent", marks.count_ones(), bytes.len());
    Ok(())
}

fn step(name: &str, began: f64, items: usize) {
    let taken = cpu_seconds() - began;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let each = taken * 1e6 / items as f64;
    println!("  {name}: {taken:.3} s, {each:.2} us an item");
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
