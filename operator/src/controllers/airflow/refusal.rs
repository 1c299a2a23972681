//! How soon credentials are tried again that Airflow has refused: those alone, and less and less often.

use std::time::Duration;

use poolwright_core::constants::AIRFLOW_INTERVAL;
use poolwright_core::time::Moment;

use crate::signals::SignalError;
use crate::signals::airflow::Access;

/// They are tried again after so long at the latest: they may be right by now.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Credentials that Airflow refuses: it, or what stands behind it, may shut out whoever tries them again and again.
pub(super) struct Refusal {
    access: Access,
    error: SignalError,
    /// When they were last tried.
    at: Moment,
    /// So long they are not tried again.
    pause: Duration,
}

impl Refusal {
    /// After a refusal and the one before it, if that was of the same credentials.
    pub(super) fn after(before: Option<Self>, access: Access, error: &SignalError, at: Moment) -> Self {
        let before = before.filter(|before| before.access == access);
        Self {
            access,
            error: error.clone(),
            at,
            pause: before.map_or(AIRFLOW_INTERVAL, |before| (2 * before.pause).min(PAUSE_MAX)),
        }
    }

    /// What is said instead of trying these again.
    pub(super) fn of(&self, access: &Access, now: Moment) -> Option<&SignalError> {
        (self.access == *access && now.since(self.at) < self.pause).then_some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use poolwright_core::broker::{Secret, Tls};
    use poolwright_core::sample::FaultKind;

    use super::*;
    use crate::signals::airflow::Credentials;

    #[test]
    fn refused_credentials_are_tried_less_and_less_and_others_at_once() {
        let access = |url: &str| Access {
            url: url.to_owned(),
            credentials: Credentials::Token(Secret::new("t")),
            tls: Tls::default(),
            database: None,
            executor: String::new(),
        };
        let error = SignalError::new(FaultKind::Refused, "no");
        let at = |seconds: u64| Moment(seconds * 1000);
        let (mut refusal, mut now) = (None, 100);
        for pause in [5, 10, 20, 40, 60, 60] {
            let after = Refusal::after(refusal.take(), access("a"), &error, at(now));
            assert!(after.of(&access("a"), at(now + pause - 1)).is_some(), "{pause}");
            now += pause;
            assert!(after.of(&access("a"), at(now)).is_none(), "{pause}");
            assert!(
                after.of(&access("b"), at(now - pause)).is_none(),
                "others at once"
            );
            refusal = Some(after);
        }
        let other = Refusal::after(refusal, access("b"), &error, at(now));
        assert_eq!(other.pause, AIRFLOW_INTERVAL);
    }
}
