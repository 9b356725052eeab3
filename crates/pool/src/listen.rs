//! The open port: accepts connections, and proves who they come from before anything is read.

use std::net::SocketAddr;
use std::sync::Arc;

use convelo_channel::PeerTlsError;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::limits::INTRODUCTION_TIMEOUT;
use crate::notice::Level;
use crate::server::{Connection, Stranger};
use crate::shared::Shared;
use crate::stream::Carried;

/// An open port.
pub(crate) struct Open {
    listener: TcpListener,
    // After the listener, which is dropped first.
    told: Closing,
}

impl Open {
    pub(crate) fn new(listener: TcpListener, shared: Arc<Shared>) -> Self {
        shared.listening.send_modify(|open| *open += 1);
        Self { listener, told: Closing(shared) }
    }
}

/// Reports, when dropped, that a port was closed.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.listening.send_modify(|open| *open -= 1);
    }
}

/// Accepts connections for as long as the node exists.
pub(crate) async fn accept(open: Open) {
    let (listener, shared) = (&open.listener, &open.told.0);
    loop {
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely too many files are open: a stranger's place has one.
                shared.strangers.make_room();
                shared.report(Level::Warning, &format!("accept failed: {error}"));
                sleep(convelo_channel::limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Numbered in order of arrival, however long their handshakes take: that order says which
        // session is newer.
        let (node, number) = (Arc::clone(shared), shared.connection_number());
        let of_peer = shared.is_host_of_peer(address.ip());
        let (place, dismissed) = shared.strangers.arrive(address.ip(), of_peer);
        let introduced_by = Instant::now() + INTRODUCTION_TIMEOUT;
        let serving = async move {
            let shaken = timeout_at(introduced_by, handshake(&node, tcp, address)).await;
            if let Ok(Some((stream, proven))) = shaken {
                let stranger = Stranger { introduced_by, _place: place };
                Connection::new(node, number, stream, address, proven, stranger).serve().await;
            }
        };
        shared.spawn(async move {
            tokio::select! {
                biased;
                () = serving => {}
                () = dismissed => {}
            }
        });
    }
}

async fn handshake(
    shared: &Shared,
    tcp: TcpStream,
    address: SocketAddr,
) -> Option<(Carried, Option<convelo_channel::ProvenPeer>)> {
    let _ = tcp.set_nodelay(true);
    let Some(tls) = &shared.tls else { return Some((Box::new(tcp), None)) };
    match tls.accept(tcp).await {
        Ok((stream, proven)) => Some((Box::new(stream), Some(proven))),
        Err(error) => {
            let level = match &error {
                PeerTlsError::Handshake(_) | PeerTlsError::TimedOut => Level::Debug,
                _ => Level::Warning,
            };
            let address = address.ip();
            shared.report(level, &format!("refused a connection from {address}: {error}"));
            None
        }
    }
}
