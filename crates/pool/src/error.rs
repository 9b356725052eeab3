//! What can go wrong, with the names of peer and message in the text.

use std::fmt;

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
    pub(crate) text: String,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "message {id} to '{}': {}", self.peer, self.text)?,
            None => write!(f, "'{}': {}", self.peer, self.text)?,
        }
        if self.maybe_delivered {
            f.write_str(" (it may have arrived all the same: its acknowledgement is missing)")?;
        }
        Ok(())
    }
}

impl std::error::Error for SendError {}

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
    pub(crate) text: String,
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "message {id} from '{}': {}", self.peer, self.text),
            None => write!(f, "'{}': {}", self.peer, self.text),
        }
    }
}

impl std::error::Error for ReceiveError {}
