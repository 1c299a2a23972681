//! The operator under its own account: it may not read Secrets until somebody runs the command that the condition prints,
//! and one of its namespaces may be out of its reach.

use super::{LIMIT, await_queue, expect_words};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use poolwright_api::ConditionType::{Ready, SignalsFresh};
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const PASSWORD: &str = "canary-password-e3d4";
/// The `ClusterRole` that the printed command names.
const ROLE: &str = "poolwright-secrets";

/// What is installed for the operator's account, which reads no Secrets.
async fn rules(stage: &Stage) -> Result<Value> {
    let args = [
        "create",
        "--dry-run=client",
        "-o",
        "json",
        "-f",
        &installed("access.yaml"),
    ];
    let text = stage.plane.kubectl()?.run(args).await?;
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let all: Vec<Value> = documents.collect::<std::result::Result<_, _>>()?;
    let role = all.iter().find(|one| one["kind"] == "ClusterRole");
    Ok(role.ok_or("no ClusterRole is installed")?["rules"].clone())
}

fn installed(file: &str) -> String {
    format!("{}/../deploy/install/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Lets the account `scaler` of the stage's namespace work in another one, or in its own.
async fn let_in(stage: &Stage, space: &str) -> Result<()> {
    let rbac = "rbac.authorization.k8s.io";
    let items = json!([
        {"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "scaler", "namespace": space},
            "rules": rules(stage).await?},
        {"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "scaler", "namespace": space},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "scaler"},
            "subjects": [{"kind": "ServiceAccount", "name": "scaler", "namespace": stage.namespace.name}]},
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    stage.plane.kubectl()?.apply(&list.to_string()).await?;
    Ok(())
}

/// Makes the account `scaler` and starts the operator as it, in place of the administrator's.
async fn operator_as_account(stage: &mut Stage, more: &[&str]) -> Result<()> {
    let space = stage.namespace.name.clone();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "scaler", "namespace": space}});
    let kubectl = stage.plane.kubectl()?;
    kubectl.apply(&account.to_string()).await?;
    let_in(stage, &space).await?;
    kubectl
        .run(["apply", "-f", &installed("secrets-access.yaml")])
        .await?;
    let request = TokenRequest::default();
    let accounts = stage.namespace.api::<ServiceAccount>();
    let made = accounts
        .create_token_request("scaler", &PostParams::default(), &request)
        .await?;
    let token = made.status.ok_or("no token was made")?.token;
    let kubeconfig = stage.dir.path().join("kubeconfig-scaler");
    stage.plane.kubeconfig_with_token(&token, &kubeconfig)?;
    stage.operator.kill();
    let dir = stage.dir.path().join("scaler");
    std::fs::create_dir(&dir)?;
    stage.operator = Operator::start(&kubeconfig, &space, &dir, more).await?;
    Ok(())
}

/// The command in a condition's message, as its words.
fn command(message: &str) -> Result<Vec<String>> {
    let from = message
        .find("kubectl ")
        .ok_or("the condition prints no command")?;
    let rest = message[from..].lines().next().unwrap_or_default();
    // A shell takes what follows for a comment.
    let line = rest.split(" #").next().unwrap_or(rest);
    Ok(line.split_whitespace().skip(1).map(str::to_owned).collect())
}

#[tokio::test]
async fn no_permission_on_a_secret_is_mended_by_the_command_that_is_printed() -> Result<()> {
    let mut stage = Stage::new("bad-permission").await?;
    let redis = Redis::start(RedisConfig {
        password: Some(PASSWORD.into()),
        ..RedisConfig::default()
    })
    .await?;
    operator_as_account(&mut stage, &[]).await?;
    // A long name, so that nothing that is printed may be cut.
    let name = format!("broker-{}", "x".repeat(200));
    stage.secret(&name, "url", &redis.url(0)).await?;
    stage
        .queue("q", json!({"urlSecretRef": {"name": name, "key": "url"}}))
        .await?;
    let patch = json!({"worker": {"image": FAKE_IMAGE, "env": []}, "scaling": {"minReplicas": 1}});
    stage.pool("w", &["q"], "", patch).await?;
    let message = stage
        .await_condition("w", SignalsFresh, "False", "SecretForbidden", LIMIT)
        .await?;
    let queue = await_queue(&stage, "q", "False", "SecretForbidden").await?;
    let (_, reason, _) = stage.condition("w", Ready).await?;
    assert_eq!(reason, "SecretForbidden");
    let space = stage.namespace.name.clone();
    let subject = format!("--serviceaccount={space}:scaler");
    for text in [&message, &queue] {
        expect_words(
            "the condition",
            text,
            &[
                "no permission to read a Secret",
                &subject,
                &format!("--clusterrole={ROLE}"),
            ],
        )?;
    }
    assert_eq!(command(&message)?, command(&queue)?);

    stage.plane.kubectl()?.run(command(&message)?).await?;
    stage
        .await_condition("w", SignalsFresh, "True", "AsDesired", LIMIT)
        .await?;
    await_queue(&stage, "q", "True", "AsDesired").await?;
    stage.await_replicas("w", 1, LIMIT).await?;

    // It asked for that one Secret by name, and for nothing else of its kind.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let user = format!("system:serviceaccount:{space}:scaler");
    let entries = audit_entries(&stage.plane.audit_log())?;
    let reads: Vec<_> = entries
        .iter()
        .filter(|entry| entry.user == user && entry.resource == "secrets")
        .collect();
    assert!(!reads.is_empty());
    for read in reads {
        assert_eq!((read.verb.as_str(), read.name.as_str()), ("get", name.as_str()));
    }
    stage.expect_unsaid(&[PASSWORD]).await
}

/// As after a restart, when one of several has been deleted with its Role in it.
#[tokio::test]
async fn a_namespace_out_of_reach_keeps_nobody_from_the_others_and_is_taken_up_once_it_is_there() -> Result<()>
{
    let mut stage = Stage::new("reach").await?;
    let away = TestNamespace::create(stage.plane.client().await?, "away").await?;
    let redis = Redis::start(RedisConfig::default()).await?;
    operator_as_account(&mut stage, &["--namespace", &away.name]).await?;
    let warning = format!(
        "could not be read yet: do they exist, and has this account its Role there? One that is gone \
         for good is to be taken out of --namespace namespaces=\"{}\"",
        away.name
    );
    let log = stage.operator.log();
    assert!(log.contains(&warning), "{log}");
    assert_eq!(stage.operator.get("/readyz").await?.0, 200);
    let url = redis.url(0);
    let patch = json!({"worker": {"image": FAKE_IMAGE, "env": []}, "scaling": {"minReplicas": 1}});
    stage.queue("q", json!({"url": url})).await?;
    stage.pool("w", &["q"], "", patch.clone()).await?;
    stage.await_replicas("w", 1, LIMIT).await?;

    let queue = json!({
        "apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"name": "q"}, "spec": {"broker": {"url": url}}});
    let mut pool = stage.pool_manifest("w", &["q"], "", patch);
    pool["metadata"]["namespace"] = json!(away.name);
    let (pools, queues) = (away.api::<WorkerPool>(), away.api::<TaskQueue>());
    let post = PostParams::default();
    queues.create(&post, &serde_json::from_value(queue)?).await?;
    pools.create(&post, &serde_json::from_value(pool)?).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        pools.get("w").await?.status.is_none(),
        "nothing can be written there"
    );
    let_in(&stage, &away.name).await?;
    wait_until("the other one to be worked in", LIMIT, || async {
        Ok(pools
            .get("w")
            .await?
            .status
            .is_some_and(|status| status.last_decision.is_some_and(|last| last.to == 1)))
    })
    .await
}
