use getrandom::SysRng;
use rand_core::{Infallible, Rng, TryCryptoRng, TryRng, UnwrapErr};

use super::*;

const SID: [u8; 32] = [7; 32];

/// Randomness that is given, for known answers.
struct Given<'a>(&'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are made from bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are made from bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (given, rest) = self.0.split_at(out.len());
        out.copy_from_slice(given);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn random_choices() -> u128 {
    let mut bytes = [0; 16];
    rng().fill_bytes(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// Both sides after their messages; the chooser has not read the answer.
struct Run {
    hybrid: Hybrid,
    choices: u128,
    chooser: Chooser,
    message: Vec<u8>,
    answer: Vec<u8>,
    pairs: Pairs,
}

impl Run {
    fn new(hybrid: Hybrid, choices: u128) -> Self {
        let mut message = Vec::new();
        let chooser = Chooser::new(&SID, choices, hybrid, &mut message, &mut rng());
        let mut answer = Vec::new();
        let pairs = super::answer(&SID, hybrid, &message, &mut answer, &mut rng()).unwrap();
        Self { hybrid, choices, chooser, message, answer, pairs }
    }

    fn chosen(&self, number: usize) -> u128 {
        self.pairs[number][(self.choices >> number & 1) as usize]
    }

    /// Which transfers give the chooser another key than it should have.
    fn wrong(self) -> Vec<usize> {
        let expected: Vec<_> = (0..COUNT).map(|number| self.chosen(number)).collect();
        let keys = self.chooser.finish(&self.answer).unwrap();
        (0..COUNT).filter(|number| keys[*number] != expected[*number]).collect()
    }
}

fn refused(hybrid: Hybrid, message: &[u8]) -> Option<Error> {
    answer(&SID, hybrid, message, &mut Vec::new(), &mut rng()).err()
}

#[test]
fn the_chooser_gets_the_key_of_its_choice() {
    for hybrid in [Hybrid::Yes, Hybrid::No] {
        for choices in [0, 1, 1 << 127, u128::MAX, random_choices()] {
            let run = Run::new(hybrid, choices);
            assert_eq!(run.message.len(), hybrid.choice_len());
            assert_eq!(run.answer.len(), run.hybrid.answer_len());
            assert_eq!(run.pairs.len(), COUNT);
            let mut keys: Vec<_> = run.pairs.iter().flatten().copied().collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), 2 * COUNT, "all keys differ");
            assert!(run.wrong().is_empty());
        }
    }
}

/// NIST's vectors for FIPS 203, which also say that a key is made from 64 bytes and a ciphertext from
/// 32.
#[test]
fn the_lattice_is_ml_kem_768() {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Vector {
        Encapsulation { key: String, message: String, ciphertext: String, shared: String },
        Key { seed: String, key: String },
    }
    let vectors = include_str!("../../../../../vectors/vole/ml-kem-768.json");
    let vectors: Vec<Vector> = serde_json::from_str(vectors).unwrap();
    let bytes = |text: &str| hex::decode(text).unwrap();
    for vector in vectors {
        match vector {
            Vector::Key { seed, key: expected } => {
                let (key, public) = MlKem768::generate_keypair_from_rng(&mut Given(&bytes(&seed)));
                assert_eq!(hex::encode(public.to_bytes()), expected);
                let (ciphertext, shared) = public.encapsulate_with_rng(&mut rng());
                assert!(key.decapsulate(&ciphertext) == shared);
            }
            Vector::Encapsulation { key, message, ciphertext: expected, shared: secret } => {
                let key: [u8; KEY_LEN] = bytes(&key).try_into().unwrap();
                let public = EncapsulationKey768::new(&key.into()).unwrap();
                let given = &mut Given(&bytes(&message));
                let (ciphertext, shared) = public.encapsulate_with_rng(given);
                assert_eq!(hex::encode(ciphertext), expected);
                assert_eq!(hex::encode(shared), secret);
            }
        }
    }
}

/// RFC 9496, appendix A.2: of each kind the first. And the identity, whose products tell nobody's
/// secret apart.
const INVALID_POINTS: [&str; 9] = [
    // Not canonical.
    "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    // Negative.
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20",
    // Not a square.
    "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
    // A negative product of coordinates.
    "3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e",
    // y = 0.
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    // The identity.
    "0000000000000000000000000000000000000000000000000000000000000000",
];

#[test]
fn invalid_points_are_refused() {
    for hybrid in [Hybrid::Yes, Hybrid::No] {
        let run = Run::new(hybrid, random_choices());
        for (at, invalid) in INVALID_POINTS.into_iter().enumerate() {
            let point = hex::decode(invalid).unwrap();
            for number in [0, at + 1, COUNT - 1] {
                let mut message = run.message.clone();
                message[POINT_LEN * number..][..POINT_LEN].copy_from_slice(&point);
                assert_eq!(refused(hybrid, &message), Some(Error::Point { number }), "{invalid}");
            }
            let run = Run::new(Hybrid::No, 5);
            let mut answer = run.answer.clone();
            answer[..POINT_LEN].copy_from_slice(&point);
            let refused = run.chooser.finish(&answer).err();
            assert_eq!(refused, Some(Error::Point { number: COUNT }), "{invalid}");
        }
    }
}

