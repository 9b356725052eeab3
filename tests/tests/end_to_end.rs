//! The whole path of a record, from one provider's table to every permitted provider's result:
//! real processes, real sockets, results compared with an independent computation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use convelo_attest::Tee;
use convelo_psi::{KeyId, OutcomeKind};
use convelo_tests::oracle::{self, Checked, Findings};
use convelo_tests::proxy::{Counted, breaking};
use convelo_tests::tables::{Customers, Random, seed};
use convelo_tests::{Ended, Party, Process, World, free_port};
use serde_json::{Value, json};

const NAMES: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];

const MILLION: usize = 1_000_000;

/// How a party runs, with one of [`Customers`] as its table.
fn customers_run(party: usize) -> String {
    let file = Customers::file(party);
    format!("--input {file} --key email --output {} --json", matched(party))
}

fn matched(party: usize) -> String {
    Customers::file(party).replace("customers", "matched")
}

/// Parties with generated tables and a job of their e-mail addresses.
fn customers(world: &World, address: &str, parties: usize, rows: usize) -> Vec<Party> {
    let tables = Customers { seed: seed(), parties, rows };
    let parties: Vec<Party> = NAMES[..parties].iter().map(|name| world.party(name)).collect();
    for (index, party) in parties.iter().enumerate() {
        tables.write(index, &party.path(Customers::file(index)));
    }
    world.job(None, &parties).address(address).key(&[("email", &["email"])]).give_to(&parties);
    parties
}

/// Compares all results with the independent computation.
fn check(world: &World, parties: &[Party], ended: Vec<Ended>) -> Findings {
    let tables: Vec<Checked> = parties
        .iter()
        .enumerate()
        .map(|(index, party)| Checked {
            input: party.path(Customers::file(index)),
            output: party.path(&matched(index)),
            delimiter: Customers::delimiter(index),
            column: "email",
        })
        .collect();
    let findings = oracle::check(&tables, &world.path(""));
    assert!(findings.common > 0, "the tables have something in common");
    for (ended, found) in ended.into_iter().zip(&findings.parties) {
        let summary = ended.expect(0).json();
        assert_eq!(summary["result"]["keys"], findings.common, "{summary}");
        assert_eq!(summary["result"]["rows"], found.matched, "{summary}");
        let duplicates = found.rows - found.blank - found.invalid - found.keys;
        let input = json!({
            "rows": found.rows,
            "blank": found.blank,
            "invalid": found.invalid,
            "duplicates": duplicates,
            "keys": found.keys,
        });
        assert_eq!(summary["input"], input);
        assert!(duplicates > 0 && found.blank > 0 && found.invalid > 0, "{summary}");
    }
    findings
}

fn a_million_rows_each(parties: usize) {
    let world = World::new();
    let service = world.serve();
    let parties = customers(&world, &service.address, parties, MILLION);
    let running: Vec<Process> = parties
        .iter()
        .enumerate()
        .map(|(index, party)| world.run(party, &customers_run(index)))
        .collect();
    let ended = running.into_iter().map(Process::wait).collect();
    let findings = check(&world, &parties, ended);
    let half = findings.parties[0].keys / 2;
    assert!(findings.common.abs_diff(half) <= 1, "half of the keys: {findings:?}");
}

#[test]
fn two_parties_with_a_million_rows_each() {
    a_million_rows_each(2);
}

#[test]
fn three_parties_with_a_million_rows_each() {
    a_million_rows_each(3);
}

#[test]
fn eight_parties_with_a_million_rows_each() {
    a_million_rows_each(8);
}

/// Bob's connections break during his upload, carol's before it and during her result.
#[test]
fn connections_that_break_are_followed_by_others() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --reconnect-within 30s");
    let parties = customers(&world, &service.address, 3, 300_000);
    let bob = [1_300_000, 900_000, 5_000, 2_500_000, 1_000_000];
    let ways = [
        service.address.clone(),
        breaking(&service.address, Counted::Up, bob),
        breaking(&service.address, Counted::Down, (10_000..60_000).step_by(10_000)),
    ];
    let running: Vec<Process> = parties
        .iter()
        .zip(ways)
        .enumerate()
        .map(|(index, (party, way))| {
            world.run(party, &format!("{} --service {way}", customers_run(index)))
        })
        .collect();
    let again = "reconnected; the job continues where it was";
    let ended = running.into_iter().map(Process::wait).enumerate();
    let ended = ended.map(|(index, ended)| match index {
        0 => ended.never_says(again),
        _ => ended.says(again),
    });
    let ended = ended.collect();
    check(&world, &parties, ended);
}

