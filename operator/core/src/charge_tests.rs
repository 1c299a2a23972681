use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use poolwright_api::{ANNOTATION_CHARGE, ANNOTATION_HOLDER, LABEL_REVISION};
use serde_json::{Value, json};

use super::*;
use crate::objects::{DeploymentView, SetView};
use crate::testing;

const OWN: &str = "u-2";
const PREDECESSOR: &str = "u-1";

fn of(charge: &str, holder: &str) -> Value {
    match charge {
        "" => json!({}),
        _ => json!({ANNOTATION_CHARGE: charge, ANNOTATION_HOLDER: holder}),
    }
}

fn template(annotations: &Value) -> Value {
    json!({
        "metadata": {"annotations": annotations, "labels": {LABEL_REVISION: "r"}},
        "spec": {"containers": [{"name": "worker", "args": ["worker", "-c", "4"]}]},
    })
}

/// A Deployment of the revision `r` that `OWN` controls.
fn deployment(replicas: u32, annotations: &Value) -> Arc<DeploymentView> {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "r", "uid": "d", "ownerReferences": [
            {"apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "name": "w", "uid": OWN, "controller": true},
        ]},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {LABEL_REVISION: "r"}},
            "template": template(annotations),
        },
    }))
    .expect("a Deployment");
    Arc::new(deployment.into())
}

fn set(replicas: u32, annotations: &Value) -> Arc<SetView> {
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": "r-1", "labels": {LABEL_REVISION: "r"}},
        "spec": {"replicas": replicas, "selector": {}, "template": template(annotations)},
    }))
    .expect("a ReplicaSet");
    Arc::new(set.into())
}

fn pods(count: usize, annotations: &Value) -> Vec<Arc<PodView>> {
    let mut pod = template(annotations);
    pod["metadata"]["name"] = json!("r-1-a");
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    std::iter::repeat_n(Arc::new(pod.into()), count).collect()
}

fn draining(count: usize, annotations: &Value) -> Vec<Arc<PodView>> {
    let drain = |mut pod: Arc<PodView>| {
        Arc::make_mut(&mut pod).draining = true;
        pod
    };
    pods(count, annotations).into_iter().map(drain).collect()
}

fn objects(asked: Option<u32>, made: Option<u32>, pods: Vec<Arc<PodView>>) -> Objects {
    let own = of("gpu=4", OWN);
    Objects {
        deployments: asked
            .map(|replicas| deployment(replicas, &own))
            .into_iter()
            .collect(),
        sets: made.map(|replicas| set(replicas, &own)).into_iter().collect(),
        pods,
    }
}

/// What each holder takes of `pool`.
fn at(objects: &Objects, pool: &str) -> Vec<(String, u64)> {
    let all = taken(objects, |_| false);
    let slots = |slots: Slots| slots.get(pool).copied().unwrap_or(0);
    all.into_iter()
        .map(|(holder, taken)| (holder, slots(taken)))
        .collect()
}

fn holding(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter()
        .map(|(holder, slots)| ((*holder).to_owned(), *slots))
        .collect()
}

#[test]
fn the_most_of_deployment_sets_and_pods_counts() {
    let own = of("gpu=4", OWN);
    for (asked, made, staying, expected) in [(3, 1, 2, 3), (1, 3, 2, 3), (1, 2, 3, 3), (2, 2, 2, 2)] {
        let all = objects(Some(asked), Some(made), pods(staying, &own));
        assert_eq!(at(&all, "gpu"), holding(&[(OWN, 4 * expected)]));
    }
    assert_eq!(at(&objects(Some(0), Some(0), Vec::new()), "gpu"), []);
}

#[test]
fn pods_on_their_way_out_come_on_top() {
    let own = of("gpu=4", OWN);
    let all = [pods(2, &own), draining(3, &own)].concat();
    assert_eq!(at(&objects(Some(2), Some(2), all), "gpu"), holding(&[(OWN, 20)]));
}

