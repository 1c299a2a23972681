//! What a server sends, looked through before the library reads it.
//!
//! redis-rs keeps an answer until its last byte has come, however many there are, and so it does with what somebody
//! publishes where workers beat. Who may name a broker, or publish on one that others use, too, could fill our memory with
//! that. So a long text arrives cut, which nothing believes; and of what was never asked for there is a bound, at which
//! the connection ends. Only the second version of the protocol is spoken here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use poolwright_core::constants::COMMAND_DEADLINE;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of a text in an answer: more than the largest that is asked for, which is a script's of four MiB.
pub(super) const ANSWERED: u64 = 8 << 20;
/// Bytes of a text that a worker publishes: a heartbeat has some hundred.
pub(super) const PUBLISHED: u64 = 64 << 10;
/// Bytes that may come since anything was written.
const UNASKED_MAX: usize = 64 << 20;
/// Elements of an array.
const ELEMENTS_MAX: u64 = 1_000_000;
/// Bytes of a line, which a number or an error is.
const LINE_MAX: usize = 64 << 10;
/// Read at once.
const CHUNK: usize = 16 << 10;
const LINE_END: &[u8] = b"\r\n";

/// A stream of which only what fits can be read, and which ends when nothing of what is written can be sent for a while:
/// the library would wait for that without end, even when nobody wants the connection any more.
pub(super) struct Sifted<S> {
    inner: S,
    /// When that while is over.
    stalled: Option<Pin<Box<Sleep>>>,
    sieve: Sieve,
    /// How much of what has passed was given.
    given: usize,
}

impl<S> Sifted<S> {
    /// Texts have `most` bytes at most.
    pub(super) fn new(inner: S, most: u64) -> Self {
        Self {
            inner,
            stalled: None,
            sieve: Sieve::new(most),
            given: 0,
        }
    }

