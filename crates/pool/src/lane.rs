//! A lane, as a state machine: what to write next on a connection to a peer, what an answer means,
//! and what becomes of the requests when the connection ends. No sockets, clocks or tasks.
//!
//! On the second wire the primary lane carries all small messages, many before the first answer;
//! bulk has its own lanes. On a compatible wire every lane carries one request at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use convelo_untrusted::Untrusted;

use crate::conversation::Source;
use crate::error::{Advice, ConnectionError, SendFailure};
use crate::http::{self, Have, Numbering, Question, ResponseHead};
use crate::limits::{ABSENCE_LOG, MAXIMUM_ANSWER, PIPELINE, RETRY_FIRST, RETRY_LONGEST};
use crate::message::Wire;
use crate::notice::Level;
use crate::outbox::{Kind, Message, Request};
use crate::peers::Peer;
use crate::session::Session;
use crate::stream::Out;

/// Which requests a lane takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneKind {
    Primary,
    Extra,
}

impl LaneKind {
    /// The next request for a lane of this kind.
    pub(crate) fn take(self, peer: &Peer) -> Option<Arc<Request>> {
        let outbox = &peer.outbox;
        let second = peer.wire() == Some(Wire::Two);
        match self {
            Self::Primary if second => outbox.take_small(),
            Self::Primary => outbox.take_small().or_else(|| outbox.take_bulk()),
            Self::Extra if second => outbox.take_bulk(),
            Self::Extra => outbox.take_bulk().or_else(|| outbox.take_small()),
        }
    }
}

/// What a sender says about itself.
#[derive(Clone, Copy)]
pub(crate) struct Introduction {
    pub(crate) session_id: u64,
    /// The port by which peers know its own server.
    pub(crate) port: u16,
    /// Its key, with TLS.
    pub(crate) key: Option<[u8; 32]>,
}

/// Why a connection was given up.
#[derive(Debug)]
pub(crate) enum Ended {
    /// No work, and none is expected.
    Idle,
    /// In good order, or after an answer that ends the connection.
    Done,
    /// The peer currently has no room.
    Busy,
    /// One side refused what the other proved: another attempt would end the same way.
    Refused(ConnectionError),
    /// Broken, or never established: worth another attempt.
    Broken(ConnectionError),
}

/// What to do after a connection has ended.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// Pause this long before another attempt, and only then [`give_back`] these: another lane that
    /// got them would try at once.
    pub(crate) pause: Option<(Duration, Vec<Arc<Request>>)>,
    pub(crate) notice: Option<(Level, String)>,
}

pub(crate) struct Lane {
    pub(crate) kind: LaneKind,
    /// Its connection, and the party at its other end.
    pub(crate) source: Source,
    /// What is waiting to be written.
    pub(crate) out: Out,
    /// What has been read and not yet examined.
    pub(crate) arrived: BytesMut,
    flights: VecDeque<Flight>,
    /// Bytes still to come of an answer's body.
    skip: u64,
    answer: Option<(ResponseHead, Vec<u8>)>,
    /// Whether anything has been settled on this connection.
    progress: bool,
    pause: Duration,
    /// When the peer's absence was last reported.
    logged: Option<Instant>,
}

/// A request waiting for its answer.
struct Flight {
    request: Arc<Request>,
    /// So far, only the question of how much has arrived was sent.
    asked: bool,
    /// The peer's session as known at the time; by the time of the answer it may have changed.
    told: Option<u64>,
}

impl Lane {
    pub(crate) fn new(kind: LaneKind) -> Self {
        Self {
            kind,
            source: Source { connection: 0, party: 0 },
            out: Out::default(),
            arrived: BytesMut::new(),
            flights: VecDeque::new(),
            skip: 0,
            answer: None,
            progress: false,
            pause: RETRY_FIRST,
            logged: None,
        }
    }

    /// Whether a request may follow before the previous one is answered.
    pub(crate) fn is_pipelined(&self, peer: &Peer) -> bool {
        peer.wire() == Some(Wire::Two) && self.kind == LaneKind::Primary
    }

    /// Whether another request may start.
    pub(crate) fn has_room(&self, peer: &Peer) -> bool {
        let depth = if self.is_pipelined(peer) { PIPELINE } else { 1 };
        self.flights.len() < depth && self.out.is_light()
    }

    /// Whether no answer is pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Starts as many requests as the connection should carry now.
    pub(crate) fn fill(&mut self, peer: &Peer, ours: &Introduction) {
        while self.has_room(peer) {
            let Some(request) = self.kind.take(peer) else { break };
            self.start(peer, ours, request);
        }
    }

