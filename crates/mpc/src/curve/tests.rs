use curve25519_dalek::MontgomeryPoint;
use getrandom::SysRng;
use hex::FromHex;
use proptest::prelude::*;
use rand_core::UnwrapErr;
use serde::Deserialize;

use super::hash::{Map, ToField};
use super::lanes::{Lanes, Unit, WIDEST, Work};
use super::*;

const HASH_VECTORS: &str = include_str!("../../../../vectors/curve/hash_to_curve.json");
const WYCHEPROOF: &str = include_str!("../../../../vectors/curve/wycheproof_x25519.json");

/// 2^255 - 19 and its neighbours, and other points whose limbs are extreme.
fn edges() -> Vec<Point> {
    let mut edges = Vec::new();
    for first in 0..=32 {
        let mut small = [0; 32];
        small[0] = first;
        edges.push(small);
        let mut large = [0xff; 32];
        large[0] -= first;
        edges.push(large);
        large[31] = 0x7f;
        edges.push(large);
    }
    for bit in 0..256 {
        let mut one = [0; 32];
        one[bit / 8] = 1 << (bit % 8);
        edges.push(one);
        edges.push(one.map(|byte| !byte));
    }
    edges.extend(small_orders());
    edges
}

/// The two u-coordinates of order 8, by the curve's own arithmetic.
fn small_orders() -> [Point; 2] {
    [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ]
    .map(point)
}

fn point(hex: &str) -> Point {
    Point::from_hex(hex).unwrap()
}

fn expected(scalar: [u8; 32], point: Point) -> Point {
    MontgomeryPoint(point).mul_clamped(scalar).to_bytes()
}

/// The products, refused or not.
fn products(unit: Unit, scalar: [u8; 32], points: &[Point]) -> Vec<Point> {
    let mut out = vec![[0xaa; 32]; points.len()];
    let result = multiply_on(unit, &Scalar::clamped(&scalar), points, &mut out);
    assert_eq!(result.err().map(|error| error.at), out.iter().position(|out| *out == [0; 32]));
    out
}

#[test]
fn rfc_7748_vectors() {
    let vectors = [
        [
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ],
        [
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ],
    ];
    for unit in Unit::all() {
        for vector in vectors {
            let [scalar, input, product] = vector.map(point);
            assert_eq!(products(unit, scalar, &[input]), [product], "{}", unit.name());
        }
    }
}

/// RFC 7748, section 5.2: each product is the next scalar, and each scalar the next point.
#[test]
fn a_thousand_products_in_turn() {
    for unit in Unit::all() {
        let (mut scalar, mut input) = (BASE, BASE);
        for round in 1..=1000 {
            let product = products(unit, scalar, &[input])[0];
            (scalar, input) = (product, scalar);
            if round == 1 {
                let once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                assert_eq!(scalar, point(once), "{}", unit.name());
            }
        }
        let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
        assert_eq!(scalar, point(thousand), "{}", unit.name());
    }
}

#[test]
#[ignore = "takes a minute: cargo test -p convelo-mpc --lib million -- --ignored"]
fn a_million_products_in_turn() {
    let (mut scalar, mut input) = (BASE, BASE);
    for _ in 0..1_000_000 {
        let product = products(Unit::fastest(), scalar, &[input])[0];
        (scalar, input) = (product, scalar);
    }
    let million = "7c3911e0ab2586fd864497297e575e6f3bc601c0883c30df5f4dd2d24f665424";
    assert_eq!(scalar, point(million));
}

#[test]
fn wycheproof_vectors() {
    let cases: Vec<(u32, String, String, String)> = serde_json::from_str(WYCHEPROOF).unwrap();
    assert_eq!(cases.len(), 518);
    for unit in Unit::all() {
        for (number, scalar, input, product) in &cases {
            let got = products(unit, point(scalar), &[point(input)]);
            assert_eq!(got, [point(product)], "case {number}, {}", unit.name());
        }
    }
}

#[derive(Deserialize)]
struct HashVectors {
    domain: String,
    vectors: Vec<HashVector>,
}

#[derive(Deserialize)]
struct HashVector {
    message: String,
    fields: [String; 2],
    u: String,
}

#[test]
fn rfc_9380_vectors() {
    let HashVectors { domain, vectors } = serde_json::from_str(HASH_VECTORS).unwrap();
    assert_eq!(vectors.len(), 5);
    let to_field = ToField::new(domain.as_bytes());
    let messages: Vec<_> = vectors.iter().map(|vector| vector.message.as_str()).collect();
    let points: Vec<_> = vectors.iter().map(|vector| point(&vector.u)).collect();
    for unit in Unit::all() {
        for vector in &vectors {
            let mut fields = to_field.hash(vector.message.as_bytes());
            for field in &mut fields {
                *field = reduced(unit, *field);
            }
            assert_eq!(fields, [point(&vector.fields[0]), point(&vector.fields[1])]);
        }
        let mut out = vec![[0; 32]; points.len()];
        hash_on(unit, domain.as_bytes(), &messages, &mut out);
        assert_eq!(out, points, "{}", unit.name());
    }
}

