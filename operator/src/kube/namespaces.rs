//! The namespaces whose labels match a selector, and until when that is proven.
//!
//! Lists and watches their metadata, and tells what it sees; what that means is for others. A watch of its own in place of
//! kube's, which does not say when it last knew everything: each ends after a few seconds by the server's clock, and one
//! that ended so has told all that happened until then. A connection that is cut proves nothing, and the next watch goes
//! on from where the last one was.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::selector::Selector;
use crate::shard::Shard;

/// Seconds after which the server ends a watch. A third of what a proof is good for: two may fail.
const WATCH_SECONDS: u32 = 3;
/// One that lasted longer than this beyond them was ended by a connection that was silent for too long.
const GRACE: Duration = Duration::from_secs(2);
/// Time before another try, after the first failure and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The namespaces that match; `None` before they were first read.
pub type Matching = Option<BTreeSet<String>>;

/// Follows them for ever. The client must not be one that waits long for a silent connection.
pub async fn follow(client: Client, selector: Selector, shard: Shard, tell: watch::Sender<Matching>) {
    let api: Api<Namespace> = Api::all(client);
    let mut again = AGAIN.0;
    loop {
        let began = Instant::now();
        let Err(error) = list_and_watch(&api, &selector.to_string(), &shard, &tell).await;
        tracing::warn!("namespaces: {}", words(&error));
        if began.elapsed() > AGAIN.1 {
            again = AGAIN.0;
        }
        sleep(again.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        again = (again * 2).min(AGAIN.1);
    }
}

async fn list_and_watch(
    api: &Api<Namespace>,
    selector: &str,
    shard: &Shard,
    tell: &watch::Sender<Matching>,
) -> Result<Infallible, kube::Error> {
    let asked = Instant::now();
    let list = api.list_metadata(&ListParams::default().labels(selector)).await?;
    let mut version = list.metadata.resource_version.unwrap_or_default();
    let mut matching: BTreeSet<String> = list.items.iter().map(kube::ResourceExt::name_any).collect();
    say(tell, &matching);
    shard.prove(asked);
    let params = WatchParams::default().labels(selector).timeout(WATCH_SECONDS);
    loop {
        let asked = Instant::now();
        let mut events = pin!(api.watch_metadata(&params, &version).await?);
        let opened = Instant::now();
        while let Some(event) = events.try_next().await? {
            version = match event {
                WatchEvent::Added(one) | WatchEvent::Modified(one) => {
                    matching.insert(one.name_any());
                    one.resource_version().unwrap_or(version)
                }
                // It is gone, or its labels match no more.
                WatchEvent::Deleted(one) => {
                    matching.remove(&one.name_any());
                    one.resource_version().unwrap_or(version)
                }
                WatchEvent::Bookmark(mark) => mark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            say(tell, &matching);
        }
        if ended_in_time(opened.elapsed()) {
            shard.prove(asked);
        } else {
            // One that is cut at once must not be opened again at once, for ever.
            sleep(AGAIN.0).await;
        }
    }
}

fn say(tell: &watch::Sender<Matching>, matching: &BTreeSet<String>) {
    tell.send_if_modified(|known| {
        let differs = known.as_ref() != Some(matching);
        if differs {
            *known = Some(matching.clone());
        }
        differs
    });
}

/// True for a watch that the server ended because its time was over.
fn ended_in_time(lasted: Duration) -> bool {
    let time = Duration::from_secs(WATCH_SECONDS.into());
    // The server's clock began before the answer was here.
    lasted + Duration::from_secs(1) >= time && lasted <= time + GRACE
}

fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => format!(
            "this account may not list and watch namespaces, which --namespace-selector needs: bind it a ClusterRole \
             with both ({})",
            status.message
        ),
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_watch_that_the_server_ended_proves_something() {
        let seconds = Duration::from_secs_f64;
        assert!(ended_in_time(seconds(3.0)) && ended_in_time(seconds(2.6)));
        assert!(!ended_in_time(seconds(0.5)), "it was cut");
        assert!(!ended_in_time(seconds(10.0)), "it was silent");
    }

    #[tokio::test]
    async fn the_same_namespaces_are_news_to_nobody() {
        let (tell, mut told) = watch::channel(None);
        say(&tell, &BTreeSet::new());
        assert!(told.has_changed().unwrap(), "that there is none is news once");
        told.mark_unchanged();
        say(&tell, &BTreeSet::new());
        assert!(!told.has_changed().unwrap());
    }
}
