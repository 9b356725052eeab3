use super::*;
use crate::gf128::{self, Gf128};

fn noise<T: Cell>(len: usize, seed: u128) -> Vec<T> {
    let mut words = vec![0_u128; len * size_of::<T>() / 16];
    Prg::new(seed).fill(&mut words);
    let mut cells = vec![T::zeroed(); len];
    bytemuck::cast_slice_mut::<_, u128>(&mut cells).copy_from_slice(&words);
    cells
}

/// The formulas of the module's documentation, tap by tap.
fn plain(code: Code, noise: &[One]) -> Vec<One> {
    let (outputs, positions) = noise.split_at(noise.len() / 2);
    let mut y = positions.to_vec();
    let mut words = Prg::new(code.seed);
    let mut buffer = Vec::new();
    let mut blocks = vec![[One([0; 2]); BLOCK]; MEMORY];
    for _pass in 0..2 {
        for (number, block) in y.chunks_mut(BLOCK).enumerate() {
            if number % BATCH == 0 {
                buffer = vec![0; 2 * BATCH];
                words.fill(&mut buffer);
            }
            let random: &[u64] = bytemuck::cast_slice(&buffer[2 * (number % BATCH)..][..2]);
            let z: Vec<_> = (0..BLOCK)
                .map(|row| {
                    let mut sum = One([0; 2]);
                    for (slot, taps) in random[..3].iter().enumerate() {
                        // The block whose number, over both passes, leaves the remainder `slot`.
                        let newest = blocks.len() - MEMORY;
                        let at = (newest..blocks.len()).find(|at| at % 3 == slot).unwrap();
                        for column in 0..BLOCK {
                            let fixed = at == blocks.len() - 1 && (row, column) == (0, 7);
                            if taps >> (8 * row + column) & 1 == 1 || fixed {
                                sum = sum.add(blocks[at][column]);
                            }
                        }
                    }
                    block[row].add(sum.double())
                })
                .collect();
            for row in 0..BLOCK {
                block[row] = z[row];
                for (column, z) in z.iter().enumerate().take(row) {
                    if random[3] >> (8 * row + column) & 1 == 1 || column + 1 == row {
                        block[row] = block[row].add(*z);
                    }
                }
            }
            blocks.push(std::array::from_fn(|at| block[at]));
        }
    }
    outputs
        .iter()
        .zip(places(code, outputs.len()))
        .map(|(output, places)| places.iter().fold(*output, |sum, place| sum.add(y[*place])))
        .collect()
}

/// The seven positions of each of so many outputs, which are as many as positions.
fn places(code: Code, outputs: usize) -> Vec<[usize; WEIGHT]> {
    let mut words = Prg::new(!code.seed);
    let mut all = Vec::new();
    while all.len() < outputs {
        let mut buffer = vec![0_u128; BATCH * WEIGHT / 4];
        words.fill(&mut buffer);
        let random: &[u32] = bytemuck::cast_slice(&buffer);
        let scaled = |word: u32| ((u64::from(word) * outputs as u64) >> 32) as usize;
        all.extend(random.as_chunks::<WEIGHT>().0.iter().map(|words| words.map(scaled)));
    }
    all.truncate(outputs);
    all
}

#[test]
fn encodes_as_the_formulas_say() {
    let code = Code::new(5);
    for len in [16, 160, 16 * 131] {
        let mut encoded = noise::<One>(len, 1);
        let expected = plain(code, &encoded);
        code.encode(&mut encoded);
        assert_eq!(encoded[..len / 2], expected);
    }
}

#[test]
fn every_unit_and_width_encodes_alike() {
    let code = Code::new(6);
    let pairs = noise::<Two>(16 * 77, 2);
    let mut encoded = pairs.clone();
    code.encode(&mut encoded);
    let mut portable = pairs.clone();
    code.encode_portable(&mut portable);
    assert_eq!(encoded[..8 * 77], portable[..8 * 77]);
    for half in 0..2 {
        let of = |pair: &Two| One([pair.0[2 * half], pair.0[2 * half + 1]]);
        let mut single: Vec<_> = pairs.iter().map(of).collect();
        code.encode(&mut single);
        assert!(encoded.iter().map(of).zip(single).take(8 * 77).all(|(a, b)| a == b));
    }
}

#[test]
fn outputs_of_few_noise_values_span_the_field() {
    let mut cells = vec![One([0; 2]); 1 << 12];
    for at in 0..8 {
        cells[(1 << 11) + 200 * at] = One([0x0123_4567_89ab_cdef << at, 77 + at as u64]);
    }
    Code::new(9).encode(&mut cells);
    let mut basis = [0_u128; 128];
    for cell in &cells[..1 << 11] {
        let mut value: u128 = bytemuck::cast(*cell);
        while let Some(top) = value.checked_ilog2() {
            if basis[top as usize] == 0 {
                basis[top as usize] = value;
                break;
            }
            value ^= basis[top as usize];
        }
    }
    assert!(basis.iter().all(|value| *value != 0), "a binary code would give a rank of eight");
}

