//! Where the demo plays: a control plane, a node and Redis of its own, or the cluster of the kubeconfig.

use super::Options;
use super::load::{TRACE, Trace};
use crate::brokers::{Redis, RedisConfig};
use crate::{
    CELERY_IMAGE, Celery, Node, NodeHandle, Operator, Plane, PlaneConfig, Result, apply_policies,
    apply_rights, leaks, plane, process, read_records, wait_until,
};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    ValidationDirective,
};

use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use poolwright_api::v1alpha1::WorkerPool;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The namespace of the demo.
pub const NAMESPACE: &str = "poolwright-demo";
/// The manifest that the demo applies.
const FLEET: &str = include_str!("../../../deploy/examples/fleet.yaml");
/// What the API server is to refuse beyond the definitions.
const POLICY: &str = include_str!("../../../deploy/policies/default-pool.yaml");
/// Pods whose workers need not finish are gone in no time.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// Field manager of what is applied, as `kubectl apply --server-side` has it.
const MANAGER: &str = "poolwright-demo";

/// Everything that the demo needs, running.
pub struct Place {
    /// The workers' environment; the publisher runs in it too.
    pub celery: Celery,
    /// The broker's address.
    pub broker: String,
    image: String,
    client: Client,
    kubeconfig: PathBuf,
    // In the order in which they have to end.
    operator: Operator,
    _node: Option<NodeHandle>,
    _redis: Option<Redis>,
    plane: Option<Plane>,
    _dir: TempDir,
}

impl Place {
    /// Starts what is missing, and applies the resource definitions and what guards their objects.
    pub async fn set(options: &Options) -> Result<Self> {
        let began = Instant::now();
        let celery = Celery::locate()?;
        let dir = process::temp_dir("demo")?;
        let (mut node, mut redis, mut plane) = (None, None, None);
        let (client, kubeconfig, broker, image);
        if options.current {
            broker = options.broker.clone().ok_or(NEEDS)?;
            image = options.image.clone().ok_or(NEEDS)?;
            process::install_crypto();
            kubeconfig = current_kubeconfig()?;
            client = Client::try_default()
                .await
                .map_err(|error| format!("there is no cluster to use: {error}"))?;
        } else {
            let (own_plane, own_redis) = tokio::try_join!(
                Plane::start(PlaneConfig::default()),
                Redis::start(RedisConfig::default())
            )?;
            node = Some(Node::start(own_plane.node_client().await?, own_plane.usual_node()?).await?);
            (client, kubeconfig) = (own_plane.client().await?, own_plane.kubeconfig());
            (broker, image) = (own_redis.url(0), CELERY_IMAGE.to_owned());
            (plane, redis) = (Some(own_plane), Some(own_redis));
            say(began, "a Kubernetes control plane, a node and Redis run");
        }
        Trace::clear(&broker)
            .await
            .map_err(|error| format!("Redis at {broker} cannot be used: {error}"))?;
        apply_definitions(&client).await?;
        let account = if let Some(plane) = &plane {
            // No more than an installed one has.
            apply_policies(plane).await?;
            apply_rights(plane).await?;
            plane.operator_kubeconfig()
        } else {
            apply_policy(&client).await?;
            kubeconfig.clone()
        };
        apply_namespace(&client).await?;
        let operator = Operator::start(&account, NAMESPACE, dir.path(), &[]).await?;
        say(
            began,
            "the resource definitions are applied and the operator runs",
        );
        Ok(Self {
            celery,
            broker,
            image,
            client,
            kubeconfig,
            operator,
            _node: node,
            _redis: redis,
            plane,
            _dir: dir,
        })
    }

    /// A typed API in the demo's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Applies the fleet with this place's broker and image in it.
    pub async fn apply_fleet(&self) -> Result<()> {
        for mut object in fleet(&self.broker, &self.image)? {
            if self.plane.is_none() {
                // Its tasks only sleep, and a small cluster is enough to see them do it.
                if let Some(worker) = object["spec"].get_mut("worker").and_then(Value::as_object_mut) {
                    worker.remove("resources");
                }
            }
            let kind = object["kind"].as_str().unwrap_or_default();
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
                poolwright_api::GROUP,
                poolwright_api::VERSION,
                kind,
            ));
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &resource);
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            api.patch(name, &apply(), &Patch::Apply(&object))
                .await
                .map_err(|error| format!("{kind} {name}: {error}"))?;
        }
        Ok(())
    }

    /// Workers that the node had to kill. Another node's kills show as tasks that began and never ended.
    pub fn killed_workers(&self) -> Result<usize> {
        let Some(plane) = &self.plane else { return Ok(0) };
        Ok(read_records(&plane.record())?
            .iter()
            .filter(|record| record.killed)
            .count())
    }

    /// Says how to look at a fleet that is left running.
    pub fn say_how_to_look(&self) {
        let (python, app) = (self.celery.dir.join("bin/python"), self.celery.dir.join("app"));
        say_how_to_look(
            &self.kubeconfig,
            self.plane.is_some(),
            &self.operator,
            NAMESPACE,
            "cpu",
        );
        println!(
            "  (cd {} && CELERY_BROKER_URL={} {} publish.py --queue cpu_ml_training --count 50 --seconds 5)\n",
            app.display(),
            self.broker,
            python.display()
        );
    }

    /// Removes the demo from a cluster that is not its own; the definitions and their policy stay.
    ///
    /// Workers go first, whatever they run: a namespace in which pods may take hours to end is not looked at again for as
    /// long by Kubernetes, and until then there could be no other demo. Their tasks only sleep.
    pub async fn leave(&self) -> Result<()> {
        if let Some(plane) = &self.plane {
            return leaks::look_through(plane).await;
        }
        let pools: Api<WorkerPool> = self.api();
        let everything = ListParams::default();
        pools
            .delete_collection(&DeleteParams::background(), &everything)
            .await?;
        let pods: Api<Pod> = self.api();
        wait_until("the demo's workers to be gone", LEAVE_LIMIT, || async {
            let at_once = DeleteParams::default().grace_period(0);
            pods.delete_collection(&at_once, &everything).await?;
            Ok(pods.list(&everything).await?.items.is_empty())
        })
        .await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
        Ok(())
    }
}

