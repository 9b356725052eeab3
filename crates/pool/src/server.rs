//! Connections that come in. In this order: the head, who it is, how much it may send; only then
//! memory is spent and the body read.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use convelo_channel::ProvenPeer;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::body::{self, Assembly, BodyError};
use crate::envelope;
use crate::error::ReceiveFailure;
use crate::http::{self, Have, Method, RequestHead};
use crate::limits::{
    HEAD_TIMEOUT, IDLE_TIMEOUT, MAXIMUM_COMPATIBLE_BYTES, OWN_BUFFER_BYTES, ROOM_WAIT,
    STALL_TIMEOUT, STRANGER_GRACE, SUPERSEDE_WAIT,
};
use crate::message::{Incoming, Wire};
use crate::notice::Level;
use crate::peers::{Origin, Peer};
use crate::session::{Arrival, Session};
use crate::shared::Shared;
use crate::stream::{self, Carried, Out};

/// One accepted connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    stream: Carried,
    origin: Origin,
    connection: u64,
    buffered: BytesMut,
    out: Out,
    peer: Option<Arc<Peer>>,
    /// Held until the sender is known.
    stranger: Option<OwnedSemaphorePermit>,
    /// Whether an answer to a message of a wire without numbers may not have left yet.
    answering: bool,
}

/// Why a connection is over.
enum ConnectionEnd {
    /// The peer ended it, or it broke.
    Broken,
    /// Its request was refused, and where the next one begins is not known.
    Refused,
}

impl From<io::Error> for ConnectionEnd {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// An answer that is not 200.
struct Rejection {
    status: u16,
    text: String,
    have: Option<Have>,
}

impl Rejection {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), have: None }
    }
}

