//! The verifier of one handshake, for either side.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use convelo_attest::{Evidence, MAXIMUM_CERTIFICATE_BYTES, Matter, Refusal, Stage};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::PeerTlsError;
use super::proven::{PeerExpect, ProvenPeer};
use super::roots::{Roots, Side, refusal};
use crate::certificate::Certificate;
use crate::limits::MAXIMUM_CHAIN_CERTIFICATES;
use crate::tls::{not_the_holder, tls13_only};

/// What one handshake demands, and what it found.
pub(super) struct Handshake {
    roots: Option<Roots>,
    /// Known before the handshake on the side that connects only.
    expect: Option<PeerExpect>,
    provider: Arc<CryptoProvider>,
    outcome: Mutex<Option<Result<ProvenPeer, Refusal>>>,
}

impl Handshake {
    pub(super) fn new(
        roots: Option<Roots>,
        expect: Option<PeerExpect>,
        provider: Arc<CryptoProvider>,
    ) -> Arc<Self> {
        Arc::new(Self { roots, expect, provider, outcome: Mutex::new(None) })
    }

    /// The peer of a handshake that ended well.
    pub(super) fn finish(&self) -> Result<ProvenPeer, PeerTlsError> {
        match self.take() {
            Some(Ok(peer)) => Ok(peer),
            Some(Err(refusal)) => Err(PeerTlsError::Refused(refusal)),
            None => Err(PeerTlsError::Refused(no_certificate())),
        }
    }

    /// Why we ended a handshake with this error; nothing where it was not we who ended it.
    pub(super) fn refusal(&self, error: &io::Error) -> Option<Refusal> {
        if let Some(Err(refusal)) = self.take() {
            return Some(refusal);
        }
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::NoCertificatesPresented => Some(no_certificate()),
            _ => None,
        }
    }

    fn take(&self) -> Option<Result<ProvenPeer, Refusal>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, outcome: Result<ProvenPeer, Refusal>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    fn judge(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: u64,
    ) -> Result<(), Error> {
        let outcome = self.examine(der, intermediates, side, now).and_then(|mut peer| {
            if let Some(expect) = &self.expect {
                peer.verdict = expect.accepts(&peer, now)?;
            }
            Ok(peer)
        });
        let result = match &outcome {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::InvalidCertificate(alert(refusal))),
        };
        self.keep(outcome);
        result
    }

    fn examine(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: u64,
    ) -> Result<ProvenPeer, Refusal> {
        check_sizes(der, intermediates)?;
        let certificate = Certificate::parse(der).map_err(|error| {
            refusal(
                "certificate-form",
                Matter::Peer,
                format!("a certificate that cannot be read ({error})"),
                "one X.509 certificate in DER",
                "check who answers at that address",
            )
        })?;
        let algorithms = &self.provider.signature_verification_algorithms;
        let chained = match &self.roots {
            Some(roots) => roots.verify(der, &certificate, intermediates, side, now, algorithms),
            None => Err(no_authorities(&certificate)),
        };
        if self.roots.is_some() && !certificate.is_self_issued() {
            chained.clone()?;
        }
        let evidence = match certificate.version {
            3 => Evidence::from_certificate(der, now).map(|found| found.map(Arc::new)),
            _ => Ok(None),
        };
        Ok(ProvenPeer {
            certificate: der.to_vec(),
            key_id: certificate.key_id(),
            description: certificate.describe(),
            chained,
            evidence,
            verdict: None,
        })
    }

    /// The proof that the peer holds the key of its certificate.
    fn possession(
        &self,
        message: &[u8],
        der: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
        let certificate = Certificate::parse(der).map_err(|_| bad)?;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(certificate.spki),
            signature,
            &self.provider.signature_verification_algorithms,
        )
        .inspect_err(|error| self.keep(Err(not_the_holder(error))))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handshake(..)")
    }
}

impl ClientCertVerifier for Handshake {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint would keep peers from showing a self-signed certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, Side::Client, now.as_secs())
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.possession(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Handshake {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, Side::Server, now.as_secs())
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.possession(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check_sizes(
    der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    let count = intermediates.len() + 1;
    if count > MAXIMUM_CHAIN_CERTIFICATES {
        return Err(refusal(
            "certificate-chain",
            Matter::Peer,
            format!("{count} certificates"),
            &format!("at most {MAXIMUM_CHAIN_CERTIFICATES}"),
            "the peer must present its own and the intermediate ones, not every authority",
        ));
    }
    let longest = intermediates.iter().map(|der| der.len()).fold(der.len(), usize::max);
    if longest > MAXIMUM_CERTIFICATE_BYTES {
        return Err(refusal(
            "certificate-size",
            Matter::Peer,
            format!("a certificate of {longest} bytes"),
            &format!("at most {MAXIMUM_CERTIFICATE_BYTES} bytes"),
            "check who answers at that address",
        ));
    }
    Ok(())
}

fn no_certificate() -> Refusal {
    refusal(
        "no-certificate",
        Matter::Peer,
        "no certificate".to_owned(),
        "a certificate of the peer: both sides prove who they are",
        "give key and certificate to the peer (mutual TLS), or check who connects",
    )
}

fn no_authorities(certificate: &Certificate<'_>) -> Refusal {
    refusal(
        "no-authorities",
        Matter::Policy,
        certificate.describe(),
        "trusted authorities to verify it with, and this side was given none",
        "name the file of trusted authorities (ca_cert), or pin the peer's key",
    )
}

/// What the peer hears of a refusal.
fn alert(refusal: &Refusal) -> CertificateError {
    match (refusal.stage, refusal.code) {
        (
            Stage::Certificate,
            "certificate-expired" | "certificate-not-yet-valid" | "authority-expired",
        ) => CertificateError::Expired,
        (Stage::Certificate, "unknown-authority" | "no-authorities") => {
            CertificateError::UnknownIssuer
        }
        (Stage::Certificate, "certificate-usage") => CertificateError::InvalidPurpose,
        (Stage::Certificate, "certificate-form" | "certificate-size" | "certificate-chain") => {
            CertificateError::BadEncoding
        }
        _ => CertificateError::ApplicationVerificationFailure,
    }
}
