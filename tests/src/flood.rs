//! What one stranger can do to a service: anyone who reaches its port, from one address, with keys of
//! their own making.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use convelo_channel::{Expect, Identity};
use convelo_wire::limits::MAXIMUM_FROM_PARTY_BYTES;
use http_body::Frame;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service as _, http};
use tonic::transport::Channel;

use crate::client::{RawConnection, RawParty, reach_from};
use crate::world::{Party, Service, World};

/// How long a stranger waits before it tries again.
const PAUSE: Duration = Duration::from_millis(250);

/// How many keys of a job of two take half of a service's 4 GiB: whole blocks of 8192.
const HALF_THE_MEMORY: u64 = 14_169 * 8192;

/// Streams on one connection.
const STREAMS: usize = 4;

/// A stranger, for as long as this lives.
pub struct Flood {
    from: Ipv4Addr,
    address: String,
    expect: Expect,
    runtime: Option<Runtime>,
    held: Vec<RawParty>,
}

impl Flood {
    /// A stranger at this address, who has not done anything yet.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn from(from: Ipv4Addr, service: &Service) -> Self {
        Self::at(from, &service.address, Expect::Key(service.key.0))
    }

    /// The same at a service of which that is expected.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn at(from: Ipv4Addr, address: &str, expect: Expect) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        Self { from, address: address.to_owned(), expect, runtime: Some(runtime), held: Vec::new() }
    }

    /// Holds this many connections on which nothing is ever said.
    pub fn idle_sockets(&self, count: usize) {
        let connect = async |from, address: &str| {
            if let Ok(mut tcp) = reach_from(from, address).await {
                let _ = tcp.read(&mut [0]).await;
            }
        };
        for _ in 0..count {
            let (from, address) = (self.from, self.address.clone());
            self.spawn(async move {
                loop {
                    connect(from, &address).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }

    /// Holds this many connections, each with four streams that end in the middle of the longest
    /// message, before any challenge.
    pub fn half_messages(&self, connections: usize) {
        for _ in 0..connections {
            let (from, address, expect) = (self.from, self.address.clone(), self.expect.clone());
            self.spawn(async move {
                let identity = Identity::generate();
                loop {
                    let connection =
                        RawConnection::try_open_from(from, &address, &identity, expect.clone());
                    if let Some(connection) = connection.await {
                        let streams =
                            (0..STREAMS - 1).map(|_| half_a_message(connection.channel.clone()));
                        for stream in streams.collect::<Vec<_>>() {
                            let _ = stream.await;
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }

    /// Opens this many jobs of seven days under one key, each of which waits for somebody who never
    /// comes. Returns when the service has been told of all of them.
    ///
    /// # Panics
    /// If the service does not even take the streams.
    pub fn jobs(&mut self, world: &World, count: usize) {
        let parties = world.parties(["mallory", "godot"]);
        let builder = world.job(None, &parties).deadline("7d");
        let mut connection = None;
        for number in 0..count {
            let stream = match connection.take() {
                Some((earlier, open)) if open < STREAMS => {
                    let earlier: RawConnection = earlier;
                    let stream = earlier.another();
                    connection = Some((earlier, open + 1));
                    stream
                }
                _ => {
                    let opened = self.connect(&parties[0]);
                    let stream = opened.another();
                    connection = Some((opened, 2));
                    stream
                }
            };
            let job = builder.clone().name(&format!("flood-{number}")).job();
            let stream = stream.expect("another stream");
            let party = &parties[0];
            self.held.push(RawParty::enter(stream, &job, &party.name, &party.identity));
        }
    }

    /// Has two keys announce sets of 116 million keys, for which there is just enough memory unless
    /// the operator has said otherwise, and upload nothing.
    ///
    /// # Panics
    /// If the service does not let them agree on a job key.
    pub fn reservations(&mut self, world: &World) {
        let parties = world.parties(["eve", "oscar"]);
        let builder = world.job(None, &parties).name("reservations").maximum_keys(200_000_000);
        let job = builder.deadline("7d").job();
        let entered = parties
            .each_ref()
            .map(|party| RawParty::enter(self.connect(party), &job, &party.name, &party.identity));
        let announced = thread::scope(|scope| {
            let announcing = entered.map(|mut party| {
                scope.spawn(move || {
                    party.agree();
                    party.announce(HALF_THE_MEMORY, [7; 32]);
                    party
                })
            });
            announcing.map(|party| party.join().expect("they agree"))
        });
        self.held.extend(announced);
    }

    fn connect(&self, party: &Party) -> RawConnection {
        RawConnection::open_from(self.from, &self.address, &party.identity, self.expect.clone())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.as_ref().expect("it has not been dropped").spawn(task);
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A call whose first message never ends.
pub(crate) async fn half_a_message(mut channel: Channel) {
    let length = u32::try_from(MAXIMUM_FROM_PARTY_BYTES).expect("short");
    let mut message = vec![0];
    message.extend(length.to_be_bytes());
    message.resize(MAXIMUM_FROM_PARTY_BYTES, 0);
    let request = http::Request::post("http://convelo/convelo.join.v1.JoinService/Join")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Unfinished(Some(message.into()))))
        .expect("a request");
    if std::future::poll_fn(|context| channel.poll_ready(context)).await.is_ok()
        && let Ok(response) = channel.call(request).await
    {
        let mut body = response.into_body();
        while std::future::poll_fn(|context| {
            http_body::Body::poll_frame(Pin::new(&mut body), context)
        })
        .await
        .is_some_and(|frame| frame.is_ok())
        {}
    }
}

/// Some bytes, and then nothing, without an end.
struct Unfinished(Option<Bytes>);

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}
