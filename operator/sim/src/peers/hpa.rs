//! How many pods Kubernetes' horizontal pod autoscaler wants, by one external metric of type `AverageValue`.
//!
//! It decides from that one number and from the pods there are; it knows neither age, nor service time, nor who is
//! busy. After `pkg/controller/podautoscaler` (`replica_calculator.go`: `GetExternalPerPodMetricReplicas`;
//! `horizontal.go`: `stabilizeRecommendationWithBehaviors`, `convertDesiredReplicasWithBehaviorRate`) and the page
//! "Horizontal Pod Autoscaling" of its documentation. It does nothing at 0 replicas, never goes there, and without a
//! reading it changes nothing.
//!
//! One known difference: an object *without* `spec.behavior` is limited to max(2 × replicas, 4) at each sync instead of
//! max(+100 %, +4 pods) in 15 s. The documentation gives the latter as the default, and so it is here: 1 → 5, not 4.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::view::{Each, Reading, Rule, View, ceil, floor, real};
use crate::scenario::{Millis, Scenario};

/// What the autoscaler reads of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Messages that wait, as Redis' `LLEN` counts them; the target is messages for a pod.
    Waiting,
    /// Messages that wait or are unacknowledged, as RabbitMQ's management interface counts them; the target is messages
    /// for a slot.
    Unacknowledged,
    /// Airflow's query: `ceil((running + queued) / worker_concurrency)`; the target is of that, for a pod.
    Query,
}

impl Metric {
    /// Its value.
    #[must_use]
    pub fn value(self, reading: &Reading, slots: u32) -> f64 {
        match self {
            Self::Waiting => real(reading.ready),
            Self::Unacknowledged => real(reading.ready + reading.unacked),
            Self::Query => (real(reading.in_system()) / f64::from(slots.max(1))).ceil(),
        }
    }

    /// What each pod should have of it.
    #[must_use]
    pub fn for_pod(self, target: f64, slots: u32) -> f64 {
        match self {
            Self::Waiting | Self::Query => target,
            Self::Unacknowledged => target * f64::from(slots),
        }
    }
}

/// How an autoscaler moves: `spec.behavior`, and the controller's flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// Time between two looks (`--horizontal-pod-autoscaler-sync-period`): 15 s.
    pub sync: Millis,
    /// No change while the metric is so close to its target (`--horizontal-pod-autoscaler-tolerance`): 0.1.
    pub tolerance: f64,
    /// Most growth within `up_period`, in percent of the pods at its begin: 100. The larger of both policies counts.
    pub up_percent: u32,
    /// Most growth within `up_period`, in pods: 4.
    pub up_pods: u32,
    /// 15 s.
    pub up_period: Millis,
    /// Grows to the lowest recommendation of so long: 0.
    pub up_window: Millis,
    /// Most shrinking within `down_period`, in percent of the pods at its begin: 100.
    pub down_percent: u32,
    /// Most shrinking within `down_period`, in pods; 0 where there is no such policy, which is the default.
    pub down_pods: u32,
    /// 15 s.
    pub down_period: Millis,
    /// Shrinks to the highest recommendation of so long (`--horizontal-pod-autoscaler-downscale-stabilization`): 300 s.
    pub down_window: Millis,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            sync: 15_000,
            tolerance: 0.1,
            up_percent: 100,
            up_pods: 4,
            up_period: 15_000,
            up_window: 0,
            down_percent: 100,
            down_pods: 0,
            down_period: 15_000,
            down_window: 300_000,
        }
    }
}

/// The autoscaler of one fleet.
#[derive(Clone, Debug)]
pub struct Controller {
    behaviour: Behaviour,
    begun: bool,
    /// Recommendations before stabilisation, one a sync: rising those that may still be the lowest of the window of
    /// growing, falling those that may still be the highest of that of shrinking. A day of hundreds of fleets has millions
    /// of syncs, and the others of a window need not be looked at in each.
    low: VecDeque<(Millis, u32)>,
    high: VecDeque<(Millis, u32)>,
    /// Pods added and removed; one a sync at most, kept for the period of their policy.
    added: VecDeque<(Millis, u32)>,
    removed: VecDeque<(Millis, u32)>,
}

