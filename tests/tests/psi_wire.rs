//! The wire of Intel's "PSI with SGX" over RA-TLS. What its clients experience over ordinary TLS is
//! in `tests/peers/psi_wire`, with gRPC's own clients.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use convelo_attest::{Extension, QuoteSource};
use convelo_channel::{Credential, DialError, Dialler, Expect, Identity, PeerTls};
use convelo_operate::proto::psi_client::PsiClient;
use convelo_operate::proto::{CalPsiRequest, ConnectRequest, DataUploadRequest, RaRequest};
use convelo_simulator::{Enclave, Platform};
use convelo_tests::{PATIENCE, Service, World};
use hyper_util::rt::TokioIo;
use rcgen::{
    CertificateParams, CustomExtension, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// A client that has verified the service.
async fn client(
    service: &str,
    credential: &Credential,
    expect: Expect,
) -> Result<PsiClient<Channel>, DialError> {
    let service = Dialler::new(credential.clone()).dial(service, &expect).await?;
    Ok(over(service.insecure_ratls_only()?).await)
}

async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> PsiClient<Channel> {
    let slot = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::other("the connection broke")) }
    });
    let channel = Endpoint::from_static("http://psi").connect_with_connector(connector).await;
    PsiClient::new(channel.expect("an HTTP/2 connection"))
}

/// The four calls.
async fn calls(mut client: PsiClient<Channel>, ids: &[&str]) -> Result<Vec<String>, Status> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let reply = client.remote_attestation(RaRequest { name: ids[0].clone() }).await?.into_inner();
    assert!(reply.message.contains("carries its evidence"), "{}", reply.message);
    let client_name = "data_provider1".to_owned();
    let request =
        ConnectRequest { client_name: client_name.clone(), is_chief: true, client_num: 2 };
    client.connect(request).await?;
    client.data_upload(DataUploadRequest { input_data: ids }).await?;
    let request = CalPsiRequest { client_name, is_chief: false };
    Ok(client.cal_psi(request).await?.into_inner().data)
}

/// Two clients at once.
fn job(
    world: &World,
    address: &str,
    credentials: [Credential; 2],
) -> Vec<Result<Vec<String>, Status>> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut running = JoinSet::new();
        for (credential, ids) in credentials.into_iter().zip([["a", "b"], ["c", "b"]]) {
            let client = client(address, &credential, world.expect()).await.expect("verified");
            running.spawn(async move { calls(client, &ids).await });
        }
        tokio::time::timeout(PATIENCE, running.join_all()).await.expect("an end")
    })
}

fn psi(service: &Service) -> String {
    service.said["psi"].as_str().expect("an address").to_owned()
}

#[test]
fn clients_that_verify_the_service() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --psi-listen 127.0.0.1:0");
    assert_eq!(service.said["psi_attested"], true);
    let credentials = [(); 2].map(|()| Identity::generate().plain().expect("a certificate"));
    for result in job(&world, &psi(&service), credentials) {
        assert_eq!(result.expect("a result"), ["b"]);
    }
    // The evidence is this service's, and no other is accepted for it.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let credential = Identity::generate().plain().expect("a certificate");
    let stranger = World::new().expect();
    let refused = runtime.block_on(client(&psi(&service), &credential, stranger));
    assert!(matches!(refused, Err(DialError::Refused(_))));
}

#[test]
fn the_operators_policy_holds_on_this_wire_too() {
    let world = World::new();
    world.write("providers.toml", world.provider_policy());
    let service = world.serve_with(
        "--listen 127.0.0.1:0 --psi-listen 127.0.0.1:0 --policy providers.toml \
         --collateral platform/collateral.json --insecure-simulated-root platform/root.pem",
    );
    let plain = [(); 2].map(|()| Identity::generate().plain().expect("a certificate"));
    for result in job(&world, &psi(&service), plain) {
        let refused = result.expect_err("evidence is missing");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert!(
            refused.message().contains("the evidence of 'this client' was refused"),
            "{refused}"
        );
    }
    let provider = Arc::new(Platform::open(&world.path("platform")).expect("a platform"));
    let provider = provider.program("convelo-provider");
    let attested = [(); 2].map(|()| Identity::generate().attested(&*provider).expect("evidence"));
    for result in job(&world, &psi(&service), attested) {
        assert_eq!(result.expect("a result"), ["b"]);
    }
}

/// A certificate as Gramine writes it: valid for thirty years, with these extensions over its key.
fn of_gramine(key: &KeyPair, extensions: impl FnOnce(&[u8]) -> Vec<Extension>) -> Credential {
    let mut params = CertificateParams::default();
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(30);
    params.not_after = params.not_before + time::Duration::days(30 * 365);
    params.custom_extensions = extensions(&key.subject_public_key_info())
        .into_iter()
        .map(|part| CustomExtension::from_oid_content(part.oid, part.value))
        .collect();
    let certificate = params.self_signed(key).expect("a certificate");
    Credential::from_pem(key.serialize_pem().as_bytes(), certificate.pem().as_bytes())
        .expect("both")
}

/// Gramine's own evidence extension.
const GRAMINE_LEGACY: [u64; 8] = [0, 6, 9, 42, 840, 113_741, 1337, 6];

