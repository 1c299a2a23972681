//! Connections over real sockets, by limits that a test can wait for.

use std::time::Instant;

use axum::body::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::connections::{self, HEAD_MAX, InParts, Limits};
use super::*;

/// Nothing ends by time.
const PATIENT: Limits = Limits {
    places: 8,
    silence: Duration::from_secs(60),
    life: Duration::from_secs(60),
    rest: Duration::from_secs(60),
};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
/// Of the long answer; more than all buffers between two sockets.
const LONG: usize = 32 << 20;

struct Server {
    address: SocketAddr,
    /// Somebody asks for `/slow`, ...
    is_asked: Arc<Notify>,
    /// ... which is answered only then.
    may_answer: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serving(limits: Limits) -> Server {
    let (is_asked, may_answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked, may) = (Arc::clone(&is_asked), Arc::clone(&may_answer));
    let slow = move || async move {
        asked.notify_one();
        may.notified().await;
        "done\n"
    };
    let long = || async { Body::new(InParts::new(vec![b'a'; LONG])) };
    let router = Router::new()
        .route("/", get(|| async { "ok\n" }))
        .route("/slow", get(slow))
        .route("/long", get(long));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(connections::serve(listener, None, router, limits, async {
        let _ = stopped.await;
    }));
    Server {
        address,
        is_asked,
        may_answer,
        stop,
        task,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Somebody who has sent half of his request's head.
    async fn stranger(&self) -> TcpStream {
        let mut stream = self.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ")
            .await
            .unwrap();
        stream
    }

    async fn strangers(&self, number: usize) -> Vec<TcpStream> {
        let mut strangers = Vec::new();
        for _ in 0..number {
            strangers.push(self.stranger().await);
        }
        strangers
    }
}

/// What is answered to this, and nothing after it.
async fn answer(mut stream: TcpStream, request: String) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// A request for one answer.
fn once(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// What comes long before those who are patient have lost it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("in time")
}

/// Waits until the server has ended this, and discards what it says before.
async fn await_end(stream: &mut TcpStream) {
    let mut read = [0; 1024];
    soon(async { while matches!(stream.read(&mut read).await, Ok(1..)) {} }).await;
}

/// Reads an answer to its end, which is all of the long one.
async fn read_long(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    assert_eq!(answer.len() - head - 4, LONG);
}

/// Asks for `/` and leaves the connection open; `None` if it is not.
async fn ask_on(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(REQUEST.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        if soon(stream.read_buf(&mut answer)).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn who_sends_half_a_request_gives_his_place_to_the_next() {
    let server = serving(PATIENT).await;
    let mut strangers = server.strangers(PATIENT.places * 4).await;
    let answer = answer(server.connect().await, once("/")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Those that came first: no more are held than there are places.
    for stranger in &mut strangers[..PATIENT.places * 3] {
        await_end(stranger).await;
    }
}

#[tokio::test]
async fn who_is_being_answered_keeps_his_place() {
    let server = serving(PATIENT).await;
    let slow = tokio::spawn(answer(server.connect().await, once("/slow")));
    soon(server.is_asked.notified()).await;
    let _strangers = server.strangers(PATIENT.places * 3).await;
    // They come one after another, so by then all of them have been there.
    let last = answer(server.connect().await, once("/")).await;
    assert!(last.starts_with("HTTP/1.1 200"), "{last}");
    server.may_answer.notify_one();
    let slow = slow.await.unwrap();
    assert!(slow.ends_with("done\n"), "{slow}");
}

#[tokio::test]
async fn who_reads_slowly_keeps_his_place() {
    let server = serving(PATIENT).await;
    let mut slow = server.connect().await;
    slow.write_all(once("/long").as_bytes()).await.unwrap();
    // There is an answer by then, and most of it is not sent.
    soon(slow.readable()).await.unwrap();
    let _strangers = server.strangers(PATIENT.places * 3).await;
    let last = answer(server.connect().await, once("/")).await;
    assert!(last.starts_with("HTTP/1.1 200"), "{last}");
    read_long(&mut slow).await;
}

#[tokio::test]
async fn who_has_been_answered_gives_his_place_to_the_next() {
    let server = serving(PATIENT).await;
    let (mut idle, mut bodiless) = (server.connect().await, server.connect().await);
    assert!(ask_on(&mut idle).await.is_some());
    bodiless
        .write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(bodiless.readable()).await.unwrap();
    let _strangers = server.strangers(PATIENT.places).await;
    await_end(&mut idle).await;
    await_end(&mut bodiless).await;
}

#[tokio::test]
async fn who_reads_nothing_is_cut_off_when_his_time_is_over() {
    let limits = Limits {
        life: Duration::from_millis(200),
        rest: Duration::from_millis(200),
        ..PATIENT
    };
    let server = serving(limits).await;
    let mut stream = server.connect().await;
    stream.write_all(once("/long").as_bytes()).await.unwrap();
    sleep((limits.life + limits.rest) * 3).await;
    let mut read = Vec::new();
    // What is in the buffers between the sockets still comes, or not even that.
    let _ = soon(stream.read_to_end(&mut read)).await;
    assert!(read.len() < LONG, "{}", read.len());
}

#[tokio::test]
async fn who_takes_nothing_of_his_answer_goes_before_who_has_just_come() {
    let rest = Duration::from_millis(300);
    let server = serving(Limits { rest, ..PATIENT }).await;
    let mut deaf = Vec::new();
    for _ in 0..PATIENT.places {
        let mut stream = server.connect().await;
        stream.write_all(once("/long").as_bytes()).await.unwrap();
        soon(stream.readable()).await.unwrap();
        deaf.push(stream);
    }
    sleep(rest * 3).await;
    let mut probe = server.connect().await;
    // By this it has its place, and this one wants another.
    let last = answer(server.connect().await, once("/")).await;
    assert!(last.starts_with("HTTP/1.1 200"), "{last}");
    assert!(ask_on(&mut probe).await.is_some());
}

#[tokio::test]
async fn who_takes_his_answer_bit_by_bit_keeps_his_place_however_long_that_takes() {
    let rest = Duration::from_millis(500);
    let server = serving(Limits { rest, ..PATIENT }).await;
    let mut slow = server.connect().await;
    slow.write_all(once("/long").as_bytes()).await.unwrap();
    let mut answer = vec![0; LONG / 2];
    for part in answer.chunks_mut(LONG / 2 / 10) {
        soon(slow.read_exact(part)).await.unwrap();
        sleep(rest / 5).await;
    }
    let _strangers = server.strangers(PATIENT.places * 3).await;
    assert!(ask_on(&mut server.connect().await).await.is_some());
    let mut all = answer;
    soon(slow.read_to_end(&mut all)).await.unwrap();
    assert!(all.len() > LONG);
}

#[tokio::test]
async fn who_is_silent_is_cut_off_however_slowly_he_speaks() {
    let server = serving(Limits {
        silence: Duration::from_millis(300),
        ..PATIENT
    })
    .await;
    let (mut silent, mut idle) = (server.connect().await, server.connect().await);
    assert!(ask_on(&mut idle).await.is_some());
    let mut slow = server.stranger().await;
    await_end(&mut silent).await;
    await_end(&mut idle).await;
    soon(async {
        while slow.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let server = serving(PATIENT).await;
    let head = |length: usize| {
        let begins = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ";
        format!("{begins}{}", "a".repeat(length - begins.len()))
    };
    let answered = answer(server.connect().await, head(HEAD_MAX - 1024) + "\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    // Not a byte more, for an answer may be lost where something is left unread.
    let refused = answer(server.connect().await, head(HEAD_MAX)).await;
    assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
}

#[tokio::test]
async fn a_connection_is_asked_more_than_once_and_not_for_ever() {
    let limits = Limits {
        life: Duration::from_millis(500),
        ..PATIENT
    };
    let (begun, server) = (Instant::now(), serving(limits).await);
    let mut stream = server.connect().await;
    let mut answers = 0;
    while let Some(answer) = ask_on(&mut stream).await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answers += 1;
        assert!(begun.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10)).await;
    }
    assert!(answers > 1, "{answers}");
    assert!(begun.elapsed() >= limits.life);
}

#[tokio::test]
async fn who_reads_slowly_gets_all_of_a_long_answer() {
    let silence = Duration::from_millis(200);
    let server = serving(Limits { silence, ..PATIENT }).await;
    let mut stream = server.connect().await;
    // Kept open, so that the next request is waited for.
    stream
        .write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(silence * 3).await;
    read_long(&mut stream).await;
}

#[tokio::test]
async fn a_server_that_stops_finishes_what_it_answers_and_waits_for_nobody_else() {
    let server = serving(PATIENT).await;
    let (mut silent, mut idle) = (server.connect().await, server.connect().await);
    assert!(ask_on(&mut idle).await.is_some());
    let slow = tokio::spawn(answer(
        server.connect().await,
        "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ));
    soon(server.is_asked.notified()).await;
    server.stop.send(()).unwrap();
    await_end(&mut silent).await;
    await_end(&mut idle).await;
    assert!(TcpStream::connect(server.address).await.is_err());
    assert!(!server.task.is_finished(), "one is still being answered");
    server.may_answer.notify_one();
    let slow = slow.await.unwrap();
    assert!(slow.ends_with("done\n"), "{slow}");
    soon(server.task).await.unwrap();
}
