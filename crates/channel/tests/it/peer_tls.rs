//! Attacks on, and situations of, mutual TLS between the parties of a pool: real sockets, real TLS,
//! Python's `ssl` as the other side.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_attest::{Matter, Policy, QuoteSource as _, Refusal, extension, report_data};
use convelo_channel::limits::{HANDSHAKE_TIMEOUT, MAXIMUM_CHAIN_CERTIFICATES};
use convelo_channel::{
    Authority, AuthorityError, Credential, CredentialError, Expect, Identity, PeerTls,
    PeerTlsError, ProvenPeer, Roots, certificate_identity, refused_by_peer, self_signed,
};
use convelo_simulator::{
    CertificateKnobs, CollateralKnobs, Enclave, Platform, certificate, policy_toml,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SerialNumber, SigningKey as _,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

/// Nothing here takes long; whatever does, hangs.
const PATIENCE: Duration = Duration::from_secs(10);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

fn authority(name: &str) -> Authority {
    Authority::generate(name, 30).unwrap()
}

fn party(authority: &Authority, name: &str) -> Credential {
    let issued = authority.issue(name, &["localhost"], 30).unwrap();
    Credential::from_pem(issued.key_pem.as_bytes(), issued.certificate_pem.as_bytes()).unwrap()
}

fn roots(authorities: &[&Authority]) -> Roots {
    let pem: String = authorities.iter().map(|authority| authority.certificate_pem()).collect();
    Roots::from_pem(pem.as_bytes()).unwrap()
}

/// A party that trusts `authority` and holds a certificate of it.
fn member(authority: &Authority, name: &str) -> PeerTls {
    PeerTls::new(party(authority, name), Some(roots(&[authority])))
}

fn self_made() -> Credential {
    Identity::generate().plain().unwrap()
}

fn registered(credential: &Credential) -> Expect {
    Expect::Certificate(credential.certificate().to_vec())
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn pem(der: &[u8]) -> String {
    use x509_cert::der::pem::{LineEnding, encode_string};
    encode_string("CERTIFICATE", LineEnding::LF, der).unwrap()
}

/// What both sides of one connection found. The client's side includes the answer to its first
/// bytes, with which the server's judgement arrives.
struct Meeting {
    server: Result<ProvenPeer, PeerTlsError>,
    client: Result<ProvenPeer, PeerTlsError>,
    answer: Option<io::Result<[u8; 4]>>,
}

async fn meet(server: &PeerTls, client: &PeerTls, expect: &Expect) -> Meeting {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut tls, peer) = server.accept(tcp).await?;
        let mut bytes = [0; 4];
        if tls.read_exact(&mut bytes).await.is_ok() {
            tls.write_all(&bytes).await.unwrap();
            tls.shutdown().await.unwrap();
        }
        Ok(peer)
    };
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        match client.connect(tcp, expect).await {
            Ok((mut tls, peer)) => (Ok(peer), Some(ping(&mut tls).await)),
            Err(error) => (Err(error), None),
        }
    };
    let both = async { tokio::join!(serve, dial) };
    let (server, (client, answer)) = tokio::time::timeout(PATIENCE, both).await.expect("it hangs");
    Meeting { server, client, answer }
}

