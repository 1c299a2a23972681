//! What a WorkerPool's past says of its load: how fast tasks come, how long they take, how old the oldest is.
//!
//! Everything follows from four sums that only rise: tasks that came, that began and that ended, and slot-time that was
//! worked. They are kept as points whose distance grows with their age, so that memory is bounded whatever the time, and any
//! window of the last hour can be read with a tenth of its length as the error. A gap in the data is a longer step
//! between two points, no jump in a rate. What such windows say of lengths is decided in `service`. This module knows no
//! policy.

use std::collections::VecDeque;
use std::time::Duration;

use crate::service::{Seen, Service};
use crate::time::Moment;

/// Points are no closer than this.
const FINEST: Duration = Duration::from_secs(1);
/// Points of an age are as far apart as a part of it.
const PART: u32 = 10;
/// The past beyond this is forgotten.
pub const PAST: Duration = Duration::from_secs(3600);
/// While none ends, tasks are taken to last at most so many times as long as none has.
const UNENDED_TIMES: f64 = 2.0;
/// So soon after the first look all workers have been heard.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// What is missing for so long is gone, and not on its way through heartbeats.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// The occupancy is looked at once in so long, for the past hour.
pub const OCCUPANCY_EVERY: Duration = Duration::from_secs(30);
const OCCUPANCIES: usize = 120;

/// The sums at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at: Moment,
    arrived: u64,
    begun: u64,
    ended: u64,
    /// Slot-milliseconds.
    worked: u64,
}

impl Point {
    fn values(&self) -> [f64; 4] {
        [self.arrived, self.begun, self.ended, self.worked].map(float)
    }
}

/// What is counted of a WorkerPool at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait, in the queue or fetched and not started.
    pub waiting: u64,
    /// Tasks that run.
    pub busy: u64,
    /// Tasks that were started since the process began.
    pub started: u64,
}

/// The past of one WorkerPool's load.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    points: VecDeque<Point>,
    thinned: Moment,
    busy: u64,
    /// Mean service times, as last estimated.
    service: Service,
    /// That of running tasks when one ended last, or when the first began, and when that was.
    ended: (Moment, f64),
    /// The same when slots were idle last: nothing that runs is older.
    rested: (Moment, f64),
    /// Tasks in service if none had to wait, in each half minute, oldest first.
    occupancy: VecDeque<u32>,
    sampled: Option<Moment>,
    /// When the last task was seen to have come, or the first look.
    came: Moment,
    /// The first look, and tasks that ran then: they end, too, and nobody saw them start.
    first: (Moment, u64),
    /// Tasks that waited and left without being started: somebody purged the queue, or took them.
    gone: u64,
    /// Since when more are missing than workers can hold, and the fewest that were.
    missing: Option<(Moment, u64)>,
}

impl Estimates {
    /// Takes in what is counted now; true if there is one number more of [`Estimates::occupancy`]. Workers may hold `held`
    /// tasks that are in no count; `None` while a fall is not believed.
    pub fn observe(&mut self, counts: Counts, held: Option<u64>, now: Moment) -> bool {
        let arrived = self.arrivals(counts, held, now);
        let Some(last) = self.points.back().copied() else {
            (self.busy, self.came) = (counts.busy, now);
            self.first = (now, counts.busy.saturating_sub(counts.started));
            self.ended = (now, self.service.running);
            self.rested = self.ended;
            self.points.push_back(Point {
                at: now,
                arrived,
                begun: counts.busy,
                ended: 0,
                worked: 0,
            });
            return false;
        };
        let ended = self.endings(counts, last.ended, now);
        let past = u64::try_from(now.since(last.at).as_millis()).unwrap_or(u64::MAX);
        let point = Point {
            at: now,
            // Heartbeats are younger or older than counts: what has come does not un-come.
            arrived: arrived.max(last.arrived),
            begun: ended.saturating_add(counts.busy).max(last.begun),
            ended: ended.max(last.ended),
            worked: last.worked.saturating_add(self.busy.saturating_mul(past)),
        };
        let (worked, none_ended) = (self.busy > 0, point.ended == last.ended);
        self.busy = counts.busy;
        if point.arrived > last.arrived {
            self.came = now;
        }
        let near = self.points.len() > 1 && {
            let before = self.points[self.points.len() - 2];
            now.since(before.at) < FINEST
        };
        if near {
            self.points.pop_back();
        }
        self.points.push_back(point);
        if now.since(self.thinned) >= FINEST * PART {
            self.thin(now);
            self.thinned = now;
        }
        self.service = if worked || !none_ended {
            let found = self
                .service
                .after(float(counts.busy), |seconds| self.seen(seconds, now));
            self.credible(found, worked && none_ended, now)
        } else {
            self.ended = (now, self.service.running);
            self.service.idle(now.since(last.at).as_secs_f64())
        };
        if counts.busy == 0 {
            self.rested = (now, self.service.running);
        }
        self.sample(now)
    }

