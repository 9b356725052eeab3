//! Jobs without a service: two real processes that compute among themselves, with connections that break,
//! partners that lie or go away, and strangers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use convelo_channel::Identity;
use convelo_party::direct::frame::Frame;
use convelo_party::direct::testimony::{Announced, SignedTestimony, Size, Testimony};
use convelo_psi::Protocol;
use convelo_tests::oracle::{self, Checked};
use convelo_tests::peer::hello;
use convelo_tests::proxy::{Counted, breaking};
use convelo_tests::tables::{Customers, seed};
use convelo_tests::{Ended, JobBuilder, Party, Process, RawPeer, World, free_port};
use convelo_wire::Reason;
use serde_json::{Value, json};

const PROTOCOLS: [&str; 2] = ["vole", "ecdh"];

/// Alice, who listens here, and bob.
struct Two {
    world: World,
    parties: [Party; 2],
    address: String,
}

impl Two {
    fn new() -> Self {
        let world = World::new();
        let parties = world.parties(["alice", "bob"]);
        Self { world, parties, address: format!("127.0.0.1:{}", free_port()) }
    }

    /// A job in which alice is reached at her address.
    fn job(&self, mode: &'static str) -> JobBuilder {
        let [alice, _] = &self.parties;
        self.world.job(None, &self.parties).direct(mode).reached_at(alice, &self.address)
    }

    /// Runs both on these lines.
    fn run(&self, tables: [&[&str]; 2], more: &str) -> [Ended; 2] {
        let running = [0, 1].map(|party| {
            self.parties[party].lines(tables[party]);
            let empty = if tables[party].is_empty() { " --allow-empty" } else { "" };
            let args = format!("--input ids.txt --json{empty} {more}");
            self.world.run(&self.parties[party], &args)
        });
        running.map(Process::wait)
    }

    /// Starts both on ids that a number makes.
    fn start(&self, ids: [std::ops::Range<usize>; 2]) -> [Process; 2] {
        [0, 1].map(|party| self.start_one(party, ids[party].clone(), ""))
    }

    fn start_one(&self, party: usize, ids: std::ops::Range<usize>, more: &str) -> Process {
        let party = &self.parties[party];
        party.write("ids.txt", ids.map(|id| format!("id-{id}\n")).collect::<String>());
        self.world.run(party, &format!("--input ids.txt --output matched.txt --json {more}"))
    }

    /// What both wrote must be exactly these ids.
    fn matched(&self, ids: std::ops::Range<usize>) {
        let expected: BTreeSet<_> = ids.map(|id| format!("id-{id}")).collect();
        for party in &self.parties {
            assert_eq!(BTreeSet::from_iter(party.matched()), expected, "{}", party.name);
        }
    }
}

const OUT: &str = "--output matched.txt";

/// Tables of customers as in the attested mode, compared with an independent computation.
#[test]
fn two_parties_by_either_protocol() {
    for (mode, rows) in [("vole", 300_000), ("ecdh", 8_000)] {
        let two = Two::new();
        let tables = Customers { seed: seed(), parties: 2, rows };
        two.job(mode).key(&[("email", &["email"])]).give_to(&two.parties);
        let running: Vec<_> = two
            .parties
            .iter()
            .enumerate()
            .map(|(index, party)| {
                let file = Customers::file(index);
                tables.write(index, &party.path(file));
                let output = file.replace("customers", "matched");
                let args = format!("--input {file} --key email --output {output} --json");
                two.world.run(party, &args)
            })
            .collect();
        let ended: Vec<_> = running.into_iter().map(Process::wait).collect();
        let checked: Vec<_> = two
            .parties
            .iter()
            .enumerate()
            .map(|(index, party)| Checked {
                input: party.path(Customers::file(index)),
                output: party.path(&Customers::file(index).replace("customers", "matched")),
                delimiter: Customers::delimiter(index),
                column: "email",
            })
            .collect();
        let findings = oracle::check(&checked, &two.world.path(""));
        assert!(findings.common > 0, "the tables have something in common");
        for (ended, found) in ended.into_iter().zip(&findings.parties) {
            let summary = ended.expect(0).json();
            assert_eq!(summary["result"]["keys"], findings.common, "{summary}");
            assert_eq!(summary["result"]["rows"], found.matched, "{summary}");
            assert_eq!(summary["protocol"], mode);
            assert_eq!(
                (&summary["attested"], &summary["simulated"]),
                (&json!(false), &json!(false))
            );
        }
    }
}