/// Sets coefficient `at` of an encoded vector.
fn set_coefficient(vector: &mut [u8], at: usize, value: u16) {
    let bytes = &mut vector[at / 2 * 3..][..3];
    let [low, high] = value.to_le_bytes();
    if at.is_multiple_of(2) {
        bytes[0] = low;
        bytes[1] = bytes[1] & 0xf0 | high;
    } else {
        bytes[1] = bytes[1] & 0x0f | low << 4;
        bytes[2] = low >> 4 | high << 4;
    }
}

/// FIPS 203, section 7.2: coefficients are below 3329.
#[test]
fn keys_with_a_coefficient_too_large_are_refused() {
    let run = Run::new(Hybrid::Yes, random_choices());
    for (number, at) in [(0, 0), (1, 1), (64, 255), (100, 256), (126, 766), (127, 767)] {
        for value in [PRIME, PRIME + 1, 4095] {
            let mut message = run.message.clone();
            let key = &mut message[POINT_LEN * COUNT + KEY_LEN * number..][..VECTOR_LEN];
            set_coefficient(key, at, value);
            let refused = refused(Hybrid::Yes, &message);
            assert_eq!(refused, Some(Error::Key { number }), "coefficient {at} is {value}");
            let key = &mut message[POINT_LEN * COUNT + KEY_LEN * number..][..VECTOR_LEN];
            set_coefficient(key, at, PRIME - 1);
            assert_eq!(self::refused(Hybrid::Yes, &message), None);
        }
    }
}

/// Any other bytes are a key, but nobody's: a chooser whose key was changed on the way gets another
/// secret, because the ciphertext does not decrypt (implicit rejection) and the transcripts differ.
#[test]
fn a_changed_choice_gives_wrong_keys() {
    for at in [0, POINT_LEN * COUNT + 5, POINT_LEN * COUNT + KEY_LEN - 1] {
        let mut run = Run::new(Hybrid::Yes, 1);
        // The first is a point: another one.
        if at == 0 {
            let other = RistrettoPoint::mul_base(&Scalar::random(&mut rng())).compress();
            run.message[..POINT_LEN].copy_from_slice(other.as_bytes());
        } else {
            run.message[at] ^= 1;
        }
        let mut answer = Vec::new();
        run.pairs =
            super::answer(&SID, Hybrid::Yes, &run.message, &mut answer, &mut rng()).unwrap();
        run.answer = answer;
        assert_eq!(run.wrong().len(), COUNT, "{at}");
    }
}

/// Every string of the right length is a ciphertext; one that was not made for the key decapsulates
/// to something that only the chooser can compute (FIPS 203, algorithm 18, implicit rejection).
/// There is no error: this transfer's key is wrong, and what is derived from it.
#[test]
fn a_malformed_ciphertext_makes_that_key_wrong() {
    let choices = random_choices();
    let place = |number: usize, side: usize| POINT_LEN + CIPHERTEXT_LEN * (2 * number + side);
    for number in [0, 3, COUNT - 1] {
        let chosen = (choices >> number & 1) as usize;
        for change in [
            |ciphertext: &mut [u8]| ciphertext[0] ^= 1,
            |ciphertext: &mut [u8]| ciphertext[CIPHERTEXT_LEN - 1] ^= 0x80,
            |ciphertext: &mut [u8]| ciphertext.fill(0),
            |ciphertext: &mut [u8]| ciphertext.fill(0xff),
        ] {
            let mut run = Run::new(Hybrid::Yes, choices);
            change(&mut run.answer[place(number, chosen)..][..CIPHERTEXT_LEN]);
            assert_eq!(run.wrong(), [number]);
            // The other one is not read, so whoever sees whether all is well learns the choice:
            // the protocol is for parties that follow it.
            let mut run = Run::new(Hybrid::Yes, choices);
            change(&mut run.answer[place(number, 1 - chosen)..][..CIPHERTEXT_LEN]);
            assert!(run.wrong().is_empty());
        }
    }
}

/// Who has broken the curve alone has all ristretto255 secrets, but not those of ML-KEM: no key.
#[test]
fn the_curve_alone_opens_nothing() {
    let mut run = Run::new(Hybrid::Yes, random_choices());
    for key in &mut run.chooser.keys {
        *key = MlKem768::generate_keypair_from_rng(&mut rng()).0;
    }
    assert_eq!(run.wrong().len(), COUNT);
}

/// Who has broken ML-KEM alone has all of its secrets, but not those of ristretto255: no key.
#[test]
fn the_lattice_alone_opens_nothing() {
    let mut run = Run::new(Hybrid::Yes, random_choices());
    for scalar in &mut run.chooser.scalars {
        *scalar = Scalar::random(&mut rng());
    }
    assert_eq!(run.wrong().len(), COUNT);
}