/// A job over this many services; bob's connection to the first breaks.
fn several_services(count: usize) {
    let world = World::new();
    let services: Vec<_> = (0..count).map(|_| world.serve()).collect();
    let addresses: Vec<&str> = services.iter().map(|service| service.address.as_str()).collect();
    let parties = customers(&world, "127.0.0.1:1", 3, 100_000);
    let job = world.job(None, &parties).key(&[("email", &["email"])]).addresses(&addresses);
    job.give_to(&parties);
    let running: Vec<Process> = parties
        .iter()
        .enumerate()
        .map(|(index, party)| world.run(party, &customers_run(index)))
        .collect();
    let ended: Vec<Ended> = running.into_iter().map(Process::wait).collect();
    let receipts = ended[0].json()["receipts"].as_array().expect("a list").clone();
    assert_eq!(receipts.len(), count);
    let findings = check(&world, &parties, ended);
    let (mut keys, mut shards) = (0, BTreeSet::new());
    for name in receipts {
        let name = name.as_str().expect("a path");
        let verified = world.start_at(&parties[0], &format!("receipt verify {name} --json"));
        verified.wait().expect(0);
        let receipt = receipt(&parties[0], name);
        keys += receipt["result"]["keys"].as_u64().expect("a number");
        shards.insert(receipt["job"]["shard"]["number"].as_u64());
        // The size reveals nothing but the size of the whole.
        assert_eq!(receipt["sent"]["keys"], job.job().sent(findings.parties[0].keys));
    }
    assert_eq!((keys, shards.len()), (findings.common, count));
}

#[test]
fn two_services() {
    several_services(2);
}

#[test]
fn eight_services() {
    several_services(8);
}

#[test]
fn one_of_several_services_is_not_there() {
    let world = World::new();
    let service = world.serve();
    let absent = format!("127.0.0.1:{}", free_port());
    let parties = world.parties(["alice", "bob"]);
    let job = world.job(None, &parties).addresses(&[&service.address, &absent]).deadline("3s");
    job.give_to(&parties);
    for process in parties.each_ref().map(|party| world.run_lines(party, &["a"])) {
        process
            .wait()
            .expect(1)
            .says(&format!("service {absent}: "))
            .says("gave up after the job's");
    }
    assert!(!parties[0].has_matched());
}

#[test]
fn a_party_that_leaves_one_of_several_services_leaves_all() {
    let world = World::new();
    let services = [world.serve(), world.serve()];
    let parties = world.parties(["alice", "bob"]);
    let addresses = services.each_ref().map(|service| service.address.as_str());
    let job = world.job(None, &parties).addresses(&addresses);
    job.give_to(&parties);
    parties[1].write("ids.txt", b"id-1\n\xff\n");
    let alice = world.run_lines(&parties[0], &["id-1"]);
    world.run_ids(&parties[1]).wait().expect(2);
    alice.wait().expect(1).says("'bob' left the job: it could not read its table");
    for service in services {
        service.process.wait_for("a job is over");
    }
}

/// The seed is printed: `CONVELO_TESTS_SEED` repeats the tables and the order of all runs.
#[test]
fn twenty_runs_in_random_start_order() {
    const RUNS: usize = 20;
    const SERVICE: usize = 3;
    let world = World::new();
    let address = format!("127.0.0.1:{}", free_port());
    let parties = customers(&world, &address, SERVICE, MILLION);
    let mut random = Random::new(seed());
    let mut first: Option<Vec<Vec<u8>>> = None;
    let mut before_the_service = 0;
    for run in 0..RUNS {
        let mut order = [0, 1, 2, SERVICE];
        random.shuffle(&mut order);
        // In the first run, every party waits for the service.
        if run == 0 {
            order = [2, 0, 1, SERVICE];
        }
        let mut service = None;
        let mut running: Vec<Option<Process>> = (0..SERVICE).map(|_| None).collect();
        for who in order {
            if who == SERVICE {
                for early in running.iter().flatten() {
                    early.wait_for("does not answer yet");
                    before_the_service += 1;
                }
                service = Some(world.serve_with(&format!("--listen {address}")));
            } else {
                running[who] = Some(world.run(&parties[who], &customers_run(who)));
            }
            thread::sleep(Duration::from_millis(random.next() % 300));
        }
        let ended: Vec<Ended> = running.into_iter().flatten().map(Process::wait).collect();
        let outputs = |parties: &[Party]| -> Vec<Vec<u8>> {
            let read = |(index, party): (usize, &Party)| {
                fs::read(party.path(&matched(index))).expect("an output")
            };
            parties.iter().enumerate().map(read).collect()
        };
        match &first {
            None => {
                check(&world, &parties, ended);
                first = Some(outputs(&parties));
            }
            Some(first) => {
                for ended in ended {
                    ended.expect(0);
                }
                assert!(
                    *first == outputs(&parties),
                    "run {run}, order {order:?}: a different result"
                );
            }
        }
        for (index, party) in parties.iter().enumerate() {
            fs::remove_file(party.path(&matched(index))).expect("an output");
        }
        drop(service);
    }
    assert!(before_the_service >= SERVICE, "some parties came before the service");
}