async fn ping(tls: &mut client::TlsStream<TcpStream>) -> io::Result<[u8; 4]> {
    let mut bytes = [0; 4];
    tls.write_all(b"ping").await?;
    tls.flush().await?;
    tls.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl Meeting {
    /// Both sides are content: (what the server knows of the client, and the other way round).
    fn succeeded(self) -> (ProvenPeer, ProvenPeer) {
        let peers = (self.server.unwrap(), self.client.unwrap());
        assert_eq!(&self.answer.unwrap().unwrap(), b"ping");
        peers
    }

    /// The server refused the client in the handshake, and the client heard why.
    fn refused_by_server(self) -> (Refusal, String) {
        let refusal = refusal(self.server);
        self.client.unwrap();
        let error = self.answer.unwrap().unwrap_err();
        let words = refused_by_peer(&error).unwrap_or_else(|| panic!("not an alert: {error}"));
        (refusal, words)
    }

    /// The client refused the server in the handshake, and the server heard why.
    fn refused_by_client(self) -> (Refusal, String) {
        match self.server {
            Err(PeerTlsError::RefusedByPeer(words)) => (refusal(self.client), words),
            other => panic!("the server did not hear of a refusal: {other:?}"),
        }
    }
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, PeerTlsError>) -> Refusal {
    match outcome {
        Err(PeerTlsError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// An authority that says whatever a test needs.
struct Forge {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Forge {
    fn new(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = common_name("Forge");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn roots(&self) -> Roots {
        Roots::from_pem(self.pem.as_bytes()).unwrap()
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Credential {
        self.issue_over(&KeyPair::generate().unwrap(), name, change)
    }

    fn issue_over(
        &self,
        key: &KeyPair,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credential {
        let mut params = common_name(name);
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap().pem();
        credential(key, &certificate)
    }
}

fn common_name(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn credential(key: &KeyPair, chain: &str) -> Credential {
    Credential::from_pem(key.serialize_pem().as_bytes(), chain.as_bytes()).unwrap()
}

fn days(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::days(days)
}

// Definite-length DER of what certificates consist of: (tag, contents, rest).
fn split(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, header) = match der[1] {
        short @ ..=0x7f => (usize::from(short), 2),
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        other => panic!("a length of {other:#x}"),
    };
    (der[0], &der[header..header + length], &der[header + length..])
}

fn join(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = match u16::try_from(contents.len()).unwrap().to_be_bytes() {
        [0, short @ ..=0x7f] => vec![short],
        [0, long] => vec![0x81, long],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag], &length[..], &contents].concat()
}

/// The certificate as X.509 version 1: no version, no extensions, signed anew.
fn version_1(der: &[u8], signer: &KeyPair) -> Vec<u8> {
    let (_, certificate, _) = split(der);
    let (_, mut rest, after) = split(certificate);
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (tag, contents, next) = split(rest);
        if !matches!(tag, 0xa0 | 0xa3) {
            fields.push(join(tag, &[contents]));
        }
        rest = next;
    }
    let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let signed = join(0x30, &fields);
    let (_, algorithm, _) = split(after);
    let signature = signer.sign(&signed).unwrap();
    join(0x30, &[&signed, &join(0x30, &[algorithm]), &join(3, &[&[0], &signature])])
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = authority("Test CA");
    let (alice, bob) = (member(&ca, "alice"), member(&ca, "bob"));
    let met = meet(&bob, &alice, &registered(&bob.credential())).await;
    let (seen_by_bob, seen_by_alice) = met.succeeded();
    for (seen, who) in [(&seen_by_bob, &alice), (&seen_by_alice, &bob)] {
        assert_eq!(seen.certificate(), who.credential().certificate());
        assert_eq!(seen.key_id(), who.credential().key_id());
        let spki = convelo_attest::spki_of(seen.certificate()).unwrap();
        assert_eq!(seen.key_id(), sha256(&spki));
        assert!(seen.chained());
        assert!(seen.evidence().is_none() && seen.verdict().is_none());
    }
    assert!(seen_by_bob.describe().contains("subject 'CN=alice', issuer 'CN=Test CA'"));
    assert!(registered(&alice.credential()).accepts(&seen_by_bob, now()).unwrap().is_none());
}

#[tokio::test]
async fn the_hosts_that_an_authority_has_certified() {
    let ca = authority("ca");
    let bob = member(&ca, "bob");
    let hosts_of = async |credential: Credential, hosts: &[&str]| {
        let alice = PeerTls::new(credential, Some(roots(&[&ca])));
        let (seen, _) = meet(&bob, &alice, &Expect::Chained).await.succeeded();
        hosts.iter().map(|host| seen.names_host(host)).collect::<Vec<_>>()
    };
    let issued = |names: &[&str]| {
        let issued = ca.issue("alice.example", names, 30).unwrap();
        Credential::from_pem(issued.key_pem.as_bytes(), issued.certificate_pem.as_bytes()).unwrap()
    };
    let all = ["a.example", "A.EXAMPLE", "b.a.example", "192.0.2.1", "::1", "alice.example", ""];
    let named = hosts_of(issued(&["a.example", "192.0.2.1", "::1"]), &all).await;
    assert_eq!(named, [true, true, false, true, true, false, false]);
    // The common name counts if nothing else is there, as it does for Python's ssl of old.
    let named = hosts_of(issued(&[]), &["alice.example", "ALICE.example", "a.example", ""]).await;
    assert_eq!(named, [true, true, false, false]);
    let wild = issued(&["*.a.example"]);
    let wild = hosts_of(wild, &["b.a.example", "c.b.a.example", "a.example"]).await;
    assert_eq!(wild, [true, false, false]);
    let identity = Identity::generate();
    let certificate = self_signed(&identity, "localhost", 30).unwrap();
    let own = Credential::from_pem(identity.to_pem().as_bytes(), certificate.as_bytes()).unwrap();
    assert_eq!(hosts_of(own, &["localhost"]).await, [false], "nobody has certified it");
}

#[tokio::test]
async fn two_authorities_with_one_name() {
    let make = || Forge::new(|params| params.serial_number = Some(SerialNumber::from_slice(&[1])));
    let (honest, evil) = (make(), make());
    let serial = |params: &mut CertificateParams| {
        params.serial_number = Some(SerialNumber::from_slice(&[42]));
    };
    let (alice, mallory) = (honest.issue("alice", serial), evil.issue("alice", serial));
    let identity = certificate_identity(alice.certificate()).unwrap();
    assert_eq!(identity, ("Forge".to_owned(), "42".to_owned()));
    assert_eq!(identity, certificate_identity(mallory.certificate()).unwrap());

    let both = Some(Roots::from_pem((honest.pem.clone() + &evil.pem).as_bytes()).unwrap());
    let bob = PeerTls::new(honest.issue("bob", |_| ()), both.clone());
    let alice_tls = PeerTls::new(alice.clone(), both.clone());
    let mallory_tls = PeerTls::new(mallory.clone(), both.clone());

    let (genuine, _) = meet(&bob, &alice_tls, &registered(&bob.credential())).await.succeeded();
    registered(&alice).accepts(&genuine, now()).unwrap();

    // She comes to Bob, who trusts both authorities.
    let (forged, _) = meet(&bob, &mallory_tls, &registered(&bob.credential())).await.succeeded();
    assert!(forged.chained());
    let refusal = registered(&alice).accepts(&forged, now()).unwrap_err();
    assert_eq!(refusal.code, "peer-certificate");
    assert!(refusal.found.contains(&hex::encode(mallory.key_id())), "{refusal}");
    assert!(refusal.expected.contains(&hex::encode(alice.key_id())), "{refusal}");

    // Bob comes to her.
    let met = meet(&mallory_tls, &bob, &registered(&alice)).await;
    let (refusal, words) = met.refused_by_client();
    assert_eq!(refusal.code, "peer-certificate");
    assert!(words.starts_with("access_denied"), "{words}");

    // Where only the honest authority is trusted, the name alone does not open the handshake.
    let strict = PeerTls::new(honest.issue("bob", |_| ()), Some(honest.roots()));
    let met = meet(&strict, &mallory_tls, &registered(&strict.credential())).await;
    let (refusal, words) = met.refused_by_server();
    assert_eq!(refusal.code, "unknown-authority");
    assert!(words.starts_with("unknown_ca"), "{words}");
}

#[tokio::test]
async fn issuer_name_begins_with_country_or_organisation() {
    for (kind, value) in [
        (DnType::CountryName, DnValue::PrintableString("NL".try_into().unwrap())),
        (DnType::OrganizationName, DnValue::Utf8String("Example".to_owned())),
    ] {
        let ca = Forge::new(|params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(kind, value);
            params.distinguished_name.push(DnType::CommonName, "Corporate CA");
        });
        let (alice, bob) = (ca.issue("alice", |_| ()), ca.issue("bob", |_| ()));
        assert_eq!(certificate_identity(alice.certificate()).unwrap().0, "Corporate CA");
        let (alice, bob) =
            (PeerTls::new(alice, Some(ca.roots())), PeerTls::new(bob, Some(ca.roots())));
        let met = meet(&bob, &alice, &registered(&bob.credential())).await;
        let (seen, _) = met.succeeded();
        registered(&alice.credential()).accepts(&seen, now()).unwrap();

        // Its key and certificate go on issuing here, under exactly the same name.
        let taken_up = Authority::from_pem(&ca.issuer.key().serialize_pem(), &ca.pem).unwrap();
        let carol = PeerTls::new(party(&taken_up, "carol"), Some(ca.roots()));
        meet(&bob, &carol, &registered(&bob.credential())).await.succeeded();
    }
}

#[tokio::test]
async fn certificate_of_another_party() {
    let ca = authority("Test CA");
    let (alice, bob, carol) = (member(&ca, "alice"), member(&ca, "bob"), member(&ca, "carol"));
    let met = meet(&carol, &alice, &registered(&bob.credential())).await;
    let (refusal, words) = met.refused_by_client();
    assert_eq!((refusal.code, refusal.matter), ("peer-certificate", Matter::Peer));
    assert!(refusal.found.contains("subject 'CN=carol'"), "{refusal}");
    assert!(refusal.expected.contains("subject 'CN=bob'"), "{refusal}");
    assert!(words.starts_with("access_denied"), "{words}");
    let text = PeerTlsError::Refused(refusal).to_string();
    assert!(
        text.starts_with("the peer is refused at the certificate [peer-certificate]: expected")
    );

    let (seen, _) = meet(&bob, &carol, &Expect::Chained).await.succeeded();
    let refusal = registered(&alice.credential()).accepts(&seen, now()).unwrap_err();
    assert_eq!(refusal.code, "peer-certificate");
}

#[tokio::test]
async fn certificate_renewed_over_the_same_key() {
    let ca = Forge::new(|_| ());
    let key = KeyPair::generate().unwrap();
    let old = ca.issue_over(&key, "bob", |_| ());
    let new = ca.issue_over(&key, "bob 2", |_| ());
    assert_ne!(old.certificate(), new.certificate());
    let alice = PeerTls::new(ca.issue("alice", |_| ()), Some(ca.roots()));
    let bob = PeerTls::new(old.clone(), Some(ca.roots()));
    meet(&bob, &alice, &registered(&new)).await.succeeded();
    bob.replace_credential(new.clone());
    let (_, seen) = meet(&bob, &alice, &registered(&old)).await.succeeded();
    assert_eq!(seen.certificate(), new.certificate());
}

/// A certificate and a key that need not belong together, for rustls itself.
fn presented(certificate: &[u8], key: &KeyPair) -> Arc<SingleCertAndKey> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider.key_provider.load_private_key(key.into()).unwrap();
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// rustls as other software sets it up: it compares the host name and keeps sessions.
fn foreign_client(ca: &Authority, presented: Option<Arc<SingleCertAndKey>>) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add(der(ca.certificate_pem()).into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(store);
    Arc::new(match presented {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    })
}

async fn foreign_meet(
    server: &PeerTls,
    config: Arc<ClientConfig>,
) -> (Result<ProvenPeer, PeerTlsError>, io::Result<client::TlsStream<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut tls, peer) = server.accept(tcp).await?;
        tls.write_all(b"ping").await.unwrap();
        Ok(peer)
    };
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = TlsConnector::from(config).connect(name, tcp).await?;
        tls.read_exact(&mut [0; 4]).await?;
        Ok(tls)
    };
    let both = async { tokio::join!(serve, dial) };
    tokio::time::timeout(PATIENCE, both).await.expect("it hangs")
}

#[tokio::test]
async fn stolen_certificate_without_key() {
    let ca = authority("Test CA");
    let (alice, bob) = (member(&ca, "alice"), member(&ca, "bob"));
    let thief = KeyPair::generate().unwrap();
    let stolen = presented(alice.credential().certificate(), &thief);

    let (server, client) = foreign_meet(&bob, foreign_client(&ca, Some(stolen))).await;
    assert_eq!(refusal(server).code, "key-possession");
    assert!(refused_by_peer(&client.unwrap_err()).unwrap().starts_with("decrypt_error"));

    let config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_cert_resolver(presented(bob.credential().certificate(), &thief));
    for expect in [registered(&bob.credential()), Expect::Key(bob.credential().key_id())] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let serve = TlsAcceptor::from(Arc::new(config.clone())).accept(other);
        let (server, client) = tokio::join!(serve, alice.connect(tcp, &expect));
        assert!(server.is_err());
        assert_eq!(refusal(client.map(|(_, peer)| peer)).code, "key-possession");
    }

    let pem = KeyPair::generate().unwrap().serialize_pem();
    let error = Credential::from_pem(pem.as_bytes(), ca.certificate_pem().as_bytes());
    assert!(matches!(error, Err(CredentialError::Mismatch { .. })), "{error:?}");
}

#[tokio::test]
async fn expired_certificate() {
    out_of_its_life(-30, -1, "certificate-expired", "which expired at").await;
}

#[tokio::test]
async fn not_yet_valid() {
    out_of_its_life(1, 30, "certificate-not-yet-valid", "which is not valid before").await;
}

async fn out_of_its_life(from: i64, to: i64, code: &str, found: &str) {
    let ca = Forge::new(|_| ());
    let window = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (days(from), days(to));
    };
    let late = PeerTls::new(ca.issue("late", window), Some(ca.roots()));
    let good = PeerTls::new(ca.issue("good", |_| ()), Some(ca.roots()));
    let (refusal, words) =
        meet(&good, &late, &registered(&good.credential())).await.refused_by_server();
    assert_eq!((refusal.code, refusal.matter), (code, Matter::Clock));
    assert!(refusal.found.contains(found), "{refusal}");
    assert!(words.starts_with("certificate_expired"), "{words}");

    let (refusal, words) =
        meet(&late, &good, &registered(&late.credential())).await.refused_by_client();
    assert_eq!(refusal.code, code);
    assert!(words.starts_with("certificate_expired"), "{words}");
}

