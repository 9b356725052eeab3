//! What travels on a connection between two parties.
//!
//! A frame is its kind (one byte), the length of its content (32 bits, big-endian) and the content.
//! Numbers in it are big-endian.
//!
//! | kind | content |
//! |---|---|
//! | 1, hello | version (1 byte), run (16), the other's run as far as it is known, or zeros (16), how many messages have arrived (8), length of the name (1), the name, the job in canonical form |
//! | 2, go | how many messages have arrived (8) |
//! | 3, message | a message of the job |
//! | 4, taken | how many messages have been taken (8) |
//! | 5, alive | nothing |
//! | 6, leave | why (1), by the numbers of `Reason` in `join.proto` |
//! | 7, done | nothing |
//!
//! All of it goes to a party that has proved a key of the job, and to nobody else.

use bytes::Bytes;
use convelo_psi::is_name;
use convelo_psi::limits::{MAXIMUM_JOB_BYTES, MAXIMUM_NAME_BYTES};
use convelo_wire::{Reason, proto};

use crate::limits::MAXIMUM_MESSAGE_BYTES;

/// The version of these frames.
const VERSION: u8 = 1;

/// Bytes before the content.
pub const HEAD_BYTES: usize = 5;

/// Which run of a party's program this is: random.
pub type Run = [u8; 16];

/// What each side says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// This run.
    pub run: Run,
    /// The other side's run, if there was a connection before.
    pub peers_run: Option<Run>,
    /// How many of the other side's messages have arrived.
    pub arrived: u64,
    /// This party's name.
    pub party: String,
    /// The job, in canonical form; not parsed yet.
    pub job: Bytes,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame in each direction.
    Hello(Hello),
    /// From the side that chooses: this connection carries the job. From the other: it does.
    Go {
        /// How many of the other side's messages have arrived.
        arrived: u64,
    },
    /// A message of the job.
    Message(Bytes),
    /// The other side need not keep messages before this one any longer.
    Taken {
        /// How many have been taken.
        messages: u64,
    },
    /// This side is still there.
    Alive,
    /// This side gives up.
    Leave(Reason),
    /// This side has sent and taken everything.
    Done,
}

/// Something that is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame has this kind.
    #[error("a frame of kind {0}, expected 1 to 7")]
    Kind(u8),
    /// A frame of this kind has another length.
    #[error("a frame of kind {kind} with {found} bytes, expected {expected}")]
    Length {
        /// Its kind.
        kind: u8,
        /// How many bytes it has.
        found: usize,
        /// How many it may have.
        expected: String,
    },
    /// The other side speaks another version.
    #[error(
        "it speaks version {0} of the protocol between parties, expected {VERSION}: use the same version of convelo on both sides"
    )]
    Version(u8),
    /// The name is none.
    #[error("a hello without a party's name")]
    Name,
    /// Why it leaves has no name.
    #[error("it leaves for reason {0}, which has no meaning")]
    Reason(u8),
}

/// Bytes of a hello without the name and the job.
const HELLO_BYTES: usize = 1 + 16 + 16 + 8 + 1;

/// The most bytes of a hello.
const MAXIMUM_HELLO_BYTES: usize = HELLO_BYTES + MAXIMUM_NAME_BYTES + MAXIMUM_JOB_BYTES;

/// The kind and the length of the content that follow this head.
///
/// # Errors
/// If there is no such kind, or it is longer than any of it: before memory is spent on it.
pub fn head(bytes: [u8; HEAD_BYTES]) -> Result<(u8, usize), FrameError> {
    let [kind, length @ ..] = bytes;
    let found = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let (least, most) = match kind {
        1 => (HELLO_BYTES, MAXIMUM_HELLO_BYTES),
        2 | 4 => (8, 8),
        3 => (0, MAXIMUM_MESSAGE_BYTES),
        5 | 7 => (0, 0),
        6 => (1, 1),
        _ => return Err(FrameError::Kind(kind)),
    };
    if (least..=most).contains(&found) {
        return Ok((kind, found));
    }
    let expected = if least == most { most.to_string() } else { format!("{least} to {most}") };
    Err(FrameError::Length { kind, found, expected })
}

impl Frame {
    /// Reads the content of a frame whose [`head`] was read.
    ///
    /// # Errors
    /// If it is not one of this kind.
    pub fn read(kind: u8, content: Bytes) -> Result<Self, FrameError> {
        let number = |content: &[u8]| match content.try_into() {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => {
                Err(FrameError::Length { kind, found: content.len(), expected: "8".to_owned() })
            }
        };
        match kind {
            1 => Hello::read(&content).map(Self::Hello),
            2 => Ok(Self::Go { arrived: number(&content)? }),
            3 => Ok(Self::Message(content)),
            4 => Ok(Self::Taken { messages: number(&content)? }),
            5 => Ok(Self::Alive),
            6 => {
                let number = content.first().copied().unwrap_or_default();
                let reason = proto::Reason::try_from(i32::from(number));
                let reason = reason.map_err(|_| FrameError::Reason(number))?;
                Ok(Self::Leave(reason.into()))
            }
            7 => Ok(Self::Done),
            _ => Err(FrameError::Kind(kind)),
        }
    }

