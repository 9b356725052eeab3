//! A customer's job, usual and while a stranger at another address does all that one can do: 400 idle
//! sockets, 1,024 jobs of seven days, two keys that announce 116 million keys, and half messages.
//! `cargo xtask bench flood` runs it. Exits with 1 if the goal is missed.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Instant;

use convelo_tests::{Flood, Party, Service, World};

/// How often the job runs, either way.
const ROUNDS: usize = 7;
const ROWS: usize = 200_000;
const GOAL: f64 = 1.5;

fn main() -> ExitCode {
    let world = World::new();
    let service = world.serve();
    let customers = world.parties(["alice", "bob"]);
    world.job(Some(&service), &customers).give_to(&customers);
    for (number, party) in (0..).zip(&customers) {
        let ids = (number * ROWS / 2..).take(ROWS);
        let text: String = ids.map(|id| format!("customer {id}\n")).collect();
        party.write("ids.txt", text);
    }
    let usual = median(&world, &service, &customers);
    let mut flood = Flood::from(Ipv4Addr::new(127, 0, 0, 2), &service);
    flood.jobs(&world, 1024);
    flood.reservations(&world);
    flood.half_messages(100);
    flood.idle_sockets(400);
    let flooded = median(&world, &service, &customers);
    let ratio = flooded / usual;
    let lines = format!(
        "a job of two parties with {ROWS} ids each, median of {ROUNDS}\n\
         usual        {usual:8.3} s\n\
         under attack {flooded:8.3} s\n\
         ratio        {ratio:8.2}, goal {GOAL}\n"
    );
    std::io::stdout().write_all(lines.as_bytes()).expect("stdout");
    if ratio <= GOAL { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seconds that the job takes.
fn median(world: &World, service: &Service, customers: &[Party; 2]) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let running = customers.each_ref().map(|party| world.run_ids(party));
            for process in running {
                process.wait().expect(0);
            }
            let took = begun.elapsed().as_secs_f64();
            for party in customers {
                assert_eq!(party.matched().len(), ROWS / 2);
                party.forget();
            }
            took
        })
        .collect();
    assert!(!service.process.stderr().contains("panicked"));
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}
