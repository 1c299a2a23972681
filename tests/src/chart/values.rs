//! The comments of values.yaml, and the chart's README that is made of them.
//!
//! A line that begins with `# --` describes the value below it, with all that is in it; `# ##` begins a section. That is
//! all there is to the form: a parser of YAML would drop the comments, and the defaults come from one that reads the
//! same file.

use crate::Result;
use serde_json::Value;
use std::fmt::Write as _;

const HEAD: &str = "\
# Poolwright

<!-- Generated from values.yaml: change it there, then run `make manifests`. -->

Scales Celery workers by queue depth and busy slots, and says why. For Kubernetes 1.33 or later, with Helm 3 or Helm 4.

There is no published image and no published chart yet. Build the image from the `Dockerfile`, push it, and install from \
this folder:

```sh
helm install poolwright charts/poolwright --namespace poolwright --create-namespace \\
  --set image.registry=registry.example.com --set image.repository=poolwright
```

`docs/how-to/install.md` of the repository goes on from there; `docs/how-to/upgrade.md` says how to upgrade, go back and \
uninstall.

## Values

What is not listed here is refused by its name. Where the default is a map, the keys in it are those of Kubernetes.
";

/// A value that a comment describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The section it stands in.
    pub section: String,
    /// Where it stands, with dots.
    pub path: String,
    /// What the comment says.
    pub about: String,
}

/// All described values of a values.yaml, in its order.
pub fn described(text: &str) -> Vec<Described> {
    let (mut found, mut section, mut about) = (Vec::new(), String::new(), String::new());
    let mut parents: Vec<&str> = Vec::new();
    for line in text.lines() {
        let bare = line.trim_start();
        if let Some(title) = bare.strip_prefix("# ## ") {
            title.clone_into(&mut section);
        } else if let Some(words) = bare.strip_prefix("# -- ") {
            words.clone_into(&mut about);
        } else if let Some(words) = bare.strip_prefix("# ").filter(|_| !about.is_empty()) {
            about.push(' ');
            about.push_str(words);
        } else if let Some((key, _)) = bare.split_once(':').filter(|_| !bare.starts_with(['#', '-'])) {
            parents.truncate((line.len() - bare.len()) / 2);
            parents.push(key);
            if !about.is_empty() {
                found.push(Described {
                    section: section.clone(),
                    path: parents.join("."),
                    about: std::mem::take(&mut about),
                });
            }
        }
    }
    found
}

/// What stands at a path with dots.
pub fn value_at<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |at, key| at.get(key))
}

/// The same values but for what stands at a path.
#[must_use]
pub fn without(values: &Value, path: &str) -> Value {
    let mut rest = values.clone();
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut keys = parent.split('.').filter(|key| !key.is_empty());
    let parent = keys.try_fold(&mut rest, |at, key| at.get_mut(key));
    if let Some(parent) = parent.and_then(Value::as_object_mut) {
        parent.remove(key);
    }
    rest
}

/// How a default is written.
pub fn default_of(values: &Value, path: &str) -> Result<String> {
    let value = value_at(values, path).ok_or_else(|| format!("{path} is described and is not there"))?;
    Ok(format!("`{value}`").replace('|', "\\|"))
}

/// The README of a values.yaml.
pub fn readme(text: &str) -> Result<String> {
    let values: Value = serde_saphyr::from_str(text)?;
    let (mut page, mut section) = (HEAD.to_owned(), String::new());
    for one in described(text) {
        if one.section != section {
            section.clone_from(&one.section);
            write!(
                page,
                "\n### {section}\n\n| value | default | meaning |\n|---|---|---|\n"
            )?;
        }
        let default = default_of(&values, &one.path)?;
        writeln!(
            page,
            "| `{}` | {default} | {} |",
            one.path,
            one.about.replace('|', "\\|")
        )?;
    }
    Ok(page)
}
