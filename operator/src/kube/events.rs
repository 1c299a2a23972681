//! Events: one for each change of a decision or of a summary, never one a tick.
//!
//! Nobody who decides or reports waits for one: they are queued, and sent by tasks of their own, those of one object in
//! their order. Words that are new each time make an object in etcd each time, and what a tenant's broker says can make
//! such words; so how many there are of one object and in one namespace is bounded here. What is beyond is dropped.

pub mod table;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use poolwright_api::{COMPONENT, Reason};
use poolwright_core::text::bounded;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::table::Sort;
use crate::pace::Pace;

/// Words of an event; the API server takes 1,024 bytes.
const NOTE_MAX: usize = 1000;
/// Of one object: at once as many as Kubernetes' own components send (client-go), but one more each half minute where
/// those send one in five minutes, since a WorkerPool may well scale all day.
const OF_OBJECT: Pace = Pace {
    in_a_row: 25,
    every: Duration::from_secs(30),
};
/// Of all objects of a namespace: a thousand WorkerPools may turn twice at once, and of a thousand TaskQueues that are made
/// to talk without end no more than 38,000 lie in etcd, which keeps an event for an hour.
const OF_NAMESPACE: Pace = Pace {
    in_a_row: 2000,
    every: Duration::from_millis(100),
};
/// Buckets that are full again are forgotten so often.
const SWEEP: Duration = Duration::from_secs(60);
/// What the log says of an event that the reference page does not tell of.
const UNKNOWN: &str = "an event of a reason that docs/reference/events.md does not have";
/// Events that are sent at a time: few, since what makes and scales workers is not to wait behind what only reports.
const LANES: usize = 4;
/// Events that wait in a lane at most: one namespace alone does not fill it.
const WAITING: usize = 2048;
const _: () = assert!(WAITING > OF_NAMESPACE.in_a_row as usize);

/// Events that differ in their note alone are joined, and the first one's words stand for all; told apart by their
/// action they are not.
fn digest(note: &str) -> String {
    let mut hasher = DefaultHasher::new();
    note.hash(&mut hasher);
    format!("{:08x}", hasher.finish() >> 32)
}

/// The buckets of objects, by uid, and of namespaces. Of each it is known when it will be full again, and nothing else;
/// who is not among them has a full one.
struct Limits {
    objects: BTreeMap<String, Instant>,
    namespaces: BTreeMap<String, Instant>,
    swept: Instant,
}

impl Limits {
    fn new(now: Instant) -> Self {
        Self {
            objects: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            swept: now,
        }
    }

    /// Takes one event out of both buckets; out of neither if one is empty, so that an object that talks too much takes
    /// nothing from its neighbours.
    fn take(&mut self, about: &ObjectReference, now: Instant) -> bool {
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.objects.retain(|_, full| *full > now);
            self.namespaces.retain(|_, full| *full > now);
        }
        let uid = about.uid.as_deref().unwrap_or_default();
        let namespace = about.namespace.as_deref().unwrap_or_default();
        let full = |at: Option<&Instant>| at.copied().unwrap_or(now);
        let object = OF_OBJECT.next(full(self.objects.get(uid)), now);
        let all = OF_NAMESPACE.next(full(self.namespaces.get(namespace)), now);
        let (Some(object), Some(all)) = (object, all) else {
            return false;
        };
        self.objects.insert(uid.to_owned(), object);
        self.namespaces.insert(namespace.to_owned(), all);
        true
    }
}

/// An event and whom it is about.
type News = (ObjectReference, Event);

/// Sends events in the operator's name.
pub struct Events {
    limits: Mutex<Limits>,
    lanes: Vec<mpsc::Sender<News>>,
}

