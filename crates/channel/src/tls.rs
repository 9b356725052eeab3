//! The rustls configurations of both sides, and the two certificate verifiers.

use std::sync::{Arc, Mutex};

use convelo_attest::{Evidence, Matter, Refusal, Stage, Verdict};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};
use sha2::{Digest as _, Sha256};

use crate::expect::Expect;
use crate::identity::Credential;
use crate::provider::provider;
use crate::verdicts;

/// Application protocol of both products' bulk connections: HTTP/2.
pub(crate) const ALPN: &[u8] = b"h2";

pub(crate) fn server_config(resolver: Arc<dyn rustls::server::ResolvesServerCert>) -> ServerConfig {
    let mut config = server_side(provider(), Arc::new(AnyKey::default()), resolver);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

pub(crate) fn client_config(
    credential: &Credential,
    verifier: Arc<dyn ServerCertVerifier>,
) -> ClientConfig {
    let mut config = client_side(provider(), verifier, credential);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// What every listening side has in common: mutual TLS 1.3, nothing that a later connection could
/// resume without the verifier.
pub(crate) fn server_side(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn rustls::server::ResolvesServerCert>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider supports TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// What every connecting side has in common.
pub(crate) fn client_side(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    credential: &Credential,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider supports TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
            &credential.0,
        ))));
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// Server side: any peer may connect that proves the key of its one certificate; who that is, the
/// roster of a job decides. Evidence, where the certificate carries some, must be well formed and
/// bound to the key; whether it is acceptable, the policy of a job decides.
#[derive(Debug, Default)]
struct AnyKey {
    signatures: Signatures,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        single(intermediates).map_err(refused)?;
        Evidence::from_certificate(end_entity, now.as_secs()).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
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
        self.signatures.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// Client side: the service must be what [`Expect`] says. One value serves one connection and
/// keeps what the verification found.
pub(crate) struct Expected {
    expect: Expect,
    outcome: Mutex<Option<Result<Option<Verdict>, Refusal>>>,
    signatures: Signatures,
}

impl Expected {
    pub(crate) fn new(expect: Expect) -> Arc<Self> {
        Arc::new(Self { expect, outcome: Mutex::new(None), signatures: Signatures::default() })
    }

    /// What the verification found, once; nothing when the handshake did not get so far.
    pub(crate) fn take(&self) -> Option<Result<Option<Verdict>, Refusal>> {
        self.outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    fn keep(&self, outcome: Result<Option<Verdict>, Refusal>) {
        *self.outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
    }

    fn verify(&self, certificate: &[u8], now: u64) -> Result<Option<Verdict>, Refusal> {
        match &self.expect {
            Expect::Evidence { policies, collateral, key } => {
                if let Some(pinned) = key {
                    demand_key(certificate, pinned)?;
                }
                let evidence = Evidence::from_certificate(certificate, now)?
                    .ok_or_else(Refusal::missing_evidence)?;
                verdicts::verdict(certificate, &evidence, policies, collateral, now).map(Some)
            }
            Expect::EvidenceWithOffer { key, .. } => {
                if let Some(pinned) = key {
                    demand_key(certificate, pinned)?;
                }
                Evidence::from_certificate(certificate, now)?
                    .ok_or_else(Refusal::missing_evidence)?;
                Ok(None)
            }
            Expect::Key(pinned) => {
                demand_key(certificate, pinned)?;
                Ok(None)
            }
        }
    }
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Expected(..)")
    }
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let outcome = single(intermediates).and_then(|()| self.verify(end_entity, now.as_secs()));
        let result = match &outcome {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(refused(refusal.clone())),
        };
        self.keep(outcome);
        result
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
        self.signatures
            .verify(message, certificate, signature)
            .inspect_err(|error| self.keep(Err(not_the_holder(error))))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// Client side: keeps the certificate and accepts nobody, so that nothing is sent.
#[derive(Debug, Default)]
pub(crate) struct Onlooker {
    seen: Mutex<Option<Vec<u8>>>,
}

impl Onlooker {
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some(end_entity.to_vec());
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("nobody is accepted here".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// What our own certificates and Gramine's sign with.
const SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384];

/// The proof that the peer holds the key of its certificate; the same on both sides.
#[derive(Debug)]
struct Signatures(Arc<CryptoProvider>);

impl Default for Signatures {
    fn default() -> Self {
        Self(provider())
    }
}

impl Signatures {
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
}

fn single(intermediates: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    if intermediates.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        stage: Stage::Certificate,
        code: "certificate-chain",
        found: format!("a chain of {} certificates", intermediates.len() + 1),
        required: "one self-signed certificate".to_owned(),
        matter: Matter::Peer,
        advice: "no peer of ours sends a chain: check who answers".to_owned(),
    })
}

fn refused(refusal: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

pub(crate) fn not_the_holder(error: &Error) -> Refusal {
    Refusal {
        stage: Stage::KeyBinding,
        code: "key-possession",
        found: format!("a handshake that the certificate's key did not sign ({error})"),
        required: "a handshake signed by the key of the certificate".to_owned(),
        matter: Matter::Peer,
        advice: "the certificate belongs to somebody else, it may be stolen: refuse this peer"
            .to_owned(),
    }
}

fn demand_key(certificate: &[u8], pinned: &[u8; 32]) -> Result<(), Refusal> {
    let found = Sha256::digest(convelo_attest::spki_of(certificate)?);
    if found[..] == pinned[..] {
        return Ok(());
    }
    Err(Refusal {
        stage: Stage::KeyBinding,
        code: "service-key",
        found: format!("sha256:{}", hex::encode(found)),
        required: format!("sha256:{}", hex::encode(pinned)),
        matter: Matter::Peer,
        advice: "ask the service's operator for the fingerprint of its key, and check the address"
            .to_owned(),
    })
}

pub(crate) fn tls13_only() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}
