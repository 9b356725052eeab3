//! Pools with real sockets: what their users do, and what goes wrong around them.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use convelo_attest::Policy;
use convelo_channel::{Expect, Identity, PeerTls};
use convelo_pool::{
    Peer, Pool, PoolBuilder, PoolError, ReceiveErrorKind, SendErrorKind, Wire, WireChoice,
};
use convelo_simulator::{CollateralKnobs, Enclave, Platform, policy_toml};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Nothing here takes long; whatever does, hangs.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it hangs")
}

pub(crate) fn plain() -> PoolBuilder {
    Pool::builder().insecure_plain_http()
}

pub(crate) fn local(name: &str, port: u16) -> Peer {
    Peer::new(name, "127.0.0.1", port)
}

/// Two pools that know each other as alice and bob.
pub(crate) fn duo() -> (Pool, Pool) {
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain().peer(local("alice", alice.port())).listen("127.0.0.1", 0).unwrap();
    alice.add_peer(local("bob", bob.port())).unwrap();
    (alice, bob)
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Share {
    index: u32,
    modulus: u128,
    parts: Vec<i64>,
    name: Option<String>,
}

#[tokio::test]
async fn values_arrive_as_they_were_sent() {
    let (alice, bob) = duo();
    let share = Share { index: 3, modulus: u128::MAX, parts: vec![-1, i64::MIN], name: None };
    soon(alice.send("bob", &share)).await.unwrap();
    soon(alice.send("bob", &("tuple", 1.5, true))).await.unwrap();
    soon(alice.send_as("bob", "round 1", &vec![1u8, 2])).await.unwrap();
    soon(alice.send("bob", "last")).await.unwrap();
    assert_eq!(soon(bob.recv::<Share>("alice")).await.unwrap(), share);
    let tuple: (String, f64, bool) = soon(bob.recv("alice")).await.unwrap();
    assert_eq!(tuple, ("tuple".to_owned(), 1.5, true));
    assert_eq!(soon(bob.recv_as::<Vec<u8>>("alice", "round 1")).await.unwrap(), [1, 2]);
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "last");
    soon(bob.broadcast(None, "done", &1)).await.unwrap();
    assert_eq!(soon(alice.recv_as::<i32>("bob", "done")).await.unwrap(), 1);
}

#[tokio::test]
async fn compatible_wires_carry_the_same_values() {
    for wire in [Wire::Four, Wire::Five] {
        let choice = WireChoice::Only(wire);
        let alice = plain().listen("127.0.0.1", 0).unwrap();
        let peer = local("alice", alice.port()).wire(choice);
        let bob = plain().peer(peer).listen("127.0.0.1", 0).unwrap();
        alice.add_peer(local("bob", bob.port()).wire(choice)).unwrap();
        let share = Share { index: 3, modulus: 5, parts: vec![7; 1000], name: Some("é".into()) };
        for _ in 0..3 {
            soon(alice.send("bob", &share)).await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(soon(bob.recv::<Share>("alice")).await.unwrap(), share);
        }
        let large = Bytes::from(vec![7; 10_000_000]);
        soon(alice.send_bytes("bob", "large", large.clone())).await.unwrap();
        assert_eq!(soon(bob.recv_bytes("alice", "large")).await.unwrap(), large);
    }
}

#[tokio::test]
async fn either_may_start_first() {
    let (port_a, port_b) = (free_port(), free_port());
    let alice = plain().peer(local("bob", port_b)).listen("127.0.0.1", port_a).unwrap();
    let sending = tokio::spawn(async move {
        soon(alice.send("bob", "hello")).await.unwrap();
        alice
    });
    sleep(Duration::from_millis(300)).await;
    let bob = plain().peer(local("alice", port_a)).listen("127.0.0.1", port_b).unwrap();
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "hello");
    sending.await.unwrap();
}

