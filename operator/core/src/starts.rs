//! When a schedule begins: a cron expression in a time zone.
//!
//! Decides which moments a cron expression means, above all where clocks are changed. It knows no duration and no number
//! of pods. The database of time zones is built in: neither a machine's own nor its environment is looked at, so that the
//! same schedule means the same to `lint` on a laptop and to the operator in an image without one.
//!
//! All times are whole seconds since 1970-01-01 00:00 UTC.

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions, parse_crontab_with};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Fields of a cron expression.
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
/// Changes of a zone's clocks that are looked across: more than there are in the four years in which the next start must
/// lie.
const CHANGES_MAX: usize = 64;

/// The moments at which a schedule begins.
#[derive(Clone, Debug)]
pub struct Starts {
    cron: Crontab,
    zone: TimeZone,
}

/// What is wrong with a schedule's time, in words that go behind the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The cron expression.
    Cron(String),
    /// The time zone.
    Zone(String),
}

impl Starts {
    /// Reads a cron expression of five fields, and the name of a time zone.
    ///
    /// # Errors
    ///
    /// The expression cannot be read or never comes, or the database has no such zone.
    pub fn new(cron: &str, zone: &str) -> Result<Self, Flaw> {
        let zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| {
            Flaw::Zone(format!(
                "{zone:?} is no time zone of the IANA database: write a name such as Europe/Berlin, or UTC"
            ))
        })?;
        let starts = Self {
            cron: read(cron).map_err(|words| Flaw::Cron(format!("{cron:?}: {words}")))?,
            zone,
        };
        // Any year will do: whether a day of a month exists is not a matter of now.
        match starts.from(0) {
            Some(_) => Ok(starts),
            None => Err(Flaw::Cron(format!(
                "{cron:?} never comes: no such day is in any month that it names"
            ))),
        }
    }

    /// The time zone.
    #[must_use]
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first start at or after `from`; `None` if there is none in four years.
    ///
    /// What would begin in an hour that clocks leave out begins as much later, as if they had not been changed; what begins
    /// in an hour that comes twice begins both times. So no change of clocks takes a start away.
    #[must_use]
    pub fn from(&self, mut from: i64) -> Option<i64> {
        for _ in 0..CHANGES_MAX {
            let here = Timestamp::from_second(from).ok()?;
            let offset = i64::from(self.zone.to_offset(here).seconds());
            let plain = self.first_local(from + offset)? - offset;
            let first = self.moved(here).map_or(plain, |moved| moved.min(plain));
            let change = self.zone.following(here).next();
            match change.map(|change| change.timestamp().as_second()) {
                Some(change) if change <= first => from = change,
                _ => return Some(first),
            }
        }
        None
    }

    /// The last start at or after `from` and at or before `to`.
    #[must_use]
    pub fn last(&self, from: i64, to: i64) -> Option<i64> {
        let mut known = self.from(from).filter(|start| *start <= to)?;
        let mut beyond = to + 1;
        // None is at or after `beyond`.
        while beyond - known > 1 {
            let middle = known + (beyond - known) / 2;
            match self.from(middle).filter(|start| *start <= to) {
                Some(start) => known = start,
                None => beyond = middle,
            }
        }
        Some(known)
    }

    /// The first match at or after a local time, both told as if they were UTC.
    fn first_local(&self, local: i64) -> Option<i64> {
        let before = Timestamp::from_second(local - 1).ok()?;
        let next = self.cron.find_next(before).ok()?;
        Some(next.timestamp().as_second())
    }

    /// The first start at or after `here` that was to be in the time which the last change left out.
    fn moved(&self, here: Timestamp) -> Option<i64> {
        let from = here.as_second();
        let change = self
            .zone
            .preceding(Timestamp::from_second(from + 1).ok()?)
            .next()?;
        let at = change.timestamp().as_second();
        let before = self.zone.to_offset(Timestamp::from_second(at - 1).ok()?);
        let before = i64::from(before.seconds());
        let left_out = i64::from(change.offset().seconds()) - before;
        if from >= at + left_out {
            return None;
        }
        let start = self.first_local(from + before)? - before;
        Some(start).filter(|start| *start < at + left_out)
    }
}

fn read(cron: &str) -> Result<Crontab, String> {
    let fields: Vec<&str> = cron.split_ascii_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "has {} fields; it must have five: {}",
            fields.len(),
            FIELDS.join(", ")
        ));
    }
    let cron = fields.join(" ");
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    parse_crontab_with(&cron, options).map_err(|error| in_its_field(&cron, &error.to_string()))
}

/// The crate shows the whole expression and a mark below it, with its words behind the mark.
fn in_its_field(cron: &str, said: &str) -> String {
    let last = said.lines().last().unwrap_or_default();
    let Some((before, words)) = last.split_once("^ ") else {
        return last.to_owned();
    };
    let before = cron.get(..before.len()).unwrap_or_default();
    let field = FIELDS.get(before.matches(' ').count()).unwrap_or(&"");
    format!("{field}: {words}")
}

#[cfg(test)]
#[path = "starts_tests.rs"]
mod tests;
