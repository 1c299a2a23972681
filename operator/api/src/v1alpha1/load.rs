//! How loaded something is that tasks use, and from where on that is too much.
//!
//! One type for all that heeds a load, so that it is written and read in one way. Which of the two sources is written
//! is checked where the type is used: a rule names its field in full.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A load, and from where on it is high.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HighLoad {
    /// `highPercent` is the load, in percent, above which it is high, 1 to 100. Default: 80.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "high_percent")]
    pub high_percent: i32,

    /// `source` of the load, in percent: exactly one of `prometheus` and `configMapKeyRef`. Required. It is read every 5
    /// seconds. While no reading is at hand, or only one older than 15 seconds, what was so before stays so.
    pub source: LoadSource,
}

/// Where a load is read.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadSource {
    /// `prometheus` gives the load as the answer to a query. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusQuery>,

    /// `configMapKeyRef` names the `ConfigMap` of the same namespace and the key in it whose value is the load: a number
    /// such as 72 or 72.5. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
}

/// A question to a Prometheus.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// `url` of the Prometheus, such as `http://prometheus.monitoring:9090`, http or https, without user and password, at
    /// most 1,024 characters; `/api/v1/query` is put behind it. Redirects are not followed.
    #[schemars(length(min = 8, max = 1024), regex(pattern = r"^https?://[!-?A-~]+$"))]
    pub url: String,

    /// `query` in `PromQL` whose answer is the load: a scalar, or a vector of exactly one sample, 0 to 1,000,000 percent.
    /// At most 2,048 characters.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
}

/// A key of a `ConfigMap` in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// `name` of the `ConfigMap`, in the same namespace.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,

    /// `key` in the `ConfigMap` whose value is used.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._A-Za-z0-9]+$"))]
    pub key: String,
}

impl HighLoad {
    /// The load, in percent, above which it is high.
    #[must_use]
    pub fn limit(&self) -> u8 {
        u8::try_from(self.high_percent).unwrap_or(100)
    }
}

fn high_percent() -> i32 {
    80
}
