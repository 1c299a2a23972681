//! Pods: made, started and ended as controllers and nodes do it.

use rand_chacha::rand_core::Rng;
use rand_distr::{Distribution, Normal};

use super::{Event, Pod, PodId, World};
use crate::scaler::Victims;
use crate::scenario::Millis;

/// A worker consumes so long after its container runs, or half of its start-up time after it.
const BOOT: Millis = 2_000;

impl World {
    /// Asks for so many pods of a fleet, parked ones included.
    pub fn scale(&mut self, fleet: usize, wanted: u32) {
        if self.crews[fleet].wanted == wanted {
            return;
        }
        let before = std::mem::replace(&mut self.crews[fleet].wanted, wanted);
        self.outcome.scaled(self.now, fleet, before, wanted);
        let have = u32::try_from(self.staying(fleet).count()).unwrap_or(u32::MAX);
        for _ in have..wanted {
            self.create(fleet);
        }
        if have > wanted {
            for id in self.leaving(fleet, (have - wanted) as usize) {
                self.drain(id);
            }
        }
        let pods = self.crews[fleet].pods.len();
        self.outcome.peaked(fleet, pods);
    }

    /// A worker stops fetching, and keeps what it holds.
    pub fn park(&mut self, id: PodId) {
        self.note_blind(id);
        self.pods[id].parked = true;
    }

    /// A parked worker fetches again.
    pub fn unpark(&mut self, id: PodId) {
        self.pods[id].parked = false;
        self.pull(id);
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn create(&mut self, fleet: usize) {
        let start = self.scenario.start_up_at(self.now);
        let (mean, spread) = (start.mean as f64, start.spread as f64);
        let drawn = Normal::new(mean, spread).map_or(mean, |normal| normal.sample(&mut self.chance));
        let long = drawn.clamp(mean / 10.0, mean + 5.0 * spread) as Millis;
        let id = self.pods.len();
        self.pods.push(Pod {
            fleet,
            created: self.now,
            runs_at: self.now + long - BOOT.min(long / 2),
            up_at: self.now + long,
            draining: false,
            parked: false,
            mark: None,
            running: Vec::new(),
            reserved: std::collections::VecDeque::new(),
            started: 0,
            empty_since: self.now + long,
            gone: false,
            in_line: false,
            turn: 0,
        });
        self.crews[fleet].pods.push(id);
        self.take(fleet);
        self.outcome.created += 1;
        self.push(self.now + long, Event::Up(id));
    }

    /// Who goes: those that do not run yet, then the marked where marks count, then any.
    fn leaving(&mut self, fleet: usize, count: usize) -> Vec<PodId> {
        let marked = self.victims == Victims::Marked;
        let staying: Vec<PodId> = self.staying(fleet).map(|(id, _)| id).collect();
        let mut order: Vec<(bool, u8, u32, PodId)> = staying
            .into_iter()
            .map(|id| {
                let pod = &self.pods[id];
                let runs = pod.runs_at <= self.now;
                let mark = pod.mark.filter(|_| marked).unwrap_or(u8::MAX);
                (runs, mark, self.chance.next_u32(), id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().take(count).map(|(.., id)| id).collect()
    }

    /// A pod is taken away. Counts it where nobody can know that it is not needed. One that was parked was taken away
    /// then, and its end is no decision any more. No time is added after a fault: every scaler reads anew when it looks,
    /// so what it takes away then rests on a true reading, too.
    fn note_blind(&mut self, id: PodId) {
        if self.scenario.is_blind_at(self.now) && !self.pods[id].parked {
            self.outcome.blind += 1;
        }
    }

    fn drain(&mut self, id: PodId) {
        self.note_blind(id);
        self.pods[id].draining = true;
        let fleet = self.pods[id].fleet;
        if !self.pods[id].running.is_empty() {
            self.outcome.drained_busy += 1;
        }
        self.give_back(id);
        if self.pods[id].running.is_empty() {
            self.go(id);
        } else {
            let grace = self.scenario.fleets[fleet].grace;
            self.push(self.now + grace, Event::Grace(id));
        }
        for queue in self.scenario.fleets[fleet].queues.clone() {
            self.offer(queue);
        }
    }

    pub(super) fn go(&mut self, id: PodId) {
        let pod = &mut self.pods[id];
        pod.gone = true;
        let (fleet, lived) = (pod.fleet, self.now - pod.created);
        self.crews[fleet].pods.retain(|one| *one != id);
        self.crews[fleet].line.retain(|one| *one != id);
        self.free(fleet);
        self.outcome.paid(self.scenario.fleets[fleet].slots, lived);
    }

    pub(super) fn come_up(&mut self, id: PodId) {
        if self.pods[id].gone || self.pods[id].draining {
            return;
        }
        self.pull(id);
    }
}
