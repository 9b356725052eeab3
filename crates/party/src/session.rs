//! A party's conversation with the service, from its Hello to its result, across the connections
//! that carry it.
//!
//! If one breaks, another follows: dialled, verified and attested like the first, to the same
//! service. Each side says how much it has received from the other, and continues from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::spki_of;
use convelo_channel::Dialler;
use convelo_wire::{FromParty, Hello, Reason, ToParty};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::attestation::{Proved, Terms};
use crate::connection::{Connection, reach};
use crate::error::{Cause, Error, Kind, Why};
use crate::event::{Event, Observer};
use crate::limits::{
    ATTEST_RETRIES, DEADLINE_SLACK, FIRST_RETRY, GOODBYE_TIMEOUT, LONGEST_RETRY, MESSAGES_AHEAD,
    RECONNECT_FOR,
};

/// Where a service is, and what it and this party prove to each other.
pub(crate) struct Contact {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) dialler: Dialler,
    pub(crate) terms: Terms,
}

/// The conversation.
pub(crate) struct Session {
    contact: Contact,
    observer: Arc<dyn Observer>,
    deadline: Instant,
    connection: Connection,
    hello: Option<Hello>,
    /// What was sent since all parties arrived, not counting the chunks that follow.
    sent: Vec<FromParty>,
    /// How many chunks were sent after that.
    chunks: u64,
    /// How many messages have arrived since all parties did.
    received: u64,
    /// What arrived while this party was not listening.
    ahead: VecDeque<ToParty>,
    /// The pause before the next connection.
    pause: Duration,
}

impl Session {
    /// Dials until the service answers, for as long as the job may wait, and has it attest the
    /// connection.
    pub(crate) async fn open(
        contact: Contact,
        patience: Duration,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let Contact { address, dialler, terms } = &contact;
        let give_up = Instant::now() + patience;
        let (mut pause, mut retries) = (FIRST_RETRY, 0);
        let (connection, deadline) = loop {
            let service = reach(address, dialler, &terms.expect, give_up, &*observer).await?;
            // The wait for the other parties is counted from here: the service may have been late
            // too.
            let deadline = Instant::now() + patience + DEADLINE_SLACK;
            match Connection::open(service, (address, dialler), terms, deadline).await {
                Ok(connection) => break (connection, deadline),
                Err(error) => match error.cause() {
                    Cause::Broken(_) | Cause::Dial(_) if retries < ATTEST_RETRIES => {}
                    _ => return Err(error),
                },
            }
            tokio::time::sleep(pause).await;
            (pause, retries) = (pause * 2, retries + 1);
        };
        Ok(Self {
            connection,
            contact,
            observer,
            deadline,
            hello: None,
            sent: Vec::new(),
            chunks: 0,
            received: 0,
            ahead: VecDeque::new(),
            pause: FIRST_RETRY,
        })
    }

