//! A party driven by hand: the genuine connection and protocol, one message at a time, so that a
//! test can send what the program never sends, or stop wherever it likes.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Mutex, OnceLock, PoisonError};

use convelo_channel::{Binding, Credential, Dialler, Expect, Identity, os_rng};
use convelo_keys::{Encoded, Normaliser};
use convelo_psi::agreement::{Assembled, Confirmation, Confirming, JobKey, Opening};
use convelo_psi::{Bitmap, Job, JobDigest, Outcome, PseudonymSet, SetBuilder};
use convelo_wire::limits::MAXIMUM_CHUNK_BYTES;
use convelo_wire::proto::join_service_client::JoinServiceClient;
use convelo_wire::{Announcement, Challenge, Failed, FromParty, Hello, Proof, ToParty, proto};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::flood::half_a_message;
use crate::process::PATIENCE;

/// A verified connection with an open stream, before its Hello. If it is dropped, the service sees
/// the same as when a process is killed.
pub struct RawConnection {
    outgoing: mpsc::Sender<proto::FromParty>,
    incoming: Streaming<proto::ToParty>,
    /// The connection under it.
    pub(crate) channel: Channel,
    /// What ties a quote to this connection.
    pub binding: Binding,
}

/// What came next on a stream.
pub enum Received {
    /// A message.
    Message(ToParty),
    /// The end of the stream, orderly or not.
    End,
}

impl RawConnection {
    /// Connects, verifies the service and opens a stream.
    ///
    /// # Panics
    /// If that fails.
    pub fn open(address: &str, identity: &Identity, expect: Expect) -> Self {
        Self::open_from(Ipv4Addr::LOCALHOST, address, identity, expect)
    }

    /// The same from another address of this machine, 127.x.x.x.
    ///
    /// # Panics
    /// If that fails.
    pub fn open_from(from: Ipv4Addr, address: &str, identity: &Identity, expect: Expect) -> Self {
        wait(Self::try_open_from(from, address, identity, expect)).expect("a stream")
    }

    /// The same under a certificate with evidence.
    ///
    /// # Panics
    /// If that fails.
    pub fn open_attested(address: &str, credential: Credential, expect: Expect) -> Self {
        let opening = Self::try_open(Ipv4Addr::LOCALHOST, address, credential, expect);
        wait(opening).expect("a stream")
    }

    /// The same; none if it fails.
    pub async fn try_open_from(
        from: Ipv4Addr,
        address: &str,
        identity: &Identity,
        expect: Expect,
    ) -> Option<Self> {
        Self::try_open(from, address, identity.plain().expect("a certificate"), expect).await
    }

