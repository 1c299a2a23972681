//! Whether a worker that was asked to end was empty: what the node says of SIGTERM, joined with what the workers
//! themselves say of tasks that they fetched, began and ended. It asks neither the broker nor the operator.

use crate::{Record, Result, Stage, TaskEvent, read_task_events};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

impl Stage {
    /// Fails if a worker was asked to end while a task ran on it or waited in it, or fetched or began one after it was
    /// asked. No tolerance: a worker that takes no more work and has been seen to hold nothing can have none.
    pub fn expect_no_busy_victim(&self) -> Result<()> {
        self.expect_no_running_victim()?;
        let (records, all) = (self.records()?, self.told_by_workers()?);
        for asked in self.asked_to_end()? {
            // What a container held that is gone went back to the broker with it.
            let lives = records
                .iter()
                .filter(|one| one.event == "start" && one.pod == asked.pod);
            let (began, at) = (lives.map(seconds), seconds(&asked));
            let began = began.filter(|began| *began <= at).fold(0.0, f64::max);
            let waits = waiting(&asked.pod, &(began..=at), &all);
            if !waits.is_empty() {
                let (pod, when) = (&asked.pod, asked.at);
                return Err(
                    format!("pod {pod} was asked to end at {when} with {waits:?} in it, not begun").into(),
                );
            }
        }
        Ok(())
    }

    /// The same where what a worker has fetched and not begun may go back to the broker: tasks that are not due.
    pub fn expect_no_running_victim(&self) -> Result<()> {
        self.expect_no_victim_running_longer(0.0)
    }

    /// The same for tasks that a rate limit keeps. No answer of their worker shows them before it begins them, which it does
    /// by its own clock: what has begun in the last `unseen` seconds nobody could know.
    pub fn expect_no_victim_running_longer(&self, unseen: f64) -> Result<()> {
        let all = self.told_by_workers()?;
        for asked in self.asked_to_end()? {
            let (pod, at) = (&asked.pod, seconds(&asked));
            if let Some(late) = late(pod, at, unseen, &all) {
                return Err(format!(
                    "pod {pod} was asked to end at {}, and {:.3} s later came the {} of task {} on it",
                    asked.at,
                    late.at - at,
                    late.event,
                    late.id
                )
                .into());
            }
        }
        Ok(())
    }

    /// Fails if a task was begun last by a pod that is gone, and has not ended.
    pub async fn expect_none_lost(&self) -> Result<()> {
        let pods = self.namespace.api::<Pod>();
        let pods = pods.list(&ListParams::default()).await?;
        let there = pods.iter().map(ResourceExt::name_any).collect();
        match lost(&self.events()?, &there) {
            Some(event) => Err(format!(
                "task {} started 1 times and ended 0 times: its pod {} is gone",
                event.id, event.pod
            )
            .into()),
            None => Ok(()),
        }
    }

    /// What workers have said of tasks: what they have fetched, dropped without running it, begun and ended.
    fn told_by_workers(&self) -> Result<Vec<TaskEvent>> {
        let mut file = self.task_log().into_os_string();
        file.push(".held");
        let mut all = self.events()?;
        all.extend(read_task_events(file.as_ref())?);
        Ok(all)
    }
}

fn seconds(record: &Record) -> f64 {
    record
        .at
        .duration_since(jiff::Timestamp::UNIX_EPOCH)
        .as_secs_f64()
}

/// A task that was begun last by a pod that is not there, and did not end.
fn lost<'a>(all: &'a [TaskEvent], there: &BTreeSet<String>) -> Option<&'a TaskEvent> {
    let last: BTreeMap<&str, &TaskEvent> = all.iter().map(|event| (event.id.as_str(), event)).collect();
    last.into_values()
        .find(|event| event.event == "start" && !there.contains(&event.pod))
}

/// What a pod did after it was asked to end, but for the end of what it had begun just before.
fn late<'a>(pod: &str, at: f64, unseen: f64, all: &'a [TaskEvent]) -> Option<&'a TaskEvent> {
    let of_pod = || all.iter().filter(|one| one.pod == pod);
    let has_just_begun = |id: &str| {
        of_pod().any(|one| one.id == id && one.event == "start" && (at - unseen..=at).contains(&one.at))
    };
    of_pod().find(|one| one.at > at && !(one.event == "end" && has_just_begun(&one.id)))
}

