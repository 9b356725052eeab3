//! Slots that all strangers share, so that no source and no key can have them all.
//!
//! A slot whose holder has shown nothing yet is *open*, and one whose holder belongs here is
//! *kept*. Of each, a source or key can have only so many. Where a newcomer finds no open slot, it
//! takes the oldest: of its own source or key if that one has its fill, else of whoever has the
//! most. Holders that have not said anything yet go before others.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::admission::network;

/// Whom a slot counts for. A stranger's slot counts for both its address and its key, once it has
/// shown that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Everyone whose address is not known yet, because a balancer has yet to tell it.
    Unknown,
    /// Everyone with this IPv4 address, or in this IPv6 network (/64).
    Source(IpAddr),
    /// Everyone with this key: SHA-256 of its `SubjectPublicKeyInfo`.
    Key([u8; 32]),
}

impl Holder {
    /// The source that an address belongs to.
    pub fn source(address: IpAddr) -> Self {
        Self::Source(network(address))
    }
}

/// How many slots there are.
#[derive(Clone, Copy, Debug)]
pub struct SlotLimits {
    /// Open ones in all.
    pub open: usize,
    /// Open ones of one holder.
    pub open_each: usize,
    /// Kept ones in all.
    pub kept: usize,
    /// Kept ones of one holder.
    pub kept_each: usize,
}

/// The slots of one kind.
pub struct Slots {
    limits: SlotLimits,
    state: Mutex<State>,
}

/// A slot, given back when dropped.
pub struct Slot {
    number: u64,
    slots: Arc<Slots>,
}

/// Ends when the slot has gone to somebody else.
pub struct Lost(Option<oneshot::Receiver<()>>);

#[derive(Default)]
struct State {
    next: u64,
    /// By age, the oldest first.
    taken: BTreeMap<u64, Taken>,
    open: Counts,
    kept: Counts,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by: HashMap<Holder, usize>,
}

struct Taken {
    holders: Vec<Holder>,
    stage: Stage,
    /// Dropped with the slot, which tells its holder.
    _lost: oneshot::Sender<()>,
}

/// Who goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Silent,
    Heard,
    Kept,
}

