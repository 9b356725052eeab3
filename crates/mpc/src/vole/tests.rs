use getrandom::SysRng;
use rand_core::UnwrapErr;

use super::*;
use crate::message::PLACE_BYTES;

fn session(outputs: usize, hybrid: Hybrid) -> Session {
    Session { sid: [7; 32], outputs, hybrid }
}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

struct Outcome {
    delta: Gf128,
    a: Vec<Gf128>,
    b: Vec<Gf128>,
    c: Vec<Gf128>,
}

impl Outcome {
    fn wrong(&self) -> usize {
        let mut wrong = 0;
        for ((a, b), c) in self.a.iter().zip(&self.b).zip(&self.c) {
            wrong += usize::from(*a * self.delta + *b != *c);
        }
        wrong
    }
}

fn run(session: Session) -> Outcome {
    let rng = &mut rng();
    let mut delta = [0; 16];
    rand_core::Rng::fill_bytes(rng, &mut delta);
    let delta = Gf128::from_le_bytes(delta);
    let (start, choice) = Sender::new(session, delta, rng).unwrap();
    let (mut receiver, answer) = Receiver::new(session, &choice, rng).unwrap();
    let mut sender = start.read(&answer).unwrap();
    let mut outcome = Outcome { delta, a: Vec::new(), b: Vec::new(), c: Vec::new() };
    assert_eq!(sender.remaining(), receiver.remaining());
    while let Some((message, b)) = sender.next(rng) {
        let part = receiver.read(&message).unwrap();
        outcome.a.extend(part.a);
        outcome.b.extend(b);
        outcome.c.extend(part.c);
    }
    assert_eq!((sender.remaining(), receiver.remaining()), (0, 0));
    assert_eq!(receiver.read(&[]).err(), Some(Error::Complete));
    outcome
}

/// How many of the values are independent over GF(2).
fn rank(values: &[Gf128]) -> usize {
    let mut basis = [0_u128; 128];
    for value in values {
        let mut value = value.0;
        while let Some(top) = value.checked_ilog2() {
            let known = &mut basis[top as usize];
            if *known == 0 {
                *known = value;
                break;
            }
            value ^= *known;
        }
    }
    basis.iter().filter(|value| **value != 0).count()
}

#[test]
fn every_output_is_correlated() {
    for outputs in [1, 2, 100, 1 << 10, 1 << 16, (1 << 18) + 3, 1 << 20] {
        let outcome = run(session(outputs, Hybrid::No));
        for vector in [&outcome.a, &outcome.b, &outcome.c] {
            assert_eq!(vector.len(), outputs);
            assert_eq!(rank(vector), outputs.min(128));
        }
        assert_eq!(outcome.wrong(), 0, "of {outputs}");
    }
}

#[test]
fn with_ml_kem_too() {
    let outcome = run(session(1000, Hybrid::Yes));
    assert_eq!((outcome.a.len(), outcome.wrong()), (1000, 0));
}

#[test]
fn setup_stays_small() {
    let layout = Layout::new(session(1 << 20, Hybrid::Yes)).unwrap();
    let bytes = Hybrid::Yes.choice_len() + layout.answer_len() + layout.codes * layout.trees_len();
    assert!(bytes <= 700_000, "{bytes}");
}

#[test]
fn sessions_of_impossible_length_are_refused() {
    for outputs in [0, MAX_OUTPUTS + 1] {
        let refused = Sender::new(session(outputs, Hybrid::No), Gf128::ONE, &mut rng());
        assert_eq!(refused.err(), Some(Error::Outputs(outputs)));
    }
}

