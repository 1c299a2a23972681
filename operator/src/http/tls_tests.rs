//! The server over TLS, with certificates that authorities of a test have made.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tests::open_state;
use super::tls::{Certificate, Files, Unusable};
use super::*;

/// An authority, and the certificate and key of the one server that it vouches for.
struct Made {
    roots: RootCertStore,
    certificate: String,
    key: String,
}

fn make() -> Made {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut roots = RootCertStore::empty();
    roots.add(ca.self_signed(&ca_key).unwrap().der().clone()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    Made {
        roots,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

impl Made {
    fn write(&self, files: &Files) {
        fs::write(&files.certificate, &self.certificate).unwrap();
        fs::write(&files.key, &self.key).unwrap();
    }
}

fn files(folder: &Path) -> Files {
    Files {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    }
}

/// Serves, and says where.
async fn serving(files: Files) -> SocketAddr {
    let certificate = Some(Certificate::load(files).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        certificate,
        open_state().1,
        std::future::pending(),
    ));
    address
}

/// What a client that trusts these gets of a path; `None` if it does not trust the server.
async fn get(address: SocketAddr, roots: &RootCertStore, path: &str) -> Option<String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    Some(answer)
}

/// Waits until a client that trusts these is answered.
async fn await_trusted(address: SocketAddr, roots: &RootCertStore) {
    for _ in 0..400 {
        if get(address, roots, "/healthz").await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new certificate is not served");
}

#[tokio::test]
async fn everything_is_served_over_tls_and_nothing_without() {
    let (folder, made) = (tempfile::tempdir().unwrap(), make());
    made.write(&files(folder.path()));
    let address = serving(files(folder.path())).await;
    for path in ["/healthz", "/readyz", "/metrics", "/log-level"] {
        let answer = get(address, &made.roots, path).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    assert!(
        get(address, &make().roots, "/healthz").await.is_none(),
        "of another authority"
    );
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP/1.1"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_rotated_certificate_is_served_without_a_restart_and_a_broken_one_never() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), make(), make());
    let files = files(folder.path());
    old.write(&files);
    let address = serving(files.clone()).await;
    assert!(get(address, &old.roots, "/healthz").await.is_some());
    // As a Secret that was replaced by half, for longer than the files are left alone.
    fs::write(&files.certificate, &new.certificate).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(
        get(address, &old.roots, "/healthz").await.is_some(),
        "what works is served on"
    );
    fs::write(&files.key, &new.key).unwrap();
    await_trusted(address, &new.roots).await;
    assert!(get(address, &old.roots, "/healthz").await.is_none());
}

/// Whoever connects and says nothing has a place until somebody else needs it: here there are more than there are places.
#[tokio::test]
async fn who_only_connects_keeps_nobody_out() {
    let (folder, made) = (tempfile::tempdir().unwrap(), make());
    made.write(&files(folder.path()));
    let address = serving(files(folder.path())).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(2), get(address, &made.roots, "/healthz")).await;
    assert!(answer.expect("in time").is_some());
}

#[test]
fn what_cannot_be_used_is_told_with_flag_file_and_cause() {
    let (folder, made, other) = (tempfile::tempdir().unwrap(), make(), make());
    let files = files(folder.path());
    let told = || Certificate::load(files.clone()).unwrap_err().to_string();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let expect = |words: &[&str]| {
        let told = told();
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(!told.contains("sesame"), "{told}");
    };
    expect(&["--metrics-tls-cert", &file("tls.crt"), "No such file"]);
    fs::write(&files.certificate, &made.certificate).unwrap();
    expect(&["--metrics-tls-key", &file("tls.key"), "No such file"]);
    fs::write(&files.key, "sesame").unwrap();
    expect(&[
        "--metrics-tls-key",
        &file("tls.key"),
        "holds no unencrypted PEM private key",
    ]);
    fs::write(&files.key, &other.key).unwrap();
    expect(&[
        &file("tls.crt"),
        &file("tls.key"),
        "are no certificate and its key",
    ]);
    fs::write(&files.key, &made.key).unwrap();
    assert!(Certificate::load(files.clone()).is_ok());
    fs::write(&files.certificate, "sesame").unwrap();
    expect(&["--metrics-tls-cert", &file("tls.crt"), "holds no PEM certificate"]);
    fs::write(&files.certificate, vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(matches!(
        Certificate::load(files.clone()),
        Err(Unusable::Unread { .. })
    ));
}
