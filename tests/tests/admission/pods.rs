//! Workers get nothing of their node, wherever nobody has said that they may.

use poolwright_tests::*;
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// What is asked for, and what is said of it.
fn greedy() -> [(&'static str, Value, &'static str); 8] {
    let sidecar = |patch: Value| {
        let mut one = json!({"name": "s", "image": FAKE_IMAGE});
        one.as_object_mut()
            .unwrap()
            .extend(patch.as_object().unwrap().clone());
        one
    };
    let adds = |name: &str| json!({"securityContext": {"capabilities": {"add": [name]}}});
    let privileged = || json!({"securityContext": {"privileged": true}});
    [
        (
            "host path",
            json!({"pod": {"volumes": [{"name": "fine", "emptyDir": {}}, {"name": "root", "hostPath": {"path": "/"}}]}}),
            "spec.pod.volumes \"root\" is a path of the node",
        ),
        (
            "host port of a sidecar",
            json!({"pod": {"sidecars": [sidecar(json!({"ports": [{"containerPort": 80}, {"containerPort": 80, "hostPort": 80}]}))]}}),
            "spec.pod: container \"s\" takes a port of the node",
        ),
        (
            "privileged sidecar",
            json!({"pod": {"sidecars": [sidecar(privileged())]}}),
            "spec.pod: container \"s\" is privileged",
        ),
        (
            "privileged init container",
            json!({"pod": {"initContainers": [sidecar(privileged())]}}),
            "spec.pod: container \"s\" is privileged",
        ),
        (
            "privileged worker",
            json!({"worker": privileged()}),
            "spec.worker is privileged",
        ),
        (
            "capability of a sidecar",
            json!({"pod": {"sidecars": [sidecar(adds("SYS_ADMIN"))]}}),
            "spec.pod: container \"s\" adds a capability other than NET_BIND_SERVICE",
        ),
        (
            "capability of an init container",
            json!({"pod": {"initContainers": [sidecar(adds("CHOWN"))]}}),
            "spec.pod: container \"s\" adds a capability other than NET_BIND_SERVICE",
        ),
        (
            "capability of the worker",
            json!({"worker": adds("SYS_PTRACE")}),
            "spec.worker adds a capability other than NET_BIND_SERVICE",
        ),
    ]
}

fn pool(name: &str, patch: &Value) -> Value {
    let mut spec = json!({
        "class": "General", "queues": [{"name": "q"}], "celery": {"app": "app"}, "worker": {"image": FAKE_IMAGE},
    });
    merge(&mut spec, patch);
    json!({"apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name}, "spec": spec})
}

fn merge(into: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().into_iter().flatten() {
        match into.get_mut(key) {
            Some(there) if there.is_object() => merge(there, value),
            _ => into[key] = value.clone(),
        }
    }
}

async fn create(kubectl: &Kubectl, pool: &Value, more: &[&str]) -> Result<String> {
    let args = [&["create", "-f", "-"][..], more].concat();
    kubectl.run_with_input(&args, &pool.to_string()).await
}

#[tokio::test]
async fn workers_get_nothing_of_their_node_unless_the_namespace_is_meant_for_it() -> Result<()> {
    let (namespace, kubectl) = super::namespace("node-less").await?;
    let dry = ["--dry-run=server"];
    // The policy may be so new that the API server does not obey it yet.
    wait_until("the policy to be obeyed", LIMIT, || async {
        Ok(create(&kubectl, &pool("w", &greedy()[0].1), &dry).await.is_err())
    })
    .await?;
    create(&kubectl, &pool("w", &json!({})), &[]).await?;
    let end = format!(
        ", which is not for namespace \"{}\" unless it has the label pod-security.kubernetes.io/enforce: privileged",
        namespace.name
    );
    for (what, patch, words) in greedy() {
        let what = format!("node: {what}");
        attempts::tried(&what);
        let change = json!({"spec": patch}).to_string();
        let change = ["patch", "workerpool", "w", "--type=merge", "-p", &change];
        for tried in [
            create(&kubectl, &pool("new", &patch), &[]).await,
            kubectl.run(change).await,
        ] {
            let text = tried
                .err()
                .ok_or_else(|| format!("{what} was let through"))?
                .to_string();
            assert!(text.contains(&format!("{words}{end}")), "{what}: {text}");
        }
        attempts::blocked(&what);
    }
    // What pods may have anywhere.
    let fine = json!({
        "worker": {"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}, "privileged": false}},
        "pod": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "sidecars": [{"name": "s", "image": FAKE_IMAGE, "ports": [{"containerPort": 80}]}],
        },
    });
    create(&kubectl, &pool("fine", &fine), &[]).await?;

    let label = |level: &str| format!("pod-security.kubernetes.io/enforce={level}");
    let cluster = Plane::shared().await?.kubectl()?;
    let mark = async |level: &str| {
        let label = label(level);
        let args = ["label", "namespace", &namespace.name, &label, "--overwrite"];
        cluster.run(args).await.map(|_| ())
    };
    mark("baseline").await?;
    assert!(create(&kubectl, &pool("new", &greedy()[0].1), &[]).await.is_err());
    mark("privileged").await?;
    wait_until("the label to be seen", LIMIT, || async {
        Ok(create(&kubectl, &pool("new", &greedy()[0].1), &dry).await.is_ok())
    })
    .await?;
    for (at, (_, patch, _)) in greedy().iter().enumerate() {
        create(&kubectl, &pool(&format!("meant-{at}"), patch), &[]).await?;
    }
    // One that is there is scaled all the same when the label is gone, and changed for the better.
    mark("baseline").await?;
    wait_until("the label to be seen", LIMIT, || async {
        Ok(create(&kubectl, &pool("new", &greedy()[0].1), &dry)
            .await
            .is_err())
    })
    .await?;
    for patch in [
        json!({"spec": {"scaling": {"maxReplicas": 3}}}),
        json!({"spec": {"pod": null}}),
    ] {
        let patch = patch.to_string();
        let args = ["patch", "workerpool", "meant-0", "--type=merge", "-p", &patch];
        kubectl.run(args).await?;
    }
    Ok(())
}
