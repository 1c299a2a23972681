//! The linear program, and the solver that finds a point of it.
//!
//! It decides how the program of [`bound`](super) is laid out for the solver: slots, and bins as the unit of time. It may
//! not be believed: what it returns is only a hint from which [`certificate`](super::certificate) makes a bound.
//!
//! The solver is an interior-point method: it gives the dual, and thousands of bins cost it little, because each row
//! connects neighbours in time. A simplex method would walk from corner to corner of them.

use clarabel::algebra::CscMatrix;
use clarabel::solver::{
    DefaultSettings, DefaultSolver, IPSolver, NonnegativeConeT, SolverStatus, SupportedConeT,
};

use super::BoundError;
use super::curves::Curves;

/// Every limit and every least work is relaxed by this many slots × bins for the solver, for it needs room between rows
/// that would hold with equality. It is a relaxation too, and the certificate does not use it.
const ROOM: f64 = 1e-6;

/// Work that one curve describes.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The block whose slots do it.
    pub block: usize,
    /// When.
    pub curves: Curves,
}

/// A cap on the slots of some blocks together, and on the slots that work of some flows takes.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Places of the blocks.
    pub blocks: Vec<usize>,
    /// Places of flows whose block is not among them.
    pub flows: Vec<usize>,
    /// By bin; `None` for no limit.
    pub slots: Vec<Option<f64>>,
}

/// A program; its unit of time is a bin.
#[derive(Clone, Debug)]
pub struct Program {
    /// How many bins.
    pub bins: usize,
    /// How many blocks.
    pub blocks: usize,
    /// What a slot costs that comes up, by bin, in bins.
    pub start: Vec<f64>,
    /// All work.
    pub flows: Vec<Flow>,
    /// All limits.
    pub limits: Vec<Limit>,
}

/// What the solver found, by block, flow or limit and then by bin. None of it need be feasible.
#[derive(Clone, Debug)]
pub struct Point {
    /// Slots that are up.
    pub slots: Vec<Vec<f64>>,
    /// Work done.
    pub done: Vec<Vec<f64>>,
    /// Price of `n_k − n_{k−1} ≤ u_k`.
    pub rise: Vec<Vec<f64>>,
    /// Price of `Y_{k−1} ≤ Y_k`.
    pub idle: Vec<Vec<f64>>,
    /// Price of a limit.
    pub limit: Vec<Vec<f64>>,
}

/// Solves it as far as the solver can.
pub fn solve(program: &Program) -> Result<Point, BoundError> {
    let table = Table::of(program);
    let columns = table.cost.len();
    let none = CscMatrix::zeros((columns, columns));
    let rows = CscMatrix::new_from_triplets(
        table.caps.len(),
        columns,
        table.row_of,
        table.column_of,
        table.factor,
    );
    let cones: [SupportedConeT<f64>; 1] = [NonnegativeConeT(table.caps.len())];
    let settings = DefaultSettings {
        verbose: false,
        ..DefaultSettings::default()
    };
    let mut solver = DefaultSolver::new(&none, &table.cost, &rows, &table.caps, &cones, settings)
        .map_err(|error| BoundError::Unsolved(error.to_string()))?;
    solver.solve();
    let found = &solver.solution;
    match found.status {
        SolverStatus::PrimalInfeasible | SolverStatus::AlmostPrimalInfeasible => Err(BoundError::Unreachable),
        _ if found.x.iter().chain(&found.z).all(|value| value.is_finite()) => {
            Ok(table.places.point(program, &found.x, &found.z))
        }
        status => Err(BoundError::Unsolved(format!("{status:?}"))),
    }
}

/// Where things are: columns n, u and Y, and rows by what they say.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    risen: usize,
    done: usize,
    rise: usize,
    idle: usize,
    limit: usize,
}

/// Rows `Σ factor · column ≤ cap`.
#[derive(Debug, Default)]
struct Table {
    cost: Vec<f64>,
    row_of: Vec<usize>,
    column_of: Vec<usize>,
    factor: Vec<f64>,
    caps: Vec<f64>,
    places: Places,
}

