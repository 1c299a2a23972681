//! What pods take of Pools: read at every event of a namespace, in the order in which the server stored them.
//!
//! Pods and Pools come over two watches, and two watches may be told in any order. All objects of a cluster share one
//! counter of versions, so what happened is put in order by it afterwards, and every moment is looked at.

use crate::{AuditEntry, Result, Stage, audit_entries};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use poolwright_api::ANNOTATION_CHARGE;
use poolwright_api::v1alpha1::Pool;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// Who deletes pods in the course of what we ask for.
const OURS: [&str; 3] = [
    "system:serviceaccount:kube-system:replicaset-controller",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "local-node",
];

/// What one event says.
#[derive(Clone, Debug)]
enum News {
    /// A pod: its uid, what it takes by Pool, and whether it is being deleted.
    Pod(String, BTreeMap<String, u64>, bool),
    /// A pod is gone.
    Gone(String),
    /// A Pool: its slots, `None` without a limit or when it is gone, and the sum of what its status grants.
    Slots(String, Option<u64>, u64),
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
    namespace: String,
}

/// A moment of one Pool.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When the watch told.
    pub at: Timestamp,
    /// Slots of all pods that exist.
    pub taken: u64,
    /// Of these, slots of pods that others deleted and that are not gone yet.
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

    /// A pod that came now is one too many. One that was granted may come after a cut.
    fn has_a_pod_too_many(&self) -> bool {
        let own = self.taken - self.overlap;
        self.slots.is_some_and(|slots| own > slots.max(self.granted))
    }

    /// More is granted than there is, and what runs does not explain it.
    fn has_a_grant_too_many(&self) -> bool {
        self.slots
            .is_some_and(|slots| self.granted > slots.max(self.taken))
    }
}

impl Sheet {
    /// Most slots that were taken at a time, without what others deleted.
    pub fn peak(&self) -> u64 {
        let own = self.moments.iter().map(|one| one.taken - one.overlap);
        own.max().unwrap_or(0)
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
            audit_log: stage.plane.audit_log(),
            namespace: stage.namespace.name.clone(),
        }
    }

    /// Every Pool's sheet, by its name.
    pub fn sheets(&self) -> Result<BTreeMap<String, Sheet>> {
        let others = self.deleted_by_others()?;
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
        Ok(Ledger {
            others,
            ..Ledger::default()
        }
        .read(&told))
    }

    /// One Pool's sheet.
    pub fn sheet(&self, pool: &str) -> Result<Sheet> {
        let sheet = self.sheets()?.remove(pool);
        Ok(sheet.ok_or_else(|| format!("nothing was told of Pool {pool}"))?)
    }

    /// Names of the pods that somebody deleted or evicted.
    fn deleted_by_others(&self) -> Result<BTreeSet<String>> {
        let deletes = |entry: &AuditEntry| {
            entry.namespace == self.namespace
                && entry.resource == "pods"
                && (entry.verb == "delete" || entry.subresource == "eviction")
                && !OURS.contains(&entry.user.as_str())
        };
        let entries = audit_entries(&self.audit_log)?.into_iter();
        Ok(entries.filter(deletes).map(|entry| entry.name).collect())
    }

    /// Fails if a pod was ever created that its Pool had no room for or had granted, if ever more was granted than there
    /// was, and if more is taken now than there is. What others deleted and Kubernetes replaced at once is counted apart.
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
            if let Some(first) = sheet.broken.first() {
                let count = sheet.broken.len();
                return Err(format!("Pool {pool} was exceeded {count} times, first: {first:?}").into());
            }
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

/// The state of a namespace as its events are read.
#[derive(Default)]
struct Ledger {
    others: BTreeSet<String>,
    /// What each pod takes, and whether others have deleted it.
    pods: BTreeMap<String, (BTreeMap<String, u64>, bool)>,
    /// Slots of each Pool, and what is granted of them.
    slots: BTreeMap<String, (Option<u64>, u64)>,
    sheets: BTreeMap<String, Sheet>,
}

impl Ledger {
    fn read(mut self, told: &[Told]) -> BTreeMap<String, Sheet> {
        for one in told {
            match &one.news {
                News::Slots(pool, slots, granted) => {
                    let new = (*slots, *granted);
                    let old = self.slots.insert(pool.clone(), new);
                    if old != Some(new) {
                        let rose = old.is_some_and(|old| old.1 < *granted);
                        self.note(one, pool, "changed", |now| rose && now.has_a_grant_too_many());
                    }
                }
                News::Pod(uid, taken, going) => {
                    let is_overlap = *going && self.others.contains(&one.name);
                    let known = self.pods.insert(uid.clone(), (taken.clone(), is_overlap));
                    let (what, created) = match known {
                        None => ("created", true),
                        Some((_, before)) if before != is_overlap => ("deleted by others", false),
                        Some(_) => continue,
                    };
                    for pool in taken.keys() {
                        self.note(one, pool, what, |now| created && now.has_a_pod_too_many());
                    }
                }
                News::Gone(uid) => {
                    let (taken, _) = self.pods.remove(uid).unwrap_or_default();
                    for pool in taken.keys() {
                        self.note(one, pool, "gone", |_| false);
                    }
                }
            }
        }
        self.sheets
    }

    fn note(&mut self, told: &Told, pool: &str, what: &str, is_broken: impl Fn(&Moment) -> bool) {
        let of = |taken: &BTreeMap<String, u64>| taken.get(pool).copied().unwrap_or(0);
        let all = self.pods.values();
        let moment = Moment {
            at: told.at,
            taken: all.clone().map(|(taken, _)| of(taken)).sum(),
            overlap: all.filter(|one| one.1).map(|(taken, _)| of(taken)).sum(),
            slots: self.slots.get(pool).and_then(|known| known.0),
            granted: self.slots.get(pool).map_or(0, |known| known.1),
            what: format!("{} {what}", told.name),
        };
        let sheet = self.sheets.entry(pool.to_owned()).or_default();
        if is_broken(&moment) {
            sheet.broken.push(moment.clone());
        }
        sheet.moments.push(moment);
    }
}

fn of_pod(pod: &Pod, gone: bool) -> Result<News> {
    let uid = pod.uid().unwrap_or_default();
    if gone {
        return Ok(News::Gone(uid));
    }
    let text = pod.annotations().get(ANNOTATION_CHARGE).ok_or("no annotation")?;
    let parts = text.split(',').map(|part| {
        let (pool, slots) = part.split_once('=').ok_or("a part without a number")?;
        Ok((pool.to_owned(), slots.parse()?))
    });
    let taken = parts.collect::<Result<BTreeMap<String, u64>>>()?;
    Ok(News::Pod(uid, taken, pod.metadata.deletion_timestamp.is_some()))
}

fn of_pool(pool: &Pool, gone: bool) -> News {
    let slots = u64::try_from(pool.spec.slots).ok().filter(|_| !gone);
    let holders = pool.status.iter().flat_map(|status| &status.holders);
    let granted: u64 = holders
        .filter_map(|holder| u64::try_from(holder.granted).ok())
        .sum();
    News::Slots(pool.name_any(), slots, if gone { 0 } else { granted })
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
