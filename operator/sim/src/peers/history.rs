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

impl Sample {
    /// The same numbers read again so much later.
    const fn later(self, by: Millis) -> Self {
        Self {
            at: self.at + by,
            worked: self.worked + self.running * by,
            ..self
        }
    }
}

/// Samples at one pace that read the same. Of a quiet fleet it is one for hours, where samples would fill every cache.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Sample,
    /// Time from the first to the last.
    long: Millis,
    /// Time from each to the next; with one sample, anything.
    step: Millis,
}

impl Run {
    const fn last(&self) -> Sample {
        self.first.later(self.long)
    }

    /// Takes in a sample that goes on as before.
    fn extend(&mut self, sample: &Sample) -> bool {
        let (last, by) = (self.last(), sample.at - self.first.at - self.long);
        let same = |one: &Sample| (one.published, one.done, one.running);
        let fits = by > 0 && same(&last) == same(sample) && (self.long == 0 || by == self.step);
        if fits {
            self.step = by;
            self.long += by;
        }
        fits
    }

    /// Forgets samples before the last one that is not after `cut`.
    fn forget(&mut self, cut: Millis) {
        let past = cut.saturating_sub(self.first.at).min(self.long);
        let by = past - past % self.step.max(1);
        self.first = self.first.later(by);
        self.long -= by;
    }
}

/// Samples of the last while; at most one for each look, so bounded by the window over the pace of its rule.
#[derive(Clone, Debug)]
pub(super) struct History {
    window: Millis,
    runs: VecDeque<Run>,
}

impl History {
    pub(super) const fn new(window: Millis) -> Self {
        Self {
            window,
            runs: VecDeque::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Takes a reading, and forgets what left the window.
    pub(super) fn note(&mut self, now: Millis, reading: &Reading) {
        let last = self.runs.back().map(Run::last);
        let last = last.filter(|last| reading.published >= last.published);
        if last.is_none() {
            self.clear();
        }
        let sample = Sample {
            at: now,
            published: reading.published,
            done: reading.done(),
            running: reading.running,
            worked: last.map_or(0, |last| last.later(now - last.at).worked),
        };
        if !self.runs.back_mut().is_some_and(|run| run.extend(&sample)) {
            self.runs.push_back(Run {
                first: sample,
                long: 0,
                step: 0,
            });
        }
        let Some(cut) = now.checked_sub(self.window) else {
            return;
        };
        while self.runs.get(1).is_some_and(|run| run.first.at <= cut) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.forget(cut);
        }
    }

    fn ends(&self) -> Option<(Sample, Sample)> {
        let (first, last) = (self.runs.front()?.first, self.runs.back()?.last());
        (first.at < last.at).then_some((first, last))
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

    /// Every sample kept, as the rule is written down.
    #[test]
    fn runs_say_what_single_samples_would() {
        let mut history = History::new(10_000);
        let mut samples: Vec<(u64, u64, u64, u64)> = Vec::new();
        let (mut now, mut published, mut worked, mut held) = (0, 0, 0, 0);
        for at in 0_u64..400 {
            let by = [1_000, 1_000, 1_000, 2_500][(at / 37 % 4) as usize];
            (now, worked) = (now + by, worked + held * by);
            if at % 23 < 3 {
                (published, held) = (published + at % 5, (at / 23) % 4);
                published = published.max(held);
            }
            history.note(
                now,
                &Reading {
                    held,
                    running: held,
                    published,
                    ..Reading::default()
                },
            );
            samples.push((now, published, published - held, worked));
            while samples.get(1).is_some_and(|one| one.0 + 10_000 <= now) {
                samples.remove(0);
            }
            let (first, last) = (samples[0], samples[samples.len() - 1]);
            let long = last.0 - first.0;
            let rate =
                |by: u64| (long > 0).then(|| crate::peers::view::real(by) / crate::peers::view::real(long));
            assert_eq!(history.arrivals(), rate(last.1 - first.1), "{now}");
            assert_eq!(
                history.completions(),
                rate(last.2.saturating_sub(first.2)),
                "{now}"
            );
            assert_eq!(history.busy(), rate(last.3 - first.3), "{now}");
            assert_eq!(history.full(), long >= 10_000, "{now}");
        }
        assert!(history.runs.len() < samples.len());
    }
}