#[tokio::test]
async fn authority_past_its_end() {
    let ca = Forge::new(|params| {
        (params.not_before, params.not_after) = (days(-30), days(-1));
    });
    let (alice, bob) = (ca.issue("alice", |_| ()), ca.issue("bob", |_| ()));
    let bob_tls = PeerTls::new(bob.clone(), Some(ca.roots()));
    let alice_tls = PeerTls::new(alice, Some(ca.roots()));
    let (refusal, _) = meet(&bob_tls, &alice_tls, &registered(&bob)).await.refused_by_client();
    assert_eq!(refusal.code, "authority-expired");

    // The same authority, renewed over its key, stands beside the old certificate.
    let mut params = common_name("Forge");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let renewed = params.self_signed(ca.issuer.key()).unwrap().pem();
    let both = Roots::from_pem((ca.pem.clone() + &renewed).as_bytes()).unwrap();
    let bob_tls = PeerTls::new(bob_tls.credential(), Some(both.clone()));
    let alice_tls = PeerTls::new(alice_tls.credential(), Some(both));
    meet(&bob_tls, &alice_tls, &registered(&bob)).await.succeeded();
}

#[test]
fn authority_of_version_1() {
    let ca = Forge::new(|_| ());
    let old = pem(&version_1(&der(&ca.pem), ca.issuer.key()));
    let error =
        Roots::from_pem((authority("Good CA").certificate_pem().to_owned() + &old).as_bytes())
            .unwrap_err();
    let expected =
        CredentialError::AuthorityVersion { subject: "CN=Forge".to_owned(), number: 2, version: 1 };
    assert_eq!(error, expected);
    let text = error.to_string();
    assert!(text.contains("X.509 certificate of version 1, expected version 3"), "{text}");
    assert!(text.contains("-extfile ca.ext"), "{text}");
    let error = Authority::from_pem(&ca.issuer.key().serialize_pem(), &old).unwrap_err();
    assert!(matches!(error, AuthorityError::NotAnAuthority { .. }), "{error}");
}