#[test]
fn count_only_gives_every_party_the_number_and_nothing_else() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).count().give_to(&parties);
    parties[0].lines(&["a", "b", "c", "c"]);
    parties[1].lines(&["x", "c", "b", "y"]);
    let running = parties.each_ref().map(|party| world.run(party, "--input ids.txt --json"));
    for (ended, party) in running.map(Process::wait).into_iter().zip(&parties) {
        let summary = ended.expect(0).json();
        assert_eq!(summary["result"], json!({"kind": "count", "keys": 2}));
        assert_eq!(summary["output"], Value::Null);
        assert!(!party.has_matched());
        assert_eq!(receipt(party, "test.receipt.json")["result"], summary["result"]);
    }
    let refused = world.run_ids(&parties[0]).wait().expect(2);
    refused.says("leave out --output");
}

#[test]
fn only_those_named_learn_the_result() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob", "carol"]);
    let [alice, bob, carol] = &parties;
    world.job(Some(&service), &parties).to(&[alice, carol]).give_to(&parties);
    for party in &parties {
        party.lines(&["a", "b", &party.name]);
    }
    let running =
        [world.run_ids(alice), world.run(bob, "--input ids.txt --json"), world.run_ids(carol)];
    let [first, second, third] = running.map(|process| process.wait().expect(0));
    for (ended, party) in [(first, alice), (third, carol)] {
        assert_eq!(party.matched(), ["a", "b"]);
        assert_eq!(ended.json()["result"], json!({"kind": "intersection", "keys": 2, "rows": 2}));
    }
    assert_eq!(second.json()["result"], json!({"kind": "nothing"}));
    second.says("the job gives this party no result");
    assert!(!bob.has_matched());
    let receipt = receipt(bob, "test.receipt.json");
    assert_eq!(receipt["result"], json!({"kind": "nothing"}));
    assert_eq!(receipt["result_sha256"], Value::Null);
}

#[test]
fn a_result_below_the_minimum_is_withheld_without_a_number() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob", "carol"]);
    let [alice, bob, carol] = &parties;
    world.job(Some(&service), &parties).minimum(5).to(&[alice, bob]).give_to(&parties);
    for party in &parties {
        party.lines(&["a", "b", "c", "d", &party.name]);
    }
    let running =
        [world.run_ids(alice), world.run_ids(bob), world.run(carol, "--input ids.txt --json")];
    let [first, second, third] = running.map(Process::wait);
    let third = third.expect(0);
    assert_eq!(third.json()["result"], json!({"kind": "nothing"}), "not even that it was withheld");
    let third = third.never_says("withheld: ");
    says_no_number_after_the_upload(&third);
    for (ended, party) in [(first, alice), (second, bob)] {
        let ended = ended.expect(4).says("result withheld");
        says_no_number_after_the_upload(&ended);
        assert_eq!(ended.json()["result"], json!({"kind": "withheld"}));
        assert!(!party.has_matched());
        let receipt = receipt(party, "matched.txt.receipt.json");
        assert_eq!(receipt["result"], json!({"kind": "withheld"}));
        assert_eq!(receipt["result_sha256"], Value::Null);
    }
}

/// The lines printed after a party's own set is sent contain no digit.
#[track_caller]
fn says_no_number_after_the_upload(ended: &Ended) {
    let lines = ended.stderr.lines().skip_while(|line| !line.starts_with("sent ")).skip(1);
    let lines: Vec<&str> = lines.collect();
    assert!(!lines.is_empty(), "{}", ended.stderr);
    for line in lines {
        assert!(!line.contains(|c: char| c.is_ascii_digit()), "{line}");
    }
}

#[test]
fn a_result_at_the_minimum_is_given() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).minimum(2).give_to(&parties);
    let running = parties.each_ref().map(|party| world.run_lines(party, &["a", "b", &party.name]));
    for process in running {
        process.wait().expect(0);
    }
    assert_eq!(parties[1].matched(), ["a", "b"]);
}

#[test]
fn a_set_above_the_cap_stops_the_job_before_the_join() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob", "carol"]);
    let [alice, bob, carol] = &parties;
    world.job(Some(&service), &parties).maximum_keys_of(bob, 3).give_to(&parties);
    let running = [
        world.run_lines(alice, &["a", "b"]),
        world.run_lines(bob, &["a", "b", "c", "d", "a"]),
        world.run_lines(carol, &["b", "a"]),
    ];
    let [first, second, third] = running.map(Process::wait);
    second.expect(4).says("4 distinct keys").says("allows 3").says("nothing was sent");
    for ended in [first, third] {
        ended
            .expect(1)
            .says("'bob' left the job: its set is larger than the job allows")
            .never_says("joins them");
    }
    for party in &parties {
        assert!(!party.has_matched());
        assert!(!party.path("matched.txt.receipt.json").exists());
    }
}

