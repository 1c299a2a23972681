//! What a Pool refuses although the cycle gave it.
//!
//! Both look at one cluster at two moments, so that a refusal is soon over as a rule, and is no news. One that lasts is:
//! somebody has to be told why pods that were decided on are not there.

use std::time::Duration;

use poolwright_core::snapshot::Trouble;
use poolwright_core::time::Moment;

/// What is refused for so long is told.
const LASTING: Duration = Duration::from_secs(5);

/// The refusals of one WorkerPool's raises, one after the other without a grant between.
#[derive(Default)]
pub(super) struct Waits(Option<(Moment, Trouble)>);

impl Waits {
    /// Takes in one more.
    pub(super) fn note(&mut self, trouble: &Trouble, now: Moment) {
        let since = self.0.as_ref().map_or(now, |(since, _)| *since);
        self.0 = Some((since, trouble.clone()));
    }

    /// The latest of those that have lasted.
    pub(super) fn lasting(&self, now: Moment) -> Option<&Trouble> {
        let (since, trouble) = self.0.as_ref()?;
        (now.since(*since) >= LASTING).then_some(trouble)
    }
}

#[cfg(test)]
mod tests {
    use poolwright_api::Reason;

    use super::*;
    use crate::controllers::granter::Refused;
    use crate::kube::execute::Failure;

    fn refused(why: Refused) -> Trouble {
        match Failure::from(why) {
            Failure::NoRoom(trouble) => trouble,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_refusal_is_told_when_it_lasts_and_in_its_latest_words() {
        let (full, gone) = (
            refused(Refused::Full("p".to_owned())),
            refused(Refused::Missing("p".to_owned())),
        );
        assert_eq!(
            (full.reason, gone.reason),
            (Reason::WaitingForSlots, Reason::PoolMissing)
        );
        let mut waits = Waits::default();
        assert_eq!(waits.lasting(Moment(60_000)), None);
        waits.note(&full, Moment(60_000));
        waits.note(&gone, Moment(64_999));
        assert_eq!(waits.lasting(Moment(64_999)), None);
        assert_eq!(waits.lasting(Moment(65_000)), Some(&gone));
    }
}
