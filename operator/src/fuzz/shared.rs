//! Parsers that are public by themselves: the core's, the command line's, and of what the API server holds.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use poolwright_api::v1alpha1::{TaskQueue, WorkerPool};
use poolwright_api::{ConditionType, Reason};
use poolwright_core::broker::{BrokerConfig, BrokerOptions, Secret};
use poolwright_core::broker_key::{BrokerKey, has_user_info, without_user_info};
use poolwright_core::objects::{DeploymentView, PodView, SetView};
use poolwright_core::quantity::Amount;
use poolwright_core::starts::{Flaw, Starts};
use poolwright_core::validate::validate;
use poolwright_core::{charge, command, executor, shedding};

use super::Target;
use crate::cli::Cli;
use crate::kube::selector::Selector;
use crate::{pools, telemetry, weights};

const BROKERS: [&str; 7] = [
    "redis://user:p%40ss@redis.shop:6379/1",
    "rediss://redis:6379/0",
    "sentinel://:pw@s1:26379/0;sentinel://:pw@s2:26379/0;sentinel://:pw@[fd00::1]:26379/0",
    "amqp://u:p@mq//",
    "amqps://mq:5671/%2Fshop",
    "pyamqp://a:b@one:5672/v;pyamqp://a:b@two:5672/v",
    "http://user:pw@mq:15672/under/",
];
const WORKER_POOL: &str = r#"{"apiVersion": "poolwright.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"namespace": "shop", "name": "checkout", "uid": "u-1", "generation": 3, "creationTimestamp": "2026-11-22T09:03:41Z", "annotations": {"a": "b"}}, "spec": {"queues": [{"name": "orders"}], "class": "Cpu", "celery": {"app": "shop.celery", "concurrency": 4, "timeLimitSeconds": 100, "maxMemoryPerChild": "300Mi", "extraArgs": ["-E"]}, "scaling": {"minReplicas": 1, "maxReplicas": 20, "policy": "WaitTarget", "schedules": [{"name": "day", "cron": "0 8 * * MON-FRI", "timeZone": "Europe/Berlin", "durationSeconds": 3600, "minReplicas": 3}]}, "worker": {"image": "shop:1", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}, "pod": {"terminationGracePeriodSeconds": 120}}}"#;
const TASK_QUEUE: &str = r#"{"apiVersion": "poolwright.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"namespace": "shop", "name": "orders"}, "spec": {"broker": {"url": "redis://redis:6379/0", "redis": {"keyPrefix": "x", "prioritySteps": [0, 3, 6, 9], "visibilityTimeoutSeconds": 3600}}, "waitTargetSeconds": 30, "priority": {"tier": "High"}, "pool": {"name": "db", "slotsPerTask": 2}, "maxActiveTasks": 40}}"#;
const POD: &str = r#"{"metadata": {"name": "checkout-1", "namespace": "shop", "uid": "p-1", "creationTimestamp": "2026-11-22T09:03:41Z", "labels": {"poolwright.dev/worker-pool": "checkout", "poolwright.dev/revision": "0a1b"}, "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1000", "poolwright.dev/slots": "default-pool=4,db=8", "poolwright.dev/holder": "u-1"}, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout", "uid": "r", "controller": true}]}, "spec": {"nodeName": "n", "containers": [{"name": "worker", "args": ["-A", "shop", "worker", "-Q", "orders,mail", "-c", "4"]}]}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T09:04:41Z"}], "containerStatuses": [{"name": "worker", "ready": true, "restartCount": 2, "image": "i", "imageID": "x", "state": {"running": {"startedAt": "2026-11-22T09:04:41Z"}}}]}}"#;
const DEPLOYMENT: &str = r#"{"metadata": {"name": "checkout-0a1b", "namespace": "shop", "uid": "d", "generation": 4, "annotations": {"poolwright.dev/proven-at": "2026-11-22T09:03:41Z", "poolwright.dev/slots": "default-pool=4"}}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "worker", "args": ["-c", "4"]}]}}}, "status": {"observedGeneration": 4, "replicas": 3, "readyReplicas": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}}"#;
const COMMANDS: [&str; 8] = [
    "poolwright run --log-format json --log-level info,kube=warn --poll-interval-milliseconds 200 --lease ops/poolwright --allow-broker-cidr 10.0.0.0/8",
    "poolwright lint -f fleet.yaml --airflow-config airflow.cfg",
    "poolwright simulate -f fleet.yaml --tasks 200 --service-seconds 1.5 --begins-at 2027-01-04T06:58:00Z",
    "poolwright simulate --suite --seeds 20 --workload steady",
    "poolwright explain wp/checkout -n shop",
    "poolwright pools import pools.json --secret airflow --name a=b",
    "poolwright weights tasks.json",
    "kubectl-poolwright crd --help",
];

