//! The wire of Intel's "PSI with SGX" over RA-TLS. What its clients experience over ordinary TLS is
//! in `tests/peers/psi_wire`, with gRPC's own clients.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use convelo_channel::{Credential, DialError, Dialler, Expect, Identity};
use convelo_operate::proto::psi_client::PsiClient;
use convelo_operate::proto::{CalPsiRequest, ConnectRequest, DataUploadRequest, RaRequest};
use convelo_simulator::Platform;
use convelo_tests::{PATIENCE, Service, World};
use hyper_util::rt::TokioIo;
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
    let slot = Mutex::new(Some(TokioIo::new(service.insecure_ratls_only()?)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::other("the connection broke")) }
    });
    let channel = Endpoint::from_static("http://psi").connect_with_connector(connector).await;
    Ok(PsiClient::new(channel.expect("an HTTP/2 connection")))
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
