//! What strangers can do to a service: little, and not to others. Each test is named after its attack,
//! which runs from an address of its own while customers come from another.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use convelo_channel::Identity;
use convelo_psi::{Job, terms};
use convelo_tests::proxy::{Counted, breaking};
use convelo_tests::{
    Flood, Party, Process, RawConnection, RawParty, Received, Service, World, reach_from, wait,
};
use convelo_wire::{Reason, ToParty};

/// Where strangers come from. Customers come from 127.0.0.1.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A service, and two customers with a job.
struct Scene {
    world: World,
    service: Service,
    customers: [Party; 2],
}

impl Scene {
    fn new() -> Self {
        Self::serving("")
    }

    fn serving(args: &str) -> Self {
        let world = World::new();
        let service = world.serve_with(&format!("--listen 127.0.0.1:0 {args}"));
        let customers = world.parties(["alice", "bob"]);
        world.job(Some(&service), &customers).give_to(&customers);
        Self { world, service, customers }
    }

    fn flood(&self) -> Flood {
        Flood::from(ELSEWHERE, &self.service)
    }

    /// Demands that the customers get through their job.
    fn serves_the_customers(&self) {
        let lines: [&[&str]; 2] = [&["same", "x"], &["y", "same"]];
        let running: Vec<Process> = self
            .customers
            .iter()
            .zip(lines)
            .map(|(party, lines)| self.world.run_lines(party, lines))
            .collect();
        for process in running {
            process.wait().expect(0);
        }
        for party in &self.customers {
            assert_eq!(party.matched(), ["same"]);
            party.forget();
        }
    }
}

