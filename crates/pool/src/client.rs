//! Connections that go out. A lane is one connection to one peer and the task that keeps it: it
//! takes requests from the peer's outbox, writes them, and settles them as the answers come.
//!
//! On the second wire the primary lane carries all small messages, many before the first answer;
//! bulk goes over lanes of its own. On a compatible wire every lane carries one request at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use convelo_channel::{Expect, PeerTlsError};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::error::{Advice, ConnectionError, SendFailure};
use crate::http::{self, Have, Ours, Question, ResponseHead};
use crate::limits::{
    ABSENCE_LOG, BULK_CONNECTIONS, COMPATIBLE_CONNECTIONS, CONNECT_TIMEOUT, PIPELINE, RETRY_FIRST,
    RETRY_LONGEST, STALL_TIMEOUT,
};
use crate::message::Wire;
use crate::notice::Level;
use crate::outbox::{Kind, Message, Request};
use crate::peers::{Peer, PeerIdentity};
use crate::session::Session;
use crate::shared::{Shared, jittered};
use crate::stream::{self, Carried, Moved, Out};

/// A lane that is not the primary one ends after this long without work.
const EXTRA_IDLE: Duration = Duration::from_secs(5);

/// Bytes of an answer's body: it is for people.
const MAXIMUM_ANSWER: u64 = 64 << 10;

/// Which requests a lane takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Primary,
    Extra,
}

/// Makes sure that somebody carries what is in the outbox.
pub(crate) fn provide(shared: &Arc<Shared>, peer: &Arc<Peer>, bulk: bool) {
    let outbox = &peer.outbox;
    if !outbox.primary.swap(true, Ordering::AcqRel) {
        shared.spawn(run(Arc::clone(shared), Arc::clone(peer), Lane::Primary));
    }
    let most = match peer.wire() {
        Some(Wire::Two) if bulk => BULK_CONNECTIONS,
        Some(Wire::Two) | None => return,
        Some(_) => COMPATIBLE_CONNECTIONS,
    };
    if outbox.idle_lanes.load(Ordering::Acquire) > 0 {
        return;
    }
    let more = outbox.extra_lanes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |lanes| {
        (lanes < most).then_some(lanes + 1)
    });
    if more.is_ok() {
        shared.spawn(run(Arc::clone(shared), Arc::clone(peer), Lane::Extra));
    }
}

async fn run(shared: Arc<Shared>, peer: Arc<Peer>, lane: Lane) {
    let mut keeper = Keeper { shared, peer, lane, pause: RETRY_FIRST, logged: None };
    keeper.run().await;
    if lane == Lane::Extra {
        keeper.peer.outbox.extra_lanes.fetch_sub(1, Ordering::AcqRel);
        // Something may have come between the last look and the end.
        if keeper.peer.outbox.has_bulk() {
            provide(&keeper.shared, &keeper.peer, true);
        }
    }
}

/// Keeps a lane connected.
struct Keeper {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    lane: Lane,
    pause: Duration,
    logged: Option<Instant>,
}

/// Why there is no connection.
enum NoConnection {
    /// Nobody is there: worth another try.
    Absent(ConnectionError),
    /// Another try would end the same way.
    Final(ConnectionError),
}

impl Keeper {
    fn take(&self) -> Option<Arc<Request>> {
        let outbox = &self.peer.outbox;
        let second = self.peer.wire() == Some(Wire::Two);
        match self.lane {
            Lane::Primary if second => outbox.take_small(),
            Lane::Primary => outbox.take_small().or_else(|| outbox.take_bulk()),
            Lane::Extra if second => outbox.take_bulk(),
            Lane::Extra => outbox.take_bulk().or_else(|| outbox.take_small()),
        }
    }

    /// Waits for a request; nothing when this lane is to end, which the primary one never is.
    async fn next(&self) -> Option<Arc<Request>> {
        let outbox = &self.peer.outbox;
        loop {
            let (small, bulk) = (outbox.small_ready.notified(), outbox.bulk_ready.notified());
            if let Some(request) = self.take() {
                return Some(request);
            }
            match self.lane {
                Lane::Primary => {
                    let compatible = self.peer.wire() != Some(Wire::Two);
                    tokio::select! {
                        () = small => {}
                        () = bulk, if compatible => {}
                    }
                }
                Lane::Extra => {
                    let compatible = self.peer.wire() != Some(Wire::Two);
                    outbox.idle_lanes.fetch_add(1, Ordering::AcqRel);
                    let ended = tokio::select! {
                        () = bulk => false,
                        () = small, if compatible => false,
                        () = sleep(EXTRA_IDLE) => true,
                    };
                    outbox.idle_lanes.fetch_sub(1, Ordering::AcqRel);
                    // Bulk that waits behind another message of its id has nobody else.
                    if ended && !outbox.has_bulk() {
                        return None;
                    }
                }
            }
        }
    }

