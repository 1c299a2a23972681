//! TLS for brokers and for what is asked over HTTP.
//!
//! Turns PEM texts into one rustls configuration. It reads no file and no Secret, and its errors name the
//! field, never its content. The crypto provider is always ring, whatever other crates have installed.

use std::io;
use std::sync::Arc;

use poolwright_core::broker::{Secret, Tls};
use poolwright_core::sample::FaultKind;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::signals::SignalError;

/// The configuration that `tls` describes.
pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, SignalError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| invalid("TLS cannot be set up"))?;
    let builder = if tls.insecure_skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAny(provider)))
    } else {
        builder.with_root_certificates(roots(tls.ca_pem.as_deref())?)
    };
    match (&tls.client_cert_pem, &tls.client_key_pem) {
        (Some(chain), Some(key)) => builder
            .with_client_auth_cert(certificates(chain, "tls.clientCertSecretRef")?, private_key(key)?)
            .map_err(|_| invalid("tls.clientCertSecretRef: certificate and key do not belong together")),
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// The failure of TLS behind an error, if there is one.
pub(super) fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an io::Error wraps is not its source.
        next = match error.downcast_ref::<io::Error>() {
            Some(error) => error
                .get_ref()
                .map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// What is wrong between this program and a server, and what to do about it.
pub(super) fn words(error: &rustls::Error, server: &str) -> String {
    use rustls::{AlertDescription, CertificateError, Error};
    let words = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "'s certificate is signed by no trusted authority; set tls.caSecretRef"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "'s certificate is for another host name",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "'s certificate has expired"
        }
        Error::InvalidCertificate(_) => "'s certificate cannot be verified",
        Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            " asks for a client certificate; set tls.clientCertSecretRef"
        }
        Error::AlertReceived(_) => " refused the handshake; is the client certificate one it trusts?",
        Error::InvalidMessage(_) => " does not speak TLS at this port; is the address meant to be without?",
        _ => ": the handshake failed",
    };
    format!("TLS: {server}{words}")
}

fn roots(ca_pem: Option<&str>) -> Result<RootCertStore, SignalError> {
    let mut store = RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in certificates(pem, "tls.caSecretRef")? {
            store
                .add(certificate)
                .map_err(|_| invalid("tls.caSecretRef holds a certificate that cannot be used"))?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(store)
}

fn certificates(pem: &str, field: &str) -> Result<Vec<CertificateDer<'static>>, SignalError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(invalid(format!("{field} holds no PEM certificate"))),
    }
}

fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, SignalError> {
    PrivateKeyDer::from_pem_slice(pem.expose().as_bytes())
        .map_err(|_| invalid("tls.clientCertSecretRef holds no unencrypted PEM private key"))
}

fn invalid(message: impl Into<String>) -> SignalError {
    SignalError::new(FaultKind::InvalidAddress, message)
}

/// Accepts every certificate: `tls.insecureSkipVerify`.
#[derive(Debug)]
struct TrustAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field_and_not_its_content() {
        let tls = Tls {
            ca_pem: Some("sesame".to_owned()),
            ..Tls::default()
        };
        let error = client_config(&tls).expect_err("no certificate");
        assert!(error.message.contains("tls.caSecretRef") && !error.message.contains("sesame"));
        let tls = Tls {
            client_cert_pem: Some("sesame".to_owned()),
            client_key_pem: Some(Secret::new("sesame")),
            ..Tls::default()
        };
        let error = client_config(&tls).expect_err("no certificate");
        assert!(error.message.contains("tls.clientCertSecretRef") && !error.message.contains("sesame"));
    }

    #[test]
    fn defaults_and_skipping_need_no_certificates() {
        assert!(client_config(&Tls::default()).is_ok());
        assert!(
            client_config(&Tls {
                insecure_skip_verify: true,
                ..Tls::default()
            })
            .is_ok()
        );
    }

    #[test]
    fn a_failure_is_found_however_deep_it_lies_and_told_in_words() {
        use rustls::{AlertDescription, CertificateError, Error};
        for (failure, told) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "tls.caSecretRef",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "tls.clientCertSecretRef",
            ),
        ] {
            let wrapped = io::Error::other(io::Error::other(failure));
            let words = behind(&wrapped).map(|found| words(found, "Airflow")).expect("it");
            assert!(
                words.starts_with("TLS: Airflow") && words.contains(told),
                "{words}"
            );
        }
        assert!(behind(&io::Error::other("something else")).is_none());
    }
}
