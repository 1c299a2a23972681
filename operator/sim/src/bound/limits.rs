//! What caps slots, and which blocks that binds together.
//!
//! It decides the rows `Σ n ≤ S` and splits what no such row connects into programs of their own. A row is left out where
//! it cannot bind or is not certain; leaving one out lowers the bound, so it is always allowed.
//!
//! A budget that sinks finds tasks running. They may end, so pods stay above it for as long as a task that has begun can
//! take, but no longer than their grace, and for a minute in which a scaler may notice: for that time the old budget
//! counts as well. Where a resource behind the tasks makes them longer, only the grace ends them.

use super::blocks::{Plan, Sets};
use super::curves::{Curves, Grid, real};
use super::program::{Flow, Limit, Program};
use super::start_up::StartUps;
use crate::scenario::{Millis, NOTICE, Scenario};

/// The programs of a scenario, one for each group of blocks that limits connect.
pub fn programs(
    scenario: &Scenario,
    plan: &Plan,
    grid: &Grid,
    waits: &[Millis],
    start_up: &StartUps,
) -> Vec<Program> {
    let whole = whole(scenario, plan, grid, waits, start_up);
    let mut sets = Sets((0..plan.blocks.len()).collect());
    for limit in &whole.limits {
        let of_flows = limit.flows.iter().map(|flow| whole.flows[*flow].block);
        let mut blocks = limit.blocks.iter().copied().chain(of_flows);
        let Some(first) = blocks.next() else { continue };
        blocks.for_each(|block| sets.join(first, block));
    }
    let roots: Vec<usize> = (0..plan.blocks.len()).map(|block| sets.root(block)).collect();
    let mine = |root: usize| part(&whole, |block| roots[block] == root);
    (0..plan.blocks.len())
        .filter(|at| roots[*at] == *at)
        .map(mine)
        .filter(|program| !program.flows.is_empty())
        .collect()
}

/// One program of everything.
fn whole(scenario: &Scenario, plan: &Plan, grid: &Grid, waits: &[Millis], start_up: &StartUps) -> Program {
    let mut flows = Vec::new();
    let mut queues = Vec::new();
    for (at, block) in plan.blocks.iter().enumerate() {
        let together: Vec<Vec<usize>> = if plan.aggregate {
            vec![block.queues.clone()]
        } else {
            block.queues.iter().map(|queue| vec![*queue]).collect()
        };
        for some in together {
            let curves = Curves::of(scenario, &some, waits, grid);
            if curves.total > 0.0 {
                flows.push(Flow { block: at, curves });
                queues.push(some);
            }
        }
    }
    let rises = |bin: usize| {
        let from = grid.end(bin).saturating_sub(2 * grid.bin);
        start_up.least(from, grid.end(bin)) / real(grid.bin)
    };
    let mut program = Program {
        bins: grid.bins,
        blocks: plan.blocks.len(),
        start: (0..grid.bins).map(rises).collect(),
        flows,
        limits: Vec::new(),
    };
    let of_fleets = (0..plan.blocks.len()).map(|block| fleets(scenario, plan, grid, start_up, block));
    let of_pools = (0..scenario.budgets.len()).map(|pool| budget(scenario, plan, grid, &queues, pool));
    let limits: Vec<Limit> = of_fleets.chain(of_pools).collect();
    program.limits = limits
        .into_iter()
        .filter_map(|limit| trim(&program, limit))
        .collect();
    program
}

/// A block has no more slots than its fleets' most, and none before the first can be up.
fn fleets(scenario: &Scenario, plan: &Plan, grid: &Grid, start_up: &StartUps, block: usize) -> Limit {
    let fleets = plan.blocks[block]
        .fleets
        .iter()
        .map(|fleet| &scenario.fleets[*fleet]);
    let most: u64 = fleets
        .map(|fleet| u64::from(fleet.bounds.1) * u64::from(fleet.slots))
        .sum();
    let mean = |bin: usize| {
        let up = grid.end(bin).saturating_sub(start_up.first).min(grid.bin);
        Some(real(most) * real(up) / real(grid.bin))
    };
    Limit {
        blocks: vec![block],
        flows: Vec::new(),
        slots: (0..grid.bins).map(mean).collect(),
    }
}

