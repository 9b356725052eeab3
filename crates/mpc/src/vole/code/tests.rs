use super::*;

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
    let mut words = Prg::new(!code.seed);
    let mut random: Vec<u32> = Vec::new();
    let mut result = Vec::new();
    for (at, output) in outputs.iter().enumerate() {
        if at % BATCH == 0 {
            let mut buffer = vec![0_u128; BATCH * WEIGHT / 4];
            words.fill(&mut buffer);
            random = bytemuck::cast_slice(&buffer).to_vec();
        }
        let mut sum = *output;
        for place in &random[WEIGHT * (at % BATCH)..][..WEIGHT] {
            sum = sum.add(y[((u64::from(*place) * y.len() as u64) >> 32) as usize]);
        }
        result.push(sum);
    }
    result
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
