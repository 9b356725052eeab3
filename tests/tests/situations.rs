//! What happens to real jobs, one test per situation: the table of situations of the system that
//! this one replaces, row by row, and whatever else can go wrong between several parties.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use convelo_channel::{Identity, os_rng};
use convelo_psi::agreement::{Confirmation, Opening};
use convelo_psi::{Bitmap, Job, Outcome, Parties, Pseudonym, PseudonymSet, terms};
use convelo_tests::{JobBuilder, PATIENCE, Party, Process, RawParty, Service, World, free_port};
use convelo_wire::{Announcement, FromParty, Hello, Reason, ToParty, proto};
use serde_json::json;

/// A world with a service and parties that share a job.
struct Scene<const N: usize> {
    world: World,
    service: Service,
    parties: [Party; N],
    builder: JobBuilder,
}

impl<const N: usize> Scene<N> {
    fn new(names: [&str; N]) -> Self {
        Self::with(World::new(), names, |job| job)
    }

    fn with(world: World, names: [&str; N], change: impl FnOnce(JobBuilder) -> JobBuilder) -> Self {
        let service = world.serve();
        let parties = world.parties(names);
        let builder = change(world.job(Some(&service), &parties));
        builder.give_to(&parties);
        Self { world, service, parties, builder }
    }

    /// Starts a party whose table is these lines.
    fn run(&self, party: usize, lines: &[&str]) -> Process {
        self.world.run_lines(&self.parties[party], lines)
    }

    /// Joins as a party that is driven by hand.
    fn raw(&self, party: usize) -> RawParty {
        self.world.raw(&self.service, &self.parties[party], &self.builder.job())
    }

    /// Demands that the job completes if every party runs it now.
    fn still_serves(&self) {
        let lines: [&[&str]; 2] = [&["same", "x"], &["y", "same"]];
        let running: Vec<Process> = (0..N).map(|party| self.run(party, lines[party % 2])).collect();
        for process in running {
            process.wait().expect(0);
        }
        for party in &self.parties {
            assert_eq!(party.matched(), ["same"]);
            party.forget();
        }
    }
}

/// How many keys are in an intersection.
fn common(outcome: &Outcome<Bitmap>) -> u64 {
    let Outcome::Intersection(bitmap) = outcome else { panic!("no intersection") };
    bitmap.count_ones()
}

/// The job that `convelo join` makes from its flags.
fn join_job(parties: usize) -> Job {
    let service = terms::Service::default();
    Job::unpinned("join", parties, 10_000_000, 30 * 60, service).expect("valid")
}

#[test]
fn empty_intersection() {
    let scene = Scene::new(["alice", "bob", "carol"]);
    // Every two have something in common.
    let tables: [&[&str]; 3] = [&["ab", "ac"], &["ab", "bc"], &["ac", "bc"]];
    let running = [0, 1, 2].map(|party| scene.run(party, tables[party]));
    for process in running {
        let ended = process.wait().expect(0);
        assert_eq!(ended.json()["result"], json!({"kind": "intersection", "keys": 0, "rows": 0}));
    }
    for party in &scene.parties {
        assert_eq!(party.read("matched.txt"), "");
    }
}

#[test]
fn empty_file() {
    let scene = Scene::new(["alice", "bob", "carol", "dave"]);
    let [alice, bob, carol, _] = &scene.parties;
    alice.write("empty.csv", "");
    bob.write("header.csv", "id,name\n");
    carol.lines(&[]);
    let run = |party, args: &str| {
        scene.world.run(party, &format!("{args} --output matched.txt --allow-empty --json"))
    };
    let running = [
        run(alice, "--input empty.csv"),
        run(bob, "--input header.csv --key id"),
        run(carol, "--input ids.txt"),
        scene.run(3, &["a", "b"]),
    ];
    for process in running {
        assert_eq!(process.wait().expect(0).json()["result"]["keys"], 0);
    }
    assert_eq!(alice.read("matched.txt"), "");
    assert_eq!(bob.read("matched.txt"), "id,name\n");
    scene.still_serves();
}

#[test]
fn blank_lines() {
    let scene = Scene::new(["alice", "bob"]);
    let running =
        [scene.run(0, &["", "a", "  ", "", "b", "\t"]), scene.run(1, &["b", "", "", " ", "c"])];
    let [alice, bob] = running.map(|process| process.wait().expect(0));
    // A last line of white space is no row.
    assert_eq!(alice.json()["input"]["blank"], 3);
    assert_eq!(bob.json()["input"]["blank"], 3);
    alice.says("3 rows without a key, dropped");
    for party in &scene.parties {
        assert_eq!(party.matched(), ["b"]);
    }
}

#[test]
fn duplicates_in_one_file() {
    let scene = Scene::new(["alice", "bob"]);
    let running = [scene.run(0, &["a", "b", "a", "c", "a"]), scene.run(1, &["c", "a"])];
    let [alice, bob] = running.map(|process| process.wait().expect(0));
    let result = json!({"kind": "intersection", "keys": 2, "rows": 4});
    assert_eq!(alice.json()["result"], result);
    assert_eq!(alice.json()["input"]["duplicates"], 2);
    assert_eq!(bob.json()["result"]["rows"], 2);
    assert_eq!(scene.parties[0].matched(), ["a", "a", "c", "a"], "every row, in input order");
}

/// An id that is twice in one of two files is not in all three; one that is twice everywhere is.
#[test]
fn duplicates_with_three_parties() {
    let scene = Scene::new(["alice", "bob", "carol"]);
    let tables: [&[&str]; 3] = [
        &["two", "all", "two", "all", "mine", "mine", "mine"],
        &["all", "two", "all"],
        &["all", "other", "other", "other"],
    ];
    let running = [0, 1, 2].map(|party| scene.run(party, tables[party]));
    for process in running {
        assert_eq!(process.wait().expect(0).json()["result"]["keys"], 1);
    }
    assert_eq!(scene.parties[0].matched(), ["all", "all"]);
    assert_eq!(scene.parties[2].matched(), ["all"]);
}

#[test]
fn crlf_bom_gbk_nfc_nfd() {
    let scene = Scene::with(World::new(), ["nfc", "nfd-crlf", "bom"], |job| {
        job.key(&[("id", &["trim", "nfkc"])])
    });
    let [nfc, nfd, bom] = &scene.parties;
    nfc.write("ids.txt", "caf\u{e9}\n\u{4e2d}\u{6587}\nfirst\n");
    nfd.write("ids.txt", "cafe\u{301}\r\nfirst\r\n\u{4e2d}\u{6587}\r\n");
    bom.write("ids.txt", "\u{feff}first\nx\n\u{4e2d}\u{6587}\ncaf\u{e9}");
    for process in scene.parties.each_ref().map(|party| scene.world.run_ids(party)) {
        process.wait().expect(0);
    }
    assert_eq!(nfc.matched(), ["caf\u{e9}", "\u{4e2d}\u{6587}", "first"]);
    assert_eq!(nfd.matched(), ["cafe\u{301}", "first", "\u{4e2d}\u{6587}"], "as they were written");
    assert_eq!(bom.matched(), ["first", "\u{4e2d}\u{6587}", "caf\u{e9}"]);
    for party in &scene.parties {
        party.forget();
    }

    // The same two characters in GBK, on the third line.
    nfc.write("ids.txt", b"first\nx\n\xd6\xd0\xce\xc4\n");
    let [gbk, others @ ..] = scene.parties.each_ref().map(|party| scene.world.run_ids(party));
    gbk.wait().expect(2).says("line 3").says("UTF-8");
    for process in others {
        process.wait().expect(1).says("'nfc' left the job: it could not read its table");
    }
    assert!(scene.parties.iter().all(|party| !party.has_matched()));
}