impl Events {
    /// One for the whole process: it joins repeats. Its tasks end when it is dropped, and what waits is sent.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: COMPONENT.to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        let recorder = Recorder::new(client, reporter);
        let lane = |_: usize| {
            let (lane, news) = mpsc::channel(WAITING);
            tokio::spawn(publish(recorder.clone(), news));
            lane
        };
        Self {
            limits: Mutex::new(Limits::new(Instant::now())),
            lanes: (0..LANES).map(lane).collect(),
        }
    }

    /// Tells of `about`, soon, and waits for nothing. What is too much is dropped, and a failure is logged and forgotten:
    /// what lasts stands in the status.
    pub fn send(&self, about: &ObjectReference, sort: &Sort, reason: &str, note: &str) {
        let known = Reason::ALL.iter().find(|one| one.as_str() == reason);
        if known.is_none_or(|known| !sort.knows(*known)) {
            tracing::error!(object = sort.object, reason, "{UNKNOWN}");
        }
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let may = limits.take(about, Instant::now());
        drop(limits);
        if !may {
            tracing::debug!(
                namespace = about.namespace,
                object = about.name,
                reason,
                "event dropped: there were too many of this object, or in this namespace"
            );
            return;
        }
        let event = Event {
            type_: if known.is_none_or(|known| sort.warns(*known)) {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            note: Some(bounded(note, NOTE_MAX)),
            action: format!("{}-{}", sort.action, digest(note)),
            secondary: None,
        };
        // Whichever it is, an object's is always the same.
        let uid = about.uid.as_deref().unwrap_or_default();
        let lane = uid.bytes().map(usize::from).sum::<usize>() % LANES;
        if self.lanes[lane].try_send((about.clone(), event)).is_err() {
            tracing::debug!("event dropped: the API server takes them too slowly");
        }
    }
}

/// Sends what comes, one after the other.
async fn publish(recorder: Recorder, mut news: mpsc::Receiver<News>) {
    while let Some((about, event)) = news.recv().await {
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::debug!("event not sent: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use kube::client::{Body, ClientBuilder};
    use serde_json::Value;
    use tokio::time::{advance, sleep};
    use tower::{BoxError, service_fn};

    use super::*;

    /// Whom events were about, by uid, and their notes.
    type Told = Arc<Mutex<Vec<(String, String)>>>;

    /// A server that takes every event.
    fn server() -> (Client, Told) {
        let told = Told::default();
        let into = Arc::clone(&told);
        let service = service_fn(move |request: Request<Body>| {
            let into = Arc::clone(&into);
            async move {
                let bytes = request.into_body().collect_bytes().await?;
                let event: Value = serde_json::from_slice(&bytes)?;
                let words = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
                let one = (words("/regarding/uid").to_owned(), words("/note").to_owned());
                into.lock().unwrap().push(one);
                Ok::<_, BoxError>(Response::new(Body::from(bytes.to_vec())))
            }
        });
        (ClientBuilder::new(service, "shop").build(), told)
    }

    fn about(namespace: &str, uid: &str) -> ObjectReference {
        ObjectReference {
            namespace: Some(namespace.to_owned()),
            name: Some(uid.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }
    }

    #[test]
    fn only_equal_notes_have_one_digest() {
        assert_eq!(digest("exit code 3"), digest("exit code 3"));
        assert_ne!(digest("exit code 3"), digest("exit code 4"));
        assert_eq!(digest("").len(), 8, "an action is short");
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_has_new_words_each_time_is_told_of_a_few_times_in_their_order() {
        let (client, told) = server();
        let events = Events::new(client);
        let send = |uid: &str, n: u32| {
            let note = format!("{n} messages");
            events.send(&about("shop", uid), &table::STRAY, "QueueUnknown", &note);
        };
        let notes = |uid: &str| -> Vec<String> {
            let told = told.lock().unwrap();
            let own = told.iter().filter(|(about, _)| about == uid);
            own.map(|(_, note)| note.clone()).collect()
        };
        for n in 0..100 {
            send("loud", n);
            advance(Duration::from_millis(10)).await;
        }
        send("quiet", 1);
        sleep(Duration::from_secs(1)).await;
        let first: Vec<String> = (0..25).map(|n| format!("{n} messages")).collect();
        assert_eq!(notes("loud"), first);
        assert_eq!(notes("quiet"), ["1 messages"]);
        // One comes back each half minute.
        advance(Duration::from_secs(60)).await;
        for n in 100..110 {
            send("loud", n);
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(notes("loud")[25..], ["100 messages", "101 messages"]);
    }

    #[test]
    fn a_namespace_has_its_bound_and_what_is_quiet_takes_no_memory() {
        let start = Instant::now();
        let mut limits = Limits::new(start);
        let loud = (0..5000)
            .filter(|_| limits.take(&about("shop", "loud"), start))
            .count();
        assert_eq!(loud, 25);
        let others = (0..3000)
            .filter(|n| limits.take(&about("shop", &format!("u{n}")), start))
            .count();
        assert_eq!(others, 1975, "one that is refused takes nothing from the others");
        assert!(limits.take(&about("bank", "till"), start));
        assert_eq!(
            limits.objects.len(),
            1977,
            "who has told nothing is not remembered"
        );
        let later = start + Duration::from_secs(3600);
        assert!(limits.take(&about("shop", "new"), later));
        assert_eq!((limits.objects.len(), limits.namespaces.len()), (1, 1));
    }
}