/// The replaced package's own test certificates are of this kind.
#[tokio::test]
async fn certificate_of_version_1_of_a_party() {
    let (ca, evil) = (Forge::new(|_| ()), Forge::new(|_| ()));
    let old = |forge: &Forge, name: &str, change: fn(&mut CertificateParams)| {
        let key = KeyPair::generate().unwrap();
        let new = forge.issue_over(&key, name, change);
        credential(&key, &pem(&version_1(new.certificate(), forge.issuer.key())))
    };
    let alice = PeerTls::new(old(&ca, "alice", |_| ()), Some(ca.roots()));
    let bob = PeerTls::new(old(&ca, "bob", |_| ()), Some(ca.roots()));
    let (seen, _) = meet(&bob, &alice, &registered(&bob.credential())).await.succeeded();
    assert!(seen.chained());
    registered(&alice.credential()).accepts(&seen, now()).unwrap();

    let mallory = PeerTls::new(old(&evil, "alice", |_| ()), Some(ca.roots()));
    let met = meet(&bob, &mallory, &registered(&bob.credential())).await;
    assert_eq!(met.refused_by_server().0.code, "unknown-authority");
    let late = old(&ca, "late", |params| {
        (params.not_before, params.not_after) = (days(-30), days(-1));
    });
    let met =
        meet(&bob, &PeerTls::new(late, Some(ca.roots())), &registered(&bob.credential())).await;
    assert_eq!(met.refused_by_server().0.code, "certificate-expired");
}

#[tokio::test]
async fn client_without_certificate() {
    let ca = authority("Test CA");
    let bob = member(&ca, "bob");
    let (server, client) = foreign_meet(&bob, foreign_client(&ca, None)).await;
    assert_eq!(refusal(server).code, "no-certificate");
    let words = refused_by_peer(&client.unwrap_err()).unwrap();
    assert!(words.starts_with("certificate_required"), "{words}");
}

#[tokio::test]
async fn pinned_key_accepted_and_refused() {
    let identity = Identity::generate();
    let certificate = self_signed(&identity, "bob", 365).unwrap();
    let bob = Credential::from_pem(identity.to_pem().as_bytes(), certificate.as_bytes()).unwrap();
    assert_eq!(bob.key_id(), sha256(identity.spki()));
    let (bob, alice) = (PeerTls::new(bob, None), PeerTls::new(self_made(), None));
    let key = Expect::Key(bob.credential().key_id());
    let (seen_by_bob, seen_by_alice) = meet(&bob, &alice, &key).await.succeeded();
    assert!(!seen_by_bob.chained() && !seen_by_alice.chained());
    let alices = Expect::Key(alice.credential().key_id());
    assert!(alices.accepts(&seen_by_bob, now()).unwrap().is_none());

    let refusal = Expect::Key([7; 32]).accepts(&seen_by_bob, now()).unwrap_err();
    assert_eq!(refusal.code, "pinned-key");
    assert_eq!(refusal.expected, format!("the key sha256:{}", "07".repeat(32)));
    assert!(refusal.found.contains(&hex::encode(alice.credential().key_id())), "{refusal}");
    let (refusal, words) = meet(&bob, &alice, &Expect::Key([7; 32])).await.refused_by_client();
    assert_eq!(refusal.code, "pinned-key");
    assert!(words.starts_with("access_denied"), "{words}");
}

#[tokio::test]
async fn pinned_key_in_a_self_signed_certificate_that_has_ended() {
    let key = KeyPair::generate().unwrap();
    let mut params = common_name("bob");
    (params.not_before, params.not_after) = (days(-30), days(-1));
    let bob = credential(&key, &params.self_signed(&key).unwrap().pem());
    let ca = authority("Test CA");
    let (bob, alice) = (PeerTls::new(bob, Some(roots(&[&ca]))), member(&ca, "alice"));
    let pinned = Expect::Key(bob.credential().key_id());
    let (_, seen) = meet(&bob, &alice, &pinned).await.succeeded();
    assert_eq!(Expect::Chained.accepts(&seen, now()).unwrap_err().code, "certificate-expired");
    let (seen, _) = meet(&alice, &bob, &registered(&alice.credential())).await.succeeded();
    pinned.accepts(&seen, now()).unwrap();
}

/// A key alone says who it is; without authorities a certificate says no more.
#[tokio::test]
async fn certificate_expected_without_authorities() {
    let (bob, alice) = (PeerTls::new(self_made(), None), PeerTls::new(self_made(), None));
    for expect in [registered(&bob.credential()), Expect::Chained] {
        let (refusal, _) = meet(&bob, &alice, &expect).await.refused_by_client();
        assert_eq!((refusal.code, refusal.matter), ("no-authorities", Matter::Policy));
    }
}

#[tokio::test]
async fn evidence_accepted_and_refused() {
    let platform = Arc::new(Platform::new(now()).unwrap());
    let demand = |enclave: &Enclave, key| Expect::Evidence {
        policies: vec![Arc::new(
            Policy::from_toml(&policy_toml(&platform, &[("pool", enclave)])).unwrap(),
        )],
        collateral: Arc::new(platform.collateral(&CollateralKnobs::default())),
        key,
    };
    let (ours, others) = (Enclave::named("pool party"), Enclave::named("another program"));
    let identity = Identity::generate();
    let attested = identity.attested(&platform.enclave(ours.clone())).unwrap();
    // Authorities do not stand in the way of evidence.
    let ca = authority("Test CA");
    let bob = PeerTls::new(attested, Some(roots(&[&ca])));
    let alice = member(&ca, "alice");
    let key = sha256(identity.spki());

    for pinned in [None, Some(key)] {
        let (_, seen) = meet(&bob, &alice, &demand(&ours, pinned)).await.succeeded();
        assert_eq!(seen.verdict().unwrap().spki(), identity.spki());
        assert_eq!(seen.evidence().unwrap().spki(), identity.spki());
    }
    let (seen, _) = meet(&alice, &bob, &registered(&alice.credential())).await.succeeded();
    let verdict = demand(&ours, None).accepts(&seen, now()).unwrap().unwrap();
    assert_eq!(verdict.measurements().measurement(), ours.mr_enclave);
    assert_eq!(demand(&others, None).accepts(&seen, now()).unwrap_err().code, "measurement");
    assert_eq!(demand(&ours, Some([7; 32])).accepts(&seen, now()).unwrap_err().code, "pinned-key");
    let later = now() + 48 * 3600;
    let refusal = demand(&ours, None).accepts(&seen, later).unwrap_err();
    assert_eq!(refusal.code, "certificate-expired");

    let (refusal, words) = meet(&bob, &alice, &demand(&others, None)).await.refused_by_client();
    assert_eq!(refusal.code, "measurement");
    assert!(words.starts_with("access_denied"), "{words}");
    let (refusal, _) = meet(&alice, &bob, &demand(&ours, None)).await.refused_by_client();
    assert_eq!(refusal.code, "no-evidence");
    let nothing = Expect::Evidence {
        policies: Vec::new(),
        collateral: Arc::new(platform.collateral(&CollateralKnobs::default())),
        key: None,
    };
    let (refusal, _) = meet(&bob, &alice, &nothing).await.refused_by_client();
    assert_eq!(refusal.code, "no-policy");
    // Peers offer no collateral: what would wait for an offer is refused, not believed.
    let policies =
        vec![Arc::new(Policy::from_toml(&policy_toml(&platform, &[("pool", &ours)])).unwrap())];
    let waiting = Expect::EvidenceWithOffer { policies, key: None };
    let (refusal, _) = meet(&bob, &alice, &waiting).await.refused_by_client();
    assert_eq!(refusal.code, "no-collateral");
}