#[test]
fn malformed_messages_are_refused() {
    let (session, other) =
        (session(100, Hybrid::Yes), Session { sid: [8; 32], ..session(100, Hybrid::Yes) });
    let rng = &mut rng();
    let (start, choice) = Sender::new(session, Gf128::X, rng).unwrap();
    let refused = |bytes: &[u8]| Receiver::new(session, bytes, &mut rng.clone()).err();
    let expected = choice.len();
    for got in [0, 15, expected - 1] {
        assert_eq!(
            refused(&choice[..got]),
            Some(Error::Message(MessageError::Length { found: got, expected }))
        );
    }
    let mut long = choice.clone();
    long.push(0);
    assert_eq!(
        refused(&long),
        Some(Error::Message(MessageError::Length { found: expected + 1, expected }))
    );
    let mut changed = choice.clone();
    changed[0] ^= 1;
    assert_eq!(refused(&changed), Some(Error::Message(MessageError::Place)));
    assert_eq!(Receiver::new(other, &choice, rng).err(), Some(Error::Message(MessageError::Place)));
    // An odd field element is negative, so not the encoding of a group element.
    let mut changed = choice.clone();
    changed[PLACE_BYTES + 32 * 5] |= 1;
    assert_eq!(Receiver::new(session, &changed, rng).err(), Some(Error::Point { number: 5 }));
    // 4095 is not below 3329.
    let mut changed = choice.clone();
    changed[PLACE_BYTES + 32 * 128 + 1184 * 9..][..2].fill(0xff);
    assert_eq!(Receiver::new(session, &changed, rng).err(), Some(Error::Key { number: 9 }));

    let (mut receiver, answer) = Receiver::new(session, &choice, rng).unwrap();
    let expected = answer.len();
    let mut sender = start.read(&answer).unwrap();
    let again = |bytes: &[u8]| {
        let (start, _choice) = Sender::new(session, Gf128::X, &mut rng.clone()).unwrap();
        start.read(bytes).err()
    };
    assert_eq!(
        again(&answer[1..]),
        Some(Error::Message(MessageError::Length { found: expected - 1, expected }))
    );
    let mut changed = answer.clone();
    changed[1] ^= 0x80;
    assert_eq!(again(&changed), Some(Error::Message(MessageError::Place)));
    let mut changed = answer.clone();
    changed[PLACE_BYTES] |= 1;
    assert_eq!(again(&changed), Some(Error::Point { number: 128 }));

    let (message, b) = sender.next(rng).unwrap();
    assert!(sender.next(rng).is_none());
    let expected = message.len();
    let short = receiver.read(&message[..expected - 16]).err();
    assert_eq!(
        short,
        Some(Error::Message(MessageError::Length { found: expected - 16, expected }))
    );
    // After a refused message the right one is still read.
    let part = receiver.read(&message).unwrap();
    let outcome = Outcome { delta: Gf128::X, a: part.a, b, c: part.c };
    assert_eq!(outcome.wrong(), 0);
}

#[test]
fn a_changed_tree_makes_the_correlation_wrong() {
    let session = session(100, Hybrid::No);
    let rng = &mut rng();
    let (start, choice) = Sender::new(session, Gf128::X, rng).unwrap();
    let (mut receiver, answer) = Receiver::new(session, &choice, rng).unwrap();
    let mut sender = start.read(&answer).unwrap();
    let (mut message, b) = sender.next(rng).unwrap();
    *message.last_mut().unwrap() ^= 1;
    let part = receiver.read(&message).unwrap();
    let outcome = Outcome { delta: Gf128::X, a: part.a, b, c: part.c };
    assert!(outcome.wrong() > 10);
}

/// AES-128 in counter mode under a number as key, lowest byte first; every draw takes whole blocks.
#[derive(Clone)]
struct Seeded(u128, u128);

impl rand_core::TryRng for Seeded {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(16) {
            let mut word = [self.1];
            self.1 += 1;
            prg::encrypt(&prg::aes(self.0), &mut word);
            chunk.copy_from_slice(&word[0].to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Seeded {}

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Vector {
    outputs: usize,
    hybrid: bool,
    choice: String,
    answer: String,
    trees: String,
    a: String,
    b: String,
    c: String,
}

#[test]
fn the_published_vectors() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../../vectors/vole/vole.json")).unwrap();
    for vector in vectors {
        let hybrid = if vector.hybrid { Hybrid::Yes } else { Hybrid::No };
        let session = session(vector.outputs, hybrid);
        let (mine, theirs) = (&mut Seeded(1, 0), &mut Seeded(2, 0));
        let delta = Gf128(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0);
        let (start, choice) = Sender::new(session, delta, mine).unwrap();
        let (mut receiver, answer) = Receiver::new(session, &choice, theirs).unwrap();
        let mut sender = start.read(&answer).unwrap();
        let (trees, b) = sender.next(mine).unwrap();
        let part = receiver.read(&trees).unwrap();
        let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        let found = Vector {
            outputs: vector.outputs,
            hybrid: vector.hybrid,
            choice: digest(&choice),
            answer: digest(&answer),
            trees: digest(&trees),
            a: digest(bytemuck::cast_slice(&part.a)),
            b: digest(bytemuck::cast_slice(&b)),
            c: digest(bytemuck::cast_slice(&part.c)),
        };
        assert_eq!(found, vector);
    }
}