/// Short ones, and those around the borders of what is done at a time: 64 outputs, 512 positions.
#[test]
fn every_length_encodes_as_the_formulas_say() {
    let code = Code::new(7);
    for len in [16, 32, 48, 112, 128, 144, 1008, 1024, 1040, 2032, 2048, 2064, 288 * 128] {
        let mut encoded = noise::<One>(len, 3);
        let expected = plain(code, &encoded);
        code.encode(&mut encoded);
        assert!(encoded[..len / 2] == expected, "{len}");
    }
    code.encode::<One>(&mut []);
}

/// What the correlation rests on: C = A Delta + B stays so when all three are encoded.
#[test]
fn encoding_is_linear_over_the_field() {
    for (len, factor) in [(16, 2), (1040, u128::MAX), (4096, 0x1234_5678_9abc_def0 << 60)] {
        let (a, b) = (noise::<One>(len, 4), noise::<One>(len, 5));
        let scaled =
            |cell: One| -> One { bytemuck::cast((Gf128(bytemuck::cast(cell)) * Gf128(factor)).0) };
        let mut sum: Vec<_> = a.iter().zip(&b).map(|(a, b)| scaled(*a).add(*b)).collect();
        let [mut a, mut b] = [a, b];
        let code = Code::new(8);
        for cells in [&mut a, &mut b, &mut sum] {
            code.encode(cells);
        }
        for at in 0..len / 2 {
            assert_eq!(sum[at], scaled(a[at]).add(b[at]));
        }
    }
    let mut nothing = vec![One([0; 2]); 4096];
    Code::new(8).encode(&mut nothing);
    assert!(nothing.iter().all(|cell| *cell == One([0; 2])));
}

#[test]
fn every_seed_is_another_code() {
    let encoded = |seed| {
        let mut cells = noise::<One>(1024, 6);
        Code::new(seed).encode(&mut cells);
        cells[..512].to_vec()
    };
    let first = encoded(1);
    assert!(first == encoded(1));
    for seed in [0, 2, 1 << 127, !1] {
        let same = first.iter().zip(encoded(seed)).filter(|(a, b)| **a == *b).count();
        assert_eq!(same, 0, "{seed}");
    }
}

/// One noise value in the convolved half reaches nearly all outputs, wherever it lies, and one in
/// the other half its own output alone.
#[test]
fn one_noise_value_reaches_the_outputs() {
    let len = 1 << 12;
    for at in [0, 1, len / 2 - 1, len / 2, len / 2 + 1, len - 9, len - 1] {
        let mut cells = vec![One([0; 2]); len];
        cells[at] = One([1, 0]);
        Code::new(10).encode(&mut cells);
        let reached = cells[..len / 2].iter().filter(|cell| **cell != One([0; 2])).count();
        if at < len / 2 {
            assert_eq!(reached, 1, "{at}");
        } else {
            assert!(reached > len / 2 * 95 / 100, "{at}: {reached}");
        }
    }
}

/// The attack that decides about the noise: outputs whose positions lie in intervals of the convolved
/// half are confined to these by at most 48 linear conditions an interval, 24 in each pass.
#[test]
fn few_conditions_confine_combinations_to_intervals() {
    let (n, code) = (1 << 11, Code::new(11));
    let intervals = [104..816, 1128..1840];
    let inside = |place: &usize| intervals.iter().any(|interval| interval.contains(place));
    let places = places(code, n);
    let outputs: Vec<_> = (0..n).filter(|output| places[*output].iter().all(inside)).collect();
    assert!(outputs.len() > 150, "{}", outputs.len());

    // What the positions outside contribute to these outputs: a column each.
    let columns = (0..n).filter(|place| !inside(place)).map(|place| {
        let mut cells = vec![One([0; 2]); 2 * n];
        cells[n + place] = One([1, 0]);
        code.encode(&mut cells);
        outputs.iter().map(|output| Gf128(bytemuck::cast(cells[*output]))).collect()
    });
    let rank = rank(columns.collect());
    assert!(rank <= 48 * intervals.len(), "{rank} of {} outputs", outputs.len());
}

/// The rank over the field.
fn rank(mut columns: Vec<Vec<Gf128>>) -> usize {
    let mut rank = 0;
    for row in 0..columns[0].len() {
        let Some(pivot) = (rank..columns.len()).find(|at| columns[*at][row] != Gf128::ZERO) else {
            continue;
        };
        columns.swap(rank, pivot);
        let (done, rest) = columns.split_at_mut(rank + 1);
        let pivot = &done[rank];
        let inverse = pivot[row].inverse();
        for column in rest {
            let factor = column[row] * inverse;
            gf128::add_scaled(column, pivot, factor);
        }
        rank += 1;
    }
    rank
}
