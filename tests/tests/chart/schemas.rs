//! kubeconform, strict, over everything that is rendered or shipped: against what the local API server knows, and our own
//! definitions.

use super::expect_words;
use poolwright_tests::chart::{self, Helm, Major};
use poolwright_tests::{Plane, Result, plane};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Monitors are of the Prometheus operator, whose definitions are not at hand: what the chart uses of them.
fn folders(own: &Path) -> [PathBuf; 2] {
    [own.to_owned(), chart::repository("tests/tests/chart/monitoring")]
}

async fn schemas() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    chart::kubernetes_schemas(Plane::shared().await?, folder.path()).await?;
    let ours = chart::our_schemas(&chart::repository("crds"), folder.path())?;
    assert_eq!(ours.len(), 3, "{ours:?}");
    Ok(folder)
}

/// Its words, and whether it found nothing.
fn conform(schemas: &Path, files: &[PathBuf]) -> Result<(bool, String)> {
    let mut command = Command::new(plane::tool("kubeconform")?);
    command.args(["-strict", "-summary", "-verbose"]);
    for folder in folders(schemas) {
        let pattern = format!(
            "{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
            folder.display()
        );
        command.args(["-schema-location", &pattern]);
    }
    let output = command.args(files).output()?;
    let told = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((output.status.success(), told))
}

fn manifests(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(chart::repository(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let kustomization = |path: &PathBuf| path.ends_with("kustomization.yaml");
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml") && !kustomization(path))
        .collect()
}

#[tokio::test]
async fn everything_conforms_to_its_schema() -> Result<()> {
    let schemas = schemas().await?;
    let rendered = tempfile::tempdir()?;
    let folders = [
        "crds",
        "deploy/install",
        "deploy/components/monitoring",
        "deploy/components/network-policy",
        "deploy/policies",
        "deploy/examples",
        "deploy/examples/airflow",
    ];
    let mut files: Vec<PathBuf> = folders.into_iter().flat_map(manifests).collect();
    for major in Major::ALL {
        let helm = Helm::new(major)?;
        for values in chart::ci_values()? {
            let name = values
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let file = rendered.path().join(format!("{major:?}-{name}"));
            std::fs::write(&file, helm.render(Some(&values), &[])?)?;
            files.push(file);
        }
    }
    // What a catalogue shows as examples is taken by our own definitions.
    let annotations = chart::read_yaml(&chart::folder().join("Chart.yaml"))?;
    let examples = annotations["annotations"]["artifacthub.io/crdsExamples"]
        .as_str()
        .unwrap();
    let examples: Vec<serde_json::Value> = serde_saphyr::from_str(examples)?;
    assert_eq!(examples.len(), 3);
    for (number, example) in examples.iter().enumerate() {
        let file = rendered.path().join(format!("example-{number}.json"));
        std::fs::write(&file, example.to_string())?;
        files.push(file);
    }
    let (good, told) = conform(schemas.path(), &files)?;
    assert!(good, "{told}");
    expect_words("kubeconform", &told, &["Invalid: 0, Errors: 0, Skipped: 0"]);
    Ok(())
}

/// The same schemas find what is wrong: a misspelt field at any depth, a wrong type, and one of our own.
#[tokio::test]
async fn a_mistake_is_found() -> Result<()> {
    let schemas = schemas().await?;
    let folder = tempfile::tempdir()?;
    let good = Helm::new(Major::Three)?.render(Some(&chart::folder().join("ci/pod-values.yaml")), &[])?;
    let monitor = Helm::new(Major::Three)?.render(
        Some(&chart::folder().join("ci/service-monitor-values.yaml")),
        &["--show-only=templates/servicemonitor.yaml"],
    )?;
    let fleet = std::fs::read_to_string(chart::repository("deploy/examples/fleet.yaml"))?;
    let cases = [
        (
            &good,
            "readOnlyRootFilesystem: true",
            "readOnlyRootFileSystem: true",
            "readOnlyRootFileSystem",
        ),
        (
            &good,
            "containerPort: 8080",
            "containerPort: http",
            "containerPort",
        ),
        (
            &monitor,
            "honorLabels: true",
            "honourLabels: true",
            "honourLabels",
        ),
        (&fleet, "maxReplicas: ", "maxReplica: ", "maxReplica"),
    ];
    for (number, (text, from, to, word)) in cases.into_iter().enumerate() {
        assert!(text.contains(from), "{from}");
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text.replacen(from, to, 1))?;
        let (good, told) = conform(schemas.path(), &[file])?;
        assert!(!good, "{to} passes: {told}");
        expect_words(to, &told, &[word]);
    }
    Ok(())
}
