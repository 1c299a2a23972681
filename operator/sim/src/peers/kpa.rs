//! How many pods Knative's autoscaler wants, by the concurrency over a long and a short window.
//!
//! It decides from the mean of what runs and waits, and from the workers that are ready. After
//! `pkg/autoscaler/scaling/autoscaler.go` and `config/core/configmaps/autoscaler.yaml` of knative/serving. While in
//! panic it only grows; without a sample in its long window it changes nothing; a window that is not full yet is
//! averaged over what there is.
//!
//! Taken over with a difference: concurrency is sampled at each tick rather than each second, and a revision begins
//! at 0 pods rather than at its `initial-scale` of 1. The last pod goes after the whole grace, which Knative documents
//! as an upper bound: with its activator in the path it may go sooner. Target burst capacity is left out: it decides
//! who buffers a burst, and a broker always does.

use std::collections::VecDeque;

use super::view::{Each, Rule, View, ceil, floor, real};
use crate::scenario::{Millis, Scenario};

/// The numbers of Knative's `config-autoscaler`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Part of a worker's slots that should be busy (`container-concurrency-target-percentage`): 0.7.
    pub utilisation: f64,
    /// Time between two looks: 2 s, a constant there.
    pub tick: Millis,
    /// The long window (`stable-window`): 60 s.
    pub stable: Millis,
    /// The short window as a part of the long one (`panic-window-percentage`): 0.1, thus 6 s.
    pub panic_window: f64,
    /// In panic while the short window asks for so many times the ready pods (`panic-threshold-percentage`): 2.
    pub panic_threshold: f64,
    /// Most growth in a tick, times the ready pods (`max-scale-up-rate`): 1000.
    pub up_rate: f64,
    /// Most shrinking in a tick, a divisor of the ready pods (`max-scale-down-rate`): 2.
    pub down_rate: f64,
    /// Shrinks to the largest decision of so long (`scale-down-delay`): 0.
    pub down_delay: Millis,
    /// The last pod goes so long after none was wanted (`scale-to-zero-grace-period`): 30 s.
    pub zero_grace: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            utilisation: 0.7,
            tick: 2_000,
            stable: 60_000,
            panic_window: 0.1,
            panic_threshold: 2.0,
            up_rate: 1_000.0,
            down_rate: 2.0,
            down_delay: 0,
            zero_grace: 30_000,
        }
    }
}

/// The settings to search: targets, both windows (the short one is a part of the long one, and 6 s is the shortest that
/// Knative takes), whether it panics at all (10 is the most that it takes), and how slowly it lets go.
#[must_use]
pub fn grid() -> Vec<Settings> {
    let mut all = Vec::new();
    for utilisation in [0.7, 1.0] {
        for stable in [6_000, 15_000, 30_000, 60_000] {
            for (panic_threshold, down_delay) in [(2.0, 0), (10.0, 0), (10.0, 60_000)] {
                all.push(Settings {
                    utilisation,
                    stable,
                    panic_threshold,
                    down_delay,
                    ..Settings::default()
                });
            }
        }
    }
    all
}

/// The rule of one fleet.
#[derive(Clone, Debug)]
pub struct Kpa {
    settings: Settings,
    /// Concurrency, one sample a tick, over the long window: when, and the sum of all samples before it. Windows are
    /// summed as differences, for a day of hundreds of fleets has tens of millions of ticks.
    samples: VecDeque<(Millis, u64)>,
    /// Sum of all samples.
    total: u64,
    /// Last time over the threshold, and the most pods since then.
    panic: Option<(Millis, u32)>,
    /// Decisions within the delay.
    decided: VecDeque<(Millis, u32)>,
    /// Since when none has been wanted.
    idle: Option<Millis>,
}

/// One autoscaler for each fleet.
#[must_use]
pub fn build(settings: &Settings, scenario: &Scenario) -> Each<Kpa> {
    Each::new(settings.tick, scenario, |_| Kpa::new(settings.clone()))
}

impl Kpa {
    /// One that has seen nothing yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            samples: VecDeque::new(),
            total: 0,
            panic: None,
            decided: VecDeque::new(),
            idle: None,
        }
    }

    /// Mean concurrency of a window that ends now.
    fn mean(&self, now: Millis, window: f64) -> Option<f64> {
        let is_older = |(at, _): &(Millis, u64)| real(now - at) >= window;
        let first = self.samples.partition_point(is_older);
        let (_, before) = self.samples.get(first)?;
        let count = self.samples.len() - first;
        Some(real(self.total - before) / real(count as u64))
    }

    /// In panic, never fewer than before; out of it once the short window has been calm for a long one.
    fn panicked(&mut self, now: Millis, over: bool, stable: u32, short: u32) -> u32 {
        match self.panic {
            _ if over => {
                let most = self.panic.map_or(0, |(_, most)| most);
                self.panic = Some((now, most.max(stable).max(short)));
            }
            Some((last, _)) if last + self.settings.stable < now => self.panic = None,
            Some((last, most)) => self.panic = Some((last, most.max(stable).max(short))),
            None => {}
        }
        self.panic.map_or(stable, |(_, most)| most)
    }

    /// The largest decision of the delay.
    fn delayed(&mut self, now: Millis, pods: u32) -> u32 {
        let delay = self.settings.down_delay;
        while self.decided.front().is_some_and(|(at, _)| at + delay <= now) {
            self.decided.pop_front();
        }
        self.decided.push_back((now, pods));
        self.decided.iter().map(|(_, pods)| *pods).fold(pods, u32::max)
    }

    /// Lets the last pod go after the grace.
    fn last_pod(&mut self, now: Millis, pods: u32) -> Option<u32> {
        if pods > 0 {
            self.idle = None;
            return Some(pods);
        }
        let since = *self.idle.get_or_insert(now);
        (since + self.settings.zero_grace <= now).then_some(0)
    }
}

impl Rule for Kpa {
    fn decide(&mut self, view: &View) -> Option<u32> {
        let (now, stable) = (view.now, self.settings.stable);
        while self.samples.front().is_some_and(|(at, _)| at + stable <= now) {
            self.samples.pop_front();
        }
        if let Some(reading) = view.reading {
            self.samples.push_back((now, self.total));
            self.total += reading.in_system();
        }
        let long = self.mean(now, real(stable))?;
        let short = self.mean(now, real(stable) * self.settings.panic_window)?;
        let ready = f64::from(view.up.max(1));
        let target = self.settings.utilisation * f64::from(view.slots);
        let most = (self.settings.up_rate * ready).ceil();
        let least = f64::from(floor(ready / self.settings.down_rate));
        let within = |concurrency: f64| ceil((concurrency / target).ceil().max(least).min(most));
        let over = (short / target).ceil() / ready >= self.settings.panic_threshold;
        let pods = self.panicked(now, over, within(long), within(short));
        let pods = self.delayed(now, pods);
        self.last_pod(now, pods)
    }
}
