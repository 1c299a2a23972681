//! How long the workers of one WorkerPool take to come up, by the last few that did.
//!
//! What is planned for should suffice nine times in ten, so the longest of the last ten counts: one that waited an hour for
//! a node is forgotten after ten more. Knows nothing of pods that are still on their way.

use std::collections::VecDeque;
use std::time::Duration;

/// So many are remembered.
const KEPT: usize = 10;
/// A longer one waited for something else: by then a revision counts as one that does not come up.
const LONGEST: Duration = Duration::from_secs(600);

/// The last start-up times, oldest first.
#[derive(Clone, Debug, Default)]
pub struct StartUps {
    last: VecDeque<Duration>,
    /// The shortest and the longest of them: asked for more often than one comes.
    span: Option<(Duration, Duration)>,
}

impl StartUps {
    /// Takes in one.
    pub fn observe(&mut self, start_up: Duration) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(start_up.min(LONGEST));
        self.span = self
            .last
            .iter()
            .min()
            .copied()
            .zip(self.last.iter().max().copied());
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        self.span.map(|(_, longest)| longest)
    }

    /// The shortest.
    #[must_use]
    pub fn quickest(&self) -> Option<Duration> {
        self.span.map(|(quickest, _)| quickest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: &[u64]) -> StartUps {
        let mut all = StartUps::default();
        for seconds in seconds {
            all.observe(Duration::from_secs(*seconds));
        }
        all
    }

    fn longest(seconds: &[u64]) -> Option<u64> {
        seen(seconds).longest().map(|longest| longest.as_secs())
    }

    #[test]
    fn a_longer_one_counts_at_once_and_is_forgotten_after_ten() {
        assert_eq!(longest(&[]), None);
        assert_eq!(longest(&[30, 180]), Some(180));
        assert_eq!(longest(&[180, 30, 30, 30, 30, 30, 30, 30, 30, 30]), Some(180));
        assert_eq!(longest(&[180, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30]), Some(30));
    }

    #[test]
    fn an_hour_is_no_start_up() {
        assert_eq!(longest(&[3600]), Some(600));
        let quick = seen(&[5, 30, 20]);
        assert_eq!(quick.quickest(), Some(Duration::from_secs(5)));
    }
}
