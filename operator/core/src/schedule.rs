//! Times in which more pods are kept than `minReplicas` says.
//!
//! Reads `spec.scaling.schedules` once into [`Schedule`]s, and says which of them is on at a time of day, what the least
//! number of pods is then, and until when. It knows no demand and no bound: what the number comes to is decided in
//! `scaling`, where a hold, a pause, `maxReplicas` and Pools go before it as they go before any minimum.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use poolwright_api::v1alpha1::{Scaling, Schedule as Spec};

use crate::starts::{Flaw, Starts};
use crate::validate::Invalid;

/// As in the CRD.
const SCHEDULES_MAX: usize = 16;
const PODS: std::ops::RangeInclusive<i32> = 1..=10_000;
const SECONDS: std::ops::RangeInclusive<i32> = 60..=604_800;
/// So often one that begins again before it ends is followed; then it is said to be on, and not until when.
const RENEWALS_MAX: usize = 32;

/// One of `spec.scaling.schedules`, read.
#[derive(Clone, Debug)]
pub struct Schedule {
    spec: Spec,
    starts: Starts,
    /// Least pods while it is on.
    pods: u32,
    /// How long it is on.
    seconds: i64,
}

/// The same text is the same schedule.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for Schedule {}

/// Whether a schedule is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until then at least (in seconds since 1970), and `true` if no longer.
    On(i64, bool),
    /// It begins then, if ever.
    Off(Option<i64>),
}

/// The schedule that counts at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raise {
    /// Least pods, by it.
    pub pods: u32,
    /// Its name, its cron expression and its zone.
    pub schedule: String,
    /// Until when, in its zone; empty where it has no end in sight.
    pub until: String,
}

impl Raise {
    /// What it does to a minimum of so many pods, in words.
    #[must_use]
    pub fn words(&self, min: u32) -> String {
        let Self {
            pods,
            schedule,
            until,
        } = self;
        format!("schedule {schedule} raises the minimum from {min} to {pods}{until}")
    }
}

/// What was last found out, for as long as it holds: a cycle comes several times a second, and a schedule changes a few
/// times a day.
#[derive(Clone, Debug, Default)]
pub struct Agenda {
    schedules: Arc<[Schedule]>,
    /// From when until before when it holds, in seconds since 1970.
    holds: (i64, i64),
    raise: Option<Raise>,
}

impl Agenda {
    /// The schedule that counts at this time: of those that are on, the one of the most pods, and of several such the one
    /// that lasts longest.
    pub fn at(&mut self, schedules: &Arc<[Schedule]>, wall: Timestamp) -> Option<&Raise> {
        let now = wall.as_second();
        let (since, until) = self.holds;
        // A wall clock may be set back.
        if !Arc::ptr_eq(&self.schedules, schedules) || now < since || now >= until {
            self.look(schedules, now);
        }
        self.raise.as_ref()
    }

    fn look(&mut self, schedules: &Arc<[Schedule]>, now: i64) {
        let phases: Vec<_> = schedules.iter().map(|one| (one, one.phase(now))).collect();
        let changes = phases.iter().filter_map(|(_, phase)| match phase {
            Phase::On(until, _) => Some(*until),
            Phase::Off(next) => *next,
        });
        let on = phases.iter().filter_map(|(one, phase)| match phase {
            Phase::On(until, ends) => Some((one, *until, *ends)),
            Phase::Off(_) => None,
        });
        let first =
            on.min_by_key(|(one, until, ends)| (Reverse(one.pods), *ends, Reverse(*until), &one.spec.name));
        *self = Self {
            schedules: Arc::clone(schedules),
            holds: (now, changes.min().unwrap_or(i64::MAX)),
            raise: first.map(|(one, until, ends)| one.raise(ends.then_some(until))),
        };
    }
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    ///
    /// What is wrong with its `cron` or its `timeZone`.
    pub fn new(spec: &Spec) -> Result<Self, Flaw> {
        Ok(Self {
            starts: Starts::new(&spec.cron, &spec.time_zone)?,
            pods: spec.min_replicas.unsigned_abs(),
            seconds: i64::from(spec.duration_seconds),
            spec: spec.clone(),
        })
    }

    /// Whether it is on, in seconds since 1970. One that begins again before it ends is on without a break.
    #[must_use]
    pub fn phase(&self, now: i64) -> Phase {
        let Some(start) = self.starts.last(now - self.seconds + 1, now) else {
            return Phase::Off(self.starts.from(now + 1));
        };
        let mut start = start;
        for _ in 0..RENEWALS_MAX {
            let until = start + self.seconds;
            match self.starts.last(start + 1, until) {
                Some(next) => start = next,
                None => return Phase::On(until, true),
            }
        }
        Phase::On(start + self.seconds, false)
    }

    fn raise(&self, until: Option<i64>) -> Raise {
        let until = until.and_then(|until| Timestamp::from_second(until).ok());
        let until = until.map(|until| until.to_zoned(self.starts.zone().clone()));
        let Spec {
            name,
            cron,
            time_zone,
            ..
        } = &self.spec;
        Raise {
            pods: self.pods,
            schedule: format!("{name} ({cron}, {time_zone})"),
            until: until.map_or_else(String::new, |until| {
                format!(" until {}", until.strftime("%Y-%m-%d %H:%M"))
            }),
        }
    }
}

/// The schedules of a WorkerPool, each read once.
///
/// # Errors
///
/// The first field that cannot be used.
pub(crate) fn read(scaling: &Scaling) -> Result<Arc<[Schedule]>, Invalid> {
    let all = &scaling.schedules;
    if all.len() > SCHEDULES_MAX {
        let message = format!("has {} entries; allowed are {SCHEDULES_MAX}", all.len());
        return Err(Invalid::spec("spec.scaling.schedules", message));
    }
    let mut names = BTreeSet::new();
    all.iter()
        .enumerate()
        .map(|(at, spec)| {
            let invalid = |field: &str, message: String| {
                Invalid::spec(format!("spec.scaling.schedules[{at}].{field}"), message)
            };
            if !names.insert(&spec.name) {
                return Err(invalid("name", format!("is {:?} like another one's", spec.name)));
            }
            check(spec, scaling.max_replicas).map_err(|(field, words)| invalid(field, words))?;
            Schedule::new(spec).map_err(|flaw| {
                let (field, words) = match flaw {
                    Flaw::Cron(words) => ("cron", words),
                    Flaw::Zone(words) => ("timeZone", words),
                };
                invalid(field, format!("of schedule {:?}: {words}", spec.name))
            })
        })
        .collect()
}

/// What admission checks is checked again: stored objects can be older than a rule.
fn check(spec: &Spec, max: i32) -> Result<(), (&'static str, String)> {
    let (name, pods, seconds) = (&spec.name, spec.min_replicas, spec.duration_seconds);
    let bounds = |range: std::ops::RangeInclusive<i32>| format!("{} to {}", range.start(), range.end());
    if !SECONDS.contains(&seconds) {
        let words = format!(
            "of schedule {name:?} is {seconds}; allowed are {}",
            bounds(SECONDS)
        );
        return Err(("durationSeconds", words));
    }
    if !PODS.contains(&pods) {
        let words = format!("of schedule {name:?} is {pods}; allowed are {}", bounds(PODS));
        return Err(("minReplicas", words));
    }
    if pods > max {
        let words = format!("of schedule {name:?} is {pods}; it must be at most scaling.maxReplicas ({max})");
        return Err(("minReplicas", words));
    }
    Ok(())
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
