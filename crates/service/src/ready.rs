//! What an orchestrator asks: does the service take jobs?
//!
//! A port of its own, because a probe brings no certificate, in plain HTTP, and only if an address is given
//! for it. It answers `GET /ready` and nothing else, and tells what anybody learns who tries to run a job.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use convelo_channel::{Holder, SlotLimits, Slots};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use convelo_channel::limits::ACCEPT_PAUSE;

use crate::limits::{
    MAXIMUM_READY_REQUEST_BYTES, READY_CONNECTIONS, READY_CONNECTIONS_EACH, READY_TIMEOUT,
};
use crate::server::Observer;

/// A port that answers.
pub(crate) struct ReadyPort {
    listener: TcpListener,
}

impl ReadyPort {
    /// Listens on `address:port`; port 0 picks one.
    pub(crate) async fn bind(address: &str) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped. There is no service to observe until it listens.
    pub(crate) async fn run(self, service: Arc<OnceLock<Observer>>) {
        let slots = Slots::new(SlotLimits {
            open: READY_CONNECTIONS,
            open_each: READY_CONNECTIONS_EACH,
            kept: 0,
            kept_each: 0,
        });
        let mut answering = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = answering.join_next(), if !answering.is_empty() => continue,
            };
            let Ok((tcp, address)) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (slot, lost) = slots.take([Holder::source(address.ip())]);
            let service = Arc::clone(&service);
            answering.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    _ = timeout(READY_TIMEOUT, answer(tcp, &service)) => {}
                    () = lost => {}
                }
            });
        }
    }
}

async fn answer(mut tcp: TcpStream, service: &OnceLock<Observer>) -> io::Result<()> {
    let mut request = Vec::with_capacity(MAXIMUM_READY_REQUEST_BYTES);
    while !is_complete(&request) {
        let room = (MAXIMUM_READY_REQUEST_BYTES - request.len()) as u64;
        if (&mut tcp).take(room).read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, word) = if is_the_question(&request) {
        state(service.get())
    } else {
        ("404 Not Found", "there is only GET /ready")
    };
    let length = word.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{word}\n"
    );
    tcp.write_all(answer.as_bytes()).await?;
    tcp.shutdown().await
}

fn is_complete(request: &[u8]) -> bool {
    request.ends_with(b"\r\n\r\n")
}

fn is_the_question(request: &[u8]) -> bool {
    request.starts_with(b"GET /ready HTTP/1.")
}

fn state(service: Option<&Observer>) -> (&'static str, &'static str) {
    const NO: &str = "503 Service Unavailable";
    match service {
        None => (NO, "starting"),
        Some(service) if service.is_stopping() => (NO, "stopping"),
        Some(service) if !service.attests() => (NO, "the attestation device makes no quotes"),
        Some(service) if !service.takes_jobs() => (NO, "full"),
        Some(_) => ("200 OK", "ready"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shared;

    /// What a port says to this, up to the end of the connection.
    async fn said(address: SocketAddr, request: &[u8]) -> String {
        let mut tcp = TcpStream::connect(address).await.expect("it listens");
        tcp.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        let read = timeout(3 * READY_TIMEOUT, tcp.read_to_string(&mut answer)).await;
        let _ = read.expect("it ends the connection");
        answer
    }

    async fn port() -> (SocketAddr, Arc<OnceLock<Observer>>) {
        let port = ReadyPort::bind("127.0.0.1:0").await.expect("a port");
        let (address, service) = (port.address().expect("its address"), Arc::default());
        tokio::spawn(port.run(Arc::clone(&service)));
        (address, service)
    }

    const QUESTION: &[u8] = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn not_ready_before_there_is_a_service() {
        let (address, service) = port().await;
        let answer = said(address, QUESTION).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\nstarting\n"),
            "{answer}"
        );
        assert!(service.set(Shared::alone(1, None).observer()).is_ok());
        let answer = said(address, QUESTION).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("Content-Length: 6\r\nConnection: close\r\n\r\nready\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        let (address, _) = port().await;
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET /ready/ HTTP/1.1\r\n\r\n",
            "GET /ready\r\n\r\n",
            "POST /ready HTTP/1.1\r\n\r\n",
            "GET /readyz HTTP/1.0\r\n\r\n",
            "\r\n\r\n",
        ] {
            let answer = said(address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{request}: {answer}");
        }
        let endless = "GET /ready HTTP/1.1\r\nA: ".to_owned() + &"a".repeat(2000);
        assert_eq!(said(address, endless.as_bytes()).await, "");
        assert_eq!(said(address, b"GET /ready HTTP/1.1\r\n").await, "");
    }

    #[tokio::test]
    async fn those_who_say_nothing_keep_nobody_waiting() {
        let (address, _) = port().await;
        let mut silent = Vec::new();
        for _ in 0..4 * READY_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let quick = timeout(READY_TIMEOUT / 2, said(address, QUESTION)).await;
        assert!(quick.expect("at once").ends_with("starting\n"));
    }
}
