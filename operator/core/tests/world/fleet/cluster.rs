//! The cluster's side of the simulation: what controllers and nodes do with a decision.

use poolwright_core::decision::Decision;
use poolwright_core::snapshot::{PodInput, Rank};

use super::super::{revision, set_mark, wall};
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
            if allocation.prove.iter().any(|name| **name == *one.name) {
                one.proven = Some(stamp);
            }
            one.failed |= allocation.fail.iter().any(|name| **name == *one.name);
        }
        let now = self.world.now;
        for (name, mark) in &decision.parking.marks {
            let mut pods = self.world.pool().pods.iter_mut();
            set_mark(pods.find(|pod| pod.name == *name).unwrap(), *mark, now);
        }
        for (name, target) in &decision.parking.replicas {
            self.scale(name, *target);
        }
        self.world
            .pool()
            .revisions
            .retain(|one| !allocation.remove.iter().any(|name| **name == *one.name));
        let total = self.total();
        let consuming = u32::try_from(self.world.pool().consuming().count()).unwrap();
        self.most = self.most.max(consuming);
        if self.replicas.last() != Some(&total) {
            self.replicas.push(total);
        }
    }

    /// Writes the number; the controllers follow after their lag.
    pub(super) fn scale(&mut self, name: &str, target: u32) {
        let now = self.world.now.0;
        let pool = self.world.pool();
        let Some(one) = pool.revisions.iter_mut().find(|one| *one.name == *name) else {
            return;
        };
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
            if !self.follow_at.contains_key(&*one.name) {
                self.reconcile(&one.name, one.replicas);
            }
        }
    }

    /// As the controllers do it: pods that do not run first, then those that are not ready, then the marked.
    fn reconcile(&mut self, name: &str, target: u32) {
        let stamp = wall(self.world.now);
        let processes = &self.processes;
        let empty = |pod: &PodInput| {
            let process = processes.get(&*pod.name);
            process.is_none_or(|process| process.running.is_empty() && process.reserved.is_empty())
        };
        let pool = self.world.pools.values_mut().next().unwrap();
        let mut own: Vec<&mut PodInput> = pool
            .pods
            .iter_mut()
            .filter(|pod| *pod.revision == *name && !pod.draining)
            .collect();
        own.sort_by_key(|pod| {
            (
                pod.rank,
                pod.mark.map_or(2, |mark| mark as u8),
                // Whatever the ties, the worst of them: the busy ones first.
                empty(pod),
                pod.name.clone(),
            )
        });
        let go = own.len().saturating_sub(target as usize);
        let mut leaving = Vec::new();
        for pod in own.into_iter().take(go) {
            self.wronged += u32::from(!empty(pod));
            pod.draining = true;
            leaving.push(pod.name.clone());
        }
        for pod in leaving {
            if let Some(view) = self.world.broker().workers.get_mut(pod.node()) {
                view.offline = true;
            }
        }
        let have = self
            .world
            .pool()
            .staying()
            .filter(|pod| *pod.revision == *name)
            .count();
        for _ in have..target as usize {
            self.next += 1;
            let pod = PodInput {
                name: format!("{name}-{:04}", self.next).into(),
                revision: name.into(),
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
            let process = self.processes.get_mut(&*pod.name).unwrap();
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
            self.processes.remove(&*name);
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
                pod.rank = Rank::Ready;
                let process = Process {
                    pid: 7,
                    up_at: now + start_up,
                    mute: broken.contains(&*pod.revision),
                    ..Process::default()
                };
                self.processes.insert(pod.name.to_string(), process);
            }
        }
    }
}
