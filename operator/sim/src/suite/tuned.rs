//! The settings that a tuning run found, as they are committed.
//!
//! It reads one file and decides nothing. A setting is found in the grid of its peer by how it prints, so that a grid
//! that changes takes its settings with it, and a test fails, instead of another setting being run under its name.

use crate::peers::{self, Entry};

/// What `poolwright simulate --tune` wrote.
pub const FILE: &str = include_str!("tuned.txt");

/// The peers with their best settings, in the order of the file. What is in no grid is left out.
#[must_use]
pub fn tuned() -> Vec<Entry> {
    lines(FILE)
        .filter_map(|(name, settings)| find(name, settings))
        .collect()
}

/// Name and settings of each line that is no comment.
fn lines(file: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let mut parts = line.splitn(3, " | ");
        Some((parts.next()?, parts.nth(1)?))
    })
}

fn find(name: &str, settings: &str) -> Option<Entry> {
    let entry = peers::all().into_iter().find(|entry| entry.name() == name)?;
    let mut grid = entry.tunings().into_iter();
    grid.find(|one| format!("{:?}", one.settings) == settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::FIRST_TUNING_SEED;

    #[test]
    fn every_line_is_in_the_grid_of_its_peer() {
        for (name, settings) in lines(FILE) {
            assert!(
                find(name, settings).is_some(),
                "{name} has no {settings} in its grid: tune anew"
            );
        }
        let with_grids = peers::all().into_iter().filter(|entry| entry.tunings().len() > 1);
        let expected: Vec<String> = with_grids.map(|entry| entry.name()).collect();
        let found: Vec<String> = tuned().iter().map(Entry::name).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_seeds_of_the_file_are_never_scored() {
        let seeds = FILE
            .lines()
            .find_map(|line| line.strip_prefix("# seeds: "))
            .unwrap();
        for seed in seeds.split(' ') {
            let seed: u64 = seed.parse().unwrap();
            assert!(seed >= FIRST_TUNING_SEED, "{seed}");
        }
    }
}
