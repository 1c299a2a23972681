//! When a WorkerPool has its next turn, after what came of the last one.
//!
//! What fails is tried again, ever later, and no sooner because it is woken: a busy WorkerPool is woken with every poll. A
//! report that fails waits for itself alone, and nothing that scales waits for it. Knows no cluster; the controller runs
//! what this hands out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{BACK_OFF, FLOOR, LOST_RACE, REFUSED_AGAIN};
use crate::controllers::turns::{Half, Turns};
use crate::kube::execute::Failure;
use crate::kube::index::Group;

/// What came of half a round: when to look again, if nothing wakes it.
pub(super) type Outcome = Result<Option<Duration>, Failure>;

/// Who has a turn, and who waits for when.
#[derive(Debug, Default)]
pub(super) struct Queue {
    turns: Turns,
    later: BTreeSet<(Instant, Group)>,
    failures: BTreeMap<(Half, Group), u32>,
    /// Not before these moments they have another turn.
    floors: BTreeMap<Group, Instant>,
    /// Not before these moments they report again.
    unreported: BTreeMap<Group, Instant>,
}

impl Queue {
    /// What to run next, if there is room for it.
    pub(super) fn take(&mut self) -> Option<(Half, Group)> {
        self.turns.take()
    }

    /// When to call [`Queue::pass`] next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The moment of whoever waits for the next one has come.
    pub(super) fn pass(&mut self) {
        if let Some((_, group)) = self.later.pop_first() {
            self.turns.wake(group);
        }
    }

    /// Gives a WorkerPool a turn, at once unless it has failed just now.
    pub(super) fn wake(&mut self, group: Group) {
        match self.floors.get(&group) {
            Some(floor) if Instant::now() < *floor && !self.turns.runs(&group) => {
                self.later.insert((*floor, group));
            }
            _ => self.turns.wake(group),
        }
    }

    /// Takes in what came of a half.
    pub(super) fn finish(&mut self, half: Half, group: Group, outcome: Outcome) {
        let now = Instant::now();
        let wait = match outcome {
            Ok(wait) => {
                self.failures.remove(&(half, group.clone()));
                self.floors_of(half).remove(&group);
                wait
            }
            Err(Failure::Refused(_)) => Some(REFUSED_AGAIN),
            Err(failure) => Some(self.failed(half, &group, &failure)),
        };
        let until = self.unreported.get(&group).filter(|until| now < **until).copied();
        if half == Half::Act {
            self.later.retain(|(_, waiting)| *waiting != group);
            self.later.extend(until.map(|until| (until, group.clone())));
        }
        let again = self.turns.done(half, &group, until.is_none());
        if let Some(wait) = wait {
            self.later.insert((now + wait, group.clone()));
        }
        if again {
            self.wake(group);
        }
    }

    fn floors_of(&mut self, half: Half) -> &mut BTreeMap<Group, Instant> {
        match half {
            Half::Act => &mut self.floors,
            Half::Report => &mut self.unreported,
        }
    }

    /// How long to wait after one more failure.
    fn failed(&mut self, half: Half, group: &Group, failure: &Failure) -> Duration {
        let count = self.failures.entry((half, group.clone())).or_default();
        *count = (*count + 1).min(16);
        // Others move on as fast as we do: no reason to stay away for long.
        let is_race = matches!(failure, Failure::Moved | Failure::NoRoom(_));
        let most = if is_race { LOST_RACE } else { BACK_OFF.1 };
        let wait = (BACK_OFF.0 * 2u32.pow(*count - 1)).min(most);
        let wait = wait.mul_f64(0.75 + 0.5 * fastrand::f64());
        if !is_race {
            tracing::warn!(namespace = group.0, worker_pool = group.1, "{failure}");
            let floor = Instant::now() + wait.min(FLOOR);
            self.floors_of(half).insert(group.clone(), floor);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn group() -> Group {
        ("shop".to_owned(), "w".to_owned())
    }

    fn failure() -> Outcome {
        let status = kube::core::Status::failure("no", "Invalid").boxed();
        Err(Failure::Kube(kube::Error::Api(status)))
    }

    /// A turn of this half that ends so.
    fn turn(queue: &mut Queue, half: Half, outcome: Outcome) {
        assert_eq!(queue.take(), Some((half, group())));
        queue.finish(half, group(), outcome);
    }

    /// Lets everything pass whose moment comes within so long.
    async fn wait(queue: &mut Queue, time: Duration) {
        let end = Instant::now() + time;
        while let Some(at) = queue.next().filter(|at| *at <= end) {
            advance(at.saturating_duration_since(Instant::now())).await;
            queue.pass();
        }
        advance(end.saturating_duration_since(Instant::now())).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_has_no_turn_sooner_because_it_is_woken() {
        let mut queue = Queue::default();
        queue.wake(group());
        for _ in 0..10 {
            assert_eq!(queue.take(), Some((Half::Act, group())));
            // As with each poll, while it is at work as well.
            queue.wake(group());
            queue.finish(Half::Act, group(), failure());
            turn(&mut queue, Half::Report, Ok(None));
            queue.wake(group());
            assert_eq!(queue.take(), None, "it has failed just now");
            wait(&mut queue, FLOOR).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_wake_is_lost_in_a_turn_that_ends_well() {
        let mut queue = Queue::default();
        queue.wake(group());
        turn(&mut queue, Half::Act, failure());
        turn(&mut queue, Half::Report, Ok(None));
        // By its own retry, before its floor would let a wake through.
        queue.pass();
        assert_eq!(queue.take(), Some((Half::Act, group())));
        queue.wake(group());
        queue.finish(Half::Act, group(), Ok(None));
        assert_eq!(queue.take(), Some((Half::Act, group())), "it was woken meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_fails_keeps_nothing_from_being_scaled_and_is_tried_again() {
        let mut queue = Queue::default();
        queue.wake(group());
        turn(&mut queue, Half::Act, Ok(None));
        for _ in 0..10 {
            turn(&mut queue, Half::Report, failure());
            for _ in 0..3 {
                queue.wake(group());
                turn(&mut queue, Half::Act, Ok(None));
                assert_eq!(queue.take(), None, "its report waits");
            }
            wait(&mut queue, FLOOR).await;
            turn(&mut queue, Half::Act, Ok(None));
        }
        turn(&mut queue, Half::Report, Ok(None));
        queue.wake(group());
        turn(&mut queue, Half::Act, Ok(None));
        turn(&mut queue, Half::Report, Ok(None));
        assert_eq!((queue.take(), queue.next()), (None, None));
    }
}
