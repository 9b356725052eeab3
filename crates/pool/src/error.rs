//! What can go wrong, with the names of the peer and message in the text.

use std::sync::Arc;
use std::{error, fmt, io};

use convelo_channel::PeerTlsError;
use convelo_untrusted::Untrusted;

use crate::envelope::BuildError;
use crate::frame::FrameError;
use crate::http::HeadError;
use crate::limits::{
    CONNECT_TIMEOUT, MAXIMUM_QUEUED, PROBE_INTERVAL, PROBES_UNTIL_LOST, STALL_TIMEOUT,
};
use crate::message::MessageId;

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// Nobody answers at the peer's address, and the attempts are exhausted.
    Unreachable,
    /// The peer answered and refused; it would refuse another attempt as well.
    Refused,
    /// The peer could not prove who it is, or refused what we proved.
    NotAuthenticated,
    /// The message is larger than its wire, or a limit here, allows.
    TooLarge,
    /// The deadline passed.
    TimedOut,
    /// The peer spoke the second wire before and now does not.
    Downgraded,
    /// The peer lost its state since we last heard from it.
    Restarted,
    /// Too many messages are queued for this peer.
    QueueFull,
    /// The pool has been shut down.
    Closed,
}

/// A message that was not delivered, or may not have been. The source says what happened.
#[derive(Clone, Debug)]
pub struct SendError {
    /// The kind of failure.
    pub kind: SendErrorKind,
    /// The peer's name.
    pub peer: String,
    /// The message's id; `None` if the peer was only asked which wire it speaks.
    pub id: Option<MessageId>,
    /// Whether the peer may have received the message although no acknowledgement arrived.
    pub maybe_delivered: bool,
    source: Box<SendFailure>,
}

/// Why a receive ended without a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReceiveErrorKind {
    /// The peer is gone.
    Lost,
    /// The peer lost its state since we last heard from it.
    Restarted,
    /// The pool has been shut down.
    Closed,
}

/// A receive that ended without a message. The source says what happened.
#[derive(Clone, Debug)]
pub struct ReceiveError {
    /// The kind of failure.
    pub kind: ReceiveErrorKind,
    /// The peer's name.
    pub peer: String,
    /// The awaited id.
    pub id: Option<MessageId>,
    source: ReceiveFailure,
}

/// What kept a message from being delivered.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    #[error("{source}; gave up after {}", effort(*.breaks, *.seconds))]
    Unreachable { source: ConnectionError, breaks: u32, seconds: u64 },
    #[error(transparent)]
    NotAuthenticated(ConnectionError),
    #[error("the peer refused it with status {status} and says {said}{advice}")]
    Refused { status: u16, said: Untrusted, advice: Advice },
    #[error(
        "it has {found} bytes, expected at most {limit} on this wire and by this pool's limit of a \
         message: send it in pieces, or raise that limit on both sides"
    )]
    TooLarge { found: u64, limit: u64 },
    #[error(transparent)]
    Frame(FrameError),
    #[error(transparent)]
    Envelope(BuildError),
    #[error("it was not acknowledged within its timeout; allow more time, or check the peer's log")]
    TimedOut,
    #[error(
        "the peer spoke the second wire before and now it does not: a downgrade is refused; \
         restart this pool if the peer was deliberately replaced by another program"
    )]
    Downgraded,
    #[error(transparent)]
    Restarted(Restarted),
    #[error(
        "{MAXIMUM_QUEUED} messages to it are already waiting: await some of them before sending \
         more"
    )]
    QueueFull,
    #[error(transparent)]
    Closed(Closed),
}

/// A connection that could not be established, or broke.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{address} does not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    NoAnswer { address: String },
    #[error("cannot reach {address}: {source}")]
    Unreachable { address: String, source: Arc<io::Error> },
    #[error("{address}: {source}")]
    Handshake { address: String, source: Arc<PeerTlsError> },
    #[error("{address} answers, but not with TLS 1.3 as this pool does: {source}")]
    NoTls { address: String, source: Arc<io::Error> },
    #[error(
        "{address} proved {proven}, but the first party under this name had the key sha256:{}; \
         register the party's certificate or key, so that no other one is taken for it",
        hex::encode(held)
    )]
    AnotherKey { address: String, proven: String, held: [u8; 32] },
    #[error("the peer refused our certificate: {0}")]
    RefusedByPeer(String),
    #[error("the connection broke: {0}")]
    Broken(#[source] Arc<io::Error>),
    #[error("the peer closed the connection")]
    Closed,
    #[error("no answer within {} s", STALL_TIMEOUT.as_secs())]
    Stalled,
    #[error("the peer's answer cannot be read: {0}")]
    Answer(#[from] HeadError),
    #[error("the peer's answer has {0} bytes, more than an answer may have")]
    AnswerTooLong(u64),
    #[error("an answer arrived without a question")]
    Unasked,
}

/// What may help after a refusal.
#[derive(Clone, Debug)]
pub(crate) enum Advice {
    None,
    /// The peer does not know us.
    Register {
        port: u16,
        key: Option<[u8; 32]>,
    },
    WireFive,
    Moved,
}

/// The conversation begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Restarted {
    #[error("the peer was restarted: its session is a new one{}", loss(*.unreceived))]
    Now { unreceived: usize },
    /// The user has not heard of it before.
    #[error("the peer was restarted since the last message: default ids begin at 0 again")]
    Before,
    #[error(
        "what was exchanged so far was with another party: its certificate did not prove that it \
         was the peer as well as that of the present one does; default ids begin at 0 again. \
         Register the peer's certificate or key"
    )]
    Displaced,
}

