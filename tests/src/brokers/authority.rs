//! A certificate authority of one test, and a server certificate for loopback.

use crate::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of an authority and of the one server that it vouches for.
#[derive(Clone, Debug)]
pub struct Authority {
    /// The authority's certificate, which clients must trust.
    pub ca: PathBuf,
    /// The server's certificate, for `localhost` and `127.0.0.1`.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new one with its files in this folder.
    pub fn create(dir: &Path) -> Result<Self> {
        let files = Self {
            ca: dir.join("ca.pem"),
            certificate: dir.join("server.pem"),
            key: dir.join("server.key"),
        };
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name
            .push(DnType::CommonName, "Poolwright test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(&files.ca, ca.self_signed(&ca_key)?.pem())?;
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?;
        fs::write(&files.certificate, certificate.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }

    /// The authority's certificate as text, for a Secret.
    pub fn ca_pem(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.ca)?)
    }
}