    /// Starts a request.
    pub(crate) fn start(&mut self, peer: &Peer, ours: &Introduction, request: Arc<Request>) {
        let told = peer.conversation().seen.session_id();
        let asked = match &request.kind {
            Kind::Ask(question) => {
                self.ask(peer, ours, *question);
                false
            }
            // The part that has arrived need not be sent again.
            Kind::Message(message)
                if message.wire == Wire::Two
                    && request.is_bulk()
                    && request.begun.load(Ordering::Acquire) =>
            {
                self.ask(peer, ours, Question::Have(request.number));
                true
            }
            Kind::Message(message) => {
                if !request.depart() {
                    return;
                }
                self.write(peer, ours, &request, message, 0, told);
                false
            }
        };
        self.flights.push_back(Flight { request, asked, told });
    }

    fn ask(&mut self, peer: &Peer, ours: &Introduction, question: Question) {
        let out = self.out.small();
        http::write_get(out, peer.authority(), ours.port, ours.session_id, question);
    }

    fn write(
        &mut self,
        peer: &Peer,
        ours: &Introduction,
        request: &Request,
        message: &Message,
        offset: u64,
        told: Option<u64>,
    ) {
        let numbering = (message.wire == Wire::Two).then(|| Numbering {
            session_id: ours.session_id,
            peer_session_id: told,
            sequence_number: request.number,
            floor: peer.outbox.floor(),
            offset,
        });
        let length = message.total - offset;
        http::write_post(self.out.small(), peer.authority(), ours.port, length, numbering);
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

    /// Bytes have been written.
    pub(crate) fn wrote(&self) {
        if self.out.is_empty() {
            for flight in self.flights.iter().filter(|flight| !flight.asked) {
                flight.request.written.store(true, Ordering::Release);
            }
        }
    }

    /// Settles what the arrived bytes allow.
    ///
    /// # Errors
    /// If the connection must be given up.
    pub(crate) fn read(&mut self, peer: &Peer, ours: &Introduction) -> Result<(), Ended> {
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
                self.answered(peer, ours, &head, &text)?;
            }
            let Some((head, length)) =
                ResponseHead::parse(&self.arrived).map_err(|error| Ended::Broken(error.into()))?
            else {
                return Ok(());
            };
            self.arrived.advance(length);
            if (100..200).contains(&head.status) {
                continue;
            }
            if head.content_length > MAXIMUM_ANSWER {
                return Err(Ended::Broken(ConnectionError::AnswerTooLong(head.content_length)));
            }
            self.skip = head.content_length;
            self.answer = Some((head, Vec::new()));
        }
    }

    /// The peer closed the connection.
    pub(crate) fn closed(&self) -> Ended {
        if self.is_idle() { Ended::Done } else { Ended::Broken(ConnectionError::Closed) }
    }

    fn answered(
        &mut self,
        peer: &Peer,
        ours: &Introduction,
        head: &ResponseHead,
        text: &[u8],
    ) -> Result<(), Ended> {
        let Some(flight) = self.flights.pop_front() else {
            return Err(Ended::Broken(ConnectionError::Unasked));
        };
        // The rest of a body that has already been answered would be taken for the next request.
        let unwritten = self.flights.is_empty() && !self.out.is_empty();
        self.judge(peer, ours, head, text, flight)?;
        if unwritten || head.close { Err(Ended::Done) } else { Ok(()) }
    }

    fn judge(
        &mut self,
        peer: &Peer,
        ours: &Introduction,
        head: &ResponseHead,
        text: &[u8],
        flight: Flight,
    ) -> Result<(), Ended> {
        let Flight { request, asked, told } = flight;
        let second = request.message().is_some_and(|message| message.wire == Wire::Two);
        if let (Some(2), Some(session_id)) = (head.wire, head.session_id) {
            self.progress = true;
            if peer.meets(session_id, self.source) == Session::Restarted && request.is_over() {
                return Err(Ended::Done);
            }
        }
        match (&request.kind, head.status) {
            (Kind::Ask(_), 200..=499) => {
                self.progress = true;
                if head.wire == Some(2) {
                    peer.speaks_second();
                } else if !peer.speaks_compatible() {
                    peer.fail(&request, SendFailure::Downgraded);
                    return Err(Ended::Done);
                }
                peer.outbox.settle(&request, |_| Ok(()));
            }
            (Kind::Message(_), 200) if second && head.wire != Some(2) => {
                peer.fail(&request, SendFailure::Downgraded);
                return Err(Ended::Done);
            }
            (Kind::Message(message), 200) if asked && head.have != Some(Have::All) => {
                let offset = match head.have {
                    Some(Have::Bytes(bytes)) if bytes < message.total => bytes,
                    _ => 0,
                };
                // Its sender may meanwhile have been told that it did not arrive.
                if request.depart() {
                    let told = peer.conversation().seen.session_id();
                    self.write(peer, ours, &request, message, offset, told);
                    self.flights.push_front(Flight { request, asked: false, told });
                }
            }
            (Kind::Message(_), 200) => {
                self.progress = true;
                peer.outbox.settle(&request, |_| Ok(()));
            }
            (_, 503 | 429) => {
                // Not lost: it is sent again when there is room.
                request.declined();
                self.flights.push_front(Flight { request, asked, told });
                return Err(Ended::Busy);
            }
            (Kind::Message(_), 409) if second && (head.have.is_some() || !request.is_over()) => {
                // Knowing the session and place from the answer, it is sent again.
                if head.have.is_some() || head.session_id != told {
                    request.declined();
                    peer.outbox.return_to_front(request);
                } else {
                    refused(peer, ours, head, text, &request);
                }
                return Err(Ended::Done);
            }
            _ => refused(peer, ours, head, text, &request),
        }
        Ok(())
    }

    /// A connection has ended, or could not be established for the request in `held`: says what to
    /// do with the requests on it.
    pub(crate) fn ended(
        &mut self,
        peer: &Peer,
        ended: &Ended,
        held: Option<Arc<Request>>,
        now: Instant,
    ) -> Aftermath {
        let mut left = self.abandon();
        if std::mem::take(&mut self.progress) {
            self.pause = RETRY_FIRST;
        }
        let mut aftermath = Aftermath::default();
        if let Ended::Broken(error) = ended {
            bear_absence(peer, error, &left, now);
            aftermath.notice = self.mention(error, now);
        }
        left.extend(held);
        match ended {
            Ended::Busy | Ended::Broken(_) => {
                aftermath.pause = Some((self.pause, left));
                self.pause = (self.pause * 2).min(RETRY_LONGEST);
            }
            Ended::Idle | Ended::Done => give_back(peer, left),
            Ended::Refused(error) => {
                give_back(peer, left);
                while let Some(request) = self.kind.take(peer) {
                    peer.fail(&request, SendFailure::NotAuthenticated(error.clone()));
                }
                aftermath.notice = Some((Level::Warning, error.to_string()));
            }
        }
        aftermath
    }

    /// The unsettled requests of the connection. Forgets everything about the connection.
    fn abandon(&mut self) -> Vec<Arc<Request>> {
        self.out = Out::default();
        self.arrived.clear();
        (self.skip, self.answer) = (0, None);
        let flights = self.flights.drain(..);
        flights.map(|flight| flight.request).inspect(|request| request.strand()).collect()
    }

    /// What to report about an absent peer, from time to time.
    fn mention(&mut self, error: &ConnectionError, now: Instant) -> Option<(Level, String)> {
        if self.logged.is_some_and(|logged| now.duration_since(logged) < ABSENCE_LOG) {
            return None;
        }
        let level = if self.logged.is_some() { Level::Warning } else { Level::Info };
        self.logged = Some(now);
        Some((level, format!("{error}; still trying")))
    }
}

