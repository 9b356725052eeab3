//! Mutual TLS 1.3 between peers that know each other by key, by certificate, through an authority,
//! or by evidence: the one place where TLS is set up.
//!
//! [`PeerTls`] runs the handshakes of both sides and yields a [`ProvenPeer`]: what the other side
//! proved. An [`Expect`] says whether that is the right peer. The dialling side says so in the
//! handshake; the accepting side does not know yet who is coming, and asks afterwards.
//!
//! No resumption, no 0-RTT, no SNI: host names are never compared.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use convelo_attest::{QuoteSource, Refusal};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, client, server};

use crate::credential::Credential;
use crate::expect::Expect;
use crate::handshake::{Demand, Handshake, Kind, NO_CERTIFICATE};
use crate::identity::{Identity, IdentityError};
use crate::limits::{
    CERTIFICATE_RENEWAL, CERTIFICATE_RENEWAL_RETRY, CERTIFICATE_RENEWAL_TIMEOUT,
    FIRST_FLIGHT_TIMEOUT, HANDSHAKE_TIMEOUT, MAXIMUM_REFUSAL_LINGER_BYTES, REFUSAL_LINGER,
};
use crate::proven::ProvenPeer;
use crate::provider::{hybrid_provider, peer_provider, provider};
use crate::roots::Roots;
use crate::verdicts::Verdicts;

/// The application protocol of gRPC.
const HTTP2: &[u8] = b"h2";

/// Both ends of mutual TLS 1.3 under one credential.
///
/// In the handshake, either side accepts a certificate that chains to the [`Roots`], or one that
/// its holder signed itself; the latter counts only for its key and its evidence. Any other
/// certificate (expired, or from an unknown authority) ends the handshake, so that its holder
/// learns why from the alert. Without `Roots`, every certificate counts only for its key and its
/// evidence.
///
/// Verdicts on certificates are kept for a while, so that a peer that connects again costs only a
/// look-up.
pub struct PeerTls {
    credential: RwLock<Credential>,
    /// What to renew a credential from, if it expires after a day.
    attested: Option<Arc<(Identity, Arc<dyn QuoteSource>)>>,
    roots: Option<Roots>,
    kind: Kind,
    judged_later: bool,
    provider: Arc<CryptoProvider>,
    protocols: Vec<Vec<u8>>,
    verdicts: Arc<Verdicts>,
}

/// A handshake that did not end with a proven peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerTlsError {
    /// The peer presented nothing, or not what was demanded: final until somebody changes
    /// something.
    #[error(
        "the peer is refused at {} [{}]: expected {}, found {}; {}",
        .0.stage.words(), .0.code, .0.expected, .0.found, .0.advice
    )]
    Refused(#[from] Refusal),
    /// The peer refused what we presented: final as well.
    #[error("the peer refused our certificate: {0}")]
    RefusedByPeer(String),
    /// The connection broke, or the other side does not speak TLS 1.3.
    #[error("the TLS handshake failed: {0}; is that the port of a peer with TLS 1.3?")]
    Handshake(#[source] io::Error),
    /// The peer said nothing for too long.
    #[error("the TLS handshake did not end within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    /// The peer did not even begin.
    #[error("no whole ClientHello arrived within {} s", FIRST_FLIGHT_TIMEOUT.as_secs())]
    Silent,
}

impl PeerTlsError {
    /// Whether the peer showed a certificate, and it was invalid. A handshake that ends in any
    /// other way says nothing about whoever began it.
    pub(crate) fn is_invalid_certificate(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code != NO_CERTIFICATE)
    }
}

impl PeerTls {
    /// For the parties of a pool: presents `credential` in handshakes, and trusts the authorities
    /// in `roots`.
    pub fn new(credential: Credential, roots: Option<Roots>) -> Self {
        Self {
            credential: RwLock::new(credential),
            attested: None,
            roots,
            kind: Kind::Pool,
            judged_later: false,
            provider: peer_provider(),
            protocols: Vec::new(),
            verdicts: Arc::default(),
        }
    }

    /// The same, with self-signed certificates over this key that carry evidence from `source`
    /// (RA-TLS); [`PeerTls::keep_fresh`] renews them.
    pub fn attested(
        identity: Identity,
        source: Arc<dyn QuoteSource>,
        roots: Option<Roots>,
    ) -> Result<Self, IdentityError> {
        let credential = identity.attested(&*source)?;
        Ok(Self { attested: Some(Arc::new((identity, source))), ..Self::new(credential, roots) })
    }

    /// The same for HTTP/2, which gRPC negotiates in the handshake.
    #[must_use]
    pub fn for_http2(self) -> Self {
        Self { protocols: vec![HTTP2.to_vec()], ..self }
    }

