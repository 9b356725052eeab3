//! The verifier of one handshake, for either side and either kind of connection.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use convelo_attest::{Evidence, MAXIMUM_CERTIFICATE_BYTES, Matter, Refusal, Stage};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::certificate::Certificate;
use crate::expect::Expect;
use crate::limits::MAXIMUM_CHAIN_CERTIFICATES;
use crate::proven::ProvenPeer;
use crate::roots::{Roots, Side, refusal};
use crate::verdicts::Verdicts;

/// Who a connection is between. Both kinds are mutual TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A party and a service: each shows one self-signed certificate over P-256 or P-384, as ours
    /// and Gramine's are, and any evidence in it is sound.
    Service,
    /// The parties of a pool: certificates of any authority and with any kind of key, since the
    /// other side may be Python's `ssl`.
    Pool,
}

/// The code of the refusal of a peer that shows no certificate.
pub(crate) const NO_CERTIFICATE: &str = "no-certificate";

/// What we demand of the peer during the handshake.
pub(crate) enum Demand {
    /// Proof that it holds the key of its certificate. The accepting side asks afterwards who the
    /// peer is.
    AnyKey,
    /// What the dialling side expects.
    Peer(Expect),
    /// Something nobody has: the handshake stops at the certificate, which is all we wanted to see.
    Nothing,
}

/// What one handshake demands, and what it found.
pub(crate) struct Handshake {
    pub(crate) kind: Kind,
    /// Whether a certificate is judged after the handshake, whatever it is worth.
    pub(crate) judged_later: bool,
    pub(crate) demand: Demand,
    pub(crate) roots: Option<Roots>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) shown: OnceLock<Arc<[u8]>>,
    pub(crate) outcome: Mutex<Option<Result<ProvenPeer, Refusal>>>,
}

impl Handshake {
    /// The peer, after a successful handshake.
    pub(crate) fn finish(&self) -> Result<ProvenPeer, Refusal> {
        self.take().unwrap_or_else(|| Err(no_certificate()))
    }

