//! The mailbox of one peer: messages that nobody has asked for yet, and receivers whose message has
//! not arrived yet.
//!
//! Pure: no locks, no clock. Its owner keeps it behind a lock, and acts on what an operation
//! returned after releasing the lock.
//!
//! Messages with the same id leave in order of arrival, even if one that was handed out is put
//! back; for that, each carries the [`Order`] that the mailbox gave it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::message::MessageId;
pub use crate::message::{Order, Ordered};

/// Tables with room for more entries than this give it back once they are empty.
const ROOM_KEPT: usize = 1 << 10;

/// What happened to a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivered<M, W> {
    /// It is waiting for a receiver.
    Parked,
    /// It is for this receiver, which has left the mailbox.
    To(W, M),
}

/// What happened to a receiver.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<M, W> {
    /// Its message was already there, and has left the mailbox.
    Now(M, W),
    /// It is waiting.
    Waiting,
}

/// A receiver removed without a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiter<W> {
    /// The token it was registered with.
    pub token: u64,
    /// The id it waited for.
    pub id: MessageId,
    /// The receiver.
    pub waiter: W,
}

/// The contents of a mailbox when it was closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents<W> {
    /// All receivers, in order of arrival.
    pub waiting: Vec<Waiter<W>>,
    /// The ids of all messages, each once per message.
    pub parked: Vec<MessageId>,
}

/// Messages and receivers of one peer, matched by id.
#[derive(Debug)]
pub struct Mailbox<M, W> {
    slots: HashMap<MessageId, Slot<M, W>>,
    /// For each token, the id it is waiting for and its place among all receivers.
    tokens: HashMap<u64, (MessageId, u64)>,
    messages: u64,
    receivers: u64,
}

/// An id has messages or receivers, never both, and never neither.
#[derive(Debug)]
enum Slot<M, W> {
    Parked(VecDeque<M>),
    Waiting(VecDeque<Place<W>>),
}

#[derive(Debug)]
struct Place<W> {
    number: u64,
    token: u64,
    waiter: W,
}

impl<M: Ordered, W> Mailbox<M, W> {
    /// An empty mailbox.
    pub fn new() -> Self {
        Self { slots: HashMap::new(), tokens: HashMap::new(), messages: 0, receivers: 0 }
    }

    /// A message has arrived.
    pub fn deliver(&mut self, id: MessageId, mut message: M) -> Delivered<M, W> {
        self.messages += 1;
        *message.order() = Order(self.messages);
        self.place(id, message, VecDeque::push_back)
    }

    /// A message that [`Self::deliver`] or [`Self::receive`] handed out was not taken: it goes to
    /// the next receiver, or back to its place.
    pub fn put_back(&mut self, id: MessageId, message: M) -> Delivered<M, W> {
        self.place(id, message, |parked, mut message| {
            let order = *message.order();
            let later = parked.iter_mut().position(|other| *other.order() > order);
            parked.insert(later.unwrap_or(parked.len()), message);
        })
    }

    /// Asks for the message with this id. `token` is the caller's name for this receiver; no other
    /// receiver waiting here may have the same one.
    pub fn receive(&mut self, id: MessageId, waiter: W, token: u64) -> Received<M, W> {
        let mut slot = match self.slots.entry(id.clone()) {
            Entry::Occupied(slot) => slot,
            Entry::Vacant(slot) => slot.insert_entry(Slot::Waiting(VecDeque::with_capacity(1))),
        };
        match slot.get_mut() {
            Slot::Waiting(waiting) => {
                self.receivers += 1;
                waiting.push_back(Place { number: self.receivers, token, waiter });
                let known = self.tokens.insert(token, (id, self.receivers));
                debug_assert!(known.is_none(), "the token {token} is already waiting");
                Received::Waiting
            }
            Slot::Parked(parked) => {
                let message = parked.pop_front().expect("a slot is not empty");
                if parked.is_empty() {
                    slot.remove();
                    self.shrink();
                }
                Received::Now(message, waiter)
            }
        }
    }

    /// Removes a receiver, if it is still waiting.
    pub fn cancel(&mut self, token: u64) -> Option<W> {
        let (id, number) = self.tokens.remove(&token)?;
        let Entry::Occupied(mut slot) = self.slots.entry(id) else { return None };
        let Slot::Waiting(waiting) = slot.get_mut() else { return None };
        let index = waiting.binary_search_by_key(&number, |place| place.number).ok()?;
        let place = waiting.remove(index)?;
        if waiting.is_empty() {
            slot.remove();
        }
        self.shrink();
        Some(place.waiter)
    }

