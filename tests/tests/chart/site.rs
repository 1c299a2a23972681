//! A control plane of a test's own, with a node that knows the operator's image and one with `wget`, and Helm.
//!
//! The node's operator is an image of nothing: its pod is ready at once. What the installed account may do is seen by the
//! operator of this workspace, which runs beside it with the account's token.

use poolwright_api::ANNOTATION_CRD_VERSION;
use poolwright_tests::chart::{self, Helm, Major};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The version that comes before the chart's own: the same chart under an older number, since none was published.
pub const OLDER: &str = "0.0.9";
/// The fields of a definition's `spec`.
pub const FIELDS_OF_SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
/// The longest wait for what an operator or an API server does at once.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The operator's image, which the node has under the chart's version.
pub const IMAGE: &str = "registry.example.com/poolwright";
/// Writes down what it is asked for, and asks that of the operator whose address stands beside it: a Service leads nowhere
/// on this node. By bash alone, since a machine may have no client.
const WGET: &str = r#"#!/bin/bash
echo "$@" >DIR/asked
url="${!#}"
address=$(cat DIR/answers) || exit 1
exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || exit 1
printf 'GET /%s HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n' "${url#*://*/}" >&3
read -r -t 10 _ code _ <&3
[ "$code" = 200 ]
"#;
/// The image's settings.
pub const SETTINGS: [&str; 2] = [
    "--set=image.registry=registry.example.com",
    "--set=image.repository=poolwright",
];

pub struct Site {
    // Fields end in this order: the node before its control plane.
    _node: NodeHandle,
    pub plane: Plane,
    pub helm: Helm,
    pub kubectl: Kubectl,
    pub dir: TempDir,
}

impl Site {
    pub async fn new(major: Major) -> Result<Self> {
        let plane = Plane::start(PlaneConfig::default()).await?;
        let dir = tempfile::tempdir()?;
        let mut node = NodeConfig::new("local", &dir.path().join("node"));
        for version in [OLDER, &current()?] {
            node.images.insert(format!("{IMAGE}:{version}"), Image::Fake);
        }
        let bin = dir.path().join("wget/bin");
        std::fs::create_dir_all(&bin)?;
        let wget = bin.join("wget");
        std::fs::write(&wget, WGET.replace("DIR", &dir.path().display().to_string()))?;
        std::fs::set_permissions(&wget, std::fs::Permissions::from_mode(0o755))?;
        node.images.insert(
            "docker.io/library/busybox:1.37".into(),
            Image::Folder(dir.path().join("wget")),
        );
        let node = Node::start(plane.node_client().await?, node).await?;
        Ok(Self {
            helm: Helm::of(major, &plane)?,
            kubectl: plane.kubectl()?,
            _node: node,
            plane,
            dir,
        })
    }

    /// The chart under an older number, as a package.
    pub fn older(&self) -> Result<PathBuf> {
        self.packaged(&chart::folder())
    }

    /// The same with definitions that do not know `spec.description` of a Pool yet. They have an older number, or none
    /// and no policy that looks at it.
    pub fn older_definitions(&self, number: Option<u32>) -> Result<PathBuf> {
        let copy = self.dir.path().join("poolwright");
        let from = format!("{}/.", chart::folder().display());
        std::fs::create_dir(&copy)?;
        let copied = std::process::Command::new("cp")
            .args(["-r", &from])
            .arg(&copy)
            .status()?;
        assert!(copied.success(), "{from} cannot be copied");
        for entry in std::fs::read_dir(copy.join("files/crds"))? {
            let path = entry?.path();
            let mut definition = chart::read_yaml(&path)?;
            let number = number.map(|number| json!({ANNOTATION_CRD_VERSION: number.to_string()}));
            definition["metadata"]["annotations"] = number.unwrap_or_else(|| json!({}));
            if definition["spec"]["names"]["kind"] == "Pool" {
                let fields = definition.pointer_mut(FIELDS_OF_SPEC).unwrap();
                let newer = fields.as_object_mut().unwrap().remove("description");
                assert!(newer.is_some());
            }
            std::fs::write(&path, serde_saphyr::to_string(&definition)?)?;
        }
        if number.is_none() {
            std::fs::remove_file(copy.join("files/policies/definitions.yaml"))?;
        }
        self.packaged(&copy)
    }

    fn packaged(&self, chart: &Path) -> Result<PathBuf> {
        let to = self.dir.path();
        let args = [
            "package",
            chart.to_str().unwrap(),
            "--version",
            OLDER,
            "--app-version",
            OLDER,
            "-d",
            to.to_str().unwrap(),
        ];
        self.helm.run(args)?;
        Ok(to.join(format!("poolwright-{OLDER}.tgz")))
    }

