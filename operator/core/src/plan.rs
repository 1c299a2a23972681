//! From a decision to the writes that carry it out.
//!
//! Compares what is wanted with what exists and lists the difference in an order that is safe to stop after any
//! step: planning again from whatever was reached ends in the same place, and planning what is reached is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_api::{ANNOTATION_FAILED_AT, ANNOTATION_PROVEN_AT, LABEL_REVISION};

use crate::charge::Charge;
use crate::decision::Decision;
use crate::objects::{
    DELETION_COST, DeploymentView, Objects, PodView, SetView, owned, revision_label, sets_of,
};
use crate::snapshot::{COST_RETURNED, Mark, PodInput, PoolInput};
use crate::time::Moment;

/// A paused Deployment is never judged by its progress; this keeps it so should somebody unpause it: ten years.
pub const PROGRESS_DEADLINE_SECONDS: i32 = 315_360_000;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the Deployment of a revision, with zero replicas.
    Create(Box<Deployment>),
    /// Write the fields of a Deployment that are ours, and no other: pauses it, and takes back what somebody edited.
    Settle(Box<Settle>),
    /// Write what is known of a revision on its Deployment.
    Annotate {
        /// The Deployment that was judged.
        seen: Arc<DeploymentView>,
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Set a pod's deletion cost.
    Mark {
        /// The pod.
        pod: String,
        /// Only this very object.
        uid: String,
        /// Only as it was seen: one that has begun anew, or that somebody else has marked, is judged anew.
        resource_version: String,
        /// The annotation.
        key: &'static str,
        /// Its value.
        cost: &'static str,
    },
    /// Write replicas through `/scale`, under the resourceVersion that was seen.
    Scale {
        /// Name of the Deployment.
        deployment: String,
        /// The number before.
        from: u32,
        /// The number after.
        to: u32,
        /// The Deployment that it was planned for.
        seen: Token,
        /// What each of its pods takes of Pools.
        charge: Arc<Charge>,
    },
    /// Delete a Deployment that has no pods.
    Delete {
        /// Its name.
        deployment: String,
        /// Only this very object.
        uid: String,
        /// Only as it was seen: one that has been raised meanwhile stays.
        resource_version: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(deployment) => {
                let name = deployment.metadata.name.as_deref().unwrap_or_default();
                write!(f, "create Deployment {name}")
            }
            Self::Settle(settle) => write!(f, "settle Deployment {}", settle.seen.name),
            Self::Annotate { seen, key, .. } => {
                write!(f, "annotate Deployment {} with {key}", seen.name)
            }
            Self::Mark { pod, cost, .. } => write!(f, "give pod {pod} the cost {cost}"),
            Self::Scale {
                deployment, from, to, ..
            } => write!(f, "scale Deployment {deployment} from {from} to {to}"),
            Self::Delete { deployment, .. } => write!(f, "delete Deployment {deployment}"),
        }
    }
}

impl Step {
    /// True if both write the same to the same object, whatever else has changed of that since, and whenever an annotation
    /// was thought of.
    #[must_use]
    pub fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Annotate { seen, key, .. },
                Self::Annotate {
                    seen: of, key: by, ..
                },
            ) => (&seen.uid, key) == (&of.uid, by),
            (
                Self::Mark { uid, cost, .. },
                Self::Mark {
                    uid: of, cost: by, ..
                },
            ) => (uid, cost) == (of, by),
            (Self::Settle(one), Self::Settle(other)) => one.repeats(other),
            (one, other) => one == other,
        }
    }
}

/// A Deployment as a raise read it. Written under its resourceVersion, the number fails once anything has changed; what
/// must not have changed is all the rest: status and labels may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `metadata.uid`.
    pub uid: String,
    /// Uid of the object that controls it: without one it is counted by its pods, and a release does not write to it.
    pub owner: Option<String>,
    /// `metadata.generation`: counts changes of the spec, the number of replicas among them.
    pub generation: Option<i64>,
    /// The annotation that changes before a grant is lowered.
    pub grant_epoch: Option<String>,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