/// This side ended it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("the pool is shut down")]
    Pool,
    #[error("the pool was shut down before it was acknowledged")]
    Unacknowledged,
    #[error("the peer was removed from this pool")]
    Peer,
    #[error("the conversation was restarted")]
    Conversation,
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum ReceiveFailure {
    #[error("the peer has shut down")]
    Goodbye,
    #[error(
        "the peer went away: nobody answered for {} s",
        PROBE_INTERVAL.as_secs() * u64::from(PROBES_UNTIL_LOST)
    )]
    Silent,
    #[error(transparent)]
    Restarted(Restarted),
    #[error(transparent)]
    Closed(Closed),
}

impl SendError {
    pub(crate) fn new(peer: &str, id: Option<&MessageId>, failure: SendFailure) -> Self {
        let kind = match &failure {
            SendFailure::Unreachable { .. } => SendErrorKind::Unreachable,
            SendFailure::NotAuthenticated(_) | SendFailure::Refused { status: 401 | 403, .. } => {
                SendErrorKind::NotAuthenticated
            }
            SendFailure::Refused { status: 413, .. }
            | SendFailure::TooLarge { .. }
            | SendFailure::Frame(_)
            | SendFailure::Envelope(_) => SendErrorKind::TooLarge,
            SendFailure::Refused { .. } => SendErrorKind::Refused,
            SendFailure::TimedOut => SendErrorKind::TimedOut,
            SendFailure::Downgraded => SendErrorKind::Downgraded,
            SendFailure::Restarted(_) => SendErrorKind::Restarted,
            SendFailure::QueueFull => SendErrorKind::QueueFull,
            SendFailure::Closed(_) => SendErrorKind::Closed,
        };
        let (peer, source) = (peer.to_owned(), Box::new(failure));
        Self { kind, peer, id: id.cloned(), maybe_delivered: false, source }
    }
}

impl ReceiveError {
    pub(crate) fn new(peer: &str, id: Option<MessageId>, source: ReceiveFailure) -> Self {
        let kind = match source {
            ReceiveFailure::Goodbye | ReceiveFailure::Silent => ReceiveErrorKind::Lost,
            ReceiveFailure::Restarted(_) => ReceiveErrorKind::Restarted,
            ReceiveFailure::Closed(_) => ReceiveErrorKind::Closed,
        };
        Self { kind, peer: peer.to_owned(), id, source }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "message {id} to '{}': {}", self.peer, self.source)?,
            None => write!(f, "'{}': {}", self.peer, self.source)?,
        }
        if self.maybe_delivered {
            f.write_str(" (it may still have arrived: its acknowledgement is missing)")?;
        }
        Ok(())
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "message {id} from '{}': {}", self.peer, self.source),
            None => write!(f, "'{}': {}", self.peer, self.source),
        }
    }
}

impl error::Error for SendError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl error::Error for ReceiveError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Register { port, key } => {
                f.write_str("; the peer must register this pool under its own address and ")?;
                write!(f, "the port {port}")?;
                match key {
                    Some(key) => write!(f, " and its key sha256:{}", hex::encode(key)),
                    None => Ok(()),
                }
            }
            Self::WireFive => {
                f.write_str("; if tno.mpc.communication 5 runs there, register it with wire=5")
            }
            Self::Moved => {
                f.write_str("; redirects are not followed: register the address it names")
            }
        }
    }
}

fn effort(breaks: u32, seconds: u64) -> String {
    match breaks {
        0 => format!("{seconds} s"),
        breaks => format!("{breaks} tries in {seconds} s"),
    }
}

fn loss(messages: usize) -> String {
    match messages {
        0 => String::new(),
        1 => "; 1 message of its old session was never received".to_owned(),
        count => format!("; {count} messages of its old session were never received"),
    }
}
