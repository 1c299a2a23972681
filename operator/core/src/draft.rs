//! The number on its way to a decision, with each limit that changed it. Who limits it, and why, is not decided here.

use poolwright_api::Reason;

use crate::decision::Limit;

/// The number on its way to a decision: each limit that changes it is written down.
pub(crate) struct Draft {
    pub(crate) to: u32,
    /// Of these, pods that are kept because that is cheaper than to start them again, as long as nobody else needs their
    /// slots.
    pub(crate) spare: u32,
    pub(crate) reason: Reason,
    pub(crate) limits: Vec<Limit>,
    pub(crate) clauses: Vec<String>,
}

impl Draft {
    /// Changes the number to `to` and writes down what did; nothing where it is that already.
    pub(crate) fn limit(&mut self, name: &'static str, to: u32, clause: String) {
        if to != self.to {
            self.limits.push(Limit {
                name,
                from: self.to,
                to,
            });
            self.clauses.push(clause);
            // What somebody asks for is not spare, and what is cut off was spare first.
            self.spare = if to > self.to {
                0
            } else {
                to.saturating_sub(self.to - self.spare)
            };
            self.to = to;
        }
    }
}