/// As Gramine has written them since 1.8: DICE evidence and its own.
fn both(source: &dyn QuoteSource) -> Credential {
    let key = KeyPair::generate().expect("a key");
    of_gramine(&key, |spki| convelo_attest::extensions(source, spki).expect("evidence"))
}

/// As Gramine 1.2 writes them: an RSA key, and its own evidence alone.
fn legacy(source: &dyn QuoteSource) -> Credential {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072).expect("a key");
    of_gramine(&key, |spki| {
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(&Sha256::digest(spki));
        let value = source.quote(&report_data).expect("a quote");
        vec![Extension { oid: &GRAMINE_LEGACY, value }]
    })
}

/// Two clients at once that know the service by its key, with any certificate.
fn genuine_job(
    service: &Service,
    credentials: [Credential; 2],
) -> Vec<Result<Vec<String>, Status>> {
    let (address, expect) = (psi(service), Expect::Key(service.key.0));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut running = JoinSet::new();
        for (credential, ids) in credentials.into_iter().zip([["a", "b"], ["c", "b"]]) {
            let tls = PeerTls::new(credential, None).for_http2();
            let tcp = TcpStream::connect(&address).await.expect("a connection");
            let (stream, _) = tls.connect(tcp, &expect).await.expect("a handshake");
            let client = over(stream).await;
            running.spawn(async move { calls(client, &ids).await });
        }
        tokio::time::timeout(PATIENCE, running.join_all()).await.expect("an end")
    })
}

fn enclave(world: &World, name: &str) -> impl QuoteSource + use<> {
    let platform = Platform::open(&world.path("platform")).expect("a platform");
    Arc::new(platform).enclave(Enclave::named(name))
}

/// Where no policy asks for evidence, nobody looks at what a certificate carries.
#[test]
fn genuine_enclave_clients_of_a_service_without_a_policy() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --psi-listen 127.0.0.1:0");
    let provider = enclave(&world, "convelo-provider");
    for result in genuine_job(&service, [both(&provider), legacy(&provider)]) {
        assert_eq!(result.expect("a result"), ["b"]);
    }
    // What is broken is not looked at either.
    let broken = |spki: &[u8]| vec![convelo_attest::extension(&[7; 100], spki)];
    let broken = [(); 2].map(|()| of_gramine(&KeyPair::generate().expect("a key"), broken));
    for result in genuine_job(&service, broken) {
        assert_eq!(result.expect("a result"), ["b"]);
    }
}

const JUDGING: &str = "--listen 127.0.0.1:0 --psi-listen 127.0.0.1:0 --policy providers.toml \
                       --collateral platform/collateral.json --insecure-simulated-root platform/root.pem";

/// A policy says what it accepts besides the measurements, and everything else is refused in words.
#[test]
fn genuine_enclave_clients_under_a_policy() {
    let world = World::new();
    let (version, rest) = ("version = 1\n", world.provider_policy());
    let rest = rest.replacen(version, "", 1);
    let serve = |knobs: &str| {
        world.write("providers.toml", format!("{version}{knobs}{rest}"));
        world.serve_with(JUDGING)
    };
    let provider = enclave(&world, "convelo-provider");
    let refused = |service: &Service, credentials, words: &str| {
        for result in genuine_job(service, credentials) {
            let refused = result.expect_err("it is refused");
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
            assert!(refused.message().contains(words), "{refused}");
        }
    };
    let strict = serve("");
    refused(&strict, [both(&provider), both(&provider)], "[certificate-lifetime]");
    refused(&strict, [legacy(&provider), legacy(&provider)], "[legacy-evidence]");

    let long = serve("longest_certificate_days = 10950\n");
    for result in genuine_job(&long, [both(&provider), both(&provider)]) {
        assert_eq!(result.expect("a result"), ["b"]);
    }
    refused(&long, [legacy(&provider), legacy(&provider)], "[legacy-evidence]");

    let all = serve("longest_certificate_days = 10950\nallow_legacy_evidence = true\n");
    for result in genuine_job(&all, [both(&provider), legacy(&provider)]) {
        assert_eq!(result.expect("a result"), ["b"]);
    }
    // The quote and its binding are verified all the same.
    let stolen = |_: &[u8]| {
        let value = provider.quote(&[9; 64]).expect("a quote");
        vec![Extension { oid: &GRAMINE_LEGACY, value }]
    };
    let stolen = [(); 2].map(|()| of_gramine(&KeyPair::generate().expect("a key"), stolen));
    refused(&all, stolen, "[key-binding]");
    let other = enclave(&world, "another program");
    refused(&all, [legacy(&other), both(&other)], "[measurement]");
}

/// A service that was not asked to speak this wire does not speak it anywhere.
#[test]
fn off_unless_asked_for() {
    let world = World::new();
    let service = world.serve();
    assert!(service.said["psi"].is_null());
    let credential = Identity::generate().plain().expect("a certificate");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let answer = runtime.block_on(async {
        let client = client(&service.address, &credential, world.expect()).await;
        client.expect("verified").remote_attestation(RaRequest { name: String::new() }).await
    });
    let code = answer.map(drop).expect_err("it is not there").code();
    assert_eq!(code, tonic::Code::Unimplemented);
}
