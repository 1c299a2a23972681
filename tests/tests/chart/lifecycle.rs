//! A release from its installation to its end, with both majors of Helm, on a real API server: what is there after each
//! step, and that nothing of the users' goes or changes.

use super::expect_words;
use super::site::{LIMIT, OLDER, Site, current};
use poolwright_tests::chart::{self, Major};
use poolwright_tests::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const USERS: &str = "workerpools.poolwright.dev,taskqueues.poolwright.dev,pools.poolwright.dev";
/// By then an operator has written what it finds to be wrong.
const SETTLE: Duration = Duration::from_secs(3);
const WAIT: [&str; 2] = ["--wait", "--timeout=120s"];
/// The new chart's defaults, and what was set over them.
const REUSE: &str = "--reset-then-reuse-values";

#[tokio::test]
async fn a_release_of_helm_3_comes_changes_and_goes() -> Result<()> {
    release(Major::Three).await
}

#[tokio::test]
async fn a_release_of_helm_4_comes_changes_and_goes() -> Result<()> {
    release(Major::Four).await
}

async fn release(major: Major) -> Result<()> {
    let mut life = Life::begin(major).await?;
    life.install().await?;
    life.work().await?;
    life.upgrade().await?;
    life.go_back().await?;
    life.uninstall().await?;
    life.rename().await?;
    life.remove_all().await?;
    life.install_without_definitions().await
}

/// By object, which it is and which version of its spec.
type Known = BTreeMap<String, (Value, Value)>;

struct Life {
    site: Site,
    chart: String,
    older: String,
    /// What users wrote, and the Deployments of their workers.
    users: Known,
}

impl Life {
    async fn begin(major: Major) -> Result<Self> {
        let site = Site::new(major).await?;
        site.namespace("poolwright").await?;
        site.kubectl.run(["create", "namespace", "shop"]).await?;
        Ok(Self {
            chart: chart::folder().to_str().unwrap().to_owned(),
            older: site.older()?.to_str().unwrap().to_owned(),
            users: Known::new(),
            site,
        })
    }

    /// `helm VERB NAME CHART`, to its end.
    async fn put(&self, verb: &str, name: &str, chart: &str, more: &[&str]) -> Result<String> {
        let more = [more, &WAIT].concat();
        self.site.put(verb, name, chart, "poolwright", &more).await
    }

    async fn end(&self, name: &str) -> Result<String> {
        let args = ["uninstall", name, "--namespace", "poolwright", "--wait"];
        self.site.helm.run_beside(args).await
    }

    /// Into a namespace that lets only locked-down pods in.
    async fn install(&self) -> Result<()> {
        let settings = ["--set=rbac.secretNamespaces={shop}"];
        let notes = self.put("install", "poolwright", &self.older, &settings).await?;
        expect_words(
            "notes",
            &notes,
            &["works in all namespaces", "helm test poolwright"],
        );
        assert_eq!(self.image().await?, OLDER);
        Ok(())
    }

    /// Asks the operator whether it is ready, which it is not while there is none.
    async fn test(&self, operator: &Operator) -> Result<()> {
        let test = ["test", "poolwright", "--namespace", "poolwright"];
        let alone = self.site.helm.run_beside(test).await;
        assert!(alone.is_err(), "nobody answers, and the test passes");
        self.site.let_answer(operator)?;
        self.site.helm.run_beside(test).await?;
        let asked = std::fs::read_to_string(self.site.dir.path().join("asked"))?;
        expect_words(
            "helm test",
            &asked,
            &["http://poolwright.poolwright.svc:8080/readyz"],
        );
        Ok(())
    }

