//! When tasks arrive: renewal processes on a clock that runs at the rate of the moment.
//!
//! One mechanism serves every workload that is not a lattice. Gaps of mean 1 are drawn, and pass at the rate of the
//! piece that they fall into: exponential gaps give a Poisson process of varying rate, exactly and without thinning,
//! Weibull gaps give a burstier or a calmer one with the same mean.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_distr::{Bernoulli, Distribution, Exp, Exp1, Weibull};

/// A stretch of constant rate, in seconds and tasks a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) rate: f64,
}

/// A rate that varies smoothly is constant for so long: a 360th of the shortest wave in use.
const GRAIN: f64 = 10.0;

/// One rate from a time to another.
pub(super) fn level(from: f64, to: f64, rate: f64) -> Piece {
    Piece { from, to, rate }
}

/// A sine around a mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wave {
    pub(super) length: f64,
    pub(super) mean: f64,
    /// The peak is so many times the trough.
    pub(super) ratio: f64,
    pub(super) period: f64,
    /// The first trough, as a part of the period.
    pub(super) trough: f64,
}

impl Wave {
    pub(super) fn pieces(self) -> Vec<Piece> {
        let swing = (self.ratio - 1.0) / (self.ratio + 1.0);
        let mut pieces = Vec::new();
        let mut from = 0.0;
        while from < self.length {
            let to = (from + GRAIN).min(self.length);
            let angle = TAU * (f64::midpoint(from, to) / self.period - self.trough);
            let rate = self.mean * (1.0 - swing * angle.cos());
            pieces.push(level(from, to, rate));
            from = to;
        }
        pieces
    }
}

/// One of two phases: how long it lasts in the mean, exponentially, and the rate meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) stay: f64,
    pub(super) rate: f64,
}

/// Two phases in turn. The first is drawn by their shares of time, so that the mean rate holds from the beginning.
pub(super) fn phases(length: f64, two: [Phase; 2], chance: &mut ChaCha8Rng) -> Vec<Piece> {
    let share = two[1].stay / (two[0].stay + two[1].stay);
    let begins = Bernoulli::new(share).expect("a share of positive times");
    let stays = two.map(|phase| Exp::new(1.0 / phase.stay).expect("a positive time"));
    let mut on = usize::from(begins.sample(chance));
    let mut pieces = Vec::new();
    let mut from = 0.0;
    while from < length {
        let to = (from + stays[on].sample(chance)).min(length);
        pieces.push(level(from, to, two[on].rate));
        (from, on) = (to, 1 - on);
    }
    pieces
}

/// Weibull gaps of mean 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaps {
    pub(super) shape: f64,
    /// Γ(1 + 1/shape), the mean of gaps of scale 1.
    pub(super) mean: f64,
}

impl Gaps {
    pub(super) fn weibull(self) -> Weibull<f64> {
        Weibull::new(1.0 / self.mean, self.shape).expect("a positive scale and shape")
    }
}

/// Poisson arrivals.
pub(super) fn poisson(pieces: &[Piece], chance: &mut ChaCha8Rng) -> Vec<f64> {
    renewal(pieces, &Exp1, chance)
}

/// Arrivals whose gaps have mean 1 on a clock that runs at the rate of each piece. Pieces follow one another.
pub(super) fn renewal(pieces: &[Piece], gaps: &impl Distribution<f64>, chance: &mut ChaCha8Rng) -> Vec<f64> {
    let mut arrivals = Vec::new();
    let mut left = gaps.sample(chance);
    for piece in pieces {
        let mut at = piece.from;
        while left < (piece.to - at) * piece.rate {
            at += left / piece.rate;
            arrivals.push(at);
            left = gaps.sample(chance);
        }
        left -= (piece.to - at) * piece.rate;
    }
    arrivals
}