#[tokio::test]
async fn stolen_evidence_under_another_key() {
    let platform = Arc::new(Platform::new(now()).unwrap());
    let enclave = Enclave::named("pool party");
    let (owner, thief) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let spki = owner.subject_public_key_info();
    let quote = platform.enclave(enclave.clone()).quote(&report_data(&spki)).unwrap();
    let knobs = CertificateKnobs::at(now()).with(extension(&quote, &spki));
    let forged = credential(&thief, &pem(&certificate(&thief, &knobs).unwrap()));
    let policy = Policy::from_toml(&policy_toml(&platform, &[("pool", &enclave)])).unwrap();
    let demand = Expect::Evidence {
        policies: vec![Arc::new(policy)],
        collateral: Arc::new(platform.collateral(&CollateralKnobs::default())),
        key: None,
    };
    let (mallory, bob) = (PeerTls::new(forged, None), PeerTls::new(self_made(), None));
    let (seen, _) = meet(&bob, &mallory, &Expect::Key(bob.credential().key_id())).await.succeeded();
    assert!(seen.evidence().is_none());
    assert_eq!(demand.accepts(&seen, now()).unwrap_err().code, "key-binding");
    let (refusal, _) = meet(&mallory, &bob, &demand).await.refused_by_client();
    assert_eq!(refusal.code, "key-binding");
}

#[tokio::test]
async fn self_signed_against_chained_refused() {
    let ca = authority("Test CA");
    let bob = member(&ca, "bob");
    // The name of the trusted authority does not help.
    let identity = Identity::generate();
    let certificate = self_signed(&identity, "Test CA", 30).unwrap();
    let mallory =
        Credential::from_pem(identity.to_pem().as_bytes(), certificate.as_bytes()).unwrap();
    let mallory = PeerTls::new(mallory, Some(roots(&[&ca])));
    let (refusal, words) = meet(&mallory, &bob, &Expect::Chained).await.refused_by_client();
    assert_eq!(refusal.code, "unknown-authority");
    assert!(refusal.expected.contains("'CN=Test CA'"), "{refusal}");
    assert!(words.starts_with("unknown_ca"), "{words}");
    // Bob, as the server, does not know yet whom he expects: his table decides.
    let (seen, _) = meet(&bob, &mallory, &Expect::Chained).await.succeeded();
    assert!(!seen.chained());
    for expect in [Expect::Chained, registered(&mallory.credential())] {
        assert_eq!(expect.accepts(&seen, now()).unwrap_err().code, "unknown-authority");
    }
}

#[tokio::test]
async fn self_signed_certificate_that_is_trusted_exactly() {
    let (alice, bob) = (Identity::generate(), Identity::generate());
    let certificates = [&alice, &bob].map(|identity| self_signed(identity, "party", 30).unwrap());
    let both = Some(Roots::from_pem(certificates.concat().as_bytes()).unwrap());
    let tls = |identity: &Identity, certificate: &str| {
        let key = identity.to_pem();
        let own = Credential::from_pem(key.as_bytes(), certificate.as_bytes()).unwrap();
        PeerTls::new(own, both.clone())
    };
    let (alice_tls, bob_tls) = (tls(&alice, &certificates[0]), tls(&bob, &certificates[1]));
    let met = meet(&bob_tls, &alice_tls, &registered(&bob_tls.credential())).await;
    assert!(met.succeeded().0.chained());

    // What is trusted exactly issues nothing: Bob cannot make an Alice.
    let mut params = common_name("alice");
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::new(common_name("party"), KeyPair::from_pem(&bob.to_pem()).unwrap());
    let key = KeyPair::generate().unwrap();
    let forged = credential(&key, &params.signed_by(&key, &issuer).unwrap().pem());
    let forged = PeerTls::new(forged, None);
    let met = meet(&alice_tls, &forged, &Expect::Key(alice_tls.credential().key_id())).await;
    assert_eq!(met.refused_by_server().0.code, "unknown-authority");
}

#[tokio::test]
async fn certificate_that_a_party_issued() {
    let ca = Forge::new(|_| ());
    let bob_key = KeyPair::generate().unwrap();
    let bob = ca.issue_over(&bob_key, "bob", |_| ());
    let issuer = Issuer::new(common_name("bob"), bob_key);
    let key = KeyPair::generate().unwrap();
    let forged = common_name("alice").signed_by(&key, &issuer).unwrap().pem();
    let chain = forged + &pem(bob.certificate());
    let mallory = PeerTls::new(credential(&key, &chain), Some(ca.roots()));
    let carol = PeerTls::new(ca.issue("carol", |_| ()), Some(ca.roots()));
    let met = meet(&carol, &mallory, &Expect::Chained).await;
    assert_eq!(met.refused_by_server().0.code, "certificate-issuer");
}