    /// Its account does the operator's work on a fleet, reads Secrets where it was allowed, and nowhere else.
    async fn work(&mut self) -> Result<()> {
        let site = &self.site;
        let operator = site.operator_as("poolwright", "poolwright", "").await?;
        self.test(&operator).await?;
        site.put_fleet().await?;
        assert!(!operator.log().contains("orbidden"), "{}", operator.log());
        let account = "poolwright:poolwright";
        assert!(site.may(account, "get", "secrets", "shop").await);
        assert!(!site.may(account, "get", "secrets", "default").await);
        assert!(!site.may(account, "list", "secrets", "shop").await);
        drop(operator);
        self.users = self.known().await?;
        assert!(self.users.len() > 8, "{:?}", self.users);
        Ok(())
    }

    /// To the chart as it is, with other values; and not to what cannot work.
    async fn upgrade(&self) -> Result<()> {
        let settings = [REUSE, "--set=operator.logLevel=debug"];
        self.put("upgrade", "poolwright", &self.chart, &settings).await?;
        assert_eq!(self.image().await?, current()?);
        assert!(self.args().await?.contains(&"--log-level=debug".to_owned()));
        assert!(
            self.site
                .may("poolwright:poolwright", "get", "secrets", "shop")
                .await
        );
        let before = self.site.ours().await?;
        let refused = self.put(
            "upgrade",
            "poolwright",
            &self.chart,
            &["--set=leaderElection.enabled=false"],
        );
        expect_words(
            "two replicas",
            &refused.await.unwrap_err().to_string(),
            &["leaderElection.enabled"],
        );
        assert_eq!(self.site.ours().await?, before);
        // The process that comes with it knows nothing of the one before, and finds all workers as they should be.
        let operator = self.site.operator_as("poolwright", "poolwright", "").await?;
        wait_until("the fleet to be decided", LIMIT, || async {
            let told = operator.metrics().await.unwrap_or_default();
            Ok(told.contains("poolwright_worker_pool_desired_replicas{"))
        })
        .await?;
        tokio::time::sleep(SETTLE).await;
        drop(operator);
        self.expect_users("an upgrade").await
    }

    /// With everything, definitions too, or with the operator alone.
    async fn go_back(&self) -> Result<()> {
        let before = self.site.ours().await?;
        let back = [
            &["rollback", "poolwright", "1", "--namespace", "poolwright"][..],
            &WAIT,
        ]
        .concat();
        self.site.helm.run_beside(back).await?;
        assert_eq!(self.image().await?, OLDER);
        assert!(self.args().await?.contains(&"--log-level=info".to_owned()));
        assert_eq!(self.site.ours().await?, before);
        assert_eq!(self.definitions().await?, [OLDER.to_owned()].into());
        self.expect_users("a rollback").await?;

        self.put("upgrade", "poolwright", &self.chart, &[REUSE]).await?;
        let alone = [REUSE, "--set=crds.install=false"];
        self.put("upgrade", "poolwright", &self.older, &alone).await?;
        assert_eq!(self.image().await?, OLDER);
        assert_eq!(self.definitions().await?, [current()?].into());
        self.expect_users("going back").await
    }

    /// Leaves the definitions and all that users wrote.
    async fn uninstall(&self) -> Result<()> {
        self.end("poolwright").await?;
        assert_eq!(self.site.ours().await?, left());
        assert_eq!(self.site.releases()?, BTreeSet::new());
        self.expect_users("uninstalling").await
    }

    /// Under another name Helm says whose the definitions were, and takes them over when told to.
    async fn rename(&self) -> Result<()> {
        let refused = self.put("install", "renamed", &self.chart, &[]).await;
        let words = ["poolwright.dev", "must equal \"renamed\"", "is \"poolwright\""];
        expect_words("another name", &refused.unwrap_err().to_string(), &words);
        assert_eq!(self.site.ours().await?, left());
        let take = ["--take-ownership"];
        self.put("install", "renamed", &self.chart, &take).await?;
        self.end("renamed").await?;
        assert_eq!(self.site.ours().await?, left());
        self.put("install", "poolwright", &self.chart, &take).await?;
        self.end("poolwright").await?;
        self.expect_users("renaming").await
    }

