//! Attacks on handshakes: real sockets, real TLS, quotes of a simulated platform.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_attest::{
    Collateral, Policy, QuoteError, QuoteSource, Refusal, Role, extension, report_data,
};
use convelo_channel::limits::{
    CERTIFICATE_RENEWAL, CERTIFICATE_RENEWAL_RETRY, MAXIMUM_BYTES_BEFORE_TRUST, MAXIMUM_HANDSHAKES,
    SEAT_TIMEOUT,
};
use convelo_channel::{
    Answer, AttestError, Attested, DialError, Dialled, Dialler, Exchange, Expect, Identity,
    Listener, PeerStream, ServiceStream,
};
use convelo_simulator::{
    CertificateKnobs, CollateralKnobs, Enclave, Platform, attested_certificate, certificate,
    policy_toml,
};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, NamedGroup,
    ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Nothing here takes long; whatever does, hangs.
const PATIENCE: Duration = Duration::from_secs(10);

type Accepted = mpsc::Receiver<io::Result<PeerStream>>;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The platform that everybody's policy names.
fn platform() -> &'static Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    PLATFORM.get_or_init(|| Arc::new(Platform::new(now()).unwrap()))
}

fn service() -> Enclave {
    Enclave::named("service")
}

fn policy(platform: &Platform, enclave: &Enclave) -> Arc<Policy> {
    Arc::new(Policy::from_toml(&policy_toml(platform, &[("service", enclave)])).unwrap())
}

fn collateral(knobs: &CollateralKnobs) -> Arc<Collateral> {
    Arc::new(platform().collateral(knobs))
}

fn evidence(policies: Vec<Arc<Policy>>) -> Expect {
    Expect::Evidence { policies, collateral: collateral(&CollateralKnobs::default()), key: None }
}

/// What a job asks of its service.
fn genuine() -> Expect {
    evidence(vec![policy(platform(), &service())])
}

fn party() -> Dialler {
    Dialler::new(Identity::generate().plain().unwrap())
}

/// A listener of ours with this evidence.
async fn listen(source: impl QuoteSource + 'static) -> (String, Accepted) {
    listen_as(Identity::generate(), Arc::new(source)).await
}

async fn listen_as(identity: Identity, source: Arc<dyn QuoteSource>) -> (String, Accepted) {
    let listener = Listener::bind("127.0.0.1:0", identity, source).await.unwrap();
    let address = listener.address().unwrap().to_string();
    let (sender, accepted) = mpsc::channel(16);
    tokio::spawn(listener.accept(sender));
    (address, accepted)
}

async fn reach(address: &str, expect: Expect) -> Result<Dialled, DialError> {
    tokio::time::timeout(PATIENCE, party().dial(address, &expect)).await.expect("it hangs")
}

/// The refusal that dialling `address` must end with.
async fn refusal(address: &str, expect: Expect) -> Refusal {
    match reach(address, expect).await {
        Err(DialError::Refused(refusal)) => refusal,
        Err(other) => panic!("failed without a refusal: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

/// Dials a listener of ours that must be refused, and does not hear of this party.
async fn refused(address: &str, mut accepted: Accepted, expect: Expect) -> Refusal {
    let refusal = refusal(address, expect).await;
    nobody(&mut accepted).await;
    refusal
}

/// Nobody was let in, and somebody else still is.
async fn nobody(accepted: &mut Accepted) {
    let none = tokio::time::timeout(Duration::from_millis(200), accepted.recv()).await;
    assert!(none.is_err(), "a connection was accepted");
}

async fn next(accepted: &mut Accepted) -> PeerStream {
    let stream = tokio::time::timeout(PATIENCE, accepted.recv()).await;
    stream.expect("nobody was accepted").expect("the listener ended").unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Certificates and a key, which need not belong together.
fn presented(chain: &[Vec<u8>], key: &KeyPair) -> Arc<SingleCertAndKey> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider().key_provider.load_private_key(key.into()).unwrap();
    let chain = chain.iter().cloned().map(CertificateDer::from).collect();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// A server that presents whatever it is given, and offers tickets as rustls does by default.
fn server(chain: &[Vec<u8>], key: &KeyPair) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(presented(chain, key));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// What a server saw of a handshake that it completed.
struct Seen {
    kind: Option<HandshakeKind>,
    group: Option<NamedGroup>,
    alpn: Option<Vec<u8>>,
    version: Option<rustls::ProtocolVersion>,
}

/// Runs a server that is not ours.
async fn serve(config: ServerConfig) -> (String, mpsc::Receiver<io::Result<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sender, seen) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let outcome = acceptor.accept(tcp).await;
            let (outcome, stream) = match outcome {
                Ok(stream) => {
                    let connection = stream.get_ref().1;
                    let seen = Seen {
                        kind: connection.handshake_kind(),
                        group: connection
                            .negotiated_key_exchange_group()
                            .map(SupportedKxGroup::name),
                        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
                        version: connection.protocol_version(),
                    };
                    (Ok(seen), Some(stream))
                }
                Err(error) => (Err(error), None),
            };
            if sender.send(outcome).await.is_err() {
                return;
            }
            // The tickets arrive, and the stream ends in order.
            if let Some(mut stream) = stream {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (address, seen)
}

/// A client that accepts every server, for attacks on our listener.
fn client(presented: Option<Arc<SingleCertAndKey>>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match presented {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(8);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384]
    }
}

async fn connect(address: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("convelo").unwrap();
    tokio::time::timeout(PATIENCE, TlsConnector::from(config).connect(name, tcp))
        .await
        .expect("it hangs")
}

/// The alert with which our listener answers a client, which hears it at its first read.
async fn alert(address: &str, config: ClientConfig) -> AlertDescription {
    let error = match connect(address, Arc::new(config)).await {
        Err(error) => error,
        Ok(mut stream) => tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16]))
            .await
            .expect("it hangs")
            .expect_err("the listener lets this client in"),
    };
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match alert {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error}"),
    }
}

