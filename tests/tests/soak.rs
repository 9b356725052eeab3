//! Many small jobs at once, each with one thing that goes wrong, or none. Whatever happens: a party
//! that gets a result gets the right one, a party that gets none is told why, nobody waits longer
//! than the deadline, and afterwards the service is as it was.
//!
//! `CONVELO_SOAK_JOBS=2000 cargo test -p convelo-tests --test soak` runs that many jobs instead of
//! a few.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use convelo_tests::proxy::{Counted, breaking};
use convelo_tests::tables::{Random, seed};
use convelo_tests::{Ended, PATIENCE, Party, Process, Service, World, free_port};

const FEW: usize = 60;
const WORKERS: usize = 4;
const MOST_PARTIES: usize = 5;

/// For a job in which something goes wrong.
const DEADLINE: Duration = Duration::from_secs(5);

/// Long enough for two broken connections on a busy machine, and shorter than the deadline.
const COME_BACK: &str = "--reconnect-within 4s";

/// A party gives up on its own this long after the deadline; it also had to start, and may be slow.
const SLACK: Duration = Duration::from_secs(60);

/// What the allocator may keep of the memory of finished jobs.
const KEPT_KIB: u64 = 24 * 1024;

/// What goes wrong, and how many milliseconds after the start.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Killed(u64),
    Stopped(u64),
    /// It freezes until after the deadline.
    Frozen(u64),
    /// Its first connections break, each after this many bytes.
    Cut(Counted, [usize; 2]),
    /// All its connections break after this many bytes.
    CutAlways(usize),
    /// It never arrives.
    Absent,
    /// Its table is invalid.
    Table,
    /// The service dies and restarts.
    Restart(u64),
}

impl Fault {
    fn random(random: &mut Random) -> Self {
        let moment = random.below(400) as u64;
        match random.below(16) {
            0..6 => Self::None,
            6 | 7 => Self::Killed(moment),
            8 | 9 => Self::Stopped(moment),
            10 => Self::Frozen(moment),
            11 => Self::Cut(Counted::Up, [random.below(60_000), random.below(60_000)]),
            12 => Self::Cut(Counted::Down, [random.below(40_000), random.below(40_000)]),
            13 if random.below(2) == 0 => Self::CutAlways(random.below(60_000)),
            13 => Self::Absent,
            14 => Self::Table,
            _ => Self::Restart(moment),
        }
    }
}

/// The lines of a table: some ids repeated, some lines blank, in random order.
fn table(random: &mut Random, ids: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for id in 0..ids {
        for _ in 0..[0, 1, 1, 1, 2][random.below(5)] {
            lines.push(if random.below(20) == 0 {
                format!(" id-{id} ")
            } else {
                format!("id-{id}")
            });
        }
        if random.below(50) == 0 {
            lines.push(String::new());
        }
    }
    random.shuffle(&mut lines);
    lines
}

fn keys(lines: &[String]) -> BTreeSet<&str> {
    lines.iter().map(|line| line.trim()).filter(|id| !id.is_empty()).collect()
}