/// Names and values of objects.
const OBJECT: &[&str] = &[
    "metadata",
    "annotations",
    "spec",
    "status",
    "null",
    "name",
    "replicas",
    "worker",
    "\"Low\"",
    "\"Backlog\"",
];

/// All of them.
pub(super) fn targets() -> Vec<Target> {
    let mut all = addresses();
    all.extend(values());
    all.extend(objects());
    all.extend(files());
    all
}

/// A broker with this address, also as that of its HTTP interface, and with these names.
fn broker(text: &str) -> usize {
    let whole = BrokerConfig::parse(text, &BrokerOptions::default());
    let options = BrokerOptions {
        sentinel_master: Some(text.to_owned()),
        management_url: Some(Secret::new(text)),
        metrics_url: Some(Secret::new(text)),
        key_prefix: text.to_owned(),
        control_exchange: text.to_owned(),
        priority_steps: text.bytes().take(10).collect(),
        ..BrokerOptions::default()
    };
    let kept = |read: Result<BrokerConfig, _>| read.map_or(0, |config: BrokerConfig| config.address().len());
    let others = BROKERS.map(|url| kept(BrokerConfig::parse(url, &options)));
    kept(whole) + others.iter().sum::<usize>()
}

fn addresses() -> Vec<Target> {
    const WORDS: &[&str] = &[
        "redis://",
        "amqps://",
        "sentinel://",
        "://",
        ";",
        "@",
        "%2F",
        "%00",
        "[::1]",
        ":65536",
        "/16",
        "?",
        "#",
    ];
    vec![
        Target::text("broker: address and options", &BROKERS, broker).words(WORDS),
        Target::text("broker: address to be shown", &BROKERS, |text| {
            let shown = without_user_info(text);
            assert!(!has_user_info(&shown), "user information is left in {shown:?}");
            shown.len()
        })
        .words(WORDS),
        Target::text(
            "network: selector of a shard",
            &[
                "team=a,env in (prod,test),!old,x notin (y)",
                "app.kubernetes.io/name==w,n>3",
            ],
            |text| {
                text.parse::<Selector>().map_or_else(
                    |mistake| mistake.to_string().len(),
                    |selector| selector.to_string().len(),
                )
            },
        )
        .words(&[" in ", " notin ", "(", ")", "!=", "==", "!", ",", ">", "<"]),
    ]
}

/// A schedule: when it begins next, and when it last did.
fn schedule(text: &str) -> usize {
    let (cron, zone) = text.split_once('|').unwrap_or((text, "UTC"));
    match Starts::new(cron, zone) {
        Ok(starts) => {
            let now = 1_795_338_221;
            let all = [
                starts.from(now),
                starts.last(now - 604_800, now),
                starts.from(i64::MAX),
                starts.from(i64::MIN),
            ];
            all.iter().flatten().count()
        }
        Err(Flaw::Cron(words) | Flaw::Zone(words)) => words.len(),
    }
}

fn values() -> Vec<Target> {
    let quantities = ["500m", "1.5Gi", "1e3", "12e-1", "0.1n", "-8Ei", "250u"];
    let schedules = [
        "0 8 * * MON-FRI|Europe/Berlin",
        "*/5 0-6,22 1,15 JAN-MAR ?|UTC",
        "30 2 29 2 *|America/New_York",
        "0 0 L * 5#2|Etc/GMT+5",
    ];
    vec![
        Target::text("quantity", &quantities, |text| {
            let amount = Amount::parse(&Quantity(text.to_owned()));
            amount.map_or(0, |amount| {
                let whole = (
                    amount.ceil_units(),
                    amount.floor_units(),
                    amount.times(i64::MAX),
                    amount.times(i64::MIN),
                );
                size_of_val(&whole)
            })
        })
        .words(&["Ki", "Ei", "E", "e", "e-", "e+99", "n", "m", "."]),
        Target::text("schedule: cron and time zone", &schedules, schedule)
            .words(&[
                "*", "/", "-", "L", "W", "#", "?", "SUN", "@daily", "Europe/", "../", "|", " ", "H",
            ])
            .slow(),
        Target::text("charge on a pod", &["default-pool=4,db=8", "a=1"], |text| {
            let read = charge::Charge::read(text, Some("u-1"));
            read.map_or(0, |charge| charge.slots.keys().map(|name| name.len() + 32).sum())
        })
        .words(&["=", ",", "=0"]),
        Target::text("percentage", &["72.5", " 91 ", "1e6"], |text| {
            usize::from(shedding::percent(text).is_some())
        }),
        Target::text(
            "worker's command line",
            &["-A app worker -Q orders,$$mail -c 4", "--autoscale=8,2 -q a"],
            |text| {
                let slots = command::concurrency(text.split(' '));
                let queues = command::queues(text.split(' ')).unwrap_or_default();
                usize::from(slots.is_some()) + queues.iter().map(|queue| queue.len() + 24).sum::<usize>()
            },
        )
        .words(&["-Q", "-c", "--autoscale=", "$$", ","]),
        Target::text(
            "airflow: executors",
            &["CeleryExecutor,team=my:path.to.LocalExecutor;KubernetesExecutor"],
            |text| {
                let all = executor::Executors::read(text).with_kubernetes_queue(text);
                usize::from(all.is_celery(Some(text), "q"))
                    + usize::from(all.is_celery(None, text))
                    + usize::from(all.are_none_of_celery())
            },
        )
        .words(&[",", ";", ":", "=", ".", "CeleryExecutor"]),
        Target::text(
            "condition and reason",
            &["Ready", "AtMaximum", "QueueUnknown"],
            |text| {
                usize::from(text.parse::<Reason>().is_ok())
                    + usize::from(text.parse::<ConditionType>().is_ok())
            },
        ),
        Target::text(
            "log directives",
            &["info,kube=warn,poolwright::signals=debug", "trace", "a=off"],
            |text| {
                telemetry::directives(text).map_or_else(|error| error.to_string().len(), |text| text.len())
            },
        )
        .words(&["=", ",", "::", "trace", "hyper=", "[", "{a}"])
        .slow(),
        Target::text("command line", &COMMANDS, |text| {
            let read = Cli::try_from_arguments(text.split(' '));
            read.map_or_else(|error| error.to_string().len().min(4096), |_| 0)
        })
        .words(&[
            "--",
            "-f",
            "--lease",
            "--queue",
            "--start-up-seconds",
            "--report",
            "-",
            "=",
            "--allow-broker-cidr",
            "run",
            "\0",
        ])
        .slow()
        // Of a longer word, what it is like is looked for in a square of its length.
        .longest(4096),
    ]
}

