//! Refusals, lost servers, TLS and failover.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use poolwright::signals::{SignalError, SignalSource};
use poolwright_core::broker::{BrokerConfig, BrokerOptions, Secret, Tls};
use poolwright_core::sample::FaultKind;

use crate::server::{Certificates, Server};
use crate::{connect, fetch, message, push, reach, ready, unacked, wanted};

async fn refusal(url: &str, options: &BrokerOptions) -> SignalError {
    let config = BrokerConfig::parse(url, options).unwrap();
    match reach(config).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_refusals_that_show_nothing() {
    let server = Server::with(&[
        "--requirepass",
        "hunter2",
        "--user",
        "alice on >wonder ~* &* +@all",
    ]);
    let options = BrokerOptions::default();
    for user in ["", ":wrong-word@", "alice:wrong-word@", "nobody:wrong-word@"] {
        let error = refusal(&server.url(user, 0), &options).await;
        assert_eq!(error.kind, FaultKind::Refused, "{user} {error}");
        assert!(!format!("{error:?}").contains("wrong-word"), "{error:?}");
    }
    for user in [":hunter2@", "alice:wonder@"] {
        let config = BrokerConfig::parse(&server.url(user, 0), &options).unwrap();
        assert!(reach(config).await.is_ok(), "{user}");
    }
}

#[tokio::test]
async fn a_user_without_scripts_still_counts_and_a_forbidden_queue_is_its_own_refusal() {
    let acl = "bob on >builder resetkeys ~q ~unacked ~unacked_index resetchannels -@all +llen +hlen +zcard \
               +zrange +hstrlen +hget +select +ping";
    let server = Server::with(&["--user", acl]);
    let mut raw = server.raw(0).await;
    push(&mut raw, "q", &[message(None, 8, ", ")]).await;
    fetch(
        &mut raw,
        "a",
        100.0,
        &message(Some("2999-01-01T00:00:00"), 8, ", "),
        r#""", "q""#,
    )
    .await;
    fetch(&mut raw, "b", 100.0, &message(None, 8, ", "), r#""", "q""#).await;
    fetch(&mut raw, "c", 100.0, &message(None, 100_000, ", "), r#""", "q""#).await;
    let options = BrokerOptions {
        priority_steps: vec![0],
        ..BrokerOptions::default()
    };
    let config = BrokerConfig::parse(&server.url("bob:builder@", 0), &options).unwrap();
    let source = reach(config).await.unwrap();
    let polled = source.poll(&wanted(&["q", "other"])).await.unwrap();
    assert_eq!(ready(&polled, "q").unwrap().count, 1);
    assert_eq!(ready(&polled, "other").unwrap_err().kind, FaultKind::Refused);
    let found = unacked(&polled, "q").unwrap();
    // The large one is not fetched: it counts, but two known ones do not make it certain that it is due.
    assert_eq!((found.due, found.not_due), (1, 2));
    let asked = source
        .ask(&["w@h".to_owned()], Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(asked.kind, FaultKind::Refused);
    let Err(error) = source.heartbeats().await else {
        panic!("subscribed")
    };
    assert_eq!(error.kind, FaultKind::Refused);
}

#[tokio::test]
async fn nobody_there_a_stopped_server_and_a_killed_one_are_unreachable() {
    let server = Server::start();
    let source = connect(&server).await;
    let mut beats = source.heartbeats().await.unwrap();
    assert_eq!(source.connections(), 2);
    server.signal("-STOP");
    let start = Instant::now();
    let error = source.poll(&wanted(&["q"])).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let ended = tokio::time::timeout(Duration::from_secs(5), beats.next()).await;
    assert_eq!(ended.expect("the stream ends"), None);
    let start = Instant::now();
    let error = refusal(&server.url("", 0), &BrokerOptions::default()).await;
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    server.signal("-CONT");
    assert_eq!(source.connections(), 1);

    let source = connect(&server).await;
    let url = server.url("", 0);
    drop(server);
    assert_eq!(
        source.poll(&wanted(&["q"])).await.unwrap_err().kind,
        FaultKind::Unreachable
    );
    let error = refusal(&url, &BrokerOptions::default()).await;
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(error.message.contains("refuses the connection"), "{error}");
}

#[tokio::test]
async fn replicas_say_what_they_are() {
    let orphan = Server::with(&["--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no"]);
    let error = refusal(&orphan.url("", 0), &BrokerOptions::default()).await;
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(error.message.contains("lost its master"), "{error}");
    let replica = Server::with(&["--replicaof", "127.0.0.1 1"]);
    let source = connect(&replica).await;
    assert!(source.poll(&wanted(&["q"])).await.is_ok());
    let error = source
        .ask(&["w@h".to_owned()], Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(error.message.contains("read-only"), "{error}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_and_another_protocol_are_told_apart() {
    let server = Server::with(&["--databases", "2"]);
    let error = refusal(&server.url("", 7), &BrokerOptions::default()).await;
    assert_eq!(error.kind, FaultKind::InvalidAddress, "{error}");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nhunter2").await;
        }
    });
    let error = refusal(&format!("redis://127.0.0.1:{port}"), &BrokerOptions::default()).await;
    assert!(
        !error.message.contains("hunter2") && !error.message.contains("HTTP"),
        "{error}"
    );
}

#[tokio::test]
async fn tls_trusts_its_authority_and_shows_its_certificate() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = Certificates::make();
    let file = |name: &str| certificates.path(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("tls.pem"), file("tls.key"));
    let mut settings = vec!["--port", "0", "--tls-port", "PORT", "--tls-ca-cert-file", &ca];
    settings.extend(["--tls-cert-file", &cert, "--tls-key-file", &key]);
    let server = Server::with(&settings);
    let url = format!("rediss://127.0.0.1:{}/0", server.port);
    let attempt = async |tls: Tls| {
        let options = BrokerOptions {
            tls: Some(tls),
            ..BrokerOptions::default()
        };
        let source = reach(BrokerConfig::parse(&url, &options).unwrap()).await?;
        source.poll(&wanted(&["q"])).await?;
        source.heartbeats().await.map(drop)
    };
    let trusting = || Tls {
        ca_pem: Some(certificates.pem("ca.pem")),
        ..Tls::default()
    };
    let shown = |tls: Tls| Tls {
        client_cert_pem: Some(certificates.pem("tls.pem")),
        client_key_pem: Some(Secret::new(certificates.pem("tls.key"))),
        ..tls
    };
    assert!(attempt(shown(trusting())).await.is_ok());
    assert!(
        attempt(shown(Tls {
            insecure_skip_verify: true,
            ..Tls::default()
        }))
        .await
        .is_ok()
    );
    assert_eq!(
        attempt(trusting()).await.unwrap_err().kind,
        FaultKind::Unreachable,
        "no client certificate"
    );
    let error = attempt(shown(Tls::default())).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::Unreachable);
    assert!(error.message.contains("certificate"), "{error}");
    let broken = Tls {
        ca_pem: Some("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----".into()),
        ..Tls::default()
    };
    assert_eq!(attempt(broken).await.unwrap_err().kind, FaultKind::InvalidAddress);
}

#[tokio::test]
async fn sentinels_are_asked_for_the_master_at_each_connection() {
    let first = Server::start();
    let second = Server::with(&["--replicaof", &format!("127.0.0.1 {}", first.port)]);
    push(&mut first.raw(0).await, "q", &["{}".to_owned(), "{}".to_owned()]).await;
    let sentinel = Server::sentinel(&first, "");
    // The first sentinel of the list does not exist.
    let url = format!("sentinel://127.0.0.1:1/0;sentinel://127.0.0.1:{}", sentinel.port);
    let named = |master: &str| BrokerOptions {
        sentinel_master: Some(master.into()),
        ..BrokerOptions::default()
    };
    let config = BrokerConfig::parse(&url, &named("mymaster")).unwrap();
    let source = reach(config.clone()).await.unwrap();
    assert_eq!(
        ready(&source.poll(&wanted(&["q"])).await.unwrap(), "q")
            .unwrap()
            .count,
        2
    );
    assert_eq!(source.connections(), 1);
    let error = refusal(&url, &named("another")).await;
    assert!(
        matches!(error.kind, FaultKind::InvalidAddress | FaultKind::Unreachable),
        "{error}"
    );

    // Once the sentinel knows the replica, the master dies.
    let mut control = sentinel.raw(0).await;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let info: String = redis::cmd("INFO")
            .arg("sentinel")
            .query_async(&mut control)
            .await
            .unwrap();
        if info.contains("slaves=1") {
            break;
        }
        assert!(Instant::now() < until, "the sentinel finds the replica");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let port = second.port;
    drop(first);
    assert_eq!(
        source.poll(&wanted(&["q"])).await.unwrap_err().kind,
        FaultKind::Unreachable
    );
    let found = loop {
        match reach(config.clone()).await {
            Ok(source) => break source,
            Err(error) => assert_eq!(error.kind, FaultKind::Unreachable),
        }
        assert!(Instant::now() < until, "the sentinel fails over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    push(&mut second.raw(0).await, "new", &["{}".to_owned()]).await;
    assert_eq!(
        ready(&found.poll(&wanted(&["new"])).await.unwrap(), "new")
            .unwrap()
            .count,
        1,
        "on {port}"
    );
}

/// Neither has a plain port, so that each connection must be encrypted: to the sentinel, to the master it names, and for
/// heartbeats.
#[tokio::test]
async fn tls_reaches_sentinels_and_the_master() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = Certificates::make();
    let settings = ["ca-cert-file ca.pem", "cert-file tls.pem", "key-file tls.key"].map(|one| {
        let (name, file) = one.split_once(' ').unwrap();
        format!("tls-{name} {}", certificates.path(file).display())
    });
    let words: Vec<String> = settings.iter().map(|line| format!("--{line}")).collect();
    let mut arguments = vec!["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no"];
    arguments.extend(words.iter().map(String::as_str));
    let master = Server::with(&arguments);
    let extra = format!(
        "port 0\ntls-port PORT\ntls-replication yes\ntls-auth-clients no\n{}",
        settings.join("\n")
    );
    let sentinel = Server::sentinel(&master, &extra);
    let url = format!("sentinel://127.0.0.1:{}/0", sentinel.port);
    let attempt = async |tls: Option<Tls>| {
        let options = BrokerOptions {
            sentinel_master: Some("mymaster".into()),
            tls,
            ..BrokerOptions::default()
        };
        let source = reach(BrokerConfig::parse(&url, &options).unwrap()).await?;
        let polled = source.poll(&wanted(&["q"])).await?;
        drop(source.heartbeats().await?);
        ready(&polled, "q").map(|ready| ready.count)
    };
    let trusting = Tls {
        ca_pem: Some(certificates.pem("ca.pem")),
        ..Tls::default()
    };
    let careless = Tls {
        insecure_skip_verify: true,
        ..Tls::default()
    };
    assert_eq!(attempt(Some(trusting)).await.unwrap(), 0);
    assert_eq!(attempt(Some(careless)).await.unwrap(), 0);
    for tls in [None, Some(Tls::default())] {
        let error = attempt(tls).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::Unreachable, "{error}");
    }
}

#[tokio::test]
async fn a_sentinel_that_asks_for_a_password_gets_the_addresss() {
    let master = Server::with(&["--requirepass", "hunter2"]);
    let sentinel = Server::sentinel(
        &master,
        "requirepass hunter2\nsentinel auth-pass mymaster hunter2",
    );
    let options = BrokerOptions {
        sentinel_master: Some("mymaster".into()),
        ..BrokerOptions::default()
    };
    let url = |user: &str| format!("sentinel://{user}127.0.0.1:{}/0", sentinel.port);
    let config = BrokerConfig::parse(&url(":hunter2@"), &options).unwrap();
    assert!(reach(config).await.is_ok());
    assert_eq!(refusal(&url(""), &options).await.kind, FaultKind::Refused);
}
