//! What all tasks of a node share: its configuration, its peers, and its shutdown.

use std::future::Future;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use convelo_channel::{LogLimit, PeerTls, ProvenPeer};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::binding::{Bindings, Claim, Decision};
use crate::lane::Introduction;
use crate::limits::{LOOKUP_PAUSE, MAILBOX_BYTES, REPORT_PAUSE, REPORTS_AT_ONCE};
use crate::memory::Ordinary;
use crate::message::Allocate;
use crate::notice::{Level, Notice, Observer};
use crate::peers::{Origin, Peer, PeerIdentity};
use crate::strangers::Strangers;

/// How to set up a node.
pub struct NodeConfig {
    /// Mutual TLS with this; without it, connections are plain and peers known only by origin.
    pub tls: Option<PeerTls>,
    /// Bytes that each peer may have parked here.
    pub mailbox_bytes: u64,
    /// Bytes of the largest message; by default as many as may be parked.
    pub message_bytes: Option<u64>,
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
            message_bytes: None,
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
    bindings: Mutex<Bindings>,
    pub(crate) port: AtomicU16,
    pub(crate) advertised: AtomicU16,
    connections: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) closing: AtomicBool,
    stopped: watch::Sender<bool>,
    pub(crate) strangers: Arc<Strangers>,
    warnings: LogLimit,
    remarks: LogLimit,
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
            message_limit: config.message_bytes.unwrap_or(config.mailbox_bytes),
            memory: config.memory,
            peers_changed: Notify::new(),
            hasher: BodyHasher::default(),
            mailbox_bytes: config.mailbox_bytes,
            observer: config.observer,
            runtime,
            peers: RwLock::default(),
            bindings: Mutex::default(),
            port: AtomicU16::new(0),
            advertised: AtomicU16::new(0),
            connections: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
            strangers: Arc::default(),
            warnings: LogLimit::new(REPORTS_AT_ONCE, REPORT_PAUSE),
            remarks: LogLimit::new(REPORTS_AT_ONCE, REPORT_PAUSE),
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

    /// Whether nothing is carried any more.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
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

    /// A notice about strangers, which they cannot have written as often as they like.
    pub(crate) fn report(&self, level: Level, text: &str) {
        let limit = if level == Level::Warning { &self.warnings } else { &self.remarks };
        if let Some(left_out) = limit.line(Instant::now()) {
            self.notice(level, None, &with_left_out(text, left_out));
        }
    }

    /// Whether a peer is at this address.
    pub(crate) fn is_host_of_peer(&self, address: IpAddr) -> bool {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().any(|peer| !peer.is_forgotten() && peer.has_address(address))
    }

    pub(crate) fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same about strangers that claim to be one peer.
    pub(crate) fn report_about(&self, peer: &Peer, level: Level, text: &str) {
        if let Some(left_out) = peer.reports.line(Instant::now()) {
            self.notice(level, Some(peer.name()), &with_left_out(text, left_out));
        }
    }

    /// The peer that a request comes from, and which of the parties that have had its name.
    pub(crate) async fn identify(&self, origin: &Origin) -> Result<(Arc<Peer>, u64), Unidentified> {
        let peers = self.present_peers();
        if let Ok(found) = self.find(&peers, origin) {
            return Ok(found);
        }
        for peer in &peers {
            if origin.server_port == Some(peer.config.port)
                && !matches!(peer.config.identity, PeerIdentity::Proven(_))
            {
                peer.resolve(LOOKUP_PAUSE).await;
            }
        }
        self.find(&peers, origin)
    }

    /// A registered key comes first: its owner cannot take the name of a peer without one.
    fn find(&self, peers: &[Arc<Peer>], origin: &Origin) -> Result<(Arc<Peer>, u64), Unidentified> {
        if let Some(peer) = only(peers, |peer| peer.is_sender(origin))? {
            return Ok((Arc::clone(peer), 0));
        }
        let (Some(proven), Some(peer)) =
            (&origin.proven, only(peers, |peer| peer.is_unregistered_origin(origin))?)
        else {
            return Err(Unidentified::Nobody);
        };
        match peer.config.identity {
            PeerIdentity::FirstKey => match self.claim(peer, proven) {
                Ok(party) => Ok((Arc::clone(peer), party)),
                Err(held) => Err(Unidentified::AnotherKey { peer: Arc::clone(peer), held }),
            },
            PeerIdentity::SendOnly => Err(Unidentified::SendOnly(Arc::clone(peer))),
            PeerIdentity::InsecureOrigin | PeerIdentity::Proven(_) => Err(Unidentified::Nobody),
        }
    }

    /// Whether a peer without a registered key is the party that proved this: which of those that
    /// have had its name, or the key that holds it.
    pub(crate) fn claim(&self, peer: &Peer, proven: &ProvenPeer) -> Result<u64, [u8; 32]> {
        let key = proven.key_id();
        let claim = Claim { key, names_host: proven.names_host(&peer.config.host) };
        let peers = self.present_peers();
        let registered =
            |key: &[u8; 32]| peers.iter().any(|peer| peer.registered_key().as_ref() == Some(key));
        let mut bindings = self.bindings();
        if peer.is_forgotten() {
            return Err(key);
        }
        let decision = bindings.claim(peer.name(), claim, registered);
        let (party, displaced) = match decision {
            Decision::Refused(held) => return Err(held),
            Decision::First | Decision::Same => (peer.conversation().party(), None),
            Decision::Displaces(_) => {
                let (party, displaced) = peer.displace();
                (party, Some(displaced))
            }
        };
        drop(bindings);
        if let Some(displaced) = displaced {
            peer.tell(displaced);
        }
        let who = proven.describe();
        match decision {
            Decision::First => {
                let text = format!(
                    "nobody has said who it is; from now on it is the first party at its address \
                     that the authority certifies: {who}"
                );
                self.notice(Level::Info, Some(peer.name()), &text);
            }
            Decision::Displaces(held) => {
                let text = format!(
                    "another party proves better that it is the peer: {who}; what was exchanged \
                     so far was with the key sha256:{}. Register the peer's certificate or key",
                    hex::encode(held)
                );
                self.notice(Level::Warning, Some(peer.name()), &text);
            }
            Decision::Same | Decision::Refused(_) => {}
        }
        Ok(party)
    }

    /// A peer's name belongs to nobody.
    pub(crate) fn release(&self, peer: &Peer) {
        self.bindings().release(peer.name());
    }

    fn bindings(&self) -> MutexGuard<'_, Bindings> {
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn present_peers(&self) -> Vec<Arc<Peer>> {
        let mut peers = self.all_peers();
        peers.retain(|peer| !peer.is_forgotten());
        peers
    }

    pub(crate) fn expect_deadline(&self, deadline: Instant) {
        let at = u64::try_from(deadline.duration_since(self.started).as_millis())
            .unwrap_or(u64::MAX - 1);
        if self.next_deadline.fetch_min(at, Ordering::AcqRel) > at {
            self.deadlines.notify_one();
        }
    }
}

/// Why a request comes from no peer.
pub(crate) enum Unidentified {
    /// Nobody here, or more than one, matches.
    Nobody,
    /// The peer at its address has this other key.
    AnotherKey { peer: Arc<Peer>, held: [u8; 32] },
    /// Nobody has said how the peer at its address is recognised.
    SendOnly(Arc<Peer>),
    /// The peer has too many connections here.
    Crowded,
}

/// A line about strangers, which says how many others were not written.
fn with_left_out(text: &str, left_out: u64) -> String {
    match left_out {
        0 => text.to_owned(),
        _ => format!("{text} (lines like this that were left out since: {left_out})"),
    }
}

/// The only peer of which this holds; an error if there are several.
fn only(
    peers: &[Arc<Peer>],
    holds: impl Fn(&Peer) -> bool,
) -> Result<Option<&Arc<Peer>>, Unidentified> {
    let mut found = peers.iter().filter(|peer| holds(peer));
    let first = found.next();
    if found.next().is_some() { Err(Unidentified::Nobody) } else { Ok(first) }
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