    async fn run(&mut self) {
        while let Some(request) = self.next().await {
            match self.connect().await {
                Ok(stream) => {
                    self.give_back(vec![request]);
                    let mut connection = Carrier::new(self, stream);
                    let outcome = connection.carry().await;
                    let progress = connection.progress;
                    let left = connection.abandon();
                    if progress {
                        self.pause = RETRY_FIRST;
                    }
                    match outcome {
                        Ended::Idle => return self.give_back(left),
                        Ended::Done => self.give_back(left),
                        Ended::Busy => self.give_back_later(left).await,
                        Ended::Refused(error) => {
                            self.give_back(left);
                            self.fail_queued(&error);
                        }
                        Ended::Broken(error) => {
                            self.bear_absence(&error, &left);
                            self.give_back_later(left).await;
                        }
                    }
                }
                Err(NoConnection::Final(error)) => {
                    self.give_back(vec![request]);
                    self.fail_queued(&error);
                }
                Err(NoConnection::Absent(error)) => {
                    self.bear_absence(&error, &[]);
                    self.give_back_later(vec![request]).await;
                }
            }
        }
    }

    fn give_back(&self, requests: Vec<Arc<Request>>) {
        for request in requests.into_iter().rev() {
            self.peer.outbox.return_to_front(request);
        }
    }

    /// Pauses before another try, with the requests in hand: another lane that got them would try
    /// at once.
    async fn give_back_later(&mut self, requests: Vec<Arc<Request>>) {
        let pause = jittered(self.pause);
        self.pause = (self.pause * 2).min(RETRY_LONGEST);
        sleep(pause).await;
        self.give_back(requests);
    }

    async fn connect(&self) -> Result<Carried, NoConnection> {
        let config = &self.peer.config;
        let address = format!("{}:{}", config.host, config.port);
        let connect = TcpStream::connect((config.host.as_str(), config.port));
        let absent = NoConnection::Absent;
        let tcp = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                let source = Arc::new(error);
                return Err(absent(ConnectionError::Unreachable { address, source }));
            }
            Err(_) => return Err(absent(ConnectionError::NoAnswer { address })),
        };
        // Without it a small request behind another waits for delayed acknowledgements (40 ms).
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.shared.tls else { return Ok(Box::new(tcp)) };
        let expect = match &config.identity {
            PeerIdentity::Proven(expect) => Expect::clone(expect),
            _ => Expect::Chained,
        };
        match tls.connect(tcp, &expect).await {
            Ok((stream, proven)) => {
                let first = matches!(config.identity, PeerIdentity::FirstKey);
                if first && !self.peer.bind(proven.key_id()) {
                    let proven = proven.describe();
                    return Err(NoConnection::Final(ConnectionError::AnotherKey {
                        address,
                        proven,
                    }));
                }
                Ok(Box::new(stream))
            }
            Err(PeerTlsError::Handshake(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let source = Arc::new(error);
                Err(NoConnection::Final(ConnectionError::NoTls { address, source }))
            }
            Err(error) => {
                let last =
                    matches!(error, PeerTlsError::Refused(_) | PeerTlsError::RefusedByPeer(_));
                let source = Arc::new(error);
                let error = ConnectionError::Handshake { address, source };
                Err(if last { NoConnection::Final(error) } else { absent(error) })
            }
        }
    }

    /// Ends the requests whose patience with an absent peer is used up.
    fn bear_absence(&mut self, error: &ConnectionError, concerned: &[Arc<Request>]) {
        let now = Instant::now();
        let mut requests = concerned.to_vec();
        if requests.is_empty() {
            requests = self.peer.outbox.pending();
        }
        for request in requests {
            let since = {
                let mut absent =
                    request.absent_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *absent.get_or_insert(now)
            };
            let seconds = now.duration_since(since).as_secs();
            let carried = concerned.iter().any(|other| Arc::ptr_eq(other, &request));
            let breaks =
                request.breaks.fetch_add(u32::from(carried), Ordering::AcqRel) + u32::from(carried);
            // The second wire goes on where it was cut, the compatible ones begin again.
            let again = request.message().is_some_and(|message| message.wire != Wire::Two);
            if request.patience.is_some_and(|patience| {
                seconds >= u64::from(patience) || (again && breaks > patience)
            }) {
                let source = error.clone();
                self.peer.fail(&request, SendFailure::Unreachable { source, breaks, seconds });
            }
        }
        if self.logged.is_none_or(|logged| logged.elapsed() >= ABSENCE_LOG) {
            let level = if self.logged.is_some() { Level::Warning } else { Level::Info };
            self.logged = Some(now);
            let text = format!("{error}; trying on");
            self.shared.notice(level, Some(self.peer.name()), &text);
        }
    }

    fn fail_queued(&self, error: &ConnectionError) {
        while let Some(request) = self.take() {
            self.peer.fail(&request, SendFailure::NotAuthenticated(error.clone()));
        }
        self.shared.notice(Level::Warning, Some(self.peer.name()), &error.to_string());
    }
}

