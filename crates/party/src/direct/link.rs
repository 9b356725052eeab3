//! Messages between two parties, each exactly once and in order, over connections that may break.
//!
//! A message is kept until the other side has taken it; on a new connection, each side says how many
//! have arrived, and the other goes on from there. Nothing is sent twice in different words, so a
//! broken connection changes no protocol's result. What a program kept is gone with it: if the other
//! side was started again, the run ends.
//!
//! Both sides may dial, and connections may cross. The party whose name is first chooses: it says
//! "go" on the newest one, and the other side uses the one on which it hears that.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convelo_untrusted::shown;
use convelo_wire::{Bytes, Reason};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::frame::{self, Frame, FrameError, HEAD_BYTES, Hello, Run};
use crate::error::{Error, Kind};
use crate::event::{Event, Observer};
use crate::limits::{
    ALIVE_INTERVAL, GOODBYE_TIMEOUT, GREETING_TIMEOUT, MAXIMUM_MESSAGE_BYTES, MESSAGES_WAITING,
    MESSAGES_WINDOW_BYTES, RECONNECT_FOR, SILENCE_TIMEOUT,
};

/// A connection on which both sides have said who they are.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that has been greeted, and what the other side said.
pub(crate) struct Greeted {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) hello: Hello,
    /// How many messages have arrived there, if the other side chooses and chose this connection.
    pub(crate) chosen: Option<u64>,
}

/// Why one connection is of no use.
#[derive(Debug)]
pub(crate) enum Useless {
    /// Another one may be.
    Broken(String),
    /// No other one will be.
    Final(Error),
    /// The other side gives up.
    Left(Reason),
}

impl From<io::Error> for Useless {
    fn from(error: io::Error) -> Self {
        let words = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it was closed".to_owned(),
            _ => shown(&error.to_string()),
        };
        Self::Broken(words)
    }
}

/// One end of the messages with one other party.
pub(crate) struct Link {
    shared: Arc<Shared>,
    arrivals: AsyncMutex<mpsc::Receiver<Bytes>>,
    carrier: Mutex<Option<JoinHandle<()>>>,
}

/// What happened first.
pub(crate) enum Ready {
    /// There is room to send a message.
    Room,
    /// A message arrived.
    Message(Bytes),
}

impl From<Bytes> for Ready {
    fn from(message: Bytes) -> Self {
        Self::Message(message)
    }
}

/// What both ends of the program see of a link.
pub(crate) struct Shared {
    pub(crate) name: String,
    peer: String,
    run: Run,
    deadline: Instant,
    observer: Arc<dyn Observer>,
    room: Semaphore,
    state: Mutex<State>,
    to_write: Notify,
    /// Whether there is a connection.
    pub(crate) connected: watch::Sender<bool>,
    over: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    peers_run: Option<Run>,
    /// Messages that the other side has not taken; the first of them has this number.
    kept: VecDeque<Bytes>,
    first: u64,
    /// The number of the message to be written next on this connection.
    next: u64,
    arrived: u64,
    taken: u64,
    /// How many of these the other side has been told of on this connection.
    told: u64,
    /// Bytes that arrived and were not taken.
    waiting: usize,
    leaving: Option<Reason>,
    /// Whether this side sends nothing more.
    closing: bool,
    /// Whether the other side is done.
    peer_done: bool,
    /// Why there is no connection, as far as is known.
    absent: Option<String>,
    /// Why it is over.
    failure: Option<Error>,
}

