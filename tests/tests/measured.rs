//! The program that is measured, as an enclave has it: fixed arguments, a device, and limits of threads and
//! address space.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use convelo_channel::Identity;
use convelo_psi::limits::MAXIMUM_PARTIES;
use convelo_psi::{Job, KeyId, Parties, terms};
use convelo_tests::{
    Device, Ended, Flood, JobBuilder, Measured, PATIENCE, Party, Process, RawConnection, RawParty,
    Starting, World, measured, wait,
};
use convelo_wire::{Failed, Reason, ToParty};
use serde_json::{Value, json};

/// The formula by which manifests are made.
#[path = "../../xtask/src/manifest/sizes.rs"]
#[expect(dead_code, reason = "these tests ask for threads alone")]
mod sizes;

const MEBIBYTE: u64 = 1 << 20;

/// Threads of the program with one worker.
const THREADS: u64 = 17;

fn said(arguments: &[&str]) -> Ended {
    let mut command = Command::new(measured());
    Process::spawn("convelo-service", command.args(arguments)).wait()
}

#[test]
fn help_and_version() {
    let help = said(&["--help"]).expect(0);
    for flag in ["--memory SIZE", "--workers N", "--ready ADDRESS:PORT", "default 1G", "default 4"]
    {
        assert!(help.stdout.contains(flag), "{}", help.stdout);
    }
    assert_eq!(help.stderr, "");
    let version = said(&["--version"]).expect(0);
    assert_eq!(version.stdout, format!("convelo-service {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments() {
    for (arguments, words) in [
        (&[][..], "ADDRESS:PORT is missing"),
        (&["127.0.0.1:0", "1000000"], "'1000000': there is one address only"),
        (&["127.0.0.1:0", "--memory", "0"], "'0' is not a number of bytes such as 512M or 4G"),
        (&["127.0.0.1:0", "--memory", "much"], "'much' is not a number of bytes"),
        (&["127.0.0.1:0", "--workers", "65"], "'65' is not a number from 1 to 64"),
        (&["127.0.0.1:0", "--ready", "7480"], "'7480' is not an address and a port"),
        (&["127.0.0.1:0", "--status", "127.0.0.1:0"], "--status is not an argument"),
        (&["host\u{1b}[1A:7443"], "is not an address"),
        (
            &["127.0.0.1:0", "\nERROR forged"],
            "convelo-service: '\\u{a}ERROR forged': there is one address",
        ),
    ] {
        let ended =
            said(arguments).expect(2).says(words).says("usage: convelo-service ADDRESS:PORT");
        assert_eq!(ended.never_says("\u{1b}").stdout, "");
    }
}

#[test]
fn too_little_memory_to_start() {
    said(&["127.0.0.1:0", "--memory", "99M"]).expect(2).says("at least 100 MiB");
}

#[test]
fn arguments_that_are_not_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut command = Command::new(measured());
    command.arg("127.0.0.1:0").arg(std::ffi::OsStr::from_bytes(b"--workers=\xff"));
    Process::spawn("convelo-service", &mut command).wait().expect(2).says("is not text (UTF-8)");
}

#[test]
fn without_a_device() {
    if ["/dev/attestation", "/sys/kernel/config/tsm/report"].iter().any(|it| Path::new(it).exists())
    {
        return;
    }
    let ended = said(&["127.0.0.1:0"]).expect(1);
    ended.says("run under gramine-sgx").says("TDX guest").never_says("listening");
}

/// A job of these parties at a service, for their own programs.
fn job(world: &World, address: &str, parties: &[Party]) -> JobBuilder {
    let job = world.job(None, parties).address(address);
    job.give_to(parties);
    job
}

/// The parties run their job; all have "same", and one more each.
fn they_match(world: &World, parties: &[Party]) {
    let running: Vec<Process> = parties
        .iter()
        .map(|party| world.run_lines(party, &["same", &format!("only {}", party.name)]))
        .collect();
    for process in running {
        process.wait().expect(0);
    }
    for party in parties {
        assert_eq!(party.matched(), ["same"]);
        party.forget();
    }
}

/// A job of two parties comes out right.
fn serves(world: &World, service: &Measured) {
    let parties = newcomers(world);
    job(world, &service.address, &parties);
    they_match(world, &parties);
}

/// Two parties of names that nobody else has.
fn newcomers(world: &World) -> [Party; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ["alice", "bob"].map(|name| world.party(&format!("{name}-{number}")))
}

#[test]
fn jobs_of_two_and_three_parties() {
    let world = World::new();
    let service = Measured::start(&world, "--workers 2 --memory 256M");
    let said = service.process.stderr();
    assert!(said.contains("memory: 256 MiB in all; "), "{said}");
    assert!(said.contains("threads: 19 (in an enclave, sgx.max_threads is at least 22)"), "{said}");
    let slots = sizes::Sizes::new("256M", "2").unwrap().threads();
    assert!(said.contains(&format!("sgx.max_threads is at least {slots})")), "{said}");
    assert_eq!(service.process.threads(), 19);
    let parties = world.parties(["alice", "bob", "carol"]);
    job(&world, &service.address, &parties);
    they_match(&world, &parties);
    serves(&world, &service);
    assert_eq!(service.process.threads(), 19, "no thread is started later");
    service.process.terminate();
    service.process.wait().expect(0);
}

#[test]
fn three_parties_that_verify_each_other() {
    let world = World::new();
    let service = Measured::start(&world, "--insecure-simulated");
    let parties = world.parties(["alice", "bob", "carol"]);
    world.job(None, &parties).address(&service.address).two_way().give_to(&parties);
    let run = |party: &Party| {
        party.lines(&["same", &party.name]);
        let offered = "--offer-collateral ../platform/collateral.json";
        let args = "--input ids.txt --output matched.txt --simulated ../platform";
        world.run(party, &format!("{args} {offered}"))
    };
    let running = parties.each_ref().map(run);
    for process in running {
        process.wait().expect(0).says("this party verified the evidence of ");
    }
    for party in &parties {
        assert_eq!(party.matched(), ["same"]);
    }
}

/// What the readiness port answers now; nothing if it is closed.
fn readiness(address: &str) -> Option<String> {
    let mut tcp = TcpStream::connect(address).ok()?;
    tcp.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    tcp.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.33\r\n\r\n").ok()?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?;
    Some(format!("{status} {}", answer.lines().last()?))
}

/// Waits until the readiness port answers this.
fn until(address: &str, answer: &str) {
    let begun = Instant::now();
    while readiness(address).as_deref() != Some(answer) {
        assert!(begun.elapsed() < PATIENCE, "{:?} is not {answer}", readiness(address));
        thread::sleep(Duration::from_millis(20));
    }
}

const READY: &str = "readiness, in plain HTTP: GET /ready";

#[test]
fn readiness_before_during_and_stopping() {
    let world = World::new();
    // With one worker, which must not wait for the device.
    let starting = Measured::starting(&world, "--workers 1 --ready 127.0.0.1:0");
    let (process, _device) = starting.device(Device::HangsAfter(0)).spawn();
    until(&Measured::said(&process, READY), "503 starting");
    process.terminate();
    process.wait().expect(0).says("stopped before it listened");

    let service = Measured::start(&world, "--ready 127.0.0.1:0");
    let ready = Measured::said(&service.process, READY);
    until(&ready, "200 ready");
    // Somebody who does not go by itself.
    let _alice = RawConnection::open(&service.address, &Identity::generate(), world.expect());
    service.process.terminate();
    until(&ready, "503 stopping");
    service.process.wait().expect(0);
    assert_eq!(readiness(&ready), None);
}

#[test]
fn readiness_is_not_answered_unless_asked_for() {
    let world = World::new();
    let service = Measured::start(&world, "");
    assert!(!service.process.stderr().contains(READY));
}

#[test]
fn devices_that_make_no_evidence() {
    let world = World::new();
    for (device, words) in [
        (Device::Another, "the device returned a quote for other report data"),
        (Device::Oversized, "the device returned a quote of more than 8192 bytes"),
        (Device::OfTypeNone, "expected the enclave's attestation type \"dcap\", found \"none\""),
    ] {
        let (process, _device) = Measured::starting(&world, "").device(device).spawn();
        process.wait().expect(1).says(words).never_says("listening");
    }
}

/// Its parties are told, and it still ends.
#[test]
fn device_that_fails_for_a_while() {
    let world = World::new();
    let starting = Measured::starting(&world, "--ready 127.0.0.1:0");
    let service = starting.device(Device::FailsOnce(2)).listen();
    let ready = Measured::said(&service.process, READY);
    until(&ready, "200 ready");
    let job = world.job(None, [&world.party("alice"), &world.party("bob")]).job();
    let challenge = convelo_wire::Challenge { nonce: [7; 32], job: job.digest() };
    let mut connection =
        RawConnection::open(&service.address, &Identity::generate(), world.expect());
    assert!(connection.send(convelo_wire::FromParty::Challenge(challenge)));
    let failed = connection.failure();
    assert_eq!(failed.reason, Reason::Internal);
    assert!(failed.explanation.contains("could not make a quote; its log says why"), "{failed}");
    assert_eq!(readiness(&ready).as_deref(), Some("503 the attestation device makes no quotes"));
    // Nobody asks, and still it is noticed.
    until(&ready, "200 ready");
    service.process.terminate();
    let ended = service.process.wait().expect(0).says("the attestation device answers again");
    assert_eq!(ended.stderr.matches("no quote could be made").count(), 1, "{}", ended.stderr);
}

/// Its parties are told, and it still ends.
#[test]
fn device_that_hangs_once_it_listens() {
    let world = World::new();
    let starting = Measured::starting(&world, "--workers 1 --ready 127.0.0.1:0");
    let service = starting.device(Device::HangsAfter(2)).listen();
    let ready = Measured::said(&service.process, READY);
    until(&ready, "200 ready");
    let [alice, _] = world.parties(["alice", "bob"]);
    let mut connection =
        RawConnection::open(&service.address, &Identity::generate(), world.expect());
    let job = world.job(None, [&alice, &world.party("carol")]).job();
    let nonce = [7; 32];
    let challenge = convelo_wire::Challenge { nonce, job: job.digest() };
    assert!(connection.send(convelo_wire::FromParty::Challenge(challenge)));
    let failed = connection.failure();
    assert_eq!(failed.reason, Reason::Internal);
    assert!(failed.explanation.contains("could not make a quote; its log says why"), "{failed}");
    until(&ready, "503 the attestation device makes no quotes");
    service.process.wait_for("the attestation device has not answered for 10 seconds");
    let asked = Instant::now();
    service.process.terminate();
    service.process.wait().expect(0);
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
}

/// A party with these keys, at this service, from an address of its own.
fn enter(world: &World, address: &str, from: Ipv4Addr, job: &Job, party: &Party) -> RawParty {
    let connection = RawConnection::open_from(from, address, &party.identity, world.expect());
    RawParty::enter(connection, job, &party.name, &party.identity)
}

#[test]
fn sigterm_in_mid_upload() {
    let world = World::new();
    let service = Measured::start(&world, "");
    let parties = world.parties(["alice", "bob"]);
    let job = job(&world, &service.address, &parties).job();
    let mut both = parties
        .each_ref()
        .map(|party| enter(&world, &service.address, Ipv4Addr::LOCALHOST, &job, party));
    thread::scope(|scope| {
        for party in &mut both {
            scope.spawn(|| {
                party.agree();
                party.announce(1_000_000, [7; 32]);
                party.has_room();
                party.chunk(1_u128.to_be_bytes().to_vec());
            });
        }
    });
    service.process.terminate();
    for party in &mut both {
        assert_eq!(party.connection.failure().reason, Reason::Shutdown);
    }
    service.process.wait().expect(0).says("stopping: the parties are told");
}

/// A user that nobody else is on this machine, whose threads are all counted; none where we are not the
/// superuser.
#[expect(clippy::print_stderr, reason = "a test that is left out is to be seen")]
fn nobody_else() -> Option<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mine = fs::read_to_string("/proc/self/status").expect("status");
    let uid = mine.lines().find_map(|line| line.strip_prefix("Uid:"));
    if uid.and_then(|uid| uid.split_whitespace().next()) != Some("0") {
        eprintln!(
            "NOT TESTED: limits of threads; only the superuser can start a program as nobody else"
        );
        return None;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
    Some(1_900_000_000 + std::process::id() % 100_000 * 1000 + number)
}

/// Either it says how many threads it needs, or it serves: nothing in between.
#[test]
fn every_number_of_threads() {
    let world = World::new();
    if nobody_else().is_none() {
        return;
    }
    thread::scope(|scope| {
        for threads in 1..THREADS {
            let world = &world;
            scope.spawn(move || {
                let user = nobody_else().expect("we are the superuser");
                let starting = Measured::starting(world, "--workers 1").as_user(user);
                let (process, _device) = starting.limited(format!("--nproc={threads}")).spawn();
                let ended = process.wait().expect(1).says("cannot start all of its 17 threads");
                ended.says("sgx.max_threads to at least 20").never_says("panicked");
            });
        }
    });
    let user = nobody_else().expect("we are the superuser");
    let starting = Measured::starting(&world, "--workers 1").as_user(user);
    let service = starting.limited(format!("--nproc={THREADS}")).listen();
    serves(&world, &service);
}

/// What the program is given in an enclave: its memory, and what it and Gramine take besides.
fn enclave<'w>(world: &'w World, memory: u64, arguments: &str) -> Starting<'w> {
    let space = memory + 96 * MEBIBYTE + THREADS.next_multiple_of(4) * 2 * MEBIBYTE / 5;
    Measured::starting(world, &format!("--workers 1 --memory {memory} {arguments}"))
        .limited(format!("--as={space}"))
}

