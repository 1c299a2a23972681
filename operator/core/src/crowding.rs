//! Whether more workers do more work.
//!
//! Behind the tasks there may be something that bears only so many at a time, for example a database: beyond that, each
//! task takes longer by as much as there are more of them, and a policy that staffs for the time that tasks take would ask
//! for ever more. This module compares how long tasks take with how long they took in a stretch before, if possible one in
//! which nothing had to wait. Where on at least twice the slots they take much longer while tasks wait, it tries the number
//! of slots that would do as much if they took as long as before; if nearly as many tasks end with it, that is the
//! most that is asked for, until a later trial with a few more does better, fewer end with as many, too little ends, or
//! nothing waits any more. It is told only sums, and knows no WorkerPool.
//!
//! That tasks have become longer for another reason looks the same once more slots have made up for it, until fewer are tried:
//! then fewer end. The trial costs some minutes. What was crowded from the first look on, after a cold start with a backlog
//! or a restart, has no stretch before, and may not be found.

use std::time::Duration;

use crate::estimate::Estimates;
use crate::time::Moment;

/// So many times the usual slots are suspicious.
const TWICE: f64 = 2.0;
/// Bounds within which two paces are the same.
const SAME: (f64, f64) = (0.7, 1.2);
/// For so many stretches on end something must have waited: new workers have had their time to come up and to help.
const PRESSED: u32 = 3;
/// With the lower number at least this part of the pace must remain.
const REMAINS: f64 = 0.8;
/// And but for chance this one: what is left if the pace were as much less as may count for the same.
const KEEPS: f64 = MARGIN / SAME.1;
/// A trial of fewer begins when no more than so many times as many are busy still.
const REACHED: f64 = 1.2;
/// A number is tried where so many times as many were busy: with a number nearer to that, chance would pass for help.
const CLEARLY: f64 = 1.5;
/// So many stretches more are looked at where the first says neither.
const LOOKS: u32 = 2;
/// The part that a stretch has in the usual pace.
const LATEST: f64 = 0.2;
/// So much is left above the slots that would suffice.
const MARGIN: f64 = 1.1;
/// A later trial takes so many times the slots, and must end more by at least half of that part.
const TRIAL: f64 = 1.25;
/// Less has ended in a stretch: it says nothing.
const ENOUGH: f64 = 30.0;
/// A stretch lasts for so many service times, within these bounds (seconds).
const STRETCH: (f64, f64, f64) = (3.0, 60.0, 600.0);
/// After a change so many service times are waited for, within the same bounds: what runs has begun before it.
const SETTLING: f64 = 2.0;
/// A reference is of use for so long, and for so long where something waits all the time: what is crowded is no reference, and
/// with long tasks a few stretches take an hour.
const FRESH: Duration = Duration::from_secs(1800);
const PRESSED_FRESH: Duration = Duration::from_secs(7200);
/// So long after a trial that did not help the next is made, and so long nothing is suspected after a wrong suspicion.
const AGAIN: (Duration, Duration) = (Duration::from_secs(900), Duration::from_secs(1800));

/// What was done in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    /// Busy slots in the mean.
    slots: f64,
    /// Tasks that ended a second.
    ended: f64,
    /// Tasks that ended.
    tasks: f64,
    at: Moment,
}

impl Pace {
    /// So many tasks ended, and so many slot-seconds were worked, in so many seconds.
    const fn of((ended, worked): (f64, f64), seconds: f64, at: Moment) -> Self {
        Self {
            slots: worked / seconds,
            ended: ended / seconds,
            tasks: ended,
            at,
        }
    }

    /// Seconds that a task took a slot.
    const fn service(&self) -> f64 {
        self.slots / self.ended
    }

