//! When KEDA wakes a fleet, when it lets it sleep, and what the autoscaler that it makes does between.
//!
//! KEDA itself decides only between none and some (`pkg/scaling/executor/scale_scaledobjects.go`): on each poll, an
//! active trigger wakes the first pod, and one that has been inactive for the cool-down ends them all at once,
//! however many the autoscaler still holds. All in between is [`Controller`], on the same metric, which the autoscaler
//! reads afresh at each sync (`useCachedMetrics` is off by default). A trigger that errs changes nothing, since
//! `fallback` is off by default; `minReplicaCount` is the lower bound of the fleet.
//!
//! Syncs happen half a sync after polls, the mean of what two unrelated timers give: seven and a half seconds after
//! the first pod, the autoscaler adds the next.
//!
//! Of several queues a user makes several triggers, of which the autoscaler takes the largest; here a fleet's queues
//! are summed, which asks for more.

use super::hpa::{Behaviour, Controller, Metric};
use super::view::{Each, Rule, View};
use crate::scenario::{Millis, Scenario};

/// The numbers of a `ScaledObject`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the trigger reads.
    pub metric: Metric,
    /// What it should be for each pod or slot, see [`Metric`].
    pub target: f64,
    /// Time between two polls of the trigger (`pollingInterval`): 30 s; the Airflow chart sets 5 s.
    pub poll: Millis,
    /// Active means above this (`activationListLength`, `activationValue`): 0.
    pub activation: f64,
    /// How long inactive before there are none (`cooldownPeriod`): 300 s; the Airflow chart sets 30 s.
    pub cooldown: Millis,
    /// The autoscaler's behaviour; KEDA leaves it at Kubernetes' defaults.
    pub behaviour: Behaviour,
}

impl Settings {
    fn by(metric: Metric, target: f64) -> Self {
        Self {
            metric,
            target,
            poll: 30_000,
            activation: 0.0,
            cooldown: 300_000,
            behaviour: Behaviour::default(),
        }
    }

    /// The `redis` trigger: `listLength` 5 messages for a pod. What workers hold has left the list, so it counts only
    /// what waits.
    #[must_use]
    pub fn redis() -> Self {
        Self::by(Metric::Waiting, 5.0)
    }

    /// The `rabbitmq` trigger in mode `QueueLength` over HTTP, which counts the unacknowledged too; as many messages
    /// for a pod as it has slots.
    #[must_use]
    pub fn rabbit() -> Self {
        Self::by(Metric::Unacknowledged, 1.0)
    }

    /// The `postgresql` trigger of Airflow's chart, with `targetQueryValue` 1, `pollingInterval` 5 s and
    /// `cooldownPeriod` 30 s. The chart also sets `maxReplicaCount` 10, `terminationGracePeriodSeconds` 600 and
    /// `worker_concurrency` 16; here these are the fleet's, the same for all peers. Tasks that Airflow has not queued
    /// yet it cannot see; here every task is queued when it arrives, which favours it.
    #[must_use]
    pub fn airflow() -> Self {
        Self {
            poll: 5_000,
            cooldown: 30_000,
            ..Self::by(Metric::Query, 1.0)
        }
    }

    /// A short name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.metric {
            Metric::Waiting => "keda-redis",
            Metric::Unacknowledged => "keda-rabbit",
            Metric::Query => "keda-airflow",
        }
    }
}

/// The settings to search: targets, polls, cool-downs and the autoscaler's window of scaling down.
#[must_use]
pub fn grid(metric: Metric) -> Vec<Settings> {
    let (base, targets): (Settings, &[f64]) = match metric {
        Metric::Waiting => (Settings::redis(), &[5.0, 10.0, 20.0, 40.0]),
        Metric::Unacknowledged => (Settings::rabbit(), &[0.75, 1.0, 1.5]),
        // The query gives pods, so another target would only be another concurrency.
        Metric::Query => (Settings::airflow(), &[1.0]),
    };
    let paces: &[(Millis, Millis)] = match metric {
        // What is running does not count here, so that hasty scale-in kills it.
        Metric::Waiting => &[
            (5_000, 60_000),
            (5_000, 300_000),
            (5_000, 900_000),
            (5_000, 1_800_000),
        ],
        // KEDA asks no more often than each second.
        Metric::Unacknowledged => &[(5_000, 300_000), (5_000, 60_000), (1_000, 15_000), (1_000, 5_000)],
        Metric::Query => &[(1_000, 5_000), (1_000, 10_000), (5_000, 30_000), (5_000, 300_000)],
    };
    let windows: &[Millis] = match metric {
        // An hour is the longest that Kubernetes allows.
        Metric::Waiting => &[300_000, 900_000, 1_800_000, 3_600_000],
        Metric::Unacknowledged => &[0, 60_000],
        Metric::Query => &[0, 15_000, 30_000, 60_000, 120_000],
    };
    let mut all = Vec::new();
    for target in targets {
        for (poll, cooldown) in paces {
            for window in windows {
                let mut settings = base.clone();
                (settings.target, settings.poll, settings.cooldown) = (*target, *poll, *cooldown);
                settings.behaviour.down_window = *window;
                all.push(settings);
            }
        }
    }
    all
}

/// The rule of one fleet.
#[derive(Clone, Debug)]
pub struct Keda {
    settings: Settings,
    controller: Controller,
    last_active: Option<Millis>,
}

/// One `ScaledObject` for each fleet.
#[must_use]
pub fn build(settings: &Settings, scenario: &Scenario) -> Each<Keda> {
    let sync = settings.behaviour.sync;
    let period = common(common(settings.poll, sync), sync / 2).max(1);
    Each::new(period, scenario, |_| Keda::new(settings.clone()))
}

/// The greatest common divisor: the pace at which neither timer is missed.
const fn common(one: Millis, other: Millis) -> Millis {
    if other == 0 {
        one
    } else {
        common(other, one % other)
    }
}

impl Keda {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let controller = Controller::new(settings.behaviour.clone());
        Self {
            settings,
            controller,
            last_active: None,
        }
    }

    /// One poll: none, some, or as many as there are.
    fn poll(&mut self, view: &View, current: u32, value: Option<f64>) -> u32 {
        let Some(value) = value else { return current };
        let least = view.bounds.0;
        if value > self.settings.activation {
            self.last_active = Some(view.now);
            if current == 0 { least.max(1) } else { current }
        } else if current > 0 && least == 0 {
            // The time of the last activity is stored in whole seconds, so a poll exactly a cool-down later finds it
            // over.
            let cooled = |last| last + self.settings.cooldown <= view.now;
            if self.last_active.is_none_or(cooled) {
                0
            } else {
                current
            }
        } else {
            current.max(least)
        }
    }
}

impl Rule for Keda {
    fn decide(&mut self, view: &View) -> Option<u32> {
        let Settings {
            metric, target, poll, ..
        } = self.settings;
        let sync = self.settings.behaviour.sync;
        let value = view.reading.map(|reading| metric.value(&reading, view.slots));
        let mut pods = view.wanted;
        if view.now.is_multiple_of(poll) {
            pods = self.poll(view, pods, value);
        }
        if view.now % sync == sync / 2 {
            let bounds = (view.bounds.0.max(1), view.bounds.1);
            let target = metric.for_pod(target, view.slots);
            pods = self.controller.sync(view.now, pods, value, target, bounds);
        }
        (pods != view.wanted).then_some(pods)
    }
}
