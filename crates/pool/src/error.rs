//! What can go wrong, with the names of peer and message in the text.

use std::sync::Arc;
use std::{error, fmt, io};

use convelo_channel::PeerTlsError;

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
    /// Nobody answers at the peer's address, and the attempts are used up.
    Unreachable,
    /// The peer answered and refused; another try would be refused again.
    Refused,
    /// The peer could not prove who it is, or refused what we proved.
    NotAuthenticated,
    /// The message is larger than its wire, or the limits here, allow.
    TooLarge,
    /// The deadline passed.
    TimedOut,
    /// The peer spoke the second wire before and now does not.
    Downgraded,
    /// The peer lost its state since we last heard from it.
    Restarted,
    /// Too many messages wait for being sent to this peer.
    QueueFull,
    /// The pool is shut down.
    Closed,
}

/// A message that was not delivered, or of which that is not known.
#[derive(Clone, Debug)]
pub struct SendError {
    /// What kind of trouble.
    pub kind: SendErrorKind,
    /// The peer's name.
    pub peer: String,
    /// The message's id; nothing while the peer was only asked which wire it speaks.
    pub id: Option<MessageId>,
    /// Whether the peer may have got the message although no acknowledgement came back.
    pub maybe_delivered: bool,
    /// What happened; also the error's source.
    pub cause: Box<SendFailure>,
}

/// What kept a message from being delivered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// There was no connection, for longer than the sender was willing to wait.
    #[error("{source}; gave up after {}", effort(*.breaks, *.seconds))]
    Unreachable {
        /// What the last attempt came to.
        source: ConnectionError,
        /// How often a connection broke that carried the message.
        breaks: u32,
        /// How long the peer was absent.
        seconds: u64,
    },
    /// One of the two sides could not prove who it is.
    #[error(transparent)]
    NotAuthenticated(ConnectionError),
    /// The peer answered that it does not take the message.
    #[error("the peer refused it with status {status}: {said}{advice}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it said.
        said: String,
        /// What may help.
        advice: Advice,
    },
    /// The message is larger than what is sent on its wire.
    #[error("it has {found} bytes, and at most {limit} are sent on this wire: send it in pieces")]
    TooLarge {
        /// Its bytes.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Its id, or what is written around the value, is not possible on the second wire.
    #[error(transparent)]
    Frame(FrameError),
    /// The same on a compatible wire.
    #[error(transparent)]
    Envelope(BuildError),
    /// The deadline passed.
    #[error(
        "it was not acknowledged within its timeout; allow more time or look at the peer's log"
    )]
    TimedOut,
    /// The peer spoke the second wire before.
    #[error(
        "the peer spoke the second wire before and now does not: a downgrade is refused; restart \
         this pool if the peer was replaced by another program on purpose"
    )]
    Downgraded,
    /// The peer has another session.
    #[error(transparent)]
    Restarted(Restarted),
    /// The outbox is full.
    #[error("{MAXIMUM_QUEUED} messages to it wait already: await some of them before sending more")]
    QueueFull,
    /// This side ended it.
    #[error(transparent)]
    Closed(Closed),
}

/// A connection that did not come to be, or broke.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Nothing came back.
    #[error("{address} does not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    NoAnswer {
        /// Where.
        address: String,
    },
    /// The system could not connect.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed.
    #[error("{address}: {source}")]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        source: Arc<PeerTlsError>,
    },
    /// What answers does not speak our TLS.
    #[error("{address} answers, but not with TLS 1.3 as this pool does: {source}")]
    NoTls {
        /// Where.
        address: String,
        /// What arrived instead.
        source: Arc<io::Error>,
    },
    /// The name is bound to another key.
    #[error("{address} proved another key than the one that came first under this name: {proven}")]
    AnotherKey {
        /// Where.
        address: String,
        /// What it proved.
        proven: String,
    },
    /// The peer does not accept what we proved.
    #[error("the peer refused our certificate: {0}")]
    RefusedByPeer(String),
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Broken(Arc<io::Error>),
    /// The peer ended it before it had answered.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing moved for too long.
    #[error("no answer within {} s", STALL_TIMEOUT.as_secs())]
    Stalled,
    /// What came back is no answer.
    #[error("the peer's answer cannot be read: {0}")]
    Answer(#[from] HeadError),
    /// An answer has a body that no pool writes.
    #[error("the peer's answer has {0} bytes, which is longer than an answer may be")]
    AnswerTooLong(u64),
    /// An answer to no question.
    #[error("an answer without a question arrived")]
    Unasked,
}

