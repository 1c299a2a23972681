//! What Airflow's pools held, by Airflow's own API: as it was seen while the tasks ran, and as the times of the tasks tell
//! it afterwards.

use crate::{Airflow, Result};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;

/// One pool of Airflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Most {
    /// Its slots when it was last seen.
    pub slots: i64,
    /// Most that were taken at a time.
    pub taken: i64,
}

impl Most {
    /// It has held more than its slots.
    pub fn is_exceeded(&self) -> bool {
        self.slots >= 0 && self.taken > self.slots
    }
}

/// Every pool that was seen, by its name in Airflow.
#[derive(Debug, Default)]
pub struct Held {
    pools: BTreeMap<String, Most>,
}

impl Held {
    /// Asks what is held now.
    pub async fn look(&mut self, airflow: &Airflow) -> Result<()> {
        let answer = airflow.ask(Method::GET, "pools", None).await?;
        for pool in answer["pools"].as_array().into_iter().flatten() {
            let number = |key: &str| {
                pool[key]
                    .as_i64()
                    .ok_or("Airflow shows a pool without its numbers")
            };
            let name = pool["name"].as_str().unwrap_or_default();
            let most = self.pools.entry(name.to_owned()).or_default();
            most.slots = number("slots")?;
            most.taken = most.taken.max(number("occupied_slots")?);
        }
        Ok(())
    }

    /// The same with what the times of these task instances say: a task holds its slots from when it is queued until its
    /// end.
    pub fn with_tasks(&self, tasks: &[Value]) -> Result<BTreeMap<String, Most>> {
        let mut pools = self.pools.clone();
        for (name, most) in &mut pools {
            let own = tasks.iter().filter(|task| task["pool"] == name.as_str());
            let spans = own.map(span).collect::<Result<Vec<_>>>()?;
            most.taken = most
                .taken
                .max(at_a_time(&spans.into_iter().flatten().collect::<Vec<_>>()));
        }
        Ok(pools)
    }
}

/// From when to when a task held slots, and how many; nothing of one that never did. One that succeeded did.
fn span(task: &Value) -> Result<Option<(Timestamp, Timestamp, i64)>> {
    let (Some(queued), Some(end)) = (task["queued_when"].as_str(), task["end_date"].as_str()) else {
        if task["state"] == "success" {
            return Err("Airflow does not say when a task that succeeded was queued or ended".into());
        }
        return Ok(None);
    };
    let slots = task["pool_slots"].as_i64().ok_or("a task without pool_slots")?;
    Ok(Some((queued.parse()?, end.parse()?, slots)))
}

/// Most slots at a time. What ends at a moment is gone before what begins at it.
fn at_a_time(spans: &[(Timestamp, Timestamp, i64)]) -> i64 {
    let changes = spans
        .iter()
        .flat_map(|(begin, end, slots)| [(*begin, *slots), (*end, -slots)]);
    let mut changes: Vec<(Timestamp, i64)> = changes.collect();
    changes.sort_unstable();
    let sums = changes.into_iter().scan(0, |sum, (_, change)| {
        *sum += change;
        Some(*sum)
    });
    sums.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slots_are_held_from_the_queue_to_the_end() {
        let task = |queued: u32, end: u32, slots: u32| {
            json!({"pool": "a", "pool_slots": slots, "queued_when": format!("2026-01-01T00:00:{queued:02}.5Z"),
                "end_date": format!("2026-01-01T00:00:{end:02}.500Z")})
        };
        let mut held = Held::default();
        held.pools.insert("a".to_owned(), Most { slots: 3, taken: 1 });
        let most = |tasks: &[Value]| held.with_tasks(tasks).unwrap()["a"].taken;
        // The second takes what the first gives back.
        assert_eq!(most(&[task(1, 4, 3), task(4, 9, 3)]), 3);
        assert_eq!(most(&[task(1, 5, 3), task(4, 9, 2)]), 5);
        let never = json!({"pool": "a", "pool_slots": 9, "queued_when": null, "end_date": null});
        let untold = json!({"pool": "a", "pool_slots": 1, "state": "success", "queued_when": null});
        assert!(held.with_tasks(&[untold]).is_err());
        let other = json!({"pool": "b", "pool_slots": 9, "queued_when": null, "end_date": null});
        assert_eq!(most(&[never, other]), 1);
    }
}
