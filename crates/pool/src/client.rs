//! Outgoing connections: dialled, read and written as a [`Lane`] says.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use convelo_channel::{Expect, PeerTlsError};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::conversation::Source;
use crate::error::ConnectionError;
use crate::lane::{self, Ended, Lane, LaneKind};
use crate::limits::{
    BULK_CONNECTIONS, COMPATIBLE_CONNECTIONS, CONNECT_TIMEOUT, EXTRA_IDLE, STALL_TIMEOUT,
};
use crate::message::Wire;
use crate::outbox::Request;
use crate::peers::{Peer, PeerIdentity};
use crate::shared::{Shared, jittered};
use crate::stream::{self, Carried, Moved};

/// Makes sure that somebody carries what is in the outbox.
pub(crate) fn provide(shared: &Arc<Shared>, peer: &Arc<Peer>, bulk: bool) {
    let outbox = &peer.outbox;
    if !outbox.primary.swap(true, Ordering::AcqRel) {
        shared.spawn(run(Arc::clone(shared), Arc::clone(peer), LaneKind::Primary));
    }
    let most = match peer.wire() {
        Some(Wire::Two) if bulk => BULK_CONNECTIONS,
        Some(Wire::Two) | None => return,
        Some(_) => COMPATIBLE_CONNECTIONS,
    };
    if outbox.idle_lanes.load(Ordering::Acquire) > 0 {
        return;
    }
    let more = outbox.extra_lanes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |lanes| {
        (lanes < most).then_some(lanes + 1)
    });
    if more.is_ok() {
        shared.spawn(run(Arc::clone(shared), Arc::clone(peer), LaneKind::Extra));
    }
}

async fn run(shared: Arc<Shared>, peer: Arc<Peer>, kind: LaneKind) {
    let mut carrier = Carrier { shared, peer, lane: Lane::new(kind) };
    carrier.run().await;
    if kind == LaneKind::Extra {
        carrier.peer.outbox.extra_lanes.fetch_sub(1, Ordering::AcqRel);
        // Work may have arrived between the last look and the end.
        if carrier.peer.outbox.has_bulk() {
            provide(&carrier.shared, &carrier.peer, true);
        }
    }
}

/// Keeps a lane connected.
struct Carrier {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    lane: Lane,
}

impl Carrier {
    async fn run(&mut self) {
        while let Some(request) = next(&self.peer, self.lane.kind).await {
            let (ended, held) = match self.connect().await {
                Ok(mut stream) => {
                    lane::give_back(&self.peer, vec![request]);
                    (self.carry(&mut stream).await, None)
                }
                Err(ended) => (ended, Some(request)),
            };
            let now = Instant::now().into_std();
            let aftermath = self.lane.ended(&self.peer, &ended, held, now);
            if let Some((level, text)) = aftermath.notice {
                self.shared.notice(level, Some(self.peer.name()), &text);
            }
            if let Some((pause, left)) = aftermath.pause {
                sleep(jittered(pause)).await;
                lane::give_back(&self.peer, left);
            }
            if matches!(ended, Ended::Idle) {
                return;
            }
        }
    }

