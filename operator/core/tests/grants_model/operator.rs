//! An operator: what it has seen, what it remembers, and the requests that it makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use poolwright_core::charge::{Slots, taken};
use poolwright_core::grants::Mark;
use poolwright_core::objects::{DeploymentView, Objects, PodView, SetView};
use poolwright_core::snapshot::Rank;

use crate::raise::Raise;
use crate::random::Random;
use crate::scale_in::ScaleIn;
use crate::sweep::Sweep;
use crate::world::{Live, Seen, Version, World, Write, say};

/// A mistake in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// After a conflict a raise goes on if the replicas are the same, whatever else was written.
    RetryOnReplicas,
    /// A raise sets the grant to what is seen and the rest, so it counts on slack.
    AbsoluteGrant,
    /// A raise does not change the holder's epoch.
    EpochKept,
    /// A raise does not count the grants of WorkerPools that are gone.
    DeadUncounted,
    /// Whether there is a limit is only read from the spec.
    ModeBySpec,
    /// A release writes to no Deployment.
    NoFence,
    /// A release trusts its own scale-in whatever was granted since.
    ScaleInWithoutMark,
    /// A release notes the epoch after the writes.
    MarkAfterFence,
    /// A release does not wait for the Deployment controller.
    DeploymentsUnobserved,
    /// A release does not wait for the `ReplicaSet` controller.
    SetsUnobserved,
    /// A release lists pods before it waits.
    PodsFirst,
    /// A release does not count pods on their way out.
    DrainingUncounted,
    /// A rebuild writes to no Deployment.
    RebuildWithoutFence,
    /// A rebuild does not look whether the Pool has changed meanwhile.
    RebuildOfOldPool,
    /// Nobody waits for controllers that are at work on what is gone.
    NoMinute,
    /// Nobody looks whether something was deleted between the lists.
    NoLastLook,
}

/// What an operator has seen of the world, some time ago.
#[derive(Default)]
pub struct View {
    pub branches: Vec<Seen>,
    pub pools: [Option<Live>; 2],
}

impl View {
    /// One more pod may fit: by what is granted, where there is a limit.
    pub fn has_room(&self, world: &World, branch: usize) -> bool {
        let Some(seen) = self.branches.get(branch) else {
            return false;
        };
        let slots = world.branches[branch].slots;
        seen.deployment.is_some_and(|now| now.replicas < 5)
            && self.pools.iter().zip(slots).all(|(live, slots)| {
                let Some(live) = live else { return slots == 0 };
                let granted = live
                    .pool
                    .status
                    .iter()
                    .flat_map(|status| &status.holders)
                    .map(|one| one.granted);
                let granted = u64::try_from(granted.sum::<i64>()).unwrap_or(0);
                slots == 0
                    || live
                        .pool
                        .spec
                        .limit()
                        .is_none_or(|limit| granted + slots <= limit)
            })
    }

    /// The holder is granted more than is seen of it.
    pub fn has_slack(&self, world: &World, pool: usize, holder: usize) -> bool {
        let mut used = 0;
        for (branch, seen) in world.branches.iter().zip(&self.branches) {
            if branch.holder == holder {
                let replicas = |version: Option<Version>| version.map_or(0, |version| version.replicas);
                let staying = replicas(seen.deployment).max(replicas(seen.set)).max(seen.live);
                used += u64::from(staying + seen.draining) * branch.slots[pool];
            }
        }
        let holders = self.pools[pool]
            .iter()
            .filter_map(|live| live.pool.status.as_ref());
        let mut holders = holders.flat_map(|status| &status.holders);
        let uid = uid(holder);
        holders.any(|one| one.uid == uid && u64::try_from(one.granted).is_ok_and(|granted| granted > used))
    }
}

/// What an operator has in memory.
#[derive(Default)]
pub struct Operator {
    pub view: View,
    /// Its last scale-in of each Deployment, and the marks of the owner before it.
    pub scale_ins: BTreeMap<usize, [Option<Mark>; 2]>,
    pub programs: Vec<Program>,
}

impl Operator {
    /// It is about a release or a rebuild: it does one at a time.
    pub fn has_sweep(&self) -> bool {
        self.programs
            .iter()
            .any(|program| matches!(program, Program::Sweep(_)))
    }
}