impl Link {
    /// A link to the party `peer`, over connections that come greeted.
    pub(crate) fn new(
        (name, peer): (&str, &str),
        run: Run,
        deadline: Instant,
        observer: Arc<dyn Observer>,
        connections: mpsc::Receiver<Result<Greeted, Useless>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            peer: peer.to_owned(),
            run,
            deadline,
            observer,
            room: Semaphore::new(MESSAGES_WINDOW_BYTES as usize),
            state: Mutex::default(),
            to_write: Notify::new(),
            connected: watch::Sender::new(false),
            over: watch::Sender::new(false),
        });
        let (arrivals, arrived) = mpsc::channel(MESSAGES_WAITING);
        let carrier = Carrier { shared: Arc::clone(&shared), connections, arrivals };
        let carrier = Mutex::new(Some(tokio::spawn(carrier.run())));
        Self { shared, arrivals: AsyncMutex::new(arrived), carrier }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The other party's name.
    pub(crate) fn peer(&self) -> &str {
        self.shared.peer_name()
    }

    /// Sends a message once there is room for it.
    pub(crate) async fn send(&self, message: impl Into<Bytes>) -> Result<(), Error> {
        let message = message.into();
        debug_assert!(message.len() <= MAXIMUM_MESSAGE_BYTES, "no message is longer");
        let room = self.shared.room.acquire_many(charge(&message));
        match timeout_at(self.shared.deadline, room).await {
            Ok(Ok(room)) => room.forget(),
            Ok(Err(_)) => return Err(self.shared.why_over()),
            Err(_) => return Err(self.shared.late("took no more messages")),
        }
        self.shared.lock().kept.push_back(message);
        self.shared.to_write.notify_one();
        Ok(())
    }

    /// The next message.
    pub(crate) async fn receive(&self) -> Result<Bytes, Error> {
        let mut arrivals = self.arrivals.lock().await;
        match timeout_at(self.shared.deadline, arrivals.recv()).await {
            Ok(Some(message)) => Ok(self.shared.take(message)),
            Ok(None) => Err(self.shared.why_over()),
            Err(_) => Err(self.shared.late("sent nothing more")),
        }
    }

    /// Waits for a message, or for room to send one.
    pub(crate) async fn ready(&self) -> Result<Ready, Error> {
        tokio::select! {
            biased;
            message = self.receive() => message.map(Ready::Message),
            Ok(_) = self.shared.room.acquire_many(MESSAGES_WINDOW_BYTES / 2) => Ok(Ready::Room),
        }
    }

    /// Waits until it is over; returns why.
    pub(crate) async fn interrupted(&self) -> Error {
        let mut over = self.shared.over.subscribe();
        match timeout_at(self.shared.deadline, over.wait_for(|over| *over)).await {
            Ok(_) => self.shared.why_over(),
            Err(_) => self.shared.late("was still waited for"),
        }
    }

    /// Ends in order: once both sides have taken all messages, or after a while.
    pub(crate) async fn close(&self, patience: Duration) {
        let carrier = self.carrier.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut carrier) = carrier else { return };
        self.shared.lock().closing = true;
        self.shared.to_write.notify_one();
        let _ = timeout(patience, &mut carrier).await;
        carrier.abort();
    }

    /// Tells the other side that this one gives up, and why. True if there was a connection to say it
    /// on.
    pub(crate) async fn leave(&self, reason: Reason) -> bool {
        let carrier = self.carrier.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut carrier) = carrier.filter(|carrier| !carrier.is_finished()) else {
            return false;
        };
        let connected = *self.shared.connected.borrow();
        self.shared.lock().leaving = Some(reason);
        self.shared.to_write.notify_one();
        let said = timeout(GOODBYE_TIMEOUT, &mut carrier).await.is_ok();
        carrier.abort();
        self.shared.room.close();
        connected && said
    }

    /// The other side did not follow the protocol: nothing it says counts any longer.
    pub(crate) fn refused(&self, why: impl std::fmt::Display) -> Error {
        self.shared.refused(why)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let carrier = self.carrier.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(carrier) = carrier {
            carrier.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this side says on a new connection.
    pub(crate) fn hello(&self, job: Bytes) -> Hello {
        let state = self.lock();
        let (peers_run, arrived) = (state.peers_run, state.arrived);
        drop(state);
        Hello { run: self.run, peers_run, arrived, party: self.name.clone(), job }
    }

    /// The other party's name.
    pub(crate) fn peer_name(&self) -> &str {
        &self.peer
    }

    /// Whether this side says which connection carries the job.
    fn chooses(&self) -> bool {
        self.name < self.peer
    }

    fn take(&self, message: Bytes) -> Bytes {
        let mut state = self.lock();
        state.taken += 1;
        state.waiting -= message.len();
        drop(state);
        self.to_write.notify_one();
        message
    }

    /// It is over for this reason.
    fn fail(&self, error: Error) {
        self.lock().failure.get_or_insert(error);
        self.room.close();
        self.over.send_replace(true);
    }

    fn why_over(&self) -> Error {
        let failure = self.lock().failure.take();
        failure.unwrap_or_else(|| {
            let text = format!("the run with '{}' is over", self.peer);
            Error::new(Kind::Job, text)
        })
    }

    fn late(&self, what: &str) -> Error {
        if !*self.connected.borrow() {
            return self.missing();
        }
        let text =
            format!("the job's deadline has passed: '{}' is connected, but {what}", self.peer);
        Error::new(Kind::Job, text)
    }

    /// Nobody came, or came back.
    fn missing(&self) -> Error {
        let state = self.lock();
        let why = state.absent.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let met = state.peers_run.is_some();
        drop(state);
        let peer = &self.peer;
        let text = if met {
            format!(
                "the connection to '{peer}' broke and could not be restored{why}; nothing of the job is \
                 kept, run it again on both sides"
            )
        } else {
            format!("the job's deadline has passed, and '{peer}' is missing{why}")
        };
        Error::new(Kind::Job, text)
    }

    /// Whether the other side has sent and taken everything.
    fn is_done(&self) -> bool {
        let state = self.lock();
        state.peer_done && state.kept.is_empty()
    }

    /// Notes why there is no connection.
    pub(crate) fn note_absence(&self, why: &str) {
        self.lock().absent = Some(why.to_owned());
    }

    fn refused(&self, why: impl std::fmt::Display) -> Error {
        Error::party_refused(&self.peer, &shown(&why.to_string()))
    }

    /// How many of its messages have arrived, if this is the run that was met first.
    fn meets(&self, hello: &Hello) -> Option<u64> {
        let mut state = self.lock();
        let known = *state.peers_run.get_or_insert(hello.run);
        (known == hello.run).then_some(state.arrived)
    }

    /// Notes that this many messages have arrived at the other side.
    fn go_on_from(&self, arrived: u64) -> Result<(), Useless> {
        let mut state = self.lock();
        let end = state.first + state.kept.len() as u64;
        if !(state.first..=end).contains(&arrived) {
            drop(state);
            let why = "it counts other messages than were sent";
            return Err(Useless::Final(self.refused(why)));
        }
        state.next = arrived;
        state.told = 0;
        Ok(())
    }
}

/// How much room a message takes.
fn charge(message: &Bytes) -> u32 {
    let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
    bytes.clamp(1 << 10, MESSAGES_WINDOW_BYTES)
}

/// Carries messages for as long as the link lives.
struct Carrier {
    shared: Arc<Shared>,
    connections: mpsc::Receiver<Result<Greeted, Useless>>,
    arrivals: mpsc::Sender<Bytes>,
}

impl Carrier {
    async fn run(mut self) {
        let mut until = self.shared.deadline;
        let mut ahead = None;
        loop {
            let next = match ahead.take() {
                Some(next) => next,
                None => match self.next(until).await {
                    Ok(Some(next)) => next,
                    // The link was dropped, or this side has left.
                    Ok(None) | Err(Over::Left) => return,
                    Err(Over::Deadline) => return self.shared.fail(self.shared.missing()),
                },
            };
            let ended = match self.begin(next).await {
                Ok(stream) => {
                    self.shared.connected.send_replace(true);
                    let ended = self.carry(stream).await;
                    self.shared.connected.send_replace(false);
                    ended
                }
                Err(useless) => Ended::Useless(useless),
            };
            match ended {
                Ended::Left => return,
                Ended::Replaced(next) => ahead = Some(next),
                Ended::Useless(Useless::Final(error)) => return self.shared.fail(error),
                Ended::Useless(Useless::Left(reason)) => {
                    return self.shared.fail(left(&self.shared.peer, reason));
                }
                Ended::Useless(Useless::Broken(_)) if self.shared.is_done() => return,
                Ended::Useless(Useless::Broken(why)) => {
                    self.shared.note_absence(&why);
                    let met = self.shared.lock().peers_run.is_some();
                    if met {
                        let name = &*self.shared.peer;
                        let give_up_in = RECONNECT_FOR;
                        self.shared.observer.on(Event::PeerLost { name, why, give_up_in });
                        until = self.shared.deadline.min(Instant::now() + RECONNECT_FOR);
                    }
                }
            }
        }
    }

    /// The next greeted connection.
    async fn next(&mut self, until: Instant) -> Result<Option<Greeted>, Over> {
        loop {
            let leaving = async {
                loop {
                    let written = self.shared.to_write.notified();
                    if self.shared.lock().leaving.is_some() {
                        return;
                    }
                    written.await;
                }
            };
            let next = tokio::select! {
                next = timeout_at(until, self.connections.recv()) => next,
                () = leaving => return Err(Over::Left),
            };
            match next {
                Err(_) => return Err(Over::Deadline),
                Ok(None) => return Ok(None),
                Ok(Some(Ok(greeted))) => return Ok(Some(greeted)),
                Ok(Some(Err(Useless::Broken(_)))) => {}
                Ok(Some(Err(Useless::Left(reason)))) => {
                    self.shared.fail(left(&self.shared.peer, reason));
                    return Ok(None);
                }
                Ok(Some(Err(Useless::Final(error)))) => {
                    self.shared.fail(error);
                    return Ok(None);
                }
            }
        }
    }

    /// Agrees with the other side that this connection carries the job.
    async fn begin(&mut self, greeted: Greeted) -> Result<Box<dyn Stream>, Useless> {
        let Greeted { mut stream, hello, chosen } = greeted;
        let same = hello.peers_run.is_none_or(|run| run == self.shared.run);
        let Some(arrived) = self.shared.meets(&hello).filter(|_| same) else {
            let (peer, which) = (&self.shared.peer, if same { "other" } else { "one" });
            let text = format!(
                "'{peer}' is connected again, but the {which} side's program was started anew since: nothing \
                 of the job is kept, run it again on both sides"
            );
            let _ = write(&mut stream, &Frame::Leave(Reason::Replaced)).await;
            return Err(Useless::Final(Error::new(Kind::Job, text)));
        };
        let agreeing = async {
            write(&mut stream, &Frame::Go { arrived }).await?;
            match chosen {
                Some(theirs) => Ok(theirs),
                None => go(&mut stream).await,
            }
        };
        let theirs = timeout(GREETING_TIMEOUT, agreeing).await;
        let theirs = theirs.map_err(|_| Useless::Broken("it said nothing".to_owned()))??;
        self.shared.go_on_from(theirs)?;
        let event = Event::PeerMet { name: &self.shared.peer };
        self.shared.observer.on(event);
        Ok(stream)
    }

    /// Carries messages in both directions until the connection ends.
    async fn carry(&mut self, stream: Box<dyn Stream>) -> Ended {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let shared = Arc::clone(&self.shared);
        let arrivals = self.arrivals.clone();
        let reading = async {
            loop {
                let frame = timeout(SILENCE_TIMEOUT, read(&mut reading, false)).await;
                let silence = |_| Useless::Broken("nothing has arrived for too long".to_owned());
                match frame.map_err(silence)?? {
                    Frame::Message(message) => arrived(&shared, &arrivals, message)?,
                    Frame::Taken { messages } => taken(&shared, messages)?,
                    Frame::Alive => {}
                    Frame::Leave(reason) => return Err::<Infallible, _>(Useless::Left(reason)),
                    Frame::Done => {
                        shared.lock().peer_done = true;
                        return Err(Useless::Broken("the other side is done".to_owned()));
                    }
                    Frame::Hello(_) | Frame::Go { .. } => {
                        let why = "it greeted in the middle of a connection";
                        return Err(Useless::Final(shared.refused(why)));
                    }
                }
            }
        };
        let writer = async {
            loop {
                let (due, last) = due(&shared);
                for frame in &due {
                    write(&mut writing, frame).await?;
                }
                if last {
                    let _ = writing.shutdown().await;
                    return Ok::<(), io::Error>(());
                }
                if due.is_empty() {
                    let written = timeout(ALIVE_INTERVAL, shared.to_write.notified()).await;
                    if written.is_err() {
                        write(&mut writing, &Frame::Alive).await?;
                    }
                }
            }
        };
        tokio::pin!(reading);
        let broken = tokio::select! {
            biased;
            next = replaced(&mut self.connections) => return next,
            useless = &mut reading => {
                let Err(useless) = useless;
                return Ended::Useless(useless);
            }
            written = writer => match written {
                Ok(()) => {
                    // What was said last gets lost if the connection is closed with something unread.
                    let _ = timeout(GOODBYE_TIMEOUT, reading).await;
                    return Ended::Left;
                }
                Err(error) => error,
            },
        };
        // The other side may have said why it goes before it went.
        match timeout(GOODBYE_TIMEOUT, reading).await {
            Ok(Err(useless @ (Useless::Left(_) | Useless::Final(_)))) => Ended::Useless(useless),
            Ok(Err(Useless::Broken(_))) | Err(_) => Ended::Useless(broken.into()),
        }
    }
}

/// How a connection ended.
enum Ended {
    /// This side has said that it gives up.
    Left,
    /// The other side uses another one.
    Replaced(Greeted),
    Useless(Useless),
}

/// Why no connection came.
enum Over {
    Left,
    Deadline,
}

/// A newer connection, or an end that another one brought.
async fn replaced(connections: &mut mpsc::Receiver<Result<Greeted, Useless>>) -> Ended {
    loop {
        match connections.recv().await {
            Some(Ok(greeted)) => return Ended::Replaced(greeted),
            // It says nothing about this one.
            Some(Err(Useless::Broken(_))) => {}
            Some(Err(useless)) => return Ended::Useless(useless),
            None => std::future::pending().await,
        }
    }
}

/// What is to be written now, and whether it is the last.
fn due(shared: &Shared) -> (Vec<Frame>, bool) {
    let mut state = shared.lock();
    let mut due = Vec::new();
    if let Some(reason) = state.leaving {
        return (vec![Frame::Leave(reason)], true);
    }
    if state.told < state.taken {
        state.told = state.taken;
        due.push(Frame::Taken { messages: state.taken });
    }
    let next = usize::try_from(state.next - state.first).unwrap_or(usize::MAX);
    if let Some(message) = state.kept.get(next) {
        due.push(Frame::Message(message.clone()));
        state.next += 1;
    }
    // The other side does not go before it has everything.
    let last = due.is_empty() && state.closing && state.kept.is_empty();
    if last {
        due.push(Frame::Done);
    }
    (due, last)
}

fn arrived(shared: &Shared, arrivals: &mpsc::Sender<Bytes>, message: Bytes) -> Result<(), Useless> {
    let mut state = shared.lock();
    state.arrived += 1;
    state.waiting += message.len();
    // An honest side waits for what it has sent to be taken.
    let fits = state.waiting <= MESSAGES_WINDOW_BYTES as usize + MAXIMUM_MESSAGE_BYTES;
    drop(state);
    match if fits { arrivals.try_send(message) } else { Err(TrySendError::Full(message)) } {
        // If nobody takes it any longer, the run is over.
        Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        Err(TrySendError::Full(_)) => {
            let why = "it sends more than there is room for";
            Err(Useless::Final(shared.refused(why)))
        }
    }
}

/// The other side has taken this many messages.
fn taken(shared: &Shared, messages: u64) -> Result<(), Useless> {
    let mut state = shared.lock();
    if messages > state.next || messages < state.first {
        drop(state);
        let why = "it takes messages that were not sent";
        return Err(Useless::Final(shared.refused(why)));
    }
    let mut room = 0;
    while state.first < messages {
        state.first += 1;
        room += state.kept.pop_front().map_or(0, |message| charge(&message) as usize);
    }
    drop(state);
    shared.room.add_permits(room);
    Ok(())
}

fn left(peer: &str, reason: Reason) -> Error {
    let (kind, why) = match reason {
        Reason::Stopped => (Kind::Job, "stopped its run"),
        Reason::Table => (Kind::Job, "could not read its table"),
        Reason::OverCap => {
            (Kind::Job, "has more keys than the job allows it, or refused this party's number")
        }
        Reason::Deadline => (Kind::Job, "says that the job's deadline has passed"),
        Reason::Replaced => (
            Kind::Job,
            "or this party was started anew in the middle of the job: run it again on both sides",
        ),
        Reason::OtherTerms => (Kind::Job, "has a job file with other terms"),
        Reason::Protocol => (Kind::Job, "refused what this party sent"),
        _ => (Kind::Job, "ended its run"),
    };
    Error::new(kind, format!("'{peer}' {why}; nothing was written here"))
}

/// Says hello on a new connection and hears the other side's.
pub(crate) async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    own: &Hello,
) -> Result<Hello, Useless> {
    write(stream, &Frame::Hello(own.clone())).await?;
    match read(stream, true).await? {
        Frame::Hello(hello) => Ok(hello),
        _ => Err(Useless::Broken("it did not begin with a hello".to_owned())),
    }
}