#[tokio::test]
async fn refusal_that_writes_on_the_terminal() {
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let bob = local("bob", server.local_addr().unwrap().port());
    let alice =
        plain().peer(bob.wire(WireChoice::Only(Wire::Four))).listen("127.0.0.1", 0).unwrap();
    let answering = tokio::spawn(async move {
        let (mut connection, _) = server.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4096]).await.unwrap();
        let text = "\u{1b}[32mno\u{202e}\nINFO delivered\"\n";
        let head = format!("HTTP/1.1 401 no\r\nContent-Length: {}\r\n\r\n", text.len());
        connection.write_all((head + text).as_bytes()).await.unwrap();
        connection
    });
    let error = soon(alice.send("bob", "hello")).await.unwrap_err();
    let PoolError::Send(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, SendErrorKind::NotAuthenticated);
    let said = r#"says "\u{1b}[32mno\u{202e}\u{a}INFO delivered\"";"#;
    assert!(error.to_string().contains(said), "{error}");
    answering.await.unwrap();
}

#[tokio::test]
async fn nobody_there_and_a_deadline() {
    let alice = plain()
        .peer(local("bob", free_port()))
        .send_timeout(Duration::from_millis(300))
        .listen("127.0.0.1", 0)
        .unwrap();
    let error = soon(alice.send("bob", "hello")).await.unwrap_err();
    let PoolError::Send(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, SendErrorKind::TimedOut);
    assert!(!error.maybe_delivered);
}

