//! What acts besides the operators: Kubernetes' controllers, and people.
//!
//! A controller works on one object at a time, in parts: it reads its cache, which may be old, it acts, and it says which
//! generation it has acted on. A `ReplicaSet` is updated under the resourceVersion in the cache. Pods are counted as
//! they are, because a controller waits for what it created to come into its cache; while it waits it leaves pods alone
//! but says that it has seen the generation.

use crate::random::Random;
use crate::world::{Branch, Fill, Roll, World, say};

/// One part of a sync of the Deployment controller.
pub fn roll(world: &mut World, at: usize, random: &mut Random) {
    let rv = world.rv();
    let branch = &mut world.branches[at];
    let Some(roll) = branch.roll else {
        let events = random.below(4);
        branch.deployment.read(events);
        branch.roll = branch.deployment.unread.first().map(|deployment| Roll {
            deployment: *deployment,
            set: branch.set.unread.first().copied(),
            is_done: false,
        });
        return;
    };
    let asked = roll.deployment.replicas;
    if roll.is_done {
        branch.roll = None;
        let is_current = branch
            .deployment
            .now
            .is_some_and(|now| now.rv == roll.deployment.rv);
        if is_current && branch.deployment.observed != roll.deployment.generation {
            branch.deployment.observed = roll.deployment.generation;
            branch.deployment.touch(rv);
        }
        return;
    }
    let is_done = match (roll.set, branch.set.now) {
        (Some(read), _) if read.replicas == asked => true,
        (Some(read), Some(now)) if read.rv == now.rv => {
            branch.set.scale(rv, asked);
            true
        }
        (None, None) => {
            branch.set.create(rv, asked);
            true
        }
        _ => false,
    };
    branch.roll = is_done.then_some(Roll { is_done, ..roll });
    say!(world, "  d{at}: controller acts on {asked}: {is_done}");
}

/// One part of a sync of the `ReplicaSet` controller.
pub fn fill(world: &mut World, at: usize, random: &mut Random) {
    let rv = world.rv();
    let branch = &mut world.branches[at];
    let Some(fill) = branch.fill else {
        let events = random.below(4);
        branch.set.read(events);
        branch.fill = branch.set.unread.first().map(|set| Fill {
            set: *set,
            is_done: false,
        });
        return;
    };
    if fill.is_done {
        branch.fill = None;
        if branch.set.now.is_some() && branch.set.observed < fill.set.generation {
            branch.set.observed = fill.set.generation;
            branch.set.touch(rv);
        }
        return;
    }
    branch.fill = Some(Fill {
        is_done: true,
        ..fill
    });
    if random.percent(15) {
        return;
    }
    let surplus = branch.live.saturating_sub(fill.set.replicas);
    branch.draining += surplus;
    branch.live -= surplus;
    let missing = fill.set.replicas - branch.live.min(fill.set.replicas);
    branch.live += if random.percent(15) {
        random.small(missing + 1)
    } else {
        missing
    };
    let live = branch.live;
    say!(
        world,
        "  d{at}: {surplus} pods go, {live} stay of {}",
        fill.set.replicas
    );
}

/// A controller does one part of its work, which never makes more pods than were asked for.
pub fn control(world: &mut World, at: usize, random: &mut Random) {
    let branch = &world.branches[at];
    let before = branch.committed();
    let is_deployment = match (branch.is_rolled_out(), branch.is_filled()) {
        (false, true) => random.percent(80),
        (true, false) => random.percent(20),
        _ => random.percent(50),
    };
    if is_deployment {
        roll(world, at, random);
    } else {
        fill(world, at, random);
    }
    let after = world.branches[at].committed();
    forgive(&mut world.branches[at]);
    assert!(
        after <= before,
        "the model of a controller is wrong: {before} pods become {after}"
    );
}

/// The garbage collector takes one thing whose owner is gone.
pub fn collect(world: &mut World, at: usize) {
    let branch = &mut world.branches[at];
    let is_orphan = !world.worker_pools[branch.holder].1;
    if branch.deployment.now.is_some() {
        if is_orphan {
            branch.deployment.now = None;
            say!(world, "  d{at} is collected");
        }
    } else if branch.set.now.is_some() {
        branch.set.now = None;
        say!(world, "  the set of d{at} is collected");
    } else {
        evict(world, at);
    }
}

/// A pod on its way out is gone.
pub fn end(world: &mut World, at: usize, random: &mut Random) {
    let branch = &mut world.branches[at];
    if branch.draining > 0 {
        let is_evicted = random.small(branch.draining) < branch.evicted;
        branch.evicted -= u32::from(is_evicted);
        branch.draining -= 1;
        forgive(branch);
        say!(world, "  a pod of d{at} is gone");
    }
}

/// Someone deletes a pod; a controller that has not seen that its owner is gone makes another.
pub fn evict(world: &mut World, at: usize) {
    let branch = &mut world.branches[at];
    if branch.live > 0 {
        let before = branch.committed();
        branch.live -= 1;
        branch.draining += 1;
        branch.evicted += branch.committed().saturating_sub(before);
        say!(world, "  a pod of d{at} is deleted");
    }
}

/// Someone scales a Deployment.
pub fn scale(world: &mut World, at: usize, replicas: u32) {
    let rv = world.rv();
    let branch = &mut world.branches[at];
    let before = branch.committed();
    branch.deployment.scale(rv, replicas);
    branch.lifted += branch.committed().saturating_sub(before);
    forgive(branch);
    say!(world, "someone scales d{at} to {replicas}");
}

/// Nobody has added more pods than there are.
fn forgive(branch: &mut Branch) {
    branch.lifted = branch.lifted.min(branch.committed() - branch.evicted);
}
