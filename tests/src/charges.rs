//! What pods take of Pools: read at every event of a namespace, in the order in which the server stored them.
//!
//! Pods and Pools come over two watches, and two watches may be told in any order. All objects of a cluster share one
//! counter of versions, so what happened is put in order by it afterwards, and every moment is looked at.

use crate::{AuditTail, Result, Stage};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use poolwright_api::v1alpha1::Pool;
use poolwright_api::{ANNOTATION_CHARGE, LABEL_REVISION, LABEL_WORKER_POOL};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

mod ledger;

use ledger::{Ledger, Seat};

/// Who ends pods that a number of replicas does not cover any more.
const SCALES_IN: &str = "system:serviceaccount:kube-system:replicaset-controller";

/// Who deletes pods in the course of what we ask for.
const OURS: [&str; 3] = [
    SCALES_IN,
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "local-node",
];

/// What one event says.
#[derive(Clone, Debug)]
enum News {
    /// A pod: its uid, what it is, and whether it is being deleted.
    Pod(String, Seat, bool),
    /// A pod is gone, or has ended.
    Gone(String),
    /// A Pool: its slots, `None` without a limit or when it is gone, the sum of what its status grants, and the number of
    /// the last change of a grant.
    Slots(String, Option<u64>, u64, i64),
}

/// One event, with the version at which the server stored it.
#[derive(Clone, Debug)]
struct Told {
    version: u64,
    at: Timestamp,
    name: String,
    news: News,
}

/// Everything that was told, and what could not be read.
#[derive(Debug, Default)]
struct Notes {
    told: Vec<Told>,
    unreadable: Vec<String>,
    lists: usize,
}

/// A follower of the pods and Pools of one namespace.
#[derive(Debug)]
pub struct Charges {
    notes: Arc<Mutex<Notes>>,
    watches: [JoinHandle<()>; 2],
    audit_log: PathBuf,
    since: Option<AuditTail>,
    namespace: String,
}

/// A moment of one Pool.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When the watch told.
    pub at: Timestamp,
    /// Slots of all pods that exist.
    pub taken: u64,
    /// Of these, slots of pods that others deleted, that are not gone yet, and in whose place another has come.
    pub overlap: u64,
    /// The Pool's slots then; `None` without a limit.
    pub slots: Option<u64>,
    /// The sum of what its status granted then.
    pub granted: u64,
    /// What happened.
    pub what: String,
}

/// What became of one Pool.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    /// Every change, in order.
    pub moments: Vec<Moment>,
    /// Pods that were created when the Pool had no room for them, and grants of more than it has.
    pub broken: Vec<Moment>,
}

impl Moment {
    /// More is taken than there is.
    pub fn is_over(&self) -> bool {
        self.slots.is_some_and(|slots| self.taken > slots)
    }
}

impl Sheet {
    /// Most slots that were taken at a time, without what others deleted and Kubernetes replaced.
    pub fn peak(&self) -> u64 {
        let own = self.moments.iter().map(|one| one.taken - one.overlap);
        own.max().unwrap_or(0)
    }

    fn expect_kept(&self, pool: &str) -> Result<()> {
        let count = self.broken.len();
        match self.broken.first() {
            Some(first) => Err(format!("Pool {pool} was exceeded {count} times, first: {first:?}").into()),
            None => Ok(()),
        }
    }

    /// Most slots that were taken at a time.
    pub fn peak_of_all(&self) -> u64 {
        self.moments.iter().map(|one| one.taken).max().unwrap_or(0)
    }

    /// How long more was taken than there was, in seconds, in parts that each have an end.
    pub fn over(&self) -> f64 {
        let pairs = self.moments.windows(2);
        let over = pairs.filter(|pair| pair[0].is_over());
        over.map(|pair| pair[1].at.duration_since(pair[0].at).as_secs_f64())
            .fold(0.0, |sum, one| sum + one)
    }
}

impl Drop for Charges {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

impl Charges {
    /// Follows the namespace of a stage, from before it has pods.
    pub fn follow(stage: &Stage) -> Self {
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let watches = [
            tokio::spawn(follow(stage.namespace.api::<Pod>(), Arc::clone(&notes), of_pod)),
            tokio::spawn(follow(
                stage.namespace.api::<Pool>(),
                Arc::clone(&notes),
                |pool, gone| Ok(of_pool(pool, gone)),
            )),
        ];
        Self {
            notes,
            watches,
            // From before it has pods nothing that was deleted is missed.
            since: AuditTail::from_now(&stage.plane.audit_log()).ok(),
            audit_log: stage.plane.audit_log(),
            namespace: stage.namespace.name.clone(),
        }
    }

    /// Every Pool's sheet, by its name.
    pub fn sheets(&self) -> Result<BTreeMap<String, Sheet>> {
        let (others, scaled_in) = self.deleted()?;
        let notes = self.notes.lock().expect("no reader panics");
        if let Some(pod) = notes.unreadable.first() {
            return Err(format!("pod {pod} does not say what it takes").into());
        }
        // Each watch lists once when it begins; a watch that began again may have missed a pod.
        if notes.lists != self.watches.len() {
            return Err(format!("{} lists: the watches were interrupted", notes.lists).into());
        }
        let mut told = notes.told.clone();
        drop(notes);
        told.sort_by_key(|one| one.version);
        Ok(Ledger::new(others, scaled_in).read(&told))
    }

