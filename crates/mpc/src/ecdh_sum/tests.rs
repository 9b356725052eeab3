use std::collections::{BTreeMap, BTreeSet};

use getrandom::SysRng;
use proptest::prelude::*;
use rand_core::UnwrapErr;

use super::*;
use crate::message::PLACE_BYTES;
use crate::sets::{ideal, items};

const SID: [u8; 32] = [7; 32];
const PARTIES: [Party; 2] = [Party::Receiver, Party::Sender];

const BLINDED: &str = "blinded";
const POINTS: &str = "points";
const TAGS: &str = "tags";
const CHOICE: &str = "choice";
const ANSWER: &str = "answer";
const CHOICES: &str = "choices";
const VALUES: &str = "values";

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn session(sizes: (usize, usize), columns: usize, learns: Party) -> Session {
    Session {
        sid: SID,
        receiver_items: sizes.0,
        sender_items: sizes.1,
        columns,
        minimum: 0,
        learns,
        hybrid: Hybrid::No,
    }
}

/// Values of the items, which follow from them.
fn values(items: &[u128], columns: usize) -> Vec<u64> {
    let of = |item: u128| (0..columns).map(move |column| item >> (70 + column));
    items.iter().flat_map(|item| of(*item)).map(|value| value.try_into().unwrap()).collect()
}

/// What a third party would tell.
fn ideal_sums(x: &[u128], y: &[u128], values: &[u64], columns: usize) -> (u64, Vec<u128>) {
    let both: BTreeSet<_> = ideal(x, y).into_iter().collect();
    let mut sums = vec![0; columns];
    for (item, values) in y.iter().zip(values.chunks(columns)) {
        if both.contains(item) {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += u128::from(*value);
            }
        }
    }
    (both.len() as u64, sums)
}

/// What both learn, the receiver first; the count alone if it is below the minimum.
#[derive(Debug, PartialEq)]
enum Outcome {
    Withheld(u64),
    Learnt(Learnt, Learnt),
}

