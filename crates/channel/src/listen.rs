//! The side that listens.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use convelo_attest::{Evidence, Matter, QuoteSource, Refusal, Stage};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Sleep, timeout};
use tokio_rustls::server::TlsStream;

use crate::admission::Admission;
use crate::binding::Binding;
use crate::expect::Expect;
use crate::identity::{Identity, IdentityError};
use crate::limits::{
    ACCEPT_PAUSE, FIRST_FLIGHT_TIMEOUT, MAXIMUM_HANDSHAKES, MAXIMUM_SEATED, MAXIMUM_STRANGERS,
    MAXIMUM_UNEXPECTED_BYTES, ROOM_AROUND_AN_UPLOAD, SEAT_TIMEOUT, UNEXPECTED_BYTES_PER_SECOND,
};
use crate::log_limit::stranger_line;
use crate::proven::ProvenPeer;
use crate::proxy_protocol::{self, NotProxied};
use crate::slots::{Holder, Lost, Slot, SlotLimits, Slots};
use crate::tls::{PeerTls, PeerTlsError};

/// Who a connection comes from: the key it proved and, if present, the evidence it presented. This
/// evidence is bound to the key but not yet verified.
#[derive(Clone)]
pub struct Peer {
    /// `SubjectPublicKeyInfo` of the proven key, DER.
    pub spki: Arc<[u8]>,
    /// The certificate, DER.
    pub certificate: Arc<[u8]>,
    /// Evidence from the certificate.
    pub evidence: Option<Arc<Evidence>>,
    /// Why the listener's demands do not accept the peer, if it has any and none does. Whoever
    /// serves the connection must tell the peer so, and serve it nothing.
    pub refusal: Option<Refusal>,
    /// Where the connection comes from; for logs, and for shares among strangers.
    pub address: SocketAddr,
    /// What ties a quote to this connection.
    pub binding: Binding,
    /// The connection's place among those that are open.
    pub place: Place,
}

impl Peer {
    /// What a stranger's share is measured by: its address and its key.
    pub fn holders(&self) -> [Holder; 2] {
        holders(self.address, key_id(&self.spki))
    }
}

/// Who a key belongs to, as far as a listener is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    /// To nobody that we know.
    Stranger,
    /// To somebody who has a seat, and may come back to it while strangers crowd in.
    Seated,
    /// To somebody whom the operator has admitted.
    Admitted,
}

/// Tells a listener who a key belongs to: SHA-256 of its `SubjectPublicKeyInfo`.
pub type Acquaintances = Arc<dyn Fn(&[u8; 32]) -> Acquaintance + Send + Sync>;

/// A connection's place among those that a listener keeps open. Until it has a seat, the connection
/// lives only so long, and goes when others need its place. It may send only a little, besides what
/// is expected.
#[derive(Clone)]
pub struct Place(Arc<Standing>);

struct Standing {
    slot: Slot,
    /// Whether the operator has admitted the key.
    admitted: bool,
    keepers: Mutex<usize>,
    seats: AtomicUsize,
    /// Whether there has been a seat lately.
    seated_lately: AtomicBool,
    /// How many bytes of uploads are still expected.
    uploads: AtomicU64,
}

/// A connection keeps its place for as long as this lives.
pub struct Kept(Arc<Standing>);

/// A connection has a seat for as long as this lives.
pub struct Seated(Kept);

impl Place {
    fn new(slot: Slot, acquaintance: Acquaintance) -> Self {
        let admitted = acquaintance == Acquaintance::Admitted;
        match acquaintance {
            Acquaintance::Stranger => {}
            Acquaintance::Seated => drop(slot.keep()),
            Acquaintance::Admitted => slot.welcome(),
        }
        Self(Arc::new(Standing {
            slot,
            admitted,
            keepers: Mutex::new(0),
            seats: AtomicUsize::new(0),
            seated_lately: AtomicBool::new(false),
            uploads: AtomicU64::new(0),
        }))
    }

    /// Keeps the connection's place, while somebody decides about its seat. None if its source or
    /// key has as many connections that are kept as any may have, or the place is gone.
    pub fn keep(&self) -> Option<Kept> {
        let mut keepers = self.0.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.0.slot.keep() {
            return None;
        }
        *keepers += 1;
        Some(Kept(Arc::clone(&self.0)))
    }

