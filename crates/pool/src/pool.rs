//! The typed interface: messages are values.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use convelo_attest::QuoteSource;
use convelo_channel::{Expect, Identity, IdentityError, PeerTls, Roots};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::codec::{self, CodecError};
use crate::error::{Closed, ReceiveError, SendError, SendFailure};
use crate::handle::{PeerHandle, Receipt, ReceiveToken, SendOptions};
use crate::limits::MAILBOX_BYTES;
use crate::message::{Incoming, MessageId, Payload, Wire};
use crate::node::{Dropped, Node};
use crate::peers::{PeerConfig, PeerIdentity, WireChoice};
use crate::shared::NodeConfig;

/// Why a [`Pool`] could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No party of that name is in the pool.
    #[error("there is no party '{name}' in this pool; it knows {known}")]
    UnknownPeer {
        /// The name.
        name: String,
        /// The known names.
        known: String,
    },
    /// Two parties with the same name.
    #[error("a party '{0}' is already in this pool: every party needs its own name")]
    DuplicatePeer(String),
    /// A party without anything to recognise it by.
    #[error(
        "nothing says how '{0}' is recognised: with TLS give its key or certificate; without, call \
         insecure_plain_http()"
    )]
    NoIdentity(String),
    /// The message was not delivered, or may not have been.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No message arrived.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The deadline passed; a later receive of the same id gets the message.
    #[error("message {id} from '{peer}' did not arrive within {} s", .after.as_secs_f64())]
    ReceiveTimeout {
        /// The expected sender.
        peer: String,
        /// The id that was awaited; "the next" for a default one.
        id: String,
        /// How long the receive waited.
        after: Duration,
    },
    /// A value that cannot be written, or that is not of the expected type.
    #[error("message {id} of '{peer}': {source}")]
    Codec {
        /// The peer.
        peer: String,
        /// The id.
        id: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The pool cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// A party to talk to.
#[derive(Clone)]
pub struct Peer {
    name: String,
    host: String,
    port: u16,
    wire: WireChoice,
    expect: Option<Expect>,
}

impl Peer {
    /// The party `name`, with its pool listening on `host` and `port`.
    pub fn new(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        let wire = WireChoice::Ask(Wire::Four);
        Self { name: name.into(), host: host.into(), port, wire, expect: None }
    }

    /// The peer must prove the key with this SHA-256 of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn key(mut self, key: [u8; 32]) -> Self {
        self.expect = Some(Expect::Key(key));
        self
    }

    /// The peer must meet this: a certificate of an authority, or an enclave's evidence.
    #[must_use]
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = Some(expect);
        self
    }

    /// Which wire to speak with it; by default, the pool asks.
    #[must_use]
    pub fn wire(mut self, wire: WireChoice) -> Self {
        self.wire = wire;
        self
    }
}

/// Builds a [`Pool`].
pub struct PoolBuilder {
    tls: Option<PeerTls>,
    plain: bool,
    peers: Vec<Peer>,
    options: SendOptions,
    receive_timeout: Option<Duration>,
    mailbox_bytes: u64,
    message_bytes: Option<u64>,
}

impl PoolBuilder {
    /// Mutual TLS 1.3 with this credential.
    #[must_use]
    pub fn tls(mut self, tls: PeerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Mutual TLS 1.3 with this key, in self-signed certificates that carry evidence from `source`
    /// (RA-TLS): this pool runs in an enclave, and its peers verify that. The certificate is
    /// renewed long before it expires.
    ///
    /// # Errors
    /// [`IdentityError`]: there was no evidence to be had.
    pub fn attested(
        mut self,
        identity: Identity,
        source: Arc<dyn QuoteSource>,
        roots: Option<Roots>,
    ) -> Result<Self, IdentityError> {
        self.tls = Some(PeerTls::attested(identity, source, roots)?);
        Ok(self)
    }

    /// No TLS: nothing is encrypted, and anyone who can send from a peer's host counts as that
    /// peer.
    #[must_use]
    pub fn insecure_plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Adds a party.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        self.peers.push(peer);
        self
    }

    /// How long a send may take in all; 5 minutes by default.
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How long a receive waits; by default without limit, until the peer is lost.
    #[must_use]
    pub fn receive_timeout(mut self, timeout: Duration) -> Self {
        self.receive_timeout = Some(timeout);
        self
    }

    /// Bytes that each peer may have parked here; 256 MiB by default.
    #[must_use]
    pub fn mailbox_bytes(mut self, bytes: u64) -> Self {
        self.mailbox_bytes = bytes;
        self
    }

