use super::*;

fn words<const N: usize>(hex: [&str; N]) -> [u128; N] {
    hex.map(|word| u128::from_str_radix(word, 16).unwrap().swap_bytes())
}

/// FIPS 197, appendix B, and NIST SP 800-38A, F.1.1 (ECB) and F.5.1 (CTR: the counters and what they
/// are encrypted to).
#[test]
fn encrypts_as_the_standards_say() {
    let [key] = words(["000102030405060708090a0b0c0d0e0f"]);
    let mut block = words(["00112233445566778899aabbccddeeff"]);
    encrypt(&aes(key), &mut block);
    assert_eq!(block, words(["69c4e0d86a7b0430d8cdb78070b4c55a"]));

    let [key] = words(["2b7e151628aed2a6abf7158809cf4f3c"]);
    let mut blocks = words([
        "6bc1bee22e409f96e93d7e117393172a",
        "ae2d8a571e03ac9c9eb76fac45af8e51",
        "30c81c46a35ce411e5fbc1191a0a52ef",
        "f69f2445df4f9b17ad2b417be66c3710",
        "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        "f0f1f2f3f4f5f6f7f8f9fafbfcfdff00",
        "f0f1f2f3f4f5f6f7f8f9fafbfcfdff01",
        "f0f1f2f3f4f5f6f7f8f9fafbfcfdff02",
    ]);
    encrypt(&aes(key), &mut blocks);
    let expected = words([
        "3ad77bb40d7a3660a89ecaf32466ef97",
        "f5d3d58503b9699de785895a96fdbaaf",
        "43b1cd7f598ece23881b00e3ed030688",
        "7b0c785e27e8ad3f8223207104725dd4",
        "ec8cdf7398607cb0f2d21675ea9ea1e4",
        "362b7c3c6773516318a077d7fc5073ae",
        "6a2cc3787889374fbeb4c81b17ba6c44",
        "e89c399ff0f198c6d40a31db156cabfe",
    ]);
    assert_eq!(blocks, expected);
}

/// H of NIST SP 800-38D under the zero key is the first word.
#[test]
fn the_stream_is_the_encryption_of_its_places() {
    let mut first = [1];
    Prg::new(0).fill(&mut first);
    assert_eq!(first, words(["66e94bd4ef8a2c3b884cfa59ca342b2e"]));

    let mut expected: Vec<u128> = (0..700).collect();
    encrypt(&aes(77), &mut expected);
    let mut whole = vec![u128::MAX; 700];
    Prg::new(77).fill(&mut whole);
    assert!(whole == expected);
    // However it is asked for.
    let mut prg = Prg::new(77);
    let mut parts = vec![u128::MAX; 700];
    let mut rest = parts.as_mut_slice();
    for length in [0, 1, 2, 7, 64, 65, 561] {
        let (part, after) = rest.split_at_mut(length);
        prg.fill(part);
        rest = after;
    }
    assert!(rest.is_empty() && parts == expected);
}

#[test]
fn the_hash_is_the_formula_at_every_length() {
    let permutation = Permutation::new(3);
    for length in [0, 1, 2, 63, 64, 65, 128, 129, 1000] {
        let mut words = vec![0; length];
        Prg::new(4).fill(&mut words);
        let mut out = vec![u128::MAX; length];
        permutation.hash(&words, &mut out);
        for (word, out) in words.iter().zip(out) {
            let (high, low) = (word >> 64, word & u128::from(u64::MAX));
            let turned = (high ^ low) << 64 | high;
            let mut expected = [turned];
            encrypt(&aes(3), &mut expected);
            assert_eq!(out, expected[0] ^ turned);
        }
    }
}

#[test]
fn comparison_and_bits() {
    let edges = [0, 1, 2, 3, 255, 256, usize::MAX >> 1, 1 << 63, usize::MAX - 1, usize::MAX];
    for a in edges {
        for b in edges {
            assert_eq!(equal(a, b), if a == b { u128::MAX } else { 0 }, "{a} {b}");
        }
    }
    for place in 0..128 {
        assert_eq!(spread(1 << place, place), u128::MAX);
        assert_eq!(spread(!(1 << place), place), 0);
    }
}
