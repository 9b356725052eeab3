//! What somebody without a place in the pool can do at its port: nothing that its parties notice.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convelo_channel::{Expect, Identity, PeerTls};
use convelo_pool::limits::{PEER_CONNECTIONS, REPORTS_AT_ONCE, STRANGERS_PER_HOST};
use convelo_pool::{Level, Node, NodeConfig, Pool, Wire, WireChoice};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::pool::{duo, free_port, local, plain, soon};

/// The loopback network has many hosts, as seen from a listener.
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect(from: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(SocketAddr::from((HERE, port))).await
}

/// Connections that say this and nothing more, held open as long as they are let.
async fn hold(from: Ipv4Addr, port: u16, count: usize, said: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stranger = soon(connect(from, port)).await.unwrap();
        // The listener may have closed it already.
        let _ = stranger.write_all(said).await;
        held.push(stranger);
    }
    held
}

/// Reads to the end of a connection that the other side has to end.
async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset is an end as well.
    let _ = soon(stream.read_to_end(&mut read)).await;
    read
}

async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = soon(stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

const SILENT: &[u8] = b"";
const HALF_A_HEAD: &[u8] = b"POST / HTTP/1.1\r\nCookie: server_port=1\r\n";
const HALF_A_HANDSHAKE: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

#[tokio::test]
async fn sockets_held_by_strangers_do_not_keep_peers_out() {
    for said in [SILENT, HALF_A_HEAD, QUESTION] {
        for from in [HERE, ELSEWHERE] {
            let (alice, bob) = duo();
            let held = hold(from, bob.port(), 2 * STRANGERS_PER_HOST + 1, said).await;
            soon(alice.send("bob", "hello")).await.unwrap();
            assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "hello");
            drop(held);
        }
    }
}

#[tokio::test]
async fn sockets_held_by_strangers_do_not_keep_peers_out_of_tls() {
    for said in [SILENT, HALF_A_HANDSHAKE] {
        let (alice, bob, _) = duo_under_tls();
        let held = hold(ELSEWHERE, bob.port(), 2 * STRANGERS_PER_HOST + 1, said).await;
        soon(alice.send("bob", "hello")).await.unwrap();
        assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "hello");
        drop(held);
    }
}

/// Alice and bob, who know each other's keys, and bob's key.
fn duo_under_tls() -> (Pool, Pool, [u8; 32]) {
    let [alices, bobs] = [(); 2].map(|()| Identity::generate().plain().unwrap());
    let (alice_key, bob_key) = (alices.key_id(), bobs.key_id());
    let of = |credential| Pool::builder().tls(PeerTls::new(credential, None));
    let alice_there = local("alice", free_port()).key(alice_key);
    let bob = of(bobs).peer(alice_there).listen("127.0.0.1", 0).unwrap();
    let bob_there = local("bob", bob.port()).key(bob_key);
    let alice = of(alices).peer(bob_there).listen("127.0.0.1", 0).unwrap();
    (alice, bob, bob_key)
}

/// A connection of somebody whom bob does not know, and who has proved a key of its own.
async fn shaken_hands(
    from: Ipv4Addr,
    port: u16,
    bob: [u8; 32],
) -> impl AsyncRead + AsyncWrite + Unpin {
    let own = PeerTls::new(Identity::generate().plain().unwrap(), None);
    let tcp = soon(connect(from, port)).await.unwrap();
    soon(own.connect(tcp, &Expect::Key(bob))).await.unwrap().0
}

#[tokio::test]
async fn strangers_that_have_shaken_hands_do_not_keep_peers_out() {
    for from in [HERE, ELSEWHERE] {
        let (alice, bob, bob_key) = duo_under_tls();
        let mut held = Vec::new();
        for _ in 0..=2 * STRANGERS_PER_HOST {
            held.push(shaken_hands(from, bob.port(), bob_key).await);
        }
        soon(alice.send("bob", "hello")).await.unwrap();
        assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "hello");
        drop(held);
    }
}

#[tokio::test]
async fn a_stranger_that_shakes_hands_and_does_not_introduce_itself_is_let_go() {
    let (_alice, bob, bob_key) = duo_under_tls();
    for said in [SILENT, HALF_A_HEAD, QUESTION] {
        let mut held = shaken_hands(ELSEWHERE, bob.port(), bob_key).await;
        held.write_all(said).await.unwrap();
        held.flush().await.unwrap();
        read_to_end(&mut held).await;
    }
}

