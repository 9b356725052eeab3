use std::collections::BTreeSet;

use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};

use super::*;
use crate::SetBuilder;
use crate::engine::intersect;
use crate::job::terms;
use crate::job::tests::{changed, unpinned};
use crate::received::received;

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Parties whose sets have canaries.
struct Parties {
    job: Job,
    sets: Vec<(PseudonymSet, RankedCanaries)>,
}

impl Parties {
    /// Parties with these keys.
    fn new(canaries: u64, keys: &[Vec<u64>]) -> Self {
        let job = unpinned(keys.len(), 1 << 20).unwrap();
        let job = changed(&job, |terms| terms.canaries = Some(canaries)).unwrap();
        let pseudonymiser = Pseudonymiser::new(b"an agreed secret");
        let names = &NAMES[..keys.len()];
        let sets = keys.iter().zip(names).map(|(keys, name)| {
            let mut set = SetBuilder::new();
            for (row, key) in (0..).zip(keys) {
                set.push(pseudonymiser.pseudonym(&key.to_be_bytes()), row).unwrap();
            }
            let canaries = Canaries::of(&job, names.iter().copied(), name, &pseudonymiser);
            let set = set.finish().unwrap().filled(canaries.pseudonyms());
            let ranked = canaries.ranked(&set).unwrap();
            (set, ranked)
        });
        let sets = sets.collect();
        Self { job, sets }
    }

    /// What an honest service answers.
    fn honest(&self) -> Vec<Bitmap> {
        let set = |set: &PseudonymSet| {
            received(set.pseudonyms().unwrap().into_iter().map(Pseudonym::to_u128))
        };
        intersect(self.sets.iter().map(|(of, _)| set(of)).collect()).expect("memory")
    }

    fn check(&self, party: usize, marks: &Bitmap) -> Result<(), CanaryError> {
        let (set, canaries) = &self.sets[party];
        canaries.check(0..set.len(), marks)
    }
}

/// Keys that nobody else has, and `common` that all have.
fn keys(parties: u64, common: u64) -> Vec<Vec<u64>> {
    (0..parties)
        .map(|party| (0..common).chain((party + 1) * 1000..(party + 1) * 1000 + 50).collect())
        .collect()
}

#[test]
fn an_honest_service_is_believed_and_canaries_are_not_in_the_result() {
    for parties in [2, 3, 4] {
        let parties = Parties::new(20, &keys(parties, 7));
        for (party, marks) in parties.honest().into_iter().enumerate() {
            parties.check(party, &marks).unwrap();
            assert_eq!(crate::reveal::common(&parties.job, &marks), 7);
            let (set, canaries) = &parties.sets[party];
            assert_eq!(set.len() as u64, parties.job.sent(57));
            assert!(parties.job.is_sent(set.len() as u64) && !parties.job.is_sent(19));
            let result = canaries.removed_from(marks);
            assert_eq!(result.count_ones(), 7);
            let rows = set.rows(&result, 57, false).unwrap();
            assert!((0..57).all(|row| rows.is_set(row) == (row < 7)));
        }
    }
}

#[test]
fn service_that_answers_that_nothing_or_everything_matches() {
    for count in [2, 3, 4] {
        let parties = Parties::new(20, &keys(count, 7));
        for (party, (set, canaries)) in parties.sets.iter().enumerate() {
            let asked = canaries.counts();
            let patterns = if count == 2 { 1 } else { count };
            assert_eq!(asked, CanaryCounts { in_all: 20, not_in_all: 20 * patterns });
            let nothing = Bitmap::new(set.len());
            let error = CanaryError { asked, left_out: 20, made_up: 0 };
            assert_eq!(parties.check(party, &nothing), Err(error));
            let mut everything = Bitmap::new(set.len());
            (0..set.len()).for_each(|rank| everything.set(rank));
            let error = CanaryError { asked, left_out: 0, made_up: 20 * patterns };
            assert_eq!(parties.check(party, &everything), Err(error));
        }
    }
}

/// A service that knows all it can know, which keys are in which sets, and lies about a single pattern:
/// it makes up matches of all keys that are in just these sets.
#[test]
fn service_that_lies_about_one_pattern() {
    // Every pattern that a key of three parties can have; 10 keys of each.
    let of = |party: u64| {
        (1..8_u64)
            .filter(move |pattern| pattern >> party & 1 == 1)
            .flat_map(|pattern| pattern * 100..pattern * 100 + 10)
            .collect()
    };
    let parties = Parties::new(20, &[of(0), of(1), of(2)]);
    let sets: Vec<BTreeSet<u128>> = parties
        .sets
        .iter()
        .map(|(set, _)| set.pseudonyms().unwrap().into_iter().map(Pseudonym::to_u128).collect())
        .collect();
    for (party, honest) in parties.honest().into_iter().enumerate() {
        for lie in (1..8_usize).filter(|pattern| pattern >> party & 1 == 1) {
            let mut marks = honest.clone();
            let mut lied = 0;
            for (rank, key) in sets[party].iter().enumerate() {
                let pattern: usize =
                    (0..3).map(|other| usize::from(sets[other].contains(key)) << other).sum();
                if pattern == lie {
                    // What all have is left out, everything else made up.
                    if lie == 7 {
                        marks.clear(rank);
                    } else {
                        marks.set(rank);
                    }
                    lied += 1;
                }
            }
            assert_eq!(lied, 30, "10 keys and 20 canaries");
            let error = parties.check(party, &marks).unwrap_err();
            assert_eq!((error.left_out, error.made_up), if lie == 7 { (20, 0) } else { (0, 20) });
        }
    }
}

