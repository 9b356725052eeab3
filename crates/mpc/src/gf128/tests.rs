use proptest::prelude::*;

use super::unit::Unit;
use super::{Gf128, add_products, add_scaled, dot, mul_each};

/// Bit by bit.
fn oracle(a: Gf128, b: Gf128) -> Gf128 {
    let mut product = 0;
    let mut shifted = a.0;
    for bit in 0..128 {
        if b.0 >> bit & 1 == 1 {
            product ^= shifted;
        }
        let over = shifted >> 127;
        shifted = (shifted << 1) ^ (over * 0x87);
    }
    Gf128(product)
}

/// The coefficients of an element, with the extremes among them.
fn element() -> impl Strategy<Value = u128> {
    let extreme = prop_oneof![Just(0), Just(1), Just(u128::MAX), (0..128u32).prop_map(|i| 1 << i)];
    prop_oneof![4 => any::<u128>(), 1 => extreme]
}

/// Pairs of factors and what their products are added to.
fn triples() -> impl Strategy<Value = Vec<(u128, u128, u128)>> {
    prop::collection::vec((element(), element(), element()), 0..20)
}

proptest! {
    #[test]
    fn every_unit_multiplies_as_the_oracle(triples in triples(), by in any::<u128>()) {
        let by = Gf128(by);
        let a: Vec<_> = triples.iter().map(|t| Gf128(t.0)).collect();
        let b: Vec<_> = triples.iter().map(|t| Gf128(t.1)).collect();
        let c: Vec<_> = triples.iter().map(|t| Gf128(t.2)).collect();
        let pairs = || a.iter().zip(&b);
        let scaled: Vec<_> = a.iter().map(|a| oracle(*a, by)).collect();
        let added: Vec<_> = c.iter().zip(&scaled).map(|(c, s)| *c + *s).collect();
        let products = c.iter().zip(pairs()).map(|(c, (a, b))| *c + oracle(*a, *b));
        let products: Vec<_> = products.collect();
        let sum = pairs().fold(Gf128::ZERO, |sum, (a, b)| sum + oracle(*a, *b));
        for unit in Unit::all() {
            let mut out = a.clone();
            unit.mul_each(&mut out, by);
            prop_assert!(out == scaled, "mul_each on {unit:?}");
            let single: Vec<_> = a.iter().map(|a| unit.mul(*a, by)).collect();
            prop_assert!(single == scaled, "mul on {unit:?}");
            let mut out = c.clone();
            unit.add_scaled(&mut out, &a, by);
            prop_assert!(out == added, "add_scaled on {unit:?}");
            let mut out = c.clone();
            unit.add_products(&mut out, &a, &b);
            prop_assert!(out == products, "add_products on {unit:?}");
            prop_assert!(unit.dot(&a, &b) == sum, "dot on {unit:?}");
        }
    }

    #[test]
    fn it_is_a_field(a in element(), b in element(), c in element()) {
        let [a, b, c] = [a, b, c].map(Gf128);
        prop_assert!(a * b == b * a);
        prop_assert!(a * (b * c) == (a * b) * c);
        prop_assert!(a * (b + c) == a * b + a * c);
        prop_assert!(a * Gf128::ONE == a);
        prop_assert!(a - a == Gf128::ZERO);
        let unit = Gf128(u128::from(a != Gf128::ZERO));
        prop_assert!(a * a.inverse() == unit);
    }

    #[test]
    fn slices_are_products_one_by_one(triples in triples()) {
        let a: Vec<_> = triples.iter().map(|t| Gf128(t.0)).collect();
        let b: Vec<_> = triples.iter().map(|t| Gf128(t.1)).collect();
        let products: Vec<_> = a.iter().zip(&b).map(|(a, b)| *a * *b).collect();
        let mut out = vec![Gf128::ZERO; a.len()];
        add_products(&mut out, &a, &b);
        prop_assert!(out == products);
        prop_assert!(dot(&a, &b) == products.iter().fold(Gf128::ZERO, |sum, p| sum + *p));
        let by = Gf128(0x1234_5678_9abc_def0 << 60);
        let mut scaled = a.clone();
        mul_each(&mut scaled, by);
        let mut out = vec![Gf128::ZERO; a.len()];
        add_scaled(&mut out, &a, by);
        prop_assert!(out == scaled);
        prop_assert!(scaled == a.iter().map(|a| *a * by).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_and_back(bytes in any::<[u8; 16]>()) {
        prop_assert_eq!(Gf128::from_le_bytes(bytes).to_le_bytes(), bytes);
    }
}

#[test]
fn the_modulus() {
    assert!(Gf128(1 << 127) * Gf128::X == Gf128(0x87));
    assert!(
        Gf128::from_le_bytes(std::array::from_fn(|i| u8::from(i == 15) << 7)) == Gf128(1 << 127)
    );
}

/// Test case 2 of "The Galois/Counter Mode of Operation (GCM)", McGrew and Viega, 2005, appendix
/// B: H, the ciphertext's product with it, and GHASH.
#[test]
fn ghash() {
    // GCM's first bit, the highest of the first byte, is the coefficient of 1.
    let element = |number: u128| Gf128(number.reverse_bits());
    let h = element(0x66e9_4bd4_ef8a_2c3b_884c_fa59_ca34_2b2e);
    let ciphertext = element(0x0388_dace_60b6_a392_f328_c2b9_71b2_fe78);
    let first = ciphertext * h;
    assert!(first == element(0x5e2e_c746_9170_6288_2c85_b068_5353_deb7));
    let lengths = element(0x80);
    assert!((first + lengths) * h == element(0xf38c_bb1a_d692_23dc_c345_7ae5_b6b0_f885));
}

#[test]
#[should_panic(expected = "as many")]
fn lengths_differ() {
    dot(&[Gf128::ONE], &[]);
}