/// What may help against a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Nothing in particular.
    None,
    /// The peer does not know us.
    Register {
        /// The port that it must know us by.
        port: u16,
        /// The key, with TLS.
        key: Option<[u8; 32]>,
    },
    /// The peer seems to speak the 5.x wire.
    WireFive,
    /// The peer's server has moved.
    Moved,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Register { port, key } => {
                write!(
                    f,
                    "; the peer has to register this pool under its own address and the port {port}"
                )?;
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

/// A peer lost its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Restarted {
    /// While something waited.
    #[error("the peer was restarted: its session is a new one{}", loss(*.unreceived))]
    Now {
        /// Messages of its old session that nobody had received.
        unreceived: usize,
    },
    /// Before: this is the first that the user hears of it.
    #[error("the peer was restarted since the last message: default ids begin at 0 again")]
    Before,
}

/// This side ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The whole pool.
    #[error("the pool is shut down")]
    Pool,
    /// The pool, while the message was on its way.
    #[error("the pool was shut down before it was acknowledged")]
    Unacknowledged,
    /// The peer was removed.
    #[error("the peer was removed from this pool")]
    Peer,
    /// The conversation was begun anew.
    #[error("the conversation was begun anew")]
    Conversation,
}

impl SendError {
    pub(crate) fn new(peer: &str, id: Option<&MessageId>, cause: SendFailure) -> Self {
        let (kind, cause) = (cause.kind(), Box::new(cause));
        Self { kind, peer: peer.to_owned(), id: id.cloned(), maybe_delivered: false, cause }
    }
}

impl SendFailure {
    fn kind(&self) -> SendErrorKind {
        match self {
            Self::Unreachable { .. } => SendErrorKind::Unreachable,
            Self::NotAuthenticated(_) | Self::Refused { status: 401 | 403, .. } => {
                SendErrorKind::NotAuthenticated
            }
            Self::Refused { status: 413, .. }
            | Self::TooLarge { .. }
            | Self::Frame(_)
            | Self::Envelope(_) => SendErrorKind::TooLarge,
            Self::Refused { .. } => SendErrorKind::Refused,
            Self::TimedOut => SendErrorKind::TimedOut,
            Self::Downgraded => SendErrorKind::Downgraded,
            Self::Restarted(_) => SendErrorKind::Restarted,
            Self::QueueFull => SendErrorKind::QueueFull,
            Self::Closed(_) => SendErrorKind::Closed,
        }
    }

    /// Whether a message that left may have arrived all the same. After an answer that is known.
    pub(crate) fn leaves_open(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut | Self::Closed(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, "to", &self.peer, self.id.as_ref())?;
        write!(f, "{}", self.cause)?;
        if self.maybe_delivered {
            f.write_str(" (it may have arrived all the same: its acknowledgement is missing)")?;
        }
        Ok(())
    }
}

impl error::Error for SendError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Why a receive ended without a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReceiveErrorKind {
    /// The peer went away.
    Lost,
    /// The peer lost its state since we last heard from it.
    Restarted,
    /// The pool is shut down.
    Closed,
}

/// A receive that ended without a message.
#[derive(Clone, Debug)]
pub struct ReceiveError {
    /// What kind of trouble.
    pub kind: ReceiveErrorKind,
    /// The peer's name.
    pub peer: String,
    /// The id that was waited for.
    pub id: Option<MessageId>,
    /// What happened; also the error's source.
    pub cause: ReceiveFailure,
}

/// What ended a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveFailure {
    /// The peer said goodbye.
    #[error("the peer has shut down")]
    Goodbye,
    /// Nobody answers at the peer's address any more.
    #[error(
        "the peer went away: nobody answered there for {} s",
        PROBE_INTERVAL.as_secs() * u64::from(PROBES_UNTIL_LOST)
    )]
    Silent,
    /// The peer has another session.
    #[error(transparent)]
    Restarted(Restarted),
    /// This side ended it.
    #[error(transparent)]
    Closed(Closed),
}

impl ReceiveError {
    pub(crate) fn new(peer: &str, id: Option<MessageId>, cause: ReceiveFailure) -> Self {
        let kind = match cause {
            ReceiveFailure::Goodbye | ReceiveFailure::Silent => ReceiveErrorKind::Lost,
            ReceiveFailure::Restarted(_) => ReceiveErrorKind::Restarted,
            ReceiveFailure::Closed(_) => ReceiveErrorKind::Closed,
        };
        Self { kind, peer: peer.to_owned(), id, cause }
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, "from", &self.peer, self.id.as_ref())?;
        write!(f, "{}", self.cause)
    }
}

impl error::Error for ReceiveError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.cause)
    }
}

fn named(
    f: &mut fmt::Formatter<'_>,
    direction: &str,
    peer: &str,
    id: Option<&MessageId>,
) -> fmt::Result {
    match id {
        Some(id) => write!(f, "message {id} {direction} '{peer}': "),
        None => write!(f, "'{peer}': "),
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
