use std::collections::BTreeSet;

use getrandom::SysRng;
use proptest::prelude::*;
use rand_core::UnwrapErr;

use super::*;
use crate::message::PLACE_BYTES;
use crate::sets::{ideal, items};

const SID: [u8; 32] = [7; 32];
const MODES: [Mode; 2] = [Mode::Oprf, Mode::Voprf];
const QUESTIONS: usize = 1 << 20;

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn prepared(key: &SecretKey, mode: Mode, items: &[u128]) -> Result<PreparedSet, Error> {
    let mut preparation = Preparation::new(key, mode, items.len(), QUESTIONS)?;
    for items in items.chunks(700) {
        preparation.add(items)?;
    }
    preparation.finish()
}

fn written(set: &PreparedSet) -> Vec<u8> {
    set.pieces().flatten().collect()
}

fn header(bytes: &[u8], most: usize) -> Result<Header, Error> {
    Header::from_bytes(bytes[..HEADER_BYTES].try_into().unwrap(), most)
}

/// Reads a set in pieces of this length.
fn read(bytes: &[u8], piece: usize) -> Result<PreparedSet, Error> {
    let mut reader = Reader::new(header(bytes, MAXIMUM_ITEMS)?);
    for piece in bytes[HEADER_BYTES..].chunks(piece) {
        reader.read(piece)?;
    }
    reader.finish()
}