#[test]
fn same_party_started_twice_while_waiting() {
    let scene = Scene::new(["alice", "bob"]);
    let first = scene.run(0, &["a", "b"]);
    first.wait_for("waiting for bob");
    let second = scene.world.run_ids(&scene.parties[0]);
    first.wait().expect(1).says("a newer connection of 'alice', with the same key, took over");
    second.wait_for("waiting for bob");
    scene.run(1, &["b"]).wait().expect(0);
    second.wait().expect(0);
    assert_eq!(scene.parties[0].matched(), ["b"]);
}

#[test]
fn same_party_started_twice_while_running() {
    let scene = Scene::new(["alice", "bob"]);
    let first = scene.run(0, &["a", "b"]);
    let mut bob = scene.raw(1);
    bob.assembled();
    let second = scene.world.run_ids(&scene.parties[0]).wait().expect(1);
    second.says("'alice' already takes part in this job, which is running");
    assert_eq!(bob.finish(&["b", "c"]), 1);
    first.wait().expect(0);
    assert_eq!(scene.parties[0].matched(), ["b"]);
}

#[test]
fn party_killed_while_waiting() {
    let scene = Scene::new(["alice", "bob", "carol"]);
    let alice = scene.run(0, &["a", "b"]);
    alice.wait_for("waiting for bob, carol");
    let bob = scene.run(1, &["a", "b"]);
    alice.wait_for("waiting for carol");
    bob.kill();
    alice.wait_for_times("waiting for bob, carol", 2);
    let bob = scene.run(1, &["b"]);
    alice.wait_for_times("waiting for carol", 2);
    let carol = scene.run(2, &["b", "a"]);
    for process in [alice, bob, carol] {
        process.wait().expect(0);
    }
    for party in &scene.parties {
        assert_eq!(party.matched(), ["b"]);
    }
}

/// The service is frozen, so that the upload is certain to be in progress when its party is killed.
#[test]
fn party_killed_while_uploading() {
    const ROWS: usize = 2_000_000;
    let scene = Scene::new(["alice", "bob"]);
    let table: String = (0..ROWS).map(|row| format!("id-{row}\n")).collect();
    scene.parties[1].write("ids.txt", table);
    let alice = scene.run(0, &["id-1"]);
    let bob = scene.world.run_ids(&scene.parties[1]);
    bob.wait_for("agreed on a job key");
    scene.service.process.freeze();
    bob.wait_for("read 2,000,000 rows");
    thread::sleep(Duration::from_millis(300));
    let bob = bob.kill().never_says("sent 2,000,000");
    assert_eq!(bob.code, None);
    scene.service.process.thaw();
    alice.wait().expect(1).says("'bob' left the job: its connection broke");
    assert!(!scene.parties[0].has_matched());
    scene.still_serves();
}

#[test]
fn connection_lost_in_the_middle_of_an_upload() {
    let scene = Scene::new(["alice", "bob", "carol"]);
    let alice = scene.run(0, &["a"]);
    let carol = scene.run(2, &["a"]);
    let mut bob = scene.raw(1);
    let key = bob.agree();
    let set = bob.set(&key, &["a", "b"]);
    bob.announce(2, set.blake3().expect("in memory"));
    bob.has_room();
    bob.chunk(pieces(&set, 16).next().expect("a pseudonym"));
    alice.wait_for("waiting for the set of");
    drop(bob);
    for process in [alice, carol] {
        process.wait().expect(1).says("'bob' left the job: its connection broke");
    }
    scene.still_serves();
}

/// A party's last chunk and its end reach the frozen service together. Which comes first is open;
/// but all the others must be told the same.
#[test]
fn party_killed_while_joining() {
    for _ in 0..5 {
        let scene = Scene::new(["alice", "bob", "carol"]);
        let alice = scene.run(0, &["a", "b"]);
        let bob = scene.run(1, &["a", "b", "c"]);
        let mut carol = scene.raw(2);
        let key = carol.agree();
        let set = carol.set(&key, &["a", "c"]);
        carol.announce(2, set.blake3().expect("in memory"));
        carol.has_room();
        let mut chunks = pieces(&set, 16);
        carol.chunk(chunks.next().expect("a pseudonym"));
        for waiting in [&alice, &bob] {
            waiting.wait_for("waiting for the set of carol");
        }
        scene.service.process.freeze();
        carol.chunk(chunks.next().expect("a pseudonym"));
        bob.kill();
        thread::sleep(Duration::from_millis(100));
        scene.service.process.thaw();
        let alice = alice.wait();
        match carol.outcome(&set) {
            Ok(outcome) => {
                alice.expect(0);
                assert_eq!(scene.parties[0].matched(), ["a"]);
                assert_eq!(common(&outcome), 1);
            }
            Err(failed) => {
                assert_eq!((failed.reason, failed.party.as_deref()), lost("bob"));
                alice.expect(1).says(&failed.explanation);
                assert!(!scene.parties[0].has_matched());
            }
        }
    }
}

fn lost(name: &str) -> (Reason, Option<&str>) {
    (Reason::ConnectionLost, Some(name))
}

/// After its upload a party is no longer needed for the join, but if it leaves, the job ends
/// nevertheless: it would not get its result.
#[test]
fn party_killed_after_its_upload() {
    let scene = Scene::new(["alice", "bob", "carol"]);
    let alice = scene.run(0, &["a", "b"]);
    let bob = scene.run(1, &["a", "b"]);
    let mut carol = scene.raw(2);
    carol.agree();
    carol.announce(1, [7; 32]);
    bob.wait_for("waiting for the set of carol");
    bob.kill();
    alice.wait().expect(1).says("'bob' left the job: its connection broke");
    let failed = carol.connection.failure();
    assert_eq!((failed.reason, failed.party.as_deref()), lost("bob"));
}

#[test]
fn party_leaves_after_all_came() {
    let scene = Scene::new(["alice", "bob"]);
    let alice = scene.run(0, &["a"]);
    let mut bob = scene.raw(1);
    bob.assembled();
    drop(bob);
    alice.wait().expect(1).says("'bob' left the job: its connection broke");

    let alice = scene.run(0, &["a"]);
    let mut bob = scene.raw(1);
    bob.assembled();
    bob.connection.send(FromParty::Leave(Reason::Stopped));
    alice.wait().expect(1).says("'bob' left the job: it was stopped");
    scene.still_serves();
}

#[test]
fn party_never_uploads() {
    let scene = Scene::with(World::new(), ["alice", "bob"], |job| job.deadline("8s"));
    let alice = scene.run(0, &["a"]);
    let mut bob = scene.raw(1);
    bob.agree();
    alice.wait().expect(1).says("the job's deadline of 8 s passed; 'bob' was late");
    assert_eq!(bob.connection.failure().reason, Reason::Deadline);
}

#[test]
fn party_never_comes() {
    let scene = Scene::with(World::new(), ["alice", "bob", "carol"], |job| job.deadline("3s"));
    let alice = scene.run(0, &["a"]);
    let ended = alice.wait().expect(1);
    ended.says("the job's deadline of 3 s passed while waiting for 'bob', 'carol'");
}

