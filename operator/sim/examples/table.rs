//! Runs both policies on the workloads: a table to work with.
#![allow(missing_docs, clippy::cast_precision_loss)]

use poolwright_sim::bound::lower_bound_on_average;
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::scaler::{Scaler, Victims};
use poolwright_sim::suite::Score;
use poolwright_sim::workloads::ALL;
use poolwright_sim::world::{World, run};

struct Tell {
    ours: Poolwright,
    every: u64,
    next: u64,
    said: String,
}

impl Scaler for Tell {
    fn period(&self) -> u64 {
        self.ours.period()
    }

    fn victims(&self) -> Victims {
        self.ours.victims()
    }

    fn look(&mut self, world: &mut World) {
        let (before, snapshot) = (
            world.outcome.drained_busy,
            std::env::var("BUSY").is_ok().then(|| world.pods.clone()),
        );
        self.ours.look(world);
        if let Some(pods) = snapshot.filter(|_| world.outcome.drained_busy > before) {
            for (id, (was, is)) in pods.iter().zip(&world.pods).enumerate() {
                if is.draining && !was.draining {
                    println!(
                        "{} pod {id} created {} runs {} up {} parked {} mark {:?} running {} reserved {} started {}",
                        world.now,
                        was.created,
                        was.runs_at,
                        was.up_at,
                        was.parked,
                        was.mark,
                        was.running.len(),
                        was.reserved.len(),
                        was.started
                    );
                }
            }
            for one in self.ours.last().decisions.values() {
                println!("{:?} {:?}", one.parking, one.text);
            }
        }
        if self.every == 0 {
            return;
        }
        let Some(one) = self.ours.last().decisions.values().next() else {
            return;
        };
        let limits: Vec<&str> = one.limits.iter().map(|limit| limit.name).collect();
        let head = format!("{} {:?} {limits:?}", one.to, one.reason);
        if world.now >= self.next || head != self.said {
            self.next = world.now - world.now % self.every + self.every;
            println!("{:6} {:?} {}", world.now / 1000, one.reason, one.text);
            self.said = head;
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let seed = number("SEED").unwrap_or(7);
    let target = number("TARGET");
    let mut logs = [(0.0, 0.0); 2];
    for workload in ALL {
        let chosen = if only.is_empty() {
            workload.name != "tenants"
        } else {
            only.iter().any(|one| one == workload.name)
        };
        if !chosen {
            continue;
        }
        let mut scenario = (workload.make)(seed);
        for queue in &mut scenario.queues {
            queue.wait_target = target.map_or(queue.wait_target, |seconds| seconds * 1000);
        }
        let bound = lower_bound_on_average(&scenario, None).map_or(f64::NAN, |bound| bound.slot_hours);
        for (at, wait_target) in [true, false].into_iter().enumerate() {
            let settings = Settings {
                wait_target,
                ..Settings::default()
            };
            let mut ours = Tell {
                ours: Poolwright::new(&scenario, settings),
                every: number("EVERY").unwrap_or(0) * 1000,
                next: 0,
                said: String::new(),
            };
            let begin = std::time::Instant::now();
            let outcome = run(&scenario, &mut ours, seed);
            let score = Score::of(&outcome, &scenario);
            let ratio = score.slot_hours / bound;
            if ratio.is_finite() {
                logs[at] = (logs[at].0 + ratio.ln(), logs[at].1 + 1.0);
            }
            let [p50, p95, p99, most] = score.waits.map(|wait| wait as f64 / 1000.0);
            println!(
                "{:12} {:7} xLB {ratio:5.2} p50 {p50:5.1} p95 {p95:6.1} p99 {p99:6.1} max {most:6.1} late {:5.2}% slot-h {:7.1} made {:5} writes {:4} turns/h {:5.1} kill {} busy {} undone {} over {} {:.1}s",
                workload.name,
                if wait_target { "target" } else { "backlog" },
                100.0 * score.late,
                score.slot_hours,
                score.created,
                score.writes,
                score.reversals,
                score.killed,
                score.drained_busy,
                score.undone,
                score.overshoot,
                begin.elapsed().as_secs_f64()
            );
        }
    }
    for (at, name) in ["target", "backlog"].into_iter().enumerate() {
        println!("geo-mean {name} {:.2}", (logs[at].0 / logs[at].1).exp());
    }
}