#[tokio::test]
async fn ten_thousand_at_once_arrive_once_each() {
    let (alice, bob) = duo();
    let alice = Arc::new(alice);
    let sends: Vec<_> = (0..10_000i64)
        .map(|number| {
            let alice = Arc::clone(&alice);
            tokio::spawn(async move { alice.send_as("bob", number, &number).await })
        })
        .collect();
    for number in 0..10_000i64 {
        assert_eq!(soon(bob.recv_as::<i64>("alice", number)).await.unwrap(), number);
    }
    for send in sends {
        soon(send).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_id_many_times_arrives_in_order() {
    let (alice, bob) = duo();
    soon(alice.send_as("bob", "first contact", &0)).await.unwrap();
    let mut sends = Vec::new();
    let alice = Arc::new(alice);
    for number in 0..200u32 {
        let alice = Arc::clone(&alice);
        sends.push(tokio::spawn(async move { alice.send_as("bob", "same", &number).await }));
        tokio::task::yield_now().await;
    }
    for number in 0..200u32 {
        assert_eq!(soon(bob.recv_as::<u32>("alice", "same")).await.unwrap(), number);
    }
    for send in sends {
        send.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_receive_that_timed_out_leaves_no_trace() {
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain()
        .peer(local("alice", alice.port()))
        .receive_timeout(Duration::from_millis(50))
        .listen("127.0.0.1", 0)
        .unwrap();
    alice.add_peer(local("bob", bob.port())).unwrap();
    let error = soon(bob.recv::<String>("alice")).await.unwrap_err();
    assert!(matches!(error, PoolError::ReceiveTimeout { .. }), "{error}");
    soon(alice.send("bob", "late")).await.unwrap();
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "late");
}

#[tokio::test]
async fn a_value_that_cannot_be_written_uses_no_id() {
    struct Fails;
    impl serde::Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let (alice, bob) = duo();
    let error = soon(alice.send("bob", &Fails)).await.unwrap_err();
    assert!(matches!(error, PoolError::Codec { .. }), "{error}");
    soon(alice.send("bob", "first")).await.unwrap();
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "first");
}

#[tokio::test]
async fn a_receiver_that_nobody_reads_from_pushes_back() {
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain()
        .peer(local("alice", alice.port()))
        .mailbox_bytes(1 << 20)
        .listen("127.0.0.1", 0)
        .unwrap();
    alice.add_peer(local("bob", bob.port())).unwrap();
    let alice = Arc::new(alice);
    let sends: Vec<_> = (0..40i64)
        .map(|number| {
            let alice = Arc::clone(&alice);
            let bytes = Bytes::from(vec![9; 100 << 10]);
            tokio::spawn(async move { alice.send_bytes("bob", number, bytes).await })
        })
        .collect();
    sleep(Duration::from_millis(700)).await;
    let through = sends.iter().filter(|send| send.is_finished()).count();
    assert!((1..=10).contains(&through), "{through} messages of 100 KiB in 1 MiB");
    for number in 0..40i64 {
        assert_eq!(soon(bob.recv_bytes("alice", number)).await.unwrap().len(), 100 << 10);
    }
    for send in sends {
        soon(send).await.unwrap().unwrap();
    }
}

/// The lanes for bulk have ended by the time that a large message's turn comes.
#[tokio::test]
async fn a_large_message_behind_a_slow_one_of_its_id_is_sent() {
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain()
        .peer(local("alice", alice.port()))
        .mailbox_bytes(64 << 10)
        .message_bytes(4 << 20)
        .listen("127.0.0.1", 0)
        .unwrap();
    alice.add_peer(local("bob", bob.port())).unwrap();
    soon(alice.send_bytes("bob", "full", vec![0; 63 << 10])).await.unwrap();
    let alice = Arc::new(alice);
    let sends: Vec<_> = [10 << 10, 2 << 20]
        .map(|size| {
            let alice = Arc::clone(&alice);
            tokio::spawn(async move { alice.send_bytes("bob", "x", vec![1; size]).await })
        })
        .into();
    sleep(Duration::from_secs(7)).await;
    assert_eq!(soon(bob.recv_bytes("alice", "full")).await.unwrap().len(), 63 << 10);
    assert_eq!(soon(bob.recv_bytes("alice", "x")).await.unwrap().len(), 10 << 10);
    assert_eq!(soon(bob.recv_bytes("alice", "x")).await.unwrap().len(), 2 << 20);
    for send in sends {
        soon(send).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_stream_of_chunks_needs_no_more_room_than_its_chunks() {
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain()
        .peer(local("alice", alice.port()))
        .mailbox_bytes(2 << 20)
        .listen("127.0.0.1", 0)
        .unwrap();
    alice.add_peer(local("bob", bob.port())).unwrap();
    let sending = tokio::spawn(async move {
        let mut chunks = alice.chunks_to("bob", "table");
        for number in 0..64u8 {
            chunks.send(vec![number; 1 << 20]).await.unwrap();
        }
        chunks.finish().await.unwrap();
        alice
    });
    let mut chunks = bob.chunks_from("alice", "table");
    for number in 0..64u8 {
        let chunk = soon(chunks.next()).await.unwrap().unwrap();
        assert!(chunk.len() == 1 << 20 && chunk.iter().all(|byte| *byte == number));
    }
    assert_eq!(soon(chunks.next()).await.unwrap(), None);
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_shuts_down_is_lost_at_once_and_what_it_sent_is_not() {
    let (alice, bob) = duo();
    soon(alice.send("bob", "last words")).await.unwrap();
    soon(bob.send("alice", "hello")).await.unwrap();
    let bob = Arc::new(bob);
    let waiting = {
        let bob = Arc::clone(&bob);
        tokio::spawn(async move { bob.recv_as::<String>("alice", "never").await })
    };
    sleep(Duration::from_millis(100)).await;
    assert!(soon(alice.shutdown(Duration::from_secs(1))).await.is_empty());
    let error = soon(waiting).await.unwrap().unwrap_err();
    let PoolError::Receive(error) = error else { panic!("{error}") };
    assert_eq!((error.kind, error.peer.as_str()), (ReceiveErrorKind::Lost, "alice"));
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "last words");
}

#[tokio::test]
async fn a_restarted_peer_is_noticed_and_named() {
    let (alice, bob) = duo();
    let (port_a, port_b) = (alice.port(), bob.port());
    for _ in 0..3 {
        soon(alice.send("bob", &1)).await.unwrap();
        soon(bob.recv::<i32>("alice")).await.unwrap();
    }
    let waiting = tokio::spawn(async move {
        let error = bob.recv::<i32>("alice").await.unwrap_err();
        (bob, error)
    });
    // Gone without a word, as a killed process.
    sleep(Duration::from_millis(100)).await;
    drop(alice);
    sleep(Duration::from_millis(100)).await;
    let alice = plain().peer(local("bob", port_b)).listen("127.0.0.1", port_a).unwrap();
    soon(alice.send("bob", &7)).await.unwrap();
    let (bob, error) = soon(waiting).await.unwrap();
    let PoolError::Receive(error) = error else { panic!("{error}") };
    assert_eq!((error.kind, error.peer.as_str()), (ReceiveErrorKind::Restarted, "alice"));
    // Default ids are in step again, in both directions.
    assert_eq!(soon(bob.recv::<i32>("alice")).await.unwrap(), 7);
    soon(bob.send("alice", &8)).await.unwrap();
    assert_eq!(soon(alice.recv::<i32>("bob")).await.unwrap(), 8);
}

#[tokio::test]
async fn shutdown_says_what_was_not_acknowledged() {
    let alice = plain()
        .peer(local("bob", free_port()).wire(WireChoice::Only(Wire::Four)))
        .listen("127.0.0.1", 0)
        .unwrap();
    let alice = Arc::new(alice);
    let sending = {
        let alice = Arc::clone(&alice);
        tokio::spawn(async move { alice.send_as("bob", "lost", &1).await.unwrap_err() })
    };
    sleep(Duration::from_millis(100)).await;
    let dropped = soon(alice.shutdown(Duration::from_millis(200))).await;
    assert_eq!(dropped.len(), 1);
    assert_eq!((dropped[0].peer.as_str(), dropped[0].id.to_string().as_str()), ("bob", "'lost'"));
    let PoolError::Send(error) = soon(sending).await.unwrap() else { panic!() };
    assert_eq!(error.kind, SendErrorKind::Closed);
}

fn platform() -> &'static Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    PLATFORM.get_or_init(|| Arc::new(Platform::new(now()).unwrap()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn pinned(identity: &Identity) -> PoolBuilder {
    Pool::builder().tls(PeerTls::new(identity.plain().unwrap(), None))
}

fn key(identity: &Identity) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(identity.spki()).into()
}

#[tokio::test]
async fn peers_are_known_by_their_keys() {
    let (a, b) = (Identity::generate(), Identity::generate());
    let alice = pinned(&a).listen("127.0.0.1", 0).unwrap();
    let bob =
        pinned(&b).peer(local("alice", alice.port()).key(key(&a))).listen("127.0.0.1", 0).unwrap();
    alice.add_peer(local("bob", bob.port()).key(key(&b))).unwrap();
    soon(alice.send("bob", "secret")).await.unwrap();
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "secret");
    let large = Bytes::from(vec![1; 30_000_000]);
    soon(bob.send_bytes("alice", "large", large.clone())).await.unwrap();
    assert_eq!(soon(alice.recv_bytes("bob", "large")).await.unwrap(), large);
}

#[tokio::test]
async fn mallory_at_bobs_address_gets_nothing() {
    let (a, b, m) = (Identity::generate(), Identity::generate(), Identity::generate());
    let mallory = pinned(&m).listen("127.0.0.1", 0).unwrap();
    let alice =
        pinned(&a).peer(local("bob", mallory.port()).key(key(&b))).listen("127.0.0.1", 0).unwrap();
    mallory.add_peer(local("alice", alice.port()).key(key(&a))).unwrap();
    let PoolError::Send(error) = soon(alice.send("bob", "secret")).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(error.kind, SendErrorKind::NotAuthenticated);
    assert!(error.to_string().contains("bob"), "{error}");
    // And alice takes nothing from her either.
    let PoolError::Send(error) = soon(mallory.send("alice", "I am bob")).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(error.kind, SendErrorKind::NotAuthenticated);
}

#[tokio::test]
async fn a_party_may_be_an_enclave() {
    let (a, b) = (Identity::generate(), Identity::generate());
    let enclave = Enclave::named("party");
    let source = Arc::new(platform().enclave(enclave.clone()));
    let expect = |enclave: &Enclave| Expect::Evidence {
        policies: vec![Arc::new(
            Policy::from_toml(&policy_toml(platform(), &[("party", enclave)])).unwrap(),
        )],
        collateral: Arc::new(platform().collateral(&CollateralKnobs::default())),
        key: None,
    };
    let bob = Pool::builder().attested(b.clone(), source, None).unwrap();
    let alice = pinned(&a).listen("127.0.0.1", 0).unwrap();
    let bob = bob.peer(local("alice", alice.port()).key(key(&a))).listen("127.0.0.1", 0).unwrap();
    alice.add_peer(local("bob", bob.port()).expect(expect(&enclave))).unwrap();
    alice.add_peer(local("imposter", bob.port()).expect(expect(&Enclave::named("other")))).unwrap();
    soon(alice.send("bob", "secret")).await.unwrap();
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "secret");
    soon(bob.send("alice", "from inside")).await.unwrap();
    assert_eq!(soon(alice.recv::<String>("bob")).await.unwrap(), "from inside");
    let PoolError::Send(error) = soon(alice.send("imposter", "secret")).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(error.kind, SendErrorKind::NotAuthenticated);
}

