//! More than one installation in a cluster: beside each other where each has namespaces of its own, and refused before
//! anything of it exists where two would decide about the same workers.

use super::expect_words;
use super::site::Site;
use poolwright_tests::chart::{self, Major};
use poolwright_tests::*;
use std::time::Duration;

const SCOPED: [&str; 1] = ["--set=rbac.scope=namespaces"];
/// What is there once in a cluster, and is the first one's.
const SECOND: [&str; 4] = [
    "--set=crds.install=false",
    "--set=policies.enabled=false",
    "--set=rbac.userRoles.create=false",
    "--set=rbac.secretsClusterRole.create=false",
];

/// A second one that keeps to one namespace.
fn in_one_namespace() -> Vec<&'static str> {
    [
        &SECOND[..],
        &SCOPED[..],
        &["--set=watch.namespaces={shop}", "--set=crds.install=true"],
    ]
    .concat()
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
    expect_refused(&site, "scoped", &in_one_namespace(), &words).await?;
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

    // Each account may work in its own namespace, and the operator asks for nothing more.
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
        let operator = site.operator_as("poolwright", space, own).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!operator.log().contains("orbidden"), "{}", operator.log());
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
    expect_refused(&site, "scoped", &in_one_namespace(), &words).await?;
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
