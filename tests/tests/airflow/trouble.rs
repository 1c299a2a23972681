//! An Airflow that cannot be read: the reason stands on the Pool, and nothing that runs is touched.

use crate::linked::{await_link, pool, secret};
use poolwright_tests::*;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that says what it is asked for last, of these: the end of the path, and the answer.
async fn server(answers: &'static [(&'static str, &'static str)]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let found = answers
                    .iter()
                    .find(|(end, _)| path.split('?').next().unwrap_or_default().ends_with(end));
                let answer = match found {
                    // It never answers.
                    Some((_, "")) => return std::future::pending().await,
                    Some((_, body)) if body.starts_with('4') || body.starts_with('5') => {
                        format!("HTTP/1.1 {body} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    }
                    Some((_, body)) => {
                        format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                            body.len()
                        )
                    }
                    None => "HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    Ok(address)
}

const VERSION: (&str, &str) = ("/v2/version", r#"{"version":"3.3.2"}"#);
const TOKEN: (&str, &str) = ("/auth/token", r#"{"access_token":"canary-token-71b2"}"#);

/// Name, address, and what is said of it.
type Case = (&'static str, String, &'static str, &'static str, &'static str);

async fn cases() -> Result<Vec<Case>> {
    Ok(vec![
        (
            "nobody",
            "http://127.0.0.1:1".to_owned(),
            "Unknown",
            "AirflowUnreachable",
            "cannot be connected to",
        ),
        (
            "other",
            server(&[]).await?,
            "False",
            "AirflowUnknown",
            "is not what answers",
        ),
        (
            "web",
            server(&[("/v2/version", "<html>")]).await?,
            "False",
            "AirflowUnknown",
            "something else than its version",
        ),
        (
            "new",
            server(&[("/v2/version", r#"{"version":"4.0.0"}"#)]).await?,
            "False",
            "AirflowUnknown",
            "another version than 2 and 3",
        ),
        (
            "wrong",
            server(&[VERSION, ("/auth/token", "401")]).await?,
            "False",
            "AirflowRefused",
            "refuses the credentials",
        ),
        (
            "poor",
            server(&[VERSION, TOKEN, ("/pools", "403")]).await?,
            "False",
            "AirflowRefused",
            "lacks the role",
        ),
        (
            "half",
            server(&[VERSION, TOKEN, ("/pools", r#"{"pools":[],"total_entries":3}"#)]).await?,
            "False",
            "AirflowUnknown",
            "says that it has 3 pools and shows 0",
        ),
        (
            "cut",
            server(&[VERSION, TOKEN, ("/pools", r#"{"pools":[{"name":"a","slo"#)]).await?,
            "False",
            "AirflowUnknown",
            "something else than its pools",
        ),
        (
            "broken",
            server(&[VERSION, TOKEN, ("/pools", "503")]).await?,
            "Unknown",
            "AirflowUnreachable",
            "status 503",
        ),
        (
            "slow",
            server(&[VERSION, TOKEN, ("/pools", "")]).await?,
            "Unknown",
            "AirflowUnreachable",
            "does not answer within 5 s",
        ),
        (
            "file",
            "file:///etc/passwd".to_owned(),
            "False",
            "InvalidSpec",
            "must be http or https",
        ),
    ])
}

#[tokio::test]
async fn what_cannot_be_read_is_said() -> Result<()> {
    let stage = Stage::new("no-airflow").await?;
    for (name, url, status, reason, words) in cases().await? {
        secret(&stage, name, &url, json!({})).await?;
        pool(&stage, name, json!({"airflow": {"secretRef": {"name": name}}})).await?;
        await_link(&stage, name, status, reason, words).await?;
    }
    // Also of one that was never read there is something to alert on.
    let metric = "poolwright_pool_airflow_in_sync";
    assert_eq!(stage.metric(metric, "name=\"nobody\"").await?, Some(0.0));
    pool(
        &stage,
        "lost",
        json!({"airflow": {"secretRef": {"name": "nowhere"}}}),
    )
    .await?;
    await_link(
        &stage,
        "lost",
        "False",
        "SecretMissing",
        "Secret \"nowhere\" does not exist",
    )
    .await?;
    secret(&stage, "bare", "http://127.0.0.1:1", json!({"password": null})).await?;
    pool(
        &stage,
        "bare",
        json!({"airflow": {"secretRef": {"name": "bare"}}}),
    )
    .await?;
    await_link(&stage, "bare", "False", "SecretMissing", "neither the keys").await?;
    let said = stage
        .kubectl()?
        .run(["get", "pools,events", "-o", "yaml"])
        .await?
        + &stage.operator.log();
    assert!(said.contains("refuses the credentials"));
    assert!(!said.contains("canary-token-71b2"), "a token was said");
    Ok(())
}