#[tokio::test]
async fn without_tls_or_a_word_about_it_nobody_is_known() {
    let error = Pool::builder().peer(local("bob", 1)).listen("127.0.0.1", 0).err().unwrap();
    assert!(matches!(error, PoolError::NoIdentity(_)), "{error}");
    let secured = pinned(&Identity::generate());
    let error = secured.peer(local("bob", 1)).listen("127.0.0.1", 0).err().unwrap();
    assert!(matches!(error, PoolError::NoIdentity(_)), "{error}");
}

/// A pool that knows "raw", a sender of bytes at `port`.
fn with_raw_sender() -> (Pool, u16) {
    let port = free_port();
    let bob = plain().peer(local("raw", port)).listen("127.0.0.1", 0).unwrap();
    (bob, port)
}

/// Sends bytes on a connection of their own and returns the status of the answer and the answer.
async fn post(pool: &Pool, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", pool.port())).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut buffer = vec![0; 4096];
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        let read = soon(stream.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "no answer");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    (text[9..12].parse().unwrap(), text)
}

fn request(port: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: bob\r\nCookie: server_port={port}\r\nContent-Length: {}\r\n\
         {headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// `{"object": "hi", "id": <id>}`.
fn hi(id: u8) -> Vec<u8> {
    [b"\x82\xa6object\xa2hi\xa2id", &[id][..]].concat()
}

#[tokio::test]
async fn a_request_of_the_genuine_package_is_a_message() {
    let (bob, port) = with_raw_sender();
    let (status, text) = post(&bob, &request(port, "", &hi(0))).await;
    assert_eq!(status, 200);
    assert!(text.ends_with("Message received"), "{text}");
    assert_eq!(soon(bob.recv::<String>("raw")).await.unwrap(), "hi");
    let get = b"GET / HTTP/1.1\r\nHost: bob\r\n\r\n";
    assert_eq!(post(&bob, get).await.0, 200);
}

#[tokio::test]
async fn a_stranger_is_told_so_before_its_body_is_read() {
    let (bob, port) = with_raw_sender();
    let other = if port == 1 { 2 } else { 1 };
    let head = format!(
        "POST / HTTP/1.1\r\nCookie: server_port={other}\r\nContent-Length: 200000000\r\n\r\n"
    );
    let (status, text) = post(&bob, head.as_bytes()).await;
    assert_eq!(status, 401);
    assert!(text.contains("no party of this pool is registered"), "{text}");
    let (status, _) = post(&bob, b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn what_cannot_be_a_message_is_refused() {
    let (bob, port) = with_raw_sender();
    for (headers, body, expected) in [
        ("", &b""[..], 400),
        ("", b"garbage", 400),
        ("", b"\x81\xa6object\x01", 400),
        ("", b"\xdf\xff\xff\xff\xff", 400),
        ("Content-Encoding: deflate\r\n", b"x\x9c", 415),
        ("Transfer-Encoding: chunked\r\n", b"", 411),
        ("x-pool-nonce: minus\r\n", b"", 400),
    ] {
        let (status, text) = post(&bob, &request(port, headers, body)).await;
        assert_eq!(status, expected, "{headers} {text}");
    }
    let (status, _) = post(&bob, b"DELETE / HTTP/1.1\r\n\r\n").await;
    assert_eq!(status, 405);
    let second = "x-pool-wire: 2\r\nx-pool-epoch: 0000000000000001\r\nx-pool-nonce: 0\r\n";
    let (other, other_port) = with_raw_sender();
    assert_eq!(post(&other, &request(other_port, second, b"nope")).await.0, 400);
    let deep = [&b"\x82\xa6object"[..], &vec![0x91; 100_000], b"\x01\xa2id\x00"].concat();
    assert_eq!(post(&bob, &request(port, "", &deep)).await.0, 400);
    // And it goes on working.
    assert_eq!(post(&bob, &request(port, "", &hi(0))).await.0, 200);
    assert_eq!(soon(bob.recv::<String>("raw")).await.unwrap(), "hi");
}

#[tokio::test]
async fn a_message_that_was_sent_twice_arrives_once() {
    let (bob, port) = with_raw_sender();
    // With numbers: by number, before and after it is received.
    let body = [b"CVP2\x01\x01\x00\x01\x00\x00\x00\x00", &3u64.to_be_bytes()[..], b"x", b"\xa2hi"]
        .concat();
    let headers = "x-pool-wire: 2\r\nx-pool-epoch: 00000000000000aa\r\nx-pool-nonce: 0\r\n";
    for _ in 0..2 {
        assert_eq!(post(&bob, &request(port, headers, &body)).await.0, 200);
    }
    assert_eq!(soon(bob.recv_as::<String>("raw", "x")).await.unwrap(), "hi");
    assert_eq!(post(&bob, &request(port, headers, &body)).await.0, 200);
    let again = timeout(Duration::from_millis(200), bob.recv_as::<String>("raw", "x")).await;
    assert!(again.is_err(), "it arrived twice");
    // A downgrade by the same sender is refused.
    let (status, text) = post(&bob, &request(port, "", &hi(0))).await;
    assert_eq!(status, 409, "{text}");
}

#[tokio::test]
async fn a_repetition_without_numbers_is_dropped_and_another_message_is_not() {
    let (bob, port) = with_raw_sender();
    for _ in 0..2 {
        assert_eq!(post(&bob, &request(port, "", &hi(0))).await.0, 200);
    }
    let other = [&b"\x82\xa6object\xa2ho\xa2id"[..], &[0]].concat();
    assert_eq!(post(&bob, &request(port, "", &other)).await.0, 200);
    assert_eq!(soon(bob.recv_as::<String>("raw", 0)).await.unwrap(), "hi");
    assert_eq!(soon(bob.recv_as::<String>("raw", 0)).await.unwrap(), "ho");
    // Two on one connection are two: a connection that works needs no repetition.
    let mut stream = TcpStream::connect(("127.0.0.1", bob.port())).await.unwrap();
    for _ in 0..2 {
        stream.write_all(&request(port, "", &hi(9))).await.unwrap();
        assert_eq!(answer(&mut stream).await.0, 200);
    }
    for _ in 0..2 {
        assert_eq!(soon(bob.recv_as::<String>("raw", 9)).await.unwrap(), "hi");
    }
}

/// Carries connections to `port`; the first ones are cut after so many bytes.
async fn cutting_proxy(port: u16, mut cuts: Vec<u64>) -> (u16, Arc<std::sync::Mutex<Vec<u64>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let carried = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&carried);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            let cut = if cuts.is_empty() { u64::MAX } else { cuts.remove(0) };
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back = tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let mut limited = (&mut from_client).take(cut);
                let bytes = tokio::io::copy(&mut limited, &mut to_server).await.unwrap_or(0);
                log.lock().unwrap().push(bytes);
                back.abort();
            });
        }
    });
    (own, carried)
}

