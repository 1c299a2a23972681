//! Files that are made of others hold what they should. `UPDATE=1` writes them anew, which is `make manifests`.

use poolwright_tests::{Kubectl, Result, chart};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

#[test]
fn what_is_generated_is_what_it_is_made_of() {
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    for one in chart::generated().unwrap() {
        let path = chart::repository(one.path.to_str().unwrap());
        if update {
            fs::write(&path, &one.text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == one.text,
            "{} differs from what it is made of: run `make manifests`",
            one.path.display()
        );
    }
}

#[test]
fn the_copies_are_all_there_is() {
    let made: BTreeSet<_> = chart::generated()
        .unwrap()
        .into_iter()
        .map(|one| one.path)
        .collect();
    for folder in ["charts/poolwright/files/crds", "charts/poolwright/files/policies"] {
        for entry in fs::read_dir(chart::repository(folder)).unwrap() {
            let path = std::path::Path::new(folder).join(entry.unwrap().file_name());
            assert!(made.contains(&path), "{} is a copy of nothing", path.display());
        }
    }
}

/// The program, the folder and the chart have the same definitions; the chart's differ in metadata alone.
#[test]
fn definitions_are_the_same_everywhere() {
    let program = poolwright_tests::operator::built("debug");
    let printed = Command::new(program).arg("crd").output().unwrap();
    let printed = chart::objects(std::str::from_utf8(&printed.stdout).unwrap()).unwrap();
    assert_eq!(printed.len(), 3);
    let rendered = chart::Helm::new(chart::Major::Four).unwrap();
    let rendered = rendered
        .render(None, &["--set=image.repository=poolwright"])
        .unwrap();
    let rendered: Vec<_> = chart::objects(&rendered)
        .unwrap()
        .into_iter()
        .filter(|one| one["kind"] == "CustomResourceDefinition")
        .collect();
    assert_eq!(rendered.len(), printed.len());
    for definition in &printed {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let file = format!("crds/poolwright.dev_{}.yaml", name.split('.').next().unwrap());
        let file = chart::read_yaml(&chart::repository(&file)).unwrap();
        assert!(file == *definition, "{name}: crds/ differs from the program");
        let of_chart = rendered
            .iter()
            .find(|one| one["metadata"]["name"] == name)
            .unwrap();
        assert!(
            of_chart["spec"] == definition["spec"],
            "{name}: the chart differs"
        );
        let annotations = &of_chart["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep", "{name}");
        let number = "poolwright.dev/crd-version";
        assert_eq!(
            annotations[number], definition["metadata"]["annotations"][number],
            "{name}"
        );
    }
}

/// One number for the chart, the operator in it and the image that the plain manifests name.
#[tokio::test]
async fn versions_agree() -> Result<()> {
    let about = chart::read_yaml(&chart::folder().join("Chart.yaml"))?;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(about["appVersion"], version);
    let kubectl = Kubectl::new(&chart::repository("no-cluster"))?;
    let install = chart::repository("deploy/install");
    let text = kubectl.run(["kustomize", install.to_str().unwrap()]).await?;
    let image = format!("image: registry.example.com/poolwright:{version}\n");
    assert!(text.contains(&image), "{image}");
    Ok(())
}

/// What a catalogue says of our kinds.
#[test]
fn the_catalogue_names_every_definition() {
    let about = chart::read_yaml(&chart::folder().join("Chart.yaml")).unwrap();
    let listed = about["annotations"]["artifacthub.io/crds"].as_str().unwrap();
    let listed: Vec<serde_json::Value> = serde_saphyr::from_str(listed).unwrap();
    let named = |one: &serde_json::Value| (one["name"].clone(), one["kind"].clone(), one["version"].clone());
    let listed: Vec<_> = listed.iter().map(named).collect();
    let folder = std::fs::read_dir(chart::folder().join("files/crds")).unwrap();
    let files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), listed.len());
    for file in files {
        let one = chart::read_yaml(&file).unwrap();
        let (spec, name) = (&one["spec"], one["metadata"]["name"].clone());
        let versions = spec["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 1, "{name}");
        let expected = (name, spec["names"]["kind"].clone(), versions[0]["name"].clone());
        assert!(listed.contains(&expected), "{expected:?} is not in {listed:?}");
    }
}

/// A catalogue looks through the images that a chart brings along for known weaknesses. The operator's has no name yet.
#[test]
fn the_catalogue_names_every_image_that_is_not_the_users() {
    let about = chart::read_yaml(&chart::folder().join("Chart.yaml")).unwrap();
    let listed = about["annotations"]["artifacthub.io/images"].as_str().unwrap();
    let listed: Vec<serde_json::Value> = serde_saphyr::from_str(listed).unwrap();
    let listed: BTreeSet<_> = listed.iter().map(|one| one["image"].as_str().unwrap()).collect();
    let rendered = chart::Helm::new(chart::Major::Four).unwrap();
    let rendered = rendered
        .render(None, &["--set=image.repository=of-the-user"])
        .unwrap();
    let images = rendered.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("- ");
        Some(line.strip_prefix("image: ")?.trim_matches('"'))
    });
    let images: BTreeSet<_> = images.filter(|one| !one.contains("of-the-user")).collect();
    assert_eq!(images, listed);
}

