//! A stream that counts what comes, and ends where that is more than any answer.
//!
//! The library keeps what a server sends until somebody takes it, however much that is. Whoever begins an exchange sets
//! the count back: what is written does not, since with TLS a server can make this side write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may come in one exchange.
const MOST: usize = 64 << 20;

/// How much has come since an exchange began, and before that.
#[derive(Clone, Default)]
pub(super) struct Came(Arc<(AtomicUsize, AtomicUsize)>);

impl Came {
    /// An exchange begins.
    pub(super) fn reset(&self) {
        let last = self.0.0.swap(0, Ordering::Relaxed);
        self.0.1.fetch_add(last, Ordering::Relaxed);
    }

    /// Whether that was more than may come.
    pub(super) fn is_too_much(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) > MOST
    }

    /// Whether so much has come in all that what the library keeps of it for as long as it is connected may be much.
    pub(super) fn is_enough(&self) -> bool {
        let (now, before) = (&self.0.0, &self.0.1);
        now.load(Ordering::Relaxed)
            .saturating_add(before.load(Ordering::Relaxed))
            > MOST
    }

    fn add(&self, count: usize) {
        self.0.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// A stream of which no more can be read.
pub(super) struct Bounded<S> {
    inner: S,
    came: Came,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, came: Came) -> Self {
        Self { inner, came }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, into))?;
        this.came.add(into.filled().len() - before);
        if this.came.is_too_much() {
            let words = "the server sent more than was asked for";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, words)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn no_more_is_read_until_another_exchange_begins() {
        let came = Came::default();
        let mut stream = Bounded::new(tokio::io::repeat(b'x'), came.clone());
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..2 {
            for _ in 0..64 {
                stream.read_exact(&mut buffer).await.unwrap();
            }
            assert!(!came.is_too_much());
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(came.is_too_much());
            came.reset();
        }
    }
}