/// Half of one transfer's secret is as good as none, and no other transfer's is affected.
#[test]
fn one_wrong_half_makes_one_key_wrong() {
    for number in [0, 77, COUNT - 1] {
        let mut run = Run::new(Hybrid::Yes, random_choices());
        run.chooser.keys[number] = MlKem768::generate_keypair_from_rng(&mut rng()).0;
        assert_eq!(run.wrong(), [number]);
        let mut run = Run::new(Hybrid::Yes, random_choices());
        run.chooser.scalars[number] += Scalar::ONE;
        assert_eq!(run.wrong(), [number]);
    }
}

/// The secrets of both schemes count, in their places, and so do number and side.
#[test]
fn everything_counts_in_a_key() {
    let (a, b) = ([1; 32], [2; 32]);
    let mut keys = vec![
        derive(&SID, 0, 0, &a, None),
        derive(&SID, 0, 0, &a, Some(&b)),
        derive(&SID, 0, 0, &b, Some(&a)),
        derive(&SID, 0, 0, &a, Some(&a)),
        derive(&SID, 1, 0, &a, Some(&b)),
        derive(&SID, 0, 1, &a, Some(&b)),
        derive(&[8; 32], 0, 0, &a, Some(&b)),
    ];
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all);
}

#[test]
fn a_message_of_another_session_gives_wrong_keys() {
    for hybrid in [Hybrid::Yes, Hybrid::No] {
        let mut run = Run::new(hybrid, random_choices());
        let (mut answer, other) = (Vec::new(), [8; 32]);
        run.pairs = super::answer(&other, hybrid, &run.message, &mut answer, &mut rng()).unwrap();
        run.answer = answer;
        assert_eq!(run.wrong().len(), COUNT);
        // And the answer to another choice of the same session.
        let mut run = Run::new(hybrid, random_choices());
        run.answer = Run::new(hybrid, random_choices()).answer;
        assert_eq!(run.wrong().len(), COUNT);
    }
}

/// The two of a transfer add up to what both hash, whatever is chosen.
#[test]
fn the_other_key_is_what_is_left() {
    let run = Run::new(Hybrid::Yes, 0);
    for number in [0, 1, 127] {
        let first: [u8; KEY_LEN] =
            run.message[POINT_LEN * COUNT + KEY_LEN * number..][..KEY_LEN].try_into().unwrap();
        let mut second = first;
        second[..VECTOR_LEN].copy_from_slice(&difference(&SID, number, &first));
        assert!(EncapsulationKey768::new(&second.into()).is_ok());
        assert_eq!(difference(&SID, number, &second), first[..VECTOR_LEN]);
        assert_ne!(difference(&SID, number + 1, &second), first[..VECTOR_LEN]);
    }
    // Of an invalid vector, too: it is refused elsewhere.
    let second = difference(&SID, 0, &[0xff; KEY_LEN]);
    let mut key = [0xff; KEY_LEN];
    key[..VECTOR_LEN].copy_from_slice(&second);
    assert!(EncapsulationKey768::new(&key.into()).is_ok());
}

/// What the answerer sees is the same whatever is chosen: equal lengths, every byte of a point's
/// middle and every coefficient as good as uniform.
#[test]
fn the_choices_do_not_show() {
    for choices in [0, u128::MAX, random_choices()] {
        let run = Run::new(Hybrid::Yes, choices);
        let (points, keys) = run.message.split_at(POINT_LEN * COUNT);
        let mut bytes = [0_u32; 256];
        for point in points.as_chunks::<POINT_LEN>().0 {
            for byte in &point[1..POINT_LEN - 1] {
                bytes[usize::from(*byte)] += 1;
            }
        }
        let mut coefficients = [0_u32; 256];
        for key in keys.as_chunks::<KEY_LEN>().0 {
            for [a, b, c] in key[..VECTOR_LEN].as_chunks::<3>().0 {
                let [a, b, c] = [a, b, c].map(|byte| u32::from(*byte));
                for coefficient in [a | (b & 15) << 8, b >> 4 | c << 4] {
                    coefficients[(coefficient * 256 / u32::from(PRIME)) as usize] += 1;
                }
            }
        }
        // Bins of 13 or 14 values of 3329.
        let of_bin = |bin: u32| {
            let prime = u32::from(PRIME);
            ((bin + 1) * prime).div_ceil(256) - (bin * prime).div_ceil(256)
        };
        let shares = (0..256).map(|bin| f64::from(of_bin(bin)) / f64::from(PRIME));
        let chi = |counts: [u32; 256], shares: &mut dyn Iterator<Item = f64>| -> f64 {
            let all: u32 = counts.iter().sum();
            let expected = shares.map(|share| share * f64::from(all));
            let each = counts.iter().zip(expected);
            each.map(|(count, expected)| (f64::from(*count) - expected).powi(2) / expected).sum()
        };
        // 255 degrees of freedom: a value above 400 has a probability of about 10^-8.
        let found = chi(bytes, &mut std::iter::repeat(1.0 / 256.0));
        assert!(found < 400.0, "points: {found}");
        let found = chi(coefficients, &mut { shares });
        assert!(found < 400.0, "coefficients: {found}");
    }
}
