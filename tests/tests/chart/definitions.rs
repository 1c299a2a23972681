//! The definitions only go forward: a rollback to a chart with older ones takes the operator back and leaves them, says
//! so, and has a way out. With both majors of Helm on a real API server.

use super::expect_words;
use super::site::{FIELDS_OF_SPEC, LIMIT, OLDER, Site, current};
use poolwright_api::{ANNOTATION_CRD_VERSION, CRD_VERSION};
use poolwright_tests::chart::{self, Major};
use poolwright_tests::*;
use serde_json::{Value, json};

const WAIT: [&str; 2] = ["--wait", "--timeout=120s"];
const REUSE: &str = "--reset-then-reuse-values";
const WITHOUT: &str = "--set=crds.install=false";
const WORDS: [&str; 2] = ["would lose fields of your objects", "--set crds.install=false"];
/// What the definitions before had for a number.
const OLDER_NUMBER: Option<u32> = Some(CRD_VERSION - 1);

#[tokio::test]
async fn a_rollback_with_helm_3_leaves_the_newer_definitions() -> Result<()> {
    rollback(Major::Three, OLDER_NUMBER).await
}

/// From what came before there were numbers, and without the policy.
#[tokio::test]
async fn a_rollback_with_helm_4_leaves_the_newer_definitions() -> Result<()> {
    rollback(Major::Four, None).await
}

async fn rollback(major: Major, number: Option<u32>) -> Result<()> {
    let upgraded = Upgraded::new(major, number).await?;
    upgraded.goes_back_without_the_definitions().await?;
    upgraded.stays_back().await?;
    upgraded.goes_forward_again().await?;
    upgraded.goes_back_with_them_when_it_is_meant().await?;
    upgraded.an_upgrade_that_takes_itself_back_leaves_them().await
}

/// A release that began with older definitions (its revision 1) and has newer ones (revision 2), a fleet at work, and a
/// Pool with a field that the older ones do not know.
struct Upgraded {
    site: Site,
    chart: String,
    older: String,
    older_number: Option<u32>,
    workers: Vec<Value>,
    operator: Operator,
}