    /// One Pool's sheet. Fails if its budget was ever exceeded, so that no question about it is asked before that one.
    pub fn sheet(&self, pool: &str) -> Result<Sheet> {
        let sheet = self.sheets()?.remove(pool);
        let sheet = sheet.ok_or_else(|| format!("nothing was told of Pool {pool}"))?;
        sheet.expect_kept(pool)?;
        Ok(sheet)
    }

    /// Names of the pods that somebody deleted or evicted, and of those that were ended because fewer are asked for.
    fn deleted(&self) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
        let (mut others, mut scaled_in) = (BTreeSet::new(), BTreeSet::new());
        for entry in self.since.clone().unwrap_or_default().read(&self.audit_log)? {
            let deletes = entry.verb == "delete" || entry.subresource == "eviction";
            if entry.namespace != self.namespace || entry.resource != "pods" || !deletes {
                continue;
            }
            if !OURS.contains(&entry.user.as_str()) {
                others.insert(entry.name);
            } else if entry.user == SCALES_IN {
                scaled_in.insert(entry.name);
            }
        }
        Ok((others, scaled_in))
    }

    /// Fails if a pod was ever created that its Pool had no room for and that no earlier grant or lost pod explains, if
    /// ever more was granted than there was, and if more is taken now than there is. What others deleted and Kubernetes replaced at once is counted apart.
    pub fn expect_within(&self) -> Result<()> {
        let sheets = self.sheets()?;
        let mut peak = 0;
        for (pool, sheet) in &sheets {
            let (most, all) = (sheet.peak(), sheet.peak_of_all());
            let Some(last) = sheet.moments.last().filter(|_| all > 0) else {
                continue;
            };
            println!(
                "Pool {pool}: at most {most} slots, {all} with what others deleted; {:.1} s above its budget; {} changes",
                sheet.over(),
                sheet.moments.len()
            );
            peak = peak.max(most);
            sheet.expect_kept(pool)?;
            if last.is_over() {
                return Err(format!("Pool {pool} is still above its budget: {last:?}").into());
            }
        }
        if peak == 0 {
            return Err("no pod was seen to take anything".into());
        }
        Ok(())
    }
}

fn of_pod(pod: &Pod, gone: bool) -> Result<News> {
    let uid = pod.uid().unwrap_or_default();
    let is_going = pod.metadata.deletion_timestamp.is_some();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    // One that has ended for good is replaced at once, and takes nothing.
    let has_ended = !is_going && matches!(phase, Some("Failed" | "Succeeded"));
    if gone || has_ended {
        return Ok(News::Gone(uid));
    }
    let text = pod.annotations().get(ANNOTATION_CHARGE).ok_or("no annotation")?;
    let parts = text.split(',').map(|part| {
        let (pool, slots) = part.split_once('=').ok_or("a part without a number")?;
        Ok((pool.to_owned(), slots.parse()?))
    });
    let label = |name: &str| pod.labels().get(name).cloned().unwrap_or_default();
    let seat = Seat {
        kind: (label(LABEL_WORKER_POOL), label(LABEL_REVISION)),
        takes: parts.collect::<Result<BTreeMap<String, u64>>>()?,
    };
    Ok(News::Pod(uid, seat, is_going))
}

fn of_pool(pool: &Pool, gone: bool) -> News {
    let slots = u64::try_from(pool.spec.slots).ok().filter(|_| !gone);
    let holders = pool.status.iter().flat_map(|status| &status.holders);
    let granted: u64 = holders
        .filter_map(|holder| u64::try_from(holder.granted).ok())
        .sum();
    let epoch = pool.status.as_ref().and_then(|status| status.epoch).unwrap_or(0);
    let (granted, epoch) = if gone { (0, 0) } else { (granted, epoch) };
    News::Slots(pool.name_any(), slots, granted, epoch)
}

async fn follow<K>(api: Api<K>, notes: Arc<Mutex<Notes>>, read: fn(&K, bool) -> Result<News>)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let (object, gone) = match event {
            Ok(watcher::Event::Apply(one) | watcher::Event::InitApply(one)) => (one, false),
            Ok(watcher::Event::Delete(one)) => (one, true),
            Ok(watcher::Event::InitDone) => {
                notes.lock().expect("no reader panics").lists += 1;
                continue;
            }
            _ => continue,
        };
        let version = object.resource_version().and_then(|version| version.parse().ok());
        let name = object.name_any();
        let mut notes = notes.lock().expect("no reader panics");
        match (version, read(&object, gone)) {
            (Some(version), Ok(news)) => notes.told.push(Told {
                version,
                at: Timestamp::now(),
                name,
                news,
            }),
            _ => notes.unreadable.push(name),
        }
    }
}