/// A certificate that carries a genuine quote over its own key.
fn attested(enclave: Enclave, key: &KeyPair) -> Vec<u8> {
    attested_certificate(&platform().enclave(enclave), key, now()).unwrap()
}

/// A certificate over `key` that carries the evidence of `owner`'s.
fn with_evidence_of(owner: &KeyPair, key: &KeyPair) -> Vec<u8> {
    let spki = owner.subject_public_key_info();
    let quote = platform().enclave(service()).quote(&report_data(&spki)).unwrap();
    certificate(key, &CertificateKnobs::at(now()).with(extension(&quote, &spki))).unwrap()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let identity = Identity::generate();
    let (address, mut accepted) =
        listen_as(identity.clone(), Arc::new(platform().enclave(service()))).await;
    let party = Identity::generate();
    let service = Dialler::new(party.plain().unwrap()).dial(&address, &genuine()).await.unwrap();
    let verdict = service.verdict().unwrap();
    assert_eq!(verdict.spki(), identity.spki());
    assert!(verdict.simulated());
    assert_eq!(convelo_attest::spki_of(service.certificate()).unwrap(), identity.spki());
    let mut peer = next(&mut accepted).await;
    assert_eq!(&*peer.peer().spki, party.spki());
    assert!(peer.peer().evidence.is_none());
    let mut stream = service.insecure_ratls_only().unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    peer.read_exact(&mut bytes).await.unwrap();
    peer.write_all(&bytes).await.unwrap();
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

#[tokio::test]
async fn evidence_of_a_party_arrives_bound_to_its_key() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let party = Identity::generate();
    let source = platform().enclave(Enclave::named("provider"));
    let dialler = Dialler::new(party.attested(&source).unwrap());
    let _service = dialler.dial(&address, &genuine()).await.unwrap();
    let peer = next(&mut accepted).await;
    assert_eq!(peer.peer().evidence.as_ref().unwrap().spki(), party.spki());
    assert_eq!(&*peer.peer().spki, party.spki());
}

#[tokio::test]
async fn a_pinned_key_is_enough_where_it_is_all_that_is_asked() {
    let identity = Identity::generate();
    let key = sha256(identity.spki());
    let (address, _accepted) = listen_as(identity, Arc::new(platform().enclave(service()))).await;
    let stream = reach(&address, Expect::Key(key)).await.unwrap();
    assert!(stream.verdict().is_none());
}