    /// What became of an attempt to send.
    fn sent<T>(&mut self, sent: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let end = || Box::pin(sleep(COMMAND_DEADLINE));
        ready!(self.stalled.get_or_insert_with(end).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sifted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.given == this.sieve.passed.len() {
            this.sieve.passed.clear();
            this.given = 0;
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.sieve.receive(read.filled())?;
        }
        let left = &this.sieve.passed[this.given..];
        let count = left.len().min(into.remaining());
        into.put_slice(&left[..count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sifted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sieve.unasked = 0;
        let sent = Pin::new(&mut this.inner).poll_write(cx, from);
        this.sent(sent, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_flush(cx);
        this.sent(sent, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.sent(sent, cx)
    }
}

/// What comes next.
#[derive(Debug)]
enum Next {
    /// The rest of this line.
    Line(Vec<u8>),
    /// So many bytes of a text that pass, and then so many that do not.
    Text(u64, u64),
}

#[derive(Debug)]
struct Sieve {
    most: u64,
    next: Next,
    unasked: usize,
    passed: Vec<u8>,
}

impl Sieve {
    fn new(most: u64) -> Self {
        Self {
            most,
            next: Next::Line(Vec::new()),
            unasked: 0,
            passed: Vec::new(),
        }
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// `InvalidData`: no server sends that, or none that was asked for so little.
    fn receive(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.unasked += bytes.len();
        if self.unasked > UNASKED_MAX {
            return Err(odd("more than was asked for"));
        }
        while let Some(&first) = bytes.first() {
            match &mut self.next {
                Next::Line(line) => {
                    line.push(first);
                    bytes = &bytes[1..];
                    if line.ends_with(LINE_END) {
                        let line = std::mem::take(line);
                        self.next = self.line(&line)?;
                    } else if line.len() > LINE_MAX {
                        return Err(odd("a line without an end"));
                    }
                }
                Next::Text(passes, drops) => {
                    let (now, rest) = bytes.split_at(fit(bytes, *passes));
                    self.passed.extend_from_slice(now);
                    *passes -= now.len() as u64;
                    let dropped = fit(rest, *drops);
                    *drops -= dropped as u64;
                    bytes = &rest[dropped..];
                    if (*passes, *drops) == (0, 0) {
                        // The end of the text is a line with nothing in it.
                        self.next = Next::Line(Vec::new());
                    }
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> io::Result<Next> {
        let number = || {
            let text = std::str::from_utf8(&line[1..line.len() - LINE_END.len()]).ok();
            text.and_then(|text| text.parse::<i64>().ok())
                .ok_or_else(|| odd("a length that is no number"))
        };
        let wait = Next::Line(Vec::new());
        let next = match line[0] {
            b'$' => match u64::try_from(number()?) {
                Ok(length) if length > 0 => {
                    let passes = length.min(self.most);
                    self.passed.extend_from_slice(format!("${passes}\r\n").as_bytes());
                    return Ok(Next::Text(passes, length - passes));
                }
                _ => wait,
            },
            b'*' if number()? > ELEMENTS_MAX.cast_signed() => return Err(odd("a list that is too long")),
            b'*' | b'+' | b'-' | b':' | b'\r' => wait,
            _ => return Err(odd("an answer of an unknown kind")),
        };
        self.passed.extend_from_slice(line);
        Ok(next)
    }
}

/// How many of these bytes are among so many.
fn fit(bytes: &[u8], most: u64) -> usize {
    usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()))
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What passes of this, in whatever pieces it comes.
    fn sift(bytes: &[u8], most: u64) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for at_once in [1, 3, 1 << 20] {
            let mut sieve = Sieve::new(most);
            for chunk in bytes.chunks(at_once) {
                sieve.receive(chunk)?;
            }
            all.push(sieve.passed);
        }
        assert!(all.iter().all(|one| *one == all[0]));
        Ok(all.remove(0))
    }

    #[test]
    fn what_a_server_sends_passes_as_it_is() {
        let all = b"+OK\r\n-ERR no\r\n:-7\r\n$5\r\nab\r\nc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n*1\r\n:1\r\n$1\r\nx\r\n";
        assert_eq!(sift(all, 5).unwrap(), all);
    }

    #[test]
    fn of_a_long_text_the_first_bytes_pass() {
        let all = b"*3\r\n$3\r\nabc\r\n$9\r\nabc\r\n$7xy\r\n$1\r\nd\r\n";
        let cut = b"*3\r\n$3\r\nabc\r\n$4\r\nabc\r\r\n$1\r\nd\r\n";
        assert_eq!(sift(all, 4).unwrap(), cut);
    }

    #[test]
    fn what_no_server_sends_ends_the_connection() {
        let long = vec![b'+'; LINE_MAX + 2];
        let odd: [&[u8]; 6] = [
            b"*1000001\r\n",
            b"$x\r\n",
            b"$99999999999999999999\r\n",
            b"%1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            &long,
        ];
        for bytes in odd {
            assert_eq!(sift(bytes, 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn what_was_not_asked_for_is_bounded() {
        let (near, mut far) = duplex(1 << 20);
        let mut near = Sifted::new(near, 10);
        let (waits, waiting) = tokio::sync::oneshot::channel();
        let sends = tokio::spawn(async move {
            let text = vec![b'x'; 1 << 20];
            let head = format!("${}\r\n", text.len() * 200);
            far.write_all(head.as_bytes()).await.unwrap();
            let (mut sent, mut waits) = (0, Some(waits));
            while far.write_all(&text).await.is_ok() {
                sent += 1;
                if let Some(waits) = waits.take_if(|_| sent == 60) {
                    waits.send(()).unwrap();
                    far.read_exact(&mut [0; 4]).await.unwrap();
                }
            }
            sent
        });
        let mut start = [0; 15];
        near.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"$10\r\nxxxxxxxxxx");
        tokio::select! {
            more = near.read_u8() => panic!("{more:?}"),
            asked = waiting => asked.unwrap(),
        }
        // It asks, so that as much may come once more.
        near.write_all(b"PING").await.unwrap();
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(near);
        assert!((120..=126).contains(&sends.await.unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_given_up() {
        let (near, _far) = duplex(1 << 10);
        let mut near = Sifted::new(near, 10);
        let error = near.write_all(&[0; 1 << 11]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