    /// With the part that the latest one has.
    fn and(&self, latest: &Self) -> Self {
        let with = |usual: f64, latest: f64| usual + LATEST * (latest - usual);
        Self {
            slots: with(self.slots, latest.slots),
            ended: with(self.ended, latest.ended),
            ..*latest
        }
    }
}

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Nothing is limited. The usual pace, while tasks do not take longer than they usually do.
    Free(Option<Pace>),
    /// The most slots that are asked for on trial, the pace at the number before, and the stretches that were looked at.
    Lower { most: f64, before: Pace, looks: u32 },
    /// The most slots that are asked for, the usual pace with them and since when it is that many, and whether in the last
    /// stretch there was a moment when nothing waited.
    Limited {
        most: f64,
        usual: f64,
        since: Moment,
        calm: bool,
    },
    /// More of them, on trial, instead of so many with that pace.
    Higher { most: f64, before: f64, usual: f64 },
}

impl Default for Stage {
    fn default() -> Self {
        Self::Free(None)
    }
}

/// Where more slots do not help.
#[derive(Clone, Debug, Default)]
pub struct Crowding {
    stage: Stage,
    /// When the stretch began that is being looked at, and whether something has waited all the time since.
    since: Option<(Moment, bool)>,
    /// The stretch is the first one after a change: what runs has begun before it.
    settling: bool,
    /// For so many stretches something has waited all the time.
    pressed: u32,
    /// Nothing is suspected until then.
    free_until: Moment,
}

/// The most slots that are of use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Useful {
    /// Busy slots, of whole pods.
    pub slots: f64,
    /// Tasks that end a minute.
    pub each_minute: f64,
    /// What is known by now.
    pub known: Known,
}

/// How sure it is that more slots are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// With at least twice as many, each took much longer; so many are tried.
    Lower,
    /// As many end with them.
    Suffices,
    /// A few more than suffice are tried.
    Higher,
}

impl Crowding {
    /// Takes in that so many tasks wait now for pods of `slots` slots.
    pub fn observe(&mut self, waiting: u64, slots: u32, estimates: &Estimates, now: Moment) {
        let (since, waited) = self.since.unwrap_or((now, true));
        let waited = waited && waiting > 0;
        self.since = Some((since, waited));
        let (times, least, most) = STRETCH;
        let times = if self.settling { SETTLING } else { times };
        let long = (estimates.running_service() * times).clamp(least, most);
        let passed = now.since(since).as_secs_f64();
        let on_trial = matches!(self.stage, Stage::Lower { .. }) && !self.settling;
        if passed < long && !on_trial {
            return;
        }
        let (ended, worked) = estimates.served(passed, now).unwrap_or_default();
        if !self.settling && waited && self.is_refuted(ended, worked, passed) {
            self.stage = self.acquit(now);
            self.since = None;
            return;
        }
        let short = passed < long || !self.settling && ended < ENOUGH && passed < most;
        if short {
            return;
        }
        self.since = None;
        self.pressed = if waited { self.pressed.saturating_add(1) } else { 0 };
        if std::mem::take(&mut self.settling) {
            return;
        }
        let pace = Pace::of((ended, worked), passed, now);
        // One stretch is chance: all of those that make it suspicious are looked at together.
        let pace = match self.stage {
            Stage::Free(Some(usual)) if self.pressed >= PRESSED => {
                let since = now.since(usual.at).as_secs_f64().max(passed);
                let long = since.min(passed * f64::from(PRESSED));
                Pace::of(estimates.served(long, now).unwrap_or_default(), long, now)
            }
            _ => pace,
        };
        let next = if ended < ENOUGH || pace.slots < 1.0 {
            self.unknown(&pace, waited)
        } else {
            self.next(pace, waited, f64::from(slots.max(1)))
        };
        self.settling |= most_of(&next) != most_of(&self.stage);
        self.stage = next;
    }

    /// What was there for a while is not known.
    pub fn gap(&mut self) {
        self.since = None;
        self.pressed = 0;
        // The past second of the first stretch after it would be the whole gap.
        self.settling = true;
    }