/// Why a connection was given up.
enum Ended {
    /// No work, and none is expected.
    Idle,
    /// In good order, or after an answer that ends it.
    Done,
    /// The peer has no room at the moment.
    Busy,
    /// It refused our certificate.
    Refused(ConnectionError),
    /// Out of order.
    Broken(ConnectionError),
}

/// A request whose answer is awaited.
struct Flight {
    request: Arc<Request>,
    /// Only the question how much has arrived was sent.
    asked: bool,
}

/// One connection and what is on it.
struct Carrier<'a> {
    keeper: &'a Keeper,
    stream: Carried,
    out: Out,
    arrived: BytesMut,
    flights: VecDeque<Flight>,
    /// Bytes of an answer's body that are still to come.
    skip: u64,
    answer: Option<(ResponseHead, Vec<u8>)>,
    /// Whether anything was settled.
    progress: bool,
    authority: String,
}

impl<'a> Carrier<'a> {
    fn new(keeper: &'a Keeper, stream: Carried) -> Self {
        let config = &keeper.peer.config;
        Self {
            keeper,
            stream,
            out: Out::default(),
            arrived: BytesMut::new(),
            flights: VecDeque::new(),
            skip: 0,
            answer: None,
            progress: false,
            authority: format!("{}:{}", config.host, config.port),
        }
    }

    fn depth(&self) -> usize {
        let second = self.keeper.peer.wire() == Some(Wire::Two);
        if second && self.keeper.lane == Lane::Primary { PIPELINE } else { 1 }
    }

    async fn carry(&mut self) -> Ended {
        let keeper = self.keeper;
        let outbox = &keeper.peer.outbox;
        let stall = sleep(STALL_TIMEOUT);
        tokio::pin!(stall);
        let mut moved = tokio::time::Instant::now();
        loop {
            // Registered before the look at the queue: what comes in between is not missed.
            let mut ready = std::pin::pin!(outbox.small_ready.notified());
            let pipelined = self.depth() > 1;
            if pipelined {
                ready.as_mut().enable();
            }
            while self.flights.len() < self.depth() && self.out.is_light() {
                let Some(request) = keeper.take() else { break };
                self.start(request);
            }
            if self.flights.is_empty() && self.out.is_empty() && !pipelined {
                match self.idle().await {
                    Ok(()) => continue,
                    Err(ended) => return ended,
                }
            }
            let idle = self.flights.is_empty();
            let room = self.flights.len() < self.depth() && self.out.is_light();
            tokio::select! {
                biased;
                result = stream::exchange(&mut self.stream, &mut self.out, &mut self.arrived) => {
                    moved = tokio::time::Instant::now();
                    match result {
                        Ok(Moved::Wrote) => self.note_written(),
                        Ok(Moved::Read(0)) if idle => return Ended::Done,
                        Ok(Moved::Read(0)) => {
                            return Ended::Broken(ConnectionError::Closed);
                        }
                        Ok(Moved::Read(_)) => match self.answers() {
                            Ok(()) => {}
                            Err(ended) => return ended,
                        },
                        Err(error) => return broken(error),
                    }
                }
                () = &mut ready, if pipelined && room => {}
                () = &mut stall => {
                    if moved.elapsed() >= STALL_TIMEOUT && !idle {
                        return Ended::Broken(ConnectionError::Stalled);
                    }
                    let from = if idle { tokio::time::Instant::now() } else { moved };
                    stall.as_mut().reset(from + STALL_TIMEOUT);
                }
            }
        }
    }

