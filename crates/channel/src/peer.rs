//! Mutual TLS between the parties of a pool: peers that are known by key, by certificate, by their
//! authority, or by evidence.
//!
//! [`PeerTls`] runs the handshakes of both sides and yields a [`ProvenPeer`]: what the other side
//! proved. Whether that is who it should be, a [`PeerExpect`] says. The side that connects says so
//! in the handshake; the side that accepts does not know yet who comes, and asks afterwards.
//!
//! Peers are what Python's `ssl` speaks to as well: certificates of any authority, RSA, ECDSA or
//! Ed25519, host names never compared. TLS 1.3 only, no resumption, no SNI.

mod credential;
mod handshake;
mod proven;
mod roots;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use convelo_attest::Refusal;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use self::handshake::Handshake;
use crate::limits::{HANDSHAKE_TIMEOUT, MAXIMUM_REFUSAL_LINGER_BYTES, REFUSAL_LINGER};
use crate::tls::{ALPN, client_side, server_side};

pub use self::credential::{PeerCredential, PeerCredentialError};
pub use self::proven::{PeerExpect, ProvenPeer};
pub use self::roots::Roots;

/// Both ends of mutual TLS 1.3 under one credential.
///
/// Either side accepts a certificate in the handshake that chains to the [`Roots`], or that its
/// holder signed itself: the latter is worth its key and its evidence, nothing else. Any other one
/// (of an unknown authority, or past its end) ends the handshake, so that its holder learns why
/// from the alert. Without `Roots`, every certificate is worth its key and its evidence.
pub struct PeerTls {
    credential: RwLock<PeerCredential>,
    roots: Option<Roots>,
    provider: Arc<CryptoProvider>,
    protocols: Vec<Vec<u8>>,
}

/// A handshake that did not end in a proven peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerTlsError {
    /// The peer presented nothing, or not what is demanded of it: final until somebody changes
    /// something.
    #[error(
        "the peer is refused at {} [{}]: found {}; required {}; {}",
        .0.stage.words(), .0.code, .0.found, .0.required, .0.advice
    )]
    Refused(Refusal),
    /// The peer refused what we presented: final as well.
    #[error("the peer refused our certificate: {0}")]
    RefusedByPeer(String),
    /// The connection broke, or the other side does not speak TLS 1.3.
    #[error("the TLS handshake failed: {0}; is that the port of a peer with TLS 1.3?")]
    Handshake(#[source] io::Error),
    /// The peer said nothing for too long.
    #[error("the TLS handshake did not end within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
}

impl PeerTls {
    /// Presents `credential` in handshakes, and trusts the authorities `roots`.
    pub fn new(credential: PeerCredential, roots: Option<Roots>) -> Self {
        Self {
            credential: RwLock::new(credential),
            roots,
            provider: crate::provider::peer_provider(),
            protocols: Vec::new(),
        }
    }

    /// The same for HTTP/2, which gRPC wants to agree on in the handshake.
    #[must_use]
    pub fn for_http2(self) -> Self {
        Self { protocols: vec![ALPN.to_vec()], ..self }
    }

    /// What is presented now.
    pub fn credential(&self) -> PeerCredential {
        self.credential.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Presents another credential from the next handshake on: attested ones end after a day.
    pub fn replace_credential(&self, credential: PeerCredential) {
        *self.credential.write().unwrap_or_else(PoisonError::into_inner) = credential;
    }

    /// The listening side of a handshake. Who the peer is, [`PeerExpect::accepts`] says afterwards.
    pub async fn accept(
        &self,
        tcp: TcpStream,
    ) -> Result<(server::TlsStream<TcpStream>, ProvenPeer), PeerTlsError> {
        tcp.set_nodelay(true).map_err(PeerTlsError::Handshake)?;
        let handshake = Handshake::new(self.roots.clone(), None, Arc::clone(&self.provider));
        let presented = SingleCertAndKey::from(Arc::clone(&self.credential().credential().0));
        let verifier = Arc::clone(&handshake);
        let mut config = server_side(Arc::clone(&self.provider), verifier, Arc::new(presented));
        // Python's ssl asks for AES-256 first; our order is the faster one.
        config.ignore_client_order = true;
        config.alpn_protocols.clone_from(&self.protocols);
        // Boxed, because the state of a handshake is several kilobytes in every caller's future.
        let accept = Box::pin(TlsAcceptor::from(Arc::new(config)).accept(tcp).into_fallible());
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept).await {
            Err(_) => Err(PeerTlsError::TimedOut),
            Ok(Err((error, tcp))) => Err(failed(&handshake, error, tcp).await),
            Ok(Ok(tls)) => Ok((tls, handshake.finish()?)),
        }
    }