#[tokio::test]
async fn stolen_certificate_without_its_key() {
    let (owner, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let stolen = attested(service(), &owner);
    let (address, mut seen) = serve(server(std::slice::from_ref(&stolen), &thief)).await;
    let refusal = refusal(&address, genuine()).await;
    assert_eq!(refusal.code, "key-possession");
    assert!(seen.recv().await.unwrap().is_err());

    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let thief = client(Some(presented(&[stolen], &thief)));
    assert_eq!(alert(&address, thief).await, AlertDescription::DecryptError);
    nobody(&mut accepted).await;
}

#[tokio::test]
async fn stolen_certificate_without_the_pinned_key() {
    let (owner, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let plain = certificate(&owner, &CertificateKnobs::at(now())).unwrap();
    let (address, _seen) = serve(server(&[plain], &thief)).await;
    let pinned = Expect::Key(sha256(&owner.subject_public_key_info()));
    assert_eq!(refusal(&address, pinned).await.code, "key-possession");
}

#[tokio::test]
async fn stolen_evidence_under_another_key() {
    let (owner, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let forged = with_evidence_of(&owner, &thief);
    let (address, _seen) = serve(server(std::slice::from_ref(&forged), &thief)).await;
    let found = refusal(&address, genuine()).await;
    assert_eq!(found.code, "key-binding");
    assert_eq!(found.found, "a claim that does not name the certificate's key");

    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let config = client(Some(presented(&[forged], &thief)));
    assert_eq!(alert(&address, config).await, AlertDescription::CertificateUnknown);
    nobody(&mut accepted).await;
}

#[tokio::test]
async fn stolen_quote_with_claims_of_another_key() {
    let (owner, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let quote = platform()
        .enclave(service())
        .quote(&report_data(&owner.subject_public_key_info()))
        .unwrap();
    let spki = thief.subject_public_key_info();
    let knobs = CertificateKnobs::at(now()).with(extension(&quote, &spki));
    let forged = certificate(&thief, &knobs).unwrap();
    let (address, _seen) = serve(server(&[forged], &thief)).await;
    let found = refusal(&address, genuine()).await;
    assert_eq!(found.code, "key-binding");
    assert_eq!(found.found, "a quote whose report data does not match this key");
}

#[tokio::test]
async fn certificate_that_has_ended() {
    let key = KeyPair::generate().unwrap();
    let spki = key.subject_public_key_info();
    let quote = platform().enclave(service()).quote(&report_data(&spki)).unwrap();
    let knobs = CertificateKnobs::at(now() - 48 * 3600).with(extension(&quote, &spki));
    let (address, _seen) = serve(server(&[certificate(&key, &knobs).unwrap()], &key)).await;
    assert_eq!(refusal(&address, genuine()).await.code, "certificate-expired");
}

#[tokio::test]
async fn wrong_measurement() {
    let other = Enclave::named("another program");
    let (address, accepted) = listen(platform().enclave(other.clone())).await;
    let refusal = refused(&address, accepted, genuine()).await;
    assert_eq!(refusal.code, "measurement");
    assert!(refusal.found.contains(&hex::encode(other.mr_enclave)), "{refusal}");
    assert!(refusal.expected.contains(&hex::encode(service().mr_enclave)), "{refusal}");
}

#[tokio::test]
async fn measurement_that_only_one_of_two_policies_accepts() {
    let (address, accepted) = listen(platform().enclave(service())).await;
    let own = policy(platform(), &Enclave::named("another program"));
    let both = evidence(vec![policy(platform(), &service()), own]);
    assert_eq!(refused(&address, accepted, both).await.code, "measurement");
}

#[tokio::test]
async fn debug_enclave() {
    let debug = Enclave { debug: true, ..service() };
    let (address, accepted) = listen(platform().enclave(debug)).await;
    assert_eq!(refused(&address, accepted, genuine()).await.code, "debug-enclave");
}

#[tokio::test]
async fn expired_collateral() {
    let (address, accepted) = listen(platform().enclave(service())).await;
    let knobs = CollateralKnobs { issued_days_ago: 5, valid_days: 4, ..CollateralKnobs::default() };
    let expect = Expect::Evidence {
        policies: vec![policy(platform(), &service())],
        collateral: collateral(&knobs),
        key: None,
    };
    assert_eq!(refused(&address, accepted, expect).await.code, "collateral-expired");
}

#[tokio::test]
async fn simulated_evidence_under_a_policy_that_does_not_name_it() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let enclave = service();
    let text = format!(
        "version = 1\n[[enclave]]\nname = \"service\"\nmr_enclave = \"{}\"\n",
        hex::encode(enclave.mr_enclave)
    );
    let production = Arc::new(Policy::from_toml(&text).unwrap());
    let refusal = refusal(&address, evidence(vec![production])).await;
    assert_eq!(refusal.code, "unknown-root");
    assert!(refusal.found.contains("SIMULATED SGX Root CA"), "{refusal}");
    assert!(refusal.expected.contains("Intel SGX Root CA"), "{refusal}");
    nobody(&mut accepted).await;

    let elsewhere = Platform::new(now()).unwrap();
    let other_root = evidence(vec![policy(&elsewhere, &enclave)]);
    assert_eq!(refused(&address, accepted, other_root).await.code, "unknown-root");
}

#[tokio::test]
async fn no_evidence() {
    let key = KeyPair::generate().unwrap();
    let plain = certificate(&key, &CertificateKnobs::at(now())).unwrap();
    let (address, mut seen) = serve(server(&[plain], &key)).await;
    assert_eq!(refusal(&address, genuine()).await.code, "no-evidence");
    assert!(seen.recv().await.unwrap().is_err());
}

#[tokio::test]
async fn pinned_key_differs() {
    let identity = Identity::generate();
    let source = Arc::new(platform().enclave(service()));
    let (address, mut accepted) = listen_as(identity.clone(), source).await;
    let refusal = refusal(&address, Expect::Key([7; 32])).await;
    assert_eq!(refusal.code, "pinned-key");
    assert_eq!(refusal.expected, format!("the key sha256:{}", "07".repeat(32)));
    assert!(refusal.found.contains(&hex::encode(sha256(identity.spki()))), "{refusal}");
    nobody(&mut accepted).await;

    let beside_evidence = Expect::Evidence {
        policies: vec![policy(platform(), &service())],
        collateral: collateral(&CollateralKnobs::default()),
        key: Some([7; 32]),
    };
    assert_eq!(refused(&address, accepted, beside_evidence).await.code, "pinned-key");
}

#[tokio::test]
async fn no_policy_accepts_nothing() {
    let (address, accepted) = listen(platform().enclave(service())).await;
    assert_eq!(refused(&address, accepted, evidence(Vec::new())).await.code, "no-policy");
}

#[tokio::test]
async fn client_without_a_certificate() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let alert = alert(&address, client(None)).await;
    assert_eq!(alert, AlertDescription::CertificateRequired);
    nobody(&mut accepted).await;
}

#[tokio::test]
async fn chain_of_two_certificates() {
    let key = KeyPair::generate().unwrap();
    let chain = [attested(service(), &key), attested(service(), &KeyPair::generate().unwrap())];
    let (address, mut seen) = serve(server(&chain, &key)).await;
    let found = refusal(&address, genuine()).await;
    assert_eq!(found.code, "certificate-chain");
    assert_eq!(found.found, "a chain of 2 certificates");
    assert!(seen.recv().await.unwrap().is_err());

    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let config = client(Some(presented(&chain, &key)));
    assert_eq!(alert(&address, config).await, AlertDescription::CertificateUnknown);
    nobody(&mut accepted).await;
}

/// A TLS 1.2 ClientHello (RFC 5246, 7.4.1.2): P-256, ECDSA with SHA-256, no `supported_versions`.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions =
        [&[0, 10, 0, 4, 0, 2, 0, 23][..], &[0, 13, 0, 4, 0, 2, 4, 3], &[0, 11, 0, 2, 1, 0]]
            .concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    handshake_record(1, &body)
}

/// A TLS 1.2 ServerHello that picks ECDHE-ECDSA-AES128-GCM-SHA256.
fn server_hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.extend([0, 0xc0, 0x2b, 0]);
    handshake_record(2, &body)
}

