//! What all tasks of a node share: its configuration, its peers, and its shutdown.

use std::future::Future;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use convelo_channel::PeerTls;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use crate::lane::Introduction;
use crate::limits::{
    LOOKUP_PAUSE, MAILBOX_BYTES, MAXIMUM_CONNECTIONS, MAXIMUM_MESSAGE_BYTES, MAXIMUM_STRANGERS,
};
use crate::memory::Ordinary;
use crate::message::Allocate;
use crate::notice::{Level, Notice, Observer};
use crate::peers::{Origin, Peer, PeerIdentity};

/// How to set up a node.
pub struct NodeConfig {
    /// Mutual TLS with this; without it, connections are plain and peers known only by origin.
    pub tls: Option<PeerTls>,
    /// Bytes that each peer may have parked here.
    pub mailbox_bytes: u64,
    /// Bytes of the largest message.
    pub message_bytes: u64,
    /// Where large buffers come from.
    pub memory: Arc<dyn Allocate>,
    /// Receives notices, in addition to `tracing`.
    pub observer: Option<Observer>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            tls: None,
            mailbox_bytes: MAILBOX_BYTES,
            message_bytes: MAXIMUM_MESSAGE_BYTES,
            memory: Arc::new(Ordinary),
            observer: None,
        }
    }
}

pub(crate) struct Shared {
    pub(crate) session_id: u64,
    pub(crate) tls: Option<Arc<PeerTls>>,
    /// SHA-256 of the key that this pool proves to own, with TLS.
    pub(crate) key_id: Option<[u8; 32]>,
    pub(crate) message_limit: u64,
    pub(crate) memory: Arc<dyn Allocate>,
    pub(crate) peers_changed: Notify,
    pub(crate) hasher: BodyHasher,
    pub(crate) mailbox_bytes: u64,
    observer: Option<Observer>,
    pub(crate) runtime: Handle,
    pub(crate) peers: RwLock<Vec<Arc<Peer>>>,
    pub(crate) port: AtomicU16,
    pub(crate) advertised: AtomicU16,
    connections: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) closing: AtomicBool,
    stopped: watch::Sender<bool>,
    pub(crate) strangers: Arc<Semaphore>,
    pub(crate) seats: Arc<Semaphore>,
    pub(crate) plain_noted: AtomicBool,
    pub(crate) deadlines: Notify,
    pub(crate) next_deadline: AtomicU64,
    pub(crate) started: Instant,
    /// The number of open ports.
    pub(crate) listening: watch::Sender<usize>,
}

impl Shared {
    /// The shared state of a node's tasks. Opens nothing yet.
    pub(crate) fn new(config: NodeConfig, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            session_id: random(),
            key_id: config.tls.as_ref().map(|tls| tls.credential().key_id()),
            tls: config.tls.map(Arc::new),
            message_limit: config.message_bytes,
            memory: config.memory,
            peers_changed: Notify::new(),
            hasher: BodyHasher::default(),
            mailbox_bytes: config.mailbox_bytes,
            observer: config.observer,
            runtime,
            peers: RwLock::default(),
            port: AtomicU16::new(0),
            advertised: AtomicU16::new(0),
            connections: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            strangers: Arc::new(Semaphore::new(MAXIMUM_STRANGERS)),
            seats: Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS)),
            plain_noted: AtomicBool::new(false),
            deadlines: Notify::new(),
            next_deadline: AtomicU64::new(u64::MAX),
            started: Instant::now(),
            listening: watch::Sender::new(0),
        })
    }

    /// Runs a task that is dropped when the node stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopped = self.stopped.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        });
    }

    pub(crate) fn stop(&self) {
        self.closing.store(true, Ordering::Release);
        self.stopped.send_replace(true);
    }

    pub(crate) fn connection_number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// What every request says about this pool.
    pub(crate) fn introduction(&self) -> Introduction {
        Introduction {
            session_id: self.session_id,
            port: self.advertised.load(Ordering::Acquire),
            key: self.key_id,
        }
    }

    pub(crate) fn notice(&self, level: Level, peer: Option<&str>, text: &str) {
        match level {
            Level::Debug => tracing::debug!(peer, "{text}"),
            Level::Info => tracing::info!(peer, "{text}"),
            Level::Warning => tracing::warn!(peer, "{text}"),
        }
        if let Some(observer) = &self.observer {
            observer(Notice { level, peer: peer.map(str::to_owned), text: text.to_owned() });
        }
    }

    pub(crate) fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peer that a request comes from; `None` unless exactly one matches.
    pub(crate) async fn identify(&self, origin: &Origin) -> Option<Arc<Peer>> {
        let find = |peers: &[Arc<Peer>]| {
            let mut found = peers.iter().filter(|peer| peer.is_sender(origin));
            let first = found.next().cloned();
            first.filter(|_| found.next().is_none())
        };
        let peers = self.all_peers();
        if let Some(peer) = find(&peers) {
            return Some(peer);
        }
        for peer in &peers {
            if origin.server_port == Some(peer.config.port)
                && !matches!(peer.config.identity, PeerIdentity::Proven(_))
            {
                peer.resolve(LOOKUP_PAUSE).await;
            }
        }
        find(&peers)
    }

    pub(crate) fn expect_deadline(&self, deadline: Instant) {
        let at = u64::try_from(deadline.duration_since(self.started).as_millis())
            .unwrap_or(u64::MAX - 1);
        if self.next_deadline.fetch_min(at, Ordering::AcqRel) > at {
            self.deadlines.notify_one();
        }
    }
}

/// A keyed hash of bodies: a peer cannot construct collisions.
#[derive(Default)]
pub(crate) struct BodyHasher(std::hash::RandomState);

impl BodyHasher {
    pub(crate) fn hash(&self, body: &[u8]) -> u64 {
        self.0.hash_one(body)
    }
}

/// A random time between half of a pause and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let part = u32::try_from(random() % 1024).unwrap_or(0);
    pause / 2 + pause / 2 * part / 1024
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    u64::from_le_bytes(bytes)
}
