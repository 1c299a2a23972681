//! How long tasks take a slot, from what was counted of them in windows of the past.
//!
//! Heartbeats count and name no task, so a window says what was worked and how many ended, and not which task worked how
//! long. Two mistakes follow from that, and this module decides what is believed in their stead. Few long tasks that hold
//! all slots look like a new length of all: they free no slot, but what comes is taken to be like them only when more than
//! a few are. And what ends within a window has mostly worked before it: what is cut away does not make tasks short.

/// A task is taken to last so long until something else is seen (seconds).
const PRIOR: f64 = 5.0;
/// So many tasks of what was learnt are taken to have been seen.
const PRIOR_TASKS: f64 = 2.0;
/// Bounds of the window in which the service time is looked for (seconds), and how many service times it is long.
const WINDOW: (f64, f64, f64) = (120.0, 3600.0, 10.0);
/// Shorter windows in which a sudden change is looked for (seconds).
const SUDDEN_WINDOWS: [f64; 4] = [30.0, 60.0, 120.0, 300.0];
/// With fewer endings in its window, a longer one is looked at; and fewer show no new length.
const FEW: f64 = 5.0;
/// Those longer ones (seconds).
const WIDER: [f64; 4] = [300.0, 600.0, 1200.0, 3600.0];
/// So many tasks may be of another length than the rest without being the new length of all.
const ODD: f64 = 3.0;
/// Tasks have become shorter at once only if so many fit into the window: else it has cut away what was worked before.
const FIT: f64 = 3.0;
/// Half of what was learnt is forgotten in so many seconds without a task: a nightly job is still known.
const HALF: f64 = 12.0 * 3600.0;

/// What was counted within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Tasks that began in it.
    pub(crate) begun: f64,
    /// Tasks that ended in it.
    pub(crate) ended: f64,
    /// Slot-seconds that were worked in it.
    pub(crate) worked: f64,
}

/// Mean service times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Service {
    /// Of those that run: after this time their slots are free.
    pub(crate) running: f64,
    /// Of those that come.
    pub(crate) coming: f64,
    /// What tasks are taken to last while none is seen.
    learnt: f64,
    /// Enough have ended once to have learnt that.
    knows: bool,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            running: PRIOR,
            coming: PRIOR,
            learnt: PRIOR,
            knows: false,
        }
    }
}

impl Service {
    /// The estimate after a look at the past, of which `window` tells the last so many seconds, while `busy` tasks run.
    pub(crate) fn after(self, busy: f64, window: impl Fn(f64) -> Option<Seen>) -> Self {
        let (least, most, times) = WINDOW;
        let length = (self.coming * times).clamp(least, most);
        let Some(near) = window(length) else {
            return self;
        };
        // A few endings are chance; a longer past may know better.
        let wider = WIDER.into_iter().filter(|wider| *wider > length);
        let mut wider = wider.filter_map(|wider| Some((window(wider)?, wider)));
        let (seen, long) = if near.ended < FEW {
            let longest = window(most).unwrap_or(near);
            wider
                .find(|(seen, _)| seen.ended >= FEW)
                .unwrap_or((longest, most))
        } else {
            (near, length)
        };
        let usual = seen.mean(self.learnt);
        let few = seen.ended < FEW;
        // Of others that come, a few that are not done yet say nothing.
        let others = if few && busy <= ODD && self.knows {
            usual.min(self.learnt)
        } else {
            usual
        };
        // So few are too few to be sudden in any part of the time.
        if seen.ended <= 1.0 {
            return Self {
                running: usual,
                coming: others,
                ..self
            };
        }
        let sudden = SUDDEN_WINDOWS.map(|recent| {
            let seen = window(recent).filter(|_| recent < long)?;
            seen.is_sudden(usual).then_some((recent, seen))
        });
        let is_shorter = |(long, seen): &&(f64, Seen)| seen.is_shorter(usual, *long, self.learnt);
        let is_longer = |(_, seen): &&(f64, Seen)| seen.is_longer(usual);
        // What has begun lately and runs still is no few among others if it is most of what has begun.
        let begun = window(least).map_or(0.0, |seen| seen.begun);
        let most_are = busy > ODD && 2.0 * busy > begun;
        // Where ends have stopped, tasks have not become longer: a few hold all slots.
        let goes_on = |(long, seen): &(f64, Seen)| {
            window(long / 2.0).is_some_and(|half| half.is_like(seen.mean(self.learnt)))
        };
        let is_many = |one: &(f64, Seen)| one.1.is_many(usual, one.0) && goes_on(one);
        let is_new = |one: &&(f64, Seen)| is_longer(one) && (most_are || is_many(one));
        let mean = |(_, seen): &(f64, Seen)| seen.mean(self.learnt);
        let running = sudden
            .iter()
            .flatten()
            .find(|one| is_longer(one) || is_shorter(one));
        let coming = sudden.iter().flatten().find(|one| is_new(one) || is_shorter(one));
        Self {
            running: running.map_or(usual, mean),
            coming: coming.map_or(others, mean),
            learnt: if coming.is_some() || few || seen.is_cut() {
                self.learnt
            } else {
                // Not with what was learnt: that would confirm itself.
                seen.mean(PRIOR)
            },
            knows: self.knows || !few,
        }
    }

