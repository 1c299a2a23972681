//! Each request of a run goes wrong in each way in turn: the run ends as one without a fault, and nothing is lost, killed or
//! exceeded on the way.
//!
//! It decides which requests go wrong together, and what counts as tried: only what has come to pass. Some go wrong in one
//! run, far from each other; where that run does not end well, each of them is tried alone, to name the one. It may not call
//! a run well because its requests are well alone.

#[path = "every_request/run.rs"]
mod run;
#[path = "every_request/state.rs"]
mod state;

use poolwright_tests::*;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use run::{Lane, Outcome, run};

/// Runs side by side: each mostly waits.
const LANES: usize = 8;
/// How far faults of one run are from each other: what one has broken is mended before the next. Reads break nothing.
const APART: [(Kind, usize); 2] = [(Kind::Write, 16), (Kind::Read, 8)];
/// Of how many runs one is made in short.
const SAMPLE: usize = 25;

/// What is tried: every kind of fault at every request, in runs with some each.
fn runs(model: &Outcome) -> Vec<Vec<Aim>> {
    let mut runs = Vec::new();
    for (kind, apart) in APART {
        let faults: &[Fault] = match kind {
            Kind::Write => &Fault::OF_WRITES,
            Kind::Read => &Fault::OF_READS,
        };
        let count = model.asked.iter().filter(|one| one.kind == kind).count();
        for first in 0..apart {
            for turn in 0..faults.len() {
                let each = (first..count).step_by(apart).enumerate();
                let aims = each.map(|(number, index)| {
                    let fault = faults[(turn + number) % faults.len()];
                    Aim { kind, index, fault }
                });
                runs.push(aims.collect());
            }
        }
    }
    runs
}

/// What became of the cells.
#[derive(Debug, Default)]
struct Score {
    tried: usize,
    survived: usize,
    unreached: Vec<Aim>,
    failed: Vec<String>,
}

impl Score {
    fn add(&mut self, aims: &[Aim], outcome: &Outcome) {
        for aim in aims {
            let mut of_kind = outcome.asked.iter().filter(|one| one.kind == aim.kind);
            // One whose request never came has tried nothing.
            let Some(hit) = of_kind.nth(aim.index).filter(|one| one.fault.is_some()) else {
                self.unreached.push(*aim);
                continue;
            };
            self.tried += 1;
            match &outcome.trouble {
                None => self.survived += 1,
                Some(trouble) => self.failed.push(format!("{aim}, {hit}: {trouble}")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_request_changes_nothing_of_how_a_run_ends() -> Result<()> {
    let mut lane = Lane::new().await?;
    let model = run(&mut lane, &[], None).await?;
    if let Some(trouble) = model.trouble {
        return Err(format!("a run without a fault: {trouble}").into());
    }
    let all = runs(&model).into_iter();
    let todo: VecDeque<Vec<Aim>> = all.step_by(scale::pick(SAMPLE, 1)).collect();
    println!("{} requests, {} runs", model.asked.len(), todo.len());
    let rests: Arc<[Value]> = model.rests.into();
    let todo = Arc::new(Mutex::new(todo));
    let score = Arc::new(Mutex::new(Score::default()));
    let lanes =
        (0..LANES).map(|_| tokio::spawn(follow(Arc::clone(&todo), Arc::clone(&rests), Arc::clone(&score))));
    for lane in futures::future::join_all(lanes).await {
        lane??;
    }
    let score = score.lock().unwrap();
    println!("not reached: {:?}", score.unreached);
    println!("faults: cells={} survived={}", score.tried, score.survived);
    assert!(score.failed.is_empty(), "{}", score.failed.join("\n"));
    // Runs differ by a few reports, so that the last requests of the model are not in each.
    assert!(
        score.tried > 3 * score.unreached.len(),
        "too many were not reached"
    );
    Ok(())
}

/// Runs what is to do, one after the other.
async fn follow(
    todo: Arc<Mutex<VecDeque<Vec<Aim>>>>,
    rests: Arc<[Value]>,
    score: Arc<Mutex<Score>>,
) -> Result<()> {
    let mut lane = Lane::new().await?;
    loop {
        let next = todo.lock().unwrap().pop_front();
        let Some(aims) = next else {
            return Ok(());
        };
        let outcome = run(&mut lane, &aims, Some(&rests)).await?;
        let names: Vec<String> = aims.iter().map(Aim::to_string).collect();
        let names = names.join(", ");
        let Some(trouble) = &outcome.trouble else {
            println!("well: {names}");
            score.lock().unwrap().add(&aims, &outcome);
            continue;
        };
        println!("FAILED: {names}: {trouble}");
        // What it has left in the broker is nobody's work.
        lane = Lane::new().await?;
        if aims.len() == 1 {
            score.lock().unwrap().add(&aims, &outcome);
            continue;
        }
        // Which of them it was, each tells alone. That they fail together stays a failure.
        score
            .lock()
            .unwrap()
            .failed
            .push(format!("together: {names}: {trouble}"));
        todo.lock().unwrap().extend(aims.iter().map(|aim| vec![*aim]));
    }
}