/// As a user builds it, with an image of his own.
#[tokio::test]
async fn kustomize_sets_the_image_and_finds_every_object() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let install = chart::repository("deploy/install");
    let mine = format!(
        "resources: [{}]\nimages: [{{name: registry.example.com/poolwright, newName: mine/poolwright, newTag: \"7\"}}]\n",
        relative(&install, folder.path())
    );
    fs::write(folder.path().join("kustomization.yaml"), mine)?;
    let kubectl = Kubectl::new(&folder.path().join("no-cluster"))?;
    let text = kubectl
        .run(["kustomize", folder.path().to_str().unwrap()])
        .await?;
    let objects = chart::objects(&text)?;
    let deployment = objects.iter().find(|one| one["kind"] == "Deployment").unwrap();
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "mine/poolwright:7");
    let found: BTreeSet<String> = objects.iter().map(chart::identity).collect();
    assert_eq!(found.len(), objects.len(), "an object is there twice");
    // All that the chart makes, under the same names.
    let rendered = chart::Helm::new(chart::Major::Three)?
        .render(None, &["--set=image.repository=poolwright", "--no-hooks"])?;
    for object in chart::objects(&rendered)? {
        let identity = chart::identity(&object);
        assert!(found.contains(&identity), "{identity} is not in deploy/install");
    }
    Ok(())
}

/// Who uses kubectl has the same choices: the components, as the page shows them, make what the chart makes with its
/// values, and where brokers are is changed by the page's patch.
#[tokio::test]
async fn components_make_what_the_chart_makes_with_its_values() -> Result<()> {
    let page = fs::read_to_string(chart::repository("docs/how-to/install.md"))?;
    let shown = page
        .split("```yaml\n")
        .find(|block| block.starts_with("resources:"))
        .and_then(|block| block.split("```").next())
        .unwrap_or_default();
    let mut kustomization: Value = serde_saphyr::from_str(shown)?;
    let folder = tempfile::tempdir()?;
    let mut paths = 0;
    for list in ["resources", "components"] {
        for path in kustomization[list].as_array_mut().into_iter().flatten() {
            let to = chart::repository(path.as_str().unwrap_or_default());
            *path = relative(&to, folder.path()).into();
            paths += 1;
        }
    }
    assert_eq!(paths, 3, "{shown}");
    let patch = kustomization["patches"].take();
    assert!(
        patch[0]["patch"].to_string().contains("/spec/egress/2"),
        "{patch}"
    );
    let kubectl = Kubectl::new(&folder.path().join("no-cluster"))?;
    let build = async |kustomization: &Value| -> Result<Vec<Value>> {
        fs::write(
            folder.path().join("kustomization.yaml"),
            kustomization.to_string(),
        )?;
        let text = kubectl
            .run(["kustomize", folder.path().to_str().unwrap_or_default()])
            .await?;
        chart::objects(&text)
    };
    let made = build(&kustomization).await?;
    let settings = [
        &["--set=image.repository=poolwright", "--no-hooks"][..],
        chart::WITH_COMPONENTS,
    ]
    .concat();
    let rendered = chart::objects(&chart::Helm::new(chart::Major::Three)?.render(None, &settings)?)?;
    assert_eq!(made.len(), rendered.len() + 1, "the namespace alone is more");
    let annotations = |one: &Value| one["spec"]["template"]["metadata"]["annotations"].clone();
    let added = ["ServiceMonitor", "PrometheusRule", "ConfigMap", "NetworkPolicy"];
    let mut compared = 0;
    for object in &rendered {
        let identity = chart::identity(object);
        let found = made.iter().find(|one| chart::identity(one) == identity);
        let found = found.ok_or_else(|| format!("{identity} is not made"))?;
        if added.iter().any(|kind| object["kind"] == *kind) {
            let same = found["spec"] == object["spec"] && found["data"] == object["data"];
            assert!(same, "{identity}: {found}");
            compared += 1;
        } else if object["kind"] == "Deployment" {
            let left = annotations(found);
            assert!(left.as_object().is_none_or(serde_json::Map::is_empty), "{left}");
            assert_eq!(annotations(object), Value::Null, "{identity}");
        }
    }
    assert_eq!(compared, added.len());

    kustomization["patches"] = patch;
    let made = build(&kustomization).await?;
    let policy = made.iter().find(|one| one["kind"] == "NetworkPolicy");
    let egress = &policy.ok_or("there is no NetworkPolicy")?["spec"]["egress"];
    assert_eq!(egress.as_array().map_or(0, Vec::len), 3, "{egress}");
    assert_eq!(egress[2]["to"][0]["ipBlock"]["cidr"], "192.0.2.0/24", "{egress}");
    Ok(())
}

/// kustomize takes no absolute paths.
fn relative(to: &std::path::Path, from: &std::path::Path) -> String {
    let up = "../".repeat(from.canonicalize().unwrap().components().count() - 1);
    format!(
        "{up}{}",
        to.canonicalize()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches('/')
    )
}
