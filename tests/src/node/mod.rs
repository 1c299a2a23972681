//! A small node: it runs pods as processes of this machine.
//!
//! Scheduling, Deployments, ReplicaSets, deletion and the pod's life cycle are
//! Kubernetes' own; this part only does what a kubelet does for a worker:
//! resolve its environment, start it, report it, signal it and let it end.
//!
//! What it leaves out: volumes, probes, hooks, logs through the API, and
//! networks; the pod's address is the loopback address.

mod container;
mod env;
mod pod;
mod record;

pub use record::{Record, read_records};

use crate::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{self as core, Pod, Taint};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// How often the node says that it lives; the controllers doubt it after 40 s.
const LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// Requests in flight for pods without a process, of which there may be thousands.
const FAKE_REQUESTS: usize = 64;

/// The label and the taint of a node that one test has for itself.
pub const RESERVED: &str = "poolwright.test/reserved";

/// What an image name stands for on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A folder: its `bin` is first on the path, its `app` is the working folder.
    Folder(PathBuf),
    /// Nothing: the pod is ready at once, and gone at once when it is deleted.
    Fake,
}

impl Image {
    /// Reads `NAME=DIR` or `NAME=fake`.
    pub fn parse(text: &str) -> Result<(String, Self)> {
        let (name, folder) = text.split_once('=').ok_or("an image is NAME=DIR or NAME=fake")?;
        let image = if folder == "fake" {
            Self::Fake
        } else {
            Self::Folder(std::path::absolute(folder)?)
        };
        Ok((name.into(), image))
    }
}

/// What the node has and knows.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The Node's name.
    pub name: String,
    /// Allocatable processors, as a Kubernetes quantity.
    pub cpu: String,
    /// Allocatable memory, as a Kubernetes quantity.
    pub memory: String,
    /// How many pods it takes.
    pub pods: u32,
    /// `nvidia.com/gpu`; none when zero.
    pub gpus: u32,
    /// Labels of the Node beside its host name.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node.
    pub taints: Vec<Taint>,
    /// Images by name; any other name is an error to pull.
    pub images: BTreeMap<String, Image>,
    /// Takes every pod as one without a process.
    pub fake: bool,
    /// Folder with a log file for each container.
    pub logs: PathBuf,
    /// File to which each start, signal and exit is appended as a line of JSON.
    pub record: PathBuf,
    /// The first and the longest pause before a container is started again.
    pub backoff: (Duration, Duration),
}

impl NodeConfig {
    /// A node with room for everything that a test asks for, with its files in this folder.
    pub fn new(name: &str, dir: &Path) -> Self {
        Self {
            name: name.into(),
            cpu: "1000".into(),
            memory: "4Ti".into(),
            pods: 10_000,
            gpus: 0,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            images: BTreeMap::new(),
            fake: false,
            logs: dir.join("logs"),
            record: dir.join("record.jsonl"),
            backoff: (Duration::from_secs(1), Duration::from_secs(10)),
        }
    }

    /// Keeps the pods of other tests away: the plane is shared, and so is its
    /// scheduler. A pod that is meant for this node needs `tolerations` and
    /// `nodeSelector` of [`NodeConfig::placement`].
    #[must_use]
    pub fn reserved(mut self) -> Self {
        self.labels.insert(RESERVED.into(), self.name.clone());
        let value = Some(self.name.clone());
        self.taints.push(Taint {
            key: RESERVED.into(),
            value,
            effect: "NoSchedule".into(),
            time_added: None,
        });
        self
    }

    /// The two fields of a pod's specification that put it on this reserved node.
    pub fn placement(&self) -> Value {
        json!({
            "nodeSelector": {RESERVED: self.name},
            "tolerations": [{"key": RESERVED, "value": self.name, "effect": "NoSchedule"}],
        })
    }

    fn image(&self, name: Option<&String>) -> Option<&Image> {
        if self.fake {
            Some(&Image::Fake)
        } else {
            self.images.get(name?)
        }
    }
}

/// What every pod of the node shares.
pub(crate) struct Shared {
    client: Client,
    config: NodeConfig,
    recorder: record::Recorder,
    fake_requests: Semaphore,
}

/// Starts nodes.
#[derive(Clone, Copy, Debug)]
pub struct Node;