#[test]
fn sets_of_every_size() {
    for mode in PROTOCOLS {
        let two = Two::new();
        two.job(mode).give_to(&two.parties);
        for (own, other, common) in
            [(0, 0, 0), (0, 3, 0), (1, 1, 1), (1, 1, 0), (2, 5, 2), (67, 78, 40)]
        {
            let ids = [0..own, own - common..own - common + other];
            let running =
                [0, 1].map(|party| two.start_one(party, ids[party].clone(), "--allow-empty"));
            for ended in running.map(Process::wait) {
                assert_eq!(
                    ended.expect(0).json()["result"]["keys"],
                    common,
                    "{mode} {own} {other}"
                );
            }
            two.matched(own - common..own);
        }
    }
    // A peer of ours was wrong exactly here.
    let two = Two::new();
    two.job("vole").give_to(&two.parties);
    for ended in two.start([0..6_789, 1_000..8_890]).map(Process::wait) {
        ended.expect(0);
    }
    two.matched(1_000..6_789);
}

#[test]
fn one_party_learns_and_the_other_nothing() {
    for mode in PROTOCOLS {
        for learns in [0, 1] {
            let two = Two::new();
            two.job(mode).to(&[&two.parties[learns]]).give_to(&two.parties);
            let tables: [&[&str]; 2] = [&["a", "b", "c"], &["b", "c", "d"]];
            let running = [0, 1].map(|party| {
                two.parties[party].lines(tables[party]);
                let output = if party == learns { OUT } else { "" };
                let args = format!("--input ids.txt --json --receipt receipt.json {output}");
                two.world.run(&two.parties[party], &args)
            });
            let [first, second] = running.map(Process::wait).map(|ended| ended.expect(0).json());
            let (told, other) = if learns == 0 { (first, second) } else { (second, first) };
            assert_eq!(told["result"], json!({"kind": "intersection", "keys": 2, "rows": 2}));
            assert_eq!(other["result"], json!({"kind": "nothing"}));
            for party in &two.parties {
                let receipt: Value = serde_json::from_str(&party.read("receipt.json")).unwrap();
                // Nobody is told by a signature what the job does not grant.
                let testimony = receipt["testimonies"][0]["testimony"].as_str().unwrap();
                let testimony = Testimony::decode(&hex::decode(testimony).unwrap()).unwrap();
                assert_eq!(testimony.count, None);
                two.world.start_at(party, "receipt verify receipt.json").wait().expect(0);
            }
        }
    }
}

#[test]
fn a_count_and_nothing_else() {
    for to in [vec![0, 1], vec![0], vec![1]] {
        let two = Two::new();
        let learn: Vec<_> = to.iter().map(|party| &two.parties[*party]).collect();
        two.job("ecdh").count().to(&learn).give_to(&two.parties);
        let ended = two.run([&["a", "b", "c", "d"], &["b", "c", "e"]], "");
        for (party, ended) in ended.into_iter().enumerate() {
            let result = &ended.expect(0).json()["result"];
            if to.contains(&party) {
                assert_eq!(*result, json!({"kind": "count", "keys": 2}));
            } else {
                assert_eq!(*result, json!({"kind": "nothing"}));
            }
        }
    }
}

