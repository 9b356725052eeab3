//! The mailbox against a naive one, and under every interleaving of those who share it.

use std::collections::HashMap;

use convelo_pool::MessageId;
use convelo_pool::mailbox::{Delivered, Mailbox, Order, Ordered, Received, Waiter};
use proptest::collection::vec;
use proptest::prelude::*;

/// A message with a number of its own.
#[derive(Debug, PartialEq, Eq)]
struct Message(u32, Order);

impl Message {
    fn new(number: u32) -> Self {
        Self(number, Order::default())
    }
}

impl Ordered for Message {
    fn order(&mut self) -> &mut Order {
        &mut self.1
    }
}

fn id(number: u8) -> MessageId {
    if number.is_multiple_of(2) {
        i64::from(number).into()
    } else {
        number.to_string().as_str().into()
    }
}

/// What is done to both.
#[derive(Clone, Debug)]
enum Step {
    Deliver(u8),
    Receive(u8),
    /// One of the receivers there ever were.
    Cancel(usize),
    /// One of the messages that were handed out.
    PutBack(usize),
    TakeWaiting,
    DropParked(u8),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_u8).prop_map(Step::Deliver),
        10 => (0..4_u8).prop_map(Step::Receive),
        4 => any::<usize>().prop_map(Step::Cancel),
        6 => any::<usize>().prop_map(Step::PutBack),
        1 => Just(Step::TakeWaiting),
        1 => (0..4_u8).prop_map(Step::DropParked),
        1 => Just(Step::Close),
    ]
}

/// Two lists that are searched from the front.
#[derive(Default)]
struct Naive {
    /// Numbers of messages are the order in which they were delivered.
    parked: Vec<(u8, u32)>,
    waiting: Vec<(u8, u64)>,
}

impl Naive {
    /// Who gets it.
    fn give(&mut self, id: u8, number: u32) -> Option<u64> {
        if let Some(index) = self.waiting.iter().position(|(other, _)| *other == id) {
            return Some(self.waiting.remove(index).1);
        }
        self.parked.push((id, number));
        self.parked.sort_by_key(|(_, number)| *number);
        None
    }

    fn take(&mut self, id: u8, token: u64) -> Option<u32> {
        let Some(index) = self.parked.iter().position(|(other, _)| *other == id) else {
            self.waiting.push((id, token));
            return None;
        };
        Some(self.parked.remove(index).1)
    }
}

fn waiters(naive: &mut Naive) -> Vec<Waiter<u64>> {
    let waiters = naive.waiting.drain(..);
    waiters.map(|(number, token)| Waiter { token, id: id(number), waiter: token * 7 }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn does_what_the_naive_one_does(steps in vec(step(), 0..80)) {
        let mut mailbox = Mailbox::new();
        let mut naive = Naive::default();
        let (mut numbers, mut tokens) = (0_u32, 0_u64);
        let mut out: Vec<(u8, Message)> = Vec::new();
        for step in steps {
            match step {
                Step::Deliver(to) => {
                    numbers += 1;
                    let expected = naive.give(to, numbers);
                    match mailbox.deliver(id(to), Message::new(numbers)) {
                        Delivered::Parked => prop_assert_eq!(expected, None),
                        Delivered::To(waiter, message) => {
                            prop_assert_eq!(expected, Some(waiter / 7));
                            prop_assert_eq!(message.0, numbers);
                            out.push((to, message));
                        }
                    }
                }
                Step::Receive(from) => {
                    tokens += 1;
                    let expected = naive.take(from, tokens);
                    match mailbox.receive(id(from), tokens * 7, tokens) {
                        Received::Waiting => prop_assert_eq!(expected, None),
                        Received::Now(message, waiter) => {
                            prop_assert_eq!(waiter, tokens * 7);
                            prop_assert_eq!(expected, Some(message.0));
                            out.push((from, message));
                        }
                    }
                }
                Step::Cancel(which) => {
                    let token = which as u64 % (tokens + 1);
                    let place = naive.waiting.iter().position(|(_, other)| *other == token);
                    let expected = place.map(|index| naive.waiting.remove(index).1 * 7);
                    prop_assert_eq!(mailbox.cancel(token), expected);
                    prop_assert_eq!(mailbox.cancel(token), None);
                }
                Step::PutBack(which) => {
                    if out.is_empty() {
                        continue;
                    }
                    let (to, message) = out.remove(which % out.len());
                    let number = message.0;
                    let expected = naive.give(to, number);
                    match mailbox.put_back(id(to), message) {
                        Delivered::Parked => prop_assert_eq!(expected, None),
                        Delivered::To(waiter, message) => {
                            prop_assert_eq!(expected, Some(waiter / 7));
                            prop_assert_eq!(message.0, number);
                            out.push((to, message));
                        }
                    }
                }
                Step::TakeWaiting => {
                    prop_assert_eq!(mailbox.take_waiting(), waiters(&mut naive));
                }
                Step::DropParked(which) => {
                    let dropped = mailbox.drop_parked_if(|other| *other == id(which));
                    let there = naive.parked.iter().filter(|(other, _)| *other == which).count();
                    prop_assert_eq!(dropped, vec![id(which); there]);
                    naive.parked.retain(|(other, _)| *other != which);
                }
                Step::Close => {
                    let contents = mailbox.close();
                    prop_assert_eq!(contents.waiting, waiters(&mut naive));
                    let parked: Vec<MessageId> =
                        naive.parked.drain(..).map(|(number, _)| id(number)).collect();
                    prop_assert_eq!(contents.parked, parked);
                }
            }
            let counts: HashMap<MessageId, usize> =
                mailbox.parked().map(|(id, count)| (id.clone(), count)).collect();
            let mut expected: HashMap<MessageId, usize> = HashMap::new();
            for (number, _) in &naive.parked {
                *expected.entry(id(*number)).or_default() += 1;
            }
            prop_assert_eq!(counts, expected);
            prop_assert_eq!(mailbox.waiting(), naive.waiting.len());
            prop_assert_eq!(mailbox.is_empty(), naive.parked.is_empty() && naive.waiting.is_empty());
        }
    }
}

#[test]
fn messages_that_are_put_back_keep_their_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let mut mailbox: Mailbox<Message, ()> = Mailbox::new();
        let mut out: Vec<Option<Message>> = Vec::new();
        for token in 0..3 {
            assert_eq!(mailbox.receive(id(1), (), token), Received::Waiting);
        }
        for number in 0..3 {
            let Delivered::To((), message) = mailbox.deliver(id(1), Message::new(number)) else {
                panic!("nobody waits");
            };
            out.push(Some(message));
        }
        assert_eq!(mailbox.deliver(id(1), Message::new(3)), Delivered::Parked);
        for index in order {
            let message = out[index].take().unwrap();
            assert_eq!(mailbox.put_back(id(1), message), Delivered::Parked);
        }
        for number in 0..4 {
            let Received::Now(message, ()) = mailbox.receive(id(1), (), 9) else {
                panic!("nothing is there");
            };
            assert_eq!(message.0, number);
        }
        assert!(mailbox.is_empty());
    }
}