    /// It comes back over what it left, and goes with everything when somebody says so.
    async fn remove_all(&self) -> Result<()> {
        self.put("install", "poolwright", &self.chart, &["--set=crds.keep=false"])
            .await?;
        self.expect_users("coming back").await?;
        self.end("poolwright").await?;
        wait_until("the definitions to go", LIMIT, || async {
            Ok(self.site.ours().await?.is_empty())
        })
        .await
    }

    /// Says so, and leaves nothing behind.
    async fn install_without_definitions(&self) -> Result<()> {
        let refused = self.put(
            "install",
            "poolwright",
            &self.chart,
            &["--set=crds.install=false"],
        );
        let words = ["crds.install", "kubectl apply -f crds/"];
        expect_words("no definitions", &refused.await.unwrap_err().to_string(), &words);
        assert_eq!(self.site.ours().await?, BTreeSet::new());
        assert_eq!(self.site.releases()?, BTreeSet::new());

        // So does an operator that somebody starts all the same.
        let log = self.site.dir.path().join("lost.log");
        let mut command = process::mortal(operator::built("debug"));
        command
            .args(["run", "--log-format", "text"])
            .env("KUBECONFIG", self.site.plane.kubeconfig());
        let _lost = process::Daemon::start("operator", command, &log)?;
        wait_for("the operator to name what is missing", LIMIT, || {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            ["pools", "taskqueues", "workerpools"].iter().all(|kind| {
                told.contains(&format!(
                    "does not know {kind}.poolwright.dev: apply the definitions"
                ))
            })
        })
        .await
    }

    async fn known(&self) -> Result<Known> {
        let mut all = self.site.list(USERS, "").await?;
        all.extend(self.site.list("deployments", "shop").await?);
        let known = |one: &Value| {
            (
                one["metadata"]["uid"].clone(),
                one["metadata"]["generation"].clone(),
            )
        };
        Ok(all.iter().map(|one| (chart::identity(one), known(one))).collect())
    }

    async fn expect_users(&self, after: &str) -> Result<()> {
        assert_eq!(
            self.known().await?,
            self.users,
            "{after} changed what is the users'"
        );
        Ok(())
    }

    /// Of which version the definitions are.
    async fn definitions(&self) -> Result<BTreeSet<String>> {
        let all = self.site.list("customresourcedefinitions", "").await?;
        let version = |one: &Value| {
            Some(
                one["metadata"]["labels"]["app.kubernetes.io/version"]
                    .as_str()?
                    .to_owned(),
            )
        };
        Ok(all.iter().filter_map(version).collect())
    }

    async fn container(&self) -> Result<Value> {
        let deployments = self.site.list("deployments", "poolwright").await?;
        assert_eq!(deployments.len(), 1);
        let ready = &deployments[0]["status"]["readyReplicas"];
        assert_eq!(ready, 2, "--wait came back before its end");
        Ok(deployments[0]["spec"]["template"]["spec"]["containers"][0].clone())
    }

    /// The tag of the operator's image.
    async fn image(&self) -> Result<String> {
        let container = self.container().await?;
        let image = container["image"].as_str().unwrap_or_default();
        let (name, tag) = image.rsplit_once(':').unwrap_or_default();
        assert_eq!(name, "registry.example.com/poolwright");
        Ok(tag.to_owned())
    }

    async fn args(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.container().await?["args"].take())?)
    }
}

/// What an uninstalled release leaves: the definitions, and what keeps older ones from being put over them.
fn left() -> BTreeSet<String> {
    let definitions = ["pools", "taskqueues", "workerpools"]
        .map(|kind| format!("CustomResourceDefinition /{kind}.poolwright.dev"));
    let guard = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]
        .map(|kind| format!("{kind} /definitions.poolwright.dev"));
    definitions.into_iter().chain(guard).collect()
}
