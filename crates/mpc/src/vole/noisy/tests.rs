use super::*;
use crate::gf128::Gf128;
use crate::vole::ot_extension::fold;
use crate::vole::prg::Prg;

const SIZES: [usize; 8] = [0, 1, 2, 3, 17, 128, 287, 288];

fn random(seed: u128, count: usize) -> Vec<u128> {
    let mut words = vec![0; count];
    Prg::new(seed).fill(&mut words);
    words
}

/// Both sides' groups of so many words: the sender lacks the seed that is its part of Delta.
fn groups(delta: u128, words: usize) -> [Vec<Folded>; 2] {
    let seeds: Vec<_> = (0..GROUPS).map(|group| random(100 + group as u128, 256)).collect();
    let receiver = seeds.iter().map(|seeds| fold(seeds, words)).collect();
    let sender = seeds.into_iter().zip(delta.to_le_bytes()).map(|(mut seeds, hidden)| {
        seeds[usize::from(hidden)] = 0;
        fold(&seeds, words)
    });
    [receiver, sender.collect()]
}

/// What both sides get for the receiver's values: its b, and the sender's c. Runs all of the
/// correction, from a place on.
fn run(delta: u128, values: &[u128], from: usize) -> [Vec<u128>; 2] {
    let words = from + values.len();
    let [receiver, mut sender] = groups(delta, words);
    for (number, group) in sender.iter_mut().enumerate() {
        let told = receiver[number].all[from..].iter().zip(values).map(|(sum, value)| sum ^ value);
        correct(group, number, delta, from, told);
    }
    [&receiver, &sender].map(|groups| combine(groups, words)[from..].to_vec())
}

#[test]
fn the_relation_holds_for_every_number_of_values() {
    for (at, delta) in [0, 1, 1 << 127, u128::MAX, random(1, 1)[0]].into_iter().enumerate() {
        for size in SIZES {
            let values = random(at as u128 + 2, size);
            for from in [0, 5] {
                let [b, c] = run(delta, &values, from);
                assert_eq!((b.len(), c.len()), (size, size));
                for ((value, b), c) in values.iter().zip(b).zip(c) {
                    assert!(Gf128(*value) * Gf128(delta) + Gf128(b) == Gf128(c));
                }
            }
        }
    }
}

/// The first group's sum is the value itself, so nothing is told of it.
#[test]
fn values_that_are_the_first_sum_need_no_correction() {
    let (delta, words) = (random(9, 1)[0], 288);
    let [receiver, mut sender] = groups(delta, words);
    let values = receiver[0].all.clone();
    for (number, group) in sender.iter_mut().enumerate() {
        let told: Vec<_> = receiver[number].all.iter().zip(&values).map(|(a, b)| a ^ b).collect();
        assert_eq!(number == 0, told.iter().all(|word| *word == 0));
        correct(group, number, delta, 0, told.into_iter());
    }
    let [b, c] = [&receiver, &sender].map(|groups| combine(groups, words));
    for ((value, b), c) in values.iter().zip(b).zip(c) {
        assert!(Gf128(*value) * Gf128(delta) + Gf128(b) == Gf128(c));
    }
}

#[test]
fn columns_are_combined_by_the_field() {
    let [receiver, _] = groups(0, 3);
    let columns: Vec<_> = receiver.iter().flat_map(|group| &group.bits).collect();
    for (at, sum) in combine(&receiver, 3).into_iter().enumerate() {
        let mut expected = Gf128::ZERO;
        let mut power = Gf128::ONE;
        for column in &columns {
            expected += power * Gf128(column[at]);
            power *= Gf128::X;
        }
        assert!(Gf128(sum) == expected);
    }
}

/// A bit that is changed on the way changes that value alone, and only if Delta has a bit in the
/// group. Nothing notices, so what carries the messages must.
#[test]
fn a_changed_correction_makes_one_value_wrong() {
    let (words, changed, group) = (20, 7, 4);
    for (delta, wrong) in
        [(0xff_u128 << (GROUP * group), true), (!(0xff << (GROUP * group)), false)]
    {
        let [receiver, mut sender] = groups(delta, words);
        for (number, of_sender) in sender.iter_mut().enumerate() {
            let told = receiver[number].all.iter().zip(&receiver[0].all).enumerate();
            let told =
                told.map(|(at, (a, b))| a ^ b ^ u128::from(at == changed && number == group));
            correct(of_sender, number, delta, 0, told);
        }
        let [b, c] = [&receiver, &sender].map(|groups| combine(groups, words));
        for at in 0..words {
            let holds = Gf128(receiver[0].all[at]) * Gf128(delta) + Gf128(b[at]) == Gf128(c[at]);
            assert_eq!(holds, !(at == changed && wrong), "{at}");
        }
    }
}