impl Upgraded {
    async fn new(major: Major, older_number: Option<u32>) -> Result<Self> {
        let site = Site::new(major).await?;
        site.namespace("poolwright").await?;
        site.kubectl.run(["create", "namespace", "shop"]).await?;
        let chart = chart::folder().to_str().unwrap().to_owned();
        let older = site.older_definitions(older_number)?.to_str().unwrap().to_owned();
        site.put("install", "poolwright", &older, "poolwright", &WAIT)
            .await?;
        let operator = site.operator_as("poolwright", "poolwright", "").await?;
        site.put_fleet().await?;
        let mut one = Self {
            workers: Vec::new(),
            site,
            chart,
            older,
            older_number,
            operator,
        };
        one.workers = one.workers().await?;
        assert_eq!(one.number().await?, older_number);
        assert!(!one.knows_the_field().await?);

        let chart = one.chart.clone();
        one.upgrade(&chart, &[]).await?;
        assert_eq!(one.number().await?, Some(CRD_VERSION));
        let pool = json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": "Pool",
            "metadata": {"name": "described", "namespace": "shop"},
            "spec": {"slots": 4, "description": "words"},
        });
        wait_until("the newer definitions to be served", LIMIT, || async {
            one.site.kubectl.apply(&pool.to_string()).await?;
            Ok(one.words().await? == "words")
        })
        .await?;
        // The policy came with the upgrade, after the definitions.
        wait_until("the policy to be obeyed", LIMIT, || async {
            Ok(!one.may_go_back().await)
        })
        .await?;
        Ok(one)
    }

    /// True if older definitions may be put over those that are there.
    async fn may_go_back(&self) -> bool {
        let lower = json!({"metadata": {"annotations": {ANNOTATION_CRD_VERSION: "0"}}}).to_string();
        let crd = "pools.poolwright.dev";
        let patch = [
            "patch",
            "crd",
            crd,
            "--type=merge",
            "--dry-run=server",
            "-p",
            &lower,
        ];
        self.site.kubectl.run(patch).await.is_ok()
    }

    /// Helm says what was refused and why; all else is as it was in the older release.
    async fn goes_back_without_the_definitions(&self) -> Result<()> {
        let refused = self.back(1).await.unwrap_err().to_string();
        expect_words("a rollback", &refused, &WORDS);
        for kind in ["pools", "taskqueues", "workerpools"] {
            expect_words("a rollback", &refused, &[&format!("{kind}.poolwright.dev stays")]);
        }
        self.expect_newer("a refused rollback").await?;
        assert_eq!(self.status()?, "failed");
        self.expect_image(OLDER).await
    }

    /// The older release with what is there, as the message says.
    async fn stays_back(&self) -> Result<()> {
        self.upgrade(&self.older, &[WITHOUT]).await?;
        assert_eq!(self.status()?, "deployed");
        self.expect_image(OLDER).await?;
        self.expect_newer("the older chart without definitions").await
    }

    /// And forward, and back to what has the same definitions.
    async fn goes_forward_again(&self) -> Result<()> {
        self.upgrade(&self.chart, &["--set=crds.install=true"]).await?;
        self.upgrade(&self.chart, &["--set=operator.logLevel=debug"])
            .await?;
        self.back(2).await?;
        assert_eq!(self.status()?, "deployed");
        self.expect_image(&current()?).await?;
        self.expect_newer("a rollback to the same definitions").await
    }

    /// Who deletes the binding means it, and loses what only the newer definitions know.
    async fn goes_back_with_them_when_it_is_meant(&self) -> Result<()> {
        let binding = "validatingadmissionpolicybinding/definitions.poolwright.dev";
        self.site.kubectl.run(["delete", binding]).await?;
        // A rollback brings the binding back: one that is refused since the server has not forgotten it yet is refused for ever.
        wait_until("the policy to be forgotten", LIMIT, || async {
            Ok(self.may_go_back().await)
        })
        .await?;
        self.back(1).await?;
        assert_eq!(self.number().await?, self.older_number);
        assert!(!self.knows_the_field().await?);
        assert_eq!(self.workers().await?, self.workers);
        assert!(!self.operator.log().contains("panicked"));
        Ok(())
    }

    /// As with a rollback: the operator goes back, the release has failed, and the next upgrade works.
    async fn an_upgrade_that_takes_itself_back_leaves_them(&self) -> Result<()> {
        let back = match self.site.helm.major() {
            Major::Three => "--atomic",
            Major::Four => "--rollback-on-failure",
        };
        let args = [REUSE, back, "--timeout=15s", "--set=image.tag=missing"];
        let upgrade = self
            .site
            .put("upgrade", "poolwright", &self.chart, "poolwright", &args);
        expect_words("an upgrade", &upgrade.await.unwrap_err().to_string(), &WORDS);
        assert_eq!(self.status()?, "failed");
        self.expect_image(OLDER).await?;
        assert_eq!(self.number().await?, Some(CRD_VERSION));
        self.upgrade(&self.chart, &[]).await?;
        assert_eq!(self.status()?, "deployed");
        assert_eq!(self.workers().await?, self.workers);
        Ok(())
    }

    async fn upgrade(&self, chart: &str, more: &[&str]) -> Result<()> {
        let more = [&[REUSE][..], more, &WAIT].concat();
        let upgraded = self.site.put("upgrade", "poolwright", chart, "poolwright", &more);
        upgraded.await.map(|_| ())
    }

    async fn back(&self, revision: u32) -> Result<()> {
        let revision = revision.to_string();
        let back = ["rollback", "poolwright", &revision, "--namespace", "poolwright"];
        let helm = &self.site.helm;
        helm.run_beside([&back[..], &WAIT].concat()).await.map(|_| ())
    }

    /// The definitions are the newer ones, nothing that users wrote has lost anything, and no worker has noticed.
    async fn expect_newer(&self, after: &str) -> Result<()> {
        assert_eq!(self.number().await?, Some(CRD_VERSION), "{after}");
        assert!(self.knows_the_field().await?, "{after}");
        let touch = [
            "annotate",
            "pool/described",
            "touched=yes",
            "--overwrite",
            "-n",
            "shop",
        ];
        self.site.kubectl.run(touch).await?;
        assert_eq!(self.words().await?, "words", "{after}");
        assert_eq!(self.workers().await?, self.workers, "{after}");
        Ok(())
    }

    async fn definitions(&self) -> Result<Vec<Value>> {
        let all = self.site.list("customresourcedefinitions", "").await?;
        let ours = all
            .into_iter()
            .filter(|one| one["spec"]["group"] == "poolwright.dev");
        Ok(ours.collect())
    }

    /// The number of the definitions, which is one.
    async fn number(&self) -> Result<Option<u32>> {
        let all = self.definitions().await?;
        let number = |one: &Value| one["metadata"]["annotations"][ANNOTATION_CRD_VERSION].clone();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|one| number(one) == number(&all[0])), "{all:?}");
        Ok(number(&all[0]).as_str().map(str::parse).transpose()?)
    }

    async fn knows_the_field(&self) -> Result<bool> {
        let all = self.definitions().await?;
        let pools = all.iter().find(|one| one["spec"]["names"]["kind"] == "Pool");
        let fields = pools.and_then(|one| one.pointer(FIELDS_OF_SPEC)).unwrap();
        Ok(fields.get("description").is_some())
    }

    /// What the described Pool has in the field.
    async fn words(&self) -> Result<String> {
        let path = "jsonpath={.spec.description}";
        let get = ["get", "pool/described", "-n", "shop", "-o", path];
        self.site.kubectl.run(get).await
    }

    /// The Deployments of the fleet: which, and which version of their spec.
    async fn workers(&self) -> Result<Vec<Value>> {
        let all = self.site.list("deployments", "shop").await?;
        let known = |one: &Value| json!([one["metadata"]["uid"], one["metadata"]["generation"]]);
        Ok(all.iter().map(known).collect())
    }

    async fn expect_image(&self, tag: &str) -> Result<()> {
        let all = self.site.list("deployments", "poolwright").await?;
        let image = &all[0]["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(*image, format!("registry.example.com/poolwright:{tag}"));
        Ok(())
    }

    /// In which state Helm has the release.
    fn status(&self) -> Result<String> {
        let status = ["status", "poolwright", "--namespace", "poolwright", "-o", "json"];
        let status: Value = serde_json::from_str(&self.site.helm.run(status)?)?;
        Ok(status["info"]["status"].as_str().unwrap_or_default().to_owned())
    }
}