    /// The frame's head and content, apart, because a message is not copied.
    #[expect(
        clippy::missing_panics_doc,
        reason = "nothing here is longer than the limits of `head`"
    )]
    pub fn write(&self) -> ([u8; HEAD_BYTES], Bytes) {
        let (kind, content) = match self {
            Self::Hello(hello) => (1, hello.write().into()),
            Self::Go { arrived } => (2, Bytes::copy_from_slice(&arrived.to_be_bytes())),
            Self::Message(message) => (3, message.clone()),
            Self::Taken { messages } => (4, Bytes::copy_from_slice(&messages.to_be_bytes())),
            Self::Alive => (5, Bytes::new()),
            Self::Done => (7, Bytes::new()),
            Self::Leave(reason) => {
                let number = i32::from(proto::Reason::from(*reason));
                (6, vec![u8::try_from(number).expect("there are few reasons")].into())
            }
        };
        let mut head = [kind, 0, 0, 0, 0];
        let length = u32::try_from(content.len()).expect("messages are short");
        head[1..].copy_from_slice(&length.to_be_bytes());
        (head, content)
    }
}

impl Hello {
    fn read(content: &[u8]) -> Result<Self, FrameError> {
        let short = || FrameError::Length {
            kind: 1,
            found: content.len(),
            expected: format!("{HELLO_BYTES} and a name"),
        };
        let (version, rest) = content.split_first().ok_or_else(short)?;
        if *version != VERSION {
            return Err(FrameError::Version(*version));
        }
        let (run, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (peers_run, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (arrived, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (length, rest) = rest.split_first().ok_or_else(short)?;
        let (name, job) = rest.split_at_checked((*length).into()).ok_or_else(short)?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name));
        Ok(Self {
            run: *run,
            peers_run: Some(*peers_run).filter(|run| *run != [0; 16]),
            arrived: u64::from_be_bytes(*arrived),
            party: name.ok_or(FrameError::Name)?.to_owned(),
            job: Bytes::copy_from_slice(job),
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.run);
        bytes.extend(self.peers_run.unwrap_or_default());
        bytes.extend(self.arrived.to_be_bytes());
        bytes.push(u8::try_from(self.party.len()).expect("names are short"));
        bytes.extend(self.party.as_bytes());
        bytes.extend_from_slice(&self.job);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Hello(Hello {
                run: [1; 16],
                peers_run: None,
                arrived: 0,
                party: "alice".to_owned(),
                job: Bytes::from_static(b"{}"),
            }),
            Frame::Hello(Hello {
                run: [1; 16],
                peers_run: Some([2; 16]),
                arrived: u64::MAX,
                party: "b".to_owned(),
                job: Bytes::new(),
            }),
            Frame::Go { arrived: 3 },
            Frame::Message(Bytes::from_static(b"hello")),
            Frame::Message(Bytes::new()),
            Frame::Taken { messages: 1 << 40 },
            Frame::Alive,
            Frame::Done,
            Frame::Leave(Reason::Stopped),
            Frame::Leave(Reason::OverCap),
        ]
    }

    fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
        let (head_bytes, content) = bytes.split_at(HEAD_BYTES);
        let (kind, length) = head(head_bytes.try_into().unwrap())?;
        assert_eq!(length, content.len());
        Frame::read(kind, Bytes::copy_from_slice(content))
    }

    #[test]
    fn what_is_written_is_read() {
        for frame in frames() {
            let (head, content) = frame.write();
            assert_eq!(read(&[&head, &content[..]].concat()), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_memory_is_spent() {
        let refused = |bytes: [u8; 5], text: &str| {
            let error = head(bytes).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        refused([0, 0, 0, 0, 0], "kind 0");
        refused([8, 0, 0, 0, 0], "kind 8");
        refused([3, 255, 255, 255, 255], "4294967295 bytes, expected 0 to");
        refused([1, 0, 255, 255, 255], "expected 42 to");
        refused([2, 0, 0, 0, 9], "9 bytes, expected 8");
        refused([5, 0, 0, 0, 1], "1 bytes, expected 0");
    }

    #[test]
    fn hello_that_is_cut_off_or_of_another_version() {
        let hello = frames().remove(0);
        let (_, content) = hello.write();
        for length in 0..content.len() - b"{}".len() {
            assert!(Frame::read(1, content.slice(..length)).is_err(), "{length} bytes");
        }
        let mut other = content.to_vec();
        other[0] = 2;
        assert_eq!(Frame::read(1, other.into()), Err(FrameError::Version(2)));
        let mut nameless = content.to_vec();
        nameless[42] = b' ';
        assert_eq!(Frame::read(1, nameless.into()), Err(FrameError::Name));
    }
}