/// Either it says at once that it does not get its memory, or it serves, even in a crowd: nothing in
/// between.
#[test]
fn every_size_of_address_space() {
    let world = World::new();
    let memory = 128 * MEBIBYTE;
    let mut served = HashSet::new();
    for more in (0..=96).step_by(16) {
        let space = memory / 2 + more * MEBIBYTE * 3 / 2;
        let arguments = format!("--workers 1 --memory {memory}");
        let starting = Measured::starting(&world, &arguments).limited(format!("--as={space}"));
        let (mut process, device) = starting.spawn();
        let begun = Instant::now();
        while process.is_running() && !process.stderr().contains("listening address=") {
            assert!(begun.elapsed() < PATIENCE, "{}", process.stderr());
            thread::sleep(Duration::from_millis(10));
        }
        served.insert(process.is_running());
        if process.is_running() {
            let address = Measured::said(&process, "listening");
            let floods = half_messages(&world, &address, 20);
            thread::sleep(Duration::from_secs(2));
            drop(floods);
            let parties = newcomers(&world);
            job(&world, &address, &parties);
            they_match(&world, &parties);
            process.terminate();
            process.wait().expect(0);
        } else {
            let ended = process.wait().expect(1).never_says("panicked").never_says("allocation");
            let said = &ended.stderr;
            let clear = ["does not let the service have its 128 MiB", "cannot start all of its 17"];
            assert!(clear.iter().any(|words| said.contains(words)), "{said}");
        }
        drop(device);
    }
    assert_eq!(served.len(), 2, "both are to be seen");
}

