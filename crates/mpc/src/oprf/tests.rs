use getrandom::SysRng;
use proptest::prelude::*;
use rand_core::UnwrapErr;

use super::*;

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn inputs(number: usize) -> Vec<[u8; 8]> {
    (0..number as u64).map(u64::to_le_bytes).collect()
}

const MODES: [Mode; 2] = [Mode::Oprf, Mode::Voprf];

#[derive(serde::Deserialize)]
struct Suite {
    mode: u8,
    #[serde(rename = "seed")]
    seed: String,
    #[serde(rename = "keyInfo")]
    info: String,
    #[serde(rename = "skSm")]
    secret: String,
    #[serde(rename = "pkSm")]
    public: Option<String>,
    vectors: Vec<Vector>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Vector {
    batch: usize,
    blind: String,
    blinded_element: String,
    evaluation_element: String,
    input: String,
    output: String,
    proof: Option<VectorProof>,
}

#[derive(serde::Deserialize)]
struct VectorProof {
    proof: String,
    r: String,
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn arrays<const N: usize>(text: &str) -> Vec<[u8; N]> {
    text.split(',').map(array).collect()
}

fn scalar(text: &str) -> Scalar {
    Scalar::from_canonical_bytes(array(text)).unwrap()
}

#[test]
fn the_vectors_of_the_rfc() {
    let suites: Vec<Suite> =
        serde_json::from_str(include_str!("../../../../vectors/oprf/rfc9497.json")).unwrap();
    let mut checked = 0;
    for suite in suites {
        let mode = MODES[usize::from(suite.mode)];
        let info = hex::decode(&suite.info).unwrap();
        let key = SecretKey::derive(mode, &array(&suite.seed), &info).unwrap();
        assert_eq!(*key.to_bytes(), array(&suite.secret));
        if let Some(public) = &suite.public {
            assert_eq!(key.public().to_bytes(), array(public));
        }
        for vector in &suite.vectors {
            let inputs: Vec<Vec<u8>> =
                vector.input.split(',').map(|input| hex::decode(input).unwrap()).collect();
            assert_eq!(inputs.len(), vector.batch);
            let halves = vector.blind.split(',').map(|blind| scalar(blind).div_by_2()).collect();
            let blinds = Blinds::new(mode, &inputs, Zeroizing::new(halves)).unwrap();
            assert_eq!(blinds.elements(), arrays(&vector.blinded_element));
            let nonce = vector.proof.as_ref().map_or(Scalar::ONE, |proof| scalar(&proof.r));
            let evaluated = key.evaluate_with(mode, blinds.elements(), &nonce).unwrap();
            assert_eq!(evaluated.elements, arrays(&vector.evaluation_element));
            assert_eq!(
                evaluated.proof.map(|proof| proof.to_bytes()),
                vector.proof.as_ref().map(|proof| array(&proof.proof)),
            );
            let outputs = blinds.finalize(&inputs, key.public(), &evaluated).unwrap();
            assert_eq!(*outputs, arrays(&vector.output));
            assert_eq!(*key.evaluate(mode, &inputs).unwrap(), *outputs);
            checked += inputs.len();
        }
    }
    assert_eq!(checked, 6);
}

#[test]
fn every_size_class() {
    let key = SecretKey::random(&mut rng());
    for mode in MODES {
        for number in [0, 1, 2, PIECE - 1, PIECE, PIECE + 1, 5000] {
            let inputs = inputs(number);
            let blinds = blind(mode, &inputs, &mut rng());
            if mode == Mode::Voprf && number == 0 {
                assert_eq!(blinds.err(), Some(Error::Batch(0)));
                continue;
            }
            let blinds = blinds.unwrap();
            let evaluated = key.blind_evaluate(mode, blinds.elements(), &mut rng()).unwrap();
            let outputs = blinds.finalize(&inputs, key.public(), &evaluated).unwrap();
            assert_eq!(*outputs, *key.evaluate(mode, &inputs).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_client_learns_what_the_server_would_compute(
        inputs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20),
        verified in any::<bool>(),
    ) {
        let mode = MODES[usize::from(verified)];
        let key = SecretKey::random(&mut rng());
        let blinds = blind(mode, &inputs, &mut rng()).unwrap();
        let evaluated = key.blind_evaluate(mode, blinds.elements(), &mut rng()).unwrap();
        let outputs = blinds.finalize(&inputs, key.public(), &evaluated).unwrap();
        prop_assert_eq!(&*outputs, &*key.evaluate(mode, &inputs).unwrap());
        let kept = SecretKey::from_bytes(&key.to_bytes()).unwrap();
        prop_assert_eq!(&*outputs, &*kept.evaluate(mode, &inputs).unwrap());
    }
}

#[test]
fn modes_and_keys_give_other_outputs() {
    let [first, second] = [SecretKey::random(&mut rng()), SecretKey::random(&mut rng())];
    let inputs = inputs(3);
    let of = |key: &SecretKey, mode| key.evaluate(mode, &inputs).unwrap().to_vec();
    let all = [of(&first, Mode::Oprf), of(&first, Mode::Voprf), of(&second, Mode::Oprf)].concat();
    for (at, output) in all.iter().enumerate() {
        assert!(!all[..at].contains(output));
    }
}

/// Elements that are the same under every key, that have another encoding, or that are none.
#[test]
fn elements_that_must_be_refused() {
    let key = SecretKey::random(&mut rng());
    let inputs = inputs(3);
    let mut above = [0xff; 32];
    (above[0], above[31]) = (0xee, 0x7f);
    let mut negative = [0; 32];
    negative[0] = 1;
    let mut top = key.public().to_bytes();
    top[31] |= 0x80;
    for mode in MODES {
        let blinds = blind(mode, &inputs, &mut rng()).unwrap();
        let evaluated = key.blind_evaluate(mode, blinds.elements(), &mut rng()).unwrap();
        for (element, error) in [
            ([0; 32], Error::Identity { at: 1 }),
            (above, Error::Element { at: 1 }),
            (negative, Error::Element { at: 1 }),
            (top, Error::Element { at: 1 }),
            ([0xff; 32], Error::Element { at: 1 }),
        ] {
            let mut blinded = blinds.elements().to_vec();
            blinded[1] = element;
            assert_eq!(key.blind_evaluate(mode, &blinded, &mut rng()).err(), Some(error));
            let mut evaluated = evaluated.clone();
            evaluated.elements[1] = element;
            let refused = blinds.finalize(&inputs, key.public(), &evaluated);
            assert_eq!(refused.err(), Some(error));
        }
        let refused = PublicKey::from_bytes(&[0; 32]);
        assert_eq!(refused, Err(Error::Identity { at: 0 }));
        assert_eq!(PublicKey::from_bytes(&top), Err(Error::Element { at: 0 }));
    }
}

/// A server that singles out one input, by another key for it.
#[test]
fn another_key_for_one_input() {
    let [key, other] = [SecretKey::random(&mut rng()), SecretKey::random(&mut rng())];
    for number in [1, 2, 300] {
        let inputs = inputs(number);
        let blinds = blind(Mode::Voprf, &inputs, &mut rng()).unwrap();
        let right = key.blind_evaluate(Mode::Voprf, blinds.elements(), &mut rng()).unwrap();
        let wrong = other.blind_evaluate(Mode::Voprf, blinds.elements(), &mut rng()).unwrap();
        for at in [0, number - 1] {
            let mut mixed = right.clone();
            mixed.elements[at] = wrong.elements[at];
            let refused = blinds.finalize(&inputs, key.public(), &mixed);
            assert_eq!(refused.err(), Some(Error::Proof));
            // A proof that is made about the mixed elements does not hold either.
            let hashes = Hashes::new(Mode::Voprf);
            let points = decoded_each(blinds.elements()).unwrap();
            let statement = Statement {
                hashes: &hashes,
                public: key.public(),
                blinded: blinds.elements(),
                evaluated: &mixed.elements,
            };
            mixed.proof = Some(statement.prove(&key.scalar, &points, &nonzero(&mut rng())));
            let refused = blinds.finalize(&inputs, key.public(), &mixed);
            assert_eq!(refused.err(), Some(Error::Proof));
        }
        // One key for all, but not the one that was promised.
        assert_eq!(blinds.finalize(&inputs, key.public(), &wrong).err(), Some(Error::Proof));
    }
}

/// Errors in two elements that would cancel if all had the same factor.
#[test]
fn differences_that_cancel() {
    let key = SecretKey::random(&mut rng());
    let inputs = inputs(2);
    let blinds = blind(Mode::Voprf, &inputs, &mut rng()).unwrap();
    let mut evaluated = key.blind_evaluate(Mode::Voprf, blinds.elements(), &mut rng()).unwrap();
    let [first, second] = [0, 1].map(|at| decoded(at, &evaluated.elements[at]).unwrap());
    let difference = key.public().point();
    evaluated.elements =
        [first + difference, second - difference].map(|point| point.compress().to_bytes()).to_vec();
    assert_eq!(blinds.finalize(&inputs, key.public(), &evaluated).err(), Some(Error::Proof));
}

#[test]
fn elements_in_another_order() {
    let key = SecretKey::random(&mut rng());
    let inputs = inputs(2);
    let blinds = blind(Mode::Voprf, &inputs, &mut rng()).unwrap();
    let mut evaluated = key.blind_evaluate(Mode::Voprf, blinds.elements(), &mut rng()).unwrap();
    evaluated.elements.swap(0, 1);
    assert_eq!(blinds.finalize(&inputs, key.public(), &evaluated).err(), Some(Error::Proof));
}

#[test]
fn proofs_that_must_be_refused() {
    let key = SecretKey::random(&mut rng());
    let inputs = inputs(5);
    let blinds = blind(Mode::Voprf, &inputs, &mut rng()).unwrap();
    let evaluated = key.blind_evaluate(Mode::Voprf, blinds.elements(), &mut rng()).unwrap();
    let bytes = evaluated.proof.unwrap().to_bytes();
    assert_eq!(Proof::from_bytes(&bytes).ok(), evaluated.proof);
    for at in 0..PROOF_BYTES {
        let mut bytes = bytes;
        bytes[at] ^= 1;
        let refused = Proof::from_bytes(&bytes).and_then(|proof| {
            let evaluated = Evaluated { proof: Some(proof), ..evaluated.clone() };
            blinds.finalize(&inputs, key.public(), &evaluated)
        });
        assert!(matches!(refused.err(), Some(Error::Proof | Error::ProofEncoding)), "byte {at}");
    }
    for half in [0..32, 32..64] {
        let mut bytes = bytes;
        bytes[half].fill(0xff);
        assert_eq!(Proof::from_bytes(&bytes), Err(Error::ProofEncoding));
    }
    // The proof of other elements, made under the same key.
    let others = blind(Mode::Voprf, &inputs, &mut rng()).unwrap();
    let other = key.blind_evaluate(Mode::Voprf, others.elements(), &mut rng()).unwrap();
    let replayed = Evaluated { proof: other.proof, ..evaluated.clone() };
    assert_eq!(blinds.finalize(&inputs, key.public(), &replayed).err(), Some(Error::Proof));
    assert_eq!(blinds.finalize(&inputs, key.public(), &other).err(), Some(Error::Proof));
    let missing = Evaluated { proof: None, ..evaluated };
    assert_eq!(blinds.finalize(&inputs, key.public(), &missing).err(), Some(Error::Mode));
    let blinds = blind(Mode::Oprf, &inputs, &mut rng()).unwrap();
    assert_eq!(blinds.finalize(&inputs, key.public(), &other).err(), Some(Error::Mode));
}

#[test]
fn numbers_and_lengths_that_do_not_fit() {
    let key = SecretKey::random(&mut rng());
    let three = inputs(3);
    let blinds = blind(Mode::Oprf, &three, &mut rng()).unwrap();
    let mut evaluated = key.blind_evaluate(Mode::Oprf, blinds.elements(), &mut rng()).unwrap();
    let refused = blinds.finalize(&three[..2], key.public(), &evaluated);
    assert_eq!(refused.err(), Some(Error::Number { found: 2, expected: 3 }));
    evaluated.elements.push(evaluated.elements[0]);
    let refused = blinds.finalize(&three, key.public(), &evaluated);
    assert_eq!(refused.err(), Some(Error::Number { found: 4, expected: 3 }));
    let long = vec![vec![0; 3], vec![0; MAXIMUM_INPUT], vec![0; MAXIMUM_INPUT + 1]];
    let error = Error::Input { at: 2, length: MAXIMUM_INPUT + 1 };
    assert_eq!(blind(Mode::Oprf, &long, &mut rng()).err(), Some(error));
    assert_eq!(key.evaluate(Mode::Oprf, &long).err(), Some(error));
    key.evaluate(Mode::Oprf, &long[..2]).unwrap();
    let many = vec![key.public().to_bytes(); MAXIMUM_BATCH + 1];
    let refused = key.blind_evaluate(Mode::Voprf, &many, &mut rng());
    assert_eq!(refused.err(), Some(Error::Batch(MAXIMUM_BATCH + 1)));
}

#[test]
fn keys_that_must_be_refused() {
    let mut order = array("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    assert_eq!(SecretKey::from_bytes(&order).err(), Some(Error::Key));
    assert_eq!(SecretKey::from_bytes(&[0; 32]).err(), Some(Error::Key));
    assert_eq!(SecretKey::from_bytes(&[0xff; 32]).err(), Some(Error::Key));
    order[0] -= 1;
    assert_eq!(*SecretKey::from_bytes(&order).unwrap().to_bytes(), order);
    let long = vec![0; MAXIMUM_INPUT + 1];
    let refused = SecretKey::derive(Mode::Oprf, &[0; 32], &long);
    assert_eq!(refused.err(), Some(Error::Input { at: 0, length: MAXIMUM_INPUT + 1 }));
}

/// What the server sees of an input is another element each time.
#[test]
fn the_same_input_cannot_be_linked() {
    let blinds = blind(Mode::Oprf, &[[7; 8]; 1000], &mut rng()).unwrap();
    let seen: std::collections::BTreeSet<_> = blinds.elements().iter().collect();
    assert_eq!(seen.len(), 1000);
}
