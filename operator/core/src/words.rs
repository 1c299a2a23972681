//! A decision in words.

use std::fmt::Write as _;

use crate::decision::TEXT_MAX;
use crate::demand::Demand;
use crate::scaling::Draft;
use crate::snapshot::PoolInput;
use crate::text::bounded;

/// The formula filled in, then each limit; at most 512 bytes.
pub(crate) fn words(draft: &Draft, wanted: u32, pool: &PoolInput, demand: &Demand) -> String {
    let tasks = demand.counted;
    // Of the busy slots only those count whose task is certain to run still.
    let of = |part: u64, all: u64| {
        if part < all {
            format!("{part} of {all}")
        } else {
            part.to_string()
        }
    };
    let ready = if demand.ready < demand.ready_of_all {
        of(tasks.ready, demand.ready_of_all)
    } else {
        tasks.ready.to_string()
    };
    let mut formula = format!(
        "ceil(({ready} ready + {} reserved + {} busy) / {} slots)",
        tasks.reserved,
        of(tasks.busy, demand.busy),
        pool.slots
    );
    if demand.orphaned > 0 {
        let _ = write!(formula, ", at least 1 for {} orphaned", demand.orphaned);
    }
    if demand.doubtful > 0 {
        let _ = write!(
            formula,
            ", without {} that were given back and are not due",
            demand.doubtful
        );
    }
    let mut text = if !demand.any {
        // A formula over nothing would look like a demand of nothing.
        format!("{}; demand unknown", draft.to)
    } else if draft.limits.is_empty() {
        format!("{} = {formula}", draft.to)
    } else {
        format!("{}; wanted {wanted} = {formula}", draft.to)
    };
    for clause in &draft.clauses {
        text.push_str("; ");
        text.push_str(clause);
    }
    bounded(&text, TEXT_MAX)
}
