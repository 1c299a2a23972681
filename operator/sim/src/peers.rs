//! Which rules Poolwright is compared with, and with which settings.
//!
//! Each peer decides one number of pods for each fleet, from the sums over the fleet's queues of what a broker shows,
//! and marks and parks nothing. It may not look into the scenario: where a rule takes a number that its users must
//! know beforehand (a mean service time, a static size), that number is computed when the peer is built, its module
//! says so, and the peer is to that extent clairvoyant. A peer that is weak because it was misread proves nothing, so
//! every rule is as its own system documents it, starts from that system's defaults, comes with a grid for a tuning
//! run, and may run under a grace that never kills.
//!
//! Not modelled, in favour of the peers: their own failures, late reconciles and limits on calls. All begin at the
//! lower bound of their fleet or at what their system begins with.

pub mod delayed_off;
pub mod fixed;
pub mod flink;
mod history;
pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod sqs;
pub mod view;

use crate::scaler::Scaler;
use crate::scenario::{Millis, Scenario};

/// A grace that ends no run: longer than any scenario lasts.
pub const UNLIMITED: Millis = 30 * 24 * 3_600_000;

/// How long a worker may go on after it was told to go. Kubernetes' default punishes a rule that hits busy workers,
/// and says little about the rule itself, so every peer also runs without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// 30 s, the default `terminationGracePeriodSeconds` of Kubernetes.
    Short,
    /// Until it is done.
    Unlimited,
}

impl Grace {
    /// In milliseconds.
    #[must_use]
    pub const fn millis(self) -> Millis {
        match self {
            Self::Short => 30_000,
            Self::Unlimited => UNLIMITED,
        }
    }

    /// The scenario with every fleet under this grace.
    #[must_use]
    pub fn on(self, scenario: &Scenario) -> Scenario {
        let mut scenario = scenario.clone();
        for fleet in &mut scenario.fleets {
            fleet.grace = self.millis();
        }
        scenario
    }
}

/// A peer and all its numbers: plain data, to be compared, printed and stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Settings {
    /// Kubernetes' own rule alone.
    Hpa(hpa::Settings),
    /// Kubernetes' rule under KEDA.
    Keda(keda::Settings),
    /// Knative.
    Kpa(kpa::Settings),
    /// AWS, backlog per instance.
    Sqs(sqs::Settings),
    /// After Flink's autoscaler.
    Flink(flink::Settings),
    /// Delayed off with square-root staffing.
    DelayedOff(delayed_off::Settings),
    /// Celery's `--autoscale` on a fixed number of pods.
    Celery(fixed::Size),
    /// A fixed number of pods.
    Fixed(fixed::Size),
}

impl Settings {
    /// A short name of the peer, without its numbers.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hpa(_) => "hpa",
            Self::Keda(settings) => settings.name(),
            Self::Kpa(_) => "kpa",
            Self::Sqs(_) => "sqs",
            Self::Flink(_) => "flink",
            Self::DelayedOff(_) => "delayed-off",
            Self::Celery(_) => "celery-autoscale",
            Self::Fixed(size) => size.name(),
        }
    }

    /// The peer, ready for this scenario.
    #[must_use]
    pub fn build(&self, scenario: &Scenario) -> Box<dyn Scaler> {
        match self {
            Self::Hpa(settings) => Box::new(hpa::build(settings, scenario)),
            Self::Keda(settings) => Box::new(keda::build(settings, scenario)),
            Self::Kpa(settings) => Box::new(kpa::build(settings, scenario)),
            Self::Sqs(settings) => Box::new(sqs::build(settings, scenario)),
            Self::Flink(settings) => Box::new(flink::build(settings, scenario)),
            Self::DelayedOff(settings) => Box::new(delayed_off::build(settings, scenario)),
            Self::Celery(size) | Self::Fixed(size) => Box::new(fixed::build(*size, scenario)),
        }
    }

    /// What a tuning run should try for this peer. As it comes out of the box is always among it, also where that lies
    /// between the steps.
    #[must_use]
    pub fn grid(&self) -> Vec<Self> {
        let mut grid = self.steps();
        if !grid.contains(self) {
            grid.push(self.clone());
        }
        grid
    }

    fn steps(&self) -> Vec<Self> {
        match self {
            Self::Hpa(_) => hpa::grid().into_iter().map(Self::Hpa).collect(),
            Self::Keda(of) => keda::grid(of.metric).into_iter().map(Self::Keda).collect(),
            Self::Kpa(_) => kpa::grid().into_iter().map(Self::Kpa).collect(),
            Self::Sqs(_) => sqs::grid().into_iter().map(Self::Sqs).collect(),
            Self::Flink(_) => flink::grid().into_iter().map(Self::Flink).collect(),
            Self::DelayedOff(_) => {
                let grid = delayed_off::grid().into_iter();
                grid.map(Self::DelayedOff).collect()
            }
            Self::Celery(_) => fixed::Size::STATIC.map(Self::Celery).to_vec(),
            Self::Fixed(_) => vec![self.clone()],
        }
    }
}

/// A peer as it runs in the suite.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its numbers.
    pub settings: Settings,
    /// How long its workers may drain.
    pub grace: Grace,
}

impl Entry {
    /// The name of the peer, and of its grace where that is not the short one.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.settings.name();
        match self.grace {
            Grace::Short => name.to_owned(),
            Grace::Unlimited => format!("{name}+grace"),
        }
    }

    /// The scenario that this peer meets, and the peer.
    #[must_use]
    pub fn on(&self, scenario: &Scenario) -> (Scenario, Box<dyn Scaler>) {
        let scenario = self.grace.on(scenario);
        let scaler = self.settings.build(&scenario);
        (scenario, scaler)
    }

    /// The same peer with every combination of numbers that a tuning run should try.
    #[must_use]
    pub fn tunings(&self) -> Vec<Self> {
        let grace = self.grace;
        let grid = self.settings.grid().into_iter();
        grid.map(|settings| Self { settings, grace }).collect()
    }
}

/// Every peer with its defaults.
#[must_use]
pub fn defaults() -> Vec<Settings> {
    let mut peers = vec![
        Settings::Hpa(hpa::Settings::default()),
        Settings::Keda(keda::Settings::redis()),
        Settings::Keda(keda::Settings::rabbit()),
        Settings::Keda(keda::Settings::airflow()),
        Settings::Kpa(kpa::Settings::default()),
        Settings::Sqs(sqs::Settings::default()),
        Settings::Flink(flink::Settings::default()),
        Settings::DelayedOff(delayed_off::Settings::default()),
        Settings::Celery(fixed::Size::P99),
    ];
    peers.extend(fixed::Size::STATIC.map(Settings::Fixed));
    peers
}

/// Every peer with its defaults, under each grace.
#[must_use]
pub fn all() -> Vec<Entry> {
    let with = |settings: Settings| {
        [Grace::Short, Grace::Unlimited].map(|grace| Entry {
            settings: settings.clone(),
            grace,
        })
    };
    defaults().into_iter().flat_map(with).collect()
}