    /// Why we ended a handshake with this error; nothing if we were not the ones who ended it.
    pub(crate) fn refusal(&self, error: &io::Error) -> Option<Refusal> {
        if let Some(Err(refusal)) = self.take() {
            return Some(refusal);
        }
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::NoCertificatesPresented => Some(no_certificate()),
            _ => None,
        }
    }

    /// The certificate that the peer presented, whatever the outcome.
    pub(crate) fn shown(&self) -> Option<&[u8]> {
        self.shown.get().map(|der| &**der)
    }

    fn take(&self) -> Option<Result<ProvenPeer, Refusal>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, outcome: Result<ProvenPeer, Refusal>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// Decides, records what was found, and tells TLS.
    fn judge(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), Error> {
        let shown = self.shown.get_or_init(|| Arc::from(&**der));
        if matches!(self.demand, Demand::Nothing) {
            let error = CertificateError::ApplicationVerificationFailure;
            return Err(Error::InvalidCertificate(error));
        }
        let outcome = self.decide(shown, intermediates, side, now.as_secs());
        let result = match &outcome {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::InvalidCertificate(self.alert(refusal))),
        };
        self.keep(outcome);
        result
    }

    /// The one decision about a certificate, for every side and kind of connection.
    fn decide(
        &self,
        shown: &Arc<[u8]>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: u64,
    ) -> Result<ProvenPeer, Refusal> {
        let der = CertificateDer::from(&**shown);
        match self.kind {
            Kind::Service => check_single(&der, intermediates)?,
            Kind::Pool => check_sizes(&der, intermediates)?,
        }
        let certificate = Certificate::parse(&der).map_err(|error| {
            refusal(
                "certificate-form",
                Matter::Peer,
                format!("a certificate that cannot be read ({error})"),
                "one X.509 certificate in DER",
                "check who is answering at that address",
            )
        })?;
        let algorithms = &self.provider.signature_verification_algorithms;
        let chained = self
            .roots
            .as_ref()
            .map(|roots| roots.verify(&der, &certificate, intermediates, side, now, algorithms));
        if let Some(Err(refusal)) = &chained
            && !certificate.is_self_issued()
            && !self.judged_later
        {
            return Err(refusal.clone());
        }
        let evidence = match (&self.demand, certificate.version) {
            (Demand::Peer(Expect::Key(_)), _) | (_, 1 | 2) => Ok(None),
            _ => Evidence::from_certificate(&der, now).map(|found| found.map(Arc::new)),
        };
        let mut peer = ProvenPeer {
            certificate: Arc::clone(shown),
            spki: certificate.spki.into(),
            chained,
            evidence,
            verdict: None,
            verdicts: Arc::clone(&self.verdicts),
        };
        peer.verdict = match (&self.demand, self.kind) {
            (Demand::Peer(expect), Kind::Service) => expect.accepts_for_now(&peer, now)?,
            (Demand::Peer(expect), Kind::Pool) => expect.accepts(&peer, now)?,
            (_, Kind::Service) => peer.evidence.as_ref().map(|_| None).map_err(Clone::clone)?,
            (_, Kind::Pool) => None,
        };
        Ok(peer)
    }

    /// Checks that the peer holds the key of its certificate.
    fn possession(
        &self,
        message: &[u8],
        der: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let proven = match self.kind {
            Kind::Service => verify_tls13_signature(message, der, signature, algorithms),
            // webpki reads no version 1 certificates.
            Kind::Pool => {
                let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
                let certificate = Certificate::parse(der).map_err(|_| bad)?;
                let spki = SubjectPublicKeyInfoDer::from(certificate.spki);
                verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
            }
        };
        proven.inspect_err(|error| self.keep(Err(not_the_holder(error))))
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        match self.kind {
            Kind::Service => {
                vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384]
            }
            Kind::Pool => self.provider.signature_verification_algorithms.supported_schemes(),
        }
    }

    /// What the peer is told about a refusal: the reason, if both are parties of a pool.
    fn alert(&self, refusal: &Refusal) -> CertificateError {
        match (self.kind, refusal.stage, refusal.code) {
            (Kind::Service, ..) => CertificateError::Other(OtherError(Arc::new(refusal.clone()))),
            (
                Kind::Pool,
                Stage::Certificate,
                "certificate-expired" | "certificate-not-yet-valid" | "authority-expired",
            ) => CertificateError::Expired,
            (Kind::Pool, Stage::Certificate, "unknown-authority" | "no-authorities") => {
                CertificateError::UnknownIssuer
            }
            (Kind::Pool, Stage::Certificate, "certificate-usage") => {
                CertificateError::InvalidPurpose
            }
            (
                Kind::Pool,
                Stage::Certificate,
                "certificate-form" | "certificate-size" | "certificate-chain",
            ) => CertificateError::BadEncoding,
            (Kind::Pool, ..) => CertificateError::ApplicationVerificationFailure,
        }
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handshake(..)")
    }
}

impl ClientCertVerifier for Handshake {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint would keep peers from presenting a self-signed certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, Side::Client, now)
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
        self.schemes()
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
        self.judge(end_entity, intermediates, Side::Server, now)
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
        self.schemes()
    }
}

fn tls13_only() -> Error {
    Error::General("only TLS 1.3 is accepted here".to_owned())
}

/// One certificate, in a form and with a kind of key that evidence may be about.
fn check_single(
    der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    if !intermediates.is_empty() {
        return Err(refusal(
            "certificate-chain",
            Matter::Peer,
            format!("a chain of {} certificates", intermediates.len() + 1),
            "one self-signed certificate",
            "our peers never send a chain: check who is answering",
        ));
    }
    convelo_attest::spki_of(der).map(|_| ())
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
            "the peer must present its own certificate and the intermediate ones, not every authority",
        ));
    }
    let longest = intermediates.iter().map(|der| der.len()).fold(der.len(), usize::max);
    if longest > MAXIMUM_CERTIFICATE_BYTES {
        return Err(refusal(
            "certificate-size",
            Matter::Peer,
            format!("a certificate of {longest} bytes"),
            &format!("at most {MAXIMUM_CERTIFICATE_BYTES} bytes"),
            "check who is answering at that address",
        ));
    }
    Ok(())
}

fn no_certificate() -> Refusal {
    refusal(
        NO_CERTIFICATE,
        Matter::Peer,
        "no certificate".to_owned(),
        "a certificate from the peer: both sides prove who they are",
        "give the peer a key and a certificate (mutual TLS), or check who is connecting",
    )
}

fn not_the_holder(error: &Error) -> Refusal {
    Refusal::new(Stage::KeyBinding, "key-possession", Matter::Peer)
        .found(format!("a handshake that the certificate's key did not sign ({error})"))
        .expected("a handshake signed by the key of the certificate")
        .advice("the certificate belongs to somebody else and may be stolen: refuse this peer")
}