/// A Pool's budget caps the slots of each fleet that consumes any of its queues. Of a block with other fleets beside
/// them, only the work on the Pool's own queues is certain to be theirs.
fn budget(scenario: &Scenario, plan: &Plan, grid: &Grid, flows: &[Vec<usize>], pool: usize) -> Limit {
    let belongs = |queue: &usize| scenario.queues[*queue].budget == Some(pool);
    let counts = |fleet: &usize| scenario.draws(&scenario.fleets[*fleet], pool);
    let is_whole = |block: &usize| {
        let fleets = &plan.blocks[*block].fleets;
        !fleets.is_empty() && fleets.iter().all(counts)
    };
    let blocks: Vec<usize> = (0..plan.blocks.len()).filter(is_whole).collect();
    let is_covered = |queue: &usize| {
        blocks
            .iter()
            .any(|block| plan.blocks[*block].queues.contains(queue))
    };
    let is_loose = |flow: &usize| {
        flows[*flow]
            .iter()
            .all(|queue| belongs(queue) && !is_covered(queue))
    };
    let loose = (0..flows.len()).filter(is_loose).collect();
    let fleets = scenario.fleets.iter().filter(|fleet| scenario.draws(fleet, pool));
    let grace = fleets.map(|fleet| fleet.grace).max().unwrap_or(0);
    let stays = scenario
        .longest_in(pool)
        .map_or(grace, |longest| grace.min(longest));
    let back = grid.bin.saturating_add(stays).saturating_add(NOTICE);
    let most = |bin: usize| {
        let end = grid.end(bin);
        scenario.budgets[pool]
            .most_between(end.saturating_sub(back), end)
            .map(real)
    };
    Limit {
        blocks,
        flows: loose,
        slots: (0..grid.bins).map(most).collect(),
    }
}

/// Without the rows that cannot bind: in some best schedule no block has more slots than its busiest bin needs, and no
/// bin needs more than all that can be left to do in it.
fn trim(program: &Program, mut limit: Limit) -> Option<Limit> {
    let needs = |flow: &Flow| {
        let before = [0.0].into_iter().chain(flow.curves.least.iter().copied());
        let left = flow
            .curves
            .most
            .iter()
            .zip(before)
            .map(|(most, least)| most - least);
        left.fold(0.0, f64::max)
    };
    let counts = |at: usize| limit.flows.contains(&at) || limit.blocks.contains(&program.flows[at].block);
    let flows = program.flows.iter().enumerate();
    let need: f64 = flows
        .filter(|(at, _)| counts(*at))
        .map(|(_, flow)| needs(flow))
        .sum();
    for slots in &mut limit.slots {
        *slots = slots.filter(|slots| *slots < need);
    }
    limit.slots.iter().any(Option::is_some).then_some(limit)
}

/// What of a program belongs to these blocks, with places of its own.
fn part(whole: &Program, keeps: impl Fn(usize) -> bool) -> Program {
    let blocks: Vec<usize> = (0..whole.blocks).filter(|block| keeps(*block)).collect();
    let flows: Vec<usize> = (0..whole.flows.len())
        .filter(|at| keeps(whole.flows[*at].block))
        .collect();
    let place = |all: &[usize], old: usize| all.iter().position(|one| *one == old).unwrap_or(0);
    let mine = |limit: &&Limit| {
        let of_flow = limit.flows.first().map(|flow| whole.flows[*flow].block);
        limit.blocks.first().copied().or(of_flow).is_some_and(&keeps)
    };
    let limit = |limit: &Limit| Limit {
        blocks: limit.blocks.iter().map(|block| place(&blocks, *block)).collect(),
        flows: limit.flows.iter().map(|flow| place(&flows, *flow)).collect(),
        slots: limit.slots.clone(),
    };
    let flow = |at: &usize| Flow {
        block: place(&blocks, whole.flows[*at].block),
        curves: whole.flows[*at].curves.clone(),
    };
    Program {
        bins: whole.bins,
        blocks: blocks.len(),
        start: whole.start.clone(),
        limits: whole.limits.iter().filter(mine).map(limit).collect(),
        flows: flows.iter().map(flow).collect(),
    }
}