#[test]
fn a_key_of_several_columns() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    let key: [(&str, &[&str]); 2] =
        [("name", &["trim", "nfkc", "lowercase"]), ("phone", &["phone:49"])];
    world.job(Some(&service), &parties).key(&key).give_to(&parties);
    parties[0].write(
        "people.csv",
        "id,phone,name\n1,030 123456,Ada\n2,030 123456,Bob\n3,,Ada\n4,0049 30 99999,EVE \n\
         5,call me,Dan\n",
    );
    parties[1].write(
        "people.csv",
        "name,city,phone\nada,Delft,+49 30 123456\nEve,Ulm,03099999\n\
                                    Bob,Rom,+39 30 123456\n",
    );
    let run = "--input people.csv --key name --key phone --output matched.csv --json";
    let running = parties.each_ref().map(|party| world.run(party, run));
    let [first, _] = running.map(|process| process.wait().expect(0));
    assert_eq!(
        parties[0].read("matched.csv"),
        "id,phone,name\n1,030 123456,Ada\n4,0049 30 99999,EVE \n"
    );
    assert_eq!(
        parties[1].read("matched.csv"),
        "name,city,phone\nada,Delft,+49 30 123456\nEve,Ulm,03099999\n"
    );
    let input = json!({"rows": 5, "blank": 1, "invalid": 1, "duplicates": 0, "keys": 3});
    assert_eq!(first.json()["input"], input);
    let one_column = world.run(&parties[0], "--input people.csv --key name --output m.csv");
    one_column.wait().expect(2).says("the job's key has 2 parts (name, phone)");
}

/// A table goes in and matched rows come out as in any pipeline, compressed or not.
#[test]
fn tables_in_a_pipeline() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    parties[0].write("t.csv", "id,name,town\na,Ann,Delft\nx,Xi,Oslo\na,Anna,\nb,Bo,Ghent\n");
    parties[1].write("ids.csv", "id\nb\na\n");
    let shell = |party: &Party, script: &str| {
        let convelo = world.command(&party.path("."), "");
        let mut shell = Command::new("sh");
        shell.current_dir(party.path(".")).args(["-c", script]);
        Process::spawn(&party.name, shell.env("CONVELO", convelo.get_program()))
    };
    let alice = shell(
        &parties[0],
        "gzip -c t.csv | \"$CONVELO\" run job.toml --as alice --insecure-simulated --input - \
         --format csv --key id --select town,name --output - --temporary . | sort",
    );
    let bob = shell(
        &parties[1],
        "\"$CONVELO\" run job.toml --as bob --insecure-simulated --input ids.csv --key id --output out.csv.gz \
         && gzip -dc out.csv.gz",
    );
    let alice = alice.wait().expect(0);
    assert_eq!(alice.stdout, ",Anna\nDelft,Ann\nGhent,Bo\ntown,name\n");
    assert_eq!(bob.wait().expect(0).stdout, "id\nb\na\n");
    let left: Vec<_> = fs::read_dir(parties[0].path(".")).expect("a directory").flatten().collect();
    let names: BTreeSet<_> = left.iter().map(fs::DirEntry::file_name).collect();
    let expected = [
        "alice.key",
        "collateral.json",
        "job.toml",
        "seen-lists.json",
        "t.csv",
        "test.receipt.json",
    ];
    assert_eq!(names, expected.map(Into::into).into());
}

