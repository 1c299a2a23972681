//! What is said beside an answer: what the world leaves out of the manifests, and what is easily overlooked in them.
//!
//! It changes nothing about a run.

use poolwright_api::text::counted;
use poolwright_api::v1alpha1::{AckMode, ScalingMode, WorkerPool};
use poolwright_core::observe::pause;
use poolwright_core::validate::ValidPool;
use poolwright_sim::scenario::{Millis, Scenario};

use crate::lint::fleet::Fleet;

/// The notes on manifests.
pub(super) fn of(fleet: &Fleet) -> Vec<String> {
    let mut notes = Vec::new();
    for (wp, valid) in &fleet.workers {
        let words = of_workers(wp, valid).into_iter();
        notes.extend(words.map(|words| format!("WorkerPool {}: {words}", valid.name)));
    }
    for name in fleet.queues.keys() {
        let is_it = |one: &(WorkerPool, ValidPool)| one.1.queues.iter().any(|queue| queue.object == *name);
        if !fleet.workers.iter().any(is_it) {
            notes.push(format!(
                "TaskQueue {name}: no WorkerPool consumes it, and it gets no tasks here"
            ));
        }
    }
    for (name, pool) in &fleet.pools {
        if pool.spec.load_shedding.is_some() {
            notes.push(format!(
                "Pool {name}: loadShedding never acts, because there is no load here"
            ));
        }
    }
    notes
}

fn of_workers(wp: &WorkerPool, valid: &ValidPool) -> Vec<&'static str> {
    let pause = pause(wp);
    let notes = [
        (
            pause.scale_in && pause.scale_out,
            "is paused by annotation: it begins without a pod and gets none",
        ),
        (
            pause.scale_out && !pause.scale_in,
            "scale-out is paused by annotation: it begins without a pod and gets none",
        ),
        (
            pause.scale_in && !pause.scale_out,
            "scale-in is paused by annotation: no pod goes",
        ),
        (
            valid.hold.is_some(),
            "is held by spec.replicas, so no policy and no bound changes its number of pods",
        ),
        (
            valid.fallback.is_some(),
            "fallback never acts, because signals never fail here",
        ),
        (
            valid.autoscale.is_some(),
            "slots of a worker stay at the most that autoscale allows",
        ),
        (
            valid.dynamic_concurrency.is_some(),
            "dynamicConcurrency never acts, because there is no load here",
        ),
        (
            wp.spec.scaling.mode == ScalingMode::Recommend,
            "decisions are carried out, though its mode is Recommend",
        ),
        (
            valid.ack_mode == AckMode::Auto,
            "tasks acknowledge before they run, which is Celery's default; write ackMode if they do not",
        ),
    ];
    notes
        .into_iter()
        .filter_map(|(is_so, words)| is_so.then_some(words))
        .collect()
}

/// The notes on tasks that take longer than the limits of workers that may get them; `soft` has the soft limits, by
/// fleet.
pub(super) fn of_limits(scenario: &Scenario, soft: &[Option<Millis>]) -> Vec<String> {
    let mut notes = Vec::new();
    for (place, fleet) in scenario.fleets.iter().enumerate() {
        let own = || {
            let tasks = scenario.tasks.iter();
            tasks.filter(|task| fleet.queues.contains(&task.queue))
        };
        let longest = own().map(|task| task.service).max().unwrap_or(0);
        let over = |limit: Millis| own().filter(|task| task.service > limit).count();
        let soft = soft.get(place).copied().flatten();
        let words = |limit: Millis, field: &str| {
            format!(
                "WorkerPool {}: {} of its queues, the longest of {} s, take longer than {field} {}",
                fleet.name,
                counted(over(limit), "task", "tasks"),
                seconds(longest),
                seconds(limit),
            )
        };
        if let Some(limit) = fleet.time_limit.filter(|limit| *limit < longest) {
            let words = words(limit, "timeLimitSeconds");
            notes.push(format!(
                "{words}: here as in a cluster it ends them, and they are not done"
            ));
        } else if let Some(limit) = soft.filter(|limit| *limit < longest) {
            let words = words(limit, "softTimeLimitSeconds");
            notes.push(format!(
                "{words}: here they run on, and in a cluster SoftTimeLimitExceeded is raised in them"
            ));
        }
    }
    notes
}

#[allow(clippy::cast_precision_loss)] // at most months
fn seconds(time: Millis) -> f64 {
    time as f64 / 1000.0
}
