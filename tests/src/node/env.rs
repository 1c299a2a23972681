//! A container's environment, as a kubelet makes it: `envFrom` first, then
//! `env` in order, with `$(NAME)` standing for what is defined before it.

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, Client};
use std::collections::BTreeMap;

/// Why a container's environment cannot be made; the text is what the status says.
pub(crate) type Problem = String;

/// Resolves all of it. Secrets and `ConfigMap`s are read anew at each start.
pub(crate) async fn resolve(
    client: &Client,
    pod: &Pod,
    container: &Container,
    node: &str,
) -> Result<BTreeMap<String, String>, Problem> {
    let mut objects = Objects {
        client,
        namespace: pod.metadata.namespace.as_deref().unwrap_or_default(),
        read: BTreeMap::new(),
    };
    let mut env = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional) = if let Some(source) = &source.secret_ref {
            (Kind::Secret, &source.name, source.optional)
        } else if let Some(source) = &source.config_map_ref {
            (Kind::ConfigMap, &source.name, source.optional)
        } else {
            continue;
        };
        match objects.get(kind, name).await? {
            Some(data) => env.extend(
                data.iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), value.clone())),
            ),
            None if optional == Some(true) => {}
            None => return Err(format!("{} \"{name}\" not found", kind.noun())),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &env)),
            Some(source) => objects.value(source, pod, container, node).await?,
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    /// As the kubelet writes it where it misses a key.
    fn name(self) -> &'static str {
        if self == Self::Secret {
            "Secret"
        } else {
            "ConfigMap"
        }
    }

    /// As the API server writes it where it misses the object.
    fn noun(self) -> &'static str {
        if self == Self::Secret {
            "secret"
        } else {
            "configmap"
        }
    }
}

type Data = BTreeMap<String, String>;

struct Objects<'a> {
    client: &'a Client,
    namespace: &'a str,
    read: BTreeMap<(Kind, String), Option<Data>>,
}

impl Objects<'_> {
    async fn get(&mut self, kind: Kind, name: &str) -> Result<Option<Data>, Problem> {
        let key = (kind, name.to_owned());
        if let Some(known) = self.read.get(&key) {
            return Ok(known.clone());
        }
        let data = match kind {
            Kind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
                let secret = api.get_opt(name).await.map_err(|error| error.to_string())?;
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                secret.map(|secret| {
                    secret
                        .data
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| (key, text(&value.0)))
                        .collect()
                })
            }
            Kind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
                let map = api.get_opt(name).await.map_err(|error| error.to_string())?;
                map.map(|map| map.data.unwrap_or_default())
            }
        };
        self.read.insert(key, data.clone());
        Ok(data)
    }

    async fn value(
        &mut self,
        source: &EnvVarSource,
        pod: &Pod,
        container: &Container,
        node: &str,
    ) -> Result<Option<String>, Problem> {
        let (kind, name, key, optional) = if let Some(source) = &source.secret_key_ref {
            (Kind::Secret, &source.name, &source.key, source.optional)
        } else if let Some(source) = &source.config_map_key_ref {
            (Kind::ConfigMap, &source.name, &source.key, source.optional)
        } else if let Some(source) = &source.field_ref {
            return field(&source.field_path, pod, node).map(Some);
        } else if let Some(source) = &source.resource_field_ref {
            return Ok(Some(resource(
                &source.resource,
                source.divisor.as_ref(),
                container,
            )));
        } else {
            return Ok(None);
        };
        let data = self.get(kind, name).await?;
        let found = data.is_some();
        match data.and_then(|mut data| data.remove(key)) {
            Some(value) => Ok(Some(value)),
            None if optional == Some(true) => Ok(None),
            None if found => Err(format!(
                "couldn't find key {key} in {} {}/{name}",
                kind.name(),
                self.namespace
            )),
            None => Err(format!("{} \"{name}\" not found", kind.noun())),
        }
    }
}

fn field(path: &str, pod: &Pod, node: &str) -> Result<String, Problem> {
    let meta = &pod.metadata;
    let own = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => own(&meta.name),
        "metadata.namespace" => own(&meta.namespace),
        "metadata.uid" => own(&meta.uid),
        "spec.nodeName" => node.to_owned(),
        "spec.serviceAccountName" => pod
            .spec
            .as_ref()
            .map(|spec| own(&spec.service_account_name))
            .unwrap_or_default(),
        "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => "127.0.0.1".into(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `limits.cpu` and the like in units of the divisor, rounded up.
fn resource(path: &str, divisor: Option<&Quantity>, container: &Container) -> String {
    let resources = container.resources.as_ref();
    let (from, name) = path.split_once('.').unwrap_or(("limits", path));
    let map = resources.and_then(|all| {
        if from == "requests" {
            all.requests.as_ref()
        } else {
            all.limits.as_ref()
        }
    });
    let amount = map
        .and_then(|map| map.get(name))
        .map_or(0.0, |quantity| amount(&quantity.0));
    let unit = divisor.map_or(0.0, |quantity| self::amount(&quantity.0));
    let unit = if unit > 0.0 { unit } else { 1.0 };
    format!("{:.0}", (amount / unit).ceil())
}

fn amount(quantity: &str) -> f64 {
    const UNITS: [(&str, f64); 9] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    for (suffix, factor) in UNITS {
        if let Some(number) = quantity.strip_suffix(suffix) {
            return number.parse().unwrap_or(0.0) * factor;
        }
    }
    quantity.parse().unwrap_or(0.0)
}

/// Kubernetes' own expansion: `$(NAME)` where NAME is known, `$$` for a dollar
/// sign, and everything else as it stands.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if let Some(value) = env.get(name) {
                expanded.push_str(value);
            } else {
                expanded.push_str("$(");
                expanded.push_str(name);
                expanded.push(')');
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_kubernetes_does() {
        let env = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(A)"),
            ("$$(A)", "$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn divides_resources_rounding_up() {
        assert!((amount("1500m") - 1.5).abs() < 1e-9);
        assert!((amount("2Gi") - 2_147_483_648.0).abs() < 1e-9);
    }
}