impl Controller {
    /// One that has seen nothing yet.
    #[must_use]
    pub const fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            begun: false,
            low: VecDeque::new(),
            high: VecDeque::new(),
            added: VecDeque::new(),
            removed: VecDeque::new(),
        }
    }

    /// One sync: the pods that there should be. `target` is for each pod, `bounds` the least (at least 1) and most.
    pub fn sync(
        &mut self,
        now: Millis,
        current: u32,
        metric: Option<f64>,
        target: f64,
        bounds: (u32, u32),
    ) -> u32 {
        if !std::mem::replace(&mut self.begun, true) {
            self.recommend(now, current);
        }
        let (least, most) = bounds;
        if current == 0 {
            return 0;
        }
        let wanted = if current > most {
            most
        } else if current < least {
            least
        } else {
            let Some(metric) = metric else { return current };
            let desired = desired(current, metric, target, self.behaviour.tolerance);
            let steady = self.stabilised(now, current, desired);
            self.limited(now, current, steady, bounds)
        };
        self.remember(now, current, wanted);
        wanted
    }

    /// Within the lowest and the highest recommendation of the windows.
    fn stabilised(&mut self, now: Millis, current: u32, desired: u32) -> u32 {
        let lowest = within(&mut self.low, self.behaviour.up_window, now);
        let highest = within(&mut self.high, self.behaviour.down_window, now);
        self.recommend(now, desired);
        let lowest = lowest.map_or(desired, |lowest| lowest.min(desired));
        let highest = highest.map_or(desired, |highest| highest.max(desired));
        current.max(lowest).min(highest)
    }

    /// Notes a recommendation. What is older and no more extreme will never be the extreme again.
    fn recommend(&mut self, now: Millis, pods: u32) {
        while self.low.back().is_some_and(|(_, older)| *older >= pods) {
            self.low.pop_back();
        }
        while self.high.back().is_some_and(|(_, older)| *older <= pods) {
            self.high.pop_back();
        }
        self.low.push_back((now, pods));
        self.high.push_back((now, pods));
    }

    /// Within what the policies allow and within bounds.
    fn limited(&self, now: Millis, current: u32, wanted: u32, (least, most): (u32, u32)) -> u32 {
        let of = &self.behaviour;
        match wanted.cmp(&current) {
            Ordering::Greater => {
                let start = self.start(now, current, of.up_period);
                let by_percent = ceil(f64::from(start) * (1.0 + f64::from(of.up_percent) / 100.0));
                let limit = by_percent.max(start + of.up_pods).max(current);
                wanted.min(limit.min(most))
            }
            Ordering::Less => {
                let start = self.start(now, current, of.down_period);
                let by_percent = floor(f64::from(start) * (1.0 - f64::from(of.down_percent) / 100.0));
                let by_pods = if of.down_pods == 0 {
                    start
                } else {
                    start.saturating_sub(of.down_pods)
                };
                let limit = by_percent.min(by_pods).min(current);
                wanted.max(limit.max(least))
            }
            Ordering::Equal => wanted,
        }
    }

    /// Pods at the begin of a period.
    fn start(&self, now: Millis, current: u32, period: Millis) -> u32 {
        let within = |events: &VecDeque<(Millis, u32)>| -> u32 {
            let recent = events.iter().filter(|(at, _)| at + period > now);
            recent.map(|(_, pods)| *pods).sum()
        };
        (current + within(&self.removed)).saturating_sub(within(&self.added))
    }

    fn remember(&mut self, now: Millis, current: u32, wanted: u32) {
        let longest = self.behaviour.up_period.max(self.behaviour.down_period);
        self.added.retain(|(at, _)| at + longest > now);
        self.removed.retain(|(at, _)| at + longest > now);
        if wanted > current {
            self.added.push_back((now, wanted - current));
        } else if wanted < current {
            self.removed.push_back((now, current - wanted));
        }
    }
}

/// The first of what lies within a window, which is its extreme; what lies before it is forgotten.
fn within(kept: &mut VecDeque<(Millis, u32)>, window: Millis, now: Millis) -> Option<u32> {
    while kept.front().is_some_and(|(at, _)| at + window <= now) {
        kept.pop_front();
    }
    kept.front().map(|(_, pods)| *pods)
}

/// What the metric asks for, without memory: as many as are there while it is within the tolerance, both edges
/// included (`Tolerances.isWithin`).
#[must_use]
pub fn desired(current: u32, metric: f64, target: f64, tolerance: f64) -> u32 {
    let ratio = metric / (target * f64::from(current));
    if (1.0 - tolerance..=1.0 + tolerance).contains(&ratio) {
        current
    } else {
        ceil(metric / target)
    }
}

/// The numbers of an autoscaler that stands alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What it reads. There is no default in Kubernetes; what waits or is unacknowledged is the kindest here.
    pub metric: Metric,
    /// What it should be for each pod or slot, see [`Metric`]: 1 message for a slot.
    pub target: f64,
    /// How it moves.
    pub behaviour: Behaviour,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metric: Metric::Unacknowledged,
            target: 1.0,
            behaviour: Behaviour::default(),
        }
    }
}

/// The settings to search: targets and the window of scaling down. The sync period is a flag of the whole cluster, so
/// its users cannot tune it and neither does this. How fast it may scale up they can tune, and this does not: all that there is or
/// four pods more in 15 s, whichever is more.
#[must_use]
pub fn grid() -> Vec<Settings> {
    let read = [
        (Metric::Unacknowledged, 0.5),
        (Metric::Unacknowledged, 0.75),
        (Metric::Unacknowledged, 1.0),
        (Metric::Unacknowledged, 1.5),
        (Metric::Waiting, 1.0),
        (Metric::Waiting, 5.0),
    ];
    let windows = [0, 60_000, 120_000, 300_000];
    let with = |(metric, target)| {
        windows.map(|down_window| Settings {
            metric,
            target,
            behaviour: Behaviour {
                down_window,
                ..Behaviour::default()
            },
        })
    };
    read.into_iter().flat_map(with).collect()
}

/// The rule of one fleet.
#[derive(Clone, Debug)]
pub struct Hpa {
    settings: Settings,
    controller: Controller,
}

/// One autoscaler for each fleet.
#[must_use]
pub fn build(settings: &Settings, scenario: &Scenario) -> Each<Hpa> {
    let rule = |_| Hpa {
        settings: settings.clone(),
        controller: Controller::new(settings.behaviour.clone()),
    };
    Each::new(settings.behaviour.sync, scenario, rule)
}

impl Rule for Hpa {
    fn decide(&mut self, view: &View) -> Option<u32> {
        let bounds = (view.bounds.0.max(1), view.bounds.1);
        if view.wanted == 0 && !self.controller.begun {
            // A Deployment has one replica unless told otherwise; without it this rule would never begin.
            return Some(bounds.0);
        }
        let Settings { metric, target, .. } = self.settings;
        let value = view.reading.map(|reading| metric.value(&reading, view.slots));
        let target = metric.for_pod(target, view.slots);
        let current = view.wanted;
        Some(self.controller.sync(view.now, current, value, target, bounds))
    }
}