    /// Too little ends to conclude anything from it: nothing is tried, and nothing is limited that does not wait. Nor for
    /// longer than until a few more would be tried: no trial could tell any more that they help.
    fn unknown(&mut self, pace: &Pace, waited: bool) -> Stage {
        match self.stage {
            Stage::Lower { .. } => self.acquit(pace.at),
            // Where nobody works it is no wonder.
            Stage::Limited { .. } | Stage::Higher { .. } if waited && pace.slots < 1.0 => self.stage,
            Stage::Limited {
                most, usual, since, ..
            } if waited && !has_slowed(pace, most, usual) && pace.at.since(since) < AGAIN.0 => self.stage,
            Stage::Free(usual) => Stage::Free(usual),
            _ => Stage::Free(None),
        }
    }

    /// The most slots that are of use; `None` while all may be.
    #[must_use]
    pub fn useful(&self) -> Option<Useful> {
        let (ended, known) = match self.stage {
            Stage::Free(_) => return None,
            Stage::Lower { before, .. } => (before.ended, Known::Lower),
            Stage::Limited { usual, .. } => (usual, Known::Suffices),
            Stage::Higher { usual, .. } => (usual, Known::Higher),
        };
        Some(Useful {
            slots: most_of(&self.stage)?,
            each_minute: ended * 60.0,
            known,
        })
    }

    fn next(&mut self, pace: Pace, waited: bool, pod: f64) -> Stage {
        let limited = |most, usual| Stage::Limited {
            most,
            usual,
            since: pace.at,
            calm: false,
        };
        let higher = |before: f64, usual| Stage::Higher {
            most: wider(before, pod),
            before,
            usual,
        };
        match self.stage {
            Stage::Free(usual) => self.suspect(usual, pace, pod),
            Stage::Lower { most, .. } if pace.slots > REACHED * most => self.wait(pace),
            // There is too little to do to tell, or to limit anything.
            Stage::Lower { .. } | Stage::Limited { calm: true, .. } if !waited => Stage::Free(None),
            Stage::Lower { most, before, .. } if remains(&pace, &before) => limited(most, pace.ended),
            Stage::Lower { most, before, looks } if looks < LOOKS => Stage::Lower {
                most,
                before,
                looks: looks + 1,
            },
            // Not so few, then, but perhaps a few more.
            Stage::Lower { most, before, .. } if before.slots >= CLEARLY * wider(most, pod) => Stage::Lower {
                most: wider(most, pod),
                before,
                looks: 0,
            },
            Stage::Lower { .. } => self.acquit(pace.at),
            // With as many slots as ever it is something else now, or what they share bears less.
            Stage::Limited { most, usual, .. } if waited && has_slowed(&pace, most, usual) => {
                Stage::Free(Some(pace))
            }
            // Slots that are lost say nothing of the others.
            Stage::Limited { most, .. } if waited && pace.slots * REACHED < most => self.stage,
            Stage::Limited {
                most, usual, since, ..
            } if waited && pace.at.since(since) >= AGAIN.0 => higher(most, usual),
            Stage::Limited {
                most, usual, since, ..
            } => Stage::Limited {
                most,
                usual: usual + LATEST * (pace.ended - usual),
                since,
                calm: !waited,
            },
            Stage::Higher { most, before, usual }
                if pace.slots > before && gains(&pace, most / before, usual) =>
            {
                higher(most, pace.ended)
            }
            Stage::Higher { before, usual, .. } => limited(before, usual),
        }
    }

    /// True as soon as chance does not explain any more why with the lower number so few end.
    fn is_refuted(&self, ended: f64, worked: f64, passed: f64) -> bool {
        let Stage::Lower { most, before, .. } = self.stage else {
            return false;
        };
        // While what was begun before takes slots still, a few fewer end anyway.
        let reached = worked <= REACHED * most * passed;
        // Slots that are lost end nothing either.
        let there = (worked / (most * passed).max(1e-9)).min(1.0);
        let expected = if reached { REMAINS } else { SAME.0 } * before.ended * passed * there;
        ended + 3.0 * expected.sqrt() + 2.0 < expected
    }