impl Token {
    /// Of a Deployment as it was seen.
    #[must_use]
    pub fn of(deployment: &DeploymentView) -> Self {
        Self {
            uid: deployment.uid.clone(),
            owner: deployment.owner.clone(),
            generation: deployment.generation,
            grant_epoch: deployment.grant_epoch.clone(),
            resource_version: deployment.resource_version.clone(),
        }
    }

    /// True if `live` is the same in all that a raise relies on.
    #[must_use]
    pub fn holds(&self, live: &Self) -> bool {
        (&self.uid, &self.owner) == (&live.uid, &live.owner)
            && (self.generation, &self.grant_epoch) == (live.generation, &live.grant_epoch)
    }
}

/// Fields of a Deployment as they should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Settle {
    /// The Deployment that is to be settled.
    pub seen: Arc<DeploymentView>,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: i32,
    /// `metadata.labels`, all of them, if ours are not as they were.
    pub labels: Option<BTreeMap<String, String>>,
    /// `spec.template`, if it is not what its pods are made of.
    pub template: Option<PodTemplateSpec>,
}

impl Settle {
    /// True if nothing that this was made from has changed. Its replicas, its status and what is known of its revision are
    /// no part of it.
    #[must_use]
    pub fn holds(&self, live: &DeploymentView) -> bool {
        let of = |one: &DeploymentView| (one.paused, one.progress_deadline_seconds, one.deleting);
        let seen = &self.seen;
        (&seen.uid, &seen.labels, &seen.template) == (&live.uid, &live.labels, &live.template)
            && of(seen) == of(live)
    }

    fn repeats(&self, other: &Self) -> bool {
        let of = |one: &Self| (one.paused, one.progress_deadline_seconds);
        self.seen.uid == other.seen.uid
            && of(self) == of(other)
            && (&self.labels, &self.template) == (&other.labels, &other.template)
    }
}

/// True if what is known of a Deployment's revision is what was known when it was judged: it is proven once, or given up,
/// and never both.
#[must_use]
pub fn still_judged_so(seen: &DeploymentView, live: &DeploymentView) -> bool {
    (&seen.uid, seen.proven, seen.failed) == (&live.uid, live.proven, live.failed)
}

/// Marks that were written a moment ago. The watch may show them late, and some before others.
#[derive(Debug, Default)]
pub struct Written {
    marks: BTreeMap<String, (&'static str, Moment)>,
}

impl Written {
    /// Leaves out marks and numbers that were decided by `pods` which do not show all that was written less than `effect`
    /// ago: a pod that is counted as parked and takes work already would be replaced, and come on top.
    pub fn leave_out(&mut self, steps: &mut Vec<Step>, pods: &[PodInput], effect: Duration, now: Moment) {
        self.marks.retain(|_, (_, at)| now.since(*at) < effect);
        let is_unseen = |pod: &PodInput| {
            let shown = pod.mark.map_or(COST_RETURNED, Mark::cost);
            self.marks
                .get(pod.name.as_str())
                .is_some_and(|(last, _)| *last != shown)
        };
        if pods.iter().any(is_unseen) {
            steps.retain(|step| !matches!(step, Step::Mark { .. } | Step::Scale { .. }));
        }
    }

    /// A step was carried out.
    pub fn note(&mut self, step: &Step, now: Moment) {
        if let Step::Mark { pod, cost, .. } = step {
            self.marks.insert(pod.clone(), (*cost, now));
        }
    }
}

/// What tells one state of a Deployment's settled fields from another: its generation, which counts changes of the spec,
/// and its labels, which it does not count. And what was asked for: once its pods are of one template it is to be paused
/// again, although nothing else has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    generation: Option<i64>,
    labels: u64,
    paused: bool,
}