#[test]
fn third_client_on_a_two_party_job() {
    let world = World::new();
    let service = world.serve();
    let [alice, bob, carol] = world.parties(["alice", "bob", "carol"]);
    alice.lines(&["a", "b"]);
    carol.lines(&["a", "b"]);
    let first = world.join(&service, &alice, "--parties 2");
    let mut second = world.raw(&service, &bob, &join_job(2));
    second.assembled();
    let third = world.join(&service, &carol, "--parties 2").wait().expect(1);
    assert_eq!(third.says("all 2 seats of this job are taken and it is running").stdout, "");
    assert_eq!(second.finish(&["b"]), 1);
    assert_eq!(first.wait().expect(0).stdout, "b\n");
}

#[test]
fn third_client_on_a_two_party_job_with_a_job_file() {
    let scene = Scene::new(["alice", "bob"]);
    let carol = scene.world.party("carol");
    scene.builder.give_to([&carol]);
    let alice = scene.run(0, &["a"]);
    alice.wait_for("waiting for bob");
    let refused = scene.world.run_lines(&carol, &["a"]).wait().expect(2);
    refused.says("the job has no party 'carol'; it lists alice, bob");
    // A program that asks nevertheless.
    let failed = scene.world.raw(&scene.service, &carol, &scene.builder.job()).connection.failure();
    assert_eq!(failed.reason, Reason::Stranger, "{failed}");
    // One that lists itself in a party's place waits alone, in a job of its own.
    let forged = scene.world.job(Some(&scene.service), [&scene.parties[0], &carol]).job();
    let forger = scene.world.raw(&scene.service, &carol, &forged).seated();
    scene.run(1, &["a"]).wait().expect(0);
    alice.wait().expect(0);
    drop(forger);
}

#[test]
fn stray_connection() {
    let scene = Scene::new(["alice", "bob"]);
    let address = scene.service.address.as_str();
    let alice = scene.run(0, &["a", "b"]);
    alice.wait_for("waiting for bob");
    let silent = TcpStream::connect(address).expect("a connection");
    let mut garbage = TcpStream::connect(address).expect("a connection");
    garbage.write_all(b"GET / HTTP/1.1\r\nHost: convelo\r\n\r\n").expect("sent");
    scene.service.process.wait_for("a connection was refused");
    let stranger = Identity::generate();
    let without_hello = scene.world.connect(&scene.service, &stranger);
    let mut out_of_turn = scene.world.connect(&scene.service, &stranger);
    out_of_turn.send(FromParty::Leave(Reason::Shutdown));
    assert_eq!(out_of_turn.failure().reason, Reason::Protocol);
    let mut empty = scene.world.connect(&scene.service, &stranger);
    empty.send_raw(convelo_wire::proto::FromParty { message: None });
    assert_eq!(empty.failure().reason, Reason::Protocol);
    scene.run(1, &["b"]).wait().expect(0);
    alice.wait().expect(0);
    drop((silent, garbage, without_hello));
}

#[test]
fn stray_connection_without_a_certificate() {
    const SCRIPT: &str = "\
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(['h2'])
host, port = sys.argv[1].split(':')
try:
    stream = context.wrap_socket(socket.create_connection((host, int(port)), timeout=60))
    sys.exit('answered' if stream.recv(1) else 'closed')
except ssl.SSLError as error:
    print(error.reason)
";
    let scene = Scene::new(["alice", "bob"]);
    let script = scene.world.write("stray.py", SCRIPT);
    let mut command = std::process::Command::new("python3");
    let stray = Process::spawn("stray", command.arg(script).arg(&scene.service.address));
    let ended = stray.wait().expect(0);
    assert!(ended.stdout.contains("CERTIFICATE_REQUIRED"), "{}", ended.stdout);
    scene.still_serves();
}

#[test]
fn parties_3_against_2() {
    let world = World::new();
    let service = world.serve();
    let [alice, bob, carol] = world.parties(["alice", "bob", "carol"]);
    for party in [&alice, &bob, &carol] {
        party.lines(&["a", &party.name]);
    }
    let first = world.join(&service, &alice, "-client_num 3");
    first.wait_for("waiting for 2 more parties");
    let refused = world.join(&service, &bob, "-client_num 2").wait().expect(1);
    refused.says("parties: 2 unpinned here, 3 unpinned there");
    let others = [&bob, &carol].map(|party| world.join(&service, party, "-client_num 3"));
    for process in others.into_iter().chain([first]) {
        assert_eq!(process.wait().expect(0).stdout, "a\n");
    }
}

#[test]
fn one_party_job() {
    let scene = Scene::new(["alice", "bob"]);
    let [alice, _] = &scene.parties;
    alice.lines(&["a"]);
    scene.world.join(&scene.service, alice, "--parties 1").wait().expect(2).says("2..=64");
    let job = scene.builder.job();
    let mut terms = job.terms();
    let Parties::Named(parties) = &mut terms.parties else { panic!("named parties") };
    parties.truncate(1);
    let mut raw = scene.world.connect(&scene.service, &alice.identity);
    raw.attest(job.digest());
    let opening = Opening::new(&job, "alice", alice.identity.signing_key(), &mut os_rng());
    raw.send(FromParty::Hello(Hello {
        job: serde_json::to_vec(&terms).expect("JSON").into(),
        party: "alice".to_owned(),
        offer: opening.offer(),
        software: "a test".to_owned(),
        received: None,
        evidence: None,
    }));
    let failed = raw.failure();
    assert_eq!(failed.reason, Reason::InvalidJob);
    assert!(failed.explanation.contains("expected 2 to 64"), "{failed}");
    scene.world.job(Some(&scene.service), [alice]).give_to([alice]);
    scene.world.run_ids(alice).wait().expect(2).says("expected 2 to 64");
}

#[test]
fn no_chief_needed() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["data_provider1", "data_provider2"]);
    for chiefs in [["False", "False"], ["True", "True"]] {
        let running = [0, 1].map(|index| {
            parties[index].lines(&["a"]);
            let flags = format!("-client_num 2 -is_chief {}", chiefs[index]);
            world.join(&service, &parties[index], &flags)
        });
        for process in running {
            assert_eq!(process.wait().expect(0).says("a job needs no chief").stdout, "a\n");
        }
    }
}

#[test]
fn second_job_on_the_same_service() {
    let scene = Scene::new(["alice", "bob"]);
    for (first, second, both) in [
        (["a", "b"], ["b", "c"], "b"),
        (["d", "e"], ["e", "a"], "e"),
        (["b", "f"], ["f", "d"], "f"),
    ] {
        let running = [scene.run(0, &first), scene.run(1, &second)];
        for process in running {
            process.wait().expect(0);
        }
        for party in &scene.parties {
            assert_eq!(party.matched(), [both], "the same digest again");
        }
    }
    scene.builder.clone().name("another").minimum(1).give_to(&scene.parties);
    scene.still_serves();
}

