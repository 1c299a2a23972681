//! Two operators that share a cluster by the labels of namespaces, each its own user under the rights that the chart gives
//! a shard: each works in its own namespaces, and a namespace goes from one to the other with all that runs in it.

use crate::ground::{Ground, LIMIT};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use poolwright_tests::chart::{self, Helm, Major};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tempfile::TempDir;

/// A namespace in which another has worked is taken up after 15 s, and the first watches take a moment.
const TAKE_OVER: Duration = Duration::from_secs(30);
/// Whose labels match no more is let go after the watch has told of it.
const LET_GO: Duration = Duration::from_secs(2);

/// One operator of a shard.
struct Owner {
    user: String,
    operator: Operator,
    _dir: TempDir,
}

/// Two shards, and a namespace with a WorkerPool `w` for each.
struct Shards {
    key: String,
    grounds: [Ground; 2],
    owners: [Owner; 2],
}

/// What the chart grants a shard.
fn rules() -> Result<Value> {
    let values = chart::folder().join("ci/shard-values.yaml");
    let text = Helm::new(Major::Three)?.render(Some(&values), &["--show-only=templates/access.yaml"])?;
    let objects = chart::objects(&text)?;
    let role = objects
        .iter()
        .find(|one| chart::identity(one) == "ClusterRole /shard-a");
    Ok(role.ok_or("the chart makes no ClusterRole for a shard")?["rules"].clone())
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}

/// A namespace in which no operator has worked, and none works.
async fn ground(prefix: &str) -> Result<Ground> {
    let mut stage = Stage::new(prefix).await?;
    stage.operator.kill();
    let redis = Redis::start(RedisConfig::default()).await?;
    let broker = redis.url(0);
    stage.queue("q", json!({"url": broker})).await?;
    let publisher = Celery::locate()?.publisher(&broker, &[]).await?;
    Ok(Ground {
        stage,
        redis,
        broker,
        publisher,
    })
}

/// An account with a shard's rights, and with those on leases in its namespace.
async fn allow(stage: &Stage, name: &str, rules: &Value) -> Result<()> {
    let (create, space) = (PostParams::default(), &stage.namespace);
    let client = stage.plane.client().await?;
    let account = json!({"kind": "ServiceAccount", "name": name, "namespace": space.name});
    let meta = json!({"name": name});
    space
        .api()
        .create(&create, &object::<ServiceAccount>(json!({"metadata": meta}))?)
        .await?;
    let whole = format!("{}-{name}", space.name);
    Api::all(client.clone())
        .create(
            &create,
            &object::<ClusterRole>(json!({"metadata": {"name": whole}, "rules": rules}))?,
        )
        .await?;
    let binding = json!({"metadata": {"name": whole}, "subjects": [account],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": whole}});
    Api::all(client)
        .create(&create, &object::<ClusterRoleBinding>(binding)?)
        .await?;
    let leases = json!({"metadata": meta, "rules": [{"apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"], "verbs": ["get", "create", "update"]}]});
    space.api().create(&create, &object::<Role>(leases)?).await?;
    let binding = json!({"metadata": meta, "subjects": [account],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}});
    space
        .api()
        .create(&create, &object::<RoleBinding>(binding)?)
        .await?;
    Ok(())
}

impl Owner {
    async fn start(stage: &Stage, name: &str, selector: &str, rules: &Value) -> Result<Self> {
        allow(stage, name, rules).await?;
        let dir = tempfile::tempdir()?;
        let kubeconfig = dir.path().join("kubeconfig");
        let token = stage
            .kubectl()?
            .run(["create", "token", name, "--duration=6h"])
            .await?;
        stage.plane.kubeconfig_with_token(token.trim(), &kubeconfig)?;
        let space = &stage.namespace.name;
        let args = [
            format!("--namespace-selector={selector}"),
            format!("--lease={space}/{name}"),
            "--lease-seconds=3".to_owned(),
        ];
        let args = args.each_ref().map(String::as_str);
        Ok(Self {
            user: format!("system:serviceaccount:{space}:{name}"),
            operator: Operator::start(&kubeconfig, "", dir.path(), &args).await?,
            _dir: dir,
        })
    }

    /// When it said this of a namespace, once it has.
    async fn await_said(&self, what: &str, space: &str, limit: Duration) -> Result<()> {
        wait_until(&format!("{what} {space}"), limit, || async {
            let log = self.operator.log();
            Ok(log
                .lines()
                .any(|line| line.contains(what) && line.contains(space)))
        })
        .await
    }
}

impl Shards {
    async fn new() -> Result<Self> {
        let (one, two) = tokio::try_join!(ground("shard-a"), ground("shard-b"))?;
        let (rules, key) = (rules()?, format!("test.example.com/{}", one.stage.namespace.name));
        let of = |shard: &str| format!("{key} in ({shard})");
        let owners = [
            Owner::start(&one.stage, "owner-a", &of("a"), &rules).await?,
            Owner::start(&two.stage, "owner-b", &of("b"), &rules).await?,
        ];
        for ground in [&one, &two] {
            ground.pool("w", json!({"scaling": {"maxReplicas": 2}})).await?;
        }
        Ok(Self {
            key,
            grounds: [one, two],
            owners,
        })
    }

    /// Gives a namespace to a shard, or to none.
    async fn label(&self, ground: usize, shard: Option<&str>) -> Result<Timestamp> {
        let label = match shard {
            Some(shard) => format!("{}={shard}", self.key),
            None => format!("{}-", self.key),
        };
        let stage = &self.grounds[ground].stage;
        let kubectl = stage.plane.kubectl()?;
        kubectl
            .run(["label", "--overwrite", "namespace", &stage.namespace.name, &label])
            .await?;
        Ok(Timestamp::now())
    }