/// The bound that the document states: of n keys and c canaries of a pattern, a service that cannot
/// tell them apart lies about a part f or more; the probability that it hits no canary is
/// C(n, d) / C(n + c, d), and at most 2^-20.
#[test]
#[expect(clippy::cast_precision_loss, reason = "a bound with some room")]
fn lies_about_a_part_of_the_keys_are_found() {
    for canaries in [20_u64, 100, 1400, 65_536] {
        let job = changed(&unpinned(2, 1 << 32).unwrap(), |terms| terms.canaries = Some(canaries));
        let part = job.unwrap().lie_found_from().unwrap();
        for keys in [0_u64, 1, 50, 1000, 1_000_000, 100_000_000] {
            let all = (keys + canaries) as f64;
            let lies = (part * all).ceil();
            // The product over all canaries of the chance that each is among those left alone.
            let missed: f64 = (0..canaries)
                .map(|one| ((all - lies - one as f64).max(0.0) / (all - one as f64)).log2())
                .sum();
            assert!(missed <= -20.0, "{canaries} canaries, {keys} keys: 2^{missed}");
        }
    }
    // And a service that does it: it never gets away with it in a thousand runs.
    let parties = Parties::new(20, &keys(2, 100));
    let honest = parties.honest().remove(0);
    let marked: Vec<usize> = (0..honest.len()).filter(|rank| honest.is_set(*rank)).collect();
    let mut rng = UnwrapErr(SysRng);
    for _ in 0..1000 {
        let (mut marks, mut left) = (honest.clone(), marked.clone());
        for _ in 0..marked.len() / 2 {
            let at = usize::try_from(rng.next_u32()).unwrap() % left.len();
            marks.clear(left.swap_remove(at));
        }
        parties.check(0, &marks).unwrap_err();
    }
}

#[test]
fn every_service_of_a_job_has_its_own_canaries() {
    let addresses = ["a:1", "b:1", "c:1", "d:1"].map(str::to_owned).to_vec();
    let service = terms::Service { addresses, ..terms::Service::default() };
    let job = Job::unpinned("test", 3, 10_000, 60, service).unwrap();
    let job = changed(&job, |terms| terms.canaries = Some(20)).unwrap();
    let pseudonymiser = Pseudonymiser::new(b"an agreed secret");
    let canaries = Canaries::of(&job, NAMES[..3].iter().copied(), "bob", &pseudonymiser);
    for service in 0..4 {
        let own: Vec<_> =
            canaries.list.iter().filter(|(canary, _)| canary.shard(4) == service).collect();
        assert_eq!(own.len() as u64, job.canaries_of_a_party());
        assert_eq!(own.iter().filter(|(_, in_all)| *in_all).count(), 20);
    }
    assert!(job.sent(100).is_multiple_of(8));
    let set = SetBuilder::new().finish().unwrap().filled(canaries.pseudonyms());
    let ranked = canaries.ranked(&set).unwrap();
    // One of four services leaves one canary out.
    let ranks = set.in_shards(4)[0]..set.in_shards(4)[..2].iter().sum();
    let mut marks = Bitmap::new(ranks.len());
    let in_all = ranked.ranks.iter().filter(|(rank, in_all)| *in_all && ranks.contains(rank));
    in_all.for_each(|(rank, _)| marks.set(rank - ranks.start));
    ranked.check(ranks.clone(), &marks).unwrap();
    let one = (0..marks.len()).find(|rank| marks.is_set(*rank)).unwrap();
    marks.clear(one);
    assert_eq!(ranked.check(ranks, &marks).unwrap_err().left_out, 1);
}

#[test]
fn without_canaries_nothing_is_added_or_asked() {
    let job = unpinned(3, 1000).unwrap();
    let pseudonymiser = Pseudonymiser::new(b"an agreed secret");
    let canaries = Canaries::of(&job, NAMES[..3].iter().copied(), "bob", &pseudonymiser);
    assert_eq!(canaries.pseudonyms().count(), 0);
    assert_eq!((job.canaries_of_a_party(), job.sent(7), job.lie_found_from()), (0, 7, None));
    let set = SetBuilder::new().finish().unwrap();
    let ranked = canaries.ranked(&set).unwrap();
    assert_eq!(ranked.counts(), CanaryCounts { in_all: 0, not_in_all: 0 });
    ranked.check(0..0, &Bitmap::new(0)).unwrap();
}

/// No record's key can be a canary: keys begin with the version of the recipe.
#[test]
fn keys_that_look_like_canaries() {
    assert_ne!(crate::RECIPE_VERSION.to_be_bytes(), NO_RECIPE);
    let patterns = [Pattern::All, Pattern::AllBut("a"), Pattern::Only("a"), Pattern::Only("ab")];
    let all: BTreeSet<_> = patterns
        .iter()
        .flat_map(|pattern| (0..3).map(move |number| pattern.encoded(number)))
        .collect();
    assert_eq!(all.len(), 12);
    assert!(all.iter().all(|encoded| encoded.starts_with(&NO_RECIPE)));
}