    /// Removes all receivers, in order of arrival. Messages stay.
    pub fn take_waiting(&mut self) -> Vec<Waiter<W>> {
        let mut taken = Vec::with_capacity(self.tokens.len());
        self.slots.retain(|id, slot| match slot {
            Slot::Parked(_) => true,
            Slot::Waiting(waiting) => {
                taken.extend(waiting.drain(..).map(|place| (id.clone(), place)));
                false
            }
        });
        self.tokens.clear();
        self.shrink();
        taken.sort_unstable_by_key(|(_, place)| place.number);
        taken
            .into_iter()
            .map(|(id, place)| Waiter { token: place.token, id, waiter: place.waiter })
            .collect()
    }

    /// Takes the first message with this id, if there is one.
    pub fn take_parked(&mut self, id: &MessageId) -> Option<M> {
        let Slot::Parked(parked) = self.slots.get_mut(id)? else { return None };
        let message = parked.pop_front();
        if parked.is_empty() {
            self.slots.remove(id);
            self.shrink();
        }
        message
    }

    /// Whether a message with this id is here.
    pub fn is_parked(&self, id: &MessageId) -> bool {
        matches!(self.slots.get(id), Some(Slot::Parked(_)))
    }

    /// Whether anybody is waiting for this id.
    pub fn is_awaited(&self, id: &MessageId) -> bool {
        matches!(self.slots.get(id), Some(Slot::Waiting(_)))
    }

    /// Drops all messages and returns their ids, in order of arrival, each once per message.
    /// Receivers stay.
    pub fn drop_parked(&mut self) -> Vec<MessageId> {
        self.drop_parked_if(|_| true)
    }

    /// The same, for chosen ids only.
    pub fn drop_parked_if(&mut self, mut chosen: impl FnMut(&MessageId) -> bool) -> Vec<MessageId> {
        let mut dropped = Vec::new();
        self.slots.retain(|id, slot| match slot {
            Slot::Parked(parked) if chosen(id) => {
                dropped.extend(parked.iter_mut().map(|message| (*message.order(), id.clone())));
                false
            }
            _ => true,
        });
        self.shrink();
        dropped.sort_unstable_by_key(|(order, _)| *order);
        dropped.into_iter().map(|(_, id)| id).collect()
    }

    /// Empties the mailbox: removes all receivers and drops all messages.
    pub fn close(&mut self) -> Contents<W> {
        Contents { waiting: self.take_waiting(), parked: self.drop_parked() }
    }

    /// The ids that have messages here, each with the number of messages.
    pub fn parked(&self) -> impl Iterator<Item = (&MessageId, usize)> {
        self.slots.iter().filter_map(|(id, slot)| match slot {
            Slot::Parked(parked) => Some((id, parked.len())),
            Slot::Waiting(_) => None,
        })
    }

    /// The number of waiting receivers.
    pub fn waiting(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing is parked and nobody is waiting.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many entries fit without allocating: what keeping the mailbox costs.
    pub fn capacity(&self) -> usize {
        self.slots.capacity() + self.tokens.capacity()
    }

    fn place(
        &mut self,
        id: MessageId,
        message: M,
        park: impl FnOnce(&mut VecDeque<M>, M),
    ) -> Delivered<M, W> {
        let mut slot = match self.slots.entry(id) {
            Entry::Occupied(slot) => slot,
            Entry::Vacant(slot) => {
                slot.insert(Slot::Parked(VecDeque::from([message])));
                return Delivered::Parked;
            }
        };
        match slot.get_mut() {
            Slot::Parked(parked) => {
                park(parked, message);
                Delivered::Parked
            }
            Slot::Waiting(waiting) => {
                let place = waiting.pop_front().expect("a slot is not empty");
                if waiting.is_empty() {
                    slot.remove();
                }
                self.tokens.remove(&place.token);
                self.shrink();
                Delivered::To(place.waiter, message)
            }
        }
    }

    fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > ROOM_KEPT {
            self.slots.shrink_to(ROOM_KEPT / 2);
        }
        if self.tokens.is_empty() && self.tokens.capacity() > ROOM_KEPT {
            self.tokens.shrink_to(ROOM_KEPT / 2);
        }
    }
}

impl<M: Ordered, W> Default for Mailbox<M, W> {
    fn default() -> Self {
        Self::new()
    }
}