/// Returns requests to the outbox, ahead of all others and in order.
pub(crate) fn give_back(peer: &Peer, requests: Vec<Arc<Request>>) {
    for request in requests.into_iter().rev() {
        peer.outbox.return_to_front(request);
    }
}

/// What a failed read or write means.
pub(crate) fn broken(error: io::Error) -> Ended {
    match convelo_channel::refused_by_peer(&error) {
        Some(text) => Ended::Refused(ConnectionError::RefusedByPeer(text)),
        None => Ended::Broken(ConnectionError::Broken(Arc::new(error))),
    }
}

/// Ends the requests whose patience with an absent peer is exhausted; if none was on the
/// connection, all of the peer's.
fn bear_absence(peer: &Peer, error: &ConnectionError, concerned: &[Arc<Request>], now: Instant) {
    let all = if concerned.is_empty() { peer.outbox.pending() } else { concerned.to_vec() };
    for request in all {
        let (breaks, absent) = request.bear(!concerned.is_empty(), now);
        let seconds = absent.as_secs();
        // The second wire resumes where it was cut off; the compatible ones start over.
        let again = request.message().is_some_and(|message| message.wire != Wire::Two);
        if request
            .patience
            .is_some_and(|patience| seconds >= u64::from(patience) || (again && breaks > patience))
        {
            let source = error.clone();
            peer.fail(&request, SendFailure::Unreachable { source, breaks, seconds });
        }
    }
}

fn refused(
    peer: &Peer,
    ours: &Introduction,
    head: &ResponseHead,
    text: &[u8],
    request: &Arc<Request>,
) {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let said = Untrusted::new(if text.is_empty() { head.reason.as_str() } else { text });
    let wire = request.message().map(|message| message.wire);
    let advice = match head.status {
        401 => Advice::Register { port: ours.port, key: ours.key },
        400 if wire == Some(Wire::Four) => Advice::WireFive,
        300..=399 => Advice::Moved,
        _ => Advice::None,
    };
    let status = head.status;
    request.declined();
    peer.fail(request, SendFailure::Refused { status, said, advice });
}