#[test]
fn nothing_grows_over_a_million_messages() {
    let mut mailbox: Mailbox<Message, u64> = Mailbox::new();
    let mut first = 0;
    for number in 0..1_000_000_u32 {
        let id = MessageId::from(i64::from(number));
        let token = u64::from(number);
        // Parked first, waited for first, or given up.
        match number % 3 {
            0 => {
                assert_eq!(mailbox.deliver(id.clone(), Message::new(number)), Delivered::Parked);
                assert!(matches!(mailbox.receive(id, 0, token), Received::Now(..)));
            }
            1 => {
                assert_eq!(mailbox.receive(id.clone(), 0, token), Received::Waiting);
                assert!(matches!(mailbox.deliver(id, Message::new(number)), Delivered::To(..)));
            }
            _ => {
                assert_eq!(mailbox.receive(id, 0, token), Received::Waiting);
                assert_eq!(mailbox.cancel(token), Some(0));
            }
        }
        assert!(mailbox.is_empty());
        if number == 1_000 {
            first = mailbox.capacity();
        }
    }
    assert_eq!(mailbox.capacity(), first, "room after a thousand and after a million");
}

#[test]
fn a_flood_leaves_no_room_behind() {
    let mut mailbox: Mailbox<Message, u64> = Mailbox::new();
    for number in 0..100_000_u32 {
        mailbox.deliver(i64::from(number).into(), Message::new(number));
        mailbox.receive((-1 - i64::from(number)).into(), 0, number.into());
    }
    assert!(mailbox.capacity() >= 200_000);
    for number in 0..100_000_u32 {
        assert!(matches!(mailbox.receive(i64::from(number).into(), 0, 1 << 40), Received::Now(..)));
        assert!(mailbox.cancel(number.into()).is_some());
    }
    assert!(mailbox.capacity() < 10_000, "room for {} entries", mailbox.capacity());

    for number in 0..100_000_u32 {
        mailbox.deliver(i64::from(number).into(), Message::new(number));
    }
    assert_eq!(mailbox.close().parked.len(), 100_000);
    assert!(mailbox.capacity() < 10_000, "room for {} entries", mailbox.capacity());
}