/// Strangers at this many addresses, whose messages do not end.
fn half_messages(world: &World, address: &str, addresses: u8) -> Vec<Flood> {
    let flood = |last| {
        let flood = Flood::at(Ipv4Addr::new(127, 0, 1, last), address, world.expect());
        flood.half_messages(20);
        flood.idle_sockets(20);
        flood
    };
    (1..=addresses).map(flood).collect()
}

/// Addresses of this machine, no two the same.
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..=u16::MAX).map(|number| {
        let [high, low] = (number + 1).to_be_bytes();
        Ipv4Addr::new(127, 1, high, low)
    })
}

/// This many connections on which nothing is said.
fn idle(world: &World, address: &str, count: usize) -> Vec<RawConnection> {
    wait(async {
        let open = |from| {
            let (address, expect) = (address.to_owned(), world.expect());
            tokio::spawn(async move {
                let identity = Identity::generate();
                RawConnection::try_open_from(from, &address, &identity, expect).await
            })
        };
        let mut idle = Vec::new();
        for opened in addresses().take(count).map(open).collect::<Vec<_>>() {
            idle.extend(opened.await.expect("no panic"));
        }
        idle
    })
}

#[test]
fn large_job_beside_three_hundred_idle_connections() {
    let world = World::new();
    let service = enclave(&world, 4096 * MEBIBYTE, "").listen();
    let _idle = idle(&world, &service.address, 300);
    assert!(service.process.sockets() > 300, "{}", service.process.sockets());
    let parties = world.parties(["alice", "bob"]);
    job(&world, &service.address, &parties);
    for (party, from) in parties.iter().zip([0, 250_000]) {
        let ids: String = (from..from + 1_000_000).map(|id| format!("{id}\n")).collect();
        party.write("ids.txt", ids);
    }
    let running = parties.each_ref().map(|party| world.run_ids(party));
    for process in running {
        process.wait().expect(0);
    }
    assert_eq!(parties[0].matched().len(), 750_000);
    serves(&world, &service);
}