/// A run in which `change` may change each message on its way, by its name.
fn changed(
    session: Session,
    (x, y, values): (&[u128], &[u128], &[u64]),
    mut change: impl FnMut(&'static str, &mut Vec<u8>),
) -> Result<Outcome, Error> {
    let rng = &mut rng();
    let mut sent = |name, mut message: Vec<u8>| {
        change(name, &mut message);
        message
    };
    let mut r = Receiver::new(session, Zeroizing::new(x.to_vec()), rng)?;
    let (y, values) = (Zeroizing::new(y.to_vec()), Zeroizing::new(values.to_vec()));
    let mut s = Sender::new(session, y, values, rng)?;
    loop {
        let (blinded, points) = (r.blinded(), s.points());
        let none = blinded.is_none() && points.is_none();
        if let Some(blinded) = blinded {
            s.blinded(&sent(BLINDED, blinded))?;
        }
        if let Some(points) = points {
            r.points(&sent(POINTS, points))?;
        }
        while let Some(tags) = s.tags() {
            r.tags(&sent(TAGS, tags))?;
        }
        if none {
            break;
        }
    }
    assert!(r.is_complete() && s.is_complete());
    let (s, choice) = s.choice(rng).ok().unwrap();
    let (compared, count) = r.compare().ok().unwrap();
    let counted = s.count(&sent(COUNT, count))?;
    let (r, s) = match (compared, counted) {
        (Compared::Withheld(count), Counted::Withheld) => return Ok(Outcome::Withheld(count)),
        (Compared::Enough(r), Counted::Enough(s)) => (r, s),
        _ => panic!("the parties do not agree on what is withheld"),
    };
    let (mut r, answer) = r.choice(&sent(CHOICE, choice), rng)?;
    let mut s = s.answer(&sent(ANSWER, answer))?;
    while let Some(choices) = r.choices() {
        let values = s.choices(&sent(CHOICES, choices))?;
        r.values(&sent(VALUES, values))?;
    }
    assert_eq!((r.remaining(), s.remaining()), (0, 0));
    match (r.finish().ok().unwrap(), s.finish().ok().unwrap()) {
        (End::Waits(r), End::Tells(s, total)) => {
            Ok(Outcome::Learnt(r.total(&sent(TOTAL, total))?, s))
        }
        (End::Tells(r, total), End::Waits(s)) => {
            Ok(Outcome::Learnt(r, s.total(&sent(TOTAL, total))?))
        }
        _ => panic!("one tells and one waits"),
    }
}

/// A run, and whether it gives what it should.
fn is_right(session: Session, x: &[u128], y: &[u128], values: &[u64]) -> bool {
    let (count, sums) = ideal_sums(x, y, values, session.columns);
    let found = changed(session, (x, y, values), |_, _| ());
    if count < session.minimum {
        return found == Ok(Outcome::Withheld(count));
    }
    if let Some(column) = sums.iter().position(|sum| *sum > u128::from(u64::MAX)) {
        return found == Err(Error::Overflow { column });
    }
    let sums = sums.into_iter().map(|sum| u64::try_from(sum).unwrap()).collect();
    let (named, other) = (Learnt { count, sums: Some(sums) }, Learnt { count, sums: None });
    found
        == Ok(match session.learns {
            Party::Receiver => Outcome::Learnt(named, other),
            Party::Sender => Outcome::Learnt(other, named),
        })
}

#[test]
fn every_size_class() {
    for (common, receiver, sender) in
        [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (2, 7, 1), (3, 4100, 5), (9, 20, 17_000)]
    {
        let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
        for learns in PARTIES {
            let session = session((x.len(), y.len()), 1, learns);
            assert!(is_right(session, &x, &y, &values(&y, 1)), "{common} {receiver} {sender}");
        }
    }
}

#[test]
fn with_ml_kem_and_all_columns() {
    let (x, y) = (items(30, 20, 1), items(30, 250, 2));
    for learns in PARTIES {
        let session = session((50, 280), MAXIMUM_COLUMNS, learns);
        let session = Session { hybrid: Hybrid::Yes, ..session };
        assert!(is_right(session, &x, &y, &values(&y, MAXIMUM_COLUMNS)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_parties_learn_what_a_third_party_would_tell(
        common in 0..30_usize, receiver in 0..200_usize, sender in 0..200_usize,
        columns in 1..=MAXIMUM_COLUMNS, minimum in 0..30_u64, sent in any::<bool>(), shift in 0..64,
    ) {
        let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
        let session = session((x.len(), y.len()), columns, PARTIES[usize::from(sent)]);
        let values: Vec<_> = values(&y, columns).iter().map(|value| value << shift).collect();
        let session = Session { minimum, ..session };
        prop_assert!(is_right(session, &x, &y, &values));
    }
}

/// The largest sum that fits, and one more.
#[test]
fn sums_that_do_not_fit() {
    let (x, y) = (items(3, 4, 1), items(3, 4, 2));
    let both: BTreeSet<_> = ideal(&x, &y).into_iter().collect();
    for (last, fits) in [(0, true), (1, false), (u64::MAX, false)] {
        let mut of_common = [u64::MAX, 0, last].into_iter();
        // The second column overflows, the first does not.
        let values: Vec<u64> = y
            .iter()
            .flat_map(|item| {
                let value = if both.contains(item) { of_common.next().unwrap() } else { u64::MAX };
                [5, value]
            })
            .collect();
        for learns in PARTIES {
            let session = session((7, 7), 2, learns);
            let found = changed(session, (&x, &y, &values), |_, _| ());
            assert_eq!(found.is_ok(), fits);
            if let Err(error) = found {
                assert_eq!(error, Error::Overflow { column: 1 });
            }
        }
    }
}

/// Below the minimum the sender is told that alone, in a message of the same length, and neither
/// has a way to go on.
#[test]
fn counts_below_the_minimum() {
    let (x, y) = (items(3, 50, 1), items(3, 60, 2));
    let values = values(&y, 1);
    for learns in PARTIES {
        let session = session((53, 63), 1, learns);
        let mut told = Vec::new();
        for minimum in [3, 4, 53, 64] {
            let mut last = Vec::new();
            let session = Session { minimum, ..session };
            let found = changed(session, (&x, &y, &values), |name, message| {
                assert!(minimum == 3 || ![ANSWER, CHOICES, VALUES, TOTAL].contains(&name));
                if name == COUNT {
                    last.clone_from(message);
                }
            });
            assert_eq!(found == Ok(Outcome::Withheld(3)), minimum > 3);
            told.push(last);
        }
        assert!(told.iter().all(|message| message.len() == told[0].len()));
        assert!(told[1..].iter().all(|message| message[PLACE_BYTES..] == [0xff; 8]));
    }
}

const NAMES: [&str; 9] = [BLINDED, POINTS, TAGS, COUNT, CHOICE, ANSWER, CHOICES, VALUES, TOTAL];

fn small() -> (Vec<u128>, Vec<u128>, Vec<u64>) {
    let y = items(3, 60, 2);
    let values = values(&y, 2).iter().map(|value| value >> 8).collect();
    (items(3, 50, 1), y, values)
}

fn refused_as(error: &Error) -> Option<MessageError> {
    match error {
        Error::Message(error)
        | Error::Intersection(ecdh::Error::Message(error))
        | Error::Transfers(vole::Error::Message(error)) => Some(*error),
        _ => None,
    }
}

#[test]
fn messages_of_another_length() {
    let (x, y, values) = small();
    for learns in PARTIES {
        for name in NAMES {
            for change in [
                |message: &mut Vec<u8>| message.push(0),
                |message: &mut Vec<u8>| message.truncate(message.len() - 1),
                |message: &mut Vec<u8>| message.clear(),
                |message: &mut Vec<u8>| message.truncate(PLACE_BYTES),
            ] {
                let session = session((x.len(), y.len()), 2, learns);
                let refused = changed(session, (&x, &y, &values), |at, message| {
                    if at == name {
                        change(message);
                    }
                });
                let refused = refused.unwrap_err();
                let length = matches!(refused_as(&refused), Some(MessageError::Length { .. }));
                assert!(length, "{name}: {refused}");
            }
        }
    }
}

/// Of another session, of one with another minimum, and of one in which another party learns.
#[test]
fn messages_of_another_session_and_replayed_flights() {
    let (x, y, values) = small();
    let here = session((x.len(), y.len()), 2, Party::Receiver);
    for there in [
        Session { sid: [8; 32], ..here },
        Session { minimum: 1, ..here },
        Session { learns: Party::Sender, ..here },
    ] {
        let mut recorded = Vec::new();
        changed(there, (&x, &y, &values), |name, message| {
            recorded.push((name, message.clone()));
        })
        .unwrap();
        for (name, instead) in &recorded {
            let refused = changed(here, (&x, &y, &values), |at, message| {
                if at == *name {
                    message.clone_from(instead);
                }
            });
            assert_eq!(refused_as(&refused.unwrap_err()), Some(MessageError::Place), "{name}");
        }
    }
}

/// A message of each kind in the place of each other kind.
#[test]
fn messages_in_another_place() {
    let (x, y, values) = small();
    let session = session((x.len(), y.len()), 2, Party::Receiver);
    let mut seen = BTreeMap::new();
    changed(session, (&x, &y, &values), |name, message| {
        seen.insert(name, message.clone());
    })
    .unwrap();
    for name in NAMES {
        for (instead, message) in &seen {
            if *instead != name {
                let refused = changed(session, (&x, &y, &values), |at, found| {
                    if at == name {
                        let length = found.len();
                        found.clone_from(message);
                        found.resize(length, 0);
                    }
                });
                let refused = refused.unwrap_err();
                assert_eq!(refused_as(&refused), Some(MessageError::Place), "{name}: {instead}");
            }
        }
    }
}

/// Two messages of a kind in each other's place.
#[test]
fn messages_in_another_order() {
    let (x, y) = (items(3, 5000, 1), items(3, 40_000, 2));
    let values = values(&y, 1);
    let session = session((x.len(), y.len()), 1, Party::Receiver);
    for name in [CHOICES, VALUES] {
        let mut first: Option<Vec<u8>> = None;
        let refused = changed(session, (&x, &y, &values), |at, message| {
            if at == name {
                message.clone_from(first.get_or_insert_with(|| message.clone()));
            }
        });
        assert_eq!(refused_as(&refused.unwrap_err()), Some(MessageError::Place), "{name}");
    }
}

#[test]
fn counts_that_are_not_possible() {
    let (x, y, values) = small();
    let session = session((x.len(), y.len()), 2, Party::Sender);
    let told = |minimum, count: u64| {
        let session = Session { minimum, ..session };
        let run = changed(session, (&x, &y, &values), |name, message| {
            if name == COUNT {
                message[PLACE_BYTES..].copy_from_slice(&count.to_le_bytes());
            }
        });
        run.unwrap_err()
    };
    assert_eq!(told(0, 54), Error::Count { found: 54, most: 53 });
    assert_eq!(told(0, WITHHELD - 1), Error::Count { found: WITHHELD - 1, most: 53 });
    // A receiver that goes on below the minimum.
    assert_eq!(told(3, 2), Error::Minimum { found: 2, minimum: 3 });
}

/// A total that makes a sum which so many values cannot have.
#[test]
fn totals_that_are_not_possible() {
    let (x, y, values) = small();
    for learns in PARTIES {
        let session = session((x.len(), y.len()), 2, learns);
        let refused = changed(session, (&x, &y, &values), |name, message| {
            if name == TOTAL {
                // 2^88 more or less, in the second column.
                let last = message.last_mut().unwrap();
                *last = last.wrapping_add(1);
            }
        });
        assert_eq!(refused, Err(Error::Total { column: 1 }));
    }
}

#[test]
fn elements_of_base_transfers_that_are_none() {
    let (x, y, values) = small();
    let session = session((x.len(), y.len()), 2, Party::Receiver);
    for (name, number) in [(CHOICE, 0), (ANSWER, 128)] {
        let refused = changed(session, (&x, &y, &values), |at, message| {
            if at == name {
                message[PLACE_BYTES..][..32].fill(0xff);
            }
        });
        assert_eq!(refused, Err(Error::Transfers(vole::Error::Point { number })));
    }
}

/// Points of small order, whose products do not depend on the secret.
#[test]
fn points_that_must_be_refused() {
    let (x, y, values) = small();
    let session = session((x.len(), y.len()), 2, Party::Receiver);
    for name in [BLINDED, POINTS] {
        let refused = changed(session, (&x, &y, &values), |at, message| {
            if at == name {
                message[PLACE_BYTES..][..32].fill(0);
            }
        });
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Intersection(ecdh::Error::SmallOrder { .. })));
    }
}

#[test]
fn sessions_that_must_be_refused() {
    let (x, y, values) = small();
    let run = |sizes, columns| {
        let session = session(sizes, columns, Party::Sender);
        changed(session, (&x, &y, &values), |_, _| ()).unwrap_err()
    };
    for columns in [0, MAXIMUM_COLUMNS + 1] {
        assert_eq!(run((53, 63), columns), Error::Columns(columns));
    }
    assert_eq!(run((53, 63), 3), Error::Values { found: 126, expected: 189 });
    let refused = ecdh::Error::Items { found: 53, agreed: 54 };
    assert_eq!(run((54, 63), 2), Error::Intersection(refused));
    let refused = ecdh::Error::Items { found: 63, agreed: 62 };
    assert_eq!(run((53, 62), 2), Error::Intersection(refused));
}

/// Steps that are taken too early give the party back as it was.
#[test]
fn steps_out_of_turn() {
    let (x, y, values) = small();
    let rng = &mut rng();
    let session = session((x.len(), y.len()), 2, Party::Sender);
    let r = Receiver::new(session, Zeroizing::new(x), rng).unwrap();
    let mut r = *r.compare().err().expect("nothing has come");
    let s = Sender::new(session, Zeroizing::new(y), Zeroizing::new(values), rng).unwrap();
    let mut s = *s.choice(rng).err().expect("nothing has come");
    assert!(s.tags().is_none());
    let (blinded, points) = (r.blinded().unwrap(), s.points().unwrap());
    s.blinded(&blinded).unwrap();
    r.points(&points).unwrap();
    r.tags(&s.tags().unwrap()).unwrap();
    let again = Error::Intersection(ecdh::Error::Complete);
    assert_eq!(s.blinded(&blinded), Err(again.clone()));
    assert_eq!(r.points(&points), Err(again));
    let (s, choice) = s.choice(rng).ok().unwrap();
    let (Compared::Enough(r), count) = r.compare().ok().unwrap() else { panic!("withheld") };
    assert_eq!(r.count(), 3);
    let (r, answer) = r.choice(&choice, rng).unwrap();
    let mut r = *r.finish().err().expect("no values have come");
    let Counted::Enough(s) = s.count(&count).unwrap() else { panic!("withheld") };
    let mut s = *s.answer(&answer).unwrap().finish().err().expect("no choices have come");
    assert_eq!(r.values(&[]), Err(Error::Transfers(vole::Error::Complete)));
    let choices = r.choices().unwrap();
    let values = s.choices(&choices).unwrap();
    assert_eq!(s.choices(&choices), Err(Error::Transfers(vole::Error::Complete)));
    r.values(&values).unwrap();
    assert_eq!(r.values(&values), Err(Error::Transfers(vole::Error::Complete)));
    assert!(r.choices().is_none());
    assert!(matches!(r.finish(), Ok(End::Tells(Learnt { count: 3, sums: None }, _))));
}

/// What each party sees, for sets of the sender's and the receiver's that differ outside the
/// intersection: the same lengths; places of matches, masked values and totals as good as random.
#[test]
fn views_do_not_depend_on_what_is_not_in_common() {
    const RUNS: u32 = 300;
    let mut lengths = BTreeSet::new();
    for (whose, shift) in [(2, 0), (3, 63)] {
        let (x, y) = (items(4, 10, whose + 10), items(4, 12, whose));
        let values: Vec<_> = values(&y, 1).iter().map(|value| value >> 3 >> shift).collect();
        let session = session((14, 16), 1, Party::Sender);
        let mut places = [0_u32; 16];
        let mut ones: BTreeMap<_, (u32, u32)> = BTreeMap::new();
        for _ in 0..RUNS {
            let rng = &mut rng();
            let mut r = Receiver::new(session, Zeroizing::new(x.clone()), rng).unwrap();
            let (y, values) = (Zeroizing::new(y.clone()), Zeroizing::new(values.clone()));
            let mut s = Sender::new(session, y, values, rng).unwrap();
            let mut seen = |name, message: &[u8]| {
                lengths.insert((name, message.len()));
                let of_name = ones.entry(name).or_default();
                let content = &message[PLACE_BYTES..];
                of_name.0 += content.iter().map(|byte| byte.count_ones()).sum::<u32>();
                of_name.1 += 8 * u32::try_from(content.len()).unwrap();
            };
            s.blinded(&r.blinded().unwrap()).unwrap();
            r.points(&s.points().unwrap()).unwrap();
            r.tags(&s.tags().unwrap()).unwrap();
            let (s, choice) = s.choice(rng).ok().unwrap();
            let (Compared::Enough(r), count) = r.compare().ok().unwrap() else { panic!() };
            for (place, matched) in places.iter_mut().enumerate() {
                *matched += u32::from(r.matches.is_set(place));
            }
            let Counted::Enough(s) = s.count(&count).unwrap() else { panic!() };
            let (mut r, answer) = r.choice(&choice, rng).unwrap();
            let mut s = s.answer(&answer).unwrap();
            let choices = r.choices().unwrap();
            seen(CHOICES, &choices);
            let values = s.choices(&choices).unwrap();
            seen(VALUES, &values);
            r.values(&values).unwrap();
            let End::Tells(_, total) = r.finish().ok().unwrap() else { panic!() };
            seen(TOTAL, &total);
        }
        // A quarter of the runs, and six standard deviations.
        for matched in places {
            assert!((30..=120).contains(&matched), "{places:?}");
        }
        for (name, (ones, bits)) in ones {
            let deviation = f64::from(ones) - f64::from(bits) / 2.0;
            assert!(deviation.abs() < 3.0 * f64::from(bits).sqrt(), "{name}: {ones} of {bits}");
        }
    }
    assert_eq!(lengths.len(), 3);
}
