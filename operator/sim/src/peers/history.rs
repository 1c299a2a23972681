//! What was read over a window: rates of arrival and completion, and how busy the slots were.
//!
//! For rules that reckon with rates. It decides nothing; counters that go back (a broker that was flushed) start it
//! anew, since no rate can be told across that.

use std::collections::VecDeque;

use super::view::{Reading, real};
use crate::scenario::Millis;

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Millis,
    published: u64,
    done: u64,
    running: u64,
    /// Slots × time that were busy until now: a sum that is carried, not summed anew at every look.
    worked: u64,
}

/// Samples of the last while; at most one for each look, so bounded by the window over the pace of its rule.
#[derive(Clone, Debug)]
pub(super) struct History {
    window: Millis,
    samples: VecDeque<Sample>,
}

impl History {
    pub(super) const fn new(window: Millis) -> Self {
        Self {
            window,
            samples: VecDeque::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Takes a reading, and forgets what left the window.
    pub(super) fn note(&mut self, now: Millis, reading: &Reading) {
        if let Some(last) = self.samples.back()
            && (reading.published < last.published)
        {
            self.clear();
        }
        let worked = self
            .samples
            .back()
            .map_or(0, |last| last.worked + last.running * (now - last.at));
        self.samples.push_back(Sample {
            at: now,
            published: reading.published,
            done: reading.done(),
            running: reading.running,
            worked,
        });
        while self.samples.get(1).is_some_and(|one| one.at + self.window <= now) {
            self.samples.pop_front();
        }
    }

    fn ends(&self) -> Option<(Sample, Sample)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        (first.at < last.at).then_some((*first, *last))
    }

    /// The window is full.
    pub(super) fn full(&self) -> bool {
        self.ends()
            .is_some_and(|(first, last)| last.at - first.at >= self.window)
    }

    /// Arrivals in a millisecond.
    pub(super) fn arrivals(&self) -> Option<f64> {
        let (first, last) = self.ends()?;
        Some(real(last.published - first.published) / real(last.at - first.at))
    }

    /// Completions in a millisecond.
    pub(super) fn completions(&self) -> Option<f64> {
        let (first, last) = self.ends()?;
        Some(real(last.done.saturating_sub(first.done)) / real(last.at - first.at))
    }

    /// Tasks that ran, on average.
    pub(super) fn busy(&self) -> Option<f64> {
        let (first, last) = self.ends()?;
        Some(real(last.worked - first.worked) / real(last.at - first.at))
    }
}

#[cfg(test)]
mod tests {
    use super::History;
    use crate::peers::view::Reading;

    #[test]
    fn rates_are_over_the_window_and_a_reset_begins_anew() {
        let mut history = History::new(60_000);
        let read = |published, held| Reading {
            held,
            running: held,
            published,
            ..Reading::default()
        };
        history.note(0, &read(100, 4));
        history.note(30_000, &read(130, 8));
        assert!(!history.full());
        history.note(60_000, &read(160, 4));
        assert!(history.full());
        // 60 arrivals in 60 s; done 96, 122, 156, so 60 in 60 s; running 4 for 30 s, then 8 for 30 s.
        let near = |left: Option<f64>, right: f64| left.is_some_and(|left| (left - right).abs() < 1e-9);
        assert!(near(history.arrivals(), 0.001));
        assert!(near(history.completions(), 0.001));
        assert!(near(history.busy(), 6.0));
        history.note(90_000, &read(3, 1));
        assert_eq!(history.arrivals(), None);
    }
}
