//! Incoming connections: reads heads and bodies, writes answers. The
//! [`Conversation`](crate::conversation::Conversation) decides what becomes of a message. The order
//! is: the head, who sent it, how much it may send; only then is memory spent and the body read.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use convelo_channel::ProvenPeer;
use tokio::time::{Instant, timeout, timeout_at};

use crate::body::{self, Assembly, BodyError};
use crate::conversation::{Arrival, Interrupt, Numbered, Source, Step};
use crate::envelope;
use crate::error::ReceiveFailure;
use crate::http::{self, Have, Method, Rejection, RequestHead};
use crate::limits::{
    HEAD_TIMEOUT, IDLE_TIMEOUT, MAXIMUM_COMPATIBLE_BYTES, OWN_BUFFER_BYTES, PEER_CONNECTIONS,
    STALL_TIMEOUT, STRANGER_GRACE, SUPERSEDE_WAIT,
};
use crate::message::{Incoming, MessageId, Wire};
use crate::notice::Level;
use crate::peers::{Origin, Peer};
use crate::session::Session;
use crate::shared::{Shared, Unidentified};
use crate::strangers::Place;
use crate::stream::{self, Carried, Out};

/// One accepted connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    stream: Carried,
    origin: Origin,
    number: u64,
    buffered: BytesMut,
    out: Out,
    peer: Option<Arc<Peer>>,
    /// Which of the parties that have had the peer's name this is.
    party: u64,
    /// Until the sender is known.
    stranger: Option<Stranger>,
    /// Whether an answer to a message without a number may still be unsent.
    answering: bool,
}

/// A connection whose sender is not known yet.
pub(crate) struct Stranger {
    pub(crate) introduced_by: Instant,
    pub(crate) _place: Place,
}

/// Why a connection ended.
enum ConnectionEnd {
    /// The peer closed it, or it broke.
    Broken,
    /// Its request was refused, with an answer or, for its silence, without, and it is unknown
    /// where the next one begins.
    Refused(Option<Rejection>),
}

impl From<io::Error> for ConnectionEnd {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl From<Rejection> for ConnectionEnd {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(Some(rejection))
    }
}