#[test]
fn sizes_that_are_hidden() {
    for mode in PROTOCOLS {
        let two = Two::new();
        two.job(mode).pad_keys_to(100).give_to(&two.parties);
        for ended in two.run([&["a", "b", "c"], &["b", "c"]], OUT) {
            let said = ended.expect(0);
            assert!(said.stderr.contains("100 keys here and 100 keys at"), "{}", said.stderr);
            assert_eq!(said.json()["result"]["keys"], 2);
        }
    }
}

/// Every party has a third of what no other has, a third that all but the next have, and a third in common.
/// Only what all have may match; whoever is not to learn it learns nothing.
#[test]
fn three_and_five_parties() {
    for (count, learn) in
        [(3, vec![0, 1, 2]), (3, vec![1]), (5, vec![0, 1, 2, 3, 4]), (5, vec![2, 4])]
    {
        let world = World::new();
        let names = ["alice", "bob", "carol", "dave", "erin"];
        let parties: Vec<_> = names[..count].iter().map(|name| world.party(name)).collect();
        let to: Vec<_> = learn.iter().map(|party| &parties[*party]).collect();
        let mut job = world.job(None, &parties).direct("vole").to(&to);
        // All but the last one listen.
        for party in &parties[..count - 1] {
            job = job.reached_at(party, &format!("127.0.0.1:{}", free_port()));
        }
        job.give_to(&parties);
        let lines = |party: usize| {
            let own = (0..40).map(move |id| format!("own-{party}-{id}\n"));
            let shared = (0..count).filter(move |other| *other != (party + 1) % count);
            let most =
                shared.flat_map(|other| (0..30).map(move |id| format!("most-{other}-{id}\n")));
            own.chain(most).chain((0..50).map(|id| format!("all-{id}\n"))).collect::<String>()
        };
        let running: Vec<_> = parties
            .iter()
            .enumerate()
            .map(|(number, party)| {
                party.write("ids.txt", lines(number));
                let output = if learn.contains(&number) { OUT } else { "" };
                let args = format!("--input ids.txt --json --receipt receipt.json {output}");
                world.run(party, &args)
            })
            .collect();
        let expected: BTreeSet<_> = (0..50).map(|id| format!("all-{id}")).collect();
        for (number, process) in running.into_iter().enumerate() {
            let said = process.wait().expect(0).json();
            if learn.contains(&number) {
                assert_eq!(said["result"]["keys"], 50, "{said}");
                assert_eq!(BTreeSet::from_iter(parties[number].matched()), expected);
            } else {
                assert_eq!(said["result"], json!({"kind": "nothing"}));
            }
        }
        for party in &parties {
            let verify = "receipt verify receipt.json --job job.toml";
            let said = world.start_at(party, verify).wait().expect(0).stdout;
            assert_eq!(said.matches("testimony: of ").count(), count - 1, "{said}");
        }
        // Members tell each other nothing of their sets.
        let leader = parties[learn[0]].name.as_str();
        let [one, other] = [0, 1, 2]
            .into_iter()
            .filter(|party| parties[*party].name != leader)
            .collect::<Vec<_>>()[..2]
        else {
            panic!("there are two others");
        };
        let receipt: Value = serde_json::from_str(&parties[one].read("receipt.json")).unwrap();
        let listed = receipt["parties"].as_array().unwrap();
        let of = |name: &str| listed.iter().find(|party| party["name"] == name).unwrap();
        assert!(of(leader)["set"].is_object(), "the leader's size is known");
        assert!(of(&parties[other].name)["set"].is_null(), "another member's is not");
    }
}

