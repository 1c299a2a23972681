//! More than one installation in a cluster: beside each other where each has namespaces of its own, and refused before
//! anything of it exists where two would decide about the same workers.

use super::expect_words;
use super::site::{IMAGE, LIMIT, Site, current};
use poolwright_tests::chart::{self, Major};
use poolwright_tests::*;
use serde_json::{Value, json};

const SCOPED: [&str; 1] = ["--set=rbac.scope=namespaces"];
/// What is there once in a cluster, and is the first one's.
const SECOND: [&str; 4] = [
    "--set=crds.install=false",
    "--set=policies.enabled=false",
    "--set=rbac.userRoles.create=false",
    "--set=rbac.secretsClusterRole.create=false",
];

/// A second one that keeps to one namespace, in the words of the page that says how to install it.
fn in_one_namespace() -> Vec<String> {
    let page = std::fs::read_to_string(chart::repository("docs/how-to/install.md")).unwrap();
    let command = page.split("A second installation").nth(1).unwrap();
    let command = command.split("```").nth(1).unwrap();
    let settings: Vec<String> = command
        .split("--set ")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|setting| !setting.starts_with("image."))
        .map(|setting| {
            format!(
                "--set={}",
                setting.trim_matches('\'').replace("{reports}", "{shop}")
            )
        })
        .collect();
    for known in SECOND
        .iter()
        .chain(&SCOPED)
        .chain(&["--set=watch.namespaces={shop}"])
    {
        assert!(
            settings.iter().any(|one| one == known),
            "{known} is not in {settings:?}"
        );
    }
    settings
}

/// As [`expect_refused`], for that one.
async fn expect_one_namespace_refused(site: &Site, words: &[&str]) -> Result<()> {
    let settings = in_one_namespace();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    expect_refused(site, "scoped", &settings, words).await
}

/// A queue, and a worker that is always there, of an image that the site's node has.
async fn put_worker(site: &Site, space: &str, broker: &str) -> Result<()> {
    let of = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "mail", "namespace": space}, "spec": spec,
        })
    };
    let queue = of("TaskQueue", json!({"broker": {"url": broker}}));
    let pool = of(
        "WorkerPool",
        json!({
            "class": "General",
            "queues": [{"name": "mail"}],
            "celery": {"app": "shop.tasks", "brokerEnv": "Inject"},
            "worker": {
                "image": format!("{IMAGE}:{}", current()?),
                "securityContext": {"runAsNonRoot": true, "runAsUser": 10001},
            },
            "scaling": {"minReplicas": 1, "maxReplicas": 2},
        }),
    );
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [queue, pool]});
    site.kubectl.apply(&both.to_string()).await?;
    Ok(())
}

/// The operator made that worker's Deployment, counts it, and was refused nothing.
async fn expect_worker(site: &Site, space: &str, operator: &Operator) -> Result<()> {
    wait_until("the worker to be there and counted", LIMIT, || async {
        let deployments = site.list("deployments", space).await?;
        let pools = site.list("workerpools", space).await?;
        let ([deployment], [pool]) = (&deployments[..], &pools[..]) else {
            return Ok(false);
        };
        let (replicas, status) = (&deployment["spec"]["replicas"], &pool["status"]);
        Ok(replicas == 1 && status["desiredReplicas"] == 1 && status["readyReplicas"] == 1)
    })
    .await
    .map_err(|error| format!("{space}: {error}\n{}", operator.log()))?;
    assert!(!operator.log().contains("orbidden"), "{}", operator.log());
    Ok(())
}

/// An installation is refused with these words, and nothing of it is there.
async fn expect_refused(site: &Site, release: &str, more: &[&str], words: &[&str]) -> Result<()> {
    let (before, releases) = (site.ours().await?, site.releases()?);
    let chart = chart::folder();
    let refused = site
        .put("install", release, chart.to_str().unwrap(), "others", more)
        .await;
    expect_words(release, &refused.unwrap_err().to_string(), words);
    assert_eq!(site.ours().await?, before, "{release} left something");
    assert_eq!(site.releases()?, releases, "{release} is there");
    Ok(())
}

#[tokio::test]
async fn two_for_the_whole_cluster_are_refused() -> Result<()> {
    let site = Site::new(Major::Four).await?;
    let chart = chart::folder();
    let chart = chart.to_str().unwrap();
    for space in ["poolwright", "others", "shop"] {
        site.namespace(space).await?;
    }
    site.put(
        "install",
        "poolwright",
        chart,
        "poolwright",
        &["--wait", "--timeout=120s"],
    )
    .await?;
    let words = [
        "Another Poolwright",
        "in all namespaces",
        "release poolwright in namespace poolwright",
    ];
    expect_refused(&site, "second", &SECOND, &words).await?;
    // One namespace is a part of all.
    expect_one_namespace_refused(&site, &words).await?;
    // Its own upgrade is no other installation.
    site.put(
        "upgrade",
        "poolwright",
        chart,
        "poolwright",
        &["--wait", "--timeout=120s"],
    )
    .await?;
    Ok(())
}

