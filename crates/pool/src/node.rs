//! One party's transport: its server, its connections, its mailboxes.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::error::Closed;
use crate::handle::{PeerHandle, SendOptions};
use crate::http::Question;
use crate::limits::{GOODBYE, PORT_PAUSE, PORT_WAIT};
use crate::listen::Open;
use crate::message::{MessageId, Wire};
use crate::notice::Level;
use crate::peers::{Peer, PeerConfig};
use crate::shared::{NodeConfig, Shared};
use crate::{listen, watch};

/// A message that had not been acknowledged when a node was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The peer's name.
    pub peer: String,
    /// The message's id.
    pub id: MessageId,
}

/// One party's transport. Cheap to clone; ends with [`Node::close`] or when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Node(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        end(&self.shared);
    }
}

impl Node {
    /// Creates a node whose tasks run on `runtime`. Opens nothing yet.
    pub fn new(config: NodeConfig, runtime: Handle) -> Self {
        let shared = Shared::new(config, runtime);
        shared.spawn(watch::deadlines(Arc::clone(&shared)));
        shared.spawn(watch::peers(Arc::clone(&shared)));
        if let Some(tls) = &shared.tls {
            shared.spawn(watch::certificate(Arc::clone(tls), Arc::downgrade(&shared)));
        }
        Self(Arc::new(Owner { shared }))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Listens on `host` and `port`, 0 for any; returns the port. Peers know this pool by the port
    /// `advertised` if there is a gateway in between.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn listen(&self, host: &str, port: u16, advertised: Option<u16>) -> io::Result<u16> {
        let shared = self.shared();
        let listener = StdListener::bind((host, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let _inside = shared.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        shared.port.store(port, Ordering::Release);
        shared.advertised.store(advertised.unwrap_or(port), Ordering::Release);
        shared.spawn(listen::accept(Open::new(listener, Arc::clone(shared))));
        if shared.tls.is_none() && !shared.plain_noted.swap(true, Ordering::AcqRel) {
            let text = "plain HTTP: messages are neither encrypted nor authenticated; anyone who \
                        can send from a peer's host can pose as that peer; give key, certificate \
                        and authority for mutual TLS";
            shared.notice(Level::Warning, None, text);
        }
        Ok(port)
    }

    /// The port that the node listens on.
    pub fn port(&self) -> Option<u16> {
        Some(self.shared().port.load(Ordering::Acquire)).filter(|port| *port != 0)
    }

    /// SHA-256 of the `SubjectPublicKeyInfo` that this node proves to own, with TLS.
    pub fn key_id(&self) -> Option<[u8; 32]> {
        self.shared().key_id
    }

    /// Adds a peer.
    pub fn add_peer(&self, config: PeerConfig) -> PeerHandle {
        let shared = self.shared();
        let peer = Arc::new(Peer::new(config, shared.mailbox_bytes));
        shared.peers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&peer));
        let handle = PeerHandle::new(Arc::clone(shared), Arc::clone(&peer));
        let notify = Arc::clone(shared);
        shared.spawn(async move {
            peer.resolve(Duration::ZERO).await;
            notify.peers_changed.notify_waiters();
        });
        handle
    }

    /// Shuts the node down: messages on their way get `flush` to be acknowledged, receives end,
    /// peers are told. Returns the messages that were not acknowledged.
    pub async fn close(&self, flush: Duration) -> Vec<Dropped> {
        let shared = self.shared();
        shared.closing.store(true, Ordering::Release);
        let peers = shared.all_peers();
        let settled = async {
            for peer in &peers {
                loop {
                    let settled = peer.outbox.settled.notified();
                    if peer.outbox.len() == 0 {
                        break;
                    }
                    settled.await;
                }
            }
        };
        let _ = timeout(flush, settled).await;
        let mut dropped = Vec::new();
        for peer in &peers {
            for request in peer.outbox.pending() {
                if let Some(id) = request.id() {
                    dropped.push(Dropped { peer: peer.name().to_owned(), id: id.clone() });
                }
            }
            peer.close(Closed::Unacknowledged, Closed::Pool);
        }
        say_goodbye(shared, &peers).await;
        end(shared);
        let mut listening = shared.listening.subscribe();
        let _ = timeout(PORT_WAIT, listening.wait_for(|open| *open == 0)).await;
        dropped
    }

    /// Stops the node at once. Outside a runtime, waits until its port is free again.
    pub fn abort(&self) {
        let shared = self.shared();
        end(shared);
        let began = Instant::now();
        while Handle::try_current().is_err()
            && *shared.listening.borrow() > 0
            && began.elapsed() < PORT_WAIT
        {
            std::thread::sleep(PORT_PAUSE);
        }
    }
}

/// Ends everything: whoever waits is told so.
fn end(shared: &Shared) {
    // First, so that a send that comes too late for the rest knows it.
    shared.stop();
    for peer in shared.all_peers() {
        peer.close(Closed::Unacknowledged, Closed::Pool);
    }
}

async fn say_goodbye(shared: &Arc<Shared>, peers: &[Arc<Peer>]) {
    let mut told = Vec::new();
    for peer in peers {
        let heard =
            peer.wire() == Some(Wire::Two) && peer.conversation().seen.session_id().is_some();
        if heard && !peer.forgotten.load(Ordering::Acquire) {
            let (said, done) = tokio::sync::oneshot::channel();
            let options =
                SendOptions { timeout: Some(GOODBYE), patience: Some(0), ..SendOptions::default() };
            let said = Box::new(move |_| {
                let _ = said.send(());
            });
            let peer = PeerHandle::new(Arc::clone(shared), Arc::clone(peer));
            peer.ask(Question::Bye, options, said);
            told.push(done);
        }
    }
    let all = async {
        for done in told {
            let _ = done.await;
        }
    };
    let _ = timeout(GOODBYE, all).await;
}
