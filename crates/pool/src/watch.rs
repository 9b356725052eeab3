//! Background duties: deadlines, peers that are waited for, certificates.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convelo_channel::PeerTls;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::error::ReceiveFailure;
use crate::limits::{CONNECT_TIMEOUT, PROBE_INTERVAL, PROBES_UNTIL_LOST};
use crate::notice::Level;
use crate::shared::Shared;

/// Ends the requests whose deadline has passed, for as long as the node exists.
pub(crate) async fn deadlines(shared: Arc<Shared>) {
    loop {
        let earlier = shared.deadlines.notified();
        let at = shared.next_deadline.load(Ordering::Acquire);
        if at == u64::MAX {
            earlier.await;
            continue;
        }
        let at = shared.started + Duration::from_millis(at + 1);
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => expire(&shared),
            () = earlier => {}
        }
    }
}

/// Probes peers that are waited for and have no connection here.
pub(crate) async fn peers(shared: Arc<Shared>) {
    loop {
        sleep(PROBE_INTERVAL).await;
        for peer in shared.all_peers() {
            peer.conversation().expire(Instant::now());
            let awaited = peer.conversation().mailbox.waiting() > 0;
            let silent = peer.inbound.load(Ordering::Acquire) == 0;
            if !awaited || !silent || !peer.seen_once.load(Ordering::Acquire) {
                peer.conversation().probes = 0;
                continue;
            }
            let address = (peer.config.host.as_str(), peer.config.port);
            let there = timeout(CONNECT_TIMEOUT.min(PROBE_INTERVAL), TcpStream::connect(address));
            let there = there.await.is_ok_and(|connected| connected.is_ok());
            let mut state = peer.conversation();
            state.probes = if there { 0 } else { state.probes + 1 };
            let lost = state.probes >= PROBES_UNTIL_LOST;
            drop(state);
            if lost {
                let lost = ReceiveFailure::Silent;
                shared.notice(Level::Warning, Some(peer.name()), &lost.to_string());
                peer.end_waiting(lost);
            }
        }
    }
}

/// Renews a certificate that carries evidence.
pub(crate) async fn certificate(tls: Arc<PeerTls>, shared: Weak<Shared>) {
    let renewing = tls.keep_fresh(|error| {
        if let Some(shared) = shared.upgrade() {
            let text = format!("the certificate could not be renewed: {error}");
            shared.notice(Level::Warning, None, &text);
        }
    });
    match renewing.await {}
}

fn expire(shared: &Shared) {
    let now = Instant::now();
    shared.next_deadline.store(u64::MAX, Ordering::Release);
    for peer in shared.all_peers() {
        if let Some(deadline) = peer.expire(now) {
            shared.expect_deadline(deadline);
        }
    }
}