fn handshake_record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut message = vec![kind];
    message.extend(&length[1..]);
    message.extend(body);
    let mut record = vec![22, 3, 3];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}

/// Alert (21), two bytes: fatal (2), `protocol_version` (70).
fn is_protocol_version_alert(record: &[u8]) -> bool {
    record.len() == 7 && record[0] == 21 && record[3..] == [0, 2, 2, 70]
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let mut tcp = TcpStream::connect(&address).await.unwrap();
    tcp.write_all(&client_hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(is_protocol_version_alert(&answer), "{answer:02x?}");
    nobody(&mut accepted).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let old = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let hello = record(&mut tcp).await;
        tcp.write_all(&server_hello_of_tls_1_2()).await.unwrap();
        (hello[0], record(&mut tcp).await)
    });
    match reach(&address, genuine()).await {
        Err(DialError::Handshake { source, .. }) => {
            assert_eq!(source.kind(), ErrorKind::InvalidData, "{source}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
    let (hello, alert) = old.await.unwrap();
    assert_eq!(hello, 22);
    assert!(is_protocol_version_alert(&alert), "{alert:02x?}");
}

/// Reads one TLS record.
async fn record(tcp: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    tcp.read_exact(&mut record).await.unwrap();
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    tcp.read_exact(&mut record[5..]).await.unwrap();
    record
}

#[tokio::test]
async fn no_session_is_resumed() {
    // Our client, at a server that offers tickets and would resume.
    let key = KeyPair::generate().unwrap();
    let (address, mut seen) = serve(server(&[attested(service(), &key)], &key)).await;
    for _ in 0..2 {
        let service = reach(&address, genuine()).await.unwrap();
        assert!(service.verdict().is_some());
        let mut stream = service.insecure_ratls_only().unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let seen = seen.recv().await.unwrap().unwrap();
        assert_eq!(seen.kind, Some(HandshakeKind::Full));
    }
    let elsewhere = evidence(vec![policy(platform(), &Enclave::named("another program"))]);
    assert_eq!(refusal(&address, elsewhere).await.code, "measurement");

    // A client that would resume, at our listener.
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let key = KeyPair::generate().unwrap();
    let plain = certificate(&key, &CertificateKnobs::at(now())).unwrap();
    let config = Arc::new(client(Some(presented(&[plain], &key))));
    for _ in 0..2 {
        let mut stream = connect(&address, Arc::clone(&config)).await.unwrap();
        let mut peer = next(&mut accepted).await;
        peer.write_all(b"hello").await.unwrap();
        peer.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let connection = stream.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
        assert!(!connection.is_early_data_accepted());
    }
}

#[tokio::test]
async fn alpn() {
    let key = KeyPair::generate().unwrap();
    let (address, mut seen) = serve(server(&[attested(service(), &key)], &key)).await;
    let _stream = reach(&address, genuine()).await.unwrap();
    assert_eq!(seen.recv().await.unwrap().unwrap().alpn.as_deref(), Some(&b"h2"[..]));

    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let plain = certificate(&key, &CertificateKnobs::at(now())).unwrap();
    let mut config = client(Some(presented(&[plain], &key)));
    let stream = connect(&address, Arc::new(config.clone())).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    next(&mut accepted).await;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(alert(&address, config).await, AlertDescription::NoApplicationProtocol);
    nobody(&mut accepted).await;
}

#[tokio::test]
async fn slow_handshake_does_not_hold_up_others() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let mut slow = Vec::new();
    for _ in 0..MAXIMUM_HANDSHAKES / 2 + 50 {
        let mut tcp = TcpStream::connect(&address).await.unwrap();
        tcp.write_all(&[22, 3, 1]).await.unwrap();
        slow.push(tcp);
    }
    let quick = tokio::time::timeout(Duration::from_secs(5), reach(&address, genuine())).await;
    assert!(quick.expect("it waits for the slow ones").is_ok());
    next(&mut accepted).await;
}

/// What a balancer says about a connection from 192.0.2.`last`.
fn header(last: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, last, 127, 0, 0, 1, 0x1f, 0x90, 0x1d, 0x13]);
    header
}