    async fn try_open(
        from: Ipv4Addr,
        address: &str,
        credential: Credential,
        expect: Expect,
    ) -> Option<Self> {
        let dialler = Dialler::new(credential);
        let tcp = reach_from(from, address).await.ok()?;
        let service = dialler.dial_over(tcp, address, &expect).await.ok()?;
        let binding = service.binding().clone();
        let stream = service.insecure_ratls_only().expect("a verified connection");
        let slot = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.ok_or_else(|| io::Error::other("the connection broke")) }
        });
        let endpoint = Endpoint::from_static("http://convelo");
        let channel = endpoint.connect_with_connector(connector).await.ok()?;
        Self::stream(channel, binding).await
    }

    /// Another stream on the same connection. None if the service accepts no more.
    pub fn another(&self) -> Option<Self> {
        wait(Self::stream(self.channel.clone(), self.binding.clone()))
    }

    /// Begins this many more streams on the same connection, each with the longest message, whose
    /// last bytes never come.
    pub fn half_messages(&self, streams: usize) {
        for _ in 0..streams {
            runtime().spawn(half_a_message(self.channel.clone()));
        }
    }

    async fn stream(channel: Channel, binding: Binding) -> Option<Self> {
        let (outgoing, messages) = mpsc::channel(1);
        let mut client = JoinServiceClient::new(channel.clone());
        let response = client.join(ReceiverStream::new(messages)).await.ok()?;
        Some(Self { outgoing, incoming: response.into_inner(), channel, binding })
    }

    /// Sends a message. False if the service accepts no more.
    pub fn send(&self, message: FromParty) -> bool {
        self.send_raw(message.into())
    }

    /// Sends whatever a message can hold. False if the service accepts no more.
    pub fn send_raw(&self, message: proto::FromParty) -> bool {
        wait(self.outgoing.send(message)).is_ok()
    }

    /// The next message, or the end.
    ///
    /// # Panics
    /// If neither comes, or the message is malformed.
    pub fn receive(&mut self) -> Received {
        match wait(self.incoming.message()) {
            Ok(Some(message)) => {
                Received::Message(message.try_into().expect("the service's messages are sound"))
            }
            Ok(None) | Err(_) => Received::End,
        }
    }

    /// The next message.
    ///
    /// # Panics
    /// If the stream ends instead.
    pub fn message(&mut self) -> ToParty {
        match self.receive() {
            Received::Message(message) => message,
            Received::End => panic!("the service ended the stream"),
        }
    }

    /// Why the stream ends; everything before that is skipped.
    ///
    /// # Panics
    /// If it ends in another way.
    pub fn failure(&mut self) -> Failed {
        loop {
            if let ToParty::Failed(failed) = self.message() {
                assert!(matches!(self.receive(), Received::End), "nothing follows Failed");
                return failed;
            }
        }
    }

    /// Challenges the service, as a party does before its Hello.
    ///
    /// # Panics
    /// If anything but a proof arrives.
    pub fn attest(&mut self, job: JobDigest) -> (Challenge, Proof) {
        let challenge = Challenge { nonce: [7; 32], job };
        assert!(self.send(FromParty::Challenge(challenge)), "the service takes a challenge");
        match self.message() {
            ToParty::Proof(proof) => (challenge, proof),
            ToParty::Failed(failed) => panic!("refused: {failed}"),
            _ => panic!("no proof"),
        }
    }

    /// Sends a Hello for this job.
    pub fn hello(&self, job: &Job, name: &str, opening: &Opening) -> bool {
        self.send(FromParty::Hello(Hello {
            job: job.canonical().to_owned().into(),
            party: name.to_owned(),
            offer: opening.offer(),
            software: "a test".to_owned(),
            received: None,
            evidence: None,
        }))
    }
}

/// A party of a job, after its Hello.
pub struct RawParty {
    /// Its stream.
    pub connection: RawConnection,
    job: Job,
    opening: Option<Opening>,
    assembled: Option<Assembled>,
}

impl RawParty {
    /// Asks for the seat of `name` in a job.
    ///
    /// # Panics
    /// If the service does not even accept the Hello.
    pub fn enter(
        mut connection: RawConnection,
        job: &Job,
        name: &str,
        identity: &Identity,
    ) -> Self {
        connection.attest(job.digest());
        let opening = Opening::new(job, name, identity.signing_key(), &mut os_rng());
        assert!(connection.hello(job, name, &opening), "the service takes a Hello");
        Self { connection, job: job.clone(), opening: Some(opening), assembled: None }
    }