    async fn connect(&mut self) -> Result<Carried, Ended> {
        let config = &self.peer.config;
        let address = self.peer.authority().to_owned();
        self.lane.source = Source { connection: self.shared.connection_number(), party: 0 };
        let connect = TcpStream::connect((config.host.as_str(), config.port));
        let tcp = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                let source = Arc::new(error);
                return Err(Ended::Broken(ConnectionError::Unreachable { address, source }));
            }
            Err(_) => return Err(Ended::Broken(ConnectionError::NoAnswer { address })),
        };
        // Otherwise a small request behind another one waits for delayed acknowledgements (40 ms).
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.shared.tls else { return Ok(Box::new(tcp)) };
        let expect = match &config.identity {
            PeerIdentity::Proven(expect) => Expect::clone(expect),
            _ => Expect::Chained,
        };
        match tls.connect(tcp, &expect).await {
            Ok((stream, proven)) => {
                if matches!(config.identity, PeerIdentity::FirstKey) {
                    self.lane.source.party =
                        self.shared.claim(&self.peer, &proven).map_err(|held| {
                            let proven = proven.describe();
                            Ended::Refused(ConnectionError::AnotherKey { address, proven, held })
                        })?;
                }
                Ok(Box::new(stream))
            }
            Err(PeerTlsError::Handshake(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let source = Arc::new(error);
                Err(Ended::Refused(ConnectionError::NoTls { address, source }))
            }
            Err(error) => {
                let last =
                    matches!(error, PeerTlsError::Refused(_) | PeerTlsError::RefusedByPeer(_));
                let source = Arc::new(error);
                let error = ConnectionError::Handshake { address, source };
                Err(if last { Ended::Refused(error) } else { Ended::Broken(error) })
            }
        }
    }

    async fn carry(&mut self, stream: &mut Carried) -> Ended {
        let peer = Arc::clone(&self.peer);
        let stall = sleep(STALL_TIMEOUT);
        tokio::pin!(stall);
        let mut moved = Instant::now();
        let mut party = peer.party.subscribe();
        loop {
            if *party.borrow_and_update() != self.lane.source.party {
                return Ended::Done;
            }
            // Registered before looking at the queue, so that nothing arriving in between is
            // missed.
            let mut ready = std::pin::pin!(peer.outbox.small_ready.notified());
            let pipelined = self.lane.is_pipelined(&peer);
            if pipelined {
                ready.as_mut().enable();
            }
            let ours = self.shared.introduction();
            self.lane.fill(&peer, &ours);
            let idle = self.lane.is_idle();
            if idle && self.lane.out.is_empty() && !pipelined {
                match self.idle(stream, &mut party).await {
                    Ok(request) => self.lane.start(&peer, &ours, request),
                    Err(ended) => return ended,
                }
                continue;
            }
            let room = self.lane.has_room(&peer);
            let lane = &mut self.lane;
            tokio::select! {
                biased;
                result = stream::exchange(stream, &mut lane.out, &mut lane.arrived) => {
                    moved = Instant::now();
                    match result {
                        Ok(Moved::Wrote) => lane.wrote(),
                        Ok(Moved::Read(0)) => return lane.closed(),
                        Ok(Moved::Read(_)) if party.has_changed().is_ok_and(|changed| !changed) => {
                            if let Err(ended) = lane.read(&peer, &ours) {
                                return ended;
                            }
                        }
                        // It comes from a party that has lost the peer's name to another one.
                        Ok(Moved::Read(_)) => return Ended::Done,
                        Err(error) => return lane::broken(error),
                    }
                }
                _ = party.changed() => {}
                () = &mut ready, if pipelined && room => {}
                () = &mut stall => {
                    if moved.elapsed() >= STALL_TIMEOUT && !idle {
                        return Ended::Broken(ConnectionError::Stalled);
                    }
                    let from = if idle { Instant::now() } else { moved };
                    stall.as_mut().reset(from + STALL_TIMEOUT);
                }
            }
        }
    }

    /// Waits for work on a connection that carries one request at a time.
    async fn idle(
        &mut self,
        stream: &mut Carried,
        party: &mut watch::Receiver<u64>,
    ) -> Result<Arc<Request>, Ended> {
        tokio::select! {
            biased;
            _ = party.changed() => Err(Ended::Done),
            request = next(&self.peer, self.lane.kind) => request.ok_or(Ended::Idle),
            read = stream::read(stream, &mut self.lane.arrived) => Err(match read {
                Ok(0) => Ended::Done,
                Ok(_) => Ended::Broken(ConnectionError::Unasked),
                // The peer may refuse our certificate before the first request.
                Err(error) => lane::broken(error),
            }),
        }
    }
}

/// Waits for a request; `None` if this lane should end, which the primary one never does.
async fn next(peer: &Peer, kind: LaneKind) -> Option<Arc<Request>> {
    let outbox = &peer.outbox;
    loop {
        let (small, bulk) = (outbox.small_ready.notified(), outbox.bulk_ready.notified());
        if let Some(request) = kind.take(peer) {
            return Some(request);
        }
        let compatible = peer.wire() != Some(Wire::Two);
        match kind {
            LaneKind::Primary => tokio::select! {
                () = small => {}
                () = bulk, if compatible => {}
            },
            LaneKind::Extra => {
                outbox.idle_lanes.fetch_add(1, Ordering::AcqRel);
                let ended = tokio::select! {
                    () = bulk => false,
                    () = small, if compatible => false,
                    () = sleep(EXTRA_IDLE) => true,
                };
                outbox.idle_lanes.fetch_sub(1, Ordering::AcqRel);
                // No other lane takes care of bulk queued behind another message with its id.
                if ended && !outbox.has_bulk() {
                    return None;
                }
            }
        }
    }
}