    fn space(&self, ground: usize) -> &str {
        &self.grounds[ground].stage.namespace.name
    }

    /// What an operator asked the API server for.
    fn asked(&self, owner: usize) -> Result<Vec<AuditEntry>> {
        let all = audit_entries(&self.grounds[0].stage.plane.audit_log())?.into_iter();
        Ok(all.filter(|one| one.user == self.owners[owner].user).collect())
    }

    /// Where it has written, but for its Lease, since a moment.
    fn written(&self, owner: usize, since: Timestamp) -> Result<BTreeSet<String>> {
        let all = self.asked(owner)?.into_iter();
        let writes = all.filter(|one| one.is_write() && one.resource != "leases" && one.at > since);
        Ok(writes.map(|one| one.namespace).collect())
    }

    async fn pods(&self, ground: usize) -> Result<BTreeSet<String>> {
        let pods = self.grounds[ground].living("w").await?;
        Ok(pods.iter().map(ResourceExt::name_any).collect())
    }
}

#[tokio::test]
async fn each_works_in_its_own_namespaces_and_one_is_handed_over_with_all_that_runs() -> Result<()> {
    let mut shards = Shards::new().await?;
    let [a, b] = [0, 1].map(|ground| shards.space(ground).to_owned());
    let begin = Timestamp::now();
    let mut ids = Vec::new();
    for ground in &mut shards.grounds {
        ids.push(ground.publish(4, 0.5).await?);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for owner in [0, 1] {
        assert!(
            shards.written(owner, begin)?.is_empty(),
            "no namespace matches yet"
        );
    }
    for (ground, shard) in [(0, "a"), (1, "b")] {
        shards.label(ground, Some(shard)).await?;
    }
    for ground in &shards.grounds {
        ground.stage.await_ended(4, LIMIT).await?;
        ground.stage.await_no_pods("w", LIMIT).await?;
    }
    assert_eq!(shards.written(0, begin)?, BTreeSet::from([a.clone()]));
    assert_eq!(shards.written(1, begin)?, BTreeSet::from([b.clone()]));

    // The first namespace changes hands while its workers are busy.
    ids[0].extend(shards.grounds[0].publish(6, 25.0).await?);
    shards.grounds[0].stage.await_running(4, LIMIT).await?;
    let pods = shards.pods(0).await?;
    assert_eq!(pods.len(), 2);
    let labelled = shards.label(0, Some("b")).await?;
    shards.owners[0].await_said("let go", &a, LIMIT).await?;
    shards.owners[1].await_said("taken up", &a, TAKE_OVER).await?;
    assert_eq!(shards.pods(0).await?, pods, "pods were stopped, or started");
    ids[0].extend(shards.grounds[0].publish(2, 0.5).await?);
    shards.grounds[0].stage.await_ended(12, LIMIT).await?;
    shards.grounds[0].stage.await_no_pods("w", LIMIT).await?;
    let late = labelled + LET_GO;
    assert!(
        shards.written(0, late)?.is_empty(),
        "{:?}",
        shards.written(0, late)?
    );
    assert!(shards.written(1, late)?.contains(&a));
    assert_eq!(shards.written(1, begin)?, BTreeSet::from([a.clone(), b.clone()]));
    expect_no_overlap(&shards, &a)?;

    // What no shard has is left as it is, and what was known of it is no number any more.
    ids[1].extend(shards.grounds[1].publish(2, 15.0).await?);
    shards.grounds[1].stage.await_running(2, LIMIT).await?;
    let pods = shards.pods(1).await?;
    let left = shards.label(1, None).await? + LET_GO;
    shards.grounds[1].stage.await_ended(6, LIMIT).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(shards.pods(1).await?, pods, "nobody scales what nobody has");
    let metrics = shards.owners[1].operator.metrics().await?;
    assert!(!metrics.contains(&b) && metrics.contains(&a), "{metrics}");
    for owner in [0, 1] {
        assert!(!shards.written(owner, left)?.contains(&b));
    }
    for (ground, ids) in shards.grounds.iter().zip(&ids) {
        ground.stage.expect_all_done_once(ids)?;
    }
    expect_rights(&shards)
}

/// Nobody wrote to the namespace after the other had begun to.
fn expect_no_overlap(shards: &Shards, space: &str) -> Result<()> {
    let times = |owner| -> Result<Vec<Timestamp>> {
        let all = shards.asked(owner)?.into_iter();
        let writes = all.filter(|one| one.is_write() && one.namespace == space && one.resource != "leases");
        Ok(writes.map(|one| one.at).collect())
    };
    let (last, first) = (times(0)?.into_iter().max(), times(1)?.into_iter().min());
    println!("the last write of the one was at {last:?}, the first of the other at {first:?}");
    assert!(last.is_some() && last < first);
    Ok(())
}

/// Of namespaces all is used that is granted, and nothing at all was refused.
fn expect_rights(shards: &Shards) -> Result<()> {
    let rules = rules()?;
    let granted = rules
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["resources"][0] == "namespaces");
    let granted: BTreeSet<&str> = granted
        .flat_map(|rule| rule["verbs"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    for owner in [0, 1] {
        let asked = shards.asked(owner)?;
        let of_namespaces = asked.iter().filter(|one| one.resource == "namespaces");
        let used: BTreeSet<&str> = of_namespaces.map(|one| one.verb.as_str()).collect();
        assert_eq!(used, granted);
        let refused: Vec<&AuditEntry> = asked.iter().filter(|one| one.code == 403).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
    Ok(())
}