    /// The largest message to send or accept, in bytes; by default as many as may be parked.
    #[must_use]
    pub fn message_bytes(mut self, bytes: u64) -> Self {
        self.message_bytes = Some(bytes);
        self
    }

    /// Listens on `host` and `port`, 0 for any, and starts. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`PoolError::NoIdentity`], [`PoolError::DuplicatePeer`], [`PoolError::Listen`].
    pub fn listen(self, host: &str, port: u16) -> Result<Pool, PoolError> {
        let secured = self.tls.is_some();
        let config = NodeConfig {
            tls: self.tls,
            mailbox_bytes: self.mailbox_bytes,
            message_bytes: self.message_bytes,
            ..NodeConfig::default()
        };
        let pool = Pool {
            node: Node::new(config, Handle::current()),
            peers: Mutex::default(),
            secured,
            plain: self.plain,
            options: self.options,
            receive_timeout: self.receive_timeout,
        };
        for peer in self.peers {
            pool.add_peer(peer)?;
        }
        pool.node
            .listen(host, port, None)
            .map_err(|source| PoolError::Listen { address: format!("{host}:{port}"), source })?;
        Ok(pool)
    }
}

/// One party's end of the conversation with the others.
pub struct Pool {
    node: Node,
    peers: Mutex<BTreeMap<String, PeerHandle>>,
    secured: bool,
    plain: bool,
    options: SendOptions,
    receive_timeout: Option<Duration>,
}