    /// No longer than this.
    pub(crate) const fn at_most(self, most: f64) -> Self {
        Self {
            running: self.running.min(most),
            coming: self.coming.min(most),
            learnt: self.learnt.min(most),
            ..self
        }
    }

    /// The same, where what runs has run for so long at least.
    pub(crate) const fn runs_for(self, least: f64) -> Self {
        Self {
            running: self.running.max(least),
            ..self
        }
    }

    /// The same, with what was learnt before.
    pub(crate) const fn learnt_by(self, before: Self) -> Self {
        Self {
            learnt: before.learnt,
            knows: before.knows,
            ..self
        }
    }

    /// The same after so many seconds in which no task was seen: what it was, and after many hours what nobody knows.
    pub(crate) fn idle(self, seconds: f64) -> Self {
        // What was believed at the end is all that is known of tasks too long for any window, or too few for it.
        let faded = PRIOR + (self.coming - PRIOR) * 0.5f64.powf(seconds / HALF);
        Self {
            running: faded,
            coming: faded,
            learnt: faded,
            ..self
        }
    }
}

impl Seen {
    /// Slot-time worked by tasks ended, with a few tasks of the length that was learnt for a start: the maximum-likelihood
    /// estimate of an exponential law from tasks of which some still run (censored). It is too short where most of what ended
    /// has begun before.
    fn mean(&self, learnt: f64) -> f64 {
        let found = (self.worked + PRIOR_TASKS * learnt) / (self.ended + PRIOR_TASKS);
        if self.is_cut() { found.max(learnt) } else { found }
    }

    /// True if most of what ended has begun before, so that what it worked is not all in the window.
    fn is_cut(&self) -> bool {
        self.ended > PRIOR_TASKS && self.begun < self.ended / 2.0
    }

    /// True if tasks of the usual length would not have ended so seldom or so often: by more than three standard deviations
    /// of a Poisson count and two tasks, and by half or twice.
    fn is_sudden(&self, usual: f64) -> bool {
        let expected = self.worked / usual.max(1e-3);
        let off = (self.ended - expected).abs();
        off > 3.0 * expected.sqrt() + 2.0 && (self.is_longer(usual) || self.ended > expected * 2.0)
    }

    fn is_longer(&self, usual: f64) -> bool {
        self.ended < self.worked / usual.max(1e-3) / 2.0
    }

    /// True if tasks are shorter in it, and not only because it has cut away what they had worked before.
    fn is_shorter(&self, usual: f64, long: f64, learnt: f64) -> bool {
        !self.is_longer(usual) && !self.is_cut() && self.mean(learnt) <= long / FIT
    }

    /// True if about as many ended as would of this length.
    fn is_like(&self, service: f64) -> bool {
        let expected = self.worked / service.max(1e-3);
        self.ended >= expected / 2.0 && self.ended <= expected * 2.0 + 2.0
    }

    /// True if some have ended, and a few that held their slots all the time do not explain it; a longer window shows also on
    /// few slots what is no such chance.
    fn is_many(&self, usual: f64, long: f64) -> bool {
        let (least, ..) = WINDOW;
        let without = Self {
            worked: (self.worked - ODD * long).max(0.0),
            ..*self
        };
        let stays = without.is_sudden(usual) && without.is_longer(usual);
        self.ended >= FEW && (long >= least || stays)
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
