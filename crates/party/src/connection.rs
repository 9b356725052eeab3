//! One connection to the service: it dials until the service answers, verifies the service before
//! the first message, and then carries one message at a time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use convelo_channel::{
    Answer, AttestError, Attested, DialError, Dialled, Dialler, Expect, ServiceStream,
};
use convelo_untrusted::Untrusted;
use convelo_wire::limits::{MAXIMUM_FROM_PARTY_BYTES, MAXIMUM_TO_PARTY_BYTES};
use convelo_wire::proto::join_service_client::JoinServiceClient;
use convelo_wire::{Challenge, FromParty, ToParty, proto};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};

use crate::attestation::{Proved, Renewal, Terms, answer};
use crate::error::{Error, Kind, Speaker, Why};
use crate::event::{Event, Observer};
use crate::limits::{
    ATTEST_AGAIN, ATTEST_RETRY, ATTEST_TIMEOUT, CHUNKS_IN_FLIGHT, FIRST_RETRY, HANDSHAKE_RETRIES,
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, LONGEST_RETRY, NAME_PATIENCE, WINDOW_BYTES,
};

/// Dials until the service answers, another attempt cannot help, or `deadline` passes.
pub(crate) async fn reach(
    address: &str,
    dialler: &Dialler,
    expect: &Expect,
    deadline: Instant,
    observer: &dyn Observer,
) -> Result<Dialled, Error> {
    observer.on(Event::Connecting { address });
    let mut pause = FIRST_RETRY;
    let mut handshakes = 0;
    let began = Instant::now();
    loop {
        let error = match dialler.dial(address, expect).await {
            Ok(service) => return Ok(service),
            Err(error) => error,
        };
        match &error {
            DialError::Unreachable { .. } | DialError::UnknownHost { .. } => {}
            // A service under load may drop a handshake; one that speaks another protocol will not
            // learn ours however often we repeat it.
            DialError::Handshake { source, .. }
                if source.kind() != std::io::ErrorKind::InvalidData
                    && handshakes < HANDSHAKE_RETRIES =>
            {
                handshakes += 1;
            }
            _ => return Err(error.into()),
        }
        let unknown = matches!(error, DialError::UnknownHost { .. });
        let until = if unknown { deadline.min(began + NAME_PATIENCE) } else { deadline };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() && unknown {
            return Err(error.into());
        }
        if left.is_zero() {
            let text = format!("{error}; gave up after the job's deadline");
            return Err(Error::new(Kind::Job, text));
        }
        let why = error.to_string();
        observer.on(Event::ServiceAbsent { why, retry_in: pause, give_up_in: left });
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_RETRY);
    }
}

/// A stream to a service that has proved what it is, if the plan asks for that.
pub(crate) struct Connection {
    stream: Stream,
    certificate: Vec<u8>,
    proved: Proved,
    /// None if no fresh attestation is asked for.
    renewal: Option<Renewal>,
    /// When the next challenge is due or, while one is open, when its answer is due.
    attest_at: Instant,
    /// This party's own quote, while the queue has no room for it.
    owed: Option<Vec<u8>>,
}

impl Connection {
    /// Opens the stream to a service that was dialled at this address. Until the service has proved
    /// what it is, it gets nothing of the job but the digest: the only ways to a [`Connection`] are
    /// [`Dialled::attest`] and the escape hatch that names its danger.
    ///
    /// If there is no collateral to verify its evidence with in the handshake, the service has not
    /// seen who this party is. It proves what it is on that connection, and this party shows itself
    /// on another one, to the same service.
    pub(crate) async fn open(
        service: Dialled,
        (address, dialler): (&str, &Dialler),
        terms: &Terms,
        deadline: Instant,
    ) -> Result<Self, Error> {
        if !matches!(terms.expect, Expect::EvidenceWithOffer { .. }) {
            return Self::under_own_key(service, terms, deadline).await;
        }
        let looked = attest(service, terms, deadline).await?;
        let offered = looked.answered.fresh.as_ref().map(|fresh| &**fresh.collateral());
        terms.admit(offered, Error::refused_on_challenge)?;
        let same = looked.same_service();
        Self::under_own_key(dialler.dial(address, &same).await?, terms, deadline).await
    }