/// RFC 9380, section 5.3.3: a domain of more than 255 bytes is hashed first.
#[test]
fn long_domain() {
    use sha2::{Digest, Sha512};
    let long = [7; 256];
    let short = Sha512::new().chain_update("H2C-OVERSIZE-DST-").chain_update(long).finalize();
    let mut out = [[0; 32]; 2];
    hash_to_curve(&long, &["a"], &mut out[..1]);
    hash_to_curve(&short, &["a"], &mut out[1..]);
    assert_eq!(out[0], out[1]);
    hash_to_curve(&long[..255], &["a"], &mut out[1..]);
    assert_ne!(out[0], out[1]);
}

/// Both elements of a pair map to the same point, or to opposite ones.
#[test]
fn equal_and_opposite_points_are_added() {
    for unit in Unit::all() {
        for field in edges() {
            let mut out = [[0xaa; 32]; 1];
            unit.run(Map { fields: &[[field, field]], out: &mut out });
            let mut twice = field;
            twice[31] &= 0x7f;
            // -field maps to the same point, as only its square counts.
            let negative = negated(unit, twice);
            let mut other = [[0; 32]; 1];
            unit.run(Map { fields: &[[field, negative]], out: &mut other });
            assert_eq!(out, other, "{}", unit.name());
            let mut portable = [[0; 32]; 1];
            Unit::Portable.run(Map { fields: &[[field, field]], out: &mut portable });
            assert_eq!(out, portable, "{}", unit.name());
        }
        // 0 maps to (0, 0), which is its own negative.
        let mut out = [[0xaa; 32]; 1];
        unit.run(Map { fields: &[[[0; 32]; 2]], out: &mut out });
        assert_eq!(out, [[0; 32]]);
    }
}

/// All lanes of a vector are independent, and any number of points will do.
#[test]
fn every_count() {
    let mut points = vec![BASE; 1100];
    let messages: Vec<_> = (0..points.len()).map(usize::to_le_bytes).collect();
    hash_on(Unit::Portable, b"count", &messages, &mut points);
    let scalar = [0x39; 32];
    let all: Vec<_> = points.iter().map(|point| expected(scalar, *point)).collect();
    for unit in Unit::all() {
        for count in (0..20).chain([255, 256, 257, 511, 512, 513, 1100]) {
            assert_eq!(products(unit, scalar, &points[..count]), all[..count]);
            let mut hashed = vec![[0; 32]; count];
            hash_on(unit, b"count", &messages[..count], &mut hashed);
            assert_eq!(hashed, points[..count]);
        }
    }
}

/// A result of the hash is in the prime-order group: the Montgomery form of an Edwards point
/// without torsion.
#[test]
fn hashes_are_in_the_prime_order_group() {
    let messages: Vec<_> = (0..64u8).map(|byte| [byte]).collect();
    let mut points = vec![BASE; messages.len()];
    hash_to_curve(b"group", &messages, &mut points);
    for point in points {
        check_canonical(&[point]).unwrap();
        let edwards = MontgomeryPoint(point).to_edwards(0).expect("on the curve, not the twist");
        assert!(edwards.is_torsion_free());
    }
}

#[test]
fn small_orders_are_refused_by_index() {
    let scalar = Scalar::random(&mut UnwrapErr(SysRng));
    let minus_one = negated(Unit::Portable, small(1));
    for unit in Unit::all() {
        for bad in small_orders().into_iter().chain([[0; 32], small(1), minus_one]) {
            for at in [0, 7, 8, 20] {
                let mut points = [BASE; 21];
                points[at] = bad;
                let mut out = [[0; 32]; 21];
                let result = multiply_on(unit, &scalar, &points, &mut out);
                assert_eq!(result, Err(SmallOrder { at }), "{}", unit.name());
                let others = out.iter().enumerate().filter(|(other, _)| *other != at);
                assert!(
                    others.into_iter().all(|(_, product)| *product == expected(scalar.0, BASE))
                );
            }
        }
    }
}

#[test]
fn only_canonical_points_pass_the_check() {
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    let mut below = prime;
    below[0] -= 1;
    let mut high = BASE;
    high[31] = 0x80;
    assert_eq!(check_canonical(&[BASE, below, [0; 32]]), Ok(()));
    for bad in [prime, high, [0xff; 32]] {
        assert_eq!(check_canonical(&[BASE, below, bad]), Err(NotCanonical { at: 2 }));
    }
    for edge in edges() {
        let canonical = reduced(Unit::Portable, edge) == edge;
        assert_eq!(check_canonical(&[edge]).is_ok(), canonical);
    }
}