/// Dials over a connection that begins with this header.
async fn through_balancer(
    address: &str,
    last: u8,
    dialler: &Dialler,
) -> Result<Dialled, DialError> {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(&header(last)).await.unwrap();
    dialler.dial_over(tcp, address, &genuine()).await
}

/// Whoever floods through a balancer is turned away, and nobody else who comes through it.
#[tokio::test]
async fn flood_of_invalid_certificates_through_a_balancer() {
    let source = Arc::new(platform().enclave(service()));
    let listener = Listener::bind("127.0.0.1:0", Identity::generate(), source).await.unwrap();
    let listener = listener.behind_balancer(true);
    let address = listener.address().unwrap().to_string();
    let (sender, mut accepted) = mpsc::channel(16);
    tokio::spawn(listener.accept(sender));
    let key = KeyPair::generate().unwrap();
    let invalid = CertificateKnobs {
        extensions: vec![(vec![2, 23, 133, 5, 4, 9], vec![0; 10])],
        ..CertificateKnobs::at(now())
    };
    let invalid = certificate(&key, &invalid).unwrap();
    let connector = TlsConnector::from(Arc::new(client(Some(presented(&[invalid], &key)))));
    let name = ServerName::try_from("convelo").unwrap();
    // At least a hundred count, and ten a second are forgiven.
    let turned_away = async {
        loop {
            for _ in 0..50 {
                let mut tcp = TcpStream::connect(&address).await.unwrap();
                tcp.write_all(&header(1)).await.unwrap();
                if let Ok(mut tls) = connector.connect(name.clone(), tcp).await {
                    let _ = tls.read(&mut [0]).await;
                }
            }
            match through_balancer(&address, 1, &party()).await {
                Ok(_) => drop(next(&mut accepted).await),
                Err(DialError::Handshake { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE * 6, turned_away).await.expect("it is never turned away");
    through_balancer(&address, 2, &party()).await.unwrap();
    let peer = next(&mut accepted).await.peer().clone();
    assert_eq!(peer.address.to_string(), "192.0.2.2:8080");
}

/// A connection that gets no seat does not stay.
#[tokio::test]
async fn connection_that_does_nothing_after_its_handshake() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let dialled = reach(&address, genuine()).await.unwrap();
    let mut stream = next(&mut accepted).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let ended = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionAborted);
    assert!(begun.elapsed() < SEAT_TIMEOUT + Duration::from_secs(1));
    drop(dialled);
}

#[tokio::test]
async fn garbage_on_the_port() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let garbage: [&[u8]; 5] =
        [b"", b"GET / HTTP/1.1\r\n\r\n", &[0; 4096], &[0xff; 4096], &[22, 3, 1, 0xff, 0xff]];
    for bytes in garbage {
        let mut tcp = TcpStream::connect(&address).await.unwrap();
        // The listener may have hung up before it has read everything.
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        let ended = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the listener keeps {} bytes of garbage", bytes.len());
    }
    nobody(&mut accepted).await;
    reach(&address, genuine()).await.unwrap();
    next(&mut accepted).await;

    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0; 4096], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let _ = tcp.write_all(bytes).await;
            let _ = tcp.shutdown().await;
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        });
        let outcome = reach(&address, genuine()).await;
        assert!(matches!(outcome, Err(DialError::Handshake { .. })));
    }
}

