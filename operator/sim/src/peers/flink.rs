//! How many workers Flink's autoscaler would want for a source that reads the queue.
//!
//! It decides from rates over a quarter of an hour: what one busy slot really does, what arrives, and how much lag is
//! to be caught up with. After `ScalingMetricEvaluator`, `JobVertexScaler` and `AutoScalerUtils` of
//! apache/flink-kubernetes-operator:
//!
//! * capacity wanted = arrivals ÷ target utilisation + lag ÷ catch-up + arrivals × restart ÷ catch-up;
//! * it moves only when the true rate is outside what utilisation + boundary (up) and − boundary (down) give; while
//!   it works on a lag of more than the threshold it goes up only beyond full utilisation and never down;
//! * a step down is at most 60 %, and waits for an hour, for the largest number of that hour;
//! * after each change the window begins anew, once the stabilisation is over.
//!
//! Without a reading, and until the window is full, it changes nothing; it never has less than one pod.
//!
//! *Like* Flink: a change there restarts the whole job, which here costs nothing; rates are not rounded to whole
//! records a second, which would make slow tasks invisible; the unit of parallelism is a slot, rounded up to pods.

use std::collections::VecDeque;

use super::history::History;
use super::view::{Each, Reading, Rule, View, ceil, real};
use crate::scenario::{Millis, Scenario};

/// The numbers, `job.autoscaler.*` there.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Time between two looks (`kubernetes.operator.reconcile.interval`): 15 s, as the operator's chart sets it.
    pub tick: Millis,
    /// Part of the slots that should be busy (`utilization.target`): 0.7.
    pub utilisation: f64,
    /// How far from it nothing happens (`target.utilization.boundary`): 0.3.
    pub boundary: f64,
    /// Time to work off the lag (`catch-up.duration`): 30 min.
    pub catch_up: Millis,
    /// Time that a restart is expected to take (`restart.time`): 5 min.
    pub restart: Millis,
    /// Window of all rates (`metrics.window`): 15 min.
    pub window: Millis,
    /// Nothing is measured for so long after a change (`stabilization.interval`): 5 min.
    pub stabilisation: Millis,
    /// A step down waits for so long (`scale-down.interval`): 1 h.
    pub down_interval: Millis,
    /// Largest step down, as a part (`scale-down.max-factor`): 0.6.
    pub down_most: f64,
    /// A lag of more than this is a backlog being worked on (`backlog-processing.lag-threshold`): 5 min.
    pub lag_threshold: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick: 15_000,
            utilisation: 0.7,
            boundary: 0.3,
            catch_up: 1_800_000,
            restart: 300_000,
            window: 900_000,
            stabilisation: 300_000,
            down_interval: 3_600_000,
            down_most: 0.6,
            lag_threshold: 300_000,
        }
    }
}

/// The settings to search: its windows shrunk together, the catch-up, and the target with a narrower boundary. A fast
/// one expects the restart that this world has, which is none.
#[must_use]
pub fn grid() -> Vec<Settings> {
    let mut all = Vec::new();
    for (utilisation, boundary) in [(0.85, 0.1), (0.95, 0.1), (1.0, 0.1)] {
        for catch_up in [5_000, 15_000, 60_000] {
            for (window, down_interval) in [
                (15_000, 30_000),
                (30_000, 60_000),
                (60_000, 300_000),
                (60_000, 600_000),
                (60_000, 1_200_000),
            ] {
                all.push(Settings {
                    utilisation,
                    boundary,
                    catch_up,
                    restart: 0,
                    window,
                    stabilisation: window / 3,
                    down_interval,
                    ..Settings::default()
                });
            }
        }
    }
    all.push(Settings::default());
    all
}

/// The rule of one fleet.
#[derive(Clone, Debug)]
pub struct Flink {
    settings: Settings,
    history: History,
    /// Nothing is measured before this.
    from: Millis,
    /// Since when a step down has been asked for, and each number asked for since, with whether it was outside.
    down: Option<Millis>,
    asked: VecDeque<(Millis, u32, bool)>,
}

/// One autoscaler for each fleet.
#[must_use]
pub fn build(settings: &Settings, scenario: &Scenario) -> Each<Flink> {
    Each::new(settings.tick, scenario, |_| Flink::new(settings.clone()))
}

/// Rates of a full window, in tasks for a millisecond.
struct Rates {
    arrivals: f64,
    /// What all slots would do if all were busy.
    capacity: f64,
    lag: f64,
    done: f64,
}