/// webpki does not look at the key usage of an issuer.
#[tokio::test]
async fn intermediate_authority_that_may_not_sign_certificates() {
    let ca = Forge::new(|_| ());
    let middle = KeyPair::generate().unwrap();
    let mut params = common_name("Middle CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let certificate = params.signed_by(&middle, &ca.issuer).unwrap().pem();
    let middle = Issuer::new(common_name("Middle CA"), middle);
    let key = KeyPair::generate().unwrap();
    let chain = common_name("alice").signed_by(&key, &middle).unwrap().pem() + &certificate;
    let mallory = PeerTls::new(credential(&key, &chain), Some(ca.roots()));
    let carol = PeerTls::new(ca.issue("carol", |_| ()), Some(ca.roots()));
    let met = meet(&carol, &mallory, &Expect::Chained).await;
    assert_eq!(met.refused_by_server().0.code, "certificate-issuer");
}

#[tokio::test]
async fn intermediate_certificate_chain_accepted() {
    let root = authority("Root CA");
    let middle = root.intermediate("Middle CA", 30).unwrap();
    let issued = middle.issue("alice", &[], 30).unwrap();
    let key = issued.key_pem.as_bytes();
    let chain = issued.certificate_pem.clone() + middle.certificate_pem();
    let bob = member(&root, "bob");
    let alice = Credential::from_pem(key, chain.as_bytes()).unwrap();
    let alice = PeerTls::new(alice, Some(roots(&[&root])));
    let (seen, _) = meet(&bob, &alice, &registered(&bob.credential())).await.succeeded();
    registered(&alice.credential()).accepts(&seen, now()).unwrap();
    meet(&alice, &bob, &registered(&alice.credential())).await.succeeded();

    let bare = Credential::from_pem(key, issued.certificate_pem.as_bytes()).unwrap();
    let bare = PeerTls::new(bare, Some(roots(&[&root])));
    let (refusal, _) = meet(&bob, &bare, &registered(&bob.credential())).await.refused_by_server();
    assert_eq!(refusal.code, "unknown-authority");
    assert!(refusal.found.contains("issuer 'CN=Middle CA'"), "{refusal}");

    // The intermediate authority may be trusted itself.
    let bob = PeerTls::new(bob.credential(), Some(roots(&[&root, &middle])));
    meet(&bob, &bare, &registered(&bob.credential())).await.succeeded();
}

#[tokio::test]
async fn chain_longer_than_accepted() {
    let ca = authority("Test CA");
    let issued = ca.issue("alice", &[], 30).unwrap();
    let long =
        issued.certificate_pem.clone() + &ca.certificate_pem().repeat(MAXIMUM_CHAIN_CERTIFICATES);
    let error = Credential::from_pem(issued.key_pem.as_bytes(), long.as_bytes()).unwrap_err();
    assert_eq!(error, CredentialError::ChainTooLong { count: MAXIMUM_CHAIN_CERTIFICATES + 1 });

    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = KeyPair::from_pem(&issued.key_pem).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider.key_provider.load_private_key(key.into()).unwrap();
    let chain = CertificateDer::pem_slice_iter(long.as_bytes()).map(Result::unwrap).collect();
    let presented = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    let (server, client) =
        foreign_meet(&member(&ca, "bob"), foreign_client(&ca, Some(presented))).await;
    assert_eq!(refusal(server).code, "certificate-chain");
    assert!(refused_by_peer(&client.unwrap_err()).unwrap().starts_with("bad_certificate"));
}

#[tokio::test]
async fn certificate_for_the_other_side_of_tls() {
    let ca = Forge::new(|_| ());
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let alice = PeerTls::new(ca.issue("alice", server_only), Some(ca.roots()));
    let bob = PeerTls::new(ca.issue("bob", |_| ()), Some(ca.roots()));
    meet(&alice, &bob, &registered(&alice.credential())).await.succeeded();
    let (refusal, words) =
        meet(&bob, &alice, &registered(&bob.credential())).await.refused_by_server();
    assert_eq!(refusal.code, "certificate-usage");
    assert!(refusal.advice.contains("extendedKeyUsage=serverAuth,clientAuth"), "{refusal}");
    assert!(words.starts_with("unsupported_certificate"), "{words}");
}

#[tokio::test]
async fn keys_of_every_kind() {
    let ca = Forge::new(|_| ());
    let bob = PeerTls::new(ca.issue("bob", |_| ()), Some(ca.roots()));
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let alice = PeerTls::new(ca.issue_over(&key, "alice", |_| ()), Some(ca.roots()));
        assert_eq!(alice.credential().key_id(), sha256(&key.subject_public_key_info()));
        meet(&bob, &alice, &registered(&bob.credential())).await.succeeded();
        meet(&alice, &bob, &registered(&alice.credential())).await.succeeded();
    }
}

