//! What bytes cost to get at all: `transfer_cost BYTES` sends so many over a connection of ours on
//! loopback, and prints as JSON the seconds of processor time that the receiving thread takes to read
//! them from TLS and to copy them once into fresh memory. `cargo xtask bench` holds uploads against it.

use std::time::Duration;

use convelo_channel::{Dialler, Expect, Identity, Listener};
use convelo_psi::KeyId;
use convelo_simulator::{Enclave, Platform};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

/// As long as a chunk of a set.
const CHUNK: usize = 128 << 10;

fn main() {
    let bytes = std::env::args().nth(1).and_then(|argument| argument.parse().ok());
    let bytes: usize = bytes.expect("usage: transfer_cost BYTES");
    let (listening, address) = oneshot::channel();
    let receiving = std::thread::spawn(move || runtime().block_on(receive(bytes, listening)));
    runtime().block_on(async {
        let (address, key) = address.await.expect("a listener");
        let credential = Identity::generate().plain().expect("a certificate");
        let dialled = Dialler::new(credential).dial(&address, &Expect::Key(key)).await;
        let stream = dialled.expect("a connection").insecure_ratls_only();
        let mut stream = stream.expect("a pinned key needs no collateral");
        let chunk = vec![7; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let piece = &chunk[..left.min(CHUNK)];
            stream.write_all(piece).await.expect("sent");
            left -= piece.len();
        }
        stream.shutdown().await.expect("closed");
    });
    let used = receiving.join().expect("received").as_secs_f64();
    let figures = serde_json::json!({ "bytes": bytes, "receive_cpu_seconds": used });
    let mut out = std::io::stdout().lock();
    std::io::Write::write_all(&mut out, format!("{figures}\n").as_bytes()).expect("stdout");
}

/// The processor time from the first byte to the last.
async fn receive(bytes: usize, listening: oneshot::Sender<(String, [u8; 32])>) -> Duration {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let platform = std::sync::Arc::new(Platform::new(now).expect("a platform"));
    let source = std::sync::Arc::new(platform.enclave(Enclave::named("service")));
    let identity = Identity::generate();
    let key = KeyId::of_spki(identity.spki()).0;
    let listener = Listener::bind("127.0.0.1:0", identity, source).await.expect("a listener");
    let address = listener.address().expect("an address").to_string();
    let (sender, mut accepted) = mpsc::channel(1);
    tokio::spawn(listener.accept(sender));
    listening.send((address, key)).expect("somebody who dials");
    let mut stream = accepted.recv().await.expect("a connection").expect("accepted");
    stream.peer().place.expect(bytes as u64);
    let mut chunk = vec![0; CHUNK];
    let before = thread_cpu();
    let mut received: Vec<u8> = Vec::with_capacity(bytes);
    loop {
        match stream.read(&mut chunk).await.expect("bytes") {
            0 => break,
            read => received.extend_from_slice(&chunk[..read]),
        }
    }
    let used = thread_cpu().saturating_sub(before);
    assert_eq!(received.len(), bytes, "all bytes arrived");
    used
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
