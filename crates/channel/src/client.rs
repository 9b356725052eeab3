//! The side that connects.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use convelo_attest::{EXPORTER_LABEL, Refusal, Verdict};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use crate::binding::Binding;
use crate::expect::Expect;
use crate::identity::Credential;
use crate::limits::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT};
use crate::tls::{Expected, Onlooker, client_config};

/// A connection that did not come to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody answers there (yet): worth another try.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The service's evidence or key was refused: final.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The TLS handshake failed for another reason.
    #[error(
        "{address} answers, but the TLS handshake failed: {source}; \
         is a convelo service of this version running there?"
    )]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// A verified connection to a service.
#[derive(Debug)]
pub struct ServiceStream {
    tls: TlsStream<TcpStream>,
    verdict: Option<Verdict>,
    binding: Binding,
}

impl ServiceStream {
    /// What ties a quote to this connection.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// What the verification found; nothing where a pinned key was expected instead of evidence.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The service's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.tls
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .expect("a handshake without a server certificate does not complete")
    }
}

/// Connects to `address` (`host:port`) and verifies the service. Nothing but the handshake is sent
/// before the verdict.
///
/// # Errors
/// [`DialError`]; each case says whether another try can help.
pub async fn dial(
    address: &str,
    credential: &Credential,
    expect: Expect,
) -> Result<ServiceStream, DialError> {
    dial_over(reach(address).await?, address, credential, expect).await
}

/// As [`dial`], over a connection that is there already: from an address of one's own choice, through
/// a proxy. `address` is what messages name.
///
/// # Errors
/// [`DialError`].
pub async fn dial_over(
    tcp: TcpStream,
    address: &str,
    credential: &Credential,
    expect: Expect,
) -> Result<ServiceStream, DialError> {
    let expected = Expected::new(expect);
    let verifier = Arc::clone(&expected);
    let connector = TlsConnector::from(Arc::new(client_config(credential, verifier)));
    let handshake = connector.connect(any_name(), tcp);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    let failed = |source| DialError::Handshake { address: address.to_owned(), source };
    let outcome = expected.take();
    match (handshake, outcome) {
        (_, Some(Err(refusal))) => Err(DialError::Refused(refusal)),
        (Ok(Ok(tls)), Some(Ok(verdict))) => {
            let binding = binding(&tls, credential).map_err(failed)?;
            Ok(ServiceStream { tls, verdict, binding })
        }
        (Ok(Err(source)), _) => Err(failed(source)),
        (Err(_), _) => Err(failed(timed_out(HANDSHAKE_TIMEOUT))),
        (Ok(Ok(_)), None) => Err(failed(io::Error::other("the service was not verified"))),
    }
}

/// The certificate (DER) that whoever listens at `address` presents. The handshake is broken off
/// there: nothing is verified and nothing sent.
///
/// # Errors
/// [`DialError`].
pub async fn certificate_of(address: &str, credential: &Credential) -> Result<Vec<u8>, DialError> {
    let tcp = reach(address).await?;
    let onlooker = Arc::new(Onlooker::default());
    let verifier = Arc::clone(&onlooker);
    let connector = TlsConnector::from(Arc::new(client_config(credential, verifier)));
    let handshake = connector.connect(any_name(), tcp);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    onlooker.take().ok_or_else(|| DialError::Handshake {
        address: address.to_owned(),
        source: match handshake {
            Ok(Err(source)) => source,
            Ok(Ok(_)) => io::Error::other("no certificate was presented"),
            Err(_) => timed_out(HANDSHAKE_TIMEOUT),
        },
    })
}

async fn reach(address: &str) -> Result<TcpStream, DialError> {
    let unreachable = |source| DialError::Unreachable { address: address.to_owned(), source };
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable(timed_out(CONNECT_TIMEOUT)))?
        .map_err(unreachable)?;
    // Without it the first call of a connection waits for delayed acknowledgements (40 ms).
    tcp.set_nodelay(true).map_err(unreachable)?;
    Ok(tcp)
}

/// The name is not verified: evidence or a pinned key says who answers.
fn any_name() -> ServerName<'static> {
    ServerName::try_from("convelo").expect("a valid DNS name")
}

fn binding(tls: &TlsStream<TcpStream>, credential: &Credential) -> io::Result<Binding> {
    let connection = tls.get_ref().1;
    let exporter = connection
        .export_keying_material(Zeroizing::new([0; 32]), EXPORTER_LABEL, None)
        .map_err(io::Error::other)?;
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.ok_or_else(|| io::Error::other("no server certificate"))?;
    let spki = |der| convelo_attest::spki_of(der).map(Arc::<[u8]>::from).map_err(io::Error::other);
    Ok(Binding::new(exporter, spki(credential.certificate())?, spki(certificate)?))
}

fn timed_out(after: std::time::Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", after.as_secs()))
}

impl AsyncRead for ServiceStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for ServiceStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
