//! The protocols between two parties, driven over their link.
//!
//! What is computed here takes a processor for a while: it runs on a thread of its own.

use std::sync::Arc;

use convelo_channel::os_rng;
use convelo_mpc::vole::Hybrid;
use convelo_mpc::{ecdh, vole_psi};
use convelo_psi::{Bitmap, Protocol, What};
use convelo_wire::Bytes;
use zeroize::Zeroizing;

use super::link::{Link, Ready};
use crate::error::{Error, Kind};
use crate::event::{Event, Observer};

/// What both parties have agreed on before the protocol.
#[derive(Clone, Copy)]
pub(crate) struct Session {
    pub(crate) protocol: Protocol,
    /// What all messages are bound to.
    pub(crate) sid: [u8; 32],
    /// Whether this party is the receiver, which learns the result first.
    pub(crate) receives: bool,
    pub(crate) what: What,
    pub(crate) both_learn: bool,
    /// How many items this party has, and the other.
    pub(crate) items: [usize; 2],
}

/// What this party learns.
pub(crate) enum Learnt {
    /// Which of its items both have.
    Marks(Bitmap),
    /// How many both have.
    Count(u64),
    Nothing,
}

impl Session {
    fn receiver_and_sender(&self) -> (usize, usize) {
        let [own, other] = self.items;
        if self.receives { (own, other) } else { (other, own) }
    }

