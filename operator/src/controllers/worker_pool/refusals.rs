//! What the API server refuses, and what is left out of a plan for that.
//!
//! A new revision that an admission policy refuses must not keep the proven one from following its demand: what is refused
//! is tried again after a while, and everything else goes on meanwhile.

use std::time::Duration;

use poolwright_core::plan::Step;
use poolwright_core::time::Moment;

/// Steps that were refused, and until when none is tried again.
#[derive(Default)]
pub(super) struct Refusals(Vec<(Step, Moment)>);

impl Refusals {
    /// Leaves out of a plan what was refused a moment ago. Returns how long until the first of that may be tried again.
    pub(super) fn leave_out(&mut self, steps: &mut Vec<Step>, now: Moment) -> Option<Duration> {
        self.0
            .retain(|(step, until)| now < *until && steps.iter().any(|one| step.repeats(one)));
        steps.retain(|one| !self.0.iter().any(|(step, _)| step.repeats(one)));
        self.0.iter().map(|(_, until)| until.since(now)).min()
    }

    /// A step was refused, and is to be left alone for so long.
    pub(super) fn note(&mut self, step: &Step, now: Moment, wait: Duration) {
        self.0.push((step.clone(), now.after(wait)));
    }

    /// True if nothing is refused.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(name: &str) -> Step {
        Step::Delete {
            deployment: name.to_owned(),
            uid: name.to_owned(),
            resource_version: String::new(),
        }
    }

    #[test]
    fn what_is_refused_is_left_out_for_a_while_and_nothing_else() {
        let mut refusals = Refusals::default();
        let (start, wait) = (Moment(1000), Duration::from_secs(15));
        refusals.note(&delete("a"), start, wait);
        let plan = || vec![delete("a"), delete("b")];
        let mut steps = plan();
        let later = start.after(Duration::from_secs(10));
        assert_eq!(
            refusals.leave_out(&mut steps, later),
            Some(Duration::from_secs(5))
        );
        assert_eq!(steps, [delete("b")]);
        let mut steps = plan();
        assert_eq!(refusals.leave_out(&mut steps, start.after(wait)), None);
        assert_eq!(steps, plan());
    }

    #[test]
    fn what_is_not_wanted_any_more_was_not_refused() {
        let mut refusals = Refusals::default();
        let now = Moment(1000);
        refusals.note(&delete("a"), now, Duration::from_secs(15));
        let mut steps = vec![delete("b")];
        assert_eq!(refusals.leave_out(&mut steps, now), None);
        assert!(refusals.is_empty() && steps.len() == 1);
    }
}
