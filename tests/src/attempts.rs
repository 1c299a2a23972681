//! Attempts to get more through the operator than one may: how many a whole run has made, and how many of them worked.
//!
//! Each is noted when it begins and when it has failed, so that one that works, which ends its test, is one that was tried
//! and not blocked. What is noted twice, in a test that runs once more, counts once.

use crate::Result;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Names a file to which attempts are added.
pub const VARIABLE: &str = "POOLWRIGHT_ATTEMPTS";

/// An attempt begins. Its name is no other's.
pub fn tried(what: &str) {
    note("tried", what);
}

/// It has failed, as it should.
pub fn blocked(what: &str) {
    note("blocked", what);
}

fn note(how: &str, what: &str) {
    let Some(file) = std::env::var_os(VARIABLE) else {
        return;
    };
    let noted = OpenOptions::new().create(true).append(true).open(file);
    // In one write: tests run side by side.
    let line = format!("{how}\t{what}\n");
    if let Err(error) = noted.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("an attempt was not noted: {error}");
    }
}

/// What a run has tried.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// By name.
    pub tried: BTreeSet<String>,
    /// Those that were not blocked.
    pub worked: BTreeSet<String>,
}

/// Counts what a run has noted; nothing where it has no file.
pub fn count(file: &Path) -> Result<Count> {
    if !file.exists() {
        return Ok(Count::default());
    }
    Ok(counted(&std::fs::read_to_string(file)?))
}

fn counted(notes: &str) -> Count {
    let of = |how: &str| -> BTreeSet<String> {
        let lines = notes.lines().filter_map(|line| line.split_once('\t'));
        lines
            .filter(|(one, _)| *one == how)
            .map(|(_, what)| what.to_owned())
            .collect()
    };
    let (tried, blocked) = (of("tried"), of("blocked"));
    let worked = tried.difference(&blocked).cloned().collect();
    Count { tried, worked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_and_not_blocked_has_worked() {
        let count = counted("tried\ta\ntried\tb\nblocked\ta\ntried\ta\nblocked\ta\n");
        assert_eq!(count.tried.len(), 2);
        assert_eq!(count.worked, BTreeSet::from(["b".to_owned()]));
        assert_eq!(counted(""), Count::default());
    }
}
