use std::collections::BTreeSet;

use getrandom::SysRng;
use proptest::prelude::*;
use rand_core::UnwrapErr;

use super::*;
use crate::message::PLACE_BYTES;
use crate::sets::{ideal, items};

const SID: [u8; 32] = [7; 32];

fn session(sizes: (usize, usize), learn: Learn, both_learn: bool) -> Session {
    Session { sid: SID, receiver_items: sizes.0, sender_items: sizes.1, learn, both_learn }
}

fn both_have(items: &[u128], learnt: &Learnt) -> Vec<u128> {
    let Learnt::Intersection(marks) = learnt else { panic!("a count") };
    let marked = (0..items.len()).filter(|at| marks.is_set(*at)).map(|at| items[at]);
    let marked: BTreeSet<_> = marked.collect();
    marked.into_iter().collect()
}

/// A run in which `change` may change each message on its way, by its name.
fn changed(
    session: Session,
    (receiver, sender): (&[u128], &[u128]),
    mut change: impl FnMut(&'static str, &mut Vec<u8>),
) -> Result<(Learnt, Option<Learnt>), Error> {
    let mut rng = UnwrapErr(SysRng);
    let mut on_its_way = |name, mut message: Vec<u8>| {
        change(name, &mut message);
        message
    };
    let mut r = Receiver::new(session, Zeroizing::new(receiver.to_vec()), &mut rng)?;
    let mut s = Sender::new(session, Zeroizing::new(sender.to_vec()), &mut rng)?;
    loop {
        let (blinded, points) = (r.blinded(), s.points());
        let none = blinded.is_none() && points.is_none();
        if let Some(blinded) = blinded {
            s.blinded(&on_its_way(BLINDED, blinded))?;
        }
        if let Some(points) = points {
            r.points(&on_its_way(POINTS, points))?;
        }
        while let Some(tags) = s.tags() {
            r.tags(&on_its_way(TAGS, tags))?;
        }
        if none {
            break;
        }
    }
    assert!(s.is_complete() && r.is_complete());
    let (learnt, told) = r.finish().ok().expect("it is complete");
    assert_eq!(told.is_some(), session.both_learn);
    let others = told.map(|told| s.matches(&on_its_way(MATCHES, told))).transpose()?;
    Ok((learnt, others))
}

fn run(session: Session, receiver: &[u128], sender: &[u128]) -> (Learnt, Option<Learnt>) {
    changed(session, (receiver, sender), |_, _| ()).unwrap()
}

#[test]
fn every_size_class() {
    for (common, receiver, sender) in
        [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (2, 7, 1), (3, 4100, 5), (9, 20, 8190)]
    {
        let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
        let ideal = ideal(&x, &y);
        for both in [false, true] {
            let sizes = (x.len(), y.len());
            let (learnt, others) = run(session(sizes, Learn::Intersection, both), &x, &y);
            assert_eq!(both_have(&x, &learnt), ideal);
            assert_eq!(others.map(|others| both_have(&y, &others)), both.then_some(ideal.clone()));
            let (learnt, others) = run(session(sizes, Learn::Count, both), &x, &y);
            assert_eq!(learnt, Learnt::Count(common as u64));
            assert_eq!(others, both.then_some(learnt));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn both_learn_what_a_third_party_would_tell(
        common in 0..30_usize, receiver in 0..200_usize, sender in 0..200_usize,
    ) {
        let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
        let sizes = (x.len(), y.len());
        let (learnt, others) = run(session(sizes, Learn::Intersection, true), &x, &y);
        prop_assert_eq!(both_have(&x, &learnt), ideal(&x, &y));
        prop_assert_eq!(both_have(&y, &others.unwrap()), ideal(&x, &y));
    }
}

const NAMES: [&str; 4] = [BLINDED, POINTS, TAGS, MATCHES];

fn small() -> (Vec<u128>, Vec<u128>) {
    (items(3, 50, 1), items(3, 60, 2))
}

#[test]
fn messages_of_another_length() {
    let (x, y) = small();
    for learn in [Learn::Intersection, Learn::Count] {
        for name in NAMES {
            for change in [
                |message: &mut Vec<u8>| message.push(0),
                |message: &mut Vec<u8>| message.truncate(message.len() - 1),
                |message: &mut Vec<u8>| message.clear(),
                |message: &mut Vec<u8>| message.truncate(PLACE_BYTES),
            ] {
                let session = session((x.len(), y.len()), learn, true);
                let refused = changed(session, (&x, &y), |at, message| {
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

#[test]
fn messages_of_another_session_and_replayed_flights() {
    let (x, y) = small();
    let here = session((x.len(), y.len()), Learn::Intersection, true);
    let mut recorded = Vec::new();
    let there = Session { sid: [8; 32], ..here };
    changed(there, (&x, &y), |name, message| recorded.push((name, message.clone()))).unwrap();
    for (name, instead) in &recorded {
        let refused = changed(here, (&x, &y), |at, message| {
            if at == *name {
                message.clone_from(instead);
            }
        });
        assert_eq!(refused.unwrap_err(), Error::Message(MessageError::Place), "{name}");
    }
}

/// Two messages of a kind in each other's place.
#[test]
fn messages_in_another_order() {
    let (x, y) = (items(3, 5000, 1), items(3, 5000, 2));
    let session = session((x.len(), y.len()), Learn::Intersection, false);
    for name in [BLINDED, POINTS, TAGS] {
        let mut first: Option<Vec<u8>> = None;
        let refused = changed(session, (&x, &y), |at, message| {
            if at != name {
                return;
            }
            match &first {
                None => first = Some(message.clone()),
                Some(first) => {
                    let length = message.len();
                    message.clone_from(first);
                    message.truncate(length);
                }
            }
        });
        assert_eq!(refused.unwrap_err(), Error::Message(MessageError::Place), "{name}");
    }
}

/// Points that make a product which does not depend on the secret, or have two encodings.
#[test]
fn points_that_must_be_refused() {
    let (x, y) = small();
    let session = session((x.len(), y.len()), Learn::Intersection, false);
    let mut one = [0; 32];
    one[0] = 1;
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    let mut above = prime;
    above[0] = 0xee;
    // Of order 8, and a second encoding of the base point.
    let eighth = hex::decode("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    let mut with_a_bit = curve::BASE;
    with_a_bit[31] |= 0x80;
    let eighth = eighth.unwrap().try_into().unwrap();
    for point in [[0; 32], one, eighth, prime, above, with_a_bit, [0xff; 32]] {
        for name in [BLINDED, POINTS] {
            let refused = changed(session, (&x, &y), |at, message| {
                if at == name {
                    message[PLACE_BYTES + 32 * 5..][..32].copy_from_slice(&point);
                }
            });
            let at = match refused.unwrap_err() {
                Error::NotCanonical { message: 0, source } => source.at,
                Error::SmallOrder { message: 0, source } => source.at,
                other => panic!("{name}: {other}"),
            };
            assert_eq!(at, 5, "{name}");
        }
    }
}

#[test]
fn tags_for_a_count_that_are_not_in_order() {
    let (x, y) = small();
    let session = session((x.len(), y.len()), Learn::Count, false);
    let length = TagLength::of(x.len(), y.len()).bytes();
    for (from, to) in [(0, 1), (5, 4), (52, 0)] {
        let refused = changed(session, (&x, &y), |name, message| {
            if name == TAGS {
                let tag = message[PLACE_BYTES + from * length..][..length].to_vec();
                message[PLACE_BYTES + to * length..][..length].copy_from_slice(&tag);
            }
        });
        assert!(matches!(refused.unwrap_err(), Error::Order(_)));
    }
}

#[test]
fn a_count_that_is_larger_than_a_set() {
    let (x, y) = small();
    let session = session((x.len(), y.len()), Learn::Count, true);
    let refused = changed(session, (&x, &y), |name, message| {
        if name == MATCHES {
            message[PLACE_BYTES] = 54;
        }
    });
    assert_eq!(refused.unwrap_err(), Error::Count { found: 54, most: 53 });
}

#[test]
fn another_number_of_items_than_agreed() {
    let (x, y) = small();
    let run = |sizes| {
        let session = session(sizes, Learn::Count, false);
        changed(session, (&x, &y), |_, _| ()).unwrap_err()
    };
    assert_eq!(run((54, 63)), Error::Items { found: 53, agreed: 54 });
    assert_eq!(run((53, 62)), Error::Items { found: 63, agreed: 62 });
    assert_eq!(run((53, MAXIMUM_ITEMS + 1)), Error::Size(MAXIMUM_ITEMS + 1));
}

/// The order in which items are sent says nothing: over many sessions, each item is at each place
/// about as often.
#[test]
fn every_order_is_as_likely() {
    let mut rng = UnwrapErr(SysRng);
    let mut counts = [[0_u32; 5]; 5];
    for _ in 0..5000 {
        let mut order = [0, 1, 2, 3, 4];
        shuffle(&mut order, &mut rng);
        for (place, item) in order.into_iter().enumerate() {
            counts[place][item as usize] += 1;
        }
    }
    // A thousand, and six standard deviations.
    for count in counts.into_iter().flatten() {
        assert!((830..1170).contains(&count), "{counts:?}");
    }
}

/// The same items in two sessions have no point in common, so that nobody can link them.
#[test]
fn two_sessions_cannot_be_linked() {
    let (x, y) = small();
    let here = session((x.len(), y.len()), Learn::Intersection, true);
    let mut seen = BTreeSet::new();
    for sid in [SID, SID, [8; 32]] {
        changed(Session { sid, ..here }, (&x, &y), |name, message| {
            if name == BLINDED || name == POINTS {
                for point in message[PLACE_BYTES..].chunks(32) {
                    assert!(seen.insert(point.to_vec()));
                }
            }
        })
        .unwrap();
    }
}