/// Passes one connection on to `address`, and yields what the client sent when it hung up.
async fn recording_proxy(address: String) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap().to_string();
    let recording = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_service, mut to_service) =
            TcpStream::connect(address).await.unwrap().into_split();
        let back =
            tokio::spawn(async move { tokio::io::copy(&mut from_service, &mut to_client).await });
        let (mut sent, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            sent.extend_from_slice(&buffer[..read]);
            let _ = to_service.write_all(&buffer[..read]).await;
        }
        back.abort();
        sent
    });
    (proxy, recording)
}

/// The outer type and the length of every TLS record in what a client sent.
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = rest.get(length..).expect("whole records");
    }
    assert!(bytes.is_empty(), "whole records");
    records
}

#[tokio::test]
async fn nothing_is_sent_before_the_verdict() {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    const ENCRYPTED: u8 = 23;
    // An alert has two bytes; its true type and the tag of the cipher come on top.
    const ENCRYPTED_ALERT: usize = 2 + 1 + 16;

    let (address, _accepted) = listen(platform().enclave(service())).await;
    let expired = CollateralKnobs { valid_days: -1, ..CollateralKnobs::default() };
    let expectations = [
        evidence(vec![policy(platform(), &Enclave::named("another program"))]),
        evidence(vec![policy(&Platform::new(now()).unwrap(), &service())]),
        evidence(Vec::new()),
        Expect::Evidence {
            policies: vec![policy(platform(), &service())],
            collateral: collateral(&expired),
            key: None,
        },
        Expect::Key([7; 32]),
    ];
    for expect in expectations {
        let (proxy, recording) = recording_proxy(address.clone()).await;
        refusal(&proxy, expect).await;
        let sent = tokio::time::timeout(PATIENCE, recording).await.unwrap().unwrap();
        let mut records = records(&sent);
        assert_eq!(records.remove(0).0, HANDSHAKE, "the ClientHello, which is public");
        records.retain(|(kind, _)| *kind != CHANGE_CIPHER_SPEC);
        // The alert is lost when the client hangs up before it has read all that was sent to it.
        let alert = [(ENCRYPTED, ENCRYPTED_ALERT)];
        assert!(records.is_empty() || records == alert, "more than an alert: {records:?}");
    }

    // The same proxy sees more of a handshake that succeeds.
    let (proxy, recording) = recording_proxy(address).await;
    drop(reach(&proxy, genuine()).await.unwrap());
    let sent = tokio::time::timeout(PATIENCE, recording).await.unwrap().unwrap();
    let encrypted = records(&sent).into_iter().filter(|(kind, _)| *kind == ENCRYPTED);
    assert!(encrypted.map(|(_, length)| length).sum::<usize>() > 300);
}