    /// Waits for work on a connection that carries one request at a time.
    async fn idle(&mut self) -> Result<(), Ended> {
        tokio::select! {
            request = self.keeper.next() => match request {
                Some(request) => {
                    self.start(request);
                    Ok(())
                }
                None => Err(Ended::Idle),
            },
            read = stream::read(&mut self.stream, &mut self.arrived) => match read {
                Ok(0) => Err(Ended::Done),
                Ok(_) => Err(Ended::Broken(ConnectionError::Unasked)),
                // A refusal of our certificate may come before the first request.
                Err(error) => Err(broken(error)),
            },
        }
    }

    fn start(&mut self, request: Arc<Request>) {
        let keeper = self.keeper;
        let shared = &keeper.shared;
        let port = shared.advertised_port();
        let mut asked = false;
        match &request.kind {
            Kind::Ask(question) => {
                let out = self.out.small();
                http::write_get(out, &self.authority, port, shared.session_id, *question);
            }
            Kind::Message(message)
                if message.wire == Wire::Two
                    && request.is_bulk()
                    && request.begun.load(Ordering::Acquire) =>
            {
                asked = true;
                let question = Question::Have(request.number);
                let out = self.out.small();
                http::write_get(out, &self.authority, port, shared.session_id, question);
            }
            Kind::Message(message) => self.write(&request, message, 0),
        }
        self.flights.push_back(Flight { request, asked });
    }

    fn write(&mut self, request: &Arc<Request>, message: &Message, offset: u64) {
        let (shared, peer) = (&self.keeper.shared, &self.keeper.peer);
        let ours = (message.wire == Wire::Two).then(|| Ours {
            session_id: shared.session_id,
            peer_session_id: peer.conversation().seen.session_id(),
            sequence_number: request.number,
            floor: peer.outbox.floor(),
            offset,
        });
        let length = message.total - offset;
        let port = shared.advertised_port();
        http::write_post(self.out.small(), &self.authority, port, length, ours);
        let payload = &message.payload;
        let pieces = std::iter::once(&message.head)
            .chain(&payload.parts)
            .chain(std::iter::once(&message.tail))
            .chain(&payload.buffers);
        let mut skip = offset;
        for piece in pieces {
            let skipped = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            skip -= skipped as u64;
            if skipped == 0 {
                self.out.push(piece);
            } else if skipped < piece.len() {
                self.out.push(&piece.slice(skipped..));
            }
        }
        request.begun.store(true, Ordering::Release);
    }

    fn note_written(&self) {
        if self.out.is_empty() {
            for flight in self.flights.iter().filter(|flight| !flight.asked) {
                flight.request.written.store(true, Ordering::Release);
            }
        }
    }

    /// Settles what the bytes that arrived settle.
    fn answers(&mut self) -> Result<(), Ended> {
        loop {
            if self.skip > 0 {
                let there = self.skip.min(self.arrived.len() as u64);
                let body = self.arrived.split_to(usize::try_from(there).unwrap_or(0));
                self.skip -= there;
                if let Some((_, text)) = &mut self.answer
                    && text.len() < 512
                {
                    text.extend_from_slice(&body[..body.len().min(512)]);
                }
                if self.skip > 0 {
                    return Ok(());
                }
            }
            if let Some((head, text)) = self.answer.take() {
                self.answered(&head, &text)?;
            }
            match ResponseHead::parse(&self.arrived) {
                Ok(None) => return Ok(()),
                Err(error) => return Err(Ended::Broken(error.into())),
                Ok(Some((head, length))) => {
                    self.arrived.advance(length);
                    if (100..200).contains(&head.status) {
                        continue;
                    }
                    if head.content_length > MAXIMUM_ANSWER {
                        let error = ConnectionError::AnswerTooLong(head.content_length);
                        return Err(Ended::Broken(error));
                    }
                    self.skip = head.content_length;
                    self.answer = Some((head, Vec::new()));
                }
            }
        }
    }

    fn answered(&mut self, head: &ResponseHead, text: &[u8]) -> Result<(), Ended> {
        let Some(Flight { request, asked }) = self.flights.pop_front() else {
            return Err(Ended::Broken(ConnectionError::Unasked));
        };
        // The rest of a body whose answer is here already would be taken for the next request.
        let unwritten = self.flights.is_empty() && !self.out.is_empty();
        let ended = self.judge(head, text, request, asked);
        if ended.is_ok() && (unwritten || head.close) {
            return Err(Ended::Done);
        }
        ended
    }

