//! What the documents and the examples show is what the API server takes.

use poolwright_tests::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// By its schemas, its rules in CEL and the policies: all that stands between a manifest and being stored.
#[tokio::test]
async fn the_api_server_takes_every_manifest_of_the_documents_and_warns_of_none() -> Result<()> {
    let (_namespace, kubectl) = super::namespace("examples").await?;
    let create = async |yaml: &str| {
        kubectl
            .run_with_input(
                &["create", "--dry-run=server", "--warnings-as-errors", "-f", "-"],
                yaml,
            )
            .await
    };

    // The definitions may be so new that some of the server does not know them yet.
    let all = manifests::all();
    assert!(all.len() >= 15, "only {} manifests were found", all.len());
    wait_until("the definitions to be served", LIMIT, || async {
        Ok(create(&all[0].1).await.is_ok())
    })
    .await?;
    for (place, yaml) in &all {
        let created = create(yaml).await.map_err(|error| format!("{place}: {error}"))?;
        let objects = yaml.lines().filter(|line| line.starts_with("kind: ")).count();
        let told = created
            .lines()
            .filter(|line| line.ends_with("(server dry run)"))
            .count();
        assert_eq!(told, objects, "{place}: {created}");
    }

    // It would have told a field that does not exist.
    let wrong = all[0].1.replacen("  queues:", "  queue:", 1);
    assert_ne!(wrong, all[0].1);
    assert!(create(&wrong).await.is_err());
    Ok(())
}
