use std::collections::{BTreeMap, BTreeSet};

use convelo_psi::Bitmap;
use getrandom::SysRng;
use proptest::prelude::*;
use rand_core::UnwrapErr;
use zeroize::Zeroizing;

use super::*;
use crate::message::PLACE_BYTES;
use crate::seeded::Seeded;
use crate::sets::items;

const SID: [u8; 32] = [7; 32];

const NAMES: [&str; 8] = ["key", "choice", "answer", "trees", "masked", "shares", "found", "tags"];

type Sets = Vec<Vec<u128>>;

/// The links of a session in which these sets meet, that of the leader first.
fn links(sid: [u8; 32], sets: &[Vec<u128>], told: bool) -> Vec<Link> {
    let session =
        Session { sid, members: sets.len() - 1, leader_items: sets[0].len(), hybrid: Hybrid::No };
    let sizes = sets[1..].iter().map(Vec::len).enumerate();
    sizes.map(|(member, items)| Link { session, member, items, told }).collect()
}

/// For each party, randomness of its own.
fn fresh(parties: usize) -> Vec<Seeded> {
    let mut seed = [0; 32];
    UnwrapErr(SysRng).fill_bytes(&mut seed);
    (0..parties).map(|party| Seeded::new(&[&seed[..], &party.to_le_bytes()].concat())).collect()
}

fn owned(items: &[u128]) -> Zeroizing<Vec<u128>> {
    Zeroizing::new(items.to_vec())
}

fn marked(items: &[u128], marks: &Bitmap) -> BTreeSet<u128> {
    assert_eq!(items.len(), marks.len());
    (0..items.len()).filter(|at| marks.is_set(*at)).map(|at| items[at]).collect()
}

/// What a trusted party would tell the leader.
fn ideal(sets: &[Vec<u128>]) -> BTreeSet<u128> {
    let mut sets = sets.iter().map(|set| set.iter().copied().collect::<BTreeSet<_>>());
    let first = sets.next().unwrap();
    sets.fold(first, |all, set| &all & &set)
}

struct Outcome {
    found: BTreeSet<u128>,
    /// What each member was told.
    told: Vec<Option<BTreeSet<u128>>>,
    /// All messages by name and member: the one that sends it, or that gets it from the leader.
    messages: BTreeMap<(&'static str, usize), Vec<Vec<u8>>>,
    /// What the leader sees of each member, for each of its items.
    sums: Vec<Vec<Sum>>,
}

impl Outcome {
    fn of_kind(&self, name: &'static str) -> Vec<u8> {
        let of_kind = self.messages.iter().filter(|((other, _), _)| *other == name);
        of_kind.flat_map(|(_, messages)| messages.concat()).collect()
    }