/// A session in which `change` may change each message on its way, by its name.
fn changed(
    session: Session,
    (key, set, items): (&SecretKey, &PreparedSet, &[u128]),
    mut change: impl FnMut(&'static str, &mut Vec<u8>),
) -> Result<Bitmap, Error> {
    let mut on_its_way = |name, mut message: Vec<u8>| {
        change(name, &mut message);
        message
    };
    let mut client = Client::new(session, Zeroizing::new(items.to_vec()))?;
    let mut server = Server::new(session, key)?;
    assert_eq!(client.remaining(), server.remaining());
    while let Some(question) = client.ask(&mut rng()) {
        let answer = server.answer(&on_its_way(BLINDED, question), &mut rng())?;
        client.answer(&on_its_way(EVALUATED, answer))?;
    }
    assert_eq!((client.remaining(), server.remaining()), (0, 0));
    assert_eq!(client.answer(&[]), Err(Error::Complete));
    assert_eq!(server.answer(&[], &mut rng()), Err(Error::Complete));
    client.answered().ok().unwrap().compare(set)
}

fn run(mode: Mode, x: &[u128], y: &[u128]) -> Vec<u128> {
    let key = SecretKey::random(&mut rng());
    let set = prepared(&key, mode, y).unwrap();
    let session = Session { sid: SID, set: *set.header(), asked: x.len() };
    let set = read(&written(&set), 1000).unwrap();
    let marks = changed(session, (&key, &set, x), |_, _| ()).unwrap();
    let marked: BTreeSet<_> = (0..x.len()).filter(|at| marks.is_set(*at)).map(|at| x[at]).collect();
    marked.into_iter().collect()
}

#[test]
fn every_size_class() {
    for (common, own, theirs) in
        [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (2, 7, 1), (3, 4100, 5), (9, 20, 4990)]
    {
        let (x, y) = (items(common, own, 1), items(common, theirs, 2));
        for mode in MODES {
            assert_eq!(run(mode, &x, &y), ideal(&x, &y));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_client_learns_what_a_third_party_would_tell(
        common in 0..30_usize, own in 0..100_usize, theirs in 0..300_usize, verified in any::<bool>(),
    ) {
        let (x, y) = (items(common, own, 1), items(common, theirs, 2));
        prop_assert_eq!(run(MODES[usize::from(verified)], &x, &y), ideal(&x, &y));
    }

    #[test]
    fn a_set_is_read_as_it_was_written(items in proptest::collection::btree_set(any::<u128>(), 0..300),
        piece in 1..5000_usize,
    ) {
        let key = SecretKey::random(&mut rng());
        let items: Vec<_> = items.into_iter().collect();
        let set = prepared(&key, Mode::Voprf, &items).unwrap();
        let bytes = written(&set);
        prop_assert_eq!(bytes.len(), HEADER_BYTES + set.header().following());
        prop_assert!(read(&bytes, piece).unwrap() == set);
    }
}

struct Ready {
    key: SecretKey,
    set: PreparedSet,
    x: Vec<u128>,
    session: Session,
}

fn ready(mode: Mode) -> Ready {
    let key = SecretKey::random(&mut rng());
    let set = prepared(&key, mode, &items(3, 60, 2)).unwrap();
    let x = items(3, 50, 1);
    let session = Session { sid: SID, set: *set.header(), asked: x.len() };
    Ready { key, set, x, session }
}

impl Ready {
    fn changed(&self, change: impl FnMut(&'static str, &mut Vec<u8>)) -> Result<Bitmap, Error> {
        changed(self.session, (&self.key, &self.set, &self.x), change)
    }
}

#[test]
fn messages_of_another_length() {
    for mode in MODES {
        let ready = ready(mode);
        for name in [BLINDED, EVALUATED] {
            for change in [
                |message: &mut Vec<u8>| message.push(0),
                |message: &mut Vec<u8>| message.truncate(message.len() - 1),
                |message: &mut Vec<u8>| message.clear(),
                |message: &mut Vec<u8>| message.truncate(PLACE_BYTES),
            ] {
                let refused = ready.changed(|at, message| {
                    if at == name {
                        change(message);
                    }
                });
                let refused = refused.unwrap_err();
                let length = matches!(refused, Error::Message(MessageError::Length { .. }));
                assert!(length, "{name}: {refused}");
            }
        }
    }
}

/// Of a session with another identifier, about another set, or with other roles.
#[test]
fn messages_of_another_session_and_replayed_flights() {
    let here = ready(Mode::Voprf);
    let set = prepared(&here.key, Mode::Voprf, &items(3, 60, 3)).unwrap();
    let other_set = Session { set: *set.header(), ..here.session };
    for there in [Session { sid: [8; 32], ..here.session }, other_set] {
        let mut recorded = Vec::new();
        let set = if there == other_set { &set } else { &here.set };
        changed(there, (&here.key, set, &here.x), |name, message| {
            recorded.push((name, message.clone()));
        })
        .unwrap();
        for (name, instead) in &recorded {
            let refused = here.changed(|at, message| {
                if at == *name {
                    message.clone_from(instead);
                }
            });
            assert_eq!(refused, Err(Error::Message(MessageError::Place)), "{name}");
        }
    }
    let mut question = Vec::new();
    let oprf = ready(Mode::Oprf);
    let reflected = oprf.changed(|name, message| match name {
        BLINDED => question.clone_from(message),
        _ => message.clone_from(&question),
    });
    assert_eq!(reflected, Err(Error::Message(MessageError::Place)));
}

#[test]
fn messages_in_another_order() {
    let ready = ready(Mode::Voprf);
    let x = items(3, 2 * ITEMS_EACH - 3, 1);
    let session = Session { asked: x.len(), ..ready.session };
    for name in [BLINDED, EVALUATED] {
        let mut first: Option<Vec<u8>> = None;
        let refused = changed(session, (&ready.key, &ready.set, &x), |at, message| {
            if at == name {
                message.clone_from(first.get_or_insert_with(|| message.clone()));
            }
        });
        assert_eq!(refused, Err(Error::Message(MessageError::Place)), "{name}");
    }
}

/// A client with several questions on their way, and a refused answer between.
#[test]
fn questions_ahead_of_their_answers() {
    let ready = ready(Mode::Voprf);
    let x = items(3, 2 * ITEMS_EACH, 1);
    let session = Session { asked: x.len(), ..ready.session };
    let mut client = Client::new(session, Zeroizing::new(x)).unwrap();
    let mut server = Server::new(session, &ready.key).unwrap();
    assert_eq!(client.answer(&[]), Err(Error::Complete));
    let questions: Vec<_> = std::iter::from_fn(|| client.ask(&mut rng())).collect();
    assert_eq!(questions.len(), 3);
    let answers: Vec<_> =
        questions.iter().map(|question| server.answer(question, &mut rng()).unwrap()).collect();
    assert_eq!(client.answer(&answers[1]), Err(Error::Message(MessageError::Place)));
    client.answer(&answers[0]).unwrap();
    let mut client = *client.answered().err().expect("two answers are missing");
    client.answer(&answers[1]).unwrap();
    client.answer(&answers[2]).unwrap();
    let marks = client.answered().ok().unwrap().compare(&ready.set).unwrap();
    assert_eq!(marks.count_ones(), 3);
}

#[test]
fn elements_that_must_be_refused() {
    for mode in MODES {
        let ready = ready(mode);
        for (element, source) in [
            ([0; 32], oprf::Error::Identity { at: 5 }),
            ([0xff; 32], oprf::Error::Element { at: 5 }),
        ] {
            for name in [BLINDED, EVALUATED] {
                let refused = ready.changed(|at, message| {
                    if at == name {
                        message[PLACE_BYTES + 32 * 5..][..32].copy_from_slice(&element);
                    }
                });
                assert_eq!(refused, Err(Error::Content { message: 0, source }), "{name}");
            }
        }
    }
}

/// A provider that answers one question under another key, so that this item matches nothing.
#[test]
fn another_key_for_one_item() {
    let ready = ready(Mode::Voprf);
    let other = SecretKey::random(&mut rng());
    let refused = ready.changed(|name, message| {
        if name == EVALUATED {
            let element = &mut message[PLACE_BYTES..][..32];
            let wrong =
                other.blind_evaluate(Mode::Oprf, element.as_chunks().0, &mut rng()).unwrap();
            element.copy_from_slice(&wrong.elements[0]);
        }
    });
    let source = oprf::Error::Proof;
    assert_eq!(refused, Err(Error::Content { message: 0, source }));
    let refused = ready.changed(|name, message| {
        if name == EVALUATED {
            *message.last_mut().unwrap() = 0xff;
        }
    });
    let source = oprf::Error::ProofEncoding;
    assert_eq!(refused, Err(Error::Content { message: 0, source }));
}

/// A provider with another key than the one in the header.
#[test]
fn another_key_than_promised() {
    let ready = ready(Mode::Voprf);
    let other = SecretKey::random(&mut rng());
    assert_eq!(Server::new(ready.session, &other).err(), Some(Error::Key));
    // It answers nevertheless, with a proof about its own key.
    let promised = Header { public: *other.public(), ..ready.session.set };
    let mut client = Client::new(ready.session, Zeroizing::new(ready.x.clone())).unwrap();
    let mut server = Server::new(Session { set: promised, ..ready.session }, &other).unwrap();
    server.places = ready.session.places().unwrap();
    let question = client.ask(&mut rng()).unwrap();
    let answer = server.answer(&question, &mut rng()).unwrap();
    let source = oprf::Error::Proof;
    assert_eq!(client.answer(&answer), Err(Error::Content { message: 0, source }));
}

/// A set that was exchanged for another one, after the session was agreed.
#[test]
fn another_set_than_agreed() {
    let ready = ready(Mode::Voprf);
    let other = prepared(&ready.key, Mode::Voprf, &items(3, 60, 3)).unwrap();
    let refused = changed(ready.session, (&ready.key, &other, &ready.x), |_, _| ());
    assert_eq!(refused, Err(Error::Set));
}

#[test]
fn more_questions_than_the_tags_are_made_for() {
    let key = SecretKey::random(&mut rng());
    let mut preparation = Preparation::new(&key, Mode::Oprf, 1, 2).unwrap();
    preparation.add(&[1]).unwrap();
    let set = preparation.finish().unwrap();
    let session = |asked| Session { sid: SID, set: *set.header(), asked };
    let refused = Error::Size { items: 3, most: 2 };
    let three = Zeroizing::new(vec![1, 2, 3]);
    assert_eq!(Client::new(session(3), three.clone()).err(), Some(refused.clone()));
    assert_eq!(Server::new(session(3), &key).err(), Some(refused));
    let refused = Client::new(session(2), three).err();
    assert_eq!(refused, Some(Error::Items { found: 3, agreed: 2 }));
}

#[test]
fn preparations_that_must_be_refused() {
    let key = SecretKey::random(&mut rng());
    let twice = prepared(&key, Mode::Oprf, &[1, 2, 1]);
    assert_eq!(twice.err(), Some(Error::Duplicate));
    let mut preparation = Preparation::new(&key, Mode::Oprf, 2, 2).unwrap();
    preparation.add(&[1]).unwrap();
    assert_eq!(preparation.add(&[2, 3]), Err(Error::Items { found: 3, agreed: 2 }));
    assert_eq!(preparation.finish().err(), Some(Error::Items { found: 1, agreed: 2 }));
    for (items, questions) in [(MAXIMUM_ITEMS + 1, 1), (1, MAXIMUM_ITEMS + 1)] {
        let refused = Preparation::new(&key, Mode::Oprf, items, questions).err();
        let items = MAXIMUM_ITEMS as u64 + 1;
        assert_eq!(refused, Some(Error::Size { items, most: MAXIMUM_ITEMS as u64 }));
    }
}

#[test]
fn sets_that_must_be_refused() {
    let ready = ready(Mode::Voprf);
    let bytes = written(&ready.set);
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= byte;
        read(&bytes, 100).err()
    };
    // The name, the version, the suite, the mode.
    for at in 0..=BEGINNING.len() {
        assert_eq!(with(at, 2), Some(Error::Header), "{at}");
    }
    // More items than there can be, and more than the reader wants.
    let items = 63 + (1 << 56);
    let most = MAXIMUM_ITEMS as u64;
    assert_eq!(with(BEGINNING.len() + 8, 1), Some(Error::Size { items, most }));
    let items = u64::try_from(QUESTIONS).unwrap() + (1 << 56);
    assert_eq!(with(BEGINNING.len() + 16, 1), Some(Error::Size { items, most }));
    assert_eq!(header(&bytes, 62), Err(Error::Size { items: 63, most: 62 }));
    // The key, and the hash.
    let refused = Error::PublicKey(oprf::Error::Element { at: 0 });
    assert_eq!(with(BEGINNING.len() + 17 + 31, 0x80), Some(refused));
    assert_eq!(with(HEADER_BYTES - 1, 1), Some(Error::Hash));
    // The tags: cut off, too many, in another order, or others.
    let expected = ready.set.header().following();
    let refused = Some(Error::Length { found: expected - 1, expected });
    assert_eq!(read(&bytes[..bytes.len() - 1], 100).err(), refused);
    let refused = Some(Error::Length { found: expected + 1, expected });
    assert_eq!(read(&[&*bytes, &[0]].concat(), 100).err(), refused);
    let length = ready.set.header().length().bytes();
    let mut swapped = bytes.clone();
    let (first, second) = swapped[HEADER_BYTES + 5 * length..].split_at_mut(length);
    first.swap_with_slice(&mut second[..length]);
    for piece in [1, length, 1000] {
        assert_eq!(read(&swapped, piece).err(), Some(Error::Order(6)));
    }
    let mut equal = bytes.clone();
    equal.copy_within(HEADER_BYTES..HEADER_BYTES + length, HEADER_BYTES + length);
    assert_eq!(read(&equal, 7).err(), Some(Error::Order(1)));
    assert_eq!(with(bytes.len() - 1, 1), Some(Error::Hash));
}

/// The order of a set is that of its tags, whatever order its items came in.
#[test]
fn the_order_of_a_set_says_nothing() {
    let key = SecretKey::random(&mut rng());
    let mut items = items(0, 300, 1);
    let set = prepared(&key, Mode::Oprf, &items).unwrap();
    items.reverse();
    assert!(set == prepared(&key, Mode::Oprf, &items).unwrap());
}

/// What the provider sees has the same length whatever the client has, and as many bits that are
/// set; the same items are other elements in each session.
#[test]
fn questions_look_alike() {
    let ready = ready(Mode::Voprf);
    let mut lengths = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let common = items(3, 60, 2)[..53].to_vec();
    for x in [&ready.x, &ready.x, &common] {
        let mut ones = 0;
        let mut bits = 0;
        for _ in 0..20 {
            changed(ready.session, (&ready.key, &ready.set, x), |name, message| {
                lengths.insert((name, message.len()));
                if name == BLINDED {
                    for element in message[PLACE_BYTES..].chunks(32) {
                        assert!(seen.insert(element.to_vec()));
                        // An encoding is even and below 2^255.
                        let inner = &element[1..31];
                        ones += inner.iter().map(|byte| byte.count_ones()).sum::<u32>();
                        bits += 8 * 30;
                    }
                }
            })
            .unwrap();
        }
        // Six standard deviations, of half the root of the number of bits.
        let deviation = f64::from(ones) - f64::from(bits) / 2.0;
        assert!(deviation.abs() < 3.0 * f64::from(bits).sqrt(), "{ones} of {bits}");
    }
    assert_eq!(lengths.len(), 2);
}

/// The linking that the documentation warns of: one key, one tag for an item.
#[test]
fn two_sets_of_a_key_can_be_linked_and_of_two_keys_cannot() {
    let [key, other] = [SecretKey::random(&mut rng()), SecretKey::random(&mut rng())];
    let tags = |key, items: &[u128]| -> BTreeSet<Vec<u8>> {
        let set = prepared(key, Mode::Oprf, items).unwrap();
        set.tags.chunks(set.header.length().bytes()).map(<[u8]>::to_vec).collect()
    };
    let (old, new) = (items(40, 10, 1), items(40, 10, 2));
    assert_eq!(tags(&key, &old).intersection(&tags(&key, &new)).count(), 40);
    assert_eq!(tags(&key, &old).intersection(&tags(&other, &new)).count(), 0);
}

#[derive(serde::Deserialize)]
struct Vector {
    secret: String,
    mode: u8,
    questions: usize,
    items: Vec<String>,
    set: String,
}

#[test]
fn the_published_prepared_sets() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../../vectors/oprf/prepared.json")).unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let secret = hex::decode(&vector.secret).unwrap().try_into().unwrap();
        let key = SecretKey::from_bytes(&secret).unwrap();
        let mode = MODES[usize::from(vector.mode)];
        let items: Vec<_> = vector
            .items
            .iter()
            .map(|item| u128::from_le_bytes(hex::decode(item).unwrap().try_into().unwrap()))
            .collect();
        let mut preparation = Preparation::new(&key, mode, items.len(), vector.questions).unwrap();
        preparation.add(&items).unwrap();
        let set = preparation.finish().unwrap();
        assert_eq!(hex::encode(written(&set)), vector.set);
    }
}