#[test]
fn fifty_jobs_at_once() {
    const JOBS: usize = 50;
    let world = World::new();
    let service = world.serve();
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let parties = ["a", "b"].map(|name| world.party(&format!("{name}-{number}")));
        world.job(Some(&service), &parties).name(&format!("job-{number}")).give_to(&parties);
        let mut ids: Vec<String> = (0..20).map(|id| format!("id-{id}")).collect();
        parties[0].write("ids.txt", ids.join("\n"));
        ids.retain(|id| *id != "id-7");
        parties[1].write("ids.txt", ids.join("\n") + &format!("\nof-{number}"));
        jobs.push((number, parties));
    }
    let alone = service.process.threads();
    let firsts: Vec<Process> = jobs.iter().map(|(_, parties)| world.run_ids(&parties[0])).collect();
    for (process, (number, _)) in firsts.iter().zip(&jobs) {
        process.wait_for(&format!("waiting for b-{number}"));
    }
    let waiting = service.process.threads();
    assert!(waiting < alone + JOBS / 2, "{alone} threads alone, {waiting} with waiting parties");
    let seconds: Vec<Process> =
        jobs.iter().map(|(_, parties)| world.run_ids(&parties[1])).collect();
    for process in firsts.into_iter().chain(seconds) {
        assert_eq!(process.wait().expect(0).json()["result"]["keys"], 19);
    }
}

#[test]
fn outsider_asks_for_a_result() {
    let scene = Scene::new(["alice", "bob"]);
    let mallory = scene.world.party("mallory");
    let job = scene.builder.job();
    let ask = |name: &str| {
        let connection = scene.world.connect(&scene.service, &mallory.identity);
        RawParty::enter(connection, &job, name, &mallory.identity).connection.failure()
    };
    // While the job runs,
    let alice = scene.run(0, &["a", "b"]);
    let mut bob = scene.raw(1);
    bob.assembled();
    for name in ["mallory", "alice", "bob"] {
        assert_eq!(ask(name).reason, Reason::Stranger, "as {name}");
    }
    assert_eq!(bob.finish(&["b"]), 1);
    alice.wait().expect(0);
    // and when it is over.
    for name in ["mallory", "alice", "bob"] {
        assert_eq!(ask(name).reason, Reason::Stranger, "as {name}");
    }
    // Even a party of the job gets nothing from the finished run: it waits for the next one.
    let mut bob = scene.raw(1);
    let ToParty::Waiting(waiting) = bob.connection.message() else { panic!("a result again") };
    assert_eq!(waiting.missing, ["alice"]);
}

#[test]
fn outsider_uploads_without_seat() {
    let scene = Scene::new(["alice", "bob"]);
    let mallory = Identity::generate();
    let job = scene.builder.job();
    let alice = scene.run(0, &["a", "b"]);
    alice.wait_for("waiting for bob");
    let upload = || {
        let announcement = Announcement { keys: 1, blake3: [0; 32] };
        [FromParty::Announcement(announcement), FromParty::Chunk(vec![0; 16].into())]
    };
    for message in upload() {
        let mut stream = scene.world.connect(&scene.service, &mallory);
        stream.send(message);
        assert_eq!(stream.failure().reason, Reason::Protocol);
    }
    // With a Hello that is refused, and everything after it.
    let mut stream = scene.world.connect(&scene.service, &mallory);
    let opening = Opening::new(&job, "bob", mallory.signing_key(), &mut convelo_channel::os_rng());
    stream.attest(job.digest());
    stream.hello(&job, "bob", &opening);
    for message in upload() {
        stream.send(message);
    }
    assert_eq!(stream.failure().reason, Reason::Stranger);
    scene.run(1, &["b"]).wait().expect(0);
    alice.wait().expect(0);
    assert_eq!(scene.parties[0].matched(), ["b"]);
}

#[test]
fn guesser_with_a_dictionary() {
    let scene = Scene::with(World::new(), ["alice", "bob"], |job| job.maximum_keys(5));
    let guesses: Vec<String> = (0..6).map(|guess| format!("guess-{guess}")).collect();
    let guesses: Vec<&str> = guesses.iter().map(String::as_str).collect();
    // The program itself notices.
    let running = [scene.run(0, &["guess-1"]), scene.run(1, &guesses)];
    let [alice, bob] = running.map(Process::wait);
    bob.expect(4).says("6 distinct keys and the job allows 5");
    alice.expect(1).says("'bob' left the job: its set is larger than the job allows");
    // A modified program is stopped when it announces its set,
    let alice = scene.run(0, &["guess-1"]);
    let mut bob = scene.raw(1);
    let key = bob.agree();
    let set = bob.set(&key, &guesses);
    bob.announce(6, set.blake3().expect("in memory"));
    let failed = bob.connection.failure();
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::OverCap, Some("bob")));
    alice.wait().expect(1).says("the set of 'bob' is larger than the job allows (5 keys)");
    // and when it sends more than it announced.
    let alice = scene.run(0, &["guess-1"]);
    let mut bob = scene.raw(1);
    let key = bob.agree();
    let set = bob.set(&key, &guesses);
    bob.announce(5, set.blake3().expect("in memory"));
    bob.has_room();
    for chunk in pieces(&set, 32) {
        bob.chunk(chunk);
    }
    assert_eq!(bob.connection.failure().reason, Reason::Protocol);
    alice.wait().expect(1).says("'bob' did not follow the protocol").says("expected 5 as declared");
    assert!(!scene.parties[0].has_matched());
}

/// The service's memory limit is known before anything is sent.
#[test]
fn sets_beyond_the_service_memory_are_refused_before_any_upload() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --memory 1M");
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let ids: Vec<String> = (0..100_000).map(|id| format!("id-{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for process in parties.each_ref().map(|party| world.run_lines(party, &ids)) {
        let ended = process.wait().expect(1).says("up to 4 MiB at the service, which has 1 MiB");
        ended.says("may use 4 MiB").says("nothing was uploaded").never_says("pseudonyms");
    }
    assert!(parties.iter().all(|party| !party.has_matched()));
    for process in parties.each_ref().map(|party| world.run_lines(party, &ids[..100])) {
        process.wait().expect(0);
    }
}

