//! The protocol between three parties or more, driven over their links: a leader, which is the receiver,
//! and members.

use std::sync::Arc;

use convelo_channel::os_rng;
use convelo_mpc::vole::Hybrid;
use convelo_mpc::vole_multi::{
    Error as Refused, Exchange, Found, Leader, LeaderStart, Link as Place, MemberStart, Session,
    Share,
};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use zeroize::Zeroizing;

use super::link::Link;
use super::protocol::{Learnt, unfinished};
use crate::error::{Error, Kind};
use crate::limits::MEMBERS_AT_ONCE;

/// What the parties have agreed on before the protocol.
pub(crate) struct Several {
    /// What all messages are bound to.
    pub(crate) sid: [u8; 32],
    /// The members in their order by name, with whether each is told the result.
    pub(crate) members: Vec<Member>,
    pub(crate) leader_items: usize,
}

/// One member, as far as this party knows.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) told: bool,
    /// How many items it has; 0 if it is none of this party's business.
    pub(crate) items: usize,
}

impl Several {
    fn session(&self) -> Session {
        let (members, leader_items) = (self.members.len(), self.leader_items);
        Session { sid: self.sid, members, leader_items, hybrid: Hybrid::Yes }
    }

    fn place(&self, member: usize) -> Place {
        let Member { told, items, .. } = self.members[member];
        Place { session: self.session(), member, items, told }
    }

    /// The link to a member.
    fn link<'l>(&self, links: &'l [Arc<Link>], member: usize) -> Result<&'l Link, Error> {
        let link = links.iter().find(|link| link.peer() == self.members[member].name);
        link.map(|link| &**link).ok_or_else(unfinished)
    }

    /// The leader's part: it learns which of its items all have.
    pub(crate) async fn lead(
        &self,
        links: &[Arc<Link>],
        items: Zeroizing<Vec<u128>>,
    ) -> Result<Learnt, Error> {
        let own = |error: Refused| of_own_set(&error);
        let mut leader = Leader::new(self.session(), items, &mut os_rng()).map_err(own)?;
        let begun = (0..self.members.len()).map(|member| {
            let start = leader.link(self.place(member)).map_err(own)?;
            Ok((self.link(links, member)?, start))
        });
        let begun: Vec<_> = begun.collect::<Result<_, Error>>()?;
        // Each takes memory while it runs; two of them keep this side busy.
        let mut shares = stream::iter(begun)
            .map(|(link, start)| share(link, start))
            .buffer_unordered(MEMBERS_AT_ONCE);
        while let Some(share) = shares.try_next().await? {
            leader.add(share).map_err(own)?;
        }
        drop(shares);
        let Ok(found) = leader.finish() else { return Err(unfinished()) };
        let telling = (0..self.members.len())
            .map(async |member| tell(self.link(links, member)?, &found, member).await);
        try_join_all(telling).await?;
        Ok(Learnt::Marks(found.marks().clone()))
    }

    /// The part of the member with this number. It agrees with the others on the keys that hide what
    /// not all have, and then has to do with the leader alone.
    pub(crate) async fn join(
        &self,
        number: usize,
        leader: &Link,
        links: &[Arc<Link>],
        items: Zeroizing<Vec<u128>>,
    ) -> Result<Learnt, Error> {
        let own = |error: Refused| of_own_set(&error);
        let rng = &mut os_rng();
        let mut exchange = Exchange::new(self.place(number), rng).map_err(own)?;
        let others: Vec<_> = (0..self.members.len()).filter(|other| *other != number).collect();
        for other in &others {
            self.link(links, *other)?.send(exchange.key(*other).map_err(own)?).await?;
        }
        for other in others {
            let link = self.link(links, other)?;
            let key = link.receive().await?;
            exchange.read(other, &key).map_err(|error| refused(link, &error))?;
        }
        let Ok(keys) = exchange.finish() else { return Err(unfinished()) };
        let refused = |error: Refused| refused(leader, &error);
        let (member, choice) = MemberStart::new(keys, items, rng).map_err(own)?;
        leader.send(choice).await?;
        let mut member = member.answer(&leader.receive().await?).map_err(refused)?;
        let mut trees = member.trees(rng);
        while member.remaining() > 0 {
            if let Some(message) = trees {
                leader.send(message).await?;
            }
            trees = member.trees(rng);
            member.masked(&leader.receive().await?).map_err(refused)?;
        }
        let Ok(mut member) = member.unmasked(rng) else { return Err(unfinished()) };
        while let Some(shares) = member.shares().map_err(own)? {
            leader.send(shares).await?;
        }
        let Ok(waiting) = member.sent() else { return Err(unfinished()) };
        let Some(waiting) = waiting else { return Ok(Learnt::Nothing) };
        let mut told = waiting.found(&leader.receive().await?).map_err(refused)?;
        while told.remaining() > 0 {
            told.tags(&leader.receive().await?).map_err(refused)?;
        }
        let Ok(marks) = told.finish() else { return Err(unfinished()) };
        Ok(Learnt::Marks(marks))
    }
}

/// What one member adds, as it comes over its link.
async fn share(link: &Link, start: LeaderStart) -> Result<Share, Error> {
    let refused = |error: Refused| refused(link, &error);
    let choice = link.receive().await?;
    let (mut leader, answer) = start.choice(&choice, &mut os_rng()).map_err(refused)?;
    link.send(answer).await?;
    while leader.remaining() > 0 {
        let trees = link.receive().await?;
        let masked = leader.trees(&trees).map_err(refused)?;
        drop(trees);
        link.send(masked).await?;
    }
    let Ok(mut leader) = leader.masked() else { return Err(unfinished()) };
    while leader.remaining() > 0 {
        leader.shares(&link.receive().await?).map_err(refused)?;
    }
    leader.finish().map_err(|_| unfinished())
}

/// Tells a member the result, if it is to learn it.
async fn tell(link: &Link, found: &Found, member: usize) -> Result<(), Error> {
    let Some(mut telling) = found.tell(member) else { return Ok(()) };
    while let Some(message) = telling.message() {
        link.send(message).await?;
    }
    Ok(())
}

fn refused(link: &Link, error: &Refused) -> Error {
    match error {
        Refused::Size(_) | Refused::Items { .. } | Refused::Encode(_) => of_own_set(error),
        error => link.refused(error),
    }
}

fn of_own_set(error: &Refused) -> Error {
    let text = format!("this party's set: {error}; nothing was learnt, run the job again");
    Error::new(Kind::Job, text)
}
