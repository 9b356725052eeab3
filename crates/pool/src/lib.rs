//! Messages between the named parties of a multi-party computation.
//!
//! A [`Pool`] is one party's end: it sends values to named parties and receives theirs by message
//! id. Below it is the [`Node`], which knows bytes but no values; the Python package is built on it
//! as well, so parties in both languages can mix.
//!
//! A send returns when the message is in the peer's mailbox, or with an error that says why not and
//! whether it may have arrived. Between two pools of this crate a message arrives exactly once,
//! however often connections break ([`frame`] and the headers of [`http`] are the second wire);
//! with `tno.mpc.communication` delivery is as good as that package's wires allow ([`envelope`]).
//!
//! A peer is identified by its key, an authority's certificate or an enclave's evidence
//! ([`PeerIdentity`]); plain HTTP has "insecure" in its name. A peer that nobody receives from has
//! to wait; [`limits`] says what it may cost here.
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

mod binding;
mod body;
mod client;
pub mod codec;
mod conversation;
pub mod envelope;
mod error;
pub mod footprint;
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
pub mod parquet;
mod peers;
mod pool;
mod quota;
mod server;
mod session;
mod shared;
mod strangers;
mod stream;
mod watch;

pub use codec::{Array, ArrayError, Blob, CodecError, ElementOrder, Integer, Typed};
pub use conversation::Taker;
pub use error::{ReceiveError, ReceiveErrorKind, SendError, SendErrorKind};
pub use handle::{PeerHandle, Receipt, ReceiveToken, SendOptions};
pub use message::{Allocate, Allocation, Buffer, Chunk, Incoming, MessageId, Payload, Wire};
pub use node::{Dropped, Node};
pub use notice::{Level, Notice, Observer};
pub use outbox::Done;
pub use peers::{PeerConfig, PeerIdentity, WireChoice};
pub use pool::{ChunkReceiver, ChunkSender, Peer, Pool, PoolBuilder, PoolError};
pub use shared::NodeConfig;
