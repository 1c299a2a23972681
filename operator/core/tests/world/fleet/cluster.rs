//! The cluster's side of the simulation: what controllers and nodes do with a decision.

use std::collections::BTreeMap;

use poolwright_core::decision::Decision;
use poolwright_core::snapshot::PodInput;
use poolwright_core::time::Moment;

use super::super::{revision, wall};
use super::{Process, Sim, Task};

impl Sim {
    pub(super) fn execute(&mut self, decision: &Decision) {
        let stamp = wall(self.world.now);
        let allocation = &decision.allocation;
        if allocation.create {
            let name = self.world.pool().revision.clone();
            self.world.pool().revisions.push(revision(&name, 0, false));
        }
        for one in &mut self.world.pool().revisions {
            if allocation.prove.contains(&one.name) {
                one.proven = Some(stamp);
            }
            one.failed |= allocation.fail.contains(&one.name);
        }
        let now = self.world.now.0;
        self.marked.retain(|name, _| decision.victims.contains(name));
        for victim in &decision.victims {
            self.marked.entry(victim.clone()).or_insert(now);
        }
        let marked = self.marked.clone();
        for pod in &mut self.world.pool().pods {
            pod.marked = marked.get(&pod.name).map(|since| Moment(*since));
        }
        for (name, target) in &allocation.targets {
            self.scale(name, *target);
        }
        self.world
            .pool()
            .revisions
            .retain(|one| !allocation.remove.contains(&one.name));
        let total = self.total();
        let consuming = u32::try_from(self.world.pool().consuming().count()).unwrap();
        self.most = self.most.max(total).max(consuming);
        if self.replicas.last() != Some(&total) {
            self.replicas.push(total);
        }
    }

    /// Writes the number; the controllers follow after their lag.
    pub(super) fn scale(&mut self, name: &str, target: u32) {
        let now = self.world.now.0;
        let long = |pod: &PodInput, marked: &BTreeMap<String, u64>, wait: u64| {
            pod.running_since.is_none() || marked.get(&pod.name).is_some_and(|since| now - since >= wait)
        };
        let (wait, marked) = (self.mark_for, self.marked.clone());
        let pool = self.world.pool();
        let Some(one) = pool.revisions.iter_mut().find(|one| one.name == name) else {
            return;
        };
        let mut target = target;
        if wait > 0 && target < one.replicas {
            let own = pool
                .pods
                .iter()
                .filter(|pod| pod.revision == name && !pod.draining);
            let may = own.filter(|pod| long(pod, &marked, wait)).count();
            target = target.max(one.replicas.saturating_sub(u32::try_from(may).unwrap()));
        }
        if one.replicas != target {
            self.follow_at.insert(name.to_owned(), now + self.lag);
        }
        one.replicas = target;
        self.follow();
    }

    /// The controllers act on the numbers that they have seen.
    pub(super) fn follow(&mut self) {
        let now = self.world.now.0;
        self.follow_at.retain(|_, at| *at > now);
        for one in self.world.pool().revisions.clone() {
            if !self.follow_at.contains_key(&one.name) {
                self.reconcile(&one.name, one.replicas);
            }
        }
    }

    /// As the controllers do it: pods that do not run first, then those that are not ready, then the marked.
    fn reconcile(&mut self, name: &str, target: u32) {
        let stamp = wall(self.world.now);
        let marked = self.marked.clone();
        let pool = self.world.pool();
        let mut own: Vec<&mut PodInput> = pool
            .pods
            .iter_mut()
            .filter(|pod| pod.revision == name && !pod.draining)
            .collect();
        own.sort_by_key(|pod| {
            (
                pod.running_since.is_some(),
                pod.ready,
                !marked.contains_key(&pod.name),
                pod.name.clone(),
            )
        });
        let go = own.len().saturating_sub(target as usize);
        let empty = |pod: &PodInput| {
            let process = self.processes.get(&pod.name);
            process.is_none_or(|process| process.running.is_empty() && process.reserved.is_empty())
        };
        let idle = own.iter().skip(go).filter(|pod| empty(pod)).count();
        let mut leaving = Vec::new();
        for pod in own.into_iter().take(go) {
            if !empty(pod) && idle > 0 {
                self.wronged += 1;
            }
            pod.draining = true;
            leaving.push(pod.node());
        }
        for node in leaving {
            if let Some(view) = self.world.broker().workers.get_mut(&node) {
                view.offline = true;
            }
        }
        let have = self
            .world
            .pool()
            .consuming()
            .filter(|pod| pod.revision == name)
            .count();
        for _ in have..target as usize {
            self.next += 1;
            let pod = PodInput {
                name: format!("{name}-{:04}", self.next),
                revision: name.to_owned(),
                created: stamp,
                ..PodInput::default()
            };
            self.world.pool().pods.push(pod);
        }
        // A pod that never ran is gone at once.
        let ran = |pod: &PodInput| !pod.draining || pod.running_since.is_some();
        self.world.pool().pods.retain(ran);
    }

    /// Draining workers end when they have finished; what they had fetched goes back.
    pub(super) fn leave(&mut self, now: u64) {
        let mut gone = Vec::new();
        for pod in self
            .world
            .pools
            .values()
            .flat_map(|pool| &pool.pods)
            .filter(|pod| pod.draining)
        {
            let process = self.processes.get_mut(&pod.name).unwrap();
            if process.running.is_empty() && process.gone_at.is_none() {
                process.gone_at = Some(now + 300);
                let reserved = process.reserved.drain(..).map(|(task, _)| task);
                let back: Vec<Task> = reserved
                    .chain(process.later.drain(..).map(|(task, _)| task))
                    .collect();
                self.queue.extend(back);
            }
            if process.gone_at.is_some_and(|at| at <= now) {
                gone.push(pod.name.clone());
            }
        }
        for name in gone {
            self.processes.remove(&name);
            self.world.pool().pods.retain(|pod| pod.name != name);
        }
    }

    /// Pods that fit start.
    pub(super) fn start(&mut self, now: u64) {
        let (at, stamp, nodes, start_up) = (self.world.now, wall(self.world.now), self.nodes, self.start_up);
        let broken = self.broken.clone();
        let mut placed = self
            .world
            .pool()
            .pods
            .iter()
            .filter(|pod| pod.running_since.is_some())
            .count();
        for pod in &mut self.world.pool().pods {
            if pod.running_since.is_none() && !pod.draining {
                if placed >= nodes {
                    pod.trouble = Some(poolwright_core::snapshot::Trouble {
                        reason: poolwright_api::Reason::Unschedulable,
                        message: "0/1 nodes are available".to_owned(),
                    });
                    continue;
                }
                placed += 1;
                pod.trouble = None;
                pod.running_since = Some(at);
                pod.started = Some(stamp);
                pod.ready = true;
                let process = Process {
                    pid: 7,
                    up_at: now + start_up,
                    mute: broken.contains(&pod.revision),
                    ..Process::default()
                };
                self.processes.insert(pod.name.clone(), process);
            }
        }
    }
}
