//! A load as a Prometheus tells it: the answer to one instant query.
//!
//! Only a scalar or a vector of exactly one sample is a load; everything else is a missing reading, with a reason in our
//! own words. The address is a user's: nothing is sent to it but the query, redirects are not followed, no proxy is
//! asked, and no byte of an answer is repeated anywhere.

use poolwright_api::v1alpha1::PrometheusQuery;
use poolwright_core::broker::Tls;
use poolwright_core::constants::LOAD_DEADLINE;
use poolwright_core::sample::FaultKind;
use poolwright_core::shedding::percent;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::SignalError;
use super::network::Network;
use super::tls::client_config;
use super::web::{self, Broken};

/// Largest answer. One sample with many labels is well below.
const MAX_BODY: usize = 64 << 10;

/// Where the address comes from.
const FIELD: &str = "source.prometheus.url";

/// Asks Prometheus servers.
#[derive(Clone)]
pub struct Prometheus {
    tls: rustls::ClientConfig,
    network: Network,
}

impl Prometheus {
    /// One that trusts the certificates of this machine, and goes where `network` permits.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(network: Network) -> Result<Self, SignalError> {
        let tls = client_config(&Tls::default())?;
        Ok(Self { tls, network })
    }

    fn client(&self, url: &Url) -> Result<Client, SignalError> {
        web::client(self.tls.clone(), &self.network, url, LOAD_DEADLINE)
            .ok_or_else(|| fault(FaultKind::InvalidAddress, "cannot be asked: no HTTP client"))
    }

    /// The load in percent.
    ///
    /// # Errors
    /// There is none, and why.
    pub async fn read(&self, asked: &PrometheusQuery) -> Result<f64, SignalError> {
        let url = url(asked)?;
        let judged = self.network.check_literal(&url).await;
        judged.map_err(|unusable| unusable.error(FIELD))?;
        let response = self
            .client(&url)?
            .get(url)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        check(response.status())?;
        let body = web::body(response, MAX_BODY)
            .await
            .map_err(|broken| match broken {
                Broken::Long => fault(FaultKind::Implausible, "answers with more than 64 KiB"),
                Broken::Off(error) => failed(&error),
            })?;
        load(&body)
    }
}

fn url(asked: &PrometheusQuery) -> Result<Url, SignalError> {
    let invalid = || {
        let words = "has no usable url: it must be http or https and hold no user or password";
        fault(FaultKind::InvalidAddress, words)
    };
    let mut url = Url::parse(&asked.url).map_err(|_| invalid())?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !matches!(url.scheme(), "http" | "https") || has_user {
        return Err(invalid());
    }
    url.path_segments_mut()
        .map_err(|()| invalid())?
        .pop_if_empty()
        .extend(["api", "v1", "query"]);
    url.set_fragment(None);
    url.query_pairs_mut().append_pair("query", &asked.query);
    Ok(url)
}

fn check(status: StatusCode) -> Result<(), SignalError> {
    Err(match status {
        StatusCode::OK => return Ok(()),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            fault(FaultKind::Implausible, "does not understand the query")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            fault(FaultKind::Refused, "refuses to answer: it wants credentials")
        }
        StatusCode::NOT_FOUND => fault(
            FaultKind::InvalidAddress,
            "has no /api/v1/query: is the url its root?",
        ),
        other if other.is_redirection() => fault(
            FaultKind::InvalidAddress,
            "answers with a redirect, which is not followed",
        ),
        other => {
            let words = format!("answers with status {}", other.as_u16());
            fault(FaultKind::Unreachable, &words)
        }
    })
}

fn failed(error: &reqwest::Error) -> SignalError {
    web::failed(error, ("Prometheus", FIELD), LOAD_DEADLINE)
}

