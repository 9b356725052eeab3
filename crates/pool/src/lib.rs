//! Messages between the named parties of a multi-party computation.
//!
//! A [`Pool`] is one party's end: it sends values to named parties and receives theirs by message
//! id. Below it stands the [`Node`], which knows bytes and no values; the Python package stands on
//! it as well, so that parties of both languages mix.
//!
//! A send returns when the peer's mailbox has the message, or with an error that says why not and
//! whether it may have arrived. Between two pools of this crate a message arrives exactly once,
//! however often connections break ([`frame`] and the headers of [`http`] are the second wire);
//! with `tno.mpc.communication` it is as good as that package's wires allow ([`envelope`]).
//!
//! Who a peer is, its key or an authority's certificate or an enclave's evidence says
//! ([`PeerIdentity`]); plain HTTP is named insecure. A peer that nobody receives from is made to
//! wait; what it may cost here is in [`limits`].
//!
//! ```no_run
//! # async fn alice() -> Result<(), convelo_pool::PoolError> {
//! use convelo_pool::{Peer, Pool};
//!
//! let pool = Pool::builder()
//!     .insecure_plain_http()
//!     .peer(Peer::new("bob", "localhost", 8062))
//!     .listen("localhost", 8061)?;
//! pool.send("bob", "Hello Bob! This is Alice speaking.").await?;
//! let answer: String = pool.recv("bob").await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod body;
mod client;
pub mod codec;
mod conversation;
pub mod envelope;
mod error;
pub mod frame;
mod handle;
pub mod http;
mod lane;
pub mod limits;
mod listen;
pub mod mailbox;
mod memory;
mod message;
mod msgpack;
#[cfg(test)]
mod network;
mod node;
mod notice;
mod outbox;
mod peers;
mod pool;
mod quota;

mod server;
mod session;
mod shared;
mod stream;
mod watch;

pub use codec::{Array, ArrayError, Blob, CodecError, ElementOrder, Integer, Typed};
pub use error::{ReceiveError, ReceiveErrorKind, SendError, SendErrorKind};
pub use handle::{PeerHandle, Receipt, ReceiveToken, SendOptions};
pub use message::{Allocate, Allocation, Buffer, Chunk, Incoming, MessageId, Payload, Wire};
pub use node::{Dropped, Node};
pub use notice::{Level, Notice, Observer};
pub use outbox::Done;
pub use peers::{PeerConfig, PeerIdentity, Taker, WireChoice};
pub use pool::{ChunkReceiver, ChunkSender, Peer, Pool, PoolBuilder, PoolError};
pub use shared::NodeConfig;