    /// `helm VERB RELEASE CHART` in a namespace, with the image's settings and more.
    pub async fn put(
        &self,
        verb: &str,
        release: &str,
        chart: &str,
        space: &str,
        more: &[&str],
    ) -> Result<String> {
        let mut args = vec![verb, release, chart, "--namespace", space];
        args.extend(SETTINGS);
        args.extend(more);
        self.helm.run_beside(args).await
    }

    /// Applies the example fleet to the namespace `shop`, and waits until the operator has made its Deployments and
    /// nobody writes to them any more.
    pub async fn put_fleet(&self) -> Result<()> {
        let fleet = chart::repository("deploy/examples/fleet.yaml");
        let apply = ["apply", "--namespace=shop", "-f", fleet.to_str().unwrap()];
        self.kubectl.run(apply).await?;
        wait_until("the operator to make Deployments", LIMIT, || async {
            let pools = self.list("workerpools", "shop").await?;
            Ok(!pools.is_empty() && self.list("deployments", "shop").await?.len() == pools.len())
        })
        .await?;
        let versions = async || -> Result<Vec<Value>> {
            let all = self.list("deployments", "shop").await?;
            Ok(all
                .iter()
                .map(|one| one["metadata"]["resourceVersion"].clone())
                .collect())
        };
        wait_until("the Deployments to stay as they are", LIMIT, || async {
            let before = versions().await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(before == versions().await?)
        })
        .await
    }

    /// A namespace in which only what the profile `restricted` allows can run.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.kubectl.run(["create", "namespace", name]).await?;
        let label = "pod-security.kubernetes.io/enforce=restricted";
        self.kubectl.run(["label", "namespace", name, label]).await?;
        Ok(())
    }

    /// Objects by kind and namespace; all namespaces where it is empty.
    pub async fn list(&self, kinds: &str, space: &str) -> Result<Vec<Value>> {
        let space = if space.is_empty() {
            "--all-namespaces".into()
        } else {
            format!("--namespace={space}")
        };
        let text = self.kubectl.run(["get", kinds, &space, "-o", "json"]).await?;
        let mut list: Value = serde_json::from_str(&text)?;
        Ok(serde_json::from_value(list["items"].take())?)
    }

    /// Everything in the cluster with our name on it, but for workers.
    pub async fn ours(&self) -> Result<BTreeSet<String>> {
        let kinds = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,\
                     validatingadmissionpolicies,validatingadmissionpolicybindings,customresourcedefinitions";
        let mut found = BTreeSet::new();
        for object in self.list(kinds, "").await? {
            let labels = &object["metadata"]["labels"];
            if labels["app.kubernetes.io/part-of"] == "poolwright"
                && labels["poolwright.dev/worker-pool"].is_null()
            {
                found.insert(chart::identity(&object));
            }
        }
        Ok(found)
    }

    /// Names of all releases, failed ones too.
    pub fn releases(&self) -> Result<BTreeSet<String>> {
        let text = self.helm.run(["list", "--all-namespaces", "-o", "json"])?;
        let list: Vec<Value> = serde_json::from_str(&text)?;
        Ok(list
            .iter()
            .filter_map(|one| one["name"].as_str())
            .map(ToOwned::to_owned)
            .collect())
    }

    /// The operator of this workspace with the rights of an installed account, once its watches have synced.
    pub async fn operator_as(&self, account: &str, space: &str, works_in: &str) -> Result<Operator> {
        let token = self
            .kubectl
            .run(["create", "token", account, "--namespace", space])
            .await?;
        let folder = self.dir.path().join(format!("operator-{space}-{account}"));
        std::fs::create_dir_all(&folder)?;
        let kubeconfig = folder.join("kubeconfig");
        self.plane.kubeconfig_with_token(token.trim(), &kubeconfig)?;
        let lease = format!("--lease={space}/{account}");
        Operator::start(&kubeconfig, works_in, &folder, &[&lease]).await
    }

    /// From now on this operator answers what `helm test` asks.
    pub fn let_answer(&self, operator: &Operator) -> Result<()> {
        let address = operator.http().ok_or("the operator has not logged its address")?;
        Ok(std::fs::write(self.dir.path().join("answers"), address)?)
    }

    pub async fn may(&self, account: &str, verb: &str, what: &str, space: &str) -> bool {
        let user = format!("system:serviceaccount:{account}");
        let args = ["auth", "can-i", verb, what, "--as", &user, "--namespace", space];
        self.kubectl.run(args).await.is_ok()
    }
}

/// The chart's version, which is the operator's.
pub fn current() -> Result<String> {
    let chart = chart::read_yaml(&chart::folder().join("Chart.yaml"))?;
    assert_eq!(chart["version"], chart["appVersion"], "one number for both");
    Ok(chart["appVersion"].as_str().unwrap_or_default().to_owned())
}