#[tokio::test]
async fn a_broken_bulk_message_is_resumed_and_not_sent_anew() {
    const SIZE: usize = 40_000_000;
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain().peer(local("alice", alice.port())).listen("127.0.0.1", 0).unwrap();
    // The first connection carries the question for the wire.
    let cuts = vec![u64::MAX, 15_000_000, 15_000_000];
    let (proxy, carried) = cutting_proxy(bob.port(), cuts).await;
    alice.add_peer(local("bob", proxy)).unwrap();
    let bytes: Bytes = (0..=250u8).cycle().take(SIZE).collect();
    soon(alice.send_bytes("bob", "large", bytes.clone())).await.unwrap();
    assert_eq!(soon(bob.recv_bytes("alice", "large")).await.unwrap(), bytes);
    drop(alice);
    sleep(Duration::from_millis(300)).await;
    let total: u64 = carried.lock().unwrap().iter().sum();
    assert!(total < SIZE as u64 + 6_000_000, "{total} bytes were carried");
}

#[tokio::test]
async fn connections_that_break_lose_and_double_nothing() {
    let alice = plain().listen("127.0.0.1", 0).unwrap();
    let bob = plain().peer(local("alice", alice.port())).listen("127.0.0.1", 0).unwrap();
    let cuts = (0..60).map(|number| 1_000 + number * 977).collect();
    let (proxy, _) = cutting_proxy(bob.port(), cuts).await;
    alice.add_peer(local("bob", proxy)).unwrap();
    let alice = Arc::new(alice);
    let sending = {
        let alice = Arc::clone(&alice);
        tokio::spawn(async move {
            for number in 0..4_000u32 {
                alice.send("bob", &number).await.unwrap();
            }
        })
    };
    for number in 0..4_000u32 {
        assert_eq!(soon(bob.recv::<u32>("alice")).await.unwrap(), number);
    }
    soon(sending).await.unwrap();
    let more = timeout(Duration::from_millis(200), bob.recv::<u32>("alice")).await;
    assert!(more.is_err(), "a message came twice");
}

#[tokio::test]
async fn sixteen_parties_all_to_all() {
    let pools: Vec<Arc<Pool>> =
        (0..16).map(|_| Arc::new(plain().listen("127.0.0.1", 0).unwrap())).collect();
    for (index, pool) in pools.iter().enumerate() {
        for (other, peer) in pools.iter().enumerate().filter(|(other, _)| *other != index) {
            pool.add_peer(local(&format!("p{other}"), peer.port())).unwrap();
        }
    }
    let begun = Instant::now();
    let parties: Vec<_> = pools
        .iter()
        .enumerate()
        .map(|(index, pool)| {
            let pool = Arc::clone(pool);
            tokio::spawn(async move {
                for round in 0..20i64 {
                    pool.broadcast(None, round, &(index, vec![round; 1000])).await.unwrap();
                    for other in (0..16).filter(|other| *other != index) {
                        let (from, values): (usize, Vec<i64>) =
                            pool.recv_as(&format!("p{other}"), round).await.unwrap();
                        assert_eq!((from, values), (other, vec![round; 1000]));
                    }
                }
            })
        })
        .collect();
    for party in parties {
        soon(party).await.unwrap();
    }
    assert!(begun.elapsed() < PATIENCE);
}