    /// The service's certificate, DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        self.connection.certificate()
    }

    /// What the service proved on the current connection.
    pub(crate) fn proved(&self) -> &Proved {
        self.connection.proved()
    }

    /// Asks for a seat in the job. From here on, if a connection breaks, another follows.
    pub(crate) async fn hello(&mut self, hello: Hello) -> Result<(), Error> {
        self.hello = Some(hello.clone());
        if !self.connection.send(FromParty::Hello(hello)).await? {
            self.follow().await?;
        }
        Ok(())
    }

    /// Sends a message that is not a chunk; waits if the service is slower than we are.
    pub(crate) async fn send(&mut self, message: FromParty) -> Result<(), Error> {
        self.sent.push(message.clone());
        if !self.connection.send(message).await? {
            self.follow().await?;
        }
        Ok(())
    }

    /// The next message. May be dropped and called again without losing one.
    pub(crate) async fn next(&mut self) -> Result<ToParty, Error> {
        loop {
            if let Some(message) = self.next_or_rewound().await? {
                return Ok(message);
            }
        }
    }

    /// Like [`Session::next`]; none if there is a new connection, on which other chunks may be due.
    pub(crate) async fn next_or_rewound(&mut self) -> Result<Option<ToParty>, Error> {
        if let Some(message) = self.ahead.pop_front() {
            return Ok(Some(message));
        }
        match self.connection.next().await {
            Ok(message) => {
                self.count(&message);
                Ok(Some(message))
            }
            Err(error) => {
                self.reconnect(error).await?;
                Ok(None)
            }
        }
    }

    /// The number of the chunk that is due.
    pub(crate) fn due(&self) -> u64 {
        self.chunks
    }

    /// Where to send the chunk that is due while [`Session::next_or_rewound`] waits.
    pub(crate) fn sender(&self) -> mpsc::Sender<FromParty> {
        self.connection.sender()
    }

    /// The chunk that was due has been sent, or was not because the connection broke.
    pub(crate) async fn chunk(&mut self, sent: bool) -> Result<(), Error> {
        if sent {
            self.chunks += 1;
            return Ok(());
        }
        self.follow().await
    }

    /// Tells the service that this party gives up, and why. True if this party had asked for a seat
    /// and the service has heard it.
    pub(crate) async fn leave(self, reason: Reason) -> bool {
        let seated = self.hello.is_some();
        self.connection.last(FromParty::Leave(reason), GOODBYE_TIMEOUT).await && seated
    }

    /// Tells the service that the result has arrived. A caller that waits for the task knows that
    /// the service has received this; it does not matter for the result.
    pub(crate) fn received(self) -> JoinHandle<()> {
        tokio::spawn(async {
            let _ = self.connection.last(FromParty::Received, GOODBYE_TIMEOUT).await;
        })
    }

    fn count(&mut self, message: &ToParty) {
        self.pause = FIRST_RETRY;
        if !is_progress(message) {
            self.received += 1;
        }
    }

    /// Reads a connection that accepts no more to its end, which tells whether another may follow.
    async fn follow(&mut self) -> Result<(), Error> {
        loop {
            match self.connection.next().await {
                Ok(message) if is_progress(&message) => self.count(&message),
                Ok(_) if self.ahead.len() == MESSAGES_AHEAD => {
                    let text = format!(
                        "the service did not follow the protocol: more than {MESSAGES_AHEAD} messages \
                         arrived that it was not asked for"
                    );
                    return Err(Error::new(Kind::Job, text));
                }
                Ok(message) => {
                    self.count(&message);
                    self.ahead.push_back(message);
                }
                Err(error) => return self.reconnect(error).await,
            }
        }
    }

    /// Continues on another connection, provided that `error` is only that the last one broke.
    /// Keeps trying for as long as the service may still remember this party.
    async fn reconnect(&mut self, mut error: Error) -> Result<(), Error> {
        let began = Instant::now();
        let until = match self.received {
            0 => self.deadline,
            _ => self.deadline.min(began + RECONNECT_FOR),
        };
        loop {
            let why = match error.cause() {
                Cause::Dial(error) => error.to_string(),
                Cause::Broken(why) => why.to_string(),
                _ => return Err(error),
            };
            let left = until.saturating_duration_since(Instant::now());
            if self.hello.is_none() || left.is_zero() {
                return Err(error);
            }
            let retry_in = self.pause.min(left);
            self.observer.on(Event::ConnectionLost { why, retry_in, give_up_in: left });
            tokio::time::sleep(retry_in).await;
            self.pause = (self.pause * 2).min(LONGEST_RETRY);
            // Boxed, because its state would add several kilobytes to every caller's future.
            match tokio::time::timeout_at(until, Box::pin(self.go_on())).await {
                Ok(Ok(())) => {
                    self.observer.on(Event::Reconnected);
                    return Ok(());
                }
                Ok(Err(next)) => error = next,
                Err(_) => {
                    let text = "the service does not answer";
                    error = Error::connection_broke(Why::Known(text.to_owned()));
                }
            }
        }
    }

    /// One attempt. If it is dropped half-way, it can be repeated.
    async fn go_on(&mut self) -> Result<(), Error> {
        let Contact { address, dialler, terms } = &self.contact;
        let service = dialler.dial(address, &terms.expect).await?;
        if self.received > 0 && spki_of(service.certificate())? != spki_of(self.certificate())? {
            let text = "the connection to the service broke, and the service that answers now has another \
                        key: it was restarted; nothing of the job is kept, run it again";
            return Err(Error::new(Kind::Job, text));
        }
        let from = (address.as_str(), dialler);
        let mut connection = Connection::open(service, from, terms, self.deadline).await?;
        let Some(hello) = self.hello.clone() else { return Ok(()) };
        let hello = Hello { received: Some(self.received), ..hello };
        let open = connection.send(FromParty::Hello(hello)).await?;
        let ToParty::Resumed { taken } = connection.next().await? else {
            return Err(out_of_step("it continued without saying from where"));
        };
        let kept = self.sent.len() as u64;
        if !open || taken > kept + self.chunks {
            return Err(out_of_step("it counts more messages from this party than were sent"));
        }
        for message in self.sent.iter().skip(usize::try_from(taken).unwrap_or(usize::MAX)) {
            let _ = connection.send(message.clone()).await?;
        }
        let chunks = taken.saturating_sub(kept);
        if chunks > 0 {
            self.pause = FIRST_RETRY;
        }
        self.chunks = chunks;
        self.connection = connection;
        Ok(())
    }
}