/// Rows go to a stream that nobody reads: the party can be stopped nevertheless.
#[test]
fn stopped_while_nobody_reads_its_rows() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let ids: Vec<String> = (0..100_000).map(|id| format!("customer-{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    parties[0].lines(&ids);
    let made = Command::new("mkfifo").arg(parties[0].path("rows")).status().expect("mkfifo runs");
    assert!(made.success());
    let mut shell = Command::new("sh");
    let convelo = world.command(&parties[0].path("."), "");
    let script = "exec \"$CONVELO\" run job.toml --as alice --insecure-simulated --input ids.txt \
                  --output - <>rows >&0";
    shell.current_dir(parties[0].path(".")).args(["-c", script]);
    let alice = Process::spawn("alice", shell.env("CONVELO", convelo.get_program()));
    world.run_lines(&parties[1], &ids).wait().expect(0);
    alice.wait_for("joining them");
    thread::sleep(Duration::from_millis(500));
    alice.terminate();
    alice
        .wait_within(Duration::from_secs(20))
        .expect(130)
        .says("while the result was being written");
}

#[test]
fn tables_of_every_layout() {
    let world = World::new();
    let service = world.serve();
    let layouts = [
        ("comma", "t.csv", "id,note\na,1\nc,2\nb,3\n", "--key id", "id,note\na,1\nb,3\n"),
        (
            "semicolon-crlf-bom",
            "t.csv",
            "\u{feff}id;note\r\nb;\"x;y\"\r\na;z\r\n\r\nq;w\r\n",
            "--key id",
            "id;note\r\nb;\"x;y\"\r\na;z\r\n",
        ),
        ("tab", "t.tsv", "note\tid\nx\ta\ny\tn\nz\tb\n", "--key #2", "note\tid\nx\ta\nz\tb\n"),
        (
            "quoted-newlines",
            "t.csv",
            "id,note\n\"b\",\"two\nlines\"\n\"a \",\"say \"\"yes\"\"\"\nx,\n",
            "--key id",
            "id,note\n\"b\",\"two\nlines\"\n\"a \",\"say \"\"yes\"\"\"\n",
        ),
        ("no-header", "t.csv", "a|1\nb|2\nd|3\n", "--no-header --key 1", "a|1\nb|2\n"),
        (
            "odd-delimiter",
            "t.dat",
            "id~n\nb~1\na~2\n",
            "--delimiter ~ --key id",
            "id~n\nb~1\na~2\n",
        ),
        ("lines", "t.txt", " a\n\nb\r\nb", "", " a\nb\r\nb\n"),
        ("lines-by-flag", "t.list", "b\na\nz\n", "--format lines", "b\na\n"),
    ];
    let parties: Vec<Party> = layouts.iter().map(|(name, ..)| world.party(name)).collect();
    world.job(Some(&service), &parties).give_to(&parties);
    let mut running = Vec::new();
    for ((_, file, table, flags, _), party) in layouts.iter().zip(&parties) {
        party.write(file, table);
        running.push(world.run(party, &format!("--input {file} {flags} --output out")));
    }
    for process in running {
        process.wait().expect(0);
    }
    for ((name, .., expected), party) in layouts.iter().zip(&parties) {
        assert_eq!(party.read("out"), *expected, "{name}");
    }
}

#[test]
fn summary_and_receipt_say_what_happened_and_hold_no_record() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    let builder = world.job(Some(&service), &parties);
    builder.give_to(&parties);
    let digest = builder.job().digest().to_string();
    let records = ["zebra-record-one", "zebra-record-two", "zebra-record-three"];
    let first = world.run_lines(&parties[0], &records[..2]);
    let second = world.run_lines(&parties[1], &records[1..]);
    let summary = first.wait().expect(0).json();
    second.wait().expect(0);
    assert_eq!(parties[0].matched(), ["zebra-record-two"]);

    let mut verdict = summary["verdict"].clone();
    assert!(verdict.take().is_object(), "{summary}");
    assert_eq!(summary["party"], "alice");
    assert_eq!(summary["job"], "test");
    assert_eq!(summary["job_digest"], digest);
    assert_eq!(summary["simulated"], true);
    assert_eq!(
        summary["input"],
        json!({"rows": 2, "blank": 0, "invalid": 0, "duplicates": 0, "keys": 2})
    );
    assert_eq!(summary["result"], json!({"kind": "intersection", "keys": 1, "rows": 1}));
    assert_eq!(summary["output"], "matched.txt");
    assert_eq!(summary["receipts"][0], "matched.txt.receipt.json");

    let text = parties[0].read("matched.txt.receipt.json");
    assert!(!text.contains("zebra"), "{text}");
    let receipt = receipt(&parties[0], "matched.txt.receipt.json");
    assert_eq!(receipt["form"], "convelo/receipt/v2");
    assert_eq!(receipt["witness"], "service");
    assert_eq!(receipt["simulated"], true);
    assert_eq!(receipt["party"], "alice");
    assert_eq!(receipt["job_digest"], digest);
    assert_eq!(receipt["job"], serde_json::from_str::<Value>(builder.job().canonical()).unwrap());
    assert_eq!(receipt["service"]["address"], service.address);
    assert_eq!(receipt["service"]["key"], service.key.to_string());
    let members = parties
        .each_ref()
        .map(|party| json!({"name": party.name, "key": party.key_id().to_string()}));
    assert_eq!(receipt["members"], json!(members));
    assert_eq!(receipt["input"], summary["input"]);
    assert_eq!(receipt["sent"]["keys"], 2);
    assert_eq!(receipt["result"], summary["result"]);
    let times = ["started", "joined", "finished"].map(|time| receipt["times"][time].as_u64());
    assert!(times.is_sorted() && times[0] > Some(1_700_000_000), "{times:?}");
    says_what_the_service_signed(&receipt);
}

/// Canaries are in no result and no count, and the receipt says that they were asked about.
#[test]
fn canaries_are_answered_and_taken_out() {
    let world = World::new();
    let services = [world.serve(), world.serve()];
    let parties = world.parties(["alice", "bob", "carol"]);
    for several in [false, true] {
        let job = world.job(Some(&services[0]), &parties).canaries(20).maximum_keys(10_000);
        let addresses = services.each_ref().map(|service| service.address.as_str());
        let job = if several { job.addresses(&addresses) } else { job.minimum(2) };
        job.give_to(&parties);
        let lines = [["a", "b", "c"], ["b", "c", "d"], ["c", "b", "e"]];
        let running = [0, 1, 2].map(|party| world.run_lines(&parties[party], &lines[party]));
        let asked = if several { 160 } else { 80 };
        let says = format!("answered rightly about {asked} canaries");
        let [alice, ..] = running.map(|process| process.wait().expect(0).says(&says));
        let summary = alice.json();
        assert_eq!(summary["result"], json!({"kind": "intersection", "keys": 2, "rows": 2}));
        assert_eq!(summary["canaries"], json!({"in_all": asked / 4, "not_in_all": asked / 4 * 3}));
        assert_eq!(parties[0].matched(), ["b", "c"]);
        for name in summary["receipts"].as_array().expect("a list") {
            let name = name.as_str().expect("a path");
            let verify = format!("receipt verify {name} --job job.toml");
            let shown = world.start_at(&parties[0], &verify).wait().expect(0).stdout;
            assert!(
                shown.contains(&format!("all {asked} canaries were answered rightly")),
                "{shown}"
            );
        }
        let check = world.start_at(&parties[0], "check job.toml").wait().expect(0).stdout;
        assert!(check.contains("canaries: 20 of each pattern; each party sends 80"), "{check}");
        assert!(check.contains("50.000 % of the matches"), "{check}");
    }
    // The minimum is about records: canaries do not make a small result large.
    world.job(Some(&services[0]), &parties).canaries(20).minimum(3).give_to(&parties);
    let lines = [["a", "b", "c"], ["b", "c", "d"], ["c", "b", "e"]];
    let running = [0, 1, 2].map(|party| world.run_lines(&parties[party], &lines[party]));
    for process in running {
        process.wait().expect(4).says("result withheld");
    }
}