    async fn under_own_key(
        service: Dialled,
        terms: &Terms,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let certificate = service.certificate().to_vec();
        let attest_at = Instant::now() + ATTEST_AGAIN;
        if terms.insecure_ratls_only {
            let proved = Proved::by_certificate(&service, &terms.expect);
            terms.admit(proved.collateral(), Error::from)?;
            let mut stream = Stream::open(service.insecure_ratls_only()?, deadline).await?;
            stream.speaker = Speaker::of(&proved);
            let (renewal, owed) = (None, None);
            return Ok(Self { stream, certificate, proved, renewal, attest_at, owed });
        }
        let attested = attest(service, terms, deadline).await?;
        let quote = terms.quote(&attested.answered.own_report_data)?;
        let proved = attested.answered.fresh.map_or(Proved::Key, Proved::Fresh);
        terms.admit(proved.collateral(), Error::refused_on_challenge)?;
        let connection = Self {
            stream: Stream { speaker: Speaker::of(&proved), ..attested.carrier },
            certificate,
            proved,
            renewal: Some(Renewal::new(attested.attestation, terms.clone())),
            attest_at,
            owed: None,
        };
        if let Some(quote) = quote {
            let _ = connection.send(FromParty::Evidence(quote)).await?;
        }
        Ok(connection)
    }

    /// The service's certificate, DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What the service proved.
    pub(crate) fn proved(&self) -> &Proved {
        &self.proved
    }

    /// Sends a message; waits if the service is slower than we are. False if the stream is over:
    /// the last thing that the service said tells why.
    pub(crate) async fn send(&self, message: FromParty) -> Result<bool, Error> {
        self.stream.send(message).await
    }

    /// A handle for sending while [`Connection::next`] waits.
    pub(crate) fn sender(&self) -> mpsc::Sender<FromParty> {
        self.stream.outgoing.clone()
    }

    /// The next message; the end of the stream, and `Failed`, are errors. May be dropped and called
    /// again without losing a message. Also asks the service to attest the connection again when
    /// that is due.
    pub(crate) async fn next(&mut self) -> Result<ToParty, Error> {
        loop {
            let Some(renewal) = &mut self.renewal else { return self.stream.message().await };
            let message = tokio::select! {
                message = self.stream.message() => message?,
                () = tokio::time::sleep_until(self.attest_at) => {
                    self.attest_again()?;
                    continue;
                }
            };
            let ToParty::Proof(proof) = message else { return Ok(message) };
            // A quote takes this party's device some tens of milliseconds, twice an hour.
            self.owed = renewal.answered(proof)?;
            let pause = if self.owed.is_some() { Duration::ZERO } else { ATTEST_AGAIN };
            self.attest_at = Instant::now() + pause;
        }
    }

    /// Sends what is due: this party's quote or a challenge. Gives up if an answer is overdue.
    fn attest_again(&mut self) -> Result<(), Error> {
        let Some(renewal) = &mut self.renewal else { return Ok(()) };
        if renewal.is_open() {
            return Err(unattested());
        }
        // A queue full of chunks will soon have room again.
        let Ok(place) = self.stream.outgoing.try_reserve() else {
            self.attest_at = Instant::now() + ATTEST_RETRY;
            return Ok(());
        };
        let pause = if let Some(quote) = self.owed.take() {
            place.send(FromParty::Evidence(quote));
            ATTEST_AGAIN
        } else {
            place.send(FromParty::Challenge(renewal.challenge()));
            ATTEST_TIMEOUT
        };
        self.attest_at = Instant::now() + pause;
        Ok(())
    }

    /// Sends a last message and waits until the service has received it, but no longer than
    /// `patience`. Returns whether it has: then it ends the stream.
    pub(crate) async fn last(mut self, word: FromParty, patience: Duration) -> bool {
        let heard = async {
            let sent = self.stream.outgoing.send(word).await.is_ok();
            while sent && self.next().await.is_ok() {}
            sent
        };
        tokio::time::timeout(patience, heard).await.unwrap_or(false)
    }
}

/// Has a service prove what it is, for the job of these terms.
async fn attest(
    service: Dialled,
    terms: &Terms,
    deadline: Instant,
) -> Result<Attested<Stream>, Error> {
    let job = terms.job;
    let carry = async |stream, nonce| challenge(stream, Challenge { nonce, job }, deadline).await;
    service.attest(job.0, carry).await.map_err(|error| match error {
        AttestError::Refused(refusal) => Error::refused_on_challenge(refusal),
        AttestError::Carrier(error) => error,
    })
}

/// All that a service receives before it has proved what it is: the start of a stream, and a
/// challenge.
async fn challenge(
    stream: ServiceStream,
    challenge: Challenge,
    deadline: Instant,
) -> Result<(Stream, Answer), Error> {
    let mut stream = Stream::open(stream, deadline).await?;
    let _ = stream.send(FromParty::Challenge(challenge)).await?;
    let reply = tokio::time::timeout(ATTEST_TIMEOUT, stream.message());
    let ToParty::Proof(proof) = reply.await.map_err(|_| unattested())?? else {
        let text = "the service did not follow the protocol: it answered a challenge with \
                    something other than a proof";
        return Err(Error::new(Kind::Job, text));
    };
    Ok((stream, answer(proof)?))
}