/// Whether a message only shows how far others are. Such a message is not sent again.
fn is_progress(message: &ToParty) -> bool {
    matches!(message, ToParty::Waiting(_) | ToParty::Uploads { .. })
}

fn out_of_step(what: &str) -> Error {
    let text = format!(
        "the service did not follow the protocol when a broken connection was resumed: {what}"
    );
    Error::new(Kind::Job, text)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use convelo_channel::{Expect, Identity};
    use convelo_psi::JobDigest;

    use super::*;

    /// A session whose connection takes nothing more, and brings these messages.
    fn session(messages: impl Iterator<Item = ToParty> + Send + 'static) -> Session {
        let credential = Identity::generate().plain().expect("a certificate");
        let terms = Terms {
            expect: Expect::Key([0; 32]),
            source: None,
            job: JobDigest([0; 32]),
            insecure_ratls_only: false,
            seen: None,
        };
        let address = "localhost:1".to_owned();
        Session {
            contact: Contact { address, dialler: Dialler::new(credential), terms },
            observer: Arc::new(()),
            deadline: Instant::now() + Duration::from_mins(1),
            connection: Connection::deaf(messages),
            hello: None,
            sent: Vec::new(),
            chunks: 0,
            received: 0,
            ahead: VecDeque::new(),
            pause: FIRST_RETRY,
        }
    }

    #[tokio::test]
    async fn a_service_fills_the_memory_of_a_party_that_cannot_send() {
        const MESSAGES: usize = 1000;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let flood = std::iter::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            ToParty::Bitmap(vec![0; 100 << 10].into())
        });
        let mut session = session(flood.take(MESSAGES));
        let error = session.send(FromParty::Received).await.expect_err("a broken connection");
        assert!(error.to_string().contains("did not follow the protocol"), "{error}");
        assert_eq!(session.ahead.len(), MESSAGES_AHEAD);
        assert!(taken.load(Ordering::Relaxed) < MESSAGES_AHEAD + 5, "{taken:?} messages were read");
    }

    #[tokio::test]
    async fn a_service_fills_the_memory_of_a_party_with_progress() {
        let names = || vec!["a".repeat(64); 64];
        let uploads = move || ToParty::Uploads { complete: names(), missing: names() };
        let mut session = session(std::iter::repeat_with(uploads).take(1000));
        let error = session.send(FromParty::Received).await.expect_err("a broken connection");
        assert!(matches!(error.cause(), Cause::Broken(_)), "{error}");
        assert!(session.ahead.is_empty());
    }
}
