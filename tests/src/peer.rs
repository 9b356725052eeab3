//! A party of a job without a service, driven by hand: genuine connection and frames, and whatever a test
//! puts into them.

use convelo_channel::{Expect, Identity, PeerTls};
use convelo_party::direct::frame::{Frame, HEAD_BYTES, Hello, head};
use convelo_psi::{Job, KeyId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::wait;
use crate::process::PATIENCE;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection to a party's program.
pub struct RawPeer(Box<dyn Stream>);

impl RawPeer {
    /// Connects to the party with this key; none if it does not let this identity in.
    pub fn try_connect(address: &str, identity: &Identity, key: KeyId) -> Option<Self> {
        let tls = PeerTls::new(identity.plain().expect("a certificate"), None);
        wait(async {
            let tcp = TcpStream::connect(address).await.ok()?;
            let (stream, _) = tls.connect(tcp, &Expect::Key(key.0)).await.ok()?;
            Some(Self(Box::new(stream)))
        })
    }

    /// The same, and says and hears hello and go: this party's name is the later one.
    ///
    /// # Panics
    /// If the other side does not go along.
    pub fn meet(address: &str, (name, identity): (&str, &Identity), key: KeyId, job: &Job) -> Self {
        let mut peer = Self::try_connect(address, identity, key).expect("a connection");
        peer.send(&hello(name, job));
        assert!(matches!(peer.receive(), Some(Frame::Hello(_))), "a hello");
        assert_eq!(peer.receive(), Some(Frame::Go { arrived: 0 }));
        peer.send(&Frame::Go { arrived: 0 });
        peer
    }

    /// Sends a frame. False if the other side is gone.
    pub fn send(&mut self, frame: &Frame) -> bool {
        let (head, content) = frame.write();
        self.send_bytes(&[&head, &content[..]].concat())
    }

    /// Sends a message of the job.
    pub fn message(&mut self, bytes: &[u8]) -> bool {
        self.send(&Frame::Message(bytes.to_vec().into()))
    }

    /// Sends bytes that need not be a frame.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        wait(async { self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok() })
    }

    /// The next frame; none at the end.
    ///
    /// # Panics
    /// If nothing comes, or what is no frame.
    pub fn receive(&mut self) -> Option<Frame> {
        wait(async {
            let reading = async {
                let mut bytes = [0; HEAD_BYTES];
                self.0.read_exact(&mut bytes).await.ok()?;
                let (kind, length) = head(bytes).expect("a frame");
                let mut content = vec![0; length];
                self.0.read_exact(&mut content).await.ok()?;
                Some(Frame::read(kind, content.into()).expect("a frame"))
            };
            timeout(PATIENCE, reading).await.expect("a frame, or the end")
        })
    }

    /// The next message of the job; signs of life and receipt are left out.
    ///
    /// # Panics
    /// If something else comes.
    pub fn receive_message(&mut self) -> Vec<u8> {
        loop {
            match self.receive() {
                Some(Frame::Message(message)) => return message.to_vec(),
                Some(Frame::Alive | Frame::Taken { .. }) => {}
                other => panic!("not a message: {other:?}"),
            }
        }
    }
}

/// What a party says first.
pub fn hello(name: &str, job: &Job) -> Frame {
    Frame::Hello(Hello {
        run: [7; 16],
        peers_run: None,
        arrived: 0,
        party: name.to_owned(),
        job: job.canonical().to_owned().into(),
    })
}