const RECEIVED: &str = "Message received";

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: u64,
        stream: Carried,
        address: SocketAddr,
        proven: Option<ProvenPeer>,
        stranger: Stranger,
    ) -> Self {
        Self {
            shared,
            stream,
            origin: Origin { address, server_port: None, proven: proven.map(Arc::new) },
            number,
            buffered: BytesMut::new(),
            out: Out::default(),
            peer: None,
            party: 0,
            stranger: Some(stranger),
            answering: false,
        }
    }

    /// Serves requests until the connection ends.
    pub(crate) async fn serve(mut self) {
        let outcome = self.requests().await;
        if let Err(ConnectionEnd::Refused(Some(rejection))) = &outcome {
            http::write_rejection(self.out.small(), rejection, self.shared.session_id);
        }
        if !matches!(outcome, Err(ConnectionEnd::Broken)) {
            let _ = timeout(HEAD_TIMEOUT, stream::flush(&mut self.stream, &mut self.out)).await;
            self.drain_refused().await;
        } else if self.answering
            && let Some(peer) = &self.peer
        {
            peer.conversation().unanswered(self.number);
        }
        if let Some(peer) = self.peer.take() {
            peer.inbound.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn requests(&mut self) -> Result<(), ConnectionEnd> {
        while let Some(head) = self.head().await? {
            if head.from_browser {
                let address = self.origin.address.ip().to_canonical();
                let text = format!("refused what a web browser at {address} requested");
                self.shared.report(Level::Warning, &text);
                let text = "this is a pool, and web pages may not send to it";
                return Err(Rejection::new(403, text).into());
            }
            match head.method {
                Method::Get => self.question(&head).await?,
                Method::Post => self.message(&head).await?,
                Method::Other => {
                    let text = "expected POST to deliver a message or GET to ask a question";
                    return Err(Rejection::new(405, text).into());
                }
            }
            if head.close {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next head; `None` at the end of the connection. Pending answers go out before it waits
    /// for anything.
    async fn head(&mut self) -> Result<Option<RequestHead>, ConnectionEnd> {
        let mut since: Option<Instant> = None;
        loop {
            match RequestHead::parse(&self.buffered) {
                Ok(Some((head, length))) => {
                    self.buffered.advance(length);
                    return Ok(Some(head));
                }
                Ok(None) => {}
                Err(error) => return Err(Rejection::new(400, error.to_string()).into()),
            }
            let introduced_by = self.stranger.as_ref().map(|stranger| stranger.introduced_by);
            let until = introduced_by.unwrap_or_else(|| Instant::now() + STALL_TIMEOUT);
            let flush = timeout_at(until, stream::flush(&mut self.stream, &mut self.out));
            flush.await.map_err(|_| ConnectionEnd::Broken)??;
            self.answering = false;
            let until = introduced_by.unwrap_or_else(|| {
                if self.buffered.is_empty() {
                    Instant::now() + IDLE_TIMEOUT
                } else {
                    *since.get_or_insert_with(Instant::now) + HEAD_TIMEOUT
                }
            });
            let read = timeout_at(until, stream::read(&mut self.stream, &mut self.buffered));
            let read = read.await.map_err(|_| ConnectionEnd::Refused(None))??;
            if read == 0 {
                return if self.buffered.is_empty() {
                    Ok(None)
                } else {
                    Err(ConnectionEnd::Broken)
                };
            }
        }
    }

    /// A GET: are you there, how much do you have, goodbye.
    async fn question(&mut self, head: &RequestHead) -> Result<(), ConnectionEnd> {
        if head.content_length.unwrap_or(0) > 0 || head.transfer_coded {
            return Err(Rejection::new(400, "a GET must not have a body here").into());
        }
        let mut have = None;
        if head.wire == Some(2)
            && let Some(session_id) = head.session_id
            && let Some(peer) = match self.sender(head, false).await {
                Ok(peer) => Some(peer),
                Err(Unidentified::Crowded) => return Err(crowded().into()),
                Err(_) => None,
            }
        {
            meet(&peer, session_id, self.source())?;
            if let Some(number) = head.sequence_number {
                have = Some(have_of(&peer, number).await);
            }
            if head.bye {
                peer.conversation().gone = Some(ReceiveFailure::Goodbye);
                peer.end_waiting(ReceiveFailure::Goodbye);
            }
        }
        let text = "Connection working (GET)";
        http::write_response(self.out.small(), 200, text, self.shared.session_id, have, head.close);
        Ok(())
    }

    /// A POST: a message.
    async fn message(&mut self, head: &RequestHead) -> Result<(), ConnectionEnd> {
        let length = body_length(head, self.origin.proven.is_some())?;
        let peer = match self.sender(head, true).await {
            Ok(peer) => peer,
            Err(unidentified) => return Err(self.unidentified(head, unidentified).into()),
        };
        let here = self.buffered.len() as u64;
        let (session_id, limit) = (self.shared.session_id, self.shared.message_limit);
        let mut arrival = admit(&peer, head, length, here, session_id, limit, self.source())?;
        let outcome = self.arrive(head, &peer, &mut arrival).await;
        if arrival.holds() {
            peer.conversation().leave(&mut arrival);
        }
        outcome
    }

    /// Reads a message and answers as its conversation decides.
    async fn arrive(
        &mut self,
        head: &RequestHead,
        peer: &Arc<Peer>,
        arrival: &mut Arrival,
    ) -> Result<(), ConnectionEnd> {
        let mut waited = false;
        loop {
            let changed = peer.quota.changed.notified();
            let step = peer.conversation().step(arrival, Instant::now().into_std())?;
            match step {
                Step::Wait(until) => {
                    if !std::mem::replace(&mut waited, true) && arrival.is_queued() {
                        let text =
                            "the mailbox is full: the peer waits until something is received";
                        self.shared.notice(Level::Info, Some(peer.name()), text);
                    }
                    stream::flush(&mut self.stream, &mut self.out).await?;
                    let _ = timeout_at(until.into(), changed).await;
                    continue;
                }
                Step::Discard => {
                    self.go_on(head).await?;
                    self.discard(arrival.body()).await?;
                }
                Step::Take(charge) => {
                    let length = usize::try_from(arrival.body()).unwrap_or(usize::MAX);
                    // Copied: a parked message must not hold its neighbours' memory.
                    let bytes = Bytes::copy_from_slice(&self.buffered[..length]);
                    self.buffered.advance(length);
                    let mut incoming =
                        body::parse(Wire::Two, bytes).map_err(|error| unreadable(&error))?;
                    incoming.charge = Some(charge);
                    self.deliver(peer, arrival, incoming)?;
                }
                Step::Read(mut assembly, interrupt) => {
                    match self.read(head, &mut assembly, interrupt).await {
                        Ok(()) => {
                            let incoming = assembly.finish().map_err(|error| unreadable(&error))?;
                            self.deliver(peer, arrival, incoming)?;
                        }
                        Err(BodyError::Connection(_)) => {
                            let now = Instant::now().into_std();
                            peer.conversation().broke(arrival, assembly, now);
                            return Err(ConnectionEnd::Broken);
                        }
                        Err(error) => return Err(unreadable(&error).into()),
                    }
                }
            }
            let session_id = self.shared.session_id;
            http::write_response(self.out.small(), 200, RECEIVED, session_id, None, false);
            return Ok(());
        }
    }

    fn deliver(
        &mut self,
        peer: &Arc<Peer>,
        arrival: &Arrival,
        incoming: Incoming,
    ) -> Result<(), Rejection> {
        let (name, from) = (peer.name(), self.origin.address);
        tracing::trace!(peer = name, id = %incoming.id, %from, "received");
        let mut body = 0;
        if arrival.wire != Wire::Two {
            self.hint_at_another_wire(peer, &incoming);
            body = self.shared.hasher.hash(incoming.value.as_slice());
        }
        let now = Instant::now().into_std();
        let delivered = peer.conversation().complete(arrival, incoming, body, now)?;
        self.answering = arrival.wire != Wire::Two;
        if let Some(delivered) = delivered {
            peer.hand_over(delivered);
        } else {
            tracing::debug!(peer = name, "dropped a repeated message");
        }
        Ok(())
    }

    /// Reports once that a peer seems to speak the 5.x wire where 4.x is expected: its messages can
    /// be read, but as bytes where the user expects a value. Only for its default ids, digits as
    /// text, which a 4.x pool never makes by itself.
    fn hint_at_another_wire(&self, peer: &Arc<Peer>, incoming: &Incoming) {
        let MessageId::Text(id) = &incoming.id else { return };
        if incoming.wire != Wire::Four
            || !id.bytes().all(|byte| byte.is_ascii_digit())
            || envelope::looks_like(incoming.value.as_slice()) != Some(Wire::Five)
            || peer.hinted.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let text = format!(
            "message {:?} of '{}' looks like one from tno.mpc.communication 5, whose values 4.x \
             reads as bytes: if that is what runs there, register it with wire=5",
            incoming.id.to_string(),
            peer.name()
        );
        self.shared.notice(Level::Warning, Some(peer.name()), &text);
    }

    /// Identifies the sender, patiently while both sides may still be starting.
    async fn sender(
        &mut self,
        head: &RequestHead,
        patient: bool,
    ) -> Result<Arc<Peer>, Unidentified> {
        if let Some(peer) = &self.peer
            && (self.origin.server_port == head.server_port || self.origin.proven.is_some())
            && !peer.is_forgotten()
        {
            return Ok(Arc::clone(peer));
        }
        self.origin.server_port = head.server_port;
        let patience = if patient { STRANGER_GRACE } else { Duration::ZERO };
        let (peer, party) = identify(&self.shared, &self.origin, patience).await?;
        if let Some(before) = self.peer.take() {
            before.inbound.fetch_sub(1, Ordering::AcqRel);
        }
        if peer.inbound.fetch_add(1, Ordering::AcqRel) >= PEER_CONNECTIONS {
            peer.inbound.fetch_sub(1, Ordering::AcqRel);
            return Err(Unidentified::Crowded);
        }
        peer.conversation().probes = 0;
        (self.peer, self.party) = (Some(Arc::clone(&peer)), party);
        self.stranger = None;
        Ok(peer)
    }

    fn source(&self) -> Source {
        Source { connection: self.number, party: self.party }
    }

    /// Says in the log who was refused, and to whoever that is what to do. Names of peers are only
    /// for the log.
    fn unidentified(&self, head: &RequestHead, unidentified: Unidentified) -> Rejection {
        let stranger = self.stranger_text(head);
        let proven = self.origin.proven.as_ref().map_or_else(String::new, |it| it.describe());
        match unidentified {
            Unidentified::Crowded => return crowded(),
            Unidentified::Nobody => self.shared.report(Level::Warning, &stranger),
            Unidentified::AnotherKey { peer, held } => {
                let text = format!(
                    "refused a party of the authority that came from its address and proved \
                     {proven}: the first one there had the key sha256:{}; register the peer's \
                     certificate or key, so that no other one is taken for it",
                    hex::encode(held)
                );
                self.shared.report_about(&peer, Level::Warning, &text);
            }
            Unidentified::SendOnly(peer) => {
                let text = format!(
                    "refused a party of the authority that came from its address and proved \
                     {proven}: nothing says how the peer is recognised; register its certificate \
                     or key"
                );
                self.shared.report_about(&peer, Level::Warning, &text);
            }
        }
        Rejection::new(401, stranger)
    }

    fn stranger_text(&self, head: &RequestHead) -> String {
        let address = self.origin.address.ip().to_canonical();
        match &self.origin.proven {
            Some(proven) => format!(
                "no party of this pool has the key sha256:{}, as in the certificate from \
                 {address}; register its certificate or its key",
                hex::encode(proven.key_id())
            ),
            None => format!(
                "no party of this pool is registered at {address} with port {}; register it \
                 under the address and port of its own server",
                head.server_port.unwrap_or(0)
            ),
        }
    }

    /// Reads the body, until it is complete or another connection delivers it.
    async fn read(
        &mut self,
        head: &RequestHead,
        assembly: &mut Assembly,
        interrupt: Option<Interrupt>,
    ) -> Result<(), BodyError> {
        self.go_on(head).await?;
        let Some(interrupt) = interrupt else { return self.fill(assembly).await };
        tokio::select! {
            read = self.fill(assembly) => read,
            () = interrupt.notified() => Err(io::Error::from(io::ErrorKind::Interrupted).into()),
        }
    }

    async fn go_on(&mut self, head: &RequestHead) -> io::Result<()> {
        if head.expects_continue && self.buffered.is_empty() {
            self.out.small().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if head.content_length.unwrap_or(0) > self.buffered.len() as u64 {
            stream::flush(&mut self.stream, &mut self.out).await?;
        }
        Ok(())
    }

    /// Reads a body. Does not wait for a sender that stays silent too long.
    async fn fill(&mut self, assembly: &mut Assembly) -> Result<(), BodyError> {
        loop {
            let before = assembly.received();
            let memory = &*self.shared.memory;
            let fill = assembly.fill(&mut self.stream, &mut self.buffered, memory);
            match timeout(STALL_TIMEOUT, fill).await {
                Ok(result) => return result,
                Err(_) if assembly.received() > before => {}
                Err(_) => {
                    return Err(BodyError::Connection(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// Reads and discards a body.
    async fn discard(&mut self, mut bytes: u64) -> Result<(), ConnectionEnd> {
        while bytes > 0 {
            if self.buffered.is_empty() {
                let read = stream::read(&mut self.stream, &mut self.buffered);
                if timeout(STALL_TIMEOUT, read).await.map_err(|_| ConnectionEnd::Broken)?? == 0 {
                    return Err(ConnectionEnd::Broken);
                }
            }
            let taken = bytes.min(self.buffered.len() as u64);
            self.buffered.advance(usize::try_from(taken).unwrap_or(usize::MAX));
            bytes -= taken;
        }
        Ok(())
    }

    /// Lets a refused sender read the answer: closing with unread bytes would reset the connection
    /// and lose the answer. Bounded in bytes and time.
    async fn drain_refused(&mut self) {
        use tokio::io::AsyncWriteExt as _;
        const MOST: usize = 1 << 20;
        let _ = timeout(Duration::from_secs(2), async {
            let _ = self.stream.shutdown().await;
            let mut drained = 0;
            while drained < MOST {
                self.buffered.clear();
                match stream::read(&mut self.stream, &mut self.buffered).await {
                    Ok(read) if read > 0 => drained += read,
                    _ => break,
                }
            }
        })
        .await;
    }
}

/// Who sends from here; waits this long for a peer that is only being registered.
async fn identify(
    shared: &Shared,
    origin: &Origin,
    patience: Duration,
) -> Result<(Arc<Peer>, u64), Unidentified> {
    let until = Instant::now() + patience;
    loop {
        let changed = shared.peers_changed.notified();
        let identified = shared.identify(origin).await;
        if identified.is_ok() || timeout_at(until, changed).await.is_err() {
            return identified;
        }
    }
}

/// The length of a POST's body. Says nothing about peers before the length is known.
fn body_length(head: &RequestHead, proven: bool) -> Result<u64, Rejection> {
    if head.content_coded {
        return Err(Rejection::new(415, "compressed bodies are not accepted"));
    }
    let Some(length) = head.content_length.filter(|_| !head.transfer_coded) else {
        return Err(Rejection::new(411, "expected a Content-Length and no transfer coding"));
    };
    if head.server_port.is_none() && !proven {
        return Err(Rejection::new(400, "the cookie server_port is missing"));
    }
    Ok(length)
}

/// Admits a known peer's message, of which `here` bytes of the body have arrived: it must use a
/// wire that the peer speaks, belong to its current session, and not be too large.
pub(crate) fn admit(
    peer: &Peer,
    head: &RequestHead,
    length: u64,
    here: u64,
    own_session: u64,
    limit: u64,
    source: Source,
) -> Result<Arrival, Rejection> {
    let numbered = match (head.wire, head.session_id, head.sequence_number) {
        (Some(2), Some(session_id), Some(sequence_number)) => {
            Some(Numbered { session_id, sequence_number, floor: head.floor.unwrap_or(0) })
        }
        _ => None,
    };
    let (wire, limit) = match numbered {
        Some(_) => (Wire::Two, limit),
        None => (peer.compatible_wire(), limit.min(MAXIMUM_COMPATIBLE_BYTES)),
    };
    let offset = head.offset.unwrap_or(0);
    let Some(total) = length.checked_add(offset).filter(|total| *total <= limit) else {
        let text = format!("a body of {length} bytes is too large: expected at most {limit}");
        return Err(Rejection::new(413, text));
    };
    match numbered {
        None => {
            peer.seen_once.store(true, Ordering::Release);
            if !peer.speaks_compatible() {
                let text =
                    "you spoke the second wire before and now you do not: a downgrade is refused";
                return Err(Rejection::new(409, text));
            }
        }
        Some(numbered) => {
            if head.peer_session_id.is_some_and(|known| known != own_session) {
                let text = "this pool was restarted since you last heard from it";
                return Err(Rejection::new(409, text));
            }
            meet(peer, numbered.session_id, source)?;
        }
    }
    let whole = here >= total && total < OWN_BUFFER_BYTES as u64;
    Ok(Arrival::new(source, wire, numbered, total, offset, whole))
}

/// Meets a request's session on the second wire; a session that has ended is told so.
fn meet(peer: &Peer, session_id: u64, source: Source) -> Result<(), Rejection> {
    match peer.meets(session_id, source) {
        Session::Past => Err(Rejection::new(409, "your session has ended")),
        Session::First | Session::Same | Session::Restarted => {
            peer.speaks_second();
            Ok(())
        }
    }
}

fn crowded() -> Rejection {
    Rejection::new(503, format!("you have {PEER_CONNECTIONS} connections here already"))
}

/// How much of a message is here, once nobody is reading it.
async fn have_of(peer: &Peer, number: u64) -> Have {
    let until = Instant::now() + SUPERSEDE_WAIT;
    loop {
        let changed = peer.quota.changed.notified();
        let now = Instant::now().into_std();
        let have = peer.conversation().have(number, until.into_std(), now);
        if let Some(have) = have {
            return have;
        }
        let _ = timeout_at(until, changed).await;
    }
}

fn unreadable(error: &BodyError) -> Rejection {
    let status = if matches!(error, BodyError::Memory(_)) { 503 } else { 400 };
    let text = format!("Failed processing received message: {error}");
    Rejection::new(status, text.replace(['\r', '\n'], " "))
}