impl Stamp {
    /// Of a Deployment with this generation and these labels, which is to be paused or not.
    #[must_use]
    pub fn new(generation: Option<i64>, labels: &BTreeMap<String, String>, paused: bool) -> Self {
        let mut hasher = DefaultHasher::new();
        labels.hash(&mut hasher);
        Self {
            generation,
            labels: hasher.finish(),
            paused,
        }
    }
}

/// Lists the writes that lead from what exists to what was decided.
///
/// `settled` tells what a Deployment (by uid) was after our last [`Step::Settle`], so that a field which does not stay
/// as written (somebody's admission rewrites it) is fought once and not for ever.
#[must_use]
pub fn plan(
    wp: &WorkerPool,
    rendered: &Deployment,
    input: &PoolInput,
    objects: &Objects,
    decision: &Decision,
    settled: impl Fn(&str) -> Option<Stamp>,
    wall: Timestamp,
) -> Vec<Step> {
    if input.terminating {
        return Vec::new();
    }
    let deployments: Vec<&Arc<DeploymentView>> = owned(wp, objects).collect();
    let allocation = &decision.allocation;
    let mut steps = Vec::new();
    for (revisions, key) in [
        (&allocation.prove, ANNOTATION_PROVEN_AT),
        (&allocation.fail, ANNOTATION_FAILED_AT),
    ] {
        for deployment in deployments.iter().filter(|one| revisions.contains(&one.revision)) {
            steps.push(Step::Annotate {
                seen: Arc::clone(deployment),
                key,
                value: wall.to_string(),
            });
        }
    }
    if allocation.create {
        steps.push(Step::Create(Box::new(create(rendered, objects))));
    }
    let (mut repairs, mut edited) = (Vec::new(), BTreeSet::new());
    for deployment in &deployments {
        let fought = |wish: &Settle| {
            let now = Stamp::new(deployment.generation, &deployment.labels, wish.paused);
            settled(&deployment.uid) == Some(now)
        };
        let wish = settle(deployment, rendered, objects).filter(|wish| !fought(wish));
        repairs.extend(wish.map(|wish| Step::Settle(Box::new(wish))));
        if repairs
            .last()
            .is_some_and(|repair| repairs_template(repair, deployment))
        {
            edited.insert(deployment.uid.as_str());
        }
    }
    let scales = if input.conflict.is_none() {
        scales(&deployments, decision)
    } else {
        Vec::new()
    };
    let (mut raises, falls): (Vec<Step>, Vec<Step>) = scales.into_iter().partition(is_raise);
    // A repair changes the generation, and so undoes what a raise has read; one of a template must come first.
    raises.retain(|step| matches!(step, Step::Scale { seen, .. } if !edited.contains(seen.uid.as_str())));
    // Who comes back works sooner than who is made.
    let (back, marks): (Vec<Step>, Vec<Step>) = marks(decision, objects).partition(is_return);
    steps.extend(back);
    steps.extend(raises);
    steps.extend(repairs);
    steps.extend(marks);
    steps.extend(falls);
    let gone = |one: &DeploymentView| allocation.remove.contains(&one.revision) && !one.deleting;
    for deployment in deployments.iter().filter(|one| gone(one)) {
        steps.push(Step::Delete {
            deployment: deployment.name.clone(),
            uid: deployment.uid.clone(),
            resource_version: deployment.resource_version.clone(),
        });
    }
    steps
}

fn is_return(step: &Step) -> bool {
    matches!(step, Step::Mark { cost, .. } if *cost == COST_RETURNED)
}

fn is_raise(step: &Step) -> bool {
    matches!(step, Step::Scale { from, to, .. } if to > from)
}

fn repairs_template(step: &Step, deployment: &DeploymentView) -> bool {
    matches!(step, Step::Settle(settle) if settle.seen.uid == deployment.uid && settle.template.is_some())
}