/// Both directions of a call.
struct Stream {
    outgoing: mpsc::Sender<FromParty>,
    incoming: Streaming<proto::ToParty>,
    deadline: Instant,
    /// Who says what arrives.
    speaker: Speaker,
}

impl Stream {
    async fn open(stream: ServiceStream, deadline: Instant) -> Result<Self, Error> {
        let speaker = Speaker::Unverified;
        let slot = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: Uri| {
            // This one verified connection and no other: a reconnect would skip the verdict.
            let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.ok_or_else(|| std::io::Error::other("the connection broke")) }
        });
        let channel = Endpoint::from_static("http://convelo")
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|error| lost(&error, speaker))?;
        let (outgoing, messages) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let messages = ReceiverStream::new(messages).map(proto::FromParty::from);
        let mut client = JoinServiceClient::new(channel)
            .max_decoding_message_size(MAXIMUM_TO_PARTY_BYTES)
            .max_encoding_message_size(MAXIMUM_FROM_PARTY_BYTES);
        let call = tokio::time::timeout_at(deadline, client.join(messages)).await;
        let call = call.map_err(|_| late())?.map_err(|status| lost(&status, speaker))?;
        Ok(Self { outgoing, incoming: call.into_inner(), deadline, speaker })
    }

    async fn send(&self, message: FromParty) -> Result<bool, Error> {
        let sent = tokio::time::timeout_at(self.deadline, self.outgoing.send(message)).await;
        Ok(sent.map_err(|_| late())?.is_ok())
    }

    async fn message(&mut self) -> Result<ToParty, Error> {
        let message = tokio::time::timeout_at(self.deadline, self.incoming.message())
            .await
            .map_err(|_| late())?
            .map_err(|status| lost(&status, self.speaker))?;
        let Some(message) = message else {
            let text = "the service ended the stream without a reason";
            return Err(Error::connection_broke(Why::Known(text.to_owned())));
        };
        match ToParty::try_from(message) {
            Ok(ToParty::Failed(failed)) => Err(Error::failed(failed, self.speaker)),
            Ok(message) => Ok(message),
            Err(error) => Err(Error::new(
                Kind::Job,
                format!("the service did not follow the protocol: {error}"),
            )),
        }
    }
}

fn unattested() -> Error {
    let text = format!(
        "the service did not attest the connection within {} s; nothing more is sent to it",
        ATTEST_TIMEOUT.as_secs()
    );
    Error::new(Kind::Job, text)
}

fn late() -> Error {
    Error::new(
        Kind::Job,
        "the job's deadline has passed and the service has not said so itself: \
         the connection to it, or the service, hangs",
    )
}

/// What ended a connection. The operating system's words are safe; a status is what the service says,
/// and a library may repeat what it sent.
fn lost(error: &(dyn std::error::Error + 'static), speaker: Speaker) -> Error {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let system = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let status = cause.downcast_ref::<tonic::Status>();
    Error::connection_broke(match (system, status) {
        (Some(_), _) => Why::Known(cause.to_string()),
        (None, Some(status)) => Why::Said(speaker, Untrusted::new(status.message())),
        (None, None) => Why::Unknown(Untrusted::new(cause.to_string())),
    })
}

#[cfg(test)]
impl Connection {
    /// A connection that accepts nothing more, and on which these messages arrive.
    pub(crate) fn deaf(messages: impl Iterator<Item = ToParty> + Send + 'static) -> Self {
        use tonic::codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride};
        let mut codec = tonic_prost::ProstCodec::<proto::ToParty, proto::ToParty>::default();
        let messages = tokio_stream::iter(messages.map(|message| Ok(message.into())));
        let compression = SingleMessageCompressionOverride::default();
        let body = EncodeBody::new_server(codec.encoder(), messages, None, compression, None);
        let ok = tonic::codegen::http::StatusCode::OK;
        let incoming = Streaming::new_response(codec.decoder(), body, ok, None, None);
        let (outgoing, _) = mpsc::channel(1);
        let deadline = Instant::now() + Duration::from_mins(1);
        Self {
            stream: Stream { outgoing, incoming, deadline, speaker: Speaker::Verified },
            certificate: Vec::new(),
            proved: Proved::Key,
            renewal: None,
            attest_at: deadline,
            owed: None,
        }
    }
}
