//! What a solver's answer proves.
//!
//! It decides the number that is reported: the value of a point of the dual, made feasible here, so that by weak duality
//! no schedule costs less, however rough the solver was. It may not use what the solver says its answer is worth.
//!
//! # The dual
//!
//! Prices that are not negative: β of a rise, ρ of each limit, ν of work that would be undone. The columns n and Y of the
//! program leave no choice in the other prices:
//!
//! ```text
//! n_k:  a slot's work in bin k   α_k = 1 + β_k − β_{k+1} + Σ ρ_k of the block's limits     (β_{K+1} = 0)
//! u_k:                           β_k ≤ D_k
//! Y_k:  a queue's work in bin k  p_k = α_k + Σ ρ_k of its own limits − ν_k                 (p_{K+1} = 1)
//!       deadlines, arrivals      λ_k = (p_k − p_{k+1})⁺,  μ_k = (p_{k+1} − p_k)⁺
//! ```
//!
//! So any β between 0 and D that keeps α from being negative, and any ρ and ν, are a point of the dual. Its value is
//!
//! ```text
//! Σ of queues (T + Σ λ_k·L_k − Σ μ_k·U_k)  −  Σ of limits ρ_k·S_k
//! ```

use super::program::{Point, Program};

/// Room for rounding: the sums below have some ten thousand terms with an error of 2⁻⁵³ each.
const ROUNDING: f64 = 1e-10;

/// A lower bound on the program's cost, in slots × bins, from the prices of this point.
pub fn proven(program: &Program, point: &Point) -> f64 {
    let limits = limit_prices(program, point);
    let slots: Vec<Vec<f64>> = (0..program.blocks)
        .map(|block| slot_prices(program, point, &limits, block))
        .collect();
    let (mut value, mut size) = (0.0, 0.0);
    let mut add = |term: f64| {
        value += term;
        size += term.abs();
    };
    for (at, flow) in program.flows.iter().enumerate() {
        let price = |bin: usize| {
            let own = program.limits.iter().zip(&limits);
            let own = own.filter(|(limit, _)| limit.flows.contains(&at));
            let own: f64 = own.map(|(_, prices)| prices[bin]).sum();
            slots[flow.block][bin] + own - point.idle[at][bin].max(0.0)
        };
        let prices: Vec<f64> = (0..program.bins).map(price).chain([1.0]).collect();
        add(flow.curves.total);
        for (bin, pair) in prices.windows(2).enumerate() {
            let falls = pair[0] - pair[1];
            let curve = if falls > 0.0 {
                &flow.curves.least
            } else {
                &flow.curves.most
            };
            add(falls * curve[bin]);
        }
    }
    for (limit, prices) in program.limits.iter().zip(&limits) {
        for (slots, price) in limit.slots.iter().zip(prices) {
            add(-price * slots.unwrap_or(0.0));
        }
    }
    (value - ROUNDING * size).max(0.0)
}

/// ρ, by limit and bin.
fn limit_prices(program: &Program, point: &Point) -> Vec<Vec<f64>> {
    let prices = program.limits.iter().zip(&point.limit);
    let price = |(slots, price): (&Option<f64>, &f64)| if slots.is_some() { price.max(0.0) } else { 0.0 };
    prices
        .map(|(limit, prices)| limit.slots.iter().zip(prices).map(price).collect())
        .collect()
}

/// α of a block, by bin.
fn slot_prices(program: &Program, point: &Point, limits: &[Vec<f64>], block: usize) -> Vec<f64> {
    let mine: Vec<&Vec<f64>> = program
        .limits
        .iter()
        .zip(limits)
        .filter(|(limit, _)| limit.blocks.contains(&block))
        .map(|(_, prices)| prices)
        .collect();
    let base = |bin: usize| 1.0 + mine.iter().map(|prices| prices[bin]).sum::<f64>();
    let mut rises: Vec<f64> = Vec::with_capacity(program.bins + 1);
    for bin in 0..program.bins {
        let most = match rises.last() {
            // Else the price of the bin before would be negative.
            Some(before) => program.start[bin].min(base(bin - 1) + before),
            None => program.start[bin],
        };
        rises.push(point.rise[block][bin].max(0.0).min(most));
    }
    rises.push(0.0);
    (0..program.bins)
        .map(|bin| base(bin) + rises[bin] - rises[bin + 1])
        .collect()
}

