//! Runs both policies on the workloads: a table to work with.
#![allow(missing_docs)]
use poolwright_sim::outcome::quantile;
use poolwright_sim::poolwright::{Poolwright, Settings};
use poolwright_sim::workloads::ALL;
use poolwright_sim::world::run;
struct Tell {
    ours: Poolwright,
    every: u64,
    next: u64,
    said: String,
}
impl poolwright_sim::scaler::Scaler for Tell {
    fn period(&self) -> u64 {
        self.ours.period()
    }
    fn victims(&self) -> poolwright_sim::scaler::Victims {
        self.ours.victims()
    }
    fn look(&mut self, world: &mut poolwright_sim::world::World) {
        self.ours.look(world);
        if self.every < u64::MAX {
            let one = self.ours.last().decisions.values().next().unwrap();
            let head = format!(
                "{} {:?} {:?}",
                one.to,
                one.reason,
                one.limits.iter().map(|l| l.name).collect::<Vec<_>>()
            );
            if world.now >= self.next || head != self.said {
                self.next = world.now - world.now % self.every + self.every;
                println!("{:6} {:?} {}", world.now / 1000, one.reason, one.text);
                self.said = head;
            }
        }
    }
}
fn main() {
    let only: Vec<String> = std::env::args().skip(1).collect();
    for workload in ALL {
        if workload.name == "tenants" && only.is_empty()
            || !only.is_empty() && !only.iter().any(|one| one == workload.name)
        {
            continue;
        }
        let scenario = (workload.make)(7);
        let bound = poolwright_sim::bound::lower_bound_on_average(&scenario, None).map_or(f64::NAN, |bound| bound.slot_hours);
        for wait_target in [true, false] {
            let settings = Settings {
                wait_target,
                ..Settings::default()
            };
            let begin = std::time::Instant::now();
            let mut ours = Tell {
                ours: Poolwright::new(&scenario, settings),
                every: std::env::var("EVERY")
                    .ok()
                    .and_then(|every| every.parse().ok())
                    .unwrap_or(u64::MAX),
                next: 0,
                said: String::new(),
            };
            let outcome = run(&scenario, &mut ours, 7);
            let waits = outcome.sorted_waits();
            println!(
                "{:12} {:9} p50 {:5.1} p95 {:6.1} p99 {:6.1} late {:5.1}% slot-h {:7.2} work-h {:7.2} starts {:5} writes {:5} turns {:4} killed {} busy {} undone {} peak {:?} over {:?} {:.1}s",
                workload.name,
                if wait_target { "target" } else { "backlog" },
                quantile(&waits, 0.5) as f64 / 1000.0,
                quantile(&waits, 0.95) as f64 / 1000.0,
                quantile(&waits, 0.99) as f64 / 1000.0,
                100.0 * outcome.late_share(&scenario),
                outcome.slot_hours(),
                outcome.work_millis as f64 / 3.6e6,
                outcome.created,
                outcome.changes.len(),
                outcome.reversals.iter().sum::<u64>(),
                outcome.killed,
                outcome.drained_busy,
                outcome.undone,
                outcome.peak.iter().max(),
                outcome.overshoot_millis.iter().max(),
                begin.elapsed().as_secs_f64()
            );
        }
    }
}