/// SHA-256 of the job that fresh exchanges here are for.
const JOB: [u8; 32] = [3; 32];

/// A service's half of a fresh exchange, on a stream without any framing of its own.
async fn prove(peer: &mut PeerStream, source: &dyn QuoteSource) {
    let mut party_nonce = [0; 32];
    peer.read_exact(&mut party_nonce).await.unwrap();
    let exchange = Exchange { party_nonce, service_nonce: [9; 32], job: JOB };
    let quote = source.quote(&peer.peer().binding.report_data(Role::Service, &exchange)).unwrap();
    peer.write_all(&exchange.service_nonce).await.unwrap();
    peer.write_u32(u32::try_from(quote.len()).unwrap()).await.unwrap();
    peer.write_all(&quote).await.unwrap();
    peer.flush().await.unwrap();
}

/// A party's half.
async fn carry(
    mut stream: ServiceStream,
    challenge: [u8; 32],
) -> io::Result<(ServiceStream, Answer)> {
    stream.write_all(&challenge).await?;
    stream.flush().await?;
    let mut nonce = [0; 32];
    stream.read_exact(&mut nonce).await?;
    let mut quote = vec![0; usize::try_from(stream.read_u32().await?).unwrap()];
    stream.read_exact(&mut quote).await?;
    Ok((stream, Answer { nonce, quote, collateral: Vec::new() }))
}

/// Both halves, with a service that answers from `source`.
async fn exchanged(
    expect: Expect,
    source: &dyn QuoteSource,
) -> (Result<Attested<ServiceStream>, AttestError<io::Error>>, PeerStream) {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let dialled = reach(&address, expect).await.unwrap();
    let mut peer = next(&mut accepted).await;
    let both = async { tokio::join!(dialled.attest(JOB, carry), prove(&mut peer, source)) };
    let (attested, ()) = tokio::time::timeout(PATIENCE, both).await.expect("it hangs");
    (attested, peer)
}

#[tokio::test]
async fn a_fresh_exchange_opens_the_stream() {
    let source = platform().enclave(service());
    let (attested, mut peer) = exchanged(genuine(), &source).await;
    let Attested { mut carrier, answered, attestation } = attested.unwrap();
    let fresh = answered.fresh.unwrap();
    assert!(fresh.verdict().fresh());
    let (sent, mut received) = (vec![7; 2 * MAXIMUM_BYTES_BEFORE_TRUST], Vec::new());
    carrier.write_all(&sent).await.unwrap();
    carrier.shutdown().await.unwrap();
    peer.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, sent);

    // The same connection can be asked again, and one answer is not another's.
    let challenge = attestation.challenge();
    let exchange = Exchange { party_nonce: challenge.nonce(), service_nonce: [8; 32], job: JOB };
    let quote = source.quote(&peer.peer().binding.report_data(Role::Service, &exchange)).unwrap();
    let answer = Answer { nonce: [8; 32], quote, collateral: Vec::new() };
    assert!(attestation.verify(challenge, &answer, now()).unwrap().fresh.is_some());
    let replayed = attestation.verify(attestation.challenge(), &answer, now()).unwrap_err();
    assert_eq!(replayed.code, "key-binding");
}

