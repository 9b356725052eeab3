//! How parties of a job without a service find each other: who listens, who dials, who is who.
//!
//! A party listens if it is told to, and dials every other party whose address it knows. Either
//! suffices. On each connection, TLS proves the keys that the job pins, under the hybrid key exchange
//! X25519MLKEM768 alone; then both sides show each other the job. Everybody else is refused before a
//! word of the job is said.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use convelo_channel::{
    Expect, Identity, Listener, ListenerError, Peer, PeerStream, PeerTls, PeerTlsError,
};
use convelo_psi::{Job, KeyId, Party};
use convelo_untrusted::shown;
use convelo_wire::{Bytes, Reason};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::frame::Frame;
use super::link::{self, Greeted, Link, Shared, Useless};
use crate::error::{Error, Hint, Kind};
use crate::event::{Event, Observer};
use crate::limits::{
    FIRST_RETRY, GREETING_TIMEOUT, GREETINGS_AT_ONCE, LONGEST_RETRY, NAME_PATIENCE,
};

/// Who meets whom, and where.
pub(crate) struct Meeting {
    pub(crate) job: Job,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    /// Where this party listens, if it does.
    pub(crate) listen: Option<String>,
    /// The others, with where they listen, if that is known.
    pub(crate) others: Vec<(Party, Option<String>)>,
}