/// Both listen and both dial, so that two connections cross; or only the second one listens; or the
/// addresses come at run time; in any order.
#[test]
fn whoever_listens_and_whoever_dials() {
    let two = Two::new();
    let (alice, bob) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    two.world.job(None, &two.parties).direct("ecdh").give_to(&two.parties);
    let ways = [
        [
            format!("--listen {alice} --peer bob={bob}"),
            format!("--listen {bob} --peer alice={alice}"),
        ],
        [format!("--peer bob={bob}"), format!("--listen {bob}")],
        [format!("--listen {alice}"), format!("--peer alice={alice}")],
    ];
    for (number, [first, second]) in ways.iter().enumerate() {
        for order in [[0, 1], [1, 0]] {
            let mut running = order.map(|party| {
                let how = [first, second][party];
                let process = two.start_one(party, party * 10..party * 10 + 20, how);
                if order[0] == party {
                    process.wait_for(if how.contains("--peer") {
                        "does not answer"
                    } else {
                        "listening"
                    });
                }
                process
            });
            assert!(running.iter_mut().all(Process::is_running), "way {number}");
            for ended in running.map(Process::wait) {
                ended.expect(0);
            }
            two.matched(10..20);
        }
    }
}

/// Wherever a connection breaks, another goes on from there, and the result is right.
#[test]
fn connections_that_break_anywhere() {
    for (mode, ids, most) in [("vole", 30_000, 1_400_000), ("ecdh", 3_000, 220_000)] {
        let two = Two::new();
        let listening = two.address.clone();
        two.world.job(None, &two.parties).direct(mode).give_to(&two.parties);
        let mut breaks: Vec<usize> = (0..8).map(|place| 700 + place * 900).collect();
        breaks.extend((1..5).map(|place| place * most / 5));
        for counted in [Counted::Up, Counted::Down] {
            let alice = two.start_one(0, 0..ids, &format!("--listen {listening}"));
            let way = breaking(&listening, counted, breaks.clone());
            let bob = two.start_one(1, ids / 2..ids + ids / 2, &format!("--peer alice={way}"));
            for ended in [alice, bob].map(Process::wait) {
                ended.expect(0);
            }
            two.matched(ids / 2..ids);
        }
    }
}