/// A running node. Dropping it kills its processes and leaves its Node object,
/// as a machine does that loses power.
pub struct NodeHandle {
    name: String,
    client: Client,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Registers the node and starts to run its pods.
    pub async fn start(client: Client, config: NodeConfig) -> Result<NodeHandle> {
        std::fs::create_dir_all(&config.logs)?;
        let recorder = record::Recorder::open(&config.record, &config.name)?;
        register(&client, &config).await?;
        renew_lease(&client, &config.name).await?;
        let name = config.name.clone();
        let shared = Arc::new(Shared {
            client: client.clone(),
            config,
            recorder,
            fake_requests: Semaphore::new(FAKE_REQUESTS),
        });
        let (lease_client, lease_name) = (client.clone(), name.clone());
        let lease = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LEASE_RENEWAL).await;
                if let Err(error) = renew_lease(&lease_client, &lease_name).await {
                    eprintln!("node {lease_name}: cannot renew its lease: {error}");
                }
            }
        });
        let pods = tokio::spawn(watch_pods(shared));
        Ok(NodeHandle {
            name,
            client,
            tasks: vec![lease, pods],
        })
    }
}

impl NodeHandle {
    /// The Node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs on until the caller drops this future.
    pub async fn run(mut self) {
        for task in &mut self.tasks {
            let _ = task.await;
        }
    }

    /// Loses power: all processes are killed, nothing is reported, the Node object stays.
    pub fn lose_power(self) {
        drop(self);
    }

    /// Loses power, and the Node object goes too, as when a cloud takes the machine away.
    pub async fn remove(self) -> Result<()> {
        let nodes: Api<core::Node> = Api::all(self.client.clone());
        let name = self.name.clone();
        drop(self);
        nodes.delete(&name, &DeleteParams::default()).await?;
        Ok(())
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        // Ending the watch drops each pod's sender, on which the pods' tasks kill and end.
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn register(client: &Client, config: &NodeConfig) -> Result<()> {
    let nodes: Api<core::Node> = Api::all(client.clone());
    let mut resources = json!({
        "cpu": config.cpu, "memory": config.memory, "pods": config.pods.to_string(),
        "ephemeral-storage": "1Ti",
    });
    if config.gpus > 0 {
        resources["nvidia.com/gpu"] = json!(config.gpus.to_string());
    }
    let mut labels = config.labels.clone();
    labels.insert("kubernetes.io/hostname".into(), config.name.clone());
    labels.insert("kubernetes.io/os".into(), "linux".into());
    let now = Timestamp::now();
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "LocalNode", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let status = json!({
        "capacity": resources, "allocatable": resources,
        "conditions": [condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False")],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": config.name}],
        "nodeInfo": {"architecture": "amd64", "bootID": "", "containerRuntimeVersion": "process://1",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.34.4", "machineID": "",
            "operatingSystem": "linux", "osImage": "", "systemUUID": ""},
    });
    let spec = json!({"taints": config.taints});
    let mut node: Value = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": config.name, "labels": labels}, "spec": spec, "status": status,
    });
    match nodes
        .create(&PostParams::default(), &serde_json::from_value(node.clone())?)
        .await
    {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        Err(error) => return Err(error.into()),
    }
    let parameters = PatchParams::default();
    nodes
        .patch_status(
            &config.name,
            &parameters,
            &Patch::Strategic(&json!({"status": status})),
        )
        .await?;
    node.as_object_mut()
        .ok_or("a Node is an object")?
        .remove("status");
    nodes
        .patch(&config.name, &parameters, &Patch::Merge(&node))
        .await?;
    Ok(())
}

async fn renew_lease(client: &Client, name: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40,
            "renewTime": format!("{:.6}", Timestamp::now())},
    });
    leases
        .patch(
            name,
            &PatchParams::apply("local-node").force(),
            &Patch::Apply(&lease),
        )
        .await?;
    Ok(())
}

/// Hands each pod's newest object to the task that runs it; dropping the
/// sender tells that task that the object is gone.
async fn watch_pods(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let selection = watcher::Config::default().fields(&format!("spec.nodeName={}", shared.config.name));
    let mut events = watcher(pods, selection).default_backoff().boxed();
    let mut known: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut listed: HashSet<String> = HashSet::new();
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                eprintln!("node {}: cannot watch pods: {error}", shared.config.name);
                continue;
            }
        };
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.clone());
                accept(&shared, &mut known, pod);
            }
            watcher::Event::InitDone => known.retain(|uid, _| listed.contains(uid)),
            watcher::Event::Apply(pod) => accept(&shared, &mut known, pod),
            watcher::Event::Delete(pod) => {
                if let Some(uid) = pod.metadata.uid {
                    known.remove(&uid);
                }
            }
        }
    }
}

fn accept(shared: &Arc<Shared>, known: &mut HashMap<String, watch::Sender<Arc<Pod>>>, pod: Pod) {
    let Some(uid) = pod.metadata.uid.clone() else {
        return;
    };
    let pod = Arc::new(pod);
    if let Some(sender) = known.get(&uid) {
        sender.send_replace(pod);
        return;
    }
    let (sender, receiver) = watch::channel(pod.clone());
    known.insert(uid, sender);
    tokio::spawn(pod::run(shared.clone(), pod, receiver));
}
