//! A namespace per test, and the custom resource definitions in the cluster.

use crate::{Kubectl, Plane, Result, plane, wait_until};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use std::path::Path;
use std::time::Duration;

/// A namespace with a name of its own and its default `ServiceAccount`.
///
/// It stays after the test, for a look at what failed, unless
/// [`TestNamespace::delete`] is called; the plane ends with the run anyway.
#[derive(Clone)]
pub struct TestNamespace {
    /// Its name: the prefix and eight random letters.
    pub name: String,
    client: Client,
}

impl TestNamespace {
    /// Creates it, and waits until pods can be created in it.
    pub async fn create(client: Client, prefix: &str) -> Result<Self> {
        let suffix: String = std::iter::repeat_with(fastrand::lowercase).take(8).collect();
        let name = format!("{prefix}-{suffix}");
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        wait_until(
            "the namespace's default ServiceAccount",
            Duration::from_secs(30),
            || async { Ok(accounts.get_opt("default").await?.is_some()) },
        )
        .await?;
        Ok(Self { name, client })
    }

    /// A typed API in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Lets the operator read the Secrets of this namespace, as its owner does it.
    pub async fn let_read_secrets(&self, plane: &Plane) -> Result<()> {
        let account = plane::OPERATOR.trim_start_matches("system:serviceaccount:");
        let args = [
            "create",
            "rolebinding",
            "operator-reads-secrets",
            "--clusterrole=poolwright-secrets",
            &format!("--serviceaccount={account}"),
        ];
        let kubectl = plane.kubectl()?.namespaced(&self.name);
        kubectl.run(args).await.map(|_| ())
    }

    /// Asks for its deletion and does not wait for it.
    pub async fn delete(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Applies the generated definitions (`crds/`) and waits until they are served.
pub async fn apply_crds(plane: &Plane) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    let folder = folder.to_str().ok_or("the folder's name is no text")?.to_owned();
    let kubectl: Kubectl = plane.kubectl()?;
    kubectl
        .run(["apply", "--server-side", "--force-conflicts", "-f", &folder])
        .await?;
    // A definition that is so new that it has no conditions yet is an error to `kubectl wait`.
    wait_until(
        "the definitions to be served",
        Duration::from_secs(60),
        || async {
            let args = [
                "wait",
                "--for=condition=Established",
                "--timeout=30s",
                "-f",
                &folder,
            ];
            kubectl.run(args).await?;
            Ok(true)
        },
    )
    .await
}

/// Applies what the API server is to refuse beyond the definitions (`deploy/policies/`). It takes a moment until it does.
pub async fn apply_policies(plane: &Plane) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies");
    let folder = folder.to_str().ok_or("the folder's name is no text")?;
    let kubectl: Kubectl = plane.kubectl()?;
    let args = ["apply", "--server-side", "--force-conflicts", "-k", folder];
    kubectl.run(args).await.map(|_| ())
}

/// Gives [`plane::OPERATOR`] the rights that are installed, within the policy that is, and waits until they count.
pub async fn apply_rights(plane: &Plane) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install");
    let kubectl: Kubectl = plane.kubectl()?;
    for file in [
        "namespace.yaml",
        "access.yaml",
        "secrets-access.yaml",
        "operator-policy.yaml",
    ] {
        let file = folder.join(file);
        let file = file.to_str().ok_or("the folder's name is no text")?;
        let args = ["apply", "--server-side", "--force-conflicts", "-f", file];
        kubectl.run(args).await?;
    }
    let user = format!("--as={}", plane::OPERATOR);
    let args = ["auth", "can-i", "patch", "pods", "--all-namespaces", &user];
    wait_until("the operator's rights", Duration::from_secs(60), || async {
        // It says no by its exit code.
        Ok(kubectl.run(args).await.is_ok())
    })
    .await
}
