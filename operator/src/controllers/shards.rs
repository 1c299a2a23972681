//! Takes up the namespaces that were named, or whose labels match the selector, and lets go of those whose labels do so no
//! more.
//!
//! A namespace is shown to the rest of the operator when all its watches have delivered their first lists, and, where
//! another operator has worked, when that one has stopped writing for certain. It goes with all of it in one moment, too:
//! nothing is decided by a part of it, and nothing that runs there is touched. Has no part in who decides; a replica that
//! stands by follows its namespaces as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::watches::Watches;
use crate::kube::namespaces::Matching;
use crate::shard::TAKE_OVER;

/// What could not be read is said again after so long.
const AWAY_AGAIN: Duration = Duration::from_secs(300);

/// Keeps the watches of a shard.
pub struct Supervisor {
    /// What starts them.
    pub watches: Watches,
    /// Which namespaces match, or were named.
    pub matching: watch::Receiver<Matching>,
    /// Told when those that matched at the start are shown.
    pub ready: watch::Sender<bool>,
    /// After so long those that are shown are enough, if there are any; `None` waits for all. One of several names may be
    /// gone, with the right to read it, and must not keep an operator from the others.
    pub patience: Option<Duration>,
}

/// A namespace that matches.
struct Held {
    watches: Vec<AbortHandle>,
    since: Instant,
    /// It matched when this process looked first: whoever had it before is as gone as after any start.
    at_start: bool,
    synced: Arc<AtomicBool>,
    shown: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

/// When a namespace may be shown whose lists are complete.
fn due(since: Instant, at_start: bool, was_worked_in: bool) -> Instant {
    if at_start || !was_worked_in {
        since
    } else {
        since + TAKE_OVER
    }
}

/// Says which namespaces could not be read yet; returns when to say so again.
fn without_the_rest(held: &BTreeMap<String, Held>) -> Option<Instant> {
    let away = held.iter().filter(|(_, one)| !one.shown);
    let away: Vec<&str> = away.map(|(namespace, _)| namespace.as_str()).collect();
    if away.is_empty() {
        return None;
    }
    tracing::warn!(
        namespaces = away.join(", "),
        "nothing is done in these namespaces, which could not be read yet: do they exist, and has this account its Role \
         there? One that is gone for good is to be taken out of --namespace"
    );
    Some(Instant::now() + AWAY_AGAIN)
}

impl Supervisor {
    /// Runs for ever; returns what has ended although it should not.
    pub async fn run(mut self) -> &'static str {
        let mut held: BTreeMap<String, Held> = BTreeMap::new();
        let mut parts = JoinSet::new();
        let news = Arc::new(Notify::new());
        let mut is_first = true;
        let mut patience = self.patience.map(|patience| Instant::now() + patience);
        let mut is_patient = true;
        loop {
            let matching = self.matching.borrow_and_update().clone();
            if let Some(matching) = matching {
                self.follow(&matching, &mut held, &mut parts, &news, is_first);
                is_first = false;
            }
            let next = self.show(&mut held);
            let suffices = if is_patient {
                !is_first && held.values().all(|one| one.shown || !one.at_start)
            } else {
                held.values().any(|one| one.shown)
            };
            if suffices {
                self.is_ready();
            }
            tokio::select! {
                changed = self.matching.changed() => if changed.is_err() {
                    return "the watch of namespaces";
                },
                () = news.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                    is_patient = false;
                    patience = without_the_rest(&held);
                }
                Some(ended) = parts.join_next() => match ended {
                    Err(error) if error.is_cancelled() => {}
                    _ => return "a watch",
                },
            }
        }
    }

    fn is_ready(&self) {
        self.ready
            .send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Starts the watches of what is new, and lets go of what matches no more.
    fn follow(
        &self,
        matching: &BTreeSet<String>,
        held: &mut BTreeMap<String, Held>,
        parts: &mut JoinSet<&'static str>,
        news: &Arc<Notify>,
        at_start: bool,
    ) {
        let gone: Vec<String> = held
            .keys()
            .filter(|name| !matching.contains(*name))
            .cloned()
            .collect();
        for namespace in gone {
            // What one of its watches still inserts is shown to nobody, and goes with the next list.
            held.remove(&namespace);
            self.watches.world.leave(&namespace);
            self.watches.wake();
            tracing::info!(
                namespace,
                "let go: the labels of the namespace do not match any more"
            );
        }
        for namespace in matching {
            if held.contains_key(namespace) {
                continue;
            }
            let synced = Arc::new(AtomicBool::new(false));
            let (set, news) = (Arc::clone(&synced), Arc::clone(news));
            let watches = self.watches.start(parts, Some(namespace), move || {
                set.store(true, Ordering::SeqCst);
                news.notify_one();
            });
            let one = Held {
                watches,
                since: Instant::now(),
                at_start,
                synced,
                shown: false,
            };
            held.insert(namespace.clone(), one);
        }
    }

    /// Shows what may be shown; returns when to look again.
    fn show(&self, held: &mut BTreeMap<String, Held>) -> Option<Instant> {
        let mut next = None;
        let hidden = |one: &Held| !one.shown && one.synced.load(Ordering::SeqCst);
        for (namespace, one) in held.iter_mut().filter(|(_, one)| hidden(one)) {
            let world = &self.watches.world;
            let at = due(one.since, one.at_start, world.was_worked_in(namespace));
            if at > Instant::now() {
                next = Some(next.map_or(at, |next: Instant| next.min(at)));
                continue;
            }
            one.shown = true;
            world.enter(namespace);
            self.watches.wake();
            tracing::info!(namespace, "taken up: it is named, or its labels match");
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::Client;
    use kube::client::{Body, ClientBuilder};
    use serde_json::json;
    use tower::service_fn;

    use super::super::world::World;
    use super::*;
    use crate::kube::gaps::Gaps;
    use crate::kube::no_cluster;
    use crate::shard::Shard;

    #[test]
    fn only_what_another_may_still_write_to_is_waited_for() {
        let since = Instant::now();
        assert_eq!(due(since, true, true), since, "nobody waits at a start");
        assert_eq!(due(since, false, false), since, "nobody has worked there");
        assert_eq!(due(since, false, true), since + TAKE_OVER);
    }

    /// A supervisor, its shard, and what it is told.
    fn supervisor() -> (Supervisor, Shard, watch::Sender<Matching>) {
        let shard = Shard::selected();
        let (tell, matching) = watch::channel(None);
        let watches = Watches {
            client: no_cluster(),
            world: Arc::new(World::within(&shard)),
            board: Arc::default(),
            queues_changed: Arc::default(),
            gaps: Gaps::default(),
        };
        let ready = watch::channel(false).0;
        let supervisor = Supervisor {
            watches,
            matching,
            ready,
            patience: None,
        };
        (supervisor, shard, tell)
    }

    fn queue(namespace: &str, status: &serde_json::Value) -> poolwright_api::v1alpha1::TaskQueue {
        serde_json::from_value(json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
            "metadata": {"namespace": namespace, "name": "q", "uid": namespace},
            "spec": {"broker": {"url": "redis://broker.test:6379/7"}},
            "status": status,
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_is_shown_with_all_of_it_and_let_go_with_all_of_it() {
        let (supervisor, shard, _tell) = supervisor();
        let world = Arc::clone(&supervisor.watches.world);
        let (mut held, mut parts, news) = (BTreeMap::new(), JoinSet::new(), Arc::default());
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        supervisor.follow(&names(&["old"]), &mut held, &mut parts, &news, true);
        supervisor.follow(
            &names(&["new", "old", "other"]),
            &mut held,
            &mut parts,
            &news,
            false,
        );
        // As if their watches had told this: another operator has worked in one of them.
        world.queues.put(queue("old", &json!({"ready": 1})));
        world.queues.put(queue("new", &json!(null)));
        world.queues.put(queue("other", &json!({"ready": 1})));
        assert_eq!(supervisor.show(&mut held), None, "no list is complete");
        for one in held.values() {
            one.synced.store(true, Ordering::SeqCst);
        }
        assert_eq!(supervisor.show(&mut held), Some(Instant::now() + TAKE_OVER));
        let shown = || shard.members().map(|open| (*open).clone());
        assert_eq!(shown(), Some(names(&["new", "old"])));
        tokio::time::advance(TAKE_OVER + Duration::from_millis(1)).await;
        assert_eq!(supervisor.show(&mut held), None);
        assert_eq!(
            (shown(), world.queues.all(None).len()),
            (Some(names(&["new", "old", "other"])), 3)
        );

        supervisor.follow(&names(&["new"]), &mut held, &mut parts, &news, false);
        assert_eq!(
            (shown(), world.queues.all(None).len()),
            (Some(names(&["new"])), 1)
        );
        assert!(
            world.queues.hidden("old").is_empty(),
            "what is let go is forgotten"
        );
        drop(held);
        while let Some(ended) = parts.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()), "its watches end");
        }
    }

    /// A server that lets nobody read but in the namespace `here`, from so long on.
    fn server(from: Duration) -> Client {
        let start = Instant::now();
        let answer = service_fn(move |request: Request<Body>| async move {
            let uri = request.uri();
            if !uri.path().contains("/namespaces/here/") || start.elapsed() < from {
                let refused = json!({"kind": "Status", "status": "Failure", "code": 403, "message": "no", "reason": "Forbidden"});
                let answer = Response::builder().status(403);
                return answer.body(Body::from(refused.to_string().into_bytes()));
            }
            if uri.query().is_some_and(|query| query.contains("watch=")) {
                std::future::pending::<()>().await;
            }
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
            Response::builder().body(Body::from(list.to_string().into_bytes()))
        });
        ClientBuilder::new(answer, "default").build()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_be_read_keeps_nobody_from_the_others_for_long() {
        let second = Duration::from_secs(1);
        // A watch that was refused for long is tried again half a minute later at most.
        for (from, not_yet, by_then) in [(5, 19, 22), (40, 39, 90)] {
            let (mut supervisor, shard, tell) = supervisor();
            supervisor.patience = Some(second * 20);
            supervisor.watches.client = server(second * from);
            tell.send_replace(Some(["gone", "here"].map(str::to_owned).into()));
            let (start, ready) = (Instant::now(), supervisor.ready.subscribe());
            let running = tokio::spawn(supervisor.run());
            sleep_until(start + second * not_yet).await;
            assert!(!*ready.borrow(), "{from}");
            sleep_until(start + second * by_then).await;
            assert!(*ready.borrow(), "{from}");
            assert!(shard.holds("here") && !shard.holds("gone"));
            running.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_without_any_namespace_once_that_is_known() {
        let (supervisor, _shard, tell) = supervisor();
        let mut ready = supervisor.ready.subscribe();
        let running = tokio::spawn(supervisor.run());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!*ready.borrow(), "nothing was read yet");
        tell.send_replace(Some(BTreeSet::new()));
        ready.wait_for(|ready| *ready).await.unwrap();
        drop(tell);
        assert_eq!(running.await.unwrap(), "the watch of namespaces");
    }
}