#[tokio::test]
async fn suites_and_sessions() {
    let ca = authority("Test CA");
    let (alice, bob) = (member(&ca, "alice"), member(&ca, "bob"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (other, _) = listener.accept().await.unwrap();
    let expect = registered(&bob.credential());
    let (server, client) = tokio::join!(bob.accept(other), alice.connect(tcp, &expect));
    let (tls, _) = client.unwrap();
    let connection = tls.get_ref().1;
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connection.alpn_protocol(), None);
    let suite = connection.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(server.unwrap().0.get_ref().1.server_name(), None);

    // A client that prefers AES-256 and keeps sessions gets neither.
    let key = KeyPair::generate().unwrap();
    let mut params = common_name("carol");
    params.is_ca = IsCa::ExplicitNoCa;
    let carol = presented(params.self_signed(&key).unwrap().der(), &key);
    let config = foreign_client(&ca, Some(carol));
    for _ in 0..2 {
        let (server, client) = foreign_meet(&bob, Arc::clone(&config)).await;
        server.unwrap();
        let tls = client.unwrap();
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(tls.get_ref().1.negotiated_cipher_suite().unwrap().suite(), suite);
    }
}

/// What the client sends before it knows would reset the connection, and the alert with it.
#[tokio::test]
async fn alert_arrives_although_the_client_has_sent_already() {
    let bob = member(&authority("Test CA"), "bob");
    let mallory = PeerTls::new(party(&authority("Other CA"), "mallory"), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (other, _) = listener.accept().await.unwrap();
    let expect = Expect::Key(bob.credential().key_id());
    let dial = async {
        let (mut tls, _) = mallory.connect(tcp, &expect).await.unwrap();
        tls.write_all(&vec![0; 32 << 10]).await.unwrap();
        tls.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        tls.read(&mut [0; 16]).await.unwrap_err()
    };
    let (server, error) = tokio::join!(bob.accept(other), dial);
    assert_eq!(refusal(server.map(|(_, peer)| peer)).code, "unknown-authority");
    assert!(refused_by_peer(&error).unwrap().starts_with("unknown_ca"), "{error}");
}

#[test]
fn only_alerts_about_certificates_are_a_peers_refusal() {
    let received = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
    for alert in [
        AlertDescription::BadCertificate,
        AlertDescription::UnknownCA,
        AlertDescription::CertificateRequired,
        AlertDescription::CertificateUnknown,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::AccessDenied,
        AlertDescription::DecryptError,
    ] {
        assert!(refused_by_peer(&received(alert)).is_some(), "{alert:?}");
    }
    for alert in [AlertDescription::InternalError, AlertDescription::ProtocolVersion] {
        assert_eq!(refused_by_peer(&received(alert)), None);
    }
    assert_eq!(refused_by_peer(&io::ErrorKind::ConnectionReset.into()), None);
    assert_eq!(refused_by_peer(&io::Error::other("unknown_ca")), None);
}

#[tokio::test(start_paused = true)]
async fn silent_peer_times_out() {
    let tls = PeerTls::new(self_made(), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (other, _) = listener.accept().await.unwrap();
    let began = tokio::time::Instant::now();
    let error = tls.accept(tcp).await.unwrap_err();
    assert!(matches!(error, PeerTlsError::TimedOut), "{error:?}");
    assert!(began.elapsed() >= HANDSHAKE_TIMEOUT);
    drop(other);

    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let _silent = listener.accept().await.unwrap();
    let error = tls.connect(tcp, &Expect::Key([7; 32])).await.unwrap_err();
    assert!(matches!(error, PeerTlsError::TimedOut), "{error:?}");
    assert_eq!(error.to_string(), "the TLS handshake did not end within 15 s");
}

#[tokio::test]
async fn peer_that_does_not_speak_tls() {
    let tls = PeerTls::new(self_made(), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut plain = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    plain.write_all(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let (other, _) = listener.accept().await.unwrap();
    let error = tls.accept(other).await.unwrap_err();
    assert!(matches!(error, PeerTlsError::Handshake(_)), "{error:?}");
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    drop(listener.accept().await.unwrap());
    let error = tls.connect(tcp, &Expect::Key([7; 32])).await.unwrap_err();
    assert!(matches!(error, PeerTlsError::Handshake(_)), "{error:?}");
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let ca = authority("Test CA");
    let issued = ca.issue("alice", &[], 30).unwrap();
    let (key, chain) = (issued.key_pem.as_bytes(), issued.certificate_pem.as_bytes());
    let error = |key: &[u8], chain: &[u8]| Credential::from_pem(key, chain).unwrap_err();
    assert!(
        error(key, key).to_string().starts_with("our certificate file contains no certificate")
    );
    assert!(error(chain, chain).to_string().contains("the file contains none"));
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(error(encrypted, chain).to_string().contains("it is encrypted"));
    let broken = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert!(matches!(error(key, broken), CredentialError::Certificate { number: 1, .. }));
    let long = vec![b' '; 2 << 20];
    assert!(matches!(error(&long, chain), CredentialError::TooLarge { .. }));
    assert!(matches!(error(key, &long), CredentialError::TooLarge { .. }));
    assert!(Roots::from_pem(key).is_err() && Roots::from_pem(broken).is_err());

    // A peer's certificate is registered from either form.
    let der = der(&issued.certificate_pem);
    for file in [chain, &der] {
        match Expect::certificate(file).unwrap() {
            Expect::Certificate(registered) => assert_eq!(registered, der),
            other => panic!("{other:?}"),
        }
    }
    assert!(Expect::certificate(key).is_err() && Expect::certificate(&der[..99]).is_err());
}

#[test]
fn nothing_secret_is_shown() {
    let ca = authority("Test CA");
    let issued = ca.issue("alice", &[], 30).unwrap();
    let credential =
        Credential::from_pem(issued.key_pem.as_bytes(), issued.certificate_pem.as_bytes()).unwrap();
    let fingerprint = format!("sha256:{}", hex::encode(credential.key_id()));
    assert_eq!(format!("{ca:?} {issued:?}"), "Authority(..) Issued(..)");
    assert_eq!(format!("{credential:?}"), format!("Credential({fingerprint}, ..)"));
    let tls = format!("{:?}", PeerTls::new(credential, Some(roots(&[&ca]))));
    assert!(tls.contains("Roots(1 certificates)") && !tls.contains("key:"), "{tls}");
}

#[test]
fn what_an_authority_makes() {
    let ca = authority("Test CA");
    let mut serials = Vec::new();
    for _ in 0..8 {
        let issued = ca.issue("alice", &["alice.example", "192.0.2.1"], 30).unwrap();
        let (issuer, serial) = certificate_identity(&der(&issued.certificate_pem)).unwrap();
        assert_eq!(issuer, "Test CA");
        let number: u128 = serial.parse().unwrap();
        assert!((64..=128).contains(&(128 - number.leading_zeros())), "{serial}");
        serials.push(number);
    }
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 8);

    for name in ["", &"x".repeat(65), "a\nb"] {
        let error = ca.issue(name, &[], 30).unwrap_err();
        assert!(matches!(error, AuthorityError::Name { .. }), "{error}");
    }
    assert!(matches!(ca.issue("a", &["naïve"], 30), Err(AuthorityError::Name { .. })));
    for days in [0, 36_526, u32::MAX] {
        let error = Authority::generate("Test CA", days).unwrap_err();
        assert_eq!(error, AuthorityError::Days { days });
    }
    let again = Authority::from_pem(&ca.key_pem(), ca.certificate_pem()).unwrap();
    assert_eq!(again.certificate_pem(), ca.certificate_pem());
    let other = authority("Test CA");
    let error = Authority::from_pem(&ca.key_pem(), other.certificate_pem()).unwrap_err();
    assert!(error.to_string().contains("does not match the certificate"), "{error}");
    let issued = ca.issue("alice", &[], 30).unwrap();
    let error = Authority::from_pem(&issued.key_pem, &issued.certificate_pem).unwrap_err();
    assert!(error.to_string().contains("does not say CA:TRUE"), "{error}");
    assert!(matches!(certificate_identity(b"0"), Err(AuthorityError::NotACertificate { .. })));
}

/// A party of the replaced package, as far as TLS goes: Python's default contexts, both sides with
/// certificates, host names not compared.
const PYTHON: &str = r#"
import socket, ssl, sys
role, port, folder, version = sys.argv[1:]
serving = role == "server"
purpose = ssl.Purpose.CLIENT_AUTH if serving else ssl.Purpose.SERVER_AUTH
context = ssl.create_default_context(purpose, cafile=folder + "/ca.crt")
context.check_hostname = False
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain(folder + "/own.crt", folder + "/own.key")
context.maximum_version = ssl.TLSVersion[version]
if serving:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    print(listener.getsockname()[1], flush=True)
    plain, _ = listener.accept()
else:
    plain = socket.create_connection(("127.0.0.1", int(port)), 10)
plain.settimeout(10)
try:
    with context.wrap_socket(plain, server_side=serving) as tls:
        if not serving:
            tls.sendall(b"ping")
        answer = tls.recv(4)
        if serving:
            tls.sendall(answer)
        print(tls.version(), tls.cipher()[0], answer.decode())
except ssl.SSLError as error:
    print("refused", error.reason)
"#;

struct Python {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    port: u16,
    _folder: TempDir,
}

impl Python {
    fn start(role: &str, port: u16, ca: &str, own: (&str, &str), version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path: PathBuf = folder.path().join(name);
            std::fs::write(path, text).unwrap();
        };
        write("ca.crt", ca);
        write("own.key", own.0);
        write("own.crt", own.1);
        let mut child = Command::new("python3")
            .args(["-c", PYTHON, role, &port.to_string()])
            .arg(folder.path())
            .arg(version)
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need python3");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let port = if role == "server" {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line.trim().parse().unwrap()
        } else {
            port
        };
        Self { child, output, port, _folder: folder }
    }

    async fn said(mut self) -> String {
        tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            self.output.read_to_string(&mut said).unwrap();
            assert!(self.child.wait().unwrap().success(), "python failed: {said}");
            said.trim().to_owned()
        })
        .await
        .unwrap()
    }
}