/// What a schedule near this point costs, in slots × bins: it keeps every row but the limits, which it may exceed by what
/// the solver left.
pub fn cost(program: &Program, point: &Point) -> f64 {
    let mut needs = vec![vec![0.0; program.bins]; program.blocks];
    let mut cost = 0.0;
    for (flow, done) in program.flows.iter().zip(&point.done) {
        let mut before: f64 = 0.0;
        for (bin, done) in done.iter().enumerate() {
            let least = flow.curves.least[bin].max(before);
            let now = done.min(flow.curves.most[bin]).max(least);
            needs[flow.block][bin] += now - before;
            before = now;
        }
        cost += flow.curves.total - before;
    }
    for (needs, slots) in needs.iter().zip(&point.slots) {
        let mut before = 0.0;
        for (bin, (need, slots)) in needs.iter().zip(slots).enumerate() {
            let now = need.max(*slots);
            cost += now + program.start[bin] * (now - before).max(0.0);
            before = now;
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bound::curves::{Curves, Grid};
    use crate::bound::program::{Flow, Limit, solve};
    use crate::scenario::{Queue, Scenario, Task};

    /// Two queues with a block each and a cap on both, and one that is loose.
    fn program() -> Program {
        let task = |at: u64| Task {
            arrives: (at * at * 1_700) % 200_000,
            service: 3_000 + (at * 7_919) % 20_000,
            queue: usize::try_from(at % 3).unwrap(),
            failures: 0,
        };
        let mut scenario = Scenario::plain("certificate", 200_000, (0..40).map(task).collect());
        let queue: Queue = scenario.queues[0].clone();
        scenario.queues.extend([queue.clone(), queue]);
        let waits = [20_000, 60_000, 10_000];
        let grid = Grid::of(&scenario, &waits, Some(5_000), 3);
        let flow = |queue: usize| Flow {
            block: queue.min(1),
            curves: Curves::of(&scenario, &[queue], &waits, &grid),
        };
        let limit = |blocks: &[usize], flows: &[usize], slots: f64| Limit {
            blocks: blocks.to_vec(),
            flows: flows.to_vec(),
            slots: (0..grid.bins).map(|bin| (bin % 7 > 0).then_some(slots)).collect(),
        };
        Program {
            bins: grid.bins,
            blocks: 2,
            start: (0..grid.bins)
                .map(|bin| if bin < 20 { 2.0 } else { 6.0 })
                .collect(),
            flows: (0..3).map(flow).collect(),
            limits: vec![limit(&[0, 1], &[], 2.5), limit(&[0], &[2], 1.6)],
        }
    }

    /// Moves every number of a point by up to this, up and down in turns that repeat nowhere near.
    fn shaken(point: &Point, by: f64) -> Point {
        let mut state = 1_u32;
        let mut shake = |all: &mut Vec<Vec<f64>>| {
            for one in all.iter_mut().flatten() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *one += by * (f64::from(state >> 8) / f64::from(1 << 23) - 1.0);
            }
        };
        let mut other = point.clone();
        shake(&mut other.slots);
        shake(&mut other.done);
        shake(&mut other.rise);
        shake(&mut other.idle);
        shake(&mut other.limit);
        other
    }

    #[test]
    fn the_solver_comes_close() {
        let program = program();
        let point = solve(&program).unwrap();
        let (proven, cost) = (proven(&program, &point), cost(&program, &point));
        assert!(
            proven <= cost + 1e-3 && cost <= proven * 1.0001,
            "{proven} {cost}"
        );
        let used = |limit: &Vec<f64>| limit.iter().any(|price| *price > 0.01);
        assert!(
            point.limit.iter().all(used),
            "a limit that binds nothing tests nothing"
        );
    }

    /// Whatever the prices, what they prove is no more than the best schedule costs.
    #[test]
    fn no_prices_prove_too_much() {
        let program = program();
        let point = solve(&program).unwrap();
        let best = proven(&program, &point);
        for by in [1e-6, 1e-3, 0.1, 1.0, 10.0, 1000.0] {
            let rough = proven(&program, &shaken(&point, by));
            assert!(rough <= best * (1.0 + 1e-6), "{by}: {rough} above {best}");
        }
        for price in [-1.0, -3.0, -10.0] {
            let limit = vec![vec![price; program.bins]; 2];
            let paid = proven(
                &program,
                &Point {
                    limit,
                    ..point.clone()
                },
            );
            assert!(paid <= best * (1.0 + 1e-6), "{paid} above {best}: limits pay");
        }
        let close = proven(&program, &shaken(&point, 1e-6));
        assert!(close >= best * 0.999, "{close} {best}");
    }

    /// The best prices of a world where slots cost more to start are no prices of this one.
    #[test]
    fn prices_of_dearer_rises_prove_no_more() {
        let program = program();
        let mut dearer = program.clone();
        for start in &mut dearer.start {
            *start *= 3.0;
        }
        let best = proven(&program, &solve(&program).unwrap());
        let prices = solve(&dearer).unwrap();
        assert!(proven(&dearer, &prices) > best * 1.1, "or this shows nothing");
        assert!(proven(&program, &prices) <= best * (1.0 + 1e-6));
    }

    /// Two slots work, rest for a bin and work again, and are kept because a start is dearer: 3 bins and a start each.
    /// Prices that charge a start for each time would charge less than nothing for the rest between.
    #[test]
    fn no_bin_earns_less_than_nothing() {
        let done = vec![0.0, 2.0, 2.0, 4.0, 4.0];
        let program = Program {
            bins: 5,
            blocks: 1,
            start: vec![6.0; 5],
            flows: vec![Flow {
                block: 0,
                curves: Curves {
                    least: done.clone(),
                    most: done.clone(),
                    total: 4.0,
                },
            }],
            limits: Vec::new(),
        };
        let solved = solve(&program).unwrap();
        let twice = Point {
            rise: vec![vec![6.0, 6.0, 0.0, 6.0, 0.0]],
            idle: vec![vec![0.0; 5]],
            ..solved.clone()
        };
        let undone = Point {
            idle: vec![vec![-5.0; 5]],
            ..solved.clone()
        };
        for point in [solved, twice, undone] {
            let found = proven(&program, &point);
            assert!((found - 18.0).abs() < 1e-4, "{found}");
        }
    }

    /// Whatever the schedule, it costs no less than the best where it keeps to the limits, as one without limits does.
    #[test]
    fn no_schedule_costs_too_little() {
        let free = Program {
            limits: Vec::new(),
            ..program()
        };
        let point = solve(&free).unwrap();
        let best = proven(&free, &point);
        for by in [1e-6, 1e-3, 0.1, 1.0, 10.0] {
            let rough = cost(&free, &shaken(&point, by));
            assert!(rough >= best, "{by}: {rough} below {best}");
        }
    }
}
