//! What the API server refuses, and what is left out of a plan for that.
//!
//! A new revision that an admission policy refuses must not keep the proven one from following its demand: what is refused
//! is tried again after a while, and everything else goes on meanwhile. Why it was refused is told until it is wanted no
//! more, or done.

use std::time::Duration;

use poolwright_core::plan::Step;
use poolwright_core::snapshot::Trouble;
use poolwright_core::time::Moment;

/// A step that was refused, why, and until when it is not tried again.
struct Refusal {
    step: Step,
    why: Trouble,
    until: Moment,
}

/// Steps that were refused, the latest last.
#[derive(Default)]
pub(super) struct Refusals(Vec<Refusal>);

impl Refusals {
    /// Leaves out of a whole plan what was refused a moment ago, and forgets what is wanted no more. Returns how long until
    /// the first of the rest may be tried again.
    pub(super) fn leave_out(&mut self, steps: &mut Vec<Step>, now: Moment) -> Option<Duration> {
        self.0
            .retain(|refusal| steps.iter().any(|step| refusal.step.repeats(step)));
        self.without(steps, now);
        let held = self.0.iter().filter(|refusal| now < refusal.until);
        held.map(|refusal| refusal.until.since(now)).min()
    }

    /// Leaves it out of a part of a plan, and forgets nothing.
    pub(super) fn without(&self, steps: &mut Vec<Step>, now: Moment) {
        let held = |step: &Step| {
            let mut all = self.0.iter();
            all.any(|refusal| now < refusal.until && refusal.step.repeats(step))
        };
        steps.retain(|step| !held(step));
    }

    /// A step was refused, and is to be left alone until then.
    pub(super) fn note(&mut self, step: &Step, why: &Trouble, until: Moment) {
        self.over(step);
        self.0.push(Refusal {
            step: step.clone(),
            why: why.clone(),
            until,
        });
    }

    /// A step was carried out.
    pub(super) fn over(&mut self, step: &Step) {
        self.0.retain(|refusal| !refusal.step.repeats(step));
    }

    /// Why the last one of those that are still wanted was refused.
    pub(super) fn last(&self) -> Option<&Trouble> {
        self.0.last().map(|refusal| &refusal.why)
    }
}

#[cfg(test)]
mod tests {
    use poolwright_api::Reason;

    use super::*;

    const WAIT: Duration = Duration::from_secs(15);

    fn delete(name: &str) -> Step {
        Step::Delete {
            deployment: name.to_owned(),
            uid: name.to_owned(),
            resource_version: String::new(),
        }
    }

    fn plan() -> Vec<Step> {
        vec![delete("a"), delete("b")]
    }

    fn trouble(words: &str) -> Trouble {
        Trouble {
            reason: Reason::AdmissionDenied,
            message: words.to_owned(),
        }
    }

    fn told(refusals: &Refusals) -> Option<&str> {
        refusals.last().map(|trouble| trouble.message.as_str())
    }

    #[test]
    fn what_is_refused_is_left_out_for_a_while_and_nothing_else() {
        let (mut refusals, start) = (Refusals::default(), Moment(1000));
        refusals.note(&delete("a"), &trouble("no"), start.after(WAIT));
        let mut steps = plan();
        let later = start.after(Duration::from_secs(10));
        assert_eq!(
            refusals.leave_out(&mut steps, later),
            Some(Duration::from_secs(5))
        );
        assert_eq!(steps, [delete("b")]);
        // The other one is done, and is looked for in what is left of the plan.
        refusals.over(&delete("b"));
        refusals.without(&mut steps, later);
        let mut steps = plan();
        assert!(
            refusals.leave_out(&mut steps, later).is_some(),
            "it is not forgotten"
        );
        let mut steps = plan();
        assert_eq!(refusals.leave_out(&mut steps, start.after(WAIT)), None);
        assert_eq!(steps, plan());
        assert_eq!(told(&refusals), Some("no"), "until it was tried again");
        refusals.note(&delete("a"), &trouble("no"), start.after(WAIT * 2));
        assert_eq!(refusals.0.len(), 1, "it is refused once");
        refusals.over(&delete("a"));
        assert_eq!(told(&refusals), None);
    }

    #[test]
    fn what_is_not_wanted_any_more_was_not_refused() {
        let (mut refusals, now) = (Refusals::default(), Moment(1000));
        refusals.note(&delete("b"), &trouble("the other"), now.after(WAIT));
        refusals.note(&delete("a"), &trouble("no"), now.after(WAIT));
        assert_eq!(told(&refusals), Some("no"));
        let mut steps = vec![delete("b")];
        assert!(refusals.leave_out(&mut steps, now).is_some() && steps.is_empty());
        assert_eq!(told(&refusals), Some("the other"));
        assert_eq!(refusals.leave_out(&mut Vec::new(), now), None);
        assert_eq!(told(&refusals), None);
    }
}