const NEEDS: &str = "CLUSTER=current needs DEMO_BROKER_URL, a redis:// address without a password that this machine \
    and the cluster's pods both reach, and DEMO_IMAGE, an image made from tests/celery/Dockerfile that the cluster can pull";

/// The commands that show what is left running in a cluster, which may be the demo's own.
pub(super) fn say_how_to_look(
    kubeconfig: &Path,
    own: bool,
    operator: &Operator,
    namespace: &str,
    worker_pool: &str,
) {
    println!("It runs on until Ctrl-C. In another terminal:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    if let (true, Ok(binary)) = (own, plane::binary()) {
        println!(
            "  alias kubectl='{} kubectl'   # where there is no kubectl",
            binary.display()
        );
    }
    if let Some(address) = operator.http() {
        println!("  curl http://{address}/metrics");
        println!(
            "  curl -X PUT -d info,poolwright=debug http://{address}/log-level   # without -X and -d: what is in force"
        );
    }
    println!("  tail -f {}", operator.log_file().display());
    println!("  kubectl config set-context --current --namespace {namespace}");
    println!("  kubectl get workerpools --watch");
    println!("  target/debug/poolwright explain wp/{worker_pool}");
}

pub(super) fn say(began: Instant, what: &str) {
    println!("{:5.1} s  {what}", began.elapsed().as_secs_f32());
}

fn current_kubeconfig() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("KUBECONFIG") {
        return Ok(named.into());
    }
    let home = std::env::var_os("HOME").ok_or("neither KUBECONFIG nor HOME is set")?;
    Ok(Path::new(&home).join(".kube/config"))
}

/// Server-side apply that refuses what the definitions do not know.
fn apply() -> PatchParams {
    PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER).force()
    }
}

async fn apply_definitions(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, definition) in poolwright_api::crds() {
        let name = definition.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &apply(), &Patch::Apply(&definition)).await?;
        let established = await_condition(api.clone(), &name, is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await??;
    }
    Ok(())
}

async fn apply_policy(client: &Client) -> Result<()> {
    for object in serde_saphyr::from_multiple::<Value>(POLICY)? {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object
            .types
            .as_ref()
            .ok_or("an object of the policy has no kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let name = object.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &apply(), &Patch::Apply(&object)).await?;
    }
    Ok(())
}

async fn apply_namespace(client: &Client) -> Result<()> {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels},
    });
    let found = Api::<Namespace>::all(client.clone())
        .patch(NAMESPACE, &apply(), &Patch::Apply(&namespace))
        .await?;
    match found.metadata.deletion_timestamp {
        None => Ok(()),
        Some(_) => {
            Err(format!("the namespace {NAMESPACE} is being deleted; try again when it is gone").into())
        }
    }
}

/// The objects of the example with another broker, another image, and the variable by which tasks leave a trace.
fn fleet(broker: &str, image: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(FLEET)?;
    for object in &mut objects {
        let spec = &mut object["spec"];
        if let Some(found) = spec.get_mut("broker") {
            found["url"] = json!(broker);
            continue;
        }
        let Some(worker) = spec.get_mut("worker") else {
            continue;
        };
        worker["image"] = json!(image);
        let env = worker["env"].as_array_mut();
        let env = env.ok_or("a WorkerPool of the fleet has no env")?;
        env.push(json!({"name": "TAPP_TRACE", "value": TRACE}));
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const QUEUES: [&str; 10] = [
        "cpu_ml_training",
        "cpu_video_processing",
        "cpu_data_analysis",
        "io_api_calls",
        "io_file_operations",
        "io_email_sending",
        "memory_aggregations",
        "memory_large_imports",
        "general_background",
        "general_scheduled",
    ];

    #[test]
    fn the_fleet_is_ten_queues_and_four_pools() {
        let objects = fleet("redis://127.0.0.1:1/0", "image:1").unwrap();
        let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
        assert_eq!(
            (objects.len(), of_kind("TaskQueue"), of_kind("WorkerPool")),
            (15, 10, 4)
        );
        let named = |kind: &str, at: &str| {
            let own = objects.iter().filter(|object| object["kind"] == kind);
            own.map(|object| object.pointer(at).and_then(Value::as_str).unwrap_or_default())
                .collect::<BTreeSet<_>>()
        };
        let queues = QUEUES.into();
        assert_eq!(named("TaskQueue", "/spec/queue"), queues);
        let classes = ["Cpu", "General", "Io", "Memory"].into();
        assert_eq!(named("WorkerPool", "/spec/class"), classes);
        let text = serde_json::to_string(&objects).unwrap();
        assert!(
            !text.contains("redis://redis") && !text.contains("registry.example.com"),
            "{text}"
        );
    }
}