/// A revision's Deployment, without pods; or, where somebody deleted it and left its `ReplicaSet`, with as many as that
/// has: the new one adopts it, and a smaller number, or another template, would end workers. It adds none, so it needs no
/// grant.
fn create(rendered: &Deployment, objects: &Objects) -> Deployment {
    let mut deployment = rendered.clone();
    let revision = revision_label(&rendered.metadata);
    let left = objects
        .sets
        .iter()
        .filter(|set| set.owner.is_none() && set.revision == revision);
    let left = left.max_by_key(|set| (set.replicas, &set.name));
    if let (Some(spec), Some(left)) = (&mut deployment.spec, left) {
        spec.replicas = i32::try_from(left.replicas).ok();
        if let Ok(template) = serde_json::from_str(&left.template) {
            spec.template = template;
        }
    }
    deployment
}

/// What must be written into a Deployment, if anything.
///
/// It is paused once its `ReplicaSet` exists: it scales on, and whatever somebody writes into its template has no
/// effect on pods. What its pods are made of is the template of its first `ReplicaSet`, whatever this version would
/// render. Where an edit came with `paused: false` and pods of another template exist, the controller takes them
/// back while it is not paused.
fn settle(deployment: &Arc<DeploymentView>, rendered: &Deployment, objects: &Objects) -> Option<Settle> {
    if deployment.deleting {
        return None;
    }
    let mut sets: Vec<&Arc<SetView>> = sets_of(deployment, &objects.sets).collect();
    sets.sort_by_key(|set| (set.created, &set.name));
    let original = sets.first().map(|set| &set.template);
    let edited = original.filter(|original| **original != deployment.template);
    let astray = sets
        .iter()
        .any(|set| set.replicas > 0 && Some(&set.template) != original);
    let paused = !sets.is_empty() && (!astray || edited.is_some());
    let mut ours = rendered.metadata.labels.clone().unwrap_or_default();
    ours.insert(LABEL_REVISION.to_owned(), deployment.revision.clone());
    let labels = ours
        .iter()
        .any(|(key, value)| deployment.labels.get(key) != Some(value))
        .then(|| deployment.labels.clone().into_iter().chain(ours).collect());
    let deadline = deployment.progress_deadline_seconds == Some(PROGRESS_DEADLINE_SECONDS) || sets.is_empty();
    if deployment.paused == paused && deadline && edited.is_none() && labels.is_none() {
        return None;
    }
    Some(Settle {
        seen: Arc::clone(deployment),
        paused,
        progress_deadline_seconds: PROGRESS_DEADLINE_SECONDS,
        labels,
        template: edited.and_then(|text| serde_json::from_str(text).ok()),
    })
}

fn marks(decision: &Decision, objects: &Objects) -> impl Iterator<Item = Step> {
    let marks = decision.parking.marks.iter();
    let mut pods: BTreeMap<&str, &PodView> = BTreeMap::new();
    if !decision.parking.marks.is_empty() {
        pods.extend(objects.pods.iter().map(|pod| (pod.name.as_str(), &**pod)));
    }
    marks.filter_map(move |(name, mark)| {
        let pod = pods.get(name.as_str())?;
        Some(Step::Mark {
            pod: name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            key: DELETION_COST,
            cost: mark.map_or(COST_RETURNED, Mark::cost),
        })
    })
}

fn scales(deployments: &[&Arc<DeploymentView>], decision: &Decision) -> Vec<Step> {
    let mut steps = Vec::new();
    for deployment in deployments.iter().filter(|one| !one.deleting) {
        let from = deployment.replicas;
        let wanted = decision.parking.replicas(&deployment.revision);
        if let Some(to) = wanted.filter(|to| *to != from) {
            steps.push(Step::Scale {
                deployment: deployment.name.clone(),
                from,
                to,
                seen: Token::of(deployment),
                charge: Arc::clone(&deployment.charge),
            });
        }
    }
    steps
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