/// One job, from its tables to what every party says at the end.
fn job(world: &World, shared: &Service, parties: &[Party], number: usize, random: &mut Random) {
    let parties = &parties[..2 + random.below(MOST_PARTIES - 1)];
    let (victim, ids) = (random.below(parties.len()), random.below(3000));
    let fault = Fault::random(random);
    println!("job {number}: {} parties, {ids} ids, {victim}: {fault:?}", parties.len());
    // A restart ends all jobs of a service.
    let own = matches!(fault, Fault::Restart(_))
        .then(|| world.serve_with(&format!("--listen 127.0.0.1:{} {COME_BACK}", free_port())));
    let address = own.as_ref().map_or(&shared.address, |own| &own.address).clone();
    let survives = matches!(fault, Fault::None | Fault::Cut(..));
    let deadline = if survives { PATIENCE } else { DEADLINE };
    let job = world.job(None, parties).name(&format!("soak-{number}")).address(&address);
    job.deadline(&format!("{}s", deadline.as_secs())).give_to(parties);
    let tables: Vec<_> = parties.iter().map(|_| table(random, ids)).collect();
    for (party, lines) in parties.iter().zip(&tables) {
        party.forget();
        party.lines(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if let Fault::Table = fault {
        parties[victim].write("ids.txt", b"id-1\n\xff\n");
    }
    let run = |party: usize| match fault {
        Fault::Absent if party == victim => None,
        Fault::Cut(..) | Fault::CutAlways(_) if party == victim => {
            let cut = match fault {
                Fault::Cut(counted, after) => breaking(&address, counted, after),
                Fault::CutAlways(bytes) => breaking(&address, Counted::Up, iter::repeat(bytes)),
                _ => unreachable!("it is cut"),
            };
            let options = format!("--input ids.txt --output matched.txt --json --service {cut}");
            Some(world.run(&parties[party], &options))
        }
        _ => Some(world.run_ids(&parties[party])),
    };
    let mut running: Vec<Option<Process>> = (0..parties.len()).map(run).collect();
    let mut restarted = None;
    if let Fault::Restart(moment) = fault {
        after(moment);
        own.expect("a service of its own").process.kill();
        restarted = Some(world.serve_with(&format!("--listen {address} {COME_BACK}")));
    }
    strike(fault, &mut running[victim]);
    end(parties, running, &tables, (fault, victim));
    drop(restarted);
}

/// A job of two parties without a service.
fn direct(world: &World, parties: &[Party], number: usize, random: &mut Random) {
    let parties = &parties[..2];
    let (mode, most) = [("vole", 3000), ("ecdh", 1500)][random.below(2)];
    let (victim, ids) = (random.below(2), random.below(most));
    let fault = match Fault::random(random) {
        Fault::Restart(_) => Fault::None,
        fault => fault,
    };
    println!("job {number}: {mode}, {ids} ids, {victim}: {fault:?}");
    let survives = matches!(fault, Fault::None | Fault::Cut(..));
    let deadline = if survives { PATIENCE } else { DEADLINE };
    let job = world.job(None, parties).name(&format!("soak-{number}")).direct(mode);
    job.deadline(&format!("{}s", deadline.as_secs())).give_to(parties);
    let tables: Vec<_> = parties.iter().map(|_| table(random, ids)).collect();
    for (party, lines) in parties.iter().zip(&tables) {
        party.forget();
        party.lines(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if let Fault::Table = fault {
        parties[victim].write("ids.txt", b"id-1\n\xff\n");
    }
    let address = format!("127.0.0.1:{}", free_port());
    let way = match fault {
        Fault::Cut(counted, after) => breaking(&address, counted, after),
        Fault::CutAlways(bytes) => breaking(&address, Counted::Up, iter::repeat(bytes)),
        _ => address.clone(),
    };
    let options = "--input ids.txt --output matched.txt --json";
    let hows = [format!("--listen {address}"), format!("--peer {}={way}", parties[0].name)];
    let run = |party: usize| {
        let absent = matches!(fault, Fault::Absent) && party == victim;
        (!absent).then(|| world.run(&parties[party], &format!("{options} {}", hows[party])))
    };
    let mut running: Vec<Option<Process>> = (0..2).map(run).collect();
    strike(fault, &mut running[victim]);
    end(parties, running, &tables, (fault, victim));
}

fn after(moment: u64) {
    thread::sleep(Duration::from_millis(moment));
}

/// What happens to the victim while it runs.
fn strike(fault: Fault, victim: &mut Option<Process>) {
    match fault {
        Fault::Killed(moment) => {
            after(moment);
            drop(victim.take().map(Process::kill));
        }
        Fault::Stopped(moment) => {
            after(moment);
            // It may already have ended.
            victim.as_ref().expect("it was started").terminate();
        }
        Fault::Frozen(moment) => {
            after(moment);
            let process = victim.as_ref().expect("it was started");
            process.freeze();
            thread::sleep(DEADLINE);
            process.thaw();
        }
        _ => {}
    }
}

/// Waits for all parties and checks what they say.
fn end(
    parties: &[Party],
    running: Vec<Option<Process>>,
    tables: &[Vec<String>],
    (fault, victim): (Fault, usize),
) {
    let survives = matches!(fault, Fault::None | Fault::Cut(..));
    let deadline = if survives { PATIENCE } else { DEADLINE };
    let sets: Vec<_> = tables.iter().map(|lines| keys(lines)).collect();
    for (index, process) in running.into_iter().enumerate() {
        let Some(process) = process else { continue };
        let ended = process.wait_within(deadline + SLACK);
        let common = |line: &&String| sets.iter().all(|set| set.contains(line.trim()));
        let expected: Vec<&String> = tables[index].iter().filter(common).collect();
        check(&parties[index], &ended, &expected, fault, index == victim);
    }
}

fn check(party: &Party, ended: &Ended, expected: &[&String], fault: Fault, victim: bool) {
    if ended.code == Some(0) {
        assert!(party.matched().iter().eq(expected.iter().copied()), "{fault:?}: {}", ended.stderr);
        let keys: BTreeSet<&str> = expected.iter().map(|line| line.trim()).collect();
        assert_eq!(ended.json()["result"]["keys"], keys.len(), "{fault:?}");
        return;
    }
    let said =
        || format!("{fault:?}, {}, exit code {:?}: {}", party.name, ended.code, ended.stderr);
    assert!(!party.has_matched(), "rows without a result: {}", said());
    if matches!(fault, Fault::Stopped(_)) && victim && ended.code.is_none() {
        // The signal arrived before the program had contacted anyone.
        assert!(!ended.stderr.contains("connecting to"), "{}", said());
        return;
    }
    let explained = ended.stderr.lines().any(|line| line.starts_with("error: ") && line.len() > 30);
    assert!(explained, "no explanation: {}", said());
    match (fault, victim) {
        (Fault::None | Fault::Cut(..), _) => panic!("nothing that ends a job: {}", said()),
        (Fault::Stopped(_), true) => assert_eq!(ended.code, Some(130), "{}", said()),
        (Fault::Table, true) => assert_eq!(ended.code, Some(2), "{}", said()),
        _ => assert_eq!(ended.code, Some(1), "{}", said()),
    }
}

#[test]
fn whatever_happens_results_are_right_or_their_absence_is_explained() {
    let jobs = std::env::var("CONVELO_SOAK_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    let (jobs, seed, next) = (jobs.unwrap_or(FEW), seed(), AtomicUsize::new(0));
    let world = World::new();
    let service = world.serve_with(&format!("--listen 127.0.0.1:0 {COME_BACK}"));
    let settled: Mutex<Option<u64>> = Mutex::default();
    let memory = || service.process.memory_kib("VmRSS").expect("the service runs");
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (world, service, next, settled) = (&world, &service, &next, &settled);
            let parties: Vec<Party> = (0..MOST_PARTIES)
                .map(|party| world.party(&format!("party-{worker}-{party}")))
                .collect();
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jobs {
                        break;
                    }
                    let mut random = Random::new(seed.wrapping_add(number as u64));
                    job(world, service, &parties, number, &mut random);
                    if number == jobs / 4 {
                        *settled.lock().expect("nobody panicked") = Some(memory());
                    }
                }
            });
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let count = |text: &str| service.process.stderr().matches(text).count();
    while count("a job is over") < count("a job is opened") {
        assert!(Instant::now() < deadline, "a job does not end");
        thread::sleep(Duration::from_millis(50));
    }
    let settled = settled.into_inner().expect("nobody panicked").expect("a quarter was run");
    println!(
        "{jobs} jobs; the service's memory: {settled} KiB after a quarter, {} KiB now",
        memory()
    );
    assert!(memory() <= settled + KEPT_KIB, "{} KiB, {settled} before", memory());
    service.process.terminate();
    service.process.wait().expect(0);
}

#[test]
fn without_a_service_results_are_right_or_their_absence_is_explained() {
    let jobs = std::env::var("CONVELO_SOAK_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    let (jobs, seed, next) = (jobs.unwrap_or(FEW), seed(), AtomicUsize::new(0));
    let world = World::new();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (world, next) = (&world, &next);
            let parties = [0, 1].map(|party| world.party(&format!("party-{worker}-{party}")));
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jobs {
                        break;
                    }
                    let mut random = Random::new(seed.wrapping_add(number as u64));
                    direct(world, &parties, number, &mut random);
                }
            });
        }
    });
}
