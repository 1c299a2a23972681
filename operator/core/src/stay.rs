//! For how long pods stay that are not needed at this moment.
//!
//! Without a past: for one start-up time, which costs at most twice of what knowing the next task would (the
//! deterministic ski rental). With one: for whichever of three times would have cost least lately. All three are followed
//! side by side on what was needed: whoever lets pods go pays for the start of others, whoever keeps them pays for them
//! (experts, of whom the best so far leads). None is longer than the first: to stay longer costs more than to start.
//! It is told only how many pods were needed within a time, and knows no policy.

use std::time::Duration;

use crate::time::Moment;

/// No shorter: it may be a task that is between a queue and a heartbeat.
const LEAST: Duration = Duration::from_secs(5);
/// The times that are followed, in start-up times; the last is the one without a past.
const TIMES: [f64; 3] = [0.0, 0.5, 1.0];
/// What another time than the last must have saved, in starts of one pod.
const CLEARLY: f64 = 1.0;
/// So many seconds in which pods were needed let two thirds of the past be forgotten.
const FORGOTTEN: f64 = 5000.0;

/// What the times would have come to, for one WorkerPool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stay {
    followed: [Followed; TIMES.len()],
    /// The last look, unless what was needed since is not known.
    last: Option<Moment>,
}

/// What one of them would have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Followed {
    /// Pods that would be there.
    pods: u32,
    /// Pod-seconds.
    cost: f64,
}

/// One of them, for pods that take so long to start.
fn time(times: f64, start_up: Duration) -> Duration {
    start_up.mul_f64(times).max(LEAST.min(start_up))
}

impl Stay {
    /// Takes in the most pods that were needed within the last so much time, which `most` says; `None` where not all of that
    /// time is known, of which nothing is learnt.
    pub fn observe(
        &mut self,
        mut most: impl FnMut(Duration) -> Option<u32>,
        start_up: Duration,
        now: Moment,
    ) {
        // The longest first: what a window is asked for, it keeps.
        let mut needed = [0; TIMES.len()];
        for (needed, times) in needed.iter_mut().zip(TIMES).rev() {
            let Some(pods) = most(time(times, start_up)) else {
                return self.gap();
            };
            *needed = pods;
        }
        let past = self.last.replace(now).map(|last| now.since(last).as_secs_f64());
        let is_idle = needed.iter().all(|pods| *pods == 0);
        for (one, needed) in self.followed.iter_mut().zip(needed) {
            let before = std::mem::replace(&mut one.pods, needed);
            let Some(past) = past else { continue };
            // Half of a start when pods go, half when they are needed again: whether they are, nobody knows in between.
            let starts = f64::from(needed.abs_diff(before)) / 2.0;
            // A nightly job is known the next night.
            let kept = if is_idle {
                1.0
            } else {
                (1.0 - past / FORGOTTEN).max(0.0)
            };
            one.cost = kept * one.cost + f64::from(before) * past + starts * start_up.as_secs_f64();
        }
    }

    /// What was needed meanwhile is not known.
    pub const fn gap(&mut self) {
        self.last = None;
    }

    /// For how long pods stay that take so long to start.
    #[must_use]
    pub fn time(&self, start_up: Duration) -> Duration {
        let [others @ .., last] = &self.followed;
        let clearly = last.cost - CLEARLY * start_up.as_secs_f64();
        let better = others.iter().zip(TIMES).filter(|(one, _)| one.cost < clearly);
        let best = better.min_by(|(one, _), (other, _)| one.cost.total_cmp(&other.cost));
        time(best.map_or(1.0, |(_, times)| times), start_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Window;

    const START_UP: Duration = Duration::from_secs(30);

    /// What so many pods that are needed for so many seconds, one after the other, come to.
    fn after(needs: impl IntoIterator<Item = (u32, u64)>) -> Stay {
        let (mut stay, mut window, mut now) = (Stay::default(), Window::default(), Moment(0));
        for (pods, seconds) in needs {
            for _ in 0..seconds {
                now = now.after(Duration::from_secs(1));
                window.push(now, now, pods);
                stay.observe(|long| window.settled(now, long), START_UP, now);
            }
        }
        stay
    }

    fn seconds(needs: impl IntoIterator<Item = (u32, u64)>) -> u64 {
        after(needs).time(START_UP).as_secs()
    }

    /// Pods are needed for a minute, and then fewer for so many seconds, time and again.
    fn gaps(most: u32, least: u32, gap: u64, times: usize) -> impl Iterator<Item = (u32, u64)> {
        [(most, 60), (least, gap)].into_iter().cycle().take(2 * times)
    }

    #[test]
    fn without_a_past_they_stay_for_a_start_up_time() {
        assert_eq!(seconds([]), 30);
        assert_eq!(
            seconds(gaps(1, 0, 840, 1)),
            30,
            "one idle time saves 25 s, less than a start"
        );
    }

    #[test]
    fn they_do_not_stay_where_nothing_came_in_time() {
        assert_eq!(seconds(gaps(1, 0, 840, 2)), 5);
        assert_eq!(seconds(gaps(20, 10, 300, 1)), 5, "ten pods are no chance");
        assert_eq!(
            seconds([(20, 60), (10, 15)]),
            30,
            "whether they are needed again, nobody knows"
        );
    }

    /// Whoever lets pods go for 20 s pays 5 to 15 s and a start, and whoever keeps them 20.
    #[test]
    fn they_stay_where_something_came_in_time() {
        assert_eq!(seconds(gaps(10, 5, 20, 20)), 30);
        // Within half of a start-up time.
        let mixed = gaps(10, 5, 12, 3).chain([(10, 60), (5, 600)]);
        assert_eq!(seconds(mixed.collect::<Vec<_>>().repeat(5)), 15);
        assert_eq!(seconds(gaps(10, 10, 20, 20)), 30, "nothing to learn");
    }

    #[test]
    fn it_changes_its_mind() {
        let day = || gaps(10, 0, 600, 20);
        assert_eq!(seconds(day()), 5);
        assert_eq!(seconds(day().chain(gaps(10, 0, 20, 200))), 30);
        // Idle hours let nothing be forgotten, hours of work do.
        assert_eq!(seconds(day().chain([(0, 200_000)])), 5);
        assert_eq!(seconds(day().chain([(1, 100_000)])), 30);
    }

    /// What was needed while nobody knew is not taken for what was needed before.
    #[test]
    fn a_gap_costs_nobody() {
        let mut stay = after(gaps(5, 0, 100, 2));
        let before = stay.followed;
        stay.observe(|_| None, START_UP, Moment(1_000_000));
        stay.observe(|_| Some(50), START_UP, Moment(2_000_000));
        let costs_more = |(one, before): (&Followed, &Followed)| one.cost > before.cost;
        assert!(!stay.followed.iter().zip(&before).any(costs_more));
        assert!(stay.followed.iter().all(|one| one.pods == 50));
    }

    /// No time is shorter than the least, unless a start is, and none is longer than a start.
    #[test]
    fn times_are_bounded() {
        for start_up in [0, 1, 5, 8, 10, 600].map(Duration::from_secs) {
            for times in TIMES {
                let time = time(times, start_up);
                assert!(time <= start_up && time >= LEAST.min(start_up));
            }
        }
    }
}