    /// The connecting side of a handshake. Nothing but the handshake is sent to a peer that is not
    /// what `expect` says. In TLS 1.3 the peer judges our certificate after this has returned: its
    /// refusal is the error of the first read, see [`refused_by_peer`].
    pub async fn connect(
        &self,
        tcp: TcpStream,
        expect: &PeerExpect,
    ) -> Result<(client::TlsStream<TcpStream>, ProvenPeer), PeerTlsError> {
        tcp.set_nodelay(true).map_err(PeerTlsError::Handshake)?;
        let expect = Some(expect.clone());
        let handshake = Handshake::new(self.roots.clone(), expect, Arc::clone(&self.provider));
        let verifier = Arc::clone(&handshake);
        let credential = self.credential();
        let mut config = client_side(Arc::clone(&self.provider), verifier, credential.credential());
        config.alpn_protocols.clone_from(&self.protocols);
        // Neither sent nor compared: it is never the host name that says who answers.
        let name = ServerName::try_from("convelo").expect("a valid DNS name");
        let connect = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let connect = Box::pin(connect.into_fallible());
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connect).await {
            Err(_) => Err(PeerTlsError::TimedOut),
            Ok(Err((error, tcp))) => Err(failed(&handshake, error, tcp).await),
            Ok(Ok(tls)) => Ok((tls, handshake.finish()?)),
        }
    }
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls")
            .field("credential", &self.credential())
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

/// What a peer that refused our certificate says about it, where `error` is such a refusal: the
/// first read after [`PeerTls::connect`] tells it.
pub fn refused_by_peer(error: &io::Error) -> Option<String> {
    let Error::AlertReceived(alert) = error.get_ref()?.downcast_ref::<Error>()? else {
        return None;
    };
    let words = match alert {
        AlertDescription::UnknownCA => {
            "unknown_ca: it does not trust the authority that issued our certificate; give that \
             authority's certificate to the peer, or have ours issued by one that it trusts"
        }
        AlertDescription::CertificateExpired => {
            "certificate_expired: our certificate is not valid at this time; renew it, or compare \
             the clocks"
        }
        AlertDescription::CertificateRevoked => {
            "certificate_revoked: our certificate was withdrawn; have another one issued"
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "certificate_required: it demands a certificate and got none"
        }
        AlertDescription::AccessDenied => {
            "access_denied: our certificate is valid, but not the one that it expects of us; \
             compare the certificate or key that it has registered for us with ours"
        }
        AlertDescription::UnsupportedCertificate => {
            "unsupported_certificate: our certificate or its authority's may not be used for this; \
             check its key type and its (extended) key usage"
        }
        AlertDescription::BadCertificate => {
            "bad_certificate: it cannot read or verify our certificate; check the file and its order"
        }
        AlertDescription::CertificateUnknown => {
            "certificate_unknown: it does not accept our certificate; its log says why"
        }
        AlertDescription::DecryptError => {
            "decrypt_error: a signature over our certificate or with its key does not hold; check \
             that key, certificate and authority belong together"
        }
        _ => return None,
    };
    Some(words.to_owned())
}

async fn failed(handshake: &Handshake, error: io::Error, tcp: TcpStream) -> PeerTlsError {
    let failure = match (handshake.refusal(&error), refused_by_peer(&error)) {
        (Some(refusal), _) => PeerTlsError::Refused(refusal),
        (None, Some(words)) => return PeerTlsError::RefusedByPeer(words),
        (None, None) => return PeerTlsError::Handshake(error),
    };
    // The refusal stands whether or not the peer hears of it.
    let _ = tokio::time::timeout(REFUSAL_LINGER, linger(tcp)).await;
    failure
}

async fn linger(mut tcp: TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    let (mut dropped, mut buffer) = (0, vec![0; 4096]);
    while dropped < MAXIMUM_REFUSAL_LINGER_BYTES {
        match tcp.read(&mut buffer).await? {
            0 => break,
            read => dropped += read,
        }
    }
    Ok(())
}