/// Neither the service nor the network learns more about a set's size than the job's multiple.
#[test]
fn sizes_are_hidden_where_the_job_asks_for_it() {
    let scene =
        Scene::with(World::new(), ["alice", "bob"], |job| job.pad_keys_to(1000).maximum_keys(1500));
    let ids: Vec<String> = (0..1500).map(|id| format!("id-{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for (few, sent) in [(0, 1000), (1000, 1000), (1001, 2000), (1500, 2000)] {
        let running = [scene.run(0, &ids[..few]), scene.run(1, &ids[500..700])];
        let [alice, bob] = running.map(|process| process.wait().expect(0));
        let common: Vec<&str> = ids[..few].iter().skip(500).take(200).copied().collect();
        for (party, ended) in scene.parties.iter().zip([alice, bob]) {
            let summary = ended.json();
            assert_eq!(summary["result"]["keys"], common.len());
            assert_eq!(party.matched(), common);
            let receipt: serde_json::Value =
                serde_json::from_str(&party.read("matched.txt.receipt.json")).expect("JSON");
            let (keys, padded) = if party.name == "alice" { (few, sent) } else { (200, 1000) };
            assert_eq!(summary["input"]["keys"], keys);
            assert_eq!(receipt["sent"]["keys"], padded);
            party.forget();
        }
    }
    // A modified program that reveals its size, and one that uses more than the padded size.
    for (announced, reason, words) in [
        (200, Reason::Protocol, "not padded to a multiple of pad_keys_to"),
        (3000, Reason::OverCap, "the job allows (1500 keys)"),
    ] {
        let alice = scene.run(0, &["a"]);
        let mut bob = scene.raw(1);
        bob.agree();
        bob.announce(announced, [7; 32]);
        assert_eq!(bob.connection.failure().reason, reason);
        alice.wait().expect(1).says(words);
    }
}

fn many_parties(count: usize) {
    let world = World::new();
    let service = world.serve();
    let parties: Vec<Party> =
        (0..count).map(|number| world.party(&format!("party-{number}"))).collect();
    world.job(Some(&service), &parties).give_to(&parties);
    let mut running = Vec::new();
    for (number, party) in parties.iter().enumerate() {
        // Every id but two is missing from one of the tables.
        let lacking =
            (0..count).filter(|other| *other != number).map(|other| format!("not-{other}"));
        let mut ids: Vec<String> = lacking.chain(["all-1".into(), "all-2".into()]).collect();
        ids.rotate_left(number);
        party.write("ids.txt", ids.join("\n"));
        running.push(world.run_ids(party));
    }
    for process in running {
        let ended = process.wait().expect(0).says(&format!("all {count} parties are here"));
        assert_eq!(ended.json()["result"]["keys"], 2);
    }
    for party in &parties {
        let mut matched = party.matched();
        matched.sort();
        assert_eq!(matched, ["all-1", "all-2"], "{}", party.name);
    }
}

#[test]
fn eleven_parties() {
    many_parties(11);
}

#[test]
fn sixty_four_parties() {
    many_parties(64);
}

/// The search for such a run must end.
#[test]
fn party_goes_on_with_a_run_that_is_another_programs() {
    let scene = Scene::new(["alice", "bob"]);
    let mut bob = scene.raw(1).seated();
    let mut alice = scene.raw(0);
    alice.assembled();
    bob.assembled();
    for received in [0, 1] {
        let (job, identity) = (scene.builder.job(), &scene.parties[1].identity);
        let mut other = scene.world.connect(&scene.service, identity);
        other.attest(job.digest());
        let opening = Opening::new(&job, "bob", identity.signing_key(), &mut os_rng());
        other.send(FromParty::Hello(Hello {
            job: job.canonical().to_owned().into(),
            party: "bob".to_owned(),
            offer: opening.offer(),
            software: "a test".to_owned(),
            received: Some(received),
            evidence: None,
        }));
        let failed = other.failure();
        let expected = if received == 0 { Reason::JobRunning } else { Reason::ConnectionLost };
        assert_eq!(failed.reason, expected, "{failed}");
    }
    let (key, _) = thread::scope(|scope| {
        let bob = scope.spawn(|| bob.agree());
        (alice.agree(), bob.join().expect("bob agrees"))
    });
    let set = alice.set(&key, &["a"]);
    thread::scope(|scope| {
        scope.spawn(|| bob.upload(&set));
        alice.upload(&set);
    });
    for party in [&mut alice, &mut bob] {
        assert_eq!(common(&party.outcome(&set).expect("a result")), 1);
    }
}

#[test]
fn server_down_then_up() {
    let world = World::new();
    let address = format!("127.0.0.1:{}", free_port());
    let listen = format!("--listen {address}");
    let parties = world.parties(["alice", "bob"]);
    let [alice, bob] = &parties;
    let job = world.job(None, &parties).address(&address);
    job.give_to(&parties);
    let running = parties.each_ref().map(|party| world.run_lines(party, &["a"]));
    for process in &running {
        process.wait_for("the service does not answer yet");
    }
    let service = world.serve_with(&listen);
    for process in running {
        process.wait().expect(0);
    }
    // It dies while a party waits, and comes back.
    let waiting = world.run_lines(alice, &["a"]);
    waiting.wait_for("waiting for bob");
    service.process.kill();
    waiting.wait_for("the connection to the service broke");
    let service = world.serve_with(&listen);
    waiting.wait_for("reconnected");
    // It dies while a job runs, and knows nothing about it when it comes back.
    let mut raw = world.raw(&service, bob, &job.job());
    raw.assembled();
    waiting.wait_for("all 2 parties are here");
    service.process.kill();
    let _service = world.serve_with(&listen);
    let ended = waiting.wait().expect(1);
    ended.says("has another key: it was restarted; nothing of the job is kept, run it again");
    for process in [alice, bob].map(|party| world.run_lines(party, &["a"])) {
        process.wait().expect(0);
    }
}

#[test]
fn service_with_a_kept_key_is_restarted_while_a_job_runs() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    let [alice, bob] = &parties;
    let listen = format!("--listen 127.0.0.1:{} --identity bob/bob.key", free_port());
    let service = world.serve_with(&listen);
    let job = world.job(Some(&service), &parties);
    job.give_to(&parties);
    let waiting = world.run_lines(alice, &["a"]);
    let mut raw = world.raw(&service, bob, &job.job());
    raw.assembled();
    waiting.wait_for("all 2 parties are here");
    service.process.kill();
    let _service = world.serve_with(&listen);
    let ended = waiting.wait().expect(1);
    ended.says("the service does not know the run that 'alice' wants to resume");
}

#[test]
fn server_stays_down() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    let address = format!("127.0.0.1:{}", free_port());
    world.job(None, &parties).address(&address).deadline("2s").give_to(&parties);
    let ended = world.run_lines(&parties[0], &["a"]).wait().expect(1);
    ended.says(&format!("cannot reach {address}")).says("gave up after the job's deadline");
}

#[test]
fn service_stopped_by_sigterm() {
    let scene = Scene::new(["alice", "bob"]);
    let others = scene.world.parties(["carol", "dave"]);
    let other = scene.world.job(Some(&scene.service), &others).name("other");
    other.give_to(&others);
    let waiting = scene.run(0, &["a"]);
    waiting.wait_for("waiting for bob");
    let running = scene.world.run_lines(&others[0], &["a"]);
    let mut dave = scene.world.raw(&scene.service, &others[1], &other.job());
    dave.agree();
    running.wait_for("waiting until all parties have read their tables");
    let began = Instant::now();
    scene.service.process.terminate();
    scene.service.process.wait().expect(0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    for process in [waiting, running] {
        process.wait().expect(1).says("the service is shutting down");
    }
    assert_eq!(dave.connection.failure().reason, Reason::Shutdown);
}

/// Nobody can have been told by a party that no service knows of yet.
#[test]
fn party_stopped_before_a_service_knew_of_it() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    // Nothing listens there.
    let address = format!("127.0.0.1:{}", free_port());
    world.job(None, &parties).address(&address).give_to(&parties);
    let absent = world.run_lines(&parties[0], &["a"]);
    absent.wait_for("does not answer yet");
    // Something that listens and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    world.job(None, &parties).address(&address).give_to(&parties);
    let unanswered = world.run_lines(&parties[1], &["a"]);
    let _held = silent.accept().unwrap();
    for process in [absent, unanswered] {
        process.terminate();
        let ended = process.wait().expect(130).says("stopped on request; nobody was told");
        ended.never_says("have been told");
    }
}

#[test]
fn party_stopped_by_sigterm() {
    let scene = Scene::new(["alice", "bob", "carol"]);
    // While it waits, its seat is free again.
    let alice = scene.run(0, &["a"]);
    alice.wait_for("waiting for bob, carol");
    let bob = scene.run(1, &["a"]);
    alice.wait_for("waiting for carol");
    bob.terminate();
    bob.wait().expect(130).says("stopped on request; the other parties have been told");
    alice.wait_for_times("waiting for bob, carol", 2);
    // While the job runs, the others are told.
    let bob = scene.run(1, &["a"]);
    let mut carol = scene.raw(2);
    carol.agree();
    bob.wait_for("waiting until all parties have read their tables");
    let began = Instant::now();
    bob.terminate();
    bob.wait().expect(130);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    alice.wait().expect(1).says("'bob' left the job: it was stopped");
    let failed = carol.connection.failure();
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Stopped, Some("bob")));
    assert!(scene.parties.iter().all(|party| !party.has_matched()));
}

