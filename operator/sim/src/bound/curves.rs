//! The least and the most work that can be done by a time.
//!
//! It decides where bins end and reads the two curves of the [program](super) there, exactly: sums are whole
//! milliseconds. The most is done where each task begins as it arrives, the least where each begins at its deadline. It
//! knows nothing of slots.

use crate::scenario::{Millis, Scenario, Task};

/// Lengths of a bin, in seconds: the shortest is taken that keeps within [`CELLS`].
const BINS: [Millis; 15] = [
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400,
];

/// Bins times curves that the solver can work with in about a second.
const CELLS: u64 = 6000;

/// Most bins, whatever the number of curves: 4 h and a tail in steps of 10 s.
const MOST: u64 = 2000;

/// Edges of bins.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Length of a bin.
    pub bin: Millis,
    /// How many.
    pub bins: usize,
}

/// Work of one queue, or of some, in slots × bins.
#[derive(Clone, Debug)]
pub struct Curves {
    /// Done at the end of each bin, at least.
    pub least: Vec<f64>,
    /// Done at the end of each bin, at most.
    pub most: Vec<f64>,
    /// All of it.
    pub total: f64,
}

impl Grid {
    /// For a program of so many curves: until the last task has to be done, in bins of the given length if there is one.
    pub fn of(scenario: &Scenario, waits: &[Millis], bin: Option<Millis>, curves: usize) -> Self {
        let due = |task: &Task| match task.failures {
            0 => due(task, waits).saturating_add(task.service),
            _ => task.arrives,
        };
        let end = scenario.tasks.iter().map(due).max().unwrap_or(0).max(1);
        let most = (CELLS / (curves as u64).max(1)).clamp(100, MOST);
        let of_ladder = || {
            let fits = |bin: &Millis| end.div_ceil(*bin) <= most;
            let bin = BINS.iter().map(|seconds| seconds * 1000).find(fits);
            bin.unwrap_or_else(|| end.div_ceil(most))
        };
        let bin = bin.unwrap_or_else(of_ladder);
        let bins = usize::try_from(end.div_ceil(bin)).unwrap_or(usize::MAX);
        Self { bin, bins }
    }

    /// End of a bin, by its place.
    pub const fn end(&self, at: usize) -> Millis {
        self.bin * (at as u64 + 1)
    }
}

impl Curves {
    /// Those of tasks of these queues together.
    pub fn of(scenario: &Scenario, queues: &[usize], waits: &[Millis], grid: &Grid) -> Self {
        let (mut arrive, mut arrived, mut fall, mut fallen) = (vec![], vec![], vec![], vec![]);
        let mut total: u128 = 0;
        let mut counts = vec![false; scenario.queues.len()];
        for queue in queues {
            counts[*queue] = true;
        }
        for task in scenario.tasks.iter().filter(|task| counts[task.queue]) {
            for run in 0..=u64::from(task.failures) {
                let from = task.arrives + run * (task.service + scenario.retry_after);
                arrive.push(from);
                arrived.push(from + task.service);
                total += u128::from(task.service);
            }
            if task.failures == 0 {
                fall.push(due(task, waits));
                fallen.push(due(task, waits).saturating_add(task.service));
            }
        }
        Self {
            least: difference(fall, fallen, grid),
            most: difference(arrive, arrived, grid),
            total: in_bins(total, grid),
        }
    }
}

const fn due(task: &Task, waits: &[Millis]) -> Millis {
    task.arrives.saturating_add(waits[task.queue])
}

/// `Σ (t − from)⁺ − Σ (t − to)⁺`, which is `Σ min(s, (t − from)⁺)`, at the end of each bin.
fn difference(from: Vec<Millis>, to: Vec<Millis>, grid: &Grid) -> Vec<f64> {
    let pairs = ramps(from, grid).into_iter().zip(ramps(to, grid));
    pairs.map(|(from, to)| in_bins(from - to, grid)).collect()
}

/// `Σ (t − x)⁺` at the end of each bin.
fn ramps(mut points: Vec<Millis>, grid: &Grid) -> Vec<u128> {
    points.sort_unstable();
    let mut points = points.into_iter().peekable();
    let (mut count, mut sum): (u128, u128) = (0, 0);
    let at_end = |bin: usize| {
        let end = grid.end(bin);
        while let Some(point) = points.next_if(|point| *point <= end) {
            (count, sum) = (count + 1, sum + u128::from(point));
        }
        count * u128::from(end) - sum
    };
    (0..grid.bins).map(at_end).collect()
}

#[allow(clippy::cast_precision_loss)] // Sums are far below 2^53 ms, and the certificate allows for rounding.
fn in_bins(millis: u128, grid: &Grid) -> f64 {
    millis as f64 / real(grid.bin)
}

/// A time as a number to reckon with.
#[allow(clippy::cast_precision_loss)]
pub const fn real(millis: Millis) -> f64 {
    millis as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arrives: Millis, service: Millis) -> Task {
        Task {
            arrives,
            service,
            queue: 0,
            failures: 0,
        }
    }

    fn curves(tasks: Vec<Task>, wait: Millis) -> (Grid, Curves) {
        let scenario = Scenario::plain("edges", 10_000, tasks);
        let grid = Grid::of(&scenario, &[wait], Some(1000), 1);
        (grid, Curves::of(&scenario, &[0], &[wait], &grid))
    }

    /// What arrives or falls due exactly where a bin ends has done nothing in it, and what ends there is done.
    #[test]
    fn work_at_the_edge_of_a_bin_is_of_the_next() {
        let (grid, found) = curves(vec![task(0, 1000), task(1000, 500)], 1000);
        // The second is due at 2000 and done at 2500, half way into the third bin.
        assert_eq!((grid.bins, grid.end(0), grid.end(2)), (3, 1000, 3000));
        assert_eq!(found.most, [1.0, 1.5, 1.5]);
        assert_eq!(found.least, [0.0, 1.0, 1.5]);
        assert!((found.total - 1.5).abs() < 1e-12);
    }

    /// A millisecond before the edge counts, and a millisecond after it makes one bin more.
    #[test]
    fn a_millisecond_beside_the_edge_counts() {
        let (grid, found) = curves(vec![task(999, 1001)], 0);
        assert_eq!((grid.bins, found.most.as_slice()), (2, [0.001, 1.001].as_slice()));
        assert_eq!(found.least, found.most);
        let (grid, found) = curves(vec![task(999, 1002)], 0);
        assert_eq!((grid.bins, found.most.len()), (3, 3));
        assert!(
            (found.most[2] - found.total).abs() < 1e-12,
            "all is done at the end"
        );
    }

    /// The shortest bin of the ladder with which there are no more than [`MOST`]: at the limit itself it still fits.
    #[test]
    fn bins_grow_only_beyond_the_most() {
        let of = |end: Millis, curves: usize| {
            let scenario = Scenario::plain("ladder", end, vec![task(0, end)]);
            let grid = Grid::of(&scenario, &[0], None, curves);
            (grid.bin, grid.bins)
        };
        assert_eq!(of(2_000_000, 1), (1000, 2000));
        assert_eq!(of(2_000_001, 1), (2000, 1001));
        // Of many curves, a hundred bins are left.
        assert_eq!(of(100_000, 6000), (1000, 100));
        assert_eq!(of(100_001, 6000), (2000, 51));
    }
}