/// A connection that breaks within every message says so within the job's deadline.
#[test]
fn connections_that_never_last() {
    let two = Two::new();
    two.world.job(None, &two.parties).direct("ecdh").deadline("4s").give_to(&two.parties);
    let alice = two.start_one(0, 0..9_000, &format!("--listen {}", two.address));
    let way = breaking(&two.address, Counted::Up, std::iter::repeat_n(9_000, 1_000));
    let bob = two.start_one(1, 0..9_000, &format!("--peer alice={way}"));
    let began = Instant::now();
    for ended in [alice, bob].map(Process::wait) {
        let said = ended.expect(1);
        assert!(said.stderr.contains("could not be restored"), "{}", said.stderr);
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(two.parties.iter().all(|party| !party.has_matched()));
}

#[test]
fn a_partner_that_never_comes_is_named() {
    for (party, other, way) in [(0, "bob", ""), (1, "alice", "Connection refused")] {
        let two = Two::new();
        two.job("vole").deadline("2s").give_to(&two.parties);
        let ended = two.start_one(party, 0..3, "").wait().expect(1);
        let missing = format!("the job's deadline has passed, and '{other}' is missing");
        assert!(ended.stderr.contains(&missing) && ended.stderr.contains(way), "{}", ended.stderr);
    }
}

/// It is killed in the middle, and started again: the run cannot go on, and both say so.
#[test]
fn a_partner_that_was_started_anew() {
    let two = Two::new();
    two.job("ecdh").give_to(&two.parties);
    let [alice, bob] = two.start([0..40_000, 0..40_000]);
    alice.wait_for("computing with");
    bob.kill();
    alice.wait_for("the connection to bob broke");
    let bob = two.start_one(1, 0..40_000, "");
    for ended in [alice, bob].map(Process::wait) {
        let said = ended.expect(1);
        assert!(said.stderr.contains("again on both sides"), "{}", said.stderr);
    }
    assert!(two.parties.iter().all(|party| !party.has_matched()));
}

#[test]
fn a_partner_that_is_stopped_tells_the_other() {
    let two = Two::new();
    two.job("ecdh").give_to(&two.parties);
    let [alice, bob] = two.start([0..40_000, 0..40_000]);
    alice.wait_for("computing with");
    alice.terminate();
    let said = alice.wait().expect(130);
    assert!(said.stderr.contains("the other parties have been told"), "{}", said.stderr);
    let said = bob.wait().expect(1);
    assert!(said.stderr.contains("'alice' stopped its run"), "{}", said.stderr);
}

#[test]
fn a_table_that_cannot_be_read_and_one_over_the_cap() {
    let two = Two::new();
    let [alice, bob] = &two.parties;
    two.job("vole").maximum_keys_of(bob, 5).give_to(&two.parties);
    let both = [two.start_one(0, 0..9, ""), two.start_one(1, 0..9, "")];
    let [alice_said, bob_said] = both.map(Process::wait);
    bob_said.expect(4).says("the table has 9 distinct keys and the job allows 5");
    alice_said.expect(1).says("'bob' has more keys than the job allows it");
    bob.write("ids.txt", b"a\n\xff\n");
    let bob = two.world.run(bob, "--input ids.txt --output matched.txt");
    alice.lines(&["a"]);
    let alice = two.world.run(alice, "--input ids.txt --output matched.txt");
    bob.wait().expect(2);
    alice.wait().expect(1).says("'bob' could not read its table");
}

#[test]
fn job_files_that_differ() {
    let two = Two::new();
    two.job("vole").give_to(&two.parties);
    two.job("vole").maximum_keys(77).give_to(&two.parties[1..]);
    for ended in two.start([0..3, 0..3]).map(Process::wait) {
        let said = ended.expect(1);
        assert!(said.stderr.contains("has another job than this party"), "{}", said.stderr);
        assert!(said.stderr.contains("maximum_keys: "), "{}", said.stderr);
    }
}

/// Whoever has another key learns nothing of the job and keeps nobody out.
#[test]
fn strangers_at_the_port() {
    let two = Two::new();
    let job = two.job("ecdh").job();
    two.job("ecdh").give_to(&two.parties);
    let alice = two.start_one(0, 0..30, "");
    alice.wait_for("listening");
    let key = two.parties[0].key_id();
    let silent: Vec<_> =
        (0..200).map(|_| std::net::TcpStream::connect(&two.address).unwrap()).collect();
    let mallory = Identity::generate();
    for _ in 0..20 {
        let Some(mut peer) = RawPeer::try_connect(&two.address, &mallory, key) else { continue };
        peer.send(&hello("bob", &job));
        assert_eq!(peer.receive(), None, "nothing is said to a stranger");
    }
    // A partner's key is worth nothing under another name.
    let bob = two.start_one(1, 10..40, "");
    for ended in [alice, bob].map(Process::wait) {
        ended.expect(0);
    }
    two.matched(10..30);
    drop(silent);
}

/// What a partner can send that is not what the protocol has it send: each ends the run at once, with who
/// and what, and the partner is told.
#[test]
fn a_partner_that_does_not_follow_the_protocol() {
    type Lie = fn(&mut RawPeer);
    let lies: [(&str, Lie); 9] = [
        ("a nonce of 31 bytes", |peer| assert!(peer.message(&[1; 31]))),
        ("a nonce of 0 bytes", |peer| assert!(peer.message(&[]))),
        ("it takes messages that were not sent", |peer| {
            peer.send(&Frame::Taken { messages: 9 });
        }),
        ("it greeted in the middle", |peer| assert!(peer.send(&Frame::Go { arrived: 0 }))),
        ("a size of 39 bytes", |peer| {
            peer.message(&[1; 32]);
            peer.message(&[0; 39]);
        }),
        ("it announces 18446744073709551615 keys", |peer| {
            peer.message(&[1; 32]);
            peer.message(&[255; 40]);
        }),
        ("it announces 10000001 keys", |peer| {
            peer.message(&[1; 32]);
            peer.message(&[&10_000_001_u64.to_be_bytes()[..], &[0; 32]].concat());
        }),
        ("a message that is neither points nor tags", |peer| {
            size(peer, 5);
            peer.message(b"?");
        }),
        ("belongs to another session", |peer| {
            size(peer, 5);
            peer.message(&[&[1][..], &[9; 16 + 5 * 32]].concat());
        }),
    ];
    let two = Two::new();
    let job = two.job("ecdh").job();
    two.job("ecdh").give_to(&two.parties);
    let [alice, bob] = &two.parties;
    for (why, lie) in lies {
        let running = two.start_one(0, 0..30, "");
        running.wait_for("listening");
        let who = (bob.name.as_str(), &bob.identity);
        let mut peer = RawPeer::meet(&two.address, who, alice.key_id(), &job);
        lie(&mut peer);
        let said = running.wait().expect(1);
        assert!(said.stderr.contains("'bob' did not follow the protocol"), "{}", said.stderr);
        assert!(said.stderr.contains(why), "{why}: {}", said.stderr);
        if why.contains("announces") {
            let told = std::iter::from_fn(|| peer.receive())
                .any(|it| it == Frame::Leave(Reason::Protocol));
            assert!(told, "{why}: the partner is told");
        }
    }
    assert!(!alice.has_matched());
}

/// Nonce and size, as an honest partner sends them.
fn size(peer: &mut RawPeer, keys: u64) {
    peer.message(&[1; 32]);
    peer.message(&[&keys.to_be_bytes()[..], &[0; 32]].concat());
}

/// The receipt of a run with a service.
const RECEIPT: &str = "matched.txt.receipt.json";

#[test]
fn receipts_of_both_hold_and_changed_ones_do_not() {
    let two = Two::new();
    two.job("vole").give_to(&two.parties);
    for ended in two.run([&["a", "b", "c"], &["b", "c", "d"]], OUT) {
        ended.expect(0);
    }
    let [alice, bob] = &two.parties;
    let verify = |args: &str| two.world.start_at(alice, &format!("receipt verify {args}")).wait();
    for (party, other) in [(alice, "bob"), (bob, "alice")] {
        let args = format!("receipt verify {RECEIPT} --job job.toml");
        let said = two.world.start_at(party, &args).wait().expect(0).stdout;
        assert!(said.contains(&format!("the receipt holds: {} learned", party.name)), "{said}");
        assert!(said.contains(&format!("testimony: of {other} by sha256:")), "{said}");
    }
    let receipt: Value = serde_json::from_str(&alice.read(RECEIPT)).unwrap();
    // Another run of the same job, whose testimonies are about that run.
    for ended in two.run([&["a", "b"], &["b"]], "--output other.txt") {
        ended.expect(0);
    }
    let other: Value = serde_json::from_str(&alice.read("other.txt.receipt.json")).unwrap();
    let of_bob: Value = serde_json::from_str(&bob.read(RECEIPT)).unwrap();
    let mallory = Identity::generate();
    let forged = forged(&receipt, &mallory);
    type Change<'a> = (&'a str, Box<dyn Fn(&mut Value) + 'a>);
    let changes: Vec<Change<'_>> = vec![
        ("keys in common", Box::new(|it| it["result"]["keys"] = json!(3))),
        ("testimony", Box::new(|it| it["testimonies"] = json!([]))),
        (
            "testimonies",
            Box::new(|it| {
                let one = it["testimonies"][0].clone();
                it["testimonies"].as_array_mut().unwrap().push(one);
            }),
        ),
        ("keys in common", Box::new(|it| it["testimonies"] = other["testimonies"].clone())),
        ("testimony", Box::new(|it| it["testimonies"] = of_bob["testimonies"].clone())),
        ("testimony", Box::new(|it| it["testimonies"] = json!([forged]))),
        ("keys sent", Box::new(|it| it["sent"]["keys"] = json!(2))),
        (
            "what was seen",
            Box::new(|it| {
                it["sent"]["keys"] = json!(2);
                it["parties"][0]["set"]["keys"] = json!(2);
            }),
        ),
        ("set sent", Box::new(|it| it["sent"]["blake3"] = other["sent"]["blake3"].clone())),
        ("parties", Box::new(|it| drop(it["parties"].as_array_mut().unwrap().pop()))),
        (
            "pinned keys",
            Box::new(|it| {
                it["members"][1]["key"] = it["members"][0]["key"].clone();
            }),
        ),
        ("protocol", Box::new(|it| it["protocol"] = json!("ecdh"))),
        ("party", Box::new(|it| it["party"] = json!("carol"))),
        ("keys in common", Box::new(|it| it["result"] = json!({"kind": "withheld"}))),
        ("job digest", Box::new(|it| it["job"]["maximum_keys"] = json!(7))),
    ];
    for (check, change) in changes {
        let mut changed = receipt.clone();
        change(&mut changed);
        alice.write("changed.json", changed.to_string());
        let said = verify("changed.json").expect(3);
        assert!(said.stderr.contains("the receipt does not hold at"), "{check}: {}", said.stderr);
        assert!(said.stderr.contains(check), "{check}: {}", said.stderr);
    }
    verify(&format!("{RECEIPT} --policy ../platform/policy.toml")).expect(2);
}