/// More than the 4 MiB that the replaced system's clients can send or receive.
#[test]
fn large_set_over_4_mb() {
    const IDS: usize = 500_000;
    let scene = Scene::new(["alice", "bob"]);
    for (number, party) in scene.parties.iter().enumerate() {
        let first = number * IDS / 10;
        let ids: String = (first..first + IDS).map(|id| format!("{id:016}\n")).collect();
        party.write("ids.txt", ids);
    }
    let running = scene.parties.each_ref().map(|party| scene.world.run_ids(party));
    for process in running {
        process.wait().expect(0);
    }
    let expected: String = (IDS / 10..IDS).map(|id| format!("{id:016}\n")).collect();
    assert!(expected.len() > 4 << 20 && IDS * 16 > 4 << 20);
    for party in &scene.parties {
        assert!(party.read("matched.txt") == expected, "{}: a different result", party.name);
    }
}

#[test]
fn idle_cpu_zero_while_waiting() {
    const TIME: Duration = Duration::from_secs(5);
    let scene = Scene::new(["alice", "bob", "carol"]);
    let running = [scene.run(0, &["a"]), scene.run(1, &["a"])];
    for process in &running {
        process.wait_for("waiting for carol");
    }
    let idle = scene.world.connect(&scene.service, &Identity::generate());
    // Let whatever began before settle.
    thread::sleep(Duration::from_millis(500));
    let [alice, bob] = &running;
    let processes = [&scene.service.process, alice, bob];
    let before = processes.map(Process::cpu_ticks);
    thread::sleep(TIME);
    let after = processes.map(Process::cpu_ticks);
    let ticks = [0, 1, 2].map(|index| after[index] - before[index]);
    assert!(ticks.iter().all(|ticks| *ticks <= 1), "{ticks:?} ticks of 10 ms in {TIME:?}");
    drop(idle);
}

/// The service gives back to the system what a job held and, soon after they end, what the
/// connections of many parties held.
#[test]
fn memory_is_given_back_after_delivery() {
    const IDS: usize = 100_000;
    const PARTIES: usize = 64;
    const KEPT_KIB: u64 = 16 << 10;
    let names: [String; PARTIES] = std::array::from_fn(|number| format!("party-{number}"));
    let scene = Scene::new(names.each_ref().map(String::as_str));
    let service = &scene.service.process;
    let before = service.memory_kib("VmRSS").expect("the service runs");
    let table: String = (0..IDS).map(|id| format!("id-{id}\n")).collect();
    for party in &scene.parties {
        party.write("ids.txt", &table);
    }
    let running = scene.parties.each_ref().map(|party| scene.world.run_ids(party));
    for process in running {
        assert_eq!(process.wait().expect(0).json()["result"]["keys"], IDS);
    }
    let peak = service.memory_kib("VmHWM").expect("the service runs");
    let pseudonyms = (PARTIES * IDS * 16 / 1024) as u64;
    assert!(peak > before + pseudonyms, "{before} KiB before, {peak} at most");
    let kept = || service.memory_kib("VmRSS").expect("the service runs").saturating_sub(before);
    let deadline = Instant::now() + PATIENCE;
    while kept() > KEPT_KIB && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    println!("{before} KiB before, {peak} at most, {} more afterwards", kept());
    assert!(kept() <= KEPT_KIB, "{before} KiB before, {} more afterwards", kept());
}