#[test]
fn half_messages_of_strangers_everywhere() {
    let world = World::new();
    let service = enclave(&world, 256 * MEBIBYTE, "").listen();
    let few = half_messages(&world, &service.address, 2);
    serves(&world, &service);
    // More addresses than there are places: nobody gets through, and nothing breaks.
    let everywhere = half_messages(&world, &service.address, 40);
    thread::sleep(Duration::from_secs(5));
    drop((few, everywhere));
    serves(&world, &service);
}

/// More jobs wait than there is memory for; the oldest go, and what is told to all goes unread.
#[test]
fn jobs_that_wait_for_ever() {
    let world = World::new();
    let service = enclave(&world, 256 * MEBIBYTE, "").listen();
    let [mallory, godot] = world.parties(["mallory", "godot"]);
    let builder = world.job(None, [&mallory, &godot]).deadline("7d");
    let mut waiting = Vec::new();
    for (number, from) in addresses().take(200).enumerate() {
        let job = builder.clone().name(&format!("waiting-{number}")).job();
        let opened =
            RawConnection::try_open_from(from, &service.address, &mallory.identity, world.expect());
        let Some(connection) = wait(opened) else { continue };
        waiting.push(RawParty::enter(connection, &job, "mallory", &mallory.identity));
    }
    serves(&world, &service);
    drop(waiting);
    serves(&world, &service);
}