    /// What has ended meanwhile is not known: nothing that runs is taken to run for longer than since now.
    pub(crate) const fn gap(&mut self, now: Moment) {
        self.ended = (now, self.service.running);
    }

    /// Many that began together and all still run say, to who takes lengths for exponential, that they last very long; they
    /// may as well all last a little longer than they have. So while none ends, an estimate does not run ahead of time, and
    /// neither while but the first of those have ended that work since all slots were idle. It does not lag behind time either:
    /// what runs lasts for as long as none has ended. While none ends nothing is learnt.
    fn credible(&mut self, found: Service, none_ended: bool, now: Moment) -> Service {
        let most =
            |(since, before): (Moment, f64)| before.max(UNENDED_TIMES * now.since(since).as_secs_f64());
        let found = found.at_most(most(self.rested));
        if none_ended {
            let found = found.at_most(most(self.ended)).learnt_by(self.service);
            return found.runs_for(now.since(self.ended.0).as_secs_f64());
        }
        self.ended = (now, found.running);
        found
    }

    /// Tasks that have come: those that were started, that wait, and that left in another way. The last are found by what
    /// is missing: without them, nothing would seem to come until as many have come again.
    fn arrivals(&mut self, counts: Counts, held: Option<u64>, now: Moment) -> u64 {
        let seen = counts.started.saturating_add(counts.waiting);
        let before = self.points.back().map_or(0, |last| last.arrived);
        let missing = before.saturating_sub(seen.saturating_add(self.gone));
        let missing = held.map_or(0, |held| missing.saturating_sub(held));
        self.missing = (missing > 0).then(|| {
            let (since, least) = self.missing.unwrap_or((now, missing));
            (since, least.min(missing))
        });
        if let Some((since, least)) = self.missing
            && now.since(since) >= GONE_AFTER
        {
            self.gone = self.gone.saturating_add(least);
            self.missing = None;
        }
        seen.saturating_add(self.gone)
    }

    /// Tasks that have ended: those that were started, and those that ran at the first look, without those that run.
    fn endings(&mut self, counts: Counts, before: u64, now: Moment) -> u64 {
        let (looked, ran) = &mut self.first;
        if now.since(*looked) < HEARD_WITHIN {
            let unseen = counts.busy.saturating_add(before).saturating_sub(counts.started);
            *ran = unseen.max(*ran);
        }
        counts.started.saturating_add(*ran).saturating_sub(counts.busy)
    }

    /// Drops points that are closer to each other than their age asks for.
    fn thin(&mut self, now: Moment) {
        while self.points.len() > 1 && now.since(self.points[1].at) > PAST {
            self.points.pop_front();
        }
        let mut kept: VecDeque<Point> = VecDeque::with_capacity(self.points.len());
        for (at, point) in self.points.iter().enumerate() {
            let next = self.points.get(at + 1);
            let apart = kept.back().zip(next).is_none_or(|(before, next)| {
                next.at.since(before.at) > FINEST.max(now.since(next.at) / PART)
            });
            if apart {
                kept.push_back(*point);
            }
        }
        self.points = kept;
    }