impl Pool {
    /// Starts building a pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            tls: None,
            plain: false,
            peers: Vec::new(),
            options: SendOptions {
                timeout: Some(Duration::from_mins(5)),
                ..SendOptions::default()
            },
            receive_timeout: None,
            mailbox_bytes: MAILBOX_BYTES,
            message_bytes: None,
        }
    }

    /// The port that the pool listens on.
    pub fn port(&self) -> u16 {
        self.node.port().unwrap_or(0)
    }

    /// Adds a party; also possible after the start.
    ///
    /// # Errors
    /// [`PoolError::NoIdentity`], [`PoolError::DuplicatePeer`].
    pub fn add_peer(&self, peer: Peer) -> Result<(), PoolError> {
        let identity = match peer.expect {
            Some(expect) if self.secured => PeerIdentity::Proven(Arc::new(expect)),
            None if self.plain && !self.secured => PeerIdentity::InsecureOrigin,
            _ => return Err(PoolError::NoIdentity(peer.name)),
        };
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.contains_key(&peer.name) {
            return Err(PoolError::DuplicatePeer(peer.name));
        }
        let text_ids =
            matches!(peer.wire, WireChoice::Ask(Wire::Five) | WireChoice::Only(Wire::Five));
        let config = PeerConfig {
            name: peer.name.clone(),
            host: peer.host,
            port: peer.port,
            wire: peer.wire,
            identity,
            text_ids,
        };
        peers.insert(peer.name, self.node.add_peer(config));
        Ok(())
    }

    /// The names of the parties, sorted.
    pub fn names(&self) -> Vec<String> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Sends a value under the next default id; returns once the peer has acknowledged it. Default
    /// ids count all messages to a peer, including those with chosen ids, as in the replaced
    /// package: the receiver gets them in the order in which they were sent.
    ///
    /// # Errors
    /// [`PoolError`]; the message was not delivered, or the error says that it may have been.
    pub async fn send<T: Serialize + ?Sized>(&self, to: &str, value: &T) -> Result<(), PoolError> {
        self.send_value(to, None, value).await
    }

    /// Sends a value under a chosen id.
    ///
    /// # Errors
    /// As [`Pool::send`].
    pub async fn send_as<T: Serialize + ?Sized>(
        &self,
        to: &str,
        id: impl Into<MessageId>,
        value: &T,
    ) -> Result<(), PoolError> {
        self.send_value(to, Some(id.into()), value).await
    }

    /// Sends bytes as they are, without a copy.
    ///
    /// # Errors
    /// As [`Pool::send`].
    pub async fn send_bytes(
        &self,
        to: &str,
        id: impl Into<MessageId>,
        bytes: impl Into<Bytes>,
    ) -> Result<(), PoolError> {
        let id = id.into();
        let bytes = bytes.into();
        let peer = self.peer(to)?;
        let wire = self.wire(&peer).await?;
        let payload = codec::bytes_to_payload(bytes, wire)
            .map_err(|source| codec_error(to, Some(&id), source))?;
        self.transmit(&peer, Some(id), wire, payload).await
    }

    /// Sends a value to several parties at once under one id, or to all of them if `to` is `None`.
    ///
    /// # Errors
    /// The first that occurred; the message has still been sent to the others.
    pub async fn broadcast<T: Serialize + ?Sized>(
        &self,
        to: Option<&[&str]>,
        id: impl Into<MessageId>,
        value: &T,
    ) -> Result<(), PoolError> {
        let id = id.into();
        let all = self.names();
        let names: Vec<&str> =
            to.map_or_else(|| all.iter().map(String::as_str).collect(), <[&str]>::to_vec);
        let mut sent = Vec::with_capacity(names.len());
        for name in &names {
            let peer = self.peer(name)?;
            let wire = self.wire(&peer).await?;
            let payload = codec::to_payload(value, wire)
                .map_err(|source| codec_error(name, Some(&id), source))?;
            sent.push((*name, self.begin(&peer, Some(id.clone()), wire, payload)));
        }
        let mut outcome = Ok(());
        for (name, acknowledged) in sent {
            let result = acknowledged.await.unwrap_or_else(|_| Err(stopped(name)));
            outcome = outcome.and(result);
        }
        Ok(outcome?)
    }

    /// Receives the value with the next default id.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn recv<T: DeserializeOwned>(&self, from: &str) -> Result<T, PoolError> {
        let incoming = self.arrival(from, None).await?;
        let id = incoming.id.clone();
        codec::from_incoming(incoming).map_err(|source| codec_error(from, Some(&id), source))
    }

    /// Receives the value with a chosen id.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn recv_as<T: DeserializeOwned>(
        &self,
        from: &str,
        id: impl Into<MessageId>,
    ) -> Result<T, PoolError> {
        let id = id.into();
        let incoming = self.arrival(from, Some(id.clone())).await?;
        codec::from_incoming(incoming).map_err(|source| codec_error(from, Some(&id), source))
    }

    /// Receives bytes as they are, without a copy.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn recv_bytes(
        &self,
        from: &str,
        id: impl Into<MessageId>,
    ) -> Result<Bytes, PoolError> {
        let id = id.into();
        let incoming = self.arrival(from, Some(id.clone())).await?;
        codec::bytes_from_incoming(incoming).map_err(|source| codec_error(from, Some(&id), source))
    }

    /// Starts a stream of chunks, for values that should not be in memory as a whole. The chunks
    /// are messages `id/0`, `id/1` and so on; the last one is empty.
    pub fn chunks_to<'a>(&'a self, to: &'a str, id: &'a str) -> ChunkSender<'a> {
        ChunkSender { pool: self, peer: to, id, next: 0 }
    }

    /// The other end of [`Pool::chunks_to`].
    pub fn chunks_from<'a>(&'a self, from: &'a str, id: &'a str) -> ChunkReceiver<'a> {
        ChunkReceiver { pool: self, peer: from, id, next: 0, ended: false }
    }

    /// Shuts the pool down: messages on their way get `flush` to be acknowledged, waiting receives
    /// end, and the peers are told. Returns the messages that were not acknowledged.
    pub async fn shutdown(&self, flush: Duration) -> Vec<Dropped> {
        self.node.close(flush).await
    }

    fn peer(&self, name: &str) -> Result<PeerHandle, PoolError> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(name).cloned().ok_or_else(|| PoolError::UnknownPeer {
            name: name.to_owned(),
            known: peers.keys().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", "),
        })
    }

    async fn wire(&self, peer: &PeerHandle) -> Result<Wire, PoolError> {
        loop {
            if let Some(wire) = peer.wire() {
                return Ok(wire);
            }
            let (done, answered) = oneshot::channel();
            let done = Box::new(move |result| {
                let _ = done.send(result);
            });
            peer.prepare(self.options, done);
            answered.await.unwrap_or_else(|_| Err(stopped(peer.name())))?;
        }
    }

    async fn send_value<T: Serialize + ?Sized>(
        &self,
        to: &str,
        id: Option<MessageId>,
        value: &T,
    ) -> Result<(), PoolError> {
        let peer = self.peer(to)?;
        let wire = self.wire(&peer).await?;
        let payload = codec::to_payload(value, wire)
            .map_err(|source| codec_error(to, id.as_ref(), source))?;
        self.transmit(&peer, id, wire, payload).await
    }

    async fn transmit(
        &self,
        peer: &PeerHandle,
        id: Option<MessageId>,
        wire: Wire,
        payload: Payload,
    ) -> Result<(), PoolError> {
        let acknowledged = self.begin(peer, id, wire, payload);
        Ok(acknowledged.await.unwrap_or_else(|_| Err(stopped(peer.name())))?)
    }

    fn begin(
        &self,
        peer: &PeerHandle,
        id: Option<MessageId>,
        wire: Wire,
        payload: Payload,
    ) -> oneshot::Receiver<Result<(), SendError>> {
        let (done, acknowledged) = oneshot::channel();
        let done = Box::new(move |result| {
            let _ = done.send(result);
        });
        peer.send(id, wire, payload, self.options, done);
        acknowledged
    }

    async fn arrival(&self, from: &str, id: Option<MessageId>) -> Result<Incoming, PoolError> {
        let peer = self.peer(from)?;
        let shown = id.as_ref().map_or_else(|| "the next".to_owned(), ToString::to_string);
        let (taker, arrived) = oneshot::channel();
        let receipt = peer.receive(id, || {
            Box::new(move |result| match taker.send(result) {
                // Nobody is waiting any more: the message goes back to the mailbox.
                Err(Ok(incoming)) => Some(incoming),
                _ => None,
            })
        });
        let token = match receipt {
            Receipt::Now(incoming) => return Ok(incoming),
            Receipt::Failed(error) => return Err(error.into()),
            Receipt::Waiting(token) => token,
        };
        let mut waiting = Waiting { token, arrived: Some(arrived) };
        let Some(arrived) = &mut waiting.arrived else { return Err(stopped(from).into()) };
        let result = match self.receive_timeout {
            None => arrived.await,
            Some(after) => {
                let arrived = tokio::time::timeout(after, arrived).await;
                let peer = from.to_owned();
                arrived.map_err(|_| PoolError::ReceiveTimeout { peer, id: shown, after })?
            }
        };
        waiting.arrived = None;
        Ok(result.map_err(|_| stopped(from))??)
    }
}