#[test]
fn a_set_without_its_deployment_still_counts() {
    assert_eq!(
        at(&objects(None, Some(3), Vec::new()), "gpu"),
        holding(&[(OWN, 12)])
    );
}

#[test]
fn what_a_predecessor_left_is_its_own() {
    let old = of("gpu=4", PREDECESSOR);
    let mut all = objects(Some(2), Some(1), [pods(3, &old), draining(1, &old)].concat());
    assert_eq!(at(&all, "gpu"), holding(&[(PREDECESSOR, 16), (OWN, 8)]));
    all.sets.push(set(5, &old));
    assert_eq!(at(&all, "gpu"), holding(&[(PREDECESSOR, 24), (OWN, 8)]));
}

#[test]
fn a_pod_that_does_not_say_whose_it_is_is_the_deployments_owners() {
    let unsaid = of("", "");
    let mut all = Objects {
        deployments: vec![deployment(1, &unsaid)],
        sets: vec![set(1, &unsaid)],
        pods: [pods(2, &unsaid), draining(1, &unsaid)].concat(),
    };
    assert_eq!(at(&all, DEFAULT_POOL), holding(&[(OWN, 12)]));
    all.deployments.clear();
    assert_eq!(at(&all, DEFAULT_POOL), holding(&[(NOBODY, 12)]));
}

#[test]
fn lost_and_ended_pods_are_left_out() {
    let own = of("gpu=4", OWN);
    let mut all = [pods(2, &own), draining(2, &own)].concat();
    Arc::make_mut(&mut all[0]).ended = true;
    Arc::make_mut(&mut all[2]).ended = true;
    let all = objects(None, None, all);
    assert_eq!(at(&all, "gpu"), holding(&[(OWN, 8)]));
    assert_eq!(
        taken(&all, |pod| pod.draining),
        [(OWN.to_owned(), [("gpu".to_owned(), 4)].into())].into()
    );
    assert_eq!(taken(&all, |_| true), BTreeMap::new());
}

#[test]
fn a_charge_is_read_as_it_is_written() {
    let charge = Charge {
        holder: OWN.to_owned(),
        slots: [("default-pool".to_owned(), 8), ("gpu".to_owned(), 16)].into(),
    };
    assert_eq!(charge.to_string(), "default-pool=8,gpu=16");
    assert_eq!(Charge::read(&charge.to_string(), Some(OWN)), Some(charge));
    assert_eq!(
        Charge::read("gpu=1", None).map(|charge| charge.holder),
        Some(String::new())
    );
    for wrong in [
        "",
        "gpu",
        "gpu=",
        "gpu=0",
        "gpu=-1",
        "gpu=1,",
        "gpu=1.5",
        "gpu=1;a=2",
    ] {
        assert_eq!(Charge::read(wrong, None), None, "{wrong:?}");
    }
}

#[test]
fn a_pod_from_before_takes_its_concurrency_of_the_default_pool() {
    let charge = Charge::unwritten(8);
    assert_eq!((charge.at(DEFAULT_POOL), charge.at("gpu")), (8, 0));
    assert!(charge.is_default(8) && charge.holder.is_empty());
    assert!(!charge.is_default(4));
    assert_eq!(Charge::unwritten(0).at(DEFAULT_POOL), 1);
}

#[test]
fn a_worker_takes_the_most_of_its_queues_of_each_pool() {
    let pool = testing::pool(&testing::wp(json!({"celery": {"concurrency": 4}})));
    assert!(Charge::of(&pool).is_default(4));
    let mut pool = pool;
    pool.queues[0].slots_per_task = 3;
    assert_eq!(Charge::of(&pool).at(DEFAULT_POOL), 12);
    assert!(!Charge::of(&pool).is_default(4));
    pool.queues[0].pool = "gpu".to_owned();
    let charge = Charge::of(&pool);
    assert_eq!(
        (charge.at(DEFAULT_POOL), charge.at("gpu"), &*charge.holder),
        (4, 12, "u-1")
    );
}