/// What the lock's owner does, on the threads of `loom` and on ordinary ones. A waiter is the number
/// of its receiver; whether it was cancelled is known only to its owner, as with a future that is
/// dropped.
macro_rules! shared {
    ($name:ident, $sync:path, $thread:path) => {
        mod $name {
            use std::mem;

            use super::*;
            use $sync::{Arc, Mutex};
            use $thread as thread;

            #[derive(Debug, Default, PartialEq, Eq)]
            enum Slot {
                #[default]
                Waiting,
                Got(u32),
                Cancelled,
            }

            pub(super) struct Shared {
                mailbox: Mutex<Mailbox<Message, usize>>,
                receivers: [Mutex<Slot>; 2],
            }

            impl Shared {
                pub(super) fn new() -> Arc<Self> {
                    Arc::new(Self {
                        mailbox: Mutex::new(Mailbox::new()),
                        receivers: [Mutex::default(), Mutex::default()],
                    })
                }

                /// Gives a message to its receiver outside of the mailbox's lock. One that has been
                /// cancelled meanwhile does not take it: it is put back.
                fn hand_over(&self, mut delivered: Delivered<Message, usize>) {
                    while let Delivered::To(receiver, message) = delivered {
                        let mut slot = self.receivers[receiver].lock().unwrap();
                        if *slot == Slot::Waiting {
                            *slot = Slot::Got(message.0);
                            return;
                        }
                        drop(slot);
                        delivered = self.mailbox.lock().unwrap().put_back(id(0), message);
                    }
                }

                pub(super) fn deliver(&self, number: u32) {
                    let message = Message::new(number);
                    let delivered = self.mailbox.lock().unwrap().deliver(id(0), message);
                    self.hand_over(delivered);
                }

                pub(super) fn receive(&self, receiver: usize) {
                    let token = receiver as u64;
                    let received = self.mailbox.lock().unwrap().receive(id(0), receiver, token);
                    if let Received::Now(message, receiver) = received {
                        self.hand_over(Delivered::To(receiver, message));
                    }
                }

                /// Cancels a receiver; says what it had got before.
                pub(super) fn cancel(&self, receiver: usize) -> Option<u32> {
                    let before = {
                        let mut slot = self.receivers[receiver].lock().unwrap();
                        mem::replace(&mut *slot, Slot::Cancelled)
                    };
                    match before {
                        Slot::Got(number) => Some(number),
                        _ => {
                            self.mailbox.lock().unwrap().cancel(receiver as u64);
                            None
                        }
                    }
                }

                /// What a receiver has in the end.
                pub(super) fn got(&self, receiver: usize) -> Option<u32> {
                    match *self.receivers[receiver].lock().unwrap() {
                        Slot::Got(number) => Some(number),
                        _ => None,
                    }
                }

                /// What is left in the mailbox, in its order.
                pub(super) fn left(&self) -> Vec<u32> {
                    let mut mailbox = self.mailbox.lock().unwrap();
                    let mut left = Vec::new();
                    for token in 100.. {
                        match mailbox.receive(id(0), 0, token) {
                            Received::Now(message, _) => left.push(message.0),
                            Received::Waiting => {
                                mailbox.cancel(token);
                                break;
                            }
                        }
                    }
                    left
                }

                pub(super) fn is_empty(&self) -> bool {
                    self.mailbox.lock().unwrap().is_empty()
                }
            }

            /// One message, one receiver that gives up at any moment: it has the message, or the
            /// message is there for the next, and the receiver left no trace.
            pub(super) fn cancelled_while_matched() {
                let shared = Shared::new();
                shared.receive(0);
                let deliverer = {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.deliver(1))
                };
                let had = shared.cancel(0);
                deliverer.join().unwrap();
                match had {
                    Some(number) => assert_eq!((number, shared.left()), (1, vec![])),
                    None => assert_eq!(shared.left(), [1]),
                }
                assert!(shared.is_empty());
            }

            /// Two messages, a receiver that gives up and one that stays: both messages are
            /// somewhere, once, and what is left is in order.
            pub(super) fn deliverer_receiver_and_canceller() {
                let shared = Shared::new();
                shared.receive(0);
                let deliverer = {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        shared.deliver(1);
                        shared.deliver(2);
                    })
                };
                let receiver = {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.receive(1))
                };
                let had = shared.cancel(0);
                deliverer.join().unwrap();
                receiver.join().unwrap();
                let got = shared.got(1).expect("two messages, and one other receiver at most");
                let left = shared.left();
                assert!(left.is_sorted(), "{left:?}");
                let mut all: Vec<u32> = had.into_iter().chain([got]).chain(left).collect();
                all.sort_unstable();
                assert_eq!(all, [1, 2]);
                assert!(shared.is_empty());
            }

            /// Two receivers, of which both give up at any moment, while one message comes.
            pub(super) fn two_cancellers() {
                let shared = Shared::new();
                shared.receive(0);
                shared.receive(1);
                let deliverer = {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.deliver(1))
                };
                let other = {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.cancel(1))
                };
                let had = shared.cancel(0);
                deliverer.join().unwrap();
                let other = other.join().unwrap();
                let all: Vec<u32> = had.into_iter().chain(other).chain(shared.left()).collect();
                assert_eq!(all, [1]);
                assert!(shared.is_empty());
            }
        }
    };
}

shared!(modelled, loom::sync, loom::thread);
shared!(ordinary, std::sync, std::thread);

/// Every interleaving there is.
#[test]
fn modelled_cancelled_while_matched() {
    loom::model(modelled::cancelled_while_matched);
}

#[test]
fn modelled_deliverer_receiver_and_canceller() {
    loom::model(modelled::deliverer_receiver_and_canceller);
}

#[test]
fn modelled_two_cancellers() {
    loom::model(modelled::two_cancellers);
}

/// Some interleavings, on the threads that there are.
#[test]
fn ordinary_threads() {
    for _ in 0..1_000 {
        ordinary::cancelled_while_matched();
        ordinary::deliverer_receiver_and_canceller();
        ordinary::two_cancellers();
    }
}