/// Waits until the other side says that it uses this connection; how many messages have arrived there.
pub(crate) async fn go(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<u64, Useless> {
    match read(stream, false).await? {
        Frame::Go { arrived } => Ok(arrived),
        Frame::Leave(reason) => Err(Useless::Left(reason)),
        _ => Err(Useless::Broken("it did not say go".to_owned())),
    }
}

/// Whether the side with this name waits for the other to choose.
pub(crate) fn waits_for_go(shared: &Shared) -> bool {
    !shared.chooses()
}

async fn read(stream: &mut (impl AsyncRead + Unpin), greeting: bool) -> Result<Frame, Useless> {
    let not_a_frame = |error: FrameError| match error {
        FrameError::Version(_) => Useless::Final(Error::new(
            Kind::Job,
            format!("the other party cannot be understood: {error}"),
        )),
        error => Useless::Broken(format!("it sent what is not a frame: {error}")),
    };
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let (kind, length) = frame::head(head).map_err(not_a_frame)?;
    if greeting && kind != 1 {
        return Err(Useless::Broken("it did not begin with a hello".to_owned()));
    }
    let mut content = Vec::with_capacity(length);
    let read = (&mut *stream).take(length as u64).read_to_end(&mut content).await?;
    if read < length {
        return Err(Useless::Broken("it was closed".to_owned()));
    }
    Frame::read(kind, content.into()).map_err(not_a_frame)
}

pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let (head, content) = frame.write();
    if content.len() < 1 << 10 {
        stream.write_all(&[&head, &content[..]].concat()).await?;
    } else {
        stream.write_all(&head).await?;
        stream.write_all(&content).await?;
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const JOB: Bytes = Bytes::from_static(b"{}");

    /// A link and the way by which connections come to it.
    fn link(name: &str, peer: &str, run: u8) -> (Link, mpsc::Sender<Result<Greeted, Useless>>) {
        let (connections, greeted) = mpsc::channel(1);
        let deadline = Instant::now() + Duration::from_mins(1);
        let link = Link::new((name, peer), [run; 16], deadline, Arc::new(()), greeted);
        (link, connections)
    }

    /// Greets for a link on one end of a connection.
    async fn come(
        shared: &Shared,
        connections: &mpsc::Sender<Result<Greeted, Useless>>,
        mut stream: impl Stream + 'static,
    ) {
        let own = shared.hello(JOB);
        let Ok(hello) = greet(&mut stream, &own).await else { return };
        let mut chosen = None;
        if waits_for_go(shared) {
            let Ok(arrived) = go(&mut stream).await else { return };
            chosen = Some(arrived);
        }
        let _ = connections.send(Ok(Greeted { stream: Box::new(stream), hello, chosen })).await;
    }

    /// Alice's and bob's links, over connections of which each breaks after so many bytes.
    fn pair(breaks: Vec<usize>) -> (Link, Link, Arc<AtomicUsize>) {
        let (alice, to_alice) = link("alice", "bob", 1);
        let (bob, to_bob) = link("bob", "alice", 2);
        let (shared_alice, shared_bob) = (Arc::clone(alice.shared()), Arc::clone(bob.shared()));
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        tokio::spawn(async move {
            for bytes in breaks.into_iter().chain([usize::MAX]) {
                count.fetch_add(1, Ordering::Relaxed);
                let (one, other) = (duplex(1 << 14), duplex(1 << 14));
                let way = tokio::spawn(carry(one.1, other.1, bytes));
                tokio::join!(
                    come(&shared_alice, &to_alice, one.0),
                    come(&shared_bob, &to_bob, other.0)
                );
                let _ = way.await;
            }
        });
        (alice, bob, made)
    }

    /// Carries bytes in both directions until there were so many.
    async fn carry(mut one: DuplexStream, mut other: DuplexStream, mut bytes: usize) {
        let (mut here, mut there) = ([0; 700], [0; 700]);
        while bytes > 0 {
            let (read, written) = tokio::select! {
                read = one.read(&mut here) => match read {
                    Ok(read) if read > 0 => (read, other.write_all(&here[..read.min(bytes)]).await),
                    _ => return,
                },
                read = other.read(&mut there) => match read {
                    Ok(read) if read > 0 => (read, one.write_all(&there[..read.min(bytes)]).await),
                    _ => return,
                },
            };
            if written.is_err() {
                return;
            }
            bytes = bytes.saturating_sub(read);
        }
    }

    fn message(number: usize) -> Vec<u8> {
        (0..(number * 731) % 9000)
            .map(|byte| u8::try_from((byte ^ number) & 0xff).unwrap())
            .collect()
    }

    const MESSAGES: usize = 300;

    #[tokio::test]
    async fn each_message_arrives_once_and_in_order_wherever_connections_break() {
        let breaks = (0..40).map(|number| 100 + number * number * 37 % 90_000).collect();
        let (alice, bob, made) = pair(breaks);
        let (there, back) = tokio::join!(
            async {
                for number in 0..MESSAGES {
                    alice.send(message(number)).await.unwrap();
                    assert_eq!(alice.receive().await.unwrap(), message(number + 1), "{number}");
                }
                alice.close(Duration::from_secs(20)).await;
                MESSAGES
            },
            async {
                for number in 0..MESSAGES {
                    assert_eq!(bob.receive().await.unwrap(), message(number), "{number}");
                    bob.send(message(number + 1)).await.unwrap();
                }
                bob.close(Duration::from_secs(20)).await;
                MESSAGES
            }
        );
        assert_eq!((there, back), (MESSAGES, MESSAGES));
        assert!(made.load(Ordering::Relaxed) > 20, "{made:?} connections");
    }

    #[tokio::test]
    async fn whoever_sends_waits_until_the_other_has_room() {
        let (alice, bob, _) = pair(Vec::new());
        let piece = vec![0; 1 << 20];
        let sending = async {
            for _ in 0..20 {
                alice.send(piece.clone()).await.unwrap();
            }
        };
        tokio::pin!(sending);
        assert!(timeout(Duration::from_millis(300), &mut sending).await.is_err());
        assert!(bob.shared().lock().waiting <= MESSAGES_WINDOW_BYTES as usize);
        let taking = async {
            for _ in 0..20 {
                bob.receive().await.unwrap();
            }
        };
        tokio::join!(sending, taking);
    }

    /// A partner that sends on without room is refused, and no more is kept of it than a window and a
    /// message; so is one that sends many empty messages.
    #[tokio::test]
    async fn a_partner_that_fills_the_memory() {
        for size in [1 << 20, 0] {
            let (alice, to_alice) = link("alice", "bob", 1);
            let (mut mine, its) = duplex(1 << 16);
            let shared = Arc::clone(alice.shared());
            let coming = tokio::spawn(async move { come(&shared, &to_alice, its).await });
            let own = Hello {
                run: [9; 16],
                peers_run: None,
                arrived: 0,
                party: "bob".to_owned(),
                job: JOB,
            };
            greet(&mut mine, &own).await.unwrap();
            go(&mut mine).await.unwrap();
            write(&mut mine, &Frame::Go { arrived: 0 }).await.unwrap();
            let (mut rest, mut mine) = tokio::io::split(mine);
            tokio::spawn(async move { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await });
            let piece = Frame::Message(vec![0; size].into());
            let mut sent = 0;
            while sent < 10_000 && write(&mut mine, &piece).await.is_ok() {
                sent += 1;
            }
            assert!(sent < 10_000, "it is cut off");
            let error = alice.interrupted().await.to_string();
            assert!(error.contains("sends more than there is room for"), "{error}");
            assert!(alice.shared().lock().waiting <= 16 << 20);
            coming.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_link_that_is_dropped_leaves_nothing_behind() {
        let (alice, bob, _) = pair(Vec::new());
        alice.send(vec![1]).await.unwrap();
        assert_eq!(bob.receive().await.unwrap(), vec![1]);
        assert!(alice.leave(Reason::Stopped).await, "bob is told");
        let error = bob.receive().await.unwrap_err().to_string();
        assert!(error.contains("'alice' stopped its run"), "{error}");
        assert!(!bob.leave(Reason::Stopped).await, "there is nobody to tell");
    }
}
