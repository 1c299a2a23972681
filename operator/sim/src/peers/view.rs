//! What a peer sees of one fleet, and how its answers reach the world.
//!
//! It adds up and passes on. It decides nothing, and hands no peer anything that its system could not read.

use crate::scaler::Scaler;
use crate::scenario::{Millis, Scenario};
use crate::world::{QueueSeen, World};

/// What can be read of a fleet's queues, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Messages that wait.
    pub ready: u64,
    /// Messages that workers hold unacknowledged.
    pub unacked: u64,
    /// Messages that workers hold: the unacknowledged, and those that run though they are acknowledged. Never less than
    /// what runs, which workers tell without the broker.
    pub held: u64,
    /// Tasks that this fleet's workers execute, draining ones included, as the workers themselves report it.
    pub running: u64,
    /// Messages published until now.
    pub published: u64,
}

impl Reading {
    /// All that is not done: waiting, fetched or running.
    #[must_use]
    pub const fn in_system(&self) -> u64 {
        self.ready + self.held
    }

    /// Messages done with until now, those to be tried again included.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.published.saturating_sub(self.in_system())
    }
}

/// One fleet at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The time.
    pub now: Millis,
    /// Pods asked for.
    pub wanted: u32,
    /// Workers that consume, draining ones left out.
    pub up: u32,
    /// Slots of one worker.
    pub slots: u32,
    /// Least and most pods.
    pub bounds: (u32, u32),
    /// `None` while nothing can be read.
    pub reading: Option<Reading>,
}

impl View {
    fn of(world: &World, fleet: usize, seen: Option<&[QueueSeen]>) -> Self {
        let spec = &world.scenario.fleets[fleet];
        let crew = &world.crews[fleet];
        let reading = seen.map(|seen| {
            let sum = |part: fn(&QueueSeen) -> u64| spec.queues.iter().map(|at| part(&seen[*at])).sum();
            let (unacked, running): (u64, u64) = (sum(|queue| queue.unacked), crew.running);
            Reading {
                ready: sum(|queue| queue.ready),
                unacked,
                held: running.max(unacked + if spec.late { 0 } else { running }),
                running,
                published: sum(|queue| queue.published),
            }
        });
        let up = world.staying(fleet).filter(|(_, pod)| pod.up_at <= world.now);
        Self {
            now: world.now,
            wanted: crew.wanted,
            up: u32::try_from(up.count()).unwrap_or(u32::MAX),
            slots: spec.slots,
            bounds: spec.bounds,
            reading,
        }
    }
}

/// Decides the pods of one fleet.
pub trait Rule {
    /// Pods that the fleet should have, or `None` to leave it alone. Bounds are kept by the caller.
    fn decide(&mut self, view: &View) -> Option<u32>;
}

/// One rule for each fleet, all at one pace.
#[derive(Clone, Debug)]
pub struct Each<R> {
    period: Millis,
    rules: Vec<R>,
}

impl<R: Rule> Each<R> {
    /// Makes the rule of each fleet, by its place.
    #[must_use]
    pub fn new(period: Millis, scenario: &Scenario, rule: impl FnMut(usize) -> R) -> Self {
        let rules = (0..scenario.fleets.len()).map(rule).collect();
        Self { period, rules }
    }
}

impl<R: Rule> Scaler for Each<R> {
    fn period(&self) -> Millis {
        self.period
    }

    fn look(&mut self, world: &mut World) {
        let seen = world.seen();
        for (fleet, rule) in self.rules.iter_mut().enumerate() {
            let view = View::of(world, fleet, seen.as_deref());
            if let Some(pods) = rule.decide(&view) {
                let (least, most) = view.bounds;
                world.scale(fleet, pods.max(least).min(most));
            }
        }
    }
}

/// A count as a number to reckon with.
#[must_use]
#[allow(clippy::cast_precision_loss)] // Counts of messages and times stay far below 2^52.
pub const fn real(count: u64) -> f64 {
    count as f64
}

/// The next whole number of pods or slots; nothing for what is not above zero, the most there is for what is endless.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Such a cast ends at the bounds of the type.
pub fn ceil(number: f64) -> u32 {
    number.ceil() as u32
}

/// The whole number of pods below.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // As for `ceil`.
pub fn floor(number: f64) -> u32 {
    number.floor() as u32
}
