//! `poolwright explain`: the last decision of a WorkerPool in full.
//!
//! Reads one object and renders it; decides and writes nothing. What is printed is what status holds, so `explain`
//! cannot tell another story than the operator. Text from the cluster is printed without what a terminal would obey.
//! The cluster is asked once: whoever asks is told soon that it does not answer, and can ask again.

mod next;

use std::fmt::Write as _;
use std::io::Write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Config};
use poolwright_api::text::{counted, printable};
use poolwright_api::v1alpha1::{Decision, DecisionLimit, PastDecision, WorkerPool, WorkerPoolStatus};
use poolwright_api::{ConditionType, Reason};

use crate::cli::ExplainArgs;
use crate::kube::{no_kubeconfig, ungated};

#[cfg(test)]
mod tests;

/// Why nothing could be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no usable kubeconfig.
    #[error("{}", no_kubeconfig(.0))]
    Config(#[from] kube::config::InferConfigError),
    /// The cluster did not answer, or refused.
    #[error("WorkerPool {namespace}/{name} cannot be read: {source}")]
    Read {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the cluster said.
        source: Box<kube::Error>,
    },
    /// There is no such WorkerPool.
    #[error("there is no WorkerPool {name} in namespace {namespace}: kubectl get wp -n {namespace}")]
    Absent {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The text cannot be written.
    #[error("the explanation cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Reads the WorkerPool from the cluster of the kubeconfig, and writes the explanation to `output`.
///
/// # Errors
///
/// The WorkerPool cannot be read, or the explanation not be written.
pub async fn run(args: &ExplainArgs, now: Timestamp, output: &mut impl Write) -> Result<(), ExplainError> {
    let config = Config::infer().await?;
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let wp = read(config, namespace, args.name.clone()).await?;
    Ok(output.write_all(render(&wp, now).as_bytes())?)
}

/// The WorkerPool of this name.
async fn read(config: Config, namespace: String, name: String) -> Result<WorkerPool, ExplainError> {
    let asked = async {
        let api: Api<WorkerPool> = Api::namespaced(ungated(config)?, &namespace);
        api.get_opt(&name).await
    };
    match asked.await {
        Ok(Some(wp)) => Ok(wp),
        Ok(None) => Err(ExplainError::Absent { namespace, name }),
        Err(source) => Err(ExplainError::Read {
            namespace,
            name,
            source: Box::new(source),
        }),
    }
}

/// The explanation of `wp`, for people; `now` only makes ages.
#[must_use]
pub fn render(wp: &WorkerPool, now: Timestamp) -> String {
    let namespace = wp.metadata.namespace.as_deref().unwrap_or_default();
    let mut text = format!(
        "WorkerPool {namespace}/{}\n",
        wp.metadata.name.as_deref().unwrap_or_default()
    );
    let status = wp.status.clone().unwrap_or_default();
    match &status.last_decision {
        None => text.push_str("  No decision has been made yet.\n"),
        Some(decision) => {
            headline(&mut text, decision, now);
            numbers(&mut text, wp, &status);
            inputs(&mut text, decision);
            limits(&mut text, &decision.limits);
        }
    }
    earlier(&mut text, &status, now);
    conditions(&mut text, &status.conditions, now);
    let steps = next::steps(wp);
    if !steps.is_empty() {
        text.push_str("\nWhat to do\n");
        for step in steps {
            line(&mut text, &format!("- {step}"));
        }
    }
    text
}

fn headline(text: &mut String, decision: &Decision, now: Timestamp) {
    let Decision { from, to, reason, .. } = decision;
    let workers = counted(*to, "worker", "workers");
    let change = if from == to {
        workers
    } else {
        format!("{from} → {workers}")
    };
    line(
        text,
        &format!("{change}, {reason}, {}", when(decision.time.0, now)),
    );
    line(text, &decision.text);
}

fn numbers(text: &mut String, wp: &WorkerPool, status: &WorkerPoolStatus) {
    let number = |value: Option<i32>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let leaving = [
        (status.parked_replicas, "parked"),
        (status.draining_replicas, "draining"),
    ];
    let leaving: String = leaving
        .into_iter()
        .filter_map(|(count, what)| Some(format!(", {} {what}", count.filter(|count| *count > 0)?)))
        .collect();
    line(
        text,
        &format!(
            "Now: {}, {} ready{leaving}; {} of {} slots busy; {} queued; bounds {} to {}",
            status.replicas.map_or_else(
                || "? workers".to_owned(),
                |value| counted(value, "worker", "workers"),
            ),
            number(status.ready_replicas),
            number(status.busy_slots),
            number(status.slots),
            status
                .queued
                .map_or_else(|| "?".to_owned(), |value| value.to_string()),
            wp.spec.scaling.min_replicas,
            wp.spec.scaling.max_replicas,
        ),
    );
}

fn inputs(text: &mut String, decision: &Decision) {
    if decision.inputs.is_empty() {
        return;
    }
    let mut rows = vec![["NAME", "QUEUE", "VALUE", "SOURCE", "AGE"].map(str::to_owned)];
    rows.extend(decision.inputs.iter().map(|input| {
        [
            printable(&input.name),
            printable(input.queue.as_deref().unwrap_or("–")),
            input.value.to_string(),
            printable(&input.source),
            milliseconds(input.age_milliseconds),
        ]
    }));
    text.push_str("\nInputs, as they were at the decision\n");
    table(text, &rows, &[2, 4]);
}

fn limits(text: &mut String, limits: &[DecisionLimit]) {
    if limits.is_empty() {
        return;
    }
    text.push_str("\nLimits that changed the number, in this order\n");
    let rows: Vec<[String; 2]> = limits
        .iter()
        .map(|limit| [printable(&limit.name), format!("{} → {}", limit.from, limit.to)])
        .collect();
    table(text, &rows, &[]);
}

fn earlier(text: &mut String, status: &WorkerPoolStatus, now: Timestamp) {
    let last = status.last_decision.as_ref().map(PastDecision::from);
    let past: Vec<&PastDecision> = status
        .decisions
        .iter()
        .filter(|past| Some(*past) != last.as_ref())
        .collect();
    if past.is_empty() {
        return;
    }
    text.push_str("\nEarlier decisions\n");
    let rows: Vec<[String; 4]> = past
        .iter()
        .map(|past| {
            [
                when(past.time.0, now),
                format!("{} → {}", past.from, past.to),
                printable(&past.reason),
                printable(&past.text),
            ]
        })
        .collect();
    table(text, &rows, &[]);
}

fn conditions(text: &mut String, conditions: &[Condition], now: Timestamp) {
    let wrong: Vec<&Condition> = conditions
        .iter()
        .filter(|condition| !as_it_should_be(condition))
        .collect();
    if wrong.is_empty() {
        return;
    }
    text.push_str("\nConditions that are not as they should be\n");
    for condition in wrong {
        let since = age(condition.last_transition_time.0, now);
        let Condition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        line(
            text,
            &format!("{type_} is {status} for {since} ({reason}): {message}"),
        );
    }
}

/// Whether a condition has the status it has when nothing is wrong. Types of another version are shown.
fn as_it_should_be(condition: &Condition) -> bool {
    let good = match condition.type_.parse() {
        Ok(
            ConditionType::Ready
            | ConditionType::ScalingActive
            | ConditionType::SignalsFresh
            | ConditionType::AirflowInSync
            | ConditionType::QueuedInTime
            | ConditionType::WaitTargetMet,
        ) => "True",
        Ok(
            ConditionType::Reconciling
            | ConditionType::Stalled
            | ConditionType::ScalingLimited
            | ConditionType::ManualHold
            | ConditionType::ConfigurationAdvised,
        ) => "False",
        Err(_) => return false,
    };
    // At its least there is nothing to mend.
    let at_rest = condition.reason == Reason::AtMinimum.as_str();
    condition.status == good || at_rest
}

/// Rows in aligned columns; those in `right` are aligned to the right, and the last column has no padding.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]], right: &[usize]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut joined = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing to a String cannot fail.
            let _ = if right.contains(&column) {
                write!(joined, "{cell:>width$}  ")
            } else {
                write!(joined, "{cell:<width$}  ")
            };
        }
        line(text, joined.trim_end());
    }
}

fn line(text: &mut String, words: &str) {
    text.push_str("  ");
    text.push_str(&printable(words));
    text.push('\n');
}

fn when(time: Timestamp, now: Timestamp) -> String {
    let seconds = Timestamp::from_second(time.as_second()).unwrap_or(time);
    format!("{} ago ({seconds})", age(time, now))
}

/// A time in the future, by a clock that is ahead, is shown as now.
fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn milliseconds(age: i64) -> String {
    if age < 10_000 {
        format!("{}.{}s", age / 1000, age % 1000 / 100)
    } else {
        format!("{}s", age / 1000)
    }
}
