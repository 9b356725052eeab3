//! What the Pool adds to a bare connection: CPU for messages of 100 MB, sender and receiver together.
//!
//! One JSON object a line: `name`, `ours` and `tcp` (milliseconds of CPU for a message, the smallest
//! of several interleaved rounds), `unit`, `goal` (ours is at most so many times tcp).
//! `cargo xtask bench pool` runs it beside the Python half.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use convelo_channel::{Credential, Expect, Identity, PeerTls};
use convelo_pool::{Peer, Pool};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BYTES: usize = 100_000_000;
const ROUNDS: f64 = 12.0;
const GOAL: f64 = 1.5;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let scale: f64 = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => 1.0,
        [name, value] if name == "--scale" => value.parse()?,
        _ => return Err("usage: throughput [--scale FACTOR]".into()),
    };
    let rounds = (ROUNDS * scale).ceil().max(3.0);
    for tls in [false, true] {
        let (mut ours, mut bare) = (f64::MAX, f64::MAX);
        let pools = Pools::meet(tls).await?;
        let mut pipe = Pipe::meet(tls).await?;
        let message = Bytes::from(vec![7; BYTES]);
        // The first round of each warms up: connections, pages, frequency.
        let mut round = 0.0;
        while round <= rounds {
            let pool = cpu_of(pools.carry(round, message.clone())).await?;
            let raw = cpu_of(pipe.carry(message.clone())).await?;
            if round > 0.0 {
                (ours, bare) = (ours.min(pool), bare.min(raw));
            }
            round += 1.0;
        }
        let name = if tls { "100 MB, TLS" } else { "100 MB, plain" };
        say(&format!(
            "{{\"name\":\"{name}\",\"ours\":{ours:.2},\"tcp\":{bare:.2},\
             \"unit\":\"ms CPU\",\"goal\":{GOAL}}}"
        ));
        pools.end().await;
    }
    Ok(())
}

/// Milliseconds of CPU of this process.
async fn cpu_of(work: impl Future<Output = Outcome<()>>) -> Outcome<f64> {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let before = now();
    work.await?;
    Ok(now().saturating_sub(before).as_secs_f64() * 1e3)
}

fn credential() -> Outcome<Credential> {
    Ok(Identity::generate().plain()?)
}

/// Two parties.
struct Pools {
    alice: Pool,
    bob: Pool,
}

impl Pools {
    async fn meet(tls: bool) -> Outcome<Self> {
        let credentials = [credential()?, credential()?];
        let builder = |own: &Credential| {
            if tls {
                Pool::builder().tls(PeerTls::new(own.clone(), None))
            } else {
                Pool::builder().insecure_plain_http()
            }
        };
        let peer = |name, port, its: &Credential| {
            let peer = Peer::new(name, "127.0.0.1", port);
            if tls { peer.key(its.key_id()) } else { peer }
        };
        let alice = builder(&credentials[0]).listen("127.0.0.1", 0)?;
        let bob = builder(&credentials[1])
            .peer(peer("alice", alice.port(), &credentials[0]))
            .listen("127.0.0.1", 0)?;
        alice.add_peer(peer("bob", bob.port(), &credentials[1]))?;
        alice.send("bob", "hello").await?;
        bob.recv::<String>("alice").await?;
        Ok(Self { alice, bob })
    }

    async fn carry(&self, round: f64, message: Bytes) -> Outcome<()> {
        let id = round.to_string();
        let (sent, received) = tokio::join!(
            self.alice.send_bytes("bob", id.as_str(), message),
            self.bob.recv_bytes("alice", id.as_str())
        );
        sent?;
        if received?.len() == BYTES { Ok(()) } else { Err("a message of another length".into()) }
    }

    async fn end(self) {
        self.alice.shutdown(Duration::from_secs(5)).await;
        self.bob.shutdown(Duration::from_secs(5)).await;
    }
}

/// A bare connection: what is written arrives in one buffer, which is used again and again, and is
/// acknowledged by one byte.
struct Pipe {
    near: Box<dyn Duplex>,
    far: Box<dyn Duplex>,
    buffer: BytesMut,
}

trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Duplex for T {}

impl Pipe {
    async fn meet(tls: bool) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (near, (far, _)) = (near?, far?);
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let buffer = BytesMut::with_capacity(BYTES);
        if !tls {
            return Ok(Self { near: Box::new(near), far: Box::new(far), buffer });
        }
        let credentials = [credential()?, credential()?];
        let expect = Expect::Key(credentials[1].key_id());
        let [client, server] = credentials.map(|credential| PeerTls::new(credential, None));
        let (near, far) = tokio::join!(client.connect(near, &expect), server.accept(far));
        Ok(Self { near: Box::new(near?.0), far: Box::new(far?.0), buffer })
    }

    async fn carry(&mut self, message: Bytes) -> Outcome<()> {
        let Self { near, far, buffer } = self;
        buffer.clear();
        let sending = async {
            near.write_all(&message).await?;
            near.flush().await?;
            near.read_u8().await
        };
        let receiving = async {
            while buffer.len() < BYTES {
                if far.read_buf(buffer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            far.write_u8(1).await?;
            far.flush().await
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent?;
        received?;
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "an example talks to a terminal")]
fn say(text: &str) {
    println!("{text}");
}