/// Waits until the service has this many sockets open.
fn until_open(service: &Service, sockets: usize) {
    let begun = Instant::now();
    while service.process.sockets() < sockets {
        assert!(begun.elapsed() < convelo_tests::PATIENCE, "{} sockets", service.process.sockets());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn idle_sockets_from_one_address() {
    let scene = Scene::new();
    let flood = scene.flood();
    flood.idle_sockets(400);
    until_open(&scene.service, 64);
    scene.serves_the_customers();
}

/// The status port is one more door.
#[test]
fn idle_sockets_at_the_status_port() {
    let scene = Scene::serving("--status 127.0.0.1:0");
    let status = scene.service.said["status"].as_str().expect("an address").to_owned();
    let sockets: Vec<_> =
        (0..300).filter_map(|_| wait(reach_from(ELSEWHERE, &status)).ok()).collect();
    let mut asking = TcpStream::connect(&status).expect("a connection");
    asking
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(scene.service.process.sockets() < 100);
    drop(sockets);
}

#[test]
fn streams_of_one_key_with_jobs_of_seven_days() {
    let scene = Scene::new();
    let mut flood = scene.flood();
    flood.jobs(&scene.world, 1100);
    scene.serves_the_customers();
}

#[test]
fn announcements_that_no_upload_follows() {
    let scene = Scene::new();
    let mut flood = scene.flood();
    flood.reservations(&scene.world);
    scene.serves_the_customers();
}

#[test]
fn half_messages_before_any_challenge() {
    const CONNECTIONS: usize = 100;
    let scene = Scene::new();
    scene.serves_the_customers();
    let before = scene.service.process.memory_kib("VmHWM").expect("a figure");
    let flood = scene.flood();
    flood.half_messages(CONNECTIONS);
    thread::sleep(Duration::from_secs(3));
    scene.serves_the_customers();
    let after = scene.service.process.memory_kib("VmHWM").expect("a figure");
    let each = (after - before) / CONNECTIONS as u64;
    assert!(each < 300, "{each} KiB for each connection");
}

/// A seat in a job of one's own opens no window for more than that job has announced.
#[test]
fn half_messages_beside_a_seat() {
    let scene = Scene::new();
    let parties = scene.world.parties(["mallory", "godot"]);
    let job = scene.world.job(None, &parties).job();
    let mut seated = scene.world.raw(&scene.service, &parties[0], &job).seated();
    seated.connection.half_messages(3);
    assert!(matches!(seated.connection.receive(), Received::End));
    scene.service.process.wait_for("it has sent more than is expected of it");
    scene.serves_the_customers();
}

#[test]
fn all_attacks_at_once() {
    let scene = Scene::new();
    let mut flood = scene.flood();
    flood.jobs(&scene.world, 1024);
    flood.reservations(&scene.world);
    flood.half_messages(100);
    flood.idle_sockets(400);
    until_open(&scene.service, 64);
    for _ in 0..3 {
        scene.serves_the_customers();
    }
}

/// A party of a running job whose connection breaks gets back to its seat.
#[test]
fn flood_while_a_party_must_come_back() {
    const ROWS: usize = 200_000;
    let scene = Scene::serving("--reconnect-within 30s");
    let flood = scene.flood();
    flood.idle_sockets(400);
    flood.half_messages(64);
    until_open(&scene.service, 64);
    let ids: Vec<String> = (0..ROWS).map(|id| format!("id {id}")).collect();
    let lines: Vec<&str> = ids.iter().map(String::as_str).collect();
    let [alice, bob] = &scene.customers;
    for party in [alice, bob] {
        party.lines(&lines);
    }
    let way = breaking(&scene.service.address, Counted::Up, [1_000_000, 1_200_000]);
    let running = [
        scene.world.run_ids(alice),
        scene
            .world
            .run(bob, &format!("--input ids.txt --output matched.txt --json --service {way}")),
    ];
    let [first, second] = running.map(|process| process.wait().expect(0));
    first.never_says("reconnected");
    second.says("reconnected; the job continues where it was");
    assert_eq!(bob.matched().len(), ROWS);
}

/// Connections that are merely broken off close the door to nobody who shares their address.
#[test]
fn plain_connects_from_the_customers_address() {
    let scene = Scene::new();
    let over = Arc::new(AtomicBool::new(false));
    let connecting = {
        let (over, address) = (Arc::clone(&over), scene.service.address.clone());
        thread::spawn(move || {
            let mut count = 0;
            while !over.load(Ordering::SeqCst) {
                for _ in 0..10 {
                    if let Ok(mut stream) = TcpStream::connect(&address) {
                        let _ = stream.write_all(&b"GET / HTTP/1.1\r\n\r\n"[..count % 3]);
                        count += 1;
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
            count
        })
    };
    scene.service.process.wait_for_times("a connection was refused", 50);
    for _ in 0..5 {
        scene.serves_the_customers();
    }
    over.store(true, Ordering::SeqCst);
    let count = connecting.join().expect("no panic");
    let said = scene.service.process.stderr().matches("a connection was refused").count();
    assert!(count > 150, "{count}");
    assert!(said < count / 2, "{said} lines about {count} connections");
}

/// A stranger's own job lists a customer, under the name that the customers' job has.
#[test]
fn job_of_a_stranger_with_the_customers_job_name() {
    let scene = Scene::new();
    let mallory = scene.world.party("mallory");
    let forged = scene.world.job(None, [&mallory, &scene.customers[0]]).maximum_keys(7).job();
    let connection = RawConnection::open_from(
        ELSEWHERE,
        &scene.service.address,
        &mallory.identity,
        scene.world.expect(),
    );
    let stranger = RawParty::enter(connection, &forged, "mallory", &mallory.identity).seated();
    scene.serves_the_customers();
    drop(stranger);
}

#[test]
fn key_that_the_operator_has_not_admitted() {
    let world = World::new();
    let customers = world.parties(["alice", "bob"]);
    let line = |party: &Party| format!("{} {}\n", party.key_id(), party.name);
    let list = world.write("admitted.txt", format!("# ours\n{}", line(&customers[0])));
    let service = world.serve_with("--listen 127.0.0.1:0 --admit admitted.txt");
    assert_eq!(service.said["admitted"], 1);
    let job = world.job(Some(&service), &customers);
    job.give_to(&customers);
    let scene = Scene { world, service, customers };
    let [alice, bob] = &scene.customers;

    let stranger = Identity::generate();
    let connection = scene.world.connect(&scene.service, &stranger);
    let mut stranger = RawParty::enter(connection, &job.job(), "alice", &stranger);
    let refused = stranger.connection.failure();
    assert_eq!(refused.reason, Reason::Stranger);
    assert!(refused.explanation.contains("has not admitted the key sha256:"), "{refused}");
    let ended = scene.world.run_lines(bob, &["same"]).wait().expect(1);
    ended.says("operator has not admitted the key").says(&bob.key_id().to_string());

    // The list is read again.
    std::fs::write(&list, line(alice) + &line(bob)).expect("the list can be written");
    scene.service.process.wait_for("the list of admitted keys has changed");
    scene.serves_the_customers();
    std::fs::write(&list, "nonsense").expect("the list can be written");
    scene.service.process.wait_for("the new list of admitted keys was not accepted");
    scene.serves_the_customers();
    std::fs::write(&list, line(alice)).expect("the list can be written");
    scene.service.process.wait_for_times("the list of admitted keys has changed", 2);
    scene.world.run_lines(bob, &["same"]).wait().expect(1).says("operator has not admitted");
}

/// A job that lists nobody has a name that everybody uses, "join" if nobody says otherwise. A stranger
/// who opens one of that name with other terms takes it from nobody; who comes is told of the other.
#[test]
fn stranger_opens_the_job_that_everybody_calls_join() {
    let scene = Scene::new();
    let job = Job::unpinned("join", 64, 1000, 3600, terms::Service::default()).expect("a job");
    let identity = Identity::generate();
    let expect = scene.world.expect();
    let address = &scene.service.address;
    let connection = RawConnection::open_from(ELSEWHERE, address, &identity, expect);
    let _squatter = RawParty::enter(connection, &job, "mallory", &identity).seated();
    let [alice, bob] = &scene.customers;
    for party in [alice, bob] {
        party.lines(&["same"]);
    }
    // Whoever comes from the same address with other terms means this job, whatever else is open.
    for _ in 0..4 {
        let first = scene.world.join(&scene.service, alice, "--parties 2");
        first.wait_for("waiting for 1 more party");
        let second = scene.world.join(&scene.service, bob, "--parties 3").wait().expect(1);
        second.says("is open here with other terms");
        drop(first);
    }
    // Who opens the job hears of the other one.
    let first = scene.world.join(&scene.service, alice, "--parties 2");
    first.wait_for("mallory came with another job file");
    let second = scene.world.join(&scene.service, bob, "--parties 2");
    for process in [first, second] {
        process.wait().expect(0);
    }
}

/// A party without collateral looks at the service under a key that it makes for that, and comes back
/// under its own, which alone is on the list.
#[test]
fn admitted_party_that_has_no_collateral() {
    let world = World::new();
    let customers = world.parties(["alice", "bob"]);
    let line = |party: &Party| format!("{} {}\n", party.key_id(), party.name);
    let lines = customers.each_ref().map(line);
    world.write("admitted.txt", lines.concat());
    let offer = "--offer-collateral platform/collateral.json";
    let service = world.serve_with(&format!("--listen 127.0.0.1:0 --admit admitted.txt {offer}"));
    world.job(Some(&service), &customers).give_to(&customers);
    for party in &customers {
        std::fs::remove_file(party.path("collateral.json")).unwrap();
    }
    Scene { world, service, customers }.serves_the_customers();
}

#[test]
fn admit_list_that_is_wrong_at_the_start() {
    let world = World::new();
    world.write("admitted.txt", "alice\n");
    let serve = "serve --listen 127.0.0.1:0 --simulated platform --admit";
    let ended = world.start(&format!("{serve} admitted.txt")).wait().expect(2);
    ended.says("line 1: found 'alice', expected a fingerprint");
    world.start(&format!("{serve} missing.txt")).wait().expect(2).says("missing.txt");
}

/// Behind a balancer, the address in its header is what counts; without a header, nobody gets in.
#[test]
fn connection_that_does_not_come_through_the_balancer() {
    let scene = Scene::serving("--behind-balancer");
    let stranger = Identity::generate();
    let direct = RawConnection::try_open_from(
        ELSEWHERE,
        &scene.service.address,
        &stranger,
        scene.world.expect(),
    );
    assert!(wait(direct).is_none());
    scene.service.process.wait_for("expected a PROXY protocol header, version 2");
    drop(wait(reach_from(ELSEWHERE, &scene.service.address)).expect("a connection"));

    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0x1f, 0x90, 0x1d, 0x13]);
    let way = convelo_tests::proxy::balancer(&scene.service.address, header);
    let job = scene.world.job(None, &scene.customers).address(&way);
    job.give_to(&scene.customers);
    scene.serves_the_customers();
    let job = job.job();
    let connection = RawConnection::open(&way, &stranger, scene.world.expect());
    let mut refused = RawParty::enter(connection, &job, "alice", &stranger);
    assert!(matches!(refused.connection.message(), ToParty::Failed(_)));
    scene.service.process.wait_for("address=192.0.2.7:8080");
}