/// A job whose parties accept no other key exchange than the hybrid one, which our services have.
#[test]
fn job_that_demands_a_hybrid_key_exchange() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).key_exchange("X25519MLKEM768").give_to(&parties);
    let running = parties.each_ref().map(|party| world.run_lines(party, &["a"]));
    for process in running {
        process.wait().expect(0);
    }
    let check = world.start_at(&parties[0], "check job.toml").wait().expect(0).stdout;
    assert!(check.contains("X25519MLKEM768 and no other key exchange"), "{check}");
    world.job(Some(&service), &parties).key_exchange("X25519").give_to(&parties);
    world.start_at(&parties[0], "check job.toml").wait().expect(2).says("X25519MLKEM768");
}

/// Verifies the statement in a receipt from the receipt alone, and that the two agree.
fn says_what_the_service_signed(receipt: &Value) {
    let bytes = |value: &Value| hex::decode(value.as_str().expect("text")).expect("hex");
    let certificate = bytes(&receipt["service"]["certificate"]);
    let spki = convelo_attest::spki_of(&certificate).expect("a certificate");
    assert_eq!(KeyId::of_spki(&spki).to_string(), receipt["service"]["key"]);
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki).expect("a P-256 key");
    let (statement, signature) = (bytes(&receipt["statement"]), bytes(&receipt["signature"]));
    key.verify_sig(&statement, &signature).expect("the service signed the statement");
    let mut forged = statement.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    key.verify_sig(&forged, &signature).expect_err("another statement");
    let statement = convelo_psi::Statement::decode(&statement).expect("a statement");
    assert_eq!(statement.job.to_string(), receipt["job_digest"]);
    assert_eq!(statement.party, receipt["party"]);
    assert_eq!(statement.keys, receipt["sent"]["keys"]);
    assert_eq!(hex::encode(statement.set_blake3), receipt["sent"]["blake3"]);
    let told = statement.told;
    assert_eq!(told.kind, OutcomeKind::INTERSECTION);
    assert_eq!(receipt["result"]["kind"], "intersection");
    assert_eq!(told.count, receipt["result"]["keys"]);
    assert_eq!(hex::encode(told.sha256), receipt["result_sha256"]);
}

fn receipt(party: &Party, name: &str) -> Value {
    serde_json::from_str(&party.read(name)).expect("a receipt is JSON")
}

#[test]
fn what_simulated_evidence_is_worth_is_said_everywhere() {
    let world = World::new();
    let service = world.serve();
    service.process.wait_for("SIMULATED");
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    for process in parties.each_ref().map(|party| world.run_lines(party, &["a"])) {
        process.wait().expect(0).says("SIMULATED");
    }
    let check = world.start_at(&parties[0], "check job.toml").wait().expect(0);
    assert!((check.stdout + &check.stderr).contains("SIMULATED"));
}

#[test]
fn verify_two_way_has_the_providers_prove_themselves_too() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --collateral platform/collateral.json");
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).two_way().give_to(&parties);
    let lines = [["a", "b"], ["b", "c"]];
    for (party, lines) in parties.iter().zip(&lines) {
        party.lines(lines);
    }
    let run = "--input ids.txt --output matched.txt --simulated ../platform";
    let running = parties.each_ref().map(|party| world.run(party, run));
    for process in running {
        process.wait().expect(0).says("evidence verified").says("SIMULATED");
    }
    assert_eq!(parties[0].matched(), ["b"]);

    // A party without evidence does not even start.
    let run = "--input ids.txt --output matched.txt --attestation no-such-directory";
    world.run(&parties[0], run).wait().expect(2).says("evidence");
}