/// Keeps connections coming for as long as it lives.
pub(crate) struct Tasks(#[expect(dead_code, reason = "they end when it is dropped")] JoinSet<()>);

impl Meeting {
    /// Begins to listen and to dial. The links wait for the others by themselves.
    pub(crate) async fn begin(
        &self,
        deadline: Instant,
        observer: &Arc<dyn Observer>,
    ) -> Result<(Vec<Link>, Tasks), Error> {
        let tls = || Ok::<_, Error>(PeerTls::new(self.identity.plain()?, None).hybrid_only());
        let listener = match &self.listen {
            Some(address) => Some(self.listener(address, tls()?).await?),
            None => None,
        };
        if let Some(listener) = &listener {
            let address = listener.address().map_or_else(|_| String::new(), |it| it.to_string());
            observer.on(Event::Listening { address: &address });
        }
        let job = Bytes::from(self.job.canonical().to_owned());
        let run = super::random();
        let (mut links, mut known, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
        for (party, address) in &self.others {
            let (connections, greeted) = mpsc::channel(1);
            let names = (self.name.as_str(), party.name.as_str());
            let link = Link::new(names, run, deadline, Arc::clone(observer), greeted);
            let acquaintance = Acquaintance {
                key: party.key,
                job: self.job.clone(),
                text: job.clone(),
                shared: Arc::clone(link.shared()),
                connections,
            };
            if let Some(address) = address {
                let dialling = Dialling {
                    acquaintance: acquaintance.clone(),
                    address: address.clone(),
                    tls: tls()?,
                    observer: Arc::clone(observer),
                };
                tasks.spawn(dialling.run());
            }
            known.push(acquaintance);
            links.push(link);
        }
        if let Some(listener) = listener {
            tasks.spawn(listen(listener, known));
        }
        Ok((links, Tasks(tasks)))
    }

    async fn listener(&self, address: &str, tls: PeerTls) -> Result<Listener, Error> {
        let expect = self.others.iter().map(|(party, _)| Expect::Key(party.key.0)).collect();
        // Where there is no IPv6, every address means every IPv4 address.
        let address = match address.strip_prefix("[::]") {
            Some(port) if std::net::TcpListener::bind("[::]:0").is_err() => {
                format!("0.0.0.0{port}")
            }
            _ => address.to_owned(),
        };
        let listener = Listener::bind_judging_later(&address, tls, Some(expect)).await;
        listener.map_err(|error| match error {
            ListenerError::Bind { .. } => {
                Error::new(Kind::Usage, error.to_string()).with_hint(Hint::Listen)
            }
            error => Error::new(Kind::Usage, error.to_string()),
        })
    }
}

/// Another party, and where its connections go.
#[derive(Clone)]
struct Acquaintance {
    key: KeyId,
    job: Job,
    text: Bytes,
    shared: Arc<Shared>,
    connections: mpsc::Sender<Result<Greeted, Useless>>,
}

impl Acquaintance {
    /// Greets on a new connection with this party, and hands it over.
    async fn greet(&self, mut stream: impl link::Stream + 'static) -> Result<(), Useless> {
        let own = self.shared.hello(self.text.clone());
        let greeting = link::greet(&mut stream, &own);
        let hello = timeout(GREETING_TIMEOUT, greeting).await;
        let hello = hello.map_err(|_| Useless::Broken("it said nothing".to_owned()))??;
        if let Err(error) = self.judge(&hello.party, &hello.job) {
            let _ = link::write(&mut stream, &Frame::Leave(Reason::OtherTerms)).await;
            return Err(Useless::Final(error));
        }
        let chosen = if link::waits_for_go(&self.shared) {
            // The other side may prefer another connection for as long as it likes.
            Some(link::go(&mut stream).await?)
        } else {
            None
        };
        let greeted = Greeted { stream: Box::new(stream), hello, chosen };
        let _ = self.connections.send(Ok(greeted)).await;
        Ok(())
    }

    /// The other side must be the party that its key says, with the same job.
    fn judge(&self, name: &str, job: &[u8]) -> Result<(), Error> {
        let expected = self.job.party_of_key(&self.key).map_or("", |party| party.name.as_str());
        if job != self.text {
            let differences = match Job::from_canonical(job) {
                Ok(theirs) => self.job.differences(&theirs).join("\n  "),
                Err(error) => error.to_string(),
            };
            let text = format!(
                "'{expected}' has another job than this party; nothing was sent but the jobs. Compare the job \
                 files:\n  {}",
                shown(&differences)
            );
            return Err(Error::new(Kind::Job, text));
        }
        if name == expected {
            return Ok(());
        }
        let text = format!(
            "'{expected}' runs as '{name}': it must use the name that the job has for its key"
        );
        Err(Error::new(Kind::Job, text))
    }

    /// Tells the link of an end that no other connection can change.
    async fn end(&self, useless: Useless) {
        if !matches!(useless, Useless::Broken(_)) {
            let _ = self.connections.send(Err(useless)).await;
        }
    }
}

/// Accepts connections of the parties that are known.
async fn listen(listener: Listener, known: Vec<Acquaintance>) {
    let (accepted, mut connections) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(listener.accept(accepted));
    let greetings = Arc::new(Semaphore::new(GREETINGS_AT_ONCE));
    loop {
        let connection = tokio::select! {
            connection = connections.recv() => connection,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(connection) = connection else { return };
        let Ok(stream) = connection else { continue };
        let Ok(place) = Arc::clone(&greetings).try_acquire_owned() else { continue };
        let party = known.iter().find(|party| is_of(stream.peer(), party)).cloned();
        tasks.spawn(async move {
            let Some(party) = party else { return };
            let Some(seated) = stream.peer().place.keep().map(convelo_channel::Kept::seat) else {
                return;
            };
            // What a party of the job may send is limited by its frames.
            stream.peer().place.expect(u64::MAX);
            let ended = party.greet(Seated { stream, _seated: seated }).await;
            drop(place);
            if let Err(useless) = ended {
                party.end(useless).await;
            }
        });
    }
}

fn is_of(peer: &Peer, party: &Acquaintance) -> bool {
    peer.refusal.is_none() && KeyId::of_spki(&peer.spki) == party.key
}

/// A connection that keeps its place at the listener.
struct Seated {
    stream: PeerStream,
    _seated: convelo_channel::Seated,
}

impl tokio::io::AsyncRead for Seated {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Seated {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Dials one party whenever there is no connection to it.
struct Dialling {
    acquaintance: Acquaintance,
    address: String,
    tls: PeerTls,
    observer: Arc<dyn Observer>,
}

impl Dialling {
    async fn run(self) {
        let mut connected = self.acquaintance.shared.connected.subscribe();
        let (mut pause, mut unknown_since) = (FIRST_RETRY, None::<Instant>);
        loop {
            if connected.wait_for(|connected| !connected).await.is_err() {
                return;
            }
            let failed = match self.dial().await {
                Ok(stream) => {
                    let (met, greeting) = (connected.clone(), self.acquaintance.greet(stream));
                    match until_met(met, greeting).await {
                        Ok(()) => {
                            pause = FIRST_RETRY;
                            // The link needs a moment to say that it is connected.
                            sleep(FIRST_RETRY).await;
                            continue;
                        }
                        Err(useless) => Attempt::Useless(useless),
                    }
                }
                Err(attempt) => attempt,
            };
            let why = match failed {
                Attempt::Useless(Useless::Broken(why)) => why,
                Attempt::Useless(useless) => return self.acquaintance.end(useless).await,
                Attempt::UnknownHost(why) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > NAME_PATIENCE {
                        let error = Error::new(Kind::Usage, why).with_hint(Hint::PeerAddress);
                        return self.acquaintance.end(Useless::Final(error)).await;
                    }
                    why
                }
            };
            let (name, address) = (self.acquaintance.shared.peer_name(), self.address.as_str());
            self.acquaintance.shared.note_absence(&format!("{address}: {why}"));
            self.observer.on(Event::PeerAbsent { name, address, why, retry_in: pause });
            tokio::select! {
                () = sleep(pause) => {}
                _ = connected.wait_for(|connected| *connected) => {}
            }
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    async fn dial(&self) -> Result<impl link::Stream + use<>, Attempt> {
        let broken = |why: String| Attempt::Useless(Useless::Broken(why));
        let address = self.address.as_str();
        let found = tokio::net::lookup_host(address).await;
        if let Err(error) = found {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            return Err(Attempt::UnknownHost(format!(
                "the name '{host}' of '{}' does not resolve ({error}): compare it with what that party says, \
                 and check this host's DNS",
                self.acquaintance.shared.peer_name()
            )));
        }
        let connecting = TcpStream::connect(address);
        let tcp = timeout(convelo_channel::limits::CONNECT_TIMEOUT, connecting).await;
        let tcp = match tcp {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Err(broken(error.to_string())),
            Err(_) => return Err(broken("it does not answer".to_owned())),
        };
        let expect = Expect::Key(self.acquaintance.key.0);
        match self.tls.connect(tcp, &expect).await {
            Ok((stream, _)) => Ok(stream),
            Err(error @ (PeerTlsError::Refused(_) | PeerTlsError::RefusedByPeer(_))) => {
                let name = self.acquaintance.shared.peer_name();
                let text = format!("'{name}' at {address}: {error}; nothing was sent");
                Err(Attempt::Useless(Useless::Final(Error::new(Kind::Job, text))))
            }
            Err(error) => Err(broken(shown(&error.to_string()))),
        }
    }
}

/// Why an attempt to dial came to nothing.
enum Attempt {
    Useless(Useless),
    UnknownHost(String),
}

/// Greets until it is done, or until another connection has been chosen for a while.
async fn until_met(
    mut connected: tokio::sync::watch::Receiver<bool>,
    greeting: impl Future<Output = Result<(), Useless>>,
) -> Result<(), Useless> {
    let elsewhere = async {
        let _ = connected.wait_for(|connected| *connected).await;
        sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        met = greeting => met,
        () = elsewhere => Ok(()),
    }
}
