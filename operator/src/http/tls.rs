//! HTTPS for the operator's own server: a certificate that is read again when its files change.
//!
//! Reads two files, at the start and every few seconds, and hands each new connection what they last held. What cannot be
//! used is said once with its file, and what was served before is served on: a Secret is replaced a file at a time, and a
//! mistake in a rotation must not end what works. How long a handshake may take is not decided here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::{Accept, TlsAcceptor};

/// The files are looked at this often. A kubelet takes a minute to bring a new Secret.
const LOOK: Duration = Duration::from_secs(5);
/// A certificate, or a key, has no more bytes than this.
const BYTES_MAX: u64 = 1 << 20;

/// Where a certificate is, with the chain behind it, and its key; both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate first, then those that vouch for it.
    pub certificate: PathBuf,
    /// Its key, not encrypted.
    pub key: PathBuf,
}

/// Why the files cannot be used. Says which and what it is, never what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{flag} {}: {cause}", file.display())]
    Unread {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// They are no pair.
    #[error("--metrics-tls-cert {} and --metrics-tls-key {} are no certificate and its key: {cause}", certificate.display(), key.display())]
    NoPair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The library's words.
        cause: String,
    },
}

/// What the files held, byte by byte.
#[derive(PartialEq, Eq)]
struct Held(Vec<u8>, Vec<u8>);

/// The certificate as it was last good.
#[derive(Clone)]
pub struct Certificate {
    files: Files,
    serving: Arc<RwLock<Arc<ServerConfig>>>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn read(flag: &'static str, file: &Path) -> Result<Vec<u8>, Unusable> {
    let unread = |cause: String| Unusable::Unread {
        flag,
        file: file.to_owned(),
        cause,
    };
    let size = std::fs::metadata(file)
        .map_err(|error| unread(error.to_string()))?
        .len();
    if size > BYTES_MAX {
        return Err(unread(format!("has {size} bytes, more than {BYTES_MAX}")));
    }
    std::fs::read(file).map_err(|error| unread(error.to_string()))
}

impl Files {
    fn held(&self) -> Result<Held, Unusable> {
        let certificate = read("--metrics-tls-cert", &self.certificate)?;
        Ok(Held(certificate, read("--metrics-tls-key", &self.key)?))
    }

    fn config(&self, held: &Held) -> Result<Arc<ServerConfig>, Unusable> {
        let wrong = |flag, file: &PathBuf, cause: &str| Unusable::Unread {
            flag,
            file: file.clone(),
            cause: cause.to_owned(),
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&held.0).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| {
            wrong(
                "--metrics-tls-cert",
                &self.certificate,
                "holds no PEM certificate",
            )
        })?;
        let key = PrivateKeyDer::from_pem_slice(&held.1).map_err(|_| {
            wrong(
                "--metrics-tls-key",
                &self.key,
                "holds no unencrypted PEM private key",
            )
        })?;
        let no_pair = |error: rustls::Error| Unusable::NoPair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            cause: error.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(no_pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(no_pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read or is not what it should be, or they do not belong together.
    pub fn load(files: Files) -> Result<Self, Unusable> {
        let serving = files.config(&files.held()?)?;
        Ok(Self {
            files,
            serving: Arc::new(RwLock::new(serving)),
        })
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.serving.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A handshake by what the files last held.
    pub(super) fn handshake(&self, stream: TcpStream) -> Accept<TcpStream> {
        TlsAcceptor::from(self.current()).accept(stream)
    }

    /// Serves what the files hold, whenever that changes; for ever.
    pub(super) async fn follow(self) {
        // Read anew although it was read at the start: it may have changed since.
        let mut last = None;
        let mut said = None;
        loop {
            let outcome = self.files.held().and_then(|held| {
                if last.as_ref() == Some(&held) {
                    return Ok(false);
                }
                let config = self.files.config(&held)?;
                *self.serving.write().unwrap_or_else(PoisonError::into_inner) = config;
                Ok(last.replace(held).is_some())
            });
            if outcome == Ok(true) {
                tracing::info!(
                    "serving a new certificate from {}",
                    self.files.certificate.display()
                );
            }
            let trouble = outcome.err();
            if let Some(unusable) = trouble.as_ref().filter(|_| said != trouble) {
                tracing::warn!("the certificate that was served before is served on: {unusable}");
            }
            said = trouble;
            sleep(LOOK).await;
        }
    }
}
