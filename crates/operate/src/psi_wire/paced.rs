//! A message that must keep arriving: memory is held for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::codegen::Bytes;

use crate::limits::{PSI_BYTES_PER_SECOND, PSI_UPLOAD_CHECK, PSI_UPLOAD_GRACE};

/// A body that fails if it falls behind.
pub(crate) struct Paced<B> {
    body: B,
    read: u64,
    /// When the first byte was asked for, and when the pace is checked next.
    since: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Paced<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, read: 0, since: None }
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (began, check) = self.since.get_or_insert_with(|| {
            (Instant::now(), Box::pin(sleep(PSI_UPLOAD_GRACE + PSI_UPLOAD_CHECK)))
        });
        loop {
            ready!(check.as_mut().poll(context));
            let late = began.elapsed().saturating_sub(PSI_UPLOAD_GRACE);
            if self.read < late.as_secs() * PSI_BYTES_PER_SECOND {
                return Poll::Ready(());
            }
            check.as_mut().reset(Instant::now() + PSI_UPLOAD_CHECK);
        }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame);
        }
        ready!(self.poll_late(context));
        let text =
            "the message arrived too slowly: the memory for it cannot be held back for so long";
        Poll::Ready(Some(Err(Status::deadline_exceeded(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// Frames of this many bytes, each after a pause; then nothing, for ever.
    struct Dripping {
        frames: VecDeque<(Duration, usize)>,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Dripping {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let Some((pause, bytes)) = self.frames.front().copied() else { return Poll::Pending };
            let pausing = self.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(pausing.as_mut().poll(context));
            (self.pause, _) = (None, self.frames.pop_front());
            Poll::Ready(Some(Ok(Frame::data(vec![0; bytes].into()))))
        }
    }

    /// How many bytes get through, and after how many seconds the body fails.
    async fn arrive(frames: impl IntoIterator<Item = (u64, usize)>) -> (u64, u64) {
        let frames = frames.into_iter().map(|(pause, bytes)| (Duration::from_secs(pause), bytes));
        let mut body = Paced::new(Dripping { frames: frames.collect(), pause: None });
        let began = Instant::now();
        loop {
            match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => {
                    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
                    return (body.read, began.elapsed().as_secs());
                }
                None => panic!("it never ends"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_is_given_up() {
        assert_eq!(arrive([]).await, (0, 70));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_drips_is_given_up() {
        let (read, seconds) = arrive((0..1000).map(|_| (9, 1))).await;
        assert!(read < 10 && seconds <= 80, "{read} bytes in {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_message_arrives() {
        let (read, _) = arrive((0..1000).map(|_| (1, 20 << 10))).await;
        assert_eq!(read, 1000 * (20 << 10));
    }
}