    /// What the items decode to in a member's table.
    fn decoded(&self, link: &Link, items: &[u128]) -> Vec<Sum> {
        let parameters = Parameters::for_items(link.items).unwrap();
        let mut table = Vec::new();
        for message in &self.messages[&("shares", link.member)] {
            table.extend(&message[PLACE_BYTES..]);
        }
        let table = table.split_off(16);
        let seed = self.messages[&("shares", link.member)][0][PLACE_BYTES..][..16].try_into();
        let mut out = vec![Sum::default(); items.len()];
        let table = table.as_chunks().0;
        okvs::decode::<Sum>(&parameters, &seed.unwrap(), table, items, &mut out).unwrap();
        out
    }
}

/// A run in which `change` may change each message on its way.
fn play(
    links: &[Link],
    sets: &[Vec<u128>],
    rngs: &mut [Seeded],
    change: &dyn Fn(&'static str, usize, &mut Vec<u8>),
) -> Result<Outcome, Error> {
    let members = links.len();
    let mut messages: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut sent = |name: &'static str, member: usize, mut message: Vec<u8>| {
        change(name, member, &mut message);
        messages.entry((name, member)).or_default().push(message.clone());
        message
    };
    let (leaders, rngs) = rngs.split_first_mut().unwrap();
    let mut exchanges = Vec::new();
    for (link, rng) in links.iter().zip(&mut *rngs) {
        exchanges.push(Exchange::new(*link, rng)?);
    }
    for from in 0..members {
        for to in (0..members).filter(|to| *to != from) {
            let key = exchanges[from].key(to)?;
            exchanges[to].read(from, &sent("key", from, key))?;
        }
    }
    let mut leader = Leader::new(links[0].session, owned(&sets[0]), leaders)?;
    let (mut of_leader, mut of_members) = (Vec::new(), Vec::new());
    for (member, exchange) in exchanges.into_iter().enumerate() {
        let keys = exchange.finish().ok().expect("all have come");
        let (m, choice) = MemberStart::new(keys, owned(&sets[member + 1]), &mut rngs[member])?;
        let l = leader.link(links[member])?;
        let (l, answer) = l.choice(&sent("choice", member, choice), leaders)?;
        of_members.push(m.answer(&sent("answer", member, answer))?);
        of_leader.push(l);
    }
    // All links in turns.
    while of_members.iter().any(|m| m.remaining() > 0) {
        for (member, (m, l)) in of_members.iter_mut().zip(&mut of_leader).enumerate() {
            let Some(trees) = m.trees(&mut rngs[member]) else { continue };
            let masked = l.trees(&sent("trees", member, trees))?;
            m.masked(&sent("masked", member, masked))?;
        }
    }
    let (mut sums, mut waits) = (vec![Vec::new(); members], Vec::new());
    let both = of_members.into_iter().zip(of_leader).enumerate();
    // The last member's share is added first.
    for (member, (m, l)) in both.rev() {
        let mut m = m.unmasked(&mut rngs[member]).ok().expect("the whole table has come");
        let mut l = l.masked().ok().expect("all trees are read");
        while let Some(shares) = m.shares()? {
            l.shares(&sent("shares", member, shares))?;
        }
        let share = l.finish().ok().expect("the whole table has come");
        sums[member].clone_from(&share.sums);
        leader.add(share)?;
        waits.push(m.sent().ok().expect("the whole table is sent"));
    }
    let found = leader.finish().ok().expect("all shares are added");
    let mut told = Vec::new();
    for (member, waits) in waits.into_iter().rev().enumerate() {
        let telling = found.tell(member);
        assert_eq!((telling.is_some(), waits.is_some()), (links[member].told, links[member].told));
        let (Some(mut telling), Some(waits)) = (telling, waits) else {
            told.push(None);
            continue;
        };
        let mut m = waits.found(&sent("found", member, telling.message().unwrap()))?;
        while let Some(tags) = telling.message() {
            m.tags(&sent("tags", member, tags))?;
        }
        let marks = m.finish().ok().expect("all tags are read");
        told.push(Some(marked(&sets[member + 1], &marks)));
    }
    Ok(Outcome { found: marked(&sets[0], found.marks()), told, messages, sums })
}

fn run(links: &[Link], sets: &[Vec<u128>]) -> Outcome {
    play(links, sets, &mut fresh(sets.len()), &|_, _, _| ()).unwrap()
}

/// Sets of which the first `common` items are those of all, by the sizes of the rest.
fn sets(common: usize, own: &[usize]) -> Sets {
    own.iter().zip(1..).map(|(own, whose)| items(common, *own, whose)).collect()
}

/// Items of which party p has those whose mask has the bit p.
fn by_masks(parties: usize, masks: &[u16]) -> Sets {
    let all = items(masks.len(), 0, 0);
    let has = |party: usize| {
        let of_party = all.iter().zip(masks).filter(move |(_, mask)| **mask >> party & 1 == 1);
        of_party.map(|(item, _)| *item).collect()
    };
    (0..parties).map(has).collect()
}

#[test]
fn every_size_class() {
    for (common, own) in [
        (0, &[0, 0][..]),
        (0, &[0, 0, 0]),
        (0, &[1, 0, 1]),
        (0, &[0, 1, 1]),
        (1, &[0, 0, 0]),
        (1, &[1, 0, 2]),
        (2, &[0, 0]),
        (2, &[100, 3, 7]),
        (3, &[0, 5000, 1, 2]),
        (500, &[6289, 7390, 20, 800]),
        (7, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ] {
        let sets = sets(common, own);
        for told in [false, true] {
            let outcome = run(&links(SID, &sets, told), &sets);
            assert_eq!(outcome.found.len(), common, "{own:?}");
            assert_eq!(outcome.found, ideal(&sets));
            assert_eq!(outcome.told, vec![told.then_some(outcome.found); own.len() - 1]);
        }
    }
}

/// Several codes, several messages with parts of a member's table and with tags.
#[test]
fn messages_in_parts() {
    let sets = sets(70_000, &[350_000, 230_000, 10]);
    let mut links = links(SID, &sets, false);
    links[1].told = true;
    let outcome = run(&links, &sets);
    assert_eq!(outcome.found, ideal(&sets));
    assert_eq!(outcome.told, [None, Some(outcome.found)]);
    let parts = |name, member| outcome.messages[&(name, member)].len();
    assert_eq!((parts("trees", 0), parts("shares", 0), parts("tags", 1)), (2, 2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn all_learn_what_a_third_party_would_tell(
        parties in 2..=6_usize,
        masks in prop::collection::vec(prop_oneof![any::<u16>(), Just(u16::MAX)], 0..2500),
    ) {
        let sets = by_masks(parties, &masks);
        let outcome = run(&links(SID, &sets, true), &sets);
        let ideal = ideal(&sets);
        prop_assert_eq!(outcome.told, vec![Some(ideal.clone()); parties - 1]);
        prop_assert_eq!(outcome.found, ideal);
    }
}

#[test]
fn with_ml_kem() {
    let sets = sets(5, &[20, 30, 40]);
    let mut links = links(SID, &sets, true);
    for link in &mut links {
        link.session.hybrid = Hybrid::Yes;
    }
    assert_eq!(run(&links, &sets).found, ideal(&sets));
}

#[test]
fn another_number_of_parties_or_items_than_there_can_be() {
    let sets = sets(1, &[1, 2, 3]);
    let links = links(SID, &sets, true);
    let refused = |change: &dyn Fn(&mut Link)| {
        let mut links = links.clone();
        links.iter_mut().for_each(change);
        play(&links, &sets, &mut fresh(3), &|_, _, _| ()).err()
    };
    for members in [0, MAXIMUM_PARTIES] {
        let refused = refused(&|link| link.session.members = members);
        assert_eq!(refused, Some(Error::Members(members)));
    }
    let refused_member = refused(&|link| link.member += 1);
    assert_eq!(refused_member, Some(Error::Member { found: 2, members: 2 }));
    let refused_items = refused(&|link| link.session.leader_items = 3);
    assert_eq!(refused_items, Some(Error::Items { found: 2, agreed: 3 }));
    let refused_items = refused(&|link| link.items = 4);
    assert_eq!(refused_items, Some(Error::Items { found: 3, agreed: 4 }));
    let most = MAXIMUM_ITEMS;
    let refused_size = refused(&|link| link.items = most + 1);
    assert_eq!(refused_size, Some(Error::Size(most + 1)));
    let refused_size = refused(&|link| link.session.leader_items = most + 1);
    assert_eq!(refused_size, Some(Error::Size(most + 1)));
}

#[test]
fn an_item_twice() {
    for twice in 0..3 {
        let mut sets = sets(1, &[1, 1, 1]);
        sets[twice] = vec![5, 5];
        let refused = play(&links(SID, &sets, true), &sets, &mut fresh(3), &|_, _, _| ()).err();
        assert!(matches!(refused, Some(Error::Encode(EncodeError::Duplicate { .. }))));
    }
}

/// A run of three parties with sets of a few items, in which messages are changed.
fn changed(
    sid: [u8; 32],
    change: &dyn Fn(&'static str, usize, &mut Vec<u8>),
) -> Result<Outcome, Error> {
    let sets = sets(3, &[50, 60, 60]);
    play(&links(sid, &sets, true), &sets, &mut fresh(3), change)
}

fn refused(change: &dyn Fn(&'static str, usize, &mut Vec<u8>)) -> Error {
    changed(SID, change).err().expect("it is refused")
}

fn is_place(error: &Error) -> bool {
    let place = MessageError::Place;
    *error == Error::Message(place) || *error == Error::Vole(vole::Error::Message(place))
}

#[test]
fn messages_of_another_length() {
    for name in NAMES {
        for change in [
            |message: &mut Vec<u8>| message.push(0),
            |message: &mut Vec<u8>| message.truncate(message.len() - 1),
            |message: &mut Vec<u8>| message.clear(),
            |message: &mut Vec<u8>| message.truncate(PLACE_BYTES),
        ] {
            let refused = refused(&|other, member, message| {
                if (other, member) == (name, 1) {
                    change(message);
                }
            });
            let length = matches!(
                refused,
                Error::Message(MessageError::Length { .. })
                    | Error::Vole(vole::Error::Message(MessageError::Length { .. }))
            );
            assert!(length, "{name}: {refused}");
        }
    }
}

#[test]
fn messages_of_another_session() {
    let other = changed([8; 32], &|_, _, _| ()).unwrap();
    for name in NAMES {
        let refused = refused(&|at, member, message| {
            if at == name {
                message.clone_from(&other.messages[&(name, member)][0]);
            }
        });
        assert!(is_place(&refused), "{name}: {refused}");
    }
}

#[test]
fn messages_of_another_member() {
    let first = changed(SID, &|_, _, _| ()).unwrap();
    for name in NAMES {
        let refused = refused(&|at, member, message| {
            if at == name {
                message.clone_from(&first.messages[&(name, 1 - member)][0]);
            }
        });
        assert!(is_place(&refused), "{name}: {refused}");
    }
}

#[test]
fn messages_in_the_place_of_others() {
    let first = changed(SID, &|_, _, _| ()).unwrap();
    for name in NAMES {
        for instead in NAMES.iter().filter(|instead| **instead != name) {
            let refused = refused(&|at, member, message| {
                if at == name {
                    // As long as it should be.
                    let length = message.len();
                    message.clone_from(&first.messages[&(*instead, member)][0]);
                    message.resize(length, 0);
                }
            });
            assert!(is_place(&refused), "{instead} for {name}: {refused}");
        }
    }
}

#[test]
fn a_leader_names_more_items_than_there_are() {
    let refused = refused(&|name, member, message| {
        if (name, member) == ("found", 0) {
            message[PLACE_BYTES..].copy_from_slice(&54_u64.to_le_bytes());
        }
    });
    assert_eq!(refused, Error::Count { found: 54, most: 53 });
}

#[test]
fn a_leader_names_an_item_that_the_member_has_not() {
    for at in 0..3 {
        let refused = refused(&|name, _, message| {
            if name == "tags" {
                // Large or small enough to stay in order.
                let length = TagLength::of(53, 63).bytes();
                let tag = &mut message[PLACE_BYTES + at * length..][..length];
                tag[length - 1] ^= 1;
            }
        });
        assert_eq!(refused, Error::Foreign(at));
    }
}

#[test]
fn a_leader_names_items_out_of_order_or_twice() {
    let length = TagLength::of(53, 63).bytes();
    for (from, to) in [(0, 1), (1, 0), (2, 1)] {
        let refused = refused(&|name, _, message| {
            if name == "tags" {
                let tag = message[PLACE_BYTES + from * length..][..length].to_vec();
                message[PLACE_BYTES + to * length..][..length].copy_from_slice(&tag);
            }
        });
        assert_eq!(refused, Error::Order(from.max(to)));
    }
}

/// The parties of a session up to where the leader and member 0 have masked the leader's table.
fn halfway(sid: [u8; 32]) -> (Leader, LeaderLink, Member, UnwrapErr<SysRng>) {
    let rng = &mut UnwrapErr(SysRng);
    let sets = sets(3, &[5, 6]);
    let link = links(sid, &sets, true)[0];
    let keys = Exchange::new(link, rng).unwrap().finish().ok().unwrap();
    let (m, choice) = MemberStart::new(keys, owned(&sets[1]), rng).unwrap();
    let leader = Leader::new(link.session, owned(&sets[0]), rng).unwrap();
    let (l, answer) = leader.link(link).unwrap().choice(&choice, rng).unwrap();
    (leader, l, m.answer(&answer).unwrap(), UnwrapErr(SysRng))
}

#[test]
fn nothing_goes_on_before_its_messages_or_after_the_last() {
    let (mut leader, l, m, mut rng) = halfway(SID);
    let rng = &mut rng;
    let (mut l, mut m) = (l.masked().err().unwrap(), m.unmasked(rng).err().unwrap());
    assert_eq!(m.masked(&[]), Err(Error::Complete), "no trees have been made");
    let trees = m.trees(rng).unwrap();
    let masked = l.trees(&trees).unwrap();
    assert_eq!(l.trees(&trees), Err(Error::Vole(vole::Error::Complete)));
    m.masked(&masked).unwrap();
    assert_eq!(m.masked(&masked), Err(Error::Complete));
    assert!(m.trees(rng).is_none());
    let (l, m) = (l.masked().ok().unwrap(), m.unmasked(rng).ok().unwrap());
    let (mut l, mut m) = (*l.finish().err().unwrap(), *m.sent().err().unwrap());
    let shares = m.shares().unwrap().unwrap();
    assert_eq!(m.shares().unwrap(), None);
    l.shares(&shares).unwrap();
    assert_eq!(l.shares(&shares), Err(Error::Complete));
    leader = *leader.finish().err().unwrap();
    assert_eq!(leader.remaining(), 1);
    leader.add(l.finish().ok().unwrap()).unwrap();
    let found = leader.finish().ok().unwrap();
    assert!(found.tell(1).is_none(), "there is no such member");
    let mut telling = found.tell(0).unwrap();
    let mut m = m.sent().ok().unwrap().unwrap().found(&telling.message().unwrap()).unwrap();
    m = *m.finish().err().unwrap();
    let tags = telling.message().unwrap();
    m.tags(&tags).unwrap();
    assert_eq!(m.tags(&tags), Err(Error::Complete));
    assert_eq!(telling.message(), None);
    assert_eq!(m.finish().ok().unwrap().count_ones(), 3);
}

#[test]
fn a_share_twice_or_of_another_session() {
    let share = |sid| {
        let (leader, mut l, mut m, mut rng) = halfway(sid);
        let trees = m.trees(&mut rng).unwrap();
        m.masked(&l.trees(&trees).unwrap()).unwrap();
        let (mut l, mut m) = (l.masked().ok().unwrap(), m.unmasked(&mut rng).ok().unwrap());
        l.shares(&m.shares().unwrap().unwrap()).unwrap();
        (leader, l.finish().ok().unwrap())
    };
    let ((mut leader, first), (_, second), (_, other)) = (share(SID), share(SID), share([8; 32]));
    let link = other.link();
    assert_eq!(leader.link(link).err(), Some(Error::Session(0)));
    assert_eq!(leader.add(other), Err(Error::Session(0)));
    leader.add(first).unwrap();
    assert_eq!(leader.add(second), Err(Error::Again(0)));
}

#[test]
fn a_key_of_oneself_of_nobody_or_twice() {
    let sets = sets(1, &[1, 1, 1]);
    let links = links(SID, &sets, true);
    let rng = &mut UnwrapErr(SysRng);
    let [mut a, b] = [links[0], links[1]].map(|link| Exchange::new(link, rng).unwrap());
    for nobody in [0, 2] {
        let expected = Error::Member { found: nobody, members: 2 };
        assert_eq!(a.key(nobody).err(), Some(expected.clone()));
        assert_eq!(a.read(nobody, &[]).err(), Some(expected));
    }
    a = *a.finish().err().unwrap();
    let (mine, theirs) = (a.key(1).unwrap(), b.key(0).unwrap());
    assert!(is_place(&a.read(1, &mine).unwrap_err()), "what it has sent itself");
    a.read(1, &theirs).unwrap();
    assert_eq!(a.read(1, &theirs), Err(Error::Again(1)));
    assert!(a.finish().is_ok());
}

#[test]
fn shares_of_all_members_add_up_to_zero_and_fewer_do_not() {
    for members in 1..=5 {
        let sets = sets(50, &vec![0; members + 1]);
        let links = links(SID, &sets, true);
        let rng = &mut UnwrapErr(SysRng);
        let exchange = |link: &Link| Exchange::new(*link, rng).unwrap();
        let mut exchanges: Vec<_> = links.iter().map(exchange).collect();
        for from in 0..members {
            for to in (0..members).filter(|to| *to != from) {
                let key = exchanges[from].key(to).unwrap();
                exchanges[to].read(from, &key).unwrap();
            }
        }
        let mut sums = vec![Sum::default(); 50];
        for (left, exchange) in (0..members).rev().zip(exchanges) {
            exchange.finish().ok().unwrap().add_shares(&sets[0], &mut sums);
            assert!(sums.iter().all(|sum| (*sum == Sum::default()) == (left == 0)));
        }
    }
}

/// Refuses bytes that are not as good as random.
fn assert_random<'b>(bytes: impl IntoIterator<Item = &'b u8>, what: &str) {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let all: u32 = counts.iter().sum();
    assert!(all >= 256 * 40, "{what}: {all} bytes are too few to tell");
    let expected = f64::from(all) / 256.0;
    let chi: f64 =
        counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    // 255 degrees of freedom: a value above 400 has a probability of about 10^-8.
    assert!(chi < 400.0, "{what}: {chi}");
}

fn xor_each(a: &[Sum], b: &[Sum]) -> Vec<Sum> {
    a.iter().zip(b).map(|(a, b)| a.xor(*b)).collect()
}

/// Four parties, 1500 items for each mask of the parties that have one.
fn overlaps(masks: &[u16]) -> (Sets, Outcome, Vec<Link>) {
    let masks: Vec<_> = masks.iter().flat_map(|mask| [*mask; 1500]).collect();
    let sets = by_masks(4, &masks);
    let links = links(SID, &sets, false);
    let outcome = run(&links, &sets);
    (sets, outcome, links)
}

/// The leader and members 0, 1 and 2 are the bits 0 to 3.
#[test]
fn a_leader_looks_for_members_that_have_an_item_but_not_all() {
    // Of the leader's items, none, one and two of three members have them.
    let (sets, outcome, _) = overlaps(&[0b0001, 0b0011, 0b0111, 0b1011, 0b1101, 0b1111]);
    let having: Vec<BTreeSet<_>> = sets.iter().map(|set| set.iter().collect()).collect();
    let of_mask = |mask: u16| -> Vec<usize> {
        let has = |party: usize, item| having[party].contains(item);
        let is = |item| (1..4).all(|party| has(party, item) == (mask >> party & 1 == 1));
        (0..sets[0].len()).filter(|at| is(&sets[0][*at])).collect()
    };
    let [zero, one, two] = [0, 1, 2].map(|member| &outcome.sums[member][..]);
    let views = [
        zero.to_vec(),
        one.to_vec(),
        two.to_vec(),
        xor_each(zero, one),
        xor_each(zero, two),
        xor_each(one, two),
        xor_each(zero, &xor_each(one, two)),
    ];
    for mask in [0b0001, 0b0011, 0b0111, 0b1011, 0b1101, 0b1111] {
        let items = of_mask(mask);
        assert_eq!(items.len(), 1500);
        for (number, view) in views.iter().enumerate() {
            // Only the sum of all, and only for items that all have, is not random.
            if (mask, number) == (0b1111, 6) {
                assert!(items.iter().all(|at| view[*at] == Sum::default()));
            } else {
                let bytes = items.iter().flat_map(|at| &view[*at]);
                assert_random(bytes, &format!("items of {mask:b}, view {number}"));
            }
        }
    }
}

#[test]
fn a_leader_tests_members_for_items_that_it_lacks() {
    // All members have them, or two.
    let (sets, outcome, links) = overlaps(&[0b1110, 0b0110, 0b1111]);
    let lacked: Vec<_> = sets[1].iter().copied().filter(|item| !sets[0].contains(item)).collect();
    assert_eq!(lacked.len(), 3000);
    let [zero, one, two] = [0, 1, 2].map(|member| outcome.decoded(&links[member], &lacked));
    let pair = xor_each(&zero, &one);
    for (what, view) in [("pair", &pair), ("three", &xor_each(&pair, &two)), ("one", &zero)] {
        assert!(view.iter().all(|sum| *sum != Sum::default()));
        assert_random(view.as_flattened(), what);
    }
}

/// A leader with an ally among the members learns what the documentation says, as if the ally had
/// all of its items; but nothing about one alone of the others.
#[test]
fn a_leader_and_a_member_put_together_what_they_know() {
    let sets = by_masks(
        4,
        &[0b0111, 0b0011, 0b0101, 0b1011, 0b1111, 0b0001].map(|mask| [mask; 1500]).concat(),
    );
    let links = links(SID, &sets, false);
    let rng = &mut UnwrapErr(SysRng);
    let mut exchanges: Vec<_> =
        links.iter().map(|link| Exchange::new(*link, rng).unwrap()).collect();
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let key = exchanges[from].key(to).unwrap();
            exchanges[to].read(from, &key).unwrap();
        }
    }
    let mut leader = Leader::new(links[0].session, owned(&sets[0]), rng).unwrap();
    let mut ally = None;
    let mut views = Vec::new();
    for (member, exchange) in exchanges.into_iter().enumerate() {
        let keys = exchange.finish().ok().unwrap();
        if member == 2 {
            ally = Some(keys);
            break;
        }
        let (m, choice) = MemberStart::new(keys, owned(&sets[member + 1]), rng).unwrap();
        let (mut l, answer) = leader.link(links[member]).unwrap().choice(&choice, rng).unwrap();
        let mut m = m.answer(&answer).unwrap();
        let trees = m.trees(rng).unwrap();
        m.masked(&l.trees(&trees).unwrap()).unwrap();
        let (mut l, mut m) = (l.masked().ok().unwrap(), m.unmasked(rng).ok().unwrap());
        l.shares(&m.shares().unwrap().unwrap()).unwrap();
        let share = l.finish().ok().unwrap();
        views.push(share.sums.to_vec());
        leader.add(share).unwrap();
    }
    // The ally's part for every item of the leader's, whether it has the item or not.
    let mut known = vec![Sum::default(); sets[0].len()];
    ally.unwrap().add_shares(&sets[0], &mut known);
    let sums = xor_each(&xor_each(&views[0], &views[1]), &known);
    let others = ideal(&sets[..3]);
    let mut rest = [Vec::new(), Vec::new(), Vec::new()];
    for (at, item) in sets[0].iter().enumerate() {
        assert_eq!(sums[at] == Sum::default(), others.contains(item));
        if !others.contains(item) {
            rest[0].extend(sums[at]);
            rest[1].extend(views[0][at].xor(known[at]));
            rest[2].extend(views[1][at].xor(known[at]));
        }
    }
    for view in rest {
        assert_random(&view, "of items that one of the others has, or none");
    }
}

#[test]
fn members_compare_the_masked_tables_that_they_got() {
    for whose in [1, 9] {
        let sets = vec![items(0, 3000, whose), items(0, 10, 2), items(0, 10, 3)];
        let outcome = run(&links(SID, &sets, false), &sets);
        // Behind the place and the seeds, which are the same for both.
        let tables = [0, 1]
            .map(|member| outcome.messages[&("masked", member)][0][PLACE_BYTES + 32..].to_vec());
        let sum: Vec<_> = tables[0].iter().zip(&tables[1]).map(|(a, b)| a ^ b).collect();
        for table in [&tables[0], &tables[1], &sum] {
            assert_random(table, "a masked table");
        }
    }
}

#[test]
fn a_members_table_looks_the_same_whatever_it_holds() {
    for (common, own) in [(0, 3000), (3000, 0), (1000, 2000)] {
        let sets = vec![items(3000, 0, 1), items(common, own, 2), items(common, own, 3)];
        let outcome = run(&links(SID, &sets, false), &sets);
        for member in 0..2 {
            let table = &outcome.messages[&("shares", member)][0][PLACE_BYTES + 16..];
            assert_random(table, "a member's table");
        }
    }
}

/// Sets that differ outside the intersection only give every party as many bytes.
#[test]
fn lengths_follow_from_the_sizes_and_the_result() {
    let lengths = |whose: [u64; 3]| {
        let sets: Sets = whose.iter().map(|whose| items(20, 700, *whose)).collect();
        let outcome = run(&links(SID, &sets, true), &sets);
        let length = |messages: Vec<Vec<u8>>| messages.iter().map(Vec::len).collect::<Vec<_>>();
        outcome.messages.into_iter().map(|(at, messages)| (at, length(messages))).collect()
    };
    let first: Vec<_> = lengths([1, 2, 3]);
    assert_eq!(first, lengths([4, 5, 6]));
    // Two of the three have the same items.
    assert_eq!(first, lengths([7, 7, 8]));
    assert_eq!(first, lengths([7, 8, 8]));
}

/// Digests of a run's messages, as `vectors/vole_multi` describes them.
fn transcript(hybrid: Hybrid, common: usize, own: &[usize]) -> serde_json::Value {
    let sets = sets(common, own);
    let mut links = links(SID, &sets, true);
    for link in &mut links {
        link.session.hybrid = hybrid;
    }
    let mut rngs: Vec<_> =
        (0..own.len()).map(|party| Seeded::new(format!("party {party}").as_bytes())).collect();
    let outcome = play(&links, &sets, &mut rngs, &|_, _, _| ()).unwrap();
    let mut vector = serde_json::json!({
        "hybrid": hybrid == Hybrid::Yes,
        "common": common,
        "items_of_its_own": own,
        "in_common": outcome.found.len(),
    });
    for name in NAMES {
        let digest = blake3::hash(&outcome.of_kind(name));
        vector[name] = digest.to_hex().as_str().into();
    }
    vector
}

#[test]
fn the_published_transcripts() {
    let published: serde_json::Value =
        serde_json::from_str(include_str!("../../../../vectors/vole_multi/vole_multi.json"))
            .unwrap();
    let found = serde_json::json!([
        transcript(Hybrid::Yes, 1, &[0, 1]),
        transcript(Hybrid::No, 10, &[20, 30, 5]),
        transcript(Hybrid::No, 4000, &[40_000, 50_000, 0, 6000, 100]),
    ]);
    assert_eq!(published, found, "{found:#}");
}
