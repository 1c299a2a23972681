//! A cluster of one WorkerPool, as far as plans see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use poolwright_api::v1alpha1::WorkerPool;
use poolwright_api::{LABEL_REVISION, Reason};
use serde_json::json;

use crate::decision::Decision;
use crate::deployment::render;
use crate::objects::{DELETION_COST, DeploymentView, Objects, POD_TEMPLATE_HASH, PodView, SetView};
use crate::plan::{Step, plan, still_judged_so};
use crate::snapshot::{Mark, PoolInput};
use crate::testing;

/// What is wanted in the end.
pub(super) struct Want {
    pub(super) wp: WorkerPool,
    pub(super) rendered: Deployment,
    /// Replicas by revision.
    pub(super) targets: Vec<(String, u32)>,
    /// Revisions that should be proven, given up, removed once they have no pods.
    pub(super) prove: Vec<String>,
    pub(super) fail: Vec<String>,
    pub(super) remove: Vec<String>,
    pub(super) conflict: bool,
}

/// A cluster of one WorkerPool that does what it is told at once.
#[derive(Clone, Default)]
pub(super) struct Cluster {
    pub(super) deployments: Vec<Deployment>,
    pub(super) sets: Vec<ReplicaSet>,
    pub(super) pods: Vec<Pod>,
    pub(super) serial: i64,
}

fn wp(version: u32) -> WorkerPool {
    testing::wp(json!({"class": "Cpu", "worker": {"image": format!("registry.example/shop:{version}")}}))
}

pub(super) fn want(version: u32, replicas: u32) -> Want {
    let wp = wp(version);
    let rendered = render(&testing::pool(&wp), &wp);
    let name = revision_of(&rendered);
    Want {
        wp,
        rendered,
        targets: vec![(name.clone(), replicas)],
        prove: vec![name],
        fail: Vec::new(),
        remove: Vec::new(),
        conflict: false,
    }
}

fn running_status() -> serde_json::Value {
    let state = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    let worker = json!({"name": "worker", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state});
    json!({"phase": "Running", "containerStatuses": [worker]})
}

pub(super) fn revision_of(deployment: &Deployment) -> String {
    DeploymentView::from(deployment.clone()).revision
}

