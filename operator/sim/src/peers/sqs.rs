//! How many instances AWS' target tracking wants, by the backlog for each instance.
//!
//! It decides from the messages that wait and the instances in service, once a minute, by two alarms: out as soon as
//! the backlog for an instance was above target for a few minutes, in only after it was below for a quarter of an hour,
//! and then gradually. After "Scaling policy based on Amazon SQS" of the EC2 Auto Scaling guide. It sees nothing of
//! what runs. Without a reading the alarms have no data, and nothing changes.
//!
//! **Clairvoyant in one number**: the target is the acceptable latency over the mean service time, which users have to
//! know. Here both come from the scenario: the shortest wait target of the fleet's queues, and the true mean of its
//! tasks. A worker of several slots works on as many messages at a time.
//!
//! The guide says "as fast as it can" out and "more gradually" in, and gives no amount for the latter; the periods of
//! the alarms are those that the service's own alarms are known by, and are not in the guide either. All of them are
//! settings for that reason. At no instance the metric has no value, so a step alarm on any waiting message starts the
//! first.

use super::view::{Each, Rule, View, ceil, floor, real};
use crate::scenario::{Millis, Scenario};

/// The numbers of a target-tracking policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Time between two values of the metric, and two looks: 60 s.
    pub period: Millis,
    /// Acceptable latency as a part of the wait target of the fleet's queues: 1.
    pub latency: f64,
    /// Values above target before it scales out: 3.
    pub out_periods: u32,
    /// Values below before it scales in: 15.
    pub in_periods: u32,
    /// Below means under this part of the target: 0.9.
    pub in_threshold: f64,
    /// Most of the instances that go in one period, one at least: 0.1. Assumed; AWS publishes none.
    pub in_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            period: 60_000,
            latency: 1.0,
            out_periods: 3,
            in_periods: 15,
            in_threshold: 0.9,
            in_share: 0.1,
        }
    }
}

/// The settings to search: the latency aimed at, how long the alarm of scaling in takes, and how gradually that is done.
#[must_use]
pub fn grid() -> Vec<Settings> {
    let mut all = Vec::new();
    for latency in [0.5, 1.0, 2.0, 4.0] {
        for in_periods in [5, 15, 30] {
            for in_share in [0.05, 0.1] {
                all.push(Settings {
                    latency,
                    out_periods: 1,
                    in_periods,
                    in_share,
                    ..Settings::default()
                });
            }
        }
    }
    all
}

/// The rule of one fleet.
#[derive(Clone, Debug)]
pub struct Sqs {
    settings: Settings,
    /// Acceptable backlog for an instance.
    target: f64,
    /// Values above and below in a row.
    above: u32,
    below: u32,
}

/// One policy for each fleet.
#[must_use]
pub fn build(settings: &Settings, scenario: &Scenario) -> Each<Sqs> {
    let rule = |fleet| Sqs::new(settings.clone(), target(settings, scenario, fleet));
    Each::new(settings.period, scenario, rule)
}

/// Acceptable backlog for an instance: what its slots do within the acceptable latency.
fn target(settings: &Settings, scenario: &Scenario, fleet: usize) -> f64 {
    let fleet = &scenario.fleets[fleet];
    let waits = fleet.queues.iter().map(|at| scenario.queues[*at].wait_target);
    let latency = real(waits.min().unwrap_or(0)) * settings.latency;
    let (mut work, mut count) = (0, 0);
    for task in &scenario.tasks {
        if fleet.queues.contains(&task.queue) {
            work += task.service;
            count += 1;
        }
    }
    latency * f64::from(fleet.slots) * real(count) / real(work.max(1))
}

impl Sqs {
    /// One that has seen nothing yet; `target` is the acceptable backlog for an instance.
    #[must_use]
    pub const fn new(settings: Settings, target: f64) -> Self {
        Self {
            settings,
            target,
            above: 0,
            below: 0,
        }
    }

    /// Takes a value of the metric into both alarms.
    fn alarm(&mut self, backlog: f64) {
        let low = self.settings.in_threshold * self.target;
        self.above = if backlog > self.target { self.above + 1 } else { 0 };
        self.below = if backlog < low { self.below + 1 } else { 0 };
    }
}

impl Rule for Sqs {
    fn decide(&mut self, view: &View) -> Option<u32> {
        let waiting = view.reading.map(|reading| reading.ready);
        let Some(waiting) = waiting.filter(|_| view.up > 0) else {
            (self.above, self.below) = (0, 0);
            let asleep = view.wanted == 0 && waiting.is_some_and(|waiting| waiting > 0);
            return asleep.then_some(1);
        };
        self.alarm(real(waiting) / f64::from(view.up));
        // Instances × backlog for each ÷ target.
        let wanted = ceil(real(waiting) / self.target.max(f64::MIN_POSITIVE));
        if self.above >= self.settings.out_periods {
            (wanted > view.wanted).then_some(wanted)
        } else if self.below >= self.settings.in_periods {
            let step = floor(f64::from(view.wanted) * self.settings.in_share).max(1);
            let pods = wanted.max(view.wanted.saturating_sub(step));
            (pods < view.wanted).then_some(pods)
        } else {
            None
        }
    }
}
