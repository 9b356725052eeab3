//! One party's stream, from its Challenge to its end.

use std::sync::Arc;

use convelo_channel::{Acquaintance, Peer, Seated, stranger_line};
use convelo_psi::KeyId;
use convelo_wire::{Challenge, Failed, FromParty, Proof, Reason, ToParty, WireError, proto};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tonic::Streaming;

use crate::attester::{Attester, Queue, Session};
use crate::job::Event;
use crate::limits::{CHALLENGE_INTERVAL, HELLO_TIMEOUT, SESSION_CAP};
use crate::registry::{Entered, Registry, Seat};
use crate::shared::Shared;

/// What every stream needs from its service.
pub(crate) struct Entrance {
    pub(crate) registry: Arc<Registry>,
    pub(crate) shared: Shared,
    pub(crate) attester: Attester,
    /// Whether a party may arrive without a Challenge.
    pub(crate) insecure_ratls_only: bool,
}

impl Entrance {
    /// Who a key belongs to: a party that has a seat is no stranger.
    pub(crate) fn knows(&self, key: &[u8; 32]) -> Acquaintance {
        match self.shared.acquaintance(key) {
            Some(Acquaintance::Admitted) => Acquaintance::Admitted,
            Some(_) if self.registry.has_seated(key) => Acquaintance::Seated,
            _ => Acquaintance::Stranger,
        }
    }

    /// A seat is for those whom the operator admits. What the service is, it proves to everybody: a party
    /// that does not know it yet looks under a key that is on nobody's list.
    fn admit(&self, key: KeyId) -> Result<(), Failed> {
        if self.shared.acquaintance(&key.0).is_none() {
            let text = format!(
                "this service's operator has not admitted the key {key}; have it added to the \
                 service's list, or use the key that is on it"
            );
            return Err(Failed::new(Reason::Stranger, text));
        }
        Ok(())
    }
}

/// Handles one stream from its Challenge to its end.
pub(crate) async fn serve(
    entrance: Arc<Entrance>,
    peer: Peer,
    mut incoming: Streaming<proto::FromParty>,
    outgoing: mpsc::Sender<ToParty>,
) {
    let opened = open(&entrance, &peer, &mut incoming, &outgoing).await;
    let (mut entered, _seated, session) = match opened {
        Ok(opened) => opened,
        Err(Unopened::Looked) => {
            if let Some(left_out) = stranger_line() {
                let address = peer.address;
                tracing::info!(%address, left_out, "somebody looked at the evidence and left");
            }
            return;
        }
        Err(Unopened::Refused(failed)) => {
            if let Some(left_out) = stranger_line() {
                let (address, reason) = (peer.address, failed.reason);
                let key = KeyId::of_spki(&peer.spki);
                tracing::info!(%address, %key, %reason, left_out, "a party was refused");
            }
            let _ = outgoing.send(ToParty::Failed(failed)).await;
            return;
        }
    };
    // From here on, only the job keeps the way back open: when it lets go, the stream ends.
    let way_back = outgoing.downgrade();
    drop(outgoing);
    let mut renewal = Renewal { session, pending: None };
    loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = entered.seat.closed() => return,
            () = renewal.stale() => {
                let text = "the connection was last attested more than an hour ago";
                expel(&entered.seat, Failed::new(Reason::NotAttested, text)).await;
                return;
            }
        };
        let Ok(Some(message)) = message else {
            entered.seat.send(Event::Left).await;
            return;
        };
        let attested = match message.try_into() {
            Ok(FromParty::Challenge(challenge)) => {
                match renewal.challenged(&entrance, &peer, &entered, challenge).await {
                    Ok(proof) => {
                        if let Some(outgoing) = way_back.upgrade() {
                            let _ = outgoing.send(ToParty::Proof(proof)).await;
                        }
                        Ok(())
                    }
                    Err(failed) => Err(failed),
                }
            }
            Ok(FromParty::Evidence(quote)) => {
                renewal.proved(&entrance, &peer, &entered, &quote).await
            }
            other => {
                if !entered.seat.send(|connection| Event::Message(connection, other)).await {
                    return;
                }
                Ok(())
            }
        };
        if let Err(failed) = attested {
            expel(&entered.seat, failed).await;
            return;
        }
    }
}

/// Has the job end a seated party's stream; all its parties hear why.
async fn expel(seat: &Seat, failed: Failed) {
    if let Some(left_out) = stranger_line() {
        tracing::info!(reason = %failed.reason, left_out, "a seated party was refused");
    }
    seat.send(|connection| Event::Expelled(connection, failed)).await;
}

/// The attestation of a stream that continues.
struct Renewal {
    /// None in compatible mode.
    session: Option<Session>,
    /// A session that waits for the party's own quote.
    pending: Option<Session>,
}

impl Renewal {
    /// Returns when the last attestation is too old.
    async fn stale(&self) {
        match &self.session {
            Some(session) => sleep_until(session.since + SESSION_CAP).await,
            None => std::future::pending().await,
        }
    }

    async fn challenged(
        &mut self,
        entrance: &Entrance,
        peer: &Peer,
        entered: &Entered,
        challenge: Challenge,
    ) -> Result<Proof, Failed> {
        let Some(last) = &self.session else {
            return Err(protocol("a Challenge arrived on a stream that began without one"));
        };
        if last.since.elapsed() < CHALLENGE_INTERVAL || self.pending.is_some() {
            return Err(protocol("a Challenge arrived too soon after the last"));
        }
        if challenge.job.0 != last.exchange.job {
            return Err(protocol("a Challenge for another job arrived"));
        }
        let (exchange, proof) = entrance.attester.answer(Queue::Seated, peer, challenge).await?;
        if entered.policies.are_none() {
            self.session = Some(Session::new(exchange));
        } else {
            self.pending = Some(Session::new(exchange));
        }
        Ok(proof)
    }

