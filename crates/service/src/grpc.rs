//! Connections carrying gRPC, within this service's limits.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use convelo_channel::{Listener, PeerStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Error, Server};

use crate::figures::Counted;
use crate::limits::{CONNECTION_AGE, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, SHUTDOWN_GRACE};
use crate::memory::Limits;
use crate::shared::Shared;

/// A connection in the form tonic needs: the caller travels with every request.
struct Connection<C, P> {
    stream: PeerStream,
    caller: C,
    _presence: P,
    _counted: Counted,
}

impl Shared {
    /// Serves a listener's connections until `stop` ends. Then it accepts no more, runs `close`,
    /// which tells those who are waiting, and gives the calls in progress a few seconds to end.
    ///
    /// `meet` says who is calling on a connection, which every request on it carries as an
    /// extension, and creates a value that is dropped when the connection ends.
    ///
    /// # Errors
    /// If the server fails as a whole. When the server fails as a whole.
    pub async fn serve<S, C, P>(
        &self,
        listener: Listener,
        service: S,
        meet: impl Fn(&PeerStream) -> (C, P),
        stop: impl Future<Output = ()>,
        close: impl Future<Output = ()>,
    ) -> Result<(), Error>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        C: Clone + Send + Sync + Unpin + 'static,
        P: Send + Unpin + 'static,
    {
        let (accepted, connections) = mpsc::channel(1);
        let listener = listener.limited_to(self.limits.connections);
        let accept = tokio::spawn(listener.accept(accepted));
        let connections = ReceiverStream::new(connections).map(|accepted| {
            accepted.map(|stream| {
                let (caller, presence) = meet(&stream);
                let counted = self.tally.connected();
                Connection { stream, caller, _presence: presence, _counted: counted }
            })
        });
        let (drain, drained) = oneshot::channel::<()>();
        let drained = async {
            let _ = drained.await;
        };
        let serving =
            server(&self.limits).serve_with_incoming_shutdown(service, connections, drained);
        let mut serving = pin!(serving);
        let result = tokio::select! {
            result = &mut serving => result,
            () = stop => {
                accept.abort();
                let _ = timeout(SHUTDOWN_GRACE, async {
                    close.await;
                    let _ = drain.send(());
                    let _ = serving.await;
                })
                .await;
                Ok(())
            }
        };
        accept.abort();
        result
    }
}

fn server(limits: &Limits) -> Server {
    Server::builder()
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window)
        .max_frame_size(limits.frame())
        .max_concurrent_streams(limits.streams)
        .max_connection_age(CONNECTION_AGE)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

impl<C: Clone + Send + Sync + 'static, P> tonic::transport::server::Connected for Connection<C, P> {
    type ConnectInfo = C;

    fn connect_info(&self) -> C {
        self.caller.clone()
    }
}

impl<C: Unpin, P: Unpin> AsyncRead for Connection<C, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<C: Unpin, P: Unpin> AsyncWrite for Connection<C, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