fn fault(kind: FaultKind, words: &str) -> SignalError {
    SignalError::new(kind, format!("Prometheus {words}"))
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// The one number of an answer.
pub(super) fn load(body: &[u8]) -> Result<f64, SignalError> {
    let strange = |words: &str| fault(FaultKind::Implausible, words);
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| strange("answers with something else than a query's result"))?;
    let result = &answer.data.result;
    let sample = match answer.data.result_type.as_str() {
        "scalar" => result,
        "vector" => match result.as_array().map_or(0, Vec::len) {
            0 => return Err(strange("answers with no sample: the query must give exactly one")),
            1 => &result[0]["value"],
            _ => {
                return Err(strange(
                    "answers with several samples: the query must give exactly one",
                ));
            }
        },
        _ => {
            return Err(strange(
                "answers with neither a scalar nor a vector of one sample",
            ));
        }
    };
    let number = sample[1].as_str().and_then(percent);
    number.ok_or_else(|| strange("answers with a value that is no percentage from 0 to 1,000,000"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::signals::guard::Policy;

    fn anywhere() -> Network {
        Network::of_machine(Policy::outside(), Vec::new())
    }

    fn asked(url: &str) -> PrometheusQuery {
        PrometheusQuery {
            url: url.to_owned(),
            query: "max(load) * 100".to_owned(),
        }
    }

    #[test]
    fn a_load_is_a_scalar_or_the_only_sample_of_a_vector() {
        let of = |data: &str| load(format!(r#"{{"status":"success","data":{data}}}"#).as_bytes());
        let scalar = r#"{"resultType":"scalar","result":[1700000000.1,"72.5"]}"#;
        let one = r#"{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"91"]}]}"#;
        assert_eq!(of(scalar).unwrap().to_bits(), 72.5f64.to_bits());
        assert_eq!(of(one).unwrap().to_bits(), 91f64.to_bits());
        for (data, words) in [
            (r#"{"resultType":"vector","result":[]}"#, "no sample"),
            (
                r#"{"resultType":"vector","result":[{"value":[1,"1"]},{"value":[1,"2"]}]}"#,
                "several samples",
            ),
            (
                r#"{"resultType":"matrix","result":[{"values":[[1,"1"]]}]}"#,
                "neither",
            ),
            (r#"{"resultType":"string","result":[1,"12"]}"#, "neither"),
            (
                r#"{"resultType":"vector","result":{"value":[1,"2"]}}"#,
                "no sample",
            ),
            (r#"{"resultType":"scalar","result":[1,"NaN"]}"#, "no percentage"),
            (r#"{"resultType":"scalar","result":[1,"-1"]}"#, "no percentage"),
            (r#"{"resultType":"scalar","result":[1,"+Inf"]}"#, "no percentage"),
            (
                r#"{"resultType":"scalar","result":[1,"1000001"]}"#,
                "no percentage",
            ),
            (r#"{"resultType":"scalar","result":[1,12]}"#, "no percentage"),
            (r#"{"resultType":"scalar","result":"12"}"#, "no percentage"),
            (
                r#"{"resultType":"vector","result":[{"histogram":[1,{}]}]}"#,
                "no percentage",
            ),
            ("[]", "something else"),
        ] {
            let message = of(data).unwrap_err().message;
            assert!(message.contains(words), "{data}: {message}");
        }
        assert!(
            load(b"<html>secret</html>")
                .unwrap_err()
                .message
                .contains("something else")
        );
    }

    #[test]
    fn the_query_goes_behind_the_servers_root() {
        let of = |root: &str| url(&asked(root)).map(|url| url.to_string());
        let query = "/api/v1/query?query=max%28load%29+*+100";
        assert_eq!(of("http://p:9090").unwrap(), format!("http://p:9090{query}"));
        assert_eq!(of("https://p/under/").unwrap(), format!("https://p/under{query}"));
        for bad in ["http://me:pw@p", "http://me@p", "ftp://p", "p:9090", "http://"] {
            let error = of(bad).unwrap_err();
            assert_eq!(error.kind, FaultKind::InvalidAddress, "{bad}");
            assert!(!error.message.contains("pw"));
        }
    }

    /// A server that says one thing to the first who asks.
    async fn server(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            // An answer that is not whole is waited for.
            tokio::time::sleep(Duration::from_secs(10)).await;
        });
        address
    }

    async fn told(answer: &str) -> Result<f64, SignalError> {
        Prometheus::new(anywhere())
            .unwrap()
            .read(&asked(&server(answer.to_owned()).await))
            .await
    }

    fn whole(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn an_answer_is_bounded_in_bytes_and_time_and_by_its_status() {
        let good = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"5"]}}"#;
        assert!(told(&whole("200 OK", good)).await.is_ok());
        let padded = format!("{good}{}", " ".repeat(MAX_BODY));
        let redirect = "302 Found\r\nlocation: http://127.0.0.1:1/";
        for (answer, kind, words) in [
            (whole("200 OK", &padded), FaultKind::Implausible, "64 KiB"),
            (whole(redirect, ""), FaultKind::InvalidAddress, "redirect"),
            (whole("401 Unauthorized", good), FaultKind::Refused, "credentials"),
            (whole("400 Bad Request", good), FaultKind::Implausible, "query"),
            (whole("404 Not Found", good), FaultKind::InvalidAddress, "root"),
            (whole("503 Busy", good), FaultKind::Unreachable, "503"),
        ] {
            let error = told(&answer).await.unwrap_err();
            assert_eq!(error.kind, kind, "{}", error.message);
            assert!(error.message.contains(words), "{}", error.message);
        }
        let began = Instant::now();
        let error = told("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{")
            .await
            .unwrap_err();
        assert!(error.message.contains("within 2 s"), "{}", error.message);
        assert!(began.elapsed() < Duration::from_secs(4));
        let nobody = Prometheus::new(anywhere())
            .unwrap()
            .read(&asked("http://127.0.0.1:1"))
            .await;
        assert_eq!(nobody.unwrap_err().kind, FaultKind::Unreachable);
    }
}
