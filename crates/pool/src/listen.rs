//! The open port: accepts connections, and proves who they come from before anything is read.

use std::net::SocketAddr;
use std::sync::Arc;

use convelo_channel::PeerTlsError;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::notice::Level;
use crate::server::Connection;
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
        let Ok(seat) = Arc::clone(&shared.seats).acquire_owned().await else { return };
        let Ok(stranger) = Arc::clone(&shared.strangers).acquire_owned().await else { return };
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.notice(Level::Warning, None, &format!("accept failed: {error}"));
                sleep(convelo_channel::limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Numbered in order of arrival, however long their handshakes take: that order says which
        // session is newer.
        let (node, number) = (Arc::clone(shared), shared.connection_number());
        shared.spawn(async move {
            let _seat = seat;
            if let Some((stream, proven)) = handshake(&node, tcp, address).await {
                Connection::new(node, number, stream, address, proven, stranger).serve().await;
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
            shared.notice(level, None, &format!("refused a connection from {address}: {error}"));
            None
        }
    }
}