fn validated(wp: &WorkerPool, queue: TaskQueue) -> usize {
    let key = BrokerKey::new("shop", &queue.spec.broker).to_string().len();
    let queues: BTreeMap<String, TaskQueue> = [("orders".to_owned(), queue)].into();
    let said = validate(wp, &queues).map_or_else(|invalid| invalid.message.len(), |_| 0);
    key + said
}

fn objects() -> Vec<Target> {
    let parsed = |text: &str| -> (WorkerPool, TaskQueue) {
        (
            serde_json::from_str(WORKER_POOL).unwrap(),
            serde_json::from_str(text).unwrap(),
        )
    };
    let (wp, queue) = parsed(TASK_QUEUE);
    vec![
        Target::text("object: WorkerPool", &[WORKER_POOL], move |text| {
            serde_json::from_str(text).map_or(0, |wp| validated(&wp, queue.clone()))
        })
        .words(OBJECT)
        .slow(),
        Target::text("object: TaskQueue", &[TASK_QUEUE], move |text| {
            serde_json::from_str(text).map_or(0, |queue| validated(&wp, queue))
        })
        .words(OBJECT)
        .slow(),
        Target::text("object: Pod", &[POD], |text| {
            let view = serde_json::from_str::<Pod>(text).map(PodView::from);
            view.map_or(0, |view| view.name.len() + view.revision.len())
        })
        .words(OBJECT)
        .slow(),
        Target::text("object: Deployment", &[DEPLOYMENT], |text| {
            let view = serde_json::from_str::<Deployment>(text).map(DeploymentView::from);
            view.map_or(0, |view| view.name.len() + view.template.len())
        })
        .words(OBJECT)
        .slow(),
        Target::text("object: ReplicaSet", &[DEPLOYMENT], |text| {
            usize::from(
                serde_json::from_str::<ReplicaSet>(text)
                    .map(SetView::from)
                    .is_ok(),
            )
        })
        .words(OBJECT)
        .slow(),
    ]
}

fn files() -> Vec<Target> {
    let graph = r#"{"tasks": [{"id": "a", "weight": 3, "downstream": ["b", "c"]}, {"id": "b", "downstream": ["c"]}, {"id": "c"}]}"#;
    vec![
        Target::text(
            "file: Airflow's pools",
            &[include_str!("../lint/testdata/airflow/pools.json")],
            |text| {
                let read = pools::file::parse(text);
                read.map_or_else(
                    |error| error.0.to_string().len(),
                    |pools| pools.keys().map(|name| name.len() + 64).sum(),
                )
            },
        )
        .words(&[
            "slots",
            "description",
            "include_deferred",
            "team_name",
            "null",
            "-1",
        ]),
        Target::text("file: weights", &[graph], |text| {
            // A table's cells are as wide as the widest, so that one long name among many is known to be long in all.
            weights::table("weights.json", text).map_or_else(|error| error.to_string().len(), |_| 0)
        })
        .words(&["id", "weight", "downstream", "\"a\"", "\"b\"", "\"c\""]),
    ]
}
