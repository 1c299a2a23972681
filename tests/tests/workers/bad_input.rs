//! Bad input: a clear error that names the field and what is allowed, at admission where one object tells, else in
//! a condition; and nothing that runs is touched.

mod admission;
mod brokers;
mod deputy;
mod permission;
mod reach;
mod specs;
mod unreadable;

use poolwright_tests::{Result, Stage, wait_until};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(90);

/// Fails unless `text` holds every one of `words`.
fn expect_words(about: &str, text: &str, words: &[&str]) -> Result<()> {
    match words.iter().find(|word| !text.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("{about}: {word:?} is not in {text:?}").into()),
    }
}

/// Reads a message until the words are in it: just after a change it may say that nothing was read yet.
async fn await_words(about: &str, words: &[&str], read: impl AsyncFn() -> Result<String>) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        match expect_words(about, &read().await?, words) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Waits until a TaskQueue's `Ready` has this status and reason, and returns its message.
async fn await_queue(stage: &Stage, name: &str, status: &str, reason: &str) -> Result<String> {
    let seen = Mutex::new(Default::default());
    let what = format!("TaskQueue {name} to be {status}/{reason}");
    let outcome = wait_until(&what, LIMIT, || async {
        let now = stage.queue_ready(name).await?;
        let hit = now.0 == status && now.1 == reason;
        *seen.lock().unwrap() = now;
        Ok(hit)
    })
    .await;
    let (found_status, found_reason, message) = seen.into_inner().unwrap();
    outcome.map_err(|error| format!("{error}; it is {found_status}/{found_reason}: {message}"))?;
    Ok(message)
}
