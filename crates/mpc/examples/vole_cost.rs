//! What silent VOLE costs: time of each stage and role on one core, and bytes in each direction.
//!
//! `cargo run --release -p convelo-mpc --example vole_cost`

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a table for people")]

use std::time::{Duration, Instant};

use convelo_mpc::gf128::Gf128;
use convelo_mpc::vole::{Hybrid, Receiver, Sender, Session};
use getrandom::SysRng;
use rand_core::UnwrapErr;

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *spent += start.elapsed();
    result
}

fn main() {
    println!("ns per output: least of 7 runs, each stage by itself");
    println!("outputs  hybrid  S choice  R answer  S read  S trees+code  R trees+code  to R  to S");
    for hybrid in [Hybrid::Yes, Hybrid::No] {
        for log in [16, 18, 20] {
            let mut least = [Duration::MAX; 5];
            let mut bytes = [0; 2];
            for _ in 0..7 {
                let (spent, sent) = run(Session { sid: [1; 32], outputs: 1 << log, hybrid });
                bytes = sent;
                for (least, spent) in least.iter_mut().zip(spent) {
                    *least = (*least).min(spent);
                }
            }
            let ns = least.map(|spent| spent.as_nanos() as f64 / f64::from(1 << log));
            let [choice, answer, read, sender, receiver] = ns;
            println!(
                "2^{log}  {hybrid:?}  {choice:.1}  {answer:.1}  {read:.1}  {sender:.1}  \
                 {receiver:.1}  {}  {}",
                bytes[0], bytes[1]
            );
        }
    }
}

fn run(session: Session) -> ([Duration; 5], [usize; 2]) {
    let rng = &mut UnwrapErr(SysRng);
    let mut spent = [Duration::ZERO; 5];
    let delta = Gf128(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0);
    let (start, choice) =
        timed(&mut spent[0], || Sender::new(session, delta, rng)).expect("a session");
    let (mut receiver, answer) =
        timed(&mut spent[1], || Receiver::new(session, &choice, rng)).expect("a choice");
    let mut sender = timed(&mut spent[2], || start.read(&answer)).expect("an answer");
    let mut to_receiver = choice.len();
    while let Some((message, _b)) = timed(&mut spent[3], || sender.next(rng)) {
        to_receiver += message.len();
        timed(&mut spent[4], || receiver.read(&message)).expect("the next message");
    }
    (spent, [to_receiver, answer.len()])
}
