//! The messages of the protocols between two parties: each step of each role of `convelo-mpc`.
//!
//! The first byte of the input chooses the step, the second how many items either side has, the
//! third how the rest becomes a message: as it is, in the place of the one that is due, in that
//! place and of that length, or as changes of it. Both parties draw the same numbers in every run,
//! so that a recorded message fits a state that is made anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::thread::LocalKey;

use convelo_mpc::vole::Hybrid;
use convelo_mpc::{ecdh, vole_psi};
use rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

/// Bytes that say which message it is.
const PLACE: usize = 16;

/// The receiver's and the sender's number of items: 0 to 3.
type Sizes = [usize; 2];

/// The same numbers in every run: splitmix64.
struct Fixed(u64);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| (word >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(mixed ^ mixed >> 31)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for bytes in out.chunks_mut(8) {
            bytes.copy_from_slice(&self.try_next_u64()?.to_le_bytes()[..bytes.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

/// All but the first of the receiver's items are among the sender's, as far as it has so many.
fn items(sizes: Sizes) -> [Zeroizing<Vec<u128>>; 2] {
    let [receiver, sender] = sizes.map(|size| size as u128);
    [Zeroizing::new((0..receiver).collect()), Zeroizing::new((1..=sender).collect())]
}

fn common([receiver, sender]: Sizes) -> u64 {
    receiver.saturating_sub(1).min(sender) as u64
}

fn sizes(byte: u8) -> Sizes {
    [usize::from(byte & 3), usize::from(byte >> 2 & 3)]
}

/// A message for the step where `due` is the honest one.
fn message(due: &[u8], data: &[u8]) -> Vec<u8> {
    let Some((mode, data)) = data.split_first() else { return Vec::new() };
    let place = &due[..PLACE.min(due.len())];
    match mode % 4 {
        0 => data.to_vec(),
        1 => [place, data].concat(),
        2 if !data.is_empty() => {
            let content = data.iter().cycle().take(due.len() - place.len());
            place.iter().chain(content).copied().collect()
        }
        _ => {
            let mut message = due.to_vec();
            for [low, high, change] in data.as_chunks().0 {
                let at = usize::from(u16::from_le_bytes([*low, *high]));
                if !message.is_empty() {
                    let length = message.len();
                    message[at % length] ^= change;
                }
            }
            message
        }
    }
}

/// States that refused a message and are as they were.
type Kept<T> = RefCell<BTreeMap<Sizes, T>>;

thread_local! {
    static RECEIVERS: Kept<vole_psi::Receiver> = const { RefCell::new(BTreeMap::new()) };
    static SENDERS: Kept<vole_psi::Sender> = const { RefCell::new(BTreeMap::new()) };
    static TAGS: Kept<vole_psi::ReceiverTags> = const { RefCell::new(BTreeMap::new()) };
}

fn kept<T>(states: &'static LocalKey<Kept<T>>, sizes: Sizes, make: impl FnOnce() -> T) -> T {
    states.with_borrow_mut(|states| states.remove(&sizes)).unwrap_or_else(make)
}

fn keep<T>(states: &'static LocalKey<Kept<T>>, sizes: Sizes, state: T) {
    states.with_borrow_mut(|states| states.insert(sizes, state));
}

/// The messages of an honest run of VOLE-PSI. There are no tags if the sender has no items.
#[derive(Clone)]
struct Honest {
    choice: Vec<u8>,
    answer: Vec<u8>,
    trees: Vec<u8>,
    masked: Vec<u8>,
    tags: Vec<u8>,
    matches: Vec<u8>,
}

fn vole_session([receiver_items, sender_items]: Sizes) -> vole_psi::Session {
    let (hybrid, both_learn) = (Hybrid::No, true);
    vole_psi::Session { sid: [7; 32], receiver_items, sender_items, hybrid, both_learn }
}

fn receiver_start(sizes: Sizes) -> vole_psi::ReceiverStart {
    let [items, _] = items(sizes);
    vole_psi::ReceiverStart::new(vole_session(sizes), items).expect("as many as agreed")
}

fn sender_start(sizes: Sizes) -> (vole_psi::SenderStart, Vec<u8>, Fixed) {
    let ([_, items], mut rng) = (items(sizes), Fixed(2));
    let (start, choice) = vole_psi::SenderStart::new(vole_session(sizes), items, &mut rng)
        .expect("as many as agreed");
    (start, choice, rng)
}

fn receiver(sizes: Sizes, choice: &[u8]) -> (vole_psi::Receiver, Vec<u8>) {
    receiver_start(sizes).choice(choice, &mut Fixed(1)).expect("an honest choice")
}

/// The sender that has sent its trees, and these.
fn sender(sizes: Sizes, answer: &[u8]) -> (vole_psi::Sender, Vec<u8>) {
    let (start, _choice, mut rng) = sender_start(sizes);
    let mut sender = start.answer(answer).expect("an honest answer");
    let trees = sender.trees(&mut rng).expect("one code");
    (sender, trees)
}

fn receiver_tags(mut receiver: vole_psi::Receiver, trees: &[u8]) -> vole_psi::ReceiverTags {
    receiver.trees(trees).expect("honest trees");
    receiver.masked().unwrap_or_else(|_| panic!("all trees are read"))
}

fn sender_tags(mut sender: vole_psi::Sender, masked: &[u8]) -> vole_psi::SenderTags {
    sender.masked(masked).expect("an honest table");
    sender.unmasked().unwrap_or_else(|_| panic!("the table is read"))
}

impl Honest {
    /// Recorded once for all threads.
    fn of(sizes: Sizes) -> Self {
        static RUNS: Mutex<BTreeMap<Sizes, Honest>> = Mutex::new(BTreeMap::new());
        let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.entry(sizes).or_insert_with(|| Self::record(sizes)).clone()
    }

    fn record(sizes: Sizes) -> Self {
        let (_, choice, _) = sender_start(sizes);
        let (mut r, answer) = receiver(sizes, &choice);
        let (s, trees) = sender(sizes, &answer);
        let masked = r.trees(&trees).expect("honest trees");
        let mut r = r.masked().unwrap_or_else(|_| panic!("all trees are read"));
        let mut s = sender_tags(s, &masked);
        let tags = s.tags().unwrap_or_default();
        if r.remaining() > 0 {
            r.tags(&tags).expect("honest tags");
        }
        let matches = finished(r, sizes, Some(common(sizes)));
        let marks = s.sent().expect("it learns").matches(&matches).expect("honest matches");
        assert_eq!(marks.count_ones(), common(sizes));
        Self { choice, answer, trees, masked, tags, matches }
    }
}

/// Ends a receiver's run, and checks that what it claims is possible.
fn finished(r: vole_psi::ReceiverTags, sizes: Sizes, expected: Option<u64>) -> Vec<u8> {
    let (marks, matches) = r.finish().unwrap_or_else(|_| panic!("all tags are read"));
    assert_eq!(marks.len(), sizes[0]);
    assert!(marks.count_ones() <= sizes[0].min(sizes[1]) as u64);
    assert!(expected.is_none_or(|expected| expected == marks.count_ones()));
    let matches = matches.expect("both learn");
    assert_eq!(matches.len(), PLACE + sizes[1].div_ceil(8));
    matches
}

/// A message of VOLE-PSI. Steps that cost milliseconds come less often.
pub fn mpc_vole_psi(data: &[u8]) {
    use vole_psi::Error;
    let [step, of_sizes, data @ ..] = data else { return };
    let sizes = sizes(*of_sizes);
    let honest = Honest::of(sizes);
    match step {
        ..96 => match receiver_start(sizes).choice(&message(&honest.choice, data), &mut Fixed(1)) {
            Ok((_, answer)) => assert_eq!(answer.len(), honest.answer.len()),
            Err(error) => assert!(matches!(error, Error::Vole(_)), "{error}"),
        },
        96..112 => match sender_start(sizes).0.answer(&message(&honest.answer, data)) {
            Ok(mut sender) => {
                assert_eq!(sender.remaining(), 1);
                assert!(sender.masked(&honest.masked).is_err(), "its trees are not made");
            }
            Err(error) => assert!(matches!(error, Error::Vole(_)), "{error}"),
        },
        112..144 => {
            let mut r = kept(&RECEIVERS, sizes, || receiver(sizes, &honest.choice).0);
            match r.trees(&message(&honest.trees, data)) {
                Ok(masked) => {
                    assert_eq!((masked.len(), r.remaining()), (honest.masked.len(), 0));
                    assert!(r.trees(&honest.trees).is_err(), "after the last one");
                }
                Err(error) => {
                    assert!(matches!(error, Error::Vole(_)), "{error}");
                    assert_eq!(r.remaining(), 1);
                    keep(&RECEIVERS, sizes, r);
                }
            }
        }
        144..176 => {
            let mut s = kept(&SENDERS, sizes, || sender(sizes, &honest.answer).0);
            match s.masked(&message(&honest.masked, data)) {
                Ok(()) => {
                    assert!(s.masked(&honest.masked).is_err(), "after the last one");
                    let mut s = s.unmasked().unwrap_or_else(|_| panic!("the table is read"));
                    assert_eq!(s.tags().unwrap_or_default().len(), honest.tags.len());
                }
                Err(error) => {
                    assert!(matches!(error, Error::Message(_)), "{error}");
                    let s = *s.unmasked().err().expect("the table is not read");
                    keep(&SENDERS, sizes, s);
                }
            }
        }
        176..248 => {
            let make = || receiver_tags(receiver(sizes, &honest.choice).0, &honest.trees);
            let mut r = kept(&TAGS, sizes, make);
            match r.tags(&message(&honest.tags, data)) {
                Ok(()) => drop(finished(r, sizes, None)),
                Err(Error::Message(_) | Error::Complete) => keep(&TAGS, sizes, r),
                Err(error) => assert!(matches!(error, Error::Order(_)), "{error}"),
            }
        }
        248.. => {
            let s = sender_tags(sender(sizes, &honest.answer).0, &honest.masked);
            match s.sent().expect("it learns").matches(&message(&honest.matches, data)) {
                Ok(marks) => assert_eq!(marks.len(), sizes[1]),
                Err(error) => {
                    assert!(matches!(error, Error::Message(_) | Error::Matches(_)), "{error}");
                }
            }
        }
    }
}

fn ecdh_session([receiver_items, sender_items]: Sizes, count: bool) -> ecdh::Session {
    let learn = if count { ecdh::Learn::Count } else { ecdh::Learn::Intersection };
    ecdh::Session { sid: [7; 32], receiver_items, sender_items, learn, both_learn: true }
}

/// What a party claims is possible.
fn check(learnt: &ecdh::Learnt, own: usize, sizes: Sizes, expected: Option<u64>) {
    let found = match learnt {
        ecdh::Learnt::Intersection(marks) => {
            assert_eq!(marks.len(), own);
            marks.count_ones()
        }
        ecdh::Learnt::Count(count) => *count,
    };
    assert!(expected.is_none_or(|expected| expected == found));
    // A sender that the receiver tells too much learns that of its own items, no more.
    assert!(found <= own as u64 && found <= sizes[0].max(sizes[1]) as u64);
}

/// A message of ECDH: the step that it is for is run up to honestly, and a party that refused it
/// because of its place, length or points goes on as if it had not come.
pub fn mpc_ecdh(data: &[u8]) {
    use ecdh::Error;
    let [step, of_sizes, data @ ..] = data else { return };
    let (sizes, count) = (sizes(*of_sizes), of_sizes & 0x10 != 0);
    let session = ecdh_session(sizes, count);
    let [x, y] = items(sizes);
    let mut r = ecdh::Receiver::new(session, x, &mut Fixed(1)).expect("as many as agreed");
    let mut s = ecdh::Sender::new(session, y, &mut Fixed(2)).expect("as many as agreed");
    let mut accepted = false;
    let mut on_its_way = |at: u8, due: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<(), Error>| {
        if step % 4 == at {
            match take(&message(due, data)) {
                Ok(()) => {
                    accepted = true;
                    return true;
                }
                // Some of the tags may have been taken.
                Err(Error::Order(_)) => return false,
                Err(Error::Message(_)) => {}
                Err(Error::Complete) => assert!(due.is_empty(), "a message is due"),
                Err(Error::NotCanonical { .. } | Error::SmallOrder { .. }) => assert!(at < 2),
                Err(error) => panic!("{error}"),
            }
        }
        if due.is_empty() {
            return true;
        }
        match take(due) {
            // Equal points that were accepted have equal tags.
            Err(Error::Order(_)) if accepted => return false,
            taken => taken.expect("an honest message"),
        }
        true
    };
    let blinded = r.blinded().unwrap_or_default();
    let points = s.points().unwrap_or_default();
    let going = on_its_way(0, &blinded, &mut |message| s.blinded(message))
        && on_its_way(1, &points, &mut |message| r.points(message));
    let tags = s.tags().unwrap_or_default();
    if !going || !on_its_way(2, &tags, &mut |message| r.tags(message)) {
        return;
    }
    let expected = (!accepted).then_some(common(sizes));
    let (learnt, told) = r.finish().unwrap_or_else(|_| panic!("all is made and read"));
    check(&learnt, sizes[0], sizes, expected);
    let told = told.expect("both learn");
    if step % 4 < 3 {
        let learnt = s.matches(&told).expect("an honest result");
        return check(&learnt, sizes[1], sizes, expected);
    }
    match s.matches(&message(&told, data)) {
        Ok(learnt) => check(&learnt, sizes[1], sizes, None),
        Err(Error::Message(_) | Error::Matches(_) | Error::Count { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}