    /// Expects this many bytes, for which there is memory.
    pub fn expect(&self, bytes: u64) {
        // What carries them takes a few in a thousand.
        let bytes = bytes.saturating_add(bytes / 64).saturating_add(ROOM_AROUND_AN_UPLOAD);
        let more = |expected: u64| Some(expected.saturating_add(bytes));
        let _ = self.0.uploads.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
    }

    /// Takes from what is expected; returns how many bytes were not.
    fn unexpected(&self, bytes: u64) -> u64 {
        let less = |expected: u64| Some(expected.saturating_sub(bytes));
        let expected = self.0.uploads.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        bytes.saturating_sub(expected.unwrap_or_default())
    }

    fn has_seat(&self) -> bool {
        self.0.seats.load(Ordering::Acquire) > 0
    }
}

impl Kept {
    /// Gives the connection a seat: it may stay, and send a little at a time.
    #[must_use]
    pub fn seat(self) -> Seated {
        self.0.seats.fetch_add(1, Ordering::AcqRel);
        self.0.seated_lately.store(true, Ordering::Release);
        Seated(self)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut keepers = self.0.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        *keepers -= 1;
        if *keepers == 0 && !self.0.admitted {
            self.0.slot.let_go();
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.0.seats.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A listener that could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerError {
    /// Cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// How many connections a listener has at once. Half of each kind may belong to one source or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// In their handshake.
    pub handshakes: usize,
    /// Without a seat.
    pub strangers: usize,
    /// With a seat.
    pub seated: usize,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            handshakes: MAXIMUM_HANDSHAKES,
            strangers: MAXIMUM_STRANGERS,
            seated: MAXIMUM_SEATED,
        }
    }
}

/// Accepts connections with mutual TLS. Its certificate carries evidence from the quote source and
/// is renewed long before it expires; or it is an ordinary one, which says nothing about what runs
/// here.
///
/// Nobody waits for those who say nothing: every connection is accepted at once, and if there are
/// too many, the oldest strangers go.
pub struct Listener {
    tcp: TcpListener,
    tls: Arc<PeerTls>,
    /// A peer must meet one of these demands, or is told that it does not; without them, anyone who
    /// proves a key may connect.
    expect: Option<Arc<[Expect]>>,
    acquaintances: Acquaintances,
    behind_balancer: bool,
    limits: ListenerLimits,
}

impl Listener {
    /// Binds `address` and makes the first certificate.
    ///
    /// # Errors
    /// [`ListenerError`].
    pub async fn bind(
        address: &str,
        identity: Identity,
        source: Arc<dyn QuoteSource>,
    ) -> Result<Self, ListenerError> {
        // The first quote may take long, and may never come.
        let tls = tokio::task::spawn_blocking(move || PeerTls::attested(identity, source, None));
        let broken = |error| Err(IdentityError::Certificate(format!("{error}")));
        let tls = tls.await.unwrap_or_else(broken)?.of_service();
        Self::with(address, tls, None).await
    }

    /// Binds `address` for mutual TLS with peers of any kind, under the certificate of `tls`. Every
    /// peer that proves a key gets a connection; [`Peer::refusal`] says if it meets none of
    /// `expect`. Without demands, nobody has judged the peer.
    ///
    /// # Errors
    /// [`ListenerError`].
    pub async fn bind_judging_later(
        address: &str,
        tls: PeerTls,
        expect: Option<Vec<Expect>>,
    ) -> Result<Self, ListenerError> {
        Self::with(address, tls.judging_later(), expect.map(Into::into)).await
    }

    async fn with(
        address: &str,
        tls: PeerTls,
        expect: Option<Arc<[Expect]>>,
    ) -> Result<Self, ListenerError> {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|source| ListenerError::Bind { address: address.to_owned(), source })?;
        let acquaintances: Acquaintances = Arc::new(|_| Acquaintance::Stranger);
        let tls = Arc::new(tls);
        let limits = ListenerLimits::default();
        Ok(Self { tcp, tls, expect, acquaintances, behind_balancer: false, limits })
    }

    /// Knows who a key belongs to.
    #[must_use]
    pub fn knowing(self, acquaintances: Acquaintances) -> Self {
        Self { acquaintances, ..self }
    }

    /// Expects every connection to begin with a PROXY protocol header (version 2) and believes it.
    /// Anyone who reaches the port directly can then choose an address.
    #[must_use]
    pub fn behind_balancer(self, behind_balancer: bool) -> Self {
        Self { behind_balancer, ..self }
    }