impl Table {
    fn of(program: &Program) -> Self {
        let (bins, blocks, flows) = (program.bins, program.blocks, program.flows.len());
        let mut table = Self::default();
        table.places.risen = blocks * bins;
        table.places.done = 2 * blocks * bins;
        table.cost = vec![1.0; blocks * bins];
        table
            .cost
            .extend(std::iter::repeat_n(&program.start, blocks).flatten());
        table.cost.resize((2 * blocks + flows) * bins, 0.0);
        for flow in 0..flows {
            // What is left at the end.
            table.cost[table.places.done + (flow + 1) * bins - 1] = -1.0;
        }
        table.slots(program);
        table.work(program);
        table.limits(program);
        table
    }

    fn row(&mut self, terms: impl IntoIterator<Item = (usize, f64)>, cap: f64) {
        for (column, factor) in terms {
            self.row_of.push(self.caps.len());
            self.column_of.push(column);
            self.factor.push(factor);
        }
        self.caps.push(cap);
    }

    /// The change of a column from the bin before; before the first, all is 0.
    fn step(column: usize, bin: usize, sign: f64) -> impl Iterator<Item = (usize, f64)> {
        let before = (bin > 0).then(|| (column + bin - 1, -sign));
        [(column + bin, sign)].into_iter().chain(before)
    }

    /// `n_k − n_{k−1} ≤ u_k` and `0 ≤ u_k`.
    fn slots(&mut self, program: &Program) {
        self.places.rise = self.caps.len();
        for block in 0..program.blocks {
            let first = block * program.bins;
            for bin in 0..program.bins {
                let risen = self.places.risen + first + bin;
                self.row(Self::step(first, bin, 1.0).chain([(risen, -1.0)]), 0.0);
            }
        }
        for at in self.places.risen..self.places.done {
            self.row([(at, -1.0)], 0.0);
        }
    }

    /// Work needs slots, is not undone, and keeps between its curves.
    fn work(&mut self, program: &Program) {
        let (bins, done) = (program.bins, self.places.done);
        for block in 0..program.blocks {
            let mine = |flow: &usize| program.flows[*flow].block == block;
            for bin in 0..bins {
                let flows = (0..program.flows.len()).filter(mine);
                let work = flows.flat_map(|flow| Self::step(done + flow * bins, bin, 1.0));
                self.row(work.chain([(block * bins + bin, -1.0)]), 0.0);
            }
        }
        self.places.idle = self.caps.len();
        for flow in 0..program.flows.len() {
            for bin in 0..bins {
                self.row(Self::step(done + flow * bins, bin, -1.0), 0.0);
            }
        }
        for (at, flow) in program.flows.iter().enumerate() {
            for bin in 0..bins {
                self.row([(done + at * bins + bin, -1.0)], ROOM - flow.curves.least[bin]);
                self.row([(done + at * bins + bin, 1.0)], flow.curves.most[bin]);
            }
        }
    }

    fn limits(&mut self, program: &Program) {
        let (bins, done) = (program.bins, self.places.done);
        self.places.limit = self.caps.len();
        for limit in &program.limits {
            for (bin, slots) in limit.slots.iter().enumerate() {
                let Some(slots) = slots else { continue };
                let blocks = limit.blocks.iter().map(|block| (block * bins + bin, 1.0));
                let flows = limit.flows.iter();
                let work = flows.flat_map(|flow| Self::step(done + flow * bins, bin, 1.0));
                self.row(blocks.chain(work), slots + ROOM);
            }
        }
    }
}

impl Places {
    fn point(&self, program: &Program, primal: &[f64], dual: &[f64]) -> Point {
        let cut = |all: &[f64], from: usize, count: usize| -> Vec<Vec<f64>> {
            let part = &all[from..from + count * program.bins];
            part.chunks(program.bins).map(<[f64]>::to_vec).collect()
        };
        let mut prices = dual[self.limit..].iter().copied();
        let mut of_limit = |limit: &Limit| -> Vec<f64> {
            let price = |slots: &Option<f64>| slots.and_then(|_| prices.next()).unwrap_or(0.0);
            limit.slots.iter().map(price).collect()
        };
        Point {
            slots: cut(primal, 0, program.blocks),
            done: cut(primal, self.done, program.flows.len()),
            rise: cut(dual, self.rise, program.blocks),
            idle: cut(dual, self.idle, program.flows.len()),
            limit: program.limits.iter().map(&mut of_limit).collect(),
        }
    }
}
