//! The memory of the conversation with one peer: which of its messages have arrived, and which
//! default ids come next. Pure.

use std::collections::{BTreeSet, VecDeque};

use crate::limits::SEQUENCE_WINDOW;

/// How many of a peer's ended sessions are remembered, to recognise their late messages.
const REMEMBERED_SESSIONS: usize = 16;

/// The messages of one peer that have arrived, by session and number.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    session_id: Option<u64>,
    /// The connection on which the session was first seen; connections are numbered in the order
    /// they were made.
    met_on: u64,
    past: VecDeque<u64>,
    floor: u64,
    settled: BTreeSet<u64>,
}

/// What a session id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// The first one ever.
    First,
    /// The current one.
    Same,
    /// Another one: the peer lost its state.
    Restarted,
    /// One that has ended: the message is late.
    Past,
}

/// What a sequence number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not arrived yet.
    New,
    /// It has already arrived.
    Settled,
    /// Too many numbers after the first missing one are settled to keep track of more: the missing
    /// one has to come first, and is always accepted.
    TooFarAhead,
}

impl Seen {
    /// Judges a session id on this connection. An unknown one on a connection older than the
    /// current session was left behind by a dead process.
    pub(crate) fn session(&self, session_id: u64, connection: u64) -> Session {
        match self.session_id {
            None => Session::First,
            Some(current) if current == session_id => Session::Same,
            Some(_) if connection < self.met_on || self.past.contains(&session_id) => Session::Past,
            Some(_) => Session::Restarted,
        }
    }

    pub(crate) fn session_id(&self) -> Option<u64> {
        self.session_id
    }

    /// Begins a session.
    pub(crate) fn begin(&mut self, session_id: u64, connection: u64) {
        self.met_on = connection;
        if let Some(past) = self.session_id.replace(session_id) {
            self.past.push_back(past);
            if self.past.len() > REMEMBERED_SESSIONS {
                self.past.pop_front();
            }
        }
        self.floor = 0;
        self.settled.clear();
    }

    /// Looks up a number; the sender has settled all numbers below `floor`.
    pub(crate) fn arrives(&mut self, number: u64, floor: u64) -> Standing {
        if floor > self.floor && floor <= number {
            self.floor = floor;
            self.settled = self.settled.split_off(&floor);
        }
        if number < self.floor || self.settled.contains(&number) {
            Standing::Settled
        } else if self.settled.len() >= SEQUENCE_WINDOW && number != self.floor {
            Standing::TooFarAhead
        } else {
            Standing::New
        }
    }

    pub(crate) fn is_settled(&self, number: u64) -> bool {
        number < self.floor || self.settled.contains(&number)
    }

    /// The message has been delivered; false if it already had been.
    pub(crate) fn settle(&mut self, number: u64) -> bool {
        if number < self.floor {
            return false;
        }
        if number == self.floor {
            self.floor += 1;
            while self.settled.remove(&self.floor) {
                self.floor += 1;
            }
            return true;
        }
        self.settled.insert(number)
    }
}

/// A message's place among all messages in its direction. A message with a chosen id takes a place
/// too, as in the genuine packages: the next message's default id must be the same there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The number, which is the default id.
    pub(crate) number: u64,
    /// Whether the number is also the message's id.
    pub(crate) is_default: bool,
    session: u32,
}

/// The places of one direction: 0, 1, 2 …; one that was not used is reused next.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    next: u64,
    session: u32,
    returned: BTreeSet<u64>,
}

impl Counter {
    pub(crate) fn take(&mut self, is_default: bool) -> Place {
        let number = self.returned.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        Place { number, is_default, session: self.session }
    }

    /// Starts at 0 again; places taken before can no longer be returned.
    pub(crate) fn reset(&mut self) {
        *self = Self { session: self.session.wrapping_add(1), ..Self::default() };
    }

    pub(crate) fn give_back(&mut self, place: Place) {
        if place.session != self.session || place.number >= self.next {
            return;
        }
        self.returned.insert(place.number);
        while self.next > 0 && self.returned.remove(&(self.next - 1)) {
            self.next -= 1;
        }
    }

    /// The next id.
    pub(crate) fn peek(&self) -> u64 {
        self.returned.first().copied().unwrap_or(self.next)
    }

    /// How many places are taken.
    pub(crate) fn taken(&self) -> u64 {
        self.next - self.returned.len() as u64
    }

    /// Whether any id has been used.
    pub(crate) fn is_used(&self) -> bool {
        self.next > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_returned_id_is_used_next() {
        let mut counter = Counter::default();
        let places = [counter.take(true), counter.take(false), counter.take(true)];
        assert_eq!(places.map(|place| place.number), [0, 1, 2]);
        counter.give_back(places[1]);
        assert_eq!((counter.peek(), counter.take(true).number), (1, 1));
        let last = counter.take(true);
        assert_eq!(last.number, 3);
        counter.give_back(last);
        counter.give_back(places[2]);
        assert_eq!(counter.take(true).number, 2);
        counter.give_back(last);
        assert_eq!(counter.take(true).number, 3);
    }

    #[test]
    fn a_place_of_an_ended_session_is_not_used_again() {
        let mut counter = Counter::default();
        let stale = counter.take(false);
        counter.reset();
        assert!(!counter.is_used());
        let places = [counter.take(true), counter.take(true)];
        counter.give_back(stale);
        assert_eq!((places[1].number, counter.take(true).number), (1, 2));
    }

    #[test]
    fn sessions() {
        let mut seen = Seen::default();
        assert_eq!(seen.session(5, 0), Session::First);
        seen.begin(5, 0);
        assert_eq!((seen.session(5, 0), seen.session(6, 1)), (Session::Same, Session::Restarted));
        assert!(seen.settle(0));
        seen.begin(6, 1);
        assert_eq!((seen.session(5, 2), seen.session(6, 0)), (Session::Past, Session::Same));
        assert_eq!(seen.arrives(0, 0), Standing::New);
        assert_eq!((seen.session(4, 0), seen.session(4, 2)), (Session::Past, Session::Restarted));
    }

    proptest! {
        /// Numbers arrive in any order, any number of times: each is new exactly once, and the
        /// memory stays small.
        #[test]
        fn each_number_is_new_once(arrivals in proptest::collection::vec(0..50u64, 0..400)) {
            let mut seen = Seen::default();
            seen.begin(1, 0);
            let mut expected = BTreeSet::new();
            for number in arrivals {
                let floor = (0..=50).find(|number| !expected.contains(number)).unwrap();
                let arrival = seen.arrives(number, floor.min(number));
                prop_assert_eq!(arrival == Standing::New, !expected.contains(&number));
                if arrival == Standing::New {
                    prop_assert!(seen.settle(number));
                    expected.insert(number);
                }
                prop_assert!(!seen.settle(number));
                prop_assert!(seen.is_settled(number));
                prop_assert!(seen.settled.len() <= 50);
            }
        }
    }
}