#[test]
fn a_service_and_providers_in_trust_domains() {
    let world = World::of(Tee::Tdx);
    let service = world.serve_with("--listen 127.0.0.1:0 --collateral platform/collateral.json");
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).two_way().give_to(&parties);
    for (party, lines) in parties.iter().zip([["a", "b"], ["b", "c"]]) {
        party.lines(&lines);
    }
    let run = "--input ids.txt --output matched.txt --simulated ../platform";
    for process in parties.each_ref().map(|party| world.run(party, run)) {
        process.wait().expect(0).says("evidence verified").says("(mr_td ").says("SIMULATED");
    }
    assert_eq!(parties[1].matched(), ["b"]);
    let verified = world.start_at(&parties[0], "receipt verify matched.txt.receipt.json --json");
    assert_eq!(verified.wait().expect(0).json()["verdict"]["tee"], "tdx");

    // A party that expects an enclave sends nothing to a trust domain.
    let elsewhere = World::new();
    parties[0].write("enclave.toml", elsewhere.service_policy());
    let args = format!(
        "attest verify {} --policy enclave.toml --collateral collateral.json",
        service.address
    );
    world.start_at(&parties[0], &args).wait().expect(3);
}

#[test]
fn a_service_fetches_the_collateral_that_it_offers() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let world = World::of(tee);
        let pccs = world.start("simulator pccs platform --listen 127.0.0.1:0");
        let told = pccs.wait_for("collateral service at http").stderr();
        let url = told.split_whitespace().next_back().unwrap();
        let args = format!("--listen 127.0.0.1:0 --offer-collateral offered.json --pccs {url}");
        let service = world.serve_with(&args);
        let parties = world.parties(["alice", "bob"]);
        world.job(Some(&service), &parties).give_to(&parties);
        for party in &parties {
            std::fs::remove_file(party.path("collateral.json")).unwrap();
            party.lines(&["a", "b"]);
        }
        for process in parties.each_ref().map(|party| world.run_ids(party)) {
            process.wait().expect(0).says("evidence verified");
        }
    }
}

#[test]
fn verify_two_way_refuses_a_provider_without_evidence() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --collateral platform/collateral.json");
    let parties = world.parties(["alice", "bob"]);
    let builder = world.job(Some(&service), &parties).two_way();
    builder.give_to(&parties);
    let failed = world.raw(&service, &parties[1], &builder.job()).connection.failure();
    assert_eq!(failed.reason, convelo_wire::Reason::Attestation, "{failed}");
    assert_eq!(failed.party.as_deref(), Some("bob"));
    assert!(failed.explanation.contains("the evidence of 'bob' was refused"), "{failed}");
}

#[test]
fn verify_provider_knows_the_service_by_its_key_alone() {
    let world = World::new();
    world.start("keygen service").wait().expect(0);
    let service = world.serve_with(
        "--listen 127.0.0.1:0 --identity service.key --collateral platform/collateral.json",
    );
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).provider_only(service.key).give_to(&parties);
    let run =
        "--input ids.txt --output matched.txt --simulated ../platform --insecure-unattested --json";
    for party in &parties {
        party.lines(&["a", &party.name]);
    }
    let running = parties.each_ref().map(|party| world.run(party, run));
    for process in running {
        let ended = process.wait().expect(0).says("NOT ATTESTED").never_says("evidence verified");
        let summary = ended.json();
        assert_eq!(summary["verdict"], Value::Null);
        assert_eq!(summary["simulated"], false);
        assert_eq!(summary["attested"], false);
    }
    assert_eq!(parties[0].matched(), ["a"]);
    assert_eq!(receipt(&parties[0], "matched.txt.receipt.json")["service"]["verdict"], Value::Null);

    // The same service without its key file is a different one.
    let impostor = world.serve_with("--listen 127.0.0.1:0 --collateral platform/collateral.json");
    let run = format!("{run} --service {}", impostor.address);
    let refused = world.run(&parties[0], &run).wait().expect(3);
    refused.says(&impostor.key.to_string()).says(&service.key.to_string());
}

#[test]
fn join_without_a_job_file_prints_the_result_one_item_a_line() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["data_provider1", "data_provider2", "data_provider3"]);
    parties[0].write("data1.txt", "car\nbicycle\ntrain\ncat\ndog\n");
    parties[1].write("data2.txt", "train\ncar\ne-car\ncat\ncomputer\n");
    parties[2].write("data3.txt", "car\nbicycle\ntrain\ncat\ndog\ncomputer\ncar\n");
    world.write("dynamic_config.json", world.dynamic_config());
    let simulated = "--insecure-simulated-root ../platform/root.pem --collateral collateral.json";
    let address = &service.address;
    let config = "../dynamic_config.json";
    let lines = [
        // In the form documented for the Python clients,
        format!(
            "join -host {address} -config {config} -is_chief True -data_dir data1.txt \
             -client_num 3 -client_name data_provider1 {simulated}"
        ),
        // for the C++ ones,
        format!(
            "join -host={address} -cfg={config} -is_chief=false -data_dir=data2.txt \
             -client_num=3 -client_name=data_provider2 {simulated}"
        ),
        // and in our own.
        format!(
            "join --service {address} --policy {config} --name data_provider3 --parties 3 \
             --data data3.txt {simulated}"
        ),
    ];
    let mut running = Vec::new();
    for (party, line) in parties.iter().zip(&lines) {
        running.push(world.start_at(party, line));
    }
    let expected = ["car\ntrain\ncat\n", "train\ncar\ncat\n", "car\ntrain\ncat\n"];
    for (process, expected) in running.into_iter().zip(expected) {
        assert_eq!(process.wait().expect(0).stdout, expected);
    }
    assert!(parties[2].path("data3.txt.receipt.json").exists());
}