/// Whoever applied the plain manifests is told apart from a release.
#[tokio::test]
async fn a_release_beside_the_plain_manifests_is_refused() -> Result<()> {
    let site = Site::new(Major::Three).await?;
    site.namespace("others").await?;
    let install = chart::repository("deploy/install");
    site.kubectl
        .run(["apply", "-k", install.to_str().unwrap()])
        .await?;
    let words = [
        "Another Poolwright",
        "an installation without Helm",
        "ClusterRoleBinding poolwright",
    ];
    expect_refused(&site, "second", &SECOND, &words).await
}

#[tokio::test]
async fn each_in_namespaces_of_its_own_work_side_by_side() -> Result<()> {
    let site = Site::new(Major::Four).await?;
    let chart = chart::folder();
    let chart = chart.to_str().unwrap();
    for space in ["first", "second", "others", "shop", "mail"] {
        site.namespace(space).await?;
    }
    let first = [
        &SCOPED[..],
        &["--set=watch.namespaces={shop}", "--wait", "--timeout=120s"],
    ]
    .concat();
    site.put("install", "poolwright", chart, "first", &first).await?;
    let second = [
        &SECOND[..],
        &SCOPED[..],
        &["--set=watch.namespaces={mail}", "--wait", "--timeout=120s"],
    ]
    .concat();
    site.put("install", "poolwright", chart, "second", &second)
        .await?;

    // Each account may work in its own namespace, and the operator asks for nothing more, while the other one works, too.
    let redis = Redis::start(RedisConfig::default()).await?;
    let mut operators = Vec::new();
    let ours = site.ours().await?;
    for (space, own, foreign) in [("first", "shop", "mail"), ("second", "mail", "shop")] {
        let account = format!("{space}:poolwright");
        let policy = format!("ValidatingAdmissionPolicy /operator-pods.poolwright.{space}.poolwright.dev");
        assert!(ours.contains(&policy), "{policy} is not in {ours:?}");
        assert!(
            site.may(&account, "create", "deployments.apps", own).await,
            "{account}"
        );
        assert!(
            !site.may(&account, "create", "deployments.apps", foreign).await,
            "{account}"
        );
        assert!(
            !site
                .may(&account, "list", "workerpools.poolwright.dev", "default")
                .await,
            "{account}"
        );
        operators.push((own, site.operator_as("poolwright", space, own).await?));
    }
    for (own, _) in &operators {
        put_worker(&site, own, &redis.url(0)).await?;
    }
    for (own, operator) in &operators {
        expect_worker(&site, own, operator).await?;
    }

    // A third in a namespace that has one already, and one for the whole cluster.
    let third = [
        &SECOND[..],
        &SCOPED[..],
        &["--set=watch.namespaces={others,mail}"],
    ]
    .concat();
    let words = [
        "Another Poolwright",
        "in namespace mail",
        "release poolwright in namespace second",
    ];
    expect_refused(&site, "third", &third, &words).await?;
    expect_refused(&site, "whole", &SECOND, &["Another Poolwright", "in namespace"]).await
}

/// Each by a selector of its own. The chart cannot tell whether two overlap; the same one twice is refused.
#[tokio::test]
async fn shards_work_side_by_side_and_beside_nobody_who_works_everywhere() -> Result<()> {
    let site = Site::new(Major::Four).await?;
    let chart = chart::folder();
    let chart = chart.to_str().unwrap();
    for space in ["poolwright", "others", "shop"] {
        site.namespace(space).await?;
    }
    let wait = ["--wait", "--timeout=120s"];
    let first = [&["--set=shard.namespaceSelector=shard=a"][..], &wait].concat();
    site.put("install", "poolwright-a", chart, "poolwright", &first)
        .await?;
    let of = |selector| [&SECOND[..], &[selector]].concat();
    let second = [of("--set=shard.namespaceSelector=shard=b"), wait.to_vec()].concat();
    site.put("install", "poolwright-b", chart, "poolwright", &second)
        .await?;

    let words = [
        "Another Poolwright",
        "in the namespaces that match \"shard=",
        "shard.namespaceSelector",
    ];
    expect_refused(
        &site,
        "third",
        &of("--set=shard.namespaceSelector=shard=a"),
        &words,
    )
    .await?;
    expect_refused(&site, "whole", &SECOND, &words).await?;
    expect_one_namespace_refused(&site, &words).await?;

    // A ClusterRole has the release's name and not its namespace.
    let other = of("--set=shard.namespaceSelector=shard=d");
    let words = [
        "ClusterRole poolwright-a is there already",
        "release poolwright-a in namespace poolwright",
        "set fullnameOverride",
    ];
    expect_refused(&site, "poolwright-a", &other, &words).await?;
    // This one is there once in a cluster.
    let own = [&other[..], &["--set=rbac.secretsClusterRole.create=true"]].concat();
    let words = ["ClusterRole poolwright-secrets", "rbac.secretsClusterRole.create"];
    expect_refused(&site, "third", &own, &words).await?;
    // Its own upgrade is no other installation, whatever its selector becomes.
    site.put(
        "upgrade",
        "poolwright-a",
        chart,
        "poolwright",
        &["--set=shard.namespaceSelector=shard=c"],
    )
    .await?;
    Ok(())
}