/// A cancelled receive leaves no trace: no waiter, no used id, and a message that arrived at the
/// last moment goes back.
struct Waiting {
    token: ReceiveToken,
    arrived: Option<oneshot::Receiver<Result<Incoming, ReceiveError>>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(mut arrived) = self.arrived.take() else { return };
        if self.token.cancel() {
            return;
        }
        arrived.close();
        // Otherwise the taker found nobody and returned the message, or there was none.
        if let Ok(Ok(incoming)) = arrived.try_recv() {
            self.token.put_back(incoming);
        }
    }
}

/// Sends a stream of chunks; see [`Pool::chunks_to`].
pub struct ChunkSender<'a> {
    pool: &'a Pool,
    peer: &'a str,
    id: &'a str,
    next: u64,
}

impl ChunkSender<'_> {
    /// Sends a chunk; returns once it is acknowledged. Empty chunks are skipped.
    ///
    /// # Errors
    /// As for [`Pool::send`].
    pub async fn send(&mut self, chunk: impl Into<Bytes>) -> Result<(), PoolError> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return Ok(());
        }
        self.put(chunk).await
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// As [`Pool::send`].
    pub async fn finish(mut self) -> Result<(), PoolError> {
        self.put(Bytes::new()).await
    }

    async fn put(&mut self, chunk: Bytes) -> Result<(), PoolError> {
        let id = format!("{}/{}", self.id, self.next);
        self.pool.send_bytes(self.peer, id, chunk).await?;
        self.next += 1;
        Ok(())
    }
}

/// Receives a stream of chunks; see [`Pool::chunks_from`].
pub struct ChunkReceiver<'a> {
    pool: &'a Pool,
    peer: &'a str,
    id: &'a str,
    next: u64,
    ended: bool,
}

impl ChunkReceiver<'_> {
    /// The next chunk; `None` at the end of the stream.
    ///
    /// # Errors
    /// As for [`Pool::recv`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, PoolError> {
        if self.ended {
            return Ok(None);
        }
        let id = format!("{}/{}", self.id, self.next);
        let chunk = self.pool.recv_bytes(self.peer, id).await?;
        self.next += 1;
        self.ended = chunk.is_empty();
        Ok((!self.ended).then_some(chunk))
    }
}

fn codec_error(peer: &str, id: Option<&MessageId>, source: CodecError) -> PoolError {
    let id = id.map_or_else(|| "without id".to_owned(), ToString::to_string);
    PoolError::Codec { peer: peer.to_owned(), id, source }
}

/// The node was dropped along with the message.
fn stopped(peer: &str) -> SendError {
    SendError::new(peer, None, SendFailure::Closed(Closed::Pool))
}