impl Flink {
    /// One that has seen nothing yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        let history = History::new(settings.window);
        Self {
            settings,
            history,
            from: 0,
            down: None,
            asked: VecDeque::new(),
        }
    }

    fn rates(&self, reading: &Reading, slots: u32) -> Option<Rates> {
        let (busy, done) = (self.history.busy()?, self.history.completions()?);
        if busy > 0.0 && done <= 0.0 {
            // Tasks longer than the window: there is no rate yet.
            return None;
        }
        let each = if busy > 0.0 { done / busy } else { f64::INFINITY };
        Some(Rates {
            arrivals: self.history.arrivals()?,
            capacity: each * f64::from(slots),
            lag: real(reading.ready),
            done,
        })
    }

    /// The capacity that a utilisation asks for.
    fn wanted(&self, rates: &Rates, utilisation: f64, with_restart: bool) -> f64 {
        if utilisation <= 0.0 {
            return f64::INFINITY;
        }
        let catch_up = real(self.settings.catch_up.max(1));
        let restart = if with_restart {
            real(self.settings.restart)
        } else {
            0.0
        };
        rates.lag / catch_up + rates.arrivals * restart / catch_up + rates.arrivals / utilisation.min(1.0)
    }

    fn outside(&self, rates: &Rates) -> bool {
        let of = &self.settings;
        let backlog = rates.lag > rates.done * real(of.lag_threshold);
        let (upper, lower) = if backlog {
            (1.0, 0.0)
        } else {
            (of.utilisation + of.boundary, of.utilisation - of.boundary)
        };
        rates.capacity < self.wanted(rates, upper, false) || rates.capacity > self.wanted(rates, lower, true)
    }

    /// A step down waits for its interval, and then goes to the largest number asked for within it.
    fn later(&mut self, now: Millis, slots: u32, outside: bool) -> Option<(u32, bool)> {
        let interval = self.settings.down_interval;
        let since = *self.down.get_or_insert(now);
        while self.asked.front().is_some_and(|(at, ..)| at + interval < now) {
            self.asked.pop_front();
        }
        self.asked.push_back((now, slots, outside));
        if since + interval > now {
            return None;
        }
        let largest = self.asked.iter().max_by_key(|(_, slots, _)| *slots);
        largest.map(|(_, slots, outside)| (*slots, *outside))
    }

    fn forget_down(&mut self) {
        self.down = None;
        self.asked.clear();
    }
}

impl Rule for Flink {
    fn decide(&mut self, view: &View) -> Option<u32> {
        if view.wanted == 0 {
            return Some(1);
        }
        let reading = view.reading?;
        if view.now < self.from {
            return None;
        }
        self.history.note(view.now, &reading);
        if !self.history.full() {
            return None;
        }
        let slots = view.wanted * view.slots;
        let rates = self.rates(&reading, slots)?;
        let factor = self.wanted(&rates, self.settings.utilisation, true) / rates.capacity;
        let asked = ceil(factor.max(1.0 - self.settings.down_most) * f64::from(slots)).max(1);
        let outside = self.outside(&rates);
        let (asked, outside) = if asked < slots {
            self.later(view.now, asked, outside)?
        } else {
            self.forget_down();
            (asked, outside)
        };
        let pods = asked.div_ceil(view.slots).max(1).min(view.bounds.1);
        if !outside || pods == view.wanted {
            return None;
        }
        self.forget_down();
        self.history.clear();
        self.from = view.now + self.settings.stabilisation;
        Some(pods)
    }
}

#[cfg(test)]
mod tests {
    use super::{Flink, Settings};
    use crate::peers::view::{Reading, Rule, View};

    /// A fleet of 10 pods of one slot: arrivals, what each busy slot does, what waits; by minutes.
    fn look(rule: &mut Flink, minute: u64, arrived: u64, done: u64, running: u64) -> Option<u32> {
        let in_system = arrived - done;
        rule.decide(&View {
            now: minute * 60_000,
            wanted: 10,
            up: 10,
            slots: 1,
            bounds: (0, 1_000),
            reading: Some(Reading {
                ready: in_system - running,
                unacked: running,
                held: running,
                running,
                published: arrived,
            }),
        })
    }

    #[test]
    fn it_waits_for_the_window_and_goes_up_for_arrivals_lag_and_restart() {
        let mut rule = Flink::new(Settings::default());
        // 600 arrive in a minute, ten busy slots do 300, so each does 30; the lag grows by 300 a minute.
        for minute in 0..15 {
            let running = 10;
            assert_eq!(
                look(&mut rule, minute, 10 + minute * 600, minute * 300, running),
                None
            );
        }
        // At 15 min the lag is 4 500: 600 ÷ 0.7 + 4 500 ÷ 30 + 600 × 5 ÷ 30 = 857.1 + 150 + 100 = 1 107.1 a minute,
        // over 30 for each slot = 36.9.
        assert_eq!(look(&mut rule, 15, 10 + 9_000, 4_500, 10), Some(37));
        // Then the window begins anew after the stabilisation of 5 min: it is full at 20 + 15.
        for minute in 16..35 {
            assert_eq!(look(&mut rule, minute, 10 + minute * 600, minute * 300, 10), None);
        }
        assert!(look(&mut rule, 35, 10 + 35 * 600, 35 * 300, 10).is_some());
    }

    #[test]
    fn within_the_boundary_nothing_moves() {
        let mut rule = Flink::new(Settings::default());
        // Nine of ten slots are busy: beyond 0.7, but within 0.7 + 0.3.
        for minute in 0..40 {
            assert_eq!(look(&mut rule, minute, 9 + minute * 270, minute * 270, 9), None);
        }
    }

    #[test]
    fn a_step_down_waits_for_an_hour_and_is_at_most_sixty_percent() {
        let mut rule = Flink::new(Settings::default());
        // One of ten slots is busy and does 30 a minute: 30 ÷ 0.7 + 30 × 5 ÷ 30 = 47.9 of 300, a factor of 0.16,
        // which is cut at 0.4: four.
        for minute in 0..75 {
            assert_eq!(
                look(&mut rule, minute, 1 + minute * 30, minute * 30, 1),
                None,
                "{minute}"
            );
        }
        assert_eq!(look(&mut rule, 75, 1 + 75 * 30, 75 * 30, 1), Some(4));
    }
}