impl Slots {
    /// That many slots, all free.
    pub fn new(limits: SlotLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Takes an open slot; somebody else loses theirs if there is none left.
    pub fn take(self: &Arc<Self>, holders: impl Into<Vec<Holder>>) -> (Slot, Lost) {
        let holders = holders.into();
        let (sender, lost) = oneshot::channel();
        let mut state = self.lock();
        state.make_room(&holders, self.limits, 1);
        let number = state.next;
        state.next += 1;
        state.open.add(&holders);
        state.taken.insert(number, Taken { holders, stage: Stage::Silent, _lost: sender });
        (Slot { number, slots: Arc::clone(self) }, Lost(Some(lost)))
    }

    /// Takes the oldest open slot away from whoever has the most. False if there is none.
    pub fn free_one(&self) -> bool {
        let mut state = self.lock();
        state.heaviest().is_some_and(|holder| state.take_away(holder))
    }

    /// How many are kept.
    pub fn kept(&self) -> usize {
        self.lock().kept.all
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The holder has said something: those that have not go first.
    pub fn heard(&self) {
        if let Some(taken) = self.slots.lock().taken.get_mut(&self.number) {
            taken.stage = taken.stage.max(Stage::Heard);
        }
    }

    /// Keeps the slot from now on, if fewer than the limit are kept. True if it is kept.
    pub fn keep(&self) -> bool {
        self.kept_under(Some(self.slots.limits))
    }

    /// Keeps the slot whatever the limits: its holder is no stranger.
    pub fn welcome(&self) {
        self.kept_under(None);
    }

    /// No longer keeps the slot: it is an open one again, and may be too old.
    pub fn let_go(&self) {
        let state = &mut *self.slots.lock();
        let Some(taken) = state.taken.get_mut(&self.number) else { return };
        if taken.stage != Stage::Kept {
            return;
        }
        taken.stage = Stage::Heard;
        let holders = taken.holders.clone();
        state.kept.remove(&holders);
        state.open.add(&holders);
        state.make_room(&holders, self.slots.limits, 0);
    }

    fn kept_under(&self, limits: Option<SlotLimits>) -> bool {
        let state = &mut *self.slots.lock();
        let Some(taken) = state.taken.get_mut(&self.number) else { return false };
        if taken.stage == Stage::Kept {
            return true;
        }
        let full = limits.is_some_and(|limits| {
            state.kept.all >= limits.kept
                || taken.holders.iter().any(|holder| state.kept.of(holder) >= limits.kept_each)
        });
        if full {
            return false;
        }
        taken.stage = Stage::Kept;
        state.open.remove(&taken.holders);
        state.kept.add(&taken.holders);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().give_back(self.number);
    }
}

impl Future for Lost {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(lost) = &mut self.0 {
            let _ = ready!(Pin::new(lost).poll(context));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

impl State {
    /// Takes open slots away until `more` fit.
    fn make_room(&mut self, holders: &[Holder], limits: SlotLimits, more: usize) {
        for holder in holders {
            while self.open.of(holder) + more > limits.open_each && self.take_away(*holder) {}
        }
        while self.open.all + more > limits.open {
            let Some(heaviest) = self.heaviest() else { break };
            self.take_away(heaviest);
        }
    }

    /// The source with the most open slots; with equally many, the one whose oldest is older.
    fn heaviest(&self) -> Option<Holder> {
        let mut heaviest: Option<(usize, Holder)> = None;
        for taken in self.taken.values().filter(|taken| taken.stage != Stage::Kept) {
            let Some(holder) = taken.holders.first() else { continue };
            let count = self.open.of(holder);
            if heaviest.is_none_or(|(most, _)| count > most) {
                heaviest = Some((count, *holder));
            }
        }
        heaviest.map(|(_, holder)| holder)
    }

    /// Takes the oldest open slot of a holder away. False if it has none.
    fn take_away(&mut self, holder: Holder) -> bool {
        let of_holder = self
            .taken
            .iter()
            .filter(|(_, taken)| taken.stage != Stage::Kept && taken.holders.contains(&holder));
        let first = of_holder.min_by_key(|(number, taken)| (taken.stage, **number));
        let Some(number) = first.map(|(number, _)| *number) else { return false };
        self.give_back(number);
        true
    }

    fn give_back(&mut self, number: u64) {
        if let Some(taken) = self.taken.remove(&number) {
            let counts = if taken.stage == Stage::Kept { &mut self.kept } else { &mut self.open };
            counts.remove(&taken.holders);
        }
    }
}

impl Counts {
    fn of(&self, holder: &Holder) -> usize {
        self.by.get(holder).copied().unwrap_or_default()
    }

    fn add(&mut self, holders: &[Holder]) {
        self.all += 1;
        for holder in holders {
            *self.by.entry(*holder).or_default() += 1;
        }
    }

    fn remove(&mut self, holders: &[Holder]) {
        self.all -= 1;
        for holder in holders {
            if let Some(count) = self.by.get_mut(holder) {
                *count -= 1;
                if *count == 0 {
                    self.by.remove(holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const LIMITS: SlotLimits = SlotLimits { open: 8, open_each: 4, kept: 6, kept_each: 3 };

    fn source(last: u8) -> Holder {
        Holder::source([192, 0, 2, last].into())
    }

    fn is_lost(lost: &mut Lost) -> bool {
        Pin::new(lost).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_of_a_source_that_has_its_fill_goes_first() {
        let slots = Slots::new(LIMITS);
        let mut taken: Vec<_> = (0..4).map(|_| slots.take([source(1)])).collect();
        let (_slot, mut newest) = slots.take([source(1)]);
        assert!(is_lost(&mut taken[0].1));
        assert!(taken[1..].iter_mut().all(|(_, lost)| !is_lost(lost)) && !is_lost(&mut newest));
    }

    #[test]
    fn the_source_with_the_most_makes_room_for_others() {
        let slots = Slots::new(LIMITS);
        let mut one: Vec<_> = (0..2).map(|_| slots.take([source(1)])).collect();
        let mut many: Vec<_> = (0..4).map(|_| slots.take([source(2)])).collect();
        let mut two: Vec<_> = (0..2).map(|_| slots.take([source(3)])).collect();
        let (_slot, mut newcomer) = slots.take([source(4)]);
        assert!(is_lost(&mut many[0].1));
        assert!(one.iter_mut().chain(&mut two).all(|(_, lost)| !is_lost(lost)));
        assert!(!is_lost(&mut newcomer));
    }

    #[test]
    fn one_key_from_many_sources_has_its_fill_too() {
        let slots = Slots::new(LIMITS);
        let key = Holder::Key([7; 32]);
        let mut taken: Vec<_> = (0..5).map(|last| slots.take([source(last), key])).collect();
        assert!(is_lost(&mut taken[0].1) && !is_lost(&mut taken[1].1));
    }

    #[test]
    fn those_that_say_nothing_go_before_those_that_have_spoken() {
        let slots = Slots::new(LIMITS);
        let mut taken: Vec<_> = (0..4).map(|_| slots.take([source(1)])).collect();
        taken[0].0.heard();
        let _fifth = slots.take([source(1)]);
        assert!(!is_lost(&mut taken[0].1) && is_lost(&mut taken[1].1));
    }

    #[test]
    fn a_flood_does_not_reach_what_is_kept_and_nobody_keeps_it_all() {
        let slots = Slots::new(LIMITS);
        let mut kept: Vec<_> = (0..3).map(|_| slots.take([source(1)])).collect();
        assert!(kept.iter().all(|(slot, _)| slot.keep()));
        let (fourth, _lost) = slots.take([source(1)]);
        assert!(!fourth.keep(), "a source keeps three");
        let _flood: Vec<_> = (0..100).map(|_| slots.take([source(1)])).collect();
        assert!(kept.iter_mut().all(|(_, lost)| !is_lost(lost)));
        let others: Vec<_> = (2..5).map(|last| slots.take([source(last)])).collect();
        assert!(others.iter().all(|(slot, _)| slot.keep()));
        let (seventh, _lost) = slots.take([source(9)]);
        assert!(!seventh.keep(), "six in all");
        seventh.welcome();
        assert_eq!(slots.kept(), 7);
    }

    #[test]
    fn what_is_let_go_is_open_again_and_what_is_dropped_is_free() {
        let slots = Slots::new(LIMITS);
        let (slot, mut lost) = slots.take([source(1)]);
        assert!(slot.keep() && slot.keep());
        let flood: Vec<_> = (0..100).map(|_| slots.take([source(1)])).collect();
        for (slot, _) in &flood {
            slot.heard();
        }
        slot.let_go();
        assert!(is_lost(&mut lost), "its source has its fill without it");
        assert!(!slot.keep(), "it is gone");
        drop((slot, flood));
        let state = slots.lock();
        assert_eq!((state.taken.len(), state.open.all, state.kept.all), (0, 0, 0));
        assert!(state.open.by.is_empty() && state.kept.by.is_empty());
    }

    #[test]
    fn room_is_made_on_demand() {
        let slots = Slots::new(LIMITS);
        let (slot, mut lost) = slots.take([source(1)]);
        assert!(slots.free_one() && is_lost(&mut lost));
        assert!(!slots.free_one());
        drop(slot);
    }
}