#[tokio::test]
async fn a_stranger_that_does_not_introduce_itself_is_let_go() {
    let (_alice, bob) = duo();
    for said in [SILENT, HALF_A_HEAD, QUESTION] {
        let mut held = hold(ELSEWHERE, bob.port(), 1, said).await;
        read_to_end(&mut held[0]).await;
    }
    // Nor does it help to go on and on.
    let (mut reading, mut writing) = connect(ELSEWHERE, bob.port()).await.unwrap().into_split();
    let asking = tokio::spawn(async move {
        while writing.write_all(QUESTION).await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let _ = soon(reading.read_to_end(&mut Vec::new())).await;
    soon(asking).await.unwrap();
    let mut dripping = connect(ELSEWHERE, bob.port()).await.unwrap();
    soon(async {
        for byte in HALF_A_HEAD.iter().cycle() {
            if dripping.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_of_one_peer_do_not_keep_the_others_out() {
    let (alice, bob) = duo();
    let port = free_port();
    bob.add_peer(local("mallory", port)).unwrap();
    let said = format!(
        "GET / HTTP/1.1\r\nCookie: server_port={port}\r\nx-pool-wire: 2\r\n\
         x-pool-epoch: 0000000000000001\r\n\r\n"
    );
    let mut held = Vec::new();
    for _ in 0..PEER_CONNECTIONS {
        let mut connection = connect(HERE, bob.port()).await.unwrap();
        let answer = ask(&mut connection, said.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        held.push(connection);
    }
    let mut another = connect(HERE, bob.port()).await.unwrap();
    let answer = ask(&mut another, said.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    soon(alice.send("bob", "hello")).await.unwrap();
    assert_eq!(soon(bob.recv::<String>("alice")).await.unwrap(), "hello");
    held.pop();
}

#[tokio::test]
async fn request_from_a_web_page_to_a_pool_on_localhost() {
    let port = free_port();
    let alice = local("alice", port).wire(WireChoice::Only(Wire::Four));
    let bob = plain().peer(alice).listen("127.0.0.1", 0).unwrap();
    // {"object": …, "id": "a"}
    let body = |text: &str| {
        let length = char::from(0xa0 + u8::try_from(text.len()).unwrap());
        let body = ["\u{82}\u{a6}object", &length.to_string(), text, "\u{a2}id\u{a1}a"].concat();
        body.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<u8>>()
    };
    let deliver = |headers: &str, text: &str| {
        let body = body(text);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: server_port={port}\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    for header in [
        "Origin: http://example.org\r\n",
        "Origin: null\r\n",
        "origin: http://127.0.0.1:8000\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
        "SEC-FETCH-MODE: no-cors\r\n",
        "Sec-Fetch-Dest: empty\r\n",
        // Older browsers, and pages of an address that is not secure.
        "Referer: http://example.org/\r\n",
        "Accept-Language: en\r\n",
    ] {
        let mut page = connect(HERE, bob.port()).await.unwrap();
        let answer = ask(&mut page, &deliver(header, "forged")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{header}: {answer}");
        let mut page = connect(HERE, bob.port()).await.unwrap();
        let bye = format!(
            "GET / HTTP/1.1\r\nCookie: server_port={port}\r\nx-pool-wire: 2\r\n\
             x-pool-epoch: 0000000000000001\r\nx-pool-bye: 1\r\n{header}\r\n"
        );
        let answer = ask(&mut page, bye.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{header}: {answer}");
    }
    let mut peer = connect(HERE, bob.port()).await.unwrap();
    let answer = ask(&mut peer, &deliver("", "real")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(soon(bob.recv_as::<String>("alice", "a")).await.unwrap(), "real");
}

#[tokio::test]
async fn refused_strangers_do_not_flood_the_log() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let config = NodeConfig {
        observer: Some(Arc::new(move |notice| {
            if notice.level == Level::Warning {
                heard.lock().unwrap().push(notice.text);
            }
        })),
        ..NodeConfig::default()
    };
    let node = Node::new(config, tokio::runtime::Handle::current());
    let port = node.listen("127.0.0.1", 0, None).unwrap();
    lines.lock().unwrap().clear();
    let strangers = (0..10 * REPORTS_AT_ONCE).map(|_| async move {
        let mut stranger = connect(ELSEWHERE, port).await.unwrap();
        let forged = b"POST / HTTP/1.1\r\nCookie: server_port=1\r\nContent-Length: 0\r\n\r\n";
        let answer = ask(&mut stranger, forged).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    });
    let strangers: Vec<_> = strangers.map(tokio::spawn).collect();
    for stranger in strangers {
        soon(stranger).await.unwrap();
    }
    let lines = lines.lock().unwrap();
    assert!(!lines.is_empty());
    // One more may come while they are refused.
    assert!(lines.len() <= 2 * REPORTS_AT_ONCE as usize, "{} lines", lines.len());
}