    fn judge(
        &mut self,
        head: &ResponseHead,
        text: &[u8],
        request: Arc<Request>,
        asked: bool,
    ) -> Result<(), Ended> {
        let keeper = self.keeper;
        let peer = &keeper.peer;
        let told = peer.conversation().seen.session_id();
        let second = request.message().is_some_and(|message| message.wire == Wire::Two);
        if let (Some(2), Some(session_id)) = (head.wire, head.session_id) {
            self.progress = true;
            if peer.meets(session_id) == Session::Restarted && request.is_over() {
                return Err(Ended::Done);
            }
        }
        match (&request.kind, head.status) {
            (Kind::Ask(_), 200..=499) => {
                self.progress = true;
                if head.wire == Some(2) {
                    peer.speaks_second();
                } else if !peer.speaks_compatible() {
                    keeper.peer.fail(&request, SendFailure::Downgraded);
                    return Err(Ended::Done);
                }
                peer.outbox.settle(&request, Ok(()));
            }
            (Kind::Message(_), 200) if second && head.wire != Some(2) => {
                keeper.peer.fail(&request, SendFailure::Downgraded);
                return Err(Ended::Done);
            }
            (Kind::Message(message), 200) if asked => match head.have {
                Some(Have::All) => self.delivered(&request),
                have => {
                    let offset = match have {
                        Some(Have::Bytes(bytes)) if bytes < message.total => bytes,
                        _ => 0,
                    };
                    self.write(&request, message, offset);
                    self.flights.push_front(Flight { request: Arc::clone(&request), asked: false });
                }
            },
            (Kind::Message(_), 200) => self.delivered(&request),
            (_, 503 | 429) => {
                // Not lost: it goes again when there is room.
                self.flights.push_front(Flight { request, asked });
                return Err(Ended::Busy);
            }
            (Kind::Message(_), 409) if second && (head.have.is_some() || !request.is_over()) => {
                // With what the answer said about session and place, it goes again.
                if head.have.is_some() || head.session_id != told {
                    peer.outbox.return_to_front(request);
                } else {
                    self.refused(head, text, &request);
                }
                return Err(Ended::Done);
            }
            _ => self.refused(head, text, &request),
        }
        Ok(())
    }

    fn delivered(&mut self, request: &Arc<Request>) {
        self.progress = true;
        self.keeper.peer.outbox.settle(request, Ok(()));
    }

    fn refused(&self, head: &ResponseHead, text: &[u8], request: &Arc<Request>) {
        let text = String::from_utf8_lossy(text);
        let said = if text.trim().is_empty() { head.reason.as_str() } else { text.trim() };
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        let wire = request.message().map(|message| message.wire);
        let shared = &self.keeper.shared;
        let advice = match head.status {
            401 => Advice::Register { port: shared.advertised_port(), key: shared.key_id() },
            400 if wire == Some(Wire::Four) => Advice::WireFive,
            300..=399 => Advice::Moved,
            _ => Advice::None,
        };
        let status = head.status;
        self.keeper.peer.fail(request, SendFailure::Refused { status, said, advice });
    }

    /// What was on this connection and is not settled.
    fn abandon(self) -> Vec<Arc<Request>> {
        let left: Vec<_> = self.flights.into_iter().map(|flight| flight.request).collect();
        for request in left.iter().filter(|request| !request.is_bulk()) {
            request.written.store(true, Ordering::Release);
        }
        left
    }
}

fn broken(error: io::Error) -> Ended {
    match convelo_channel::refused_by_peer(&error) {
        Some(text) => Ended::Refused(ConnectionError::RefusedByPeer(text)),
        None => Ended::Broken(ConnectionError::Broken(Arc::new(error))),
    }
}

/// What is written around a value, and the body's length.
pub(crate) fn wrap(
    wire: Wire,
    id: &crate::MessageId,
    payload: &crate::Payload,
) -> Result<(Bytes, Bytes, u64), SendFailure> {
    if wire == Wire::Two {
        let lengths: Vec<u64> = payload.buffers.iter().map(|buffer| buffer.len() as u64).collect();
        let head = crate::frame::encode(id, payload.value_len() as u64, &lengths)
            .map_err(SendFailure::Frame)?;
        let total = (head.len() + payload.len()) as u64;
        return Ok((head, Bytes::new(), total));
    }
    let (head, tail) =
        crate::envelope::build(wire, id, payload.value_len()).map_err(SendFailure::Envelope)?;
    let total = (head.len() + payload.value_len() + tail.len()) as u64;
    Ok((head, tail, total))
}