/// The sets that the service held are overwritten, and the same job, repeated at once, knows
/// nothing about the first run. (This excludes buffers of the transport: they hold pseudonyms in
/// their wire form until they are reused.)
#[test]
fn wiped_after_delivery() {
    let scene = Scene::new(["alice", "bob"]);
    let ids: Vec<String> = (0..50_000).map(|id| format!("id-{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // Alice stalls the job for a moment, so that bob's set is certain to be there during the
    // search.
    let mut bob = scene.raw(1).seated();
    let mut alice = scene.raw(0);
    let (key, _) = thread::scope(|scope| {
        let bob = scope.spawn(|| bob.agree());
        (alice.agree(), bob.join().expect("bob agrees"))
    });
    let set = bob.set(&key, &ids);
    let few = alice.set(&key, &["id-7"]);
    bob.announce(set.len() as u64, set.blake3().expect("in memory"));
    alice.announce(1, few.blake3().expect("in memory"));
    bob.has_room();
    alice.has_room();
    bob.send(&set);
    let ToParty::Uploads { .. } = alice.connection.message() else { panic!("bob's set is there") };
    let held = pseudonyms_in_memory(&scene.service.process, &set);
    assert!(held >= set.len(), "{held} of {} are in memory while the job runs", set.len());
    alice.send(&few);
    assert_eq!(common(&bob.outcome(&set).expect("a result")), 1);
    alice.outcome(&few).expect("a result");
    let deadline = Instant::now() + PATIENCE;
    while !scene.service.process.stderr().contains("a job is over") {
        assert!(Instant::now() < deadline, "the job does not end");
        thread::sleep(Duration::from_millis(10));
    }
    // A register's contents may remain on a stack.
    let left = pseudonyms_in_memory(&scene.service.process, &set);
    assert!(left <= 8, "{left} of {} are still in memory", set.len());
    let running = [scene.run(0, &["id-1", "x"]), scene.run(1, &["y"])];
    for process in running {
        assert_eq!(process.wait().expect(0).json()["result"]["keys"], 0);
    }
}

/// The wire form of a set, in pieces of this many bytes.
fn pieces(set: &PseudonymSet, bytes: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    set.chunks(bytes).map(|piece| piece.expect("in memory"))
}

/// How many times a process's memory contains a pseudonym of `set`: as a number of 128 bits, or as
/// the high half that the join compares.
fn pseudonyms_in_memory(process: &Process, set: &PseudonymSet) -> usize {
    let number = |pseudonym: &Pseudonym| u128::from_be_bytes(pseudonym.to_be_bytes());
    let wanted: HashSet<u128> = set.pseudonyms().expect("in memory").iter().map(number).collect();
    let half = |number: &u128| u64::try_from(number >> 64).expect("64 bits") ^ 1 << 63;
    let halves: HashSet<u64> = wanted.iter().map(half).collect();
    let mut found = 0;
    process.scan_memory(|bytes| {
        // Numbers of 128 bits are at multiples of 16, on some machines of 8.
        for offset in [0, 8] {
            let (numbers, _) = bytes.get(offset..).unwrap_or_default().as_chunks::<16>();
            let numbers = numbers.iter().map(|bytes| u128::from_ne_bytes(*bytes));
            found += numbers.filter(|number| wanted.contains(number)).count();
        }
        let words = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        found += words.filter(|word| halves.contains(word)).count();
    });
    found
}

/// Even at the most verbose level, nothing prints a record or a pseudonym, neither at the parties
/// nor at the service.
#[test]
fn first_id_never_logged() {
    let world = World::new().logging("trace");
    let scene = Scene::with(world, ["alice", "bob"], |job| job);
    let ids = ["quagga-one", "quagga-two", "quagga-three"];
    let alice = scene.run(0, &ids);
    let mut bob = scene.raw(1);
    let key = bob.agree();
    let set = bob.set(&key, &ids[1..]);
    bob.upload(&set);
    bob.outcome(&set).expect("a result");
    let alice = alice.wait().expect(0);
    scene.still_serves();
    scene.service.process.terminate();
    let service = scene.service.process.wait().expect(0);
    for ended in [alice, service] {
        assert!(ended.stderr.contains("TRACE"), "it logs: {}", ended.stderr);
        let ended = ended.never_says("quagga");
        for pseudonym in set.pseudonyms().expect("in memory") {
            let bytes = pseudonym.to_be_bytes();
            let hex = hex::encode(bytes);
            let text = ended.stderr.to_lowercase();
            assert!(!text.contains(&hex), "a pseudonym is logged");
            let escaped = format!("{}", bytes.escape_ascii());
            assert!(!ended.stderr.contains(&escaped), "a pseudonym is logged");
            assert!(!ended.stderr.contains(&format!("{bytes:?}")), "a pseudonym is logged");
        }
    }
}

/// Bob uploads what an honest party would not; the others are told who did it, and nothing is
/// joined.
fn refused_upload(upload: impl FnOnce(&mut RawParty, &[Vec<u8>; 3], [u8; 32]), words: &str) {
    let scene = Scene::new(["alice", "bob", "carol"]);
    let alice = scene.run(0, &["a"]);
    let carol = scene.run(2, &["a"]);
    let mut bob = scene.raw(1);
    let key = bob.agree();
    let set = bob.set(&key, &["a", "b", "c"]);
    let pseudonyms: Vec<Vec<u8>> = pieces(&set, 16).collect();
    let pseudonyms = pseudonyms.try_into().expect("three pseudonyms");
    upload(&mut bob, &pseudonyms, set.blake3().expect("in memory"));
    let failed = bob.connection.failure();
    assert_eq!(
        (failed.reason, failed.party.as_deref()),
        (Reason::Protocol, Some("bob")),
        "{failed}"
    );
    for process in [alice, carol] {
        let ended = process.wait().expect(1);
        ended.says("'bob' did not follow the protocol").says(words).never_says("joins them");
    }
    assert!(scene.parties.iter().all(|party| !party.has_matched()));
}

#[test]
fn unsorted_upload_is_named() {
    let words = "not strictly ascending";
    refused_upload(
        |bob, [a, b, c], blake3| {
            bob.announce(3, blake3);
            bob.has_room();
            bob.chunk([b.as_slice(), a, c].concat());
        },
        words,
    );
    refused_upload(
        |bob, [a, b, c], blake3| {
            bob.announce(3, blake3);
            bob.has_room();
            bob.chunk([a.as_slice(), c].concat());
            bob.chunk(b.clone());
        },
        words,
    );
}

#[test]
fn repeated_pseudonym_upload_is_named() {
    refused_upload(
        |bob, [a, b, _], blake3| {
            bob.announce(3, blake3);
            bob.has_room();
            bob.chunk([a.as_slice(), b].concat());
            bob.chunk(b.clone());
        },
        "not strictly ascending",
    );
}

#[test]
fn upload_with_another_digest_is_named() {
    refused_upload(
        |bob, pseudonyms, _| {
            bob.announce(3, [7; 32]);
            bob.has_room();
            bob.chunk(pseudonyms.concat());
        },
        "does not have the BLAKE3 it announced",
    );
}

#[test]
fn upload_of_half_a_pseudonym_is_named() {
    refused_upload(
        |bob, [a, ..], blake3| {
            bob.announce(3, blake3);
            bob.has_room();
            bob.chunk(a[..8].to_vec());
        },
        "a chunk of 8 bytes",
    );
}

#[test]
fn upload_without_an_announcement_is_named() {
    refused_upload(
        |bob, pseudonyms, _| {
            bob.chunk(pseudonyms.concat());
        },
        "a chunk arrived out of turn",
    );
}

#[test]
fn message_of_no_kind_is_named() {
    refused_upload(
        |bob, _, _| {
            bob.connection.send_raw(convelo_wire::proto::FromParty { message: None });
        },
        "unknown kind",
    );
}

#[test]
fn two_different_job_files() {
    let scene = Scene::with(World::new(), ["alice", "bob"], |job| job.minimum(1));
    let [_, bob] = &scene.parties;
    scene.builder.clone().minimum(2).deadline("20m").give_to([bob]);
    let alice = scene.run(0, &["a", "b"]);
    alice.wait_for("waiting for bob");
    let other = Job::from_toml(&bob.read("job.toml")).expect("a job").digest();
    for _ in 0..2 {
        let refused = scene.run(1, &["a"]).wait().expect(1);
        refused
            .says("other terms")
            .says("reveal.minimum: 2 here, 1 there")
            .says("deadline: 1200 s here, 600 s there");
    }
    let notice = format!("bob came with another job file, or other flags (digest {other})");
    alice.wait_for(&notice);
    scene.builder.give_to([bob]);
    scene.run(1, &["a"]).wait().expect(0);
    let alice = alice.wait().expect(0);
    assert_eq!(alice.stderr.matches(&notice).count(), 1, "{}", alice.stderr);
}

#[test]
fn a_job_whose_other_party_never_has_the_right_file_says_so_at_its_deadline() {
    let scene = Scene::with(World::new(), ["alice", "bob"], |job| job.deadline("5s"));
    let [_, bob] = &scene.parties;
    let alice = scene.run(0, &["a"]);
    alice.wait_for("waiting for bob");
    scene.builder.clone().minimum(2).give_to([bob]);
    scene.run(1, &["a"]).wait().expect(1).says("other terms");
    alice
        .wait()
        .expect(1)
        .says("passed while waiting for 'bob' ('bob' came with another job file)");
}

/// Whoever is not in a job cannot have its parties told that somebody came.
#[test]
fn stranger_spreads_a_notice_about_other_terms() {
    let scene = Scene::with(World::new(), ["alice", "bob"], |job| job.deadline("5s"));
    let [_, bob] = &scene.parties;
    let mallory = scene.world.party("mallory");
    let alice = scene.run(0, &["a"]);
    alice.wait_for("waiting for bob");
    let job = scene.world.job(Some(&scene.service), [&mallory, bob]).job();
    let seated = scene.world.raw(&scene.service, &mallory, &job).seated();
    alice.wait().expect(1).never_says("another job file");
    drop(seated);
}

#[test]
fn a_service_whose_name_does_not_exist() {
    let scene = Scene::with(World::new(), ["alice", "bob"], |job| job.deadline("1h"));
    let alice = &scene.parties[0];
    alice.lines(&["a"]);
    let nowhere = "--service no-such-host.invalid:7443 --input ids.txt --output matched.txt";
    let ended = scene.world.run(alice, nowhere).wait().expect(1);
    ended.says("error: the name 'no-such-host.invalid' does not resolve").never_says("60 min");
}

/// What a run says if nobody can take its rows; the partner has its result, and a second run would cost
/// another look at everybody's sets.
#[test]
fn rows_that_cannot_be_written_are_written_later() {
    let scene = Scene::new(["alice", "bob"]);
    let alice = &scene.parties[0];
    let ids: Vec<String> = (0..1000).map(|number| format!("id-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    alice.lines(&ids);
    let partner = scene.run(1, &ids[10..]);
    let run = "run job.toml --as alice --insecure-simulated --input ids.txt";
    let full = OpenOptions::new().write(true).open("/dev/full").expect("a device that is full");
    let mut command =
        scene.world.command(&alice.path(""), &format!("{run} --output - --receipt receipt.json"));
    let ended = command.stdout(full).output().expect("a program");
    partner.wait().expect(0);
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(
        error.contains("the receipt is receipt.json; the answer is kept in test.answer.json"),
        "{error}"
    );
    assert!(alice.path("receipt.json").exists(), "{error}");
    let mode = alice.path("test.answer.json").metadata().expect("an answer").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.service.process.terminate();

    let resume = |more: &str| {
        let line = format!("{run} --output matched.txt --resume test.answer.json {more}");
        scene.world.start_at(alice, &line).wait()
    };
    alice.lines(&ids[1..]);
    resume("").expect(2).says("it belongs to another table");
    alice.lines(&ids);
    assert_eq!(resume("--json").expect(0).json(), json!({"rows": 990, "output": "matched.txt"}));
    assert_eq!(alice.matched(), ids[10..]);
    assert!(!alice.path("test.answer.json").exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault_of_a_file() {
    let scene = Scene::new(["alice", "bob"]);
    let alice = &scene.parties[0];
    let ids: Vec<String> = (0..100_000).map(|number| format!("id-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    alice.lines(&ids);
    let partner = scene.run(1, &ids);
    let run = "run job.toml --as alice --insecure-simulated --input ids.txt --output -";
    let mut command = scene.world.command(&alice.path(""), run);
    let mut running =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program");
    let mut head = [0; 10];
    running.stdout.take().expect("a pipe").read_exact(&mut head).expect("rows");
    let ended = running.wait_with_output().expect("its end");
    partner.wait().expect(0);
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((&head[..5], ended.status.code()), (&b"id-0\n"[..], Some(1)), "{error}");
    assert!(error.contains("was closed by whoever reads it"), "{error}");
    assert!(error.contains("--resume test.answer.json"), "{error}");
}

#[test]
fn name_held_by_another_key() {
    let world = World::new();
    let service = world.serve();
    let [alice, copy, bob] = world.parties(["alice", "copy", "bob"]);
    for party in [&alice, &copy, &bob] {
        party.lines(&["a", &party.name]);
    }
    let first = world.join(&service, &alice, "--parties 2 --identity alice.key");
    first.wait_for("waiting for 1 more party");
    let args = format!(
        "join --service {} --policy ../dynamic_config.json --collateral collateral.json \
         --insecure-simulated-root ../platform/root.pem --name alice --parties 2 --data ids.txt",
        service.address
    );
    let refused = world.start_at(&copy, &args).wait().expect(1);
    refused.says("another key already takes part as 'alice'");
    // Nor may one key take two seats.
    let failed = RawParty::enter(
        world.connect(&service, &alice.identity),
        &join_job(2),
        "other",
        &alice.identity,
    )
    .connection
    .failure();
    assert_eq!(failed.reason, Reason::NameTaken, "{failed}");
    assert_eq!(world.join(&service, &bob, "--parties 2").wait().expect(0).stdout, "a\n");
    assert_eq!(first.wait().expect(0).stdout, "a\n");
}

#[test]
fn wrong_key_for_a_name() {
    let scene = Scene::new(["alice", "bob"]);
    let [_, bob] = &scene.parties;
    let alice = scene.run(0, &["a"]);
    alice.wait_for("waiting for bob");
    // The program itself compares its key with the job file,
    let stranger = scene.world.party("stranger");
    let found = stranger.key_id().to_string();
    let pinned = bob.key_id().to_string();
    bob.lines(&["a"]);
    let run = "--input ids.txt --output matched.txt --identity ../stranger/stranger.key";
    scene.world.run(bob, run).wait().expect(2).says(&found).says(&pinned);
    // and the service compares the key that the connection proved.
    let connection = scene.world.connect(&scene.service, &stranger.identity);
    let job = scene.builder.job();
    let failed = RawParty::enter(connection, &job, "bob", &bob.identity).connection.failure();
    assert_eq!(failed.reason, Reason::Stranger);
    assert!(failed.explanation.contains(&found) && failed.explanation.contains(&pinned));
    scene.run(1, &["a"]).wait().expect(0);
    alice.wait().expect(0);
}

/// The right connection with a one-time key that someone else signed: the other parties refuse it
/// before anything is sent.
#[test]
fn one_time_key_of_somebody_else() {
    let scene = Scene::new(["alice", "bob"]);
    let [_, bob] = &scene.parties;
    let alice = scene.run(0, &["a"]);
    let connection = scene.world.connect(&scene.service, &bob.identity);
    let job = scene.builder.job();
    let mut forger = RawParty::enter(connection, &job, "bob", &Identity::generate());
    forger.assembled();
    let ended = alice.wait().expect(1);
    ended.says("the one-time key of 'bob' is not signed").never_says("read 1 row");
    let failed = forger.connection.failure();
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::KeyAgreement, Some("alice")));
}

/// Somebody has got hold of Bob's one-time key of an earlier run, which he signed for this job, and of
/// his confirmation of that run. It opens what Alice seals to him, and derives the key; but it does not
/// have his identity key. (It needs his connection here, because the service is an honest one.)
#[test]
fn one_time_key_of_an_earlier_run_has_leaked() {
    let scene = Scene::new(["alice", "bob"]);
    let [_, bob] = &scene.parties;
    let job = scene.builder.job();
    let enter = || {
        let connection = scene.world.connect(&scene.service, &bob.identity);
        RawParty::enter(connection, &job, "bob", &bob.identity)
    };
    let run = scene.run(0, &["a"]);
    let mut bob = enter();
    let (_, earlier) = bob.confirm(|own| own);
    bob.connection.send(FromParty::Leave(Reason::Stopped));
    run.wait().expect(1);

    let run = scene.run(0, &["a"]);
    let mut leaked = enter();
    leaked.confirm(|own| Confirmation { signature: earlier.signature, ..own });
    run.wait().expect(1).says("'bob' did not sign this run").never_says("read 1 row");
    let failed = leaked.connection.failure();
    assert_eq!((failed.reason, failed.party.as_deref()), (Reason::KeyAgreement, Some("alice")));
}

/// A program of version 1 of the key agreement: another form of one-time key, and no version.
#[test]
fn party_of_an_older_version() {
    let scene = Scene::new(["alice", "bob"]);
    let [_, bob] = &scene.parties;
    let alice = scene.run(0, &["a"]);
    alice.wait_for("waiting for");
    let job = scene.builder.job();
    let mut older = scene.world.connect(&scene.service, &bob.identity);
    older.attest(job.digest());
    older.send_raw(proto::FromParty {
        message: Some(proto::from_party::Message::Hello(proto::Hello {
            job: job.canonical().as_bytes().to_vec(),
            party: "bob".to_owned(),
            offer: Some(proto::KeyOffer { one_time_key: vec![1; 32], signature: vec![2; 70] }),
            software: "convelo 0.1.0".to_owned(),
            ..Default::default()
        })),
    });
    let failed = older.failure();
    assert_eq!(failed.reason, Reason::Version, "{failed}");
    assert!(
        failed.explanation.contains("speaks version 1 of the key agreement, expected version 2")
    );
    // The others go on waiting for a party of their version.
    scene.run(1, &["a"]).wait().expect(0);
    alice.wait().expect(0);
}