/// Policies that are as large as can be, each in its way: what they take when they are read differs by far,
/// and what is kept of them does not.
fn hostile_policies() -> Vec<Value> {
    let nested = |wrap: fn(Value) -> Value| (0..14).fold(json!(0), |inner, _| wrap(inner));
    let many = |count: usize, value: &Value| {
        let entries = (0..count).map(|number| (number.to_string(), value.clone()));
        Value::Object(entries.collect())
    };
    vec![
        many(16, &nested(|inner| json!([inner]))),
        many(16, &nested(|inner| json!({ "": inner }))),
        many(1, &Value::Array(vec![json!(0); 3_900])),
        many(1_900, &json!("")),
        many(1, &"x".repeat(60_000).into()),
        many(100, &Value::Array(vec!["yyyyyyyyyyyyy".into(); 30])),
    ]
}

/// A job whose other party never comes, opened under a key of its own.
fn job_that_waits(base: &Job, name: &str, policy: &Value, identity: &Identity) -> Job {
    let mut terms = base.terms();
    terms.name = name.to_owned();
    terms.service.as_mut().expect("a service").policy = Some(policy.clone());
    terms.parties = Parties::Named(
        [("godot", &b"nobody"[..]), ("mallory", identity.spki())]
            .map(|(name, spki)| {
                let (name, key) = (name.to_owned(), KeyId::of_spki(spki));
                terms::Party { name, key, maximum_keys: None, address: None }
            })
            .into(),
    );
    Job::try_from(terms).expect("a job")
}

/// Beside them, somebody holds all memory for sets.
#[test]
fn texts_of_waiting_jobs_as_large_as_can_be() {
    for (memory, count, keys) in [(256, 60, 85 * MEBIBYTE / 37), (1024, 200, 400 * MEBIBYTE / 37)] {
        let world = World::new();
        let service = enclave(&world, memory * MEBIBYTE, "").listen();
        let base = world.job(None, &world.parties(["mallory", "godot"])).deadline("7d").job();
        let holders = newcomers(&world);
        let large = job(&world, &service.address, &holders).maximum_keys(1 << 32).job();
        let both = thread::scope(|scope| {
            let hold = |(party, from)| {
                let mut party = enter(&world, &service.address, from, &large, party);
                party.agree();
                party.announce(keys, [7; 32]);
                assert!(matches!(party.connection.message(), ToParty::Ready));
                party
            };
            let both: Vec<_> = holders
                .iter()
                .zip(addresses().skip(1000))
                .map(|each| scope.spawn(move || hold(each)))
                .collect();
            both.into_iter().map(|party| party.join().expect("room")).collect::<Vec<_>>()
        });
        let policies = hostile_policies();
        let mut waiting = Vec::new();
        for (number, from) in addresses().take(count).enumerate() {
            let (identity, name) = (Identity::generate(), format!("waiting-{number}"));
            let job = job_that_waits(&base, &name, &policies[number % policies.len()], &identity);
            let opened =
                RawConnection::try_open_from(from, &service.address, &identity, world.expect());
            let Some(connection) = wait(opened) else { continue };
            waiting.push(RawParty::enter(connection, &job, "mallory", &identity));
        }
        // The last ones have their seats, and the first had to go.
        assert!(waiting.pop().map(RawParty::seated).is_some());
        drop(both);
        serves(&world, &service);
        drop(waiting);
        serves(&world, &service);
    }
}

