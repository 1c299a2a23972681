//! Whether the API server is new enough, asked once at the start.
//!
//! Decides by what the server says of itself, and waits for its answer as the watches would. An older one lacks what the
//! definitions and policies are written in, and would drop it without a word, so the process ends instead. A server that
//! keeps its version to itself, or says it in words that are no numbers, is not refused: what is missing shows in the
//! watches.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::time::sleep;

/// The oldest that works: what the chart's `kubeVersion` says, too.
pub const OLDEST: (u32, u32) = (1, 33);
/// A server that has not answered is asked again after so long.
const AGAIN: Duration = Duration::from_secs(2);

/// The server is older than [`OLDEST`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API server is Kubernetes {found}, and this operator needs {}.{} or later: nothing was changed; upgrade the cluster, \
     or run an older operator",
    OLDEST.0,
    OLDEST.1
)]
pub struct TooOld {
    /// What the server says of itself.
    pub found: String,
}

/// Returns once the server has said its version, or will not.
///
/// # Errors
/// It is too old.
pub async fn supported(client: &Client) -> Result<(), TooOld> {
    loop {
        match client.apiserver_version().await {
            Ok(info) => return judge(&info),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {
                tracing::warn!("the API server does not tell its version: {}", status.message);
                return Ok(());
            }
            Err(error) => tracing::warn!("the API server's version could not be read: {error}"),
        }
        sleep(AGAIN).await;
    }
}

fn judge(info: &Info) -> Result<(), TooOld> {
    let release = || {
        let mut parts = info.git_version.trim_start_matches('v').split('.');
        Some((number(parts.next()?)?, number(parts.next()?)?))
    };
    let said = number(&info.major).zip(number(&info.minor)).or_else(release);
    match said {
        Some(said) if said < OLDEST => {
            let found = if info.git_version.is_empty() {
                format!("{}.{}", said.0, said.1)
            } else {
                info.git_version.clone()
            };
            Err(TooOld { found })
        }
        Some(_) => Ok(()),
        None => {
            let (version, minor) = (&info.git_version, &info.minor);
            tracing::warn!(
                version,
                minor,
                "the API server's version cannot be understood, and is taken to be new enough"
            );
            Ok(())
        }
    }
}

/// The number that a text begins with: some providers write `33+`.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::{Body, ClientBuilder};
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    fn info(major: &str, minor: &str, version: &str) -> Info {
        let (major, minor, git_version) = (major.to_owned(), minor.to_owned(), version.to_owned());
        Info {
            major,
            minor,
            git_version,
            ..Info::default()
        }
    }

    #[test]
    fn what_is_older_is_refused_and_what_is_not_understood_is_not() {
        for (major, minor, version, is_old) in [
            ("1", "32", "v1.32.5", true),
            ("1", "32+", "v1.32.9-eks-1234567", true),
            ("", "", "1.32.5", true),
            ("1", "9", "v1.9.0", true),
            ("0", "40", "v0.40.0", true),
            ("1", "33", "v1.33.0", false),
            ("1", "33+", "v1.33.0-gke.100", false),
            ("", "", "v1.33.0-gke.100", false),
            ("1", "33", "v1.33.0-alpha.1", false),
            ("1", "34", "v1.34.4", false),
            ("1", "100", "v1.100.0", false),
            ("2", "0", "v2.0.0", false),
            ("", "", "", false),
            ("", "", "v1", false),
            ("one", "32", "unknown", false),
        ] {
            let judged = judge(&info(major, minor, version));
            assert_eq!(judged.is_err(), is_old, "{major:?} {minor:?} {version:?}");
        }
    }

    #[test]
    fn it_says_what_was_found_and_what_is_needed() {
        for (version, found) in [("v1.32.5", "Kubernetes v1.32.5,"), ("", "Kubernetes 1.32,")] {
            let words = judge(&info("1", "32", version)).unwrap_err().to_string();
            assert!(
                words.contains(found) && words.contains("needs 1.33 or later"),
                "{words}"
            );
        }
    }

    #[test]
    fn the_chart_says_the_same() {
        let chart = include_str!("../../../charts/poolwright/Chart.yaml");
        let wanted = format!("kubeVersion: \">={}.{}.0-0\"", OLDEST.0, OLDEST.1);
        assert!(chart.lines().any(|line| line == wanted), "{wanted}");
    }

    /// A server that gives these answers, the last of them again and again; how often it was asked.
    fn server(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<usize>>) {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let service = service_fn(move |_: Request<Body>| {
            let mut asked = count.lock().unwrap();
            let (code, answer) = answers[(*asked).min(answers.len() - 1)].clone();
            *asked += 1;
            let response = Response::builder().status(code);
            let response = response
                .body(Body::from(answer.to_string().into_bytes()))
                .unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        (ClientBuilder::new(service, "default").build(), asked)
    }

    fn version(minor: &str) -> Value {
        let version = format!("v1.{minor}.0");
        json!({"major": "1", "minor": minor, "gitVersion": version})
    }

    fn refusal(code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "code": code})
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_there_yet_is_waited_for() {
        let (client, asked) = server(vec![
            (503, refusal(503)),
            (503, refusal(503)),
            (200, version("32")),
        ]);
        let refused = supported(&client).await.unwrap_err();
        assert_eq!(refused.found, "v1.32.0");
        assert_eq!(*asked.lock().unwrap(), 3);
        let (client, _) = server(vec![(503, refusal(503)), (200, version("34"))]);
        assert_eq!(supported(&client).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_tell_is_not_refused() {
        let (client, asked) = server(vec![(403, refusal(403))]);
        assert_eq!(supported(&client).await, Ok(()));
        assert_eq!(*asked.lock().unwrap(), 1);
    }
}
