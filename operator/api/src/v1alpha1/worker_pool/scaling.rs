//! `spec.scaling` and `spec.drain`: how many workers, and how they stop.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the number of workers follows the demand, and its bounds.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message(Message::Expression("'spec.scaling.minReplicas must be at most spec.scaling.maxReplicas (%d), is %d'.format([self.maxReplicas, self.minReplicas])".into())),
    validation = Rule::new("!has(self.fallback) || self.fallback.replicas <= self.maxReplicas")
        .message(Message::Expression("'spec.scaling.fallback.replicas must be at most spec.scaling.maxReplicas (%d), is %d'.format([self.maxReplicas, self.fallback.replicas])".into())),
    validation = Rule::new("!has(self.schedules) || self.schedules.all(s, s.minReplicas <= self.maxReplicas)")
        .message(Message::Expression("'spec.scaling.schedules[%d].minReplicas must be at most spec.scaling.maxReplicas (%d), is %d'.format([self.schedules.map(s, s.minReplicas > self.maxReplicas).indexOf(true), self.maxReplicas, self.schedules.filter(s, s.minReplicas > self.maxReplicas)[0].minReplicas])".into()))
)]
pub struct Scaling {
    /// `minReplicas` is the least number of consuming workers, 0 to 10,000. Default: 0. They take slots of their Pools
    /// when they are idle, too, and compete for these in the tier of their queues. At zero workers revocations are
    /// forgotten: they live only in workers, so a task revoked before runs when workers start again.
    #[schemars(range(min = 0, max = 10_000))]
    #[serde(default)]
    pub min_replicas: i32,

    /// `maxReplicas` is the greatest number of consuming workers, 1 to 10,000. Default: 10. When it is lowered, workers
    /// go as they become empty. While a new revision proves itself there may be one more.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default = "max_replicas")]
    pub max_replicas: i32,

    /// `mode` of scaling. Default: Auto, decisions are carried out. With Recommend they are only told, and the number of
    /// workers stays as it is but for `replicas`.
    #[serde(default)]
    pub mode: ScalingMode,

    /// `policy` that turns demand into a number of workers. Default: WaitTarget, as few slots as keep the wait of tasks
    /// below `waitTargetSeconds` of their queue. With Backlog there is a slot for every task that waits or runs.
    #[serde(default)]
    pub policy: ScalingPolicy,

    /// `scaleDownDelaySeconds` is how long, in seconds, fewer workers must suffice before any is stopped, 0 to 86,400.
    /// Less than 4 counts as 4, because what workers do is heard every two seconds. Default: as long as workers were seen
    /// to need to start, 10 to 600, or half of that or 5 where it has cost less lately; with policy Backlog 60.
    #[schemars(range(min = 0, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down_delay_seconds: Option<i32>,

    /// `fallback` is what to do when data stays away. Default: none, the number of workers is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,

    /// `schedules` are times in which more workers are kept than `minReplicas`, at most 16. Default: none. While several
    /// are on, the largest of their `minReplicas` counts, and `minReplicas` of `scaling` where that is larger. A Pool may
    /// give less, as it may for any minimum.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
}

/// Times in which more workers are kept.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// `name` of the schedule, by which decisions call it: 1 to 63 lower case letters, digits and dashes. Required.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,

    /// `cron` says when it begins, in five fields with one space between them: minute, hour, day of month, month, day of
    /// week, such as `0 8 * * MON-FRI`; 9 to 128 characters. Required. Workers are started at that time and not before
    /// it: where they must be up by then, write a time that is earlier by as long as they take to start. When clocks are
    /// set forward, what would begin in the hour that is left out begins as much later; when they are set back, what
    /// begins in the hour that comes twice begins both times.
    #[schemars(length(min = 9, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]+( [!-~]+){4}$')")
        .message("spec.scaling.schedules must have a cron of five fields with one space between them: minute, hour, day of month, month and day of week, such as 0 8 * * MON-FRI"))]
    pub cron: String,

    /// `timeZone` that `cron` is read in, by its name in the IANA database, such as Europe/Berlin; 1 to 64 characters.
    /// Default: UTC. The operator brings the database along; it is as new as the operator.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    #[serde(default = "time_zone")]
    pub time_zone: String,

    /// `durationSeconds` after which it ends, in seconds, 60 to 604,800. Required. They pass at the same pace when clocks
    /// change. Afterwards workers go as they do when tasks become fewer, after the same delay.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: i32,

    /// `minReplicas` is the least number of consuming workers while it is on, 1 to 10,000 and at most `maxReplicas` of
    /// `scaling`. Required.
    #[schemars(range(min = 1, max = 10_000))]
    pub min_replicas: i32,
}

/// What to do when data stays away.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// `replicas` to have at least, 0 to 10,000 and at most `maxReplicas`. Required. More that run already are kept.
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: i32,

    /// `afterSeconds` without fresh data, in seconds, the fallback takes effect, 1 to 86,400. Required.
    #[schemars(range(min = 1, max = 86_400))]
    pub after_seconds: i32,
}

/// How a worker stops.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// `graceSeconds` that a stopping worker has to finish what it holds, in seconds, 1 to 604,800. Default: long
    /// enough for the enforced time limit; without one, 21600.
    #[schemars(range(min = 1, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<i32>,
}

/// What happens with a decision.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ScalingMode {
    /// It is carried out.
    #[default]
    Auto,
    /// It is told, and not carried out.
    Recommend,
}

/// How demand becomes a number of workers.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ScalingPolicy {
    /// As few slots as keep the wait of tasks below the target of their queue.
    #[default]
    WaitTarget,
    /// A slot for every task that waits or runs.
    Backlog,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            min_replicas: 0,
            max_replicas: max_replicas(),
            mode: ScalingMode::Auto,
            policy: ScalingPolicy::default(),
            scale_down_delay_seconds: None,
            fallback: None,
            schedules: Vec::new(),
        }
    }
}

const fn max_replicas() -> i32 {
    10
}

fn time_zone() -> String {
    "UTC".to_owned()
}
