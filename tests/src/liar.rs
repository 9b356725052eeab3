//! A service whose program was accepted and which follows the protocol, but makes up the result: it
//! relays what the parties agree on, takes their sets, and marks in each whatever the test says. What
//! it signs agrees with what it marks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::QuoteSource;
use convelo_channel::{Identity, Peer};
use convelo_psi::agreement::{Assembled, Confirmation, KeyOffer, Member, SealedShare};
use convelo_psi::reveal::Told;
use convelo_psi::{Bitmap, Job, KeyId, Outcome, PSEUDONYM_BYTES, SignedStatement, Statement};
use convelo_wire::{Announcement, FromParty, MemberEvidence, NamedConfirmation, ToParty};

use crate::impostor::{Impostor, prove};

/// Every party's set, by its name: pseudonyms in the order in which they were sent.
pub type Sets = BTreeMap<String, Vec<[u8; PSEUDONYM_BYTES]>>;

/// Which of its own pseudonyms each party is told that all parties have, in the same order.
pub type Marks = BTreeMap<String, Vec<bool>>;

/// The service. It runs one job of pinned parties, all of whom learn the intersection.
pub struct Liar {
    /// `127.0.0.1:port`.
    pub address: String,
    _impostor: Impostor,
}

impl Liar {
    /// Starts a service with evidence from `source`, whose result is what `join` says.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn new(
        source: Arc<dyn QuoteSource>,
        join: impl Fn(&Sets) -> Marks + Send + Sync + 'static,
    ) -> Self {
        let identity = Identity::generate();
        let desk = Mutex::new(Desk {
            identity: identity.clone(),
            source: Arc::clone(&source),
            job: None,
            seats: BTreeMap::new(),
        });
        let impostor = Impostor::between(identity, source, move |connection, peer, message| {
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            let messages = desk.answer(connection, peer, message, &join);
            messages.into_iter().map(|(to, message)| (to, Ok(message))).collect()
        });
        Self { address: impostor.address.clone(), _impostor: impostor }
    }
}

struct Desk {
    identity: Identity,
    source: Arc<dyn QuoteSource>,
    job: Option<Job>,
    seats: BTreeMap<String, Seat>,
}

struct Seat {
    connection: usize,
    spki: Vec<u8>,
    offer: KeyOffer,
    shares: Option<Vec<SealedShare>>,
    confirmation: Option<Confirmation>,
    announced: Option<Announcement>,
    set: Vec<[u8; PSEUDONYM_BYTES]>,
}

type Messages = Vec<(usize, convelo_wire::proto::ToParty)>;

impl Desk {
    /// What a message of a party makes it say, and to which connections.
    fn answer(
        &mut self,
        connection: usize,
        peer: &Peer,
        message: FromParty,
        join: &dyn Fn(&Sets) -> Marks,
    ) -> Messages {
        match message {
            FromParty::Challenge(challenge) => {
                return vec![(connection, prove(&*self.source, peer, challenge, ""))];
            }
            FromParty::Hello(hello) => {
                let job = Job::from_canonical(&hello.job).expect("the parties' job");
                let seat = Seat {
                    connection,
                    spki: peer.spki.to_vec(),
                    offer: hello.offer,
                    shares: None,
                    confirmation: None,
                    announced: None,
                    set: Vec::new(),
                };
                self.seats.insert(hello.party, seat);
                let complete = self.seats.len() == job.parties().count();
                self.job = Some(job);
                return if complete { self.assemble() } else { Vec::new() };
            }
            _ => {}
        }
        let seat = self.seats.values_mut().find(|seat| seat.connection == connection);
        let seat = seat.expect("a party that said Hello");
        match message {
            FromParty::Shares(shares) => {
                seat.shares = Some(shares);
                if self.all(|seat| seat.shares.is_some()) {
                    self.relay_shares()
                } else {
                    Vec::new()
                }
            }
            FromParty::Confirmation(confirmation) => {
                seat.confirmation = Some(confirmation);
                let all = self.all(|seat| seat.confirmation.is_some());
                if all { self.relay_confirmations() } else { Vec::new() }
            }
            FromParty::Announcement(announcement) => {
                seat.announced = Some(announcement);
                let all = self.all(|seat| seat.announced.is_some());
                if all { self.tell_all(|_, _| vec![ToParty::Ready]) } else { Vec::new() }
            }
            FromParty::Chunk(bytes) => {
                seat.set.extend(bytes.as_chunks().0);
                let all = self.all(Seat::is_complete);
                if all { self.tell(&join(&self.sets())) } else { Vec::new() }
            }
            _ => Vec::new(),
        }
    }

