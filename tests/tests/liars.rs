//! Services that run an accepted program and lie about the result: a job with canaries finds them.

use std::collections::BTreeSet;
use std::sync::Arc;

use convelo_attest::QuoteSource;
use convelo_simulator::{Enclave, Platform};
use convelo_tests::{Ended, Liar, Marks, Party, SERVICE_ENCLAVE, Sets, World};

const PARTIES: [&str; 3] = ["alice", "bob", "carol"];
const CANARIES: u64 = 20;

/// What every party is told about its own keys.
fn mark(sets: &Sets, told: impl Fn(&str, &[u8; 16]) -> bool) -> Marks {
    let marks = |(name, set): (&String, &Vec<[u8; 16]>)| {
        (name.clone(), set.iter().map(|key| told(name, key)).collect())
    };
    sets.iter().map(marks).collect()
}

/// What all parties have: the truth.
fn common(sets: &Sets) -> BTreeSet<[u8; 16]> {
    let mut sets = sets.values().map(|set| set.iter().copied().collect::<BTreeSet<_>>());
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |common, set| &common & &set)
}

fn truth(sets: &Sets) -> Marks {
    let common = common(sets);
    mark(sets, |_, key| common.contains(key))
}

/// Pseudonyms are random, so this is half of any kind of keys.
fn every_other(key: &[u8; 16]) -> bool {
    key[15].is_multiple_of(2)
}

/// Leaves out half of the matches.
fn drops_matches(sets: &Sets) -> Marks {
    let common = common(sets);
    mark(sets, |_, key| common.contains(key) && every_other(key))
}

/// Tells everybody that nothing matches.
fn drops_all_matches(sets: &Sets) -> Marks {
    mark(sets, |_, _| false)
}

/// Makes a match of half of what some party does not have.
fn invents_matches(sets: &Sets) -> Marks {
    let common = common(sets);
    mark(sets, |_, key| common.contains(key) || every_other(key))
}

/// Tells everybody that everything matches.
fn invents_all_matches(sets: &Sets) -> Marks {
    mark(sets, |_, _| true)
}

/// Tells the opposite of the truth.
fn turns_the_answer_round(sets: &Sets) -> Marks {
    let common = common(sets);
    mark(sets, |_, key| !common.contains(key))
}

/// Joins only two of the three sets.
fn leaves_a_set_out(sets: &Sets) -> Marks {
    let mut two = sets.clone();
    two.remove("carol");
    let common = common(&two);
    mark(sets, |_, key| common.contains(key))
}

/// Joins a set of its own in place of one party's: as many keys, which nobody has.
fn answers_about_another_set(sets: &Sets) -> Marks {
    let mut other = sets.clone();
    for key in other.get_mut("bob").expect("bob sent a set") {
        key[0] ^= 1;
    }
    let common = common(&other);
    mark(sets, |_, key| common.contains(key))
}

/// Gives the right number of matches at the wrong places.
fn shifts_the_answer(sets: &Sets) -> Marks {
    let mut marks = truth(sets);
    marks.values_mut().for_each(|marks| marks.rotate_right(1));
    marks
}

struct Run {
    world: World,
    parties: [Party; 3],
    _liar: Liar,
}

impl Run {
    /// A job at a service that tells the parties this.
    fn new(canaries: u64, join: impl Fn(&Sets) -> Marks + Send + Sync + 'static) -> Self {
        let world = World::new();
        let platform = Arc::new(Platform::open(&world.path("platform")).unwrap());
        let source: Arc<dyn QuoteSource> =
            Arc::new(platform.enclave(Enclave::named(SERVICE_ENCLAVE)));
        let liar = Liar::new(source, join);
        let parties = world.parties(PARTIES);
        let job = world.job(None, &parties).address(&liar.address).maximum_keys(10_000);
        let job = if canaries > 0 { job.canaries(canaries) } else { job };
        job.give_to(&parties);
        Self { world, parties, _liar: liar }
    }

    fn ended(&self) -> [Ended; 3] {
        let lines = [["a", "b", "c"], ["b", "c", "d"], ["c", "b", "e"]];
        let running =
            [0, 1, 2].map(|party| self.world.run_lines(&self.parties[party], &lines[party]));
        running.map(convelo_tests::Process::wait)
    }

    /// This party found the lie, and nothing of the result reached its files.
    fn found(&self, party: usize, ended: Ended) {
        ended
            .expect(1)
            .says("the service does not join what it was sent")
            .says("its result is not used")
            .never_says("answered rightly");
        for name in ["matched.txt", "matched.txt.receipt.json"] {
            assert!(!self.parties[party].path(name).exists(), "{} has {name}", PARTIES[party]);
        }
    }
}

/// With the same service and the truth, the job ends well: so it is the lies that are found.
#[test]
fn service_that_tells_the_truth() {
    let run = Run::new(CANARIES, truth);
    for ended in run.ended() {
        ended.expect(0).says("answered rightly about 80 canaries");
    }
    for (party, matched) in run.parties.iter().zip([["b", "c"], ["b", "c"], ["c", "b"]]) {
        assert_eq!(party.matched(), matched);
        let verify = "receipt verify matched.txt.receipt.json --job job.toml";
        run.world.start_at(party, verify).wait().expect(0);
    }
}

/// What a lying service answers.
type Lie = fn(&Sets) -> Marks;

#[test]
fn service_that_lies_about_the_result() {
    let lies: [(&str, Lie); 7] = [
        ("drops matches", drops_matches),
        ("drops all matches", drops_all_matches),
        ("invents matches", invents_matches),
        ("invents all matches", invents_all_matches),
        ("turns the answer round", turns_the_answer_round),
        ("answers about another set", answers_about_another_set),
        ("shifts the answer", shifts_the_answer),
    ];
    for (name, lie) in lies {
        let run = Run::new(CANARIES, lie);
        for (party, ended) in run.ended().into_iter().enumerate() {
            assert_eq!(ended.code, Some(1), "{name}: {}\n{}", PARTIES[party], ended.stderr);
            run.found(party, ended);
        }
    }
}

/// Those whose sets were joined are told too much. To the third it is the truth.
#[test]
fn service_that_leaves_a_set_out() {
    let run = Run::new(CANARIES, leaves_a_set_out);
    let [alice, bob, carol] = run.ended();
    run.found(0, alice);
    run.found(1, bob);
    carol.expect(0);
    assert_eq!(run.parties[2].matched(), ["c", "b"]);
}

/// Each party checks its own answer: one that is lied to finds out, whatever the others are told.
#[test]
fn service_that_lies_to_one_party() {
    let run = Run::new(CANARIES, |sets| {
        let (mut marks, lie) = (truth(sets), drops_matches(sets));
        marks.insert("bob".to_owned(), lie["bob"].clone());
        marks
    });
    let [alice, bob, carol] = run.ended();
    run.found(1, bob);
    for (party, ended) in [(0, alice), (2, carol)] {
        ended.expect(0).says("answered rightly about 80 canaries");
        assert_eq!(run.parties[party].matched().len(), 2);
    }
}

/// Without canaries nobody notices, and the receipt holds: the program was accepted, and it signed.
#[test]
fn service_that_lies_in_a_job_without_canaries() {
    let run = Run::new(0, invents_all_matches);
    for (party, ended) in run.ended().into_iter().enumerate() {
        ended.expect(0);
        assert_eq!(run.parties[party].matched().len(), 3, "{}", PARTIES[party]);
    }
}