    /// The sums so long ago, between the two points around that moment; the oldest known where that is later. With
    /// the time that really passed since.
    fn then(&self, ago: f64, now: Moment) -> Option<(f64, [f64; 4])> {
        let wanted = now.before(Duration::from_secs_f64(ago));
        let after = self.points.partition_point(|point| point.at <= wanted);
        let values = Point::values;
        let Some(before) = after.checked_sub(1).map(|at| self.points[at]) else {
            let oldest = self.points.front()?;
            return Some((now.since(oldest.at).as_secs_f64(), values(oldest)));
        };
        let Some(next) = self.points.get(after) else {
            return Some((ago, values(&before)));
        };
        let part = wanted.since(before.at).as_secs_f64() / next.at.since(before.at).as_secs_f64().max(1e-3);
        let (low, high) = (values(&before), values(next));
        let between = std::array::from_fn(|at| low[at] + (high[at] - low[at]) * part);
        Some((ago, between))
    }

    fn since(&self, ago: f64, now: Moment) -> Option<(f64, [f64; 4])> {
        let last = self.points.back()?;
        let (long, then) = self.then(ago, now)?;
        let lasts = last.values();
        Some((long, std::array::from_fn(|at| lasts[at] - then[at])))
    }

    fn seen(&self, seconds: f64, now: Moment) -> Option<Seen> {
        let (_, [_, begun, ended, worked]) = self.since(seconds, now)?;
        Some(Seen {
            begun,
            ended,
            worked: worked / 1000.0,
        })
    }

    /// Tasks that ended within so many seconds, and the slot-seconds that were worked.
    pub(crate) fn served(&self, seconds: f64, now: Moment) -> Option<(f64, f64)> {
        let seen = self.seen(seconds, now)?;
        Some((seen.ended, seen.worked))
    }

    /// Mean service time of tasks that come, in seconds.
    #[must_use]
    pub const fn service(&self) -> f64 {
        self.service.coming
    }

    /// The same of those that run: longer where a few long ones hold the slots.
    #[must_use]
    pub const fn running_service(&self) -> f64 {
        self.service.running
    }

    /// Tasks that came within the last so many seconds, and the seconds that are known of these.
    #[must_use]
    pub fn arrived(&self, seconds: f64, now: Moment) -> (f64, f64) {
        self.since(seconds, now)
            .map_or((0.0, 0.0), |(long, [arrived, ..])| (arrived, long))
    }

    /// For how long no task has come.
    #[must_use]
    pub fn quiet(&self, now: Moment) -> Duration {
        now.since(self.came)
    }

    /// For how long the oldest waiting task has waited, if tasks start in the order in which they come; at most the time
    /// that is known. `started` is counted at the same time as what waits, which the last look may be older than: what came
    /// since then is no older than that.
    #[must_use]
    pub fn age(&self, waiting: u64, started: u64, now: Moment) -> Duration {
        let Some(last) = self.points.back().filter(|_| waiting > 0) else {
            return Duration::ZERO;
        };
        let seen = started.saturating_add(waiting).saturating_add(self.gone);
        let begun = last.arrived.max(seen).saturating_sub(waiting);
        let at = self.points.partition_point(|point| point.arrived <= begun);
        // It came after the last point at which no more had come than have begun by now.
        let came = at.checked_sub(1).or(Some(0)).and_then(|at| self.points.get(at));
        came.map_or(Duration::ZERO, |point| now.since(point.at))
    }

    fn sample(&mut self, now: Moment) -> bool {
        let due = self.sampled.is_none_or(|last| now.since(last) >= OCCUPANCY_EVERY);
        if !due {
            return false;
        }
        // Over the whole half minute, or one service time where that is longer: what chance does within it, a queue evens
        // out.
        let window = self.service().max(OCCUPANCY_EVERY.as_secs_f64());
        let (arrived, _) = self.arrived(window, now);
        self.sampled = Some(now);
        self.occupancy.push_back(whole(arrived * self.service() / window));
        if self.occupancy.len() > OCCUPANCIES {
            self.occupancy.pop_front();
        }
        true
    }

    /// Tasks that were in service in each half minute of the last hour, oldest first, if none had had to wait.
    #[must_use]
    pub fn occupancy(&self) -> impl ExactSizeIterator<Item = u32> {
        self.occupancy.iter().copied()
    }
}

/// Rounded up; 0 for what is no number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates"
)]
pub(crate) fn whole(value: f64) -> u32 {
    // An error of the last digits is no further slot.
    (value - 1e-9).ceil() as u32
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts far below 2^52; larger ones are only large"
)]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