#[tokio::test]
async fn quote_of_another_enclave_in_the_fresh_exchange() {
    let other = platform().enclave(Enclave::named("another program"));
    match exchanged(genuine(), &other).await.0 {
        Err(AttestError::Refused(refusal)) => assert_eq!(refusal.code, "measurement"),
        Err(AttestError::Carrier(error)) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn records_sent_before_the_verdict() {
    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let dialled = reach(&address, genuine()).await.unwrap();
    let mut peer = next(&mut accepted).await;
    // A carrier that means ill, or is wrong: it sends what it should not, and keeps the stream.
    let mut kept = None;
    let refused = dialled
        .attest(JOB, async |mut stream: ServiceStream, _| {
            stream.write_all(&[0; MAXIMUM_BYTES_BEFORE_TRUST]).await?;
            let error = stream.write_all(b"records").await.unwrap_err();
            kept = Some(stream);
            Err::<((), Answer), io::Error>(error)
        })
        .await;
    let Err(AttestError::Carrier(error)) = refused else { panic!("it was let through") };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let mut stream = kept.unwrap();
    let error = stream.write_all(b"records").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [0; MAXIMUM_BYTES_BEFORE_TRUST]);
}

#[tokio::test]
async fn evidence_that_nobody_verified_is_not_taken_by_its_certificate() {
    let offered = Expect::EvidenceWithOffer {
        policies: vec![policy(platform(), &Enclave::named("another program"))],
        key: None,
    };
    let (address, _accepted) = listen(platform().enclave(service())).await;
    let service = reach(&address, offered).await.unwrap();
    assert!(service.verdict().is_none());
    assert_eq!(service.insecure_ratls_only().unwrap_err().code, "no-collateral");
}

#[tokio::test]
async fn post_quantum_group_is_negotiated() {
    let key = KeyPair::generate().unwrap();
    let (address, mut seen) = serve(server(&[attested(service(), &key)], &key)).await;
    let _stream = reach(&address, genuine()).await.unwrap();
    let seen = seen.recv().await.unwrap().unwrap();
    assert_eq!(seen.group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(seen.version, Some(rustls::ProtocolVersion::TLSv1_3));

    let (address, mut accepted) = listen(platform().enclave(service())).await;
    let plain = certificate(&key, &CertificateKnobs::at(now())).unwrap();
    let config = client(Some(presented(&[plain], &key)));
    let stream = connect(&address, Arc::new(config)).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    next(&mut accepted).await;
}

/// A service, or somebody in between, that has only key exchanges which a later quantum computer
/// breaks.
#[tokio::test]
async fn downgrade_to_a_key_exchange_that_is_not_hybrid() {
    let key = KeyPair::generate().unwrap();
    let chain = [attested(service(), &key)];
    let classical = Arc::new(CryptoProvider {
        kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519],
        ..rustls::crypto::aws_lc_rs::default_provider()
    });
    let mut config = ServerConfig::builder_with_provider(classical)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(presented(&chain, &key));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (address, mut seen) = serve(config).await;
    let hybrid = || Dialler::hybrid(Identity::generate().plain().unwrap());
    let error = hybrid().dial(&address, &genuine()).await.unwrap_err();
    assert!(matches!(error, DialError::KeyExchange { .. }), "{error}");
    assert!(seen.recv().await.unwrap().is_err(), "the handshake did not end");
    // Without the demand, it is accepted.
    reach(&address, genuine()).await.unwrap();
    assert_eq!(seen.recv().await.unwrap().unwrap().group, Some(NamedGroup::X25519));

    let (address, mut seen) = serve(server(&chain, &key)).await;
    hybrid().dial(&address, &genuine()).await.unwrap();
    assert_eq!(seen.recv().await.unwrap().unwrap().group, Some(NamedGroup::X25519MLKEM768));
}

/// A source that can be made to fail.
struct Fickle {
    source: convelo_simulator::SimulatedEnclave,
    broken: AtomicBool,
}

impl QuoteSource for Fickle {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(QuoteError::Source("broken".to_owned()));
        }
        self.source.quote(report_data)
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}

/// Lets the clock of this test's runtime jump.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The certificate that a new connection sees.
async fn shown(address: &str, accepted: &mut Accepted) -> Vec<u8> {
    let stream = reach(address, genuine()).await.unwrap();
    next(accepted).await;
    stream.certificate().to_vec()
}

async fn changed(address: &str, accepted: &mut Accepted, from: &[u8]) -> bool {
    for _ in 0..20 {
        if shown(address, accepted).await != from {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test]
async fn certificate_is_renewed() {
    let identity = Identity::generate();
    let source =
        Arc::new(Fickle { source: platform().enclave(service()), broken: AtomicBool::new(false) });
    let (address, mut accepted) = listen_as(identity.clone(), source.clone()).await;
    let first = shown(&address, &mut accepted).await;
    let minute = Duration::from_mins(1);
    pass(CERTIFICATE_RENEWAL.saturating_sub(minute)).await;
    assert_eq!(shown(&address, &mut accepted).await, first, "renewed too early");
    pass(minute).await;
    assert!(changed(&address, &mut accepted, &first).await, "not renewed");
    let second = shown(&address, &mut accepted).await;
    assert_eq!(convelo_attest::spki_of(&second).unwrap(), identity.spki());

    // A quote that cannot be had leaves the old certificate in place, and is asked for again.
    source.broken.store(true, Ordering::SeqCst);
    pass(CERTIFICATE_RENEWAL + Duration::from_secs(1)).await;
    assert!(!changed(&address, &mut accepted, &second).await);
    source.broken.store(false, Ordering::SeqCst);
    pass(CERTIFICATE_RENEWAL_RETRY + Duration::from_secs(1)).await;
    assert!(changed(&address, &mut accepted, &second).await, "not tried again");
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