/// As many parties as a job may have.
fn crowd(world: &World, address: &str) -> (Job, Vec<Party>) {
    let names = (0..MAXIMUM_PARTIES).map(|number| format!("{number:02}{}", "x".repeat(60)));
    let parties: Vec<Party> = names.map(|name| world.party(&name)).collect();
    (world.job(None, &parties).address(address).job(), parties)
}

#[test]
fn the_most_parties() {
    let world = World::new();
    let service = enclave(&world, 1024 * MEBIBYTE, "").listen();
    let (job, parties) = crowd(&world, &service.address);
    let entered: Vec<RawParty> = parties
        .iter()
        .zip(addresses())
        .map(|(party, from)| enter(&world, &service.address, from, &job, party))
        .collect();
    thread::scope(|scope| {
        let running: Vec<_> = entered
            .into_iter()
            .enumerate()
            .map(|(number, party)| {
                scope.spawn(move || party.finish(&["same", "also same", &number.to_string()]))
            })
            .collect();
        for party in running {
            assert_eq!(party.join().expect("a result"), 2);
        }
    });
    serves(&world, &service);
}

/// Why a service with little memory does not take a party in.
#[test]
fn more_parties_than_there_is_memory_for() {
    let world = World::new();
    let service = enclave(&world, 256 * MEBIBYTE, "").listen();
    let (job, parties) = crowd(&world, &service.address);
    let mut party = enter(&world, &service.address, Ipv4Addr::LOCALHOST, &job, &parties[0]);
    let failed = party.connection.failure();
    assert_eq!((failed.reason, &failed.party), (Reason::NoRoom, &None));
    let words = "a job of 64 parties needs ";
    assert!(failed.explanation.starts_with(words), "{failed}");
    serves(&world, &service);
}

/// What both are told who announce this many keys.
fn announced(world: &World, service: &Measured, keys: u64) -> Vec<Result<(), Failed>> {
    let parties = newcomers(world);
    let job = job(world, &service.address, &parties).maximum_keys(1_000_000_000).job();
    let told = |party: &Party, from| {
        let mut party = enter(world, &service.address, from, &job, party);
        party.agree();
        party.announce(keys, [7; 32]);
        match party.connection.message() {
            ToParty::Ready => Ok(()),
            ToParty::Failed(failed) => Err(failed),
            _ => panic!("something else"),
        }
    };
    thread::scope(|scope| {
        let each = parties.iter().zip(addresses());
        let told: Vec<_> =
            each.map(|(party, from)| scope.spawn(move || told(party, from))).collect();
        told.into_iter().map(|told| told.join().expect("told")).collect()
    })
}

#[test]
fn sets_that_exceed_the_share() {
    let world = World::new();
    let service = enclave(&world, 256 * MEBIBYTE, "").listen();
    for told in announced(&world, &service, 10_000_000) {
        let failed = told.expect_err("there is no room");
        assert_eq!((failed.reason, &failed.party), (Reason::NoRoom, &None));
        let words = "the sets of this job need up to 512 MiB at the service, which has ";
        assert!(failed.explanation.starts_with(words), "{failed}");
    }
    serves(&world, &service);
    // What the share says is there.
    let keys = 90 * MEBIBYTE / 2 * 2 / 37;
    for told in announced(&world, &service, keys) {
        told.expect("there is room");
    }
    serves(&world, &service);
}