    /// Has no more connections at once than this.
    #[must_use]
    pub fn limited_to(self, limits: ListenerLimits) -> Self {
        Self { limits, ..self }
    }

    /// The address we listen on, including the actual port if 0 was requested.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The certificate presented now, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.tls.credential().certificate().to_vec()
    }

    /// Accepts until the receiver of `accepted` is dropped. Handshakes run concurrently, each under
    /// a deadline; a failed one is logged and forgotten.
    pub async fn accept(self, accepted: mpsc::Sender<io::Result<PeerStream>>) {
        let Self { tcp, tls, expect, acquaintances, behind_balancer, limits } = self;
        let ListenerLimits { handshakes, strangers, seated } = limits;
        let door = Arc::new(Door {
            tls,
            expect,
            acquaintances,
            behind_balancer,
            admission: Admission::new(),
            handshakes: Slots::new(SlotLimits {
                open: handshakes,
                open_each: handshakes.div_ceil(2),
                kept: 0,
                kept_each: 0,
            }),
            connections: Slots::new(SlotLimits {
                open: strangers,
                open_each: strangers.div_ceil(2),
                kept: seated,
                kept_each: seated.div_ceil(2),
            }),
        });
        let mut tasks = JoinSet::new();
        let renewing = Arc::clone(&door);
        let renewal = renewing.tls.keep_fresh(|error| {
            tracing::error!(%error, "the certificate could not be renewed");
        });
        tokio::pin!(renewal);
        loop {
            tokio::select! {
                () = accepted.closed() => break,
                never = &mut renewal => match never {},
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                connection = tcp.accept() => match connection {
                    Ok((tcp, address)) => {
                        let (door, accepted) = (Arc::clone(&door), accepted.clone());
                        tasks.spawn(async move { door.enter(tcp, address, accepted).await });
                    }
                    Err(error) => {
                        if let Some(left_out) = stranger_line() {
                            tracing::warn!(%error, left_out, "accept failed");
                        }
                        // Too many open files, most likely.
                        if !door.handshakes.free_one() {
                            door.connections.free_one();
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// What every connection passes through.
struct Door {
    tls: Arc<PeerTls>,
    expect: Option<Arc<[Expect]>>,
    acquaintances: Acquaintances,
    behind_balancer: bool,
    admission: Admission,
    handshakes: Arc<Slots>,
    connections: Arc<Slots>,
}

/// A connection that did not get in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Tls(#[from] PeerTlsError),
    #[error(transparent)]
    NotProxied(#[from] NotProxied),
    #[error("the connection broke before the balancer had said where it comes from: {0}")]
    Balancer(io::Error),
    #[error("the balancer did not say within {} s where the connection comes from", FIRST_FLIGHT_TIMEOUT.as_secs())]
    SilentBalancer,
    #[error("its place went to others: too many handshakes at once")]
    Crowded,
    #[error("too many invalid certificates have come from this source")]
    TurnedAway,
}

impl Door {
    async fn enter(
        &self,
        mut tcp: TcpStream,
        mut address: SocketAddr,
        accepted: mpsc::Sender<io::Result<PeerStream>>,
    ) {
        let entered = async {
            if self.behind_balancer {
                address = self.proxied(&mut tcp).await?.unwrap_or(address);
            }
            self.handshake(tcp, address).await
        };
        match entered.await {
            Ok(stream) => {
                let _ = accepted.send(Ok(stream)).await;
            }
            Err(error) => {
                if let Refused::Tls(error) = &error
                    && error.is_invalid_certificate()
                {
                    self.admission.failed(address.ip(), Instant::now());
                }
                if let Some(left_out) = stranger_line() {
                    tracing::info!(%address, %error, left_out, "a connection was refused");
                }
            }
        }
    }

    /// Where a balancer says that a connection comes from.
    async fn proxied(&self, tcp: &mut TcpStream) -> Result<Option<SocketAddr>, Refused> {
        let (_slot, lost) = self.handshakes.take([Holder::Unknown]);
        tokio::select! {
            said = timeout(FIRST_FLIGHT_TIMEOUT, proxy_protocol::read(tcp)) => {
                let said = said.map_err(|_| Refused::SilentBalancer)?;
                Ok(said.map_err(Refused::Balancer)??)
            }
            () = lost => Err(Refused::Crowded),
        }
    }

    async fn handshake(&self, tcp: TcpStream, address: SocketAddr) -> Result<PeerStream, Refused> {
        if !self.admission.admits(address.ip(), Instant::now()) {
            return Err(Refused::TurnedAway);
        }
        let (slot, lost) = self.handshakes.take([Holder::source(address.ip())]);
        let turn = async || {
            slot.heard();
            let turn = self.admission.turn(address.ip(), Instant::now());
            // To sleep for no time still waits for the clock's next tick, a millisecond.
            if !turn.is_zero() {
                tokio::time::sleep(turn).await;
            }
        };
        let (stream, proven) = tokio::select! {
            proven = self.tls.accept_promptly(tcp, turn) => proven?,
            () = lost => return Err(Refused::Crowded),
        };
        let refusal = self.expect.as_ref().and_then(|expect| demand_one(expect, &proven).err());
        let spki = Arc::clone(proven.spki());
        let own = Arc::clone(self.tls.credential().spki());
        let binding = Binding::of(stream.get_ref().1, Arc::clone(&spki), own)
            .map_err(PeerTlsError::Handshake)?;
        let key = proven.key_id();
        let (slot, lost) = self.connections.take(holders(address, key));
        slot.heard();
        let place = Place::new(slot, (self.acquaintances)(&key));
        let peer = Peer {
            spki,
            certificate: Arc::clone(&proven.certificate),
            evidence: proven.evidence().cloned(),
            refusal,
            address,
            binding,
            place,
        };
        Ok(PeerStream::new(stream, peer, lost))
    }
}

fn key_id(spki: &[u8]) -> [u8; 32] {
    Sha256::digest(spki).into()
}

fn holders(address: SocketAddr, key: [u8; 32]) -> [Holder; 2] {
    [Holder::source(address.ip()), Holder::Key(key)]
}

/// The last refusal if none of several demands accepts the peer.
fn demand_one(expect: &[Expect], peer: &ProvenPeer) -> Result<(), Refusal> {
    let nobody = Refusal::new(Stage::Certificate, "nobody-expected", Matter::Policy)
        .found(peer.describe())
        .expected("nobody")
        .advice("say whose connections to accept");
    let mut refused = Err(nobody);
    for expect in expect {
        match expect.accepts(peer, unix_now()) {
            Ok(_) => return Ok(()),
            Err(refusal) => refused = Err(refusal),
        }
    }
    refused
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A connection from a peer that proved its key.
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    peer: Peer,
    lost: Lost,
    /// How much that is not expected may still come, and when that was last filled up.
    left: u64,
    filled: Instant,
    unseated: Pin<Box<Sleep>>,
}

impl PeerStream {
    fn new(tls: TlsStream<TcpStream>, peer: Peer, lost: Lost) -> Self {
        let unseated = Box::pin(tokio::time::sleep(SEAT_TIMEOUT));
        let (left, filled) = (MAXIMUM_UNEXPECTED_BYTES, Instant::now());
        Self { tls, peer, lost, left, filled, unseated }
    }

    /// Who it is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Why the connection may not stay, if that is so.
    fn poll_outstayed(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        if Pin::new(&mut self.lost).poll(context).is_ready() {
            return Poll::Ready("its place went to others: too many connections without a seat");
        }
        while self.unseated.as_mut().poll(context).is_ready() {
            let standing = &self.peer.place.0;
            if !standing.seated_lately.swap(self.peer.place.has_seat(), Ordering::AcqRel) {
                return Poll::Ready("it has had no seat for too long");
            }
            self.unseated.as_mut().reset(tokio::time::Instant::now() + SEAT_TIMEOUT);
        }
        if self.left == 0 {
            return Poll::Ready("it has sent more than is expected of it");
        }
        Poll::Pending
    }

    /// Counts what has come.
    fn count(&mut self, bytes: usize) {
        let unexpected = self.peer.place.unexpected(bytes as u64);
        let seconds = self.filled.elapsed().as_secs();
        if seconds > 0 {
            self.filled = Instant::now();
            if self.peer.place.has_seat() {
                let more = seconds.saturating_mul(UNEXPECTED_BYTES_PER_SECOND);
                self.left = self.left.saturating_add(more).min(MAXIMUM_UNEXPECTED_BYTES);
            }
        }
        self.left = self.left.saturating_sub(unexpected);
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(why) = self.poll_outstayed(context) {
            if let Some(left_out) = stranger_line() {
                tracing::info!(address = %self.peer.address, why, left_out, "a connection was ended");
            }
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(context, buffer);
        self.count(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