    /// Compares how long tasks take with how long they took when there were fewer slots for them.
    fn suspect(&self, usual: Option<Pace>, pace: Pace, pod: f64) -> Stage {
        let fresh = if self.pressed > 0 { PRESSED_FRESH } else { FRESH };
        let Some(usual) = usual.filter(|usual| pace.at.since(usual.at) < fresh) else {
            return Stage::Free(Some(pace));
        };
        // Tasks that have become longer end less often, until more slots make up for it.
        if pace.ended < SAME.0 * usual.ended {
            return Stage::Free(Some(pace));
        }
        let longer = pace.service() / usual.service();
        if longer < SAME.1 && self.pressed == 0 {
            return Stage::Free(Some(usual.and(&pace)));
        }
        // So many would do as much if tasks took as long as then.
        let most = whole_pods(pace.ended * usual.service() * MARGIN, pod);
        // And they were as short by chance, where few had ended.
        let clearly = CLEARLY * (1.0 + chance(&usual));
        let much = pace.slots >= TWICE * usual.slots && pace.slots >= clearly * most;
        if self.pressed >= PRESSED && much && pace.at >= self.free_until {
            return Stage::Lower {
                most,
                before: pace,
                looks: 0,
            };
        }
        Stage::Free(Some(usual))
    }

    /// What was begun before takes slots still. Not for ever: some of it may never end, or somebody keeps more pods.
    fn wait(&mut self, pace: Pace) -> Stage {
        if let Stage::Lower { before, .. } = self.stage
            && pace.at.since(before.at) < FRESH
        {
            self.settling = true;
            return self.stage;
        }
        self.acquit(pace.at)
    }

    fn acquit(&mut self, now: Moment) -> Stage {
        self.free_until = now.after(AGAIN.1);
        Stage::Free(None)
    }
}

/// The slots of so many pods that there are at least that many.
fn whole_pods(slots: f64, pod: f64) -> f64 {
    (slots / pod).ceil().max(1.0) * pod
}

/// A few pods more.
fn wider(slots: f64, pod: f64) -> f64 {
    whole_pods((slots * TRIAL).max(slots + pod), pod)
}

/// The part that one standard deviation is of the count of a pace.
fn chance(pace: &Pace) -> f64 {
    pace.tasks.max(1.0).sqrt().recip()
}

/// True if with fewer slots, but for chance, as many end as did with more, and more than so few alone would have ended.
fn remains(pace: &Pace, before: &Pace) -> bool {
    let as_many = pace.ended * (1.0 + chance(pace)) >= KEEPS * before.ended;
    let alone = pace.slots / before.service() * pace.tasks / pace.ended;
    pace.ended >= REMAINS * before.ended && as_many && pace.tasks >= alone + 2.0 * alone.sqrt()
}

/// True if with as many slots as ever fewer end.
fn has_slowed(pace: &Pace, most: f64, usual: f64) -> bool {
    pace.slots * REACHED >= most && pace.ended < SAME.0 * usual
}

/// True if so many times the slots have ended more tasks by at least half of that part, and by more than chance does.
fn gains(pace: &Pace, more: f64, usual: f64) -> bool {
    let expected = usual * pace.tasks / pace.ended.max(1e-9);
    pace.ended >= usual * f64::midpoint(1.0, more) && pace.tasks >= expected + 2.0 * expected.sqrt()
}

const fn most_of(stage: &Stage) -> Option<f64> {
    match stage {
        Stage::Free(_) => None,
        Stage::Lower { most, .. } | Stage::Limited { most, .. } | Stage::Higher { most, .. } => Some(*most),
    }
}

#[cfg(test)]
#[path = "crowding_tests.rs"]
mod tests;
