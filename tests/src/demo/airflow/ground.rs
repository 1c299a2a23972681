//! What the demo plays on: a control plane with three nodes, a real Airflow, and the example made smaller.

use super::say;
use crate::node::{Image, Node, NodeConfig, NodeHandle};
use crate::{
    Airflow, Plane, PlaneConfig, Result, Stage, airflow, apply_crds, apply_policies, apply_rights, stage,
};
use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// The files of the example.
const EXAMPLE: [&str; 4] = [
    include_str!("../../../../deploy/examples/airflow/secrets.yaml"),
    include_str!("../../../../deploy/examples/airflow/pools.yaml"),
    include_str!("../../../../deploy/examples/airflow/queues.yaml"),
    include_str!("../../../../deploy/examples/airflow/workers.yaml"),
];
/// The version that is shown.
const MAJOR: u32 = 3;
/// GPUs of the node that has some; nothing is behind them.
const GPUS: u32 = 2;
/// Airflow has at most 32 tasks active at a time unless told otherwise: fewer than the pools let through.
const SETTINGS: [(&str, &str); 1] = [("CORE__PARALLELISM", "200")];

/// All that runs. It ends in this order: workers must go before what they report to.
pub struct Ground {
    /// The namespace and its operator.
    pub stage: Stage,
    _nodes: Vec<NodeHandle>,
    /// The Airflow.
    pub airflow: Airflow,
}

impl Ground {
    /// Starts all of it.
    pub async fn set(began: Instant) -> Result<Self> {
        // Its databases are made while the control plane starts.
        let airflow = tokio::spawn(Airflow::with(MAJOR, &SETTINGS));
        let plane = plane().await?;
        say(began, "a Kubernetes control plane runs");
        let airflow = airflow.await??;
        say(
            began,
            "PostgreSQL, Redis and Airflow's API server, DAG processor and scheduler run",
        );
        let stage = Stage::on(plane, &plane.operator_kubeconfig(), "airflow-demo", &[]).await?;
        let label = "pod-security.kubernetes.io/enforce=restricted";
        let namespace = stage.namespace.name.as_str();
        stage
            .kubectl()?
            .run(["label", "namespace", namespace, label])
            .await?;
        let mut nodes = Vec::new();
        for config in nodes_of(plane, &stage, &airflow.folder) {
            nodes.push(Node::start(plane.node_client().await?, config).await?);
        }
        say(began, "three nodes and the operator run");
        Ok(Self {
            stage,
            _nodes: nodes,
            airflow,
        })
    }

    /// Applies the example, with this Airflow in its Secrets, and as small as this machine.
    pub async fn apply_example(&self) -> Result<()> {
        let database = self.airflow.reader_url()? + "?sslmode=disable";
        for mut object in objects()? {
            match object["kind"].as_str() {
                Some("Secret") => {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    object["stringData"] = secret(&self.airflow, name, &database)?;
                }
                Some("WorkerPool") => {
                    shrink(&mut object)?;
                    let worker = &mut object["spec"]["worker"];
                    worker["image"] = json!(airflow::image(MAJOR));
                    worker["env"] = json!([self.airflow.worker_home()]);
                }
                Some("Pool") if object["metadata"]["name"] == "gpus" => {
                    object["spec"]["slots"] = json!(GPUS);
                }
                _ => {}
            }
            self.stage.kubectl()?.apply(&object.to_string()).await?;
        }
        Ok(())
    }
}

/// A control plane for this process, whose nodes are the demo's own.
async fn plane() -> Result<&'static Plane> {
    // A stage wants one that stays. Its processes end with this one, and its folder goes when the next one is made.
    let plane: &'static Plane = Box::leak(Box::new(Plane::start(PlaneConfig::default()).await?));
    apply_crds(plane).await?;
    apply_policies(plane).await?;
    apply_rights(plane).await?;
    Ok(plane)
}

/// A node for each kind of workers, labelled and tainted as the example has it.
fn nodes_of(plane: &Plane, stage: &Stage, folder: &Path) -> [NodeConfig; 3] {
    let node = |name: &str, label: Option<(&str, &str)>, taint: Option<(&str, &str)>| {
        let mut config = NodeConfig::new(name, &stage.dir.path().join(name));
        config.record = plane.record();
        let image = Image::Folder(folder.to_owned());
        config.images.insert(airflow::image(MAJOR), image);
        config
            .labels
            .extend(label.map(|(key, value)| (key.to_owned(), value.to_owned())));
        config.taints.extend(taint.map(|(key, value)| Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        }));
        config
    };
    let memory = ("workload", "high-memory");
    let mut gpu = node(
        "gpu",
        Some(("accelerator", "nvidia")),
        Some(("nvidia.com/gpu", "present")),
    );
    gpu.gpus = GPUS;
    [
        node("plain", None, None),
        node("memory", Some(memory), Some(memory)),
        gpu,
    ]
}

fn objects() -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for file in EXAMPLE {
        all.extend(serde_saphyr::from_multiple::<Value>(file)?);
    }
    Ok(all)
}

/// What one of the example's Secrets holds here.
fn secret(airflow: &Airflow, name: &str, database: &str) -> Result<Value> {
    let (username, password) = airflow::ADMIN;
    match name {
        "airflow-broker" => Ok(json!({"url": airflow.redis.url(0)})),
        "airflow-api" => Ok(json!({
            "url": airflow.api, "username": username, "password": password, "databaseUrl": database,
        })),
        "airflow-worker" => Ok(json!(airflow.variables())),
        other => Err(format!("the example has a Secret {other}, and nobody says what it holds here").into()),
    }
}

/// A WorkerPool with a few slots and workers, so that scaling is seen and a small machine bears it.
fn shrink(object: &mut Value) -> Result<()> {
    let (slots, most) = match object["metadata"]["name"].as_str() {
        Some("default") => (4, 3),
        Some("high-memory") => (2, 2),
        Some("gpu") => (1, GPUS),
        other => {
            return Err(
                format!("the example has a WorkerPool {other:?}, and nobody says its size here").into(),
            );
        }
    };
    // Tasks come all at a time, and seconds count; workers on one machine would all serve logs on one port.
    let patch = json!({
        "airflow": {"concurrency": slots, "extraArgs": ["--skip-serve-logs"]},
        "scaling": {"maxReplicas": most, "policy": "Backlog", "scaleDownDelaySeconds": 10},
    });
    stage::merge(&mut object["spec"], patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{KINDS, POOLS};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_example_is_what_is_shown() {
        let objects = objects().unwrap();
        let named = |kind: &str, which: fn(&Value) -> bool| {
            let own = objects
                .iter()
                .filter(|object| object["kind"] == kind && which(object));
            own.filter_map(|object| object["metadata"]["name"].as_str())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(named("WorkerPool", |_| true), KINDS.into());
        assert_eq!(named("TaskQueue", |_| true), KINDS.into());
        let linked = |object: &Value| object["spec"]["airflow"].is_object();
        assert_eq!(named("Pool", linked), POOLS.into());
        for mut object in objects {
            if object["kind"] == "WorkerPool" {
                shrink(&mut object).unwrap();
            }
        }
    }
}
