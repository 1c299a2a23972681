//! Waiting for something to become true, with a limit and a name, so that a
//! test that waits in vain says what it waited for.

use crate::Result;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long to sleep between two looks.
const STEP: Duration = Duration::from_millis(25);

/// Asks until the answer is `Some`, at most for `limit`.
pub async fn poll<T, F, Fut>(what: &str, limit: Duration, mut ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let since = Instant::now();
    let mut last = String::from("it never held");
    loop {
        match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => last = format!("the last error was: {error}"),
        }
        if since.elapsed() > limit {
            return Err(format!("waited {} s for {what}: {last}", limit.as_secs_f32()).into());
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Like [`poll`], for a question that is answered by yes or no.
pub async fn wait_until<F, Fut>(what: &str, limit: Duration, mut ask: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    poll(what, limit, || {
        let answer = ask();
        async move { Ok(answer.await?.then_some(())) }
    })
    .await
}

/// Like [`wait_until`], for a question that needs no waiting of its own.
pub async fn wait_for(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, limit, || std::future::ready(Ok(ask()))).await
}