#[test]
fn quiet_says_only_what_takes_protection_away_and_no_colour_is_used_without_a_terminal() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    for party in &parties {
        party.lines(&["a"]);
    }
    let quiet = world.run(&parties[0], "--input ids.txt --output matched.txt --quiet");
    let loud = world.run_ids(&parties[1]);
    let (quiet, loud) = (quiet.wait().expect(0), loud.wait().expect(0));
    let notice = "SIMULATED: this job accepts a simulated platform, which protects nothing\n";
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", notice));
    assert!(!loud.stderr.contains('\u{1b}') && !loud.stderr.contains('\r'), "{}", loud.stderr);
}

/// A provider's memory is 20 bytes for each row, up to 1.3 KiB for each of 1024 shares that are not
/// full, and what `Memory::bytes` sets aside for everything else; `--memory` limits the total,
/// whatever the file's size.
#[test]
fn memory_of_a_provider_is_twenty_bytes_a_row_and_never_more_than_it_may_take() {
    const ROWS: usize = 6_000_000;
    const SHARES_KIB: u64 = 1331;
    const OTHER_KIB: u64 = 48 * 1024;
    const MEMORY_MIB: u64 = 64;
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let measure = |rows: usize, options: &str| {
        let table: String = (0..rows).map(|row| format!("customer-{row}\n")).collect();
        parties[0].write("ids.txt", &table);
        let alice = world
            .run(&parties[0], &format!("--input ids.txt --output matched.txt --json {options}"));
        let bob = world.run_lines(&parties[1], &["customer-3", "customer-x"]);
        let alice = alice.wait_measured().expect(0);
        bob.wait().expect(0);
        assert_eq!(alice.json()["input"]["keys"], rows as u64);
        assert_eq!(parties[0].matched(), ["customer-3"]);
        alice.peak_kib
    };
    let few = measure(10, "");
    let held = measure(ROWS, "");
    let bounded = measure(ROWS, &format!("--memory {MEMORY_MIB}M"));
    println!("peaks: {few}, {held}, {bounded} KiB");
    let rows = ROWS as u64 * 20 / 1024;
    assert!(few <= OTHER_KIB, "{few} KiB");
    assert!(held <= rows + SHARES_KIB + OTHER_KIB, "{held} KiB");
    assert!(bounded <= MEMORY_MIB * 1024, "{bounded} KiB");
    assert!(rows > MEMORY_MIB * 1024, "the rows themselves would fit");
}

/// A service's memory is 16 bytes for each pseudonym and a constant. For a job the constant is the
/// queue of 8 chunks, each of which keeps the buffer that it arrived in, up to 2 MiB. For each
/// party it is 2 MiB of flow control window for the stream and as much for the connection, a buffer
/// of up to 2 MiB in which the next chunk is assembled, as much again while that grows, and as much
/// as all of these for what the allocator keeps between them. A bitmap is one bit per key.
#[test]
fn memory_of_the_service_is_sixteen_bytes_a_pseudonym_and_a_constant() {
    const KEYS: usize = MILLION;
    const JOB_KIB: u64 = 8 * 2 * 1024;
    const PARTY_KIB: u64 = 2 * (2 + 2 + 2 + 2) * 1024;
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let measure = |keys: usize| {
        for (index, party) in parties.iter().enumerate() {
            let first = index * keys / 2;
            let table: String = (first..first + keys).map(|id| format!("id-{id}\n")).collect();
            party.write("ids.txt", &table);
        }
        let running = parties.each_ref().map(|party| world.run_ids(party));
        for process in running {
            assert_eq!(process.wait().expect(0).json()["result"]["keys"], keys as u64 / 2);
        }
        service.process.memory_kib("VmHWM").expect("the service runs")
    };
    let (few, many) = (measure(10), measure(KEYS));
    let pseudonyms = 2 * KEYS as u64 * 16 / 1024;
    let constant = JOB_KIB + 2 * PARTY_KIB;
    println!("peaks: {few}, {many} KiB; pseudonyms {pseudonyms} KiB");
    assert!(many <= few + pseudonyms + constant, "{} KiB more", many - few);
}

#[test]
fn nothing_is_left_beside_what_was_asked_for() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    for process in parties.each_ref().map(|party| world.run_lines(party, &["a"])) {
        process.wait().expect(0);
    }
    let expected = [
        "alice.key",
        "collateral.json",
        "ids.txt",
        "job.toml",
        "matched.txt",
        "matched.txt.receipt.json",
        "seen-lists.json",
    ];
    assert_eq!(listing(&parties[0].path("")), expected);
}

fn listing(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