/// Something that an operator is about.
pub enum Program {
    Raise(Raise),
    ScaleIn(ScaleIn),
    Sweep(Sweep),
}

/// What a program acts on.
pub struct Act<'a> {
    pub world: &'a mut World,
    pub random: &'a mut Random,
    pub mutant: Option<Mutant>,
    /// How many of 100 requests fail.
    pub faults: usize,
}

impl Act<'_> {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Sends a write; false if it was refused or if the answer did not come.
    pub fn send(&mut self, write: Write) -> bool {
        let fate = self.random.below(100);
        if fate >= self.faults {
            let is_done = self.world.apply(write);
            if !is_done {
                say!(self.world, "  conflict");
            }
            return is_done;
        }
        say!(self.world, "  (the answer is lost)");
        match fate % 3 {
            0 => self.world.late.push(write),
            1 => _ = self.world.apply(write),
            _ => {}
        }
        false
    }

    /// Reads a Pool from the API server.
    pub fn get(&self, pool: usize) -> Option<Live> {
        self.world.pools[pool].clone()
    }
}

impl Program {
    /// Does one step; returns what is left to do.
    pub fn step(self, act: &mut Act, operator: &mut Operator) -> Option<Self> {
        match self {
            Self::Raise(raise) => raise.step(act),
            Self::ScaleIn(scale_in) => scale_in.step(act, operator).map(Self::ScaleIn),
            Self::Sweep(sweep) => sweep.step(act, operator).map(Self::Sweep),
        }
    }
}

/// Uid of a WorkerPool.
pub fn uid(holder: usize) -> String {
    format!("w{holder}")
}

/// Lists of Deployments, `ReplicaSet`s and pods, each of its own moment.
#[derive(Default)]
pub struct Listing {
    pub deployments: Vec<Seen>,
    pub sets: Vec<Seen>,
    pub pods: Vec<Seen>,
}

impl Listing {
    /// What is taken by uid of the WorkerPool, as the operator counts it.
    pub fn taken(&self, world: &World) -> BTreeMap<String, Slots> {
        let mut all = BTreeMap::new();
        for name in 0..2 {
            all.extend(taken(&self.objects(world, name), |_| false));
        }
        all
    }

    fn objects(&self, world: &World, name: usize) -> Objects {
        let mut objects = Objects::default();
        for (at, branch) in world.branches.iter().enumerate() {
            if branch.name != name {
                continue;
            }
            let seen = |list: &[Seen]| list.get(at).copied().unwrap_or_default();
            if let Some(version) = seen(&self.deployments).deployment {
                objects.deployments.push(Arc::new(DeploymentView {
                    name: String::new(),
                    uid: String::new(),
                    owner: Some(uid(branch.holder)),
                    revision: branch.revision.clone(),
                    generation: Some(version.generation),
                    observed: None,
                    resource_version: String::new(),
                    created: Timestamp::UNIX_EPOCH,
                    deleting: false,
                    labels: BTreeMap::new(),
                    proven: None,
                    failed: false,
                    replicas: version.replicas,
                    paused: true,
                    progress_deadline_seconds: None,
                    template: Arc::from(""),
                    charge: Arc::clone(&branch.charge),
                    grant_epoch: None,
                }));
            }
            if let Some(version) = seen(&self.sets).set {
                objects.sets.push(Arc::new(SetView {
                    name: String::new(),
                    owner: None,
                    revision: branch.revision.clone(),
                    created: Timestamp::UNIX_EPOCH,
                    replicas: version.replicas,
                    settled: true,
                    refused: None,
                    template: Arc::from(""),
                    charge: Arc::clone(&branch.charge),
                }));
            }
            let pods = seen(&self.pods);
            let pod = |draining| {
                Arc::new(PodView {
                    name: String::new(),
                    uid: String::new(),
                    resource_version: String::new(),
                    revision: branch.revision.clone(),
                    created: Timestamp::UNIX_EPOCH,
                    ended: false,
                    started: None,
                    restarted: false,
                    ready: true,
                    rank: Rank::Ready,
                    draining,
                    mark: None,
                    returned: false,
                    controlled: true,
                    trouble: None,
                    charge: Arc::clone(&branch.charge),
                    due: None,
                })
            };
            objects.pods.extend((0..pods.live).map(|_| pod(false)));
            objects.pods.extend((0..pods.draining).map(|_| pod(true)));
        }
        objects
    }
}
