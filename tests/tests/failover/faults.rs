//! A leader that is killed, stopped for longer than its lease, or cut off from the API server.

use jiff::Timestamp;
use poolwright_tests::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cast::{Cast, lease};

/// From the fault to the first write of the next leader, beyond the lease.
const BEYOND_LEASE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped,
    CutOff,
}

impl Fault {
    /// Late writes that may take effect: those that were on their way. A wire holds back what a leader has sent since it was
    /// cut, from all that it has at work; one that is stopped can only have been between its look at the clock and the
    /// kernel; a dead one sends nothing.
    fn in_flight_max(self) -> usize {
        match self {
            Self::Killed => 0,
            Self::Stopped => 1,
            Self::CutOff => 16,
        }
    }
}

const FAULTS: [Fault; 3] = [Fault::Killed, Fault::Stopped, Fault::CutOff];

/// What became of one fault.
#[derive(Debug)]
struct Outcome {
    gap: Duration,
    /// Late writes of the old leader, by the code of the answer.
    late: BTreeMap<u16, usize>,
    /// What the old leader had sent and the wire held back, so far.
    bytes: usize,
}

fn secs(range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(range.start + (range.end - range.start) * fastrand::f64())
}

/// One fault: it is over when the old leader has ended, was started again and stands by.
async fn round(cast: &mut Cast, fault: Fault) -> Result<Outcome> {
    let old = cast.leader().await?;
    let new = 1 - old;
    tokio::time::sleep(secs(2.0..6.0)).await;
    let began = Timestamp::now();
    let limit = lease() + BEYOND_LEASE * 2;
    match fault {
        Fault::Killed => {
            cast.both[old].operator.kill();
            cast.both[new].await_lead(limit).await?;
        }
        Fault::Stopped => {
            let frozen = cast.both[old].operator.freeze();
            cast.both[new].await_lead(limit).await?;
            // The new leader has written by now.
            tokio::time::sleep(secs(1.0..3.0)).await;
            drop(frozen);
        }
        Fault::CutOff => {
            cast.both[old].wire.cut();
            cast.both[new].await_lead(limit).await?;
            tokio::time::sleep(secs(1.0..3.0)).await;
            cast.both[old].wire.restore();
        }
    }
    let operator = &mut cast.both[old].operator;
    if fault != Fault::Killed {
        let status = operator.await_end(Duration::from_secs(5)).await?;
        assert_eq!(status.code(), Some(1), "it has lost its lease");
        assert!(operator.log().contains("lost the lease"), "it says why it ends");
    }
    // What it sent has arrived.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let over = Timestamp::now();
    cast.both[old].operator.start_again().await?;
    judge(cast, fault, (old, new), began, over)
}

/// What the audit log says of the time from a fault until the old leader was started again.
fn judge(
    cast: &Cast,
    fault: Fault,
    (old, new): (usize, usize),
    began: Timestamp,
    over: Timestamp,
) -> Result<Outcome> {
    let taken = cast.taken(new, began)?.ok_or("the lease was not taken")?;
    let ours = cast.writes(new, began, over)?;
    if let Some(early) = ours.iter().find(|one| one.at < taken) {
        return Err(format!("it wrote while it stood by: {early:?}").into());
    }
    let first = ours.iter().find(|one| one.code < 300);
    let first = first.ok_or("the new leader has written nothing")?;
    let gap = first.at.duration_since(began).unsigned_abs();
    let late = cast.writes(old, taken, over)?;
    let succeeded: Vec<&AuditEntry> = late.iter().filter(|one| one.code < 300).collect();
    for one in &succeeded {
        println!("late and not refused: {one:?}");
        let is_same = |other: &&AuditEntry| (&other.resource, &other.name) == (&one.resource, &one.name);
        // Whoever tells of something adds it.
        let decides = one.resource != "events";
        let overwritten = ours.iter().filter(is_same).find(|other| other.at < one.at);
        if let Some(newer) = overwritten.filter(|_| decides) {
            return Err(format!("{newer:?} was overwritten by the old leader's {one:?}").into());
        }
    }
    // A conflict is what the new leader's writes make of an old one's; all else was on its way.
    let others = late.iter().filter(|one| one.code != 409).count();
    if others > fault.in_flight_max() {
        return Err(format!("{others} late writes cannot all have been in flight: {late:?}").into());
    }
    let mut codes = BTreeMap::new();
    for one in late {
        *codes.entry(one.code).or_default() += 1;
    }
    Ok(Outcome {
        gap,
        late: codes,
        bytes: cast.both.iter().map(|one| one.wire.late_bytes()).sum(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_stopped_or_cut_off_is_replaced_and_overwrites_nothing() -> Result<()> {
    let mut cast = Cast::new("fail").await?;
    let done = AtomicBool::new(false);
    let mut outcomes = Vec::new();
    let ids = {
        // The load needs the bank while the operators change.
        let wire = cast.bank.wire.clone();
        let load = super::cast::load(&wire, &done);
        let faults = async {
            let rounds = scale::pick(3, 20);
            for fault in FAULTS.into_iter().cycle().take(rounds) {
                let outcome = round(&mut cast, fault).await;
                if outcome.is_err() {
                    done.store(true, Ordering::SeqCst);
                }
                let outcome = outcome.map_err(|error| format!("{fault:?}: {error}"))?;
                println!(
                    "{fault:?}: {:.1} s without a write; late writes by code: {:?}",
                    outcome.gap.as_secs_f64(),
                    outcome.late
                );
                outcomes.push(outcome);
            }
            done.store(true, Ordering::SeqCst);
            Ok(())
        };
        let (ids, ()) = futures::try_join!(load, faults)?;
        ids
    };
    let longest = outcomes.iter().map(|one| one.gap).max().unwrap_or_default();
    let count = |test: fn(u16) -> bool| -> usize {
        let all = outcomes.iter().flat_map(|one| &one.late);
        all.filter(|(code, _)| test(**code)).map(|(_, count)| count).sum()
    };
    println!(
        "{} faults with a lease of {} s: longest gap {:.1} s; {} bytes came late; late writes: {} took effect, {} conflicts, \
         {} others",
        outcomes.len(),
        lease().as_secs(),
        longest.as_secs_f64(),
        outcomes.last().map_or(0, |one| one.bytes),
        count(|code| code < 300),
        count(|code| code == 409),
        count(|code| code >= 300 && code != 409),
    );
    assert!(longest <= lease() + BEYOND_LEASE, "{longest:?} without a write");
    cast.expect_settled(&ids).await
}
