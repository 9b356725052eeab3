use getrandom::SysRng;
use proptest::prelude::*;
use rand_core::UnwrapErr;

use super::*;
use crate::seeded::Seeded;
use crate::sets::{ideal, items};

const SID: [u8; 32] = [7; 32];

fn session(receiver: usize, sender: usize, both_learn: bool) -> Session {
    Session {
        sid: SID,
        receiver_items: receiver,
        sender_items: sender,
        hybrid: Hybrid::No,
        both_learn,
    }
}

/// What either side learns: which of its items both have.
type Learned = (Vec<u128>, Option<Vec<u128>>);

fn marked(items: &[u128], marks: &Bitmap) -> Vec<u128> {
    assert_eq!(items.len(), marks.len());
    let mut marked: Vec<_> =
        (0..items.len()).filter(|at| marks.is_set(*at)).map(|at| items[at]).collect();
    marked.sort_unstable();
    marked
}

/// A run between two parties that follow the protocol.
fn run(session: Session, receiver: &[u128], sender: &[u128]) -> Result<Learned, Error> {
    let mut rng = UnwrapErr(SysRng);
    let owned = |items: &[u128]| Zeroizing::new(items.to_vec());
    let r = ReceiverStart::new(session, owned(receiver))?;
    let (s, choice) = SenderStart::new(session, owned(sender), &mut rng)?;
    let (mut r, answer) = r.choice(&choice, &mut rng)?;
    let mut s = s.answer(&answer)?;
    while let Some(trees) = s.trees(&mut rng) {
        s.masked(&r.trees(&trees)?)?;
    }
    let mut s = s.unmasked().ok().expect("all has come");
    let mut r = r.masked().ok().expect("all trees are read");
    while let Some(tags) = s.tags() {
        r.tags(&tags)?;
    }
    let waits = s.sent();
    let (marks, told) = r.finish().ok().expect("all tags are read");
    assert_eq!(told.is_some(), session.both_learn);
    let learned = waits.map(|s| s.matches(&told.expect("it is told"))).transpose()?;
    Ok((marked(receiver, &marks), learned.map(|marks| marked(sender, &marks))))
}