    /// Runs the protocol on these items.
    pub(crate) async fn run(
        self,
        link: &Link,
        items: Zeroizing<Vec<u128>>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Learnt, Error> {
        let steps = Steps { observer, done: 0, total: 1 };
        match (self.protocol, self.receives) {
            (Protocol::Vole, true) => self.vole_receiver(link, items, steps).await,
            (Protocol::Vole, false) => self.vole_sender(link, items, steps).await,
            (Protocol::Ecdh, true) => self.ecdh_receiver(link, items, steps).await,
            (Protocol::Ecdh, false) => self.ecdh_sender(link, items, steps).await,
        }
    }

    fn vole(&self) -> vole_psi::Session {
        let (receiver_items, sender_items) = self.receiver_and_sender();
        let (sid, both_learn) = (self.sid, self.both_learn);
        vole_psi::Session { sid, receiver_items, sender_items, hybrid: Hybrid::Yes, both_learn }
    }

    async fn vole_receiver(
        self,
        link: &Link,
        items: Zeroizing<Vec<u128>>,
        mut steps: Steps<'_>,
    ) -> Result<Learnt, Error> {
        let refused = |error: vole_psi::Error| refused(link, error);
        let receiver = vole_psi::ReceiverStart::new(self.vole(), items).map_err(refused)?;
        let choice = link.receive().await?;
        let (mut receiver, answer) = receiver.choice(&choice, &mut os_rng()).map_err(refused)?;
        link.send(answer).await?;
        steps.expect(receiver.remaining());
        while receiver.remaining() > 0 {
            let trees = link.receive().await?;
            let masked = receiver.trees(&trees).map_err(refused)?;
            drop(trees);
            link.send(masked).await?;
            steps.done();
        }
        let Ok(mut receiver) = receiver.masked() else { return Err(unfinished()) };
        steps.expect(receiver.remaining());
        while receiver.remaining() > 0 {
            receiver.tags(&link.receive().await?).map_err(refused)?;
            steps.done();
        }
        let Ok((marks, told)) = receiver.finish() else { return Err(unfinished()) };
        if let Some(told) = told {
            link.send(told).await?;
        }
        Ok(Learnt::Marks(marks))
    }

    async fn vole_sender(
        self,
        link: &Link,
        items: Zeroizing<Vec<u128>>,
        mut steps: Steps<'_>,
    ) -> Result<Learnt, Error> {
        let refused = |error: vole_psi::Error| refused(link, error);
        let rng = &mut os_rng();
        let (sender, choice) =
            vole_psi::SenderStart::new(self.vole(), items, rng).map_err(refused)?;
        link.send(choice).await?;
        let mut sender = sender.answer(&link.receive().await?).map_err(refused)?;
        steps.expect(sender.remaining());
        // One part ahead, so that both sides have something to compute.
        let mut trees = sender.trees(rng);
        while sender.remaining() > 0 {
            if let Some(message) = trees {
                link.send(message).await?;
            }
            trees = sender.trees(rng);
            sender.masked(&link.receive().await?).map_err(refused)?;
            steps.done();
        }
        let Ok(mut sender) = sender.unmasked() else { return Err(unfinished()) };
        while let Some(tags) = sender.tags() {
            link.send(tags).await?;
        }
        match sender.sent() {
            None => Ok(Learnt::Nothing),
            Some(sender) => {
                let marks = sender.matches(&link.receive().await?).map_err(refused)?;
                Ok(Learnt::Marks(marks))
            }
        }
    }

    fn ecdh(&self) -> ecdh::Session {
        let (receiver_items, sender_items) = self.receiver_and_sender();
        let learn = match self.what {
            What::Intersection => ecdh::Learn::Intersection,
            What::Count => ecdh::Learn::Count,
        };
        let (sid, both_learn) = (self.sid, self.both_learn);
        ecdh::Session { sid, receiver_items, sender_items, learn, both_learn }
    }

    async fn ecdh_receiver(
        self,
        link: &Link,
        items: Zeroizing<Vec<u128>>,
        mut steps: Steps<'_>,
    ) -> Result<Learnt, Error> {
        let refused = |error: ecdh::Error| refused(link, error);
        let session = self.ecdh();
        let mut receiver = ecdh::Receiver::new(session, items, &mut os_rng()).map_err(refused)?;
        steps.expect(session.blinded_messages() + session.points_messages());
        let mut more = true;
        while !receiver.is_complete() {
            let ready = if more { link.ready().await? } else { link.receive().await?.into() };
            let Ready::Message(message) = ready else {
                match receiver.blinded() {
                    Some(message) => link.send(message).await?,
                    None => more = false,
                }
                continue;
            };
            match message.split_first() {
                Some((&POINTS, points)) => receiver.points(points).map_err(refused)?,
                Some((&TAGS, tags)) => receiver.tags(tags).map_err(refused)?,
                _ => return Err(link.refused("a message that is neither points nor tags")),
            }
            steps.done();
        }
        let Ok((learnt, told)) = receiver.finish() else { return Err(unfinished()) };
        if let Some(told) = told {
            link.send(told).await?;
        }
        Ok(learnt.into())
    }

    async fn ecdh_sender(
        self,
        link: &Link,
        items: Zeroizing<Vec<u128>>,
        mut steps: Steps<'_>,
    ) -> Result<Learnt, Error> {
        let refused = |error: ecdh::Error| refused(link, error);
        let session = self.ecdh();
        let mut sender = ecdh::Sender::new(session, items, &mut os_rng()).map_err(refused)?;
        steps.expect(session.blinded_messages());
        let mut more = true;
        while !sender.is_complete() {
            if let Some(tags) = sender.tags() {
                link.send(marked(TAGS, tags)).await?;
                continue;
            }
            let ready = if more { link.ready().await? } else { link.receive().await?.into() };
            let Ready::Message(message) = ready else {
                match sender.points() {
                    Some(points) => link.send(marked(POINTS, points)).await?,
                    None => more = false,
                }
                continue;
            };
            sender.blinded(&message).map_err(refused)?;
            steps.done();
        }
        if !self.both_learn {
            return Ok(Learnt::Nothing);
        }
        Ok(sender.matches(&link.receive().await?).map_err(refused)?.into())
    }
}

/// What the sender's messages begin with, because it sends two kinds as they are made.
const POINTS: u8 = 1;
const TAGS: u8 = 2;

fn marked(kind: u8, message: Vec<u8>) -> Bytes {
    let mut marked = Vec::with_capacity(1 + message.len());
    marked.push(kind);
    marked.extend(message);
    marked.into()
}

impl From<ecdh::Learnt> for Learnt {
    fn from(learnt: ecdh::Learnt) -> Self {
        match learnt {
            ecdh::Learnt::Intersection(marks) => Self::Marks(marks),
            ecdh::Learnt::Count(count) => Self::Count(count),
        }
    }
}

/// What a protocol refuses is what the other side sent, unless it is about this party's own set.
trait OfOwnSet: std::fmt::Display {
    fn is_of_own_set(&self) -> bool;
}

impl OfOwnSet for vole_psi::Error {
    fn is_of_own_set(&self) -> bool {
        matches!(self, Self::Size(_) | Self::Items { .. } | Self::Encode(_))
    }
}

impl OfOwnSet for ecdh::Error {
    fn is_of_own_set(&self) -> bool {
        matches!(self, Self::Size(_) | Self::Items { .. })
    }
}

fn refused(link: &Link, error: impl OfOwnSet) -> Error {
    if error.is_of_own_set() {
        let text = format!("this party's set: {error}; nothing was learnt, run the job again");
        return Error::new(Kind::Job, text);
    }
    link.refused(error)
}

pub(super) fn unfinished() -> Error {
    Error::new(Kind::Job, "the protocol ended early in the program itself")
}

/// How far the protocol is.
struct Steps<'o> {
    observer: &'o Arc<dyn Observer>,
    done: u64,
    total: u64,
}

impl Steps<'_> {
    fn expect(&mut self, more: usize) {
        self.total += more as u64;
        self.report();
    }

    fn done(&mut self) {
        self.done += 1;
        self.report();
    }

    fn report(&self) {
        let (done, total) = (self.done, self.total);
        self.observer.on(Event::Exchanging { done, total });
    }
}
