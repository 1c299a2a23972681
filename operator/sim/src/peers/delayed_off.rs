//! How many pods theory would keep: none goes before it was idle for a while, and never fewer than square-root
//! staffing.
//!
//! DELAYEDOFF (Gandhi, Gupta, Harchol-Balter, Kozuch: "Optimality analysis of energy-performance trade-off for server
//! farm management") starts a server for every task that finds none, sends tasks to the one that was busy last, and
//! turns a server off when it was idle for a fixed time. With that routing server *n* is idle while fewer than *n*
//! are needed, so the number that is on is the largest need of the last while; that is what is computed here, as a
//! `ReplicaSet` takes a number and no names. Whom it ends is then the cluster's choice, which theory assumes away.
//! Below it lies square-root staffing, `ρ + β√ρ` (Halfin and Whitt), with the offered load ρ estimated as the rate of
//! arrival × mean busy time of a task over a window: nothing here is clairvoyant.
//!
//! Without a reading it keeps what it has.

use std::collections::VecDeque;

use super::history::History;
use super::view::{Each, Rule, View, ceil, real};
use crate::scenario::{Millis, Scenario};

/// The numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Time between two looks: 1 s, close to the paper's "at each arrival".
    pub tick: Millis,
    /// How long a server stays on idle: 120 s. Theory wants set-up time × power of set-up ÷ power idle.
    pub wait: Millis,
    /// β of square-root staffing: 1; negative for no staffing.
    pub beta: f64,
    /// Window of the offered load: 300 s.
    pub window: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick: 1_000,
            wait: 120_000,
            beta: 1.0,
            window: 300_000,
        }
    }
}

/// The settings to search: how long it waits, and how much it staffs over which window.
#[must_use]
pub fn grid() -> Vec<Settings> {
    let mut all = Vec::new();
    for wait in [5_000, 10_000, 15_000, 30_000, 60_000, 120_000] {
        for (beta, window) in [(-1.0, 300_000), (0.0, 300_000), (0.5, 300_000), (1.0, 900_000)] {
            all.push(Settings {
                wait,
                beta,
                window,
                ..Settings::default()
            });
        }
    }
    all
}

/// The rule of one fleet.
#[derive(Clone, Debug)]
pub struct DelayedOff {
    settings: Settings,
    /// Slots needed within the wait; falling, since only the largest to come can matter.
    needs: VecDeque<(Millis, u64)>,
    history: History,
}

/// One rule for each fleet.
#[must_use]
pub fn build(settings: &Settings, scenario: &Scenario) -> Each<DelayedOff> {
    Each::new(settings.tick, scenario, |_| DelayedOff::new(settings.clone()))
}

/// `ρ + β√ρ`, in slots; none for no load or a negative β.
#[must_use]
pub fn staffing(load: f64, beta: f64) -> f64 {
    if beta < 0.0 {
        0.0
    } else {
        load + beta * load.sqrt()
    }
}

impl DelayedOff {
    /// One that has seen nothing yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        let history = History::new(settings.window);
        Self {
            settings,
            needs: VecDeque::new(),
            history,
        }
    }

    /// The largest need of the last while.
    fn largest(&mut self, now: Millis, need: u64) -> u64 {
        let wait = self.settings.wait;
        while self.needs.back().is_some_and(|(_, past)| *past <= need) {
            self.needs.pop_back();
        }
        self.needs.push_back((now, need));
        while self.needs.front().is_some_and(|(at, _)| at + wait < now) {
            self.needs.pop_front();
        }
        self.needs.front().map_or(need, |(_, need)| *need)
    }

    /// Arrivals × busy time for each completion.
    fn load(&self) -> Option<f64> {
        let done = self.history.completions().filter(|done| *done > 0.0)?;
        Some(self.history.arrivals()? * self.history.busy()? / done)
    }
}

impl Rule for DelayedOff {
    fn decide(&mut self, view: &View) -> Option<u32> {
        let reading = view.reading?;
        self.history.note(view.now, &reading);
        let need = real(self.largest(view.now, reading.in_system()));
        let staff = staffing(self.load().unwrap_or(0.0), self.settings.beta);
        Some(ceil(need.max(staff) / f64::from(view.slots.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::{DelayedOff, Settings, staffing};
    use crate::peers::view::{Reading, Rule, View, ceil};

    #[test]
    fn square_root_staffing_adds_the_root_of_the_load() {
        // ρ = 100, β = 1: 100 + 10.
        assert_eq!(ceil(staffing(100.0, 1.0)), 110);
        // ρ = 20, β = 0.5: 20 + 0.5 × 4.47 = 22.2.
        assert_eq!(ceil(staffing(20.0, 0.5)), 23);
    }

    #[test]
    fn a_server_goes_when_it_was_idle_for_the_wait() {
        let settings = Settings {
            beta: -1.0,
            ..Settings::default()
        };
        let mut rule = DelayedOff::new(settings);
        let mut at = |now, ready| {
            rule.decide(&View {
                now,
                wanted: 0,
                up: 0,
                slots: 4,
                bounds: (0, 100),
                reading: Some(Reading {
                    ready,
                    ..Reading::default()
                }),
            })
        };
        // 40 tasks need ten pods of four; when 8 are left the others wait for 120 s.
        assert_eq!(at(0, 40), Some(10));
        assert_eq!(at(10_000, 8), Some(10));
        assert_eq!(at(120_000, 8), Some(10));
        assert_eq!(at(121_000, 8), Some(2));
        assert_eq!(at(122_000, 9), Some(3));
    }
}
