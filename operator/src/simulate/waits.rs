//! How long tasks waited, those included that never began.

use std::fmt;

use poolwright_sim::outcome::{Outcome, rank};
use poolwright_sim::scenario::{Millis, Scenario};

/// One wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wait {
    millis: Millis,
    /// It was longer than that: the run was over before.
    more: bool,
}

impl Wait {
    /// In seconds.
    #[allow(clippy::cast_precision_loss)] // at most months
    pub(super) fn seconds(self) -> f64 {
        self.millis as f64 / 1000.0
    }
}

/// Seconds, `>` before them where it was longer.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.more { ">" } else { "" };
        f.pad(&format!("{more}{:.1}", self.seconds()))
    }
}

/// The waits of these tasks, shortest first. One that never began has waited until the end.
pub(super) fn sorted(
    scenario: &Scenario,
    outcome: &Outcome,
    tasks: impl Iterator<Item = usize>,
) -> Vec<Wait> {
    let wait = |task: usize| {
        let wait = outcome.waits[task];
        let until_end = || outcome.ended.saturating_sub(scenario.tasks[task].arrives);
        Wait {
            millis: wait.unwrap_or_else(until_end),
            more: wait.is_none(),
        }
    };
    let mut waits: Vec<Wait> = tasks.map(wait).collect();
    waits.sort_unstable();
    waits
}

/// The wait that this part (0 to 1) of `sorted` does not exceed, by nearest rank. A longer wait of a task before it
/// would push it up, so it is open as soon as one of them is.
pub(super) fn quantile(sorted: &[Wait], part: f64) -> Wait {
    let rank = rank(sorted.len(), part);
    let millis = sorted.get(rank - 1).map_or(0, |wait| wait.millis);
    Wait {
        millis,
        more: sorted.iter().take(rank).any(|wait| wait.more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_among_tasks_that_never_began_is_open() {
        let wait = |millis, more| Wait { millis, more };
        let sorted = [
            wait(0, false),
            wait(1500, false),
            wait(9000, true),
            wait(9500, false),
        ];
        let told = |part: f64| quantile(&sorted, part).to_string();
        assert_eq!(
            (told(0.25), told(0.5), told(0.75), told(1.0)),
            (
                "0.0".to_owned(),
                "1.5".to_owned(),
                ">9.0".to_owned(),
                ">9.5".to_owned()
            )
        );
        assert_eq!(quantile(&[], 0.5).to_string(), "0.0");
        assert_eq!(format!("{:>7}", wait(9000, true)), "   >9.0");
    }
}