    async fn proved(
        &mut self,
        entrance: &Entrance,
        peer: &Peer,
        entered: &Entered,
        quote: &[u8],
    ) -> Result<(), Failed> {
        let Some(mut session) = self.pending.take() else {
            // Evidence that no policy asks for is bound and checked for form, once per challenge.
            return match &mut self.session {
                Some(session) if entered.policies.are_none() => session.take(peer, quote),
                _ => Err(protocol("a quote arrived without a challenge")),
            };
        };
        session.take(peer, quote)?;
        entrance
            .shared
            .verifier
            .judge(
                Queue::Seated,
                peer.address.ip(),
                &entered.name,
                session.evidence().map(|evidence| entered.claim(evidence)),
                &entered.policies,
            )
            .await?;
        self.session = Some(session);
        Ok(())
    }
}

/// Why a stream does not lead to a seat.
enum Unopened {
    /// Whoever it was had the service prove what it is, and left: as a party without collateral does
    /// before it shows itself, on another connection.
    Looked,
    Refused(Failed),
}

impl From<Failed> for Unopened {
    fn from(failed: Failed) -> Self {
        Self::Refused(failed)
    }
}

/// From Challenge to a seat. Reveals nothing about any job before that.
async fn open(
    entrance: &Entrance,
    peer: &Peer,
    incoming: &mut Streaming<proto::FromParty>,
    outgoing: &mpsc::Sender<ToParty>,
) -> Result<(Entered, Seated, Option<Session>), Unopened> {
    let key = KeyId::of_spki(&peer.spki);
    let acquaintance = entrance.knows(&key.0);
    let queue = Queue::of(acquaintance);
    let mut session: Option<Session> = None;
    loop {
        let message = match (next(incoming).await?, &session) {
            (Some(message), _) => message,
            (None, Some(_)) => return Err(Unopened::Looked),
            (None, None) => {
                return Err(protocol("the stream ended before its first message").into());
            }
        };
        match (message, &mut session) {
            (FromParty::Challenge(challenge), None) => {
                let (exchange, proof) = entrance.attester.answer(queue, peer, challenge).await?;
                session = Some(Session::new(exchange));
                let _ = outgoing.send(ToParty::Proof(proof)).await;
            }
            (FromParty::Evidence(quote), Some(session)) => session.take(peer, &quote)?,
            (FromParty::Hello(hello), session) => {
                entrance.admit(key)?;
                if session.is_none() && !entrance.insecure_ratls_only {
                    let text = "a Hello arrived before a Challenge: this service attests every \
                                connection afresh; run the same version of the program";
                    return Err(Failed::new(Reason::NotAttested, text).into());
                }
                let session = session.take();
                let kept = peer.place.keep().ok_or_else(|| {
                    let text = "too many parties are connected from this address, or with this key; \
                                try later, or have the service's operator admit the key";
                    Failed::new(Reason::NoRoom, text)
                })?;
                let entered = entrance
                    .registry
                    .enter(peer, acquaintance, hello, session.as_ref(), outgoing.clone())
                    .await?;
                return Ok((entered, kept.seat(), session));
            }
            _ => {
                let text = "another message arrived, expected a Challenge and then a Hello";
                return Err(protocol(text).into());
            }
        }
    }
}

/// The next message; none if the stream is over, in whichever way.
async fn next(incoming: &mut Streaming<proto::FromParty>) -> Result<Option<FromParty>, Failed> {
    let message = timeout(HELLO_TIMEOUT, incoming.message())
        .await
        .map_err(|_| protocol("no Hello arrived in time"))?;
    let Ok(Some(message)) = message else { return Ok(None) };
    message.try_into().map(Some).map_err(|error: WireError| match error {
        WireError::Version { .. } => Failed::new(Reason::Version, error.to_string()),
        _ => protocol(&error.to_string()),
    })
}

fn protocol(text: &str) -> Failed {
    Failed::new(Reason::Protocol, text)
}

#[cfg(test)]
mod tests {
    use convelo_channel::Exchange;
    use tokio::time::Instant;

    use super::*;

    fn session() -> Session {
        Session::new(Exchange { party_nonce: [1; 32], service_nonce: [2; 32], job: [3; 32] })
    }

    #[tokio::test(start_paused = true)]
    async fn session_older_than_the_cap() {
        let began = Instant::now();
        let renewal = Renewal { session: Some(session()), pending: None };
        renewal.stale().await;
        assert_eq!(began.elapsed(), SESSION_CAP);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pending_quote_does_not_prolong_a_session() {
        let mut renewal = Renewal { session: Some(session()), pending: None };
        tokio::time::advance(SESSION_CAP / 2).await;
        renewal.pending = Some(session());
        let waited = Instant::now();
        renewal.stale().await;
        assert_eq!(waited.elapsed(), SESSION_CAP / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_session_nothing_grows_stale() {
        let renewal = Renewal { session: None, pending: None };
        assert!(timeout(SESSION_CAP * 100, renewal.stale()).await.is_err());
    }
}