const RECEIVED: &str = "Message received";

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: Carried,
        address: SocketAddr,
        proven: Option<ProvenPeer>,
        stranger: OwnedSemaphorePermit,
    ) -> Self {
        let connection = shared.connection_number();
        Self {
            shared,
            stream,
            origin: Origin { address, server_port: None, proven: proven.map(Arc::new) },
            connection,
            buffered: BytesMut::new(),
            out: Out::default(),
            peer: None,
            stranger: Some(stranger),
            answering: false,
        }
    }

    /// Serves requests until the connection ends.
    pub(crate) async fn serve(mut self) {
        let outcome = self.requests().await;
        if matches!(outcome, Err(ConnectionEnd::Refused) | Ok(())) {
            let _ = timeout(HEAD_TIMEOUT, stream::flush(&mut self.stream, &mut self.out)).await;
            self.drain_refused().await;
        } else if self.answering
            && let Some(peer) = &self.peer
        {
            peer.state().recent.unanswered(self.connection);
        }
        if let Some(peer) = self.peer.take() {
            peer.inbound.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn requests(&mut self) -> Result<(), ConnectionEnd> {
        while let Some(head) = self.head().await? {
            let close = head.close;
            let rejection = match head.method {
                Method::Get => self.question(&head).await?,
                Method::Post => self.message(&head).await?,
                Method::Other => {
                    Some(Rejection::new(405, "only POST delivers a message and GET asks for one"))
                }
            };
            if let Some(rejection) = rejection {
                let session_id = self.shared.session_id;
                http::write_response(
                    self.out.small(),
                    rejection.status,
                    &rejection.text,
                    session_id,
                    rejection.have,
                    true,
                );
                return Err(ConnectionEnd::Refused);
            }
            if close {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next head; nothing at the end of the connection. What is to be said is said before
    /// anything is waited for.
    async fn head(&mut self) -> Result<Option<RequestHead>, ConnectionEnd> {
        let mut since: Option<Instant> = None;
        loop {
            match RequestHead::parse(&self.buffered) {
                Ok(Some((head, length))) => {
                    self.buffered.advance(length);
                    return Ok(Some(head));
                }
                Ok(None) => {}
                Err(error) => {
                    let (text, session_id) = (error.to_string(), self.shared.session_id);
                    http::write_response(self.out.small(), 400, &text, session_id, None, true);
                    return Err(ConnectionEnd::Refused);
                }
            }
            stream::flush(&mut self.stream, &mut self.out).await?;
            self.answering = false;
            let wait = if self.buffered.is_empty() {
                IDLE_TIMEOUT
            } else {
                let since = *since.get_or_insert_with(Instant::now);
                HEAD_TIMEOUT.saturating_sub(since.elapsed())
            };
            let read = timeout(wait, stream::read(&mut self.stream, &mut self.buffered));
            let read = read.await.map_err(|_| ConnectionEnd::Refused)??;
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
    async fn question(&mut self, head: &RequestHead) -> Result<Option<Rejection>, ConnectionEnd> {
        if head.content_length.unwrap_or(0) > 0 || head.transfer_coded {
            return Ok(Some(Rejection::new(400, "a GET has no body here")));
        }
        let mut have = None;
        if head.wire == Some(2)
            && let Some(session_id) = head.session_id
            && let Some(peer) = self.sender(head, false).await
        {
            peer.speaks_second();
            if peer.meets(session_id) == Session::Past {
                return Ok(Some(Rejection::new(409, "this session of yours has ended")));
            }
            if let Some(number) = head.sequence_number {
                have = Some(self.have(&peer, number).await);
            }
            if head.bye {
                peer.state().gone = Some(ReceiveFailure::Goodbye);
                peer.end_waiting(ReceiveFailure::Goodbye);
            }
        }
        let text = "Connection working (GET)";
        http::write_response(self.out.small(), 200, text, self.shared.session_id, have, head.close);
        Ok(None)
    }

    async fn have(&mut self, peer: &Arc<Peer>, number: u64) -> Have {
        let taken = self.take_over(peer, number).await;
        let mut state = peer.state();
        if taken {
            state.arriving.remove(&number);
        }
        state.expire_partials();
        if state.seen.is_settled(number) {
            return Have::All;
        }
        Have::Bytes(state.partials.get(&number).map_or(0, |(assembly, _)| assembly.received()))
    }

    /// A POST. Nothing when it was answered 200.
    async fn message(&mut self, head: &RequestHead) -> Result<Option<Rejection>, ConnectionEnd> {
        if head.content_coded {
            return Ok(Some(Rejection::new(415, "compressed bodies are not taken")));
        }
        let Some(length) = head.content_length.filter(|_| !head.transfer_coded) else {
            return Ok(Some(Rejection::new(
                411,
                "a body needs a Content-Length and no transfer coding",
            )));
        };
        if head.server_port.is_none() && self.origin.proven.is_none() {
            return Ok(Some(Rejection::new(400, "the cookie server_port is missing")));
        }
        let Some(peer) = self.sender(head, true).await else {
            let text = self.stranger_text(head);
            self.shared.notice(Level::Warning, None, &text);
            return Ok(Some(Rejection::new(401, text)));
        };
        let second =
            head.wire == Some(2) && head.session_id.is_some() && head.sequence_number.is_some();
        let wire = if second { Wire::Two } else { peer.compatible_wire() };
        let most = if second {
            self.shared.message_limit
        } else {
            self.shared.message_limit.min(MAXIMUM_COMPATIBLE_BYTES)
        };
        let offset = head.offset.unwrap_or(0);
        let Some(total) = length.checked_add(offset).filter(|total| *total <= most) else {
            let text = format!("a body of {length} bytes is too large: at most {most} are taken");
            return Ok(Some(Rejection::new(413, text)));
        };
        if !second {
            peer.seen_once.store(true, Ordering::Release);
            if !peer.speaks_compatible() {
                let text =
                    "you spoke the second wire before and now do not: a downgrade is refused";
                return Ok(Some(Rejection::new(409, text)));
            }
            return self.unnumbered(head, &peer, wire, total).await;
        }
        self.numbered(head, &peer, total, offset).await
    }

    /// A message of a wire without numbers.
    async fn unnumbered(
        &mut self,
        head: &RequestHead,
        peer: &Arc<Peer>,
        wire: Wire,
        total: u64,
    ) -> Result<Option<Rejection>, ConnectionEnd> {
        let Some(charge) = self.room(peer, total).await? else { return Ok(Some(full(peer))) };
        self.go_on(head).await?;
        let mut assembly = Assembly::new(wire, total);
        let read = self.fill(&mut assembly).await;
        let incoming = match read_result(read)? {
            Ok(()) => assembly.finish(),
            Err(error) => Err(error),
        };
        let mut incoming = match incoming {
            Ok(incoming) => incoming,
            Err(error) => return Ok(Some(bad(&error))),
        };
        incoming.charge = Some(charge);
        self.hint_at_another_wire(peer, &incoming);
        let body = self.shared.hasher.hash(incoming.value.as_slice());
        let mut state = peer.state();
        state.gone = None;
        let parked = state.mailbox.is_parked(&incoming.id);
        let passed = match &incoming.id {
            crate::MessageId::Int(number) => {
                u64::try_from(*number).is_ok_and(|number| number < state.receiving.peek())
                    && !state.mailbox.is_awaited(&incoming.id)
            }
            crate::MessageId::Text(_) => false,
        };
        let repeats = state.recent.repeats(&incoming.id, body, self.connection, parked, passed);
        if !repeats {
            state.recent.note(incoming.id.clone(), body, self.connection);
        }
        drop(state);
        self.answering = true;
        if repeats {
            tracing::debug!(peer = peer.name(), id = %incoming.id, "a repeated message is dropped");
        } else {
            self.deliver(peer, incoming);
        }
        self.received();
        Ok(None)
    }

    /// Says once that a peer seems to speak the 5.x wire where 4.x is expected: what it sends can be
    /// read, and is bytes where the user expects a value. Only for its default ids, digits as text,
    /// which no 4.x pool makes by itself.
    fn hint_at_another_wire(&self, peer: &Arc<Peer>, incoming: &Incoming) {
        let crate::MessageId::Text(id) = &incoming.id else { return };
        if incoming.wire != Wire::Four
            || !id.bytes().all(|byte| byte.is_ascii_digit())
            || envelope::looks_like(incoming.value.as_slice()) != Some(Wire::Five)
            || peer.hinted.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let text = format!(
            "message {:?} of '{}' looks like one of tno.mpc.communication 5, whose values 4.x reads \
             as bytes: if that is what runs there, register it with wire=5",
            incoming.id.to_string(),
            peer.name()
        );
        self.shared.notice(Level::Warning, Some(peer.name()), &text);
    }

    /// A message of the second wire: exactly once by session and number.
    async fn numbered(
        &mut self,
        head: &RequestHead,
        peer: &Arc<Peer>,
        total: u64,
        offset: u64,
    ) -> Result<Option<Rejection>, ConnectionEnd> {
        let (Some(session_id), Some(number)) = (head.session_id, head.sequence_number) else {
            return Ok(Some(Rejection::new(400, "x-pool-epoch and x-pool-nonce are missing")));
        };
        if head.peer_session_id.is_some_and(|known| known != self.shared.session_id) {
            return Ok(Some(Rejection::new(
                409,
                "this pool was restarted since you last heard from it",
            )));
        }
        peer.speaks_second();
        if peer.meets(session_id) == Session::Past {
            return Ok(Some(Rejection::new(409, "this session of yours has ended")));
        }
        let body = total - offset;
        let arrival = peer.state().seen.arrives(number, head.floor.unwrap_or(0));
        match arrival {
            Arrival::New => {}
            Arrival::Settled => {
                self.go_on(head).await?;
                self.discard(body).await?;
                self.received();
                return Ok(None);
            }
            Arrival::TooFarAhead => {
                return Ok(Some(Rejection::new(
                    503,
                    "too many messages before this one are missing",
                )));
            }
        }
        // All of it is here already: nobody can interfere.
        if offset == 0 && self.buffered.len() as u64 >= total && total < OWN_BUFFER_BYTES as u64 {
            let Some(charge) = self.room(peer, total).await? else { return Ok(Some(full(peer))) };
            let length = usize::try_from(total).unwrap_or(usize::MAX);
            // A copy: a parked message must not hold the memory of its neighbours.
            let bytes = Bytes::copy_from_slice(&self.buffered[..length]);
            self.buffered.advance(length);
            return Ok(match body::parse(Wire::Two, bytes) {
                Ok(incoming) => self.deliver_numbered(peer, number, incoming, charge),
                Err(error) => Some(bad(&error)),
            });
        }
        let give_way = if self.take_over(peer, number).await {
            let give_way = Arc::new(Notify::new());
            peer.state().arriving.insert(number, Arc::clone(&give_way));
            give_way
        } else {
            return Ok(Some(Rejection::new(
                503,
                "this message is on its way on another connection",
            )));
        };
        let result = self.arriving(head, peer, number, total, offset, &give_way).await;
        peer.state().arriving.remove(&number);
        peer.arrivals.notify_waiters();
        result
    }

    async fn arriving(
        &mut self,
        head: &RequestHead,
        peer: &Arc<Peer>,
        number: u64,
        total: u64,
        offset: u64,
        give_way: &Notify,
    ) -> Result<Option<Rejection>, ConnectionEnd> {
        if peer.state().seen.is_settled(number) {
            self.go_on(head).await?;
            self.discard(total - offset).await?;
            self.received();
            return Ok(None);
        }
        let kept = peer.state().partials.remove(&number).map(|(assembly, _)| assembly);
        let mut assembly = match (offset, kept) {
            (0, _) => {
                let Some(charge) = self.room(peer, total).await? else {
                    return Ok(Some(full(peer)));
                };
                Assembly::new(Wire::Two, total).charged(charge)
            }
            (_, Some(kept)) if kept.received() == offset && kept.total() == total => kept,
            (_, kept) => {
                let received = kept.as_ref().map_or(0, Assembly::received);
                if let Some(kept) = kept {
                    peer.state().keep_partial(number, kept);
                }
                let mut rejection =
                    Rejection::new(409, "the continuation does not fit what has arrived");
                rejection.have = Some(Have::Bytes(received));
                return Ok(Some(rejection));
            }
        };
        self.go_on(head).await?;
        let read = tokio::select! {
            read = self.fill(&mut assembly) => Some(read),
            () = give_way.notified() => None,
        };
        let read = match read {
            None | Some(Err(BodyError::Connection(_))) => {
                peer.state().keep_partial(number, assembly);
                return Err(ConnectionEnd::Broken);
            }
            Some(read) => read,
        };
        let incoming = match read {
            Ok(()) => assembly.finish(),
            Err(error) => Err(error),
        };
        Ok(match incoming {
            Ok(mut incoming) => {
                let charge = incoming.charge.take();
                match charge {
                    Some(charge) => self.deliver_numbered(peer, number, incoming, charge),
                    None => Some(Rejection::new(500, "the message lost its place")),
                }
            }
            Err(error) => Some(bad(&error)),
        })
    }

    /// Waits until nobody else reads this message; false when that takes too long.
    async fn take_over(&mut self, peer: &Arc<Peer>, number: u64) -> bool {
        let until = Instant::now() + SUPERSEDE_WAIT;
        loop {
            let arrived = peer.arrivals.notified();
            let Some(other) = peer.state().arriving.get(&number).cloned() else { return true };
            other.notify_one();
            if tokio::time::timeout_at(until, arrived).await.is_err() {
                return false;
            }
        }
    }

    fn deliver_numbered(
        &mut self,
        peer: &Arc<Peer>,
        number: u64,
        mut incoming: Incoming,
        charge: crate::quota::Charge,
    ) -> Option<Rejection> {
        incoming.charge = Some(charge);
        if peer.state().seen.settle(number) {
            self.deliver(peer, incoming);
        }
        self.received();
        None
    }

    fn deliver(&self, peer: &Arc<Peer>, incoming: Incoming) {
        let (name, from) = (peer.name(), self.origin.address);
        tracing::trace!(peer = name, id = %incoming.id, %from, "received");
        peer.deliver(incoming);
    }

    fn received(&mut self) {
        http::write_response(self.out.small(), 200, RECEIVED, self.shared.session_id, None, false);
    }

    /// Who sends this. With patience where both sides may still be starting.
    async fn sender(&mut self, head: &RequestHead, patient: bool) -> Option<Arc<Peer>> {
        if let Some(peer) = &self.peer
            && (self.origin.server_port == head.server_port || self.origin.proven.is_some())
            && !peer.forgotten.load(Ordering::Acquire)
        {
            return Some(Arc::clone(peer));
        }
        self.origin.server_port = head.server_port;
        let until = Instant::now() + if patient { STRANGER_GRACE } else { Duration::ZERO };
        loop {
            let changed = self.shared.peers_changed.notified();
            let peer = self.shared.identify(&self.origin).await;
            if let Some(peer) = peer {
                if let Some(before) = self.peer.replace(Arc::clone(&peer)) {
                    before.inbound.fetch_sub(1, Ordering::AcqRel);
                }
                peer.inbound.fetch_add(1, Ordering::AcqRel);
                peer.state().probes = 0;
                self.stranger = None;
                return Some(peer);
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return None;
            }
        }
    }

    fn stranger_text(&self, head: &RequestHead) -> String {
        let address = self.origin.address.ip().to_canonical();
        match &self.origin.proven {
            Some(proven) => format!(
                "no party of this pool has the key sha256:{} of the certificate that came from \
                 {address}; register its certificate or its key",
                hex::encode(proven.key_id())
            ),
            None => format!(
                "no party of this pool is registered at {address} with the port {}; register it \
                 under the address and port of its own server",
                head.server_port.unwrap_or(0)
            ),
        }
    }

    async fn room(
        &mut self,
        peer: &Arc<Peer>,
        bytes: u64,
    ) -> Result<Option<crate::quota::Charge>, ConnectionEnd> {
        let awaited = || peer.state().mailbox.waiting() > 0;
        if let Some(charge) = peer.quota.try_take(bytes, false) {
            return Ok(Some(charge));
        }
        if let Some(charge) = peer.quota.try_take(bytes, awaited()) {
            return Ok(Some(charge));
        }
        self.shared.notice(
            Level::Info,
            Some(peer.name()),
            "the mailbox is full: the peer waits until something is received",
        );
        stream::flush(&mut self.stream, &mut self.out).await?;
        Ok(peer.quota.take(bytes, awaited, ROOM_WAIT).await)
    }

    async fn go_on(&mut self, head: &RequestHead) -> Result<(), ConnectionEnd> {
        if head.expects_continue && self.buffered.is_empty() {
            self.out.small().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if head.content_length.unwrap_or(0) > self.buffered.len() as u64 {
            stream::flush(&mut self.stream, &mut self.out).await?;
        }
        Ok(())
    }

    /// Reads a body. Whoever sends nothing for too long is not waited for.
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

    /// Reads a body that is not needed.
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
    /// and take the answer with it. Bounded in bytes and time.
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

/// A broken connection is told from a bad body.
fn read_result(read: Result<(), BodyError>) -> Result<Result<(), BodyError>, ConnectionEnd> {
    match read {
        Err(BodyError::Connection(_)) => Err(ConnectionEnd::Broken),
        other => Ok(other),
    }
}

fn bad(error: &BodyError) -> Rejection {
    let status = if matches!(error, BodyError::Memory(_)) { 503 } else { 400 };
    Rejection::new(
        status,
        format!("Failed processing received message: {error}").replace(['\r', '\n'], " "),
    )
}

fn full(peer: &Peer) -> Rejection {
    let name = peer.name();
    Rejection::new(
        503,
        format!("nobody receives the messages of '{name}' here: the mailbox is full"),
    )
}
