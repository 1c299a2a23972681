//! What Kubernetes' own roles let people do with our kinds, once ours are added to them, as `docs/how-to/install.md` says.

use poolwright_tests::*;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// Ours, each bound by itself: who writes something has to see it.
const OWN: [(&str, &[&str]); 2] = [
    ("poolwright-queue-editor", &["pools", "taskqueues"]),
    ("poolwright-editor", &["pools", "taskqueues", "workerpools"]),
];

/// One namespace, in which people hold one role each: three of Kubernetes' own, and two of ours.
struct Place {
    namespace: TestNamespace,
    kubectl: Kubectl,
}

impl Place {
    async fn new() -> Result<Self> {
        let (namespace, kubectl) = super::namespace("people").await?;
        let roles = manifests::repository("deploy/install/user-roles.yaml");
        let roles = roles.to_str().ok_or("the file's name is no text")?;
        let cluster = Plane::shared().await?.kubectl()?;
        cluster
            .run(["apply", "--server-side", "--force-conflicts", "-f", roles])
            .await?;
        for role in ["view", "edit", "admin", OWN[0].0, OWN[1].0] {
            let (of, to) = (format!("--clusterrole={role}"), format!("--user={role}"));
            kubectl.run(["create", "rolebinding", role, &of, &to]).await?;
        }
        Ok(Self { namespace, kubectl })
    }

    async fn may(&self, who: &str, verb: &str, what: &str, part: &str) -> Result<bool> {
        let (who, part) = (format!("--as={who}"), format!("--subresource={part}"));
        let kind = format!("{what}.poolwright.dev");
        let args = ["auth", "can-i", verb, &kind, &who, &part];
        let output = self.kubectl.output(args).await?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            text if text == "no" || text.starts_with("no ") => Ok(false),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    }

    async fn create(&self, who: &str, kind: &str) -> Result<String> {
        let spec = match kind {
            "TaskQueue" => json!({"broker": {"url": "redis://redis:6379/0"}}),
            "Pool" => json!({"slots": 3}),
            _ => json!({
                "class": "General", "queues": [{"name": "q"}], "celery": {"app": "app"}, "worker": {"image": FAKE_IMAGE},
            }),
        };
        let object = json!({
            "apiVersion": "poolwright.dev/v1alpha1", "kind": kind, "metadata": {"name": who}, "spec": spec,
        });
        let who = format!("--as={who}");
        let args = ["create", "-f", "-", &who];
        self.kubectl.run_with_input(&args, &object.to_string()).await
    }
}

#[tokio::test]
async fn kubernetes_own_roles_let_people_do_what_is_documented() -> Result<()> {
    let place = Place::new().await?;
    // A controller adds the rules to the three roles.
    wait_until("the rights to count", LIMIT, || async {
        Ok(place.may("view", "list", "pools", "").await?
            && place.may("edit", "create", "taskqueues", "").await?
            && place.may("admin", "create", "workerpools", "").await?)
    })
    .await?;

    for what in ["pools", "taskqueues", "workerpools"] {
        for who in ["view", "edit", "admin"] {
            for verb in READ {
                assert!(
                    place.may(who, verb, what, "").await?,
                    "{who} may not {verb} {what}"
                );
            }
            let writes = who == "admin" || who == "edit" && what != "workerpools";
            for verb in WRITE {
                let may = place.may(who, verb, what, "").await?;
                assert_eq!(may, writes, "{who}, {verb} {what}");
            }
            // It is the operator's to say.
            for verb in ["update", "patch"] {
                let may = place.may(who, verb, what, "status").await?;
                assert!(!may, "{who} may {verb} the status of {what}");
            }
        }
    }
    for (who, scales) in [
        ("view", false),
        ("edit", false),
        ("admin", true),
        ("nobody", false),
    ] {
        for verb in ["update", "patch"] {
            let may = place.may(who, verb, "workerpools", "scale").await?;
            assert_eq!(may, scales, "{who}, {verb} workerpools/scale");
        }
    }
    assert!(!place.may("nobody", "get", "workerpools", "").await?);
    for (who, kinds) in OWN {
        for kind in ["pools", "taskqueues", "workerpools"] {
            for verb in READ.iter().chain(&WRITE) {
                let may = place.may(who, verb, kind, "").await?;
                assert_eq!(may, kinds.contains(&kind), "{who}, {verb} {kind}");
            }
        }
    }
    Ok(())
}

/// Not only by what the API server says of the rights: by what it does, with its policies.
#[tokio::test]
async fn who_holds_them_creates_lists_and_is_refused_accordingly() -> Result<()> {
    let place = Place::new().await?;
    wait_until("the rights to count", LIMIT, || async {
        Ok(place.may("admin", "create", "workerpools", "").await?
            && place.may("edit", "create", "pools", "").await?
            && place.may("view", "list", "workerpools", "").await?)
    })
    .await?;
    for (who, kind, created) in [
        ("view", "TaskQueue", false),
        ("view", "WorkerPool", false),
        ("edit", "TaskQueue", true),
        ("edit", "Pool", true),
        ("edit", "WorkerPool", false),
        ("admin", "TaskQueue", true),
        ("admin", "WorkerPool", true),
    ] {
        match place.create(who, kind).await {
            Ok(_) => assert!(created, "{who} created a {kind}"),
            Err(error) => {
                let words = error.to_string();
                assert!(!created && words.contains("orbidden"), "{who}, {kind}: {words}");
            }
        }
    }
    let list = ["get", "workerpools,taskqueues", "--output=name", "--as=view"];
    let seen = place.kubectl.run(list).await?;
    for name in ["workerpool.poolwright.dev/admin", "taskqueue.poolwright.dev/edit"] {
        assert!(seen.contains(name), "{seen}");
    }
    // Bound in one namespace, they reach no other.
    let (other, elsewhere) = super::namespace("people").await?;
    assert_ne!(other.name, place.namespace.name);
    assert!(elsewhere.run(list).await.is_err());
    Ok(())
}
