//! Asking over HTTP what a user's address names: no redirect is followed, no proxy is asked, answers are bounded in time and
//! bytes.
//!
//! Decides nothing, and repeats no byte of an answer: what went wrong is said by whoever asked.

use std::time::Duration;

use poolwright_core::sample::FaultKind;
use reqwest::{Client, Response, Url};

use super::SignalError;
use super::network::{Network, Unusable};
use super::tls;

/// Why an answer has no body.
pub(super) enum Broken {
    /// It is longer than may be.
    Long,
    /// It broke off.
    Off(reqwest::Error),
}

/// A client for one server: an address is judged with its port, which a client for several would not know.
pub(super) fn client(
    tls: rustls::ClientConfig,
    network: &Network,
    url: &Url,
    deadline: Duration,
) -> Option<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(network.http(url))
        .timeout(deadline)
        .build()
        .ok()
}

/// Why a request to `who` has no answer. `field` is where the address comes from, `deadline` that of its client.
pub(super) fn failed(error: &reqwest::Error, (who, field): (&str, &str), deadline: Duration) -> SignalError {
    if let Some(unusable) = Unusable::behind(error) {
        return unusable.error(field);
    }
    if let Some(tls) = tls::behind(error) {
        return SignalError::new(FaultKind::Unreachable, tls::words(tls, who));
    }
    let words = if error.is_timeout() {
        format!("does not answer within {} s", deadline.as_secs())
    } else if error.is_connect() {
        "cannot be connected to (refused, or unknown host)".to_owned()
    } else {
        "broke off its answer".to_owned()
    };
    SignalError::new(FaultKind::Unreachable, format!("{who} {words}"))
}

/// The body of an answer, of at most so many bytes.
pub(super) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Broken::Off)? {
        if body.len() + chunk.len() > most {
            return Err(Broken::Long);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