/// The tasks that a pod fetched within this time and has neither begun nor dropped in it. What another worker has
/// fetched since was given back: a broker that was gone gives all that it had sent to somebody else.
fn waiting<'a>(pod: &str, life: &RangeInclusive<f64>, all: &'a [TaskEvent]) -> BTreeSet<&'a str> {
    let mut told: Vec<&TaskEvent> = all.iter().filter(|one| life.contains(&one.at)).collect();
    told.sort_by(|one, other| one.at.total_cmp(&other.at));
    let mut waits = BTreeSet::new();
    for one in told {
        if one.event == "fetch" && one.pod == pod {
            waits.insert(one.id.as_str());
        } else if one.event == "fetch" || one.pod == pod {
            waits.remove(one.id.as_str());
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: f64, pod: &str, event: &str, id: &str) -> TaskEvent {
        TaskEvent {
            id: id.into(),
            pod: pod.into(),
            event: event.into(),
            at,
        }
    }

    fn of(all: &[TaskEvent]) -> Vec<&str> {
        waiting("a", &(10.0..=20.0), all).into_iter().collect()
    }

    #[test]
    fn what_is_fetched_waits_until_it_begins_or_is_dropped() {
        let mut all = vec![told(11.0, "a", "fetch", "one"), told(11.0, "a", "fetch", "two")];
        assert_eq!(of(&all), ["one", "two"]);
        all.push(told(12.0, "a", "start", "one"));
        assert_eq!(of(&all), ["two"]);
        all.push(told(13.0, "a", "drop", "two"));
        assert!(of(&all).is_empty());
    }

    #[test]
    fn another_life_and_another_pod_are_not_its_own() {
        let before = told(9.0, "a", "fetch", "one");
        let after = told(21.0, "a", "fetch", "two");
        let elsewhere = told(11.0, "b", "fetch", "three");
        assert!(of(&[before, after, elsewhere]).is_empty());
    }

    #[test]
    fn a_task_is_lost_whose_last_pod_is_gone_before_it_ended() {
        let there = BTreeSet::from(["a".to_owned()]);
        let mut all = vec![told(1.0, "a", "start", "one"), told(2.0, "b", "start", "two")];
        assert_eq!(lost(&all, &there).map(|event| event.id.as_str()), Some("two"));
        all.push(told(3.0, "a", "start", "two"));
        assert!(lost(&all, &there).is_none());
        all.extend([told(4.0, "b", "start", "three"), told(5.0, "b", "end", "three")]);
        assert!(lost(&all, &there).is_none());
    }

    #[test]
    fn only_the_end_of_what_has_just_begun_may_come_late() {
        let of = |all: &[TaskEvent], unseen| late("a", 20.0, unseen, all).map(|one| one.event.clone());
        let ends = [told(19.8, "a", "start", "one"), told(20.3, "a", "end", "one")];
        assert_eq!(of(&ends, 0.0).as_deref(), Some("end"));
        assert_eq!(of(&ends, 1.0), None);
        let long = [told(18.0, "a", "start", "one"), told(20.3, "a", "end", "one")];
        assert_eq!(of(&long, 1.0).as_deref(), Some("end"));
        for (event, id) in [("start", "two"), ("fetch", "two"), ("start", "one")] {
            let begins = [told(19.8, "a", "start", "one"), told(20.1, "a", event, id)];
            assert_eq!(of(&begins, 1.0).as_deref(), Some(event), "{id}");
        }
        assert_eq!(of(&[told(20.3, "b", "end", "one")], 0.0), None);
    }

    #[test]
    fn what_another_has_fetched_since_waits_there() {
        let mut all = vec![told(12.0, "b", "fetch", "one"), told(11.0, "a", "fetch", "one")];
        assert!(of(&all).is_empty());
        all.push(told(13.0, "a", "fetch", "one"));
        assert_eq!(of(&all), ["one"]);
    }
}