#[test]
fn every_size_class() {
    for (common, receiver, sender) in [
        (0, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (1, 0, 0),
        (0, 1, 1),
        (1, 1, 2),
        (2, 100, 3),
        (3, 0, 5000),
        (500, 6289, 7390),
        (1000, 9000, 60_000),
    ] {
        for both in [false, true] {
            let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
            let learned = run(session(x.len(), y.len(), both), &x, &y).unwrap();
            let ideal = ideal(&x, &y);
            assert_eq!(ideal.len(), common);
            assert_eq!(learned.0, ideal, "{common} {receiver} {sender}");
            assert_eq!(learned.1, both.then_some(ideal));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn both_learn_what_a_third_party_would_tell(
        common in 0..40_usize, receiver in 0..2000_usize, sender in 0..2000_usize,
    ) {
        let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
        let ideal = ideal(&x, &y);
        let learned = run(session(x.len(), y.len(), true), &x, &y).unwrap();
        prop_assert_eq!(learned, (ideal.clone(), Some(ideal)));
    }
}

#[test]
fn with_ml_kem() {
    let (x, y) = (items(5, 20, 1), items(5, 30, 2));
    let session = Session { hybrid: Hybrid::Yes, ..session(x.len(), y.len(), false) };
    assert_eq!(run(session, &x, &y).unwrap().0, ideal(&x, &y));
}

#[test]
fn another_number_of_items_than_agreed() {
    let x = items(0, 3, 1);
    let error = run(session(4, 3, false), &x, &x).unwrap_err();
    assert_eq!(error, Error::Items { found: 3, agreed: 4 });
    let error = run(session(3, 2, false), &x, &x).unwrap_err();
    assert_eq!(error, Error::Items { found: 3, agreed: 2 });
    let error = run(session(MAXIMUM_ITEMS + 1, 3, false), &x, &x).unwrap_err();
    assert_eq!(error, Error::Size(MAXIMUM_ITEMS + 1));
}

#[test]
fn an_item_twice() {
    let x = [5, 6, 5];
    let error = run(session(3, 1, false), &x, &[5]).unwrap_err();
    assert!(matches!(error, Error::Encode(EncodeError::Duplicate { .. })), "{error}");
}

/// All messages of a run with its parties at each step, so that a test can change one.
struct Messages {
    choice: Vec<u8>,
    answer: Vec<u8>,
    trees: Vec<u8>,
    masked: Vec<u8>,
    tags: Vec<u8>,
    matches: Vec<u8>,
}

/// Runs between honest parties up to the end; `change` may change each message on its way, by its
/// name. Returns where the first refusal came from.
fn changed(sid: [u8; 32], change: impl Fn(&str, &mut Vec<u8>)) -> Result<Messages, Error> {
    let mut rng = UnwrapErr(SysRng);
    let (x, y) = (items(3, 50, 1), items(3, 60, 2));
    let session = Session { sid, ..session(x.len(), y.len(), true) };
    let on_its_way = |name: &str, mut message: Vec<u8>| {
        change(name, &mut message);
        message
    };
    let r = ReceiverStart::new(session, Zeroizing::new(x))?;
    let (s, choice) = SenderStart::new(session, Zeroizing::new(y), &mut rng)?;
    let choice = on_its_way("choice", choice);
    let (mut r, answer) = r.choice(&choice, &mut rng)?;
    let answer = on_its_way("answer", answer);
    let mut s = s.answer(&answer)?;
    let trees = on_its_way("trees", s.trees(&mut rng).unwrap());
    let masked = on_its_way("masked", r.trees(&trees)?);
    s.masked(&masked)?;
    let (mut r, mut s) = (r.masked().ok().unwrap(), s.unmasked().ok().unwrap());
    let tags = on_its_way("tags", s.tags().unwrap());
    r.tags(&tags)?;
    let (_, matches) = r.finish().ok().unwrap();
    let matches = on_its_way("matches", matches.unwrap());
    s.sent().unwrap().matches(&matches)?;
    Ok(Messages { choice, answer, trees, masked, tags, matches })
}

const NAMES: [&str; 6] = ["choice", "answer", "trees", "masked", "tags", "matches"];

impl Messages {
    fn named(&self, name: &str) -> &Vec<u8> {
        let all =
            [&self.choice, &self.answer, &self.trees, &self.masked, &self.tags, &self.matches];
        all[NAMES.iter().position(|other| *other == name).unwrap()]
    }
}

fn is_place(error: &Error) -> bool {
    matches!(
        error,
        Error::Message(MessageError::Place)
            | Error::Vole(vole::Error::Message(MessageError::Place))
    )
}

fn is_length(error: &Error) -> bool {
    matches!(
        error,
        Error::Message(MessageError::Length { .. })
            | Error::Vole(vole::Error::Message(MessageError::Length { .. }))
    )
}

#[test]
fn messages_of_another_length() {
    for name in NAMES {
        for change in [
            |message: &mut Vec<u8>| message.push(0),
            |message: &mut Vec<u8>| message.truncate(message.len() - 1),
            |message: &mut Vec<u8>| message.clear(),
            |message: &mut Vec<u8>| message.truncate(PLACE),
        ] {
            let refused = changed(SID, |other, message| {
                if other == name {
                    change(message);
                }
            })
            .err()
            .unwrap();
            assert!(is_length(&refused), "{name}: {refused}");
        }
    }
}

const PLACE: usize = crate::message::PLACE_BYTES;

#[test]
fn messages_of_another_session_and_replayed_flights() {
    let other = changed([8; 32], |_, _| ()).unwrap();
    for name in NAMES {
        let refused = changed(SID, |at, message| {
            if at == name {
                *message = other.named(name).clone();
            }
        });
        let refused = refused.err().unwrap();
        assert!(is_place(&refused), "{name}: {refused}");
    }
}

#[test]
fn messages_in_the_place_of_others() {
    let first = changed(SID, |_, _| ()).unwrap();
    for name in NAMES {
        for instead in NAMES.iter().filter(|instead| **instead != name) {
            let refused = changed(SID, |at, message| {
                if at == name {
                    // As long as it should be.
                    let length = message.len();
                    message.clone_from(first.named(instead));
                    message.resize(length, 0);
                }
            });
            let refused = refused.err().unwrap();
            assert!(is_place(&refused), "{instead} for {name}: {refused}");
        }
    }
}

#[test]
fn tags_that_are_not_in_order() {
    let length = TagLength::of(53, 63).bytes();
    for (from, to) in [(0, 1), (5, 4), (62, 0)] {
        let refused = changed(SID, |name, message| {
            if name == "tags" {
                let tag = message[PLACE + from * length..][..length].to_vec();
                message[PLACE + to * length..][..length].copy_from_slice(&tag);
            }
        });
        let refused = refused.err().unwrap();
        assert!(matches!(refused, Error::Order(_)), "{refused}");
    }
}

#[test]
fn matches_with_bits_behind_the_last() {
    let refused = changed(SID, |name, message| {
        if name == "matches" {
            *message.last_mut().unwrap() |= 0x80;
        }
    });
    assert!(matches!(refused.err().unwrap(), Error::Matches(_)));
}

/// Nothing of what the sender sees depends on the receiver's items beside their number: for two
/// different sets, lengths are the same and every byte is as good as random.
#[test]
fn what_the_sender_sees_is_random() {
    let mut counts = [[0_u32; 256]; 2];
    for (at, whose) in [1, 9].into_iter().enumerate() {
        let mut rng = UnwrapErr(SysRng);
        let (x, y) = (items(0, 3000, whose), items(0, 10, 2));
        let session = session(x.len(), y.len(), false);
        let r = ReceiverStart::new(session, Zeroizing::new(x)).unwrap();
        let (s, choice) = SenderStart::new(session, Zeroizing::new(y), &mut rng).unwrap();
        let (mut r, answer) = r.choice(&choice, &mut rng).unwrap();
        let mut s = s.answer(&answer).unwrap();
        let masked = r.trees(&s.trees(&mut rng).unwrap()).unwrap();
        for byte in &masked[PLACE..] {
            counts[at][usize::from(*byte)] += 1;
        }
    }
    for counts in counts {
        let all: u32 = counts.iter().sum();
        let expected = f64::from(all) / 256.0;
        let chi: f64 =
            counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: a value above 400 has a probability of about 10^-8.
        assert!(chi < 400.0, "{chi}");
    }
}

/// Tags come in an order that says nothing about that of the sender's items.
#[test]
fn tags_are_sorted() {
    let mut tags = Vec::new();
    let mut rng = UnwrapErr(SysRng);
    for index in 0..100_000 {
        let hash = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        tags.push(TagLength::of(1 << 20, 1 << 20).tag(hash, index));
    }
    let mut expected = tags.clone();
    expected.sort();
    tags::sort(&mut tags);
    assert!(tags == expected);
}

/// Digests of a run's messages, of each kind all together, as `vectors/vole_psi` describes them.
fn transcript(hybrid: Hybrid, receiver: usize, sender: usize, common: usize) -> serde_json::Value {
    let (mut mine, mut theirs) = (Seeded::new(b"receiver"), Seeded::new(b"sender"));
    let (x, y) = (items(common, receiver, 1), items(common, sender, 2));
    let session = Session { hybrid, ..session(x.len(), y.len(), true) };
    let mut digests: [blake3::Hasher; 6] = Default::default();
    let mut sent = |name: &str, message: Vec<u8>| {
        let at = NAMES.iter().position(|other| *other == name).unwrap();
        digests[at].update(&message);
        message
    };
    let r = ReceiverStart::new(session, Zeroizing::new(x)).unwrap();
    let (s, choice) = SenderStart::new(session, Zeroizing::new(y), &mut theirs).unwrap();
    let (mut r, answer) = r.choice(&sent("choice", choice), &mut mine).unwrap();
    let mut s = s.answer(&sent("answer", answer)).unwrap();
    while let Some(trees) = s.trees(&mut theirs) {
        let masked = r.trees(&sent("trees", trees)).unwrap();
        s.masked(&sent("masked", masked)).unwrap();
    }
    let (mut r, mut s) = (r.masked().ok().unwrap(), s.unmasked().ok().unwrap());
    while let Some(tags) = s.tags() {
        r.tags(&sent("tags", tags)).unwrap();
    }
    let matches = sent("matches", r.finish().ok().unwrap().1.unwrap());
    assert_eq!(s.sent().unwrap().matches(&matches).unwrap().count_ones(), common as u64);
    let mut vector = serde_json::json!({
        "hybrid": hybrid == Hybrid::Yes,
        "receiver_items": common + receiver,
        "sender_items": common + sender,
        "common": common,
    });
    for (name, digest) in NAMES.iter().zip(digests) {
        vector[name] = digest.finalize().to_hex().as_str().into();
    }
    vector
}

#[test]
fn the_published_transcripts() {
    let published: serde_json::Value =
        serde_json::from_str(include_str!("../../../../vectors/vole_psi/vole_psi.json")).unwrap();
    let found = [
        transcript(Hybrid::Yes, 0, 0, 1),
        transcript(Hybrid::No, 20, 30, 10),
        transcript(Hybrid::No, 60_000, 70_000, 5000),
        transcript(Hybrid::No, 420_000, 300, 100),
    ];
    assert_eq!(published, serde_json::json!(found), "{:#}", serde_json::json!(found));
}