pub(super) fn wall() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl Cluster {
    fn next(&mut self) -> i64 {
        self.serial += 1;
        self.serial
    }

    /// What is kept of its objects.
    pub(super) fn objects(&self) -> Objects {
        let view = |one: &Deployment| Arc::new(DeploymentView::from(one.clone()));
        Objects {
            deployments: self.deployments.iter().map(view).collect(),
            sets: self
                .sets
                .iter()
                .map(|one| Arc::new(SetView::from(one.clone())))
                .collect(),
            pods: self
                .pods
                .iter()
                .map(|one| Arc::new(PodView::from(one.clone())))
                .collect(),
        }
    }

    pub(super) fn input(&self, want: &Want) -> PoolInput {
        testing::observed(&want.wp, &self.objects(), want.conflict.then_some("an HPA"))
    }

    /// What a decision would be that wants `want` of what is here.
    pub(super) fn decide(&self, want: &Want) -> Decision {
        let input = self.input(want);
        let of = |name: &str| input.revisions.iter().find(|one| *one.name == *name);
        let mut decision = testing::decision(0, 0, Reason::AsDesired);
        let allocation = &mut decision.allocation;
        allocation.create = of(&input.revision).is_none();
        let targets = want.targets.iter();
        allocation.targets = targets
            .map(|(name, target)| (name.as_str().into(), *target))
            .collect();
        let kept = |names: &[String], keep: &dyn Fn(&str) -> bool| -> Vec<String> {
            names.iter().filter(|name| keep(name)).cloned().collect()
        };
        allocation.prove = kept(&want.prove, &|name| {
            of(name).is_some_and(|one| one.proven.is_none())
        });
        allocation.fail = kept(&want.fail, &|name| of(name).is_some_and(|one| !one.failed));
        let empty = |name: &str| !input.pods.iter().any(|pod| *pod.revision == *name);
        allocation.remove = kept(&want.remove, &|name| {
            empty(name) && of(name).is_some_and(|one| one.replicas == 0)
        });
        for (name, target) in want.targets.iter().filter(|_| !want.conflict) {
            let replicas = of(name).map_or(0, |one| one.replicas);
            let mut pods: Vec<_> = input.staying().filter(|pod| *pod.revision == **name).collect();
            pods.sort_by_key(|pod| (pod.mark.is_none(), pod.name.clone()));
            pods.truncate(replicas.saturating_sub(*target) as usize);
            let unmarked = pods.iter().filter(|pod| pod.mark.is_none());
            let marks: Vec<_> = unmarked
                .map(|pod| (pod.name.to_string(), Some(Mark::Empty)))
                .collect();
            let left = if marks.is_empty() {
                *target
            } else {
                replicas.max(*target)
            };
            decision.parking.marks.extend(marks);
            decision.parking.replicas.push((name.as_str().into(), left));
        }
        decision
    }

    pub(super) fn plan(&self, want: &Want) -> Vec<Step> {
        let (input, decision) = (self.input(want), self.decide(want));
        plan(
            &want.wp,
            &want.rendered,
            &input,
            &self.objects(),
            &decision,
            |_| None,
            wall(),
        )
    }

    pub(super) fn deployment(&mut self, name: &str) -> &mut Deployment {
        let mut all = self.deployments.iter_mut();
        all.find(|one| one.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    /// Carries out a step, and lets the controllers do their part.
    pub(super) fn run(&mut self, step: &Step) {
        match step {
            Step::Create(deployment) => self.create(deployment),
            Step::Settle(settle) => {
                let deployment = self.deployment(&settle.seen.name);
                assert!(settle.holds(&deployment.clone().into()));
                let spec = deployment.spec.as_mut().unwrap();
                spec.paused = Some(settle.paused);
                spec.progress_deadline_seconds = Some(settle.progress_deadline_seconds);
                if let Some(template) = &settle.template {
                    spec.template = template.clone();
                }
                if let Some(labels) = &settle.labels {
                    deployment.metadata.labels = Some(labels.clone());
                }
            }
            Step::Annotate { seen, key, value } => {
                let deployment = self.deployment(&seen.name);
                assert!(still_judged_so(seen, &deployment.clone().into()));
                let metadata = &mut deployment.metadata;
                metadata
                    .annotations
                    .get_or_insert_default()
                    .insert((*key).to_owned(), value.clone());
            }
            Step::Mark {
                pod, uid, key, cost, ..
            } => {
                let mut pods = self.pods.iter_mut();
                let pod = pods.find(|one| one.metadata.name.as_ref() == Some(pod)).unwrap();
                assert_eq!(pod.metadata.uid.as_ref(), Some(uid));
                let annotations = pod.metadata.annotations.get_or_insert_default();
                annotations.insert((*key).to_owned(), (*cost).to_owned());
            }
            Step::Scale {
                deployment, from, to, ..
            } => {
                let spec = self.deployment(deployment).spec.as_mut().unwrap();
                assert_eq!(spec.replicas, i32::try_from(*from).ok());
                spec.replicas = i32::try_from(*to).ok();
                let revision = revision_of(self.deployment(deployment));
                self.replicate(&revision, *to as usize);
            }
            Step::Delete { deployment, .. } => {
                let revision = revision_of(self.deployment(deployment));
                let lives = |labels: Option<&BTreeMap<String, String>>| {
                    labels.and_then(|labels| labels.get(LABEL_REVISION)) != Some(&revision)
                };
                assert!(self.pods.iter().all(|pod| lives(pod.metadata.labels.as_ref())));
                self.sets.retain(|set| lives(set.metadata.labels.as_ref()));
                self.deployments
                    .retain(|one| one.metadata.name.as_ref() != Some(deployment));
            }
        }
    }

    fn create(&mut self, deployment: &Deployment) {
        let serial = self.next();
        let mut deployment = deployment.clone();
        assert_eq!(deployment.spec.as_ref().unwrap().replicas, Some(0));
        let taken = |one: &Deployment| one.metadata.name == deployment.metadata.name;
        assert!(!self.deployments.iter().any(taken));
        deployment.metadata.uid = Some(format!("d-{serial}"));
        deployment.metadata.generation = Some(serial);
        self.sets.push(set_of(&deployment, serial, 0));
        self.deployments.push(deployment);
    }

    /// Pods go in the order of their marks.
    fn replicate(&mut self, revision: &str, count: usize) {
        let labels: BTreeMap<String, String> = [(LABEL_REVISION.to_owned(), revision.to_owned())].into();
        let mine = |pod: &Pod| pod.metadata.labels.as_ref() == Some(&labels);
        let (mut own, others): (Vec<_>, Vec<_>) = self.pods.drain(..).partition(mine);
        own.sort_by_key(|pod| {
            pod.metadata
                .annotations
                .as_ref()
                .is_some_and(|all| all.contains_key(DELETION_COST))
        });
        own.truncate(count);
        while own.len() < count {
            let name = Some(format!("{revision}-{}", self.next()));
            let metadata = ObjectMeta {
                name: name.clone(),
                uid: name,
                labels: Some(labels.clone()),
                owner_references: Some(vec![controller("a set".to_owned())]),
                ..ObjectMeta::default()
            };
            own.push(Pod {
                metadata,
                status: Some(serde_json::from_value(running_status()).unwrap()),
                ..Pod::default()
            });
        }
        self.pods = others.into_iter().chain(own).collect();
    }

    /// Plans and carries out until nothing is left to do.
    pub(super) fn settle(&mut self, want: &Want) {
        for _ in 0..20 {
            let steps = self.plan(want);
            if steps.is_empty() {
                return;
            }
            for step in &steps {
                self.run(step);
            }
        }
        panic!("it does not come to an end: {:?}", self.plan(want));
    }

    /// What it comes down to: replicas, pause, proof and template of each Deployment.
    pub(super) fn outcome(&self) -> BTreeSet<String> {
        let one = |one: &Deployment| {
            let (spec, name) = (one.spec.as_ref().unwrap(), one.metadata.name.clone());
            let keys: Vec<_> = one
                .metadata
                .annotations
                .iter()
                .flatten()
                .map(|(key, _)| key)
                .collect();
            format!(
                "{name:?} {:?} {:?} {keys:?} {:?}",
                spec.replicas, spec.paused, spec.template
            )
        };
        self.deployments.iter().map(one).collect()
    }

    /// Wherever it stops, planning from there leads to the same end.
    pub(super) fn settles_from_anywhere(&self, want: &Want) -> Cluster {
        let mut whole = self.clone();
        whole.settle(want);
        assert!(whole.plan(want).is_empty());
        let mut here = self.clone();
        for _ in 0..20 {
            for done in 0..here.plan(want).len() {
                let mut part = here.clone();
                here.plan(want).iter().take(done).for_each(|step| part.run(step));
                part.settle(want);
                assert_eq!(part.outcome(), whole.outcome(), "after {done} steps");
            }
            here.plan(want).iter().for_each(|step| here.run(step));
        }
        whole
    }
}

fn controller(uid: String) -> OwnerReference {
    OwnerReference {
        uid,
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// As a Deployment's controller makes it.
pub(super) fn set_of(deployment: &Deployment, serial: i64, replicas: i32) -> ReplicaSet {
    let spec = deployment.spec.as_ref().unwrap();
    let mut template = spec.template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), format!("hash{serial}"));
    let owner = controller(deployment.metadata.uid.clone().unwrap());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{serial}", deployment.metadata.name.as_ref().unwrap())),
            creation_timestamp: Timestamp::from_second(serial).ok().map(Time),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            template: Some(template),
            ..ReplicaSetSpec::default()
        }),
        status: None,
    }
}