    /// Waits until the service has seated it: the first message of the stream.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn seated(mut self) -> Self {
        match self.connection.message() {
            ToParty::Waiting(_) => self,
            ToParty::Failed(failed) => panic!("refused: {failed}"),
            _ => panic!("not told to wait"),
        }
    }

    /// Waits until all parties have arrived.
    ///
    /// # Panics
    /// If the stream ends instead.
    pub fn assembled(&mut self) -> Assembled {
        while self.assembled.is_none() {
            match self.connection.message() {
                ToParty::Assembled(assembled, _) => self.assembled = Some(assembled),
                ToParty::Waiting(_) => {}
                ToParty::Failed(failed) => panic!("failed: {failed}"),
                _ => panic!("another message than Assembled"),
            }
        }
        self.assembled.clone().expect("all have come")
    }

    /// Agrees on the job key with the other parties.
    ///
    /// # Panics
    /// If that fails, or was done before.
    pub fn agree(&mut self) -> JobKey {
        let confirming = self.confirm(|own| own).0;
        let ToParty::Confirmations(all) = self.connection.message() else {
            panic!("no confirmations");
        };
        let all: Vec<_> = all.into_iter().map(|entry| (entry.party, entry.confirmation)).collect();
        confirming.confirmed(&all).expect("sound confirmations")
    }

    /// Agrees on the job key as far as its own confirmation, of which it sends what `says` makes;
    /// returns the genuine one.
    ///
    /// # Panics
    /// If that fails, or was done before.
    pub fn confirm(
        &mut self,
        says: impl FnOnce(Confirmation) -> Confirmation,
    ) -> (Confirming, Confirmation) {
        let opening = self.opening.take().expect("keys are agreed on once");
        let job = self.job.clone();
        let assembled = self.assembled();
        let (sealing, shares) =
            opening.assembled(&job, &assembled, &mut os_rng()).expect("sound members");
        self.connection.send(FromParty::Shares(shares));
        let ToParty::Shares(shares) = self.connection.message() else { panic!("no shares") };
        let (confirming, own) = sealing.shares(&shares).expect("sound shares");
        self.connection.send(FromParty::Confirmation(says(own.clone())));
        (confirming, own)
    }

    /// The set of these ids under a job key.
    ///
    /// # Panics
    /// If one is not a key.
    pub fn set(&self, key: &JobKey, ids: &[&str]) -> PseudonymSet {
        let pseudonymiser = key.pseudonymiser();
        let mut normaliser = Normaliser::new(self.job.keys());
        let mut builder = SetBuilder::new();
        for (row, id) in (0..).zip(ids) {
            let Encoded::Key(encoded) = normaliser.encode([*id]) else {
                panic!("'{id}' is no key");
            };
            builder.push(pseudonymiser.pseudonym(&encoded.to_vec()), row).expect("in memory");
        }
        builder.finish().expect("in memory")
    }

    /// Announces this many keys with this BLAKE3.
    pub fn announce(&self, keys: u64, blake3: [u8; 32]) -> bool {
        self.connection.send(FromParty::Announcement(Announcement { keys, blake3 }))
    }

    /// Waits until all have announced their sets and the service has room for them.
    ///
    /// # Panics
    /// If anything else arrives.
    pub fn has_room(&mut self) {
        match self.connection.message() {
            ToParty::Ready => {}
            ToParty::Failed(failed) => panic!("failed: {failed}"),
            _ => panic!("another message than Ready"),
        }
    }

    /// Sends bytes as a chunk of the set.
    pub fn chunk(&self, bytes: Vec<u8>) -> bool {
        self.connection.send(FromParty::Chunk(bytes.into()))
    }

    /// Announces and sends a set as an honest party does.
    ///
    /// # Panics
    /// Like [`RawParty::has_room`].
    pub fn upload(&mut self, set: &PseudonymSet) {
        self.announce(set.len() as u64, set.blake3().expect("in memory"));
        self.has_room();
        self.send(set);
    }

    /// Sends a set that has been announced.
    pub fn send(&self, set: &PseudonymSet) {
        for chunk in set.chunks(MAXIMUM_CHUNK_BYTES) {
            self.chunk(chunk.expect("in memory"));
        }
    }

    /// The result, an intersection as a bitmap over `set`; or why there is none.
    ///
    /// # Panics
    /// If neither comes.
    pub fn outcome(&mut self, set: &PseudonymSet) -> Result<Outcome<Bitmap>, Failed> {
        let (outcome, bitmap_bytes) = loop {
            match self.connection.message() {
                ToParty::Outcome { kind, count, bitmap_bytes, .. } => {
                    break (kind.outcome((), count), bitmap_bytes);
                }
                ToParty::Failed(failed) => return Err(failed),
                _ => {}
            }
        };
        let mut bits = Vec::new();
        while (bits.len() as u64) < bitmap_bytes {
            let ToParty::Bitmap(piece) = self.connection.message() else { panic!("no bitmap") };
            bits.extend_from_slice(&piece);
        }
        self.connection.send(FromParty::Received);
        let bitmap = |()| Bitmap::from_bytes(set.len(), bits).expect("a sound bitmap");
        Ok(outcome.map(bitmap, |count| count))
    }

    /// Takes part with these ids to the end. Returns how many of them every party has.
    ///
    /// # Panics
    /// If the outcome is no intersection.
    pub fn finish(mut self, ids: &[&str]) -> u64 {
        let key = self.agree();
        let set = self.set(&key, ids);
        self.upload(&set);
        let Outcome::Intersection(bitmap) = self.outcome(&set).expect("a result") else {
            panic!("no intersection");
        };
        bitmap.count_ones()
    }
}

/// Connects from an address of this machine.
///
/// # Errors
/// The operating system's.
pub async fn reach_from(from: Ipv4Addr, address: &str) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(address.parse().map_err(io::Error::other)?).await
}

/// Runs to the end whatever a test waits for.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
pub fn wait<F: Future>(future: F) -> F::Output {
    runtime().block_on(async {
        tokio::time::timeout(PATIENCE, future).await.expect("an answer within the patience")
    })
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"))
}
