//! Whether the pods that Kubernetes ended are those that were meant.
//!
//! A number of replicas falls only as far as Kubernetes' own order takes parked pods, or such as have not started. This
//! module compares afterwards and counts those that went in the place of one that was meant; it decides nothing, and such
//! a pod ends in its grace like any other. What others delete is no misplaced pod, unless it goes in the moment in which
//! Kubernetes carries out a number of ours.

use std::sync::Arc;

use crate::fleet::Fleet;
use crate::member::Member;
use crate::pod_name::PodName;

/// The pods of one WorkerPool that stood at the last look, and the numbers that were told then.
#[derive(Clone, Debug, Default)]
pub struct Exits {
    /// In name order.
    stood: Vec<Stood>,
    /// By revision.
    told: Vec<(Arc<str>, u32)>,
}

#[derive(Clone, Debug)]
struct Stood {
    name: PodName,
    revision: Arc<str>,
    /// It was parked or had not started.
    meant: bool,
}

impl Exits {
    /// Takes in a look and the numbers that are told now; returns how many pods have gone since the last look in the place
    /// of others.
    pub fn after(&mut self, fleet: &Fleet, told: &[(Arc<str>, u32)]) -> u64 {
        let misplaced = self.look(fleet);
        if self.told != told {
            self.told = told.to_vec();
        }
        misplaced
    }

    fn look(&mut self, fleet: &Fleet) -> u64 {
        let stand = || fleet.members.iter().filter(|member| !member.pod.draining);
        let is_same = |(one, was): (&Member, &Stood)| one.pod.name == was.name && is_meant(one) == was.meant;
        if stand().count() == self.stood.len() && stand().zip(&self.stood).all(is_same) {
            return 0;
        }
        let new = |member: &Member| Stood {
            name: member.pod.name.clone(),
            revision: Arc::clone(&member.pod.revision),
            meant: is_meant(member),
        };
        let stood = std::mem::replace(&mut self.stood, stand().map(new).collect());
        if fleet.pool.terminating || fleet.pool.conflict.is_some() {
            return 0;
        }
        let stands = |name: &PodName| self.stood.binary_search_by(|one| one.name.cmp(name)).is_ok();
        let misplaced = self.told.iter().map(|(revision, told)| {
            // A number that somebody else lowered is no act of ours, and a Deployment that is gone has none.
            let present = fleet.pool.revisions.iter().find(|one| one.name == *revision);
            let Some(replicas) = present.map(|one| one.replicas.max(*told) as usize) else {
                return 0;
            };
            let before = || stood.iter().filter(|one| one.revision == *revision);
            let gone = before().filter(|one| !one.meant && !stands(&one.name)).count();
            gone.min(before().count().saturating_sub(replicas)) as u64
        });
        misplaced.sum()
    }
}

fn is_meant(member: &Member) -> bool {
    member.is_parked() || member.pod.running_since.is_none()
}