/// A Python client that comes to `server`.
async fn python_client(
    server: &PeerTls,
    ca: &str,
    own: (&str, &str),
    version: &str,
) -> (Result<ProvenPeer, PeerTlsError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let python = Python::start("client", port, ca, own, version);
    let serve = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut tls, peer) = server.accept(tcp).await?;
        let mut bytes = [0; 4];
        tls.read_exact(&mut bytes).await.unwrap();
        tls.write_all(&bytes).await.unwrap();
        tls.shutdown().await.unwrap();
        Ok(peer)
    };
    let outcome = tokio::time::timeout(PATIENCE, serve).await.expect("it hangs");
    (outcome, python.said().await)
}

/// A Python server that `client` comes to.
async fn python_server(
    client: &PeerTls,
    expect: &Expect,
    ca: &str,
    own: (&str, &str),
) -> (Result<io::Result<[u8; 4]>, PeerTlsError>, String) {
    let python = Python::start("server", 0, ca, own, "TLSv1_3");
    let tcp = TcpStream::connect(("127.0.0.1", python.port)).await.unwrap();
    let dial = async {
        let (mut tls, _) = client.connect(tcp, expect).await?;
        Ok(ping(&mut tls).await)
    };
    let outcome = tokio::time::timeout(PATIENCE, dial).await.expect("it hangs");
    (outcome, python.said().await)
}

#[tokio::test]
async fn genuine_python_peers_both_ways() {
    let ca = authority("Test CA");
    let bob = member(&ca, "bob");
    let issued = ca.issue("alice", &[], 30).unwrap();
    let own = (issued.key_pem.as_str(), issued.certificate_pem.as_str());
    let alice = Expect::certificate(issued.certificate_pem.as_bytes()).unwrap();

    let (seen, said) = python_client(&bob, ca.certificate_pem(), own, "TLSv1_3").await;
    assert_eq!(said, "TLSv1.3 TLS_AES_128_GCM_SHA256 ping");
    alice.accepts(&seen.unwrap(), now()).unwrap();
    let (answer, said) = python_server(&bob, &alice, ca.certificate_pem(), own).await;
    assert_eq!(&answer.unwrap().unwrap(), b"ping");
    assert!(said.starts_with("TLSv1.3 TLS_AES_") && said.ends_with("ping"), "{said}");
}

#[tokio::test]
async fn genuine_python_peers_with_intermediate_and_self_signed_certificates() {
    let root = authority("Root CA");
    let middle = root.intermediate("Middle CA", 30).unwrap();
    let issued = middle.issue("alice", &[], 30).unwrap();
    let chain = issued.certificate_pem.clone() + middle.certificate_pem();
    let own = (issued.key_pem.as_str(), chain.as_str());
    let bob = member(&root, "bob");
    let (seen, said) = python_client(&bob, root.certificate_pem(), own, "TLSv1_3").await;
    assert!(seen.unwrap().chained() && said.ends_with("ping"), "{said}");
    let (answer, _) = python_server(&bob, &Expect::Chained, root.certificate_pem(), own).await;
    answer.unwrap().unwrap();

    // Each side trusts exactly the other's certificate.
    let identities = [Identity::generate(), Identity::generate()];
    let certificates =
        identities.each_ref().map(|identity| self_signed(identity, "party", 30).unwrap());
    let bob = Credential::from_pem(identities[0].to_pem().as_bytes(), certificates[0].as_bytes());
    let trusted = Roots::from_pem(certificates[1].as_bytes()).unwrap();
    let bob = PeerTls::new(bob.unwrap(), Some(trusted));
    let key = identities[1].to_pem();
    let own = (key.as_str(), certificates[1].as_str());
    let (seen, said) = python_client(&bob, &certificates[0], own, "TLSv1_3").await;
    assert!(seen.unwrap().chained() && said.ends_with("ping"), "{said}");
    let (answer, _) = python_server(&bob, &Expect::Chained, &certificates[0], own).await;
    answer.unwrap().unwrap();
}

#[tokio::test]
async fn genuine_python_peers_that_are_refused_or_refuse() {
    let (ca, other) = (authority("Test CA"), authority("Other CA"));
    let bob = member(&ca, "bob");
    let issued = other.issue("mallory", &[], 30).unwrap();
    let own = (issued.key_pem.as_str(), issued.certificate_pem.as_str());

    // We refuse them.
    let (outcome, said) = python_client(&bob, ca.certificate_pem(), own, "TLSv1_3").await;
    assert_eq!(refusal(outcome).code, "unknown-authority");
    assert_eq!(said, "refused TLSV1_ALERT_UNKNOWN_CA");
    let (outcome, said) = python_server(&bob, &Expect::Chained, ca.certificate_pem(), own).await;
    assert_eq!(refusal(outcome).code, "unknown-authority");
    assert_eq!(said, "refused TLSV1_ALERT_UNKNOWN_CA");

    // They refuse us.
    let trusting = PeerTls::new(bob.credential(), Some(roots(&[&ca, &other])));
    let (outcome, said) = python_client(&trusting, other.certificate_pem(), own, "TLSv1_3").await;
    assert!(matches!(outcome, Err(PeerTlsError::RefusedByPeer(_))), "{outcome:?}");
    assert_eq!(said, "refused CERTIFICATE_VERIFY_FAILED");
    let (outcome, said) =
        python_server(&trusting, &Expect::Chained, other.certificate_pem(), own).await;
    let error = outcome.unwrap().unwrap_err();
    assert!(refused_by_peer(&error).unwrap().starts_with("unknown_ca"), "{error}");
    assert_eq!(said, "refused CERTIFICATE_VERIFY_FAILED");

    // Nothing older than TLS 1.3.
    let alice = ca.issue("alice", &[], 30).unwrap();
    let own = (alice.key_pem.as_str(), alice.certificate_pem.as_str());
    let (outcome, said) = python_client(&bob, ca.certificate_pem(), own, "TLSv1_2").await;
    assert!(matches!(outcome, Err(PeerTlsError::Handshake(_))), "{outcome:?}");
    assert_eq!(said, "refused TLSV1_ALERT_PROTOCOL_VERSION");
}