#[test]
fn edges_are_multiplied_alike() {
    let edges = edges();
    for scalar in [[0; 32], [0xff; 32], [0x55; 32], BASE] {
        let all: Vec<_> = edges.iter().map(|edge| expected(scalar, *edge)).collect();
        for unit in Unit::all() {
            assert_eq!(products(unit, scalar, &edges), all, "{}", unit.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn units_multiply_as_dalek_does(
        scalar: [u8; 32],
        points in prop::collection::vec(any::<[u8; 32]>(), 1..20),
    ) {
        let all: Vec<_> = points.iter().map(|point| expected(scalar, *point)).collect();
        for unit in Unit::all() {
            prop_assert_eq!(&products(unit, scalar, &points), &all, "{}", unit.name());
        }
    }

    #[test]
    fn units_map_alike(fields in prop::collection::vec(any::<[[u8; 32]; 2]>(), 1..20)) {
        let mut expected = vec![[0; 32]; fields.len()];
        Unit::Portable.run(Map { fields: &fields, out: &mut expected });
        for unit in Unit::all() {
            let mut out = vec![[0; 32]; fields.len()];
            unit.run(Map { fields: &fields, out: &mut out });
            prop_assert_eq!(&out, &expected, "{}", unit.name());
        }
    }

    #[test]
    fn secrets_commute(first: [u8; 32], second: [u8; 32], message: [u8; 8]) {
        let mut point = [[0; 32]];
        hash_to_curve(b"commute", &[message], &mut point);
        for unit in Unit::all() {
            let one = products(unit, second, &products(unit, first, &point));
            let other = products(unit, first, &products(unit, second, &point));
            prop_assert_eq!(one, other);
        }
    }
}

fn small(value: u8) -> Point {
    let mut point = [0; 32];
    point[0] = value;
    point
}

/// What is computed of two vectors of elements.
struct Laws<'a> {
    a: &'a [Point; WIDEST],
    b: &'a [Point; WIDEST],
    c: &'a [Point; WIDEST],
}

impl Work for Laws<'_> {
    type Output = Vec<Vec<Point>>;

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) -> Self::Output {
        let [a, b, c] = [self.a, self.b, self.c].map(|points| lanes.load(points));
        let nothing = lanes.load(&[[0; 32]; WIDEST]);
        let (sum, difference) = (lanes.add(a, b), lanes.sub(a, b));
        let minus = lanes.sub(nothing, b);
        // Pairs that must be equal.
        let pairs = [
            (lanes.mul(sum, lanes.factor(c)), {
                let ac = lanes.mul(lanes.factor(a), lanes.factor(c));
                let bc = lanes.mul(lanes.factor(b), lanes.factor(c));
                lanes.product(lanes.add(ac, bc))
            }),
            (lanes.mul(sum, difference), {
                let aa = lanes.square(lanes.factor(a));
                let bb = lanes.square(lanes.factor(b));
                lanes.product(lanes.sub(aa, bb))
            }),
            (lanes.square(difference), lanes.mul(difference, difference)),
            (lanes.square(sum), lanes.mul(sum, sum)),
            (lanes.product(difference), lanes.product(lanes.add(a, lanes.product(minus)))),
            (lanes.square(minus), lanes.square(lanes.factor(b))),
            (lanes.product(lanes.add_scaled(a, difference)), {
                let scale = super::lanes::small(lanes, 121_665);
                let scaled = lanes.mul(lanes.factor(scale), difference);
                lanes.product(lanes.add(a, scaled))
            }),
        ];
        let mut results = Vec::new();
        for (left, right) in pairs {
            for value in [left, right] {
                let mut out = [[0; 32]; WIDEST];
                lanes.store(value, &mut out);
                results.push(out[..L::WIDTH].to_vec());
            }
        }
        results
    }
}

#[test]
fn field_laws_at_the_edges() {
    let edges = edges();
    let vectors: Vec<[Point; WIDEST]> = edges.as_chunks().0.to_vec();
    for unit in Unit::all() {
        for (at, a) in vectors.iter().enumerate() {
            for step in [0, 1, 5, 17] {
                let b = &vectors[(at + step) % vectors.len()];
                let c = &vectors[(at + 2 * step + 1) % vectors.len()];
                let mut a = *a;
                a.rotate_left(step % WIDEST);
                let results = unit.run(Laws { a: &a, b, c });
                let portable = Unit::Portable.run(Laws { a: &a, b, c });
                for (law, pair) in results.as_chunks::<2>().0.iter().enumerate() {
                    assert_eq!(pair[0], pair[1], "law {law}, {}", unit.name());
                    check_canonical(&pair[0]).unwrap();
                    assert_eq!(pair[0][0], portable[2 * law][0], "law {law}, {}", unit.name());
                }
            }
        }
    }
}

struct Negate(Point);

impl Work for Negate {
    type Output = [Point; 2];

    #[inline(always)]
    fn with<L: Lanes>(self, lanes: L) -> [Point; 2] {
        let value = lanes.load(&[self.0; WIDEST]);
        let nothing = lanes.load(&[[0; 32]; WIDEST]);
        let mut out = [[0; 32]; WIDEST];
        lanes.store(value, &mut out);
        let same = out[0];
        lanes.store(lanes.product(lanes.sub(nothing, value)), &mut out);
        [same, out[0]]
    }
}

fn reduced(unit: Unit, point: Point) -> Point {
    unit.run(Negate(point))[0]
}

fn negated(unit: Unit, point: Point) -> Point {
    unit.run(Negate(point))[1]
}
