use super::*;
use crate::vole::noisy::correct;

fn random(seed: u128, count: usize) -> Vec<u128> {
    let mut words = vec![0; count];
    Prg::new(seed).fill(&mut words);
    words
}

fn deltas() -> Vec<u128> {
    let mut deltas = vec![0, 1, 1 << 127, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef];
    deltas.extend(random(50, 3));
    deltas
}

/// Both keys of each base transfer, and those that the bits of `delta` choose.
fn base(delta: u128) -> (Vec<[u128; 2]>, Vec<u128>) {
    let keys: Vec<_> = random(60, 256).as_chunks().0.to_vec();
    let chosen = keys.iter().enumerate().map(|(at, keys)| keys[(delta >> at & 1) as usize]);
    let chosen = chosen.collect();
    (keys, chosen)
}

fn roots() -> [u128; GROUPS] {
    random(70, GROUPS).try_into().unwrap()
}

#[test]
fn the_sender_has_all_seeds_but_one_of_each_group() {
    for delta in deltas() {
        let (keys, chosen) = base(delta);
        let doubling = Doubling::new(&[1; 32]);
        let (all, message) = doubling.all(&roots(), &keys);
        assert_eq!(message.len(), SEEDS_LEN);
        let all_but = doubling.all_but(delta, &chosen, &message);
        assert_eq!((all.len(), all_but.len()), (GROUPS, GROUPS));
        for ((all, all_but), hidden) in all.iter().zip(&all_but).zip(delta.to_le_bytes()) {
            let mut expected = all.to_vec();
            expected[usize::from(hidden)] = 0;
            assert!(**all_but == expected);
        }
    }
}

/// What a sender gets that does not know a transfer's key: all seeds are lost below the node that the
/// path has come to, in that group alone.
#[test]
fn a_wrong_key_loses_seeds_of_its_group() {
    let delta = random(80, 1)[0];
    let (keys, chosen) = base(delta);
    let doubling = Doubling::new(&[1; 32]);
    let (all, message) = doubling.all(&roots(), &keys);
    for number in [0, 7, 8, 63, 127] {
        let mut chosen = chosen.clone();
        chosen[number] ^= 1;
        let groups = doubling.all_but(delta, &chosen, &message);
        for (at, (found, all)) in groups.iter().zip(&all).enumerate() {
            let same = found.iter().zip(all.iter()).filter(|(a, b)| a == b).count();
            // Among them the one that it lacks anyway.
            let lost = if at == number / GROUP { (256 >> (number % GROUP)) - 1 } else { 0 };
            assert_eq!(same, 255 - lost, "group {at} with key {number}");
        }
    }
}

#[test]
fn streams_are_added_up_by_the_formulas() {
    for words in [1, 2, 3, 63, 64, 65] {
        let mut seeds = random(90, 256);
        seeds[77] = 0;
        let folded = fold(&seeds, words);
        let mut all = vec![0; words];
        let mut bits = vec![vec![0; words]; GROUP];
        for (number, seed) in seeds.iter().enumerate().filter(|(_, seed)| **seed != 0) {
            for (at, word) in random(*seed, words).into_iter().enumerate() {
                all[at] ^= word;
                for sum in (0..GROUP).filter(|bit| number >> bit & 1 == 1) {
                    bits[sum][at] ^= word;
                }
            }
        }
        assert!(folded.all == all && folded.bits.iter().zip(bits).all(|(a, b)| *a == b));
    }
}

/// A seed of which one half is zero is not the one that lacks.
#[test]
fn half_a_seed_is_a_seed() {
    for seed in [1, 1 << 64, u128::MAX >> 64, u128::MAX << 64] {
        let mut seeds = vec![0; 256];
        seeds[3] = seed;
        assert!(fold(&seeds, 4).all == random(seed, 4));
    }
}

#[test]
fn choices_are_correlated_under_delta() {
    for delta in deltas() {
        let (keys, chosen) = base(delta);
        let doubling = Doubling::new(&[1; 32]);
        let (all, message) = doubling.all(&roots(), &keys);
        let all_but = doubling.all_but(delta, &chosen, &message);
        for words in [1, 2, 3, 31] {
            let choices = random(words as u128, words);
            let receiver: Vec<_> = all.iter().map(|seeds| fold(seeds, words)).collect();
            let sender = all_but.iter().enumerate().map(|(number, seeds)| {
                let mut group = fold(seeds, words);
                let told = receiver[number].all.iter().zip(&choices).map(|(a, b)| a ^ b);
                correct(&mut group, number, delta, 0, told);
                group
            });
            let sender: Vec<_> = sender.collect();
            let [v, q] = [&receiver, &sender].map(|groups| {
                transpose(&groups.iter().flat_map(|group| &group.bits).collect::<Vec<_>>())
            });
            assert_eq!((v.len(), q.len()), (128 * words, 128 * words));
            for (at, (v, q)) in v.iter().zip(q).enumerate() {
                let choice = choices[at / 128] >> (at % 128) & 1;
                assert!(q == v ^ delta & choice.wrapping_neg(), "transfer {at}");
            }
        }
    }
}

#[test]
fn rows_are_columns_read_across() {
    for words in [0, 1, 2, 3] {
        let columns: Vec<_> = (0..128).map(|column| random(column, words)).collect();
        let rows = transpose(&columns);
        assert_eq!(rows.len(), 128 * words);
        for (at, row) in rows.iter().enumerate() {
            for (bit, column) in columns.iter().enumerate() {
                assert_eq!(row >> bit & 1, column[at / 128] >> (at % 128) & 1);
            }
        }
    }
}