    fn all(&self, has: impl Fn(&Seat) -> bool) -> bool {
        self.seats.values().all(has)
    }

    fn tell_all(&self, mut messages: impl FnMut(&str, &Seat) -> Vec<ToParty>) -> Messages {
        let tell = |(name, seat): (&String, &Seat)| {
            let messages = messages(name, seat).into_iter();
            messages.map(|message| (seat.connection, message.into())).collect::<Vec<_>>()
        };
        self.seats.iter().flat_map(tell).collect()
    }

    fn assembled(&self) -> Assembled {
        let member = |(name, seat): (&String, &Seat)| Member {
            name: name.clone(),
            spki: seat.spki.clone(),
            offer: seat.offer.clone(),
        };
        Assembled { run: [7; 32], members: self.seats.iter().map(member).collect() }
    }

    fn assemble(&self) -> Messages {
        let assembled = self.assembled();
        self.tell_all(|_, _| vec![ToParty::Assembled(assembled.clone(), MemberEvidence::default())])
    }

    fn relay_shares(&self) -> Messages {
        let shares = self.seats.values().filter_map(|seat| seat.shares.as_ref()).flatten();
        let shares: Vec<_> = shares.cloned().collect();
        self.tell_all(|name, _| {
            let to_it = shares.iter().filter(|share| share.to == name);
            vec![ToParty::Shares(to_it.cloned().collect())]
        })
    }

    fn relay_confirmations(&self) -> Messages {
        let all = self.seats.iter().filter_map(|(name, seat)| {
            let (party, confirmation) = (name.clone(), seat.confirmation.clone()?);
            Some(NamedConfirmation { party, confirmation })
        });
        let all: Vec<_> = all.collect();
        self.tell_all(|name, _| {
            let others = all.iter().filter(|entry| entry.party != name);
            vec![ToParty::Confirmations(others.cloned().collect())]
        })
    }

    fn sets(&self) -> Sets {
        self.seats.iter().map(|(name, seat)| (name.clone(), seat.set.clone())).collect()
    }

    /// Tells every party what is marked, with a signed statement about it.
    fn tell(&self, marks: &Marks) -> Messages {
        let job = self.job.as_ref().expect("parties said Hello");
        let transcript = self.assembled().transcript(job.digest());
        let key = |seat: &Seat| KeyId::of_spki(&seat.spki);
        let members: Vec<_> =
            self.seats.iter().map(|(name, seat)| (name.clone(), key(seat))).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        self.tell_all(|name, seat| {
            let marks = &marks[name];
            assert_eq!(marks.len(), seat.set.len(), "a mark for each key");
            let mut bitmap = Bitmap::new(marks.len());
            for rank in (0..marks.len()).filter(|rank| marks[*rank]) {
                bitmap.set(rank);
            }
            let bits = bitmap.as_bytes().to_vec();
            let told = Told::of(job, &Outcome::Intersection(bitmap));
            let statement = Statement {
                job: job.digest(),
                party: name.to_owned(),
                party_key: key(seat),
                members: members.clone(),
                keys: seat.set.len() as u64,
                set_blake3: seat.announced.expect("it announced its set").blake3,
                told,
                finished_at: now.as_secs(),
                transcript: Some(transcript),
            };
            let statement = statement.encode();
            let signed = SignedStatement { signature: self.identity.sign(&statement), statement };
            let (kind, count, bitmap_bytes) = (told.kind, told.count, bits.len() as u64);
            let outcome = ToParty::Outcome { kind, count, bitmap_bytes, signed };
            vec![outcome, ToParty::Bitmap(bits.into())]
        })
    }
}

impl Seat {
    fn is_complete(&self) -> bool {
        self.announced.is_some_and(|announced| announced.keys == self.set.len() as u64)
    }
}