    /// The same, but no peer is refused for its certificate alone: anyone who proves a key may say
    /// what they want, and learn from whoever accepts the connection why they do not get it. For a
    /// side that accepts.
    #[must_use]
    pub(crate) fn judging_later(self) -> Self {
        Self { judged_later: true, ..self }
    }

    /// The same between a party and a service.
    pub(crate) fn of_service(self) -> Self {
        Self { kind: Kind::Service, provider: provider(), ..self }.for_http2()
    }

    /// The same with no key exchange but X25519MLKEM768.
    #[must_use]
    pub fn hybrid_only(self) -> Self {
        Self { provider: hybrid_provider(), ..self }
    }

    /// The same under a key that nobody knows and that is used once.
    pub(crate) fn under_a_new_key(&self) -> Result<Self, IdentityError> {
        Ok(Self {
            credential: RwLock::new(Identity::generate().plain()?),
            attested: None,
            roots: self.roots.clone(),
            kind: self.kind,
            provider: Arc::clone(&self.provider),
            protocols: self.protocols.clone(),
            verdicts: Arc::clone(&self.verdicts),
            judged_later: self.judged_later,
        })
    }

    /// The credential presented now.
    pub fn credential(&self) -> Credential {
        self.credential.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Presents another credential from the next handshake on.
    pub fn replace_credential(&self, credential: Credential) {
        *self.credential.write().unwrap_or_else(PoisonError::into_inner) = credential;
    }

    /// Renews a credential with evidence long before it expires, for as long as this runs. If that
    /// fails, tells `failed` and tries again.
    pub async fn keep_fresh(&self, failed: impl Fn(&IdentityError)) -> Infallible {
        let Some(attested) = &self.attested else { return std::future::pending().await };
        let mut pause = CERTIFICATE_RENEWAL;
        loop {
            tokio::time::sleep(pause).await;
            let attested = Arc::clone(attested);
            let mut made = tokio::task::spawn_blocking(move || attested.0.attested(&*attested.1));
            let soon = tokio::time::timeout(CERTIFICATE_RENEWAL_TIMEOUT, &mut made).await;
            let made = if let Ok(made) = soon {
                made
            } else {
                failed(&IdentityError::Late);
                made.await
            };
            let broken = |error| Err(IdentityError::Certificate(format!("{error}")));
            pause = match made.unwrap_or_else(broken) {
                Ok(credential) => {
                    self.replace_credential(credential);
                    tracing::info!("the certificate was renewed");
                    CERTIFICATE_RENEWAL
                }
                Err(error) => {
                    failed(&error);
                    CERTIFICATE_RENEWAL_RETRY
                }
            };
        }
    }

    /// The accepting side of a handshake. [`Expect::accepts`] says afterwards who the peer is.
    pub async fn accept(
        &self,
        tcp: TcpStream,
    ) -> Result<(server::TlsStream<TcpStream>, ProvenPeer), PeerTlsError> {
        tcp.set_nodelay(true).map_err(PeerTlsError::Handshake)?;
        let handshake = self.handshake(Demand::AnyKey);
        let acceptor = TlsAcceptor::from(Arc::new(self.server_config(&handshake)));
        self.end(&handshake, Box::pin(acceptor.accept(tcp).into_fallible())).await
    }

    /// The same for a side that strangers connect to: the first flight must arrive soon, and once it
    /// has, `turn` says when to go on.
    pub(crate) async fn accept_promptly(
        &self,
        tcp: TcpStream,
        turn: impl AsyncFnOnce(),
    ) -> Result<(server::TlsStream<TcpStream>, ProvenPeer), PeerTlsError> {
        tcp.set_nodelay(true).map_err(PeerTlsError::Handshake)?;
        let first = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
        let first = tokio::time::timeout(FIRST_FLIGHT_TIMEOUT, Box::pin(first)).await;
        let first = first.map_err(|_| PeerTlsError::Silent)?.map_err(PeerTlsError::Handshake)?;
        turn().await;
        let handshake = self.handshake(Demand::AnyKey);
        let config = Arc::new(self.server_config(&handshake));
        self.end(&handshake, Box::pin(first.into_stream(config).into_fallible())).await
    }

    /// The dialling side of a handshake. Nothing but the handshake is sent to a peer that does not
    /// meet `expect`. In TLS 1.3 the peer judges our certificate after this has returned; its
    /// refusal is the error of the first read, see [`refused_by_peer`].
    pub async fn connect(
        &self,
        tcp: TcpStream,
        expect: &Expect,
    ) -> Result<(client::TlsStream<TcpStream>, ProvenPeer), PeerTlsError> {
        self.shake_hands(&self.handshake(Demand::Peer(expect.clone())), tcp).await
    }

    /// The certificate that the other side presents. The handshake stops there: nothing is verified
    /// and nothing sent.
    pub(crate) async fn certificate_of(&self, tcp: TcpStream) -> Result<Vec<u8>, PeerTlsError> {
        let handshake = self.handshake(Demand::Nothing);
        let outcome = self.shake_hands(&handshake, tcp).await;
        match (handshake.shown(), outcome) {
            (None, Err(error)) => Err(error),
            (shown, _) => Ok(shown.unwrap_or_default().to_vec()),
        }
    }

    async fn shake_hands(
        &self,
        handshake: &Arc<Handshake>,
        tcp: TcpStream,
    ) -> Result<(client::TlsStream<TcpStream>, ProvenPeer), PeerTlsError> {
        // Without it, the first call on a connection waits for delayed acknowledgements (40 ms).
        tcp.set_nodelay(true).map_err(PeerTlsError::Handshake)?;
        let connector = TlsConnector::from(Arc::new(self.client_config(handshake)));
        // Neither sent nor compared: the host name never says who is answering.
        let name = ServerName::try_from("convelo").expect("a valid DNS name");
        // Boxed, because the state of a handshake would add several kilobytes to every caller's
        // future.
        self.end(handshake, Box::pin(connector.connect(name, tcp).into_fallible())).await
    }

    fn handshake(&self, demand: Demand) -> Arc<Handshake> {
        Arc::new(Handshake {
            kind: self.kind,
            judged_later: self.judged_later,
            demand,
            roots: self.roots.clone(),
            provider: Arc::clone(&self.provider),
            verdicts: Arc::clone(&self.verdicts),
            shown: OnceLock::new(),
            outcome: Mutex::new(None),
        })
    }

    fn server_config(&self, handshake: &Arc<Handshake>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider supports TLS 1.3")
            .with_client_cert_verifier(Arc::clone(handshake) as _)
            .with_cert_resolver(self.credential().presented());
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        // Python's ssl asks for AES-256 first; our order is faster.
        config.ignore_client_order = self.kind == Kind::Pool;
        config.alpn_protocols.clone_from(&self.protocols);
        config
    }

    fn client_config(&self, handshake: &Arc<Handshake>) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider supports TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(handshake) as _)
            .with_client_cert_resolver(self.credential().presented());
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        config.alpn_protocols.clone_from(&self.protocols);
        config
    }

    /// Runs a handshake to its end.
    async fn end<S>(
        &self,
        handshake: &Handshake,
        running: impl Future<Output = Result<S, (io::Error, TcpStream)>>,
    ) -> Result<(S, ProvenPeer), PeerTlsError> {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, running).await {
            Err(_) => Err(PeerTlsError::TimedOut),
            Ok(Err((error, tcp))) => Err(self.failed(handshake, error, tcp).await),
            Ok(Ok(tls)) => Ok((tls, handshake.finish()?)),
        }
    }

    async fn failed(
        &self,
        handshake: &Handshake,
        error: io::Error,
        tcp: TcpStream,
    ) -> PeerTlsError {
        match (handshake.refusal(&error), refused_by_peer(&error)) {
            (Some(refusal), _) => {
                if self.kind == Kind::Pool {
                    // The refusal stands whether or not the peer hears about it.
                    let _ = tokio::time::timeout(REFUSAL_LINGER, linger(tcp)).await;
                }
                PeerTlsError::Refused(refusal)
            }
            (None, Some(words)) => PeerTlsError::RefusedByPeer(words),
            (None, None) => PeerTlsError::Handshake(error),
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

/// What a peer that refused our certificate says about it, if `error` is such a refusal. It arrives
/// with the first read after [`PeerTls::connect`].
pub fn refused_by_peer(error: &io::Error) -> Option<String> {
    let Error::AlertReceived(alert) = error.get_ref()?.downcast_ref::<Error>()? else {
        return None;
    };
    let words = match alert {
        AlertDescription::UnknownCA => {
            "unknown_ca: it does not trust the authority that issued our certificate; give the \
             peer that authority's certificate, or have ours issued by one that it trusts"
        }
        AlertDescription::CertificateExpired => {
            "certificate_expired: our certificate is not valid at this time; renew it, or compare \
             the clocks"
        }
        AlertDescription::CertificateRevoked => {
            "certificate_revoked: our certificate was revoked; have another one issued"
        }
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "certificate_required: it demands a certificate and got none"
        }
        AlertDescription::AccessDenied => {
            "access_denied: our certificate is valid, but not the one it expects from us, or it only looked \
             at our evidence; compare the certificate or key it has registered for us with ours"
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
            "decrypt_error: a signature over our certificate or with its key is invalid; check \
             that the key, certificate and authority belong together"
        }
        _ => return None,
    };
    Some(words.to_owned())
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