/// What bob signed, signed by somebody else who says it is by bob.
fn forged(receipt: &Value, mallory: &Identity) -> Value {
    let testimony = receipt["testimonies"][0]["testimony"].as_str().unwrap();
    let testimony = Testimony::decode(&hex::decode(testimony).unwrap()).unwrap();
    let set = Some(Size { keys: 1, commitment: [0; 32] });
    let parties = testimony.parties.iter().map(|party| Announced { set, ..party.clone() });
    let testimony = Testimony { parties: parties.collect(), ..testimony };
    assert_eq!(testimony.protocol, Protocol::Vole);
    let signed = SignedTestimony::by(mallory, &testimony);
    json!({
        "testimony": hex::encode(&signed.testimony),
        "signature": hex::encode(&signed.signature),
        "public_key": receipt["testimonies"][0]["public_key"],
    })
}

/// What belongs to a service has no place in such a job, and the other way round.
#[test]
fn flags_that_do_not_fit_the_job() {
    let two = Two::new();
    let [alice, bob] = &two.parties;
    alice.lines(&["a"]);
    two.job("vole").give_to([alice]);
    let refused = |party: &Party, args: &str, text: &str| {
        let run = format!("--input ids.txt --output matched.txt {args}");
        two.world.run(party, &run).wait().expect(2).says(text);
    };
    refused(alice, "--service localhost:1", "the job has no service; leave out --service");
    refused(alice, "--peer carol=localhost:1", "an address is given for 'carol'");
    refused(alice, "--peer bob", "'bob' has no '='");
    refused(alice, "--peer bob=nowhere", "expected HOST:PORT");
    refused(alice, "--listen nowhere", "expected HOST:PORT");
    refused(alice, "--listen 203.0.113.7:9", "cannot listen on 203.0.113.7:9");
    two.world.job(None, &two.parties).direct("vole").give_to(&two.parties);
    refused(alice, "", "neither listens nor knows where 'bob' listens");
    bob.lines(&["a"]);
    refused(
        bob,
        "--peer alice=no-such-host.invalid:7444",
        "'no-such-host.invalid' of 'alice' does not resolve",
    );
    let service = two.world.serve();
    two.world.job(Some(&service), &two.parties).give_to(&two.parties);
    refused(alice, "--listen localhost:0", "meet at its service");
    refused(alice, "--peer bob=localhost:1", "meet at its service");
}
